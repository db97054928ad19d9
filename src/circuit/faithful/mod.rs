//! Is the circuit real? The model run with everything outside it replaced (`docs/definitions.md`
//! §7): whole heads and MLPs in `components`, dictionary features in `features`; `effects` runs
//! single links.
//!
//! What stands in for an ablated part comes from the runs of corrupted prompts: their mean, or one
//! of them; or it is zero. Everything is run, the empty circuit too; embeddings always stay.

pub mod components;
pub mod effects;
pub mod features;

use super::promote::TopTokens;
use crate::error::{Result, hinted};
use crate::ids::Component;
use crate::model::{Abreast, Gpt2};
use candle_core::Tensor;
use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// What is measured at the last position of a prompt.
#[derive(Clone, Debug)]
pub enum Metric {
    /// Logit of `correct` less logit of `counter`.
    LogitDifference {
        /// Token id of the right answer.
        correct: u32,
        /// Token id of the wrong answer.
        counter: u32,
    },
    /// Logit of one token (less the mean logit, as the model is folded).
    Logit(u32),
    /// `P(>YY) − P(≤YY)` over the two-digit tokens `00` … `99`.
    GreaterThan {
        /// Ids of the tokens `00` … `99`, in this order.
        digits: Arc<Vec<u32>>,
        /// `YY`, from 0 to 99.
        year: u32,
    },
}

impl Metric {
    /// `logits [V]` at the last position → the metric.
    pub fn of(&self, logits: &[f32]) -> f64 {
        match self {
            Metric::LogitDifference { correct, counter } => {
                f64::from(logits[*correct as usize]) - f64::from(logits[*counter as usize])
            }
            Metric::Logit(id) => f64::from(logits[*id as usize]),
            Metric::GreaterThan { digits, year } => {
                let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weight = |logit: f32| f64::from(logit - top).exp();
                let whole: f64 = logits.iter().map(|&l| weight(l)).sum();
                let sign = |yy: usize| if yy as u32 > *year { 1.0 } else { -1.0 };
                digits
                    .iter()
                    .enumerate()
                    .map(|(yy, &id)| sign(yy) * weight(logits[id as usize]))
                    .sum::<f64>()
                    / whole
            }
        }
    }

    /// The metric of logits `[V]` at the last position, and its gradient at them.
    pub(crate) fn with_gradient(&self, logits: &[f64]) -> (f64, Vec<f64>) {
        let mut gradient = vec![0.0; logits.len()];
        match self {
            Metric::LogitDifference { correct, counter } => {
                gradient[*correct as usize] += 1.0;
                gradient[*counter as usize] -= 1.0;
                (logits[*correct as usize] - logits[*counter as usize], gradient)
            }
            Metric::Logit(id) => {
                gradient[*id as usize] = 1.0;
                (logits[*id as usize], gradient)
            }
            Metric::GreaterThan { digits, year } => {
                let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = logits.iter().map(|logit| (logit - top).exp()).collect();
                let whole: f64 = weights.iter().sum();
                let signs = (0u32..)
                    .zip(digits.iter())
                    .map(|(yy, &id)| (id, if yy > *year { 1.0 } else { -1.0 }));
                signs.for_each(|(id, sign)| gradient[id as usize] = sign);
                let value =
                    gradient.iter().zip(&weights).map(|(sign, weight)| sign * weight).sum::<f64>()
                        / whole;
                gradient
                    .iter_mut()
                    .zip(&weights)
                    .for_each(|(g, weight)| *g = weight / whole * (*g - value));
                (value, gradient)
            }
        }
    }
}

/// A prompt to be run with parts of the model taken away.
#[derive(Clone)]
pub struct Case<'a> {
    /// BOS first.
    pub tokens: &'a [u32],
    /// Of the same length; BOS first.
    pub corrupted: &'a [u32],
    /// What decides which corrupted prompts may stand in for one another; they are of one length.
    pub template: &'a str,
    /// What is measured.
    pub metric: Metric,
}

/// What stands in for the parts that are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablate {
    /// Their mean over the corrupted prompts of the same template, at the same position.
    Mean,
    /// What they are in one corrupted prompt of the same template, drawn for each prompt.
    Resample,
    /// Nothing: `z` and `mlp_out` are 0 (`b_O`, which is added after `z`, stays), features are 0
    /// (their dictionaries' constants stay).
    Zero,
}

/// The numbers of the corrupted prompts that each case's stand-ins are made of: all of its template
/// for [`Ablate::Mean`], one of them drawn by `seed` for [`Ablate::Resample`], none for
/// [`Ablate::Zero`].
///
/// # Errors
/// When two corrupted prompts of a template differ in length.
pub(super) fn sources(cases: &[Case], ablate: Ablate, seed: u64) -> Result<Vec<Vec<usize>>> {
    let mut of_template: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, case) in cases.iter().enumerate() {
        let all = of_template.entry(case.template).or_default();
        all.push(i);
        if case.corrupted.len() != cases[all[0]].corrupted.len() {
            return Err(hinted(
                format!("the corrupted prompts of template `{}` differ in length", case.template),
                "prompts of one template must have the same number of tokens, as they are averaged \
                 by position",
            ));
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let one = |case: &Case| match ablate {
        Ablate::Mean => of_template[case.template].clone(),
        Ablate::Resample => {
            of_template[case.template].choose(&mut rng).copied().into_iter().collect()
        }
        Ablate::Zero => Vec::new(),
    };
    Ok(cases.iter().map(one).collect())
}

/// Makes one value for all cases of the same sources and length; `make` gets these, all at once.
fn shared<T>(
    sources: &[Vec<usize>],
    cases: &[Case],
    make: impl Fn(&[(&[usize], usize)]) -> Result<Vec<T>>,
) -> Result<Vec<Arc<T>>> {
    let (mut known, mut wanted) = (BTreeMap::new(), Vec::new());
    let mut places = Vec::with_capacity(cases.len());
    for (sources, case) in sources.iter().zip(cases) {
        let one = (sources.as_slice(), case.tokens.len());
        places.push(*known.entry(one).or_insert_with(|| {
            wanted.push(one);
            wanted.len() - 1
        }));
    }
    let made: Vec<Arc<T>> = make(&wanted)?.into_iter().map(Arc::new).collect();
    Ok(places.into_iter().map(|place| made[place].clone()).collect())
}

/// Prompts that are run at once, at most: each slice of an encoder is copied from its file once for
/// all.
const CASES: usize = 128;

/// The metric of each case, run side by side with others; `step` says what is put in the place of
/// what in some of them, by their places.
fn run_side_by_side<S: Abreast>(
    model: &Gpt2,
    cases: &[Case],
    step: impl Fn(Range<usize>) -> S + Sync,
) -> Result<Vec<f64>> {
    let some = |places: Range<usize>| -> Result<Vec<f64>> {
        let cases = &cases[places.clone()];
        let tokens: Vec<&[u32]> = cases.iter().map(|case| case.tokens).collect();
        let logits = model.abreast(&tokens, &step(places))?;
        Ok(cases.iter().zip(&logits).map(|(case, logits)| case.metric.of(logits)).collect())
    };
    // An even number of parts of one size, which do not depend on the machine.
    let n = cases.len();
    let parts = n.div_ceil(CASES).next_multiple_of(2);
    let places = (0..parts).into_par_iter().map(|part| part * n / parts..(part + 1) * n / parts);
    let each = places.filter(|places| !places.is_empty()).map(some);
    Ok(each.collect::<Result<Vec<_>>>()?.concat())
}

/// What each of several prompts has at a layer, `[T, …]`, → the rows that prompts are
/// run in side by side, `[R, …]`: of the last layer the last position of each.
fn stacked<'t>(
    model: &Gpt2,
    layer: usize,
    each: impl Iterator<Item = &'t Tensor>,
) -> Result<Tensor> {
    let one = |all: &Tensor| -> Result<Tensor> {
        let is_last = layer + 1 == model.sizes.layers;
        Ok(if is_last { all.narrow(0, all.dim(0)? - 1, 1)? } else { all.clone() })
    };
    Ok(Tensor::cat(&each.map(one).collect::<Result<Vec<_>>>()?, 0)?)
}

/// The parts with at least this frequency.
pub fn at_least<P: Ord + Copy>(frequencies: &BTreeMap<P, f64>, least: f64) -> BTreeSet<P> {
    frequencies.iter().filter(|(_, f)| **f >= least).map(|(part, _)| *part).collect()
}

/// The circuits of a task at several sizes: the parts that are in at least a given share of its
/// prompts' circuits, from the largest on. Each comes with what it is called.
pub(crate) fn circuits_by_frequency<P: Ord + Copy>(
    frequencies: &BTreeMap<P, f64>,
) -> Vec<(String, BTreeSet<P>)> {
    const AT_LEAST: [f64; 8] = [0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];
    let mut circuits: Vec<(String, BTreeSet<P>)> = Vec::new();
    for least in AT_LEAST {
        let circuit = at_least(frequencies, least);
        if !circuit.is_empty()
            && circuits.last().is_none_or(|(_, last)| last.len() != circuit.len())
        {
            circuits.push((format!("frequency >= {least}"), circuit));
        }
    }
    circuits
}

/// The tokens with the highest logits and their probabilities, best first. Probabilities are of the
/// whole vocabulary, special tokens too.
pub fn answers(logits: &[f32], listed: TopTokens) -> Vec<(u32, f32)> {
    let top = listed.of(logits).top;
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from(logit - most).exp();
    let whole: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    top.into_iter().map(|(id, logit)| (id, (weight(logit) / whole) as f32)).collect()
}

/// `count` circuits of `size` parts drawn from `pool`; all of it where it has fewer.
pub fn random_circuits<P: Ord + Copy>(
    pool: &BTreeSet<P>,
    size: usize,
    count: usize,
    seed: u64,
) -> Vec<BTreeSet<P>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ size as u64);
    let all: Vec<P> = pool.iter().copied().collect();
    let draw = |_| {
        let mut shuffled = all.clone();
        let (drawn, _) = shuffled.partial_shuffle(&mut rng, size);
        drawn.iter().copied().collect()
    };
    (0..count).map(draw).collect()
}

/// Every head and MLP of a model.
pub fn everything(model: &Gpt2) -> BTreeSet<Component> {
    Component::all(model.sizes.layers, model.sizes.heads).collect()
}
