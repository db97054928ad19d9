//! What is compared of a run, read from its tables.

use crate::artifact::Store;
use crate::artifact::tables::{
    ComponentRow, ConformanceRow, EvaluationRow, ExplanationRow, FaithfulnessRow, FeatureRow,
    RankingRow,
};
use crate::error::Result;
use crate::ids::{Component, FeatureId, Status, Subject};
use crate::stats::interval::{Estimate, wilson};
use crate::summary::STATISTICS;
use std::collections::{BTreeMap, BTreeSet};

/// A task with what was measured of it: level, ablation, errors.
pub(super) type Measurement = (String, String, String, String);

/// A feature, and how its explanation was tried: explainer, method, judge.
pub(super) type Trial = (FeatureId, String, String, String);

#[derive(Default)]
pub(super) struct Facts {
    /// By task: components with the share of prompts whose circuit has them.
    pub components: BTreeMap<String, BTreeMap<Component, f64>>,
    /// By task: the features of its circuit.
    pub circuits: BTreeMap<String, BTreeSet<FeatureId>>,
    /// The size of a task's circuit, and its faithfulness if that is known.
    pub faithfulness: BTreeMap<Measurement, (u32, Option<Estimate>)>,
    /// Features with a page: the share of tokens at which each is active.
    pub densities: BTreeMap<FeatureId, Estimate>,
    /// What pages show as the explanation.
    pub explanations: BTreeMap<Subject, String>,
    pub scores: BTreeMap<Trial, Option<Estimate>>,
    /// Variance explained by each dictionary.
    pub dictionaries: BTreeMap<String, f64>,
}

fn estimate(value: Option<f64>, low: Option<f64>, high: Option<f64>) -> Option<Estimate> {
    let value = value.filter(|value| value.is_finite())?;
    Some(Estimate { value, low: low.unwrap_or(value), high: high.unwrap_or(value) })
}

impl Facts {
    /// # Errors
    /// When a table cannot be read.
    pub(super) fn read(store: &Store) -> Result<Facts> {
        let mut facts = Facts { densities: densities(store)?, ..Facts::default() };
        store.each(|row: ComponentRow| {
            facts.components.entry(row.task).or_default().insert(row.component, row.frequency);
        })?;
        store.each(|row: RankingRow| {
            if row.chosen && row.ranking == "found" {
                facts.circuits.entry(row.task).or_default().insert(row.feature);
            }
        })?;
        store.each(|row: FaithfulnessRow| {
            // The circuit of features that was chosen, and that of all heads and MLPs.
            let whole = ["chosen", "frequency >= 0"].contains(&row.variant.as_str());
            let is_found = row.circuit == "found" && row.stratum.is_empty();
            if whole && is_found && row.metric == "faithfulness" {
                let key = (row.task, row.level, row.ablation, row.errors);
                let value = estimate(row.value, row.low, row.high);
                facts.faithfulness.insert(key, (row.size, value));
            }
        })?;
        store.each(|row: ExplanationRow| {
            let of_statistics = row.explainer == STATISTICS;
            if of_statistics {
                facts.explanations.entry(row.subject).or_insert(row.text);
            } else if row.sample == 0 && row.status == Status::Ok {
                facts.explanations.insert(row.subject, row.text);
            }
        })?;
        store.each(|row: EvaluationRow| {
            if row.clause.is_none() {
                let key = (row.subject, row.explainer, row.method, row.judge);
                facts.scores.insert(key, estimate(row.score, row.low, row.high));
            }
        })?;
        store.each(|row: ConformanceRow| {
            facts.dictionaries.insert(row.dictionary.to_string(), row.variance_explained);
        })?;
        Ok(facts)
    }
}

fn densities(store: &Store) -> Result<BTreeMap<FeatureId, Estimate>> {
    let features = store.read_column::<FeatureRow, FeatureId>("feature")?;
    let pages = store.read_column::<FeatureRow, bool>("page")?;
    let active = store.read_column::<FeatureRow, u64>("active")?;
    let density = store.read_column::<FeatureRow, f64>("density")?;
    // All features are counted on the same tokens.
    let of_one = |(active, density): (&u64, &f64)| match *density > 0.0 {
        true => (*active as f64 / density).round() as u64,
        false => 0,
    };
    let tokens = active.iter().zip(&density).map(of_one).max().unwrap_or(0);
    let all = features.into_iter().zip(pages).zip(active);
    let with_page = all.filter(|((_, page), _)| *page);
    Ok(with_page.map(|((feature, _), active)| (feature, wilson(active, tokens))).collect())
}
