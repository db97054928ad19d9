//! How well a dictionary describes the model, measured on real tokens: L0, variance explained, dead
//! features and loss recovered (`docs/definitions.md` §3).
//!
//! A dictionary that is read wrongly, or is another's, mostly still gives numbers. So each is also
//! read in the ways in which people have gone wrong (`suspects`, `scales`, `heads`), and compared
//! with the others of its kind (`judge`): it is refused with the cause, or warned about.

mod fit;
mod groups;
mod heads;
mod judge;
mod places;
mod products;
mod rows;
mod sample;
mod scales;
mod suspects;

pub use judge::judge;
pub use sample::Sample;

use super::{Active, Dictionary};
use crate::error::{Result, hinted};
use crate::ids::DictionaryId;
use crate::model::Gpt2;
use crate::stats::interval::Bootstrap;
use fit::Fit;
use groups::median;
use products::Products;
use rows::{RowFit, Rows};
use std::path::PathBuf;
use suspects::Readings;

/// Which resamples of contexts intervals are of.
const SEED: u64 = 1;

/// What a dictionary is judged by: medians over groups of contexts (`groups`).
#[derive(Clone, Debug)]
struct Typical {
    explained: f64,
    /// Active features a token.
    l0: f64,
    /// The share of the loss that is recovered, of contexts in which zero hurts.
    recovered: f64,
}

/// What was measured of one dictionary, over the positions behind BOS. [`judge`] says what is wrong
/// with it.
#[derive(Clone, Debug)]
pub struct Conformance {
    /// Which dictionary it is.
    pub id: DictionaryId,
    /// Features of the dictionary.
    pub width: usize,
    /// Mean number of active features a token.
    pub l0: f64,
    /// `1 − Σ‖y − ŷ‖² / Σ‖y − ȳ‖²` of what it reconstructs.
    pub variance_explained: f64,
    /// Features that are never active on the sample.
    pub dead: u64,
    /// `(loss with zero − loss with ŷ) / (loss with zero − loss)`; none where zero does not hurt.
    pub loss_recovered: Option<f64>,
    /// Its 95 % interval over contexts; none of one context, or where zero may not hurt.
    pub loss_interval: Option<[f64; 2]>,
    /// Tokens whose prediction the losses are of.
    pub loss_tokens: u64,
    /// Contexts that they are in.
    pub loss_contexts: u64,
    /// Whether the model predicts better than by chance, all tokens being as likely: otherwise
    /// what it loses and recovers says nothing.
    predicts: bool,
    /// Tokens measured on.
    pub tokens: u64,
    /// The file that it is from.
    origin: PathBuf,
    /// What its config says that is not as it is used here.
    notes: Vec<String>,
    typical: Typical,
    readings: Readings,
    rows: RowFit,
    /// A tensor that is zero throughout although none is that was trained.
    lost: Option<&'static str>,
    /// Whether most of its thresholds are below 0, as only their logarithms are.
    in_logs: bool,
}

fn no_context() -> anyhow::Error {
    hinted("no context to measure the dictionaries on", "the corpus is empty or too short")
}

/// How many features are never active.
fn dead(active: &[&Active], width: usize) -> u64 {
    let mut alive = vec![false; width];
    active.iter().copied().flatten().for_each(|(f, _)| alive[*f as usize] = true);
    alive.iter().filter(|alive| !**alive).count() as u64
}

/// What is recovered of the loss, and how sure that is.
struct Recovered {
    share: Option<f64>,
    interval: Option<[f64; 2]>,
}

impl Recovered {
    /// The median over contexts.
    fn typical(clean: &[f64], zero: &[f64], with: &[f64]) -> f64 {
        let each =
            clean.iter().zip(zero).zip(with).map(|((clean, zero), with)| (clean, zero, with));
        let hurt = each.filter(|(clean, zero, _)| zero > clean);
        median(hurt.map(|(clean, zero, with)| (zero - with) / (zero - clean)))
    }

    /// Of losses by context: of the model, with zero, and with a reconstruction.
    fn of(clean: &[f64], zero: &[f64], with: &[f64]) -> Recovered {
        let sum = |losses: &[f64]| losses.iter().sum::<f64>();
        let hurt = sum(zero) - sum(clean);
        let share = (hurt > 0.0).then(|| (sum(zero) - sum(with)) / hurt);
        let better = |losses: &[f64]| losses.iter().map(|loss| -loss).collect::<Vec<_>>();
        let [clean, zero, with] = [clean, zero, with].map(better);
        let several = share.filter(|_| clean.len() > 1);
        let interval =
            several.and_then(|_| Bootstrap::new(clean.len(), SEED).recovered(&with, &zero, &clean));
        Recovered { share, interval: interval.map(|estimate| [estimate.low, estimate.high]) }
    }
}

/// Measures a dictionary.
pub fn measure(model: &Gpt2, dictionary: &Dictionary, sample: &Sample) -> Result<Conformance> {
    let encoder = dictionary.encoder()?;
    let (x, y) = sample.layers[dictionary.id.layer].of(dictionary.id.kind);
    // The products of the tokens that other readings are tried on are kept for them.
    let products = Products::new(dictionary, &encoder, &sample.tried(x)?)?;
    let own = products.active(&encoder.rule, 1.0, &products.bias);
    let mut active = vec![Active::new(); x.dim(0)?];
    let rest = encoder.active(&sample.not_tried(x)?)?;
    let rows = sample.places.tried.iter().chain(&sample.places.not_tried);
    for (&row, found) in rows.zip(own.iter().cloned().chain(rest)) {
        active[row as usize] = found;
    }
    let reconstruction = dictionary.decode(&active)?;
    let [zero, with] = [y.zeros_like()?, reconstruction.clone()]
        .map(|value| sample.losses_with(model, dictionary.id, &value));
    let (clean, loss_tokens) = (sample.losses(), sample.predicted());
    let (zero, with) = (zero?, with?);
    let recovered = Recovered::of(clean, &zero, &with);
    // BOS is left out: its activations are like no other token's and would carry most of the
    // variance.
    let first = sample.tried(&reconstruction)?;
    let (y, reconstruction) = (sample.measured(y)?, sample.measured(&reconstruction)?);
    let active: Vec<&Active> =
        sample.places.measured.iter().map(|&row| &active[row as usize]).collect();
    let groups = sample.places.groups_of(&sample.places.measured);
    let rows = Rows::of(dictionary, &active, &(&y - &reconstruction)?, &groups)?;
    let found = active.iter().map(|active| active.len()).sum::<usize>();
    Ok(Conformance {
        id: dictionary.id,
        width: dictionary.width(),
        l0: found as f64 / active.len() as f64,
        variance_explained: Fit::of(&y, &reconstruction)?.explained(),
        dead: dead(&active, dictionary.width()),
        loss_recovered: recovered.share,
        loss_interval: recovered.interval,
        loss_tokens: loss_tokens as u64,
        loss_contexts: clean.len() as u64,
        predicts: clean.iter().sum::<f64>() / (loss_tokens as f64)
            < (model.sizes.vocabulary as f64).ln(),
        tokens: active.len() as u64,
        origin: dictionary.origin.clone(),
        notes: dictionary.notes.clone(),
        typical: Typical {
            explained: groups.explained(&y, &reconstruction)?.median(),
            l0: groups.l0(&active),
            recovered: Recovered::typical(clean, &zero, &with),
        },
        readings: suspects::tried(model, sample, &products, (own, first), &rows)?,
        rows: rows.fit(),
        lost: scales::lost(&products),
        in_logs: scales::in_logs(&encoder),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recovered_is_of_sums_and_has_an_interval_over_contexts() {
        let found = Recovered::of(&[1.0, 3.0], &[3.0, 7.0], &[1.0, 4.0]);
        assert_eq!(found.share, Some(5.0 / 6.0));
        // A resample has the first context twice, the second twice, or both.
        assert_eq!(found.interval, Some([0.75, 1.0]));
        let typical =
            Recovered::typical(&[1.0, 3.0, 9.0, 5.0], &[3.0, 7.0, 9.5, 4.0], &[1.0, 4.0, 1.0, 4.0]);
        assert_eq!(typical, 1.0);
        let one = Recovered::of(&[1.0], &[3.0], &[2.0]);
        assert_eq!((one.share, one.interval), (Some(0.5), None));
        // Zero helps, or may.
        let none = Recovered::of(&[3.0, 3.0], &[3.0, 2.0], &[3.0, 3.0]);
        assert_eq!((none.share, none.interval), (None, None));
        let unsure = Recovered::of(&[3.0, 3.0], &[6.0, 2.0], &[3.0, 3.0]);
        assert_eq!((unsure.share, unsure.interval), (Some(1.0), None));
    }
}
