//! Keys that somebody has written into the settings: no message repeats them.

use super::Config;

/// What the name of a setting has in it that holds a secret.
const SECRET: [&str; 9] =
    ["api_key", "api-key", "apikey", "auth", "credential", "passw", "secret", "token", "bearer"];
/// Settings whose names are like those and that hold none.
const HARMLESS: [&str; 4] = ["api_key_env", "max_tokens", "max_tokens_limit", "tokens_per_minute"];
/// How keys of well-known servers begin.
const BEGINNINGS: [&str; 10] =
    ["sk-", "sk_", "pk-", "hf_", "gsk_", "ghp_", "github_pat_", "xai-", "AIza", "eyJ"];

/// What is wrong with settings, in the words of the parser, without what seems to be a secret.
pub(super) fn without(text: &str, error: &toml::de::Error) -> String {
    let masked = masked(text);
    if masked == text {
        return error.to_string();
    }
    // The same mistake in a text with other letters.
    match toml::from_str::<Config>(&masked) {
        Err(error) => error.to_string(),
        Ok(_) => {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("line {} cannot be read", before.matches('\n').count() + 1)
        }
    }
}

/// Settings with other letters and digits wherever something seems to be a secret, and as long.
fn masked(text: &str) -> String {
    text.split_inclusive('\n').map(masked_line).collect()
}

fn masked_line(line: &str) -> String {
    let equals = line.match_indices('=').map(|(at, _)| at);
    let secret = equals.into_iter().find(|at| names_secret(&line[..*at]));
    let (plain, secret) = line.split_at(secret.unwrap_or(line.len()));
    let mut masked = String::with_capacity(line.len());
    for word in plain.split_inclusive(|c: char| !in_word(c)) {
        match looks_like_key(word.trim_end_matches(|c: char| !in_word(c))) {
            true => masked.extend(word.chars().map(mask)),
            false => masked.push_str(word),
        }
    }
    masked.extend(secret.chars().map(mask));
    masked
}

/// Whether the last word of a text, which stands before a `=`, is the name of a secret.
fn names_secret(text: &str) -> bool {
    let name = text.trim_end().trim_end_matches(['"', '\'']);
    let name = name.rsplit(|c: char| !in_word(c)).next().unwrap_or_default().to_lowercase();
    let secret = name.ends_with("key") || SECRET.iter().any(|word| name.contains(word));
    secret && !HARMLESS.contains(&name.as_str())
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || "-_".contains(c)
}

/// A character that stands for another one, so that a text keeps its structure.
fn mask(c: char) -> char {
    match c {
        '0'..='9' => '1',
        '\\' => 'x',
        c if in_word(c) => 'x',
        c => c,
    }
}

/// Whether a word seems to be a key: it begins as one, or has a long run of letters mixed with
/// digits.
pub(super) fn looks_like_key(word: &str) -> bool {
    const SHORTEST: usize = 12;
    const RUN: usize = 20;
    let begins = BEGINNINGS.iter().any(|beginning| word.starts_with(beginning));
    let run = |run: &str| {
        run.len() >= RUN
            && run.chars().filter(char::is_ascii_digit).count() > 1
            && run.contains(|c: char| c.is_ascii_alphabetic())
    };
    (begins && word.len() >= SHORTEST) || word.split(['-', '_']).any(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_nothing_else_is() {
        for (line, expected) in [
            ("api_key = \"abc-1\"", "api_key = \"xxxx1\""),
            ("llm = { key = 'a\\\"b', x = 2 }", "llm = { key = 'xx\"x', x = 1 }"),
            ("\"OPENAI_API_KEY\" = x\n", "\"OPENAI_API_KEY\" = x\n"),
            ("model = \"sk-proj-1234\"", "model = \"xxxxxxxx1111\""),
            ("model = \"0123456789abcdef01234567\"", "model = \"1111111111xxxxxx11111111\""),
            ("name.password = 12", "name.password = 11"),
        ] {
            assert_eq!(masked(line), expected);
        }
        for line in [
            "api_key_env = \"OPENAI_API_KEY\"",
            "max_tokens = 500",
            "path = \"models/gpt2-small_mlp_transcoders_24576_features_v2/resid\"",
            "model = \"gpt-4o-mini-2024-07-18\"",
        ] {
            assert_eq!(masked(line), line);
        }
        assert!(!looks_like_key("CIRCUIT_ATLAS_KEY_2") && looks_like_key("hf_abcdefghij"));
    }
}
