//! Documents in plain files: one whole text, or a JSON object a line.

use super::source::{Content, Pass};
use crate::error::{Hint, Result, hinted};
use serde_json::{Map, Value};
use std::io::{BufRead, Read};
use std::path::Path;

const DAMAGED: &str = "the file is damaged or truncated; download it again";
const UTF8: &str = "save the file as UTF-8";

/// A file as one text.
pub(super) fn whole(file: &Path, mut reader: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    reader
        .read_to_end(&mut bytes)
        .hint(|| format!("`{}` cannot be read", file.display()), DAMAGED)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        hinted(format!("`{}` line {line} is not UTF-8", file.display()), UTF8)
    })?;
    Ok(without_mark(&text).into())
}

/// The documents of a file with a JSON object a line. Blank lines hold none. Gives whether more is
/// wanted.
pub(super) fn read(
    file: &Path,
    mut reader: impl BufRead,
    column: &str,
    pass: &mut Pass,
) -> Result<bool> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let unreadable =
            || format!("`{}` cannot be read after line {}", file.display(), number - 1);
        if reader.read_until(b'\n', &mut line).hint(unreadable, DAMAGED)? == 0 {
            break;
        }
        let place = format!("`{}` line {number}", file.display());
        let text = std::str::from_utf8(&line)
            .map_err(|_| hinted(format!("{place} is not UTF-8"), UTF8))?;
        let text = without_mark(text).trim();
        if !text.is_empty() && !pass(Content::Text(column_of(text, column, &place)?))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Without the byte-order mark that some editors put in front.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn column_of(line: &str, column: &str, place: &str) -> Result<String> {
    let object: Result<Map<String, Value>, _> = serde_json::from_str(line);
    let mut object = object.map_err(|error| {
        let what = format!("{place} is not a JSON object: error at byte {}", error.column());
        hinted(what, "a `.jsonl` file has one JSON object a line; correct or remove the line")
    })?;
    match object.remove(column) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Null) => Ok(String::new()),
        Some(_) => Err(hinted(
            format!("{place} has no text in column `{column}`"),
            "set `corpus.text` to the column that holds the text",
        )),
        None => Err(missing(place, column, object.keys().map(String::as_str))),
    }
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
