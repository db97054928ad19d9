//! How well a dictionary describes the model, measured on real tokens: L0, variance explained, dead
//! features and loss recovered (`docs/definitions.md` §3).
//!
//! A dictionary that is read wrongly, or is another's, mostly still gives numbers. So each is also
//! read in the ways in which people have gone wrong (`suspects`, `scales`, `heads`), and compared
//! with the others of its kind (`judge`): it is refused with the cause, or warned about.

mod heads;
mod judge;
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
use candle_core::{DType, Tensor};
use products::Products;
use rows::{RowFit, Rows};
use std::path::PathBuf;
use suspects::Readings;

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
    /// Whether the model predicts better than by chance, all tokens being as likely: otherwise
    /// what it loses and recovers says nothing.
    predicts: bool,
    /// Tokens measured on.
    pub tokens: u64,
    /// The file that it is from.
    origin: PathBuf,
    /// What its config says that is not as it is used here.
    notes: Vec<String>,
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

/// What variance explained is made of.
struct Fit {
    residual: f64,
    y: Vec<f64>,
    y2: f64,
    tokens: f64,
}

impl Fit {
    /// Of what is reconstructed `y [T, D]`, and its reconstruction.
    fn of(y: &Tensor, reconstruction: &Tensor) -> Result<Fit> {
        let (y64, e) = (y.to_dtype(DType::F64)?, (y - reconstruction)?.to_dtype(DType::F64)?);
        Ok(Fit {
            residual: e.sqr()?.sum_all()?.to_scalar()?,
            y: y64.sum(0)?.to_vec1()?,
            y2: y64.sqr()?.sum_all()?.to_scalar()?,
            tokens: y.dim(0)? as f64,
        })
    }

    fn variance(&self) -> f64 {
        self.y2 - self.y.iter().map(|y| y * y).sum::<f64>() / self.tokens
    }

    fn explained(&self) -> f64 {
        let variance = self.variance();
        if variance > 0.0 { 1.0 - self.residual / variance } else { 0.0 }
    }
}

/// How many features are never active.
fn dead(active: &[&Active], width: usize) -> u64 {
    let mut alive = vec![false; width];
    active.iter().copied().flatten().for_each(|(f, _)| alive[*f as usize] = true);
    alive.iter().filter(|alive| !**alive).count() as u64
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
    let places = sample.tried.iter().chain(&sample.not_tried);
    for (&place, found) in places.zip(own.iter().cloned().chain(rest)) {
        active[place as usize] = found;
    }
    let reconstruction = dictionary.decode(&active)?;
    let [zero, with] = [y.zeros_like()?, reconstruction.clone()]
        .map(|value| sample.loss_with(model, dictionary.id, &value));
    let (clean, zero, with) = (sample.loss(), zero?, with?);
    // BOS is left out: its activations are like no other token's and would carry most of the
    // variance.
    let (y, reconstruction) = (sample.behind_bos(y)?, sample.behind_bos(&reconstruction)?);
    let active: Vec<&Active> =
        sample.behind_bos.iter().map(|&place| &active[place as usize]).collect();
    let rows = Rows::of(dictionary, &active, &(&y - &reconstruction)?)?;
    let found = active.iter().map(|active| active.len()).sum::<usize>();
    let first = dictionary.decode(&own)?;
    Ok(Conformance {
        id: dictionary.id,
        width: dictionary.width(),
        l0: found as f64 / active.len() as f64,
        variance_explained: Fit::of(&y, &reconstruction)?.explained(),
        dead: dead(&active, dictionary.width()),
        loss_recovered: (zero > clean).then(|| (zero - with) / (zero - clean)),
        predicts: clean / (sample.predicted() as f64) < (model.sizes.vocabulary as f64).ln(),
        tokens: active.len() as u64,
        origin: dictionary.origin.clone(),
        notes: dictionary.notes.clone(),
        readings: suspects::tried(model, sample, &products, (own, first), &rows)?,
        rows: rows.fit(),
        lost: scales::lost(&products),
        in_logs: scales::in_logs(&encoder),
    })
}
