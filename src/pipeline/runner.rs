//! Runs stages, and answers questions about a finished run.

use super::download::{downloaded, fetched, with_hub};
use super::plan::{Selection, State, WAIT, Workplace, check_before, outdated, unchanged};
use super::table::{Asks, NAMES, STAGES, Stage};
use crate::artifact::hold::glanced;
use crate::artifact::tables::{
    AblatedRow, AgreementRow, CausalRow, CauseRow, CircuitPairRow, CorpusPairRow, EvaluationRow,
    ExchangeRow, ExplanationRow, JUDGE_LEDGER, JudgementRow, LedgerRow, ReadingRow,
};
use crate::artifact::{Row, Store};
use crate::config::Config;
use crate::error::{Context, Hint, Result, passing};
use crate::format::number;
use crate::inputs::{Input, check_apart, check_converted};
use crate::llm::{Budget, ResponseCache, Spent, check_key};
use crate::lock::{Carried, Entry, Lock, Reason, Stamp};
use crate::process;
use crate::progress::Progress;
use crate::stages::{self, Done, PartsTally, Run};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Instant;

/// The file that a run holds in its artifact folder.
const RUNNING: &str = ".running";

/// Tables that only add to what others say of a task, a feature, a head or a prompt.
const ADDED: [&str; 13] = [
    CircuitPairRow::ARTIFACT.name,
    CorpusPairRow::ARTIFACT.name,
    CauseRow::ARTIFACT.name,
    ReadingRow::ARTIFACT.name,
    AblatedRow::ARTIFACT.name,
    ExplanationRow::ARTIFACT.name,
    ExchangeRow::ARTIFACT.name,
    LedgerRow::ARTIFACT.name,
    EvaluationRow::ARTIFACT.name,
    JudgementRow::ARTIFACT.name,
    AgreementRow::ARTIFACT.name,
    CausalRow::ARTIFACT.name,
    JUDGE_LEDGER.name,
];

impl Workplace<'_> {
    pub(super) fn run(
        &mut self,
        state: &State,
        selection: &Selection,
        budget: &Budget,
    ) -> Result<Done> {
        let (stage, force) = (state.stage, selection.force);
        let progress = Progress::new(stage.name);
        let again = self.round(stage, selection)?;
        let carried = self.carried(state, budget);
        // Before any table goes away, so that who reads them meanwhile can know.
        self.lock.begin(stage.name, again);
        if let Some(carried) = carried {
            self.lock.carry(stage.name, carried);
        }
        self.lock.save(self.store.root())?;
        if force {
            self.remove(stage)?;
        }
        // What killed runs, and shards, were writing.
        let mut sharded = stage.makes().filter(|artifact| artifact.sharded);
        sharded.try_for_each(|artifact| self.store.remove_unfinished(artifact))?;
        let start = Instant::now();
        let parts = PartsTally::default();
        let run = Run { again, ..self.stage_run(state, &progress, budget, &parts) };
        let done = (stage.run)(&run);
        progress.end();
        let done = done.with_context(|| format!("stage `{}`", stage.name))?;
        let seconds = start.elapsed().as_secs_f64();
        process::note(format_args!(
            "{:<10} {} ({})",
            stage.name,
            done.summary,
            number::seconds(seconds)
        ));
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
            accepted: selection.accept && failed > 0,
            reasons,
            again: 0,
            carried: None,
            ingredients,
            files,
        };
        self.lock.stages.insert(stage.name.into(), entry);
        self.lock.save(self.store.root())?;
        self.let_go(stage)?;
        self.tell_failures(stage);
        Ok(Done { failed: self.lock.unaccepted(stage.name), ..done })
    }

    /// What the run has spent before a stage that asks. Of one that was killed in it, and of its shards,
    /// that is taken out of the budget, with what was spent in the stage.
    fn carried(&self, state: &State, budget: &Budget) -> Option<Carried> {
        let (name, run) = (state.stage.name, &state.fingerprint);
        state.stage.asks_by(self.config)?;
        if let Some(before) = self.lock.carried(name, run).filter(|_| state.begun) {
            budget.charge(before.calls, before.cost);
        }
        let Spent { calls, cost, .. } = budget.spent();
        if let Some(replies) = self.replies.as_ref().filter(|_| state.begun) {
            let spent = replies.spent(&self.config.llm, run, |_| true);
            budget.charge(spent.calls, spent.cost);
        }
        Some(Carried { run: run.clone(), calls, cost })
    }

    /// Removes what a stage has kept until it was done.
    fn let_go(&self, stage: &Stage) -> Result<()> {
        stage.keeps.iter().try_for_each(|kept| self.store.remove(kept).map(drop))?;
        self.remove_earlier(stage).map(drop)
    }

    /// Removes what a stage has set aside of earlier runs; the names of what is not ours.
    fn remove_earlier(&self, stage: &Stage) -> Result<Vec<String>> {
        let sharded = stage.writes.iter().filter(|artifact| artifact.sharded);
        let left = sharded.map(|artifact| self.store.remove_earlier(artifact));
        Ok(left.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Removes everything that a stage wrote into the artifact folder; the names of what is not ours.
    pub(super) fn remove(&self, stage: &Stage) -> Result<Vec<String>> {
        let left = stage.all().map(|artifact| self.store.remove(artifact));
        let mut left = left.collect::<Result<Vec<_>>>()?.concat();
        left.extend(self.remove_earlier(stage)?);
        Ok(left)
    }

    /// What a stage is given: all its parts to make, and no failed question to ask again.
    pub(super) fn stage_run<'r>(
        &'r self,
        state: &'r State,
        progress: &'r Progress,
        budget: &'r Budget,
        parts: &'r PartsTally,
    ) -> Run<'r> {
        Run {
            config: self.config,
            store: &self.store,
            fingerprint: &state.fingerprint,
            base: &state.base,
            progress,
            lock: &self.lock,
            again: 0,
            replies: self.replies.as_ref(),
            budget,
            order: &NAMES,
            shard: None,
            share: None,
            parts,
        }
    }

    /// The round in which a stage asks failed questions again: that of a run that was killed, or a
    /// new one; 0 if it does not.
    fn round(&self, stage: &Stage, selection: &Selection) -> Result<u32> {
        let failed = self.lock.failed(stage.name) > 0;
        if !selection.again || !failed || stage.asks_by(self.config).is_none() {
            return Ok(0);
        }
        match self.lock.stages.get(stage.name).map_or(0, |entry| entry.again) {
            0 => Ok(self.replies.as_ref().map_or(0, ResponseCache::last_round) + 1),
            begun => Ok(begun),
        }
    }

    /// Accepts what has failed in the selected stages; those that run yet accept theirs when they
    /// end.
    fn accept(&mut self, selection: &Selection) -> Result<()> {
        for stage in STAGES.iter().filter(|stage| selection.wants(stage.name)) {
            self.lock.accept(stage.name);
        }
        self.lock.save(self.store.root())
    }

    /// Says why a stage lacks answers, and what to do about those that no run asks for by itself.
    fn tell_failures(&self, stage: &Stage) {
        let Some(entry) = self.lock.stages.get(stage.name) else { return };
        let name = stage.name;
        for (reason, number) in &entry.reasons {
            without_answers(name, *number, reason);
        }
        match entry.failed {
            0 => {}
            failed if entry.accepted => {
                process::note(format_args!("{name:<10} the {failed} that failed are accepted"));
            }
            failed => process::note(format_args!(
                "{name:<10} `circuit-atlas run {name} --again failed` asks again for the {failed} \
                 that failed, `--accept-failed` accepts them"
            )),
        }
    }

    pub(super) fn plan(&mut self, state: &State, asks: &Asks) -> Result<String> {
        if self.replies.is_none() {
            self.replies = Some(ResponseCache::open(&self.store, None)?);
        }
        let progress = Progress::new(state.stage.name);
        let (budget, parts) = (Budget::empty(), PartsTally::default());
        let planned = (asks.plan)(&self.stage_run(state, &progress, &budget, &parts));
        progress.end();
        planned.with_context(|| format!("stage `{}`", state.stage.name))
    }

    /// A stage that writes tables and has not been run to its end.
    fn unfinished(&self) -> Option<&'static Stage> {
        let finished = |stage: &&Stage| {
            self.lock.stages.get(stage.name).is_some_and(|entry| !entry.finished.is_empty())
        };
        writing().find(|stage| !finished(stage))
    }

    /// The tables of finished stages, of their own fingerprints. Those of a stage that has not
    /// finished are closed; with `of_one_run` also those made from tables that are there no more.
    fn finished_store(&self, of_one_run: bool, why: &str, hint: &str) -> Store {
        let mut store = Store::new(self.store.root());
        let mut open: BTreeMap<&str, &str> = BTreeMap::new();
        for stage in writing() {
            let entry = self.lock.stages.get(stage.name).filter(|entry| !entry.finished.is_empty());
            let made_from_these = |entry: &&Entry| {
                let mut before = entry.ingredients.iter().filter_map(|(name, fingerprint)| {
                    Some((name.strip_prefix("stage ")?, fingerprint.as_str()))
                });
                before.all(|(name, fingerprint)| open.get(name) == Some(&fingerprint))
            };
            match entry.filter(|entry| !of_one_run || made_from_these(entry)) {
                Some(entry) => {
                    open.insert(stage.name, &entry.fingerprint);
                    let own = stage.writes.iter();
                    own.for_each(|table| store.expect(table, &entry.fingerprint, stage.name));
                }
                None => stage.writes.iter().for_each(|table| {
                    store.close(table, why, hint, ADDED.contains(&table.name));
                }),
            }
        }
        store
    }

    /// Answers a question, as of a stage that writes nothing.
    fn asked<T>(
        &self,
        name: &str,
        store: &Store,
        question: impl FnOnce(&Run) -> Result<T>,
    ) -> Result<T> {
        let progress = Progress::new(name);
        let answer = question(&Run {
            config: self.config,
            store,
            fingerprint: "",
            base: "",
            progress: &progress,
            lock: &self.lock,
            again: 0,
            replies: None,
            budget: &Budget::new(&self.config.llm),
            order: &NAMES,
            shard: None,
            share: None,
            parts: &PartsTally::default(),
        });
        progress.end();
        answer
    }

    pub(super) fn stamps(&self, stage: &Stage) -> Result<BTreeMap<String, Stamp>> {
        let files = stage.writes.iter().flat_map(|artifact| self.store.files(artifact));
        files.map(|name| Ok((name.clone(), Stamp::take(&self.store.root().join(&name))?))).collect()
    }
}

/// Says why questions to a language model have no answer.
pub(super) fn without_answers(name: &str, number: u64, reason: &str) {
    process::note(format_args!("{name:<10} {number:>6} without an answer: {reason}"));
}

/// The time of day, for people; no result depends on it.
pub(super) fn now() -> String {
    chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now())
        .format("%Y-%m-%d %H:%M UTC")
        .to_string()
}

/// Beside whom an artifact folder is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nobody.
    Alone,
    /// Others who hold it so too: shards of a stage.
    Shared,
}

impl Hold {
    fn try_take(self, file: &File) -> Result<(), TryLockError> {
        match self {
            Hold::Alone => file.try_lock(),
            Hold::Shared => file.try_lock_shared(),
        }
    }
}

/// Holds an artifact folder for one run; the system lets go of it when the process ends, however it
/// ends.
pub(super) fn hold(folder: &Path, beside: Hold) -> Result<File> {
    std::fs::create_dir_all(folder).hint(
        || format!("cannot make the artifact folder `{}`", folder.display()),
        "set `output.artifacts` to a writable folder",
    )?;
    let path = folder.join(RUNNING);
    // Readable too: on network file systems only such a file can be held beside others.
    let file = File::options().read(true).append(true).create(true).open(&path).hint(
        || format!("cannot write `{}`", path.display()),
        "set `output.artifacts` to a writable folder",
    )?;
    match glanced(|| beside.try_take(&file)) {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(error).hint(
            || format!("cannot lock `{}`", path.display()),
            "the file system must support locks; set `output.artifacts` to a folder on another one",
        ),
        Err(TryLockError::WouldBlock) => Err(passing(
            format!("another run is using the artifact folder `{}`", folder.display()),
            "wait for it to end, or set another `output.artifacts`",
        )),
    }
}

/// Whether a run, or a shard of one, is using an artifact folder.
pub(crate) fn is_held(folder: &Path) -> bool {
    let path = folder.join(RUNNING);
    let is_taken = |taken| matches!(taken, Err(TryLockError::WouldBlock));
    // Whoever may not write the folder can still tell a whole run.
    match File::options().read(true).append(true).open(&path) {
        Ok(file) => {
            is_taken(file.try_lock_shared()) || {
                drop(file.unlock());
                is_taken(glanced(|| file.try_lock()))
            }
        }
        Err(_) => File::open(path).is_ok_and(|file| is_taken(file.try_lock_shared())),
    }
}

/// Does something in an artifact folder that no run must be using meanwhile; nothing while one is.
pub(crate) fn while_free(folder: &Path, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let open = File::options().create(true).append(true).open(folder.join(RUNNING));
    match open.map(|file| (file.try_lock(), file)) {
        Ok((Ok(()), _held)) => act(),
        _ => Ok(()),
    }
}

/// Does something in an artifact folder that no run may use meanwhile.
///
/// # Errors
/// When a run is using it, or what is done fails.
pub(crate) fn while_alone(folder: &Path, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let _held = hold(folder, Hold::Alone)?;
    act()
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
    let _held = hold(&config.artifacts(), Hold::Alone)?;
    Lock::remove_unfinished(&config.artifacts())?;
    let config = &fetched(config, false)?;
    let mut place = Workplace::open(config)?;
    if selection.accept {
        place.accept(selection)?;
    }
    let states = place.states(selection)?;
    let will_run = |state: &State| {
        selection.wants(state.stage.name) && (selection.force || !state.why.is_empty())
    };
    check_before(&states, &will_run)?;
    // Where a run was killed between a stage's end and this.
    let done = states.iter().filter(|state| !will_run(state) && state.why.is_empty());
    done.map(|state| state.stage).try_for_each(|stage| place.let_go(stage))?;
    place.check_untouched(states.iter().filter(|state| !will_run(state)))?;
    let wanted = || states.iter().filter(|state| selection.wants(state.stage.name));
    if !states.iter().any(will_run) {
        let failed = wanted().map(|state| state.failed).sum();
        process::note(match failed {
            0 => "nothing to do: every stage is fresh",
            _ => "nothing to do: every stage has run",
        });
        // What was hashed on the way is worth keeping.
        place.lock.save(place.store.root())?;
        wanted().for_each(|state| place.tell_failures(state.stage));
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
        place.replies = Some(ResponseCache::open(&place.store, None)?);
    }
    let (budget, mut all) = (Budget::new(&config.llm), Done::default());
    for state in wanted() {
        if !will_run(state) {
            process::note(format_args!("{:<10} {}", state.stage.name, state.at_rest()));
            place.tell_failures(state.stage);
            all.failed += state.failed;
            continue;
        }
        process::check()?;
        for reason in first_reasons(&state.why) {
            process::note(format_args!("{:<10} runs: {reason}", state.stage.name));
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
pub fn ask<T>(config: &Config, question: impl Fn(&Run) -> Result<T>) -> Result<T> {
    let config = &downloaded(config)?;
    let (answer, outdated, left_out) = unchanged(config, || answer(config, &question))?;
    if let Some(why) = left_out {
        process::note(format_args!("note: {why}: what is made from it is left out"));
    } else if let Some(why) = outdated {
        process::note(format_args!(
            "note: this is from an earlier run, {why}; `circuit-atlas run` brings it up to date"
        ));
    }
    Ok(answer)
}

/// Asks the model and the dictionaries of the settings, which are downloaded first if they have to
/// be. No stage need have run, and what stages wrote is not looked at.
///
/// # Errors
/// When inputs are where outputs would be written, or what is asked fails.
pub(crate) fn ask_model<T>(config: &Config, question: impl FnOnce(&Run) -> Result<T>) -> Result<T> {
    check_apart(config)?;
    let config = &with_hub(config)?;
    let mut place = Workplace::open(config)?;
    place.remember()?;
    check_converted(config, &place.lock)?;
    place.asked("trace", &place.store, question)
}

/// Asks a finished run about what an answer of [`ask_model`] can do without; none where there is no
/// finished run of the same model and dictionaries, be it fresh or not in everything else.
///
/// # Errors
/// When what is asked fails.
pub(crate) fn ask_beside<T>(
    config: &Config,
    question: impl Fn(&Run) -> Result<T>,
) -> Result<Option<T>> {
    let config = &with_hub(config)?;
    unchanged(config, || {
        let mut place = Workplace::open(config)?;
        if place.unfinished().is_some() || !place.is_of_same_model()? {
            return Ok(None);
        }
        place.asked("trace", &place.finished_store(false, "", ""), &question).map(Some)
    })
}

/// The stages that write tables.
fn writing() -> impl Iterator<Item = &'static Stage> {
    STAGES.iter().filter(|stage| !stage.writes.is_empty())
}

/// An answer from the tables as they are, and why they are not what a run would make now. While a
/// run is going on, or after one that was killed, it is an answer if the stages whose tables it needs
/// have finished, and were made from one another.
fn answer<T>(
    config: &Config,
    question: impl Fn(&Run) -> Result<T>,
) -> Result<(T, Option<String>, Option<String>)> {
    let mut place = Workplace::open(config)?;
    let shown = |name: &str| writing().any(|stage| stage.name == name);
    let folder = place.store.root().display().to_string();
    let is_held = is_held(place.store.root());
    let unfinished = place.unfinished().map(|stage| format!("`{}` has not finished", stage.name));
    let mixed = place.lock.mixed(shown).filter(|_| is_held);
    let mixed =
        mixed.map(|(after, before)| format!("`{before}` has run again, and `{after}` not yet"));
    let of_one_run = unfinished.is_some() || mixed.is_some();
    let left_out = unfinished.or(mixed);
    let (why, hint) = match &left_out {
        None => Default::default(),
        Some(why) if is_held => (format!("a run is going on: {why}"), WAIT),
        Some(why) => (
            format!("there is no finished run in `{folder}`: {why}"),
            "run it with `circuit-atlas run`",
        ),
    };
    let outdated = outdated(&mut place);
    let store = place.finished_store(of_one_run, &why, hint);
    Ok((place.asked("show", &store, question)?, outdated, left_out))
}

/// The reasons that a run tells of a stage: a few of its own, or else what it follows from.
fn first_reasons(why: &[Reason]) -> &[Reason] {
    let own = why.iter().take_while(|reason| !reason.follows).count();
    &why[..own.clamp(1, 3).min(why.len())]
}
