//! `tokenize`: text → documents → contexts of token ids, BOS first, in parts.

use crate::artifact::Row;
use crate::artifact::tables::{ContextRow, Document};
use crate::config::StoreKind;
use crate::corpus::{Content, RawDocument, Tokenizer, Window, read};
use crate::error::Result;
use crate::format::number::counted;
use crate::inputs::{self, Documents, Encoded, Texts};
use crate::process;
use crate::stages::{Done, Run};

/// What the disk cache is going to take at most: whether there is room is better known before
/// `discover` than after it.
fn outlook(run: &Run, tokens: usize) -> Result<String> {
    if run.config.cache.store == StoreKind::Stream {
        return Ok(String::new());
    }
    let sizes = inputs::sizes(run.config)?;
    let gib = inputs::cache_gib(run.config, tokens, 2 * sizes.layers, sizes.d_model);
    Ok(format!(
        "; the disk cache needs at most {gib:.2} GiB of {} allowed",
        run.config.cache.max_gib
    ))
}

/// Documents, or parts of long ones, that are encoded at once.
const BATCH: usize = 4096;

/// Bytes of text that are encoded at once.
const BATCH_BYTES: usize = 16 << 20;

/// Encodes the corpus and cuts it into contexts.
pub fn run(run: &Run) -> Result<Done> {
    let corpus = &run.config.corpus;
    let tokenizer = inputs::tokenizer(run.config)?;
    let (documents, changed) = encode(run, &tokenizer)?;
    let windows = inputs::cut(&documents, corpus, tokenizer.bos());
    if windows.is_empty() {
        return Err(inputs::no_context(run.config));
    }
    for warning in inputs::poor_halves(&documents, &windows, run.config) {
        run.progress.line(&format!("warning: {warning}"));
    }
    write_documents(run, &documents, &counts(&windows, documents.len(), &tokenizer))?;
    let tokens = windows.iter().map(|window| window.tokens.len()).sum();
    let contexts = write_contexts(run, windows)?;
    let stretches = documents.iter().filter(|document| document.start > 0).count();
    let divided = match stretches {
        0 => String::new(),
        _ => format!(", divided into {} stretches", documents.len()),
    };
    Ok(format!(
        "{}{divided}, {contexts} contexts of {tokens} tokens{}{}",
        counted(documents.len() - stretches, "document"),
        said(changed),
        outlook(run, tokens)?
    )
    .into())
}

/// What is said of how many documents are new, and how many are gone, since the run before.
fn said(changed: Option<(usize, usize)>) -> String {
    match changed {
        None => String::new(),
        Some((new, 0)) => format!("; {} new", counted(new, "document")),
        Some((new, gone)) => format!("; {} new, {gone} gone", counted(new, "document")),
    }
}

/// What was read, and how many documents are new, and gone, since the run before, if there was one.
type Read = (Vec<Encoded>, Option<(usize, usize)>);

/// Reads documents in the source's own order; with `max_contexts`, only as many as are needed to
/// fill them, and no file behind the one that does.
fn encode(run: &Run, tokenizer: &Tokenizer) -> Result<Read> {
    let corpus = &run.config.corpus;
    for token in tokenizer.left_out() {
        run.progress.line(&format!("warning: {}", inputs::without_row(token)));
    }
    let texts = Texts::load(run.store, run.base).unwrap_or_else(|error| {
        run.progress.line(&format!("note: all texts are encoded again: {error}"));
        Texts::none(run.base)
    });
    let mut documents = Documents::new(corpus, tokenizer).with(texts);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for shard in inputs::corpus(run.config, run.progress)? {
        let shard = shard?;
        run.progress.say("reading and encoding the corpus");
        let more = read(&shard, &inputs::how(corpus, tokenizer), &mut |document| {
            process::check()?;
            bytes += size(&document);
            batch.push(document);
            if batch.len() < BATCH && bytes < BATCH_BYTES {
                return Ok(true);
            }
            bytes = 0;
            documents.add(std::mem::take(&mut batch))?;
            Ok(!documents.enough())
        })?;
        bytes = 0;
        documents.add(std::mem::take(&mut batch))?;
        if !more || documents.enough() {
            break;
        }
    }
    documents.note().into_iter().for_each(|note| run.progress.line(&format!("note: {note}")));
    let changed = documents.keep(run.store)?;
    Ok((documents.halved(), changed))
}

fn size(document: &RawDocument) -> usize {
    match &document.content {
        Content::Text(text) => text.len(),
        Content::Tokens(ids) => 4 * ids.len(),
    }
}

/// What a document's contexts have in all.
#[derive(Clone, Copy, Default)]
struct Counts {
    contexts: u32,
    tokens: u64,
    counting: u64,
}

/// By document: its contexts and their tokens, so that later stages need not read all tokens to
/// know.
fn counts(windows: &[Window], documents: usize, tokenizer: &Tokenizer) -> Vec<Counts> {
    let mut counts = vec![Counts::default(); documents];
    for window in windows {
        let own = &mut counts[window.document as usize];
        own.contexts += 1;
        own.tokens += window.tokens.len() as u64;
        own.counting += inputs::counting(&window.tokens, tokenizer);
    }
    counts
}

fn write_documents(run: &Run, documents: &[Encoded], counts: &[Counts]) -> Result<()> {
    let row = |(number, (document, counts)): (usize, (&Encoded, &Counts))| Document {
        document: number as u32,
        source: document.source.clone(),
        start: document.start,
        tokens: document.ids.len() as u32,
        half: document.half,
        contexts: counts.contexts,
        context_tokens: counts.tokens,
        counting_tokens: counts.counting,
    };
    let rows: Vec<Document> = documents.iter().zip(counts).enumerate().map(row).collect();
    run.store.write(run.fingerprint, &rows)
}

fn write_contexts(run: &Run, windows: Vec<Window>) -> Result<usize> {
    let contexts = windows.len();
    let rows: Vec<ContextRow> = (0..)
        .zip(windows)
        .map(|(context, w)| ContextRow {
            context,
            document: w.document,
            start: w.start,
            tokens: w.tokens,
        })
        .collect();
    let shards = rows.chunks(run.config.corpus.shard_contexts);
    let parts = shards.len() as u32;
    for (part, rows) in shards.enumerate() {
        run.store.write_part(run.fingerprint, part as u32, rows)?;
    }
    run.store.remove_parts_from(&ContextRow::ARTIFACT, parts)?;
    Ok(contexts)
}
