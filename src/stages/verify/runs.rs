//! Runs of a task's circuits, each measured once.

use super::TaskRun;
use crate::circuit::components::{self, ComponentAblation};
use crate::circuit::features::{Errors, FeatureAblation, Runner, Side};
use crate::config::Ablation;
use crate::error::Result;
use crate::ids::{Component, FeatureId};
use crate::stages::search::runs::{Key, Way};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

impl TaskRun<'_> {
    fn key(&self, way: Way, circuit: &BTreeSet<impl Display>) -> Key {
        Key::of(&self.task.name, self.cases.len(), way, circuit)
    }

    /// The metric of each case with every component outside `keep` ablated.
    pub(super) fn component_run(
        &self,
        ablation: Ablation,
        ablation_values: &[Arc<ComponentAblation>],
        keep: &BTreeSet<Component>,
    ) -> Result<Vec<f64>> {
        let key = self.key(("component", ablation, None, Side::Inside), keep);
        self.runs.values(key, || {
            components::values(&self.replacement.model, &self.cases, keep, ablation_values)
        })
    }

    /// The metric of each case with features on one side of a circuit ablated.
    pub(super) fn feature_run(
        &self,
        ablation: Ablation,
        ablation_values: &[Arc<FeatureAblation>],
        errors: Errors,
        circuit: &BTreeSet<FeatureId>,
        side: Side,
    ) -> Result<Vec<f64>> {
        let runner =
            Runner { replacement: self.replacement, cases: &self.cases, ablation_values, errors };
        let key = self.key(("feature", ablation, Some(errors), side), circuit);
        self.runs.values(key, || runner.values(circuit, side))
    }

    /// The same of the model's own neurons.
    pub(super) fn neuron_run(
        &self,
        circuit: &BTreeSet<FeatureId>,
        measure: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let key = self.key(("neuron", Ablation::Mean, None, Side::Inside), circuit);
        self.runs.values(key, measure)
    }
}
