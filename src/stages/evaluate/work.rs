//! What `evaluate` works from, and what it makes of it: single-token rules (`rules`), what the live
//! model raises under steering (`steering`), texts (`texts`) and verdicts on them (`judging`).
//!
//! Rules and explanations are of the *explain* half; everything they are tried on is of the *score*
//! half.

use super::Run;
use crate::artifact::tables::{
    AgreementRow, EvaluationRow, ExampleRow, ExplanationRow, FeatureRow, ImportedRow,
};
use crate::atlas::activations::counting;
use crate::atlas::scores::Scores;
use crate::error::Result;
use crate::ids::{Band, FeatureId, Half, Status};
use crate::inputs::{Contexts, by};
use crate::stats::agreement::{over_pairs, words_in_common};
use crate::stats::feature::TokenActivation;
use crate::stats::interval::Estimate;
use crate::stats::trials::control;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What a language model says of a feature.
pub(super) struct LlmExplanation {
    pub(super) sample: u32,
    pub(super) explainer: String,
    pub(super) input: String,
    /// A sentence for each of `causes`.
    pub(super) clauses: Vec<String>,
    pub(super) causes: Vec<String>,
    pub(super) claims: Vec<String>,
}

/// The features, their examples and explanations.
pub(super) struct Work<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) contexts: Contexts,
    /// Those with a page; a feature's place is what it is called by here.
    pub(super) features: Vec<FeatureRow>,
    /// By place: what is drawn for a feature is drawn by this.
    pub(super) salts: Vec<u64>,
    scores: Scores<'a>,
    /// By feature.
    pub(super) examples: BTreeMap<FeatureId, Vec<ExampleRow>>,
    /// By place, those that have any; by sample.
    pub(super) told: BTreeMap<usize, Vec<LlmExplanation>>,
}

/// What the sample numbers of others' explanations begin at.
const IMPORTED: u32 = 1_000_000;

impl LlmExplanation {
    /// Whether somebody else wrote it.
    pub(super) fn is_imported(&self) -> bool {
        self.sample >= IMPORTED
    }
}

/// Others' explanations, each with the number of its explainer as its sample.
fn numbered(rows: Vec<ImportedRow>) -> Vec<(ImportedRow, u32)> {
    let names: BTreeSet<String> = rows.iter().map(|row| row.explainer.clone()).collect();
    let numbers: BTreeMap<String, u32> = names.into_iter().zip(IMPORTED..).collect();
    let number = |row: ImportedRow| {
        let number = numbers.get(&row.explainer).copied().unwrap_or(IMPORTED);
        (row, number)
    };
    rows.into_iter().map(number).collect()
}

impl EvaluationRow {
    /// The same with its score.
    pub(super) fn scored(self, score: Option<Estimate>) -> EvaluationRow {
        let of = |part: fn(Estimate) -> f64| score.map(part);
        let (low, high) = (of(|e| e.low), of(|e| e.high));
        EvaluationRow { score: of(|e| e.value), low, high, ..self }
    }
}

impl<'a> Work<'a> {
    pub(super) fn load(run: &'a Run<'a>) -> Result<Work<'a>> {
        let scored = run.store.read_column::<FeatureRow, u32>("key")?.len();
        let features: Vec<FeatureRow> = run.store.read_that("page", true)?;
        let keys: BTreeMap<FeatureId, usize> =
            features.iter().enumerate().map(|(i, row)| (row.feature, i)).collect();
        let names = features.iter().map(|row| row.feature.to_string()).collect();
        let examples: Vec<ExampleRow> = run.store.read_about(&["subject"], &names)?;
        let mut told: BTreeMap<usize, Vec<LlmExplanation>> = BTreeMap::new();
        // Rows are by subject, kind, explainer and sample. The statistics name no model.
        for row in run.store.read::<ExplanationRow>()? {
            let key = row.subject.feature().and_then(|feature| keys.get(&feature));
            let key = key.filter(|_| row.status == Status::Ok);
            if let Some(key) = key.filter(|_| !row.model.is_empty()) {
                told.entry(*key).or_default().push(LlmExplanation {
                    sample: row.sample,
                    explainer: row.explainer,
                    input: row.input_side,
                    clauses: row.clauses,
                    causes: row.causes,
                    claims: row.claims,
                });
            }
        }
        for (row, sample) in numbered(run.store.imported()?) {
            if let Some(key) = keys.get(&row.feature) {
                told.entry(*key).or_default().push(LlmExplanation {
                    sample,
                    explainer: row.explainer,
                    input: row.text,
                    clauses: Vec::new(),
                    causes: Vec::new(),
                    claims: Vec::new(),
                });
            }
        }
        let contexts = Contexts::load(run.config, run.store)?;
        let salts = features.iter().map(|row| row.feature.salt()).collect();
        Ok(Work {
            run,
            contexts,
            scores: Scores::open(run.store, scored)?,
            salts,
            examples: by(examples, |row| row.subject.clone())
                .into_iter()
                .filter_map(|(subject, rows)| Some((subject.feature()?, rows)))
                .collect(),
            told,
            features,
        })
    }

    /// Something of each of some features, whose places are in order, made of its number among them
    /// and its activations at tokens that count; these are read for some features at a time.
    pub(super) fn of_activations<T: Send>(
        &self,
        places: &[usize],
        make: impl Fn(usize, &[TokenActivation]) -> T + Sync,
    ) -> Result<Vec<T>> {
        let keys: Vec<u32> = places.iter().map(|&place| self.features[place].key).collect();
        let mut all = Vec::with_capacity(keys.len());
        for block in self.scores.blocks(&keys, self.run.config.machine.share(4)) {
            let activations = self.scores.of(&keys[block.clone()])?;
            let make = |i: usize| {
                let own = counting(&self.contexts, activations.at(i - block.start));
                make(i, &own.collect::<Vec<_>>())
            };
            all.par_extend(block.clone().into_par_iter().map(make));
        }
        Ok(all)
    }

    /// The examples of a feature in one half, in bands, and each band by rank.
    pub(super) fn examples(&self, key: usize, half: Half) -> impl Iterator<Item = &ExampleRow> {
        let all =
            self.examples.get(&self.features[key].feature).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(move |row| row.half == half)
    }

    /// The active examples of the *score* half, a list a band, made into something.
    pub(super) fn active<'s, T>(
        &'s self,
        key: usize,
        make: impl Fn(&'s ExampleRow) -> T,
    ) -> Vec<Vec<T>> {
        let band = |band: Band| {
            let own = self.examples(key, Half::Score).filter(|row| row.band == band);
            own.map(&make).collect()
        };
        Band::ACTIVE.map(band).into()
    }

    /// The activation from which on a text counts as active.
    pub(super) fn threshold(&self, key: usize) -> f32 {
        let largest = self.examples(key, Half::Explain).map(|row| row.value).fold(0.0, f32::max);
        largest * self.run.config.evaluate.threshold as f32
    }

    /// Another of these features, to stand for chance.
    pub(super) fn control(&self, key: usize, among: impl Iterator<Item = usize>) -> Option<usize> {
        control(self.salts[key], among.map(|other| (other, self.salts[other])))
    }

    /// Its first explanation, unless that failed.
    pub(super) fn first(&self, key: usize) -> Option<&LlmExplanation> {
        self.told.get(&key)?.first().filter(|told| told.sample == 0)
    }

    /// How far the samples of each feature's explanation share their words.
    pub(super) fn shared_words(&self) -> Vec<AgreementRow> {
        let own = |(key, told): (&usize, &'_ Vec<LlmExplanation>)| {
            (*key, told.iter().filter(|one| !one.is_imported()).count())
        };
        let several = self.told.iter().map(own).filter(|(_, own)| *own > 1);
        let row = |(key, own): (usize, usize)| {
            // Others' are behind them.
            let told = &self.told[&key][..own];
            let (compared, value) = over_pairs(told, |a, b| words_in_common(&a.input, &b.input));
            self.agreement(key, "samples", "words", compared, value)
        };
        several.map(row).collect()
    }

    /// A score of which nothing is known yet.
    pub(super) fn unscored(
        &self,
        key: usize,
        explainer: &str,
        method: &str,
        judge: &str,
    ) -> EvaluationRow {
        EvaluationRow {
            subject: self.features[key].feature,
            explainer: explainer.into(),
            method: method.into(),
            judge: judge.into(),
            clause: None,
            examples: 0,
            score: None,
            low: None,
            high: None,
            null: None,
            null_subject: None,
            rule: None,
            any: None,
            right_token: None,
            right_similar: None,
            right_inactive: None,
        }
    }

    pub(super) fn agreement(
        &self,
        key: usize,
        between: &str,
        of: &str,
        compared: usize,
        value: Option<f64>,
    ) -> AgreementRow {
        AgreementRow {
            subject: self.features[key].feature,
            between: between.into(),
            of: of.into(),
            compared: compared as u32,
            value,
        }
    }
}
