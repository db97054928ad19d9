//! Every reply that ever came, by the hash of what was asked, in `replies.jsonl` of the artifact
//! folder.

use crate::artifact::{Journal, Store};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

const FILE: &str = "replies.jsonl";

/// A reply as it came.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub(super) struct CachedReply {
    pub hash: String,
    pub model: String,
    /// What the server called the model that answered: some answer with whatever they have.
    #[serde(default)]
    pub served: String,
    pub purpose: String,
    pub status: ReplyStatus,
    /// Of a refusal: its words, if there are any.
    pub reply: String,
    /// Why it ended, in the server's word.
    pub finish: String,
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    /// Of all tries.
    pub seconds: f64,
    pub attempts: u32,
    /// Tokens of messages and replies that are charged for tries of which nothing could be read.
    #[serde(default, skip_serializing_if = "is_none")]
    pub lost: [u64; 2],
    /// Which time a failed question was asked again from its beginning; 0: the first.
    #[serde(default, skip_serializing_if = "is_first")]
    pub round: u32,
}

fn is_first(round: &u32) -> bool {
    *round == 0
}

fn is_none(lost: &[u64; 2]) -> bool {
    *lost == [0, 0]
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReplyStatus {
    Ok,
    /// For good: asking again would bring the same.
    Refused,
}

/// The replies of an artifact folder.
pub(super) struct ResponseCache(Mutex<Kept>);

struct Kept {
    /// None: replies are kept for as long as this lives.
    journal: Option<Journal>,
    records: BTreeMap<String, CachedReply>,
    /// Times at which failed questions were asked again.
    rounds: BTreeSet<u32>,
}

impl ResponseCache {
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub(super) fn open(store: &Store) -> Result<ResponseCache> {
        let (mut records, mut rounds) = (BTreeMap::new(), BTreeSet::new());
        let journal = Journal::open(store, FILE, |record: CachedReply| {
            rounds.insert(record.round);
            drop(records.insert(record.hash.clone(), record))
        })?;
        rounds.remove(&0);
        Ok(ResponseCache(Mutex::new(Kept { journal: Some(journal), records, rounds })))
    }

    /// One without a file.
    pub(super) fn in_memory() -> ResponseCache {
        let (records, rounds) = (BTreeMap::new(), BTreeSet::new());
        ResponseCache(Mutex::new(Kept { journal: None, records, rounds }))
    }

    /// The times at which failed questions were asked again, in order.
    pub(super) fn rounds(&self) -> BTreeSet<u32> {
        self.lock().rounds.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, hash: &str) -> Option<CachedReply> {
        self.lock().records.get(hash).cloned()
    }

    /// Keeps a reply; it is on the disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn keep(&self, record: &CachedReply) -> Result<()> {
        let mut kept = self.lock();
        if let Some(journal) = &mut kept.journal {
            journal.append(record)?;
        }
        if record.round > 0 {
            kept.rounds.insert(record.round);
        }
        kept.records.insert(record.hash.clone(), record.clone());
        Ok(())
    }
}
