//! What a user is told who gets something wrong: the message names the file or key and the next
//! step, and nothing half-written stands under its real name.

use crate::bench::{Bench, REPOSITORY, Said, copy, skipped, walk};
use insta::assert_snapshot;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs, checks that it fails and leaves no scratch file behind, and gives the message.
#[track_caller]
fn refused(bench: &Bench) -> String {
    let said = bench.run(&[]).failed();
    if bench.file("artifacts").is_dir() {
        walk(&bench.file("artifacts"), &mut |path| {
            assert!(
                path.extension().is_none_or(|e| e != "tmp"),
                "{} was left behind",
                path.display()
            );
        });
    }
    said.error().to_string()
}

/// Copies a folder of the demo into the bench's own.
fn own(bench: &Bench, name: &str) -> PathBuf {
    copy(&Path::new(REPOSITORY).join("demo").join(name), &bench.file(name));
    bench.file(name)
}

fn with_own_model() -> (Bench, PathBuf) {
    let bench = Bench::new().set("\"[repo]/demo/model\"", "\"model\"");
    let model = own(&bench, "model");
    (bench, model)
}

fn with_own_saes() -> (Bench, PathBuf) {
    let bench = Bench::new().set("\"[repo]/demo/attention_sae\"", "\"attention_sae\"");
    let folder = own(&bench, "attention_sae");
    (bench, folder)
}

/// A bench whose corpus is a file of this name with this content.
fn with_corpus(name: &str, content: &[u8]) -> Bench {
    let bench = Bench::new().set("\"[repo]/demo/corpus.jsonl\"", &format!("\"{name}\""));
    std::fs::write(bench.file(name), content).unwrap();
    bench
}

#[test]
fn settings_unknown_or_misspelt() {
    assert_snapshot!("unknown_table", refused(&Bench::new().add("[scroe]\nextra = []\n")));
    assert_snapshot!("misspelt_key", refused(&Bench::new().set("passes = 2", "pases = 2")));
    assert_snapshot!("wrong_type", refused(&Bench::new().set("passes = 2", "passes = \"two\"")));
    assert_snapshot!(
        "missing_table",
        refused(&Bench::new().set("[model]\npath = \"[repo]/demo/model\"", ""))
    );
    let none = Command::new(env!("CARGO_BIN_EXE_circuit-atlas"))
        .args(["run", "--config", "nowhere.toml"])
        .output();
    assert_snapshot!("no_settings", Bench::new().said(none.unwrap()).failed().error());
    assert_snapshot!("unknown_stage", Bench::new().run(&["scores"]).failed().error());
}

#[test]
fn settings_out_of_range() {
    let cases = [
        ("range_passes", "passes = 2", "passes = 0"),
        ("range_context", "max_contexts = 96", "context = 1"),
        ("range_allow", "passes = 2", "allow = [\"attention_feature\", \"neuron\"]"),
        ("range_task_name", "name = \"ioi\"", "name = \"../ioi\""),
        ("range_same_names", "name = \"greater-than\"", "name = \"ioi\""),
        ("range_group_feature", "\"mlp2.5\"", "\"mlp2.x\""),
        ("range_group_feature_number", "\"mlp2.5\"", "\"mlp2.4096\""),
        (
            "range_coverage",
            "method = \"greedy\"\npasses = 2",
            "method = \"influence\"\ncoverage = 1.5",
        ),
        ("range_nodes", "passes = 2", "nodes = 0"),
        ("range_wrong", "kind = \"ioi\"", "kind = \"ioi\"\nwrong = \"drop\""),
        ("context_longer_than_model", "max_contexts = 96", "max_contexts = 96\ncontext = 129"),
    ];
    for (name, from, to) in cases {
        assert_snapshot!(name, refused(&Bench::new().set(from, to)));
    }
    assert_snapshot!("range_cache", refused(&Bench::new().add("[cache]\nmax_gib = 0.001\n")));
}

#[test]
fn settings_of_a_language_model() {
    let cases = [
        ("llm_without_model", "provider = \"openai\""),
        (
            "llm_with_password",
            "provider = \"openai\"\nmodel = \"m\"\nbase_url = \"http://me:secret@host/v1\"",
        ),
        ("llm_no_address", "provider = \"openai\"\nmodel = \"m\"\nbase_url = \"localhost:80/v1\""),
        (
            "llm_azure",
            "provider = \"azure\"\nmodel = \"m\"\nbase_url = \"https://name.openai.azure.com\"",
        ),
        ("llm_same_samples", "provider = \"openai\"\nmodel = \"m\"\nsamples = 3"),
        ("llm_no_price", "provider = \"openai\"\nmodel = \"m\"\nmax_cost = 2.0"),
        (
            "llm_key_for_its_name",
            "provider = \"openai\"\nmodel = \"m\"\napi_key_env = \"sk-proj-secret\"",
        ),
        ("llm_odd_price", "provider = \"openai\"\nmodel = \"m\"\n[llm.prices]\nm = [1.0, -2.0]"),
    ];
    for (name, settings) in cases {
        let said = refused(&Bench::new().add(&format!("[llm]\n{settings}\n")));
        assert!(!said.contains("secret"));
        assert_snapshot!(name, said);
    }
    assert_snapshot!(
        "llm_no_judge",
        refused(&Bench::new().add("[evaluate]\nmethods = [\"detection\"]\n"))
    );
}

/// Whatever somebody writes into the settings that may be a key, no message repeats it.
#[test]
fn a_key_in_the_settings_is_not_repeated() {
    let key = "sk-proj-Abc123Def456Ghi789";
    for settings in [
        format!("api_key = \"{key}\""),
        format!("api_key = '{key}'"),
        format!("api_key = {key}"),
        format!("api_key = \"{key}"),
        format!("key = \"{key}\""),
        "password = \"Abc123Def\"".into(),
        format!("api_key_env = \"{key}\""),
        format!("api_key_env = \"{}\"", &key[8..].repeat(2)),
        format!("api_key_env = [\"{key}\"]"),
        format!("max_tokens = \"{key}\""),
        format!("model = {key}"),
        format!("{key} = 1"),
        format!("replies = \"{key}\""),
        format!("headers = {{ Authorization = \"Bearer {}\" }}", &key[8..14]),
    ] {
        let text = format!("[llm]\nprovider = \"openai\"\nmodel = \"m\"\n{settings}\n");
        let text =
            if settings.starts_with("model") { text.replace("model = \"m\"\n", "") } else { text };
        let said = refused(&Bench::new().add(&text));
        for part in ["Abc123", "Ghi789"] {
            assert!(!said.contains(part), "{settings}: {said}");
        }
        assert!(said.contains("environment variable"), "{settings}: {said}");
    }
    let said = refused(&Bench::new().add("[llm]\napi_key = \"abc-12\"\n"));
    assert!(said.contains("unknown field `api_key`") && said.contains("\"xxxx11\""), "{said}");
}

#[test]
fn stages_that_contradict_each_other() {
    let bench = Bench::new();
    let said = bench.run(&["--from", "score", "score", "tokenize"]).failed();
    assert_eq!(
        said.error(),
        "error: `tokenize` is before `score`, so that `--from score` leaves it out\n\
         hint: name `score` and stages after it, or leave out `--from`\n"
    );
    let said = bench.run(&["--from", "scores"]).failed();
    assert!(said.error().starts_with("error: `scores` is not a stage\n"), "{}", said.error());
    let said = bench.run(&["--accept-failed", "--again", "failed"]).failed();
    assert!(said.error().contains("cannot be used with"), "{}", said.error());
}

#[test]
fn model_files_missing_or_damaged() {
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let (bench, model) = with_own_model();
        std::fs::remove_file(model.join(name)).unwrap();
        assert_snapshot!(format!("missing_{}", name.split('.').next().unwrap()), refused(&bench));
    }
    let (bench, model) = with_own_model();
    let weights = model.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert_snapshot!("truncated_weights", refused(&bench));
    std::fs::write(&weights, with_nan(&bytes)).unwrap();
    assert_snapshot!("nan_weights", refused(&bench));
}

/// The half-precision weights with their last number not one.
fn with_nan(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&[0x00, 0x7e]);
    bytes
}

#[test]
fn a_tokenizer_of_another_model() {
    let (bench, model) = with_own_model();
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    let smaller = config.replace("\"vocab_size\": 2560", "\"vocab_size\": 2000");
    assert_ne!(config, smaller);
    std::fs::write(model.join("config.json"), smaller).unwrap();
    assert_snapshot!("tokenizer_too_large", refused(&bench));
}

#[test]
fn dictionaries_of_another_layer_or_width() {
    let (bench, folder) = with_own_saes();
    let [one, two] = [1, 2].map(|layer| folder.join(format!("blocks.{layer}.attn.hook_z")));
    std::fs::copy(one.join("cfg.json"), two.join("cfg.json")).unwrap();
    assert_snapshot!("dictionary_of_another_layer", refused(&bench));

    let (bench, folder) = with_own_saes();
    std::fs::remove_dir_all(folder.join("blocks.2.attn.hook_z")).unwrap();
    assert_snapshot!("dictionary_missing", refused(&bench));

    let (bench, folder) = with_own_saes();
    let weights = folder.join("blocks.2.attn.hook_z/sae_weights.safetensors");
    narrow(&weights, 64);
    assert_snapshot!("dictionary_of_another_width", refused(&bench));

    let (bench, folder) = with_own_saes();
    let weights = folder.join("blocks.2.attn.hook_z/sae_weights.safetensors");
    std::fs::write(&weights, with_nan(&std::fs::read(&weights).unwrap())).unwrap();
    assert_snapshot!("dictionary_nan", refused(&bench));

    // The weights of another layer under a right name and config: found by what they explain.
    let (bench, folder) = with_own_saes();
    let [from, to] = [0, 3]
        .map(|layer| folder.join(format!("blocks.{layer}.attn.hook_z/sae_weights.safetensors")));
    std::fs::copy(from, to).unwrap();
    let said = refused(&bench);
    let number = |text: &str, before: &str| {
        text.split_once(before).unwrap().1.split(' ').next().unwrap().to_string()
    };
    let others = number(&said, "dictionaries is ").replace("),", "");
    let numbers = [number(&said, "explains "), number(&said, "but "), others];
    let said = numbers.iter().fold(said, |said, number| said.replace(number, "[number]"));
    assert_snapshot!("dictionary_wrong_weights", said);

    let bench = Bench::new().set("demo/attention_sae", "demo/transcoder");
    assert_snapshot!("dictionary_of_another_kind", refused(&bench));
}

/// Rewrites a dictionary as one of a model of another width.
fn narrow(path: &Path, d: usize) {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let views = file.tensors().into_iter().map(|(name, view)| {
        let shape: Vec<usize> = view.shape().iter().map(|&n| if n == 96 { d } else { n }).collect();
        let size = shape.iter().product::<usize>() * 2;
        let half = safetensors::Dtype::F16;
        (name, safetensors::tensor::TensorView::new(half, shape, &view.data()[..size]).unwrap())
    });
    let narrowed = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    std::fs::write(path, narrowed).unwrap();
}

#[test]
fn corpora_that_cannot_be_read() {
    let line = |text: &str| format!("{}\n", serde_json::json!({ "text": text }));
    assert_snapshot!("empty_corpus", refused(&with_corpus("corpus.jsonl", b"")));
    assert_snapshot!(
        "short_corpus",
        refused(&with_corpus("corpus.jsonl", line("Too short.").as_bytes()))
    );
    let other = "{\"body\": \"A story.\", \"id\": 3}\n";
    assert_snapshot!("no_column", refused(&with_corpus("corpus.jsonl", other.as_bytes())));
    let broken = format!("{}{{\"text\": \"half", line("A whole story about a fish and a pond."));
    assert_snapshot!("broken_line", refused(&with_corpus("corpus.jsonl", broken.as_bytes())));
    let mut bytes = line("A whole story about a fish.").into_bytes();
    bytes.extend(b"{\"text\": \"caf\xe9\"}\n");
    assert_snapshot!("not_utf8_jsonl", refused(&with_corpus("corpus.jsonl", &bytes)));
    assert_snapshot!(
        "not_utf8_txt",
        refused(&with_corpus("corpus.txt", b"a caf\xe9 on the corner"))
    );
    assert_snapshot!("unknown_extension", refused(&with_corpus("corpus.docx", b"?")));
    assert_snapshot!(
        "no_file",
        refused(&Bench::new().set("demo/corpus.jsonl", "demo/nothing.jsonl"))
    );
}

#[test]
fn prompts_that_cannot_be_used() {
    let with = |content: &str| {
        let bench =
            Bench::new().set("kind = \"ioi\"", "kind = \"prompts\"\nfile = \"prompts.jsonl\"");
        std::fs::write(bench.file("prompts.jsonl"), content).unwrap();
        refused(&bench)
    };
    assert_snapshot!("prompts_broken", with("{\"text\": 3}\n"));
    let prompt = |correct: &str, corrupted: &str| {
        let text = "When Mary and John went to the store, John gave a drink to";
        let prompt = serde_json::json!({
            "text": text, "correct": correct, "counter": " John", "template": "t", "corrupted": corrupted,
        });
        format!("{prompt}\n")
    };
    let whole = "When Anna and Peter went to the store, Laura gave a drink to";
    assert_snapshot!("prompts_two_tokens", with(&prompt(" Mary John", whole)));
    assert_snapshot!(
        "prompts_other_length",
        with(&prompt(" Mary", "When Anna and Peter went home"))
    );
    assert_snapshot!(
        "prompts_no_file",
        refused(&Bench::new().set("kind = \"ioi\"", "kind = \"prompts\""))
    );
}

#[test]
fn outputs_that_cannot_be_written() {
    let bench = Bench::new();
    std::fs::write(bench.file("artifacts"), "a file").unwrap();
    assert_snapshot!("artifacts_is_a_file", refused(&bench));

    let bench = Bench::finished()
        .set("\"mlp2.5\"]", "\"mlp2.5\"]\n[site]\ntitle = \"x\"\n[output]\nsite = \"mine\"");
    std::fs::create_dir(bench.file("mine")).unwrap();
    std::fs::write(bench.file("mine/thesis.htm"), "years of work").unwrap();
    assert_snapshot!("site_of_somebody_else", refused(&bench));
    assert_eq!(std::fs::read_to_string(bench.file("mine/thesis.htm")).unwrap(), "years of work");
}

#[test]
fn nothing_of_a_user_is_destroyed() {
    let outputs = |artifacts: &str, site: &str| {
        format!("[output]\nartifacts = \"{artifacts}\"\nsite = \"{site}\"\n")
    };
    assert_snapshot!(
        "artifacts_inside_the_site",
        refused(&Bench::new().add(&outputs("site/data", "site")))
    );
    assert_snapshot!(
        "site_inside_the_artifacts",
        refused(&Bench::new().add(&outputs("out", "out/site")))
    );
    assert_snapshot!(
        "site_is_where_the_settings_are",
        refused(&Bench::new().add(&outputs("artifacts", ".")))
    );

    // A file of the mark's name that is not ours does not make the folder ours.
    let bench = Bench::new().add(&outputs("artifacts", "mine"));
    std::fs::create_dir(bench.file("mine")).unwrap();
    std::fs::write(bench.file("mine/atlas.json"), "{\"frames\": []}").unwrap();
    assert_snapshot!("site_with_a_foreign_mark", refused(&bench));
    bench.call(&["clean"]).succeeded();
    assert!(bench.file("mine/atlas.json").exists());

    let bench = Bench::finished();
    std::fs::write(bench.file("artifacts/activations/notes.txt"), "mine").unwrap();
    // What a killed run leaves is ours.
    let unfinished = bench.file("artifacts/scores/.part-00007.parquet.circuit-atlas.tmp");
    std::fs::write(&unfinished, "half").unwrap();
    bench.call(&["clean"]).succeeded();
    assert!(bench.file("artifacts/activations/notes.txt").exists());
    assert!(!bench.file("artifacts/activations/part-00000.parquet").exists());
    assert!(!unfinished.exists());
}

#[test]
fn a_part_too_many_is_not_taken_for_one_of_ours() {
    let bench = Bench::finished().set("examples = 4", "examples = 5");
    let part = |n: u32| bench.file(&format!("artifacts/scores/part-0000{n}.parquet"));
    std::fs::copy(part(0), part(4)).unwrap();
    assert_snapshot!("a_part_too_many", refused(&bench));
}

#[test]
fn a_full_disk() {
    let bench = Bench::new().add("[output]\ndictionaries = \"converted\"\n");
    let disk = bench.file("artifacts");
    std::fs::create_dir(&disk).unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=600k", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        skipped("a small file system cannot be mounted here");
        return;
    }
    let said = bench.run(&[]);
    let listed = Command::new("ls").arg("-RA").arg(&disk).output();
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    assert_snapshot!("full_disk", said.failed().error());
    let left = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(!left.contains(".circuit-atlas.tmp"), "{left}");
}

#[test]
fn artifacts_changed_by_hand_or_of_another_version() {
    let bench = Bench::finished();
    let features = bench.file("artifacts/features.parquet");
    let mut bytes = std::fs::read(&features).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&features, bytes).unwrap();
    assert_snapshot!("edited_artifact", refused(&bench));
    assert_snapshot!("edited_artifact_status", bench.call(&["status"]).succeeded().out);
    bench.run(&["aggregate", "--force"]).succeeded();
    assert!(bench.run(&[]).succeeded().err.contains("nothing to do"));

    let bench = Bench::finished();
    let lock = bench.file("artifacts/atlas.lock");
    let text = std::fs::read_to_string(&lock).unwrap();
    std::fs::write(&lock, text.replacen("version = 1", "version = 99", 1)).unwrap();
    assert_snapshot!("lock_of_another_version", refused(&bench));

    let bench = Bench::finished().set("\"mlp2.5\"]", "\"mlp2.5\"]\n[site]\ntitle = \"x\"");
    let table = bench.file("artifacts/conformance.parquet");
    std::fs::write(&table, of_version_9(std::fs::read(&table).unwrap())).unwrap();
    vouch(&bench, "conformance.parquet");
    assert_snapshot!("artifact_of_another_version", refused(&bench));

    let bench = Bench::finished().set("\"mlp2.5\"]", "\"mlp2.5\"]\n[site]\ntitle = \"x\"");
    from_another_run(&bench);
    assert_snapshot!("artifact_of_another_run", refused(&bench));
}

/// The bytes of a table, saying that it is of version 9.
fn of_version_9(mut bytes: Vec<u8>) -> Vec<u8> {
    let key = b"circuit-atlas.version";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 2;
    assert_eq!(bytes[at], b'3');
    bytes[at] = b'9';
    // The hash of the file is one of it with zeros where the hash is.
    let key = b"circuit-atlas.hash";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 2;
    bytes[at..at + 32].fill(b'0');
    let hash = blake3::hash(&bytes).to_hex();
    bytes[at..at + 32].copy_from_slice(&hash.as_bytes()[..32]);
    bytes
}

/// Puts a table of the same rows but another fingerprint in place of one, with a lock that vouches
/// for it.
fn from_another_run(bench: &Bench) {
    use circuit_atlas::artifact::Store;
    use circuit_atlas::artifact::tables::ConformanceRow;
    let store = Store::new(&bench.file("artifacts"));
    store.write("another run", &store.read::<ConformanceRow>().unwrap()).unwrap();
    vouch(bench, "conformance.parquet");
}

/// Makes the lock believe in a file as it is now.
fn vouch(bench: &Bench, name: &str) {
    let path = bench.file("artifacts/atlas.lock");
    let mut lock: toml::Table = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let bytes = std::fs::read(bench.file("artifacts").join(name)).unwrap();
    let stages = lock["stages"].as_table_mut().unwrap();
    for (_, stage) in stages.iter_mut() {
        if let Some(stamp) = stage["files"].as_table_mut().unwrap().get_mut(name) {
            stamp["hash"] = blake3::hash(&bytes).to_hex()[..32].to_string().into();
        }
    }
    std::fs::write(path, toml::to_string(&lock).unwrap()).unwrap();
}

#[test]
fn two_runs_in_one_folder() {
    let bench = Bench::finished();
    let running =
        std::fs::File::options().append(true).open(bench.file("artifacts/.running")).unwrap();
    running.lock().unwrap();
    assert_snapshot!("two_runs", refused(&bench));
    drop(running);
    bench.run(&[]).succeeded();
}

#[test]
fn help_says_what_there_is() {
    let help = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_circuit-atlas")).args(arguments).output().unwrap();
        let said: Said = Bench::new().said(output);
        said.out
    };
    assert_snapshot!("help", help(&["--help"]));
    assert_snapshot!("help_run", help(&["run", "--help"]));
    assert_snapshot!("help_status", help(&["status", "--help"]));
}
