//! Nodes, links and the circuit of one prompt; and what several circuits have in common.

use crate::ids::{Component, FeatureId, Kind, NodeKind, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// A node of a prompt's circuit. Fields that its kind does not have are none; their order is node
/// order. The methods of the same names are for nodes that have them, and 0 for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Its layer, from 0.
    pub layer: Option<u32>,
    /// Where it is; the destination of a head.
    pub position: Option<u32>,
    /// The position that a head reads.
    pub source: Option<u32>,
    /// The number of a head in its layer, from 0.
    pub head: Option<u32>,
    /// The dictionary feature; of a head the one it serves, none for the SAE's error.
    pub feature: Option<u32>,
}

fn index(field: Option<u32>) -> usize {
    field.map_or(0, |x| x as usize)
}

impl Node {
    /// The root of every circuit.
    pub const ROOT: Node = Node {
        kind: NodeKind::Root,
        layer: None,
        position: None,
        source: None,
        head: None,
        feature: None,
    };

    /// A node with a layer and a position and nothing else.
    pub fn at(kind: NodeKind, layer: usize, position: usize) -> Node {
        Node { kind, layer: Some(layer as u32), position: Some(position as u32), ..Node::ROOT }
    }

    /// A dictionary feature at a position.
    pub fn feature(kind: Kind, layer: usize, position: usize, feature: u32) -> Node {
        let kind = match kind {
            Kind::Attention => NodeKind::AttentionFeature,
            Kind::Mlp => NodeKind::MlpFeature,
        };
        Node { feature: Some(feature), ..Node::at(kind, layer, position) }
    }

    /// The token or position embedding at a position.
    pub fn embedding(kind: NodeKind, position: usize) -> Node {
        Node { kind, position: Some(position as u32), ..Node::ROOT }
    }

    /// Its layer.
    pub fn layer(&self) -> usize {
        index(self.layer)
    }

    /// Where it is; the destination of a head.
    pub fn position(&self) -> usize {
        index(self.position)
    }

    /// The position that a head reads.
    pub fn source(&self) -> usize {
        index(self.source)
    }

    /// The number of a head in its layer.
    pub fn head(&self) -> usize {
        index(self.head)
    }

    /// The number of its dictionary feature.
    pub fn index(&self) -> usize {
        index(self.feature)
    }

    /// The head through which an attention feature or an SAE error reads a position.
    pub fn through(&self, head: usize, source: usize) -> Node {
        let (head, source) = (Some(head as u32), Some(source as u32));
        Node { kind: NodeKind::Head, head, source, ..*self }
    }

    /// The slots of a receiver, in the order a walk takes them; terminal nodes have none.
    pub fn slots(&self) -> &'static [Slot] {
        match self.kind {
            NodeKind::Head => &[Slot::Q, Slot::K, Slot::V],
            NodeKind::Root
            | NodeKind::AttentionFeature
            | NodeKind::MlpFeature
            | NodeKind::AttentionError => &[Slot::In],
            _ => &[],
        }
    }

    /// The component that the node belongs to.
    pub fn component(&self) -> Option<Component> {
        let layer = self.layer();
        match self.kind {
            NodeKind::Head => Some(Component::Head { layer, head: self.head() }),
            NodeKind::MlpFeature | NodeKind::MlpError => Some(Component::Mlp { layer }),
            _ => None,
        }
    }

    /// The feature that serves at this node's component; an error is never one.
    pub fn served(&self) -> Option<FeatureId> {
        let component = self.component()?;
        let index = self.feature? as usize;
        Some(FeatureId { dictionary: component.dictionary(), index })
    }

    /// The dictionary feature that the node itself is.
    pub fn dictionary_feature(&self) -> Option<FeatureId> {
        let kind = match self.kind {
            NodeKind::AttentionFeature => Kind::Attention,
            NodeKind::MlpFeature => Kind::Mlp,
            _ => return None,
        };
        Some(FeatureId::new(kind, self.layer(), self.feature? as usize))
    }
}

/// `child` contributes to `parent`'s slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// What contributes.
    pub child: Node,
    /// What it contributes to.
    pub parent: Node,
    /// Where it enters the parent.
    pub slot: Slot,
    /// The direct effect; of `gradient`, in the metric's unit.
    pub effect: f32,
    /// `|effect| / Σ|effect|` over everything that enters the slot.
    pub share: f32,
}

/// The circuit of one prompt.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// In node order, the root first.
    pub nodes: Vec<Node>,
    /// In the order they were linked.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// The root and whatever is linked.
    pub fn of(edges: Vec<Edge>) -> Graph {
        let nodes: BTreeSet<Node> =
            edges.iter().map(|edge| edge.child).chain([Node::ROOT]).collect();
        Graph { nodes: nodes.into_iter().collect(), edges }
    }

    /// The share of the root's effect that its links cover.
    pub fn coverage(&self) -> f64 {
        self.edges
            .iter()
            .filter(|e| e.parent.kind == NodeKind::Root)
            .map(|e| f64::from(e.share))
            .sum()
    }

    /// The components of the circuit.
    pub fn components(&self) -> BTreeSet<Component> {
        self.nodes.iter().filter_map(Node::component).collect()
    }

    /// (component, feature that serves there), each once.
    pub fn servings(&self) -> BTreeSet<(Component, FeatureId)> {
        self.nodes.iter().filter_map(|node| Some((node.component()?, node.served()?))).collect()
    }

    /// For each (component, feature serving there), the summed share of the links that leave the
    /// nodes at which it does.
    pub(crate) fn serving_shares(&self) -> BTreeMap<(Component, FeatureId), f64> {
        let mut shares = BTreeMap::new();
        for edge in &self.edges {
            if let (Some(component), Some(feature)) = (edge.child.component(), edge.child.served())
            {
                *shares.entry((component, feature)).or_insert(0.0) += f64::from(edge.share);
            }
        }
        shares
    }

    /// Summed share of the direct links from feature `f` (served at `a`) to the node at which `g`
    /// serves at `b`.
    fn direct_shares(&self) -> BTreeMap<[(Component, FeatureId); 2], f64> {
        let mut heads: BTreeMap<Node, BTreeSet<Component>> = BTreeMap::new();
        for edge in &self.edges {
            if edge.child.kind == NodeKind::Head {
                heads.entry(edge.parent).or_default().extend(edge.child.component());
            }
        }
        let mut shares = BTreeMap::new();
        for edge in &self.edges {
            let (Some(f), Some(g), Some(b)) =
                (edge.child.dictionary_feature(), edge.parent.served(), edge.parent.component())
            else {
                continue;
            };
            let own = edge.child.component().into_iter().collect();
            let at = if f.dictionary.kind == Kind::Attention {
                heads.get(&edge.child)
            } else {
                Some(&own)
            };
            for &a in at.into_iter().flatten() {
                *shares.entry([(a, f), (b, g)]).or_insert(0.0) += f64::from(edge.share);
            }
        }
        shares
    }
}

/// Two features at their components, `a` before `b`.
pub(super) type Pair = [(Component, FeatureId); 2];

/// In how many prompts both serve, and the summed share of direct links between them, either way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairCount {
    /// Prompts in which both serve.
    pub prompts: u32,
    /// Summed share of the direct links between them, over prompts.
    pub share: f64,
}

/// Co-occurrence in circuits (`docs/definitions.md` §10): every pair of features that serve in the
/// same prompt, each unordered pair once, the smaller (component, feature) first; at one component,
/// of two different features.
pub fn pair_counts<'a>(graphs: impl IntoIterator<Item = &'a Graph>) -> BTreeMap<Pair, PairCount> {
    let mut pairs: BTreeMap<Pair, PairCount> = BTreeMap::new();
    for graph in graphs {
        let servings: Vec<_> = graph.servings().into_iter().collect();
        let shares = graph.direct_shares();
        let share = |a, b| shares.get(&[a, b]).copied().unwrap_or(0.0);
        for (i, &a) in servings.iter().enumerate() {
            for &b in &servings[i + 1..] {
                let count = pairs.entry([a, b]).or_default();
                count.prompts += 1;
                count.share += share(a, b) + share(b, a);
            }
        }
    }
    pairs
}
