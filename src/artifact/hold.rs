//! A lock on a file or folder that several runs may write to: a file beside it, which goes when it
//! is let go of. The system lets go of it however the process ends.

use crate::error::Result;
use crate::process;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a lock that another process has is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// How often, and how long, is waited for one who only looks whether a lock is taken.
const GLANCES: usize = 10;
const GLANCE: Duration = Duration::from_millis(20);

/// Tries to take a lock a few times: who only looks whether somebody has it holds it for a moment.
pub(crate) fn glanced(
    mut take: impl FnMut() -> Result<(), TryLockError>,
) -> Result<(), TryLockError> {
    let mut taken = take();
    for _ in 0..GLANCES {
        if !matches!(taken, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(GLANCE);
        taken = take();
    }
    taken
}

/// A lock that is held.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    _file: File,
}

/// Takes the lock of the name `path`; `waits` is told first if another process has it.
///
/// # Errors
/// When the lock cannot be taken, or the program is to stop while it waits.
pub(crate) fn hold(path: &Path, waits: impl Fn()) -> Result<Held> {
    let mut told = false;
    loop {
        let file = File::options().create(true).append(true).open(path)?;
        // Waiting for the system to give it would not end at a signal.
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(error.into()),
                TryLockError::WouldBlock if told => {}
                TryLockError::WouldBlock => waits(),
            }
            told = true;
            process::check()?;
            std::thread::sleep(AGAIN);
        }
        // Whoever had it may have removed the file meanwhile: then this is a lock on nothing.
        if is_there(&file, path)? {
            return Ok(Held { path: path.into(), _file: file });
        }
    }
}

#[cfg(unix)]
fn is_there(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = file.metadata()?;
    Ok(path.metadata().is_ok_and(|there| there.ino() == own.ino() && there.dev() == own.dev()))
}

#[cfg(not(unix))]
fn is_there(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

impl Drop for Held {
    fn drop(&mut self) {
        // Elsewhere nobody can tell that the file was removed, so it stays.
        if cfg!(unix) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_at_a_time_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..20 {
                        let _held = hold(&path, || ()).unwrap();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
        assert!(!path.exists());
    }
}
