//! Which stages are fresh, and why the others have to run.

use super::download::downloaded;
use super::runner::{Hold, hold, set_threads};
use super::table::{NAMES, STAGES, Stage};
use crate::artifact::{Artifact, FORM, Store};
use crate::config::Config;
use crate::error::{Hint, Result, hinted, passing};
use crate::inputs::Input;
use crate::llm::ResponseCache;
use crate::lock::{ATTEMPT, Ingredients, Lock, Reason, fingerprint};
use crate::process;
use std::collections::BTreeSet;
use std::fs::File;

/// Which stages a command is about.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// None: all.
    pub stages: Vec<String>,
    /// Only this stage and those after it; none: from the first.
    pub from: Option<String>,
    /// Run them fresh or not.
    pub force: bool,
    /// Ask a language model again for answers that failed.
    pub again: bool,
    /// Accept answers that failed: a stage with some is complete.
    pub accept: bool,
}

impl Selection {
    /// # Errors
    /// When a name is not that of a stage.
    pub(super) fn check(&self) -> Result<()> {
        let known = |name: &&String| !STAGES.iter().any(|stage| stage.name == name.as_str());
        if let Some(name) = self.stages.iter().chain(&self.from).find(known) {
            return Err(hinted(
                format!("`{name}` is not a stage"),
                format!("the stages are {}", NAMES.map(|name| format!("`{name}`")).join(", ")),
            ));
        }
        let from = self.from.as_deref().unwrap_or(NAMES[0]);
        match self.stages.iter().find(|name| at(name) < at(from)) {
            None => Ok(()),
            Some(name) => Err(hinted(
                format!("`{name}` is before `{from}`, so that `--from {from}` leaves it out"),
                format!("name `{from}` and stages after it, or leave out `--from`"),
            )),
        }
    }

    pub(super) fn wants(&self, stage: &str) -> bool {
        let named = self.stages.is_empty() || self.stages.iter().any(|name| name == stage);
        named && self.from.as_ref().is_none_or(|from| at(stage) >= at(from))
    }
}

/// A stage's place in the order.
fn at(name: &str) -> Option<usize> {
    NAMES.iter().position(|stage| *stage == name)
}

/// A stage as it stands: fresh, or with the reasons why it has to run.
pub struct State {
    /// The stage.
    pub stage: &'static Stage,
    pub(super) ingredients: Ingredients,
    pub(super) fingerprint: String,
    /// The fingerprint but for ingredients that only say which features and contexts are wanted.
    pub(super) base: String,
    /// Why it has to run; empty if it is fresh.
    pub why: Vec<Reason>,
    /// It lacks answers of a language model and nothing else: what it gives may be used as it is.
    pub(super) open: bool,
    /// Why a run would refuse to take it for fresh.
    pub refused: Option<String>,
    /// Answers of a language model that failed, and that nobody has accepted: it is not complete.
    pub failed: u64,
    /// It has begun and not finished.
    pub begun: bool,
}

impl State {
    /// It need not run: `fresh`, or what it lacks.
    pub(crate) fn at_rest(&self) -> String {
        match self.failed {
            0 => "fresh".into(),
            failed => format!("incomplete: {failed} of the replies to its LLM requests failed"),
        }
    }

    /// What is to be done about what it lacks.
    pub(crate) fn next_steps(&self) -> String {
        let name = self.stage.name;
        format!(
            "`circuit-atlas run {name} --again failed` asks for them again, `--accept-failed` \
             accepts them"
        )
    }
}

/// What circuits of a prompt depend on.
const OF_MODEL: [Input; 2] = [Input::Model, Input::Dictionaries];

/// The artifact folder of a run, and what the lock says of it.
pub(super) struct Workplace<'a> {
    pub(super) config: &'a Config,
    pub(super) store: Store,
    pub(super) lock: Lock,
    /// The replies of language models, once they have been read.
    pub(super) replies: Option<ResponseCache>,
}

impl<'a> Workplace<'a> {
    pub(super) fn open(config: &'a Config) -> Result<Workplace<'a>> {
        let store = Store::new(&config.artifacts());
        let lock = Lock::load(store.root())?;
        Ok(Workplace { config, store, lock, replies: None })
    }

    /// Hashes the model and the dictionaries, and keeps the hashes for whoever opens the folder
    /// next, unless a run is going on: hashing takes seconds.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn remember(&mut self) -> Result<()> {
        let files = OF_MODEL
            .iter()
            .map(|input| input.files(self.config))
            .collect::<Result<Vec<_>>>()?
            .concat();
        if self.lock.remembers(&files) {
            return Ok(());
        }
        let Ok(_held) = hold(self.store.root(), Hold::Alone) else {
            return self.lock.remember(&files).map(drop);
        };
        self.lock = Lock::load(self.store.root())?;
        if self.lock.remember(&files)? {
            self.lock.save(self.store.root())?;
        }
        Ok(())
    }

    /// Whether every finished stage that reads the model or the dictionaries has read those that
    /// are there now.
    pub(super) fn is_of_same_model(&mut self) -> Result<bool> {
        for input in OF_MODEL {
            let mut now = input.pinned(self.config)?;
            for (name, path) in input.files(self.config)? {
                now.insert(format!("file {name}"), self.lock.hash(&name, &path)?);
            }
            let lacks = |stage: &Stage| {
                let made_from = self.lock.stages.get(stage.name).map(|entry| &entry.ingredients);
                now.iter()
                    .any(|(name, value)| made_from.and_then(|all| all.get(name)) != Some(value))
            };
            if STAGES.iter().any(|stage| stage.inputs.contains(&input) && lacks(stage)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn ingredients(
        &mut self,
        stage: &Stage,
        before: &[State],
        again: bool,
        failed: bool,
    ) -> Result<Ingredients> {
        let mut all = Ingredients::from([
            ("version".into(), stage.version.to_string()),
            ("version of files".into(), FORM.to_string()),
        ]);
        // A file of another version could not be read.
        let version = |table: &Artifact| {
            (format!("version of the table {}", table.name), table.version.to_string())
        };
        all.extend(stage.writes.iter().map(version));
        let flat = self.config.flat()?;
        for wanted in stage.settings {
            let fits = |key: &&String| {
                *key == wanted || (wanted.ends_with('.') && key.starts_with(wanted))
            };
            all.extend(
                flat.keys().filter(fits).map(|key| (format!("setting {key}"), flat[key].clone())),
            );
        }
        all.extend((stage.besides)(self.config));
        for input in stage.inputs {
            all.extend(input.pinned(self.config)?);
            for (name, path) in input.files(self.config)? {
                File::open(&path)
                    .hint(|| format!("cannot read `{}`", path.display()), input.hint())?;
                all.insert(format!("file {name}"), self.lock.hash(&name, &path)?);
            }
        }
        if let Some(attempt) = self.lock.attempt(stage.name, again, failed) {
            all.insert(ATTEMPT.into(), attempt.to_string());
        }
        for state in before.iter().filter(|state| stage.reads_from(state.stage)) {
            all.insert(format!("stage {}", state.stage.name), state.fingerprint.clone());
        }
        Ok(all)
    }

    /// Every stage with the reasons why it would run; a stage whose maker will run runs too. One
    /// that lacks only answers asks again if it is selected.
    pub(super) fn states(&mut self, selection: &Selection) -> Result<Vec<State>> {
        let mut states: Vec<State> = Vec::new();
        for stage in &STAGES {
            let wanted = selection.wants(stage.name);
            let again = selection.again && wanted && stage.asks_by(self.config).is_some();
            let (ingredients, mut why) = match self.ingredients(stage, &states, wanted, again) {
                Ok(ingredients) => {
                    let why = self.lock.stale(stage.name, &ingredients, self.store.root());
                    (ingredients, why)
                }
                // Files of a stage that nobody asks for may be missing: it is not fresh, and what
                // reads from it says why.
                Err(error) if !wanted => (Ingredients::new(), vec![Reason::own(error.to_string())]),
                Err(error) => return Err(error),
            };
            let failed = self.lock.failed(stage.name);
            if again && failed > 0 {
                why.retain(|reason| !reason.is_attempt());
                let text = format!("{failed} of its replies failed and are asked for again");
                why.insert(0, Reason::own(text));
            }
            let base = base(&ingredients, &states);
            let fingerprint = fingerprint(&ingredients);
            if let Some(besides) = stage.writes_besides.as_ref().filter(|_| why.is_empty()) {
                why.extend((besides.stale)(self.config, &fingerprint).map(Reason::own));
            }
            // A table that a version before did not write is in no lock.
            let gone = |artifact: &&Artifact| !artifact.sharded && !self.store.has(artifact);
            if let Some(artifact) = stage.writes.iter().find(gone).filter(|_| why.is_empty()) {
                why.push(Reason::own(format!("`{}` is missing", artifact.name)));
            }
            for artifact in stage.makes() {
                self.store.expect(artifact, &fingerprint, stage.name);
            }
            let open = self.lock.is_open(stage.name, &why);
            let failed = self.lock.unaccepted(stage.name);
            let begun = self.lock.is_begun(stage.name);
            let refused = None;
            states.push(State {
                stage,
                ingredients,
                fingerprint,
                base,
                why,
                open,
                refused,
                failed,
                begun,
            });
        }
        Ok(states)
    }

    /// # Errors
    /// When a stage that runs would replace a file that this program did not write.
    pub(super) fn check_ours<'s>(&self, states: impl Iterator<Item = &'s State>) -> Result<()> {
        let mut written = states.flat_map(|state| state.stage.all());
        written.try_for_each(|artifact| self.store.check_ours(artifact))
    }

    /// # Errors
    /// When a fresh stage's file was changed after it was written.
    pub(super) fn check_untouched<'s>(
        &self,
        mut states: impl Iterator<Item = &'s State>,
    ) -> Result<()> {
        let check = |state: &State| {
            let files = state.stage.writes.iter().flat_map(|artifact| self.store.files(artifact));
            self.lock.check_untouched(state.stage.name, self.store.root(), files)
        };
        states.try_for_each(|state| if state.why.is_empty() { check(state) } else { Ok(()) })
    }
}

/// What the numbers of `cache` and `score` depend on, whichever features and contexts are wanted; of
/// `tokenize`, the ids of a text.
fn base(ingredients: &Ingredients, before: &[State]) -> String {
    const WHICH: [&str; 8] = [
        "setting corpus.",
        "file corpus/",
        "hub datasets/",
        "setting score.",
        "setting groups.",
        "setting dictionaries of ",
        "stage discover",
        "stage tokenize",
    ];
    let mut own = ingredients.clone();
    own.retain(|name, _| !WHICH.iter().any(|which| name.starts_with(which)));
    if let Some(value) = own.get_mut("stage cache") {
        let cache = before.iter().find(|state| state.stage.name == "cache");
        *value = cache.map(|state| state.base.clone()).unwrap_or_default();
    }
    fingerprint(&own)
}

/// What a run would do, told on stdout: each selected stage as it stands, and what those that are
/// fresh, or could run at once, would ask of a language model. Nothing is written and nothing sent.
///
/// # Errors
/// When what would be asked depends on a stage that has to run first.
pub(crate) fn rehearse(config: &Config, selection: &Selection) -> Result<()> {
    selection.check()?;
    set_threads(config);
    let config = &downloaded(config)?;
    let mut place = Workplace::open(config)?;
    let states = place.states(selection)?;
    place.check_untouched(states.iter())?;
    let wanted = || states.iter().filter(|state| selection.wants(state.stage.name));
    for state in wanted() {
        match state.why.first() {
            Some(why) => process::say(format_args!("{:<10} would run: {why}", state.stage.name)),
            None if selection.force => {
                process::say(format_args!("{:<10} would run: --force", state.stage.name));
            }
            None => process::say(format_args!("{:<10} {}", state.stage.name, state.at_rest())),
        }
    }
    for state in wanted() {
        let Some(asks) = state.stage.asks_by(config) else { continue };
        let fresh = |before: &State| {
            before.why.is_empty() || (before.open && !selection.wants(before.stage.name))
        };
        let stale = |before: &&State| state.stage.needs(before.stage) && !fresh(before);
        match states.iter().find(stale) {
            None => {
                let plan = place.plan(state, asks)?;
                let name = state.stage.name;
                process::say(format_args!("\n{name} would send:\n{}", plan.trim_end()));
            }
            // That one is told of, and what it will say cannot be known.
            Some(before)
                if before.stage.asks_by(config).is_some() && selection.wants(before.stage.name) =>
            {
                process::say(format_args!(
                    "\nthe requests of {} are known only after `{}` has run",
                    state.stage.name, before.stage.name
                ));
            }
            Some(before) => return Err(unknown(state.stage, before)),
        }
    }
    Ok(())
}

pub(super) fn unknown(stage: &Stage, before: &State) -> anyhow::Error {
    let (why, first) =
        (before.why.first().map(|why| why.text.as_str()).unwrap_or_default(), before.stage.name);
    let names = names_between(first, stage.name);
    hinted(
        format!(
            "the requests of `{}` depend on the output of `{first}`, which is not fresh: {why}",
            stage.name
        ),
        format!("run the stages before it: `circuit-atlas run {}`", names.join(" ")),
    )
}

/// The names of the stages from `first` on, up to the one before `stage`.
pub(super) fn names_between(first: &str, stage: &str) -> Vec<&'static str> {
    let last = NAMES.into_iter().take_while(|name| *name != stage);
    last.skip_while(|name| *name != first).collect()
}

/// Every stage that one that runs reads from must be fresh or run too.
pub(super) fn check_before(states: &[State], will_run: &impl Fn(&State) -> bool) -> Result<()> {
    for run in states.iter().filter(|state| will_run(state)) {
        let before = states.iter().filter(|state| run.stage.needs(state.stage));
        for state in before.filter(|state| !will_run(state) && !state.open) {
            if let Some(why) = state.why.first() {
                return Err(hinted(
                    format!(
                        "`{}` needs the output of `{}`, which is not fresh: {why}",
                        run.stage.name, state.stage.name
                    ),
                    format!("run it first: `circuit-atlas run --from {}`", state.stage.name),
                ));
            }
        }
    }
    Ok(())
}

/// # Errors
/// When a run would replace a file that this program did not write.
pub(crate) fn check_outputs(config: &Config) -> Result<()> {
    let store = Store::new(&config.artifacts());
    STAGES.iter().flat_map(Stage::all).try_for_each(|artifact| store.check_ours(artifact))
}

/// The stages with their states, for `status`.
///
/// # Errors
/// When a file of the outside world is missing, or a run changes the results all the time.
pub fn status(config: &Config) -> Result<Vec<State>> {
    let config = &downloaded(config)?;
    unchanged(config, || {
        let mut place = Workplace::open(config)?;
        let mut states = place.states(&Selection::default())?;
        for state in &mut states {
            let refused = place.check_untouched(std::iter::once(&*state)).err();
            state.refused = refused.map(|error| error.to_string());
        }
        Ok(states)
    })
}

/// What `read` finds in the artifact folder while no stage begins or ends. It is read again when
/// one has: what was found then may be of two runs.
///
/// # Errors
/// Those of `read`; or when stages begin and end all the time.
pub(super) fn unchanged<T>(config: &Config, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    const READS: usize = 10;
    let folder = config.artifacts();
    for _ in 0..READS {
        let before = Lock::load(&folder)?;
        let found = read();
        if Lock::load(&folder)?.same_results(&before) {
            return found;
        }
    }
    Err(busy("the results change while they are read"))
}

/// The error of a question that cannot be answered while a run is going on.
pub(super) fn busy(why: impl std::fmt::Display) -> anyhow::Error {
    passing(format!("a run is going on: {why}"), WAIT)
}

pub(super) const WAIT: &str = "wait for it to end; `circuit-atlas status` tells how far it is";

/// Why the tables are not what a run would make now.
pub(super) fn outdated(place: &mut Workplace) -> Option<String> {
    match place.states(&Selection::default()) {
        Err(error) => Some(format!("its state is unknown ({error})")),
        Ok(states) => {
            let stale = states
                .into_iter()
                .find(|state| !state.stage.writes.is_empty() && !state.why.is_empty())?;
            Some(format!("`{}` would run again: {}", stale.stage.name, stale.why.first()?))
        }
    }
}

/// A stage as `status` tells of it.
pub struct Told<'a> {
    pub(crate) state: &'a State,
    /// Why it has to run, without what was told of a stage before it.
    pub(crate) causes: Vec<&'a Reason>,
    /// Stages that have to run for the causes told so far, and for no other.
    pub after: Vec<&'static str>,
}

impl Told<'_> {
    /// A stage with all its reasons.
    pub fn whole(state: &State) -> Told<'_> {
        Told { state, causes: state.why.iter().collect(), after: Vec::new() }
    }
}

/// The stages that are fresh, and those that have a cause of their own to run; others are named at
/// the stage whose causes they follow from. One that is incomplete is never folded away.
pub(crate) fn causes_first(states: &[State]) -> Vec<Told<'_>> {
    let mut told: Vec<Told> = Vec::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for state in states {
        let own = state.why.iter().filter(|why| !why.follows);
        let causes: Vec<&Reason> = own.filter(|why| known.insert(&why.text)).collect();
        let stale = |told: &&mut Told| !told.state.why.is_empty();
        match told.iter_mut().rev().find(stale) {
            Some(before)
                if causes.is_empty()
                    && !state.why.is_empty()
                    && state.refused.is_none()
                    && state.failed == 0 =>
            {
                before.after.push(state.stage.name);
            }
            _ if causes.is_empty() => told.push(Told::whole(state)),
            _ => told.push(Told { state, causes, after: Vec::new() }),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::table::STAGES;
    use super::*;

    fn state(at: usize, why: &[(&str, bool)]) -> State {
        let reason = |(text, follows): &(&str, bool)| Reason {
            text: (*text).to_string(),
            follows: *follows,
        };
        State {
            stage: &STAGES[at],
            ingredients: Ingredients::new(),
            fingerprint: String::new(),
            base: String::new(),
            why: why.iter().map(reason).collect(),
            open: false,
            refused: None,
            failed: 0,
            begun: false,
        }
    }

    #[test]
    fn what_follows_from_a_cause_is_folded_into_it() {
        let (model, output) = (("the model changed", false), ("the output changed", true));
        let states = [
            state(0, &[]),
            state(1, &[model]),
            state(2, &[model, output]),
            state(3, &[("a setting changed", false), model, output]),
            state(4, &[output]),
        ];
        let told = causes_first(&states);
        let told: Vec<_> =
            told.iter().map(|t| (t.state.stage.name, t.causes.len(), t.after.as_slice())).collect();
        let name = |at: usize| STAGES[at].name;
        let expected: [(_, _, &[&str]); 3] =
            [(name(0), 0, &[]), (name(1), 1, &[name(2)]), (name(3), 1, &[name(4)])];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_numbers_depend_on_is_neither_the_corpus_nor_which_features() {
        const NUMBERS: [&str; 6] = [
            "version",
            "setting cache.dtype",
            "file model/model.safetensors",
            "file model/tokenizer.json",
            "file dictionaries/mlp/sae.safetensors",
            "hub gpt2@main/config.json",
        ];
        const WHICH: [&str; 8] = [
            "setting corpus.context",
            "file corpus/a.jsonl",
            "hub datasets/a@main",
            "setting score.extra",
            "setting groups.two.features",
            "setting dictionaries of score.extra and groups",
            "stage tokenize",
            "stage discover",
        ];
        let of = |changed: &str| {
            let value = |name: &str| if name == changed { "changed" } else { "same" };
            let names = NUMBERS.into_iter().chain(WHICH);
            base(&names.map(|name| (name.into(), value(name).into())).collect(), &[])
        };
        let same = of("");
        NUMBERS.iter().for_each(|name| assert_ne!(of(name), same, "{name}"));
        WHICH.iter().for_each(|name| assert_eq!(of(name), same, "{name}"));
    }
}
