//! Stages whose work is kept in parts until they are done: `discover` and `verify`, killed and gone
//! on with, and shared by several processes.

use crate::bench::{Bench, Said, copy, walk};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

const KEPT: [&str; 6] = [
    "prompt_scores",
    "choice_runs",
    "choices",
    "prompt_circuits",
    "method_circuits",
    "tested_links",
];

/// Circuits of the gradient: two parts of scores for each task, two of circuits for the first.
fn world() -> Bench {
    Bench::new()
        .set("prompts = 4\n[[tasks]]", "prompts = 20\n[[tasks]]")
        .set(
            "method = \"greedy\"\npasses = 2",
            "prompts = 40\nchoose = 12\nmost = 30\nprune = true\nshare = 0.001",
        )
        .set(
            "prompts = 4\nrandom = 2",
            "prompts = 12\nrandom = 2\nmethods = [\"greedy\", \"influence\"]",
        )
}

/// It, up to a stage. Each runs once.
fn before(stage: &str) -> Bench {
    static DONE: OnceLock<[Bench; 3]> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let measured = world();
        measured.run(&["tokenize", "measure"]).succeeded();
        let discovered = copied(&measured);
        discovered.run(&["discover"]).succeeded();
        let verified = copied(&discovered);
        verified.run(&["verify"]).succeeded();
        [measured, discovered, verified]
    });
    copied(match stage {
        "discover" => &done[0],
        "verify" => &done[1],
        _ => &done[2],
    })
}

fn copied(bench: &Bench) -> Bench {
    let new = world();
    copy(bench.path(), new.path());
    new
}

/// The same tables with the same bytes.
#[track_caller]
fn assert_same(one: &Bench, other: &Bench) {
    let tables = |bench: &Bench| {
        let mut files = BTreeMap::new();
        walk(&bench.file("artifacts"), &mut |path| {
            let name = path.strip_prefix(bench.path()).unwrap().to_path_buf();
            files.insert(name, std::fs::read(path).unwrap());
        });
        files.retain(|name, _| !name.ends_with("atlas.lock") && !name.ends_with(".running"));
        files
    };
    let (one, other) = (tables(one), tables(other));
    assert!(one.keys().eq(other.keys()), "{:?} and {:?}", one.keys(), other.keys());
    for (name, bytes) in &one {
        assert!(*bytes == other[name], "{} differs", name.display());
    }
}

/// The parts that are kept, and when each was written.
fn kept(bench: &Bench) -> BTreeMap<PathBuf, SystemTime> {
    let mut files = BTreeMap::new();
    for name in KEPT.iter().chain(&["circuit_runs"]) {
        let folder = bench.file("artifacts").join(name);
        if folder.exists() {
            walk(&folder, &mut |path| {
                files.insert(path.to_path_buf(), path.metadata().unwrap().modified().unwrap());
            });
        }
    }
    files
}

/// Runs shards of a stage at the same time; how many parts each says that it made.
fn made_by(bench: &Bench, stage: &str, shards: &[&str]) -> Vec<usize> {
    let number = |said: Said| {
        let made = said.err.split(": ").nth(1).unwrap_or_else(|| panic!("{}", said.err));
        made.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{}", said.err))
    };
    bench.together(stage, shards).into_iter().map(number).collect()
}

/// Runs a stage and kills it when something is there; whether it was killed before it ended.
fn killed(bench: &Bench, arguments: &[&str], is_there: impl Fn() -> bool) -> bool {
    let mut child = bench.start(arguments);
    let since = Instant::now();
    while !is_there()
        && since.elapsed() < Duration::from_secs(300)
        && child.try_wait().unwrap().is_none()
    {
        std::thread::sleep(Duration::from_micros(300));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

/// Kills a stage behind each of some parts, and finds that none of what was kept is made again.
fn goes_on(stage: &str, after: &[&str], next: &Bench) {
    let bench = before(stage);
    let mut known = BTreeMap::new();
    for name in after {
        let path = bench.file("artifacts").join(name);
        let any = || match path.extension() {
            Some(_) => path.exists(),
            None => path.read_dir().is_ok_and(|mut entries| {
                entries.any(|entry| entry.is_ok_and(|entry| !is_hidden(&entry.path())))
            }),
        };
        if !killed(&bench, &[stage], any) {
            // On a busy machine it may end before the kill arrives: everything is there then.
            break;
        }
        let now = kept(&bench);
        let same = known.iter().all(|(path, time)| now.get(path) == Some(time));
        assert!(same, "something was made again before {name}");
        known = now.into_iter().filter(|(path, _)| !is_hidden(path)).collect();
    }
    assert!(!known.is_empty(), "it was never killed");
    bench.run(&[stage]).succeeded();
    assert!(KEPT.iter().all(|name| !bench.file("artifacts").join(name).exists()));
    assert_same(&bench, next);
}

fn is_hidden(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

#[test]
fn a_killed_discover_goes_on_and_gives_the_same_bytes() {
    let after = [
        "prompt_scores/part-00000.parquet",
        "prompt_scores/part-00001.parquet",
        "choice_runs",
        "choices/part-00000.parquet",
        "prompt_circuits/part-00001.parquet",
        "prompt_scores/part-00003.parquet",
        "prompt_circuits/part-00002.parquet",
    ];
    goes_on("discover", &after, &before("verify"));
}

#[test]
fn a_killed_verify_goes_on_and_gives_the_same_bytes() {
    let after = ["method_circuits", "circuit_runs", "tested_links"];
    goes_on("verify", &after, &before("heads"));
}

#[test]
fn shards_of_discover_give_the_bytes_of_one_run() {
    let bench = before("discover");
    // One of them twice. What comes after the scores of all is made in a second round, unless one
    // was the last; shards of another number go on with it.
    let shards = ["1/3", "2/3", "3/3", "1/3"];
    made_by(&bench, "discover", &shards);
    assert!(bench.call(&["status"]).succeeded().out.contains("discover   would run: its last run"));
    let said = bench.run(&["verify", "--shard", "1/2"]).failed();
    assert!(said.error().contains("`verify` needs the output of `discover`"), "{}", said.err);
    made_by(&bench, "discover", &["1/2", "2/2", "7/9"]);
    assert_eq!(made_by(&bench, "discover", &["1/1"]), [0], "something is left");
    let parts = kept(&bench);
    assert!(parts.len() >= 10, "{parts:?}");
    bench.run(&["discover"]).succeeded();
    assert_same(&bench, &before("verify"));
}

#[test]
fn a_shard_of_discover_that_is_killed_goes_on() {
    let bench = before("discover");
    let first = bench.file("artifacts/prompt_scores/part-00000.parquet");
    killed(&bench, &["discover", "--shard", "1/1"], || first.exists());
    let parts = kept(&bench);
    made_by(&bench, "discover", &["1/1"]);
    let now = kept(&bench);
    let whole = parts.iter().filter(|(path, _)| !is_hidden(path));
    assert!(whole.into_iter().all(|(path, time)| now.get(path) == Some(time)));
    bench.run(&["discover"]).succeeded();
    assert_same(&bench, &before("verify"));
}

#[test]
fn shards_of_greedy_circuits_give_the_bytes_of_one_run() {
    let greedy = || Bench::new().set("passes = 2", "passes = 2\ncontrast = true");
    let one = greedy();
    one.run(&["tokenize", "measure"]).succeeded();
    let bench = greedy();
    copy(one.path(), bench.path());
    one.run(&["discover"]).succeeded();
    // There are two parts.
    assert_eq!(made_by(&bench, "discover", &["1/3", "2/3", "3/3"]), [1, 1, 0]);
    bench.run(&["discover"]).succeeded();
    assert_same(&bench, &one);
}

#[test]
fn shards_of_verify_give_the_bytes_of_one_run() {
    let bench = before("verify");
    let made = made_by(&bench, "verify", &["1/3", "2/3", "3/3", "2/3"]);
    // Of the one that runs twice, one may find everything made.
    assert!(made[0] > 0 && made[2] > 0, "{made:?}");
    made_by(&bench, "verify", &["1/2", "2/2", "11/12"]);
    assert_eq!(made_by(&bench, "verify", &["1/1"]), [0], "something is left");
    bench.run(&["verify"]).succeeded();
    assert!(KEPT.iter().all(|name| !bench.file("artifacts").join(name).exists()));
    assert_same(&bench, &before("heads"));
    let fresh = bench.run(&["verify", "--shard", "1/2"]).succeeded();
    assert_eq!(fresh.err, "verify     fresh\n");
}

#[test]
fn kept_parts_of_somebody_else_are_neither_replaced_nor_removed() {
    let bench = before("discover");
    let path = bench.file("artifacts/prompt_scores/part-00001.parquet");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "mine").unwrap();
    for arguments in [&["discover"][..], &["discover", "--shard", "1/2"]] {
        let said = bench.run(arguments).failed();
        assert!(said.error().contains("was not written by this program"), "{}", said.err);
    }
    let said = bench.call(&["clean"]).succeeded();
    let said = said.out + &said.err;
    assert!(said.contains("prompt_scores/part-00001.parquet"), "{said}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "mine");
}

#[test]
fn parts_of_other_settings_and_damaged_ones_are_made_again() {
    let bench = before("discover");
    made_by(&bench, "discover", &["1/2"]);
    // One is damaged.
    let path = bench.file("artifacts/prompt_scores/part-00000.parquet");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let undamaged = copied(&bench);
    undamaged.run(&["discover"]).succeeded();
    assert_same(&undamaged, &before("verify"));
    let bench = bench.set("share = 0.001", "share = 0.002");
    bench.run(&["discover"]).succeeded();
    let one = before("discover").set("share = 0.001", "share = 0.002");
    one.run(&["discover"]).succeeded();
    assert_same(&bench, &one);
}

/// Exchanges the first and the last part of something that is kept: in `discover` and `verify` these
/// are of two tasks.
fn exchange(bench: &Bench, artifact: &str) {
    let mut parts = Vec::new();
    walk(&bench.file("artifacts").join(artifact), &mut |path| parts.push(path.to_path_buf()));
    let [one, .., other] = &parts[..] else { panic!("{artifact} has too few parts: {parts:?}") };
    let aside = one.with_extension("aside");
    std::fs::rename(one, &aside).unwrap();
    std::fs::rename(other, one).unwrap();
    std::fs::rename(&aside, other).unwrap();
}

#[test]
fn parts_of_other_prompts_and_tasks_are_made_again() {
    let bench = before("discover");
    (0..2).for_each(|_| drop(made_by(&bench, "discover", &["1/1"])));
    ["prompt_scores", "prompt_circuits", "choices"].iter().for_each(|name| exchange(&bench, name));
    bench.run(&["discover"]).succeeded();
    assert_same(&bench, &before("verify"));

    (0..2).for_each(|_| drop(made_by(&bench, "verify", &["1/1"])));
    ["method_circuits", "tested_links"].iter().for_each(|name| exchange(&bench, name));
    // A shard may find them first.
    made_by(&bench, "verify", &["1/1"]);
    bench.run(&["verify"]).succeeded();
    assert_same(&bench, &before("heads"));
}

#[test]
fn the_exit_code_says_whether_another_try_may_succeed() {
    let bench = before("discover");
    let code =
        |arguments: &[&str]| bench.command(arguments).output().unwrap().status.code().unwrap();
    assert_eq!(code(&["run", "nothing"]), 1);
    let open =
        std::fs::File::options().append(true).create(true).open(bench.file("artifacts/.running"));
    let held = open.unwrap();
    held.lock().unwrap();
    assert_eq!(code(&["run", "discover"]), 75);
    assert_eq!(code(&["run", "discover", "--shard", "1/2"]), 75);
}

#[test]
fn shards_of_aggregate_give_the_bytes_of_one_run() {
    let all = || {
        let bench = Bench::new().set("max_contexts = 96", "max_contexts = 24");
        bench.add("[score]\nfeatures = \"all\"\n")
    };
    let bench = all();
    bench.run(&["tokenize", "measure", "discover", "cache", "score"]).succeeded();
    let one = all();
    copy(bench.path(), one.path());
    one.run(&["aggregate"]).succeeded();
    let made = made_by(&bench, "aggregate", &["1/3", "2/3", "1/3"]);
    assert!(made[1] > 3 && made[0].max(made[2]) > 3, "{made:?}");
    // What the third leaves is made by the whole run. A part that is not whole, or is another
    // one, is made again.
    std::fs::remove_file(bench.file("artifacts/part_evidence/part-00001.parquet")).unwrap();
    exchange(&bench, "part_examples");
    bench.run(&["aggregate"]).succeeded();
    assert!(!bench.file("artifacts/part_features").exists());
    assert_same(&bench, &one);
}
