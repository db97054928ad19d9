//! The program as a process: outputs that nobody reads or that are full, signals, and questions
//! about a run that is going on.

use crate::bench::{Bench, Said, walk};
use crate::llm_server::{Reply, Server, prompt};
use serde_json::json;
use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// An output that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// An output on a full disk.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// The exit code of a command with such outputs, and what it said on the other one.
fn ended(bench: &Bench, arguments: &[&str], out: Option<Stdio>, err: Option<Stdio>) -> (i32, Said) {
    let mut command = match arguments {
        // It reads no settings.
        ["completions", shell] => {
            let mut command = Command::new(env!("CARGO_BIN_EXE_circuit-atlas"));
            command.args(["completions", shell]);
            command
        }
        _ => bench.command(arguments),
    };
    command.stdout(out.unwrap_or(Stdio::piped())).stderr(err.unwrap_or(Stdio::piped()));
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    (output.status.code().expect("it ends by itself"), bench.said(output))
}

#[test]
fn an_output_that_nobody_reads_ends_a_command_quietly() {
    let bench = Bench::finished();
    let questions: [&[&str]; 6] = [
        &["status"],
        &["check"],
        &["show", "task", "ioi"],
        &["completions", "bash"],
        &["run", "--dry-run"],
        &["run"],
    ];
    for arguments in questions {
        let (code, said) = ended(&bench, arguments, Some(closed()), None);
        assert_eq!(code, 141, "{arguments:?}: {}", said.err);
        assert!(!said.err.contains("panicked") && !said.err.contains("error"), "{}", said.err);
    }
    let (code, _) = ended(&bench, &["run"], Some(closed()), Some(closed()));
    assert_eq!(code, 141);
    // Nobody would know how it went on.
    let (code, said) = ended(&bench, &["run", "--force"], None, Some(closed()));
    assert_eq!((code, said.out.as_str()), (141, ""));
    // The message of an error is not worth another one.
    assert_eq!(ended(&bench, &["run", "nothing"], None, Some(closed())).0, 1);
    bench.run(&[]).succeeded();
    bench.assert_same_results(&Bench::finished());
}

#[test]
fn an_output_on_a_full_disk_is_an_error() {
    let bench = Bench::finished();
    let questions: [&[&str]; 6] = [
        &["status"],
        &["check"],
        &["show", "task", "ioi"],
        &["completions", "bash"],
        &["run"],
        &["--help"],
    ];
    for arguments in questions {
        let (code, said) = ended(&bench, arguments, Some(full()), None);
        assert_eq!(code, 1, "{arguments:?}: {}", said.err);
        let error = said.error();
        assert!(error.starts_with("error: cannot write to stdout: No space left"), "{}", said.err);
    }
    assert_eq!(ended(&bench, &["run", "render", "--force"], None, Some(full())).0, 1);
}

/// Waits for something.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "it has ended by itself");
}

fn start(bench: &Bench, arguments: &[&str]) -> Child {
    let mut command = bench.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How a run ended that was told to, and what it said.
fn stopped(bench: &Bench, child: Child) -> (ExitStatus, Said) {
    let output = child.wait_with_output().unwrap();
    (output.status, bench.said(output))
}

#[test]
fn a_signal_ends_a_run_at_a_safe_point_and_the_next_goes_on_from_there() {
    let bench = Bench::new();
    let lock = bench.file("artifacts/atlas.lock");
    let begun = |stage: &str| {
        let begun = format!("[stages.{stage}]\nfingerprint = \"\"");
        std::fs::read_to_string(&lock).is_ok_and(|text| text.contains(&begun))
    };
    // In stages that take a while.
    for (signal, code, stage) in [("-INT", 130, "discover"), ("-TERM", 143, "causes")] {
        let child = start(&bench, &["run"]);
        until(stage, || begun(stage));
        send(signal, &child);
        let (status, said) = stopped(&bench, child);
        assert_eq!(status.code(), Some(code), "{}", said.err);
        let end = format!(
            "stopping at the next safe point; another signal ends the program at once\n\
             stopped by SIG{}: finished stages, parts and replies are kept; `circuit-atlas run` \
             goes on from there\n",
            &signal[1..]
        );
        assert!(said.err.ends_with(&end), "{}", said.err);
        assert!(begun(stage) && said.out.is_empty(), "{}", said.err);
        walk(&bench.file("artifacts"), &mut |path| {
            assert!(path.extension().is_none_or(|e| e != "tmp"), "{} is left", path.display());
        });
    }
    let said = bench.run(&[]).succeeded();
    assert_eq!(said.ran(), ["causes", "interpret", "evaluate", "render"]);
    bench.assert_same_results(&Bench::finished());
}

#[test]
fn a_signal_while_pages_are_written_leaves_the_site_as_it_was() {
    let mut bench = Bench::finished();
    // The pages of a small world are soon written: a signal that comes too late is sent again.
    let ended = (0..20).any(|n| {
        bench = Bench::finished().add(&format!("[site]\ntitle = \"Title {n}\"\n"));
        let (before, new) = (bench.results(), bench.file(".site.new"));
        let mut child = start(&bench, &["run"]);
        until("a new site", || new.exists() || child.try_wait().unwrap().is_some());
        if child.try_wait().unwrap().is_none() {
            send("-TERM", &child);
        }
        let (status, said) = stopped(&bench, child);
        if status.success() {
            return false;
        }
        assert_eq!(status.code(), Some(143), "{}", said.err);
        assert!(bench.results() == before && !new.exists(), "{}", said.err);
        true
    });
    assert!(ended, "no signal ends it");
    assert_eq!(bench.run(&[]).succeeded().ran(), ["render"]);
    assert!(bench.page("index.html").contains("Title "));
}

#[test]
fn a_signal_ends_a_run_that_waits_for_the_site() {
    let bench = Bench::finished();
    let other = File::create(bench.file(".site.lock")).unwrap();
    other.lock().unwrap();
    let log = bench.file("log");
    let mut command = bench.command(&["run", "render", "--force"]);
    let mut child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
    let waits = "waiting for another run that writes `";
    let text = || std::fs::read_to_string(&log).unwrap();
    until("the wait", || text().contains(waits));
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    send("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        text().matches(waits).count() == 1 && text().contains("\nstopped by SIGINT"),
        "{}",
        text()
    );
    drop(other);
    bench.run(&["render"]).succeeded();
}

/// A bench that has run without a language model, and now has this server.
fn with_server(server: &Server) -> Bench {
    let url = server.url();
    Bench::finished().add(&format!(
        "[llm]\nprovider = \"openai\"\nmodel = \"test\"\napi_key_env = \"\"\nconcurrency = 2\n\
         base_url = \"{url}\"\n"
    ))
}

fn answer(pause: Duration) -> Reply {
    let reply = json!({
        "input": "Fires at ships.", "output": "Promotes the sea.", "promotes": [" sea"],
        "matching": "A ship looks for a ship.", "carried": "Which ship it is.",
    });
    Reply::says(reply.to_string()).after(pause)
}

#[test]
fn replies_that_are_under_way_are_waited_for_and_kept() {
    let server = Server::start(|_| answer(Duration::from_millis(300)));
    let bench = with_server(&server);
    let child = start(&bench, &["run", "interpret"]);
    until("the third request", || server.requests().len() > 2);
    send("-INT", &child);
    let (status, said) = stopped(&bench, child);
    assert_eq!(status.code(), Some(130), "{}", said.err);
    let sent = server.requests().len();
    let kept = std::fs::read_to_string(bench.file("artifacts/replies.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), sent, "each reply that was paid for is kept");
    assert!(!said.err.contains("without an answer"), "{}", said.err);
    let said = bench.run(&["interpret"]).succeeded();
    let requests = server.requests();
    let asked: std::collections::BTreeSet<String> = requests.iter().map(prompt).collect();
    assert!(asked.len() == requests.len() && requests.len() > sent, "{}", said.err);
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let server = Server::start(|_| answer(Duration::from_secs(20)));
    let bench = with_server(&server);
    let mut child = start(&bench, &["run", "interpret"]);
    until("a request", || !server.requests().is_empty());
    send("-INT", &child);
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it waits for the reply");
    let begun = Instant::now();
    send("-TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// What the lines of `status` say of stages, during a run.
fn assert_sane(status: &str) {
    for line in status.lines().filter(|line| !line.starts_with(' ')) {
        let (_, is) = line.split_at(11);
        let known = ["fresh", "is running", "would run: "];
        assert!(known.iter().any(|known| is.starts_with(known)), "{line}");
    }
}

#[test]
fn a_question_beside_a_run_is_answered_from_one_run_or_not_at_all() {
    let bench = Bench::finished().set("examples = 4", "examples = 3").add("[logits]\nk = 4\n");
    let question: &[&str] = &["show", "feature", "att1.3", "--json"];
    let old = bench.call(question).succeeded().out;
    let child = start(&bench, &["run"]);
    let (mut refused, mut fits) = (0, 0);
    let mut child = child;
    while child.try_wait().unwrap().is_none() {
        let said = bench.call(question);
        match said.ok {
            true if said.out == old => fits += 1,
            // Without what stages add that have not run again.
            true if said.err.contains("is left out\n") => fits += 1,
            true => assert!(bench.call(&["status"]).succeeded().out.contains("evaluate   fresh")),
            false => {
                assert!(said.error().starts_with("error: a run is going on: "), "{}", said.err);
                assert!(said.error().contains("hint: wait for it to end"), "{}", said.err);
                refused += 1;
            }
        }
        assert_sane(&bench.call(&["status"]).succeeded().out);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", bench.said(output).err);
    assert!(refused > 0, "{refused} refused, {fits} old");
    let new = bench.call(question).succeeded();
    assert!(new.out != old && new.err.is_empty(), "{}", new.err);
    // Without a run, what lacks a stage says so as ever.
    let status = bench.call(&["status"]).succeeded();
    assert_eq!((status.out.matches("fresh").count(), status.err.as_str()), (12, ""));
}

#[test]
fn nothing_is_removed_before_a_stage_can_run() {
    let server = Server::start(|_| answer(Duration::ZERO));
    let bench = with_server(&server);
    bench.run(&["interpret"]).succeeded();
    let replies = bench.file("artifacts/replies.jsonl");
    let text = std::fs::read_to_string(&replies).unwrap();
    let damaged: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(i, line)| if i == 1 { line.replace("ships", "SHIPS") } else { line.into() })
        .collect();
    std::fs::write(&replies, damaged.join("\n") + "\n").unwrap();
    let before = bench.results();
    let said = bench.run(&["interpret", "--force"]).failed();
    let expected = "error: line 2 of `[folder]/artifacts/replies.jsonl` is damaged\n  \
                    because: its entry does not match its hash\n\
                    hint: remove that line (`sed -i 2d '[folder]/artifacts/replies.jsonl'`): only \
                    that entry is lost, and is asked for again\n";
    assert_eq!(said.error(), expected);
    assert!(bench.results() == before, "tables are gone");
    let sent = server.requests().len();
    let mended = Command::new("sed").args(["-i", "2d"]).arg(&replies).status().unwrap();
    assert!(mended.success());
    bench.run(&["interpret", "--force"]).succeeded();
    assert_eq!(server.requests().len(), sent + 1);
}
