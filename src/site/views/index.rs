//! The front page: what was run on what, and the way to everything.

use super::circuit::PictureView;
use super::findings::{Finding, findings, measured_on};
use super::llm_summary::LlmSummaryView;
use super::parts::{Page, gist_among};
use crate::atlas::model::{Atlas, Group, Task};
use crate::format::number::{count, counted, fixed, percent, seconds};
use crate::ids::{Component, Kind};
use crate::site::circuit::Size;
use crate::site::links::{Links, PageLink, Site};
use crate::site::svg::{Cell, model_map};
use crate::site::text::Html;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize)]
pub(crate) struct IndexView {
    page: Page,
    model: ModelSentence,
    /// (label, number)
    counts: Vec<(String, String)>,
    provenance: Vec<(String, String)>,
    map: Html,
    tasks: Vec<TaskCard>,
    groups: Vec<GroupRow>,
    /// Of the dictionaries: how many, and the least and the most variance that one explains.
    dictionaries: Option<(String, String, String)>,
    /// How many warnings there are about the model and its dictionaries, if any.
    warnings: Option<String>,
    /// Explanations of a language model.
    llm_summary: Option<LlmSummaryView>,
    stages: Vec<StageRow>,
    total: String,
}

#[derive(Serialize)]
struct TaskCard {
    link: PageLink,
    kind: String,
    prompts: String,
    example: String,
    correct: String,
    accuracy: String,
    findings: Vec<Finding>,
    measured_on: Option<String>,
    circuit: Option<PictureView>,
}

#[derive(Serialize)]
struct GroupRow {
    link: PageLink,
    features: Vec<PageLink>,
    gist: Html,
}

#[derive(Serialize)]
struct StageRow {
    name: String,
    seconds: String,
    /// Length of its bar in percent of the longest.
    width: String,
}

impl IndexView {
    pub(crate) fn new(site: &Site) -> IndexView {
        let (atlas, links) = (site.atlas, site.at_root());
        let description = format!(
            "{} and {} in the circuits of {}, over {} tokens.",
            counted(atlas.features.len(), "feature"),
            counted(atlas.components.len(), "component"),
            counted(atlas.tasks.len(), "task"),
            count(atlas.tokens)
        );
        IndexView {
            page: Page::new(links, "overview", "index.html", atlas.title.clone(), description),
            model: model(atlas),
            counts: counts(atlas),
            provenance: atlas.provenance.clone(),
            map: map(links),
            tasks: atlas.tasks.iter().map(|t| task_card(links, t)).collect(),
            groups: atlas.groups.iter().map(|g| group_row(links, g)).collect(),
            dictionaries: dictionaries(atlas),
            warnings: warnings(atlas),
            llm_summary: LlmSummaryView::of(atlas),
            stages: stages(&atlas.stages),
            total: seconds(atlas.stages.iter().map(|s| s.1).sum()),
        }
    }
}

/// What was looked at, for the first sentence.
#[derive(Serialize)]
struct ModelSentence {
    name: String,
    /// `4 layers of 6 heads, 96 wide`
    size: String,
    /// `4 attention SAEs and 4 MLP transcoders of 4 096 features`; empty without one.
    dictionaries: String,
    corpus: String,
    tokens: String,
}

fn model(atlas: &Atlas) -> ModelSentence {
    let of = |kind: Kind| atlas.conformance.iter().filter(move |c| c.dictionary.kind == kind);
    let named = |kind: Kind, noun: &str| {
        let widths: BTreeSet<usize> = of(kind).map(|c| c.width).collect();
        let n = of(kind).count();
        let width = match (widths.first(), widths.last()) {
            (Some(low), Some(high)) if low == high => count(*low as u64),
            (Some(low), Some(high)) => format!("{} to {}", count(*low as u64), count(*high as u64)),
            _ => return None,
        };
        Some(format!("{} of {width} features", counted(n, noun)))
    };
    let both = [named(Kind::Attention, "attention SAE"), named(Kind::Mlp, "MLP transcoder")];
    ModelSentence {
        name: atlas.model_path.clone(),
        size: format!(
            "{} of {}, {} wide",
            counted(atlas.layers, "layer"),
            counted(atlas.heads, "head"),
            count(atlas.width as u64)
        ),
        dictionaries: both.into_iter().flatten().collect::<Vec<_>>().join(" and "),
        corpus: atlas.corpus.clone(),
        tokens: count(atlas.tokens),
    }
}

fn dictionaries(atlas: &Atlas) -> Option<(String, String, String)> {
    let explained = || atlas.conformance.iter().map(|c| c.variance_explained);
    let (least, most) = (explained().reduce(f64::min)?, explained().reduce(f64::max)?);
    Some((count(atlas.conformance.len() as u64), percent(least), percent(most)))
}

fn warnings(atlas: &Atlas) -> Option<String> {
    let of_dictionaries: usize = atlas.conformance.iter().map(|c| c.warnings.len()).sum();
    let all = of_dictionaries + atlas.model_fit.warnings.len();
    (all > 0).then(|| counted(all, "warning"))
}

fn counts(atlas: &Atlas) -> Vec<(String, String)> {
    let numbers = [
        ("tasks", atlas.tasks.len() as u64),
        ("components", atlas.components.len() as u64),
        ("features", atlas.features.len() as u64),
        ("pairs", atlas.pairs.len() as u64),
        ("documents", atlas.documents),
        ("contexts", atlas.contexts),
        ("tokens", atlas.tokens),
    ];
    numbers.map(|(label, n)| (label.into(), count(n))).into()
}

/// The model, each component as deep as it is frequent in the task that uses it most.
fn map(links: Links) -> Html {
    let cell = |tasks: &[(String, f64)]| {
        let shade = tasks.iter().map(|t| t.1).fold(0.0, f64::max);
        let told: Vec<String> =
            tasks.iter().map(|(task, f)| format!("{} of {task}", percent(*f))).collect();
        Cell { shade, label: fixed(shade * 100.0, 0), title: told.join(", ") }
    };
    let cells: BTreeMap<Component, Cell> =
        links.site.atlas.components.iter().map(|c| (c.component, cell(&c.tasks))).collect();
    model_map(links, "components in circuits, in percent of prompts", &cells)
}

fn task_card(links: Links, task: &Task) -> TaskCard {
    let (atlas, first) = (links.site.atlas, task.prompts.first());
    let all = atlas.layers * (atlas.heads + 1);
    let [text, correct] =
        first.map_or_else(Default::default, |p| marked_apart(&p.text, &p.correct));
    TaskCard {
        link: links.task(&task.name),
        kind: task.kind.clone(),
        prompts: counted(task.prompts.len(), "prompt"),
        example: text,
        correct,
        accuracy: percent(task.accuracy),
        findings: findings(task, all),
        measured_on: measured_on(task),
        circuit: PictureView::of(links, task, Size::Small),
    }
}

/// A text and what follows in colour. The space between goes to the text: where a line breaks the
/// colour would be left behind.
fn marked_apart(text: &str, marked: &str) -> [String; 2] {
    match marked.strip_prefix(' ') {
        Some(word) if !word.is_empty() => [format!("{text} "), word.into()],
        _ => [text.into(), marked.into()],
    }
}

fn group_row(links: Links, group: &Group) -> GroupRow {
    GroupRow {
        link: links.page(&group.name, &format!("groups/{}.html", group.name)),
        features: group.features.iter().map(|&f| links.feature(f)).collect(),
        gist: gist_among(group.explanation.as_ref()),
    }
}

fn stages(stages: &[(String, f64)]) -> Vec<StageRow> {
    let longest = stages.iter().map(|s| s.1).fold(0.0, f64::max);
    let width = |s: f64| format!("{:.1}", if longest > 0.0 { s / longest * 100.0 } else { 0.0 });
    stages
        .iter()
        .map(|(name, s)| StageRow { name: name.clone(), seconds: seconds(*s), width: width(*s) })
        .collect()
}
