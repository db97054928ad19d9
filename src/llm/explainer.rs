//! What a language model is asked to explain, and how its reply is read: a view for each prompt of
//! `templates/prompts/`, the form of the reply, and its reader.
//!
//! Views hold words, tokens, shares and logits. Where they are from, and that they are of the
//! *explain* half alone, is for those who fill them.

use super::reply::shortened;
use super::{Form, Question, prompts};
use crate::error::Result;
use crate::ids::Subject;
use crate::summary::unquoted;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Characters of a sentence, at most.
const SENTENCE: usize = 400;
/// Tokens that may be claimed to be promoted, and their characters.
const CLAIMS: usize = 10;
const CLAIM: usize = 40;

/// What is to be explained. Each kind has a prompt of its name.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Evidence {
    /// A dictionary feature.
    Feature(FeatureEvidence),
    /// An attention head.
    Head(HeadEvidence),
    /// An MLP.
    Mlp(MlpEvidence),
    /// Two features.
    Pair(PairEvidence),
    /// A group of features.
    Group(GroupEvidence),
}

/// A feature, by its texts and tokens.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FeatureEvidence {
    /// Of an attention dictionary, not an MLP's.
    pub attention: bool,
    /// Its layer, from 0.
    pub layer: u32,
    /// The model's last layer.
    pub last_layer: u32,
    /// Share of tokens at which it is active.
    pub density: f64,
    /// Marked with levels, strongest first.
    pub strongest: Vec<String>,
    /// With the level of the peak.
    pub weaker: Vec<(u32, String)>,
    /// Unmarked.
    pub inactive: Vec<String>,
    /// Tokens by their share of its activation.
    pub mass: Vec<(String, f64)>,
    /// Its promoted and suppressed tokens.
    pub tokens: TokenEvidence,
}

/// Tokens with their logits, each list with the largest first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TokenEvidence {
    /// Tokens whose logits it raises most, in logits per unit of activation.
    pub promoted: Vec<(String, f64)>,
    /// Tokens whose logits it lowers most, in the same unit.
    pub suppressed: Vec<(String, f64)>,
}

/// A feature as a part of something.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemberEvidence {
    /// Such as `MLP feature of layer 2`.
    pub place: String,
    /// Such as `serves in 40 of 50 prompts`.
    pub often: String,
    /// Input side of its explanation; empty if there is none.
    pub input: String,
    /// Output side of its explanation; empty if there is none.
    pub output: String,
}

/// What a component has to do with a task.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TaskEvidence {
    /// What the task is, in words.
    pub what: String,
    /// What its metric is, in words.
    pub measured: String,
    /// The task's used prompts.
    pub prompts: u32,
    /// Of them, those whose circuit has the component.
    pub circuits: u32,
    /// One of them; empty if there is none.
    pub prompt: String,
    /// The right answer of `prompt`.
    pub right: String,
    /// The wrong answer of `prompt`.
    pub wrong: String,
}

/// An attention head, by where it looks and what it moves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HeadEvidence {
    /// Its number in the layer, from 0.
    pub head: u32,
    /// Its layer, from 0.
    pub layer: u32,
    /// The model's last layer.
    pub last_layer: u32,
    /// What it does in each task, the task in most of whose circuits it is first.
    pub places: Vec<HeadInTask>,
    /// The features that it serves, most often first.
    pub members: Vec<MemberEvidence>,
    /// Texts in which their weighted sum is largest.
    pub joint: Vec<String>,
    /// Promoted and suppressed tokens of the weighted sum of its features.
    pub tokens: TokenEvidence,
}

/// A head in a task.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HeadInTask {
    /// The task.
    pub task: TaskEvidence,
    /// Most prompts first.
    pub moves: Vec<MoveEvidence>,
    /// Where it looks, with shares of its attention.
    pub habits: Vec<(String, f64)>,
    /// On the logit of the right answer over the wrong one.
    pub direct_effect: Option<f64>,
    /// What enters its query, key and value.
    pub enters: Vec<(String, Vec<SourceEvidence>)>,
    /// What it writes when it reads certain tokens, answers first.
    pub copies: Vec<CopyEvidence>,
    /// A sentence on whether it copies; empty if that cannot be said.
    pub copying: String,
}

/// From where to where a head carries something.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MoveEvidence {
    /// What stands at the source, in words.
    pub from: String,
    /// What stands at the destination, in words.
    pub to: String,
    /// Prompts whose circuit has it.
    pub prompts: u32,
    /// Mean attention from the destination to the source; none if it is not known.
    pub attention: Option<f64>,
}

/// What enters a slot of a head.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceEvidence {
    /// What it is, in words.
    pub what: String,
    /// Prompts in whose circuit it enters the slot.
    pub prompts: u32,
    /// Empty of what has no explanation.
    pub said: String,
}

/// What a head writes when it reads a token.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopyEvidence {
    /// The token that it reads.
    pub token: String,
    /// The tokens that it raises most then, the most raised one first.
    pub writes: Vec<String>,
    /// What becomes of the token itself.
    pub own: String,
}

/// An MLP, by the features that serve in it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MlpEvidence {
    /// Its layer, from 0.
    pub layer: u32,
    /// The model's last layer.
    pub last_layer: u32,
    /// The tasks in whose circuits it is.
    pub tasks: Vec<TaskEvidence>,
    /// The features that serve in it, most often first.
    pub members: Vec<MemberEvidence>,
    /// Texts in which their weighted sum is largest.
    pub joint: Vec<String>,
    /// Promoted and suppressed tokens of their weighted sum.
    pub tokens: TokenEvidence,
}

/// Two features that serve in the same circuits.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PairEvidence {
    /// The two features.
    pub members: Vec<MemberEvidence>,
    /// The tasks in whose circuits both serve.
    pub meetings: Vec<CooccurrenceEvidence>,
    /// Texts in which the sum of their activations, each over its maximum, is largest.
    pub joint: Vec<String>,
    /// Promoted and suppressed tokens of their weighted sum.
    pub tokens: TokenEvidence,
}

/// A task in whose circuits two features meet.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CooccurrenceEvidence {
    /// What the task is, in words.
    pub what: String,
    /// The task's used prompts.
    pub prompts: u32,
    /// Of them, those in which both serve.
    pub together: u32,
}

/// Features that somebody put together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GroupEvidence {
    /// The features.
    pub members: Vec<MemberEvidence>,
    /// Texts in which the sum of their activations, each over its maximum, is largest.
    pub joint: Vec<String>,
    /// Promoted and suppressed tokens of their sum.
    pub tokens: TokenEvidence,
}

impl Evidence {
    /// Its prompt, which is also the explainer's name.
    pub fn prompt(&self) -> &'static str {
        match self {
            Evidence::Feature(_) => "feature",
            Evidence::Head(_) => HEAD,
            Evidence::Mlp(_) => "mlp",
            Evidence::Pair(_) => "pair",
            Evidence::Group(_) => "group",
        }
    }

    /// The question about a subject, for the first of several replies.
    ///
    /// # Errors
    /// When the prompt's templates lack something that they name.
    pub fn question(&self, subject: &Subject, model: &str) -> Result<Question> {
        Ok(Question {
            subject: subject.clone(),
            purpose: "explain",
            model: model.into(),
            sample: 0,
            messages: prompts::messages(self.prompt(), self)?,
            form: form(self.prompt()),
        })
    }
}

const HEAD: &str = "head";

/// Two fields more than others have.
const OF_A_HEAD: [&str; 2] = ["matching", "carried"];

/// The form of the reply to a prompt.
fn form(prompt: &'static str) -> Form {
    let sentences =
        ["input", "output"].into_iter().chain(OF_A_HEAD.into_iter().filter(|_| prompt == HEAD));
    let mut properties: serde_json::Map<String, Value> =
        sentences.map(|name| (name.into(), json!({ "type": "string" }))).collect();
    properties.insert("promotes".into(), json!({ "type": "array", "items": { "type": "string" } }));
    let required: Vec<&String> = properties.keys().collect();
    let required = json!(required);
    let schema = json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    Form { name: prompt, schema }
}

/// A reply that has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The input side, one sentence.
    pub input: String,
    /// The output side, one sentence.
    pub output: String,
    /// Tokens that it claims to be promoted.
    pub promotes: Vec<String>,
    /// Of a head; else empty.
    pub matching: String,
    /// What a head's value carries over, one sentence; else empty.
    pub carried: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    input: String,
    output: String,
    promotes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfHead {
    input: String,
    output: String,
    promotes: Vec<String>,
    matching: String,
    carried: String,
}

/// Reads the reply to a question. What is too long is cut; nothing is guessed.
///
/// # Errors
/// What is wrong with it, for the one who wrote it.
pub fn read(question: &Question, reply: &Value) -> Result<Reply, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    let is_head = question.form.name == HEAD;
    let mut read = if is_head {
        let OfHead { input, output, promotes, matching, carried } =
            OfHead::deserialize(reply).map_err(wrong)?;
        Reply { input, output, promotes, matching, carried }
    } else {
        let Plain { input, output, promotes } = Plain::deserialize(reply).map_err(wrong)?;
        Reply { input, output, promotes, ..Reply::default() }
    };
    check_sentence("input", &mut read.input)?;
    check_sentence("output", &mut read.output)?;
    if is_head {
        check_sentence("matching", &mut read.matching)?;
        check_sentence("carried", &mut read.carried)?;
    }
    read.promotes = claims(&read.promotes)?;
    Ok(read)
}

/// The space around it is nothing of its own.
fn check_sentence(field: &str, sentence: &mut String) -> Result<(), String> {
    let whole = sentence.trim();
    *sentence = shortened(whole, SENTENCE).unwrap_or_else(|| whole.into());
    let breaks = |c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}';
    match sentence.chars().count() {
        0 => Err(format!("`{field}` is empty")),
        n if n > SENTENCE => {
            Err(format!("`{field}` has {n} characters; at most {SENTENCE} are allowed"))
        }
        _ if sentence.contains(breaks) => {
            Err(format!("`{field}` has line breaks or control characters"))
        }
        _ => Ok(()),
    }
}

/// Tokens as the model has them, whether they came in backticks, as prompts show them, or not.
fn claims(promotes: &[String]) -> Result<Vec<String>, String> {
    let claim = |text: &String| {
        let token = unquoted(text);
        match token.chars().count() {
            0 => Err("`promotes` has an empty token".to_string()),
            n if n > CLAIM => Err(format!(
                "`promotes` has a token of {n} characters; at most {CLAIM} are \
                     allowed"
            )),
            _ if token.contains(|c: char| c.is_control() && c != '\n') => {
                Err("`promotes` has a token with control characters".to_string())
            }
            _ => Ok(token),
        }
    };
    promotes.iter().take(CLAIMS).map(claim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(view: Evidence) -> Question {
        view.question(&Subject::Group("subject".into()), "model").unwrap()
    }

    fn feature() -> Question {
        question(Evidence::Feature(FeatureEvidence::default()))
    }

    #[test]
    fn a_reply_is_read_as_it_is() {
        let reply = json!({ "input": " Fires at ships. ", "output": "unclear", "promotes": [" she", "` he`", "`\\n`"] });
        let read = read(&feature(), &reply).unwrap();
        assert_eq!((read.input.as_str(), read.output.as_str()), ("Fires at ships.", "unclear"));
        assert_eq!(read.promotes, [" she", " he", "\n"]);
        assert_eq!((read.matching, read.carried), (String::new(), String::new()));
    }

    #[test]
    fn a_reply_that_is_not_as_asked_is_refused_with_the_reason() {
        let said = |change: fn(&mut Value)| {
            let mut reply = json!({ "input": "Fires.", "output": "Promotes.", "promotes": [] });
            change(&mut reply);
            read(&feature(), &reply).unwrap_err()
        };
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 10] = [
            (|r| r["input"] = json!(" "), "`input` is empty"),
            (|r| r["output"] = json!("a\nb"), "`output` has line breaks or control characters"),
            (
                |r| r["output"] = json!("a\u{2028}b"),
                "`output` has line breaks or control characters",
            ),
            (
                |r| r["input"] = json!("é".repeat(401)),
                "`input` has 401 characters; at most 400 are allowed",
            ),
            (|r| r["input"] = json!(["Fires."]), "invalid type: sequence, expected a string"),
            (
                |r| r["why"] = json!("so"),
                "unknown field `why`, expected one of `input`, `output`, `promotes`",
            ),
            (|r| *r = json!({ "input": "Fires.", "promotes": [] }), "missing field `output`"),
            (|r| *r = json!("Fires."), "invalid type: string \"Fires.\", expected struct Plain"),
            (|r| r["promotes"] = json!(["``"]), "`promotes` has an empty token"),
            (
                |r| r["promotes"] = json!(["x".repeat(41)]),
                "`promotes` has a token of 41 characters; at most 40 are allowed",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(said(change), expected);
        }
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let sentence = format!("{}. {}.", "Fires at ships ".repeat(20).trim(), "X ".repeat(112));
        assert_eq!(sentence.chars().count(), 526);
        let tokens: Vec<String> = (0..12).map(|i| format!(" t{i}")).collect();
        let reply = json!({ "input": sentence, "output": "o", "promotes": tokens });
        let read = read(&feature(), &reply).unwrap();
        assert_eq!(read.input, format!("{}.", "Fires at ships ".repeat(20).trim()));
        assert_eq!(read.promotes, tokens[..CLAIMS]);
    }

    #[test]
    fn only_a_head_has_a_matching_and_something_carried() {
        let reply = json!({ "input": "Moves.", "output": "o", "promotes": [], "matching": "m", "carried": "c" });
        let head = read(&question(Evidence::Head(HeadEvidence::default())), &reply).unwrap();
        assert_eq!((head.matching.as_str(), head.carried.as_str()), ("m", "c"));
        assert!(read(&feature(), &reply).unwrap_err().starts_with("unknown field `"));
        let plain = json!({ "input": "Moves.", "output": "o", "promotes": [] });
        assert_eq!(
            read(&question(Evidence::Head(HeadEvidence::default())), &plain).unwrap_err(),
            "missing field `matching`"
        );
    }

    #[test]
    fn forms_are_strict_and_complete() {
        for prompt in ["feature", HEAD] {
            let schema = form(prompt).schema;
            assert_eq!(schema["additionalProperties"], false);
            let properties: Vec<&String> =
                schema["properties"].as_object().unwrap().keys().collect();
            assert_eq!(schema["required"], json!(properties));
            assert_eq!(properties.len(), if prompt == HEAD { 5 } else { 3 });
        }
    }
}
