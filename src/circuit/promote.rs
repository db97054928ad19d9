//! Promoted tokens: what features write, read straight off the unembedding (`docs/definitions.md`
//! §9).
//!
//! There is no LayerNorm scale in it, so the numbers are logits per unit of activation. Attention
//! features go through `W_O'`, never straight from `z` to the vocabulary. Knows nothing of what the
//! tokens say.

use super::replacement::{ReplacementModel, centre, dot, flat};
use crate::dictionary::Dictionary;
use crate::error::{Context, Result, hinted};
use crate::ids::{DictionaryId, FeatureId, Kind};
use crate::model::Gpt2;
use crate::stats::mix;
use candle_core::{D, Tensor};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Features looked at as one, each with its weight: of one feature `[(f, 1.0)]`, of a component how
/// often each serves.
pub type Weighted = Vec<(FeatureId, f64)>;

/// The tokens raised and lowered most: (token id, logits), the strongest first, ties by token id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Promoted {
    /// The tokens raised most.
    pub top: Vec<(u32, f32)>,
    /// The tokens lowered most.
    pub bottom: Vec<(u32, f32)>,
}

/// How a ranking of tokens is cut.
#[derive(Clone, Copy, Debug)]
pub struct TopTokens<'a> {
    /// Tokens that are listed.
    pub k: usize,
    /// Ids that are in no ranking: special tokens stand for no text.
    pub specials: &'a BTreeSet<u32>,
}

/// A model, and dictionaries whose features are read off its unembedding.
pub trait Writers {
    /// The model.
    fn model(&self) -> &Gpt2;
    /// The dictionary of a name, if it is there.
    fn dictionary(&self, id: DictionaryId) -> Option<&Dictionary>;
}

impl Writers for ReplacementModel {
    fn model(&self) -> &Gpt2 {
        &self.model
    }

    fn dictionary(&self, id: DictionaryId) -> Option<&Dictionary> {
        match id.kind {
            Kind::Attention => self.attention.get(id.layer),
            Kind::Mlp => self.mlp.get(id.layer),
        }
    }
}

/// A model with some of its dictionaries.
impl Writers for (Gpt2, Vec<Dictionary>) {
    fn model(&self) -> &Gpt2 {
        &self.0
    }

    fn dictionary(&self, id: DictionaryId) -> Option<&Dictionary> {
        self.1.iter().find(|dictionary| dictionary.id == id)
    }
}

/// Sets multiplied with the unembedding at once: it is read from memory that much less often.
const AT_ONCE: usize = 32;

/// The tokens that each set promotes most, and least.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub fn promoted(
    writers: &(impl Writers + Sync),
    sets: &[Weighted],
    listed: TopTokens,
) -> Result<Vec<Promoted>> {
    let mut each = Vec::with_capacity(sets.len());
    for some in sets.chunks(AT_ONCE) {
        let logits = promoted_logits(writers, some)?;
        each.par_extend(logits.par_iter().map(|logits| listed.of(logits)));
    }
    Ok(each)
}

/// What each set adds to the logits for each unit of activation (times its weights), `[V]` a set.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub fn promoted_logits(
    writers: &(impl Writers + Sync),
    sets: &[Weighted],
) -> Result<Vec<Vec<f32>>> {
    let mut all = Vec::with_capacity(sets.len());
    for some in sets.chunks(AT_ONCE) {
        let rows =
            some.par_iter().map(|set| written_by(writers, set)).collect::<Result<Vec<_>>>()?;
        // Always as many rows: a product of fewer may be summed in another order, and the logits of
        // a set would depend on how many others are asked for with it.
        let rows: Vec<&Tensor> = rows.iter().cycle().take(AT_ONCE).collect();
        let rows = Tensor::cat(&rows, 0)?;
        let centred = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
        let logits = centred.matmul(&writers.model().w_u)?.narrow(0, 0, some.len())?;
        all.extend(logits.to_vec2::<f32>().context("reading promoted tokens")?);
    }
    Ok(all)
}

/// What random directions promote: the logit at each rank of their lists of promoted tokens.
pub(crate) struct Noise {
    /// Mean and standard deviation by rank, for a direction of length 1.
    ranks: Vec<(f64, f64)>,
}

/// Random directions that are tried.
const DIRECTIONS: usize = 512;
const SEED: u64 = 20_240;

impl Noise {
    /// Of as many ranks as are listed. Suppressed tokens have the same, as directions are as likely
    /// with the other sign.
    ///
    /// # Errors
    /// When the unembedding cannot be read.
    pub(crate) fn of(writers: &impl Writers, listed: TopTokens) -> Result<Noise> {
        let d = writers.model().sizes.d_model;
        let mut lists: Vec<Vec<f64>> = vec![Vec::new(); listed.k];
        for chunk in (0..DIRECTIONS).collect::<Vec<_>>().chunks(AT_ONCE) {
            let mut rows = Vec::with_capacity(chunk.len() * d);
            for &i in chunk {
                let mut row = random_direction(mix(SEED, i as u64), d);
                centre(&mut row);
                let length = dot(&row, &row).sqrt();
                rows.extend(row.iter().map(|x| x / length));
            }
            let rows = Tensor::from_vec(rows, (chunk.len(), d), writers.model().w_u.device())?;
            let logits = rows.matmul(&writers.model().w_u)?.to_vec2::<f32>()?;
            for logits in &logits {
                let top = listed.of(logits).top;
                lists.iter_mut().zip(top).for_each(|(list, (_, x))| list.push(f64::from(x)));
            }
        }
        let spread = |list: &Vec<f64>| {
            let n = list.len().max(1) as f64;
            let mean = list.iter().sum::<f64>() / n;
            (mean, (list.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt())
        };
        Ok(Noise { ranks: lists.iter().map(spread).collect() })
    }

    /// By how many standard deviations a logit at a rank, promoted or suppressed, is above those of
    /// random directions of the same length.
    pub(crate) fn z(&self, rank: usize, logit: f32, length: f32) -> f64 {
        let (mean, deviation) = self.ranks.get(rank).copied().unwrap_or((0.0, 1.0));
        if length <= 0.0 || deviation <= 0.0 {
            return 0.0;
        }
        (f64::from(logit.abs()) / f64::from(length) - mean) / deviation
    }
}

/// Numbers that are normally distributed about 0 (Box and Muller), the same for a seed everywhere.
fn random_direction(seed: u64, d: usize) -> Vec<f32> {
    let uniform = |i: u64| (mix(seed, i) >> 11) as f64 / (1u64 << 53) as f64;
    let normal = |i: u64| {
        let radius = (-2.0 * (1.0 - uniform(2 * i)).ln()).sqrt();
        (radius * (std::f64::consts::TAU * uniform(2 * i + 1)).cos()) as f32
    };
    (0..d as u64).map(normal).collect()
}

/// Lengths of what sets add to the residual stream for each unit of activation, mean-centred.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub(crate) fn lengths(writers: &(impl Writers + Sync), sets: &[Weighted]) -> Result<Vec<f32>> {
    let length = |set: &Weighted| {
        let mut row = flat(&written_by(writers, set)?)?;
        centre(&mut row);
        Ok(dot(&row, &row).sqrt())
    };
    sets.par_iter().map(length).collect()
}

/// What each feature adds to the residual stream for each unit of activation, mean-centred, `[D]` a
/// feature.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub fn write_directions(writers: &impl Writers, features: &[FeatureId]) -> Result<Vec<Vec<f32>>> {
    let direction = |&feature: &FeatureId| {
        let mut row = flat(&write_direction(writers, feature)?)?;
        centre(&mut row);
        Ok(row)
    };
    features.iter().map(direction).collect()
}

/// `Σ weight · u_f`, `[1, D]`
fn written_by(writers: &impl Writers, set: &Weighted) -> Result<Tensor> {
    let w_u = &writers.model().w_u;
    let mut sum = Tensor::zeros((1, writers.model().sizes.d_model), w_u.dtype(), w_u.device())?;
    for &(feature, weight) in set {
        sum = (sum + (write_direction(writers, feature)? * weight)?)?;
    }
    Ok(sum)
}

/// What a feature writes to the residual stream, not centred, `[1, D]`
fn write_direction(writers: &impl Writers, feature: FeatureId) -> Result<Tensor> {
    let layer = feature.dictionary.layer;
    let Some(dictionary) = writers
        .dictionary(feature.dictionary)
        .filter(|dictionary| feature.index < dictionary.width())
    else {
        return Err(hinted(
            format!("there is no feature `{feature}` in the dictionaries"),
            "use a layer of the model and an index below the dictionary's number of features",
        ));
    };
    let row =
        Tensor::new(dictionary.write_direction(feature.index)?, writers.model().w_u.device())?
            .unsqueeze(0)?;
    match feature.dictionary.kind {
        Kind::Attention => {
            row.matmul(&writers.model().layers[layer].w_o).context("writing through `W_O`")
        }
        Kind::Mlp => Ok(row),
    }
}

impl TopTokens<'_> {
    /// The `k` largest and the `k` smallest of `[V]` logits.
    pub(crate) fn of(&self, logits: &[f32]) -> Promoted {
        let k = self.k;
        let ranked = |sign: f32| {
            let by_strength = |a: &u32, b: &u32| {
                let [a_value, b_value] = [a, b].map(|&id| sign * logits[id as usize]);
                b_value.total_cmp(&a_value).then(a.cmp(b))
            };
            let mut ids: Vec<u32> =
                (0..logits.len() as u32).filter(|id| !self.specials.contains(id)).collect();
            if 0 < k && k < ids.len() {
                ids.select_nth_unstable_by(k - 1, by_strength);
            }
            ids.truncate(k);
            ids.sort_unstable_by(by_strength);
            ids.into_iter().map(|id| (id, logits[id as usize])).collect()
        };
        Promoted { top: ranked(1.0), bottom: ranked(-1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_put_the_strongest_first_and_break_ties_by_id() {
        let logits = [0.5, -1.0, 2.0, 2.0, 0.0, -1.0];
        let none = BTreeSet::new();
        let found = TopTokens { k: 3, specials: &none }.of(&logits);
        assert_eq!(found.top, [(2, 2.0), (3, 2.0), (0, 0.5)]);
        assert_eq!(found.bottom, [(1, -1.0), (5, -1.0), (4, 0.0)]);
        assert_eq!(TopTokens { k: 9, specials: &none }.of(&logits).top.len(), 6);
        assert!(TopTokens { k: 0, specials: &none }.of(&logits).top.is_empty());
    }

    #[test]
    fn special_tokens_are_no_extremes() {
        let logits = [0.5, -1.0, 2.0, 2.0, 0.0, -1.0];
        let specials = BTreeSet::from([1, 2]);
        let found = TopTokens { k: 2, specials: &specials }.of(&logits);
        assert_eq!(found.top, [(3, 2.0), (0, 0.5)]);
        assert_eq!(found.bottom, [(5, -1.0), (4, 0.0)]);
        assert_eq!(TopTokens { k: 9, specials: &specials }.of(&logits).top.len(), 4);
    }
}
