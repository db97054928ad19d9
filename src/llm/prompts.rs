//! Prompts: minijinja templates in `templates/prompts/`, a pair each: `NAME.system.jinja` says what the work is, with worked
//! examples, and `NAME.user.jinja` holds what this question is about.
//!
//! Text of a corpus is put in as it is, on one line a text: nothing here reads it again, and no reply is trusted.

use super::{Message, Speaker};
use crate::error::{Context, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

/// Templates by name.
const TEMPLATES: [(&str, &str); 3] = [
    ("form-line.jinja", include_str!("../../templates/prompts/form-line.jinja")),
    ("form-schema.jinja", include_str!("../../templates/prompts/form-schema.jinja")),
    ("repair.jinja", include_str!("../../templates/prompts/repair.jinja")),
];

/// The two messages of a prompt.
///
/// # Errors
/// When a template lacks something that it names.
pub fn messages(prompt: &str, view: impl Serialize) -> Result<Vec<Message>> {
    let environment = environment()?;
    let view = Value::from(Serde(view));
    let say = |speaker: Speaker| {
        let name = format!("{prompt}.{}.jinja", speaker.word());
        let text = environment.get_template(&name)?.render(&view);
        let text = text.with_context(|| format!("cannot write the prompt `{name}`"))?;
        Ok(Message { speaker, text: text.trim().into() })
    };
    [Speaker::System, Speaker::User].into_iter().map(say).collect()
}

/// The text of one template.
///
/// # Errors
/// When it lacks something that it names.
pub(super) fn text(name: &str, view: impl Serialize) -> Result<String> {
    let text = environment()?.get_template(name)?.render(Value::from(Serde(view)));
    Ok(text.with_context(|| format!("cannot write `{name}`"))?.trim().into())
}

fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source).with_context(|| format!("cannot read the template `{name}`"))?;
    }
    Ok(environment)
}
