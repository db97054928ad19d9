//! Circuits: what a prompt's answer is made of, term by term, and which part of it carries the
//! task.
//!
//! `graph` names the nodes, `terms` are what the residual stream is the sum of (DESIGN.md 4.3),
//! `attribution` gives every direct effect on a node (4.4), `discover` walks back from the answer
//! (4.5), `faithful` runs the model with everything else taken away (4.6), `promote` reads features
//! off the unembedding (4.8), `steer` adds them to the stream and looks what rises, `similar` finds
//! those that write alike, `heads` watches heads over prompts. Knows nothing of tables.

mod attribution;
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
pub use discover::{
    Candidate, Candidates, Found, Growth, allowable, greedy, grow, influences, influences_of_terms,
};
pub use faithful::{
    Ablate, Case, Metric, answers, at_least, circuits_by_frequency, components, effects,
    everything, features, random_circuits,
};
pub use graph::{Edge, Graph, Node, PairCount, pair_counts};
pub use promote::{Promoted, Weighted, extremes, promoted, promoted_logits, write_directions};
pub use replacement::{PROMPTS, Pass, ReplacementModel};
pub use similar::nearest;
pub use steer::{Rise, Steered, steer};
pub use terms::Stream;
