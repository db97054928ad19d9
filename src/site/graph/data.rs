//! What a script needs to know of a graph: its marks, nodes and links, as JSON in the page.

use super::marks::Marks;
use super::names::{Names, slot_word};
use crate::atlas::model::{Link, kind_word};
use crate::format::number::{percent, significant};
use crate::ids::NodeKind;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
pub(crate) struct GraphData {
    marks: Vec<MarkData>,
    nodes: Vec<NodeData>,
    links: Vec<LinkData>,
    /// Where the scripts of features are, as seen from the page; none where there are none.
    features: Option<String>,
    /// What features are, in plain text, where no script says it.
    gists: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct MarkData {
    /// Its name in addresses: `att3.51@12`.
    key: String,
    nodes: Vec<usize>,
    /// The share of the effects on the answer that passes through it, as a number and as text.
    through: f64,
    reach: String,
}

#[derive(Serialize)]
struct NodeData {
    name: String,
    kind: &'static str,
    position: usize,
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads: Option<(usize, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serves: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature: Option<String>,
    /// Of anything but a feature, whose page is beside its script.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<String>,
}

/// From, to, slot, effect, share.
type LinkData = (usize, usize, &'static str, String, String);

/// The data of a graph; links are in the order of their shares, the largest first.
pub(crate) fn data(names: &Names, marks: &Marks) -> GraphData {
    let graph = names.graph;
    let reach = graph.circuit.influences();
    let features = names.scripts();
    let nodes: Vec<NodeData> = (0..graph.nodes().len()).map(|at| node(names, at)).collect();
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mark = |nodes: &Vec<usize>| {
        let through = nodes.iter().map(|&at| reach[at]).sum();
        let key = key(names, nodes[0], &mut taken);
        MarkData { key, nodes: nodes.clone(), through, reach: percent(through) }
    };
    let gist = |at: usize| Some((names.feature(at)?.to_string(), names.gist(at)?));
    let gists = (0..graph.nodes().len()).filter_map(gist);
    let mut links: Vec<&Link> = graph.links().iter().collect();
    links.sort_by(|a, b| b.share.total_cmp(&a.share));
    let link = |link: &Link| {
        let (effect, share) = (significant(link.effect, 3), percent(link.share));
        (link.from, link.to, slot_word(link), effect, share)
    };
    GraphData {
        marks: marks.nodes.iter().map(mark).collect(),
        nodes,
        links: links.into_iter().map(link).collect(),
        gists: if features.is_none() { gists.collect() } else { BTreeMap::new() },
        features,
    }
}

fn node(names: &Names, at: usize) -> NodeData {
    let node = &names.graph.nodes()[at];
    let position = names.graph.position(at);
    let is_head = node.kind == NodeKind::Head;
    let is_feature = !is_head && names.feature(at).is_some_and(|id| names.is_told_of(id));
    NodeData {
        name: names.name(at),
        kind: kind_word(node.kind),
        position,
        token: names.token(position),
        reads: is_head.then(|| (node.source(), names.token(node.source()))),
        serves: names.serves(at),
        activation: names.graph.circuit.activations[at].map(|a| significant(a, 3)),
        feature: names.feature(at).filter(|_| is_feature).map(|id| id.to_string()),
        page: names.page(at).filter(|_| !is_feature).map(|href| href.to_string()),
    }
}

/// What a mark is called in an address: nothing of a prompt's text is in it.
fn key(names: &Names, at: usize, taken: &mut BTreeMap<String, usize>) -> String {
    let key = match names.graph.nodes()[at].kind {
        NodeKind::Root => "answer".into(),
        _ => format!("{}@{}", names.name(at).replace(' ', "-"), names.graph.position(at)),
    };
    let times = taken.entry(key.clone()).or_default();
    *times += 1;
    if *times == 1 { key } else { format!("{key}.{times}") }
}
