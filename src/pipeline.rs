//! The table of stages, and the runner that brings them up to date.
//!
//! A stage names the settings, outside files and artifacts that it depends on. From these the
//! runner tells whether it is fresh, says why if not, runs it, and writes down what it ran with.

use crate::artifact::tables::*;
use crate::artifact::{Artifact, Row, Store};
use crate::config::{Config, Snapshot};
use crate::error::{Context, Hint, Result, hinted};
use crate::hub;
use crate::inputs::Input;
use crate::llm::{Budget, check_key};
use crate::lock::{ATTEMPT, Entry, Ingredients, Lock, Stamp, fingerprint};
use crate::progress::Progress;
use crate::stages::{self, Done, Run};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

/// One step of the pipeline.
pub struct Stage {
    pub name: &'static str,
    /// What it does, for the help.
    pub does: &'static str,
    /// Raised when its results change for the same ingredients.
    version: u32,
    /// Settings it depends on: keys, or whole tables with a dot at the end.
    settings: &'static [&'static str],
    /// Files of the outside world.
    inputs: &'static [Input],
    /// What it depends on besides, made from the settings.
    besides: fn(&Config) -> Ingredients,
    reads: &'static [Artifact],
    /// A stage whose results are not read, but that must have passed.
    after: Option<&'static str>,
    writes: &'static [Artifact],
    writes_besides: Option<Besides>,
    run: fn(&Run) -> Result<Done>,
    asks: Option<Asks>,
}

/// What a stage asks of a language model.
struct Asks {
    /// By the settings, anything at all.
    whether: fn(&Config) -> bool,
    /// How much it would be, in a table.
    plan: fn(&Run) -> Result<String>,
}

/// What a stage writes besides artifacts.
struct Besides {
    /// Why it has to be made again although its ingredients, which have this fingerprint, are the
    /// same.
    stale: fn(&Config, &str) -> Option<String>,
    /// Says what it leaves, as others wrote it.
    remove: fn(&Config) -> Result<Option<String>>,
}

/// The stages in their order.
pub const STAGES: [Stage; 11] = [
    Stage {
        name: "tokenize",
        does: "text → documents → contexts of token ids",
        version: 1,
        settings: &["corpus."],
        inputs: &[Input::Corpus, Input::Tokenizer],
        besides: nothing,
        reads: &[],
        after: None,
        writes: &[Document::ARTIFACT, ContextRow::ARTIFACT],
        writes_besides: None,
        run: stages::tokenize::run,
        asks: None,
    },
    Stage {
        name: "measure",
        does: "how well each dictionary describes the model; refuses one that is another's or is \
            read wrongly",
        version: 3,
        settings: &[],
        inputs: &[Input::Model, Input::Dictionaries],
        besides: nothing,
        reads: &[ContextRow::ARTIFACT],
        after: None,
        writes: &[ConformanceRow::ARTIFACT],
        writes_besides: None,
        run: stages::conformance::run,
        asks: None,
    },
    Stage {
        name: "discover",
        does: "prompts → a circuit each → components and features of the task",
        version: 5,
        settings: &["tasks.", "discover.", "verify.prompts"],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries, Input::Prompts],
        besides: nothing,
        reads: &[],
        after: Some("measure"),
        writes: &[
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            ComponentRow::ARTIFACT,
            CircuitFeature::ARTIFACT,
            RankingRow::ARTIFACT,
            HookScoreRow::ARTIFACT,
        ],
        writes_besides: None,
        run: stages::discover::run,
        asks: None,
    },
    Stage {
        name: "verify",
        does: "are the circuits real? runs the model with everything else replaced, and with \
            single features",
        version: 3,
        settings: &["tasks.", "discover.", "verify."],
        inputs: &[
            Input::Model,
            Input::Tokenizer,
            Input::Dictionaries,
            Input::Prompts,
            Input::Published,
        ],
        besides: crate::inputs::published_from,
        reads: &[
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            ComponentRow::ARTIFACT,
            RankingRow::ARTIFACT,
        ],
        after: None,
        writes: &[FaithfulnessRow::ARTIFACT, EffectRow::ARTIFACT],
        writes_besides: None,
        run: stages::verify::run,
        asks: None,
    },
    Stage {
        name: "heads",
        does: "where each head of a circuit looks, what it copies, which features are its own",
        version: 2,
        settings: &[],
        inputs: &[Input::Model, Input::Dictionaries, Input::Published],
        besides: crate::inputs::published_from,
        reads: &[PromptRow::ARTIFACT, ComponentRow::ARTIFACT, CircuitFeature::ARTIFACT],
        after: None,
        writes: &[
            HeadRow::ARTIFACT,
            AttentionRow::ARTIFACT,
            CopyRow::ARTIFACT,
            HeadFeatureRow::ARTIFACT,
            PublishedRow::ARTIFACT,
        ],
        writes_besides: None,
        run: stages::heads::run,
        asks: None,
    },
    Stage {
        name: "cache",
        does: "one pass of the model over every context; keeps what the dictionaries read",
        version: 3,
        settings: &["cache.store", "cache.dtype", "score.features"],
        inputs: &[Input::Model],
        besides: stages::cache::besides,
        reads: &[ContextRow::ARTIFACT, CircuitFeature::ARTIFACT],
        after: None,
        writes: &[ACTIVATIONS],
        writes_besides: None,
        run: stages::cache::run,
        asks: None,
    },
    Stage {
        name: "score",
        does: "the activation of every circuit feature at every token",
        version: 3,
        settings: &["score.", "groups."],
        inputs: &[Input::Dictionaries],
        besides: nothing,
        reads: &[ContextRow::ARTIFACT, CircuitFeature::ARTIFACT, ACTIVATIONS],
        after: None,
        writes: &[ScoreRow::ARTIFACT],
        writes_besides: None,
        run: stages::score::run,
        asks: None,
    },
    Stage {
        name: "aggregate",
        does: "statistics, examples, promoted tokens, co-occurrence, clusters",
        version: 2,
        settings: &["aggregate.", "logits.", "groups."],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries],
        besides: nothing,
        reads: &[
            Document::ARTIFACT,
            ContextRow::ARTIFACT,
            ScoreRow::ARTIFACT,
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            CircuitFeature::ARTIFACT,
        ],
        after: None,
        writes: &[
            FeatureRow::ARTIFACT,
            ExampleRow::ARTIFACT,
            LogitRow::ARTIFACT,
            CircuitPairRow::ARTIFACT,
            CorpusPairRow::ARTIFACT,
            ClusterRow::ARTIFACT,
        ],
        writes_besides: None,
        run: stages::aggregate::run,
        asks: None,
    },
    Stage {
        name: "interpret",
        does: "an explanation for every feature, pair, component and group",
        version: 3,
        settings: &["llm.", "groups."],
        inputs: &[Input::Tokenizer],
        besides: nothing,
        reads: &[
            FeatureRow::ARTIFACT,
            ExampleRow::ARTIFACT,
            LogitRow::ARTIFACT,
            ClusterRow::ARTIFACT,
            CircuitPairRow::ARTIFACT,
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            ComponentRow::ARTIFACT,
            HeadRow::ARTIFACT,
            AttentionRow::ARTIFACT,
            CopyRow::ARTIFACT,
            HeadFeatureRow::ARTIFACT,
            PublishedRow::ARTIFACT,
        ],
        after: None,
        writes: &[ExplanationRow::ARTIFACT, ExchangeRow::ARTIFACT, LedgerRow::ARTIFACT],
        writes_besides: None,
        run: stages::interpret::run,
        asks: Some(Asks { whether: |config| config.llm.asks(), plan: stages::interpret::plan }),
    },
    Stage {
        name: "evaluate",
        does: "how good explanations are, on documents that they have not seen and in the live \
            model",
        version: 3,
        settings: &["evaluate.", "llm."],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries],
        besides: nothing,
        reads: &[
            Document::ARTIFACT,
            ContextRow::ARTIFACT,
            ScoreRow::ARTIFACT,
            FeatureRow::ARTIFACT,
            ExampleRow::ARTIFACT,
            LogitRow::ARTIFACT,
            ExplanationRow::ARTIFACT,
        ],
        after: None,
        writes: &[
            EvaluationRow::ARTIFACT,
            JudgementRow::ARTIFACT,
            AgreementRow::ARTIFACT,
            CausalRow::ARTIFACT,
            JUDGE_LEDGER,
        ],
        writes_besides: None,
        run: stages::evaluate::run,
        asks: Some(Asks { whether: stages::evaluate::asks, plan: stages::evaluate::plan }),
    },
    Stage {
        name: "render",
        does: "all of it → the site",
        version: 7,
        settings: &["site.", "groups."],
        inputs: &[Input::Tokenizer],
        besides: stages::render::besides,
        reads: &[
            ContextRow::ARTIFACT,
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            ComponentRow::ARTIFACT,
            CircuitFeature::ARTIFACT,
            RankingRow::ARTIFACT,
            HookScoreRow::ARTIFACT,
            FaithfulnessRow::ARTIFACT,
            EffectRow::ARTIFACT,
            HeadRow::ARTIFACT,
            AttentionRow::ARTIFACT,
            CopyRow::ARTIFACT,
            HeadFeatureRow::ARTIFACT,
            PublishedRow::ARTIFACT,
            ConformanceRow::ARTIFACT,
            FeatureRow::ARTIFACT,
            ExampleRow::ARTIFACT,
            LogitRow::ARTIFACT,
            CircuitPairRow::ARTIFACT,
            CorpusPairRow::ARTIFACT,
            ExplanationRow::ARTIFACT,
            ExchangeRow::ARTIFACT,
            LedgerRow::ARTIFACT,
            EvaluationRow::ARTIFACT,
            JudgementRow::ARTIFACT,
            AgreementRow::ARTIFACT,
            CausalRow::ARTIFACT,
            JUDGE_LEDGER,
        ],
        after: None,
        writes: &[],
        writes_besides: Some(Besides {
            stale: stages::render::stale,
            remove: stages::render::remove,
        }),
        run: stages::render::run,
        asks: None,
    },
];

/// Which stages a command is about.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// None: all.
    pub stages: Vec<String>,
    pub from: Option<String>,
    /// Run them fresh or not.
    pub force: bool,
}

impl Selection {
    /// # Errors
    /// When a name is not that of a stage.
    fn check(&self) -> Result<()> {
        let known = |name: &&String| !STAGES.iter().any(|stage| stage.name == name.as_str());
        match self.stages.iter().chain(&self.from).find(known) {
            None => Ok(()),
            Some(name) => Err(hinted(
                format!("`{name}` is not a stage"),
                format!("the stages are {}", NAMES.map(|name| format!("`{name}`")).join(", ")),
            )),
        }
    }

    fn wants(&self, stage: &str) -> bool {
        let at = |name: &str| STAGES.iter().position(|stage| stage.name == name);
        let named = self.stages.is_empty() || self.stages.iter().any(|name| name == stage);
        named && self.from.as_ref().is_none_or(|from| at(stage) >= at(from))
    }
}

/// The names of all stages, in their order.
const NAMES: [&str; STAGES.len()] = {
    let mut names = [""; STAGES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = STAGES[i].name;
        i += 1;
    }
    names
};

/// The stages and what each does, for the help.
pub fn help() -> String {
    let line = |stage: &Stage| format!("\n  {:<10} {}", stage.name, stage.does);
    format!("Stages:{}", STAGES.iter().map(line).collect::<String>())
}

/// A stage as it stands: fresh, or with the reasons why it has to run.
pub struct State {
    pub stage: &'static Stage,
    ingredients: Ingredients,
    fingerprint: String,
    pub why: Vec<String>,
    /// It lacks answers of a language model and nothing else: what it gives may be used as it is.
    open: bool,
    /// Why a run would refuse to take it for fresh.
    pub refused: Option<String>,
}

/// The artifact folder of a run, and what the lock says of it.
struct Workplace<'a> {
    config: &'a Config,
    store: Store,
    lock: Lock,
}

impl<'a> Workplace<'a> {
    fn open(config: &'a Config) -> Result<Workplace<'a>> {
        let store = Store::new(&config.artifacts());
        let lock = Lock::load(store.root())?;
        Ok(Workplace { config, store, lock })
    }

    fn ingredients(&mut self, stage: &Stage, before: &[State], again: bool) -> Result<Ingredients> {
        let mut all = Ingredients::from([("version".into(), stage.version.to_string())]);
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
        if let Some(attempt) = self.lock.attempt(stage.name, again) {
            all.insert(ATTEMPT.into(), attempt.to_string());
        }
        for state in before.iter().filter(|state| stage.reads_from(state.stage)) {
            all.insert(format!("stage {}", state.stage.name), state.fingerprint.clone());
        }
        Ok(all)
    }

    /// Every stage with the reasons why it would run; a stage whose maker will run runs too. One
    /// that lacks only answers asks again if it is selected.
    fn states(&mut self, selection: &Selection) -> Result<Vec<State>> {
        let mut states: Vec<State> = Vec::new();
        for stage in &STAGES {
            let ingredients = self.ingredients(stage, &states, selection.wants(stage.name))?;
            let mut why = self.lock.stale(stage.name, &ingredients, self.store.root());
            let fingerprint = fingerprint(&ingredients);
            if let Some(besides) = stage.writes_besides.as_ref().filter(|_| why.is_empty()) {
                why.extend((besides.stale)(self.config, &fingerprint));
            }
            for artifact in stage.writes {
                self.store.expect(artifact, &fingerprint, stage.name);
            }
            let open = self.lock.is_open(stage.name, &why);
            states.push(State { stage, ingredients, fingerprint, why, open, refused: None });
        }
        Ok(states)
    }

    /// # Errors
    /// When a fresh stage's file was changed after it was written.
    fn check_untouched<'s>(&self, mut states: impl Iterator<Item = &'s State>) -> Result<()> {
        let check = |state: &State| {
            let files = state.stage.writes.iter().flat_map(|artifact| self.store.files(artifact));
            self.lock.check_untouched(state.stage.name, self.store.root(), files)
        };
        states.try_for_each(|state| if state.why.is_empty() { check(state) } else { Ok(()) })
    }

    fn run(&mut self, state: &State, force: bool, budget: &Budget) -> Result<Done> {
        let stage = state.stage;
        let progress = Progress::new(stage.name);
        if force {
            stage.writes.iter().try_for_each(|artifact| self.store.remove(artifact))?;
        }
        self.lock.begin(stage.name);
        self.lock.save(self.store.root())?;
        let start = Instant::now();
        let run = Run {
            config: self.config,
            store: &self.store,
            fingerprint: &state.fingerprint,
            progress: &progress,
            lock: &self.lock,
            budget,
            order: &NAMES,
        };
        let done = (stage.run)(&run);
        progress.end();
        let done = done.with_context(|| format!("stage `{}`", stage.name))?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{:<10} {} ({})", stage.name, done.summary, duration(seconds));
        let files = self.stamps(stage)?;
        let finished = now();
        let ingredients = state.ingredients.clone();
        let (fingerprint, summary, left) =
            (state.fingerprint.clone(), done.summary.clone(), done.left);
        let entry = Entry { fingerprint, finished, seconds, summary, left, ingredients, files };
        self.lock.stages.insert(stage.name.into(), entry);
        self.lock.save(self.store.root())?;
        Ok(done)
    }

    fn plan(&self, state: &State, asks: &Asks) -> Result<String> {
        let progress = Progress::new(state.stage.name);
        let planned = (asks.plan)(&Run {
            config: self.config,
            store: &self.store,
            fingerprint: &state.fingerprint,
            progress: &progress,
            lock: &self.lock,
            budget: &Budget::empty(),
            order: &NAMES,
        });
        progress.end();
        planned.with_context(|| format!("stage `{}`", state.stage.name))
    }

    fn stamps(&self, stage: &Stage) -> Result<BTreeMap<String, Stamp>> {
        let files = stage.writes.iter().flat_map(|artifact| self.store.files(artifact));
        files.map(|name| Ok((name.clone(), Stamp::take(&self.store.root().join(&name))?))).collect()
    }
}

impl Stage {
    fn reads_from(&self, other: &Stage) -> bool {
        self.reads.iter().any(|read| other.writes.iter().any(|written| written.name == read.name))
    }

    /// What it asks of a language model, if the settings let it.
    fn asks_by(&self, config: &Config) -> Option<&Asks> {
        self.asks.as_ref().filter(|asks| (asks.whether)(config))
    }

    /// That stage must be fresh before this one runs.
    fn needs(&self, other: &Stage) -> bool {
        self.reads_from(other) || self.after == Some(other.name)
    }
}

fn nothing(_: &Config) -> Ingredients {
    Ingredients::new()
}

/// The time of day, for people; no result depends on it.
fn now() -> String {
    chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now())
        .format("%Y-%m-%d %H:%M UTC")
        .to_string()
}

/// How long something took, for people.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {:02} min", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}

/// Holds an artifact folder for one run; the system lets go of it when the process ends, however it
/// ends.
fn hold(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder).hint(
        || format!("cannot make the artifact folder `{}`", folder.display()),
        "set `output.artifacts` to a folder that can be written",
    )?;
    let path = folder.join(".running");
    let file = File::options().create(true).append(true).open(&path).hint(
        || format!("cannot write `{}`", path.display()),
        "set `output.artifacts` to a folder that can be written",
    )?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::Error(error)) => Err(error).hint(
            || format!("cannot hold `{}`", path.display()),
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
    let _held = hold(&config.artifacts())?;
    let config = &fetched(config, false)?;
    let mut place = Workplace::open(config)?;
    let states = place.states(selection)?;
    let will_run = |state: &State| {
        selection.wants(state.stage.name) && (selection.force || !state.why.is_empty())
    };
    check_before(&states, &will_run)?;
    place.check_untouched(states.iter().filter(|state| !will_run(state)))?;
    if !states.iter().any(will_run) {
        eprintln!("nothing to do: every stage is fresh");
        // What was hashed on the way is worth keeping.
        place.lock.save(place.store.root())?;
        return Ok(Done::default());
    }
    stages::check(config)?;
    if states.iter().any(|state| will_run(state) && state.stage.asks_by(config).is_some()) {
        check_key(&config.llm)?;
    }
    let (budget, mut all) = (Budget::new(&config.llm), Done::default());
    for state in states.iter().filter(|state| selection.wants(state.stage.name)) {
        if !will_run(state) {
            eprintln!("{:<10} fresh", state.stage.name);
            continue;
        }
        for reason in state.why.iter().take(4) {
            eprintln!("{:<10} runs: {reason}", state.stage.name);
        }
        let done = place.run(state, selection.force, &budget)?;
        all.failed += done.failed;
        all.left += done.left;
    }
    Ok(all)
}

/// What a run would do, told on stdout: each selected stage as it stands, and what those that are
/// fresh, or could run at once, would ask of a language model. Nothing is written and nothing sent.
///
/// # Errors
/// When what would be asked depends on a stage that has to run first.
pub fn rehearse(config: &Config, selection: &Selection) -> Result<()> {
    selection.check()?;
    set_threads(config);
    let config = &downloaded(config)?;
    let mut place = Workplace::open(config)?;
    let states = place.states(selection)?;
    place.check_untouched(states.iter())?;
    let wanted = || states.iter().filter(|state| selection.wants(state.stage.name));
    for state in wanted() {
        match state.why.first() {
            Some(why) => println!("{:<10} would run: {why}", state.stage.name),
            None if selection.force => println!("{:<10} would run: it is forced", state.stage.name),
            None => println!("{:<10} fresh", state.stage.name),
        }
    }
    for state in wanted() {
        let Some(asks) = state.stage.asks_by(config) else { continue };
        let fresh = |before: &State| {
            before.why.is_empty() || (before.open && !selection.wants(before.stage.name))
        };
        let stale = |before: &&State| state.stage.needs(before.stage) && !fresh(before);
        match states.iter().find(stale) {
            None => println!(
                "\n{} would ask:\n{}",
                state.stage.name,
                place.plan(state, asks)?.trim_end()
            ),
            // That one is told of, and what it will say cannot be known.
            Some(before)
                if before.stage.asks_by(config).is_some() && selection.wants(before.stage.name) =>
            {
                println!(
                    "\nwhat {} would ask is known when `{}` has run",
                    state.stage.name, before.stage.name
                );
            }
            Some(before) => return Err(unknown(state.stage, before)),
        }
    }
    Ok(())
}

fn unknown(stage: &Stage, before: &State) -> anyhow::Error {
    let (why, first) =
        (before.why.first().map(String::as_str).unwrap_or_default(), before.stage.name);
    let last = STAGES.iter().take_while(|other| other.name != stage.name);
    let names: Vec<&str> = last.map(|other| other.name).skip_while(|name| *name != first).collect();
    hinted(
        format!(
            "what `{}` would ask depends on what `{first}` does, and that is not fresh: {why}",
            stage.name
        ),
        format!("run what comes before it: `circuit-atlas run {}`", names.join(" ")),
    )
}

/// The settings with what they name by `hf:…` downloaded, and pinned in the lock. Whoever calls it
/// holds the folder.
fn fetched(config: &Config, update: bool) -> Result<Config> {
    let mut config = config.clone();
    if !config.uses_hub() {
        return Ok(config);
    }
    let folder = config.artifacts();
    let mut lock = Lock::load(&folder)?;
    let before = lock.hub.clone();
    let progress = Progress::new("download");
    let done = hub::fetch(&mut config, &mut lock.hub, update, &progress);
    progress.end();
    if lock.hub != before {
        lock.save(&folder)?;
    }
    done.map(|()| config)
}

/// The settings with what they name by `hf:…` where it is, downloaded already or not.
///
/// # Errors
/// When it cannot be had, or has to be and another run is using the artifact folder.
pub fn with_hub(config: &Config) -> Result<Config> {
    if let Ok(config) = downloaded(config) {
        return Ok(config);
    }
    let _held = hold(&config.artifacts())?;
    fetched(config, false)
}

/// The settings with what they name by `hf:…` where it has been downloaded to. Never uses the
/// network.
fn downloaded(config: &Config) -> Result<Config> {
    let mut config = config.clone();
    if config.uses_hub() {
        let pins = Lock::load(&config.artifacts())?.hub;
        hub::downloaded(&mut config, &pins)?;
    }
    Ok(config)
}

/// Downloads what the settings name by `hf:…`, and with `corpus` every file of the corpus too; with
/// `update`, revisions are pinned anew to what they stand for now. Where everything is then.
///
/// # Errors
/// When something cannot be had, or another run is using the artifact folder.
pub fn fetch(config: &Config, corpus: bool, update: bool) -> Result<Vec<Snapshot>> {
    if !config.uses_hub() {
        return Ok(Vec::new());
    }
    let _held = hold(&config.artifacts())?;
    let config = fetched(config, update)?;
    let progress = Progress::new("download");
    if corpus {
        crate::inputs::corpus(&config, &progress)?.try_for_each(|shard| shard.map(drop))?;
    }
    progress.end();
    Ok(config.snapshots.into_values().collect())
}

/// Every stage that one that runs reads from must be fresh or run too.
fn check_before(states: &[State], will_run: &impl Fn(&State) -> bool) -> Result<()> {
    for run in states.iter().filter(|state| will_run(state)) {
        let before = states.iter().filter(|state| run.stage.needs(state.stage));
        for state in before.filter(|state| !will_run(state) && !state.open) {
            if let Some(why) = state.why.first() {
                return Err(hinted(
                    format!(
                        "`{}` needs what `{}` does, and that is not fresh: {why}",
                        run.stage.name, state.stage.name
                    ),
                    format!("run it first: `circuit-atlas run --from {}`", state.stage.name),
                ));
            }
        }
    }
    Ok(())
}

/// Sets rayon's threads, and through them candle's.
pub fn set_threads(config: &Config) {
    // Only the first call of a process can; it is the only one but in tests.
    drop(rayon::ThreadPoolBuilder::new().num_threads(config.machine.threads).build_global());
}

/// The stages with their states, for `status`.
pub fn status(config: &Config) -> Result<Vec<State>> {
    let config = &downloaded(config)?;
    let mut place = Workplace::open(config)?;
    let mut states = place.states(&Selection::default())?;
    for state in &mut states {
        state.refused =
            place.check_untouched(std::iter::once(&*state)).err().map(|error| error.to_string());
    }
    Ok(states)
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
            format!(
                "there is no finished run in `{folder}`: `{}` has not been run to its end",
                stage.name
            ),
            "run it with `circuit-atlas run`",
        ));
    }
    if let Some(why) = outdated(&mut place) {
        eprintln!(
            "note: this is of an earlier run, {why}; `circuit-atlas run` brings it up to date"
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
        budget: &Budget::new(&config.llm),
        order: &NAMES,
    });
    progress.end();
    answer
}

/// Why the tables are not what a run would make now.
fn outdated(place: &mut Workplace) -> Option<String> {
    match place.states(&Selection::default()) {
        Err(error) => Some(format!("and whether it is fresh cannot be told ({error})")),
        Ok(states) => {
            let stale = states
                .into_iter()
                .find(|state| !state.stage.writes.is_empty() && !state.why.is_empty())?;
            Some(format!("`{}` would run again: {}", stale.stage.name, stale.why.first()?))
        }
    }
}

/// A stage whose work was removed.
pub struct Cleaned {
    pub stage: &'static str,
    /// What was left among it, as others wrote it; in words.
    pub left: Option<String>,
}

/// Removes what a stage wrote and what is made from it; with none, everything that the pipeline
/// wrote.
///
/// # Errors
/// When `stage` is not one, or something cannot be removed.
pub fn clean(config: &Config, stage: Option<&str>) -> Result<Vec<Cleaned>> {
    let selection = Selection { from: stage.map(String::from), ..Selection::default() };
    selection.check()?;
    if !config.artifacts().exists() {
        return Ok(Vec::new());
    }
    let _held = hold(&config.artifacts())?;
    let mut place = Workplace::open(config)?;
    let (mut cleaned, mut said): (Vec<&Stage>, Vec<Cleaned>) = Default::default();
    for each in &STAGES {
        let named = stage.is_none_or(|name| name == each.name);
        if !named && !cleaned.iter().any(|before| each.reads_from(before)) {
            continue;
        }
        each.writes.iter().try_for_each(|artifact| place.store.remove(artifact))?;
        let left = each
            .writes_besides
            .as_ref()
            .map(|besides| (besides.remove)(config))
            .transpose()?
            .flatten();
        place.lock.stages.remove(each.name);
        cleaned.push(each);
        said.push(Cleaned { stage: each.name, left });
    }
    if stage.is_none() {
        crate::dictionary::clear(&config.converted())?;
    }
    place.lock.save(place.store.root())?;
    Ok(said)
}
