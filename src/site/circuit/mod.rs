//! The circuit of a task over all of its prompts as one picture: what stands at a position across,
//! layers up, the answer on top.
//!
//! `sum` adds the graphs of the prompts, `choice` takes what a reader can take in, the site's `layout`
//! says where it stands, `picture` draws it, `words` names it.

mod choice;
mod picture;
mod sum;
mod words;

pub(super) use picture::{CircuitPicture, Size, circuit_picture};
pub(super) use sum::flows;
