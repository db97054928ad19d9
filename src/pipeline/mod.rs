//! Brings the stages up to date.
//!
//! `table` names every stage with the settings, files and artifacts that it depends on. From these
//! `plan` tells whether it is fresh, and why if it is not; `runner` runs it and writes down in the
//! lock what it ran with; `shards` makes a share of a stage's parts beside others.

mod clean;
mod download;
mod plan;
mod runner;
mod shards;
pub(crate) mod slurm;
mod table;

pub use clean::Cleaned;
pub use clean::{clean, clean_runs};
pub use download::fetch;
pub(crate) use download::with_hub;
pub use plan::{Selection, State};
pub use plan::{Told, status};
pub(crate) use plan::{causes_first, check_outputs, rehearse};
pub use runner::{ask, run, set_threads};
pub(crate) use runner::{ask_beside, ask_model, is_held, while_alone, while_free};
pub use shards::run_shard;
pub use table::Stage;
pub(crate) use table::version;
pub use table::{STAGES, help};
