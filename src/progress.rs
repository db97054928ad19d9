//! What a person sees while a stage works: a bar with rate and time left on a terminal, nothing but
//! the stage's closing line elsewhere. Everything goes to stderr.

use crate::process::{self, Stopped};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

/// A number of bytes, for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        b if b < 1_000 => format!("{b} bytes"),
        b if b < 1_000_000 => format!("{:.1} kB", b as f64 / 1e3),
        b if b < 1_000_000_000 => format!("{:.1} MB", b as f64 / 1e6),
        b => format!("{:.2} GB", b as f64 / 1e9),
    }
}

/// The progress of one stage, or none.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for the stage `name`; hidden when stderr is not a terminal.
    pub fn new(name: &str) -> Progress {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_prefix(name.to_string());
        bar.set_style(style("{spinner} {prefix:<10} {msg}"));
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress { bar }
    }

    /// One that shows nothing.
    pub fn hidden() -> Progress {
        Progress { bar: ProgressBar::hidden() }
    }

    /// Begins a part of the work: `total` things called `what`, of which `done` were there already.
    pub fn begin(&self, what: &'static str, total: u64, done: u64) {
        self.bar.set_style(style(
            "{spinner} {prefix:<10} [{bar:32}] {human_pos}/{human_len} {msg}, {rate}, {eta} left",
        ));
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.bar.set_message(what);
    }

    /// Begins to count bytes: those of the file `name`, `done` of which are there already. `total`
    /// 0: nobody knows.
    pub fn bytes(&self, name: &str, total: u64, done: u64) {
        let template = match total {
            0 => "{spinner} {prefix:<10} {bytes} {bytes_per_sec} {wide_msg}",
            _ => {
                "{spinner} {prefix:<10} [{bar:32}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} \
                 left  {wide_msg}"
            }
        };
        self.bar.set_style(style(template));
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.bar.set_message(name.to_string());
    }

    /// Says something that stays on the screen, or in the log.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| process::note(text));
    }

    /// Says what is going on where nothing can be counted.
    pub fn say(&self, what: &'static str) {
        self.bar.set_style(style("{spinner} {prefix:<10} {msg} {elapsed}"));
        self.bar.set_message(what);
    }

    /// Says more of what is counted than its name.
    pub fn tell(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Sets what has been done of it.
    pub fn at(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Adds to what has been done of it.
    pub fn add(&self, n: u64) {
        self.bar.inc(n);
    }

    /// The same, at a point at which the program may end.
    ///
    /// # Errors
    /// When it is to stop.
    pub(crate) fn step(&self, n: u64) -> Result<(), Stopped> {
        self.add(n);
        process::check()
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let plain = ProgressStyle::default_bar();
    let styled = plain.clone().template(template).unwrap_or(plain).progress_chars("━╸ ");
    styled.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
        // A bar that cannot be written is not worth stopping for.
        let _ = write!(out, "{:.1} per second", state.per_sec());
    })
}
