//! Pairs of features: in circuits and in the corpus.

use super::Work;
use crate::artifact::tables::{CircuitPairRow, CorpusPairRow};
use crate::atlas::graphs;
use crate::circuit::{Graph, pair_counts};
use crate::error::Result;
use crate::ids::{Component, FeatureId, Lag};
use crate::process::{self, Stopped};
use crate::stages::Run;
use crate::stats::cooccurrence::{Cooccurrence, Tested};
use rayon::prelude::*;
use std::collections::BTreeMap;

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

/// Counts and tests every two features over the corpus; writes those that co-occur more often than
/// by chance.
pub(super) fn write_corpus_pairs(work: &Work) -> Result<usize> {
    work.run.progress.say("counting co-occurrence");
    let counted = cooccurrence(work)?;
    let named = |lag: Lag| move |pair: Tested| (lag, pair);
    let tested = counted.test_same()?.into_iter().map(named(Lag::Same));
    let tested = tested.chain(counted.test_lagged()?.into_iter().map(named(Lag::Window)));
    let kept = tested.filter(|(_, pair)| pair.q <= SIGNIFICANT);
    let mut rows: Vec<CorpusPairRow> =
        kept.map(|(lag, pair)| corpus_pair(&work.features, lag, &pair)).collect();
    let key = |row: &CorpusPairRow| (row.feature_a.to_string(), row.feature_b.to_string(), row.lag);
    rows.sort_by_cached_key(key);
    work.run.store.write(work.run.fingerprint, &rows)?;
    Ok(rows.len())
}

/// Pairs are kept up to this q-value.
const SIGNIFICANT: f64 = 0.01;

fn corpus_pair(features: &[FeatureId], lag: Lag, pair: &Tested) -> CorpusPairRow {
    let counts = pair.counts;
    let (mut a, mut b) =
        ((features[pair.f as usize], counts.f), (features[pair.g as usize], counts.g));
    // At the same token neither is first; the names are in the order of a pair's name.
    if lag == Lag::Same && a.0.to_string() > b.0.to_string() {
        std::mem::swap(&mut a, &mut b);
    }
    CorpusPairRow {
        feature_a: a.0,
        feature_b: b.0,
        lag,
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

fn cooccurrence(work: &Work) -> Result<Cooccurrence> {
    let mut active: Vec<Vec<(u16, u32)>> = vec![Vec::new(); work.contexts.rows.len()];
    for (key, activations) in (0u32..).zip(&work.activations) {
        activations.iter().for_each(|f| active[f.context as usize].push((f.position, key)));
    }
    let n = work.features.len();
    let add = |mut counted: Cooccurrence, context: usize| -> Result<Cooccurrence, Stopped> {
        process::check()?;
        let tokens = &work.contexts.rows[context].tokens;
        let counts: Vec<bool> = (0..tokens.len())
            .map(|p| work.contexts.counting(context as u32, p as u16).is_some())
            .collect();
        let mut at = vec![Vec::new(); tokens.len()];
        active[context].iter().for_each(|&(position, key)| at[position as usize].push(key));
        counted.add(&counts, &at);
        Ok(counted)
    };
    // A table of all pairs for each thread, but not for each context.
    let pieces = rayon::current_num_threads().min(8);
    let size = work.contexts.rows.len().div_ceil(pieces);
    let piece = |i: usize| {
        let mut of = i * size..((i + 1) * size).min(work.contexts.rows.len());
        of.try_fold(Cooccurrence::new(n, work.run.config.aggregate.window), add)
    };
    let pieces: Vec<Cooccurrence> =
        (0..pieces).into_par_iter().map(piece).collect::<Result<_, _>>()?;
    Ok(pieces
        .into_iter()
        .reduce(|all, piece| all.merge(&piece))
        .unwrap_or_else(|| Cooccurrence::new(n, 1)))
}
