//! One clean pass taken apart: the residual stream as a sum of terms (DESIGN.md 4.3), and every term's direct effect on
//! the root, a feature or a head (4.4), with scales and patterns frozen.
//!
//! Letters: `D` d_model, `H` heads, `K` d_head, `T` tokens. Vectors are plain slices here: a receiver reads a few hundred
//! terms along one direction, which is a loop, not a matrix product.

use super::graph::{Bias, Node, NodeKind, Slot};
use crate::dictionary::{Active, Dictionary};
use crate::error::Result;
use crate::ids::Kind;
use crate::model::{Gpt2, Trace};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;

/// A model and its dictionaries, with what attribution reads from them laid out for it.
pub struct World {
    pub model: Gpt2,
    /// By layer.
    pub attention: Vec<Dictionary>,
    /// By layer.
    pub mlp: Vec<Dictionary>,
    /// By layer: `W_Q|W_K|W_V` `[D, 3D]` and their biases `[3D]`, row-major.
    qkv: Vec<(Vec<f32>, Vec<f32>)>,
}

impl World {
    /// Dictionaries are by layer, one each.
    pub fn new(model: Gpt2, attention: Vec<Dictionary>, mlp: Vec<Dictionary>) -> Result<World> {
        let flat = |layer: &crate::model::Layer| Ok((layer.w_qkv.flatten_all()?.to_vec1()?, layer.b_qkv.to_vec1()?));
        let qkv = model.layers.iter().map(flat).collect::<Result<_>>()?;
        Ok(World { model, attention, mlp, qkv })
    }

    /// A direction of head space taken back through a head's block of `W_Q|W_K|W_V`: `W·x`, `[D]`.
    fn back(&self, layer: usize, block: usize, head: usize, x: &[f32]) -> Vec<f32> {
        let (d, k) = (self.model.sizes.d_model, self.model.sizes.d_head);
        let from = block * d + head * k;
        self.qkv[layer].0.chunks_exact(3 * d).map(|row| dot(&row[from..from + k], x)).collect()
    }

    /// A head's bias in a block dotted with `x`.
    fn bias(&self, layer: usize, block: usize, head: usize, x: &[f32]) -> f32 {
        let (d, k) = (self.model.sizes.d_model, self.model.sizes.d_head);
        dot(&self.qkv[layer].1[block * d + head * k..][..k], x)
    }
}

/// What the root reads at the last position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Logit of `correct` less logit of `counter`.
    LogitDifference { correct: u32, counter: u32 },
    /// Logit of one token (less the mean logit, as the model is folded).
    Logit(u32),
}

/// Direct effects on a receiver's slot: `Σ effects + bias = total`.
pub struct Contributions<'a> {
    pub nodes: Cow<'a, [Node]>,
    pub effects: Vec<f32>,
    pub bias: f32,
    /// What the receiver reads.
    pub total: f32,
}

impl Contributions<'_> {
    /// `Σ|effect|`, the bias included.
    pub fn whole(&self) -> f64 {
        self.effects.iter().map(|e| f64::from(e.abs())).sum::<f64>() + f64::from(self.bias.abs())
    }

    /// `|effect|` as a share of the [whole](Contributions::whole), in the order of the effects.
    pub fn shares(&self) -> Vec<f32> {
        let whole = self.whole();
        self.effects.iter().map(|&effect| share(effect, whole)).collect()
    }
}

/// An effect as a share of the sum of all; 0 where there are none.
pub fn share(effect: f32, whole: f64) -> f32 {
    if whole > 0.0 { (f64::from(effect.abs()) / whole) as f32 } else { 0.0 }
}

/// The terms of the residual stream at one position, in the order they are written.
struct Terms {
    nodes: Vec<Node>,
    /// `[n, D]`
    rows: Vec<f32>,
    /// Number of terms before each sublayer: `2l` attention of `l`, `2l + 1` its MLP, `2L` the final LayerNorm.
    before: Vec<usize>,
}

/// A clean pass over a prompt, and what its dictionaries make of it.
pub struct Pass {
    trace: Trace,
    /// By layer and position.
    attention: Vec<Vec<Active>>,
    /// By layer and position.
    mlp: Vec<Vec<Active>>,
}

impl World {
    /// Runs the model over prompts (BOS first) and encodes what the dictionaries read, one dictionary at a time for all of
    /// them: a whole encoder is large, and is copied into memory only once here.
    pub fn passes(&self, prompts: &[&[u32]]) -> Result<Vec<Pass>> {
        self.encode(self.traces(prompts)?)
    }

    /// Runs the model over prompts.
    pub fn traces(&self, prompts: &[&[u32]]) -> Result<Vec<Trace>> {
        prompts.par_iter().map(|tokens| self.model.forward(tokens)).collect()
    }

    /// Encodes what the dictionaries read.
    pub fn encode(&self, traces: Vec<Trace>) -> Result<Vec<Pass>> {
        let mut passes: Vec<Pass> =
            traces.into_iter().map(|trace| Pass { trace, attention: Vec::new(), mlp: Vec::new() }).collect();
        for layer in 0..self.model.sizes.layers {
            let z = encoded(&self.attention[layer], passes.iter().map(|pass| &pass.trace.layers[layer].z))?;
            let x2 = encoded(&self.mlp[layer], passes.iter().map(|pass| &pass.trace.layers[layer].x2))?;
            for ((pass, z), x2) in passes.iter_mut().zip(z).zip(x2) {
                pass.attention.push(z);
                pass.mlp.push(x2);
            }
        }
        Ok(passes)
    }
}

/// The active features of each token of each input `[T, d_in]`.
fn encoded<'t>(dictionary: &Dictionary, inputs: impl Iterator<Item = &'t Tensor>) -> Result<Vec<Vec<Active>>> {
    let inputs: Vec<&Tensor> = inputs.collect();
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let mut active = dictionary.encoder()?.active(&Tensor::cat(&inputs, 0)?)?.into_iter();
    inputs.iter().map(|x| Ok(active.by_ref().take(x.dim(0)?).collect())).collect()
}

/// A clean pass over one prompt with all dictionaries applied, taken apart.
pub struct Attribution<'a> {
    world: &'a World,
    trace: Trace,
    layers: Vec<Parts>,
    positions: Vec<Terms>,
    t: usize,
}

/// One layer's tensors as slices, and its active features by position.
struct Parts {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
    pattern: Vec<f32>,
    attention: Vec<Active>,
    mlp: Vec<Active>,
    /// `z − ẑ`, `[T, H·K]`
    error: Vec<f32>,
}

/// Active features of all positions as one list: (position, feature, activation).
fn listed(active: &[Active]) -> Vec<(usize, u32, f32)> {
    active.iter().enumerate().flat_map(|(p, row)| row.iter().map(move |&(f, a)| (p, f, a))).collect()
}

/// `a_f·W_dec[f]` of each listed feature, `[n, d_out]`
fn written(dictionary: &Dictionary, listed: &[(usize, u32, f32)]) -> Result<Tensor> {
    let row = |&(_, f, a): &(usize, u32, f32)| -> Result<Vec<f32>> {
        Ok(dictionary.write_direction(f as usize)?.into_iter().map(|w| a * w).collect())
    };
    let rows = listed.iter().map(row).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::from_vec(rows.concat(), (listed.len(), dictionary.b_out().len()), &Device::Cpu)?)
}

fn centre(rows: &mut [f32], d: usize) {
    for row in rows.chunks_exact_mut(d) {
        let mean = (row.iter().map(|&x| f64::from(x)).sum::<f64>() / d as f64) as f32;
        row.iter_mut().for_each(|x| *x -= mean);
    }
}

fn flat(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.flatten_all()?.to_vec1()?)
}

/// Row `p` of `[T, n]`.
fn row(x: &Tensor, p: usize) -> Result<Vec<f32>> {
    flat(&x.narrow(0, p, 1)?)
}

/// Dot product in eight lanes, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

impl Terms {
    fn push(&mut self, node: Node, row: &[f32]) {
        self.nodes.push(node);
        self.rows.extend_from_slice(row);
    }
}

impl<'a> Attribution<'a> {
    /// Runs the model over a prompt (BOS first) and takes the pass apart.
    pub fn new(world: &'a World, tokens: &[u32]) -> Result<Attribution<'a>> {
        let pass = world.passes(&[tokens])?.remove(0);
        Attribution::of(world, pass, tokens)
    }

    /// Takes a pass over a prompt apart.
    pub fn of(world: &'a World, pass: Pass, tokens: &[u32]) -> Result<Attribution<'a>> {
        let Pass { trace, attention, mlp } = pass;
        let mut positions = embeddings(&world.model, tokens)?;
        let mut layers = Vec::with_capacity(trace.layers.len());
        for (l, active) in attention.into_iter().zip(mlp).enumerate() {
            layers.push(add_layer(world, &trace, l, active, &mut positions)?);
        }
        positions.iter_mut().for_each(|terms| terms.before.push(terms.nodes.len()));
        Ok(Attribution { world, trace, layers, positions, t: tokens.len() })
    }

    /// The pass.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The terms at a position before a sublayer (`2l` attention, `2l + 1` MLP, `2L` the end): nodes, and rows `[n, D]`.
    pub fn terms(&self, before: usize, position: usize) -> (&[Node], &[f32]) {
        let terms = &self.positions[position];
        let n = terms.before[before];
        (&terms.nodes[..n], &terms.rows[..n * self.world.model.sizes.d_model])
    }

    /// A feature node's activation.
    pub fn activation(&self, node: &Node) -> Option<f32> {
        let parts = self.layers.get(usize::try_from(node.layer).ok()?)?;
        let active = match node.kind {
            NodeKind::AttentionFeature => &parts.attention,
            NodeKind::MlpFeature => &parts.mlp,
            _ => return None,
        };
        let row = &active[node.position as usize];
        row.iter().find(|(f, _)| *f as i32 == node.feature).map(|&(_, a)| a)
    }

    /// The entry of the attention pattern at which a head node reads its source.
    pub fn pattern(&self, node: &Node) -> f32 {
        let [l, h, p, s] = [node.layer, node.head, node.position, node.source].map(|x| x as usize);
        self.layers[l].pattern[(h * self.t + p) * self.t + s]
    }

    /// Direct effects on a receiver's slot of every term; for an attention feature or an SAE error, of every head. Those
    /// on the root depend on which: see [`Attribution::on_root`].
    pub fn contributions(&self, node: &Node, slot: Slot) -> Result<Contributions<'_>> {
        match node.kind {
            NodeKind::MlpFeature => self.on_mlp_feature(node),
            NodeKind::AttentionFeature | NodeKind::AttentionError => self.on_attention(node),
            NodeKind::Head if slot == Slot::V => self.on_value(node),
            NodeKind::Head => Ok(self.on_score(node, slot)),
            _ => Ok(Contributions { nodes: Cow::Borrowed(&[]), effects: Vec::new(), bias: 0.0, total: 0.0 }),
        }
    }

    /// Effects of the terms at a position on what reads them along `direction` at scale `sigma`.
    fn linear(&self, before: usize, position: usize, direction: &[f32], sigma: f32) -> (Cow<'_, [Node]>, Vec<f32>) {
        let (nodes, rows) = self.terms(before, position);
        let effects = rows.chunks_exact(direction.len()).map(|row| dot(row, direction) / sigma).collect();
        (nodes.into(), effects)
    }

    /// Direct effects on a root of every term at the last position.
    pub fn on_root(&self, root: Root) -> Result<Contributions<'_>> {
        let model = &self.world.model;
        let column = |id: u32| flat(&model.w_u.narrow(1, id as usize, 1)?);
        let b_u = |id: u32| -> Result<f32> { Ok(model.b_u.get(id as usize)?.to_scalar::<f32>()?) };
        let logits = model.last_logits(&self.trace)?;
        let (direction, bias, total) = match root {
            Root::Logit(id) => (column(id)?, b_u(id)?, logits[id as usize]),
            Root::LogitDifference { correct, counter } => {
                let direction = column(correct)?.iter().zip(column(counter)?).map(|(a, b)| a - b).collect();
                (direction, b_u(correct)? - b_u(counter)?, logits[correct as usize] - logits[counter as usize])
            }
        };
        let last = self.t - 1;
        let (nodes, effects) = self.linear(2 * self.layers.len(), last, &direction, self.trace.sigma_f[last]);
        Ok(Contributions { nodes, effects, bias, total })
    }

    fn on_mlp_feature(&self, node: &Node) -> Result<Contributions<'_>> {
        let (l, p, f) = (node.layer as usize, node.position as usize, node.feature as usize);
        let dictionary = &self.world.mlp[l];
        let direction = dictionary.read_direction(f)?;
        let (nodes, effects) = self.linear(2 * l + 1, p, &direction, self.trace.layers[l].sigma2[p]);
        let bias = dictionary.read_bias(f);
        let total = dot(&row(&self.trace.layers[l].x2, p)?, &direction) + bias;
        Ok(Contributions { nodes, effects, bias, total })
    }

    /// What an attention feature, an SAE error, or the head that serves one, reads from `z`: `[H·K]`
    fn reads(&self, node: &Node) -> Result<Vec<f32>> {
        let (l, p) = (node.layer as usize, node.position as usize);
        if node.feature >= 0 {
            return self.world.attention[l].read_direction(node.feature as usize);
        }
        let width = self.world.model.sizes.d_model;
        let error = &self.layers[l].error[p * width..][..width];
        let norm = dot(error, error).sqrt();
        Ok(error.iter().map(|e| if norm > 0.0 { e / norm } else { 0.0 }).collect())
    }

    fn on_attention(&self, node: &Node) -> Result<Contributions<'_>> {
        let (l, p, heads) = (node.layer as usize, node.position as usize, self.world.model.sizes.heads);
        let g = self.reads(node)?;
        let mut nodes = Vec::with_capacity(heads * (p + 1));
        let mut effects = Vec::with_capacity(heads * (p + 1));
        for head in 0..heads {
            for source in 0..=p {
                let (h, s) = (head as i32, source as i32);
                nodes.push(Node { kind: NodeKind::Head, head: h, source: s, ..*node });
                effects.push(self.moved(l, head, source, p, &g));
            }
        }
        let is_feature = node.kind == NodeKind::AttentionFeature;
        let bias = if is_feature { self.world.attention[l].read_bias(node.feature as usize) } else { 0.0 };
        let total = dot(&row(&self.trace.layers[l].z, p)?, &g) + bias;
        Ok(Contributions { nodes: nodes.into(), effects, bias, total })
    }

    /// `A[h, p, s]·(v_{h,s}·g_h)`
    fn moved(&self, l: usize, head: usize, source: usize, p: usize, g: &[f32]) -> f32 {
        let k = self.world.model.sizes.d_head;
        let parts = &self.layers[l];
        let a = parts.pattern[(head * self.t + p) * self.t + source];
        a * dot(&parts.v[(head * self.t + source) * k..][..k], &g[head * k..][..k])
    }

    fn on_value(&self, node: &Node) -> Result<Contributions<'_>> {
        let (l, p, s, h) = (node.layer as usize, node.position as usize, node.source as usize, node.head as usize);
        let k = self.world.model.sizes.d_head;
        let g = self.reads(node)?;
        let a = self.layers[l].pattern[(h * self.t + p) * self.t + s];
        let mut direction = self.world.back(l, 2, h, &g[h * k..][..k]);
        direction.iter_mut().for_each(|x| *x *= a);
        let (nodes, effects) = self.linear(2 * l, s, &direction, self.trace.layers[l].sigma1[s]);
        Ok(Contributions { nodes, effects, bias: 0.0, total: self.moved(l, h, s, p, &g) })
    }

    /// The q or k slot of a head: effects on its attention score.
    fn on_score(&self, node: &Node, slot: Slot) -> Contributions<'_> {
        let (l, p, s, h) = (node.layer as usize, node.position as usize, node.source as usize, node.head as usize);
        let (k, parts) = (self.world.model.sizes.d_head, &self.layers[l]);
        // What is read at `at` is met by the other side's vector at `with`.
        let (block, at, other, with) = if slot == Slot::Q { (0, p, &parts.k, s) } else { (1, s, &parts.q, p) };
        let root_k = (k as f32).sqrt();
        let x: Vec<f32> = other[(h * self.t + with) * k..][..k].iter().map(|x| x / root_k).collect();
        let direction = self.world.back(l, block, h, &x);
        let (nodes, effects) = self.linear(2 * l, at, &direction, self.trace.layers[l].sigma1[at]);
        let total = parts.scores[(h * self.t + p) * self.t + s];
        Contributions { nodes, effects, bias: self.world.bias(l, block, h, &x), total }
    }
}

fn embeddings(model: &Gpt2, tokens: &[u32]) -> Result<Vec<Terms>> {
    let ids = Tensor::new(tokens, model.w_e.device())?;
    let (token, place) = (model.w_e.index_select(&ids, 0)?.to_vec2::<f32>()?, model.w_p.narrow(0, 0, tokens.len())?);
    let start = |(p, (e, w)): (usize, (Vec<f32>, Vec<f32>))| {
        let mut terms = Terms { nodes: Vec::new(), rows: Vec::new(), before: Vec::new() };
        terms.push(Node::embedding(NodeKind::Embedding, p), &e);
        terms.push(Node::embedding(NodeKind::PositionEmbedding, p), &w);
        terms
    };
    Ok(token.into_iter().zip(place.to_vec2::<f32>()?).enumerate().map(start).collect())
}

/// Adds one layer's terms at every position, and returns the layer's parts.
fn add_layer(
    world: &World,
    trace: &Trace,
    l: usize,
    (attention, mlp): (Vec<Active>, Vec<Active>),
    positions: &mut [Terms],
) -> Result<Parts> {
    let (layer, t) = (&trace.layers[l], positions.len());
    let d = world.model.sizes.d_model;
    positions.iter_mut().for_each(|terms| terms.before.push(terms.nodes.len()));
    let (sae, w_o) = (&world.attention[l], &world.model.layers[l].w_o);
    let error = (&layer.z - sae.decode(&attention)?)?;
    let list = listed(&attention);
    add_features(positions, Kind::Attention, l, &list, || flat(&written(sae, &list)?.matmul(w_o)?))?;
    add_each(positions, &flat(&error.matmul(w_o)?)?, |p| Node::at(NodeKind::AttentionError, l, p));
    let b_dec = flat(&Tensor::new(sae.b_out(), w_o.device())?.unsqueeze(0)?.matmul(w_o)?)?;
    let b_o = flat(&world.model.layers[l].b_o)?;
    add_each(positions, &b_dec.repeat(t), |p| Node::at(NodeKind::Bias(Bias::AttentionDictionary), l, p));
    add_each(positions, &b_o.repeat(t), |p| Node::at(NodeKind::Bias(Bias::Attention), l, p));

    positions.iter_mut().for_each(|terms| terms.before.push(terms.nodes.len()));
    let transcoder = &world.mlp[l];
    let list = listed(&mlp);
    // What the projection takes off these rows cancels, as `mlp_out` itself is centred.
    let centred = |mut rows: Vec<f32>| {
        centre(&mut rows, d);
        rows
    };
    add_features(positions, Kind::Mlp, l, &list, || Ok(centred(flat(&written(transcoder, &list)?)?)))?;
    let missed = centred(flat(&(&layer.mlp_out - transcoder.decode(&mlp)?)?)?);
    add_each(positions, &missed, |p| Node::at(NodeKind::MlpError, l, p));
    let b_out = centred(transcoder.b_out().to_vec());
    add_each(positions, &b_out.repeat(t), |p| Node::at(NodeKind::Bias(Bias::MlpDictionary), l, p));

    let [q, k, v] = [flat(&layer.q)?, flat(&layer.k)?, flat(&layer.v)?];
    let [scores, pattern] = [flat(&layer.scores)?, flat(&layer.pattern)?];
    Ok(Parts { q, k, v, scores, pattern, attention, mlp, error: flat(&error)? })
}

fn add_features(
    positions: &mut [Terms],
    kind: Kind,
    l: usize,
    list: &[(usize, u32, f32)],
    rows: impl FnOnce() -> Result<Vec<f32>>,
) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let rows = rows()?;
    let d = rows.len() / list.len();
    for (&(p, f, _), row) in list.iter().zip(rows.chunks_exact(d)) {
        positions[p].push(Node::feature(kind, l, p, f), row);
    }
    Ok(())
}

fn add_each(positions: &mut [Terms], rows: &[f32], node: impl Fn(usize) -> Node) {
    let d = rows.len() / positions.len();
    for (p, (terms, row)) in positions.iter_mut().zip(rows.chunks_exact(d)).enumerate() {
        terms.push(node(p), row);
    }
}
