//! A vector added to the residual stream at one token: what the unembedding then reads there.
//!
//! No earlier token sees it, so only that token's row is run again, through the later layers, with
//! the clean keys and values of the tokens before it and its own new ones. The clean contexts and
//! all rows go through each layer side by side, and nothing is kept of a layer that is through.
//! Letters as in `gpt2`; `R` rows.

use super::{Attended, Gpt2, Rows};
use crate::error::{Result, hinted};
use candle_core::Tensor;
use rayon::prelude::*;

/// The part of a block behind which something is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// After the attention.
    Attention,
    /// After the MLP, at the end of the block.
    Mlp,
}

/// A vector that is added to the residual stream at one token.
#[derive(Clone, Copy, Debug)]
pub struct Added<'a> {
    /// Which of the contexts.
    pub context: usize,
    /// Position of the token in its context.
    pub position: usize,
    /// Layer of the block, from 0.
    pub layer: usize,
    /// After which part of the block.
    pub behind: Behind,
    /// `[D]`
    pub vector: &'a [f32],
}

/// Keys and values of a clean context, `[H, T, K]` each.
struct Memory {
    tokens: usize,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// The rows that have something added to them so far.
#[derive(Default)]
struct Moved {
    /// The number of each row's [`Added`].
    which: Vec<usize>,
    /// `[R, D]`; none before the first.
    x: Option<Tensor>,
}

impl Gpt2 {
    /// Change of what the unembedding reads at each one's token, `x̂' − x̂`, `[R, D]`. Times `W_U`
    /// it is the change of the logits there, whose mean over the vocabulary is 0.
    ///
    /// # Errors
    /// When a context does not fit the model, nothing is added, or something behind a layer that
    /// the model has not.
    pub fn change_by(&self, contexts: &[&[u32]], added: &[Added]) -> Result<Tensor> {
        let rows = Rows::of(contexts);
        let (mut x, mut moved) = (self.embed_all(contexts)?, Moved::default());
        for l in 0..self.sizes.layers {
            let attended = self.attend_all(l, &x, &rows)?;
            let z = Tensor::cat(&attended.iter().map(|one| &one.z).collect::<Vec<_>>(), 0)?;
            let mid = self.after_attention(l, &x, &z)?;
            if let Some(own) = &moved.x {
                moved.x = Some(self.after_attention(
                    l,
                    own,
                    &self.looked_back(l, own, &moved.which, added, &attended)?,
                )?);
            }
            moved.enter(&mid, &rows, added, |one: &Added| {
                one.layer == l && one.behind == Behind::Attention
            })?;
            x = self.after_mlp(l, mid)?;
            moved.x = moved.x.map(|own| self.after_mlp(l, own)).transpose()?;
            moved.enter(&x, &rows, added, |one: &Added| {
                one.layer == l && one.behind == Behind::Mlp
            })?;
        }
        let in_order = moved.in_order(added.len())?;
        Ok((self.x2(&in_order)? - self.x2(&rows.at(&x, added)?)?)?)
    }

    /// Residual stream before an MLP → after it, `[T, D]`
    pub(crate) fn after_mlp(&self, l: usize, mid: Tensor) -> Result<Tensor> {
        self.onto_mlp(l, &mid, &self.x2(&mid)?)
    }

    /// What the heads of a layer give to rows, `x [R, D]` → `z [R, H·K]`.
    fn looked_back(
        &self,
        l: usize,
        x: &Tensor,
        which: &[usize],
        added: &[Added],
        attended: &[Attended],
    ) -> Result<Tensor> {
        let (r, d) = x.dims2()?;
        let memories = attended.iter().map(Memory::of).collect::<Result<Vec<_>>>()?;
        let qkv: Vec<f32> = self.qkv(l, x)?.1.flatten_all()?.to_vec1()?;
        let row = |(own, &i): (&[f32], &usize)| {
            self.gathered(own, &memories[added[i].context], added[i].position)
        };
        let z: Vec<Vec<f32>> = qkv.par_chunks_exact(3 * d).zip(which).map(row).collect();
        Ok(Tensor::from_vec(z.concat(), (r, d), x.device())?)
    }

    /// What the heads at a position gather with the query, key and value `own [3D]` there, `[H·K]`.
    fn gathered(&self, own: &[f32], memory: &Memory, position: usize) -> Vec<f32> {
        let (d, k) = (self.sizes.d_model, self.sizes.d_head);
        let mut z = vec![0.0; d];
        for (h, z) in z.chunks_exact_mut(k).enumerate() {
            let part = |block: usize| &own[block * d + h * k..][..k];
            let before = h * memory.tokens * k..(h * memory.tokens + position) * k;
            let keys = memory.k[before.clone()].chunks_exact(k).chain([part(1)]);
            let values = memory.v[before].chunks_exact(k).chain([part(2)]);
            let scores: Vec<f32> =
                keys.map(|key| product(part(0), key) / (k as f32).sqrt()).collect();
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f32 = weights.iter().sum();
            for (weight, value) in weights.iter().zip(values) {
                z.iter_mut().zip(value).for_each(|(z, v)| *z += weight / sum * v);
            }
        }
        z
    }
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Memory {
    fn of(attended: &Attended) -> Result<Memory> {
        let flat = |x: &Tensor| x.flatten_all()?.to_vec1();
        Ok(Memory { tokens: attended.k.dim(1)?, k: flat(&attended.k)?, v: flat(&attended.v)? })
    }
}

impl Moved {
    /// Takes up the rows to which something is added here, from the clean stream `[ΣT, D]`.
    fn enter(
        &mut self,
        clean: &Tensor,
        rows: &Rows,
        added: &[Added],
        here: impl Fn(&Added) -> bool,
    ) -> Result<()> {
        let new: Vec<usize> = (0..added.len()).filter(|&i| here(&added[i])).collect();
        if new.is_empty() {
            return Ok(());
        }
        let entering: Vec<Added> = new.iter().map(|&i| added[i]).collect();
        let vectors: Vec<f32> = entering.iter().flat_map(|one| one.vector).copied().collect();
        let own = rows.at(clean, &entering)?;
        let own = (&own + Tensor::from_vec(vectors, own.shape(), clean.device())?)?;
        self.x = Some(match self.x.take() {
            Some(x) => Tensor::cat(&[&x, &own], 0)?,
            None => own,
        });
        self.which.extend(new);
        Ok(())
    }

    /// Rows in the order of what was added.
    fn in_order(&self, n: usize) -> Result<Tensor> {
        let mut place = vec![0u32; n];
        (0..).zip(&self.which).for_each(|(row, &i)| place[i] = row);
        let Some(x) = self.x.as_ref().filter(|_| self.which.len() == n) else {
            return Err(hinted(
                "something is to be added behind no layer",
                "name layers that the model has",
            ));
        };
        Ok(x.index_select(&Tensor::new(place, x.device())?, 0)?)
    }
}

impl Rows {
    /// The rows at which something is added, `[R, D]`.
    fn at(&self, all: &Tensor, added: &[Added]) -> Result<Tensor> {
        let rows = added.iter().map(|one| (self.0[one.context].0 + one.position) as u32);
        Ok(all.index_select(&Tensor::from_iter(rows, all.device())?, 0)?)
    }
}
