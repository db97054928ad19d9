//! Why features are active at some tokens, as rows.

use super::Run;
use crate::artifact::tables::CauseRow;
use crate::circuit::ReplacementModel;
pub(crate) use crate::circuit::causes::Active as At;
use crate::circuit::causes::{Cause, causes};
use crate::error::Result;
use crate::inputs::Contexts;

/// The up to `k` largest causes at each of some tokens where features are active, sorted by
/// feature, place and rank.
pub(crate) fn of(
    run: &Run,
    replacement: &ReplacementModel,
    contexts: &Contexts,
    mut all: Vec<At>,
    k: usize,
) -> Result<Vec<CauseRow>> {
    all.sort_unstable();
    all.dedup();
    run.progress.begin("activations", all.len() as u64, 0);
    let tokens = |context: u32| contexts.rows[context as usize].tokens.as_slice();
    let found = causes(replacement, &all, tokens, k, |n| run.progress.step(n as u64))?;
    let mut rows: Vec<CauseRow> = all
        .iter()
        .zip(&found)
        .flat_map(|(at, causes)| {
            let row = |(one, rank)| row(at, rank, one, tokens(at.context));
            causes.iter().zip(0..).map(row).collect::<Vec<_>>()
        })
        .collect();
    rows.sort_by_cached_key(|row| (row.feature.to_string(), row.context, row.peak, row.rank));
    Ok(rows)
}

fn row(at: &At, rank: u32, cause: &Cause, tokens: &[u32]) -> CauseRow {
    let node = &cause.node;
    let is_head = node.head.is_some();
    let position = if is_head { node.source() } else { node.position() };
    CauseRow {
        feature: at.feature,
        context: at.context,
        peak: at.position,
        rank,
        kind: node.kind,
        position: position as u32,
        token: tokens[position],
        head: node.head,
        layer: node.layer,
        // A head here serves the feature itself.
        other: node.dictionary_feature().filter(|_| !is_head),
        through: cause.through.map(|position| position as u32),
        through_token: cause.through.map(|position| tokens[position]),
        effect: cause.effect,
        share: cause.share,
    }
}
