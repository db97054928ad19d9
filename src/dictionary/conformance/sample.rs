//! What clean passes leave at the tokens that dictionaries are measured on, and losses of passes
//! that go on from there.

use super::no_context;
use super::places::{CUT, Places};
use crate::error::Result;
use crate::ids::{DictionaryId, Kind};
use crate::model::{Gpt2, HookedLayer, Surprise, packs};
use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::Range;

/// Contexts of a pack at most.
const CONTEXTS: usize = 16;

/// Clean passes over some contexts, a token a row (see `places`).
pub struct Sample {
    /// The beginnings of the contexts that losses are of.
    begun: Vec<Vec<u32>>,
    pub(super) places: Places,
    /// Residual streams of the rows that losses are of, all else of every row.
    pub(super) layers: Vec<HookedLayer>,
    /// By context that losses are of, summed over its tokens but the first.
    losses: Vec<f64>,
}

impl HookedLayer {
    /// What a dictionary reads, and what it reconstructs.
    pub(super) fn of(&self, kind: Kind) -> (&Tensor, &Tensor) {
        match kind {
            Kind::Attention => (&self.z, &self.z),
            Kind::Mlp => (&self.x2, &self.mlp_out),
        }
    }

    /// The rows that losses are of, and the others that are kept.
    fn parts(self, [losses, others]: &[Tensor; 2]) -> Result<[HookedLayer; 2]> {
        let part = |residual: &Tensor, all: &Tensor| -> Result<HookedLayer> {
            Ok(HookedLayer {
                resid_pre: self.resid_pre.index_select(residual, 0)?,
                resid_mid: self.resid_mid.index_select(residual, 0)?,
                z: self.z.index_select(all, 0)?,
                x2: self.x2.index_select(all, 0)?,
                mlp_out: self.mlp_out.index_select(all, 0)?,
            })
        };
        Ok([part(losses, losses)?, part(&losses.narrow(0, 0, 0)?, others)?])
    }
}

fn rows_of(all: &Tensor, rows: &[u32]) -> Result<Tensor> {
    Ok(all.index_select(&Tensor::new(rows, all.device())?, 0)?)
}

impl Sample {
    /// Tokens of a context that losses are of at most.
    pub const CUT: usize = CUT;

    /// Runs the model over contexts (token ids, BOS first), in a drawn order; those of one token
    /// are passed over.
    ///
    /// # Errors
    /// When no context has two tokens.
    pub fn new(model: &Gpt2, contexts: &[Vec<u32>]) -> Result<Sample> {
        let contexts: Vec<&[u32]> =
            contexts.iter().map(Vec::as_slice).filter(|tokens| tokens.len() > 1).collect();
        if contexts.is_empty() {
            return Err(no_context());
        }
        let lengths: Vec<usize> = contexts.iter().map(|tokens| tokens.len()).collect();
        let places = Places::of(&lengths);
        let passed = packs(&lengths, CONTEXTS)
            .into_par_iter()
            .map(|pack| Passed::of(model, &contexts, pack, &places))
            .collect::<Result<Vec<_>>>()?;
        let layers =
            (0..model.sizes.layers).map(|l| together(&passed, l)).collect::<Result<_>>()?;
        let post = passed.iter().map(|pack| &pack.post).collect::<Vec<_>>();
        let post = Tensor::cat(&post, 0)?;
        let begun = contexts[..places.of_losses.len() - 1].iter();
        let begun = begun.map(|tokens| tokens[..CUT.min(tokens.len())].to_vec()).collect();
        let mut sample = Sample { begun, places, layers, losses: Vec::new() };
        sample.losses = sample.losses_of(|rows, tokens| {
            let post = post.narrow(0, rows.start, rows.len())?;
            model.surprises_from(post, model.sizes.layers, tokens)
        })?;
        Ok(sample)
    }

    /// Rows that readings are tried on, of those kept.
    pub(super) fn tried(&self, all: &Tensor) -> Result<Tensor> {
        rows_of(all, &self.places.tried)
    }

    /// All other rows.
    pub(super) fn not_tried(&self, all: &Tensor) -> Result<Tensor> {
        rows_of(all, &self.places.not_tried)
    }

    /// Rows that are measured.
    pub(super) fn measured(&self, all: &Tensor) -> Result<Tensor> {
        rows_of(all, &self.places.measured)
    }

    /// Summed loss of the model, by context that losses are of.
    pub(super) fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// Tokens of them that are predicted.
    pub(super) fn predicted(&self) -> usize {
        self.begun.iter().map(|tokens| tokens.len() - 1).sum()
    }

    /// Summed loss by context with a hook held at `value`, of every row. Nothing before the hook
    /// differs from the clean pass.
    pub(super) fn losses_with(
        &self,
        model: &Gpt2,
        id: DictionaryId,
        value: &Tensor,
    ) -> Result<Vec<f64>> {
        let (l, layer) = (id.layer, &self.layers[id.layer]);
        self.losses_of(|rows, tokens| {
            let of = |all: &Tensor| all.narrow(0, rows.start, rows.len());
            let x = match id.kind {
                Kind::Attention => model
                    .after_mlp(l, model.after_attention(l, &of(&layer.resid_pre)?, &of(value)?)?)?,
                Kind::Mlp => (of(&layer.resid_mid)? + of(value)?)?,
            };
            model.surprises_from(x, l + 1, tokens)
        })
    }

    /// Losses by context; `of` gets the rows and the tokens of some.
    fn losses_of(
        &self,
        of: impl Fn(Range<usize>, &[&[u32]]) -> Result<Vec<Surprise>> + Sync,
    ) -> Result<Vec<f64>> {
        let lengths: Vec<usize> = self.begun.iter().map(Vec::len).collect();
        let one = |pack: &Range<usize>| {
            let tokens: Vec<&[u32]> = self.begun[pack.clone()].iter().map(Vec::as_slice).collect();
            of(self.places.of_losses[pack.start]..self.places.of_losses[pack.end], &tokens)
        };
        let each = packs(&lengths, CONTEXTS).par_iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(each.into_iter().flatten().map(|surprise| surprise.loss).collect())
    }
}

/// What is kept of the passes over a pack of contexts.
struct Passed {
    /// By layer, the rows that losses are of and the others.
    layers: Vec<[HookedLayer; 2]>,
    /// The residual stream after the last layer, of the rows that losses are of.
    post: Tensor,
}

impl Passed {
    fn of(
        model: &Gpt2,
        contexts: &[&[u32]],
        pack: Range<usize>,
        places: &Places,
    ) -> Result<Passed> {
        let with_losses = *places.of_losses.last().unwrap_or(&0);
        let (losses, others) = places.rows.split_at(with_losses);
        let index = |rows: &[(usize, usize)]| {
            let before = |context: usize| -> usize {
                contexts[pack.start..context].iter().map(|tokens| tokens.len()).sum()
            };
            let own = rows.iter().filter(|(context, _)| pack.contains(context));
            let rows = own.map(|&(context, position)| (before(context) + position) as u32);
            Tensor::from_iter(rows, model.w_e.device())
        };
        let kept = [index(losses)?, index(others)?];
        let (layers, post) = model.hooked(&contexts[pack.clone()], |layer| layer.parts(&kept))?;
        Ok(Passed { layers, post: post.index_select(&kept[0], 0)? })
    }
}

/// A layer of all packs: the rows that losses are of first.
fn together(passed: &[Passed], l: usize) -> Result<HookedLayer> {
    let all = |part: fn(&HookedLayer) -> &Tensor| {
        let of = |kept: usize| passed.iter().map(move |pack| part(&pack.layers[l][kept]));
        Tensor::cat(&of(0).chain(of(1)).collect::<Vec<_>>(), 0)
    };
    Ok(HookedLayer {
        resid_pre: all(|layer| &layer.resid_pre)?,
        resid_mid: all(|layer| &layer.resid_mid)?,
        z: all(|layer| &layer.z)?,
        x2: all(|layer| &layer.x2)?,
        mlp_out: all(|layer| &layer.mlp_out)?,
    })
}
