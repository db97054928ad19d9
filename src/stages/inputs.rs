//! What several stages read: files of the outside world, and tables that are looked up by key.

use super::Run;
use crate::artifact::activations::Precision;
use crate::artifact::tables::{CircuitFeature, ContextRow, Document, NodeRow};
use crate::artifact::{Artifact, Row, Store};
use crate::circuit::{Case, Method, Metric, Node, NodeKind, Root, World, allowable};
use crate::config::{self, Config, Discover, Dtype, RootKind, ScoreFeatures, Task};
use crate::corpus::{Half, Shard, Tokenizer, files, readable, shards};
use crate::dictionary::{self, Dictionary, Source};
use crate::error::{Result, hinted};
use crate::hub::Hub;
use crate::ids::{FeatureId, Kind};
use crate::lock::{Ingredients, Lock};
use crate::model::{self, Gpt2, Sizes};
use crate::progress::Progress;
use crate::task::{self, Measure, Prompt, Prompts, Published, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Rows by a key of theirs.
pub fn by<K: Ord, R>(rows: Vec<R>, key: impl Fn(&R) -> K) -> BTreeMap<K, Vec<R>> {
    let mut map: BTreeMap<K, Vec<R>> = BTreeMap::new();
    rows.into_iter().for_each(|row| map.entry(key(&row)).or_default().push(row));
    map
}

/// Files of the outside world that a stage reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Model,
    Tokenizer,
    Dictionaries,
    Corpus,
    /// The files of tasks that bring their own prompts.
    Prompts,
    /// The files of tasks that bring a published circuit.
    Published,
}

impl Input {
    /// Its files that are a user's own: the path as settings write it, and where it is.
    ///
    /// # Errors
    /// When files cannot be found.
    pub fn files(self, config: &Config) -> Result<Vec<(String, PathBuf)>> {
        if self == Input::Corpus && config.snapshots.contains_key(&config.corpus.path) {
            return Ok(Vec::new());
        }
        let mut files = self.all_files(config)?;
        files.retain(|(_, path)| from_hub(config, path).is_none());
        Ok(files)
    }

    /// Its files that are of the hub, by the commit that they are of: that stands for what is in
    /// them.
    ///
    /// # Errors
    /// When files cannot be found.
    pub fn pinned(self, config: &Config) -> Result<Ingredients> {
        if let Some(snapshot) =
            config.snapshots.get(&config.corpus.path).filter(|_| self == Input::Corpus)
        {
            return Ok(Ingredients::from([(
                format!("hub {}", snapshot.name.place()),
                snapshot.commit.clone(),
            )]));
        }
        if self == Input::Corpus || config.snapshots.is_empty() {
            return Ok(Ingredients::new());
        }
        Ok(self
            .all_files(config)?
            .into_iter()
            .filter_map(|(_, path)| from_hub(config, &path))
            .collect())
    }

    fn all_files(self, config: &Config) -> Result<Vec<(String, PathBuf)>> {
        let below =
            |folder: &str, name: &str| (format!("{folder}/{name}"), config.path(folder).join(name));
        match self {
            Input::Model => {
                let weights = model::weights(&config.path(&config.model.path))?;
                let name = weights
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                Ok(["config.json", &name].map(|name| below(&config.model.path, name)).into())
            }
            Input::Tokenizer => Ok(vec![below(&config.model.path, "tokenizer.json")]),
            Input::Dictionaries => {
                let sources = sources(config)?;
                let paths = sources
                    .into_iter()
                    .flat_map(|source| [Some(source.weights), source.config])
                    .flatten();
                Ok(paths.map(|path| (named(config, &path), path)).collect())
            }
            Input::Corpus => {
                let files = files(&config.path(&config.corpus.path))?;
                Ok(files.into_iter().map(|path| (named(config, &path), path)).collect())
            }
            Input::Prompts => {
                let files = config.tasks.iter().filter_map(|task| task.file.as_ref());
                Ok(files.map(|file| (file.clone(), config.path(file))).collect())
            }
            Input::Published => {
                let file = |task| match task::origin(task, &config.model.path) {
                    task::Origin::File(file) => Some((file.to_string(), config.path(file))),
                    _ => None,
                };
                Ok(config.tasks.iter().filter_map(file).collect())
            }
        }
    }

    /// What to do when one of its files cannot be read.
    pub fn hint(self) -> &'static str {
        match self {
            Input::Model | Input::Tokenizer => model::FOLDER,
            Input::Dictionaries => {
                "`dictionaries.attention` and `dictionaries.mlp` must be folders of readable files"
            }
            Input::Corpus => "check that the files of `corpus.path` are there and readable",
            Input::Prompts => "check the `file` of the task",
            Input::Published => {
                "`published` of a task is \"\", \"none\", \"gpt2-small\" or a JSON file, relative \
                 to the settings file"
            }
        }
    }
}

/// What can be told from the settings and the sizes of the model alone, before anything runs.
///
/// # Errors
/// When contexts are longer than the model allows, or settings name a feature that its dictionary
/// does not have.
pub fn check(config: &Config) -> Result<()> {
    let (context, positions) = (config.corpus.context, sizes(config)?.positions);
    if context > positions {
        return Err(hinted(
            format!("`corpus.context = {context}` is more than the model's {positions} positions"),
            format!("set `corpus.context` to {positions} or less"),
        ));
    }
    let allowable = allowable();
    if let Some(kind) =
        config.discover.allow.iter().find(|kind| !allowable.contains(&kind.as_str()))
    {
        let hint = format!("`discover.allow` may hold {}", allowable.join(", "));
        return Err(hinted(
            format!("`discover.allow` has `{kind}`, which is no kind of node"),
            hint,
        ));
    }
    config.tasks.iter().try_for_each(|task| published(config, task).map(drop))?;
    check_named(config, &config.named_features())
}

/// The published circuit of a task, if there is one.
pub fn published(config: &Config, task: &Task) -> Result<Option<Published>> {
    let sizes = sizes(config)?;
    task::published(task, &config.model.path, &config.folder, sizes.layers, sizes.heads)
}

/// Where each task's published circuit is from, for stages that read [`Input::Published`].
pub fn published_from(config: &Config) -> Ingredients {
    let name = |task| match task::origin(task, &config.model.path) {
        task::Origin::Nowhere => "\"none\"".into(),
        task::Origin::BuiltIn => "\"gpt2-small\"".into(),
        task::Origin::File(file) => format!("{file:?}"),
    };
    config
        .tasks
        .iter()
        .map(|task| (format!("setting tasks.{}.published", task.name), name(task)))
        .collect()
}

/// A downloaded file as an ingredient: its name in the repository, and the commit.
fn from_hub(config: &Config, path: &std::path::Path) -> Option<(String, String)> {
    config.snapshots.values().find_map(|snapshot| {
        let below = path.strip_prefix(&snapshot.folder).ok()?;
        Some((
            format!("hub {}/{}", snapshot.name.place(), below.display()),
            snapshot.commit.clone(),
        ))
    })
}

/// A path as settings would write it: relative to their folder where it is below it.
fn named(config: &Config, path: &std::path::Path) -> String {
    path.strip_prefix(&config.folder).unwrap_or(path).to_string_lossy().into_owned()
}

/// The dictionaries on disk, in the order that the model computes what they read.
pub fn sources(config: &Config) -> Result<Vec<Source>> {
    let layers = sizes(config)?.layers;
    let mut sources = Vec::new();
    for kind in [Kind::Attention, Kind::Mlp] {
        let (folder, files) = config.dictionaries.of(kind);
        sources.extend(dictionary::find(&config.path(folder), files, kind, layers)?);
    }
    sources.sort_by_key(|source| source.id);
    Ok(sources)
}

/// The model of the settings, folded.
pub fn model(config: &Config) -> Result<Gpt2> {
    Gpt2::load(&config.path(&config.model.path))
}

/// The model's tokenizer.
pub fn tokenizer(config: &Config) -> Result<Tokenizer> {
    Tokenizer::load(&config.path(&config.model.path), sizes(config)?.vocabulary)
}

/// The sizes of the model of the settings.
pub fn sizes(config: &Config) -> Result<Sizes> {
    Gpt2::sizes_of(&config.path(&config.model.path))
}

/// All dictionaries in order, each converted first if it never was.
pub fn dictionaries(run: &Run) -> Result<Vec<Dictionary>> {
    opened(run.config, run.lock, run.progress)
}

/// The same outside a run.
pub fn opened(config: &Config, lock: &Lock, progress: &Progress) -> Result<Vec<Dictionary>> {
    let (d_model, folder) = (sizes(config)?.d_model, config.converted());
    let sources = sources(config)?;
    let contents =
        sources.iter().map(|source| content(config, lock, source)).collect::<Result<Vec<_>>>()?;
    let with_content = || sources.iter().zip(&contents);
    let new = with_content()
        .filter(|(source, content)| Dictionary::is_new(source, &folder, content))
        .count();
    if new > 0 {
        progress.begin(
            "dictionaries converted",
            sources.len() as u64,
            (sources.len() - new) as u64,
        );
    }
    let open = |(source, content): (&Source, &String)| {
        let is_new = Dictionary::is_new(source, &folder, content);
        let dictionary = Dictionary::open(source, d_model, &folder, content)?;
        progress.add(u64::from(is_new));
        Ok(dictionary)
    };
    // One after the other: each is held in memory whole while it is converted.
    with_content().map(open).collect()
}

/// What stands for the content of a dictionary's files: their hashes, or of those of the hub the
/// commit.
fn content(config: &Config, lock: &Lock, source: &Source) -> Result<String> {
    let files = [Some(&source.weights), source.config.as_ref()].into_iter().flatten();
    let of = |path: &PathBuf| match from_hub(config, path) {
        Some((name, commit)) => Ok(format!("{name} {commit}")),
        None => lock.known(&named(config, path), path),
    };
    Ok(files.map(of).collect::<Result<Vec<_>>>()?.join(" "))
}

/// The model with all its dictionaries.
pub fn world(run: &Run) -> Result<World> {
    world_of(run.config, run.lock, run.progress)
}

/// The same outside a run.
pub fn world_of(config: &Config, lock: &Lock, progress: &Progress) -> Result<World> {
    let dictionaries = opened(config, lock, progress)?;
    let (attention, mlp) =
        dictionaries.into_iter().partition(|dictionary| dictionary.id.kind == Kind::Attention);
    World::new(model(config)?, attention, mlp)
}

/// The prompts of a task, for each use that the settings make of them.
///
/// # Errors
/// When they cannot be made.
pub fn prompts(config: &Config, task: &Task, tokenizer: &Tokenizer) -> Result<Prompts> {
    let discover = &config.discover;
    let by_gradient = discover.method == config::Method::Gradient;
    let (finding, choosing) =
        if by_gradient { (discover.prompts, discover.choose) } else { (0, 0) };
    task::prompts(
        task,
        Wanted { finding, choosing, fresh: config.verify.prompts },
        &config.folder,
        tokenizer,
    )
}

/// How the settings let circuits grow, where the method grows them.
pub fn method(discover: &Discover, method: config::Method) -> Option<Method> {
    match method {
        config::Method::Greedy => {
            Some(Method::Greedy { passes: discover.passes, per_node: discover.per_node })
        }
        config::Method::Influence => {
            Some(Method::Influence { coverage: discover.coverage, nodes: discover.nodes })
        }
        _ => None,
    }
}

/// The files of the corpus, in order. One of the hub is downloaded when it is come to, so that
/// nobody waits for files that are not read.
///
/// # Errors
/// When there are none.
pub fn corpus<'a>(
    config: &'a Config,
    progress: &'a Progress,
) -> Result<Box<dyn Iterator<Item = Result<Shard>> + 'a>> {
    let Some(snapshot) = config.snapshots.get(&config.corpus.path) else {
        return Ok(Box::new(shards(files(&config.path(&config.corpus.path))?).into_iter().map(Ok)));
    };
    let files: Vec<&String> = snapshot.files.iter().filter(|file| readable(file)).collect();
    if files.is_empty() {
        return Err(hinted(
            format!("`{}` holds no corpus file", snapshot.name),
            "it must have `.parquet`, `.jsonl`, `.jsonl.gz` or `.txt` files; often \
             `@refs/convert/parquet` does where `@main` does not",
        ));
    }
    let hub = Hub::from_env()?;
    let shard = move |file: &String| {
        Ok(Shard { source: file.clone(), path: hub.file(snapshot, file, progress)? })
    };
    Ok(Box::new(files.into_iter().map(shard)))
}

/// The features that are scored, in order; a feature's place is its key.
pub fn scored_features(config: &Config, circuit: &[CircuitFeature]) -> Vec<FeatureId> {
    let mut features: BTreeSet<FeatureId> = config.named_features();
    if config.score.features == ScoreFeatures::Circuit {
        features.extend(circuit.iter().filter_map(|row| row.feature.parse::<FeatureId>().ok()));
    }
    features.into_iter().collect()
}

fn check_named(config: &Config, named: &BTreeSet<FeatureId>) -> Result<()> {
    if named.is_empty() {
        return Ok(());
    }
    let widths: BTreeMap<_, _> = sources(config)?
        .iter()
        .map(|source| Ok((source.id, source.width()?)))
        .collect::<Result<_>>()?;
    for feature in named {
        let width = widths.get(&feature.dictionary).copied().unwrap_or(0);
        if feature.index >= width {
            return Err(hinted(
                format!(
                    "`{feature}` does not exist: `{}` has {width} features",
                    feature.dictionary
                ),
                "correct `score.extra` or `groups.features`; features are counted from 0",
            ));
        }
    }
    Ok(())
}

/// How activations are kept.
pub fn precision(config: &Config) -> Precision {
    match config.cache.dtype {
        Dtype::F32 => Precision::F32,
        Dtype::F16 => Precision::F16,
    }
}

/// What the disk cache of some hooks takes, in GiB.
pub fn cache_gib(config: &Config, tokens: usize, hooks: usize, width: usize) -> f64 {
    (tokens * hooks * width * precision(config).bytes()) as f64 / (1u64 << 30) as f64
}

/// The parts that `artifact` is to have, one for each part of the contexts: those that this run has
/// made already, and those that are still to be made. Parts of an earlier, larger corpus are
/// removed.
pub fn done_and_open(run: &Run, artifact: &Artifact) -> Result<(Vec<u32>, Vec<u32>)> {
    let parts = run.store.parts(&ContextRow::ARTIFACT)?;
    run.store.remove_parts_from(artifact, parts.len() as u32)?;
    let done = |part: &u32| {
        run.store.part_fingerprint(artifact, *part).as_deref() == Some(run.fingerprint)
    };
    Ok(parts.into_iter().partition(done))
}

/// A node as `discover` wrote it.
///
/// # Errors
/// When its kind is not one.
pub fn node(row: &NodeRow) -> Result<Node> {
    let Some(kind) = NodeKind::from_word(&row.kind) else {
        return Err(hinted(
            format!("`nodes` holds a node of the unknown kind `{}`", row.kind),
            DISCOVER,
        ));
    };
    let number = |x: Option<u32>| x.map_or(-1, |x| x as i32);
    Ok(Node {
        kind,
        layer: number(row.layer),
        position: if kind == NodeKind::Root { -1 } else { row.position as i32 },
        source: number(row.source),
        head: number(row.head),
        feature: number(row.feature),
    })
}

/// What to do about circuits that cannot be read.
pub const DISCOVER: &str = "make it again with `circuit-atlas run discover --force`";

/// Tokens of a context that count: not special ones, not position 0.
pub fn counting(row: &ContextRow, tokenizer: &Tokenizer) -> u64 {
    row.tokens[1..].iter().filter(|id| !tokenizer.is_special(**id)).count() as u64
}

/// What is said of a corpus of which nothing is left.
pub fn no_context(config: &Config) -> anyhow::Error {
    hinted(
        format!("the corpus `{}` gives no context", config.corpus.path),
        "it is empty, or every document is shorter than 8 tokens; check `corpus.path` and \
         `corpus.text`",
    )
}

/// The corpus as the stages after `tokenize` see it.
pub struct Contexts {
    /// By context number.
    pub rows: Vec<ContextRow>,
    /// By context number: whether it may give examples to explanations.
    pub explain: Vec<bool>,
    tokenizer: Tokenizer,
}

impl Contexts {
    pub fn load(config: &Config, store: &Store) -> Result<Contexts> {
        let rows = store.read_parts::<ContextRow>()?;
        let halves: BTreeMap<u32, bool> = store
            .read::<Document>()?
            .into_iter()
            .map(|document| (document.document, document.half == Half::Explain.word()))
            .collect();
        let explain =
            rows.iter().map(|row| halves.get(&row.document).copied().unwrap_or(false)).collect();
        Ok(Contexts { rows, explain, tokenizer: tokenizer(config)? })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that counts at a position: none for special ones and position 0.
    pub fn counting(&self, context: u32, position: u16) -> Option<u32> {
        let id = *self.rows.get(context as usize)?.tokens.get(position as usize)?;
        (position > 0 && !self.tokenizer.is_special(id)).then_some(id)
    }

    /// Tokens that count, of all contexts.
    pub fn tokens(&self) -> u64 {
        self.tokens_of(|_| true)
    }

    /// Tokens that count, of some contexts.
    pub fn tokens_of(&self, wanted: impl Fn(u32) -> bool) -> u64 {
        let rows = self.rows.iter().filter(|row| wanted(row.context));
        rows.map(|row| counting(row, &self.tokenizer)).sum()
    }
}

/// How well a model does on prompts, as their tasks measure it.
pub struct Metrics {
    digits: Option<Arc<Vec<u32>>>,
}

impl Metrics {
    pub fn new(tokenizer: &Tokenizer) -> Metrics {
        Metrics { digits: task::digits(tokenizer).map(Arc::new) }
    }

    /// A prompt as something to be run with parts replaced, by prompts of its frame.
    ///
    /// # Errors
    /// As of [`Metrics::of`].
    pub fn case<'p>(&self, prompt: &'p Prompt) -> Result<Case<'p>> {
        let Prompt { tokens, corrupted, frame, .. } = prompt;
        Ok(Case { tokens, corrupted, template: frame, metric: self.of(prompt)? })
    }

    /// # Errors
    /// When the tokenizer has no tokens for what is measured.
    pub fn of(&self, prompt: &Prompt) -> Result<Metric> {
        let (correct, counter) = (prompt.correct, prompt.counter);
        match (prompt.measure, &self.digits) {
            (Measure::LogitDifference, _) => Ok(Metric::LogitDifference { correct, counter }),
            (Measure::GreaterThan { year }, Some(digits)) => {
                Ok(Metric::GreaterThan { digits: digits.clone(), year })
            }
            (Measure::GreaterThan { .. }, None) => Err(hinted(
                "this tokenizer has not a token for each of `00` … `99`",
                "use a task of `kind = \"prompts\"` instead of `greater-than`",
            )),
        }
    }
}

/// What the circuits of a prompt grow from.
pub fn root(kind: RootKind, prompt: &Prompt) -> Root {
    match kind {
        RootKind::LogitDifference => {
            Root::LogitDifference { correct: prompt.correct, counter: prompt.counter }
        }
        RootKind::Logit => Root::Logit(prompt.correct),
    }
}
