//! An append-only file: what has been appended stays, whenever the program is killed.
//!
//! A line is `{"check":"…","entry":…}`, where `check` is of the entry's text. Only a line that was
//! being written may be half there, and only at the end. Opening changes nothing; the first line
//! that is appended takes the place of a half one.

use super::publish::sync_folder;
use super::store::Store;
use crate::error::{Context, Hint, Result, because};
use anyhow::ensure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const BEGIN: &str = "{\"check\":\"";
const MIDDLE: &str = "\",\"entry\":";
/// Letters of a check.
const CHECK: usize = 16;

/// A journal of the artifact folder. Whoever appends must be the only one.
///
/// [`Journal::read`] reads one to which another process is appending.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// Bytes of whole lines.
    whole: u64,
    /// Open as soon as something has been appended.
    file: Option<File>,
}

impl Journal {
    /// Hands every entry to `each`, the oldest first. A journal that is not there is empty.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is damaged: with its number.
    pub(crate) fn open<T: DeserializeOwned>(
        store: &Store,
        name: &str,
        mut each: impl FnMut(T),
    ) -> Result<Journal> {
        let path = store.root().join(name);
        let mut journal = Journal { path: path.clone(), whole: 0, file: None };
        journal.lines(|number, entry| {
            each(entry.map_err(|why| damaged(&path, number, why))?);
            Ok(true)
        })?;
        Ok(journal)
    }

    /// Hands every entry to `each`, the oldest first, of a journal to which another process may be
    /// appending: a line that is not as it was written ends it, as a file system of a network may
    /// show the end of a file before its content.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read<T: DeserializeOwned>(
        store: &Store,
        name: &str,
        mut each: impl FnMut(T),
    ) -> Result<()> {
        let mut journal = Journal { path: store.root().join(name), whole: 0, file: None };
        journal.lines(|_, entry| Ok(entry.map(&mut each).is_ok()))
    }

    /// Hands every whole line's number and entry to `each`, until it does not want any more.
    fn lines<T: DeserializeOwned>(
        &mut self,
        mut each: impl FnMut(u64, Result<T>) -> Result<bool>,
    ) -> Result<()> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.hint(|| self.unreadable(), "check that the file is readable")?,
        };
        let (mut reader, mut line) = (BufReader::new(file), Vec::new());
        for number in 1_u64.. {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            let bytes =
                read.hint(|| self.unreadable(), "check the disk, or restore the file from a copy")?;
            // One that was being written when the program was killed has no end.
            let Some(whole) = line.strip_suffix(b"\n") else { break };
            if !each(number, entry(whole))? {
                break;
            }
            self.whole += bytes as u64;
        }
        Ok(())
    }

    /// Appends an entry; it is on the disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written, as on a full disk: a half line may be left then, which is
    /// no entry.
    pub(crate) fn append(&mut self, entry: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(entry)?;
        let line = format!("{BEGIN}{}{MIDDLE}{text}}}\n", check(text.as_bytes()));
        let done = self.write(line.as_bytes());
        // Whatever a failed write has left is cut off by the next.
        done.inspect_err(|_| self.file = None).hint(
            || format!("cannot write `{}`", self.path.display()),
            "check that the folder is writable and the disk has space, then run again: the file's \
             contents are kept",
        )
    }

    fn write(&mut self, line: &[u8]) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(begin(&self.path, self.whole)?),
        };
        file.write_all(line)?;
        file.sync_data()?;
        self.whole += line.len() as u64;
        Ok(())
    }

    fn unreadable(&self) -> String {
        format!("cannot read `{}`", self.path.display())
    }
}

fn damaged(path: &Path, number: u64, why: anyhow::Error) -> anyhow::Error {
    let what = format!("line {number} of `{}` is damaged", path.display());
    because(
        why,
        what,
        format!(
            "remove that line (`sed -i {number}d '{}'`): only that entry is lost, and is asked for \
             again",
            path.display()
        ),
    )
}

/// Opens a journal for writing, at the end of its whole lines.
fn begin(path: &PathBuf, whole: u64) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    sync_folder(path)?;
    Ok(file)
}

fn check(entry: &[u8]) -> String {
    blake3::hash(entry).to_hex()[..CHECK].to_string()
}

fn entry<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    let parts = || {
        let (said, rest) = line.strip_prefix(BEGIN.as_bytes())?.split_at_checked(CHECK)?;
        Some((said, rest.strip_prefix(MIDDLE.as_bytes())?.strip_suffix(b"}")?))
    };
    // The hint is given with the number of the line.
    let (said, entry) = parts().context("it is not a line of a journal")?;
    ensure!(said == check(entry).as_bytes(), "its entry does not match its hash");
    serde_json::from_slice(entry)
        .context("its entry was written by another version of this program")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;
    use tempfile::TempDir;

    fn read(folder: &TempDir) -> Result<(Journal, Vec<u32>)> {
        let mut entries = Vec::new();
        let journal = Journal::open(&Store::new(folder.path()), "journal.jsonl", |entry| {
            entries.push(entry)
        })?;
        Ok((journal, entries))
    }

    fn three() -> TempDir {
        let folder = TempDir::new().unwrap();
        let (mut journal, _) = read(&folder).unwrap();
        [1, 2, 3].iter().for_each(|n| journal.append(n).unwrap());
        folder
    }

    #[test]
    fn what_was_appended_is_read_in_order() {
        let folder = three();
        read(&folder).unwrap().0.append(&4).unwrap();
        assert_eq!(read(&folder).unwrap().1, [1, 2, 3, 4]);
    }

    #[test]
    fn a_half_line_is_none_and_is_replaced_only_when_something_is_appended() {
        let folder = three();
        let path = folder.path().join("journal.jsonl");
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..whole.len() / 3 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut journal, entries) = read(&folder).unwrap();
            assert_eq!(entries, [1, 2]);
            assert_eq!(std::fs::read(&path).unwrap().len(), whole.len() - cut);
            journal.append(&3).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn of_one_that_is_being_written_what_is_not_whole_is_not_there_yet() {
        let folder = three();
        let path = folder.path().join("journal.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let read = || {
            let mut entries: Vec<u32> = Vec::new();
            let store = Store::new(folder.path());
            Journal::read(&store, "journal.jsonl", |entry| entries.push(entry)).unwrap();
            entries
        };
        assert_eq!(read(), [1, 2, 3]);
        let last = text[..text.len() - 1].rfind('\n').unwrap() + 1;
        let zeros = "\0".repeat(text.len() - last - 1) + "\n";
        std::fs::write(&path, format!("{}{zeros}", &text[..last])).unwrap();
        assert_eq!(read(), [1, 2]);
        assert_eq!(std::fs::read(&path).unwrap().len(), text.len(), "nothing is changed");
    }

    #[test]
    fn a_damaged_line_is_told_with_its_number() {
        let folder = three();
        let path = folder.path().join("journal.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(":2}", ":7}")).unwrap();
        let said = report(&read(&folder).unwrap_err());
        assert!(
            said.contains("line 2 of `") && said.contains("its entry does not match its hash"),
            "{said}"
        );
        assert!(said.contains("hint: remove"), "{said}");
    }
}
