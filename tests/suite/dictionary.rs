//! Dictionaries against recorded activations, in each file format.

use crate::bench::{REPOSITORY, copy};
use crate::fixture::{
    Fixture, TOLERANCE, assert_tensor, assert_within, dictionaries, in_every_world, numbers,
    opened, read_by,
};
use crate::refusals::{key, with_weights};
use candle_core::Tensor;
use circuit_atlas::corpus::Tokenizer;
use circuit_atlas::dictionary::{Dictionary, Sample, find, judge, measure};
use circuit_atlas::error::Result;
use circuit_atlas::ids::{DictionaryId, Kind};
use circuit_atlas::model::{Gpt2, Intervention, Sizes};
use std::collections::HashMap;
use std::path::Path;

in_every_world!(
    activations_are_the_recorded_ones,
    some_features_encode_as_all_do,
    a_saelens_folder_is_the_same_dictionary_as_its_pt_file,
    jumprelu_is_silent_below_its_threshold_and_unchanged_above,
    the_conformance_report_measures_what_is_recorded,
    loss_recovered_is_that_of_splicing_the_reconstruction_in,
);

/// The name of a dictionary in the recorded world: `attention.1`, `mlp.0`.
fn recorded_name(dictionary: &Dictionary) -> String {
    format!("{}.{}", dictionary.id.kind.word(), dictionary.id.layer)
}

/// The reconstruction of what a dictionary makes of `x [T, d_in]`.
fn decoded(dictionary: &Dictionary, x: &Tensor) -> Tensor {
    dictionary.decode(&dictionary.encoder().unwrap().active(x).unwrap()).unwrap()
}

fn activations_are_the_recorded_ones(f: &'static Fixture) {
    for &i in &f.expected.hooked_prompts {
        let trace = f.model().forward(&f.expected.prompts[i].tokens).unwrap();
        for dictionary in f.every_dictionary() {
            let x = read_by(dictionary.id, &trace);
            let name = format!("dictionary/{i}/{}", recorded_name(dictionary));
            let act = dictionary.encoder().unwrap().encode(x).unwrap();
            assert_tensor(
                &name,
                &dictionary.encoder().unwrap().pre(x).unwrap(),
                f.tensor(&format!("{name}.pre")),
            );
            assert_tensor(&name, &act, f.tensor(&format!("{name}.act")));
            let on = |x: &Tensor| numbers(x).iter().map(|a| *a > 0.0).collect::<Vec<_>>();
            assert_eq!(on(&act), on(f.tensor(&format!("{name}.act"))), "{name}: which are active");
        }
    }
}

fn some_features_encode_as_all_do(f: &'static Fixture) {
    let trace = f.model().forward(&f.expected.prompts[0].tokens).unwrap();
    for dictionary in f.every_dictionary() {
        let x = read_by(dictionary.id, &trace);
        let some = [7, 3, dictionary.width() - 1, 21];
        let index = Tensor::new(&some.map(|f| f as u32), x.device()).unwrap();
        let all = dictionary.encoder().unwrap().encode(x).unwrap().index_select(&index, 1).unwrap();
        let few = dictionary.select(&some).unwrap().encode(x).unwrap();
        assert_tensor("selected features", &few, &all);
        let active = dictionary.encoder().unwrap().active(x).unwrap();
        let dense = dictionary.encoder().unwrap().encode(x).unwrap().to_vec2::<f32>().unwrap();
        for (sparse, dense) in active.iter().zip(dense) {
            assert_eq!(sparse.len(), dense.iter().filter(|a| **a != 0.0).count());
            assert!(sparse.iter().all(|&(f, a)| dense[f as usize] == a) && sparse.is_sorted());
        }
    }
}

/// A folder with copies of these SAELens folders of the recorded world, and nothing else.
fn folder_of(f: &Fixture, names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    names.iter().for_each(|name| copy(&f.path("saelens").join(name), &folder.path().join(name)));
    folder
}

fn two_layers(f: &Fixture) -> Sizes {
    Sizes { layers: 2, ..f.model().sizes }
}

fn a_saelens_folder_is_the_same_dictionary_as_its_pt_file(f: &'static Fixture) {
    let trace =
        f.model().forward(&f.expected.prompts[f.expected.hooked_prompts[1]].tokens).unwrap();
    for (kind, name) in [(Kind::Attention, "attention"), (Kind::Mlp, "transcoder")] {
        let folder = folder_of(f, &[&format!("{name}.0"), &format!("{name}.1")]);
        for saelens in dictionaries(folder.path(), kind, &two_layers(f)) {
            let (pt, x) = (f.dictionary(saelens.id), read_by(saelens.id, &trace));
            let [a, b] =
                [&saelens, pt].map(|dictionary| dictionary.encoder().unwrap().encode(x).unwrap());
            assert_tensor(&format!("{name}: activations"), &a, &b);
            assert_tensor(&format!("{name}: output"), &decoded(&saelens, x), &decoded(pt, x));
        }
    }
}

fn jumprelu_is_silent_below_its_threshold_and_unchanged_above(f: &'static Fixture) {
    let folder = folder_of(f, &["jumprelu.0"]);
    let sizes = Sizes { layers: 1, ..f.model().sizes };
    let dictionary = dictionaries(folder.path(), Kind::Attention, &sizes).remove(0);
    let trace = f.model().forward(&f.expected.prompts[0].tokens).unwrap();
    let (pre, act) = (
        dictionary.encoder().unwrap().pre(&trace.layers[0].z).unwrap(),
        dictionary.encoder().unwrap().encode(&trace.layers[0].z),
    );
    let act = act.unwrap();
    assert_tensor("pre", &pre, f.tensor("saelens/jumprelu.0/pre"));
    assert_tensor("act", &act, f.tensor("saelens/jumprelu.0/act"));
    assert_tensor(
        "output",
        &decoded(&dictionary, &trace.layers[0].z),
        f.tensor("saelens/jumprelu.0/reconstruction"),
    );
    let jumped = numbers(&pre)
        .iter()
        .zip(numbers(&act))
        .filter(|(pre, act)| **pre > 0.0 && *act == 0.0)
        .count();
    assert!(jumped > 0, "the threshold does nothing on this prompt");
}

fn the_conformance_report_measures_what_is_recorded(f: &'static Fixture) {
    let contexts: Vec<Vec<u32>> =
        f.expected.contexts.iter().map(|context| context.tokens.clone()).collect();
    let sample = Sample::new(f.model(), &contexts).unwrap();
    let largest =
        f.expected.dictionaries.iter().fold(0.0, |top: f64, measured| top.max(measured.l0));
    let mut all = Vec::new();
    for dictionary in f.every_dictionary() {
        let name = recorded_name(dictionary);
        let recorded =
            f.expected.dictionaries.iter().find(|measured| measured.dictionary == name).unwrap();
        let measured = measure(f.model(), dictionary, &sample).unwrap();
        assert_eq!((measured.tokens, measured.dead), (recorded.tokens, recorded.dead), "{name}");
        // Some features were made to be rare by a bias that puts them within rounding of 0 at some
        // tokens.
        assert_within(&name, measured.l0, recorded.l0, TOLERANCE * largest);
        assert_within(&name, 1.0 - measured.variance_explained, recorded.fvu, TOLERANCE);
        all.push(measured);
    }
    assert!(judge(&all).unwrap().concat().is_empty());
}

/// Loss recovered by hand: next-token losses of the clean pass, of the reconstruction spliced in,
/// and of zero.
fn loss_recovered_is_that_of_splicing_the_reconstruction_in(f: &'static Fixture) {
    let tokens = &f.expected.prompts[0].tokens;
    let sample = Sample::new(f.model(), std::slice::from_ref(tokens)).unwrap();
    for dictionary in f.every_dictionary() {
        let [clean, zero, spliced] = [Splice::Nothing, Splice::Zero, Splice::Reconstruction]
            .map(|splice| loss(f.model(), tokens, &Spliced { dictionary, splice }));
        let measured = measure(f.model(), dictionary, &sample).unwrap();
        let expected = (zero > clean).then(|| (zero - spliced) / (zero - clean));
        assert_eq!(measured.loss_recovered.is_some(), expected.is_some(), "{}", dictionary.id);
        let found = measured.loss_recovered.unwrap_or(0.0);
        assert_within(
            &dictionary.id.to_string(),
            found,
            expected.unwrap_or(0.0),
            1e-3 * found.abs().max(1.0),
        );
    }
}

/// The demo's model with its positions again and again, so that it takes contexts of 1,024 tokens.
fn with_positions(folder: &Path) -> Gpt2 {
    copy(&Path::new(REPOSITORY).join("demo/model"), folder);
    let config = folder.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let longer = text.replace("\"n_positions\": 128", "\"n_positions\": 1024");
    let longer = longer.replace("\"n_ctx\": 128", "\"n_ctx\": 1024");
    assert_ne!(text, longer);
    std::fs::write(config, longer).unwrap();
    with_weights(folder, |tensors| {
        let key = key(tensors, "wpe.weight");
        let again: [&Tensor; 8] = [&tensors[&key]; 8];
        let positions = Tensor::cat(&again, 0).unwrap();
        tensors.insert(key, positions);
    });
    Gpt2::load(folder).unwrap()
}

/// Losses are of the beginnings of eight contexts, the first of which is of another kind, and are
/// those of contexts that end there.
#[test]
fn long_contexts_have_the_losses_of_their_beginnings() {
    let folder = tempfile::tempdir().unwrap();
    let model = with_positions(folder.path());
    let tokenizer = Tokenizer::load(folder.path(), model.sizes.vocabulary).unwrap();
    let corpus = std::fs::read_to_string(Path::new(REPOSITORY).join("demo/corpus.jsonl")).unwrap();
    let text = |line: &str| -> String {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["text"].as_str().unwrap().into()
    };
    let text = corpus.lines().take(120).map(text).collect::<Vec<_>>().join(" ");
    let ids = tokenizer.encode(&text).unwrap();
    let context = |ids: &[u32]| [&[tokenizer.bos()][..], ids].concat();
    let mut contexts: Vec<Vec<u32>> = ids.chunks_exact(1023).take(8).map(context).collect();
    contexts[0][1..].fill(7);
    let sample = Sample::new(&model, &contexts).unwrap();
    for (kind, place) in [(Kind::Attention, "attention_sae"), (Kind::Mlp, "transcoder")] {
        let place = Path::new(REPOSITORY).join("demo").join(place);
        let sources = find(&place, &[], kind, model.sizes.layers).unwrap();
        let source = sources.iter().find(|source| source.id.layer == 1).unwrap();
        let dictionary = opened(source, &model.sizes).unwrap();
        let measured = measure(&model, &dictionary, &sample).unwrap();
        let counted = (measured.tokens, measured.loss_tokens, measured.loss_contexts);
        assert_eq!(counted, (8 * 255, 8 * 255, 8));
        let [clean, zero, spliced] =
            [Splice::Nothing, Splice::Zero, Splice::Reconstruction].map(|splice| {
                let spliced = Spliced { dictionary: &dictionary, splice };
                let begun = contexts.iter().map(|tokens| &tokens[..256]);
                begun.map(|tokens| loss(&model, tokens, &spliced)).collect::<Vec<f64>>()
            });
        let sum = |losses: &[f64]| losses.iter().sum::<f64>();
        let shares = |range: std::ops::Range<usize>| {
            let [clean, zero, spliced] =
                [&clean, &zero, &spliced].map(|losses| sum(&losses[range.clone()]));
            (zero > clean).then(|| (zero - spliced) / (zero - clean))
        };
        let all = shares(0..8);
        let (found, all) = (measured.loss_recovered.unwrap(), all.unwrap());
        assert_within(&dictionary.id.to_string(), found, all, 1e-3 * all.abs().max(1.0));
        // The first context alone would have another.
        assert!(shares(0..1).is_none_or(|first| (first - all).abs() > 0.01), "{found}");
    }
}

enum Splice {
    Nothing,
    Zero,
    Reconstruction,
}

/// Puts something in place of what a dictionary reconstructs.
struct Spliced<'a> {
    dictionary: &'a Dictionary,
    splice: Splice,
}

impl Spliced<'_> {
    fn instead(&self, layer: usize, kind: Kind, x: &Tensor, of: Tensor) -> Tensor {
        match self.splice {
            Splice::Zero if self.dictionary.id == (DictionaryId { layer, kind }) => {
                of.zeros_like().unwrap()
            }
            Splice::Reconstruction if self.dictionary.id == (DictionaryId { layer, kind }) => {
                decoded(self.dictionary, x)
            }
            _ => of,
        }
    }
}

impl Intervention for Spliced<'_> {
    fn z(&self, layer: usize, z: Tensor) -> Result<Tensor> {
        Ok(self.instead(layer, Kind::Attention, &z.clone(), z))
    }

    fn mlp_out(&self, layer: usize, x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        Ok(self.instead(layer, Kind::Mlp, x2, mlp_out))
    }
}

/// `Σ −ln P(next token)` in plain loops.
fn loss(model: &Gpt2, tokens: &[u32], intervention: &dyn Intervention) -> f64 {
    let logits = model
        .logits(&model.forward_with(tokens, intervention).unwrap())
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    let surprise = |(row, next): (&Vec<f32>, &u32)| {
        let whole: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        whole.ln() - f64::from(row[*next as usize])
    };
    logits.iter().zip(&tokens[1..]).map(surprise).sum()
}

/// Gain and bias of each LayerNorm in front of an MLP of a recorded model.
fn norm(f: &Fixture, layer: usize) -> (Vec<f32>, Vec<f32>) {
    let (gain, beta) = Gpt2::norm_of_mlp(&f.path("model"), layer).unwrap();
    (gain.to_vec1().unwrap(), beta.to_vec1().unwrap())
}

/// A transcoder of the folded model as one of the model as it is in its files: a feature a row,
/// reading behind the gain and bias, writing with some mean that is of no effect.
fn unfolded(f: &Fixture, dictionary: &Dictionary, names: [&str; 2]) -> HashMap<String, Tensor> {
    let (gain, beta) = norm(f, dictionary.id.layer);
    let (d, n) = (gain.len(), dictionary.width());
    let (mut w_enc, mut b_enc, mut w_dec) = (Vec::new(), Vec::new(), Vec::new());
    for feature in 0..n {
        let row = dictionary.read_direction(feature).unwrap();
        let row: Vec<f32> = row.iter().zip(&gain).map(|(w, g)| w / g).collect();
        let shift: f32 = row.iter().zip(&beta).map(|(w, b)| w * b).sum();
        b_enc.push(dictionary.read_bias(feature) - shift);
        w_enc.extend(row);
        let mean = feature as f32 / n as f32;
        w_dec.extend(dictionary.write_direction(feature).unwrap().iter().map(|w| w + mean));
    }
    let b_dec: Vec<f32> = dictionary.b_out().iter().map(|b| b + 0.7).collect();
    let tensor = |values: Vec<f32>, shape: &[usize]| {
        Tensor::from_vec(values, shape, &candle_core::Device::Cpu).unwrap()
    };
    HashMap::from([
        (names[0].to_string(), tensor(w_enc, &[n, d])),
        (names[1].to_string(), tensor(b_enc, &[n])),
        ("W_dec".into(), tensor(w_dec, &[n, d])),
        ("b_dec".into(), tensor(b_dec, &[d])),
    ])
}

/// The dictionaries of a folder, of the first two layers, opened as a run does.
fn opened_with_norms(f: &Fixture, folder: &Path) -> Vec<Dictionary> {
    let mut sources = find(folder, &[], Kind::Mlp, 2).unwrap();
    for source in &mut sources {
        assert!(source.needs_norm());
        source.set_norm(Gpt2::norm_of_mlp(&f.path("model"), source.id.layer).unwrap());
    }
    sources.iter().map(|source| opened(source, &f.model().sizes).unwrap()).collect()
}

/// What was reconstructed, without its mean: the model's own output has none.
fn centred(x: &Tensor) -> Tensor {
    x.broadcast_sub(&x.mean_keepdim(1).unwrap()).unwrap()
}

#[test]
fn circuit_tracers_transcoders_are_the_same_features() {
    let f = Fixture::tiny();
    let folder = tempfile::tempdir().unwrap();
    let config = "# a comment\nmodel_name: \"openai-community/gpt2\"\nmodel_kind: transcoder_set\n\
                  feature_input_hook: mlp.hook_in # in front\nfeature_output_hook: hook_mlp_out\n\
                  transcoders:\n  - hf://x/y\nscan: tiny\n";
    let put = |text: &str| std::fs::write(folder.path().join("config.yaml"), text).unwrap();
    put(config);
    let file = |layer: usize| folder.path().join(format!("layer_{layer}.safetensors"));
    let trace = f.model().forward(&f.expected.prompts[0].tokens).unwrap();
    let of = |layer| f.dictionary(DictionaryId { layer, kind: Kind::Mlp });
    for layer in 0..2 {
        let mut tensors = unfolded(f, of(layer), ["W_enc", "b_enc"]);
        let jump = Tensor::full(0.05_f32, of(layer).width(), &candle_core::Device::Cpu).unwrap();
        tensors.insert("activation_function.threshold".into(), jump);
        candle_core::safetensors::save(&tensors, file(layer)).unwrap();
    }
    let mut active = 0;
    for dictionary in opened_with_norms(f, folder.path()) {
        let x = read_by(dictionary.id, &trace);
        let own = of(dictionary.id.layer);
        let [a, b] = [&dictionary, own].map(|d| d.encoder().unwrap().pre(x).unwrap());
        assert_tensor("pre-activations", &a, &b);
        let found = numbers(&dictionary.encoder().unwrap().encode(x).unwrap());
        for (found, pre) in found.iter().zip(numbers(&a)) {
            assert_eq!(*found, if pre > 0.05 { pre } else { 0.0 });
            active += usize::from(*found > 0.0);
        }
        let all = own.encoder().unwrap().active(x).unwrap();
        let [a, b] = [&dictionary, own].map(|d| centred(&d.decode(&all).unwrap()));
        assert_tensor("reconstruction", &a, &b);
    }
    assert!(active > 0);

    let refused = |from: &str, to: &str, why: &str| {
        assert!(config.contains(from), "{from}");
        put(&config.replace(from, to));
        let error = find(folder.path(), &[], Kind::Mlp, 2).err().unwrap();
        let error = circuit_atlas::error::report(&error);
        assert!(error.contains(why) && error.contains("config.yaml"), "{error}");
    };
    let clt = "the model_kind `cross_layer_transcoder` is not supported";
    refused("transcoder_set", "cross_layer_transcoder", clt);
    refused("mlp.hook_in", "hook_resid_mid", "it reads the hook `hook_resid_mid`");
    refused("hook_mlp_out", "hook_resid_post", "it writes to `hook_resid_post`");
    refused("scan:", "activation: topk\nscan:", "a top-k dictionary without `k`");
    refused("openai-community/gpt2", "google/gemma-2-2b", "is not a GPT-2");
    put(config);
    let mut tensors = candle_core::safetensors::load(file(1), &candle_core::Device::Cpu).unwrap();
    tensors.insert("W_skip".into(), tensors["W_dec"].clone());
    candle_core::safetensors::save(&tensors, file(1)).unwrap();
    let sources = find(folder.path(), &[], Kind::Mlp, 2).unwrap();
    let error = sources[1].read(f.model().sizes.d_model).err().unwrap().to_string();
    assert!(error.contains("has a skip connection (`W_skip`)"), "{error}");
}

#[test]
fn sparsifys_transcoders_are_the_same_features() {
    let f = Fixture::tiny();
    let folder = tempfile::tempdir().unwrap();
    let of = |layer| f.dictionary(DictionaryId { layer, kind: Kind::Mlp });
    let own = |layer: usize| folder.path().join(format!("h.{layer}.mlp"));
    let config = |layer: usize| {
        serde_json::json!({
            "activation": "topk", "expansion_factor": 32, "normalize_decoder": true,
            "num_latents": of(layer).width(), "k": 5, "multi_topk": false, "skip_connection": false,
            "transcode": true, "d_in": f.model().sizes.d_model,
        })
    };
    for layer in 0..2 {
        std::fs::create_dir(own(layer)).unwrap();
        std::fs::write(own(layer).join("cfg.json"), config(layer).to_string()).unwrap();
        let tensors = unfolded(f, of(layer), ["encoder.weight", "encoder.bias"]);
        candle_core::safetensors::save(&tensors, own(layer).join("sae.safetensors")).unwrap();
    }
    let trace = f.model().forward(&f.expected.prompts[0].tokens).unwrap();
    for dictionary in opened_with_norms(f, folder.path()) {
        let x = read_by(dictionary.id, &trace);
        let [a, b] = [&dictionary, of(dictionary.id.layer)]
            .map(|dictionary| dictionary.encoder().unwrap().pre(x).unwrap());
        assert_tensor("pre-activations", &a, &b);
        assert_eq!(dictionary.encoder().unwrap().rule, circuit_atlas::dictionary::Rule::TopK(5));
    }
    for (key, value, why) in [
        ("skip_connection", serde_json::json!(true), "skip_connection is not supported"),
        ("transcode", serde_json::json!(false), "only transcoders of MLPs are supported"),
        ("activation", serde_json::json!("groupmax"), "the activation `groupmax` is not supported"),
        ("k", serde_json::json!(0), "a top-k dictionary without `k`"),
    ] {
        let mut changed = config(1);
        changed[key] = value;
        std::fs::write(own(1).join("cfg.json"), changed.to_string()).unwrap();
        let error = find(folder.path(), &[], Kind::Mlp, 2).err().unwrap().to_string();
        assert!(error.contains(why) && error.contains("h.1.mlp/cfg.json"), "{error}");
    }
}

#[test]
fn formats_that_are_not_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let refused = || {
        let error = find(folder.path(), &[], Kind::Attention, 2).err().unwrap();
        circuit_atlas::error::report(&error)
    };
    put("layer_0.safetensors", "?");
    let error = refused();
    let why = "for layer 0; found `layer_0.safetensors`, which is not supported\n";
    assert!(error.contains(why), "{error}");
    put("resid/params.npz", "?");
    put("README.md", "?");
    let error = refused();
    assert!(error.contains("found `layer_0.safetensors` and 1 more, which are not"), "{error}");

    put("trainer_0/ae.pt", "?");
    let config = |class: &str| {
        format!("{{\"trainer\": {{\"dict_class\": \"{class}\", \"layer\": 1, \"k\": 32}}}}")
    };
    put("trainer_0/config.json", &config("AutoEncoderTopK"));
    let error = refused();
    let why = "trainer_0/ae.pt` is a dictionary of `dictionary_learning` (`AutoEncoderTopK`)";
    assert!(error.contains(why) && error.contains("`python -c \"import torch"), "{error}");
    assert!(error.contains("blocks.1.attn.hook_z"), "{error}");
    put("trainer_0/config.json", &config("CrossCoder"));
    let error = refused();
    assert!(error.contains("(`CrossCoder`), which is not supported"), "{error}");
}
