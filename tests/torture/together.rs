//! Several commands on one folder at the same time: one run goes on, the others are refused, and
//! what is shown is never a mixture.

use crate::bench::Bench;
use crate::kills::{recovers, site_is_whole};
use crate::{Draw, Held, Test};
use std::process::Stdio;

struct Runs;

pub(crate) fn runs() -> Result<Box<dyn Test>, String> {
    Ok(Box::new(Runs))
}

const COMMANDS: [&[&str]; 7] = [
    &["run"],
    &["run", "--from", "aggregate", "--force"],
    &["run", "render", "--force"],
    &["run", "score", "--shard", "1/2"],
    &["clean", "aggregate"],
    &["show", "task", "ioi"],
    &["status"],
];

impl Test for Runs {
    fn again(&mut self, draw: &mut Draw) -> Held {
        let bench = Bench::finished();
        let chosen: Vec<&[&str]> = (0..2 + draw.below(3)).map(|_| *draw.one(&COMMANDS)).collect();
        let started: Vec<_> = chosen
            .iter()
            .map(|arguments| {
                std::thread::sleep(std::time::Duration::from_millis(draw.below(300) as u64));
                let mut command = bench.command(arguments);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let about = |why: String| format!("{chosen:?}: {why}");
        for (arguments, child) in chosen.iter().zip(started) {
            let said = bench.said(child.wait_with_output().unwrap());
            let expected = [
                "another run is using",
                "there is no finished run",
                "a run is going on",
                "needs the output of",
                "is being",
            ];
            let is_known = expected.iter().any(|text| said.error().contains(text));
            if !said.ok && !is_known {
                return Err(about(format!("{arguments:?} fails: {}", said.err)));
            }
        }
        site_is_whole(&bench.file("site")).map_err(about)?;
        recovers(&bench).map_err(about)
    }
}
