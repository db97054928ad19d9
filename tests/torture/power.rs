//! A loss of power. A run is killed at one of its operations on files, and its files are made what a
//! disk may hold then: names are as they were last, as of a file system with a journal, but of each
//! file only what had been synced is left. Whatever has its final name is whole all the same, and the
//! next run ends with the bytes of one that nothing happened to.

use crate::bench::Bench;
use crate::kills::{COMMANDS, OPERATIONS, quiet, recovers, tracer, whole};
use crate::{Draw, Held, Test};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What writes to files without an operation on their names.
const WRITES: &str = "openat,creat,write,writev,pwrite64,pwritev,ftruncate,truncate,fallocate,\
                      copy_file_range,sendfile,fdatasync,syncfs,sync,mmap";

/// A file as the trace tells it.
#[derive(Clone, Copy, Default)]
struct File {
    length: u64,
    /// Its length at the last sync; nothing of one that was never synced is sure to be there.
    synced: u64,
    /// Whether anything has changed since.
    changed: bool,
}

/// The files below a folder, followed through a trace.
struct Disk {
    folder: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Folders in which names have changed since they were synced.
    names: BTreeMap<PathBuf, PathBuf>,
    /// Calls that have begun in a thread and not ended.
    begun: BTreeMap<String, String>,
    /// Files that got a final name before they were synced.
    early: Vec<PathBuf>,
}

impl Disk {
    /// The folder as it is, all of it on the disk.
    fn of(folder: &Path) -> Disk {
        let mut files = BTreeMap::new();
        crate::bench::walk(folder, &mut |path| {
            let length = path.metadata().unwrap().len();
            files.insert(path.to_path_buf(), File { length, synced: length, changed: false });
        });
        let (names, begun, early) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Disk { folder: folder.into(), files, names, begun, early }
    }

    /// Follows a line of `strace -f -y`: the thread, the call, what it gave.
    fn follow(&mut self, line: &str) {
        let Some((thread, rest)) = line.split_once(' ') else { return };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            self.begun.insert(thread.into(), begun.into());
            // It may have written by now.
            self.call(begun, None);
            return;
        }
        let resumed = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        let whole = match resumed {
            Some((_, end)) => self.begun.remove(thread).unwrap_or_default() + end,
            None => rest.into(),
        };
        let gave = whole.rsplit_once(" = ").and_then(|(_, gave)| {
            let number: String =
                gave.chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
            number.parse::<i64>().ok()
        });
        self.call(&whole, gave);
    }

    fn call(&mut self, call: &str, gave: Option<i64>) {
        let Some((name, arguments)) = call.split_once('(') else { return };
        if gave.is_some_and(|gave| gave < 0) {
            return;
        }
        let opened = descriptor(arguments);
        match name {
            "openat" | "creat" => {
                let Some(path) = gave.and_then(|_| returned(call)) else { return };
                let known = self.files.contains_key(&path);
                if !path.starts_with(&self.folder) || !path.is_absolute() {
                    return;
                }
                if arguments.contains("O_CREAT") && !known {
                    self.files.insert(path.clone(), File::default());
                    self.renamed(&path);
                }
                if arguments.contains("O_TRUNC") && known {
                    self.files.insert(path, File { changed: true, ..File::default() });
                }
            }
            "fsync" | "fdatasync" => {
                let (Some(path), Some(_)) = (opened, gave) else { return };
                self.names.retain(|_, folder| *folder != path);
                if let Some(file) = self.files.get_mut(&path) {
                    *file = File { synced: file.length, changed: false, ..*file };
                }
            }
            "syncfs" | "sync" if gave.is_some() => {
                self.names.clear();
                for file in self.files.values_mut() {
                    *file = File { synced: file.length, changed: false, ..*file };
                }
            }
            "mmap" => {
                let writes = arguments.contains("PROT_WRITE") && arguments.contains("MAP_SHARED");
                let mapped = arguments.split(", ").nth(4).and_then(descriptor);
                if let (true, Some(path)) = (writes, mapped) {
                    self.change(&path, |_| ());
                }
            }
            "ftruncate" | "truncate" => {
                let length = arguments.split(", ").nth(1).and_then(number);
                let path = opened.or_else(|| quoted(arguments).into_iter().next());
                if let (Some(path), Some(length)) = (path, length) {
                    self.change(&path, |file| {
                        file.length = length;
                        file.synced = file.synced.min(length);
                    });
                }
            }
            "write" | "writev" | "pwrite64" | "pwritev" | "fallocate" | "copy_file_range"
            | "sendfile" => {
                // The second file is the one that is written to.
                let path = if name == "copy_file_range" {
                    arguments.split(", ").nth(2).and_then(descriptor)
                } else {
                    opened
                };
                if let Some(path) = path {
                    self.change(&path, |file| file.length += gave.unwrap_or(0) as u64);
                }
            }
            _ if gave.is_some() => self.name(name, arguments),
            _ => {}
        }
    }

    fn change(&mut self, path: &Path, change: impl FnOnce(&mut File)) {
        if let Some(file) = self.files.get_mut(path) {
            change(file);
            file.changed = true;
        }
    }

    /// An operation on names.
    fn name(&mut self, name: &str, arguments: &str) {
        let paths = quoted(arguments);
        match (name, paths.as_slice()) {
            ("rename" | "renameat" | "renameat2", [from, to]) => {
                let below = |files: &mut BTreeMap<PathBuf, File>, folder: &Path| {
                    let all: Vec<PathBuf> =
                        files.keys().filter(|path| path.starts_with(folder)).cloned().collect();
                    let taken = all.into_iter().map(|path| {
                        let file = files.remove(&path).unwrap();
                        (path.strip_prefix(folder).unwrap().to_path_buf(), file)
                    });
                    taken.collect::<Vec<_>>()
                };
                let joined = |folder: &Path, rest: &Path| match rest.as_os_str().is_empty() {
                    true => folder.to_path_buf(),
                    false => folder.join(rest),
                };
                let moved = below(&mut self.files, from);
                let replaced = below(&mut self.files, to);
                for (rest, file) in moved {
                    if file.changed {
                        self.early.push(joined(to, &rest));
                    }
                    self.files.insert(joined(to, &rest), file);
                }
                if arguments.contains("RENAME_EXCHANGE") {
                    let back = replaced.into_iter().map(|(rest, file)| (joined(from, &rest), file));
                    self.files.extend(back);
                }
                self.renamed(to);
            }
            ("unlink" | "unlinkat", [path]) => {
                self.files.remove(path);
            }
            _ => {}
        }
    }

    fn renamed(&mut self, path: &Path) {
        if let Some(folder) = path.parent() {
            self.names.insert(path.into(), folder.into());
        }
    }

    /// What is not on the disk although the command has ended.
    fn open(&self) -> Vec<String> {
        let changed = self.files.iter().filter(|(_, file)| file.changed).map(|(path, _)| path);
        let names = self.names.keys().filter(|path| path.exists());
        let told = |what: &'static str| {
            move |path: &PathBuf| {
                (!needs_no_sync(path)).then(|| format!("{} {what}", path.display()))
            }
        };
        let mut open: Vec<String> = changed.filter_map(told("is not synced")).collect();
        open.extend(names.filter_map(told("has a name that is not synced")));
        open.extend(self.early.iter().filter_map(told("was renamed before it was synced")));
        open
    }

    /// Makes the files what is left of them.
    fn lose_power(&self, draw: &mut Draw) {
        for (path, file) in self.files.iter().filter(|(_, file)| file.changed) {
            let Ok(bytes) = std::fs::read(path) else { continue };
            let left = match (file.synced as usize, draw.below(3)) {
                (0, 0) => Vec::new(),
                (0, 1) => bytes[..bytes.len() / 2].to_vec(),
                (0, _) => vec![0; bytes.len()],
                (synced, _) => bytes[..synced.min(bytes.len())].to_vec(),
            };
            std::fs::write(path, left).unwrap();
        }
    }
}

/// The path of `5</path>`.
fn descriptor(argument: &str) -> Option<PathBuf> {
    let digits = argument.trim_start_matches(|c: char| c.is_ascii_digit());
    (digits.len() < argument.len()).then_some(())?;
    let (path, _) = digits.strip_prefix('<')?.split_once('>')?;
    Some(path.into())
}

/// The path of what a call gave: `= 5</path>`.
fn returned(call: &str) -> Option<PathBuf> {
    descriptor(call.rsplit_once(" = ")?.1)
}

fn number(argument: &str) -> Option<u64> {
    argument.trim_end_matches([')', ' ']).parse().ok()
}

/// The paths in quotation marks.
fn quoted(arguments: &str) -> Vec<PathBuf> {
    arguments.split('"').skip(1).step_by(2).map(PathBuf::from).collect()
}

/// The command under `strace`, which writes down all that is done to files; ended at the n-th
/// operation on names, or not at all.
fn watched(bench: &Bench, arguments: &[&str], log: &Path, n: usize) -> Command {
    let own = bench.command(arguments);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-s", "0", "-e", "signal=none", "-o"]).arg(log);
    command.arg("-e").arg(format!("trace={OPERATIONS},{WRITES}"));
    if n > 0 {
        command.arg("-e").arg(format!("inject={OPERATIONS}:signal=KILL:when={n}"));
    }
    command.arg(own.get_program()).args(own.get_args());
    command
}

/// Files that a run may leave unsynced: they say nothing that is needed.
fn needs_no_sync(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        name.ends_with(".running") || (name.starts_with('.') && name.ends_with(".lock"))
    })
}

/// One command, and then no power.
struct Power {
    /// Operations of each command.
    counts: Vec<usize>,
    /// What whole commands leave unsynced.
    open: Vec<String>,
}

pub(crate) fn lost() -> Result<Box<dyn Test>, String> {
    tracer()?;
    let mut open = Vec::new();
    let count = |arguments: &&[&str]| {
        let (bench, log) = (Bench::finished(), tempfile::NamedTempFile::new().unwrap());
        let mut disk = Disk::of(bench.path());
        quiet(&mut watched(&bench, arguments, log.path(), 0)).wait().unwrap();
        let text = std::fs::read_to_string(log.path()).unwrap();
        text.lines().for_each(|line| disk.follow(line));
        open.extend(disk.open().into_iter().map(|what| format!("{arguments:?}: {what}")));
        let operations: Vec<&str> = OPERATIONS.split(',').collect();
        let is_one = |line: &&str| {
            let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
            operations.iter().any(|name| call.starts_with(&format!("{name}(")))
        };
        text.lines().filter(is_one).count()
    };
    let counts = COMMANDS.iter().map(count).collect();
    Ok(Box::new(Power { counts, open }))
}

impl Test for Power {
    fn again(&mut self, draw: &mut Draw) -> Held {
        if !self.open.is_empty() {
            return Err(std::mem::take(&mut self.open).join("; "));
        }
        let which = draw.below(COMMANDS.len());
        let n = 1 + draw.below(self.counts[which]);
        let (bench, log) = (Bench::finished(), tempfile::NamedTempFile::new().unwrap());
        let mut disk = Disk::of(bench.path());
        quiet(&mut watched(&bench, COMMANDS[which], log.path(), n)).wait().unwrap();
        let text = std::fs::read_to_string(log.path()).unwrap();
        text.lines().for_each(|line| disk.follow(line));
        disk.lose_power(draw);
        let about =
            |why: String| format!("{:?} without power after operation {n}: {why}", COMMANDS[which]);
        // What `clean` was about to remove need not be whole.
        if COMMANDS[which][0] != "clean" {
            whole(&bench).map_err(about)?;
        }
        recovers(&bench).map_err(about)
    }
}
