//! What a judge is asked about an explanation, and how the verdict is read.
//!
//! *Detection*: in which of these texts is the feature active? *Fuzzing*: in which of them are the
//! right tokens marked? The judge sees what an explanation says of the input side, and numbered
//! texts, and names the numbers to say yes to. *Intruder*: in which of five marked texts is the
//! feature inactive? There the judge sees no explanation. *Embedding* asks for similarities
//! instead.

use super::{Form, Question, embedding, prompts};
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
    /// Asks how similar texts are to the explanation.
    Embedding,
    /// Asks in which one of several texts the feature is inactive.
    Intruder,
}

impl JudgeMethod {
    /// The word in artifacts and the ledger, and the prompt's name.
    pub fn word(self) -> &'static str {
        match self {
            JudgeMethod::Detection => "detection",
            JudgeMethod::Fuzzing => "fuzzing",
            JudgeMethod::Embedding => embedding::EMBEDDING,
            JudgeMethod::Intruder => INTRUDER,
        }
    }
}

/// The form's name and the method.
const INTRUDER: &str = "intruder";

/// What a judge is told besides an explanation and texts.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Setting<'a> {
    /// What the explained model is.
    pub about: &'a str,
    /// Share of the largest activation from which on a text counts as active.
    pub threshold: f64,
    /// What an embedder wants before an explanation, and before a text.
    pub prefixes: [&'a str; 2],
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
    if method == JudgeMethod::Embedding {
        let [query, passage] = setting.prefixes;
        let texts: Vec<String> = texts.iter().map(|text| format!("{passage}{text}")).collect();
        return Ok(embedding::question(subject, model, &format!("{query}{explanation}"), &texts));
    }
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
    let number = json!({ "type": "integer", "enum": numbers });
    let yes =
        |asked: &str| json!({ "yes": { "type": "array", "description": asked, "items": number } });
    let properties = match method {
        JudgeMethod::Fuzzing => yes(
            "the numbers of the texts that are marked rightly, in order; empty if there are none",
        ),
        JudgeMethod::Intruder => json!({ "intruder": {
            "type": "integer",
            "description": "the number of the text in which the feature is inactive",
            "enum": numbers,
        } }),
        _ => yes(
            "the numbers of the texts in which the feature is active, in order; empty if there are \
             none",
        ),
    };
    let required: Vec<&String> =
        properties.as_object().into_iter().flat_map(|all| all.keys()).collect();
    let schema = json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    });
    Form { name: method.word(), schema }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    yes: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IntruderReply {
    intruder: u64,
}

/// Reads the verdict on each text of a question: 1 for yes and 0 for no, or how similar it is to
/// the explanation. Nothing is guessed or put right.
///
/// # Errors
/// What is wrong with it, for the one who wrote it.
pub fn read(question: &Question, reply: &Value) -> Result<Vec<f64>, String> {
    if question.form.name == embedding::EMBEDDING {
        return embedding::read(question, reply);
    }
    let wrong = |error: serde_json::Error| error.to_string();
    let properties = &question.form.schema["properties"];
    let (field, numbers, yes) = match question.form.name {
        INTRUDER => {
            let IntruderReply { intruder } = IntruderReply::deserialize(reply).map_err(wrong)?;
            ("intruder", &properties["intruder"]["enum"], vec![intruder])
        }
        _ => {
            let Reply { yes } = Reply::deserialize(reply).map_err(wrong)?;
            ("yes", &properties["yes"]["items"]["enum"], yes)
        }
    };
    let texts = numbers.as_array().map_or(0, Vec::len);
    let mut verdicts = vec![0.0; texts];
    for number in yes {
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let Some(verdict) = at.and_then(|at| verdicts.get_mut(at)) else {
            return Err(format!(
                "`{field}` contains {number}, but the texts are numbered from 1 to {texts}"
            ));
        };
        if std::mem::replace(verdict, 1.0) > 0.0 {
            return Err(format!("`{field}` contains {number} twice"));
        }
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting =
        Setting { about: "a small model", threshold: 0.25, prefixes: ["query: ", ""] };

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
        assert_eq!(verdicts(json!([1, 3])), [1.0, 0.0, 1.0]);
        assert_eq!(verdicts(json!([3, 1])), [1.0, 0.0, 1.0]);
        assert_eq!(verdicts(json!([])), [0.0; 3]);
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
    fn an_intruder_is_one_of_the_texts() {
        let method = JudgeMethod::Intruder;
        let texts = ["a «boat»", "a «ship»", "a «red» cart"];
        let asked =
            question(method, &"mlp0.1".parse().unwrap(), "m", SETTING, "Secret.", &texts).unwrap();
        assert!(asked.messages.iter().all(|message| !message.text.contains("Secret")));
        let verdict = |n: i64| read(&asked, &json!({ "intruder": n }));
        assert_eq!(verdict(3).unwrap(), [0.0, 0.0, 1.0]);
        let wrong = "`intruder` contains 4, but the texts are numbered from 1 to 3";
        assert_eq!(verdict(4).unwrap_err(), wrong);
        assert!(read(&asked, &json!({ "yes": [1] })).is_err());
    }

    #[test]
    fn an_embedder_is_given_what_it_wants_before_texts() {
        let method = JudgeMethod::Embedding;
        let asked =
            question(method, &"mlp0.1".parse().unwrap(), "m", SETTING, "Ships.", &["a boat"]);
        let texts = asked.unwrap().messages.into_iter().map(|message| message.text);
        assert_eq!(texts.collect::<Vec<_>>(), ["query: Ships.", "a boat"]);
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
