//! What has an explanation, gathered from the tables: for a sentence from the statistics
//! (`summaries`), and for a question to a language model (`features`, and `sets` and `heads` of what
//! is made of features).
//!
//! Of the corpus it holds the *explain* half alone, so that nothing else can enter an explanation.

use crate::artifact::tables::{CircuitPairRow, ClusterRow, ExampleRow, FeatureRow, LogitRow};
use crate::atlas::{strongest, without_page};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{Band, FeatureId, Half, Side, Subject};
use crate::inputs::{self, Contexts};
use crate::llm::explainer::TokenEvidence;
use crate::stages::Run;
use crate::stages::excerpts::of_example;
use crate::stats::strata::stratified;
use crate::stats::{mix, salt};
use crate::summary::Sentences;
use std::collections::BTreeMap;

/// Strongest texts that a language model is shown.
const STRONGEST: usize = 8;
/// What such a list of texts may take, in tokens of a language model, about.
const TEXTS: usize = 500;
/// Promoted tokens that it is shown, and suppressed ones.
pub(super) const PROMOTED: usize = 10;
pub(super) const SUPPRESSED: usize = 6;

/// The sentences about each subject that is explained already.
pub(super) type Said = BTreeMap<Subject, Sentences>;

/// Everything that has an explanation.
pub(super) struct Subjects<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) tokenizer: Tokenizer,
    pub(super) contexts: Contexts,
    /// What the model is, in words.
    pub(super) about: String,
    pub(super) last_layer: u32,
    pub(super) features: Vec<FeatureRow>,
    pub(super) sets: Vec<FeatureSet>,
    /// Of the *explain* half.
    pub(super) examples: BTreeMap<Subject, Vec<ExampleRow>>,
    /// By side and rank.
    logits: BTreeMap<Subject, Vec<LogitRow>>,
}

/// Features that are explained together.
pub(super) struct FeatureSet {
    pub(super) subject: Subject,
    pub(super) members: Vec<Member>,
}

/// A feature of a set.
pub(super) struct Member {
    pub(super) feature: FeatureId,
    /// Prompts in which it serves at the component; 0 in other sets.
    pub(super) prompts: u32,
}

impl<'a> Subjects<'a> {
    pub(super) fn load(run: &'a Run<'a>) -> Result<Subjects<'a>> {
        let others = without_page(run.store)?;
        let by_subject = |rows| inputs::by(rows, |row: &LogitRow| row.subject.clone());
        Ok(Subjects {
            run,
            tokenizer: inputs::tokenizer(run.config)?,
            contexts: Contexts::load(run.config, run.store)?,
            about: inputs::about(run.config)?,
            last_layer: inputs::sizes(run.config)?.layers.saturating_sub(1) as u32,
            features: run.store.read_that("page", true)?,
            sets: sets(run)?,
            examples: examples(run.store.read_without("subject", &others)?),
            logits: by_subject(run.store.read_without("subject", &others)?),
        })
    }

    pub(super) fn examples(&self, subject: &Subject) -> &[ExampleRow] {
        self.examples.get(subject).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn band<'s>(
        &'s self,
        subject: &Subject,
        band: Band,
    ) -> impl Iterator<Item = &'s ExampleRow> {
        self.examples(subject).iter().filter(move |example| example.band == band)
    }

    /// The strongest texts, marked.
    pub(super) fn strongest(&self, subject: &Subject) -> Vec<String> {
        let max = self.max(subject);
        let shown = |example: &ExampleRow| of_example(example, &self.contexts).scaled(max, 1);
        thinned(
            self.band(subject, Band::Top).take(STRONGEST).map(shown).collect(),
            salt(&subject.to_string()),
            String::as_str,
        )
    }

    /// The largest activation of the *explain* half.
    pub(super) fn max(&self, subject: &Subject) -> f32 {
        self.examples(subject).iter().map(|example| example.value).fold(0.0, f32::max)
    }

    /// Promoted or suppressed tokens, the strongest first.
    pub(super) fn listed(&self, subject: &Subject, side: Side) -> impl Iterator<Item = &LogitRow> {
        let own = self.logits.get(subject).map(Vec::as_slice).unwrap_or_default();
        own.iter().filter(move |row| row.side == side)
    }

    pub(super) fn logits(&self, subject: &Subject) -> TokenEvidence {
        let first = |side: Side, n: usize| self.listed(subject, side).take(n).map(told).collect();
        TokenEvidence {
            promoted: first(Side::Top, PROMOTED),
            suppressed: first(Side::Bottom, SUPPRESSED),
        }
    }
}

/// A promoted token as it is told.
pub(super) fn told(row: &LogitRow) -> (String, f64) {
    (row.text.clone(), f64::from(row.logit))
}

/// As long as texts take too much, one of each two neighbours stays, which of them is drawn: what
/// stays spans all strengths still, and neither of two kinds that alternate is lost.
pub(super) fn thinned<T>(mut texts: Vec<T>, mut seed: u64, text: impl Fn(&T) -> &str) -> Vec<T> {
    const FEW: usize = 3;
    // Four characters a token; a mark and its level are four tokens of about five characters.
    let size = |one: &T| text(one).chars().count() / 4 + 3 * text(one).matches('»').count();
    while texts.len() > FEW && texts.iter().map(size).sum::<usize>() > TEXTS {
        let pairs: Vec<usize> = (0..texts.len()).map(|place| place / 2).collect();
        let stay = stratified(&pairs, texts.len().div_ceil(2), seed);
        let mut places = 0..;
        texts.retain(|_| {
            places.next().is_some_and(|place: usize| stay.binary_search(&place).is_ok())
        });
        // So that it is not the same side of each pair in the next round.
        seed = mix(seed, 1);
    }
    texts
}

fn sets(run: &Run) -> Result<Vec<FeatureSet>> {
    let component = |row: ClusterRow| {
        let members = row.members.into_iter().zip(row.weights);
        let members = members.map(|(feature, prompts)| Member { feature, prompts }).collect();
        FeatureSet { subject: row.component.into(), members }
    };
    let mut sets: Vec<FeatureSet> =
        run.store.read::<ClusterRow>()?.into_iter().map(component).collect();
    let strongest = strongest(&run.store.read::<CircuitPairRow>()?);
    let mut pairs: Vec<Subject> = strongest.into_values().flatten().collect();
    pairs.sort_by_cached_key(Subject::to_string);
    pairs.dedup();
    let plain = |feature: FeatureId| Member { feature, prompts: 0 };
    let of = |pair: &Subject| match *pair {
        Subject::Pair(a, b) => vec![plain(a), plain(b)],
        _ => Vec::new(),
    };
    sets.extend(pairs.into_iter().map(|pair| FeatureSet { members: of(&pair), subject: pair }));
    for group in &run.config.groups {
        let members = group.features.iter().map(|name| Ok(plain(name.parse()?)));
        let members = members.collect::<Result<_>>()?;
        sets.push(FeatureSet { subject: Subject::Group(group.name.clone()), members });
    }
    Ok(sets)
}

/// The examples that explanations may see, by subject.
fn examples(rows: Vec<ExampleRow>) -> BTreeMap<Subject, Vec<ExampleRow>> {
    let seen = rows.into_iter().filter(|row| row.half == Half::Explain);
    inputs::by(seen.collect(), |row| row.subject.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of what is left of `n` texts.
    fn left(n: usize, seed: u64, text: &str) -> Vec<usize> {
        let texts: Vec<(usize, &str)> = (0..n).map(|i| (i, text)).collect();
        thinned(texts, seed, |one| one.1).into_iter().map(|one| one.0).collect()
    }

    #[test]
    fn texts_that_take_too_much_are_thinned_over_all_strengths() {
        let halves = |left: &[usize]| left.iter().map(|i| i / 2).collect::<Vec<_>>();
        for seed in 0..20 {
            assert_eq!(left(8, seed, "a short text"), [0, 1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(
                halves(&left(8, seed, &"x".repeat(400))),
                [0, 1, 2, 3],
                "one of each two neighbours"
            );
            assert_eq!(halves(&left(7, seed, &"x".repeat(400))), [0, 1, 2, 3]);
            for long in ["«x»[1]".repeat(40), "x".repeat(4000)] {
                let left: Vec<usize> = left(8, seed, &long).iter().map(|i| i / 4).collect();
                assert_eq!(left, [0, 1], "two are always left");
            }
        }
        assert_eq!(left(8, 3, &"x".repeat(400)), left(8, 3, &"x".repeat(400)));
    }

    #[test]
    fn of_texts_that_alternate_both_kinds_stay() {
        let left: Vec<usize> = (0..200).flat_map(|seed| left(8, seed, &"x".repeat(400))).collect();
        let odd = left.iter().filter(|i| *i % 2 == 1).count();
        assert!((350..450).contains(&odd), "{odd} of {}", left.len());
    }
}
