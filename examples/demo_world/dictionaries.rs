//! The dictionaries of the trained model: an attention SAE and a transcoder for every layer,
//! trained on what the library's own forward pass sees, then all together in the running model,
//! saved as SAELens folders, loaded back through the library and measured there.

use super::corpus::{self, Kept, Seed, Stream};
use super::end_to_end;
use super::net::{Net, T};
use super::sparse::{Pairs, Settings, Sparse, Training};
use super::tokenizer::Words;
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use circuit_atlas::dictionary::{self, Conformance, Dictionary};
use circuit_atlas::ids::{DictionaryId, Kind};
use circuit_atlas::model::Gpt2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Tokens whose activations are held at a time.
const CHUNK: usize = 250_000;
/// Contexts on which loss recovered and variance explained are measured.
const MEASURED: usize = 300;
const STEPS: usize = 7000;
const END_TO_END: end_to_end::Settings = end_to_end::Settings {
    steps: 1200,
    batch: 48,
    rate: 1e-3,
    logits: 8.0,
    unexplained: 1.0,
    last: 1.0,
    all: 0.5,
};
const TUNE: end_to_end::Settings = end_to_end::Settings {
    steps: 4500,
    batch: 64,
    rate: 1e-3,
    logits: 8.0,
    unexplained: 2.0,
    last: 8.0,
    all: 0.8,
};
/// Practice sentences have fewer active features than stories: so many less on the way, for as many
/// in stories as before.
const TUNE_ACTIVE: f32 = 0.9;

/// Active features are fewer in training than in stories, most of all those of the first MLPs.
fn settings(id: DictionaryId) -> Settings {
    let k = match (id.kind, id.layer) {
        (Kind::Attention, _) => 7.4,
        (Kind::Mlp, 3) => 7.2,
        (Kind::Mlp, _) => 6.3,
    };
    Settings { features: 4096, k, steps: STEPS, batch: 2048, rate: 4e-3 }
}

fn folder(demo: &Path, kind: Kind) -> PathBuf {
    demo.join(if kind == Kind::Attention { "attention_sae" } else { "transcoder" })
}

/// What one context gives to every dictionary, in the order of `DictionaryId::all`: inputs and
/// outputs.
fn activations(model: &Gpt2, context: &[u32]) -> Result<Vec<[Vec<f32>; 2]>> {
    let trace = model.forward(context)?;
    let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
    let mut all = Vec::new();
    for layer in &trace.layers {
        // An SAE's output is its input: kept once.
        all.push([flat(&layer.z)?, Vec::new()]);
        all.push([flat(&layer.x2)?, flat(&layer.mlp_out)?]);
    }
    Ok(all)
}

/// Activations over the next documents of the stream, for every dictionary.
fn collect(model: &Gpt2, words: &Words, stream: &mut Stream) -> Result<Vec<Pairs>> {
    let (mut contexts, mut tokens) = (Vec::new(), 0);
    while tokens < CHUNK {
        let new = corpus::contexts(words, &stream.document())?;
        tokens += new.iter().map(Vec::len).sum::<usize>();
        contexts.extend(new);
    }
    let empty = || Pairs { d: model.sizes.d_model, x: Vec::new(), y: Vec::new() };
    let mut pairs: Vec<Pairs> = DictionaryId::all(model.sizes.layers).map(|_| empty()).collect();
    for chunk in contexts.chunks(256) {
        let parts: Vec<_> =
            chunk.par_iter().map(|context| activations(model, context)).collect::<Result<_>>()?;
        for part in parts {
            for (pairs, [x, y]) in pairs.iter_mut().zip(part) {
                pairs.y.extend_from_slice(if y.is_empty() { &x } else { &y });
                pairs.x.extend_from_slice(&x);
            }
        }
    }
    Ok(pairs)
}

fn config(id: DictionaryId, d: usize, features: usize) -> serde_json::Value {
    let mut metadata = json!({
        "model_name": "circuit-atlas-demo", "hook_name": id.hook(), "prepend_bos": true, "context_size": T,
    });
    let mut config = json!({
        "architecture": "jumprelu", "d_in": d, "d_sae": features, "dtype": "float16", "device": "cpu",
        "apply_b_dec_to_input": false, "normalize_activations": "none", "reshape_activations": "none",
    });
    match id.kind {
        Kind::Attention => config["reshape_activations"] = "hook_z".into(),
        Kind::Mlp => {
            config["architecture"] = "jumprelu_transcoder".into();
            config["d_out"] = d.into();
            metadata["hook_name_out"] = format!("blocks.{}.hook_mlp_out", id.layer).into();
        }
    }
    config["metadata"] = metadata;
    config
}

/// Writes a SAELens folder in half precision.
fn save(sparse: &Sparse, id: DictionaryId, demo: &Path) -> Result<()> {
    let (f, d) = (sparse.b_enc.len(), sparse.b_dec.len());
    let folder = folder(demo, id.kind).join(id.hook());
    std::fs::create_dir_all(&folder)?;
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
    let tensors = [
        ("W_enc", tensor(&sparse.w_enc, &[f, d])?.t()?.contiguous()?),
        ("W_dec", tensor(&sparse.w_dec, &[f, d])?),
        ("b_enc", tensor(&sparse.b_enc, &[f])?),
        ("b_dec", tensor(&sparse.b_dec, &[d])?),
        ("threshold", tensor(&sparse.threshold, &[f])?),
    ];
    let half = tensors.into_iter().map(|(name, t)| Ok((name, t.to_dtype(DType::F16)?)));
    let half = half.collect::<Result<HashMap<_, _>>>()?;
    candle_core::safetensors::save(&half, folder.join("sae_weights.safetensors"))?;
    let text = serde_json::to_string_pretty(&config(id, d, f))? + "\n";
    Ok(std::fs::write(folder.join("cfg.json"), text)?)
}

/// Trains and writes all dictionaries: each by itself, two at a time, with a seed of its own, then
/// all together.
pub(crate) fn build(words: &Words, kept: &Kept, demo: &Path) -> Result<()> {
    let model = Gpt2::load(&demo.join("model"))?;
    let mut stream = Stream::new(words, Seed::Dictionaries, kept.all.clone());
    let mut trained: Vec<(DictionaryId, Training)> = Vec::new();
    while trained.iter().any(|(_, training)| !training.is_done()) || trained.is_empty() {
        let pairs = collect(&model, words, &mut stream)?;
        if trained.is_empty() {
            let new = |(id, pairs): (DictionaryId, &Pairs)| {
                let seed = 7 + 2 * id.layer as u64 + u64::from(id.kind == Kind::Mlp);
                (id, Training::new(pairs, settings(id), ChaCha8Rng::seed_from_u64(seed)))
            };
            trained = DictionaryId::all(model.sizes.layers).zip(&pairs).map(new).collect();
        }
        trained
            .par_iter_mut()
            .zip(&pairs)
            .with_max_len(1)
            .try_for_each(|((id, training), pairs)| training.learn_from(pairs, &id.to_string()))?;
    }
    let alone: Vec<_> =
        trained.into_iter().map(|(id, training)| (id, training.finish(), settings(id).k)).collect();
    let net = Net::load(&demo.join("model"), words.vocabulary())?;
    let mut stream = Stream::new(words, Seed::EndToEnd, kept.all.clone());
    let all = end_to_end::train(&net, &mut stream, alone, &END_TO_END)?;
    all.iter().try_for_each(|(id, sparse)| save(sparse, *id, demo))
}

/// The numbers of a tensor, whatever their precision.
fn values(tensors: &HashMap<String, Tensor>, name: &str) -> Result<Vec<f32>> {
    let tensor = tensors.get(name).with_context(|| format!("no tensor `{name}`"))?;
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// A saved dictionary; `pairs` say how much its output varies.
fn reload(id: DictionaryId, demo: &Path, pairs: &Pairs) -> Result<Sparse> {
    let path = folder(demo, id.kind).join(id.hook()).join("sae_weights.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu)
        .with_context(|| format!("{} (stage `dictionaries` writes it)", path.display()))?;
    let encoder = tensors.get("W_enc").context("no tensor `W_enc`")?.t()?.contiguous()?;
    tensors.insert("W_enc".into(), encoder);
    Ok(Sparse {
        w_enc: values(&tensors, "W_enc")?,
        b_enc: values(&tensors, "b_enc")?,
        w_dec: values(&tensors, "W_dec")?,
        b_dec: values(&tensors, "b_dec")?,
        threshold: values(&tensors, "threshold")?,
        variance: pairs.variance(),
    })
}

/// Gives features that are never active a new start, and trains all dictionaries once more in the
/// running model, on the tasks most of all.
pub(crate) fn tune(words: &Words, kept: &Kept, demo: &Path) -> Result<()> {
    let model = Gpt2::load(&demo.join("model"))?;
    let mut stream = Stream::new(words, Seed::Tune, kept.all.clone());
    let pairs = collect(&model, words, &mut stream)?;
    let mut all = Vec::new();
    for (id, pairs) in DictionaryId::all(model.sizes.layers).zip(&pairs) {
        let mut sparse = reload(id, demo, pairs)?;
        let seed = 107 + 2 * id.layer as u64 + u64::from(id.kind == Kind::Mlp);
        let revived = sparse.revive(pairs, &mut ChaCha8Rng::seed_from_u64(seed))?;
        println!("{id}: {revived} features begin anew");
        all.push((id, sparse, TUNE_ACTIVE * settings(id).k));
    }
    let net = Net::load(&demo.join("model"), words.vocabulary())?;
    let all = end_to_end::train(&net, &mut stream, all, &TUNE)?;
    all.iter().try_for_each(|(id, sparse)| save(sparse, *id, demo))
}

/// A dictionary's figures: the library's own, and the dead features over the whole corpus of the
/// atlas.
pub(crate) struct Measured {
    pub conformance: Conformance,
    pub dead: usize,
}

fn load(model: &Gpt2, demo: &Path) -> Result<Vec<Dictionary>> {
    let mut all = Vec::new();
    for kind in [Kind::Attention, Kind::Mlp] {
        for source in dictionary::find(&folder(demo, kind), &[], kind, model.sizes.layers)? {
            let content = blake3::hash(&std::fs::read(&source.weights)?).to_hex();
            all.push(Dictionary::open(
                &source,
                model.sizes.d_model,
                &std::env::temp_dir().join("demo_world"),
                &content,
            )?);
        }
    }
    all.sort_by_key(|dictionary| dictionary.id);
    Ok(all)
}

/// Which features of each dictionary a context has active behind BOS.
fn alive(model: &Gpt2, dictionaries: &[Dictionary], context: &[u32]) -> Result<Vec<Vec<usize>>> {
    let trace = model.forward(context)?;
    let mut all = Vec::new();
    for dictionary in dictionaries {
        let layer = &trace.layers[dictionary.id.layer];
        let x = if dictionary.id.kind == Kind::Attention { &layer.z } else { &layer.x2 };
        let active = dictionary.encoder()?.active(&x.narrow(0, 1, context.len() - 1)?)?;
        let mut features: Vec<usize> =
            active.concat().into_iter().map(|(f, _)| f as usize).collect();
        features.sort_unstable();
        features.dedup();
        all.push(features);
    }
    Ok(all)
}

/// Loads the dictionaries as the program does and measures them on the atlas's corpus.
pub(crate) fn measure(words: &Words, kept: &Kept, demo: &Path) -> Result<Vec<Measured>> {
    let model = Gpt2::load(&demo.join("model"))?;
    let dictionaries = load(&model, demo)?;
    let contexts = corpus::all_contexts(words, &kept.atlas)?;
    let each = contexts
        .par_iter()
        .map(|context| alive(&model, &dictionaries, context))
        .collect::<Result<Vec<_>>>()?;
    let mut seen: Vec<Vec<bool>> = dictionaries.iter().map(|d| vec![false; d.width()]).collect();
    for context in &each {
        seen.iter_mut()
            .zip(context)
            .for_each(|(seen, active)| active.iter().for_each(|&f| seen[f] = true));
    }
    let sample = dictionary::Sample::new(&model, &contexts[..MEASURED.min(contexts.len())])?;
    let mut all = Vec::new();
    for (dictionary, seen) in dictionaries.iter().zip(seen) {
        let conformance = dictionary::measure(&model, dictionary, &sample)?;
        all.push(Measured { conformance, dead: seen.iter().filter(|alive| !**alive).count() });
    }
    Ok(all)
}
