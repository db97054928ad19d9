//! What a head does over the prompts of a task: where it looks, what it carries from there, what it
//! adds to the answer.
//!
//! All of it is read off clean passes; which of it matters to the answer is for circuits to say.
//! Letters: `T` tokens, `K` d_head, `D` d_model, `V` vocabulary. Knows nothing of what the tokens
//! say.

use super::promote::TopTokens;
use super::replacement::PROMPTS;
use crate::dictionary::Dictionary;
use crate::error::{Result, hinted};
use crate::model::{Gpt2, Trace};
use candle_core::Tensor;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A head: its layer and its number there.
pub type HeadIndex = (usize, usize);

/// A prompt over which heads are watched.
pub struct HeadPrompt<'a> {
    /// BOS first.
    pub tokens: &'a [u32],
    /// Prompts of a template are of one length, and line up.
    pub template: &'a str,
    /// Token id of the right answer.
    pub correct: u32,
    /// Token id of the wrong answer.
    pub counter: u32,
}

/// A mean as it grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mean {
    sum: f64,
    n: u64,
}

impl Mean {
    fn add(&mut self, x: f64) {
        self.sum += x;
        self.n += 1;
    }

    /// None of nothing.
    pub fn value(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

/// Where the attention of a head goes: means of shares of a token's attention. BOS, which can only
/// look at itself, counts as no token here.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionTotals {
    /// To BOS.
    pub bos: Mean,
    /// To the token itself.
    pub itself: Mean,
    /// To the token before, over tokens before which there is another than BOS.
    pub previous: Mean,
    /// To earlier places of the same token, over tokens that have one.
    pub same: Mean,
    /// To the tokens behind those places, over the same tokens.
    pub after_same: Mean,
    /// From the last token to the right answer, over prompts that have it.
    pub correct: Mean,
    /// From the last token to the wrong answer, likewise.
    pub counter: Mean,
    /// What the head adds at the last token to the logit of the right answer over the wrong one,
    /// LayerNorm's scale held.
    pub direct: Mean,
}

/// A head's mean attention over the prompts of a template.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The template's name.
    pub template: String,
    /// The first prompt of the template.
    pub first: usize,
    /// Prompts over which the mean is.
    pub prompts: u32,
    /// `[T, T]`, a destination a row; 0 where a position must not look.
    pub attention: Vec<f32>,
}

/// What a head makes of a token.
#[derive(Clone, Debug)]
struct Reading {
    places: u32,
    /// Summed attention that the token received.
    mass: f64,
    /// Summed value over its places, `[K]`.
    value: Vec<f64>,
}

/// A head over the prompts of a task.
pub struct HeadBehaviour {
    /// Which head it is.
    pub head: HeadIndex,
    /// Where it looks, over all prompts.
    pub habits: AttentionTotals,
    /// In the order in which the templates first come.
    pub patterns: Vec<Pattern>,
    /// By token; BOS is none.
    readings: BTreeMap<u32, Reading>,
    /// Tokens that are a right or wrong answer.
    answers: BTreeSet<u32>,
}

/// What a head writes when it reads a token.
#[derive(Clone, Debug)]
pub struct CopyEffect {
    /// The id of the token that it reads.
    pub token: u32,
    /// Whether it is a right or a wrong answer of one of the prompts.
    pub answer: bool,
    /// Places at which the token stands.
    pub places: u32,
    /// Summed attention that it received.
    pub mass: f64,
    /// The tokens raised most, with their logits for a full unit of attention at a LayerNorm scale
    /// of 1.
    pub top: Vec<(u32, f32)>,
    /// The token's own place among all but special ones, from the most raised one and from the most
    /// lowered one, each from 1.
    pub own_rank: u32,
    /// From the most lowered one.
    pub own_rank_below: u32,
    /// The token's own logit, in the unit of `top`.
    pub own_logit: f32,
}

/// What one pass shows of a head.
struct Look {
    /// `[T, T]`
    pattern: Vec<f32>,
    /// `[T, K]`
    values: Vec<f32>,
    direct: f32,
}

/// Watches heads over prompts; as many studies as heads, in their order.
pub fn study(
    model: &Gpt2,
    prompts: &[HeadPrompt],
    heads: &[HeadIndex],
) -> Result<Vec<HeadBehaviour>> {
    let answers: BTreeSet<u32> =
        prompts.iter().flat_map(|prompt| [prompt.correct, prompt.counter]).collect();
    let new = |&head| HeadBehaviour {
        head,
        habits: AttentionTotals::default(),
        patterns: Vec::new(),
        readings: BTreeMap::new(),
        answers: answers.clone(),
    };
    let mut studies: Vec<HeadBehaviour> = heads.iter().map(new).collect();
    for (chunk, some) in prompts.chunks(PROMPTS).enumerate() {
        let looks = some
            .par_iter()
            .map(|prompt| looks(model, prompt, heads))
            .collect::<Result<Vec<_>>>()?;
        // In the order of the prompts, whichever was done first.
        studies.par_iter_mut().enumerate().for_each(|(i, study)| {
            for (number, (prompt, looks)) in some.iter().zip(&looks).enumerate() {
                study.add(chunk * PROMPTS + number, prompt, &looks[i]);
            }
        });
    }
    studies.par_iter_mut().for_each(HeadBehaviour::finish);
    Ok(studies)
}

fn looks(model: &Gpt2, prompt: &HeadPrompt, heads: &[HeadIndex]) -> Result<Vec<Look>> {
    let trace = model.forward(prompt.tokens)?;
    let column = |id: u32| -> Result<Tensor> { Ok(model.w_u.narrow(1, id as usize, 1)?) };
    let answer = (column(prompt.correct)? - column(prompt.counter)?)?;
    heads.iter().map(|&head| look(model, &trace, &answer, head)).collect()
}

/// `answer` `[D, 1]` is what the logit difference reads.
fn look(model: &Gpt2, trace: &Trace, answer: &Tensor, (layer, head): HeadIndex) -> Result<Look> {
    let (own, last) = (&trace.layers[layer], trace.sigma_f.len() - 1);
    let k = model.sizes.d_head;
    let z = own.z.narrow(0, last, 1)?.narrow(1, head * k, k)?;
    let written = z.matmul(&output(model, (layer, head))?)?.matmul(answer)?;
    Ok(Look {
        pattern: own.pattern.get(head)?.flatten_all()?.to_vec1()?,
        values: own.v.get(head)?.flatten_all()?.to_vec1()?,
        direct: written.flatten_all()?.to_vec1::<f32>()?[0] / trace.sigma_f[last],
    })
}

/// A head's rows of `W_O'`, `[K, D]`.
fn output(model: &Gpt2, (layer, head): HeadIndex) -> Result<Tensor> {
    let k = model.sizes.d_head;
    Ok(model.layers[layer].w_o.narrow(0, head * k, k)?)
}

impl HeadBehaviour {
    fn add(&mut self, number: usize, prompt: &HeadPrompt, look: &Look) {
        self.habits.add(prompt, look);
        self.add_pattern(number, prompt.template, &look.pattern);
        let (t, k) = (prompt.tokens.len(), look.values.len() / prompt.tokens.len());
        for (source, &token) in prompt.tokens.iter().enumerate().skip(1) {
            let new = || Reading { places: 0, mass: 0.0, value: vec![0.0; k] };
            let reading = self.readings.entry(token).or_insert_with(new);
            reading.places += 1;
            reading.mass +=
                (source..t).map(|p| f64::from(look.pattern[p * t + source])).sum::<f64>();
            let value = &look.values[source * k..][..k];
            reading.value.iter_mut().zip(value).for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }

    fn add_pattern(&mut self, number: usize, template: &str, pattern: &[f32]) {
        match self.patterns.iter_mut().find(|known| known.template == template) {
            Some(known) => {
                known.prompts += 1;
                known.attention.iter_mut().zip(pattern).for_each(|(sum, a)| *sum += a);
            }
            None => self.patterns.push(Pattern {
                template: template.into(),
                first: number,
                prompts: 1,
                attention: pattern.to_vec(),
            }),
        }
    }

    /// From sums to means.
    fn finish(&mut self) {
        for pattern in &mut self.patterns {
            let n = pattern.prompts as f32;
            pattern.attention.iter_mut().for_each(|a| *a /= n);
        }
    }

    /// What the head writes when it reads each token of the prompts but special ones, those first
    /// that it looks at most; with the tokens that each raises most. The value is the mean over the
    /// token's places in the clean runs.
    pub fn copies(&self, model: &Gpt2, listed: TopTokens) -> Result<Vec<CopyEffect>> {
        let plain = |reading: &(&u32, &Reading)| !listed.specials.contains(reading.0);
        let mut readings: Vec<(&u32, &Reading)> = self.readings.iter().filter(plain).collect();
        readings.sort_by(|a, b| b.1.mass.total_cmp(&a.1.mass).then(a.0.cmp(b.0)));
        let mut copies = Vec::with_capacity(readings.len());
        for some in readings.chunks(TOKENS) {
            let values = some
                .iter()
                .flat_map(|(_, r)| r.value.iter().map(|x| (x / f64::from(r.places)) as f32));
            let values = Tensor::from_vec(
                values.collect(),
                (some.len(), model.sizes.d_head),
                model.w_u.device(),
            )?;
            let logits: Vec<Vec<f32>> =
                values.matmul(&output(model, self.head)?)?.matmul(&model.w_u)?.to_vec2()?;
            let copied = |(&(token, reading), logits): (&(&u32, &Reading), &Vec<f32>)| {
                copied(*token, self.answers.contains(token), reading, logits, listed)
            };
            copies.extend(some.iter().zip(&logits).map(copied));
        }
        Ok(copies)
    }
}

/// Tokens multiplied with the unembedding at once.
const TOKENS: usize = 128;

fn copied(
    token: u32,
    answer: bool,
    reading: &Reading,
    logits: &[f32],
    listed: TopTokens,
) -> CopyEffect {
    let own_logit = logits[token as usize];
    let count = |better: &dyn Fn(f32) -> bool| {
        let before = |(id, logit): (u32, &f32)| {
            !listed.specials.contains(&id)
                && (better(*logit) || (*logit == own_logit && id < token))
        };
        1 + (0u32..).zip(logits).filter(|x| before(*x)).count() as u32
    };
    CopyEffect {
        token,
        answer,
        places: reading.places,
        mass: reading.mass,
        top: listed.of(logits).top,
        own_rank: count(&|logit| logit > own_logit),
        own_rank_below: count(&|logit| logit < own_logit),
        own_logit,
    }
}

/// How far a head copies, over what it looks at: means weighted by the attention that tokens
/// receive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyScore {
    /// Share of its attention that is on tokens that are among the few that reading them raises
    /// most.
    pub raised: f64,
    /// The same among the few that reading them lowers most.
    pub(crate) lowered: f64,
    /// Rank of a token among those that reading it raises, from 1.
    pub own_rank: f64,
}

/// With `few` as the few. None where it looks at nothing.
pub fn copying<'a>(copies: impl Iterator<Item = &'a CopyEffect>, few: u32) -> Option<CopyScore> {
    let (mut whole, mut raised, mut lowered, mut own_rank) = (0.0, 0.0, 0.0, 0.0);
    for copy in copies {
        let if_few = |rank: u32| if rank <= few { copy.mass } else { 0.0 };
        whole += copy.mass;
        raised += if_few(copy.own_rank);
        lowered += if_few(copy.own_rank_below);
        own_rank += copy.mass * f64::from(copy.own_rank);
    }
    (whole > 0.0).then(|| CopyScore {
        raised: raised / whole,
        lowered: lowered / whole,
        own_rank: own_rank / whole,
    })
}

impl AttentionTotals {
    fn add(&mut self, prompt: &HeadPrompt, look: &Look) {
        let (tokens, t) = (prompt.tokens, prompt.tokens.len());
        let a = |p: usize, s: usize| f64::from(look.pattern[p * t + s]);
        for p in 1..t {
            self.bos.add(a(p, 0));
            self.itself.add(a(p, p));
            if p > 1 {
                self.previous.add(a(p, p - 1));
            }
            let earlier = |s: &usize| tokens[*s] == tokens[p];
            if (1..p).any(|s| earlier(&s)) {
                self.same.add((1..p).filter(earlier).map(|s| a(p, s)).sum());
                // The token behind an earlier place may be this one.
                self.after_same.add(
                    (1..p).filter(earlier).map(|s| s + 1).filter(|s| *s < p).map(|s| a(p, s)).sum(),
                );
            }
        }
        for (mean, answer) in
            [(&mut self.correct, prompt.correct), (&mut self.counter, prompt.counter)]
        {
            if tokens[1..].contains(&answer) {
                mean.add((1..t).filter(|s| tokens[*s] == answer).map(|s| a(t - 1, s)).sum());
            }
        }
        self.direct.add(f64::from(look.direct));
    }
}

/// How much of each feature of an attention dictionary is in each head: the norm of its decoder
/// there as a share of the sum of its norms over all heads, `[H]` a feature. A feature without a
/// decoder has 0 everywhere.
///
/// # Errors
/// When the dictionary does not write as many heads.
pub fn decoder_shares(dictionary: &Dictionary, heads: usize) -> Result<Vec<Vec<f32>>> {
    let width = dictionary.b_out().len();
    if heads == 0 || !width.is_multiple_of(heads) {
        let what = format!(
            "`{}` has width {width}, which is not a multiple of {heads} heads",
            dictionary.id
        );
        return Err(hinted(what, "use the attention dictionaries of this model"));
    }
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let of = |feature: usize| -> Result<Vec<f32>> {
        let norms: Vec<f64> =
            dictionary.write_direction(feature)?.chunks_exact(width / heads).map(norm).collect();
        let whole: f64 = norms.iter().sum();
        Ok(norms
            .into_iter()
            .map(|norm| if whole > 0.0 { (norm / whole) as f32 } else { 0.0 })
            .collect())
    };
    (0..dictionary.width()).into_par_iter().map(of).collect()
}
