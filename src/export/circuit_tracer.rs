//! circuit-tracer: the graph of each prompt, and for each feature the file that fills the side panel
//! of its local viewer (`circuit_tracer.frontend.local_server`).

use super::{SPACE, cannot, make_folder, model, write_json};
use crate::atlas::model::{Atlas, Example, Feature, PromotedToken};
use crate::error::{Hint, Result};
use crate::format::number::counted;
use crate::ids::Band;
use crate::process;
use crate::site::{viewer_graphs, viewer_number};
use crate::stages::Run;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// Where the viewer looks for features, below the folder that it serves.
const FEATURES: &str = "features";

#[derive(Serialize)]
struct FeatureFile {
    /// Our name of it.
    name: String,
    explanation: String,
    top_logits: Vec<String>,
    bottom_logits: Vec<String>,
    act_min: f32,
    act_max: f32,
    activation_frequency: f64,
    /// 50 equal bins on (0, `act_max`].
    histogram: Vec<u64>,
    examples_quantiles: Vec<Quantile>,
}

#[derive(Serialize)]
struct Quantile {
    quantile_name: String,
    examples: Vec<QuantileExample>,
}

#[derive(Serialize)]
struct QuantileExample {
    tokens: Vec<String>,
    tokens_acts_list: Vec<f32>,
    train_token_ind: usize,
    is_repeated_datapoint: bool,
}

pub(super) fn write(run: &Run, into: &Path) -> Result<String> {
    let atlas = run.reader().atlas(run.order)?;
    let name = model(run);
    // A path that begins so is read from the viewer's own server.
    let scan = format!("./data/{FEATURES}/{name}");
    let graphs = viewer_graphs(&atlas, &scan)?;
    let mut listed: Vec<Value> = Vec::new();
    for (slug, text) in &graphs {
        process::check()?;
        let path = into.join(format!("{slug}.json"));
        std::fs::write(&path, text).hint(|| cannot("write", &path), SPACE)?;
        let graph: Value = serde_json::from_str(text)?;
        listed.push(graph["metadata"].clone());
    }
    write_json(&into.join("graph-metadata.json"), &json!({ "graphs": listed }))?;
    let folder = into.join(FEATURES).join(&name);
    make_folder(&folder)?;
    write_features(&atlas, &folder)?;
    let [graphs, features] = [(graphs.len(), "graph"), (atlas.features.len(), "feature")]
        .map(|(n, what)| counted(n, what));
    Ok(format!("{graphs} and {features}"))
}

fn write_features(atlas: &Atlas, folder: &Path) -> Result<()> {
    for feature in &atlas.features {
        let number = viewer_number(atlas, feature.id);
        write_json(&folder.join(format!("{number}.json")), &file(feature))?;
    }
    Ok(())
}

fn file(feature: &Feature) -> FeatureFile {
    let texts = |side: &[PromotedToken]| side.iter().map(|token| token.text.clone()).collect();
    let bands = feature.examples.chunk_by(|a, b| a.band == b.band);
    FeatureFile {
        name: feature.id.to_string(),
        explanation: feature.explanation.as_ref().map(|e| e.text.clone()).unwrap_or_default(),
        top_logits: texts(&feature.promoted),
        bottom_logits: texts(&feature.suppressed),
        act_min: 0.0,
        act_max: feature.max,
        activation_frequency: feature.density,
        histogram: feature.histogram.clone(),
        examples_quantiles: bands.map(quantile).collect(),
    }
}

fn quantile(band: &[Example]) -> Quantile {
    let quantile_name = match band[0].band {
        Band::Top => "Strongest examples".into(),
        Band::Tenth(tenth) => format!("Tenth {} of 10 of active contexts", tenth + 1),
        _ => "Inactive contexts".into(),
    };
    let example = |example: &Example| QuantileExample {
        tokens: example.pieces.iter().map(|piece| piece.text.clone()).collect(),
        tokens_acts_list: example.pieces.iter().map(|piece| piece.value).collect(),
        train_token_ind: example.peak,
        is_repeated_datapoint: false,
    };
    Quantile { quantile_name, examples: band.iter().map(example).collect() }
}
