//! Every term's direct effect on the root, a feature or a head in one clean pass
//! (`docs/definitions.md` §5), with scales and patterns frozen.
//!
//! Letters: `D` d_model, `H` heads, `K` d_head, `T` tokens. Vectors are plain slices here: a
//! receiver reads a few hundred terms along one direction, which is a loop, not a matrix product.

use super::graph::Node;
use super::replacement::{Pass, ReplacementModel, dot, flat, row};
use super::terms::Stream;
use crate::error::Result;
use crate::ids::{NodeKind, Slot};
use crate::model::{LayerTrace, Trace};
use std::borrow::Cow;

/// What the root reads at the last position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Logit of `correct` less logit of `counter`.
    LogitDifference {
        /// Token id of the right answer.
        correct: u32,
        /// Token id of the wrong answer.
        counter: u32,
    },
    /// Logit of one token (less the mean logit, as the model is folded).
    Logit(u32),
}

impl Root {
    /// What it reads of the logits `[V]` at the last position.
    pub fn of(self, logits: &[f32]) -> f32 {
        match self {
            Root::LogitDifference { correct, counter } => {
                logits[correct as usize] - logits[counter as usize]
            }
            Root::Logit(id) => logits[id as usize],
        }
    }
}

/// Direct effects on a receiver's slot: `Σ effects + bias = total`.
pub struct Contributions<'a> {
    /// What contributes.
    pub nodes: Cow<'a, [Node]>,
    /// Direct effects, in the order of `nodes`.
    pub effects: Vec<f32>,
    /// The receiver's constant, which no node stands for.
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
pub(super) fn share(effect: f32, whole: f64) -> f32 {
    if whole > 0.0 { (f64::from(effect.abs()) / whole) as f32 } else { 0.0 }
}

/// A clean pass over one prompt with all dictionaries applied, taken apart.
pub struct Attribution<'a> {
    replacement: &'a ReplacementModel,
    stream: Stream<'a>,
    layers: Vec<Parts>,
    t: usize,
}

/// One layer's tensors as slices.
struct Parts {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
    pattern: Vec<f32>,
}

impl Parts {
    fn of(layer: &LayerTrace) -> Result<Parts> {
        let LayerTrace { q, k, v, scores, pattern, .. } = layer;
        let [q, k, v] = [flat(q)?, flat(k)?, flat(v)?];
        Ok(Parts { q, k, v, scores: flat(scores)?, pattern: flat(pattern)? })
    }
}

impl<'a> Attribution<'a> {
    /// Runs the model over a prompt (BOS first) and takes the pass apart.
    pub fn new(replacement: &'a ReplacementModel, tokens: &[u32]) -> Result<Attribution<'a>> {
        let pass = replacement.passes(&[tokens])?.remove(0);
        Attribution::of(replacement, pass, tokens)
    }

    /// Takes a pass over a prompt apart.
    pub fn of(
        replacement: &'a ReplacementModel,
        pass: Pass,
        tokens: &[u32],
    ) -> Result<Attribution<'a>> {
        let layers = pass.trace().layers.iter().map(Parts::of).collect::<Result<_>>()?;
        Ok(Attribution {
            replacement,
            stream: Stream::new(replacement, pass, tokens),
            layers,
            t: tokens.len(),
        })
    }

    pub(super) fn replacement(&self) -> &'a ReplacementModel {
        self.replacement
    }

    /// Tokens of the prompt.
    pub(super) fn tokens(&self) -> usize {
        self.t
    }

    /// The pass.
    pub fn trace(&self) -> &Trace {
        self.stream.trace()
    }

    /// The terms that the residual streams are sums of.
    pub fn stream(&self) -> &Stream<'a> {
        &self.stream
    }

    /// A feature node's activation.
    pub fn activation(&self, node: &Node) -> Option<f32> {
        self.stream.activation(node)
    }

    /// The entry of the attention pattern at which a head node reads its source.
    pub fn pattern(&self, node: &Node) -> f32 {
        let (l, h, p, s) = (node.layer(), node.head(), node.position(), node.source());
        self.layers[l].pattern[(h * self.t + p) * self.t + s]
    }

    /// Direct effects on a receiver's slot of every term; for an attention feature or an SAE error,
    /// of every head. Those on the root depend on which: see [`Attribution::on_root`].
    pub fn contributions(&self, node: &Node, slot: Slot) -> Result<Contributions<'_>> {
        match node.kind {
            NodeKind::MlpFeature => self.on_mlp_feature(node),
            NodeKind::AttentionFeature | NodeKind::AttentionError => self.on_attention(node),
            NodeKind::Head if slot == Slot::V => self.on_value(node),
            NodeKind::Head => self.on_score(node, slot),
            _ => Ok(Contributions {
                nodes: Cow::Borrowed(&[]),
                effects: Vec::new(),
                bias: 0.0,
                total: 0.0,
            }),
        }
    }

    /// Effects of the terms at a position on what reads them along `direction` at scale `sigma`.
    fn linear(
        &self,
        before: usize,
        p: usize,
        direction: &[f32],
        sigma: f32,
    ) -> Result<(Cow<'_, [Node]>, Vec<f32>)> {
        let mut effects = self.stream.along(before, p, direction)?;
        effects.iter_mut().for_each(|effect| *effect /= sigma);
        Ok((self.stream.nodes(before, p).into(), effects))
    }

    /// Direct effects on a root of every term at the last position.
    pub fn on_root(&self, root: Root) -> Result<Contributions<'_>> {
        let model = &self.replacement.model;
        let column = |id: u32| flat(&model.w_u.narrow(1, id as usize, 1)?);
        let b_u = |id: u32| -> Result<f32> { Ok(model.b_u.get(id as usize)?.to_scalar::<f32>()?) };
        let (direction, bias) = match root {
            Root::Logit(id) => (column(id)?, b_u(id)?),
            Root::LogitDifference { correct, counter } => {
                let direction: Vec<f32> =
                    column(correct)?.iter().zip(column(counter)?).map(|(a, b)| a - b).collect();
                (direction, b_u(correct)? - b_u(counter)?)
            }
        };
        let (last, sigma) = (self.t - 1, self.trace().sigma_f[self.t - 1]);
        let (nodes, effects) = self.linear(2 * self.layers.len(), last, &direction, sigma)?;
        let total = dot(&row(&self.trace().resid_post, last)?, &direction) / sigma + bias;
        Ok(Contributions { nodes, effects, bias, total })
    }

    fn on_mlp_feature(&self, node: &Node) -> Result<Contributions<'_>> {
        let (l, p, f) = (node.layer(), node.position(), node.index());
        let dictionary = &self.replacement.mlp[l];
        let direction = dictionary.read_direction(f)?;
        let (nodes, effects) =
            self.linear(2 * l + 1, p, &direction, self.trace().layers[l].sigma2[p])?;
        let bias = dictionary.read_bias(f);
        let total = dot(&row(&self.trace().layers[l].x2, p)?, &direction) + bias;
        Ok(Contributions { nodes, effects, bias, total })
    }

    /// What an attention feature, an SAE error, or the head that serves one, reads from `z`:
    /// `[H·K]`
    fn reads(&self, node: &Node) -> Result<Vec<f32>> {
        let (l, p) = (node.layer(), node.position());
        if node.feature.is_some() {
            return self.replacement.attention[l].read_direction(node.index());
        }
        let error = self.stream.error(l, p)?;
        let norm = dot(&error, &error).sqrt();
        Ok(error.iter().map(|e| if norm > 0.0 { e / norm } else { 0.0 }).collect())
    }

    fn on_attention(&self, node: &Node) -> Result<Contributions<'_>> {
        let (l, p, heads) = (node.layer(), node.position(), self.replacement.model.sizes.heads);
        let g = self.reads(node)?;
        let mut nodes = Vec::with_capacity(heads * (p + 1));
        let mut effects = Vec::with_capacity(heads * (p + 1));
        for head in 0..heads {
            for source in 0..=p {
                nodes.push(node.through(head, source));
                effects.push(self.moved(l, head, source, p, &g));
            }
        }
        let is_feature = node.kind == NodeKind::AttentionFeature;
        let bias =
            if is_feature { self.replacement.attention[l].read_bias(node.index()) } else { 0.0 };
        let total = dot(&row(&self.trace().layers[l].z, p)?, &g) + bias;
        Ok(Contributions { nodes: nodes.into(), effects, bias, total })
    }

    /// `A[h, p, s]·(v_{h,s}·g_h)`
    fn moved(&self, l: usize, head: usize, source: usize, p: usize, g: &[f32]) -> f32 {
        let k = self.replacement.model.sizes.d_head;
        let parts = &self.layers[l];
        let a = parts.pattern[(head * self.t + p) * self.t + source];
        a * dot(&parts.v[(head * self.t + source) * k..][..k], &g[head * k..][..k])
    }

    fn on_value(&self, node: &Node) -> Result<Contributions<'_>> {
        let (l, p, s, h) = (node.layer(), node.position(), node.source(), node.head());
        let k = self.replacement.model.sizes.d_head;
        let g = self.reads(node)?;
        let a = self.pattern(node);
        let mut direction = self.replacement.back(l, 2, h, &g[h * k..][..k]);
        direction.iter_mut().for_each(|x| *x *= a);
        let (nodes, effects) =
            self.linear(2 * l, s, &direction, self.trace().layers[l].sigma1[s])?;
        Ok(Contributions { nodes, effects, bias: 0.0, total: self.moved(l, h, s, p, &g) })
    }

    /// The q or k slot of a head: effects on its attention score.
    fn on_score(&self, node: &Node, slot: Slot) -> Result<Contributions<'_>> {
        let (l, p, s, h) = (node.layer(), node.position(), node.source(), node.head());
        let (k, parts) = (self.replacement.model.sizes.d_head, &self.layers[l]);
        // What is read at `at` is met by the other side's vector at `with`.
        let (block, at, other, with) =
            if slot == Slot::Q { (0, p, &parts.k, s) } else { (1, s, &parts.q, p) };
        let root_k = (k as f32).sqrt();
        let x: Vec<f32> =
            other[(h * self.t + with) * k..][..k].iter().map(|x| x / root_k).collect();
        let direction = self.replacement.back(l, block, h, &x);
        let (nodes, effects) =
            self.linear(2 * l, at, &direction, self.trace().layers[l].sigma1[at])?;
        let total = parts.scores[(h * self.t + p) * self.t + s];
        Ok(Contributions { nodes, effects, bias: self.replacement.bias(l, block, h, &x), total })
    }
}
