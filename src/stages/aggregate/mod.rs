//! `aggregate`: what the scores say of each feature, of features together, and of each component.

mod evidence;
mod examples;
mod pairs;
mod sets;

use crate::artifact::tables::{CircuitFeature, ClusterRow, FeatureRow, PromptRow};
use crate::atlas::activations::{self, Part, feature_row, measured};
use crate::circuit::Weighted;
use crate::error::Result;
use crate::ids::{Component, FeatureId, Subject};
use crate::inputs::{self, Contexts};
use crate::stages::{Done, Run};
use crate::stats::examples::Wanted;
use crate::stats::feature::{Statistics, TokenActivation};
use evidence::write_evidence;
use examples::{write_examples, write_logits};
use pairs::{write_circuit_pairs, write_corpus_pairs};
use rayon::prelude::*;
use sets::{clusters, group_sets, pair_sets};
use std::collections::BTreeMap;

/// Everything that the stage works from.
struct Work<'a> {
    run: &'a Run<'a>,
    contexts: Contexts,
    features: Vec<FeatureId>,
    /// By key; by context and position.
    activations: Vec<Vec<TokenActivation>>,
    statistics: Vec<Statistics>,
    /// The same on the *explain* half alone.
    explain: Vec<Statistics>,
    serving: Vec<CircuitFeature>,
}

/// Features looked at together.
struct WeightedSet {
    subject: Subject,
    /// Each with its weight in promoted tokens: the share of all prompts in which it serves (of a
    /// group: 1).
    members: Weighted,
    /// Whether joint examples weigh them in the same way, or each alike.
    weighted_examples: bool,
}

/// Sums up what the scores and circuits say.
pub fn run(run: &Run) -> Result<Done> {
    let work = Work::load(run)?;
    if !work.features.is_empty() && work.activations.iter().all(Vec::is_empty) {
        run.progress.line(
            "warning: no scored feature is active anywhere in the corpus, so there are no \
             examples; check that the corpus is text of the kind that the dictionaries were \
             trained on",
        );
    }
    run.store.write(run.fingerprint, &work.feature_rows())?;
    let pairs = write_circuit_pairs(run)?;
    let prompts = run.store.read::<PromptRow>()?.iter().filter(|row| row.used).count() as f64;
    let clusters = clusters(&work.serving, prompts);
    let mut rows: Vec<ClusterRow> = clusters.iter().map(|(row, _)| row.clone()).collect();
    rows.sort_by_cached_key(|row| row.component.to_string());
    run.store.write(run.fingerprint, &rows)?;
    let mut sets: Vec<WeightedSet> = clusters.into_iter().map(|(_, set)| set).collect();
    sets.extend(pair_sets(&pairs, &work.serving, prompts));
    sets.extend(group_sets(run)?);
    let corpus_pairs = write_corpus_pairs(&work)?;
    write_examples(&work, &sets)?;
    write_evidence(&work)?;
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

/// The features that serve at a component, each with its weight among them.
pub(crate) fn members_at(run: &Run, component: Component) -> Result<Weighted> {
    let prompts = run.store.read::<PromptRow>()?.iter().filter(|row| row.used).count() as f64;
    let all = clusters(&run.store.read::<CircuitFeature>()?, prompts).into_iter();
    let own = all.filter(|(row, _)| row.component == component);
    Ok(own.flat_map(|(_, set)| set.members).collect())
}

impl<'a> Work<'a> {
    fn load(run: &'a Run<'a>) -> Result<Work<'a>> {
        run.progress.say("reading scores");
        let contexts = Contexts::load(run.config, run.store)?;
        let serving = run.store.read::<CircuitFeature>()?;
        let features = inputs::scored_features(run.config, &serving);
        let activations = activations::all(run.store, features.len())?;
        let tokens = contexts.tokens();
        let half = contexts.tokens_of(|context| contexts.explain[context as usize]);
        let of = |own: &Vec<TokenActivation>| measured(&contexts, own, [tokens, half]);
        let each: Vec<[Statistics; 2]> = activations.par_iter().map(of).collect();
        let (all, explain) = each.into_iter().map(|[all, explain]| (all, explain)).unzip();
        Ok(Work { run, contexts, features, activations, statistics: all, explain, serving })
    }

    /// The activations of a feature at tokens that count.
    fn counting(&self, key: usize) -> impl Iterator<Item = TokenActivation> + '_ {
        activations::counting(&self.contexts, &self.activations[key])
    }

    /// Those of the *explain* half.
    fn explained(&self, key: usize) -> impl Iterator<Item = TokenActivation> + '_ {
        self.counting(key).filter(|at| self.contexts.explain[at.context as usize])
    }

    fn feature_rows(&self) -> Vec<FeatureRow> {
        let mut serving: BTreeMap<FeatureId, Vec<&CircuitFeature>> = BTreeMap::new();
        self.serving.iter().for_each(|row| serving.entry(row.feature).or_default().push(row));
        let row = |(key, feature): (u32, &FeatureId)| {
            let serving = serving.get(feature).map(Vec::as_slice).unwrap_or_default();
            let of = [&self.statistics, &self.explain].map(|all| &all[key as usize]);
            let tasks = self.run.config.tasks.iter().map(|task| task.name.clone());
            feature_row(key, *feature, of, serving, tasks)
        };
        (0u32..).zip(&self.features).map(row).collect()
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

    /// The activations of a set as one: each feature scaled by its maximum and, if wanted, by its
    /// weight over the largest.
    fn together(&self, set: &WeightedSet) -> Vec<TokenActivation> {
        let of = |&(feature, weight): &(FeatureId, f64)| {
            let key = self.features.binary_search(&feature).ok()?;
            let max = f64::from(self.statistics[key].max);
            Some(Part { activations: self.counting(key).collect(), max, weight })
        };
        let parts: Vec<Part> = set.members.iter().filter_map(of).collect();
        activations::together(&parts, set.weighted_examples)
    }
}
