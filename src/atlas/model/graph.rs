//! The circuit of one prompt.

pub(crate) use crate::circuit::Node;
pub(super) use crate::ids::{NodeKind, Slot};

use crate::circuit::{Edge, Graph};
use crate::ids::{Component, FeatureId, Kind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The circuit of one prompt with what is around it. Cloning it does not copy nodes and links.
#[derive(Clone, Debug)]
pub(crate) struct PromptGraph {
    /// The prompt's number in its task, from 0: the name of its page.
    pub number: u32,
    /// What the model read, special tokens included: id and text.
    pub tokens: Vec<(u32, String)>,
    /// Id of the correct answer.
    pub correct: u32,
    /// Whether the root is a difference of two logits or the correct answer's alone.
    pub difference: bool,
    pub against: Baseline,
    pub circuit: Arc<Circuit>,
}

/// What links of the method `gradient` hold features against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Baseline {
    /// Their means over the corrupted prompts of the task.
    Means,
    /// What they are in this prompt.
    Corrupted(String),
    Zero,
}

/// Nodes and links of one prompt's circuit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Circuit {
    /// In node order, the root first.
    pub nodes: Vec<Node>,
    /// Of each node: its activation if it is a dictionary feature.
    pub activations: Vec<Option<f32>>,
    pub links: Vec<Link>,
}

/// Node `from` contributes to node `to`; both are places in the circuit's nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Link {
    pub from: usize,
    pub to: usize,
    pub slot: Slot,
    pub effect: f32,
    /// `|effect|` as a share of everything that enters the slot.
    pub share: f32,
}

impl PromptGraph {
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.circuit.nodes
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.circuit.links
    }

    /// Where a node is; the root reads the last token.
    pub(crate) fn position(&self, at: usize) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        self.nodes()[at].position.map_or(last, |position| position as usize)
    }

    /// The dictionary feature that a node is, or that it serves if it is a head.
    pub(crate) fn feature(&self, at: usize) -> Option<FeatureId> {
        let node = &self.nodes()[at];
        let kind = match node.kind {
            NodeKind::AttentionFeature | NodeKind::Head => Kind::Attention,
            NodeKind::MlpFeature => Kind::Mlp,
            _ => return None,
        };
        Some(FeatureId::new(kind, node.layer(), node.feature? as usize))
    }

    /// Short: `att3.51`, `L2H4`, `emb`.
    pub(crate) fn name(&self, at: usize) -> String {
        let node = &self.nodes()[at];
        let layer = node.layer();
        match node.kind {
            NodeKind::Root => kind_word(node.kind).into(),
            NodeKind::AttentionFeature | NodeKind::MlpFeature => {
                self.feature(at).map_or_else(String::new, |id| id.to_string())
            }
            NodeKind::Head => Component::Head { layer, head: node.head() }.to_string(),
            NodeKind::AttentionError => format!("att{layer} err"),
            NodeKind::MlpError => format!("mlp{layer} err"),
            NodeKind::Bias(_) => format!("b{layer}"),
            NodeKind::Embedding => "emb".into(),
            NodeKind::PositionEmbedding => "pos".into(),
        }
    }

    /// The name with its position: `att3.51 @ 12`, of a head also with the one that it reads.
    pub(crate) fn placed(&self, at: usize) -> String {
        let (name, position) = (self.name(at), self.position(at));
        match self.nodes()[at].kind {
            NodeKind::Root => name,
            NodeKind::Head => format!("{name} @ {position} ← {}", self.nodes()[at].source()),
            _ => format!("{name} @ {position}"),
        }
    }

    /// What a head serves.
    pub(crate) fn serves(&self, at: usize) -> Option<String> {
        let node = &self.nodes()[at];
        let error = || format!("att{} err", node.layer());
        (node.kind == NodeKind::Head)
            .then(|| self.feature(at).map_or_else(error, |id| id.to_string()))
    }
}

/// The words for a kind of node.
pub(crate) fn kind_word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Root => "answer",
        NodeKind::AttentionFeature => "attention feature",
        NodeKind::MlpFeature => "MLP feature",
        NodeKind::Head => "head",
        NodeKind::AttentionError => "attention error",
        NodeKind::MlpError => "MLP error",
        NodeKind::Bias(_) => "bias",
        NodeKind::Embedding => "token embedding",
        NodeKind::PositionEmbedding => "position embedding",
    }
}

impl Circuit {
    /// A graph with the activation of each of its nodes; links in the order of the tables.
    pub(crate) fn of(graph: &Graph, activations: Vec<Option<f32>>) -> Circuit {
        let places: BTreeMap<Node, usize> = graph.nodes.iter().copied().zip(0..).collect();
        let link = |edge: &Edge| Link {
            from: places[&edge.child],
            to: places[&edge.parent],
            slot: edge.slot,
            effect: edge.effect,
            share: edge.share,
        };
        let mut links: Vec<Link> = graph.edges.iter().map(link).collect();
        links.sort_by_key(|link| (link.from, link.to, link.slot));
        Circuit { nodes: graph.nodes.clone(), activations, links }
    }

    /// The same with links between nodes instead of places.
    pub(crate) fn graph(&self) -> Graph {
        let edge = |link: &Link| Edge {
            child: self.nodes[link.from],
            parent: self.nodes[link.to],
            slot: link.slot,
            effect: link.effect,
            share: link.share,
        };
        Graph { nodes: self.nodes.clone(), edges: self.links.iter().map(edge).collect() }
    }

    /// Each node's influence on the root along the links that are here: the sum over all paths of
    /// the products of shares, as the method `influence` defines it over all terms; what enters
    /// queries and keys passes none. The root has 1.
    pub(crate) fn influences(&self) -> Vec<f64> {
        let n = self.nodes.len();
        let (mut influence, mut open, mut into) =
            (vec![0.0; n], vec![0usize; n], vec![Vec::new(); n]);
        for link in &self.links {
            open[link.from] += 1;
            into[link.to].push(link);
        }
        // A node's turn comes when all that it leads to had theirs.
        let mut ready: Vec<usize> = (0..n).filter(|&at| open[at] == 0).collect();
        while let Some(at) = ready.pop() {
            if self.nodes[at].kind == NodeKind::Root {
                influence[at] = 1.0;
            }
            for link in &into[at] {
                if link.slot.passes_influence() {
                    influence[link.from] += influence[at] * f64::from(link.share);
                }
                open[link.from] -= 1;
                if open[link.from] == 0 {
                    ready.push(link.from);
                }
            }
        }
        influence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn influence_is_the_sum_over_all_paths_of_the_products_of_shares() {
        let at = |kind| Node::at(kind, 0, 0);
        let kinds = [NodeKind::AttentionFeature, NodeKind::Head, NodeKind::Embedding];
        let link = |from, to, slot, share| Link { from, to, slot, effect: -1.0, share };
        let links = vec![
            link(3, 0, Slot::In, 0.25),
            link(3, 2, Slot::Q, 0.75),
            link(3, 2, Slot::V, 0.75),
            link(2, 1, Slot::In, 0.5),
            link(1, 0, Slot::In, 0.5),
        ];
        let nodes: Vec<Node> = [Node::ROOT].into_iter().chain(kinds.map(at)).collect();
        let circuit = Circuit { activations: vec![None; nodes.len()], nodes, links };
        assert_eq!(circuit.influences(), [1.0, 0.5, 0.25, 0.25 + 0.75 * 0.25]);
    }
}
