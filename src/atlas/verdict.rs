//! Whether an explanation is better than what it has to beat, in words: the one place that says so.
//!
//! A value beats a null when the whole of its 95% interval is above it. Is the value above and its
//! interval not, the two are not told apart.

use crate::atlas::model::{Agreement, Evaluation, Steering};
use crate::format::number::{ABSENT, counted, fixed, percent};
use serde::Serialize;

/// What came of a comparison, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Beats,
    NotApart,
    Beaten,
    /// There is no value, or nothing to compare it with.
    Unknown,
}

impl Verdict {
    /// A mark for tables; never alone, a title says what it means.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Verdict::Beats => "✓",
            Verdict::NotApart => "≈",
            Verdict::Beaten => "✗",
            Verdict::Unknown => "",
        }
    }

    /// What the style sheet calls it.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Verdict::Beats => "beats",
            Verdict::NotApart => "near",
            Verdict::Beaten => "beaten",
            Verdict::Unknown => "unknown",
        }
    }
}

/// A verdict with what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub verdict: Verdict,
    /// `beats both`, `not told apart from the single-token rule`, `does not beat another feature's
    /// explanation`.
    pub words: String,
}

/// A value beside its nulls, each with its name.
fn judged(value: Option<f64>, low: Option<f64>, nulls: &[(&str, Option<f64>)]) -> Judged {
    let there: Vec<(&str, f64)> =
        nulls.iter().filter_map(|(name, null)| Some((*name, (*null)?))).collect();
    let value = value.filter(|value| value.is_finite());
    let Some(value) = value.filter(|_| !there.is_empty()) else {
        let words = if value.is_none() { "unknown" } else { "nothing to compare with" };
        return Judged { verdict: Verdict::Unknown, words: words.into() };
    };
    let against = |null: f64| match low {
        _ if value <= null => Verdict::Beaten,
        Some(low) if low > null => Verdict::Beats,
        _ => Verdict::NotApart,
    };
    let verdict = there.iter().map(|(_, null)| against(*null)).max().unwrap_or(Verdict::Unknown);
    let of: Vec<&str> =
        there.iter().filter(|(_, null)| against(*null) == verdict).map(|(name, _)| *name).collect();
    let words = match verdict {
        Verdict::Beats if of.len() == 2 => "beats both".into(),
        Verdict::Beats => format!("beats {}", of.join(" and ")),
        Verdict::NotApart => format!("not significantly above {}", of.join(" or ")),
        _ => format!("does not beat {}", of.join(" or ")),
    };
    Judged { verdict, words }
}

/// What an explanation has to beat: another feature's, on the same texts, and the single-token
/// rule.
pub(crate) fn of_evaluation(e: &Evaluation) -> Judged {
    let another = match e.method.as_str() {
        "intruder" => "chance",
        _ if is_rule(e) => "another feature's rule",
        _ => "another feature's explanation",
    };
    judged(e.score, e.low, &[(another, e.null), ("the single-token rule", e.rule)])
}

/// What else is known of a score: with any activation, and by kind of inactive text; empty where
/// that is nothing.
pub(crate) fn details(e: &Evaluation) -> String {
    let mut told = Vec::new();
    if let Some(any) = e.any {
        told.push(format!("{} if any activation counts as active", fixed(any, 2)));
    }
    let kinds = ["with the feature's own token", "of similar features", "others"];
    let right: Vec<String> = kinds
        .iter()
        .zip(e.right)
        .filter_map(|(kind, right)| Some(format!("{} of those {kind}", percent(right?))))
        .collect();
    if !right.is_empty() {
        let right = right.join(", ").replace("of those others", "of others");
        told.push(format!("inactive texts told as inactive: {right}"));
    }
    match told.is_empty() {
        true => String::new(),
        false => format!("{}, judged by {}: {}", e.method, e.judge, told.join("; ")),
    }
}

/// What was tried, in words: the method, and the clause if it was one alone.
pub(crate) fn tried(e: &Evaluation) -> String {
    match e.clause {
        Some(clause) => format!("{}, clause {}", e.method, clause + 1),
        None => e.method.clone(),
    }
}

/// What a score is, in words.
pub(crate) fn measure(method: &str) -> &'static str {
    match method {
        "embedding" => "ROC area",
        "intruder" => "share of intruders found",
        _ => "balanced accuracy",
    }
}

/// Whether it is the rule that was tried, and no explanation.
pub(crate) fn is_rule(e: &Evaluation) -> bool {
    e.method == "single-token"
}

/// What promoted tokens have to beat when the feature is added: chance, and another feature's
/// tokens.
pub(crate) fn of_promoted(causal: &Steering) -> Judged {
    let nulls = [("chance", Some(0.5)), ("another feature's tokens", causal.promoted_null)];
    judged(causal.promoted, causal.low, &nulls)
}

/// What the tokens that an explanation claims have to beat.
pub(crate) fn of_claimed(causal: &Steering) -> Judged {
    let nulls = [("chance", Some(0.5)), ("another feature's claims", causal.claimed_null)];
    judged(causal.claimed, causal.claimed_low, &nulls)
}

/// How far two or more agree, in a sentence.
pub(crate) fn agreement(a: &Agreement) -> String {
    let value = a.value.map_or_else(|| ABSENT.into(), |value| fixed(value, 2));
    if a.of == "words" {
        let pairs = counted(a.compared as usize, "pair");
        return format!(
            "Its independent explanations share {value} of their content words (Jaccard, mean of \
             {pairs})."
        );
    }
    let who = if a.between == "judges" {
        "The two judges"
    } else {
        "Judgements by its independent explanations"
    };
    let noun = if a.between == "judges" { "text" } else { "pair" };
    let texts = format!("{who}, {} on {}", a.of, counted(a.compared as usize, noun));
    match a.value {
        Some(kappa) => format!("{texts}: kappa {value}, agreement is {}.", in_words(kappa)),
        None => format!("{texts}: agreement unknown."),
    }
}

/// How far two agree by Cohen's kappa, in the words that are usual for it.
fn in_words(kappa: f64) -> &'static str {
    match kappa {
        v if v <= 0.0 => "no better than chance",
        v if v <= 0.2 => "slight",
        v if v <= 0.4 => "fair",
        v if v <= 0.6 => "moderate",
        v if v <= 0.8 => "substantial",
        _ => "nearly perfect",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: f64, low: f64, another: Option<f64>, rule: Option<f64>) -> String {
        judged(Some(value), Some(low), &[("another", another), ("the rule", rule)]).words
    }

    #[test]
    fn the_whole_interval_has_to_be_above_both() {
        assert_eq!(said(0.9, 0.8, Some(0.5), Some(0.7)), "beats both");
        assert_eq!(said(0.9, 0.8, Some(0.5), Some(0.8)), "not significantly above the rule");
        assert_eq!(
            said(0.9, 0.4, Some(0.5), Some(0.8)),
            "not significantly above another or the rule"
        );
        assert_eq!(said(0.7, 0.6, Some(0.5), Some(0.7)), "does not beat the rule");
        assert_eq!(said(0.4, 0.3, Some(0.5), Some(0.7)), "does not beat another or the rule");
    }

    #[test]
    fn details_tell_what_there_is() {
        let mut e = Evaluation {
            method: "detection".into(),
            explainer: "feature".into(),
            judge: "j".into(),
            clause: None,
            examples: 20,
            score: Some(0.9),
            low: Some(0.7),
            high: Some(1.0),
            null: None,
            null_subject: None,
            rule: None,
            any: Some(0.85),
            right: [Some(0.75), None, Some(1.0)],
        };
        assert_eq!(
            details(&e),
            "detection, judged by j: 0.85 if any activation counts as active; inactive texts told \
             as inactive: 75.0% of those with the feature's own token, 100% of others"
        );
        (e.any, e.right) = (None, [None; 3]);
        assert_eq!(details(&e), "");
    }

    #[test]
    fn what_is_not_there_beats_nothing() {
        assert_eq!(said(0.9, 0.8, Some(0.5), None), "beats another");
        assert_eq!(said(0.9, 0.8, None, None), "nothing to compare with");
        assert_eq!(judged(None, None, &[("chance", Some(0.5))]).verdict, Verdict::Unknown);
        let open = judged(Some(0.9), None, &[("chance", Some(0.5))]);
        assert_eq!(
            open.verdict,
            Verdict::NotApart,
            "without an interval nothing is beaten for sure"
        );
    }

    #[test]
    fn kappa_has_words() {
        assert_eq!(
            [-0.1, 0.1, 0.61, 1.0].map(in_words),
            ["no better than chance", "slight", "substantial", "nearly perfect"]
        );
    }

    #[test]
    fn agreement_is_told_in_words() {
        let of = |between: &str, of: &str, value| {
            agreement(&Agreement { between: between.into(), of: of.into(), compared: 46, value })
        };
        assert_eq!(
            of("judges", "detection", Some(0.7)),
            "The two judges, detection on 46 texts: kappa 0.70, agreement is substantial."
        );
        let words = "share 0.25 of their content words (Jaccard, mean of 46 pairs)";
        assert!(of("samples", "words", Some(0.25)).contains(words));
        assert!(of("samples", "fuzzing", None).ends_with("agreement unknown."));
    }
}
