//! How well a dictionary describes the model, measured on real tokens: L0, variance explained, dead
//! features and loss recovered (`docs/definitions.md` §3).
//!
//! A dictionary that is read wrongly, or is another's, mostly still gives numbers. So each is also
//! read in the ways in which people have gone wrong (`suspects`, `scales`, `heads`), and compared
//! with the others of its kind (`judge`): it is refused with the cause, or warned about.

mod heads;
mod judge;
mod rows;
mod scales;
mod suspects;

pub use judge::judge;

use super::{Active, Dictionary, Encoder};
use crate::error::{Result, hinted};
use crate::ids::{DictionaryId, Kind};
use crate::model::{Gpt2, Intervention};
use candle_core::{D, DType, Tensor};
use rayon::prelude::*;
use rows::{RowFit, Rows};
use std::path::PathBuf;
use suspects::Readings;

/// What was measured of one dictionary, over the positions behind BOS. [`judge`] says what is wrong
/// with it.
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
    /// Whether the model predicts better than by chance, all tokens being as likely: otherwise
    /// what it loses and recovers says nothing.
    predicts: bool,
    /// Tokens measured on.
    pub tokens: u64,
    /// The file that it is from.
    origin: PathBuf,
    /// What its config says that is not as it is used here.
    notes: Vec<String>,
    readings: Readings,
    rows: RowFit,
    /// A tensor that is zero throughout although none is that was trained.
    lost: Option<&'static str>,
    /// Whether most of its thresholds are below 0, as only their logarithms are.
    in_logs: bool,
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

fn no_context() -> anyhow::Error {
    hinted("no context to measure the dictionaries on", "the corpus is empty or too short")
}

impl Sample {
    /// Runs the model over contexts (token ids, BOS first); those of one token are passed over.
    ///
    /// # Errors
    /// When no context has two tokens.
    pub fn new(model: &Gpt2, contexts: &[Vec<u32>]) -> Result<Sample> {
        let usable: Vec<&Vec<u32>> = contexts.iter().filter(|tokens| tokens.len() > 1).collect();
        if usable.is_empty() {
            return Err(no_context());
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

/// Holds a dictionary's hook at a value, `[T, D]`.
struct Replace {
    id: DictionaryId,
    value: Tensor,
}

impl Replace {
    fn value(&self, layer: usize, kind: Kind) -> Option<Tensor> {
        (self.id == DictionaryId { layer, kind }).then(|| self.value.clone())
    }
}

impl Intervention for Replace {
    fn whole_z(&self, layer: usize) -> Option<Tensor> {
        self.value(layer, Kind::Attention)
    }

    fn whole_mlp_out(&self, layer: usize) -> Option<Tensor> {
        self.value(layer, Kind::Mlp)
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
    rows: Rows,
    alive: Vec<bool>,
    losses: [f64; 2],
    tokens: u64,
}

impl Sums {
    fn add(mut self, other: Sums) -> Sums {
        self.active += other.active;
        self.fit = self.fit.add(other.fit);
        self.rows.add(&other.rows);
        self.alive.iter_mut().zip(&other.alive).for_each(|(a, b)| *a |= b);
        (0..2).for_each(|i| self.losses[i] += other.losses[i]);
        self.tokens += other.tokens;
        self
    }
}

/// What variance explained is made of.
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
    let active = encoder.active(x)?;
    let reconstruction = dictionary.decode(&active)?;
    // Nothing before the hook differs from the clean pass, so that it reads the same there.
    let with = |value: Tensor| {
        let replace = Replace { id: dictionary.id, value };
        loss(&model.logits_from(&layer.resid_pre, dictionary.id.layer, &replace)?, tokens)
    };
    let losses = [with(reconstruction.clone())?, with(y.zeros_like()?)?];
    // BOS is left out: its activations are like no other token's and would carry most of the
    // variance.
    let active = &active[1..];
    let (y, reconstruction) = (y.narrow(0, 1, n)?, reconstruction.narrow(0, 1, n)?);
    let fit = Fit::of(&y, &reconstruction)?;
    let rows = Rows::of(dictionary, active, &(y - reconstruction)?)?;
    Ok(Sums {
        active: active.iter().map(Vec::len).sum::<usize>() as f64,
        fit,
        rows,
        alive: alive(active, dictionary.width()),
        losses,
        tokens: n as u64,
    })
}

/// Measures a dictionary.
pub fn measure(model: &Gpt2, dictionary: &Dictionary, sample: &Sample) -> Result<Conformance> {
    let encoder = dictionary.encoder()?;
    let of = |context: &Passed| measure_context(model, dictionary, &encoder, context);
    let each = sample.contexts.par_iter().map(of).collect::<Result<Vec<_>>>()?;
    // Added up in the order of the contexts, so that the sums do not depend on the threads.
    let sums = each.into_iter().reduce(Sums::add).ok_or_else(no_context)?;
    let clean: f64 = sample.contexts.iter().map(|context| context.loss).sum();
    let [with, zero] = sums.losses;
    Ok(Conformance {
        id: dictionary.id,
        width: dictionary.width(),
        l0: sums.active / sums.tokens as f64,
        variance_explained: sums.fit.explained(),
        dead: sums.alive.iter().filter(|alive| !**alive).count() as u64,
        loss_recovered: (zero > clean).then(|| (zero - with) / (zero - clean)),
        predicts: clean / (sums.tokens as f64) < (model.sizes.vocabulary as f64).ln(),
        tokens: sums.tokens,
        origin: dictionary.origin.clone(),
        notes: dictionary.notes.clone(),
        readings: suspects::tried(model, dictionary, &encoder, sample, &sums.rows)?,
        rows: sums.rows.fit(),
        lost: scales::lost(dictionary, &encoder)?,
        in_logs: scales::in_logs(&encoder),
    })
}
