//! What may be linked to a slot, best first: kinds are filtered first, then the top few are kept.
//!
//! Each slot is ranked once, however many searches of a prompt ask for it.

use crate::circuit::attribution::{Attribution, Contributions, Root, share};
use crate::circuit::graph::Node;
use crate::error::Result;
use crate::ids::{NodeKind, Slot};
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// A possible link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// What contributes.
    pub node: Node,
    /// Its direct effect on the slot.
    pub effect: f32,
    /// `|effect| / Σ|effect|` over everything that enters the slot.
    pub share: f32,
}

/// The ranked contributors of a prompt's nodes.
pub struct Candidates<'a> {
    attribution: &'a Attribution<'a>,
    /// Contributors of a slot that are kept.
    most: usize,
    allowed: Vec<NodeKind>,
    ranked: HashMap<(Node, Slot), Rc<[Candidate]>>,
}

impl<'a> Candidates<'a> {
    /// Those of the `most` largest effects among the kinds whose words ([`NodeKind::word`]) are in
    /// `allow`.
    pub fn new(
        attribution: &'a Attribution<'a>,
        most: usize,
        allow: &BTreeSet<String>,
    ) -> Candidates<'a> {
        let allowed =
            NodeKind::ALL.into_iter().filter(|kind| allow.contains(kind.setting())).collect();
        Candidates { attribution, most, allowed, ranked: HashMap::new() }
    }

    /// Whether nodes of a kind may be linked.
    pub(super) fn allows(&self, kind: NodeKind) -> bool {
        self.allowed.contains(&kind)
    }

    /// What they are ranked by.
    pub fn attribution(&self) -> &'a Attribution<'a> {
        self.attribution
    }

    /// The contributors of a root, the largest effect first, ties by node order.
    pub(crate) fn of_root(&self, root: Root) -> Result<Rc<[Candidate]>> {
        Ok(self.rank(&self.attribution.on_root(root)?))
    }

    /// The contributors of any other receiver, in the same order.
    pub fn of(&mut self, node: &Node, slot: Slot) -> Result<Rc<[Candidate]>> {
        if let Some(known) = self.ranked.get(&(*node, slot)) {
            return Ok(known.clone());
        }
        let ranked = self.rank(&self.attribution.contributions(node, slot)?);
        self.ranked.insert((*node, slot), ranked.clone());
        Ok(ranked)
    }

    fn rank(&self, all: &Contributions) -> Rc<[Candidate]> {
        let whole = all.whole();
        let each = all.nodes.iter().zip(&all.effects);
        let mut found: Vec<Candidate> = each
            .filter(|(node, effect)| **effect != 0.0 && self.allowed.contains(&node.kind))
            .map(|(&node, &effect)| Candidate { node, effect, share: share(effect, whole) })
            .collect();
        if found.len() > self.most {
            found.select_nth_unstable_by(self.most, by_effect);
            found.truncate(self.most);
        }
        found.sort_unstable_by(by_effect);
        found.into()
    }
}

/// The largest effect first, ties by node order.
fn by_effect(a: &Candidate, b: &Candidate) -> Ordering {
    b.effect.abs().total_cmp(&a.effect.abs()).then(a.node.cmp(&b.node))
}

/// The words that `discover.allow` may hold, in node order.
pub fn allowable() -> Vec<&'static str> {
    let mut words: Vec<&str> = NodeKind::ALL
        .into_iter()
        .filter(|kind| *kind != NodeKind::Root)
        .map(NodeKind::setting)
        .collect();
    words.dedup();
    words
}
