//! A task: its prompts, and its circuit over all of them.

use super::circuit::PictureView;
use super::faithful::{FaithfulView, measure};
use super::findings::{Finding, findings, in_short, measured_on};
use super::head::{InTask, circuit_of_heads, in_task};
use super::intervention_links::InterventionLinksView;
use super::parts::{CircuitPairRow, Page, circuit_pair};
use crate::atlas::model::{HookScore, Prompt, Task, TaskComponent};
use crate::format::number::{count, counted, difference, fixed, percent, right_of};
use crate::ids::{Component, FeatureId};
use crate::site::circuit::Size;
use crate::site::links::{Links, PageLink, Site, graph_path};
use crate::site::svg::{Cell, model_map, triangle};
use crate::site::text::{Html, prose, token};
use serde::Serialize;
use std::collections::BTreeMap;

/// More components than this cannot be told apart in a square; the most frequent ones are shown.
const SQUARE: usize = 28;

#[derive(Serialize)]
pub(crate) struct TaskView {
    page: Page,
    kind: String,
    /// How many of how many prompts are right, and of what that is.
    right: [String; 2],
    /// What is measured, as one writes it.
    measure: &'static str,
    coverage: String,
    left_out: Option<String>,
    component_count: usize,
    feature_total: String,
    prompts: Vec<PromptRow>,
    frequency: Html,
    features: Html,
    /// None where the circuits of the two answers were not held against each other.
    contrast: Option<Html>,
    /// The largest contrast either way, in percent: the ends of the scale.
    contrast_ends: String,
    heads: Vec<InTask>,
    /// Which of them copy, and which lower.
    heads_say: Option<String>,
    /// Whether others published a circuit of the task with one of its components.
    published: bool,
    together: Html,
    /// Components in the square.
    together_shown: usize,
    pairs: Vec<CircuitPairRow>,
    /// Features that support the answer, and that oppose it.
    ranked: [Vec<RankedRow>; 2],
    hooks: Vec<HookRow>,
    findings: Vec<Finding>,
    /// What the values of the findings stand on.
    measured_on: Option<String>,
    /// The circuit over all prompts, and what is to be said of it.
    circuit: Option<PictureView>,
    faithful: FaithfulView,
    live: InterventionLinksView,
}

#[derive(Serialize)]
struct RankedRow {
    feature: PageLink,
    gist: Html,
    score: String,
}

#[derive(Serialize)]
struct HookRow {
    dictionary: String,
    supporting: String,
    opposing: String,
    error: String,
}

#[derive(Serialize)]
struct PromptRow {
    number: usize,
    /// Its graph, if it has one.
    graph: Option<Html>,
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
pub(super) struct Answer {
    token: Html,
    probability: String,
    correct: bool,
}

impl TaskView {
    pub(crate) fn new(site: &Site, task: &Task) -> TaskView {
        let links = site.in_folder();
        let all = site.atlas.layers * (site.atlas.heads + 1);
        let description = format!(
            "The circuit of {}: {} over {}. {}",
            task.name,
            counted(task.components.len(), "component"),
            counted(task.prompts.len(), "prompt"),
            in_short(task, all)
        );
        let square = most_frequent(&task.components);
        let heads = in_task(links, task);
        TaskView {
            page: Page::new(
                links,
                "tasks",
                &format!("tasks/{}.html", task.name),
                task.name.clone(),
                description,
            ),
            kind: task.kind.clone(),
            right: right_of(task.right(), task.used as usize, task.prompts.len()),
            measure: measure(&task.kind),
            coverage: percent(task.coverage),
            left_out: task.left_out.map(percent),
            component_count: task.components.len(),
            feature_total: count(task.components.iter().map(|c| u64::from(c.features)).sum()),
            prompts: task
                .prompts
                .iter()
                .enumerate()
                .map(|(i, p)| prompt_row(links, task, i, p))
                .collect(),
            frequency: model_map(
                links,
                "frequency of components in circuits",
                &frequencies(&task.components),
            ),
            features: model_map(
                links,
                "distinct features at components",
                &distinct_features(&task.components),
            ),
            contrast_ends: fixed(largest_contrast(&task.components) * 100.0, 0),
            contrast: contrasts(&task.components).map(|cells| {
                model_map(
                    links,
                    "contrast: how much more often in circuits of the right answer's logit than \
                     of the wrong one's",
                    &cells,
                )
            }),
            heads_say: circuit_of_heads(&heads),
            heads,
            published: task.components.iter().any(|c| c.class.is_some()),
            together: together(links, task, &square),
            together_shown: square.len(),
            pairs: task.pairs.iter().map(|p| circuit_pair(links, &task.name, p)).collect(),
            ranked: [&task.supporting, &task.opposing].map(|features| ranked(links, features)),
            hooks: task.hooks.iter().map(hook_row).collect(),
            findings: findings(task, all),
            measured_on: measured_on(task),
            circuit: PictureView::of(links, task, Size::Full),
            faithful: FaithfulView::new(task),
            live: InterventionLinksView::new(links, task),
        }
    }
}

fn ranked(links: Links, features: &[(FeatureId, f64)]) -> Vec<RankedRow> {
    let row = |&(feature, score): &(FeatureId, f64)| RankedRow {
        feature: links.feature(feature),
        gist: prose(&links.site.gist(feature), 70),
        score: fixed(score, 3),
    };
    features.iter().map(row).collect()
}

fn hook_row(hook: &HookScore) -> HookRow {
    HookRow {
        dictionary: hook.dictionary.to_string(),
        supporting: fixed(hook.supporting, 2),
        opposing: fixed(hook.opposing, 2),
        error: fixed(hook.error, 2),
    }
}

/// The model's first choices.
pub(super) fn answers(p: &Prompt) -> Vec<Answer> {
    let answer = |(text, probability): &(String, f32)| Answer {
        token: token(text),
        probability: percent(*probability),
        correct: *text == p.correct,
    };
    p.answers.iter().map(answer).collect()
}

fn prompt_row(links: Links, task: &Task, i: usize, p: &Prompt) -> PromptRow {
    let graph =
        p.graph.as_ref().map(|graph| links.href(&graph_path(&task.name, graph.number, "html")));
    PromptRow {
        number: i,
        graph,
        template: p.template.clone(),
        text: p.text.clone(),
        correct: token(&p.correct),
        counter: token(&p.counter),
        logit_difference: fixed(p.logit_difference, 2),
        right: p.right,
        used: p.used,
        metric: fixed(p.metric, 2),
        answers: answers(p),
        size: format!("{} / {}", count(p.nodes.into()), count(p.edges.into())),
        coverage: percent(p.coverage),
    }
}

fn frequencies(components: &[TaskComponent]) -> BTreeMap<Component, Cell> {
    let contrast =
        |c: &TaskComponent| c.contrast.map(|by| format!("; contrast {}", difference(by)));
    let cell = |c: &TaskComponent| Cell {
        shade: c.frequency,
        label: fixed(c.frequency * 100.0, 0),
        title: format!(
            "in {} of circuits, {}{}{}",
            percent(c.frequency),
            counted(c.features as usize, "feature"),
            contrast(c).unwrap_or_default(),
            c.class.as_ref().map(|class| format!("; published as {class}")).unwrap_or_default()
        ),
    };
    components.iter().map(|c| (c.component, cell(c))).collect()
}

/// The largest contrast of a component, either way.
fn largest_contrast(components: &[TaskComponent]) -> f64 {
    components.iter().filter_map(|c| c.contrast).map(f64::abs).fold(0.0, f64::max)
}

/// In one colour where a component is more often in circuits of the right answer than of the wrong
/// one, in another where it is less often; none where that is not known.
fn contrasts(components: &[TaskComponent]) -> Option<BTreeMap<Component, Cell>> {
    /// Text can be read on both colours up to this depth.
    const DEEPEST: f64 = 0.6;
    let largest = largest_contrast(components).max(f64::MIN_POSITIVE);
    let cell = |by: f64| Cell {
        shade: DEEPEST * by / largest,
        label: fixed(by * 100.0, 0),
        title: format!("contrast {}", difference(by)),
    };
    components.iter().map(|c| Some((c.component, cell(c.contrast?)))).collect()
}

fn distinct_features(components: &[TaskComponent]) -> BTreeMap<Component, Cell> {
    let most = components.iter().map(|c| c.features).max().unwrap_or(0).max(1);
    let cell = |c: &TaskComponent| Cell {
        shade: f64::from(c.features) / f64::from(most),
        label: c.features.to_string(),
        title: format!(
            "{}, in {} of circuits",
            counted(c.features as usize, "feature"),
            percent(c.frequency)
        ),
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
