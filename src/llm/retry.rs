//! Classes of request errors: which are retried, which end one question and which end all of them;
//! in words, with the next step; and how long to wait between tries.

use super::client::{COMPRESSED, EVENTS, ErrorResponse, RequestError};
use super::excerpt::one_line;
use crate::config::Llm;
use std::time::Duration;

/// A server that asks for a longer pause is not waited for.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The longest wait that nobody asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Characters of what a server says that are repeated.
const QUOTED: usize = 200;

/// What an error means for the question, with the reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ErrorClass {
    /// Another try may go well, after the pause that the server asks for.
    Retry(String, Option<Duration>),
    /// This question will never be answered as it is.
    Failed(String),
    /// This question is not answered on purpose. What the server says of it.
    Refused(String),
    /// No question will be answered before something is done about it.
    Fatal(String),
}

/// Text of a server within a sentence: short, on one line.
pub(super) fn quoted(text: &str) -> String {
    let line = one_line(text.trim());
    match line.char_indices().nth(QUOTED) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// A reason as it is counted and told in the terminal: short, on one line, and without the place in
/// a reply, which differs where the mistake does not.
pub fn in_words(reason: &str) -> String {
    let place = reason.rfind(" at line ").filter(|at| {
        let rest = &reason[at + " at line ".len()..];
        rest.split(" column ").all(|number| number.chars().all(|c| c.is_ascii_digit()))
    });
    quoted(&reason[..place.unwrap_or(reason.len())])
}

/// The class of an error.
pub(super) fn classify(error: &RequestError, llm: &Llm) -> ErrorClass {
    match error {
        RequestError::Invalid(why) => {
            ErrorClass::Fatal(format!("the request cannot be made: {}", quoted(why)))
        }
        RequestError::Unreachable(why) => {
            ErrorClass::Retry(format!("the server cannot be reached: {}", quoted(why)), None)
        }
        RequestError::Disconnected => ErrorClass::Retry("the connection was lost".into(), None),
        RequestError::Timeout => ErrorClass::Retry(
            format!("no complete reply within `llm.timeout = {}` s", llm.timeout),
            None,
        ),
        RequestError::Malformed(what) => ErrorClass::Retry(format!("the server sent {what}"), None),
        // The next one would be as long, and cost as much.
        RequestError::TooLong => ErrorClass::Failed(format!(
            "the reply is longer than `llm.max_reply = {}` bytes",
            llm.max_reply
        )),
        RequestError::Status(answer) => answered(answer, llm),
    }
}

fn answered(answer: &ErrorResponse, llm: &Llm) -> ErrorClass {
    let said = format!("the server answered {}: {}", answer.status, quoted(&answer.message));
    match answer.status {
        _ if is_quota(answer) => {
            ErrorClass::Fatal(format!("the account's quota is used up ({said})"))
        }
        _ if is_filter(answer) => ErrorClass::Refused(answer.message.clone()),
        300..=399 => ErrorClass::Fatal(format!(
            "the server redirects to an address other than `llm.base_url` ({said})"
        )),
        401 if llm.api_key_env.is_empty() => ErrorClass::Fatal(format!(
            "the server requires a key, but `llm.api_key_env` is empty ({said})"
        )),
        401 => ErrorClass::Fatal(format!(
            "the server rejects the key in `{}` ({said})",
            llm.api_key_env
        )),
        403 => ErrorClass::Fatal(format!("this account has no permission ({said})")),
        404 | 405 => ErrorClass::Fatal(format!(
            "the server has no such model, or `llm.base_url` is wrong ({said})"
        )),
        _ if answer.code == "model_not_found" => {
            ErrorClass::Fatal(format!("the server has no such model ({said})"))
        }
        408 | 409 | 425 | 500.. => passing(format!("server error ({said})"), answer),
        429 => passing(format!("rate limited ({said})"), answer),
        _ if is_too_long(answer) => {
            ErrorClass::Failed(format!("the prompt is too long for the model ({said})"))
        }
        _ => ErrorClass::Failed(format!("the server rejects the request ({said})")),
    }
}

fn passing(why: String, answer: &ErrorResponse) -> ErrorClass {
    match answer.retry_after {
        Some(wait) if wait > LONGEST_PAUSE => ErrorClass::Fatal(format!(
            "{why}, and asks to wait for {} minutes",
            wait.as_secs() / 60
        )),
        wait => ErrorClass::Retry(why, wait),
    }
}

fn is_quota(answer: &ErrorResponse) -> bool {
    answer.code == "insufficient_quota" || answer.status == 402
}

fn is_filter(answer: &ErrorResponse) -> bool {
    matches!(answer.code.as_str(), "content_filter" | "content_policy_violation")
}

/// Also what a server says of a question that is too long, in one of many ways.
pub(super) fn is_too_long(answer: &ErrorResponse) -> bool {
    let message = answer.message.to_lowercase();
    ["context_length_exceeded", "exceed_context_size_error"].contains(&answer.code.as_str())
        || ["context length", "context window", "context size"]
            .iter()
            .any(|words| message.contains(words))
}

/// The next step for whoever tries the server once.
pub(super) fn hint(error: &RequestError, llm: &Llm) -> String {
    match error {
        RequestError::Invalid(_) => "check `llm.base_url`".into(),
        RequestError::Unreachable(_) | RequestError::Disconnected => {
            "check `llm.base_url`, the network and the proxy".into()
        }
        RequestError::Timeout => "raise `llm.timeout`, or try again later".into(),
        RequestError::TooLong => "lower `llm.max_tokens`, or raise `llm.max_reply`".into(),
        RequestError::Malformed(EVENTS) => "set the server to answer without streaming".into(),
        RequestError::Malformed(COMPRESSED) => {
            "set the server, or the proxy in front of it, to answer uncompressed".into()
        }
        RequestError::Malformed(_) => {
            "check `llm.base_url`: it ends with `/v1` for most servers".into()
        }
        RequestError::Status(answer) if is_quota(answer) => {
            "check the account at the provider, or set another key".into()
        }
        RequestError::Status(answer) => match answer.status {
            401 | 403 if llm.api_key_env.is_empty() => {
                "set `llm.api_key_env` to the name of the variable that holds the key".into()
            }
            401 | 403 => format!("check the key in `{}`", llm.api_key_env),
            300..=399 | 404 | 405 => {
                "check `llm.model`, `llm.deployment` and `llm.base_url`".into()
            }
            408 | 409 | 425 | 429 | 500.. => "try again later".into(),
            _ => "check `llm.model` and the server's message".into(),
        },
    }
}

/// How long to wait after so many failures, from 1: twice as long each time, and not all for
/// equally long. `draw` is any number, other for each who waits.
pub(super) fn backoff(first: Duration, failures: u32, draw: u64) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LONGEST_WAIT);
    doubled.mul_f64(0.5 + 0.5 * (draw % 1000) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, code: &str, message: &str) -> ErrorClass {
        let answer = ErrorResponse {
            status,
            code: code.into(),
            message: message.into(),
            ..ErrorResponse::default()
        };
        classify(&RequestError::Status(answer), &Llm::default())
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for status in [408, 409, 429, 500, 502, 503, 529] {
            assert!(matches!(class(status, "", ""), ErrorClass::Retry(..)), "{status}");
        }
        for status in [301, 307, 401, 402, 403, 404] {
            assert!(matches!(class(status, "", ""), ErrorClass::Fatal(_)), "{status}");
        }
        assert!(matches!(class(429, "insufficient_quota", ""), ErrorClass::Fatal(_)));
        assert!(matches!(class(400, "model_not_found", ""), ErrorClass::Fatal(_)));
        assert!(matches!(class(400, "content_filter", ""), ErrorClass::Refused(_)));
        assert!(matches!(class(413, "", ""), ErrorClass::Failed(_)));
        for (code, message) in [
            ("context_length_exceeded", ""),
            ("", "This model's maximum context length is 8 tokens"),
        ] {
            let ErrorClass::Failed(why) = class(400, code, message) else { panic!() };
            assert!(why.starts_with("the prompt is too long for the model"), "{why}");
        }
    }

    #[test]
    fn a_pause_is_waited_for_up_to_a_limit() {
        let busy = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            classify(
                &RequestError::Status(ErrorResponse {
                    status: 429,
                    retry_after,
                    ..ErrorResponse::default()
                }),
                &Llm::default(),
            )
        };
        assert!(matches!(busy(600), ErrorClass::Retry(_, Some(wait)) if wait == LONGEST_PAUSE));
        assert!(matches!(busy(660), ErrorClass::Fatal(why) if why.ends_with("asks to wait for 11 \
                minutes")));
    }

    #[test]
    fn waits_double_up_to_a_minute_and_differ() {
        let first = Duration::from_secs(1);
        let longest = |failures| backoff(first, failures, 999).as_secs_f64().round();
        assert_eq!([1, 2, 3, 7, 99].map(longest), [1.0, 2.0, 4.0, 60.0, 60.0]);
        assert_eq!(backoff(first, 3, 0), Duration::from_secs(2));
    }

    #[test]
    fn a_reason_is_told_without_the_place_in_the_reply() {
        assert_eq!(in_words("expected value at line 1 column 22"), "expected value");
        assert_eq!(in_words("cut off at line noise"), "cut off at line noise");
    }

    #[test]
    fn what_a_server_says_is_short_and_on_one_line() {
        assert_eq!(quoted(" a\nb\u{1b}[31m"), "a⏎b [31m");
        assert_eq!(quoted(&"é".repeat(300)).chars().count(), QUOTED + 1);
    }
}
