//! The key of a server. It leaves this type in one place only, the request, and has neither `Debug`
//! nor `Display`.

use crate::config::Llm;
use crate::error::{Result, hinted};
use reqwest::header::HeaderValue;

/// What is put where a server repeats the key.
const INSTEAD: &str = "[key]";
/// Shorter ones are no secrets but words such as `none`, which replies may well have.
const SHORTEST: usize = 8;

pub(super) struct Key(String);

impl Key {
    /// The key in the variable that the settings name; none where they name no variable.
    ///
    /// # Errors
    /// When the variable is not set, or holds what cannot be sent.
    pub(super) fn of(llm: &Llm) -> Result<Key> {
        let name = &llm.api_key_env;
        if name.is_empty() {
            return Ok(Key(String::new()));
        }
        let hint = format!(
            "set `{name}` to the server's key; `llm.api_key_env` names the variable, empty for no \
             key"
        );
        let key = match std::env::var(name) {
            Ok(key) if !key.trim().is_empty() => key.trim().to_string(),
            Err(std::env::VarError::NotUnicode(_)) => return Err(hinted(unsendable(name), hint)),
            _ => {
                return Err(hinted(
                    format!("the environment variable `{name}` with the key is not set"),
                    hint,
                ));
            }
        };
        match HeaderValue::from_str(&key) {
            Ok(_) if key.is_ascii() => Ok(Key(key)),
            _ => Err(hinted(unsendable(name), hint)),
        }
    }

    /// For the request alone; empty: none is sent.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }

    /// A text that came from outside, without the key, also where it stands as JSON has it.
    pub(super) fn hide(&self, text: &str) -> String {
        if self.0.len() < SHORTEST {
            return text.into();
        }
        let quoted = serde_json::Value::from(self.0.as_str()).to_string();
        text.replace(&self.0, INSTEAD).replace(quoted.trim_matches('"'), INSTEAD)
    }
}

fn unsendable(name: &str) -> String {
    format!("the variable `{name}` holds what is no key: a line break, or characters beyond ASCII")
}

/// Checks that there is a key, if one is wanted.
///
/// # Errors
/// When the variable is not set, or holds what cannot be sent.
pub fn check_key(llm: &Llm) -> Result<()> {
    Key::of(llm).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hidden_and_a_word_is_not() {
        assert_eq!(Key("sk-123456".into()).hide("no `sk-123456`!"), "no `[key]`!");
        assert_eq!(
            Key(r#"sk"\123456"#.into()).hide(r#"{"a": "sk\"\\123456"}"#),
            r#"{"a": "[key]"}"#
        );
        assert_eq!(Key("none".into()).hide("none"), "none");
        assert_eq!(Key(String::new()).hide("none"), "none");
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let llm = Llm { api_key_env: "CIRCUIT_ATLAS_NOBODY_SETS_THIS".into(), ..Llm::default() };
        let error = check_key(&llm).unwrap_err().to_string();
        assert_eq!(
            error,
            "the environment variable `CIRCUIT_ATLAS_NOBODY_SETS_THIS` with the key is not set"
        );
        assert!(check_key(&Llm { api_key_env: String::new(), ..Llm::default() }).is_ok());
    }
}
