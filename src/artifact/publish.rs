//! A file appears under its name whole or not at all: written beside it, synced, renamed.

use crate::error::{Hint, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The scratch name of a file: in the same folder, so that the rename cannot cross a disk.
pub fn scratch(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// Writes a file through `write` and renames it into place.
///
/// # Errors
/// When the folder cannot be written or the disk is full; nothing is left under either name then.
pub(crate) fn publish(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let done = Draft::begin(path).and_then(|(draft, mut file)| {
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
    pub(super) fn begin(path: &Path) -> Result<(Draft, BufWriter<File>)> {
        let scratch = scratch(path);
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
