//! The explanations of a whole atlas: how many there are, how good they are, and what they cost.

use crate::atlas::model::{Atlas, Evaluation, Transcript, Usage, UsageTotal};
use crate::atlas::verdict::{Verdict, is_rule, measure, of_evaluation};
use crate::format::number::{ABSENT, count, counted, fixed, seconds, significant};
use crate::ids::Status;
use crate::site::svg::{SPREAD_BINS, spread};
use crate::site::text::Html;
use serde::Serialize;
use std::collections::BTreeSet;

/// None without a language model.
#[derive(Serialize)]
pub(super) struct LlmSummaryView {
    models: Vec<String>,
    kinds: Vec<KindRow>,
    scores: Vec<ScoreSummary>,
    usage: Vec<AccountRow>,
    total: Option<AccountRow>,
    /// Whether the settings have a price for what was asked.
    priced: bool,
}

/// Things of one kind, by what came of asking about them.
#[derive(Serialize)]
struct KindRow {
    kind: &'static str,
    all: String,
    ok: String,
    failed: String,
    refused: String,
    not_asked: String,
}

/// One judge's scores of one explainer by one method, over all features.
#[derive(Serialize)]
struct ScoreSummary {
    method: String,
    explainer: String,
    judge: String,
    features: String,
    median: String,
    beats: String,
    near: String,
    beaten: String,
    unknown: String,
    /// None where there is no value.
    chart: Option<Html>,
}

#[derive(Serialize)]
struct AccountRow {
    model: String,
    purpose: String,
    /// Of each status, and in all.
    questions: Vec<String>,
    all: String,
    asked: String,
    answered: String,
    cost: String,
    seconds: String,
}

impl LlmSummaryView {
    pub(super) fn of(atlas: &Atlas) -> Option<LlmSummaryView> {
        let asked = asked(atlas);
        let any = || asked.iter().flat_map(|(_, all)| all.iter().flatten());
        let models: BTreeSet<&str> =
            any().flat_map(|a| &a.samples).map(|s| s.model.as_str()).collect();
        (any().next().is_some() || !atlas.usage.is_empty()).then(|| LlmSummaryView {
            models: models.into_iter().map(str::to_string).collect(),
            kinds: asked
                .iter()
                .filter(|(_, all)| !all.is_empty())
                .map(|(kind, all)| kind_row(kind, all))
                .collect(),
            scores: summaries(atlas),
            usage: atlas.usage.iter().map(account).collect(),
            total: (atlas.usage.len() > 1).then(|| account(&total(&atlas.usage))),
            priced: atlas.usage.iter().any(|a| a.usage.cost > 0.0),
        })
    }
}

/// By kind: what a language model was asked about each of them.
fn asked(atlas: &Atlas) -> [(&'static str, Vec<Option<&Transcript>>); 4] {
    [
        ("features", atlas.features.iter().map(|f| f.asked.as_ref()).collect()),
        ("components", atlas.components.iter().map(|c| c.asked.as_ref()).collect()),
        ("pairs", atlas.pairs.iter().map(|p| p.asked.as_ref()).collect()),
        ("groups", atlas.groups.iter().map(|g| g.asked.as_ref()).collect()),
    ]
}

fn kind_row(kind: &'static str, all: &[Option<&Transcript>]) -> KindRow {
    let first = |asked: &Option<&'_ Transcript>| {
        asked.and_then(|a| a.samples.first()).map(|sample| sample.status)
    };
    let statuses: Vec<Option<Status>> = all.iter().map(first).collect();
    let of = |wanted: Option<Status>| statuses.iter().filter(|status| **status == wanted).count();
    let (ok, refused, not_asked) =
        (of(Some(Status::Ok)), of(Some(Status::Refused)), of(None) + of(Some(Status::Left)));
    let [all, ok, failed, refused, not_asked] =
        [all.len(), ok, all.len() - ok - refused - not_asked, refused, not_asked]
            .map(|n| count(n as u64));
    KindRow { kind, all, ok, failed, refused, not_asked }
}

/// The scores of all features by method, explainer and judge; within a method in the order in which
/// they first come.
fn summaries(atlas: &Atlas) -> Vec<ScoreSummary> {
    let mut groups: Vec<Vec<&Evaluation>> = Vec::new();
    let alike = |a: &Evaluation, b: &Evaluation| {
        (&a.method, &a.explainer, &a.judge) == (&b.method, &b.explainer, &b.judge)
    };
    for e in atlas
        .features
        .iter()
        .flat_map(|f| &f.evaluations)
        .filter(|e| !is_rule(e) && e.clause.is_none())
    {
        match groups.iter_mut().find(|own| alike(own[0], e)) {
            Some(own) => own.push(e),
            None => groups.push(vec![e]),
        }
    }
    groups.sort_by(|a, b| a[0].method.cmp(&b[0].method));
    groups.iter().map(|own| summary(own)).collect()
}

fn summary(own: &[&Evaluation]) -> ScoreSummary {
    let mut values: Vec<f64> = own.iter().filter_map(|e| e.score).collect();
    values.sort_by(f64::total_cmp);
    let of = |wanted: Verdict| own.iter().filter(|e| of_evaluation(e).verdict == wanted).count();
    let share = |n: usize| match n {
        0 => "none".to_string(),
        n => format!("{} ({}%)", count(n as u64), fixed(100.0 * n as f64 / own.len() as f64, 0)),
    };
    let (method, explainer, judge) =
        (own[0].method.clone(), own[0].explainer.clone(), own[0].judge.clone());
    ScoreSummary {
        chart: (!values.is_empty()).then(|| {
            spread(&format!("features by the {} of {method}", measure(&method)), &bins(own))
        }),
        method,
        explainer,
        judge,
        features: counted(own.len(), "feature"),
        median: values
            .get(values.len() / 2)
            .map_or_else(|| ABSENT.into(), |median| fixed(*median, 2)),
        beats: share(of(Verdict::Beats)),
        near: share(of(Verdict::NotApart)),
        beaten: share(of(Verdict::Beaten)),
        unknown: count(of(Verdict::Unknown) as u64),
    }
}

/// Features in equal bins of accuracy from 0 to 1, by verdict: those that beat both, not told
/// apart, beaten.
fn bins(own: &[&Evaluation]) -> [[u64; 3]; SPREAD_BINS] {
    let mut bins = [[0; 3]; SPREAD_BINS];
    for e in own {
        let kind = match of_evaluation(e).verdict {
            Verdict::Beats => 0,
            Verdict::NotApart => 1,
            _ => 2,
        };
        if let Some(value) = e.score.filter(|value| value.is_finite()) {
            bins[((value * SPREAD_BINS as f64) as usize).min(SPREAD_BINS - 1)][kind] += 1;
        }
    }
    bins
}

fn total(usage: &[UsageTotal]) -> UsageTotal {
    let mut total = UsageTotal { purpose: "in all".into(), ..UsageTotal::default() };
    for account in usage {
        total.questions.iter_mut().zip(account.questions).for_each(|(sum, n)| *sum += n);
        total.usage.add(&account.usage);
    }
    total
}

fn account(a: &UsageTotal) -> AccountRow {
    let Usage { prompt_tokens, completion_tokens, cost, seconds: time, .. } = a.usage;
    AccountRow {
        model: a.model.clone(),
        purpose: a.purpose.clone(),
        questions: a.questions.iter().map(|n| count(*n)).collect(),
        all: count(a.questions.iter().sum()),
        asked: count(prompt_tokens),
        answered: count(completion_tokens),
        cost: if cost > 0.0 { significant(cost, 3) } else { ABSENT.into() },
        seconds: seconds(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bin() {
        let e = |value| Evaluation {
            method: "detection".into(),
            explainer: "feature".into(),
            judge: "j".into(),
            clause: None,
            examples: 40,
            score: value,
            low: value.map(|v| v - 0.1),
            high: value,
            null: Some(0.5),
            null_subject: None,
            rule: Some(0.6),
            any: None,
            right: [None; 3],
        };
        let all = [e(Some(0.0)), e(Some(1.0)), e(Some(0.66)), e(None)];
        let bins = bins(&all.iter().collect::<Vec<_>>());
        assert_eq!((bins[0], bins[13], bins[19]), ([0, 0, 1], [0, 1, 0], [1, 0, 0]));
        assert_eq!(bins.iter().flatten().sum::<u64>(), 3);
    }
}
