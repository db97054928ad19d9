//! A reply's text to the answer in it. `object` finds the one JSON object, whatever stands around
//! it: reasoning, a code fence, words. `fitted` brings it to the question's schema where there is
//! only one way to read it. What can be read in two ways is not an answer.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// What the last line begins with where the object does not stand alone.
pub(super) const MARK: &str = "ANSWER:";
const FENCE: &str = "```";
/// Tags around the reasoning of models that think before they answer.
const THOUGHTS: [(&str, &str); 2] = [("<think>", "</think>"), ("<thinking>", "</thinking>")];

/// JSON in which no object has a key twice: which of the two values is meant cannot be known.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Unambiguous, D::Error> {
        source.deserialize_any(Reading).map(Unambiguous)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Unambiguous(value))) = fields.next_entry::<String, _>()? {
            if all.contains_key(&key) {
                return Err(A::Error::custom(format_args!("it has the key {key:?} twice")));
            }
            all.insert(key, value);
        }
        Ok(all.into())
    }
}

fn parsed(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).map(|Unambiguous(value)| value)
}

/// The object of a reply.
///
/// # Errors
/// Why there is none, in words that can be told to the one who replied.
pub(super) fn object(reply: &str) -> Result<Value, String> {
    let reply = reply.trim();
    match parsed(reply) {
        Ok(value @ Value::Object(_)) => return Ok(value),
        Ok(_) => return Err("it is not a JSON object: it is JSON, but not an object".into()),
        Err(_) => {}
    }
    let answer = without_thoughts(reply);
    if answer.is_empty() && !reply.is_empty() {
        return Err("it is not a JSON object: there is nothing but reasoning".into());
    }
    if let Some(rest) = marked(answer) {
        let found = objects(rest)?;
        if !found.is_empty() {
            return only(found);
        }
    }
    let mut fenced = Vec::new();
    for text in fences(answer) {
        match parsed(text) {
            Ok(value) if value.is_object() => fenced.push(value),
            Err(error) if error.is_data() => return Err(no_object(&error)),
            _ => {}
        }
    }
    if !fenced.is_empty() {
        return only(fenced);
    }
    let found = objects(answer)?;
    if !found.is_empty() {
        return only(found);
    }
    let why = parsed(answer).err().map(|error| no_object(&error));
    Err(why.unwrap_or_else(|| "it is not a JSON object".into()))
}

fn no_object(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "can be read in two ways" } else { "is not a JSON object" };
    format!("it {what}: {error}")
}

/// Whether a reply has nothing but reasoning, finished or not.
pub(super) fn says_nothing(reply: &str) -> bool {
    without_thoughts(reply.trim()).is_empty()
}

/// A reply behind the reasoning that it begins with. The opening tag may be missing, as templates
/// of some models end with it; the closing one is missing where the reply was cut off.
fn without_thoughts(reply: &str) -> &str {
    let mut rest = reply;
    for (open, close) in THOUGHTS {
        while let Some(inside) = rest.strip_prefix(open) {
            rest = inside.split_once(close).map_or("", |(_, answer)| answer).trim();
        }
        if let Some((_, answer)) = rest.split_once(close) {
            rest = answer.trim();
        }
    }
    rest
}

/// What stands behind the last mark that begins a line, be it bold or a heading.
fn marked(text: &str) -> Option<&str> {
    let begins = |at: &usize| {
        let line = text[..*at].rsplit('\n').next().unwrap_or_default();
        line.chars().all(|c| c.is_whitespace() || "*#>_".contains(c))
    };
    let mark = text.match_indices(MARK).map(|(at, _)| at).filter(begins).last()?;
    Some(&text[mark + MARK.len()..])
}

/// The text in each code fence.
fn fences(text: &str) -> Vec<&str> {
    let inside = |block: &'_ str| -> Option<usize> {
        // The first line names the language.
        let (language, _) = block.split_once('\n')?;
        language.trim().chars().all(char::is_alphanumeric).then_some(language.len() + 1)
    };
    let blocks = text.split(FENCE).skip(1).step_by(2);
    blocks.filter_map(|block| Some(&block[inside(block)?..])).collect()
}

/// Every JSON object among words.
///
/// # Errors
/// When something begins as an object and is none: what stands inside of it is not the answer.
fn objects(text: &str) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Unambiguous>();
        match values.next() {
            Some(Ok(Unambiguous(value))) => {
                let end = values.byte_offset();
                // An empty one among words says nothing.
                if value.as_object().is_some_and(|object| !object.is_empty()) {
                    found.push(value);
                }
                rest = &rest[end..];
            }
            Some(Err(error)) if rest[1..].trim_start().starts_with('"') => {
                return Err(no_object(&error));
            }
            // A brace among words.
            _ => rest = &rest[1..],
        }
    }
    Ok(found)
}

/// The one object; the same one may be there several times.
fn only(mut found: Vec<Value>) -> Result<Value, String> {
    found.dedup();
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => Err("it has several JSON objects that differ; only one is wanted".into()),
    }
}

/// An object in the form of a JSON schema, as far as there is only one way to bring it there: keys
/// that the schema does not have are dropped, null becomes an empty list, and text, numbers and
/// truth values become what is wanted where they say the same. Everything else stays as it is, for
/// the reader to refuse.
pub(super) fn fitted(schema: &Value, value: Value) -> Value {
    match value {
        Value::Object(fields) if wants(schema, "object") => {
            let Some(known) = schema["properties"].as_object() else {
                return Value::Object(fields);
            };
            let closed = schema["additionalProperties"] == false;
            let fit = |(name, value): (String, Value)| match known.get(&name) {
                Some(schema) => Some((name, fitted(schema, value))),
                None => (!closed).then_some((name, value)),
            };
            Value::Object(fields.into_iter().filter_map(fit).collect::<Map<String, Value>>())
        }
        Value::Array(items) if wants(schema, "array") => {
            let mut items = items;
            if let Some(most) = schema["maxItems"].as_u64() {
                items.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            }
            items.into_iter().map(|item| fitted(&schema["items"], item)).collect()
        }
        Value::Null if !wants(schema, "null") && wants(schema, "array") => Value::Array(Vec::new()),
        Value::String(text) => fitted_text(schema, text),
        Value::Number(number) => fitted_number(schema, number),
        other => other,
    }
}

fn fitted_text(schema: &Value, text: String) -> Value {
    if wants(schema, "string") {
        let same = |word: &&Value| {
            word.as_str().is_some_and(|word| word.eq_ignore_ascii_case(text.trim()))
        };
        let word = schema["enum"].as_array().into_iter().flatten().find(same).cloned();
        return word.unwrap_or(Value::String(text));
    }
    let bare = text.trim();
    let read = match () {
        () if wants(schema, "integer") => bare.parse::<i64>().ok().map(Value::from),
        () if wants(schema, "number") => {
            bare.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number)
        }
        () if wants(schema, "boolean") => bare.to_ascii_lowercase().parse().ok().map(Value::Bool),
        () => None,
    };
    read.unwrap_or(Value::String(text))
}

fn fitted_number(schema: &Value, number: Number) -> Value {
    if wants(schema, "number") {
        return Value::Number(number);
    }
    // Beyond this not every whole number is one of its kind.
    const WHOLE: f64 = 9e15;
    match number.as_f64().filter(|x| number.is_f64() && x.fract() == 0.0 && x.abs() < WHOLE) {
        Some(whole) if wants(schema, "integer") => Value::from(whole as i64),
        _ if wants(schema, "string") => Value::String(number.to_string()),
        _ => Value::Number(number),
    }
}

/// Whether a schema allows values of a type, which it may have several of.
fn wants(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    }
}

/// A text of at most so many characters: whole sentences where there is an end of one, else whole
/// words and an ellipsis. None where there is neither.
pub(super) fn shortened(text: &str, most: usize) -> Option<String> {
    let Some((end, _)) = text.char_indices().nth(most) else { return Some(text.into()) };
    let ends = |(at, c): &(usize, char)| {
        let (before, after) = (&text[..*at], &text[at + c.len_utf8()..]);
        let next = after.trim_start().chars().next();
        // The dots of "1.5" and "e.g." end no sentence.
        let letters = before.chars().rev().take_while(|c| c.is_alphabetic()).count();
        ".!?。！？".contains(*c)
            && (*c != '.' || letters != 1)
            && after.chars().next().is_none_or(|c| !c.is_alphanumeric())
            && next.is_none_or(|c| !c.is_lowercase() && c != ',')
    };
    if let Some((at, c)) = text[..end].char_indices().rfind(ends) {
        return Some(text[..at + c.len_utf8()].into());
    }
    let (room, _) = text.char_indices().nth(most.checked_sub(1)?)?;
    let space = text[..room].rfind(char::is_whitespace)?;
    Some(format!("{}…", text[..space].trim_end_matches([' ', ',', ';', ':'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_found_whatever_stands_around_it() {
        for reply in [
            "{\"a\": 1}",
            "\n {\"a\":\n1} \n",
            "```json\n{\"a\": 1}\n```",
            "```\n{\"a\": 1}```",
            "It is {\"b\": 2}.\n\nANSWER: {\"a\": 1}\n\n",
            "ANSWER:{\"a\":1}",
            "It is {\"a\": 1}",
            "ANSWER: {\"a\": 1}\nI hope that helps.",
            "ANSWER: it is {\"a\": 1}",
            "**ANSWER:** {\"a\": 1}",
            "ANSWER:\n```json\n{\"a\": 1}\n```",
            "ANSWER: {\"b\": 1}\nNo:\nANSWER: {\"a\": 1}",
            "Here it is:\n```json\n{\"a\": 1}\n```\nThe set {x} is {\"b\": 2}.",
            "<think>Is it {\"b\": 2}? No.</think>\n{\"a\": 1}",
            "<think>\n</think>\n\n```json\n{\"a\": 1}\n```",
            "Is it {\"b\": 2}? No.</think>{\"a\": 1}",
            "<thinking>{\"b\": 2}</thinking>The answer is {\"a\": 1}.",
            "{\"a\": 1}\n{\"a\": 1}",
            "In braces {a} it is {\"a\": 1} {",
        ] {
            assert_eq!(object(reply), Ok(json!({ "a": 1 })), "{reply}");
        }
        let tag = r#"{"a": "</think>{\"b\": 2}"}"#;
        assert_eq!(object(tag), Ok(json!({ "a": "</think>{\"b\": 2}" })));
    }

    #[test]
    fn what_can_be_read_in_two_ways_or_is_cut_off_is_no_answer() {
        for reply in [
            "",
            "A dog.",
            "[1]",
            "[{\"a\": 1}]",
            "\"{}\"",
            "{\"a\": 1} {\"a\": 2}",
            "{\"a\": 1} or {\"a\": 2}",
            "ANSWER: {\"a\": 1} or {\"a\": 2}",
            "```\n{\"a\": 1}\n```\n```\n{\"a\": 2}\n```",
            "{\"a\": 1",
            "{\"b\": {\"a\": 1}",
            "{\"b\": nothing, \"c\": {\"a\": 1}}",
            "{\"a\": 1}, {\"b",
            "<think>{\"a\": 1}",
            "<think>{\"a\": 1}</think>",
            "{\"a\": 1, \"a\": 1}",
            "{\"a\": {\"b\": 1, \"c\": 2, \"b\": 3}}",
            "ANSWER: {\"a\": 1, \"a\": 2}",
            "```json\n{\"a\": 1, \"a\": 2}\n```\nor\n```json\n{\"a\": 1}\n```",
        ] {
            assert!(object(reply).is_err(), "{reply}");
        }
        let twice = object("So: {\"a\": 1, \"a\": 2}").unwrap_err();
        let why = "it can be read in two ways: it has the key \"a\" twice at line 1 column ";
        assert!(twice.starts_with(why), "{twice}");
        assert!(object(&"{\"a\":".repeat(100_000)).is_err());
        assert!(object(&"{".repeat(100_000)).is_err());
        let two = object("{\"a\": 1} or {\"a\": 2}").unwrap_err();
        assert_eq!(two, "it has several JSON objects that differ; only one is wanted");
    }

    #[test]
    fn reasoning_alone_says_nothing() {
        for reply in ["", " \n", "<think>", "<think>\nIt is a", "<think>It is a dog.</think>\n"] {
            assert!(says_nothing(reply), "{reply}");
        }
        assert!(!says_nothing("<think></think>{"));
        assert!(!says_nothing("It"));
    }

    #[test]
    fn values_are_brought_into_form_where_there_is_one_way() {
        let schema = json!({
            "type": "object",
            "properties": {
                "text": { "type": "string" },
                "list": { "type": "array", "maxItems": 2, "items": { "type": "integer" } },
                "share": { "type": "number" },
                "sure": { "type": "boolean" },
                "word": { "type": "string", "enum": ["high", "low"] },
                "any": { "type": ["string", "null"] },
            },
            "additionalProperties": false,
        });
        let fit = |value: Value| fitted(&schema, value);
        assert_eq!(fit(json!({ "text": "a", "why": "so" })), json!({ "text": "a" }));
        assert_eq!(fit(json!({ "list": ["1", 2.0, 3] })), json!({ "list": [1, 2] }));
        assert_eq!(fit(json!({ "list": null, "any": null })), json!({ "list": [], "any": null }));
        assert_eq!(fit(json!({ "share": "0.5", "sure": " True" })), {
            json!({ "share": 0.5, "sure": true })
        });
        assert_eq!(fit(json!({ "word": "High ", "text": 1999 })), {
            json!({ "word": "high", "text": "1999" })
        });
        // These are for the reader to refuse.
        for other in [
            json!({ "list": ["one", 1.5, true, null] }),
            json!({ "list": "1", "share": "much", "sure": "perhaps" }),
            json!({ "text": null, "word": ["high"] }),
            json!([1]),
        ] {
            let kept = match &other["list"] {
                Value::Array(_) => json!({ "list": ["one", 1.5] }),
                _ => other.clone(),
            };
            assert_eq!(fit(other), kept);
        }
        let open = json!({ "type": "object", "properties": {} });
        assert_eq!(fitted(&open, json!({ "a": 1 })), json!({ "a": 1 }));
    }

    #[test]
    fn a_long_text_ends_with_a_sentence_or_a_word() {
        let short = |text: &str, most| shortened(text, most);
        assert_eq!(short("One. Two.", 9).as_deref(), Some("One. Two."));
        assert_eq!(short("One. Two. Three", 10).as_deref(), Some("One. Two."));
        assert_eq!(short("Of names, e.g. Mary. And", 20).as_deref(), Some("Of names, e.g. Mary."));
        assert_eq!(short("Of names, e.g. Mary of", 20).as_deref(), Some("Of names, e.g.…"));
        assert_eq!(short("Version 1.5 of it all", 12).as_deref(), Some("Version…"));
        assert_eq!(short("Ähnlich. Öl und mehr", 12).as_deref(), Some("Ähnlich."));
        assert_eq!(short(&"é".repeat(12), 10), None);
    }
}
