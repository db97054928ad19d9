//! Single links: a feature is set to what stands in for it in the live model, nothing frozen, and
//! what its receiver reads then is compared with what the direct effect predicts.
//!
//! The prediction is linear: of a link's effect `e` at activation `a`, setting the feature to `r`
//! changes `e·(r − a)/a`. Where patterns and scales move with the feature, or other paths carry it
//! too, the live model changes otherwise.

use super::features::FeatureAblation;
use crate::circuit::graph::Node;
use crate::circuit::{ReplacementModel, Root};
use crate::error::{Result, hinted};
use crate::ids::{FeatureId, Kind};
use crate::ids::{NodeKind, Slot};
use crate::model::{Intervention, Trace};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// A link from a dictionary feature.
#[derive(Clone, Copy, Debug)]
pub struct TestedLink {
    /// The dictionary feature that is set.
    pub child: Node,
    /// The child's activation in the clean run.
    pub activation: f32,
    /// The receiver.
    pub parent: Node,
    /// Where the child enters the receiver.
    pub slot: Slot,
    /// Direct effect in the clean run.
    pub effect: f32,
}

/// What became of a link's receiver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// What the feature was set to.
    pub replaced: f32,
    /// Change of what the receiver reads, by the direct effect.
    pub predicted: f32,
    /// The same, in the live model.
    pub measured: f32,
    /// Change of the root in the live model.
    pub root: f32,
}

/// Runs links of one prompt (BOS first), one pass for each feature among their children.
///
/// # Errors
/// When a child is no dictionary feature.
pub fn effects(
    replacement: &ReplacementModel,
    tokens: &[u32],
    root: Root,
    ablation_value: &FeatureAblation,
    links: &[TestedLink],
) -> Result<Vec<Effect>> {
    let clean = replacement.model.forward(tokens)?;
    let mut of_child: BTreeMap<Node, Vec<usize>> = BTreeMap::new();
    links.iter().enumerate().for_each(|(i, link)| of_child.entry(link.child).or_default().push(i));
    let mut effects = vec![None; links.len()];
    for (child, places) in of_child {
        let feature = child.dictionary_feature().ok_or_else(|| {
            hinted(
                format!("a {} cannot be set to a value", child.kind.word()),
                "choose links from features",
            )
        })?;
        let (replaced, activation) =
            (ablation_value.activation(feature, child.position()), links[places[0]].activation);
        let shift = Shift::new(replacement, feature, child.position(), replaced - activation)?;
        let live = replacement.model.forward_with(tokens, &shift)?;
        let change = |node: &Node, slot| -> Result<f32> {
            let reads = Reads::new(replacement, &clean, node)?;
            Ok(reads.of(replacement, &live, root, node, slot)?
                - reads.of(replacement, &clean, root, node, slot)?)
        };
        let root_change = change(&Node::ROOT, Slot::In)?;
        for i in places {
            let link = &links[i];
            effects[i] = Some(Effect {
                replaced,
                predicted: link.effect * (replaced - activation) / activation,
                measured: change(&link.parent, link.slot)?,
                root: root_change,
            });
        }
    }
    Ok(effects.into_iter().flatten().collect())
}

/// Adds a vector to what a component writes at one position.
struct Shift {
    at: (Kind, usize),
    /// `[T, …]` is padded to with zeros.
    row: Vec<f32>,
    position: usize,
}

impl Shift {
    fn new(
        replacement: &ReplacementModel,
        feature: FeatureId,
        position: usize,
        by: f32,
    ) -> Result<Shift> {
        let (kind, layer) = (feature.dictionary.kind, feature.dictionary.layer);
        let dictionary = match kind {
            Kind::Attention => &replacement.attention[layer],
            Kind::Mlp => &replacement.mlp[layer],
        };
        let mut row = dictionary.write_direction(feature.index)?;
        // What an MLP writes is centred in the folded model.
        let mean = if kind == Kind::Mlp { row.iter().sum::<f32>() / row.len() as f32 } else { 0.0 };
        row.iter_mut().for_each(|x| *x = (*x - mean) * by);
        Ok(Shift { at: (kind, layer), row, position })
    }

    fn added(&self, kind: Kind, layer: usize, x: Tensor) -> Result<Tensor> {
        if self.at != (kind, layer) {
            return Ok(x);
        }
        let row = Tensor::new(self.row.as_slice(), x.device())?.unsqueeze(0)?;
        let above = self.position;
        let below = x.dim(0)? - above - 1;
        Ok((x + row.pad_with_zeros(0, above, below)?)?)
    }
}

impl Intervention for Shift {
    fn z(&self, layer: usize, z: Tensor) -> Result<Tensor> {
        self.added(Kind::Attention, layer, z)
    }

    fn mlp_out(&self, layer: usize, _x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        self.added(Kind::Mlp, layer, mlp_out)
    }
}

/// The direction along which a receiver reads its hook; frozen, as an SAE error's own direction is.
struct Reads(Vec<f32>);

impl Reads {
    fn new(replacement: &ReplacementModel, clean: &Trace, node: &Node) -> Result<Reads> {
        let (layer, position) = (node.layer(), node.position());
        let feature = node.feature.map(|feature| feature as usize);
        Ok(Reads(match (node.kind, feature) {
            (NodeKind::MlpFeature, Some(f)) => replacement.mlp[layer].read_direction(f)?,
            (NodeKind::AttentionFeature | NodeKind::Head, Some(f)) => {
                replacement.attention[layer].read_direction(f)?
            }
            (NodeKind::AttentionError | NodeKind::Head, None) => {
                let z = clean.layers[layer].z.narrow(0, position, 1)?;
                let sae = &replacement.attention[layer];
                let error =
                    (&z - sae.decode(&sae.active(&z)?)?)?.flatten_all()?.to_vec1::<f32>()?;
                let norm = error.iter().map(|x| x * x).sum::<f32>().sqrt();
                error.into_iter().map(|x| if norm > 0.0 { x / norm } else { 0.0 }).collect()
            }
            _ => Vec::new(),
        }))
    }

    /// What the receiver reads in a pass, without constants.
    fn of(
        &self,
        replacement: &ReplacementModel,
        pass: &Trace,
        root: Root,
        node: &Node,
        slot: Slot,
    ) -> Result<f32> {
        let (p, s, h) = (node.position(), node.source(), node.head());
        let along = |x: &Tensor, from: usize| -> Result<f32> {
            let x: Vec<f32> = x.flatten_all()?.to_vec1()?;
            Ok(x.iter().zip(&self.0[from..]).map(|(a, b)| a * b).sum())
        };
        let entry = |x: &Tensor| -> Result<f32> { Ok(x.get(h)?.get(p)?.get(s)?.to_scalar()?) };
        let layer = || &pass.layers[node.layer()];
        match (node.kind, slot) {
            (NodeKind::Root, _) => Ok(root.of(&replacement.model.last_logits(pass)?)),
            (NodeKind::MlpFeature, _) => along(&layer().x2.narrow(0, p, 1)?, 0),
            (NodeKind::Head, Slot::Q | Slot::K) => entry(&layer().scores),
            (NodeKind::Head, _) => Ok(entry(&layer().pattern)?
                * along(&layer().v.get(h)?.get(s)?, h * replacement.model.sizes.d_head)?),
            _ => along(&layer().z.narrow(0, p, 1)?, 0),
        }
    }
}
