//! A stretch of text as a language model is shown it: on one line, in real characters, its tokens
//! marked.
//!
//! The marks are `«` and `»`; where the text has them itself it is shown with `‹` and `›`, so that
//! it cannot mark anything.

use std::collections::BTreeSet;

/// Levels of activation that are told apart: 1 to this; 0 is inactive.
pub(crate) const LEVELS: u32 = 10;

/// A token, or several that share a character.
#[derive(Clone, Debug, PartialEq)]
pub struct ExcerptPiece {
    /// As it stands in the text.
    pub text: String,
    /// The largest of its tokens.
    pub activation: f32,
}

/// A window of a text, without special tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Excerpt {
    /// In the order of the text.
    pub pieces: Vec<ExcerptPiece>,
}

/// An activation as a level: inactive is 0, and whatever is active is 1 at least.
pub fn level(activation: f32, max: f32) -> u32 {
    if activation <= 0.0 || max <= 0.0 {
        return 0;
    }
    let share = f64::from(activation) / f64::from(max);
    ((share * f64::from(LEVELS)).round() as u32).clamp(1, LEVELS)
}

impl Excerpt {
    /// The text alone.
    pub fn plain(&self) -> String {
        self.shown(|_| None)
    }

    /// Each active token in marks, with its level of the feature's maximum behind them: `gave it to
    /// «Mary»[9]`. In brackets, as the text may go on with a digit.
    pub fn scaled(&self, max: f32) -> String {
        self.shown(|i| match level(self.pieces[i].activation, max) {
            0 => None,
            level => Some(format!("[{level}]")),
        })
    }

    /// Some tokens in marks, without levels.
    pub fn marked(&self, marked: &BTreeSet<usize>) -> String {
        self.shown(|i| marked.contains(&i).then(String::new))
    }

    fn shown(&self, mark: impl Fn(usize) -> Option<String>) -> String {
        let mut line = String::new();
        for (i, piece) in self.pieces.iter().enumerate() {
            let text = one_line(&piece.text);
            match mark(i) {
                None => line.push_str(&text),
                Some(behind) => {
                    // Spaces stay outside of the marks, where a reader expects them.
                    let bare = text.trim_start_matches(' ');
                    line.push_str(&text[..text.len() - bare.len()]);
                    line.push_str(&format!("«{bare}»{behind}"));
                }
            }
        }
        line.trim().into()
    }
}

/// Text without line breaks, control characters and marks of its own.
pub(crate) fn one_line(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => '⏎',
        '«' => '‹',
        '»' => '›',
        c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => ' ',
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(pieces: &[(&str, f32)]) -> Excerpt {
        Excerpt {
            pieces: pieces
                .iter()
                .map(|(text, x)| ExcerptPiece { text: text.to_string(), activation: *x })
                .collect(),
        }
    }

    #[test]
    fn active_tokens_are_marked_with_their_level() {
        let e = excerpt(&[("Then", 0.0), (" Mary", 4.0), (" Ann", 0.01), ("\n«", 2.0)]);
        assert_eq!(e.scaled(4.0), "Then «Mary»[10] «Ann»[1]«⏎‹»[5]");
        assert_eq!(e.plain(), "Then Mary Ann⏎‹");
        assert_eq!(e.marked(&BTreeSet::from([0])), "«Then» Mary Ann⏎‹");
    }

    #[test]
    fn levels_are_of_the_maximum_and_never_0_where_it_is_active() {
        assert_eq!([0.0, 0.001, 0.5, 1.0, 3.0].map(|x| level(x, 1.0)), [0, 1, 5, 10, 10]);
        assert_eq!(level(1.0, 0.0), 0);
    }
}
