//! The circuit of one prompt as a picture and as a file for other programs: positions across,
//! layers up.
//!
//! `layout` says where everything stands, `picture` draws it, `names` says what each node is,
//! `reach` how much it matters, `exchange` writes the JSON of the public viewers. All are pure
//! functions of plain values.

mod exchange;
mod layout;
mod names;
mod picture;
mod reach;

pub use exchange::json;
pub use names::{Names, kind_word, slot_word};
pub use picture::{key, picture};
pub use reach::reach;
