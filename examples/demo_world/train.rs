//! Trains the network: a stream of stories without end, batches of similar length, AdamW with
//! warm-up and cosine.
//!
//! Each batch is split into two fixed halves that run on two threads; their gradients are added in
//! one order, so the result does not depend on how many processors there are.

use super::corpus::{Kept, Seed, Stream};
use super::evaluate;
use super::net::{Batch, Net};
use super::tokenizer::Words;
use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use std::path::Path;
use std::time::Instant;

pub(crate) struct Schedule {
    pub steps: usize,
    pub warmup: usize,
    pub peak: f64,
    pub weight_decay: f64,
    /// Longest the gradient of all parameters together may be.
    pub clip: f64,
    /// Contexts of a batch, half of them for each thread.
    pub batch: usize,
    /// Where its stories come from.
    pub seed: Seed,
}

impl Schedule {
    /// Linear warm-up, then half a cosine down to a hundredth of the peak.
    fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let done = (step - self.warmup) as f64 / (self.steps - self.warmup) as f64;
        self.peak * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
    }
}

/// Summed loss and gradients of one half of a batch.
fn half(net: &Net, contexts: &[Vec<u32>]) -> Result<(f32, usize, GradStore)> {
    let batch = Batch::new(contexts)?;
    let loss = net.loss(&batch)?;
    Ok((loss.to_scalar()?, batch.count, loss.backward()?))
}

/// Mean loss of a batch and its gradient, scaled down to `clip` where it is longer.
fn gradient(net: &Net, contexts: &[Vec<u32>], clip: f64) -> Result<(f64, usize, GradStore)> {
    let (a, b) = contexts.split_at(contexts.len() / 2);
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(net, b));
        (half(net, a), other.join().expect("the other half did not panic"))
    });
    let ((loss_a, n_a, mut grads), (loss_b, n_b, other)) = (a?, b?);
    let (loss, n) = (f64::from(loss_a + loss_b), (n_a + n_b) as f64);
    let mut square = 0.0;
    let mut sums: Vec<(&Var, Tensor)> = Vec::new();
    for var in net.vars.values() {
        let (Some(a), Some(b)) = (grads.get(var), other.get(var)) else { continue };
        let sum = (a + b)?;
        square += f64::from(sum.sqr()?.sum_all()?.to_scalar::<f32>()?);
        sums.push((var, sum));
    }
    let scale = (1.0 / n) * (clip / (square.sqrt() / n)).min(1.0);
    for (var, sum) in sums {
        grads.insert(var, (sum * scale)?);
    }
    Ok((loss / n, n_a + n_b, grads))
}

/// AdamW twice: matrices decay, the rest (norms and biases) does not.
struct Optimisers([AdamW; 2]);

impl Optimisers {
    fn new(net: &Net, schedule: &Schedule) -> Result<Self> {
        let some = |matrices: bool, weight_decay: f64| {
            let vars =
                net.vars.values().filter(|var| (var.rank() == 2) == matrices).cloned().collect();
            AdamW::new(
                vars,
                ParamsAdamW { lr: 0.0, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay },
            )
        };
        Ok(Self([some(true, schedule.weight_decay)?, some(false, 0.0)?]))
    }

    fn step(&mut self, rate: f64, grads: &GradStore) -> Result<()> {
        for optimiser in &mut self.0 {
            optimiser.set_learning_rate(rate);
            optimiser.step(grads)?;
        }
        Ok(())
    }
}

/// Trains `net` in place, and saves it now and then so that a long run can be looked at.
pub(crate) fn train(
    net: &Net,
    words: &Words,
    kept: &Kept,
    schedule: &Schedule,
    folder: &Path,
) -> Result<()> {
    let mut stream = Stream::new(words, schedule.seed, kept.all.clone());
    let mut optimisers = Optimisers::new(net, schedule)?;
    let (start, mut tokens, mut recent) = (Instant::now(), 0, 0.0);
    const EVERY: usize = 25;
    for step in 0..schedule.steps {
        let (loss, n, grads) = gradient(net, &stream.batch(schedule.batch)?, schedule.clip)?;
        optimisers.step(schedule.rate(step), &grads)?;
        tokens += n;
        recent += loss / EVERY as f64;
        if (step + 1).is_multiple_of(EVERY) {
            let seconds = start.elapsed().as_secs_f64();
            let rate = tokens as f64 / seconds;
            println!(
                "step {:5}  loss {recent:.4}  {tokens} tokens  {rate:.0}/s  {seconds:.0} s",
                step + 1
            );
            recent = 0.0;
        }
        if (step + 1).is_multiple_of(500) {
            net.save(folder)?;
            let (names, years) = evaluate::tasks(net, words)?;
            println!("indirect object {names:.3?} (held-out names, all), greater-than {years:.3}");
        }
    }
    net.save(folder)
}
