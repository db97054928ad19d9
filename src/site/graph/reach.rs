//! How much of the answer's effects passes through each node, along the links of the graph.

use crate::site::atlas::{Graph, NodeKind, Slot};

/// By node; the answer has 1. A receiver hands its own down to what enters it by their shares, a
/// head a third to each of its slots, so that nothing is made on the way. An order for the page
/// only: the method `influence` counts by all direct effects, not by links alone.
pub fn reach(graph: &Graph) -> Vec<f64> {
    let n = graph.nodes.len();
    let (mut reach, mut above, mut into) = (vec![0.0; n], vec![0usize; n], vec![Vec::new(); n]);
    for link in graph.links.iter() {
        above[link.from] += 1;
        into[link.to].push(link);
    }
    // A node's turn comes when all that it leads to had theirs.
    let mut ready: Vec<usize> = (0..n).filter(|&at| above[at] == 0).collect();
    while let Some(at) = ready.pop() {
        if graph.nodes[at].kind == NodeKind::Root {
            reach[at] = 1.0;
        }
        for link in &into[at] {
            let part = if link.slot == Slot::In { 1.0 } else { 1.0 / 3.0 };
            reach[link.from] += reach[at] * part * f64::from(link.share);
            above[link.from] -= 1;
            if above[link.from] == 0 {
                ready.push(link.from);
            }
        }
    }
    reach
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::atlas::{Link, Node};
    use std::sync::Arc;

    #[test]
    fn what_passes_is_the_product_of_shares_over_all_paths() {
        let node = |kind| Node {
            kind,
            layer: 0,
            position: 0,
            source: 0,
            head: 0,
            feature: None,
            activation: None,
        };
        let kinds =
            [NodeKind::Root, NodeKind::AttentionFeature, NodeKind::Head, NodeKind::Embedding];
        let link = |from, to, slot, share| Link { from, to, slot, effect: -1.0, share };
        let links = vec![
            link(3, 0, Slot::In, 0.25),
            link(3, 2, Slot::Q, 0.75),
            link(3, 2, Slot::V, 0.75),
            link(2, 1, Slot::In, 1.0),
            link(1, 0, Slot::In, 0.5),
        ];
        let graph = Graph {
            number: 0,
            tokens: vec![],
            correct: 0,
            difference: true,
            nodes: Arc::new(kinds.map(node).into()),
            links: Arc::new(links),
        };
        assert_eq!(reach(&graph), [1.0, 0.5, 0.5, 0.5]);
    }
}
