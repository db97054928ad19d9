//! What a run writes: nothing of the user's is touched, and nothing damaged is believed.

use crate::bench::{Bench, walk};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn put(bench: &Bench, name: &str, text: &str) {
    let path = bench.file(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The message of a run that is refused before any stage begins, with a file of the user as it was.
#[track_caller]
fn refused(bench: &Bench, arguments: &[&str], mine: &str) -> String {
    let said = bench.run(arguments).failed();
    assert!(said.ran().is_empty(), "{}", said.err);
    assert_eq!(fs::read_to_string(bench.file(mine)).unwrap(), "mine");
    said.error().to_string()
}

/// Flips a bit of a file and leaves its times as they were.
fn flip(path: &Path, at: usize, bit: u8) {
    let modified = path.metadata().unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

/// Makes the lock take every table for untouched as long as its size and time stay what they are: a
/// copy has other times than the run that wrote it.
fn trust(bench: &Bench) {
    let path = bench.file("artifacts/atlas.lock");
    let mut lock: toml::Table = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (_, stage) in lock["stages"].as_table_mut().unwrap() {
        for (name, stamp) in stage["files"].as_table_mut().unwrap() {
            let metadata = bench.file("artifacts").join(name).metadata().unwrap();
            let since = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            stamp["modified"] = i64::try_from(since.as_nanos()).unwrap().into();
        }
    }
    fs::write(path, toml::to_string(&lock).unwrap()).unwrap();
}

/// Files below a folder whose names end so.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(folder, &mut |path| {
        if path.to_str().unwrap().ends_with(ending) {
            found.push(path.to_path_buf());
        }
    });
    found
}

#[test]
fn files_of_a_user_under_the_names_of_tables_are_not_replaced() {
    let named = |name: &str| {
        format!("`[folder]/{name}` was not written by this program and would be overwritten")
    };
    for name in ["artifacts/features.parquet", "artifacts/scores/part-00009.parquet"] {
        let bench = Bench::finished().set("\"att1.3\"", "\"att1.4\"");
        put(&bench, name, "mine");
        for arguments in [&[][..], &["score", "aggregate", "--force"]] {
            let error = refused(&bench, arguments, name);
            assert!(error.contains(&named(name)), "{error}");
            assert!(error.contains("hint: move it elsewhere"), "{error}");
        }
        let error = bench.call(&["check"]).failed();
        assert!(error.error().contains(&named(name)), "{}", error.err);
        let said = bench.call(&["clean"]).succeeded();
        let left = format!(
            "left in `artifacts`, as this program did not write it: `{}`\n",
            name.trim_start_matches("artifacts/")
        );
        assert!(said.err.contains(&left), "{}", said.err);
        assert_eq!(fs::read_to_string(bench.file(name)).unwrap(), "mine");
    }
    // Beside them: a name that only looks as if a killed run had left it.
    for name in ["artifacts/.features.parquet.tmp", "artifacts/scores/.part-00000.parquet.tmp"] {
        let bench = Bench::finished();
        put(&bench, name, "mine");
        bench.call(&["run", "score", "aggregate", "--force"]).succeeded();
        bench.call(&["clean"]).succeeded();
        assert_eq!(fs::read_to_string(bench.file(name)).unwrap(), "mine");
    }
    // Before there is any run, and where a folder is to be.
    for name in ["artifacts/documents.parquet", "artifacts/tokens"] {
        let bench = Bench::new();
        put(&bench, name, "mine");
        let error = refused(&bench, &[], name);
        assert!(error.contains(&named(name)), "{error}");
    }
}

#[test]
fn files_of_a_user_beside_the_site_are_not_touched() {
    for name in [".site.new/notes.txt", ".site.old/index.html"] {
        let bench = Bench::finished().set("\"mlp2.5\"]", "\"mlp2.5\"]\n[site]\ntitle = \"x\"");
        put(&bench, name, "mine");
        let error = refused(&bench, &[], name);
        let folder = name.split('/').next().unwrap();
        assert!(error.contains(&format!("`[folder]/{folder}` contains files that")), "{error}");
        assert_eq!(bench.call(&["check"]).failed().error(), error);
        let said = bench.call(&["clean"]).succeeded();
        assert!(said.err.contains(&format!("`{}/{folder}`", "[folder]")), "{}", said.err);
        assert_eq!(fs::read_to_string(bench.file(name)).unwrap(), "mine");
        assert!(!bench.file("site").exists());
        // The command that the error names is all that is needed.
        let (_, rest) = error.split_once("remove it with `").unwrap();
        let command =
            rest.split('`').next().unwrap().replace("[folder]", bench.path().to_str().unwrap());
        let removed = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(removed.success() && !bench.file(folder).exists(), "{command}");
        bench.call(&["check"]).succeeded();
    }
}

#[test]
fn a_file_of_a_user_under_the_name_of_a_converted_dictionary_is_not_replaced() {
    let converted = files(&Bench::finished().file("artifacts/dictionaries"), ".safetensors");
    let own = converted[0].file_name().unwrap().to_str().unwrap();
    let name = format!("artifacts/dictionaries/{own}");
    let bench = Bench::new();
    put(&bench, &name, "mine");
    put(&bench, "artifacts/dictionaries/att0-0123456789abcdef.safetensors", "mine too");
    let error = refused(&bench, &[], &name);
    let why = format!("`[folder]/{name}` is not a converted dictionary of this program");
    assert!(error.contains(&why), "{error}");
    // `check` says the same before it converts any, and does not take it for one that is damaged.
    let said = bench.call(&["check"]).failed();
    assert_eq!(said.error(), error);
    assert!(!said.err.contains("is damaged"), "{}", said.err);
    assert_eq!(files(&bench.file("artifacts/dictionaries"), ".safetensors").len(), 2);
    bench.call(&["clean"]).succeeded();
    assert_eq!(fs::read_to_string(bench.file(&name)).unwrap(), "mine");
    assert!(bench.file("artifacts/dictionaries/att0-0123456789abcdef.safetensors").exists());
}

#[test]
fn no_input_is_inside_an_output() {
    let prompts = "kind = \"ioi\"\nprompts = 4";
    let cases: [(&str, &str, &str, &str); 7] = [
        (
            "\"[repo]/demo/model\"",
            "\"out/model\"",
            "[output]\nartifacts = \"out\"\n",
            "`output.artifacts` contains inputs of the run: `[folder]/out/model`",
        ),
        (
            "\"[repo]/demo/corpus.jsonl\"",
            "\"out/corpus.jsonl\"",
            "[output]\nartifacts = \"out\"\n",
            "`output.artifacts` contains inputs of the run: `[folder]/out/corpus.jsonl`",
        ),
        (
            "\"[repo]/demo/transcoder\"",
            "\"out\"",
            "[output]\ndictionaries = \"out\"\n",
            "`output.dictionaries` contains inputs of the run: `[folder]/out`",
        ),
        (
            prompts,
            "kind = \"prompts\"\nfile = \"out/prompts.jsonl\"",
            "[output]\ndictionaries = \"out\"\n",
            "`output.dictionaries` contains the prompts of the task `ioi`",
        ),
        (
            prompts,
            "kind = \"ioi\"\nprompts = 4\npublished = \"out/circuit.json\"",
            "[output]\nartifacts = \"out\"\n",
            "`output.artifacts` contains the published circuit of the task `ioi`",
        ),
        (
            prompts,
            prompts,
            "[output]\nartifacts = \".\"\n",
            "`output.artifacts` contains the settings",
        ),
        (
            "\"[repo]/demo/corpus.jsonl\"",
            "\"texts\"",
            "[output]\nartifacts = \"texts/artifacts\"\n",
            "`output.artifacts` is inside the folder of the corpus, `[folder]/texts`, and would be \
             read as part of it",
        ),
    ];
    for (from, to, output, why) in cases {
        let bench = Bench::new().set(from, to).add(output);
        fs::create_dir(bench.file("texts")).unwrap();
        let before = fs::read_dir(bench.path()).unwrap().count();
        let said = bench.run(&[]).failed();
        assert!(said.ran().is_empty() && said.error().contains(why), "{}", said.err);
        assert!(said.error().contains("hint: set `output."), "{}", said.err);
        assert_eq!(fs::read_dir(bench.path()).unwrap().count(), before, "something was written");
    }
}

#[cfg(unix)]
#[test]
fn a_site_that_is_a_link_stays_one() {
    let bench = Bench::finished().set("\"mlp2.5\"]", "\"mlp2.5\"]\n[site]\ntitle = \"x\"");
    fs::create_dir(bench.file("www")).unwrap();
    fs::rename(bench.file("site"), bench.file("www/atlas")).unwrap();
    std::os::unix::fs::symlink("www/atlas", bench.file("site")).unwrap();
    bench.run(&[]).succeeded();
    assert!(bench.file("site").is_symlink());
    assert!(fs::read_to_string(bench.file("www/atlas/index.html")).unwrap().contains("<title>x"));
    let left: Vec<_> = fs::read_dir(bench.file("www")).unwrap().collect();
    assert_eq!(left.len(), 1, "something was left beside the site: {left:?}");
    bench.call(&["clean"]).succeeded();
    assert!(bench.file("site").is_symlink() && !bench.file("site/index.html").exists());
    fs::remove_dir_all(bench.file("www/atlas")).ok();
    let error = bench.run(&[]).failed();
    let why = "`[folder]/site` is a link to a folder that is not there";
    assert!(error.error().contains(why) && error.ran().is_empty(), "{}", error.err);
}

/// Kills `render` at any time, twice in a row, with `clean` or the removal of the site in between:
/// there is always a whole site or, where somebody removed it, none.
#[test]
fn a_site_is_whole_whenever_render_is_killed() {
    let bench = Bench::finished();
    let whole = |bench: &Bench| {
        let mark = fs::read(bench.file("site/atlas.json")).unwrap();
        let mark: serde_json::Value = serde_json::from_slice(&mark).unwrap();
        for (name, hash) in mark["files"].as_object().unwrap() {
            let bytes = fs::read(bench.file("site").join(name)).unwrap();
            assert_eq!(*hash, blake3::hash(&bytes).to_hex()[..32], "{name}");
        }
    };
    let start = std::time::Instant::now();
    bench.run(&["render", "--force"]).succeeded();
    let takes = start.elapsed();
    let killed = |share: u32| {
        let arguments = ["run", "render", "--force"];
        let mut run = bench.command(&arguments).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(takes * share / 24);
        run.kill().unwrap();
        run.wait().unwrap();
    };
    for share in 1..28 {
        killed(share);
        whole(&bench);
        killed(share + 1);
        whole(&bench);
    }
    for removed in ["clean", "rm"] {
        killed(20);
        match removed {
            "clean" => drop(bench.call(&["clean", "render"]).succeeded()),
            _ => fs::remove_dir_all(bench.file("site")).unwrap(),
        }
        assert!(!bench.file("site").exists());
        killed(22);
        assert!(!bench.file("site").exists() || bench.file("site/atlas.json").exists());
        bench.run(&[]).succeeded();
        whole(&bench);
    }
    let names: Vec<String> = fs::read_dir(bench.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".site"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn two_settings_that_share_a_site_wait_for_each_other() {
    let one = Bench::finished();
    let site = one.file("site").to_str().unwrap().to_string();
    let others: Vec<Bench> = (0..2)
        .map(|i| {
            let titled = format!("\"mlp2.5\"]\n[site]\ntitle = \"number {i}\"");
            Bench::finished()
                .set("\"mlp2.5\"]", &titled)
                .add(&format!("\n[output]\nsite = \"{site}\"\n"))
        })
        .collect();
    let runs: Vec<_> = others
        .iter()
        .map(|bench| bench.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(one.page("index.html").contains("<title>number "));
    assert!(!one.file(".site.lock").exists() && !one.file(".site.new").exists());
}

#[test]
fn clean_leaves_converted_dictionaries_that_others_may_use() {
    let bench = Bench::new().add("[output]\ndictionaries = \"shared\"\n");
    bench.run(&["tokenize", "measure"]).succeeded();
    let before = files(&bench.file("shared"), ".safetensors");
    assert_eq!(before.len(), 8);
    let said = bench.call(&["clean"]).succeeded();
    let left = "left in `shared`, as other runs may use it: converted dictionaries\n";
    assert!(said.err.contains(left), "{}", said.err);
    assert_eq!(files(&bench.file("shared"), ".safetensors"), before);
    let own = Bench::finished();
    own.call(&["clean"]).succeeded();
    assert!(!own.file("artifacts/dictionaries").exists());
}

#[test]
fn a_damaged_converted_dictionary_is_made_again() {
    let bench = Bench::finished();
    let before = bench.results();
    let converted = files(&bench.file("artifacts/dictionaries"), ".safetensors");
    // The top bit of an exponent, of some encoder's weight.
    flip(&converted[3], 40_003, 6);
    let said = bench.run(&["score", "--force"]).succeeded();
    let name = converted[3].file_name().unwrap().to_str().unwrap();
    let note =
        format!("note: `[folder]/artifacts/dictionaries/{name}` is damaged; it is converted");
    assert!(said.err.contains(&note), "{}", said.err);
    assert!(bench.results() == before, "the results differ");
    // Anywhere: the header, the middle, the hashes at the end.
    for at in [3, 20, 700, 123_456, converted[0].metadata().unwrap().len() as usize - 5] {
        flip(&converted[0], at, 2);
        let said = bench.run(&["measure", "--force"]).succeeded();
        assert!(said.err.contains("is damaged; it is converted again from"), "{at}: {}", said.err);
        assert!(bench.results() == before, "{at}: the results differ");
    }
}

#[test]
fn a_flipped_bit_of_any_table_is_told_with_what_to_run() {
    use circuit_atlas::artifact::{Artifact, Store};
    use circuit_atlas::pipeline::STAGES;
    let bench = Bench::finished();
    let mut store = Store::new(&bench.file("artifacts"));
    let tables: Vec<Artifact> = STAGES.iter().flat_map(|stage| stage.writes()).copied().collect();
    tables.iter().for_each(|table| store.expect(table, "another", "stage"));
    let mut tried = 0;
    for table in &tables {
        for name in store.files(table) {
            let path = bench.file("artifacts").join(&name);
            let whole = fs::read(&path).unwrap();
            let n = whole.len();
            for at in [0, 4, n / 5, n / 2, n - n / 7, n - 300, n - 40, n - 8, n - 1] {
                flip(&path, at, (at % 8) as u8);
                let error = circuit_atlas::error::report(&store.open(&path, table).err().unwrap());
                assert!(error.contains(path.to_str().unwrap()), "{at} of {name}: {error}");
                assert!(
                    error.contains("hint: rerun with `circuit-atlas run stage --force`"),
                    "{at} of {name}: {error}"
                );
                fs::write(&path, &whole).unwrap();
                tried += 1;
            }
        }
    }
    assert!(tried > 9 * 30, "{tried}");
}

#[test]
fn reading_verifies_whatever_the_times_say() {
    let bench = Bench::finished();
    trust(&bench);
    let middle = |name: &str| {
        let path = bench.file("artifacts").join(name);
        let half = path.metadata().unwrap().len() as usize / 2;
        (path, half)
    };
    let (features, at) = middle("features.parquet");
    flip(&features, at, 3);
    let why = "`[folder]/artifacts/features.parquet` is damaged: its content does not match its hash\n\
               hint: rerun with `circuit-atlas run aggregate --force`";
    for arguments in [&["show", "feature", "att1.3"][..], &["run", "render", "--force"]] {
        let said = bench.call(arguments).failed();
        assert!(said.error().contains(why), "{arguments:?}: {}", said.err);
    }
    bench.run(&["aggregate", "--force"]).succeeded();
    bench.call(&["show", "feature", "att1.3"]).succeeded();
    // A part of activations, which is read in pieces; and one of a run that was killed.
    let (part, at) = middle("activations/part-00002.parquet");
    flip(&part, at, 0);
    let said = bench.run(&["score", "--force"]).failed();
    assert!(
        said.error().contains("activations/part-00002.parquet` is damaged")
            && said.error().contains("run cache --force"),
        "{}",
        said.err
    );
    bench.run(&["cache", "--force"]).succeeded();
    let (part, at) = middle("scores/part-00001.parquet");
    flip(&part, at, 0);
    // As the lock is when `score` was killed behind that part.
    let path = bench.file("artifacts/atlas.lock");
    let mut lock: toml::Table = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    lock["stages"]["score"]["finished"] = "".into();
    fs::write(path, toml::to_string(&lock).unwrap()).unwrap();
    bench.run(&[]).succeeded();
    // The damaged part was made again.
    bench.assert_same_results(&Bench::finished());
}

#[test]
fn an_atlas_without_features_or_with_an_empty_half_is_warned_of() {
    let groups = "[[groups]]\nname = \"two\"\nfeatures = [\"att1.3\", \"mlp2.5\"]\n";
    let warned = |bench: &Bench, arguments: &[&str], why: &str| {
        let said = bench.call(&["check"]).succeeded();
        assert!(said.out.contains(&format!("\nwarning    {why}")), "{}", said.out);
        let said = bench.run(arguments).succeeded();
        assert!(said.err.contains(&format!("warning: {why}")), "{}", said.err);
    };
    let none = Bench::finished().set(groups, "[score]\nfeatures = \"none\"\n");
    warned(&none, &[], "no feature is scored: `score.features` is `none`");

    let one = Bench::new().set("[repo]/demo/corpus.jsonl", "one.jsonl");
    put(&one, "one.jsonl", "{\"text\": \"A whole story about a fish and a pond, and a boat.\"}\n");
    let said = one.run(&["tokenize"]).succeeded();
    assert!(said.err.contains("warning: no context is in the half `"), "{}", said.err);
}

#[test]
fn circuits_without_components_are_refused() {
    let allow = |kinds: &str| {
        let bench = Bench::new().set("passes = 2", &format!("passes = 2\nallow = [{kinds}]"));
        let said = bench.call(&["check"]).succeeded();
        let why = "warning    `discover.allow` has no kind of feature (attention_feature, \
                   mlp_feature): circuits have none\n";
        assert!(said.out.contains(why), "{}", said.out);
        let said = bench.run(&[]).failed();
        let why = "no circuit of any task has a head or an MLP\nhint: check `discover.allow`";
        assert!(said.error().contains(why), "{}", said.err);
    };
    allow("\"embedding\", \"position_embedding\"");
}
