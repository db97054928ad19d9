//! `cache`: one pass of the model over every context. Keeps on disk what the circuit's dictionaries
//! read, or nothing when `cache.store = "stream"`.

use crate::artifact::activations::{ActivationPart, GROUP, HookValues, write_part};
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
use crate::stages::earlier::{Parts, Place, Wanted, run_again};
use crate::stages::{Done, Run};
use rayon::prelude::*;
use std::collections::{BTreeSet, VecDeque};
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
    let made = keep(run, width, &hooks, gib)?;
    let of = match run.shard {
        None => format!("{} contexts, {gib:.2} GiB", made.contexts),
        Some(_) => counted(made.parts, "part"),
    };
    let kept = match made.run < made.contexts {
        true => run_again(made.run, made.contexts),
        false => String::new(),
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

/// What is there when all parts are made.
#[derive(Default)]
struct Made {
    parts: usize,
    contexts: u64,
    /// Contexts on which the model was run.
    run: u64,
}

/// Writes the parts that are not there yet, a row group at a time. Of contexts that an earlier run has
/// kept, from the same model and with the same hooks, the values are taken over.
fn keep(run: &Run, width: usize, hooks: &[DictionaryId], gib: f64) -> Result<Made> {
    let names: Vec<String> = hooks.iter().map(|id| id.hook()).collect();
    let has_all = |of: &str| {
        let own: BTreeSet<&str> = of.split(' ').collect();
        usize::from(names.iter().all(|name| own.contains(name.as_str())))
    };
    let wanted = Wanted {
        artifact: &ACTIVATIONS,
        of: names.join(" "),
        known: &has_all,
        room: Some(((run.config.cache.max_gib - gib) * (1u64 << 30) as f64) as u64),
    };
    let parts = run.parts(&wanted, |store, part, origin| {
        ActivationPart::open(store.clone(), part, origin.numbers())
    })?;
    let known = run.contexts(&parts.done)?;
    let contexts = known + run.contexts(&parts.open)?;
    let mut made = Made { parts: parts.done.len() + parts.open.len(), contexts, run: 0 };
    run.progress.begin("contexts", contexts, known);
    let mut model = None;
    for &part in &parts.open {
        if parts.is_same(part) {
            run.store.restamp_part(&ACTIVATIONS, run.fingerprint, part)?;
            run.progress.step(run.contexts(&[part])?)?;
            continue;
        }
        let places = parts.places(part);
        let new = places.iter().filter(|place| place.is_none()).count();
        if model.is_none() && new > 0 {
            model = Some(inputs::model(run.config)?);
        }
        made.run += new as u64;
        let rows = run.store.read_part::<ContextRow>(part)?;
        let contexts: Vec<(ContextRow, Option<Place>)> = rows.into_iter().zip(places).collect();
        // As many groups at once as keep every thread busy: they are held in memory.
        let mut ahead = contexts.chunks(GROUP * rayon::current_num_threads().div_ceil(4));
        let mut groups = VecDeque::new();
        write_part(
            run.store,
            (run.fingerprint, parts.origin(part)),
            part,
            &names,
            inputs::precision(run.config),
            width,
            || {
                if groups.is_empty() {
                    let Some(some) = ahead.next() else { return Ok(None) };
                    let mut values = taken_over(run, &parts, &names, some)?;
                    if let Some(model) = &model {
                        let new = some.iter().filter(|(_, place)| place.is_none());
                        let new: Vec<&ContextRow> = new.map(|(row, _)| row).collect();
                        values.extend(read(run, model, &new, hooks)?);
                    }
                    values.sort_unstable_by_key(|values| values.context);
                    let mut values = values.into_iter().peekable();
                    while values.peek().is_some() {
                        groups.push_back(values.by_ref().take(GROUP).collect());
                    }
                }
                Ok(groups.pop_front())
            },
        )?;
    }
    Ok(made)
}

/// What the dictionaries read in those of some contexts that an earlier run has kept.
fn taken_over(
    run: &Run,
    parts: &Parts<ActivationPart>,
    hooks: &[String],
    contexts: &[(ContextRow, Option<Place>)],
) -> Result<Vec<HookValues>> {
    let precision = inputs::precision(run.config);
    let known: Vec<(u32, Place)> =
        contexts.iter().filter_map(|(row, place)| Some((row.context, (*place)?))).collect();
    // Contexts that followed each other then are read at once: each time a file is opened, and its
    // metadata is read.
    let follows = |a: &(u32, Place), b: &(u32, Place)| a.1.0 == b.1.0 && a.1.1 + 1 == b.1.1;
    let stretches: Vec<&[(u32, Place)]> =
        known.chunk_by(follows).flat_map(|stretch| stretch.chunks(GROUP)).collect();
    let read = |stretch: &[(u32, Place)]| -> Result<Vec<HookValues>> {
        process::check()?;
        let (source, first) = stretch[0].1;
        let places = first..first + stretch.len() as u32;
        let values = parts.source(source).part.read(hooks, precision, places)?;
        run.progress.step(stretch.len() as u64)?;
        let each = stretch.iter().zip(values);
        Ok(each.map(|((context, _), values)| HookValues { context: *context, values }).collect())
    };
    let each = stretches.into_par_iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(each.into_iter().flatten().collect())
}

/// What the dictionaries read in contexts.
fn read(
    run: &Run,
    model: &Gpt2,
    rows: &[&ContextRow],
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
