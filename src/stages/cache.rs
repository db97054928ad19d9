//! `cache`: one pass of the model over every context. Keeps on disk what the circuit's dictionaries read, or nothing when
//! `cache.store = "stream"`; measures every dictionary on a sample of contexts either way.

use super::inputs;
use crate::artifact::Row;
use crate::artifact::activations::{GROUP, HookValues, write_part};
use crate::artifact::tables::{ACTIVATIONS, CircuitFeature, ConformanceRow, ContextRow};
use crate::config::{Config, StoreKind};
use crate::dictionary::{Conformance, hooks, measure, read_hooks};
use crate::error::{Result, hinted};
use crate::ids::DictionaryId;
use crate::lock::Ingredients;
use crate::model::Gpt2;
use crate::stages::Run;
use rayon::prelude::*;

/// Contexts on which dictionaries are measured: enough for two figures, few enough to cost little.
pub const SAMPLE: usize = 48;

/// Only the dictionaries that settings name matter here, not which of their features.
pub fn besides(config: &Config) -> Ingredients {
    let named: Vec<_> = config.named_features().into_iter().collect();
    let dictionaries: Vec<String> = hooks(&named).iter().map(ToString::to_string).collect();
    Ingredients::from([("setting dictionaries of score.extra and groups".into(), dictionaries.join(" "))])
}

/// Measures the dictionaries and keeps what they read.
pub fn run(run: &Run) -> Result<String> {
    let model = inputs::model(run.config)?;
    let contexts = run.store.read_parts::<ContextRow>()?;
    let features = inputs::scored_features(run.config, &run.store.read::<CircuitFeature>()?);
    let hooks = hooks(&features);
    let store = run.config.cache.store;
    // Refused before the model runs at all.
    let gib = if store == StoreKind::Disk { check_size(run.config, &model, &contexts, &hooks)? } else { 0.0 };
    let measured = conformance(run, &model, &contexts)?;
    if store == StoreKind::Stream {
        run.store.remove(&ACTIVATIONS)?;
        return Ok(format!("nothing kept, as `cache.store = \"stream\"`; {measured} dictionaries measured"));
    }
    keep(run, &model, &hooks)?;
    Ok(format!("{} hooks of {} contexts, {gib:.2} GiB; {measured} dictionaries measured", hooks.len(), contexts.len()))
}

fn check_size(config: &Config, model: &Gpt2, contexts: &[ContextRow], hooks: &[DictionaryId]) -> Result<f64> {
    let tokens: usize = contexts.iter().map(|row| row.tokens.len()).sum();
    let gib = inputs::cache_gib(config, tokens, hooks.len(), model.sizes.d_model);
    if gib <= config.cache.max_gib {
        return Ok(gib);
    }
    Err(hinted(
        format!("the disk cache would take {gib:.2} GiB, more than `cache.max_gib = {}`", config.cache.max_gib),
        "set `cache.store = \"stream\"`, `cache.dtype = \"f16\"`, a smaller `corpus.max_contexts`, or a larger `cache.max_gib`",
    ))
}

/// Writes the parts that are not there yet, a row group at a time.
fn keep(run: &Run, model: &Gpt2, hooks: &[DictionaryId]) -> Result<()> {
    let (done, open) = inputs::done_and_open(run, &ACTIVATIONS)?;
    run.progress.begin("shards", (done.len() + open.len()) as u64, done.len() as u64);
    let names: Vec<String> = hooks.iter().map(|id| id.hook()).collect();
    for part in open {
        let rows = run.store.read_part::<ContextRow>(part)?;
        let mut groups = rows.chunks(GROUP);
        write_part(
            run.store,
            run.fingerprint,
            part,
            &names,
            inputs::precision(run.config),
            model.sizes.d_model,
            || {
                let Some(group) = groups.next() else { return Ok(None) };
                let read = |row: &ContextRow| {
                    Ok(HookValues { context: row.context, values: read_hooks(model, &row.tokens, hooks)? })
                };
                group.par_iter().map(read).collect::<Result<Vec<_>>>().map(Some)
            },
        )?;
        run.progress.add(1);
    }
    Ok(())
}

/// Measures every dictionary and refuses one that is not of this model. Returns how many there are.
fn conformance(run: &Run, model: &Gpt2, contexts: &[ContextRow]) -> Result<usize> {
    let sources = inputs::sources(run.config)?;
    if run.store.fingerprint(&ConformanceRow::ARTIFACT).as_deref() == Some(run.fingerprint) {
        // This very run measured them before it was killed.
        return Ok(sources.len());
    }
    run.progress.begin("dictionaries measured", sources.len() as u64, 0);
    let sample: Vec<Vec<u32>> = contexts.iter().take(SAMPLE).map(|row| row.tokens.clone()).collect();
    let mut rows = Vec::new();
    for source in &sources {
        let measured = measure(model, &source.load(&model.sizes)?, &sample)?;
        measured.check(&source.weights)?;
        rows.push(row(&measured));
        run.progress.add(1);
    }
    rows.sort_by(|a, b| a.dictionary.cmp(&b.dictionary));
    run.store.write(run.fingerprint, &rows)?;
    Ok(rows.len())
}

fn row(measured: &Conformance) -> ConformanceRow {
    ConformanceRow {
        dictionary: measured.id.to_string(),
        layer: measured.id.layer as u32,
        kind: measured.id.kind.word().into(),
        width: measured.width as u32,
        l0: measured.l0,
        variance_explained: measured.variance_explained,
        dead: measured.dead as f64,
        loss_recovered: measured.loss_recovered,
        tokens: measured.tokens,
    }
}
