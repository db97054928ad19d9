//! `influence`: a prompt's circuit as circuit-tracer defines it (`compute_node_influence` and
//! `prune_graph`, Ameisen, Lindsey et al. 2025), with attention features besides.
//!
//! Terms are the features that are active, what each dictionary misses, and the embedding (token
//! and position as one), at every position. Biases are none. Of the direct effects of all terms on
//! one receiver, a feature's pre-activation or the root, absolute values are taken and divided by
//! their sum. A term's *influence* is the sum over all paths from it to the root of the products of
//! these shares. Errors and embeddings receive nothing.
//!
//! `effects` has the products, `prune` what is kept. In our graphs a head stands between an
//! attention feature and what it reads, so a link into an attention feature is split by head. Which
//! parts are kept is decided as it is for links, a link's influence going to its parts by their
//! absolute values; else nearly every head would be in every circuit.

mod effects;
mod prune;

use super::PrunedGraph;
use crate::circuit::attribution::{Attribution, Root, share};
use crate::circuit::graph::{Edge, Graph, Node};
use crate::error::Result;
use crate::ids::FeatureId;
use crate::ids::{NodeKind, Slot};
use effects::Effects;
use prune::{EDGES, InfluenceEdge, threshold};
use std::collections::{BTreeMap, BTreeSet};

/// The influence of every term of a prompt on a root. An embedding stands for the token's and the
/// position's together.
///
/// # Errors
/// When a dictionary cannot be read.
pub fn influences_of_terms(attribution: &Attribution, root: Root) -> Result<BTreeMap<Node, f64>> {
    let effects = Effects::new(attribution)?;
    let influences = effects.influences(root)?;
    Ok(effects.nodes.into_iter().zip(influences).collect())
}

/// The influence of each active feature of a prompt on a root, summed over positions.
///
/// # Errors
/// When a dictionary cannot be read.
pub fn influences(attribution: &Attribution, root: Root) -> Result<BTreeMap<FeatureId, f64>> {
    let mut sums = BTreeMap::new();
    for (node, influence) in influences_of_terms(attribution, root)? {
        if let Some(feature) = node.dictionary_feature() {
            *sums.entry(feature).or_insert(0.0) += influence;
        }
    }
    Ok(sums)
}

/// The circuit of a root: the terms that hold `coverage` of the influence, at most `limit` features
/// and errors, with the links between them that hold most of theirs. Only nodes of `allowed` kinds
/// are in it.
///
/// # Errors
/// When a dictionary cannot be read.
pub(super) fn influence(
    attribution: &Attribution,
    root: Root,
    coverage: f64,
    limit: usize,
    allowed: impl Fn(NodeKind) -> bool,
) -> Result<PrunedGraph> {
    let effects = Effects::new(attribution)?;
    let influences = effects.influences(root)?;
    let kept = prune::terms(&effects.nodes, &influences, coverage, limit);
    let links = prune::links(effects.links(root, &kept)?, &effects.nodes);
    let links = among(links, &effects.nodes, allowed);
    let inside: BTreeSet<usize> = links.iter().map(|link| link.child).collect();
    let [inside, all] =
        [inside.iter().map(|&term| influences[term]).sum::<f64>(), influences.iter().sum()];
    let graph = Graph::of(edges(&effects, root, &links)?);
    Ok(PrunedGraph { graph, left_out: Some(if all > 0.0 { 1.0 - inside / all } else { 0.0 }) })
}

/// The links that can be drawn with nodes of these kinds, and of which one leads on to the root.
fn among(
    mut links: Vec<InfluenceEdge>,
    nodes: &[Node],
    allowed: impl Fn(NodeKind) -> bool,
) -> Vec<InfluenceEdge> {
    let drawn = |parent: usize| match nodes[parent].kind {
        NodeKind::AttentionFeature => {
            allowed(NodeKind::AttentionFeature) && allowed(NodeKind::Head)
        }
        kind => allowed(kind),
    };
    links.retain(|link| allowed(nodes[link.child].kind) && link.parent.is_none_or(drawn));
    loop {
        let before = links.len();
        let leading: BTreeSet<usize> = links.iter().map(|link| link.child).collect();
        links.retain(|link| link.parent.is_none_or(|parent| leading.contains(&parent)));
        if links.len() == before {
            return links;
        }
    }
}

/// The part of a link into an attention feature that goes through one head.
#[derive(Clone, Copy)]
struct Part {
    /// Of the link.
    number: usize,
    head: usize,
    effect: f32,
    /// Its part of the link's influence.
    influence: f64,
}

/// The edges of the graph: those of one receiver after each other, a head's right after its link to
/// the feature.
fn edges(effects: &Effects, root: Root, links: &[InfluenceEdge]) -> Result<Vec<Edge>> {
    let mut parts: BTreeMap<Option<usize>, Vec<Part>> = BTreeMap::new();
    for part in strongest(effects, split(effects, links)?) {
        parts.entry(links[part.number].parent).or_default().push(part);
    }
    let mut edges = Vec::with_capacity(links.len());
    for of_one in links.chunk_by(|a, b| a.parent == b.parent) {
        let parent = of_one[0].parent;
        let node = parent.map_or(Node::ROOT, |parent| effects.nodes[parent]);
        if node.kind == NodeKind::AttentionFeature {
            edges.extend(through_heads(
                effects,
                node,
                links,
                parts.get(&parent).map_or(&[], Vec::as_slice),
            )?);
            continue;
        }
        let whole = match node.kind {
            NodeKind::Root => effects.attribution.on_root(root)?.whole(),
            _ => effects.attribution.contributions(&node, Slot::In)?.whole(),
        };
        edges.extend(of_one.iter().map(|link| {
            let (child, effect) = (effects.nodes[link.child], link.effect);
            Edge { child, parent: node, slot: Slot::In, effect, share: share(effect, whole) }
        }));
    }
    Ok(edges)
}

/// The heads between an attention feature and what it reads, with both sides of each.
fn through_heads(
    effects: &Effects,
    feature: Node,
    links: &[InfluenceEdge],
    parts: &[Part],
) -> Result<Vec<Edge>> {
    let child = |part: &Part| effects.nodes[links[part.number].child];
    let mut values: BTreeMap<Node, Vec<&Part>> = BTreeMap::new();
    for part in parts {
        values.entry(feature.through(part.head, child(part).position())).or_default().push(part);
    }
    let all = effects.attribution.contributions(&feature, Slot::In)?;
    let whole = all.whole();
    let mut edges = Vec::with_capacity(values.len() + parts.len());
    for (head, &effect) in all.nodes.iter().zip(&all.effects) {
        let Some(parts) = values.get(head) else { continue };
        edges.push(Edge {
            child: *head,
            parent: feature,
            slot: Slot::In,
            effect,
            share: share(effect, whole),
        });
        let whole = effects.attribution.contributions(head, Slot::V)?.whole();
        edges.extend(parts.iter().map(|part| {
            let share = share(part.effect, whole);
            Edge { child: child(part), parent: *head, slot: Slot::V, effect: part.effect, share }
        }));
    }
    Ok(edges)
}

/// The parts of all links into attention features, one of each head for each link.
fn split(effects: &Effects, links: &[InfluenceEdge]) -> Result<Vec<Part>> {
    let source = |link: &InfluenceEdge| effects.nodes[link.child].position;
    let (mut parts, mut number) = (Vec::new(), 0);
    for together in links.chunk_by(|a, b| a.parent == b.parent && source(a) == source(b)) {
        let feature = together[0]
            .parent
            .filter(|&parent| effects.nodes[parent].kind == NodeKind::AttentionFeature);
        if let Some(feature) = feature {
            let children: Vec<usize> = together.iter().map(|link| link.child).collect();
            let by_head = effects.by_head(feature, &children)?;
            for (i, link) in together.iter().enumerate() {
                let whole: f64 = by_head.iter().map(|row| f64::from(row[i].abs())).sum();
                parts.extend(by_head.iter().enumerate().map(|(head, row)| {
                    let influence = link.influence * f64::from(share(row[i], whole));
                    Part { number: number + i, head, effect: row[i], influence }
                }));
            }
        }
        number += together.len();
    }
    Ok(parts)
}

/// The parts that hold [`EDGES`] of the influence of all, and the largest of each link.
fn strongest(effects: &Effects, parts: Vec<Part>) -> impl Iterator<Item = Part> {
    let least = threshold(parts.iter().map(|part| part.influence), EDGES);
    let heads = effects.attribution.replacement().model.sizes.heads;
    let of_link = move |parts: &[Part]| {
        let least = parts.iter().map(|part| part.influence).fold(0.0, f64::max).min(least);
        parts
            .iter()
            .copied()
            .filter(|part| part.effect != 0.0 && part.influence >= least)
            .collect::<Vec<_>>()
    };
    parts.chunks(heads).map(of_link).collect::<Vec<_>>().into_iter().flatten()
}
