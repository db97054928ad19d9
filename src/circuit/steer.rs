//! What the model says more of when a feature is added to its residual stream.
//!
//! `strength · u_f` (`docs/definitions.md` §9) is added at a token right after the feature's own
//! sublayer, the later layers are run, and the logits at that token held against the clean ones;
//! their mean over the vocabulary is 0, as the unembedding is centred. Knows nothing of what the
//! tokens say.
//!
//! A place costs the later layers and the unembedding, with GPT-2 small a quarter of a GFLOP at
//! most: milliseconds. What takes time are the contexts, 0.17 GFLOP a token up to the last place in
//! them; each is run once for all features of a group that are added in it, so that features which
//! share contexts cost little more than one.

use super::promote::{Promoted, TopTokens, write_directions};
use super::replacement::ReplacementModel;
use crate::error::{Context, Result};
use crate::ids::{FeatureId, Kind};
use crate::model::{Added, Behind};
use crate::process;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A feature that is added at some tokens, each time alone.
#[derive(Clone, Debug)]
pub struct Steered {
    /// Which feature it is.
    pub feature: FeatureId,
    /// Units of activation.
    pub strength: f32,
    /// Context and position of each token.
    pub places: Vec<(u32, u16)>,
}

/// What comes of it.
#[derive(Clone, Debug)]
pub struct Rise<T> {
    /// What was read off at each place, in their order.
    pub at: Vec<T>,
    /// The tokens that rise most on average over places: (token id, logits), the strongest first.
    pub most: Vec<(u32, f32)>,
    /// Those that fall most, in the same way.
    pub least: Vec<(u32, f32)>,
    /// Standard deviation of the mean rise over the vocabulary.
    pub deviation: f64,
}

/// Contexts that run side by side.
const CONTEXTS: usize = 16;
/// Tokens whose logits are in memory at once.
const ROWS: usize = 64;
/// Numbers that sums over places may take: the logits of so many features together.
const SUMS: usize = 1 << 26;

/// A place, by the number of its feature and its own among the feature's.
type At = (usize, usize);

/// Adds each feature at each of its places. `read` is given the number of a feature and the rise of
/// the logits at one place, `[V]`; the tokens that rise most are told of each as `listed` says.
///
/// # Errors
/// When there is no dictionary or feature of a name, or a context does not fit the model.
pub fn steer<'c, T: Send>(
    replacement: &ReplacementModel,
    steered: &[Steered],
    context: impl Fn(u32) -> &'c [u32],
    listed: TopTokens,
    read: impl Fn(usize, &[f32]) -> T + Sync,
) -> Result<Vec<Rise<T>>> {
    let at_once = (SUMS / replacement.model.sizes.vocabulary).max(1);
    let mut all = Vec::with_capacity(steered.len());
    for (some, first) in steered.chunks(at_once).zip((0..).step_by(at_once)) {
        all.extend(together(replacement, some, &context, listed, &|i, rise| {
            read(first + i, rise)
        })?);
    }
    Ok(all)
}

fn together<'c, T: Send>(
    replacement: &ReplacementModel,
    steered: &[Steered],
    context: &impl Fn(u32) -> &'c [u32],
    listed: TopTokens,
    read: &(impl Fn(usize, &[f32]) -> T + Sync),
) -> Result<Vec<Rise<T>>> {
    let features: Vec<FeatureId> = steered.iter().map(|one| one.feature).collect();
    let mut vectors = write_directions(replacement, &features)?;
    vectors
        .iter_mut()
        .zip(steered)
        .for_each(|(u, one)| u.iter_mut().for_each(|x| *x *= one.strength));
    let mut sums = vec![vec![0f32; replacement.model.sizes.vocabulary]; steered.len()];
    let mut found: BTreeMap<At, T> = BTreeMap::new();
    let by_context: Vec<(u32, Vec<At>)> = by_context(steered).into_iter().collect();
    for some in by_context.chunks(CONTEXTS) {
        process::check()?;
        let contexts: Vec<&[u32]> =
            some.iter().map(|(c, at)| &context(*c)[..tokens(steered, at)]).collect();
        let places: Vec<(usize, At)> = some
            .iter()
            .enumerate()
            .flat_map(|(i, (_, at))| at.iter().map(move |&at| (i, at)))
            .collect();
        let added: Vec<Added> = places
            .iter()
            .map(|&(i, at)| addition(&steered[at.0], i, at.1, &vectors[at.0]))
            .collect();
        let change = replacement.model.change_by(&contexts, &added)?;
        for (rows, start) in places.chunks(ROWS).zip((0..).step_by(ROWS)) {
            let rises = change.narrow(0, start, rows.len())?.matmul(&replacement.model.w_u)?;
            let rises: Vec<Vec<f32>> = rises.to_vec2().context("reading logit rises")?;
            for ((_, at), rise) in rows.iter().zip(&rises) {
                sums[at.0].iter_mut().zip(rise).for_each(|(sum, x)| *sum += x);
            }
            let seen = rows.par_iter().zip(&rises).map(|((_, at), rise)| (*at, read(at.0, rise)));
            found.extend(seen.collect::<Vec<_>>());
        }
    }
    Ok(risen(sums, steered, found, listed))
}

/// The places of each context.
fn by_context(steered: &[Steered]) -> BTreeMap<u32, Vec<At>> {
    let mut places: BTreeMap<u32, Vec<At>> = BTreeMap::new();
    for (i, one) in steered.iter().enumerate() {
        for (j, (context, _)) in one.places.iter().enumerate() {
            places.entry(*context).or_default().push((i, j));
        }
    }
    places
}

/// Tokens of a context up to the last place in it.
fn tokens(steered: &[Steered], places: &[At]) -> usize {
    places.iter().map(|&(i, j)| usize::from(steered[i].places[j].1) + 1).max().unwrap_or(0)
}

fn addition<'a>(one: &Steered, context: usize, place: usize, vector: &'a [f32]) -> Added<'a> {
    let behind = match one.feature.dictionary.kind {
        Kind::Attention => Behind::Attention,
        Kind::Mlp => Behind::Mlp,
    };
    let position = usize::from(one.places[place].1);
    Added { context, position, layer: one.feature.dictionary.layer, behind, vector }
}

fn risen<T>(
    sums: Vec<Vec<f32>>,
    steered: &[Steered],
    found: BTreeMap<At, T>,
    listed: TopTokens,
) -> Vec<Rise<T>> {
    let mut found = found.into_iter().peekable();
    let each = sums.into_iter().zip(steered).enumerate();
    let rise = |(i, (mut sum, one)): (usize, (Vec<f32>, &Steered))| {
        let at: Vec<T> = std::iter::from_fn(|| found.next_if(|((of, _), _)| *of == i))
            .map(|(_, seen)| seen)
            .collect();
        sum.iter_mut().for_each(|x| *x /= one.places.len().max(1) as f32);
        // Its mean is 0, as the unembedding is centred.
        let square = sum.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let deviation = (square / sum.len().max(1) as f64).sqrt();
        let Promoted { top: most, bottom: least } =
            if at.is_empty() { Promoted::default() } else { listed.of(&sum) };
        Rise { at, most, least, deviation }
    };
    each.map(rise).collect()
}
