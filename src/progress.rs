//! What a person sees while a stage works: a bar with rate and time left on a terminal, elsewhere a
//! line a minute. Everything goes to stderr.

use crate::process::{self, Stopped};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often a log that is no terminal is told how far a stage is.
const LOGGED: Duration = Duration::from_secs(60);

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
    /// When a log was last told; none on a terminal.
    logged: Option<Arc<Mutex<Instant>>>,
}

impl Progress {
    /// A bar for the stage `name`; hidden when stderr is not a terminal.
    pub fn new(name: &str) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_prefix(name.to_string());
        bar.set_style(style("{spinner} {prefix:<10} {msg}"));
        bar.enable_steady_tick(Duration::from_millis(120));
        let logged = (!is_terminal).then(|| Arc::new(Mutex::new(Instant::now())));
        Progress { bar, logged }
    }

    /// One that shows nothing.
    pub fn hidden() -> Progress {
        Progress { bar: ProgressBar::hidden(), logged: None }
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
        self.log();
    }

    /// Adds to what has been done of it.
    pub fn add(&self, n: u64) {
        self.bar.inc(n);
        self.log();
    }

    /// Tells a log how far the work is, where it was not told for a while.
    fn log(&self) {
        let Some(Ok(mut last)) = self.logged.as_ref().map(|last| last.try_lock()) else { return };
        let Some(total) = self.bar.length().filter(|_| last.elapsed() >= LOGGED) else { return };
        *last = Instant::now();
        let (name, done, what) = (self.bar.prefix(), self.bar.position(), self.bar.message());
        let left = number_of_seconds(self.bar.eta());
        process::note(format_args!("{name:<10} {done}/{total} {what}, {left} left"));
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

/// `90 s`, `12 min`, `3.5 h`.
fn number_of_seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
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
