//! Circuits of one prompt: from the root back to what it is made of (DESIGN.md 4.5).
//!
//! `candidates` ranks what may be linked to a slot; the methods, `greedy` and `influence`, choose among that. Several roots
//! of one prompt share their candidates, as only the root's own links depend on what it reads.

mod candidates;
mod greedy;
mod influence;

pub use candidates::{Candidate, Candidates, allowable};
pub use greedy::greedy;
pub use influence::{Flow, influence};

use super::attribution::Root;
use super::graph::Graph;
use crate::error::Result;

/// How a circuit grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// `passes` walks from the root, each linking the best `per_node` contributors of a slot that are not linked yet.
    Greedy { passes: usize, per_node: usize },
    /// The strongest node next, until `coverage` of the influence or `nodes` nodes are linked.
    Influence { coverage: f64, nodes: usize },
}

/// A circuit, and how much of the influence its method saw and left out; a greedy search does not tell.
pub struct Found {
    pub graph: Graph,
    pub left_out: Option<f64>,
}

/// The circuit of a root.
///
/// # Errors
/// When a dictionary cannot be read.
pub fn grow(candidates: &mut Candidates, root: Root, method: Method) -> Result<Found> {
    match method {
        Method::Greedy { passes, per_node } => {
            Ok(Found { graph: greedy(candidates, root, passes, per_node)?, left_out: None })
        }
        Method::Influence { coverage, nodes } => {
            let flow = influence(candidates, root, coverage, nodes)?;
            Ok(Found { left_out: Some(flow.left_out()), graph: flow.graph })
        }
    }
}
