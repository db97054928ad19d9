//! Circuits: what a prompt's answer is made of, term by term, and which part of it carries the
//! task.
//!
//! `graph` names the nodes, `terms` are what the residual stream is the sum of
//! (`docs/definitions.md` §4), `attribution` gives every direct effect on a node (4.4), `discover`
//! walks back from the answer (4.5), `faithful` runs the model with everything else taken away
//! (4.6), `promote` reads features off the unembedding (4.8), `steer` adds them to the stream and
//! looks what rises, `similar` finds those that write alike, `heads` watches heads over prompts.
//! Knows nothing of tables.

mod attribution;
pub(crate) mod causes;
mod discover;
mod faithful;
pub mod gradient;
mod graph;
pub mod heads;
mod promote;
pub mod ranked;
mod similar;
mod steer;
mod terms;
mod replacement;

pub use attribution::{Attribution, Contributions, Root};
pub use discover::Candidate;
pub use discover::{
    Candidates, Growth, PrunedGraph, allowable, greedy, grow, influences, influences_of_terms,
};
pub(crate) use faithful::circuits_by_frequency;
pub use faithful::{
    Ablate, Case, Metric, answers, at_least, components, effects, everything, features,
    random_circuits,
};
pub use graph::PairCount;
pub use graph::{Edge, Graph, Node, pair_counts};
pub(crate) use promote::{Noise, lengths};
pub use promote::{
    Promoted, TopTokens, Weighted, Writers, promoted, promoted_logits, write_directions,
};
pub use replacement::{PROMPTS, Pass, ReplacementModel};
pub use similar::{Near, nearest};
pub use steer::Rise;
pub use steer::{Steered, steer};
pub use terms::Stream;
