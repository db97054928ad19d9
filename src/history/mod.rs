//! Earlier runs: what is kept of each, and what changed from one to the next.
//!
//! `kept` holds the small tables of finished runs in `runs/` of the artifact folder, by hard links;
//! `facts` reads from them what is compared, `diff` compares two.

mod diff;
mod facts;
mod kept;

pub(crate) use diff::{Change, Changes, Of, changes_between};
pub(crate) use kept::{About, Kept, about_now, keep, kept, remove_all};

use crate::artifact::Store;
use crate::error::{Result, hinted};
use crate::lock::Lock;
use facts::Facts;

/// The tables that are in the artifact folder now, as a run.
pub(crate) const NOW: &str = "now";
/// The run that was published last.
const LATEST: &str = "latest";

/// What the kept runs say, one after the other, and what the tables of `store` would add as the next
/// one. The newest first. Runs whose tables this version cannot read are passed over.
///
/// # Errors
/// When the tables of now cannot be read.
pub(crate) fn history(store: &Store, lock: &Lock) -> Result<Vec<Changes>> {
    let mut kept = kept(store.root())?;
    let now = about_now(store, lock, &kept)?;
    // The newest may be of these tables.
    kept.pop_if(|run| run.about.name == now.name);
    let mut runs: Vec<(About, Facts)> = Vec::new();
    for run in kept {
        if let Ok(facts) = Facts::read(&run.store()) {
            runs.push((run.about, facts));
        }
    }
    runs.push((now, Facts::read(store)?));
    let mut all: Vec<Changes> =
        runs.windows(2).map(|two| diff::between(&two[0], &two[1])).collect();
    all.reverse();
    Ok(all)
}

/// A run by its name, or the beginning of it; `now` for the tables in the artifact folder.
///
/// # Errors
/// When there is none, or more than one.
pub(crate) fn find(runs: &[Kept], name: &str) -> Result<Option<Kept>> {
    if name == NOW {
        return Ok(None);
    }
    if name == LATEST
        && let Some(newest) = runs.last()
    {
        return Ok(Some(newest.clone()));
    }
    let mut found = runs.iter().filter(|run| run.about.name.starts_with(name));
    let exact = runs.iter().find(|run| run.about.name == name);
    let names: Vec<String> = runs.iter().map(|run| format!("`{}`", run.about.name)).collect();
    let hint = match names.is_empty() {
        true => "a run is kept when it has been published; `output.keep` says how many".into(),
        false => format!(
            "kept are {}, and `{NOW}` is the tables in the artifact folder",
            names.join(", ")
        ),
    };
    match (exact.or_else(|| found.next()), found.next()) {
        (Some(run), second) if exact.is_some() || second.is_none() => Ok(Some(run.clone())),
        (Some(_), _) => Err(hinted(format!("`{name}` is the beginning of several runs"), hint)),
        (None, _) => Err(hinted(format!("no run `{name}` is kept"), hint)),
    }
}
