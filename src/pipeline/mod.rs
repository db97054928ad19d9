//! Brings the stages up to date.
//!
//! `table` names every stage with the settings, files and artifacts that it depends on. From these
//! `plan` tells whether it is fresh, and why if it is not; `runner` runs it and writes down in the
//! lock what it ran with.

mod clean;
mod download;
mod plan;
mod runner;
mod table;

pub use clean::{Cleaned, clean};
pub use download::{fetch, with_hub};
pub use plan::{Selection, State, Told, causes_first, rehearse, status};
pub use runner::{ask, run, set_threads};
pub use table::{STAGES, Stage, help};
