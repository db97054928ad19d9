//! The cache of Hugging Face's own tools, shared with them: `blobs/ETAG` holds a file once,
//! `snapshots/COMMIT/FILE` links to it, `refs/REVISION` says what a revision stood for when
//! somebody last asked.
//!
//! Knows nothing of the network. Names of files come from strangers: here, and only here, they
//! become paths.

use crate::error::{Hint, Result, hinted};
use crate::ids::HubName;
use hf_hub::{Cache, Repo, RepoType};
use ring::digest;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

pub(super) const ROOM: &str =
    "check that the folder is writable and has space, or set `HF_HOME` to another one";

/// The repository as Hugging Face's crate knows it.
pub(super) fn repo(name: &HubName, revision: &str) -> Repo {
    let kind = if name.dataset { RepoType::Dataset } else { RepoType::Model };
    Repo::with_revision(name.repository.clone(), kind, revision.into())
}

/// A full commit: 40 digits of a lower-case hexadecimal number.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A file's name, as the hub gives it, as a path that stays below the folder it is put in; none if
/// it would not.
pub(super) fn below(folder: &Path, name: &str) -> Option<PathBuf> {
    let odd = |c: char| c.is_control() || c == '\\' || c == ':';
    let normal = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    // `a//b`, `a/./b` and `a/` are normal to `Path`, but no name that a repository gives.
    let whole = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    (normal && whole && !name.contains(odd)).then(|| folder.join(name))
}

/// The folder of a repository, as far as this room is concerned.
pub(super) struct Disk<'a> {
    cache: &'a Cache,
    name: &'a HubName,
    root: PathBuf,
}

impl<'a> Disk<'a> {
    pub(super) fn new(cache: &'a Cache, name: &'a HubName) -> Disk<'a> {
        let root = cache.path().join(repo(name, &name.revision).folder_name());
        Disk { cache, name, root }
    }

    /// Where the files of a commit are.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.repo(repo(self.name, commit)).pointer_path(commit)
    }

    /// What the revision stood for when somebody last asked.
    pub(super) fn reference(&self) -> Option<String> {
        let text =
            std::fs::read_to_string(self.root.join("refs").join(&self.name.revision)).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    pub(super) fn set_reference(&self, commit: &str) -> Result<()> {
        self.write(&self.root.join("refs").join(&self.name.revision), commit.as_bytes())
    }

    /// A commit's list of files is kept beside what the other tools keep, so that nobody has to be
    /// asked for it twice.
    fn list(&self, commit: &str) -> PathBuf {
        self.root.join("circuit-atlas").join(format!("{commit}.json"))
    }

    pub(super) fn listing(&self, commit: &str) -> Option<Vec<String>> {
        serde_json::from_slice(&std::fs::read(self.list(commit)).ok()?).ok()
    }

    pub(super) fn set_listing(&self, commit: &str, files: &[String]) -> Result<()> {
        self.write(&self.list(commit), &serde_json::to_vec(files)?)
    }

    /// The files of a commit that are there, by name.
    pub(super) fn present(&self, commit: &str) -> Vec<String> {
        let folder = self.snapshot(commit);
        let mut names = Vec::new();
        present(&folder, &folder, &mut names);
        names.sort();
        names
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let what = || format!("cannot write `{}`", path.display());
        std::fs::create_dir_all(path.parent().unwrap_or(path)).hint(what, ROOM)?;
        // Named after the process: another one may write the same at the same time.
        let scratch = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = File::create(&scratch).and_then(|mut file| file.write_all(bytes));
        written.and_then(|()| std::fs::rename(&scratch, path)).hint(what, ROOM)
    }

    /// Holds a content, so that of two processes one downloads and the other waits; gives its path.
    pub(super) fn hold(&self, etag: &str) -> Result<(File, PathBuf)> {
        let blob = self.cache.repo(repo(self.name, "")).blob_path(etag);
        let lock = blob.with_extension("lock");
        let what = || format!("cannot lock `{}`", lock.display());
        std::fs::create_dir_all(blob.parent().unwrap_or(&blob)).hint(what, ROOM)?;
        let file = File::options().create(true).append(true).open(&lock).hint(what, ROOM)?;
        file.lock().hint(
            what,
            "the file system must support locks; set `HF_HOME` to a folder on another one",
        )?;
        Ok((file, blob))
    }

    /// Gives a content its name in a snapshot.
    pub(super) fn link(&self, blob: &Path, commit: &str, path: &Path) -> Result<()> {
        let what = || format!("cannot link `{}`", path.display());
        std::fs::create_dir_all(path.parent().unwrap_or(path)).hint(what, ROOM)?;
        // Up from the file's own folder to the repository's: snapshots, commit, and folders of the
        // file itself.
        let depth =
            path.strip_prefix(self.snapshot(commit)).map_or(0, |below| below.components().count());
        let up: PathBuf = std::iter::repeat_n("..", depth + 1).collect();
        let target = up.join("blobs").join(blob.file_name().unwrap_or_default());
        match link(&target, blob, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.exists() => {
                Ok(())
            }
            linked => linked.hint(what, ROOM),
        }
    }
}

#[cfg(unix)]
fn link(target: &Path, _: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn link(_: &Path, blob: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, path)
}

fn present(root: &Path, folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            present(root, &path, names);
        } else if let (true, Ok(below)) = (path.exists(), path.strip_prefix(root)) {
            names.push(
                below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/"),
            );
        }
    }
}

/// An etag as the name of a file; none if it is no such name.
pub(super) fn etag_name(header: &str) -> Option<String> {
    let plain = header.trim().trim_start_matches("W/").trim_matches('"');
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (!plain.is_empty() && plain.len() <= 128 && plain.chars().all(good)).then(|| plain.to_string())
}

/// Whether a file holds what its etag says. The hub's etags are SHA-256 of large files and git's
/// SHA-1 of small ones; others say nothing.
pub(super) fn holds(path: &Path, etag: &str) -> Result<bool> {
    let hexadecimal = etag.bytes().all(|b| b.is_ascii_hexdigit());
    let (algorithm, header) = match etag.len() {
        64 if hexadecimal => (&digest::SHA256, String::new()),
        40 if hexadecimal => {
            let length =
                path.metadata().hint(|| format!("cannot read `{}`", path.display()), ROOM)?.len();
            (&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("blob {length}\0"))
        }
        _ => return Ok(true),
    };
    let hash = hash(path, algorithm, &header)
        .hint(|| format!("cannot read `{}`", path.display()), ROOM)?;
    Ok(hash.eq_ignore_ascii_case(etag))
}

fn hash(
    path: &Path,
    algorithm: &'static digest::Algorithm,
    header: &str,
) -> std::io::Result<String> {
    let mut context = digest::Context::new(algorithm);
    context.update(header.as_bytes());
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => context.update(&buffer[..n]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Puts a whole content under its name.
pub(super) fn settle(part: &Path, blob: &Path) -> Result<()> {
    let settled = File::open(part)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(part, blob));
    settled.hint(|| format!("cannot write `{}`", blob.display()), ROOM)
}

/// Removes what turned out to be no beginning.
pub(super) fn discard(part: &Path) -> Result<()> {
    std::fs::remove_file(part).hint(|| format!("cannot remove `{}`", part.display()), ROOM)
}

/// # Errors
/// Always: a name that leads out of its folder.
pub(super) fn leads_out<T>(name: &HubName, file: &str) -> Result<T> {
    Err(hinted(
        format!(
            "`{name}` lists a file `{}`, which cannot be a file below its folder",
            file.escape_debug()
        ),
        "the repository is broken or means harm; name another one or another revision",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let folder = Path::new("/cache");
        assert_eq!(below(folder, "a/b-c+1.pt"), Some(folder.join("a/b-c+1.pt")));
        let bad = [
            "",
            "/etc/passwd",
            "..",
            "a/../../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "C:/a",
            "a\nb",
            "a\u{1b}[2J",
        ];
        for name in bad {
            assert_eq!(below(folder, name), None, "{name:?}");
        }
    }

    #[test]
    fn only_plain_etags_are_names() {
        assert_eq!(etag_name("W/\"0a-f_1\"").as_deref(), Some("0a-f_1"));
        for header in ["", "\"\"", "../x", "a/b", "a.lock", "\"a b\""] {
            assert_eq!(etag_name(header), None, "{header:?}");
        }
    }

    #[test]
    fn contents_are_held_to_their_hashes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello\n").unwrap();
        let (git, sha256) = (
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        );
        for etag in [git, sha256, "v1"] {
            assert!(holds(file.path(), etag).unwrap(), "{etag}");
        }
        std::fs::write(file.path(), "hellO\n").unwrap();
        assert!(!holds(file.path(), git).unwrap() && !holds(file.path(), sha256).unwrap());
    }
}
