//! How well a dictionary describes the model, measured on real tokens: L0, variance explained, dead features and loss
//! recovered (DESIGN.md 4.2). A negative variance explained means that the dictionary is not one of this model's hook.

use super::Dictionary;
use crate::error::{Result, hinted};
use crate::ids::{DictionaryId, Kind};
use crate::model::{Gpt2, Intervention};
use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

/// What was measured of one dictionary, over the positions behind BOS.
#[derive(Clone, Debug)]
pub struct Conformance {
    pub id: DictionaryId,
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
}

impl Conformance {
    /// # Errors
    /// When the dictionary explains less than the mean does.
    pub fn check(&self, source: &std::path::Path) -> Result<()> {
        if self.variance_explained >= 0.0 {
            return Ok(());
        }
        Err(hinted(
            format!(
                "`{}` explains a negative share of the variance of its hook ({:.2}): it is not a dictionary of this model",
                source.display(),
                self.variance_explained
            ),
            "the likely causes: another layer's file, another hook, a value bias left in `z`, training on an unfolded model, or a corpus that is not text",
        ))
    }
}

/// Replaces what one dictionary reconstructs: by its reconstruction, or by zero.
struct Replace<'a> {
    dictionary: &'a Dictionary,
    zero: bool,
}

impl Replace<'_> {
    fn instead(&self, x: &Tensor, of: Tensor) -> Result<Tensor> {
        if self.zero {
            return Ok(of.zeros_like()?);
        }
        self.dictionary.decode(&self.dictionary.encoder.encode(x)?)
    }

    fn here(&self, layer: usize, kind: Kind) -> bool {
        self.dictionary.id == DictionaryId { layer, kind }
    }
}

impl Intervention for Replace<'_> {
    fn z(&self, layer: usize, z: Tensor) -> Result<Tensor> {
        if self.here(layer, Kind::Attention) { self.instead(&z.clone(), z) } else { Ok(z) }
    }

    fn mlp_out(&self, layer: usize, x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        if self.here(layer, Kind::Mlp) { self.instead(x2, mlp_out) } else { Ok(mlp_out) }
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
    residual: f64,
    y: Vec<f64>,
    y2: f64,
    alive: Vec<bool>,
    losses: [f64; 3],
    tokens: u64,
}

impl Sums {
    fn add(mut self, other: Sums) -> Sums {
        self.active += other.active;
        self.residual += other.residual;
        self.y.iter_mut().zip(&other.y).for_each(|(a, b)| *a += b);
        self.y2 += other.y2;
        self.alive.iter_mut().zip(&other.alive).for_each(|(a, b)| *a |= b);
        (0..3).for_each(|i| self.losses[i] += other.losses[i]);
        self.tokens += other.tokens;
        self
    }
}

/// Sums of one context of at least two tokens.
fn measure_context(model: &Gpt2, dictionary: &Dictionary, tokens: &[u32]) -> Result<Sums> {
    let clean = model.forward(tokens)?;
    let layer = &clean.layers[dictionary.id.layer];
    let (x, y) = match dictionary.id.kind {
        Kind::Attention => (&layer.z, &layer.z),
        Kind::Mlp => (&layer.x2, &layer.mlp_out),
    };
    let n = tokens.len() - 1;
    // BOS is left out: its activations are like no other token's and would carry most of the variance.
    let (x, y) = (x.narrow(0, 1, n)?, y.narrow(0, 1, n)?);
    let a = dictionary.encoder.encode(&x)?;
    let (y64, e) = (y.to_dtype(DType::F64)?, (&y - dictionary.decode(&a)?)?.to_dtype(DType::F64)?);
    let on = a.ne(&a.zeros_like()?)?.to_dtype(DType::F64)?;
    let with =
        |zero: bool| loss(&model.logits_from(&clean, dictionary.id.layer, &Replace { dictionary, zero })?, tokens);
    Ok(Sums {
        active: on.sum_all()?.to_scalar()?,
        residual: e.sqr()?.sum_all()?.to_scalar()?,
        y: y64.sum(0)?.to_vec1()?,
        y2: y64.sqr()?.sum_all()?.to_scalar()?,
        alive: on.sum(0)?.to_vec1::<f64>()?.iter().map(|&n| n > 0.0).collect(),
        losses: [loss(&model.logits(&clean)?, tokens)?, with(false)?, with(true)?],
        tokens: n as u64,
    })
}

/// Measures a dictionary on `contexts` (token ids, BOS first); contexts of one token are passed over.
///
/// # Errors
/// When no context has two tokens.
pub fn measure(model: &Gpt2, dictionary: &Dictionary, contexts: &[Vec<u32>]) -> Result<Conformance> {
    let usable = contexts.par_iter().filter(|c| c.len() > 1);
    let each = usable.map(|c| measure_context(model, dictionary, c)).collect::<Result<Vec<_>>>()?;
    // Added up in the order of the contexts, so that the sums do not depend on the threads.
    let Some(sums) = each.into_iter().reduce(Sums::add) else {
        return Err(hinted("no context to measure the dictionaries on", "the corpus is empty or too short"));
    };
    let n = sums.tokens as f64;
    let variance = sums.y2 - sums.y.iter().map(|y| y * y).sum::<f64>() / n;
    let [clean, with, zero] = sums.losses;
    Ok(Conformance {
        id: dictionary.id,
        width: dictionary.width(),
        l0: sums.active / n,
        variance_explained: if variance > 0.0 { 1.0 - sums.residual / variance } else { 0.0 },
        dead: sums.alive.iter().filter(|alive| !**alive).count() as u64,
        loss_recovered: (zero > clean).then(|| (zero - with) / (zero - clean)),
        tokens: sums.tokens,
    })
}
