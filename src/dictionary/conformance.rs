//! How well a dictionary describes the model, measured on real tokens: L0, variance explained, dead
//! features and loss recovered (`docs/definitions.md` §3).
//!
//! A dictionary that is read wrongly, or is another's, mostly still gives numbers. So each is also
//! read in the ways in which people have gone wrong (`suspects`); where one of these fits far
//! better, or none explains anything, it is refused.

mod suspects;

use super::recovery::recovery_warning;
use super::{Active, Dictionary, Encoder};
use crate::error::{Result, hinted};
use crate::ids::{DictionaryId, Kind};
use crate::model::{Gpt2, Intervention};
use candle_core::{D, DType, Tensor};
use rayon::prelude::*;
use suspects::{Suspect, better};

/// What was measured of one dictionary, over the positions behind BOS.
#[derive(Clone, Debug)]
pub struct Conformance {
    /// Which dictionary it is.
    pub id: DictionaryId,
    /// Features of the dictionary.
    pub width: usize,
    /// Mean number of active features a token.
    pub l0: f64,
    /// `1 − Σ‖y − ŷ‖² / Σ‖y − ȳ‖²` of what it reconstructs.
    pub variance_explained: f64,
    /// Features that are never active on the sample.
    pub dead: u64,
    /// `(loss with zero − loss with ŷ) / (loss with zero − loss)`; none where zero does not hurt.
    pub loss_recovered: Option<f64>,
    /// Tokens measured on.
    pub tokens: u64,
    /// Standard error of the variance explained, over contexts.
    error: f64,
    /// A reading that fits far better than the one that its file asks for.
    suspect: Option<Suspect>,
}

impl Conformance {
    /// # Errors
    /// When the dictionary clearly explains less than the mean does, or another reading of it fits
    /// far better.
    pub fn check(&self, source: &std::path::Path) -> Result<()> {
        let (file, hook, explained) = (source.display(), self.id.hook(), self.variance_explained);
        // A weak dictionary may fall below 0 by the luck of the sample.
        let refused = explained + 2.0 * self.error < 0.0;
        if let Some(suspect) =
            self.suspect.as_ref().filter(|suspect| refused || suspect.is_evidence())
        {
            let what = format!(
                "`{file}` explains {explained:.2} of the variance of its hook `{hook}`, but {:.2} \
                 {}",
                suspect.explained, suspect.when
            );
            return Err(hinted(what, suspect.hint));
        }
        if !refused {
            return Ok(());
        }
        Err(hinted(
            format!(
                "`{file}` explains a negative share of the variance of its hook `{hook}` \
                 ({explained:.2}): it is not a dictionary of this model"
            ),
            "no other layer, bias or folding makes it fit; use dictionaries trained on this \
             model, and check that the corpus is text",
        ))
    }

    /// What looks wrong, but may be right.
    pub fn warning(&self) -> Option<String> {
        recovery_warning(self.id, self.loss_recovered)
    }
}

/// Clean passes over some contexts, with what is compared with.
pub struct Sample {
    contexts: Vec<Passed>,
}

struct Passed {
    tokens: Vec<u32>,
    layers: Vec<Hooked>,
    /// Summed over all tokens but the first.
    loss: f64,
}

/// What a pass leaves of a layer, `[T, D]` each.
struct Hooked {
    resid_pre: Tensor,
    z: Tensor,
    x2: Tensor,
    mlp_out: Tensor,
}

impl Hooked {
    /// What a dictionary reads, and what it reconstructs.
    fn of(&self, kind: Kind) -> (&Tensor, &Tensor) {
        match kind {
            Kind::Attention => (&self.z, &self.z),
            Kind::Mlp => (&self.x2, &self.mlp_out),
        }
    }
}

impl Sample {
    /// Runs the model over contexts (token ids, BOS first); those of one token are passed over.
    ///
    /// # Errors
    /// When no context has two tokens.
    pub fn new(model: &Gpt2, contexts: &[Vec<u32>]) -> Result<Sample> {
        let usable: Vec<&Vec<u32>> = contexts.iter().filter(|tokens| tokens.len() > 1).collect();
        if usable.is_empty() {
            return Err(hinted(
                "no context to measure the dictionaries on",
                "the corpus is empty or too short",
            ));
        }
        let contexts =
            usable.par_iter().map(|tokens| Passed::new(model, tokens)).collect::<Result<_>>()?;
        Ok(Sample { contexts })
    }

    /// The model's loss on it, in nats a token.
    pub fn loss(&self) -> f64 {
        let tokens: usize = self.contexts.iter().map(|context| context.tokens.len() - 1).sum();
        self.contexts.iter().map(|context| context.loss).sum::<f64>() / tokens as f64
    }
}

impl Passed {
    fn new(model: &Gpt2, tokens: &[u32]) -> Result<Passed> {
        let trace = model.forward(tokens)?;
        let loss = loss(&model.logits(&trace)?, tokens)?;
        let hooked = trace.layers.into_iter().map(|layer| Hooked {
            resid_pre: layer.resid_pre,
            z: layer.z,
            x2: layer.x2,
            mlp_out: layer.mlp_out,
        });
        Ok(Passed { tokens: tokens.to_vec(), layers: hooked.collect(), loss })
    }
}

/// Replaces what one dictionary reconstructs: by its reconstruction, or by zero.
struct Replace<'a> {
    dictionary: &'a Dictionary,
    encoder: &'a Encoder,
    zero: bool,
}

impl Replace<'_> {
    fn instead(&self, x: &Tensor, of: &Tensor) -> Result<Tensor> {
        if self.zero {
            return Ok(of.zeros_like()?);
        }
        self.dictionary.decode(&self.encoder.active(x)?)
    }

    fn here(&self, layer: usize, kind: Kind) -> bool {
        self.dictionary.id == DictionaryId { layer, kind }
    }
}

impl Intervention for Replace<'_> {
    fn z(&self, layer: usize, z: Tensor) -> Result<Tensor> {
        if self.here(layer, Kind::Attention) { self.instead(&z, &z) } else { Ok(z) }
    }

    fn mlp_out(&self, layer: usize, x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        if self.here(layer, Kind::Mlp) { self.instead(x2, &mlp_out) } else { Ok(mlp_out) }
    }
}

/// Summed loss of predicting each token but the first from logits `[T, V]`.
fn loss(logits: &Tensor, tokens: &[u32]) -> Result<f64> {
    let logits = logits.narrow(0, 0, tokens.len() - 1)?;
    let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    let next = Tensor::new(&tokens[1..], logits.device())?.unsqueeze(1)?;
    Ok(-log_p.gather(&next, 1)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?)
}

/// Sums over tokens that are added up over contexts.
struct Sums {
    active: f64,
    fit: Fit,
    alive: Vec<bool>,
    losses: [f64; 2],
    tokens: u64,
}

impl Sums {
    fn add(mut self, other: Sums) -> Sums {
        self.active += other.active;
        self.fit = self.fit.add(other.fit);
        self.alive.iter_mut().zip(&other.alive).for_each(|(a, b)| *a |= b);
        (0..2).for_each(|i| self.losses[i] += other.losses[i]);
        self.tokens += other.tokens;
        self
    }
}

/// What variance explained is made of.
#[derive(Clone)]
struct Fit {
    residual: f64,
    y: Vec<f64>,
    y2: f64,
    tokens: f64,
}

impl Fit {
    /// Of what is reconstructed `y [T, D]`, and its reconstruction.
    fn of(y: &Tensor, reconstruction: &Tensor) -> Result<Fit> {
        let (y64, e) = (y.to_dtype(DType::F64)?, (y - reconstruction)?.to_dtype(DType::F64)?);
        Ok(Fit {
            residual: e.sqr()?.sum_all()?.to_scalar()?,
            y: y64.sum(0)?.to_vec1()?,
            y2: y64.sqr()?.sum_all()?.to_scalar()?,
            tokens: y.dim(0)? as f64,
        })
    }

    fn add(mut self, other: Fit) -> Fit {
        self.residual += other.residual;
        self.y.iter_mut().zip(&other.y).for_each(|(a, b)| *a += b);
        self.y2 += other.y2;
        self.tokens += other.tokens;
        self
    }

    fn variance(&self) -> f64 {
        self.y2 - self.y.iter().map(|y| y * y).sum::<f64>() / self.tokens
    }

    fn explained(&self) -> f64 {
        let variance = self.variance();
        if variance > 0.0 { 1.0 - self.residual / variance } else { 0.0 }
    }

    /// How much nearer to `y` the reconstruction is than the mean of the `whole` sample, in summed
    /// squares.
    fn gained(&self, whole: &Fit) -> f64 {
        let mean = |y: &f64| y / whole.tokens;
        let from_mean: f64 = self
            .y
            .iter()
            .zip(&whole.y)
            .map(|(y, all)| mean(all) * (self.tokens * mean(all) - 2.0 * y))
            .sum();
        self.y2 + from_mean - self.residual
    }
}

/// The standard error of the variance explained, from how much it differs between contexts.
fn standard_error(each: &[Fit], whole: &Fit) -> f64 {
    let (n, variance) = (each.len() as f64, whole.variance());
    if each.len() < 2 || variance <= 0.0 {
        return 0.0;
    }
    let gains: Vec<f64> = each.iter().map(|fit| fit.gained(whole)).collect();
    let mean = gains.iter().sum::<f64>() / n;
    let spread = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (n * spread).sqrt() / variance
}

fn alive(active: &[Active], width: usize) -> Vec<bool> {
    let mut alive = vec![false; width];
    active.iter().flatten().for_each(|(f, _)| alive[*f as usize] = true);
    alive
}

/// Sums of one context.
fn measure_context(
    model: &Gpt2,
    dictionary: &Dictionary,
    encoder: &Encoder,
    context: &Passed,
) -> Result<Sums> {
    let (layer, tokens) = (&context.layers[dictionary.id.layer], &context.tokens);
    let (x, y) = layer.of(dictionary.id.kind);
    let n = tokens.len() - 1;
    // BOS is left out: its activations are like no other token's and would carry most of the
    // variance.
    let active = encoder.active(&x.narrow(0, 1, n)?)?;
    let fit = Fit::of(&y.narrow(0, 1, n)?, &dictionary.decode(&active)?)?;
    let with = |zero: bool| {
        let replace = Replace { dictionary, encoder, zero };
        loss(&model.logits_from(&layer.resid_pre, dictionary.id.layer, &replace)?, tokens)
    };
    Ok(Sums {
        active: active.iter().map(Vec::len).sum::<usize>() as f64,
        fit,
        alive: alive(&active, dictionary.width()),
        losses: [with(false)?, with(true)?],
        tokens: n as u64,
    })
}

/// Measures a dictionary.
pub fn measure(model: &Gpt2, dictionary: &Dictionary, sample: &Sample) -> Result<Conformance> {
    let encoder = dictionary.encoder()?;
    let of = |context: &Passed| measure_context(model, dictionary, &encoder, context);
    let each = sample.contexts.par_iter().map(of).collect::<Result<Vec<_>>>()?;
    let fits: Vec<Fit> = each.iter().map(|sums| sums.fit.clone()).collect();
    // Added up in the order of the contexts, so that the sums do not depend on the threads.
    let Some(sums) = each.into_iter().reduce(Sums::add) else {
        return Err(hinted(
            "no context to measure the dictionaries on",
            "the corpus is empty or too short",
        ));
    };
    let clean: f64 = sample.contexts.iter().map(|context| context.loss).sum();
    let [with, zero] = sums.losses;
    Ok(Conformance {
        id: dictionary.id,
        width: dictionary.width(),
        l0: sums.active / sums.tokens as f64,
        variance_explained: sums.fit.explained(),
        dead: sums.alive.iter().filter(|alive| !**alive).count() as u64,
        loss_recovered: (zero > clean).then(|| (zero - with) / (zero - clean)),
        tokens: sums.tokens,
        error: standard_error(&fits, &sums.fit),
        suspect: better(model, dictionary, &encoder, sample)?,
    })
}
