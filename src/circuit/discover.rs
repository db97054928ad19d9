//! `greedy`: a few breadth-first walks from the root, each linking the next best contributor and the chain under it
//! (DESIGN.md 4.5).
//!
//! A walk handles a node once. In each slot it links the best `per_node` of the top `candidates` that are not yet linked
//! there, and walks on into a child unless the child was explored by then: every slot of it that has candidates has a link.

use super::attribution::Attribution;
use super::graph::{Edge, Graph, Node, NodeKind, Slot};
use crate::error::Result;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

/// The settings of a greedy search.
#[derive(Clone, Debug)]
pub struct Greedy {
    pub passes: usize,
    pub per_node: usize,
    pub candidates: usize,
    /// Words of the kinds that may be linked ([`NodeKind::word`]).
    pub allow: BTreeSet<String>,
}

/// A possible link, best first in its slot.
struct Candidate {
    node: Node,
    effect: f32,
    share: f32,
}

struct Search<'a> {
    attribution: &'a Attribution<'a>,
    settings: &'a Greedy,
    candidates: HashMap<(Node, Slot), Vec<Candidate>>,
    links: HashMap<(Node, Slot), HashSet<Node>>,
    edges: Vec<Edge>,
}

/// The circuit of one prompt.
pub fn greedy(attribution: &Attribution, settings: &Greedy) -> Result<Graph> {
    let mut search =
        Search { attribution, settings, candidates: HashMap::new(), links: HashMap::new(), edges: Vec::new() };
    for _ in 0..settings.passes {
        search.walk()?;
    }
    let nodes: BTreeSet<Node> = search.edges.iter().map(|edge| edge.child).chain([Node::ROOT]).collect();
    Ok(Graph { nodes: nodes.into_iter().collect(), edges: search.edges })
}

impl Search<'_> {
    fn walk(&mut self) -> Result<()> {
        let (mut queue, mut visited) = (VecDeque::from([Node::ROOT]), HashSet::new());
        while let Some(node) = queue.pop_front() {
            if !visited.insert(node) {
                continue;
            }
            for &slot in node.slots() {
                self.link_best(node, slot, &mut queue)?;
            }
        }
        Ok(())
    }

    fn link_best(&mut self, node: Node, slot: Slot, queue: &mut VecDeque<Node>) -> Result<()> {
        self.rank(node, slot)?;
        let linked = self.links.entry((node, slot)).or_default();
        let free = self.candidates[&(node, slot)].iter().filter(|c| !linked.contains(&c.node));
        let chosen: Vec<_> = free.take(self.settings.per_node).map(|c| (c.node, c.effect, c.share)).collect();
        for (child, effect, share) in chosen {
            self.links.entry((node, slot)).or_default().insert(child);
            self.edges.push(Edge { child, parent: node, slot, effect, share });
            if !self.explored(child)? {
                queue.push_back(child);
            }
        }
        Ok(())
    }

    fn explored(&mut self, node: Node) -> Result<bool> {
        for &slot in node.slots() {
            self.rank(node, slot)?;
            let linked = self.links.get(&(node, slot)).is_some_and(|links| !links.is_empty());
            if !linked && !self.candidates[&(node, slot)].is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ranks a slot's contributors once: kinds are filtered first, then the top few are kept.
    fn rank(&mut self, node: Node, slot: Slot) -> Result<()> {
        if self.candidates.contains_key(&(node, slot)) {
            return Ok(());
        }
        let all = self.attribution.contributions(&node, slot)?;
        let each = all.nodes.iter().zip(&all.effects).zip(all.shares());
        let mut ranked: Vec<Candidate> = each
            .filter(|((node, effect), _)| **effect != 0.0 && self.settings.allow.contains(node.kind.word()))
            .map(|((&node, &effect), share)| Candidate { node, effect, share })
            .collect();
        ranked.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()).then(a.node.cmp(&b.node)));
        ranked.truncate(self.settings.candidates);
        self.candidates.insert((node, slot), ranked);
        Ok(())
    }
}

impl Greedy {
    /// The kinds that `discover.allow` may name.
    pub fn allowable() -> [&'static str; 8] {
        use NodeKind::*;
        [
            AttentionFeature,
            MlpFeature,
            Head,
            AttentionError,
            MlpError,
            Bias(super::Bias::Attention),
            Embedding,
            PositionEmbedding,
        ]
        .map(NodeKind::word)
    }
}
