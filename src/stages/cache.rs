//! `cache`: one pass of the model over every context. Keeps on disk what the circuit's dictionaries
//! read, or nothing when `cache.store = "stream"`.

use crate::artifact::activations::{GROUP, HookValues, hooks_of, write_part};
use crate::artifact::tables::{ACTIVATIONS, CircuitFeature, ContextRow, Document};
use crate::config::{Config, StoreKind};
use crate::dictionary::hooks;
use crate::error::{Result, hinted};
use crate::format::number::counted;
use crate::ids::DictionaryId;
use crate::inputs;
use crate::lock::Ingredients;
use crate::model::{Gpt2, packs};
use crate::process;
use crate::stages::{Done, Run};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;

/// Only the dictionaries that settings name matter here, not which of their features.
pub fn besides(config: &Config) -> Ingredients {
    let named: Vec<_> = config.named_features().into_iter().collect();
    let dictionaries: Vec<String> = hooks(&named).iter().map(ToString::to_string).collect();
    Ingredients::from([(
        "setting dictionaries of score.extra and groups".into(),
        dictionaries.join(" "),
    )])
}

/// Keeps what the dictionaries read.
pub fn run(run: &Run) -> Result<Done> {
    let documents: Vec<Document> = run.store.read()?;
    let features = inputs::scored_features(run.config, &run.store.read::<CircuitFeature>()?)?;
    let hooks = hooks(&features);
    let store = run.config.cache.store;
    if store == StoreKind::Stream {
        run.store.remove(&ACTIVATIONS)?;
        return Ok(String::from("nothing kept, as `cache.store = \"stream\"`").into());
    }
    let width = inputs::sizes(run.config)?.d_model;
    let gib = check_size(run.config, width, &documents, &hooks)?;
    let (parts, kept) = keep(run, width, &hooks)?;
    let of = match run.shard {
        None => {
            let contexts: u32 = documents.iter().map(|document| document.contexts).sum();
            format!("{contexts} contexts, {gib:.2} GiB")
        }
        Some(_) => counted(parts, "part"),
    };
    let kept = match kept {
        0 => String::new(),
        kept => format!(", {} of the run before", counted(kept, "part")),
    };
    Ok(format!("{} hooks of {of}{kept}", hooks.len()).into())
}

fn check_size(
    config: &Config,
    width: usize,
    documents: &[Document],
    hooks: &[DictionaryId],
) -> Result<f64> {
    let tokens: u64 = documents.iter().map(|document| document.context_tokens).sum();
    let gib = inputs::cache_gib(config, tokens as usize, hooks.len(), width);
    if gib <= config.cache.max_gib {
        return Ok(gib);
    }
    Err(hinted(
        format!(
            "the disk cache needs {gib:.2} GiB, more than `cache.max_gib = {}`",
            config.cache.max_gib
        ),
        "set `cache.store = \"stream\"`, `cache.dtype = \"f16\"`, a smaller `corpus.max_contexts`, \
         or a larger `cache.max_gib`",
    ))
}

/// Writes the parts that are not there yet, a row group at a time. Those of an earlier run with the
/// same model, contexts and hooks are kept. How many parts there are then, and how many of them were
/// kept.
fn keep(run: &Run, width: usize, hooks: &[DictionaryId]) -> Result<(usize, usize)> {
    let (done, open) = run.done_and_open(&ACTIVATIONS)?;
    let parts = done.len() + open.len();
    let known = run.contexts(&done)?;
    run.progress.begin("contexts", known + run.contexts(&open)?, known);
    let names: Vec<String> = hooks.iter().map(|id| id.hook()).collect();
    let (mut model, mut kept) = (None, 0);
    for part in open {
        let is_same = || {
            let origin = run.store.part_origin(&ACTIVATIONS, part);
            origin.is_some_and(|origin| origin.base == run.base)
        };
        if hooks_of(run.store, part).as_ref() == Some(&names) && is_same() {
            run.store.restamp_part(&ACTIVATIONS, run.fingerprint, part)?;
            run.progress.step(run.contexts(&[part])?)?;
            kept += 1;
            continue;
        }
        let model = match model {
            Some(ref model) => model,
            None => model.insert(inputs::model(run.config)?),
        };
        let rows = run.store.read_part::<ContextRow>(part)?;
        // As many groups at once as keep every thread busy: they are held in memory.
        let mut ahead = rows.chunks(GROUP * rayon::current_num_threads().div_ceil(4));
        let mut groups = VecDeque::new();
        write_part(
            run.store,
            (run.fingerprint, run.base),
            part,
            &names,
            inputs::precision(run.config),
            width,
            || {
                if groups.is_empty() {
                    let Some(rows) = ahead.next() else { return Ok(None) };
                    let mut values = read(run, model, rows, hooks)?.into_iter().peekable();
                    while values.peek().is_some() {
                        groups.push_back(values.by_ref().take(GROUP).collect());
                    }
                }
                Ok(groups.pop_front())
            },
        )?;
    }
    Ok((parts, kept))
}

/// What the dictionaries read in contexts.
fn read(
    run: &Run,
    model: &Gpt2,
    rows: &[ContextRow],
    hooks: &[DictionaryId],
) -> Result<Vec<HookValues>> {
    let read = |pack: Range<usize>| -> Result<Vec<HookValues>> {
        process::check()?;
        let rows = &rows[pack];
        let tokens: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
        let each = rows.iter().zip(model.read(&tokens, hooks)?);
        run.progress.step(rows.len() as u64)?;
        Ok(each.map(|(row, values)| HookValues { context: row.context, values }).collect())
    };
    let lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
    let packs = packs(&lengths, run.config.machine.batch);
    let each = packs.into_par_iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(each.into_iter().flatten().collect())
}
