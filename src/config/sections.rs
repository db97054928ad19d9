//! The sections of the settings file: a struct each, a field a key. `docs/settings.md` is made from
//! their comments.

use super::defaults;
use crate::ids::{Kind, Split};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The model.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A Hugging Face folder, or `hf:REPO@REVISION`.
    pub path: String,
    /// What language models are told that it is; empty: a GPT-2 with its layers and width.
    #[serde(default)]
    pub about: String,
}

/// The dictionaries of the model: one attention-output SAE and one MLP transcoder per layer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dictionaries {
    /// Folder of the attention-output SAEs, one per layer, or `hf:REPO@REVISION`. The format is
    /// detected.
    pub attention: String,
    /// Folder of the MLP transcoders, one per layer, or `hf:REPO@REVISION`.
    pub mlp: String,
    /// Files or folders of `attention` to use; empty: all.
    #[serde(default)]
    pub attention_files: Vec<String>,
    /// Files or folders of `mlp` to use; empty: all.
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
    /// A file, a folder, or a pattern with `*`: `.txt`, `.jsonl`, `.json` (all also as `.gz` or
    /// `.zst`), `.parquet`; or `hf:datasets/REPO@REVISION`.
    pub path: String,
    /// Column that holds the text.
    #[serde(default = "defaults::text")]
    pub text: String,
    /// How a `.txt` file is split into documents.
    #[serde(default)]
    pub split: Split,
    /// Tokens per context, BOS included.
    #[serde(default = "defaults::context")]
    pub context: usize,
    /// `true`: windows run across documents, with end-of-text between them.
    #[serde(default)]
    pub pack: bool,
    /// Number of contexts to use; 0: all.
    #[serde(default)]
    pub max_contexts: usize,
    /// Seed of the order of documents.
    #[serde(default = "defaults::shuffle_seed")]
    pub shuffle_seed: u64,
    /// Contexts per part of a table, the unit of work and of resuming.
    #[serde(default = "defaults::shard_contexts")]
    pub shard_contexts: usize,
}

/// Where the prompts of a task come from.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// Indirect object identification.
    Ioi,
    /// "The war lasted from 1741 to 17": years above the first.
    GreaterThan,
    /// Prompts of your own, from `file`.
    Prompts,
}

impl TaskKind {
    /// The word in settings and artifacts.
    pub fn word(self) -> &'static str {
        match self {
            TaskKind::Ioi => "ioi",
            TaskKind::GreaterThan => "greater-than",
            TaskKind::Prompts => "prompts",
        }
    }
}

/// A task whose circuit is searched.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Name of the task; its page is `tasks/NAME.html`.
    pub name: String,
    /// Where the prompts of a task come from.
    pub kind: TaskKind,
    /// Number of prompts that get a graph; not set: 100, or all of `file`. If `file` has more, a
    /// sample is drawn by `seed`, each template in proportion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<usize>,
    /// Seed of the prompts.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    /// For kind `prompts`: a JSONL file with text, correct, counter, corrupted and template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What to do with prompts that the model gets wrong (metric 0 or below).
    #[serde(default)]
    pub wrong: Wrong,
    /// Published circuit to compare with. Empty: the known one for this kind, if the model is GPT-2
    /// small of the hub; `none`; `gpt2-small`: the known one in any case; or a JSON file of classes
    /// with their components.
    #[serde(default)]
    pub published: String,
}

/// What to do with prompts that the model gets wrong.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// They count like any other.
    #[default]
    Keep,
    /// They get no circuit and count in no figure.
    LeaveOut,
}

/// How circuits are found.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoveryMethod {
    /// Features ranked by the gradient of the metric in runs with features partly replaced.
    Gradient,
    /// Walks from the answer back along the strongest direct effects.
    Greedy,
    /// Nodes with most of the influence on the answer, as circuit-tracer prunes graphs.
    Influence,
    /// Attribution patching in both directions; only in `verify.methods`.
    AttributionPatching,
    /// Integrated gradients as in sparse feature circuits (Marks et al. 2024); only in
    /// `verify.methods`.
    IntegratedGradients,
    /// Masks learned with a penalty for every feature; only in `verify.methods`.
    LearnedMasks,
    /// The gradient ranking of neurons instead of features; only in `verify.methods`.
    Neurons,
}

/// What direct effects are traced from, in `greedy` and `influence`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum RootKind {
    /// Logit of the right answer minus that of the wrong one.
    LogitDifference,
    /// Logit of the right answer.
    Logit,
}

/// How circuits are found.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discover {
    /// How circuits are found.
    pub method: DiscoveryMethod,
    /// `gradient`: prompts on which features are ranked; those of `tasks.prompts` are among them.
    pub prompts: usize,
    /// `gradient`: interpolation points between everything replaced and nothing replaced at which
    /// the gradient is taken.
    pub points: usize,
    /// `gradient`: held-out prompts on which the size of the circuit is chosen.
    pub choose: usize,
    /// `gradient`: share of what all features keep that the circuit has to keep, in every stratum
    /// (IOI: each order of names).
    pub faithful: f64,
    /// `gradient`: maximum number of features of a circuit.
    pub most: usize,
    /// `gradient`: afterwards remove features in rounds while the circuit keeps that share. Slow:
    /// each feature is ablated in turn.
    pub prune: bool,
    /// `gradient`: minimum effect of a link in a prompt's graph, as a share of all effects on the
    /// answer.
    pub share: f64,
    /// `greedy`, `influence`: what direct effects are traced from.
    pub root: RootKind,
    /// `greedy`: walks from the root.
    pub passes: usize,
    /// `greedy`: links that a walk adds per slot.
    pub per_node: usize,
    /// `greedy`: strongest contributors per slot that may be linked.
    pub candidates: usize,
    /// `influence`: share of the influence that the kept nodes hold, above 0 and up to 1.
    pub coverage: f64,
    /// `influence`: maximum number of features and error terms of a circuit.
    pub nodes: usize,
    /// Kinds of nodes that may be linked. With `influence`, `embedding` is the token and position
    /// embedding together.
    pub allow: BTreeSet<String>,
    /// Also search circuits of the right and the wrong answer's logit, to see how much more often a
    /// component is in the first; no effect with `gradient`.
    pub contrast: bool,
}

/// Where activations are kept between `cache` and `score`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// On disk, in the artifact folder.
    Disk,
    /// Nowhere: the model runs again while scoring.
    Stream,
}

/// Precision of cached activations.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
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

/// How faithful the circuits are: the model runs with everything outside them ablated.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// Ablations of everything outside a circuit, each in turn.
    pub ablations: BTreeSet<Ablation>,
    /// Other methods whose circuits are measured for comparison, under the first ablation.
    pub methods: BTreeSet<DiscoveryMethod>,
    /// Random circuits per size, as a baseline.
    pub random: usize,
    /// Maximum number of held-out prompts on which circuits are measured; 0: the prompts that they
    /// were found on.
    pub prompts: usize,
    /// Half the width of the 95 % interval of faithfulness that is wanted: once those of a task's
    /// components and features are as narrow, no more prompts are measured; 0: all are measured.
    pub precision: f64,
    /// Strongest links of a task that are tested by intervention in the unmodified model.
    pub edges: usize,
}

/// What replaces ablated activations.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Ablation {
    /// The mean over corrupted prompts.
    Mean,
    /// The value in one corrupted prompt.
    Resample,
    /// Zero.
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

/// The activations that dictionaries read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Where activations are kept between `cache` and `score`.
    pub store: StoreKind,
    /// Precision of cached activations.
    pub dtype: Dtype,
    /// Maximum size of the disk cache in GiB; a larger one is refused before the run. While a cache
    /// for a changed corpus is made, as much of the one before is kept beside it as there is room
    /// for within this: of the other contexts activations are computed again.
    pub max_gib: f64,
}

/// Which features are scored over the corpus.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ScoreFeatures {
    /// All features of the circuits.
    Circuit,
    /// Every feature of every dictionary. What is made of pairs of features, explanations, scores
    /// and pages are still those of the features of circuits, of `extra` and of groups alone.
    All,
    /// Only `extra` and those of groups.
    None,
}

/// Which features are scored over the corpus.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Score {
    /// Which features are scored over the corpus.
    pub features: ScoreFeatures,
    /// More features to score, such as `att9.16109`; they get a page and an explanation.
    pub extra: Vec<String>,
}

/// A set of features to look at together, of any layers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name of the group; its page is `groups/NAME.html`.
    pub name: String,
    /// Its features, such as `mlp0.10173`.
    pub features: Vec<String>,
}

/// Examples and co-occurrence of scored features.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aggregate {
    /// Top examples per feature, in each half of the documents.
    pub examples: usize,
    /// Examples per tenth of a feature's active contexts, in each half.
    pub band_examples: usize,
    /// Lagged co-occurrence: how many tokens earlier the other feature may be active.
    pub window: usize,
}

/// Promoted and suppressed tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logits {
    /// Tokens listed at either end.
    pub k: usize,
    /// Activation at which promoted logits are also shown.
    pub strength: f64,
}

/// Interface of the server.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// No language model: explanations are summaries of the statistics.
    None,
    /// OpenAI, or any server with its interface.
    Openai,
    /// Azure OpenAI.
    Azure,
}

/// The language model that writes explanations.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Llm {
    /// Interface of the server.
    pub provider: Provider,
    /// Address. `openai`: up to and with `/v1`; empty: OpenAI's own. `azure`: the endpoint.
    pub base_url: String,
    /// Name of the model.
    pub model: String,
    /// Name of the environment variable that holds the key, never the key itself; empty: no key.
    pub api_key_env: String,
    /// `azure`: version of the interface, such as `2024-10-21`.
    pub api_version: String,
    /// `azure`: deployment; empty: the name of the model.
    pub deployment: String,
    /// Sampling temperature, from 0 to 2.
    pub temperature: f64,
    /// Maximum tokens of a reply.
    pub max_tokens: u32,
    /// Limit for a model that used up `max_tokens` on reasoning and said nothing: sent instead, once.
    /// At most `max_tokens`: never.
    pub max_tokens_limit: u32,
    /// Features that are asked about, such as `att3.51`; empty: all, and what is made of them.
    pub features: Vec<String>,
    /// Independent explanations per feature; with more than one their agreement is measured.
    pub samples: u32,
    /// How replies are made readable by the program.
    pub replies: ReplyFormat,
    /// Requests in flight at once, of each process.
    pub concurrency: usize,
    /// Seconds that a reply may take.
    pub timeout: f64,
    /// Retries of a request after the first try.
    pub retries: u32,
    /// Rate limit, of all shards together; 0: what the server allows.
    pub requests_per_minute: u32,
    /// Rate limit in prompt and completion tokens, of all shards together; 0: what the server allows.
    pub tokens_per_minute: u32,
    /// Budget of a run with all its shards, in the unit of `prices`; no request is sent beyond it. 0:
    /// no limit.
    pub max_cost: f64,
    /// Maximum number of requests of a run with all its shards; 0: no limit.
    pub max_calls: u64,
    /// Maximum bytes of a reply, with all that the server says besides; a longer one is not read.
    pub max_reply: usize,
    /// Price per million prompt tokens and per million completion tokens, by model.
    pub prices: BTreeMap<String, [f64; 2]>,
}

impl Llm {
    /// Settings that change no reply and no table, only how and for how much replies are had.
    pub(super) const HOW: [&str; 9] = [
        "api_key_env",
        "concurrency",
        "timeout",
        "retries",
        "requests_per_minute",
        "tokens_per_minute",
        "max_cost",
        "max_calls",
        "max_reply",
    ];

    /// Whether there is a language model to ask.
    pub fn asks(&self) -> bool {
        self.provider != Provider::None
    }
}

/// How replies are made readable by the program.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ReplyFormat {
    /// By a JSON schema; by a marked line where the server does not support schemas.
    Auto,
    /// Always by a JSON schema.
    Schema,
    /// Always by a marked line.
    Line,
}

/// How explanations are scored.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreMethod {
    /// The best rule "active at these tokens": a baseline that needs no language model.
    SingleToken,
    /// A judge says for each text whether the feature is active in it.
    Detection,
    /// A judge says for each text whether the marked tokens are those at which the feature is
    /// active.
    Fuzzing,
    /// The more similar the embeddings of a text and of the explanation, the more likely it should
    /// be active; needs `evaluate.embedder`.
    Embedding,
    /// A judge looks for the one of five marked texts in which the feature is inactive, without any
    /// explanation: whether the feature itself makes sense.
    Intruder,
}

/// How explanations are scored, on documents that the explainer has not seen.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// How explanations are scored.
    pub methods: BTreeSet<ScoreMethod>,
    /// Active texts per feature that a judge is asked about, and as many inactive ones.
    pub texts: usize,
    /// Texts per request.
    pub batch: usize,
    /// Share of a feature's largest activation of the *explain* half from which on a text counts as
    /// active, to judges and to the single-token rule; 0: any activation. Below 1.
    pub threshold: f64,
    /// Model that judges; empty: `llm.model`.
    pub judge: String,
    /// Model that embeds, for the method `embedding`.
    pub embedder: String,
    /// Address of the server that embeds, up to and with `/v1`; empty: that of `llm.base_url`, with
    /// its key.
    pub embedder_base_url: String,
    /// Name of the environment variable that holds the key of `embedder_base_url`; empty: no key.
    pub embedder_api_key_env: String,
    /// Text that the embedder wants before an explanation, such as `query: `.
    pub embedder_query: String,
    /// Text that it wants before a text of the corpus, such as `passage: `.
    pub embedder_passage: String,
    /// Second model that judges the same texts, to measure agreement; empty: none.
    pub second_judge: String,
    /// Positions of the *score* half at which each feature is added to the residual stream
    /// (steering); 0: none.
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
    /// Title of the site.
    pub title: String,
    /// Address where the site will be, for social cards and the snippets of `data/`; links between
    /// pages are relative.
    pub base_url: String,
    /// The tables of the run in the site's folder `data`, and JSON beside the pages.
    pub data: bool,
    /// Size limit of a table in `data`, in MiB; a larger one is left out, which its page says; 0: no
    /// limit.
    pub data_max_mib: u64,
}

/// What a run must meet to be published; else the site of the run before stays.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publish {
    /// Least faithfulness of each task's circuit of heads and MLPs, under its first ablation; 0: no
    /// bound.
    pub least_faithfulness: f64,
    /// The same of its circuit of features, with the dictionaries' errors ablated.
    pub least_feature_faithfulness: f64,
    /// Largest share of a language model's explanations that may have failed; 1: no bound.
    pub most_failed: f64,
    /// Largest share of the published site's pages that the new one may lack; 1: no bound.
    pub most_lost: f64,
    /// Least variance explained by each dictionary; 0: no bound.
    pub least_variance_explained: f64,
}

/// Speed and memory; these settings change no result.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    /// Threads; 0: one per core.
    pub threads: usize,
    /// Only `cpu`.
    pub device: String,
    /// Maximum number of contexts that a thread runs the model on at once.
    pub batch: usize,
    /// Memory in GiB that a stage may fill with activations and counts, besides the model, its
    /// dictionaries and the tokens of the corpus; with less it reads the same tables more often.
    pub memory: f64,
}

impl Machine {
    /// One of so many equal shares of `memory`, in bytes.
    pub(crate) fn share(&self, of: usize) -> usize {
        (self.memory * (1u64 << 30) as f64) as usize / of
    }
}

/// Jobs of `circuit-atlas slurm`; these settings change no result.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slurm {
    /// Partition of the jobs; empty: Slurm's default.
    pub partition: String,
    /// Account that the jobs are charged to; empty: Slurm's default.
    pub account: String,
    /// Time limit of each job, such as `12:00:00`; empty: estimated for arrays, the partition's
    /// default for other jobs.
    pub time: String,
    /// Memory of each job, such as `16G`; empty: estimated from the model's size.
    pub memory: String,
    /// CPUs of each job; 0: `machine.threads`, or 8 where that is 0.
    pub cpus: usize,
    /// Tasks of each array; 0: as many as there are parts, at most 16.
    pub shards: usize,
    /// How often a job tries again when its command is killed, or fails for a reason that may pass.
    pub retries: usize,
    /// Folder of what the jobs say.
    pub logs: String,
    /// More options of `sbatch` for each job, such as `--constraint=avx512`.
    pub options: Vec<String>,
}

/// Where results are written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// Folder of the tables.
    pub artifacts: String,
    /// Folder of the site; `render` replaces its own files there and keeps others.
    pub site: String,
    /// Folder of converted dictionaries, which several runs may share; empty: in `artifacts`.
    pub dictionaries: String,
    /// Published runs of which the small tables are kept, to tell what changed; 0: none.
    pub keep: usize,
}
