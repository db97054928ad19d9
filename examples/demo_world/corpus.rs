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

/// What a training stream is made of.
struct Mix {
    /// Share of documents that are practice instead of a story.
    practice: f64,
    /// Share of practice sentences that are about years.
    years: f64,
    /// Share of practice sentences that are as the corrupted prompts of the tasks, which are what
    /// ablations take their means from.
    twins: f64,
    /// Sentences of a practice document, fewest and most.
    sentences: [usize; 2],
    /// Whether the names that the model must not see in a task are in practice sentences.
    held_out: bool,
}

/// The first batches of the model's training have more practice.
const FIRST_BATCHES: usize = 640;
const MODEL: Mix =
    Mix { practice: 0.15, years: 0.2, twins: 0.0, sentences: [3, 6], held_out: false };
const FIRST: Mix = Mix { practice: 0.5, ..MODEL };
const POLISH: Mix = Mix { practice: 0.7, years: 0.9, ..MODEL };
/// Dictionaries: what carries a task is rare in stories, and has to be learned too.
const DICTIONARIES: Mix = Mix { practice: 0.3, years: 0.5, twins: 0.3, ..MODEL };
const END_TO_END: Mix = Mix { practice: 0.5, years: 0.3, ..DICTIONARIES };
/// At last as the tasks have them: single sentences, about any name.
const TUNE: Mix = Mix { practice: 0.6, sentences: [1, 2], held_out: true, ..END_TO_END };

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
    Tune = 10,
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

/// A few sentences of the two tasks with their answers: stories have too few of them for the model
/// to find out soon that names are to be copied.
fn practice(rng: &mut ChaCha8Rng, mix: &Mix) -> String {
    let names: Vec<&str> = grammar::NAMES
        .iter()
        .copied()
        .filter(|name| mix.held_out || !grammar::HELD_OUT_NAMES.contains(name))
        .collect();
    let [fewest, most] = mix.sentences;
    let sentences: Vec<String> =
        (0..rng.random_range(fewest..=most)).map(|_| practice_sentence(rng, &names, mix)).collect();
    sentences.join(" ")
}

fn practice_sentence(rng: &mut ChaCha8Rng, names: &[&str], mix: &Mix) -> String {
    let about_years = rng.random_bool(mix.years);
    let twin = mix.twins > 0.0 && rng.random_bool(mix.twins);
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
        let mix = match self.seed {
            Seed::Polish => POLISH,
            Seed::Dictionaries => DICTIONARIES,
            Seed::EndToEnd => END_TO_END,
            Seed::Tune => TUNE,
            _ if self.dealt < FIRST_BATCHES => FIRST,
            _ => MODEL,
        };
        if self.rng.random_bool(mix.practice) {
            self.fresh(|rng| practice(rng, &mix))
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
