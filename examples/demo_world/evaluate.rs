//! What the saved model can do, on material that it was not trained on: loss beside a trigram
//! model's, the indirect object, and which year comes later.

use super::corpus::{self, Kept, Seed, Stream};
use super::grammar;
use super::net::{Batch, Net};
use super::ops;
use super::tokenizer::Words;
use super::train::Schedule;
use super::trigram::Trigram;
use anyhow::{Context, Result};

const PROMPTS: usize = 1000;

/// A task's prompts, with what is asked of the logits behind the last token.
struct Prompt {
    ids: Vec<u32>,
    /// The answer: a name's token, or the two digits to exceed.
    answer: u32,
    /// The name that it must not be.
    other: u32,
}

pub(crate) struct Figures {
    pub parameters: usize,
    pub loss: f64,
    pub trigram: f64,
    pub unigram: f64,
    /// Right, and first of all tokens: with held-out names, with all names.
    pub indirect_object: [[f64; 2]; 2],
    pub greater_than: f64,
    pub tokens: usize,
}

/// Logits behind the last token of each prompt.
fn last_logits(net: &Net, prompts: &[Prompt]) -> Result<Vec<Vec<f32>>> {
    let mut all = Vec::new();
    for chunk in prompts.chunks(64) {
        let contexts: Vec<Vec<u32>> = chunk.iter().map(|prompt| prompt.ids.clone()).collect();
        let batch = Batch::new(&contexts)?;
        let (logits, v) = (net.logits(&batch)?, net.vocabulary);
        for (row, context) in contexts.iter().enumerate() {
            let from = (row * batch.t + context.len() - 1) * v;
            all.push(ops::read(&logits, |logits| logits[from..from + v].to_vec())?);
        }
    }
    Ok(all)
}

fn name_prompts(words: &Words, names: &[&str]) -> Result<Vec<Prompt>> {
    let tokens =
        names.iter().map(|name| words.single(&format!(" {name}"))).collect::<Result<Vec<_>>>()?;
    let mut rng = corpus::rng(Seed::Prompts);
    (0..PROMPTS)
        .map(|_| {
            let (text, answer) = grammar::indirect_object(&mut rng, names, false);
            let ids = [&[words.end][..], &words.encode(&text)?].concat();
            let answer = words.single(&format!(" {answer}"))?;
            let subject = ids.iter().rev().find(|&id| *id != answer && tokens.contains(id));
            Ok(Prompt {
                other: *subject.with_context(|| format!("no subject in {text:?}"))?,
                ids,
                answer,
            })
        })
        .collect()
}

/// Shares of prompts in which the indirect object beats the subject, and beats every token.
fn indirect_object(net: &Net, words: &Words, names: &[&str]) -> Result<[f64; 2]> {
    let prompts = name_prompts(words, names)?;
    let (mut right, mut first) = (0, 0);
    for (logits, prompt) in last_logits(net, &prompts)?.iter().zip(&prompts) {
        let answer = logits[prompt.answer as usize];
        right += usize::from(answer > logits[prompt.other as usize]);
        first += usize::from(logits.iter().all(|&logit| logit <= answer));
    }
    Ok([right, first].map(|n| n as f64 / PROMPTS as f64))
}

/// Mean `P(>YY) − P(≤YY)`.
fn greater_than(net: &Net, words: &Words) -> Result<f64> {
    let (mut rng, halves) = (corpus::rng(Seed::Prompts), words.two_digits()?);
    let prompts = (0..PROMPTS).map(|_| {
        let (text, year) = grammar::greater_than(&mut rng, false);
        Ok(Prompt {
            ids: [&[words.end][..], &words.encode(&text)?].concat(),
            answer: year,
            other: 0,
        })
    });
    let prompts = prompts.collect::<Result<Vec<_>>>()?;
    let mut sum = 0.0;
    for (logits, prompt) in last_logits(net, &prompts)?.iter().zip(&prompts) {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let p = |id: u32| f64::from(logits[id as usize] - top).exp();
        let total: f64 = (0..logits.len() as u32).map(p).sum();
        let signed =
            |(year, &id): (usize, &u32)| if year as u32 > prompt.answer { p(id) } else { -p(id) };
        sum += halves.iter().enumerate().map(signed).sum::<f64>() / total;
    }
    Ok(sum / PROMPTS as f64)
}

/// Mean loss a token.
pub(crate) fn loss(net: &Net, contexts: &[Vec<u32>]) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for chunk in contexts.chunks(32) {
        let batch = Batch::new(chunk)?;
        sum += f64::from(net.loss(&batch)?.to_scalar::<f32>()?);
        count += batch.count;
    }
    Ok(sum / count as f64)
}

/// Counts the contexts of the whole training, and with them the held-out losses of single tokens
/// and trigrams.
fn count_models(
    words: &Words,
    kept: &Kept,
    schedules: &[Schedule],
    held_out: &[Vec<u32>],
) -> Result<(usize, [f64; 2])> {
    let mut trigram = Trigram::new(words.vocabulary());
    let mut tokens = 0;
    for schedule in schedules {
        let mut stream = Stream::new(words, schedule.seed, kept.all.clone());
        for _ in 0..schedule.steps {
            for context in stream.batch(schedule.batch)? {
                trigram.count(&context);
                tokens += context.len() - 1;
            }
        }
    }
    let count: usize = held_out.iter().map(|context| context.len() - 1).sum();
    let losses = held_out.iter().map(|context| trigram.losses(context));
    let sums = losses.fold([0.0; 2], |sums, losses| [sums[0] + losses[0], sums[1] + losses[1]]);
    Ok((tokens, sums.map(|sum| sum / count as f64)))
}

/// The two tasks only, cheap enough for a look while training.
pub(crate) fn tasks(net: &Net, words: &Words) -> Result<([[f64; 2]; 2], f64)> {
    let all = [grammar::HELD_OUT_NAMES, grammar::NAMES];
    let right = [indirect_object(net, words, all[0])?, indirect_object(net, words, all[1])?];
    Ok((right, greater_than(net, words)?))
}

/// Everything, of a model trained by `schedules`.
pub(crate) fn figures(
    net: &Net,
    words: &Words,
    kept: &Kept,
    schedules: &[Schedule],
) -> Result<Figures> {
    let held_out = corpus::all_contexts(words, &kept.held_out)?;
    let (indirect_object, greater_than) = tasks(net, words)?;
    let loss = loss(net, &held_out)?;
    let (tokens, [unigram, trigram]) = count_models(words, kept, schedules, &held_out)?;
    Ok(Figures {
        parameters: net.parameters(),
        loss,
        trigram,
        unigram,
        indirect_object,
        greater_than,
        tokens,
    })
}
