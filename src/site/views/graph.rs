//! The circuit of one prompt, drawn; its nodes and links as tables, which say the same without a
//! picture.

use super::faithful::measure;
use super::parts::Page;
use super::task::{Answer, answers};
use crate::atlas::model::{Baseline, Link as Edge, Prompt, PromptGraph, Task, kind_word};
use crate::format::number::{counted, fixed, percent, significant};
use crate::ids::{NodeKind, Slot};
use crate::site::graph::{self, GraphData, Marks, Names, slot_word};
use crate::site::graph_json::{self, Widths};
use crate::site::links::{Links, PageLink, Site, graph_path};
use crate::site::text::{Html, token};
use serde::Serialize;
use std::collections::BTreeSet;

/// More links than this are not listed, only drawn.
const LISTED: usize = 400;

#[derive(Serialize)]
pub(crate) struct GraphView {
    page: Page,
    text: String,
    correct: Html,
    /// None where the answer is held against no other.
    counter: Option<Html>,
    right: bool,
    answers: Vec<Answer>,
    logit_difference: String,
    /// Its links are parts of the task's measure, not direct effects.
    by_gradient: bool,
    /// These parts are against features being zero, or what they are in this prompt; else against
    /// their means.
    zero: bool,
    corrupted: Option<String>,
    /// The task's measure.
    measured: &'static str,
    /// What the task measures and its value here, if that is another thing.
    measure: Option<(&'static str, String)>,
    nodes: String,
    links: String,
    coverage: String,
    /// Whether the answer's node stands for a difference of logits.
    difference: bool,
    picture: Html,
    /// What the page's script needs to know.
    data: GraphData,
    lines: String,
    /// Kinds of nodes: picture, words.
    key: Vec<(Html, &'static str)>,
    /// Slots of heads that links enter: letter, words.
    slots: Vec<(&'static str, &'static str)>,
    json: PageLink,
    node_rows: Vec<NodeRow>,
    /// The strongest links.
    link_rows: Vec<LinkRow>,
    /// Whether there are more.
    more_links: bool,
    previous: Option<PageLink>,
    next: Option<PageLink>,
}

#[derive(Serialize)]
struct NodeRow {
    at: usize,
    name: PageLink,
    kind: &'static str,
    position: usize,
    token: Html,
    /// What a head reads and serves; empty for anything else.
    source: String,
    serves: String,
    activation: String,
    /// Share of the answer's effects that passes through it.
    reach: String,
    links: String,
}

#[derive(Serialize)]
struct LinkRow {
    from: String,
    to: String,
    slot: &'static str,
    effect: String,
    share: String,
}

/// A prompt with its circuit, and the prompts with circuits beside it.
#[derive(Clone, Copy)]
pub(crate) struct Drawn<'a> {
    pub task: &'a Task,
    pub prompt: &'a Prompt,
    pub graph: &'a PromptGraph,
    previous: Option<u32>,
    next: Option<u32>,
}

/// Every prompt of a task that has a circuit.
pub(crate) fn drawn(task: &Task) -> Vec<Drawn<'_>> {
    let all: Vec<(&Prompt, &PromptGraph)> =
        task.prompts.iter().filter_map(|p| Some((p, p.graph.as_ref()?))).collect();
    let number = |at: Option<usize>| Some(all.get(at?)?.1.number);
    let one = |i: usize| Drawn {
        task,
        prompt: all[i].0,
        graph: all[i].1,
        previous: number(i.checked_sub(1)),
        next: number(Some(i + 1)),
    };
    (0..all.len()).map(one).collect()
}

impl<'a> Drawn<'a> {
    pub(crate) fn path(&self, ending: &str) -> String {
        graph_path(&self.task.name, self.graph.number, ending)
    }

    pub(super) fn names(&self, links: Links<'a>) -> Names<'a> {
        Names::new(links, self.graph, &self.prompt.correct, &self.prompt.counter)
    }

    /// The file for other programs.
    pub(crate) fn json(&self, site: &'a Site) -> String {
        let atlas = site.atlas;
        let by = (atlas.model.as_str(), atlas.version.as_str());
        let names = self.names(site.in_folder());
        graph_json::json(&names, self.task, self.prompt, by, atlas.layers, None)
    }

    /// The same for circuit-tracer's viewer, which reads features from the place `scan` and knows
    /// one kind of them.
    pub(crate) fn for_viewer(&self, site: &'a Site, scan: &str, widths: &Widths) -> String {
        let by = (scan, site.atlas.version.as_str());
        let names = self.names(site.in_folder());
        graph_json::json(&names, self.task, self.prompt, by, site.atlas.layers, Some(widths))
    }
}

impl GraphView {
    pub(crate) fn new(site: &Site, drawn: &Drawn) -> GraphView {
        let (links, graph, prompt) = (site.in_folder(), drawn.graph, drawn.prompt);
        let names = drawn.names(links);
        let marks = Marks::of(graph);
        let turn = |number: Option<u32>| {
            number.map(|n| {
                links.page(format!("prompt {n}"), &graph_path(&drawn.task.name, n, "html"))
            })
        };
        let (nodes, edges) =
            (counted(graph.nodes().len(), "node"), counted(graph.links().len(), "link"));
        GraphView {
            page: page(links, drawn, &format!("{nodes} and {edges}")),
            text: prompt.text.clone(),
            correct: token(&prompt.correct),
            counter: (!prompt.counter.is_empty()).then(|| token(&prompt.counter)),
            right: prompt.right,
            by_gradient: drawn.task.method == "gradient",
            zero: graph.against == Baseline::Zero,
            corrupted: match &graph.against {
                Baseline::Corrupted(text) => Some(text.clone()),
                _ => None,
            },
            measured: measure(&drawn.task.kind),
            measure: (drawn.task.kind == "greater-than")
                .then(|| (measure(&drawn.task.kind), fixed(prompt.metric, 2))),
            answers: answers(prompt),
            logit_difference: fixed(prompt.logit_difference, 2),
            nodes: graph.nodes().len().to_string(),
            links: graph.links().len().to_string(),
            coverage: percent(prompt.coverage),
            difference: graph.difference,
            picture: graph::picture(&names, &marks, site.atlas.layers),
            data: graph::data(&names, &marks),
            lines: marks.lines.len().to_string(),
            key: graph::key(&names),
            slots: slots(graph),
            json: links.page("JSON", &drawn.path("json")),
            node_rows: node_rows(&names),
            link_rows: link_rows(&names),
            more_links: graph.links().len() > LISTED,
            previous: turn(drawn.previous),
            next: turn(drawn.next),
        }
    }
}

fn page(links: Links, drawn: &Drawn, size: &str) -> Page {
    let (task, number) = (&drawn.task.name, drawn.graph.number);
    let description = format!("The circuit of one prompt, {size}: {}", drawn.prompt.text);
    let title = match links.site.alone {
        true => "The circuit of a prompt".into(),
        false => format!("{task}, prompt {number}"),
    };
    let mut page = Page::new(links, "graphs", &drawn.path("html"), title, description);
    if links.site.alone {
        page.window = page.title.clone();
        page.url = None;
    }
    page.crumbs.push(links.task(task));
    page
}

/// The slots that come up, as the legend explains them.
fn slots(graph: &PromptGraph) -> Vec<(&'static str, &'static str)> {
    let there: BTreeSet<Slot> = graph.links().iter().map(|link| link.slot).collect();
    let word = |slot| match slot {
        Slot::In => None,
        Slot::Q => Some(("q", "query of a head")),
        Slot::K => Some(("k", "key")),
        Slot::V => Some(("v", "value")),
    };
    there.into_iter().filter_map(word).collect()
}

/// Those first through which most passes, and so the answer before all.
fn node_rows(names: &Names) -> Vec<NodeRow> {
    let reach = names.graph.circuit.influences();
    let mut order: Vec<usize> = (0..reach.len()).collect();
    order.sort_by(|&a, &b| reach[b].total_cmp(&reach[a]).then(a.cmp(&b)));
    order.into_iter().map(|at| node_row(names, at, reach[at])).collect()
}

fn node_row(names: &Names, at: usize, reach: f64) -> NodeRow {
    let node = &names.graph.nodes()[at];
    let head = node.kind == NodeKind::Head;
    NodeRow {
        at,
        name: PageLink { text: names.name(at), href: names.page(at) },
        kind: kind_word(node.kind),
        position: names.graph.position(at),
        token: names
            .graph
            .tokens
            .get(names.graph.position(at))
            .map(|(_, text)| token(text))
            .unwrap_or_default(),
        source: if head { node.source().to_string() } else { String::new() },
        serves: names.serves(at).unwrap_or_default(),
        activation: names.graph.circuit.activations[at]
            .map(|a| significant(a, 3))
            .unwrap_or_default(),
        reach: percent(reach),
        links: format!("{} / {}", names.into(at).len(), names.out(at).len()),
    }
}

fn link_rows(names: &Names) -> Vec<LinkRow> {
    let mut links: Vec<&Edge> = names.graph.links().iter().collect();
    links.sort_by(|a, b| b.share.total_cmp(&a.share));
    let row = |link: &Edge| LinkRow {
        from: names.placed(link.from),
        to: names.placed(link.to),
        slot: slot_word(link),
        effect: significant(link.effect, 3),
        share: percent(link.share),
    };
    links.into_iter().take(LISTED).map(row).collect()
}
