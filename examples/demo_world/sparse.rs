//! Trains one sparse dictionary: `x → a = pre where pre > threshold → ŷ = a·W_dec + b_dec`, with
//! few entries of `a` active.
//!
//! BatchTopK: of a batch of `n` tokens the `n·k` largest pre-activations are active; the threshold
//! that a single token needs instead is read off at the end. Features that have died are revived by
//! an auxiliary loss on what is left unexplained. The map is linear, select, linear, so the
//! gradients are written by hand and touch active entries only. Letters: `D` width of input and
//! output, `F` features, `N` tokens.

use super::kernels::{add_scaled, sum2};
use super::ops::read;
use anyhow::Result;
use candle_core::{Device, Tensor};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub features: usize,
    /// Active features a token, on average.
    pub k: f32,
    pub steps: usize,
    pub batch: usize,
    pub rate: f32,
}

/// Rows of input and of what is to be reconstructed, `[N, D]` each.
pub(crate) struct Pairs {
    pub d: usize,
    pub x: Vec<f32>,
    pub y: Vec<f32>,
}

impl Pairs {
    /// Variance of a number of what is to be reconstructed, about the mean row.
    pub(crate) fn variance(&self) -> f32 {
        Norm::of(&self.y, self.d).scale.powi(-2)
    }
}

/// A dictionary in the input's own units, decoder rows of length 1.
#[derive(Clone)]
pub(crate) struct Sparse {
    /// `[F, D]`: the transpose of what is saved
    pub w_enc: Vec<f32>,
    pub b_enc: Vec<f32>,
    /// `[F, D]`
    pub w_dec: Vec<f32>,
    pub b_dec: Vec<f32>,
    pub threshold: Vec<f32>,
    /// Variance a number of what is reconstructed.
    pub variance: f32,
}

/// Weight of the auxiliary loss, how many dead features a token may use for it, and how many tokens
/// of silence are death.
const REVIVAL: f32 = 1.0 / 4.0;
const REVIVED: usize = 32;
const SILENCE: usize = 10_000;
/// Tokens encoded at once: what stays in the processor's cache.
const BLOCK: usize = 128;

/// Subtracted mean and scale that bring rows to a mean square of 1 per number.
struct Norm {
    mean: Vec<f32>,
    scale: f32,
}

impl Norm {
    fn of(rows: &[f32], d: usize) -> Norm {
        let n = (rows.len() / d) as f64;
        let mut mean = vec![0f64; d];
        rows.chunks_exact(d)
            .for_each(|row| row.iter().zip(&mut mean).for_each(|(x, m)| *m += f64::from(*x) / n));
        let square = |row: &[f32]| {
            row.iter().zip(&mean).map(|(x, m)| (f64::from(*x) - m).powi(2)).sum::<f64>()
        };
        let variance = rows.chunks_exact(d).map(square).sum::<f64>() / (n * d as f64);
        Norm {
            mean: mean.iter().map(|m| *m as f32).collect(),
            scale: 1.0 / (variance.sqrt() as f32),
        }
    }

    fn apply(&self, row: &[f32], out: &mut Vec<f32>) {
        out.extend(row.iter().zip(&self.mean).map(|(x, m)| (x - m) * self.scale));
    }
}

/// Parameters of one kind with Adam's moments.
pub(crate) struct Adam {
    pub value: Vec<f32>,
    pub grad: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Adam {
    pub(crate) fn new(value: Vec<f32>) -> Adam {
        let zero = vec![0.0; value.len()];
        Adam { value, grad: zero.clone(), first: zero.clone(), second: zero }
    }

    /// Step `t`, counted from 1; the gradient is 0 after it.
    pub(crate) fn step(&mut self, rate: f32, t: i32) {
        const B1: f32 = 0.9;
        const B2: f32 = 0.99;
        let (c1, c2) = (1.0 - B1.powi(t), 1.0 - B2.powi(t));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, grad), (m, v)) in self.value.iter_mut().zip(&mut self.grad).zip(moments) {
            *m = B1 * *m + (1.0 - B1) * *grad;
            *v = B2 * *v + (1.0 - B2) * *grad * *grad;
            *value -= rate * (*m / c1) / ((*v / c2).sqrt() + 1e-8);
            *grad = 0.0;
        }
    }
}

/// A dictionary in training.
pub(crate) struct Training {
    d: usize,
    settings: Settings,
    norms: [Norm; 2],
    w_enc: Adam,
    b_enc: Adam,
    w_dec: Adam,
    b_dec: Adam,
    /// Tokens since a feature was last active.
    silent: Vec<usize>,
    /// The activation that was just large enough in the last batch.
    limit: f32,
    /// The same of the last batches of the training.
    limits: Vec<f32>,
    /// Steps so far.
    done: usize,
    rng: ChaCha8Rng,
}

/// Active entries of one token.
pub(crate) type Row = Vec<(usize, f32)>;

/// What a batch is seen to have, a row for each token.
struct Seen {
    rows: Vec<Row>,
    dead: Vec<Row>,
}

/// The entries of `pre + bias` above `floor`.
pub(crate) fn above(pre: &[f32], bias: &[f32], floor: f32) -> Row {
    const LANES: usize = 32;
    let mut row = Row::new();
    for (start, (pre, bias)) in pre.chunks(LANES).zip(bias.chunks(LANES)).enumerate() {
        // Most have none: a comparison of all lanes at once.
        let any = pre.iter().zip(bias).fold(false, |any, (x, b)| any | (x + b > floor));
        if any {
            let on = pre.iter().zip(bias).enumerate().filter(|(_, (x, b))| *x + *b > floor);
            row.extend(on.map(|(i, (x, b))| (start * LANES + i, x + b)));
        }
    }
    row
}

/// Brings a row to length 1.
pub(crate) fn unit(row: &mut [f32]) {
    let length = sum2(row, row, |x, y| x * y).sqrt().max(1e-8);
    row.iter_mut().for_each(|x| *x /= length);
}

impl Sparse {
    /// The active features of rows `[N, D]`.
    pub(crate) fn active(&self, x: &[f32]) -> Result<Vec<Row>> {
        let (d, f) = (self.b_dec.len(), self.b_enc.len());
        let w = Tensor::from_slice(&self.w_enc, (f, d), &Device::Cpu)?.t()?;
        let floor = self.threshold.iter().copied().fold(f32::INFINITY, f32::min);
        let mut rows = Vec::new();
        for x in x.chunks(BLOCK * d) {
            let pre = Tensor::from_slice(x, (x.len() / d, d), &Device::Cpu)?.matmul(&w)?;
            read(&pre, |pre| {
                for pre in pre.chunks_exact(f) {
                    let mut row = above(pre, &self.b_enc, floor);
                    row.retain(|&(f, a)| a > self.threshold[f]);
                    rows.push(row);
                }
            })?;
        }
        Ok(rows)
    }
}

impl Training {
    /// Features begin as what single tokens of `pairs` read and write, so that each is active
    /// somewhere.
    pub(crate) fn new(pairs: &Pairs, settings: Settings, mut rng: ChaCha8Rng) -> Training {
        let d = pairs.d;
        let norms = [Norm::of(&pairs.x, d), Norm::of(&pairs.y, d)];
        let (mut w_enc, mut w_dec) = (Vec::new(), Vec::new());
        for _ in 0..settings.features {
            let row = rng.random_range(0..pairs.x.len() / d);
            norms[0].apply(&pairs.x[row * d..][..d], &mut w_enc);
            norms[1].apply(&pairs.y[row * d..][..d], &mut w_dec);
        }
        w_enc.chunks_exact_mut(d).chain(w_dec.chunks_exact_mut(d)).for_each(unit);
        // Many features share a token at first, and similar ones add up: each begins with a part of
        // the whole.
        w_enc.iter_mut().for_each(|w| *w *= 0.1);
        Training {
            d,
            settings,
            norms,
            w_enc: Adam::new(w_enc),
            b_enc: Adam::new(vec![0.0; settings.features]),
            w_dec: Adam::new(w_dec),
            b_dec: Adam::new(vec![0.0; d]),
            silent: vec![0; settings.features],
            limit: 0.0,
            limits: Vec::new(),
            done: 0,
            rng,
        }
    }

    fn rows(&self, pairs: &Pairs, batch: &[usize]) -> [Vec<f32>; 2] {
        let d = self.d;
        [(&pairs.x, &self.norms[0]), (&pairs.y, &self.norms[1])].map(|(from, norm)| {
            let mut out = Vec::with_capacity(batch.len() * d);
            batch.iter().for_each(|&row| norm.apply(&from[row * d..][..d], &mut out));
            out
        })
    }

    /// Pre-activations of a batch: those above `floor`, and of each token the strongest of the
    /// `dead` features. They are made a block of tokens at a time, which stays in the processor's
    /// cache.
    fn seen(&self, x: &[f32], floor: f32, dead: &[usize]) -> Result<Seen> {
        let (d, f) = (self.d, self.settings.features);
        let w = Tensor::from_slice(&self.w_enc.value, (f, d), &Device::Cpu)?.t()?;
        let mut seen = Seen { rows: Vec::new(), dead: Vec::new() };
        for block in x.chunks(BLOCK * d) {
            let n = block.len() / d;
            let pre = Tensor::from_slice(block, (n, d), &Device::Cpu)?.matmul(&w)?;
            read(&pre, |pre| {
                for pre in pre.chunks_exact(f) {
                    seen.rows.push(above(pre, &self.b_enc.value, floor));
                    seen.dead.push(self.revive(pre, dead));
                }
            })?;
        }
        Ok(seen)
    }

    /// The activation below which nothing is active, so that `wanted` are in all.
    fn limit(rows: &[Row], wanted: usize) -> Option<f32> {
        let mut all: Vec<f32> = rows.iter().flatten().map(|(_, a)| *a).collect();
        if all.len() <= wanted {
            return None;
        }
        let (_, nth, _) = all.select_nth_unstable_by(wanted, |a, b| b.total_cmp(a));
        Some(*nth)
    }

    /// Adds the gradients of `weight·‖target − a·W_dec‖²` to encoder and decoder; returns `target −
    /// a·W_dec`.
    fn learn(&mut self, x: &[f32], target: &[f32], active: &Row, weight: f32) -> Vec<f32> {
        let d = self.d;
        let mut rest = target.to_vec();
        active
            .iter()
            .for_each(|&(f, a)| add_scaled(&mut rest, -a, &self.w_dec.value[f * d..][..d]));
        for &(f, a) in active {
            let at = f * d..(f + 1) * d;
            let slope = -2.0 * weight * sum2(&rest, &self.w_dec.value[at.clone()], |e, w| e * w);
            add_scaled(&mut self.w_dec.grad[at.clone()], -2.0 * weight * a, &rest);
            add_scaled(&mut self.w_enc.grad[at], slope, x);
            self.b_enc.grad[f] += slope;
        }
        rest
    }

    /// The strongest of the dead features for one token.
    fn revive(&self, pre: &[f32], dead: &[usize]) -> Row {
        let with_bias = dead.iter().map(|&f| (f, pre[f] + self.b_enc.value[f]));
        let mut row: Row = with_bias.filter(|(_, a)| *a > 0.0).collect();
        if row.len() > REVIVED {
            row.select_nth_unstable_by(REVIVED, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            row.truncate(REVIVED);
        }
        row.sort_unstable_by_key(|(f, _)| *f);
        row
    }

    /// One step on a batch with `k` active features a token; returns the share of variance left
    /// unexplained.
    fn step(&mut self, pairs: &Pairs, batch: &[usize], k: f32, rate: f32) -> Result<f32> {
        let (d, f) = (self.d, self.settings.features);
        let [x, y] = self.rows(pairs, batch);
        let dead: Vec<usize> = (0..f).filter(|&f| self.silent[f] > SILENCE).collect();
        let wanted = (k * batch.len() as f32) as usize;
        // Looking above a part of the last limit is almost always enough, and leaves little to
        // sort.
        let mut seen = self.seen(&x, 0.7 * self.limit, &dead)?;
        let mut limit = Training::limit(&seen.rows, wanted);
        if limit.is_none() && self.limit > 0.0 {
            seen = self.seen(&x, 0.0, &dead)?;
            limit = Training::limit(&seen.rows, wanted);
        }
        self.limit = limit.unwrap_or(0.0);
        self.silent.iter_mut().for_each(|n| *n += batch.len());
        let weight = 1.0 / batch.len() as f32;
        let mut loss = 0.0;
        for (i, (x, y)) in x.chunks_exact(d).zip(y.chunks_exact(d)).enumerate() {
            let mut active = std::mem::take(&mut seen.rows[i]);
            active.retain(|(_, a)| *a > self.limit);
            active.iter().for_each(|&(f, _)| self.silent[f] = 0);
            let target: Vec<f32> = y.iter().zip(&self.b_dec.value).map(|(y, b)| y - b).collect();
            let rest = self.learn(x, &target, &active, weight);
            add_scaled(&mut self.b_dec.grad, -2.0 * weight, &rest);
            loss += sum2(&rest, &rest, |a, b| a * b) * weight / d as f32;
            self.learn(x, &rest, &seen.dead[i], weight * REVIVAL);
        }
        let parameters = [&mut self.w_enc, &mut self.b_enc, &mut self.w_dec, &mut self.b_dec];
        parameters.into_iter().for_each(|adam| adam.step(rate, self.done as i32));
        self.w_dec.value.chunks_exact_mut(d).for_each(unit);
        Ok(loss)
    }

    /// Whether all steps are done.
    pub(crate) fn is_done(&self) -> bool {
        self.done >= self.settings.steps
    }

    /// Learns from all rows, in batches of a drawn order; `name` is for the log.
    pub(crate) fn learn_from(&mut self, pairs: &Pairs, name: &str) -> Result<()> {
        let Settings { steps, batch, k, rate, .. } = self.settings;
        let mut order: Vec<usize> = (0..pairs.x.len() / pairs.d).collect();
        order.shuffle(&mut self.rng);
        let (mut loss, mut batches) = (0.0, 0);
        for batch in order.chunks_exact(batch).take(steps.saturating_sub(self.done)) {
            let done = self.done as f32 / steps as f32;
            // Many active features at first, so that all of them learn; a learning rate that ends
            // at zero.
            let k = k * (1.0 + 4.0 * (1.0 - done / 0.3).max(0.0));
            let rate = rate * (self.done as f32 / 50.0).min(1.0) * (1.0 - done).min(0.4) / 0.4;
            self.done += 1;
            loss += self.step(pairs, batch, k, rate)?;
            batches += 1;
            if done > 0.9 {
                self.limits.push(self.limit);
            }
        }
        let dead = self.silent.iter().filter(|&&n| n > SILENCE).count();
        println!(
            "{name}: step {}, variance left {:.3}, {dead} silent",
            self.done,
            loss / batches as f32
        );
        Ok(())
    }

    /// Undoes the normalisation: the same map from raw inputs to raw outputs, with decoder rows of
    /// length 1.
    pub(crate) fn finish(self) -> Sparse {
        let (d, [x, y]) = (self.d, self.norms);
        let limit = self.limits.iter().sum::<f32>() / self.limits.len() as f32;
        // A unit of activation now adds a vector of length 1 to the raw output, not to the
        // normalised one.
        let unit = 1.0 / y.scale;
        let w_enc: Vec<f32> = self.w_enc.value.iter().map(|w| w * x.scale * unit).collect();
        let shift = |row: &[f32]| sum2(row, &x.mean, |w, m| w * m);
        let b_enc = self
            .b_enc
            .value
            .iter()
            .zip(w_enc.chunks_exact(d))
            .map(|(b, row)| b * unit - shift(row))
            .collect();
        let b_dec = self.b_dec.value.iter().zip(&y.mean).map(|(b, m)| b * unit + m).collect();
        let threshold = vec![limit * unit; self.settings.features];
        let w_dec = self.w_dec.value;
        Sparse { w_enc, b_enc, w_dec, b_dec, threshold, variance: unit * unit }
    }
}
