//! Direct effects of all terms of a prompt on its active features, as matrix products: one for each
//! hook, position that receives and position that is read.
//!
//! What an MLP's feature reads lies at its own position. An attention feature's encoder row goes
//! back through each head's `W_V`; at a source the heads' rows are summed, weighted by the pattern.
//! Both give a direction of the residual stream, whose products with the terms' vectors are the
//! effects.

use super::prune::InfluenceEdge;
use crate::circuit::attribution::{Attribution, Root};
use crate::circuit::graph::Node;
use crate::circuit::replacement::flat;
use crate::error::Result;
use crate::ids::NodeKind;
use crate::model::Layer;
use candle_core::{Device, Tensor};
use std::ops::Range;

/// The terms of a prompt, by position and in the order in which they are written.
pub(super) struct Effects<'a> {
    pub attribution: &'a Attribution<'a>,
    pub nodes: Vec<Node>,
    places: Vec<PositionTerms>,
    /// By layer, `W_V` of its heads, `[H, K, D]`
    w_v: Vec<Tensor>,
}

/// The terms at one position.
struct PositionTerms {
    /// The first of them among all.
    first: usize,
    /// What they write, `[n, D]`
    rows: Tensor,
    /// How many there are before each hook: `2l` attention of `l`, `2l + 1` its MLP, `2L` the end.
    before: Vec<usize>,
}

/// Effects of terms that follow each other, `[receivers, terms]`.
struct Block {
    first: usize,
    terms: usize,
    effects: Vec<f32>,
}

impl Block {
    fn row(&self, receiver: usize) -> &[f32] {
        &self.effects[receiver * self.terms..][..self.terms]
    }
}

impl<'a> Effects<'a> {
    pub(super) fn new(attribution: &'a Attribution<'a>) -> Result<Effects<'a>> {
        let (mut nodes, mut places) = (Vec::new(), Vec::new());
        for p in 0..attribution.tokens() {
            places.push(PositionTerms::new(attribution, p, &mut nodes)?);
        }
        let model = &attribution.replacement().model;
        let (d, h, k) = (model.sizes.d_model, model.sizes.heads, model.sizes.d_head);
        let w_v = |layer: &Layer| -> Result<Tensor> {
            let own = layer.w_qkv.narrow(1, 2 * h * k, h * k)?.contiguous()?.reshape((d, h, k))?;
            Ok(own.permute((1, 2, 0))?.contiguous()?)
        };
        let w_v = model.layers.iter().map(w_v).collect::<Result<_>>()?;
        Ok(Effects { attribution, nodes, places, w_v })
    }

    /// The influence of each term on a root: one way back through the hooks, as nothing receives
    /// from later ones.
    pub(super) fn influences(&self, root: Root) -> Result<Vec<f64>> {
        let mut influences = vec![0.0; self.nodes.len()];
        hand_down(&mut influences, &[1.0], &[self.on_root(root)?]);
        for (hook, p) in self.backwards() {
            let receivers: Vec<usize> = self.features(hook, p).collect();
            let own: Vec<f64> = receivers.iter().map(|&receiver| influences[receiver]).collect();
            hand_down(&mut influences, &own, &self.on(hook, p, &receivers)?);
        }
        Ok(influences)
    }

    /// The links among the terms that are kept and the root, a receiver's after each other, the
    /// latest receiver first.
    pub(super) fn links(&self, root: Root, kept: &[bool]) -> Result<Vec<InfluenceEdge>> {
        let mut links = Vec::new();
        let mut add = |parent: Option<usize>, row: usize, blocks: &[Block]| {
            for block in blocks {
                let terms = (block.first..).zip(block.row(row));
                let wanted = terms.filter(|&(term, &effect)| kept[term] && effect != 0.0);
                links.extend(wanted.map(|(child, &effect)| InfluenceEdge {
                    child,
                    parent,
                    effect,
                    influence: 0.0,
                }));
            }
        };
        add(None, 0, &[self.on_root(root)?]);
        for (hook, p) in self.backwards() {
            let receivers: Vec<usize> =
                self.features(hook, p).filter(|&receiver| kept[receiver]).collect();
            let blocks = self.on(hook, p, &receivers)?;
            receivers
                .iter()
                .enumerate()
                .for_each(|(row, &receiver)| add(Some(receiver), row, &blocks));
        }
        Ok(links)
    }

    /// The effects of terms at one position on an attention feature through each head,
    /// `[H][terms]`.
    pub(super) fn by_head(&self, feature: usize, terms: &[usize]) -> Result<Vec<Vec<f32>>> {
        let node = self.nodes[feature];
        let source = self.nodes[terms[0]].position();
        let place = &self.places[source];
        let weights = self.weights(node.layer(), node.position())?.get(source)?.unsqueeze(1)?;
        let directions =
            self.back(node.layer(), &[node.index()])?.squeeze(1)?.broadcast_mul(&weights)?;
        let chosen =
            Tensor::from_iter(terms.iter().map(|&term| (term - place.first) as u32), &Device::Cpu)?;
        Ok(directions.matmul(&place.rows.index_select(&chosen, 0)?.t()?)?.to_vec2()?)
    }

    /// Every hook and position, the latest hook first.
    fn backwards(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (hooks, tokens) =
            (2 * self.attribution.replacement().model.sizes.layers, self.places.len());
        (0..hooks).rev().flat_map(move |hook| (0..tokens).map(move |p| (hook, p)))
    }

    /// The terms that are features of a hook at a position; the last that it adds is its error.
    fn features(&self, hook: usize, p: usize) -> Range<usize> {
        let PositionTerms { first, before, .. } = &self.places[p];
        first + before[hook]..first + before[hook + 1] - 1
    }

    fn on_root(&self, root: Root) -> Result<Block> {
        let all = self.attribution.on_root(root)?;
        let mut effects = Vec::with_capacity(all.nodes.len());
        for (node, &effect) in all.nodes.iter().zip(&all.effects) {
            match node.kind {
                NodeKind::Bias(_) => {}
                NodeKind::PositionEmbedding => effects[0] += effect,
                _ => effects.push(effect),
            }
        }
        Ok(Block {
            first: self.places.last().map_or(0, |place| place.first),
            terms: effects.len(),
            effects,
        })
    }

    /// The effects of all terms on some features of a hook at one position, a block for each
    /// position that they read.
    fn on(&self, hook: usize, p: usize, receivers: &[usize]) -> Result<Vec<Block>> {
        if receivers.is_empty() {
            return Ok(Vec::new());
        }
        let features: Vec<usize> =
            receivers.iter().map(|&receiver| self.nodes[receiver].index()).collect();
        let (replacement, l) = (self.attribution.replacement(), hook / 2);
        if hook % 2 == 1 {
            let sigma = f64::from(self.attribution.trace().layers[l].sigma2[p]);
            return Ok(vec![self.block(
                hook,
                p,
                &(replacement.mlp[l].select(&features)?.w / sigma)?,
            )?]);
        }
        let back = self.back(l, &features)?;
        let (heads, n, d) = back.dims3()?;
        let directions =
            self.weights(l, p)?.matmul(&back.reshape((heads, n * d))?)?.reshape((p + 1, n, d))?;
        (0..=p).map(|source| self.block(hook, source, &directions.get(source)?)).collect()
    }

    /// The effects of the terms before a hook at a position along directions `[n, D]`.
    fn block(&self, hook: usize, p: usize, directions: &Tensor) -> Result<Block> {
        let PositionTerms { first, rows, before } = &self.places[p];
        let effects = flat(&directions.matmul(&rows.narrow(0, 0, before[hook])?.t()?)?)?;
        Ok(Block { first: *first, terms: before[hook], effects })
    }

    /// What attention features read, through each head's `W_V`: `[H, n, D]`
    fn back(&self, l: usize, features: &[usize]) -> Result<Tensor> {
        let sizes = &self.attribution.replacement().model.sizes;
        let (h, k) = (sizes.heads, sizes.d_head);
        let reads = self.attribution.replacement().attention[l].select(features)?.w.reshape((
            features.len(),
            h,
            k,
        ))?;
        Ok(reads.transpose(0, 1)?.contiguous()?.matmul(&self.w_v[l])?)
    }

    /// How much of what is at each source a head brings to a position, for a unit of the residual
    /// stream: `A[h, p, s]/σ[s]`, `[p + 1, H]`
    fn weights(&self, l: usize, p: usize) -> Result<Tensor> {
        let layer = &self.attribution.trace().layers[l];
        let pattern = layer.pattern.narrow(1, p, 1)?.squeeze(1)?.narrow(1, 0, p + 1)?.t()?;
        let sigma = Tensor::new(&layer.sigma1[..=p], &Device::Cpu)?.unsqueeze(1)?;
        Ok(pattern.broadcast_div(&sigma)?)
    }
}

impl PositionTerms {
    /// The terms at a position, whose nodes are put behind those of the positions before.
    fn new(attribution: &Attribution, p: usize, nodes: &mut Vec<Node>) -> Result<PositionTerms> {
        let replacement = attribution.replacement();
        let (d, blocks) = (replacement.model.sizes.d_model, 2 * replacement.model.sizes.layers + 1);
        let (stream, first) = (attribution.stream(), nodes.len());
        let embeddings = stream.rows(0, p)?;
        let mut rows: Vec<f32> =
            embeddings[..d].iter().zip(&embeddings[d..]).map(|(token, at)| token + at).collect();
        nodes.push(Node::embedding(NodeKind::Embedding, p));
        let mut before = vec![1];
        for block in 1..blocks {
            let added = &stream.nodes(block, p)[stream.nodes(block - 1, p).len()..];
            let terms = added.iter().zip(stream.rows(block, p)?.chunks_exact(d));
            for (node, row) in terms.filter(|(node, _)| !matches!(node.kind, NodeKind::Bias(_))) {
                nodes.push(*node);
                rows.extend_from_slice(row);
            }
            before.push(nodes.len() - first);
        }
        Ok(PositionTerms {
            first,
            rows: Tensor::from_vec(rows, (nodes.len() - first, d), &Device::Cpu)?,
            before,
        })
    }
}

/// Gives what each receiver has to the terms by the absolute values of their effects on it.
fn hand_down(influences: &mut [f64], own: &[f64], blocks: &[Block]) {
    for (row, own) in own.iter().enumerate() {
        let size = |block: &Block| {
            block.row(row).iter().map(|effect| f64::from(effect.abs())).sum::<f64>()
        };
        let whole: f64 = blocks.iter().map(size).sum();
        if whole > 0.0 {
            for block in blocks {
                let terms = influences[block.first..].iter_mut().zip(block.row(row));
                terms.for_each(|(term, effect)| *term += own / whole * f64::from(effect.abs()));
            }
        }
    }
}
