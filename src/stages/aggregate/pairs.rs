//! Pairs of features: in circuits and in the corpus.

use super::Work;
use crate::artifact::tables::{CircuitPairRow, CorpusPairRow};
use crate::atlas::graphs;
use crate::atlas::scores::Block;
use crate::circuit::{Graph, pair_counts};
use crate::error::Result;
use crate::ids::{Component, FeatureId, Lag};
use crate::inputs::Contexts;
use crate::process;
use crate::stages::Run;
use crate::stats::cooccurrence::{Cooccurrence, Counts, Tested, Tests};
use crate::stats::feature::TokenActivation;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// The circuits of each task.
fn circuits(run: &Run) -> Result<BTreeMap<String, Vec<Graph>>> {
    let mut by_task: BTreeMap<String, Vec<Graph>> = BTreeMap::new();
    for ((task, _), circuit) in graphs(run.store)? {
        by_task.entry(task).or_default().push(circuit.graph());
    }
    Ok(by_task)
}

pub(super) fn write_circuit_pairs(run: &Run) -> Result<Vec<CircuitPairRow>> {
    let mut rows = Vec::new();
    for (task, graphs) in circuits(run)? {
        let pair = |([a, b], count): ([(Component, FeatureId); 2], crate::circuit::PairCount)| {
            CircuitPairRow {
                task: task.clone(),
                component_a: a.0,
                component_b: b.0,
                feature_a: a.1,
                feature_b: b.1,
                prompts: count.prompts,
                share: count.share,
            }
        };
        rows.extend(pair_counts(&graphs).into_iter().map(pair));
    }
    let key = |row: &CircuitPairRow| {
        let at = [row.component_a, row.component_b].map(|component| component.to_string());
        (row.task.clone(), at, [row.feature_a, row.feature_b].map(|feature| feature.to_string()))
    };
    rows.sort_by_cached_key(key);
    run.store.write(run.fingerprint, &rows)?;
    Ok(rows)
}

/// Pairs are kept up to this q-value.
const SIGNIFICANT: f64 = 0.01;

/// Counts and tests every two of the features with a page over the corpus; writes those that co-occur
/// more often than by chance.
pub(super) fn write_corpus_pairs(work: &Work) -> Result<usize> {
    work.run.progress.say("counting co-occurrence");
    let features: Vec<FeatureId> =
        work.with_page.iter().map(|&key| work.features[key as usize]).collect();
    let mut by_name: Vec<usize> = (0..features.len()).collect();
    by_name.sort_by_cached_key(|&place| features[place].to_string());
    let mut names = vec![0; features.len()];
    (0u32..).zip(by_name).for_each(|(name, place)| names[place] = name);
    let (margins, tests) = tests(work)?;
    let mut pairs: Vec<Met> = Vec::new();
    for (lag, tests) in [Lag::Same, Lag::Window].into_iter().zip(tests) {
        let met = |(pair, q): (Tested, f64)| {
            let names = [pair.f, pair.g].map(|place| names[place as usize]);
            // At the same token neither is first; the names are in the order of a pair's name.
            let turned = lag == Lag::Same && names[0] > names[1];
            let names = if turned { [names[1], names[0]] } else { names };
            Met { names, lag, turned, pair, q }
        };
        pairs.extend(tests.corrected(SIGNIFICANT).into_iter().map(met));
    }
    pairs.sort_unstable_by_key(|met| (met.names, met.lag));
    let mut table = work.run.store.writer::<CorpusPairRow>(work.run.fingerprint)?;
    table.add(pairs.iter().map(|met| corpus_pair(&features, &margins, met)))?;
    table.end()?;
    Ok(pairs.len())
}

/// A pair that is kept.
struct Met {
    /// The places of its names in their order.
    names: [u32; 2],
    lag: Lag,
    /// Whether its second feature is told first.
    turned: bool,
    pair: Tested,
    q: f64,
}

/// At how many tokens each feature is active, and has been in the window before, by place.
#[derive(Default)]
struct Margins {
    tokens: u64,
    active: Vec<u64>,
    before: Vec<u64>,
}

fn corpus_pair(features: &[FeatureId], margins: &Margins, met: &Met) -> CorpusPairRow {
    let Met { lag, pair, q, turned, .. } = met;
    let (f, g) = (pair.f as usize, pair.g as usize);
    let first = if *lag == Lag::Same { &margins.active } else { &margins.before };
    let counts = Counts { n: margins.tokens, f: first[f], g: margins.active[g], both: pair.both };
    let (mut a, mut b) = ((features[f], counts.f), (features[g], counts.g));
    if *turned {
        std::mem::swap(&mut a, &mut b);
    }
    CorpusPairRow {
        feature_a: a.0,
        feature_b: b.0,
        lag: *lag,
        n_a: a.1,
        n_b: b.1,
        n_ab: counts.both,
        expected: counts.expected(),
        lift: counts.lift(),
        npmi: counts.npmi(),
        jaccard: counts.jaccard(),
        phi: counts.phi(),
        p: pair.p,
        q: *q,
    }
}

/// Tables of counts for each thread, so that none waits long for another.
const TABLES: usize = 4;

/// The tests at the same token and in the window. Counts of some features with all are in memory at
/// once; for the next ones the scores are read again.
fn tests(work: &Work) -> Result<(Margins, [Tests; 2])> {
    let (features, window) = (work.with_page.len(), work.run.config.aggregate.window);
    let machine = &work.run.config.machine;
    let rows = (machine.share(4) / Cooccurrence::bytes(features).max(1)).max(1);
    let (mut margins, mut same, mut lagged) =
        (Margins::default(), Tests::default(), Tests::default());
    for start in (0..features).step_by(rows) {
        let end = features.min(start + rows);
        let each = (end - start).div_ceil(TABLES * rayon::current_num_threads());
        let table = |from: usize| Cooccurrence::of(from..end.min(from + each), features, window);
        let mut tables: Vec<Cooccurrence> = (start..end).step_by(each).map(table).collect();
        work.scores.stretches(
            &work.contexts,
            &work.with_page,
            machine.share(8),
            |some, block| {
                process::check()?;
                let active = Active::new(&work.contexts, some, block);
                tables.par_iter_mut().for_each(|table| active.add_to(table));
                Ok(())
            },
        )?;
        for table in tables {
            margins.tokens = table.tokens();
            margins.active = table.active().to_vec();
            margins.before.extend(table.before());
            same.extend(table.test_same(SIGNIFICANT)?);
            lagged.extend(table.test_lagged(SIGNIFICANT)?);
        }
    }
    Ok((margins, [same, lagged]))
}

/// The features that are active at each token of some contexts.
struct Active {
    /// Where the tokens of each context begin, and behind the last one where they end.
    contexts: Vec<usize>,
    /// Whether each token counts.
    counts: Vec<bool>,
    /// By token: where its features begin, and behind the last one where they end.
    first: Vec<usize>,
    /// By token, in rising order.
    features: Vec<u32>,
}

impl Active {
    fn new(contexts: &Contexts, some: Range<u32>, block: &Block) -> Active {
        let (mut starts, mut counts) = (vec![0], Vec::new());
        for context in some.clone() {
            let positions = 0..contexts.rows[context as usize].tokens.len() as u16;
            counts.extend(positions.map(|p| contexts.counting(context, p).is_some()));
            starts.push(counts.len());
        }
        let token = |at: &TokenActivation| {
            starts[(at.context - some.start) as usize] + usize::from(at.position)
        };
        let mut first = vec![0; counts.len() + 1];
        let all = || (0..block.len()).flat_map(|place| block.at(place));
        all().for_each(|at| first[token(at) + 1] += 1);
        (1..first.len()).for_each(|i| first[i] += first[i - 1]);
        let (mut next, mut features) = (first.clone(), vec![0; first[counts.len()]]);
        for place in 0..block.len() {
            for at in block.at(place) {
                let next = &mut next[token(at)];
                features[*next] = place as u32;
                *next += 1;
            }
        }
        Active { contexts: starts, counts, first, features }
    }

    fn add_to(&self, table: &mut Cooccurrence) {
        for own in self.contexts.windows(2) {
            let active = |position: usize| {
                let token = own[0] + position;
                &self.features[self.first[token]..self.first[token + 1]]
            };
            table.add(&self.counts[own[0]..own[1]], active);
        }
    }
}
