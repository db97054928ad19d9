//! From a corpus to token ids: files to documents, documents to ids, ids to windows, and ids back
//! to text for people.
//!
//! The only room that knows the `tokenizers` crate. It must not know the model, artifacts or
//! settings: a caller names files, columns and numbers. All text that comes through here is a
//! foreign text: it is passed on, never obeyed.

mod lines;
mod parquet;
pub mod source;
pub mod tokenizer;
pub mod windows;

pub(crate) use source::readable;
pub use source::{Content, files, read, shards};
pub use source::{RawDocument, Shard};
pub use tokenizer::TokenPiece;
pub use tokenizer::Tokenizer;
pub use windows::{Packer, SHORTEST, Window, half, order, repeated, windows};
