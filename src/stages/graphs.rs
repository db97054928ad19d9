//! The circuits of single prompts, from the rows of `nodes` and `edges` to plain graphs for the
//! site.

use super::inputs::{self, DISCOVER};
use crate::artifact::tables::{EdgeRow, NodeRow};
use crate::circuit::{self, Slot};
use crate::error::{Result, hinted};
use crate::site::atlas::{self, Link, Node};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Nodes and links of each circuit, by task and prompt.
pub type Graphs = BTreeMap<(String, u32), (Arc<Vec<Node>>, Arc<Vec<Link>>)>;

/// Sorts the rows by their circuits; a circuit is there if it has a node.
///
/// # Errors
/// When a word is unknown, or a link names a node that is not there.
pub fn graphs(nodes: Vec<NodeRow>, edges: Vec<EdgeRow>) -> Result<Graphs> {
    let mut graphs: BTreeMap<(String, u32), (Vec<Node>, Vec<Link>)> = BTreeMap::new();
    for row in nodes {
        let node = node(&row)?;
        graphs.entry((row.task, row.prompt)).or_default().0.push(node);
    }
    for row in edges {
        let there = |of: &(Vec<Node>, Vec<Link>)| of.0.len() > row.from.max(row.to) as usize;
        let place = (row.task.clone(), row.prompt);
        let graph = graphs.get_mut(&place).filter(|graph| there(graph)).ok_or_else(|| {
            hinted(
                format!(
                    "`edges` links a node that `nodes` lacks, in prompt {} of `{}`",
                    row.prompt, row.task
                ),
                DISCOVER,
            )
        })?;
        graph.1.push(link(&row)?);
    }
    Ok(graphs
        .into_iter()
        .map(|(key, (nodes, links))| (key, (Arc::new(nodes), Arc::new(links))))
        .collect())
}

fn node(row: &NodeRow) -> Result<Node> {
    let kind = kind(inputs::node(row)?.kind);
    let number = |x: Option<u32>| x.unwrap_or(0) as usize;
    Ok(Node {
        kind,
        layer: number(row.layer),
        position: row.position as usize,
        source: number(row.source),
        head: number(row.head),
        feature: row.feature.map(|feature| feature as usize),
        activation: row.activation,
    })
}

fn kind(kind: circuit::NodeKind) -> atlas::NodeKind {
    use circuit::NodeKind::*;
    match kind {
        Root => atlas::NodeKind::Root,
        AttentionFeature => atlas::NodeKind::AttentionFeature,
        MlpFeature => atlas::NodeKind::MlpFeature,
        Head => atlas::NodeKind::Head,
        AttentionError => atlas::NodeKind::AttentionError,
        MlpError => atlas::NodeKind::MlpError,
        Bias(_) => atlas::NodeKind::Bias,
        Embedding => atlas::NodeKind::Embedding,
        PositionEmbedding => atlas::NodeKind::PositionEmbedding,
    }
}

fn link(row: &EdgeRow) -> Result<Link> {
    let slot = match Slot::from_word(&row.slot) {
        Some(Slot::In) => atlas::Slot::In,
        Some(Slot::Q) => atlas::Slot::Q,
        Some(Slot::K) => atlas::Slot::K,
        Some(Slot::V) => atlas::Slot::V,
        None => {
            return Err(hinted(
                format!("`edges` holds a link of the unknown slot `{}`", row.slot),
                DISCOVER,
            ));
        }
    };
    Ok(Link {
        from: row.from as usize,
        to: row.to as usize,
        slot,
        effect: row.effect,
        share: row.share,
    })
}
