//! A task: its prompts, its circuit over all of them, and how real that circuit is.

use super::parts::{CircuitPairRow, Page, circuit_pair};
use crate::ids::Component;
use crate::site::atlas::{Faithfulness, Interval, Prompt, Task, TaskComponent};
use crate::site::chart::{Point, chart, class};
use crate::site::links::{Links, Site};
use crate::site::number::{
    count, counted, difference, fixed, percent, percent_with_interval, right_of, with_interval,
};
use crate::site::svg::{Cell, model_map, triangle};
use crate::site::text::{Html, token};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// More components than this cannot be told apart in a square; the most frequent ones are shown.
const SQUARE: usize = 28;

#[derive(Serialize)]
pub struct TaskView {
    page: Page,
    kind: String,
    /// How many of how many prompts are right, and of what that is.
    right: [String; 2],
    coverage: String,
    left_out: Option<String>,
    component_count: usize,
    feature_total: String,
    prompts: Vec<PromptRow>,
    frequency: Html,
    features: Html,
    /// None where the circuits of the two answers were not held against each other.
    contrast: Option<Html>,
    together: Html,
    /// Components in the square.
    together_shown: usize,
    pairs: Vec<CircuitPairRow>,
    charts: Vec<ChartView>,
    /// Kinds of circuits: class in the style sheet, name.
    key: Vec<(&'static str, String)>,
    /// Columns of the table of faithfulness.
    metrics: Vec<String>,
    faithfulness: Vec<FaithfulnessRow>,
    some_absent: bool,
    /// What is measured, as one writes it.
    measure: &'static str,
    finding: Option<String>,
    /// The measure in the whole model and with everything replaced, where it is the same in all rows.
    full: Option<String>,
    empty: Option<String>,
    /// Whether there is more than one level to tell apart.
    levels: bool,
}

#[derive(Serialize)]
struct PromptRow {
    number: usize,
    template: String,
    text: String,
    correct: Html,
    counter: Html,
    logit_difference: String,
    right: bool,
    used: bool,
    metric: String,
    answers: Vec<Answer>,
    size: String,
    coverage: String,
}

#[derive(Serialize)]
struct Answer {
    token: Html,
    probability: String,
    correct: bool,
}

#[derive(Serialize)]
struct ChartView {
    metric: String,
    level: String,
    picture: Html,
}

#[derive(Serialize)]
struct FaithfulnessRow {
    level: String,
    variant: String,
    circuit: String,
    size: u32,
    values: Vec<String>,
}

impl TaskView {
    pub fn new(site: &Site, task: &Task) -> TaskView {
        let links = site.in_folder();
        let finding = finding(task);
        let description = format!(
            "The circuit of {}: {} over {}. {}",
            task.name,
            counted(task.components.len(), "component"),
            counted(task.prompts.len(), "prompt"),
            finding.as_deref().unwrap_or_default()
        );
        let square = most_frequent(&task.components);
        let mut metrics = metrics(&task.faithfulness);
        let [full, empty] = ["m_full", "m_empty"].map(|metric| {
            let value = constant(&task.faithfulness, metric)?;
            metrics.retain(|m| m != metric);
            Some(with_interval(value.value, value.low, value.high))
        });
        TaskView {
            page: Page::new(links, "tasks", &format!("tasks/{}.html", task.name), task.name.clone(), description),
            kind: task.kind.clone(),
            right: right_of(task.right(), task.used as usize, task.prompts.len()),
            coverage: percent(task.coverage),
            left_out: task.left_out.map(percent),
            component_count: task.components.len(),
            feature_total: count(task.components.iter().map(|c| u64::from(c.features)).sum()),
            prompts: task.prompts.iter().enumerate().map(|(i, p)| prompt_row(i, p)).collect(),
            frequency: model_map(links, "frequency of components in circuits", &frequencies(&task.components)),
            features: model_map(links, "distinct features at components", &distinct_features(&task.components)),
            contrast: contrasts(&task.components)
                .map(|cells| model_map(links, "right less wrong: how much more often in circuits of the right answer", &cells)),
            together: together(links, task, &square),
            together_shown: square.len(),
            pairs: task.pairs.iter().map(|p| circuit_pair(links, &task.name, p)).collect(),
            charts: charts(&task.faithfulness),
            key: key(&task.faithfulness),
            faithfulness: task.faithfulness.iter().map(|f| faithfulness_row(f, &metrics)).collect(),
            some_absent: task.faithfulness.iter().any(|f| f.metrics.values().any(|m| m.value.is_none())),
            metrics: metrics.iter().map(|m| heading(m)).collect(),
            measure: measure(&task.kind),
            finding,
            full,
            empty,
            levels: task.faithfulness.iter().map(|f| &f.level).collect::<BTreeSet<_>>().len() > 1,
        }
    }
}

/// What a task of this kind measures.
fn measure(kind: &str) -> &'static str {
    match kind {
        "greater-than" => "P(>\u{202f}YY)\u{a0}−\u{a0}P(≤\u{202f}YY)",
        _ => "the logit difference",
    }
}

/// What the largest found circuit does alone, beside random ones of its size; none where that cannot be told.
pub fn finding(task: &Task) -> Option<String> {
    let components = || task.faithfulness.iter().filter(|f| f.level == "component");
    let share = |f: &Faithfulness, metric: &str| {
        f.metrics.get(metric).filter(|i| i.value.is_some()).map(|i| percent_with_interval(i.value, i.low, i.high))
    };
    let found = components().filter(|f| f.circuit == "found").max_by_key(|f| f.size)?;
    let random = components().find(|f| f.circuit == "random" && f.size == found.size);
    let n = found.size as usize;
    let kept = format!(
        "The {} found keep {} of {}",
        counted(n, "component"),
        share(found, "faithfulness")?,
        measure(&task.kind)
    );
    let beside = random.and_then(|f| share(f, "faithfulness")).map(|s| format!("; {n} random ones {s}"));
    let left = share(found, "completeness").map(|s| format!(" Without them, {s} of it is left."));
    Some(kept + &beside.unwrap_or_default() + "." + &left.unwrap_or_default())
}

/// The value of a metric that is the same in every row that has it.
fn constant(rows: &[Faithfulness], metric: &str) -> Option<Interval> {
    let mut values = rows.iter().filter_map(|f| f.metrics.get(metric));
    let first = values.next().filter(|i| i.value.is_some())?;
    values.all(|other| other == first).then_some(*first)
}

/// The head of a column.
fn heading(metric: &str) -> String {
    match metric {
        "m_circuit" => "of the circuit".into(),
        "m_complement" => "of the rest".into(),
        other => other.into(),
    }
}

fn prompt_row(i: usize, p: &Prompt) -> PromptRow {
    let answer = |(text, probability): &(String, f64)| Answer {
        token: token(text),
        probability: percent(*probability),
        correct: *text == p.correct,
    };
    PromptRow {
        number: i + 1,
        template: p.template.clone(),
        text: p.text.clone(),
        correct: token(&p.correct),
        counter: token(&p.counter),
        logit_difference: fixed(p.logit_difference, 2),
        right: p.right,
        used: p.used,
        metric: fixed(p.metric, 2),
        answers: p.answers.iter().map(answer).collect(),
        size: format!("{} / {}", count(p.nodes.into()), count(p.edges.into())),
        coverage: percent(p.coverage),
    }
}

fn frequencies(components: &[TaskComponent]) -> BTreeMap<Component, Cell> {
    let contrast = |c: &TaskComponent| c.contrast.map(|by| format!("; right less wrong {}", difference(by)));
    let cell = |c: &TaskComponent| Cell {
        shade: c.frequency,
        label: fixed(c.frequency * 100.0, 0),
        title: format!("in {} of circuits, {}", percent(c.frequency), counted(c.features as usize, "feature"))
            + &contrast(c).unwrap_or_default(),
    };
    components.iter().map(|c| (c.component, cell(c))).collect()
}

/// Shaded where a component is more often in circuits of the right answer than of the wrong one; none where that is not known.
fn contrasts(components: &[TaskComponent]) -> Option<BTreeMap<Component, Cell>> {
    let cell = |by: f64| Cell {
        shade: by.max(0.0),
        label: fixed(by * 100.0, 0),
        title: format!("right less wrong {}", difference(by)),
    };
    components.iter().map(|c| Some((c.component, cell(c.contrast?)))).collect()
}

fn distinct_features(components: &[TaskComponent]) -> BTreeMap<Component, Cell> {
    let most = components.iter().map(|c| c.features).max().unwrap_or(0).max(1);
    let cell = |c: &TaskComponent| Cell {
        shade: f64::from(c.features) / f64::from(most),
        label: c.features.to_string(),
        title: format!("{}, in {} of circuits", counted(c.features as usize, "feature"), percent(c.frequency)),
    };
    components.iter().map(|c| (c.component, cell(c))).collect()
}

/// The most frequent components, in the order of the model.
fn most_frequent(components: &[TaskComponent]) -> Vec<Component> {
    let mut ranked: Vec<&TaskComponent> = components.iter().collect();
    ranked.sort_by(|a, b| b.frequency.total_cmp(&a.frequency).then(a.component.cmp(&b.component)));
    ranked.truncate(SQUARE);
    let mut chosen: Vec<Component> = ranked.iter().map(|c| c.component).collect();
    chosen.sort();
    chosen
}

fn together(links: Links, task: &Task, components: &[Component]) -> Html {
    let counts = task.component_pairs.iter().map(|&(a, b, n)| ((a.min(b), a.max(b)), n)).collect();
    triangle(links, components, &counts, task.used)
}

/// The metrics that were measured, those first that say most.
fn metrics(rows: &[Faithfulness]) -> Vec<String> {
    const FIRST: [&str; 6] = ["faithfulness", "completeness", "m_circuit", "m_complement", "m_empty", "m_full"];
    let mut all: Vec<&String> =
        rows.iter().flat_map(|f| f.metrics.keys()).collect::<BTreeSet<_>>().into_iter().collect();
    all.sort_by_key(|m| FIRST.iter().position(|f| f == m).unwrap_or(FIRST.len()));
    all.into_iter().cloned().collect()
}

fn faithfulness_row(f: &Faithfulness, metrics: &[String]) -> FaithfulnessRow {
    // Not measured is empty, not to be told is a dash.
    let value = |m: &String| f.metrics.get(m).map(|i| with_interval(i.value, i.low, i.high)).unwrap_or_default();
    FaithfulnessRow {
        level: f.level.clone(),
        variant: variant(f),
        circuit: f.circuit.clone(),
        size: f.size,
        values: metrics.iter().map(value).collect(),
    }
}

fn key(rows: &[Faithfulness]) -> Vec<(&'static str, String)> {
    let kinds: BTreeSet<&String> = rows.iter().map(|f| &f.circuit).collect();
    kinds.into_iter().map(|kind| (class(kind), kind.clone())).collect()
}

/// `frequency >= 0.25` as one would print it.
fn variant(f: &Faithfulness) -> String {
    f.variant.replace(">=", "≥")
}

/// A chart for each level and ratio that has a value.
fn charts(rows: &[Faithfulness]) -> Vec<ChartView> {
    let levels: BTreeSet<&str> = rows.iter().map(|f| f.level.as_str()).collect();
    let each = levels.into_iter().flat_map(|level| ["faithfulness", "completeness"].map(|metric| (level, metric)));
    each.filter_map(|(level, metric)| {
        let points: Vec<Point> = rows.iter().filter(|f| f.level == level).filter_map(|f| point(f, metric)).collect();
        let picture = (!points.is_empty()).then(|| chart(metric, level, &points))?;
        Some(ChartView { metric: metric.into(), level: level.into(), picture })
    })
    .collect()
}

fn point(f: &Faithfulness, metric: &str) -> Option<Point> {
    let interval = f.metrics.get(metric)?;
    let value = interval.value.filter(|v| v.is_finite())?;
    let (circuit, variant) = (f.circuit.clone(), variant(f));
    Some(Point { circuit, variant, size: f.size, value, low: interval.low, high: interval.high })
}
