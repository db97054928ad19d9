//! Text of a corpus, a tokenizer or a language model as plain text in which everything can be seen.

use std::fmt::Write;

/// Whether a character beyond ASCII has no shape of its own: controls, line separators, what turns
/// the direction of text or has no width, and code points that are no characters.
pub(crate) fn steers(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        || matches!(c, '\u{fdd0}'..='\u{fdef}')
        || c as u32 & 0xfffe == 0xfffe
}

/// What stands for a character that cannot be seen or would act on a page or a terminal: the picture
/// of an ASCII control, the number of another one. None for line breaks, tabs and all others.
#[inline]
pub(crate) fn symbol(c: char) -> Option<String> {
    match c {
        // Nearly all, so first.
        ' '..='~' | '\n' | '\t' => None,
        '\0'..'\u{20}' => char::from_u32(0x2400 + c as u32).map(String::from),
        '\u{7f}' => Some('\u{2421}'.into()),
        c if steers(c) => Some(format!("U+{:04X}", c as u32)),
        _ => None,
    }
}

/// A page in which every character can be seen: what a template put in as it was has its symbol.
pub(crate) fn without_controls(page: &str) -> String {
    replaced(page, |c, out| match symbol(c) {
        Some(number) if number.len() > 4 => out.extend(["⟨", &number, "⟩"]),
        Some(picture) => out.push_str(&picture),
        None => out.push(c),
    })
}

/// A text with all that is neither a letter of ASCII nor the like given to `put`: pages of thousands of such
/// letters are copied in stretches.
fn replaced(text: &str, put: impl Fn(char, &mut String)) -> String {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
        out.push_str(&rest[..at]);
        let mut odd = rest[at..].chars();
        odd.next().into_iter().for_each(|c| put(c, &mut out));
        rest = odd.as_str();
    }
    out.push_str(rest);
    out
}

/// The same JSON document with all such characters escaped: it does nothing to a terminal or an
/// editor.
pub(crate) fn harmless_json(document: &str) -> String {
    replaced(document, |c, out| match c {
        // Only in strings: those below U+0020 are escaped there already.
        '\u{7f}' => out.push_str("\\u007f"),
        c if steers(c) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        c => out.push(c),
    })
}

/// A token as plain text, its white space and what has no shape made visible.
pub(crate) fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => "↵".into(),
        '\t' => "⇥".into(),
        ' ' => "␣".into(),
        c => match symbol(c) {
            Some(symbol) => symbol,
            None if c.is_whitespace() => format!("U+{:04X}", c as u32),
            None => c.to_string(),
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "\u{1b}[2J\r\u{7f}\u{9b}\u{85}\u{202e}\u{2066}\u{200b}\u{feff}\u{ad}\u{fffe}\u{e0041}\u{1ffff}";

    fn seen(text: &str) -> bool {
        text.chars().all(|c| symbol(c).is_none())
    }

    #[test]
    fn nothing_hides_in_a_page_or_a_document() {
        assert!(ODD.chars().filter(|c| symbol(*c).is_some()).count() == 13);
        let page = without_controls(&format!("<p>a\n\tb\u{a0}é\u{202f}{ODD}</p>"));
        assert!(
            seen(&page) && page.starts_with("<p>a\n\tb\u{a0}é\u{202f}␛[2J␍␡⟨U+009B⟩"),
            "{page}"
        );
        let document = serde_json::to_string(ODD).unwrap();
        let harmless = harmless_json(&document);
        assert!(seen(&harmless), "{harmless}");
        assert_eq!(serde_json::from_str::<String>(&harmless).unwrap(), ODD);
        assert!(seen(&visible(ODD)));
    }
}
