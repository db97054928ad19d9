//! What the settings name, opened: the model, its dictionaries, the corpus, prompts.
//!
//! `files` says which files these are, `check` what can be told before a run. Knows settings and
//! tables, no stage.

mod apart;
mod check;
mod corpus;
mod documents;
mod files;
mod model_check;
mod open;
mod prompts;
mod texts;

pub use apart::check_apart;
pub use check::check;
pub(crate) use corpus::no_context;
pub use corpus::{Contexts, corpus, counting};
pub(crate) use documents::{Documents, Encoded, cut, how, poor_halves};
pub use files::Input;
pub(crate) use files::{changed_since, imported, published_from};
pub(crate) use model_check::check_model;
pub(crate) use open::{about, check_converted, some_dictionaries, without_row};
pub use open::{dictionaries, model, replacement_model, sizes, sources, tokenizer};
pub(crate) use prompts::Metrics;
pub use prompts::{growth, prompts, published, root};
pub(crate) use texts::Texts;

use crate::artifact::activations::Precision;
use crate::artifact::tables::CircuitFeature;
use crate::config::{Config, Dtype, ScoreFeatures};
use crate::error::Result;
use crate::ids::{FeatureId, NodeKind};
use std::collections::{BTreeMap, BTreeSet};

/// Rows by a key of theirs.
pub fn by<K: Ord, R>(rows: Vec<R>, key: impl Fn(&R) -> K) -> BTreeMap<K, Vec<R>> {
    let mut map: BTreeMap<K, Vec<R>> = BTreeMap::new();
    rows.into_iter().for_each(|row| map.entry(key(&row)).or_default().push(row));
    map
}

/// The features that have pages, explanations and pairs: those of circuits, if the settings want
/// them, and those that the settings name.
pub(crate) fn features_with_page(
    config: &Config,
    circuit: &[CircuitFeature],
) -> BTreeSet<FeatureId> {
    let mut features: BTreeSet<FeatureId> = config.named_features();
    if config.score.features != ScoreFeatures::None {
        features.extend(circuit.iter().map(|row| row.feature));
    }
    features
}

/// The number of features of all dictionaries.
pub(crate) fn every_feature(config: &Config) -> Result<usize> {
    sources(config)?.iter().map(|source| source.width()).sum()
}

/// The features that are scored, in order; a feature's place is its key.
///
/// # Errors
/// When all are, and a dictionary cannot be read.
pub(crate) fn scored_features(
    config: &Config,
    circuit: &[CircuitFeature],
) -> Result<Vec<FeatureId>> {
    if config.score.features != ScoreFeatures::All {
        return Ok(features_with_page(config, circuit).into_iter().collect());
    }
    let mut features = Vec::new();
    for source in sources(config)? {
        let dictionary = source.id;
        features.extend((0..source.width()?).map(|index| FeatureId { dictionary, index }));
    }
    Ok(features)
}

/// What is said of settings with which the atlas will have no features.
pub(crate) fn without_features(config: &Config) -> Option<String> {
    let discover = &config.discover;
    if config.score.features == ScoreFeatures::None && config.named_features().is_empty() {
        return Some(
            "no feature is scored: `score.features` is `none`, and neither `score.extra` nor a \
             group names one; the site has no page of a feature"
                .into(),
        );
    }
    let grows = growth(discover, discover.method).is_some();
    let kinds = [NodeKind::AttentionFeature, NodeKind::MlpFeature].map(|kind| kind.to_string());
    (grows && !kinds.iter().any(|kind| discover.allow.contains(kind))).then(|| {
        format!(
            "`discover.allow` has no kind of feature ({}): circuits have none",
            kinds.join(", ")
        )
    })
}

/// How activations are kept.
pub fn precision(config: &Config) -> Precision {
    match config.cache.dtype {
        Dtype::F32 => Precision::F32,
        Dtype::F16 => Precision::F16,
    }
}

/// What the disk cache of some hooks takes, in GiB.
pub(crate) fn cache_gib(config: &Config, tokens: usize, hooks: usize, width: usize) -> f64 {
    (tokens * hooks * width * precision(config).bytes()) as f64 / (1u64 << 30) as f64
}

/// What to do about circuits that cannot be read.
pub(crate) const DISCOVER: &str = "rerun with `circuit-atlas run discover --force`";
