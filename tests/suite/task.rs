//! Prompts of a file against recorded ids, and what a tokenizer that knows no names is told.

use crate::fixture::{Fixture, in_every_world};
use circuit_atlas::config::{Task, TaskKind};
use circuit_atlas::error::{Result, report};
use circuit_atlas::task::{Prompt, Wanted, digits, prompts};

in_every_world!(
    prompts_of_a_file_are_those_of_the_reference,
    a_tokenizer_without_the_words_is_told_what_to_do,
);

fn drawn(f: &Fixture, kind: TaskKind, file: Option<&str>) -> Result<Vec<Prompt>> {
    let task = Task {
        name: "task".into(),
        kind,
        prompts: None,
        seed: 1,
        file: file.map(String::from),
        published: String::new(),
        wrong: Default::default(),
    };
    let positions = f.model().sizes.positions;
    Ok(prompts(&task, Wanted::default(), &f.path(""), &f.tokenizer(), positions)?.finding)
}

fn prompts_of_a_file_are_those_of_the_reference(f: &'static Fixture) {
    let expected = &f.expected.prompts;
    let prompts = drawn(f, TaskKind::Prompts, Some("prompts.jsonl")).unwrap();
    assert_eq!(prompts.len(), expected.len());
    for (prompt, expected) in prompts.iter().zip(expected) {
        assert_eq!(
            (&prompt.tokens, &prompt.corrupted),
            (&expected.tokens, &expected.corrupted_tokens)
        );
        assert_eq!((prompt.correct, prompt.counter), (expected.correct_id, expected.counter_id));
        assert_eq!(prompt.template, expected.template);
    }
}

fn a_tokenizer_without_the_words_is_told_what_to_do(f: &'static Fixture) {
    assert_eq!(digits(&f.tokenizer()), None);
    let ioi = report(&drawn(f, TaskKind::Ioi, None).unwrap_err());
    assert!(ioi.contains("names are single tokens, at least 5 are needed"), "{ioi}");
    let greater_than = report(&drawn(f, TaskKind::GreaterThan, None).unwrap_err());
    for message in [ioi, greater_than] {
        assert!(
            message.starts_with("error: cannot make the prompts of the task `task`\n"),
            "{message}"
        );
        assert!(message.contains("hint: this tokenizer does not fit the task"), "{message}");
    }
}
