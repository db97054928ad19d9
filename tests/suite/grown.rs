//! Corpora that change from one run to the next: what is the same is taken over, and every table has
//! the bytes of a run from nothing.

use crate::bench::{Bench, Said, copy, walk};
use circuit_atlas::artifact::tables::{ContextRow, EncodedRow};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const REPOSITORY: &str = crate::bench::REPOSITORY;

/// What runs again when the corpus changes, up to the scores.
const STAGES: [&str; 4] = ["tokenize", "measure", "cache", "score"];

/// Lines of the demo's corpus, from a place on. Each is a document of about one context.
fn lines(from: usize, number: usize) -> Vec<String> {
    static ALL: OnceLock<Vec<String>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let text = std::fs::read_to_string(Path::new(REPOSITORY).join("demo/corpus.jsonl"));
        text.unwrap().lines().map(String::from).collect()
    });
    all[from..from + number].to_vec()
}

/// Files of a corpus: names and lines.
type Files<'a> = &'a [(&'a str, &'a [String])];

/// Makes the corpus have these files and no others.
fn bring(bench: &Bench, files: Files) {
    let folder = bench.file("corpus");
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir(&folder).unwrap();
    for (name, lines) in files {
        std::fs::write(folder.join(name), lines.join("\n")).unwrap();
    }
}

/// A bench with a corpus of its own, in which `discover` has run: that does not depend on the corpus.
/// It ran once.
fn ready() -> Bench {
    static READY: OnceLock<Bench> = OnceLock::new();
    let with_corpus =
        || Bench::new().set("[repo]/demo/corpus.jsonl", "corpus").set("max_contexts = 96\n", "");
    let ready = READY.get_or_init(|| {
        let bench = with_corpus();
        bring(&bench, &[("m.jsonl", &lines(0, 90))]);
        bench.run(&["tokenize", "measure", "discover"]).succeeded();
        bench
    });
    let bench = with_corpus();
    copy(ready.path(), bench.path());
    bench
}

/// A bench that has scored 90 documents.
fn scored(settings: &str) -> Bench {
    static SCORED: OnceLock<Bench> = OnceLock::new();
    let score = |bench: &Bench| {
        bench.run(&STAGES).succeeded();
    };
    if !settings.is_empty() {
        let bench = ready().add(settings);
        score(&bench);
        return bench;
    }
    let scored = SCORED.get_or_init(|| {
        let bench = ready();
        score(&bench);
        bench
    });
    let bench = ready();
    copy(scored.path(), bench.path());
    bench
}

/// What the tables have that are taken over in part.
fn tables(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    walk(&bench.file("artifacts"), &mut |path| {
        let name = path.strip_prefix(bench.file("artifacts")).unwrap().to_path_buf();
        let own = ["documents.parquet", "encoded.parquet", "tokens", "activations", "scores"];
        if own.iter().any(|own| name.starts_with(own)) {
            files.insert(name, std::fs::read(path).unwrap());
        }
    });
    files
}

/// The tables of a bench are those of a run from nothing with the same settings on the same corpus.
#[track_caller]
fn assert_as_from_nothing(bench: &Bench) {
    let fresh = Bench::new();
    copy(bench.path(), fresh.path());
    let has_scores = bench.file("artifacts/scores").exists();
    let stages: &[&str] =
        if has_scores { &["tokenize", "cache", "score"] } else { &["tokenize", "cache"] };
    let said = fresh.run(&[stages, &["--force"]].concat()).succeeded();
    assert!(!said.err.contains("as before") && !said.err.contains("documents new"), "{}", said.err);
    let (own, others) = (tables(bench), tables(&fresh));
    assert!(own.keys().eq(others.keys()), "{:?} and {:?}", own.keys(), others.keys());
    assert!(own.len() > 4);
    for (name, bytes) in &own {
        assert!(*bytes == others[name], "{} differs", name.display());
    }
}

fn contexts(bench: &Bench) -> Vec<Vec<u32>> {
    bench.table::<ContextRow>().into_iter().map(|row| row.tokens).collect()
}

/// What a run says that has run those of its contexts that are none of these.
fn some_run(bench: &Bench, before: &[Vec<u32>]) -> String {
    let before: HashSet<&Vec<u32>> = before.iter().collect();
    let all = contexts(bench);
    let new = all.iter().filter(|context| !before.contains(context)).count();
    assert!(new < all.len(), "nothing is as before, so that nothing is tested");
    format!("; {new} of {} contexts run, the others as before (", all.len())
}

/// Both stages said so.
#[track_caller]
fn assert_some_run(said: &Said, bench: &Bench, before: &[Vec<u32>]) {
    let expected = some_run(bench, before);
    let stages = if bench.file("artifacts/activations").exists() { 2 } else { 1 };
    assert_eq!(said.err.matches(&expected).count(), stages, "{expected}: {}", said.err);
}

#[test]
fn of_ten_documents_more_only_their_contexts_are_run_wherever_they_come() {
    let (old, ten) = (lines(0, 90), lines(200, 10));
    let fewer: Vec<String> = old.iter().skip(7).cloned().collect();
    let cases: [(&str, Files, &str); 3] = [
        ("", &[("m.jsonl", &[old.clone(), ten.clone()].concat())], "; 10 documents new"),
        ("", &[("a.jsonl", &ten), ("m.jsonl", &old)], "; 10 documents new"),
        (
            "[cache]\nstore = \"stream\"\n",
            &[("m.jsonl", &fewer), ("z.jsonl", &ten)],
            "; 10 documents new, 7 gone",
        ),
    ];
    for (settings, files, told) in cases {
        let bench = scored(settings);
        let before = contexts(&bench);
        bring(&bench, files);
        let said = bench.run(&STAGES).succeeded();
        assert!(said.err.contains(told), "{}", said.err);
        assert_some_run(&said, &bench, &before);
        assert!(!bench.file("artifacts/earlier").exists());
        assert_as_from_nothing(&bench);
    }
}

#[test]
fn removed_and_repeated_documents_and_another_cut_give_the_right_tables() {
    let old = lines(0, 90);
    // The same contexts twice and thrice.
    let bench = scored("");
    let before = contexts(&bench);
    let again = [&old[20..80], &old[..40], &old[30..35], &lines(300, 3)].concat();
    bring(&bench, &[("m.jsonl", &again)]);
    let said = bench.run(&STAGES).succeeded();
    assert!(said.err.contains("; 28 documents new, 10 gone"), "{}", said.err);
    assert_some_run(&said, &bench, &before);
    assert_as_from_nothing(&bench);
    // Fewer of them, in larger parts: nothing is run.
    let before = contexts(&bench);
    let other =
        |bench: Bench| bench.set("shard_contexts = 24", "shard_contexts = 40\nmax_contexts = 60");
    let bench = other(bench);
    let said = bench.run(&STAGES).succeeded();
    assert!(some_run(&bench, &before).starts_with("; 0 of 60 "));
    assert_some_run(&said, &bench, &before);
    assert_as_from_nothing(&bench);
    // Shorter contexts: those that are not cut are the same.
    let before = contexts(&bench);
    let bench = bench.set("max_contexts = 60", "max_contexts = 60\ncontext = 70");
    let bench = bench.add("[machine]\nbatch = 3\n");
    let said = bench.run(&STAGES).succeeded();
    assert!(said.err.contains("; 0 documents new"), "{}", said.err);
    assert_some_run(&said, &bench, &before);
    assert_as_from_nothing(&bench);
    // Other numbers: nothing is taken over.
    let f16 = "[cache]\ndtype = \"f16\"\n";
    let bench = bench.add(f16);
    let said = bench.run(&STAGES).succeeded();
    assert!(!said.err.contains("as before"), "{}", said.err);
    assert_as_from_nothing(&bench);
}

#[test]
fn packed_documents_give_the_right_tables() {
    // The demo's model does not fit packed contexts, so that `measure` would refuse it.
    let bench = ready().set("[corpus]", "[corpus]\npack = true");
    bench.run(&["tokenize", "cache"]).succeeded();
    bring(&bench, &[("m.jsonl", &[lines(0, 90), lines(200, 10)].concat())]);
    let said = bench.run(&["tokenize", "cache"]).succeeded();
    assert!(said.err.contains("; 10 documents new;"), "{}", said.err);
    assert_as_from_nothing(&bench);
}

#[test]
fn new_features_and_new_documents_are_scored_together() {
    let extra = "[score]\nextra = [\"att2.9\", \"mlp0.11\"]\n";
    for store in ["disk", "stream"] {
        let settings = format!("[cache]\nstore = \"{store}\"\n");
        let bench = scored(if store == "disk" { "" } else { &settings });
        let before = contexts(&bench);
        bring(&bench, &[("a.jsonl", &lines(200, 10)), ("m.jsonl", &lines(0, 90))]);
        let bench = bench.add(extra);
        let said = bench.run(&STAGES).succeeded();
        let expected = some_run(&bench, &before);
        let (new, _) = expected.split_once(" run, ").unwrap();
        let new = format!(", 2 of them new{new} run for all of them, the others for new ones (");
        assert!(said.err.contains(&new), "{new}: {}", said.err);
        assert_as_from_nothing(&bench);
    }
}

#[test]
fn shards_take_over_what_is_the_same_and_a_corpus_may_change_between_them() {
    let bench = scored("");
    let before = contexts(&bench);
    bring(&bench, &[("a.jsonl", &lines(200, 10)), ("m.jsonl", &lines(0, 90))]);
    bench.run(&["tokenize", "measure"]).succeeded();
    // Half of the parts, as of a run that was killed.
    let said = bench.together("cache", &["1/2"]);
    assert!(said[0].err.contains(" contexts run, the others as before ("), "{said:?}");
    assert!(bench.file("artifacts/earlier/activations").exists());
    // Then others go on, and their parts are still there.
    let said = bench.together("cache", &["1/2", "2/2", "2/2"]);
    assert!(said.iter().all(|said| said.err.contains(" the others as before (")), "{said:?}");
    bench.together("score", &["1/2", "2/2"]);
    bench.run(&["cache", "score"]).succeeded();
    assert!(!bench.file("artifacts/earlier").exists());
    assert_as_from_nothing(&bench);

    // A stage that is half done, of which the rest is not made: both halves are of use.
    let more = [lines(0, 80), lines(300, 12)].concat();
    bring(&bench, &[("a.jsonl", &lines(200, 10)), ("m.jsonl", &more)]);
    bench.run(&["tokenize", "measure"]).succeeded();
    bench.together("cache", &["1/2"]);
    bench.together("cache", &["2/2"]);
    bench.together("score", &["2/2"]);
    let known = [before, contexts(&bench)].concat();
    let before = known.len() / 2;
    bring(&bench, &[("a.jsonl", &lines(200, 14)), ("m.jsonl", &more)]);
    let said = bench.run(&STAGES).succeeded();
    assert!(said.err.contains("; 4 documents new"), "{}", said.err);
    let of = |stage: &str| {
        let line = said.err.lines().find(|line| {
            line.starts_with(stage) && line.contains(" contexts run, the others as before")
        });
        let line = line.unwrap().split_once("; ").unwrap().1;
        line.split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let new = some_run(&bench, &known);
    assert_eq!(new.split(' ').nth(1).unwrap(), of("cache").to_string(), "{}", said.err);
    // Of the scores only every other part was there.
    assert!(of("cache") < of("score") && of("score") < before / 2, "{}", said.err);
    assert_as_from_nothing(&bench);
}

#[test]
fn a_killed_run_on_a_larger_corpus_goes_on_and_the_next_corpus_does_too() {
    let bench = scored("");
    let killed_at = |sight: &str| {
        let mut run = bench.command(&[&["run"][..], &STAGES].concat());
        let mut run = run.stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while !bench.file(sight).exists()
            && start.elapsed() < Duration::from_secs(120)
            && run.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_micros(200));
        }
        drop(run.kill());
        run.wait().unwrap();
    };
    bring(&bench, &[("m.jsonl", &lines(0, 100))]);
    killed_at("artifacts/earlier/activations/part-00001.parquet");
    bring(&bench, &[("m.jsonl", &lines(0, 105))]);
    killed_at("artifacts/earlier/scores");
    bring(&bench, &[("m.jsonl", &lines(5, 105))]);
    bench.run(&STAGES).succeeded();
    assert!(!bench.file("artifacts/earlier").exists());
    assert!(!bench.file("artifacts/.setting-aside").exists());
    assert_as_from_nothing(&bench);
}

#[test]
fn no_more_is_kept_beside_the_cache_than_it_may_take() {
    let bench = scored("");
    let before = contexts(&bench);
    let mut bytes = 0;
    walk(&bench.file("artifacts/activations"), &mut |path| bytes += path.metadata().unwrap().len());
    let most = 1.6 * bytes as f64 / f64::from(1 << 30);
    bring(&bench, &[("m.jsonl", &lines(0, 100))]);
    let bench = bench.add(&format!("[cache]\nmax_gib = {most}\n"));
    let said = bench.run(&STAGES).succeeded();
    let note = said.err.lines().find(|line| line.starts_with("note: ")).unwrap();
    assert!(note.contains(" parts of the run before are kept to take activations over"), "{note}");
    // Of the scores all are known.
    assert_eq!(said.err.matches(&some_run(&bench, &before)).count(), 1, "{}", said.err);
    let cache = said.err.lines().find(|line| line.starts_with("cache ") && line.contains("GiB"));
    assert!(cache.unwrap().contains(" contexts run, the others as before"), "{}", said.err);
    assert_as_from_nothing(&bench);
}

#[test]
fn a_damaged_part_is_not_taken_over_and_files_of_a_user_stay() {
    let bench = scored("");
    for name in ["activations/part-00001.parquet", "scores/part-00002.parquet", "encoded.parquet"] {
        let path = bench.file("artifacts").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let mine =
        ["artifacts/earlier/scores/mine.txt", "artifacts/earlier/activations/part-00000.parquet"];
    for name in mine {
        std::fs::create_dir_all(bench.file(name).parent().unwrap()).unwrap();
        std::fs::write(bench.file(name), "a user's own").unwrap();
    }
    bring(&bench, &[("m.jsonl", &lines(0, 100))]);
    let said = bench.run(&STAGES).succeeded();
    assert!(said.err.contains("note: all texts are encoded again: "), "{}", said.err);
    let damaged = said.err.matches("note: nothing is taken over from `earlier/").count();
    assert_eq!(damaged, 2, "{}", said.err);
    assert_eq!(
        said.err.matches(" contexts run, the others as before (").count(),
        2,
        "{}",
        said.err
    );
    for name in mine {
        assert_eq!(std::fs::read_to_string(bench.file(name)).unwrap(), "a user's own");
    }
    std::fs::remove_dir_all(bench.file("artifacts/earlier")).unwrap();
    assert_as_from_nothing(&bench);

    // Made again, nothing is taken over; nothing of it is left by `clean`.
    let tables = tables(&bench);
    let said = bench.run(&[&STAGES[..], &["--force"]].concat()).succeeded();
    assert!(!said.err.contains("as before") && !said.err.contains("documents new"), "{}", said.err);
    assert!(self::tables(&bench) == tables);
    std::fs::create_dir_all(bench.file("artifacts/earlier/scores")).unwrap();
    std::fs::copy(
        bench.file("artifacts/scores/part-00000.parquet"),
        bench.file("artifacts/earlier/scores/part-00000.parquet"),
    )
    .unwrap();
    bench.call(&["clean"]).succeeded();
    assert!(!bench.file("artifacts/earlier").exists());
    assert!(!bench.file("artifacts/encoded.parquet").exists());
    // One of somebody else is refused before anything is done.
    std::fs::write(bench.file("artifacts/encoded.parquet"), "a user's own").unwrap();
    let said = bench.run(&["tokenize"]).failed();
    assert!(
        said.error().contains("encoded.parquet` was not written by this program"),
        "{}",
        said.err
    );
}

#[test]
fn only_texts_of_this_corpus_are_kept() {
    let bench = ready();
    bring(&bench, &[("m.jsonl", &lines(40, 30))]);
    let said = bench.run(&["tokenize"]).succeeded();
    assert!(said.err.contains("; 0 documents new, 60 gone"), "{}", said.err);
    let kept = bench.table::<EncodedRow>();
    assert_eq!(kept.iter().map(|row| row.documents).sum::<u32>(), 30);
    let keys: BTreeSet<&String> = kept.iter().map(|row| &row.text).collect();
    assert_eq!(keys.len(), kept.len());
}

#[test]
fn a_nightly_run_with_more_documents_has_the_tables_and_pages_of_one_from_nothing() {
    let with_corpus = |bench: Bench| {
        bench.set("[repo]/demo/corpus.jsonl", "corpus").set("max_contexts = 96\n", "")
    };
    let (bench, fresh) = (with_corpus(Bench::new()), with_corpus(Bench::new()));
    bring(&bench, &[("m.jsonl", &lines(0, 90))]);
    bench.run(&[]).succeeded();
    let before = contexts(&bench);
    for bench in [&bench, &fresh] {
        bring(bench, &[("a.jsonl", &lines(200, 10)), ("m.jsonl", &lines(0, 90))]);
    }
    let said = bench.run(&[]).succeeded();
    assert!(said.err.contains("; 10 documents new"), "{}", said.err);
    assert_some_run(&said, &bench, &before);
    fresh.run(&[]).succeeded();
    bench.assert_same_results(&fresh);
}
