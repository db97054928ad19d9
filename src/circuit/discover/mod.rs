//! Circuits of one prompt: from the root back to what it is made of (`docs/definitions.md` §6).
//!
//! `greedy` walks along what `candidates` ranks for each slot; several roots of one prompt share
//! these, as only the root's own links depend on what it reads. `influence` takes all direct
//! effects of a prompt at once.

mod candidates;
mod greedy;
mod influence;

pub use candidates::Candidate;
pub use candidates::{Candidates, allowable};
pub use greedy::greedy;
pub use influence::{influences, influences_of_terms};

use super::attribution::Root;
use super::graph::Graph;
use crate::error::Result;

/// How a circuit grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Growth {
    /// `passes` walks from the root, each linking the best `per_node` contributors of a slot that
    /// are not linked yet.
    Greedy {
        /// Walks from the root.
        passes: usize,
        /// Contributors that a walk links in each slot.
        per_node: usize,
    },
    /// The terms that hold `coverage` of the influence, at most `nodes` features and errors.
    Influence {
        /// Share of the influence that kept terms are to hold, from 0 to 1.
        coverage: f64,
        /// Features and errors kept at most.
        nodes: usize,
    },
}

/// A circuit, and the share of the influence that its nodes do not hold; a greedy search does not
/// tell.
pub struct PrunedGraph {
    /// The circuit.
    pub graph: Graph,
    /// 1 − the share of the influence that its nodes hold; none of a greedy search.
    pub left_out: Option<f64>,
}

/// The circuit of a root.
///
/// # Errors
/// When a dictionary cannot be read.
pub fn grow(candidates: &mut Candidates, root: Root, method: Growth) -> Result<PrunedGraph> {
    match method {
        Growth::Greedy { passes, per_node } => {
            Ok(PrunedGraph { graph: greedy(candidates, root, passes, per_node)?, left_out: None })
        }
        Growth::Influence { coverage, nodes } => {
            influence::influence(candidates.attribution(), root, coverage, nodes, |kind| {
                candidates.allows(kind)
            })
        }
    }
}
