//! The model of the settings, held against what a model of their corpus has to beat.

use crate::config::Config;
use crate::corpus::{Tokenizer, Window, repeated};
use crate::dictionary::Sample;
use crate::error::Result;
use crate::model::{self, Against, Gpt2, ModelCheck};
use crate::stats::ngrams::held_out;

/// Tokens of a repeated sequence at most: enough for heads that look for the last place of a token.
const LONGEST: usize = 101;

/// Repeated sequences, each of its own seed.
const SEQUENCES: u64 = 4;

/// Measures the model on the beginnings of the contexts `drawn`, as losses of dictionaries are, and
/// refuses it where its files are read wrongly or it is no model of them at all.
///
/// # Errors
/// When it is refused.
pub(crate) fn check_model(
    config: &Config,
    model: &Gpt2,
    tokenizer: &Tokenizer,
    contexts: &[Window],
    drawn: &[usize],
) -> Result<ModelCheck> {
    let folder = config.path(&config.model.path);
    let each: Vec<(u32, &[u32])> =
        contexts.iter().map(|window| (window.document, window.tokens.as_slice())).collect();
    let begun = |&i: &usize| {
        let (document, tokens) = each[i];
        (document, &tokens[..tokens.len().min(Sample::CUT)])
    };
    let measured: Vec<(u32, &[u32])> = drawn.iter().map(begun).collect();
    let counted = held_out(&each, &measured, model.sizes.vocabulary);
    let (ids, longest) = (tokenizer.ids_of_text(), model.sizes.positions.min(LONGEST));
    let against = Against {
        unigram: counted.unigram,
        bigram: counted.bigram,
        repeated: (0..SEQUENCES)
            .filter_map(|seed| repeated(&ids, tokenizer.bos(), longest, seed))
            .collect(),
    };
    let sample: Vec<&[u32]> = measured.iter().map(|(_, tokens)| *tokens).collect();
    let checked = model::check_model(model, &folder, &sample, &against)?;
    checked.check(&folder)?;
    Ok(checked)
}
