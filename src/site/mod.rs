//! The website: an [`Atlas`](crate::atlas::model::Atlas) becomes a folder of static pages that need
//! no server, no network and no JavaScript; or one prompt a page by itself.
//!
//! Knows neither tables, tensors nor settings, and nothing of publishing: it writes files into an
//! empty folder, and its `manifest` tells which files of a folder it wrote. Every text that it is
//! given is hostile until escaped, by the templates or by `text`.

mod appearances;
mod attention;
mod build;
mod chart;
mod circuit;
mod crawlers;
mod data;
mod foreign;
mod graph;
mod graph_json;
mod hashes;
mod layout;
mod links;
mod lists;
pub(crate) mod manifest;
mod policy;
mod scatter;
mod social;
mod svg;
#[cfg(test)]
mod tests;
mod text;
mod viewer;
mod views;
mod widths;

pub(crate) use build::{build, json_alone, page_alone};
pub(crate) use viewer::{viewer_graphs, viewer_number};
