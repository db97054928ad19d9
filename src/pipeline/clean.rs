//! Removes what stages wrote.

use super::plan::{Selection, Workplace};
use super::runner::{Hold, hold};
use super::table::{STAGES, Stage};
use crate::artifact::Store;
use crate::artifact::tables::ASKED;
use crate::config::Config;
use crate::error::Result;
use crate::history::{kept, remove_all};
use crate::lock::Lock;
use crate::process;

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
    let _held = hold(&config.artifacts(), Hold::Alone)?;
    Lock::remove_unfinished(&config.artifacts())?;
    let mut place = Workplace::open(config)?;
    let (mut cleaned, mut said): (Vec<&Stage>, Vec<Cleaned>) = Default::default();
    for each in &STAGES {
        let named = stage.is_none_or(|name| name == each.name);
        if !named && !cleaned.iter().any(|before| each.reads_from(before)) {
            continue;
        }
        let left = place.remove(each)?.into_iter().map(|name| format!("`{name}`"));
        let left: Vec<String> = left.collect();
        let folder = &config.output.artifacts;
        let not_ours = || format!("left in `{folder}`, as this program did not write it: ");
        let tables = (!left.is_empty()).then(|| not_ours() + &left.join(", "));
        // What is published stays until it is replaced, or named itself.
        let besides = each.writes_besides.as_ref().map(|besides| match named {
            true => (besides.remove)(config),
            false => Ok((besides.kept)(config)),
        });
        let all: Vec<String> = tables.into_iter().chain(besides.transpose()?.flatten()).collect();
        let left = (!all.is_empty()).then(|| all.join("; "));
        place.lock.stages.remove(each.name);
        cleaned.push(each);
        said.push(Cleaned { stage: each.name, left });
    }
    if cleaned.iter().any(|stage| stage.name == "measure") {
        ASKED.iter().try_for_each(|kept| place.store.remove(kept).map(drop))?;
    }
    // In a folder of the settings they may be of other runs too.
    match config.output.dictionaries.as_str() {
        "" if stage.is_none() => crate::dictionary::clear(&config.converted())?,
        shared if stage.is_none() => {
            let why = "as other runs may use it: converted dictionaries";
            process::note(format!("left in `{shared}`, {why}"));
        }
        _ => {}
    }
    place.lock.save(place.store.root())?;
    if stage.is_none() && !kept(place.store.root())?.is_empty() {
        process::note("left: the kept runs; `circuit-atlas clean --runs` removes them");
    }
    Ok(said)
}

/// Removes the kept runs, and says how many there were.
///
/// # Errors
/// When one cannot be removed, or another run is using the artifact folder.
pub fn clean_runs(config: &Config) -> Result<usize> {
    if !config.artifacts().exists() {
        return Ok(0);
    }
    let _held = hold(&config.artifacts(), Hold::Alone)?;
    remove_all(&Store::new(&config.artifacts()))
}
