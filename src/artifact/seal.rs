//! A hash of a Parquet file within the file: of all its bytes, with zeros where its digits are.
//! Whoever reads the file can tell that it is as it was written, without anything beside it.

use crate::error::Result;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Its key among the metadata of the file.
pub(super) const KEY: &str = "circuit-atlas.hash";
/// Its digits until they are known.
pub(super) const OPEN: &str = "00000000000000000000000000000000";
/// How a footer writes the key, and the type and length of the value that follows.
const MARK: &[u8] = b"circuit-atlas.hash\x18\x20";
/// The end of a file in which its metadata are: behind them there is only the schema.
const TAIL: usize = 1 << 16;
/// Bytes that are hashed at once.
const CHUNK: usize = 1 << 18;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// As it was written.
    Whole,
    /// Not as it was written.
    Changed,
    /// Of this program, but without a hash.
    Unsealed,
    /// Not of this program.
    Foreign,
}

/// Writes a file and hashes it on the way.
pub(super) struct Sealed<F> {
    file: F,
    hasher: blake3::Hasher,
    written: u64,
    /// The last bytes written, at least `TAIL` of them.
    tail: Vec<u8>,
}

impl<F: Write + Seek> Sealed<F> {
    pub(super) fn new(file: F) -> Sealed<F> {
        Sealed { file, hasher: blake3::Hasher::new(), written: 0, tail: Vec::new() }
    }

    /// Writes the hash into its place; gives the file back.
    ///
    /// # Errors
    /// When the file has no place for it, or cannot be written.
    pub(super) fn end(mut self) -> Result<F> {
        let Some(place) = place(&self.tail) else {
            anyhow::bail!("the footer has no place for the hash of the file");
        };
        let begin = self.written - self.tail.len() as u64;
        self.file.seek(SeekFrom::Start(begin + place as u64))?;
        self.file.write_all(digits(&self.hasher).as_bytes())?;
        Ok(self.file)
    }
}

impl<F: Write> Write for Sealed<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.written += n as u64;
        self.tail.extend_from_slice(&bytes[n.saturating_sub(TAIL)..n]);
        if self.tail.len() > 4 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Copies a file with another value of as many digits under a key of its metadata, and its place for
/// the hash open. Whether it has both.
pub(super) fn copy_with(
    file: &mut File,
    key: &str,
    value: &str,
    into: &mut impl Write,
) -> io::Result<bool> {
    let (begin, mut tail) = tail(file)?;
    let mark = [key.as_bytes(), b"\x18\x20"].concat();
    let at = tail.windows(mark.len()).rposition(|window| window == mark).map(|at| at + mark.len());
    let (Some(hash), Some(at)) = (place(&tail), at) else { return Ok(false) };
    for (at, text) in [(hash, OPEN), (at, value)] {
        let Some(there) = tail.get_mut(at..at + text.len()).filter(|_| text.len() == OPEN.len())
        else {
            return Ok(false);
        };
        there.copy_from_slice(text.as_bytes());
    }
    file.rewind()?;
    io::copy(&mut Read::by_ref(file).take(begin), into)?;
    into.write_all(&tail)?;
    Ok(true)
}

/// Where the digits are in the end of a file.
fn place(tail: &[u8]) -> Option<usize> {
    let at = tail.windows(MARK.len()).rposition(|window| window == MARK)? + MARK.len();
    (at + OPEN.len() <= tail.len()).then_some(at)
}

fn digits(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..OPEN.len()].to_string()
}

/// The end of a file, and where it begins.
fn tail(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let begin = file.metadata()?.len().saturating_sub(TAIL as u64);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.read_to_end(&mut tail)?;
    Ok((begin, tail))
}

/// Whether the end of a file has one of these keys: a damaged byte changes one of them at most.
pub(super) fn has_any(file: &mut File, keys: &[&str]) -> bool {
    tail(file).is_ok_and(|(_, tail)| {
        let has = |key: &&str| tail.windows(key.len()).any(|window| window == key.as_bytes());
        keys.iter().any(has)
    })
}

/// Reads a file through and tells what it is.
pub(super) fn found(file: &mut File, keys: &[&str]) -> io::Result<Found> {
    let (begin, tail) = tail(file)?;
    let Some(place) = place(&tail) else {
        return Ok(if has_any(file, keys) { Found::Unsealed } else { Found::Foreign });
    };
    let said = &tail[place..place + OPEN.len()];
    let mut hasher = blake3::Hasher::new();
    file.rewind()?;
    let (mut left, mut chunk) = (begin, vec![0; CHUNK]);
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        file.read_exact(&mut chunk[..n])?;
        hasher.update(&chunk[..n]);
        left -= n as u64;
    }
    let parts = [&tail[..place], OPEN.as_bytes(), &tail[place + OPEN.len()..]];
    for part in parts {
        hasher.update(part);
    }
    let whole = said == digits(&hasher).as_bytes();
    Ok(if whole { Found::Whole } else { Found::Changed })
}
