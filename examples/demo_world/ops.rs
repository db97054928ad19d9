//! Fused operations with hand-written gradients, for the training that candle's own inference
//! kernels cannot do (its fused layer norm and softmax have no gradient) and its elementwise ones
//! do slowly.
//!
//! Letters: `N` rows (tokens of a batch), `D` d_model, `H` heads, `K` d_head, `V` vocabulary, `T`
//! tokens of a context.

use super::kernels::{self, Head};
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

/// Width of a head: fixed, so that the attention loops unroll.
pub(crate) const K: usize = 16;

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<f32>()?[from..to]),
        None => bail!("fused operations take contiguous tensors"),
    }
}

/// Runs `f` on a tensor's numbers without copying them.
pub(crate) fn read<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(f(slice(cpu, layout)?)),
        _ => bail!("training runs on the processor"),
    }
}

fn made(values: Vec<f32>, like: &Layout) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), like.shape().clone())
}

fn like(values: Vec<f32>, tensor: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, tensor.shape(), tensor.device())
}

/// GPT-2's GELU, the tanh form.
pub(crate) struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(made(slice(x, layout)?.iter().map(|&x| kernels::gelu(x)).collect(), layout))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let product = |x: &[f32], g: &[f32]| {
            x.iter().zip(g).map(|(&x, g)| kernels::gelu_slope(x) * g).collect()
        };
        Ok(Some(like(read(x, |x| read(&grad, |g| product(x, g)))??, x)?))
    }
}

/// Adds a bias to every row.
pub(crate) struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, b) = (slice(x, lx)?, slice(b, lb)?);
        let mut y = x.to_vec();
        y.chunks_exact_mut(b.len()).for_each(|row| kernels::add_scaled(row, 1.0, b));
        Ok(made(y, lx))
    }

    fn bwd(
        &self,
        _: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let mut db = vec![0.0; b.elem_count()];
        read(&grad, |g| {
            g.chunks_exact(db.len()).for_each(|row| kernels::add_scaled(&mut db, 1.0, row))
        })?;
        let db = like(db, b)?;
        Ok((Some(grad), Some(db)))
    }
}

/// LayerNorm over rows, with gain and bias.
pub(crate) struct LayerNorm {
    pub epsilon: f32,
}

impl LayerNorm {
    /// Gradients of input, gain and bias.
    fn gradients(&self, x: &[f32], gain: &[f32], grad: &[f32]) -> [Vec<f32>; 3] {
        let d = gain.len();
        let (mut dx, mut dg, mut db) = (vec![0.0; x.len()], vec![0.0; d], vec![0.0; d]);
        let mut scaled = vec![0.0; d];
        for ((x, grad), dx) in
            x.chunks_exact(d).zip(grad.chunks_exact(d)).zip(dx.chunks_exact_mut(d))
        {
            let (mean, r) = kernels::moments(x, self.epsilon);
            for i in 0..d {
                dx[i] = (x[i] - mean) * r;
                dg[i] += grad[i] * dx[i];
                db[i] += grad[i];
                scaled[i] = grad[i] * gain[i];
            }
            let average = kernels::sum(&scaled) / d as f32;
            let along = kernels::sum2(&scaled, dx, |s, x| s * x) / d as f32;
            for i in 0..d {
                dx[i] = r * (scaled[i] - average - dx[i] * along);
            }
        }
        [dx, dg, db]
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gain: &CpuStorage,
        lg: &Layout,
        bias: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gain, bias) = (slice(x, lx)?, slice(gain, lg)?, slice(bias, lb)?);
        let d = gain.len();
        let mut y = vec![0.0; x.len()];
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            let (mean, r) = kernels::moments(x, self.epsilon);
            for i in 0..d {
                y[i] = (x[i] - mean) * r * gain[i] + bias[i];
            }
        }
        Ok(made(y, lx))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let all =
            read(x, |x| read(gain, |gain| read(&grad, |grad| self.gradients(x, gain, grad))))???;
        let [dx, dg, db] = all;
        Ok((Some(like(dx, x)?), Some(like(dg, gain)?), Some(like(db, bias)?)))
    }
}

/// Causal attention: rows of queries, keys and values `[N, 3D]` → `z` `[N, D]`, contexts of `T`
/// rows after one another.
pub(crate) struct Attention {
    pub t: usize,
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, d3) = layout.shape().dims2()?;
        let d = d3 / 3;
        let mut z = vec![0.0; n * d];
        let contexts = slice(qkv, layout)?.chunks_exact(self.t * d3);
        for (qkv, z) in contexts.zip(z.chunks_exact_mut(self.t * d)) {
            for h in 0..d / K {
                scatter(z, d, h * K, &Head::<K>::gather(qkv, self.t, d, h).forward());
            }
        }
        Ok((CpuStorage::F32(z), (n, d).into()))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let d = grad.dim(1)?;
        Ok(Some(like(read(qkv, |qkv| read(&grad, |grad| self.gradient(qkv, grad, d)))??, qkv)?))
    }
}

impl Attention {
    fn gradient(&self, qkv: &[f32], grad: &[f32], d: usize) -> Vec<f32> {
        let mut out = vec![0.0; qkv.len()];
        let contexts = qkv.chunks_exact(self.t * 3 * d).zip(grad.chunks_exact(self.t * d));
        for ((qkv, grad), out) in contexts.zip(out.chunks_exact_mut(self.t * 3 * d)) {
            for h in 0..d / K {
                let dz: Vec<[f32; K]> = grad
                    .chunks_exact(d)
                    .map(|row| std::array::from_fn(|i| row[h * K + i]))
                    .collect();
                let parts = Head::<K>::gather(qkv, self.t, d, h).backward(&dz);
                for (part, rows) in parts.iter().enumerate() {
                    scatter(out, 3 * d, part * d + h * K, rows);
                }
            }
        }
        out
    }
}

fn scatter(out: &mut [f32], width: usize, offset: usize, rows: &[[f32; K]]) {
    for (out, row) in out.chunks_exact_mut(width).zip(rows) {
        out[offset..offset + K].copy_from_slice(row);
    }
}

/// Summed cross entropy of logits `[N, V]`; a row whose target is `IGNORED` does not count.
pub(crate) struct CrossEntropy {
    pub targets: Vec<u32>,
}

/// The target of padding.
pub(crate) const IGNORED: u32 = u32::MAX;

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, v) = layout.shape().dims2()?;
        let mut row = vec![0.0; v];
        let mut total = 0f64;
        for (logits, &target) in slice(logits, layout)?.chunks_exact(v).zip(&self.targets) {
            if target != IGNORED {
                row.copy_from_slice(logits);
                let (top, sum) = kernels::exponentials(&mut row);
                total += f64::from(top + sum.ln() - logits[target as usize]);
            }
        }
        Ok((CpuStorage::F32(vec![total as f32]), ().into()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (scale, v) = (grad.to_scalar::<f32>()?, logits.dim(1)?);
        let mut out = read(logits, |logits| logits.to_vec())?;
        for (row, &target) in out.chunks_exact_mut(v).zip(&self.targets) {
            if target == IGNORED {
                row.fill(0.0);
                continue;
            }
            let (_, sum) = kernels::exponentials(row);
            row.iter_mut().for_each(|x| *x *= scale / sum);
            row[target as usize] -= scale;
        }
        Ok(Some(like(out, logits)?))
    }
}

/// How far logits `[N, V]` are from those of another model, summed over the rows that count: the
/// Kullback-Leibler divergence of the predictions, which hardly tells apart logits of what is
/// nearly certain, and the squared error of the logits, which does.
pub(crate) struct Divergence {
    /// The other model's logits, `[N, V]`, less their mean in each row.
    wanted: Vec<f32>,
    /// How much each row counts.
    weights: Vec<f32>,
    /// Weight of the squared error, in units of the variance of the logits.
    squared: f32,
}

impl Divergence {
    pub(crate) fn from(logits: &Tensor, weights: Vec<f32>, squared: f32) -> Result<Divergence> {
        let v = logits.dim(1)?;
        let mut wanted = read(logits, |logits| logits.to_vec())?;
        let (mut variance, mut rows) = (0f64, 0);
        for (row, _) in
            wanted.chunks_exact_mut(v).zip(&weights).filter(|(_, weight)| **weight > 0.0)
        {
            let mean = kernels::sum(row) / v as f32;
            row.iter_mut().for_each(|x| *x -= mean);
            variance += f64::from(kernels::sum2(row, row, |x, y| x * y)) / v as f64;
            rows += 1;
        }
        let squared = squared / (variance / f64::from(rows.max(1))) as f32;
        Ok(Divergence { wanted, weights, squared })
    }

    /// Loss and gradient of one row; `row` comes in as logits and goes out as the gradient.
    fn gradient(&self, row: &mut [f32], wanted: &[f32]) -> f64 {
        let n = row.len() as f32;
        let mean = kernels::sum(row) / n;
        row.iter_mut().for_each(|x| *x -= mean);
        let error = kernels::sum2(row, wanted, |x, y| (x - y) * (x - y)) / n;
        let (mut p, mut q) = (wanted.to_vec(), row.to_vec());
        let (top_p, sum_p) = kernels::exponentials(&mut p);
        let (top_q, sum_q) = kernels::exponentials(&mut q);
        let along = kernels::sum2(row, &p, |x, p| x * p) / sum_p;
        let own = kernels::sum2(wanted, &p, |y, p| y * p) / sum_p;
        // The error of rows without a mean has none either.
        let slope = 2.0 * self.squared / n;
        for (((x, y), p), q) in row.iter_mut().zip(wanted).zip(&p).zip(&q) {
            *x = q / sum_q - p / sum_p + slope * (*x - y);
        }
        let divergence = (top_q + sum_q.ln() - along) - (top_p + sum_p.ln() - own);
        f64::from(divergence) + f64::from(self.squared * error)
    }
}

impl CustomOp1 for Divergence {
    fn name(&self) -> &'static str {
        "divergence"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, v) = layout.shape().dims2()?;
        let mut total = 0f64;
        let rows = slice(logits, layout)?.chunks_exact(v).zip(self.wanted.chunks_exact(v));
        for ((logits, wanted), weight) in rows.zip(&self.weights).filter(|(_, w)| **w > 0.0) {
            total += f64::from(*weight) * self.gradient(&mut logits.to_vec(), wanted);
        }
        Ok((CpuStorage::F32(vec![total as f32]), ().into()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (scale, v) = (grad.to_scalar::<f32>()?, logits.dim(1)?);
        let mut out = read(logits, |logits| logits.to_vec())?;
        let rows = out.chunks_exact_mut(v).zip(self.wanted.chunks_exact(v));
        for ((row, wanted), weight) in rows.zip(&self.weights) {
            if *weight > 0.0 {
                self.gradient(row, wanted);
                row.iter_mut().for_each(|x| *x *= scale * weight);
            } else {
                row.fill(0.0);
            }
        }
        Ok(Some(like(out, logits)?))
    }
}
