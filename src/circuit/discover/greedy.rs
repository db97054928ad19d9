//! `greedy`: a few breadth-first walks from the root, each linking the next best contributor and
//! the chain under it (`docs/definitions.md` §6).
//!
//! A walk handles a node once. In each slot it links the best `per_node` candidates that are not
//! yet linked there, and walks on into a child unless the child was explored by then: every slot of
//! it that has candidates has a link.

use super::candidates::{Candidate, Candidates};
use crate::circuit::attribution::Root;
use crate::circuit::graph::{Edge, Graph, Node};
use crate::error::Result;
use crate::ids::Slot;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

struct Search<'c, 'a> {
    candidates: &'c mut Candidates<'a>,
    root: Rc<[Candidate]>,
    per_node: usize,
    links: HashMap<(Node, Slot), HashSet<Node>>,
    edges: Vec<Edge>,
}

/// The circuit of a root.
///
/// # Errors
/// When a dictionary cannot be read.
pub fn greedy(
    candidates: &mut Candidates,
    root: Root,
    passes: usize,
    per_node: usize,
) -> Result<Graph> {
    let root = candidates.of_root(root)?;
    let mut search =
        Search { candidates, root, per_node, links: HashMap::new(), edges: Vec::new() };
    for _ in 0..passes {
        search.walk()?;
    }
    Ok(Graph::of(search.edges))
}

impl Search<'_, '_> {
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
        let candidates = self.candidates(&node, slot)?;
        let linked = self.links.entry((node, slot)).or_default();
        let free = candidates.iter().filter(|candidate| !linked.contains(&candidate.node));
        let chosen: Vec<Candidate> = free.take(self.per_node).copied().collect();
        for Candidate { node: child, effect, share } in chosen {
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
            let linked = self.links.get(&(node, slot)).is_some_and(|links| !links.is_empty());
            if !linked && !self.candidates(&node, slot)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn candidates(&mut self, node: &Node, slot: Slot) -> Result<Rc<[Candidate]>> {
        if *node == Node::ROOT { Ok(self.root.clone()) } else { self.candidates.of(node, slot) }
    }
}
