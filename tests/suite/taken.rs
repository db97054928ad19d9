//! Results taken along: tables and JSON of the site, exports that other tools open, explanations
//! that others wrote.

use crate::bench::{Bench, REPOSITORY, skipped};
use candle_core::{Device, Tensor};
use circuit_atlas::artifact::PUBLISHED;
use circuit_atlas::artifact::tables::{ACTIVATIONS, ContextRow, FeatureRow, ImportedRow, ScoreRow};
use circuit_atlas::dictionary::{Dictionary, find};
use circuit_atlas::ids::Kind;
use circuit_atlas::pipeline::STAGES;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const TOOLS: [&str; 4] = ["saelens", "neuronpedia", "delphi", "circuit-tracer"];

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A Python that has modules, by the variable that names it.
fn python(variable: &str, modules: &str) -> Option<String> {
    let python = std::env::var(variable).unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if has.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    skipped(&format!("`{python}` has not {modules}; name one that has in {variable}"));
    None
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_table_is_published_or_left_out_by_name() {
    let published: BTreeSet<&str> = PUBLISHED.iter().map(|table| table.name).collect();
    let written = STAGES.iter().flat_map(|stage| stage.writes()).map(|table| table.name);
    let left: Vec<&str> = written.filter(|name| !published.contains(name)).collect();
    assert_eq!(left, [ACTIVATIONS.name]);
}

#[test]
fn the_site_has_every_table_as_the_stages_wrote_it() {
    let bench = Bench::finished();
    let index = read(&bench.file("site/data/index.json"));
    let tables = index["tables"].as_array().unwrap();
    assert_eq!(tables.len(), PUBLISHED.len());
    for (table, published) in tables.iter().zip(PUBLISHED) {
        assert_eq!(table["name"], published.name);
        let columns: Vec<&str> = table["columns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(columns, published.columns.iter().map(|c| c.name).collect::<Vec<_>>());
        let mut bytes = 0;
        for file in table["files"].as_array().unwrap() {
            let file = file.as_str().unwrap();
            let copied = fs::read(bench.file("site/data").join(file)).unwrap();
            let own = fs::read(bench.file("artifacts").join(file)).unwrap();
            let differ: Vec<usize> = (0..own.len()).filter(|&at| own[at] != copied[at]).collect();
            assert_eq!((own.len(), differ.len()), (copied.len(), b"ARROW".len()), "{file}");
            assert_eq!(&copied[differ[0]..differ[4] + 1], b"arrow");
            bytes += copied.len();
        }
        assert_eq!(table["bytes"], bytes);
    }
    let page = bench.page("data/index.html");
    for table in PUBLISHED {
        assert!(page.contains(&format!("id=\"{}\"", table.name)), "{}", table.name);
        for column in table.columns {
            assert!(page.contains(&format!(">{}<", column.name)), "{}", column.name);
        }
    }
}

#[test]
fn large_tables_are_left_out_and_named_and_without_data_there_is_none() {
    let bench = Bench::finished();
    let largest = read(&bench.file("site/data/index.json"));
    assert_eq!(largest["left_out"], json!([]));
    // A limit that the scores pass.
    let bench = bench.add("[site]\ndata_max_mib = 1\n");
    let scores = fs::metadata(bench.file("artifacts/scores/part-00000.parquet")).unwrap().len();
    bench.run(&["render"]).succeeded();
    let index = read(&bench.file("site/data/index.json"));
    let left = index["left_out"].as_array().unwrap();
    assert!(left.iter().all(|table| table["bytes"].as_u64().unwrap() > 1 << 20));
    assert!(scores < 1 << 20 || !bench.file("site/data/scores").exists());
    let bench = bench.set("data_max_mib = 1", "data = false");
    bench.run(&["render"]).succeeded();
    assert!(!bench.file("site/data").exists());
    assert!(!bench.file("site/features").join("att1.3.json").exists());
    assert!(!bench.page("index.html").contains("data/index.html"));
    assert!(!bench.page("features/att1.3.html").contains(".json"));
}

#[test]
fn the_document_beside_a_page_is_what_show_says() {
    let bench = Bench::finished();
    let said = |arguments: &[&str]| -> Value {
        let out = bench.call(&[&["show"], arguments, &["--json"]].concat()).succeeded().out;
        serde_json::from_str(&out).unwrap()
    };
    let features: Vec<FeatureRow> = bench.table();
    for row in features.iter().step_by(9) {
        let name = row.feature.to_string();
        let beside = read(&bench.file("site/features").join(format!("{name}.json")));
        assert_eq!(beside, said(&["feature", &name]), "{name}");
        assert!(beside["examples"].as_array().unwrap().len() > 4);
    }
    for task in ["ioi", "greater-than"] {
        let beside = read(&bench.file("site/tasks").join(format!("{task}.json")));
        assert_eq!(beside, said(&["task", task]));
    }
    for entry in fs::read_dir(bench.file("site/components")).unwrap().take(6) {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|ending| ending == "json") {
            assert_eq!(read(&path), said(&["component", name]), "{name}");
        }
    }
    // Of pairs and groups, `show` computes some again.
    let group = read(&bench.file("site/groups/two.json"));
    let told = said(&["features", "two", "--k", "20"]);
    assert_eq!(group["name"], "two");
    assert_eq!(group["strength"], told["strength"]);
    for entry in fs::read_dir(bench.file("site/pairs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let pair = read(&path);
            let [a, b] = ["a", "b"].map(|end| pair[end].as_str().unwrap());
            let told = said(&["pairs", a, b]);
            let circuit = pair["circuit"].as_array().unwrap();
            let shares = |value: &Value| value["share"].as_f64().unwrap();
            let mut own: Vec<f64> = circuit.iter().map(|one| shares(&one[1])).collect();
            let mut other: Vec<f64> =
                told["pairs"].as_array().unwrap().iter().map(shares).collect();
            [&mut own, &mut other].into_iter().for_each(|all| all.sort_by(f64::total_cmp));
            assert!(other.ends_with(&own), "{own:?} {other:?}");
        }
    }
}

#[test]
fn every_page_of_a_subject_links_to_its_document() {
    let bench = Bench::finished();
    for folder in ["features", "components", "tasks", "pairs", "groups"] {
        for entry in fs::read_dir(bench.file("site").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_page = path.extension().is_some_and(|ending| ending == "html");
            let name = path.file_name().unwrap().to_str().unwrap();
            // Those with `+` only lead to where the page is now.
            if !is_page || name == "index.html" || name.contains('+') {
                continue;
            }
            let document = path.with_extension("json");
            assert!(document.exists(), "{}", document.display());
            let name = document.file_name().unwrap().to_str().unwrap();
            let page = fs::read_to_string(&path).unwrap();
            assert!(page.contains(&format!("/{name}\"")), "{}", path.display());
        }
    }
}

#[test]
fn snippets_of_the_site_run() {
    let modules = "polars, duckdb, pandas, pyarrow";
    let Some(python) = python("CIRCUIT_ATLAS_PYTHON", modules) else { return };
    let bench = Bench::finished();
    let script = Path::new(REPOSITORY).join("tests/run_snippets.py");
    let mut command = Command::new(&python);
    command.arg(&script).arg(bench.file("site"));
    let said = succeeds(command);
    assert!(said.contains("polars, duckdb, pandas"), "{said}");
    // As they are where the site has an address.
    let bench = bench.add("[site]\nbase_url = \"http://127.0.0.1:1/it's \\\"here\\\"\"\n");
    bench.run(&["render"]).succeeded();
    let mut command = Command::new(&python);
    command.arg(&script).arg(bench.file("site")).arg("http");
    let said = succeeds(command);
    assert!(said.contains("over http: polars, pandas"), "{said}");
    let modules = "duckdb, duckdb_extension_httpfs";
    let Some(python) = self::python("CIRCUIT_ATLAS_PEERS_PYTHON", modules) else { return };
    let mut command = Command::new(python);
    command.arg(&script).arg(bench.file("site")).arg("duckdb");
    let said = succeeds(command);
    assert!(said.contains("over http: duckdb"), "{said}");
}

/// An export of each tool, in a folder.
fn exported(bench: &Bench) {
    for tool in TOOLS {
        let out = bench.file("out").join(tool);
        let said = bench.call(&["export", tool, "--out", out.to_str().unwrap()]).succeeded();
        assert!(said.out.contains("out/"), "{}", said.out);
    }
}

fn dictionaries(bench: &Bench) -> Vec<Dictionary> {
    let demo = Path::new(REPOSITORY).join("demo");
    let folders = [(Kind::Attention, "attention_sae"), (Kind::Mlp, "transcoder")];
    let of = |(kind, folder): (Kind, &str)| find(&demo.join(folder), &[], kind, 4).unwrap();
    let open = |source: &circuit_atlas::dictionary::Source| {
        Dictionary::open(source, 96, &bench.file("converted"), "of the demo").unwrap()
    };
    folders.into_iter().flat_map(of).collect::<Vec<_>>().iter().map(open).collect()
}

/// Tokens of numbers that depend on where they stand.
fn inputs(rows: usize, width: usize) -> Tensor {
    let value = |i: usize| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 4.0;
    Tensor::from_iter((0..rows * width).map(value), &Device::Cpu)
        .unwrap()
        .reshape((rows, width))
        .unwrap()
}

/// What the readers of other tools have to find.
fn expected(bench: &Bench) -> Value {
    let mut dictionaries_said = BTreeMap::new();
    for dictionary in dictionaries(bench) {
        let x = inputs(5, dictionary.b_in().len());
        let active = dictionary.active(&x).unwrap();
        let out: Vec<Vec<f32>> = dictionary.decode(&active).unwrap().to_vec2().unwrap();
        let x: Vec<Vec<f32>> = x.to_vec2().unwrap();
        assert!(active.iter().any(|active| !active.is_empty()));
        let said = json!({ "x": x, "active": active, "out": out, "heads": 6 });
        dictionaries_said.insert(dictionary.id.to_string(), said);
    }
    let features: Vec<FeatureRow> = bench.table();
    let module = |row: &FeatureRow| {
        let part = if row.kind == Kind::Attention { "attn" } else { "mlp" };
        format!("h.{}.{part}/{}", row.layer, row.index)
    };
    let names: BTreeMap<u32, String> = features.iter().map(|row| (row.key, module(row))).collect();
    let mut latents: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut scores: Vec<ScoreRow> = bench.table();
    scores.sort_by_key(|row| (row.feature, row.context, row.position));
    for row in &scores {
        let place = json!([row.context, row.position, row.activation]);
        latents.entry(&names[&row.feature]).or_default().push(place);
    }
    let contexts: Vec<ContextRow> = bench.table();
    let contexts: Vec<&[u32]> = contexts.iter().map(|row| row.tokens.as_slice()).collect();
    json!({ "dictionaries": dictionaries_said, "latents": latents, "contexts": contexts })
}

#[test]
fn other_tools_open_what_is_exported() {
    let modules = "torch, sae_dashboard, circuit_tracer.frontend.graph_models";
    let Some(python) = python("CIRCUIT_ATLAS_PEERS_PYTHON", modules) else { return };
    let bench = Bench::finished();
    exported(&bench);
    fs::write(bench.file("out/expected.json"), expected(&bench).to_string()).unwrap();
    let mut command = Command::new(python);
    command.arg(Path::new(REPOSITORY).join("tests/open_exports.py")).arg(bench.file("out"));
    let said = succeeds(command);
    for tool in ["sae-lens: 8 dictionaries", "sae-dashboard: ", "delphi: ", "circuit-tracer: "] {
        assert!(said.contains(tool), "{said}");
    }
}

#[test]
fn dictionaries_come_back_as_they_were() {
    let bench = Bench::finished();
    let out = bench.file("out");
    bench.call(&["export", "saelens", "--out", out.to_str().unwrap()]).succeeded();
    for (kind, name) in [(Kind::Attention, "att"), (Kind::Mlp, "mlp")] {
        let files: Vec<String> = (0..4).map(|layer| format!("{name}{layer}")).collect();
        let again = find(&out, &files, kind, 4).unwrap();
        for (source, own) in
            again.iter().zip(dictionaries(&bench).iter().filter(|d| d.id.kind == kind))
        {
            let folder = bench.file("again");
            let back = Dictionary::open(source, 96, &folder, "of the export").unwrap();
            assert_eq!(back.id, own.id);
            let x = inputs(5, own.b_in().len());
            assert_eq!(back.active(&x).unwrap(), own.active(&x).unwrap(), "{}", own.id);
            let active = own.active(&x).unwrap();
            let [a, b] = [&back, own].map(|d| d.decode(&active).unwrap().to_vec2::<f32>().unwrap());
            assert_eq!(a, b);
        }
    }
}

#[test]
fn an_export_replaces_nothing() {
    let bench = Bench::finished();
    let out = bench.file("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine.txt"), "mine").unwrap();
    let arguments = ["export", "delphi", "--out", out.to_str().unwrap()];
    let said = bench.call(&arguments).failed();
    assert!(said.error().contains("is not an empty folder"), "{}", said.err);
    assert_eq!(fs::read_to_string(out.join("mine.txt")).unwrap(), "mine");
    // An empty one is taken, and what a killed export left is not in the way.
    fs::remove_file(out.join("mine.txt")).unwrap();
    fs::create_dir(bench.file(".out.circuit-atlas.new")).unwrap();
    bench.call(&arguments).succeeded();
    assert!(out.join("latents").exists() && !bench.file(".out.circuit-atlas.new").exists());
}

fn line(layer: &str, index: &str, text: &str, model: &str) -> String {
    json!({
        "modelId": "gpt2-small", "layer": layer, "index": index, "description": text,
        "explanationModelName": model, "typeName": "oai_token-act-pair", "embedding": [0.5, 1],
    })
    .to_string()
}

#[test]
fn explanations_of_others_are_imported_and_shown_as_theirs() {
    let bench = Bench::finished();
    let hostile = "names </p><script>alert(1)</script> {{ 7 * 7 }} \u{1b}[31m %s ../../x";
    let lines = [
        line("1-att-kk", "3", hostile, "gpt-4o-mini"),
        line("1-att-kk", "3", "another view", "gpt-4o"),
        line("2-tres-dc", "5", "numbers", "gpt-4o-mini"),
        line("1-att-kk", "999999", "no such feature", "gpt-4o-mini"),
        line("1-res-jb", "3", "another dictionary", "gpt-4o-mini"),
        line("1-att-kk", "x", "no number", "gpt-4o-mini"),
        line("1-att-kk", "4", " ", "gpt-4o-mini"),
        "{broken".into(),
        String::new(),
    ];
    let file = bench.file("batch-0.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    let said = bench.call(&["import", "explanations", file.to_str().unwrap()]).succeeded();
    assert!(
        said.out.starts_with("3 explanations imported, 3 of 2 features in all"),
        "{}",
        said.out
    );
    for part in [
        "1 line left out: `att1` has 4096 features (batch-0.jsonl:4)",
        "1 line left out: no dictionary is called `1-res-jb` there (batch-0.jsonl:5)",
        "1 line left out: `index` is no number (batch-0.jsonl:6)",
        "1 line left out: they have no description (batch-0.jsonl:7)",
        "1 line left out: they are no explanation of Neuronpedia (batch-0.jsonl:8)",
    ] {
        assert!(said.err.contains(part), "`{part}` is not in {}", said.err);
    }
    let rows: Vec<ImportedRow> = bench.table();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().any(|row| row.text == hostile
        && row.explainer == "Neuronpedia: gpt-4o-mini, oai_token-act-pair"));
    // The next run shows them, and nothing else of it changes.
    let ran = bench.run(&[]).succeeded();
    assert_eq!(ran.ran(), ["render"], "{}", ran.err);
    let page = bench.page("features/att1.3.html");
    assert!(
        page.contains("Imported, not of this run: Neuronpedia: gpt-4o-mini, oai_token-act-pair"),
        "{page}"
    );
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)"));
    let shown = bench.call(&["show", "feature", "att1.3"]).succeeded();
    assert!(shown.out.contains("[Neuronpedia: gpt-4o, oai_token-act-pair, of"), "{}", shown.out);
    assert!(!shown.out.contains('\u{1b}'), "{}", shown.out);
    let said = bench.call(&["show", "feature", "att1.3", "--json"]).succeeded();
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["imported"].as_array().unwrap().len(), 2);
    // The same again replaces them; a pattern of its own names other dictionaries.
    fs::write(&file, line("mlp:2", "5", "other numbers", "gpt-4o-mini")).unwrap();
    let arguments = ["import", "explanations", file.to_str().unwrap(), "--mlp", "mlp:{layer}"];
    bench.call(&arguments).succeeded();
    let rows: Vec<ImportedRow> = bench.table();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().any(|row| row.text == "other numbers"));
    bench.call(&["import", "explanations", "--remove"]).succeeded();
    bench.run(&[]).succeeded();
    assert!(!bench.page("features/att1.3.html").contains("Imported, not of this run"));
}

#[test]
fn an_export_of_explanations_can_be_imported_and_another_model_is_told() {
    let bench = Bench::finished();
    let out = bench.file("out");
    bench.call(&["export", "neuronpedia", "--out", out.to_str().unwrap()]).succeeded();
    let file = out.join("1-att-atlas/explanations.jsonl");
    let number = fs::read_to_string(&file).unwrap().lines().count();
    assert!(number > 0);
    let arguments = ["import", "explanations", file.to_str().unwrap()];
    let said = bench.call(&arguments).failed();
    let model = "they are of the model `model`";
    assert!(said.err.contains(model) && said.err.contains("set `--model`"), "{}", said.err);
    let own = [&arguments[..], &["--model", "model", "--attention", "{layer}-att-atlas"]].concat();
    let said = bench.call(&own).succeeded();
    assert!(said.out.starts_with(&format!("{number} explanation")), "{}", said.out);
}
