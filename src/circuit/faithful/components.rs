//! Circuits of heads and MLPs: each part outside is held at what stands in for it, at every
//! position.

use super::{Ablate, Case, run_side_by_side, shared, sources, stacked};
use crate::error::Result;
use crate::ids::Component;
use crate::model::{Abreast, Gpt2};
use candle_core::{DType, Tensor};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What stands in for each part of the model in one prompt.
pub struct ComponentAblation {
    /// By layer, `[T, H·K]`
    pub z: Vec<Tensor>,
    /// By layer, `[T, D]`
    pub mlp_out: Vec<Tensor>,
}

/// What stands in for heads and MLPs, a case each; cases of the same sources share it.
pub fn ablation_values(
    model: &Gpt2,
    cases: &[Case],
    ablate: Ablate,
    seed: u64,
) -> Result<Vec<Arc<ComponentAblation>>> {
    let one = |&(sources, tokens): &(&[usize], usize)| match sources {
        [] => zero(model, tokens),
        some => mean_of(model, &some.iter().map(|&i| cases[i].corrupted).collect::<Vec<_>>()),
    };
    let sources = sources(cases, ablate, seed)?;
    shared(&sources, cases, |wanted| wanted.par_iter().map(one).collect())
}

fn zero(model: &Gpt2, tokens: usize) -> Result<ComponentAblation> {
    let nothing = Tensor::zeros((tokens, model.sizes.d_model), DType::F32, model.w_e.device())?;
    let layers = vec![nothing; model.sizes.layers];
    Ok(ComponentAblation { z: layers.clone(), mlp_out: layers })
}

/// The mean over passes of prompts that are all of one length.
fn mean_of(model: &Gpt2, prompts: &[&[u32]]) -> Result<ComponentAblation> {
    // Only what is averaged is kept of each pass.
    let written = |tokens: &&[u32]| -> Result<Vec<(Tensor, Tensor)>> {
        Ok(model
            .forward(tokens)?
            .layers
            .into_iter()
            .map(|layer| (layer.z, layer.mlp_out))
            .collect())
    };
    let passes = prompts.par_iter().map(written).collect::<Result<Vec<_>>>()?;
    let mean = |all: Vec<&Tensor>| -> Result<Tensor> { Ok(Tensor::stack(&all, 0)?.mean(0)?) };
    let layer = |l: usize| -> Result<(Tensor, Tensor)> {
        Ok((
            mean(passes.iter().map(|pass| &pass[l].0).collect())?,
            mean(passes.iter().map(|pass| &pass[l].1).collect())?,
        ))
    };
    let layers = (0..model.sizes.layers).into_par_iter().map(layer);
    let (z, mlp_out) = layers.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    Ok(ComponentAblation { z, mlp_out })
}

/// What stands in for the model's own neurons in one prompt: their means over corrupted prompts.
pub struct Neurons {
    /// By layer: `z` `[T, H·K]`, the MLP's units `[T, M]` and what it writes `[T, D]`
    pub layers: Vec<(Tensor, Tensor, Tensor)>,
}

/// The means of neurons over corrupted prompts, a case each; cases of the same template share them.
pub fn neurons(model: &Gpt2, cases: &[Case]) -> Result<Vec<Arc<Neurons>>> {
    let one = |&(sources, _): &(&[usize], usize)| -> Result<Neurons> {
        let written = |&i: &usize| -> Result<Vec<(Tensor, Tensor, Tensor)>> {
            let layers = model.forward(cases[i].corrupted)?.layers.into_iter().enumerate();
            layers
                .map(|(l, layer)| Ok((layer.z, model.units(l, &layer.x2)?, layer.mlp_out)))
                .collect()
        };
        let passes = sources.par_iter().map(written).collect::<Result<Vec<_>>>()?;
        let mean = |of: fn(&(Tensor, Tensor, Tensor)) -> &Tensor, l: usize| -> Result<Tensor> {
            let all: Vec<&Tensor> = passes.iter().map(|pass| of(&pass[l])).collect();
            Ok(Tensor::stack(&all, 0)?.mean(0)?)
        };
        let layer = |l: usize| Ok((mean(|p| &p.0, l)?, mean(|p| &p.1, l)?, mean(|p| &p.2, l)?));
        let layers = (0..model.sizes.layers).into_par_iter().map(layer);
        Ok(Neurons { layers: layers.collect::<Result<_>>()? })
    };
    let sources = sources(cases, Ablate::Mean, 0)?;
    shared(&sources, cases, |wanted| wanted.par_iter().map(one).collect())
}

/// Ones in the columns of the heads that are kept, `[1, H·K]`
fn mask(model: &Gpt2, kept: impl Fn(&usize) -> bool, like: &Tensor) -> Result<Tensor> {
    let (heads, k) = (model.sizes.heads, model.sizes.d_head);
    let columns: Vec<f32> =
        (0..heads).flat_map(|h| vec![f32::from(u8::from(kept(&h))); k]).collect();
    Ok(Tensor::from_vec(columns, (1, heads * k), like.device())?)
}

/// The metric of each case with every component outside `keep` ablated; each is run.
pub fn values(
    model: &Gpt2,
    cases: &[Case],
    keep: &BTreeSet<Component>,
    ablation_values: &[Arc<ComponentAblation>],
) -> Result<Vec<f64>> {
    run_side_by_side(model, cases, |places| Kept {
        model,
        keep,
        ablation_values: &ablation_values[places],
    })
}

/// Runs the components that are kept, and puts what stands in, by prompt, in the place of the others.
struct Kept<'a> {
    model: &'a Gpt2,
    keep: &'a BTreeSet<Component>,
    ablation_values: &'a [Arc<ComponentAblation>],
}

impl Abreast for Kept<'_> {
    fn z(&self, layer: usize, z: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        let kept = |head: &usize| self.keep.contains(&Component::Head { layer, head: *head });
        let heads = (0..self.model.sizes.heads).filter(kept).count();
        if heads == self.model.sizes.heads {
            return z();
        }
        let values = stacked(self.model, layer, self.ablation_values.iter().map(|v| &v.z[layer]))?;
        if heads == 0 {
            return Ok(values);
        }
        let mask = mask(self.model, kept, &values)?.broadcast_as(values.shape())?;
        Ok(mask.to_dtype(DType::U8)?.where_cond(&z()?, &values)?)
    }

    fn mlp_out(
        &self,
        layer: usize,
        _x2: &Tensor,
        mlp_out: &dyn Fn() -> Result<Tensor>,
    ) -> Result<Tensor> {
        if self.keep.contains(&Component::Mlp { layer }) {
            return mlp_out();
        }
        stacked(self.model, layer, self.ablation_values.iter().map(|v| &v.mlp_out[layer]))
    }
}
