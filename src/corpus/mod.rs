//! From a corpus to token ids: files to documents, documents to ids, ids to windows, and ids back
//! to text for people.
//!
//! The only room that knows the `tokenizers` crate. It must not know the model, artifacts or
//! settings: a caller names files, columns and numbers. All text that comes through here is a
//! foreign text: it is passed on, never obeyed.

mod cut;
mod json;
mod lines;
mod parquet;
pub mod source;
mod text;
pub mod tokenizer;
pub mod windows;

pub use cut::Cut;
pub use source::{Content, Files, How, files, read, shards};

pub use crate::ids::Split;
pub(crate) use source::{KNOWN, looks_like_data, readable, some, unpacked_json};
pub use source::{RawDocument, Shard};
pub use tokenizer::TokenPiece;
pub use tokenizer::Tokenizer;
pub use windows::{Packer, SHORTEST, Window, half, order, repeated, stretches, windows};
