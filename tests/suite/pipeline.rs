//! The runner: what is run again, what is kept, what a killed run leaves, and that results depend
//! on nothing else.

use crate::bench::{Bench, REPOSITORY, copy};
use circuit_atlas::artifact::Row;
use circuit_atlas::artifact::tables::{ExampleRow, FeatureRow, LogitRow, ScoreRow};
use circuit_atlas::ids::{FeatureId, Half};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

const ALL: [&str; 12] = [
    "tokenize",
    "measure",
    "discover",
    "verify",
    "heads",
    "cache",
    "score",
    "aggregate",
    "causes",
    "interpret",
    "evaluate",
    "render",
];

#[test]
fn a_rerun_with_nothing_changed_does_nothing_and_says_so() {
    let bench = Bench::finished();
    let before = bench.results();
    let said = bench.run(&[]).succeeded();
    assert!(said.ran().is_empty(), "{}", said.err);
    assert!(said.err.contains("nothing to do: every stage is fresh"), "{}", said.err);
    assert!(said.out.ends_with("site/index.html\n"), "{}", said.out);
    assert!(bench.results() == before);
}

#[test]
fn settings_and_outputs_may_be_in_the_working_folder() {
    let bench = Bench::finished();
    std::fs::remove_dir_all(bench.file("site")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_circuit-atlas"));
    let said = bench.said(command.arg("run").current_dir(bench.path()).output().unwrap());
    assert_eq!(said.succeeded().out, "site/index.html\n");
    assert!(bench.page("index.html").contains("</html>"));
}

#[test]
fn features_are_added_and_taken_out_without_scoring_others_again() {
    // Of dictionaries that are read anyway, and between the keys of others.
    let extra = "[score]\nextra = [\"att2.9\", \"mlp0.11\"]\n";
    let bench = Bench::finished();
    let before = bench.results();
    let added = Bench::finished().add(extra);
    let said = added.run(&[]).succeeded();
    let new = ", 2 of them new; 0 of 96 contexts run for all of them, the others for new ones (";
    assert!(said.err.contains(new), "{}", said.err);
    assert!(
        said.err.contains(" GiB; 0 of 96 contexts run, the others as before ("),
        "{}",
        said.err
    );
    let fresh = Bench::new().add(extra);
    fresh.run(&[]).succeeded();
    added.assert_same_results(&fresh);
    let removed = added.set(extra, "");
    let said = removed.run(&[]).succeeded();
    assert!(
        said.err.contains(" parts; 0 of 96 contexts run, the others as before ("),
        "{}",
        said.err
    );
    removed.assert_same_results(&bench);
    assert_eq!(removed.results().len(), before.len());

    // From the model, which is run for the new ones alone.
    let live = bench.add("[cache]\nstore = \"stream\"\n");
    let said = live.run(&["cache", "score", "aggregate"]).succeeded();
    assert!(!said.err.contains(" contexts run"), "{}", said.err);
    let live = live.add(extra);
    let said = live.run(&["cache", "score"]).succeeded();
    assert!(said.err.contains(new), "{}", said.err);
    let rows = |bench: &Bench| {
        let rows = bench.table::<ScoreRow>().into_iter();
        rows.map(|row| (row.feature, row.context, row.position, row.activation.to_bits()))
            .collect::<Vec<_>>()
    };
    assert!(rows(&live) == rows(&fresh));

    // Other numbers: nothing of the old ones is kept.
    let other = fresh.add("[cache]\ndtype = \"f16\"\n");
    let said = other.run(&["cache", "score"]).succeeded();
    assert!(!said.err.contains(" contexts run"), "{}", said.err);
    assert!(rows(&other) != rows(&live));
}

#[test]
fn changing_one_setting_reruns_exactly_what_depends_on_it() {
    let after = |from: &str, to: &str| {
        let bench = Bench::finished().set(from, to);
        bench.call(&["status", "--verbose"]).succeeded().out
    };
    let stale = |status: &str| -> Vec<String> {
        let would = status.lines().filter(|line| line.contains(" would run: "));
        would.map(|line| line.split(' ').next().unwrap().to_string()).collect()
    };
    let cases: [(&str, &str, &[&str]); 8] = [
        (
            "max_contexts = 96",
            "max_contexts = 72",
            &[
                "tokenize",
                "measure",
                "cache",
                "score",
                "aggregate",
                "causes",
                "interpret",
                "evaluate",
                "render",
            ],
        ),
        (
            "passes = 2",
            "passes = 1",
            &[
                "discover",
                "verify",
                "heads",
                "cache",
                "score",
                "aggregate",
                "causes",
                "interpret",
                "evaluate",
                "render",
            ],
        ),
        ("edges = 6", "edges = 7", &["verify", "render"]),
        (
            "\"att1.3\"",
            "\"att1.4\"",
            &["score", "aggregate", "causes", "interpret", "evaluate", "render"],
        ),
        (
            "\"att1.3\", \"mlp2.5\"]",
            "\"att1.3\", \"mlp2.5\"]\n[cache]\ndtype = \"f16\"",
            &["cache", "score", "aggregate", "causes", "interpret", "evaluate", "render"],
        ),
        (
            "examples = 4",
            "examples = 5",
            &["aggregate", "causes", "interpret", "evaluate", "render"],
        ),
        ("\"mlp2.5\"]", "\"mlp2.5\"]\n[site]\ntitle = \"another\"", &["render"]),
        ("\"mlp2.5\"]", "\"mlp2.5\"]\n[machine]\nbatch = 7\nthreads = 1\n[slurm]\ncpus = 3", &[]),
    ];
    for (from, to, expected) in cases {
        assert_eq!(stale(&after(from, to)), expected, "{from} → {to}");
    }
}

#[test]
fn the_same_files_elsewhere_are_fresh() {
    // Another spelling of the same paths.
    let repository = Path::new(REPOSITORY);
    let name = repository.file_name().unwrap().to_str().unwrap();
    let spelled = format!("{REPOSITORY}/../{name}/./demo");
    let bench = Bench::finished()
        .set("[repo]/demo/model", &format!("{spelled}/model"))
        .set("[repo]/demo/corpus.jsonl", &format!("{spelled}/corpus.jsonl"));
    let said = bench.run(&["tokenize", "measure", "discover", "verify"]).succeeded();
    assert!(said.err.contains("nothing to do"), "{}", said.err);
    // Their copies: only the page that says where they are is made again.
    let bench = Bench::finished();
    copy(&repository.join("demo"), &bench.file("moved"));
    let bench = bench
        .set("[repo]/demo/model", "moved/model")
        .set("[repo]/demo/attention_sae", "./moved/attention_sae")
        .set("[repo]/demo/transcoder", "moved/transcoder")
        .set("[repo]/demo/corpus.jsonl", "moved/corpus.jsonl");
    assert_eq!(bench.run(&[]).succeeded().ran(), ["render"]);
    // The whole folder, settings and all, under another name.
    let moved = Bench::new();
    copy(bench.path(), moved.path());
    assert!(moved.run(&[]).succeeded().err.contains("nothing to do"));
    // Another content under the same name.
    std::fs::write(moved.file("moved/corpus.jsonl"), "{\"text\": \"another text\"}\n").unwrap();
    let status = moved.call(&["status"]).succeeded().out;
    assert!(
        status.starts_with("tokenize   would run: `corpus/corpus.jsonl` has changed\n"),
        "{status}"
    );
}

#[test]
fn status_tells_causes_and_folds_what_follows() {
    let bench = Bench::finished().set("examples = 4", "examples = 5");
    let status = bench.call(&["status"]).succeeded().out;
    let expected = "\
tokenize   fresh
measure    fresh
discover   fresh
verify     fresh
heads      fresh
cache      fresh
score      fresh
aggregate  would run: `aggregate.examples` was `4`, is `5`
           and 4 stages after it: causes, interpret, evaluate, render
";
    assert_eq!(status, expected);
    let verbose = bench.call(&["status", "--verbose"]).succeeded().out;
    assert!(
        verbose.contains("render     would run: the output of `aggregate` changed"),
        "{verbose}"
    );
}

#[test]
fn a_changed_setting_is_named_as_the_reason() {
    let bench = Bench::finished().set("examples = 4", "examples = 5");
    let said = bench.run(&[]).succeeded();
    assert_eq!(said.ran(), &ALL[7..]);
    assert!(
        said.err.contains("aggregate  runs: `aggregate.examples` was `4`, is `5`"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("render     runs: the output of `aggregate` changed"),
        "{}",
        said.err
    );
}

#[test]
fn results_do_not_depend_on_threads_memory_or_time() {
    // So little that every feature is a block of its own, and its counts are.
    let bench = Bench::new().add("[machine]\nthreads = 1\nbatch = 5\nmemory = 0.00001\n");
    bench.run(&[]).succeeded();
    bench.assert_same_results(&Bench::finished());
}

/// Rows of a table that are of features, of those with a page alone or of all.
fn named<R: Row>(bench: &Bench, of: impl Fn(&R) -> Option<FeatureId>, page: bool) -> Vec<R> {
    let features: BTreeSet<FeatureId> = bench
        .table::<FeatureRow>()
        .into_iter()
        .filter(|row| row.page)
        .map(|row| row.feature)
        .collect();
    let mut rows = bench.table::<R>();
    rows.retain(|row| !page || of(row).is_none_or(|feature| features.contains(&feature)));
    rows
}

#[test]
fn all_features_are_scored_and_nothing_else_is_more() {
    let all = "[score]\nfeatures = \"all\"\n";
    let (circuit, every) = (Bench::finished(), Bench::finished().add(all));
    let said = every.run(&[]).succeeded();
    assert!(said.err.contains("32768 features of 8 dictionaries"), "{}", said.err);
    // What is of circuit features is the same.
    let of = |row: &FeatureRow| Some(row.feature);
    let statistics = |bench: &Bench| {
        let rows = named(bench, of, true).into_iter();
        rows.map(|row| FeatureRow { key: 0, ..row }).collect::<Vec<_>>()
    };
    assert!(statistics(&every) == statistics(&circuit));
    let of = |row: &ExampleRow| row.subject.feature();
    assert!(named(&every, of, true) == named(&circuit, of, true));
    let of = |row: &LogitRow| row.subject.feature();
    assert!(named(&every, of, true) == named(&circuit, of, true));
    // The others are there.
    let features = every.table::<FeatureRow>();
    assert!(features.iter().map(|row| row.key).eq(0..32_768));
    assert!(features.is_sorted_by_key(|row| row.feature));
    let subjects = |of: Vec<Option<FeatureId>>| of.into_iter().flatten().collect::<BTreeSet<_>>();
    let logits = every.table::<LogitRow>().iter().map(|row| row.subject.feature()).collect();
    assert_eq!(subjects(logits).len(), 32_768);
    let active: BTreeSet<FeatureId> =
        features.iter().filter(|row| row.active > 0).map(|row| row.feature).collect();
    let examples = every.table::<ExampleRow>().into_iter().filter(|row| row.value > 0.0);
    assert!(subjects(examples.map(|row| row.subject.feature()).collect()) == active);
    // Of nothing else there is more: no evidence, pair, cause, explanation, score or page.
    let results = [&circuit, &every].map(Bench::results);
    let more = ["features", "examples", "logits"].map(|name| format!("artifacts/{name}.parquet"));
    for (name, bytes) in &results[0] {
        let name = name.to_str().unwrap();
        let is_table = name.starts_with("artifacts/") && name.ends_with(".parquet");
        if is_table && !name.contains("part-") && !more.contains(&name.into()) {
            let height = |bench: &Bench| height(&bench.file(name));
            assert_eq!(height(&every), height(&circuit), "{name}");
        }
        // What tells times, fingerprints and the tables themselves.
        let other = ["site/index.html", "site/card.html", "site/atlas.json"].contains(&name)
            || name.starts_with("site/data/");
        if name.starts_with("site/") && !other {
            assert!(*bytes == results[1][Path::new(name)], "{name} differs");
        }
    }
    assert!(results[0].keys().eq(results[1].keys()), "not the same files");
    // `show` answers from the tables, with what the statistics say.
    let row = features.iter().find(|row| !row.page && row.active > 40).unwrap();
    let asked = ["show", "feature", &row.feature.to_string(), "--json"];
    let answer: Value = serde_json::from_str(&every.call(&asked).succeeded().out).unwrap();
    assert_eq!(answer["active"], row.active);
    assert!(answer["measured"].is_null() && !answer["examples"].as_array().unwrap().is_empty());
    assert!(!answer["explanation"]["text"].as_str().unwrap().is_empty(), "{answer}");
    // In blocks, with the live model, the scores are the same.
    let less =
        Bench::finished().add(all).add("[cache]\nstore = \"stream\"\n[machine]\nmemory = 0.02\n");
    less.run(&["cache", "score"]).succeeded();
    for part in 0..4 {
        let name = format!("scores/part-{part:05}.parquet");
        assert!(rows(&less, &name) == rows(&every, &name), "{name}");
    }
}

/// Rows of any Parquet file.
fn height(path: &Path) -> usize {
    use polars::prelude::{ParquetReader, SerReader};
    ParquetReader::new(std::fs::File::open(path).unwrap()).num_rows().unwrap()
}

#[test]
fn the_disk_cache_and_the_live_model_give_the_same_scores() {
    for dtype in ["f32", "f16"] {
        let scores = |store: &str| {
            let settings = format!("[cache]\nstore = \"{store}\"\ndtype = \"{dtype}\"\n");
            let bench = Bench::new().add(&settings);
            bench.run(&["tokenize", "measure", "discover", "cache", "score"]).succeeded();
            let cached = bench.file("artifacts/activations").exists();
            assert_eq!(cached, store == "disk");
            (0..4)
                .map(|part| rows(&bench, &format!("scores/part-{part:05}.parquet")))
                .collect::<Vec<_>>()
        };
        assert!(scores("disk") == scores("stream"), "{dtype}");
    }
}

/// The rows of a table of scores, without what the file says of its maker.
fn rows(bench: &Bench, name: &str) -> Vec<ScoreRow> {
    use circuit_atlas::artifact::Store;
    let part = name.trim_end_matches(".parquet")[name.len() - 13..].parse().unwrap();
    Store::new(&bench.file("artifacts")).read_part(part).unwrap()
}

/// Kills a run once its second shard of scores is there; false if `score` was done by then.
fn killed_in_score(bench: &Bench) -> bool {
    let mut run = bench.command(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let second = bench.file("artifacts/scores/part-00001.parquet");
    let start = Instant::now();
    while !second.exists()
        && start.elapsed() < Duration::from_secs(120)
        && run.try_wait().unwrap().is_none()
    {
        std::thread::sleep(Duration::from_micros(200));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let lock = std::fs::read_to_string(bench.file("artifacts/atlas.lock")).unwrap();
    lock.contains("[stages.score]\nfingerprint = \"\"\n")
}

#[test]
fn a_killed_run_goes_on_at_the_shard_it_was_in() {
    let bench = Bench::new();
    // On a busy machine `score` may end before the kill arrives; then it is undone and tried again.
    let killed = (0..20).any(|_| {
        bench.call(&["clean", "score"]).succeeded();
        killed_in_score(&bench)
    });
    assert!(killed, "`score` always ended before it was killed");
    let kept = |name: &str| std::fs::metadata(bench.file(name)).and_then(|m| m.modified()).ok();
    let first = "artifacts/scores/part-00000.parquet";
    let before = kept(first).expect("a finished shard is there");
    let said = bench.run(&[]).succeeded();
    assert_eq!(kept(first), Some(before), "a finished shard was made again");
    assert!(!said.ran().contains(&"cache"), "{}", said.err);
    bench.assert_same_results(&Bench::finished());
}

#[test]
fn a_named_stage_runs_alone_and_gives_the_same_bytes() {
    let bench = Bench::finished();
    let before = bench.results();
    let said = bench.run(&["aggregate", "--force"]).succeeded();
    assert!(said.err.starts_with("aggregate "), "{}", said.err);
    assert!(bench.results() == before);
}

#[test]
fn from_runs_a_stage_and_those_after_it() {
    let bench = Bench::finished().set("examples = 4", "examples = 3");
    let said = bench.run(&["--from", "interpret"]).failed();
    assert!(said.error().contains("needs the output of `aggregate`"), "{}", said.err);
    assert_eq!(bench.run(&["--from", "aggregate"]).succeeded().ran(), &ALL[7..]);
}

#[test]
fn a_site_of_other_settings_in_the_same_place_is_made_again() {
    let bench = Bench::finished();
    let other = Bench::finished().set("\"mlp2.5\"]", "\"mlp2.5\"]\n[site]\ntitle = \"another\"");
    other.run(&[]).succeeded();
    std::fs::remove_dir_all(bench.file("site")).unwrap();
    copy(&other.file("site"), &bench.file("site"));
    assert_eq!(bench.run(&[]).succeeded().ran(), ["render"]);
}

#[test]
fn clean_removes_a_stage_and_what_was_made_from_it_and_nothing_else() {
    let bench = Bench::finished();
    std::fs::write(bench.file("artifacts/mine.txt"), "a user's own").unwrap();
    let said = bench.call(&["clean", "score"]).succeeded();
    assert!(
        !bench.file("artifacts/scores").exists()
            && !bench.file("artifacts/features.parquet").exists()
    );
    assert!(
        bench.file("artifacts/tokens").exists() && bench.file("artifacts/mine.txt").exists(),
        "{}",
        said.err
    );
    bench.run(&[]).succeeded();
    bench.call(&["clean"]).succeeded();
    assert!(!bench.file("site").exists() && !bench.file("artifacts/tokens").exists());
    assert!(bench.file("artifacts/mine.txt").exists());
}

#[test]
fn examples_never_cross_the_halves_and_are_one_a_document() {
    use circuit_atlas::artifact::Store;
    use circuit_atlas::artifact::tables::{Document, ExampleRow};
    use std::collections::{BTreeMap, BTreeSet};
    let bench = Bench::finished();
    let store = Store::new(&bench.file("artifacts"));
    let halves: BTreeMap<u32, Half> =
        store.read::<Document>().unwrap().into_iter().map(|row| (row.document, row.half)).collect();
    assert_eq!(halves.values().collect::<BTreeSet<_>>().len(), 2);
    let mut seen = BTreeSet::new();
    let examples = store.read::<ExampleRow>().unwrap();
    assert!(!examples.is_empty());
    for row in examples {
        assert_eq!(row.half, halves[&row.document]);
        assert!(
            seen.insert((row.subject.clone(), row.document)),
            "{} twice for {}",
            row.document,
            row.subject
        );
        assert!(row.start <= row.peak && usize::from(row.peak - row.start) < row.tokens.len());
        if row.band != circuit_atlas::ids::Band::Inactive {
            assert_eq!(row.activations[usize::from(row.peak - row.start)], row.value);
        }
    }
}

#[test]
fn what_explains_a_feature_is_from_the_explain_half() {
    use circuit_atlas::artifact::Store;
    use circuit_atlas::artifact::tables::{ContextRow, Document};
    use std::collections::BTreeMap;
    let bench = Bench::finished();
    let store = Store::new(&bench.file("artifacts"));
    let documents = store.read::<Document>().unwrap();
    let explain: BTreeSet<u32> =
        documents.iter().filter(|d| d.half == Half::Explain).map(|d| d.document).collect();
    let contexts: BTreeMap<u32, ContextRow> = store
        .read_parts::<ContextRow>()
        .unwrap()
        .into_iter()
        .map(|row| (row.context, row))
        .collect();
    let seen = |context: u32| explain.contains(&contexts[&context].document);
    let end_of_text = contexts[&0].tokens[0];
    let counts = |row: &ContextRow, p: usize| p > 0 && row.tokens[p] != end_of_text;
    let of_half = contexts.values().filter(|row| seen(row.context));
    let tokens: usize =
        of_half.map(|row| (0..row.tokens.len()).filter(|&p| counts(row, p)).count()).sum();
    let mut active: BTreeMap<u32, usize> = BTreeMap::new();
    for row in store.read_parts::<ScoreRow>().unwrap() {
        if seen(row.context) && counts(&contexts[&row.context], row.position.into()) {
            *active.entry(row.feature).or_default() += 1;
        }
    }
    for row in store.read::<FeatureRow>().unwrap() {
        let expected = active.get(&row.key).copied().unwrap_or(0) as f64 / tokens as f64;
        assert!((row.explain_density - expected).abs() < 1e-12, "{}", row.feature);
        assert_eq!(row.explain_tokens.is_empty(), expected == 0.0, "{}", row.feature);
    }
}

#[test]
fn check_prints_a_line_for_each_dictionary() {
    let said = Bench::new().call(&["check"]).succeeded();
    assert_eq!(
        said.out.lines().filter(|line| line.starts_with("att") || line.starts_with("mlp")).count(),
        8
    );
}
