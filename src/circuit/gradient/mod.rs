//! How much each feature supports an answer, by the gradient of the run in which features are
//! replaced.
//!
//! The clean tokens are run with every hook holding `whole + t·Σ_f (a_f − r_f)·W_f`: at `t = 0`
//! everything is what stands in for it, at `t = 1` every feature is alive and only the errors are
//! replaced. `a` is the running pass's activation. At a few points between, the task's metric is
//! taken back through LayerNorm, attention (patterns and values alive) and the dictionaries. With
//! `c_f = g·W_f`, `g` being the gradient at the hook, a feature's score at a place is `(a_f −
//! r_f)·c_f`, the mean over the points. Positive ones support the answer, negative ones oppose it.
//! A feature that is inactive in the clean prompt but active in corrupted ones is seen like any
//! other.
//!
//! There is no GELU in it: an MLP is its transcoder, and its error is held. `parts` lays out what a
//! hook is made of, `pass` runs forward and back, `links` splits scores by receiver. The same
//! passes with a model's own neurons in place of features are the model itself, whose gradient is
//! attribution patching (`patching`) and integrated gradients (`integrated`). `masks` learns how
//! much of each feature is run.

mod integrated;
mod links;
mod masks;
mod parts;
mod pass;
mod patching;

pub use links::{GradientLinks, Members};
pub use masks::Lessons;
pub use parts::Parts;
pub use parts::{Basis, PartialHooks};
pub use pass::{Back, Point};

use super::faithful::Case;
use super::faithful::features::FeatureAblation;
use super::replacement::{Pass, ReplacementModel};
use crate::error::Result;
use crate::ids::{DictionaryId, FeatureId};
use crate::model::Gpt2;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// The middles of `n` equal parts of the way from nothing to everything: 1/6, 1/2 and 5/6 for
/// three.
pub fn middles(n: usize) -> Vec<f64> {
    (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect()
}

/// Runs prompts with their features replaced in part, and back.
pub struct Gradient<'a> {
    /// The model with its dictionaries.
    pub replacement: &'a ReplacementModel,
    /// The model, in the precision of this pass.
    pub(super) model: Gpt2,
    pub(super) dtype: DType,
    /// Where on the way the gradient is taken.
    pub points: Vec<f64>,
}

/// A hook's parts and their scores: the parts' numbers, and `[T, n]`, row-major.
pub(crate) type HookScores = (DictionaryId, Vec<u32>, Vec<f64>);

/// Scores of one prompt, by feature and position.
pub struct Scores {
    /// By hook, in the order of the model.
    pub hooks: Vec<HookScores>,
    /// By hook, the score that the dictionary's error would have: how much of the answer goes
    /// through what it misses.
    pub errors: Vec<f64>,
}

impl Scores {
    /// Each part's score, summed over positions.
    pub fn by_part(&self) -> BTreeMap<FeatureId, f64> {
        let mut sums = BTreeMap::new();
        for (dictionary, names, scores) in &self.hooks {
            // None where every score is 0.
            let mut own: Vec<Option<f64>> = vec![None; names.len()];
            for row in scores.chunks_exact(names.len().max(1)) {
                for (sum, score) in own.iter_mut().zip(row).filter(|(_, score)| **score != 0.0) {
                    *sum.get_or_insert(0.0) += score;
                }
            }
            let feature = |f: u32| FeatureId { dictionary: *dictionary, index: f as usize };
            let scored = names.iter().zip(own);
            sums.extend(scored.filter_map(|(&f, sum)| Some((feature(f), sum?))));
        }
        sums
    }
}

impl<'a> Gradient<'a> {
    /// With the gradient taken at `points`.
    pub fn new(replacement: &'a ReplacementModel, points: Vec<f64>) -> Result<Gradient<'a>> {
        Gradient::in_dtype(replacement, points, DType::F32)
    }

    /// In another precision, F32 or F64.
    pub fn in_dtype(
        replacement: &'a ReplacementModel,
        points: Vec<f64>,
        dtype: DType,
    ) -> Result<Gradient<'a>> {
        Ok(Gradient { replacement, model: replacement.model.in_dtype(dtype)?, dtype, points })
    }

    /// Forward and back at each of the points.
    pub fn run(&self, case: &Case, hooks: &PartialHooks) -> Result<Vec<Back>> {
        self.points.iter().map(|&t| self.point(case, hooks, t)?.back(self, hooks)).collect()
    }

    /// The scores of one prompt's features. `clean` is the whole model's pass over it.
    ///
    /// # Errors
    /// When a dictionary cannot be read.
    pub fn scores(
        &self,
        case: &Case,
        clean: &Pass,
        ablation_value: &FeatureAblation,
    ) -> Result<Scores> {
        let hooks = self.hooks(Basis::Candidates(clean), ablation_value)?;
        let backs = self.run(case, &hooks)?;
        Ok(Scores {
            hooks: self.mean_scores(&hooks, &backs)?,
            errors: self.errors(clean, ablation_value, &backs)?,
        })
    }

    /// The scores of a prompt's parts, summed over positions.
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn by_part(&self, case: &Case, hooks: &PartialHooks) -> Result<BTreeMap<FeatureId, f64>> {
        let backs = self.run(case, hooks)?;
        Ok(Scores { hooks: self.mean_scores(hooks, &backs)?, errors: Vec::new() }.by_part())
    }

    /// The mean over points of `(a − r)·c`, by hook.
    pub fn mean_scores(&self, hooks: &PartialHooks, backs: &[Back]) -> Result<Vec<HookScores>> {
        let one = |(i, parts): (usize, &Parts)| -> Result<HookScores> {
            let mean = mean(backs.iter().map(|back| back.scores(i)))?;
            Ok((
                parts.id,
                parts.names.clone(),
                mean.map(|mean| numbers(&mean)).transpose()?.unwrap_or_default(),
            ))
        };
        hooks.parts.iter().enumerate().map(one).collect()
    }

    /// By hook, `Σ (e − e_r)·g`, the mean over points: `e` is what the dictionary misses in the
    /// clean pass.
    fn errors(
        &self,
        clean: &Pass,
        ablation_value: &FeatureAblation,
        backs: &[Back],
    ) -> Result<Vec<f64>> {
        let ids = DictionaryId::all(self.model.sizes.layers);
        let one = |(i, id): (usize, DictionaryId)| -> Result<f64> {
            let missed = self.missed(id, clean, ablation_value)?.to_dtype(self.dtype)?;
            let each = backs
                .iter()
                .map(|back| Ok(numbers(&(&missed * back.gradient(i))?)?.iter().sum::<f64>()));
            Ok(each.sum::<Result<f64>>()? / backs.len() as f64)
        };
        ids.enumerate().map(one).collect()
    }

    /// `(x − W·a − b) − (whole − W·r − b)`: a clean error less the one that stands in for it, `[T,
    /// d_out]`
    fn missed(
        &self,
        id: DictionaryId,
        clean: &Pass,
        ablation_value: &FeatureAblation,
    ) -> Result<Tensor> {
        let (r, whole) = ablation_value.held(id);
        let layer = &clean.trace().layers[id.layer];
        let dictionary = self.replacement.dictionary(id);
        let (holds, active) = match id.kind {
            crate::ids::Kind::Attention => (&layer.z, clean.active(id.kind, id.layer)),
            crate::ids::Kind::Mlp => (&layer.mlp_out, clean.active(id.kind, id.layer)),
        };
        let written = super::features::written;
        Ok((((holds - written(dictionary, active)?)? - whole)? + written(dictionary, r)?)?)
    }
}

/// The mean of tensors of one shape; none of none.
fn mean(each: impl ExactSizeIterator<Item = Result<Tensor>>) -> Result<Option<Tensor>> {
    let n = each.len() as f64;
    let mut sum: Option<Tensor> = None;
    for one in each {
        sum = Some(match sum {
            Some(sum) => (sum + one?)?,
            None => one?,
        });
    }
    Ok(sum.map(|sum| sum / n).transpose()?)
}

/// As numbers, row-major.
pub(super) fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
