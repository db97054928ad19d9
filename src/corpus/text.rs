//! Documents in text files, read a part at a time.

use super::cut::{Cut, PART};
use super::source::{Part, Pass};
use crate::error::{Hint, Result};
use crate::ids::Split;
use crate::text_file;
use std::io::Read;
use std::path::Path;

const END_OF_TEXT: &str = "<|endoftext|>";

/// How much of a file `auto` searches for end-of-text.
const SEARCHED: u64 = 64_000_000;

/// The size from which on `auto` splits a file without end-of-text at blank lines.
const LARGE: u64 = 1_000_000;

pub(super) const DAMAGED: &str = "the file is damaged or truncated; download it again";

/// The documents of a file. `open` opens it: it may be looked through before it is read. Gives
/// whether more is wanted.
pub(super) fn read<R: Read>(
    file: &Path,
    open: impl Fn() -> Result<R>,
    split: Split,
    cut: Cut,
    pass: &mut Pass,
) -> Result<bool> {
    let split = if split == Split::Auto { found(file, open()?)? } else { split };
    let mut bytes = text_file::bare(file, open()?).hint(|| unreadable(file), DAMAGED)?;
    let mut documents = Documents { split, cut, held: String::new(), begun: false, pass };
    let (mut raw, mut line) = (Vec::new(), 1);
    loop {
        let read = bytes.by_ref().take(PART as u64).read_to_end(&mut raw);
        let ended = read.hint(|| unreadable(file), DAMAGED)? == 0;
        let good = match std::str::from_utf8(&raw) {
            Ok(text) => text,
            // A character that the next part ends.
            Err(error) if error.error_len().is_none() && !ended => {
                std::str::from_utf8(&raw[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(error) => {
                let good = &raw[..error.valid_up_to()];
                return Err(text_file::not_utf8(file, line + lines(good)));
            }
        };
        line += lines(good.as_bytes());
        documents.held.push_str(good);
        let used = good.len();
        raw.drain(..used);
        if !documents.pass_on(ended)? {
            return Ok(false);
        }
        if ended {
            return Ok(true);
        }
    }
}

fn unreadable(file: &Path) -> String {
    format!("`{}` cannot be read", file.display())
}

fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// What `auto` is for a file.
fn found(file: &Path, reader: impl Read) -> Result<Split> {
    let mut reader = reader.take(SEARCHED);
    let (mut bytes, mut all) = (Vec::new(), 0);
    loop {
        // The end of what was there may be the beginning of an end-of-text.
        let kept = bytes.len().min(END_OF_TEXT.len() - 1);
        bytes.drain(..bytes.len() - kept);
        let read = reader.by_ref().take(PART as u64).read_to_end(&mut bytes);
        let read = read.hint(|| unreadable(file), DAMAGED)?;
        all += read as u64;
        // No other character of UTF-8 has these bytes within it.
        if String::from_utf8_lossy(&bytes).contains(END_OF_TEXT) {
            return Ok(Split::EndOfText);
        }
        if read == 0 {
            return Ok(if all > LARGE { Split::BlankLines } else { Split::None });
        }
    }
}

/// Documents as they come out of a text.
struct Documents<'a, 'p> {
    split: Split,
    cut: Cut,
    /// What has not been passed on.
    held: String,
    /// Whether a part of the document was passed on that `held` begins with.
    begun: bool,
    pass: &'a mut Pass<'p>,
}

impl Documents<'_, '_> {
    /// Passes on what is known of documents; `ended`: no more text comes. Gives whether more is
    /// wanted.
    fn pass_on(&mut self, ended: bool) -> Result<bool> {
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_str();
        while let Some((end, next)) = self.separator(rest, ended) {
            if !self.end(&rest[..end])? {
                return Ok(false);
            }
            rest = &rest[next..];
        }
        if ended {
            return self.end(rest);
        }
        while rest.len() > PART
            && let Some(at) = self.cut.place(rest, PART)
        {
            let begins = !self.begun;
            let part = if begins { self.bare(&rest[..at], false) } else { &rest[..at] };
            self.begun = true;
            if !(self.pass)(Part::text(part, begins, false))? {
                return Ok(false);
            }
            rest = &rest[at..];
        }
        self.held = rest.into();
        Ok(true)
    }

    /// Where the first document ends, and where the next one begins.
    fn separator(&self, text: &str, ended: bool) -> Option<(usize, usize)> {
        match self.split {
            Split::EndOfText => text.find(END_OF_TEXT).map(|at| (at, at + END_OF_TEXT.len())),
            Split::BlankLines => blank_line(text, ended),
            Split::Auto | Split::None => None,
        }
    }

    /// Passes on the end of a document.
    fn end(&mut self, text: &str) -> Result<bool> {
        let begins = !std::mem::take(&mut self.begun);
        let text = self.bare(text, true);
        let text = if begins { self.bare(text, false) } else { text };
        // Between separators there may be nothing; a file that is not split is a document anyway.
        let nothing = begins && text.is_empty() && self.split != Split::None;
        Ok(nothing || (self.pass)(Part::text(text, begins, true))?)
    }

    /// A document without the line ends in front of it, or without the white space at its end:
    /// they belong to the separators.
    fn bare<'t>(&self, text: &'t str, end: bool) -> &'t str {
        match (self.split, end) {
            (Split::None, _) => text,
            (_, true) => text.trim_end(),
            (_, false) => text.trim_start_matches(['\r', '\n']),
        }
    }
}

/// Where the first blank line is: from the end of the line before it to the beginning of the next
/// line that is not blank.
fn blank_line(text: &str, ended: bool) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(at) = text[from..].find('\n').map(|at| from + at) {
        let rest = &text[at..];
        let white = rest.len() - rest.trim_start().len();
        if at + white == text.len() && !ended {
            return None;
        }
        match rest[..white].rfind('\n') {
            Some(last) if last > 0 => return Some((at, at + last + 1)),
            _ => from = at + white,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::source::Content;
    use crate::error::report;

    /// The documents of a text, joined from their parts.
    fn documents(bytes: &[u8], split: Split) -> Result<Vec<String>> {
        let mut all: Vec<String> = Vec::new();
        let mut open = false;
        let mut pass = |part: Part| {
            let Content::Text(text) = part.content else { panic!("ids") };
            assert!(part.begins != open);
            assert!(text.len() < 3 * PART);
            match part.begins {
                true => all.push(text),
                false => all.last_mut().unwrap().push_str(&text),
            }
            open = !part.ends;
            Ok(true)
        };
        read(Path::new("own.txt"), || Ok(bytes), split, Cut::BeforeLines, &mut pass)?;
        assert!(!open);
        Ok(all)
    }

    #[test]
    fn a_file_is_split_as_it_is_told() {
        let text = "\none\n\n\u{a0}two\r\n \n three  \n<|endoftext|>\n\nfour <|endoftext|>\n";
        let of = |split| documents(text.as_bytes(), split).unwrap();
        assert_eq!(of(Split::None), [text]);
        let by_mark = ["one\n\n\u{a0}two\r\n \n three", "four"];
        assert_eq!(of(Split::EndOfText), by_mark);
        assert_eq!(of(Split::Auto), by_mark);
        let by_lines = ["one", "\u{a0}two", " three  \n<|endoftext|>", "four <|endoftext|>"];
        assert_eq!(of(Split::BlankLines), by_lines);
    }

    #[test]
    fn auto_splits_at_blank_lines_where_a_file_is_large_and_has_no_end_of_text() {
        let verse = "a line\nand another\n\n";
        assert_eq!(documents(verse.as_bytes(), Split::Auto).unwrap(), [verse]);
        let large = verse.repeat(60_000);
        let found = documents(large.as_bytes(), Split::Auto).unwrap();
        assert_eq!(found.len(), 60_000);
        assert!(found.iter().all(|text| text == verse.trim_end()));
        let marked = format!("{large}<|endoftext|>\nmore");
        let found = documents(marked.as_bytes(), Split::Auto).unwrap();
        assert_eq!(found, [large.trim_end(), "more"]);
    }

    #[test]
    fn nothing_between_separators_is_no_document() {
        for split in [Split::EndOfText, Split::BlankLines] {
            assert_eq!(documents(b"", split).unwrap(), [""; 0]);
            assert_eq!(documents(b"\n \n", split).unwrap(), [""; 0]);
        }
        let twice = b"a\n<|endoftext|>\n<|endoftext|>\nb\n<|endoftext|>\n";
        assert_eq!(documents(twice, Split::EndOfText).unwrap(), ["a", "b"]);
        assert_eq!(documents(b"", Split::None).unwrap(), [""]);
        assert_eq!(documents(b"", Split::Auto).unwrap(), [""]);
    }

    #[test]
    fn a_long_document_comes_in_parts_and_whole() {
        // Characters of three bytes, so that the ends of parts are within one; spaces of all kinds.
        let text = "愛 and\n\u{3000}愛愛愛!\r\n\r\n".repeat(200_000);
        for split in [Split::None, Split::EndOfText] {
            let whole = if split == Split::None { &text } else { text.trim_end() };
            assert_eq!(documents(text.as_bytes(), split).unwrap(), [whole]);
        }
        let expected: Vec<&str> = text.split("\r\n\r\n").filter(|text| !text.is_empty()).collect();
        assert_eq!(documents(text.as_bytes(), Split::BlankLines).unwrap(), expected);
        let begun = format!("{}{text}", "\n".repeat(PART + 7));
        assert_eq!(documents(begun.as_bytes(), Split::EndOfText).unwrap(), [text.trim_end()]);
    }

    #[test]
    fn what_is_not_utf8_is_named_with_its_line() {
        let long = [b"line\n".repeat(PART), b"na\xefve\n".to_vec()].concat();
        for (bytes, line) in [(&b"fine\nna\xefve\n"[..], 2), (&long, PART + 1), (b"fine \xe6", 1)] {
            let message = report(&documents(bytes, Split::None).unwrap_err());
            assert!(message.contains(&format!("own.txt` line {line} is not UTF-8")), "{message}");
        }
    }
}
