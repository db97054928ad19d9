//! What the settings name by `hf:…`, downloaded and pinned.

use super::runner::{Hold, hold};
use crate::config::{Config, Snapshot};
use crate::error::Result;
use crate::hub;
use crate::lock::Lock;
use crate::progress::Progress;

/// The settings with what they name by `hf:…` downloaded, and pinned in the lock. Whoever calls it
/// holds the folder.
pub(super) fn fetched(config: &Config, update: bool) -> Result<Config> {
    let mut config = config.clone();
    if !config.uses_hub() {
        return Ok(config);
    }
    let folder = config.artifacts();
    let mut lock = Lock::load(&folder)?;
    let before = lock.hub.clone();
    let progress = Progress::new("download");
    let done = hub::fetch(&mut config, &mut lock.hub, update, &progress);
    progress.end();
    if lock.hub != before {
        lock.save(&folder)?;
    }
    done.map(|()| config)
}

/// The settings with what they name by `hf:…` where it is, downloaded already or not.
///
/// # Errors
/// When it cannot be had, or has to be and another run is using the artifact folder.
pub(crate) fn with_hub(config: &Config) -> Result<Config> {
    if let Ok(config) = downloaded(config) {
        return Ok(config);
    }
    let _held = hold(&config.artifacts(), Hold::Alone)?;
    fetched(config, false)
}

/// The settings with what they name by `hf:…` where it has been downloaded to. Never uses the
/// network.
pub(super) fn downloaded(config: &Config) -> Result<Config> {
    let mut config = config.clone();
    if config.uses_hub() {
        let pins = Lock::load(&config.artifacts())?.hub;
        hub::downloaded(&mut config, &pins)?;
    }
    Ok(config)
}

/// Downloads what the settings name by `hf:…`, and with `corpus` every file of the corpus too; with
/// `update`, revisions are pinned anew to what they stand for now. Where everything is then.
///
/// # Errors
/// When something cannot be had, or another run is using the artifact folder.
pub fn fetch(config: &Config, corpus: bool, update: bool) -> Result<Vec<Snapshot>> {
    if !config.uses_hub() {
        return Ok(Vec::new());
    }
    let _held = hold(&config.artifacts(), Hold::Alone)?;
    let config = fetched(config, update)?;
    let progress = Progress::new("download");
    if corpus {
        crate::inputs::corpus(&config, &progress)?.try_for_each(|shard| shard.map(drop))?;
    }
    progress.end();
    Ok(config.snapshots.into_values().collect())
}
