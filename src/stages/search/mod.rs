//! Searches that `discover` and `verify` share: the clean runs of a task's prompts, circuits ranked
//! by the gradient, circuits grown from single prompts, and what other methods find. Methods that
//! rank features do so on the prompts that `discover` ranks on; those that grow circuits grow those
//! of the task's own prompts.

pub(crate) mod grown;
mod kept_rows;
pub(crate) mod ranked;
pub(crate) mod runs;
pub(crate) mod task_prompts;
pub(crate) mod typed;

use crate::circuit::features::{self, Errors, FeatureAblation, Runner, Side};
use crate::circuit::gradient::{Gradient, Lessons, middles};
use crate::circuit::ranked::{Ranking, Sums, by_graphs, equal, first, ranking};
use crate::circuit::{
    self, Ablate, Attribution, Candidates, Case, Graph, PROMPTS, Pass, ReplacementModel,
    circuits_by_frequency, components, grow, influences,
};
use crate::config::{Discover, DiscoveryMethod, Task};
use crate::error::Result;
use crate::ids::{Component, FeatureId};
use crate::inputs::{self, Metrics};
use crate::stats::interval::mean;
use crate::task::Prompt;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use task_prompts::{counted, whole};

/// Features of the circuits that every ranking is measured at.
const SIZES: [usize; 5] = [20, 50, 100, 200, 400];

/// Features that masks are learned of: the first by the gradient's scores.
const LEARNED: usize = 1000;

/// Feature circuits, each with what it is called.
pub(super) type SizedCircuits = Vec<(String, BTreeSet<FeatureId>)>;

/// What a method found.
pub(super) struct Other {
    pub method: DiscoveryMethod,
    /// By the share of prompts whose circuit has them; none where the method finds no components.
    pub components: Vec<(String, BTreeSet<Component>)>,
    /// Of [`DiscoveryMethod::Neurons`], columns of `z` and MLP units.
    pub features: SizedCircuits,
    /// All that support the answer, the first first; none where circuits of different sizes are not
    /// parts of one another.
    pub ranked: Vec<FeatureId>,
    /// Those that oppose it, the strongest last.
    pub opposing: Vec<FeatureId>,
    /// Of a prompt, the mean; none where it has none.
    pub nodes: Option<f64>,
    /// Milliseconds of one core that a prompt took.
    pub cost: f64,
}

/// The first features of a ranking at several sizes, and those that are chosen, if any.
pub(super) fn by_rank(ranked: &[FeatureId], chosen: BTreeSet<FeatureId>) -> SizedCircuits {
    let first = |n: usize| ranked.iter().take(n).copied().collect();
    let sizes = SIZES.into_iter().filter(|&size| size < ranked.len());
    let mut circuits: SizedCircuits =
        sizes.map(|size| (format!("first {size}"), first(size))).collect();
    if !chosen.is_empty() {
        circuits.push(("chosen".into(), chosen));
    }
    circuits
}

/// In which share of the sets each component is.
fn shares(sets: impl ExactSizeIterator<Item = BTreeSet<Component>>) -> BTreeMap<Component, f64> {
    let n = sets.len() as f64;
    let mut counts = BTreeMap::new();
    sets.flatten().for_each(|part| *counts.entry(part).or_insert(0.0) += 1.0);
    counts.into_iter().map(|(part, count)| (part, count / n)).collect()
}

/// The features whose scores have this sign, in their order.
fn of_sign(ranking: &Ranking, sign: f64) -> Vec<FeatureId> {
    ranking.iter().filter(|(_, score)| *score * sign > 0.0).map(|(feature, _)| *feature).collect()
}

/// Milliseconds of one core, a prompt, where as many prompts are run at once as there are cores
/// for.
pub(super) fn cost(since: Instant, prompts: usize) -> f64 {
    let cores = rayon::current_num_threads().min(PROMPTS).min(prompts.max(1));
    since.elapsed().as_secs_f64() * 1000.0 * cores as f64 / prompts.max(1) as f64
}

/// A task that other methods look at.
pub(super) struct Search<'a> {
    replacement: &'a ReplacementModel,
    task: &'a Task,
    /// The task's own prompts.
    own: Vec<&'a Prompt>,
    /// What features are ranked on: prompts that count.
    prompts: Vec<&'a Prompt>,
    cases: Vec<Case<'a>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        replacement: &'a ReplacementModel,
        task: &'a Task,
        own: Vec<&'a Prompt>,
        ranked_on: &'a [Prompt],
        metrics: &'a Metrics,
    ) -> Result<Search<'a>> {
        let (prompts, cases) = counted(replacement, task, ranked_on, metrics)?;
        Ok(Search { replacement, task, own, prompts, cases })
    }

    /// # Errors
    /// When a dictionary cannot be read.
    pub(super) fn find(&self, settings: &Discover, method: DiscoveryMethod) -> Result<Other> {
        if let Some(growth) = inputs::growth(settings, method) {
            let grown = self.grown(settings, method, growth)?;
            return match method {
                DiscoveryMethod::Influence => self.by_influence(settings, grown),
                _ => Ok(grown),
            };
        }
        let ranked = |(ranking, cost): (Ranking, f64)| {
            let ranked = of_sign(&ranking, 1.0);
            let (components, features) = (Vec::new(), by_rank(&ranked, BTreeSet::new()));
            Other {
                method,
                components,
                features,
                ranked,
                opposing: of_sign(&ranking, -1.0),
                nodes: None,
                cost,
            }
        };
        Ok(match method {
            DiscoveryMethod::AttributionPatching => ranked(self.patched()?),
            DiscoveryMethod::IntegratedGradients => ranked(self.integrated()?),
            DiscoveryMethod::Neurons => ranked(self.neurons(settings)?),
            DiscoveryMethod::LearnedMasks => self.learned(settings)?,
            _ => ranked(self.by_gradient(settings)?),
        })
    }

    /// Ranks features by the mean over prompts of what `score` gives each, every stratum having the
    /// same weight.
    fn scored(
        &self,
        score: impl Fn(usize, &Case, Pass) -> Result<BTreeMap<FeatureId, f64>> + Sync,
    ) -> Result<(Ranking, f64)> {
        let since = Instant::now();
        let mut sums = Sums::default();
        let tokens: Vec<&[u32]> = self.cases.iter().map(|case| case.tokens).collect();
        let one = |i: usize, pass: Pass| score(i, &self.cases[i], pass);
        self.replacement
            .over(&tokens, one, |i, scores| sums.add(&self.prompts[i].stratum, &scores, 1.0))?;
        let means = sums.means();
        Ok((ranking(&means, &equal(&means)), cost(since, self.cases.len())))
    }

    fn ablation_values(&self) -> Result<Vec<Arc<FeatureAblation>>> {
        features::ablation_values(self.replacement, &self.cases, Ablate::Mean, self.task.seed)
    }

    fn by_gradient(&self, settings: &Discover) -> Result<(Ranking, f64)> {
        let gradient = Gradient::new(self.replacement, middles(settings.points))?;
        let held = self.ablation_values()?;
        self.scored(|i, case, pass| Ok(gradient.scores(case, &pass, &held[i])?.by_part()))
    }

    fn patched(&self) -> Result<(Ranking, f64)> {
        let since = Instant::now();
        let gradient = Gradient::new(self.replacement, Vec::new())?;
        let neurons = components::neurons(&self.replacement.model, &self.cases)?;
        let mut sums = Sums::default();
        for (start, cases) in (0..).step_by(PROMPTS).zip(self.cases.chunks(PROMPTS)) {
            let (own, twins): (Vec<&[u32]>, Vec<&[u32]>) =
                cases.iter().map(|case| (case.tokens, case.corrupted)).unzip();
            let (own, twins) = (self.replacement.passes(&own)?, self.replacement.passes(&twins)?);
            let one = |(i, (own, twin)): (usize, (&Pass, &Pass))| {
                gradient.patching(&cases[i], own, twin, &neurons[start + i])
            };
            let each = own.par_iter().zip(&twins).enumerate().map(one);
            let scores = each.collect::<Result<Vec<_>>>()?;
            for (prompt, scores) in self.prompts[start..].iter().zip(&scores) {
                sums.add(&prompt.stratum, scores, 1.0);
            }
        }
        let means = sums.means();
        Ok((ranking(&means, &equal(&means)), cost(since, self.cases.len())))
    }

    fn integrated(&self) -> Result<(Ranking, f64)> {
        let gradient = Gradient::new(self.replacement, Vec::new())?;
        let (held, neurons) =
            (self.ablation_values()?, components::neurons(&self.replacement.model, &self.cases)?);
        self.scored(|i, case, pass| gradient.integrated(case, &pass, &held[i], &neurons[i]))
    }

    /// The same ranking as of features, of the model's own neurons.
    fn neurons(&self, settings: &Discover) -> Result<(Ranking, f64)> {
        let gradient = Gradient::new(self.replacement, middles(settings.points))?;
        let since = Instant::now();
        let neurons = components::neurons(&self.replacement.model, &self.cases)?;
        let mut sums = Sums::default();
        for (start, cases) in (0..).step_by(PROMPTS).zip(self.cases.chunks(PROMPTS)) {
            let one = |(i, case): (usize, &Case)| {
                gradient.by_part(case, &gradient.neurons(&neurons[start + i])?)
            };
            let scores = cases.par_iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
            for (prompt, scores) in self.prompts[start..].iter().zip(&scores) {
                sums.add(&prompt.stratum, scores, 1.0);
            }
        }
        let means = sums.means();
        Ok((ranking(&means, &equal(&means)), cost(since, self.cases.len())))
    }

    /// Of influence, features are ranked by its mean over prompts, not by how many graphs have
    /// them.
    fn by_influence(&self, settings: &Discover, grown: Other) -> Result<Other> {
        let (ranking, cost) = self.scored(|i, case, pass| {
            let attribution = Attribution::of(self.replacement, pass, case.tokens)?;
            influences(&attribution, inputs::root(settings.root, self.prompts[i]))
        })?;
        let ranked = of_sign(&ranking, 1.0);
        Ok(Other { features: by_rank(&ranked, BTreeSet::new()), ranked, cost, ..grown })
    }

    fn learned(&self, settings: &Discover) -> Result<Other> {
        let since = Instant::now();
        let (scores, _) = self.by_gradient(settings)?;
        let candidates = first(&scores, LEARNED);
        let held = self.ablation_values()?;
        let runner = Runner {
            replacement: self.replacement,
            cases: &self.cases,
            ablation_values: &held,
            errors: Errors::Ablated,
        };
        let empty = runner.values(&BTreeSet::new(), Side::Inside)?;
        let full = self
            .cases
            .par_iter()
            .map(|case| whole(self.replacement, case))
            .collect::<Result<Vec<_>>>()?;
        let lessons = Lessons {
            cases: &self.cases,
            ablation_values: &held,
            full: &full,
            empty: &empty,
            seed: self.task.seed,
        };
        let circuits =
            Gradient::new(self.replacement, Vec::new())?.learned(&lessons, &candidates, &SIZES)?;
        Ok(Other {
            method: DiscoveryMethod::LearnedMasks,
            components: Vec::new(),
            features: circuits
                .into_iter()
                .map(|(size, circuit)| (format!("first {size}"), circuit))
                .collect(),
            ranked: Vec::new(),
            opposing: Vec::new(),
            nodes: None,
            cost: cost(since, self.cases.len()),
        })
    }

    /// What a method that grows the circuit of each of the task's own prompts finds.
    fn grown(
        &self,
        settings: &Discover,
        name: DiscoveryMethod,
        method: circuit::Growth,
    ) -> Result<Other> {
        let since = Instant::now();
        let mut graphs = Vec::new();
        let tokens: Vec<&[u32]> = self.own.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let one = |i: usize, pass: Pass| {
            let attribution = Attribution::of(self.replacement, pass, tokens[i])?;
            let mut candidates =
                Candidates::new(&attribution, settings.candidates, &settings.allow);
            Ok(grow(&mut candidates, inputs::root(settings.root, self.own[i]), method)?.graph)
        };
        self.replacement.over(&tokens, one, |_, graph| graphs.push(graph))?;
        let ranked: Vec<FeatureId> =
            by_graphs(graphs.iter()).into_iter().map(|(feature, _)| feature).collect();
        Ok(Other {
            method: name,
            components: circuits_by_frequency(&shares(graphs.iter().map(Graph::components))),
            features: by_rank(&ranked, ranked.iter().copied().collect()),
            ranked,
            opposing: Vec::new(),
            nodes: Some(mean(
                &graphs.iter().map(|graph| graph.nodes.len() as f64).collect::<Vec<_>>(),
            )),
            cost: cost(since, self.own.len()),
        })
    }
}
