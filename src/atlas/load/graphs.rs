//! The circuits of single prompts, from the rows of `nodes` and `edges`.

use crate::artifact::Store;
use crate::artifact::tables::{EdgeRow, NodeRow};
use crate::atlas::model::{Circuit, Link, Node};
use crate::error::{Result, hinted};
use crate::ids::NodeKind;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The circuit of each prompt that has one, by task and prompt.
pub(crate) type Circuits = BTreeMap<(String, u32), Arc<Circuit>>;

/// What to do about circuits that cannot be read.
const AGAIN: &str = "rerun with `circuit-atlas run discover --force`";

/// Reads all circuits; a circuit is there if it has a node.
///
/// # Errors
/// When the tables cannot be read, or a link names a node that is not there.
pub(crate) fn graphs(store: &Store) -> Result<Circuits> {
    let mut circuits: BTreeMap<(String, u32), Circuit> = BTreeMap::new();
    for row in store.read::<NodeRow>()? {
        let node = node(&row);
        let circuit = circuits.entry((row.task, row.prompt)).or_default();
        circuit.nodes.push(node);
        circuit.activations.push(row.activation);
    }
    for row in store.read::<EdgeRow>()? {
        let there = |of: &&mut Circuit| of.nodes.len() > row.from.max(row.to) as usize;
        let key = (row.task.clone(), row.prompt);
        let circuit = circuits.get_mut(&key).filter(there).ok_or_else(|| {
            hinted(
                format!(
                    "`edges` links a node that `nodes` lacks, in prompt {} of `{}`",
                    row.prompt, row.task
                ),
                AGAIN,
            )
        })?;
        circuit.links.push(link(&row));
    }
    Ok(circuits.into_iter().map(|(key, circuit)| (key, Arc::new(circuit))).collect())
}

pub(crate) fn node(row: &NodeRow) -> Node {
    Node {
        kind: row.kind,
        layer: row.layer,
        position: (row.kind != NodeKind::Root).then_some(row.position),
        source: row.source,
        head: row.head,
        feature: row.feature,
    }
}

fn link(row: &EdgeRow) -> Link {
    Link {
        from: row.from as usize,
        to: row.to as usize,
        slot: row.slot,
        effect: row.effect,
        share: row.share,
    }
}
