//! The single-token rule of each feature, learned on the *explain* half, tried on examples of the
//! *score* half.

use super::work::Work;
use crate::artifact::tables::{EvaluationRow, ExampleRow, FeatureRow, ReadingRow};
use crate::error::Result;
use crate::ids::{Band, Half};
use crate::inputs::by;
use crate::stats::feature::TokenActivation;
use crate::stats::rule::{LabelledText, Rule, learn, score};
use rayon::prelude::*;
use std::collections::BTreeMap;

impl Work<'_> {
    /// The rule of each feature, by key.
    pub(super) fn rules(&self) -> Result<Vec<Rule>> {
        let contexts = &self.contexts;
        let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
        let explain = |context: u32| contexts.explain[context as usize];
        for row in contexts.rows.iter().filter(|row| explain(row.context)) {
            let counting =
                (0..row.tokens.len() as u16).filter_map(|p| contexts.counting(row.context, p));
            counting.for_each(|id| *seen.entry(id).or_default() += 1);
        }
        let rule = |key: usize, own: &[TokenActivation]| {
            let mut active: BTreeMap<u32, u64> = BTreeMap::new();
            let threshold = self.threshold(key);
            let own = own.iter().filter(|at| explain(at.context) && at.activation >= threshold);
            own.filter_map(|at| contexts.counting(at.context, at.position))
                .for_each(|id| *active.entry(id).or_default() += 1);
            learn(&active, &seen)
        };
        self.of_activations(&(0..self.features.len()).collect::<Vec<_>>(), rule)
    }

    /// What the weights alone say of each feature, as a rule: the tokens that they read; empty where
    /// none stands out.
    pub(super) fn read_by_weights(&self) -> Result<Vec<Rule>> {
        let readings = by(self.run.store.read()?, |row: &ReadingRow| row.feature);
        let tokens = |row: &FeatureRow| {
            let own = readings.get(&row.feature).into_iter().flatten();
            own.filter_map(|reading| reading.token).collect()
        };
        Ok(self.features.iter().map(tokens).collect())
    }

    /// How each feature's rule does, beside another feature's; `explainer` says whose it is, `keys` of which
    /// features.
    pub(super) fn by_rule(
        &self,
        explainer: &str,
        rules: &[Rule],
        keys: &[usize],
    ) -> Vec<EvaluationRow> {
        let row = |key: usize| {
            let threshold = self.threshold(key);
            let clear = |row: &&ExampleRow| row.value == 0.0 || row.value >= threshold;
            let trials: Vec<LabelledText> =
                self.examples(key, Half::Score).filter(clear).map(|row| self.trial(row)).collect();
            let other = self.control(key, keys.iter().copied());
            let own = score(&rules[key], &trials).balanced_accuracy();
            EvaluationRow {
                examples: trials.len() as u32,
                null: other
                    .and_then(|other| score(&rules[other], &trials).balanced_accuracy())
                    .map(|e| e.value),
                null_subject: other.map(|other| self.features[other].feature),
                ..self.unscored(key, explainer, "single-token", "").scored(own)
            }
        };
        keys.par_iter().map(|&key| row(key)).collect()
    }

    fn trial(&self, row: &ExampleRow) -> LabelledText {
        let positions = row.start..row.start + row.tokens.len() as u16;
        let tokens = positions.filter_map(|p| self.contexts.counting(row.context, p)).collect();
        LabelledText { tokens, active: row.band != Band::Inactive }
    }
}
