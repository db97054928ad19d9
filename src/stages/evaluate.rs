//! `evaluate`: the single-token rule of each feature, learned on the *explain* half, tried on examples of the *score* half.

use super::inputs::Contexts;
use crate::artifact::Row;
use crate::artifact::tables::{
    AgreementRow, CausalRow, EvaluationRow, ExampleRow, FeatureRow, JudgeLedgerRow, JudgementRow, ScoreRow,
};
use crate::config::ScoreMethod;
use crate::corpus::Half;
use crate::error::Result;
use crate::stages::{Done, Run};
use crate::stats::interval::balanced_accuracy;
use crate::stats::mix;
use crate::stats::rule::{Rule, Trial, learn, score};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Learns and tries the single-token rule of every feature.
pub fn run(run: &Run) -> Result<Done> {
    if !run.config.evaluate.methods.contains(&ScoreMethod::SingleToken) {
        run.store.write::<EvaluationRow>(run.fingerprint, &[])?;
        unjudged(run)?;
        return Ok(String::from("no method is set").into());
    }
    run.progress.say("learning and trying single-token rules");
    let contexts = Contexts::load(run.config, run.store)?;
    let features = run.store.read::<FeatureRow>()?;
    let rules = rules(run, &contexts, features.len())?;
    let trials = trials(&contexts, run.store.read::<ExampleRow>()?);
    let none = Vec::new();
    let evaluate = |row: &FeatureRow| {
        let trials = trials.get(&row.feature).unwrap_or(&none);
        let null = stranger(row.key, features.len()).map(|key| &rules[key]);
        evaluation(&row.feature, trials, &rules[row.key as usize], null)
    };
    let mut rows: Vec<EvaluationRow> = features.par_iter().map(evaluate).collect();
    rows.sort_by(|a, b| a.subject.cmp(&b.subject));
    run.store.write(run.fingerprint, &rows)?;
    unjudged(run)?;
    Ok(format!("{} features by their single-token rule", rows.len()).into())
}

/// Tables of judges, empty without one.
fn unjudged(run: &Run) -> Result<()> {
    run.store.write::<JudgementRow>(run.fingerprint, &[])?;
    run.store.write::<AgreementRow>(run.fingerprint, &[])?;
    run.store.write::<CausalRow>(run.fingerprint, &[])?;
    run.store.write::<JudgeLedgerRow>(run.fingerprint, &[])
}

/// Another feature, whose rule stands for chance; none when there is no other.
fn stranger(key: u32, features: usize) -> Option<usize> {
    let others = features.checked_sub(1).filter(|others| *others > 0)?;
    let step = 1 + mix(u64::from(key), 1) as usize % others;
    Some((key as usize + step) % features)
}

fn evaluation(subject: &str, trials: &[Trial], rule: &Rule, null: Option<&Rule>) -> EvaluationRow {
    let accuracy = |rule: &Rule| {
        let tally = score(rule, trials);
        balanced_accuracy(tally.hits, tally.positives, tally.rejects, tally.negatives)
    };
    let own = accuracy(rule);
    EvaluationRow {
        subject: subject.into(),
        explainer: "single-token rule".into(),
        method: "single-token".into(),
        judge: String::new(),
        examples: trials.len() as u32,
        balanced_accuracy: own.map(|e| e.value),
        low: own.map(|e| e.low),
        high: own.map(|e| e.high),
        null: null.and_then(accuracy).map(|e| e.value),
        null_subject: String::new(),
        rule: None,
    }
}

/// The rule of each feature, by key, from the *explain* half.
fn rules(run: &Run, contexts: &Contexts, features: usize) -> Result<Vec<Rule>> {
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    let explain = |context: u32| contexts.explain[context as usize];
    for row in contexts.rows.iter().filter(|row| explain(row.context)) {
        let counting = (0..row.tokens.len() as u16).filter_map(|p| contexts.counting(row.context, p));
        counting.for_each(|id| *seen.entry(id).or_default() += 1);
    }
    let mut active: Vec<BTreeMap<u32, u64>> = vec![BTreeMap::new(); features];
    for part in run.store.parts(&ScoreRow::ARTIFACT)? {
        for row in run.store.read_part::<ScoreRow>(part)?.iter().filter(|row| explain(row.context)) {
            if let Some(id) = contexts.counting(row.context, row.position) {
                *active[row.feature as usize].entry(id).or_default() += 1;
            }
        }
    }
    Ok(active.par_iter().map(|active| learn(active, &seen)).collect())
}

/// The examples of the *score* half, by feature.
fn trials(contexts: &Contexts, rows: Vec<ExampleRow>) -> BTreeMap<String, Vec<Trial>> {
    let mut trials: BTreeMap<String, Vec<Trial>> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.half == Half::Score.word()) {
        let positions = row.start..row.start + row.tokens.len() as u16;
        let tokens = positions.filter_map(|p| contexts.counting(row.context, p)).collect();
        trials.entry(row.subject).or_default().push(Trial { tokens, active: row.band != "inactive" });
    }
    trials
}
