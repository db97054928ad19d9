//! A reply's text to the JSON object that it must hold: alone, or on a last line behind `ANSWER:`.
//! Nothing is guessed.

use serde_json::Value;

/// What the last line begins with where the object does not stand alone.
pub(super) const MARK: &str = "ANSWER:";
const FENCE: &str = "```";

/// The object of a reply.
///
/// # Errors
/// Why there is none, in words that can be told to the one who replied.
pub(super) fn object(reply: &str) -> Result<Value, String> {
    let reply = reply.trim();
    let marked = reply
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .and_then(|line| line.trim().strip_prefix(MARK));
    match marked {
        Some(rest) => parse(rest).map_err(|why| {
            format!(
                "the text after `{MARK}` is not a JSON object: \
                 {why}"
            )
        }),
        None => parse(bare(reply)).map_err(|why| format!("it is not a JSON object: {why}")),
    }
}

/// The text in a fence around all of it.
fn bare(reply: &str) -> &str {
    let inside = || {
        let (language, inside) =
            reply.strip_prefix(FENCE)?.strip_suffix(FENCE)?.split_once('\n')?;
        language.trim().chars().all(char::is_alphanumeric).then_some(inside)
    };
    inside().unwrap_or(reply)
}

fn parse(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text.trim()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("it is JSON, but not an object".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_stands_alone_in_a_fence_or_behind_the_mark() {
        for reply in [
            "{\"a\": 1}",
            "\n {\"a\":\n1} \n",
            "```json\n{\"a\": 1}\n```",
            "```\n{\"a\": 1}```",
            "It is {\"b\": 2}.\n\nANSWER: {\"a\": 1}\n\n",
            "ANSWER:{\"a\":1}",
        ] {
            assert_eq!(object(reply), Ok(json!({ "a": 1 })), "{reply}");
        }
    }

    #[test]
    fn anything_else_is_no_answer() {
        for reply in [
            "",
            "It is {\"a\": 1}",
            "[1]",
            "{\"a\": 1} {\"a\": 2}",
            "{\"a\": 1",
            "ANSWER: {\"a\": 1}\nor not",
            "ANSWER: it is {\"a\": 1}",
            "ANSWER: [1]",
            "```json\n{\"a\": 1}\n``` indeed",
            "```<b>\n{\"a\": 1}\n```",
        ] {
            assert!(object(reply).is_err(), "{reply}");
        }
        assert!(object(&"{\"a\":".repeat(100_000)).is_err());
    }
}
