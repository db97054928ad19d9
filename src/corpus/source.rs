//! Which files a corpus is, and the documents in them, one after the other.
//!
//! `.txt` is one document a file, whatever blank lines are in it; `.jsonl` and `.jsonl.gz` one a
//! line; `.parquet` one a row. An empty document is a document: it is passed on, so that numbers
//! count the source's own documents.

use super::{lines, parquet};
use crate::error::{Hint, Result, hinted};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

const KNOWN: &str = "`.txt`, `.jsonl`, `.jsonl.gz` and `.parquet` can be read";

/// A document as it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDocument {
    /// The file's name, below the folder that all files of the corpus share.
    pub source: String,
    /// Its text, or its token ids.
    pub content: Content,
}

/// What a document is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text that is still to be tokenized.
    Text(String),
    /// Ids that somebody else's tokenizer made; whoever uses them checks them.
    Tokens(Vec<u32>),
}

/// Takes a document; `false`: enough.
pub(super) type Pass<'a> = dyn FnMut(Content) -> Result<bool> + 'a;

#[derive(Clone, Copy)]
enum Format {
    Text,
    Lines,
    GzippedLines,
    Parquet,
}

impl Format {
    fn of(file: &Path) -> Option<Format> {
        let name = file.file_name()?.to_str()?.to_ascii_lowercase();
        let formats = [
            (".txt", Format::Text),
            (".jsonl", Format::Lines),
            (".jsonl.gz", Format::GzippedLines),
            (".parquet", Format::Parquet),
        ];
        formats.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, format)| format)
    }

    fn known(file: &Path) -> Result<Format> {
        Format::of(file).ok_or_else(|| {
            let hint = format!(
                "{KNOWN}; convert the file, or select the others with a pattern such as `*.jsonl`"
            );
            hinted(format!("`{}` has an unknown file type", file.display()), hint)
        })
    }
}

/// The files of a corpus, in order of name: the file itself, all files of known kinds at any depth
/// of a folder (hidden ones left out), or the files that fit a pattern with `*`, `?`, `[…]` or
/// `**`.
///
/// # Errors
/// When there are none, or one that was named or fits the pattern is of no known kind.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => collect(path, &mut files)?,
        Ok(_) => files.push(path.into()),
        Err(_) => files = matching(path)?,
    }
    files.sort();
    if files.is_empty() {
        let hint = format!(
            "set `corpus.path` to a file, a folder, or a pattern such as `data/*.parquet`; {KNOWN}"
        );
        return Err(hinted(format!("no corpus file at `{}`", path.display()), hint));
    }
    files.iter().try_for_each(|file| Format::known(file).map(drop))?;
    Ok(files)
}

/// Files of known kinds below a folder. Links to folders are not followed: they may lead in a
/// circle.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || format!("cannot list `{}`", folder.display());
    for entry in std::fs::read_dir(folder).hint(unreadable, "check that the folder is readable")? {
        let entry = entry.hint(unreadable, "check that the folder is readable")?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, files)?;
        } else if path.is_file() && Format::of(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

fn matching(path: &Path) -> Result<Vec<PathBuf>> {
    // What is there already is no pattern, even if the folder of the settings is called `[old]`.
    let there = path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new(""));
    let rest = path.strip_prefix(there).unwrap_or(path);
    let pattern = Path::new(&glob::Pattern::escape(&there.to_string_lossy())).join(rest);
    let options =
        glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let found = glob::glob_with(&pattern.to_string_lossy(), options).hint(
        || format!("`{}` is not a pattern", path.display()),
        "`*` stands for any name, `**` for any folders; see `corpus.path` in `pipeline.toml`",
    )?;
    Ok(found.flatten().filter(|file| file.is_file()).collect())
}

/// A file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name below the folder that all files of the corpus share.
    pub source: String,
    /// Where it is on this machine.
    pub path: PathBuf,
}

/// Files with the names that their documents get.
pub fn shards(files: Vec<PathBuf>) -> Vec<Shard> {
    let base = shared_folder(&files);
    files.into_iter().map(|path| Shard { source: name_below(&base, &path), path }).collect()
}

/// Whether a file of this name can be read, and is not hidden.
pub(crate) fn readable(name: &str) -> bool {
    Format::of(Path::new(name)).is_some() && !name.split('/').any(|part| part.starts_with('.'))
}

/// The documents of a file, in order, each given to `each` until that returns false; whether more
/// is wanted. `column` names the text in lines and rows; a Parquet file without it may have ids in
/// `input_ids` or `tokens` instead.
///
/// # Errors
/// When the file cannot be read to its end, is not UTF-8, a line is no JSON, or the column is not
/// there.
pub fn read(
    shard: &Shard,
    column: &str,
    each: &mut dyn FnMut(RawDocument) -> Result<bool>,
) -> Result<bool> {
    let mut pass = |content| each(RawDocument { source: shard.source.clone(), content });
    read_file(&shard.path, column, &mut pass)
}

/// Whether more is wanted.
fn read_file(file: &Path, column: &str, pass: &mut Pass) -> Result<bool> {
    match Format::known(file)? {
        Format::Text => pass(Content::Text(lines::whole(file, open(file)?)?)),
        Format::Lines => lines::read(file, BufReader::new(open(file)?), column, pass),
        Format::GzippedLines => lines::read(
            file,
            BufReader::new(MultiGzDecoder::new(BufReader::new(open(file)?))),
            column,
            pass,
        ),
        Format::Parquet => parquet::read(file, column, pass),
    }
}

pub(super) fn open(file: &Path) -> Result<File> {
    File::open(file).hint(
        || format!("cannot open `{}`", file.display()),
        "check that the file exists and is readable",
    )
}

/// The deepest folder that all files are in.
fn shared_folder(files: &[PathBuf]) -> PathBuf {
    let mut shared = files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
    while !files.iter().all(|file| file.starts_with(shared)) {
        shared = shared.parent().unwrap_or(Path::new(""));
    }
    shared.into()
}

/// With `/` on every system, as it goes into tables.
fn name_below(base: &Path, file: &Path) -> String {
    let below = file.strip_prefix(base).unwrap_or(file);
    below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;
    use std::io::Write;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn names(folder: &Path, path: &str) -> Result<Vec<String>> {
        Ok(files(&folder.join(path))?.iter().map(|file| name_below(folder, file)).collect())
    }

    fn documents(folder: &Path, path: &str) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for shard in shards(files(&folder.join(path))?) {
            read(&shard, "text", &mut |document| {
                let Content::Text(text) = document.content else {
                    panic!("ids in {}", document.source)
                };
                all.push((document.source, text));
                Ok(true)
            })?;
        }
        Ok(all)
    }

    fn message(folder: &Path, path: &str) -> String {
        report(&documents(folder, path).unwrap_err())
    }

    fn gzipped(text: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn a_path_is_a_file_a_folder_or_a_pattern() {
        let folder = folder(&[
            ("b.txt", b""),
            ("a.jsonl", b""),
            ("deep/c.parquet", b""),
            ("deep/D.JSONL.GZ", b""),
            ("README.md", b""),
            (".cache/x.txt", b""),
            ("odd[1]/y.txt", b""),
        ]);
        let names = |path| names(folder.path(), path).unwrap();
        assert_eq!(names("b.txt"), ["b.txt"]);
        assert_eq!(
            names(""),
            ["a.jsonl", "b.txt", "deep/D.JSONL.GZ", "deep/c.parquet", "odd[1]/y.txt"]
        );
        assert_eq!(names("*.txt"), ["b.txt"]);
        assert_eq!(names("**/*.txt"), ["b.txt", "odd[1]/y.txt"]);
        assert_eq!(names("odd[1]/*"), ["odd[1]/y.txt"]);
    }

    #[test]
    fn no_file_and_an_unknown_kind_are_errors() {
        let folder = folder(&[("a.csv", b"x"), ("empty/notes.md", b"")]);
        for path in ["missing.txt", "*.jsonl", "empty"] {
            let message = message(folder.path(), path);
            assert!(
                message.contains("no corpus file at")
                    && message.contains("hint: set `corpus.path`"),
                "{message}"
            );
        }
        for path in ["a.csv", "*.csv"] {
            let message = message(folder.path(), path);
            assert!(
                message.contains("a.csv` has an unknown file type")
                    && message.contains("`.parquet`"),
                "{message}"
            );
        }
    }

    #[test]
    fn documents_come_in_order_with_their_source_and_empty_ones_count() {
        let lines = b"{\"text\": \"one\", \"id\": 1}\n\n{\"text\": \"\"}\r\n{\"text\": \
                null}\n{\"text\": \"caf\\u00e9\"}";
        let folder = folder(&[
            ("x/a.jsonl", lines),
            (
                "x/deep/b.jsonl.gz",
                &[gzipped(b"{\"text\": \"two\"}\n"), gzipped(b"{\"text\": \"three\"}\n")].concat(),
            ),
            ("x/c.txt", "\u{feff}a\n\nb\n".as_bytes()),
        ]);
        let expected = [
            ("a.jsonl", "one"),
            ("a.jsonl", ""),
            ("a.jsonl", ""),
            ("a.jsonl", "café"),
            ("c.txt", "a\n\nb\n"),
            ("deep/b.jsonl.gz", "two"),
            ("deep/b.jsonl.gz", "three"),
        ];
        let expected = expected.map(|(source, text)| (source.to_string(), text.to_string()));
        assert_eq!(documents(folder.path(), "").unwrap(), expected);
    }

    #[test]
    fn reading_stops_when_told() {
        let folder = folder(&[("a.jsonl", b"{\"text\": \"1\"}\n{\"text\": \"2\"}\nnot read")]);
        let mut seen = 0;
        let shards = shards(files(folder.path()).unwrap());
        let more = read(&shards[0], "text", &mut |_| {
            seen += 1;
            Ok(seen < 2)
        });
        assert_eq!((seen, more.unwrap()), (2, false));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let whole = gzipped(&b"{\"text\": \"a longer text\"}\n".repeat(2000));
        let folder = folder(&[
            ("latin.txt", b"fine\nna\xefve\n"),
            ("latin.jsonl", b"{\"text\": \"fine\"}\n{\"text\": \"na\xefve\"}\n"),
            ("broken.jsonl", b"{\"text\": \"fine\"}\n{\"text\": \"open\n"),
            ("list.jsonl", b"[1]\n"),
            ("other.jsonl", b"{\"text\": \"fine\"}\n{\"body\": \"x\", \"id\": 3}\n"),
            ("number.jsonl", b"{\"text\": 3}\n"),
            ("cut.jsonl.gz", &whole[..whole.len() / 2]),
            ("plain.jsonl.gz", b"{\"text\": \"not gzipped\"}\n"),
        ]);
        let cases = [
            ("latin.txt", "latin.txt` line 2 is not UTF-8", "save the file as UTF-8"),
            ("latin.jsonl", "latin.jsonl` line 2 is not UTF-8", "save the file as UTF-8"),
            ("broken.jsonl", "broken.jsonl` line 2 is not a JSON object", "one JSON object a line"),
            ("list.jsonl", "list.jsonl` line 1 is not a JSON object", "one JSON object a line"),
            (
                "other.jsonl",
                "other.jsonl` line 2 has no column `text`, only `body`, `id`",
                "set `corpus.text`",
            ),
            (
                "number.jsonl",
                "number.jsonl` line 1 has no text in column `text`",
                "set `corpus.text`",
            ),
            ("cut.jsonl.gz", "cut.jsonl.gz` cannot be read after line", "download it again"),
            ("plain.jsonl.gz", "plain.jsonl.gz` cannot be read after line 0", "download it again"),
        ];
        for (file, what, hint) in cases {
            let message = message(folder.path(), file);
            assert!(message.contains(what), "{message}");
            assert!(
                message.lines().any(|line| line.starts_with("hint: ") && line.contains(hint)),
                "{message}"
            );
        }
    }
}
