//! `tokenize`: text → documents → contexts of token ids, BOS first, in shards.

use crate::artifact::Row;
use crate::artifact::tables::{ContextRow, Document};
use crate::config::{Corpus, StoreKind};
use crate::corpus::windows::{self, windows};
use crate::corpus::{Packer, RawDocument, Tokenizer, Window, half, order, read};
use crate::error::Result;
use crate::ids::Half;
use crate::inputs;
use crate::process;
use crate::stages::{Done, Run};
use rayon::prelude::*;

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

/// Documents that are encoded at once.
const BATCH: usize = 4096;

/// A document's ids, and where they came from.
struct Encoded {
    source: String,
    ids: Vec<u32>,
}

/// Encodes the corpus and cuts it into contexts.
pub fn run(run: &Run) -> Result<Done> {
    let corpus = &run.config.corpus;
    let tokenizer = inputs::tokenizer(run.config)?;
    let documents = encode(run, &tokenizer)?;
    let windows = cut(&documents, corpus, tokenizer.bos());
    if windows.is_empty() {
        return Err(inputs::no_context(run.config));
    }
    for own in [Half::Explain, Half::Score] {
        if !windows.iter().any(|window| half(&documents[window.document as usize].ids) == own) {
            run.progress.line(&format!("warning: {}", inputs::empty_half(own)));
        }
    }
    write_documents(run, &documents, &counts(&windows, documents.len(), &tokenizer))?;
    let tokens = windows.iter().map(|window| window.tokens.len()).sum();
    let contexts = write_contexts(run, windows)?;
    Ok(format!(
        "{} documents, {contexts} contexts of {tokens} tokens{}",
        documents.len(),
        outlook(run, tokens)?
    )
    .into())
}

/// The documents that have been read.
struct Reading<'a> {
    corpus: &'a Corpus,
    tokenizer: &'a Tokenizer,
    batch: Vec<RawDocument>,
    documents: Vec<Encoded>,
    contexts: usize,
}

impl Reading<'_> {
    /// Encodes what waits for it; whether more is wanted.
    fn encode(&mut self) -> Result<bool> {
        process::check()?;
        let encoded = encode_batch(&self.batch, self.tokenizer)?;
        self.contexts += encoded
            .iter()
            .map(|document| contexts_of(&document.ids, self.corpus, self.tokenizer.bos()))
            .sum::<usize>();
        self.documents.extend(encoded);
        self.batch.clear();
        Ok(self.corpus.max_contexts == 0 || self.contexts < self.corpus.max_contexts)
    }
}

/// Reads documents in the source's own order; with `max_contexts`, only as many as are needed to
/// fill them, and no file behind the one that does.
fn encode(run: &Run, tokenizer: &Tokenizer) -> Result<Vec<Encoded>> {
    let corpus = &run.config.corpus;
    for token in tokenizer.left_out() {
        run.progress.line(&format!("warning: {}", inputs::without_row(token)));
    }
    let mut reading =
        Reading { corpus, tokenizer, batch: Vec::new(), documents: Vec::new(), contexts: 0 };
    for shard in inputs::corpus(run.config, run.progress)? {
        let shard = shard?;
        run.progress.say("reading and encoding the corpus");
        let more = read(&shard, &corpus.text, &mut |document| {
            reading.batch.push(document);
            if reading.batch.len() < BATCH { Ok(true) } else { reading.encode() }
        })?;
        if !(more && reading.encode()?) {
            break;
        }
    }
    Ok(reading.documents)
}

/// Contexts that a document of these ids gives, or gives at least when documents are packed.
fn contexts_of(ids: &[u32], corpus: &Corpus, bos: u32) -> usize {
    if corpus.pack {
        ids.iter().filter(|id| **id != bos).count() / (corpus.context - 1)
    } else {
        windows::count(ids, corpus.context, bos)
    }
}

fn encode_batch(batch: &[RawDocument], tokenizer: &Tokenizer) -> Result<Vec<Encoded>> {
    let encode = |document: &RawDocument| {
        Ok(Encoded { source: document.source.clone(), ids: tokenizer.ids(document)? })
    };
    batch.par_iter().map(encode).collect()
}

/// Windows in the order of `shuffle_seed`; packed ones never hold documents of both halves.
fn cut(documents: &[Encoded], corpus: &Corpus, bos: u32) -> Vec<Window> {
    let order = order(documents.len(), corpus.shuffle_seed);
    let mut all = Vec::new();
    if corpus.pack {
        let mut packers =
            [Half::Explain, Half::Score].map(|half| (half, Packer::new(corpus.context, bos)));
        for document in order {
            let ids = &documents[document].ids;
            let own = half(ids);
            for (_, packer) in packers.iter_mut().filter(|(half, _)| *half == own) {
                all.extend(packer.add(document as u32, ids));
            }
        }
        all.extend(packers.into_iter().filter_map(|(_, packer)| packer.finish()));
    } else {
        let each = |document: usize| {
            windows(document as u32, &documents[document].ids, corpus.context, bos)
        };
        all.extend(order.into_iter().flat_map(each));
    }
    if corpus.max_contexts > 0 {
        all.truncate(corpus.max_contexts);
    }
    all
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
        tokens: document.ids.len() as u32,
        half: half(&document.ids),
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
