//! What a judge is asked about an explanation, and how the verdict is read.
//!
//! *Detection*: in which of these texts is the feature active? *Fuzzing*: in which of them are the
//! right tokens marked? The judge sees what an explanation says of the input side, and numbered
//! texts, and names the numbers to say yes to.

use super::{Form, Question, prompts};
use crate::error::Result;
use crate::ids::Subject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A way to put an explanation to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JudgeMethod {
    /// Asks in which texts the feature is active.
    Detection,
    /// Asks in which texts the right tokens are marked.
    Fuzzing,
}

impl JudgeMethod {
    /// The word in artifacts and the ledger, and the prompt's name.
    pub fn word(self) -> &'static str {
        match self {
            JudgeMethod::Detection => "detection",
            JudgeMethod::Fuzzing => "fuzzing",
        }
    }

    fn asks_for(self) -> &'static str {
        match self {
            JudgeMethod::Detection => {
                "the numbers of the texts in which the feature is active, in order; empty if there \
                 are none"
            }
            JudgeMethod::Fuzzing => {
                "the numbers of the texts that are marked rightly, in order; empty if there are \
                 none"
            }
        }
    }
}

/// What a judge is told besides an explanation and texts.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Setting<'a> {
    /// What the explained model is.
    pub about: &'a str,
    /// Share of the largest activation from which on a text counts as active.
    pub threshold: f64,
}

#[derive(Serialize)]
struct View<'a> {
    about: &'a str,
    threshold: f64,
    explanation: &'a str,
    texts: &'a [&'a str],
}

/// Asks what an explanation says of some texts.
///
/// # Errors
/// When the prompt's templates lack something that they name.
pub fn question(
    method: JudgeMethod,
    subject: &Subject,
    model: &str,
    setting: Setting,
    explanation: &str,
    texts: &[&str],
) -> Result<Question> {
    let view = View { about: setting.about, threshold: setting.threshold, explanation, texts };
    Ok(Question {
        subject: subject.clone(),
        purpose: method.word(),
        model: model.into(),
        sample: 0,
        messages: prompts::messages(method.word(), view)?,
        form: form(method, texts.len()),
    })
}

/// The numbers are spelled out: not every server knows a schema's bounds, but all know its `enum`.
fn form(method: JudgeMethod, texts: usize) -> Form {
    let numbers: Vec<usize> = (1..=texts).collect();
    let items = json!({ "type": "integer", "enum": numbers });
    let yes = json!({ "type": "array", "description": method.asks_for(), "items": items });
    let schema = json!({
        "type": "object",
        "properties": { "yes": yes },
        "required": ["yes"],
        "additionalProperties": false,
    });
    Form { name: method.word(), schema }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    yes: Vec<u64>,
}

/// Reads the verdict on each text of a question. Nothing is guessed or put right.
///
/// # Errors
/// What is wrong with it, for the one who wrote it.
pub fn read(question: &Question, reply: &Value) -> Result<Vec<bool>, String> {
    let texts =
        question.form.schema["properties"]["yes"]["items"]["enum"].as_array().map_or(0, Vec::len);
    let Reply { yes } = Reply::deserialize(reply).map_err(|error| error.to_string())?;
    let mut verdicts = vec![false; texts];
    for number in yes {
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let Some(verdict) = at.and_then(|at| verdicts.get_mut(at)) else {
            return Err(format!(
                "`yes` contains {number}, but the texts are numbered from 1 to {texts}"
            ));
        };
        if std::mem::replace(verdict, true) {
            return Err(format!("`yes` contains {number} twice"));
        }
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting = Setting { about: "a small model", threshold: 0.25 };

    fn asked() -> Question {
        question(
            JudgeMethod::Detection,
            &"mlp0.1".parse().unwrap(),
            "m",
            SETTING,
            "Fires at ships.",
            &["a boat", "a ship", "a cart"],
        )
        .unwrap()
    }

    #[test]
    fn numbers_become_a_verdict_on_each_text() {
        let verdicts = |yes: Value| read(&asked(), &json!({ "yes": yes })).unwrap();
        assert_eq!(verdicts(json!([1, 3])), [true, false, true]);
        assert_eq!(verdicts(json!([3, 1])), [true, false, true]);
        assert_eq!(verdicts(json!([])), [false; 3]);
    }

    #[test]
    fn a_verdict_that_is_not_as_asked_is_refused_with_the_reason() {
        let cases = [
            (json!({ "yes": [0] }), "`yes` contains 0, but the texts are numbered from 1 to 3"),
            (json!({ "yes": [1, 4] }), "`yes` contains 4, but the texts are numbered from 1 to 3"),
            (json!({ "yes": [2, 2] }), "`yes` contains 2 twice"),
            (json!({ "yes": [-1] }), "invalid value: integer `-1`, expected u64"),
            (json!({ "yes": [1.0] }), "invalid type: floating point `1.0`, expected u64"),
            (json!({ "yes": ["1"] }), "invalid type: string \"1\", expected u64"),
            (json!({ "yes": "all" }), "invalid type: string \"all\", expected a sequence"),
            (json!({ "yes": [true] }), "invalid type: boolean `true`, expected u64"),
            (json!({}), "missing field `yes`"),
            (json!({ "yes": [], "no": [1] }), "unknown field `no`, expected `yes`"),
            (json!([1]), "invalid type: integer `1`, expected a sequence"),
        ];
        for (reply, expected) in cases {
            assert_eq!(read(&asked(), &reply).unwrap_err(), expected, "{reply}");
        }
    }

    #[test]
    fn the_form_names_every_number() {
        let form = asked().form;
        assert_eq!(form.schema["properties"]["yes"]["items"]["enum"], json!([1, 2, 3]));
        assert_eq!((form.name, asked().purpose), ("detection", "detection"));
        assert_eq!(form.schema["additionalProperties"], false);
    }

    #[test]
    fn a_question_numbers_its_texts_and_says_nothing_else_of_them() {
        for method in [JudgeMethod::Detection, JudgeMethod::Fuzzing] {
            let text = |texts: &[&str]| {
                question(method, &"mlp0.1".parse().unwrap(), "m", SETTING, "Fires at ships.", texts)
                    .unwrap()
                    .messages
            };
            let [system, user] = &text(&["a «boat»", "2. a\nship"])[..] else {
                panic!("two messages")
            };
            assert!(
                user.text.contains("Fires at ships.")
                    && user.text.ends_with("1. a «boat»\n2. 2. a ship"),
                "{}",
                user.text
            );
            assert!(!user.text.contains("mlp0.1") && !system.text.contains("mlp0.1"));
            assert_eq!(*system, text(&["x"])[0], "texts are not in the system message");
        }
    }
}
