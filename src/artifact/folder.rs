//! A folder appears under its name whole or not at all: filled beside its place and exchanged for
//! the one that was there. At every moment, whenever the program is killed, there is a whole folder
//! under the name: the old one or the new one.
//!
//! Where the system cannot exchange two folders at once there is a moment between two renames at
//! which there is none; the next run puts the old one back.

use super::hold::{Held, hold};
use super::publish::sync_folder;
use crate::error::{HeldBack, Hint, Result, because, hinted};
use crate::process;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What tells folders of ours from those of others.
#[derive(Clone, Copy)]
pub(crate) struct Ours {
    /// An error when a folder must not be replaced; one that is not there may be.
    pub check: fn(&Path) -> Result<()>,
    /// The same, where nothing is taken as known from before.
    pub check_afresh: fn(&Path) -> Result<()>,
    /// Removes a folder of ours that lies beside the one that is published, which is the second:
    /// what others keep in the first moves there. It can be done again if it is killed.
    pub remove: fn(&Path, &Path) -> Result<()>,
}

/// The places of a folder that is published.
pub(crate) struct Place {
    /// The folder itself: where a link leads, if it is one.
    folder: PathBuf,
    /// Filled there, and after the exchange the one from before.
    new: PathBuf,
    /// The one from before, where folders cannot be exchanged.
    old: PathBuf,
}

impl Place {
    /// # Errors
    /// When it is a link that leads nowhere.
    pub(crate) fn of(folder: &Path) -> Result<Place> {
        let is_link = folder.symlink_metadata().is_ok_and(|found| found.is_symlink());
        let folder = if is_link {
            fs::canonicalize(folder).hint(
                || format!("`{}` is a link to a folder that is not there", folder.display()),
                "make the folder that it leads to, or remove the link",
            )?
        } else {
            folder.to_path_buf()
        };
        let beside = |what: &str| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            folder.with_file_name(format!(".{name}.{what}"))
        };
        Ok(Place { new: beside("new"), old: beside("old"), folder })
    }

    /// # Errors
    /// When the folder, or one beside it, must not be replaced.
    pub(crate) fn check(&self, ours: Ours) -> Result<()> {
        [&self.folder, &self.new, &self.old].into_iter().try_for_each(|folder| (ours.check)(folder))
    }

    /// Whether a killed run has left something beside the folder.
    pub(crate) fn has_leavings(&self) -> bool {
        self.old.exists() || self.new.exists()
    }

    /// Keeps other runs from writing the same folder.
    ///
    /// # Errors
    /// When the folder above cannot be written.
    pub(crate) fn hold(&self) -> Result<Held> {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let lock = self.folder.with_file_name(format!(".{name}.lock"));
        let waits = || {
            let folder = self.folder.display();
            process::note(format!("waiting for another run that writes `{folder}`"));
        };
        let what = || format!("cannot write beside `{}`", self.folder.display());
        if let Some(above) = self.folder.parent() {
            fs::create_dir_all(above).hint(what, WRITABLE)?;
        }
        hold(&lock, waits).hint(what, WRITABLE)
    }

    /// Puts right what a killed run has left. Whoever calls it holds the folder.
    ///
    /// # Errors
    /// When what is beside the folder is not ours, or cannot be removed.
    pub(crate) fn recover(&self, ours: Ours) -> Result<()> {
        (ours.check)(&self.old)?;
        (ours.check)(&self.new)?;
        if self.old.exists() && !self.folder.exists() {
            let what = || format!("cannot write beside `{}`", self.folder.display());
            fs::rename(&self.old, &self.folder).hint(what, WRITABLE)?;
        }
        self.clear(ours)
    }

    /// Removes what is ours beside the folder.
    fn clear(&self, ours: Ours) -> Result<()> {
        (ours.remove)(&self.old, &self.folder)?;
        (ours.remove)(&self.new, &self.folder)
    }

    /// Puts the new folder under the name. That of before is beside it then.
    fn swap(&self, ours: Ours) -> Result<()> {
        // Writing takes a while, in which a user may have put something there.
        (ours.check)(&self.folder)?;
        if !self.folder.exists() {
            return Ok(fs::rename(&self.new, &self.folder)?);
        }
        // Or just now, or so that the file system does not tell; then it is as if nothing had been written.
        if exchange(&self.new, &self.folder)? {
            return (ours.check_afresh)(&self.new)
                .inspect_err(|_| drop(exchange(&self.new, &self.folder)));
        }
        (ours.check_afresh)(&self.folder)?;
        fs::rename(&self.folder, &self.old)?;
        fs::rename(&self.new, &self.folder)
            .inspect_err(|_| drop(fs::rename(&self.old, &self.folder)))
            .map_err(Into::into)
    }
}

const WRITABLE: &str = "check that the parent folder is writable and the disk has space; the \
                        previous contents are kept";

/// Fills a folder through `write`, beside its place, and exchanges it for the one that was there.
/// `write` is given an empty folder, and makes it one of ours before it puts anything else there.
///
/// # Errors
/// When the folder above cannot be written, the disk is full, or what is there must not be replaced;
/// it is kept then.
pub(crate) fn publish_folder<T>(
    folder: &Path,
    ours: Ours,
    write: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let place = Place::of(folder)?;
    let _held = place.hold()?;
    place.recover(ours)?;
    let publish = || -> Result<T> {
        fs::create_dir(&place.new)?;
        let written = write(&place.new)?;
        // Before the name: after a loss of power there would be a site of empty files.
        sync(&place.new)?;
        place.swap(ours)?;
        sync_folder(&place.folder)?;
        Ok(written)
    };
    let written = publish()
        .inspect_err(|_| drop((ours.remove)(&place.new, &place.folder)))
        .map_err(|error| match error.is::<HeldBack>() {
            true => error,
            false => {
                because(error, format!("cannot write the folder `{}`", folder.display()), WRITABLE)
            }
        })?;
    place.clear(ours)?;
    Ok(written)
}

/// Everything in a folder is on the disk when this returns: one call for the file system, as there
/// may be thousands of files.
#[cfg(target_os = "linux")]
fn sync(folder: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?).map_err(std::io::Error::from)?)
}

#[cfg(not(target_os = "linux"))]
fn sync(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync(&path)? } else { File::open(&path)?.sync_all()? }
    }
    Ok(())
}

/// Exchanges two folders at once; false where that cannot be done.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        // Of a file system, or a kernel, that does not know it.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(hinted(
            format!("cannot exchange `{}` and `{}`: {error}", a.display(), b.display()),
            WRITABLE,
        )),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> Result<bool> {
    Ok(false)
}
