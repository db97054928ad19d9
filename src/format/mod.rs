//! Numbers and foreign text as people read them, for pages and the terminal alike.

pub(crate) mod heat;
pub(crate) mod number;
pub(crate) mod text;
