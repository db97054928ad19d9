//! Each effect is the measured change when the term is removed with everything frozen
//! (`docs/definitions.md` §5).
//!
//! The way here shares nothing with the attribution: a term is taken out of what its dictionary
//! writes, the model's own pass is run with all else held, and what the receiver reads is computed
//! forwards from the stream that comes out.

use crate::fixture::{
    Fixture, assert_near, assert_within, in_every_world, node_name, numbers, read_by,
};
use candle_core::{D, Device, Tensor};
use circuit_atlas::circuit::Node;
use circuit_atlas::error::Result;
use circuit_atlas::ids::{Bias, NodeKind, Slot};
use circuit_atlas::ids::{DictionaryId, Kind};
use circuit_atlas::model::{Intervention, LayerTrace, Trace};
use std::collections::HashMap;

in_every_world!(
    removing_a_term_changes_the_logit_difference_by_its_effect,
    removing_a_term_changes_mlp_features_by_its_effect,
    removing_a_term_changes_what_heads_ask_offer_and_carry,
    removing_a_heads_source_changes_attention_features_and_errors_by_its_effect,
);

/// Removed effects may be off by this of the largest.
const REACH: f64 = 1e-4;

/// Everything as in the clean pass, but for one vector taken out of what one dictionary's hook
/// writes at a position.
struct Without<'a> {
    clean: &'a Trace,
    id: DictionaryId,
    position: usize,
    vector: Tensor,
}

impl Without<'_> {
    fn frozen(&self, layer: usize, kind: Kind, x: &Tensor) -> Result<Tensor> {
        let here = self.id == DictionaryId { layer, kind };
        Ok(if here { less_at(x, self.position, &self.vector) } else { x.clone() })
    }
}

impl Intervention for Without<'_> {
    fn z(&self, layer: usize, _z: Tensor) -> Result<Tensor> {
        self.frozen(layer, Kind::Attention, &self.clean.layers[layer].z)
    }

    fn mlp_out(&self, layer: usize, _x2: &Tensor, _mlp_out: Tensor) -> Result<Tensor> {
        self.frozen(layer, Kind::Mlp, &self.clean.layers[layer].mlp_out)
    }
}

/// `x [T, n]` with `vector [n]` taken off row `position`.
fn less_at(x: &Tensor, position: usize, vector: &Tensor) -> Tensor {
    let mut rows = x.to_vec2::<f32>().unwrap();
    rows[position].iter_mut().zip(vector.to_vec1::<f32>().unwrap()).for_each(|(x, v)| *x -= v);
    Tensor::new(rows, x.device()).unwrap()
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

fn centred(x: Tensor) -> Tensor {
    x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap()
}

/// What is left of a hook when the dictionary's output is taken off it, `[d_out]`.
fn missed(f: &Fixture, id: DictionaryId, clean: &Trace, position: usize) -> Tensor {
    let (dictionary, layer) = (f.dictionary(id), &clean.layers[id.layer]);
    let reconstruction = dictionary
        .decode(&dictionary.encoder().unwrap().active(read_by(id, clean)).unwrap())
        .unwrap();
    let of = if id.kind == Kind::Attention { &layer.z } else { &layer.mlp_out };
    (of - reconstruction).unwrap().get(position).unwrap()
}

/// `a_f·W_dec[f]`, `[d_out]`
fn written(f: &Fixture, id: DictionaryId, clean: &Trace, node: &Node) -> Tensor {
    let (dictionary, feature) = (f.dictionary(id), node.index());
    let activations = dictionary.encoder().unwrap().encode(read_by(id, clean)).unwrap();
    let a: f32 =
        activations.get(node.position()).unwrap().get(feature).unwrap().to_scalar().unwrap();
    (vector(&dictionary.write_direction(feature).unwrap()) * f64::from(a)).unwrap()
}

/// The pass without a term that goes through a hook, or the vector of one that does not.
enum Removed {
    Run(Box<Trace>),
    Vector(Tensor),
}

fn remove(f: &Fixture, clean: &Trace, tokens: &[u32], node: &Node) -> Removed {
    let (layer, position) = (node.layer(), node.position());
    let [attention, mlp] = [Kind::Attention, Kind::Mlp].map(|kind| DictionaryId { layer, kind });
    let (id, vector) = match node.kind {
        NodeKind::AttentionFeature => (attention, written(f, attention, clean, node)),
        NodeKind::AttentionError => (attention, missed(f, attention, clean, position)),
        NodeKind::Bias(Bias::AttentionDictionary) => {
            (attention, vector(f.dictionary(attention).b_out()))
        }
        NodeKind::MlpFeature => (mlp, centred(written(f, mlp, clean, node))),
        NodeKind::MlpError => (mlp, centred(missed(f, mlp, clean, position))),
        NodeKind::Bias(Bias::MlpDictionary) => (mlp, centred(vector(f.dictionary(mlp).b_out()))),
        NodeKind::Bias(Bias::Attention) => {
            return Removed::Vector(f.model().layers[layer].b_o.clone());
        }
        NodeKind::Embedding => {
            return Removed::Vector(f.model().w_e.get(tokens[position] as usize).unwrap());
        }
        NodeKind::PositionEmbedding => {
            return Removed::Vector(f.model().w_p.get(position).unwrap());
        }
        NodeKind::Root | NodeKind::Head => unreachable!("no term of the stream"),
    };
    let without = Without { clean, id, position, vector };
    Removed::Run(Box::new(f.model().forward_with(tokens, &without).unwrap()))
}

/// The stream that a receiver's slot reads, `[D]`.
fn stream(trace: &Trace, node: &Node, position: usize) -> Tensor {
    let layer = trace.layers.get(node.layer());
    let stream = match node.kind {
        NodeKind::Root => &trace.resid_post,
        NodeKind::MlpFeature => &layer.unwrap().resid_mid,
        _ => &layer.unwrap().resid_pre,
    };
    stream.get(position).unwrap()
}

/// Where a slot reads the stream.
fn reading_position(node: &Node, slot: Slot, last: usize) -> usize {
    match (node.kind, slot) {
        (NodeKind::Root, _) => last,
        (NodeKind::Head, Slot::K | Slot::V) => node.source(),
        _ => node.position(),
    }
}

/// What the dictionary feature or error that a node is, or serves, reads from `z`, `[H·K]`.
fn direction(f: &Fixture, clean: &Trace, node: &Node) -> Tensor {
    let id = DictionaryId { layer: node.layer(), kind: Kind::Attention };
    if node.feature.is_some() {
        return vector(&f.dictionary(id).read_direction(node.index()).unwrap());
    }
    let error = missed(f, id, clean, node.position());
    let norm = numbers(&error).iter().map(|e| e * e).sum::<f64>().sqrt();
    (error / norm).unwrap()
}

fn product(a: &Tensor, b: &Tensor) -> f64 {
    numbers(a).iter().zip(numbers(b)).map(|(a, b)| a * b).sum()
}

/// What a slot reads of the stream `x [D]`, scales, patterns and the other side of a score being
/// those of `clean`.
fn reads(f: &Fixture, prompt: usize, clean: &Trace, node: &Node, slot: Slot, x: &Tensor) -> f64 {
    let last = f.expected.prompts[prompt].tokens.len() - 1;
    let at = reading_position(node, slot, last);
    let scaled = |sigma: &[f32]| (x / f64::from(sigma[at])).unwrap().unsqueeze(0).unwrap();
    match node.kind {
        NodeKind::Root => {
            let logits = scaled(&clean.sigma_f).matmul(&f.model().w_u).unwrap().get(0).unwrap();
            let logits = numbers(&(logits + &f.model().b_u).unwrap());
            let prompt = &f.expected.prompts[prompt];
            logits[prompt.correct_id as usize] - logits[prompt.counter_id as usize]
        }
        NodeKind::MlpFeature => {
            let dictionary = f.dictionary(DictionaryId { layer: node.layer(), kind: Kind::Mlp });
            let pre = dictionary
                .encoder()
                .unwrap()
                .pre(&scaled(&clean.layers[node.layer()].sigma2))
                .unwrap();
            numbers(&pre)[node.index()]
        }
        _ => head_reads(f, clean, node, slot, &scaled(&clean.layers[node.layer()].sigma1)),
    }
}

/// A head's part of `x̂ [1, D]`: its q, k or v, and then the score or the feature's input that
/// comes of it.
fn head_reads(f: &Fixture, clean: &Trace, node: &Node, slot: Slot, x: &Tensor) -> f64 {
    let (sizes, layer) = (f.model().sizes, node.layer());
    let weights = &f.model().layers[layer];
    let qkv = (x.matmul(&weights.w_qkv).unwrap().get(0).unwrap() + &weights.b_qkv).unwrap();
    let (head, p, s) = (node.head(), node.position(), node.source());
    let part = |block: usize| {
        qkv.narrow(0, block * sizes.d_model + head * sizes.d_head, sizes.d_head).unwrap()
    };
    let of = |x: &Tensor, position: usize| x.get(head).unwrap().get(position).unwrap();
    let trace: &LayerTrace = &clean.layers[layer];
    match slot {
        Slot::Q => product(&part(0), &of(&trace.k, s)) / (sizes.d_head as f64).sqrt(),
        Slot::K => product(&part(1), &of(&trace.q, p)) / (sizes.d_head as f64).sqrt(),
        _ => {
            let g = direction(f, clean, node).narrow(0, head * sizes.d_head, sizes.d_head).unwrap();
            numbers(&of(&trace.pattern, p))[s] * product(&part(2), &g)
        }
    }
}

fn receivers(f: &Fixture, prompt: usize, of: &[NodeKind]) -> Vec<Node> {
    f.circuits()[prompt].nodes.iter().filter(|node| of.contains(&node.kind)).copied().collect()
}

/// Removes every term that enters the receivers of these kinds in a prompt's circuit.
fn measure(f: &Fixture, prompt: usize, kinds: &[NodeKind], slots: &[Slot]) {
    let tokens = &f.expected.prompts[prompt].tokens;
    let (attribution, clean) = (f.attribution(prompt), f.model().forward(tokens).unwrap());
    let mut removed: HashMap<Node, Removed> = HashMap::new();
    let receivers = receivers(f, prompt, kinds);
    assert!(!receivers.is_empty(), "the circuit has no {kinds:?}");
    for (node, &slot) in
        receivers.iter().flat_map(|node| slots.iter().map(move |slot| (node, slot)))
    {
        let what = format!("prompt {prompt}, {} of {}", slot.word(), node_name(node));
        let all = f.contributions(prompt, &attribution, node, slot);
        let position = reading_position(node, slot, tokens.len() - 1);
        let whole = stream(&clean, node, position);
        let before = reads(f, prompt, &clean, node, slot, &whole);
        let without = |term: &Node, removed: &Removed| match removed {
            Removed::Run(trace) => stream(trace, node, position),
            Removed::Vector(vector) => {
                assert_eq!(term.position(), position);
                (&whole - vector).unwrap()
            }
        };
        let mut changes = Vec::new();
        for term in all.nodes.iter() {
            let run = removed.entry(*term).or_insert_with(|| remove(f, &clean, tokens, term));
            changes.push(before - reads(f, prompt, &clean, node, slot, &without(term, run)));
        }
        let effects: Vec<f64> = all.effects.iter().map(|&e| e.into()).collect();
        assert_near(&what, &changes, &effects, REACH);
        assert_within(&what, before, all.total.into(), REACH * all.total.abs().max(1.0) as f64);
    }
}

fn removing_a_term_changes_the_logit_difference_by_its_effect(f: &'static Fixture) {
    for &prompt in &f.expected.hooked_prompts {
        measure(f, prompt, &[NodeKind::Root], &[Slot::In]);
    }
}

fn removing_a_term_changes_mlp_features_by_its_effect(f: &'static Fixture) {
    for &prompt in &f.expected.hooked_prompts[..2] {
        measure(f, prompt, &[NodeKind::MlpFeature], &[Slot::In]);
    }
}

fn removing_a_term_changes_what_heads_ask_offer_and_carry(f: &'static Fixture) {
    for &prompt in &f.expected.hooked_prompts[..2] {
        measure(f, prompt, &[NodeKind::Head], &[Slot::Q, Slot::K, Slot::V]);
    }
}

/// A head's reading of one source is taken out of `z`, and the feature, or the error's direction,
/// read again.
fn removing_a_heads_source_changes_attention_features_and_errors_by_its_effect(
    f: &'static Fixture,
) {
    let (sizes, tokens) = (f.model().sizes, &f.expected.prompts[0].tokens);
    let (attribution, clean) = (f.attribution(0), f.model().forward(tokens).unwrap());
    for node in receivers(f, 0, &[NodeKind::AttentionFeature, NodeKind::AttentionError]) {
        let layer = &clean.layers[node.layer()];
        let id = DictionaryId { layer: node.layer(), kind: Kind::Attention };
        let read = |z: &Tensor| match node.kind {
            NodeKind::AttentionFeature => numbers(
                &f.dictionary(id).encoder().unwrap().pre(z).unwrap().get(node.position()).unwrap(),
            )[node.index()],
            _ => product(&z.get(node.position()).unwrap(), &direction(f, &clean, &node)),
        };
        let all = attribution.contributions(&node, Slot::In).unwrap();
        let change = |head: &Node| {
            let (h, p, s) = (head.head(), head.position(), head.source());
            let a = numbers(&layer.pattern.get(h).unwrap().get(p).unwrap())[s];
            let v = (layer.v.get(h).unwrap().get(s).unwrap() * a).unwrap();
            let moved = v
                .pad_with_zeros(0, h * sizes.d_head, (sizes.heads - 1 - h) * sizes.d_head)
                .unwrap();
            read(&layer.z) - read(&less_at(&layer.z, p, &moved))
        };
        let effects: Vec<f64> = all.effects.iter().map(|&e| e.into()).collect();
        assert_near(
            &node_name(&node),
            &all.nodes.iter().map(change).collect::<Vec<_>>(),
            &effects,
            REACH,
        );
        assert_within(&node_name(&node), read(&layer.z), all.total.into(), REACH);
    }
}
