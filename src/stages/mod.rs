//! A file or a folder for each stage: it reads tables, calls other rooms and writes tables. No
//! mathematics, no tensors; stages never call each other.

pub mod aggregate;
mod bounds;
pub mod cache;
pub(crate) mod cause_rows;
pub mod causes;
pub mod conformance;
pub mod discover;
mod earlier;
pub mod evaluate;
pub mod heads;
pub mod interpret;
pub mod render;
pub mod score;
pub mod tokenize;
pub mod verify;

pub mod excerpts;
pub(crate) mod scoring;
pub(crate) mod search;
mod parts;
mod usage_report;

pub use parts::PartsTally;

use crate::artifact::Store;
use crate::artifact::tables::Document;
use crate::atlas::Reader;
use crate::circuit::ReplacementModel;
use crate::config::{Config, Llm};
use crate::dictionary::Dictionary;
use crate::error::{Context, Result};
use crate::ids::Shard;
use crate::inputs;
use crate::llm::{Asker, Budget, ResponseCache, Share};
use crate::lock::Lock;
use crate::progress::Progress;

/// What a stage says of its work when it ends.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// One line on what it did.
    pub summary: String,
    /// Questions to a language model that were answered.
    pub answered: u64,
    /// Explanations and verdicts that failed; only a run that is told to asks for them again.
    pub failed: u64,
    /// Questions without an answer, which the next run asks again.
    pub left: u64,
    /// Why questions failed or are left, the most frequent reason first.
    pub reasons: Vec<FailureReason>,
}

/// Why questions to a language model have no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureReason {
    /// In words.
    pub reason: String,
    /// Of how many questions.
    pub number: u64,
}

impl From<String> for Done {
    fn from(summary: String) -> Done {
        Done { summary, ..Done::default() }
    }
}

/// What a stage is given to work with.
pub struct Run<'a> {
    /// The settings.
    pub config: &'a Config,
    /// The artifact folder.
    pub store: &'a Store,
    /// To be carried by every file that the stage writes.
    pub fingerprint: &'a str,
    /// The same but for which features and contexts are wanted: what numbers depend on.
    pub base: &'a str,
    /// The stage's progress bar.
    pub progress: &'a Progress,
    /// What the stages before it ran with.
    pub lock: &'a Lock,
    /// The round in which failed questions are asked again; 0: they are not.
    pub again: u32,
    /// The replies of language models; none where no stage of the run asks.
    pub replies: Option<&'a ResponseCache>,
    /// What this run may still spend on language models.
    pub budget: &'a Budget,
    /// The names of all stages, in their order.
    pub order: &'a [&'static str],
    /// The share of the parts that this run makes while others make theirs; none: it makes all, alone.
    pub shard: Option<Shard>,
    /// The share of the questions to a language model that it asks while others ask theirs.
    pub share: Option<&'a Share>,
    /// What it has done with parts.
    pub parts: &'a PartsTally,
}

impl Run<'_> {
    /// All dictionaries in order, each converted first if it never was.
    pub(crate) fn dictionaries(&self) -> Result<Vec<Dictionary>> {
        inputs::dictionaries(self.config, self.lock, self.progress)
    }

    /// The model with all its dictionaries.
    pub(crate) fn replacement_model(&self) -> Result<ReplacementModel> {
        inputs::replacement_model(self.config, self.lock, self.progress)
    }

    /// Who asks a language model: all that is open, or this run's share.
    fn asker<'r>(&'r self, llm: &'r Llm) -> Result<Asker<'r>> {
        let replies = self.replies.context("the replies of earlier runs have not been read")?;
        let asker = Asker::new(llm, replies, self.budget, self.progress).of_run(self.fingerprint);
        let asker = match self.share {
            Some(share) => asker.sharing(share),
            None => asker,
        };
        Ok(asker.again(self.again))
    }

    /// A reader of what the stages before wrote.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(self.config, self.store, self.lock)
    }

    /// How many contexts some parts have.
    fn contexts(&self, parts: &[u32]) -> Result<u64> {
        let all = self.store.read_column::<Document, u32>("contexts")?;
        let all: u64 = all.into_iter().map(u64::from).sum();
        let most = self.config.corpus.shard_contexts as u64;
        let own = |part: &u32| all.saturating_sub(u64::from(*part) * most).min(most);
        Ok(parts.iter().map(own).sum())
    }
}

/// Everything that would stop a run later on and can be told at once; of the dictionaries only where
/// they are to be read.
///
/// # Errors
/// When settings do not fit the model, its dictionaries or its tokenizer, or the site's folder is
/// somebody else's.
pub fn check(config: &Config, dictionaries: bool) -> Result<()> {
    inputs::check(config, dictionaries)?;
    render::check(config)?;
    let tokenizer = inputs::tokenizer(config)?;
    config.tasks.iter().try_for_each(|task| inputs::prompts(config, task, &tokenizer).map(drop))
}
