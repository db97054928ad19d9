//! What `evaluate` works from, and what it makes of it: single-token rules (`rules`), what the live
//! model says more of (`causal`), texts (`texts`) and verdicts on them (`judged`).
//!
//! Rules and explanations are of the *explain* half; everything they are tried on is of the *score*
//! half.

mod causal;
mod judged;
mod rules;
mod texts;

pub use judged::{Judged, Judging};

use super::Run;
use super::inputs::{Contexts, by};
use crate::artifact::tables::{AgreementRow, ExampleRow, ExplanationRow, FeatureRow};
use crate::corpus::Half;
use crate::error::Result;
use crate::ids::FeatureId;
use crate::stats::agreement::{over_pairs, words_in_common};
use crate::stats::trials::stranger;
use std::collections::BTreeMap;

/// The band of silent examples.
const SILENT: &str = "inactive";
/// The bands of active ones, the strongest first.
const BANDS: [&str; 11] = ["top", "q9", "q8", "q7", "q6", "q5", "q4", "q3", "q2", "q1", "q0"];

/// What a language model says of a feature.
struct Told {
    sample: u32,
    explainer: String,
    input: String,
    claims: Vec<String>,
}

/// The features, their examples and explanations.
pub struct Work<'a> {
    run: &'a Run<'a>,
    pub contexts: Contexts,
    /// By key.
    pub features: Vec<FeatureRow>,
    /// By key: what is drawn for a feature is drawn by this.
    salts: Vec<u64>,
    /// By feature.
    examples: BTreeMap<String, Vec<ExampleRow>>,
    /// By key, those that have any; by sample.
    told: BTreeMap<usize, Vec<Told>>,
}

impl<'a> Work<'a> {
    pub fn load(run: &'a Run<'a>) -> Result<Work<'a>> {
        let features: Vec<FeatureRow> = run.store.read()?;
        let keys: BTreeMap<&str, usize> =
            features.iter().enumerate().map(|(i, row)| (&*row.feature, i)).collect();
        let mut examples: Vec<ExampleRow> = run.store.read()?;
        examples.retain(|row| keys.contains_key(&*row.subject));
        let mut told: BTreeMap<usize, Vec<Told>> = BTreeMap::new();
        // Rows are by subject, kind, explainer and sample. The statistics name no model.
        for row in run.store.read::<ExplanationRow>()? {
            let key =
                keys.get(&*row.subject).filter(|_| row.kind == "feature" && row.status == "ok");
            if let Some(key) = key.filter(|_| !row.model.is_empty()) {
                let ExplanationRow { sample, explainer, input_side: input, claims, .. } = row;
                told.entry(*key).or_default().push(Told { sample, explainer, input, claims });
            }
        }
        let contexts = Contexts::load(run.config, run.store)?;
        let salts = features
            .iter()
            .map(|row| Ok(row.feature.parse::<FeatureId>()?.salt()))
            .collect::<Result<_>>()?;
        Ok(Work {
            run,
            contexts,
            salts,
            examples: by(examples, |row| row.subject.clone()),
            told,
            features,
        })
    }

    /// The examples of a feature in one half, in bands, and each band by rank.
    fn examples(&self, key: usize, half: Half) -> impl Iterator<Item = &ExampleRow> {
        let all =
            self.examples.get(&self.features[key].feature).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(move |row| row.half == half.word())
    }

    /// The active examples of the *score* half, a list a band, made into something.
    fn active<'s, T>(&'s self, key: usize, make: impl Fn(&'s ExampleRow) -> T) -> Vec<Vec<T>> {
        let band = |band: &str| {
            let own = self.examples(key, Half::Score).filter(|row| row.band == band);
            own.map(&make).collect()
        };
        BANDS.map(band).into()
    }

    /// Another of these features, to stand for chance.
    fn stranger(&self, key: usize, among: impl Iterator<Item = usize>) -> Option<usize> {
        stranger(self.salts[key], among.map(|other| (other, self.salts[other])))
    }

    /// Its first explanation, unless that failed.
    fn first(&self, key: usize) -> Option<&Told> {
        self.told.get(&key)?.first().filter(|told| told.sample == 0)
    }

    /// How far the samples of each feature's explanation share their words.
    pub fn shared_words(&self) -> Vec<AgreementRow> {
        let several = self.told.iter().filter(|(_, told)| told.len() > 1);
        let row = |(key, told): (&usize, &Vec<Told>)| {
            let (compared, value) = over_pairs(told, |a, b| words_in_common(&a.input, &b.input));
            self.agreement(*key, "samples", "words", compared, value)
        };
        several.map(row).collect()
    }

    fn agreement(
        &self,
        key: usize,
        between: &str,
        of: &str,
        compared: usize,
        value: Option<f64>,
    ) -> AgreementRow {
        AgreementRow {
            subject: self.features[key].feature.clone(),
            between: between.into(),
            of: of.into(),
            compared: compared as u32,
            value,
        }
    }
}
