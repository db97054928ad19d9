//! Kept runs: a folder each, with hard links to the tables that are compared.

use crate::artifact::publish::publish;
use crate::artifact::tables::{
    ComponentRow, ConformanceRow, EvaluationRow, ExplanationRow, FaithfulnessRow, FeatureRow,
    RankingRow,
};
use crate::artifact::{Artifact, Row, Store};
use crate::error::{Context, Hint, Result};
use crate::lock::Lock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The folder of kept runs, in the artifact folder.
const FOLDER: &str = "runs";
/// The file of a kept run that says what it is of.
const ABOUT: &str = "run.json";
/// A run is put together, and taken apart, under these names.
const NEW: &str = ".new";
const OLD: &str = ".old";

/// What is kept of a run.
const TABLES: [Artifact; 7] = [
    ComponentRow::ARTIFACT,
    RankingRow::ARTIFACT,
    FaithfulnessRow::ARTIFACT,
    FeatureRow::ARTIFACT,
    ExplanationRow::ARTIFACT,
    EvaluationRow::ARTIFACT,
    ConformanceRow::ARTIFACT,
];

/// What a run was.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct About {
    /// `2026-01-31-0405`: when it ended.
    #[serde(skip)]
    pub name: String,
    /// The same as `2026-01-31 04:05 UTC`.
    pub when: String,
    /// The program that made it.
    pub program: String,
    /// Its tables by name, with the hash of each.
    pub tables: BTreeMap<String, String>,
    /// What it was made from, as in the lock.
    pub ingredients: BTreeMap<String, String>,
    /// What each stage said of its work.
    pub summaries: BTreeMap<String, String>,
}

/// A kept run.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub about: About,
    folder: PathBuf,
}

impl Kept {
    /// Its tables.
    pub(crate) fn store(&self) -> Store {
        Store::new(&self.folder)
    }
}

/// The tables in the artifact folder as a run: the kept one of the same tables, or a new one.
///
/// # Errors
/// When a table is not there.
pub(crate) fn about_now(store: &Store, lock: &Lock, kept: &[Kept]) -> Result<About> {
    let (mut when, mut about) = (String::new(), About::default());
    for (stage, entry) in lock.stages.iter().filter(|(_, entry)| !entry.files.is_empty()) {
        when = when.max(entry.finished.clone());
        about.summaries.insert(stage.clone(), entry.summary.clone());
        let of_stage =
            |name: &&String| !["stage ", "attempt "].iter().any(|kind| name.starts_with(kind));
        for name in entry.ingredients.keys().filter(of_stage) {
            let own = match name.starts_with("version") {
                true => format!("version of {stage}: {name}"),
                false => name.clone(),
            };
            about.ingredients.insert(own, entry.ingredients[name].clone());
        }
        for table in &TABLES {
            if let Some(stamp) = entry.files.get(&table.relative()) {
                about.tables.insert(table.name.into(), stamp.hash().into());
            }
        }
    }
    let missing = TABLES.iter().find(|table| !about.tables.contains_key(table.name));
    if let Some(table) = missing {
        anyhow::bail!("`{}` is not in `atlas.lock`", store.path(table).display());
    }
    about.program = env!("CARGO_PKG_VERSION").into();
    let same = kept.last().filter(|run| run.about.tables == about.tables);
    (about.when, about.name) = match same {
        Some(run) => (run.about.when.clone(), run.about.name.clone()),
        None => (when.clone(), free_name(&when, store.root())),
    };
    Ok(about)
}

/// `2026-01-31 04:05 UTC` → `2026-01-31-0405`, or with a number behind it.
fn free_name(when: &str, artifacts: &Path) -> String {
    let name: String = when
        .trim_end_matches(" UTC")
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            ':' => None,
            c => Some(c),
        })
        .collect();
    let is_free = |name: &String| artifacts.join(FOLDER).join(name).symlink_metadata().is_err();
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.clone()).chain(numbered).find(is_free).unwrap_or_default()
}

/// The runs that are kept in an artifact folder, the oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn kept(artifacts: &Path) -> Result<Vec<Kept>> {
    let folder = artifacts.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.hint(
            || format!("cannot read `{}`", folder.display()),
            "check that the folder is readable",
        )?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let read = |name: String| {
        let folder = folder.join(&name);
        let text = fs::read_to_string(folder.join(ABOUT)).ok()?;
        let about: About = serde_json::from_str(&text).ok()?;
        Some(Kept { about: About { name, ..about }, folder })
    };
    let mut runs: Vec<Kept> =
        names.filter(|name| !name.starts_with('.')).filter_map(read).collect();
    runs.sort_by(|a, b| (&a.about.when, &a.about.name).cmp(&(&b.about.when, &b.about.name)));
    Ok(runs)
}

/// Keeps the tables in the artifact folder as a run, unless they are kept already, and of all runs
/// the newest `most`. Whoever calls it holds the artifact folder.
///
/// # Errors
/// When a file cannot be linked or removed.
pub(crate) fn keep(store: &Store, about: &About, most: usize) -> Result<()> {
    let folder = store.root().join(FOLDER);
    let what = || format!("cannot write `{}`", folder.display());
    let hint = "check that the artifact folder is writable and the disk has space";
    for left in [NEW, OLD] {
        take_apart(&folder.join(left)).hint(what, hint)?;
    }
    let before = kept(store.root())?;
    let is_there = before.iter().any(|run| run.about.name == about.name);
    if most > 0 && !is_there {
        let new = folder.join(NEW);
        fs::create_dir_all(&new).hint(what, hint)?;
        let about_file = |file: &mut std::io::BufWriter<fs::File>| {
            Ok(file.write_all((serde_json::to_string_pretty(about)? + "\n").as_bytes())?)
        };
        for table in &TABLES {
            // A file that an earlier run has too is on the disk once.
            let same = before
                .iter()
                .rev()
                .find(|run| run.about.tables.get(table.name) == about.tables.get(table.name));
            let from = same.map_or(store.path(table), |run| run.store().path(table));
            let to = new.join(table.relative());
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(store.path(table), &to).map(drop))
                .hint(what, hint)?;
        }
        publish(&new.join(ABOUT), about_file)?;
        fs::rename(&new, folder.join(&about.name)).hint(what, hint)?;
    }
    let runs = kept(store.root())?;
    for run in runs.iter().rev().skip(most) {
        fs::rename(&run.folder, folder.join(OLD)).hint(what, hint)?;
        take_apart(&folder.join(OLD)).hint(what, hint)?;
    }
    if most == 0 {
        // Where something else is in it, it stays.
        drop(fs::remove_dir(&folder));
    }
    Ok(())
}

/// Removes all kept runs; how many there were. Whoever calls it holds the artifact folder.
///
/// # Errors
/// When a file cannot be removed.
pub(crate) fn remove_all(store: &Store) -> Result<usize> {
    let runs = kept(store.root())?.len();
    keep(store, &About::default(), 0).map(|()| runs)
}

/// Removes a folder with what a kept run has, and leaves what else is in it.
fn take_apart(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let files = TABLES.iter().map(Artifact::relative).chain([ABOUT.to_string()]);
    for name in files {
        match fs::remove_file(folder.join(&name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove `{name}`"));
            }
            _ => {}
        }
    }
    drop(fs::remove_file(crate::artifact::publish::scratch(&folder.join(ABOUT))));
    fs::remove_dir(folder)
        .with_context(|| format!("`{}` holds something else than a kept run", folder.display()))
}
