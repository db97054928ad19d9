//! Models whose files fit together and still are not the model: each is refused, or warned of.

use crate::bench::{Bench, REPOSITORY, Said, copy};
use crate::refusals::{key, with_weights};
use candle_core::{DType, Device, Tensor};
use circuit_atlas::artifact::tables::{ContextRow, ModelCheckRow};
use std::collections::HashMap;
use std::path::Path;

/// A bench with a model of its own, changed.
fn with_model(change: impl FnOnce(&Path)) -> Bench {
    let bench = Bench::new().set("\"[repo]/demo/model\"", "\"model\"");
    copy(&Path::new(REPOSITORY).join("demo/model"), &bench.file("model"));
    change(&bench.file("model"));
    bench
}

fn with_config(old: &str, new: &str) -> Bench {
    with_model(|folder| {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{text}");
        std::fs::write(path, text.replace(old, new)).unwrap();
    })
}

fn with_tensors(change: impl FnOnce(&mut HashMap<String, Tensor>)) -> Bench {
    with_model(|folder| with_weights(folder, change))
}

/// Replaces a tensor, in f32.
fn replace(tensors: &mut HashMap<String, Tensor>, name: &str, by: impl Fn(Tensor) -> Tensor) {
    let key = key(tensors, name);
    let changed = by(tensors[&key].to_dtype(DType::F32).unwrap()).contiguous().unwrap();
    tensors.insert(key, changed);
}

/// What `check` and the stage `measure` say; both must say `why`.
#[track_caller]
fn told(bench: &Bench, why: &str, hint: &str) -> [Said; 2] {
    let said = [bench.call(&["check"]), bench.run(&["tokenize", "measure"])];
    for said in &said {
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains(why) && all.contains(hint), "{all}");
    }
    said
}

#[track_caller]
fn refused(bench: &Bench, why: &str, hint: &str) {
    for said in told(bench, why, hint) {
        assert!(said.failed().error().contains("[folder]/model"));
    }
    assert!(!bench.file("artifacts/conformance.parquet").exists());
}

#[test]
fn the_model_as_it_was_trained_is_far_from_every_threshold() {
    let bench = Bench::new();
    let said = bench.call(&["check"]).succeeded();
    let line = said.out.lines().find(|line| line.starts_with("loss ")).unwrap();
    assert!(line.contains("nats per token; it expects"), "{line}");
    assert!(!said.out.contains("warning"), "{}", said.out);
    let said = bench.run(&["tokenize", "measure"]).succeeded();
    assert!(!said.err.contains("warning"), "{}", said.err);
    let [row] = &bench.table::<ModelCheckRow>()[..] else { panic!("one row") };
    assert!(row.loss < 0.3 * row.unigram && row.loss < 0.5 * row.bigram, "{}", row.loss);
    assert!(row.loss < 1.1 * row.entropy && row.loss < 0.5 * row.uniform, "{}", row.entropy);
    assert!(row.reading_share.unwrap() > 1.05, "{} {:?}", row.reading, row.reading_share);
    assert!(row.random.is_some() && row.repeated.is_some());
    assert_eq!(row.warnings, [""; 0]);
}

#[test]
fn another_number_of_heads_is_refused() {
    for heads in [12, 3] {
        let bench = with_config("\"n_head\": 6", &format!("\"n_head\": {heads}"));
        refused(&bench, "with n_head 6", "hint: `n_head` of `config.json` seems to be wrong");
    }
}

#[test]
fn attentions_output_transposed_is_refused() {
    let turn = |layers: &'static [usize]| {
        with_tensors(|tensors| {
            for l in layers {
                let name = format!("h.{l}.attn.c_proj.weight");
                replace(tensors, &name, |w| w.t().unwrap());
            }
        })
    };
    let hint = "convert the weights again";
    refused(&turn(&[0, 1, 2, 3]), "with attn.c_proj of all layers transposed", hint);
    refused(&turn(&[1]), "with h.1.attn.c_proj transposed", hint);
}

/// Numbers that look drawn from a normal distribution, `scale` wide.
fn noise(n: usize, scale: f64, seed: u64) -> Vec<f32> {
    let uniform = |i: u64| (circuit_atlas::stats::mix(i, seed) >> 11) as f64 / (1u64 << 53) as f64;
    let normal = |i: u64| {
        let sum: f64 = (0..12).map(|j| uniform(12 * i + j)).sum();
        ((sum - 6.0) * scale) as f32
    };
    (0..n as u64).map(normal).collect()
}

#[test]
fn weights_with_noise_are_warned_of_or_refused() {
    // Each matrix with noise of 30 % of its own spread.
    let bench = with_tensors(|tensors| {
        let mut names: Vec<String> = tensors.keys().cloned().collect();
        names.sort();
        for (seed, name) in (0..).zip(names) {
            if tensors[&name].rank() != 2 {
                continue;
            }
            let w = tensors[&name].to_dtype(DType::F32).unwrap();
            let values = w.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let n = values.len() as f64;
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            let variance = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
            let added = noise(values.len(), 0.3 * variance.sqrt(), seed);
            let added = Tensor::from_vec(added, w.dims(), &Device::Cpu).unwrap();
            tensors.insert(name, (w + added).unwrap());
        }
    });
    let why = "is more than it expects (the entropy of its predictions";
    let said = told(&bench, why, "its weights may be damaged");
    assert!(said[0].out.contains("\nwarning    the model's loss, "), "{}", said[0].out);
    assert!(said[1].err.contains("\nwarning: the model's loss, "), "{}", said[1].err);
    let [row] = &bench.table::<ModelCheckRow>()[..] else { panic!("one row") };
    assert!(row.warnings.iter().any(|warning| warning.contains(why)), "{:?}", row.warnings);
}

#[test]
fn a_loss_that_is_not_finite_is_refused() {
    let bench = with_tensors(|tensors| {
        replace(tensors, "ln_f.weight", |w| (w * 1e38).unwrap());
    });
    refused(&bench, "is not a finite number", "hint: its weights are damaged");
}

#[test]
fn a_model_that_is_no_better_than_frequencies_is_refused() {
    let bench = with_tensors(|tensors| {
        replace(tensors, "wte.weight", |w| {
            let rows = w.dim(0).unwrap() as u32;
            let turned: Vec<u32> = (0..rows).rev().collect();
            w.index_select(&Tensor::new(turned, &Device::Cpu).unwrap(), 0).unwrap()
        });
    });
    let why = "is no better than guessing by the frequencies of tokens: its loss is ";
    refused(&bench, why, "must be of one trained model");
}

#[test]
fn a_begin_of_text_that_is_not_the_tokenizers_is_refused() {
    let wrong = with_config("\"bos_token_id\": 2559", "\"bos_token_id\": 0");
    for said in [wrong.call(&["check"]), wrong.run(&["tokenize"])] {
        let error = said.failed().error().to_string();
        let why = "[folder]/model/config.json`: bos_token_id is 0, but `tokenizer.json` has \
                   `<|endoftext|>`, which every context begins with, as 2559";
        assert!(error.contains(why), "{error}");
        assert!(error.contains("hint: set bos_token_id to 2559 if"), "{error}");
    }
    // What a config has whose author did not set it.
    for unset in ["null", "50256"] {
        let bench = with_config("\"bos_token_id\": 2559", &format!("\"bos_token_id\": {unset}"));
        bench.run(&["tokenize"]).succeeded();
    }
}

#[test]
fn tokenize_needs_neither_weights_nor_dictionaries() {
    let bench = with_model(|folder| {
        std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    });
    let bench = bench
        .set("\"[repo]/demo/attention_sae\"", "\"attention_sae\"")
        .set("\"[repo]/demo/transcoder\"", "\"transcoder\"");
    let said = bench.run(&["tokenize"]).succeeded();
    assert_eq!(said.ran(), ["tokenize"]);
    assert_eq!(bench.table::<ContextRow>().len(), 96);
    assert!(bench.run(&["tokenize"]).succeeded().err.contains("nothing to do"));
    for stages in [&["measure"][..], &[]] {
        let error = bench.run(stages).failed().error().to_string();
        assert!(
            error.contains("model` has neither `model.safetensors` nor `pytorch_model.bin`")
                && error.contains("hint: `model.path` must be a folder with"),
            "{error}"
        );
    }
    // Of a stage that reads none of these files itself, but what others make of them.
    let error = bench.run(&["interpret"]).failed().error().to_string();
    assert!(
        error.contains("`interpret` needs the output of `discover`, which is not fresh:")
            && error.contains("has neither `model.safetensors`"),
        "{error}"
    );
    let weights = Path::new(REPOSITORY).join("demo/model/model.safetensors");
    std::fs::copy(weights, bench.file("model/model.safetensors")).unwrap();
    let error = bench.run(&["measure"]).failed().error().to_string();
    assert!(
        error.contains("cannot read the folder of dictionaries `[folder]/attention_sae"),
        "{error}"
    );
}
