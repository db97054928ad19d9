//! The tokens that dictionaries are measured on: what a clean pass leaves there, and which rows of
//! it are for what.

use super::no_context;
use crate::dictionary::packs;
use crate::error::Result;
use crate::ids::{DictionaryId, Kind};
use crate::model::{Gpt2, HookedLayer};
use candle_core::Tensor;
use rayon::prelude::*;

/// Tokens that each reading is tried on.
const TOKENS: usize = 256;
/// Contexts of a pack at most.
const CONTEXTS: usize = 16;

/// Clean passes over some contexts, one below the other: a token a row.
pub struct Sample {
    contexts: Vec<Vec<u32>>,
    /// Of each context, where its rows begin.
    starts: Vec<usize>,
    pub(super) layers: Vec<HookedLayer>,
    /// All rows but those of BOS.
    pub(super) behind_bos: Vec<u32>,
    /// The first of them, on which readings are tried.
    pub(super) tried: Vec<u32>,
    /// All other rows.
    pub(super) not_tried: Vec<u32>,
    /// Contexts that losses are measured on, the first half: a pass costs more than an encoding.
    half: usize,
    /// Summed over the tokens of that half but the first ones.
    loss: f64,
}

impl HookedLayer {
    /// What a dictionary reads, and what it reconstructs.
    pub(super) fn of(&self, kind: Kind) -> (&Tensor, &Tensor) {
        match kind {
            Kind::Attention => (&self.z, &self.z),
            Kind::Mlp => (&self.x2, &self.mlp_out),
        }
    }
}

fn rows_of(all: &Tensor, rows: &[u32]) -> Result<Tensor> {
    Ok(all.index_select(&Tensor::new(rows, all.device())?, 0)?)
}

impl Sample {
    /// Runs the model over contexts (token ids, BOS first); those of one token are passed over.
    ///
    /// # Errors
    /// When no context has two tokens.
    pub fn new(model: &Gpt2, contexts: &[Vec<u32>]) -> Result<Sample> {
        let contexts: Vec<Vec<u32>> =
            contexts.iter().filter(|tokens| tokens.len() > 1).cloned().collect();
        if contexts.is_empty() {
            return Err(no_context());
        }
        let lengths: Vec<usize> = contexts.iter().map(Vec::len).collect();
        let run = |pack: &std::ops::Range<usize>| {
            let tokens: Vec<&[u32]> = contexts[pack.clone()].iter().map(Vec::as_slice).collect();
            model.hooked(&tokens)
        };
        let each = packs(&lengths, CONTEXTS).par_iter().map(run).collect::<Result<Vec<_>>>()?;
        let (passed, posts): (Vec<Vec<HookedLayer>>, Vec<Tensor>) = each.into_iter().unzip();
        let together = |l: usize| -> Result<HookedLayer> {
            let all = |part: fn(&HookedLayer) -> &Tensor| {
                Tensor::cat(&passed.iter().map(|pack| part(&pack[l])).collect::<Vec<_>>(), 0)
            };
            Ok(HookedLayer {
                resid_pre: all(|layer| &layer.resid_pre)?,
                resid_mid: all(|layer| &layer.resid_mid)?,
                z: all(|layer| &layer.z)?,
                x2: all(|layer| &layer.x2)?,
                mlp_out: all(|layer| &layer.mlp_out)?,
            })
        };
        let layers = (0..model.sizes.layers).map(together).collect::<Result<_>>()?;
        let starts: Vec<usize> = lengths
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end - length)
            })
            .collect();
        let rows = 0..lengths.iter().sum::<usize>() as u32;
        let is_bos = |row: &u32| starts.binary_search(&(*row as usize)).is_ok();
        let behind_bos: Vec<u32> = rows.clone().filter(|row| !is_bos(row)).collect();
        let tried: Vec<u32> = behind_bos.iter().copied().take(TOKENS).collect();
        let not_tried = rows.filter(|row| tried.binary_search(row).is_err()).collect();
        let half = contexts.len().div_ceil(2);
        let mut sample =
            Sample { contexts, starts, layers, behind_bos, tried, not_tried, half, loss: 0.0 };
        let post = Tensor::cat(&posts, 0)?;
        sample.loss = sample.losses(|rows, tokens| {
            model.losses_from(post.narrow(0, rows.start, rows.len())?, model.sizes.layers, tokens)
        })?;
        Ok(sample)
    }

    /// Rows that readings are tried on, of `[ΣT, …]`.
    pub(super) fn tried(&self, all: &Tensor) -> Result<Tensor> {
        rows_of(all, &self.tried)
    }

    /// All other rows.
    pub(super) fn not_tried(&self, all: &Tensor) -> Result<Tensor> {
        rows_of(all, &self.not_tried)
    }

    /// All rows but those of BOS.
    pub(super) fn behind_bos(&self, all: &Tensor) -> Result<Tensor> {
        rows_of(all, &self.behind_bos)
    }

    /// Summed loss of the model, on the half that losses are measured on.
    pub(super) fn loss(&self) -> f64 {
        self.loss
    }

    /// Tokens of that half that are predicted.
    pub(super) fn predicted(&self) -> usize {
        self.contexts[..self.half].iter().map(|tokens| tokens.len() - 1).sum()
    }

    /// Summed loss there with a hook held at `value [ΣT, D]`. Nothing before the hook differs from
    /// the clean pass.
    pub(super) fn loss_with(&self, model: &Gpt2, id: DictionaryId, value: &Tensor) -> Result<f64> {
        let (l, layer) = (id.layer, &self.layers[id.layer]);
        self.losses(|rows, tokens| {
            let of = |all: &Tensor| all.narrow(0, rows.start, rows.len());
            let x = match id.kind {
                Kind::Attention => model
                    .after_mlp(l, model.after_attention(l, &of(&layer.resid_pre)?, &of(value)?)?)?,
                Kind::Mlp => (of(&layer.resid_mid)? + of(value)?)?,
            };
            model.losses_from(x, l + 1, tokens)
        })
    }

    /// Sums losses over the half that they are measured on, in the order of the contexts; `of` gets
    /// the rows and the tokens of some.
    fn losses(
        &self,
        of: impl Fn(std::ops::Range<usize>, &[&[u32]]) -> Result<Vec<f64>> + Sync,
    ) -> Result<f64> {
        let half = &self.contexts[..self.half];
        let lengths: Vec<usize> = half.iter().map(Vec::len).collect();
        let one = |pack: &std::ops::Range<usize>| {
            let tokens: Vec<&[u32]> = half[pack.clone()].iter().map(Vec::as_slice).collect();
            let start = self.starts[pack.start];
            of(start..start + tokens.iter().map(|tokens| tokens.len()).sum::<usize>(), &tokens)
        };
        let each = packs(&lengths, CONTEXTS).par_iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(each.into_iter().flatten().sum())
    }
}
