//! What a language model wrote and was asked, how good that is, and what it cost: the part of the
//! [`Atlas`](super::Atlas) about explanations. Plain values; every text of them is hostile until
//! escaped.

use crate::ids::FeatureId;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// `statistics` when no language model wrote it.
    pub explainer: String,
    /// Which of several independent ones, from 0.
    pub sample: u32,
    /// The language model, empty without one.
    pub model: String,
    /// `ok`, `failed`, `refused`, or `left`: it will be asked again.
    pub status: String,
    pub input_side: String,
    pub output_side: String,
    pub text: String,
    /// Of a head: how what it looks for and what it finds match; else empty.
    pub matching: String,
    /// Of a head: what it carries from there; else empty.
    pub carried: String,
    /// Tokens that it claims to be promoted.
    pub claims: Vec<String>,
    /// Why it failed.
    pub reason: String,
}

/// What a language model was asked of a subject, and what came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Asked {
    /// Its explanations in their order, also those that failed. The first is the one that pages
    /// show and judges judge.
    pub samples: Vec<Explanation>,
    /// Every question with its reply, a repair behind what it repairs.
    pub exchanges: Vec<Exchange>,
}

impl Asked {
    /// The first explanation, if it is none: why a summary of the statistics stands in its place.
    pub fn failure(&self) -> Option<&Explanation> {
        self.samples.first().filter(|first| first.status != "ok")
    }
}

/// A question to a language model and its reply.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
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
    /// `ok`, `failed` or `refused`.
    pub status: String,
    /// None if the books have no line of it.
    pub bill: Option<Bill>,
}

/// What a question took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bill {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// By the price table of the settings; 0 where that has no price.
    pub cost: f64,
    /// Of all tries.
    pub seconds: f64,
    pub attempts: u64,
}

impl Bill {
    pub fn add(&mut self, other: &Bill) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cost += other.cost;
        self.seconds += other.seconds;
        self.attempts += other.attempts;
    }
}

/// All questions to a model for one purpose.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Account {
    pub model: String,
    /// `explain`, `detection`, `fuzzing`, `repair`.
    pub purpose: String,
    /// How many there were of each status: `ok`, `failed`, `refused`, `left`.
    pub questions: [u64; 4],
    pub bill: Bill,
}

/// What can come of a question, in the order of [`Account::questions`].
pub const STATUSES: [&str; 4] = ["ok", "failed", "refused", "left"];

/// How well a feature is told apart by an explanation, on documents that the explanation has not
/// seen.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// `single-token`, `detection`, `fuzzing`.
    pub method: String,
    /// Whose explanation; `single-token rule` for the rule itself.
    pub explainer: String,
    /// The language model that judged; empty for the rule.
    pub judge: String,
    pub examples: u32,
    pub balanced_accuracy: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// The same for another feature's explanation (or rule), and which.
    pub null: Option<f64>,
    pub null_subject: Option<FeatureId>,
    /// The same for the feature's single-token rule, on the same texts.
    pub rule: Option<f64>,
}

/// A text that the first judge got wrong, given the feature's own explanation.
#[derive(Clone, Debug, Serialize)]
pub struct Misjudged {
    /// `detection` or `fuzzing`.
    pub method: String,
    /// `top`, `q0` … `q9`; silent: `inactive`, `token`, `similar`.
    pub band: String,
    /// Whether the feature is active in it, or the marks are right; the judge said the opposite.
    pub truth: bool,
    pub context: u32,
    /// The text in pieces, and which of them were marked.
    pub pieces: Vec<(String, bool)>,
}

/// How far independent explanations agree, or two judges of one explanation.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    /// `samples` or `judges`.
    pub between: String,
    /// `words` (Jaccard), or the method whose verdicts are compared (Cohen's kappa).
    pub of: String,
    /// Pairs of explanations, or texts that both judged.
    pub compared: u32,
    pub value: Option<f64>,
}

/// What the model says more of when the feature is added to its residual stream, at positions of
/// the *score* half.
#[derive(Clone, Debug, Serialize)]
pub struct Causal {
    pub positions: u32,
    /// Units of activation added.
    pub strength: f64,
    /// Chance that a promoted token rises more than another one, with its 95% interval; 0.5 is
    /// none.
    pub promoted: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// The same for another feature's promoted tokens.
    pub promoted_null: Option<f64>,
    /// The same for the tokens that the explanation claims, and for another feature's claims.
    pub claimed: Option<f64>,
    pub claimed_low: Option<f64>,
    pub claimed_high: Option<f64>,
    pub claimed_null: Option<f64>,
    /// Claims that are a token of the model.
    pub claims: u32,
    /// The tokens that rise most, and by how many logits.
    pub risen: Vec<(String, f64)>,
}
