//! One request over the wire: a body goes out, and a completion or an error comes back, without
//! the key in either.
//!
//! Whether to try again is not decided here: the tries of `async-openai` are replaced by a service
//! that makes one.

use super::embedding::cosines;
use super::key::Key;
use crate::config::{Llm, Provider};
use crate::error::{Hint, Result};
use async_openai::Client as Wire;
use async_openai::config::{AzureConfig, Config, OpenAIConfig};
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::Value;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

const CONNECT: Duration = Duration::from_secs(20);
/// The server's word for a reply that became too long.
pub(super) const LENGTH: &str = "length";
/// Bytes of an embedding, at most: 4096 numbers in words take less.
const EMBEDDING: usize = 1 << 18;
/// Bytes of an error's body that are looked at.
const LARGEST: usize = 1 << 16;

/// A completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Completion {
    pub text: String,
    /// In the model's own words.
    pub refusal: Option<String>,
    /// Why it ended: `stop`, `length`, `content_filter`.
    pub finish: String,
    /// What the server calls the model that answered; empty if it does not say.
    pub served: String,
    pub prompt_tokens: Option<u32>,
    pub completion_tokens: Option<u32>,
}

/// An answer that is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ErrorResponse {
    pub status: u16,
    pub code: String,
    pub param: String,
    pub message: String,
    pub retry_after: Option<Duration>,
}

/// Why there is no completion.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RequestError {
    /// The request cannot even be made. Why.
    Invalid(String),
    /// Nobody is there. Why.
    Unreachable(String),
    /// The connection broke off.
    Disconnected,
    /// It took too long.
    Timeout,
    /// Something came that is no completion. What.
    Malformed(&'static str),
    /// It is longer than `llm.max_reply`.
    TooLong,
    Status(ErrorResponse),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for RequestError {}

impl RequestError {
    /// Whether the server may have written a reply, which it charges for. Nobody pays for an error
    /// that the server itself tells of.
    pub(super) fn is_charged(&self) -> bool {
        match self {
            RequestError::Disconnected
            | RequestError::Timeout
            | RequestError::Malformed(_)
            | RequestError::TooLong => true,
            RequestError::Invalid(_) | RequestError::Unreachable(_) | RequestError::Status(_) => {
                false
            }
        }
    }
}

type Sent<'c> = Pin<Box<dyn Future<Output = Result<Completion, RequestError>> + Send + 'c>>;

/// Who answers.
pub(super) trait Client: Send + Sync {
    /// Sends one request, once.
    fn send<'c>(&'c self, model: &'c str, body: Value) -> Sent<'c>;
}

/// A server.
pub(super) struct HttpClient {
    http: reqwest::Client,
    key: Key,
    llm: Llm,
}

impl HttpClient {
    /// A client for the runtime in which it is made.
    ///
    /// # Errors
    /// When there is no key, or no TLS.
    pub(super) fn new(llm: &Llm) -> Result<HttpClient> {
        // It is there already where another client has been made.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder()
            // A redirect would take the key along.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(Duration::try_from_secs_f64(llm.timeout).unwrap_or(Duration::MAX))
            .user_agent(concat!("circuit-atlas/", env!("CARGO_PKG_VERSION")))
            .build();
        let http = http.hint(
            || "cannot set up HTTP".into(),
            "check the proxy settings and the system's certificates",
        )?;
        Ok(HttpClient { http, key: Key::of(llm)?, llm: llm.clone() })
    }

    async fn post(&self, model: &str, body: Value) -> Result<Value, OpenAIError> {
        let base = self.llm.base_url.trim_end_matches('/');
        match self.llm.provider {
            Provider::Azure => {
                let deployment = deployment(&self.llm, model);
                let config = AzureConfig::new()
                    .with_api_base(base)
                    .with_api_version(&self.llm.api_version)
                    .with_deployment_id(deployment)
                    .with_api_key(self.key.secret());
                self.through(config, body).await
            }
            Provider::Openai | Provider::None => {
                let base =
                    if base.is_empty() { async_openai::config::OPENAI_API_BASE } else { base };
                // What the environment says besides is meant for other programs, and perhaps for
                // another server.
                let config = OpenAIConfig::new()
                    .with_api_base(base)
                    .with_api_key(self.key.secret())
                    .with_org_id("")
                    .with_project_id("");
                self.through(config, body).await
            }
        }
    }

    async fn through(&self, config: impl Config, body: Value) -> Result<Value, OpenAIError> {
        let inputs = embeds(&body);
        let once = SingleTry {
            http: self.http.clone(),
            keyless: self.key.secret().is_empty(),
            most: inputs.map_or(self.llm.max_reply, |inputs| inputs * EMBEDDING),
        };
        let wire = Wire::build(self.http.clone(), config).with_http_service(once);
        match inputs {
            Some(_) => wire.embeddings().create_byot(body).await,
            None => wire.chat().create_byot(body).await,
        }
    }

    /// Nothing that a server says is seen before the key is out of it.
    fn hidden(&self, error: RequestError) -> RequestError {
        let hide = |text: String| self.key.hide(&text);
        match error {
            RequestError::Invalid(why) => RequestError::Invalid(hide(why)),
            RequestError::Unreachable(why) => RequestError::Unreachable(hide(why)),
            RequestError::Status(answer) => RequestError::Status(ErrorResponse {
                code: hide(answer.code),
                param: hide(answer.param),
                message: hide(answer.message),
                ..answer
            }),
            other => other,
        }
    }
}

/// Where Azure has a model: `llm.deployment` is that of `llm.model`, every other is called like its
/// model.
pub(super) fn deployment<'a>(llm: &'a Llm, model: &'a str) -> &'a str {
    if llm.deployment.is_empty() || model != llm.model { model } else { &llm.deployment }
}

impl Client for HttpClient {
    fn send<'c>(&'c self, model: &'c str, body: Value) -> Sent<'c> {
        Box::pin(async move {
            let inputs = embeds(&body);
            let body = self.post(model, body).await.map_err(error);
            let said = body.and_then(|body| match inputs {
                Some(inputs) => embedded(&body, inputs),
                None => completion(&body),
            });
            match said {
                Ok(said) => Ok(Completion {
                    text: self.key.hide(&said.text),
                    refusal: said.refusal.map(|text| self.key.hide(&text)),
                    finish: self.key.hide(&said.finish),
                    served: self.key.hide(&said.served),
                    prompt_tokens: said.prompt_tokens,
                    completion_tokens: said.completion_tokens,
                }),
                Err(error) => Err(self.hidden(error)),
            }
        })
    }
}

/// One try, whatever comes of it.
#[derive(Clone)]
struct SingleTry {
    http: reqwest::Client,
    keyless: bool,
    /// Bytes of a reply.
    most: usize,
}

impl tower::Service<HttpRequestFactory> for SingleTry {
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<reqwest::Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let SingleTry { http, keyless, most } = self.clone();
        Box::pin(async move {
            let mut request = request.build().await?;
            if keyless {
                request.headers_mut().remove(AUTHORIZATION);
                request.headers_mut().remove("api-key");
            }
            let mut response = http.execute(request).await.map_err(OpenAIError::Reqwest)?;
            if response.status().is_success() {
                return limited(response, most).await;
            }
            let (status, after) =
                (response.status().as_u16(), retry_after(response.headers(), SystemTime::now()));
            let body = beginning(&mut response).await;
            Err(OpenAIError::Boxed(Box::new(RequestError::Status(answer(status, after, &body)))))
        })
    }
}

/// A response with its whole body.
///
/// # Errors
/// When it breaks off, or has more bytes than this.
async fn limited(
    mut response: reqwest::Response,
    most: usize,
) -> Result<reqwest::Response, OpenAIError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(OpenAIError::Reqwest)? {
        if body.len() + chunk.len() > most {
            return Err(OpenAIError::Boxed(Box::new(RequestError::TooLong)));
        }
        body.extend_from_slice(&chunk);
    }
    let mut whole = http::Response::new(body);
    *whole.status_mut() = response.status();
    *whole.headers_mut() = std::mem::take(response.headers_mut());
    Ok(whole.into())
}

/// As much of a body as is looked at. One that breaks off is good enough to tell what its status
/// means.
async fn beginning(response: &mut reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= LARGEST {
            body.truncate(LARGEST);
            break;
        }
    }
    body
}

/// How long a server asks to be left alone, by any of the headers that say so.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let number = |name: &str, unit: f64| Some(header(name)?.parse::<f64>().ok()? * unit);
    let date = || {
        let until = chrono::DateTime::parse_from_rfc2822(header("retry-after")?).ok()?.timestamp();
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(until as f64 - now.as_secs_f64())
    };
    let seconds =
        number("retry-after-ms", 1e-3).or_else(|| number("retry-after", 1.0)).or_else(date)?;
    // More than fits is as good as for ever.
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// What a server says in an answer that is none. Servers differ in where they say it.
fn answer(status: u16, retry_after: Option<Duration>, body: &[u8]) -> ErrorResponse {
    let text = String::from_utf8_lossy(body);
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let error = if body["error"].is_object() { &body["error"] } else { &body };
    let word = |name: &str| error[name].as_str().unwrap_or_default().to_string();
    let said = [&error["message"], &body["error"], &body["detail"]]
        .into_iter()
        .find(|said| !said.is_null());
    let message = match said {
        Some(Value::String(said)) => said.clone(),
        Some(said) => said.to_string(),
        None if is_page(&text) => "an HTML page".into(),
        None => text.trim().into(),
    };
    let code =
        [word("code"), word("type")].into_iter().find(|word| !word.is_empty()).unwrap_or_default();
    ErrorResponse { status, code, param: word("param"), message, retry_after }
}

fn is_page(text: &str) -> bool {
    text.trim_start().starts_with('<')
}

/// Server-sent events, though no request asks for them.
pub(super) const EVENTS: &str = "a stream of events, which was not asked for";
/// As with a `Content-Encoding`, though no request accepts one.
pub(super) const COMPRESSED: &str = "compressed data, which was not asked for";

/// What a body is that is no JSON.
fn not_json(text: &str) -> &'static str {
    /// The first byte of gzip's two, which is a character too.
    const GZIP: char = '\u{1f}';
    let text = text.trim_start();
    match text {
        page if is_page(page) => "an HTML page",
        stream if ["data:", "event:", ":"].iter().any(|sign| stream.starts_with(sign)) => EVENTS,
        packed if packed.starts_with(GZIP) => COMPRESSED,
        _ => "something that is not JSON",
    }
}

/// What went wrong under way.
fn error(error: OpenAIError) -> RequestError {
    match error {
        OpenAIError::Reqwest(error) if error.is_builder() => RequestError::Invalid(root(&error)),
        OpenAIError::Reqwest(error) if error.is_connect() => {
            RequestError::Unreachable(root(&error))
        }
        OpenAIError::Reqwest(error) if error.is_timeout() => RequestError::Timeout,
        OpenAIError::Reqwest(_) => RequestError::Disconnected,
        OpenAIError::JSONDeserialize(_, text) => RequestError::Malformed(not_json(&text)),
        OpenAIError::Boxed(error) => match error.downcast::<RequestError>() {
            Ok(error) => *error,
            Err(error) => RequestError::Invalid(error.to_string()),
        },
        error => RequestError::Invalid(error.to_string()),
    }
}

/// The innermost cause, which is the one that says something.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// How many texts a request wants embeddings of; none if it wants a completion.
fn embeds(body: &Value) -> Option<usize> {
    body["input"].as_array().map(Vec::len)
}

/// What is kept of embeddings, as a completion.
fn embedded(body: &Value, inputs: usize) -> Result<Completion, RequestError> {
    let cosines = cosines(body, inputs).map_err(RequestError::Malformed)?;
    let usage = &body["usage"];
    let tokens = usage["prompt_tokens"].as_u64().or(usage["total_tokens"].as_u64());
    Ok(Completion {
        text: cosines.to_string(),
        finish: "stop".into(),
        served: body["model"].as_str().unwrap_or_default().into(),
        prompt_tokens: tokens.and_then(|n| u32::try_from(n).ok()),
        completion_tokens: Some(0),
        refusal: None,
    })
}

/// Reads a completion leniently: servers leave out what they do not know.
fn completion(body: &Value) -> Result<Completion, RequestError> {
    let choice = &body["choices"][0];
    if !choice.is_object() {
        // Some send an error with status 200 and the true one inside.
        let status = body["error"]["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        return Err(match status {
            Some(status) => RequestError::Status(answer(status, None, body.to_string().as_bytes())),
            None if body["error"].is_null() => {
                RequestError::Malformed("a completion without a choice")
            }
            None => RequestError::Malformed("an error instead of a completion"),
        });
    }
    let message = &choice["message"];
    let count = |name: &str| body["usage"][name].as_u64().and_then(|n| u32::try_from(n).ok());
    let said = |value: &Value| value.as_str().map(String::from).filter(|text| !text.is_empty());
    let finish = said(&choice["finish_reason"]).unwrap_or_default();
    Ok(Completion {
        text: text(message, &finish),
        refusal: said(&message["refusal"]),
        finish,
        served: said(&body["model"]).unwrap_or_default(),
        prompt_tokens: count("prompt_tokens"),
        completion_tokens: count("completion_tokens"),
    })
}

/// What a message says, wherever it says it: in its content, or as the arguments of a call of a
/// tool, which some servers make of a schema. Where both are empty the answer may be where the
/// reasoning is, unless the reply was cut off within it.
fn text(message: &Value, finish: &str) -> String {
    let mut said = content(&message["content"]);
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let arguments = match &call["function"]["arguments"] {
            Value::String(text) => text.clone(),
            Value::Null => continue,
            other => other.to_string(),
        };
        if !said.trim().is_empty() {
            said.push('\n');
        }
        said.push_str(&arguments);
    }
    if !said.trim().is_empty() || finish == LENGTH {
        return said;
    }
    let reasoning = ["reasoning_content", "reasoning"].map(|name| content(&message[name]));
    reasoning.into_iter().find(|text| !text.is_empty()).unwrap_or(said)
}

/// A text, or the texts of several parts.
fn content(content: &Value) -> String {
    match content {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        other => other.as_str().unwrap_or_default().into(),
    }
}

/// A client that answers from a script.
#[cfg(test)]
pub(super) struct Scripted<F>(pub F);

#[cfg(test)]
impl<F: Fn(&Value) -> Result<Completion, RequestError> + Send + Sync> Client for Scripted<F> {
    fn send<'c>(&'c self, _: &'c str, body: Value) -> Sent<'c> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            (self.0)(&body)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(name: &'static str, value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770))
    }

    #[test]
    fn a_pause_is_told_in_seconds_in_milliseconds_or_as_a_date() {
        assert_eq!(after("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(after("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(
            after("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(7))
        );
        assert_eq!(after("retry-after", "Sat, 06 Nov 1993 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(after("retry-after", "-1"), Some(Duration::ZERO));
        assert_eq!(after("retry-after", "1e300"), Some(Duration::MAX));
        assert_eq!(after("retry-after", "soon"), None);
    }

    #[test]
    fn errors_are_read_wherever_a_server_puts_them() {
        let message = |body: Value| answer(400, None, body.to_string().as_bytes()).message;
        assert_eq!(message(json!({ "error": { "message": "a" } })), "a");
        assert_eq!(message(json!({ "error": "b" })), "b");
        assert_eq!(message(json!({ "message": "c" })), "c");
        assert_eq!(message(json!({ "detail": [{ "loc": ["seed"] }] })), r#"[{"loc":["seed"]}]"#);
        assert_eq!(answer(502, None, b"<html><script>").message, "an HTML page");
        assert_eq!(answer(502, None, b" no \xff").message, "no \u{fffd}");
        let full = json!({ "error": { "message": "a", "type": "t", "param": "p", "code": null } });
        let full = answer(400, None, full.to_string().as_bytes());
        assert_eq!((full.code.as_str(), full.param.as_str()), ("t", "p"));
    }

    #[test]
    fn a_completion_may_lack_all_but_a_choice_and_say_it_elsewhere() {
        assert_eq!(completion(&json!({ "choices": [{}] })), Ok(Completion::default()));
        let parts = json!({ "choices": [{ "message": { "content": [{ "text": "a" }, { "text": "b" }] } }] });
        assert_eq!(completion(&parts).unwrap().text, "ab");
        assert_eq!(
            completion(&json!({ "choices": [] })),
            Err(RequestError::Malformed("a completion without a choice"))
        );
        assert_eq!(
            completion(&json!([1])),
            Err(RequestError::Malformed("a completion without a choice"))
        );
        let said = |message: Value, finish: &str| {
            let choice = json!({ "message": message, "finish_reason": finish });
            completion(&json!({ "choices": [choice] })).unwrap().text
        };
        let call =
            |arguments: Value| json!({ "function": { "name": "f", "arguments": arguments } });
        let calls = json!({ "content": null, "tool_calls": [call(json!("{\"a\": 1}"))] });
        assert_eq!(said(calls, "tool_calls"), "{\"a\": 1}");
        let calls = json!({ "content": "So:", "tool_calls": [call(json!({ "a": 1 }))] });
        assert_eq!(said(calls, "tool_calls"), "So:\n{\"a\":1}");
        let thought = json!({ "content": "", "reasoning_content": "{}" });
        assert_eq!((said(thought.clone(), "stop"), said(thought, "length")), {
            ("{}".into(), String::new())
        });
        let both = json!({ "content": "b", "reasoning_content": "a" });
        assert_eq!(said(both, "stop"), "b");
        let inside = completion(&json!({ "error": { "code": 429, "message": "slow down" } }));
        assert!(matches!(inside, Err(RequestError::Status(ErrorResponse { status: 429, .. }))));
    }
}
