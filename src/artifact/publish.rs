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
    let scratch = scratch(path);
    let done = write_scratch(&scratch, write).and_then(|()| {
        fs::rename(&scratch, path)?;
        sync_folder(path)
    });
    done.inspect_err(|_| drop(fs::remove_file(&scratch))).hint(
        || format!("cannot write `{}`", path.display()),
        "check that the folder is writable and the disk has space, then run again: finished parts \
         are kept",
    )
}

fn write_scratch(
    scratch: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    if let Some(folder) = scratch.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = BufWriter::new(File::create(scratch)?);
    write(&mut file)?;
    file.flush()?;
    Ok(file.get_ref().sync_all()?)
}

pub(super) fn sync_folder(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A folder beside another one.
fn beside(folder: &Path, what: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.{what}"))
}

fn remove_folder(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) }
}

/// Fills a folder through `write`, beside its place, and swaps it in for the one that was there, if
/// `check` then lets that one be removed.
///
/// # Errors
/// When the folder above cannot be written, the disk is full, or `check` refuses; what was there
/// before is kept then.
pub(crate) fn publish_folder<T>(
    folder: &Path,
    check: impl FnOnce(&Path) -> Result<()>,
    write: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let (new, old) = (beside(folder, "new"), beside(folder, "old"));
    let swap = || -> Result<T> {
        // Killed between its two renames, an earlier run has left the whole folder under the name
        // of the old one.
        if old.exists() && !folder.exists() {
            fs::rename(&old, folder)?;
        }
        remove_folder(&old)?;
        remove_folder(&new)?;
        fs::create_dir_all(&new)?;
        let written = write(&new)?;
        // Writing takes a while, in which a user may have put something there.
        check(folder)?;
        if folder.exists() {
            fs::rename(folder, &old)?;
        }
        fs::rename(&new, folder)?;
        remove_folder(&old)?;
        Ok(written)
    };
    swap().inspect_err(|_| drop(remove_folder(&new))).hint(
        || format!("cannot write the folder `{}`", folder.display()),
        "check that the parent folder is writable and the disk has space; the previous contents \
         are kept",
    )
}
