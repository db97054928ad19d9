//! Prompts that somebody wrote: JSONL of text, correct, counter, corrupted and template.
//!
//! Answers are text with its leading space, and one token each.

use super::{Measure, Prompt, Written, fits};
use crate::corpus::Tokenizer;
use crate::error::{Hint, Result, hint_of, hinted};
use crate::stats::strata::sample;
use crate::text_file;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Line {
    text: String,
    correct: String,
    counter: String,
    corrupted: String,
    template: String,
}

/// `n` prompts of a file, or all; blank lines are skipped. Which they are is drawn by `seed`, each
/// template in proportion: a file may be in the order of its templates. They stay in the order of
/// the file.
pub(super) fn prompts(
    path: &Path,
    n: Option<usize>,
    seed: u64,
    tokenizer: &Tokenizer,
    positions: usize,
) -> Result<Vec<Prompt>> {
    let text = text_file::read(path).hint(
        || format!("cannot read the prompts `{}`", path.display()),
        "set the task's `file` to a JSONL file in UTF-8, relative to the settings file",
    )?;
    let mut lengths = BTreeMap::new();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let (mut prompts, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in lines {
        let prompt = read(line, tokenizer).and_then(|prompt| {
            fits(&prompt, positions)?;
            line_up(prompt, number, &mut lengths)
        });
        match prompt {
            Ok(prompt) => prompts.push(prompt),
            Err(error) => wrong.push((number, error)),
        }
    }
    if !wrong.is_empty() {
        return Err(all_wrong(path, wrong));
    }
    if prompts.is_empty() {
        return Err(hinted(format!("`{}` is empty", path.display()), FIELDS));
    }
    Ok(sample(prompts, |prompt| prompt.template.clone(), n.unwrap_or(usize::MAX), seed))
}

/// The error of all lines that are wrong, so that they can be mended at once.
fn all_wrong(path: &Path, mut wrong: Vec<(u32, anyhow::Error)>) -> anyhow::Error {
    const MOST: usize = 10;
    if wrong.len() == 1 {
        let (number, error) = wrong.remove(0);
        return error.context(format!("`{}` line {number}", path.display()));
    }
    let hint = wrong.iter().find_map(|(_, error)| hint_of(error)).unwrap_or(FIELDS).to_string();
    let mut what = format!("`{}` has {} prompts that are wrong", path.display(), wrong.len());
    for (number, error) in wrong.iter().take(MOST) {
        what.push_str(&format!("\n    line {number}: {error:#}"));
    }
    if wrong.len() > MOST {
        what.push_str(&format!("\n    and {} more", wrong.len() - MOST));
    }
    hinted(what, hint)
}

const FIELDS: &str = "write one JSON object a line, with the strings `text`, `correct`, `counter`, \
    `corrupted` and `template`";

fn read(line: &str, tokenizer: &Tokenizer) -> Result<Prompt> {
    let Line { text, correct, counter, corrupted, template } = serde_json::from_str(line)
        .map_err(|error| hinted(format!("not a valid prompt: {error}"), FIELDS))?;
    let (correct, counter) =
        (answer("correct", &correct, tokenizer)?, answer("counter", &counter, tokenizer)?);
    if correct == counter {
        return Err(hinted(
            "`correct` and `counter` are the same",
            "give a wrong answer as `counter`",
        ));
    }
    Written {
        frame: template.clone(),
        stratum: template.clone(),
        template,
        text,
        corrupted,
        correct,
        counter,
        measure: Measure::LogitDifference,
    }
    .tokenise(tokenizer)
}

pub(super) fn answer(field: &str, text: &str, tokenizer: &Tokenizer) -> Result<u32> {
    tokenizer.single(text).ok_or_else(|| {
        let spaced = format!(" {text}");
        let hint = match tokenizer.single(&spaced) {
            Some(_) if !text.is_empty() => {
                format!("did you mean {spaced:?}? Words begin with their space")
            }
            _ => "an answer is one token, with its leading space if it has one, such as \" Mary\""
                .into(),
        };
        let ids = tokenizer.encode(text).unwrap_or_default();
        let tokens: Vec<String> =
            tokenizer.pieces(&ids).iter().map(|piece| format!("{:?}", piece.text)).collect();
        let are = match ids.len() {
            0 => String::new(),
            n => format!(" but {n}: {}", tokens.join(", ")),
        };
        hinted(format!("`{field}`, {text:?}, is not a single token{are}"), hint)
    })
}

/// Passes a prompt on if it is as long as the first one of its template.
fn line_up(
    prompt: Prompt,
    line: u32,
    lengths: &mut BTreeMap<String, (usize, u32)>,
) -> Result<Prompt> {
    let length = prompt.tokens.len();
    let (first, at) = *lengths.entry(prompt.template.clone()).or_insert((length, line));
    if first == length {
        return Ok(prompt);
    }
    let (n, first) = (length - 1, first - 1);
    let what =
        format!("{n} tokens, but line {at} of the same template {:?} has {first}", prompt.template);
    Err(hinted(
        what,
        "prompts of one template need the same number of tokens; give this one its own template",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{Prompts, doubt};
    use super::*;
    use crate::corpus::tokenizer::tests::demo;
    use crate::error::report;

    const GOOD: &str = concat!(
        r#"{"text": "Mary gave John", "correct": " a", "counter": " the", "#,
        r#""corrupted": "Mary gave Mary", "template": "t", "id": 1}"#
    );

    fn from(text: &str, n: usize) -> Result<Vec<Prompt>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.jsonl");
        std::fs::write(&path, text).unwrap();
        prompts(&path, Some(n), 1, &demo(), 128)
    }

    /// The message about a second line, in which `old` is `new`.
    fn message(old: &str, new: &str) -> String {
        assert!(GOOD.contains(old));
        report(&from(&format!("{GOOD}\n{}\n", GOOD.replace(old, new)), 9).unwrap_err())
    }

    #[test]
    fn prompts_are_read_as_they_are_written() {
        let tokenizer = demo();
        let prompts = from(&format!("{GOOD}\n\n{GOOD}\n{GOOD}\n"), 2).unwrap();
        assert_eq!(prompts.len(), 2);
        let prompt = &prompts[0];
        assert_eq!((prompt.text.as_str(), prompt.template.as_str()), ("Mary gave John", "t"));
        assert_eq!(prompt.tokens[0], tokenizer.bos());
        assert_eq!(tokenizer.decode(&prompt.tokens[1..]), "Mary gave John");
        assert_eq!(tokenizer.decode(&prompt.corrupted[1..]), "Mary gave Mary");
        assert_eq!([prompt.correct, prompt.counter].map(|id| tokenizer.token(id)), [" a", " the"]);
        assert_eq!(prompt.measure, Measure::LogitDifference);
    }

    #[test]
    fn end_of_text_that_a_prompt_begins_with_is_bos() {
        let plain = from(GOOD, 1).unwrap();
        let begun = GOOD.replace("\"Mary gave John", "\"<|endoftext|>Mary gave John");
        assert_eq!(from(&begun, 1).unwrap(), plain);
        let both = GOOD.replace("\"Mary gave", "\"<|endoftext|><|endoftext|>Mary gave");
        assert_eq!(from(&both, 1).unwrap(), plain);
        let nothing = GOOD.replace("\"Mary gave John\"", "\"<|endoftext|>\"");
        assert!(report(&from(&nothing, 1).unwrap_err()).contains("a text is empty"));
    }

    #[test]
    fn fewer_prompts_than_there_are_have_all_templates_in_proportion() {
        let line = |template: &str, i: usize| {
            GOOD.replace("\"t\"", &format!("\"{template}\""))
                .replace("\"Mary gave John\"", ["\"Mary gave a\"", "\"Mary gave the\""][i])
        };
        let sorted: Vec<String> = (0..16).map(|i| line(["t", "u"][i / 8], i % 2)).collect();
        let in_turn: Vec<String> = (0..16).map(|i| line(["t", "u"][i % 2], i / 2 % 2)).collect();
        for lines in [sorted, in_turn] {
            let prompts = from(&lines.join("\n"), 8).unwrap();
            let first = prompts.iter().filter(|prompt| prompt.template == "t").count();
            assert_eq!((first, prompts.len()), (4, 8));
            assert_eq!(prompts, from(&lines.join("\n"), 8).unwrap());
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            ("{", "", "not a valid prompt", "write one JSON object a line"),
            (
                "\"counter\"",
                "\"contra\"",
                "missing field `counter`",
                "write one JSON object a line",
            ),
            (
                "\" a\"",
                "\" a b\"",
                "`correct`, \" a b\", is not a single token",
                "an answer is one token",
            ),
            (
                "\" the\"",
                "\"\"",
                "`counter`, \"\", is not a single token",
                "an answer is one token",
            ),
            ("\" the\"", "\" a\"", "`correct` and `counter` are the same", "a wrong answer"),
            (
                "gave Mary",
                "gave Mary a",
                "has 3 tokens, the corrupted prompt 4",
                "the same number of tokens",
            ),
            ("\"Mary gave John\"", "\"\"", "a text is empty", "before the answer"),
        ];
        for (old, new, what, hint) in cases {
            let message = message(old, new);
            assert!(message.contains("mine.jsonl` line 2"), "{message}");
            assert!(message.contains(what), "{message}");
            assert!(
                message.lines().any(|line| line.starts_with("hint: ") && line.contains(hint)),
                "{message}"
            );
        }
    }

    #[test]
    fn all_wrong_lines_are_named_at_once_and_no_more_than_ten() {
        let two = GOOD.replace("\" a\"", "\" a the\"");
        let message = report(&from(&format!("{GOOD}\n{two}\n{{\n{two}\n"), 9).unwrap_err());
        let told = "mine.jsonl` has 3 prompts that are wrong\n    line 2: `correct`, \" a the\", is \
                    not a single token but 2: \" a\", \" the\"\n    line 3: not a valid prompt: ";
        assert!(message.contains(told), "{message}");
        assert!(message.contains("\n    line 4: `correct`"), "{message}");
        assert!(message.contains("hint: an answer is one token, with its leading"), "{message}");
        let message = report(&from(&format!("{two}\n").repeat(13), 9).unwrap_err());
        assert!(message.contains("has 13 prompts that are wrong"), "{message}");
        assert!(message.contains("\n    line 10: "), "{message}");
        assert!(
            !message.contains("line 11: ") && message.contains("\n    and 3 more"),
            "{message}"
        );
    }

    #[test]
    fn prompts_longer_than_the_models_positions_are_named_with_their_lengths() {
        let long = GOOD.replace("Mary gave", &["Mary gave"; 80].join(" "));
        let length = demo().encode(&["Mary gave"; 80].join(" ")).unwrap().len() + 2;
        let message = report(&from(&format!("{GOOD}\n{long}\n{long}\n"), 9).unwrap_err());
        for line in [2, 3] {
            let told = format!(
                "\n    line {line}: {length} tokens, BOS included, are more than the model's 128 \
                 positions"
            );
            assert!(message.contains(&told), "{message}");
        }
        assert!(message.contains("hint: shorten the prompt"), "{message}");
    }

    #[test]
    fn a_byte_order_mark_and_line_ends_of_windows_are_read() {
        let plain = from(&format!("{GOOD}\n{GOOD}\n"), 9).unwrap();
        assert_eq!(from(&format!("\u{feff}{GOOD}\r\n{GOOD}\r\n"), 9).unwrap(), plain);
    }

    #[test]
    fn prompts_that_end_in_a_space_are_told_of() {
        let spaced = GOOD.replace("John\"", "John \"").replace("Mary\", \"t", "Mary \", \"t");
        let of = |text: &str| Prompts { finding: from(text, 9).unwrap(), ..Default::default() };
        assert_eq!(doubt(&of(GOOD)), None);
        let template = spaced.replace("\"t\"", "\"u\"");
        let told = doubt(&of(&format!("{GOOD}\n{template}\n"))).unwrap();
        assert!(told.starts_with("1 of 2 prompts end in a space"), "{told}");
    }

    #[test]
    fn prompts_of_a_template_are_of_one_length() {
        let longer = GOOD.replace("Mary gave", "Then Mary gave");
        let message = report(&from(&format!("\n{GOOD}\n{longer}\n"), 9).unwrap_err());
        assert!(message.contains("mine.jsonl` line 3"), "{message}");
        assert!(message.contains("but line 2 of the same template \"t\" has"), "{message}");
        let other = longer.replace("\"t\"", "\"u\"");
        assert_eq!(from(&format!("{GOOD}\n{other}\n"), 9).unwrap().len(), 2);
    }

    #[test]
    fn an_empty_or_missing_file_is_an_error() {
        assert!(report(&from("\n\n", 9).unwrap_err()).contains("mine.jsonl` is empty"));
        let missing = prompts(Path::new("no/such.jsonl"), None, 1, &demo(), 128).unwrap_err();
        assert!(report(&missing).contains("cannot read the prompts `no/such.jsonl`"));
    }
}
