//! Examples as a language model is shown them.

use crate::artifact::tables::ExampleRow;
use crate::corpus::Tokenizer;
use crate::llm::Excerpt;
use crate::llm::excerpt::ExcerptPiece;
use std::collections::BTreeSet;

/// The text of token ids with activations at them, special tokens left out.
pub fn excerpt(tokens: &[u32], activations: &[f32], tokenizer: &Tokenizer) -> Excerpt {
    let strongest =
        |of: std::ops::Range<usize>| activations[of].iter().copied().fold(0.0, f32::max);
    let pieces = tokenizer.pieces(tokens).into_iter().filter(|piece| !piece.special);
    let piece = |piece: crate::corpus::TokenPiece| ExcerptPiece {
        text: piece.text,
        activation: strongest(piece.tokens),
    };
    Excerpt { pieces: pieces.map(piece).collect() }
}

/// The window of an example.
pub(crate) fn of_example(row: &ExampleRow, tokenizer: &Tokenizer) -> Excerpt {
    excerpt(&row.tokens, &row.activations, tokenizer)
}

/// The text of token ids, some of them in marks.
pub fn marked(tokens: &[u32], places: &[u16], tokenizer: &Tokenizer) -> String {
    let is_marked = |i: usize| places.contains(&(i as u16));
    let marks: Vec<f32> = (0..tokens.len()).map(|i| f32::from(u8::from(is_marked(i)))).collect();
    let excerpt = excerpt(tokens, &marks, tokenizer);
    let pieces = excerpt.pieces.iter().enumerate().filter(|(_, piece)| piece.activation > 0.0);
    let marked: BTreeSet<usize> = pieces.map(|(i, _)| i).collect();
    excerpt.marked(&marked)
}

/// The places of tokens that are no special ones, and share no character with another.
pub fn whole(tokens: &[u32], tokenizer: &Tokenizer) -> BTreeSet<usize> {
    let alone = |piece: &crate::corpus::TokenPiece| !piece.special && piece.tokens.len() == 1;
    tokenizer.pieces(tokens).into_iter().filter(alone).map(|piece| piece.tokens.start).collect()
}
