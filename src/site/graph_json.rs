//! The graph as the JSON of the public graph viewers (`docs/formats.md` §11): what circuit-tracer
//! writes and Neuronpedia reads.
//!
//! That format has no heads. It has links, whose weights are direct effects on a node, and for
//! attention features lists of what enters their attention scores. What enters a head's value slot
//! *is* a direct effect on what the head serves, in the same unit and with the attention pattern
//! held, so it becomes a link to that, summed over the heads. What enters the query and key slots
//! acts on scores, in another unit: it goes into `qk_tracing_results` of the feature that is
//! served. The heads themselves are kept in `heads`, a key of ours that other readers pass over. No
//! number is made up.

use super::graph::Names;
use crate::atlas::model::{Link, Node, Prompt, PromptGraph, Task};
use crate::ids::{FeatureId, Kind, NodeKind, Slot};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The whole file.
#[derive(Serialize)]
struct File {
    metadata: Metadata,
    #[serde(rename = "qParams")]
    parameters: Parameters,
    nodes: Vec<Entry>,
    links: Vec<Weighted>,
}

#[derive(Serialize)]
struct Metadata {
    slug: String,
    /// The model.
    scan: String,
    /// circuit-tracer's own reader wants the list; it may be empty.
    transcoder_list: [String; 0],
    prompt_tokens: Vec<String>,
    prompt: String,
    schema_version: u32,
    info: Info,
}

#[derive(Serialize)]
struct Info {
    description: String,
    generator: Generator,
}

#[derive(Serialize)]
struct Generator {
    name: &'static str,
    version: String,
}

/// What a viewer shows at first: nothing is chosen.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    pinned_ids: [String; 0],
    supernodes: [Vec<String>; 0],
    link_type: &'static str,
    clicked_id: &'static str,
    #[serde(rename = "sg_pos")]
    places: &'static str,
}

#[derive(Serialize)]
struct Entry {
    node_id: String,
    feature: i64,
    layer: String,
    ctx_idx: usize,
    feature_type: &'static str,
    #[serde(rename = "jsNodeId")]
    js_node_id: String,
    clerp: String,
    is_target_logit: bool,
    run_idx: u32,
    reverse_ctx_idx: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_prob: Option<f32>,
    activation: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qk_tracing_results: Option<Scores>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    heads: Vec<HeadEntry>,
}

/// What enters the attention scores behind a feature, the largest effect first.
#[derive(Default, Serialize)]
struct Scores {
    /// Pairs are not worked out.
    pair_wise_contributors: [(); 0],
    top_q_marginal_contributors: Vec<(String, f32)>,
    top_k_marginal_contributors: Vec<(String, f32)>,
}

/// A head that serves a feature: what it reads, and its effect there.
#[derive(Serialize)]
struct HeadEntry {
    head: String,
    source: usize,
    weight: f32,
}

#[derive(Serialize)]
struct Weighted {
    source: String,
    target: String,
    weight: f32,
}

/// The JSON of a prompt's circuit. `version` is the program's, `model` what the model is called,
/// `layers` how many it has.
pub(super) fn json(
    names: &Names,
    task: &Task,
    prompt: &Prompt,
    (model, version): (&str, &str),
    layers: usize,
    viewer: Option<&Widths>,
) -> String {
    let graph = names.graph;
    let (ids, served) = (ids(graph, layers), served(graph));
    let export = Export { names, prompt, layers, ids, served, viewer };
    let file = File {
        metadata: Metadata {
            slug: format!("{}-{}", task.name, graph.number),
            scan: model.into(),
            transcoder_list: [],
            prompt_tokens: graph.tokens.iter().map(|(_, text)| text.clone()).collect(),
            prompt: prompt.text.clone(),
            schema_version: 1,
            info: Info {
                description: format!(
                    "Circuit of prompt {} of the task {}",
                    graph.number, task.name
                ),
                generator: Generator { name: "circuit-atlas", version: version.into() },
            },
        },
        parameters: Parameters {
            pinned_ids: [],
            supernodes: [],
            link_type: "both",
            clicked_id: "",
            places: "",
        },
        nodes: export.nodes(),
        links: export.links(),
    };
    serde_json::to_string(&file).unwrap_or_default()
}

/// The two numbers as one.
fn paired(layer: usize, feature: usize) -> i64 {
    let sum = (layer + feature) as i64;
    sum * (sum + 1) / 2 + feature as i64
}

/// Features of the transcoder of each layer.
pub(super) type Widths = BTreeMap<usize, usize>;

/// What the numbers of a layer's attention features begin at, for a viewer that knows transcoders
/// alone: behind those of the transcoder.
fn offset(widths: &Widths, layer: usize) -> usize {
    widths.get(&layer).copied().unwrap_or(0)
}

/// The number of a feature for such a viewer.
pub(super) fn viewer_number(widths: &Widths, feature: FeatureId) -> i64 {
    let layer = feature.dictionary.layer;
    let behind = feature.dictionary.kind == Kind::Attention;
    paired(layer, feature.index + if behind { offset(widths, layer) } else { 0 })
}

/// The identifier of each node, none twice: those of transcoder features, tokens and the answer are
/// the format's, the others have a word in them that no other kind has.
fn ids(graph: &PromptGraph, layers: usize) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let unique = |at: usize| {
        let id = id(graph, at, layers);
        // Biases of one place have no other difference.
        let id = (1..)
            .map(|n| if n == 1 { id.clone() } else { format!("{id}_{n}") })
            .find(|id| taken.insert(id.clone()));
        id.unwrap_or_default()
    };
    (0..graph.nodes().len()).map(unique).collect()
}

fn id(graph: &PromptGraph, at: usize, layers: usize) -> String {
    let node = &graph.nodes()[at];
    let (layer, position, feature) = (node.layer(), graph.position(at), node.index());
    match node.kind {
        NodeKind::Root => format!("{}_{}_{position}", layers + 1, graph.correct),
        NodeKind::MlpFeature => format!("{layer}_{feature}_{position}"),
        NodeKind::AttentionFeature => format!("{layer}_lorsa_{feature}_{position}"),
        NodeKind::Head => {
            format!("{layer}_head_{}_{}_{position}_{feature}", node.head(), node.source())
        }
        NodeKind::AttentionError => format!("{layer}_error_attn_{position}"),
        NodeKind::MlpError => format!("{layer}_error_mlp_{position}"),
        NodeKind::Bias(_) => format!("{layer}_bias_{position}"),
        NodeKind::Embedding => {
            format!("E_{}_{position}", graph.tokens.get(position).map_or(0, |(id, _)| *id))
        }
        NodeKind::PositionEmbedding => format!("E_position_{position}"),
    }
}

/// For each head the link to what it serves.
fn served(graph: &PromptGraph) -> Vec<Option<&Link>> {
    let mut served = vec![None; graph.nodes().len()];
    graph
        .links()
        .iter()
        .filter(|link| is_head(graph, link.from))
        .for_each(|link| served[link.from] = Some(link));
    served
}

fn is_head(graph: &PromptGraph, at: usize) -> bool {
    graph.nodes()[at].kind == NodeKind::Head
}

struct Export<'a> {
    names: &'a Names<'a>,
    prompt: &'a Prompt,
    layers: usize,
    ids: Vec<String>,
    served: Vec<Option<&'a Link>>,
    /// For a viewer that knows one kind of features.
    viewer: Option<&'a Widths>,
}

impl Export<'_> {
    fn graph(&self) -> &PromptGraph {
        self.names.graph
    }

    fn nodes(&self) -> Vec<Entry> {
        let all = 0..self.graph().nodes().len();
        all.filter(|&at| !is_head(self.graph(), at)).map(|at| self.node(at)).collect()
    }

    fn node(&self, at: usize) -> Entry {
        let node = &self.graph().nodes()[at];
        let probability = self.probability();
        let root = node.kind == NodeKind::Root;
        Entry {
            node_id: self.ids[at].clone(),
            feature: self.feature(node),
            layer: self.layer(node),
            ctx_idx: self.graph().position(at),
            feature_type: self.feature_type(node.kind),
            js_node_id: self.shared_id(at),
            clerp: if root { self.answer(probability) } else { self.names.label(at) },
            is_target_logit: root,
            run_idx: 0,
            reverse_ctx_idx: 0,
            token_prob: probability.filter(|_| root),
            activation: self.graph().circuit.activations[at],
            qk_tracing_results: self.scores(at),
            heads: self.heads(at),
        }
    }

    fn feature(&self, node: &Node) -> i64 {
        match node.kind {
            NodeKind::Root => i64::from(self.graph().correct),
            NodeKind::Embedding => node.position() as i64,
            kind => {
                let offset = match (kind, self.viewer) {
                    (NodeKind::AttentionFeature, Some(widths)) => offset(widths, node.layer()),
                    _ => 0,
                };
                let number = |feature| paired(node.layer(), offset + feature as usize);
                node.feature.map_or(-1, number)
            }
        }
    }

    fn feature_type(&self, kind: NodeKind) -> &'static str {
        match (kind, self.viewer) {
            (NodeKind::AttentionFeature, Some(_)) => feature_type(NodeKind::MlpFeature),
            _ => feature_type(kind),
        }
    }

    fn layer(&self, node: &Node) -> String {
        match node.kind {
            NodeKind::Root => (self.layers + 1).to_string(),
            NodeKind::Embedding | NodeKind::PositionEmbedding => "E".into(),
            _ => node.layer().to_string(),
        }
    }

    /// The same for a feature wherever it is active; anything else is itself.
    fn shared_id(&self, at: usize) -> String {
        let node = &self.graph().nodes()[at];
        match (node.kind, node.feature) {
            (NodeKind::MlpFeature, Some(feature)) => format!("{}_{feature}-0", node.layer()),
            (NodeKind::AttentionFeature, Some(feature)) => {
                format!("{}_lorsa_{feature}-0", node.layer())
            }
            _ => self.ids[at].clone(),
        }
    }

    /// The probability of the correct answer, if it is among the first choices.
    fn probability(&self) -> Option<f32> {
        self.prompt.answers.iter().find(|(text, _)| *text == self.prompt.correct).map(|(_, p)| *p)
    }

    /// Viewers read the token between the quotation marks and the probability after `(p=`.
    fn answer(&self, probability: Option<f32>) -> String {
        let least = self.prompt.answers.iter().map(|(_, p)| *p).fold(1.0, f32::min);
        let p = probability.map_or_else(|| format!("<{least:.3}"), |p| format!("{p:.3}"));
        let against = if self.graph().difference {
            format!(" less \"{}\"", self.prompt.counter)
        } else {
            String::new()
        };
        format!("Output \"{}\" (p={p}){against}", self.prompt.correct)
    }

    /// Direct effects, one link for each pair of nodes; what enters a head's value slot acts on
    /// what the head serves.
    fn links(&self) -> Vec<Weighted> {
        let mut weights: BTreeMap<(usize, usize), f32> = BTreeMap::new();
        for link in self.graph().links().iter().filter(|link| !is_head(self.graph(), link.from)) {
            let target = match (self.served[link.to], link.slot) {
                (Some(served), Slot::V) => Some(served.to),
                (Some(_), _) => None,
                (None, _) => Some(link.to).filter(|&to| !is_head(self.graph(), to)),
            };
            if let Some(target) = target {
                *weights.entry((link.from, target)).or_default() += link.effect;
            }
        }
        let named = |((from, to), weight): ((usize, usize), f32)| Weighted {
            source: self.ids[from].clone(),
            target: self.ids[to].clone(),
            weight,
        };
        weights.into_iter().map(named).collect()
    }

    /// The heads that serve a node, as places.
    fn serving(&self, at: usize) -> impl Iterator<Item = &Link> {
        self.served.iter().flatten().copied().filter(move |link| link.to == at)
    }

    fn scores(&self, at: usize) -> Option<Scores> {
        let [q, k] = [Slot::Q, Slot::K].map(|slot| self.entering(at, slot));
        let some = !q.is_empty() || !k.is_empty();
        some.then_some(Scores {
            top_q_marginal_contributors: q,
            top_k_marginal_contributors: k,
            ..Scores::default()
        })
    }

    fn entering(&self, at: usize, slot: Slot) -> Vec<(String, f32)> {
        let mut effects: BTreeMap<usize, f32> = BTreeMap::new();
        let into = self.serving(at).flat_map(|head| self.names.into(head.from));
        into.filter(|link| link.slot == slot)
            .for_each(|link| *effects.entry(link.from).or_default() += link.effect);
        let mut listed: Vec<(String, f32)> =
            effects.into_iter().map(|(from, e)| (self.ids[from].clone(), e)).collect();
        listed.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        listed
    }

    fn heads(&self, at: usize) -> Vec<HeadEntry> {
        let entry = |link: &Link| HeadEntry {
            head: self.names.name(link.from),
            source: self.graph().nodes()[link.from].source(),
            weight: link.effect,
        };
        self.serving(at).map(entry).collect()
    }
}

/// What the viewers call a kind of node. They draw a bias, too; a position is an embedding like
/// that of a token.
fn feature_type(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Root => "logit",
        NodeKind::AttentionFeature => "lorsa",
        NodeKind::MlpFeature => "cross layer transcoder",
        NodeKind::AttentionError => "lorsa error",
        NodeKind::MlpError => "mlp reconstruction error",
        NodeKind::Bias(_) => "bias",
        NodeKind::Embedding | NodeKind::PositionEmbedding => "embedding",
        // Heads are not written.
        NodeKind::Head => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_and_feature_can_be_read_off_their_number() {
        // As the viewers do it.
        let back = |z: i64| {
            let w = ((((8 * z + 1) as f64).sqrt() - 1.0) / 2.0).floor() as i64;
            (w - (z - w * (w + 1) / 2), z - w * (w + 1) / 2)
        };
        for (layer, feature) in [(0, 0), (3, 51), (11, 24575), (0, 49151)] {
            assert_eq!(back(paired(layer, feature)), (layer as i64, feature as i64));
        }
    }
}
