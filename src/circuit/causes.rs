//! Why a feature is active at a token: what brings its activation there (`docs/definitions.md` §8.2),
//! by direct effects, and what its weights alone would have it read.

use super::attribution::{Attribution, share};
use super::graph::Node;
use super::promote::{TopTokens, write_directions};
use super::replacement::{Pass, ReplacementModel, centre, dot};
use crate::error::Result;
use crate::ids::{FeatureId, Kind, NodeKind, Slot};
use crate::model::packs;
use crate::process::Stopped;
use candle_core::Tensor;
use rayon::prelude::*;

/// A part of what a feature reads at a token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    /// What brings it: of an attention feature a head and the position that it reads; else a term of
    /// the residual stream at the token.
    pub node: Node,
    /// Units of activation.
    pub effect: f32,
    /// `|effect|` over the sum of all.
    pub share: f32,
    /// Of an attention feature the position that brings most of it.
    pub through: Option<usize>,
}

/// A token at which a feature is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Active {
    pub context: u32,
    pub position: u16,
    pub feature: FeatureId,
}

/// Contexts whose passes are held at once, at most; long ones are fewer.
const CONTEXTS: usize = 32;

/// The up to `k` largest causes that raise each feature, in the order of `active`, which must be
/// sorted. Each context is run once, up to the last token that is asked about; `done` is called with
/// the number of tokens that were.
///
/// # Errors
/// When a context does not fit the model.
pub(crate) fn causes<'c>(
    replacement: &ReplacementModel,
    active: &[Active],
    context: impl Fn(u32) -> &'c [u32] + Sync,
    k: usize,
    done: impl Fn(usize) -> std::result::Result<(), Stopped> + Sync,
) -> Result<Vec<Vec<Cause>>> {
    let groups: Vec<&[Active]> = active.chunk_by(|a, b| a.context == b.context).collect();
    let read = |group: &&[Active]| {
        let last = group.iter().map(|at| usize::from(at.position)).max().unwrap_or(0);
        &context(group[0].context)[..=last]
    };
    let tokens: Vec<&[u32]> = groups.iter().map(read).collect();
    let of_context = |(i, pass): (usize, Pass)| -> Result<Vec<Vec<Cause>>> {
        let attribution = Attribution::of(replacement, pass, tokens[i])?;
        let all = groups[i].iter().map(|at| of_token(&attribution, at, k)).collect();
        done(groups[i].len())?;
        all
    };
    let lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.len()).collect();
    let mut all = Vec::with_capacity(active.len());
    // An encoder is larger than what it reads of a context: it is read once for several.
    for pack in packs(&lengths, CONTEXTS) {
        let passes = replacement.passes(&tokens[pack.clone()])?;
        let each: Vec<(usize, Pass)> = pack.zip(passes).collect();
        let each = each.into_par_iter().map(of_context).collect::<Result<Vec<_>>>()?;
        all.extend(each.into_iter().flatten());
    }
    Ok(all)
}

fn of_token(attribution: &Attribution, at: &Active, k: usize) -> Result<Vec<Cause>> {
    let FeatureId { dictionary, index } = at.feature;
    let node = Node::feature(dictionary.kind, dictionary.layer, at.position.into(), index as u32);
    // Only heads have slots.
    let from = attribution.contributions(&node, Slot::In)?;
    let whole = from.whole();
    let mut causes: Vec<Cause> = from
        .nodes
        .iter()
        .zip(&from.effects)
        .filter(|(_, effect)| **effect > 0.0)
        .map(|(node, &effect)| Cause {
            node: *node,
            effect,
            share: share(effect, whole),
            through: None,
        })
        .collect();
    causes.sort_by(|a, b| b.effect.total_cmp(&a.effect));
    causes.truncate(k);
    // There are hundreds of each activation before, and thousands of activations.
    causes.shrink_to_fit();
    for cause in &mut causes {
        if cause.node.kind == NodeKind::AttentionFeature {
            cause.through = through(attribution, &cause.node)?;
        }
    }
    Ok(causes)
}

/// The position that brings most of an attention feature, over all heads.
fn through(attribution: &Attribution, feature: &Node) -> Result<Option<usize>> {
    let from = attribution.contributions(feature, Slot::In)?;
    let mut sums = vec![0.0; feature.position() + 1];
    for (node, effect) in from.nodes.iter().zip(&from.effects) {
        sums[node.source()] += effect;
    }
    let largest = sums.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    Ok(largest.filter(|(_, sum)| **sum > 0.0).map(|(position, _)| position))
}

/// A token or feature that a feature's weights have it read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    /// What is read.
    pub of: ReadBy,
    /// By how many standard deviations a token is above the mean of all tokens; of a feature the
    /// cosine in standard deviations of random directions.
    pub z: f64,
}

/// What the weights of a feature read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ReadBy {
    /// A token's embedding.
    Token(u32),
    /// What another feature writes.
    Feature(FeatureId),
}

/// Standard deviations from which on a token or feature is told.
const FAR: f64 = 4.0;

/// What the weights alone say that features read: up to `listed.k` tokens whose embedding raises
/// them, and as many of these features, of earlier sublayers, whose decoder does; those alone that
/// are far above others. An attention feature reads through the values of all heads.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub(crate) fn readings(
    replacement: &ReplacementModel,
    features: &[FeatureId],
    listed: TopTokens,
) -> Result<Vec<Vec<Reading>>> {
    let w_e = &replacement.model.w_e;
    let written = write_directions(replacement, features)?;
    let directions = features
        .par_iter()
        .map(|feature| read_by(replacement, *feature))
        .collect::<Result<Vec<_>>>()?;
    let mut all = Vec::with_capacity(features.len());
    for (some, start) in directions.chunks(AT_ONCE).zip((0..).step_by(AT_ONCE)) {
        let rows = Tensor::from_vec(some.concat(), (some.len(), w_e.dim(1)?), w_e.device())?;
        let along: Vec<Vec<f32>> = rows.matmul(&w_e.t()?)?.to_vec2()?;
        all.par_extend(along.par_iter().zip(some).enumerate().map(|(i, (along, direction))| {
            let tokens = tokens_read(along, listed);
            let earlier = features_read(features[start + i], direction, features, &written);
            let earlier = earlier.into_iter().take(listed.k);
            tokens.into_iter().chain(earlier).filter(|reading| reading.z > FAR).collect()
        }));
    }
    Ok(all)
}

/// Features whose directions are multiplied with the embeddings at once.
const AT_ONCE: usize = 64;

/// The tokens with the largest products.
fn tokens_read(along: &[f32], listed: TopTokens) -> Vec<Reading> {
    let (mean, deviation) = spread(along, listed);
    let reading = |(id, x): (u32, f32)| Reading {
        of: ReadBy::Token(id),
        z: if deviation > 0.0 { (f64::from(x) - mean) / deviation } else { 0.0 },
    };
    listed.of(along).top.into_iter().map(reading).collect()
}

/// The others of earlier sublayers by the cosine of what they write, the largest first.
fn features_read(
    own: FeatureId,
    direction: &[f32],
    features: &[FeatureId],
    written: &[Vec<f32>],
) -> Vec<Reading> {
    let sublayer = |feature: FeatureId| (feature.dictionary.layer, feature.dictionary.kind);
    let earlier = features.iter().zip(written);
    let mut readings: Vec<Reading> = earlier
        .filter(|(other, _)| sublayer(**other) < sublayer(own))
        .map(|(other, row)| Reading {
            of: ReadBy::Feature(*other),
            z: f64::from(cosine(row, direction)) * (direction.len() as f64).sqrt(),
        })
        .collect();
    readings.sort_by(|a, b| b.z.total_cmp(&a.z));
    readings
}

/// Mean and standard deviation over all tokens but special ones.
fn spread(along: &[f32], listed: TopTokens) -> (f64, f64) {
    let counted = || {
        let all = (0u32..).zip(along).filter(|(id, _)| !listed.specials.contains(id));
        all.map(|(_, x)| f64::from(*x))
    };
    let n = counted().count().max(1) as f64;
    let mean = counted().sum::<f64>() / n;
    let variance = counted().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// The direction of the residual stream that a feature reads, mean-centred, `[D]`: of an attention
/// feature at the tokens that its heads look at.
fn read_by(replacement: &ReplacementModel, feature: FeatureId) -> Result<Vec<f32>> {
    let FeatureId { dictionary, index } = feature;
    let own = replacement.dictionary(dictionary).read_direction(index)?;
    let mut direction = match dictionary.kind {
        Kind::Mlp => own,
        Kind::Attention => {
            let k = replacement.model.sizes.d_head;
            let mut sum = vec![0.0; replacement.model.sizes.d_model];
            for (head, own) in own.chunks_exact(k).enumerate() {
                let back = replacement.back(dictionary.layer, VALUE, head, own);
                sum.iter_mut().zip(back).for_each(|(sum, x)| *sum += x);
            }
            sum
        }
    };
    centre(&mut direction);
    Ok(direction)
}

/// The block of `W_Q|W_K|W_V` that makes values.
const VALUE: usize = 2;
