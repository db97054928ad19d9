//! Which terms and links are kept: `prune_graph` of circuit-tracer, step by step.

use crate::circuit::graph::Node;
use crate::ids::NodeKind;
use std::collections::BTreeSet;

/// How much of the influence of links is kept, as circuit-tracer has it.
pub(super) const EDGES: f64 = 0.98;

/// A direct effect of a term on a feature or the root.
#[derive(Clone, Copy)]
pub(super) struct InfluenceEdge {
    pub child: usize,
    /// None for the root.
    pub parent: Option<usize>,
    pub effect: f32,
    /// The influence of the receiver times the effect's share of all on it.
    pub influence: f64,
}

/// The smallest of the largest scores that hold this share of their sum.
pub(super) fn threshold(scores: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut scores: Vec<f64> = scores.collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    let (all, mut sum) = (scores.iter().sum::<f64>(), 0.0);
    let reaching = scores.iter().find(|score| {
        sum += **score;
        sum >= share * all
    });
    reaching.or(scores.last()).copied().unwrap_or(0.0)
}

/// The terms that hold `coverage` of the influence, of features and errors the `limit` with the
/// most, and all embeddings.
pub(super) fn terms(nodes: &[Node], influences: &[f64], coverage: f64, limit: usize) -> Vec<bool> {
    let least = threshold(influences.iter().copied(), coverage);
    let embedding = |term: usize| nodes[term].kind == NodeKind::Embedding;
    let mut best: Vec<usize> =
        (0..nodes.len()).filter(|&term| !embedding(term) && influences[term] >= least).collect();
    best.sort_by(|&a, &b| influences[b].total_cmp(&influences[a]).then(nodes[a].cmp(&nodes[b])));
    best.truncate(limit);
    let mut kept: Vec<bool> = (0..nodes.len()).map(embedding).collect();
    best.into_iter().for_each(|term| kept[term] = true);
    kept
}

/// Of the links among the kept terms, those that hold [`EDGES`] of the influence that flows among
/// these alone; without features and errors that lead nowhere then, and features that nothing leads
/// to. Links are ordered by receiver, the latest first.
pub(super) fn links(mut links: Vec<InfluenceEdge>, nodes: &[Node]) -> Vec<InfluenceEdge> {
    let mut influences = vec![0.0; nodes.len()];
    for on_one in links.chunk_by_mut(|a, b| a.parent == b.parent) {
        let own = on_one[0].parent.map_or(1.0, |parent| influences[parent]);
        let whole: f64 = on_one.iter().map(|link| f64::from(link.effect.abs())).sum();
        for link in on_one {
            link.influence = own * f64::from(link.effect.abs()) / whole;
            influences[link.child] += link.influence;
        }
    }
    let least = threshold(links.iter().map(|link| link.influence), EDGES);
    links.retain(|link| link.influence >= least);
    loop {
        let before = links.len();
        let leading: BTreeSet<usize> = links.iter().map(|link| link.child).collect();
        let reached: BTreeSet<usize> = links.iter().filter_map(|link| link.parent).collect();
        let receives = |term: usize| nodes[term].dictionary_feature().is_some();
        links.retain(|link| {
            (!receives(link.child) || reached.contains(&link.child))
                && link.parent.is_none_or(|parent| leading.contains(&parent))
        });
        if links.len() == before {
            return links;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Kind;

    #[test]
    fn scores_are_kept_until_they_hold_the_share() {
        let scores = [0.125, 0.5, 0.125, 0.25];
        for (share, least) in
            [(0.25, 0.5), (0.5, 0.5), (0.625, 0.25), (0.75, 0.25), (0.875, 0.125), (1.0, 0.125)]
        {
            assert_eq!(threshold(scores.into_iter(), share), least, "{share}");
        }
        assert_eq!(threshold([].into_iter(), 0.5), 0.0);
    }

    /// Nothing leads to the lower feature, so it goes, then the one that reads from it alone; the
    /// error stays.
    #[test]
    fn what_nothing_leads_to_goes_with_all_that_depends_on_it() {
        let feature = |layer| Node::feature(Kind::Mlp, layer, 0, 0);
        let nodes = [
            Node::embedding(NodeKind::Embedding, 0),
            feature(0),
            Node::at(NodeKind::MlpError, 0, 0),
            feature(1),
            Node::at(NodeKind::MlpError, 1, 0),
        ];
        let link = |child, parent, effect| InfluenceEdge { child, parent, effect, influence: 0.0 };
        let mut among = vec![link(3, None, 1.0), link(4, None, -0.5), link(1, Some(3), 1.0)];
        let names = |links: Vec<InfluenceEdge>| {
            links.iter().map(|link| (link.child, link.parent)).collect::<Vec<_>>()
        };
        assert_eq!(names(links(among.clone(), &nodes)), [(4, None)]);
        among.push(link(0, Some(1), 0.5));
        assert_eq!(names(links(among, &nodes)), [(3, None), (4, None), (1, Some(3)), (0, Some(1))]);
    }

    /// Of what leads to the root a thousandth is too weak, and what leads only to that goes with
    /// it.
    #[test]
    fn a_feature_that_leads_nowhere_goes_with_what_leads_to_it() {
        let nodes = [Node::embedding(NodeKind::Embedding, 0), Node::feature(Kind::Mlp, 0, 0, 0)];
        let link = |child, parent, effect| InfluenceEdge { child, parent, effect, influence: 0.0 };
        let among = vec![link(1, None, 0.001), link(0, None, 0.999), link(0, Some(1), 1.0)];
        let left = links(among, &nodes);
        assert_eq!(
            left.iter().map(|link| (link.child, link.parent)).collect::<Vec<_>>(),
            [(0, None)]
        );
    }
}
