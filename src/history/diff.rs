//! What changed from one run to another. A value that lies within the interval of the other run, or
//! whose interval holds the value of the other run, has not changed.

use super::facts::Facts;
use super::kept::{About, Kept};
use crate::artifact::Store;
use crate::error::Result;
use crate::format::number::{percent, percent_with_interval, with_interval};
use crate::ids::{FeatureId, Subject};
use crate::lock::changes;
use crate::stats::interval::Estimate;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A density that became this many times larger or smaller is told of, if it also changed by its
/// interval.
const DENSER: f64 = 1.1;
/// Variance explained, and shares of prompts, that differ by less are not told of.
const VARIANCE: f64 = 0.005;
const FREQUENCY: f64 = 0.1;

/// What a change is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Of {
    Circuit,
    Faithfulness,
    Feature,
    Explanation,
    Score,
    Density,
    Dictionary,
}

impl Of {
    pub(crate) const ALL: [Of; 7] = [
        Of::Circuit,
        Of::Faithfulness,
        Of::Feature,
        Of::Explanation,
        Of::Score,
        Of::Density,
        Of::Dictionary,
    ];

    /// What changes of this kind are called as a heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Of::Circuit => "Circuits",
            Of::Faithfulness => "Faithfulness",
            Of::Feature => "Features with a page",
            Of::Explanation => "Explanations",
            Of::Score => "Scores of explanations",
            Of::Density => "Activation density",
            Of::Dictionary => "Variance explained by dictionaries",
        }
    }

    /// What is compared, as a noun.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Of::Circuit => "component or feature of a circuit",
            Of::Faithfulness => "faithfulness value",
            Of::Feature => "feature",
            Of::Explanation => "explanation",
            Of::Score => "score",
            Of::Density => "density",
            Of::Dictionary => "dictionary",
        }
    }
}

/// Something that changed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Change {
    pub of: Of,
    /// The task that it is about.
    pub task: Option<String>,
    /// The feature, component, pair or group; a dictionary; or the task.
    pub name: String,
    /// The same as what has a page.
    #[serde(skip)]
    pub subject: Option<Subject>,
    /// What changed, in words.
    pub what: String,
    /// What it was, and what it is.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Everything that changed from a run to another.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Changes {
    pub before: Name,
    pub after: Name,
    /// What differs in settings, files and program.
    pub causes: Vec<String>,
    /// What was compared of each kind, and how much of it changed.
    pub counts: Vec<(Of, usize, usize)>,
    pub changes: Vec<Change>,
}

/// A run by its name.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Name {
    pub name: String,
    pub when: String,
}

/// Compares two runs; none is the tables of `now`.
///
/// # Errors
/// When a table cannot be read.
pub(crate) fn changes_between(
    before: Option<&Kept>,
    after: Option<&Kept>,
    now: (&About, &Store),
) -> Result<Changes> {
    let read = |run: Option<&Kept>| -> Result<(About, Facts)> {
        Ok(match run {
            Some(run) => (run.about.clone(), Facts::read(&run.store())?),
            None => (About { name: super::NOW.into(), ..now.0.clone() }, Facts::read(now.1)?),
        })
    };
    Ok(between(&read(before)?, &read(after)?))
}

pub(super) fn between(before: &(About, Facts), after: &(About, Facts)) -> Changes {
    let name = |about: &About| Name { name: about.name.clone(), when: about.when.clone() };
    let (a, b) = (&before.1, &after.1);
    let mut found = Found::default();
    found.components(a, b);
    found.circuits(a, b);
    found.faithfulness(a, b);
    found.features(a, b);
    found.explanations(a, b);
    found.scores(a, b);
    found.densities(a, b);
    found.dictionaries(a, b);
    let counts = Of::ALL.map(|of| {
        let changed = found.changes.iter().filter(|change| change.of == of).count();
        (of, found.compared.get(&of).copied().unwrap_or(0), changed)
    });
    found.changes.sort_by_key(|change| change.of);
    Changes {
        before: name(&before.0),
        after: name(&after.0),
        causes: causes(&before.0, &after.0),
        counts: counts.to_vec(),
        changes: found.changes,
    }
}

/// The same without addresses of servers, which are not for everybody: only that they differ is told.
fn told(ingredients: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let private = |name: &str| {
        name.starts_with("setting ")
            && name != "setting site.base_url"
            && ["base_url", ".deployment"].iter().any(|ending| name.ends_with(ending))
    };
    let one = |(name, value): (&String, &String)| match private(name) {
        true => {
            let hash = blake3::hash(value.as_bytes()).to_hex().to_string();
            (name.replacen("setting ", "address ", 1), hash)
        }
        false => (name.clone(), value.clone()),
    };
    ingredients.iter().map(one).collect()
}

/// Why results may differ: ingredients of the runs, and what the stages said that they read.
fn causes(before: &About, after: &About) -> Vec<String> {
    let reasons = changes(&told(&before.ingredients), &told(&after.ingredients));
    let mut causes: Vec<String> = reasons.into_iter().map(|reason| reason.text).collect();
    let said = |about: &About| about.summaries.get("tokenize").cloned().unwrap_or_default();
    let (was, is) = (said(before), said(after));
    if was != is {
        causes.push(format!("the corpus was {was}, is {is}"));
    }
    causes
}

/// Whether two values differ by more than their intervals allow.
fn differ(a: Option<Estimate>, b: Option<Estimate>) -> bool {
    let holds = |one: Estimate, value: f64| one.low <= value && value <= one.high;
    match (a, b) {
        (Some(a), Some(b)) => !holds(a, b.value) && !holds(b, a.value),
        (a, b) => a.is_some() != b.is_some(),
    }
}

#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    compared: BTreeMap<Of, usize>,
}

impl Found {
    fn add(&mut self, of: Of, subject: Option<Subject>, what: impl Into<String>) -> &mut Change {
        let name = subject.as_ref().map(ToString::to_string).unwrap_or_default();
        let what = what.into();
        self.changes.push(Change {
            of,
            task: None,
            name,
            subject,
            what,
            before: None,
            after: None,
        });
        let last = self.changes.len() - 1;
        &mut self.changes[last]
    }

    fn count(&mut self, of: Of, n: usize) {
        *self.compared.entry(of).or_default() += n;
    }

    fn components(&mut self, a: &Facts, b: &Facts) {
        let none = BTreeMap::new();
        for task in keys(&a.components, &b.components) {
            let of = |facts: &'_ Facts| facts.components.get(task).cloned().unwrap_or(none.clone());
            let (was, is) = (of(a), of(b));
            for component in keys(&was, &is) {
                self.count(Of::Circuit, 1);
                let shares = [was.get(component), is.get(component)].map(|share| share.copied());
                let what = match shares {
                    [None, _] => "new in the circuit",
                    [_, None] => "no longer in the circuit",
                    [Some(a), Some(b)] if (a - b).abs() >= FREQUENCY => "share of prompts",
                    _ => continue,
                };
                let change = self.add(Of::Circuit, Some(Subject::Component(*component)), what);
                change.task = Some(task.clone());
                let told = |share: f64| format!("{} of prompts", percent(share));
                [change.before, change.after] = shares.map(|share| share.map(told));
            }
        }
    }

    fn circuits(&mut self, a: &Facts, b: &Facts) {
        let none = BTreeSet::new();
        for task in keys(&a.circuits, &b.circuits) {
            let (was, is) =
                (a.circuits.get(task).unwrap_or(&none), b.circuits.get(task).unwrap_or(&none));
            self.count(Of::Circuit, was.union(is).count());
            for feature in is.difference(was) {
                self.of_feature(Of::Circuit, *feature, "new in the circuit").task =
                    Some(task.clone());
            }
            for feature in was.difference(is) {
                self.of_feature(Of::Circuit, *feature, "no longer in the circuit").task =
                    Some(task.clone());
            }
        }
    }

    fn of_feature(&mut self, of: Of, feature: FeatureId, what: impl Into<String>) -> &mut Change {
        self.add(of, Some(Subject::Feature(feature)), what)
    }

    fn faithfulness(&mut self, a: &Facts, b: &Facts) {
        for key in both(&a.faithfulness, &b.faithfulness) {
            self.count(Of::Faithfulness, 1);
            let (was, is) = (a.faithfulness[key], b.faithfulness[key]);
            if !differ(was.1, is.1) {
                continue;
            }
            let (task, level, ablation, errors) = key;
            let errors = match errors.as_str() {
                "" => String::new(),
                errors => format!(", errors {errors}"),
            };
            let of = if level == "component" { "heads and MLPs" } else { "features" };
            let change =
                self.add(Of::Faithfulness, None, format!("{of}, {ablation} ablation{errors}"));
            (change.task, change.name) = (Some(task.clone()), task.clone());
            let told = |(size, one): (u32, Option<Estimate>)| {
                let value = one.map_or("unknown".into(), |one| {
                    percent_with_interval(Some(one.value), Some(one.low), Some(one.high))
                });
                format!("{value}, of {size}")
            };
            (change.before, change.after) = (Some(told(was)), Some(told(is)));
        }
    }

    fn features(&mut self, a: &Facts, b: &Facts) {
        for feature in keys(&a.densities, &b.densities) {
            self.count(Of::Feature, 1);
            let what = match (a.densities.get(feature), b.densities.get(feature)) {
                (None, _) => "new",
                (_, None) => "gone",
                _ => continue,
            };
            self.of_feature(Of::Feature, *feature, what);
        }
    }

    fn explanations(&mut self, a: &Facts, b: &Facts) {
        for subject in both(&a.explanations, &b.explanations) {
            self.count(Of::Explanation, 1);
            let (was, is) = (&a.explanations[subject], &b.explanations[subject]);
            if was != is {
                let change = self.add(Of::Explanation, Some(subject.clone()), "explanation");
                (change.before, change.after) = (Some(was.clone()), Some(is.clone()));
            }
        }
    }

    fn scores(&mut self, a: &Facts, b: &Facts) {
        for key in both(&a.scores, &b.scores) {
            self.count(Of::Score, 1);
            let (was, is) = (a.scores[key], b.scores[key]);
            if !differ(was, is) {
                continue;
            }
            let (feature, explainer, method, judge) = key;
            let judge =
                if judge.is_empty() { String::new() } else { format!(", judged by {judge}") };
            let what = format!("{method} score of `{explainer}`{judge}");
            let change = self.of_feature(Of::Score, *feature, what);
            let told = |one: Option<Estimate>| {
                one.map_or("unknown".into(), |one| {
                    with_interval(Some(one.value), Some(one.low), Some(one.high))
                })
            };
            (change.before, change.after) = (Some(told(was)), Some(told(is)));
        }
    }

    fn densities(&mut self, a: &Facts, b: &Facts) {
        for feature in both(&a.densities, &b.densities) {
            self.count(Of::Density, 1);
            let (was, is) = (a.densities[feature], b.densities[feature]);
            let (less, more) = (was.value.min(is.value), was.value.max(is.value));
            if differ(Some(was), Some(is)) && more > DENSER * less {
                let change = self.of_feature(Of::Density, *feature, "density");
                let told = |one: Estimate| Some(percent(one.value));
                (change.before, change.after) = (told(was), told(is));
            }
        }
    }

    fn dictionaries(&mut self, a: &Facts, b: &Facts) {
        for name in keys(&a.dictionaries, &b.dictionaries) {
            self.count(Of::Dictionary, 1);
            let values = [a, b].map(|facts| facts.dictionaries.get(name).copied());
            if let [Some(a), Some(b)] = values
                && (a - b).abs() < VARIANCE
            {
                continue;
            }
            let change = self.add(Of::Dictionary, None, "variance explained");
            change.name.clone_from(name);
            [change.before, change.after] = values.map(|value| value.map(percent));
        }
    }
}

/// The keys of either.
fn keys<'a, K: Ord, A, B>(a: &'a BTreeMap<K, A>, b: &'a BTreeMap<K, B>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

/// The keys of both.
fn both<'a, K: Ord, A>(a: &'a BTreeMap<K, A>, b: &'a BTreeMap<K, A>) -> Vec<&'a K> {
    a.keys().filter(|key| b.contains_key(*key)).collect()
}
