//! `score`: the activation of every chosen feature at every token, from the disk cache or from the
//! live model.

use crate::artifact::tables::{CircuitFeature, ContextRow, FeatureRow, ScoreRow};
use crate::artifact::{Row, Store};
use crate::config::StoreKind;
use crate::dictionary::{Scorer, hooks};
use crate::error::Result;
use crate::format::number::counted;
use crate::ids::FeatureId;
use crate::inputs;
use crate::model::Gpt2;
use crate::stages::scoring::{Scored, cached, live, rows};
use crate::stages::{Done, Run};
use std::collections::BTreeSet;

/// Scores the chosen features, part by part. What an earlier run has scored from the same model,
/// dictionaries and contexts is kept.
pub fn run(run: &Run) -> Result<Done> {
    let features = inputs::scored_features(run.config, &run.store.read::<CircuitFeature>()?);
    if features.is_empty() {
        let why = inputs::without_features(run.config)
            .unwrap_or_else(|| "no feature is scored: no circuit has any".into());
        run.progress.line(&format!("warning: {why}"));
    }
    let before = Before::find(run);
    let (done, open) = run.done_and_open(&ScoreRow::ARTIFACT)?;
    let parts = done.len() + open.len();
    run.progress.begin("parts", parts as u64, done.len() as u64);
    let (mut all, mut new) = (None, None);
    for part in open {
        let kept = before.as_ref().and_then(|before| before.rows(run, part, &features));
        let scoring = match (&before, &kept) {
            (Some(before), Some(_)) => {
                Scoring::get(&mut new, run, &features, |feature| !before.has(feature))?
            }
            _ => Scoring::get(&mut all, run, &features, |_| true)?,
        };
        let mut rows = scoring.rows(run, part)?;
        rows.extend(kept.into_iter().flatten());
        rows.sort_unstable_by_key(|row| (row.feature, row.context, row.position));
        run.store.write_part_of(run.fingerprint, run.base, part, &rows)?;
        run.progress.step(1)?;
    }
    let dictionaries = hooks(&features).len();
    let kept =
        new.map_or(String::new(), |new: Scoring| format!(", {} of them new", new.keys.len()));
    Ok(format!(
        "{} features of {dictionaries} dictionaries over {}{kept}",
        features.len(),
        counted(parts, "part")
    )
    .into())
}

/// What some of the features are scored with.
struct Scoring {
    /// Their keys among all.
    keys: Vec<u32>,
    scorer: Scorer,
    model: Option<Gpt2>,
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
        let (keys, some): (Vec<u32>, Vec<FeatureId>) =
            (0..).zip(features).filter(|(_, feature)| wanted(**feature)).unzip();
        let used: BTreeSet<_> = some.iter().map(|feature| feature.dictionary).collect();
        let dictionaries =
            inputs::some_dictionaries(run.config, run.lock, run.progress, |id| used.contains(&id))?;
        let scorer = Scorer::new(&some, &dictionaries)?;
        let is_live = run.config.cache.store == StoreKind::Stream && !some.is_empty();
        let model = is_live.then(|| inputs::model(run.config)).transpose()?;
        Ok(place.insert(Scoring { keys, scorer, model }))
    }

    /// Their rows of a part.
    fn rows(&self, run: &Run, part: u32) -> Result<Vec<ScoreRow>> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        let contexts = run.store.read_part::<ContextRow>(part)?;
        let scored: Vec<Scored> = match &self.model {
            Some(model) => live(run, &self.scorer, model, &contexts)?,
            None => cached(run, &self.scorer, part, &contexts, |_| true)?,
        };
        let mut rows = rows(&scored);
        rows.iter_mut().for_each(|row| row.feature = self.keys[row.feature as usize]);
        Ok(rows)
    }
}

/// What the run before has scored, as far as it can be told: the keys in its scores are those of the
/// features that were made from them.
struct Before {
    /// Where it is, whichever run it is of.
    store: Store,
    fingerprint: String,
    /// By key.
    features: Vec<FeatureId>,
    known: BTreeSet<FeatureId>,
}

impl Before {
    fn find(run: &Run) -> Option<Before> {
        let aggregate = run.lock.stages.get("aggregate")?;
        let fingerprint = aggregate.ingredients.get("stage score")?.clone();
        let store = Store::new(run.store.root());
        if store.fingerprint(&FeatureRow::ARTIFACT)? != aggregate.fingerprint {
            return None;
        }
        let features: Vec<FeatureId> =
            store.read::<FeatureRow>().ok()?.into_iter().map(|row| row.feature).collect();
        let known = features.iter().copied().collect();
        Some(Before { store, fingerprint, features, known })
    }

    fn has(&self, feature: FeatureId) -> bool {
        self.known.contains(&feature)
    }

    /// Its rows of a part that are of features that are wanted, with their keys now; none where
    /// they would be others now.
    fn rows(&self, run: &Run, part: u32, wanted: &[FeatureId]) -> Option<Vec<ScoreRow>> {
        let origin = self.store.part_origin(&ScoreRow::ARTIFACT, part)?;
        if origin.base != run.base || origin.fingerprint != self.fingerprint {
            return None;
        }
        let now = |row: ScoreRow| {
            let feature = self.features.get(row.feature as usize)?;
            Some(ScoreRow { feature: wanted.binary_search(feature).ok()? as u32, ..row })
        };
        Some(self.store.read_part::<ScoreRow>(part).ok()?.into_iter().filter_map(now).collect())
    }
}
