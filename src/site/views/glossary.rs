//! The words that the pages use in a sense of their own: the glossary of the documentation, as a
//! page.

use super::parts::Page;
use crate::site::links::Site;
use crate::site::text::{Html, escape, html};
use serde::Serialize;

/// The documentation's glossary: a table with one line a word.
const GLOSSARY: &str = include_str!("../../../docs/glossary.md");

#[derive(Serialize)]
pub(crate) struct GlossaryView {
    page: Page,
    words: Vec<Word>,
}

#[derive(Serialize)]
struct Word {
    /// The anchor of its line.
    anchor: String,
    word: Html,
    meaning: Html,
    /// What the field calls it.
    usual: Html,
}

impl GlossaryView {
    pub(crate) fn new(site: &Site) -> GlossaryView {
        GlossaryView {
            page: Page::new(
                site.at_root(),
                "glossary",
                "glossary.html",
                "Glossary".into(),
                "Terms of these pages, with the field's usual term for each.".into(),
            ),
            words: GLOSSARY.lines().filter_map(word).collect(),
        }
    }
}

/// The word of an anchor and what it means; its links lead to `page`, the glossary's file from the
/// page that they are on.
pub(super) fn meaning(anchor: &str, page: &str) -> Option<(Html, Html)> {
    let found = GLOSSARY.lines().filter_map(word).find(|word| word.anchor == anchor)?;
    let meaning = found.meaning.to_string().replace("href=\"#", &format!("href=\"{page}#"));
    Some((found.word, html(meaning)))
}

/// A line `| <a id="anchor"></a>word | meaning | usual |`; None for every other line.
fn word(line: &str) -> Option<Word> {
    let (anchor, rest) = line.strip_prefix("| <a id=\"")?.split_once("\"></a>")?;
    let mut cells = rest.strip_suffix(" |")?.split(" | ");
    let [word, meaning, usual] = [cells.next()?, cells.next()?, cells.next()?].map(inline);
    Some(Word { anchor: anchor.into(), word, meaning, usual })
}

/// Markdown of a cell as markup: code, links within the glossary, and the text of all other links.
pub(super) fn inline(text: &str) -> Html {
    let mut markup = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '[']) {
        markup.push_str(&escape(&rest[..at]));
        let (piece, after) = rest[at..].split_at(1);
        let taken = if piece == "`" { code(after) } else { link(after) };
        let (piece, after) = taken.unwrap_or_else(|| (piece.into(), after));
        markup.push_str(&piece);
        rest = after;
    }
    markup.push_str(&escape(rest));
    html(markup)
}

fn code(after: &str) -> Option<(String, &str)> {
    let (code, after) = after.split_once('`')?;
    Some((format!("<code>{}</code>", escape(code)), after))
}

fn link(after: &str) -> Option<(String, &str)> {
    let (text, after) = after.split_once("](")?;
    let (target, after) = after.split_once(')')?;
    let text = escape(text);
    let markup = match target.starts_with('#') {
        true => format!("<a href=\"{}\">{text}</a>", escape(target)),
        false => text,
    };
    Some((markup, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_glossary_is_a_word() {
        let lines = GLOSSARY.lines().filter(|line| line.starts_with("| <a")).count();
        assert!(lines > 50, "{lines}");
        assert_eq!(GLOSSARY.lines().filter_map(word).count(), lines);
    }

    #[test]
    fn markdown_of_a_cell_is_markup() {
        let made = inline("`a < b`, see [twin](#twin) and [§7](definitions.md#7) [odd");
        let expected = "<code>a &lt; b</code>, see <a href=\"#twin\">twin</a> and §7 [odd";
        assert_eq!(made.to_string(), expected);
    }
}
