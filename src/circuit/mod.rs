//! Circuits: what a prompt's answer is made of, term by term, and which part of it carries the task.
//!
//! `graph` names the nodes, `attribution` gives every direct effect on a node (DESIGN.md 4.3, 4.4), `discover` walks back
//! from the answer (4.5), `faithful` runs the model with everything else taken away (4.6), `promote` reads features off the
//! unembedding (4.8). Knows nothing of tables.

mod attribution;
mod discover;
mod faithful;
mod graph;
mod promote;

pub use attribution::{Attribution, Contributions, Pass, Root, World};
pub use discover::{Candidate, Candidates, Flow, Found, Method, allowable, find, greedy, influence};
pub use faithful::{
    Ablated, Means, Metric, answers, circuits_by_frequency, components_at, keep_only, means, random_circuits, values,
};
pub use graph::{Bias, Edge, Graph, Node, NodeKind, PairCount, Slot, pair_counts};
pub use promote::{Promoted, Weighted, extremes, promoted, promoted_logits};
