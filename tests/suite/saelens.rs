//! SAELens folders of every architecture and both generations of configs, against their formulas in
//! plain loops.

use crate::fixture::{Fixture, opened, read_by};
use candle_core::{Device, Tensor};
use circuit_atlas::dictionary::{Dictionary, find};
use circuit_atlas::error::report;
use circuit_atlas::ids::{DictionaryId, Kind};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Plain numbers of a dictionary of layer 0, `d` wide with `n` features.
struct Plain {
    d: usize,
    n: usize,
    tensors: HashMap<&'static str, Vec<f32>>,
}

/// A number from −1 to 1 that depends on where it stands, and on nothing else.
fn drawn(salt: usize, i: usize) -> f32 {
    let mixed = ((salt * 7919 + i) as u32)
        .wrapping_mul(2_654_435_761)
        .rotate_left(13)
        .wrapping_mul(2_246_822_519);
    mixed as f32 / u32::MAX as f32 * 2.0 - 1.0
}

impl Plain {
    fn new(f: &Fixture, vectors: &[&'static str]) -> Plain {
        let (d, n) = (f.model().sizes.d_model, 40);
        let fill = |salt: usize, len: usize, by: f32| {
            (0..len).map(|i| drawn(salt, i) * by).collect::<Vec<f32>>()
        };
        let mut tensors = HashMap::from([
            ("W_enc", fill(1, d * n, 0.5)),
            ("W_dec", fill(2, n * d, 0.5)),
            ("b_dec", fill(3, d, 0.3)),
        ]);
        vectors
            .iter()
            .enumerate()
            .for_each(|(i, name)| drop(tensors.insert(name, fill(4 + i, n, 0.4))));
        Plain { d, n, tensors }
    }

    /// Saved with a config, and opened as a run would; or the message.
    fn open(&self, f: &Fixture, config: Value) -> Result<Dictionary, String> {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("layer0");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("cfg.json"), config.to_string()).unwrap();
        let shape = |name: &str| match name {
            "W_enc" => vec![self.d, self.n],
            "W_dec" => vec![self.n, self.d],
            "b_dec" => vec![self.d],
            _ => vec![self.n],
        };
        let tensor = |(name, values): (&&'static str, &Vec<f32>)| {
            (*name, Tensor::from_slice(values, shape(name), &Device::Cpu).unwrap())
        };
        let tensors: HashMap<&str, Tensor> = self.tensors.iter().map(tensor).collect();
        candle_core::safetensors::save(&tensors, own.join("sae_weights.safetensors")).unwrap();
        let sources =
            find(folder.path(), &[], Kind::Attention, 1).map_err(|error| report(&error))?;
        opened(&sources[0], &f.model().sizes).map_err(|error| report(&error))
    }

    fn at(&self, name: &str, i: usize) -> f64 {
        f64::from(self.tensors[name][i])
    }

    /// `(x − b_dec)·W_enc[:, f]`
    fn read(&self, x: &[f32], f: usize) -> f64 {
        (0..self.d)
            .map(|i| (f64::from(x[i]) - self.at("b_dec", i)) * self.at("W_enc", i * self.n + f))
            .sum()
    }

    fn norm(&self, f: usize) -> f64 {
        (0..self.d).map(|i| self.at("W_dec", f * self.d + i).powi(2)).sum::<f64>().sqrt()
    }
}

/// The activations of a dictionary are those of `expected`, at every token of a prompt; some are
/// active, some not.
fn assert_activations(f: &Fixture, dictionary: &Dictionary, expected: impl Fn(&[f32]) -> Vec<f64>) {
    let trace = f.model().forward(&f.expected.prompts[0].tokens).unwrap();
    let x = read_by(DictionaryId { layer: 0, kind: Kind::Attention }, &trace);
    let found = dictionary.encoder().unwrap().encode(x).unwrap().to_vec2::<f32>().unwrap();
    let (mut on, mut off) = (0, 0);
    for (x, found) in x.to_vec2::<f32>().unwrap().iter().zip(found) {
        for (f, (found, expected)) in found.iter().zip(expected(x)).enumerate() {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-4,
                "feature {f}: {found}, expected {expected}"
            );
            if expected > 0.0 { on += 1 } else { off += 1 }
        }
    }
    assert!(on > 0 && off > 0, "{on} active, {off} not");
}

fn since_6(architecture: &str, more: &[(&str, Value)]) -> Value {
    let mut config = json!({
        "architecture": architecture, "apply_b_dec_to_input": true, "normalize_activations": "none",
        "reshape_activations": "hook_z", "dtype": "float32",
        "metadata": { "hook_name": "blocks.0.attn.hook_z", "hook_head_index": null },
    });
    more.iter().for_each(|(key, value)| config[*key] = value.clone());
    config
}

fn before_6(more: &[(&str, Value)]) -> Value {
    let mut config = json!({
        "hook_point": "blocks.0.attn.hook_z", "hook_point_layer": 0, "hook_point_head_index": null, "dtype": "torch.float32",
        "activation_fn_str": "relu", "normalize_activations": false, "finetuning_scaling_factor": false,
    });
    more.iter().for_each(|(key, value)| config[*key] = value.clone());
    config
}

/// All but the `k` largest set to 0, and those not above 0.
fn largest(mut values: Vec<f64>, k: usize) -> Vec<f64> {
    let mut sorted = values.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let limit = sorted[k - 1].max(0.0);
    values.iter_mut().for_each(|x| *x = if *x >= limit && *x > 0.0 { *x } else { 0.0 });
    values
}

#[test]
fn standard_of_before_6_subtracts_its_bias() {
    let f = Fixture::tiny();
    let plain = Plain::new(f, &["b_enc"]);
    for config in
        [before_6(&[]), since_6("standard", &[]), before_6(&[("architecture", json!("standard"))])]
    {
        let dictionary = plain.open(f, config).unwrap();
        let of = |x: &[f32]| {
            (0..plain.n).map(|i| (plain.read(x, i) + plain.at("b_enc", i)).max(0.0)).collect()
        };
        assert_activations(f, &dictionary, of);
    }
}

#[test]
fn top_k_keeps_the_largest() {
    let f = Fixture::tiny();
    let plain = Plain::new(f, &["b_enc"]);
    let old = [("activation_fn_str", json!("topk")), ("activation_fn_kwargs", json!({"k": 5}))];
    for config in [since_6("topk", &[("k", json!(5))]), before_6(&old)] {
        let dictionary = plain.open(f, config).unwrap();
        assert!(dictionary.needs_all());
        let pre =
            |x: &[f32]| (0..plain.n).map(|i| plain.read(x, i) + plain.at("b_enc", i)).collect();
        assert_activations(f, &dictionary, |x| largest(pre(x), 5));
    }
}

/// The norms of decoder rows weigh the choice; activations come out multiplied, what is written
/// does not change.
#[test]
fn top_k_by_decoder_norm() {
    let f = Fixture::tiny();
    let plain = Plain::new(f, &["b_enc"]);
    let config = since_6("topk", &[("k", json!(5)), ("rescale_acts_by_decoder_norm", json!(true))]);
    let dictionary = plain.open(f, config).unwrap();
    let pre = |x: &[f32]| {
        (0..plain.n).map(|i| (plain.read(x, i) + plain.at("b_enc", i)) * plain.norm(i)).collect()
    };
    assert_activations(f, &dictionary, |x| largest(pre(x), 5));
    let row = dictionary.write_direction(3).unwrap();
    for (i, w) in row.iter().enumerate() {
        let expected = plain.at("W_dec", 3 * plain.d + i) / plain.norm(3);
        assert!((f64::from(*w) - expected).abs() < 1e-5, "{w}, expected {expected}");
    }
}

#[test]
fn gated_is_a_gate_and_a_magnitude() {
    let f = Fixture::tiny();
    let plain = Plain::new(f, &["r_mag", "b_mag", "b_gate"]);
    let dictionary = plain.open(f, since_6("gated", &[])).unwrap();
    let of = |x: &[f32], i: usize| {
        let gate = plain.read(x, i) + plain.at("b_gate", i) > 0.0;
        let magnitude =
            (plain.read(x, i) * plain.at("r_mag", i).exp() + plain.at("b_mag", i)).max(0.0);
        if gate { magnitude } else { 0.0 }
    };
    assert_activations(f, &dictionary, |x| (0..plain.n).map(|i| of(x, i)).collect());
}

#[test]
fn jumprelu_of_before_6() {
    let f = Fixture::tiny();
    let plain = Plain::new(f, &["b_enc", "threshold"]);
    let config =
        before_6(&[("architecture", json!("jumprelu")), ("apply_b_dec_to_input", json!(true))]);
    let dictionary = plain.open(f, config).unwrap();
    let of = |x: &[f32], i: usize| {
        let pre = plain.read(x, i) + plain.at("b_enc", i);
        if pre > plain.at("threshold", i).max(0.0) { pre } else { 0.0 }
    };
    assert_activations(f, &dictionary, |x| (0..plain.n).map(|i| of(x, i)).collect());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let f = Fixture::tiny();
    let plain = Plain::new(f, &["b_enc"]);
    let cases = [
        (since_6("matryoshka", &[]), "the architecture `matryoshka`"),
        (
            since_6("standard", &[("normalize_activations", json!("expected_average_only_in"))]),
            "`expected_average_only_in`",
        ),
        (
            since_6("standard", &[("rescale_acts_by_decoder_norm", json!(true))]),
            "rescale_acts_by_decoder_norm",
        ),
        (
            since_6("standard", &[("reshape_activations", json!("hook_q"))]),
            "reshape_activations `hook_q`",
        ),
        (before_6(&[("normalize_activations", json!(true))]), "normalize_activations `true`"),
        (before_6(&[("hook_point_head_index", json!(3))]), "a dictionary of one head (3)"),
        (before_6(&[("finetuning_scaling_factor", json!(true))]), "finetuning_scaling_factor"),
        (
            before_6(&[("activation_fn_str", json!("tanh-relu"))]),
            "the activation function `tanh-relu`",
        ),
        (before_6(&[("activation_fn_str", json!("topk"))]), "a top-k dictionary without `k`"),
        (
            before_6(&[("hook_point", json!("blocks.0.hook_resid_pre"))]),
            "reads the hook `blocks.0.hook_resid_pre`",
        ),
    ];
    for (config, words) in cases {
        let told = plain.open(f, config).err().unwrap_or_else(|| panic!("not refused: {words}"));
        assert!(told.contains(words) && told.contains("cfg.json"), "no `{words}` in: {told}");
    }
}

/// What `of` says of a dictionary whose file has a tensor more.
fn told_with(plain: &Plain, f: &Fixture, name: &'static str, values: f32) -> Option<String> {
    let mut tensors = plain.tensors.clone();
    tensors.insert(name, vec![values; plain.n]);
    let more = Plain { tensors, ..*plain };
    more.open(f, since_6("standard", &[])).err()
}

#[test]
fn a_tensor_that_is_not_used_is_refused_by_name() {
    let f = Fixture::tiny();
    let plain = Plain::new(f, &["b_enc"]);
    for name in ["threshold", "r_mag", "W_skip"] {
        let told = told_with(&plain, f, name, 0.5).expect(name);
        let words = format!("has a tensor `{name}`, which its architecture does not use");
        assert!(told.contains(&words) && told.contains("\nhint: "), "{told}");
    }
    let told = told_with(&plain, f, "scaling_factor", 0.5).expect("refused");
    assert!(told.contains("tensor `scaling_factor` is not all ones"), "{told}");
    assert_eq!(told_with(&plain, f, "scaling_factor", 1.0), None);
}

#[test]
fn a_config_that_does_not_fit_its_tensors_or_its_model_is_refused() {
    let f = Fixture::tiny();
    let plain = Plain::new(f, &["b_enc"]);
    let metadata =
        |model: &str| json!({ "hook_name": "blocks.0.attn.hook_z", "model_name": model });
    let (d, n) = (plain.d, plain.n);
    let cases = [
        (since_6("standard", &[("d_in", json!(d + 1))]), format!("d_in is {}, but", d + 1)),
        (before_6(&[("d_sae", json!(n + 1))]), format!("d_sae is {}, but", n + 1)),
        (
            since_6("standard", &[("metadata", metadata("EleutherAI/pythia-70m"))]),
            "model_name `EleutherAI/pythia-70m` is not a GPT-2".into(),
        ),
        (
            before_6(&[("model_name", json!("gemma-2b"))]),
            "model_name `gemma-2b` is not a GPT-2".into(),
        ),
        (
            before_6(&[("hook_point_layer", json!(1))]),
            "its hook is of layer 0, but its layer is 1".into(),
        ),
    ];
    for (config, words) in cases {
        let told = plain.open(f, config).err().unwrap_or_else(|| panic!("not refused: {words}"));
        assert!(told.contains(&words) && told.contains("cfg.json"), "no `{words}` in: {told}");
    }
    let fits = [("d_in", json!(d)), ("d_sae", json!(n)), ("metadata", metadata("my-own"))];
    assert!(plain.open(f, since_6("standard", &fits)).is_ok());
}
