//! What is known of one subject, as one JSON document: `show … --json` prints it, and the site has
//! it beside the subject's page. Numbers have all digits that tell them from others: those
//! that are f32 in the tables have the shortest text that reads back as the same f32.

use super::Reader;
use super::model::{
    CircuitPair, ComponentPage, Example, Explanation, Feature, Head, HeadFeature, PromotedToken,
    PublishedClass, Serving, Task, Transcript,
};
use super::verdict::of_evaluation;
use crate::error::Result;
use crate::ids::{Component, Kind};
use crate::stats::interval::mean;
use serde::Serialize;

/// Units of activation at which the promoted tokens of a feature are shown: its maximum; `usual` of
/// one that was never active, and of what is no feature.
pub(crate) fn strength(max: Option<f32>, usual: f64) -> f64 {
    max.filter(|max| *max > 0.0).map_or(usual, f64::from)
}

/// A feature.
#[derive(Serialize)]
pub(crate) struct FeatureAnswer<'a> {
    #[serde(flatten)]
    feature: &'a Feature,
    kind: Kind,
    layer: usize,
    /// What came of each of `evaluations`, in words.
    verdicts: Vec<String>,
    /// Units of activation of `at_strength`; of most the maximum, which is an f32.
    strength: f32,
}

impl<'a> FeatureAnswer<'a> {
    pub(crate) fn new(feature: &'a Feature, strength: f64) -> FeatureAnswer<'a> {
        let (kind, layer) = (feature.id.dictionary.kind, feature.id.dictionary.layer);
        let verdicts = feature.evaluations.iter().map(|e| of_evaluation(e).words).collect();
        FeatureAnswer { feature, kind, layer, verdicts, strength: strength as f32 }
    }
}

/// A pair or a group of features that has a page.
#[derive(Serialize)]
pub(crate) struct TogetherAnswer<'a, T> {
    #[serde(flatten)]
    subject: &'a T,
    /// Units of activation of `at_strength`.
    strength: f64,
}

impl<'a, T> TogetherAnswer<'a, T> {
    pub(crate) fn new(subject: &'a T, strength: f64) -> TogetherAnswer<'a, T> {
        TogetherAnswer { subject, strength }
    }
}

/// A pair of features in circuits, with its task.
#[derive(Clone, Serialize)]
pub(crate) struct PairInTask {
    pub task: String,
    #[serde(flatten)]
    pub pair: CircuitPair,
    /// Prompts of the task.
    pub of: u32,
}

impl PairInTask {
    pub(crate) fn new(reader: &Reader, task: &str, pair: CircuitPair) -> Result<PairInTask> {
        Ok(PairInTask { task: task.into(), pair, of: reader.prompts_of(task)? })
    }
}

/// A feature where it serves, with its explanation.
#[derive(Serialize)]
pub(crate) struct Explained {
    #[serde(flatten)]
    pub serving: Serving,
    pub explanation: Option<String>,
}

impl Explained {
    fn new(reader: &Reader, serving: Serving) -> Result<Explained> {
        Ok(Explained { explanation: reader.explained(serving.feature)?, serving })
    }
}

/// A head or an MLP.
#[derive(Serialize)]
pub(crate) struct ComponentAnswer {
    pub component: Component,
    pub tasks: Vec<ComponentInTask>,
    /// The largest share of direct links first.
    pub pairs: Vec<PairInTask>,
    pub pairs_total: usize,
    /// Of its features, weighted by how often each serves; as are the promoted, suppressed tokens
    /// and examples.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it.
    pub asked: Option<Transcript>,
    pub promoted: Vec<PromotedToken>,
    pub suppressed: Vec<PromotedToken>,
    pub examples: Vec<Example>,
    /// For each task with a published circuit.
    pub classes: Vec<PublishedClass>,
    /// What a head does, by task.
    pub heads: Vec<Head>,
    /// Its features by their share of decoder norm in it.
    pub head_features: Vec<HeadFeature>,
    /// Units of activation of `at_strength`.
    pub strength: f64,
}

/// A component in the circuits of a task.
#[derive(Serialize)]
pub(crate) struct ComponentInTask {
    pub task: String,
    /// Share of prompts whose circuit contains it.
    pub frequency: f64,
    pub features: Vec<Explained>,
    pub features_total: usize,
    /// Components found with it in most prompts.
    pub neighbours: Vec<(Component, u32)>,
}

impl ComponentAnswer {
    /// At most `most` rows of each list; `strength` is that of its promoted tokens.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) fn new(
        reader: &Reader,
        page: ComponentPage,
        most: usize,
        strength: f64,
    ) -> Result<ComponentAnswer> {
        let component = page.component;
        let is_here = |pair: &CircuitPair| pair.at_a == component || pair.at_b == component;
        let own: Vec<(&str, CircuitPair)> =
            reader.circuit_pairs()?.filter(|(_, pair)| is_here(pair)).collect();
        let pairs_total = own.len();
        let pairs = own
            .into_iter()
            .take(most)
            .map(|(task, pair)| PairInTask::new(reader, task, pair))
            .collect::<Result<_>>()?;
        let tasks = page
            .tasks
            .iter()
            .map(|(task, frequency)| ComponentInTask::new(reader, &page, task, *frequency, most))
            .collect::<Result<_>>()?;
        Ok(ComponentAnswer {
            component,
            tasks,
            pairs,
            pairs_total,
            explanation: page.explanation,
            asked: page.asked,
            promoted: page.promoted,
            suppressed: page.suppressed,
            examples: page.examples,
            classes: page.classes,
            heads: page.heads,
            head_features: page.head_features,
            strength,
        })
    }
}

impl ComponentInTask {
    fn new(
        reader: &Reader,
        page: &ComponentPage,
        task: &str,
        frequency: f64,
        most: usize,
    ) -> Result<ComponentInTask> {
        let own: Vec<&Serving> =
            page.features.iter().filter(|serving| serving.task == task).collect();
        let neighbours = page.neighbours.iter().filter(|(of, ..)| of == task);
        Ok(ComponentInTask {
            task: task.into(),
            frequency,
            features_total: own.len(),
            features: own
                .into_iter()
                .take(most)
                .map(|serving| Explained::new(reader, serving.clone()))
                .collect::<Result<_>>()?,
            neighbours: neighbours.take(most).map(|(_, other, n)| (*other, *n)).collect(),
        })
    }
}

/// A task.
#[derive(Serialize)]
pub(crate) struct TaskAnswer {
    /// Prompts at which the model is right, by the task's metric.
    pub right: usize,
    /// Means over the prompts that have a circuit, in the clean run.
    pub metric: f64,
    pub logit_difference: f64,
    /// Features of the circuits at their components, the largest share first.
    pub features: Vec<Explained>,
    pub features_total: usize,
    #[serde(flatten)]
    pub task: Task,
}

impl TaskAnswer {
    /// With the `most` strongest features.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) fn new(reader: &Reader, task: Task, most: usize) -> Result<TaskAnswer> {
        let servings = reader.strongest_servings(&task.name)?;
        let of = |value: fn(&super::model::Prompt) -> f64| {
            let used = task.prompts.iter().filter(|prompt| prompt.used);
            mean(&used.map(value).collect::<Vec<_>>())
        };
        Ok(TaskAnswer {
            right: task.right(),
            metric: of(|prompt| prompt.metric),
            logit_difference: of(|prompt| prompt.logit_difference),
            features_total: servings.len(),
            features: servings
                .into_iter()
                .take(most)
                .map(|serving| Explained::new(reader, serving))
                .collect::<Result<_>>()?,
            task,
        })
    }
}
