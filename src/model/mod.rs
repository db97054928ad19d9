//! GPT-2, folded (`docs/definitions.md` §2): load it, run it, look inside, replace what a component
//! writes.
//!
//! Knows nothing of dictionaries, tasks or tables.

mod check;
mod checkpoint;
mod config;
mod gpt2;
mod pack;
pub(crate) mod pickle;
mod readings;
pub mod threads;
mod trace;

pub use check::{Against, ModelCheck, check_model};
pub use checkpoint::{FOLDER, weights};
pub use gpt2::Layer;
pub use gpt2::Unfolded;
pub use gpt2::{Added, Behind, Gpt2, Sizes};
pub(crate) use gpt2::{Attended, HookedLayer, Surprise, gelu_and_slope};
pub(crate) use pack::packs;
pub use readings::Reading;
pub(crate) use trace::Abreast;
pub use trace::{Clean, Intervention, LayerTrace, Trace};
