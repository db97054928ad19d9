//! The single-token rule of each feature, learned on the *explain* half, tried on examples of the
//! *score* half.

use super::work::Work;
use crate::artifact::tables::{EvaluationRow, ExampleRow};
use crate::ids::Band;
use crate::ids::Half;
use crate::stats::feature::TokenActivation;
use crate::stats::rule::{LabelledText, Rule, learn, score};
use rayon::prelude::*;
use std::collections::BTreeMap;

impl Work<'_> {
    /// The rule of each feature, by key.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let contexts = &self.contexts;
        let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
        let explain = |context: u32| contexts.explain[context as usize];
        for row in contexts.rows.iter().filter(|row| explain(row.context)) {
            let counting =
                (0..row.tokens.len() as u16).filter_map(|p| contexts.counting(row.context, p));
            counting.for_each(|id| *seen.entry(id).or_default() += 1);
        }
        let rule = |own: &Vec<TokenActivation>| {
            let mut active: BTreeMap<u32, u64> = BTreeMap::new();
            let own = own.iter().filter(|at| explain(at.context));
            own.filter_map(|at| contexts.counting(at.context, at.position))
                .for_each(|id| *active.entry(id).or_default() += 1);
            learn(&active, &seen)
        };
        self.activations.par_iter().map(rule).collect()
    }

    /// How each feature's rule does, beside another feature's.
    pub(super) fn by_rule(&self, rules: &[Rule]) -> Vec<EvaluationRow> {
        let row = |key: usize| {
            let trials: Vec<LabelledText> =
                self.examples(key, Half::Score).map(|row| self.trial(row)).collect();
            let other = self.control(key, 0..self.features.len());
            let own = score(&rules[key], &trials).balanced_accuracy();
            EvaluationRow {
                subject: self.features[key].feature,
                explainer: "single-token rule".into(),
                method: "single-token".into(),
                judge: String::new(),
                examples: trials.len() as u32,
                balanced_accuracy: own.map(|e| e.value),
                low: own.map(|e| e.low),
                high: own.map(|e| e.high),
                null: other
                    .and_then(|other| score(&rules[other], &trials).balanced_accuracy())
                    .map(|e| e.value),
                null_subject: other.map(|other| self.features[other].feature),
                rule: None,
            }
        };
        (0..self.features.len()).into_par_iter().map(row).collect()
    }

    fn trial(&self, row: &ExampleRow) -> LabelledText {
        let positions = row.start..row.start + row.tokens.len() as u16;
        let tokens = positions.filter_map(|p| self.contexts.counting(row.context, p)).collect();
        LabelledText { tokens, active: row.band != Band::Inactive }
    }
}
