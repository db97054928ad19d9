//! Tasks: prompts whose answer is known, a wrong answer to hold against it, and a corrupted twin of each prompt.
//!
//! Knows words and tokens only: the model, circuits and tables are for others.

mod file;
mod greater_than;
mod ioi;
mod published;
mod words;

pub use greater_than::digits;
pub use published::{Origin, Published, origin, published};

use crate::config;
use crate::corpus::Tokenizer;
use crate::error::{Context, Result, hinted};
use std::collections::HashSet;
use std::path::Path;

/// One prompt of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What decides which position holds what: prompts of one template are of one length, and may be averaged.
    pub template: String,
    /// What its corrupted twin is drawn by: twins of one frame say the same at each position but for their words, and may be
    /// averaged. A template has one frame.
    pub frame: String,
    /// Without BOS.
    pub text: String,
    /// BOS first.
    pub tokens: Vec<u32>,
    pub correct: u32,
    pub counter: u32,
    /// The prompt with what its answer depends on taken out; BOS first, as long as `tokens`.
    pub corrupted: Vec<u32>,
    pub measure: Measure,
}

/// How well a model does on a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Of the correct answer over the counter answer.
    LogitDifference,
    /// `P(> year) − P(≤ year)` over the two-digit tokens ([`digits`]); the year's last two digits.
    GreaterThan { year: u32 },
}

/// The prompts of a task. `folder` is that of the settings file, to which `file` is relative.
///
/// # Errors
/// When the tokenizer does not suit the task, or the file of prompts is missing or wrong somewhere.
pub fn prompts(task: &config::Task, folder: &Path, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
    /// Written prompts, where settings do not say how many.
    const WRITTEN: usize = 100;
    let n = task.prompts.unwrap_or(WRITTEN);
    let prompts = match task.kind {
        config::TaskKind::Ioi => ioi::prompts(n, task.seed, tokenizer),
        config::TaskKind::GreaterThan => greater_than::prompts(n, task.seed, tokenizer),
        config::TaskKind::Prompts => {
            file::prompts(&folder.join(task.file.as_deref().unwrap_or_default()), task.prompts, task.seed, tokenizer)
        }
    };
    prompts.with_context(|| format!("cannot make the prompts of the task `{}`", task.name))
}

/// A prompt in words.
#[derive(Clone, Debug)]
struct Written {
    template: String,
    frame: String,
    text: String,
    corrupted: String,
    correct: u32,
    counter: u32,
    measure: Measure,
}

impl Written {
    /// # Errors
    /// When the text is empty or begins with BOS, or its corrupted twin is of another length.
    fn tokenise(self, tokenizer: &Tokenizer) -> Result<Prompt> {
        let tokens = behind_bos(&self.text, tokenizer)?;
        let corrupted = behind_bos(&self.corrupted, tokenizer)?;
        if tokens.len() != corrupted.len() {
            let (n, m) = (tokens.len() - 1, corrupted.len() - 1);
            let what = format!("the text has {n} tokens and its corrupted twin {m}");
            return Err(hinted(what, "corrupt a prompt by words of as many tokens"));
        }
        let Written { template, frame, text, correct, counter, measure, .. } = self;
        Ok(Prompt { template, frame, text, tokens, correct, counter, corrupted, measure })
    }
}

fn behind_bos(text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let ids = tokenizer.encode(text)?;
    match ids.first() {
        None => Err(hinted("a text is empty", "write the words that come before the answer")),
        Some(first) if *first == tokenizer.bos() => {
            let bos = tokenizer.token(*first);
            Err(hinted(format!("a text begins with `{bos}`"), "remove it: it is put before every prompt anyway"))
        }
        Some(_) => Ok([&[tokenizer.bos()], &ids[..]].concat()),
    }
}

/// A word of a list, and its one token behind a space.
#[derive(Clone, Copy, Debug)]
struct Word {
    text: &'static str,
    token: u32,
}

/// Words of a list that are one token behind a space; `least` of them are needed.
fn single_tokens(what: &str, list: &[&'static str], least: usize, tokenizer: &Tokenizer) -> Result<Vec<Word>> {
    let word = |text: &&'static str| Some(Word { text, token: tokenizer.single(&format!(" {text}"))? });
    let words: Vec<Word> = list.iter().filter_map(word).collect();
    if words.len() >= least {
        return Ok(words);
    }
    let what = format!("{} of {} {what} are single tokens, at least {least} are needed", words.len(), list.len());
    Err(hinted(what, UNSUITED))
}

const UNSUITED: &str = "this tokenizer does not suit the task; write prompts of your own and set `kind = \"prompts\"`";

/// `n` prompts, each drawn until its text is new. Where hardly any new ones are left, a repeated one will do.
fn distinct(n: usize, mut draw: impl FnMut(usize) -> Written) -> Vec<Written> {
    const TRIES: usize = 100;
    let mut seen = HashSet::new();
    let mut one = |i| {
        let mut drawn = draw(i);
        for _ in 1..TRIES {
            if !seen.contains(&drawn.text) {
                break;
            }
            drawn = draw(i);
        }
        seen.insert(drawn.text.clone());
        drawn
    };
    (0..n).map(&mut one).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{Task, TaskKind};
    use crate::corpus::tokenizer::tests::demo;

    /// Prompts of `(how many, seed)` are all different, and come again with their seed.
    pub fn assert_drawn_well(prompts: impl Fn(usize, u64) -> Vec<Prompt>) {
        let drawn = prompts(500, 1);
        let texts: HashSet<&str> = drawn.iter().map(|prompt| prompt.text.as_str()).collect();
        assert_eq!(texts.len(), 500);
        assert_eq!(drawn[..20], prompts(20, 1));
        assert_ne!(drawn[..20], prompts(20, 2));
    }

    #[test]
    fn a_task_is_named_in_its_errors() {
        let task = Task {
            name: "mine".into(),
            kind: TaskKind::Prompts,
            prompts: None,
            seed: 1,
            file: Some("no.jsonl".into()),
            published: String::new(),
            wrong: Default::default(),
        };
        let message = crate::error::report(&prompts(&task, Path::new("nowhere"), &demo()).unwrap_err());
        assert!(message.starts_with("error: cannot make the prompts of the task `mine`\n"), "{message}");
        assert!(message.contains("nowhere/no.jsonl"), "{message}");
    }

    #[test]
    fn repeats_come_only_when_nothing_new_is_left() {
        let written = |text: usize| Written {
            template: String::new(),
            frame: String::new(),
            text: text.to_string(),
            corrupted: String::new(),
            correct: 0,
            counter: 1,
            measure: Measure::LogitDifference,
        };
        let mut calls = 0;
        let drawn = distinct(5, |_| {
            calls += 1;
            written(calls / 2 % 4)
        });
        let texts: Vec<&str> = drawn.iter().map(|drawn| drawn.text.as_str()).collect();
        assert_eq!(texts[..4], ["0", "1", "2", "3"]);
        assert_eq!(texts.len(), 5);
    }
}
