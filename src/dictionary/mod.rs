//! Dictionaries: attention-output SAEs and MLP transcoders as one thing (DESIGN.md 4.2).
//!
//! `load` knows the file formats, `conformance` measures how well a dictionary describes the model. Knows nothing of
//! circuits or tables.

mod conformance;
mod load;
mod scorer;

pub use conformance::{Conformance, measure};
pub use load::{Source, find};
pub use scorer::{Hit, Hooks, Scorer, hooks, read_hooks};

use crate::error::Result;
use crate::ids::DictionaryId;
use candle_core::Tensor;

/// A dictionary of `F` features that reads `d_in` numbers of a hook and reconstructs `d_out`.
pub struct Dictionary {
    pub id: DictionaryId,
    pub encoder: Encoder,
    /// `[F, d_out]`
    pub w_dec: Tensor,
    /// What is added to the reconstruction, `[d_out]`
    pub b_out: Tensor,
}

/// The reading half of a dictionary, or of some of its features: `pre = x·W + bias`, active where `pre > limit`.
#[derive(Clone)]
pub struct Encoder {
    /// `[d_in, n]`
    pub w: Tensor,
    /// `b_enc − b_in·W_enc`, `b_in` being what is subtracted from the input, `[n]`
    pub bias: Tensor,
    /// JumpReLU's `max(threshold, 0)`, `[n]`; none for ReLU
    pub limit: Option<Tensor>,
}

/// The active features of one token: (feature, activation), by feature.
pub type Active = Vec<(u32, f32)>;

impl Encoder {
    /// `x [T, d_in]` → pre-activations `[T, n]`
    pub fn pre(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.w)?.broadcast_add(&self.bias)?)
    }

    /// `x [T, d_in]` → activations `[T, n]`
    pub fn encode(&self, x: &Tensor) -> Result<Tensor> {
        let pre = self.pre(x)?;
        Ok(match &self.limit {
            None => pre.relu()?,
            Some(limit) => (&pre * pre.broadcast_gt(limit)?.to_dtype(pre.dtype())?)?,
        })
    }

    /// `x [T, d_in]` → the active features of each token.
    pub fn active(&self, x: &Tensor) -> Result<Vec<Active>> {
        Ok(self.encode(x)?.to_vec2::<f32>()?.iter().map(|row| sparse(row)).collect())
    }

    /// The encoder of some features only, in the order given.
    pub fn select(&self, features: &[usize]) -> Result<Encoder> {
        let index = Tensor::from_iter(features.iter().map(|&f| f as u32), self.w.device())?;
        Ok(Encoder {
            w: self.w.index_select(&index, 1)?.contiguous()?,
            bias: self.bias.index_select(&index, 0)?,
            limit: self.limit.as_ref().map(|limit| limit.index_select(&index, 0)).transpose()?,
        })
    }
}

/// The nonzero entries of a row of activations.
pub fn sparse(row: &[f32]) -> Active {
    row.iter().enumerate().filter(|(_, a)| **a != 0.0).map(|(f, &a)| (f as u32, a)).collect()
}

impl Dictionary {
    /// Number of features, `F`.
    pub fn width(&self) -> usize {
        self.encoder.bias.elem_count()
    }

    /// Activations `[T, F]` → reconstruction `[T, d_out]`
    pub fn decode(&self, activations: &Tensor) -> Result<Tensor> {
        Ok(activations.matmul(&self.w_dec)?.broadcast_add(&self.b_out)?)
    }

    /// What feature `f` reads from its hook, `W_enc[:, f]`, `[d_in]`
    pub fn read_direction(&self, f: usize) -> Result<Vec<f32>> {
        Ok(self.encoder.w.narrow(1, f, 1)?.flatten_all()?.to_vec1()?)
    }

    /// The constant in feature `f`'s pre-activation: `b_enc[f] − b_in·W_enc[:, f]`
    pub fn read_bias(&self, f: usize) -> Result<f32> {
        Ok(self.encoder.bias.get(f)?.to_scalar()?)
    }
}
