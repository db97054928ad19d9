//! `causes`: why each feature is active at the examples that explanations are written from, what its
//! weights alone read, which others write alike, and what the model says without it.

use super::cause_rows::{self, At};
use super::{Done, Run};
use crate::artifact::tables::{AblatedRow, EvidenceRow, FeatureRow, ReadingRow, SimilarRow};
use crate::circuit::causes::{ReadBy, Reading, readings};
use crate::circuit::{Near, ReplacementModel, Steered, TopTokens, nearest, steer};
use crate::error::Result;
use crate::ids::{FeatureId, Shown, Side};
use crate::inputs::{Contexts, by};

/// Causes of each activation that are kept, and what weights read.
const CAUSES: usize = 8;
const READINGS: usize = 8;
/// Features that write most alike.
const SIMILAR: usize = 8;

/// Writes all four tables.
pub fn run(run: &Run) -> Result<Done> {
    run.progress.say("reading examples");
    let contexts = Contexts::load(run.config, run.store)?;
    let mut evidence: Vec<EvidenceRow> = run.store.read()?;
    evidence.retain(|row| row.role != Shown::Inactive);
    let rows = run.store.read_that::<FeatureRow>("page", true)?;
    let features: Vec<FeatureId> = rows.into_iter().map(|row| row.feature).collect();
    let replacement = run.replacement_model()?;
    let specials = contexts.tokenizer().specials();
    let at =
        |row: &EvidenceRow| At { context: row.context, position: row.peak, feature: row.feature };
    let all = evidence.iter().map(at).collect();
    let causes = cause_rows::of(run, &replacement, &contexts, all, CAUSES)?;
    run.progress.say("reading weights");
    let listed = TopTokens { k: READINGS, specials };
    let found = readings(&replacement, &features, listed)?;
    let mut readings: Vec<ReadingRow> = features
        .iter()
        .zip(&found)
        .flat_map(|(feature, own)| {
            own.iter().zip(0..).map(|(one, rank)| reading(*feature, rank, one))
        })
        .collect();
    readings.sort_by_cached_key(|row| (row.feature.to_string(), row.rank));
    let ablated = ablated(run, &replacement, &contexts, evidence)?;
    run.store.write(run.fingerprint, &causes)?;
    run.store.write(run.fingerprint, &readings)?;
    run.store.write(run.fingerprint, &similar(&replacement, &features)?)?;
    run.store.write(run.fingerprint, &ablated)?;
    Ok(format!("{} causes of the activations of {} features", causes.len(), features.len()).into())
}

fn similar(replacement: &ReplacementModel, features: &[FeatureId]) -> Result<Vec<SimilarRow>> {
    let found = nearest(replacement, features, SIMILAR)?;
    let row = |feature: FeatureId, rank: u32, near: Near| SimilarRow {
        feature,
        rank,
        other: features[near.number],
        cosine: f64::from(near.cosine),
        z: near.z,
    };
    let mut rows: Vec<SimilarRow> = features
        .iter()
        .zip(found)
        .flat_map(|(feature, own)| {
            (0..).zip(own).map(move |(rank, near)| row(*feature, rank, near))
        })
        .collect();
    rows.sort_by_cached_key(|row| (row.feature.to_string(), row.rank));
    Ok(rows)
}

fn reading(feature: FeatureId, rank: u32, reading: &Reading) -> ReadingRow {
    let (token, other) = match reading.of {
        ReadBy::Token(id) => (Some(id), None),
        ReadBy::Feature(other) => (None, Some(other)),
    };
    ReadingRow { feature, rank, token, other, z: reading.z }
}

/// What the live model says less of, and more of, without each feature at its strongest examples:
/// what it writes there is taken away behind its sublayer.
fn ablated(
    run: &Run,
    replacement: &ReplacementModel,
    contexts: &Contexts,
    evidence: Vec<EvidenceRow>,
) -> Result<Vec<AblatedRow>> {
    let strongest = evidence.into_iter().filter(|row| row.role == Shown::Strongest);
    let steered: Vec<Steered> = by(strongest.collect(), |row: &EvidenceRow| row.feature)
        .into_iter()
        .map(|(feature, rows)| Steered {
            feature,
            strength: -rows.iter().map(|row| row.value).sum::<f32>() / rows.len() as f32,
            places: rows.iter().map(|row| (row.context, row.peak)).collect(),
        })
        .collect();
    run.progress.begin("features ablated", steered.len() as u64, 0);
    let specials = contexts.tokenizer().specials();
    let listed = TopTokens { k: run.config.logits.k, specials };
    let tokens = |context: u32| contexts.rows[context as usize].tokens.as_slice();
    let changes = steer(replacement, &steered, tokens, listed, |_, _| ())?;
    let mut rows = Vec::new();
    for (one, rise) in steered.iter().zip(&changes) {
        run.progress.step(1)?;
        let row = |side: Side, rank: u32, &(token, change): &(u32, f32)| AblatedRow {
            feature: one.feature,
            side,
            rank,
            token,
            change: -change,
            z: if rise.deviation > 0.0 { f64::from(-change) / rise.deviation } else { 0.0 },
            places: one.places.len() as u32,
        };
        // What rises without it, it lowered.
        rows.extend((0..).zip(&rise.least).map(|(rank, at)| row(Side::Top, rank, at)));
        rows.extend((0..).zip(&rise.most).map(|(rank, at)| row(Side::Bottom, rank, at)));
    }
    rows.sort_by_cached_key(|row| (row.feature.to_string(), row.side.word(), row.rank));
    Ok(rows)
}
