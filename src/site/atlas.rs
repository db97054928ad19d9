//! What the site is made from: one plain value, filled by the `render` stage from the artifacts.
//!
//! Every text here comes from a corpus, a tokenizer, a settings file or a language model, and is
//! hostile until escaped.

pub use super::head::{Head, HeadFeature};
pub use super::written::{
    Account, Agreement, Asked, Bill, Causal, Evaluation, Exchange, Explanation, Misjudged,
};
use crate::ids::{Component, DictionaryId, FeatureId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The whole atlas. Features are in the order of their ids, components in the order of the model.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Atlas {
    pub title: String,
    /// Only for social cards; may be empty. Pages link relatively.
    pub base_url: String,
    /// The program's version.
    pub version: String,
    /// What the model is called where it came from.
    pub model: String,
    /// When the newest stage before `render` ended, `2026-01-31 04:05 UTC`.
    pub when: String,
    /// What was run on what, in the order to be shown: (label, value).
    pub provenance: Vec<(String, String)>,
    pub layers: usize,
    pub heads: usize,
    pub documents: u64,
    pub contexts: u64,
    /// Tokens that count: neither special nor padding.
    pub tokens: u64,
    pub tasks: Vec<Task>,
    pub components: Vec<ComponentPage>,
    pub features: Vec<Feature>,
    /// The strongest pairs of the tasks' circuits, by name.
    pub pairs: Vec<Pair>,
    pub groups: Vec<Group>,
    pub conformance: Vec<Conformance>,
    /// What language models were asked, by model and purpose; empty without one.
    pub accounts: Vec<Account>,
    /// Stage name and the seconds it took, in the order of the stages.
    pub stages: Vec<(String, f64)>,
}

/// How well a dictionary describes the model, measured on tokens of the corpus.
#[derive(Clone, Debug, Serialize)]
pub struct Conformance {
    pub dictionary: DictionaryId,
    pub width: usize,
    /// Mean number of active features a token.
    pub l0: f64,
    /// 1 − fraction of variance unexplained of what it reconstructs.
    pub variance_explained: f64,
    /// Features never active on the sample, and that as a share of the width.
    pub dead: u64,
    /// Share of the loss recovered when the reconstruction replaces the original, against zero
    /// ablation.
    pub loss_recovered: Option<f64>,
    /// Tokens that it was measured on.
    pub tokens: u64,
}

/// A task: its prompts, its circuit summed over them, and how real that circuit is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Task {
    pub name: String,
    /// `ioi`, `greater-than` or `prompts`.
    pub kind: String,
    /// How its circuits were found: `gradient`, `greedy` or `influence`.
    pub method: String,
    /// The share of what all features keep from which on a circuit of features is called faithful.
    pub faithful: f64,
    pub prompts: Vec<Prompt>,
    /// Share of prompts at which the model is right: the task's metric is above 0.
    pub accuracy: f64,
    /// Prompts that have a circuit: all, or those at which the model is right. Everything else is
    /// of these.
    pub used: u32,
    /// Mean over prompts of the share of the root's effect that the circuit's links to the root
    /// cover.
    pub coverage: f64,
    /// Mean over prompts of the share of the influence that is not in the circuit; none where its
    /// method does not tell.
    pub left_out: Option<f64>,
    /// Every component of the model that is in a circuit, in the order of the model.
    pub components: Vec<TaskComponent>,
    /// Features by their scores, the strongest first: those that support the answer, and those that
    /// oppose it.
    pub supporting: Vec<(FeatureId, f64)>,
    pub opposing: Vec<(FeatureId, f64)>,
    /// How much of the answer goes through each dictionary; empty where features have no scores.
    pub hooks: Vec<HookScore>,
    pub faithfulness: Vec<Faithfulness>,
    /// Its strongest links, the strongest first, and what they do in the live model.
    pub links: Vec<LiveLink>,
    /// In how many prompts both components are in the circuit; only a < b.
    pub component_pairs: Vec<(Component, Component, u32)>,
    /// The strongest feature pairs in circuits, best first.
    pub pairs: Vec<CircuitPair>,
}

impl Task {
    /// Prompts at which the model is right.
    pub fn right(&self) -> usize {
        self.prompts.iter().filter(|prompt| prompt.right).count()
    }
}

impl Task {
    /// What stands in the place of everything else in most of what was measured: the mean, unless
    /// it was not asked for.
    pub fn ablation(&self) -> &str {
        let ran = |name: &&str| {
            self.faithfulness.iter().any(|f| {
                f.ablation == *name && f.level != "neuron" && f.metrics.contains_key("m_circuit")
            })
        };
        ["mean", "resample", "zero"].into_iter().find(ran).unwrap_or("mean")
    }
}

/// How much of a task's answer goes through a dictionary, the mean over prompts, in the metric's
/// unit.
#[derive(Clone, Debug, Serialize)]
pub struct HookScore {
    /// Such as `att2`.
    pub dictionary: String,
    /// Summed scores of the features above 0, and below.
    pub supporting: f64,
    pub opposing: f64,
    /// The score of what the dictionary misses.
    pub error: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Prompt {
    pub template: String,
    pub text: String,
    pub correct: String,
    pub counter: String,
    /// Logit of the correct answer less that of the counter answer, in the clean run.
    pub logit_difference: f64,
    /// The task's metric in the clean run.
    pub metric: f64,
    /// The model's first choices at the last position with their probabilities, best first.
    pub answers: Vec<(String, f64)>,
    /// Nodes and links of this prompt's circuit.
    pub nodes: u32,
    pub edges: u32,
    /// Share of the root's effect that the links to the root cover.
    pub coverage: f64,
    /// Whether the model is right, by the task's metric.
    pub right: bool,
    /// Whether it has a circuit.
    pub used: bool,
    /// Its circuit, node by node; none where nothing was found.
    #[serde(skip)]
    pub graph: Option<Graph>,
}

/// The circuit of one prompt as a graph. Cloning it does not copy the nodes and links.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The prompt's number in its task, from 0: the name of its page.
    pub number: u32,
    /// What the model read, special tokens included: id and text.
    pub tokens: Vec<(u32, String)>,
    /// Id of the correct answer.
    pub correct: u32,
    /// Whether the root is a difference of two logits or the correct answer's alone.
    pub difference: bool,
    pub nodes: Arc<Vec<Node>>,
    pub links: Arc<Vec<Link>>,
}

/// The kinds of nodes (DESIGN.md 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    Root,
    AttentionFeature,
    MlpFeature,
    Head,
    AttentionError,
    MlpError,
    Bias,
    Embedding,
    PositionEmbedding,
}

/// A node of a prompt's circuit. Numbers that its kind does not have are 0.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: NodeKind,
    pub layer: usize,
    /// Where it is; the destination of a head.
    pub position: usize,
    /// The position that a head reads.
    pub source: usize,
    pub head: usize,
    /// The dictionary feature; of a head the one that it serves, none for the dictionary's error.
    pub feature: Option<usize>,
    pub activation: Option<f32>,
}

/// Where a contributor enters: a head's query, key or value, or the only input of anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    In,
    Q,
    K,
    V,
}

/// Node `from` contributes to node `to`; both are places in the graph's nodes.
#[derive(Clone, Debug)]
pub struct Link {
    pub from: usize,
    pub to: usize,
    pub slot: Slot,
    pub effect: f32,
    /// `|effect|` as a share of everything that enters the slot.
    pub share: f32,
}

#[derive(Clone, Debug, Serialize)]
pub struct TaskComponent {
    pub component: Component,
    /// Fraction of prompts whose circuit contains it.
    pub frequency: f64,
    /// Distinct features that serve there.
    pub features: u32,
    /// Fraction of prompts whose circuit of the right answer's logit contains it, less that of the
    /// wrong answer's.
    pub contrast: Option<f64>,
    /// What it is in the published circuit.
    pub class: Option<String>,
}

/// What a task's published circuit says of a component.
#[derive(Clone, Debug, Serialize)]
pub struct Class {
    pub task: String,
    /// Where the circuit is from.
    pub published: String,
    /// None if the component is not in it.
    pub class: Option<String>,
}

/// One variant of the circuit (components in at least a given share of prompts) and what it does
/// alone.
#[derive(Clone, Debug, Serialize)]
pub struct Faithfulness {
    /// `component` or `feature`; `link` for what is known of single links.
    pub level: String,
    /// What the circuit is, such as `frequency >= 0.25`.
    pub variant: String,
    /// `found`, `random`, `published`, `null`, `all` or a method.
    pub circuit: String,
    /// What everything else is replaced with: `mean`, `resample` or `zero`; empty where nothing was
    /// run.
    pub ablation: String,
    /// The dictionaries' errors: `kept`, `ablated`; empty where dictionaries play no part.
    pub errors: String,
    /// Components (or features) in it.
    pub size: u32,
    /// metric → value with its interval: `faithfulness`, `completeness`, `m_full`, `precision`,
    /// `correlation` …; on the prompts of one stratum `faithfulness on ABBA`. A value is absent
    /// where its denominator cannot be told from 0.
    pub metrics: BTreeMap<String, Interval>,
}

/// A link from a feature: what its direct effect predicts when the feature is set to its mean over
/// corrupted prompts, and what then happens in the live model. Changes are shares of everything
/// that enters the receiver.
#[derive(Clone, Debug, Serialize)]
pub struct LiveLink {
    pub feature: FeatureId,
    /// `root`, a feature, or a head and what it serves: `L2H4 for att2.51`.
    pub receiver: String,
    /// What of it has a page.
    pub receiver_feature: Option<FeatureId>,
    pub receiver_head: Option<Component>,
    /// `q`, `k` or `v` of a head; else empty.
    pub slot: String,
    /// Prompts whose circuit has it.
    pub prompts: u32,
    /// Its direct effect, a share like the changes; the mean over the prompts in which it was run.
    pub share: f64,
    /// The prompts in which it was run: predicted and measured change.
    pub runs: Vec<(f64, f64)>,
    /// Means over them.
    pub predicted: f64,
    pub measured: f64,
    /// Mean change of what the circuit grows from, such as the logit difference.
    pub root: f64,
    /// Its mean over corrupted prompts is so near that the change is small by the attribution
    /// itself.
    pub steady: bool,
    /// What happens in the live model falls short of what the attribution predicts.
    pub short: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub value: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// Features `a` at component `at_a` and `b` at `at_b`, serving in the same prompts.
#[derive(Clone, Debug, Serialize)]
pub struct CircuitPair {
    pub at_a: Component,
    pub a: FeatureId,
    pub at_b: Component,
    pub b: FeatureId,
    pub prompts: u32,
    /// Summed share of the direct edges between them.
    pub share: f64,
}

/// A head or an MLP, over all tasks.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentPage {
    pub component: Component,
    /// (task, its frequency there).
    pub tasks: Vec<(String, f64)>,
    /// Features that serve here, most often first.
    pub features: Vec<Serving>,
    /// What its features promote, weighted by how often each serves.
    pub promoted: Vec<Promoted>,
    pub suppressed: Vec<Promoted>,
    /// That of the language model; if it has none, the summary of the statistics.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it; none where none was.
    pub asked: Option<Asked>,
    /// Contexts on which its features are strongest, weighted by how often each serves; values are
    /// on that scale, as shares of the largest.
    pub examples: Vec<Example>,
    /// Components found with it in the same circuits: (task, other, prompts).
    pub neighbours: Vec<(String, Component, u32)>,
    /// For each task with a published circuit.
    pub classes: Vec<Class>,
    /// What a head does, by task.
    pub heads: Vec<Head>,
    /// Its features by their share of decoder norm in it, largest first.
    pub head_features: Vec<HeadFeature>,
}

/// A feature that serves at a component in some prompts of a task.
#[derive(Clone, Debug, Serialize)]
pub struct Serving {
    pub task: String,
    pub component: Component,
    pub feature: FeatureId,
    pub prompts: u32,
    /// Of how many prompts.
    pub of: u32,
    /// Summed share of the effects that it has there (see the artifact `circuit_features`).
    pub share: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Promoted {
    pub text: String,
    /// Logits per unit of activation.
    pub logit: f64,
    /// The same at `logits.strength` units.
    pub at_strength: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    pub id: FeatureId,
    /// Tokens that count at which it is active.
    pub active: u64,
    pub density: f64,
    pub mean_active: f64,
    pub max: f64,
    /// Special tokens at which it is active; they are in no other number.
    pub special_active: u64,
    /// 50 equal bins on (0, max].
    pub histogram: Vec<u64>,
    /// Tokens by their share of the summed activation, largest first.
    pub mass: Vec<(String, f64)>,
    pub promoted: Vec<Promoted>,
    pub suppressed: Vec<Promoted>,
    pub servings: Vec<Serving>,
    /// Bands `top`, `q9` … `q0`, `inactive`; within a band by rank. Both halves of the documents.
    pub examples: Vec<Example>,
    /// Features that meet it in the corpus, highest normalised PMI among the significant first.
    pub corpus_pairs: Vec<CorpusPair>,
    /// How many there are in all.
    pub corpus_total: u64,
    /// Features that serve with it in circuits, most prompts first.
    pub circuit_pairs: Vec<(String, CircuitPair)>,
    /// How many there are in all.
    pub circuit_total: u64,
    /// That of the language model; if it has none, the summary of the statistics.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it; none where none was.
    pub asked: Option<Asked>,
    /// The language model's explanation first, and of those the first judge's.
    pub evaluations: Vec<Evaluation>,
    pub agreements: Vec<Agreement>,
    /// Some of the texts that the first judge got wrong.
    pub misjudged: Vec<Misjudged>,
    pub causal: Option<Causal>,
}

/// A window of a context around the peak.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// `top`, `q0` … `q9`, `inactive`.
    pub band: String,
    /// `explain` or `score`.
    pub half: String,
    pub document: u32,
    pub context: u32,
    /// Position of the window's first piece in the context.
    pub start: u32,
    /// The largest activation in the window's context.
    pub value: f64,
    pub pieces: Vec<Piece>,
    /// Index in `pieces` of the peak.
    pub peak: usize,
    /// The window was cut: there is more text of the context before, after.
    pub more_before: bool,
    pub more_after: bool,
}

/// A stretch of text with one activation: a token, or several that share a character (their largest
/// activation).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Piece {
    pub text: String,
    pub value: f64,
    /// Special tokens are shown apart and never coloured.
    pub special: bool,
}

/// How often another feature meets this one.
#[derive(Clone, Debug, Serialize)]
pub struct CorpusPair {
    pub other: FeatureId,
    /// `same` token, or within a `window` of tokens.
    pub lag: String,
    /// For `window`: this feature comes first.
    pub first: bool,
    pub together: u64,
    pub expected: f64,
    pub lift: f64,
    pub npmi: f64,
    pub jaccard: f64,
    pub phi: f64,
    /// Benjamini–Hochberg over all pairs tested. Optimistic: tokens of one document are not
    /// independent.
    pub q: f64,
}

/// Two features looked at together; `pairs/A+B.html`, the names in alphabetical order.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    pub a: FeatureId,
    pub b: FeatureId,
    /// Where the two serve together: (task, pair).
    pub circuit: Vec<(String, CircuitPair)>,
    /// How they meet in the corpus; `other` is `b`.
    pub corpus: Vec<CorpusPair>,
    /// What the sum of their write directions promotes.
    pub promoted: Vec<Promoted>,
    pub suppressed: Vec<Promoted>,
    /// Joint examples: values are sums of the two activations, each as a share of its feature's
    /// maximum.
    pub examples: Vec<Example>,
    /// That of the language model; if it has none, the summary of the statistics.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it; none where none was.
    pub asked: Option<Asked>,
}

/// A set of features looked at together; `groups/NAME.html`.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    pub name: String,
    pub features: Vec<FeatureId>,
    pub promoted: Vec<Promoted>,
    pub suppressed: Vec<Promoted>,
    /// Joint examples: values are sums of activations, each as a share of its feature's maximum.
    pub examples: Vec<Example>,
    /// That of the language model; if it has none, the summary of the statistics.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it; none where none was.
    pub asked: Option<Asked>,
}
