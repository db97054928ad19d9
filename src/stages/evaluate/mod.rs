//! `evaluate`: how good explanations are on documents that they have never seen: of single-token
//! rules, of a language model before a judge, and of the output side by what the live model says
//! more of.

mod judging;
mod rules;
mod steering;
mod texts;
mod work;

use crate::artifact::tables::{AgreementRow, CausalRow, EvaluationRow, JUDGE_LEDGER, JudgementRow};
use crate::circuit::ReplacementModel;
use crate::config::{Config, ScoreMethod};
use crate::error::Result;
use crate::inputs;
use crate::llm::Plan;
use crate::lock::Ingredients;
use crate::stages::usage_report::{self, once};
use crate::stages::{Done, Run};
use crate::stats::rule::Rule;
use judging::{Askers, JudgedRows, Judging};
use work::Work;

/// Whose explanation it is, where no language model wrote it: of the rule that is learned on the
/// *explain* half, and of what the weights alone say.
const RULE: &str = "single-token rule";
const WEIGHTS: &str = "weights";

/// Whether a language model is asked to judge.
pub fn asks(config: &Config) -> bool {
    config.llm.asks() && config.evaluate.judges()
}

/// What others have explained, where it is judged.
pub fn besides(config: &Config) -> Ingredients {
    if asks(config) { inputs::imported(config) } else { Ingredients::new() }
}

/// Tries everything that the settings want tried.
///
/// A shard asks its share of the judges' questions and writes no table.
pub fn run(run: &Run) -> Result<Done> {
    let evaluate = &run.config.evaluate;
    let (work, before) = (Work::load(run)?, run.budget.spent());
    let rules = rules(run, &work)?;
    if run.shard.is_some() {
        // The replies are kept; everything else is made by the run of the whole stage.
        let judged = judged(run, &work, &run.replacement_model()?, &rules)?;
        return Ok(judged.tally.shared(&[], run.budget.spent().calls - before.calls));
    }
    let replacement =
        (evaluate.causal > 0 || asks(run.config)).then(|| run.replacement_model()).transpose()?;
    let causal = match &replacement {
        Some(replacement) if evaluate.causal > 0 => work.causal(replacement)?,
        _ => Vec::new(),
    };
    let mut judged = match &replacement {
        Some(replacement) if asks(run.config) => judged(run, &work, replacement, &rules)?,
        _ => JudgedRows::default(),
    };
    let mut said = Vec::new();
    if evaluate.methods.contains(&ScoreMethod::SingleToken) {
        let all: Vec<usize> = (0..work.features.len()).collect();
        judged.evaluations.extend(work.by_rule(RULE, &rules, &all));
        let weights = work.read_by_weights()?;
        let told: Vec<usize> = all.into_iter().filter(|&key| !weights[key].is_empty()).collect();
        judged.evaluations.extend(work.by_rule(WEIGHTS, &weights, &told));
        said.push(format!("{} features by their single-token rule", work.features.len()));
    }
    if evaluate.causal > 0 {
        said.push(format!("steering with {}", causal.len()));
    }
    if asks(run.config) {
        let spent = run.budget.spent();
        let (requests, cost) = (spent.calls - before.calls, spent.cost - before.cost);
        let judges = run.config.judges();
        let priced = judges.iter().any(|judge| run.config.llm.prices.contains_key(*judge));
        said.push(judged.tally.summary(
            "verdicts",
            &judges.join(" and "),
            requests,
            priced.then_some(cost),
        ));
    }
    judged.agreements.extend(work.shared_words());
    let tally = std::mem::take(&mut judged.tally);
    write(run, judged, &causal)?;
    let summary = if said.is_empty() { "no method is set".into() } else { said.join("; ") };
    Ok(tally.done(summary))
}

/// What judges would be asked, in a table. Nothing is sent, and nothing is written.
pub fn plan(run: &Run) -> Result<String> {
    let work = Work::load(run)?;
    let judging = Judging::new(&work, &run.replacement_model()?, &rules(run, &work)?)?;
    let plans = judging.plan(&Askers::new(run))?;
    let rows: Vec<(&str, Plan)> = plans.iter().map(|(name, plan)| (name.as_str(), *plan)).collect();
    Ok(usage_report::table(&run.config.judges().join(" and "), &rows))
}

/// The single-token rules, where they are of use.
fn rules(run: &Run, work: &Work) -> Result<Vec<Rule>> {
    match run.config.evaluate.methods.is_empty() {
        true => Ok(Vec::new()),
        false => work.rules(),
    }
}

fn judged(
    run: &Run,
    work: &Work,
    replacement: &ReplacementModel,
    rules: &[Rule],
) -> Result<JudgedRows> {
    let judging = Judging::new(work, replacement, rules)?;
    judging.ask(&Askers::new(run))
}

/// Writes the tables, each sorted by its leading columns.
fn write(run: &Run, mut judged: JudgedRows, causal: &[CausalRow]) -> Result<()> {
    let evaluation = |row: &EvaluationRow| {
        let by = (row.explainer.clone(), row.method.clone(), row.judge.clone());
        (row.subject.to_string(), by, row.clause)
    };
    judged.evaluations.sort_by_cached_key(evaluation);
    let judgement = |row: &JudgementRow| {
        let of = (row.judge.clone(), row.explained.to_string(), row.sample);
        let place = (of, row.clause, row.text);
        (row.subject.to_string(), row.method.clone(), place)
    };
    judged.judgements.sort_by_cached_key(judgement);
    let agreement =
        |row: &AgreementRow| (row.subject.to_string(), row.between.clone(), row.of.clone());
    judged.agreements.sort_by_cached_key(agreement);
    once(&mut judged.ledger, |row| {
        [row.prompt_hash.clone(), row.subject.to_string(), row.purpose.clone()]
    });
    run.store.write(run.fingerprint, &judged.evaluations)?;
    run.store.write(run.fingerprint, &judged.judgements)?;
    run.store.write(run.fingerprint, &judged.agreements)?;
    run.store.write(run.fingerprint, causal)?;
    run.store.write_as(&JUDGE_LEDGER, run.fingerprint, &judged.ledger)
}
