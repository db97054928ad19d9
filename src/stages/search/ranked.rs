//! Circuits of `discover.method = "gradient"`: features are ranked by their scores over many
//! prompts, the circuit's size is chosen on further ones, and each of the task's own prompts gets
//! what of the circuit has a part in it.

use super::cost;
use super::task_prompts::{Circuit, Solved, check_used, counted, counting};
use crate::artifact::tables::{HookScoreRow, RankingRow};
use crate::circuit::features::{Errors, FeatureAblation, Runner, Side, ablation_values};
use crate::circuit::gradient::{Basis, Gradient, GradientLinks, Members, Scores, middles};
use crate::circuit::ranked::{
    ByStratum, Means, Ranking, Sums, choose, equal, first, prune, ranking,
};
use crate::circuit::{Ablate, Case, Graph, Node, Pass, PrunedGraph, ReplacementModel};
use crate::config::Task;
use crate::error::Result;
use crate::ids::{Component, DictionaryId, FeatureId, Kind};
use crate::inputs::Metrics;
use crate::stages::Run;
use crate::stats::interval::{mean, ratio};
use crate::stats::strata::{places, stratified};
use crate::task::{Prompt, Prompts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// Features listed at either end of the null task's ranking.
const LISTED: usize = 2000;

/// What was found of a task.
pub(crate) struct Ranked {
    /// The task's own prompts.
    pub solved: Vec<Solved>,
    /// Milliseconds of one core that scoring a prompt took.
    pub cost: f64,
    ranking: Ranking,
    circuit: BTreeSet<FeatureId>,
    null: Ranking,
    /// Supporting, opposing, and of the error, by dictionary.
    hooks: Vec<(DictionaryId, [f64; 3])>,
}

/// The places of the half of the prompts whose answers are exchanged in the null task: as many of
/// each template as are left.
pub(crate) fn exchanged<'p>(
    templates: impl Iterator<Item = &'p str>,
    seed: u64,
) -> BTreeSet<usize> {
    let templates: Vec<&str> = templates.collect();
    stratified(&templates, templates.len() / 2, seed).into_iter().collect()
}

/// What each circuit keeps of what all features keep, by stratum, less one standard error: the
/// first size that seems to be enough is one that had luck, and on other prompts it would fall
/// short.
pub(crate) struct Keeps<'a> {
    runner: Runner<'a>,
    strata: BTreeMap<&'a str, Vec<usize>>,
    empty: Vec<f64>,
    all: Vec<f64>,
}

impl<'a> Keeps<'a> {
    pub(crate) fn new(
        replacement: &'a ReplacementModel,
        prompts: &[&'a Prompt],
        cases: &'a [Case<'a>],
        held: &'a [Arc<FeatureAblation>],
    ) -> Result<Keeps<'a>> {
        let runner = Runner { replacement, cases, ablation_values: held, errors: Errors::Ablated };
        let strata = places(prompts.iter().map(|prompt| prompt.stratum.as_str()));
        let nothing = BTreeSet::new();
        let (empty, all) =
            (runner.values(&nothing, Side::Inside)?, runner.values(&nothing, Side::Outside)?);
        Ok(Keeps { runner, strata, empty, all })
    }

    fn of(&self, circuit: &BTreeSet<FeatureId>) -> Result<ByStratum> {
        let m = self.runner.values(circuit, Side::Inside)?;
        let share = |places: &Vec<usize>| {
            // Where all features do no better than none, there is nothing to keep.
            let gain = |values: &[f64]| {
                places.iter().map(|&i| values[i] - self.empty[i]).collect::<Vec<f64>>()
            };
            let all = gain(&self.all);
            let (value, error) = ratio(&gain(&m), &all);
            if mean(&all) > 0.0 { value - error } else { f64::NEG_INFINITY }
        };
        Ok(self.strata.iter().map(|(stratum, places)| ((*stratum).into(), share(places))).collect())
    }
}

/// Ranks, chooses, and finds the circuit of each of the task's own prompts; `ablate` says what
/// stands in for the features of no circuit.
///
/// # Errors
/// When no prompt is used, or a dictionary cannot be read.
pub(crate) fn find(
    run: &Run,
    replacement: &ReplacementModel,
    task: &Task,
    prompts: &Prompts,
    metrics: &Metrics,
    ablate: Ablate,
) -> Result<Ranked> {
    let settings = &run.config.discover;
    let gradient = Gradient::new(replacement, middles(settings.points))?;
    let cases =
        prompts.finding.iter().map(|prompt| metrics.case(prompt)).collect::<Result<Vec<_>>>()?;
    let held = counted_stand_ins(replacement, task, &cases, ablate)?;
    let since = Instant::now();
    let ranked = score(run, &gradient, task, prompts, metrics, &cases, &held)?;
    let cost = cost(since, cases.len());
    let (ranking, circuit) = choice(run, replacement, task, prompts, metrics, &ranked, ablate)?;
    let members = Members::new(&gradient, &circuit)?;
    run.progress.begin("circuits of prompts", ranked.solved.len() as u64, 0);
    let Scored { mut solved, null, hooks, only, .. } = ranked;
    let tokens: Vec<&[u32]> = cases[..solved.len()].iter().map(|case| case.tokens).collect();
    let used: Vec<bool> = solved.iter().map(|solved| solved.used(task.wrong)).collect();
    let one = |i: usize, pass: Pass| {
        let held = held[i].as_ref().filter(|_| used[i]);
        let circuit = held
            .map(|held| linked(&gradient, &members, &cases[i], &pass, held, settings.share))
            .transpose()?;
        run.progress.step(1)?;
        Ok(circuit)
    };
    match (only, solved.first_mut()) {
        (Some(pass), Some(first)) => first.circuit = one(0, pass)?,
        _ => replacement.over(&tokens, one, |i, circuit| solved[i].circuit = circuit)?,
    }
    Ok(Ranked { solved, cost, ranking, circuit, null, hooks })
}

/// What stands in for features in each case that counts, made of the twins of those alone, or zero.
fn counted_stand_ins(
    replacement: &ReplacementModel,
    task: &Task,
    cases: &[Case],
    ablate: Ablate,
) -> Result<Vec<Option<Arc<FeatureAblation>>>> {
    let counts = counting(replacement, task, cases)?;
    let counted: Vec<Case> =
        cases.iter().zip(&counts).filter(|(_, counts)| **counts).map(|(c, _)| c.clone()).collect();
    let mut held = ablation_values(replacement, &counted, ablate, task.seed)?.into_iter();
    Ok(counts.into_iter().map(|counts| if counts { held.next() } else { None }).collect())
}

/// Scores, before a size is chosen.
struct Scored {
    solved: Vec<Solved>,
    means: Means,
    null: Ranking,
    hooks: Vec<(DictionaryId, [f64; 3])>,
    /// The pass of the only prompt, so that the dictionaries are not read for it again; those of
    /// many would be large.
    only: Option<Pass>,
}

fn score(
    run: &Run,
    gradient: &Gradient,
    task: &Task,
    prompts: &Prompts,
    metrics: &Metrics,
    cases: &[Case],
    held: &[Option<Arc<FeatureAblation>>],
) -> Result<Scored> {
    let exchanged =
        exchanged(prompts.finding.iter().map(|prompt| prompt.template.as_str()), task.seed);
    let (mut sums, mut null, mut errors) = (Sums::default(), Sums::default(), BTreeMap::new());
    let (mut solved, mut used, mut only) = (Vec::new(), 0usize, None);
    run.progress.begin("prompts scored", cases.len() as u64, 0);
    let tokens: Vec<&[u32]> = cases.iter().map(|case| case.tokens).collect();
    let one = |at: usize, pass: Pass| -> Result<(Solved, Option<Scores>, Option<Pass>)> {
        let solved = Solved::new(gradient.replacement, &prompts.finding[at], &pass, metrics)?;
        let held = held[at].as_ref().filter(|_| solved.used(task.wrong));
        let scores = held.map(|held| gradient.scores(&cases[at], &pass, held)).transpose()?;
        run.progress.step(1)?;
        Ok((solved, scores, (cases.len() == 1).then_some(pass)))
    };
    gradient.replacement.over(&tokens, one, |at, (one, scores, pass)| {
        only = pass;
        if let Some(scores) = scores {
            used += 1;
            let (stratum, by_part) = (&one.prompt.stratum, scores.by_part());
            sums.add(stratum, &by_part, 1.0);
            null.add("", &by_part, if exchanged.contains(&at) { -1.0 } else { 1.0 });
            let ids = DictionaryId::all(gradient.replacement.model.sizes.layers);
            ids.zip(&scores.errors)
                .for_each(|(id, error)| *errors.entry(id).or_insert(0.0) += error);
        }
        if at < prompts.own {
            solved.push(one);
        }
    })?;
    check_used(cases.len(), used)?;
    check_used(solved.len(), solved.iter().filter(|solved| solved.used(task.wrong)).count())?;
    let (means, null) = (sums.means(), null.means());
    let plain = ranking(&means, &equal(&means));
    let of_hook = |id: DictionaryId, sign: f64| -> f64 {
        plain
            .iter()
            .filter(|(f, score)| f.dictionary == id && score * sign > 0.0)
            .map(|(_, score)| score)
            .sum()
    };
    let hook = |(id, error): (DictionaryId, f64)| {
        (id, [of_hook(id, 1.0), of_hook(id, -1.0), error / used as f64])
    };
    Ok(Scored {
        hooks: errors.into_iter().map(hook).collect(),
        null: ranking(&null, &equal(&null)),
        means,
        solved,
        only,
    })
}

/// The ranking, and the circuit by prompts that it was not ranked on where there are any.
fn choice(
    run: &Run,
    replacement: &ReplacementModel,
    task: &Task,
    prompts: &Prompts,
    metrics: &Metrics,
    ranked: &Scored,
    ablate: Ablate,
) -> Result<(Ranking, BTreeSet<FeatureId>)> {
    let settings = &run.config.discover;
    let on = if prompts.choosing.is_empty() { &prompts.finding } else { &prompts.choosing };
    let (on, cases) = counted(replacement, task, on, metrics)?;
    let held = ablation_values(replacement, &cases, ablate, task.seed)?;
    let keeps = Keeps::new(replacement, &on, &cases, &held)?;
    run.progress.say("choosing the size of the circuit");
    let choice =
        choose(&ranked.means, settings.faithful, settings.most, |circuit| keeps.of(circuit))?;
    let mut circuit = first(&choice.ranking, choice.size);
    if settings.prune {
        run.progress.say("pruning the circuit");
        circuit = prune(circuit, settings.faithful, |circuit| keeps.of(circuit))?;
    }
    Ok((choice.ranking, circuit))
}

/// What of the circuit has a part in one prompt.
fn linked(
    gradient: &Gradient,
    members: &Members,
    case: &Case,
    pass: &Pass,
    held: &FeatureAblation,
    share: f64,
) -> Result<Circuit> {
    let hooks = gradient.hooks(Basis::Candidates(pass), held)?;
    let backs = gradient.run(case, &hooks)?;
    let own = held.own_tokens(gradient.replacement, case.tokens)?;
    let graph: Graph =
        GradientLinks::new(gradient, members, &hooks, &backs, own.as_ref())?.graph(share);
    let activation = |node: &Node| {
        let feature = node.dictionary_feature()?;
        Some(pass.activation(feature, node.position()))
    };
    let activations = graph.nodes.iter().map(activation).collect();
    Ok(Circuit { found: PrunedGraph { graph, left_out: None }, activations, contrast: None })
}

impl Ranked {
    /// The ranking, and both ends of the null task's.
    pub(crate) fn rows(&self, task: &str) -> Vec<RankingRow> {
        let of = |name: &'static str, ranking: &Ranking| -> Vec<RankingRow> {
            let n = ranking.len();
            let listed = (0..n).filter(|&i| name == "found" || i < LISTED || i + LISTED >= n);
            let row = |i: usize| RankingRow {
                task: task.into(),
                ranking: name.into(),
                rank: i as u32 + 1,
                feature: ranking[i].0,
                score: ranking[i].1,
                chosen: name == "found" && self.circuit.contains(&ranking[i].0),
            };
            listed.map(row).collect()
        };
        [of("found", &self.ranking), of("null", &self.null)].concat()
    }

    /// The circuit's features, and where each serves if no prompt's graph tells: an attention
    /// feature at the head that holds most of its decoder norm.
    ///
    /// # Errors
    /// When a dictionary cannot be read.
    pub(crate) fn members(
        &self,
        replacement: &ReplacementModel,
    ) -> Result<Vec<(Component, FeatureId)>> {
        let at = |feature: FeatureId| Ok((home(replacement, feature)?, feature));
        self.circuit.iter().copied().map(at).collect()
    }

    pub(crate) fn hooks(&self, task: &str) -> Vec<HookScoreRow> {
        let row = |(id, [supporting, opposing, error]): &(DictionaryId, [f64; 3])| HookScoreRow {
            task: task.into(),
            dictionary: *id,
            supporting: *supporting,
            opposing: *opposing,
            error: *error,
        };
        self.hooks.iter().map(row).collect()
    }
}

fn home(replacement: &ReplacementModel, feature: FeatureId) -> Result<Component> {
    let layer = feature.dictionary.layer;
    if feature.dictionary.kind == Kind::Mlp {
        return Ok(Component::Mlp { layer });
    }
    let row = replacement.attention[layer].write_direction(feature.index)?;
    let norm = |(head, part): (usize, &[f32])| (part.iter().map(|x| x * x).sum::<f32>(), head);
    let norms = row.chunks_exact(replacement.model.sizes.d_head).enumerate().map(norm);
    let most = norms.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    Ok(Component::Head { layer, head: most.map_or(0, |(_, head)| head) })
}
