//! Circuits of one prompt: from the root back to what it is made of (DESIGN.md 4.5).
//!
//! `greedy` walks along what `candidates` ranks for each slot; several roots of one prompt share
//! these, as only the root's own links depend on what it reads. `influence` takes all direct
//! effects of a prompt at once.

mod candidates;
mod greedy;
mod influence;

pub use candidates::{Candidate, Candidates, allowable};
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
    Greedy { passes: usize, per_node: usize },
    /// The terms that hold `coverage` of the influence, at most `nodes` features and errors.
    Influence { coverage: f64, nodes: usize },
}

/// A circuit, and the share of the influence that its nodes do not hold; a greedy search does not
/// tell.
pub struct Found {
    pub graph: Graph,
    pub left_out: Option<f64>,
}

/// The circuit of a root.
///
/// # Errors
/// When a dictionary cannot be read.
pub fn grow(candidates: &mut Candidates, root: Root, method: Growth) -> Result<Found> {
    match method {
        Growth::Greedy { passes, per_node } => {
            Ok(Found { graph: greedy(candidates, root, passes, per_node)?, left_out: None })
        }
        Growth::Influence { coverage, nodes } => {
            influence::influence(candidates.attribution(), root, coverage, nodes, |kind| {
                candidates.allows(kind)
            })
        }
    }
}
