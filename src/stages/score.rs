//! `score`: the activation of every chosen feature at every token, from the disk cache or from the
//! live model.

use crate::artifact::Row;
use crate::artifact::activations::{GROUP, read_part};
use crate::artifact::tables::{CircuitFeature, ContextRow, ScoreRow};
use crate::config::StoreKind;
use crate::dictionary::{Hit, Scorer, packs};
use crate::error::Result;
use crate::inputs;
use crate::model::Gpt2;
use crate::process;
use crate::stages::{Done, Run};
use rayon::prelude::*;
use std::ops::Range;

/// A context's number and its hits.
type Scored = (u32, Vec<Hit>);

/// Scores the chosen features, shard by shard.
pub fn run(run: &Run) -> Result<Done> {
    let features = inputs::scored_features(run.config, &run.store.read::<CircuitFeature>()?);
    if features.is_empty() {
        let why = inputs::without_features(run.config)
            .unwrap_or_else(|| "no feature is scored: no circuit has any".into());
        run.progress.line(&format!("warning: {why}"));
    }
    let scorer = Scorer::new(&features, &run.dictionaries()?)?;
    let live = match run.config.cache.store {
        StoreKind::Stream => Some(inputs::model(run.config)?),
        StoreKind::Disk => None,
    };
    let (done, open) = run.done_and_open(&ScoreRow::ARTIFACT)?;
    let parts = done.len() + open.len();
    run.progress.begin("shards", parts as u64, done.len() as u64);
    for part in open {
        let contexts = run.store.read_part::<ContextRow>(part)?;
        let scored = match &live {
            Some(model) => score_live(run, &scorer, model, &contexts)?,
            None => score_cached(run, &scorer, part, &contexts)?,
        };
        run.store.write_part(run.fingerprint, part, &rows(&scored))?;
        run.progress.step(1)?;
    }
    Ok(format!(
        "{} features of {} dictionaries over {parts} shards",
        features.len(),
        scorer.hooks().len()
    )
    .into())
}

fn score_live(
    run: &Run,
    scorer: &Scorer,
    model: &Gpt2,
    contexts: &[ContextRow],
) -> Result<Vec<Scored>> {
    let (hooks, precision) = (scorer.hooks(), inputs::precision(run.config));
    let score = |pack: Range<usize>| -> Result<Vec<Scored>> {
        process::check()?;
        let contexts = &contexts[pack];
        let tokens: Vec<&[u32]> = contexts.iter().map(|row| row.tokens.as_slice()).collect();
        let each = model.read(&tokens, &hooks)?.into_iter().zip(contexts);
        let scored = each.map(|(mut values, row)| {
            // Rounded as the disk would, so that both ways give the same scores.
            values.iter_mut().flatten().for_each(|x| *x = precision.round(*x));
            Ok((row.context, scorer.score(&values)?))
        });
        scored.collect()
    };
    let lengths: Vec<usize> = contexts.iter().map(|row| row.tokens.len()).collect();
    let packs = packs(&lengths, run.config.machine.batch);
    Ok(packs.into_par_iter().map(score).collect::<Result<Vec<_>>>()?.concat())
}

fn score_cached(
    run: &Run,
    scorer: &Scorer,
    part: u32,
    contexts: &[ContextRow],
) -> Result<Vec<Scored>> {
    let hooks: Vec<String> = scorer.hooks().iter().map(|id| id.hook()).collect();
    if hooks.is_empty() {
        return Ok(contexts.iter().map(|row| (row.context, Vec::new())).collect());
    }
    let lengths: Vec<(u32, usize)> =
        contexts.iter().map(|row| (row.context, row.tokens.len())).collect();
    let mut scored = Vec::with_capacity(contexts.len().next_multiple_of(GROUP));
    read_part(run.store, part, &hooks, inputs::precision(run.config), &lengths, |group| {
        let score = |read: &crate::artifact::activations::HookValues| {
            Ok((read.context, scorer.score(&read.values)?))
        };
        scored.extend(group.par_iter().map(score).collect::<Result<Vec<Scored>>>()?);
        Ok(())
    })?;
    Ok(scored)
}

/// By feature, context and position.
fn rows(scored: &[Scored]) -> Vec<ScoreRow> {
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
