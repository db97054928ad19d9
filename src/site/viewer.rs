//! The graphs of an atlas for circuit-tracer's viewer, which knows transcoders alone: features of
//! attention are numbered behind those of the transcoder of their layer.

use super::graph_json::{self, Widths};
use super::links::Site;
use super::views::drawn;
use crate::atlas::model::Atlas;
use crate::error::Result;
use crate::ids::{FeatureId, Kind};
use rayon::prelude::*;

/// The graph of each prompt, behind its slug; `scan` is where the viewer finds the files of features.
///
/// # Errors
/// When a task has a name that cannot be a file's.
pub(crate) fn viewer_graphs(atlas: &Atlas, scan: &str) -> Result<Vec<(String, String)>> {
    let site = Site::new(atlas)?;
    let widths = widths(atlas);
    let all: Vec<_> = atlas.tasks.iter().flat_map(drawn).collect();
    let graph = |one: &super::views::Drawn| {
        let slug = format!("{}-{}", one.task.name, one.graph.number);
        (slug, one.for_viewer(&site, scan, &widths))
    };
    Ok(all.par_iter().map(graph).collect())
}

/// The number of a feature in these graphs.
pub(crate) fn viewer_number(atlas: &Atlas, feature: FeatureId) -> i64 {
    graph_json::viewer_number(&widths(atlas), feature)
}

fn widths(atlas: &Atlas) -> Widths {
    let own = atlas.conformance.iter().filter(|fit| fit.dictionary.kind == Kind::Mlp);
    own.map(|fit| (fit.dictionary.layer, fit.width)).collect()
}
