//! What a user is told when something goes wrong: what and where in the chain of causes, and the
//! next step as a hint.
//!
//! Messages are lower case, without a final period; names of files, keys and commands stand in
//! backticks.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use anyhow::{Context, Result};

/// An error with the next step for the user to take.
#[derive(Debug)]
pub(crate) struct Hinted {
    what: String,
    hint: String,
    /// Another try may not meet it.
    passing: bool,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Hinted {}

/// A run was not published, as it does not meet the bounds of the settings. What it misses.
#[derive(Debug)]
pub(crate) struct HeldBack(pub Vec<String>);

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "the run does not meet `[publish]`, so the site stays as it was: {}",
            self.0.join("; ")
        )
    }
}

impl std::error::Error for HeldBack {}

/// An error that says `what`, with a `hint` at what to do about it.
pub(crate) fn hinted(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { what: what.into(), hint: hint.into(), passing: false }.into()
}

/// The same of an error that another try may not meet, such as another process in the way.
pub(crate) fn passing(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { what: what.into(), hint: hint.into(), passing: true }.into()
}

/// An error that says `what`, because of another one, with a `hint` at what to do about it.
pub fn because(
    cause: impl Into<anyhow::Error>,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> anyhow::Error {
    cause.into().context(Hinted { what: what.into(), hint: hint.into(), passing: false })
}

/// The same of an error that another try may not meet, whatever its cause says.
pub(crate) fn because_passing(
    cause: impl Into<anyhow::Error>,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> anyhow::Error {
    cause.into().context(Hinted { what: what.into(), hint: hint.into(), passing: true })
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

/// The hint nearest to the cause.
pub(crate) fn hint_of(error: &anyhow::Error) -> Option<&str> {
    nearest(error).map(|hinted| hinted.hint.as_str())
}

/// The error with a hint that is nearest to the cause.
fn nearest(error: &anyhow::Error) -> Option<&Hinted> {
    // A `Hinted` used as context is seen through `anyhow`, one used as the error itself through the
    // chain.
    let in_chain = error.chain().filter_map(|cause| cause.downcast_ref::<Hinted>()).last();
    in_chain.or_else(|| error.downcast_ref::<Hinted>())
}

/// Whether another try may not meet an error: of a disk or a network, or of another process that is
/// in the way. What is wrong with settings and files stays wrong.
pub(crate) fn may_pass(error: &anyhow::Error) -> bool {
    use io::ErrorKind::*;
    let of_file = |kind| {
        matches!(
            kind,
            NotFound
                | PermissionDenied
                | AlreadyExists
                | InvalidInput
                | InvalidData
                | InvalidFilename
                | IsADirectory
                | NotADirectory
                | ReadOnlyFilesystem
                | UnexpectedEof
                | Unsupported
                | BrokenPipe
                // What libraries make of errors of their own; the system has other kinds.
                | Other
        )
    };
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| !of_file(io.kind())) || nearest(error).is_some_and(|own| own.passing)
}

/// Calls a library on a file that somebody brought. Some readers panic at damaged files; that
/// becomes an error, and nothing is printed of it.
///
/// # Errors
/// Those of the call, and its panic.
pub(crate) fn caught<T, E: Into<anyhow::Error>>(call: impl FnOnce() -> Result<T, E>) -> Result<T> {
    thread_local! {
        static HERE: Cell<bool> = const { Cell::new(false) };
    }
    /// Calls in progress: polars reads on threads of its own.
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = take_hook();
        set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let of_polars = thread.name().is_some_and(|name| name.starts_with("polars"));
            if !(HERE.get() || of_polars && CALLS.load(Ordering::Relaxed) > 0) {
                shown(panic);
            }
        }));
    });
    let outer = HERE.replace(true);
    CALLS.fetch_add(1, Ordering::Relaxed);
    let called = catch_unwind(AssertUnwindSafe(call));
    CALLS.fetch_sub(1, Ordering::Relaxed);
    HERE.set(outer);
    match called {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => Err(anyhow::anyhow!("its reader failed: {}", message(panic.as_ref()))),
    }
}

/// The first line of what a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_disks_may_pass_and_those_of_settings_stay() {
        let io = |kind| because(io::Error::from(kind), "cannot read `x`", "look at it");
        assert!(
            may_pass(&io(io::ErrorKind::TimedOut)) && may_pass(&io(io::ErrorKind::StorageFull))
        );
        assert!(may_pass(&io(io::ErrorKind::StaleNetworkFileHandle).context("stage `score`")));
        assert!(may_pass(&passing("another run", "wait").context("stage `score`")));
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(may_pass(&because_passing(cut, "lost", "again").context("stage `score`")));
        assert!(!may_pass(&io(io::ErrorKind::NotFound)) && !may_pass(&hinted("bad key", "set it")));
    }

    #[test]
    fn a_panic_is_an_error_and_the_next_call_is_a_call() {
        let parsed = |text: &str| caught(|| text.parse::<u32>());
        assert_eq!(parsed("7").unwrap(), 7);
        assert!(parsed("x").unwrap_err().to_string().contains("invalid digit"));
        let place = [1, 2].len();
        let failed = caught(|| -> Result<u32> { Ok([1, 2][place]) }).unwrap_err();
        assert!(failed.to_string().starts_with("its reader failed: index out of bounds"));
        assert_eq!(parsed("8").unwrap(), 8);
    }
}
