//! How well a reconstruction fits in most of the contexts.
//!
//! Sums of squares over all tokens are decided by the few that are largest. Where some contexts are
//! like no other text (one that repeats itself, noise), those tell nothing of how a dictionary is
//! meant; so what dictionaries are judged by is measured in each context, and the median counts.

use super::fit::with_numbers;
use crate::dictionary::Active;
use crate::error::Result;
use candle_core::Tensor;
use rayon::prelude::*;
use std::borrow::Borrow;
use std::ops::Range;

/// The contexts of some tokens. Those of few tokens are put together with the next ones: groups.
pub(super) struct Groups {
    /// The group of each token.
    of: Vec<u32>,
    /// One more than the largest.
    number: usize,
}

/// What rounding alone leaves unexplained of an exact dictionary, with room to spare.
const ROUNDING: f64 = 1e-8;

/// The share of the variance that is explained in each group, where there is any.
#[derive(Clone, Debug)]
pub(super) struct Explained(Vec<Option<f64>>);

impl Explained {
    /// In the median group.
    pub(super) fn median(&self) -> f64 {
        median(self.0.iter().copied().flatten())
    }

    /// The share of what `own` leaves unexplained that is left: of the medians, or the median of
    /// that share, whichever is larger. Of an exact dictionary nothing is left, and nothing better.
    pub(super) fn left_of(&self, own: &Explained) -> f64 {
        let share = |own: f64, now: f64| (1.0 - own > ROUNDING).then(|| (1.0 - now) / (1.0 - own));
        let Some(of_medians) = share(own.median(), self.median()) else { return 1.0 };
        let pairs = own.0.iter().zip(&self.0);
        let each = pairs.filter_map(|(own, now)| share((*own)?, (*now)?));
        of_medians.max(median(each))
    }
}

/// The middle of some numbers, or the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}

/// The middle of numbers with weights: half of the weight is of it and the lower ones. None of none.
pub(super) fn weighted_median(mut each: Vec<(f64, f64)>) -> Option<f64> {
    each.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all: f64 = each.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    let middle = each.iter().find(|(_, weight)| {
        below += weight;
        below >= all / 2.0
    });
    middle.or(each.last()).map(|(x, _)| *x)
}

impl Groups {
    /// By the group of each token.
    pub(super) fn new(of: Vec<u32>) -> Groups {
        let number = of.iter().max().map_or(0, |last| *last as usize + 1);
        Groups { of, number }
    }

    /// Those of the first `n` tokens.
    pub(super) fn first(&self, n: usize) -> Groups {
        Groups::new(self.of[..n].to_vec())
    }

    /// The places of each group's tokens, where they are in the order of the groups.
    pub(super) fn runs(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let run = |own: &[u32]| {
            let run = start..start + own.len();
            start = run.end;
            run
        };
        self.of.chunk_by(|a, b| a == b).map(run).collect()
    }

    /// How many tokens each group has.
    fn tokens(&self) -> Vec<f64> {
        self.sums(self.of.iter().map(|_| 1.0))
    }

    /// Sums of a number a token.
    pub(super) fn sums(&self, each: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut sums = vec![0.0; self.number];
        self.of.iter().zip(each).for_each(|(group, x)| sums[*group as usize] += x);
        sums
    }

    /// The median over groups of one number a token by another, each summed.
    pub(super) fn ratio(
        &self,
        above: impl Iterator<Item = f64>,
        below: impl Iterator<Item = f64>,
    ) -> f64 {
        let each = self.sums(above).into_iter().zip(self.sums(below));
        median(each.filter(|(_, below)| *below > 0.0).map(|(above, below)| above / below))
    }

    /// Active features a token.
    pub(super) fn l0(&self, active: &[impl Borrow<Active>]) -> f64 {
        let found = active.iter().map(|active| active.borrow().len() as f64);
        self.ratio(found, self.of.iter().map(|_| 1.0))
    }

    /// The share of the variance of `y [T, D]` that is explained. It is about [`Groups::centre`].
    pub(super) fn explained(&self, y: &Tensor, reconstruction: &Tensor) -> Result<Explained> {
        let centre = self.centre(y)?;
        let sizes = squares(y, |row, _| {
            row.iter().zip(&centre).map(|(y, mean)| f64::from(y - mean).powi(2)).sum()
        });
        let left = with_numbers(reconstruction, |reconstruction| {
            let d = centre.len();
            squares(y, |row, token| {
                let found = &reconstruction[token * d..(token + 1) * d];
                row.iter().zip(found).map(|(y, found)| f64::from(y - found).powi(2)).sum()
            })
        })?;
        let (left, sizes) = (self.sums(left?.into_iter()), self.sums(sizes?.into_iter()));
        let explained = |(left, size): (f64, f64)| (size > 0.0).then(|| 1.0 - left / size);
        Ok(Explained(left.into_iter().zip(sizes).map(explained).collect()))
    }

    /// The mean of rows in most groups: of each coordinate the median of the groups' means.
    pub(super) fn centre(&self, rows: &Tensor) -> Result<Vec<f32>> {
        let d = rows.dim(1)?;
        let mut sums = vec![0f64; self.number * d];
        with_numbers(rows, |rows| {
            for (group, row) in self.of.iter().zip(rows.chunks_exact(d)) {
                let sums = &mut sums[*group as usize * d..][..d];
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        })?;
        let tokens = self.tokens();
        let of = |i: usize| {
            let groups = tokens.iter().enumerate().filter(|(_, tokens)| **tokens > 0.0);
            median(groups.map(|(group, tokens)| sums[group * d + i] / tokens)) as f32
        };
        Ok((0..d).into_par_iter().map(of).collect())
    }
}

/// A number of each row.
fn squares(rows: &Tensor, of: impl Fn(&[f32], usize) -> f64 + Sync) -> Result<Vec<f64>> {
    let d = rows.dim(1)?;
    with_numbers(rows, |rows| {
        rows.par_chunks_exact(d).enumerate().map(|(token, row)| of(row, token)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Of ten contexts of four tokens, which are tried in turn.
    fn ten() -> Groups {
        Groups::new((0..40).map(|token| token % 10).collect())
    }

    /// A number of each context and token, twice.
    fn rows(of: impl Fn(usize, usize) -> f32) -> Tensor {
        let all: Vec<f32> =
            (0..40).flat_map(|i| [of(i % 10, i / 10), -of(i % 10, i / 10)]).collect();
        Tensor::from_vec(all, (40, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn three_of_ten_contexts_decide_nothing() {
        let strange = |context: usize| [0, 4, 9].contains(&context);
        let usual = |token: usize| [3.0, 5.0, 3.0, 5.0][token];
        let y = rows(|c, t| if strange(c) { 5000.0 * (t as f32 - 7.0) } else { usual(t) });
        // A quarter of the variance about 4 is left in the others.
        let found = rows(|c, t| if strange(c) { 0.0 } else { usual(t) - 0.5 });
        assert_eq!(ten().centre(&y).unwrap(), [4.0, -4.0]);
        assert!((ten().explained(&y, &found).unwrap().median() - 0.75).abs() < 1e-6);
        // As little is hidden: here the three are exact.
        let found =
            rows(|c, t| if strange(c) { 5000.0 * (t as f32 - 7.0) } else { usual(t) - 0.5 });
        assert!((ten().explained(&y, &found).unwrap().median() - 0.75).abs() < 1e-6);
        // Of the first tokens alone, contexts have two or one.
        let (y, found) = (y.narrow(0, 0, 18).unwrap(), found.narrow(0, 0, 18).unwrap());
        assert!((ten().first(18).explained(&y, &found).unwrap().median() - 0.75).abs() < 1e-6);
    }

    #[test]
    fn what_is_left_is_less_in_most_contexts() {
        let of = |each: &[f64]| Explained(each.iter().copied().map(Some).collect());
        let own = of(&[0.5, 0.6, 0.7, 0.8, -90.0]);
        assert!((of(&[0.75, 0.8, 0.85, 0.9, -1.0]).left_of(&own) - 0.5).abs() < 1e-9);
        // Exact in two of five; the same in three.
        assert!((of(&[1.0, 0.6, 0.7, 0.8, 1.0]).left_of(&own) - 1.0).abs() < 1e-9);
        assert_eq!(of(&[0.5; 3]).left_of(&of(&[1.0; 3])), 1.0);
    }

    #[test]
    fn numbers_are_medians_of_the_contexts_own() {
        let active: Vec<Active> =
            (0..40).map(|i| vec![(0, 1.0); if i % 10 < 3 { 500 } else { 20 + i / 20 }]).collect();
        assert_eq!(ten().l0(&active), 20.5);
        let below = (0..40).map(|i| if i == 39 { 1e9 } else { 2.0 });
        assert_eq!(ten().ratio((0..40).map(|_| 3.0), below), 1.5);
        assert_eq!(median([4.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
        assert_eq!(weighted_median(vec![(7.0, 1.0), (1.0, 2.0), (3.0, 2.0)]), Some(3.0));
        assert_eq!(weighted_median(Vec::new()), None);
        let runs = Groups::new(vec![0, 0, 1, 2, 2, 2]).runs();
        assert_eq!(runs, [0..2, 2..3, 3..6]);
    }

    #[test]
    fn a_target_that_does_not_vary_is_not_explained() {
        let flat = rows(|_, _| 2.0);
        assert_eq!(ten().explained(&flat, &flat).unwrap().median(), 0.0);
    }
}
