//! All tasks in a table; and the graphs of all prompts, by task.

use super::findings::in_short;
use super::parts::Page;
use super::{Drawn, drawn};
use crate::atlas::model::Task;
use crate::format::number::{count, counted, fixed, percent};
use crate::site::links::{Links, PageLink, Site};
use crate::site::lists::ON_A_PAGE;
use crate::site::text::{Html, token};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct TasksView {
    page: Page,
    rows: Vec<TaskRow>,
}

#[derive(Serialize)]
struct TaskRow {
    link: PageLink,
    kind: String,
    prompts: String,
    right: String,
    components: String,
    graphs: Option<PageLink>,
    finding: String,
}

impl TasksView {
    pub(crate) fn new(site: &Site) -> TasksView {
        let links = site.in_folder();
        let tasks = &site.atlas.tasks;
        let description = format!("{} with their circuits.", counted(tasks.len(), "task"));
        TasksView {
            page: Page::new(links, "tasks", "tasks/index.html", "Tasks".into(), description),
            rows: tasks.iter().map(|task| task_row(links, task)).collect(),
        }
    }
}

fn task_row(links: Links, task: &Task) -> TaskRow {
    let (graphs, atlas) = (drawn(task).len(), links.site.atlas);
    let (prompts, kind) = (count(task.prompts.len() as u64), task.kind.clone());
    TaskRow {
        link: links.task(&task.name),
        kind,
        prompts,
        right: percent(task.accuracy),
        components: count(task.components.len() as u64),
        graphs: (graphs > 0).then(|| links.page(count(graphs as u64), &graphs_path(task, 1))),
        finding: in_short(task, atlas.layers * (atlas.heads + 1)),
    }
}

/// `lists/graphs-ioi-1.html`
fn graphs_path(task: &Task, page: usize) -> String {
    format!("lists/graphs-{}-{page}.html", task.name)
}

/// The pages of a task's graphs: their numbers from 1, and their files.
pub(crate) fn graph_pages(task: &Task) -> Vec<(usize, String)> {
    let pages = drawn(task).len().div_ceil(ON_A_PAGE);
    (1..=pages).map(|page| (page, graphs_path(task, page))).collect()
}

#[derive(Serialize)]
pub(crate) struct GraphsView {
    page: Page,
    total: String,
    tasks: Vec<GraphsOfTask>,
}

/// Some of a task's graphs.
#[derive(Serialize)]
struct GraphsOfTask {
    task: PageLink,
    total: String,
    /// To all of them, if these are not.
    all: Option<PageLink>,
    rows: Vec<GraphRow>,
}

#[derive(Serialize)]
struct GraphRow {
    link: PageLink,
    prompt: String,
    correct: Html,
    difference: String,
    right: bool,
    size: String,
    coverage: String,
}

fn graph_row(links: Links, one: &Drawn) -> GraphRow {
    let (prompt, graph) = (one.prompt, one.graph);
    GraphRow {
        link: links.page(format!("{} {}", one.task.name, graph.number), &one.path("html")),
        prompt: prompt.text.clone(),
        correct: token(&prompt.correct),
        difference: fixed(prompt.logit_difference, 2),
        right: prompt.right,
        size: format!("{} / {}", graph.nodes().len(), graph.links().len()),
        coverage: percent(prompt.coverage),
    }
}

/// Graphs of a task on the page of all tasks.
const FIRST: usize = 10;

impl GraphsView {
    pub(crate) fn new(site: &Site) -> GraphsView {
        let links = site.in_folder();
        let of_task = |task: &Task| {
            let all = drawn(task);
            let more = all.len() > FIRST;
            let path = graphs_path(task, 1);
            GraphsOfTask {
                task: links.task(&task.name),
                total: counted(all.len(), "graph"),
                all: more
                    .then(|| links.page(format!("all {}", counted(all.len(), "graph")), &path)),
                rows: all.iter().take(FIRST).map(|one| graph_row(links, one)).collect(),
            }
        };
        let tasks: Vec<GraphsOfTask> = site.atlas.tasks.iter().map(of_task).collect();
        let total: usize = site.atlas.tasks.iter().map(|task| drawn(task).len()).sum();
        let total = counted(total, "graph");
        let description = format!("{total} of the circuits of single prompts.");
        GraphsView {
            page: Page::new(links, "graphs", "graphs/index.html", "Graphs".into(), description),
            total,
            tasks,
        }
    }
}

/// A page of the graphs of one task.
#[derive(Serialize)]
pub(crate) struct TaskGraphsView {
    page: Page,
    heading: String,
    of: GraphsOfTask,
    pages: Vec<PageLink>,
}

impl TaskGraphsView {
    pub(crate) fn new(site: &Site, task: &Task, number: usize) -> TaskGraphsView {
        let links = site.in_folder();
        let (all, pages) = (drawn(task), graph_pages(task));
        let heading = match pages.len() {
            1 => format!("Graphs of {}", task.name),
            pages => format!("Graphs of {}, page {number} of {pages}", task.name),
        };
        let own = all.chunks(ON_A_PAGE).nth(number - 1).unwrap_or_default();
        let page = |(n, path): (usize, String)| match n == number {
            true => PageLink::plain(n.to_string()),
            false => links.page(n.to_string(), &path),
        };
        let total = counted(all.len(), "graph");
        let description = format!("{heading}: {total}.");
        TaskGraphsView {
            page: Page::new(
                links,
                "graphs",
                &graphs_path(task, number),
                heading.clone(),
                description,
            ),
            heading,
            of: GraphsOfTask {
                task: links.task(&task.name),
                total,
                all: None,
                rows: own.iter().map(|one| graph_row(links, one)).collect(),
            },
            pages: pages.into_iter().map(page).collect(),
        }
    }
}
