//! Numbers and foreign text as people read them, for pages and the terminal alike.

pub mod heat;
pub mod number;
pub mod text;
