//! Text files that people bring: UTF-8, with or without a byte-order mark.

use crate::error::{Result, hinted};
use std::fs::File;
use std::io::{Chain, Cursor, Read};
use std::path::Path;

/// The text of a file, without its byte-order mark.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub(crate) fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    bare(path, File::open(path)?)?.read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        not_utf8(path, 1 + good.iter().filter(|byte| **byte == b'\n').count() as u64)
    })
}

/// What a reader gives behind its byte-order mark, if there is one. `path` is only named.
///
/// # Errors
/// When it cannot be read, or is UTF-16.
pub(crate) fn bare<R: Read>(path: &Path, mut reader: R) -> Result<Chain<Cursor<Vec<u8>>, R>> {
    let mut first = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut first)?;
    // UTF-16 without a mark shows by its zero bytes: no text of a corpus or of JSON begins so.
    let is_utf16 = matches!(first[..], [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..])
        || matches!(first[..], [a, 0, b, 0] | [0, a, 0, b] if a != 0 && b != 0);
    if is_utf16 {
        return Err(hinted(
            format!("`{}` is UTF-16", path.display()),
            "convert it to UTF-8, such as with `iconv -f UTF-16 -t UTF-8 FILE > NEW`",
        ));
    }
    if first.starts_with(b"\xEF\xBB\xBF") {
        first.drain(..3);
    }
    Ok(Cursor::new(first).chain(reader))
}

/// The error of a line, the first is 1, that is not UTF-8.
pub(crate) fn not_utf8(path: &Path, line: u64) -> anyhow::Error {
    hinted(format!("`{}` line {line} is not UTF-8", path.display()), "save the file as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;

    fn of(bytes: &[u8]) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.txt");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn a_byte_order_mark_is_left_out_once() {
        assert_eq!(of("\u{feff}a\u{feff}b".as_bytes()).unwrap(), "a\u{feff}b");
        for text in ["", "a", "ab", "abc", "abcd", "é", "\u{feff}"] {
            assert_eq!(of(text.as_bytes()).unwrap(), text.trim_start_matches('\u{feff}'));
        }
    }

    #[test]
    fn utf16_is_refused_with_how_to_convert_it() {
        let words: Vec<u16> = "{\"text\": 1}".encode_utf16().collect();
        let little: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let big: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let marked = [&[0xFF, 0xFE][..], &little].concat();
        for bytes in [little, big, marked, vec![0xFE, 0xFF, 0, b'a']] {
            let message = report(&of(&bytes).unwrap_err());
            assert!(message.contains("own.txt` is UTF-16"), "{message}");
            assert!(message.contains("hint: convert it to UTF-8, such as with `iconv"));
        }
    }

    #[test]
    fn what_is_not_utf8_is_named_with_its_line() {
        let message = report(&of(b"fine\nna\xefve\n").unwrap_err());
        assert!(message.contains("own.txt` line 2 is not UTF-8"), "{message}");
    }
}
