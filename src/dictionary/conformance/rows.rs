//! How well each row of the decoder fits the tokens that its feature is active on.
//!
//! Of a feature `f` with activations `a` and row `w`, and of what the whole dictionary misses, `e`:
//! `g = 1 + Σ a·(w·e) / Σ a²·‖w‖²` is what its row would best be multiplied by, all others staying
//! as they are. It is near 1 where the row is the feature's own, and near 0 where it is another's.
//! It is taken in each group of contexts (`groups`), and the median over groups is the feature's,
//! weighted by the share of what is written in a group that the feature writes.

use super::fit::with_numbers;
use super::groups::{Groups, median, weighted_median};
use crate::dictionary::{Active, Dictionary};
use crate::error::Result;
use crate::vectors::vectors;
use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::Range;

/// A row that would best be multiplied by less than this is another feature's.
const OTHERS: f64 = 0.3;

/// Sums that run side by side.
const LANES: usize = 16;

/// Sums over tokens, a number a feature each.
struct Sums {
    along: Vec<f64>,
    /// Of squared activations; when a group is summed, times the row's squared norm.
    size: Vec<f64>,
}

/// The sums of each group, as shares of all that is written in it.
pub(super) struct Rows {
    groups: Vec<Sums>,
    /// Of the groups' sizes.
    size: Vec<f64>,
}

impl Sums {
    fn none(width: usize) -> Sums {
        Sums { along: vec![0.0; width], size: vec![0.0; width] }
    }

    fn of(dictionary: &Dictionary, active: &[&Active], missed: &[f32]) -> Result<Sums> {
        let mut sums = Sums::none(dictionary.width());
        let d = missed.len() / active.len().max(1);
        for (active, missed) in active.iter().zip(missed.chunks_exact(d)) {
            for &(f, a) in *active {
                let w = dictionary.written_by(f as usize)?;
                let along = vectors!(product(w: &[[u8; 4]], missed: &[f32]) -> f32);
                sums.along[f as usize] += f64::from(a * along);
                sums.size[f as usize] += f64::from(a * a);
            }
        }
        for (f, size) in sums.size.iter_mut().enumerate().filter(|(_, size)| **size > 0.0) {
            let w = dictionary.write_direction(f)?;
            *size *= w.iter().map(|w| f64::from(w * w)).sum::<f64>();
        }
        let all = sums.size.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        sums.along.iter_mut().chain(&mut sums.size).for_each(|sum| *sum /= all);
        Ok(sums)
    }
}

impl Rows {
    /// Of the active features of some tokens, and what the reconstruction misses there, `[T, D]`.
    /// The tokens are in the order of their groups.
    pub(super) fn of(
        dictionary: &Dictionary,
        active: &[&Active],
        missed: &Tensor,
        groups: &Groups,
    ) -> Result<Rows> {
        let (d, runs) = (missed.dim(1)?, groups.runs());
        let groups = with_numbers(missed, |missed| {
            let of = |run: &Range<usize>| {
                let missed = &missed[run.start * d..run.end * d];
                Sums::of(dictionary, &active[run.clone()], missed)
            };
            runs.par_iter().map(of).collect::<Result<Vec<_>>>()
        })??;
        let mut size = vec![0.0; dictionary.width()];
        for group in &groups {
            size.iter_mut().zip(&group.size).for_each(|(sum, size)| *sum += size);
        }
        Ok(Rows { groups, size })
    }

    /// What a row would best be multiplied by in most of the groups; 1 where its feature is never
    /// active.
    fn best_scale(&self, f: usize) -> f64 {
        let active = self.groups.iter().filter(|group| group.size[f] > 0.0);
        let of = |group: &Sums| (1.0 + group.along[f] / group.size[f], group.size[f]);
        weighted_median(active.map(of).collect()).unwrap_or(1.0)
    }

    /// What it would best be multiplied by in all groups together, by least squares.
    fn together(&self, f: usize) -> f64 {
        1.0 + self.groups.iter().map(|group| group.along[f]).sum::<f64>() / self.size[f]
    }

    /// What each row would best be multiplied by in most of the groups.
    pub(super) fn best_scales(&self) -> Vec<f64> {
        (0..self.size.len()).into_par_iter().map(|f| self.best_scale(f)).collect()
    }

    pub(super) fn fit(&self) -> RowFit {
        let scales = self.best_scales();
        let order: Vec<usize> = (0..scales.len()).filter(|&f| self.size[f] > 0.0).collect();
        let weighed = order.iter().map(|&f| (scales[f], self.size[f])).collect();
        // A few groups may decide the one, and a feature of few tokens in each the other.
        let is_others = |f: &usize| scales[*f] < OTHERS && self.together(*f) < OTHERS;
        let others: Vec<usize> = order.iter().copied().filter(is_others).collect();
        let share = |group: &Sums| others.iter().map(|&f| group.size[f]).sum::<f64>();
        RowFit {
            share: median(self.groups.iter().map(share)),
            median: weighted_median(weighed).unwrap_or(1.0),
            active: order.len(),
            others,
        }
    }
}

/// The product of a row of a file with other numbers.
#[inline(always)]
fn product(row: &[[u8; 4]], other: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let mut take = |row: &[[u8; 4]], other: &[f32]| {
        let each = lanes.iter_mut().zip(row).zip(other);
        each.for_each(|((lane, w), x)| *lane += f32::from_le_bytes(*w) * x);
    };
    // Arrays of a length that is known are a few operations of vectors.
    let ((rows, rest), (others, other_rest)) =
        (row.as_chunks::<LANES>(), other.as_chunks::<LANES>());
    rows.iter().zip(others).for_each(|(row, other)| take(row, other));
    take(rest, other_rest);
    lanes.iter().sum()
}

/// How well the rows of a decoder fit.
#[derive(Clone, Debug)]
pub(super) struct RowFit {
    /// Features whose row is another's.
    pub others: Vec<usize>,
    /// Features that are active at all.
    pub active: usize,
    /// The share of what is written (in summed squares) that features with another's row write, by
    /// the median over groups.
    pub share: f64,
    /// What a row would best be multiplied by: the median by what is written.
    pub median: f64,
}
