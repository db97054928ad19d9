//! Activations of chosen features in some contexts, from the live model or the disk cache: of all
//! contexts for `score`, of a sample for `show`. Both ways give the same bits.

use super::Run;
use crate::artifact::activations::{GROUP, HookValues, read_part};
use crate::artifact::tables::{ContextRow, ScoreRow};
use crate::dictionary::{Hit, Scorer};
use crate::error::Result;
use crate::inputs;
use crate::model::{Gpt2, packs};
use rayon::prelude::*;
use std::ops::Range;

/// A context's number and its hits.
pub(crate) type Scored = (u32, Vec<Hit>);

/// From the live model.
///
/// # Errors
/// As of [`Gpt2::read`].
pub(crate) fn live(
    run: &Run,
    scorer: &Scorer,
    model: &Gpt2,
    contexts: &[ContextRow],
) -> Result<Vec<Scored>> {
    let (hooks, precision) = (scorer.hooks(), inputs::precision(run.config));
    let score = |pack: Range<usize>| -> Result<Vec<Scored>> {
        run.progress.step(pack.len() as u64)?;
        let contexts = &contexts[pack];
        let tokens: Vec<&[u32]> = contexts.iter().map(|row| row.tokens.as_slice()).collect();
        let each = model.read(&tokens, &hooks)?.into_iter().zip(contexts);
        let scored = each.map(|(mut values, row)| {
            // Rounded as the disk would, so that both ways give the same scores.
            values.iter_mut().for_each(|values| precision.round(values));
            Ok((row.context, scorer.score(&values)?))
        });
        scored.collect()
    };
    let lengths: Vec<usize> = contexts.iter().map(|row| row.tokens.len()).collect();
    let packs = packs(&lengths, run.config.machine.batch);
    Ok(packs.into_par_iter().map(score).collect::<Result<Vec<_>>>()?.concat())
}

/// From a part of the disk cache, of those of its contexts that are `wanted`.
///
/// # Errors
/// When the part is damaged, or is of other contexts.
pub(crate) fn cached(
    run: &Run,
    scorer: &Scorer,
    part: u32,
    contexts: &[ContextRow],
    wanted: impl Fn(u32) -> bool,
) -> Result<Vec<Scored>> {
    let hooks: Vec<String> = scorer.hooks().iter().map(|id| id.hook()).collect();
    if hooks.is_empty() {
        return Ok(contexts.iter().map(|row| (row.context, Vec::new())).collect());
    }
    let lengths: Vec<(u32, usize)> =
        contexts.iter().map(|row| (row.context, row.tokens.len())).collect();
    let mut scored = Vec::with_capacity(contexts.len().next_multiple_of(GROUP));
    let precision = inputs::precision(run.config);
    read_part(run.store, part, &hooks, precision, &lengths, wanted, |group| {
        let score = |read: &HookValues| Ok((read.context, scorer.score(&read.values)?));
        run.progress.step(group.len() as u64)?;
        scored.extend(group.par_iter().map(score).collect::<Result<Vec<Scored>>>()?);
        Ok(())
    })?;
    Ok(scored)
}

/// By feature, context and position.
pub(crate) fn rows(scored: &[Scored]) -> Vec<ScoreRow> {
    let each =
        scored.iter().flat_map(|(context, hits)| hits.iter().map(move |hit| (*context, hit)));
    let mut rows: Vec<ScoreRow> = each
        .map(|(context, hit)| ScoreRow {
            feature: hit.key,
            context,
            position: hit.position,
            activation: hit.activation,
        })
        .collect();
    rows.par_sort_unstable_by_key(|row| (row.feature, row.context, row.position));
    rows
}
