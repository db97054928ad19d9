//! The site's folder: what a user keeps there is never lost.

use crate::bench::{Bench, walk};
use circuit_atlas::artifact::tables::{ExampleRow, FeatureRow, LogitRow, PromptRow};
use circuit_atlas::ids::Side;
use insta::assert_snapshot;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One that has run, and whose site is to be made again.
fn stale() -> Bench {
    Bench::finished().set("\"mlp2.5\"]", "\"mlp2.5\"]\n[site]\ntitle = \"another\"")
}

fn put(bench: &Bench, name: &str, text: &str) {
    let path = bench.file(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Every file of the site with what is in it.
fn files(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    let site = bench.file("site");
    let mut files = BTreeMap::new();
    walk(&site, &mut |path| {
        let name = path.strip_prefix(&site).unwrap().to_str().unwrap().to_string();
        files.insert(name, fs::read(path).unwrap());
    });
    files
}

/// The message of a run that is refused before any stage begins, and that leaves the site as it
/// was.
#[track_caller]
fn refused(bench: &Bench, arguments: &[&str]) -> String {
    let before = files(bench);
    let said = bench.run(arguments).failed();
    assert!(said.ran().is_empty(), "{}", said.err);
    assert!(files(bench) == before, "something of the site was changed");
    said.error().to_string()
}

fn mark(bench: &Bench) -> Value {
    serde_json::from_slice(&fs::read(bench.file("site/atlas.json")).unwrap()).unwrap()
}

/// Whether a site of a version that listed no files had a file of this name.
fn is_old(name: &str) -> bool {
    let root = ["index.html", "glossary.html", "style.css", "atlas.js", "atlas.json", ".nojekyll"];
    let page = name.ends_with(".html") && !name.starts_with("lists/") && !name.starts_with("data/");
    match name.contains('/') {
        true => page || name.starts_with("graphs/"),
        false => root.contains(&name),
    }
}

/// Makes the site one of a version that listed no files.
fn unlisted(bench: &Bench) {
    let mut mark = mark(bench);
    mark.as_object_mut().unwrap().remove("files").unwrap();
    // It had pages and graphs alone, and no others at its root.
    for name in files(bench).into_keys().filter(|name| !is_old(name)) {
        fs::remove_file(bench.file("site").join(name)).unwrap();
    }
    for folder in ["contexts", "data", "lists", "search"] {
        fs::remove_dir_all(bench.file("site").join(folder)).unwrap();
    }
    fs::write(bench.file("site/atlas.json"), mark.to_string()).unwrap();
}

#[test]
fn the_mark_lists_every_file_with_its_hash() {
    let bench = Bench::finished();
    let mut files = files(&bench);
    files.remove("atlas.json").unwrap();
    assert!(files.len() > 50);
    let hash = |bytes: &Vec<u8>| json!(blake3::hash(bytes).to_hex()[..32]);
    let expected: Vec<(String, Value)> =
        files.iter().map(|(name, bytes)| (name.clone(), hash(bytes))).collect();
    let listed = mark(&bench)["files"].as_object().unwrap().clone();
    assert_eq!(listed.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_site_that_nobody_touched_is_made_again() {
    let bench = Bench::finished();
    let before = files(&bench);
    assert_eq!(bench.run(&["render", "--force"]).succeeded().err.matches(" pages in ").count(), 1);
    assert!(before.keys().eq(files(&bench).keys()));
    // A page that is gone is nobody's loss.
    fs::remove_dir_all(bench.file("site/groups")).unwrap();
    fs::create_dir(bench.file("site/groups")).unwrap();
    bench.run(&["render", "--force"]).succeeded();
    assert!(before.keys().eq(files(&bench).keys()));
}

#[test]
fn a_folder_that_is_empty_but_for_nojekyll_is_taken() {
    let bench = Bench::finished();
    fs::remove_dir_all(bench.file("site")).unwrap();
    put(&bench, "site/.nojekyll", "");
    assert_eq!(bench.run(&[]).succeeded().ran(), ["render"]);
}

/// A file or link, or the empty folder, that is a user's.
const OWN: [&str; 8] = [
    "site/.git/HEAD",
    "site/.git/objects/ab/cdef",
    "site/.well-known/security.txt",
    "site/CNAME",
    "site/robots.txt",
    "site/images/logo.png",
    "site/features/notes.html",
    "site/graphs/mine.json",
];

#[track_caller]
fn assert_kept(bench: &Bench, own: &[&str]) {
    for name in own {
        assert_eq!(fs::read_to_string(bench.file(name)).unwrap(), "mine", "{name}");
    }
}

#[test]
fn files_of_a_user_stay_in_the_site() {
    let bench = stale();
    let before = files(&bench);
    OWN.iter().for_each(|name| put(&bench, name, "mine"));
    fs::create_dir(bench.file("site/drafts")).unwrap();
    bench.call(&["check"]).succeeded();
    for arguments in [&[][..], &["render", "--force"], &["render", "--force"]] {
        assert_eq!(bench.run(arguments).succeeded().err.matches(" pages in ").count(), 1);
        assert_kept(&bench, &OWN);
        assert!(bench.file("site/drafts").is_dir());
    }
    // The pages are there, and the manifest lists them alone.
    let after = files(&bench);
    let theirs = |name: &str| OWN.contains(&format!("site/{name}").as_str());
    // A `robots.txt` of theirs stands where ours was.
    let ours = before.keys().filter(|name| !theirs(name));
    assert!(after.keys().filter(|name| !theirs(name)).eq(ours));
    assert!(mark(&bench)["files"].as_object().unwrap().keys().all(|name| !theirs(name)));
    let page = "index.html";
    assert!(after[page] != before[page], "the site was not made again");
    let status = bench.call(&["status"]).succeeded();
    assert!(status.out.contains("render     fresh\n"), "{}", status.out);
}

/// A working copy of git stays one: its history, its index, and what `git status` says.
#[test]
fn a_working_copy_of_git_stays_one() {
    let bench = stale();
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(bench.file("site"));
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.org"]).args(arguments);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "first"]);
    bench.run(&[]).succeeded();
    let changed = git(&["status", "--porcelain"]);
    assert!(changed.lines().any(|line| line == " M index.html"), "{changed}");
    assert!(changed.lines().all(|line| line.starts_with(" M ")), "{changed}");
    git(&["commit", "--quiet", "--all", "--message", "second"]);
    assert_eq!(git(&["log", "--format=%s"]), "second\nfirst\n");
    git(&["fsck", "--strict"]);
}

#[test]
fn a_folder_without_a_site_is_taken_unless_it_has_pages() {
    let bench = Bench::finished();
    fs::remove_dir_all(bench.file("site")).unwrap();
    put(&bench, "site/docs/notes.html", "mine");
    put(&bench, "site/CNAME", "mine");
    assert_snapshot!("folder_with_pages", refused(&bench, &[]));
    fs::remove_dir_all(bench.file("site/docs")).unwrap();
    put(&bench, "site/style.css", "mine");
    assert!(refused(&bench, &[]).contains("would write a site: `style.css`\n"));
    fs::remove_file(bench.file("site/style.css")).unwrap();
    // What git keeps for itself is no page.
    put(&bench, "site/.git/template.html", "mine");
    bench.run(&[]).succeeded();
    assert_kept(&bench, &["site/CNAME", "site/.git/template.html"]);
    assert!(bench.file("site/index.html").exists());
}

#[test]
fn a_page_that_was_removed_is_made_again() {
    let bench = Bench::finished();
    let before = files(&bench);
    for name in ["features/index.html", ".nojekyll"] {
        fs::remove_file(bench.file("site").join(name)).unwrap();
        let status = bench.call(&["status"]).succeeded();
        let why = format!("render     would run: the site in `site` lacks `{name}`");
        assert!(status.out.contains(&why), "{}", status.out);
        assert_eq!(bench.run(&[]).succeeded().ran(), ["render"]);
        assert!(files(&bench).keys().eq(before.keys()));
    }
}

#[test]
fn an_edited_page_is_not_replaced() {
    let bench = stale();
    let page = bench.file("site/tasks/ioi.html");
    let text = fs::read_to_string(&page).unwrap();
    fs::write(&page, text.replacen("</body>", "<p>A note of my own.</p></body>", 1)).unwrap();
    assert_snapshot!("site_with_an_edited_page", refused(&bench, &[]));
    fs::write(&page, text).unwrap();
    assert_eq!(bench.run(&[]).succeeded().ran(), ["render"]);
}

#[cfg(unix)]
#[test]
fn a_link_in_the_site_is_not_replaced() {
    let bench = stale();
    let page = bench.file("site/tasks/ioi.html");
    fs::rename(&page, bench.file("elsewhere.html")).unwrap();
    std::os::unix::fs::symlink(bench.file("elsewhere.html"), &page).unwrap();
    assert!(
        refused(&bench, &[])
            .contains("would write a site: `tasks/ioi.html` (changed since it was written)\n")
    );
    unlisted(&bench);
    assert!(
        refused(&bench, &[])
            .contains("would write a site: `tasks/ioi.html` (changed since it was written)\n")
    );
    bench.call(&["clean"]).succeeded();
    assert!(page.is_symlink() && bench.file("elsewhere.html").exists());
}

#[test]
fn what_a_run_reads_is_not_in_the_site() {
    let prompt = json!({
        "text": "When Mary and John went to the store, John gave a drink to", "correct": " Mary", "counter": " John",
        "corrupted": "When Anna and Peter went to the store, Laura gave a drink \
         to", "template": "t",
    });
    let kind = "kind = \"ioi\"\nprompts = 4";
    let prompts = Bench::new().set(kind, "kind = \"prompts\"\nfile = \"site/prompts.jsonl\"");
    put(&prompts, "site/prompts.jsonl", &prompt.to_string());
    assert_snapshot!("prompts_inside_the_site", refused(&prompts, &[]));

    let published =
        Bench::new().set(kind, "kind = \"ioi\"\nprompts = 4\npublished = \"site/published.json\"");
    put(&published, "site/published.json", "{\"name mover\": [\"L1H1\"]}");
    assert_snapshot!("published_circuit_inside_the_site", refused(&published, &[]));

    let dictionaries = Bench::new().add("[output]\ndictionaries = \"site/converted\"\n");
    fs::create_dir(dictionaries.file("site")).unwrap();
    assert_snapshot!("dictionaries_inside_the_site", refused(&dictionaries, &[]));

    let corpus = Bench::new().set("[repo]/demo/corpus.jsonl", "si*/corpus.jsonl");
    put(&corpus, "site/corpus.jsonl", "{\"text\": \"A whole story about a fish and a pond.\"}\n");
    assert_snapshot!("corpus_inside_the_site", refused(&corpus, &[]));
}

/// A site that looks like ours, by its mark, does not make what a run reads ours.
#[test]
fn prompts_inside_a_site_of_an_older_version_are_kept() {
    let bench = Bench::finished().set(
        "kind = \"ioi\"\nprompts = 4",
        "kind = \"ioi\"\nprompts = 4\npublished = \"site/graphs/p.json\"",
    );
    unlisted(&bench);
    put(&bench, "site/graphs/p.json", "{\"name mover\": [\"L1H1\"]}");
    assert!(refused(&bench, &[]).contains("contains the published circuit of the task `ioi`\n"));
}

#[test]
fn a_site_of_an_older_version_is_made_again() {
    let bench = Bench::finished();
    let before = files(&bench);
    unlisted(&bench);
    bench.run(&["render", "--force"]).succeeded();
    assert!(before.keys().eq(files(&bench).keys()) && mark(&bench)["files"].is_object());

    unlisted(&bench);
    for name in
        ["site/CNAME", "site/notes.html", "site/features/notes.txt", "site/features/old/a.html"]
    {
        put(&bench, name, "mine");
    }
    bench.run(&["render", "--force"]).succeeded();
    assert_kept(
        &bench,
        &["site/CNAME", "site/notes.html", "site/features/notes.txt", "site/features/old/a.html"],
    );
}

#[test]
fn clean_leaves_what_it_did_not_write() {
    let bench = Bench::finished();
    let own = ["site/.git/HEAD", "site/CNAME", "site/features/notes.html", "site/index.html"];
    own.iter().for_each(|name| put(&bench, name, "mine"));
    assert_snapshot!(
        "clean_leaves_foreign_files",
        bench.call(&["clean", "render"]).succeeded().err
    );
    assert_left(&bench, &own);
    // Nor does the next run take the folder for its own.
    assert_snapshot!("site_after_clean", refused(&bench, &[]));
}

#[test]
fn clean_of_an_older_version_leaves_what_cannot_be_ours() {
    let bench = Bench::finished();
    unlisted(&bench);
    let own = ["site/CNAME", "site/features/notes.txt"];
    own.iter().for_each(|name| put(&bench, name, "mine"));
    let said = bench.call(&["clean"]).succeeded();
    assert!(
        said.err.contains(
            "left in `site`, as `render` did not write it: `CNAME`, `features/notes.txt`\n"
        ),
        "{}",
        said.err
    );
    assert_left(&bench, &own);
}

/// The site's folder holds these files, which say that they are a user's, and nothing else.
#[track_caller]
fn assert_left(bench: &Bench, own: &[&str]) {
    let left = files(bench);
    assert!(
        left.keys().map(|name| format!("site/{name}")).eq(own.iter().map(|name| name.to_string())),
        "{left:?}"
    );
    assert!(left.values().all(|bytes| bytes == b"mine"));
    let folders = fs::read_dir(bench.file("site"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_dir());
    let parent = |name: &&str| Path::new(name).components().count() > 2;
    assert_eq!(
        folders.count(),
        own.iter().filter(|name| parent(name)).count(),
        "an empty folder was left"
    );
}

/// How many digits a number has as it is written, without the zeros that only say where the point is.
fn digits(number: &Value) -> usize {
    let text = number.to_string();
    let mantissa = text.split('e').next().unwrap();
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    all.trim_start_matches('0').trim_end_matches('0').len()
}

/// Numbers that are an f32 in a table, as JSON has them.
#[track_caller]
fn same(said: &Value, table: &[f32]) {
    let said = said.as_array().unwrap();
    assert_eq!(said.len(), table.len());
    for (said, &value) in said.iter().zip(table) {
        assert_eq!(said.as_f64().unwrap() as f32, value);
        assert!(digits(said) <= 9, "{said} is not the shortest text of {value}");
    }
}

/// A number that is an f64 in a table: serde_json reads one with many digits to the last bit but one.
#[track_caller]
fn near(said: &Value, table: f64) {
    let said = said.as_f64().unwrap();
    assert!((said - table).abs() <= 4.0 * f64::EPSILON * table.abs(), "{said} is not {table}");
}

/// A field of each object of a list, as a list.
fn each(list: &Value, field: &str) -> Value {
    list.as_array().unwrap().iter().map(|one| one[field].clone()).collect()
}

#[test]
fn json_beside_pages_has_the_numbers_of_the_tables_in_few_digits() {
    let bench = Bench::finished();
    let json = |path: String| -> Value {
        serde_json::from_slice(&fs::read(bench.file(&path)).unwrap()).unwrap()
    };
    let (examples, logits) = (bench.table::<ExampleRow>(), bench.table::<LogitRow>());
    let (mut windows, mut tokens) = (0, 0);
    for row in bench.table::<FeatureRow>().iter().filter(|row| row.page) {
        let said = json(format!("site/features/{}.json", row.feature));
        same(&json!([said["max"]]), &[row.max]);
        near(&said["density"], row.density);
        for (name, side) in [("promoted", Side::Top), ("suppressed", Side::Bottom)] {
            let own = logits.iter().filter(|l| l.subject == row.feature.into() && l.side == side);
            let own: Vec<&LogitRow> = own.collect();
            same(&each(&said[name], "logit"), &own.iter().map(|l| l.logit).collect::<Vec<_>>());
            for (said, row) in said[name].as_array().unwrap().iter().zip(&own) {
                near(&said["z"], row.z);
            }
        }
        for example in said["examples"].as_array().unwrap() {
            let is_it = |e: &&ExampleRow| {
                e.subject == row.feature.into()
                    && json!([e.context, e.peak, e.band.to_string()])
                        == json!([example["context"], example["position"], example["band"]])
            };
            let of = examples.iter().find(is_it).unwrap();
            same(&json!([example["value"]]), &[of.value]);
            // Tokens that share a character are one piece.
            let values = example["pieces"]["value"].as_array().unwrap();
            match values.len() == of.tokens.len() {
                true => same(&json!(values), &of.activations),
                false => values.iter().for_each(|value| {
                    let is_it = |x: &&f32| value.as_f64().unwrap() as f32 == **x;
                    same(&json!([value]), &[*of.activations.iter().find(is_it).unwrap()]);
                }),
            }
            tokens += usize::from(values.len() == of.tokens.len());
            let active = example["active"].as_array().unwrap().iter();
            same(&active.map(|at| at[1].clone()).collect(), &of.active_values);
            windows += 1;
        }
    }
    assert!(tokens > windows / 2, "{tokens} of {windows} examples were looked at token by token");
    let prompts = bench.table::<PromptRow>();
    for task in ["ioi", "greater-than"] {
        let said = json(format!("site/tasks/{task}.json"));
        let own = prompts.iter().filter(|prompt| prompt.task == task);
        for (said, row) in said["prompts"].as_array().unwrap().iter().zip(own) {
            let answers = said["answers"].as_array().unwrap().iter();
            same(&answers.map(|one| one[1].clone()).collect(), &row.answer_probabilities);
        }
    }
}
