//! Language models: questions go in, answers come out, and each reply is paid for once.
//!
//! `prompts` writes messages from templates; `explainer` and `judge` say what is asked and how
//! replies are read. `ask` answers a list of questions in a `session`: each is looked up in the
//! `response_cache`, else sent as a `request` through the `client`, within the `rate_limit` and the
//! `budget`; `retry` tells which errors are tried again, `capabilities` what a server understands.
//! Several processes may ask together, each its `share`. `async` stops at this door. Knows texts and tokens as words, no tables, features or models.

mod ask;
mod client;
mod capabilities;
pub mod embedding;
pub mod excerpt;
pub mod explainer;
#[cfg(fuzzing)]
pub mod fuzz_target;
pub mod judge;
mod key;
mod request;
mod rate_limit;
mod price;
pub mod prompts;
mod budget;
mod probe;
mod response_cache;
mod reply;
mod session;
mod share;
mod retry;

pub use ask::{Asker, Plan};
pub use budget::{Budget, Spent};
pub use excerpt::Excerpt;
pub use key::check_key;
pub use probe::{probe, probe_embedder};
pub use response_cache::ResponseCache;
pub use retry::in_words;
pub use share::{ANOTHERS, Share};

use crate::ids::{Status, Subject};
use serde_json::Value;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatRole {
    /// The instructions.
    System,
    /// The question, or what is wrong with a reply.
    User,
    /// A reply of the model.
    Assistant,
}

impl ChatRole {
    /// The word on the wire and in artifacts.
    pub fn word(self) -> &'static str {
        match self {
            ChatRole::System => "system",
            ChatRole::User => "user",
            ChatRole::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whose message it is.
    pub role: ChatRole,
    /// The whole text.
    pub text: String,
}

/// The form that a reply is to have: an object of this JSON schema.
#[derive(Clone, Debug)]
pub struct Form {
    /// Its name, which the server is told as the schema's.
    pub name: &'static str,
    /// The JSON schema.
    pub schema: Value,
}

/// What is asked of a language model. How the reply is to be brought into form is not in the
/// messages: that depends on what the server can do, and is added when it is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// What it is about, for the ledger.
    pub subject: Subject,
    /// `explain`, or the method of a judge, for the ledger.
    pub purpose: &'static str,
    /// The model that is asked, by the server's name for it.
    pub model: String,
    /// Which of several independent replies, from 0.
    pub sample: u32,
    /// The conversation so far, in order.
    pub messages: Vec<Message>,
    /// What the reply must look like.
    pub form: Form,
}

impl Question {
    /// Whether it asks for embeddings and not for words.
    fn embeds(&self) -> bool {
        self.form.name == embedding::EMBEDDING
    }
}

/// How asking ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<T> {
    /// What was read from the reply.
    Answered(T),
    /// There is a reply, and it cannot be read even after one repair; or the server refuses this
    /// question for good. Why.
    Failed(String),
    /// The model or the server's filter would not answer. Why.
    Refused(String),
    /// No reply was to be had this time: the server is away, or the budget is empty. The next run
    /// asks again. Why.
    Left(String),
}

/// One question as it was sent, its repair apart, and what it cost. A reply that was kept costs
/// what it did then.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Of model, parameters and messages.
    pub hash: String,
    /// That of the question, or `repair`.
    pub purpose: &'static str,
    /// The model that was asked.
    pub model: String,
    /// What the server called the model that answered; empty if it did not say.
    pub served: String,
    /// What was sent, in order.
    pub messages: Vec<Message>,
    /// As it came; empty if none did.
    pub reply: String,
    /// Tokens of the messages; 0 if no reply came.
    pub prompt_tokens: u32,
    /// Tokens of the reply; 0 if none came.
    pub completion_tokens: u32,
    /// In the unit of `llm.prices`; 0 if no reply came or the model has no price.
    pub cost: f64,
    /// Of all tries.
    pub seconds: f64,
    /// Tries that were made.
    pub attempts: u32,
    /// How it ended.
    pub status: Status,
}

/// A question's end, and the calls that it took.
#[derive(Clone, Debug)]
pub struct Asked<T> {
    /// How asking ended.
    pub outcome: Outcome<T>,
    /// In the order in which they were made.
    pub calls: Vec<Call>,
}
