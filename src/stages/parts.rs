//! The work of a stage in parts that are kept until the stage is done: a killed run goes on from
//! those that are there, and several processes may make them together.

use super::Run;
use crate::artifact::{Artifact, Row};
use crate::error::Result;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a run has done with parts.
#[derive(Debug, Default)]
pub struct PartsTally {
    made: AtomicU32,
    /// To be made by other shards, or by this one when others have made theirs.
    left: AtomicU32,
}

impl PartsTally {
    pub(super) fn made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, parts: usize) {
        self.left.fetch_add(parts as u32, Ordering::Relaxed);
    }

    /// In words, for a shard.
    pub(super) fn summary(&self) -> String {
        let [made, left] = [&self.made, &self.left].map(|count| count.load(Ordering::Relaxed));
        let left = match left {
            0 => String::new(),
            left => format!(", {left} more when other shards have made theirs"),
        };
        format!("{} made{left}", crate::format::number::counted(made as usize, "part"))
    }
}

impl Run<'_> {
    /// Whether it keeps parts: a question that is asked beside the pipeline does not.
    pub(super) fn keeps(&self) -> bool {
        !self.fingerprint.is_empty()
    }

    /// Whether something with this number is this run's to make.
    pub(super) fn has(&self, number: u32) -> bool {
        self.shard.is_none_or(|shard| shard.has(number))
    }

    /// Whether a part is there, made from the same ingredients. Whoever reads it checks the rest.
    pub(super) fn is_kept(&self, artifact: &Artifact, number: u32) -> bool {
        let says = || self.store.part_says(artifact, number);
        self.keeps() && says().as_deref() == Some(self.fingerprint)
    }

    /// The numbers of the parts that are there and made from the same ingredients.
    pub(super) fn kept_parts(&self, artifact: &Artifact) -> Vec<u32> {
        let mut numbers = if self.keeps() { self.store.part_numbers(artifact) } else { Vec::new() };
        let is_same = |number| {
            self.store.part_fingerprint(artifact, number).as_deref() == Some(self.fingerprint)
        };
        numbers.retain(|number| is_same(*number));
        numbers
    }

    /// Whether all of some parts are there.
    pub(super) fn are_kept(&self, artifact: &Artifact, mut numbers: Range<u32>) -> bool {
        numbers.all(|number| self.is_kept(artifact, number))
    }

    /// A part of the work: read if it is there and has what it is to have, or else made and kept.
    pub(super) fn part<R: Row>(
        &self,
        artifact: &Artifact,
        number: u32,
        is_whole: impl Fn(&[R]) -> bool,
        make: impl FnOnce() -> Result<Vec<R>>,
    ) -> Result<Vec<R>> {
        if !self.keeps() {
            return make();
        }
        let kept = || -> Result<Option<Vec<R>>> {
            let says = self.store.part_fingerprint(artifact, number);
            let is_of_run = says.as_deref() == Some(self.fingerprint);
            let rows = is_of_run.then(|| self.store.read_part_as(artifact, number)).transpose()?;
            Ok(rows.filter(|rows| is_whole(rows)))
        };
        if let Some(rows) = kept()? {
            return Ok(rows);
        }
        let rows = make()?;
        // Another shard may have made the same meanwhile, with other last digits on another kind of
        // processor: what is made from it must be of one of them.
        if let Some(rows) = kept()? {
            return Ok(rows);
        }
        self.store.keep_part(artifact, self.fingerprint, number, &rows)?;
        self.parts.made();
        Ok(rows)
    }

    /// Makes those of some parts that are this run's to make and not there.
    pub(super) fn make_open<R: Row>(
        &self,
        artifact: &Artifact,
        numbers: Range<u32>,
        is_whole: impl Fn(u32, &[R]) -> bool,
        make: impl Fn(u32) -> Result<Vec<R>>,
    ) -> Result<()> {
        numbers.filter(|number| self.has(*number)).try_for_each(|number| {
            let is_whole = |rows: &[R]| is_whole(number, rows);
            self.part(artifact, number, is_whole, || make(number)).map(drop)
        })
    }
}

/// The places of the things in a part, of `all` in parts of so many.
pub(super) fn places(part: u32, size: usize, all: usize) -> Range<usize> {
    let start = part as usize * size;
    start.min(all)..(start + size).min(all)
}
