//! How many prompts circuits are measured on: as many as it takes for the interval that is wanted.

use super::TaskRun;
use super::curves::AblationValues;
use crate::circuit::at_least;
use crate::circuit::features::{Errors, Side};
use crate::error::Result;
use crate::ids::{Component, FeatureId};
use std::collections::BTreeSet;

/// Prompts that are tried first.
const FIRST: usize = 48;
/// The circuit of components that is looked at: those of at least this share of the prompts.
const AT_LEAST: f64 = 0.1;

/// Numbers of prompts to try, each twice the one before, up to all; all at once where no precision
/// is wanted.
pub(super) fn sizes(all: usize, precision: f64) -> Vec<usize> {
    let doubled = std::iter::successors(Some(FIRST), |size| Some(2 * size));
    let tried = doubled.take_while(|&size| precision > 0.0 && size < all);
    tried.chain([all]).collect()
}

impl TaskRun<'_> {
    /// Whether the faithfulness of the task's components and of its features, both under the first
    /// ablation and errors kept, is known to `verify.precision`.
    pub(super) fn is_precise(&self) -> Result<bool> {
        let Some(&ablation) = self.run.config.verify.ablations.first() else { return Ok(true) };
        let values = AblationValues::new(self, ablation, true)?;
        let components: BTreeSet<Component> = at_least(&self.frequencies(), AT_LEAST);
        let features: BTreeSet<FeatureId> = self
            .features()
            .into_iter()
            .find(|(name, _)| name == "chosen")
            .map(|(_, circuit)| circuit)
            .unwrap_or_default();
        let known = |m: &[f64], empty: &[f64]| {
            let estimate = self.bootstrap.recovered(m, empty, &self.full);
            estimate.is_some_and(|e| (e.high - e.low) / 2.0 <= self.run.config.verify.precision)
        };
        let m = self.component_run(ablation, &values.components, &components)?;
        if !known(&m, &values.empty[0]) {
            return Ok(false);
        }
        let m =
            self.feature_run(ablation, &values.features, Errors::Kept, &features, Side::Inside)?;
        Ok(known(&m, &values.empty[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_doubled_until_there_are_no_more() {
        assert_eq!(sizes(192, 0.05), [48, 96, 192]);
        assert_eq!(sizes(200, 0.05), [48, 96, 192, 200]);
        assert_eq!(sizes(48, 0.05), [48]);
        assert_eq!(sizes(12, 0.05), [12]);
        assert_eq!(sizes(192, 0.0), [192]);
    }
}
