//! A language model that is served by llama.cpp, by the wire format as others write it: the demo
//! model itself, which talks nonsense, but in the form that it is asked for. Skipped, with the
//! reason printed, where there is no such server.

use crate::bench::{Bench, REPOSITORY, skipped, walk};
use circuit_atlas::artifact::Store;
use circuit_atlas::artifact::tables::{ExchangeRow, ExplanationRow, LedgerRow};
use circuit_atlas::config::{Llm, Provider};
use circuit_atlas::ids::{Status, Subject, SubjectKind};
use circuit_atlas::llm::{Asker, Budget, ChatRole, Form, Message, Outcome, Question};
use circuit_atlas::progress::Progress;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const KEY: &str = "sk-of-a-real-server";
const KEY_NAME: &str = "CIRCUIT_ATLAS_TEST_KEY";

/// A server, for as long as this lives.
struct Server {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl Server {
    /// None where it cannot be had, which is said; with an empty key it wants none.
    fn start(key: &str) -> Option<Server> {
        let Ok(python) = std::env::var("CIRCUIT_ATLAS_LLM_PYTHON") else {
            skipped("CIRCUIT_ATLAS_LLM_PYTHON names no Python with xllamacpp and gguf");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let mut process = Command::new(python)
            .arg(Path::new(REPOSITORY).join("tests/serve_llm.py"))
            .arg(Path::new(REPOSITORY).join("demo/model"))
            .arg(folder.path())
            .env("SERVE_LLM_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}{log}");
        Some(Server { process, url: url.trim().into(), _folder: folder })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The smallest world in which there is something of every kind to explain, and who is asked.
fn bench(server: &Server) -> Bench {
    let task = "[[tasks]]\nname = \"greater-than\"\nkind = \"greater-than\"\nprompts = 4\n";
    let llm = format!(
        "[llm]\nprovider = \"openai\"\nbase_url = \"{}\"\nmodel = \"demo\"\napi_key_env \
         = \"{KEY_NAME}\"\nretries = 0\n",
        server.url
    );
    Bench::new().set(task, "").set("prompts = 4", "prompts = 1").add(&llm)
}

/// The exit code of a run with a key.
fn explain(bench: &Bench, key: &str, arguments: &[&str]) -> Option<i32> {
    let mut command = bench.command(&[&["run"], arguments].concat());
    command.env(KEY_NAME, key).output().unwrap().status.code()
}

fn asked(store: &Store) -> Vec<ExplanationRow> {
    store
        .read::<ExplanationRow>()
        .unwrap()
        .into_iter()
        .filter(|row| row.explainer != "statistics")
        .collect()
}

#[test]
fn a_real_server_explains_by_schema_and_is_asked_once() {
    let Some(server) = Server::start(KEY) else { return };
    let bench = bench(&server);
    let store = Store::new(&bench.file("artifacts"));

    const BEFORE: [&str; 8] =
        ["tokenize", "measure", "discover", "verify", "heads", "cache", "score", "aggregate"];
    assert_eq!(
        explain(&bench, "sk-not-of-this-server", &[&BEFORE[..], &["interpret"]].concat()),
        Some(3)
    );
    let refused = asked(&store);
    assert!(refused.len() > 10);
    for row in refused {
        let why = ["rejects the key", "one of its features has no explanation yet"];
        assert!(
            row.status == Status::Left && why.iter().any(|why| row.reason.contains(why)),
            "{}",
            row.reason
        );
    }

    let code = explain(&bench, KEY, &[]);
    let explanations = asked(&store);
    check_explanations(&explanations);
    let failed = explanations.iter().any(|row| row.status == Status::Failed);
    assert_eq!(code, Some(if failed { 3 } else { 0 }));
    check_exchanges(&store);

    // What it knows by now, it knows without a server.
    drop(server);
    let before = bench.results();
    assert_eq!(explain(&bench, KEY, &["interpret", "--force"]), code);
    let after = bench.results();
    assert!(before.keys().eq(after.keys()));
    for (name, bytes) in before {
        assert!(after[&name] == bytes, "{} differs", name.display());
    }
    walk(bench.path(), &mut |path| {
        let bytes = std::fs::read(path).unwrap();
        assert!(
            !bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes()),
            "the key is in {}",
            path.display()
        );
    });
}

/// Each was had, or there is a reason why not that is the model's and not the server's.
fn check_explanations(explanations: &[ExplanationRow]) {
    for row in explanations {
        let had =
            row.status == Status::Ok && !row.input_side.is_empty() && !row.output_side.is_empty();
        let missed = row.status == Status::Failed
            && (row.reason.starts_with("the reply cannot be parsed")
                || row.reason.starts_with("the reply was cut off"));
        assert!(had || missed, "{}: {} {}", row.subject, row.status, row.reason);
    }
    for &kind in SubjectKind::ALL {
        assert!(explanations.iter().any(|row| row.kind == kind), "no {kind} is asked about");
    }
    let had = explanations.iter().filter(|row| row.status == Status::Ok).count();
    assert!(2 * had > explanations.len(), "{had} of {}", explanations.len());
}

/// Every reply came in the form of the schema, if it came to its end, and the server counted its
/// tokens.
fn check_exchanges(store: &Store) {
    let exchanges: Vec<ExchangeRow> = store.read().unwrap();
    assert!(exchanges.len() > 10);
    for row in exchanges {
        let ended = row.reply.trim_end().ends_with('}');
        let reply: Value = serde_json::from_str(&row.reply).unwrap_or_default();
        assert!(
            !ended || (reply["input"].is_string() && reply["promotes"].is_array()),
            "{}",
            row.reply
        );
    }
    let ledger: Vec<LedgerRow> = store.read().unwrap();
    assert!(
        ledger
            .iter()
            .all(|row| row.attempts == 1 && row.prompt_tokens > 1000 && row.completion_tokens > 10)
    );
}

#[test]
fn a_real_server_says_that_a_question_is_too_long_and_the_next_one_is_answered() {
    let Some(server) = Server::start("") else { return };
    let question = |text: String| Question {
        subject: Subject::Group("it".into()),
        purpose: "explain",
        model: "demo".into(),
        sample: 0,
        messages: vec![Message { role: ChatRole::User, text }],
        form: Form {
            name: "it",
            schema: json!({ "type": "object", "properties": { "it": { "type": "boolean" } }, "required": ["it"], "additionalProperties": false }),
        },
    };
    let llm = Llm {
        provider: Provider::Openai,
        base_url: server.url.clone(),
        model: "demo".into(),
        api_key_env: String::new(),
        retries: 0,
        ..Llm::default()
    };
    let folder = TempDir::new().unwrap();
    let (budget, progress) = (Budget::new(&llm), Progress::new("test"));
    let asker = Asker::open(&llm, &Store::new(folder.path()), &budget, &progress).unwrap();
    let questions = [question("Was it a dog? ".repeat(5000)), question("Was it a dog?".into())];
    let read = |_: &Question, object: &Value| object["it"].as_bool().ok_or("no".to_string());
    let asked = asker.ask("asked", &questions, read).unwrap();
    let Outcome::Failed(why) = &asked[0].outcome else { panic!("{:?}", asked[0].outcome) };
    assert!(
        why.starts_with("the prompt is too long for the model (the server answered 400: request ("),
        "{why}"
    );
    assert!(matches!(asked[1].outcome, Outcome::Answered(_)), "{:?}", asked[1].outcome);
}
