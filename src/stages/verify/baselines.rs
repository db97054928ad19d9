//! What circuits are compared with: random circuits, the null task, other methods, a published
//! circuit.

use super::curves::Curve;
use super::{CurveSetting, TaskRun};
use crate::artifact::tables::FaithfulnessRow;
use crate::circuit::features::Errors;
use crate::circuit::{Pass, at_least, everything, random_circuits};
use crate::error::Result;
use crate::ids::{Component, DictionaryId, FeatureId};
use crate::stats::agreement::area_under_curve;
use crate::stats::interval::{Estimate, mean, spread};
use crate::task::Published;
use std::collections::{BTreeMap, BTreeSet};

impl TaskRun<'_> {
    /// What circuits of the null task gain on it, as a share of what the true answers gain in the
    /// whole model: the same sizes, found with the answers of half of the prompts exchanged and
    /// measured with those of half of the fresh ones.
    pub(super) fn null(
        &self,
        curve: &Curve<FeatureId>,
        circuits: &[(String, BTreeSet<FeatureId>)],
    ) -> Result<Vec<FaithfulnessRow>> {
        let ranked = self.ranked("null", 1.0);
        if ranked.is_empty() {
            return Ok(Vec::new());
        }
        let row = |(variant, circuit): &(String, BTreeSet<FeatureId>)| {
            let first: BTreeSet<FeatureId> = ranked.iter().take(circuit.len()).copied().collect();
            let m = self.ticked((curve.inside)(&first))?;
            let signed: Vec<f64> = m
                .iter()
                .zip(curve.empty)
                .zip(&self.signs)
                .map(|((m, e), sign)| e + sign * (m - e))
                .collect();
            Ok(curve
                .measured("null", variant, first.len())
                .row("faithfulness", curve.recovered(&signed)))
        };
        circuits.iter().map(row).collect()
    }

    /// Every feature that is active on a prompt of the task: what random circuits are drawn from.
    pub(super) fn active_features(&self) -> Result<BTreeSet<FeatureId>> {
        let mut active = BTreeSet::new();
        let tokens: Vec<&[u32]> = self.all.iter().map(|case| case.tokens).collect();
        let layers = self.replacement.model.sizes.layers;
        let one = |_, pass: Pass| {
            let of = |id: DictionaryId| {
                let features = pass.active(id.kind, id.layer).iter().flatten();
                features.map(move |(f, _)| FeatureId { dictionary: id, index: *f as usize })
            };
            Ok(DictionaryId::all(layers).flat_map(of).collect::<BTreeSet<FeatureId>>())
        };
        self.replacement.over(&tokens, one, |_, features| active.extend(features))?;
        Ok(active)
    }

    /// How well the found circuits name the components of the published one: only its kinds of
    /// components count.
    pub(super) fn against(&self, published: &Published) -> Result<Vec<FaithfulnessRow>> {
        let theirs = published.components();
        let mlps = theirs.iter().any(|c| matches!(c, Component::Mlp { .. }));
        let counts = |c: &Component| mlps || matches!(c, Component::Head { .. });
        let frequencies: BTreeMap<Component, f64> =
            self.frequencies().into_iter().filter(|(c, _)| counts(c)).collect();
        let mut rows = Vec::new();
        for (variant, circuit) in self.components() {
            let ours: BTreeSet<Component> = circuit.iter().copied().filter(counts).collect();
            let both = ours.intersection(&theirs).count() as f64;
            let share = |of: usize| (of > 0).then(|| Estimate::exact(both / of as f64));
            let row = |metric: &str, value| self.compared(&variant, ours.len(), metric, value);
            rows.extend([row("precision", share(ours.len())), row("recall", share(theirs.len()))]);
        }
        let all = everything(&self.replacement.model);
        let (yes, no): (Vec<Component>, Vec<Component>) =
            all.into_iter().filter(counts).partition(|c| theirs.contains(c));
        let scores = |of: Vec<Component>| -> Vec<f64> {
            of.iter().map(|c| frequencies.get(c).copied().unwrap_or(0.0)).collect()
        };
        let area = area_under_curve(&scores(yes), &scores(no)).map(Estimate::exact);
        rows.push(self.compared("by frequency", at_least(&frequencies, 0.0).len(), "auc", area));
        Ok(rows)
    }
}

impl<P: Ord + Copy> Curve<'_, P> {
    /// The mean over random circuits of a size, with the smallest and the largest of them; nothing
    /// where they are known from another method's circuit, or there are not so many parts to draw.
    pub(super) fn random(&self, variant: &str, size: usize) -> Result<Vec<FaithfulnessRow>> {
        let task_run = self.task_run;
        let Some(pool) = self.pool else { return Ok(Vec::new()) };
        let CurveSetting { level, ablation, errors } = self.setting;
        let key = (level, ablation, errors == Some(Errors::Kept), variant.to_string(), size);
        if size > pool.len() || !task_run.drawn.borrow_mut().insert(key) {
            task_run.run.progress.add(task_run.run.config.verify.random as u64);
            return Ok(Vec::new());
        }
        let draws =
            random_circuits(pool, size, task_run.run.config.verify.random, task_run.task.seed);
        let each = draws
            .iter()
            .map(|draw| task_run.ticked((self.inside)(draw)))
            .collect::<Result<Vec<_>>>()?;
        let m: Vec<f64> = each.iter().map(|draw| mean(draw)).collect();
        let recovered: Vec<f64> =
            each.iter().filter_map(|draw| Some(self.recovered(draw)?.value)).collect();
        let measured = self.measured("random", variant, size);
        Ok(vec![
            measured.row("m_circuit", spread(&m)),
            measured.row("faithfulness", spread(&recovered)),
        ])
    }
}
