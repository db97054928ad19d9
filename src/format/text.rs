//! Text of a corpus, a tokenizer or a language model as plain text in which everything can be seen.

/// Whether a character changes the direction of the text around it.
pub(crate) fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A token as plain text, its white space and its marks of direction made visible.
pub(crate) fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => "↵".into(),
        '\t' => "⇥".into(),
        ' ' => "␣".into(),
        c if c.is_whitespace() || turns(c) => format!("U+{:04X}", c as u32),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Positions from the first of a bin to that before the next one, counted from 1.
pub(crate) fn positions(from: u32, bins: &[u32]) -> String {
    match bins.iter().find(|first| **first > from) {
        Some(next) if *next == from + 1 => from.to_string(),
        Some(next) => format!("{from} to {}", next - 1),
        None => format!("{from} and later"),
    }
}

/// A stretch of an explanation: words, or a token that was written in backticks (see
/// [`crate::summary::quoted`]).
#[derive(Debug, PartialEq)]
pub(crate) enum Part<'a> {
    Words(&'a str),
    Token(String),
}

/// An explanation in its parts. A backtick that is never closed is a word like others.
pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((token, start, end)) = next_token(rest) {
        parts.extend((start > 0).then(|| Part::Words(&rest[..start])));
        parts.push(Part::Token(token));
        rest = &rest[end..];
    }
    parts.extend((!rest.is_empty()).then_some(Part::Words(rest)));
    parts
}

/// The first token in backticks, and from where to where it is with them.
pub(crate) fn next_token(text: &str) -> Option<(String, usize, usize)> {
    let start = text.find('`')?;
    let (mut token, mut escaped) = (String::new(), false);
    for (i, c) in text[start + 1..].char_indices() {
        match c {
            'n' if escaped => token.push('\n'),
            '`' | '\\' if escaped => token.push(c),
            '`' => return Some((token, start, start + 1 + i + 1)),
            '\\' => {
                escaped = true;
                continue;
            }
            _ => token.extend(escaped.then_some('\\').into_iter().chain([c])),
        }
        escaped = false;
    }
    None
}

/// Stands for the rest of an explanation, never alone on a line.
pub(crate) const REST: &str = "\u{a0}…";

/// At most `limit` characters of words, up to the end of a clause or else of a word, with an
/// ellipsis.
pub(crate) fn cut_at_clause(words: &str, limit: usize) -> String {
    let end = words.char_indices().nth(limit).map_or(words.len(), |(end, _)| end);
    let head = &words[..end];
    let end = head.rfind(';').or_else(|| head.rfind(' ')).unwrap_or(0);
    format!("{}{REST}", head[..end].trim_end_matches([' ', ',']))
}

/// An explanation in plain text, its tokens in quotation marks and without the spaces around them.
pub(crate) fn plain(text: &str, limit: usize) -> String {
    let told = parts(text).into_iter().map(|part| match part {
        Part::Words(words) => words.to_string(),
        Part::Token(token) if token.trim().is_empty() => {
            format!("“{}”", token.replace('\n', "↵").replace(' ', "␣"))
        }
        Part::Token(token) => format!("“{}”", token.trim().replace('\n', "↵")),
    });
    cut(&told.collect::<String>(), limit)
}

/// The first `limit` characters, with an ellipsis if there are more.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.into(),
    }
}
