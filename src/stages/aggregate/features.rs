//! What is made of the activations of one feature, a block of features at a time.

use super::Work;
use super::evidence::{Corpus, Evidence};
use super::parts::{self, Stretch};
use crate::artifact::TableWriter;
use crate::artifact::tables::{
    BeforeRow, CircuitFeature, EvidenceRow, ExampleRow, FeatureRow, ProfileRow,
};
use crate::atlas::activations::{counting, feature_examples, feature_row, measured};
use crate::error::Result;
use crate::ids::FeatureId;
use crate::stats::examples::Wanted;
use crate::stats::feature::TokenActivation;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Features whose rows are held before they are written.
const AT_ONCE: usize = 256;

/// What is needed of the corpus and the circuits for every feature.
pub(super) struct Maker<'a> {
    work: &'a Work<'a>,
    corpus: Corpus<'a>,
    serving: BTreeMap<FeatureId, Vec<&'a CircuitFeature>>,
    /// Contexts of the *explain* half, and the others.
    halves: [Vec<u32>; 2],
    /// Tokens that count: of all contexts, and of the *explain* half.
    tokens: [u64; 2],
    wanted: Wanted,
}

/// The rows of one feature.
pub(super) struct Made {
    pub(super) feature: FeatureRow,
    pub(super) examples: Vec<ExampleRow>,
    pub(super) evidence: Evidence,
}

/// Writes what is of one feature; its examples into the table of those of all subjects. Gives the
/// largest activation of each feature, by key.
pub(super) fn write_features(
    work: &Work,
    stretches: &[Stretch],
    examples: &mut TableWriter<ExampleRow>,
) -> Result<Vec<f32>> {
    let (store, fingerprint) = (work.run.store, work.run.fingerprint);
    let mut features = store.writer::<FeatureRow>(fingerprint)?;
    let mut evidence = store.writer::<EvidenceRow>(fingerprint)?;
    let mut profiles = store.writer::<ProfileRow>(fingerprint)?;
    let mut before = store.writer::<BeforeRow>(fingerprint)?;
    let maker = Maker::new(work);
    let mut maxima = Vec::with_capacity(work.features.len());
    work.run.progress.begin("features", work.features.len() as u64, 0);
    let mut add = |made: Made| {
        maxima.push(made.feature.max);
        features.add([made.feature])?;
        examples.add(made.examples)?;
        evidence.add(made.evidence.texts)?;
        profiles.add(made.evidence.profile)?;
        before.add(made.evidence.before)
    };
    for (keys, kept) in stretches {
        match *kept {
            None => maker.each(keys, &mut add)?,
            Some(number) => {
                work.run.progress.add(keys.len() as u64);
                parts::read(work, number)?.into_iter().try_for_each(&mut add)?;
            }
        }
    }
    features.end()?;
    evidence.end()?;
    profiles.end()?;
    before.end()?;
    Ok(maxima)
}

impl<'a> Maker<'a> {
    pub(super) fn new(work: &'a Work<'a>) -> Maker<'a> {
        let contexts = &work.contexts;
        let mut serving: BTreeMap<FeatureId, Vec<&CircuitFeature>> = BTreeMap::new();
        work.serving.iter().for_each(|row| serving.entry(row.feature).or_default().push(row));
        let aggregate = &work.run.config.aggregate;
        Maker {
            work,
            corpus: Corpus::new(work),
            serving,
            halves: [true, false].map(|explain| work.half(explain)),
            tokens: [
                contexts.tokens(),
                contexts.tokens_of(|context| contexts.explain[context as usize]),
            ],
            wanted: Wanted { top: aggregate.examples, per_band: aggregate.band_examples },
        }
    }

    /// Makes what is of some features, in order, a block at a time.
    pub(super) fn each(&self, keys: &[u32], mut add: impl FnMut(Made) -> Result<()>) -> Result<()> {
        let work = self.work;
        for block in work.scores.blocks(keys, work.run.config.machine.share(4)) {
            let keys = &keys[block];
            let activations = work.scores.of(keys)?;
            for start in (0..keys.len()).step_by(AT_ONCE) {
                let some = start..keys.len().min(start + AT_ONCE);
                let make = |place: usize| -> Result<Made> {
                    work.run.progress.step(1)?;
                    Ok(self.make(keys[place], activations.at(place)))
                };
                let made = some.into_par_iter().map(make).collect::<Result<Vec<Made>>>()?;
                made.into_iter().try_for_each(&mut add)?;
            }
        }
        Ok(())
    }

    fn make(&self, key: u32, activations: &[TokenActivation]) -> Made {
        let Maker { work, halves, tokens, wanted, .. } = self;
        let (contexts, feature) = (&work.contexts, work.features[key as usize]);
        let [all, explain] = measured(contexts, activations, *tokens);
        let serving = self.serving.get(&feature).map(Vec::as_slice).unwrap_or_default();
        let tasks = work.run.config.tasks.iter().map(|task| task.name.clone());
        let page = work.with_page.binary_search(&key).is_ok();
        let mut counted: Vec<TokenActivation> = counting(contexts, activations).collect();
        let examples = feature_examples(contexts, feature, &counted, halves, *wanted);
        let evidence = match page {
            true => {
                counted.retain(|at| contexts.explain[at.context as usize]);
                self.corpus.evidence(feature, &counted, &explain)
            }
            false => Evidence::default(),
        };
        let row = feature_row(key, feature, page, [&all, &explain], serving, tasks);
        Made { feature: row, examples, evidence }
    }
}
