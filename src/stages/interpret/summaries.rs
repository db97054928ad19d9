//! A sentence from the statistics about each subject.

use super::subjects::{FeatureSet, Subjects};
use crate::artifact::tables::{ExampleRow, FeatureRow};
use crate::corpus::Tokenizer;
use crate::ids::{Band, Side, Subject, SubjectKind};
use crate::summary::{Around, Facts, Sentences, feature, together};

/// What the statistics say of a subject.
pub(super) struct Counted {
    pub subject: Subject,
    pub said: Sentences,
}

impl Subjects<'_> {
    /// Of every subject.
    pub(super) fn counted(&self) -> Vec<Counted> {
        let feature = |row: &FeatureRow| Counted {
            subject: row.feature.into(),
            said: self.counted_alone(row),
        };
        let set = |set: &FeatureSet| Counted {
            subject: set.subject.clone(),
            said: self.counted_together(set),
        };
        self.features.iter().map(feature).chain(self.sets.iter().map(set)).collect()
    }

    fn counted_alone(&self, row: &FeatureRow) -> Sentences {
        let subject = &Subject::from(row.feature);
        of_feature(row, self.examples(subject), &self.texts(subject), &self.tokenizer)
    }

    fn counted_together(&self, set: &FeatureSet) -> Sentences {
        let peaks: Vec<String> = self
            .band(&set.subject, Band::Top)
            .map(|row| around(row, &self.tokenizer).peak)
            .collect();
        let [promoted, suppressed] = self.texts(&set.subject);
        together(&lead(set), &peaks, &promoted, &suppressed)
    }

    /// Promoted and suppressed tokens, best first.
    fn texts(&self, subject: &Subject) -> [Vec<String>; 2] {
        [Side::Top, Side::Bottom]
            .map(|side| self.listed(subject, side).map(|row| row.text.clone()).collect())
    }
}

/// Of a feature, from its examples of the *explain* half and the texts of what it promotes and
/// suppresses.
pub(crate) fn of_feature(
    row: &FeatureRow,
    examples: &[ExampleRow],
    [promoted, suppressed]: &[Vec<String>; 2],
    tokenizer: &Tokenizer,
) -> Sentences {
    let around = |row: &ExampleRow| around(row, tokenizer);
    let strongest: Vec<Around> =
        examples.iter().filter(|row| row.band == Band::Top).map(around).collect();
    let active = examples.iter().filter(|row| row.band != Band::Inactive);
    let peaks: Vec<String> = active.map(|row| around(row).peak).collect();
    feature(&Facts {
        mass: &mass(row, tokenizer),
        density: row.explain_density,
        peaks: &peaks,
        strongest: &strongest,
        promoted,
        suppressed,
    })
}

/// The tokens of the *explain* half with their shares of a feature's activation.
fn mass(row: &FeatureRow, tokenizer: &Tokenizer) -> Vec<(String, f64)> {
    let tokens = row.explain_tokens.iter().map(|&id| tokenizer.token(id));
    tokens.zip(row.explain_shares.iter().copied()).collect()
}

/// How the sentence about a set begins.
fn lead(set: &FeatureSet) -> String {
    match (set.subject.kind(), set.members.len()) {
        (SubjectKind::Component, 1) => "One feature serves here, strongest".to_string(),
        (SubjectKind::Component, n) => format!("{n} features serve here, together strongest"),
        (SubjectKind::Pair | SubjectKind::Feature, _) => {
            "The sum of the two is largest".to_string()
        }
        (SubjectKind::Group, n) => format!("{n} features, together strongest"),
    }
}

/// The peak of an example and its neighbours. BOS, at position 0, is no text.
fn around(example: &ExampleRow, tokenizer: &Tokenizer) -> Around {
    let at = usize::from(example.peak - example.start);
    let before =
        at.checked_sub(1).filter(|_| example.peak > 1).map(|i| tokenizer.token(example.tokens[i]));
    let after = example.tokens.get(at + 1).map(|&id| tokenizer.token(id));
    Around { before, peak: tokenizer.token(example.tokens[at]), after }
}
