//! Intervals: how far a number may be from what another sample would have given.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// A value that no other sample would change.
    pub fn exact(value: f64) -> Estimate {
        Estimate { value, low: value, high: value }
    }
}

/// Mean of a slice; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The ratio of two means over the same prompts, and its standard error by linearising it; no error
/// of fewer than two.
pub fn ratio(above: &[f64], below: &[f64]) -> (f64, f64) {
    let n = above.len() as f64;
    let ratio = mean(above) / mean(below);
    if above.len() < 2 {
        return (ratio, 0.0);
    }
    let squares: f64 = above.iter().zip(below).map(|(a, b)| (a - ratio * b).powi(2)).sum();
    (ratio, (squares / (n - 1.0) / n).sqrt() / mean(below).abs())
}

/// The 2.5th and 97.5th percentile.
fn middle(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    (at(0.025), at(0.975))
}

/// The mean of several draws with their smallest and largest, where there are any.
pub fn spread(draws: &[f64]) -> Option<Estimate> {
    let low = draws.iter().copied().min_by(f64::total_cmp)?;
    let high = draws.iter().copied().max_by(f64::total_cmp)?;
    Some(Estimate { value: mean(draws), low, high })
}

/// Draws the resamples of `n` prompts that all estimates of one task share, so that they can be
/// compared.
pub struct Bootstrap {
    draws: Vec<Vec<usize>>,
}

impl Bootstrap {
    /// Draws 2000 resamples of `n` prompts.
    pub fn new(n: usize, seed: u64) -> Bootstrap {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let draws =
            (0..RESAMPLES).map(|_| (0..n).map(|_| rng.random_range(0..n)).collect()).collect();
        Bootstrap { draws }
    }

    /// The mean of one value a prompt.
    pub fn mean(&self, values: &[f64]) -> Estimate {
        let (low, high) = middle(self.draws.par_iter().map(|draw| drawn(values, draw)).collect());
        Estimate { value: mean(values), low, high }
    }

    /// `(m − m_empty) / (m_full − m_empty)`, a ratio of means; none where the interval of the
    /// denominator contains 0.
    pub fn recovered(&self, m: &[f64], m_empty: &[f64], m_full: &[f64]) -> Option<Estimate> {
        let parts = |mean_of: &dyn Fn(&[f64]) -> f64| {
            let empty = mean_of(m_empty);
            (mean_of(m) - empty, mean_of(m_full) - empty)
        };
        let each: Vec<_> =
            self.draws.par_iter().map(|draw| parts(&|values| drawn(values, draw))).collect();
        let (low, high) = middle(each.iter().map(|x| x.1).collect());
        if low <= 0.0 && high >= 0.0 {
            return None;
        }
        let (top, bottom) = parts(&mean);
        let (low, high) = middle(each.iter().map(|(top, bottom)| top / bottom).collect());
        Some(Estimate { value: top / bottom, low, high })
    }
}

fn drawn(values: &[f64], draw: &[usize]) -> f64 {
    draw.iter().map(|&i| values[i]).sum::<f64>() / draw.len() as f64
}

/// Wilson's 95 % interval of a proportion.
pub(crate) fn wilson(hits: u64, n: u64) -> Estimate {
    if n == 0 {
        return Estimate { value: f64::NAN, low: 0.0, high: 1.0 };
    }
    let (p, n, z) = (hits as f64 / n as f64, n as f64, 1.959_963_984_540_054);
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / (1.0 + z * z / n);
    // Rounding may put an end just inside of the proportion itself, or outside of what one can be.
    Estimate { value: p, low: (centre - half).clamp(0.0, p), high: (centre + half).clamp(p, 1.0) }
}

/// Balanced accuracy of `hits` of `positives` and `rejects` of `negatives`: the mean of two
/// proportions. Its interval puts theirs together as independent (MOVER). None where there is
/// nothing of one kind.
pub fn balanced_accuracy(
    hits: u64,
    positives: u64,
    rejects: u64,
    negatives: u64,
) -> Option<Estimate> {
    if positives == 0 || negatives == 0 {
        return None;
    }
    let (a, b) = (wilson(hits, positives), wilson(rejects, negatives));
    let value = (a.value + b.value) / 2.0;
    let reach = |x: f64, y: f64| x.hypot(y) / 2.0;
    Some(Estimate {
        value,
        low: value - reach(a.value - a.low, b.value - b.low),
        high: value + reach(a.high - a.value, b.high - b.value),
    })
}

/// The 95 % interval of a ROC area over so many scores of each kind: the areas for which the one
/// seen is not farther off than 1.96 standard errors, by the variance of Hanley and McNeil as
/// Newcombe (2006, method 5) uses it. It is never of width 0.
pub(crate) fn of_area(value: f64, yes: usize, no: usize) -> Estimate {
    let (m, n, z) = (yes as f64, no as f64, 1.959_963_984_540_054);
    let more = (m + n) / 2.0 - 1.0;
    let error = |area: f64| {
        let both = more * (1.0 - area) / (2.0 - area) + more * area / (1.0 + area);
        (area * (1.0 - area) * (1.0 + both) / (m * n)).sqrt()
    };
    // The farthest area on the way to `end` from which the value is within reach.
    let farthest = |end: f64| {
        let (mut near, mut far) = (value, end);
        for _ in 0..60 {
            let middle = (near + far) / 2.0;
            match (value - middle).abs() <= z * error(middle) {
                true => near = middle,
                false => far = middle,
            }
        }
        near
    };
    Estimate { value, low: farthest(0.0), high: farthest(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_a_worked_example() {
        let e = wilson(8, 10);
        assert!((e.low - 0.4902).abs() < 1e-4 && (e.high - 0.9433).abs() < 1e-4, "{e:?}");
    }

    #[test]
    fn the_interval_of_an_area_has_a_width_and_narrows() {
        // By hand: at the end the value is 1.96 standard errors away.
        let e = of_area(0.8, 10, 10);
        let error = |a: f64| {
            let both = 9.0 * (1.0 - a) / (2.0 - a) + 9.0 * a / (1.0 + a);
            (a * (1.0 - a) * (1.0 + both) / 100.0).sqrt()
        };
        for end in [e.low, e.high] {
            assert!(((end - 0.8).abs() / error(end) - 1.96).abs() < 1e-3, "{e:?}");
        }
        let (few, many) = (of_area(1.0, 10, 10), of_area(1.0, 100, 100));
        assert!(few.low < many.low && many.low < 1.0 && few.high == 1.0, "{few:?} {many:?}");
    }

    #[test]
    fn a_ratio_over_nothing_is_refused() {
        let bootstrap = Bootstrap::new(4, 1);
        assert!(bootstrap.recovered(&[1.0; 4], &[0.0, 1.0, -1.0, 0.0], &[0.0; 4]).is_none());
        let e = bootstrap.recovered(&[1.5; 4], &[1.0; 4], &[2.0; 4]).unwrap();
        assert_eq!((e.value, e.low, e.high), (0.5, 0.5, 0.5));
    }

    #[test]
    fn balanced_accuracy_needs_both_kinds() {
        assert!(balanced_accuracy(0, 0, 3, 3).is_none());
        let e = balanced_accuracy(3, 3, 3, 3).unwrap();
        assert!(e.value == 1.0 && e.high <= 1.0 + 1e-9 && e.low > 0.6, "{e:?}");
    }

    #[test]
    fn wilson_holds_the_proportion_and_narrows_with_more_data() {
        for n in [1u64, 2, 7, 50, 1000] {
            for hits in [0, n / 3, n / 2, n] {
                let (e, more) = (wilson(hits, n), wilson(10 * hits, 10 * n));
                assert!(
                    0.0 <= e.low && e.low <= e.value && e.value <= e.high && e.high <= 1.0,
                    "{hits}/{n}: {e:?}"
                );
                assert!(more.high - more.low < e.high - e.low, "{hits}/{n}");
                let misses = wilson(n - hits, n);
                assert!(
                    (misses.low - (1.0 - e.high)).abs() < 1e-12,
                    "{hits}/{n}: not the mirror of its misses"
                );
            }
        }
    }

    #[test]
    fn a_bootstrap_comes_again_and_reaches_about_two_standard_errors() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let e = Bootstrap::new(400, 7).mean(&values);
        assert_eq!(e, Bootstrap::new(400, 7).mean(&values));
        assert_ne!(e, Bootstrap::new(400, 8).mean(&values));
        // Standard deviation of 0 … 19 is 5.766.
        let reach = 1.96 * 5.766 / 20.0;
        assert!(
            (e.high - e.value - reach).abs() < 0.1 && (e.value - e.low - reach).abs() < 0.1,
            "{e:?}"
        );
    }

    #[test]
    fn a_ratio_is_of_means_and_not_a_mean_of_ratios() {
        let (full, empty) = ([1.0, 3.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]);
        let e = Bootstrap::new(4, 1).recovered(&[1.0, 0.0, 1.0, 1.0], &empty, &full).unwrap();
        assert_eq!(e.value, 3.0 / 8.0);
        assert!(e.low <= e.value && e.value <= e.high);
        let all = Bootstrap::new(4, 1).recovered(&full, &empty, &full).unwrap();
        assert_eq!((all.value, all.low, all.high), (1.0, 1.0, 1.0));
    }
}
