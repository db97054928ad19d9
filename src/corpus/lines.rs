//! Documents in JSON: an object a line, or the objects of one array.

use super::json::{Text, text_of};
use super::source::{Part, Pass};
use super::text::DAMAGED;
use crate::error::{Hint, Result, hinted};
use crate::text_file;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The documents of a file with a JSON object a line. Blank lines hold none. Gives whether more is
/// wanted.
pub(super) fn read(file: &Path, reader: impl Read, column: &str, pass: &mut Pass) -> Result<bool> {
    let unreadable = || format!("`{}` cannot be read after line 0", file.display());
    each_line(
        file,
        BufReader::new(text_file::bare(file, reader).hint(unreadable, DAMAGED)?),
        column,
        pass,
    )
}

/// The documents of a file that has a JSON object a line or is one array of objects. Gives whether
/// more is wanted.
pub(super) fn read_any(
    file: &Path,
    reader: impl Read,
    column: &str,
    pass: &mut Pass,
) -> Result<bool> {
    let unreadable = || format!("`{}` cannot be read", file.display());
    let mut reader = BufReader::new(text_file::bare(file, reader).hint(unreadable, DAMAGED)?);
    // Lines in front of the first object are blank whatever the file is, but they count.
    let mut blank = 0;
    loop {
        let there = reader.fill_buf().hint(unreadable, DAMAGED)?;
        let white = there.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        blank += there[..white].iter().filter(|byte| **byte == b'\n').count();
        match there.get(white) {
            Some(b'[') => {
                reader.consume(white + 1);
                return each_item(file, reader, column, pass);
            }
            None if white > 0 => reader.consume(white),
            _ => {
                reader.consume(white);
                let lines = std::io::Cursor::new(vec![b'\n'; blank]);
                return each_line(file, lines.chain(reader), column, pass);
            }
        }
    }
}

fn each_line(file: &Path, mut reader: impl BufRead, column: &str, pass: &mut Pass) -> Result<bool> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let unreadable =
            || format!("`{}` cannot be read after line {}", file.display(), number - 1);
        if reader.read_until(b'\n', &mut line).hint(unreadable, DAMAGED)? == 0 {
            break;
        }
        let text = std::str::from_utf8(&line).map_err(|_| text_file::not_utf8(file, number))?;
        let place = || format!("`{}` line {number}", file.display());
        if !text.trim().is_empty() && !pass(part(text.trim(), column, &place)?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The objects of an array, behind its bracket.
fn each_item(file: &Path, reader: impl BufRead, column: &str, pass: &mut Pass) -> Result<bool> {
    let (mut object, mut number, mut depth, mut ended) = (Vec::new(), 0_u64, 0_usize, false);
    let (mut in_string, mut escaped) = (false, false);
    for byte in reader.bytes() {
        let byte = byte.hint(
            || format!("`{}` cannot be read after object {number} of its array", file.display()),
            DAMAGED,
        )?;
        let place = || format!("`{}` object {} of its array", file.display(), number + 1);
        match byte {
            _ if in_string => {
                in_string = byte != b'"' || escaped;
                escaped = byte == b'\\' && !escaped;
            }
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b']' if !ended && object.is_empty() => ended = true,
            _ => {}
        }
        match (depth, object.is_empty()) {
            (0, true) if byte.is_ascii_whitespace() || [b',', b']'].contains(&byte) => {}
            (0, false) => {
                object.push(byte);
                let text = std::str::from_utf8(&object).map_err(|_| {
                    hinted(format!("{} is not UTF-8", place()), "save the file as UTF-8")
                })?;
                if !pass(part(text, column, &place)?)? {
                    return Ok(false);
                }
                object.clear();
                number += 1;
            }
            (1.., _) if !ended => object.push(byte),
            _ => return Err(no_object(&place(), 1)),
        }
    }
    if ended {
        return Ok(true);
    }
    let what = format!("`{}` ends within its array, after object {number}", file.display());
    Err(hinted(what, DAMAGED))
}

/// A document of a JSON object.
fn part(object: &str, column: &str, place: &dyn Fn() -> String) -> Result<Part> {
    let (text, replaced) = match text_of(object, column) {
        Text::Found(text, replaced) => (text, replaced),
        Text::Null => (String::new(), 0),
        Text::Other => {
            let what = format!("{} has no text in column `{column}`", place());
            return Err(hinted(what, "set `corpus.text` to the column that holds the text"));
        }
        Text::Missing(names) => {
            return Err(missing(&place(), column, names.iter().map(String::as_str)));
        }
        Text::NoObject(at) => return Err(no_object(&place(), at)),
    };
    Ok(Part { replaced, ..Part::text(&text, true, true) })
}

fn no_object(place: &str, at: usize) -> anyhow::Error {
    hinted(
        format!("{place} is not a JSON object: error at byte {at}"),
        "a `.jsonl` file has one JSON object a line, a `.json` file the same or one array of \
         objects; correct or remove it",
    )
}

/// The error of a column that is not there.
pub(super) fn missing<'a>(
    place: &str,
    column: &str,
    others: impl Iterator<Item = &'a str>,
) -> anyhow::Error {
    let others: Vec<String> = others.map(|name| format!("`{}`", name.escape_debug())).collect();
    let others = if others.is_empty() {
        "none at all".into()
    } else {
        format!("only {}", others.join(", "))
    };
    let what = format!("{place} has no column `{column}`, {others}");
    hinted(what, "set `corpus.text` to the column that holds the text")
}
