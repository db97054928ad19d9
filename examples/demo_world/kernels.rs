//! The hot inner loops of training, on plain slices: written so that the compiler can use vector
//! registers.
//!
//! Every sum runs in a fixed order, so the same input gives the same bits. Nothing here knows of
//! tensors.

const LANES: usize = 16;

/// `eˣ` to about 2e-7, without a call, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * (355.0 / 512.0)) + n * 2.121_944_4e-4;
    let p = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * p))));
    let power = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    f32::from_bits(power) * p
}

fn fold(lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    let mut lanes = lanes;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of `f` over two slices of equal length, in lanes.
#[inline(always)]
pub(crate) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 =
        a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&x, &y)| f(x, y)).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    fold(lanes) + rest
}

#[inline(always)]
pub(crate) fn sum(a: &[f32]) -> f32 {
    sum2(a, a, |x, _| x)
}

#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    lanes.iter().fold(rest, |m, &x| if x > m { x } else { m })
}

/// `y += s·x`
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], s: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += s * x;
    }
}

/// The tanh inside GPT-2's GELU and the slope of its argument.
#[inline(always)]
fn gelu_parts(x: f32) -> (f32, f32) {
    const C: f32 = 0.797_884_6;
    let u = C * (x + 0.044_715 * x * x * x);
    let tanh = 1.0 - 2.0 / (exp(2.0 * u) + 1.0);
    (tanh, C * (1.0 + 3.0 * 0.044_715 * x * x))
}

#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + gelu_parts(x).0)
}

#[inline(always)]
pub(crate) fn gelu_slope(x: f32) -> f32 {
    let (tanh, du) = gelu_parts(x);
    0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * du
}

/// Mean and `1/σ` of a row.
#[inline(always)]
pub(crate) fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum(row) / n;
    let variance = sum2(row, row, |x, _| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// Replaces a row by `exp(row − max)` and returns that maximum and the sum.
#[inline(always)]
pub(crate) fn exponentials(row: &mut [f32]) -> (f32, f32) {
    let top = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - top);
    }
    (top, sum(row))
}

/// One attention head over one context, `K` wide: `q`, `k`, `v` are `[T, K]`, gathered so that
/// loops run over dense rows.
pub(crate) struct Head<const K: usize> {
    pub t: usize,
    pub q: Vec<[f32; K]>,
    pub k: Vec<[f32; K]>,
    pub v: Vec<[f32; K]>,
}

#[inline(always)]
fn dot<const K: usize>(a: &[f32; K], b: &[f32; K]) -> f32 {
    let mut products = [0.0; K];
    for i in 0..K {
        products[i] = a[i] * b[i];
    }
    let mut half = K / 2;
    while half > 0 {
        for i in 0..half {
            products[i] += products[i + half];
        }
        half /= 2;
    }
    products[0]
}

#[inline(always)]
fn axpy<const K: usize>(y: &mut [f32; K], s: f32, x: &[f32; K]) {
    for i in 0..K {
        y[i] += s * x[i];
    }
}

impl<const K: usize> Head<K> {
    /// Reads head `h` of rows `[3D]` (queries, keys, values side by side).
    pub(crate) fn gather(qkv: &[f32], t: usize, d: usize, h: usize) -> Self {
        let part = |offset: usize| -> Vec<[f32; K]> {
            let at = |row: usize| row * 3 * d + offset + h * K;
            (0..t).map(|row| std::array::from_fn(|i| qkv[at(row) + i])).collect()
        };
        Head { t, q: part(0), k: part(d), v: part(2 * d) }
    }

    /// The attention pattern of position `p` over `0..=p`, written into `row`.
    fn pattern(&self, p: usize, row: &mut [f32]) {
        let scale = 1.0 / (K as f32).sqrt();
        let q = self.q[p].map(|x| x * scale);
        for (score, k) in row.iter_mut().zip(&self.k) {
            *score = dot(&q, k);
        }
        let (_, total) = exponentials(row);
        row.iter_mut().for_each(|x| *x /= total);
    }

    /// `z[p]` for every position.
    pub(crate) fn forward(&self) -> Vec<[f32; K]> {
        let mut row = vec![0.0; self.t];
        let mut z = vec![[0.0; K]; self.t];
        for (p, z) in z.iter_mut().enumerate() {
            let row = &mut row[..=p];
            self.pattern(p, row);
            for (a, v) in row.iter().zip(&self.v) {
                axpy(z, *a, v);
            }
        }
        z
    }

    /// Gradients of `q`, `k` and `v`, given that of `z`.
    pub(crate) fn backward(&self, dz: &[[f32; K]]) -> [Vec<[f32; K]>; 3] {
        let scale = 1.0 / (K as f32).sqrt();
        let zero = || vec![[0.0; K]; self.t];
        let (mut dq, mut dk, mut dv) = (zero(), zero(), zero());
        let (mut row, mut slope) = (vec![0.0; self.t], vec![0.0; self.t]);
        for p in 0..self.t {
            let (row, slope) = (&mut row[..=p], &mut slope[..=p]);
            self.pattern(p, row);
            for s in 0..=p {
                axpy(&mut dv[s], row[s], &dz[p]);
                slope[s] = dot(&dz[p], &self.v[s]);
            }
            let mean = sum2(row, slope, |a, d| a * d);
            for s in 0..=p {
                let ds = scale * row[s] * (slope[s] - mean);
                axpy(&mut dq[p], ds, &self.k[s]);
                axpy(&mut dk[s], ds, &self.q[p]);
            }
        }
        [dq, dk, dv]
    }
}
