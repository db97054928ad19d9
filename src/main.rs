//! The command `circuit-atlas`; see `circuit_atlas::cli`.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: nothing runs yet but this thread.
    unsafe { circuit_atlas::model::threads::settle() };
    match circuit_atlas::cli::run(circuit_atlas::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprint!("{}", circuit_atlas::error::report(&error));
            ExitCode::FAILURE
        }
    }
}
