//! Learned masks: how much of each feature is run is learned by gradient descent, against a price
//! for every feature that is. Hard-concrete masks (Louizos et al. 2018), as learned for circuits by
//! Bhaskar et al. 2024 and others.

use super::{Basis, Gradient, Scores};
use crate::circuit::faithful::Case;
use crate::circuit::faithful::features::FeatureAblation;
use crate::error::Result;
use crate::ids::FeatureId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const STEPS: usize = 400;
/// Prompts of a step.
const BATCH: usize = 32;
const LEARNING_RATE: f64 = 0.1;
/// A feature's price in shares of what is lost with nothing left, at the first step and at the
/// last.
const PRICES: [f64; 2] = [0.0005, 1.0];
/// The hard-concrete distribution's temperature, and how far it is stretched before it is cut to 0
/// … 1.
const TEMPERATURE: f64 = 2.0 / 3.0;
const STRETCH: [f64; 2] = [-0.1, 1.1];

/// What is learned from.
pub struct Lessons<'a> {
    /// The prompts.
    pub cases: &'a [Case<'a>],
    /// By case, what stands in for features and errors.
    pub ablation_values: &'a [Arc<FeatureAblation>],
    /// The metric of each case in the whole model, and with everything replaced.
    pub full: &'a [f64],
    /// The metric of each case with everything replaced.
    pub empty: &'a [f64],
    /// Seed of the draws of masks.
    pub seed: u64,
}

/// One learned mask for each feature, with what Adam keeps.
struct Learned {
    features: Vec<FeatureId>,
    theta: Vec<f64>,
    moments: Vec<[f64; 2]>,
}

impl Learned {
    /// A draw of the masks, and the derivative of each by its `theta`.
    fn drawn(&self, rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<f64>) {
        let [low, high] = STRETCH;
        let one = |theta: &f64| {
            let u: f64 = rng.random_range(1e-4..1.0 - 1e-4);
            let s = sigmoid(((u / (1.0 - u)).ln() + theta) / TEMPERATURE);
            let mask = s * (high - low) + low;
            let slope = if (0.0..=1.0).contains(&mask) {
                s * (1.0 - s) / TEMPERATURE * (high - low)
            } else {
                0.0
            };
            (mask.clamp(0.0, 1.0), slope)
        };
        self.theta.iter().map(one).unzip()
    }

    /// A step of Adam.
    fn descend(&mut self, gradient: &[f64], step: usize) {
        const DECAY: [f64; 2] = [0.9, 0.999];
        for ((theta, moments), g) in self.theta.iter_mut().zip(&mut self.moments).zip(gradient) {
            let powers = [*g, g * g];
            let mut unbiased = [0.0; 2];
            for k in 0..2 {
                moments[k] = DECAY[k] * moments[k] + (1.0 - DECAY[k]) * powers[k];
                unbiased[k] = moments[k] / (1.0 - DECAY[k].powi(step as i32 + 1));
            }
            *theta -= LEARNING_RATE * unbiased[0] / (unbiased[1].sqrt() + 1e-8);
        }
    }

    /// The first `n` by mask.
    fn first(&self, n: usize) -> BTreeSet<FeatureId> {
        let mut order: Vec<usize> = (0..self.theta.len()).collect();
        order.sort_by(|&a, &b| {
            self.theta[b].total_cmp(&self.theta[a]).then(self.features[a].cmp(&self.features[b]))
        });
        order.into_iter().take(n).map(|i| self.features[i]).collect()
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Gradient<'_> {
    /// Circuits of these sizes among `candidates`: the largest masks once the rising price has left
    /// no more open. A size that is not come down to is not there.
    ///
    /// # Errors
    /// When a dictionary cannot be read.
    pub fn learned(
        &self,
        lessons: &Lessons,
        candidates: &BTreeSet<FeatureId>,
        sizes: &[usize],
    ) -> Result<BTreeMap<usize, BTreeSet<FeatureId>>> {
        let features: Vec<FeatureId> = candidates.iter().copied().collect();
        let n = features.len();
        let mut learned = Learned { features, theta: vec![2.0; n], moments: vec![[0.0; 2]; n] };
        let place: BTreeMap<FeatureId, usize> = learned.features.iter().copied().zip(0..).collect();
        let lost: f64 =
            lessons.full.iter().zip(lessons.empty).map(|(full, empty)| (full - empty).abs()).sum();
        let scale = lost / lessons.full.len().max(1) as f64;
        let mut rng = ChaCha8Rng::seed_from_u64(lessons.seed);
        let mut circuits = BTreeMap::new();
        let cases = lessons.cases.len();
        for step in 0..STEPS {
            let batch: Vec<(usize, Vec<f64>, Vec<f64>)> = (0..BATCH.min(cases))
                .map(|k| {
                    let (masks, slopes) = learned.drawn(&mut rng);
                    // Cases come in turn, so that each is seen as often.
                    ((step * BATCH + k) % cases, masks, slopes)
                })
                .collect();
            let one = |(i, masks, slopes): &(usize, Vec<f64>, Vec<f64>)| -> Result<Vec<f64>> {
                let (m, by_mask) = self.by_mask(
                    &lessons.cases[*i],
                    &lessons.ablation_values[*i],
                    candidates,
                    &place,
                    masks,
                )?;
                let sign = (m - lessons.full[*i]).signum() / scale / BATCH.min(cases) as f64;
                Ok(by_mask.iter().zip(slopes).map(|(g, slope)| sign * g * slope).collect())
            };
            let parts = batch.par_iter().map(one).collect::<Result<Vec<_>>>()?;
            let price = PRICES[0] * (PRICES[1] / PRICES[0]).powf(step as f64 / STEPS as f64);
            let open = |theta: &f64| theta - TEMPERATURE * (-STRETCH[0] / STRETCH[1]).ln();
            let mut gradient: Vec<f64> = learned
                .theta
                .iter()
                .map(|theta| sigmoid(open(theta)))
                .map(|p| price * p * (1.0 - p))
                .collect();
            parts
                .iter()
                .for_each(|part| gradient.iter_mut().zip(part).for_each(|(sum, g)| *sum += g));
            learned.descend(&gradient, step);
            let on = learned.theta.iter().filter(|theta| **theta > 0.0).count();
            for &size in sizes.iter().filter(|size| **size < n && on <= **size) {
                circuits.entry(size).or_insert_with(|| learned.first(size));
            }
            if circuits.len() == sizes.iter().filter(|size| **size < n).count() {
                break;
            }
        }
        Ok(circuits)
    }

    /// The metric with features weighed by masks, and its derivative by each mask.
    fn by_mask(
        &self,
        case: &Case,
        ablation_value: &FeatureAblation,
        candidates: &BTreeSet<FeatureId>,
        place: &BTreeMap<FeatureId, usize>,
        masks: &[f64],
    ) -> Result<(f64, Vec<f64>)> {
        let mut hooks = self.hooks(Basis::Of(candidates), ablation_value)?;
        // A dictionary that needs all its features to know any has others besides, which are not
        // run.
        hooks.weigh(|feature| place.get(&feature).map_or(0.0, |&i| masks[i]))?;
        let back = self.point(case, &hooks, 1.0)?.back(self, &hooks)?;
        let scores = Scores {
            hooks: self.mean_scores(&hooks, std::slice::from_ref(&back))?,
            errors: Vec::new(),
        };
        let mut by_mask = vec![0.0; masks.len()];
        for (feature, score) in scores.by_part() {
            if let Some(&i) = place.get(&feature) {
                by_mask[i] = score;
            }
        }
        Ok((back.point.value, by_mask))
    }
}
