//! GPT-2, folded (DESIGN.md 4.1): load it, run it, look inside, replace what a component writes.
//!
//! Knows nothing of dictionaries, tasks or tables.

mod checkpoint;
mod gpt2;
pub mod threads;
mod trace;

pub use checkpoint::{FOLDER, weights};
pub(crate) use gpt2::Attended;
pub use gpt2::{Added, Behind, Gpt2, Layer, Sizes, Unfolded};
pub use trace::{Ablation, Abreast, Clean, Intervention, LayerTrace, Trace};
