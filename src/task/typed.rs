//! A prompt that somebody types, with its answers.

use super::{Measure, Prompt, Written, file::answer, fits};
use crate::corpus::Tokenizer;
use crate::error::{Result, hinted};

/// What was typed.
#[derive(Clone, Debug, Default)]
pub(crate) struct TypedText {
    /// What is before the answer.
    pub text: String,
    /// The right answer, with its leading space.
    pub correct: Option<String>,
    /// A wrong one.
    pub counter: Option<String>,
    /// The text with what its answer depends on taken out.
    pub corrupted: Option<String>,
}

/// The same in tokens; its right answer may still be open.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    prompt: Prompt,
    correct: Option<u32>,
    counter: Option<u32>,
    /// What is odd about it, but stops nothing.
    pub doubts: Vec<String>,
}

impl Typed {
    /// # Errors
    /// When the text is empty, longer than the model's `positions` or has a special token; when an
    /// answer is not one token, or both are the same; when the corrupted text is of another length.
    pub(crate) fn new(typed: &TypedText, tokenizer: &Tokenizer, positions: usize) -> Result<Typed> {
        let of = |field: &str, text: &Option<String>| {
            text.as_ref().map(|text| one_token(field, text, tokenizer)).transpose()
        };
        let (correct, counter) =
            (of("--correct", &typed.correct)?, of("--counter", &typed.counter)?);
        if correct.is_some() && correct == counter {
            return Err(hinted(
                "`--correct` and `--counter` are the same",
                "give a wrong answer as `--counter`",
            ));
        }
        let (template, any) = (String::new(), correct.or(counter).unwrap_or_default());
        let prompt = Written {
            frame: template.clone(),
            stratum: template.clone(),
            template,
            text: typed.text.clone(),
            corrupted: typed.corrupted.as_ref().unwrap_or(&typed.text).clone(),
            correct: any,
            counter: any,
            measure: Measure::Logit,
        }
        .tokenise(tokenizer)?;
        fits(&prompt, positions)?;
        check_plain("text", &prompt.tokens, tokenizer)?;
        check_plain("corrupted text", &prompt.corrupted, tokenizer)?;
        Ok(Typed { prompt, correct, counter, doubts: doubts(typed, tokenizer) })
    }

    /// BOS first.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.prompt.tokens
    }

    /// The right answer, if it was typed.
    pub(crate) fn correct(&self) -> Option<u32> {
        self.correct
    }

    /// The wrong answer, if it was typed.
    pub(crate) fn counter(&self) -> Option<u32> {
        self.counter
    }

    /// The prompt with its right answer: measured by the logit difference, or without a wrong
    /// answer by the right one's logit.
    ///
    /// # Errors
    /// When the wrong answer is the model's.
    pub(crate) fn prompt(&self, correct: u32) -> Result<Prompt> {
        if self.counter == Some(correct) {
            return Err(hinted(
                "`--counter` is the model's own first answer",
                "name the right answer with `--correct`",
            ));
        }
        let measure =
            if self.counter.is_some() { Measure::LogitDifference } else { Measure::Logit };
        let counter = self.counter.unwrap_or(correct);
        Ok(Prompt { correct, counter, measure, ..self.prompt.clone() })
    }
}

/// # Errors
/// When a text is not one token, or a special one.
fn one_token(field: &str, text: &str, tokenizer: &Tokenizer) -> Result<u32> {
    let id = answer(field, text, tokenizer)?;
    if tokenizer.is_special(id) {
        return Err(hinted(
            format!("`{field}`, {text:?}, is a special token"),
            "an answer is a token of text, such as \" Mary\"",
        ));
    }
    Ok(id)
}

/// # Errors
/// When there is a special token behind BOS.
fn check_plain(what: &str, tokens: &[u32], tokenizer: &Tokenizer) -> Result<()> {
    match (0..).zip(tokens).skip(1).find(|(_, id)| tokenizer.is_special(**id)) {
        None => Ok(()),
        Some((position, &id)) => Err(hinted(
            format!(
                "the {what} has the special token `{}` at position {position}",
                tokenizer.token(id)
            ),
            "a prompt is one text: leave special tokens out; BOS is put in front of it",
        )),
    }
}

fn doubts(typed: &TypedText, tokenizer: &Tokenizer) -> Vec<String> {
    if typed.text.ends_with(char::is_whitespace) {
        return vec![
            "the text ends in a space: GPT-2's words begin with theirs, so the space belongs in \
             front of the answer, as in \" Mary\""
                .into(),
        ];
    }
    let bare = |(field, text): (&str, &Option<String>)| {
        let text = text.as_ref().filter(|text| text.starts_with(char::is_alphanumeric))?;
        let spaced = format!(" {text}");
        tokenizer.single(&spaced).map(|_| {
            format!(
                "`{field}`, {text:?}, continues the last word of the text; as a word of its own it is {spaced:?}"
            )
        })
    };
    [("--correct", &typed.correct), ("--counter", &typed.counter)]
        .into_iter()
        .filter_map(bare)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::tokenizer::tests::demo;
    use crate::error::report;

    fn typed(text: &str, correct: Option<&str>, counter: Option<&str>) -> TypedText {
        let [correct, counter] = [correct, counter].map(|answer| answer.map(String::from));
        TypedText { text: text.into(), correct, counter, corrupted: None }
    }

    fn refused(typed: &TypedText) -> String {
        report(&Typed::new(typed, &demo(), 128).unwrap_err())
    }

    #[test]
    fn answers_are_those_that_were_typed_or_the_models() {
        let tokenizer = demo();
        let [a, the] = [" a", " the"].map(|text| tokenizer.single(text).unwrap());
        let both = Typed::new(&typed("Mary gave John", Some(" a"), Some(" the")), &tokenizer, 128);
        let prompt = both.unwrap().prompt(a).unwrap();
        assert_eq!((prompt.correct, prompt.counter), (a, the));
        assert_eq!(prompt.measure, Measure::LogitDifference);
        assert_eq!(tokenizer.decode(&prompt.tokens[1..]), "Mary gave John");
        let none = Typed::new(&typed("Mary gave John", None, None), &tokenizer, 128).unwrap();
        let prompt = none.prompt(the).unwrap();
        assert_eq!((prompt.correct, prompt.measure), (the, Measure::Logit));
        let counter = Typed::new(&typed("Mary gave John", None, Some(" the")), &tokenizer, 128);
        let message = report(&counter.unwrap().prompt(the).unwrap_err());
        assert!(message.contains("is the model's own first answer"), "{message}");
    }

    #[test]
    fn what_cannot_be_traced_is_refused() {
        let long = ["Mary gave"; 80].join(" ");
        let cases = [
            (typed("", None, None), "a text is empty"),
            (typed("<|endoftext|>", None, None), "a text is empty"),
            (
                typed("Mary<|endoftext|>gave", None, None),
                "special token `<|endoftext|>` at position 2",
            ),
            (typed(&long, None, None), "are more than the model's 128 positions"),
            (
                typed("Mary", Some(" a b"), None),
                "`--correct`, \" a b\", is not a single token but 2: \" a\", \" b\"",
            ),
            (typed("Mary", None, Some("")), "`--counter`, \"\", is not a single token"),
            (typed("Mary", Some("<|endoftext|>"), None), "is a special token"),
        ];
        for (typed, told) in cases {
            let message = refused(&typed);
            assert!(message.contains(told) && message.contains("hint: "), "{message}");
        }
        let shorter =
            TypedText { corrupted: Some("Mary".into()), ..typed("Mary gave", None, None) };
        assert!(refused(&shorter).contains("the text has 2 tokens, the corrupted prompt 1"));
    }

    #[test]
    fn spaces_at_the_wrong_place_are_told_of() {
        let told = |typed: &TypedText| Typed::new(typed, &demo(), 128).unwrap().doubts;
        assert!(told(&typed("Mary gave John", Some(" a"), None)).is_empty());
        assert!(told(&typed("Mary gave John ", Some(" a"), None))[0].contains("ends in a space"));
        assert!(told(&typed("Mary gave John", Some("a"), None))[0].contains("it is \" a\""));
    }
}
