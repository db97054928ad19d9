//! `diff`: what changed from one published run to another.

use super::page::say_labelled;
use crate::artifact::Store;
use crate::config::Config;
use crate::error::{Result, hinted};
use crate::format::number::counted;
use crate::format::text::harmless_json;
use crate::history::{Changes, Kept, Of, about_now, changes_between, find, kept};
use crate::lock::Lock;
use crate::process;
use serde_json::json;

/// Changes of a kind that are printed; `--json` has all.
const PRINTED: usize = 50;

/// Prints what changed.
///
/// # Errors
/// When a run is not kept, or a table cannot be read.
pub(crate) fn diff(
    config: &Config,
    before: Option<&str>,
    after: Option<&str>,
    json: bool,
) -> Result<()> {
    let folder = config.artifacts();
    let runs = kept(&folder)?;
    let before = before.map(|name| find(&runs, name)).transpose()?;
    let after = match after {
        Some(name) => find(&runs, name)?,
        None => Some(newest(&runs)?),
    };
    let before = match before {
        Some(run) => run,
        None => Some(one_before(&runs, after.as_ref())?),
    };
    let (store, lock) = (Store::new(&folder), Lock::load(&folder)?);
    let now = match before.is_none() || after.is_none() {
        true => about_now(&store, &lock, &runs)?,
        false => Default::default(),
    };
    let changes = changes_between(before.as_ref(), after.as_ref(), (&now, &store))?;
    match json {
        true => process::say(harmless_json(&serde_json::to_string_pretty(&changes)?)),
        false => print(&changes),
    }
    Ok(())
}

fn newest(runs: &[Kept]) -> Result<Kept> {
    runs.last().cloned().ok_or_else(too_few)
}

/// The run before another one; before the tables of now the newest.
fn one_before(runs: &[Kept], after: Option<&Kept>) -> Result<Kept> {
    let Some(after) = after else { return newest(runs) };
    let at = runs.iter().position(|run| run.about.name == after.about.name);
    at.and_then(|at| at.checked_sub(1)).map(|at| runs[at].clone()).ok_or_else(too_few)
}

fn too_few() -> anyhow::Error {
    hinted(
        "there is no earlier run to compare with",
        "a run is kept when its site is published and a table changed; `output.keep` says how \
         many, `circuit-atlas diff latest now` compares with the tables in the artifact folder",
    )
}

fn print(changes: &Changes) {
    let Changes { before, after, causes, counts, .. } = changes;
    process::say(format_args!(
        "{} ({}) → {} ({})",
        before.name, before.when, after.name, after.when
    ));
    causes.iter().for_each(|cause| say_labelled("  because: ", cause));
    for (of, compared, changed) in counts {
        process::say(format_args!("\n{}: {changed} of {compared} changed", of.title()));
        let own = || changes.changes.iter().filter(|change| change.of == *of);
        for change in own().take(PRINTED) {
            let of_task = match &change.task {
                Some(task) if *task != change.name => format!(" in {task}"),
                _ => String::new(),
            };
            let head = format!("{}{of_task}", change.name);
            match (&change.before, &change.after) {
                (Some(before), Some(after)) if change.of == Of::Explanation => {
                    say_labelled("  ", &head);
                    say_labelled("    was  ", before);
                    say_labelled("    is   ", after);
                }
                (Some(before), Some(after)) => {
                    say_labelled("  ", &format!("{head}: {} {before} → {after}", change.what));
                }
                (before, after) => {
                    let value = before.iter().chain(after).map(|value| format!(" ({value})"));
                    let value: String = value.collect();
                    say_labelled("  ", &format!("{head}: {}{value}", change.what));
                }
            }
        }
        let more = own().count().saturating_sub(PRINTED);
        if more > 0 {
            process::say(format_args!("  and {more} more (`--json` has all)"));
        }
    }
}

/// Prints the names of the runs that are kept, the oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn kept_runs(config: &Config, json: bool) -> Result<()> {
    let runs = kept(&config.artifacts())?;
    if json {
        let one = |run: &Kept| json!({ "name": run.about.name, "when": run.about.when, "program": run.about.program });
        let all: Vec<_> = runs.iter().map(one).collect();
        process::say(serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    for run in &runs {
        let of = run.about.summaries.get("tokenize").map(String::as_str).unwrap_or_default();
        say_labelled(&format!("{}  {}  ", run.about.name, run.about.when), of);
    }
    process::note(format_args!(
        "{} in `{}/runs`",
        counted(runs.len(), "kept run"),
        config.output.artifacts
    ));
    Ok(())
}
