//! What stands under a title: the tasks that something serves, how often and at which positions of
//! their prompts, what is to be thought of its explanation, and the graphs that it is in.

use super::explained::scores;
use crate::atlas::model::{Feature, Pair, Serving, Task};
use crate::atlas::verdict::of_evaluation;
use crate::format::number::{counted, fixed};
use crate::ids::{Component, Status};
use crate::site::appearances::InTask;
use crate::site::links::{Links, PageLink, graph_path};
use serde::Serialize;

/// Graphs that are linked at once, and in all.
const FIRST: usize = 8;
const MOST: usize = 200;
/// Places that are named.
const PLACES: usize = 4;

#[derive(Serialize)]
pub(super) struct StripView {
    tasks: Vec<TaskRow>,
    /// Verdicts on the explanation: class, words.
    verdicts: Vec<(&'static str, String)>,
    /// What stands in their place; empty where there is nothing to judge.
    unjudged: &'static str,
}

#[derive(Serialize)]
struct TaskRow {
    task: PageLink,
    /// In how many prompts of how many.
    prompts: String,
    /// The components at which it serves, with the prompts of each; empty for a component.
    at: Vec<(PageLink, u32)>,
    /// What stands at its positions, with the prompts of each.
    places: Vec<(String, usize)>,
    more_places: usize,
    /// Prompts with a graph that has it.
    graphs: Vec<PageLink>,
    /// The others.
    more: Vec<PageLink>,
    /// `49 more`
    others: String,
}

impl StripView {
    pub(super) fn of_feature(links: Links, f: &Feature) -> StripView {
        let found = links.site.appearances.feature(f.id);
        let mut tasks = rows(links, found, |task| at(links, &f.servings, task));
        // Of the task's circuit, but in no prompt's graph.
        for task in &links.site.atlas.tasks {
            let own = || f.servings.iter().filter(|s| s.task == task.name);
            let known = tasks.iter().any(|row: &TaskRow| row.task.text == task.name);
            if !known && own().next().is_some() {
                let too_weak = own().all(|s| s.prompts == 0);
                let prompts = match too_weak {
                    true => "in the task’s circuit, too weak for any prompt’s graph".into(),
                    false => String::new(),
                };
                tasks.push(TaskRow {
                    task: links.task(&task.name),
                    prompts,
                    at: at(links, &f.servings, task),
                    places: Vec::new(),
                    more_places: 0,
                    graphs: Vec::new(),
                    more: Vec::new(),
                    others: String::new(),
                });
            }
        }
        let verdicts = verdicts(f);
        let unjudged = match (&f.explanation, verdicts.is_empty()) {
            (Some(_), true) => "not judged on texts",
            (None, true) => "none",
            _ => "",
        };
        StripView { tasks, verdicts, unjudged }
    }

    pub(super) fn of_component(links: Links, component: Component) -> StripView {
        let found = links.site.appearances.component(component);
        StripView { tasks: rows(links, found, |_| Vec::new()), verdicts: Vec::new(), unjudged: "" }
    }

    pub(super) fn of_pair(links: Links, pair: &Pair) -> StripView {
        let found = links.site.appearances.together(&[pair.a, pair.b]);
        StripView { tasks: rows(links, found, |_| Vec::new()), verdicts: Vec::new(), unjudged: "" }
    }

    pub(super) fn of_group(links: Links, features: &[crate::ids::FeatureId]) -> StripView {
        let found = links.site.appearances.together(features);
        StripView { tasks: rows(links, found, |_| Vec::new()), verdicts: Vec::new(), unjudged: "" }
    }
}

/// The tasks, those first of whose prompts most have it.
fn rows(
    links: Links,
    found: Vec<InTask>,
    at: impl Fn(&Task) -> Vec<(PageLink, u32)>,
) -> Vec<TaskRow> {
    let row = |own: InTask| {
        let task = &links.site.atlas.tasks[own.task];
        let graph = |n: &u32| links.page(n.to_string(), &graph_path(&task.name, *n, "html"));
        let n = own.prompts.len();
        let places = own.places.iter().take(PLACES);
        let share = n as f64 / f64::from(task.used.max(1));
        let row = TaskRow {
            task: links.task(&task.name),
            prompts: format!("in {n} of {}", counted(task.used as usize, "circuit")),
            at: at(task),
            places: places.map(|(name, n)| (name.to_string(), *n)).collect(),
            more_places: own.places.len().saturating_sub(PLACES),
            graphs: own.prompts.iter().take(FIRST).map(graph).collect(),
            more: own.prompts.iter().take(MOST).skip(FIRST).map(graph).collect(),
            others: match n.saturating_sub(FIRST) {
                more if n <= MOST => format!("{more} more"),
                more => format!("{} of {more} more", MOST - FIRST),
            },
        };
        (share, row)
    };
    let mut all: Vec<(f64, TaskRow)> = found.into_iter().map(row).collect();
    // Stable: of as large a share, in the order of the tasks.
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.into_iter().map(|(_, row)| row).collect()
}

fn at(links: Links, servings: &[Serving], task: &Task) -> Vec<(PageLink, u32)> {
    let mut own: Vec<&Serving> = servings.iter().filter(|s| s.task == task.name).collect();
    own.sort_by_key(|s| (std::cmp::Reverse(s.prompts), s.component));
    own.into_iter().map(|s| (links.component(s.component), s.prompts)).collect()
}

/// What was measured of the explanation that is shown.
fn verdicts(f: &Feature) -> Vec<(&'static str, String)> {
    let Some(shown) = f.explanation.as_ref().filter(|e| e.status == Status::Ok) else {
        return Vec::new();
    };
    let told = |e: &crate::atlas::model::Evaluation| {
        let judged = of_evaluation(e);
        let value = e.score.map(|v| format!(" {}", fixed(v, 2))).unwrap_or_default();
        (judged.verdict.class(), format!("{}{value} {}", e.method, judged.words))
    };
    scores(shown, &f.evaluations).into_iter().map(told).collect()
}
