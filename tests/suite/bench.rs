//! A run of the program on a small part of the demo world, in a folder of its own.

use circuit_atlas::artifact::{Artifact, Row, Store};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

pub(crate) const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// Settings of every test run: 96 contexts in 4 shards, 2 tasks of 4 prompts.
const SETTINGS: &str = r#"
[model]
path = "[repo]/demo/model"
[dictionaries]
attention = "[repo]/demo/attention_sae"
mlp = "[repo]/demo/transcoder"
[corpus]
path = "[repo]/demo/corpus.jsonl"
max_contexts = 96
shard_contexts = 24
[[tasks]]
name = "ioi"
kind = "ioi"
prompts = 4
[[tasks]]
name = "greater-than"
kind = "greater-than"
prompts = 4
[discover]
method = "greedy"
passes = 2
[verify]
prompts = 4
random = 2
edges = 6
[aggregate]
examples = 4
band_examples = 1
[[groups]]
name = "two"
features = ["att1.3", "mlp2.5"]
"#;

/// A folder with settings, and in it the artifacts and the site once it has run.
pub(crate) struct Bench {
    pub folder: TempDir,
    settings: String,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub ok: bool,
    /// The exit code; none if it was killed.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::new_in(TempDir::new().unwrap())
    }

    pub(crate) fn new_in(folder: TempDir) -> Bench {
        let bench = Bench { folder, settings: SETTINGS.replace("[repo]", REPOSITORY) };
        bench.save();
        bench
    }

    /// One that has run from start to end. It ran once, and is copied for each test.
    pub(crate) fn finished() -> Bench {
        static DONE: OnceLock<Bench> = OnceLock::new();
        let done = DONE.get_or_init(|| {
            let bench = Bench::new();
            bench.run(&[]).succeeded();
            bench
        });
        let bench = Bench::new();
        copy(done.path(), bench.path());
        bench
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(&self.file("artifacts"))
    }

    /// The rows of a table.
    #[track_caller]
    pub(crate) fn table<R: Row>(&self) -> Vec<R> {
        let store = self.store();
        if R::ARTIFACT.sharded { store.read_parts() } else { store.read() }.unwrap()
    }

    /// The rows of a table that is named apart from its rows.
    #[track_caller]
    pub(crate) fn table_as<R: Row>(&self, artifact: &Artifact) -> Vec<R> {
        self.store().read_as(artifact).unwrap()
    }

    /// A page of the site.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> String {
        std::fs::read_to_string(self.file("site").join(path)).unwrap()
    }

    /// Replaces a piece of the settings.
    pub(crate) fn set(mut self, from: &str, to: &str) -> Bench {
        let from = from.replace("[repo]", REPOSITORY);
        assert!(self.settings.contains(&from), "the settings have no {from:?}");
        self.settings = self.settings.replace(&from, &to.replace("[repo]", REPOSITORY));
        self.save();
        self
    }

    /// Adds to the settings.
    pub(crate) fn add(mut self, text: &str) -> Bench {
        self.settings.push_str(text);
        self.save();
        self
    }

    fn save(&self) {
        std::fs::write(self.file("pipeline.toml"), &self.settings).unwrap();
    }

    /// A command of the program, to be changed before it is started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_circuit-atlas"));
        command.args(arguments).arg("--config").arg(self.file("pipeline.toml"));
        // As on a terminal, so that messages are the same in each run.
        if arguments.first() == Some(&"run") && !arguments.contains(&"--times") {
            command.args(["--times", "never"]);
        }
        command
    }

    /// Starts `run` with these arguments; what it says is kept for when it has ended.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(&[&["run"], arguments].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs shards of a stage at the same time; what each said.
    pub(crate) fn together(&self, stage: &str, shards: &[&str]) -> Vec<Said> {
        let start = |shard: &&str| self.start(&[stage, "--shard", shard]);
        let started: Vec<Child> = shards.iter().map(start).collect();
        let ended = started.into_iter().map(|child| self.said(child.wait_with_output().unwrap()));
        ended.map(Said::succeeded).collect()
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Said {
        self.said(self.command(arguments).output().unwrap())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.call(&[&["run"], arguments].concat())
    }

    /// An output with the names of this machine's folders taken out.
    pub(crate) fn said(&self, output: Output) -> Said {
        let plain = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(self.path().to_str().unwrap(), "[folder]").replace(REPOSITORY, "[repo]")
        };
        let (ok, code) = (output.status.success(), output.status.code());
        Said { ok, code, out: plain(output.stdout), err: plain(output.stderr) }
    }

    /// Every file of the artifacts and the site with its content, but the lock, which holds times,
    /// and what is told of earlier runs.
    pub(crate) fn results(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in ["artifacts", "site"] {
            walk(&self.file(folder), &mut |path| {
                let name = path.strip_prefix(self.path()).unwrap().to_path_buf();
                files.insert(name, std::fs::read(path).unwrap());
            });
        }
        files.retain(|name, _| !name.ends_with("atlas.lock") && !name.ends_with(".running"));
        // What is told of earlier runs depends on them.
        files.retain(|name, _| {
            !name.starts_with("artifacts/runs") && !name.ends_with("changes.html")
        });
        files
            .iter_mut()
            .filter(|(name, _)| name.extension().is_some_and(|e| e == "html"))
            .for_each(|(_, bytes)| {
                *bytes = without_changes(&String::from_utf8_lossy(bytes)).into_bytes()
            });
        files
    }

    /// The same files with the same bytes, but for the index of the site, which tells how long each
    /// stage took, the card, which tells when, and the site's mark, which has the hashes of both.
    #[track_caller]
    pub(crate) fn assert_same_results(&self, other: &Bench) {
        let (own, others) = (self.results(), other.results());
        assert!(own.keys().eq(others.keys()), "not the same files");
        let timed = |name: &Path| {
            ["index.html", "card.html", "atlas.json"]
                .iter()
                .any(|file| name.ends_with(format!("site/{file}")))
        };
        for (name, bytes) in own.iter().filter(|(name, _)| !timed(name)) {
            assert!(*bytes == others[name], "{} differs", name.display());
        }
    }
}

/// A page without its line of what changed, and without links to all changes.
fn without_changes(page: &str) -> String {
    let is_other =
        |line: &&str| !line.contains("changed-since") && !line.contains("changes.html\">");
    page.lines().filter(is_other).map(|line| format!("{line}\n")).collect()
}

impl Said {
    #[track_caller]
    pub(crate) fn succeeded(self) -> Said {
        assert!(self.ok, "{}", self.err);
        self
    }

    #[track_caller]
    pub(crate) fn failed(self) -> Said {
        assert!(!self.ok, "it succeeded: {}{}", self.out, self.err);
        self
    }

    /// The error and its hint, without what the stages said before.
    pub(crate) fn error(&self) -> &str {
        self.err.find("error: ").map_or("", |at| &self.err[at..])
    }

    /// The stages that ran.
    pub(crate) fn ran(&self) -> Vec<&str> {
        let ran = |line: &&str| line.contains(" runs: ");
        let mut names: Vec<&str> =
            self.err.lines().filter(ran).map(|line| line.split(' ').next().unwrap()).collect();
        names.dedup();
        names
    }
}

/// Says why a test is skipped; unlike `eprintln`, also when it passes.
///
/// # Panics
/// Where `CI=true`: there, everything has to run.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped: {why}");
    std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

/// The demo's model and dictionaries, twice as wide, with heads, neurons and features besides that do
/// nothing; none, after saying so, where there is no Python that can make them.
pub(crate) fn widened(folder: &Path) -> Option<PathBuf> {
    let python = std::env::var("CIRCUIT_ATLAS_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import numpy, safetensors"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        skipped(&format!(
            "`{python}` has not numpy and safetensors; name one that has in CIRCUIT_ATLAS_PYTHON"
        ));
        return None;
    }
    let [demo, script] = ["demo", "tests/widen.py"].map(|name| Path::new(REPOSITORY).join(name));
    let wide = folder.join("wide");
    let sizes = [
        "--copies=2",
        "--heads=8",
        "--d-head=24",
        "--d-mlp=512",
        "--width=4352",
        "--positions=256",
    ];
    let output =
        Command::new(python).arg(script).args([&demo, &wide]).args(sizes).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(wide)
}

/// Calls `each` with every file below a folder, in order.
pub(crate) fn walk(folder: &Path, each: &mut dyn FnMut(&Path)) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { walk(&path, each) } else { each(&path) }
    }
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    walk(from, &mut |path| {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    });
}
