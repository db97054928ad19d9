//! Text of a corpus or a tokenizer as markup: escaped, with spaces and line breaks that can be
//! seen, and coloured.
//!
//! The only place, with `svg`, `chart`, `graph`, `circuit` and `head`, at which markup is put together by
//! hand.

use crate::atlas::model::{Example, TextPiece};
use crate::format::heat::heat;
use crate::format::number::significant;
use crate::format::text::{Part, REST, cut_at_clause, parts, steers, symbol};
use minijinja::Value;

/// Markup that may stand in a page as it is.
pub(super) type Html = Value;

/// Declares a string to be markup; everything foreign in it went through [`escape`].
pub(super) fn html(markup: String) -> Html {
    Value::from_safe_string(markup)
}

/// Text as markup, in an element or a quoted attribute. A character without a shape has its symbol.
pub(super) fn escape(text: &str) -> String {
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
        ' '..='~' => out.push(c),
        _ => match symbol(c) {
            Some(symbol) => out.push_str(&symbol),
            None => out.push(c),
        },
    }
}

/// Running text: spaces stay, line breaks and tabs are marked.
pub(super) fn push_running(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("<b>↵</b>"),
            '\t' => out.push_str("<b>⇥</b>"),
            c if steers(c) => push_number(out, c),
            _ => push_escaped(out, c),
        }
    }
}

/// A character that cannot be seen, by its number.
fn push_number(out: &mut String, c: char) {
    out.push_str(&format!("<b>U+{:04X}</b>", c as u32));
}

/// A token by itself: spaces too are marked, or one could not tell ` a` from `a`.
pub(super) fn token(text: &str) -> Html {
    let mut out = String::from("<q>");
    for c in text.chars() {
        match c {
            '\n' => out.push_str("<b>↵</b>"),
            '\t' => out.push_str("<b>⇥</b>"),
            ' ' => out.push_str("<b>␣</b>"),
            c if c.is_whitespace() || steers(c) => push_number(&mut out, c),
            _ => push_escaped(&mut out, c),
        }
    }
    html(out + "</q>")
}

/// An explanation as markup, its tokens as tokens are shown everywhere; about `limit` characters of
/// it, and no token cut in two.
pub(super) fn prose(text: &str, limit: usize) -> Html {
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

/// An example with every piece coloured by its value as a share of `max`, the same for all examples
/// of a page: a colour scaled to each example would make all of them look equally hot. Silent
/// pieces in a row are one run of plain text.
pub(super) fn example(example: &Example, max: f32) -> Html {
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

fn push_piece(out: &mut String, piece: &TextPiece, peak: bool, max: f32) {
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
        // Without quotes, as there may be hundreds in a page.
        let class = if peak { format!("\"a{step} p\"") } else { format!("a{step}") };
        let value = significant(piece.value, 3);
        out.push_str(&format!("{space}<i class={class} title={value}>"));
        push_running(out, word);
        out.push_str("</i>");
    }
}

/// An example in which pieces that heads read are marked, by their places, with what is said of each;
/// of activations only the peak is shown.
pub(super) fn read_from(example: &Example, read: &[(usize, String)], max: f32) -> Html {
    let mut out = String::from(if example.more_before { "…" } else { "" });
    for (i, piece) in example.pieces.iter().enumerate() {
        let is_peak = i == example.peak;
        let shown = if is_peak { piece.clone() } else { TextPiece { value: 0.0, ..piece.clone() } };
        let Some((_, said)) = read.iter().find(|(at, _)| *at == i) else {
            push_piece(&mut out, &shown, is_peak, max);
            continue;
        };
        let word = piece.text.trim_start_matches(' ');
        out.push_str(&piece.text[..piece.text.len() - word.len()]);
        out.push_str(&format!("<mark title=\"{}\">", escape(said)));
        let word = if word.is_empty() { "␣" } else { word };
        push_piece(&mut out, &TextPiece { text: word.into(), ..shown }, is_peak, max);
        out.push_str("</mark>");
    }
    out.push_str(if example.more_after { "…" } else { "" });
    html(out)
}

/// A stretch of text some pieces of which are marked.
pub(super) fn marked(pieces: &[(String, bool)]) -> Html {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::text::{cut, plain};
    use crate::ids::{Band, Half};
    use crate::summary::quoted;

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
            "At <q><b>␣</b>&lt;Mary&gt;</q>, <q><b>␣</b>Ann</q>."
        );
        assert_eq!(prose(text, 13).to_string(), "At <q><b>␣</b>&lt;Mary&gt;</q>\u{a0}…");
        assert_eq!(prose("At a; its best of", 14).to_string(), "At a\u{a0}…");
        assert_eq!(
            (plain(text, 99), plain(text, 9)),
            ("At “<Mary>”, “Ann”.".into(), "At “<Mary…".into())
        );
        assert_eq!(plain("At `\\n`", 99), "At “↵”");
    }

    fn piece(text: &str, value: f32) -> TextPiece {
        TextPiece { text: text.into(), value, special: false }
    }

    fn example_of(pieces: Vec<TextPiece>, peak: usize) -> Example {
        let (band, half) = (Band::Top, Half::Score);
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
            position: 0,
            active: Vec::new(),
        }
    }

    #[test]
    fn inactive_pieces_join_and_the_peak_is_marked() {
        let pieces = vec![
            piece(" a", 0.0),
            piece(" <b", 0.0),
            piece("\n", 0.5),
            piece(" hot", 4.0),
            piece(" c", 0.0),
        ];
        let markup = example(&example_of(pieces, 3), 4.0).to_string();
        let wanted = "… a &lt;b<i class=a3 title=0.500><b>↵</b></i> <i class=\"a20 p\" \
            title=4.00>hot</i> c";
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
        assert_eq!(token(" \n").to_string(), "<q><b>␣</b><b>↵</b></q>");
        assert_eq!(token("\u{a0}").to_string(), "<q><b>U+00A0</b></q>");
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
