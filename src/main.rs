//! The command `circuit-atlas`; see `circuit_atlas::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: nothing runs yet but this thread.
    unsafe { circuit_atlas::model::threads::settle() };
    circuit_atlas::cli::main()
}
