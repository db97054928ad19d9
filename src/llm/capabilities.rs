//! What a server does not know of the wire format: learned from its first complaint, and left out
//! from then on.

use super::client::ErrorResponse;
use super::retry::is_too_long;

/// What is said of what is not known. A server may also repeat the question, in which any word may
/// stand.
const UNKNOWN: [&str; 8] =
    ["support", "permit", "unknown", "unrecogni", "unexpected", "invalid", "allowed", "extra"];

/// What may be sent to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// `response_format` with a JSON schema; else the form is only asked for in words.
    pub schema: bool,
    /// `max_tokens`; else `max_completion_tokens`.
    pub max_tokens: bool,
    pub temperature: bool,
    pub seed: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { schema: true, max_tokens: true, temperature: true, seed: true }
    }
}

impl Capabilities {
    /// These without what this answer complains of; none where it complains of something
    /// else.
    pub(super) fn without(self, answer: &ErrorResponse) -> Option<Capabilities> {
        if !matches!(answer.status, 400 | 422 | 501) || is_too_long(answer) {
            return None;
        }
        let said = format!("{} {}", answer.param, answer.message).to_lowercase();
        let names = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if self.schema
            && names(&[
                "response_format",
                "response format",
                "json_schema",
                "json schema",
                "guided",
                "structured output",
            ])
        {
            return Some(Capabilities { schema: false, ..self });
        }
        if self.max_tokens
            && names(&["max_tokens"])
            && names(&["max_completion_tokens", "unsupported", "not supported"])
        {
            return Some(Capabilities { max_tokens: false, ..self });
        }
        let unknown = |name: &str| answer.param == name || (names(&[name]) && names(&UNKNOWN));
        if self.temperature && unknown("temperature") {
            return Some(Capabilities { temperature: false, ..self });
        }
        (self.seed && unknown("seed")).then_some(Capabilities { seed: false, ..self })
    }

    /// What both may be sent.
    pub(super) fn and(self, other: Capabilities) -> Capabilities {
        Capabilities {
            schema: self.schema && other.schema,
            max_tokens: self.max_tokens && other.max_tokens,
            temperature: self.temperature && other.temperature,
            seed: self.seed && other.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(param: &str, message: &str) -> Option<Capabilities> {
        let answer = ErrorResponse {
            status: 400,
            param: param.into(),
            message: message.into(),
            ..ErrorResponse::default()
        };
        Capabilities::default().without(&answer)
    }

    #[test]
    fn complaints_are_understood() {
        let all = Capabilities::default();
        let tokens = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
            'max_completion_tokens' instead.";
        assert_eq!(without("max_tokens", tokens), Some(Capabilities { max_tokens: false, ..all }));
        let heat = "Unsupported value: 'temperature' does not support 0.0 with this model.";
        assert_eq!(without("temperature", heat), Some(Capabilities { temperature: false, ..all }));
        assert_eq!(
            without("response_format", "Invalid"),
            Some(Capabilities { schema: false, ..all })
        );
        assert_eq!(
            without("", "guided decoding is off"),
            Some(Capabilities { schema: false, ..all })
        );
        assert_eq!(
            without("", r#"[{"loc":["body","seed"],"msg":"Extra inputs are not permitted"}]"#),
            Some(Capabilities { seed: false, ..all })
        );
    }

    #[test]
    fn other_complaints_change_nothing() {
        assert_eq!(without("", "your prompt is bad: `The temperature of a seed`"), None);
        let long = "'max_tokens' or 'max_completion_tokens' is too large: this model's maximum \
            context length is 8 tokens";
        assert_eq!(without("max_tokens", long), None);
    }
}
