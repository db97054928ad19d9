//! How good an explanation is: scores beside their nulls, how far judges and samples agree, and
//! what happens when the feature is added to the live model.

use super::parts::band_label;
use crate::atlas::model::{Evaluation, Feature, Misjudged, Steering};
use crate::atlas::verdict::{
    agreement, details, is_rule, measure, of_claimed, of_evaluation, of_promoted, tried,
};
use crate::format::number::{ABSENT, count, counted, fixed, with_interval};
use crate::ids::Band;
use crate::site::links::{Links, PageLink};
use crate::site::svg::{Mark, scale};
use crate::site::text::{Html, marked, token};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct ScoresView {
    rows: Vec<ScoreRow>,
    /// Whether an explanation was judged, and not the rule alone.
    judged: bool,
    /// Whether explanations of more than one explainer were.
    several: bool,
    /// Whether there are scores of these kinds.
    embedding: bool,
    intruder: bool,
    clauses: bool,
    /// By kind of text.
    details: Vec<String>,
    agreements: Vec<String>,
    /// By method: texts that the judge got wrong.
    misjudged: Vec<Wrong>,
    causal: Option<CausalView>,
}

/// Texts that a judge got wrong by a method.
#[derive(Serialize)]
struct Wrong {
    method: String,
    texts: Vec<WrongText>,
}

#[derive(Serialize)]
struct WrongText {
    what: String,
    context: u32,
    text: Html,
}

#[derive(Serialize)]
struct ScoreRow {
    method: String,
    explainer: String,
    judge: String,
    examples: u32,
    accuracy: String,
    picture: Html,
    null: String,
    null_of: Option<PageLink>,
    rule: String,
    words: String,
    class: &'static str,
}

#[derive(Serialize)]
struct CausalView {
    positions: String,
    strength: String,
    rows: Vec<CausalRow>,
    risen: Vec<Risen>,
}

/// A kind of tokens, and whether they rise.
#[derive(Serialize)]
struct CausalRow {
    what: String,
    value: String,
    picture: Html,
    null: String,
    words: String,
    class: &'static str,
}

#[derive(Serialize)]
struct Risen {
    token: Html,
    rise: String,
    /// Length of its bar in percent of the longest.
    width: String,
    /// Whether the decoder promotes it, and whether the explanation claims it.
    promoted: bool,
    claimed: bool,
}

impl ScoresView {
    /// None where nothing was tried.
    pub(super) fn of(links: Links, f: &Feature) -> Option<ScoresView> {
        let there = !f.evaluations.is_empty() || f.causal.is_some() || !f.agreements.is_empty();
        there.then(|| ScoresView {
            rows: f.evaluations.iter().map(|e| score_row(links, e)).collect(),
            judged: f.evaluations.iter().any(|e| !is_rule(e)),
            several: several(&f.evaluations),
            embedding: f.evaluations.iter().any(|e| e.method == "embedding"),
            intruder: f.evaluations.iter().any(|e| e.method == "intruder"),
            clauses: f.evaluations.iter().any(|e| e.clause.is_some()),
            details: f
                .evaluations
                .iter()
                .map(details)
                .filter(|details| !details.is_empty())
                .collect(),
            agreements: f.agreements.iter().map(agreement).collect(),
            misjudged: wrong(&f.misjudged),
            causal: f.causal.as_ref().map(|causal| causal_view(f, causal)),
        })
    }
}

fn several(evaluations: &[Evaluation]) -> bool {
    let mut explainers = evaluations.iter().filter(|e| !is_rule(e)).map(|e| &e.explainer);
    explainers.next().is_some_and(|first| explainers.any(|other| other != first))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| ABSENT.into(), |value| fixed(value, 2))
}

fn score_row(links: Links, e: &Evaluation) -> ScoreRow {
    let judged = of_evaluation(e);
    let null = if e.method == "intruder" { "chance" } else { "another feature's" };
    let nulls = [(null, e.null), ("single-token rule", e.rule)];
    ScoreRow {
        method: tried(e),
        explainer: e.explainer.clone(),
        judge: if e.judge.is_empty() { ABSENT.into() } else { e.judge.clone() },
        examples: e.examples,
        accuracy: with_interval(e.score, e.low, e.high),
        picture: scale(
            measure(&e.method),
            Mark { value: e.score, low: e.low, high: e.high },
            &nulls,
        ),
        null: number(e.null),
        null_of: e.null_subject.map(|id| links.feature(id)),
        rule: number(e.rule),
        words: judged.words,
        class: judged.verdict.class(),
    }
}

fn wrong(all: &[Misjudged]) -> Vec<Wrong> {
    let text =
        |m: &Misjudged| WrongText { what: what(m), context: m.context, text: marked(&m.pieces) };
    let of_method = |own: &[Misjudged]| Wrong {
        method: own[0].method.clone(),
        texts: own.iter().map(text).collect(),
    };
    all.chunk_by(|a, b| a.method == b.method).map(of_method).collect()
}

/// What is true of a text whose judge said the opposite.
fn what(m: &Misjudged) -> String {
    let fuzzing = m.method == "fuzzing";
    match (m.truth, m.band) {
        (true, _) if fuzzing => "missed: the marks are correct".into(),
        (false, _) if fuzzing => "false alarm: the marks are incorrect".into(),
        (true, band) => format!("missed: active ({})", band_label(band)),
        (false, Band::Token) => {
            "false alarm: inactive, hard negative with a token at which the feature is often \
             active"
                .into()
        }
        (false, Band::Similar) => {
            "false alarm: inactive, hard negative from a similar feature".into()
        }
        (false, _) => "false alarm: inactive".into(),
    }
}

fn causal_view(f: &Feature, c: &Steering) -> CausalView {
    let judged = of_promoted(c);
    let row = |what: String, mark: Mark, null: Option<f64>, words: String, class| CausalRow {
        what,
        value: with_interval(mark.value, mark.low, mark.high),
        picture: scale("AUC of the logit rise", mark, &[("another feature's", null)]),
        null: number(null),
        words,
        class,
    };
    let promoted = Mark { value: c.promoted, low: c.low, high: c.high };
    let claimed = Mark { value: c.claimed, low: c.claimed_low, high: c.claimed_high };
    let claims = format!("{} claimed by the explanation", counted(c.claims as usize, "token"));
    let promoted = row(
        "promoted tokens".into(),
        promoted,
        c.promoted_null,
        judged.words,
        judged.verdict.class(),
    );
    let judged = of_claimed(c);
    let claims = (c.claims > 0)
        .then(|| row(claims, claimed, c.claimed_null, judged.words, judged.verdict.class()));
    CausalView {
        positions: count(u64::from(c.positions)),
        strength: fixed(c.strength, 1),
        rows: [promoted].into_iter().chain(claims).collect(),
        risen: risen(f, c),
    }
}

fn risen(f: &Feature, c: &Steering) -> Vec<Risen> {
    let longest = c.risen.iter().map(|r| r.1).fold(0.0, f32::max);
    let claims = f.explanation.iter().flat_map(|e| &e.claims);
    let claims: Vec<&str> = claims.map(|claim| claim.trim()).collect();
    let row = |(text, rise): &(String, f32)| Risen {
        token: token(text),
        rise: fixed(*rise, 2),
        width: format!("{:.0}", if longest > 0.0 { rise.max(0.0) / longest * 100.0 } else { 0.0 }),
        promoted: f.promoted.iter().any(|p| p.text == *text),
        claimed: claims.contains(&text.trim()),
    };
    c.risen.iter().map(row).collect()
}
