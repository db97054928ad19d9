//! The circuit of one prompt as a picture: positions across, layers up.
//!
//! `marks` says what is drawn for which nodes, the site's `layout` where everything stands, `picture` draws it,
//! `names` says what each node is, `data` tells it to the page's script. All are pure functions of plain values.

mod data;
mod marks;
mod names;
mod picture;

pub(super) use data::{GraphData, data};
pub(super) use marks::Marks;
pub(super) use names::{Names, slot_word};
pub(super) use picture::{key, picture};
