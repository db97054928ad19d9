//! Every reply that ever came, by the hash of what was asked: in `replies.jsonl` of the artifact
//! folder, and those that came to shards in `replies/`, in a journal for each.

use super::budget::Spent;
use super::price::price;
use super::share::{Share, is_written};
use crate::artifact::{Journal, Store};
use crate::config::Llm;
use crate::error::Result;
use crate::ids::Shard;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

const FILE: &str = "replies.jsonl";
/// Of the journals of shards.
pub(super) const FOLDER: &str = "replies";
const OF: &str = "-of-";
const END: &str = ".jsonl";

/// The name of a shard's journal.
pub(super) fn journal(shard: Shard) -> String {
    format!("{FOLDER}/{}{OF}{}{END}", shard.number(), shard.of())
}

/// The shards that have a journal, in the order in which these are read.
pub(super) fn shards(store: &Store) -> Vec<Shard> {
    let entries = std::fs::read_dir(store.root().join(FOLDER)).into_iter().flatten().flatten();
    let shard = |name: &str| name.strip_suffix(END)?.replacen(OF, "/", 1).parse().ok();
    let mut shards: Vec<Shard> =
        entries.filter_map(|entry| shard(entry.file_name().to_str()?)).collect();
    shards.sort_by_key(|shard| (shard.of(), shard.number()));
    shards
}

/// A line of a journal.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Kept {
    Reply(CachedReply),
    Lost(LostTries),
}

/// Tries to which there was no reply at all, so that what they may have cost is not forgotten.
#[derive(Deserialize, Serialize)]
pub(super) struct LostTries {
    pub run: String,
    pub model: String,
    pub attempts: u32,
    pub lost: [u64; 2],
}

/// Hands everything that is kept to `each`, with the shard in whose journal it is, and gives the
/// journal that is to be appended to: that of the share, or else that of whole runs.
///
/// # Errors
/// When a journal cannot be read or is damaged.
fn every_reply(
    store: &Store,
    share: Option<&Share>,
    mut each: impl FnMut(Option<Shard>, Kept),
) -> Result<Journal> {
    let mut own = Journal::open(store, FILE, |kept| each(None, kept))?;
    let own_shard = share.map(Share::shard);
    for shard in shards(store) {
        let name = journal(shard);
        let each = |kept| each(Some(shard), kept);
        match own_shard {
            Some(number) if number == shard => own = Journal::open(store, &name, each)?,
            Some(_) if is_written(store, shard) => Journal::read(store, &name, each)?,
            _ => drop(Journal::open(store, &name, each)?),
        }
    }
    Ok(own)
}

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
    /// The fingerprint of the stage that asked; empty in what older versions kept of whole runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
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

/// The replies of an artifact folder, read once by a process.
#[derive(Debug)]
pub struct ResponseCache {
    replies: Mutex<Replies>,
    /// What was spent before they were read.
    spent: BTreeMap<Spender, Tokens>,
}

/// Who has spent: the shard, or a whole run; the fingerprint of the stage; the model.
type Spender = (Option<Shard>, String, String);

#[derive(Debug, Default)]
struct Tokens {
    attempts: u64,
    asked: u64,
    answered: u64,
}

#[derive(Debug)]
struct Replies {
    /// None: replies are kept for as long as this lives.
    journal: Option<Journal>,
    records: BTreeMap<String, CachedReply>,
    /// Times at which failed questions were asked again.
    rounds: BTreeSet<u32>,
}

impl ResponseCache {
    /// That of a whole run, or of a share.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged.
    pub fn open(store: &Store, share: Option<&Share>) -> Result<ResponseCache> {
        let (mut records, mut rounds) = (BTreeMap::new(), BTreeSet::new());
        let mut spent: BTreeMap<Spender, Tokens> = BTreeMap::new();
        let journal = every_reply(store, share, |shard, kept| {
            let (run, model) = kept.spender();
            spent.entry((shard, run.into(), model.into())).or_default().add(&kept);
            if let Kept::Reply(record) = kept {
                rounds.insert(record.round);
                records.insert(record.hash.clone(), record);
            }
        })?;
        rounds.remove(&0);
        let replies = Mutex::new(Replies { journal: Some(journal), records, rounds });
        Ok(ResponseCache { replies, spent })
    }

    /// One without a file.
    pub(super) fn in_memory() -> ResponseCache {
        let (records, rounds) = (BTreeMap::new(), BTreeSet::new());
        let replies = Mutex::new(Replies { journal: None, records, rounds });
        ResponseCache { replies, spent: BTreeMap::new() }
    }

    /// What had been spent for the results of a stage of this fingerprint when the replies were
    /// read, by those of whom `by` says so: a shard, or none for whole runs.
    pub fn spent(&self, llm: &Llm, run: &str, by: impl Fn(Option<Shard>) -> bool) -> Spent {
        let mut all = Spent::default();
        for ((shard, of, model), tokens) in &self.spent {
            if of == run && by(*shard) {
                all.calls += tokens.attempts;
                all.cost += price(llm, model, tokens.asked, tokens.answered).unwrap_or(0.0);
            }
        }
        all
    }

    /// The number of the last round in which failed questions were asked again; 0 if there was none.
    pub fn last_round(&self) -> u32 {
        self.lock().rounds.last().copied().unwrap_or(0)
    }

    /// The times at which failed questions were asked again, in order.
    pub(super) fn rounds(&self) -> BTreeSet<u32> {
        self.lock().rounds.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Keeps what was spent on tries to which there is no reply, for the budget of the same run when
    /// it goes on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn lose(&self, tries: &LostTries) -> Result<()> {
        match &mut self.lock().journal {
            Some(journal) if !tries.run.is_empty() && tries.attempts > 0 => journal.append(tries),
            _ => Ok(()),
        }
    }
}

impl Kept {
    /// The fingerprint and the model.
    fn spender(&self) -> (&str, &str) {
        match self {
            Kept::Reply(one) => (&one.run, &one.model),
            Kept::Lost(one) => (&one.run, &one.model),
        }
    }
}

impl Tokens {
    fn add(&mut self, kept: &Kept) {
        let (attempts, [asked, answered]) = match kept {
            Kept::Reply(one) => {
                let replied = [one.prompt_tokens, one.completion_tokens].map(u64::from);
                (one.attempts, [replied[0] + one.lost[0], replied[1] + one.lost[1]])
            }
            Kept::Lost(one) => (one.attempts, one.lost),
        };
        self.attempts += u64::from(attempts);
        self.asked += asked;
        self.answered += answered;
    }
}
