//! What the hooks of one prompt are made of: dictionary features, or the model's own neurons.

use super::Gradient;
use crate::circuit::faithful::components;
use crate::circuit::faithful::features::{FeatureAblation, picked};
use crate::circuit::replacement::Pass;
use crate::dictionary::Rule;
use crate::error::Result;
use crate::ids::{DictionaryId, FeatureId, Kind};
use crate::model::gelu_and_slope;
use candle_core::{DType, Tensor};
use std::collections::BTreeSet;

/// Which parts are run.
#[derive(Clone, Copy)]
pub enum Basis<'a> {
    /// Features that are active somewhere in the clean prompt or in what stands in for it.
    Candidates(&'a Pass),
    /// Every feature.
    Every,
    /// Some features only; all others stay at what stands in for them.
    Of(&'a BTreeSet<FeatureId>),
}

impl PartialHooks {
    /// Runs so much of each part.
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn weigh(&mut self, weight: impl Fn(FeatureId) -> f64) -> Result<()> {
        for parts in &mut self.parts {
            let of = |&name: &u32| weight(FeatureId { dictionary: parts.id, index: name as usize });
            parts.weigh(parts.names.iter().map(of).collect())?;
        }
        Ok(())
    }

    /// Runs these parts only.
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn only(&mut self, circuit: &BTreeSet<FeatureId>) -> Result<()> {
        self.weigh(|part| f64::from(u8::from(circuit.contains(&part))))
    }
}

/// How parts are active.
pub(super) enum Activation {
    Rule(Rule),
    /// Units of an MLP.
    Gelu,
}

/// One hook of one prompt.
pub struct Parts {
    /// The dictionary of the hook.
    pub id: DictionaryId,
    /// The parts' numbers: of features in their dictionary, of MLP units in their layer, of columns
    /// of `z`.
    pub names: Vec<u32>,
    /// `[n, d_in]`, `[n]`; none where the parts are the columns of the hook itself.
    pub(super) reads: Option<(Tensor, Tensor, Activation)>,
    /// `[n, d_out]`; none where the parts are the columns of the hook itself.
    pub(super) writes: Option<Tensor>,
    /// What stands in for the parts, `[T, n]`
    pub(super) instead: Tensor,
    /// What the hook holds when all is replaced, `[T, d_out]`
    pub whole: Tensor,
    /// How much of each part is run, `[n]`; none where all of each is.
    pub(super) weights: Option<Tensor>,
}

/// The hooks of one prompt, in the order in which the model comes to them.
pub struct PartialHooks {
    /// One for each hook.
    pub parts: Vec<Parts>,
}

impl Gradient<'_> {
    /// The features of a prompt, laid out.
    ///
    /// # Errors
    /// When a dictionary cannot be read.
    pub fn hooks(&self, basis: Basis, ablation_value: &FeatureAblation) -> Result<PartialHooks> {
        let ids = DictionaryId::all(self.model.sizes.layers);
        Ok(PartialHooks {
            parts: ids.map(|id| self.features(id, basis, ablation_value)).collect::<Result<_>>()?,
        })
    }

    fn features(
        &self,
        id: DictionaryId,
        basis: Basis,
        ablation_value: &FeatureAblation,
    ) -> Result<Parts> {
        let dictionary = self.replacement.dictionary(id);
        let (r, whole) = ablation_value.held(id);
        let chosen: Vec<usize> = match basis {
            // A top-k needs all features to know any.
            _ if dictionary.needs_all() => (0..dictionary.width()).collect(),
            Basis::Every => (0..dictionary.width()).collect(),
            Basis::Candidates(clean) => {
                let both = clean.active(id.kind, id.layer).iter().chain(r).flatten();
                both.map(|(f, _)| *f as usize).collect::<BTreeSet<_>>().into_iter().collect()
            }
            Basis::Of(some) => {
                some.iter().filter(|f| f.dictionary == id).map(|f| f.index).collect()
            }
        };
        let encoder = dictionary.select(&chosen)?;
        let names: Vec<u32> = chosen.iter().map(|&f| f as u32).collect();
        let instead: Vec<f32> = r.iter().flat_map(|row| picked(row, &chosen)).collect();
        let device = whole.device();
        let rows = self.replacement.write_rows(id, &chosen)?;
        let to = |x: &Tensor| x.to_dtype(self.dtype);
        Ok(Parts {
            id,
            reads: Some((to(&encoder.w)?, to(&encoder.bias)?, Activation::Rule(encoder.rule))),
            writes: Some(to(&Tensor::from_vec(
                rows,
                (chosen.len(), dictionary.b_out().len()),
                device,
            )?)?),
            instead: to(&Tensor::from_vec(instead, (r.len(), chosen.len()), device)?)?,
            whole: to(whole)?,
            names,
            weights: None,
        })
    }

    /// The neurons of a prompt: units of MLPs and columns of `z`, with their means over corrupted
    /// prompts.
    pub fn neurons(&self, ablation_value: &components::Neurons) -> Result<PartialHooks> {
        let to = |x: &Tensor| x.to_dtype(self.dtype);
        let one = |id: DictionaryId| -> Result<Parts> {
            let layer = &self.model.layers[id.layer];
            let (z, units, mlp_out) = &ablation_value.layers[id.layer];
            Ok(match id.kind {
                Kind::Attention => Parts {
                    id,
                    names: (0..z.dim(1)? as u32).collect(),
                    reads: None,
                    writes: None,
                    instead: to(z)?,
                    whole: to(z)?,
                    weights: None,
                },
                Kind::Mlp => Parts {
                    id,
                    names: (0..units.dim(1)? as u32).collect(),
                    reads: Some((layer.w_in.t()?, layer.b_in.clone(), Activation::Gelu)),
                    writes: Some(layer.w_out.clone()),
                    instead: to(units)?,
                    whole: to(mlp_out)?,
                    weights: None,
                },
            })
        };
        Ok(PartialHooks {
            parts: DictionaryId::all(self.model.sizes.layers).map(one).collect::<Result<_>>()?,
        })
    }
}

impl Parts {
    /// Runs so much of each part: a number for each of `names`.
    ///
    /// # Errors
    /// When they are not as many.
    pub fn weigh(&mut self, weights: Vec<f64>) -> Result<()> {
        let n = self.names.len();
        self.weights =
            Some(Tensor::from_vec(weights, n, self.whole.device())?.to_dtype(self.whole.dtype())?);
        Ok(())
    }

    /// Parts `[T, n]`, each as much as is run of it.
    pub(super) fn weighted(&self, parts: Tensor) -> Result<Tensor> {
        match &self.weights {
            Some(weights) => Ok(parts.broadcast_mul(weights)?),
            None => Ok(parts),
        }
    }

    /// What is read, `[T, d_in]` → activations and their slopes, `[T, n]` each.
    pub(super) fn encode(&self, x: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let Some((w, bias, activation)) = &self.reads else { return Ok((x.clone(), None)) };
        let pre = x.matmul(&w.t()?)?.broadcast_add(bias)?;
        match activation {
            Activation::Rule(rule) => {
                let mask = mask(&pre, rule)?;
                Ok(((pre * &mask)?, Some(mask)))
            }
            Activation::Gelu if pre.dtype() == DType::F32 => {
                let (a, slope) = gelu_and_slope(&pre)?;
                Ok((a, Some(slope)))
            }
            Activation::Gelu => {
                let shape = pre.shape().clone();
                let (a, slope): (Vec<f64>, Vec<f64>) =
                    super::numbers(&pre)?.into_iter().map(gelu).unzip();
                let to = |x: Vec<f64>| {
                    Tensor::from_vec(x, shape.clone(), pre.device())?.to_dtype(pre.dtype())
                };
                Ok((to(a)?, Some(to(slope)?)))
            }
        }
    }

    /// Parts `[T, n]` → what they write into the hook, `[T, d_out]`
    pub(super) fn write(&self, parts: &Tensor) -> Result<Tensor> {
        match &self.writes {
            Some(_) if self.names.is_empty() => Ok(self.whole.zeros_like()?),
            Some(w) => Ok(parts.matmul(w)?),
            None => Ok(parts.clone()),
        }
    }

    /// The gradient at the hook, `[T, d_out]` → at each part, `[T, n]`
    pub(super) fn at_parts(&self, g: &Tensor) -> Result<Tensor> {
        match &self.writes {
            Some(_) if self.names.is_empty() => Ok(self.instead.zeros_like()?),
            Some(w) => Ok(g.matmul(&w.t()?)?),
            None => Ok(g.clone()),
        }
    }

    /// The gradient at one row of the hook, `[1, d_out]` → at each part, `[1, n]`
    pub(super) fn at_parts_of_row(&self, g: &Tensor) -> Result<Tensor> {
        match self.names.is_empty() {
            true => Ok(self.instead.narrow(0, 0, 1)?.zeros_like()?),
            false => self.at_parts(g),
        }
    }

    /// The gradient at each part's pre-activation, `[T, n]` → at what is read, `[T, d_in]`
    pub(super) fn at_read(&self, pre: &Tensor, like: &Tensor) -> Result<Tensor> {
        match &self.reads {
            Some(_) if self.names.is_empty() => Ok(like.zeros_like()?),
            Some((w, ..)) => Ok(pre.matmul(w)?),
            None => Ok(pre.clone()),
        }
    }
}

/// 1 where a part is active, `[T, n]`
fn mask(pre: &Tensor, rule: &Rule) -> Result<Tensor> {
    let (t, n) = pre.dims2()?;
    let mut rows: Vec<f32> = pre.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    if n > 0 {
        rows.chunks_exact_mut(n).for_each(|row| rule.apply(row));
    }
    rows.iter_mut().for_each(|x| *x = f32::from(u8::from(*x != 0.0)));
    Ok(Tensor::from_vec(rows, (t, n), pre.device())?.to_dtype(pre.dtype())?)
}

/// GPT-2's GELU and its slope.
fn gelu(x: f64) -> (f64, f64) {
    const TWICE_ROOT: f64 = 1.595_769_121_605_731;
    let gate = 1.0 / (1.0 + (-TWICE_ROOT * (x + 0.044_715 * x * x * x)).exp());
    let inner = TWICE_ROOT * (1.0 + 3.0 * 0.044_715 * x * x);
    (x * gate, gate + x * gate * (1.0 - gate) * inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_gelu_is_its_derivative() {
        for i in -60..60 {
            let (x, h) = (f64::from(i) / 10.0, 1e-5);
            let difference = (gelu(x + h).0 - gelu(x - h).0) / (2.0 * h);
            assert!(
                (gelu(x).1 - difference).abs() < 1e-8,
                "{x}: {} and not {difference}",
                gelu(x).1
            );
        }
    }
}
