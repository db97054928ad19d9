//! The last part of the training: all dictionaries together, in the running model.
//!
//! What a dictionary leaves unexplained is small, but may be what the model uses. So the
//! dictionaries are put into the model, all of them or a drawn part, and learn that its predictions
//! and its logits stay as they are, beside what they reconstructed so far. Their thresholds are
//! moved a little after each step, so that as many features stay active as are wanted.

use super::corpus::Stream;
use super::kernels::{add_scaled, sum2};
use super::net::{Batch, Net};
use super::ops::{Divergence, read};
use super::sparse::{Adam, Row, Sparse, unit};
use anyhow::Result;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use circuit_atlas::ids::DictionaryId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::sync::{Arc, Mutex};

pub(crate) struct Settings {
    pub steps: usize,
    /// Contexts of a batch, half of them for each thread.
    pub batch: usize,
    pub rate: f32,
    /// Weight of the squared error of the logits, in units of their variance, beside the
    /// divergence a token.
    pub logits: f32,
    /// Weight of the unexplained variance of each dictionary.
    pub unexplained: f32,
    /// Weight of the prediction of a document's last word, which is the answer in a practice
    /// sentence; that of others is 1.
    pub last: f32,
    /// Share of the steps in which all dictionaries are put in; in the others each is with one
    /// half.
    pub all: f64,
}

/// How fast a threshold follows the number of active features.
const PULL: f32 = 0.02;

/// Gradients of one dictionary, and what was seen of it.
struct Gradients {
    w_enc: Vec<f32>,
    b_enc: Vec<f32>,
    w_dec: Vec<f32>,
    b_dec: Vec<f32>,
    active: usize,
    tokens: usize,
    /// Squared error of the reconstruction.
    residual: f64,
}

impl Gradients {
    fn new(f: usize, d: usize) -> Gradients {
        let zero = |n: usize| vec![0.0; n];
        Gradients {
            w_enc: zero(f * d),
            b_enc: zero(f),
            w_dec: zero(f * d),
            b_dec: zero(d),
            active: 0,
            tokens: 0,
            residual: 0.0,
        }
    }
}

/// A dictionary in the place of what it reconstructs, for rows `[N, D]` of what it reads. Rows that
/// are not `replaced` come out as 0.
struct Splice {
    dictionary: Arc<Sparse>,
    /// What is to be reconstructed, `[N, D]`.
    target: Vec<f32>,
    replaced: Arc<Vec<bool>>,
    /// Weight of the squared error.
    weight: f32,
    gradients: Arc<Mutex<Gradients>>,
    active: Mutex<Vec<Row>>,
}

impl Splice {
    /// The gradient of the input; those of the parameters are added to `gradients`.
    fn gradient(&self, x: &[f32], y: &[f32], grad: &[f32]) -> Vec<f32> {
        let d = self.dictionary.b_dec.len();
        let mut out = vec![0.0; x.len()];
        let rows = self.active.lock().expect("no thread panicked");
        let mut sums = self.gradients.lock().expect("no thread panicked");
        let sums = &mut *sums;
        for (i, active) in rows.iter().enumerate().filter(|(i, _)| self.replaced[*i]) {
            let at = i * d..(i + 1) * d;
            let error: Vec<f32> =
                y[at.clone()].iter().zip(&self.target[at.clone()]).map(|(y, t)| y - t).collect();
            sums.residual += f64::from(sum2(&error, &error, |a, b| a * b));
            sums.tokens += 1;
            sums.active += active.len();
            let mut g = grad[at.clone()].to_vec();
            add_scaled(&mut g, 2.0 * self.weight, &error);
            add_scaled(&mut sums.b_dec, 1.0, &g);
            for &(f, a) in active {
                let of = f * d..(f + 1) * d;
                let slope = sum2(&g, &self.dictionary.w_dec[of.clone()], |g, w| g * w);
                add_scaled(&mut sums.w_dec[of.clone()], a, &g);
                add_scaled(&mut sums.w_enc[of.clone()], slope, &x[at.clone()]);
                sums.b_enc[f] += slope;
                add_scaled(&mut out[at.clone()], slope, &self.dictionary.w_enc[of]);
            }
        }
        out
    }
}

impl CustomOp1 for Splice {
    fn name(&self) -> &'static str {
        "splice"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, d) = layout.shape().dims2()?;
        let from = layout.start_offset();
        let rows = self.dictionary.active(&x.as_slice::<f32>()?[from..from + n * d]);
        let mut rows = rows.map_err(candle_core::Error::wrap)?;
        let kept = self.replaced.iter().zip(&mut rows).filter(|(replaced, _)| !**replaced);
        kept.for_each(|(_, row)| row.clear());
        let mut y = vec![0.0; n * d];
        for ((y, active), replaced) in y.chunks_exact_mut(d).zip(&rows).zip(self.replaced.iter()) {
            if *replaced {
                y.copy_from_slice(&self.dictionary.b_dec);
                for &(f, a) in active {
                    add_scaled(y, a, &self.dictionary.w_dec[f * d..][..d]);
                }
            }
        }
        *self.active.lock().expect("no thread panicked") = rows;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = read(x, |x| read(y, |y| read(&grad, |grad| self.gradient(x, y, grad))))???;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// A dictionary in training.
struct Learner {
    id: DictionaryId,
    /// Encoder, its bias, decoder, its bias.
    parameters: [Adam; 4],
    /// Active features a token.
    k: f32,
    current: Arc<Sparse>,
}

impl Learner {
    fn new((id, sparse, k): (DictionaryId, Sparse, f32)) -> Learner {
        let Sparse { w_enc, b_enc, w_dec, b_dec, .. } = sparse.clone();
        Learner {
            id,
            parameters: [w_enc, b_enc, w_dec, b_dec].map(Adam::new),
            k,
            current: Arc::new(sparse),
        }
    }

    /// One step with the sums of the two halves of a batch.
    fn step(&mut self, halves: &[Gradients; 2], rate: f32, t: i32) {
        for half in halves {
            let all = [&half.w_enc, &half.b_enc, &half.w_dec, &half.b_dec];
            for (adam, grad) in self.parameters.iter_mut().zip(all) {
                add_scaled(&mut adam.grad, 1.0, grad);
            }
        }
        self.parameters.iter_mut().for_each(|adam| adam.step(rate, t));
        let d = self.current.b_dec.len();
        self.parameters[2].value.chunks_exact_mut(d).for_each(unit);
        let active: usize = halves.iter().map(|half| half.active).sum();
        let tokens: usize = halves.iter().map(|half| half.tokens).sum();
        let factor = 1.0 + PULL * (active as f32 / tokens as f32 / self.k - 1.0);
        let [w_enc, b_enc, w_dec, b_dec] =
            self.parameters.each_ref().map(|adam| adam.value.clone());
        let threshold = self.current.threshold.iter().map(|limit| limit * factor).collect();
        let variance = self.current.variance;
        self.current = Arc::new(Sparse { w_enc, b_enc, w_dec, b_dec, threshold, variance });
    }
}

/// What a half of a batch gives: how far the predictions are off, summed over its tokens, and the gradients of the
/// dictionaries that were put in.
type Half = (f64, Vec<(DictionaryId, Gradients)>);

/// Runs one half of a batch; `tokens` are those of the whole batch.
fn half(
    net: &Net,
    contexts: &[Vec<u32>],
    used: &[(DictionaryId, Arc<Sparse>)],
    tokens: usize,
    settings: &Settings,
) -> Result<Half> {
    let batch = Batch::new(contexts)?;
    let at = |row: usize| (row / batch.t, row % batch.t);
    let real: Vec<bool> =
        (0..contexts.len() * batch.t).map(|row| at(row).1 < contexts[at(row).0].len()).collect();
    // BOS stays as it is, as wherever dictionaries are measured.
    let replaced: Arc<Vec<bool>> =
        Arc::new(real.iter().enumerate().map(|(row, real)| *real && at(row).1 > 0).collect());
    let mask = |on: bool| -> Result<Tensor> {
        let values: Vec<f32> =
            replaced.iter().map(|replaced| f32::from(u8::from(*replaced == on))).collect();
        Ok(Tensor::from_vec(values, (real.len(), 1), &Device::Cpu)?)
    };
    let (inside, outside) = (mask(true)?, mask(false)?);
    // A document ends with its last word and a full stop.
    let weight = |row: usize| {
        let last = at(row).1 + 3 == contexts[at(row).0].len();
        if !replaced[row] {
            0.0
        } else if last {
            settings.last
        } else {
            1.0
        }
    };
    let weights = (0..replaced.len()).map(weight).collect();
    let wanted = Divergence::from(&net.logits(&batch)?.detach(), weights, settings.logits)?;
    let gradients: Vec<_> = used
        .iter()
        .map(|(_, sparse)| {
            Arc::new(Mutex::new(Gradients::new(sparse.b_enc.len(), sparse.b_dec.len())))
        })
        .collect();
    let logits = net.logits_with(&batch, &|id, x, y| {
        let Some(which) = used.iter().position(|(other, _)| *other == id) else { return Ok(y) };
        let dictionary = used[which].1.clone();
        let d = dictionary.b_dec.len() as f32;
        let splice = Splice {
            weight: settings.unexplained / (tokens as f32 * d * dictionary.variance),
            dictionary,
            target: read(&y, |y| y.to_vec())?,
            replaced: replaced.clone(),
            gradients: gradients[which].clone(),
            active: Mutex::default(),
        };
        let instead = x.contiguous()?.apply_op1(splice)?;
        Ok((instead.broadcast_mul(&inside)? + y.broadcast_mul(&outside)?)?)
    })?;
    let loss = logits.apply_op1(wanted)?;
    (loss.clone() / tokens as f64)?.backward()?;
    let mut all = Vec::new();
    for ((id, _), gradients) in used.iter().zip(gradients) {
        let empty = Gradients::new(0, 0);
        all.push((*id, std::mem::replace(&mut *gradients.lock().expect("no panic"), empty)));
    }
    Ok((f64::from(loss.to_scalar::<f32>()?), all))
}

/// Trains all dictionaries, in the order of `DictionaryId::all`, each with its number of active
/// features a token.
pub(crate) fn train(
    net: &Net,
    stream: &mut Stream,
    dictionaries: Vec<(DictionaryId, Sparse, f32)>,
    settings: &Settings,
) -> Result<Vec<(DictionaryId, Sparse)>> {
    let mut learners: Vec<Learner> = dictionaries.into_iter().map(Learner::new).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let net = net.folded()?;
    for step in 0..settings.steps {
        let done = step as f32 / settings.steps as f32;
        let rate = settings.rate * (step as f32 / 50.0).min(1.0) * (1.0 - done).min(0.6) / 0.6;
        let contexts = stream.batch(settings.batch)?;
        let tokens = contexts.iter().map(|context| context.len() - 1).sum();
        let all = rng.random_bool(settings.all);
        let drawn: Vec<bool> = learners.iter().map(|_| all || rng.random_bool(0.5)).collect();
        let used: Vec<_> = learners
            .iter()
            .zip(&drawn)
            .filter(|(_, drawn)| **drawn)
            .map(|(learner, _)| (learner.id, learner.current.clone()))
            .collect();
        let (a, b) = contexts.split_at(contexts.len() / 2);
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(|| half(&net, b, &used, tokens, settings));
            (half(&net, a, &used, tokens, settings), other.join().expect("the half did not panic"))
        });
        let ((loss_a, a), (loss_b, b)) = (a?, b?);
        let mut halves: Vec<[Gradients; 2]> =
            a.into_iter().zip(b).map(|((_, a), (_, b))| [a, b]).collect();
        let report = (step + 1).is_multiple_of(50);
        if report {
            println!(
                "end to end: step {}, {} put in, loss {:.4} a token",
                step + 1,
                used.len(),
                (loss_a + loss_b) / tokens as f64
            );
        }
        let mut in_use = learners.iter_mut().zip(&drawn).filter(|(_, drawn)| **drawn);
        let pairs: Vec<_> =
            in_use.by_ref().map(|(learner, _)| learner).zip(halves.drain(..)).collect();
        let t = step as i32 + 1;
        pairs.into_par_iter().for_each(|(learner, halves)| {
            if report {
                let [tokens, active] =
                    [halves[0].tokens + halves[1].tokens, halves[0].active + halves[1].active];
                let left = (halves[0].residual + halves[1].residual)
                    / (tokens * learner.current.b_dec.len()) as f64
                    / f64::from(learner.current.variance);
                println!(
                    "  {}: {:.2} active, variance left {left:.3}",
                    learner.id,
                    active as f32 / tokens as f32
                );
            }
            learner.step(&halves, rate, t);
        });
    }
    let finished = |learner: Learner| (learner.id, Sparse::clone(&learner.current));
    Ok(learners.into_iter().map(finished).collect())
}
