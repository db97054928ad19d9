//! The network in training form: GPT-2 with its parameters as variables, batches in, loss or logits
//! out; saved and loaded in the Hugging Face format. What a trained model is (folding, hooks) is
//! the library's business, not this file's.
//!
//! Letters: `B` contexts of a batch, `T` tokens of a context, `D` d_model, `H` heads, `L` layers,
//! `V` vocabulary.

use super::ops::{AddBias, Attention, CrossEntropy, Gelu, IGNORED, K, LayerNorm};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use circuit_atlas::ids::{DictionaryId, Kind};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub(crate) const LAYERS: usize = 4;
pub(crate) const D: usize = 96;
pub(crate) const HEADS: usize = D / K;
/// Positions, and tokens of a full context with its BOS.
pub(crate) const T: usize = 128;
const EPSILON: f64 = 1e-5;
const DEVICE: Device = Device::Cpu;

/// Contexts of similar length, padded on the right to the longest.
pub(crate) struct Batch {
    pub ids: Tensor,
    pub targets: Vec<u32>,
    pub t: usize,
    /// Tokens to be predicted.
    pub count: usize,
}

impl Batch {
    pub(crate) fn new(contexts: &[Vec<u32>]) -> Result<Batch> {
        let t = contexts.iter().map(Vec::len).max().context("a batch needs a context")?;
        let pad = |c: &[u32], with: u32| {
            c.iter().copied().chain(std::iter::repeat(with)).take(t).collect::<Vec<_>>()
        };
        let ids = contexts.iter().flat_map(|c| pad(c, 0)).collect::<Vec<_>>();
        let targets = contexts.iter().flat_map(|c| pad(&c[1..], IGNORED)).collect();
        let count = contexts.iter().map(|c| c.len() - 1).sum();
        Ok(Batch { ids: Tensor::from_vec(ids, contexts.len() * t, &DEVICE)?, targets, t, count })
    }
}

/// Every parameter's name (as Hugging Face has it) and shape, in the order of the computation.
fn shapes(vocabulary: usize) -> Vec<(String, Vec<usize>)> {
    let mut all =
        vec![("wte.weight".into(), vec![vocabulary, D]), ("wpe.weight".into(), vec![T, D])];
    for l in 0..LAYERS {
        let mut matrix = |name: &str, from: usize, to: usize| {
            all.push((format!("h.{l}.{name}.weight"), vec![from, to]));
            all.push((format!("h.{l}.{name}.bias"), vec![to]));
        };
        matrix("attn.c_attn", D, 3 * D);
        matrix("attn.c_proj", D, D);
        matrix("mlp.c_fc", D, 4 * D);
        matrix("mlp.c_proj", 4 * D, D);
        for norm in ["ln_1", "ln_2"] {
            all.extend(["weight", "bias"].map(|part| (format!("h.{l}.{norm}.{part}"), vec![D])));
        }
    }
    all.extend(["weight", "bias"].map(|part| (format!("ln_f.{part}"), vec![D])));
    all
}

/// A standard normal number.
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

/// GPT-2's initial values: small normal matrices, those that write to the residual stream smaller
/// still.
fn initial(name: &str, shape: &[usize], rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let spread = match name {
        _ if name.contains("ln_") => 0.0,
        _ if name.ends_with(".bias") => 0.0,
        "wte.weight" => 0.1,
        "wpe.weight" => 0.05,
        _ if name.contains("c_proj") => 0.06 / (2.0 * LAYERS as f32).sqrt(),
        _ => 0.06,
    };
    let centre = if name.contains("ln_") && name.ends_with(".weight") { 1.0 } else { 0.0 };
    let values =
        (0..shape.iter().product()).map(|_| centre + spread * normal(rng)).collect::<Vec<_>>();
    Ok(Tensor::from_vec(values, shape, &DEVICE)?)
}

/// Lets heads begin as what the tasks need: the output undoes the values, so that a head copies
/// what it looks at, and keys resemble queries, so that it looks at more of the same. Without it
/// copying is found only after millions of tokens.
fn head_start(map: &VarMap, layer: usize) -> Result<()> {
    let vars = map.data().lock().expect("no thread panicked");
    let qkv = &vars[&format!("h.{layer}.attn.c_attn.weight")];
    let part = |i: usize| qkv.narrow(1, i * D, D);
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let k = ((&q + k)? * std::f64::consts::FRAC_1_SQRT_2)?;
    qkv.set(&Tensor::cat(&[&q, &k, &v], 1)?.contiguous()?)?;
    let out = (v.t()? * 0.3)?;
    Ok(vars[&format!("h.{layer}.attn.c_proj.weight")].set(&out.contiguous()?)?)
}

/// Replaces what a sublayer gives: which, what its dictionary reads, what it gives (`z`, or the
/// MLP's output), `[B·T, D]` each.
pub(crate) type Hook<'a> = dyn Fn(DictionaryId, &Tensor, Tensor) -> Result<Tensor> + 'a;

/// GPT-2 with trainable parameters.
pub(crate) struct Net {
    /// Sorted by name, so that sums over all parameters have one order.
    pub vars: BTreeMap<String, Var>,
    pub vocabulary: usize,
}

impl Net {
    pub(crate) fn new(vocabulary: usize, rng: &mut ChaCha8Rng) -> Result<Net> {
        let map = VarMap::new();
        for (name, shape) in shapes(vocabulary) {
            let var = Var::from_tensor(&initial(&name, &shape, rng)?)?;
            map.data().lock().expect("no thread panicked").insert(name, var);
        }
        for l in 0..LAYERS {
            head_start(&map, l)?;
        }
        let vars = map.data().lock().expect("no thread panicked").clone().into_iter().collect();
        Ok(Net { vars, vocabulary })
    }

    fn get(&self, name: &str) -> &Tensor {
        self.vars[name].as_tensor()
    }

    pub(crate) fn parameters(&self) -> usize {
        self.vars.values().map(|var| var.elem_count()).sum()
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let part = |part: &str| self.get(&format!("{name}.{part}"));
        Ok(x.apply_op3(part("weight"), part("bias"), LayerNorm { epsilon: EPSILON as f32 })?)
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let part = |part: &str| self.get(&format!("{name}.{part}"));
        Ok(x.matmul(part("weight"))?.apply_op2(part("bias"), AddBias)?)
    }

    /// The residual stream behind the last norm, `[B·T, D]`.
    fn hidden(&self, batch: &Batch, hook: &Hook) -> Result<Tensor> {
        let contexts = batch.ids.elem_count() / batch.t;
        let positions = (0..contexts).flat_map(|_| 0..batch.t as u32).collect::<Vec<_>>();
        let positions = Tensor::new(positions, &DEVICE)?;
        let embedded = self.get("wte.weight").index_select(&batch.ids, 0)?;
        let mut x = (embedded + self.get("wpe.weight").index_select(&positions, 0)?)?;
        for l in 0..LAYERS {
            let qkv = self
                .linear(&self.norm(&x, &format!("h.{l}.ln_1"))?, &format!("h.{l}.attn.c_attn"))?;
            let z = qkv.apply_op1(Attention { t: batch.t })?;
            let z = hook(DictionaryId { layer: l, kind: Kind::Attention }, &z, z.clone())?;
            x = (x + self.linear(&z, &format!("h.{l}.attn.c_proj"))?)?;
            let x2 = self.norm(&x, &format!("h.{l}.ln_2"))?;
            let inner = self.linear(&x2, &format!("h.{l}.mlp.c_fc"))?;
            let y = self.linear(&inner.apply_op1(Gelu)?, &format!("h.{l}.mlp.c_proj"))?;
            x = (x + hook(DictionaryId { layer: l, kind: Kind::Mlp }, &x2, y)?)?;
        }
        self.norm(&x, "ln_f")
    }

    /// Logits of every row, `[B·T, V]`.
    pub(crate) fn logits(&self, batch: &Batch) -> Result<Tensor> {
        self.logits_with(batch, &|_, _, y| Ok(y))
    }

    /// Logits of every row while `hook` replaces what sublayers give.
    pub(crate) fn logits_with(&self, batch: &Batch, hook: &Hook) -> Result<Tensor> {
        Ok(self.hidden(batch, hook)?.matmul(&self.get("wte.weight").t()?)?)
    }

    /// The same network in the form that dictionaries are of (`docs/definitions.md` §2): gains and
    /// biases of ln_1 and ln_2 in the matrices behind them, the value bias in the output bias, and
    /// what is written to the residual stream less its mean.
    pub(crate) fn folded(&self) -> Result<Net> {
        let mut new = self.vars.clone();
        let mut set = |name: String, tensor: Tensor| -> Result<()> {
            new.insert(name, Var::from_tensor(&tensor.contiguous()?)?);
            Ok(())
        };
        let get = |name: &str| self.get(name);
        let less_mean = |t: &Tensor| -> Result<Tensor> {
            Ok(t.broadcast_sub(&t.mean_keepdim(candle_core::D::Minus1)?)?)
        };
        let row = |bias: &Tensor, w: &Tensor| -> Result<Tensor> {
            Ok(bias.unsqueeze(0)?.matmul(w)?.squeeze(0)?)
        };
        for l in 0..LAYERS {
            for (norm, linear) in [("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")] {
                let [gain, beta] =
                    ["weight", "bias"].map(|part| get(&format!("h.{l}.{norm}.{part}")));
                let [w, b] = ["weight", "bias"].map(|part| get(&format!("h.{l}.{linear}.{part}")));
                let mut bias = (b + row(beta, w)?)?;
                let weight = w.broadcast_mul(&gain.unsqueeze(1)?)?;
                if norm == "ln_1" {
                    let [w_o, b_o] =
                        ["weight", "bias"].map(|part| get(&format!("h.{l}.attn.c_proj.{part}")));
                    let b_o = (b_o + row(&bias.narrow(0, 2 * D, D)?, w_o)?)?;
                    set(format!("h.{l}.attn.c_proj.bias"), less_mean(&b_o)?)?;
                    set(format!("h.{l}.attn.c_proj.weight"), less_mean(w_o)?)?;
                    let zero = Tensor::zeros(D, DType::F32, &DEVICE)?;
                    bias = Tensor::cat(&[&bias.narrow(0, 0, 2 * D)?, &zero], 0)?;
                }
                set(format!("h.{l}.{linear}.weight"), weight)?;
                set(format!("h.{l}.{linear}.bias"), bias)?;
                set(format!("h.{l}.{norm}.weight"), gain.ones_like()?)?;
                set(format!("h.{l}.{norm}.bias"), beta.zeros_like()?)?;
            }
            for part in ["weight", "bias"] {
                let name = format!("h.{l}.mlp.c_proj.{part}");
                let centred = less_mean(get(&name))?;
                set(name, centred)?;
            }
        }
        Ok(Net { vars: new, vocabulary: self.vocabulary })
    }

    /// Cross entropy summed over the batch's tokens.
    pub(crate) fn loss(&self, batch: &Batch) -> Result<Tensor> {
        Ok(self.logits(batch)?.apply_op1(CrossEntropy { targets: batch.targets.clone() })?)
    }

    /// Writes `config.json` and `model.safetensors` (half precision) as Hugging Face's GPT-2 has
    /// them.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let half =
            self.vars.iter().map(|(name, var)| Ok((name.clone(), var.to_dtype(DType::F16)?)));
        let half = half.collect::<Result<HashMap<_, _>>>()?;
        candle_core::safetensors::save(&half, folder.join("model.safetensors"))?;
        let end = self.vocabulary - 1;
        let config = json!({
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
            "n_layer": LAYERS, "n_head": HEADS, "n_embd": D, "n_positions": T, "n_ctx": T,
            "vocab_size": self.vocabulary, "layer_norm_epsilon": EPSILON, "bos_token_id": end, "eos_token_id": end,
            "tie_word_embeddings": true, "torch_dtype": "float16",
        });
        Ok(std::fs::write(
            folder.join("config.json"),
            serde_json::to_string_pretty(&config)? + "\n",
        )?)
    }

    /// Reads what `save` wrote.
    pub(crate) fn load(folder: &Path, vocabulary: usize) -> Result<Net> {
        let tensors = candle_core::safetensors::load(folder.join("model.safetensors"), &DEVICE)?;
        let var = |t: &Tensor| -> Result<Var> { Ok(Var::from_tensor(&t.to_dtype(DType::F32)?)?) };
        let vars =
            tensors.iter().map(|(name, t)| Ok((name.clone(), var(t)?))).collect::<Result<_>>()?;
        Ok(Net { vars, vocabulary })
    }
}
