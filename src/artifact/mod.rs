//! Artifacts: every table of a run, declared once in `tables`, and the only door to the artifact
//! folder.
//!
//! `row` turns rows into Parquet and back, `store` reads and writes whole files under their names,
//! `activations` holds the one table whose columns depend on the run, `publish` makes a file appear
//! whole or not at all, `journal` is a file that only grows.

pub mod activations;
mod journal;
pub mod publish;
mod row;
mod store;
pub mod tables;

pub(crate) use journal::Journal;
pub use row::Column;
pub use row::Row;
pub use store::{Artifact, Store};
