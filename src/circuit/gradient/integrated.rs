//! Integrated gradients: features ranked by the model's gradient on the way from what a hook holds
//! to what stands in for its features, one hook at a time, everything else live and errors kept.
//! Marks et al. 2024 (sparse feature circuits).

use super::{Gradient, mean, middles};
use crate::circuit::faithful::features::{FeatureAblation, written};
use crate::circuit::faithful::{Case, components};
use crate::circuit::replacement::Pass;
use crate::error::Result;
use crate::ids::{DictionaryId, FeatureId};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Steps on the way, as published.
const STEPS: usize = 10;

impl Gradient<'_> {
    /// Each feature's score in one prompt: `(a − r)·g·W_f` summed over positions, `g` the mean over
    /// the steps.
    ///
    /// # Errors
    /// When a dictionary cannot be read.
    pub fn integrated(
        &self,
        case: &Case,
        clean: &Pass,
        ablation_value: &FeatureAblation,
        neurons: &components::Neurons,
    ) -> Result<BTreeMap<FeatureId, f64>> {
        let mut hooks = self.neurons(neurons)?;
        let real_pass = self.point(case, &hooks, 1.0)?;
        let mut scores = BTreeMap::new();
        for (i, id) in DictionaryId::all(self.model.sizes.layers).enumerate() {
            let (dictionary, active) =
                (self.replacement.dictionary(id), clean.active(id.kind, id.layer));
            let (instead, _) = ablation_value.held(id);
            let change = (written(dictionary, instead)? - written(dictionary, active)?)?
                .to_dtype(self.dtype)?;
            let real = hooks.parts[i].whole.clone();
            let steps = middles(STEPS).into_iter().map(|t| -> Result<Tensor> {
                hooks.parts[i].whole = (&real + (&change * t)?)?;
                let point = self.point_from(case, &hooks, &real_pass, id.layer)?;
                Ok(point.back_to(self, &hooks, id.layer)?.gradient(i).clone())
            });
            let gradient = mean(steps)?;
            hooks.parts[i].whole = real;
            if let Some(gradient) = gradient {
                self.add_along(&mut scores, id, &gradient, active, instead)?;
            }
        }
        Ok(scores)
    }
}
