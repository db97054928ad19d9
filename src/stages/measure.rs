//! `measure`: how well each dictionary describes the model, on a sample of the contexts; refuses one that is read wrongly
//! or is another's, before anything is made of it.

use super::inputs;
use crate::artifact::tables::{ConformanceRow, ContextRow};
use crate::dictionary::{Conformance, Sample, measure};
use crate::error::Result;
use crate::stages::{Done, Run};

/// Tokens on which dictionaries are measured: enough for two figures, few enough to cost a minute or two at GPT-2's size.
pub const SAMPLE: usize = 2048;

/// Contexts that have at least [`SAMPLE`] tokens together, evenly spread over all.
pub fn sample(contexts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let tokens: usize = contexts.iter().map(Vec::len).sum();
    let wanted = (SAMPLE * contexts.len()).div_ceil(tokens.max(1)).clamp(1, contexts.len().max(1));
    (0..wanted).filter_map(|i| contexts.get(i * contexts.len() / wanted)).cloned().collect()
}

/// Measures every dictionary.
pub fn run(run: &Run) -> Result<Done> {
    // Before the model is in memory: a dictionary is held whole while it is converted.
    let dictionaries = inputs::dictionaries(run)?;
    let model = inputs::model(run.config)?;
    run.progress.say("running the model over a sample");
    let contexts: Vec<Vec<u32>> = run.store.read_parts::<ContextRow>()?.into_iter().map(|row| row.tokens).collect();
    let sample = Sample::new(&model, &sample(&contexts))?;
    run.progress.begin("dictionaries measured", dictionaries.len() as u64, 0);
    let mut rows = Vec::new();
    for dictionary in &dictionaries {
        let measured = measure(&model, dictionary, &sample)?;
        measured.check(&dictionary.origin)?;
        rows.push(row(&measured));
        run.progress.add(1);
    }
    rows.sort_by(|a, b| a.dictionary.cmp(&b.dictionary));
    run.store.write(run.fingerprint, &rows)?;
    let tokens = rows.first().map_or(0, |row| row.tokens);
    Ok(format!("{} dictionaries on {tokens} tokens; the model's loss there is {:.2}", rows.len(), sample.loss()).into())
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
