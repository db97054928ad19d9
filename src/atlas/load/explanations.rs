//! What a language model wrote, was asked and replied, what that cost, and how good it is.

use super::{Lazy, Reader};
use crate::artifact::tables::{
    AgreementRow, CausalRow, ContextRow, EvaluationRow, ExchangeRow, ExplanationRow, ImportedRow,
    JUDGE_LEDGER, JudgementRow, LedgerRow,
};
use crate::artifact::{Row, Store};
use crate::atlas::model::{
    Agreement, Evaluation, Exchange, Explanation, ImportedExplanation, Misjudged, Steering,
    Transcript, Usage, UsageTotal,
};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{FeatureId, Status, Subject};
use crate::inputs::by;
use crate::summary::STATISTICS;
use std::collections::{BTreeMap, BTreeSet};

/// Methods in the order of a page.
const METHODS: [&str; 5] = ["detection", "fuzzing", "embedding", "intruder", "single-token"];
/// Texts that a judge got wrong, of a feature by each method.
const MISJUDGED: usize = 8;

/// The tables about explanations, by what they are about.
#[derive(Default)]
pub(super) struct Explanations {
    explanations: Lazy<BTreeMap<Subject, Vec<ExplanationRow>>>,
    exchanges: Lazy<BTreeMap<Subject, Vec<ExchangeRow>>>,
    /// By hash and subject.
    usage: Lazy<BTreeMap<(String, Subject), Usage>>,
    imported: Lazy<BTreeMap<FeatureId, Vec<ImportedRow>>>,
    evaluations: Lazy<BTreeMap<FeatureId, Vec<EvaluationRow>>>,
    agreements: Lazy<BTreeMap<FeatureId, Vec<AgreementRow>>>,
    steering: Lazy<BTreeMap<FeatureId, CausalRow>>,
    misjudged: Lazy<Wrong>,
}

/// What the first judge got wrong, with the token ids of the contexts.
struct Wrong {
    rows: BTreeMap<FeatureId, Vec<JudgementRow>>,
    contexts: BTreeMap<u32, Vec<u32>>,
}

impl Explanations {
    fn rows(&self, store: &Store, subject: &Subject) -> Result<&[ExplanationRow]> {
        let all = self
            .explanations
            .get(|| Ok(by(store.read::<ExplanationRow>()?, |row| row.subject.clone())))?;
        Ok(all.get(subject).map(Vec::as_slice).unwrap_or_default())
    }

    pub(super) fn explanation(
        &self,
        store: &Store,
        subject: &Subject,
    ) -> Result<Option<Explanation>> {
        Ok(shown(self.rows(store, subject)?).map(explanation))
    }

    pub(super) fn transcript(
        &self,
        reader: &Reader,
        subject: &Subject,
    ) -> Result<Option<Transcript>> {
        let samples = samples(self.rows(reader.store, subject)?);
        let exchanges = self.exchanges.get(|| {
            Ok(by(reader.large::<ExchangeRow>(&["subject"])?, |row| row.subject.clone()))
        })?;
        let usage = self.usage.get(|| Ok(of_questions(reader.store.read()?)))?;
        let rows = exchanges.get(subject).map(Vec::as_slice).unwrap_or_default();
        Ok(transcript(&samples, rows, usage))
    }
}

impl Reader<'_> {
    /// What others say of a feature.
    pub(super) fn imported(&self, feature: FeatureId) -> Result<Vec<ImportedExplanation>> {
        let all =
            self.explanations.imported.get(|| Ok(by(self.store.imported()?, |row| row.feature)))?;
        let one = |row: &ImportedRow| ImportedExplanation {
            explainer: row.explainer.clone(),
            model: row.model.clone(),
            source: row.source.clone(),
            text: row.text.clone(),
        };
        Ok(all.get(&feature).into_iter().flatten().map(one).collect())
    }

    /// The scores of a feature's explanations: the language model's before the rule's, by method,
    /// the first judge's first.
    pub(super) fn evaluations(&self, feature: FeatureId) -> Result<Vec<Evaluation>> {
        let all = self
            .explanations
            .evaluations
            .get(|| Ok(by(self.store.read::<EvaluationRow>()?, |row| row.subject)))?;
        let mut rows: Vec<&EvaluationRow> = all.get(&feature).into_iter().flatten().collect();
        let judge = self.first_judge();
        let method = |row: &EvaluationRow| {
            METHODS.iter().position(|name| *name == row.method).unwrap_or(METHODS.len())
        };
        rows.sort_by_key(|row| {
            (method(row), row.explainer == STATISTICS, row.judge != judge, row.clause)
        });
        Ok(rows.into_iter().map(evaluation).collect())
    }

    fn first_judge(&self) -> &str {
        self.config.judges().first().copied().unwrap_or_default()
    }

    /// How far explanations and judges agree.
    pub(super) fn agreements(&self, feature: FeatureId) -> Result<Vec<Agreement>> {
        let all = self
            .explanations
            .agreements
            .get(|| Ok(by(self.store.read::<AgreementRow>()?, |row| row.subject)))?;
        let agreement = |row: &AgreementRow| Agreement {
            between: row.between.clone(),
            of: row.of.clone(),
            compared: row.compared,
            value: row.value,
        };
        Ok(all.get(&feature).into_iter().flatten().map(agreement).collect())
    }

    /// Some of the texts that the first judge got wrong, in the order in which it was asked.
    pub(super) fn misjudged(&self, feature: FeatureId) -> Result<Vec<Misjudged>> {
        let wrong = self.explanations.misjudged.get(|| {
            let rows = misjudged(self.large(&["subject"])?, self.first_judge());
            let wanted = rows.values().flatten().map(|row| row.context).collect();
            Ok(Wrong { contexts: contexts(self.store, wanted)?, rows })
        })?;
        let rows = wrong.rows.get(&feature).into_iter().flatten();
        let tokenizer = self.tokenizer()?;
        Ok(rows.filter_map(|row| text(row, &wrong.contexts, tokenizer)).collect())
    }

    /// What happens when the feature is added to the model.
    pub(super) fn steering(&self, feature: FeatureId) -> Result<Option<Steering>> {
        let all = self.explanations.steering.get(|| {
            let rows = self.store.read::<CausalRow>()?.into_iter();
            Ok(rows.map(|row| (row.subject, row)).collect())
        })?;
        let Some(row) = all.get(&feature) else { return Ok(None) };
        let tokenizer = self.tokenizer()?;
        let risen = row.risen.iter().zip(&row.rise);
        Ok(Some(Steering {
            positions: row.positions,
            strength: row.strength,
            promoted: row.promoted,
            low: row.low,
            high: row.high,
            promoted_null: row.promoted_null,
            claimed: row.claimed,
            claimed_low: row.claimed_low,
            claimed_high: row.claimed_high,
            claimed_null: row.claimed_null,
            claims: row.claims,
            risen: risen.map(|(id, rise)| (tokenizer.token(*id), *rise)).collect(),
        }))
    }
}

/// A language model's explanations of a subject, the first one first.
fn samples(rows: &[ExplanationRow]) -> Vec<&ExplanationRow> {
    let mut samples: Vec<_> = rows.iter().filter(|row| row.explainer != STATISTICS).collect();
    samples.sort_by_key(|row| row.sample);
    samples
}

/// The explanation that is shown of a subject: the language model's first one, or where that failed
/// the summary of the statistics.
fn shown(rows: &[ExplanationRow]) -> Option<&ExplanationRow> {
    let first = samples(rows).into_iter().next().filter(|row| row.status == Status::Ok);
    first.or_else(|| rows.iter().find(|row| row.explainer == STATISTICS))
}

/// What a language model was asked and replied; none where it was not asked.
fn transcript(
    samples: &[&ExplanationRow],
    rows: &[ExchangeRow],
    usage: &BTreeMap<(String, Subject), Usage>,
) -> Option<Transcript> {
    let place =
        |row: &ExchangeRow| samples.iter().position(|sample| sample.prompt_hash == row.prompt_hash);
    let exchanges: Vec<Exchange> =
        in_turn(rows, place).into_iter().map(|row| exchange(row, usage)).collect();
    let samples: Vec<Explanation> = samples.iter().map(|row| explanation(row)).collect();
    (!samples.is_empty() || !exchanges.is_empty()).then_some(Transcript { samples, exchanges })
}

fn exchange(row: &ExchangeRow, usage: &BTreeMap<(String, Subject), Usage>) -> Exchange {
    Exchange {
        purpose: row.purpose.clone(),
        model: row.model.clone(),
        served: row.served.clone(),
        hash: row.prompt_hash.clone(),
        messages: row.roles.iter().cloned().zip(row.messages.iter().cloned()).collect(),
        reply: row.reply.clone(),
        status: row.status,
        usage: usage.get(&(row.prompt_hash.clone(), row.subject.clone())).copied(),
    }
}

/// A judged text; none of one that is not in the corpus.
fn text(
    row: &JudgementRow,
    contexts: &BTreeMap<u32, Vec<u32>>,
    tokenizer: &Tokenizer,
) -> Option<Misjudged> {
    let (start, length) = (usize::from(row.start), row.tokens as usize);
    let ids = contexts.get(&row.context)?.get(start..start + length)?;
    let marked = |of: std::ops::Range<usize>| {
        of.into_iter().any(|i| row.marked.contains(&((start + i) as u32)))
    };
    let pieces = tokenizer.pieces(ids).into_iter().filter(|piece| !piece.special);
    Some(Misjudged {
        method: row.method.clone(),
        band: row.band,
        truth: row.truth,
        context: row.context,
        pieces: pieces.map(|piece| (piece.text, marked(piece.tokens))).collect(),
    })
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
fn misjudged(rows: Vec<JudgementRow>, judge: &str) -> BTreeMap<FeatureId, Vec<JudgementRow>> {
    // Active below the threshold: neither is wrong.
    let weak = |row: &JudgementRow| row.method == "detection" && !row.truth && row.activation > 0.0;
    let wrong = |row: &JudgementRow| row.said == Some(!row.truth) && !weak(row);
    let whole = |row: &JudgementRow| row.clause.is_none() && row.method != "intruder";
    let own = |row: &JudgementRow| {
        row.judge == judge && row.explained == row.subject && row.sample == 0 && whole(row)
    };
    let mut rows: Vec<JudgementRow> =
        rows.into_iter().filter(|row| own(row) && wrong(row)).collect();
    rows.sort_by(|a, b| (&a.method, a.text).cmp(&(&b.method, b.text)));
    let mut of_subject = by(rows, |row| row.subject);
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
        status: row.status,
        input_side: row.input_side.clone(),
        output_side: row.output_side.clone(),
        text: row.text.clone(),
        weakly: row.weakly.clone(),
        reads_from: row.reads_from.clone(),
        clauses: row.clauses.iter().cloned().zip(row.causes.iter().cloned()).collect(),
        input_confidence: row.input_confidence.clone(),
        output_confidence: row.output_confidence.clone(),
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
        clause: row.clause,
        examples: row.examples,
        score: row.score,
        low: row.low,
        high: row.high,
        null: row.null,
        null_subject: row.null_subject,
        rule: row.rule,
        any: row.any,
        right: [row.right_token, row.right_similar, row.right_inactive],
    }
}

fn of_question(row: &LedgerRow) -> Usage {
    Usage {
        prompt_tokens: row.prompt_tokens.into(),
        completion_tokens: row.completion_tokens.into(),
        cost: row.cost,
        seconds: row.seconds,
        attempts: row.attempts.into(),
    }
}

fn of_questions(rows: Vec<LedgerRow>) -> BTreeMap<(String, Subject), Usage> {
    rows.into_iter()
        .map(|row| (of_question(&row), row))
        .map(|(usage, row)| ((row.prompt_hash, row.subject), usage))
        .collect()
}

/// What was asked in all, by model and purpose: explanations first, then judgements.
pub(super) fn usage(store: &Store) -> Result<Vec<UsageTotal>> {
    Ok([summed(&store.read()?), summed(&store.read_as(&JUDGE_LEDGER)?)].concat())
}

fn summed(lines: &[LedgerRow]) -> Vec<UsageTotal> {
    let mut totals: BTreeMap<(&str, &str), UsageTotal> = BTreeMap::new();
    for line in lines {
        let total = totals.entry((&line.model, &line.purpose)).or_insert_with(|| UsageTotal {
            model: line.model.clone(),
            purpose: line.purpose.clone(),
            ..UsageTotal::default()
        });
        let status = Status::ALL.iter().position(|status| *status == line.status);
        total.questions[status.unwrap_or_default()] += 1;
        total.usage.add(&of_question(line));
    }
    totals.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Band, Kind, SubjectKind};

    fn own() -> FeatureId {
        FeatureId::new(Kind::Attention, 0, 1)
    }

    fn exchange(hash: &str, purpose: &str, messages: &[&str], reply: &str) -> ExchangeRow {
        ExchangeRow {
            prompt_hash: hash.into(),
            subject: Subject::from(own()),
            purpose: purpose.into(),
            model: "m".into(),
            served: String::new(),
            roles: messages.iter().map(|_| "user".into()).collect(),
            messages: messages.iter().map(|text| text.to_string()).collect(),
            reply: reply.into(),
            status: Status::Ok,
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
    fn usage_is_summed_by_model_and_purpose() {
        let line = |purpose: &str, status: Status| LedgerRow {
            prompt_hash: "h".into(),
            subject: Subject::Group("s".into()),
            purpose: purpose.into(),
            model: "m".into(),
            prompt_tokens: 10,
            completion_tokens: 2,
            cost: 0.5,
            seconds: 1.0,
            attempts: 1,
            status,
        };
        let all = summed(&[
            line("explain", Status::Ok),
            line("repair", Status::Left),
            line("explain", Status::Failed),
            line("explain", Status::Ok),
        ]);
        assert_eq!(
            all.iter().map(|a| a.questions).collect::<Vec<_>>(),
            [[2, 1, 0, 0], [0, 0, 0, 1]]
        );
        assert_eq!((all[0].usage.prompt_tokens, all[0].usage.cost), (30, 1.5));
    }

    fn row(explainer: &str, sample: u32, status: Status) -> ExplanationRow {
        ExplanationRow {
            subject: Subject::from(own()),
            kind: SubjectKind::Feature,
            explainer: explainer.into(),
            sample,
            model: if explainer == STATISTICS { "" } else { "m" }.into(),
            status,
            input_side: String::new(),
            output_side: String::new(),
            text: format!("{explainer} {sample}"),
            weakly: String::new(),
            reads_from: String::new(),
            clauses: Vec::new(),
            causes: Vec::new(),
            input_confidence: String::new(),
            output_confidence: String::new(),
            matching: String::new(),
            carried: String::new(),
            claims: vec![],
            reason: String::new(),
            prompt_hash: format!("h{sample}"),
        }
    }

    #[test]
    fn a_failure_never_stands_for_an_explanation() {
        let shown = |rows: Vec<ExplanationRow>| {
            let transcript = transcript(&samples(&rows), &[], &BTreeMap::new());
            let failed = transcript.is_some_and(|transcript| transcript.failure().is_some());
            (shown(&rows).map(|row| row.text.clone()), failed)
        };
        let summary = || row(STATISTICS, 0, Status::Ok);
        let text = |text: &str| Some(text.to_string());
        assert_eq!(shown(vec![summary()]), (text("statistics 0"), false));
        assert_eq!(
            shown(vec![summary(), row("feature", 1, Status::Ok), row("feature", 0, Status::Ok)]),
            (text("feature 0"), false)
        );
        assert_eq!(
            shown(vec![row("feature", 0, Status::Failed), summary()]),
            (text("statistics 0"), true)
        );
        assert_eq!(shown(vec![row("feature", 0, Status::Refused)]), (None, true));
        assert_eq!(shown(vec![]), (None, false));
    }

    #[test]
    fn only_what_the_first_judge_got_wrong_of_the_own_explanation_is_kept() {
        let judgement =
            |text: u32, judge: &str, explained: FeatureId, said: Option<bool>| JudgementRow {
                subject: own(),
                method: "detection".into(),
                judge: judge.into(),
                explained,
                sample: 0,
                clause: None,
                text,
                band: Band::Top,
                context: 0,
                start: 1,
                tokens: 3,
                marked: vec![],
                activation: 1.0,
                truth: true,
                said,
                similarity: None,
                prompt_hash: String::new(),
            };
        let other = FeatureId { index: 2, ..own() };
        let wrong = |text: u32| judgement(text, "j", own(), Some(false));
        let others = [
            judgement(0, "k", own(), Some(false)),
            judgement(1, "j", other, Some(false)),
            judgement(2, "j", own(), Some(true)),
            judgement(3, "j", own(), None),
        ];
        let rows = (10..30).rev().map(wrong).chain(others).collect();
        let kept: Vec<u32> = misjudged(rows, "j")[&own()].iter().map(|row| row.text).collect();
        assert_eq!(kept, (10..18).collect::<Vec<_>>());
    }
}
