//! Where a long text may be cut so that its parts have the same ids as the whole.
//!
//! GPT-2's pattern, `'s|…| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, has white space only
//! at the beginning of a piece or throughout it. So a piece ends before white space that follows
//! anything else, whatever comes behind; and what begins there is matched the same as in the whole.

/// Before which white space texts may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// None: the tokenizer may look at a text as a whole.
    Nowhere,
    /// A space.
    BeforeSpaces,
    /// A space or a line's end.
    BeforeLines,
}

/// Bytes of a text that are tokenised at once, about: a tokenizer takes many times as much memory.
pub(super) const PART: usize = 1 << 20;

impl Cut {
    /// The last place at or below `about`, else the first behind it.
    pub(super) fn place(self, text: &str, about: usize) -> Option<usize> {
        if self == Cut::Nowhere {
            return None;
        }
        let bytes = text.as_bytes();
        let may = |at: &usize| {
            let white = bytes[*at] == b' ' || self == Cut::BeforeLines && bytes[*at] == b'\n';
            // Both are ASCII, so that `at` is a boundary of characters.
            let before = |at| text[..at].chars().next_back();
            white && before(*at).is_some_and(|c| !c.is_whitespace() && !c.is_control())
        };
        let about = about.min(text.len().saturating_sub(1));
        (1..=about).rev().find(may).or_else(|| (about + 1..text.len()).find(may))
    }
}

/// A text in parts of `about` as many bytes.
pub(super) fn parts(text: &str, cut: Cut, about: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let place = if text.len() > about { cut.place(text, about) } else { None };
        let (part, behind) = place.map_or((text, None), |at| (&text[..at], Some(&text[at..])));
        rest = behind;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_before_white_space_behind_something_else() {
        let cut = |text: &'static str, cut, about| parts(text, cut, about).collect::<Vec<_>>();
        assert_eq!(cut("one two  three", Cut::BeforeSpaces, 5), ["one", " two", "  three"]);
        assert_eq!(cut("one\n\ntwo three", Cut::BeforeSpaces, 5), ["one\n\ntwo", " three"]);
        assert_eq!(cut("one\n\ntwo three", Cut::BeforeLines, 5), ["one", "\n\ntwo", " three"]);
        assert_eq!(cut("one two", Cut::Nowhere, 2), ["one two"]);
        assert_eq!(cut("onetwothree four", Cut::BeforeLines, 2), ["onetwothree", " four"]);
        assert_eq!(cut("  a\u{a0} b", Cut::BeforeLines, 1), ["  a\u{a0} b"]);
        assert_eq!(cut("", Cut::BeforeLines, 1), [""]);
    }
}
