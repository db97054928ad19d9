//! A new start for features that are never active: each becomes what one badly reconstructed token
//! lacks, active at that token and at what is much like it.

use super::kernels::{add_scaled, sum2};
use super::sparse::{Pairs, Sparse, unit};
use anyhow::Result;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// The cosine with its token from which on a revived feature is active at others.
const ALIKE: f32 = 0.8;

impl Sparse {
    /// Begins the features that are active nowhere in `pairs` anew, at tokens that are drawn by
    /// their squared error; says how many these are.
    pub(crate) fn revive(&mut self, pairs: &Pairs, rng: &mut ChaCha8Rng) -> Result<usize> {
        let d = pairs.d;
        let rows = self.active(&pairs.x)?;
        let mut alive = vec![false; self.b_enc.len()];
        rows.iter().flatten().for_each(|&(f, _)| alive[f] = true);
        let error = |i: usize| {
            let mut rest: Vec<f32> = pairs.y[i * d..][..d].to_vec();
            add_scaled(&mut rest, -1.0, &self.b_dec);
            for &(f, a) in &rows[i] {
                add_scaled(&mut rest, -a, &self.w_dec[f * d..][..d]);
            }
            rest
        };
        // Drawn without replacement: the largest of `u^(1/weight)`.
        let mut keys: Vec<(f64, usize)> = (0..rows.len())
            .map(|i| {
                let rest = error(i);
                let weight = f64::from(sum2(&rest, &rest, |a, b| a * b));
                (rng.random::<f64>().ln() / weight.max(1e-12), i)
            })
            .collect();
        keys.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut mean = vec![0.0; d];
        let n = rows.len() as f32;
        pairs.x.chunks_exact(d).for_each(|row| add_scaled(&mut mean, 1.0 / n, row));
        let dead: Vec<usize> = (0..alive.len()).filter(|&f| !alive[f]).collect();
        let starts: Vec<(Vec<f32>, usize)> =
            keys.iter().take(dead.len()).map(|&(_, i)| (error(i), i)).collect();
        for (&f, (mut rest, i)) in dead.iter().zip(starts) {
            let size = sum2(&rest, &rest, |a, b| a * b).sqrt().max(1.5 * self.threshold[f]);
            unit(&mut rest);
            let mut along: Vec<f32> = pairs.x[i * d..][..d].to_vec();
            add_scaled(&mut along, -1.0, &mean);
            let length = sum2(&along, &along, |a, b| a * b).sqrt().max(1e-8);
            unit(&mut along);
            // From the threshold, where the token's direction is as long as `ALIKE` of it, up to
            // what is lacking.
            let slope = (size - self.threshold[f]) / ((1.0 - ALIKE) * length);
            let at_mean = sum2(&along, &mean, |a, b| a * b);
            self.b_enc[f] = self.threshold[f] - slope * (ALIKE * length + at_mean);
            self.w_enc[f * d..][..d].iter_mut().zip(&along).for_each(|(w, x)| *w = slope * x);
            self.w_dec[f * d..][..d].copy_from_slice(&rest);
        }
        Ok(dead.len())
    }
}
