//! The dictionaries of the trained model: an attention SAE and a transcoder for every layer,
//! trained on what the library's own forward pass sees, saved as SAELens folders, loaded back
//! through the library and measured there.

use super::corpus::{self, Kept, Seed, Stream};
use super::net::T;
use super::sparse::{self, Pairs, Settings, Sparse};
use super::tokenizer::Words;
use anyhow::Result;
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

/// Training tokens whose activations are kept.
const TOKENS: usize = 250_000;
/// Contexts on which loss recovered and variance explained are measured.
const MEASURED: usize = 300;

fn settings(id: DictionaryId) -> Settings {
    let k = match (id.kind, id.layer) {
        // The first layer's heads spread their attention: what they read takes more features to
        // say.
        (Kind::Attention, 0) => 23.0,
        (Kind::Attention, _) => 19.0,
        (Kind::Mlp, _) => 14.0,
    };
    Settings { features: 1024, k, epochs: 7, batch: 1024, rate: 1.5e-3 }
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

/// Activations over training stories, for every dictionary.
fn collect(model: &Gpt2, words: &Words, kept: &Kept) -> Result<Vec<Pairs>> {
    let mut stream = Stream::new(words, Seed::Dictionaries, kept.all.clone());
    let (mut contexts, mut tokens) = (Vec::new(), 0);
    while tokens < TOKENS {
        let new = corpus::contexts(words, &stream.story())?;
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

/// Trains and writes all dictionaries, two at a time; each has a seed of its own.
pub(crate) fn build(words: &Words, kept: &Kept, demo: &Path) -> Result<()> {
    let model = Gpt2::load(&demo.join("model"))?;
    let pairs = collect(&model, words, kept)?;
    println!("dictionaries: activations of {} tokens", pairs[0].x.len() / pairs[0].d);
    let jobs: Vec<_> = DictionaryId::all(model.sizes.layers).zip(&pairs).collect();
    jobs.into_par_iter().with_max_len(1).try_for_each(|(id, pairs)| {
        let mut rng =
            ChaCha8Rng::seed_from_u64(7 + 2 * id.layer as u64 + u64::from(id.kind == Kind::Mlp));
        save(&sparse::train(pairs, &settings(id), &mut rng, &id.to_string())?, id, demo)
    })
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
