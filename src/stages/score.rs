//! `score`: the activation of every chosen feature at every token, from the disk cache or from the
//! live model.

use crate::artifact::Row;
use crate::artifact::tables::{CircuitFeature, ContextRow, ScoreRow};
use crate::config::StoreKind;
use crate::dictionary::Scorer;
use crate::error::Result;
use crate::inputs;
use crate::stages::scoring::{cached, live, rows};
use crate::stages::{Done, Run};

/// Scores the chosen features, shard by shard.
pub fn run(run: &Run) -> Result<Done> {
    let features = inputs::scored_features(run.config, &run.store.read::<CircuitFeature>()?);
    if features.is_empty() {
        let why = inputs::without_features(run.config)
            .unwrap_or_else(|| "no feature is scored: no circuit has any".into());
        run.progress.line(&format!("warning: {why}"));
    }
    let scorer = Scorer::new(&features, &run.dictionaries()?)?;
    let model = match run.config.cache.store {
        StoreKind::Stream => Some(inputs::model(run.config)?),
        StoreKind::Disk => None,
    };
    let (done, open) = run.done_and_open(&ScoreRow::ARTIFACT)?;
    let parts = done.len() + open.len();
    run.progress.begin("shards", parts as u64, done.len() as u64);
    for part in open {
        let contexts = run.store.read_part::<ContextRow>(part)?;
        let scored = match &model {
            Some(model) => live(run, &scorer, model, &contexts)?,
            None => cached(run, &scorer, part, &contexts, |_| true)?,
        };
        run.store.write_part(run.fingerprint, part, &rows(&scored))?;
        run.progress.step(1)?;
    }
    Ok(format!(
        "{} features of {} dictionaries over {parts} shards",
        features.len(),
        scorer.hooks().len()
    )
    .into())
}
