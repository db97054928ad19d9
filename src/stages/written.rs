//! What a language model wrote, was asked, and was worth, put together from its tables by what it is about.

use super::Run;
use super::inputs::by;
use crate::artifact::Store;
use crate::artifact::tables::{
    AgreementRow, CausalRow, EvaluationRow, ExchangeRow, ExplanationRow, JudgeLedgerRow, LedgerRow,
};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::FeatureId;
use crate::site::written::{Account, Agreement, Asked, Bill, Causal, Evaluation, Exchange, Explanation, STATUSES};
use std::collections::{BTreeMap, BTreeSet};

/// Its explainer is no language model.
const STATISTICS: &str = "statistics";
/// Methods in the order of a page.
const METHODS: [&str; 3] = ["detection", "fuzzing", "single-token"];

/// Everything about explanations, by subject.
pub struct Written {
    explanations: BTreeMap<String, Vec<ExplanationRow>>,
    exchanges: BTreeMap<String, Vec<ExchangeRow>>,
    /// By hash and subject.
    bills: BTreeMap<(String, String), Bill>,
    evaluations: BTreeMap<String, Vec<EvaluationRow>>,
    agreements: BTreeMap<String, Vec<AgreementRow>>,
    causal: BTreeMap<String, CausalRow>,
    /// The judge that is asked first.
    judge: String,
}

impl Written {
    /// Of the exchanges, which are long, only those about some subjects; none: all.
    pub fn load(run: &Run, about: Option<&BTreeSet<String>>) -> Result<Written> {
        let store = run.store;
        let exchanges: Vec<ExchangeRow> = match about {
            Some(subjects) => store.read_about(&["subject"], subjects)?,
            None => store.read()?,
        };
        let config = run.config;
        let judge = if config.evaluate.judge.is_empty() { &config.llm.model } else { &config.evaluate.judge };
        Ok(Written {
            explanations: by(store.read::<ExplanationRow>()?, |row| row.subject.clone()),
            exchanges: by(exchanges, |row| row.subject.clone()),
            bills: bills(store.read()?),
            evaluations: by(store.read::<EvaluationRow>()?, |row| row.subject.clone()),
            agreements: by(store.read::<AgreementRow>()?, |row| row.subject.clone()),
            causal: store.read::<CausalRow>()?.into_iter().map(|row| (row.subject.clone(), row)).collect(),
            judge: judge.clone(),
        })
    }

    fn rows(&self, subject: &str) -> &[ExplanationRow] {
        self.explanations.get(subject).map(Vec::as_slice).unwrap_or_default()
    }

    /// The language model's explanations, the first one first.
    fn samples(&self, subject: &str) -> Vec<&ExplanationRow> {
        let mut samples: Vec<_> = self.rows(subject).iter().filter(|row| row.explainer != STATISTICS).collect();
        samples.sort_by_key(|row| row.sample);
        samples
    }

    /// The explanation of a feature, component, pair or group: the language model's first one, or where that failed the
    /// summary of the statistics.
    pub fn explanation(&self, subject: &str) -> Option<Explanation> {
        let first = self.samples(subject).into_iter().next().filter(|row| row.status == "ok");
        let summary = || self.rows(subject).iter().find(|row| row.explainer == STATISTICS);
        first.or_else(summary).map(explanation)
    }

    /// What a language model was asked about it, and what came of it.
    pub fn asked(&self, subject: &str) -> Option<Asked> {
        let samples = self.samples(subject);
        let rows = self.exchanges.get(subject).map(Vec::as_slice).unwrap_or_default();
        let place = |row: &ExchangeRow| samples.iter().position(|sample| sample.prompt_hash == row.prompt_hash);
        let exchanges = in_turn(rows, place).into_iter().map(|row| self.exchange(row)).collect::<Vec<_>>();
        let samples: Vec<Explanation> = samples.into_iter().map(explanation).collect();
        (!samples.is_empty() || !exchanges.is_empty()).then_some(Asked { samples, exchanges })
    }

    fn exchange(&self, row: &ExchangeRow) -> Exchange {
        Exchange {
            purpose: row.purpose.clone(),
            model: row.model.clone(),
            hash: row.prompt_hash.clone(),
            messages: row.roles.iter().cloned().zip(row.messages.iter().cloned()).collect(),
            reply: row.reply.clone(),
            status: row.status.clone(),
            bill: self.bills.get(&(row.prompt_hash.clone(), row.subject.clone())).copied(),
        }
    }

    /// The scores of a feature: the language model's before the rule's, by method, the first judge's first.
    pub fn evaluations(&self, subject: &str) -> Vec<Evaluation> {
        let mut rows: Vec<&EvaluationRow> = self.evaluations.get(subject).into_iter().flatten().collect();
        let method = |row: &EvaluationRow| METHODS.iter().position(|name| *name == row.method).unwrap_or(METHODS.len());
        rows.sort_by_key(|row| (method(row), row.explainer == STATISTICS, row.judge != self.judge));
        rows.into_iter().map(evaluation).collect()
    }

    /// How far explanations and judges agree.
    pub fn agreements(&self, subject: &str) -> Vec<Agreement> {
        let rows = self.agreements.get(subject).into_iter().flatten();
        let agreement = |row: &AgreementRow| Agreement {
            between: row.between.clone(),
            of: row.of.clone(),
            compared: row.compared,
            value: row.value,
        };
        rows.map(agreement).collect()
    }

    /// What happens when it is added to the live model.
    pub fn causal(&self, subject: &str, tokenizer: &Tokenizer) -> Option<Causal> {
        let row = self.causal.get(subject)?;
        let risen = row.risen.iter().zip(&row.rise);
        Some(Causal {
            positions: row.positions,
            strength: f64::from(row.strength),
            promoted: row.promoted,
            low: row.low,
            high: row.high,
            promoted_null: row.promoted_null,
            claimed: row.claimed,
            claimed_null: row.claimed_null,
            claims: row.claims,
            risen: risen.map(|(id, rise)| (tokenizer.token(*id), f64::from(*rise))).collect(),
        })
    }
}

/// A question with what repairs it behind it: questions in the order of `place`, and a repair, which says again what was
/// said before, behind the one that it goes on from.
fn in_turn(rows: &[ExchangeRow], place: impl Fn(&ExchangeRow) -> Option<usize>) -> Vec<&ExchangeRow> {
    let (mut first, mut repairs): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.purpose != "repair");
    let goes_on = |row: &ExchangeRow, repair: &ExchangeRow| {
        let said = row.messages.len();
        repair.messages.starts_with(&row.messages) && repair.messages.get(said).is_none_or(|next| *next == row.reply)
    };
    first.sort_by_key(|row| place(row).unwrap_or(usize::MAX));
    let mut turns = Vec::new();
    for row in first {
        turns.push(row);
        while let Some(at) = repairs.iter().position(|repair| goes_on(turns[turns.len() - 1], repair)) {
            turns.push(repairs.remove(at));
        }
    }
    turns.extend(repairs);
    turns
}

fn explanation(row: &ExplanationRow) -> Explanation {
    Explanation {
        explainer: row.explainer.clone(),
        sample: row.sample,
        model: row.model.clone(),
        status: row.status.clone(),
        input_side: row.input_side.clone(),
        output_side: row.output_side.clone(),
        text: row.text.clone(),
        matching: row.matching.clone(),
        carried: row.carried.clone(),
        claims: row.claims.clone(),
        reason: row.reason.clone(),
    }
}

fn evaluation(row: &EvaluationRow) -> Evaluation {
    Evaluation {
        method: row.method.clone(),
        explainer: row.explainer.clone(),
        judge: row.judge.clone(),
        examples: row.examples,
        balanced_accuracy: row.balanced_accuracy,
        low: row.low,
        high: row.high,
        null: row.null,
        null_subject: row.null_subject.parse::<FeatureId>().ok(),
        rule: row.rule,
    }
}

/// A line of the books, whichever of the two they are.
struct Line {
    hash: String,
    subject: String,
    purpose: String,
    model: String,
    status: String,
    bill: Bill,
}

macro_rules! line {
    ($row:expr) => {{
        let row = $row;
        let bill = Bill {
            prompt_tokens: row.prompt_tokens.into(),
            completion_tokens: row.completion_tokens.into(),
            cost: row.cost,
            seconds: row.seconds,
            attempts: row.attempts.into(),
        };
        let (hash, subject, purpose) = (row.prompt_hash, row.subject, row.purpose);
        Line { hash, subject, purpose, model: row.model, status: row.status, bill }
    }};
}

fn bills(rows: Vec<LedgerRow>) -> BTreeMap<(String, String), Bill> {
    rows.into_iter().map(|row| line!(row)).map(|line| ((line.hash, line.subject), line.bill)).collect()
}

/// What was asked in all, by model and purpose: explanations first, then judgements.
pub fn accounts(store: &Store) -> Result<Vec<Account>> {
    let explained = store.read::<LedgerRow>()?.into_iter().map(|row| line!(row)).collect();
    let judged = store.read::<JudgeLedgerRow>()?.into_iter().map(|row| line!(row)).collect();
    Ok([summed(explained), summed(judged)].concat())
}

fn summed(lines: Vec<Line>) -> Vec<Account> {
    let mut accounts: BTreeMap<(String, String), Account> = BTreeMap::new();
    for line in lines {
        let key = (line.model.clone(), line.purpose.clone());
        let account = accounts.entry(key).or_insert_with(|| Account {
            model: line.model.clone(),
            purpose: line.purpose.clone(),
            ..Account::default()
        });
        let status = STATUSES.iter().position(|status| *status == line.status).unwrap_or(1);
        account.questions[status] += 1;
        account.bill.add(&line.bill);
    }
    accounts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(hash: &str, purpose: &str, messages: &[&str], reply: &str) -> ExchangeRow {
        ExchangeRow {
            prompt_hash: hash.into(),
            subject: "att0.1".into(),
            purpose: purpose.into(),
            model: "m".into(),
            roles: messages.iter().map(|_| "user".into()).collect(),
            messages: messages.iter().map(|text| text.to_string()).collect(),
            reply: reply.into(),
            status: "ok".into(),
        }
    }

    #[test]
    fn a_repair_stands_behind_what_it_repairs() {
        let rows = [
            exchange("a", "repair", &["q", "bad", "again"], "fine"),
            exchange("b", "explain", &["q"], "good"),
            exchange("c", "explain", &["q"], "bad"),
            exchange("d", "repair", &["q", "bad", "again", "fine", "no"], "last"),
            exchange("e", "repair", &["elsewhere"], ""),
        ];
        let place = |row: &ExchangeRow| ["c", "b"].iter().position(|hash| *hash == row.prompt_hash);
        let order: Vec<&str> = in_turn(&rows, place).iter().map(|row| row.prompt_hash.as_str()).collect();
        assert_eq!(order, ["c", "a", "d", "b", "e"]);
    }

    #[test]
    fn accounts_are_sums_and_what_has_no_name_failed() {
        let line = |purpose: &str, status: &str| Line {
            hash: "h".into(),
            subject: "s".into(),
            purpose: purpose.into(),
            model: "m".into(),
            status: status.into(),
            bill: Bill { prompt_tokens: 10, completion_tokens: 2, cost: 0.5, seconds: 1.0, attempts: 1 },
        };
        let all =
            summed(vec![line("explain", "ok"), line("repair", "left"), line("explain", "odd"), line("explain", "ok")]);
        assert_eq!(all.iter().map(|a| a.questions).collect::<Vec<_>>(), [[2, 1, 0, 0], [0, 0, 0, 1]]);
        assert_eq!((all[0].bill.prompt_tokens, all[0].bill.cost), (30, 1.5));
    }
}
