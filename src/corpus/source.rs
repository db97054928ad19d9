//! Which files a corpus is, and the documents in them, one after the other.
//!
//! `.txt` is split as it is told; `.jsonl` has one document a line, `.json` the same or one array
//! of them; all of these may be compressed, as `.gz` or `.zst`; `.parquet` has one document a row.
//! An empty document of these is a document: it is passed on, so that numbers count the source's
//! own documents.

use super::cut::{Cut, PART, parts};
use super::{lines, parquet, text};
use crate::error::{Hint, Result, hinted};
use crate::ids::Split;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// What can be read.
pub(crate) const KNOWN: &str = "`.txt`, `.jsonl`, `.json` (all also as `.gz` or `.zst`) and \
    `.parquet` can be read";

/// A document as it stands in its file, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDocument {
    /// The file's name, below the folder that all files of the corpus share.
    pub source: String,
    /// Its text, or its token ids.
    pub content: Content,
    /// Whether it begins here; if not, this goes on where the last part ended.
    pub begins: bool,
    /// Whether it ends here; if not, the next part is of the same document.
    pub ends: bool,
    /// Lone surrogates of its text that were replaced by U+FFFD.
    pub replaced: u32,
}

/// What a document is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text that is still to be tokenized.
    Text(String),
    /// Ids that somebody else's tokenizer made; whoever uses them checks them.
    Tokens(Vec<u32>),
}

/// How files are read.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// The text's name in lines and rows.
    pub column: &'a str,
    /// For text files.
    pub split: Split,
    /// Where the tokenizer lets long texts be cut into parts.
    pub cut: Cut,
}

/// A [`RawDocument`] without its file.
pub(super) struct Part {
    pub(super) content: Content,
    pub(super) begins: bool,
    pub(super) ends: bool,
    pub(super) replaced: u32,
}

impl Part {
    pub(super) fn text(text: &str, begins: bool, ends: bool) -> Part {
        Part { content: Content::Text(text.into()), begins, ends, replaced: 0 }
    }

    pub(super) fn whole(content: Content) -> Part {
        Part { content, begins: true, ends: true, replaced: 0 }
    }
}

/// Takes a document, or a part of one; `false`: enough.
pub(super) type Pass<'a> = dyn FnMut(Part) -> Result<bool> + 'a;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Lines,
    Json,
    Parquet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packed {
    No,
    Gzip,
    Zstd,
}

/// What a file is by its name.
fn format(file: &Path) -> Option<(Kind, Packed)> {
    let name = lower_name(file)?;
    let packings = [(".gz", Packed::Gzip), (".zst", Packed::Zstd)];
    let packed =
        packings.into_iter().find_map(|(end, packed)| Some((name.strip_suffix(end)?, packed)));
    let (name, packed) = packed.unwrap_or((&name, Packed::No));
    let kinds = [
        (".txt", Kind::Text),
        (".jsonl", Kind::Lines),
        (".json", Kind::Json),
        (".parquet", Kind::Parquet),
    ];
    let (_, kind) = kinds.into_iter().find(|(end, _)| name.ends_with(end))?;
    (kind != Kind::Parquet || packed == Packed::No).then_some((kind, packed))
}

fn lower_name(file: &Path) -> Option<String> {
    Some(file.file_name()?.to_str()?.to_ascii_lowercase())
}

/// What stands beside data to tell about it. It is read only where it is named.
fn is_about(file: &Path) -> bool {
    const ABOUT: [&str; 4] =
        ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
    let Some(name) = lower_name(file) else { return false };
    let stem = name.split('.').next().unwrap_or_default();
    ABOUT.contains(&name.as_str()) || ["readme", "license", "licence"].contains(&stem)
}

/// Whether a file that cannot be read is probably one of texts or tokens.
pub(crate) fn looks_like_data(file: &Path) -> bool {
    const DATA: [&str; 26] = [
        "7z", "arrow", "avro", "bin", "br", "bz2", "csv", "db", "feather", "gz", "h5", "hdf5",
        "lz4", "ndjson", "npy", "npz", "orc", "pickle", "pkl", "rar", "sqlite", "tar", "tsv", "xz",
        "zip", "zst",
    ];
    let Some(name) = lower_name(file) else { return false };
    name.rsplit_once('.').is_some_and(|(_, end)| DATA.contains(&end)) && format(file).is_none()
}

fn known(file: &Path) -> Result<(Kind, Packed)> {
    format(file)
        .ok_or_else(|| hinted(format!("`{}` has an unknown file type", file.display()), convert()))
}

fn convert() -> String {
    format!("{KNOWN}; convert the file, or select the others with a pattern such as `*.jsonl`")
}

/// The first few of many, for a message.
pub(crate) fn some(names: &[String]) -> String {
    const MOST: usize = 5;
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The files of a corpus, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Those that are read.
    pub read: Vec<PathBuf>,
    /// Those of the folder that are not: nothing that looks like data.
    pub others: Vec<PathBuf>,
}

/// The files of a corpus, in order of name: the file itself, all files of known kinds at any depth
/// of a folder (hidden ones left out), or the files that fit a pattern with `*`, `?`, `[…]` or
/// `**`.
///
/// # Errors
/// When there are none; when one that was named or fits the pattern is of no known kind, or one of
/// the folder is not and looks like data.
pub fn files(path: &Path) -> Result<Files> {
    let mut files = Files::default();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => collect(path, &mut files)?,
        Ok(_) => files.read.push(path.into()),
        Err(_) => files.read = matching(path)?,
    }
    files.read.sort();
    files.others.sort();
    let data: Vec<String> = (files.others.iter().filter(|file| looks_like_data(file)))
        .map(|file| name_below(path, file))
        .collect();
    if !data.is_empty() {
        let what = format!("`{}` has files that cannot be read: {}", path.display(), some(&data));
        return Err(hinted(what, convert()));
    }
    if files.read.is_empty() {
        let hint = format!(
            "set `corpus.path` to a file, a folder, or a pattern such as `data/*.parquet`; {KNOWN}"
        );
        return Err(hinted(format!("no corpus file at `{}`", path.display()), hint));
    }
    files.read.iter().try_for_each(|file| known(file).map(drop))?;
    Ok(files)
}

/// Files below a folder. Links to folders are not followed: they may lead in a circle.
fn collect(folder: &Path, files: &mut Files) -> Result<()> {
    let unreadable = || format!("cannot list `{}`", folder.display());
    for entry in std::fs::read_dir(folder).hint(unreadable, "check that the folder is readable")? {
        let entry = entry.hint(unreadable, "check that the folder is readable")?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, files)?;
        } else if path.is_file() {
            let wanted = format(&path).is_some() && !is_about(&path);
            if wanted { &mut files.read } else { &mut files.others }.push(path);
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

/// Whether a file of this name is to be read: of a known kind, not hidden, and not about others.
pub(crate) fn readable(name: &str) -> bool {
    let path = Path::new(name);
    let hidden = name.split('/').any(|part| part.starts_with('.'));
    format(path).is_some() && !hidden && !is_about(path)
}

/// The documents of a file, in order, each given to `each` until that returns false; whether more
/// is wanted. Long ones come in parts. A Parquet file without the column may have ids in
/// `input_ids` or `tokens` instead.
///
/// # Errors
/// When the file cannot be read to its end, is not UTF-8, a line is no JSON, or the column is not
/// there.
pub fn read(
    shard: &Shard,
    how: &How,
    each: &mut dyn FnMut(RawDocument) -> Result<bool>,
) -> Result<bool> {
    let mut pass = |part: Part| {
        let source = &shard.source;
        let Part { content, begins, ends, replaced } = part;
        let Content::Text(text) = &content else {
            return each(RawDocument { source: source.clone(), content, begins, ends, replaced });
        };
        let mut parts = parts(text, how.cut, PART).peekable();
        let (mut begins, mut replaced) = (begins, replaced);
        while let Some(part) = parts.next() {
            let content = Content::Text(part.into());
            let ends = ends && parts.peek().is_none();
            let document = RawDocument { source: source.clone(), content, begins, ends, replaced };
            if !each(document)? {
                return Ok(false);
            }
            (begins, replaced) = (false, 0);
        }
        Ok(true)
    };
    read_file(&shard.path, how, &mut pass)
}

/// Whether more is wanted.
fn read_file(file: &Path, how: &How, pass: &mut Pass) -> Result<bool> {
    let (kind, packed) = known(file)?;
    let open = || unpacked(file, packed);
    match kind {
        Kind::Text => text::read(file, open, how.split, how.cut, pass),
        Kind::Lines => lines::read(file, open()?, how.column, pass),
        Kind::Json => lines::read_any(file, open()?, how.column, pass),
        Kind::Parquet => parquet::read(file, how.column, pass),
    }
}

fn unpacked(file: &Path, packed: Packed) -> Result<Box<dyn Read>> {
    let opened = open(file)?;
    Ok(match packed {
        Packed::No => Box::new(opened),
        Packed::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(opened))),
        Packed::Zstd => Box::new(
            zstd::Decoder::new(opened)
                .hint(|| format!("cannot open `{}`", file.display()), text::DAMAGED)?,
        ),
    })
}

/// A file of JSON or of JSON lines, unpacked by its ending.
///
/// # Errors
/// When it is another file, or cannot be opened.
pub(crate) fn unpacked_json(file: &Path) -> Result<Box<dyn Read>> {
    match known(file)? {
        (Kind::Lines | Kind::Json, packed) => unpacked(file, packed),
        _ => Err(hinted(
            format!("`{}` is no file of JSON", file.display()),
            "give files `.jsonl` or `.json`, also with `.gz` or `.zst`",
        )),
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

    const HOW: How = How { column: "text", split: Split::Auto, cut: Cut::BeforeLines };

    fn names(folder: &Path, path: &str) -> Result<Vec<String>> {
        let read = files(&folder.join(path))?.read;
        Ok(read.iter().map(|file| name_below(folder, file)).collect())
    }

    fn documents(folder: &Path, path: &str) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for shard in shards(files(&folder.join(path))?.read) {
            read(&shard, &HOW, &mut |document| {
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
    fn files_of_a_folder_that_are_not_read_are_named_and_data_among_them_is_refused() {
        let own: &[(&str, &[u8])] = &[
            ("a.json", b"{\"text\": \"a\"}"),
            ("readme.txt", b"about it"),
            ("deep/dataset_infos.json", b"{}"),
            ("deep/notes.md", b""),
            (".hidden.csv", b""),
        ];
        let plain = folder(own);
        let found = files(plain.path()).unwrap();
        let below = |file: &PathBuf| name_below(plain.path(), file);
        assert_eq!(found.read.iter().map(below).collect::<Vec<_>>(), ["a.json"]);
        let others = ["deep/dataset_infos.json", "deep/notes.md", "readme.txt"];
        assert_eq!(found.others.iter().map(below).collect::<Vec<_>>(), others);
        assert_eq!(names(plain.path(), "readme.txt").unwrap(), ["readme.txt"]);
        for name in ["x.csv", "x.TSV", "x.arrow", "x.bz2", "x.txt.xz", "x.zst", "x.csv.gz", "x.bin"]
        {
            let other = folder(&[own, &[(&format!("deep/{name}"), b"")]].concat());
            let message = message(other.path(), "");
            assert!(
                message.contains(&format!("has files that cannot be read: `deep/{name}`\n")),
                "{message}"
            );
            assert!(message.contains("a pattern such as `*.jsonl`"), "{message}");
        }
        let many: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        assert_eq!(some(&many), "`0`, `1`, `2`, `3`, `4` and 2 more");
    }

    #[test]
    fn json_is_lines_or_an_array_and_all_but_parquet_may_be_compressed() {
        let lines = b"\n\n{\"text\": \"one\", \"n\": NaN}\n{\"text\": \"two\"}\n";
        let array = "\u{feff} [{\"text\": \"o]ne\", \"n\": [1]},\n\n {\"text\": \"\\\"}\", \
            \"m\": {}}\n ]\n";
        let zipped = |bytes: &[u8]| zstd::encode_all(bytes, 0).unwrap();
        let folder = folder(&[
            ("a.json", lines),
            ("b.json.gz", &gzipped(array.as_bytes())),
            ("c.jsonl.zst", &[zipped(lines), zipped(lines)].concat()),
            ("d.txt.zst", &zipped(b"a<|endoftext|>b")),
            ("e.json", b"[]"),
            ("f.txt.gz", &gzipped(b"text")),
        ]);
        let expected = [
            ("a.json", "one"),
            ("a.json", "two"),
            ("b.json.gz", "o]ne"),
            ("b.json.gz", "\"}"),
            ("c.jsonl.zst", "one"),
            ("c.jsonl.zst", "two"),
            ("c.jsonl.zst", "one"),
            ("c.jsonl.zst", "two"),
            ("d.txt.zst", "a"),
            ("d.txt.zst", "b"),
            ("f.txt.gz", "text"),
        ];
        let expected = expected.map(|(source, text)| (source.to_string(), text.to_string()));
        assert_eq!(documents(folder.path(), "").unwrap(), expected);
    }

    #[test]
    fn a_long_text_of_a_line_comes_in_parts() {
        let long = "愛 and more\n".repeat(PART / 5);
        let line = format!("{{\"text\": {}}}\n{{\"text\": \"b\"}}", serde_json::json!(long));
        let folder = folder(&[("a.jsonl", line.as_bytes())]);
        let shards = shards(files(folder.path()).unwrap().read);
        for (cut, number) in [(Cut::BeforeLines, 4), (Cut::Nowhere, 2)] {
            let mut all = Vec::new();
            let how = How { cut, ..HOW };
            read(&shards[0], &how, &mut |document| {
                let Content::Text(text) = document.content else { panic!("ids") };
                all.push((text, document.begins, document.ends));
                Ok(true)
            })
            .unwrap();
            assert_eq!(all.len(), number);
            assert_eq!(all.pop(), Some(("b".into(), true, true)));
            let begins: Vec<bool> = all.iter().map(|part| part.1).collect();
            assert_eq!((begins[0], begins.iter().filter(|begins| **begins).count()), (true, 1));
            let ends: Vec<bool> = all.iter().rev().map(|part| part.2).collect();
            assert_eq!((ends[0], ends.iter().filter(|ends| **ends).count()), (true, 1));
            assert_eq!(all.into_iter().map(|part| part.0).collect::<String>(), long);
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
        let shards = shards(files(folder.path()).unwrap().read);
        let more = read(&shards[0], &HOW, &mut |_| {
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
            ("plain.jsonl.zst", b"{\"text\": \"not compressed\"}\n"),
            ("open.json", b"[{\"text\": \"a\"}, {\"text\": \"b\"}\n"),
            ("words.json", b"[{\"text\": \"a\"}, \"b\"]\n"),
            ("pretty.json", b"\n{\n\"text\": \"a\"\n}\n"),
            ("wide.jsonl", b"\xff\xfe{\0\"\0"),
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
            (
                "plain.jsonl.zst",
                "plain.jsonl.zst` cannot be read after line 0",
                "download it again",
            ),
            ("open.json", "open.json` ends within its array, after object 2", "download it again"),
            ("words.json", "words.json` object 2 of its array is not a JSON object", "one array"),
            ("pretty.json", "pretty.json` line 2 is not a JSON object", "one array"),
            ("wide.jsonl", "wide.jsonl` is UTF-16", "convert it to UTF-8"),
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
