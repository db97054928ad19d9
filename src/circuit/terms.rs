//! The residual stream at a position as a sum of terms (`docs/definitions.md` §4), in the order in
//! which they are written: the embeddings first, then each sublayer's features, error and biases.
//!
//! Which terms there are is known at once. Their vectors are made when they are first read, as most
//! sublayers of most positions never are.

use super::graph::Node;
use super::replacement::{Pass, ReplacementModel, centre, flat, row};
use crate::dictionary::{Active, Dictionary};
use crate::error::Result;
use crate::ids::Kind;
use crate::ids::{Bias, NodeKind};
use crate::model::Trace;
use candle_core::Tensor;
use std::cell::OnceCell;

/// The residual stream of one pass.
pub struct Stream<'a> {
    replacement: &'a ReplacementModel,
    pass: Pass,
    positions: Vec<Position>,
}

struct Position {
    token: u32,
    nodes: Vec<Node>,
    /// Number of terms before each sublayer: `2l` attention of `l`, `2l + 1` its MLP, `2L` the
    /// final LayerNorm.
    before: Vec<usize>,
    /// Vectors `[n, D]` of the terms that each sublayer adds, the embeddings' first.
    rows: Vec<OnceCell<Vec<f32>>>,
}

impl<'a> Stream<'a> {
    /// The stream of a pass over these tokens.
    pub fn new(replacement: &'a ReplacementModel, pass: Pass, tokens: &[u32]) -> Stream<'a> {
        let positions =
            (0..).zip(tokens).map(|(p, &token)| Position::new(&pass, p, token)).collect();
        Stream { replacement, pass, positions }
    }

    /// The pass.
    pub fn trace(&self) -> &Trace {
        &self.pass.trace
    }

    /// The terms at a position before a sublayer: `2l` attention of `l`, `2l + 1` its MLP, `2L` the
    /// end.
    pub fn nodes(&self, before: usize, position: usize) -> &[Node] {
        let position = &self.positions[position];
        &position.nodes[..position.before[before]]
    }

    /// Their dot products with a direction, `[n]`.
    pub fn along(&self, before: usize, position: usize, direction: &[f32]) -> Result<Vec<f32>> {
        let mut products = Vec::with_capacity(self.nodes(before, position).len());
        for block in 0..=before {
            let rows = self.rows(block, position)?.chunks_exact(direction.len());
            products.extend(rows.map(|row| super::replacement::dot(row, direction)));
        }
        Ok(products)
    }

    /// The vectors of the terms that a sublayer adds at a position: of the embeddings for 0, then
    /// of `l`'s attention for `2l + 1` and of its MLP for `2l + 2`.
    pub fn rows(&self, block: usize, position: usize) -> Result<&[f32]> {
        let cell = &self.positions[position].rows[block];
        if let Some(rows) = cell.get() {
            return Ok(rows);
        }
        let rows = match block.checked_sub(1) {
            None => self.embeddings(position)?,
            Some(sublayer) if sublayer % 2 == 0 => self.attention(sublayer / 2, position)?,
            Some(sublayer) => self.mlp(sublayer / 2, position)?,
        };
        Ok(cell.get_or_init(|| rows))
    }

    /// A dictionary feature's activation, if it is active.
    pub fn activation(&self, node: &Node) -> Option<f32> {
        let active = match node.kind {
            NodeKind::AttentionFeature => &self.pass.attention,
            NodeKind::MlpFeature => &self.pass.mlp,
            _ => return None,
        };
        let row = active.get(node.layer())?.get(node.position())?;
        row.iter().find(|(f, _)| Some(*f) == node.feature).map(|&(_, a)| a)
    }

    /// `z − ẑ` at a position, `[H·K]`
    pub fn error(&self, layer: usize, position: usize) -> Result<Vec<f32>> {
        let active = &self.pass.attention[layer][position];
        missed(
            &self.replacement.attention[layer],
            active,
            row(&self.pass.trace.layers[layer].z, position)?,
        )
    }

    fn embeddings(&self, p: usize) -> Result<Vec<f32>> {
        let model = &self.replacement.model;
        Ok([row(&model.w_e, self.positions[p].token as usize)?, row(&model.w_p, p)?].concat())
    }

    fn attention(&self, l: usize, p: usize) -> Result<Vec<f32>> {
        let (replacement, active) = (self.replacement, &self.pass.attention[l][p]);
        let mut read = written(&replacement.attention[l], active)?;
        read.extend(self.error(l, p)?);
        let w_o = &replacement.model.layers[l].w_o;
        let mut rows = flat(
            &Tensor::from_vec(read, (active.len() + 1, w_o.dim(0)?), w_o.device())?.matmul(w_o)?,
        )?;
        rows.extend_from_slice(&replacement.constants[l].attention_dictionary);
        rows.extend_from_slice(&replacement.constants[l].attention);
        Ok(rows)
    }

    fn mlp(&self, l: usize, p: usize) -> Result<Vec<f32>> {
        let (transcoder, active) = (&self.replacement.mlp[l], &self.pass.mlp[l][p]);
        let mut rows = written(transcoder, active)?;
        rows.extend(missed(transcoder, active, row(&self.pass.trace.layers[l].mlp_out, p)?)?);
        // What the projection takes off these rows cancels, as `mlp_out` itself is centred.
        rows.chunks_exact_mut(transcoder.b_out().len()).for_each(centre);
        rows.extend_from_slice(&self.replacement.constants[l].mlp_dictionary);
        Ok(rows)
    }
}

impl Position {
    fn new(pass: &Pass, p: usize, token: u32) -> Position {
        let mut nodes = [NodeKind::Embedding, NodeKind::PositionEmbedding]
            .map(|kind| Node::embedding(kind, p))
            .to_vec();
        let mut before = vec![nodes.len()];
        for (l, (attention, mlp)) in pass.attention.iter().zip(&pass.mlp).enumerate() {
            nodes
                .extend(attention[p].iter().map(|(f, _)| Node::feature(Kind::Attention, l, p, *f)));
            nodes.push(Node::at(NodeKind::AttentionError, l, p));
            nodes.push(Node::at(NodeKind::Bias(Bias::AttentionDictionary), l, p));
            nodes.push(Node::at(NodeKind::Bias(Bias::Attention), l, p));
            before.push(nodes.len());
            nodes.extend(mlp[p].iter().map(|(f, _)| Node::feature(Kind::Mlp, l, p, *f)));
            nodes.push(Node::at(NodeKind::MlpError, l, p));
            nodes.push(Node::at(NodeKind::Bias(Bias::MlpDictionary), l, p));
            before.push(nodes.len());
        }
        let rows = before.iter().map(|_| OnceCell::new()).collect();
        Position { token, nodes, before, rows }
    }
}

/// `a_f·W_dec[f]` of each active feature, `[n, d_out]`
fn written(dictionary: &Dictionary, active: &Active) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity((active.len() + 3) * dictionary.b_out().len());
    for &(f, a) in active {
        rows.extend(dictionary.write_direction(f as usize)?.into_iter().map(|w| a * w));
    }
    Ok(rows)
}

/// What the reconstruction of a row leaves of it.
fn missed(dictionary: &Dictionary, active: &Active, mut row: Vec<f32>) -> Result<Vec<f32>> {
    row.iter_mut().zip(dictionary.reconstruction(active)?).for_each(|(x, known)| *x -= known);
    Ok(row)
}
