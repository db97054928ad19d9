//! `influence`: the strongest open node next, until what is linked carries most of what was seen.
//!
//! A node's *influence* is the share of the root's effect that passes through it. The root has 1. Every linked receiver hands
//! its own down to its candidates: influence × weight of the slot × share of the effect in the slot, summed over all links to
//! linked receivers. So a node counts by all paths from it to the root, and one that is reached by many weak paths can come
//! before one with a single strong one; what is lost (biases, kinds that are not allowed, what is beyond the candidates) is
//! nobody's.
//!
//! The weights of a head's slots say how far its effect `E = A·m` follows each of them (`A` the pattern's entry, `m` what
//! the value carries). For small changes `dE/E = dm/m + (1 − A)·d(score)`, as `A` is a softmax of the score: the value counts
//! 1, and the score `1 − A`, for a head that attends fully does not mind a little more score. The score is a product of query
//! and key, each of which makes all of it, so the two halve its part. Hence v : q : k = 1 : (1 − A)/2 : (1 − A)/2, scaled to
//! sum to 1, so that no influence is made on the way.
//!
//! Which node comes next never depends on where the search ends: more coverage, or more nodes, only adds nodes.

use super::candidates::{Candidate, Candidates};
use crate::circuit::attribution::{Attribution, Root};
use crate::circuit::graph::{Edge, Graph, Node, NodeKind, Slot};
use crate::error::Result;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A circuit with the influence of everything that was seen on the way.
pub struct Flow {
    pub graph: Graph,
    /// Of every node that is linked, the root included.
    pub linked: BTreeMap<Node, f64>,
    /// Of every node that could be linked next.
    pub open: BTreeMap<Node, f64>,
}

impl Flow {
    /// The share of the influence seen that is not linked: of open nodes, over open and linked ones (not the root).
    pub fn left_out(&self) -> f64 {
        let open = self.open.values().sum::<f64>();
        let linked = self.linked.iter().filter(|(node, _)| **node != Node::ROOT).map(|(_, influence)| influence);
        let seen = open + linked.sum::<f64>();
        if seen > 0.0 { open / seen } else { 0.0 }
    }
}

/// A node that has been seen.
struct Place {
    node: Node,
    influence: f64,
    linked: bool,
    /// Links to linked receivers, in the order in which those were linked.
    above: Vec<Edge>,
    /// Once linked: its candidates, and the part of its influence that each takes.
    below: Vec<(usize, f64)>,
}

struct Search<'c, 'a> {
    candidates: &'c mut Candidates<'a>,
    root: Root,
    places: Vec<Place>,
    known: HashMap<Node, usize>,
    edges: Vec<Edge>,
}

/// The circuit of a root: nodes are linked until they hold `coverage` of the influence seen, or are `limit` many (the root
/// not counted in either), or nothing is left to link. All candidate links between linked nodes are in it.
///
/// # Errors
/// When a dictionary cannot be read.
pub fn influence(candidates: &mut Candidates, root: Root, coverage: f64, limit: usize) -> Result<Flow> {
    let (places, known, edges) = (Vec::new(), HashMap::new(), Vec::new());
    let mut search = Search { candidates, root, places, known, edges };
    let start = search.place(Node::ROOT);
    search.places[start].influence = 1.0;
    search.link(start)?;
    for _ in 0..limit {
        match search.strongest() {
            Some(next) if search.covered() < coverage => search.link(next)?,
            _ => break,
        }
    }
    Ok(search.flow())
}

impl Search<'_, '_> {
    /// The place of a node, which is open if it is new.
    fn place(&mut self, node: Node) -> usize {
        *self.known.entry(node).or_insert_with(|| {
            self.places.push(Place { node, influence: 0.0, linked: false, above: Vec::new(), below: Vec::new() });
            self.places.len() - 1
        })
    }

    /// The open node of the largest influence, ties by node order.
    fn strongest(&self) -> Option<usize> {
        let open = self.places.iter().enumerate().filter(|(_, place)| !place.linked);
        let best = open.max_by(|(_, a), (_, b)| a.influence.total_cmp(&b.influence).then(b.node.cmp(&a.node)));
        best.map(|(at, _)| at)
    }

    /// The share of the influence seen that is linked.
    fn covered(&self) -> f64 {
        let (mut linked, mut seen) = (0.0, 0.0);
        for place in self.places.iter().filter(|place| place.node != Node::ROOT) {
            seen += place.influence;
            linked += if place.linked { place.influence } else { 0.0 };
        }
        if seen > 0.0 { linked / seen } else { 1.0 }
    }

    /// Links a node to all linked receivers and contributors of it, and hands its influence down.
    fn link(&mut self, at: usize) -> Result<()> {
        let node = self.places[at].node;
        self.places[at].linked = true;
        self.edges.extend_from_slice(&self.places[at].above);
        for &slot in node.slots() {
            let weight = weight(self.candidates.attribution(), &node, slot);
            for Candidate { node: child, effect, share } in self.of(&node, slot)?.iter().copied() {
                let edge = Edge { child, parent: node, slot, effect, share };
                let below = self.place(child);
                self.places[at].below.push((below, weight * f64::from(share)));
                self.places[below].above.push(edge);
                if self.places[below].linked {
                    self.edges.push(edge);
                }
            }
        }
        self.hand_down(at);
        Ok(())
    }

    fn of(&mut self, node: &Node, slot: Slot) -> Result<Rc<[Candidate]>> {
        if *node == Node::ROOT { self.candidates.of_root(self.root) } else { self.candidates.of(node, slot) }
    }

    /// Hands the influence of a newly linked node down, through what is linked already. The latest in the model goes first,
    /// so that each has all of its increase when it is its turn.
    fn hand_down(&mut self, from: usize) {
        let mut waiting = BTreeMap::new();
        let mut next = Some((from, self.places[from].influence));
        while let Some((at, more)) = next {
            for &(below, part) in &self.places[at].below {
                let key = (Reverse(time(&self.places[below].node)), below);
                *waiting.entry(key).or_insert(0.0) += part * more;
            }
            next = waiting.pop_first().map(|((_, at), more)| (at, more));
            if let Some((at, more)) = next {
                self.places[at].influence += more;
            }
        }
    }

    fn flow(self) -> Flow {
        let (linked, open): (Vec<Place>, Vec<Place>) = self.places.into_iter().partition(|place| place.linked);
        let influences = |places: Vec<Place>| places.into_iter().map(|place| (place.node, place.influence)).collect();
        Flow { graph: Graph::of(self.edges), linked: influences(linked), open: influences(open) }
    }
}

/// The part of a receiver's influence that a slot takes, as the module says.
fn weight(attribution: &Attribution, node: &Node, slot: Slot) -> f64 {
    if slot == Slot::In {
        return 1.0;
    }
    let a = f64::from(attribution.pattern(node));
    let part = if slot == Slot::V { 1.0 } else { (1.0 - a) / 2.0 };
    part / (2.0 - a)
}

/// When in a pass a node is computed: all that contributes to it is earlier.
fn time(node: &Node) -> (i32, u8) {
    match node.kind {
        NodeKind::Root => (i32::MAX, 0),
        NodeKind::Head => (node.layer, 0),
        NodeKind::AttentionFeature | NodeKind::AttentionError => (node.layer, 1),
        NodeKind::MlpFeature => (node.layer, 2),
        // These receive nothing.
        _ => (-1, 0),
    }
}
