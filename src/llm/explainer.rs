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
    Feature(Box<FeatureEvidence>),
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
    /// The lowest level that is marked.
    pub from: u32,
    /// The strongest texts, in groups of what brings the activation.
    pub strongest: Vec<CauseGroup>,
    /// Texts of all strengths below.
    pub weaker: Vec<TextEvidence>,
    /// The same token, active and inactive.
    pub pairs: Vec<PairTexts>,
    /// Unmarked.
    pub inactive: Vec<String>,
    /// Where it is active among its tokens, the tokens before, and positions.
    pub profile: Profile,
    /// Where its activation is from, over all its texts, in words.
    pub sources: Vec<SourceShare>,
    /// Tokens that its weights read.
    pub reads: Vec<(String, f64)>,
    /// Earlier features that its weights read.
    pub earlier: Vec<String>,
    /// What the earlier features are that are named anywhere: each with what is said of it.
    pub named: Vec<(String, String)>,
    /// Tokens before its own tokens with which it is more, and less, often strongly active; and how
    /// often it is at all.
    pub before: BeforeEvidence,
    /// What it does in tasks.
    pub served: Vec<ServedPrompt>,
    /// Its promoted and suppressed tokens.
    pub tokens: TokenEvidence,
    /// What the running model says more of, and less, because of it.
    pub live: TokenEvidence,
}

/// Texts whose activation has one cause.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CauseGroup {
    /// In words; empty where there is only one group.
    pub cause: String,
    /// The texts.
    pub texts: Vec<TextEvidence>,
    /// Whether these are the texts whose causes differ.
    pub various: bool,
}

impl FeatureEvidence {
    /// The causes of the strongest texts, where there are several: an explanation has a clause for
    /// each.
    pub fn causes(&self) -> Vec<String> {
        let own = self.strongest.iter().filter(|group| !group.cause.is_empty() && !group.various);
        own.map(|group| group.cause.clone()).collect()
    }
}

/// A marked text.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TextEvidence {
    /// Level of its peak.
    pub level: u32,
    /// Marked with levels.
    pub text: String,
    /// What brings the activation at its peak, in words; empty if it is not known.
    pub from: String,
}

/// A token where the feature is active, and the same where it is not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PairTexts {
    /// Marked.
    pub active: String,
    /// Up to the token, which is marked `«like this»[0]`.
    pub inactive: String,
}

/// Where a feature is active, as shares of how often it could be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Profile {
    /// By token.
    pub tokens: Vec<ProfileShare>,
    /// By the token before.
    pub previous: Vec<ProfileShare>,
    /// By position in the text; empty where it does not matter.
    pub text: Vec<ProfileShare>,
    /// By position in the sentence; empty where it does not matter.
    pub sentence: Vec<ProfileShare>,
}

/// What stands before a feature's own tokens.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BeforeEvidence {
    /// The feature's own tokens that were looked at.
    pub tokens: u64,
    /// Of them, those at which it is strongly active.
    pub active: u64,
    /// With these it is more often active.
    pub more: Vec<ProfileShare>,
    /// With these less often.
    pub less: Vec<ProfileShare>,
    /// Tokens at the distance that tells most, the most active first, with how many tokens before
    /// they stand; and at the next one, where these do not decide by themselves.
    pub deciding: Vec<(u32, Vec<ProfileShare>)>,
}

/// A part of a profile.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProfileShare {
    /// The token, or the positions.
    pub what: String,
    /// Tokens of the kind.
    pub tokens: u64,
    /// Of them, those at which it is active.
    pub active: u64,
    /// The mean level there.
    pub level: u32,
}

/// A source of activation, with the texts that have it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceShare {
    /// What it is, in words.
    pub what: String,
    /// Mean share of all that is read.
    pub share: f64,
    /// Texts in which it is among the largest.
    pub texts: u32,
}

/// A prompt of a task, in whose circuit the feature is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServedPrompt {
    /// What the task is, in words.
    pub task: String,
    /// Marked with levels.
    pub text: String,
    /// The positions at which it serves, in words.
    pub at: Vec<String>,
    /// What it feeds there, in words.
    pub feeds: Vec<String>,
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

#[derive(Serialize)]
struct View<'a> {
    about: &'a str,
    /// Causes that the explanation of a feature is to have a clause for.
    clauses: Vec<String>,
    #[serde(flatten)]
    evidence: &'a Evidence,
}

impl Evidence {
    /// Its prompt, which is also the explainer's name.
    pub fn prompt(&self) -> &'static str {
        match self {
            Evidence::Feature(_) => FEATURE,
            Evidence::Head(_) => HEAD,
            Evidence::Mlp(_) => "mlp",
            Evidence::Pair(_) => "pair",
            Evidence::Group(_) => "group",
        }
    }

    /// The question about a subject to a `model`, for the first of several replies; `about` says
    /// what the explained model is.
    ///
    /// # Errors
    /// When the prompt's templates lack something that they name.
    pub fn question(&self, subject: &Subject, model: &str, about: &str) -> Result<Question> {
        let clauses = match self {
            Evidence::Feature(own) => own.causes(),
            _ => Vec::new(),
        };
        let form = form(self.prompt(), !clauses.is_empty());
        let view = View { about, clauses, evidence: self };
        Ok(Question {
            subject: subject.clone(),
            purpose: "explain",
            model: model.into(),
            sample: 0,
            messages: prompts::messages(self.prompt(), view)?,
            form,
        })
    }
}

const HEAD: &str = "head";

/// Fields that replies about heads and about features have besides.
const OF_A_HEAD: &[&str] = &["matching", "carried"];
const OF_A_FEATURE: &[&str] = &["weakly", "reads_from"];
const CONFIDENCE: &[&str] = &["input_confidence", "output_confidence"];
const FEATURE: &str = "feature";
/// How sure one may be.
const SURE: &[&str] = &["high", "medium", "low"];

/// The form of the reply to a prompt; `clauses` says whether the texts have several causes.
fn form(prompt: &'static str, clauses: bool) -> Form {
    let besides = match prompt {
        HEAD => OF_A_HEAD,
        FEATURE => OF_A_FEATURE,
        _ => &[],
    };
    let sentences = ["input", "output"].iter().chain(besides);
    let mut properties: serde_json::Map<String, Value> =
        sentences.map(|name| (name.to_string(), json!({ "type": "string" }))).collect();
    properties.insert("promotes".into(), json!({ "type": "array", "items": { "type": "string" } }));
    if clauses {
        let clauses = json!({ "type": "array", "items": { "type": "string" } });
        properties.insert("clauses".into(), clauses);
    }
    if prompt == FEATURE {
        let sure = || json!({ "type": "string", "enum": SURE });
        properties.extend(CONFIDENCE.iter().map(|name| (name.to_string(), sure())));
    }
    let required: Vec<&String> = properties.keys().collect();
    let required = json!(required);
    let schema = json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    Form { name: prompt, schema }
}

/// A reply that has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The input side, one sentence: of a feature its peak.
    pub input: String,
    /// The output side, one sentence.
    pub output: String,
    /// Tokens that it claims to be promoted.
    pub promotes: Vec<String>,
    /// Of a feature: where it is active, but little; may be empty.
    pub weakly: String,
    /// Of an attention feature: where it reads from; may be empty.
    pub reads_from: String,
    /// Of a feature whose texts have several causes: a sentence for each.
    pub clauses: Vec<String>,
    /// Of a feature: how sure the input side is; else empty.
    pub input_confidence: String,
    /// Of a feature: how sure the output side is; else empty.
    pub output_confidence: String,
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
struct OfFeature {
    input: String,
    output: String,
    promotes: Vec<String>,
    // What says less than these may be left out.
    #[serde(default)]
    weakly: String,
    #[serde(default)]
    reads_from: String,
    #[serde(default)]
    clauses: Vec<String>,
    #[serde(default)]
    input_confidence: String,
    #[serde(default)]
    output_confidence: String,
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
    let mut read = match question.form.name {
        HEAD => {
            let OfHead { input, output, promotes, matching, carried } =
                OfHead::deserialize(reply).map_err(wrong)?;
            Reply { input, output, promotes, matching, carried, ..Reply::default() }
        }
        FEATURE => {
            let own = OfFeature::deserialize(reply).map_err(wrong)?;
            Reply {
                input: own.input,
                output: own.output,
                promotes: own.promotes,
                weakly: own.weakly,
                reads_from: own.reads_from,
                clauses: own.clauses,
                input_confidence: own.input_confidence,
                output_confidence: own.output_confidence,
                ..Reply::default()
            }
        }
        _ => {
            let Plain { input, output, promotes } = Plain::deserialize(reply).map_err(wrong)?;
            Reply { input, output, promotes, ..Reply::default() }
        }
    };
    check_sentence("input", &mut read.input)?;
    check_sentence("output", &mut read.output)?;
    if question.form.name == HEAD {
        check_sentence("matching", &mut read.matching)?;
        check_sentence("carried", &mut read.carried)?;
    }
    if question.form.name == FEATURE {
        check_optional("weakly", &mut read.weakly)?;
        check_optional("reads_from", &mut read.reads_from)?;
        for clause in &mut read.clauses {
            check_sentence("clauses", clause)?;
        }
        check_confidence("input_confidence", &mut read.input_confidence)?;
        check_confidence("output_confidence", &mut read.output_confidence)?;
    }
    read.promotes = claims(&read.promotes)?;
    Ok(read)
}

/// A sentence that may be empty.
fn check_optional(field: &str, sentence: &mut String) -> Result<(), String> {
    if sentence.trim().is_empty() {
        sentence.clear();
        return Ok(());
    }
    check_sentence(field, sentence)
}

fn check_confidence(field: &str, word: &mut String) -> Result<(), String> {
    *word = word.trim().to_lowercase();
    match word.is_empty() || SURE.contains(&word.as_str()) {
        true => Ok(()),
        false => Err(format!("`{field}` is none of `high`, `medium` and `low`")),
    }
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
        view.question(&Subject::Group("subject".into()), "model", "a model").unwrap()
    }

    fn feature() -> Question {
        question(Evidence::Feature(Box::default()))
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
        let cases: [(Change, &str); 12] = [
            (
                |r| r["input_confidence"] = json!("very"),
                "`input_confidence` is none of `high`, `medium` and `low`",
            ),
            (|r| r["weakly"] = json!("a\nb"), "`weakly` has line breaks or control characters"),
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
                "unknown field `why`, expected one of `input`, `output`, `promotes`, `weakly`, \
                 `reads_from`, `clauses`, `input_confidence`, `output_confidence`",
            ),
            (|r| *r = json!({ "input": "Fires.", "promotes": [] }), "missing field `output`"),
            (
                |r| *r = json!("Fires."),
                "invalid type: string \"Fires.\", expected struct OfFeature",
            ),
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
    fn a_feature_may_have_a_weak_side_a_source_and_confidence() {
        let mut reply = json!({ "input": "Active.", "output": "o", "promotes": [], "weakly": " ", "reads_from": "“and”", "input_confidence": "High " });
        let one = read(&feature(), &reply).unwrap();
        let said = [&one.weakly, &one.reads_from, &one.input_confidence, &one.output_confidence];
        assert_eq!(said, ["", "“and”", "high", ""]);
        reply["weakly"] = json!("Elsewhere.");
        assert_eq!(read(&feature(), &reply).unwrap().weakly, "Elsewhere.");
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
            let schema = form(prompt, false).schema;
            assert_eq!(schema["additionalProperties"], false);
            let properties: Vec<&String> =
                schema["properties"].as_object().unwrap().keys().collect();
            assert_eq!(schema["required"], json!(properties));
            assert_eq!(properties.len(), if prompt == HEAD { 5 } else { 7 });
        }
    }
}
