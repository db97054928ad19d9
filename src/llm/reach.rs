//! One small question, to see whether a server is there, knows the model, and takes the key.

use super::ask::runtime;
use super::client::{Client, Live, Trouble};
use super::dialect::Dialect;
use super::letter::{Letter, Mode};
use super::weather::{self, Weather, quoted};
use super::{Form, Message, Question, Speaker};
use crate::config::Llm;
use crate::error::{Result, hinted};
use serde_json::json;
use std::time::Instant;

/// Asks a model one small question, once. What came of it: how long it took, and how its replies
/// are brought into form.
///
/// # Errors
/// When there is no key, or no reply: with what to do about it.
pub fn reach(llm: &Llm, model: &str) -> Result<String> {
    let text = "Is anybody there?".to_string();
    let schema = json!({
        "type": "object",
        "properties": { "there": { "type": "boolean", "description": "true" } },
        "required": ["there"],
        "additionalProperties": false,
    });
    let question = Question {
        subject: String::new(),
        purpose: "reach",
        model: model.into(),
        sample: 0,
        messages: vec![Message { speaker: Speaker::User, text }],
        form: Form { name: "presence", schema },
    };
    let runtime = runtime()?;
    let begun = Instant::now();
    let reached = runtime.block_on(async { once(&Live::new(llm)?, llm, &question).await });
    runtime.shutdown_background();
    let (mode, served) = reached?;
    let form = match mode {
        Mode::Schema => "a JSON schema",
        Mode::Line => "a marked line",
    };
    // Some servers answer with whatever model they have, whichever was asked.
    let name = if served.is_empty() || served == model {
        String::new()
    } else {
        format!(", as {},", quoted(&served))
    };
    Ok(format!(
        "`{model}` answers{name} after {:.1} s, in the form of {form}",
        begun.elapsed().as_secs_f64()
    ))
}

/// Asks in simpler and simpler words, until the server understands.
async fn once(client: &dyn Client, llm: &Llm, question: &Question) -> Result<(Mode, String)> {
    let mut dialect = Dialect::default();
    loop {
        let mode = Mode::of(llm, dialect);
        let letter = Letter::new(llm, question, None, mode)?;
        let trouble = match client.send(letter.model(), letter.body(dialect)).await {
            Ok(said) => return Ok((mode, said.served)),
            Err(trouble) => trouble,
        };
        dialect = match simpler(llm, dialect, &trouble) {
            Some(simpler) => simpler,
            None => return Err(failure(llm, question, &trouble)),
        };
    }
}

fn simpler(llm: &Llm, dialect: Dialect, trouble: &Trouble) -> Option<Dialect> {
    let Trouble::Answer(answer) = trouble else { return None };
    dialect
        .without(answer)
        .filter(|simpler| Mode::allowed(llm).len() > 1 || simpler.schema == dialect.schema)
}

fn failure(llm: &Llm, question: &Question, trouble: &Trouble) -> anyhow::Error {
    let why = match weather::of(trouble, llm) {
        Weather::Passing(why, _) | Weather::Failed(why) | Weather::Closed(why) => why,
        Weather::Refused(why) => format!("the server's filter stopped it: {why}"),
    };
    hinted(
        format!("the model `{}` gives no reply: {why}", question.model),
        weather::hint(trouble, llm),
    )
}
