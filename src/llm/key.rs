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

    /// A text that came from outside, without the key, however it is escaped.
    pub(super) fn hide(&self, text: &str) -> String {
        if self.0.len() < SHORTEST {
            return text.into();
        }
        let (mut hidden, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(c) = rest.chars().next() {
            let length = match spelled(rest.as_bytes(), self.0.as_bytes()) {
                Some(length) => {
                    hidden.push_str(INSTEAD);
                    length
                }
                None => {
                    hidden.push(c);
                    c.len_utf8()
                }
            };
            rest = &rest[length..];
        }
        hidden
    }
}

/// How many bytes of a text spell the key, from its beginning on.
fn spelled(text: &[u8], key: &[u8]) -> Option<usize> {
    let Some((&letter, rest)) = key.split_first() else { return Some(0) };
    let spellings = spellings(text, letter);
    spellings.into_iter().find_map(|length| Some(length + spelled(&text[length..], rest)?))
}

/// How many bytes of a text spell a letter, from its beginning on: as it is; behind backslashes, of
/// which there are more where escaped text is escaped once more; as `\u0041` or `\x41`; as `%41`;
/// or as HTML has it.
fn spellings(text: &[u8], letter: u8) -> Vec<usize> {
    /// More backslashes are nobody's escapes.
    const BACKSLASHES: usize = 16;
    let mut lengths = Vec::new();
    let mut add = |begin: &[u8], number: &[u8], end: &[u8]| {
        let parts = [begin, number, end];
        let rest = parts.iter().try_fold(text, |rest, part| {
            let (own, rest) = rest.split_at_checked(part.len())?;
            own.eq_ignore_ascii_case(part).then_some(rest)
        });
        lengths.extend(rest.map(|rest| text.len() - rest.len()));
    };
    let hex = |width: usize| format!("{letter:0width$x}").into_bytes();
    let backslashes = text.iter().take(BACKSLASHES).take_while(|byte| **byte == b'\\').count();
    if backslashes > 0 {
        let begin = &text[..backslashes];
        for (mark, width) in [("u", 4), ("U", 8), ("x", 2)] {
            add(begin, mark.as_bytes(), &hex(width));
        }
        add(begin, b"u{", &[hex(1).as_slice(), b"}"].concat());
    }
    let percents = text.strip_prefix(b"%").map_or(0, |rest| {
        rest.chunks(2).take(BACKSLASHES).take_while(|part| *part == b"25").count()
    });
    for number in 0..=percents {
        add(b"%", &b"25".repeat(number), &hex(2));
    }
    for (begin, number) in [("&#x", hex(1)), ("&#x", hex(2)), ("&#", letter.to_string().into())] {
        add(begin.as_bytes(), &number, b";");
    }
    let named: &[&[u8]] = match letter {
        b'"' => &[b"&quot;"],
        b'\'' => &[b"&apos;"],
        b'&' => &[b"&amp;"],
        b'<' => &[b"&lt;"],
        b'>' => &[b"&gt;"],
        _ => &[],
    };
    named.iter().for_each(|name| add(name, b"", b""));
    // As it is, behind any number of backslashes; one of the key itself may be any of them.
    if letter == b'\\' {
        lengths.extend(1..=backslashes);
    } else if text.get(backslashes) == Some(&letter) {
        lengths.push(backslashes + 1);
    }
    lengths
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
    fn a_key_is_hidden_however_it_is_escaped() {
        let key = r#"sk-a"\b/1&2"#;
        let once = |text: &str| serde_json::Value::from(text).to_string();
        let unicode: String = key.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
        let percent: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let entities: String = key.bytes().map(|byte| format!("&#x{byte:x};")).collect();
        for text in [
            key.to_string(),
            once(key),
            once(&once(key)),
            format!("{key:?}"),
            unicode.clone(),
            once(&unicode),
            percent.clone(),
            percent.replace('%', "%25"),
            entities,
            r#"sk\u002da\"\\b\/1\u00262"#.into(),
            r#"sk-a&quot;\b%2F1&amp;2"#.into(),
        ] {
            let hidden = Key(key.into()).hide(&format!("é {text} – {text}"));
            assert_eq!(hidden.replace(['"', '\\'], ""), "é [key] – [key]", "{text}");
        }
        assert_eq!(Key(key.into()).hide("sk-a and %73k"), "sk-a and %73k");
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
