//! Promoted tokens: what features write, read straight off the unembedding (`docs/definitions.md`
//! §9).
//!
//! There is no LayerNorm scale in it, so the numbers are logits per unit of activation. Attention
//! features go through `W_O'`, never straight from `z` to the vocabulary. Knows nothing of what the
//! tokens say.

use super::replacement::{ReplacementModel, centre, flat};
use crate::error::{Context, Result, hinted};
use crate::ids::{FeatureId, Kind};
use candle_core::{D, Tensor};
use std::collections::BTreeSet;

/// Features looked at as one, each with its weight: of one feature `[(f, 1.0)]`, of a component how
/// often each serves.
pub type Weighted = Vec<(FeatureId, f64)>;

/// The tokens raised and lowered most: (token id, logits), the strongest first, ties by token id.
#[derive(Clone, Debug, PartialEq)]
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

/// Sets multiplied with the unembedding at once: it is read from memory that much less often.
const AT_ONCE: usize = 32;

/// The tokens that each set promotes most, and least.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub fn promoted(
    replacement: &ReplacementModel,
    sets: &[Weighted],
    listed: TopTokens,
) -> Result<Vec<Promoted>> {
    let mut each = Vec::with_capacity(sets.len());
    for some in sets.chunks(AT_ONCE) {
        each.extend(promoted_logits(replacement, some)?.iter().map(|logits| listed.of(logits)));
    }
    Ok(each)
}

/// What each set adds to the logits for each unit of activation (times its weights), `[V]` a set.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub fn promoted_logits(replacement: &ReplacementModel, sets: &[Weighted]) -> Result<Vec<Vec<f32>>> {
    if sets.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sets.iter().map(|set| written_by(replacement, set)).collect::<Result<Vec<_>>>()?;
    let rows = Tensor::cat(&rows, 0)?;
    let centred = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
    centred.matmul(&replacement.model.w_u)?.to_vec2().context("reading promoted tokens")
}

/// What each feature adds to the residual stream for each unit of activation, mean-centred, `[D]` a
/// feature.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub fn write_directions(
    replacement: &ReplacementModel,
    features: &[FeatureId],
) -> Result<Vec<Vec<f32>>> {
    let direction = |&feature: &FeatureId| {
        let mut row = flat(&write_direction(replacement, feature)?)?;
        centre(&mut row);
        Ok(row)
    };
    features.iter().map(direction).collect()
}

/// `Σ weight · u_f`, `[1, D]`
fn written_by(replacement: &ReplacementModel, set: &Weighted) -> Result<Tensor> {
    let w_u = &replacement.model.w_u;
    let mut sum = Tensor::zeros((1, replacement.model.sizes.d_model), w_u.dtype(), w_u.device())?;
    for &(feature, weight) in set {
        sum = (sum + (write_direction(replacement, feature)? * weight)?)?;
    }
    Ok(sum)
}

/// What a feature writes to the residual stream, not centred, `[1, D]`
fn write_direction(replacement: &ReplacementModel, feature: FeatureId) -> Result<Tensor> {
    let layer = feature.dictionary.layer;
    let dictionaries = match feature.dictionary.kind {
        Kind::Attention => &replacement.attention,
        Kind::Mlp => &replacement.mlp,
    };
    let Some(dictionary) =
        dictionaries.get(layer).filter(|dictionary| feature.index < dictionary.width())
    else {
        return Err(hinted(
            format!("there is no feature `{feature}` in the dictionaries"),
            "use a layer of the model and an index below the dictionary's number of features",
        ));
    };
    let row =
        Tensor::new(dictionary.write_direction(feature.index)?, replacement.model.w_u.device())?
            .unsqueeze(0)?;
    match feature.dictionary.kind {
        Kind::Attention => {
            row.matmul(&replacement.model.layers[layer].w_o).context("writing through `W_O`")
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
