//! A file appears under its name whole or not at all: written beside it, synced, renamed.

use crate::error::{Hint, Result};
use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The end of scratch names. They are removed by name, as a half-written file cannot tell whose it
/// is: no other program makes such names.
const SCRATCH: &str = ".circuit-atlas.tmp";

/// The scratch name of a file: in the same folder, so that the rename cannot cross a disk.
pub fn scratch(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{SCRATCH}"))
}

/// A scratch name that no other process has, on whichever machine it runs.
pub(super) fn scratch_apart(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let own = RandomState::new().build_hasher().finish();
    path.with_file_name(format!(".{name}.{own:016x}{SCRATCH}"))
}

/// The file that a scratch name is of.
fn unscratched(name: &str) -> Option<&str> {
    let name = name.strip_prefix('.')?.strip_suffix(SCRATCH)?;
    let is_own = |own: &str| own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(name.rsplit_once('.').filter(|(_, own)| is_own(own)).map_or(name, |(name, _)| name))
}

/// Removes what killed processes left in a folder of files with such names that they were writing.
/// Nobody must be writing any.
///
/// # Errors
/// When a file cannot be removed.
pub(crate) fn remove_unfinished(folder: &Path, named: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(unscratched).is_some_and(&named) {
            fs::remove_file(entry.path()).hint(
                || format!("cannot remove `{}`", entry.path().display()),
                "check that the folder can be written",
            )?;
        }
    }
    Ok(())
}

/// Writes a file through `write` and renames it into place.
///
/// # Errors
/// When the folder cannot be written or the disk is full; nothing is left under either name then.
pub(crate) fn publish(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    publish_as(scratch(path), path, write)
}

/// The same of a file that other processes may be writing at the same time, with the same content.
/// What one that is killed leaves has a name of its own, so that it stays until it is removed.
///
/// # Errors
/// As of [`publish`].
pub(crate) fn publish_beside_others(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    publish_as(scratch_apart(path), path, write)
}

fn publish_as(
    scratch: PathBuf,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let done = Draft::begin(path, scratch).and_then(|(draft, mut file)| {
        write(&mut file)?;
        draft.end(&mut file)
    });
    unwritten(path, done)
}

/// What is said of a file that could not be written.
pub(super) fn unwritten<T>(path: &Path, done: Result<T>) -> Result<T> {
    done.hint(
        || format!("cannot write `{}`", path.display()),
        "check that the folder is writable and the disk has space, then run again: finished parts \
         are kept",
    )
}

/// A file that is being written under its scratch name; it is removed unless it is ended.
pub(super) struct Draft {
    path: PathBuf,
    scratch: PathBuf,
    ended: bool,
}

impl Draft {
    /// The file to write to, which is to be given back to [`Draft::end`].
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn begin(path: &Path, scratch: PathBuf) -> Result<(Draft, BufWriter<File>)> {
        if let Some(folder) = scratch.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = BufWriter::new(File::create(&scratch)?);
        Ok((Draft { path: path.into(), scratch, ended: false }, file))
    }

    /// Renames it into place.
    ///
    /// # Errors
    /// When the disk is full.
    pub(super) fn end(mut self, file: &mut BufWriter<File>) -> Result<()> {
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&self.scratch, &self.path)?;
        self.ended = true;
        sync_folder(&self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.ended {
            drop(fs::remove_file(&self.scratch));
        }
    }
}

/// The name of a file or folder is on the disk when this returns.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    match path.parent() {
        // A name alone is in the working folder.
        Some(folder) if folder.as_os_str().is_empty() => Ok(File::open(".")?.sync_all()?),
        Some(folder) => Ok(File::open(folder)?.sync_all()?),
        None => Ok(()),
    }
}
