//! The circuit of one prompt as a picture: positions across, layers up.
//!
//! `layout` says where everything stands, `picture` draws it, `names` says what each node is. All
//! are pure functions of plain values.

mod layout;
mod names;
mod picture;

pub(super) use names::{Names, slot_word};
pub(super) use picture::{key, picture};
