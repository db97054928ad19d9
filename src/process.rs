//! What the program writes to stdout and stderr, and what ends it before its work is done.
//!
//! Nothing here panics. A signal, or an output that cannot be written, asks the program to stop:
//! long loops look at that in [`check`], most of them through `progress`, and end with [`Stopped`].
//! What is finished by then is kept.

use signal_hook::consts::{SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether lines on stderr begin with the time.
static TIMES: AtomicBool = AtomicBool::new(false);

/// The first reason to stop that there was; later ones change nothing.
static STOP: OnceLock<Stopped> = OnceLock::new();

/// Why the program ends before its work is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// A signal asked for it.
    Signal(i32),
    /// Nobody reads what is written any more.
    Closed,
    /// An output cannot be written, as on a full disk. Which, and why.
    Unwritable(Stream, String),
}

/// One of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stopped {
    /// The exit code: for a signal, and for a closed pipe, that of a program which the signal ends.
    pub(crate) fn code(&self) -> u8 {
        const OF_SIGNALS: i32 = 128;
        let signal = match self {
            Stopped::Signal(signal) => *signal,
            Stopped::Closed => SIGPIPE,
            Stopped::Unwritable(..) => return 1,
        };
        u8::try_from(OF_SIGNALS + signal).unwrap_or(1)
    }
}

impl Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Stopped::Signal(SIGINT) => f.write_str("stopped by SIGINT"),
            Stopped::Signal(SIGTERM) => f.write_str("stopped by SIGTERM"),
            Stopped::Signal(signal) => write!(f, "stopped by signal {signal}"),
            Stopped::Closed => f.write_str("nobody reads the output any more"),
            Stopped::Unwritable(Stream::Stdout, why) => write!(f, "cannot write to stdout: {why}"),
            Stopped::Unwritable(Stream::Stderr, why) => write!(f, "cannot write to stderr: {why}"),
        }
    }
}

impl std::error::Error for Stopped {}

/// Asks the program to stop, if nothing has done so before.
fn stop(why: Stopped) -> bool {
    STOP.set(why).is_ok()
}

/// Why the program is to stop, if it is.
pub(crate) fn stopped() -> Option<&'static Stopped> {
    STOP.get()
}

/// A point at which the program may end.
///
/// # Errors
/// When it is to stop.
pub(crate) fn check() -> Result<(), Stopped> {
    stopped().map_or(Ok(()), |why| Err(why.clone()))
}

/// Lets SIGINT and SIGTERM ask the program to stop, instead of ending it at once; a second one
/// does.
///
/// # Errors
/// When the system does not let signals be watched.
pub(crate) fn watch_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let watch = move || {
        for signal in signals.forever() {
            let why = Stopped::Signal(signal);
            let code = why.code();
            if !stop(why) {
                signal_hook::low_level::exit(code.into());
            }
            note("stopping at the next safe point; another signal ends the program at once");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}

/// Writes a line to stdout.
pub(crate) fn say(line: impl Display) {
    write(Stream::Stdout, &format!("{line}\n"));
}

/// From now on lines on stderr begin with the time, in UTC.
pub(crate) fn tell_times() {
    TIMES.store(true, Ordering::Relaxed);
}

/// Writes a line to stderr.
pub(crate) fn note(line: impl Display) {
    let time = match TIMES.load(Ordering::Relaxed) {
        true => chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now())
            .format("%Y-%m-%dT%H:%M:%SZ ")
            .to_string(),
        false => String::new(),
    };
    write(Stream::Stderr, &format!("{time}{line}\n"));
}

/// Writes a text as it is.
pub(crate) fn write(stream: Stream, text: &str) {
    let all = |out: &mut dyn Write| out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written(
        stream,
        match stream {
            Stream::Stdout => all(&mut io::stdout().lock()),
            Stream::Stderr => all(&mut io::stderr().lock()),
        },
    );
}

/// Notes how writing to an output ended: one that cannot be written asks the program to stop.
pub(crate) fn written(stream: Stream, done: io::Result<()>) {
    if let Err(error) = done {
        stop(match error.kind() {
            ErrorKind::BrokenPipe => Stopped::Closed,
            _ => Stopped::Unwritable(stream, error.to_string()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_programs_that_the_signal_ends() {
        let codes = [Stopped::Signal(SIGINT), Stopped::Signal(SIGTERM), Stopped::Closed];
        assert_eq!(codes.map(|why| why.code()), [130, 143, 141]);
        assert_eq!(Stopped::Unwritable(Stream::Stderr, "full".into()).code(), 1);
    }
}
