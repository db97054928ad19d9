//! What a language model wrote, was asked, and was worth, put together from its tables by what it
//! is about.

use super::Run;
use super::inputs::by;
use crate::artifact::tables::{
    AgreementRow, CausalRow, ContextRow, EvaluationRow, ExchangeRow, ExplanationRow, JUDGE_LEDGER,
    JudgementRow, LedgerRow,
};
use crate::artifact::{Row, Store};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::explain::STATISTICS;
use crate::ids::FeatureId;
use crate::site::written::{
    Account, Agreement, Asked, Bill, Causal, Evaluation, Exchange, Explanation, Misjudged, STATUSES,
};
use std::collections::{BTreeMap, BTreeSet};

/// Methods in the order of a page.
const METHODS: [&str; 3] = ["detection", "fuzzing", "single-token"];

/// Texts that a judge got wrong, of a feature by each method.
const MISJUDGED: usize = 8;

/// Everything about explanations, by subject.
pub struct Written {
    explanations: BTreeMap<String, Vec<ExplanationRow>>,
    exchanges: BTreeMap<String, Vec<ExchangeRow>>,
    /// By hash and subject.
    bills: BTreeMap<(String, String), Bill>,
    evaluations: BTreeMap<String, Vec<EvaluationRow>>,
    agreements: BTreeMap<String, Vec<AgreementRow>>,
    causal: BTreeMap<String, CausalRow>,
    /// Those that the first judge got wrong, and the token ids of their contexts.
    misjudged: BTreeMap<String, Vec<JudgementRow>>,
    contexts: BTreeMap<u32, Vec<u32>>,
    /// The judge that is asked first.
    judge: String,
}

impl Written {
    /// Of exchanges and judgements, which are many, only those about some subjects; none: all.
    pub fn load(run: &Run, about: Option<&BTreeSet<String>>) -> Result<Written> {
        let store = run.store;
        let (exchanges, judgements): (Vec<ExchangeRow>, Vec<JudgementRow>) = match about {
            Some(subjects) => (
                store.read_about(&["subject"], subjects)?,
                store.read_about(&["subject"], subjects)?,
            ),
            None => (store.read()?, store.read()?),
        };
        let judge = run.config.judges().first().copied().unwrap_or_default();
        let misjudged = misjudged(judgements, judge);
        Ok(Written {
            contexts: contexts(
                store,
                misjudged.values().flatten().map(|row| row.context).collect(),
            )?,
            misjudged,
            explanations: by(store.read::<ExplanationRow>()?, |row| row.subject.clone()),
            exchanges: by(exchanges, |row| row.subject.clone()),
            bills: bills(store.read()?),
            evaluations: by(store.read::<EvaluationRow>()?, |row| row.subject.clone()),
            agreements: by(store.read::<AgreementRow>()?, |row| row.subject.clone()),
            causal: store
                .read::<CausalRow>()?
                .into_iter()
                .map(|row| (row.subject.clone(), row))
                .collect(),
            judge: judge.into(),
        })
    }

    fn rows(&self, subject: &str) -> &[ExplanationRow] {
        self.explanations.get(subject).map(Vec::as_slice).unwrap_or_default()
    }

    /// The language model's explanations, the first one first.
    fn samples(&self, subject: &str) -> Vec<&ExplanationRow> {
        let mut samples: Vec<_> =
            self.rows(subject).iter().filter(|row| row.explainer != STATISTICS).collect();
        samples.sort_by_key(|row| row.sample);
        samples
    }

    /// The explanation of a feature, component, pair or group: the language model's first one, or
    /// where that failed the summary of the statistics.
    pub fn explanation(&self, subject: &str) -> Option<Explanation> {
        let first = self.samples(subject).into_iter().next().filter(|row| row.status == "ok");
        let summary = || self.rows(subject).iter().find(|row| row.explainer == STATISTICS);
        first.or_else(summary).map(explanation)
    }

    /// What a language model was asked about it, and what came of it.
    pub fn asked(&self, subject: &str) -> Option<Asked> {
        let samples = self.samples(subject);
        let rows = self.exchanges.get(subject).map(Vec::as_slice).unwrap_or_default();
        let place = |row: &ExchangeRow| {
            samples.iter().position(|sample| sample.prompt_hash == row.prompt_hash)
        };
        let exchanges =
            in_turn(rows, place).into_iter().map(|row| self.exchange(row)).collect::<Vec<_>>();
        let samples: Vec<Explanation> = samples.into_iter().map(explanation).collect();
        (!samples.is_empty() || !exchanges.is_empty()).then_some(Asked { samples, exchanges })
    }

    fn exchange(&self, row: &ExchangeRow) -> Exchange {
        Exchange {
            purpose: row.purpose.clone(),
            model: row.model.clone(),
            served: row.served.clone(),
            hash: row.prompt_hash.clone(),
            messages: row.roles.iter().cloned().zip(row.messages.iter().cloned()).collect(),
            reply: row.reply.clone(),
            status: row.status.clone(),
            bill: self.bills.get(&(row.prompt_hash.clone(), row.subject.clone())).copied(),
        }
    }

    /// The scores of a feature: the language model's before the rule's, by method, the first
    /// judge's first.
    pub fn evaluations(&self, subject: &str) -> Vec<Evaluation> {
        let mut rows: Vec<&EvaluationRow> =
            self.evaluations.get(subject).into_iter().flatten().collect();
        let method = |row: &EvaluationRow| {
            METHODS.iter().position(|name| *name == row.method).unwrap_or(METHODS.len())
        };
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

    /// Some of the texts that the first judge got wrong, in the order in which it was asked.
    pub fn misjudged(&self, subject: &str, tokenizer: &Tokenizer) -> Vec<Misjudged> {
        let rows = self.misjudged.get(subject).into_iter().flatten();
        rows.filter_map(|row| self.text(row, tokenizer)).collect()
    }

    /// None of a text that is not in the corpus.
    fn text(&self, row: &JudgementRow, tokenizer: &Tokenizer) -> Option<Misjudged> {
        let (start, length) = (usize::from(row.start), row.tokens as usize);
        let ids = self.contexts.get(&row.context)?.get(start..start + length)?;
        let marked = |of: std::ops::Range<usize>| {
            of.into_iter().any(|i| row.marked.contains(&((start + i) as u32)))
        };
        let pieces = tokenizer.pieces(ids).into_iter().filter(|piece| !piece.special);
        Some(Misjudged {
            method: row.method.clone(),
            band: row.band.clone(),
            truth: row.truth,
            context: row.context,
            pieces: pieces.map(|piece| (piece.text, marked(piece.tokens))).collect(),
        })
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
            claimed_low: row.claimed_low,
            claimed_high: row.claimed_high,
            claimed_null: row.claimed_null,
            claims: row.claims,
            risen: risen.map(|(id, rise)| (tokenizer.token(*id), f64::from(*rise))).collect(),
        })
    }
}

/// A question with what repairs it behind it: questions in the order of `place`, and a repair,
/// which says again what was said before, behind the one that it goes on from.
fn in_turn(
    rows: &[ExchangeRow],
    place: impl Fn(&ExchangeRow) -> Option<usize>,
) -> Vec<&ExchangeRow> {
    let (mut first, mut repairs): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row.purpose != "repair");
    let goes_on = |row: &ExchangeRow, repair: &ExchangeRow| {
        let said = row.messages.len();
        repair.messages.starts_with(&row.messages)
            && repair.messages.get(said).is_none_or(|next| *next == row.reply)
    };
    first.sort_by_key(|row| place(row).unwrap_or(usize::MAX));
    let mut turns = Vec::new();
    for row in first {
        turns.push(row);
        while let Some(at) =
            repairs.iter().position(|repair| goes_on(turns[turns.len() - 1], repair))
        {
            turns.push(repairs.remove(at));
        }
    }
    turns.extend(repairs);
    turns
}

/// What the judge got wrong of a feature's own first explanation: a few texts by each method.
fn misjudged(rows: Vec<JudgementRow>, judge: &str) -> BTreeMap<String, Vec<JudgementRow>> {
    let wrong = |row: &JudgementRow| row.said == Some(!row.truth);
    let own =
        |row: &JudgementRow| row.judge == judge && row.explained == row.subject && row.sample == 0;
    let mut rows: Vec<JudgementRow> =
        rows.into_iter().filter(|row| own(row) && wrong(row)).collect();
    rows.sort_by(|a, b| (&a.method, a.text).cmp(&(&b.method, b.text)));
    let mut of_subject = by(rows, |row| row.subject.clone());
    for rows in of_subject.values_mut() {
        let mut kept: BTreeMap<String, usize> = BTreeMap::new();
        rows.retain(|row| {
            let n = kept.entry(row.method.clone()).or_default();
            *n += 1;
            *n <= MISJUDGED
        });
    }
    of_subject
}

/// Token ids of some contexts.
fn contexts(store: &Store, wanted: BTreeSet<u32>) -> Result<BTreeMap<u32, Vec<u32>>> {
    let mut contexts = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(contexts);
    }
    for part in store.parts(&ContextRow::ARTIFACT)? {
        let rows = store.read_part_of::<ContextRow>(part, "context", &wanted)?;
        contexts.extend(rows.into_iter().map(|row| (row.context, row.tokens)));
    }
    Ok(contexts)
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

fn bill(row: &LedgerRow) -> Bill {
    Bill {
        prompt_tokens: row.prompt_tokens.into(),
        completion_tokens: row.completion_tokens.into(),
        cost: row.cost,
        seconds: row.seconds,
        attempts: row.attempts.into(),
    }
}

fn bills(rows: Vec<LedgerRow>) -> BTreeMap<(String, String), Bill> {
    rows.into_iter()
        .map(|row| (bill(&row), row))
        .map(|(bill, row)| ((row.prompt_hash, row.subject), bill))
        .collect()
}

/// What was asked in all, by model and purpose: explanations first, then judgements.
pub fn accounts(store: &Store) -> Result<Vec<Account>> {
    Ok([summed(&store.read()?), summed(&store.read_as(&JUDGE_LEDGER)?)].concat())
}

fn summed(lines: &[LedgerRow]) -> Vec<Account> {
    let mut accounts: BTreeMap<(&str, &str), Account> = BTreeMap::new();
    for line in lines {
        let account = accounts.entry((&line.model, &line.purpose)).or_insert_with(|| Account {
            model: line.model.clone(),
            purpose: line.purpose.clone(),
            ..Account::default()
        });
        let status = STATUSES.iter().position(|status| *status == line.status).unwrap_or(1);
        account.questions[status] += 1;
        account.bill.add(&bill(line));
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
            served: String::new(),
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
        let order: Vec<&str> =
            in_turn(&rows, place).iter().map(|row| row.prompt_hash.as_str()).collect();
        assert_eq!(order, ["c", "a", "d", "b", "e"]);
    }

    #[test]
    fn accounts_are_sums_and_what_has_no_name_failed() {
        let line = |purpose: &str, status: &str| LedgerRow {
            prompt_hash: "h".into(),
            subject: "s".into(),
            purpose: purpose.into(),
            model: "m".into(),
            prompt_tokens: 10,
            completion_tokens: 2,
            cost: 0.5,
            seconds: 1.0,
            attempts: 1,
            status: status.into(),
        };
        let all = summed(&[
            line("explain", "ok"),
            line("repair", "left"),
            line("explain", "odd"),
            line("explain", "ok"),
        ]);
        assert_eq!(
            all.iter().map(|a| a.questions).collect::<Vec<_>>(),
            [[2, 1, 0, 0], [0, 0, 0, 1]]
        );
        assert_eq!((all[0].bill.prompt_tokens, all[0].bill.cost), (30, 1.5));
    }

    fn row(explainer: &str, sample: u32, status: &str) -> ExplanationRow {
        ExplanationRow {
            subject: "att0.1".into(),
            kind: "feature".into(),
            explainer: explainer.into(),
            sample,
            model: if explainer == STATISTICS { "" } else { "m" }.into(),
            status: status.into(),
            input_side: String::new(),
            output_side: String::new(),
            text: format!("{explainer} {sample}"),
            matching: String::new(),
            carried: String::new(),
            claims: vec![],
            reason: String::new(),
            prompt_hash: format!("h{sample}"),
        }
    }

    fn written(explanations: Vec<ExplanationRow>, judgements: Vec<JudgementRow>) -> Written {
        Written {
            explanations: by(explanations, |row| row.subject.clone()),
            exchanges: BTreeMap::new(),
            bills: BTreeMap::new(),
            evaluations: BTreeMap::new(),
            agreements: BTreeMap::new(),
            causal: BTreeMap::new(),
            misjudged: misjudged(judgements, "j"),
            contexts: BTreeMap::new(),
            judge: "j".into(),
        }
    }

    #[test]
    fn a_failure_never_stands_for_an_explanation() {
        let shown = |rows: Vec<ExplanationRow>| {
            let written = written(rows, vec![]);
            let failed = written.asked("att0.1").is_some_and(|asked| asked.failure().is_some());
            (written.explanation("att0.1").map(|e| e.text), failed)
        };
        let summary = || row(STATISTICS, 0, "ok");
        let text = |text: &str| Some(text.to_string());
        assert_eq!(shown(vec![summary()]), (text("statistics 0"), false));
        assert_eq!(
            shown(vec![summary(), row("feature", 1, "ok"), row("feature", 0, "ok")]),
            (text("feature 0"), false)
        );
        assert_eq!(
            shown(vec![row("feature", 0, "failed"), summary()]),
            (text("statistics 0"), true)
        );
        assert_eq!(shown(vec![row("feature", 0, "refused")]), (None, true));
        assert_eq!(shown(vec![]), (None, false));
    }

    #[test]
    fn only_what_the_first_judge_got_wrong_of_the_own_explanation_is_kept() {
        let judgement =
            |text: u32, judge: &str, explained: &str, said: Option<bool>| JudgementRow {
                subject: "att0.1".into(),
                method: "detection".into(),
                judge: judge.into(),
                explained: explained.into(),
                sample: 0,
                text,
                band: "top".into(),
                context: 0,
                start: 1,
                tokens: 3,
                marked: vec![],
                truth: true,
                said,
                prompt_hash: String::new(),
            };
        let own = |text: u32| judgement(text, "j", "att0.1", Some(false));
        let others = [
            judgement(0, "k", "att0.1", Some(false)),
            judgement(1, "j", "att0.2", Some(false)),
            judgement(2, "j", "att0.1", Some(true)),
            judgement(3, "j", "att0.1", None),
        ];
        let rows = (10..30).rev().map(own).chain(others).collect();
        let kept: Vec<u32> =
            written(vec![], rows).misjudged["att0.1"].iter().map(|row| row.text).collect();
        assert_eq!(kept, (10..18).collect::<Vec<_>>());
    }
}
