//! `score`: the activation of every chosen feature at every token, from the disk cache or from the
//! live model.

use crate::artifact::tables::{CircuitFeature, ConformanceRow, ContextRow, FeatureRow, ScoreRow};
use crate::artifact::{Row, Store};
use crate::atlas::scores::ScorePart;
use crate::config::StoreKind;
use crate::dictionary::{Dictionary, Scorer, hooks};
use crate::error::Result;
use crate::format::number::counted;
use crate::ids::{DictionaryId, FeatureId};
use crate::inputs;
use crate::model::Gpt2;
use crate::stages::scoring::{Scored, cached, live, rows};
use crate::stages::{Done, Run};
use crate::stats;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Scores the features, part by part. What an earlier run has scored from the same model,
/// dictionaries and contexts is kept.
pub fn run(run: &Run) -> Result<Done> {
    let features = inputs::scored_features(run.config, &run.store.read::<CircuitFeature>()?)?;
    if features.is_empty() {
        let why = inputs::without_features(run.config)
            .unwrap_or_else(|| "no feature is scored: no circuit has any".into());
        run.progress.line(&format!("warning: {why}"));
    }
    let before = Before::find(run);
    let (done, open) = run.done_and_open(&ScoreRow::ARTIFACT)?;
    let parts = done.len() + open.len();
    // With features of several blocks each context is scored as often.
    let (known, times) = (run.contexts(&done)?, blocks(run, &features)?.len().max(1) as u64);
    run.progress.begin("contexts", times * (known + run.contexts(&open)?), times * known);
    let (mut all, mut new) = (None, None);
    for part in open {
        let kept = before.as_ref().and_then(|before| before.part(run, part));
        let scoring = match &kept {
            Some(kept) => Scoring::get(&mut new, run, &features, |one| !kept.before.has(one))?,
            None => Scoring::get(&mut all, run, &features, |_| true)?,
        };
        let contexts = run.store.read_part::<ContextRow>(part)?;
        let mut table = run.store.part_writer_of::<ScoreRow>(run.fingerprint, run.base, part)?;
        for block in &scoring.blocks {
            let mut rows = scoring.rows(run, block, part, &contexts)?;
            if let Some(kept) = &kept {
                rows.extend(kept.rows(&features, block.keys.clone())?);
                rows.sort_unstable_by_key(|row| (row.feature, row.context, row.position));
            }
            table.add(rows)?;
        }
        table.end()?;
    }
    let dictionaries = hooks(&features).len();
    let new = new.map(|new: Scoring| new.blocks.iter().map(|block| block.scored.len()).sum());
    let kept = new.map_or(String::new(), |new: usize| format!(", {new} of them new"));
    Ok(format!(
        "{} features of {dictionaries} dictionaries over {}{kept}",
        features.len(),
        counted(parts, "part")
    )
    .into())
}

/// What some of the features are scored with.
struct Scoring {
    blocks: Vec<Block>,
    dictionaries: Vec<Dictionary>,
    model: Option<Gpt2>,
}

/// Features in a row whose encoders and scores in a shard are in memory at once.
struct Block {
    /// The keys of all of them.
    keys: Range<usize>,
    /// The keys of those that are scored.
    scored: Vec<u32>,
    features: Vec<FeatureId>,
    /// Kept where there is no other block.
    scorer: Option<Scorer>,
}

impl Scoring {
    /// That of the features that are wanted, made when it is first asked for.
    fn get<'s>(
        place: &'s mut Option<Scoring>,
        run: &Run,
        features: &[FeatureId],
        wanted: impl Fn(FeatureId) -> bool,
    ) -> Result<&'s Scoring> {
        if let Some(made) = place {
            return Ok(made);
        }
        let some = features.iter().filter(|feature| wanted(**feature));
        let used: BTreeSet<_> = some.map(|feature| feature.dictionary).collect();
        let dictionaries =
            inputs::some_dictionaries(run.config, run.lock, run.progress, |id| used.contains(&id))?;
        let block = |keys: Range<usize>| {
            let some = keys.clone().filter(|&key| wanted(features[key]));
            let scored: Vec<u32> = some.map(|key| key as u32).collect();
            let features = scored.iter().map(|&key| features[key as usize]).collect();
            Block { keys, scored, features, scorer: None }
        };
        let mut blocks: Vec<Block> = blocks(run, features)?.into_iter().map(block).collect();
        if let [only] = &mut blocks[..] {
            only.scorer = Some(Scorer::new(&only.features, &dictionaries)?);
        }
        let is_live = run.config.cache.store == StoreKind::Stream && !used.is_empty();
        let model = is_live.then(|| inputs::model(run.config)).transpose()?;
        Ok(place.insert(Scoring { blocks, dictionaries, model }))
    }

    /// The rows of a block in a part, in order.
    fn rows(
        &self,
        run: &Run,
        block: &Block,
        part: u32,
        contexts: &[ContextRow],
    ) -> Result<Vec<ScoreRow>> {
        if block.scored.is_empty() {
            run.progress.step(contexts.len() as u64)?;
            return Ok(Vec::new());
        }
        let made = match block.scorer {
            Some(_) => None,
            None => Some(Scorer::new(&block.features, &self.dictionaries)?),
        };
        let Some(scorer) = block.scorer.as_ref().or(made.as_ref()) else { return Ok(Vec::new()) };
        let scored: Vec<Scored> = match &self.model {
            Some(model) => live(run, scorer, model, contexts)?,
            None => cached(run, scorer, part, contexts, |_| true)?,
        };
        let mut rows = rows(&scored);
        rows.iter_mut().for_each(|row| row.feature = block.scored[row.feature as usize]);
        Ok(rows)
    }
}

/// Bytes that an activation takes while a shard is scored: as a hit, as a row and in a data frame.
const HIT: f64 = 64.0;

/// Features of circuits are about so many times as active as the average one of their dictionary, or
/// less.
const OFTEN: f64 = 20.0;

/// Keys of features whose encoders, and scores in a shard as far as can be told, take no more memory
/// than is allowed.
fn blocks(run: &Run, features: &[FeatureId]) -> Result<Vec<Range<usize>>> {
    let width = inputs::sizes(run.config)?.d_model;
    let tokens = run.config.corpus.shard_contexts * run.config.corpus.context;
    let measured = run.store.read::<ConformanceRow>()?;
    let mut number: BTreeMap<DictionaryId, usize> = BTreeMap::new();
    features.iter().for_each(|feature| *number.entry(feature.dictionary).or_default() += 1);
    // Bytes of a feature, by how often it is active at most in the mean: as often as all of its
    // dictionary are, and hardly more often than many average ones.
    let cost = |(&id, &number): (&DictionaryId, &usize)| {
        let own = measured.iter().find(|row| row.dictionary == id);
        let active = own.map_or(1.0, |row| {
            (row.l0 / number as f64).min(OFTEN * row.l0 / f64::from(row.width)).min(1.0)
        });
        (id, (width * size_of::<f32>()) as f64 + HIT * tokens as f64 * active)
    };
    let costs: BTreeMap<DictionaryId, f64> = number.iter().map(cost).collect();
    let most = run.config.machine.share(2) as f64;
    Ok(stats::blocks(features.iter().map(|feature| costs[&feature.dictionary]), most))
}

/// What the run before has scored, as far as it can be told: the keys in its scores are those of the
/// features that were made from them.
struct Before {
    /// Where it is, whichever run it is of.
    store: Store,
    fingerprint: String,
    /// By key, in order.
    features: Vec<FeatureId>,
}

/// A part of it.
struct Kept<'a> {
    before: &'a Before,
    part: ScorePart,
}

impl Before {
    fn find(run: &Run) -> Option<Before> {
        let aggregate = run.lock.stages.get("aggregate")?;
        let fingerprint = aggregate.ingredients.get("stage score")?.clone();
        let store = Store::new(run.store.root());
        if store.fingerprint(&FeatureRow::ARTIFACT)? != aggregate.fingerprint {
            return None;
        }
        let features = store.read_column::<FeatureRow, FeatureId>("feature").ok()?;
        Some(Before { store, fingerprint, features })
    }

    fn has(&self, feature: FeatureId) -> bool {
        self.features.binary_search(&feature).is_ok()
    }

    /// A part, if its numbers would not be others now.
    fn part(&self, run: &Run, part: u32) -> Option<Kept<'_>> {
        let origin = self.store.part_origin(&ScoreRow::ARTIFACT, part)?;
        if origin.base != run.base || origin.fingerprint != self.fingerprint {
            return None;
        }
        let part = ScorePart::open(&self.store, part, self.features.len()).ok()?;
        Some(Kept { before: self, part })
    }
}

impl Kept<'_> {
    /// The rows of some of the features that are wanted, with their keys now.
    fn rows(&self, features: &[FeatureId], keys: Range<usize>) -> Result<Vec<ScoreRow>> {
        let Before { store, features: known, .. } = self.before;
        let before = |key: usize| Some((key, known.binary_search(&features[key]).ok()? as u32));
        let (now, then): (Vec<usize>, Vec<u32>) = keys.filter_map(before).unzip();
        let mut rows = Vec::new();
        self.part.each(store, &then, |place, row| {
            rows.push(ScoreRow { feature: now[place] as u32, ..row });
        })?;
        Ok(rows)
    }
}
