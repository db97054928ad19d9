//! What can be told from the settings and the sizes of the model alone, before anything runs.

use super::{published, sizes, sources};
use crate::circuit::allowable;
use crate::config::Config;
use crate::error::{Result, hinted};
use crate::ids::FeatureId;
use std::collections::{BTreeMap, BTreeSet};

/// What can be told from the settings and the sizes of the model alone, before anything runs; with
/// `dictionaries`, from their sizes too.
///
/// # Errors
/// When contexts are longer than the model allows, or settings name a feature that its dictionary
/// does not have.
pub fn check(config: &Config, dictionaries: bool) -> Result<()> {
    let (context, positions) = (config.corpus.context, sizes(config)?.positions);
    if context > positions {
        return Err(hinted(
            format!("`corpus.context = {context}` is more than the model's {positions} positions"),
            format!("set `corpus.context` to {positions} or less"),
        ));
    }
    let allowable = allowable();
    if let Some(kind) =
        config.discover.allow.iter().find(|kind| !allowable.contains(&kind.as_str()))
    {
        let hint = format!("`discover.allow` may hold {}", allowable.join(", "));
        return Err(hinted(
            format!("`discover.allow` has `{kind}`, which is not a kind of node"),
            hint,
        ));
    }
    config.tasks.iter().try_for_each(|task| published(config, task).map(drop))?;
    if dictionaries { check_named(config, &config.named_features()) } else { Ok(()) }
}

fn check_named(config: &Config, named: &BTreeSet<FeatureId>) -> Result<()> {
    if named.is_empty() {
        return Ok(());
    }
    let widths: BTreeMap<_, _> = sources(config)?
        .iter()
        .map(|source| Ok((source.id, source.width()?)))
        .collect::<Result<_>>()?;
    for feature in named {
        let width = widths.get(&feature.dictionary).copied().unwrap_or(0);
        if feature.index >= width {
            return Err(hinted(
                format!(
                    "`{feature}` does not exist: `{}` has {width} features",
                    feature.dictionary
                ),
                "correct `score.extra` or `groups.features`; features are counted from 0",
            ));
        }
    }
    Ok(())
}
