//! Examples of sets of features, and promoted tokens of features and of sets.

use super::parts::{self, Stretch};
use super::{WeightedSet, Work};
use crate::artifact::tables::{ExampleRow, LogitRow};
use crate::atlas::Promoting;
use crate::atlas::activations::{Part, counting, example_row, sort, strongest_peaks, together};
use crate::atlas::scores::Block;
use crate::circuit::{ReplacementModel, Weighted};
use crate::error::Result;
use crate::ids::{FeatureId, Subject};
use crate::process;
use crate::stats::examples::{Chosen, Peak, peaks};
use crate::stats::feature::TokenActivation;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A set with its members as they are in the scores.
struct Joint<'a> {
    set: &'a WeightedSet,
    members: Vec<Member>,
    peaks: Vec<Peak>,
}

/// A scored feature of a set.
struct Member {
    /// Its place among the members of all sets.
    place: usize,
    max: f64,
    weight: f64,
}

/// The examples of every set, a stretch of contexts at a time: first the peak of every context, and
/// then, of those that are chosen, the activations around it.
pub(super) fn joint_examples(
    work: &Work,
    sets: &[WeightedSet],
    maxima: &[f32],
) -> Result<Vec<ExampleRow>> {
    let (mut sets, keys) = joint(work, sets, maxima);
    let (contexts, bytes) = (&work.contexts, work.run.config.machine.share(8));
    work.run.progress.begin("contexts", 2 * contexts.rows.len() as u64, 0);
    work.scores.stretches(contexts, &keys, bytes, |some, block| {
        work.run.progress.step(some.len() as u64)?;
        sets.par_iter_mut().for_each(|set| {
            let own = set.together(work, block, |_| true);
            set.peaks.extend(peaks(own.into_iter()));
        });
        Ok(())
    })?;
    let most = work.run.config.aggregate.examples;
    let chosen: Vec<BTreeMap<u32, Chosen>> = sets
        .par_iter_mut()
        .map(|set| {
            let peaks = std::mem::take(&mut set.peaks);
            let chosen = strongest_peaks(contexts, &peaks, most);
            chosen.into_iter().map(|example| (example.peak.context, example)).collect()
        })
        .collect();
    let mut rows: Vec<Vec<ExampleRow>> = vec![Vec::new(); sets.len()];
    work.scores.stretches(contexts, &keys, bytes, |some, block| {
        work.run.progress.step(some.len() as u64)?;
        let each = sets.par_iter().zip(&chosen).zip(&mut rows);
        each.for_each(|((set, chosen), rows)| {
            let own = set.together(work, block, |context| chosen.contains_key(&context));
            let chosen = chosen.range(some.clone()).map(|(_, example)| example);
            rows.extend(
                chosen.map(|example| example_row(contexts, &set.set.subject, example, &own)),
            );
        });
        Ok(())
    })?;
    rows.iter_mut().for_each(|own| sort(own));
    Ok(rows.concat())
}

/// The sets, and the keys of the members of all of them, in order.
fn joint<'a>(work: &Work, sets: &'a [WeightedSet], maxima: &[f32]) -> (Vec<Joint<'a>>, Vec<u32>) {
    let key = |feature: &FeatureId| Some(work.features.binary_search(feature).ok()? as u32);
    let all = sets.iter().flat_map(|set| &set.members);
    let keys: BTreeSet<u32> = all.filter_map(|(feature, _)| key(feature)).collect();
    let keys: Vec<u32> = keys.into_iter().collect();
    let member = |(feature, weight): &(FeatureId, f64)| {
        let key = key(feature)?;
        let (place, max) = (keys.binary_search(&key).ok()?, f64::from(maxima[key as usize]));
        Some(Member { place, max, weight: *weight })
    };
    let set = |set: &'a WeightedSet| Joint {
        set,
        members: set.members.iter().filter_map(member).collect(),
        peaks: Vec::new(),
    };
    (sets.iter().map(set).collect(), keys)
}

impl Joint<'_> {
    /// The activations of the set as one in some contexts of a block: each feature scaled by its
    /// maximum and, if wanted, by its weight over the largest.
    fn together(
        &self,
        work: &Work,
        block: &Block,
        wanted: impl Fn(u32) -> bool,
    ) -> Vec<TokenActivation> {
        let of = |member: &Member| {
            let own = counting(&work.contexts, block.at(member.place));
            let activations = own.filter(|at| wanted(at.context)).collect();
            Part { activations, max: member.max, weight: member.weight }
        };
        let parts: Vec<Part> = self.members.iter().map(of).collect();
        together(&parts, self.set.weighted_examples)
    }
}

/// Features whose promoted tokens are held before they are written.
const AT_ONCE: usize = 512;

/// Says which tokens are promoted.
pub(super) struct Promoter<'a> {
    work: &'a Work<'a>,
    replacement: ReplacementModel,
}

impl<'a> Promoter<'a> {
    pub(super) fn new(work: &'a Work<'a>) -> Result<Promoter<'a>> {
        Ok(Promoter { work, replacement: work.run.replacement_model()? })
    }

    /// Of features, each alone.
    pub(super) fn of_features(&self, features: &[FeatureId]) -> Result<Vec<LogitRow>> {
        let alone = |&feature: &FeatureId| (Subject::from(feature), vec![(feature, 1.0)]);
        self.of(&features.iter().map(alone).collect::<Vec<_>>())
    }

    fn of(&self, sets: &[(Subject, Weighted)]) -> Result<Vec<LogitRow>> {
        process::check()?;
        let (work, logits) = (self.work, &self.work.run.config.logits);
        let tokenizer = work.contexts.tokenizer();
        let promoting = Promoting::new(&self.replacement, tokenizer, logits.k, logits.strength)?;
        let mut rows = promoting.rows(sets)?;
        rows.chunk_by_mut(|a, b| a.subject == b.subject)
            .for_each(|own| own.sort_by_key(|row| (row.side.word(), row.rank)));
        work.run.progress.step(sets.len() as u64)?;
        Ok(rows)
    }
}

pub(super) fn write_logits(work: &Work, stretches: &[Stretch], sets: &[WeightedSet]) -> Result<()> {
    let promoter = Promoter::new(work)?;
    let mut table = work.run.store.writer::<LogitRow>(work.run.fingerprint)?;
    let all = (work.features.len() + sets.len()) as u64;
    work.run.progress.begin("promoted tokens", all, 0);
    for (keys, kept) in stretches {
        let some = &work.features[keys[0] as usize..][..keys.len()];
        match *kept {
            Some(number) => table.add(parts::read_logits(work, number)?)?,
            None => {
                some.chunks(AT_ONCE).try_for_each(|some| table.add(promoter.of_features(some)?))?
            }
        }
    }
    let together = |set: &WeightedSet| (set.subject.clone(), set.members.clone());
    table.add(promoter.of(&sets.iter().map(together).collect::<Vec<_>>())?)?;
    table.end()
}
