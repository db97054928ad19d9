//! Pages around the pages: lists of tasks and of graphs, the page for an address without one, and
//! pages at addresses of before.

use super::faithful::{finding, headline};
use super::parts::Page;
use crate::atlas::model::{Prompt, Task};
use crate::format::number::{count, counted, percent, right_of};
use crate::site::links::{Links, PageLink, Site, graph_path};
use crate::site::text::{Html, escape, html, token};
use serde::Serialize;

/// Every task.
#[derive(Serialize)]
pub(crate) struct TasksView {
    page: Page,
    tasks: Vec<TaskRow>,
}

#[derive(Serialize)]
struct TaskRow {
    link: PageLink,
    kind: String,
    /// How many of how many prompts are right, and of what that is.
    right: [String; 2],
    components: String,
    features: String,
    /// To its graphs in the list of all.
    graphs: Option<PageLink>,
    finding: Option<String>,
}

impl TasksView {
    pub(crate) fn new(site: &Site) -> TasksView {
        let links = site.in_folder();
        let tasks = &site.atlas.tasks;
        let description = format!("{} whose circuits were found.", counted(tasks.len(), "task"));
        TasksView {
            page: Page::new(links, "tasks", "tasks/index.html", "Tasks".into(), description),
            tasks: tasks.iter().map(|task| task_row(links, task)).collect(),
        }
    }
}

fn task_row(links: Links, task: &Task) -> TaskRow {
    let graphs = task.prompts.iter().filter(|p| p.graph.is_some()).count();
    TaskRow {
        link: links.task(&task.name),
        kind: task.kind.clone(),
        right: right_of(task.right(), task.used as usize, task.prompts.len()),
        components: count(task.components.len() as u64),
        features: count(task.components.iter().map(|c| u64::from(c.features)).sum()),
        graphs: (graphs > 0).then(|| {
            links.page(count(graphs as u64), &format!("graphs/index.html#of-{}", task.name))
        }),
        finding: headline(task).or_else(|| finding(task)),
    }
}

/// Every prompt with a graph, by task.
#[derive(Serialize)]
pub(crate) struct GraphsView {
    page: Page,
    total: String,
    tasks: Vec<GraphsOfTask>,
}

#[derive(Serialize)]
struct GraphsOfTask {
    task: PageLink,
    /// The anchor of its list.
    name: String,
    graphs: Vec<GraphRow>,
}

#[derive(Serialize)]
struct GraphRow {
    link: PageLink,
    text: String,
    correct: Html,
    right: bool,
    nodes: u32,
    links: u32,
    coverage: String,
}

impl GraphsView {
    pub(crate) fn new(site: &Site) -> GraphsView {
        let links = site.in_folder();
        let tasks: Vec<GraphsOfTask> =
            site.atlas.tasks.iter().map(|task| graphs_of(links, task)).collect();
        let total: usize = tasks.iter().map(|of| of.graphs.len()).sum();
        let total = counted(total, "graph");
        let description = format!("{total}: the circuit of each prompt, node by node.");
        GraphsView {
            page: Page::new(links, "graphs", "graphs/index.html", "Graphs".into(), description),
            total,
            tasks: tasks.into_iter().filter(|of| !of.graphs.is_empty()).collect(),
        }
    }
}

fn graphs_of(links: Links, task: &Task) -> GraphsOfTask {
    let row = |p: &Prompt| {
        let number = p.graph.as_ref()?.number;
        Some(GraphRow {
            link: links.page(format!("prompt {number}"), &graph_path(&task.name, number, "html")),
            text: p.text.clone(),
            correct: token(&p.correct),
            right: p.right,
            nodes: p.nodes,
            links: p.edges,
            coverage: percent(p.coverage),
        })
    };
    GraphsOfTask {
        task: links.task(&task.name),
        name: task.name.clone(),
        graphs: task.prompts.iter().filter_map(row).collect(),
    }
}

/// What a server shows where there is no page: at any address, so its links begin at the server's
/// root if the site's address is known.
#[derive(Serialize)]
pub(crate) struct MissingView {
    page: Page,
    index: Html,
}

impl MissingView {
    pub(crate) fn new(site: &Site) -> MissingView {
        let links = site.at_root();
        let title = "Page not found".to_string();
        let mut page =
            Page::new(links, "missing", "404.html", title, "There is no page here.".into());
        page.inline = true;
        page.url = None;
        page.root = html(escape(&root_of(&site.atlas.base_url)));
        MissingView { index: html(format!("{}index.html", page.root)), page }
    }
}

/// The folder of an address on its server: `/atlas/` of `https://example.org/atlas`. Empty of none.
fn root_of(address: &str) -> String {
    let Some((_, rest)) = address.split_once("://") else { return String::new() };
    let folder = rest.split_once('/').map_or("", |(_, folder)| folder.trim_end_matches('/'));
    if folder.is_empty() { "/".into() } else { format!("/{folder}/") }
}

/// At an address of before: the way to the page.
#[derive(Serialize)]
pub(crate) struct MovedView {
    /// The page's new file from this one, and its own address if the site has one.
    href: Html,
    url: Html,
}

impl MovedView {
    /// `to` is the page's file in the site's folder, in the same folder as the old one.
    pub(crate) fn new(site: &Site, to: &str) -> MovedView {
        let href = html(escape(to.rsplit_once('/').map_or(to, |(_, name)| name)));
        let base = site.atlas.base_url.trim_end_matches('/');
        let url =
            if base.is_empty() { href.clone() } else { html(escape(&format!("{base}/{to}"))) };
        MovedView { href, url }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_site_on_its_server() {
        for (address, root) in [
            ("", ""),
            ("https://example.org", "/"),
            ("https://example.org/", "/"),
            ("https://example.org/a/b/", "/a/b/"),
        ] {
            assert_eq!(root_of(address), root, "{address}");
        }
    }
}
