//! A model and its dictionaries, laid out for attribution; passes over prompts, encoded.

use crate::dictionary::{Active, Dictionary, activation};
use crate::error::Result;
use crate::ids::{DictionaryId, FeatureId, Kind};
use crate::model::{Gpt2, Layer, Trace};
use candle_core::Tensor;
use rayon::prelude::*;
use std::collections::HashMap;
use std::iter::Sum;
use std::ops::{AddAssign, Mul};
use std::sync::{Arc, Mutex, PoisonError};

/// Prompts whose passes are held at once: a dictionary is read once for all of them.
pub const PROMPTS: usize = 32;

/// A model and its dictionaries, with what attribution reads from them laid out for it.
pub struct ReplacementModel {
    /// The folded model.
    pub model: Gpt2,
    /// By layer.
    pub attention: Vec<Dictionary>,
    /// By layer.
    pub mlp: Vec<Dictionary>,
    heads: Vec<Heads>,
    pub(super) constants: Vec<Constants>,
    /// Of the prompts that were asked for last.
    first: Mutex<Option<Arc<First>>>,
}

/// What the first hook, that of the first layer's heads, holds in some prompts, and the features
/// that are active there. Nothing is before it, so that it is the same whatever is replaced.
pub(super) struct First {
    prompts: Vec<Vec<u32>>,
    /// By prompt: `z`, `[T, H·K]`, and by position.
    pub hooks: Vec<(Tensor, Vec<Active>)>,
}

/// One layer's reading halves of heads: `W_Q`, `W_K` and `W_V`, a block each.
struct Heads {
    /// `[3, H, D, K]`: what one head reads in one block lies together.
    w: Vec<f32>,
    /// `[3, H, K]`
    b: Vec<f32>,
}

/// What one layer adds to the residual stream whatever it reads, `[D]` each.
pub(super) struct Constants {
    /// The SAE's `b_dec` through `W_O`.
    pub attention_dictionary: Vec<f32>,
    /// `b_O`
    pub attention: Vec<f32>,
    /// The transcoder's `b_dec_out`, centred.
    pub mlp_dictionary: Vec<f32>,
}

/// A clean pass over a prompt, and what its dictionaries make of it.
pub struct Pass {
    pub(super) trace: Trace,
    /// By layer and position.
    pub(super) attention: Vec<Vec<Active>>,
    /// By layer and position.
    pub(super) mlp: Vec<Vec<Active>>,
}

impl ReplacementModel {
    /// Dictionaries are by layer, one each.
    pub fn new(
        model: Gpt2,
        attention: Vec<Dictionary>,
        mlp: Vec<Dictionary>,
    ) -> Result<ReplacementModel> {
        let heads = model
            .layers
            .iter()
            .map(|layer| Heads::new(layer, model.sizes.heads))
            .collect::<Result<_>>()?;
        let each = model.layers.iter().zip(&attention).zip(&mlp);
        let constants = each
            .map(|((layer, sae), mlp)| Constants::new(layer, sae, mlp))
            .collect::<Result<_>>()?;
        Ok(ReplacementModel { model, attention, mlp, heads, constants, first: Mutex::default() })
    }

    /// A direction of head space taken back through a head's block of `W_Q|W_K|W_V`: `W·x`, `[D]`.
    pub(super) fn back(&self, layer: usize, block: usize, head: usize, x: &[f32]) -> Vec<f32> {
        let sizes = &self.model.sizes;
        let size = sizes.d_model * sizes.d_head;
        let w = &self.heads[layer].w[(block * sizes.heads + head) * size..][..size];
        w.chunks_exact(sizes.d_head).map(|row| dot(row, x)).collect()
    }

    /// A head's bias in a block dotted with `x`.
    pub(super) fn bias(&self, layer: usize, block: usize, head: usize, x: &[f32]) -> f32 {
        let k = self.model.sizes.d_head;
        dot(&self.heads[layer].b[(block * self.model.sizes.heads + head) * k..][..k], x)
    }

    /// A layer's dictionary of a kind.
    pub fn dictionary(&self, id: DictionaryId) -> &Dictionary {
        match id.kind {
            Kind::Attention => &self.attention[id.layer],
            Kind::Mlp => &self.mlp[id.layer],
        }
    }

    /// What some features write into their hook for each unit of activation, a row each; an MLP's
    /// are centred, as what it writes is.
    pub(super) fn write_rows(&self, id: DictionaryId, features: &[usize]) -> Result<Vec<f32>> {
        let mut rows = Vec::new();
        for &f in features {
            let mut row = self.dictionary(id).write_direction(f)?;
            if id.kind == Kind::Mlp {
                centre(&mut row);
            }
            rows.append(&mut row);
        }
        Ok(rows)
    }

    /// Runs the model over prompts (BOS first) and encodes what the dictionaries read.
    pub fn passes(&self, prompts: &[&[u32]]) -> Result<Vec<Pass>> {
        self.encode(self.traces(prompts)?)
    }

    /// Passes of any number of prompts, [`PROMPTS`] at a time, `each` of them side by side with the
    /// others of its time; `take` gets what comes of them in the order of the prompts.
    pub fn over<T: Send>(
        &self,
        prompts: &[&[u32]],
        each: impl Fn(usize, Pass) -> Result<T> + Sync,
        mut take: impl FnMut(usize, T),
    ) -> Result<()> {
        for (start, some) in (0..).step_by(PROMPTS).zip(prompts.chunks(PROMPTS)) {
            let passes = self.passes(some)?.into_par_iter().enumerate();
            let done = passes.map(|(i, pass)| each(start + i, pass)).collect::<Result<Vec<T>>>()?;
            (start..).zip(done).for_each(|(i, done)| take(i, done));
        }
        Ok(())
    }

    /// What the first hook holds in prompts; kept until it is asked for others.
    pub(super) fn first(&self, prompts: &[&[u32]]) -> Result<Arc<First>> {
        // Never held while anything is computed: a thread that waits may be given other work.
        let kept = || self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = kept().as_ref().filter(|first| first.prompts == prompts) {
            return Ok(first.clone());
        }
        let z = if prompts.is_empty() { Vec::new() } else { self.model.first_z(prompts)? };
        let active = encoded(&self.attention[0], z.iter())?;
        let prompts = prompts.iter().map(|tokens| tokens.to_vec()).collect();
        let first = Arc::new(First { prompts, hooks: z.into_iter().zip(active).collect() });
        *kept() = Some(first.clone());
        Ok(first)
    }

    /// Runs the model over prompts.
    pub fn traces(&self, prompts: &[&[u32]]) -> Result<Vec<Trace>> {
        self.model.forward_all(prompts)
    }

    /// Encodes what the dictionaries read, one dictionary at a time for all passes: a whole encoder
    /// is large, and is read only once here.
    pub fn encode(&self, traces: Vec<Trace>) -> Result<Vec<Pass>> {
        let mut passes: Vec<Pass> = traces
            .into_iter()
            .map(|trace| Pass { trace, attention: Vec::new(), mlp: Vec::new() })
            .collect();
        for layer in 0..self.model.sizes.layers {
            let z = encoded(
                &self.attention[layer],
                passes.iter().map(|pass| &pass.trace.layers[layer].z),
            )?;
            let x2 =
                encoded(&self.mlp[layer], passes.iter().map(|pass| &pass.trace.layers[layer].x2))?;
            for ((pass, z), x2) in passes.iter_mut().zip(z).zip(x2) {
                pass.attention.push(z);
                pass.mlp.push(x2);
            }
        }
        Ok(passes)
    }
}

/// The active features of each token of each input `[T, d_in]`.
fn encoded<'t>(
    dictionary: &Dictionary,
    inputs: impl Iterator<Item = &'t Tensor>,
) -> Result<Vec<Vec<Active>>> {
    let inputs: Vec<&Tensor> = inputs.collect();
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let mut active = encoded_rows(dictionary, &Tensor::cat(&inputs, 0)?)?.into_iter();
    inputs.iter().map(|x| Ok(active.by_ref().take(x.dim(0)?).collect())).collect()
}

/// The active features of rows `[R, d_in]`. Prompts begin alike, and what stands in for them too:
/// rows that are the same to the bit are encoded once.
pub(super) fn encoded_rows(dictionary: &Dictionary, rows: &Tensor) -> Result<Vec<Active>> {
    let bits: Vec<u32> = flat(rows)?.into_iter().map(f32::to_bits).collect();
    let (mut known, mut distinct) = (HashMap::new(), Vec::new());
    let place = |(i, row)| -> usize {
        let next = distinct.len();
        *known.entry(row).or_insert_with(|| {
            distinct.push(i);
            next
        })
    };
    let places: Vec<usize> =
        (0u32..).zip(bits.chunks_exact(dictionary.b_in().len())).map(place).collect();
    if distinct.len() == places.len() {
        return dictionary.active(rows);
    }
    let distinct = Tensor::new(distinct, rows.device())?;
    let active = dictionary.active(&rows.index_select(&distinct, 0)?)?;
    Ok(places.into_iter().map(|place| active[place].clone()).collect())
}

impl Pass {
    /// The pass itself.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// A feature's activation at a position, 0 where it is inactive.
    pub fn activation(&self, feature: FeatureId, position: usize) -> f32 {
        let active = self.active(feature.dictionary.kind, feature.dictionary.layer);
        activation(&active[position], feature.index as u32)
    }

    /// The active features of a layer's dictionary, by position.
    pub fn active(&self, kind: Kind, layer: usize) -> &[Active] {
        match kind {
            Kind::Attention => &self.attention[layer],
            Kind::Mlp => &self.mlp[layer],
        }
    }
}

impl Heads {
    fn new(layer: &Layer, heads: usize) -> Result<Heads> {
        let d = layer.w_qkv.dim(0)?;
        let w = layer.w_qkv.reshape((d, 3, heads, d / heads))?.permute((1, 2, 0, 3))?;
        Ok(Heads { w: flat(&w)?, b: layer.b_qkv.to_vec1()? })
    }
}

impl Constants {
    fn new(layer: &Layer, sae: &Dictionary, transcoder: &Dictionary) -> Result<Constants> {
        let b_dec = Tensor::new(sae.b_out(), layer.w_o.device())?.unsqueeze(0)?;
        let mut mlp_dictionary = transcoder.b_out().to_vec();
        centre(&mut mlp_dictionary);
        Ok(Constants {
            attention_dictionary: flat(&b_dec.matmul(&layer.w_o)?)?,
            attention: flat(&layer.b_o)?,
            mlp_dictionary,
        })
    }
}

pub(super) fn centre(row: &mut [f32]) {
    let mean = (row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64) as f32;
    row.iter_mut().for_each(|x| *x -= mean);
}

pub(super) fn flat(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.flatten_all()?.to_vec1()?)
}

/// Row `p` of `[T, n]`.
pub(super) fn row(x: &Tensor, p: usize) -> Result<Vec<f32>> {
    flat(&x.narrow(0, p, 1)?)
}

/// Dot product in sixteen lanes, which the compiler turns into vector instructions.
pub(super) fn dot<F: Copy + Default + AddAssign + Mul<Output = F> + Sum<F>>(a: &[F], b: &[F]) -> F {
    const LANES: usize = 16;
    let mut lanes = [F::default(); LANES];
    let (wide_a, wide_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = wide_a.remainder().iter().zip(wide_b.remainder()).map(|(&x, &y)| x * y).sum();
    for (x, y) in wide_a.zip(wide_b) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    let mut whole: F = lanes.into_iter().sum();
    whole += rest;
    whole
}
