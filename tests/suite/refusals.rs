//! Files that must not be believed: each is refused by name, and nothing in them is ever run.

use crate::bench::copy;
use crate::fixture::{fixture, tiny};
use candle_core::{DType, Device, Tensor};
use circuit_atlas::dictionary::find;
use circuit_atlas::error::{Result, report};
use circuit_atlas::ids::Kind;
use circuit_atlas::model::{Gpt2, Sizes};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Bad {
    path: String,
    format: String,
    must_refuse: bool,
}

/// A folder of dictionaries as far as `layers` go: found and loaded, or the message.
fn load(folder: &Path, kind: Kind, layers: usize) -> Result<()> {
    let sizes = Sizes { layers, ..fixture().model().sizes };
    find(folder, &[], kind, layers)?.iter().try_for_each(|source| source.load(&sizes).map(drop))
}

/// The dictionary of a case in a folder of its own: files side by side, or a SAELens folder as an entry.
fn stage(bad: &Bad) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = tiny("bad").join(bad.path.split_once('/').unwrap().0);
    copy(&from, &if bad.format == "saelens" { folder.path().join("layer0") } else { folder.path().into() });
    folder
}

fn cases() -> Vec<Bad> {
    serde_json::from_slice(&std::fs::read(tiny("bad/expected.json")).unwrap()).unwrap()
}

/// Where a command in a pickle would have left its mark.
fn executed() -> Option<PathBuf> {
    let folders = [std::env::current_dir().unwrap(), tiny(""), tiny("bad"), std::env::temp_dir()];
    folders.into_iter().map(|folder| folder.join("EXECUTED")).find(|path| path.exists())
}

/// The words that tell a user what is wrong with each.
const WHY: [(&str, &str); 11] = [
    ("wrong_layer", "do not agree on the layer"),
    ("wrong_hook", "reads the hook `blocks.0.hook_mlp_out`, not `blocks.0.attn.hook_z`"),
    ("truncated", "cannot read the dictionary"),
    ("nan", "tensor `W_enc` has values that are not finite"),
    ("wrong_d_in", "tensor `W_enc` is [24, 160], not [32, 160]"),
    ("no_tensors", "holds no tensors"),
    ("saelens_architecture", "the architecture `temporal_hexagon` is not supported"),
    ("saelens_normalize", "normalize_activations `layer_norm` is not supported"),
    ("saelens_wrong_layer", "is for layer 1, but the model has 1 layers"),
    ("saelens_header", "cannot read the dictionary"),
    ("os_system", "cannot read the dictionary"),
];

#[test]
fn every_bad_dictionary_is_refused_by_name() {
    for bad in cases().iter().filter(|bad| bad.must_refuse) {
        let folder = stage(bad);
        let error = load(folder.path(), Kind::Attention, 1).expect_err(&bad.path);
        let message = report(&error);
        let (case, file) = bad.path.split_once('/').unwrap();
        let named = if file == "." { "layer0" } else { file.trim_end_matches(".pt") };
        assert!(error.to_string().contains(named), "{case}: the message does not name `{named}`: {message}");
        let (_, why) = WHY.iter().find(|(name, _)| *name == case).expect("every case has its words");
        assert!(message.contains(why), "{case}: {message}");
        assert!(message.contains("\nhint: "), "{case}: {message}");
    }
    assert_eq!(executed(), None);
}

/// A good transcoder whose pickled config is a call: the tensors may be read, the call must not be made.
#[test]
fn a_call_in_a_pickled_config_is_not_made() {
    let bad = cases().into_iter().find(|bad| !bad.must_refuse).unwrap();
    assert_eq!(bad.format, "transcoder");
    let folder = stage(&bad);
    if let Err(error) = load(folder.path(), Kind::Mlp, 1) {
        assert!(error.to_string().contains("final_sparse_autoencoder"), "{error}");
    }
    assert_eq!(executed(), None);
}

fn refused(folder: &Path, kind: Kind, layers: usize) -> String {
    report(&load(folder, kind, layers).expect_err("refused"))
}

#[test]
fn a_folder_must_hold_one_dictionary_for_each_layer() {
    let empty = tempfile::tempdir().unwrap();
    let missing = empty.path().join("nowhere");
    let cases = [
        (missing.as_path(), Kind::Attention, 3, "cannot read the folder of dictionaries"),
        (empty.path(), Kind::Mlp, 3, "has no mlp dictionary for layer 0"),
        (&tiny("attention_sae"), Kind::Attention, 4, "has no attention dictionary for layer 3"),
        (&tiny("attention_sae"), Kind::Attention, 2, "is for layer 2, but the model has 2 layers"),
    ];
    for (folder, kind, layers, why) in cases {
        let message = refused(folder, kind, layers);
        assert!(message.contains(why) && message.contains("\nhint: "), "{message}");
        assert!(message.contains(&format!("`{}", folder.display())), "{message}");
    }
}

#[test]
fn a_folder_of_the_other_kind_is_refused() {
    for (folder, kind) in [("transcoder", Kind::Attention), ("attention_sae", Kind::Mlp)] {
        let message = refused(&tiny(folder), kind, 3);
        assert!(message.contains("reads the hook `blocks.0.") && message.contains("\nhint: "), "{message}");
    }
    let message = refused(&tiny("saelens"), Kind::Mlp, 2);
    assert!(message.contains("an architecture of `standard` is not one of transcoders"), "{message}");
}

#[test]
fn two_dictionaries_of_one_layer_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    copy(&tiny("saelens/attention.0"), &folder.path().join("a"));
    copy(&tiny("saelens/jumprelu.0"), &folder.path().join("b"));
    let message = refused(folder.path(), Kind::Attention, 1);
    assert!(message.contains("are both for layer 0"), "{message}");
}

/// One change to a good SAELens config, and what is said about it.
#[test]
fn a_config_that_means_something_else_is_refused() {
    let cases = [
        (
            "transcoder.0",
            "\"apply_b_dec_to_input\": false",
            "\"apply_b_dec_to_input\": true",
            "apply_b_dec_to_input must be false",
        ),
        ("transcoder.0", "blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out", "it writes to `blocks.1.hook_mlp_out`"),
        (
            "transcoder.0",
            "blocks.0.ln2.hook_normalized",
            "blocks.0.hook_resid_mid",
            "reads the hook `blocks.0.hook_resid_mid`",
        ),
        ("transcoder.0", "blocks.0.ln2", "embed.ln2", "names no layer"),
        ("transcoder.0", "\"architecture\"", "\"architect\"", "is not the config of a dictionary"),
        ("attention.0", "\"standard\"", "\"gated\"", "the architecture `gated` is not supported"),
        ("attention.0", "\"standard\"", "\"jumprelu\"", "has no tensor `threshold`"),
    ];
    for (name, old, new, why) in cases {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("layer0");
        copy(&tiny("saelens").join(name), &entry);
        let text = std::fs::read_to_string(entry.join("cfg.json")).unwrap();
        assert!(text.contains(old), "{old}");
        std::fs::write(entry.join("cfg.json"), text.replace(old, new)).unwrap();
        let kind = if name.starts_with("attention") { Kind::Attention } else { Kind::Mlp };
        let message = refused(folder.path(), kind, 1);
        assert!(
            message.contains(why) && message.contains("layer0") && message.contains("\nhint: "),
            "{why}: {message}"
        );
    }
}

#[test]
fn a_pt_file_of_no_known_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mystery.pt"), b"PK").unwrap();
    let message = refused(folder.path(), Kind::Attention, 1);
    assert!(message.contains("mystery.pt` is a dictionary of an unknown format"), "{message}");
}

// ---- the model

/// A copy of the recorded model, changed, and what loading it says.
fn model_refused(change: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    copy(&tiny("model"), folder.path());
    change(folder.path());
    report(&Gpt2::load(folder.path()).err().expect("refused"))
}

fn with_weights(folder: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let path = folder.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, &path).unwrap();
}

/// A tensor's name with or without the prefix that some checkpoints carry.
fn key(tensors: &HashMap<String, Tensor>, name: &str) -> String {
    tensors.keys().find(|key| key.trim_start_matches("transformer.") == name).unwrap().clone()
}

#[test]
fn a_model_with_a_file_or_tensor_missing_is_refused() {
    for file in ["config.json", "model.safetensors"] {
        let message = model_refused(|folder| std::fs::remove_file(folder.join(file)).unwrap());
        assert!(message.contains(file) && message.contains("\nhint: "), "{message}");
    }
    let message = model_refused(|folder| {
        with_weights(folder, |tensors| {
            let key = key(tensors, "h.1.mlp.c_fc.weight");
            tensors.remove(&key);
        });
    });
    assert!(message.contains("model.safetensors` has no tensor `h.1.mlp.c_fc.weight`"), "{message}");
}

#[test]
fn a_model_cut_short_is_refused() {
    let message = model_refused(|folder| {
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() * 6 / 10]).unwrap();
    });
    assert!(message.contains("cannot read the weights") && message.contains("model.safetensors"), "{message}");
}

#[test]
fn a_model_with_a_value_that_is_not_finite_is_refused() {
    for value in [f32::NAN, f32::INFINITY] {
        let message = model_refused(|folder| {
            with_weights(folder, |tensors| {
                let key = key(tensors, "h.2.attn.c_proj.bias");
                let mut values = tensors[&key].to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                values[3] = value;
                tensors.insert(key, Tensor::new(values, &Device::Cpu).unwrap());
            });
        });
        assert!(message.contains("tensor `h.2.attn.c_proj.bias` has values that are not finite"), "{message}");
    }
}

#[test]
fn a_config_of_another_model_is_refused() {
    let cases = [
        ("\"n_embd\": 32", "\"n_embd\": 64", "tensor `wte.weight` is [600, 32], not [600, 64]"),
        ("\"n_layer\": 3", "\"n_layer\": 4", "has no tensor `h.3."),
        ("\"n_head\": 4", "\"n_head\": 5", "n_embd 32 is not a multiple of n_head 5"),
        ("gelu_new", "gelu", "activation_function `gelu` is not supported"),
        ("\"n_head\"", "\"heads\"", "is not the configuration of a GPT-2"),
    ];
    for (old, new, why) in cases {
        let message = model_refused(|folder| {
            let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
            assert!(text.contains(old), "{old} is not in {text}");
            std::fs::write(folder.join("config.json"), text.replace(old, new)).unwrap();
        });
        assert!(message.contains(why) && message.contains("\nhint: "), "{why}: {message}");
    }
}

#[test]
fn tokens_that_do_not_fit_the_model_are_refused() {
    let cases: [(Vec<u32>, &str); 3] = [
        (vec![], "a context of 0 tokens does not fit the model's 64 positions"),
        (vec![1; 65], "a context of 65 tokens does not fit the model's 64 positions"),
        (vec![1, 600], "token id 600 is outside the model's vocabulary of 600"),
    ];
    for (tokens, why) in cases {
        let message = fixture().model().forward(&tokens).err().expect("refused").to_string();
        assert!(message.contains(why), "{message}");
    }
    assert!(fixture().model().forward(&[1; 64]).is_ok());
}
