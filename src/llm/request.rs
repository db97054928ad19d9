//! A request to a model: the messages with the form of the reply, the hash under which the reply is
//! kept, and the body that is sent.

use super::capabilities::Capabilities;
use super::client::deployment;
use super::prompts;
use super::reply::MARK;
use super::{ChatRole, Form, Message, Question};
use crate::config::{Llm, ReplyFormat};
use crate::error::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How a reply is brought into form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// By the JSON schema that goes with the request.
    Schema,
    /// By a marked line, asked for in words.
    Line,
}

impl Mode {
    /// All that these settings allow, the first choice first.
    pub(super) fn allowed(llm: &Llm) -> &'static [Mode] {
        match llm.replies {
            ReplyFormat::Auto => &[Mode::Schema, Mode::Line],
            ReplyFormat::Schema => &[Mode::Schema],
            ReplyFormat::Line => &[Mode::Line],
        }
    }

    /// That for a server with these capabilities.
    pub(super) fn of(llm: &Llm, capabilities: Capabilities) -> Mode {
        match llm.replies {
            ReplyFormat::Auto if !capabilities.schema => Mode::Line,
            _ => Mode::allowed(llm)[0],
        }
    }

    fn word(self) -> &'static str {
        match self {
            Mode::Schema => "schema",
            Mode::Line => "line",
        }
    }
}

/// How a question is asked, besides its words. Replies to each way are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub mode: Mode,
    pub max_tokens: u32,
    /// Which time a failed question is asked again from its beginning; 0: the first.
    pub round: u32,
}

impl Way {
    /// All that these settings allow, the first choice first.
    pub(super) fn allowed(llm: &Llm, round: u32) -> Vec<Way> {
        let limits = [Some(llm.max_tokens), raised(llm)];
        let way = |mode: &Mode| {
            let mode = *mode;
            limits.into_iter().flatten().map(move |max_tokens| Way { mode, max_tokens, round })
        };
        Mode::allowed(llm).iter().flat_map(way).collect()
    }

    /// That for a server with these capabilities.
    pub(super) fn of(llm: &Llm, capabilities: Capabilities, round: u32) -> Way {
        let high = raised(llm).filter(|_| capabilities.raised);
        let max_tokens = high.unwrap_or(llm.max_tokens);
        Way { mode: Mode::of(llm, capabilities), max_tokens, round }
    }
}

/// The limit on tokens for a model that says nothing within the usual one, if it is higher.
pub(super) fn raised(llm: &Llm) -> Option<u32> {
    Some(llm.max_tokens_limit).filter(|limit| *limit > llm.max_tokens)
}

/// A reply that cannot be read, and why.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    pub reply: String,
    pub why: String,
}

#[derive(Clone, Debug)]
pub(super) struct Request<'q> {
    question: &'q Question,
    pub way: Way,
    pub purpose: &'static str,
    pub messages: Vec<Message>,
    pub hash: String,
    temperature: f64,
}

/// A value with the keys of its objects in alphabetical order, whatever order they are kept in: it
/// goes into a hash.
fn in_order(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            fields.into_iter().map(|(name, value)| (name.clone(), in_order(value))).collect()
        }
        Value::Array(values) => values.iter().map(in_order).collect(),
        other => other.clone(),
    }
}

impl<'q> Request<'q> {
    /// The request that asks a question, or asks it again after a mistake.
    ///
    /// # Errors
    /// When a template cannot be written.
    pub(super) fn new(
        llm: &Llm,
        question: &'q Question,
        mistake: Option<&Mistake>,
        way: Way,
    ) -> Result<Request<'q>> {
        let mut messages = match question.embeds() {
            true => question.messages.clone(),
            false => in_form(question, way.mode)?,
        };
        let purpose = match mistake {
            None => question.purpose,
            Some(mistake) => {
                messages.extend(repair(mistake, way.mode)?);
                "repair"
            }
        };
        let (hash, temperature) = (String::new(), llm.temperature);
        let mut request = Request { question, way, purpose, messages, hash, temperature };
        request.hash = request.hashed(deployment(llm, &question.model));
        Ok(request)
    }

    /// Of everything that makes a reply what it is, but not of what a server does not understand.
    fn hashed(&self, model: &str) -> String {
        let Question { sample, form, .. } = self.question;
        if self.question.embeds() {
            let texts: Vec<&str> = self.messages.iter().map(|one| one.text.as_str()).collect();
            let all = json!([model, form.name, texts]);
            return blake3::hash(all.to_string().as_bytes()).to_hex()[..32].to_string();
        }
        let Way { mode, max_tokens, round } = self.way;
        let parameters = json!([model, self.temperature, max_tokens, sample]);
        let (mode, schema) = (mode.word(), in_order(&form.schema));
        let spoken = in_order(&spoken(&self.messages));
        let all = match round {
            0 => json!([parameters, mode, form.name, schema, spoken]),
            round => json!([parameters, mode, form.name, schema, spoken, round]),
        };
        blake3::hash(all.to_string().as_bytes()).to_hex()[..32].to_string()
    }

    /// Whether there is a system message, which not every server accepts.
    pub(super) fn has_system(&self) -> bool {
        self.messages.iter().any(|message| message.role == ChatRole::System)
    }

    pub(super) fn model(&self) -> &'q str {
        &self.question.model
    }

    /// The body of the request, without what the server does not know.
    pub(super) fn body(&self, capabilities: Capabilities) -> Value {
        if self.question.embeds() {
            let texts: Vec<&str> = self.messages.iter().map(|one| one.text.as_str()).collect();
            return json!({ "model": self.question.model, "input": texts });
        }
        let messages = match capabilities.system {
            true => spoken(&self.messages),
            false => spoken(&merged(&self.messages)),
        };
        let mut body = json!({ "model": self.question.model, "messages": messages });
        if let Some(name) = capabilities.limit.name() {
            body[name] = self.way.max_tokens.into();
        }
        if capabilities.temperature {
            body["temperature"] = self.temperature.into();
        }
        if capabilities.seed && self.question.sample > 0 {
            body["seed"] = self.question.sample.into();
        }
        if self.way.mode == Mode::Schema {
            let Form { name, schema } = &self.question.form;
            let mut schema = json!({ "name": name, "schema": schema });
            if capabilities.strict {
                schema["strict"] = true.into();
            }
            body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
        }
        body
    }

    fn lengths(&self, length: impl Fn(&str) -> usize) -> usize {
        self.messages.iter().map(|message| length(&message.text)).sum()
    }

    /// Tokens of the reply, at most.
    pub(super) fn most_completion_tokens(&self) -> u32 {
        if self.question.embeds() { 0 } else { self.way.max_tokens }
    }

    /// Tokens of the messages, about.
    pub(super) fn prompt_tokens(&self) -> u32 {
        tokens(self.lengths(|text| text.chars().count()))
    }

    /// More tokens than the messages have, in any language that is written in words.
    pub(super) fn most_prompt_tokens(&self) -> u32 {
        u32::try_from(self.lengths(str::len) / 2).unwrap_or(u32::MAX)
    }
}

fn spoken(messages: &[Message]) -> Value {
    messages.iter().map(|m| json!({ "role": m.role.word(), "content": m.text })).collect()
}

/// The messages with the text of system messages at the beginning of the user's next one.
fn merged(messages: &[Message]) -> Vec<Message> {
    let (mut merged, mut system) = (Vec::new(), String::new());
    for message in messages {
        match message.role {
            ChatRole::System => system.push_str(&format!("{}\n\n", message.text)),
            ChatRole::User => {
                let text = std::mem::take(&mut system) + &message.text;
                merged.push(Message { role: ChatRole::User, text });
            }
            ChatRole::Assistant => merged.push(message.clone()),
        }
    }
    if !system.is_empty() {
        merged.push(Message { role: ChatRole::User, text: system.trim().into() });
    }
    merged
}

/// So many characters as tokens, about.
pub(super) fn tokens(characters: usize) -> u32 {
    u32::try_from(characters.div_ceil(4)).unwrap_or(u32::MAX)
}

/// The messages of a question with the form of the reply behind the last one.
fn in_form(question: &Question, mode: Mode) -> Result<Vec<Message>> {
    let Form { schema, .. } = &question.form;
    let field =
        |(name, about): (&String, &Value)| json!({ "name": name, "about": about["description"] });
    let fields: Vec<Value> =
        schema["properties"].as_object().into_iter().flatten().map(field).collect();
    let view = json!({ "fields": fields, "mark": MARK, "schema": schema.to_string() });
    let text = prompts::text(&format!("form-{}.jinja", mode.word()), view)?;
    let mut messages = question.messages.clone();
    match messages.last_mut().filter(|last| last.role == ChatRole::User) {
        Some(last) => last.text.push_str(&format!("\n\n{text}")),
        None => messages.push(Message { role: ChatRole::User, text }),
    }
    Ok(messages)
}

/// What is said to a reply that cannot be read.
fn repair(mistake: &Mistake, mode: Mode) -> Result<[Message; 2]> {
    let view = json!({ "why": mistake.why, "mark": MARK, "line": mode == Mode::Line });
    let text = prompts::text("repair.jinja", view)?;
    let reply = Message { role: ChatRole::Assistant, text: mistake.reply.clone() };
    Ok([reply, Message { role: ChatRole::User, text }])
}

#[cfg(test)]
mod tests {
    use super::super::capabilities::LimitField;
    use super::*;

    fn question() -> Question {
        let text = "What is it?".to_string();
        let schema = json!({ "type": "object", "properties": { "what": { "type": "string", "description": "a noun" } } });
        Question {
            subject: "att0.1".parse().unwrap(),
            purpose: "explain",
            model: "m".into(),
            sample: 0,
            messages: vec![Message { role: ChatRole::User, text }],
            form: Form { name: "it", schema },
        }
    }

    fn way(mode: Mode) -> Way {
        Way { mode, max_tokens: 500, round: 0 }
    }

    fn request<'q>(question: &'q Question, mode: Mode) -> Request<'q> {
        Request::new(&Llm::default(), question, None, way(mode)).unwrap()
    }

    #[test]
    fn the_form_is_asked_for_in_words_behind_the_last_message() {
        let question = question();
        assert_eq!(
            request(&question, Mode::Schema).messages[0].text,
            "What is it?\n\nReply with one JSON object and nothing else. Its fields:\n- `what`: a \
             noun"
        );
        let line = request(&question, Mode::Line);
        assert_eq!(line.messages[0].text.lines().nth(3).unwrap(), "- `what`: a noun");
        assert!(
            line.messages[0]
                .text
                .contains("The last line of your reply must be `ANSWER:` followed")
        );
        assert!(line.body(Capabilities::default())["response_format"].is_null());
    }

    #[test]
    fn a_mistake_is_shown_and_named() {
        let question = question();
        let mistake = Mistake { reply: "A dog.".into(), why: "it is no JSON object".into() };
        for (mode, alone) in [
            (Mode::Schema, "with the JSON object alone"),
            (Mode::Line, "with the line `ANSWER:` and the object on it alone"),
        ] {
            let request =
                Request::new(&Llm::default(), &question, Some(&mistake), way(mode)).unwrap();
            assert_eq!(request.purpose, "repair");
            assert_eq!(
                request.messages[1],
                Message { role: ChatRole::Assistant, text: "A dog.".into() }
            );
            let wanted =
                format!("That reply cannot be used: it is no JSON object.\nReply again, {alone}.");
            assert_eq!(request.messages[2].text, wanted);
        }
    }

    #[test]
    fn whatever_changes_a_reply_changes_the_hash() {
        let plain = question();
        let hash = |q: &Question, mode| request(q, mode).hash;
        let mut hashes = vec![hash(&plain, Mode::Schema), hash(&plain, Mode::Line)];
        hashes.push(hash(&Question { sample: 1, ..plain.clone() }, Mode::Schema));
        hashes.push(hash(&Question { model: "n".into(), ..plain.clone() }, Mode::Schema));
        hashes.push(hash(
            &Question { form: Form { name: "it", schema: json!({}) }, ..plain.clone() },
            Mode::Schema,
        ));
        let warm = Llm { temperature: 0.5, ..Llm::default() };
        hashes.push(Request::new(&warm, &plain, None, way(Mode::Schema)).unwrap().hash);
        let plain_way = way(Mode::Schema);
        for way in [Way { max_tokens: 7, ..plain_way }, Way { round: 1, ..plain_way }] {
            hashes.push(Request::new(&Llm::default(), &plain, None, way).unwrap().hash);
        }
        let known = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), known);
        let renamed =
            Question { subject: "att0.2".parse().unwrap(), purpose: "detection", ..plain.clone() };
        assert_eq!(hash(&renamed, Mode::Schema), hash(&plain, Mode::Schema));
    }

    #[test]
    fn only_what_the_server_knows_is_sent() {
        let question = Question { sample: 3, ..question() };
        let capabilities = Capabilities {
            limit: LimitField::MaxCompletionTokens,
            temperature: false,
            seed: false,
            ..Capabilities::default()
        };
        let body = request(&question, Mode::Schema).body(capabilities);
        let mut names: Vec<&String> = body.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["max_completion_tokens", "messages", "model", "response_format"]);
        assert_eq!(request(&question, Mode::Schema).body(Capabilities::default())["seed"], 3);
    }

    #[test]
    fn a_system_message_may_stand_in_the_users() {
        let system = Message { role: ChatRole::System, text: "Be brief.".into() };
        let question =
            Question { messages: [vec![system], question().messages].concat(), ..question() };
        let asked = request(&question, Mode::Schema);
        let body = asked.body(Capabilities { system: false, ..Capabilities::default() });
        let [message] = &body["messages"].as_array().unwrap()[..] else { panic!() };
        assert_eq!(message["role"], "user");
        let text = message["content"].as_str().unwrap();
        assert!(text.starts_with("Be brief.\n\nWhat is it?\n\nReply with"), "{text}");
        assert!(asked.has_system());
        assert_eq!(asked.body(Capabilities::default())["messages"][0]["role"], "system");
    }

    #[test]
    fn replies_that_were_paid_for_stay_known() {
        // As version 0.1.0 has it; another hash would have them paid for once more.
        let question = question();
        let asked = request(&question, Mode::Schema);
        let spoken = json!([{ "content": asked.messages[0].text, "role": "user" }]);
        let schema = in_order(&question.form.schema);
        let all = json!([["m", 0.0, 500, 0], "schema", "it", schema, spoken]).to_string();
        assert_eq!(asked.hash, blake3::hash(all.as_bytes()).to_hex()[..32]);
    }

    #[test]
    fn a_higher_limit_is_a_way_of_its_own() {
        let ways = |limit| {
            let llm = Llm { max_tokens_limit: limit, ..Llm::default() };
            Way::allowed(&llm, 0).into_iter().map(|way| way.max_tokens).collect::<Vec<_>>()
        };
        assert_eq!(ways(4000), [500, 4000, 500, 4000]);
        assert_eq!(ways(500), [500, 500]);
        let llm = Llm::default();
        let raised = Capabilities { raised: true, schema: false, ..Capabilities::default() };
        let way = Way { mode: Mode::Line, max_tokens: 4000, round: 2 };
        assert_eq!(Way::of(&llm, raised, 2), way);
    }

    #[test]
    fn the_order_of_keys_is_in_no_hash() {
        let one: Value = serde_json::from_str(r#"{"b": [{"d": 1, "c": 2}], "a": 3}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"a": 3, "b": [{"c": 2, "d": 1}]}"#).unwrap();
        assert_eq!(in_order(&one).to_string(), in_order(&other).to_string());
        assert_eq!(in_order(&one).to_string(), r#"{"a":3,"b":[{"c":2,"d":1}]}"#);
    }
}
