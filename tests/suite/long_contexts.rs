//! Few long documents in long contexts, the first of another kind: what is measured is of all of
//! them.

use crate::bench::{Bench, REPOSITORY, copy};
use crate::refusals::{key, with_weights};
use candle_core::{DType, Tensor};
use circuit_atlas::artifact::tables::{ConformanceRow, ContextRow, ModelCheckRow};
use std::path::Path;

const CONTEXT: usize = 1024;

/// The demo's model with its positions again and again, so that it takes long contexts.
fn with_positions(folder: &Path) {
    let path = folder.join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let longer = config
        .replace("\"n_positions\": 128", &format!("\"n_positions\": {CONTEXT}"))
        .replace("\"n_ctx\": 128", &format!("\"n_ctx\": {CONTEXT}"));
    assert_ne!(config, longer);
    std::fs::write(path, longer).unwrap();
    with_weights(folder, |tensors| {
        let key = key(tensors, "wpe.weight");
        let own = tensors[&key].to_dtype(DType::F32).unwrap();
        tensors.insert(key, Tensor::cat(&vec![own; CONTEXT / 128], 0).unwrap());
    });
}

/// Documents of many of the demo's texts each, behind one that repeats itself.
fn documents(bench: &Bench, number: usize, texts: usize) {
    let all = std::fs::read_to_string(Path::new(REPOSITORY).join("demo/corpus.jsonl")).unwrap();
    let all: Vec<String> = all
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["text"].as_str().unwrap().to_string()
        })
        .collect();
    let repeated = vec!["a box, a box,"; 1000].join(" ");
    let longs = all.chunks(texts).take(number).map(|some| some.join(" "));
    let lines = std::iter::once(repeated).chain(longs);
    let lines = lines.map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
    std::fs::write(bench.file("corpus.jsonl"), lines.collect::<String>()).unwrap();
}

#[test]
fn losses_are_of_eight_contexts_however_long_they_are() {
    let bench = Bench::new()
        .set("\"[repo]/demo/model\"", "\"model\"")
        .set("\"[repo]/demo/corpus.jsonl\"", "\"corpus.jsonl\"")
        .set("max_contexts = 96", &format!("context = {CONTEXT}"));
    copy(&Path::new(REPOSITORY).join("demo/model"), &bench.file("model"));
    with_positions(&bench.file("model"));
    documents(&bench, 6, 40);
    bench.run(&["tokenize", "measure"]).succeeded();
    let contexts = bench.table::<ContextRow>();
    let longest = contexts.iter().map(|row| row.tokens.len()).max();
    assert!(longest == Some(CONTEXT) && contexts.len() > 16, "{longest:?} {}", contexts.len());
    for row in bench.table::<ConformanceRow>() {
        assert!(row.loss_contexts >= 8, "{}: {}", row.dictionary, row.loss_contexts);
        // Each context gives 255 predictions, or all of a short last one.
        assert!(row.loss_tokens > 6 * 255 && row.loss_tokens <= 255 * row.loss_contexts);
        assert!(row.tokens.abs_diff(2048) < 256, "{}", row.tokens);
        let [low, high] = [row.loss_recovered_low, row.loss_recovered_high].map(Option::unwrap);
        let share = row.loss_recovered.unwrap();
        assert!(low <= share && share <= high && low < high, "{low} {share} {high}");
    }
    let [model] = &bench.table::<ModelCheckRow>()[..] else { panic!("one row") };
    assert!(model.tokens.abs_diff(2048) < 256, "{}", model.tokens);
}
