//! What is drawn of a graph: a mark for each node, but one for all nodes of a head at a position,
//! and a line for all links between two marks that enter the same slot with the same sign.

use crate::atlas::model::PromptGraph;
use crate::ids::{NodeKind, Slot};
use std::collections::BTreeMap;

/// Marks and lines of a graph.
pub(crate) struct Marks {
    /// The nodes of each mark, in node order; marks are in the order of their first nodes.
    pub nodes: Vec<Vec<usize>>,
    /// The weakest first.
    pub lines: Vec<Line>,
}

/// Links that are drawn as one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// The marks that it goes from and to.
    pub from: usize,
    pub to: usize,
    pub slot: Slot,
    pub negative: bool,
    /// The largest share of its links.
    pub share: f64,
}

impl Marks {
    pub(crate) fn of(graph: &PromptGraph) -> Marks {
        let (mut nodes, mut of): (Vec<Vec<usize>>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut heads: BTreeMap<(usize, u32, usize), usize> = BTreeMap::new();
        for (at, node) in graph.nodes().iter().enumerate() {
            let next = nodes.len();
            let mark = match (node.kind, node.head) {
                (NodeKind::Head, Some(head)) => {
                    *heads.entry((node.layer(), head, graph.position(at))).or_insert(next)
                }
                _ => next,
            };
            if mark == next {
                nodes.push(Vec::new());
            }
            nodes[mark].push(at);
            of.push(mark);
        }
        let lines = lines(graph, &of);
        Marks { nodes, lines }
    }
}

fn lines(graph: &PromptGraph, of: &[usize]) -> Vec<Line> {
    let mut shares: BTreeMap<(usize, usize, Slot, bool), f64> = BTreeMap::new();
    for link in graph.links() {
        let key = (of[link.from], of[link.to], link.slot, link.effect < 0.0);
        let share = shares.entry(key).or_default();
        *share = share.max(f64::from(link.share));
    }
    let line = |((from, to, slot, negative), share)| Line { from, to, slot, negative, share };
    let mut lines: Vec<Line> = shares.into_iter().map(line).collect();
    lines.sort_by(|a, b| a.share.total_cmp(&b.share));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::model::{Baseline, Circuit, Link, Node};
    use std::sync::Arc;

    /// A head that reads two positions for one feature, and the same head at another position.
    fn graph() -> PromptGraph {
        let feature = Node { feature: Some(5), ..Node::at(NodeKind::AttentionFeature, 1, 3) };
        let head = |at: usize, source| Node {
            head: Some(4),
            source: Some(source),
            feature: Some(5),
            ..Node::at(NodeKind::Head, 1, at)
        };
        let emb = Node::at(NodeKind::Embedding, 0, 1);
        let nodes = vec![Node::ROOT, feature, head(3, 1), head(3, 2), head(2, 1), emb];
        let link = |from, to, slot, effect, share| Link { from, to, slot, effect, share };
        let links = vec![
            link(1, 0, Slot::In, 1.0, 0.5),
            link(2, 1, Slot::In, 1.0, 0.5),
            link(3, 1, Slot::In, 1.0, 0.25),
            link(5, 2, Slot::V, 1.0, 0.125),
            link(5, 3, Slot::V, -1.0, 0.125),
            link(5, 3, Slot::K, 1.0, 0.125),
        ];
        PromptGraph {
            number: 0,
            tokens: (0..4).map(|id| (id, format!(" t{id}"))).collect(),
            correct: 0,
            difference: true,
            against: Baseline::Means,
            circuit: Arc::new(Circuit { activations: vec![None; nodes.len()], nodes, links }),
        }
    }

    #[test]
    fn a_head_is_drawn_once_at_each_position() {
        let marks = Marks::of(&graph());
        assert_eq!(marks.nodes, [vec![0], vec![1], vec![2, 3], vec![4], vec![5]]);
    }

    #[test]
    fn links_of_one_slot_and_sign_are_one_line_as_wide_as_the_largest() {
        let marks = Marks::of(&graph());
        let told: Vec<(usize, usize, Slot, bool, f64)> = marks
            .lines
            .iter()
            .map(|line| (line.from, line.to, line.slot, line.negative, line.share))
            .collect();
        assert_eq!(told.len(), 5);
        assert!(told.contains(&(2, 1, Slot::In, false, 0.5)));
        assert!(told.contains(&(4, 2, Slot::V, false, 0.125)));
        assert!(told.contains(&(4, 2, Slot::V, true, 0.125)));
        assert!(told.windows(2).all(|pair| pair[0].4 <= pair[1].4));
    }
}
