//! What stands between the matrix products, in one pass over memory each: bias, GELU, LayerNorm and
//! the softmax of attention. For numbers of 32 bits; those of 64 take candle's own operations.
//!
//! Loops are plain and compiled for the vector registers that the machine has (`vectors`). A row's
//! result depends on that row alone, and sums have the same order everywhere.

use crate::error::{Context, Result, hinted};
use crate::vectors::vectors;
use candle_core::{
    CpuStorage, CustomOp1, D as Last, DType, InplaceOp2, InplaceOp3, Layout, Shape, Storage, Tensor,
};
use pulp::Simd;
use rayon::prelude::*;

/// Numbers that a thread takes at least.
const AT_ONCE: usize = 1 << 14;
/// Sums that run side by side.
const LANES: usize = 16;

/// `x [T, n]·w [n, m] + b [m]`
pub(super) fn linear(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    with_bias(x.matmul(w)?, b, false).context("adding a bias")
}

/// `stream [T, m] + (x·w + b)`
pub(super) fn linear_onto(stream: &Tensor, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let product = x.matmul(w)?;
    if product.dtype() == DType::F32 && product.dims() == stream.dims() {
        // Nothing else refers to the product.
        product
            .inplace_op3(b, &stream.contiguous()?, &BiasOnto)
            .context("adding to the residual stream")?;
        return Ok(product);
    }
    Ok((stream + product.broadcast_add(b)?)?)
}

/// GELU of `x·w + b`
pub(super) fn linear_gelu(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    with_bias(x.matmul(w)?, b, true).context("activating the units of an MLP")
}

fn with_bias(product: Tensor, b: &Tensor, activate: bool) -> Result<Tensor> {
    if product.dtype() == DType::F32 {
        // Nothing else refers to the product.
        product.inplace_op2(b, &Bias { activate })?;
        return Ok(product);
    }
    let sum = product.broadcast_add(b)?;
    Ok(if activate { sum.gelu()? } else { sum })
}

/// `x/σ [T, D]` with `σ = sqrt(mean(x²) + ε)`
pub(super) fn normed(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    if x.dtype() == DType::F32 {
        return Ok(x.contiguous()?.apply_op1_no_bwd(&Norm { epsilon: epsilon as f32 })?);
    }
    let scale = (x.sqr()?.mean_keepdim(Last::Minus1)? + epsilon)?.sqrt()?;
    Ok(x.broadcast_div(&scale)?)
}

/// Softmax of attention scores `[H, T, T]`, each position's over itself and those before it; 0 over
/// those after it.
pub(super) fn causal_softmax(scores: &Tensor) -> Result<Tensor> {
    Ok(scores.contiguous()?.apply_op1_no_bwd(&CausalSoftmax)?)
}

/// `x + b` in place, or GELU of it.
struct Bias {
    activate: bool,
}

/// What of a storage a contiguous layout covers.
fn covered(layout: &Layout) -> candle_core::Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(from..to),
        None => candle_core::bail!("numbers that do not lie one behind the other"),
    }
}

/// The numbers of rows, and of the bias that each of them gets.
fn rows_and_bias<'a>(
    x: &'a mut CpuStorage,
    of_x: &Layout,
    b: &'a CpuStorage,
    of_b: &Layout,
) -> candle_core::Result<(&'a mut [f32], &'a [f32])> {
    let b = &b.as_slice::<f32>()?[covered(of_b)?];
    let CpuStorage::F32(x) = x else { candle_core::bail!("a bias of other numbers") };
    let x = &mut x[covered(of_x)?];
    if b.is_empty() || !x.len().is_multiple_of(b.len()) {
        candle_core::bail!("a bias of {} numbers for {}", b.len(), x.len());
    }
    Ok((x, b))
}

impl InplaceOp2 for Bias {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        of_x: &Layout,
        b: &CpuStorage,
        of_b: &Layout,
    ) -> candle_core::Result<()> {
        let (x, b) = rows_and_bias(x, of_x, b, of_b)?;
        let some = |rows: &mut [f32]| {
            if self.activate {
                vectors!(add_and_activate(rows: &mut [f32], b: &[f32]));
            } else {
                vectors!(add(rows: &mut [f32], b: &[f32]));
            }
        };
        x.par_chunks_mut(rows_at_once(b.len())).for_each(some);
        Ok(())
    }
}

/// `stream + (x + b)` in place of `x`.
struct BiasOnto;

impl InplaceOp3 for BiasOnto {
    fn name(&self) -> &'static str {
        "bias onto a residual stream"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        of_x: &Layout,
        b: &CpuStorage,
        of_b: &Layout,
        stream: &CpuStorage,
        of_stream: &Layout,
    ) -> candle_core::Result<()> {
        let (x, b) = rows_and_bias(x, of_x, b, of_b)?;
        let stream = &stream.as_slice::<f32>()?[covered(of_stream)?];
        if x.len() != stream.len() {
            candle_core::bail!("a stream of {} numbers for {}", stream.len(), x.len());
        }
        let some = rows_at_once(b.len());
        x.par_chunks_mut(some).zip(stream.par_chunks(some)).for_each(|(rows, stream)| {
            vectors!(add_onto(rows: &mut [f32], b: &[f32], stream: &[f32]));
        });
        Ok(())
    }
}

/// Numbers of as many whole rows as a thread takes.
fn rows_at_once(width: usize) -> usize {
    width * (AT_ONCE / width.max(1)).max(1)
}

#[inline(always)]
fn add(rows: &mut [f32], b: &[f32]) {
    for row in rows.chunks_exact_mut(b.len()) {
        row.iter_mut().zip(b).for_each(|(x, b)| *x += b);
    }
}

#[inline(always)]
fn add_onto(rows: &mut [f32], b: &[f32], stream: &[f32]) {
    for (row, stream) in rows.chunks_exact_mut(b.len()).zip(stream.chunks_exact(b.len())) {
        row.iter_mut().zip(b).zip(stream).for_each(|((x, b), s)| *x = s + (*x + b));
    }
}

#[inline(always)]
fn add_and_activate(rows: &mut [f32], b: &[f32]) {
    for row in rows.chunks_exact_mut(b.len()) {
        row.iter_mut().zip(b).for_each(|(x, b)| *x = gelu(*x + b));
    }
}

/// GPT-2's GELU, the tanh form, as `x·σ(2u)` with `u = √(2/π)·(x + 0.044715·x³)`: the same function
/// as `x/2·(1 + tanh u)`, with one exponential in place of a hyperbolic tangent.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769_2;
    x / (1.0 + exp(-TWICE_ROOT * x * (1.0 + 0.044_715 * x * x)))
}

/// GELU and its slope.
#[inline(always)]
fn gelu_with_slope(x: f32) -> [f32; 2] {
    const TWICE_ROOT: f32 = 1.595_769_2;
    let gate = 1.0 / (1.0 + exp(-TWICE_ROOT * x * (1.0 + 0.044_715 * x * x)));
    let inner = TWICE_ROOT * (1.0 + 3.0 * 0.044_715 * x * x);
    [x * gate, gate + x * gate * (1.0 - gate) * inner]
}

#[inline(always)]
fn with_slopes(a: &mut [f32], slopes: &mut [f32]) {
    a.iter_mut().zip(slopes).for_each(|(a, slope)| [*a, *slope] = gelu_with_slope(*a));
}

/// GELU and its slope, of numbers of 32 bits.
pub(crate) fn gelu_and_slope(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let mut a: Vec<f32> = x.flatten_all()?.to_vec1()?;
    let mut slope = vec![0.0; a.len()];
    let (own, slopes) = (a.as_mut_slice(), slope.as_mut_slice());
    vectors!(with_slopes(own: &mut [f32], slopes: &mut [f32]));
    let tensor = |values| Tensor::from_vec(values, x.shape(), x.device());
    Ok((tensor(a)?, tensor(slope)?))
}

/// `eˣ` to 2 units in the last place, without a branch or a call, so that it runs in vector
/// registers: `2ⁿ·eᶠ` with `n = round(x/ln 2)`, `|f| ≤ ln 2/2` and a polynomial for `eᶠ` (Taylor's
/// up to the seventh power, which is off by less than 6·10⁻⁹). 0 below −87.3, where numbers are no
/// longer normal.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Added to a small number it leaves the nearest whole one in the last bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, of which the first times a whole number has no rounding.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    let small = x.clamp(-87.3, 88.3);
    let rounded = small * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let f = (small - n * LN_2[0]) - n * LN_2[1];
    let p = 1.0 / 720.0 + f * (1.0 / 5040.0);
    let p = 1.0 / 24.0 + f * (1.0 / 120.0 + f * p);
    let p = 1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * p)));
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let power = f32::from_bits(exponent << 23);
    let inside = p * power;
    let from_below = if x < -87.3 { 0.0 } else { inside };
    if x > 88.3 { f32::INFINITY } else { from_below }
}

/// Divides each row by its `σ`.
struct Norm {
    epsilon: f32,
}

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = &storage.as_slice::<f32>()?[covered(layout)?];
        let width = layout.dims().last().copied().unwrap_or(1).max(1);
        let (epsilon, mut y) = (self.epsilon, x.to_vec());
        y.par_chunks_mut(rows_at_once(width)).for_each(|rows| {
            vectors!(norm(simd, rows: &mut [f32], width: usize, epsilon: f32));
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

#[inline(always)]
fn norm<S: Simd>(simd: S, rows: &mut [f32], width: usize, epsilon: f32) {
    for row in rows.chunks_exact_mut(width) {
        let scale = (sum(simd, row, true) / width as f32 + epsilon).sqrt();
        row.iter_mut().for_each(|x| *x /= scale);
    }
}

/// The sum of numbers, or of their squares: in [`LANES`] lanes, which are joined at the end.
#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32], squared: bool) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    let sums = S::as_mut_simd_f32s(&mut lanes).0;
    for x in whole {
        for (sum, x) in sums.iter_mut().zip(S::as_simd_f32s(x).0) {
            let taken = if squared { simd.mul_f32s(*x, *x) } else { *x };
            *sum = simd.add_f32s(*sum, taken);
        }
    }
    let rest = lanes.iter_mut().zip(rest);
    rest.for_each(|(sum, x)| *sum += if squared { x * x } else { *x });
    lanes.into_iter().fold(0.0, |a, b| a + b)
}

/// The largest of numbers; of none, `−∞`.
#[inline(always)]
fn largest<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    let all = S::as_mut_simd_f32s(&mut lanes).0;
    for x in whole {
        for (largest, x) in all.iter_mut().zip(S::as_simd_f32s(x).0) {
            *largest = simd.max_f32s(*x, *largest);
        }
    }
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

struct CausalSoftmax;

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal softmax"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let scores = &storage.as_slice::<f32>()?[covered(layout)?];
        let t = layout.dims().last().copied().unwrap_or(1).max(1);
        let mut pattern = scores.to_vec();
        // A head at a time: which position a row is of follows from its place.
        let heads = (AT_ONCE / (t * t)).max(1);
        pattern.par_chunks_mut(heads * t * t).for_each(|heads| {
            vectors!(causal(simd, heads: &mut [f32], t: usize));
        });
        Ok((CpuStorage::F32(pattern), layout.shape().clone()))
    }
}

#[inline(always)]
fn causal<S: Simd>(simd: S, heads: &mut [f32], t: usize) {
    for (row, all) in heads.chunks_exact_mut(t).enumerate() {
        let (seen, ahead) = all.split_at_mut(row % t + 1);
        softmax(simd, seen);
        ahead.fill(0.0);
    }
}

/// Softmax of the scores of one position.
#[inline(always)]
pub(super) fn softmax<S: Simd>(simd: S, scores: &mut [f32]) {
    let largest = largest(simd, scores);
    scores.iter_mut().for_each(|x| *x = exp(*x - largest));
    let sum = sum(simd, scores, false);
    scores.iter_mut().for_each(|x| *x /= sum);
}

/// How surprising tokens are, and were to be expected to be, in nats; sums over several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Surprise {
    /// `−ln p` of the tokens that came.
    pub loss: f64,
    /// Entropy of the predictions.
    pub entropy: f64,
}

impl std::ops::Add for Surprise {
    type Output = Surprise;

    fn add(self, other: Surprise) -> Surprise {
        Surprise { loss: self.loss + other.loss, entropy: self.entropy + other.entropy }
    }
}

impl Surprise {
    /// Of `tokens`, each predicted by a row of logits `[T, V]`.
    pub(crate) fn of(logits: &Tensor, tokens: &[u32]) -> Result<Surprise> {
        let logits = logits.to_dtype(DType::F32)?.contiguous()?;
        let (storage, layout) = logits.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            return Err(hinted("logits on another device", "`machine.device` must be `cpu`"));
        };
        let rows = &storage.as_slice::<f32>()?[covered(layout)?];
        let width = logits.dim(Last::Minus1)?;
        let of = |(row, &token): (&[f32], &u32)| vectors!(surprise(simd, row: &[f32], token: u32) -> Surprise);
        let each: Vec<Surprise> = rows.par_chunks_exact(width).zip(tokens).map(of).collect();
        // Added up in the order of the tokens, so that sums do not depend on the threads.
        Ok(each.into_iter().fold(Surprise::default(), |sum, one| sum + one))
    }
}

/// Of one token, predicted by logits `[V]`.
#[inline(always)]
fn surprise<S: Simd>(simd: S, logits: &[f32], token: u32) -> Surprise {
    /// Numbers that are summed in 32 bits at most.
    const SUMMED: usize = 64 * LANES;
    let largest = largest(simd, logits);
    // Of `exp x` and of `x·exp x`.
    let (mut sum, mut weighted) = (0.0, 0.0);
    for part in logits.chunks(SUMMED) {
        let (mut sums, mut weights) = ([0.0; LANES], [0.0; LANES]);
        let mut take = |lanes: &[f32]| {
            for ((x, sum), weight) in lanes.iter().zip(&mut sums).zip(&mut weights) {
                let x = x - largest;
                let e = exp(x);
                *sum += e;
                *weight += e * x;
            }
        };
        // Arrays of a length that is known are a few operations of vectors.
        let (whole, rest) = part.as_chunks::<LANES>();
        whole.iter().for_each(|lanes| take(lanes));
        take(rest);
        sum += sums.iter().copied().map(f64::from).sum::<f64>();
        weighted += weights.iter().copied().map(f64::from).sum::<f64>();
    }
    let log: f64 = sum.ln();
    let of_token = logits.get(token as usize).map_or(f64::NAN, |x| f64::from(x - largest));
    Surprise { loss: log - of_token, entropy: log - weighted / sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let draw = |i| (crate::stats::mix(seed, i) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        (0..n as u64).map(draw).collect()
    }

    fn near(own: &Tensor, wanted: &Tensor, within: f32) {
        assert_eq!(own.dims(), wanted.dims());
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (i, (own, wanted)) in flat(own).into_iter().zip(flat(wanted)).enumerate() {
            assert!(
                (own - wanted).abs() <= within * wanted.abs().max(1e-3),
                "{i}: {own}, {wanted}"
            );
        }
    }

    #[test]
    fn the_exponential_is_right_to_two_units_in_the_last_place() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let wanted = f64::from(x).exp();
            let off = (f64::from(exp(x)) - wanted).abs() / wanted;
            assert!(off < 2.4e-7, "{x}: {} and not {wanted}", exp(x));
        }
        assert_eq!([exp(f32::NEG_INFINITY), exp(-100.0), exp(0.0)], [0.0, 0.0, 1.0]);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_is_the_tanh_form() {
        let x: Vec<f32> = (-2000..2000).map(|i| i as f32 / 100.0).collect();
        let wanted: Vec<f32> =
            Tensor::new(x.as_slice(), &Device::Cpu).unwrap().gelu().unwrap().to_vec1().unwrap();
        for (x, wanted) in x.into_iter().zip(wanted) {
            let off = (gelu(x) - wanted).abs();
            assert!(off <= 1e-6 * x.abs().max(1e-6), "{x}: {} and not {wanted}", gelu(x));
        }
        assert_eq!([gelu(-1e30), gelu(1e30)], [0.0, 1e30]);
        for i in -600..600 {
            let x = i as f32 / 100.0;
            let (below, above) = (f64::from(x) - 1e-3, f64::from(x) + 1e-3);
            let exact = |x: f64| {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + u.tanh())
            };
            let [a, slope] = gelu_with_slope(x).map(f64::from);
            assert!((a - exact(f64::from(x))).abs() < 1e-6, "{x}: {a}");
            let wanted = (exact(above) - exact(below)) / 2e-3;
            assert!((slope - wanted).abs() < 2e-6, "{x}: {slope} and not {wanted}");
        }
        assert!(gelu(f32::NAN).is_nan());
    }

    #[test]
    fn each_is_as_candles_own_operations_are() {
        let (t, d, m) = (7, 50, 33);
        let tensor = |shape: &[usize], seed| {
            let n = shape.iter().product();
            Tensor::from_vec(numbers(n, seed), shape, &Device::Cpu).unwrap()
        };
        let (x, w, b) = (tensor(&[t, d], 1), tensor(&[d, m], 2), tensor(&[m], 3));
        let product = x.matmul(&w).unwrap().broadcast_add(&b).unwrap();
        near(&linear(&x, &w, &b).unwrap(), &product, 1e-6);
        let stream = tensor(&[t, m], 5);
        near(&linear_onto(&stream, &x, &w, &b).unwrap(), &(&stream + &product).unwrap(), 1e-6);
        // Far below 0, candle's 1 + tanh is rounded to 0.
        near(&linear_gelu(&x, &w, &b).unwrap(), &product.gelu().unwrap(), 1e-4);
        // A part of a bias, which begins in the middle of its storage.
        let (part, few) = (b.narrow(0, 3, 20).unwrap(), w.narrow(1, 0, 20).unwrap());
        let few = few.contiguous().unwrap();
        let wanted = x.matmul(&few).unwrap().broadcast_add(&part).unwrap();
        near(&linear(&x, &few, &part).unwrap(), &wanted, 1e-6);
        let scale = (x.sqr().unwrap().mean_keepdim(1).unwrap() + 0.25).unwrap().sqrt().unwrap();
        near(&normed(&x, 0.25).unwrap(), &x.broadcast_div(&scale).unwrap(), 1e-6);
        let scores = tensor(&[3, t, t], 4);
        let ahead: Vec<f32> =
            (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 }).collect();
        let ahead = Tensor::from_vec(ahead, (1, t, t), &Device::Cpu).unwrap();
        let masked = scores.broadcast_add(&ahead).unwrap();
        let wanted = candle_nn::ops::softmax_last_dim(&masked).unwrap();
        near(&causal_softmax(&scores).unwrap(), &wanted, 1e-6);
    }

    #[test]
    fn surprise_is_that_of_a_softmax() {
        let (t, v) = (3, 2500);
        let logits: Vec<f32> = numbers(t * v, 6).into_iter().map(|x| 20.0 * x).collect();
        let tokens = [7, 2499, 0];
        let found =
            Surprise::of(&Tensor::from_vec(logits.clone(), (t, v), &Device::Cpu).unwrap(), &tokens);
        let (mut loss, mut entropy) = (0.0, 0.0);
        for (row, token) in logits.chunks(v).zip(tokens) {
            let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            let log_p = |x: &f32| f64::from(*x) - sum.ln();
            loss -= log_p(&row[token as usize]);
            entropy -= row.iter().map(|x| log_p(x).exp() * log_p(x)).sum::<f64>();
        }
        let found = found.unwrap();
        assert!((found.loss - loss).abs() < 1e-5 * loss, "{found:?} {loss}");
        assert!((found.entropy - entropy).abs() < 1e-5 * entropy, "{found:?} {entropy}");
        let none = Tensor::new(&[[1.0f32, f32::NAN], [1.0, 2.0]], &Device::Cpu).unwrap();
        assert!(Surprise::of(&none, &[0, 1]).unwrap().loss.is_nan());
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let x = Tensor::new(&[[1.0f32, f32::NAN], [1.0, 2.0]], &Device::Cpu).unwrap();
        let rows: Vec<Vec<f32>> = normed(&x, 0.0).unwrap().to_vec2().unwrap();
        assert!(rows[0][1].is_nan() && rows[1].iter().all(|x| x.is_finite()));
        let scores = Tensor::new(&[[[1.0f32, 0.0], [f32::NAN, 2.0]]], &Device::Cpu).unwrap();
        let pattern = causal_softmax(&scores).unwrap().flatten_all().unwrap();
        let pattern: Vec<f32> = pattern.to_vec1().unwrap();
        assert_eq!(pattern[..2], [1.0, 0.0]);
        assert!(pattern[2].is_nan() && pattern[3].is_nan());
    }
}
