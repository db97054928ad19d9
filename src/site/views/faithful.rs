//! How real a task's circuit is: what circuits of several sizes do alone, and what is left without
//! them.

use crate::atlas::model::{Faithfulness, Interval, Task};
use crate::format::number::{
    counted, fixed, percent, percent_with_interval, significant, with_interval,
};
use crate::site::chart::{Point, chart, class};
use crate::site::text::Html;
use serde::Serialize;
use std::collections::BTreeSet;

/// Everything that was measured of whole circuits.
#[derive(Serialize)]
pub(super) struct FaithfulView {
    /// What is measured, as one writes it.
    measure: &'static str,
    /// Whole model.
    full: Option<String>,
    /// One a way of replacing, the first as the design's default.
    ablations: Vec<AblationView>,
    /// How the published circuit is met, by size; empty where there is none.
    published: Vec<PublishedRow>,
    /// Area under the curve against it.
    area: Option<String>,
    some_absent: bool,
    /// Each method's largest circuits of heads and MLPs, where there are several.
    methods: Vec<MethodRow>,
    /// Each method's circuits of features by size.
    ranked: Vec<RankedView>,
    /// Prompts that it was measured on.
    measured_on: Option<String>,
    /// Whether they are other prompts than circuits were found on.
    fresh: bool,
}

#[derive(Serialize)]
struct MethodRow {
    method: String,
    nodes: String,
    components: Beside,
    /// The areas under faithfulness over size, and between it and 1.
    areas: [String; 2],
}

/// What the first features of each method's ranking keep.
#[derive(Serialize)]
struct RankedView {
    /// What becomes of what dictionaries miss.
    errors: &'static str,
    sizes: Vec<String>,
    rows: Vec<RankingRow>,
}

#[derive(Serialize)]
struct RankingRow {
    /// Whose ranking.
    name: String,
    /// What its circuits of each size keep, over all prompts and in each stratum.
    cells: Vec<(String, Vec<String>)>,
    /// The areas under faithfulness over size, and between it and 1.
    areas: [String; 2],
}

/// The largest circuit of a level, and random ones of its size.
#[derive(Serialize, Default)]
struct Beside {
    size: String,
    faithfulness: String,
    random: String,
}

#[derive(Serialize)]
struct AblationView {
    name: String,
    /// What it puts in the place of everything else.
    by: &'static str,
    levels: Vec<LevelView>,
}

#[derive(Serialize)]
struct LevelView {
    name: &'static str,
    /// With everything replaced.
    empty: Option<String>,
    /// Kinds of circuits: class in the style sheet, name.
    key: Vec<(&'static str, String)>,
    charts: Vec<ChartView>,
    rows: Vec<Row>,
    /// What all features do together.
    all: Option<String>,
}

#[derive(Serialize)]
struct ChartView {
    metric: &'static str,
    picture: Html,
}

#[derive(Serialize)]
struct Row {
    circuit: String,
    variant: String,
    size: u32,
    faithfulness: String,
    /// In each stratum.
    strata: String,
    fit: String,
    random: String,
    completeness: String,
    value: String,
    left: String,
}

#[derive(Serialize)]
struct PublishedRow {
    variant: String,
    size: u32,
    precision: String,
    recall: String,
}

impl FaithfulView {
    pub(super) fn new(task: &Task) -> FaithfulView {
        let rows = &task.faithfulness;
        let of = |f: &&Faithfulness| f.metrics.contains_key("precision");
        let published = |f: &Faithfulness| PublishedRow {
            variant: variant(f),
            size: f.size,
            precision: written(f, "precision"),
            recall: written(f, "recall"),
        };
        let run = |f: &&Faithfulness| f.metrics.contains_key("m_circuit");
        let order =
            |name: &&str| ["mean", "resample", "zero"].iter().position(|known| known == name);
        let by_feature = |f: &&Faithfulness| f.level != "neuron";
        let mut names: Vec<&str> = rows
            .iter()
            .filter(run)
            .filter(by_feature)
            .map(|f| f.ablation.as_str())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        names.sort_by_key(order);
        FaithfulView {
            measure: measure(&task.kind),
            full: rows.iter().find_map(|f| f.metrics.get("m_full")).map(interval),
            ablations: names.into_iter().map(|name| ablation(name, rows)).collect(),
            published: rows.iter().filter(of).map(published).collect(),
            methods: methods(task),
            ranked: ["ablated", "kept"]
                .into_iter()
                .filter_map(|errors| ranked(task, errors))
                .collect(),
            measured_on: rows
                .iter()
                .find_map(|f| f.metrics.get("prompts")?.value)
                .map(|n| counted(n as usize, "prompt")),
            fresh: fresh(task),
            area: rows.iter().find_map(|f| f.metrics.get("auc")).map(interval),
            some_absent: rows
                .iter()
                .filter(run)
                .any(|f| f.metrics.values().any(|m| m.value.is_none())),
        }
    }
}

fn ablation(name: &str, rows: &[Faithfulness]) -> AblationView {
    let levels = [
        ("Heads and MLPs", "component", ""),
        ("Features, error terms kept", "feature", "kept"),
        ("Features, error terms ablated", "feature", "ablated"),
    ];
    let by = match name {
        "mean" => "mean over corrupted prompts of the same sentence structure, by position",
        "resample" => {
            "value in one corrupted prompt of the same sentence structure, drawn for each prompt"
        }
        _ => "0",
    };
    let level = |(title, level, errors): (&'static str, &str, &str)| {
        let own: Vec<&Faithfulness> = rows
            .iter()
            .filter(|f| {
                (f.ablation.as_str(), f.level.as_str(), f.errors.as_str()) == (name, level, errors)
            })
            .collect();
        (!own.is_empty()).then(|| LevelView::new(title, level, &own))
    };
    AblationView { name: name.into(), by, levels: levels.into_iter().filter_map(level).collect() }
}

impl LevelView {
    fn new(name: &'static str, unit: &str, rows: &[&Faithfulness]) -> LevelView {
        let small = |f: &&Faithfulness| {
            f.circuit != "all" && f.variant != "by size" && !f.variant.ends_with("of all")
        };
        let drawn: Vec<&Faithfulness> = rows.iter().copied().filter(small).collect();
        let kinds: BTreeSet<&String> = drawn.iter().map(|f| &f.circuit).collect();
        let picture = |metric: &'static str| {
            let points: Vec<Point> = drawn.iter().filter_map(|f| point(f, metric)).collect();
            (!points.is_empty())
                .then(|| ChartView { metric, picture: chart(metric, unit, &points) })
        };
        let all = rows.iter().find(|f| f.circuit == "all").map(|f| written(f, "faithfulness"));
        let listed = drawn.iter().filter(|f| f.circuit != "random");
        LevelView {
            name,
            empty: rows.iter().find_map(|f| f.metrics.get("m_empty")).map(interval),
            key: kinds.into_iter().map(|kind| (class(kind), kind.clone())).collect(),
            charts: ["faithfulness", "completeness"].into_iter().filter_map(picture).collect(),
            rows: listed.map(|f| row(f, &drawn)).collect(),
            all,
        }
    }
}

/// What each method's largest circuits do, where more than one was measured.
fn methods(task: &Task) -> Vec<MethodRow> {
    let nodes = |f: &&Faithfulness| f.metrics.contains_key("nodes");
    let row = |f: &Faithfulness| MethodRow {
        method: if f.circuit == "found" { task.method.clone() } else { f.circuit.clone() },
        nodes: f.metrics["nodes"].value.map(|n| significant(n, 3)).unwrap_or_default(),
        components: largest_beside(task, &f.circuit, "component", ""),
        areas: ["cpr", "cmd"].map(|metric| {
            let own =
                |other: &&Faithfulness| other.circuit == f.circuit && other.level == "component";
            let value =
                task.faithfulness.iter().filter(own).find_map(|f| f.metrics.get(metric)?.value);
            value.map(|v| fixed(v, 2)).unwrap_or_default()
        }),
    };
    let rows: Vec<MethodRow> = task.faithfulness.iter().filter(nodes).map(row).collect();
    if rows.len() > 1 { rows } else { Vec::new() }
}

/// The first features of each ranking at the sizes that were run, beside random ones and the null
/// task's.
fn ranked(task: &Task, errors: &str) -> Option<RankedView> {
    let of = |f: &&Faithfulness| {
        let features = f.level == "feature" && f.errors == errors && f.ablation == task.ablation();
        // Neurons have no errors that could be kept.
        features || f.level == "neuron" && errors == "ablated" && f.ablation == task.ablation()
    };
    let own: Vec<&Faithfulness> = task.faithfulness.iter().filter(of).collect();
    let first = || own.iter().filter(|f| f.variant.starts_with("first "));
    let sizes: BTreeSet<u32> = first().map(|f| f.size).collect();
    let kinds: BTreeSet<(usize, &str)> =
        first().map(|f| (order_of(&f.circuit), f.circuit.as_str())).collect();
    let cell = |kind: &str, size: u32| {
        let f = first().find(|f| f.circuit == kind && f.size == size);
        let value = f.and_then(|f| f.metrics.get("faithfulness")?.value).map(|v| fixed(v, 2));
        (value.unwrap_or_default(), f.map(|f| in_strata(f, "faithfulness")).unwrap_or_default())
    };
    let area = |kind: &str, metric: &str| {
        let value =
            own.iter().filter(|f| f.circuit == kind).find_map(|f| f.metrics.get(metric)?.value);
        value.map(|v| fixed(v, 2)).unwrap_or_default()
    };
    let row = |&(_, kind): &(usize, &str)| RankingRow {
        name: if kind == "found" { task.method.clone() } else { kind.to_string() },
        cells: sizes.iter().map(|&size| cell(kind, size)).collect(),
        areas: ["cpr", "cmd"].map(|metric| area(kind, metric)),
    };
    let errors = if errors == "kept" { "error terms kept" } else { "error terms ablated" };
    (kinds.len() > 1).then(|| RankedView {
        errors,
        sizes: sizes.iter().map(u32::to_string).collect(),
        rows: kinds.iter().map(row).collect(),
    })
}

/// The circuit found comes first, what it is held against last.
fn order_of(circuit: &str) -> usize {
    match circuit {
        "found" => 0,
        "random" => 2,
        "null" => 3,
        _ => 1,
    }
}

/// A metric in each stratum, in percent: `ABBA 57%`.
pub(super) fn in_strata(f: &Faithfulness, metric: &str) -> Vec<String> {
    let of = |(name, interval): (&String, &Interval)| {
        let stratum = name.strip_prefix(metric)?.strip_prefix(" on ")?;
        Some(format!("{stratum} {}", interval.value.map_or("—".into(), percent)))
    };
    f.metrics.iter().filter_map(of).collect()
}

fn largest_beside(task: &Task, circuit: &str, level: &str, errors: &str) -> Beside {
    let Some(found) = largest(task, circuit, level, errors) else { return Beside::default() };
    Beside {
        size: found.size.to_string(),
        faithfulness: written(found, "faithfulness"),
        random: beside(task, found).map(|r| written(r, "faithfulness")).unwrap_or_default(),
    }
}

fn row(f: &Faithfulness, among: &[&Faithfulness]) -> Row {
    let random = among
        .iter()
        .find(|r| r.circuit == "random" && r.size == f.size && f.circuit != "published");
    Row {
        circuit: f.circuit.clone(),
        variant: variant(f),
        size: f.size,
        faithfulness: written(f, "faithfulness"),
        strata: in_strata(f, "faithfulness").join(", "),
        fit: written(f, "fit"),
        random: random.map(|r| written(r, "faithfulness")).unwrap_or_default(),
        completeness: written(f, "completeness"),
        value: written(f, "m_circuit"),
        left: written(f, "m_complement"),
    }
}

/// A metric with its interval; not measured is empty, not to be told is a dash.
fn written(f: &Faithfulness, metric: &str) -> String {
    f.metrics.get(metric).map(interval).unwrap_or_default()
}

fn interval(i: &Interval) -> String {
    let exact = i.low == i.value && i.high == i.value;
    if exact { with_interval(i.value, None, None) } else { with_interval(i.value, i.low, i.high) }
}

/// `frequency >= 0.25` as one would print it.
fn variant(f: &Faithfulness) -> String {
    f.variant.replace(">=", "≥")
}

fn point(f: &Faithfulness, metric: &str) -> Option<Point> {
    let interval = f.metrics.get(metric)?;
    let value = interval.value.filter(|v| v.is_finite())?;
    let (circuit, variant) = (f.circuit.clone(), variant(f));
    Some(Point { circuit, variant, size: f.size, value, low: interval.low, high: interval.high })
}

/// What a task of this kind measures.
pub(super) fn measure(kind: &str) -> &'static str {
    match kind {
        "logit" => "the answer’s logit",
        "greater-than" => "P(>\u{202f}YY)\u{a0}−\u{a0}P(≤\u{202f}YY)",
        _ => "the logit difference",
    }
}

/// Whether circuits were measured on other prompts than they were found on.
pub(super) fn fresh(task: &Task) -> bool {
    task.faithfulness.iter().any(|f| f.metrics.contains_key("prompts") && f.variant == "fresh")
}

/// The largest circuit of a kind, everything else replaced in the first way that was asked for.
pub(super) fn largest<'t>(
    task: &'t Task,
    circuit: &str,
    level: &str,
    errors: &str,
) -> Option<&'t Faithfulness> {
    let own = |f: &&Faithfulness| {
        (f.level.as_str(), f.errors.as_str(), f.ablation.as_str())
            == (level, errors, task.ablation())
    };
    let found = task
        .faithfulness
        .iter()
        .filter(own)
        .filter(|f| f.circuit == circuit && f.metrics.contains_key("m_circuit"));
    // Of features, the circuit is what was chosen of a ranking, not the largest part of it that was
    // run.
    found.max_by_key(|f| (f.variant == "chosen", f.size))
}

/// Random circuits of the same size.
pub(super) fn beside<'t>(task: &'t Task, found: &Faithfulness) -> Option<&'t Faithfulness> {
    let kind =
        |f: &'_ Faithfulness| (f.level.clone(), f.errors.clone(), f.ablation.clone(), f.size);
    task.faithfulness.iter().find(|f| f.circuit == "random" && kind(f) == kind(found))
}

pub(super) fn share(f: &Faithfulness, metric: &str) -> Option<String> {
    f.metrics
        .get(metric)
        .filter(|i| i.value.is_some())
        .map(|i| percent_with_interval(i.value, i.low, i.high))
}
