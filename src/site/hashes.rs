//! Hashes of a site's files. A site has tens of thousands, and is looked at several times while the next
//! one takes its place: a file that has not changed since is not read again.

use crate::error::{Context, Result};
use std::collections::HashMap;
use std::fs::Metadata;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// What a file system tells of a file: device and number, length, time of its last change.
type Seen = (u64, u64, u64, SystemTime);

/// Of the files that this process read.
static KNOWN: LazyLock<Mutex<HashMap<Seen, [u8; 16]>>> = LazyLock::new(Mutex::default);

/// A file that was changed later than this before it was read may change again within the same tick of the
/// file system's clock, so its hash is not kept.
const SETTLED: Duration = Duration::from_secs(2);

pub(super) fn of(bytes: &[u8]) -> String {
    words(first_half(bytes))
}

/// Of a file, which is read unless it is known and looks as it did.
///
/// # Errors
/// When it cannot be read.
pub(super) fn of_file(path: &Path) -> Result<String> {
    let what = || format!("cannot read `{}`", path.display());
    let seen = seen(&path.symlink_metadata().with_context(what)?);
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match seen.and_then(|seen| known.get(&seen).copied()) {
        Some(hash) => Ok(words(hash)),
        None => {
            drop(known);
            of_file_afresh(path)
        }
    }
}

/// The same of a file that is read whatever is known.
///
/// # Errors
/// As of [`of_file`].
pub(super) fn of_file_afresh(path: &Path) -> Result<String> {
    let what = || format!("cannot read `{}`", path.display());
    // What it looks like before it is read: should it change meanwhile, it no longer looks so.
    let seen = seen(&path.symlink_metadata().with_context(what)?);
    let now = SystemTime::now();
    let hash = first_half(&std::fs::read(path).with_context(what)?);
    if let Some(seen) = seen
        && now.duration_since(seen.3).is_ok_and(|age| age > SETTLED)
    {
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(seen, hash);
    }
    Ok(words(hash))
}

fn first_half(bytes: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    half
}

fn words(hash: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(hash))
}

#[cfg(unix)]
fn seen(found: &Metadata) -> Option<Seen> {
    use std::os::unix::fs::MetadataExt;
    Some((found.dev(), found.ino(), found.len(), found.modified().ok()?))
}

/// Files are not told apart: each is read whenever it is asked for.
#[cfg(not(unix))]
fn seen(_: &Metadata) -> Option<Seen> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, write};

    #[test]
    fn a_hash_is_in_words_of_two_digits_a_byte() {
        assert_eq!(of(b"a page"), blake3::hash(b"a page").to_hex()[..32]);
    }

    /// What looks as it did is not read; what is asked for afresh is.
    #[cfg(unix)]
    #[test]
    fn a_file_is_read_again_when_it_looks_different_or_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        let put = |text: &str, age: u64| {
            write(&path, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + age);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        put("one", 1);
        assert_eq!(of_file(&path).unwrap(), of(b"one"));
        // As a file system whose clock stood still would tell of it.
        put("two", 1);
        assert_eq!(of_file(&path).unwrap(), of(b"one"), "it was read again");
        assert_eq!(of_file_afresh(&path).unwrap(), of(b"two"));
        assert_eq!(of_file(&path).unwrap(), of(b"two"));
        put("six", 2);
        assert_eq!(of_file(&path).unwrap(), of(b"six"));
        // Changed just now: each time it is read.
        for text in ["a", "b"] {
            write(&path, text).unwrap();
            assert_eq!(of_file(&path).unwrap(), of(text.as_bytes()));
        }
    }
}
