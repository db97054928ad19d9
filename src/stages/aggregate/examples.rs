//! Examples and promoted tokens, of features and of sets.

use super::{WeightedSet, Work};
use crate::artifact::tables::{ExampleRow, LogitRow};
use crate::atlas::activations::example_row;
use crate::circuit::{Noise, Promoted, ReplacementModel, TopTokens, Weighted, lengths, promoted};
use crate::error::Result;
use crate::ids::Band;
use crate::ids::{Side, Subject};
use crate::stats::examples::{Peak, Used, choose, labelled, peaks, top};
use crate::stats::feature::TokenActivation;
use rayon::prelude::*;

pub(super) fn write_examples(work: &Work, sets: &[WeightedSet]) -> Result<()> {
    let progress = work.run.progress;
    progress.begin("examples", (work.features.len() + sets.len()) as u64, 0);
    let halves = [true, false].map(|explain| (explain, work.half(explain)));
    let of_feature = |key: usize| -> Result<Vec<ExampleRow>> {
        let activations: Vec<TokenActivation> = work.counting(key).collect();
        progress.step(1)?;
        Ok(feature_examples(work, key, &activations, &halves))
    };
    let of_set = |set: &WeightedSet| -> Result<Vec<ExampleRow>> {
        progress.step(1)?;
        Ok(set_examples(work, set))
    };
    let mut each: Vec<Vec<ExampleRow>> =
        (0..work.features.len()).into_par_iter().map(of_feature).collect::<Result<_>>()?;
    each.extend(sets.par_iter().map(of_set).collect::<Result<Vec<_>>>()?);
    let mut rows = each.concat();
    rows.par_sort_by_cached_key(|row| {
        (row.subject.to_string(), row.half, row.band.to_string(), row.rank)
    });
    work.run.store.write(work.run.fingerprint, &rows)
}

fn feature_examples(
    work: &Work,
    key: usize,
    activations: &[TokenActivation],
    halves: &[(bool, Vec<u32>); 2],
) -> Vec<ExampleRow> {
    let all = peaks(activations.iter().copied());
    let mut rows = Vec::new();
    for (explain, contexts) in halves {
        let own = of_half(work, &all, *explain);
        let info = |context| work.info(context);
        let chosen = choose(&own, contexts, &info, work.wanted(), work.features[key].salt());
        let subject = Subject::from(work.features[key]);
        rows.extend(
            chosen
                .iter()
                .map(|example| example_row(&work.contexts, &subject, example, activations)),
        );
    }
    rows
}

fn set_examples(work: &Work, set: &WeightedSet) -> Vec<ExampleRow> {
    let activations = work.together(set);
    let all = peaks(activations.iter().copied());
    let mut rows = Vec::new();
    for explain in [true, false] {
        let own = of_half(work, &all, explain);
        let best =
            top(&own, &|context| work.info(context), work.wanted().top, &mut Used::default());
        let chosen = labelled(Band::Top, best);
        rows.extend(
            chosen
                .iter()
                .map(|example| example_row(&work.contexts, &set.subject, example, &activations)),
        );
    }
    rows
}

fn of_half(work: &Work, peaks: &[Peak], explain: bool) -> Vec<Peak> {
    peaks
        .iter()
        .filter(|peak| work.contexts.explain[peak.context as usize] == explain)
        .copied()
        .collect()
}

pub(super) fn write_logits(work: &Work, sets: &[WeightedSet]) -> Result<()> {
    work.run.progress.say("computing promoted tokens");
    let replacement: ReplacementModel = work.run.replacement_model()?;
    let alone = work.features.iter().map(|&feature| (Subject::from(feature), vec![(feature, 1.0)]));
    let together = sets.iter().map(|set| (set.subject.clone(), set.members.clone()));
    let (subjects, members): (Vec<Subject>, Vec<Weighted>) = alone.chain(together).unzip();
    let specials = work.contexts.tokenizer().specials();
    let listed = TopTokens { k: work.run.config.logits.k, specials };
    let promoted = promoted(&replacement, &members, listed)?;
    let (noise, lengths) = (Noise::of(&replacement, listed)?, lengths(&replacement, &members)?);
    let mut rows: Vec<LogitRow> = subjects
        .iter()
        .zip(promoted.iter().zip(lengths))
        .flat_map(|(subject, (promoted, length))| {
            logit_rows(work, subject, promoted, |rank, logit| noise.z(rank, logit, length))
        })
        .collect();
    rows.sort_by_cached_key(|row| (row.subject.to_string(), row.side.word(), row.rank));
    work.run.store.write(work.run.fingerprint, &rows)
}

fn logit_rows(
    work: &Work,
    subject: &Subject,
    promoted: &Promoted,
    z: impl Fn(usize, f32) -> f64,
) -> Vec<LogitRow> {
    let strength = work.run.config.logits.strength;
    let side = |side: Side, tokens: &[(u32, f32)]| {
        let row = |(rank, &(token, logit)): (u32, &(u32, f32))| LogitRow {
            subject: subject.clone(),
            side,
            rank,
            token,
            text: work.contexts.tokenizer().token(token),
            logit,
            at_strength: (f64::from(logit) * strength) as f32,
            z: z(rank as usize, logit),
        };
        (0u32..).zip(tokens).map(row).collect::<Vec<_>>()
    };
    [side(Side::Top, &promoted.top), side(Side::Bottom, &promoted.bottom)].concat()
}
