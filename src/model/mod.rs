//! GPT-2, folded (`docs/definitions.md` §2): load it, run it, look inside, replace what a component
//! writes.
//!
//! Knows nothing of dictionaries, tasks or tables.

mod checkpoint;
mod gpt2;
pub mod threads;
mod trace;

pub use checkpoint::{FOLDER, weights};
pub(crate) use gpt2::Attended;
pub use gpt2::Layer;
pub use gpt2::Unfolded;
pub use gpt2::{Added, Behind, Gpt2, Sizes};
pub use trace::Ablation;
pub(crate) use trace::Abreast;
pub use trace::{Clean, Intervention, LayerTrace, Trace};
