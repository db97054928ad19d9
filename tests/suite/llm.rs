//! Asking a language model, against a server of this machine that answers well or badly, as each
//! test wants it.

use crate::bench::walk;
use crate::llm_server::{Reply, Server, prompt};
use circuit_atlas::artifact::Store;
use circuit_atlas::config::{Llm, Provider, ReplyFormat};
use circuit_atlas::error::{Result, report};
use circuit_atlas::ids::{Status, Subject};
use circuit_atlas::llm::{
    Asked, Asker, Budget, ChatRole, Form, Message, Outcome, Plan, Question, ResponseCache,
    check_key, probe,
};
use circuit_atlas::progress::Progress;
use flate2::Compression;
use flate2::read::GzEncoder;
use serde_json::{Value, json};
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KEY: &str = "sk-never\"ToBeSeen";
const KEY_NAME: &str = "CIRCUIT_ATLAS_TEST_KEY";
const GOOD: &str = r#"{"word": "dog"}"#;

/// An artifact folder, and the settings of a server.
struct Place {
    folder: TempDir,
    llm: Llm,
}

impl Place {
    fn new(server: &Server) -> Place {
        Place::at(server.url())
    }

    fn at(base_url: String) -> Place {
        let llm = Llm {
            provider: Provider::Openai,
            base_url,
            model: "m".into(),
            api_key_env: String::new(),
            retries: 2,
            timeout: 20.0,
            concurrency: 1,
            ..Llm::default()
        };
        Place { folder: TempDir::new().unwrap(), llm }
    }

    fn set(mut self, change: impl FnOnce(&mut Llm)) -> Place {
        change(&mut self.llm);
        self
    }

    fn replies(&self) -> ResponseCache {
        ResponseCache::open(&Store::new(self.folder.path()), None).unwrap()
    }

    fn with<T>(&self, act: impl FnOnce(&Asker) -> T) -> Result<T> {
        let (budget, progress) = (Budget::new(&self.llm), Progress::new("test"));
        let replies = ResponseCache::open(&Store::new(self.folder.path()), None)?;
        let asker = Asker::new(&self.llm, &replies, &budget, &progress);
        Ok(act(&asker.waiting(Duration::from_millis(2))))
    }

    fn try_ask(&self, questions: &[Question]) -> Result<Vec<Asked<String>>> {
        self.with(|asker| asker.ask("asked", questions, word))?
    }

    fn ask(&self, questions: &[Question]) -> Vec<Asked<String>> {
        self.try_ask(questions).unwrap()
    }

    fn ask_one(&self) -> Asked<String> {
        self.ask(&[question("one")]).remove(0)
    }

    fn plan(&self, questions: &[Question]) -> Plan {
        self.with(|asker| asker.plan(questions)).unwrap()
    }

    /// The lines of what is kept.
    fn kept(&self) -> Vec<String> {
        let text =
            std::fs::read_to_string(self.folder.path().join("replies.jsonl")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

fn question(about: &str) -> Question {
    let schema = json!({
        "type": "object",
        "properties": { "word": { "type": "string", "description": "the word" } },
        "required": ["word"],
        "additionalProperties": false,
    });
    Question {
        subject: Subject::Group(about.into()),
        purpose: "explain",
        model: "m".into(),
        sample: 0,
        messages: vec![Message { role: ChatRole::User, text: format!("A word for {about}?") }],
        form: Form { name: "word", schema },
    }
}

fn questions(n: usize) -> Vec<Question> {
    (0..n).map(|i| question(&format!("thing-{i:02}"))).collect()
}

fn word(_: &Question, object: &Value) -> Result<String, String> {
    object["word"].as_str().map(String::from).ok_or("the field `word` is no text".into())
}

fn said(asked: &Asked<String>) -> &str {
    match &asked.outcome {
        Outcome::Answered(word) => word,
        other => panic!("{other:?}"),
    }
}

fn left(asked: &Asked<String>) -> &str {
    match &asked.outcome {
        Outcome::Left(why) => why,
        other => panic!("{other:?}"),
    }
}

fn failed(asked: &Asked<String>) -> &str {
    match &asked.outcome {
        Outcome::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

fn statuses(asked: &Asked<String>) -> Vec<(&'static str, &'static str)> {
    asked.calls.iter().map(|call| (call.purpose, call.status.word())).collect()
}

/// Replies to each question with the thing that it is about.
fn echo(request: &Value) -> Reply {
    let text = prompt(request);
    let thing = text.split("A word for ").nth(1).unwrap().split('?').next().unwrap();
    Reply::says(json!({ "word": thing }).to_string())
}

#[test]
fn a_question_is_sent_once_and_its_reply_kept() {
    let server = Server::start(|_| Reply::says(GOOD));
    let place = Place::new(&server);
    let asked = place.ask_one();
    assert_eq!(said(&asked), "dog");
    let [call] = &asked.calls[..] else { panic!() };
    assert_eq!((call.reply.as_str(), call.prompt_tokens, call.completion_tokens), (GOOD, 100, 10));
    assert_eq!((call.purpose, call.status, call.attempts), ("explain", Status::Ok, 1));

    let again = place.ask_one();
    assert_eq!(again.outcome, asked.outcome);
    assert_eq!(again.calls, asked.calls);
    assert_eq!(place.kept().len(), 1);
    let [request] = &server.requests()[..] else { panic!() };
    assert_eq!(request["model"], "m");
    assert_eq!((&request["temperature"], &request["max_tokens"]), (&json!(0.0), &json!(500)));
    assert_eq!(request["response_format"]["type"], "json_schema");
    assert_eq!(request["response_format"]["json_schema"]["strict"], true);
    assert_eq!(request["response_format"]["json_schema"]["schema"], question("one").form.schema);
    assert!(request["seed"].is_null() && request["stream"].is_null());
    assert!(prompt(request).ends_with("- `word`: the word"), "{}", prompt(request));
    assert_eq!(server.seen()[0].path, "/v1/chat/completions");
    assert!(!server.seen()[0].headers.contains_key("authorization"));
}

#[test]
fn answers_come_in_the_order_of_the_questions_and_no_more_are_asked_at_once_than_set() {
    let server = Server::start(|request| {
        let late = prompt(request).contains("thing-00");
        echo(request).after(Duration::from_millis(if late { 200 } else { 20 }))
    });
    let place = Place::new(&server).set(|llm| llm.concurrency = 3);
    let asked = place.ask(&questions(12));
    let words: Vec<&str> = asked.iter().map(said).collect();
    assert_eq!(words, (0..12).map(|i| format!("thing-{i:02}")).collect::<Vec<_>>());
    assert_eq!(server.most_at_once(), 3);
    assert_eq!(server.requests().len(), 12);
}

#[test]
fn the_same_question_twice_is_sent_once() {
    let server = Server::start(echo);
    let place = Place::new(&server).set(|llm| llm.concurrency = 4);
    let asked = place.ask(&[question("a"), question("b"), question("a"), question("a")]);
    assert_eq!(asked.iter().map(said).collect::<Vec<_>>(), ["a", "b", "a", "a"]);
    assert_eq!(server.requests().len(), 2);
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut packed = Vec::new();
    GzEncoder::new(text.as_bytes(), Compression::fast()).read_to_end(&mut packed).unwrap();
    packed
}

/// Everything that passes, and how it is told of when it does not.
fn passing() -> Vec<(Reply, &'static str)> {
    vec![
        (Reply::hangs_up(), "the connection was lost"),
        (Reply::says(GOOD).cut_at(30), "the connection was lost"),
        (Reply::error(500, "", "oh"), "server error (the server answered 500: oh)"),
        (Reply::page(502, "<html><b>Bad"), "server error (the server answered 502: an HTML page)"),
        (Reply::error(503, "", "full"), "server error (the server answered 503: full)"),
        (Reply::error(408, "", "slow"), "server error (the server answered 408: slow)"),
        (Reply::error(409, "", "lock"), "server error (the server answered 409: lock)"),
        (
            Reply::error(429, "rate_limit_exceeded", "wait").header("Retry-After", "0"),
            "rate limited (the server answered 429: wait)",
        ),
        (Reply::page(200, " <!doctype html>"), "the server sent an HTML page"),
        (Reply::page(200, "{\"choices\""), "the server sent something that is not JSON"),
        (
            Reply::page(200, "data: {\"choices\": []}\n\ndata: [DONE]\n\n"),
            "the server sent a stream of events, which was not asked for",
        ),
        (
            Reply::bytes(gzipped("{}")).header("Content-Encoding", "gzip"),
            "the server sent compressed data, which was not asked for",
        ),
        (Reply::json(json!({ "choices": [] })), "the server sent a completion without a choice"),
        (Reply::json(json!([])), "the server sent a completion without a choice"),
        (
            Reply::json(json!({ "error": { "code": 503, "message": "full" } })),
            "server error (the server answered 503: full)",
        ),
    ]
}

#[test]
fn what_passes_is_tried_again() {
    for (reply, why) in passing() {
        let server = Server::in_turn(vec![reply.clone(), reply, Reply::says(GOOD)]);
        let place = Place::new(&server);
        let asked = place.ask_one();
        assert_eq!(said(&asked), "dog", "{why}");
        assert_eq!(
            (server.requests().len(), asked.calls[0].attempts, place.kept().len()),
            (3, 3, 1),
            "{why}"
        );
    }
}

#[test]
fn what_does_not_pass_is_left_for_the_next_run_and_the_others_go_on() {
    for (reply, why) in passing() {
        let server = Server::start(move |request| match prompt(request).contains("thing-01") {
            true => reply.clone(),
            false => Reply::says(GOOD),
        });
        let place = Place::new(&server);
        let asked = place.ask(&questions(3));
        assert_eq!(left(&asked[1]), format!("{why}; tried 3 times"));
        assert_eq!(statuses(&asked[1]), [("explain", "left")]);
        assert_eq!(asked[1].calls[0].attempts, 3);
        assert_eq!((said(&asked[0]), said(&asked[2])), ("dog", "dog"));
        assert_eq!((server.requests().len(), place.kept().len()), (5, 2));
        assert_eq!(place.plan(&questions(3)).known, 2);
    }
}

#[test]
fn a_server_that_is_slow_is_not_waited_for() {
    let slow = [
        Reply::says(GOOD).after(Duration::from_secs(1)),
        Reply::says(GOOD).dripping(Duration::from_millis(10)),
    ];
    for reply in slow {
        let server = Server::in_turn(vec![reply, Reply::says(GOOD)]);
        let place = Place::new(&server).set(|llm| llm.timeout = 0.3);
        let begun = Instant::now();
        assert_eq!(said(&place.ask_one()), "dog");
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
        let server = Server::start(|_| Reply::says(GOOD).after(Duration::from_secs(1)));
        let place = Place::new(&server).set(|llm| (llm.timeout, llm.retries) = (0.05, 0));
        assert_eq!(left(&place.ask_one()), "no complete reply within `llm.timeout = 0.05` s");
    }
}

#[test]
fn where_nobody_is_there_asking_ends() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place::at(format!("http://{port}/v1")).set(|llm| llm.retries = 1);
    let asked = place.ask(&questions(30));
    let why = left(&asked[0]);
    assert!(
        why.starts_with("the server cannot be reached: ") && why.ends_with("; tried 2 times"),
        "{why}"
    );
    let why = left(&asked[29]);
    assert!(
        why.starts_with("no reply to 10 requests in a row: the server cannot be reached: "),
        "{why}"
    );
    assert!(asked[29].calls.is_empty());
}

#[test]
fn what_concerns_every_question_ends_asking_at_once() {
    let cases = [
        (401, "invalid_api_key", "the server requires a key, but `llm.api_key_env` is empty"),
        (403, "", "this account has no permission"),
        (404, "model_not_found", "the server has no such model, or `llm.base_url` is wrong"),
        (400, "model_not_found", "the server has no such model"),
        (429, "insufficient_quota", "the account's quota is used up"),
    ];
    for (status, code, why) in cases {
        let server = Server::start(move |request| match prompt(request).contains("thing-01") {
            true => Reply::error(status, code, "no"),
            false => Reply::says(GOOD),
        });
        let place = Place::new(&server);
        let asked = place.ask(&questions(9));
        assert_eq!(said(&asked[0]), "dog");
        for asked in &asked[1..] {
            assert_eq!(left(asked), format!("{why} (the server answered {status}: no)"));
        }
        assert_eq!((asked[1].calls.len(), asked[2].calls.len()), (1, 0));
        assert_eq!((server.requests().len(), place.kept().len()), (2, 1));
    }
}

#[test]
fn nobody_is_sent_elsewhere() {
    let other = Server::start(|_| Reply::says(GOOD));
    let target = format!("{}/chat/completions", other.url());
    let server = Server::start(move |_| Reply::page(307, "moved").header("Location", &target));
    let asked = Place::new(&server).ask_one();
    assert!(
        left(&asked).starts_with("the server redirects to an address other than `llm.base_url`"),
        "{}",
        left(&asked)
    );
    assert!(other.requests().is_empty());
}

#[test]
fn all_wait_when_the_server_asks_for_it() {
    let times: &Mutex<Vec<Instant>> = Box::leak(Box::default());
    let server = Server::start(move |request| {
        let mut times = times.lock().unwrap();
        times.push(Instant::now());
        match times.len() {
            1 => Reply::error(429, "", "slow down").header("retry-after-ms", "400"),
            // While the first one waits, these are under way.
            2 => echo(request).after(Duration::from_millis(50)),
            _ => echo(request),
        }
    });
    let place = Place::new(&server).set(|llm| llm.concurrency = 2);
    let asked = place.ask(&questions(5));
    assert!(asked.iter().all(|asked| said(asked).starts_with("thing-")));
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 6);
    assert!(times[2] - times[0] >= Duration::from_millis(395), "{:?}", times[2] - times[0]);
}

#[test]
fn a_server_that_asks_for_more_than_ten_minutes_is_left() {
    let server = Server::start(|_| Reply::error(429, "", "tomorrow").header("Retry-After", "3600"));
    let asked = Place::new(&server).ask(&questions(3));
    let why = "rate limited (the server answered 429: tomorrow), and asks to wait for 60 minutes";
    assert!(asked.iter().all(|asked| left(asked) == why), "{}", left(&asked[0]));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_question_that_is_not_taken_fails_alone_and_is_asked_again_next_time() {
    let cases = [
        ("context_length_exceeded", "too long", "the prompt is too long for the model"),
        (
            "",
            "This model's maximum context length is 8192 tokens",
            "the prompt is too long for the model",
        ),
        ("", "no", "the server rejects the request"),
    ];
    for (code, message, why) in cases {
        let server = Server::start(move |request| match prompt(request).contains("thing-01") {
            true => Reply::error(400, code, message),
            false => Reply::says(GOOD),
        });
        let place = Place::new(&server);
        let asked = place.ask(&questions(3));
        assert_eq!(failed(&asked[1]), format!("{why} (the server answered 400: {message})"));
        assert_eq!(statuses(&asked[1]), [("explain", "failed")]);
        assert_eq!((said(&asked[0]), said(&asked[2])), ("dog", "dog"));
        assert_eq!(server.requests().len(), 3);
        place.ask(&questions(3));
        assert_eq!((server.requests().len(), place.kept().len()), (4, 2));
    }
}

#[test]
fn a_refusal_is_kept() {
    let refusal = json!({ "choices": [{ "message": { "content": null, "refusal": "I\nwill \
        <b>not" }, "finish_reason": "stop" }] });
    let cases = [
        (Reply::json(refusal), "the model refused: I⏎will <b>not"),
        (Reply::ends("", "content_filter"), "the server's content filter blocked it"),
        (
            Reply::error(400, "content_filter", "bad words"),
            "the server's content filter blocked it: bad words",
        ),
    ];
    for (reply, why) in cases {
        let server = Server::start(move |_| reply.clone());
        let place = Place::new(&server);
        let asked = place.ask_one();
        assert_eq!(asked.outcome, Outcome::Refused(why.into()));
        assert_eq!(statuses(&asked), [("explain", "refused")]);
        let again = place.ask_one();
        assert_eq!((again.outcome, again.calls), (asked.outcome, asked.calls));
        assert_eq!((server.requests().len(), place.kept().len()), (1, 1));
    }
}

#[test]
fn a_reply_that_is_cut_off_is_kept_and_not_repaired() {
    let server = Server::start(|_| Reply::ends(r#"{"word": "do"#, "length"));
    let place = Place::new(&server).set(|llm| llm.max_tokens = 7);
    for _ in 0..2 {
        let asked = place.ask_one();
        assert_eq!(failed(&asked), "the reply was cut off at `llm.max_tokens = 7`");
        assert_eq!(asked.calls[0].reply, r#"{"word": "do"#);
    }
    assert_eq!((server.requests().len(), place.kept().len()), (1, 1));
    // With another setting it may come whole.
    let place = place.set(|llm| llm.max_tokens = 8);
    place.ask_one();
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_reply_that_cannot_be_read_is_repaired_once() {
    let bad = "The word is <script>dog</script>.";
    let server = Server::in_turn(vec![Reply::says(bad), Reply::says(GOOD)]);
    let place = Place::new(&server);
    let asked = place.ask_one();
    assert_eq!(said(&asked), "dog");
    assert_eq!(statuses(&asked), [("explain", "failed"), ("repair", "ok")]);
    assert_eq!(asked.calls[0].reply, bad);
    let messages = &server.requests()[1]["messages"];
    assert_eq!(messages[0], server.requests()[0]["messages"][0]);
    assert_eq!(messages[1], json!({ "role": "assistant", "content": bad }));
    let repair = messages[2]["content"].as_str().unwrap();
    assert!(repair.starts_with("That reply cannot be used: it is not a JSON object: "), "{repair}");
    assert_eq!(said(&place.ask_one()), "dog");
    assert_eq!((server.requests().len(), place.kept().len()), (2, 2));
}

#[test]
fn a_reply_that_cannot_be_read_even_then_fails_with_both() {
    let server = Server::in_turn(vec![Reply::says(r#"{"word": []}"#), Reply::says("[]")]);
    let place = Place::new(&server);
    for _ in 0..2 {
        let asked = place.ask_one();
        assert_eq!(
            failed(&asked),
            "the reply cannot be parsed, even after a repair request: it is not a JSON object: it is JSON, but \
             not an object"
        );
        assert_eq!(statuses(&asked), [("explain", "failed"), ("repair", "failed")]);
        assert_eq!(
            (asked.calls[0].reply.as_str(), asked.calls[1].reply.as_str()),
            (r#"{"word": []}"#, "[]")
        );
    }
    let repair = prompt(&server.requests()[1]);
    assert!(repair.contains("That reply cannot be used: the field `word` is no text."), "{repair}");
    assert_eq!((server.requests().len(), place.kept().len()), (2, 2));
}

#[test]
fn a_repair_that_was_not_to_be_had_is_asked_for_next_time() {
    let server =
        Server::in_turn(vec![Reply::says("no"), Reply::error(401, "", ""), Reply::says(GOOD)]);
    let place = Place::new(&server);
    let asked = place.ask_one();
    assert!(matches!(asked.outcome, Outcome::Left(_)));
    assert_eq!(statuses(&asked), [("explain", "failed"), ("repair", "left")]);
    assert_eq!(said(&place.ask_one()), "dog");
    assert_eq!(server.requests().len(), 3);
    assert_eq!(server.requests()[2], server.requests()[1]);
}

#[test]
fn markup_in_a_reply_is_text() {
    let word = "</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\u{202e}\u{0}%s";
    let text = json!({ "word": word }).to_string();
    let server = Server::start(move |_| Reply::says(text.clone()));
    let place = Place::new(&server);
    assert_eq!((said(&place.ask_one()), said(&place.ask_one())), (word, word));
    assert_eq!(server.requests().len(), 1);
}

/// Refuses a request that has a field, as servers do that do not know it.
fn without(field: &'static str, message: &'static str) -> Server {
    Server::start(move |request| match request.get(field) {
        Some(_) => Reply::error(400, "unsupported_parameter", message),
        None if request.get("response_format").is_none() => {
            Reply::says(format!("A dog barks.\nANSWER: {GOOD}\n"))
        }
        None => Reply::says(GOOD),
    })
}

#[test]
fn what_a_server_does_not_know_is_left_out_from_its_first_complaint_on() {
    let cases = [
        ("response_format", "response_format is not supported"),
        (
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' \
             instead.",
        ),
        ("temperature", "'temperature' does not support 0.0 with this model"),
        ("temperature", "`temperature` must be strictly positive"),
        ("seed", "seed: extra fields not permitted"),
    ];
    for (field, message) in cases {
        let server = without(field, message);
        let place = Place::new(&server).set(|llm| llm.retries = 0);
        let mut questions = questions(3);
        questions.iter_mut().for_each(|question| question.sample = 1);
        let asked = place.ask(&questions);
        assert!(asked.iter().all(|asked| said(asked) == "dog"));
        assert_eq!([2, 1, 1], [0, 1, 2].map(|i| asked[i].calls[0].attempts), "{field}");
        let requests = server.requests();
        assert_eq!(requests.iter().filter(|request| request.get(field).is_some()).count(), 1);
        assert_eq!(requests[1].get("max_completion_tokens").is_some(), field == "max_tokens");
        place.ask(&questions);
        assert_eq!(server.requests().len(), 4, "{field}");
    }
}

#[test]
fn a_schema_that_is_set_is_not_done_without() {
    let server = without("response_format", "json_schema is not supported");
    let place = Place::new(&server).set(|llm| llm.replies = ReplyFormat::Schema);
    let asked = place.ask(&questions(3));
    let why = left(&asked[2]);
    assert!(
        why.starts_with(
            "the server does not support JSON schemas; `llm.replies = \"auto\"` works without them"
        ),
        "{why}"
    );
    assert!(asked.iter().all(|asked| left(asked) == why));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_marked_line_is_asked_for_where_it_is_set() {
    let server = without("response_format", "never");
    let place = Place::new(&server).set(|llm| llm.replies = ReplyFormat::Line);
    assert_eq!(said(&place.ask_one()), "dog");
    let [request] = &server.requests()[..] else { panic!() };
    assert!(
        prompt(request)
            .contains("The last line of your reply must be `ANSWER:` followed by one JSON object")
    );
    assert!(
        prompt(request).ends_with(&format!("JSON schema: {}", question("").form.schema)),
        "{}",
        prompt(request)
    );
}

#[test]
fn killed_while_it_keeps_a_reply_it_asks_for_that_one_only() {
    let server = Server::start(echo);
    let place = Place::new(&server);
    let whole = place.ask(&questions(3));
    let path = place.folder.path().join("replies.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    // Looking changes nothing.
    assert_eq!(place.plan(&questions(3)).calls, 1);
    assert_eq!(std::fs::read(&path).unwrap().len(), bytes.len() - 9);
    let again = place.ask(&questions(3));
    assert!(again.iter().zip(&whole).all(|(again, whole)| again.outcome == whole.outcome));
    assert_eq!((server.requests().len(), place.kept().len()), (4, 3));
    assert_eq!(server.requests()[3], server.requests()[2]);
}

#[test]
fn a_damaged_reply_is_told_of_and_no_other_is_lost() {
    let server = Server::start(echo);
    let place = Place::new(&server);
    place.ask(&questions(3));
    let path = place.folder.path().join("replies.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("thing-01", "thing-10")).unwrap();
    let said = report(&place.try_ask(&questions(3)).unwrap_err());
    assert!(
        said.starts_with("error: line 2 of `") && said.contains("replies.jsonl` is damaged"),
        "{said}"
    );
    let rest: Vec<&str> = text.lines().filter(|line| !line.contains("thing-01")).collect();
    std::fs::write(&path, rest.join("\n") + "\n").unwrap();
    place.ask(&questions(3));
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_run_stops_at_its_number_of_calls_and_goes_on_in_the_next() {
    let server = Server::start(echo);
    let place = Place::new(&server).set(|llm| llm.max_calls = 2);
    let asked = place.ask(&questions(5));
    assert_eq!(
        asked.iter().filter(|asked| matches!(asked.outcome, Outcome::Answered(_))).count(),
        2
    );
    assert_eq!(left(&asked[4]), "`llm.max_calls = 2` is reached");
    assert!(asked[4].calls.is_empty());
    assert_eq!((server.requests().len(), place.kept().len()), (2, 2));
    place.ask(&questions(5));
    let asked = place.ask(&questions(5));
    assert!(asked.iter().all(|asked| said(asked).starts_with("thing-")));
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn every_try_counts_as_a_call() {
    let server = Server::start(|_| Reply::error(500, "", ""));
    let place = Place::new(&server).set(|llm| (llm.max_calls, llm.retries) = (2, 9));
    let asked = place.ask_one();
    assert_eq!(left(&asked), "`llm.max_calls = 2` is reached");
    assert_eq!((server.requests().len(), asked.calls[0].attempts), (2, 2));
}

#[test]
fn a_run_stops_before_it_costs_more_than_set() {
    let server = Server::start(echo);
    // A reply costs 100 + 2 * 10 millionths of its 1000, and may cost 2 * 500 for its answer alone.
    let place = Place::new(&server).set(|llm| {
        llm.prices.insert("m".into(), [1000.0, 2000.0]);
        llm.max_cost = 1.5;
    });
    let asked = place.ask(&questions(9));
    let costs: Vec<f64> =
        asked.iter().flat_map(|asked| &asked.calls).map(|call| call.cost).collect();
    assert!(costs.iter().all(|cost| (cost - 0.12).abs() < 1e-9), "{costs:?}");
    // One may cost over 1, so that three fit as soon as they have cost less: none is stopped by
    // what others only may cost.
    assert!(costs.len() >= 3, "{costs:?}");
    assert!(costs.iter().sum::<f64>() <= 1.5);
    assert_eq!(left(&asked[8]), "`llm.max_cost = 1.5` would be exceeded");
    assert_eq!(place.kept().len(), costs.len());
}

/// A reply of which nothing can be read may be charged all the same, for as much as it may cost.
#[test]
fn every_try_that_may_be_charged_is_in_the_budget_and_in_the_ledger() {
    let charged = [
        Reply::hangs_up(),
        Reply::says(GOOD).cut_at(30),
        Reply::says(GOOD).after(Duration::from_secs(2)),
        Reply::page(200, " <!doctype html>"),
        Reply::page(200, "{\"choices\""),
        Reply::json(json!({ "choices": [] })),
    ];
    let free = [Reply::error(500, "", "oh"), Reply::error(429, "", "wait")];
    let priced = |server: &Server| {
        Place::new(server).set(|llm| {
            llm.prices.insert("m".into(), [1000.0, 2000.0]);
            (llm.timeout, llm.retries) = (0.5, 1);
        })
    };
    for (reply, most) in charged.iter().map(|reply| (reply, 1.0)).chain([(&free[0], 0.0)]) {
        let server = Server::in_turn(vec![reply.clone(), Reply::says(GOOD)]);
        let place = priced(&server);
        let asked = place.ask_one();
        assert_eq!(said(&asked), "dog");
        // The reply that could be read, 500 tokens of one that could not, and its messages.
        let [call] = &asked.calls[..] else { panic!() };
        let lost = call.cost - 0.12;
        assert!((most - 1e-9..=most * 1.6 + 1e-9).contains(&lost), "{reply:?}: {lost}");
        assert_eq!(place.ask_one().calls, asked.calls, "it costs what it did");
    }
    for reply in charged.iter().chain(&free) {
        let server = Server::start({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let place = priced(&server).set(|llm| (llm.max_cost, llm.retries) = (3.5, 9));
        let paid = charged.iter().any(|charged| format!("{charged:?}") == format!("{reply:?}"));
        let asked = place.ask(&questions(4));
        let cost: f64 = asked.iter().flat_map(|asked| &asked.calls).map(|call| call.cost).sum();
        match paid {
            true => {
                assert_eq!(left(&asked[3]), "`llm.max_cost = 3.5` would be exceeded", "{reply:?}");
                assert!(cost > 1.9 && cost <= 3.5, "{cost}");
                assert!(cost > server.requests().len() as f64, "{cost}");
            }
            false => assert_eq!(cost, 0.0),
        }
    }
}

#[test]
fn a_reply_that_is_too_long_is_not_read() {
    let long = json!({ "word": "x".repeat(3000) }).to_string();
    let server = Server::start({
        let long = long.clone();
        move |request| match prompt(request).contains("thing-01") {
            true => Reply::says(long.clone()),
            false => Reply::says(GOOD),
        }
    });
    let place = Place::new(&server).set(|llm| llm.max_reply = 2048);
    let asked = place.ask(&questions(3));
    assert_eq!(failed(&asked[1]), "the reply is longer than `llm.max_reply = 2048` bytes");
    assert_eq!((said(&asked[0]), said(&asked[2])), ("dog", "dog"));
    assert_eq!((server.requests().len(), place.kept().len()), (3, 2));
    let place = place.set(|llm| llm.max_reply = 1 << 16);
    assert_eq!(said(&place.ask(&questions(3))[1]).len(), 3000);
    // What the server says besides counts, too, and without an end it is not waited for.
    let server = Server::start(|_| {
        Reply::says(GOOD).header("X", "y").dripping(Duration::from_millis(1)).cut_at(9000)
    });
    let place = Place::new(&server).set(|llm| llm.max_reply = 100);
    assert_eq!(failed(&place.ask_one()), "the reply is longer than `llm.max_reply = 100` bytes");
}

#[test]
fn a_reply_with_a_key_twice_is_not_read_in_either_way() {
    let server = Server::start(|_| Reply::says(r#"{"word": "dog", "word": "cat"}"#));
    let asked = Place::new(&server).ask_one();
    let why = "it can be read in two ways: it has the key \"word\" twice";
    assert!(failed(&asked).contains(why), "{}", failed(&asked));
    assert_eq!(statuses(&asked), [("explain", "failed"), ("repair", "failed")]);
}

#[test]
fn a_plan_tells_what_asking_would_take_and_sends_nothing() {
    let server = Server::start(echo);
    let place =
        Place::new(&server).set(|llm| llm.api_key_env = "CIRCUIT_ATLAS_NOBODY_SETS_THIS".into());
    let twice = [questions(4), questions(1)].concat();
    let plan = place.plan(&twice);
    assert_eq!((plan.questions, plan.known, plan.calls, plan.completion_tokens), (5, 0, 4, 2000));
    assert!((80..400).contains(&plan.prompt_tokens), "{}", plan.prompt_tokens);
    assert_eq!(plan.cost, None);
    let place = place.set(|llm| llm.prices.extend([("m".into(), [0.0, 1000.0])]));
    assert_eq!(place.plan(&twice).cost, Some(2.0));
    assert!(server.requests().is_empty() && place.kept().is_empty());

    let error = place.try_ask(&twice).unwrap_err().to_string();
    assert_eq!(
        error,
        "the environment variable `CIRCUIT_ATLAS_NOBODY_SETS_THIS` with the key is not set"
    );
    let place = place.set(|llm| llm.api_key_env.clear());
    place.ask(&questions(3));
    // A key is wanted only where something is sent.
    let place = place.set(|llm| llm.api_key_env = "CIRCUIT_ATLAS_NOBODY_SETS_THIS".into());
    assert_eq!((place.plan(&twice).known, place.plan(&twice).calls), (4, 1));
    assert_eq!(
        place.ask(&questions(3)).iter().map(said).collect::<Vec<_>>(),
        ["thing-00", "thing-01", "thing-02"]
    );
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn requests_are_spread_over_the_minute() {
    let server = Server::start(echo);
    let place =
        Place::new(&server).set(|llm| (llm.concurrency, llm.requests_per_minute) = (4, 600));
    let begun = Instant::now();
    place.ask(&questions(5));
    assert!(begun.elapsed() >= Duration::from_millis(395), "{:?}", begun.elapsed());
    assert_eq!(server.most_at_once(), 1);
}

#[test]
fn azure_is_asked_in_its_own_way() {
    let server = Server::start(echo);
    let place = Place::at(server.url().replace("/v1", "/")).set(|llm| {
        (llm.provider, llm.api_version) = (Provider::Azure, "2024-10-21".into());
    });
    assert_eq!(said(&place.ask_one()), "one");
    assert_eq!(
        server.seen()[0].path,
        "/openai/deployments/m/chat/completions?api-version=2024-10-21"
    );
    let place = place.set(|llm| llm.deployment = "mine".into());
    place.ask(&[question("two")]);
    assert_eq!(
        server.seen()[1].path,
        "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    );
}

/// What a model might say of the feature that `check` asks about.
const EXPLAINED: &str =
    r#"{"input": "Fires at ships.", "output": "Promotes the sea.", "promotes": [" sea"]}"#;

fn tried(server: &Server) -> Result<String, String> {
    probe(&Place::new(server).llm, "m").map_err(|error| report(&error))
}

#[test]
fn a_server_is_reached_or_it_is_said_what_to_do() {
    let text = tried(&Server::start(|_| Reply::says(EXPLAINED))).unwrap();
    assert!(
        text.starts_with("`m` answers, as test, after ")
            && text.ends_with(" s, with a JSON schema"),
        "{text}"
    );
    let server = Server::start(|request| match request.get("response_format") {
        Some(_) => Reply::error(400, "", "no response_format"),
        None => Reply::says(format!("Ships.\nANSWER: {EXPLAINED}")),
    });
    let text = tried(&server).unwrap();
    assert!(text.ends_with(" s, with a marked line"), "{text}");
    let text = tried(&Server::start(|_| Reply::error(404, "", "no model m"))).unwrap_err();
    assert_eq!(
        text,
        "error: no reply from the model `m`: the server has no such model, or `llm.base_url` is \
         wrong (the server answered \
         404: no model m)\nhint: check `llm.model`, `llm.deployment` and `llm.base_url`\n"
    );
    let server = Server::start(|_| Reply::error(503, "", "full"));
    assert!(tried(&server).unwrap_err().contains("hint: try again later"));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_check_asks_what_a_run_asks_and_reads_the_reply() {
    let server = Server::start(|_| Reply::says(EXPLAINED));
    tried(&server).unwrap();
    let [request] = &server.requests()[..] else { panic!() };
    assert_eq!(request["messages"][0]["role"], "system");
    assert_eq!(request["response_format"]["type"], "json_schema");
    assert!(prompt(request).contains("«ship»[10]"), "{}", prompt(request));

    let text = tried(&Server::start(|_| Reply::says("Yes,\n\u{1b}[31mI am here."))).unwrap_err();
    assert!(
        text.starts_with("error: the reply of the model `m` cannot be used: ")
            && text.contains("it is not a JSON object")
            && text.contains("; it is: Yes,⏎ [31mI am here.\nhint: set another `llm.model`"),
        "{text}"
    );
    let server = Server::start(|request| match request.get("response_format") {
        Some(_) => Reply::says("Ships."),
        None => Reply::says(format!("Ships.\nANSWER: {EXPLAINED}")),
    });
    let text = tried(&server).unwrap();
    assert!(
        text.ends_with(" s, with a marked line; its replies by a JSON schema cannot be read"),
        "{text}"
    );
    let text = tried(&Server::start(|_| Reply::ends("", "length"))).unwrap_err();
    assert!(
        text.contains("the reply had only reasoning when it reached `llm.max_tokens_limit = 4000`")
            && text.contains("hint: raise `llm.max_tokens`"),
        "{text}"
    );
}

#[test]
fn a_check_finds_out_what_a_server_does_not_accept() {
    let server = Server::start(|request| {
        let roles: Vec<&str> = roles(request);
        match () {
            () if roles.contains(&"system") => Reply::error(500, "", "System role not supported"),
            () if request["temperature"] == 0.0 => {
                Reply::error(422, "", "`temperature` must be strictly positive")
            }
            () if request["max_tokens"].is_u64() => Reply::error(400, "", "unknown max_tokens"),
            () if !request["max_completion_tokens"].is_null() => {
                Reply::error(400, "", "max_completion_tokens: extra inputs are not permitted")
            }
            () if request["response_format"]["json_schema"]["strict"] == true => {
                Reply::error(400, "", "json_schema.strict: extra inputs are not permitted")
            }
            () => Reply::says(EXPLAINED),
        }
    });
    let text = tried(&server).unwrap();
    let told = "with a JSON schema; it is sent the system message as part of the user's, no \
                `strict`, no limit on the tokens of a reply, no `temperature`";
    assert!(text.ends_with(told), "{text}");
    assert_eq!(server.requests().len(), 6);
}

/// What the test below starts with a key in its environment: it says and leaves behind all that it
/// can.
#[test]
#[ignore = "a part of another test"]
fn a_run_with_a_key() {
    let (url, folder) = (std::env::var("LLM_URL").unwrap(), std::env::var("LLM_FOLDER").unwrap());
    let place = Place::at(url).set(|llm| llm.api_key_env = KEY_NAME.into());
    check_key(&place.llm).unwrap();
    let (budget, progress) = (Budget::new(&place.llm), Progress::new("test"));
    let replies = ResponseCache::open(&Store::new(Path::new(&folder)), None).unwrap();
    let asker = Asker::new(&place.llm, &replies, &budget, &progress);
    let asked = asker.waiting(Duration::from_millis(2)).ask("asked", &questions(6), word).unwrap();
    println!("{asked:?}");
    println!("{:?}", probe(&place.llm, "m").map_err(|error| report(&error)));
    let azure = Llm { provider: Provider::Azure, api_version: "1".into(), ..place.llm.clone() };
    println!("{:?}", probe(&azure, "m").map_err(|error| report(&error)));
}

#[test]
fn the_key_is_sent_and_is_nowhere_else() {
    let server = Server::start(|request| match prompt(request) {
        text if text.contains("thing-00") => Reply::says(json!({ "word": KEY }).to_string()),
        text if text.contains("thing-01") => Reply::says(KEY),
        text if text.contains("thing-02") => Reply::error(400, KEY, &format!("not with {KEY}")),
        text if text.contains("thing-03") => Reply::error(400, "content_filter", KEY),
        text if text.contains("thing-04") => Reply::page(500, KEY),
        text if text.contains("thing-05") => Reply::ends(KEY, KEY),
        _ => Reply::error(401, "", &format!("bad key {KEY}")),
    });
    let folder = TempDir::new().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "llm::a_run_with_a_key", "--ignored", "--nocapture"])
        .envs([
            (KEY_NAME, KEY),
            ("LLM_URL", &server.url()),
            ("LLM_FOLDER", folder.path().to_str().unwrap()),
        ])
        .output()
        .unwrap();
    let mut texts =
        vec![String::from_utf8(child.stdout).unwrap(), String::from_utf8(child.stderr).unwrap()];
    assert!(child.status.success(), "{texts:?}");
    walk(folder.path(), &mut |path| texts.push(std::fs::read_to_string(path).unwrap()));
    assert_eq!(texts.len(), 3);
    for text in &texts {
        // Whole, or as it stands within a text in JSON or of Rust.
        assert!(!text.contains(KEY) && !text.contains("ToBeSeen"), "{text}");
    }
    assert!(texts[0].contains("[key]") && texts[2].contains("[key]"), "{texts:?}");
    let seen = server.seen();
    let (azure, openai) = seen.split_last().unwrap();
    assert!(openai.iter().all(|seen| seen.headers["authorization"] == format!("Bearer {KEY}")));
    assert_eq!(
        (azure.headers["api-key"].as_str(), azure.headers.get("authorization")),
        (KEY, None)
    );
    assert!(seen.iter().all(|seen| !seen.body.to_string().contains("ToBeSeen")));
}

fn roles(request: &Value) -> Vec<&str> {
    let messages = request["messages"].as_array().into_iter().flatten();
    messages.map(|message| message["role"].as_str().unwrap()).collect()
}

/// A completion with this message and nothing else.
fn message(message: Value) -> Reply {
    Reply::json(json!({ "choices": [{ "message": message, "finish_reason": "stop" }] }))
}

#[test]
fn an_answer_is_read_whatever_it_comes_in() {
    let call = json!({ "function": { "name": "word", "arguments": GOOD } });
    let replies = [
        Reply::says(format!("<think>\nA {{\"word\": \"cat\"}}? No.\n</think>\n\n{GOOD}")),
        Reply::says(format!("It barks, so:\n```json\n{GOOD}\n```\nI hope this helps!")),
        Reply::says(format!("Sure! {GOOD}")),
        Reply::says(r#"{"word": "dog", "confidence": 1, "why": {"a": []}}"#),
        Reply::ends(format!("{GOOD}\n   \n"), "length"),
        message(json!({ "content": GOOD, "reasoning_content": "A cat: {\"word\": \"cat\"}?" })),
        message(json!({ "content": "", "reasoning_content": GOOD })),
        message(json!({ "content": null, "tool_calls": [call] })),
    ];
    for reply in replies {
        let server = Server::start({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let place = Place::new(&server);
        let read = |_: &Question, object: &Value| match object.as_object().unwrap().len() {
            1 => word(&question("one"), object),
            _ => Err("it has unknown keys".into()),
        };
        let asked = place.with(|asker| asker.ask("asked", &[question("one")], read)).unwrap();
        assert_eq!(said(&asked.unwrap()[0]), "dog", "{reply:?}");
        assert_eq!(server.requests().len(), 1, "{reply:?}");
    }
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_fails() {
    let two = [
        message(json!({ "content": null, "tool_calls": [
            { "function": { "arguments": GOOD } },
            { "function": { "arguments": "{\"word\": \"cat\"}" } },
        ] })),
        Reply::says(format!("{GOOD} or {{\"word\": \"cat\"}}")),
    ];
    for reply in two {
        let server = Server::start(move |_| reply.clone());
        let asked = Place::new(&server).set(|llm| llm.replies = ReplyFormat::Schema).ask_one();
        assert!(failed(&asked).contains("several JSON objects that differ"), "{}", failed(&asked));
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn where_replies_by_a_schema_have_no_object_a_marked_line_is_asked_for() {
    let server = Server::start(|request| match request.get("response_format") {
        Some(_) => Reply::says("A dog, I think."),
        None => Reply::says(format!("It barks.\nANSWER: {GOOD}")),
    });
    let place = Place::new(&server);
    let asked = place.ask(&questions(4));
    // The first question takes two such replies, the second one the third.
    assert!(failed(&asked[0]).contains("it is not a JSON object"), "{}", failed(&asked[0]));
    assert!(asked[1..].iter().all(|asked| said(asked) == "dog"));
    let by_schema: Vec<bool> =
        server.requests().iter().map(|request| request.get("response_format").is_some()).collect();
    assert_eq!(by_schema, [true, true, true, false, false, false]);
    let again = place.ask(&questions(4));
    assert!(again.iter().zip(&asked).all(|(again, asked)| again.outcome == asked.outcome));
    assert_eq!(server.requests().len(), 6);

    // Both replies to one question came while nobody knew: it is asked by a line as well.
    let server = Server::start(|request| match request.get("response_format") {
        Some(_) => Reply::says("A dog, I think.").after(Duration::from_millis(50)),
        None => Reply::says(format!("ANSWER: {GOOD}")),
    });
    let place = Place::new(&server).set(|llm| llm.concurrency = 2);
    let asked = place.ask(&questions(2));
    assert!(asked.iter().any(|asked| said_or_none(asked) == Some("dog")));
    let requests = server.requests().len();
    place.ask(&questions(2));
    assert_eq!(server.requests().len(), requests);
}

fn said_or_none(asked: &Asked<String>) -> Option<&str> {
    match &asked.outcome {
        Outcome::Answered(word) => Some(word),
        _ => None,
    }
}

/// A reasoning model that needs more than 500 tokens before it says anything.
fn reasoning(text: &'static str) -> Server {
    Server::start(move |request| match request["max_tokens"].as_u64() {
        Some(0..=500) => Reply::ends(text, "length"),
        _ => Reply::says(format!("<think>Long.</think>{GOOD}")),
    })
}

#[test]
fn a_model_that_only_reasons_is_given_more_tokens_from_then_on() {
    for text in ["", "<think>\nIs it {\"word\": \"cat\"}?"] {
        let server = reasoning(text);
        let place = Place::new(&server);
        let asked = place.ask(&questions(3));
        assert!(asked.iter().all(|asked| said(asked) == "dog"));
        assert_eq!(statuses(&asked[0]), [("explain", "failed"), ("explain", "ok")]);
        assert_eq!(statuses(&asked[1]), [("explain", "ok")]);
        let limits: Vec<u64> = server
            .requests()
            .iter()
            .map(|request| request["max_tokens"].as_u64().unwrap())
            .collect();
        assert_eq!(limits, [500, 4000, 4000, 4000]);
        let again = place.ask(&questions(3));
        assert!(again.iter().zip(&asked).all(|(again, asked)| again.calls == asked.calls));
        assert_eq!((server.requests().len(), place.plan(&questions(3)).known), (4, 3));
    }
}

#[test]
fn where_tokens_may_not_be_raised_the_setting_is_named() {
    let server = reasoning("");
    let place = Place::new(&server).set(|llm| llm.max_tokens_limit = 0);
    let why = "the reply had only reasoning when it reached `llm.max_tokens = 500`; raise \
               `llm.max_tokens_limit`";
    assert_eq!(failed(&place.ask_one()), why);
    assert_eq!(server.requests().len(), 1);
    // The reply is known; with another limit it is asked for with that one alone.
    let place = place.set(|llm| llm.max_tokens_limit = 600);
    assert_eq!(said(&place.ask_one()), "dog");
    assert_eq!(server.requests()[1]["max_tokens"], 600);
    assert_eq!(server.requests().len(), 2);

    // A server without so much room is as one that may not be asked for more.
    let server = Server::start(|request| match request["max_tokens"].as_u64() {
        Some(500) => Reply::ends("", "length"),
        _ => Reply::error(400, "", "maximum context length is 4096 tokens"),
    });
    let asked = Place::new(&server).ask(&questions(2));
    assert!(asked.iter().all(|asked| failed(asked) == why), "{}", failed(&asked[0]));
}

#[test]
fn ten_failures_in_a_row_for_one_reason_end_asking() {
    let cases = [
        (Reply::says("A dog."), 2, "the reply cannot be parsed, even after a repair request: "),
        (Reply::ends("A", "length"), 1, "the reply was cut off at `llm.max_tokens = 500`"),
        (Reply::ends("", "content_filter"), 1, "the server's content filter blocked it"),
        (Reply::error(400, "", "no"), 1, "the server rejects the request (the server answered 400"),
        (
            Reply::error(413, "", "context length"),
            1,
            "the prompt is too long for the model (the server answered 413",
        ),
    ];
    for (reply, each, why) in cases {
        let server = Server::start(move |_| reply.clone());
        let place = Place::new(&server).set(|llm| llm.replies = ReplyFormat::Schema);
        let asked = place.ask(&questions(30));
        assert_eq!(server.requests().len(), 10 * each, "{why}");
        let reason = left(&asked[10]);
        let expected = format!("10 questions in a row failed for the same reason: {why}");
        assert!(reason.starts_with(&expected), "{reason}");
        assert!(asked[10..].iter().all(|asked| left(asked) == reason && asked.calls.is_empty()));
        assert!(!asked[..10].iter().any(|asked| matches!(asked.outcome, Outcome::Left(_))));
    }
}

#[test]
fn failures_that_are_not_in_a_row_or_not_for_one_reason_end_nothing() {
    let server = Server::start(|request| match prompt(request) {
        text if text.contains("thing-09") => Reply::says(GOOD),
        text if text.contains("thing-19") => Reply::ends("", "content_filter"),
        _ => Reply::ends("A", "length"),
    });
    let place = Place::new(&server);
    let asked = place.ask(&questions(29));
    assert!(!asked.iter().any(|asked| matches!(asked.outcome, Outcome::Left(_))));
    assert_eq!(server.requests().len(), 29);
    // What is known is read as often as it may be.
    place.ask(&questions(29));
    assert_eq!(server.requests().len(), 29);
}

#[test]
fn what_failed_is_asked_again_where_that_is_wanted_and_once() {
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_well = well.clone();
    let server = Server::start(move |request| match prompt(request) {
        text if text.contains("thing-00") => Reply::says(GOOD),
        text if text.contains("thing-01") || !is_well.load(std::sync::atomic::Ordering::SeqCst) => {
            Reply::says("A dog.")
        }
        _ => Reply::says(GOOD),
    });
    let place = Place::new(&server).set(|llm| llm.replies = ReplyFormat::Schema);
    let again = |place: &Place, round| -> Vec<Asked<String>> {
        let (budget, progress) = (Budget::new(&place.llm), Progress::hidden());
        let replies = place.replies();
        Asker::new(&place.llm, &replies, &budget, &progress)
            .again(round)
            .ask("asked", &questions(4), word)
            .unwrap()
    };
    let asked = place.ask(&questions(4));
    assert_eq!(asked.iter().filter_map(said_or_none).count(), 1);
    assert_eq!(server.requests().len(), 7);
    well.store(true, std::sync::atomic::Ordering::SeqCst);
    // No other run asks again.
    place.ask(&questions(4));
    assert_eq!(server.requests().len(), 7);

    // It comes to an end of its calls as if it were killed: the failure stands.
    let place = place.set(|llm| llm.max_calls = 3);
    let asked = again(&place, 1);
    assert_eq!((server.requests().len(), said(&asked[0]), said(&asked[2])), (10, "dog", "dog"));
    let why = failed(&asked[3]);
    assert!(
        why.ends_with("; asked again without a reply: `llm.max_calls = 3` is reached"),
        "{why}"
    );

    // In the same round nothing is asked twice, not even what failed once more.
    let place = place.set(|llm| llm.max_calls = 0);
    let asked = again(&place, 1);
    assert_eq!((server.requests().len(), said(&asked[3])), (11, "dog"));
    assert!(failed(&asked[1]).contains("even after a repair request"), "{}", failed(&asked[1]));
    assert_eq!(asked[1].calls.len(), 4, "all that was paid for");
    assert_eq!(place.replies().last_round(), 1);

    // Every later run knows the answers, and only another round asks for the rest.
    let plain = place.ask(&questions(4));
    assert!(plain.iter().zip(&asked).all(|(plain, asked)| plain.outcome == asked.outcome));
    assert_eq!(server.requests().len(), 11);
    again(&place, 2);
    assert_eq!(server.requests().len(), 13);
}

#[test]
fn a_system_message_that_is_not_accepted_stands_in_the_users() {
    let refusals = [
        Reply::error(400, "", "System role not supported"),
        Reply::error(500, "", "Jinja error: Conversation roles must alternate user/assistant"),
        // They need not say why.
        Reply::error(400, "", "no"),
        Reply::error(500, "", "Internal Server Error"),
    ];
    for refusal in refusals {
        let server = Server::start({
            let refusal = refusal.clone();
            move |request| match roles(request)[..] {
                ["user"] => Reply::says(GOOD),
                _ => refusal.clone(),
            }
        });
        let place = Place::new(&server).set(|llm| llm.retries = 0);
        let system = Message { role: ChatRole::System, text: "Be brief.".into() };
        let mut questions = questions(3);
        questions.iter_mut().for_each(|question| question.messages.insert(0, system.clone()));
        let asked = place.ask(&questions);
        assert!(asked.iter().all(|asked| said(asked) == "dog"), "{refusal:?}");
        let requests = server.requests();
        assert_eq!(requests.len(), 4, "{refusal:?}");
        assert!(prompt(&requests[3]).starts_with("Be brief.\n\nA word for thing-02?"));
        // It is kept under what was asked, not under how it was sent.
        assert_eq!(asked[0].calls[0].messages[0], system);
        place.ask(&questions);
        assert_eq!(server.requests().len(), 4);
    }
}
