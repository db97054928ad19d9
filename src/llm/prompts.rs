//! Prompts: minijinja templates in `templates/prompts/`, a pair each: `NAME.system.jinja` says what
//! the work is, with worked examples, and `NAME.user.jinja` holds what this question is about.
//!
//! Text of a corpus is put in as it is, on one line whatever it holds: nothing here reads it again,
//! and no reply is trusted.

use super::{ChatRole, Message};
use crate::error::{Context, Result};
use crate::summary::{percent, quoted};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Output, State, UndefinedBehavior, escape_formatter};
use serde::Serialize;
use std::sync::OnceLock;

/// Templates by name.
const TEMPLATES: [(&str, &str); 26] = [
    ("detection.system.jinja", include_str!("../../templates/prompts/detection.system.jinja")),
    ("detection.user.jinja", include_str!("../../templates/prompts/detection.user.jinja")),
    ("feature.system.jinja", include_str!("../../templates/prompts/feature.system.jinja")),
    ("feature.user.jinja", include_str!("../../templates/prompts/feature.user.jinja")),
    ("fields.jinja", include_str!("../../templates/prompts/fields.jinja")),
    ("form-line.jinja", include_str!("../../templates/prompts/form-line.jinja")),
    ("form-schema.jinja", include_str!("../../templates/prompts/form-schema.jinja")),
    ("fuzzing.system.jinja", include_str!("../../templates/prompts/fuzzing.system.jinja")),
    ("fuzzing.user.jinja", include_str!("../../templates/prompts/fuzzing.user.jinja")),
    ("group.system.jinja", include_str!("../../templates/prompts/group.system.jinja")),
    ("group.user.jinja", include_str!("../../templates/prompts/group.user.jinja")),
    ("head.system.jinja", include_str!("../../templates/prompts/head.system.jinja")),
    ("head.user.jinja", include_str!("../../templates/prompts/head.user.jinja")),
    ("intruder.system.jinja", include_str!("../../templates/prompts/intruder.system.jinja")),
    ("intruder.user.jinja", include_str!("../../templates/prompts/intruder.user.jinja")),
    ("joint.jinja", include_str!("../../templates/prompts/joint.jinja")),
    ("members.jinja", include_str!("../../templates/prompts/members.jinja")),
    ("mlp.system.jinja", include_str!("../../templates/prompts/mlp.system.jinja")),
    ("mlp.user.jinja", include_str!("../../templates/prompts/mlp.user.jinja")),
    ("pair.system.jinja", include_str!("../../templates/prompts/pair.system.jinja")),
    ("pair.user.jinja", include_str!("../../templates/prompts/pair.user.jinja")),
    ("reading.jinja", include_str!("../../templates/prompts/reading.jinja")),
    ("repair.jinja", include_str!("../../templates/prompts/repair.jinja")),
    ("rules.jinja", include_str!("../../templates/prompts/rules.jinja")),
    ("task.jinja", include_str!("../../templates/prompts/task.jinja")),
    ("tokens.jinja", include_str!("../../templates/prompts/tokens.jinja")),
];

/// The two messages of a prompt.
///
/// # Errors
/// When a template lacks something that it names.
pub fn messages(prompt: &str, view: impl Serialize) -> Result<Vec<Message>> {
    let environment = environment()?;
    let view = Value::from(Serde(view));
    let say = |role: ChatRole| {
        let name = format!("{prompt}.{}.jinja", role.word());
        let text = environment.get_template(&name)?.render(&view);
        let text = text.with_context(|| format!("cannot write the prompt `{name}`"))?;
        Ok(Message { role, text: text.trim().into() })
    };
    [ChatRole::System, ChatRole::User].into_iter().map(say).collect()
}

/// The text of one template.
///
/// # Errors
/// When it lacks something that it names.
pub(super) fn text(name: &str, view: impl Serialize) -> Result<String> {
    let text = environment()?.get_template(name)?.render(Value::from(Serde(view)));
    Ok(text.with_context(|| format!("cannot write `{name}`"))?.trim().into())
}

/// All templates, read once: there may be a hundred thousand questions.
fn environment() -> Result<&'static Environment<'static>> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let made = read_all()?;
    Ok(ENVIRONMENT.get_or_init(|| made))
}

fn read_all() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()?,
    );
    environment.set_formatter(one_line);
    environment.add_filter("quoted", |token: &str| quoted(token));
    environment.add_filter("percent", percent);
    environment.add_filter("signed", signed);
    for (name, source) in TEMPLATES {
        environment
            .add_template(name, source)
            .with_context(|| format!("cannot read the template `{name}`"))?;
    }
    Ok(environment)
}

/// A logit: of a set it may be small, as its features seldom serve.
fn signed(x: f64) -> String {
    if x.abs() < 0.1 { format!("{x:+.3}") } else { format!("{x:+.2}") }
}

/// What is put into a template never breaks a line there, so that it cannot pass for a line of the
/// template's own.
fn one_line(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    match value.as_str() {
        Some(text) => {
            let breaks = |c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}';
            let line: String = text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect();
            escape_formatter(out, state, &Value::from(line))
        }
        None => escape_formatter(out, state, value),
    }
}
