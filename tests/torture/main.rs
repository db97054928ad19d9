//! The reliability campaign: kills, a loss of power, damage, a full disk, two runs at once, a faulty
//! server and mutated inputs, for as long as is wanted. `make torture`; what is promised, and which
//! part of this shows it, is in `docs/reliability.md`.
//!
//! It ends with a table: test, tries, passed, and what did not hold. `--seconds N` is shared evenly
//! by the tests, `--seed N` repeats a campaign, `--only NAME` runs one test.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../suite/bench.rs"]
mod bench;
mod damage;
mod inputs;
mod kills;
#[allow(dead_code)]
#[path = "../suite/llm_server.rs"]
mod llm_server;
mod power;
mod readers;
mod servers;
mod together;

use bench::REPOSITORY;
use circuit_atlas::stats::mix;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A draw of numbers that a seed repeats.
pub(crate) struct Draw {
    seed: u64,
    n: u64,
}

impl Draw {
    /// From 0 to below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.n += 1;
        (mix(self.seed, self.n) % n.max(1) as u64) as usize
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// What came of a try: why it did not hold, if it did not.
pub(crate) type Held = Result<(), String>;

/// What a test tries, again and again.
pub(crate) trait Test {
    /// One more try.
    fn again(&mut self, draw: &mut Draw) -> Held;
}

/// Makes a test ready, or says why it cannot be run here.
type Ready = fn() -> Result<Box<dyn Test>, String>;

const TESTS: [(&str, Ready); 9] = [
    ("kills at random moments", kills::at_random),
    ("kills at file operations", kills::at_operations),
    ("kills of a site that is replaced", kills::of_the_site),
    ("loss of power", power::lost),
    ("damaged files", damage::files),
    ("full disk", damage::full_disk),
    ("two of everything", together::runs),
    ("faulty server", servers::faulty),
    ("mutated inputs", inputs::mutated),
];

/// A row of the table.
struct Row {
    name: &'static str,
    tries: u32,
    passed: u32,
    failures: Vec<String>,
    skipped: Option<String>,
}

fn campaign(name: &'static str, ready: Ready, time: Duration, seed: u64) -> Row {
    let mut row = Row { name, tries: 0, passed: 0, failures: Vec::new(), skipped: None };
    let mut test = match ready() {
        Ok(test) => test,
        Err(why) => return Row { skipped: Some(why), ..row },
    };
    let (mut draw, begun) = (Draw { seed, n: 0 }, Instant::now());
    while row.tries == 0 || begun.elapsed() < time {
        row.tries += 1;
        match test.again(&mut draw) {
            Ok(()) => row.passed += 1,
            Err(why) => {
                eprintln!("{name}, try {}: {why}", row.tries);
                row.failures.push(why);
            }
        }
    }
    row
}

/// The value of an option of the command line.
fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next().and_then(|_| arguments.next())
}

fn main() -> ExitCode {
    let number = |name: &str, default: u64| option(name).map_or(default, |n| n.parse().unwrap());
    let (seconds, seed) = (number("--seconds", 60), number("--seed", 1));
    let only = option("--only");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let tests: Vec<_> = TESTS.into_iter().filter(|(name, _)| wanted(name)).collect();
    let each = Duration::from_secs(seconds) / tests.len().max(1) as u32;
    let rows: Vec<Row> =
        tests.into_iter().map(|(name, ready)| campaign(name, ready, each, seed)).collect();
    println!("{:<34} {:>7} {:>7}", "test", "tries", "passed");
    for row in &rows {
        match &row.skipped {
            Some(why) => println!("{:<34} skipped: {why}", row.name),
            None => println!("{:<34} {:>7} {:>7}", row.name, row.tries, row.passed),
        }
    }
    let required = std::env::var("CI").as_deref() == Ok("true");
    let failed = |row: &Row| !row.failures.is_empty() || (required && row.skipped.is_some());
    if rows.iter().any(failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
