//! A head or an MLP: the features that serve there, what they promote together, and what is found
//! beside it.

use super::explained::{About, ExplanationView};
use super::head::{ClassView, HeadFeatureRow, HeadView, classes, head_features};
use super::parts::{
    ExampleView, LogitsView, Page, ServingRow, describe, example, hottest, serving,
};
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
    dictionary: String,
    tasks: Vec<(PageLink, String)>,
    feature_total: String,
    explanation: Option<ExplanationView>,
    features: Vec<InTask>,
    logits: LogitsView,
    examples: Vec<ExampleView>,
    neighbours: Vec<Neighbour>,
    classes: Vec<ClassView>,
    /// What a head does, by task.
    heads: Vec<HeadView>,
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
            dictionary: c.component.dictionary().to_string(),
            tasks: c.tasks.iter().map(|(task, f)| (links.task(task), percent(*f))).collect(),
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
            heads: c.heads.iter().map(|head| HeadView::new(links, head)).collect(),
            head_features: head_features(links, c),
            previous: at
                .checked_sub(1)
                .and_then(|i| all.get(i))
                .map(|c| links.component(c.component)),
            next: all.get(at + 1).map(|c| links.component(c.component)),
        }
    }
}

/// In the order of the tasks.
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
    let part = |name| InTask {
        task: links.task(name),
        frequency: frequency(name).unwrap_or_default(),
        rows: rows(name),
    };
    names.into_iter().map(part).collect()
}

fn what(c: &ComponentPage) -> String {
    match c.component {
        Component::Head { layer, head } => format!("Attention head {head} of layer {layer}"),
        Component::Mlp { layer } => format!("The MLP of layer {layer}"),
    }
}
