//! Stories as contexts: the stream that trains, the held-out set, and the corpus of the atlas, all
//! from fixed seeds and without a document in common. Contexts are cut as the program cuts them:
//! BOS, then up to `T − 1` tokens.

use super::grammar::{self, Split};
use super::net::T;
use super::tokenizer::Words;
use anyhow::Result;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// A window at a document's end that is shorter than this is dropped.
const SHORTEST: usize = 8;
const ATLAS_DOCUMENTS: usize = 2300;
const HELD_OUT_DOCUMENTS: usize = 600;

/// Share of training documents that are practice instead of a story: more of them in the first
/// batches.
const PRACTICE: f64 = 0.15;
const FIRST_PRACTICE: f64 = 0.5;
const FIRST_BATCHES: usize = 640;
const LAST_PRACTICE: f64 = 0.7;
/// Share of practice sentences that are about years; while polishing, most are.
const YEARS: f64 = 0.2;
const LAST_YEARS: f64 = 0.9;
/// The same for the documents that dictionaries are trained on: what carries a task is rare in
/// stories, and has to be learned too.
const DICTIONARY_PRACTICE: f64 = 0.3;
const DICTIONARY_YEARS: f64 = 0.5;
const LAST_DICTIONARY_PRACTICE: f64 = 0.5;
const LAST_DICTIONARY_YEARS: f64 = 0.3;
/// Share of their practice sentences that are as the corrupted prompts of the tasks, which are
/// what ablations take their means from.
const TWINS: f64 = 0.3;

/// Where each corpus begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seed {
    Train = 1,
    HeldOut = 2,
    Atlas = 3,
    Tokenizer = 4,
    Prompts = 5,
    Initial = 6,
    Dictionaries = 7,
    Polish = 8,
    EndToEnd = 9,
}

pub(crate) fn rng(seed: Seed) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(20_240_600 + seed as u64)
}

/// `n` different stories of a seed that are not in `known`.
pub(crate) fn stories(seed: Seed, split: Split, n: usize, known: &HashSet<String>) -> Vec<String> {
    let (mut rng, mut seen, mut out) = (rng(seed), HashSet::new(), Vec::with_capacity(n));
    while out.len() < n {
        let story = grammar::story(&mut rng, split);
        if !known.contains(&story) && seen.insert(story.clone()) {
            out.push(story);
        }
    }
    out
}

/// The documents that training must not see.
pub(crate) struct Kept {
    pub atlas: Vec<String>,
    pub held_out: Vec<String>,
    pub all: Arc<HashSet<String>>,
}

impl Kept {
    pub(crate) fn new() -> Kept {
        let atlas = stories(Seed::Atlas, Split::Atlas, ATLAS_DOCUMENTS, &HashSet::new());
        let known = atlas.iter().cloned().collect();
        let held_out = stories(Seed::HeldOut, Split::Train, HELD_OUT_DOCUMENTS, &known);
        let all = atlas.iter().chain(&held_out).cloned().collect();
        Kept { atlas, held_out, all: Arc::new(all) }
    }
}

/// The contexts of a document.
pub(crate) fn contexts(words: &Words, text: &str) -> Result<Vec<Vec<u32>>> {
    let ids = words.encode(text)?;
    let windows = ids.chunks(T - 1).filter(|window| window.len() >= SHORTEST);
    Ok(windows.map(|window| [&[words.end], window].concat()).collect())
}

pub(crate) fn all_contexts(words: &Words, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    Ok(texts.iter().map(|text| contexts(words, text)).collect::<Result<Vec<_>>>()?.concat())
}

/// A few sentences of the two tasks with their answers, about names that may stand there: stories
/// have too few of them for the model to find out soon that names are to be copied.
fn practice(rng: &mut ChaCha8Rng, years: f64, twins: f64) -> String {
    let names: Vec<&str> = grammar::NAMES
        .iter()
        .copied()
        .filter(|name| !grammar::HELD_OUT_NAMES.contains(name))
        .collect();
    let sentences: Vec<String> = (0..rng.random_range(3..=6))
        .map(|_| practice_sentence(rng, &names, years, twins))
        .collect();
    sentences.join(" ")
}

fn practice_sentence(rng: &mut ChaCha8Rng, names: &[&str], years: f64, twins: f64) -> String {
    let about_years = rng.random_bool(years);
    let twin = twins > 0.0 && rng.random_bool(twins);
    if !about_years {
        let (prompt, answer) = grammar::indirect_object(rng, names, twin);
        return format!("{prompt} {answer}.");
    }
    let (prompt, year) = grammar::greater_than(rng, twin);
    format!("{prompt}{:02}.", rng.random_range((year + 1).min(99)..=99))
}

/// Training stories without end, dealt out as batches of similar length so that little is padding.
pub(crate) struct Stream<'a> {
    words: &'a Words,
    seed: Seed,
    rng: ChaCha8Rng,
    known: Arc<HashSet<String>>,
    ready: Vec<Vec<Vec<u32>>>,
    /// Batches so far.
    dealt: usize,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(words: &'a Words, seed: Seed, known: Arc<HashSet<String>>) -> Stream<'a> {
        Stream { words, seed, rng: rng(seed), known, ready: Vec::new(), dealt: 0 }
    }

    /// What `write` writes, unless it must not be seen.
    fn fresh(&mut self, write: impl Fn(&mut ChaCha8Rng) -> String) -> String {
        loop {
            let text = write(&mut self.rng);
            if !self.known.contains(&text) {
                return text;
            }
        }
    }

    /// The next training story.
    pub(crate) fn story(&mut self) -> String {
        self.fresh(|rng| grammar::story(rng, Split::Train))
    }

    /// The next training document: a story or practice.
    pub(crate) fn document(&mut self) -> String {
        let (share, years, twins) = match self.seed {
            Seed::Polish => (LAST_PRACTICE, LAST_YEARS, 0.0),
            Seed::Dictionaries => (DICTIONARY_PRACTICE, DICTIONARY_YEARS, TWINS),
            Seed::EndToEnd => (LAST_DICTIONARY_PRACTICE, LAST_DICTIONARY_YEARS, TWINS),
            _ if self.dealt < FIRST_BATCHES => (FIRST_PRACTICE, YEARS, 0.0),
            _ => (PRACTICE, YEARS, 0.0),
        };
        if self.rng.random_bool(share) {
            self.fresh(|rng| practice(rng, years, twins))
        } else {
            self.story()
        }
    }

    /// The next `size` contexts.
    pub(crate) fn batch(&mut self, size: usize) -> Result<Vec<Vec<u32>>> {
        if self.ready.is_empty() {
            self.refill(size)?;
        }
        Ok(self.ready.pop().expect("just refilled"))
    }

    fn refill(&mut self, size: usize) -> Result<()> {
        const POOL: usize = 64;
        let mut pool: Vec<Vec<u32>> = Vec::new();
        while pool.len() < POOL * size {
            let document = self.document();
            pool.extend(contexts(self.words, &document)?);
        }
        pool.truncate(POOL * size);
        pool.sort_by_key(Vec::len);
        self.ready = pool.chunks(size).map(<[_]>::to_vec).collect();
        // Within a batch, long and short must not fall into different halves.
        self.ready.iter_mut().for_each(|batch| batch.shuffle(&mut self.rng));
        self.ready.shuffle(&mut self.rng);
        self.dealt += POOL;
        Ok(())
    }
}

/// Writes the corpus of the atlas and says what is in it.
pub(crate) fn build(words: &Words, kept: &Kept, path: &Path) -> Result<String> {
    let lines =
        kept.atlas.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
    std::fs::write(path, lines.collect::<String>())?;
    let contexts = all_contexts(words, &kept.atlas)?;
    let tokens: usize = contexts.iter().map(|context| context.len() - 1).sum();
    Ok(format!(
        "\n{} documents, {} contexts, {tokens} tokens.\n\n",
        kept.atlas.len(),
        contexts.len()
    ))
}
