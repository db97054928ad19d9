//! Artifacts: every table of a run, declared once in `tables`, and the only door to the artifact
//! folder.
//!
//! `row` turns rows into Parquet and back, `store` reads and writes whole files under their names,
//! `writer` writes a table a stretch at a time, `seal` puts a hash of a file into it, `published` are
//! those that a site gives away, `activations` holds the one table whose columns depend on the run,
//! `origin` what parts say of what they have, `publish` makes a file appear whole or not at all, `folder` a folder, `hold` keeps others out meanwhile, `journal` is a file that only grows.

pub mod activations;
pub(crate) mod folder;
pub(crate) mod hold;
mod journal;
mod origin;
pub mod publish;
mod published;
mod row;
mod seal;
mod store;
pub mod tables;
mod writer;

pub(crate) use journal::Journal;
pub(crate) use origin::{ContextKey, Origin};
pub use published::PUBLISHED;
pub(crate) use published::{StoredTable, give};
pub use row::Column;
pub use row::Row;
pub(crate) use store::FORM;
pub use store::{Artifact, Store};
pub(crate) use writer::TableWriter;
