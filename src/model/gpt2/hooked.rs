//! Passes over contexts that stand one below the other: everything that dictionaries read and
//! reconstruct, and the loss of a pass that goes on from a residual stream. Letters as in `gpt2`.

use super::fused::{Surprise, normed};
use super::{Gpt2, Rows};
use crate::error::Result;
use crate::model::pack::packs;
use candle_core::Tensor;
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

    /// Of predicting each token of a context but the first, by context, in a pass that goes on from
    /// the residual stream before block `layer`, `x [ΣT, D]`.
    ///
    /// # Errors
    /// When a product fails.
    pub(crate) fn surprises_from(
        &self,
        x: Tensor,
        layer: usize,
        contexts: &[&[u32]],
    ) -> Result<Vec<Surprise>> {
        let (rows, mut x) = (Rows::of(contexts), x);
        for l in layer..self.sizes.layers {
            let z = self.gather(&self.projected(l, &x)?, &rows)?;
            x = self.after_mlp(l, self.after_attention(l, &x, &z)?)?;
        }
        self.surprises(&x, &rows, contexts)
    }

    /// Of clean passes over contexts.
    ///
    /// # Errors
    /// As of [`Gpt2::forward`].
    pub(crate) fn surprises_of(&self, contexts: &[&[u32]]) -> Result<Vec<Surprise>> {
        self.in_packs(contexts, |pack| self.surprises_from(self.embed_all(pack)?, 0, pack))
    }

    /// Of passes in which every head looks at all tokens up to its own alike.
    ///
    /// # Errors
    /// As of [`Gpt2::forward`].
    pub(crate) fn surprises_looking_alike(&self, contexts: &[&[u32]]) -> Result<Vec<Surprise>> {
        let d = self.sizes.d_model;
        self.in_packs(contexts, |pack| {
            let (rows, mut x) = (Rows::of(pack), self.embed_all(pack)?);
            for l in 0..self.sizes.layers {
                let w_v = self.layers[l].w_qkv.narrow(1, 2 * d, d)?.contiguous()?;
                let values = normed(&x, self.epsilon)?.matmul(&w_v)?;
                let each = (0..pack.len()).map(|i| means_so_far(&rows.of_one(&values, i)?));
                let z = Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?;
                x = self.after_mlp(l, self.after_attention(l, &x, &z)?)?;
            }
            self.surprises(&x, &rows, pack)
        })
    }

    fn in_packs(
        &self,
        contexts: &[&[u32]],
        of: impl Fn(&[&[u32]]) -> Result<Vec<Surprise>> + Sync,
    ) -> Result<Vec<Surprise>> {
        let lengths: Vec<usize> = contexts.iter().map(|tokens| tokens.len()).collect();
        let packs = packs(&lengths, contexts.len());
        let each =
            packs.into_par_iter().map(|pack| of(&contexts[pack])).collect::<Result<Vec<_>>>();
        Ok(each?.into_iter().flatten().collect())
    }

    /// Of predicting each token but the first from the residual stream after the last block.
    fn surprises(&self, x: &Tensor, rows: &Rows, contexts: &[&[u32]]) -> Result<Vec<Surprise>> {
        let logits = self.unembed(x)?;
        let one = |(i, tokens): (usize, &&[u32])| match tokens {
            [_, next @ ..] if !next.is_empty() => {
                Surprise::of(&rows.of_one(&logits, i)?.narrow(0, 0, next.len())?, next)
            }
            _ => Ok(Surprise::default()),
        };
        contexts.par_iter().enumerate().map(one).collect()
    }
}

/// Of rows `[T, D]`, the mean of each and those above it.
fn means_so_far(rows: &Tensor) -> Result<Tensor> {
    let (t, d) = rows.dims2()?;
    let mut values: Vec<f32> = rows.flatten_all()?.to_vec1()?;
    let mut sum = vec![0.0; d];
    for (row, n) in values.chunks_exact_mut(d).zip(1u16..) {
        sum.iter_mut().zip(&*row).for_each(|(sum, x)| *sum += x);
        row.iter_mut().zip(&sum).for_each(|(x, sum)| *x = sum / f32::from(n));
    }
    Ok(Tensor::from_vec(values, (t, d), rows.device())?)
}
