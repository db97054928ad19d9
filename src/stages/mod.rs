//! One file a stage: read tables, call a room, write tables. No mathematics, no tensors; stages never call each other.

pub mod aggregate;
pub mod cache;
pub mod discover;
pub mod evaluate;
pub mod interpret;
pub mod render;
pub mod score;
pub mod tokenize;

pub mod inputs;
mod pairs;

pub use cache::SAMPLE;
pub use inputs::Input;

/// The table of contexts, by whose parts the sharded stages work.
fn tokens() -> crate::artifact::Artifact {
    <crate::artifact::tables::ContextRow as crate::artifact::Row>::ARTIFACT
}

/// The table of activations above zero.
fn scores() -> crate::artifact::Artifact {
    <crate::artifact::tables::ScoreRow as crate::artifact::Row>::ARTIFACT
}
