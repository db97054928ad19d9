//! `aggregate`: what the scores say of each feature, of features together, and of each component.

use super::firings::{self, example_row};
use super::inputs::{self, Contexts};
use super::pairs::strongest;
use crate::artifact::tables::{
    CircuitFeature, CircuitPairRow, ClusterRow, CorpusPairRow, EdgeRow, ExampleRow, FeatureRow,
    LogitRow, NodeRow, PromptRow,
};
use crate::circuit::{Edge, Graph, Promoted, Slot, Weighted, World, pair_counts, promoted};
use crate::error::{Result, hinted};
use crate::ids::{Component, FeatureId};
use crate::stages::{Done, Run};
use crate::stats::cooccurrence::{Meetings, Tested};
use crate::stats::examples::{ContextInfo, Peak, Used, Wanted, choose, labelled, peaks, top};
use crate::stats::feature::{Firing, Statistics, statistics};
use crate::stats::joint::summed;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Tokens listed with their share of a feature's activation.
const MASS: usize = 8;

/// Everything that the stage works from.
struct Work<'a> {
    run: &'a Run<'a>,
    contexts: Contexts,
    features: Vec<FeatureId>,
    /// By key; by context and position.
    firings: Vec<Vec<Firing>>,
    statistics: Vec<Statistics>,
    /// The same on the *explain* half alone.
    explain: Vec<Statistics>,
    serving: Vec<CircuitFeature>,
}

/// Features looked at together.
struct Set {
    /// Its name: of a component, a pair (`A+B`) or a group.
    subject: String,
    /// Each with its weight in promoted tokens: the share of all prompts in which it serves (of a
    /// group: 1).
    members: Weighted,
    /// Whether joint examples weigh them in the same way, or each alike.
    weighted_examples: bool,
}

/// Sums up what the scores and circuits say.
pub fn run(run: &Run) -> Result<Done> {
    let work = Work::load(run)?;
    run.store.write(run.fingerprint, &work.feature_rows())?;
    let pairs = write_circuit_pairs(run)?;
    let prompts = run.store.read::<PromptRow>()?.iter().filter(|row| row.used).count() as f64;
    let clusters = clusters(&work.serving, prompts);
    let mut rows: Vec<ClusterRow> = clusters.iter().map(|(row, _)| row.clone()).collect();
    rows.sort_by(|a, b| a.component.cmp(&b.component));
    run.store.write(run.fingerprint, &rows)?;
    let mut sets: Vec<Set> = clusters.into_iter().map(|(_, set)| set).collect();
    sets.extend(pair_sets(&pairs, &work.serving, prompts));
    sets.extend(group_sets(run));
    let corpus_pairs = write_corpus_pairs(&work)?;
    write_examples(&work, &sets)?;
    write_logits(&work, &sets)?;
    let tokens = work.contexts.tokens();
    let features = work.features.len();
    Ok(format!(
        "{features} features over {tokens} tokens, {} pairs in circuits, {corpus_pairs} in the \
         corpus",
        pairs.len()
    )
    .into())
}

impl<'a> Work<'a> {
    fn load(run: &'a Run<'a>) -> Result<Work<'a>> {
        run.progress.say("reading scores");
        let contexts = Contexts::load(run.config, run.store)?;
        let serving = run.store.read::<CircuitFeature>()?;
        let features = inputs::scored_features(run.config, &serving);
        let firings = firings::all(run.store, features.len())?;
        let tokens = contexts.tokens();
        let of = |firings: &Vec<Firing>| {
            statistics(firings, tokens, |c, p| contexts.counting(c, p), MASS)
        };
        let all = firings.par_iter().map(of).collect();
        let half = contexts.tokens_of(|context| contexts.explain[context as usize]);
        let seen =
            |c: u32, p: u16| contexts.counting(c, p).filter(|_| contexts.explain[c as usize]);
        let explain =
            firings.par_iter().map(|firings| statistics(firings, half, seen, MASS)).collect();
        Ok(Work { run, contexts, features, firings, statistics: all, explain, serving })
    }

    /// Firings of a feature at tokens that count.
    fn counting(&self, key: usize) -> impl Iterator<Item = Firing> + '_ {
        let counts = |f: &&Firing| self.contexts.counting(f.context, f.position).is_some();
        self.firings[key].iter().filter(counts).copied()
    }

    fn feature_rows(&self) -> Vec<FeatureRow> {
        let mut serving: BTreeMap<&str, Vec<&CircuitFeature>> = BTreeMap::new();
        self.serving.iter().for_each(|row| serving.entry(&row.feature).or_default().push(row));
        let each = self.features.iter().zip(&self.statistics).zip(0u32..);
        let row = |((feature, statistics), key): ((&FeatureId, &Statistics), u32)| {
            let name = feature.to_string();
            let serving = serving.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
            self.feature_row(key, feature, statistics, serving)
        };
        each.map(row).collect()
    }

    fn feature_row(
        &self,
        key: u32,
        feature: &FeatureId,
        s: &Statistics,
        serving: &[&CircuitFeature],
    ) -> FeatureRow {
        let explain = &self.explain[key as usize];
        let components: BTreeSet<Component> =
            serving.iter().filter_map(|row| row.component.parse().ok()).collect();
        let tasks = self.run.config.tasks.iter().map(|task| &task.name);
        let in_it = |task: &&String| serving.iter().any(|row| row.task == **task);
        FeatureRow {
            key,
            feature: feature.to_string(),
            kind: feature.dictionary.kind.word().into(),
            layer: feature.dictionary.layer as u32,
            index: feature.index as u32,
            active: s.active,
            density: s.density,
            mean_active: s.mean_active,
            max: s.max,
            special_active: s.special_active,
            histogram: s.histogram.clone(),
            tasks: tasks.filter(in_it).cloned().collect(),
            components: components.iter().map(ToString::to_string).collect(),
            mass_tokens: s.mass.iter().map(|(id, _)| *id).collect(),
            mass_shares: s.mass.iter().map(|(_, share)| *share).collect(),
            explain_tokens: explain.mass.iter().map(|(id, _)| *id).collect(),
            explain_shares: explain.mass.iter().map(|(_, share)| *share).collect(),
            explain_density: explain.density,
        }
    }

    fn info(&self, context: u32) -> ContextInfo<'_> {
        let row = &self.contexts.rows[context as usize];
        ContextInfo { document: row.document, tokens: &row.tokens }
    }

    fn wanted(&self) -> Wanted {
        let aggregate = &self.run.config.aggregate;
        Wanted { top: aggregate.examples, per_band: aggregate.band_examples }
    }

    /// The contexts of one half.
    fn half(&self, explain: bool) -> Vec<u32> {
        let own = |(_, half): &(u32, &bool)| **half == explain;
        (0u32..).zip(&self.contexts.explain).filter(own).map(|(context, _)| context).collect()
    }

    /// The firings of a set as one: each feature scaled by its maximum and, if wanted, by its
    /// weight over the largest.
    fn together(&self, set: &Set) -> Vec<Firing> {
        let largest = set.members.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        let of = |(feature, weight): &(FeatureId, f64)| {
            let key = self.features.binary_search(feature).ok()?;
            let max = f64::from(self.statistics[key].max);
            let scale = if set.weighted_examples { weight / largest / max } else { 1.0 / max };
            (max > 0.0).then(|| (self.counting(key).collect::<Vec<_>>(), scale))
        };
        let members: Vec<(Vec<Firing>, f64)> = set.members.iter().filter_map(of).collect();
        summed(
            &members
                .iter()
                .map(|(firings, scale)| (firings.as_slice(), *scale))
                .collect::<Vec<_>>(),
        )
    }
}

/// The circuits as `discover` left them.
fn graphs(run: &Run) -> Result<BTreeMap<String, Vec<Graph>>> {
    let mut graphs: BTreeMap<(String, u32), Graph> = BTreeMap::new();
    for row in run.store.read::<NodeRow>()? {
        graphs.entry((row.task.clone(), row.prompt)).or_default().nodes.push(inputs::node(&row)?);
    }
    for row in run.store.read::<EdgeRow>()? {
        let graph = graphs.entry((row.task.clone(), row.prompt)).or_default();
        let at = |number: u32| graph.nodes.get(number as usize).copied();
        let (Some(child), Some(parent), Some(slot)) =
            (at(row.from), at(row.to), Slot::from_word(&row.slot))
        else {
            let what = format!(
                "`edges` holds a link of prompt {} of `{}` that `nodes` does not know",
                row.prompt, row.task
            );
            return Err(hinted(what, inputs::DISCOVER));
        };
        graph.edges.push(Edge { child, parent, slot, effect: row.effect, share: row.share });
    }
    let mut by_task: BTreeMap<String, Vec<Graph>> = BTreeMap::new();
    graphs.into_iter().for_each(|((task, _), graph)| by_task.entry(task).or_default().push(graph));
    Ok(by_task)
}

fn write_circuit_pairs(run: &Run) -> Result<Vec<CircuitPairRow>> {
    let mut rows = Vec::new();
    for (task, graphs) in graphs(run)? {
        let pair = |([a, b], count): ([(Component, FeatureId); 2], crate::circuit::PairCount)| {
            CircuitPairRow {
                task: task.clone(),
                component_a: a.0.to_string(),
                component_b: b.0.to_string(),
                feature_a: a.1.to_string(),
                feature_b: b.1.to_string(),
                prompts: count.prompts,
                share: count.share,
            }
        };
        rows.extend(pair_counts(&graphs).into_iter().map(pair));
    }
    let key = |row: &CircuitPairRow| {
        [&row.task, &row.component_a, &row.component_b, &row.feature_a, &row.feature_b]
            .map(String::clone)
    };
    rows.sort_by_cached_key(key);
    run.store.write(run.fingerprint, &rows)?;
    Ok(rows)
}

/// The features of each component over all tasks.
fn clusters(serving: &[CircuitFeature], prompts: f64) -> Vec<(ClusterRow, Set)> {
    let mut members: BTreeMap<Component, BTreeMap<FeatureId, u32>> = BTreeMap::new();
    for row in serving {
        if let (Ok(component), Ok(feature)) =
            (row.component.parse::<Component>(), row.feature.parse::<FeatureId>())
        {
            *members.entry(component).or_default().entry(feature).or_default() += row.prompts;
        }
    }
    let cluster = |(component, members): (Component, BTreeMap<FeatureId, u32>)| {
        let mut members: Vec<(FeatureId, u32)> = members.into_iter().collect();
        members.sort_by_key(|(feature, prompts)| (std::cmp::Reverse(*prompts), *feature));
        let row = ClusterRow {
            component: component.to_string(),
            features: members.len() as u32,
            members: members.iter().map(|(feature, _)| feature.to_string()).collect(),
            weights: members.iter().map(|(_, prompts)| *prompts).collect(),
        };
        let members = members
            .into_iter()
            .map(|(feature, times)| (feature, f64::from(times) / prompts))
            .collect();
        (row, Set { subject: component.to_string(), members, weighted_examples: true })
    };
    members.into_iter().map(cluster).collect()
}

/// A member counts by the prompts in which it serves at the component where it does so most.
fn pair_sets(pairs: &[CircuitPairRow], serving: &[CircuitFeature], prompts: f64) -> Vec<Set> {
    let mut at: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for row in serving {
        *at.entry((&row.feature, &row.component)).or_default() += row.prompts;
    }
    let mut often: BTreeMap<&str, u32> = BTreeMap::new();
    for ((feature, _), times) in at {
        let most = often.entry(feature).or_default();
        *most = (*most).max(times);
    }
    let names: BTreeSet<String> = strongest(pairs).into_values().flatten().collect();
    let set = |subject: String| {
        let weight = |name: &str| f64::from(often.get(name).copied().unwrap_or(0)) / prompts;
        let members = subject
            .split('+')
            .filter_map(|name| Some((name.parse().ok()?, weight(name))))
            .collect();
        Set { subject, members, weighted_examples: false }
    };
    names.into_iter().map(set).collect()
}

fn group_sets(run: &Run) -> Vec<Set> {
    let set = |group: &crate::config::Group| Set {
        subject: group.name.clone(),
        members: group.features.iter().filter_map(|name| Some((name.parse().ok()?, 1.0))).collect(),
        weighted_examples: false,
    };
    run.config.groups.iter().map(set).collect()
}

/// Counts and tests every two features over the corpus; writes those that meet more often than by
/// chance.
fn write_corpus_pairs(work: &Work) -> Result<usize> {
    work.run.progress.say("counting which features meet");
    let meetings = meetings(work);
    let named = |lag: &'static str| move |pair: Tested| (lag, pair);
    let tested = meetings.test_same().into_iter().map(named("same"));
    let tested = tested.chain(meetings.test_lagged().into_iter().map(named("window")));
    let kept = tested.filter(|(_, pair)| pair.q <= SIGNIFICANT);
    let mut rows: Vec<CorpusPairRow> =
        kept.map(|(lag, pair)| corpus_pair(&work.features, lag, &pair)).collect();
    rows.sort_by(|a, b| {
        (&a.feature_a, &a.feature_b, &a.lag).cmp(&(&b.feature_a, &b.feature_b, &b.lag))
    });
    work.run.store.write(work.run.fingerprint, &rows)?;
    Ok(rows.len())
}

/// Pairs are kept up to this q-value.
const SIGNIFICANT: f64 = 0.01;

fn corpus_pair(features: &[FeatureId], lag: &str, pair: &Tested) -> CorpusPairRow {
    let counts = pair.counts;
    let (mut a, mut b) = (
        (features[pair.f as usize].to_string(), counts.f),
        (features[pair.g as usize].to_string(), counts.g),
    );
    // At the same token neither is first; the names are in the order of a pair's name.
    if lag == "same" && a.0 > b.0 {
        std::mem::swap(&mut a, &mut b);
    }
    CorpusPairRow {
        feature_a: a.0,
        feature_b: b.0,
        lag: lag.into(),
        n_a: a.1,
        n_b: b.1,
        n_ab: counts.both,
        expected: counts.expected(),
        lift: counts.lift(),
        npmi: counts.npmi(),
        jaccard: counts.jaccard(),
        phi: counts.phi(),
        p: pair.p,
        q: pair.q,
    }
}

fn meetings(work: &Work) -> Meetings {
    let mut active: Vec<Vec<(u16, u32)>> = vec![Vec::new(); work.contexts.rows.len()];
    for (key, firings) in (0u32..).zip(&work.firings) {
        firings.iter().for_each(|f| active[f.context as usize].push((f.position, key)));
    }
    let n = work.features.len();
    let add = |mut meetings: Meetings, context: usize| {
        let tokens = &work.contexts.rows[context].tokens;
        let counts: Vec<bool> = (0..tokens.len())
            .map(|p| work.contexts.counting(context as u32, p as u16).is_some())
            .collect();
        let mut at = vec![Vec::new(); tokens.len()];
        active[context].iter().for_each(|&(position, key)| at[position as usize].push(key));
        meetings.add(&counts, &at);
        meetings
    };
    // A table of all pairs for each thread, but not for each context.
    let pieces = rayon::current_num_threads().min(8);
    let size = work.contexts.rows.len().div_ceil(pieces);
    let piece = |i: usize| {
        let of = i * size..((i + 1) * size).min(work.contexts.rows.len());
        of.fold(Meetings::new(n, work.run.config.aggregate.window), add)
    };
    let pieces: Vec<Meetings> = (0..pieces).into_par_iter().map(piece).collect();
    pieces.into_iter().reduce(|all, piece| all.merge(&piece)).unwrap_or_else(|| Meetings::new(n, 1))
}

fn write_examples(work: &Work, sets: &[Set]) -> Result<()> {
    let progress = work.run.progress;
    progress.begin("examples", (work.features.len() + sets.len()) as u64, 0);
    let halves = [true, false].map(|explain| (explain, work.half(explain)));
    let of_feature = |key: usize| {
        let firings: Vec<Firing> = work.counting(key).collect();
        let rows = feature_examples(work, key, &firings, &halves);
        progress.add(1);
        rows
    };
    let of_set = |set: &Set| {
        let rows = set_examples(work, set);
        progress.add(1);
        rows
    };
    let mut rows: Vec<ExampleRow> =
        (0..work.features.len()).into_par_iter().flat_map_iter(of_feature).collect();
    rows.par_extend(sets.par_iter().flat_map_iter(of_set));
    rows.par_sort_by(|a, b| {
        (&a.subject, &a.half, &a.band, a.rank).cmp(&(&b.subject, &b.half, &b.band, b.rank))
    });
    work.run.store.write(work.run.fingerprint, &rows)
}

fn feature_examples(
    work: &Work,
    key: usize,
    firings: &[Firing],
    halves: &[(bool, Vec<u32>); 2],
) -> Vec<ExampleRow> {
    let all = peaks(firings.iter().copied());
    let mut rows = Vec::new();
    for (explain, contexts) in halves {
        let own = of_half(work, &all, *explain);
        let info = |context| work.info(context);
        let chosen = choose(&own, contexts, &info, work.wanted(), work.features[key].salt());
        let subject = work.features[key].to_string();
        rows.extend(
            chosen.iter().map(|example| example_row(&work.contexts, &subject, example, firings)),
        );
    }
    rows
}

fn set_examples(work: &Work, set: &Set) -> Vec<ExampleRow> {
    let firings = work.together(set);
    let all = peaks(firings.iter().copied());
    let mut rows = Vec::new();
    for explain in [true, false] {
        let own = of_half(work, &all, explain);
        let best =
            top(&own, &|context| work.info(context), work.wanted().top, &mut Used::default());
        let chosen = labelled("top", best);
        rows.extend(
            chosen
                .iter()
                .map(|example| example_row(&work.contexts, &set.subject, example, &firings)),
        );
    }
    rows
}

fn of_half(work: &Work, peaks: &[Peak], explain: bool) -> Vec<Peak> {
    peaks
        .iter()
        .filter(|peak| work.contexts.explain[peak.context as usize] == explain)
        .copied()
        .collect()
}

fn write_logits(work: &Work, sets: &[Set]) -> Result<()> {
    work.run.progress.say("reading off promoted tokens");
    let world: World = inputs::world(work.run)?;
    let alone = work.features.iter().map(|&feature| (feature.to_string(), vec![(feature, 1.0)]));
    let together = sets.iter().map(|set| (set.subject.clone(), set.members.clone()));
    let (subjects, members): (Vec<String>, Vec<Weighted>) = alone.chain(together).unzip();
    let promoted = promoted(&world, &members, work.run.config.logits.k)?;
    let mut rows: Vec<LogitRow> = subjects
        .iter()
        .zip(&promoted)
        .flat_map(|(subject, promoted)| logit_rows(work, subject, promoted))
        .collect();
    rows.sort_by(|a, b| (&a.subject, &a.side, a.rank).cmp(&(&b.subject, &b.side, b.rank)));
    work.run.store.write(work.run.fingerprint, &rows)
}

fn logit_rows(work: &Work, subject: &str, promoted: &Promoted) -> Vec<LogitRow> {
    let strength = work.run.config.logits.strength;
    let side = |side: &'static str, tokens: &[(u32, f32)]| {
        let row = |(rank, &(token, logit)): (u32, &(u32, f32))| LogitRow {
            subject: subject.into(),
            side: side.into(),
            rank,
            token,
            text: work.contexts.tokenizer().token(token),
            logit,
            at_strength: (f64::from(logit) * strength) as f32,
        };
        (0u32..).zip(tokens).map(row).collect::<Vec<_>>()
    };
    [side("top", &promoted.top), side("bottom", &promoted.bottom)].concat()
}
