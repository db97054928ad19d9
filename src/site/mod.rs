//! The website: an [`Atlas`] becomes a folder of static pages that need no server, no network and
//! no JavaScript.
//!
//! Knows neither tables, tensors nor settings, and nothing of publishing: it writes files into an
//! empty folder, and tells (`ours`) which files of a folder it wrote. Every text that it is given
//! is hostile until escaped, by the templates or by `text`.

pub mod atlas;
mod build;
mod chart;
mod graph;
pub mod head;
mod links;
pub mod number;
pub mod ours;
mod scatter;
mod svg;
pub mod text;
pub mod verdict;
mod views;
pub mod written;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use atlas::Atlas;
pub use build::build;
pub use number::count;
