//! Removes what stages wrote.

use super::plan::{Selection, Workplace};
use super::runner::hold;
use super::table::{STAGES, Stage};
use crate::config::Config;
use crate::error::Result;

/// A stage whose work was removed.
pub struct Cleaned {
    /// The stage's name.
    pub stage: &'static str,
    /// What was left among it, as others wrote it; in words.
    pub left: Option<String>,
}

/// Removes what a stage wrote and what is made from it; with none, everything that the pipeline
/// wrote.
///
/// # Errors
/// When `stage` is not one, or something cannot be removed.
pub fn clean(config: &Config, stage: Option<&str>) -> Result<Vec<Cleaned>> {
    let selection = Selection { from: stage.map(String::from), ..Selection::default() };
    selection.check()?;
    if !config.artifacts().exists() {
        return Ok(Vec::new());
    }
    let _held = hold(&config.artifacts())?;
    let mut place = Workplace::open(config)?;
    let (mut cleaned, mut said): (Vec<&Stage>, Vec<Cleaned>) = Default::default();
    for each in &STAGES {
        let named = stage.is_none_or(|name| name == each.name);
        if !named && !cleaned.iter().any(|before| each.reads_from(before)) {
            continue;
        }
        each.writes.iter().try_for_each(|artifact| place.store.remove(artifact))?;
        let left = each
            .writes_besides
            .as_ref()
            .map(|besides| (besides.remove)(config))
            .transpose()?
            .flatten();
        place.lock.stages.remove(each.name);
        cleaned.push(each);
        said.push(Cleaned { stage: each.name, left });
    }
    if stage.is_none() {
        crate::dictionary::clear(&config.converted())?;
    }
    place.lock.save(place.store.root())?;
    Ok(said)
}
