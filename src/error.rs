//! What a user is told when something goes wrong: what and where in the chain of causes, and the
//! next step as a hint.
//!
//! Messages are lower case, without a final period; names of files, keys and commands stand in
//! backticks.

use std::fmt;

pub use anyhow::{Context, Result};

/// An error with the next step for the user to take.
#[derive(Debug)]
pub(crate) struct Hinted {
    what: String,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Hinted {}

/// An error that says `what`, with a `hint` at what to do about it.
pub(crate) fn hinted(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { what: what.into(), hint: hint.into() }.into()
}

/// An error that says `what`, because of another one, with a `hint` at what to do about it.
pub fn because(
    cause: impl Into<anyhow::Error>,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> anyhow::Error {
    cause.into().context(Hinted { what: what.into(), hint: hint.into() })
}

/// A result's error put under a message with a hint.
pub(crate) trait Hint<T> {
    fn hint(self, what: impl FnOnce() -> String, hint: &str) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hint<T> for Result<T, E> {
    fn hint(self, what: impl FnOnce() -> String, hint: &str) -> Result<T> {
        self.map_err(|error| because(error, what(), hint))
    }
}

/// The whole message: `error: …`, its causes, and the hint nearest to the cause.
pub fn report(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  because: {cause}\n"));
    }
    if let Some(hint) = hint_of(error) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

fn hint_of(error: &anyhow::Error) -> Option<&str> {
    // A `Hinted` used as context is seen through `anyhow`, one used as the error itself through the
    // chain.
    let in_chain = error.chain().filter_map(|cause| cause.downcast_ref::<Hinted>()).last();
    in_chain.or_else(|| error.downcast_ref::<Hinted>()).map(|hinted| hinted.hint.as_str())
}
