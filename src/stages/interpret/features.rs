//! The question about a feature: its texts from the strongest to the inactive ones, and its tokens.

use super::subjects::{Subjects, thinned};
use crate::artifact::tables::FeatureRow;
use crate::error::Result;
use crate::ids::{Band, Kind, Subject};
use crate::llm::Question;
use crate::llm::excerpt::level;
use crate::llm::explainer::{Evidence, FeatureEvidence};
use crate::stages::excerpts::of_example;
use crate::stats::{mix, salt};
use rayon::prelude::*;

/// Inactive texts that are shown.
const INACTIVE_TEXTS: usize = 4;

impl Subjects<'_> {
    /// The questions about all features that are active where explanations look, each as often as
    /// samples are wanted. They come in a drawn order: where money ends early, what has been
    /// explained is no choice of layers.
    pub(super) fn questions_alone(&self) -> Result<Vec<Question>> {
        let llm = &self.run.config.llm;
        let mut active: Vec<&FeatureRow> =
            self.features.iter().filter(|row| !row.explain_tokens.is_empty()).collect();
        active.sort_by_cached_key(|row| (salt(&row.feature.to_string()), row.feature.to_string()));
        let question =
            |row: &&FeatureRow| self.feature(row).question(&row.feature.into(), &llm.model);
        let questions: Vec<Question> = active.par_iter().map(question).collect::<Result<_>>()?;
        let again = |question: Question| {
            (0..llm.samples).map(move |sample| Question { sample, ..question.clone() })
        };
        Ok(questions.into_iter().flat_map(again).collect())
    }

    fn feature(&self, row: &FeatureRow) -> Evidence {
        let subject = &Subject::from(row.feature);
        let inactive = self.band(subject, Band::Inactive).take(INACTIVE_TEXTS);
        Evidence::Feature(FeatureEvidence {
            attention: row.kind == Kind::Attention,
            layer: row.layer,
            last_layer: self.last_layer,
            density: row.explain_density,
            strongest: self.strongest(subject),
            weaker: self.weaker(subject),
            inactive: inactive
                .map(|example| of_example(example, &self.tokenizer).plain())
                .collect(),
            mass: self.mass(row),
            tokens: self.logits(subject),
        })
    }

    /// A text of each tenth of the active ones, the strongest tenth first, with the level of its
    /// peak.
    fn weaker(&self, subject: &Subject) -> Vec<(u32, String)> {
        let max = self.max(subject);
        let bands = (0..10).rev().map(Band::Tenth);
        let first = |band: Band| {
            let example = self.examples(subject).iter().find(|example| example.band == band)?;
            Some((level(example.value, max), of_example(example, &self.tokenizer).scaled(max)))
        };
        thinned(
            bands.filter_map(first).collect(),
            mix(salt(&subject.to_string()), 1),
            |(_, text)| text,
        )
    }
}
