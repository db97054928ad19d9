//! Runs stages, and answers questions about a finished run.

use super::download::{downloaded, fetched};
use super::plan::{Selection, State, Workplace, check_before, outdated};
use super::table::{Asks, NAMES, STAGES, Stage};
use crate::artifact::Store;
use crate::config::Config;
use crate::error::{Context, Hint, Result, hinted};
use crate::format::number;
use crate::inputs::{Input, check_apart, check_converted};
use crate::llm::{Budget, check_key, last_round};
use crate::lock::{Entry, Reason, Stamp};
use crate::progress::Progress;
use crate::stages::{self, Done, Run};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

impl Workplace<'_> {
    pub(super) fn run(
        &mut self,
        state: &State,
        selection: &Selection,
        budget: &Budget,
    ) -> Result<Done> {
        let (stage, force) = (state.stage, selection.force);
        let progress = Progress::new(stage.name);
        if force {
            stage.writes.iter().try_for_each(|artifact| self.store.remove(artifact).map(drop))?;
        }
        let again = self.round(stage, selection)?;
        self.lock.begin(stage.name, again);
        self.lock.save(self.store.root())?;
        let start = Instant::now();
        let run = Run {
            config: self.config,
            store: &self.store,
            fingerprint: &state.fingerprint,
            progress: &progress,
            lock: &self.lock,
            again,
            budget,
            order: &NAMES,
        };
        let done = (stage.run)(&run);
        progress.end();
        let done = done.with_context(|| format!("stage `{}`", stage.name))?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{:<10} {} ({})", stage.name, done.summary, number::seconds(seconds));
        let files = self.stamps(stage)?;
        let finished = now();
        let ingredients = state.ingredients.clone();
        let (fingerprint, summary) = (state.fingerprint.clone(), done.summary.clone());
        let reasons = done.reasons.iter().map(|one| (one.reason.clone(), one.number)).collect();
        let Done { answered, failed, left, .. } = done;
        let entry = Entry {
            fingerprint,
            finished,
            seconds,
            summary,
            left,
            answered,
            failed,
            reasons,
            again: 0,
            ingredients,
            files,
        };
        self.lock.stages.insert(stage.name.into(), entry);
        self.lock.save(self.store.root())?;
        self.tell_failures(stage);
        Ok(done)
    }

    /// The round in which a stage asks failed questions again: that of a run that was killed, or a
    /// new one; 0 if it does not.
    fn round(&self, stage: &Stage, selection: &Selection) -> Result<u32> {
        let failed = self.lock.failed(stage.name) > 0;
        if !selection.again || !failed || stage.asks_by(self.config).is_none() {
            return Ok(0);
        }
        match self.lock.stages.get(stage.name).map_or(0, |entry| entry.again) {
            0 => Ok(last_round(&self.store)? + 1),
            begun => Ok(begun),
        }
    }

    /// Says why a stage lacks answers, and what to do about those that no run asks for by itself.
    fn tell_failures(&self, stage: &Stage) {
        let Some(entry) = self.lock.stages.get(stage.name) else { return };
        let name = stage.name;
        for (reason, number) in &entry.reasons {
            eprintln!("{name:<10} {number:>6} without an answer: {reason}");
        }
        if entry.failed > 0 {
            eprintln!(
                "{name:<10} `circuit-atlas run {name} --again failed` asks again for the {} \
                that failed",
                entry.failed
            );
        }
    }

    pub(super) fn plan(&self, state: &State, asks: &Asks) -> Result<String> {
        let progress = Progress::new(state.stage.name);
        let planned = (asks.plan)(&Run {
            config: self.config,
            store: &self.store,
            fingerprint: &state.fingerprint,
            progress: &progress,
            lock: &self.lock,
            again: 0,
            budget: &Budget::empty(),
            order: &NAMES,
        });
        progress.end();
        planned.with_context(|| format!("stage `{}`", state.stage.name))
    }

    pub(super) fn stamps(&self, stage: &Stage) -> Result<BTreeMap<String, Stamp>> {
        let files = stage.writes.iter().flat_map(|artifact| self.store.files(artifact));
        files.map(|name| Ok((name.clone(), Stamp::take(&self.store.root().join(&name))?))).collect()
    }
}

/// The time of day, for people; no result depends on it.
pub(super) fn now() -> String {
    chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now())
        .format("%Y-%m-%d %H:%M UTC")
        .to_string()
}

/// Holds an artifact folder for one run; the system lets go of it when the process ends, however it
/// ends.
pub(super) fn hold(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder).hint(
        || format!("cannot make the artifact folder `{}`", folder.display()),
        "set `output.artifacts` to a writable folder",
    )?;
    let path = folder.join(".running");
    let file = File::options().create(true).append(true).open(&path).hint(
        || format!("cannot write `{}`", path.display()),
        "set `output.artifacts` to a writable folder",
    )?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::Error(error)) => Err(error).hint(
            || format!("cannot lock `{}`", path.display()),
            "the file system must support locks; set `output.artifacts` to a folder on another one",
        ),
        Err(std::fs::TryLockError::WouldBlock) => Err(hinted(
            format!("another run is using the artifact folder `{}`", folder.display()),
            "wait for it to end, or set another `output.artifacts`",
        )),
    }
}

/// Brings the selected stages up to date, and says what of it came to nothing: the answers of
/// language models that failed, or were not to be had.
///
/// # Errors
/// When a stage fails; when a stage that is not selected has to run first; when an artifact was
/// changed by hand.
pub fn run(config: &Config, selection: &Selection) -> Result<Done> {
    selection.check()?;
    set_threads(config);
    // Before anything is written, be it only the folder.
    check_apart(config)?;
    let _held = hold(&config.artifacts())?;
    let config = &fetched(config, false)?;
    let mut place = Workplace::open(config)?;
    let states = place.states(selection)?;
    let will_run = |state: &State| {
        selection.wants(state.stage.name) && (selection.force || !state.why.is_empty())
    };
    check_before(&states, &will_run)?;
    place.check_untouched(states.iter().filter(|state| !will_run(state)))?;
    let wanted = || states.iter().filter(|state| selection.wants(state.stage.name));
    if !states.iter().any(will_run) {
        eprintln!("nothing to do: every stage is fresh");
        // What was hashed on the way is worth keeping.
        place.lock.save(place.store.root())?;
        wanted().for_each(|state| place.tell_failures(state.stage));
        let failed = wanted().map(|state| place.lock.failed(state.stage.name)).sum();
        return Ok(Done { failed, ..Done::default() });
    }
    place.check_ours(states.iter().filter(|state| will_run(state)))?;
    let dictionaries = states
        .iter()
        .any(|state| will_run(state) && state.stage.inputs.contains(&Input::Dictionaries));
    stages::check(config, dictionaries)?;
    if dictionaries {
        check_converted(config, &place.lock)?;
    }
    if states.iter().any(|state| will_run(state) && state.stage.asks_by(config).is_some()) {
        check_key(&config.llm)?;
    }
    let (budget, mut all) = (Budget::new(&config.llm), Done::default());
    for state in wanted() {
        if !will_run(state) {
            eprintln!("{:<10} fresh", state.stage.name);
            place.tell_failures(state.stage);
            all.failed += place.lock.failed(state.stage.name);
            continue;
        }
        for reason in first_reasons(&state.why) {
            eprintln!("{:<10} runs: {reason}", state.stage.name);
        }
        let done = place.run(state, selection, &budget)?;
        all.failed += done.failed;
        all.left += done.left;
    }
    Ok(all)
}

/// Sets rayon's threads, and through them candle's.
pub fn set_threads(config: &Config) {
    // Only the first call of a process can; it is the only one but in tests.
    drop(rayon::ThreadPoolBuilder::new().num_threads(config.machine.threads).build_global());
}

/// Asks what a run left behind, be it fresh or not; says in a line on stderr if it is not.
///
/// # Errors
/// When a stage that writes tables has not been run to its end, or what is asked fails.
pub fn ask<T>(config: &Config, question: impl FnOnce(&Run) -> Result<T>) -> Result<T> {
    let config = &downloaded(config)?;
    let mut place = Workplace::open(config)?;
    let writing = || STAGES.iter().filter(|stage| !stage.writes.is_empty());
    let finished = |stage: &&Stage| {
        place.lock.stages.get(stage.name).is_some_and(|entry| !entry.finished.is_empty())
    };
    if let Some(stage) = writing().find(|stage| !finished(stage)) {
        let folder = place.store.root().display();
        return Err(hinted(
            format!("there is no finished run in `{folder}`: `{}` has not finished", stage.name),
            "run it with `circuit-atlas run`",
        ));
    }
    if let Some(why) = outdated(&mut place) {
        eprintln!(
            "note: this is from an earlier run, {why}; `circuit-atlas run` brings it up to date"
        );
    }
    let mut store = Store::new(place.store.root());
    for stage in writing() {
        let fingerprint = &place.lock.stages[stage.name].fingerprint;
        stage.writes.iter().for_each(|artifact| store.expect(artifact, fingerprint, stage.name));
    }
    let progress = Progress::new("show");
    let answer = question(&Run {
        config,
        store: &store,
        fingerprint: "",
        progress: &progress,
        lock: &place.lock,
        again: 0,
        budget: &Budget::new(&config.llm),
        order: &NAMES,
    });
    progress.end();
    answer
}

/// The reasons that a run tells of a stage: a few of its own, or else what it follows from.
fn first_reasons(why: &[Reason]) -> &[Reason] {
    let own = why.iter().take_while(|reason| !reason.follows).count();
    &why[..own.clamp(1, 3).min(why.len())]
}
