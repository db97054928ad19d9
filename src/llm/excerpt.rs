//! A stretch of text as a language model is shown it: on one line, in real characters, its words
//! marked. A text that begins a document begins with `[start]`, one that is cut with `…`, and one
//! that goes on ends with `…`.
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
    /// Whether it begins its document.
    pub begins: bool,
    /// Whether its document goes on behind it.
    pub goes_on: bool,
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

    /// Each active word in marks, with its level of the feature's maximum behind them: `gave it to
    /// «Mary»[9]`. In brackets, as the text may go on with a digit. Levels below `from` are not
    /// marked.
    pub fn scaled(&self, max: f32, from: u32) -> String {
        self.shown(|word| {
            let own = self.pieces[word].iter();
            let largest = own.map(|piece| piece.activation).fold(0.0, f32::max);
            match level(largest, max) {
                0 => None,
                level if level < from => None,
                level => Some(format!("[{level}]")),
            }
        })
    }

    /// The words with these pieces in marks, without levels.
    pub fn marked(&self, marked: &BTreeSet<usize>) -> String {
        self.shown(|mut word| word.any(|i| marked.contains(&i)).then(String::new))
    }

    /// The pieces word by word: a piece that goes on with letters is of the word before it. Digits
    /// are not: what ends a number may say something else than what begins it.
    fn words(&self) -> Vec<std::ops::Range<usize>> {
        let mut words: Vec<std::ops::Range<usize>> = Vec::new();
        for (i, piece) in self.pieces.iter().enumerate() {
            let before = i.checked_sub(1).and_then(|i| self.pieces[i].text.chars().last());
            let goes_on = |c: Option<char>| c.is_some_and(char::is_alphabetic);
            match words.last_mut() {
                Some(last) if goes_on(before) && goes_on(piece.text.chars().next()) => {
                    last.end = i + 1;
                }
                _ => words.push(i..i + 1),
            }
        }
        words
    }

    fn shown(&self, mark: impl Fn(std::ops::Range<usize>) -> Option<String>) -> String {
        let mut line = String::new();
        for word in self.words() {
            let text: String =
                self.pieces[word.clone()].iter().map(|piece| one_line(&piece.text)).collect();
            match mark(word) {
                None => line.push_str(&text),
                Some(behind) => {
                    // Spaces stay outside of the marks, where a reader expects them.
                    let bare = text.trim_start_matches(' ');
                    line.push_str(&text[..text.len() - bare.len()]);
                    line.push_str(&format!("«{bare}»{behind}"));
                }
            }
        }
        let before = if self.begins { "[start] " } else { "… " };
        format!("{before}{}{}", line.trim(), if self.goes_on { " …" } else { "" })
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
            ..Excerpt::default()
        }
    }

    #[test]
    fn active_words_are_marked_with_their_level() {
        let e = excerpt(&[("Then", 0.0), (" Mary", 4.0), (" Ann", 0.01), ("\n«", 2.0)]);
        assert_eq!(e.scaled(4.0, 1), "… Then «Mary»[10] «Ann»[1]«⏎‹»[5]");
        assert_eq!(e.scaled(4.0, 3), "… Then «Mary»[10] Ann«⏎‹»[5]");
        assert_eq!(e.plain(), "… Then Mary Ann⏎‹");
        assert_eq!(e.marked(&BTreeSet::from([0])), "… «Then» Mary Ann⏎‹");
    }

    #[test]
    fn split_words_are_marked_whole() {
        let e = excerpt(&[
            (" Mar", 1.0),
            ("ian", 4.0),
            ("’", 0.0),
            ("s", 2.0),
            (" 17", 0.0),
            ("35", 1.0),
        ]);
        assert_eq!(e.scaled(4.0, 1), "… «Marian»[10]’«s»[5] 17«35»[3]");
        assert_eq!(e.marked(&BTreeSet::from([0, 5])), "… «Marian»’s 17«35»");
    }

    #[test]
    fn it_is_said_where_a_text_begins_and_whether_it_goes_on() {
        let of = |begins, goes_on| Excerpt { begins, goes_on, ..excerpt(&[(" a", 0.0)]) }.plain();
        assert_eq!(of(true, true), "[start] a …");
        assert_eq!(of(false, false), "… a");
    }

    #[test]
    fn levels_are_of_the_maximum_and_never_0_where_it_is_active() {
        assert_eq!([0.0, 0.001, 0.5, 1.0, 3.0].map(|x| level(x, 1.0)), [0, 1, 5, 10, 10]);
        assert_eq!(level(1.0, 0.0), 0);
    }
}
