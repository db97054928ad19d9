//! The documents: those that are made from the source are up to date, links and section numbers
//! lead somewhere, and what README shows is what the program does.

use crate::bench::{REPOSITORY, walk};
use circuit_atlas::artifact::Artifact;
use circuit_atlas::cli::Cli;
use circuit_atlas::config::Config;
use circuit_atlas::pipeline::STAGES;
use clap::Parser;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(REPOSITORY).join(path)).unwrap()
}

/// Compares a document with what the source says; `make docs` writes it instead.
#[track_caller]
fn assert_made(path: &str, made: &str) {
    if std::env::var_os("CIRCUIT_ATLAS_UPDATE_DOCS").is_some() {
        std::fs::write(Path::new(REPOSITORY).join(path), made).unwrap();
    }
    let there = std::fs::read_to_string(Path::new(REPOSITORY).join(path)).unwrap_or_default();
    assert!(there == made, "`{path}` is not up to date: run `make docs`");
}

/// A text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn tables_are_documented() {
    let mut text = String::from(
        "# Tables\n\nEvery table of `artifacts/`, in the order in which the stages write them. Made \
         from\n`src/artifact/tables.rs` by `make docs`. What the numbers mean in full is in\n\
         [definitions.md](definitions.md), the words are in [glossary.md](glossary.md). In types, \
         `?` means\nthat a value may be null. A table in parts is a folder of files \
         `part-NNNNN.parquet`.\n",
    );
    for stage in &STAGES {
        for table in stage.writes() {
            table_section(&mut text, stage.name, table);
        }
    }
    text.push_str(
        "\n# Kept until a stage is done\n\nParts of a stage's work, from which a killed run goes on and \
         shards make their share. The stage\nremoves them when its tables are there.\n",
    );
    for stage in &STAGES {
        for table in stage.keeps() {
            table_section(&mut text, stage.name, table);
        }
    }
    text.push_str(
        "\n# Kept answers\n\n`show` keeps what it measures of features that were not scored. A part \
         is of one feature, by its\nnumber among those of all dictionaries. `clean`, and that of \
         `tokenize` or `measure`, removes them.\n",
    );
    for table in &circuit_atlas::artifact::tables::ASKED {
        table_section(&mut text, "show", table);
    }
    text.push_str(
        "\n# Imported\n\nWhat `import explanations` takes. No stage writes it, and `clean` leaves it.\n",
    );
    table_section(
        &mut text,
        "import",
        &<circuit_atlas::artifact::tables::ImportedRow as circuit_atlas::artifact::Row>::ARTIFACT,
    );
    assert_made("docs/tables.md", &text);
}

fn table_section(text: &mut String, stage: &str, table: &Artifact) {
    let files = if table.sharded { "in parts" } else { "one file" };
    let (name, version, row) = (table.name, table.version, table.row.trim());
    write!(
        text,
        "\n## {name}\n\nA row is {row}. Written by `{stage}`, {files}, version {version}.\n\n\
         | column | type | meaning |\n|---|---|---|\n"
    )
    .unwrap();
    for column in table.columns {
        writeln!(text, "| `{}` | {} | {} |", column.name, column.kind, cell(column.meaning.trim()))
            .unwrap();
    }
}

#[test]
fn settings_are_documented() {
    let source = read("src/config/sections.rs") + &read("src/ids/split.rs");
    let sections = declared(&read("src/config/mod.rs"))["Config"].fields.clone();
    let types = declared(&source);
    let minimal = "[model]\npath = \"m\"\n[dictionaries]\nattention = \"a\"\nmlp = \"t\"\n\
         [corpus]\npath = \"c.txt\"\n[[tasks]]\nname = \"ioi\"\nkind = \"ioi\"\n\
         [[groups]]\nname = \"g\"\nfeatures = [\"att0.1\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("minimal.toml");
    std::fs::write(&path, minimal).unwrap();
    let defaults = serde_json::to_value(Config::load(&path).unwrap()).unwrap();
    let mut text = String::from(
        "# Settings\n\nEvery setting of `pipeline.toml`. Made from `src/config/` by `make docs`; \
         the comments in\n`pipeline.toml` say the same in short. Paths are relative to the \
         settings file. `hf:REPO@REVISION` is a\nrepository of the Hugging Face hub.\n",
    );
    for field in sections.iter().filter(|field| !["folder", "snapshots"].contains(&&*field.name)) {
        let many = field.kind.starts_with("Vec<");
        let kind = field.kind.trim_start_matches("Vec<").trim_end_matches('>');
        let brackets =
            if many { format!("[[{}]]", field.name) } else { format!("[{}]", field.name) };
        let declared = &types[kind];
        let default = match many {
            true => &defaults[&field.name][0],
            false => &defaults[&field.name],
        };
        let required: BTreeSet<&str> = minimal
            .lines()
            .skip_while(|line| *line != brackets)
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split(" =").next())
            .collect();
        write!(text, "\n## {brackets}\n\n{}\n\n", declared.doc).unwrap();
        text.push_str("| key | values | default | meaning |\n|---|---|---|---|\n");
        for key in &declared.fields {
            let default = match &default[&key.name] {
                _ if required.contains(&*key.name) => "required".to_string(),
                Value::Null => "not set".to_string(),
                value => format!("`{value}`"),
            };
            let values = values(&key.kind, &types);
            writeln!(
                text,
                "| `{}` | {values} | {} | {} |",
                key.name,
                cell(&default),
                cell(&meaning(key, &types))
            )
            .unwrap();
        }
    }
    assert_made("docs/settings.md", &text);
}

#[derive(Clone, Default)]
struct Declared {
    doc: String,
    fields: Vec<Field>,
    /// Of an enum: the case that its words are written in.
    kebab: bool,
}

#[derive(Clone)]
struct Field {
    name: String,
    /// Empty for a variant.
    kind: String,
    doc: String,
}

/// Structs and enums of a source with their comments.
fn declared(source: &str) -> BTreeMap<String, Declared> {
    let mut all = BTreeMap::new();
    let (mut doc, mut kebab) = (Vec::new(), false);
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("///") {
            doc.push(comment.trim().to_string());
        } else if line.starts_with("#[") {
            kebab |= line.contains("kebab-case");
        } else if let Some(name) =
            line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))
        {
            let fields = fields(&mut lines);
            let name = name.trim_end_matches(" {").to_string();
            all.insert(name, Declared { doc: doc.join(" "), fields, kebab });
            (doc, kebab) = (Vec::new(), false);
        } else {
            (doc, kebab) = (Vec::new(), false);
        }
    }
    all
}

fn fields<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<Field> {
    let (mut fields, mut doc, mut written) = (Vec::new(), Vec::new(), None);
    for line in lines.take_while(|line| *line != "}").map(str::trim) {
        if let Some(renamed) = line.strip_prefix("#[serde(rename = \"") {
            written = renamed.split('"').next();
        } else if let Some(comment) = line.strip_prefix("///") {
            doc.push(comment.trim().to_string());
        } else if !line.starts_with(['#', '/']) && !line.is_empty() {
            let line = line.trim_start_matches("pub ").trim_end_matches(',');
            let (name, kind) = line.split_once(": ").unwrap_or((line, ""));
            let name = written.take().unwrap_or(name);
            fields.push(Field { name: name.into(), kind: kind.into(), doc: doc.join(" ") });
            doc.clear();
        }
    }
    fields
}

/// `GreaterThan` as the settings write it.
fn word(variant: &str, kebab: bool) -> String {
    let mut word = String::new();
    for c in variant.chars() {
        if kebab && c.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(c.to_lowercase());
    }
    word
}

fn values(kind: &str, types: &BTreeMap<String, Declared>) -> String {
    let inner = |outer: &str| {
        kind.strip_prefix(outer)?
            .strip_prefix('<')?
            .strip_suffix('>')
            .map(|inner| inner.to_string())
    };
    if let Some(inner) = inner("Option") {
        return values(&inner, types);
    }
    if let Some(inner) = inner("Vec").or_else(|| inner("BTreeSet")) {
        return format!("list: {}", values(&inner, types));
    }
    match kind {
        "String" => "text".into(),
        "bool" => "true, false".into(),
        "usize" | "u64" | "u32" => "whole number".into(),
        "f64" => "number".into(),
        "BTreeMap<String, [f64; 2]>" => "model = [number, number]".into(),
        _ => {
            let declared = types.get(kind).unwrap_or_else(|| panic!("`{kind}` has no words here"));
            let words =
                declared.fields.iter().map(|f| format!("`{}`", word(&f.name, declared.kebab)));
            words.collect::<Vec<_>>().join(", ")
        }
    }
}

/// A setting's comment, with those of the values that it may have.
fn meaning(field: &Field, types: &BTreeMap<String, Declared>) -> String {
    let inner = field.kind.rsplit('<').next().unwrap().trim_end_matches('>');
    let mut parts: Vec<String> = Vec::new();
    let declared = types.get(inner);
    parts.extend(Some(field.doc.clone()).filter(|doc| !doc.is_empty()));
    if field.doc.is_empty() {
        parts.extend(declared.map(|declared| declared.doc.clone()));
    }
    for value in declared.iter().flat_map(|declared| &declared.fields) {
        if !value.doc.is_empty() {
            let kebab = declared.is_some_and(|declared| declared.kebab);
            parts.push(format!("`{}`: {}", word(&value.name, kebab), value.doc));
        }
    }
    parts.join(" ")
}

/// Every Markdown file that people read.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(REPOSITORY);
    let mut all: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "demo/README.md"]
        .map(|name| root.join(name))
        .into();
    walk(&root.join("docs"), &mut |path| {
        all.extend(path.extension().is_some_and(|e| e == "md").then(|| path.to_path_buf()));
    });
    all
}

/// The anchors of a Markdown file: those of its headings, as GitHub makes them, and its own.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    });
    let own = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
    headings.chain(own.map(String::from)).collect()
}

/// Numbers of the sections of a document, such as `7` and `7.3`.
fn sections(path: &str) -> BTreeSet<String> {
    let text = read(path);
    let headings = text.lines().filter(|line| line.starts_with("##"));
    let number =
        |line: &str| line.trim_start_matches('#').trim().split(' ').next().unwrap().to_string();
    headings.map(number).filter(|n| n.starts_with(|c: char| c.is_ascii_digit())).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut links = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(file.exists(), "`{}` links to `{target}`, which is not there", path.display());
            if !anchor.is_empty() {
                let known = anchors(&std::fs::read_to_string(&file).unwrap());
                assert!(known.contains(anchor), "`{}` links to `{target}`", path.display());
            }
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}

/// The section numbers after each `§` of a text, with what stands before it.
fn references(text: &str) -> Vec<(&str, &str)> {
    let number = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].trim_end_matches('.').len()
    };
    text.match_indices('§')
        .map(|(at, sign)| {
            let rest = &text[at + sign.len()..];
            (&text[..at], &rest[..number(rest)])
        })
        .collect()
}

#[test]
fn section_numbers_are_those_of_the_documents() {
    let known: BTreeMap<&str, BTreeSet<String>> =
        ["docs/definitions.md", "docs/formats.md"].map(|path| (path, sections(path))).into();
    assert!(known.values().all(|sections| sections.len() > 8));
    let mut found = 0;
    for folder in ["src", "tests", "templates", "docs"] {
        walk(&Path::new(REPOSITORY).join(folder), &mut |path| {
            let Ok(text) = std::fs::read_to_string(path) else { return };
            let name = path.strip_prefix(REPOSITORY).unwrap().to_str().unwrap();
            if name == "tests/suite/documents.rs" {
                return;
            }
            for (before, number) in references(&text) {
                // In sources the document is named; documents speak of definitions or themselves.
                let wrapped = before.replace("\n//! ", " ").replace("\n/// ", " ");
                let named = known.keys().find(|path| wrapped.ends_with(&format!("`{path}` ")));
                let places: Vec<&str> = match named {
                    Some(path) => vec![path],
                    None if name.ends_with(".rs") && number.is_empty() => continue,
                    None if name == "docs/formats.md" => known.keys().copied().collect(),
                    None => vec!["docs/definitions.md"],
                };
                assert!(
                    number.is_empty() || places.iter().any(|place| known[place].contains(number)),
                    "`{name}` names §{number}, which is not there"
                );
                found += 1;
            }
        });
    }
    assert!(found > 50, "{found}");
}

/// The fenced blocks of a document.
fn blocks(text: &str) -> Vec<String> {
    text.split("```").skip(1).step_by(2).map(String::from).collect()
}

/// The program's arguments in a line such as `circuit-atlas run --from score # …`.
fn arguments(line: &str) -> Option<Vec<&str>> {
    let command = line.trim().trim_start_matches("$ ").strip_prefix("circuit-atlas ")?;
    let parts = command.split('#').next().unwrap().split('"').enumerate();
    // What is between quotation marks is one argument, spaces and all.
    let words = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    Some(words.collect())
}

#[test]
fn commands_in_documents_are_known() {
    let mut commands = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for line in blocks(&text).iter().flat_map(|block| block.lines()) {
            let Some(words) = arguments(line) else { continue };
            let parsed = Cli::try_parse_from([&["circuit-atlas"], &words[..]].concat());
            assert!(parsed.is_ok(), "`{}`: {line}: {}", path.display(), parsed.err().unwrap());
            commands += 1;
        }
    }
    assert!(commands > 10, "{commands}");
}

/// The demo, run by its own settings; kept between test runs, so that only what changed runs again.
fn demo() -> &'static Path {
    static DONE: OnceLock<PathBuf> = OnceLock::new();
    DONE.get_or_init(run_demo)
}

fn run_demo() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    std::fs::create_dir_all(&folder).unwrap();
    let settings = read("pipeline.toml").replace("\"demo/", &format!("\"{REPOSITORY}/demo/"));
    std::fs::write(folder.join("pipeline.toml"), settings).unwrap();
    let run = program(&folder, &["run"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    folder
}

fn program(folder: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_circuit-atlas"))
        .args(arguments)
        .current_dir(folder)
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

#[test]
fn pages_of_features_are_small() {
    let folder = demo().join("site/features");
    let pages: Vec<(PathBuf, u64)> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
        .filter(|(path, _)| path.extension().is_some_and(|ending| ending == "html"))
        .collect();
    assert!(pages.len() > 100, "{}", pages.len());
    for (page, bytes) in pages {
        assert!(bytes < 100_000, "{} has {bytes} bytes", page.display());
    }
}

#[test]
fn what_the_readme_shows_is_what_the_demo_gives() {
    let (folder, readme) = (demo(), read("README.md"));
    let mut shown = 0;
    for block in blocks(&readme).iter().filter(|block| block.trim_start().starts_with("$ ")) {
        let (command, expected) = block.trim_start().split_once('\n').unwrap();
        let output = program(folder, &arguments(command).unwrap());
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.trim_end(), expected.trim_end(), "{command}");
        shown += 1;
    }
    assert!(shown > 0);
    // Pages that it names are there.
    let mut pages = 0;
    for name in readme.split('`').skip(1).step_by(2).filter(|name| !name.contains(['\n', ' '])) {
        let in_site = ["features/", "components/", "graphs/", "tasks/", "pairs/"];
        if in_site.iter().any(|start| name.starts_with(start)) && name.contains('.') {
            assert!(folder.join("site").join(name).exists(), "`{name}`");
            pages += 1;
        }
    }
    assert!(pages > 2, "{pages}");
}

/// The names of all functions that are tests, of the suite and of the sources.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests"] {
        walk(&Path::new(REPOSITORY).join(folder), &mut |path| {
            let Ok(text) = std::fs::read_to_string(path) else { return };
            for marked in text.split("#[test]\n").skip(1) {
                let signature = marked.lines().find_map(|line| line.trim().strip_prefix("fn "));
                names.extend(signature.and_then(|rest| rest.split('(').next()).map(String::from));
            }
        });
    }
    names
}

/// The names in `TESTS` of the campaign.
fn campaign() -> Vec<String> {
    let source = read("tests/torture/main.rs");
    let (_, list) = source.split_once("const TESTS:").unwrap();
    let rows = list.lines().take_while(|line| *line != "];");
    rows.filter_map(|line| Some(line.trim().strip_prefix("(\"")?.split('"').next()?.to_string()))
        .collect()
}

#[test]
fn what_may_be_relied_on_names_tests_that_there_are() {
    let (text, tests) = (read("docs/reliability.md"), tests());
    let (mut named, mut files) = (0, 0);
    for name in text.split('`').skip(1).step_by(2) {
        let word = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let start = name.strip_suffix('…');
        if name.contains('/') {
            assert!(Path::new(REPOSITORY).join(name).exists(), "there is no `{name}`");
            files += 1;
        } else if let Some(target) = name.strip_prefix("make ") {
            let makefile = read("Makefile");
            assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "{name}");
        } else if let Some(start) = start.filter(|start| word(start)) {
            assert!(tests.iter().any(|test| test.starts_with(start)), "there is no test `{name}`");
            named += 1;
        } else if name.contains('_') && word(name) {
            assert!(tests.contains(name), "there is no test `{name}`");
            named += 1;
        }
    }
    assert!(named > 10 && files > 2, "{named} {files}");
}

#[test]
fn what_may_be_relied_on_names_the_tests_of_the_campaign() {
    let (text, campaign) = (read("docs/reliability.md"), campaign());
    let (_, table) = text.split_once("| promise | tests | campaign |").unwrap();
    let rows = table.trim_start().lines().take_while(|line| line.starts_with('|')).skip(1);
    let mut named = BTreeSet::new();
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        for part in cell.split("; ").filter(|part| !part.is_empty()) {
            let begins = |name: &&String| {
                let rest = part.strip_prefix(name.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ',', ' ']))
            };
            let test = campaign.iter().find(begins);
            named.insert(test.unwrap_or_else(|| panic!("the campaign has no test `{part}`")));
        }
    }
    assert!(named.iter().copied().eq(campaign.iter().collect::<BTreeSet<_>>()), "{named:?}");
}
