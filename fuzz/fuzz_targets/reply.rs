#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| circuit_atlas_fuzz::reply(bytes));
