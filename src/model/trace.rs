//! What one forward pass leaves behind, and the ways to step in while it runs.

use crate::error::Result;
use candle_core::Tensor;

/// Everything a pass over one context of `T` tokens leaves, but the logits (see
/// [`super::Gpt2::logits`]).
pub struct Trace {
    /// By layer.
    pub layers: Vec<LayerTrace>,
    /// The residual stream after the last layer, `[T, D]`.
    pub resid_post: Tensor,
    /// Scale of the final LayerNorm, `[T]`.
    pub sigma_f: Vec<f32>,
}

/// One layer's part of a [`Trace`]. Names are those of TransformerLens' hooks.
pub struct LayerTrace {
    /// `[T, D]`
    pub resid_pre: Tensor,
    /// LayerNorm scale before attention, `[T]`
    pub sigma1: Vec<f32>,
    /// `[H, T, K]`, with biases
    pub q: Tensor,
    /// `[H, T, K]`, with biases
    pub k: Tensor,
    /// `[H, T, K]`; there is no value bias
    pub v: Tensor,
    /// Attention scores `q·k/√K`, not masked, `[H, T, T]`
    pub scores: Tensor,
    /// `[H, T, T]`
    pub pattern: Tensor,
    /// `blocks.l.attn.hook_z`, head-major `[T, H·K]`
    pub z: Tensor,
    /// `[T, D]`, with `b_O'`
    pub attn_out: Tensor,
    /// `[T, D]`
    pub resid_mid: Tensor,
    /// LayerNorm scale before the MLP, `[T]`
    pub sigma2: Vec<f32>,
    /// `blocks.l.ln2.hook_normalized`, without gain and bias, `[T, D]`
    pub x2: Tensor,
    /// `blocks.l.hook_mlp_out`, centred, `[T, D]`
    pub mlp_out: Tensor,
}

/// Replaces what a component writes while a pass runs; everything after it is recomputed.
pub trait Intervention: Sync {
    /// `z [T, H·K]` of a layer → what is used instead.
    fn z(&self, _layer: usize, z: Tensor) -> Result<Tensor> {
        Ok(z)
    }

    /// `mlp_out [T, D]` of a layer, and the `x2 [T, D]` that it was computed from → what is used
    /// instead.
    fn mlp_out(&self, _layer: usize, _x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        Ok(mlp_out)
    }
}

/// Replaces what components write in several passes that stand one below the other: in `R = ΣT`
/// rows, of the last layer in one a prompt, its last position, as nothing else is read.
pub(crate) trait Abreast: Sync {
    /// What is used instead of a layer's `z [R, H·K]`. Its heads are run by `z`, if it is called.
    fn z(&self, layer: usize, z: &dyn Fn() -> Result<Tensor>) -> Result<Tensor>;

    /// `x2 [R, D]` → what is used instead of `mlp_out [R, D]`. The MLP is run by `mlp_out`, if it is
    /// called.
    fn mlp_out(
        &self,
        layer: usize,
        x2: &Tensor,
        mlp_out: &dyn Fn() -> Result<Tensor>,
    ) -> Result<Tensor>;
}

/// No intervention.
pub struct Clean;

impl Intervention for Clean {}
