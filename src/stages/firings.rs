//! What the scores hold: when each feature fires, and examples around the peaks.

use super::inputs::Contexts;
use crate::artifact::tables::{ExampleRow, ScoreRow};
use crate::artifact::{Row, Store};
use crate::corpus::Half;
use crate::error::{Result, hinted};
use crate::stats::examples::{Chosen, window};
use crate::stats::feature::Firing;
use std::collections::{BTreeMap, BTreeSet};

fn firing(row: &ScoreRow) -> Firing {
    Firing { context: row.context, position: row.position, activation: row.activation }
}

/// All scores, by feature; each by context and position.
///
/// # Errors
/// When the scores hold another feature than the first `features`.
pub fn all(store: &Store, features: usize) -> Result<Vec<Vec<Firing>>> {
    let mut firings = vec![Vec::new(); features];
    for part in store.parts(&ScoreRow::ARTIFACT)? {
        for row in store.read_part::<ScoreRow>(part)? {
            let Some(own) = firings.get_mut(row.feature as usize) else {
                return Err(hinted(
                    format!(
                        "the scores hold a feature of key {}, but {features} are scored",
                        row.feature
                    ),
                    "make them again with `circuit-atlas run score --force`",
                ));
            };
            own.push(firing(&row));
        }
    }
    Ok(firings)
}

/// The scores of a few features, by key; each by context and position.
pub fn of(store: &Store, keys: &BTreeSet<u32>) -> Result<BTreeMap<u32, Vec<Firing>>> {
    let mut firings: BTreeMap<u32, Vec<Firing>> =
        keys.iter().map(|key| (*key, Vec::new())).collect();
    for part in store.parts(&ScoreRow::ARTIFACT)? {
        for row in store.read_part_of::<ScoreRow>(part, "feature", keys)? {
            firings.entry(row.feature).or_default().push(firing(&row));
        }
    }
    Ok(firings)
}

/// A window around a chosen peak, with the activations in it.
pub fn example_row(
    contexts: &Contexts,
    subject: &str,
    example: &Chosen,
    firings: &[Firing],
) -> ExampleRow {
    let peak = example.peak;
    let row = &contexts.rows[peak.context as usize];
    let (start, end) = window(peak.position as usize, row.tokens.len());
    let mut activations = vec![0.0; end - start];
    let first = firings.partition_point(|f| (f.context, f.position) < (peak.context, start as u16));
    let inside = |f: &&Firing| f.context == peak.context && (f.position as usize) < end;
    for firing in firings[first..].iter().take_while(inside) {
        activations[firing.position as usize - start] = firing.activation;
    }
    let half = if contexts.explain[peak.context as usize] { Half::Explain } else { Half::Score };
    ExampleRow {
        subject: subject.into(),
        half: half.word().into(),
        band: example.band.clone(),
        rank: example.rank,
        context: peak.context,
        document: row.document,
        peak: peak.position,
        value: peak.value,
        tokens: row.tokens[start..end].to_vec(),
        activations,
        start: start as u16,
        length: row.tokens.len() as u16,
    }
}
