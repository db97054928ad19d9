//! How good explanations are: scores of judges, agreement, steering.

use crate::ids::{Band, FeatureId};
use serde::Serialize;

/// How well a feature is told apart by an explanation, on documents that the explanation has not
/// seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Evaluation {
    /// `single-token`, `detection`, `fuzzing`, `embedding`, `intruder`.
    pub method: String,
    /// Whose explanation; `single-token rule` for the rule itself, `weights` for the tokens that the
    /// weights read, as a rule.
    pub explainer: String,
    /// The language model that judged; empty for the rule.
    pub judge: String,
    /// The clause of the explanation that was judged alone, from 0; none: the whole.
    pub clause: Option<u32>,
    /// Texts; of `intruder` questions.
    pub examples: u32,
    /// Balanced accuracy; of `embedding` the ROC area, of `intruder` the share that was found.
    pub score: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// The same for another feature's explanation (or rule), and which; of `intruder` for guessing.
    pub null: Option<f64>,
    pub null_subject: Option<FeatureId>,
    /// The same for the feature's single-token rule, on the same texts.
    pub rule: Option<f64>,
    /// `score` where any activation counts as active; none where that is the same.
    pub any: Option<f64>,
    /// Of the inactive texts those told rightly: with the feature's own token, of similar features,
    /// and others.
    pub right: [Option<f64>; 3],
}

/// A text that the first judge got wrong, given the feature's own explanation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Misjudged {
    /// `detection` or `fuzzing`.
    pub method: String,
    /// `top`, `q0` … `q9`; inactive: `inactive`, `token`, `similar`.
    pub band: Band,
    /// Whether the feature is active in it, or the marks are right; the judge said the opposite.
    pub truth: bool,
    pub context: u32,
    /// The text in pieces, and which of them were marked.
    pub pieces: Vec<(String, bool)>,
}

/// How far independent explanations agree, or two judges of one explanation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Agreement {
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
pub(crate) struct Steering {
    pub positions: u32,
    /// Units of activation added.
    pub strength: f32,
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
    pub risen: Vec<(String, f32)>,
}
