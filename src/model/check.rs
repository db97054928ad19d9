//! Whether a model is one at all (`docs/definitions.md` §2): a checkpoint that is read wrongly, or
//! is damaged, mostly still gives numbers.
//!
//! Its loss is held against models that only count tokens, against what it expects itself, against
//! heads that look everywhere alike, and against the other readings of its files.

use super::gpt2::{Gpt2, Surprise};
use super::readings::Reading;
use crate::error::{Result, hinted};
use rayon::prelude::*;
use std::path::Path;

/// Tokens of the sample on which other readings are tried, …
const TRIED: usize = 256;
/// … of each context its first ones, at most so many. In fewer a wrong number of heads would do
/// little harm, so they are of few contexts: those with the most usual losses.
const OF_A_CONTEXT: usize = 128;

/// A reading with less than this share of the model's loss is the right one.
const READ_WRONGLY: f64 = 0.9;

/// A reading with less than this share of it may be.
const READ_STRANGELY: f64 = 0.97;

/// A model whose loss is more than this many times what it expects is not sure of the right things.
const SURPRISED: f64 = 1.15;

/// What a model is held against.
#[derive(Clone, Debug)]
pub struct Against {
    /// Loss of the frequencies of tokens.
    pub unigram: f64,
    /// Loss of the frequencies of pairs of tokens.
    pub bigram: f64,
    /// BOS, random tokens, and the same tokens again.
    pub repeated: Vec<Vec<u32>>,
}

/// What was measured of a model. Losses are in nats a token.
#[derive(Clone, Debug)]
pub struct ModelCheck {
    /// Tokens that were predicted.
    pub tokens: u64,
    /// The model's loss.
    pub loss: f64,
    /// Entropy of its predictions: the loss that it expects.
    pub entropy: f64,
    /// Standard error of the loss less the entropy, over contexts.
    pub error: f64,
    /// Loss of the frequencies of tokens.
    pub unigram: f64,
    /// Loss of the frequencies of pairs of tokens.
    pub bigram: f64,
    /// Its loss with every head looking at all earlier tokens alike.
    pub uniform: f64,
    /// Its losses on random tokens, and on the same again behind them; none where they do not fit.
    pub repeated: Option<[f64; 2]>,
    /// The other reading of its files with the lowest loss, and that as a share of the model's own
    /// on the same tokens.
    pub reading: Option<(Reading, f64)>,
}

/// Sums over the tokens of a context behind the first.
#[derive(Clone, Copy)]
struct Sums {
    loss: f64,
    entropy: f64,
    tokens: f64,
}

impl Sums {
    /// Of `tokens` tokens.
    fn of(Surprise { loss, entropy }: Surprise, tokens: usize) -> Sums {
        Sums { loss, entropy, tokens: tokens as f64 }
    }

    fn add(self, other: &Sums) -> Sums {
        Sums {
            loss: self.loss + other.loss,
            entropy: self.entropy + other.entropy,
            tokens: self.tokens + other.tokens,
        }
    }

    /// Added up in the order of the contexts, so that sums do not depend on the threads.
    fn all(each: &[Sums]) -> Sums {
        each.iter().fold(Sums { loss: 0.0, entropy: 0.0, tokens: 0.0 }, Sums::add)
    }
}

/// Sums of each context, of passes that leave these surprises.
fn sums(surprises: Vec<Surprise>, contexts: &[&[u32]]) -> Vec<Sums> {
    surprises
        .into_iter()
        .zip(contexts)
        .map(|(one, tokens)| Sums::of(one, tokens.len() - 1))
        .collect()
}

/// Losses on random tokens and on the same again. The first of the second half is left out: nothing
/// says that the tokens begin again.
fn repeated(model: &Gpt2, contexts: &[Vec<u32>]) -> Result<Option<[f64; 2]>> {
    let of = |tokens: &Vec<u32>| -> Result<[Sums; 2]> {
        let (logits, half) = (model.logits(&model.forward(tokens)?)?, tokens.len() / 2);
        let part = |places: std::ops::Range<usize>| -> Result<Sums> {
            let logits = logits.narrow(0, places.start - 1, places.len())?;
            let n = places.len();
            Ok(Sums::of(Surprise::of(&logits, &tokens[places])?, n))
        };
        Ok([part(1..half + 1)?, part(half + 2..tokens.len())?])
    };
    let each: Vec<[Sums; 2]> = contexts.par_iter().map(of).collect::<Result<_>>()?;
    let mean = |i: usize| {
        let sums = Sums::all(&each.iter().map(|halves| halves[i]).collect::<Vec<_>>());
        sums.loss / sums.tokens
    };
    Ok((!each.is_empty()).then(|| [mean(0), mean(1)]))
}

/// The numbers of contexts, those with a loss in the middle first. A context that is like no text
/// has a loss that no reading of the files makes sense of, and of two contexts it would decide.
fn usual_first(each: &[Sums]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..each.len()).collect();
    let loss = |i: &usize| each[*i].loss / each[*i].tokens;
    order.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    let mut ranked: Vec<(usize, usize)> = order.into_iter().enumerate().collect();
    ranked.sort_by_key(|(rank, _)| rank.abs_diff(each.len() / 2));
    ranked.into_iter().map(|(_, context)| context).collect()
}

/// The other reading with the lowest loss on the beginnings of some contexts, of which the model
/// as it is read leaves these sums.
fn best_reading(
    model: &Gpt2,
    folder: &Path,
    sample: &[&[u32]],
    each: &[Sums],
) -> Result<Option<(Reading, f64)>> {
    let mut tokens = 0;
    let enough = |context: &&[u32]| {
        let before = tokens;
        tokens += context.len();
        before < TRIED
    };
    let usual = usual_first(each).into_iter().map(|i| sample[i]);
    let begun = usual.map(|own| &own[..own.len().min(OF_A_CONTEXT)]);
    let few: Vec<&[u32]> = begun.take_while(enough).collect();
    let loss_of = |model: &Gpt2| -> Result<f64> {
        Ok(Sums::all(&sums(model.surprises_of(&few)?, &few)).loss)
    };
    let own = loss_of(model)?;
    let mut best: Option<(Reading, f64)> = None;
    for reading in model.readings() {
        let loss = loss_of(&model.read_as(folder, reading)?)?;
        if loss.is_finite() && best.is_none_or(|(_, least)| loss / own < least) {
            best = Some((reading, loss / own));
        }
    }
    Ok(best)
}

/// Measures a model of the files in `folder` on contexts of the corpus.
///
/// # Errors
/// When no context has two tokens, or its loss is not finite.
pub fn check_model(
    model: &Gpt2,
    folder: &Path,
    sample: &[&[u32]],
    against: &Against,
) -> Result<ModelCheck> {
    let sample: Vec<&[u32]> = sample.iter().copied().filter(|tokens| tokens.len() > 1).collect();
    if sample.is_empty() {
        return Err(hinted(
            "no context to measure the model on",
            "the corpus is empty or too short",
        ));
    }
    let each = sums(model.surprises_of(&sample)?, &sample);
    let Sums { loss, entropy, tokens } = Sums::all(&each);
    let (loss, entropy) = (loss / tokens, entropy / tokens);
    if !loss.is_finite() {
        return Err(hinted(
            format!(
                "the loss of the model `{}` on {tokens} tokens of the corpus is not a finite \
                 number ({loss})",
                folder.display()
            ),
            "its weights are damaged, or too large for f32; copy or convert the model again",
        ));
    }
    let alike = sums(model.surprises_looking_alike(&sample)?, &sample);
    Ok(ModelCheck {
        tokens: tokens as u64,
        loss,
        entropy,
        error: error(&each, loss - entropy),
        unigram: against.unigram,
        bigram: against.bigram,
        uniform: Sums::all(&alike).loss / tokens,
        repeated: repeated(model, &against.repeated)?,
        reading: best_reading(model, folder, &sample, &each)?,
    })
}

/// Standard error of the mean of loss less entropy, from how it differs between contexts.
fn error(each: &[Sums], mean: f64) -> f64 {
    let (n, tokens) = (each.len() as f64, Sums::all(each).tokens);
    if each.len() < 2 {
        return 0.0;
    }
    let squared = |sums: &Sums| (sums.loss - sums.entropy - mean * sums.tokens).powi(2);
    (each.iter().map(squared).sum::<f64>() * n / (n - 1.0)).sqrt() / tokens
}

impl ModelCheck {
    /// # Errors
    /// When the files are clearly read wrongly, or the model is no better than the frequencies of
    /// tokens.
    pub fn check(&self, folder: &Path) -> Result<()> {
        let (folder, loss) = (folder.display(), self.loss);
        // Among readings of what is noise either way one is always the best.
        let better =
            |(_, share): &(Reading, f64)| *share < READ_WRONGLY && *share * loss < self.unigram;
        if let Some((reading, share)) = self.reading.filter(better) {
            return Err(hinted(
                format!(
                    "the model `{folder}` is read wrongly: its loss is {loss:.2} nats per token, \
                     but only {share:.2} times as much with {reading}"
                ),
                reading.hint(),
            ));
        }
        if loss >= self.unigram {
            return Err(hinted(
                format!(
                    "the model `{folder}` is no better than guessing by the frequencies of \
                     tokens: its loss is {loss:.2} nats per token, theirs {:.2}",
                    self.unigram
                ),
                "the weights, `config.json` and `tokenizer.json` must be of one trained model, \
                 and the corpus text as it was trained on",
            ));
        }
        Ok(())
    }

    /// What looks wrong, but may be right.
    pub fn warnings(&self) -> Vec<String> {
        let loss = self.loss;
        let bigram = (loss >= self.bigram).then(|| {
            format!(
                "the model's loss, {loss:.2} nats per token, is no better than that of the \
                 frequencies of pairs of tokens ({:.2}): its weights may be damaged, or the \
                 corpus is not like what it was trained on",
                self.bigram
            )
        });
        let surprised = loss - self.entropy - 2.0 * self.error > (SURPRISED - 1.0) * self.entropy;
        let surprised = surprised.then(|| {
            format!(
                "the model's loss, {loss:.2} nats per token, is more than it expects (the entropy \
                 of its predictions, {:.2}): its weights may be damaged, or the corpus is not \
                 like what it was trained on",
                self.entropy
            )
        });
        let uniform = (loss >= self.uniform).then(|| {
            format!(
                "attention is of no use to the model: its loss, {loss:.2} nats per token, is not \
                 below that with all heads looking everywhere alike ({:.2}); `n_head` or the \
                 attention weights may be wrong",
                self.uniform
            )
        });
        let read = self.reading.filter(|(_, share)| *share < READ_STRANGELY);
        let read = read.map(|(reading, share)| {
            format!(
                "the model may be read wrongly: its loss is {share:.2} times as much with {reading}"
            )
        });
        [bigram, surprised, uniform, read].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;

    fn healthy() -> ModelCheck {
        ModelCheck {
            tokens: 2048,
            loss: 3.0,
            entropy: 3.1,
            error: 0.05,
            unigram: 7.0,
            bigram: 6.0,
            uniform: 5.0,
            repeated: None,
            reading: Some((Reading::Heads(3), 1.3)),
        }
    }

    fn refused(change: impl FnOnce(&mut ModelCheck)) -> Option<String> {
        let mut check = healthy();
        change(&mut check);
        check.check(Path::new("a/model")).err().map(|error| report(&error))
    }

    fn warned(change: impl FnOnce(&mut ModelCheck)) -> Vec<String> {
        let mut check = healthy();
        change(&mut check);
        assert!(check.check(Path::new("a/model")).is_ok());
        check.warnings()
    }

    #[test]
    fn readings_are_tried_on_contexts_with_usual_losses() {
        let losses = [900.0, 30.0, 28.0, 0.1, 33.0];
        let each = losses.map(|loss| Sums { loss, entropy: 0.0, tokens: 10.0 });
        assert_eq!(usual_first(&each), [1, 2, 4, 3, 0]);
        assert_eq!(usual_first(&each[..1]), [0]);
    }

    #[test]
    fn a_model_that_is_no_model_is_refused() {
        assert_eq!(refused(|_| ()), None);
        let message = refused(|check| check.unigram = 3.0).unwrap();
        assert!(
            message.starts_with(
                "error: the model `a/model` is no better than guessing by the frequencies of \
                 tokens: its loss is 3.00 nats per token, theirs 3.00\nhint: the weights,"
            ),
            "{message}"
        );
        let wrong = |check: &mut ModelCheck| check.reading = Some((Reading::Heads(3), 0.89));
        let message = refused(wrong).unwrap();
        assert!(message.contains("but only 0.89 times as much with n_head 3"), "{message}");
        assert!(message.contains("set it to that of the training, probably 3"), "{message}");
    }

    #[test]
    fn what_may_be_wrong_is_warned_of() {
        assert_eq!(warned(|_| ()), [""; 0]);
        let one = |warnings: Vec<String>, begin: &str| {
            assert!(warnings.len() == 1 && warnings[0].starts_with(begin), "{warnings:?}");
        };
        one(
            warned(|check| check.bigram = 2.9),
            "the model's loss, 3.00 nats per token, is no better than that of the frequencies of \
             pairs of tokens (2.90)",
        );
        one(
            warned(|check| check.entropy = 2.5),
            "the model's loss, 3.00 nats per token, is more than it expects (the entropy of its \
             predictions, 2.50)",
        );
        assert_eq!(warned(|check| (check.entropy, check.error) = (2.5, 0.2)), [""; 0]);
        one(warned(|check| check.uniform = 3.0), "attention is of no use to the model");
        one(
            warned(|check| check.reading = Some((Reading::Transposed(Some(1)), 0.95))),
            "the model may be read wrongly: its loss is 0.95 times as much with h.1.attn.c_proj \
             transposed",
        );
    }
}
