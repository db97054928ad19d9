//! Examples as a language model is shown them.

use crate::artifact::tables::ExampleRow;
use crate::corpus::{TokenPiece, Tokenizer};
use crate::inputs::Contexts;
use crate::llm::Excerpt;
use crate::llm::excerpt::ExcerptPiece;
use std::collections::BTreeSet;

/// The text of token ids with activations at them, special tokens left out.
pub fn excerpt(tokens: &[u32], activations: &[f32], tokenizer: &Tokenizer) -> Excerpt {
    let strongest =
        |of: std::ops::Range<usize>| activations[of].iter().copied().fold(0.0, f32::max);
    let pieces = tokenizer.pieces(tokens).into_iter().filter(|piece| !piece.special);
    let piece =
        |piece: TokenPiece| ExcerptPiece { text: piece.text, activation: strongest(piece.tokens) };
    Excerpt { pieces: pieces.map(piece).collect(), ..Excerpt::default() }
}

/// The same of tokens of a context, the first of which is at `start`.
pub(crate) fn of_context(
    contexts: &Contexts,
    context: u32,
    start: u16,
    tokens: &[u32],
    activations: &[f32],
) -> Excerpt {
    let row = &contexts.rows[context as usize];
    Excerpt {
        // Position 0 is BOS.
        begins: row.start == 0 && start <= 1,
        goes_on: usize::from(start) + tokens.len() < row.tokens.len(),
        ..excerpt(tokens, activations, contexts.tokenizer())
    }
}

/// The window of an example.
pub(crate) fn of_example(row: &ExampleRow, contexts: &Contexts) -> Excerpt {
    of_context(contexts, row.context, row.start, &row.tokens, &row.activations)
}

/// The text of tokens of a context, some of them in marks.
pub fn marked(
    contexts: &Contexts,
    context: u32,
    start: u16,
    tokens: &[u32],
    places: &[u16],
) -> String {
    let is_marked = |i: usize| places.contains(&(i as u16));
    let marks: Vec<f32> = (0..tokens.len()).map(|i| f32::from(u8::from(is_marked(i)))).collect();
    let excerpt = of_context(contexts, context, start, tokens, &marks);
    let pieces = excerpt.pieces.iter().enumerate().filter(|(_, piece)| piece.activation > 0.0);
    let marked: BTreeSet<usize> = pieces.map(|(i, _)| i).collect();
    excerpt.marked(&marked)
}

/// The places of tokens that are no special ones, and share no character with another.
pub fn whole(tokens: &[u32], tokenizer: &Tokenizer) -> BTreeSet<usize> {
    let alone = |piece: &TokenPiece| !piece.special && piece.tokens.len() == 1;
    tokenizer.pieces(tokens).into_iter().filter(alone).map(|piece| piece.tokens.start).collect()
}
