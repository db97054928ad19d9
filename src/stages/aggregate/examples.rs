//! Examples and promoted tokens, of features and of sets.

use super::{WeightedSet, Work};
use crate::artifact::tables::ExampleRow;
use crate::atlas::activations::{feature_examples, joint_examples, sort};
use crate::atlas::promoted_rows;
use crate::circuit::Weighted;
use crate::error::Result;
use crate::ids::Subject;
use crate::stats::feature::TokenActivation;
use rayon::prelude::*;

pub(super) fn write_examples(work: &Work, sets: &[WeightedSet]) -> Result<()> {
    let progress = work.run.progress;
    progress.begin("examples", (work.features.len() + sets.len()) as u64, 0);
    let contexts = &work.contexts;
    let (halves, wanted) = ([true, false].map(|explain| work.half(explain)), work.wanted());
    let of_feature = |key: usize| -> Result<Vec<ExampleRow>> {
        let activations: Vec<TokenActivation> = work.counting(key).collect();
        progress.step(1)?;
        Ok(feature_examples(contexts, work.features[key], &activations, &halves, wanted))
    };
    let of_set = |set: &WeightedSet| -> Result<Vec<ExampleRow>> {
        progress.step(1)?;
        Ok(joint_examples(contexts, &set.subject, &work.together(set), wanted.top))
    };
    let mut each: Vec<Vec<ExampleRow>> =
        (0..work.features.len()).into_par_iter().map(of_feature).collect::<Result<_>>()?;
    each.extend(sets.par_iter().map(of_set).collect::<Result<Vec<_>>>()?);
    let mut rows = each.concat();
    sort(&mut rows);
    work.run.store.write(work.run.fingerprint, &rows)
}

pub(super) fn write_logits(work: &Work, sets: &[WeightedSet]) -> Result<()> {
    work.run.progress.say("computing promoted tokens");
    let alone = work.features.iter().map(|&feature| (Subject::from(feature), vec![(feature, 1.0)]));
    let together = sets.iter().map(|set| (set.subject.clone(), set.members.clone()));
    let sets: Vec<(Subject, Weighted)> = alone.chain(together).collect();
    let logits = &work.run.config.logits;
    let mut rows = promoted_rows(
        &work.run.replacement_model()?,
        &sets,
        work.contexts.tokenizer(),
        logits.k,
        logits.strength,
    )?;
    rows.sort_by_cached_key(|row| (row.subject.to_string(), row.side.word(), row.rank));
    work.run.store.write(work.run.fingerprint, &rows)
}
