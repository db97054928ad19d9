//! Explanations by a language model, from the settings to the tables, with a server of this machine
//! in its place.

use crate::bench::{Bench, Said};
use crate::llm_server::{Reply, Server, prompt};
use circuit_atlas::artifact::tables::*;
use circuit_atlas::corpus::Tokenizer;
use circuit_atlas::ids::{Half, Status, Subject, SubjectKind};
use circuit_atlas::llm::{Form, Question, explainer, judge};
use circuit_atlas::summary::quoted;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A bench that has run without a language model, and now has this server.
fn bench(server: &Server, more: &str) -> Bench {
    let url = server.url();
    let settings =
        "[llm]\nprovider = \"openai\"\nmodel = \"test\"\napi_key_env = \"\"\nretries = 0\n";
    Bench::finished().add(&format!("{settings}base_url = \"{url}\"\n{more}"))
}

/// What a model might say to any prompt: of a head two fields more.
fn reply(request: &Value) -> Value {
    let head = prompt(request).contains("It is head ");
    let mut reply =
        json!({ "input": "Fires at ships.", "output": "Promotes the sea.", "promotes": [" sea"] });
    if head {
        reply["matching"] = json!("A ship looks for a ship.");
        reply["carried"] = json!("Which ship it is.");
    }
    reply
}

fn willing() -> Server {
    Server::start(|request| Reply::says(reply(request).to_string()))
}

fn rows(bench: &Bench) -> Vec<ExplanationRow> {
    bench.table()
}

fn user(request: &Value) -> &str {
    request["messages"][1]["content"].as_str().unwrap()
}

#[test]
fn everything_is_explained_once_and_a_rerun_asks_nothing() {
    let server = willing();
    let bench = bench(&server, "[llm.prices]\ntest = [1.0, 2.0]\n");
    let said = bench.run(&["interpret"]).succeeded();
    let rows = rows(&bench);
    let (counted, told): (Vec<&ExplanationRow>, Vec<_>) =
        rows.iter().partition(|row| row.explainer == "statistics");
    let requests = server.requests().len();
    assert_eq!(told.len(), requests, "{}", said.err);
    let kinds: BTreeSet<(&str, &str)> =
        told.iter().map(|row| (row.kind.word(), row.explainer.as_str())).collect();
    let all = [
        ("component", "head"),
        ("component", "mlp"),
        ("feature", "feature"),
        ("group", "group"),
        ("pair", "pair"),
    ];
    assert_eq!(kinds, BTreeSet::from(all));
    for row in &told {
        assert_eq!((row.status.word(), row.model.as_str(), row.sample), ("ok", "test", 0));
        assert_eq!(row.text, "Fires at ships. Promotes the sea.");
        assert_eq!(row.claims, [" sea"]);
        assert_eq!(row.matching.is_empty() || row.carried.is_empty(), row.explainer != "head");
    }
    // Nothing that the statistics call inactive is asked about, and everything else is.
    let inactive = |row: &&&ExplanationRow| row.input_side.starts_with("Never active");
    assert_eq!(counted.iter().filter(|row| !inactive(row)).count(), told.len());
    let hashes: BTreeSet<&String> = told.iter().map(|row| &row.prompt_hash).collect();
    let (exchanges, ledger) = (bench.table::<ExchangeRow>(), bench.table::<LedgerRow>());
    assert_eq!(hashes, exchanges.iter().map(|row| &row.prompt_hash).collect());
    assert_eq!(hashes, ledger.iter().map(|row| &row.prompt_hash).collect());
    assert!(exchanges.iter().all(|row| row.roles == ["system", "user"]
        && row.messages.len() == 2
        && row.status == Status::Ok));
    let cost: f64 = ledger.iter().map(|row| row.cost).sum();
    assert!(
        (cost - requests as f64 * 120e-6).abs() < 1e-9,
        "100 tokens at 1 and 10 at 2 a million: {cost}"
    );
    let summary = format!(
        "{requests} explanations by test, 0 failed, 0 left, {requests} requests now, cost {cost:.4}"
    );
    assert!(said.err.contains(&summary), "{}", said.err);

    let before = std::fs::read(bench.file("artifacts/explanations.parquet")).unwrap();
    let again = bench.run(&["interpret", "--force"]).succeeded();
    assert!(again.err.contains(" 0 requests now, cost 0.0000"), "{}", again.err);
    assert_eq!(server.requests().len(), requests);
    assert!(before == std::fs::read(bench.file("artifacts/explanations.parquet")).unwrap());
}

#[test]
fn what_is_made_of_features_is_asked_in_the_words_of_their_explanations() {
    let server = Server::start(|request| match user(request).contains("It is a feature of") {
        true => Reply::says(
            json!({ "input": "Fires at SHIPS.", "output": "Promotes SEAS.", "promotes": [] })
                .to_string(),
        ),
        false => Reply::says(reply(request).to_string()),
    });
    let bench = bench(&server, "");
    bench.run(&["interpret"]).succeeded();
    let requests = server.requests();
    let (alone, together): (Vec<&Value>, Vec<_>) =
        requests.iter().partition(|request| user(request).contains("It is a feature of"));
    assert!(!alone.is_empty() && !together.is_empty());
    for request in together {
        let members = user(request).lines().filter(|line| {
            line.starts_with("- attention feature") || line.starts_with("- MLP feature")
        });
        let told: Vec<&str> = members.filter(|line| !line.contains("Never active")).collect();
        assert!(told.iter().all(|line| line.contains("Fires at SHIPS.")), "{told:#?}");
    }
}

#[test]
fn a_failure_is_a_row_of_its_own_and_stops_nothing() {
    let server = Server::start(|request| match user(request) {
        user if user.contains("It is a feature of the MLP of layer 2") => {
            Reply::says("I would rather talk of ships.")
        }
        user if user.contains("It is a feature of the MLP of layer 3") => {
            Reply::ends("", "content_filter")
        }
        _ => Reply::says(reply(request).to_string()),
    });
    let bench = bench(&server, "replies = \"schema\"\n");
    let said = bench.run(&["interpret"]);
    assert!(!said.ok, "it ends with a code of its own");
    let rows = rows(&bench);
    let of = |prefix: &str| -> Vec<&ExplanationRow> {
        rows.iter()
            .filter(|row| row.explainer == "feature" && row.subject.to_string().starts_with(prefix))
            .collect()
    };
    assert!(!of("mlp2.").is_empty() && !of("mlp3.").is_empty() && !of("att").is_empty());
    for row in of("mlp2.") {
        assert_eq!((row.status.word(), row.text.as_str()), ("failed", ""));
        assert!(
            row.reason.starts_with("the reply cannot be parsed, even after a repair"),
            "{}",
            row.reason
        );
    }
    of("mlp3.")
        .iter()
        .for_each(|row| assert_eq!((row.status.word(), row.input_side.as_str()), ("refused", "")));
    of("att").iter().for_each(|row| assert_eq!(row.status, Status::Ok));
    assert!(rows.iter().any(|row| row.explainer == "mlp" && row.status == Status::Ok));
    let statistics = rows.iter().filter(|row| row.explainer == "statistics");
    assert!(statistics.clone().all(|row| row.status == Status::Ok && !row.text.is_empty()));
    let failed = of("mlp2.").len() + of("mlp3.").len();
    assert!(said.err.contains(&format!(", {failed} failed, 0 left")), "{}", said.err);
    // A repair is an exchange of its own, that shows what it is about.
    let exchanges: Vec<ExchangeRow> = bench.table();
    let repairs: Vec<&ExchangeRow> =
        exchanges.iter().filter(|row| row.purpose == "repair").collect();
    assert_eq!(repairs.len(), of("mlp2.").len());
    assert!(
        repairs.iter().all(|row| row.roles == ["system", "user", "assistant", "user"]
            && row.status == Status::Failed)
    );
    // Failed for good: the next run pays for nothing again.
    let requests = server.requests().len();
    bench.run(&["interpret", "--force"]);
    assert_eq!(server.requests().len(), requests);
}

/// A run's exit code, and what it said.
fn coded(bench: &Bench, arguments: &[&str]) -> (Option<i32>, Said) {
    let output = bench.command(&[&["run"], arguments].concat()).output().unwrap();
    (output.status.code(), bench.said(output))
}

#[test]
fn a_model_that_cannot_be_read_is_not_paid_for_long_and_nothing_passes_for_done() {
    let server = Server::start(|_| Reply::says("I would \u{1b}[31mrather talk of ships."));
    let bench = bench(&server, "concurrency = 1\nreplies = \"schema\"\n");
    let (code, said) = coded(&bench, &["interpret"]);
    assert_eq!((code, server.requests().len()), (Some(3), 20), "{}", said.err);
    let told = "interpret      10 without an answer: the reply cannot be parsed, even after a \
                repair request: it is not a JSON object: expected value";
    assert!(said.err.contains(told), "{}", said.err);
    assert!(
        said.err.contains(" without an answer: 10 questions in a row failed for the same reason: ")
            && said.err.contains(
                "`circuit-atlas run interpret --again failed` asks again for the \
                                  10 that failed"
            ),
        "{}",
        said.err
    );
    assert!(!said.err.contains('\u{1b}'));
    let (code, said) = coded(&bench, &["interpret"]);
    assert_eq!((code, said.ran()), (Some(3), vec!["interpret"]), "{}", said.err);
}

#[test]
fn a_run_in_which_every_answer_failed_is_never_fresh() {
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let server =
        Server::start(move |_| match turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 2 {
            0 => Reply::ends("", "content_filter"),
            _ => Reply::ends("Ships", "length"),
        });
    let bench = bench(&server, "concurrency = 1\n");
    let (code, _) = coded(&bench, &[]);
    assert_eq!(code, Some(3));
    let requests = server.requests().len();
    assert_eq!(rows(&bench).iter().filter(|row| row.explainer != "statistics").count(), requests);
    let (code, said) = coded(&bench, &[]);
    assert_eq!((code, said.ran()), (Some(3), vec!["interpret"]), "{}", said.err);
    let failed = format!("runs: all {requests} replies to its LLM requests failed");
    assert!(said.err.contains(&failed), "{}", said.err);
    assert_eq!(bench.command(&["status"]).output().unwrap().status.code(), Some(3));
    // What it says may be shown all the same, and nothing was paid for twice.
    bench.run(&["render", "--force"]).succeeded();
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn what_failed_is_no_fresh_stage_until_it_is_accepted() {
    let server = Server::start(|request| {
        match user(request).contains("It is a feature of the MLP of layer 2") {
            true => Reply::ends("Ships", "length"),
            false => Reply::says(reply(request).to_string()),
        }
    });
    let bench = bench(&server, "concurrency = 1\n");
    let (code, _) = coded(&bench, &[]);
    let failed = rows(&bench).iter().filter(|row| row.status == Status::Failed).count();
    assert!(code == Some(3) && failed > 0);
    let asked = |bench: &Bench| {
        let output = bench.command(&["status"]).output().unwrap();
        (output.status.code(), bench.said(output).out)
    };
    let status = |bench: &Bench| asked(bench).1;
    let incomplete = format!(
        "interpret  incomplete: {failed} of the replies to its LLM requests failed\n           \
         `circuit-atlas run interpret --again failed` asks for them again, `--accept-failed` \
         accepts them\nevaluate   fresh\n"
    );
    assert!(status(&bench).contains(&incomplete), "{}", status(&bench));
    assert_eq!(asked(&bench).0, Some(3));
    // Also when it would run for another reason.
    let lines = bench.file("pipeline.toml");
    let settings = std::fs::read_to_string(&lines).unwrap();
    std::fs::write(&lines, settings.replace("max_contexts = 96", "max_contexts = 95")).unwrap();
    let (code, out) = asked(&bench);
    assert!(code == Some(3) && out.contains("tokenize   would run"), "{out}");
    let (_, own) = out.split_once("interpret  would run: ").unwrap();
    assert!(own.contains(&format!("\n           incomplete: {failed} of the ")), "{out}");
    std::fs::write(&lines, settings).unwrap();
    let (code, said) = coded(&bench, &[]);
    assert!(code == Some(3) && !said.err.contains("every stage is fresh"), "{}", said.err);
    let (_, said) = coded(&bench, &["--dry-run"]);
    assert!(said.out.contains("interpret  incomplete: "), "{}", said.out);

    let (before, requests) = (bench.results(), server.requests().len());
    let said = bench.run(&["interpret", "--accept-failed"]).succeeded();
    assert!(said.err.contains(&format!("the {failed} that failed are accepted")), "{}", said.err);
    assert!(said.ran().is_empty() && bench.results() == before);
    assert_eq!(status(&bench).matches("fresh").count(), 12, "{}", status(&bench));
    assert_eq!(asked(&bench).0, Some(0));
    bench.run(&[]).succeeded();
    // The pages still say which failed, also when they are made again.
    bench.run(&["render", "--force"]).succeeded();
    let row = rows(&bench).into_iter().find(|row| row.status == Status::Failed).unwrap();
    let page = bench.page(&format!("features/{}.html", row.subject));
    assert!(page.contains("the reply was cut off at"), "{page}");
    assert_eq!(server.requests().len(), requests);

    // It can be asked for all the same; what fails then is accepted by nobody.
    let (code, _) = coded(&bench, &["interpret", "--again", "failed"]);
    assert_eq!((code, server.requests().len()), (Some(3), requests + failed));
    assert!(status(&bench).contains("interpret  incomplete: "), "{}", status(&bench));
    // Of a stage that runs, what fails in this run.
    bench.run(&["--force", "--accept-failed", "interpret"]).succeeded();
    let (code, said) = coded(&bench, &[]);
    assert_eq!(code, Some(0), "{}", said.err);
}

#[test]
fn what_failed_stands_until_it_is_asked_for_again() {
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_well = well.clone();
    let server = Server::start(move |request| {
        let sick = !is_well.load(std::sync::atomic::Ordering::SeqCst);
        match user(request).contains("It is a feature of the MLP of layer 2") && sick {
            true => Reply::ends("Ships", "length"),
            false => Reply::says(reply(request).to_string()),
        }
    });
    let bench = bench(&server, "concurrency = 1\n");
    let (code, _) = coded(&bench, &[]);
    let is_sick = |row: &&ExplanationRow| row.status == Status::Failed;
    let failed = rows(&bench).iter().filter(is_sick).count();
    assert!(code == Some(3) && failed > 0);
    let requests = server.requests().len();

    // Everything is fresh, and still not all is well.
    let (code, said) = coded(&bench, &[]);
    assert_eq!((code, said.ran().len(), server.requests().len()), (Some(3), 0, requests));
    let told = format!(
        "interpret  {failed:>6} without an answer: the reply was cut off at `llm.max_tokens = 500`"
    );
    assert!(said.err.contains(&told), "{}", said.err);
    let (code, _) = coded(&bench, &["render"]);
    assert_eq!(code, Some(0), "nothing of this stage failed");

    // One that fails again is paid for once in each round, and nothing else is.
    let (code, said) = coded(&bench, &["interpret", "--again", "failed"]);
    assert_eq!((code, server.requests().len()), (Some(3), requests + failed), "{}", said.err);
    let why = format!("runs: {failed} of its replies failed and are asked for again");
    assert!(said.err.contains(&why), "{}", said.err);

    well.store(true, std::sync::atomic::Ordering::SeqCst);
    bench.run(&["interpret", "--again", "failed"]).succeeded();
    let told = rows(&bench);
    assert!(told.iter().all(|row| row.status == Status::Ok));
    // Besides, what is made of these features is explained in their new words.
    let made = |request: &&Value| !user(request).contains("It is a feature of");
    let all = server.requests();
    let new = &all[requests + failed..];
    assert_eq!(new.len() - new.iter().filter(made).count(), failed);
    let cost: BTreeSet<String> =
        bench.table::<LedgerRow>().into_iter().map(|row| row.prompt_hash).collect();
    assert!(cost.len() >= told.iter().filter(|row| row.explainer != "statistics").count());

    assert_eq!(bench.run(&[]).succeeded().ran(), ["evaluate", "render"]);
    assert!(bench.run(&["--again", "failed"]).succeeded().ran().is_empty());
    assert_eq!(server.requests().len(), all.len());
}

#[test]
fn what_got_no_reply_is_asked_again_by_the_next_run() {
    let away = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_away = away.clone();
    let server =
        Server::start(move |request| match is_away.load(std::sync::atomic::Ordering::SeqCst) {
            true => Reply::error(500, "server_error", "away"),
            false => Reply::says(reply(request).to_string()),
        });
    let bench = bench(&server, "");
    let said = bench.run(&["interpret"]);
    assert!(!said.ok && said.err.contains("0 explanations by test, 0 failed,"), "{}", said.err);
    assert!(
        rows(&bench)
            .iter()
            .filter(|row| row.explainer != "statistics")
            .all(|row| row.status == Status::Left)
    );
    away.store(false, std::sync::atomic::Ordering::SeqCst);
    let said = bench.run(&["interpret"]).succeeded();
    assert_eq!(said.ran(), ["interpret"], "although no setting has changed");
    assert!(rows(&bench).iter().all(|row| row.status == Status::Ok));
}

#[test]
fn a_run_that_comes_to_its_limit_can_be_published_and_the_next_one_pays_nothing_twice() {
    let server = willing();
    let bench = bench(&server, "max_calls = 5\n");
    let mut command = bench.command(&["run"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = bench.said(output);
    assert!(said.err.contains("requests have no reply yet"), "{}", said.err);
    assert_eq!(server.requests().len(), 5);
    let told = |status: Status| {
        rows(&bench).iter().filter(|row| !row.model.is_empty() && row.status == status).count()
    };
    assert_eq!((told(Status::Ok), told(Status::Failed)), (5, 0));
    // Which five are explained is not said by their names, as those of the first layers come first.
    let all: Vec<ExplanationRow> =
        rows(&bench).into_iter().filter(|row| row.explainer == "feature").collect();
    let (five, first): (Vec<_>, Vec<_>) = (
        all.iter().filter(|row| row.status == Status::Ok).map(|row| &row.subject).collect(),
        all.iter().take(5).map(|row| &row.subject).collect(),
    );
    assert_ne!(five, first);
    // What is made of features waits for them; nothing is said of it in words that change.
    let waiting = rows(&bench).into_iter().filter(|row| {
        row.reason
            == "one of its features has no \
             explanation yet"
    });
    assert!(waiting.filter(|row| row.kind == SubjectKind::Component).count() > 0);
    let page = bench.page("index.html");
    assert!(page.contains("not asked"));

    // It can be rendered anew without asking.
    let bench = bench.add("[site]\ntitle = \"Another\"\n");
    assert_eq!(bench.run(&["render"]).succeeded().ran(), ["render"]);
    assert_eq!(server.requests().len(), 5);

    // The plan of the one who asks knows the five; of what depends on it, it says that it depends.
    let plan = bench.call(&["run", "--dry-run"]).succeeded().out;
    assert!(
        plan.contains(" of its LLM requests have no reply yet")
            && line(&plan, "features")[1] == "5",
        "{plan}"
    );

    let bench = bench.set("max_calls = 5", "max_calls = 0");
    let said = bench.run(&[]).succeeded();
    assert_eq!(said.ran(), ["interpret", "evaluate", "render"]);
    let questions = rows(&bench).iter().filter(|row| !row.model.is_empty()).count();
    assert_eq!(server.requests().len(), questions, "each is asked once");
    assert!(bench.run(&[]).succeeded().ran().is_empty());
}

#[test]
fn several_samples_are_several_rows() {
    let server = willing();
    let bench = bench(&server, "samples = 2\ntemperature = 0.7\n");
    bench.run(&["interpret"]).succeeded();
    let mut samples: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
    for row in rows(&bench).iter().filter(|row| row.explainer != "statistics") {
        samples
            .entry((row.explainer.clone(), row.subject.to_string()))
            .or_default()
            .push(row.sample);
    }
    for ((explainer, subject), samples) in samples {
        assert_eq!(samples, if explainer == "feature" { vec![0, 1] } else { vec![0] }, "{subject}");
    }
    let ledger: Vec<LedgerRow> = bench.table();
    let keys: BTreeSet<_> =
        ledger.iter().map(|row| (&row.prompt_hash, &row.subject, &row.purpose)).collect();
    assert_eq!(keys.len(), ledger.len());
    assert_eq!(server.requests().len(), ledger.len());
}

/// The line of a table that begins with a word, as numbers where they are.
fn line(out: &str, name: &str) -> Vec<String> {
    let own = out
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_else(|| panic!("no `{name}` in {out}"));
    own[name.len()..].split_whitespace().map(String::from).collect()
}

#[test]
fn a_dry_run_tells_the_cost_and_changes_nothing() {
    let server = willing();
    let bench = bench(&server, "")
        .set("api_key_env = \"\"", "api_key_env = \"CIRCUIT_ATLAS_NOBODY_SETS_THIS\"");
    let before = bench.results();
    let lock = std::fs::read(bench.file("artifacts/atlas.lock")).unwrap();
    let said = bench.run(&["interpret", "--dry-run"]).succeeded();
    assert!(
        said.out.contains("interpret  would run: ") && said.out.contains("an estimate"),
        "{}",
        said.out
    );
    assert_eq!(line(&said.out, "all")[5], "unknown");
    let [questions, known, calls] =
        [0, 1, 2].map(|i| line(&said.out, "all")[i].parse::<usize>().unwrap());
    assert_eq!((known, calls), (0, questions));
    assert!(
        before == bench.results()
            && lock == std::fs::read(bench.file("artifacts/atlas.lock")).unwrap()
    );
    assert!(server.requests().is_empty());
    // Before anything else runs, a run says that there is no key.
    let refused = bench.run(&["--from", "aggregate", "--force"]).failed();
    assert!(refused.error().contains("`CIRCUIT_ATLAS_NOBODY_SETS_THIS`"), "{}", refused.err);
    assert!(before == bench.results());

    let bench = bench.set("api_key_env = \"CIRCUIT_ATLAS_NOBODY_SETS_THIS\"", "api_key_env = \"\"");
    bench.run(&["interpret"]).succeeded();
    assert_eq!(server.requests().len(), questions, "as many as were told");
    let bench = bench.set("api_key_env = \"\"", "api_key_env = \"CIRCUIT_ATLAS_NOBODY_SETS_THIS\"");
    let said = bench.run(&["interpret", "--dry-run"]).succeeded();
    assert!(
        said.out.contains("interpret  fresh") && !said.out.contains("an estimate"),
        "{}",
        said.out
    );
    assert_eq!(
        line(&said.out, "all")[..3],
        [questions.to_string(), questions.to_string(), "0".into()]
    );
    assert_eq!(server.requests().len(), questions);
}

#[test]
fn a_dry_run_that_cannot_know_says_what_to_run_first() {
    let server = willing();
    let bench = bench(&server, "").set("band_examples = 1", "band_examples = 2");
    let said = bench.run(&["--dry-run"]).failed();
    let expected = "error: the requests of `interpret` depend on the output of `aggregate`, which is \
                    not fresh: `aggregate.band_examples` was `1`, is `2`\n\
                    hint: run the stages before it: `circuit-atlas run aggregate causes`\n";
    assert_eq!(said.err, expected);
    assert!(
        said.out.contains("aggregate  would run: ") && said.out.contains("score      fresh"),
        "{}",
        said.out
    );
    assert!(server.requests().is_empty());
}

/// A text that a prompt shows, without its marks, as words that can be found.
fn unmarked(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '«' => {}
            '»' => drop(rest.by_ref().find(|c| *c == ']')),
            c => text.push(c),
        }
    }
    let text = text.strip_prefix("[start] ").or(text.strip_prefix("… ")).unwrap_or(&text);
    text.strip_suffix(" …").unwrap_or(text).to_string()
}

/// The texts of examples that a server was shown, without marks and levels.
fn texts_shown(server: &Server) -> BTreeSet<String> {
    server
        .requests()
        .iter()
        .flat_map(|request| {
            user(request)
                .lines()
                .filter_map(|line| line.strip_prefix("- "))
                .map(|line| match line.split_once(": ") {
                    Some((what, text))
                        if what.parse::<u32>().is_ok()
                            || ["active", "inactive"].contains(&what) =>
                    {
                        text
                    }
                    _ => line,
                })
                .filter(|line| line.starts_with("[start] ") || line.starts_with("… "))
                .map(unmarked)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn nothing_of_the_score_half_is_ever_shown() {
    let server = willing();
    let bench = bench(&server, "");
    bench.run(&["interpret"]).succeeded();
    let tokenizer =
        Tokenizer::load(&Path::new(crate::bench::REPOSITORY).join("demo/model"), 2560).unwrap();
    let text = |tokens: &[u32]| {
        let bare: Vec<u32> =
            tokens.iter().copied().filter(|id| !tokenizer.is_special(*id)).collect();
        tokenizer.decode(&bare).replace('\n', "⏎").trim().to_string()
    };
    let store = bench.store();
    let halves: BTreeMap<u32, Half> =
        store.read::<Document>().unwrap().into_iter().map(|row| (row.document, row.half)).collect();
    let mut documents: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in store.read_parts::<ContextRow>().unwrap() {
        let half = if halves[&row.document] == Half::Explain { "explain" } else { "score" };
        documents.entry(half).or_default().push(text(&row.tokens));
    }
    // Prompts of the tasks are no documents.
    let prompts: BTreeSet<String> =
        store.read::<PromptRow>().unwrap().into_iter().map(|row| row.text).collect();
    let mut shown = texts_shown(&server);
    shown.retain(|line| !prompts.iter().any(|prompt| line.starts_with(prompt.as_str())));
    assert!(shown.len() > 100, "{}", shown.len());
    for line in &shown {
        let is_in =
            |half: &str| documents[half].iter().any(|document| document.contains(line.as_str()));
        assert!(is_in("explain"), "not of the explain half: {line}");
    }
    // And a text of the other half would be found if it were shown.
    let other: Vec<ExampleRow> = store
        .read::<ExampleRow>()
        .unwrap()
        .into_iter()
        .filter(|row| row.half == Half::Score)
        .collect();
    let windows: BTreeSet<String> = other.iter().map(|row| text(&row.tokens)).collect();
    let both: BTreeSet<&String> = windows
        .iter()
        .filter(|window| documents["explain"].iter().any(|text| text.contains(window.as_str())))
        .collect();
    let leaked: Vec<&String> =
        windows.iter().filter(|window| shown.contains(*window) && !both.contains(window)).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

#[test]
fn shares_of_tokens_are_those_of_the_explain_half() {
    let server = willing();
    let bench = bench(&server, "");
    bench.run(&["interpret"]).succeeded();
    let tokenizer =
        Tokenizer::load(&Path::new(crate::bench::REPOSITORY).join("demo/model"), 2560).unwrap();
    for row in bench.table::<FeatureRow>().iter().filter(|row| !row.explain_tokens.is_empty()) {
        let first = quoted(&tokenizer.token(row.explain_tokens[0]));
        assert!(
            server
                .requests()
                .iter()
                .any(|request| user(request).contains(&format!("Tokens: {first} "))),
            "{first}"
        );
    }
}

/// A recorded question to a reader who played the language model, and the reply.
#[derive(serde::Deserialize)]
struct Recorded {
    name: String,
    schema: Value,
    question: String,
    reply: String,
}

/// Questions about 24 features of the demo and 48 to judges of the explanations; or, of the same
/// features, 16 that ask for clauses and 48 of further methods (`docs/explanations.md`).
fn recorded(name: &str) -> Vec<Recorded> {
    let folder = Path::new(crate::bench::REPOSITORY).join("tests/data/explanations");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn replies_of_readers_are_read_as_they_were_written() {
    let recorded: Vec<Recorded> = recorded("replies.jsonl");
    let (features, verdicts): (Vec<&Recorded>, Vec<_>) =
        recorded.iter().partition(|one| one.name == "feature");
    assert_eq!((features.len(), verdicts.len()), (24, 48));
    // The questions of today, answered by what was replied to those of the recording.
    let replies: Vec<String> = features.iter().map(|one| one.reply.clone()).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if !user(request).contains("Texts in which it is strongest:") {
            return Reply::says(reply(request).to_string());
        }
        let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Reply::says(replies[at % replies.len()].clone())
    });
    let bench = bench(&server, "");
    bench.run(&["interpret"]).succeeded();
    let rows = rows(&bench);
    let told: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row.explainer == "feature")
        .inspect(|row| assert_eq!(row.status, Status::Ok, "{}", row.reason))
        .map(|row| row.input_side.as_str())
        .collect();
    for one in features {
        let said: Value = serde_json::from_str(&one.reply).unwrap();
        assert!(told.contains(said["input"].as_str().unwrap()), "{}", one.reply);
        let fields: Vec<&String> = one.schema["properties"].as_object().unwrap().keys().collect();
        assert!(fields.iter().all(|field| said.get(field.as_str()).is_some()), "{}", one.reply);
    }
}

#[test]
fn recorded_verdicts_are_read_of_every_text() {
    let all = [recorded("replies.jsonl"), recorded("methods.jsonl")].into_iter().flatten();
    let mut judged = BTreeMap::<&str, usize>::new();
    for one in all.filter(|one| one.name != "feature") {
        let method = ["detection", "fuzzing", "intruder"].into_iter().find(|m| *m == one.name);
        let method = method.unwrap();
        *judged.entry(method).or_default() += 1;
        let texts = one.question.lines().filter(|line| {
            line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
        });
        let texts = texts.count();
        let form = Form { name: method, schema: one.schema };
        let question = Question {
            subject: Subject::Group("recorded".into()),
            purpose: method,
            model: "reader".into(),
            sample: 0,
            messages: Vec::new(),
            form,
        };
        let reply: Value = serde_json::from_str(&one.reply).unwrap();
        let verdicts = judge::read(&question, &reply).unwrap();
        assert_eq!(verdicts.len(), texts);
        let yes = verdicts.iter().filter(|yes| **yes > 0.5).count();
        assert_eq!(yes, reply["yes"].as_array().map_or(1, Vec::len));
    }
    assert_eq!(judged, BTreeMap::from([("detection", 48), ("fuzzing", 24), ("intruder", 24)]));
}

#[test]
fn recorded_clauses_are_read_one_for_each_cause() {
    let asked = recorded("methods.jsonl").into_iter().filter(|one| one.name == "feature");
    let mut clauses = 0;
    for one in asked {
        let causes = one.question.lines().filter(|line| line.contains(". mostly ")).count();
        let question = Question {
            subject: Subject::Group("recorded".into()),
            purpose: "explain",
            model: "reader".into(),
            sample: 0,
            messages: Vec::new(),
            form: Form { name: "feature", schema: one.schema },
        };
        let reply: Value = serde_json::from_str(&one.reply).unwrap();
        let read = explainer::read(&question, &reply).unwrap();
        assert!(causes > 0 && read.clauses.len() == causes, "{}", one.reply);
        clauses += causes;
    }
    assert_eq!(clauses, 21);
}
