//! A task: its prompts, its circuit summed over them, and how faithful that circuit is.

use super::graph::PromptGraph;
use crate::ids::{Component, DictionaryId, FeatureId, Slot};
use crate::stats::agreement::Doubt;
use serde::Serialize;
use std::collections::BTreeMap;

/// A task: its prompts, its circuit summed over them, and how real that circuit is.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Task {
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
    pub links: Vec<InterventionLink>,
    /// In how many prompts both components are in the circuit; only a < b.
    pub component_pairs: Vec<(Component, Component, u32)>,
    /// The strongest feature pairs in circuits, best first.
    pub pairs: Vec<CircuitPair>,
}

impl Task {
    /// Prompts at which the model is right.
    pub(crate) fn right(&self) -> usize {
        self.prompts.iter().filter(|prompt| prompt.right).count()
    }
}

impl Task {
    /// What stands in the place of everything else in most of what was measured: the mean, unless
    /// it was not asked for.
    pub(crate) fn ablation(&self) -> &str {
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
pub(crate) struct HookScore {
    pub dictionary: DictionaryId,
    /// Summed scores of the features above 0, and below.
    pub supporting: f64,
    pub opposing: f64,
    /// The score of what the dictionary misses.
    pub error: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Prompt {
    pub template: String,
    pub text: String,
    pub correct: String,
    pub counter: String,
    /// Logit of the correct answer less that of the counter answer, in the clean run.
    pub logit_difference: f64,
    /// The task's metric in the clean run.
    pub metric: f64,
    /// The model's first choices at the last position with their probabilities, best first.
    pub answers: Vec<(String, f32)>,
    /// Nodes and links of this prompt's circuit.
    pub nodes: u32,
    pub edges: u32,
    /// Share of the root's effect that the links to the root cover.
    pub coverage: f64,
    /// Whether the model is right, by the task's metric.
    pub right: bool,
    /// Whether it has a circuit.
    pub used: bool,
    /// What stands at each position in the words of its task, such as `last token`; empty where that
    /// is not known.
    #[serde(skip)]
    pub places: Vec<String>,
    /// Its circuit, node by node; none where nothing was found.
    #[serde(skip)]
    pub graph: Option<PromptGraph>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct TaskComponent {
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
pub(crate) struct PublishedClass {
    pub task: String,
    /// Where the circuit is from.
    pub published: String,
    /// None if the component is not in it.
    pub class: Option<String>,
}

/// One variant of the circuit (components in at least a given share of prompts) and what it does
/// alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Faithfulness {
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
pub(crate) struct InterventionLink {
    pub feature: FeatureId,
    /// `root`, a feature, or a head and what it serves: `L2H4 for att2.51`.
    pub receiver: String,
    /// What of it has a page.
    pub receiver_feature: Option<FeatureId>,
    pub receiver_head: Option<Component>,
    /// `q`, `k` or `v` of a head; else empty.
    pub slot: Slot,
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
    /// Why its attribution may be doubted; none where the live model bears it out.
    pub doubt: Option<Doubt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub value: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// Features `a` at component `at_a` and `b` at `at_b`, serving in the same prompts.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CircuitPair {
    pub at_a: Component,
    pub a: FeatureId,
    pub at_b: Component,
    pub b: FeatureId,
    pub prompts: u32,
    /// Summed share of the direct edges between them.
    pub share: f64,
}
