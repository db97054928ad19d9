//! Prompts of a file against recorded ids, and what a tokenizer that knows no names is told.

use crate::fixture::{tiny, tokenizer};
use circuit_atlas::config::{Task, TaskKind};
use circuit_atlas::error::{Result, report};
use circuit_atlas::task::{Prompt, digits, prompts};
use serde_json::{Value, json};

fn drawn(kind: TaskKind, file: Option<&str>) -> Result<Vec<Prompt>> {
    let task = Task { name: "task".into(), kind, prompts: None, seed: 1, file: file.map(String::from) };
    prompts(&task, &tiny(""), &tokenizer())
}

#[test]
fn prompts_of_a_file_are_those_of_the_reference() {
    let expected: Value = serde_json::from_slice(&std::fs::read(tiny("expected.json")).unwrap()).unwrap();
    let expected = expected["prompts"].as_array().unwrap();
    let prompts = drawn(TaskKind::Prompts, Some("prompts.jsonl")).unwrap();
    assert_eq!(prompts.len(), expected.len());
    for (prompt, expected) in prompts.iter().zip(expected) {
        assert_eq!(json!(prompt.tokens), expected["tokens"]);
        assert_eq!(json!(prompt.corrupted), expected["corrupted_tokens"]);
        assert_eq!(json!([prompt.correct, prompt.counter]), json!([expected["correct_id"], expected["counter_id"]]));
        assert_eq!(json!(prompt.template), expected["template"]);
    }
}

#[test]
fn a_tokenizer_without_the_words_is_told_what_to_do() {
    assert_eq!(digits(&tokenizer()), None);
    let ioi = report(&drawn(TaskKind::Ioi, None).unwrap_err());
    assert!(ioi.contains("names are single tokens, at least 5 are needed"), "{ioi}");
    let greater_than = report(&drawn(TaskKind::GreaterThan, None).unwrap_err());
    for message in [ioi, greater_than] {
        assert!(message.starts_with("error: cannot make the prompts of the task `task`\n"), "{message}");
        assert!(message.contains("hint: this tokenizer does not suit the task"), "{message}");
    }
}
