//! GPT-2: loaded from a Hugging Face folder, folded once, run one context at a time.
//!
//! `forward` is over one context at its own length: no padding, and the same bits whatever runs
//! beside it; work is spread over contexts by the caller. `forward_all` and `abreast` put several
//! below one another, which may change the last bits. Letters: `D` d_model, `H` heads, `K` d_head,
//! `L` layers, `M` MLP width, `P` positions, `T` tokens, `V` vocabulary.

mod added;
mod attention;
mod fused;
mod hooked;

pub use added::{Added, Behind};
pub(crate) use fused::{Surprise, gelu_and_slope};
pub(crate) use hooked::HookedLayer;

use super::checkpoint::{Checkpoint, blocks};
use super::config::Config;
use super::trace::{Abreast, Clean, Intervention, LayerTrace, Trace};
use crate::error::{Result, hinted};
use crate::ids::{DictionaryId, Kind};
use attention::Queries;
use candle_core::{D as Last, DType, Device, Tensor};
use fused::{causal_softmax, linear, linear_gelu, linear_onto, normed};
use rayon::prelude::*;
use std::path::Path;

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// `L`
    pub layers: usize,
    /// Heads of a layer, `H`
    pub heads: usize,
    /// Width of the residual stream, `D`
    pub d_model: usize,
    /// Width of a head, `K`
    pub d_head: usize,
    /// Width of an MLP, `M`
    pub d_mlp: usize,
    /// The longest context in tokens, `P`
    pub positions: usize,
    /// Tokens of the vocabulary, `V`
    pub vocabulary: usize,
}

/// A GPT-2 with LayerNorm, value biases and means folded away (`docs/definitions.md` §2).
pub struct Gpt2 {
    /// Its sizes.
    pub sizes: Sizes,
    /// LayerNorm's ε.
    pub epsilon: f64,
    /// `[V, D]`, rows centred
    pub w_e: Tensor,
    /// `[P, D]`, rows centred
    pub w_p: Tensor,
    /// Its blocks, in order.
    pub layers: Vec<Layer>,
    /// `[D, V]`
    pub w_u: Tensor,
    /// `[V]`
    pub b_u: Tensor,
    /// Learned numbers in the file, a repeated embedding counted once.
    pub parameters: usize,
    /// `[P, P]`: 1 where a position must not look.
    future: Tensor,
}

/// One folded block.
#[derive(Clone)]
pub struct Layer {
    /// Q, K and V side by side, heads in order within each, `[D, 3D]`
    pub w_qkv: Tensor,
    /// `[3D]`; the V third is zero
    pub b_qkv: Tensor,
    /// `[H·K, D]`
    pub w_o: Tensor,
    /// `[D]`
    pub b_o: Tensor,
    /// `[D, M]`
    pub w_in: Tensor,
    /// `[M]`
    pub b_in: Tensor,
    /// `[M, D]`
    pub w_out: Tensor,
    /// `[D]`
    pub b_out: Tensor,
    /// What was folded away, to tell a dictionary of the unfolded model by.
    pub unfolded: Unfolded,
}

/// What folding takes out of a block.
#[derive(Clone)]
pub struct Unfolded {
    /// `b_V'`, `[H·K]`: what `z` would have besides if the value bias were left in it
    pub value_bias: Tensor,
    /// Gain and bias of ln_2, `[D]` each
    pub norm2: (Tensor, Tensor),
}

/// The rows of contexts that stand one below the other: where each begins, and its tokens.
struct Rows(Vec<(usize, usize)>);

impl Rows {
    fn of(contexts: &[&[u32]]) -> Rows {
        let mut end = 0;
        let mut rows = |tokens: &&[u32]| {
            end += tokens.len();
            (end - tokens.len(), tokens.len())
        };
        Rows(contexts.iter().map(&mut rows).collect())
    }

    /// A context's part of `[ΣT, …]`.
    fn of_one(&self, all: &Tensor, i: usize) -> Result<Tensor> {
        let (start, tokens) = self.0[i];
        Ok(all.narrow(0, start, tokens)?)
    }
}

/// What one layer's heads make of a residual stream (see [`LayerTrace`]).
#[derive(Clone)]
pub(crate) struct Attended {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    scores: Tensor,
    pub pattern: Tensor,
    pub z: Tensor,
}

/// Subtracts the mean over the last axis.
fn centre(x: &Tensor) -> Result<Tensor> {
    Ok(x.broadcast_sub(&x.mean_keepdim(Last::Minus1)?)?)
}

fn f32(x: Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(DType::F32)?.contiguous()?)
}

/// `b + β·W` and `diag(g)·W` of a LayerNorm that feeds a matrix.
fn fold_norm(gain: &Tensor, beta: &Tensor, w: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let b = (b + beta.unsqueeze(0)?.matmul(w)?.squeeze(0)?)?;
    Ok((w.broadcast_mul(&gain.unsqueeze(1)?)?, b))
}

/// `W_E`, `W_U` and `b_U`. The unembedding is folded from the embedding as it is in the file:
/// centring it first would change the logits.
fn fold_embedding(
    file: &Checkpoint,
    sizes: &Sizes,
    tied: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (d, v) = (sizes.d_model, sizes.vocabulary);
    let stored = file.embedding(&[v, d], tied)?;
    let gain = file.get("ln_f.weight", &[d])?;
    let beta = file.get("ln_f.bias", &[d])?.unsqueeze(1)?;
    let sum = blocks(&stored)
        .try_fold(gain.zeros_like()?, |sum, rows| -> Result<_> { Ok((sum + rows?.sum(0)?)?) })?;
    let mean = (sum / v as f64)?;
    let (mut w_e, mut w_u, mut b_u) = (Vec::new(), Vec::new(), Vec::new());
    for rows in blocks(&stored) {
        let rows = rows?;
        w_e.push(f32(centre(&rows)?)?);
        w_u.push(f32(rows.broadcast_sub(&mean)?.broadcast_mul(&gain)?)?);
        b_u.push(rows.matmul(&beta)?.squeeze(1)?);
    }
    let w_u = Tensor::cat(&w_u, 0)?.t()?.contiguous()?;
    Ok((Tensor::cat(&w_e, 0)?, w_u, f32(centre(&Tensor::cat(&b_u, 0)?)?)?))
}

impl Layer {
    fn fold(file: &Checkpoint, layer: usize, sizes: &Sizes) -> Result<Layer> {
        let (d, m) = (sizes.d_model, sizes.d_mlp);
        let get = |name: &str, shape: &[usize]| file.get(&format!("h.{layer}.{name}"), shape);
        let (w_qkv, b_qkv) = fold_norm(
            &get("ln_1.weight", &[d])?,
            &get("ln_1.bias", &[d])?,
            &get("attn.c_attn.weight", &[d, 3 * d])?,
            &get("attn.c_attn.bias", &[3 * d])?,
        )?;
        let w_o = get("attn.c_proj.weight", &[d, d])?;
        let b_v = b_qkv.narrow(0, 2 * d, d)?;
        let b_o = (get("attn.c_proj.bias", &[d])? + b_v.unsqueeze(0)?.matmul(&w_o)?.squeeze(0)?)?;
        let no_value_bias = Tensor::cat(&[&b_qkv.narrow(0, 0, 2 * d)?, &b_v.zeros_like()?], 0)?;
        let (gain, beta) = (get("ln_2.weight", &[d])?, get("ln_2.bias", &[d])?);
        let (w_in, b_in) = fold_norm(
            &gain,
            &beta,
            &get("mlp.c_fc.weight", &[d, m])?,
            &get("mlp.c_fc.bias", &[m])?,
        )?;
        Ok(Layer {
            w_qkv: f32(w_qkv)?,
            b_qkv: f32(no_value_bias)?,
            w_o: f32(centre(&w_o)?)?,
            b_o: f32(centre(&b_o)?)?,
            w_in: f32(w_in)?,
            b_in: f32(b_in)?,
            w_out: f32(centre(&get("mlp.c_proj.weight", &[m, d])?)?)?,
            b_out: f32(centre(&get("mlp.c_proj.bias", &[d])?)?)?,
            unfolded: Unfolded { value_bias: f32(b_v)?, norm2: (f32(gain)?, f32(beta)?) },
        })
    }

    /// With attention's `c_proj`, which is square, read the other way round.
    pub(super) fn transposed(&self, file: &Checkpoint, layer: usize) -> Result<Layer> {
        let d = self.b_o.dim(0)?;
        let get = |name: &str, shape: &[usize]| file.get(&format!("h.{layer}.{name}"), shape);
        let w_o = get("attn.c_proj.weight", &[d, d])?.t()?.contiguous()?;
        let b_v = self.unfolded.value_bias.to_dtype(w_o.dtype())?;
        let b_o = (get("attn.c_proj.bias", &[d])? + b_v.unsqueeze(0)?.matmul(&w_o)?.squeeze(0)?)?;
        Ok(Layer { w_o: f32(centre(&w_o)?)?, b_o: f32(centre(&b_o)?)?, ..self.clone() })
    }
}

impl Gpt2 {
    /// The sizes that a Hugging Face folder's `config.json` gives.
    pub(crate) fn sizes_of(folder: &Path) -> Result<Sizes> {
        Ok(Config::load(&folder.join("config.json"))?.sizes())
    }

    /// The token that `config.json` says texts begin with; none where it does not say, or only
    /// repeats GPT-2's own, which a smaller vocabulary does not have.
    pub(crate) fn bos_of(folder: &Path) -> Result<Option<u32>> {
        Ok(Config::load(&folder.join("config.json"))?.bos())
    }

    /// Gain and bias of the LayerNorm in front of an MLP, `[D]` each.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn norm_of_mlp(folder: &Path, layer: usize) -> Result<(Tensor, Tensor)> {
        let d = Gpt2::sizes_of(folder)?.d_model;
        let file = Checkpoint::open(folder)?;
        let get = |name: &str| file.get(&format!("h.{layer}.ln_2.{name}"), &[d]);
        Ok((f32(get("weight")?)?, f32(get("bias")?)?))
    }

    /// Reads `config.json` and the weights of a Hugging Face folder and folds them, one tensor at a
    /// time.
    ///
    /// # Errors
    /// When a file or tensor is missing, of another shape, damaged, or of a model that is not a
    /// GPT-2.
    pub fn load(folder: &Path) -> Result<Gpt2> {
        let config = Config::load(&folder.join("config.json"))?;
        let sizes = config.sizes();
        let file = Checkpoint::open(folder)?;
        let (w_e, w_u, b_u) = fold_embedding(&file, &sizes, config.tie_word_embeddings)?;
        let w_p = file.get("wpe.weight", &[sizes.positions, sizes.d_model])?;
        Ok(Gpt2 {
            sizes,
            epsilon: config.layer_norm_epsilon,
            w_e,
            w_p: f32(centre(&w_p)?)?,
            layers: (0..sizes.layers)
                .map(|l| Layer::fold(&file, l, &sizes))
                .collect::<Result<_>>()?,
            w_u,
            b_u,
            parameters: file.parameters(),
            future: future(sizes.positions)?,
        })
    }

    /// The same model in another precision; what is in it already is shared.
    pub(crate) fn in_dtype(&self, dtype: DType) -> Result<Gpt2> {
        let to = |x: &Tensor| x.to_dtype(dtype);
        let layer = |layer: &Layer| -> Result<Layer> {
            let Unfolded { value_bias, norm2: (gain, beta) } = &layer.unfolded;
            Ok(Layer {
                w_qkv: to(&layer.w_qkv)?,
                b_qkv: to(&layer.b_qkv)?,
                w_o: to(&layer.w_o)?,
                b_o: to(&layer.b_o)?,
                w_in: to(&layer.w_in)?,
                b_in: to(&layer.b_in)?,
                w_out: to(&layer.w_out)?,
                b_out: to(&layer.b_out)?,
                unfolded: Unfolded { value_bias: to(value_bias)?, norm2: (to(gain)?, to(beta)?) },
            })
        };
        Ok(Gpt2 {
            sizes: self.sizes,
            epsilon: self.epsilon,
            w_e: to(&self.w_e)?,
            w_p: to(&self.w_p)?,
            layers: self.layers.iter().map(layer).collect::<Result<_>>()?,
            w_u: to(&self.w_u)?,
            b_u: to(&self.b_u)?,
            parameters: self.parameters,
            future: self.future.clone(),
        })
    }

    /// A clean pass over one context.
    ///
    /// # Errors
    /// When the context is empty, longer than the model's positions, or holds ids outside the
    /// vocabulary.
    pub fn forward(&self, tokens: &[u32]) -> Result<Trace> {
        self.forward_with(tokens, &Clean)
    }

    /// Clean passes over several contexts, one below the other in every matrix product: short ones
    /// use the machine badly alone. Each is [`Gpt2::forward`]'s own but for the last bits.
    pub(crate) fn forward_all(&self, contexts: &[&[u32]]) -> Result<Vec<Trace>> {
        let rows = Rows::of(contexts);
        let mut x = self.embed_all(contexts)?;
        let mut layers: Vec<Vec<LayerTrace>> = contexts.iter().map(|_| Vec::new()).collect();
        for l in 0..self.layers.len() {
            let (sigma1, attended) = (self.scale(&x)?, self.attend_all(l, &x, &rows)?);
            let z = Tensor::cat(&attended.iter().map(|one| &one.z).collect::<Vec<_>>(), 0)?;
            let attn_out = linear(&z, &self.layers[l].w_o, &self.layers[l].b_o)?;
            let mid = (&x + &attn_out)?;
            let sigma2 = self.scale(&mid)?;
            let x2 = self.x2(&mid)?;
            let mlp_out = self.mlp(l, &x2)?;
            for (i, Attended { q, k, v, scores, pattern, z }) in attended.into_iter().enumerate() {
                let own = |all: &Tensor| rows.of_one(all, i);
                let flat =
                    |all: &Tensor| -> Result<Vec<f32>> { Ok(own(all)?.flatten_all()?.to_vec1()?) };
                layers[i].push(LayerTrace {
                    resid_pre: own(&x)?,
                    sigma1: flat(&sigma1)?,
                    q,
                    k,
                    v,
                    scores,
                    pattern,
                    z,
                    attn_out: own(&attn_out)?,
                    resid_mid: own(&mid)?,
                    sigma2: flat(&sigma2)?,
                    x2: own(&x2)?,
                    mlp_out: own(&mlp_out)?,
                });
            }
            x = (mid + mlp_out)?;
        }
        layers
            .into_iter()
            .enumerate()
            .map(|(i, layers)| self.trace(rows.of_one(&x, i)?, layers))
            .collect()
    }

    fn trace(&self, resid_post: Tensor, layers: Vec<LayerTrace>) -> Result<Trace> {
        let sigma_f = self.scale(&resid_post)?.flatten_all()?.to_vec1()?;
        Ok(Trace { layers, resid_post, sigma_f })
    }

    /// A pass in which `intervention` may replace what components write.
    pub fn forward_with(&self, tokens: &[u32], intervention: &dyn Intervention) -> Result<Trace> {
        let mut x = self.embed(tokens)?;
        let mut traces = Vec::with_capacity(self.layers.len());
        for l in 0..self.layers.len() {
            let trace = self.block(l, x, intervention)?;
            x = (&trace.resid_mid + &trace.mlp_out)?;
            traces.push(trace);
        }
        self.trace(x, traces)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let sizes = &self.sizes;
        if tokens.is_empty() || tokens.len() > sizes.positions {
            return Err(hinted(
                format!(
                    "a context of {} tokens does not fit the model's {} positions",
                    tokens.len(),
                    sizes.positions
                ),
                "lower `corpus.context`, or shorten the prompt",
            ));
        }
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= sizes.vocabulary) {
            return Err(hinted(
                format!("token id {id} is outside the model's vocabulary of {}", sizes.vocabulary),
                "use the tokenizer.json that belongs to the model",
            ));
        }
        Ok(())
    }

    /// `σ = sqrt(mean(x²) + ε)`, `[T, 1]`
    pub(crate) fn scale(&self, x: &Tensor) -> Result<Tensor> {
        Ok((x.sqr()?.mean_keepdim(Last::Minus1)? + self.epsilon)?.sqrt()?)
    }

    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.check_tokens(tokens)?;
        let ids = Tensor::new(tokens, self.w_e.device())?;
        Ok((self.w_e.index_select(&ids, 0)? + self.w_p.narrow(0, 0, tokens.len())?)?)
    }

    fn embed_all(&self, contexts: &[&[u32]]) -> Result<Tensor> {
        let each = contexts.iter().map(|tokens| self.embed(tokens)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&each, 0)?)
    }

    /// What a layer's heads read, `x [ΣT, D]` → `σ₁ [ΣT, 1]` and the queries, keys and values `[ΣT,
    /// 3D]`.
    pub(crate) fn qkv(&self, l: usize, x: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.scale(x)?, self.projected(l, x)?))
    }

    /// The queries, keys and values of a layer, `x [ΣT, D]` → `[ΣT, 3D]`
    fn projected(&self, l: usize, x: &Tensor) -> Result<Tensor> {
        linear(&normed(x, self.epsilon)?, &self.layers[l].w_qkv, &self.layers[l].b_qkv)
    }

    /// What dictionaries read in contexts, by context and hook: `[T, D]`, row-major. Contexts stand
    /// one below the other in every matrix product, and each has the same bits whichever stand
    /// beside it; nothing is run that no hook needs.
    ///
    /// # Errors
    /// As of [`Gpt2::forward`].
    pub fn read(&self, contexts: &[&[u32]], hooks: &[DictionaryId]) -> Result<Vec<Vec<Vec<f32>>>> {
        let rows = Rows::of(contexts);
        // A product of one row is summed in another order.
        if let [(_, 1)] = rows.0[..] {
            return Ok(self
                .read(&[contexts[0], contexts[0]], hooks)?
                .into_iter()
                .take(1)
                .collect());
        }
        let mut read = vec![vec![Vec::new(); hooks.len()]; contexts.len()];
        let Some(last) = hooks.iter().map(|id| id.layer).max() else { return Ok(read) };
        let mut keep = |layer: usize, kind: Kind, holds: &Tensor| -> Result<()> {
            let Some(hook) = hooks.iter().position(|id| id.layer == layer && id.kind == kind)
            else {
                return Ok(());
            };
            for (i, own) in read.iter_mut().enumerate() {
                own[hook] = rows.of_one(holds, i)?.flatten_all()?.to_vec1()?;
            }
            Ok(())
        };
        let mut x = self.embed_all(contexts)?;
        for l in 0..=last {
            let qkv = self.projected(l, &x)?;
            let z = self.gather(&qkv, &rows)?;
            keep(l, Kind::Attention, &z)?;
            if l == last && hooks.iter().all(|id| id.layer < last || id.kind == Kind::Attention) {
                break;
            }
            let mid = self.after_attention(l, &x, &z)?;
            let x2 = self.x2(&mid)?;
            keep(l, Kind::Mlp, &x2)?;
            if l < last {
                x = self.onto_mlp(l, &mid, &x2)?;
            }
        }
        Ok(read)
    }

    /// What each context's heads make of `x [ΣT, D]`.
    fn attend_all(&self, l: usize, x: &Tensor, rows: &Rows) -> Result<Vec<Attended>> {
        let qkv = self.projected(l, x)?;
        let each = (0..rows.0.len()).into_par_iter().map(|i| self.look(&rows.of_one(&qkv, i)?));
        each.collect()
    }

    /// Queries, keys and values of one context, `[T, 3D]` → where its heads look and what they
    /// gather.
    pub(crate) fn look(&self, qkv: &Tensor) -> Result<Attended> {
        let t = qkv.dim(0)?;
        let (d, h, k) = (self.sizes.d_model, self.sizes.heads, self.sizes.d_head);
        let part = |i: usize| -> Result<Tensor> {
            Ok(qkv.narrow(1, i * d, d)?.reshape((t, h, k))?.transpose(0, 1)?.contiguous()?)
        };
        let (q, key, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.matmul(&key.t()?)? / (k as f64).sqrt())?;
        let pattern = self.pattern(&scores)?;
        let z = pattern.matmul(&v)?.transpose(0, 1)?.reshape((t, h * k))?;
        Ok(Attended { q, k: key, v, scores, pattern, z })
    }

    /// `x2 [T, D]` → `mlp_out [T, D]`
    pub(super) fn mlp(&self, l: usize, x2: &Tensor) -> Result<Tensor> {
        linear(&self.units(l, x2)?, &self.layers[l].w_out, &self.layers[l].b_out)
    }

    /// Residual stream before an MLP and what the MLP reads of it → the stream after it, `[T, D]`
    fn onto_mlp(&self, l: usize, mid: &Tensor, x2: &Tensor) -> Result<Tensor> {
        linear_onto(mid, &self.units(l, x2)?, &self.layers[l].w_out, &self.layers[l].b_out)
    }

    /// The activations of an MLP's units, `x2 [T, D]` → `[T, M]`
    pub(crate) fn units(&self, l: usize, x2: &Tensor) -> Result<Tensor> {
        let layer = &self.layers[l];
        linear_gelu(x2, &layer.w_in, &layer.b_in)
    }

    fn block(&self, l: usize, x: Tensor, intervention: &dyn Intervention) -> Result<LayerTrace> {
        let (sigma1, qkv) = self.qkv(l, &x)?;
        let Attended { q, k, v, scores, pattern, z } = self.look(&qkv)?;
        let z = intervention.z(l, z)?;
        let attn_out = linear(&z, &self.layers[l].w_o, &self.layers[l].b_o)?;
        let resid_mid = (&x + &attn_out)?;
        let sigma2 = self.scale(&resid_mid)?;
        let x2 = self.x2(&resid_mid)?;
        let mlp_out = intervention.mlp_out(l, &x2, self.mlp(l, &x2)?)?;
        let [sigma1, sigma2] = [sigma1.flatten_all()?.to_vec1()?, sigma2.flatten_all()?.to_vec1()?];
        Ok(LayerTrace {
            resid_pre: x,
            sigma1,
            q,
            k,
            v,
            scores,
            pattern,
            z,
            attn_out,
            resid_mid,
            sigma2,
            x2,
            mlp_out,
        })
    }

    /// The residual stream after a block.
    fn through(&self, l: usize, x: &Tensor, intervention: &dyn Intervention) -> Result<Tensor> {
        let z = intervention.z(l, self.look(&self.qkv(l, x)?.1)?.z)?;
        let mid = self.after_attention(l, x, &z)?;
        let x2 = self.x2(&mid)?;
        let mlp_out = intervention.mlp_out(l, &x2, self.mlp(l, &x2)?)?;
        Ok((mid + mlp_out)?)
    }

    /// Residual stream before a block and what its heads give, `z [T, H·K]` → the stream before its
    /// MLP, `[T, D]`
    pub(crate) fn after_attention(&self, l: usize, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        linear_onto(x, z, &self.layers[l].w_o, &self.layers[l].b_o)
    }

    /// What an MLP reads of the residual stream before it.
    pub(super) fn x2(&self, mid: &Tensor) -> Result<Tensor> {
        normed(mid, self.epsilon)
    }

    /// Runs prompts one below the other, so that what steps in works on all of them at once, and
    /// runs only what it asks for. Gives the logits at each one's last position, `[V]`.
    pub(crate) fn abreast(&self, prompts: &[&[u32]], step: &dyn Abreast) -> Result<Vec<Vec<f32>>> {
        let rows = Rows::of(prompts);
        let ends: Vec<u32> = rows.0.iter().map(|(start, t)| (start + t - 1) as u32).collect();
        let ends = Tensor::new(ends, self.w_e.device())?;
        let mut x = self.embed_all(prompts)?;
        for l in 0..self.sizes.layers {
            let is_last = l + 1 == self.sizes.layers;
            let queries = if is_last { Queries::Last } else { Queries::All };
            let heads = || self.gather_for(queries, &self.projected(l, &x)?, &rows);
            let z = step.z(l, &heads)?;
            let before = if is_last { x.index_select(&ends, 0)? } else { x };
            let mid = self.after_attention(l, &before, &z)?;
            let x2 = self.x2(&mid)?;
            let mlp_out = step.mlp_out(l, &x2, &|| self.mlp(l, &x2))?;
            x = (mid + mlp_out)?;
        }
        Ok(self.unembed(&x)?.to_vec2()?)
    }

    /// `z` of the first layer in several contexts, `[T, H·K]` each: nothing is before it.
    pub(crate) fn first_z(&self, contexts: &[&[u32]]) -> Result<Vec<Tensor>> {
        let (rows, x) = (Rows::of(contexts), self.embed_all(contexts)?);
        let z = self.gather(&self.projected(0, &x)?, &rows)?;
        (0..contexts.len()).map(|i| rows.of_one(&z, i)).collect()
    }

    /// Where heads look: the softmax of scores `[H, T, T]`, over no position ahead.
    fn pattern(&self, scores: &Tensor) -> Result<Tensor> {
        if scores.dtype() == DType::F32 {
            return causal_softmax(scores);
        }
        let t = scores.dim(Last::Minus1)?;
        let ahead = self.future.narrow(0, 0, t)?.narrow(1, 0, t)?.broadcast_as(scores.shape())?;
        let never = Tensor::new(f32::NEG_INFINITY, scores.device())?.to_dtype(scores.dtype())?;
        let never = never.broadcast_as(scores.shape())?;
        Ok(candle_nn::ops::softmax_last_dim(&ahead.where_cond(&never, scores)?)?)
    }

    /// Logits `[T, V]` of a pass that goes on from the residual stream before block `layer` with an
    /// intervention.
    pub fn logits_from(
        &self,
        resid_pre: &Tensor,
        layer: usize,
        intervention: &dyn Intervention,
    ) -> Result<Tensor> {
        let mut x = resid_pre.clone();
        for l in layer..self.layers.len() {
            x = self.through(l, &x, intervention)?;
        }
        self.unembed(&x)
    }

    /// The MLP of a layer with the erf form of GELU, which GPT-2 does not use: `x2 [T, D]` → `[T,
    /// D]`
    pub fn mlp_with_erf(&self, layer: usize, x2: &Tensor) -> Result<Tensor> {
        let layer = &self.layers[layer];
        linear(&linear(x2, &layer.w_in, &layer.b_in)?.gelu_erf()?, &layer.w_out, &layer.b_out)
    }

    /// Logits of a pass at every position, `[T, V]`.
    pub fn logits(&self, trace: &Trace) -> Result<Tensor> {
        self.unembed(&trace.resid_post)
    }

    /// Logits at the last position, `[V]`.
    pub fn last_logits(&self, trace: &Trace) -> Result<Vec<f32>> {
        self.last_of(&trace.resid_post)
    }

    /// Logits at the last position of a residual stream `[T, D]`.
    fn last_of(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(self.unembed(&x.narrow(0, x.dim(0)? - 1, 1)?)?.squeeze(0)?.to_vec1()?)
    }

    pub(crate) fn unembed(&self, x: &Tensor) -> Result<Tensor> {
        linear(&normed(x, self.epsilon)?, &self.w_u, &self.b_u)
    }
}

/// `[P, P]` of u8: 1 above the diagonal.
fn future(positions: usize) -> Result<Tensor> {
    let ahead: Vec<u8> =
        (0..positions).flat_map(|i| (0..positions).map(move |j| u8::from(j > i))).collect();
    Ok(Tensor::from_vec(ahead, (positions, positions), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_that_of_a_whole_pass_whichever_contexts_stand_beside_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
        let model = Gpt2::load(&folder).unwrap();
        let context = |tokens: usize| -> Vec<u32> {
            let draw = |i| crate::stats::mix(tokens as u64, i) as u32 % 2000;
            (0..tokens as u64).map(draw).collect()
        };
        let contexts = [1, 40, 2, 1, 128, 17].map(context);
        let tokens: Vec<&[u32]> = contexts.iter().map(Vec::as_slice).collect();
        let all: Vec<DictionaryId> = DictionaryId::all(model.sizes.layers).collect();
        let together = model.read(&tokens, &all).unwrap();
        for (own, tokens) in together.iter().zip(&tokens) {
            let trace = model.forward(tokens).unwrap();
            for (id, own) in all.iter().zip(own) {
                let layer = &trace.layers[id.layer];
                let hook = if id.kind == Kind::Attention { &layer.z } else { &layer.x2 };
                let wanted: Vec<f32> = hook.flatten_all().unwrap().to_vec1().unwrap();
                assert_eq!(own.len(), wanted.len());
                assert!(own.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-4), "{id}");
            }
            // The same bits alone, and of fewer hooks.
            assert_eq!(model.read(&[tokens], &all).unwrap()[0], *own);
            let few = [all[1], all[4]];
            assert_eq!(model.read(&[tokens], &few).unwrap()[0], [own[1].clone(), own[4].clone()]);
        }
        assert_eq!(model.read(&tokens, &[]).unwrap(), vec![Vec::<Vec<f32>>::new(); 6]);
    }
}
