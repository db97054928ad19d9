//! What the scores hold: where each feature is active, and examples around the peaks.

use crate::artifact::tables::{ExampleRow, ScoreRow};
use crate::artifact::{Row, Store};
use crate::error::{Result, hinted};
use crate::ids::{Half, Subject};
use crate::inputs::Contexts;
use crate::stats::examples::{Chosen, window};
use crate::stats::feature::TokenActivation;
use std::collections::{BTreeMap, BTreeSet};

fn activation(row: &ScoreRow) -> TokenActivation {
    TokenActivation { context: row.context, position: row.position, activation: row.activation }
}

/// All scores, by feature; each by context and position.
///
/// # Errors
/// When the scores hold another feature than the first `features`.
pub(crate) fn all(store: &Store, features: usize) -> Result<Vec<Vec<TokenActivation>>> {
    let mut activations = vec![Vec::new(); features];
    for part in store.parts(&ScoreRow::ARTIFACT)? {
        for row in store.read_part::<ScoreRow>(part)? {
            let Some(own) = activations.get_mut(row.feature as usize) else {
                return Err(hinted(
                    format!(
                        "the scores hold a feature of key {}, but {features} are scored",
                        row.feature
                    ),
                    "rerun with `circuit-atlas run score --force`",
                ));
            };
            own.push(activation(&row));
        }
    }
    Ok(activations)
}

/// The scores of a few features, by key; each by context and position.
pub(crate) fn of(
    store: &Store,
    keys: &BTreeSet<u32>,
) -> Result<BTreeMap<u32, Vec<TokenActivation>>> {
    let mut activations: BTreeMap<u32, Vec<TokenActivation>> =
        keys.iter().map(|key| (*key, Vec::new())).collect();
    for part in store.parts(&ScoreRow::ARTIFACT)? {
        for row in store.read_part_of::<ScoreRow>(part, "feature", keys)? {
            activations.entry(row.feature).or_default().push(activation(&row));
        }
    }
    Ok(activations)
}

/// A window around a chosen peak, with the activations in it.
pub(crate) fn example_row(
    contexts: &Contexts,
    subject: &Subject,
    example: &Chosen,
    activations: &[TokenActivation],
) -> ExampleRow {
    let peak = example.peak;
    let row = &contexts.rows[peak.context as usize];
    let (start, end) = window(peak.position as usize, row.tokens.len());
    let mut values = vec![0.0; end - start];
    let first =
        activations.partition_point(|f| (f.context, f.position) < (peak.context, start as u16));
    let inside = |f: &&TokenActivation| f.context == peak.context && (f.position as usize) < end;
    for activation in activations[first..].iter().take_while(inside) {
        values[activation.position as usize - start] = activation.activation;
    }
    let half = if contexts.explain[peak.context as usize] { Half::Explain } else { Half::Score };
    ExampleRow {
        subject: subject.clone(),
        half,
        band: example.band,
        rank: example.rank,
        context: peak.context,
        document: row.document,
        peak: peak.position,
        value: peak.value,
        tokens: row.tokens[start..end].to_vec(),
        activations: values,
        start: start as u16,
        length: row.tokens.len() as u16,
    }
}
