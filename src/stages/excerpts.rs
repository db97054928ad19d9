//! Examples as a language model is shown them.

use crate::artifact::tables::ExampleRow;
use crate::corpus::Tokenizer;
use crate::llm::Excerpt;
use crate::llm::excerpt::Piece;

/// The text of token ids with activations at them, special tokens left out.
pub fn excerpt(tokens: &[u32], activations: &[f32], tokenizer: &Tokenizer) -> Excerpt {
    let strongest = |of: std::ops::Range<usize>| activations[of].iter().copied().fold(0.0, f32::max);
    let pieces = tokenizer.pieces(tokens).into_iter().filter(|piece| !piece.special);
    let piece = |piece: crate::corpus::Piece| Piece { text: piece.text, activation: strongest(piece.tokens) };
    Excerpt { pieces: pieces.map(piece).collect() }
}

/// The window of an example.
pub fn of_example(row: &ExampleRow, tokenizer: &Tokenizer) -> Excerpt {
    excerpt(&row.tokens, &row.activations, tokenizer)
}
