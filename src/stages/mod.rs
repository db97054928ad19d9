//! One file a stage: read tables, call a room, write tables. No mathematics, no tensors; stages
//! never call each other.

pub mod aggregate;
pub mod cache;
pub mod discover;
pub mod evaluate;
pub mod heads;
pub mod interpret;
pub mod measure;
pub mod render;
pub mod score;
pub mod tokenize;
pub mod verify;

pub mod asked;
pub mod excerpts;
pub mod firings;
mod graphs;
pub mod inputs;
mod methods;
mod pairs;
mod ranked;
pub mod reader;
mod solved;
mod subjects;
mod tried;
mod watched;
mod written;

pub use inputs::Input;

use crate::artifact::Store;
use crate::config::Config;
use crate::error::Result;
use crate::llm::Purse;
use crate::lock::Lock;
use crate::progress::Progress;

/// What a stage says of its work when it ends.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub summary: String,
    /// Explanations and verdicts that failed for good.
    pub failed: u64,
    /// Questions without an answer, which the next run asks again.
    pub left: u64,
}

impl From<String> for Done {
    fn from(summary: String) -> Done {
        Done { summary, ..Done::default() }
    }
}

/// What a stage is given to work with.
pub struct Run<'a> {
    pub config: &'a Config,
    pub store: &'a Store,
    /// To be carried by every file that the stage writes.
    pub fingerprint: &'a str,
    pub progress: &'a Progress,
    /// What the stages before it ran with.
    pub lock: &'a Lock,
    /// What this run may still spend on language models.
    pub purse: &'a Purse,
    /// The names of all stages, in their order.
    pub order: &'a [&'static str],
}

/// Everything that would stop a run later on and can be told at once.
///
/// # Errors
/// When settings do not fit the model, its dictionaries or its tokenizer, or the site's folder is
/// somebody else's.
pub fn check(config: &Config) -> Result<()> {
    inputs::check(config)?;
    render::check(config)?;
    let tokenizer = inputs::tokenizer(config)?;
    config.tasks.iter().try_for_each(|task| inputs::prompts(config, task, &tokenizer).map(drop))
}
