//! Prompts of tasks, how they are measured, and what their circuits grow from.

use super::sizes;
use crate::circuit::{self, Case, Growth, Metric, Root, TopTokens};
use crate::config::{self, Config, Discover, RootKind, Task};
use crate::corpus::Tokenizer;
use crate::error::{Result, hinted};
use crate::task::{self, Measure, Prompt, Prompts, Published, Wanted};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The published circuit of a task, if there is one.
pub fn published(config: &Config, task: &Task) -> Result<Option<Published>> {
    let sizes = sizes(config)?;
    task::published(task, &config.model.path, &config.folder, sizes.layers, sizes.heads)
}

/// The prompts of a task, for each use that the settings make of them.
///
/// # Errors
/// When they cannot be made.
pub fn prompts(config: &Config, task: &Task, tokenizer: &Tokenizer) -> Result<Prompts> {
    let discover = &config.discover;
    let by_gradient = discover.method == config::DiscoveryMethod::Gradient;
    let (finding, choosing) =
        if by_gradient { (discover.prompts, discover.choose) } else { (0, 0) };
    task::prompts(
        task,
        Wanted { finding, choosing, fresh: config.verify.prompts },
        &config.folder,
        tokenizer,
        sizes(config)?.positions,
    )
}

/// How the settings let circuits grow, where the method grows them.
pub fn growth(discover: &Discover, method: config::DiscoveryMethod) -> Option<Growth> {
    match method {
        config::DiscoveryMethod::Greedy => {
            Some(Growth::Greedy { passes: discover.passes, per_node: discover.per_node })
        }
        config::DiscoveryMethod::Influence => {
            Some(Growth::Influence { coverage: discover.coverage, nodes: discover.nodes })
        }
        _ => None,
    }
}

/// How well a model does on prompts, as their tasks measure it.
pub(crate) struct Metrics {
    digits: Option<Arc<Vec<u32>>>,
    specials: BTreeSet<u32>,
}

impl Metrics {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Metrics {
        let (digits, specials) = (task::digits(tokenizer), tokenizer.specials().clone());
        Metrics { digits: digits.map(Arc::new), specials }
    }

    /// The `k` tokens with the highest logits and their probabilities, best first.
    pub(crate) fn answers(&self, logits: &[f32], k: usize) -> Vec<(u32, f32)> {
        circuit::answers(logits, TopTokens { k, specials: &self.specials })
    }

    /// A prompt as something to be run with parts replaced, by prompts of its frame.
    ///
    /// # Errors
    /// As of [`Metrics::of`].
    pub(crate) fn case<'p>(&self, prompt: &'p Prompt) -> Result<Case<'p>> {
        let Prompt { tokens, corrupted, frame, .. } = prompt;
        Ok(Case { tokens, corrupted, template: frame, metric: self.of(prompt)? })
    }

    /// # Errors
    /// When the tokenizer has no tokens for what is measured.
    pub(crate) fn of(&self, prompt: &Prompt) -> Result<Metric> {
        let (correct, counter) = (prompt.correct, prompt.counter);
        match (prompt.measure, &self.digits) {
            (Measure::LogitDifference, _) => Ok(Metric::LogitDifference { correct, counter }),
            (Measure::Logit, _) => Ok(Metric::Logit(correct)),
            (Measure::GreaterThan { year }, Some(digits)) => {
                Ok(Metric::GreaterThan { digits: digits.clone(), year })
            }
            (Measure::GreaterThan { .. }, None) => Err(hinted(
                "this tokenizer does not have a token for each of `00` … `99`",
                "use a task of `kind = \"prompts\"` instead of `greater-than`",
            )),
        }
    }
}

/// What the circuits of a prompt grow from.
pub fn root(kind: RootKind, prompt: &Prompt) -> Root {
    match kind {
        RootKind::LogitDifference => {
            Root::LogitDifference { correct: prompt.correct, counter: prompt.counter }
        }
        RootKind::Logit => Root::Logit(prompt.correct),
    }
}
