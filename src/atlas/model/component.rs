//! A head or an MLP over all tasks, and the features that serve there.

use super::{Example, Explanation, Head, HeadFeature, PromotedToken, PublishedClass, Transcript};
use crate::ids::{Component, FeatureId};
use serde::Serialize;

/// A head or an MLP, over all tasks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ComponentPage {
    pub component: Component,
    /// (task, its frequency there).
    pub tasks: Vec<(String, f64)>,
    /// Features that serve here, most often first.
    pub features: Vec<Serving>,
    /// What its features promote, weighted by how often each serves.
    pub promoted: Vec<PromotedToken>,
    pub suppressed: Vec<PromotedToken>,
    /// That of the language model; if it has none, the summary of the statistics.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it; none where none was.
    pub asked: Option<Transcript>,
    /// Contexts on which its features are strongest, weighted by how often each serves; values are
    /// on that scale, as shares of the largest.
    pub examples: Vec<Example>,
    /// Components found with it in the same circuits: (task, other, prompts).
    pub neighbours: Vec<(String, Component, u32)>,
    /// For each task with a published circuit.
    pub classes: Vec<PublishedClass>,
    /// What a head does, by task.
    pub heads: Vec<Head>,
    /// Its features by their share of decoder norm in it, largest first.
    pub head_features: Vec<HeadFeature>,
}

/// A feature that serves at a component in some prompts of a task.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Serving {
    pub task: String,
    pub component: Component,
    pub feature: FeatureId,
    pub prompts: u32,
    /// Of how many prompts.
    pub of: u32,
    /// Summed share of the effects that it has there (see the artifact `circuit_features`).
    pub share: f64,
}
