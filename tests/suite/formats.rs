//! One model in every form in which its weights may lie, and forms that must be refused.

use crate::bench::{Bench, copy};
use crate::fixture::{Fixture, assert_near, assert_tensor, data, in_every_world, numbers};
use crate::refusals::executed;
use candle_core::{DType, Device, Tensor};
use circuit_atlas::config::Config;
use circuit_atlas::error::report;
use circuit_atlas::inputs::Input;
use circuit_atlas::model::{Gpt2, weights};
use std::collections::HashMap;
use std::path::Path;

in_every_world!(
    every_form_of_safetensors_gives_the_same_model,
    a_head_that_is_not_the_embedding_is_refused,
    quantised_weights_are_refused,
    a_config_that_asks_for_another_model_is_refused,
);

const PRECISIONS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

type Tensors = HashMap<String, Tensor>;

/// The tensors of a recorded model by their bare names, without head and masks.
fn bare(f: &Fixture) -> Tensors {
    let tensors =
        candle_core::safetensors::load(f.path("model/model.safetensors"), &Device::Cpu).unwrap();
    let bare = tensors
        .into_iter()
        .map(|(name, tensor)| (name.trim_start_matches("transformer.").to_string(), tensor));
    bare.filter(|(name, _)| {
        name != "lm_head.weight" && !name.ends_with(".attn.bias") && !name.contains("masked")
    })
    .collect()
}

fn cast(tensors: &Tensors, to: DType) -> Tensors {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_dtype(to).unwrap())).collect()
}

/// As a language model's checkpoint names them: prefixed, with the tied head and a mask.
fn prefixed(tensors: Tensors) -> Tensors {
    let head = tensors["wte.weight"].clone();
    let mut named: Tensors =
        tensors.into_iter().map(|(name, tensor)| (format!("transformer.{name}"), tensor)).collect();
    named.insert("lm_head.weight".into(), head);
    named.insert(
        "transformer.h.0.attn.bias".into(),
        Tensor::ones((1, 1, 4, 4), DType::U8, &Device::Cpu).unwrap(),
    );
    named
}

/// A folder with the model's config and nothing else.
fn folder(f: &Fixture) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(f.path("model/config.json"), folder.path().join("config.json")).unwrap();
    folder
}

fn saved(f: &Fixture, tensors: &Tensors) -> tempfile::TempDir {
    let folder = folder(f);
    candle_core::safetensors::save(tensors, folder.path().join("model.safetensors")).unwrap();
    folder
}

fn model_of(f: &Fixture, tensors: &Tensors) -> Gpt2 {
    Gpt2::load(saved(f, tensors).path()).unwrap()
}

/// The folder of a `.bin` in `tests/data/formats` with tiny's config.
fn pickled(name: &str) -> tempfile::TempDir {
    let folder = folder(Fixture::tiny());
    copy(&data("formats").join(name), folder.path());
    folder
}

fn logits(f: &Fixture, model: &Gpt2) -> Vec<f64> {
    let trace = model.forward(&f.expected.prompts[0].tokens).unwrap();
    numbers(&model.logits(&trace).unwrap())
}

fn refused(folder: &Path) -> String {
    let message = report(&Gpt2::load(folder).err().expect("refused"));
    assert!(message.contains("\nhint: "), "{message}");
    message
}

fn every_form_of_safetensors_gives_the_same_model(f: &'static Fixture) {
    let exact = logits(f, f.model());
    for precision in PRECISIONS {
        let rounded = cast(&bare(f), precision);
        let expected = model_of(f, &cast(&rounded, DType::F32));
        for form in [rounded.clone(), prefixed(rounded)] {
            let model = model_of(f, &form);
            assert_eq!(logits(f, &model), logits(f, &expected), "{precision:?}");
            assert_eq!(model.parameters, f.model().parameters, "{precision:?}");
        }
        let (name, reach) =
            (format!("{precision:?}"), if precision == DType::F32 { 0.0 } else { 0.2 });
        assert_near(&name, &logits(f, &expected), &exact, reach);
    }
}

#[test]
fn every_pickled_form_gives_the_same_model() {
    let f = Fixture::tiny();
    let names = ["f32", "f16_prefixed", "bf16_with_a_call"];
    for (name, precision) in names.into_iter().zip(PRECISIONS) {
        let expected = model_of(f, &cast(&cast(&bare(f), precision), DType::F32));
        let model = Gpt2::load(pickled(name).path()).unwrap();
        assert_eq!(logits(f, &model), logits(f, &expected), "{name}");
        assert_tensor(name, &model.w_e, &expected.w_e);
        assert_eq!(model.parameters, f.model().parameters, "{name}");
    }
    assert_eq!(executed(), None);
}

#[test]
fn safetensors_win_over_a_pickle() {
    let folder = pickled("only_a_call");
    assert_eq!(weights(folder.path()).unwrap(), [folder.path().join("pytorch_model.bin")]);
    std::fs::copy(data("tiny/model/model.safetensors"), folder.path().join("model.safetensors"))
        .unwrap();
    assert_eq!(weights(folder.path()).unwrap(), [folder.path().join("model.safetensors")]);
    assert!(Gpt2::load(folder.path()).is_ok());
}

/// What a stage ran with is the hash of the file that was read, not of one that is not there.
#[test]
fn the_weights_that_are_hashed_are_those_that_are_read() {
    let bench = Bench::new().set("\"[repo]/demo/model\"", "\"model\"");
    let config = Config::load(&bench.file("pipeline.toml")).unwrap();
    let named = || -> Vec<String> {
        let files = Input::Model.files(&config).unwrap();
        assert!(files.iter().all(|(name, path)| *path == bench.file(name) && path.is_file()));
        files.into_iter().map(|(name, _)| name).collect()
    };
    let model = bench.file("model");
    copy(pickled("f32").path(), &model);
    assert_eq!(named(), ["model/config.json", "model/pytorch_model.bin"]);
    std::fs::copy(data("tiny/model/model.safetensors"), model.join("model.safetensors")).unwrap();
    assert_eq!(named(), ["model/config.json", "model/model.safetensors"]);
}

#[test]
fn a_pickle_that_calls_is_refused_and_the_call_not_made() {
    let message = refused(pickled("only_a_call").path());
    assert!(message.contains("pytorch_model.bin` has no tensor `wte.weight`"), "{message}");
    assert_eq!(executed(), None);
}

#[test]
fn a_pickle_of_an_old_form_or_cut_short_is_refused() {
    let cut = pickled("f32");
    let path = cut.path().join("pytorch_model.bin");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    for folder in [cut, pickled("before_1.6")] {
        let message = refused(folder.path());
        assert!(
            message.contains("cannot read the weights `") && message.contains("PyTorch 1.6"),
            "{message}"
        );
        assert!(message.contains("pytorch_model.bin"), "{message}");
    }
}

#[test]
fn a_checkpoint_in_several_files_is_the_same_model() {
    let f = Fixture::tiny();
    let exact = model_of(f, &bare(f));
    let folder = folder(f);
    // As transformers writes it, in files by size.
    let mut parts: [Tensors; 3] = Default::default();
    let (mut map, mut names) = (serde_json::Map::new(), Vec::from_iter(prefixed(bare(f))));
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for (i, (name, tensor)) in names.into_iter().enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", i % 3 + 1);
        map.insert(name.clone(), file.into());
        parts[i % 3].insert(name, tensor);
    }
    let files: Vec<_> =
        (1..=3).map(|n| folder.path().join(format!("model-{n:05}-of-00003.safetensors"))).collect();
    let save = |n: usize| candle_core::safetensors::save(&parts[n], &files[n]).unwrap();
    (0..3).for_each(save);
    let index = folder.path().join("model.safetensors.index.json");
    let written = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    std::fs::write(&index, written.to_string()).unwrap();
    let all = [vec![index.clone()], files.clone()].concat();
    assert_eq!(weights(folder.path()).unwrap(), all);
    let model = Gpt2::load(folder.path()).unwrap();
    assert_eq!(logits(f, &model), logits(f, &exact));
    assert_eq!(model.parameters, exact.parameters);

    std::fs::remove_file(&files[1]).unwrap();
    let message = refused(folder.path());
    let missing = files[1].display();
    assert!(
        message.contains(&format!("index.json` names `{missing}`, which is missing")),
        "{message}"
    );
    save(1);
    for (text, why) in [
        ("{}", "index.json` is not the index of a checkpoint"),
        ("{\"weight_map\": {}}", "index.json` names no file"),
        ("{\"weight_map\": {\"a\": \"../a\"}}", "names `../a`, which is not a file beside it"),
    ] {
        std::fs::write(&index, text).unwrap();
        let message = refused(folder.path());
        assert!(message.contains(why) && message.contains("save_pretrained("), "{message}");
    }
    // One of its files alone lacks tensors, which are named.
    let one = "{\"weight_map\": {\"a\": \"model-00001-of-00003.safetensors\"}}";
    std::fs::write(&index, one).unwrap();
    assert!(refused(folder.path()).contains("index.json` has no tensor `"));
}

#[test]
fn a_pickled_checkpoint_in_several_files_is_refused_by_name() {
    let folder = folder(Fixture::tiny());
    std::fs::write(folder.path().join("pytorch_model.bin.index.json"), "{}").unwrap();
    let message = refused(folder.path());
    let why = "pytorch_model.bin.index.json` belongs to a pickled checkpoint in several files";
    assert!(message.contains(why) && message.contains("max_shard_size"), "{message}");
    assert!(message.contains("`python -c \"from transformers import"), "{message}");
    let message = refused(self::folder(Fixture::tiny()).path());
    assert!(
        message.contains("has neither `model.safetensors` nor `pytorch_model.bin`"),
        "{message}"
    );
}

fn a_head_that_is_not_the_embedding_is_refused(f: &'static Fixture) {
    let mut tensors = prefixed(bare(f));
    let head = &tensors["lm_head.weight"];
    let mut values = head.to_vec2::<f32>().unwrap();
    values.last_mut().unwrap()[0] += 1e-3;
    tensors.insert("lm_head.weight".into(), Tensor::new(values, head.device()).unwrap());
    let message = refused(saved(f, &tensors).path());
    assert!(message.contains("`lm_head.weight` is not the embedding `wte.weight`"), "{message}");
}

fn quantised_weights_are_refused(f: &'static Fixture) {
    let mut tensors = bare(f);
    let whole = tensors["h.0.mlp.c_fc.weight"].to_dtype(DType::U8).unwrap();
    tensors.insert("h.0.mlp.c_fc.weight".into(), whole);
    let message = refused(saved(f, &tensors).path());
    assert!(message.contains("tensor `h.0.mlp.c_fc.weight` is of u8"), "{message}");
}

/// Settings with which transformers would compute something else.
fn a_config_that_asks_for_another_model_is_refused(f: &'static Fixture) {
    let cases = [
        ("\"gelu_new\"", "\"gelu\"", "activation_function `gelu` is not supported", "`gelu` (erf)"),
        (
            "\"model_type\": \"gpt2\"",
            "\"model_type\": \"gpt_neo\"",
            "model_type `gpt_neo`",
            "only GPT-2",
        ),
        (
            "\"scale_attn_weights\": true",
            "\"scale_attn_weights\": false",
            "attention scaled by anything but",
            "must be true",
        ),
        (
            "\"n_layer\"",
            "\"scale_attn_by_inverse_layer_idx\": true, \"n_layer\"",
            "attention scaled by anything but",
            "must be true",
        ),
    ];
    for (old, new, why, hint) in cases {
        let folder = saved(f, &bare(f));
        let config = folder.path().join("config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(old), "{old}");
        std::fs::write(&config, text.replace(old, new)).unwrap();
        let message = refused(folder.path());
        assert!(
            message.contains(why) && message.contains(hint) && message.contains("config.json"),
            "{message}"
        );
    }
}
