//! Several processes that ask the questions of a stage together, on one machine or on several: which
//! questions are whose, where each keeps the replies, and what each may spend.

use super::budget::Budget;
use super::response_cache::{FOLDER, ResponseCache, shards};
use crate::artifact::Store;
use crate::artifact::hold::glanced;
use crate::config::Llm;
use crate::error::{Hint, Result, because, passing};
use crate::ids::Shard;
use std::fs::{File, TryLockError};
use std::path::PathBuf;

/// Why a question is left that another process is to ask.
pub const ANOTHERS: &str = "another shard asks for it";

/// A process's share of the questions. It is the only one that asks them, as long as this lives.
#[derive(Debug)]
pub struct Share {
    shard: Shard,
    /// The fingerprint of the stage: what is spent for other results is not spent for these.
    run: String,
    /// The journal of this shard, locked.
    _held: File,
}

impl Share {
    /// Takes a shard's share of the questions of a stage with this fingerprint.
    ///
    /// # Errors
    /// When another process has it, or shards of another number are asking: both would ask the same.
    pub fn take(store: &Store, shard: Shard, run: &str) -> Result<Share> {
        let path = path(store, shard);
        let hint = "check that the folder is writable and its file system has locks";
        let unwritable = || format!("cannot write `{}`", path.display());
        std::fs::create_dir_all(store.root().join(FOLDER)).hint(unwritable, hint)?;
        let open = File::options().read(true).append(true).create(true).open(&path);
        let file = open.hint(unwritable, hint)?;
        match glanced(|| file.try_lock()) {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(because(error, unwritable(), hint)),
            Err(TryLockError::WouldBlock) => return Err(in_the_way(shard)),
        }
        let of_others = shards(store).into_iter().filter(|other| other.of() != shard.of());
        match of_others.into_iter().find(|other| is_written(store, *other)) {
            Some(other) => Err(in_the_way(other)),
            None => Ok(Share { shard, run: run.into(), _held: file }),
        }
    }

    /// What it may spend: its part of what the limits of the settings leave when all is taken away
    /// that whole runs and shards of other numbers have spent for the same results, less what it has itself.
    pub fn budget(&self, replies: &ResponseCache, llm: &Llm) -> Budget {
        let own = replies.spent(llm, &self.run, |shard| shard == Some(self.shard));
        let is_other = |by: Option<Shard>| by.is_none_or(|shard| shard.of() != self.shard.of());
        Budget::share(llm, self.shard, own, replies.spent(llm, &self.run, is_other))
    }

    pub(super) fn shard(&self) -> Shard {
        self.shard
    }

    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Whether a question, by the hash under which it is asked first, is to be asked here: the same
    /// question is, of whatever subject it may be.
    pub(super) fn has(&self, hash: &str) -> bool {
        let number = hash.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.shard.has(number.unwrap_or(0))
    }
}

/// The journal of a shard.
fn path(store: &Store, shard: Shard) -> PathBuf {
    store.root().join(super::response_cache::journal(shard))
}

/// Whether a process is appending to the journal of a shard, or may.
pub(super) fn is_written(store: &Store, shard: Shard) -> bool {
    let look = File::open(path(store, shard)).map(|file| file.try_lock_shared());
    matches!(look, Ok(Err(TryLockError::WouldBlock)))
}

fn in_the_way(shard: Shard) -> anyhow::Error {
    passing(
        format!("another process asks the questions of shard {shard}"),
        "wait for it to end: it would be paid for twice",
    )
}
