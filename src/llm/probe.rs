//! One small question, to see whether a server is there, knows the model, and takes the key.

use super::ask::runtime;
use super::capabilities::Capabilities;
use super::client::{Client, HttpClient, RequestError};
use super::request::{Mode, Request};
use super::retry::{self, ErrorClass, quoted};
use super::{ChatRole, Form, Message, Question};
use crate::config::Llm;
use crate::error::{Result, hinted};
use crate::ids::Subject;
use serde_json::json;
use std::time::Instant;

/// Asks a model one small question, once. What came of it: how long it took, and how its replies
/// are brought into form.
///
/// # Errors
/// When there is no key, or no reply: with what to do about it.
pub fn probe(llm: &Llm, model: &str) -> Result<String> {
    let text = "Is anybody there?".to_string();
    let schema = json!({
        "type": "object",
        "properties": { "there": { "type": "boolean", "description": "true" } },
        "required": ["there"],
        "additionalProperties": false,
    });
    let question = Question {
        subject: Subject::Group(String::new()),
        purpose: "probe",
        model: model.into(),
        sample: 0,
        messages: vec![Message { role: ChatRole::User, text }],
        form: Form { name: "presence", schema },
    };
    let runtime = runtime()?;
    let begun = Instant::now();
    let reached = runtime.block_on(async { once(&HttpClient::new(llm)?, llm, &question).await });
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
    Ok(format!("`{model}` answers{name} after {:.1} s, with {form}", begun.elapsed().as_secs_f64()))
}

/// Asks in simpler and simpler words, until the server understands.
async fn once(client: &dyn Client, llm: &Llm, question: &Question) -> Result<(Mode, String)> {
    let mut capabilities = Capabilities::default();
    loop {
        let mode = Mode::of(llm, capabilities);
        let request = Request::new(llm, question, None, mode)?;
        let error = match client.send(request.model(), request.body(capabilities)).await {
            Ok(said) => return Ok((mode, said.served)),
            Err(error) => error,
        };
        capabilities = match simpler(llm, capabilities, &error) {
            Some(simpler) => simpler,
            None => return Err(failure(llm, question, &error)),
        };
    }
}

fn simpler(llm: &Llm, capabilities: Capabilities, error: &RequestError) -> Option<Capabilities> {
    let RequestError::Status(answer) = error else { return None };
    capabilities
        .without(answer)
        .filter(|simpler| Mode::allowed(llm).len() > 1 || simpler.schema == capabilities.schema)
}

fn failure(llm: &Llm, question: &Question, error: &RequestError) -> anyhow::Error {
    let why = match retry::classify(error, llm) {
        ErrorClass::Retry(why, _) | ErrorClass::Failed(why) | ErrorClass::Fatal(why) => why,
        ErrorClass::Refused(why) => format!("the server's content filter blocked it: {why}"),
    };
    hinted(format!("no reply from the model `{}`: {why}", question.model), retry::hint(error, llm))
}
