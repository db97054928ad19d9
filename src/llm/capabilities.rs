//! What a server does not know of the wire format: learned from its first complaint, and left out
//! from then on. None of it is in the hash of a request, so that replies that are kept stay known.

use super::client::ErrorResponse;
use super::retry::is_too_long;

/// What is said of a field that is not accepted. A server may also repeat the question, in which
/// the name of a field may stand as a word.
const COMPLAINTS: [&str; 15] = [
    "support",
    "permit",
    "unknown",
    "unrecogni",
    "unexpected",
    "invalid",
    "allowed",
    "extra",
    "must",
    "positive",
    "greater",
    "range",
    "not a valid",
    "should be",
    "forbidden",
];

/// What is said of a system message that is not accepted: the templates of some models raise an
/// error at one.
const NO_SYSTEM: [&str; 8] = [
    "system role",
    "role system",
    "role 'system'",
    "role `system`",
    "role \"system\"",
    "system message",
    "system prompt",
    "roles must alternate",
];

/// The field that limits the tokens of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LimitField {
    MaxTokens,
    MaxCompletionTokens,
    /// The server accepts neither, and has a limit of its own.
    None,
}

impl LimitField {
    /// Its name; none if no field is sent.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            LimitField::MaxTokens => Some("max_tokens"),
            LimitField::MaxCompletionTokens => Some("max_completion_tokens"),
            LimitField::None => None,
        }
    }
}

/// What may be sent to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// `response_format` with a JSON schema that is kept to; else the form is only asked for in
    /// words.
    pub schema: bool,
    /// `strict` of the schema.
    pub strict: bool,
    pub limit: LimitField,
    pub temperature: bool,
    pub seed: bool,
    /// A system message; else its text stands in the user's.
    pub system: bool,
    /// Not about fields: replies to `llm.max_tokens` tokens had only reasoning, so that
    /// `llm.max_tokens_limit` is sent at once.
    pub raised: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            schema: true,
            strict: true,
            limit: LimitField::MaxTokens,
            temperature: true,
            seed: true,
            system: true,
            raised: false,
        }
    }
}

impl Capabilities {
    /// These without what this answer complains of; none where it complains of something
    /// else.
    pub(super) fn without(self, answer: &ErrorResponse) -> Option<Capabilities> {
        if !matches!(answer.status, 400 | 422 | 500 | 501) || is_too_long(answer) {
            return None;
        }
        let said = format!("{} {}", answer.param, answer.message).to_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let complains = any(&COMPLAINTS);
        let refused = |name: &str| answer.param == name || (complains && has_word(&said, name));
        if self.schema && self.strict && refused("strict") {
            return Some(Capabilities { strict: false, ..self });
        }
        if self.schema
            && any(&[
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
        match self.limit {
            LimitField::MaxTokens
                if refused("max_tokens") || has_word(&said, "max_completion_tokens") =>
            {
                return Some(Capabilities { limit: LimitField::MaxCompletionTokens, ..self });
            }
            LimitField::MaxCompletionTokens if refused("max_completion_tokens") => {
                return Some(Capabilities { limit: LimitField::None, ..self });
            }
            _ => {}
        }
        if self.temperature && refused("temperature") {
            return Some(Capabilities { temperature: false, ..self });
        }
        if self.seed && refused("seed") {
            return Some(Capabilities { seed: false, ..self });
        }
        let system = self.system && any(&NO_SYSTEM) && complains;
        system.then_some(Capabilities { system: false, ..self })
    }

    /// What both may be sent.
    pub(super) fn and(self, other: Capabilities) -> Capabilities {
        Capabilities {
            schema: self.schema && other.schema,
            strict: self.strict && other.strict,
            limit: self.limit.max(other.limit),
            temperature: self.temperature && other.temperature,
            seed: self.seed && other.seed,
            system: self.system && other.system,
            raised: self.raised || other.raised,
        }
    }

    /// What is not sent as the settings have it, in words.
    pub(super) fn missing(self) -> Vec<&'static str> {
        let limit = match self.limit {
            LimitField::MaxTokens => None,
            LimitField::MaxCompletionTokens => Some("`max_completion_tokens` for `max_tokens`"),
            LimitField::None => Some("no limit on the tokens of a reply"),
        };
        let all = [
            (!self.system).then_some("the system message as part of the user's"),
            (self.schema && !self.strict).then_some("no `strict`"),
            limit,
            (!self.temperature).then_some("no `temperature`"),
            (!self.seed).then_some("no `seed`"),
            self.raised.then_some("`llm.max_tokens_limit` for `llm.max_tokens`"),
        ];
        all.into_iter().flatten().collect()
    }
}

/// Whether a text has a name that is not a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(known: Capabilities, param: &str, message: &str) -> Option<Capabilities> {
        let answer = ErrorResponse {
            status: 400,
            param: param.into(),
            message: message.into(),
            ..ErrorResponse::default()
        };
        known.without(&answer)
    }

    fn without(param: &str, message: &str) -> Option<Capabilities> {
        from(Capabilities::default(), param, message)
    }

    #[test]
    fn complaints_are_understood() {
        let all = Capabilities::default();
        let tokens = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
            'max_completion_tokens' instead.";
        let completion = Capabilities { limit: LimitField::MaxCompletionTokens, ..all };
        assert_eq!(without("max_tokens", tokens), Some(completion));
        let neither = "body.max_completion_tokens: Extra inputs are not permitted";
        assert_eq!(
            from(completion, "", neither),
            Some(Capabilities { limit: LimitField::None, ..all })
        );
        for heat in [
            "Unsupported value: 'temperature' does not support 0.0 with this model.",
            "`temperature` must be strictly positive",
            "`temperature` (=0.0) has to be a strictly positive float",
            "temperature should be greater than 0",
        ] {
            let cold = Some(Capabilities { temperature: false, ..all });
            assert_eq!(without("", heat), cold, "{heat}");
        }
        assert_eq!(
            without("response_format", "Invalid"),
            Some(Capabilities { schema: false, ..all })
        );
        assert_eq!(
            without("", "guided decoding is off"),
            Some(Capabilities { schema: false, ..all })
        );
        assert_eq!(
            without("", "response_format.json_schema.strict: Extra inputs are not permitted"),
            Some(Capabilities { strict: false, ..all })
        );
        assert_eq!(
            without("", r#"[{"loc":["body","seed"],"msg":"Extra inputs are not permitted"}]"#),
            Some(Capabilities { seed: false, ..all })
        );
        for system in [
            "System role not supported",
            "Only user, assistant and tool roles are supported, got system message",
            "Conversation roles must alternate user/assistant/user/assistant/...",
            "Unexpected role 'system'",
        ] {
            let merged = Some(Capabilities { system: false, ..all });
            assert_eq!(without("", system), merged, "{system}");
        }
    }

    #[test]
    fn other_complaints_change_nothing() {
        assert_eq!(without("", "your prompt is bad: `The temperature of a seed`"), None);
        assert_eq!(without("", "temperatures and seeds are not supported"), None);
        let long = "'max_tokens' or 'max_completion_tokens' is too large: this model's maximum \
            context length is 8 tokens";
        assert_eq!(without("max_tokens", long), None);
    }

    #[test]
    fn what_is_left_out_is_told() {
        assert!(Capabilities::default().missing().is_empty());
        let poor = Capabilities {
            system: false,
            temperature: false,
            limit: LimitField::None,
            ..Capabilities::default()
        };
        assert_eq!(
            poor.missing(),
            [
                "the system message as part of the user's",
                "no limit on the tokens of a reply",
                "no `temperature`"
            ]
        );
    }
}
