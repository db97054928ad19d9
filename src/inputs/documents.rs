//! The documents of the corpus as they are read: their ids, which half each serves in, and the
//! contexts that they are cut into (`docs/definitions.md` §1).

use super::texts::{TextKey, Texts};
use crate::artifact::Store;
use crate::config::{self, Config};
use crate::corpus::windows::{self, windows};
use crate::corpus::{Content, How, Packer, RawDocument, Tokenizer, Window, half, order, stretches};
use crate::error::Result;
use crate::format::number::counted;
use crate::ids::Half;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A document's ids, or those of a stretch of one.
pub(crate) struct Encoded {
    pub(crate) source: String,
    /// Where it begins in the document that it is a stretch of; else 0.
    pub(crate) start: u32,
    pub(crate) ids: Vec<u32>,
    pub(crate) half: Half,
}

/// How the settings have files read.
pub(crate) fn how<'a>(corpus: &'a config::Corpus, tokenizer: &Tokenizer) -> How<'a> {
    How { column: &corpus.text, split: corpus.split, cut: tokenizer.cut() }
}

/// Documents that have been read.
pub(crate) struct Documents<'a> {
    corpus: &'a config::Corpus,
    tokenizer: &'a Tokenizer,
    /// The source of each, and its ids; the last one may go on.
    all: Vec<(String, Vec<u32>)>,
    /// Contexts of all but the last.
    contexts: usize,
    /// Lone surrogates that were replaced, and in how many documents.
    replaced: (usize, usize),
    /// What is known of texts; none where nobody wants to know.
    texts: Option<Texts>,
}

impl<'a> Documents<'a> {
    pub(crate) fn new(corpus: &'a config::Corpus, tokenizer: &'a Tokenizer) -> Documents<'a> {
        let (all, replaced) = (Vec::new(), (0, 0));
        Documents { corpus, tokenizer, all, contexts: 0, replaced, texts: None }
    }

    /// Those of an artifact folder in which a run before may have encoded texts.
    pub(crate) fn with(self, texts: Texts) -> Documents<'a> {
        Documents { texts: Some(texts), ..self }
    }

    /// Encodes documents, or parts of them, in order. Gives the number of their ids.
    ///
    /// # Errors
    /// When one has an id that the model does not.
    pub(crate) fn add(&mut self, batch: Vec<RawDocument>) -> Result<usize> {
        let keys: Vec<Option<TextKey>> = match &mut self.texts {
            Some(texts) => batch.iter().map(|document| Some(texts.key(document))).collect(),
            None => vec![None; batch.len()],
        };
        let texts = self.texts.as_ref();
        let ids = batch.par_iter().zip(&keys).map(|(document, key)| {
            match texts.zip(key.as_ref()).and_then(|(texts, key)| texts.ids(document, key)) {
                Some(known) => Ok(known.to_vec()),
                None => self.tokenizer.ids(document),
            }
        });
        let ids: Vec<Vec<u32>> = ids.collect::<Result<_>>()?;
        let number = ids.iter().map(Vec::len).sum();
        for ((document, key), ids) in batch.into_iter().zip(keys).zip(ids) {
            self.replaced.0 += document.replaced as usize;
            self.replaced.1 += usize::from(document.replaced > 0);
            match self.all.last_mut().filter(|_| !document.begins) {
                Some((_, open)) => open.extend(ids),
                None => {
                    self.contexts += self.contexts_of_last();
                    self.all.push((document.source, ids));
                }
            }
            if let Some((texts, key)) = self.texts.as_mut().zip(key) {
                let (number, end) =
                    (self.all.len() - 1, self.all.last().map_or(0, |all| all.1.len()));
                texts.add(key, matches!(document.content, Content::Text(_)), number, end);
            }
        }
        Ok(number)
    }

    fn contexts_of_last(&self) -> usize {
        let ids = self.all.last().map_or(&[][..], |(_, ids)| ids.as_slice());
        contexts_of(ids, self.corpus, self.tokenizer.bos())
    }

    /// Whether `corpus.max_contexts` can be filled.
    pub(crate) fn enough(&self) -> bool {
        let most = self.corpus.max_contexts;
        most > 0 && self.contexts + self.contexts_of_last() >= most
    }

    /// Keeps what was encoded for the next run. How many documents are new since the run before, and
    /// how many of that are gone, where there was one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep(&self, store: &Store) -> Result<Option<(usize, usize)>> {
        self.texts.as_ref().map_or(Ok(None), |texts| texts.keep(store, &self.all))
    }

    /// How many there are.
    pub(crate) fn number(&self) -> usize {
        self.all.len()
    }

    /// What is to be said of how they were read.
    pub(crate) fn note(&self) -> Option<String> {
        let (characters, documents) = self.replaced;
        (characters > 0).then(|| {
            format!(
                "lone surrogates, which are no characters, were read as U+FFFD: {characters} in {}",
                counted(documents, "document")
            )
        })
    }

    /// The documents, each in a half by a hash of its ids. Where one half had less than a quarter of
    /// the contexts, they are divided into stretches, which are in the halves by turns.
    pub(crate) fn halved(self) -> Vec<Encoded> {
        let (corpus, bos) = (self.corpus, self.tokenizer.bos());
        let whole = |(source, ids): (String, Vec<u32>)| {
            let half = half(&ids);
            Encoded { source, start: 0, ids, half }
        };
        let documents: Vec<Encoded> = self.all.into_iter().map(whole).collect();
        let (mut explain, mut all) = (0, 0);
        for document in order(documents.len(), corpus.shuffle_seed) {
            let Encoded { ids, half, .. } = &documents[document];
            let mut contexts = contexts_of(ids, corpus, bos);
            if corpus.max_contexts > 0 {
                contexts = contexts.min(corpus.max_contexts - all);
            }
            explain += if *half == Half::Explain { contexts } else { 0 };
            all += contexts;
        }
        if 4 * explain.min(all - explain) >= all {
            return documents;
        }
        // Long ones, so that few contexts have their neighbours in the other half; but enough of
        // them for both halves to be of the whole corpus.
        const LONGEST: usize = 16;
        let length = (all / LONGEST).clamp(1, LONGEST);
        let divided = |document: Encoded| {
            let places = stretches(&document.ids, length, corpus.context, bos);
            let stretch = move |(i, place): (usize, std::ops::Range<usize>)| {
                let Encoded { source, half, ids, .. } = &document;
                let other = if *half == Half::Explain { Half::Score } else { Half::Explain };
                Encoded {
                    source: source.clone(),
                    start: place.start as u32,
                    ids: ids[place].to_vec(),
                    half: if i % 2 == 0 { *half } else { other },
                }
            };
            places.into_iter().enumerate().map(stretch)
        };
        documents.into_iter().flat_map(divided).collect()
    }
}

/// Contexts that a document of these ids gives, or gives at least when documents are packed.
fn contexts_of(ids: &[u32], corpus: &config::Corpus, bos: u32) -> usize {
    if corpus.pack {
        ids.iter().filter(|id| **id != bos).count() / (corpus.context - 1)
    } else {
        windows::count(ids, corpus.context, bos)
    }
}

/// The contexts of documents, in the order of `shuffle_seed`; packed ones never hold documents of
/// both halves.
pub(crate) fn cut(documents: &[Encoded], corpus: &config::Corpus, bos: u32) -> Vec<Window> {
    let order = order(documents.len(), corpus.shuffle_seed);
    let mut all = Vec::new();
    if corpus.pack {
        let mut packers =
            [Half::Explain, Half::Score].map(|half| (half, Packer::new(corpus.context, bos)));
        for document in order {
            let Encoded { ids, half: own, .. } = &documents[document];
            for (_, packer) in packers.iter_mut().filter(|(half, _)| half == own) {
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
    all.iter_mut().for_each(|window| window.start += documents[window.document as usize].start);
    all
}

/// What is wrong with the halves: one is empty, or has fewer documents than it is to give texts, one
/// from each.
pub(crate) fn poor_halves(
    documents: &[Encoded],
    contexts: &[Window],
    config: &Config,
) -> Vec<String> {
    let mut by_half: BTreeMap<Half, BTreeMap<u32, usize>> = BTreeMap::new();
    for window in contexts {
        let half = documents[window.document as usize].half;
        *by_half.entry(half).or_default().entry(window.document).or_default() += 1;
    }
    let asked = [
        (Half::Explain, "aggregate.examples", config.aggregate.examples),
        (Half::Score, "evaluate.texts", config.evaluate.texts),
    ];
    let mut warnings = Vec::new();
    for (half, setting, asked) in asked {
        let own = by_half.get(&half).map_or(0, BTreeMap::len);
        let does = match half {
            Half::Explain => "explanations are made from",
            Half::Score => "explanations are scored on",
        };
        if own == 0 {
            warnings.push(format!(
                "no context is in the half `{half}`, which {does}: the corpus is too small; give \
                 more documents, or split text files with `corpus.split`"
            ));
        } else if own < asked {
            warnings.push(format!(
                "the half `{half}`, which {does}, has {} with contexts: fewer than `{setting} = \
                 {asked}`, which takes one text from each",
                counted(own, "document")
            ));
        }
    }
    warnings
}
