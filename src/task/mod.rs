//! Tasks: prompts whose answer is known, a wrong answer to hold against it, and a corrupted twin of
//! each prompt.
//!
//! Knows words and tokens only: the model, circuits and tables are for others.

mod file;
mod greater_than;
mod ioi;
mod published;
mod typed;
mod words;

pub use greater_than::digits;
pub use published::Published;
pub use published::published;
pub(crate) use published::{Origin, origin};
pub(crate) use typed::{Typed, TypedText};

use crate::config;
use crate::corpus::Tokenizer;
use crate::error::{Context, Result, hinted};
use crate::stats::strata::stratified;
use std::collections::HashSet;
use std::path::Path;

/// One prompt of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What decides which position holds what: prompts of one template are of one length, and may
    /// be averaged.
    pub template: String,
    /// What its corrupted twin is drawn by: twins of one frame say the same at each position but
    /// for their words, and may be averaged. A template has one frame.
    pub frame: String,
    /// What results are told apart by, such as the order of names; empty where there is nothing to
    /// tell apart.
    pub stratum: String,
    /// Without BOS.
    pub text: String,
    /// BOS first.
    pub tokens: Vec<u32>,
    /// Token id of the right answer.
    pub correct: u32,
    /// Token id of the wrong answer.
    pub counter: u32,
    /// The prompt with what its answer depends on taken out; BOS first, as long as `tokens`.
    pub corrupted: Vec<u32>,
    /// Which metric it is measured by.
    pub measure: Measure,
}

/// How well a model does on a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Of the correct answer over the counter answer.
    LogitDifference,
    /// Of the correct answer alone; `counter` means nothing.
    Logit,
    /// `P(> year) − P(≤ year)` over the two-digit tokens ([`digits`]); the year's last two digits.
    GreaterThan {
        /// The year's last two digits.
        year: u32,
    },
}

/// How many prompts are wanted of a task, for each use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// To rank features on; the task's own are among them.
    pub finding: usize,
    /// To choose a circuit's size on.
    pub choosing: usize,
    /// To measure circuits on.
    pub fresh: usize,
}

/// The prompts of a task, for each use: a circuit that is measured on the prompts that it was found
/// on looks better than it is.
#[derive(Clone, Debug, Default)]
pub struct Prompts {
    /// Those that have a circuit each, and further ones for [`Wanted::finding`].
    pub finding: Vec<Prompt>,
    /// How many of them, from the first, have a circuit.
    pub own: usize,
    /// To choose a circuit's size on.
    pub choosing: Vec<Prompt>,
    /// To measure circuits on.
    pub fresh: Vec<Prompt>,
}

/// What is odd about prompts that somebody wrote, but stops nothing.
pub(crate) fn doubt(prompts: &Prompts) -> Option<String> {
    let Prompts { finding, choosing, fresh, .. } = prompts;
    let all = || finding.iter().chain(choosing).chain(fresh);
    let spaced = all().filter(|prompt| prompt.text.ends_with(char::is_whitespace)).count();
    (spaced > 0).then(|| {
        format!(
            "{spaced} of {} prompts end in a space: GPT-2's words begin with theirs, so the space \
             belongs in front of the answer, as in \" Mary\"",
            all().count()
        )
    })
}

/// Written prompts, where settings do not say how many.
pub(crate) const WRITTEN: usize = 100;

/// The prompts of a task. `folder` is that of the settings file, to which `file` is relative;
/// `positions` are those of the model, which no prompt may be longer than.
/// Prompts that a task writes itself are different ones for each use; a file's are dealt out behind
/// the task's own, by template.
///
/// # Errors
/// When the tokenizer does not suit the task, or the file of prompts is missing or wrong somewhere.
pub fn prompts(
    task: &config::Task,
    wanted: Wanted,
    folder: &Path,
    tokenizer: &Tokenizer,
    positions: usize,
) -> Result<Prompts> {
    let own = task.prompts.unwrap_or(WRITTEN);
    let finding = wanted.finding.max(own);
    let n = finding + wanted.choosing + wanted.fresh;
    let written = match task.kind {
        config::TaskKind::Ioi => ioi::prompts(n, task.seed, tokenizer),
        config::TaskKind::GreaterThan => greater_than::prompts(n, task.seed, tokenizer),
        config::TaskKind::Prompts => file::prompts(
            &folder.join(task.file.as_deref().unwrap_or_default()),
            None,
            task.seed,
            tokenizer,
            positions,
        ),
    };
    let fit = |written: Vec<Prompt>| -> Result<Vec<Prompt>> {
        written.iter().try_for_each(|prompt| fits(prompt, positions))?;
        Ok(written)
    };
    let mut written = written
        .and_then(fit)
        .with_context(|| format!("cannot make the prompts of the task `{}`", task.name))?;
    if task.kind == config::TaskKind::Prompts {
        return Ok(dealt(written, task, wanted));
    }
    let mut rest = written.split_off(finding);
    let fresh = rest.split_off(wanted.choosing);
    Ok(Prompts { finding: written, own, choosing: rest, fresh })
}

/// # Errors
/// When a prompt is longer than the model's positions.
fn fits(prompt: &Prompt, positions: usize) -> Result<()> {
    let length = prompt.tokens.len();
    if length <= positions {
        return Ok(());
    }
    let what =
        format!("{length} tokens, BOS included, are more than the model's {positions} positions");
    Err(hinted(what, "shorten the prompt"))
}

/// A file's prompts, dealt out by template: `prompts` are the task's own, all if it does not say;
/// of the others some are fresh, and the circuit's size is chosen on the rest.
fn dealt(all: Vec<Prompt>, task: &config::Task, wanted: Wanted) -> Prompts {
    let drawn = |places: &[usize], most: usize| -> HashSet<usize> {
        let templates: Vec<&str> = places.iter().map(|&i| all[i].template.as_str()).collect();
        stratified(&templates, most, task.seed).into_iter().map(|at| places[at]).collect()
    };
    let places: Vec<usize> = (0..all.len()).collect();
    let own = drawn(&places, task.prompts.unwrap_or(all.len()));
    let rest: Vec<usize> = places.into_iter().filter(|i| !own.contains(i)).collect();
    let most = if wanted.choosing > 0 { rest.len() / 2 } else { rest.len() };
    let fresh = drawn(&rest, most.min(wanted.fresh));
    let others: Vec<usize> = rest.into_iter().filter(|i| !fresh.contains(i)).collect();
    let choosing = drawn(&others, wanted.choosing);
    let mut prompts = Prompts { own: own.len(), ..Prompts::default() };
    for (i, prompt) in all.into_iter().enumerate() {
        match (own.contains(&i), fresh.contains(&i)) {
            (true, _) => prompts.finding.push(prompt),
            (_, true) => prompts.fresh.push(prompt),
            _ if choosing.contains(&i) => prompts.choosing.push(prompt),
            _ => {}
        }
    }
    prompts
}

/// A prompt in words.
#[derive(Clone, Debug)]
struct Written {
    template: String,
    frame: String,
    stratum: String,
    text: String,
    corrupted: String,
    correct: u32,
    counter: u32,
    measure: Measure,
}

impl Written {
    /// # Errors
    /// When the text is empty, or its corrupted twin is of another length.
    fn tokenise(self, tokenizer: &Tokenizer) -> Result<Prompt> {
        let tokens = behind_bos(&self.text, tokenizer)?;
        let corrupted = behind_bos(&self.corrupted, tokenizer)?;
        if tokens.len() != corrupted.len() {
            let (n, m) = (tokens.len() - 1, corrupted.len() - 1);
            let what = format!("the text has {n} tokens, the corrupted prompt {m}");
            return Err(hinted(what, "replace words by words with the same number of tokens"));
        }
        let Written { template, frame, stratum, mut text, correct, counter, measure, .. } = self;
        let bos = tokenizer.token(tokenizer.bos());
        while let Some(rest) = text.strip_prefix(&bos) {
            text = rest.to_string();
        }
        Ok(Prompt { template, frame, stratum, text, tokens, correct, counter, corrupted, measure })
    }
}

/// BOS and the ids of a text; where it begins with BOS itself, there is no second one.
fn behind_bos(text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let ids = tokenizer.encode(text)?;
    match tokenizer.behind_bos(&ids) {
        [] => Err(hinted("a text is empty", "write the text before the answer")),
        ids => Ok([&[tokenizer.bos()], ids].concat()),
    }
}

/// A word of a list, and its one token behind a space.
#[derive(Clone, Copy, Debug)]
struct Word {
    text: &'static str,
    token: u32,
}

/// Words of a list that are one token behind a space; `least` of them are needed.
fn single_tokens(
    what: &str,
    list: &[&'static str],
    least: usize,
    tokenizer: &Tokenizer,
) -> Result<Vec<Word>> {
    let word =
        |text: &&'static str| Some(Word { text, token: tokenizer.single(&format!(" {text}"))? });
    let words: Vec<Word> = list.iter().filter_map(word).collect();
    if words.len() >= least {
        return Ok(words);
    }
    let what = format!(
        "{} of {} {what} are single tokens, at least {least} are needed",
        words.len(),
        list.len()
    );
    Err(hinted(what, UNSUITED))
}

const UNSUITED: &str =
    "this tokenizer does not fit the task; write your own prompts and set `kind = \"prompts\"`";

/// `n` prompts, each drawn until its text is new. Where hardly any new ones are left, a repeated
/// one will do.
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
    pub(crate) fn assert_drawn_well(prompts: impl Fn(usize, u64) -> Vec<Prompt>) {
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
        let drawn = prompts(&task, Wanted::default(), Path::new("nowhere"), &demo(), 128);
        let message = crate::error::report(&drawn.unwrap_err());
        assert!(
            message.starts_with("error: cannot make the prompts of the task `mine`\n"),
            "{message}"
        );
        assert!(message.contains("nowhere/no.jsonl"), "{message}");
    }

    #[test]
    fn repeats_come_only_when_nothing_new_is_left() {
        let written = |text: usize| Written {
            template: String::new(),
            frame: String::new(),
            stratum: String::new(),
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
