//! Passes over contexts that stand one below the other: everything that dictionaries read and
//! reconstruct, and the loss of a pass that goes on from a residual stream. Letters as in `gpt2`.

use super::{Gpt2, Rows};
use crate::error::Result;
use candle_core::{D as Last, DType, Tensor};
use rayon::prelude::*;

/// What a pass leaves of a layer, a token a row.
pub(crate) struct HookedLayer {
    /// The residual stream before the block, `[ΣT, D]`
    pub resid_pre: Tensor,
    /// The residual stream before its MLP, `[ΣT, D]`
    pub resid_mid: Tensor,
    /// `[ΣT, H·K]`
    pub z: Tensor,
    /// `[ΣT, D]`
    pub x2: Tensor,
    /// `[ΣT, D]`
    pub mlp_out: Tensor,
}

impl Gpt2 {
    /// What is wanted of what a clean pass over contexts leaves, by layer, and the residual stream
    /// after the last one, `[ΣT, D]`. `wanted` gets one layer at a time, so that no more than that
    /// is in memory whole.
    ///
    /// # Errors
    /// As of [`Gpt2::forward`], and of `wanted`.
    pub(crate) fn hooked<T>(
        &self,
        contexts: &[&[u32]],
        wanted: impl Fn(HookedLayer) -> Result<T>,
    ) -> Result<(Vec<T>, Tensor)> {
        let rows = Rows::of(contexts);
        let (mut x, mut layers) = (self.embed_all(contexts)?, Vec::new());
        for l in 0..self.sizes.layers {
            let z = self.gather(&self.projected(l, &x)?, &rows)?;
            let resid_mid = self.after_attention(l, &x, &z)?;
            let x2 = self.x2(&resid_mid)?;
            let mlp_out = self.mlp(l, &x2)?;
            let after = (&resid_mid + &mlp_out)?;
            layers.push(wanted(HookedLayer { resid_pre: x, resid_mid, z, x2, mlp_out })?);
            x = after;
        }
        Ok((layers, x))
    }

    /// Summed loss of predicting each token of a context but the first, by context, in a pass that
    /// goes on from the residual stream before block `layer`, `x [ΣT, D]`.
    ///
    /// # Errors
    /// When a product fails.
    pub(crate) fn losses_from(
        &self,
        x: Tensor,
        layer: usize,
        contexts: &[&[u32]],
    ) -> Result<Vec<f64>> {
        let (rows, mut x) = (Rows::of(contexts), x);
        for l in layer..self.sizes.layers {
            let z = self.gather(&self.projected(l, &x)?, &rows)?;
            x = self.after_mlp(l, self.after_attention(l, &x, &z)?)?;
        }
        let logits = self.unembed(&x)?;
        let one = |(i, tokens): (usize, &&[u32])| loss(&rows.of_one(&logits, i)?, tokens);
        contexts.par_iter().enumerate().map(one).collect()
    }
}

/// Summed loss of predicting each token but the first from logits `[T, V]`.
fn loss(logits: &Tensor, tokens: &[u32]) -> Result<f64> {
    if tokens.len() < 2 {
        return Ok(0.0);
    }
    let logits = logits.narrow(0, 0, tokens.len() - 1)?;
    let log_p = candle_nn::ops::log_softmax(&logits, Last::Minus1)?;
    let next = Tensor::new(&tokens[1..], logits.device())?.unsqueeze(1)?;
    Ok(-log_p.gather(&next, 1)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?)
}
