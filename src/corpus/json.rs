//! One string of a JSON object. What nobody reads is passed over, not parsed: Python writes `NaN`
//! and `Infinity` there.

use serde::Deserializer;
use serde::de::{Error, Visitor};
use std::fmt;

/// What an object has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// A string, and how many of its characters are U+FFFD for a lone surrogate.
    Found(String, u32),
    Null,
    /// Something else.
    Other,
    /// Nothing; these are the names that are there.
    Missing(Vec<String>),
    /// It is no object; at this byte, the first is 1.
    NoObject(usize),
}

/// The string that a JSON object has under a name; the last one, as of other readers.
pub(super) fn text_of(object: &str, name: &str) -> Text {
    let mut scan = Scan { text: object, at: 0 };
    match scan.object(name) {
        Some((Some(raw), _)) => match raw.as_bytes().first() {
            Some(b'"') => {
                string(raw).map_or(scan.stopped(), |(text, lone)| Text::Found(text, lone))
            }
            _ if raw == "null" => Text::Null,
            _ => Text::Other,
        },
        Some((None, names)) => Text::Missing(names),
        None => scan.stopped(),
    }
}

/// A place in a text; every step stops at what cannot be there.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// The value of a name, and all names.
    fn object(&mut self, wanted: &str) -> Option<(Option<&'a str>, Vec<String>)> {
        let (mut found, mut names) = (None, Vec::new());
        self.take(b'{')?;
        if self.take(b'}').is_none() {
            loop {
                self.white();
                let at = self.at;
                let raw = self.string()?;
                let Some((name, _)) = string(raw) else {
                    self.at = at;
                    return None;
                };
                self.take(b':')?;
                let value = self.value()?;
                if name == wanted {
                    found = Some(value);
                }
                names.push(name);
                if self.take(b',').is_none() {
                    self.take(b'}')?;
                    break;
                }
            }
        }
        self.white();
        (self.at == self.text.len()).then_some((found, names))
    }

    /// The error at this place, or at the last byte behind the end.
    fn stopped(&self) -> Text {
        Text::NoObject((self.at + 1).min(self.text.len()))
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn white(&mut self) {
        while self.next().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Passes over a byte, behind white space.
    fn take(&mut self, byte: u8) -> Option<()> {
        self.white();
        (self.next()? == byte).then(|| self.at += 1)
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        let from = self.at;
        self.take(b'"')?;
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(&self.text[from..self.at])
    }

    /// Any value, as it is written.
    fn value(&mut self) -> Option<&'a str> {
        self.white();
        let from = self.at;
        let mut depth = 0_usize;
        loop {
            self.white();
            match self.next()? {
                b'"' => drop(self.string()?),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                _ => self.word()?,
            }
            if depth == 0 {
                return Some(&self.text[from..self.at]);
            }
        }
    }

    /// Passes over a number or a word that stands for a value.
    fn word(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || ['+', '-', '.'].contains(&c)))
            .unwrap_or(rest.len());
        let word = &rest[..length];
        let known = ["true", "false", "null", "NaN", "Infinity", "-Infinity"].contains(&word);
        // Rust reads `nan` as a number too.
        let number = word.parse::<f64>().is_ok() && word.bytes().any(|byte| byte.is_ascii_digit());
        (known || number).then(|| self.at += length)
    }
}

/// What a string with its quotes says, and how many lone surrogates were replaced in it.
fn string(raw: &str) -> Option<(String, u32)> {
    /// Asked for as bytes, the parser lets lone surrogates through.
    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = (String, u32);

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            let (mut text, mut replaced) = (String::new(), 0);
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                // All else is valid, so that these are surrogates, of three bytes each.
                if chunk.invalid().first() == Some(&0xED) {
                    text.push('\u{fffd}');
                    replaced += 1;
                }
            }
            Ok((text, replaced))
        }
    }

    serde_json::Deserializer::from_str(raw).deserialize_bytes(Bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, lone: u32) -> Text {
        Text::Found(text.into(), lone)
    }

    #[test]
    fn only_the_wanted_string_is_parsed() {
        let cases = [
            (r#"{"text": "a", "score": NaN}"#, "a"),
            (r#" { "b":Infinity,"c":-Infinity,"d":[NaN,{"e":"]}\""}],"text" : "a" } "#, "a"),
            (r#"{"text": "first", "text": "last"}"#, "last"),
            (r#"{"te\u0078t": "caf\u00e9 \ud83e\udd80 \"\\\n"}"#, "café 🦀 \"\\\n"),
            (r#"{"meta": {"text": "inner"}, "n": -1.5e+3, "t": true, "text": ""}"#, ""),
        ];
        for (object, text) in cases {
            assert_eq!(text_of(object, "text"), found(text, 0), "{object}");
        }
        assert_eq!(text_of(r#"{"text": null}"#, "text"), Text::Null);
        for object in [r#"{"text": 3}"#, r#"{"text": ["a"]}"#, r#"{"text": NaN}"#] {
            assert_eq!(text_of(object, "text"), Text::Other);
        }
        let missing = Text::Missing(vec!["a".into(), "b".into()]);
        assert_eq!(text_of(r#"{"a": 1, "b": {"text": "x"}}"#, "text"), missing);
        assert_eq!(text_of("{}", "text"), Text::Missing(Vec::new()));
    }

    #[test]
    fn lone_surrogates_are_replaced_and_counted() {
        let cases = [
            (r#""\ud83d""#, "\u{fffd}", 1),
            (r#""a\udc00b\ud800""#, "a\u{fffd}b\u{fffd}", 2),
            (r#""\ud83d\ud83e\udd80é""#, "\u{fffd}🦀é", 1),
            (r#""\ud83d\n\ufffd""#, "\u{fffd}\n\u{fffd}", 1),
        ];
        for (raw, text, lone) in cases {
            assert_eq!(
                text_of(&format!("{{\"text\": {raw}}}"), "text"),
                found(text, lone),
                "{raw}"
            );
        }
    }

    #[test]
    fn what_is_no_object_is_told_with_its_place() {
        let cases = [
            ("[1]", 1),
            ("{\"text\": \"open", 14),
            ("{\"text\" \"a\"}", 9),
            ("{\"text\": \"a\"", 12),
            ("{\"text\": \"a\"} {}", 15),
            ("{\"text\": \"a\",}", 14),
            ("{\"a\": nan, \"text\": \"a\"}", 7),
            ("{\"a\": , \"text\": \"a\"}", 7),
            ("{text: 1}", 2),
        ];
        for (object, at) in cases {
            assert_eq!(text_of(object, "text"), Text::NoObject(at), "{object}");
        }
        // Escapes that end behind the end.
        assert!(matches!(text_of("{\"a\\", "text"), Text::NoObject(_)));
        assert!(matches!(text_of(r#"{"text": "\q"}"#, "text"), Text::NoObject(_)));
    }
}
