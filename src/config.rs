//! `pipeline.toml` as structs: every setting, its default, its range. A typo costs a second, not a
//! night.
//!
//! Paths in the file are relative to the file's own folder; `hf:…` names a repository of the hub.

use crate::error::{Context, Hint, Result, hinted};
use crate::ids::{FeatureId, HubName, Kind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All settings of a run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub model: Model,
    pub dictionaries: Dictionaries,
    pub corpus: Corpus,
    pub tasks: Vec<Task>,
    #[serde(default)]
    pub discover: Discover,
    #[serde(default)]
    pub verify: Verify,
    #[serde(default)]
    pub cache: Cache,
    #[serde(default)]
    pub score: Score,
    #[serde(default)]
    pub groups: Vec<Group>,
    #[serde(default)]
    pub aggregate: Aggregate,
    #[serde(default)]
    pub logits: Logits,
    #[serde(default)]
    pub llm: Llm,
    #[serde(default)]
    pub evaluate: Evaluate,
    #[serde(default)]
    pub site: Site,
    #[serde(default)]
    pub machine: Machine,
    #[serde(default)]
    pub output: Output,
    /// The folder of the file that this came from.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Where on this machine the repositories are that are named by `hf:…`, by that name.
    #[serde(skip)]
    pub snapshots: BTreeMap<String, Snapshot>,
}

/// A repository of the hub at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub name: HubName,
    /// What the revision stands for.
    pub commit: String,
    /// Where its files are, as far as they have been downloaded.
    pub folder: PathBuf,
    /// All files of the repository, by name; a control's.
    pub files: Vec<String>,
}

/// The model that is taken apart.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A Hugging Face folder, or `hf:REPO@REVISION`.
    pub path: String,
}

/// Where its dictionaries are.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dictionaries {
    /// A folder with one attention-output SAE a layer.
    pub attention: String,
    /// A folder with one MLP transcoder a layer.
    pub mlp: String,
    /// The files or folders of `attention` to use; empty: all.
    #[serde(default)]
    pub attention_files: Vec<String>,
    /// The files or folders of `mlp` to use; empty: all.
    #[serde(default)]
    pub mlp_files: Vec<String>,
}

impl Dictionaries {
    /// The folder of one kind, and what to use of it.
    pub fn of(&self, kind: Kind) -> (&str, &[String]) {
        match kind {
            Kind::Attention => (&self.attention, &self.attention_files),
            Kind::Mlp => (&self.mlp, &self.mlp_files),
        }
    }
}

/// The texts over which features are scored.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Corpus {
    /// A file, a folder, or a pattern with `*`: `.txt`, `.jsonl`, `.jsonl.gz`, `.parquet`; or
    /// `hf:datasets/REPO@REVISION`.
    pub path: String,
    /// The column that holds the text.
    #[serde(default = "defaults::text")]
    pub text: String,
    /// `T`: tokens of a context, BOS included.
    #[serde(default = "defaults::context")]
    pub context: usize,
    /// Windows run across documents, end-of-text between them.
    #[serde(default)]
    pub pack: bool,
    /// 0: all.
    #[serde(default)]
    pub max_contexts: usize,
    /// Order of documents.
    #[serde(default = "defaults::shuffle_seed")]
    pub shuffle_seed: u64,
    /// Contexts of a shard.
    #[serde(default = "defaults::shard_contexts")]
    pub shard_contexts: usize,
}

/// Where the prompts of a task come from.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    Ioi,
    GreaterThan,
    Prompts,
}

impl TaskKind {
    pub fn word(self) -> &'static str {
        match self {
            TaskKind::Ioi => "ioi",
            TaskKind::GreaterThan => "greater-than",
            TaskKind::Prompts => "prompts",
        }
    }
}

/// A task whose circuit is looked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Becomes `tasks/NAME.html`.
    pub name: String,
    pub kind: TaskKind,
    /// How many; not set: 100, or all of `file`. Fewer of a file are drawn by `seed`, each template
    /// in proportion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<usize>,
    /// The same seed gives the same prompts.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    /// For `prompts`: JSONL of text, correct, counter, corrupted, template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default)]
    pub wrong: Wrong,
    /// The circuit that others found: empty for the one that is known of the model and the kind;
    /// `none`; `gpt2-small`; or a JSON file of classes with their components.
    #[serde(default)]
    pub published: String,
}

/// What becomes of prompts at which the model is not right by the task's metric.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    #[default]
    Keep,
    /// They have no circuit, and count in nothing.
    LeaveOut,
}

/// How a circuit grows.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoveryMethod {
    /// The features whose scores by the gradient are largest: see `circuit::gradient`.
    Gradient,
    Greedy,
    Influence,
    // What follows finds no links: only to measure beside others.
    /// Attribution patching, both directions.
    AttributionPatching,
    /// As in sparse feature circuits (Marks et al. 2024).
    IntegratedGradients,
    /// Masks learned against a price for every feature.
    LearnedMasks,
    /// The gradient's ranking of the model's own neurons instead of features.
    Neurons,
}

/// What a circuit explains.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum RootKind {
    LogitDifference,
    Logit,
}

/// How circuits are found.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discover {
    pub method: DiscoveryMethod,
    /// Of `gradient`: prompts of a task that its features are ranked on; those of `tasks.prompts`
    /// are among them.
    pub prompts: usize,
    /// Of `gradient`: points between nothing and everything at which the gradient is taken.
    pub points: usize,
    /// Of `gradient`: further prompts on which the size is chosen.
    pub choose: usize,
    /// Of `gradient`: the share of what all features keep that the circuit is to keep.
    pub faithful: f64,
    /// Of `gradient`: the most features of a circuit.
    pub most: usize,
    /// Of `gradient`: whether features are taken out of the circuit, in rounds, while it keeps that
    /// share. Slow: each is run without.
    pub prune: bool,
    /// Of `gradient`: how large a link's effect is at least, as a share of all that reaches the
    /// answer.
    pub share: f64,
    pub root: RootKind,
    /// Of `greedy`: walks from the root.
    pub passes: usize,
    /// Of `greedy`: links that a walk adds in each slot.
    pub per_node: usize,
    /// Of `greedy`: contributors of a slot that may ever be linked.
    pub candidates: usize,
    /// Of `influence`: the share of the influence that the kept terms hold.
    pub coverage: f64,
    /// Of `influence`: the most features and errors that are kept.
    pub nodes: usize,
    /// Kinds of nodes that may be linked; of `influence`, an `embedding` is the token's and the
    /// position's together.
    pub allow: BTreeSet<String>,
    /// Whether circuits of the right and of the wrong answer's logit are held against each other.
    pub contrast: bool,
}

/// Where raw activations are between `cache` and `score`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Disk,
    Stream,
}

/// How a raw activation is kept.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F32,
    F16,
}

impl DiscoveryMethod {
    /// The word in settings and artifacts.
    pub fn word(self) -> &'static str {
        match self {
            DiscoveryMethod::Gradient => "gradient",
            DiscoveryMethod::Greedy => "greedy",
            DiscoveryMethod::Influence => "influence",
            DiscoveryMethod::AttributionPatching => "attribution-patching",
            DiscoveryMethod::IntegratedGradients => "integrated-gradients",
            DiscoveryMethod::LearnedMasks => "learned-masks",
            DiscoveryMethod::Neurons => "neurons",
        }
    }
}

/// How circuits are put to the test.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// What is put in the place of everything outside a circuit; each in turn.
    pub ablations: BTreeSet<Ablation>,
    /// Methods whose circuits are measured besides, under the first of the ablations.
    pub methods: BTreeSet<DiscoveryMethod>,
    /// Random circuits of each size.
    pub random: usize,
    /// Fresh prompts of a task that circuits are measured on; 0: those that they were found on.
    pub prompts: usize,
    /// Strongest links of a task whose effect is measured in the live model.
    pub edges: usize,
}

/// What is put in the place of what is taken away.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Ablation {
    Mean,
    Resample,
    Zero,
}

impl Ablation {
    /// The word in settings and artifacts.
    pub fn word(self) -> &'static str {
        match self {
            Ablation::Mean => "mean",
            Ablation::Resample => "resample",
            Ablation::Zero => "zero",
        }
    }
}

/// The raw activations that dictionaries read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// `disk` keeps the raw activations, `stream` runs the model again while scoring.
    pub store: StoreKind,
    pub dtype: Dtype,
    /// The disk cache is refused above this many GiB.
    pub max_gib: f64,
}

/// Which features of the circuits are scored.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ScoreFeatures {
    Circuit,
    None,
}

/// The features that are scored.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Score {
    pub features: ScoreFeatures,
    /// Features to score besides.
    pub extra: Vec<String>,
}

/// A set of features looked at together, over any layers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Becomes `groups/NAME.html`.
    pub name: String,
    pub features: Vec<String>,
}

/// How much is kept of each feature.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aggregate {
    /// Top examples of a feature, in each half of the documents.
    pub examples: usize,
    /// Examples of each tenth of a feature's active contexts, in each half.
    pub band_examples: usize,
    /// Tokens before a token in which another feature may have been active, for lagged
    /// co-occurrence.
    pub window: usize,
}

/// Promoted tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logits {
    /// Tokens listed at either end.
    pub k: usize,
    /// Units of activation at which promoted logits are shown besides.
    pub strength: f64,
}

/// Who writes explanations.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    None,
    Openai,
    Azure,
}

/// The language model that writes explanations.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Llm {
    pub provider: Provider,
    /// Of `openai` and compatible servers: up to and with `/v1`. Of `azure`: the endpoint. Empty:
    /// OpenAI's own.
    pub base_url: String,
    pub model: String,
    /// The name of the variable that holds the key, never the key; empty for a server that wants
    /// none.
    pub api_key_env: String,
    /// Of `azure`.
    pub api_version: String,
    /// Of `azure`; empty: the model's name.
    pub deployment: String,
    pub temperature: f64,
    /// Tokens of a reply.
    pub max_tokens: u32,
    /// Independent explanations of each feature; more than one tells how far they agree.
    pub samples: u32,
    pub replies: ReplyFormat,
    /// Questions in flight at once.
    pub concurrency: usize,
    /// Seconds that a reply may take.
    pub timeout: f64,
    /// Tries after the first.
    pub retries: u32,
    /// 0: as many as the server takes.
    pub requests_per_minute: u32,
    pub tokens_per_minute: u32,
    /// A run stops asking before it costs more, in the unit of `prices`; 0: no limit.
    pub max_cost: f64,
    /// A run stops asking after so many requests; 0: no limit.
    pub max_calls: u64,
    /// By model: the price of a million tokens asked, and of a million answered.
    pub prices: BTreeMap<String, [f64; 2]>,
}

impl Llm {
    /// Settings that change no reply and no table, only how and for how much replies are had.
    const HOW: [&str; 8] = [
        "api_key_env",
        "concurrency",
        "timeout",
        "retries",
        "requests_per_minute",
        "tokens_per_minute",
        "max_cost",
        "max_calls",
    ];

    /// Whether there is a language model to ask.
    pub fn asks(&self) -> bool {
        self.provider != Provider::None
    }
}

/// How replies are to be brought into form.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ReplyFormat {
    /// By a JSON schema, and by a marked line where the server knows no schemas.
    Auto,
    Schema,
    Line,
}

/// A way to score explanations.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreMethod {
    SingleToken,
    Detection,
    Fuzzing,
}

/// How explanations are scored.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    pub methods: BTreeSet<ScoreMethod>,
    /// Texts of each kind, active and inactive, that a judge is asked about for a feature.
    pub texts: usize,
    /// Texts in one question.
    pub batch: usize,
    /// The model that judges; empty: the one that explains.
    pub judge: String,
    /// Another model that judges the same, to see how far the two agree; empty: none.
    pub second_judge: String,
    /// Positions of the *score* half at which a feature is added to the live model; 0: none.
    pub causal: usize,
}

impl Evaluate {
    /// Whether a language model is asked.
    pub fn judges(&self) -> bool {
        self.methods.iter().any(|method| *method != ScoreMethod::SingleToken)
    }
}

/// The site.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    pub title: String,
    /// Only for social cards; pages link relatively.
    pub base_url: String,
}

/// Never changes a result, and is in no stage's lock.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    /// 0: as many as there are cores.
    pub threads: usize,
    pub device: String,
    /// Contexts in flight at once.
    pub batch: usize,
}

/// Where results go.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// The folder of the artifacts.
    pub artifacts: String,
    /// The folder of the site, which `render` replaces whole.
    pub site: String,
    /// Where dictionaries are kept in the form that the program works from; several settings may
    /// share one. Empty: `dictionaries` in the artifact folder.
    pub dictionaries: String,
}

mod defaults {
    pub fn text() -> String {
        "text".into()
    }
    pub fn context() -> usize {
        128
    }
    pub fn shuffle_seed() -> u64 {
        42
    }
    pub fn shard_contexts() -> usize {
        1024
    }
    pub fn seed() -> u64 {
        1
    }
}

impl Default for Discover {
    fn default() -> Self {
        let allow = [
            "attention_feature",
            "mlp_feature",
            "head",
            "attention_error",
            "embedding",
            "position_embedding",
        ];
        Self {
            method: DiscoveryMethod::Gradient,
            prompts: 480,
            points: 3,
            choose: 384,
            prune: false,
            faithful: 0.9,
            most: 400,
            share: 0.001,
            root: RootKind::LogitDifference,
            passes: 5,
            per_node: 1,
            candidates: 10,
            coverage: 0.8,
            nodes: 400,
            allow: allow.map(String::from).into(),
            contrast: true,
        }
    }
}

impl Default for Verify {
    fn default() -> Self {
        use Ablation::*;
        Self {
            ablations: [Mean, Resample, Zero].into(),
            methods: BTreeSet::new(),
            random: 10,
            prompts: 192,
            edges: 50,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { store: StoreKind::Disk, dtype: Dtype::F32, max_gib: 20.0 }
    }
}

impl Default for Score {
    fn default() -> Self {
        Self { features: ScoreFeatures::Circuit, extra: Vec::new() }
    }
}

impl Default for Aggregate {
    fn default() -> Self {
        Self { examples: 15, band_examples: 3, window: 5 }
    }
}

impl Default for Logits {
    fn default() -> Self {
        Self { k: 20, strength: 4.0 }
    }
}

impl Default for Llm {
    fn default() -> Self {
        Self {
            provider: Provider::None,
            base_url: String::new(),
            model: String::new(),
            api_key_env: "OPENAI_API_KEY".into(),
            api_version: String::new(),
            deployment: String::new(),
            temperature: 0.0,
            max_tokens: 500,
            samples: 1,
            replies: ReplyFormat::Auto,
            concurrency: 8,
            timeout: 120.0,
            retries: 5,
            requests_per_minute: 0,
            tokens_per_minute: 0,
            max_cost: 0.0,
            max_calls: 0,
            prices: BTreeMap::new(),
        }
    }
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            methods: [ScoreMethod::SingleToken].into(),
            texts: 20,
            batch: 10,
            judge: String::new(),
            second_judge: String::new(),
            causal: 10,
        }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self { title: "circuit-atlas".into(), base_url: String::new() }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self { threads: 0, device: "cpu".into(), batch: 32 }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self { artifacts: "artifacts".into(), site: "site".into(), dictionaries: String::new() }
    }
}

/// The error of a value that a setting may not have.
fn out_of_range(key: &str, value: impl std::fmt::Display, wanted: &str) -> Result<()> {
    Err(hinted(format!("`{key} = {value}` is out of range"), format!("`{key}` must be {wanted}")))
}

fn within(key: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    out_of_range(key, value, &format!("from {low} to {high}"))
}

/// The error of a setting that is known but not built yet.
fn not_yet(key: &str, value: &str, instead: &str) -> Result<()> {
    Err(hinted(
        format!("`{key} = \"{value}\"` is not supported by this version"),
        instead.to_string(),
    ))
}

/// # Errors
/// When a text that begins as a name of the hub is none, or does not name data where data is
/// wanted.
fn check_hub(key: &str, path: &str) -> Result<()> {
    let hint = "write `hf:REPO@REVISION`, where the revision is a commit, a tag or a branch: \
        `@main` is the newest commit of the \
         first run, which `atlas.lock` then pins";
    let name: HubName =
        path.parse().hint(|| format!("`{key} = \"{path}\"` cannot be downloaded"), hint)?;
    if key == "corpus.path" && !name.dataset {
        return Err(hinted(
            format!("`{key} = \"{path}\"` names a model, not a data set"),
            format!("write `hf:datasets/{}@{}`", name.repository, name.revision),
        ));
    }
    Ok(())
}

/// # Errors
/// When the address of a language model's server is none, or holds a password; when Azure lacks
/// something.
fn check_server(llm: &Llm) -> Result<()> {
    let url = &llm.base_url;
    // First, so that no password is ever repeated.
    if url.contains(['@', '?', '#']) {
        return Err(hinted(
            "`llm.base_url` holds a user, a password or a query",
            "write only the address; the key belongs into the variable that `llm.api_key_env` \
             names",
        ));
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    if !url.is_empty() && host.is_none_or(str::is_empty) {
        out_of_range(
            "llm.base_url",
            format!("{url:?}"),
            "an address such as `https://api.openai.com/v1`, or empty",
        )?;
    }
    if llm.provider == Provider::Azure && (url.is_empty() || llm.api_version.is_empty()) {
        return Err(hinted(
            "`llm.provider = \"azure\"` needs `llm.base_url` and `llm.api_version`",
            "write the endpoint, `https://NAME.openai.azure.com`, and a version such as \
             `2024-10-21`",
        ));
    }
    Ok(())
}

/// Names become file names and parts of URLs.
fn check_name(key: &str, name: &str, seen: &mut BTreeSet<String>) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        let wanted = "up to 64 lower-case letters, digits and `-`, as it becomes a file name";
        return out_of_range(key, format!("{name:?}"), wanted);
    }
    if !seen.insert(name.into()) {
        return Err(hinted(format!("two of `{key}` are `{name}`"), "give each its own name"));
    }
    Ok(())
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key, lacks a needed one, or a value is out of range.
    pub fn load(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).hint(
            || format!("cannot read the settings `{}`", path.display()),
            "name the file with `--config FILE`; the repository's `pipeline.toml` has every \
             setting with a comment",
        )?;
        let mut config: Config = toml::from_str(&text).map_err(|error| {
            let message = error.to_string();
            hinted(
                format!("in `{}`: {}", path.display(), message.trim_end()),
                "`pipeline.toml` in the repository has every setting with a comment",
            )
        })?;
        config.folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        config.check().with_context(|| format!("in `{}`", path.display()))?;
        Ok(config)
    }

    /// A path of the file, relative to the file's folder; for `hf:…` where it has been downloaded
    /// to.
    pub fn path(&self, written: &str) -> PathBuf {
        self.snapshots
            .get(written)
            .map_or_else(|| self.folder.join(written), |snapshot| snapshot.folder.clone())
    }

    /// Whether anything is to be had from the hub.
    pub fn uses_hub(&self) -> bool {
        let paths = [
            &self.model.path,
            &self.dictionaries.attention,
            &self.dictionaries.mlp,
            &self.corpus.path,
        ];
        paths.iter().any(|path| path.starts_with(HubName::PREFIX))
    }

    /// The artifact folder.
    pub fn artifacts(&self) -> PathBuf {
        self.path(&self.output.artifacts)
    }

    /// The folder of converted dictionaries.
    pub fn converted(&self) -> PathBuf {
        match self.output.dictionaries.as_str() {
            "" => self.artifacts().join("dictionaries"),
            folder => self.path(folder),
        }
    }

    /// Every feature that groups and `score.extra` name.
    pub fn named_features(&self) -> BTreeSet<FeatureId> {
        let groups = self.groups.iter().flat_map(|group| &group.features);
        groups.chain(&self.score.extra).filter_map(|name| name.parse().ok()).collect()
    }

    /// The settings as (dotted key, value), but those of `[machine]` and `[output]`, which change
    /// no result.
    pub fn flat(&self) -> Result<BTreeMap<String, String>> {
        let mut flat = BTreeMap::new();
        flatten("", &serde_json::to_value(self)?, &mut flat);
        flat.retain(|key, _| {
            !["machine.", "output.", "tasks", "groups"].iter().any(|table| key.starts_with(table))
        });
        let how = |key: &str| {
            Llm::HOW
                .iter()
                .any(|how| key.strip_prefix("llm.").is_some_and(|key| key.starts_with(how)))
        };
        flat.retain(|key, _| !how(key));
        if !self.llm.asks() {
            flat.retain(|key, _| !key.starts_with("llm.") || key == "llm.provider");
        }
        for task in &self.tasks {
            flatten(&format!("tasks.{}", task.name), &serde_json::to_value(task)?, &mut flat);
            // What it means depends on the model's name too; and no circuit has to be found again
            // for it.
            flat.remove(&format!("tasks.{}.published", task.name));
        }
        for group in &self.groups {
            flatten(&format!("groups.{}", group.name), &serde_json::to_value(group)?, &mut flat);
        }
        let names = |all: Vec<&String>| all.into_iter().cloned().collect::<Vec<_>>().join(", ");
        flat.insert(
            "tasks.order".into(),
            names(self.tasks.iter().map(|task| &task.name).collect()),
        );
        flat.insert(
            "groups.order".into(),
            names(self.groups.iter().map(|group| &group.name).collect()),
        );
        Ok(flat)
    }

    fn check(&self) -> Result<()> {
        self.check_sources()?;
        self.check_tasks()?;
        self.check_features()?;
        let discover = &self.discover;
        within("discover.passes", discover.passes, 1, 1000)?;
        within("discover.per_node", discover.per_node, 1, 1000)?;
        within("discover.candidates", discover.candidates, 1, 100_000)?;
        if !(discover.coverage > 0.0 && discover.coverage <= 1.0) {
            out_of_range("discover.coverage", discover.coverage, "above 0, and 1 at most")?;
        }
        within("discover.nodes", discover.nodes, 1, 10_000)?;
        within("discover.prompts", discover.prompts, 1, 100_000)?;
        within("discover.points", discover.points, 1, 1000)?;
        within("discover.choose", discover.choose, 0, 100_000)?;
        within("discover.most", discover.most, 1, 1_000_000)?;
        if !(discover.faithful > 0.0 && discover.faithful <= 1.0) {
            out_of_range("discover.faithful", discover.faithful, "above 0, and 1 at most")?;
        }
        if !(discover.share >= 0.0 && discover.share < 1.0) {
            out_of_range("discover.share", discover.share, "0 or more, and below 1")?;
        }
        if !matches!(
            discover.method,
            DiscoveryMethod::Gradient | DiscoveryMethod::Greedy | DiscoveryMethod::Influence
        ) {
            let word = discover.method.word();
            out_of_range(
                "discover.method",
                word,
                "`gradient`, `greedy` or `influence`: it finds no links",
            )?;
        }
        self.check_verify()?;
        self.check_outputs()
    }

    fn check_verify(&self) -> Result<()> {
        if self.verify.ablations.is_empty() {
            out_of_range(
                "verify.ablations",
                "[]",
                "at least one of `mean`, `resample` and `zero`",
            )?;
        }
        within("verify.random", self.verify.random, 1, 1000)?;
        within("verify.prompts", self.verify.prompts, 0, 100_000)?;
        within("verify.edges", self.verify.edges, 0, 10_000)
    }

    fn check_sources(&self) -> Result<()> {
        let sources = [
            ("model.path", &self.model.path),
            ("dictionaries.attention", &self.dictionaries.attention),
            ("dictionaries.mlp", &self.dictionaries.mlp),
            ("corpus.path", &self.corpus.path),
        ];
        for (key, path) in sources {
            if path.starts_with(HubName::PREFIX) {
                check_hub(key, path)?;
            }
            if path.is_empty() {
                out_of_range(key, "\"\"", "a path")?;
            }
        }
        for kind in [Kind::Attention, Kind::Mlp] {
            let odd = |name: &&String| {
                name.is_empty() || name.starts_with('.') || name.contains(['/', '\\'])
            };
            if let Some(name) = self.dictionaries.of(kind).1.iter().find(odd) {
                let key = format!("dictionaries.{}_files", kind.word());
                out_of_range(
                    &key,
                    format!("{name:?}"),
                    "names of files or folders, without the folder they are in",
                )?;
            }
        }
        within("corpus.context", self.corpus.context, 2, 65_535)?;
        within("corpus.shard_contexts", self.corpus.shard_contexts, 1, 1_000_000)
    }

    fn check_tasks(&self) -> Result<()> {
        if self.tasks.is_empty() {
            return Err(hinted("no `[[tasks]]`", "add at least one, with `name` and `kind`"));
        }
        let mut seen = BTreeSet::new();
        for task in &self.tasks {
            check_name("tasks.name", &task.name, &mut seen)?;
            within("tasks.prompts", task.prompts.unwrap_or(1), 1, 100_000)?;
            match (&task.file, task.kind) {
                (None, TaskKind::Prompts) => {
                    return Err(hinted(
                        format!("task `{}` of kind `prompts` has no `file`", task.name),
                        "name a JSONL file with text, correct, counter, corrupted and template",
                    ));
                }
                (Some(_), TaskKind::Ioi | TaskKind::GreaterThan) => {
                    return Err(hinted(
                        format!(
                            "task `{}` has a `file`, but its kind writes its own prompts",
                            task.name
                        ),
                        "remove `file`, or set `kind = \"prompts\"`",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_features(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for group in &self.groups {
            check_name("groups.name", &group.name, &mut seen)?;
            within("groups.features (their number)", group.features.len(), 1, 1000)?;
            let mut members = BTreeSet::new();
            if let Some(twice) = group.features.iter().find(|name| !members.insert(*name)) {
                return Err(hinted(
                    format!("the group `{}` has `{twice}` twice", group.name),
                    "name each feature once: it would count twice in sums",
                ));
            }
        }
        let extra = self.score.extra.iter().map(|name| ("score.extra", name));
        let grouped = self
            .groups
            .iter()
            .flat_map(|g| g.features.iter().map(|name| ("groups.features", name)));
        for (key, name) in extra.chain(grouped) {
            if let Err(error) = name.parse::<FeatureId>() {
                return Err(hinted(
                    format!("`{key}`: {error}"),
                    "write features as `att9.16109` or `mlp0.10173`",
                ));
            }
        }
        Ok(())
    }

    fn check_llm(&self) -> Result<()> {
        let (llm, evaluate) = (&self.llm, &self.evaluate);
        if !llm.asks() {
            return match evaluate.judges() {
                true => Err(hinted(
                    "`evaluate.methods` asks for `detection` or `fuzzing`, but no language model \
                     is set to judge",
                    "set `llm.provider` and `llm.model`, or use `methods = [\"single-token\"]`",
                )),
                false => Ok(()),
            };
        }
        if llm.model.is_empty() {
            out_of_range("llm.model", "\"\"", "the name of a model")?;
        }
        check_server(llm)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !llm.api_key_env.chars().all(plain)
            || llm.api_key_env.starts_with(|c: char| c.is_ascii_digit())
        {
            // Whatever it is, it is not repeated.
            return Err(hinted(
                "`llm.api_key_env` is not the name of a variable",
                "write the name, such as `OPENAI_API_KEY`, and put the key into that variable; the \
                 key itself belongs into no file",
            ));
        }
        if !(0.0..=2.0).contains(&llm.temperature) {
            out_of_range("llm.temperature", llm.temperature, "from 0 to 2")?;
        }
        within("llm.max_tokens", llm.max_tokens as usize, 1, 1_000_000)?;
        within("llm.samples", llm.samples as usize, 1, 100)?;
        if llm.samples > 1 && llm.temperature == 0.0 {
            return Err(hinted(
                format!(
                    "`llm.samples = {}` with `llm.temperature = 0` asks for the same reply again",
                    llm.samples
                ),
                "set `llm.temperature` above 0, or `samples = 1`",
            ));
        }
        within("llm.concurrency", llm.concurrency, 1, 1000)?;
        within("llm.retries", llm.retries as usize, 0, 100)?;
        if !(llm.timeout > 0.0 && llm.timeout <= 86_400.0) {
            out_of_range("llm.timeout", llm.timeout, "above 0, and 86400 seconds at most")?;
        }
        self.check_prices()
    }

    fn check_prices(&self) -> Result<()> {
        let llm = &self.llm;
        let odd = |price: &f64| !(price.is_finite() && *price >= 0.0);
        if let Some((model, _)) = llm.prices.iter().find(|(_, price)| price.iter().any(odd)) {
            out_of_range(
                &format!("llm.prices.{model:?}"),
                "…",
                "two prices, 0 or more: of a million tokens asked, and answered",
            )?;
        }
        if odd(&llm.max_cost) {
            out_of_range("llm.max_cost", llm.max_cost, "0 or more")?;
        }
        let models = self.models();
        match models.iter().find(|model| llm.max_cost > 0.0 && !llm.prices.contains_key(**model)) {
            None => Ok(()),
            Some(model) => Err(hinted(
                format!(
                    "`llm.max_cost = {}` cannot be kept: `llm.prices` has no price of `{model}`",
                    llm.max_cost
                ),
                format!(
                    "add `\"{model}\" = [PRICE_ASKED, PRICE_ANSWERED]`, of a million tokens each, \
                     to `[llm.prices]`"
                ),
            )),
        }
    }

    /// The language models that a run asks.
    pub fn models(&self) -> BTreeSet<&str> {
        let judges = self.evaluate.judges().then(|| self.judges());
        let all = judges.into_iter().flatten().chain([self.llm.model.as_str()]);
        all.filter(|_| self.llm.asks()).collect()
    }

    /// The models that judge, if any is asked to: the first, and another one if it is set.
    pub fn judges(&self) -> Vec<&str> {
        let evaluate = &self.evaluate;
        let first = if evaluate.judge.is_empty() { &self.llm.model } else { &evaluate.judge };
        let second =
            Some(&evaluate.second_judge).filter(|second| !second.is_empty() && *second != first);
        [Some(first), second].into_iter().flatten().map(String::as_str).collect()
    }

    fn check_outputs(&self) -> Result<()> {
        if !(self.cache.max_gib > 0.0 && self.cache.max_gib.is_finite()) {
            out_of_range("cache.max_gib", self.cache.max_gib, "above 0")?;
        }
        within("aggregate.examples", self.aggregate.examples, 1, 1000)?;
        within("aggregate.band_examples", self.aggregate.band_examples, 0, 100)?;
        within("aggregate.window", self.aggregate.window, 1, 1000)?;
        within("logits.k", self.logits.k, 1, 1000)?;
        if !(self.logits.strength > 0.0 && self.logits.strength.is_finite()) {
            out_of_range("logits.strength", self.logits.strength, "above 0")?;
        }
        self.check_llm()?;
        within("evaluate.texts", self.evaluate.texts, 1, 1000)?;
        within("evaluate.batch", self.evaluate.batch, 1, 100)?;
        within("evaluate.causal", self.evaluate.causal, 0, 1000)?;
        if self.machine.device != "cpu" {
            not_yet("machine.device", &self.machine.device, "use `cpu`")?;
        }
        within("machine.threads", self.machine.threads, 0, 4096)?;
        within("machine.batch", self.machine.batch, 1, 65_536)
    }
}

fn flatten(prefix: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, into);
            }
        }
        other => {
            into.insert(prefix.into(), other.to_string());
        }
    }
}
