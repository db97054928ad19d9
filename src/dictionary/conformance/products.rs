//! What an encoder's product with some tokens' inputs gives under other readings: a bias of the
//! input or its scale changes pre-activations by a vector or a number, so that the product is
//! computed once.

use crate::dictionary::{Active, Dictionary, Encoder, Rule};
use crate::error::Result;
use candle_core::Tensor;
use rayon::prelude::*;

/// Products of some tokens with a dictionary's encoder.
pub(super) struct Products<'a> {
    pub(super) dictionary: &'a Dictionary,
    pub(super) encoder: &'a Encoder,
    /// `x·W_enc`, a token a row.
    read: Vec<f32>,
    pub(super) bias: Vec<f32>,
    /// The bias without what comes from `b_in`.
    pub(super) b_enc: Vec<f32>,
}

impl<'a> Products<'a> {
    /// Of inputs `x [T, d_in]`.
    pub(super) fn new(
        dictionary: &'a Dictionary,
        encoder: &'a Encoder,
        x: &Tensor,
    ) -> Result<Products<'a>> {
        let read = x.matmul(&encoder.w.t()?)?.flatten_all()?.to_vec1()?;
        let bias = encoder.bias.to_vec1()?;
        let mut products = Products { dictionary, encoder, read, b_enc: Vec::new(), bias };
        products.b_enc = products.moved(&Tensor::new(dictionary.b_in(), x.device())?)?;
        Ok(products)
    }

    /// The bias when `shift [d_in]` is added to every input.
    pub(super) fn moved(&self, shift: &Tensor) -> Result<Vec<f32>> {
        if shift.to_vec1::<f32>()?.iter().all(|x| *x == 0.0) {
            return Ok(self.bias.clone());
        }
        let of_shift = self.encoder.w.matmul(&shift.unsqueeze(1)?)?.squeeze(1)?;
        Ok((&self.encoder.bias + of_shift)?.to_vec1()?)
    }

    pub(super) fn tokens(&self) -> usize {
        self.read.len() / self.bias.len().max(1)
    }

    /// The active features of each token with `pre = times·(x·W_enc) + bias`.
    pub(super) fn active(&self, rule: &Rule, times: f32, bias: &[f32]) -> Vec<Active> {
        self.active_first(self.tokens(), rule, times, bias)
    }

    /// The same of the first `n` tokens.
    pub(super) fn active_first(
        &self,
        n: usize,
        rule: &Rule,
        times: f32,
        bias: &[f32],
    ) -> Vec<Active> {
        let (width, limits) = (bias.len(), rule.limits(bias.len()));
        let rows = self.read[..n * width].par_chunks_exact(width);
        if times == 1.0 {
            return rows.map(|row| rule.active(row, bias, &limits)).collect();
        }
        let scaled = |buffer: &mut Vec<f32>, row: &[f32]| {
            buffer.clear();
            buffer.extend(row.iter().map(|x| times * x));
            rule.active(buffer, bias, &limits)
        };
        rows.map_init(Vec::new, scaled).collect()
    }
}
