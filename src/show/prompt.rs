//! `show prompt`: one prompt of a task, what the model answers, and what its circuit is made of.

use super::page::{Page, Table, token};
use super::{Answer, names};
use crate::atlas::Reader;
use crate::atlas::model::{Link, Prompt, PromptGraph};
use crate::error::Result;
use crate::format::number::{counted, percent, significant};
use crate::format::text::plain;
use crate::ids::{Component, FeatureId, NodeKind, Slot};
use crate::stages::Run;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct PromptAnswer {
    task: String,
    number: u32,
    #[serde(flatten)]
    prompt: Prompt,
    /// What the model read, special tokens included.
    tokens: Vec<String>,
    /// The largest reach first; all but the answer.
    strongest_nodes: Vec<NodeLine>,
    /// The largest share first.
    strongest_links: Vec<LinkLine>,
    /// The answer's node stands for a difference of logits.
    difference: bool,
}

/// A node of the circuit.
#[derive(Serialize)]
struct NodeLine {
    name: String,
    kind: String,
    component: Option<Component>,
    /// That it is, or that a head serves.
    feature: Option<FeatureId>,
    /// What a head serves: a feature, or what its dictionary misses.
    serves: Option<String>,
    position: usize,
    token: String,
    /// The position that a head reads.
    source: Option<usize>,
    source_token: Option<String>,
    activation: Option<f32>,
    /// Share of the answer's effects that passes through it.
    reach: f64,
    /// Of the feature.
    explanation: Option<String>,
}

#[derive(Serialize)]
struct LinkLine {
    from: End,
    to: End,
    slot: Slot,
    effect: f32,
    share: f32,
}

/// A node as the end of a link.
#[derive(Serialize)]
struct End {
    name: String,
    position: usize,
    source: Option<usize>,
}

/// # Errors
/// When there is no such task, or it has no prompt of this number.
pub(super) fn ask(run: &Run, task: &str, number: u32, top: usize) -> Result<PromptAnswer> {
    let reader = run.reader();
    let task = names::task(&reader, run.config, task)?;
    let prompt = names::prompt(&reader, task, number)?;
    let tokens = match &prompt.graph {
        Some(graph) => graph.tokens.iter().map(|(_, text)| text.clone()).collect(),
        None => Vec::new(),
    };
    let graph = prompt.graph.as_ref();
    Ok(PromptAnswer {
        task: task.name.clone(),
        number,
        tokens,
        strongest_nodes: graph.map_or(Ok(Vec::new()), |graph| nodes(&reader, graph, top))?,
        strongest_links: graph.map(|graph| links(graph, top)).unwrap_or_default(),
        difference: graph.is_some_and(|graph| graph.difference),
        prompt,
    })
}

fn nodes(reader: &Reader, graph: &PromptGraph, top: usize) -> Result<Vec<NodeLine>> {
    let reach = graph.circuit.influences();
    let is_root = |at: usize| graph.nodes()[at].kind == NodeKind::Root;
    let mut order: Vec<usize> = (0..reach.len()).filter(|&at| !is_root(at)).collect();
    order.sort_by(|&a, &b| reach[b].total_cmp(&reach[a]).then(a.cmp(&b)));
    let line = |at: usize| {
        let (node, position, feature) = (&graph.nodes()[at], graph.position(at), graph.feature(at));
        let token = |position: usize| graph.tokens.get(position).map(|(_, text)| text.clone());
        let source = node.source.map(|source| source as usize);
        Ok(NodeLine {
            name: graph.name(at),
            kind: node.kind.to_string(),
            component: node.component(),
            feature,
            serves: graph.serves(at),
            position,
            token: token(position).unwrap_or_default(),
            source,
            source_token: source.and_then(token),
            activation: graph.circuit.activations[at],
            reach: reach[at],
            explanation: feature.map_or(Ok(None), |feature| reader.explained(feature))?,
        })
    };
    order.into_iter().take(top).map(line).collect()
}

fn links(graph: &PromptGraph, top: usize) -> Vec<LinkLine> {
    let mut links: Vec<&Link> = graph.links().iter().collect();
    links.sort_by(|a, b| b.share.total_cmp(&a.share));
    let end = |at: usize| End {
        name: graph.name(at),
        position: graph.position(at),
        source: graph.nodes()[at].source.map(|source| source as usize),
    };
    let line = |link: &Link| LinkLine {
        from: end(link.from),
        to: end(link.to),
        slot: link.slot,
        effect: link.effect,
        share: link.share,
    };
    links.into_iter().take(top).map(line).collect()
}

impl Answer for PromptAnswer {
    fn print(&self, page: &mut Page) {
        let p = &self.prompt;
        page.title(
            &format!("{} {}", self.task, self.number),
            &format!("a prompt of {}", p.template),
        );
        page.line(&format!("“{}”", p.text));
        page.line(&format!(
            "{}: “{}”, not “{}”; metric {}, logit difference {}",
            if p.right { "right" } else { "wrong" },
            token(&p.correct),
            token(&p.counter),
            significant(p.metric, 3),
            significant(p.logit_difference, 3),
        ));
        let answers =
            p.answers.iter().map(|(text, p)| format!("“{}” {}", token(text), percent(*p)));
        page.line(&format!("the model says {}", answers.collect::<Vec<_>>().join(", ")));
        if p.graph.is_none() {
            page.line("It has no circuit.");
            return;
        }
        page.line(&format!(
            "{} and {}; links cover {} of the effects on the answer",
            counted(p.nodes as usize, "node"),
            counted(p.edges as usize, "link"),
            percent(p.coverage)
        ));
        page.heading("Tokens", "with their positions");
        let tokens =
            self.tokens.iter().enumerate().map(|(at, text)| format!("{at}:{}", token(text)));
        page.line(&tokens.collect::<Vec<_>>().join(" "));
        self.nodes(page);
        self.links(page);
    }
}

impl PromptAnswer {
    fn nodes(&self, page: &mut Page) {
        page.heading("Strongest nodes", "by the share of the answer's effects through them");
        let place = |position: usize, text: &str| format!("{position}:{}", token(text));
        let row = |n: &NodeLine| {
            let name = match &n.serves {
                Some(served) => format!("{} for {served}", n.name),
                None => n.name.clone(),
            };
            let reads = n.source.map(|at| place(at, n.source_token.as_deref().unwrap_or_default()));
            [
                name,
                place(n.position, &n.token),
                reads.unwrap_or_default(),
                n.activation.map(|a| significant(a, 3)).unwrap_or_default(),
                percent(n.reach),
                n.explanation.as_deref().map(|text| plain(text, 200)).unwrap_or_default(),
            ]
        };
        let columns = ["node", "at", "reads", ">active", ">reach", "explanation"];
        page.table(&Table::new(&columns).with(self.strongest_nodes.iter().map(row)));
        page.rest(self.strongest_nodes.len(), self.prompt.nodes as usize - 1, "--top");
    }

    fn links(&self, page: &mut Page) {
        page.heading("Strongest links", "by their share of what enters there");
        let place = |end: &End| match end.source {
            Some(source) => format!("{} @ {} ← {source}", end.name, end.position),
            None => format!("{} @ {}", end.name, end.position),
        };
        let row = |l: &LinkLine| {
            [
                place(&l.from),
                place(&l.to),
                l.slot.to_string(),
                significant(l.effect, 3),
                percent(l.share),
            ]
        };
        let columns = ["from", "to", "", ">effect", ">share"];
        page.table(&Table::new(&columns).with(self.strongest_links.iter().map(row)));
        page.rest(self.strongest_links.len(), self.prompt.edges as usize, "--top");
    }
}
