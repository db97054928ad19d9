//! What other methods find of a task, for `verify` to measure beside what was found. Those that rank features do so on the
//! prompts that `discover` ranks on; those that grow circuits grow those of the task's own prompts.

use super::inputs::{self, Metrics};
use super::solved::whole;
use crate::circuit::features::{self, Errors, Runner, Side, StandIn};
use crate::circuit::gradient::{Gradient, Lessons, middles};
use crate::circuit::ranked::{Ranking, Sums, equal, ranking};
use crate::circuit::{
    self, Ablate, Attribution, Candidates, Case, Graph, Node, PROMPTS, Pass, World, circuits_by_frequency, components,
    grow, influences,
};
use crate::config::{Discover, Method, Task};
use crate::error::Result;
use crate::ids::{Component, FeatureId};
use crate::stats::interval::mean;
use crate::task::Prompt;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// Features of the circuits that every ranking is measured at.
const SIZES: [usize; 5] = [20, 50, 100, 200, 400];

/// Features that masks are learned of: the first by the gradient's scores.
const LEARNED: usize = 1000;

/// Feature circuits, each with what it is called.
pub type Circuits = Vec<(String, BTreeSet<FeatureId>)>;

/// What a method found that circuits were not found with.
pub struct Other {
    pub method: Method,
    /// By the share of prompts whose circuit has them; none where the method finds no components.
    pub components: Vec<(String, BTreeSet<Component>)>,
    /// Of [`Method::Neurons`], columns of `z` and MLP units.
    pub features: Circuits,
    /// All that are ranked, the first first; none where circuits of different sizes are not parts of one another.
    pub ranked: Vec<FeatureId>,
    /// Of a prompt, the mean; none where it has none.
    pub nodes: Option<f64>,
    /// Milliseconds of one core that a prompt took.
    pub cost: f64,
}

/// The first features of a ranking at several sizes, and those that are chosen, if any.
pub fn by_rank(ranked: &[FeatureId], chosen: BTreeSet<FeatureId>) -> Circuits {
    let first = |n: usize| ranked.iter().take(n).copied().collect();
    let sizes = SIZES.into_iter().filter(|&size| size < ranked.len());
    let mut circuits: Circuits = sizes.map(|size| (format!("first {size}"), first(size))).collect();
    if !chosen.is_empty() {
        circuits.push(("chosen".into(), chosen));
    }
    circuits
}

/// In which share of the sets each part is.
fn shares<P: Ord>(sets: impl ExactSizeIterator<Item = BTreeSet<P>>) -> BTreeMap<P, f64> {
    let n = sets.len() as f64;
    let mut counts = BTreeMap::new();
    sets.flatten().for_each(|part| *counts.entry(part).or_insert(0.0) += 1.0);
    counts.into_iter().map(|(part, count)| (part, count / n)).collect()
}

/// The features that support the answer, the first first.
fn supporting(ranking: &Ranking) -> Vec<FeatureId> {
    ranking.iter().filter(|(_, score)| *score > 0.0).map(|(feature, _)| *feature).collect()
}

/// Milliseconds of one core, a prompt.
pub fn cost(since: Instant, prompts: usize) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0 * rayon::current_num_threads() as f64 / prompts.max(1) as f64
}

/// A task that other methods look at.
pub struct Search<'a> {
    world: &'a World,
    task: &'a Task,
    /// The task's own prompts.
    own: Vec<&'a Prompt>,
    /// What features are ranked on.
    prompts: &'a [Prompt],
    cases: Vec<Case<'a>>,
}

impl<'a> Search<'a> {
    pub fn new(
        world: &'a World,
        task: &'a Task,
        own: Vec<&'a Prompt>,
        ranked_on: &'a [Prompt],
        metrics: &'a Metrics,
    ) -> Result<Search<'a>> {
        let cases = ranked_on.iter().map(|prompt| metrics.case(prompt)).collect::<Result<Vec<Case>>>()?;
        Ok(Search { world, task, own, prompts: ranked_on, cases })
    }

    /// # Errors
    /// When a dictionary cannot be read.
    pub fn find(&self, settings: &Discover, method: Method) -> Result<Other> {
        if let Some(growth) = inputs::method(settings, method) {
            let grown = self.grown(settings, method, growth)?;
            return match method {
                Method::Influence => self.by_influence(settings, grown),
                _ => Ok(grown),
            };
        }
        let ranked = |(ranked, cost): (Vec<FeatureId>, f64)| Other {
            method,
            components: Vec::new(),
            features: by_rank(&ranked, BTreeSet::new()),
            ranked,
            nodes: None,
            cost,
        };
        Ok(match method {
            Method::AttributionPatching => ranked(self.patched()?),
            Method::IntegratedGradients => ranked(self.integrated()?),
            Method::Neurons => ranked(self.neurons(settings)?),
            Method::LearnedMasks => self.learned(settings)?,
            _ => ranked(self.by_gradient(settings)?),
        })
    }

    /// Ranks features by the mean over prompts of what `score` gives each.
    fn scored(
        &self,
        score: impl Fn(usize, &Case, &Pass) -> Result<BTreeMap<FeatureId, f64>> + Sync,
    ) -> Result<(Vec<FeatureId>, f64)> {
        let since = Instant::now();
        let mut sums = Sums::default();
        for (start, some) in (0..).step_by(PROMPTS).zip(self.cases.chunks(PROMPTS)) {
            let passes = self.world.passes(&some.iter().map(|case| case.tokens).collect::<Vec<_>>())?;
            let one = |(i, pass): (usize, Pass)| score(start + i, &some[i], &pass);
            let each = passes.into_par_iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
            each.iter().for_each(|scores| sums.add("", scores, 1.0));
        }
        let means = sums.means();
        Ok((supporting(&ranking(&means, &equal(&means))), cost(since, self.cases.len())))
    }

    fn stand_ins(&self) -> Result<Vec<Arc<StandIn>>> {
        features::stand_ins(self.world, &self.cases, Ablate::Mean, self.task.seed)
    }

    fn by_gradient(&self, settings: &Discover) -> Result<(Vec<FeatureId>, f64)> {
        let gradient = Gradient::new(self.world, middles(settings.points))?;
        let held = self.stand_ins()?;
        self.scored(|i, case, pass| Ok(gradient.scores(case, pass, &held[i])?.by_part()))
    }

    fn patched(&self) -> Result<(Vec<FeatureId>, f64)> {
        let gradient = Gradient::new(self.world, Vec::new())?;
        let neurons = components::neurons(&self.world.model, &self.cases)?;
        self.scored(|i, case, pass| {
            let twin = self.world.passes(&[case.corrupted])?.remove(0);
            gradient.patching(case, pass, &twin, &neurons[i])
        })
    }

    fn integrated(&self) -> Result<(Vec<FeatureId>, f64)> {
        let gradient = Gradient::new(self.world, Vec::new())?;
        let (held, neurons) = (self.stand_ins()?, components::neurons(&self.world.model, &self.cases)?);
        self.scored(|i, case, pass| gradient.integrated(case, pass, &held[i], &neurons[i]))
    }

    /// The same ranking as of features, of the model's own neurons.
    fn neurons(&self, settings: &Discover) -> Result<(Vec<FeatureId>, f64)> {
        let gradient = Gradient::new(self.world, middles(settings.points))?;
        let neurons = components::neurons(&self.world.model, &self.cases)?;
        self.scored(|i, case, _| {
            let hooks = gradient.neurons(&neurons[i])?;
            gradient.by_part(case, &hooks)
        })
    }

    /// Of influence, features are ranked by its mean over prompts, not by how many graphs have them.
    fn by_influence(&self, settings: &Discover, grown: Other) -> Result<Other> {
        let (ranked, cost) = self.scored(|i, case, _| {
            let attribution = Attribution::new(self.world, case.tokens)?;
            influences(&attribution, inputs::root(settings.root, &self.prompts[i]))
        })?;
        Ok(Other { features: by_rank(&ranked, BTreeSet::new()), ranked, cost, ..grown })
    }

    fn learned(&self, settings: &Discover) -> Result<Other> {
        let (scores, _) = self.by_gradient(settings)?;
        let since = Instant::now();
        let candidates: BTreeSet<FeatureId> = scores.into_iter().take(LEARNED).collect();
        let held = self.stand_ins()?;
        let runner = Runner { world: self.world, cases: &self.cases, stand_ins: &held, errors: Errors::Ablated };
        let empty = runner.values(&BTreeSet::new(), Side::Inside)?;
        let full = self.cases.par_iter().map(|case| whole(self.world, case)).collect::<Result<Vec<_>>>()?;
        let lessons =
            Lessons { cases: &self.cases, stand_ins: &held, full: &full, empty: &empty, seed: self.task.seed };
        let circuits = Gradient::new(self.world, Vec::new())?.learned(&lessons, &candidates, &SIZES)?;
        Ok(Other {
            method: Method::LearnedMasks,
            components: Vec::new(),
            features: circuits.into_iter().map(|(size, circuit)| (format!("first {size}"), circuit)).collect(),
            ranked: Vec::new(),
            nodes: None,
            cost: cost(since, self.cases.len()),
        })
    }

    /// What a method that grows the circuit of each of the task's own prompts finds.
    fn grown(&self, settings: &Discover, name: Method, method: circuit::Method) -> Result<Other> {
        let since = Instant::now();
        let mut graphs = Vec::new();
        for prompts in self.own.chunks(PROMPTS) {
            let tokens: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
            let passes = self.world.passes(&tokens)?;
            let one = |(prompt, pass): (&&Prompt, Pass)| {
                let attribution = Attribution::of(self.world, pass, &prompt.tokens)?;
                let mut candidates = Candidates::new(&attribution, settings.candidates, &settings.allow);
                Ok(grow(&mut candidates, inputs::root(settings.root, prompt), method)?.graph)
            };
            graphs.extend(prompts.par_iter().zip(passes).map(one).collect::<Result<Vec<Graph>>>()?);
        }
        let of = |graph: &Graph| graph.nodes.iter().filter_map(Node::dictionary_feature).collect();
        let mut ranked: Vec<(FeatureId, f64)> = shares(graphs.iter().map(of)).into_iter().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let ranked: Vec<FeatureId> = ranked.into_iter().map(|(feature, _)| feature).collect();
        Ok(Other {
            method: name,
            components: circuits_by_frequency(&shares(graphs.iter().map(Graph::components))),
            features: by_rank(&ranked, ranked.iter().copied().collect()),
            ranked,
            nodes: Some(mean(&graphs.iter().map(|graph| graph.nodes.len() as f64).collect::<Vec<_>>())),
            cost: cost(since, self.own.len()),
        })
    }
}
