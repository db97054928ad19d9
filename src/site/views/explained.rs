//! An explanation as pages show it: who wrote it, what it says, how good it is, and why there is
//! none.

use crate::atlas::model::{Evaluation, Explanation, Feature, ImportedExplanation, Transcript};
use crate::atlas::verdict::{is_rule, measure, of_evaluation};
use crate::format::number::{counted, fixed};
use crate::ids::Status;
use crate::site::links::{Links, exchange_path, lead};
use crate::site::text::{self, Html};
use serde::Serialize;

/// Characters of a reason.
const REASON: usize = 300;

/// What pages know of the explanation of their subject.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    /// The page's file in the site's folder.
    pub path: &'a str,
    pub explanation: Option<&'a Explanation>,
    pub asked: Option<&'a Transcript>,
    pub evaluations: &'a [Evaluation],
}

/// An explanation, or why there is none.
#[derive(Serialize)]
pub(super) struct ExplanationView {
    said: Option<Said>,
    /// Whether a language model wrote it, and which.
    by_model: bool,
    model: String,
    failure: Option<Failure>,
    scores: Vec<Badge>,
    /// `2 further explanations`, and these.
    further: String,
    samples: Vec<Sample>,
    /// Where what was asked and replied can be read.
    prompts: Option<Html>,
}

/// What an explanation says.
#[derive(Serialize)]
struct Said {
    /// One line that says it all; absent where the two sides do.
    lead: Option<Html>,
    /// What each side is called, what that means, and what is said of it.
    sides: Vec<(&'static str, &'static str, Html)>,
    /// Of a feature whose texts have several causes: what is said of each, and the cause.
    clauses: Vec<Clause>,
    claims: Vec<Html>,
}

/// A sentence for one cause.
#[derive(Serialize)]
struct Clause {
    text: Html,
    cause: Html,
    /// How it was judged alone.
    score: Option<Badge>,
}

/// Why a language model that was asked has not explained it.
#[derive(Serialize)]
struct Failure {
    model: String,
    refused: bool,
    /// Nothing came of it this time.
    left: bool,
    reason: Html,
}

/// One of several independent explanations.
#[derive(Serialize)]
struct Sample {
    said: Option<Said>,
    failure: Option<Failure>,
}

/// How a score compares with its nulls.
#[derive(Serialize)]
pub(super) struct Badge {
    method: String,
    /// What the value is, in words.
    measure: &'static str,
    value: String,
    words: String,
    class: &'static str,
}

/// What somebody else says.
#[derive(Serialize)]
pub(super) struct ImportedView {
    text: Html,
    explainer: String,
    source: String,
    scores: Vec<Badge>,
}

impl ImportedView {
    pub(super) fn of(own: &ImportedExplanation, evaluations: &[Evaluation]) -> ImportedView {
        ImportedView {
            text: text::prose(&own.text, usize::MAX),
            explainer: own.explainer.clone(),
            source: own.source.clone(),
            scores: scores_of(&own.explainer, evaluations).into_iter().map(badge).collect(),
        }
    }
}

impl ExplanationView {
    pub(super) fn of(links: Links, about: About) -> Option<ExplanationView> {
        let shown = about.explanation.filter(|e| e.status == Status::Ok);
        let failed = about
            .asked
            .and_then(Transcript::failure)
            .or(about.explanation.filter(|e| e.status != Status::Ok));
        let samples =
            about.asked.map(|asked| asked.samples.get(1..).unwrap_or_default()).unwrap_or_default();
        let replied = about.asked.is_some_and(|asked| !asked.exchanges.is_empty());
        (shown.is_some() || failed.is_some()).then(|| ExplanationView {
            said: shown.map(|e| said(e, about.evaluations)),
            by_model: shown.is_some_and(|e| e.explainer != crate::summary::STATISTICS),
            model: shown.map(model).unwrap_or_default(),
            failure: failed.map(failure),
            scores: shown.map(|e| badges(e, about.evaluations)).unwrap_or_default(),
            further: counted(samples.len(), "further explanation"),
            samples: samples.iter().map(sample).collect(),
            prompts: replied.then(|| links.href(&exchange_path(about.path))),
        })
    }
}

fn model(e: &Explanation) -> String {
    if e.model.is_empty() { e.explainer.clone() } else { e.model.clone() }
}

/// With the scores of its clauses, as far as these were judged.
fn said(e: &Explanation, evaluations: &[Evaluation]) -> Said {
    let of_clause = |clause: usize| {
        let own = |v: &&Evaluation| v.clause == Some(clause as u32) && v.explainer == e.explainer;
        evaluations.iter().find(own).map(badge)
    };
    let there = |text: &str| (!text.is_empty()).then(|| text::prose(text, usize::MAX));
    let sides = [
        ("Reads", "what makes it active", &e.input_side),
        ("Weakly", "where it is active, but little", &e.weakly),
        ("From", "the earlier words that it reads", &e.reads_from),
        ("Matches", "how query and key match: what the head attends to, and when", &e.matching),
        ("Carries", "what it moves from the tokens it attends to", &e.carried),
        ("Writes", "what it promotes", &e.output_side),
    ];
    Said {
        lead: there(lead(e)),
        sides: sides
            .into_iter()
            .filter_map(|(name, means, text)| Some((name, means, there(text)?)))
            .collect(),
        clauses: e
            .clauses
            .iter()
            .enumerate()
            .map(|(i, (clause, cause))| Clause {
                text: text::prose(clause, usize::MAX),
                cause: text::prose(cause, usize::MAX),
                score: of_clause(i),
            })
            .collect(),
        claims: e.claims.iter().map(|claim| text::token(claim)).collect(),
    }
}

fn failure(e: &Explanation) -> Failure {
    let reason = if e.reason.is_empty() { "no reason recorded" } else { &e.reason };
    Failure {
        model: model(e),
        refused: e.status == Status::Refused,
        left: e.status == Status::Left,
        reason: text::prose(reason, REASON),
    }
}

fn sample(e: &Explanation) -> Sample {
    let ok = e.status == Status::Ok;
    Sample { said: ok.then(|| said(e, &[])), failure: (!ok).then(|| failure(e)) }
}

/// The first judge's score of an explanation by each method, if it was judged.
pub(super) fn scores<'a>(e: &Explanation, evaluations: &'a [Evaluation]) -> Vec<&'a Evaluation> {
    scores_of(&e.explainer, evaluations)
}

fn scores_of<'a>(explainer: &str, evaluations: &'a [Evaluation]) -> Vec<&'a Evaluation> {
    let mut own: Vec<&Evaluation> =
        evaluations.iter().filter(|v| v.explainer == explainer && !is_rule(v)).collect();
    own.retain(|v| v.clause.is_none());
    own.dedup_by(|later, first| later.method == first.method);
    own
}

/// The first score of the explanation that a feature's page shows.
pub(crate) fn first_score(f: &Feature) -> Option<&Evaluation> {
    scores(f.explanation.as_ref()?, &f.evaluations).into_iter().next()
}

fn badges(e: &Explanation, evaluations: &[Evaluation]) -> Vec<Badge> {
    scores(e, evaluations).into_iter().map(badge).collect()
}

fn badge(e: &Evaluation) -> Badge {
    let judged = of_evaluation(e);
    Badge {
        measure: measure(&e.method),
        method: e.method.clone(),
        value: e.score.map_or_else(|| "—".into(), |value| fixed(value, 2)),
        words: judged.words,
        class: judged.verdict.class(),
    }
}
