//! A language model's server that does whatever servers do: every reply is in the ledger, nothing
//! is paid for twice, and with a good server everything is explained in the end.

use crate::bench::Bench;
use crate::llm_server::{Reply, Server};
use crate::{Draw, Held, Test};
use circuit_atlas::artifact::tables::{ExplanationRow, JUDGE_LEDGER, LedgerRow};
use circuit_atlas::ids::Status;
use circuit_atlas::stats::mix;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

struct Faulty;

pub(crate) fn faulty() -> Result<Box<dyn Test>, String> {
    Ok(Box::new(Faulty))
}

/// A reply as the form wants it.
fn good(request: &Value) -> Reply {
    let schema = &request["response_format"]["json_schema"]["schema"]["properties"];
    let mut reply = json!({});
    for (name, field) in schema.as_object().into_iter().flatten() {
        reply[name] = match (name.as_str(), field["type"].as_str()) {
            ("intruder", _) => json!(1),
            (_, Some("array")) => json!([]),
            _ if field["enum"].is_array() => field["enum"][0].clone(),
            _ => json!("Active at things."),
        };
    }
    Reply::says(reply.to_string())
}

/// One of the ways in which servers fail.
fn bad(which: u64, request: &Value) -> Reply {
    match which % 12 {
        0 => Reply::error(429, "rate_limit", "slow down").header("retry-after-ms", "5"),
        1 => Reply::error(500, "", "internal error"),
        2 => Reply::error(503, "", "overloaded"),
        3 => Reply::page(502, "<html>Bad gateway</html>"),
        4 => Reply::hangs_up(),
        5 => good(request).cut_at(60),
        6 => Reply::says("I would rather not."),
        7 => Reply::says(r#"{"input": "a", "input": "b"}"#),
        8 => Reply::json(json!({ "choices": [] })),
        9 => Reply::ends("", "content_filter"),
        10 => Reply::ends("{\"input\": \"It is", "length"),
        _ => good(request).after(Duration::from_millis(30)),
    }
}

impl Test for Faulty {
    fn again(&mut self, draw: &mut Draw) -> Held {
        let (seed, count) = (draw.below(1 << 30) as u64, Arc::new(AtomicU64::new(0)));
        let (better, paid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (count_own, better_own, paid_own) = (count.clone(), better.clone(), paid.clone());
        let server = Server::start(move |request| {
            let n = count_own.fetch_add(1, Ordering::SeqCst);
            let is_good = better_own.load(Ordering::SeqCst) || !mix(seed, n).is_multiple_of(3);
            if is_good {
                paid_own.fetch_add(1, Ordering::SeqCst);
                good(request)
            } else {
                bad(mix(seed, n) / 3, request)
            }
        });
        let bench = Bench::finished().add(&format!(
            "[llm]\nprovider = \"openai\"\nmodel = \"m\"\napi_key_env = \"\"\nretries = 1\n\
             concurrency = 3\ntimeout = 5.0\nbase_url = \"{}\"\n[llm.prices]\n\"m\" = [1.0, 1.0]\n\
             [evaluate]\nmethods = [\"detection\"]\ntexts = 2\n",
            server.url()
        ));
        for _ in 0..2 {
            let said = bench.run(&["--from", "interpret"]);
            if said.err.contains("panicked at") || said.error().contains("error: ") {
                return Err(format!("seed {seed}: {}", said.err));
            }
        }
        better.store(true, Ordering::SeqCst);
        let mut said = bench.run(&["--from", "interpret", "--again", "failed"]);
        // A question that failed in a stage may ask for others in the next round.
        for _ in 0..3 {
            if !said.ok {
                said = bench.run(&["--from", "interpret", "--again", "failed"]);
            }
        }
        if !said.ok {
            return Err(format!("seed {seed}: with a good server: {}", said.err));
        }
        let asked = bench.table::<ExplanationRow>().into_iter().filter(|row| !row.model.is_empty());
        if let Some(row) = asked.into_iter().find(|row| row.status != Status::Ok) {
            return Err(format!("seed {seed}: {} is {:?}", row.subject, row.status));
        }
        let before = count.load(Ordering::SeqCst);
        bench.run(&["--from", "interpret", "--force"]);
        if count.load(Ordering::SeqCst) != before {
            return Err(format!("seed {seed}: replies were paid for twice"));
        }
        let ledger = [bench.table::<LedgerRow>(), bench.table_as::<LedgerRow>(&JUDGE_LEDGER)];
        let told: u64 = ledger.iter().flatten().map(|row| u64::from(row.attempts)).sum();
        match told <= before {
            true => Ok(()),
            false => Err(format!("seed {seed}: the ledger has {told} tries of {before}")),
        }
    }
}
