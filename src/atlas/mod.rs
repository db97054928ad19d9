//! A finished run: what its tables say, as plain values.
//!
//! `model` has the values: tasks, graphs of prompts, components, heads, features, explanations and
//! their scores. `load` puts them together from the tables, and reads a table when something asks
//! for it. Pages, `show` and `interpret` take their answers from here; `answers` are those that are also
//! given as JSON. `verdict` says in words
//! whether an explanation beats its baselines.

pub(crate) mod answers;
#[cfg(test)]
pub(crate) mod fixture;
mod load;
pub(crate) mod model;
mod pairs;
pub(crate) mod verdict;

pub(crate) use load::WhyTables;
pub(crate) use load::{
    Circuits, Heads, Promoting, Reader, activations, cause_group, cause_in_words, graphs,
    model_name, node, scores, sources, without_page,
};
pub(crate) use pairs::strongest;
