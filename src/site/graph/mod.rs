//! The circuit of one prompt as a picture and as a file for other programs: positions across, layers up.
//!
//! `layout` says where everything stands, `picture` draws it, `names` says what each node is, `exchange` writes the JSON
//! of the public viewers. All are pure functions of plain values.

mod exchange;
mod layout;
mod names;
mod picture;

pub use exchange::json;
pub use names::{Names, kind_word, slot_word};
pub use picture::{key, picture};
