//! Circuits of `discover.method = "gradient"`: features are ranked by their scores over many
//! prompts, the circuit's size is chosen on further ones, and each of the task's own prompts gets
//! what of the circuit has a part in it.

use super::runs::{Key, Runs};
use super::task_prompts::{Circuit, Solved, check_used, counted, counting};
use super::{cost, kept_rows};
use crate::artifact::Row;
use crate::artifact::tables::{
    CHOICE_RUNS, CHOICES, HookScoreRow, PromptCircuitRow, PromptScoreRow, RankingRow,
};
use crate::circuit::features::{Errors, FeatureAblation, Runner, Side, ablation_values};
use crate::circuit::gradient::{Basis, Gradient, GradientLinks, Members, middles};
use crate::circuit::ranked::{
    ByStratum, Means, Ranking, Sums, choose, equal, first, prune, ranking,
};
use crate::circuit::{Ablate, Case, Graph, Node, PROMPTS, Pass, PrunedGraph, ReplacementModel};
use crate::config::{Ablation, Task};
use crate::error::Result;
use crate::ids::{Component, DictionaryId, FeatureId, Kind};
use crate::inputs::Metrics;
use crate::process;
use crate::stages::Run;
use crate::stages::parts::places;
use crate::stats::interval::{mean, ratio};
use crate::stats::strata::{places as places_of_strata, stratified};
use crate::task::{Prompt, Prompts};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The name of a task's ranking.
const FOUND: &str = "found";
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
struct Keeps<'a> {
    task: &'a str,
    runs: &'a Runs<'a>,
    runner: Runner<'a>,
    strata: BTreeMap<&'a str, Vec<usize>>,
    empty: Vec<f64>,
    all: Vec<f64>,
}

impl<'a> Keeps<'a> {
    fn new(
        replacement: &'a ReplacementModel,
        (task, runs): (&'a str, &'a Runs<'a>),
        prompts: &[&'a Prompt],
        cases: &'a [Case<'a>],
        held: &'a [Arc<FeatureAblation>],
    ) -> Result<Keeps<'a>> {
        let runner = Runner { replacement, cases, ablation_values: held, errors: Errors::Ablated };
        let strata = places_of_strata(prompts.iter().map(|prompt| prompt.stratum.as_str()));
        let keeps = Keeps { task, runs, runner, strata, empty: Vec::new(), all: Vec::new() };
        let nothing = BTreeSet::new();
        let (empty, all) =
            (keeps.run(&nothing, Side::Inside)?, keeps.run(&nothing, Side::Outside)?);
        Ok(Keeps { empty, all, ..keeps })
    }

    fn run(&self, circuit: &BTreeSet<FeatureId>, side: Side) -> Result<Vec<f64>> {
        let way = ("feature", Ablation::Mean, Some(Errors::Ablated), side);
        let key = Key::of(self.task, self.runner.cases.len(), way, circuit);
        self.runs.values(key, || self.runner.values(circuit, side))
    }

    fn of(&self, circuit: &BTreeSet<FeatureId>) -> Result<ByStratum> {
        let m = self.run(circuit, Side::Inside)?;
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

/// Prompts in a part of what is kept: scores, and circuits, which take longer.
const SCORED: usize = PROMPTS;
const LINKED: usize = 16;

/// The numbers of a task's first parts, by what they hold.
#[derive(Clone, Copy, Default)]
pub(crate) struct FirstParts {
    scores: u32,
    circuits: u32,
    choice: u32,
}

impl FirstParts {
    /// Those of the next task.
    pub(crate) fn next(self, prompts: &Prompts) -> FirstParts {
        FirstParts {
            scores: self.scores + prompts.finding.len().div_ceil(SCORED) as u32,
            circuits: self.circuits + prompts.own.div_ceil(LINKED) as u32,
            choice: self.choice + 1,
        }
    }
}

/// The search of one task, part by part.
pub(crate) struct Finder<'a> {
    run: &'a Run<'a>,
    task: &'a Task,
    prompts: &'a Prompts,
    metrics: &'a Metrics,
    gradient: Gradient<'a>,
    cases: Vec<Case<'a>>,
    /// What stands in for the features of no circuit.
    ablate: Ablate,
    first: FirstParts,
    held: OnceLock<Vec<Option<Arc<FeatureAblation>>>>,
    /// The pass of the only prompt, so that the dictionaries are not read for it again; those of
    /// many would be large.
    only: Mutex<Option<Pass>>,
}

impl<'a> Finder<'a> {
    /// # Errors
    /// When the tokenizer has no tokens for what is measured.
    pub(crate) fn new(
        run: &'a Run,
        replacement: &'a ReplacementModel,
        task: &'a Task,
        prompts: &'a Prompts,
        metrics: &'a Metrics,
        (ablate, first): (Ablate, FirstParts),
    ) -> Result<Finder<'a>> {
        let gradient = Gradient::new(replacement, middles(run.config.discover.points))?;
        let cases = prompts.finding.iter().map(|prompt| metrics.case(prompt));
        let cases = cases.collect::<Result<Vec<_>>>()?;
        let (held, only) = (OnceLock::new(), Mutex::default());
        Ok(Finder { run, task, prompts, metrics, gradient, cases, ablate, first, held, only })
    }

    /// Ranks, chooses, and finds the circuit of each of the task's own prompts.
    ///
    /// # Errors
    /// When no prompt is used, or a dictionary cannot be read.
    pub(crate) fn find(&self) -> Result<Ranked> {
        let since = Instant::now();
        let scored = self.scored()?;
        let cost = cost(since, self.cases.len());
        let (ranking, circuit) = self.chosen(&scored.means)?;
        let members = Members::new(&self.gradient, &circuit)?;
        let Scored { mut solved, null, hooks, .. } = scored;
        self.run.progress.begin("circuits of prompts", solved.len() as u64, 0);
        for part in self.circuit_parts() {
            let is_whole = |rows: &[PromptCircuitRow]| self.are_circuits(part, rows);
            let make = || self.circuit_rows(part, &solved, &members);
            let rows = self.run.part(&PromptCircuitRow::ARTIFACT, part, is_whole, make)?;
            for (place, row) in self.circuit_places(part).zip(rows) {
                solved[place] = kept_rows::solved(row, place, &self.prompts.finding[place])?;
            }
        }
        Ok(Ranked { solved, cost, ranking, circuit, null, hooks })
    }

    /// Scores a shard's share of the prompts.
    ///
    /// # Errors
    /// As of [`Finder::find`].
    pub(crate) fn make_scores(&self) -> Result<()> {
        let is_whole = |part: u32, rows: &[PromptScoreRow]| self.are_scores(part, rows);
        let make = |part| self.score_rows(part);
        self.run.make_open(&PromptScoreRow::ARTIFACT, self.score_parts(), is_whole, make)
    }

    /// Finds a shard's share of the circuits, once all prompts are scored.
    ///
    /// # Errors
    /// As of [`Finder::find`].
    pub(crate) fn make_circuits(&self) -> Result<()> {
        let run = self.run;
        let own: Vec<u32> = self
            .circuit_parts()
            .filter(|&part| run.has(part) && !run.is_kept(&PromptCircuitRow::ARTIFACT, part))
            .collect();
        let chooses = run.has(self.first.choice) && !run.is_kept(&CHOICES, self.first.choice);
        if own.is_empty() && !chooses {
            return Ok(());
        }
        if !run.are_kept(&PromptScoreRow::ARTIFACT, self.score_parts()) {
            run.parts.leave(own.len() + usize::from(chooses));
            return Ok(());
        }
        let scored = self.scored()?;
        let (_, circuit) = self.chosen(&scored.means)?;
        if own.is_empty() {
            return Ok(());
        }
        let members = Members::new(&self.gradient, &circuit)?;
        run.progress.begin("circuits of prompts", (own.len() * LINKED) as u64, 0);
        own.into_iter().try_for_each(|part| {
            let is_whole = |rows: &[PromptCircuitRow]| self.are_circuits(part, rows);
            let make = || self.circuit_rows(part, &scored.solved, &members);
            run.part(&PromptCircuitRow::ARTIFACT, part, is_whole, make).map(drop)
        })
    }

    fn score_parts(&self) -> Range<u32> {
        self.first.scores..self.first.next(self.prompts).scores
    }

    fn circuit_parts(&self) -> Range<u32> {
        self.first.circuits..self.first.next(self.prompts).circuits
    }

    fn score_places(&self, part: u32) -> Range<usize> {
        places(part - self.first.scores, SCORED, self.cases.len())
    }

    fn circuit_places(&self, part: u32) -> Range<usize> {
        places(part - self.first.circuits, LINKED, self.prompts.own)
    }

    fn are_scores(&self, part: u32, rows: &[PromptScoreRow]) -> bool {
        let layers = self.replacement().model.sizes.layers;
        let dictionaries = DictionaryId::all(layers).count();
        kept_rows::scores_are_of(rows, &self.task.name, self.score_places(part), dictionaries)
    }

    fn are_circuits(&self, part: u32, rows: &[PromptCircuitRow]) -> bool {
        kept_rows::circuits_are_of(rows, &self.task.name, self.circuit_places(part))
    }

    fn replacement(&self) -> &'a ReplacementModel {
        self.gradient.replacement
    }

    /// What stands in for features in each case that counts, made of the twins of those alone, or
    /// zero.
    fn held(&self) -> Result<&[Option<Arc<FeatureAblation>>]> {
        if let Some(held) = self.held.get() {
            return Ok(held);
        }
        let (replacement, cases) = (self.replacement(), &self.cases);
        let counts = counting(replacement, self.task, cases)?;
        let counted: Vec<Case> =
            cases.iter().zip(&counts).filter(|(_, own)| **own).map(|(c, _)| c.clone()).collect();
        let held = ablation_values(replacement, &counted, self.ablate, self.task.seed)?;
        let mut held = held.into_iter();
        let held = counts.into_iter().map(|own| if own { held.next() } else { None }).collect();
        Ok(self.held.get_or_init(|| held))
    }

    fn score_rows(&self, part: u32) -> Result<Vec<PromptScoreRow>> {
        let places = self.score_places(part);
        let (held, start) = (self.held()?, places.start);
        let tokens: Vec<&[u32]> = self.cases[places].iter().map(|case| case.tokens).collect();
        let one = |at: usize, pass: Pass| -> Result<PromptScoreRow> {
            let at = start + at;
            let prompt = &self.prompts.finding[at];
            let solved = Solved::new(self.replacement(), prompt, &pass, self.metrics)?;
            let held = held[at].as_ref().filter(|_| solved.used(self.task.wrong));
            let scores =
                held.map(|held| self.gradient.scores(&self.cases[at], &pass, held)).transpose()?;
            if self.cases.len() == 1 {
                *self.only.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
            }
            self.run.progress.step(1)?;
            Ok(kept_rows::score_row(&self.task.name, at as u32, &solved, scores.as_ref()))
        };
        let mut rows = Vec::new();
        self.replacement().over(&tokens, one, |_, row| rows.push(row))?;
        Ok(rows)
    }

    /// Scores, before a size is chosen.
    fn scored(&self) -> Result<Scored> {
        let Finder { prompts, task, .. } = self;
        let templates = prompts.finding.iter().map(|prompt| prompt.template.as_str());
        let exchanged = exchanged(templates, task.seed);
        let (mut sums, mut null, mut errors) = (Sums::default(), Sums::default(), BTreeMap::new());
        let (mut solved, mut used) = (Vec::new(), 0usize);
        self.run.progress.begin("prompts scored", self.cases.len() as u64, 0);
        let layers = self.replacement().model.sizes.layers;
        for part in self.score_parts() {
            let is_whole = |rows: &[PromptScoreRow]| self.are_scores(part, rows);
            let make = || self.score_rows(part);
            let rows = self.run.part(&PromptScoreRow::ARTIFACT, part, is_whole, make)?;
            for (at, row) in self.score_places(part).zip(rows) {
                let (one, scores) = kept_rows::scored(row, at, &prompts.finding[at])?;
                if let Some((by_part, of_errors)) = scores {
                    used += 1;
                    sums.add(&one.prompt.stratum, &by_part, 1.0);
                    null.add("", &by_part, if exchanged.contains(&at) { -1.0 } else { 1.0 });
                    DictionaryId::all(layers)
                        .zip(&of_errors)
                        .for_each(|(id, error)| *errors.entry(id).or_insert(0.0) += error);
                }
                if at < prompts.own {
                    solved.push(one);
                }
            }
        }
        check_used(self.cases.len(), used)?;
        check_used(solved.len(), solved.iter().filter(|one| one.used(task.wrong)).count())?;
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
        })
    }

    /// The ranking, and the circuit by prompts that it was not ranked on where there are any.
    fn chosen(&self, means: &Means) -> Result<(Ranking, BTreeSet<FeatureId>)> {
        let is_whole = |rows: &[RankingRow]| {
            let is_of = |(rank, row): (u32, &RankingRow)| {
                row.task == self.task.name && row.ranking == FOUND && row.rank == rank
            };
            !rows.is_empty() && (1..).zip(rows).all(is_of)
        };
        let rows = self.run.part(&CHOICES, self.first.choice, is_whole, || {
            let (ranking, circuit) = self.choose(means)?;
            Ok(ranking_rows(&self.task.name, FOUND, &ranking, &circuit).collect())
        })?;
        let chosen = rows.iter().filter(|row| row.chosen).map(|row| row.feature).collect();
        Ok((rows.iter().map(|row| (row.feature, row.score)).collect(), chosen))
    }

    fn choose(&self, means: &Means) -> Result<(Ranking, BTreeSet<FeatureId>)> {
        let Finder { run, prompts, task, .. } = self;
        let (settings, replacement) = (&run.config.discover, self.replacement());
        let on = if prompts.choosing.is_empty() { &prompts.finding } else { &prompts.choosing };
        let (on, cases) = counted(replacement, task, on, self.metrics)?;
        let held = ablation_values(replacement, &cases, self.ablate, task.seed)?;
        let runs = Runs::open(run, CHOICE_RUNS)?;
        let keeps = Keeps::new(replacement, (&task.name, &runs), &on, &cases, &held)?;
        run.progress.say("choosing the size of the circuit");
        let keeps_of = |circuit: &BTreeSet<FeatureId>| {
            process::check()?;
            keeps.of(circuit)
        };
        let choice = choose(means, settings.faithful, settings.most, keeps_of)?;
        let mut circuit = first(&choice.ranking, choice.size);
        if settings.prune {
            run.progress.say("pruning the circuit");
            circuit = prune(circuit, settings.faithful, keeps_of)?;
        }
        Ok((choice.ranking, circuit))
    }

    fn circuit_rows(
        &self,
        part: u32,
        solved: &[Solved],
        members: &Members,
    ) -> Result<Vec<PromptCircuitRow>> {
        let places = self.circuit_places(part);
        let (held, start) = (self.held()?, places.start);
        let (wrong, share) = (self.task.wrong, self.run.config.discover.share);
        let tokens: Vec<&[u32]> =
            self.cases[places.clone()].iter().map(|case| case.tokens).collect();
        let mut circuits = Vec::new();
        let one = |at: usize, pass: Pass| {
            let at = start + at;
            let held = held[at].as_ref().filter(|_| solved[at].used(wrong));
            let circuit = held
                .map(|held| linked(&self.gradient, members, &self.cases[at], &pass, held, share));
            self.run.progress.step(1)?;
            circuit.transpose()
        };
        match self.only.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(pass) => circuits.push(one(0, pass)?),
            None => self.replacement().over(&tokens, one, |_, circuit| circuits.push(circuit))?,
        }
        let row = |(at, circuit): (usize, Option<Circuit>)| {
            let one = Solved { circuit, ..solved[at].bare() };
            kept_rows::circuit_row(&self.task.name, at as u32, &one)
        };
        Ok(places.zip(circuits).map(row).collect())
    }
}

/// Scores, before a size is chosen.
struct Scored {
    solved: Vec<Solved>,
    means: Means,
    null: Ranking,
    hooks: Vec<(DictionaryId, [f64; 3])>,
}

/// A ranking with those of its features that are chosen.
fn ranking_rows<'r>(
    task: &'r str,
    name: &'static str,
    ranking: &'r Ranking,
    chosen: &'r BTreeSet<FeatureId>,
) -> impl Iterator<Item = RankingRow> + 'r {
    (1..).zip(ranking).map(move |(rank, &(feature, score))| RankingRow {
        task: task.into(),
        ranking: name.into(),
        rank,
        feature,
        score,
        chosen: chosen.contains(&feature),
    })
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
        let nothing = BTreeSet::new();
        let found = ranking_rows(task, FOUND, &self.ranking, &self.circuit);
        let null = ranking_rows(task, "null", &self.null, &nothing);
        let n = self.null.len();
        let listed = |row: &RankingRow| {
            let before = row.rank as usize - 1;
            before < LISTED || before + LISTED >= n
        };
        found.chain(null.filter(listed)).collect()
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
