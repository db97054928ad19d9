//! What an answer looks like on a terminal: headings, tables, examples with their tokens coloured
//! by activation.
//!
//! The only place at which text is written out: whatever it is given, no control character and no
//! escape sequence but its own comes out of it.

use crate::atlas::model::{Example, PromotedToken};
use crate::format::heat::heat;
use crate::format::number::{count, significant};
use crate::format::text::symbol;
use crate::process::{self, Stream};
use console::{Alignment, measure_text_width, pad_str};
use std::io::IsTerminal;

/// Where there is no terminal that would say.
const WIDTH: usize = 80;
const NARROWEST: usize = 40;

/// Columns of the terminal.
pub(super) fn terminal_width() -> usize {
    let size = console::Term::stdout().size_checked();
    size.map_or(WIDTH, |(_, columns)| usize::from(columns)).max(NARROWEST)
}

/// Prints a label and running text: as `Page::labelled` in a terminal, in one line for other programs.
pub(crate) fn say_labelled(label: &str, text: &str) {
    let width = if std::io::stdout().is_terminal() { terminal_width() } else { usize::MAX };
    let mut page = Page::new(width, false);
    page.labelled(label, text);
    process::write(Stream::Stdout, &page.text());
}

/// Text that does nothing to a terminal: line breaks and tabs are marked, characters without a
/// shape have their symbol.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match (c, symbol(c)) {
            ('\n', _) => out.push('↵'),
            ('\t', _) => out.push('⇥'),
            (_, Some(symbol)) => out.push_str(&symbol),
            (c, None) => out.push(c),
        }
    }
    out
}

/// A token by itself: its spaces can be seen.
pub(super) fn token(text: &str) -> String {
    text.replace(' ', "␣")
}

/// A table; the last column takes the room that is left.
#[derive(Default)]
pub(super) struct Table {
    columns: Vec<(&'static str, Alignment)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Names of columns; `>` before a name puts it and its cells to the right.
    pub(super) fn new(columns: &[&'static str]) -> Table {
        let column = |name: &&'static str| match name.strip_prefix('>') {
            Some(name) => (name, Alignment::Right),
            None => (*name, Alignment::Left),
        };
        Table { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds rows with a cell a column.
    pub(super) fn with<const N: usize>(mut self, rows: impl Iterator<Item = [String; N]>) -> Table {
        self.rows.extend(rows.map(|row| row.map(|cell| visible(&cell)).to_vec()));
        self
    }

    fn widths(&self, room: usize) -> Vec<usize> {
        let widest = |i: usize| {
            let cells = self.rows.iter().map(|row| measure_text_width(&row[i]));
            cells.chain([self.columns[i].0.chars().count()]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(widest).collect();
        if let Some((last, others)) = widths.split_last_mut() {
            let taken: usize = others.iter().map(|width| width + GAP.len()).sum();
            // Unless the others leave too little of it to be read.
            let left = room.saturating_sub(taken);
            *last = if left < LEAST { *last } else { (*last).min(left) };
        }
        widths
    }

    /// How many columns of these widths have room beside each other.
    fn in_a_line(&self, widths: &[usize], room: usize) -> usize {
        let mut taken = 0;
        let fits = |width: &&usize| {
            taken += **width + if taken > 0 { GAP.len() } else { 0 };
            taken <= room
        };
        widths.iter().take_while(fits).count().max(1)
    }
}

const GAP: &str = "  ";
/// The least room in which the last column is cut rather than put below.
const LEAST: usize = 16;

/// Heat of a background, weakest first: pale to orange, with black letters on it.
const HEAT: [u8; 6] = [187, 186, 221, 214, 208, 202];
const BOLD: &str = "1";
const FAINT: &str = "2";

/// The text of an answer as it grows.
pub(super) struct Page {
    out: String,
    width: usize,
    coloured: bool,
}

impl Page {
    pub(super) fn new(width: usize, coloured: bool) -> Page {
        Page { out: String::new(), width, coloured }
    }

    pub(super) fn text(self) -> String {
        self.out
    }

    /// Adds text in a style (the numbers of an escape sequence). The text must be harmless.
    fn push(&mut self, text: &str, style: &str) {
        match self.coloured && !style.is_empty() && !text.is_empty() {
            true => self.out.push_str(&format!("\x1b[{style}m{text}\x1b[0m")),
            false => self.out.push_str(text),
        }
    }

    fn end_line(&mut self) {
        let whole = self.out.trim_end_matches(' ').len();
        self.out.truncate(whole);
        self.out.push('\n');
    }

    /// The first line: what it is about, and what that is.
    pub(super) fn title(&mut self, name: &str, what: &str) {
        self.push(&visible(name), BOLD);
        self.line(&format!(" · {what}"));
    }

    /// A heading with a blank line before it, and what is to be said of the part in faint letters.
    pub(super) fn heading(&mut self, name: &str, note: &str) {
        self.out.push('\n');
        self.push(&visible(name), BOLD);
        match note.is_empty() {
            true => self.end_line(),
            false => self.broken(&format!(" · {note}"), FAINT, 0),
        }
    }

    /// Running text, broken between words.
    pub(super) fn line(&mut self, text: &str) {
        self.labelled("", text);
    }

    /// Running text behind a label; its further lines begin below its first word.
    pub(super) fn labelled(&mut self, label: &str, text: &str) {
        let label = visible(label);
        self.out.push_str(&label);
        self.broken(text, "", measure_text_width(&label));
    }

    /// Running text in a style, going on in the line that has begun; further lines are indented by so many columns.
    fn broken(&mut self, text: &str, style: &str, indent: usize) {
        let mut column = measure_text_width(self.out.rsplit('\n').next().unwrap_or_default());
        let mut part = String::new();
        for (i, word) in visible(text).split(' ').enumerate() {
            let width = measure_text_width(word);
            match i {
                0 => {}
                _ if column + 1 + width > self.width => {
                    self.push(&part, style);
                    self.end_line();
                    part = " ".repeat(indent);
                    column = indent;
                }
                _ => {
                    part.push(' ');
                    column += 1;
                }
            }
            part.push_str(word);
            column += width;
        }
        self.push(&part, style);
        self.end_line();
    }

    /// Columns for which there is no room go on in a line of their own below each row, with their names.
    pub(super) fn table(&mut self, table: &Table) {
        let widths = table.widths(self.width);
        let names: Vec<String> = table.columns.iter().map(|(name, _)| name.to_string()).collect();
        let first = table.in_a_line(&widths, self.width);
        self.row(table, &names[..first], &widths, FAINT);
        for row in &table.rows {
            self.row(table, &row[..first], &widths, "");
            let more = names.iter().zip(row).skip(first).filter(|(_, cell)| !cell.is_empty());
            let more: Vec<String> = more.map(|(name, cell)| format!("{name} {cell}")).collect();
            if !more.is_empty() {
                self.labelled("    ", &more.join("; "));
            }
        }
    }

    fn row(&mut self, table: &Table, cells: &[String], widths: &[usize], style: &str) {
        for (i, (cell, &width)) in cells.iter().zip(widths).enumerate() {
            let gap = if i > 0 { GAP } else { "" };
            let cell = pad_str(cell, width, table.columns[i].1, Some("…"));
            let cell = if i + 1 == cells.len() { cell.trim_end() } else { &cell };
            self.push(&format!("{gap}{cell}"), style);
        }
        self.end_line();
    }

    /// Says how many rows a table has not shown.
    pub(super) fn rest(&mut self, shown: usize, all: usize, option: &str) {
        if shown < all {
            self.push(&format!("… {} more ({option} N)", count((all - shown) as u64)), FAINT);
            self.end_line();
        }
    }

    /// What is promoted and suppressed, side by side, the `most` first of each.
    pub(super) fn promoted(
        &mut self,
        promoted: &[PromotedToken],
        suppressed: &[PromotedToken],
        strength: f64,
        most: usize,
    ) {
        if promoted.is_empty() {
            return;
        }
        let note = format!("logits for a unit of activation, and for {}", significant(strength, 3));
        self.heading("Promoted and suppressed tokens", &note);
        let cells = |side: &[PromotedToken], i: usize| match side.get(i) {
            None => [const { String::new() }; 3],
            Some(p) => [token(&p.text), significant(p.logit, 3), significant(p.at_strength, 3)],
        };
        let rows = (0..promoted.len().max(suppressed.len()).min(most)).map(|i| {
            let ([a, b, c], [x, y, z]) = (cells(promoted, i), cells(suppressed, i));
            [a, b, c, x, y, z]
        });
        let table = Table::new(&[
            "promoted",
            ">logit",
            ">at strength",
            "suppressed",
            ">logit",
            ">at strength",
        ]);
        self.table(&table.with(rows));
    }

    /// Examples one a line, the peaks below each other between « and », and every token with its
    /// activation as heat, a share of `max`.
    pub(super) fn examples(&mut self, examples: &[Example], max: f32) {
        let values: Vec<String> =
            examples.iter().map(|example| significant(example.value, 3)).collect();
        let widest = values.iter().map(|value| value.chars().count()).max().unwrap_or(0);
        let room = self.width.saturating_sub(widest + GAP.len());
        for (value, example) in values.iter().zip(examples) {
            self.push(&format!("{value:>widest$}{GAP}"), FAINT);
            self.example(example, max, room);
            self.end_line();
        }
    }

    fn example(&mut self, example: &Example, max: f32, room: usize) {
        let cut = |at: usize| example.pieces.get(at);
        let before: Vec<Letter> = (0..example.peak)
            .filter_map(cut)
            .flat_map(|p| letters(&p.text, step(p, max)))
            .collect();
        let after = (example.peak + 1..example.pieces.len())
            .filter_map(cut)
            .flat_map(|p| letters(&p.text, step(p, max)));
        let peak = cut(example.peak).into_iter().flat_map(|p| marked(&p.text, step(p, max)));
        let left = (room * 11 / 20).min(room);
        let before = fitting(before.into_iter().rev(), left, example.more_before);
        let used: usize = before.iter().map(Letter::width).sum();
        self.out.push_str(&" ".repeat(left - used));
        let after = fitting(peak.chain(after), room - left, example.more_after);
        let all: Vec<Letter> = before.into_iter().rev().chain(after).collect();
        for run in all.chunk_by(|a, b| (a.step, a.peak) == (b.step, b.peak)) {
            let text: String = run.iter().map(|letter| letter.c).collect();
            self.push(&text, &style(&run[0]));
        }
    }

    /// Counts in equal bins as bars, on a logarithmic scale.
    pub(super) fn histogram(&mut self, bins: &[u64], max: f64) {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let tallest = bins.iter().copied().max().unwrap_or(0) as f64;
        let bar = |&n: &u64| match n {
            0 => ' ',
            n => {
                let height =
                    ((n as f64).log10() + 0.5) / (tallest.log10() + 0.5) * BARS.len() as f64;
                BARS[(height.ceil() as usize).clamp(1, BARS.len()) - 1]
            }
        };
        let bars: String = bins.iter().map(bar).collect();
        self.out.push_str(&format!("0 {bars} {}", significant(max, 3)));
        self.end_line();
    }
}

/// A character of an example.
struct Letter {
    c: char,
    /// 0: inactive; 1 to 6: a heat.
    step: usize,
    peak: bool,
}

impl Letter {
    fn width(&self) -> usize {
        measure_text_width(self.c.encode_utf8(&mut [0; 4]))
    }
}

/// The heat of a piece; special tokens have none.
fn step(piece: &crate::atlas::model::TextPiece, max: f32) -> usize {
    let heat = if piece.special { 0 } else { heat(piece.value, max) };
    (heat * HEAT.len()).div_ceil(crate::format::heat::STEPS)
}

/// The characters of a piece. The space before a word is not coloured.
fn letters(text: &str, step: usize) -> Vec<Letter> {
    let text = visible(text);
    let spaces = leading_spaces(&text);
    text.char_indices()
        .map(|(i, c)| Letter { c, step: if i < spaces { 0 } else { step }, peak: false })
        .collect()
}

/// Spaces before a word; none where there is nothing else.
fn leading_spaces(text: &str) -> usize {
    let spaces = text.len() - text.trim_start_matches(' ').len();
    if spaces < text.len() { spaces } else { 0 }
}

/// The characters of the peak, marked so that it is seen without colours.
fn marked(text: &str, step: usize) -> Vec<Letter> {
    let start = leading_spaces(text);
    let mut marked = letters(text, step);
    marked[start..].iter_mut().for_each(|letter| letter.peak = true);
    let mark = |c| Letter { c, step, peak: true };
    marked.insert(start, mark('«'));
    marked.push(mark('»'));
    marked
}

fn style(letter: &Letter) -> String {
    match letter.step.checked_sub(1).and_then(|heat| HEAT.get(heat)) {
        None => String::new(),
        Some(heat) if letter.peak => format!("1;4;48;5;{heat};38;5;16"),
        Some(heat) => format!("48;5;{heat};38;5;16"),
    }
}

/// As many characters as fit, with an ellipsis if there are more or the text itself goes on.
fn fitting(letters: impl Iterator<Item = Letter>, room: usize, more: bool) -> Vec<Letter> {
    let ellipsis = || Letter { c: '…', step: 0, peak: false };
    let mut all: Vec<Letter> = letters.chain(more.then(ellipsis)).collect();
    let whole: usize = all.iter().map(Letter::width).sum();
    if whole > room {
        // A column is kept for the ellipsis.
        let ends = all.iter().scan(1, |used, letter| {
            *used += letter.width();
            Some(*used)
        });
        let fit = ends.take_while(|&end| end <= room).count();
        all.truncate(fit);
        all.push(ellipsis());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::model::TextPiece;
    use crate::format::text::{harmless_json, steers};

    const HOSTILE: &str =
        "\u{1b}[31mred\u{1b}]0;title\u{7} \r\n\t\u{9b}2J\u{7f}\u{202e}a\u{200b}b\u{feff}";

    fn harmless(text: &str) -> bool {
        !text.chars().any(|c| (c.is_control() && c != '\n') || steers(c))
    }

    fn example(pieces: &[(&str, f32)], peak: usize, more: bool) -> Example {
        let piece =
            |&(text, value): &(&str, f32)| TextPiece { text: text.into(), value, special: false };
        Example {
            band: crate::ids::Band::Top,
            half: crate::ids::Half::Score,
            document: 0,
            context: 0,
            start: 1,
            value: pieces[peak].1,
            pieces: pieces.iter().map(piece).collect(),
            peak,
            more_before: more,
            more_after: more,
            position: peak as u32 + 1,
            active: Vec::new(),
        }
    }

    fn written(width: usize, coloured: bool, write: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::new(width, coloured);
        write(&mut page);
        page.text()
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        let all = written(80, false, |page| {
            page.title(HOSTILE, HOSTILE);
            page.heading(HOSTILE, HOSTILE);
            page.line(HOSTILE);
            page.table(
                &Table::new(&["a", ">b"])
                    .with([[HOSTILE.to_string(), HOSTILE.to_string()]].into_iter()),
            );
            let promoted = || {
                vec![PromotedToken { text: HOSTILE.into(), logit: 1.0, at_strength: 4.0, z: 5.0 }]
            };
            page.promoted(&promoted(), &promoted(), 4.0, 10);
            page.examples(
                &[example(&[(HOSTILE, 0.0), (HOSTILE, 1.0), (HOSTILE, 0.5)], 1, true)],
                1.0,
            );
        });
        assert!(harmless(&all), "{all:?}");
        assert!(all.starts_with("␛[31mred␛]0;title␇ ␍↵⇥U+009B2J␡U+202EaU+200BbU+FEFF · "), "{all}");
    }

    #[test]
    fn json_is_the_same_document_without_what_steers_a_terminal() {
        let document = serde_json::to_string_pretty(&[HOSTILE, "\u{e0041}", "é 日本"]).unwrap();
        let made = harmless_json(&document);
        assert!(harmless(&made) && made.contains("é 日本"), "{made:?}");
        let read: Vec<String> = serde_json::from_str(&made).unwrap();
        assert_eq!(read, [HOSTILE, "\u{e0041}", "é 日本"]);
    }

    #[test]
    fn peaks_stand_below_each_other_whatever_is_around_them() {
        let long = "many words before it and after it, too many for a line";
        let wide = example(
            &[("日本語の文章が続きます日本語の文章", 0.1), (" 東京", 2.0), (long, 0.0)],
            1,
            true,
        );
        let short = example(&[(" now", 1.0)], 0, false);
        let begun = example(&[(long, 0.0), (" old", 0.0), (" x", 0.0)], 1, false);
        let page = written(60, false, |page| page.examples(&[wide, short, begun], 2.0));
        let lines: Vec<&str> = page.lines().collect();
        let column = |line: &&str| measure_text_width(line.split('«').next().unwrap());
        let columns: Vec<usize> = lines.iter().map(column).collect();
        assert!(columns.iter().all(|c| c.abs_diff(columns[0]) <= 1), "{columns:?}\n{page}");
        assert!(lines.iter().all(|line| measure_text_width(line) <= 60), "{page}");
        assert!(
            page.contains(" «now»\n") && page.contains(" «old» x\n") && page.contains("«東京»"),
            "{page}"
        );
    }

    #[test]
    fn what_does_not_fit_goes_on_below() {
        let cell = |text: &str| text.to_string();
        let rows = [["found", "0.46 [0.42, 0.50]", "0.01 [−0.01, 0.03]", "0.9"].map(cell)];
        let table =
            Table::new(&["circuit", ">faithfulness", ">random", ">n"]).with(rows.into_iter());
        let page = |width| written(width, false, |page| page.table(&table));
        assert_eq!(
            page(30),
            "circuit       faithfulness\nfound    0.46 [0.42, 0.50]\n    random 0.01 [−0.01, \
             0.03];\n    n 0.9\n"
        );
        assert_eq!(page(80).lines().count(), 2);
        let headed =
            written(24, false, |page| page.heading("Steering", "one of several words more"));
        assert_eq!(headed, "\nSteering · one of\nseveral words more\n");
    }

    #[test]
    fn running_text_is_broken_between_words_below_where_it_begins() {
        let text = "one of several words, and a/path/that/is/longer/than/the/line/itself here";
        let page = written(26, false, |page| page.labelled("warning    ", text));
        assert_eq!(
            page,
            "warning    one of several\n           words, and\n           \
             a/path/that/is/longer/than/the/line/itself\n           here\n"
        );
        assert_eq!(
            written(usize::MAX, false, |page| page.labelled("a  ", text)).lines().count(),
            1
        );
    }

    #[test]
    fn a_table_fits_the_width() {
        let rows = [
            ["a".to_string(), "1".into(), "x".repeat(200)],
            ["bbb".into(), "22".into(), "é".into()],
        ];
        let page = written(40, false, |page| {
            page.table(&Table::new(&["k", ">n", "text"]).with(rows.into_iter()))
        });
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[0], "k     n  text");
        assert_eq!(lines[1], format!("a     1  {}…", "x".repeat(30)));
        assert_eq!(lines[2], "bbb  22  é");
    }

    #[test]
    fn histograms_are_bars() {
        let page = written(80, false, |page| page.histogram(&[1000, 100, 10, 1, 0, 1], 2.5));
        assert_eq!(page, "0 █▆▄▂ ▂ 2.50\n");
    }
}
