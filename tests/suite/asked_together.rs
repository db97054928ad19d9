//! Questions to a language model that several processes ask together, each its share, with a server
//! of this machine that counts what it is asked.

use crate::bench::{Bench, Said, copy};
use crate::llm_server::{Reply, Server, prompt};
use circuit_atlas::artifact::tables::*;
use circuit_atlas::artifact::{Row, Store};
use circuit_atlas::config::{Llm, Provider};
use circuit_atlas::error::{Result, report};
use circuit_atlas::ids::Subject;
use circuit_atlas::llm::{
    ANOTHERS, Asked, Asker, Budget, ChatRole, Form, Message, Outcome, Question, ResponseCache,
    Share,
};
use circuit_atlas::progress::Progress;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// The fingerprint of a stage.
const RUN: &str = "0123";

/// An artifact folder, and the settings of a server.
struct Place {
    folder: TempDir,
    llm: Llm,
}

impl Place {
    fn new(server: &Server, change: impl FnOnce(&mut Llm)) -> Place {
        let mut llm = Llm {
            provider: Provider::Openai,
            base_url: server.url(),
            model: "m".into(),
            api_key_env: String::new(),
            retries: 0,
            concurrency: 2,
            ..Llm::default()
        };
        change(&mut llm);
        Place { folder: TempDir::new().unwrap(), llm }
    }

    fn store(&self) -> Store {
        Store::new(self.folder.path())
    }

    fn journal(&self, name: &str) -> PathBuf {
        self.folder.path().join("replies").join(name)
    }

    /// What one of several processes gets answers to.
    fn shard_of(&self, run: &str, shard: &str, all: &[Question]) -> Result<Vec<Asked<String>>> {
        let (store, progress) = (self.store(), Progress::hidden());
        let share = Share::take(&store, shard.parse().unwrap(), run)?;
        let replies = ResponseCache::open(&store, Some(&share))?;
        let budget = share.budget(&replies, &self.llm);
        let asker = Asker::new(&self.llm, &replies, &budget, &progress).sharing(&share);
        asker.ask("asked", all, word)
    }

    fn shard(&self, shard: &str, all: &[Question]) -> Vec<Asked<String>> {
        self.shard_of(RUN, shard, all).unwrap()
    }

    /// What the process gets that ends the stage, which has begun.
    fn whole(&self, all: &[Question]) -> Result<Vec<Asked<String>>> {
        let (store, progress) = (self.store(), Progress::hidden());
        let (replies, budget) = (ResponseCache::open(&store, None)?, Budget::new(&self.llm));
        let spent = replies.spent(&self.llm, RUN, |_| true);
        budget.charge(spent.calls, spent.cost);
        let asker = Asker::new(&self.llm, &replies, &budget, &progress).of_run(RUN);
        asker.ask("asked", all, word)
    }
}

fn questions(n: usize) -> Vec<Question> {
    let question = |i| Question {
        subject: Subject::Group(format!("thing-{i}")),
        purpose: "explain",
        model: "m".into(),
        sample: 0,
        messages: vec![Message { role: ChatRole::User, text: format!("Thing {i}?") }],
        form: Form { name: "word", schema: json!({ "properties": { "word": {} } }) },
    };
    (0..n).map(question).collect()
}

fn word(_: &Question, object: &Value) -> Result<String, String> {
    object["word"].as_str().map(String::from).ok_or("the field `word` is no text".into())
}

/// Replies to each question with its first line; a third of the replies have to be repaired.
fn echo(request: &Value) -> Reply {
    let thing = prompt(request).lines().next().unwrap().to_string();
    let first = request["messages"].as_array().unwrap().len() == 1;
    match first && thing.bytes().map(u32::from).sum::<u32>().is_multiple_of(3) {
        true => Reply::says(json!({ "word": 7 }).to_string()),
        false => Reply::says(json!({ "word": thing }).to_string()),
    }
}

/// How often each request came.
fn counted(requests: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(request.to_string()).or_default() += 1;
    }
    counts
}

fn answered(asked: &[Asked<String>]) -> usize {
    asked.iter().filter(|one| matches!(one.outcome, Outcome::Answered(_))).count()
}

/// Outcomes and calls, without how long these took.
fn timeless(asked: &[Asked<String>]) -> String {
    let mut asked = asked.to_vec();
    asked.iter_mut().flat_map(|one| &mut one.calls).for_each(|call| call.seconds = 0.0);
    format!("{asked:?}")
}

#[test]
fn each_question_is_asked_by_one_shard_and_the_whole_run_asks_nothing() {
    let (server, all) = (Server::start(echo), questions(40));
    let alone = Place::new(&server, |_| ());
    let one = alone.whole(&all).unwrap();
    let expected = counted(&server.requests());
    let before = server.requests().len();
    assert!(before > 45, "some are repaired: {before}");

    let place = Place::new(&server, |_| ());
    let shards = ["1/3", "2/3", "3/3"];
    std::thread::scope(|threads| {
        let (place, all) = (&place, &all);
        for shard in shards {
            threads.spawn(move || place.shard(shard, all));
        }
    });
    assert_eq!(counted(&server.requests()[before..]), expected);
    // Each had some, and knows by now what all have.
    for shard in shards {
        let name = shard.replace('/', "-of-") + ".jsonl";
        let lines = std::fs::read_to_string(place.journal(&name)).unwrap().lines().count();
        assert!((1..before).contains(&lines), "{shard}: {lines}");
        assert_eq!(timeless(&place.shard(shard, &all)), timeless(&one));
    }
    // Also shards of another number, and the whole run.
    assert_eq!(answered(&place.shard("4/5", &all)), 40);
    assert_eq!(timeless(&place.whole(&all).unwrap()), timeless(&one));
    assert_eq!(server.requests().len(), 2 * before);
    assert!(!place.folder.path().join("replies.jsonl").exists());
}

#[test]
fn what_is_anothers_is_left_to_it() {
    let (server, all) = (Server::start(echo), questions(40));
    let place = Place::new(&server, |_| ());
    let first = place.shard("1/2", &all);
    let left: Vec<&Asked<String>> =
        first.iter().filter(|one| matches!(one.outcome, Outcome::Left(_))).collect();
    assert!(!left.is_empty() && left.len() < 40);
    for one in left {
        assert_eq!(one.outcome, Outcome::Left(ANOTHERS.into()));
        assert!(one.calls.is_empty());
    }
    // One who never comes is made up for by the run that ends the stage.
    assert_eq!(answered(&place.whole(&all).unwrap()), 40);
    assert!(counted(&server.requests()).values().all(|n| *n == 1));
}

#[test]
fn a_share_is_of_one_process_at_a_time() {
    let server = Server::start(echo);
    let place = Place::new(&server, |_| ());
    let take = |shard: &str| Share::take(&place.store(), shard.parse().unwrap(), RUN);
    let said = |shard: &str| report(&take(shard).unwrap_err());
    let held = take("1/2").unwrap();
    assert_eq!(
        said("1/2"),
        "error: another process asks the questions of shard 1/2\n\
         hint: wait for it to end: it would be paid for twice\n"
    );
    assert!(said("3/7").starts_with("error: another process asks the questions of shard 1/2\n"));
    drop(take("2/2").unwrap());
    drop(held);
    drop(take("1/2").unwrap());
    drop(take("3/7").unwrap());
}

#[test]
fn all_together_send_no_more_than_the_number_of_calls() {
    let (server, all) = (Server::start(echo), questions(40));
    let place = Place::new(&server, |llm| llm.max_calls = 7);
    for (shards, sent) in [(&["1/2", "2/2", "1/2", "2/2"][..], 7), (&["1/3", "2/3", "3/3"], 7)] {
        for shard in shards {
            let asked = place.shard(shard, &all);
            let why = format!("the share of shard {shard} in `llm.max_calls = 7` is reached");
            assert!(asked.iter().any(|one| one.outcome == Outcome::Left(why.clone())), "{shard}");
        }
        assert_eq!(server.requests().len(), sent);
    }
    let asked = place.whole(&all).unwrap();
    let why = Outcome::Left("`llm.max_calls = 7` is reached".into());
    assert!(asked.iter().any(|one| one.outcome == why));
    assert_eq!(server.requests().len(), 7);
    // What a shard leaves over is for the run that ends the stage.
    let place = Place::new(&server, |llm| llm.max_calls = 7);
    place.shard("2/2", &all);
    assert_eq!(server.requests().len(), 7 + 4);
    place.whole(&all).unwrap();
    assert_eq!(server.requests().len(), 7 + 7);
    // Other results have a budget of their own.
    place.shard_of("4567", "1/1", &all).unwrap();
    assert_eq!(server.requests().len(), 7 + 7 + 7);
}

#[test]
fn all_together_cost_no_more_than_set_also_by_tries_of_which_nothing_came() {
    let all = questions(40);
    // A reply costs 0.12, one of which nothing can be read over 1.
    let priced = |llm: &mut Llm| {
        llm.prices.insert("m".into(), [1000.0, 2000.0]);
        llm.max_cost = 8.0;
    };
    let good = Server::start(|_| Reply::says("{\"word\": \"a\"}"));
    let place = Place::new(&good, priced);
    let shards = ["1/2", "2/2", "1/2", "2/2", "1/3", "2/3", "3/3"];
    shards.iter().for_each(|shard| drop(place.shard(shard, &all)));
    place.whole(&all).unwrap();
    let cost = good.requests().len() as f64 * 0.12;
    assert!(cost > 2.0 && cost <= 8.0, "{cost}");

    let bad = Server::start(|_| Reply::page(200, "<!doctype html>"));
    let place = Place::new(&bad, priced);
    for shard in shards {
        place.shard(shard, &all);
    }
    let replies = ResponseCache::open(&place.store(), None).unwrap();
    let spent = replies.spent(&place.llm, RUN, |_| true);
    let requests = bad.requests().len();
    assert_eq!(spent.calls, requests as u64);
    assert!(requests >= 4 && spent.cost > requests as f64 && spent.cost <= 8.0, "{spent:?}");
    place.whole(&all).unwrap();
    assert!(bad.requests().len() <= 8, "each may cost over 1");
}

#[test]
fn a_shard_that_was_killed_pays_for_nothing_twice_and_damage_is_told() {
    let (server, all) = (Server::start(echo), questions(20));
    let place = Place::new(&server, |llm| llm.concurrency = 1);
    place.shard("1/2", &all);
    let path = place.journal("1-of-2.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let before = server.requests().len();
    // It was killed while it wrote the last reply.
    std::fs::write(&path, &text[..text.len() - 9]).unwrap();
    place.shard("2/2", &all);
    place.shard("1/2", &all);
    let counts = counted(&server.requests());
    assert_eq!(counts.values().filter(|n| **n > 1).count(), 1, "{counts:?}");
    assert!(server.requests().len() > before + 1);

    std::fs::write(&path, text.replacen("Thing", "Think", 1)).unwrap();
    let damaged = |said: String| said.contains("1-of-2.jsonl` is damaged") && said.contains("sed");
    assert!(damaged(report(&place.whole(&all).unwrap_err())));
    assert!(damaged(report(&place.shard_of(RUN, "2/2", &all).unwrap_err())));
    // While it is being written, it may only look so.
    let held = std::fs::File::options().append(true).open(&path).unwrap();
    held.lock().unwrap();
    place.shard("2/2", &all);
}

/// A bench that has run without a language model, and now has this server.
fn bench(server: &Server, more: &str) -> Bench {
    let url = server.url();
    let settings =
        "[llm]\nprovider = \"openai\"\nmodel = \"test\"\napi_key_env = \"\"\nretries = 0\n";
    Bench::finished().add(&format!("{settings}base_url = \"{url}\"\n{more}"))
}

/// Says another thing to each prompt; of a head two fields more; and always yes as a judge.
fn willing(pause: Duration) -> Server {
    Server::start(move |request| {
        if request["response_format"]["json_schema"]["name"] == "detection" {
            return Reply::says(json!({ "yes": [1] }).to_string());
        }
        let said = prompt(request);
        let kind = said.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte));
        let mut reply = json!({ "input": format!("Fires at things of kind {kind}."),
            "output": "Promotes the sea.", "promotes": [" sea"] });
        if said.contains("It is head ") {
            reply["matching"] = json!("A ship looks for a ship.");
            reply["carried"] = json!("Which ship it is.");
        }
        Reply::says(reply.to_string()).after(pause)
    })
}

/// The same tables with the same bytes; in ledgers but for how long requests took.
#[track_caller]
fn assert_same_tables(one: &Bench, other: &Bench, tables: &[&str]) {
    for name in tables {
        let read = |bench: &Bench| {
            std::fs::read(bench.file("artifacts").join(format!("{name}.parquet"))).unwrap()
        };
        assert!(read(one) == read(other), "{name} differs");
    }
    for ledger in [LedgerRow::ARTIFACT, JUDGE_LEDGER] {
        let rows = |bench: &Bench| {
            let mut rows: Vec<LedgerRow> = bench.table_as(&ledger);
            rows.iter_mut().for_each(|row| row.seconds = 0.0);
            format!("{rows:?}")
        };
        assert_eq!(rows(one), rows(other));
    }
}

#[test]
fn shards_of_interpret_ask_what_one_process_asks_and_give_its_tables() {
    let server = willing(Duration::ZERO);
    let one = bench(&server, "");
    let bench = bench(&server, "");
    one.run(&["interpret"]).succeeded();
    let expected = counted(&server.requests());
    let before = server.requests().len();
    assert!(expected.values().all(|n| *n == 1));

    // What is made of features waits for those of the other shard.
    let said = bench.together("interpret", &["1/2", "2/2"]);
    let first = server.requests().len() - before;
    assert!(first > 2 && first < before, "{first} of {before}");
    let waiting = |said: &Said| {
        let (_, rest) = said.err.split_once(" requests now, 0 left; ").unwrap();
        rest.split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    assert!(said.iter().any(|said| waiting(said) > 0), "{}", said[0].err);
    let status = bench.call(&["status"]);
    assert!(status.out.contains("interpret  would run: its last run did not"), "{}", status.out);
    bench.together("interpret", &["1/2", "2/2"]);
    assert_eq!(counted(&server.requests()[before..]), expected);
    let said = bench.together("interpret", &["1/1"]);
    assert_eq!(waiting(&said[0]), 0, "{}", said[0].err);
    assert!(said[0].err.contains(" shard 1/1: 0 requests now, 0 left; 0 more "), "{}", said[0].err);
    let said = bench.run(&["interpret"]).succeeded();
    assert!(said.err.contains(", 0 failed, 0 left, 0 requests now"), "{}", said.err);
    assert_eq!(server.requests().len(), 2 * before);
    assert_same_tables(&one, &bench, &["explanations", "exchanges"]);
    let fresh = bench.run(&["interpret", "--shard", "1/2"]).succeeded();
    assert_eq!(fresh.err, "interpret  fresh\n");
}

#[test]
fn a_killed_shard_of_interpret_goes_on_and_pays_for_nothing_twice() {
    let server = willing(Duration::from_millis(150));
    let bench = bench(&server, "concurrency = 1\n");
    let journal = bench.file("artifacts/replies/1-of-2.jsonl");
    let kept = || std::fs::read_to_string(&journal).unwrap_or_default().matches('\n').count();
    let mut child = bench.start(&["interpret", "--shard", "1/2"]);
    while kept() < 3 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Somebody starts the same shard on another node, which is told to come again.
    let twice = bench.command(&["run", "interpret", "--shard", "1/2"]).output().unwrap();
    let alive = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    if alive {
        let said = bench.said(twice);
        assert!(said.error().starts_with("error: another process asks"), "{}", said.err);
    }
    bench.together("interpret", &["1/2", "2/2"]);
    bench.together("interpret", &["1/2", "2/2"]);
    bench.run(&["interpret"]).succeeded();
    let counts = counted(&server.requests());
    let twice = counts.values().filter(|n| **n > 1).count();
    assert!(twice <= 1, "but for the one that was under way, {twice} came twice");
}

#[test]
fn a_budget_is_of_all_shards_and_of_the_run_that_ends_the_stage() {
    let server = willing(Duration::ZERO);
    let bench = bench(&server, "max_calls = 9\n");
    for _ in 0..2 {
        let said = bench.together("interpret", &["1/2", "2/2"]);
        let why = "without an answer: the share of shard 1/2 in `llm.max_calls = 9` is reached";
        assert!(said[0].err.contains(why), "{}", said[0].err);
    }
    assert_eq!(server.requests().len(), 9);
    let mut whole = bench.command(&["run", "interpret"]);
    assert_eq!(whole.output().unwrap().status.code(), Some(3));
    assert_eq!(server.requests().len(), 9);
    // The next run is another one, as it always was.
    bench.together("interpret", &["2/2"]);
    assert_eq!(server.requests().len(), 9 + 5);
    assert_eq!(whole.output().unwrap().status.code(), Some(3));
    assert_eq!(server.requests().len(), 9 + 9);
}

#[test]
fn a_run_that_was_killed_goes_on_with_the_budget_that_it_had() {
    let server = willing(Duration::from_millis(150));
    let bench = bench(&server, "concurrency = 1\nmax_calls = 9\n");
    let kept = || {
        let journal = std::fs::read_to_string(bench.file("artifacts/replies.jsonl"));
        journal.unwrap_or_default().matches('\n').count()
    };
    let mut child = bench.start(&["interpret"]);
    while kept() < 4 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (before, asked) = (kept(), server.requests().len());
    assert!((4..9).contains(&before), "killed with {before} replies");
    // Shards of the same run have no more to spend than it has left.
    bench.together("interpret", &["1/2", "2/2"]);
    assert_eq!(server.requests().len() - asked, 9 - before);
    let mut whole = bench.command(&["run", "interpret"]);
    assert_eq!(whole.output().unwrap().status.code(), Some(3));
    assert_eq!(server.requests().len() - asked, 9 - before);
    // That run has ended: the next one is another.
    assert_eq!(whole.output().unwrap().status.code(), Some(3));
    assert_eq!(server.requests().len() - asked, 9 - before + 9);
}

#[test]
fn what_a_run_spent_in_one_stage_counts_when_it_goes_on_in_the_next() {
    let server = willing(Duration::from_millis(20));
    let evaluate = "[evaluate]\nmethods = [\"single-token\", \"detection\"]\ntexts = 4\n\
                    batch = 5\ncausal = 2\n";
    let bench = bench(&server, &format!("concurrency = 1\nmax_calls = 1000\n{evaluate}"));
    let judged = || {
        let asked = server.requests();
        let own =
            asked.iter().filter(|r| r["response_format"]["json_schema"]["name"] == "detection");
        own.count()
    };
    let mut child = bench.start(&["interpret", "evaluate"]);
    while judged() < 3 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let asked = server.requests().len();
    let limited = bench.set("max_calls = 1000", &format!("max_calls = {asked}"));
    let mut whole = limited.command(&["run", "interpret", "evaluate"]);
    assert_eq!(whole.output().unwrap().status.code(), Some(3));
    assert!(server.requests().len() - asked <= 1, "but for the one that was under way");
}

#[test]
fn shards_of_evaluate_ask_what_one_process_asks_and_give_its_tables() {
    let server = willing(Duration::ZERO);
    let evaluate = "[evaluate]\nmethods = [\"single-token\", \"detection\"]\ntexts = 4\n\
                    batch = 5\ncausal = 2\n";
    let one = bench(&server, evaluate);
    one.run(&["interpret"]).succeeded();
    let explained = server.requests().len();
    let bench = bench(&server, evaluate);
    copy(&one.file("artifacts"), &bench.file("artifacts"));
    one.run(&["evaluate"]).succeeded();
    let expected = counted(&server.requests()[explained..]);
    let before = server.requests().len();
    bench.together("evaluate", &["1/2", "2/2"]);
    assert_eq!(counted(&server.requests()[before..]), expected);
    let asked = server.requests().len();
    let said = bench.run(&["evaluate"]).succeeded();
    assert!(said.err.contains(", 0 failed, 0 left, 0 requests now"), "{}", said.err);
    assert_eq!(server.requests().len(), asked);
    assert_same_tables(&one, &bench, &["evaluations", "judgements", "agreements", "causal"]);
}
