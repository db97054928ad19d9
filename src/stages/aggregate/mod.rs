//! `aggregate`: what the scores say of each feature, of features together, and of each component.
//!
//! The scores are larger than memory may be (`machine.memory`). What is of one feature is made of
//! blocks of features, and what is of several of stretches of contexts; tables are written as they
//! are made.

mod evidence;
mod examples;
mod features;
mod pairs;
mod parts;
mod sets;

use crate::artifact::tables::{CircuitFeature, ClusterRow, ExampleRow, PromptRow};
use crate::atlas::scores::Scores;
use crate::circuit::Weighted;
use crate::error::Result;
use crate::ids::{Component, FeatureId, Subject};
use crate::inputs::{self, Contexts};
use crate::stages::{Done, Run};
use examples::{joint_examples, write_logits};
use features::write_features;
use pairs::{write_circuit_pairs, write_corpus_pairs};
use sets::{clusters, group_sets, pair_sets};

/// Everything that the stage works from.
struct Work<'a> {
    run: &'a Run<'a>,
    contexts: Contexts,
    /// By key.
    features: Vec<FeatureId>,
    /// Keys of those with a page, in order: of the others nothing is said but their own statistics,
    /// examples and promoted tokens.
    with_page: Vec<u32>,
    scores: Scores<'a>,
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
    if run.shard.is_some() {
        parts::make_share(&work)?;
        return Ok(run.parts.summary().into());
    }
    if !work.features.is_empty() && work.keys().iter().all(|&key| work.scores.rows(key) == 0) {
        run.progress.line(
            "warning: no scored feature is active anywhere in the corpus, so there are no \
             examples; check that the corpus is text of the kind that the dictionaries were \
             trained on",
        );
    }
    let pairs = write_circuit_pairs(run)?;
    let prompts = run.store.read::<PromptRow>()?.iter().filter(|row| row.used).count() as f64;
    let clusters = clusters(&work.serving, prompts);
    let mut rows: Vec<ClusterRow> = clusters.iter().map(|(row, _)| row.clone()).collect();
    rows.sort_by_cached_key(|row| row.component.to_string());
    run.store.write(run.fingerprint, &rows)?;
    let mut sets: Vec<WeightedSet> = clusters.into_iter().map(|(_, set)| set).collect();
    sets.extend(pair_sets(&pairs, &work.serving, prompts));
    sets.extend(group_sets(run)?);
    sets.sort_by_cached_key(|set| set.subject.to_string());
    let mut examples = run.store.writer::<ExampleRow>(run.fingerprint)?;
    let stretches = parts::stretches(&work)?;
    let maxima = write_features(&work, &stretches, &mut examples)?;
    examples.add(joint_examples(&work, &sets, &maxima)?)?;
    examples.end()?;
    let corpus_pairs = write_corpus_pairs(&work)?;
    write_logits(&work, &stretches, &sets)?;
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
        let features = inputs::scored_features(run.config, &serving)?;
        let with_page = inputs::features_with_page(run.config, &serving);
        let key = |feature| Some(features.binary_search(feature).ok()? as u32);
        let with_page = with_page.iter().filter_map(key).collect();
        let scores = Scores::open(run.store, features.len())?;
        Ok(Work { run, contexts, features, with_page, scores, serving })
    }

    /// The keys of all features.
    fn keys(&self) -> Vec<u32> {
        (0..self.features.len() as u32).collect()
    }

    /// The contexts of one half.
    fn half(&self, explain: bool) -> Vec<u32> {
        let own = |(_, half): &(u32, &bool)| **half == explain;
        (0u32..).zip(&self.contexts.explain).filter(own).map(|(context, _)| context).collect()
    }
}
