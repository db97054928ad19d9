//! `atlas.lock`: what each stage last ran with, and from that whether it is fresh and, if not, why.
//!
//! A stage's *fingerprint* is a hash of its ingredients: its settings, the files of the outside
//! world that it reads, the fingerprints of the stages before it, and its own version. Results
//! depend on nothing else.

use crate::artifact::hold::hold;
use crate::artifact::publish::{publish, publish_beside_others, remove_unfinished};
use crate::error::{Hint, Result, hinted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The name of the file in the artifact folder.
pub const NAME: &str = "atlas.lock";
/// The lock on that file, where several processes change it.
const HELD: &str = ".atlas.lock.held";
const VERSION: u32 = 1;

/// The ingredient that tells runs apart of which the earlier one left questions unanswered: what it
/// gives then depends on what a server said meanwhile, and whatever is made from it has to be made
/// again.
pub(crate) const ATTEMPT: &str = "attempt at all answers";

/// What a stage is made from: `setting corpus.context` → `128`, `file corpus/wiki.jsonl` → its
/// hash, and so on. Files have the names of what they are to the run, so that the same files
/// elsewhere are the same ingredients.
pub(crate) type Ingredients = BTreeMap<String, String>;

/// The hash that stands for a set of ingredients.
pub fn fingerprint(ingredients: &Ingredients) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, value) in ingredients {
        for part in [name, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_string()
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// The program that wrote it.
    program: String,
    /// By stage.
    #[serde(default)]
    pub stages: BTreeMap<String, Entry>,
    /// What revisions of the hub stand for: `REPO@REVISION` → a commit.
    #[serde(default)]
    pub hub: BTreeMap<String, String>,
    /// Files of the outside world, by what they are to the run, so that they are only hashed again
    /// when they change.
    #[serde(default)]
    files: BTreeMap<String, Stamp>,
}

/// What a stage last ran with.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Hash of its ingredients.
    pub fingerprint: String,
    /// When it ended, UTC; empty while it runs.
    pub finished: String,
    /// Seconds that it ran.
    pub seconds: f64,
    /// What it said of its work.
    pub summary: String,
    /// Questions to a language model that it could not get an answer to, and will ask again.
    #[serde(default)]
    pub left: u64,
    /// Questions to a language model that it has an answer to.
    #[serde(default)]
    pub answered: u64,
    /// Questions whose replies could not be used; only `--again failed` asks them again.
    #[serde(default)]
    pub failed: u64,
    /// A user has said that the stage may stand with what failed in it.
    #[serde(default)]
    pub accepted: bool,
    /// Why, with the number of questions; the most frequent reason first.
    #[serde(default)]
    pub reasons: Vec<(String, u64)>,
    /// The round in which it asks failed questions again, while it runs; else 0. A run that was
    /// killed goes on in the same round.
    #[serde(default)]
    pub again: u32,
    /// What its run had spent on language models when it began the stage, as long as that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) carried: Option<Carried>,
    pub(crate) ingredients: Ingredients,
    /// What it wrote, below the artifact folder.
    pub files: BTreeMap<String, Stamp>,
}

/// What a run has spent on language models before a stage.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carried {
    /// The fingerprint of the stage: one with another is of another run.
    pub run: String,
    pub calls: u64,
    pub cost: f64,
}

/// A file's size, time of change (nanoseconds) and content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    size: u64,
    modified: u64,
    hash: String,
}

impl Entry {
    /// There were replies, and none could be used.
    fn nothing_answered(&self) -> bool {
        self.unaccepted() > 0 && self.answered == 0 && self.left == 0
    }

    /// Questions that failed, unless a user has accepted that.
    fn unaccepted(&self) -> u64 {
        if self.accepted { 0 } else { self.failed }
    }
}

impl Stamp {
    /// Hashes a file.
    pub fn take(path: &Path) -> Result<Stamp> {
        let hint = "check that the file exists and is readable";
        let what = || format!("cannot read `{}`", path.display());
        let metadata = path.metadata().hint(what, hint)?;
        let mut hasher = blake3::Hasher::new();
        std::fs::File::open(path)
            .and_then(|file| hasher.update_reader(file).map(drop))
            .hint(what, hint)?;
        let hash = hasher.finalize().to_hex()[..32].to_string();
        Ok(Stamp { size: metadata.len(), modified: modified(&metadata), hash })
    }

    /// The hash of its content.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The file has not been touched since, as far as its size and time tell.
    fn untouched(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|now| now.len() == self.size && modified(&now) == self.modified)
    }

    /// The file has the content that it had.
    fn same(&self, path: &Path) -> bool {
        self.untouched(path) || Stamp::take(path).is_ok_and(|now| now.hash == self.hash)
    }
}

fn modified(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as u64)
}

impl Lock {
    /// Reads the lock of an artifact folder; an empty one if there is none.
    ///
    /// # Errors
    /// When it is there but cannot be read, or is of another version.
    pub fn load(folder: &Path) -> Result<Lock> {
        let path = folder.join(NAME);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Lock::default());
            }
            read => read.hint(
                || format!("cannot read `{}`", path.display()),
                "check that the file is readable",
            )?,
        };
        let again = "delete it to run everything again, or use the program version that wrote it";
        let lock: Lock = toml::from_str(&text)
            .hint(|| format!("this version cannot read the lock `{}`", path.display()), again)?;
        if lock.version != VERSION {
            return Err(hinted(
                format!("`{}` is of version {}, not {VERSION}", path.display(), lock.version),
                again,
            ));
        }
        Ok(lock)
    }

    /// Replaces the lock of an artifact folder.
    pub fn save(&mut self, folder: &Path) -> Result<()> {
        let text = self.text()?;
        publish(&folder.join(NAME), |file| Ok(file.write_all(text.as_bytes())?))
    }

    /// Notes in the lock of an artifact folder that a stage has begun, unless it says so, where other
    /// processes may note the same of it or of other stages at the same time: each has the file
    /// alone from reading it to replacing it, so that no note is lost.
    ///
    /// # Errors
    /// When the lock cannot be read or replaced, or the program is to stop while it waits.
    pub(crate) fn begin_beside_others(folder: &Path, stage: &str) -> Result<()> {
        let path = folder.join(HELD);
        let _held = hold(&path, || ()).hint(
            || format!("cannot lock `{}`", path.display()),
            "check that the folder is writable and its file system has locks",
        )?;
        let mut lock = Lock::load(folder)?;
        if lock.is_begun(stage) {
            return Ok(());
        }
        lock.begin(stage, 0);
        let text = lock.text()?;
        // On a file system of a network a process may have lost its lock, and still be writing.
        publish_beside_others(&folder.join(NAME), |file| Ok(file.write_all(text.as_bytes())?))
    }

    /// Removes locks that killed processes were writing. Nobody must be writing one.
    pub(crate) fn remove_unfinished(folder: &Path) -> Result<()> {
        remove_unfinished(folder, |name| name == NAME)
    }

    fn text(&mut self) -> Result<String> {
        self.version = VERSION;
        self.program = env!("CARGO_PKG_VERSION").into();
        Ok(toml::to_string(self)?)
    }

    /// The hash of a file of the outside world, taken again only when its size or time changed.
    /// `name` is what it is to the run.
    pub fn hash(&mut self, name: &str, path: &Path) -> Result<String> {
        if let Some(stamp) = self.files.get(name).filter(|stamp| stamp.untouched(path)) {
            return Ok(stamp.hash.clone());
        }
        let stamp = Stamp::take(path)?;
        let hash = stamp.hash.clone();
        self.files.insert(name.into(), stamp);
        Ok(hash)
    }

    /// Hashes files of the outside world, given with what they are to the run, and says whether any
    /// of the hashes is new.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn remember(&mut self, files: &[(String, PathBuf)]) -> Result<bool> {
        let before = self.files.clone();
        files.iter().try_for_each(|(name, path)| self.hash(name, path).map(drop))?;
        Ok(self.files != before)
    }

    /// Whether the hashes of files of the outside world are known.
    pub(crate) fn remembers(&self, files: &[(String, PathBuf)]) -> bool {
        let known = |(name, path): &(String, PathBuf)| {
            self.files.get(name).is_some_and(|stamp| stamp.untouched(path))
        };
        files.iter().all(known)
    }

    /// The hash of a file of the outside world that [`Lock::hash`] took, or one taken now.
    pub fn known(&self, name: &str, path: &Path) -> Result<String> {
        match self.files.get(name).filter(|stamp| stamp.untouched(path)) {
            Some(stamp) => Ok(stamp.hash.clone()),
            None => Ok(Stamp::take(path)?.hash),
        }
    }

    /// Why a stage with these ingredients has to run; nothing when it is fresh.
    pub fn stale(&self, stage: &str, ingredients: &Ingredients, folder: &Path) -> Vec<Reason> {
        let Some(entry) = self.stages.get(stage) else {
            return vec![Reason::own("it has never been run")];
        };
        if entry.finished.is_empty() {
            return vec![Reason::own("its last run did not finish")];
        }
        let mut why = changes(&entry.ingredients, ingredients);
        if entry.left > 0 {
            why.retain(|reason| !reason.is_attempt());
            let text = format!("{} of its LLM requests have no reply yet", entry.left);
            why.insert(0, Reason::own(text));
        } else if entry.nothing_answered() {
            let text = format!("all {} replies to its LLM requests failed", entry.failed);
            why.insert(0, Reason::own(text));
        }
        let gone = |name: &&String| !folder.join(name.as_str()).exists();
        why.extend(
            entry.files.keys().find(gone).map(|name| Reason::own(format!("`{name}` is missing"))),
        );
        why
    }

    /// How often a stage that depends on answers has been begun again for want of some, with this
    /// time if it runs `again`, or asks for those that `failed`; none if never.
    pub(crate) fn attempt(&self, stage: &str, again: bool, failed: bool) -> Option<u64> {
        let entry = self.stages.get(stage)?;
        let before = entry.ingredients.get(ATTEMPT).and_then(|n| n.parse().ok()).unwrap_or(0);
        let now = again && (entry.left > 0 || (failed && entry.failed > 0));
        Some(before + u64::from(now)).filter(|attempt| *attempt > 0)
    }

    /// Questions of a stage whose replies could not be used.
    pub(crate) fn failed(&self, stage: &str) -> u64 {
        self.stages.get(stage).map_or(0, |entry| entry.failed)
    }

    /// Those of them with which the stage is not complete: a user has not accepted them.
    pub(crate) fn unaccepted(&self, stage: &str) -> u64 {
        self.stages.get(stage).map_or(0, Entry::unaccepted)
    }

    /// Accepts what has failed in a finished stage; how many questions that are.
    pub(crate) fn accept(&mut self, stage: &str) -> u64 {
        let finished = self.stages.get_mut(stage).filter(|entry| !entry.finished.is_empty());
        finished.map_or(0, |entry| {
            entry.accepted = entry.failed > 0;
            entry.failed
        })
    }

    /// Whether a stage has been begun and has not finished.
    pub(crate) fn is_begun(&self, stage: &str) -> bool {
        self.stages.get(stage).is_some_and(|entry| entry.finished.is_empty())
    }

    /// Whether no stage has begun or ended between these two locks of a folder.
    pub(crate) fn same_results(&self, other: &Lock) -> bool {
        let results = |lock: &Lock| -> Vec<(String, String, bool)> {
            let of = |(name, entry): (&String, &Entry)| {
                (name.clone(), entry.fingerprint.clone(), entry.finished.is_empty())
            };
            lock.stages.iter().map(of).collect()
        };
        results(self) == results(other)
    }

    /// A stage whose tables are made from others than those that are there now, with the stage that
    /// has run again since. Only stages of which `of` says so are looked at.
    pub(crate) fn mixed(&self, of: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
        self.stages.iter().filter(|(name, _)| of(name)).find_map(|(name, entry)| {
            let mut made_from = entry.ingredients.iter().filter_map(|(ingredient, fingerprint)| {
                Some((ingredient.strip_prefix("stage ")?, fingerprint))
            });
            let other = |(before, fingerprint): &(&str, &String)| {
                self.stages.get(*before).is_none_or(|now| now.fingerprint != **fingerprint)
            };
            made_from.find(other).map(|(before, _)| (name.as_str(), before))
        })
    }

    /// Notes that a stage begins: should it be killed, what it leaves behind must not pass for the
    /// work of its last whole run, and the next run must not pass for the one before.
    ///
    /// `again` is the round in which it asks failed questions again, 0 for none.
    pub fn begin(&mut self, stage: &str, again: u32) {
        let entry = self.stages.entry(stage.into()).or_default();
        let (left, failed) = (entry.left, entry.failed);
        let again = if again > 0 { again } else { entry.again };
        let carried = entry.carried.take();
        let ingredients = entry.ingredients.remove_entry(ATTEMPT).into_iter().collect();
        *entry = Entry { left, failed, again, carried, ingredients, ..Entry::default() };
    }

    /// What the run of this fingerprint that was killed in a stage had spent before it; none where
    /// no run was.
    pub(crate) fn carried(&self, stage: &str, run: &str) -> Option<&Carried> {
        self.stages.get(stage)?.carried.as_ref().filter(|carried| carried.run == run)
    }

    /// Notes what the run that begins a stage has spent before it.
    pub(crate) fn carry(&mut self, stage: &str, carried: Carried) {
        self.stages.entry(stage.into()).or_default().carried = Some(carried);
    }

    /// Whether a stage lacks nothing but answers to questions: what it gives may be used.
    pub(crate) fn is_open(&self, stage: &str, why: &[Reason]) -> bool {
        why.len() == 1
            && self.stages.get(stage).is_some_and(|entry| {
                (entry.left > 0 || entry.nothing_answered()) && !entry.finished.is_empty()
            })
    }

    /// # Errors
    /// When a file that a stage wrote has another content than it gave it, or one of `files`, which
    /// are there now, is not of its making.
    pub(crate) fn check_untouched(
        &self,
        stage: &str,
        folder: &Path,
        mut files: impl Iterator<Item = String>,
    ) -> Result<()> {
        let Some(entry) = self.stages.get(stage) else { return Ok(()) };
        if let Some(extra) = files.find(|name| !entry.files.contains_key(name)) {
            return Err(hinted(
                format!("`{}` was not written by `{stage}`", folder.join(extra).display()),
                "remove it: it would be read as part of the table",
            ));
        }
        let changed = |(name, stamp): &(&String, &Stamp)| {
            let path = folder.join(name.as_str());
            path.exists() && !stamp.same(&path)
        };
        match entry.files.iter().find(changed) {
            None => Ok(()),
            Some((name, _)) => Err(hinted(
                format!("`{}` was changed after `{stage}` wrote it", folder.join(name).display()),
                format!("rerun with `circuit-atlas run {stage} --force`"),
            )),
        }
    }
}

/// Why a stage has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The reason in words.
    pub text: String,
    /// It only follows from another stage having to run.
    pub follows: bool,
}

impl Reason {
    /// A reason that is not another stage's.
    pub fn own(text: impl Into<String>) -> Reason {
        Reason { text: text.into(), follows: false }
    }

    /// It is only that this is another attempt at all answers.
    pub(crate) fn is_attempt(&self) -> bool {
        self.text.starts_with(&noun(ATTEMPT))
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A stage or one of its tables is of another version.
const OTHER_PROGRAM: &str = "this version of the program computes it differently";

/// What differs between two sets of ingredients, in words: causes first, then what follows from
/// other stages.
pub(crate) fn changes(old: &Ingredients, new: &Ingredients) -> Vec<Reason> {
    let changed = new.iter().filter_map(|(name, value)| match old.get(name) {
        Some(before) if before == value => None,
        before => Some((name, change(name, before.map(String::as_str), value))),
    });
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let without = |name: &String| match name.starts_with("version") {
        true => OTHER_PROGRAM.into(),
        false => format!("it no longer depends on {}", noun(name)),
    };
    let gone = gone.map(|name| (name, without(name)));
    let reason = |(name, text): (&String, String)| Reason {
        text,
        follows: ["stage ", "attempt "].iter().any(|kind| name.starts_with(kind)),
    };
    let mut why: Vec<Reason> = changed.chain(gone).map(reason).collect();
    why.sort_by_key(|reason| reason.follows);
    let mut versions = 0;
    why.retain(|reason| {
        versions += usize::from(reason.text == OTHER_PROGRAM);
        reason.text != OTHER_PROGRAM || versions == 1
    });
    why
}

/// `setting corpus.context` → `corpus.context`, in backticks.
fn noun(name: &str) -> String {
    format!("`{}`", name.split_once(' ').map_or(name, |(_, rest)| rest))
}

fn change(name: &str, before: Option<&str>, value: &str) -> String {
    let kind = name.split(' ').next().unwrap_or_default();
    match (kind, before) {
        ("setting", Some(before)) => {
            format!("{} was {}, is {}", noun(name), short(before), short(value))
        }
        ("setting", None) => format!("{} is new: {}", noun(name), short(value)),
        ("stage", _) => format!("the output of {} changed", noun(name)),
        ("hub", Some(before)) => {
            format!("{} was at commit {}, is at {}", noun(name), commit(before), commit(value))
        }
        ("attempt", _) => format!("{} is another one", noun(name)),
        ("version", _) => OTHER_PROGRAM.into(),
        (_, Some(_)) => format!("{} has changed", noun(name)),
        (_, None) => format!("{} is new", noun(name)),
    }
}

/// As much of a commit as people write of it.
fn commit(value: &str) -> String {
    format!("`{}`", value.chars().take(12).collect::<String>())
}

/// A value as people write it: a string without its quotes, and no more than a line has room for.
fn short(value: &str) -> String {
    const LONGEST: usize = 48;
    if value.is_empty() {
        return "empty".into();
    }
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let value = bare.filter(|bare| !bare.is_empty()).unwrap_or(value);
    if value.chars().count() <= LONGEST {
        return format!("`{value}`");
    }
    format!("`{}…`", value.chars().take(LONGEST).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_of(pairs: &[(&str, &str)]) -> Ingredients {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn attempt(lock: &Lock, again: bool) -> Option<u64> {
        lock.attempt("interpret", again, false)
    }

    #[test]
    fn of_many_who_begin_at_once_no_note_is_lost() {
        const STAGES: usize = 24;
        let folder = tempfile::tempdir().unwrap();
        let ended = Entry { finished: "now".into(), left: 3, ..Entry::default() };
        let stages = (0..STAGES).map(|n| (n.to_string(), ended.clone())).collect();
        let mut lock = Lock { stages, ..Lock::default() };
        lock.save(folder.path()).unwrap();
        let all = std::sync::Barrier::new(2 * STAGES);
        std::thread::scope(|threads| {
            // Two of each.
            for n in 0..2 * STAGES {
                let (all, folder) = (&all, folder.path());
                threads.spawn(move || {
                    all.wait();
                    Lock::begin_beside_others(folder, &(n % STAGES).to_string()).unwrap();
                });
            }
        });
        let lock = Lock::load(folder.path()).unwrap();
        let begun = (0..STAGES).filter(|n| lock.is_begun(&n.to_string())).count();
        assert_eq!((begun, lock.stages.len()), (STAGES, STAGES));
        assert!(lock.stages.values().all(|entry| entry.left == 3));
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }

    #[test]
    fn a_fingerprint_tells_where_a_name_ends() {
        let (a, b) = (made_of(&[("ab", "c")]), made_of(&[("a", "bc")]));
        assert_ne!(fingerprint(&a), fingerprint(&b));
    }

    #[test]
    fn a_run_that_was_killed_while_it_asked_again_is_told_from_the_one_before() {
        let mut lock = Lock::default();
        let ended = |ingredients: &[(&str, &str)], left| Entry {
            finished: "now".into(),
            left,
            ingredients: made_of(ingredients),
            ..Entry::default()
        };
        lock.stages.insert("interpret".into(), ended(&[("a", "1")], 3));
        assert_eq!([attempt(&lock, false), attempt(&lock, true)], [None, Some(1)]);
        lock.begin("interpret", 0);
        assert_eq!(attempt(&lock, true), Some(1), "killed, it has not been tried yet");
        lock.stages.insert("interpret".into(), ended(&[("a", "1"), (ATTEMPT, "1")], 1));
        lock.begin("interpret", 0);
        assert_eq!(attempt(&lock, true), Some(2));
        lock.stages.insert("interpret".into(), ended(&[("a", "1"), (ATTEMPT, "2")], 0));
        assert_eq!(attempt(&lock, true), Some(2), "and it stays that of the last");
        assert_eq!(lock.attempt("render", true, true), None);
    }

    #[test]
    fn failures_are_asked_again_where_that_is_wanted() {
        let mut lock = Lock::default();
        let ended = |answered, failed| Entry {
            finished: "now".into(),
            answered,
            failed,
            ..Entry::default()
        };
        let folder = Path::new("");
        let stale = |lock: &Lock| lock.stale("interpret", &Ingredients::new(), folder);
        lock.stages.insert("interpret".into(), ended(7, 3));
        assert!(stale(&lock).is_empty());
        assert_eq!(attempt(&lock, true), None);
        assert_eq!(lock.attempt("interpret", true, true), Some(1));
        assert_eq!(lock.attempt("interpret", false, true), None, "it is not selected");
        lock.begin("interpret", 4);
        assert_eq!((lock.failed("interpret"), lock.stages["interpret"].again), (3, 4));
        // What is accepted is asked for again all the same where that is wanted.
        lock.stages.insert("interpret".into(), ended(0, 3));
        assert_eq!((lock.accept("interpret"), lock.unaccepted("interpret")), (3, 0));
        assert!(stale(&lock).is_empty());
        assert_eq!(lock.attempt("interpret", true, true), Some(1));
        // Where all failed, it is never fresh; and what it gives may be used.
        lock.stages.insert("interpret".into(), ended(0, 3));
        let why = stale(&lock);
        assert_eq!(why, [Reason::own("all 3 replies to its LLM requests failed")]);
        assert!(lock.is_open("interpret", &why));
    }

    #[test]
    fn every_change_is_named() {
        let old = made_of(&[
            ("setting corpus.context", "128"),
            ("file a.txt", "1"),
            ("stage tokenize", "x"),
            ("version", "1"),
            ("version of the table causes", "1"),
        ]);
        let new = made_of(&[
            ("setting corpus.context", "64"),
            ("file b.txt", "1"),
            ("stage tokenize", "y"),
            ("version", "2"),
            ("version of the table scores", "1"),
        ]);
        let expected = [
            ("`b.txt` is new", false),
            ("`corpus.context` was `128`, is `64`", false),
            (OTHER_PROGRAM, false),
            ("it no longer depends on `a.txt`", false),
            ("the output of `tokenize` changed", true),
        ];
        let told = changes(&old, &new);
        let told: Vec<_> = told.iter().map(|r| (r.text.as_str(), r.follows)).collect();
        assert_eq!(told, expected);
        assert!(changes(&old, &old).is_empty());
    }
}
