//! A run every night: what is published, what is kept, and what changed.

use crate::bench::{Bench, Said, skipped, walk};
use circuit_atlas::artifact::Store;
use circuit_atlas::artifact::tables::{CircuitFeature, ComponentRow, FeatureRow};
use circuit_atlas::ids::{Component, FeatureId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

const RUNS: &str = "artifacts/runs";

fn runs(bench: &Bench) -> Vec<String> {
    let said = bench.call(&["diff", "--list", "--json"]).succeeded();
    let all: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    all.iter().map(|run| run["name"].as_str().unwrap().to_string()).collect()
}

fn site(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    walk(&bench.file("site"), &mut |path| {
        files.insert(path.to_path_buf(), fs::read(path).unwrap());
    });
    files
}

fn exit_code(bench: &Bench, arguments: &[&str]) -> (Option<i32>, Said) {
    let output = bench.command(arguments).output().unwrap();
    (output.status.code(), bench.said(output))
}

/// Components by task, and features with a page.
type Circuit = (BTreeSet<(String, Component)>, BTreeSet<FeatureId>);

fn circuit(store: &Store) -> Circuit {
    let components = store.read::<ComponentRow>().unwrap().into_iter();
    let features = store.read::<FeatureRow>().unwrap().into_iter().filter(|row| row.page);
    (
        components.map(|row| (row.task, row.component)).collect(),
        features.map(|row| row.feature).collect(),
    )
}

/// The feed is well-formed, and has what Atom wants of a feed and of each entry.
fn is_atom(bench: &Bench) {
    const CHECK: &str = "import sys, xml.etree.ElementTree as tree
ns = '{http://www.w3.org/2005/Atom}'
feed = tree.parse(sys.argv[1]).getroot()
assert feed.tag == ns + 'feed', feed.tag
entries = feed.findall(ns + 'entry')
for one in [feed] + entries:
    for child in ['id', 'title', 'updated']:
        assert one.find(ns + child).text, child
    stamp = one.find(ns + 'updated').text
    assert len(stamp) == 20 and stamp[10] == 'T' and stamp[-1] == 'Z', stamp
assert feed.find(ns + 'author') is not None and len(entries) == 1
";
    let python = std::env::var("CIRCUIT_ATLAS_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = std::process::Command::new(&python);
    let Ok(done) = command.args(["-c", CHECK]).arg(bench.file("site/feed.xml")).output() else {
        return skipped(&format!("there is no `{python}`; name one in CIRCUIT_ATLAS_PYTHON"));
    };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// What is told as changed is what a comparison of the whole tables gives; pages link to it.
#[test]
fn what_changed_is_told_of_circuits_features_and_densities() {
    let bench = Bench::finished();
    assert_eq!(runs(&bench).len(), 1);
    assert!(!bench.file("site/changes.html").exists());
    let before = circuit(&bench.store());
    let densities = |bench: &Bench| -> BTreeMap<FeatureId, f64> {
        bench.table::<FeatureRow>().into_iter().map(|row| (row.feature, row.density)).collect()
    };
    let was = densities(&bench);
    let bench = bench
        .set("passes = 2", "passes = 1")
        .set("max_contexts = 96", "max_contexts = 24")
        .add("[site]\nbase_url = \"https://example.org/atlas\"\n");
    bench.run(&[]).succeeded();
    let names = runs(&bench);
    assert_eq!(names.len(), 2);
    let (after, is) = (circuit(&bench.store()), densities(&bench));
    assert!(before != after, "nothing changed, so that nothing is tested");

    let said = bench.call(&["diff", "--json"]).succeeded();
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told["before"]["name"], names[0].as_str());
    assert_eq!(told["after"]["name"], names[1].as_str());
    let causes = told["causes"].as_array().unwrap();
    assert!(causes.iter().any(|cause| cause == "`discover.passes` was `2`, is `1`"), "{causes:?}");
    let changes = told["changes"].as_array().unwrap();
    let of = |kind: &str, what: &str| -> BTreeSet<String> {
        let own = changes.iter().filter(|change| change["of"] == kind && change["what"] == what);
        own.map(|change| change["name"].as_str().unwrap().to_string()).collect()
    };
    let names_of = |features: Vec<&FeatureId>| -> BTreeSet<String> {
        features.into_iter().map(ToString::to_string).collect()
    };
    assert_eq!(of("feature", "new"), names_of(after.1.difference(&before.1).collect()));
    assert_eq!(of("feature", "gone"), names_of(before.1.difference(&after.1).collect()));
    let components = |what: &str| -> BTreeSet<(String, String)> {
        let own = changes.iter().filter(|change| {
            let name = change["name"].as_str().unwrap();
            let is_component = name.parse::<Component>().is_ok();
            change["of"] == "circuit" && change["what"] == what && is_component
        });
        let text = |value: &Value| value.as_str().unwrap().to_string();
        own.map(|change| (text(&change["task"]), text(&change["name"]))).collect()
    };
    let named = |all: Vec<&(String, Component)>| -> BTreeSet<(String, String)> {
        all.into_iter().map(|(task, component)| (task.clone(), component.to_string())).collect()
    };
    assert_eq!(components("new in the circuit"), named(after.0.difference(&before.0).collect()));
    assert_eq!(
        components("no longer in the circuit"),
        named(before.0.difference(&after.0).collect())
    );
    // A density that is told of is another one, by more than a tenth.
    let denser = of("density", "density");
    assert!(!denser.is_empty());
    for feature in &denser {
        let id: FeatureId = feature.parse().unwrap();
        let (less, more) = (was[&id].min(is[&id]), was[&id].max(is[&id]));
        assert!(more > 1.1 * less, "{feature}: {less} and {more}");
    }

    let page = bench.page("changes.html");
    let first = denser.first().unwrap();
    assert!(page.contains(&format!("id=\"{}\"", names[1])));
    assert!(page.contains(&format!("href=\"features/{first}.html\"")));
    let own = bench.page(&format!("features/{first}.html"));
    assert!(own.contains(&format!("href=\"../changes.html#{}\"", names[1])), "no line on {first}");
    assert!(bench.page("index.html").contains("class=\"changed-since\""));
    let feed = bench.page("feed.xml").replace("&#x2f;", "/");
    assert!(feed.contains(&format!("https://example.org/atlas/changes.html#{}</id>", names[1])));
    is_atom(&bench);

    // The same in the terminal; the run itself against itself has no change.
    let said = bench.call(&["diff"]).succeeded();
    assert!(said.out.contains("Circuits: ") && said.out.contains(first.as_str()), "{}", said.out);
    let said = bench.call(&["diff", "latest", "now", "--json"]).succeeded();
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told["changes"], Value::Array(Vec::new()));
    let said = bench.call(&["diff", "1999"]).failed();
    assert!(said.err.contains("no run `1999` is kept"), "{}", said.err);
}

#[test]
fn a_run_with_the_same_tables_is_kept_once_and_old_ones_go() {
    let bench = Bench::finished();
    let before = runs(&bench);
    bench.run(&["render", "--force"]).succeeded();
    assert_eq!(runs(&bench), before);
    assert!(!bench.file("site/changes.html").exists());
    // Tables that did not change are on the disk once, under both names and in both runs.
    let bench = bench.set("passes = 2", "passes = 3");
    bench.run(&[]).succeeded();
    let all = runs(&bench);
    assert!(all.len() == 2 && all[0] == before[0], "{all:?}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = |run: &str, table: &str| {
            fs::metadata(bench.file(RUNS).join(run).join(table)).unwrap().ino()
        };
        let now = |table: &str| fs::metadata(bench.file("artifacts").join(table)).unwrap().ino();
        assert_eq!(file(&all[0], "conformance.parquet"), file(&all[1], "conformance.parquet"));
        assert_eq!(file(&all[1], "components.parquet"), now("components.parquet"));
        assert_ne!(file(&all[0], "components.parquet"), file(&all[1], "components.parquet"));
    }
    let mut names: Vec<String> = Vec::new();
    walk(&bench.file(RUNS).join(&all[1]), &mut |path| {
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    });
    names.sort();
    let kept = [
        "components",
        "conformance",
        "evaluations",
        "explanations",
        "faithfulness",
        "features",
        "rankings",
    ];
    let kept = kept.map(|name| format!("{name}.parquet")).into_iter().chain(["run.json".into()]);
    assert_eq!(names, kept.collect::<Vec<_>>());
    // What a killed run leaves is removed, what is not ours stays.
    fs::create_dir_all(bench.file("artifacts/runs/.new")).unwrap();
    fs::write(bench.file("artifacts/runs/.new/features.parquet"), "half").unwrap();
    fs::write(bench.file("artifacts/runs/notes.txt"), "mine").unwrap();
    let bench = bench.add("[output]\nkeep = 1\n");
    bench.run(&[]).succeeded();
    assert_eq!(runs(&bench), all[1..]);
    assert!(!bench.file("artifacts/runs/.new").exists());
    bench.call(&["clean"]).succeeded();
    assert_eq!(runs(&bench), all[1..]);
    bench.call(&["clean", "--runs"]).succeeded();
    assert!(runs(&bench).is_empty() && bench.file("artifacts/runs/notes.txt").exists());
}

#[test]
fn a_run_that_misses_its_bounds_is_not_published() {
    let bound = |text: &str| {
        Bench::finished().add(&format!("[site]\ntitle = \"another\"\n[publish]\n{text}\n"))
    };
    let bench = bound("least_variance_explained = 1.0\nleast_faithfulness = 2.0");
    let (before, kept) = (site(&bench), runs(&bench));
    let (code, said) = exit_code(&bench, &["run"]);
    assert_eq!(code, Some(4), "{}", said.err);
    let error = said.error();
    for part in [
        "the site is not published",
        "`publish.least_faithfulness` is 2, the circuit of heads and MLPs of `ioi` has ",
        "`publish.least_variance_explained` is 1, `att0` has ",
        "hint: `circuit-atlas diff latest now`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(site(&bench) == before && runs(&bench) == kept);
    // It is told again until the bound is met.
    assert_eq!(exit_code(&bench, &["run"]).0, Some(4));
    let bench = bench
        .set("least_variance_explained = 1.0", "least_variance_explained = 0.1")
        .set("least_faithfulness = 2.0", "least_faithfulness = 0.0");
    bench.run(&[]).succeeded();
    assert!(site(&bench) != before);
}

#[test]
fn a_site_that_lost_pages_is_not_published() {
    let group = "[[groups]]\nname = \"two\"\nfeatures = [\"att1.3\", \"mlp2.5\"]\n";
    let bench = Bench::finished().set(group, "").add("[publish]\nmost_lost = 0.0\n");
    let before = site(&bench);
    let (code, said) = exit_code(&bench, &["run"]);
    assert_eq!(code, Some(4), "{}", said.err);
    assert!(said.error().contains("`publish.most_lost` is 0, "), "{}", said.err);
    assert!(site(&bench) == before);
    let bench = bench.set("most_lost = 0.0", "most_lost = 0.5");
    bench.run(&[]).succeeded();
    assert!(!bench.file("site/groups/two.html").exists());
}

#[test]
fn clean_of_a_stage_keeps_the_published_site() {
    let bench = Bench::finished();
    let before = site(&bench);
    let said = bench.call(&["clean", "score"]).succeeded();
    assert!(site(&bench) == before);
    let told = "render     `site` stays; `circuit-atlas clean render` removes it\n";
    assert!(said.err.contains(told), "{}", said.err);
    assert!(bench.store().read::<CircuitFeature>().is_ok());
    assert!(bench.store().read::<FeatureRow>().is_err());
    bench.run(&[]).succeeded();
    assert!(site(&bench).keys().eq(before.keys()));
    bench.call(&["clean", "render"]).succeeded();
    assert!(!bench.file("site").exists());
}

/// After a kill in a late stage, what the stages before it wrote can be asked, and nothing that is
/// made from what is gone.
#[test]
fn tables_of_finished_stages_are_shown_after_a_kill() {
    let bench = Bench::finished();
    let question: &[&str] = &["show", "task", "ioi", "--json"];
    let lock = bench.file("artifacts/atlas.lock");
    let text = fs::read_to_string(&lock).unwrap();
    let killed = |stage: &str| {
        let mut all: toml::Table = toml::from_str(&text).unwrap();
        let entry = all["stages"][stage].as_table_mut().unwrap();
        entry.insert("finished".into(), "".into());
        entry.insert("fingerprint".into(), "".into());
        fs::write(&lock, toml::to_string(&all).unwrap()).unwrap();
    };
    let whole = bench.call(question).succeeded().out;
    killed("evaluate");
    assert_eq!(bench.call(question).succeeded().out, whole);
    let said = bench.call(&["show", "feature", "att1.3", "--json"]).succeeded();
    let note = "note: `evaluate` has not finished: what is made from it is left out\n";
    assert_eq!(said.err, note);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert!(told["explanation"].is_object() && told["evaluations"] == Value::Array(Vec::new()));
    killed("score");
    assert!(bench.call(question).succeeded().out.contains("\"faithfulness\""));
    let said = bench.call(&["show", "feature", "att1.3"]).failed();
    assert!(said.error().contains("`score` has not finished"), "{}", said.err);
    killed("discover");
    let said = bench.call(question).failed();
    assert!(said.error().contains("`discover` has not finished"), "{}", said.err);
}
