//! One prompt forward with its parts at `r + t·(a − r)`, and the metric's gradient back.

use super::{Gradient, PartialHooks, Parts, numbers};
use crate::circuit::faithful::Case;
use crate::error::Result;
use crate::model::{Attended, Gpt2};
use candle_core::{D, Tensor};

/// A forward pass at `t`, with what going back needs.
pub struct Point {
    /// How much of each part's change runs, from 0 to 1.
    pub t: f64,
    /// The metric.
    pub value: f64,
    /// Two hooks a layer.
    layers: Vec<[Encoded; 2]>,
    inner: Vec<Inner>,
    /// The final LayerNorm at the last position, its scale, and the metric's gradient there, `[1,
    /// D]`, `[1, 1]`, `[1, D]`
    end: [Tensor; 3],
    tokens: usize,
}

/// What LayerNorms give and divide by, and where heads look.
#[derive(Clone)]
struct Inner {
    x1: Tensor,
    sigma1: Tensor,
    attended: Attended,
    x2: Tensor,
    sigma2: Tensor,
}

/// A hook's parts in the running pass, `[T, n]` each.
#[derive(Clone)]
struct Encoded {
    /// `a − r`
    change: Tensor,
    /// Slope of the activation at its pre-activation; none where it is 1 everywhere.
    slope: Option<Tensor>,
}

/// A pass there and back.
pub struct Back {
    /// The forward pass.
    pub point: Point,
    /// The layer that it went back to: the first of those below.
    from: usize,
    /// By hook, the gradient at what it holds, `[T, d_out]`
    gradients: Vec<Tensor>,
    /// By hook, the gradient at each part, `[T, n]`
    at_parts: Vec<Tensor>,
    /// The gradient at the residual stream before the final LayerNorm, at the last position, `[1,
    /// D]`
    at_end: Tensor,
}

impl Gradient<'_> {
    /// Runs a prompt with its parts at `r + t·(a − r)`.
    pub fn point(&self, case: &Case, hooks: &PartialHooks, t: f64) -> Result<Point> {
        self.run_on(case, hooks, t, self.model.embed(case.tokens)?, (Vec::new(), Vec::new()))
    }

    /// The same where only hooks from a layer on are others than in `point`: what is before it is
    /// not run again.
    pub(super) fn point_from(
        &self,
        case: &Case,
        hooks: &PartialHooks,
        point: &Point,
        layer: usize,
    ) -> Result<Point> {
        let Inner { x1, sigma1, .. } = &point.inner[layer];
        let x = x1.broadcast_mul(sigma1)?;
        self.run_on(
            case,
            hooks,
            point.t,
            x,
            (point.layers[..layer].to_vec(), point.inner[..layer].to_vec()),
        )
    }

    /// Runs the layers that are not run yet on the residual stream before them, `[T, D]`.
    fn run_on(
        &self,
        case: &Case,
        hooks: &PartialHooks,
        t: f64,
        mut x: Tensor,
        (mut layers, mut inner): (Vec<[Encoded; 2]>, Vec<Inner>),
    ) -> Result<Point> {
        let model = &self.model;
        for l in inner.len()..model.sizes.layers {
            let (sigma1, qkv) = model.qkv(l, &x)?;
            let attended = model.look(&qkv)?;
            let (z, attention) = held(&hooks.parts[2 * l], &attended.z, t)?;
            let mid = model.after_attention(l, &x, &z)?;
            let sigma2 = model.scale(&mid)?;
            let x2 = mid.broadcast_div(&sigma2)?;
            let (mlp_out, mlp) = held(&hooks.parts[2 * l + 1], &x2, t)?;
            let x1 = x.broadcast_div(&sigma1)?;
            x = (mid + mlp_out)?;
            layers.push([attention, mlp]);
            inner.push(Inner { x1, sigma1, attended, x2, sigma2 });
        }
        let tokens = case.tokens.len();
        let last = x.narrow(0, tokens - 1, 1)?;
        let sigma = model.scale(&last)?;
        let end = last.broadcast_div(&sigma)?;
        let logits = numbers(&end.matmul(&model.w_u)?.broadcast_add(&model.b_u)?)?;
        let (value, by_logit) = case.metric.with_gradient(&logits);
        let by_logit =
            Tensor::from_vec(by_logit, (1, logits.len()), x.device())?.to_dtype(self.dtype)?;
        let at_end = by_logit.matmul(&model.w_u.t()?)?;
        Ok(Point { t, value, layers, inner, end: [end, sigma, at_end], tokens })
    }
}

/// What a hook holds with its parts at `r + t·(a − r)`.
fn held(parts: &Parts, read: &Tensor, t: f64) -> Result<(Tensor, Encoded)> {
    let (a, slope) = parts.encode(read)?;
    let change = (a - &parts.instead)?;
    let holds = (&parts.whole + (parts.write(&parts.weighted(change.clone())?)? * t)?)?;
    Ok((holds, Encoded { change, slope }))
}

impl Point {
    /// Takes the metric's gradient back.
    pub fn back(self, gradient: &Gradient, hooks: &PartialHooks) -> Result<Back> {
        self.back_to(gradient, hooks, 0)
    }

    /// The same as far as the hooks of a layer.
    pub(super) fn back_to(
        self,
        gradient: &Gradient,
        hooks: &PartialHooks,
        from: usize,
    ) -> Result<Back> {
        let model = &gradient.model;
        let [end, sigma, at_end] = &self.end;
        let at_end = through_norm(end, sigma, at_end)?;
        let above = self.tokens - 1;
        let mut g = at_end.pad_with_zeros(0, above, 0)?;
        let (mut gradients, mut at_parts) = (Vec::new(), Vec::new());
        for l in (from..model.sizes.layers).rev() {
            let (Inner { x1, sigma1, attended, x2, sigma2 }, [attention, mlp]) =
                (&self.inner[l], &self.layers[l]);
            let own = hooks.parts[2 * l + 1].at_parts(&g)?;
            let at_pre = mlp.pre(&hooks.parts[2 * l + 1].weighted(own.clone())?, self.t)?;
            let at_x2 = hooks.parts[2 * l + 1].at_read(&at_pre, x2)?;
            let at_mid = (&g + through_norm(x2, sigma2, &at_x2)?)?;
            gradients.push(g);
            at_parts.push(own);
            let at_z = at_mid.matmul(&model.layers[l].w_o.t()?)?;
            let own = hooks.parts[2 * l].at_parts(&at_z)?;
            let at_pre = attention.pre(&hooks.parts[2 * l].weighted(own.clone())?, self.t)?;
            let at_gathered = hooks.parts[2 * l].at_read(&at_pre, &attended.z)?;
            gradients.push(at_z);
            at_parts.push(own);
            // Nothing that is asked for is before the first of the layers' heads.
            g = match l == from {
                true => at_mid,
                false => {
                    (at_mid
                        + through_norm(
                            x1,
                            sigma1,
                            &through_heads(model, l, attended, &at_gathered)?,
                        )?)?
                }
            };
        }
        gradients.reverse();
        at_parts.reverse();
        Ok(Back { point: self, from, gradients, at_parts, at_end })
    }
}

impl Encoded {
    /// The gradient at the parts → at their pre-activations: they are written `t` times.
    fn pre(&self, at_parts: &Tensor, t: f64) -> Result<Tensor> {
        let at = (at_parts * t)?;
        Ok(match &self.slope {
            Some(slope) => (at * slope)?,
            None => at,
        })
    }
}

/// The gradient at `y = x/σ`, → at `x`: `(g − y·mean(y·g))/σ`, as `σ` is alive.
fn through_norm(y: &Tensor, sigma: &Tensor, g: &Tensor) -> Result<Tensor> {
    let along = (y * g)?.mean_keepdim(D::Minus1)?;
    Ok((g - y.broadcast_mul(&along)?)?.broadcast_div(sigma)?)
}

/// The gradient at `z` `[T, H·K]` → at what heads read, `[T, D]`; patterns and values are alive.
fn through_heads(model: &Gpt2, l: usize, attended: &Attended, at_z: &Tensor) -> Result<Tensor> {
    let (h, k) = (model.sizes.heads, model.sizes.d_head);
    let t = at_z.dim(0)?;
    let g = at_z.reshape((t, h, k))?.transpose(0, 1)?.contiguous()?;
    let Attended { q, k: key, v, pattern, .. } = attended;
    let at_v = pattern.t()?.contiguous()?.matmul(&g)?;
    let at_pattern = g.matmul(&v.t()?.contiguous()?)?;
    let along = (pattern * &at_pattern)?.sum_keepdim(D::Minus1)?;
    let at_scores = ((pattern * at_pattern.broadcast_sub(&along)?)? / (k as f64).sqrt())?;
    let at_q = at_scores.matmul(key)?;
    let at_k = at_scores.t()?.contiguous()?.matmul(q)?;
    let flat = |x: Tensor| x.transpose(0, 1)?.contiguous()?.reshape((t, h * k));
    Ok(Tensor::cat(&[flat(at_q)?, flat(at_k)?, flat(at_v)?], 1)?
        .matmul(&model.layers[l].w_qkv.t()?)?)
}

impl Back {
    /// `(a − r)·c` of a hook's parts, `[T, n]`
    pub fn scores(&self, hook: usize) -> Result<Tensor> {
        Ok((self.change(hook) * &self.at_parts[hook - 2 * self.from])?)
    }

    /// The gradient at what a hook holds, `[T, d_out]`
    pub(super) fn gradient(&self, hook: usize) -> &Tensor {
        &self.gradients[hook - 2 * self.from]
    }

    /// `a − r` of a hook's parts, `[T, n]`
    pub fn change(&self, hook: usize) -> &Tensor {
        &self.point.layers[hook / 2][hook % 2].change
    }

    /// The gradient at the pre-activations of a hook's parts, `[T, n]`
    pub(super) fn at_pre(&self, hook: usize) -> Result<Tensor> {
        self.point.layers[hook / 2][hook % 2]
            .pre(&self.at_parts[hook - 2 * self.from], self.point.t)
    }

    /// The gradient at the residual stream that the unembedding reads, at the last position, `[1,
    /// D]`
    pub(super) fn at_end(&self) -> &Tensor {
        &self.at_end
    }

    /// What a layer's LayerNorm gives, `[T, D]`, and divides by, `[T, 1]`: before its heads, or
    /// before its MLP.
    pub(super) fn norm(&self, layer: usize, before_mlp: bool) -> (&Tensor, &Tensor) {
        let Inner { x1, sigma1, x2, sigma2, .. } = &self.point.inner[layer];
        if before_mlp { (x2, sigma2) } else { (x1, sigma1) }
    }

    pub(super) fn point_tokens(&self) -> usize {
        self.point.tokens
    }

    pub(super) fn attended(&self, layer: usize) -> &Attended {
        &self.point.inner[layer].attended
    }
}
