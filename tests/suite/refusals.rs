//! Files that must not be believed: each is refused by name, and nothing in them is ever run.

use crate::bench::{copy, walk};
use crate::fixture::{Fixture, data, in_every_world};
use candle_core::{DType, Device, Tensor};
use circuit_atlas::dictionary::find;
use circuit_atlas::error::{Result, report};
use circuit_atlas::ids::Kind;
use circuit_atlas::model::{Gpt2, Sizes};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

in_every_world!(
    every_bad_dictionary_is_refused_by_name,
    a_call_in_a_pickled_config_is_not_made,
    a_folder_must_hold_one_dictionary_for_each_layer,
    a_folder_of_the_other_kind_is_refused,
    two_dictionaries_of_one_layer_are_refused,
    a_config_that_means_something_else_is_refused,
    a_pt_file_of_no_known_format_is_refused,
    a_config_beside_a_pt_file_must_fit_it,
    a_model_with_a_file_or_tensor_missing_is_refused,
    a_model_cut_short_is_refused,
    a_model_with_a_value_that_is_not_finite_is_refused,
    a_config_of_another_model_is_refused,
    a_config_that_says_more_is_read,
    a_tensor_that_is_transposed_is_told_so,
    tokens_that_do_not_fit_the_model_are_refused,
);

#[derive(Deserialize)]
struct Bad {
    path: String,
    format: String,
    must_refuse: bool,
}

/// A folder of dictionaries as far as `layers` go: found and loaded, or the message.
fn load(f: &Fixture, folder: &Path, kind: Kind, layers: usize) -> Result<()> {
    find(folder, &[], kind, layers)?
        .iter()
        .try_for_each(|source| source.read(f.model().sizes.d_model).map(drop))
}

/// The dictionary of a case in a folder of its own: files side by side, or a SAELens folder as an
/// entry.
fn stage(f: &Fixture, bad: &Bad) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = f.path("bad").join(bad.path.split_once('/').unwrap().0);
    copy(
        &from,
        &if bad.format == "saelens" { folder.path().join("layer0") } else { folder.path().into() },
    );
    folder
}

fn cases(f: &Fixture) -> Vec<Bad> {
    serde_json::from_slice(&std::fs::read(f.path("bad/expected.json")).unwrap()).unwrap()
}

/// Where a command in a pickle has left its mark.
pub(crate) fn executed() -> Option<PathBuf> {
    let mut found = None;
    walk(&data(""), &mut |path| {
        found = path.ends_with("EXECUTED").then(|| path.into()).or(found.take())
    });
    let folders = [std::env::current_dir().unwrap(), std::env::temp_dir()];
    found.or_else(|| {
        folders.into_iter().map(|folder| folder.join("EXECUTED")).find(|path| path.exists())
    })
}

/// The words that tell a user what is wrong with each.
fn why(f: &Fixture) -> BTreeMap<&'static str, String> {
    let (d, width) = (f.model().sizes.d_model, f.replacement.attention[0].width());
    let words = [
        ("wrong_layer", "do not agree on the layer"),
        ("wrong_hook", "reads the hook `blocks.0.hook_mlp_out`, not `blocks.0.attn.hook_z`"),
        ("truncated", "cannot read the dictionary"),
        ("nan", "tensor `W_enc` has values that are not finite"),
        ("wrong_d_in", &format!("tensor `W_enc` is [{}, {width}], not [{d}, {width}]", d - 8)),
        ("no_tensors", "has no tensors"),
        ("saelens_architecture", "the architecture `temporal_hexagon` is not supported"),
        ("saelens_normalize", "normalize_activations `layer_norm` is not supported"),
        ("saelens_wrong_layer", "is for layer 1, but the model has 1 layers"),
        ("saelens_header", "cannot read the dictionary"),
        ("os_system", "cannot read the dictionary"),
    ];
    words.map(|(case, why)| (case, why.to_string())).into()
}

fn every_bad_dictionary_is_refused_by_name(f: &'static Fixture) {
    let mut why = why(f);
    for bad in cases(f).iter().filter(|bad| bad.must_refuse) {
        let folder = stage(f, bad);
        let error = load(f, folder.path(), Kind::Attention, 1).expect_err(&bad.path);
        let message = report(&error);
        let (case, file) = bad.path.split_once('/').unwrap();
        let named = if file == "." { "layer0" } else { file.trim_end_matches(".pt") };
        assert!(
            error.to_string().contains(named),
            "{case}: the message does not name `{named}`: {message}"
        );
        let why = why.remove(case).expect("every case has its words");
        assert!(message.contains(&why), "{case}: {message}");
        assert!(message.contains("\nhint: "), "{case}: {message}");
    }
    assert!(why.is_empty(), "cases that are not there: {why:?}");
    assert_eq!(executed(), None);
}

/// A good transcoder whose pickled config is a call: the tensors may be read, the call must not be
/// made.
fn a_call_in_a_pickled_config_is_not_made(f: &'static Fixture) {
    let bad = cases(f).into_iter().find(|bad| !bad.must_refuse).unwrap();
    assert_eq!(bad.format, "transcoder");
    let folder = stage(f, &bad);
    if let Err(error) = load(f, folder.path(), Kind::Mlp, 1) {
        assert!(error.to_string().contains("final_sparse_autoencoder"), "{error}");
    }
    assert_eq!(executed(), None);
}

fn refused(f: &Fixture, folder: &Path, kind: Kind, layers: usize) -> String {
    report(&load(f, folder, kind, layers).expect_err("refused"))
}

fn a_folder_must_hold_one_dictionary_for_each_layer(f: &'static Fixture) {
    let layers = f.model().sizes.layers;
    let last = layers - 1;
    let empty = tempfile::tempdir().unwrap();
    let missing = empty.path().join("nowhere");
    let sae = &f.path("attention_sae");
    let cases = [
        (missing.as_path(), Kind::Attention, layers, "cannot read the folder of dictionaries"),
        (empty.path(), Kind::Mlp, layers, "has no mlp dictionary for layer 0"),
        (
            sae,
            Kind::Attention,
            layers + 1,
            &format!("has no attention dictionary for layer {layers}"),
        ),
        (
            sae,
            Kind::Attention,
            last,
            &format!("is for layer {last}, but the model has {last} layers"),
        ),
    ];
    for (folder, kind, layers, why) in cases {
        let message = refused(f, folder, kind, layers);
        assert!(message.contains(why) && message.contains("\nhint: "), "{message}");
        assert!(message.contains(&format!("`{}", folder.display())), "{message}");
    }
}

fn a_folder_of_the_other_kind_is_refused(f: &'static Fixture) {
    for (folder, kind) in [("transcoder", Kind::Attention), ("attention_sae", Kind::Mlp)] {
        let message = refused(f, &f.path(folder), kind, f.model().sizes.layers);
        assert!(
            message.contains("reads the hook `blocks.0.") && message.contains("\nhint: "),
            "{message}"
        );
    }
    let message = refused(f, &f.path("saelens"), Kind::Mlp, 2);
    assert!(
        message.contains("an architecture of `standard` is not one of transcoders"),
        "{message}"
    );
}

fn two_dictionaries_of_one_layer_are_refused(f: &'static Fixture) {
    let folder = tempfile::tempdir().unwrap();
    copy(&f.path("saelens/attention.0"), &folder.path().join("a"));
    copy(&f.path("saelens/jumprelu.0"), &folder.path().join("b"));
    let message = refused(f, folder.path(), Kind::Attention, 1);
    assert!(message.contains("are both for layer 0"), "{message}");
}

/// One change to a good SAELens config, and what is said about it.
fn a_config_that_means_something_else_is_refused(f: &'static Fixture) {
    let cases = [
        (
            "transcoder.0",
            "\"apply_b_dec_to_input\": false",
            "\"apply_b_dec_to_input\": true",
            "apply_b_dec_to_input must be false",
        ),
        (
            "transcoder.0",
            "blocks.0.hook_mlp_out",
            "blocks.1.hook_mlp_out",
            "it writes to `blocks.1.hook_mlp_out`",
        ),
        (
            "transcoder.0",
            "blocks.0.ln2.hook_normalized",
            "blocks.0.hook_resid_mid",
            "reads the hook `blocks.0.hook_resid_mid`",
        ),
        ("transcoder.0", "blocks.0.ln2", "embed.ln2", "names no layer"),
        (
            "transcoder.0",
            "\"architecture\"",
            "\"architect\"",
            "an architecture of `standard` is not one of transcoders",
        ),
        (
            "attention.0",
            "\"metadata\": {",
            "\"metadata\": 3, \"was\": {",
            "is not the config of a dictionary",
        ),
        (
            "attention.0",
            "\"standard\"",
            "\"batchtopk\"",
            "the architecture `batchtopk` is not supported",
        ),
        ("attention.0", "\"standard\"", "\"topk\"", "a top-k dictionary without `k`"),
        ("attention.0", "\"standard\"", "\"gated\"", "has no tensor `r_mag`"),
        ("attention.0", "\"standard\"", "\"jumprelu\"", "has no tensor `threshold`"),
    ];
    for (name, old, new, why) in cases {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("layer0");
        copy(&f.path("saelens").join(name), &entry);
        let text = std::fs::read_to_string(entry.join("cfg.json")).unwrap();
        assert!(text.contains(old), "{old}");
        std::fs::write(entry.join("cfg.json"), text.replace(old, new)).unwrap();
        let kind = if name.starts_with("attention") { Kind::Attention } else { Kind::Mlp };
        let message = refused(f, folder.path(), kind, 1);
        assert!(
            message.contains(why) && message.contains("layer0") && message.contains("\nhint: "),
            "{why}: {message}"
        );
    }
}

/// One change to the config of a good SAE in `.pt`, and what is said about it.
fn a_config_beside_a_pt_file_must_fit_it(f: &'static Fixture) {
    let (d, width) = (f.model().sizes.d_model, f.replacement.attention[0].width());
    let number = |key: &str, x: usize| format!("\"{key}\": {x}");
    let cases = [
        (number("act_size", d), number("act_size", d + 1), format!("act_size is {}, but", d + 1)),
        (
            number("dict_size", width),
            number("dict_size", 7),
            format!("dict_size is 7, but its tensor `W_enc` is [{d}, {width}]"),
        ),
        ("\"site\": \"z\"".into(), "\"site\": \"q\"".into(), "site `q` is not supported".into()),
        (
            "\"concat_heads\": true".into(),
            "\"concat_heads\": false".into(),
            "concat_heads `false` is not supported".into(),
        ),
        (
            "\"model_name\": \"".into(),
            "\"model_name\": \"pythia-70m\", \"was\": \"".into(),
            "model_name `pythia-70m` is not a GPT-2".into(),
        ),
    ];
    for (old, new, why) in cases {
        let folder = tempfile::tempdir().unwrap();
        copy(&f.path("attention_sae"), folder.path());
        let config = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                path.to_str().unwrap().contains("_L0_") && path.extension().unwrap() == "json"
            })
            .unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(&old), "{old} is not in {text}");
        std::fs::write(&config, text.replace(&old, &new)).unwrap();
        let message = refused(f, folder.path(), Kind::Attention, f.model().sizes.layers);
        assert!(message.contains(&why) && message.contains("\nhint: "), "{why}: {message}");
    }
}

fn a_pt_file_of_no_known_format_is_refused(f: &'static Fixture) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mystery.pt"), b"PK").unwrap();
    let message = refused(f, folder.path(), Kind::Attention, 1);
    assert!(message.contains("mystery.pt` is a dictionary of an unknown format"), "{message}");
}

// ---- the model

/// A copy of the recorded model, changed, and what loading it says.
fn model_refused(f: &Fixture, change: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    copy(&f.path("model"), folder.path());
    change(folder.path());
    report(&Gpt2::load(folder.path()).err().expect("refused"))
}

pub(crate) fn with_weights(folder: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let path = folder.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, &path).unwrap();
}

/// A tensor's name with or without the prefix that some checkpoints carry.
pub(crate) fn key(tensors: &HashMap<String, Tensor>, name: &str) -> String {
    tensors.keys().find(|key| key.trim_start_matches("transformer.") == name).unwrap().clone()
}

fn a_model_with_a_file_or_tensor_missing_is_refused(f: &'static Fixture) {
    for file in ["config.json", "model.safetensors"] {
        let message = model_refused(f, |folder| std::fs::remove_file(folder.join(file)).unwrap());
        assert!(message.contains(file) && message.contains("\nhint: "), "{message}");
    }
    let message = model_refused(f, |folder| {
        with_weights(folder, |tensors| {
            let key = key(tensors, "h.1.mlp.c_fc.weight");
            tensors.remove(&key);
        });
    });
    assert!(
        message.contains("model.safetensors` has no tensor `h.1.mlp.c_fc.weight`"),
        "{message}"
    );
}

fn a_model_cut_short_is_refused(f: &'static Fixture) {
    let message = model_refused(f, |folder| {
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() * 6 / 10]).unwrap();
    });
    assert!(
        message.contains("cannot read the weights") && message.contains("model.safetensors"),
        "{message}"
    );
}

fn a_model_with_a_value_that_is_not_finite_is_refused(f: &'static Fixture) {
    for value in [f32::NAN, f32::INFINITY] {
        let message = model_refused(f, |folder| {
            with_weights(folder, |tensors| {
                let key = key(tensors, "h.2.attn.c_proj.bias");
                let mut values =
                    tensors[&key].to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                values[3] = value;
                tensors.insert(key, Tensor::new(values, &Device::Cpu).unwrap());
            });
        });
        assert!(
            message.contains("tensor `h.2.attn.c_proj.bias` has values that are not finite"),
            "{message}"
        );
    }
}

fn a_config_of_another_model_is_refused(f: &'static Fixture) {
    let Sizes { layers, heads, d_model: d, vocabulary: v, .. } = f.model().sizes;
    let number = |key: &str, x: usize| format!("\"{key}\": {x}");
    let added = |setting: &str, why: &str| {
        let old = "\"model_type\"";
        (old.to_string(), format!("{setting}, {old}"), why.to_string())
    };
    let cases = [
        (
            number("n_embd", d),
            number("n_embd", 2 * d),
            format!("tensor `wte.weight` is [{v}, {d}], not [{v}, {}]", 2 * d),
        ),
        (
            number("n_layer", layers),
            number("n_layer", layers + 1),
            format!("has no tensor `h.{layers}."),
        ),
        (
            number("n_head", heads),
            number("n_head", 7),
            format!("n_embd {d} is not a multiple of n_head 7"),
        ),
        ("gelu_new".into(), "gelu".into(), "activation_function `gelu` is not supported".into()),
        ("\"n_head\"".into(), "\"heads\"".into(), "is not the configuration of a GPT-2".into()),
        (
            "\"scale_attn_weights\": true".into(),
            "\"scale_attn_weights\": false".into(),
            "attention scaled by anything but √d_head is not supported".into(),
        ),
        added("\"scale_attn_by_inverse_layer_idx\": true", "anything but √d_head"),
        added("\"add_cross_attention\": true", "add_cross_attention is not supported"),
        added("\"pruned_heads\": {\"0\": [1]}", "pruned_heads is not supported"),
        added("\"quantization_config\": {\"bits\": 8}", "quantization_config is not supported"),
        added(
            "\"num_attention_heads\": 3",
            &format!("num_attention_heads 3 is not n_head {heads}"),
        ),
        ("\"gpt2\"".into(), "\"gpt_neo\"".into(), "model_type `gpt_neo` is not supported".into()),
        ("1e-05".into(), "-1e-05".into(), "layer_norm_epsilon -0.00001 is not supported".into()),
        (
            "\"n_inner\": null".into(),
            "\"n_inner\": 64".into(),
            format!("tensor `h.0.mlp.c_fc.weight` is [{d}, {}], not [{d}, 64]", 4 * d),
        ),
    ];
    for (old, new, why) in cases {
        let message = model_refused(f, |folder| {
            let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
            assert!(text.contains(&old), "{old} is not in {text}");
            std::fs::write(folder.join("config.json"), text.replace(&old, &new)).unwrap();
        });
        assert!(message.contains(&why) && message.contains("\nhint: "), "{why}: {message}");
    }
}

/// Settings that change no number, or repeat what is so.
fn a_config_that_says_more_is_read(f: &'static Fixture) {
    let heads = f.model().sizes.heads;
    let folder = tempfile::tempdir().unwrap();
    copy(&f.path("model"), folder.path());
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let more = format!(
        "\"reorder_and_upcast_attn\": true, \"summary_type\": \"cls_index\", \"use_cache\": false, \
         \"num_attention_heads\": {heads}, \"tie_word_embeddings\": false, \"pruned_heads\": {{}}, \
         \"quantization_config\": null, \"model_type\""
    );
    std::fs::write(&path, text.replace("\"model_type\"", &more)).unwrap();
    with_weights(folder.path(), |tensors| {
        let embedding = tensors[&key(tensors, "wte.weight")].clone();
        tensors.insert("lm_head.weight".into(), embedding);
    });
    let tokens = &f.expected.prompts[0].tokens;
    let logits = |model: &Gpt2| model.last_logits(&model.forward(tokens).unwrap()).unwrap();
    let model = Gpt2::load(folder.path()).unwrap();
    assert_eq!(logits(&model), logits(f.model()));
    assert_eq!(model.parameters, f.model().parameters);
    // Tied weights that were saved once, under the name of the head.
    std::fs::write(&path, &text).unwrap();
    with_weights(folder.path(), |tensors| {
        let embedding = key(tensors, "wte.weight");
        tensors.remove(&embedding);
    });
    let model = Gpt2::load(folder.path()).unwrap();
    assert_eq!(logits(&model), logits(f.model()));
    assert_eq!(model.parameters, f.model().parameters);
    std::fs::write(
        &path,
        text.replace("\"model_type\"", "\"tie_word_embeddings\": false, \"model_type\""),
    )
    .unwrap();
    let message = report(&Gpt2::load(folder.path()).err().expect("refused"));
    assert!(message.contains("has no tensor `wte.weight`"), "{message}");
    with_weights(folder.path(), |tensors| {
        let head = tensors.remove("lm_head.weight").unwrap();
        tensors.insert("wte.weight".into(), head);
    });
    let message = report(&Gpt2::load(folder.path()).err().expect("refused"));
    let why = "model.safetensors` has no tensor `lm_head.weight`, but `config.json` has \
               `tie_word_embeddings` false\nhint: save the model with its head";
    assert!(message.contains(why), "{message}");
}

fn a_tensor_that_is_transposed_is_told_so(f: &'static Fixture) {
    let d = f.model().sizes.d_model;
    let message = model_refused(f, |folder| {
        with_weights(folder, |tensors| {
            let key = key(tensors, "h.0.attn.c_attn.weight");
            let turned = tensors[&key].t().unwrap().contiguous().unwrap();
            tensors.insert(key, turned);
        });
    });
    let why = format!("tensor `h.0.attn.c_attn.weight` is [{}, {d}], not [{d}, {}]", 3 * d, 3 * d);
    assert!(message.contains(&why) && message.contains("hint: it is transposed"), "{message}");
}

fn tokens_that_do_not_fit_the_model_are_refused(f: &'static Fixture) {
    let Sizes { positions, vocabulary, .. } = f.model().sizes;
    let cases = [
        (vec![], format!("a context of 0 tokens does not fit the model's {positions} positions")),
        (
            vec![1; positions + 1],
            format!(
                "a context of {} tokens does not fit the model's {positions} positions",
                positions + 1
            ),
        ),
        (
            vec![1, vocabulary as u32],
            format!("token id {vocabulary} is outside the model's vocabulary of {vocabulary}"),
        ),
    ];
    for (tokens, why) in cases {
        let message = f.model().forward(&tokens).err().expect("refused").to_string();
        assert!(message.contains(&why), "{message}");
    }
    assert!(f.model().forward(&vec![1; positions]).is_ok());
}
