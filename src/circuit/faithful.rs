//! Is the circuit real? The model run with everything outside it replaced by its mean over corrupted prompts
//! (DESIGN.md 4.6, at the level of components).

use super::promote::extremes;
use crate::error::{Result, hinted};
use crate::ids::Component;
use crate::model::{Ablation, Gpt2};
use candle_core::Tensor;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What is measured at the last position of a prompt.
#[derive(Clone, Debug)]
pub enum Metric {
    /// Logit of `correct` less logit of `counter`.
    LogitDifference { correct: u32, counter: u32 },
    /// `P(>YY) − P(≤YY)` over the two-digit tokens `00` … `99`.
    GreaterThan { digits: std::sync::Arc<Vec<u32>>, year: u32 },
}

impl Metric {
    /// `logits [V]` at the last position → the metric.
    pub fn of(&self, logits: &[f32]) -> f64 {
        match self {
            Metric::LogitDifference { correct, counter } => {
                f64::from(logits[*correct as usize]) - f64::from(logits[*counter as usize])
            }
            Metric::GreaterThan { digits, year } => {
                let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weight = |logit: f32| f64::from(logit - top).exp();
                let whole: f64 = logits.iter().map(|&l| weight(l)).sum();
                let sign = |yy: usize| if yy as u32 > *year { 1.0 } else { -1.0 };
                digits.iter().enumerate().map(|(yy, &id)| sign(yy) * weight(logits[id as usize])).sum::<f64>() / whole
            }
        }
    }
}

/// What components write on average over the corrupted prompts of a template: by layer `z [T, H·K]`, `mlp_out [T, D]`.
pub struct Means {
    z: Vec<Tensor>,
    mlp_out: Vec<Tensor>,
}

/// A prompt to be run with parts of the model taken away.
pub struct Ablated<'a> {
    /// BOS first.
    pub tokens: &'a [u32],
    pub template: &'a str,
    pub metric: Metric,
}

/// Averages over corrupted prompts (BOS first), by template; within a template all are of one length.
///
/// # Errors
/// When two prompts of a template differ in length.
pub fn means<'a>(model: &Gpt2, corrupted: &[(&'a str, &[u32])]) -> Result<BTreeMap<&'a str, Means>> {
    let mut by_template: BTreeMap<&str, Vec<&[u32]>> = BTreeMap::new();
    for &(template, tokens) in corrupted {
        by_template.entry(template).or_default().push(tokens);
    }
    by_template.into_iter().map(|(template, prompts)| Ok((template, mean_of(model, template, &prompts)?))).collect()
}

fn mean_of(model: &Gpt2, template: &str, prompts: &[&[u32]]) -> Result<Means> {
    if prompts.iter().any(|tokens| tokens.len() != prompts[0].len()) {
        return Err(hinted(
            format!("the corrupted prompts of template `{template}` differ in length"),
            "prompts of one template must have the same number of tokens, as they are averaged by position",
        ));
    }
    // Only what is averaged is kept of each pass.
    let written = |tokens: &&[u32]| -> Result<Vec<(Tensor, Tensor)>> {
        Ok(model.forward(tokens)?.layers.into_iter().map(|layer| (layer.z, layer.mlp_out)).collect())
    };
    let passes = prompts.par_iter().map(written).collect::<Result<Vec<_>>>()?;
    let mean = |all: Vec<&Tensor>| -> Result<Tensor> { Ok(Tensor::stack(&all, 0)?.mean(0)?) };
    let layers = 0..model.sizes.layers;
    Ok(Means {
        z: layers.clone().map(|l| mean(passes.iter().map(|pass| &pass[l].0).collect())).collect::<Result<_>>()?,
        mlp_out: layers.map(|l| mean(passes.iter().map(|pass| &pass[l].1).collect())).collect::<Result<_>>()?,
    })
}

/// The intervention that keeps the components of `keep` and holds all others at their means.
pub fn keep_only(model: &Gpt2, keep: &BTreeSet<Component>, means: &Means) -> Result<Ablation> {
    let mut ablation = Ablation::default();
    for layer in 0..model.sizes.layers {
        let kept = |head: usize| f32::from(u8::from(keep.contains(&Component::Head { layer, head })));
        let mask: Vec<f32> = (0..model.sizes.heads).flat_map(|h| vec![kept(h); model.sizes.d_head]).collect();
        if mask.contains(&0.0) {
            let mask = Tensor::from_vec(mask, (1, model.sizes.d_model), means.z[layer].device())?;
            ablation.z.insert(layer, (mask, means.z[layer].clone()));
        }
        if !keep.contains(&Component::Mlp { layer }) {
            ablation.mlp_out.insert(layer, means.mlp_out[layer].clone());
        }
    }
    Ok(ablation)
}

/// The metric of each prompt with every component outside `keep` ablated; each is run.
pub fn values(
    model: &Gpt2,
    prompts: &[Ablated],
    keep: &BTreeSet<Component>,
    means: &BTreeMap<&str, Means>,
) -> Result<Vec<f64>> {
    let mut interventions = BTreeMap::new();
    for (&template, means) in means {
        interventions.insert(template, keep_only(model, keep, means)?);
    }
    let run = |prompt: &Ablated| {
        let Some(ablation) = interventions.get(prompt.template) else {
            return Err(hinted(
                format!("template `{}` has no corrupted prompts", prompt.template),
                "give each prompt a `corrupted` one of the same template",
            ));
        };
        let trace = model.forward_with(prompt.tokens, ablation)?;
        Ok(prompt.metric.of(&model.last_logits(&trace)?))
    };
    prompts.par_iter().map(run).collect()
}

/// The components with at least this frequency.
pub fn components_at(frequencies: &BTreeMap<Component, f64>, at_least: f64) -> BTreeSet<Component> {
    frequencies.iter().filter(|(_, f)| **f >= at_least).map(|(c, _)| *c).collect()
}

/// The circuits of a task at several sizes: components that are in at least a given share of its prompts' circuits, from
/// the largest on. Each comes with what it is called.
pub fn circuits_by_frequency(frequencies: &BTreeMap<Component, f64>) -> Vec<(String, BTreeSet<Component>)> {
    const AT_LEAST: [f64; 8] = [0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];
    let mut circuits: Vec<(String, BTreeSet<Component>)> = Vec::new();
    for least in AT_LEAST {
        let circuit = components_at(frequencies, least);
        if !circuit.is_empty() && circuits.last().is_none_or(|(_, last)| last.len() != circuit.len()) {
            circuits.push((format!("frequency >= {least}"), circuit));
        }
    }
    circuits
}

/// The tokens with the highest logits and their probabilities, best first.
pub fn answers(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let top = extremes(logits, count).top;
    let Some(&(_, most)) = top.first() else { return Vec::new() };
    let weight = |logit: f32| f64::from(logit - most).exp();
    let whole: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    top.into_iter().map(|(id, logit)| (id, (weight(logit) / whole) as f32)).collect()
}

/// `count` circuits of `size` components drawn from the whole model.
pub fn random_circuits(model: &Gpt2, size: usize, count: usize, seed: u64) -> Vec<BTreeSet<Component>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ size as u64);
    let all: Vec<_> = Component::all(model.sizes.layers, model.sizes.heads).collect();
    let draw = |_| {
        let mut shuffled = all.clone();
        shuffled.shuffle(&mut rng);
        shuffled.into_iter().take(size).collect()
    };
    (0..count).map(draw).collect()
}
