//! Circuits of dictionary features: every other feature of every dictionary is held at what stands
//! in for it, at every position; what a dictionary misses of its hook, the error, is left as it is
//! or ablated too.
//!
//! With `a` the activations of the running pass, `r` those that stand in, `W` the write directions
//! and `e` the error, a hook that reads `x = W·a + b + e` becomes, for the features `C`: inside,
//! errors kept `x − W·a + W·r + W_C·(a − r)`; inside, errors ablated `W·r + b + e_r + W_C·(a − r)`;
//! outside, errors kept `x − W_C·(a − r)`; outside, errors ablated `W·a + b + e_r − W_C·(a − r)`.
//! Only the first and the last need whole dictionaries; the others encode the features of `C`
//! alone. Of `a` and `r` only what is not 0 is multiplied. Heads and MLPs of which nothing is read
//! are not run, the first hook is computed once for all runs, and of the last layer only the last
//! position is run.

use super::{Ablate, Case, run_side_by_side, shared, sources, stacked};
use crate::circuit::replacement::encoded_rows;
use crate::circuit::{PROMPTS, ReplacementModel};
use crate::dictionary::{Active, Dictionary, activation};
use crate::error::Result;
use crate::ids::{DictionaryId, FeatureId, Kind};
use crate::model::Abreast;
use candle_core::{D, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What becomes of the dictionaries' errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// They stay as they are in the running pass.
    Kept,
    /// They are replaced with what stands in for them.
    Ablated,
}

impl Errors {
    /// The word in tables.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Errors::Kept => "kept",
            Errors::Ablated => "ablated",
        }
    }
}

/// Which features go on running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those of the circuit.
    Inside,
    /// All others.
    Outside,
}

impl Side {
    /// The word in tables.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Side::Inside => "inside",
            Side::Outside => "outside",
        }
    }
}

/// What stands in for one dictionary's features and error in one prompt.
struct Hook {
    /// By position, the features above zero.
    active: Vec<Active>,
    /// `W·r`, `[T, d_out]`
    written: Tensor,
    /// `W·r + b + e_r`, `[T, d_out]`
    whole: Tensor,
}

/// What stands in for everything that dictionaries describe, in one prompt; by layer.
pub struct FeatureAblation {
    attention: Vec<Hook>,
    mlp: Vec<Hook>,
    /// What tokens are embedded as in the prompts that it is made of, the mean, `[T, D]`; none
    /// where it is made of none. Embeddings are never replaced: this tells which tokens of a prompt
    /// are its own.
    tokens: Option<Tensor>,
}

impl FeatureAblation {
    fn hook(&self, id: DictionaryId) -> &Hook {
        match id.kind {
            Kind::Attention => &self.attention[id.layer],
            Kind::Mlp => &self.mlp[id.layer],
        }
    }

    /// What a dictionary's features are replaced with, by position, and `W·r + b + e_r`, `[T,
    /// d_out]`.
    pub(crate) fn held(&self, id: DictionaryId) -> (&[Active], &Tensor) {
        let hook = self.hook(id);
        (&hook.active, &hook.whole)
    }

    /// How a prompt's token embeddings differ from those of what stands in, `[T, D]`.
    pub(crate) fn own_tokens(
        &self,
        replacement: &ReplacementModel,
        tokens: &[u32],
    ) -> Result<Option<Tensor>> {
        self.tokens.as_ref().map(|mean| Ok((embedded(replacement, tokens)? - mean)?)).transpose()
    }

    /// What a feature is replaced with at a position.
    pub fn activation(&self, feature: FeatureId, position: usize) -> f32 {
        activation(&self.hook(feature.dictionary).active[position], feature.index as u32)
    }
}

/// What stands in for features, a case each; cases of the same sources share it.
pub fn ablation_values(
    replacement: &ReplacementModel,
    cases: &[Case],
    ablate: Ablate,
    seed: u64,
) -> Result<Vec<Arc<FeatureAblation>>> {
    let prompts = |sources: &[usize]| -> Vec<&[u32]> {
        sources.iter().map(|&i| cases[i].corrupted).collect()
    };
    let sources = sources(cases, ablate, seed)?;
    shared(&sources, cases, |wanted| match ablate {
        Ablate::Zero => wanted.iter().map(|&(_, tokens)| zero(replacement, tokens)).collect(),
        _ => {
            let groups: Vec<_> = wanted.iter().map(|(sources, _)| prompts(sources)).collect();
            means_of(replacement, &groups)
        }
    })
}

fn zero(replacement: &ReplacementModel, tokens: usize) -> Result<FeatureAblation> {
    let hook = |dictionary: &Dictionary| {
        let nothing = vec![Active::new(); tokens];
        let whole = centred(dictionary, dictionary.decode(&nothing)?)?;
        Ok(Hook { active: nothing, written: whole.zeros_like()?, whole })
    };
    Ok(FeatureAblation {
        attention: replacement.attention.iter().map(hook).collect::<Result<_>>()?,
        mlp: replacement.mlp.iter().map(hook).collect::<Result<_>>()?,
        tokens: None,
    })
}

/// Sums over prompts that are all of one length, by dictionary: activations by position, and what
/// the hook holds.
#[derive(Default)]
struct Sum {
    active: Vec<BTreeMap<u32, f64>>,
    whole: Option<Tensor>,
}

impl Sum {
    fn add(&mut self, active: &[Active], whole: &Tensor) -> Result<()> {
        self.active.resize_with(active.len(), BTreeMap::new);
        for (sum, active) in self.active.iter_mut().zip(active) {
            active.iter().for_each(|&(f, a)| *sum.entry(f).or_default() += f64::from(a));
        }
        self.whole = Some(match &self.whole {
            Some(sum) => (sum + whole)?,
            None => whole.clone(),
        });
        Ok(())
    }

    fn mean(self, n: usize, dictionary: &Dictionary) -> Result<Hook> {
        let mean = |sum: BTreeMap<u32, f64>| {
            sum.into_iter().map(|(f, a)| (f, (a / n as f64) as f32)).collect()
        };
        let active: Vec<Active> = self.active.into_iter().map(mean).collect();
        let written = written(dictionary, &active)?;
        let whole = match self.whole {
            Some(sum) => (sum / n as f64)?,
            None => written.clone(),
        };
        Ok(Hook { active, written, whole })
    }
}

/// The means over groups of prompts, those of a group all of one length. Prompts of all groups are
/// run together, [`PROMPTS`] at a time: a dictionary is read once for all of them.
fn means_of(
    replacement: &ReplacementModel,
    groups: &[Vec<&[u32]>],
) -> Result<Vec<FeatureAblation>> {
    let ids: Vec<DictionaryId> = DictionaryId::all(replacement.model.sizes.layers).collect();
    let nothing = || groups.iter().map(|_| Sum::default()).collect::<Vec<_>>();
    let mut sums: Vec<Vec<Sum>> = ids.iter().map(|_| nothing()).collect();
    let all: Vec<(usize, &[u32])> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, prompts)| prompts.iter().map(move |&tokens| (group, tokens)))
        .collect();
    for some in all.chunks(PROMPTS) {
        let tokens: Vec<&[u32]> = some.iter().map(|&(_, tokens)| tokens).collect();
        let passes = replacement.passes(&tokens)?;
        ids.par_iter().zip(&mut sums).try_for_each(|(id, sums)| {
            passes.iter().zip(some).try_for_each(|(pass, &(group, _))| {
                let layer = &pass.trace().layers[id.layer];
                let holds = if id.kind == Kind::Attention { &layer.z } else { &layer.mlp_out };
                sums[group].add(pass.active(id.kind, id.layer), holds)
            })
        })?;
    }
    let means = |(id, sums): (&DictionaryId, Vec<Sum>)| -> Result<Vec<Hook>> {
        let each = sums.into_par_iter().zip(groups);
        each.map(|(sum, group)| sum.mean(group.len(), replacement.dictionary(*id))).collect()
    };
    let hooks = ids.par_iter().zip(sums).map(means).collect::<Result<Vec<_>>>()?;
    let mut hooks: Vec<_> = ids.iter().zip(hooks.into_iter().map(Vec::into_iter)).collect();
    let one = |prompts: &Vec<&[u32]>| -> Result<FeatureAblation> {
        let mut of_kind = |kind: Kind| -> Vec<Hook> {
            let own = hooks.iter_mut().filter(|(id, _)| id.kind == kind);
            own.filter_map(|(_, groups)| groups.next()).collect()
        };
        let (attention, mlp) = (of_kind(Kind::Attention), of_kind(Kind::Mlp));
        let embedded = prompts
            .iter()
            .map(|tokens| embedded(replacement, tokens))
            .collect::<Result<Vec<_>>>()?;
        let tokens = Some(Tensor::stack(&embedded, 0)?.mean(0)?);
        Ok(FeatureAblation { attention, mlp, tokens })
    };
    groups.iter().map(one).collect()
}

/// `W_E` of tokens, `[T, D]`
fn embedded(replacement: &ReplacementModel, tokens: &[u32]) -> Result<Tensor> {
    let w_e = &replacement.model.w_e;
    Ok(w_e.index_select(&Tensor::new(tokens, w_e.device())?, 0)?)
}

/// What an MLP writes is centred in the folded model, and so is what stands for it.
fn centred(dictionary: &Dictionary, rows: Tensor) -> Result<Tensor> {
    match dictionary.id.kind {
        Kind::Attention => Ok(rows),
        Kind::Mlp => Ok(rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?),
    }
}

/// `W·a`, `[T, d_out]`
pub(crate) fn written(dictionary: &Dictionary, active: &[Active]) -> Result<Tensor> {
    let bias = Tensor::new(dictionary.b_out(), &candle_core::Device::Cpu)?;
    centred(dictionary, dictionary.decode(active)?.broadcast_sub(&bias)?)
}

/// Runs cases with the features of a circuit on one side and what stands in for features on the
/// other.
pub struct Runner<'a> {
    /// The model with its dictionaries.
    pub replacement: &'a ReplacementModel,
    /// The prompts.
    pub cases: &'a [Case<'a>],
    /// By case, what stands in for features and errors.
    pub ablation_values: &'a [Arc<FeatureAblation>],
    /// What becomes of the dictionaries' errors.
    pub errors: Errors,
}

impl Runner<'_> {
    /// The metric of each case; each is run.
    pub fn values(&self, circuit: &BTreeSet<FeatureId>, side: Side) -> Result<Vec<f64>> {
        let mut features: BTreeMap<DictionaryId, Vec<usize>> = BTreeMap::new();
        circuit.iter().for_each(|f| features.entry(f.dictionary).or_default().push(f.index));
        let tokens: Vec<&[u32]> = self.cases.iter().map(|case| case.tokens).collect();
        let first = self.replacement.first(&tokens)?;
        run_side_by_side(&self.replacement.model, self.cases, |places| Step {
            replacement: self.replacement,
            ablation_values: &self.ablation_values[places.clone()],
            first: &first.hooks[places],
            features: &features,
            side,
            errors: self.errors,
        })
    }
}

/// What happens at each hook.
struct Step<'a> {
    replacement: &'a ReplacementModel,
    ablation_values: &'a [Arc<FeatureAblation>],
    first: &'a [(Tensor, Vec<Active>)],
    features: &'a BTreeMap<DictionaryId, Vec<usize>>,
    side: Side,
    errors: Errors,
}

impl Abreast for Step<'_> {
    fn z(&self, layer: usize, z: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        let dictionary = &self.replacement.attention[layer];
        if self.is_constant(dictionary) {
            return self.all(dictionary.id, |hook| &hook.whole);
        }
        let z = match self.is_first(dictionary.id) {
            true => stacked(&self.replacement.model, layer, self.first.iter().map(|one| &one.0))?,
            false => z()?,
        };
        self.replaced(dictionary, &z, &|| Ok(z.clone()))
    }

    fn mlp_out(
        &self,
        layer: usize,
        x2: &Tensor,
        mlp_out: &dyn Fn() -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.replaced(&self.replacement.mlp[layer], x2, mlp_out)
    }
}

impl Step<'_> {
    /// What the dictionary reads and what its hook holds, `[R, …]` → what it holds instead.
    fn replaced(
        &self,
        dictionary: &Dictionary,
        read: &Tensor,
        holds: &dyn Fn() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let all = |part: fn(&Hook) -> &Tensor| self.all(dictionary.id, part);
        Ok(match (self.side, self.errors) {
            (Side::Inside, Errors::Kept) => {
                ((holds()? + all(|h| &h.written)?)? - self.exchanged(dictionary, read)?)?
            }
            (Side::Inside, Errors::Ablated) => {
                let whole = all(|h| &h.whole)?;
                self.change(dictionary, read)?.map_or(Ok(whole.clone()), |change| whole + change)?
            }
            (Side::Outside, Errors::Kept) => match self.change(dictionary, read)? {
                Some(change) => (holds()? - change)?,
                None => holds()?,
            },
            (Side::Outside, Errors::Ablated) => {
                let errors = (all(|h| &h.whole)? - all(|h| &h.written)?)?;
                (errors + self.exchanged(dictionary, read)?)?
            }
        })
    }

    /// Whether a hook holds the same whatever the dictionary reads.
    fn is_constant(&self, dictionary: &Dictionary) -> bool {
        let is_held = (self.side, self.errors) == (Side::Inside, Errors::Ablated);
        is_held && self.chosen(dictionary).is_empty()
    }

    fn is_first(&self, id: DictionaryId) -> bool {
        id == DictionaryId { layer: 0, kind: Kind::Attention }
    }

    /// Lists of features of all prompts, a row each.
    fn lists<'t>(
        &self,
        layer: usize,
        each: impl Iterator<Item = &'t [Active]>,
    ) -> impl Iterator<Item = &'t Active> {
        let is_last = layer + 1 == self.replacement.model.sizes.layers;
        each.flat_map(move |all| if is_last { &all[all.len().saturating_sub(1)..] } else { all })
    }

    /// A part of what stands in, of all prompts, `[R, d_out]`
    fn all(&self, id: DictionaryId, part: fn(&Hook) -> &Tensor) -> Result<Tensor> {
        let each = self.ablation_values.iter().map(|values| part(values.hook(id)));
        stacked(&self.replacement.model, id.layer, each)
    }

    /// A dictionary's active features, a row each.
    fn active(&self, dictionary: &Dictionary, read: &Tensor) -> Result<Vec<Active>> {
        if self.is_first(dictionary.id) {
            let known = self.first.iter().map(|(_, active)| active.as_slice());
            return Ok(self.lists(dictionary.id.layer, known).cloned().collect());
        }
        encoded_rows(dictionary, read)
    }

    fn chosen(&self, dictionary: &Dictionary) -> &[usize] {
        self.features.get(&dictionary.id).map_or(&[], Vec::as_slice)
    }

    /// What stands in for a dictionary's features, a row each.
    fn instead(&self, id: DictionaryId) -> Vec<&Active> {
        let each = self.ablation_values.iter().map(|values| values.hook(id).active.as_slice());
        self.lists(id.layer, each).collect()
    }

    /// `W·a − W_C·(a − r)`, what a dictionary's features write when those of the circuit are
    /// replaced, `[R, d_out]`
    fn exchanged(&self, dictionary: &Dictionary, read: &Tensor) -> Result<Tensor> {
        let mut replaced = vec![false; dictionary.width()];
        self.chosen(dictionary).iter().for_each(|&f| replaced[f] = true);
        let alive = |(f, _): &&(u32, f32)| !replaced[*f as usize];
        let stands_in = |(f, _): &&(u32, f32)| replaced[*f as usize];
        let rows: Vec<Active> = self
            .active(dictionary, read)?
            .par_iter()
            .zip(self.instead(dictionary.id))
            .map(|(a, r)| {
                let mut row = Active::with_capacity(a.len() + r.len());
                row.extend(a.iter().filter(alive).chain(r.iter().filter(stands_in)).copied());
                row
            })
            .collect();
        centred(dictionary, dictionary.write(&rows)?)
    }

    /// `W_C·(a − r)`, `[R, d_out]`; none where no feature of the dictionary is in the circuit.
    fn change(&self, dictionary: &Dictionary, read: &Tensor) -> Result<Option<Tensor>> {
        let chosen = self.chosen(dictionary);
        if chosen.is_empty() {
            return Ok(None);
        }
        let mut is_chosen = vec![false; dictionary.width()];
        chosen.iter().for_each(|&f| is_chosen[f] = true);
        let of_circuit = |(f, _): &(u32, f32)| is_chosen[*f as usize];
        let active = if dictionary.needs_all() || self.is_first(dictionary.id) {
            self.active(dictionary, read)?
        } else {
            let mut active = dictionary.select(chosen)?.active(read)?;
            active.iter_mut().flatten().for_each(|(f, _)| *f = chosen[*f as usize] as u32);
            active
        };
        let rows: Vec<Active> = active
            .par_iter()
            .zip(self.instead(dictionary.id))
            .map(|(a, r)| {
                difference(
                    a.iter().copied().filter(of_circuit),
                    r.iter().copied().filter(of_circuit),
                )
            })
            .collect();
        Ok(Some(centred(dictionary, dictionary.write(&rows)?)?))
    }
}

/// `a − r` of two tokens' activations, both by feature.
fn difference(a: impl Iterator<Item = (u32, f32)>, r: impl Iterator<Item = (u32, f32)>) -> Active {
    let (mut r, mut rows) = (r.peekable(), Active::new());
    for (f, x) in a {
        while let Some((before, y)) = r.next_if(|(g, _)| *g < f) {
            rows.push((before, -y));
        }
        let y = r.next_if(|(g, _)| *g == f).map_or(0.0, |(_, y)| y);
        rows.push((f, x - y));
    }
    rows.extend(r.map(|(f, y)| (f, -y)));
    rows
}

/// The activations of some features in a token's list; both are by feature.
pub(crate) fn picked(active: &Active, features: &[usize]) -> Vec<f32> {
    let mut rest = active.iter().peekable();
    let one = |&feature: &usize| {
        while rest.next_if(|(f, _)| (*f as usize) < feature).is_some() {}
        rest.next_if(|(f, _)| *f as usize == feature).map_or(0.0, |(_, a)| *a)
    };
    features.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_subtracted_by_feature() {
        let (a, r): (Active, Active) =
            (vec![(1, 2.0), (4, 1.0), (7, 3.0)], vec![(0, 0.5), (4, 0.25), (9, 1.0)]);
        assert_eq!(picked(&a, &[0, 1, 4, 5, 9]), [0.0, 2.0, 1.0, 0.0, 0.0]);
        assert_eq!(picked(&a, &[]), [] as [f32; 0]);
        assert_eq!(
            difference(a.iter().copied(), r.iter().copied()),
            [(0, -0.5), (1, 2.0), (4, 0.75), (7, 3.0), (9, -1.0)]
        );
        assert_eq!(difference(a.iter().copied(), std::iter::empty()), a);
        assert_eq!(difference(std::iter::empty(), a.iter().copied()).len(), 3);
    }
}
