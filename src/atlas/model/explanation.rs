//! What a language model was asked and replied, and what it cost.

use crate::ids::Status;
use crate::summary::{STATISTICS, Sentences};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Explanation {
    /// `statistics` when no language model wrote it.
    pub explainer: String,
    /// Which of several independent ones, from 0.
    pub sample: u32,
    /// The language model, empty without one.
    pub model: String,
    pub status: Status,
    pub input_side: String,
    pub output_side: String,
    pub text: String,
    /// Of a feature: where it is active, but little; may be empty.
    pub weakly: String,
    /// Of an attention feature: where it reads from; may be empty.
    pub reads_from: String,
    /// Of a feature whose texts have several causes: a sentence for each, with the cause.
    pub clauses: Vec<(String, String)>,
    /// Of a feature: `high`, `medium` or `low`; else empty.
    pub input_confidence: String,
    pub output_confidence: String,
    /// Of a head: how what it looks for and what it finds match; else empty.
    pub matching: String,
    /// Of a head: what it carries from there; else empty.
    pub carried: String,
    /// Tokens that it claims to be promoted.
    pub claims: Vec<String>,
    /// Why it failed.
    pub reason: String,
}

impl Explanation {
    /// What the statistics say.
    pub(crate) fn of_statistics(said: Sentences) -> Explanation {
        let none = String::new;
        Explanation {
            explainer: STATISTICS.into(),
            sample: 0,
            model: none(),
            status: Status::Ok,
            text: format!("{} {}", said.input_side, said.output_side).trim().into(),
            input_side: said.input_side,
            output_side: said.output_side,
            weakly: none(),
            reads_from: none(),
            clauses: Vec::new(),
            input_confidence: none(),
            output_confidence: none(),
            matching: none(),
            carried: none(),
            claims: Vec::new(),
            reason: none(),
        }
    }
}

/// What a language model was asked of a subject, and what came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Transcript {
    /// Its explanations in their order, also those that failed. The first is the one that pages
    /// show and judges judge.
    pub samples: Vec<Explanation>,
    /// Every question with its reply, a repair behind what it repairs.
    pub exchanges: Vec<Exchange>,
}

impl Transcript {
    /// The first explanation, if it is none: why a summary of the statistics stands in its place.
    pub(crate) fn failure(&self) -> Option<&Explanation> {
        self.samples.first().filter(|first| first.status != Status::Ok)
    }
}

/// A question to a language model and its reply.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Exchange {
    /// `explain` or `repair`.
    pub purpose: String,
    pub model: String,
    /// What the server called the model that answered; empty if it did not say.
    pub served: String,
    /// Hash of what was asked.
    pub hash: String,
    /// Who speaks (`system`, `user`, `assistant`), and what.
    pub messages: Vec<(String, String)>,
    /// As it came; empty if there is none.
    pub reply: String,
    pub status: Status,
    /// None if the books have no line of it.
    pub usage: Option<Usage>,
}

/// What a question took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// By the price table of the settings; 0 where that has no price.
    pub cost: f64,
    /// Of all tries.
    pub seconds: f64,
    pub attempts: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, other: &Usage) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cost += other.cost;
        self.seconds += other.seconds;
        self.attempts += other.attempts;
    }
}

/// All questions to a model for one purpose.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct UsageTotal {
    pub model: String,
    /// `explain`, the method of a judge, or `repair`.
    pub purpose: String,
    /// How many there were of each status, in the order of [`Status::ALL`].
    pub questions: [u64; 4],
    pub usage: Usage,
}
