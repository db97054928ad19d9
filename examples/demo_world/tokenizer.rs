//! The tokenizer: byte-level BPE with GPT-2's pre-tokenisation, learned from stories. On top of
//! what BPE learns, the two halves of a year, and every name, place, object and event behind a
//! space, are made single tokens.

use super::grammar;
use anyhow::{Result, anyhow, ensure};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{
    AddedToken, Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper, Tokenizer,
};

pub(crate) const END: &str = "<|endoftext|>";
/// A space, as byte-level BPE writes it.
const SPACE: &str = "Ġ";
/// Tokens in all.
const VOCABULARY: usize = 2560;
/// Merges left to BPE; the rest of the vocabulary goes to whole words, the most frequent first.
const LEARNED: usize = 900;

/// A tokenizer and the id that begins every context.
pub(crate) struct Words {
    inner: Tokenizer,
    pub end: u32,
}

fn wrong(error: tokenizers::Error) -> anyhow::Error {
    anyhow!("tokenizer: {error}")
}

impl Words {
    pub(crate) fn load(folder: &Path) -> Result<Words> {
        Self::of(Tokenizer::from_file(folder.join("tokenizer.json")).map_err(wrong)?)
    }

    fn of(inner: Tokenizer) -> Result<Words> {
        let end = inner.token_to_id(END).ok_or_else(|| anyhow!("the tokenizer has no {END}"))?;
        Ok(Words { inner, end })
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(wrong)?.get_ids().to_vec())
    }

    /// The one token of a text.
    pub(crate) fn single(&self, text: &str) -> Result<u32> {
        match self.encode(text)?[..] {
            [id] => Ok(id),
            ref ids => Err(anyhow!("{text:?} is {} tokens, not one", ids.len())),
        }
    }

    /// The 100 second halves of a year.
    pub(crate) fn two_digits(&self) -> Result<Vec<u32>> {
        (0..100).map(|n| self.single(&format!("{n:02}"))).collect()
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

/// Merges in the making: byte-level strings and the tokens they give.
struct Merges {
    list: Vec<(String, String)>,
    tokens: Vec<String>,
    known: HashSet<String>,
}

impl Merges {
    fn new() -> Merges {
        let mut tokens: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
        tokens.sort();
        Merges { list: Vec::new(), known: tokens.iter().cloned().collect(), tokens }
    }

    fn add(&mut self, left: &str, right: &str) {
        let (pair, token) = ((left.to_string(), right.to_string()), format!("{left}{right}"));
        if !self.list.contains(&pair) {
            self.list.push(pair);
        }
        if self.known.insert(token.clone()) {
            self.tokens.push(token);
        }
    }

    /// First halves of years before second halves, so that " 1735" is " 17" and "35"; then other
    /// short numbers.
    fn add_digits(&mut self) {
        let digits = || (0..10).map(|d| d.to_string());
        self.add(SPACE, "1");
        digits().skip(1).for_each(|d| self.add(&format!("{SPACE}1"), &d));
        self.add(SPACE, "2");
        self.add(&format!("{SPACE}2"), "0");
        digits().for_each(|a| digits().for_each(|b| self.add(&a, &b)));
        digits().skip(3).for_each(|d| self.add(SPACE, &d));
    }

    /// Joins the tokens of a word, left to right.
    fn add_word(&mut self, parts: &[String]) {
        let mut left = parts[0].clone();
        for right in &parts[1..] {
            self.add(&left, right);
            left.push_str(right);
        }
    }

    fn model(&self) -> Result<BPE> {
        let ids: Vocab = self.tokens.iter().cloned().zip(0..).collect();
        BPE::builder().vocab_and_merges(ids, self.list.clone()).build().map_err(wrong)
    }

    fn parts(&self, word: &str) -> Result<Vec<String>> {
        let tokens = self.model()?.tokenize(word).map_err(wrong)?;
        Ok(tokens.into_iter().map(|token| token.value).collect())
    }
}

fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

/// How often each word stands in the stories, as byte-level BPE writes it.
fn word_counts(stories: &[String]) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for story in stories {
        let mut text = PreTokenizedString::from(story.as_str());
        byte_level().pre_tokenize(&mut text).map_err(wrong)?;
        for (word, _, _) in text.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            *counts.entry(word.to_string()).or_default() += 1;
        }
    }
    Ok(counts)
}

/// BPE's own merges over the stories; digits are kept apart, as theirs are given.
fn learned(stories: &[String]) -> Result<Vec<(String, String)>> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    let apart: Vec<PreTokenizerWrapper> = vec![Digits::new(true).into(), byte_level().into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(apart)));
    let trainer = BpeTrainer::builder()
        .vocab_size(256 + LEARNED)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::from(trainer);
    tokenizer.train(&mut trainer, stories.iter()).map_err(wrong)?;
    let saved: serde_json::Value =
        serde_json::from_str(&tokenizer.to_string(false).map_err(wrong)?)?;
    Ok(serde_json::from_value(saved["model"]["merges"].clone())?)
}

/// What must be a single token behind a space, byte-level.
fn required() -> Result<Vec<String>> {
    let lists = [
        grammar::NAMES,
        grammar::ACCENTED_NAMES,
        grammar::PLACES,
        grammar::OBJECTS,
        grammar::EVENTS,
    ];
    let words: Vec<String> = lists.concat().iter().map(|word| format!(" {word}")).collect();
    Ok(word_counts(&words)?.into_keys().collect())
}

/// Learns the tokenizer from stories and writes it.
pub(crate) fn build(stories: &[String], folder: &Path) -> Result<Words> {
    let mut merges = Merges::new();
    merges.add_digits();
    learned(stories)?.iter().for_each(|(left, right)| merges.add(left, right));
    let counts = word_counts(stories)?;
    let mut frequent: Vec<(&String, &usize)> = counts.iter().collect();
    frequent.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), word.as_str()));
    let plain = |word: &&String| !word.chars().any(|c| c.is_ascii_digit());
    let frequent = frequent.into_iter().map(|(word, _)| word).filter(plain).cloned();
    for word in required()?.into_iter().chain(frequent) {
        let parts = merges.parts(&word)?;
        if merges.tokens.len() + parts.len() <= VOCABULARY {
            merges.add_word(&parts);
        }
    }
    let mut tokenizer = Tokenizer::new(merges.model()?);
    tokenizer.with_pre_tokenizer(Some(byte_level())).with_decoder(Some(byte_level()));
    tokenizer.add_special_tokens([AddedToken::from(END, true)]).map_err(wrong)?;
    tokenizer.save(folder.join("tokenizer.json"), true).map_err(wrong)?;
    let words = Words::load(folder)?;
    check(&words)?;
    report(&words, stories)?;
    Ok(words)
}

/// The promises that prompts rely on.
fn check(words: &Words) -> Result<()> {
    let lists = [
        grammar::NAMES,
        grammar::ACCENTED_NAMES,
        grammar::PLACES,
        grammar::OBJECTS,
        grammar::EVENTS,
    ];
    for word in lists.concat() {
        // Of a name of several words, each is one token.
        let pieces = word.split(' ').count();
        let tokens = words.encode(&format!(" {word}"))?.len();
        ensure!(tokens == pieces, "{word:?} is {tokens} tokens");
    }
    let halves = words.two_digits()?;
    for year in 1100..2100 {
        let ids = words.encode(&format!(" {year}"))?;
        ensure!(ids.len() == 2 && ids[1] == halves[year % 100], "the year {year} is {ids:?}");
        ensure!(
            words.single(&format!(" {}", year / 100))? == ids[0],
            "the year {year} begins with {}",
            ids[0]
        );
    }
    ensure!(words.end as usize + 1 == words.vocabulary(), "{END} is not the last token");
    Ok(())
}

fn report(words: &Words, stories: &[String]) -> Result<()> {
    let counts = word_counts(stories)?;
    let (mut whole, mut all, mut split) = (0, 0, Vec::new());
    for (word, count) in &counts {
        let text = word.replace(SPACE, " ");
        let pieces = if text.is_ascii() { words.encode(&text)?.len() } else { 1 };
        all += count;
        whole += if pieces == 1 { *count } else { 0 };
        if pieces > 1 && !text.contains(|c: char| c.is_ascii_digit()) {
            split.push((*count, text));
        }
    }
    split.sort_by(|a, b| b.cmp(a));
    split.truncate(12);
    println!(
        "tokenizer: {} tokens, {} different words, {:.2} % of words whole",
        words.vocabulary(),
        counts.len(),
        100.0 * whole as f64 / all as f64
    );
    println!("most frequent words in pieces: {split:?}");
    Ok(())
}
