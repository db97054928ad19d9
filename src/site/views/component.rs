//! A head or an MLP: the features that serve there, what they promote together, and what is found
//! beside it.

use super::explained::{About, ExplanationView};
use super::head::{ClassView, HeadFeatureRow, HeadView, classes, head_features};
use super::parts::{
    ExampleView, LogitsView, Page, ServingRow, describe, example, hottest, serving,
};
use super::strip::StripView;
use crate::atlas::model::ComponentPage;
use crate::format::number::{counted, percent};
use crate::ids::Component;
use crate::site::links::{Links, PageLink, Site};
use serde::Serialize;
use std::collections::BTreeSet;

#[derive(Serialize)]
pub(crate) struct ComponentView {
    page: Page,
    what: String,
    strip: StripView,
    dictionary: String,
    feature_total: String,
    explanation: Option<ExplanationView>,
    features: Vec<InTask>,
    logits: LogitsView,
    examples: Vec<ExampleView>,
    neighbours: Vec<Neighbour>,
    classes: Vec<ClassView>,
    /// What a head does, by task, the most frequent first.
    heads: Vec<HeadView>,
    /// How many tasks use it so rarely that they are folded away; empty without one.
    rare: String,
    head_features: Vec<HeadFeatureRow>,
    previous: Option<PageLink>,
    next: Option<PageLink>,
}

/// The features that serve here in one task.
#[derive(Serialize)]
struct InTask {
    task: PageLink,
    /// Share of the task's circuits that the component is in; empty where that is not known.
    frequency: String,
    rare: bool,
    rows: Vec<ServingRow>,
}

#[derive(Serialize)]
struct Neighbour {
    task: PageLink,
    component: PageLink,
    prompts: u32,
}

impl ComponentView {
    /// `at` is the component's place in the atlas.
    pub(crate) fn new(site: &Site, at: usize) -> ComponentView {
        let (links, all) = (site.in_folder(), &site.atlas.components);
        let c = &all[at];
        let name = c.component.to_string();
        let features: BTreeSet<_> = c.features.iter().map(|s| s.feature).collect();
        let feature_total = counted(features.len(), "feature");
        let description = describe(
            c.explanation.as_ref(),
            format!("{}, with its {feature_total} in the circuits.", what(c)),
        );
        let max = hottest(&c.examples);
        let path = format!("components/{name}.html");
        let about = About {
            path: &path,
            explanation: c.explanation.as_ref(),
            asked: c.asked.as_ref(),
            evaluations: &[],
        };
        ComponentView {
            page: Page::new(links, "components", &path, name, description),
            what: what(c),
            strip: StripView::of_component(links, c.component),
            dictionary: c.component.dictionary().to_string(),
            feature_total,
            explanation: ExplanationView::of(links, about),
            features: by_task(links, c),
            logits: LogitsView::of(&c.promoted, &c.suppressed),
            examples: c.examples.iter().map(|e| example(e, max)).collect(),
            neighbours: c
                .neighbours
                .iter()
                .map(|(task, other, prompts)| Neighbour {
                    task: links.task(task),
                    component: links.component(*other),
                    prompts: *prompts,
                })
                .collect(),
            classes: classes(links, &c.classes),
            heads: by_frequency(c, &c.heads, |head| &head.task)
                .into_iter()
                .map(|head| HeadView::new(links, head, rare(c, &head.task)))
                .collect(),
            rare: rare_tasks(c),
            head_features: head_features(links, c),
            previous: at
                .checked_sub(1)
                .and_then(|i| all.get(i))
                .map(|c| links.component(c.component)),
            next: all.get(at + 1).map(|c| links.component(c.component)),
        }
    }
}

/// The most frequent task first.
fn by_task(links: Links, c: &ComponentPage) -> Vec<InTask> {
    let mut names: Vec<&str> = Vec::new();
    let all = c.tasks.iter().map(|(task, _)| task).chain(c.features.iter().map(|s| &s.task));
    for name in all.filter(|name| c.features.iter().any(|s| s.task == **name)) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let frequency =
        |name: &str| c.tasks.iter().find(|(task, _)| task == name).map(|(_, f)| percent(*f));
    let rows = |name: &str| {
        c.features.iter().filter(|s| s.task == name).map(|s| serving(links, s)).collect()
    };
    let part = |name: &str| InTask {
        task: links.task(name),
        frequency: frequency(name).unwrap_or_default(),
        rare: rare(c, name),
        rows: rows(name),
    };
    by_frequency(c, &names, |name| name).into_iter().map(|name| part(name)).collect()
}

/// A task with fewer of its circuits is folded away.
const RARE: f64 = 0.05;

fn frequency(c: &ComponentPage, task: &str) -> f64 {
    c.tasks.iter().find(|(name, _)| name == task).map_or(0.0, |(_, f)| *f)
}

/// Whether a task hardly uses the component while another one does.
fn rare(c: &ComponentPage, task: &str) -> bool {
    frequency(c, task) < RARE && c.tasks.iter().any(|(_, f)| *f >= RARE)
}

fn rare_tasks(c: &ComponentPage) -> String {
    let n = c.tasks.iter().filter(|(task, _)| rare(c, task)).count();
    if n > 0 {
        format!("{} with it in under 5% of circuits", counted(n, "task"))
    } else {
        String::new()
    }
}

/// The most frequent task first; of as frequent ones in the order that there is.
fn by_frequency<'t, T>(c: &ComponentPage, all: &'t [T], task: impl Fn(&T) -> &str) -> Vec<&'t T> {
    let mut sorted: Vec<&T> = all.iter().collect();
    sorted.sort_by(|a, b| frequency(c, task(b)).total_cmp(&frequency(c, task(a))));
    sorted
}

fn what(c: &ComponentPage) -> String {
    match c.component {
        Component::Head { layer, head } => format!("Attention head {head} of layer {layer}"),
        Component::Mlp { layer } => format!("The MLP of layer {layer}"),
    }
}
