//! `trace`: the circuit of a typed prompt is that of the tables, and what cannot be traced is
//! refused.

use crate::bench::{Bench, REPOSITORY, Said, copy};
use circuit_atlas::artifact::tables::{EdgeRow, NodeRow, PromptRow};
use circuit_atlas::corpus::Tokenizer;
use circuit_atlas::ids::NodeKind;
use insta::assert_snapshot;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const MARY: &str = "When Mary and John went to the market, John gave a coin to";

fn trace(bench: &Bench, arguments: &[&str]) -> Said {
    bench.call(&[&["trace"], arguments].concat())
}

#[track_caller]
fn json(bench: &Bench, arguments: &[&str]) -> Value {
    let said = trace(bench, &[arguments, &["--json"]].concat()).succeeded();
    serde_json::from_str(&said.out).unwrap()
}

/// The links of the tables for a prompt: (position, feature or kind) of both ends, slot → effects.
type Links = BTreeMap<[String; 3], Vec<f64>>;

fn sorted(mut links: Links) -> Links {
    links.values_mut().for_each(|effects| effects.sort_by(f64::total_cmp));
    links
}

fn of_tables(bench: &Bench, prompt: &PromptRow) -> Links {
    let own = |task: &str, number: u32| task == prompt.task && number == prompt.prompt;
    let nodes: Vec<NodeRow> =
        bench.table::<NodeRow>().into_iter().filter(|row| own(&row.task, row.prompt)).collect();
    let name = |at: u32| {
        let NodeRow { kind, layer, position, source, head, feature, .. } = nodes[at as usize];
        let (layer, feature) = (layer.unwrap_or_default(), feature.unwrap_or_default());
        match kind {
            NodeKind::Root => "answer".to_string(),
            NodeKind::AttentionFeature => format!("att{layer}.{feature} @ {position}"),
            NodeKind::MlpFeature => format!("mlp{layer}.{feature} @ {position}"),
            NodeKind::Head => {
                format!("L{layer}H{} @ {position} ← {}", head.unwrap(), source.unwrap())
            }
            NodeKind::AttentionError => format!("att{layer} err @ {position}"),
            NodeKind::MlpError => format!("mlp{layer} err @ {position}"),
            NodeKind::Bias(_) => format!("b{layer} @ {position}"),
            NodeKind::Embedding => format!("emb @ {position}"),
            NodeKind::PositionEmbedding => format!("pos @ {position}"),
        }
    };
    let mut links = Links::new();
    for row in bench.table::<EdgeRow>().into_iter().filter(|row| own(&row.task, row.prompt)) {
        let key = [name(row.from), name(row.to), row.slot.word().to_string()];
        links.entry(key).or_default().push(row.effect.into());
    }
    sorted(links)
}

fn of_trace(said: &Value) -> Links {
    let mut links = Links::new();
    for link in said["links"].as_array().unwrap() {
        let text = |key: &str| link[key].as_str().unwrap();
        // What a head serves is told of it as a receiver alone.
        let to = text("to").split(" for ").next().unwrap();
        let key = [text("from"), to, text("input")].map(String::from);
        links.entry(key).or_default().push(link["effect"].as_f64().unwrap());
    }
    sorted(links)
}

#[track_caller]
fn assert_same(traced: &Links, tables: &Links) {
    assert!(traced.keys().eq(tables.keys()), "not the same links");
    for (key, effects) in traced {
        let others = &tables[key];
        assert_eq!(effects.len(), others.len(), "{key:?}");
        // Prompts that are run beside others have other last bits.
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * b.abs().max(0.01);
        assert!(effects.iter().zip(others).all(near), "{key:?}: {effects:?}, {others:?}");
    }
}

/// What is typed to trace a prompt of a task.
fn typed<'a>(prompt: &'a PromptRow, texts: &'a [String; 3]) -> Vec<&'a str> {
    let [correct, counter, _] = texts;
    vec![&prompt.text, "--correct", correct, "--counter", counter]
}

/// The answers and the corrupted prompt of a prompt, as text.
fn texts(prompt: &PromptRow) -> [String; 3] {
    let tokenizer = Tokenizer::load(&Path::new(REPOSITORY).join("demo/model"), 2560).unwrap();
    [
        tokenizer.decode(&[prompt.correct]),
        tokenizer.decode(&[prompt.counter]),
        tokenizer.decode(&prompt.corrupted[1..]),
    ]
}

#[test]
fn a_prompt_of_a_task_has_the_circuit_of_the_tables() {
    let greedy = Bench::finished();
    let influence = Bench::new().set("method = \"greedy\"", "method = \"influence\"");
    influence.run(&["tokenize", "measure", "discover"]).succeeded();
    for bench in [&greedy, &influence] {
        let prompts = bench.table::<PromptRow>();
        for prompt in prompts.iter().filter(|row| row.task == "ioi").take(2) {
            let texts = texts(prompt);
            let said = json(bench, &typed(prompt, &texts));
            assert_same(&of_trace(&said), &of_tables(bench, prompt));
            assert_eq!(said["correct"]["id"], prompt.correct);
            assert!((said["value"].as_f64().unwrap() - prompt.logit_difference).abs() < 1e-4);
            assert!((said["coverage"].as_f64().unwrap() - prompt.coverage).abs() < 1e-4);
        }
    }
}

/// Where a task has one prompt, its means over corrupted prompts are those of one.
#[test]
fn a_gradient_circuit_is_that_of_the_tables_where_the_task_is_this_prompt() {
    let line = serde_json::json!({
        "text": MARY, "correct": " Mary", "counter": " John", "template": "t",
        "corrupted": "When Mary and John went to the market, Mary gave a coin to",
    });
    let bench = Bench::new()
        .set(
            "name = \"ioi\"\nkind = \"ioi\"\nprompts = 4",
            "name = \"ioi\"\nkind = \"prompts\"\nfile = \"one.jsonl\"",
        )
        .set("method = \"greedy\"\npasses = 2", "method = \"gradient\"");
    std::fs::write(bench.file("one.jsonl"), format!("{line}\n")).unwrap();
    bench.run(&["tokenize", "measure", "discover"]).succeeded();
    let prompts = bench.table::<PromptRow>();
    let prompt = prompts.iter().find(|row| row.task == "ioi").unwrap();
    let texts = texts(prompt);
    let corrupted = ["--corrupted", texts[2].as_str()];
    let said = json(&bench, &[&typed(prompt, &texts)[..], &corrupted].concat());
    assert_same(&of_trace(&said), &of_tables(&bench, prompt));
    assert_eq!(said["against"], texts[2].as_str());
    let zero = json(&bench, &typed(prompt, &texts));
    assert_eq!(zero["against"], "zero");
    let embedded = |said: &Value| {
        said["nodes"].as_array().unwrap().iter().any(|node| node["kind"] == "token embedding")
    };
    assert!(embedded(&said) && !embedded(&zero), "embeddings are compared with other texts' only");
}

#[test]
fn nothing_need_have_run_and_explanations_are_those_of_a_run_of_the_same_model() {
    let fresh = Bench::new();
    let arguments = [MARY, "--correct", " Mary", "--counter", " John"];
    let alone = trace(&fresh, &arguments).succeeded();
    assert_eq!(alone.err, "");
    assert_snapshot!("traced", alone.out);
    assert_eq!(trace(&fresh, &arguments).succeeded().out, alone.out);
    let explained = |said: &Value| {
        let nodes = said["nodes"].as_array().unwrap().clone();
        nodes.into_iter().filter(|node| node["explanation"].is_string()).count()
    };
    assert_eq!(explained(&json(&fresh, &arguments)), 0);
    // The hashes of its files are kept, for a run too, and no table is there.
    assert!(fresh.file("artifacts/atlas.lock").exists());
    assert!(fresh.call(&["status"]).succeeded().out.contains("it has never been run"));
    let bench = Bench::finished();
    let said = json(&bench, &arguments);
    assert!(explained(&said) > 0, "{said:#}");
    assert_eq!(of_trace(&said), of_trace(&json(&fresh, &arguments)));
    // The features of other dictionaries are others.
    let folder = bench.file("dictionaries-moved");
    copy(&Path::new(REPOSITORY).join("demo/transcoder"), &folder);
    let other = bench.set("[repo]/demo/transcoder", folder.to_str().unwrap());
    assert_eq!(
        explained(&json(&other, &arguments)),
        explained(&said),
        "the same files elsewhere are the same"
    );
    let weights = folder.join("blocks.0.ln2.hook_normalized/sae_weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // A bit of the last number.
    let at = bytes.len() - 4;
    bytes[at] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert_eq!(explained(&json(&other, &arguments)), 0);
}

#[test]
fn answers_may_be_left_to_the_model() {
    let bench = Bench::new();
    let said = json(&bench, &[MARY]);
    assert_eq!(
        (said["metric"].as_str(), said["correct_by_model"].as_bool()),
        (Some("logit"), Some(true))
    );
    assert_eq!(said["correct"]["text"], said["answers"][0]["text"]);
    assert_eq!(said["counter"], Value::Null);
    let named = json(&bench, &[MARY, "--correct", said["correct"]["text"].as_str().unwrap()]);
    assert_eq!(of_trace(&named), of_trace(&said));
    let told = trace(&bench, &[MARY, "--top", "2"]).succeeded().out;
    assert!(told.contains("logit of ␣Mary, the model's first answer: "), "{told}");
    assert!(told.contains(" more (--top N)"), "{told}");
    let turned = trace(&bench, &[MARY, "--correct", " John", "--counter", " Mary"]).succeeded();
    assert!(turned.out.contains("; the model prefers ␣Mary"), "{}", turned.out);
    let bare = trace(&bench, &[MARY, "--correct", "Mary"]).succeeded();
    assert!(bare.err.contains("as a word of its own it is \" Mary\""), "{}", bare.err);
}

#[test]
fn the_methods_are_those_of_discover() {
    let bench = Bench::new();
    let of = |method: &str| json(&bench, &[MARY, "--counter", " John", "--method", method]);
    for method in ["gradient", "greedy", "influence"] {
        let said = of(method);
        assert_eq!(said["method"], method);
        assert_eq!(said["left_out"].is_number(), method == "influence");
        assert_eq!(said["against"].is_string(), method == "gradient");
        assert!(said["links"].as_array().unwrap().len() > 10);
        // By what passes through them, the strongest first.
        let reach: Vec<f64> = said["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["reach"].as_f64().unwrap())
            .collect();
        assert!(reach.is_sorted_by(|a, b| a >= b) && reach[0] > 0.0);
    }
    assert_eq!(of("greedy"), json(&bench, &[MARY, "--counter", " John"]), "that of the settings");
}

#[test]
fn the_graph_is_a_page_that_needs_no_other_file() {
    let bench = Bench::new();
    let (page, graph) = (bench.file("graph.html"), bench.file("graph.json"));
    let out = |path: &Path| {
        trace(
            &bench,
            &[MARY, "--counter", " John", "--method", "greedy", "--out", path.to_str().unwrap()],
        )
    };
    let said = out(&page).succeeded();
    assert_eq!(said.err, "the graph is in `[folder]/graph.html`\n");
    let named =
        bench.command(&["trace", MARY, "--out", "here.html"]).current_dir(bench.path()).output();
    bench.said(named.unwrap()).succeeded();
    assert!(bench.file("here.html").exists());
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("<svg class=\"graph "));
    for outside in ["href=\"../", "src=\"", "<link rel=\"stylesheet\"", "glossary.html"] {
        assert!(!text.contains(outside), "{outside}");
    }
    // It is written anew, and nothing of somebody else is overwritten.
    out(&page).succeeded();
    out(&graph).succeeded();
    out(&graph).succeeded();
    let read: Value = serde_json::from_str(&std::fs::read_to_string(&graph).unwrap()).unwrap();
    assert_eq!(read["metadata"]["prompt"], MARY);
    let notes = bench.file("notes.html");
    std::fs::write(&notes, "mine").unwrap();
    assert_snapshot!("overwritten", out(&notes).failed().error());
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "mine");
    assert!(out(&bench.file("graph.png")).failed().err.contains("is neither a page nor JSON"));
    std::fs::create_dir(bench.file("site")).unwrap();
    let inside = out(&bench.file("site/graph.html")).failed();
    assert!(inside.err.contains("is in the folder of the site"), "{}", inside.err);
}

#[test]
fn hostile_text_is_neither_markup_nor_an_escape_sequence() {
    let bench = Bench::new();
    let page = bench.file("graph.html");
    let hostile = "When <script>alert(1)</script> \u{1b}[31mMary";
    let arguments = [hostile, "--method", "greedy", "--out", page.to_str().unwrap()];
    let said = trace(&bench, &arguments).succeeded();
    assert!(!said.out.contains('\u{1b}'), "{:?}", said.out);
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(!text.contains("<script>alert") && text.contains("&lt;script&gt;alert"));
}

#[test]
fn what_cannot_be_traced_is_refused_with_the_next_step() {
    let bench = Bench::new();
    let refused = |arguments: &[&str]| trace(&bench, arguments).failed().error().to_string();
    assert_snapshot!("several_tokens", refused(&[MARY, "--correct", " Mary said"]));
    assert_snapshot!("no_text", refused(&[""]));
    assert_snapshot!("special", refused(&["Mary<|endoftext|>gave"]));
    assert_snapshot!("long", refused(&[&["Mary gave"; 80].join(" ")]));
    let shorter = [MARY, "--corrupted", "When Mary", "--method"];
    assert_snapshot!("other_length", refused(&[&shorter[..], &["gradient"]].concat()));
    assert_snapshot!("no_use", refused(&[&shorter[..], &["greedy"]].concat()));
    assert_snapshot!("same_answers", refused(&[MARY, "--correct", " Mary", "--counter", " Mary"]));
    assert!(
        !bench.file("artifacts/dictionaries").exists(),
        "it is refused before anything is loaded"
    );
}
