//! One share of a stage's parts, made beside other processes that make theirs: on this machine or
//! on others that share the artifact folder. The stage's end is left to a run of it as a whole.

use super::download::downloaded;
use super::plan::{Selection, State, Workplace, names_between};
use super::runner::{Hold, hold, set_threads, without_answers};
use super::table::{STAGES, Sharing, Stage};
use crate::artifact::Row;
use crate::artifact::tables::ContextRow;
use crate::config::Config;
use crate::error::{Context, Result, hinted};
use crate::format::number;
use crate::ids::Shard;
use crate::inputs::{Input, check_apart, check_converted};
use crate::llm::{Budget, ResponseCache, Share, check_key};
use crate::lock::Lock;
use crate::process;
use crate::progress::Progress;
use crate::stages::{self, PartsTally, Run};
use std::time::Instant;

/// Makes those parts of a stage that are in a shard and not made yet.
///
/// # Errors
/// When it is not one stage, or one without parts; when a stage before it has to run first; when
/// the stage fails.
pub fn run_shard(config: &Config, stages: &[String], shard: Shard) -> Result<()> {
    let selection = Selection { stages: stages.to_vec(), ..Selection::default() };
    selection.check()?;
    let stage = the_stage(config, stages)?;
    set_threads(config);
    check_apart(config)?;
    let _held = hold(&config.artifacts(), Hold::Shared)?;
    let config = &downloaded(config)?;
    let mut place = Workplace::open(config)?;
    place.store.share();
    let states = place.states(&selection)?;
    place.check_untouched(states.iter())?;
    let Some(state) = states.iter().find(|state| state.stage.name == stage.name) else {
        return Ok(());
    };
    if state.why.is_empty() {
        process::note(format_args!("{:<10} fresh", stage.name));
        return Ok(());
    }
    place.check_made(&states, state)?;
    place.check_ours(std::iter::once(state))?;
    let dictionaries = stage.inputs.contains(&Input::Dictionaries);
    stages::check(config, dictionaries)?;
    if dictionaries {
        check_converted(config, &place.lock)?;
    }
    let share = match stage.asks_by(config) {
        Some(_) => {
            check_key(&config.llm)?;
            Some(Share::take(&place.store, shard, &state.fingerprint)?)
        }
        None => None,
    };
    let budget = match &share {
        Some(share) => {
            let replies = ResponseCache::open(&place.store, Some(share))?;
            share.budget(place.replies.insert(replies), &config.llm)
        }
        None => Budget::empty(),
    };
    // Before the first of its parts changes. No whole run changes the lock meanwhile, and the hashes
    // that this process took are not kept.
    Lock::begin_beside_others(place.store.root(), stage.name)?;
    place.run_shard(state, shard, share.as_ref(), &budget)
}

/// The one stage that is named, if it has parts.
fn the_stage(config: &Config, named: &[String]) -> Result<&'static Stage> {
    let with_parts = || STAGES.iter().filter(|stage| (stage.sharing)(config).is_shared());
    let names: Vec<String> = with_parts().map(|stage| format!("`{}`", stage.name)).collect();
    let names = listed(&names);
    let [name] = named else {
        let number = if named.is_empty() { "none" } else { "several" };
        return Err(hinted(
            format!("`--shard` is of one stage, and {number} are named"),
            format!("name one; with these settings {names} can run in shards"),
        ));
    };
    with_parts().find(|stage| stage.name == name).ok_or_else(|| {
        hinted(
            format!("`{name}` cannot run in shards"),
            format!(
                "with these settings {names} can; run this one without `--shard`: `circuit-atlas \
                 run {name}`"
            ),
        )
    })
}

/// Names as a sentence has them.
fn listed(names: &[String]) -> String {
    match names {
        [before @ .., last] if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        names => names.concat(),
    }
}

impl Workplace<'_> {
    /// # Errors
    /// When a stage that this one needs is neither fresh nor has every part that it is to have:
    /// shards make parts, and only a run of the whole stage ends it.
    fn check_made(&self, states: &[State], state: &State) -> Result<()> {
        let needed = states.iter().filter(|before| state.stage.needs(before.stage));
        let unmade = |before: &&State| !before.why.is_empty() && !self.has_every_part(before);
        let Some(first) = needed.into_iter().find(unmade) else { return Ok(()) };
        let (name, before) = (state.stage.name, first.stage.name);
        let why = first.why.first().map(|why| why.text.as_str()).unwrap_or_default();
        Err(hinted(
            format!("`{name}` needs the output of `{before}`, which is not fresh: {why}"),
            format!(
                "run the stages before it: `circuit-atlas run {}`",
                names_between(before, name).join(" ")
            ),
        ))
    }

    fn has_every_part(&self, state: &State) -> bool {
        let made = |part: u32| {
            let says = |artifact| self.store.part_says(artifact, part);
            state
                .stage
                .writes
                .iter()
                .all(|artifact| says(artifact).as_deref() == Some(&state.fingerprint))
        };
        (state.stage.sharing)(self.config) == Sharing::Contexts
            && self
                .store
                .parts(&ContextRow::ARTIFACT)
                .is_ok_and(|parts| parts.into_iter().all(made))
    }

    fn run_shard(
        &self,
        state: &State,
        shard: Shard,
        share: Option<&Share>,
        budget: &Budget,
    ) -> Result<()> {
        let name = state.stage.name;
        let (progress, start) = (Progress::new(name), Instant::now());
        let parts = PartsTally::default();
        let whole = self.stage_run(state, &progress, budget, &parts);
        let run = Run { shard: Some(shard), share, ..whole };
        let done = (state.stage.run)(&run);
        progress.end();
        let done = done.with_context(|| format!("shard {shard} of stage `{name}`"))?;
        let took = number::seconds(start.elapsed().as_secs_f64());
        process::note(format_args!("{name:<10} shard {shard}: {} ({took})", done.summary));
        for one in &done.reasons {
            without_answers(name, one.number, &one.reason);
        }
        Ok(())
    }
}
