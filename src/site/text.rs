//! Text of a corpus or a tokenizer as markup: escaped, with spaces and line breaks that can be
//! seen, and coloured.
//!
//! The only place, with `svg`, `chart`, `graph` and `head`, at which markup is put together by
//! hand.

use super::atlas::{Example, Piece};
use super::number::significant;
use minijinja::Value;

/// Markup that may stand in a page as it is.
pub type Html = Value;

/// Steps of heat; the style sheet has a class for each, `a1` … `a20`.
pub const STEPS: usize = 20;

/// Declares a string to be markup; everything foreign in it went through [`escape`].
pub fn html(markup: String) -> Html {
    Value::from_safe_string(markup)
}

/// Text as markup, in an element or a quoted attribute. A control character is shown as its
/// picture.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        '\n' | '\t' => out.push(c),
        '\0'..'\u{20}' => out.push(char::from_u32(0x2400 + c as u32).unwrap_or(c)),
        '\u{7f}' => out.push('\u{2421}'),
        _ => out.push(c),
    }
}

/// Running text: spaces stay, line breaks and tabs are marked.
pub(super) fn push_running(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("<b>↵</b>"),
            '\t' => out.push_str("<b>⇥</b>"),
            _ => push_escaped(out, c),
        }
    }
}

/// Whether a character changes the direction of the text around it.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A token as plain text, its white space and its marks of direction made visible.
pub fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => "↵".into(),
        '\t' => "⇥".into(),
        ' ' => "␣".into(),
        c if c.is_whitespace() || turns(c) => format!("U+{:04X}", c as u32),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// A token by itself: spaces too are marked, or one could not tell ` a` from `a`.
pub fn token(text: &str) -> Html {
    let mut out = String::from("<span class=\"t\">");
    for c in text.chars() {
        match c {
            '\n' => out.push_str("<b>↵</b>"),
            '\t' => out.push_str("<b>⇥</b>"),
            ' ' => out.push_str("<b>␣</b>"),
            c if c.is_whitespace() => out.push_str(&format!("<b>U+{:04X}</b>", c as u32)),
            _ => push_escaped(&mut out, c),
        }
    }
    html(out + "</span>")
}

/// A stretch of an explanation: words, or a token that was written in backticks (see
/// [`crate::explain::quoted`]).
#[derive(Debug, PartialEq)]
enum Part<'a> {
    Words(&'a str),
    Token(String),
}

/// An explanation in its parts. A backtick that is never closed is a word like others.
fn parts(text: &str) -> Vec<Part<'_>> {
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
fn next_token(text: &str) -> Option<(String, usize, usize)> {
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
const REST: &str = "\u{a0}…";

/// An explanation as markup, its tokens as tokens are shown everywhere; about `limit` characters of
/// it, and no token cut in two.
pub fn prose(text: &str, limit: usize) -> Html {
    let (mut out, mut left) = (String::new(), limit);
    for part in parts(text) {
        let length = match &part {
            Part::Words(words) => words.chars().count(),
            Part::Token(token) => token.chars().count(),
        };
        match part {
            Part::Words(words) if length > left => {
                out.push_str(&escape(&cut_at_clause(words, left)))
            }
            Part::Words(words) => out.push_str(&escape(words)),
            Part::Token(_) if length > left => {
                out = format!("{}{REST}", out.trim_end_matches([' ', ',']))
            }
            Part::Token(text) => out.push_str(&token(&text).to_string()),
        }
        if length > left {
            break;
        }
        left -= length;
    }
    html(out)
}

/// At most `limit` characters of words, up to the end of a clause or else of a word, with an
/// ellipsis.
fn cut_at_clause(words: &str, limit: usize) -> String {
    let end = words.char_indices().nth(limit).map_or(words.len(), |(end, _)| end);
    let head = &words[..end];
    let end = head.rfind(';').or_else(|| head.rfind(' ')).unwrap_or(0);
    format!("{}{REST}", head[..end].trim_end_matches([' ', ',']))
}

/// An explanation in plain text, its tokens in quotation marks and without the spaces around them.
pub fn plain(text: &str, limit: usize) -> String {
    let told = parts(text).into_iter().map(|part| match part {
        Part::Words(words) => words.to_string(),
        Part::Token(token) if token.trim().is_empty() => {
            format!("“{}”", token.replace('\n', "↵").replace(' ', "␣"))
        }
        Part::Token(token) => format!("“{}”", token.trim().replace('\n', "↵")),
    });
    cut(&told.collect::<String>(), limit)
}

/// The step of heat of a value, 0 of none, where `max` is the hottest.
pub fn heat(value: f64, max: f64) -> usize {
    if !(value > 0.0 && max > 0.0) {
        return 0;
    }
    ((value / max * STEPS as f64).ceil() as usize).clamp(1, STEPS)
}

/// An example with every piece coloured by its value as a share of `max`, the same for all examples
/// of a page: a colour scaled to each example would make all of them look equally hot. Silent
/// pieces in a row are one run of plain text.
pub fn example(example: &Example, max: f64) -> Html {
    let mut out = String::new();
    if example.more_before {
        out.push('…');
    }
    for (i, piece) in example.pieces.iter().enumerate() {
        push_piece(&mut out, piece, i == example.peak, max);
    }
    if example.more_after {
        out.push('…');
    }
    html(out)
}

fn push_piece(out: &mut String, piece: &Piece, peak: bool, max: f64) {
    let step = heat(piece.value, max);
    if piece.special {
        out.push_str(&format!("<u>{}</u>", escape(&piece.text)));
    } else if step == 0 {
        push_running(out, &piece.text);
    } else {
        // The space before a word stays outside, or the colour would be left behind where a line
        // breaks.
        let (space, word) = match piece.text.strip_prefix(' ') {
            Some(word) if !word.trim().is_empty() => (" ", word),
            _ => ("", piece.text.as_str()),
        };
        let mark = if peak { " p" } else { "" };
        out.push_str(&format!(
            "{space}<i class=\"a{step}{mark}\" title=\"{}\">",
            significant(piece.value, 3)
        ));
        push_running(out, word);
        out.push_str("</i>");
    }
}

/// A stretch of text some pieces of which are marked.
pub fn marked(pieces: &[(String, bool)]) -> Html {
    let mut out = String::new();
    for (text, marked) in pieces {
        let word = text.trim_start_matches(' ');
        out.push_str(&text[..text.len() - word.len()]);
        out.push_str(if *marked { "<mark>" } else { "" });
        push_running(&mut out, word);
        out.push_str(if *marked { "</mark>" } else { "" });
    }
    html(out)
}

/// The first `limit` characters, with an ellipsis if there are more.
pub fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::quoted;

    #[test]
    fn tokens_of_an_explanation_are_read_back() {
        for text in [" Mary", "\n", "`", "\\", "\\n", "``\\`", "", "<b>", "\\xC2", " "] {
            let said = format!("At {}, so.", quoted(text));
            let expected = [Part::Words("At "), Part::Token(text.into()), Part::Words(", so.")];
            assert_eq!(parts(&said), expected, "{said}");
        }
        assert_eq!(parts("a `b"), [Part::Words("a `b")]);
        assert_eq!(parts(r"`\d`"), [Part::Token(r"\d".into())], "what is no escape stays");
    }

    #[test]
    fn explanations_are_cut_between_tokens() {
        let text = "At ` <Mary>`, ` Ann`.";
        assert_eq!(
            prose(text, 99).to_string(),
            "At <span class=\"t\"><b>␣</b>&lt;Mary&gt;</span>, <span \
             class=\"t\"><b>␣</b>Ann</span>."
        );
        assert_eq!(
            prose(text, 13).to_string(),
            "At <span class=\"t\"><b>␣</b>&lt;Mary&gt;</span>\u{a0}…"
        );
        assert_eq!(prose("At a; its best of", 14).to_string(), "At a\u{a0}…");
        assert_eq!(
            (plain(text, 99), plain(text, 9)),
            ("At “<Mary>”, “Ann”.".into(), "At “<Mary…".into())
        );
        assert_eq!(plain("At `\\n`", 99), "At “↵”");
    }

    fn piece(text: &str, value: f64) -> Piece {
        Piece { text: text.into(), value, special: false }
    }

    fn example_of(pieces: Vec<Piece>, peak: usize) -> Example {
        let (band, half) = ("top".into(), "score".into());
        let (document, context, start, value) = (0, 0, 0, 1.0);
        Example {
            band,
            half,
            document,
            context,
            start,
            value,
            pieces,
            peak,
            more_before: true,
            more_after: false,
        }
    }

    #[test]
    fn silent_pieces_join_and_the_peak_is_marked() {
        let pieces = vec![
            piece(" a", 0.0),
            piece(" <b", 0.0),
            piece("\n", 0.5),
            piece(" hot", 4.0),
            piece(" c", 0.0),
        ];
        let markup = example(&example_of(pieces, 3), 4.0).to_string();
        let wanted = "… a &lt;b<i class=\"a3\" title=\"0.500\"><b>↵</b></i> <i class=\"a20 p\" \
            title=\"4.00\">hot</i> c";
        assert_eq!(markup, wanted);
    }

    #[test]
    fn marks_are_markup_and_texts_are_not() {
        let pieces = [("a", false), (" <b>", true), ("\n", false)]
            .map(|(text, marked)| (text.to_string(), marked));
        assert_eq!(marked(&pieces).to_string(), "a <mark>&lt;b&gt;</mark><b>↵</b>");
    }

    #[test]
    fn whitespace_can_be_seen_and_control_characters_do_not_work() {
        assert_eq!(token(" \n").to_string(), "<span class=\"t\"><b>␣</b><b>↵</b></span>");
        assert_eq!(token("\u{a0}").to_string(), "<span class=\"t\"><b>U+00A0</b></span>");
        assert_eq!(escape("a\0\u{1b}\"'"), "a␀␛&quot;&#39;");
    }

    #[test]
    fn heat_has_a_floor_and_a_ceiling() {
        assert_eq!(
            [0.0, 1e-9, 0.05, 0.051, 1.0, 7.0, f64::NAN].map(|x| heat(x, 1.0)),
            [0, 1, 1, 2, 20, 20, 0]
        );
        assert_eq!(heat(1.0, 0.0), 0);
    }

    #[test]
    fn cutting_counts_characters() {
        assert_eq!(
            (cut("äöü", 2), cut("äöü", 3), cut("a b", 2)),
            ("äö…".into(), "äöü".into(), "a…".into())
        );
    }
}
