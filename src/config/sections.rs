//! The sections of the settings file: a struct each, a field a key. `docs/settings.md` is made from
//! their comments.

use super::defaults;
use crate::ids::Kind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    pub(super) const HOW: [&str; 8] = [
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
