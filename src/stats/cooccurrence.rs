//! How often two features meet at the same token, and whether that is more than chance
//! (`docs/definitions.md` §10).

use crate::process::{self, Stopped};
use rayon::prelude::*;
use std::ops::Range;

/// Two events over `n` tokens: how often each happens, and both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// All tokens that count.
    pub n: u64,
    /// Tokens with the first event.
    pub f: u64,
    /// Tokens with the second event.
    pub g: u64,
    /// Tokens with both.
    pub both: u64,
}

impl Counts {
    /// Cooccurrences expected if the two were independent.
    pub fn expected(&self) -> f64 {
        self.f as f64 * self.g as f64 / self.n as f64
    }

    /// A pair is tested when both happen at all.
    pub fn tested(&self) -> bool {
        self.f > 0 && self.g > 0
    }

    /// Observed over expected meetings.
    pub fn lift(&self) -> f64 {
        self.both as f64 * self.n as f64 / (self.f as f64 * self.g as f64)
    }

    /// Normalised pointwise mutual information: −1 never together, 0 independent, 1 always
    /// together.
    pub fn npmi(&self) -> f64 {
        if self.both == 0 {
            -1.0
        } else if self.both == self.n {
            1.0
        } else {
            self.lift().ln() / -(self.both as f64 / self.n as f64).ln()
        }
    }

    /// Tokens with both, over tokens with either.
    pub fn jaccard(&self) -> f64 {
        self.both as f64 / (self.f + self.g - self.both) as f64
    }

    /// Correlation of the two indicators; none where one of them never changes.
    pub fn phi(&self) -> Option<f64> {
        let [n, f, g, both] = [self.n, self.f, self.g, self.both].map(|x| x as f64);
        let spread = f.sqrt() * g.sqrt() * (n - f).sqrt() * (n - g).sqrt();
        (spread > 0.0).then(|| (n * both - f * g) / spread)
    }

    /// One-sided Fisher exact test: the chance of `both` or more meetings of two independent events
    /// with these counts.
    pub fn fisher_greater(&self) -> f64 {
        let Counts { n, f, g, both } = *self;
        let least = (f + g).saturating_sub(n);
        if both <= least {
            return 1.0;
        }
        // Sum whichever tail falls away from the mode; its terms shrink, so it ends early.
        if (both as f64) > self.expected() {
            self.tail(both, |x| (x < f.min(g)).then(|| (x + 1, self.ratio(x)))).min(1.0)
        } else {
            1.0 - self
                .tail(both - 1, |x| (x > least).then(|| (x - 1, 1.0 / self.ratio(x - 1))))
                .min(1.0)
        }
    }

    /// P(x + 1 meetings) / P(x meetings)
    fn ratio(&self, x: u64) -> f64 {
        let [n, f, g, x] = [self.n, self.f, self.g, x].map(|x| x as f64);
        (f - x) * (g - x) / ((x + 1.0) * (n - f - g + x + 1.0))
    }

    /// Sum of hypergeometric terms from `x` on, as `next` steps along with the ratio of one term to
    /// the one before.
    fn tail(&self, x: u64, next: impl Fn(u64) -> Option<(u64, f64)>) -> f64 {
        let Counts { n, f, g, .. } = *self;
        let first = ln_choose(f, x) + ln_choose(n - f, g - x) - ln_choose(n, g);
        let (mut at, mut term, mut sum) = (x, 1.0, 1.0);
        while let Some((to, ratio)) = next(at) {
            term *= ratio;
            sum += term;
            at = to;
            if term < sum * 1e-17 {
                break;
            }
        }
        (first + f64::ln(sum)).exp()
    }
}

fn ln_choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |x: u64| libm::lgamma(x as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Benjamini–Hochberg: p-values → q-values, in the same order. `tested` is the number of tests
/// made; when that is more than there are values, the ones left out must be larger than any q-value
/// that matters.
pub fn benjamini_hochberg(p: &[f64], tested: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]).then(a.cmp(&b)));
    let (mut q, mut best) = (vec![0.0; p.len()], 1.0f64);
    for (rank, &i) in order.iter().enumerate().rev() {
        best = best.min(p[i] * tested as f64 / (rank + 1) as f64);
        q[i] = best;
    }
    q
}

/// Counts of meetings of every two of a set of features, over many contexts; or of some of them,
/// the *own* ones, with all.
pub struct Cooccurrence {
    features: usize,
    window: usize,
    own: Range<usize>,
    /// `[own, features]`, upper triangle: tokens at which both are active.
    same: Vec<u32>,
    /// `[own, features]`: tokens at which the second is active and the first was within the window
    /// before.
    lagged: Vec<u32>,
    /// Tokens at which each of all features is active.
    active: Vec<u64>,
    /// Tokens that have each own feature in the window before them.
    before: Vec<u64>,
    tokens: u64,
    /// The last token before which each own feature was seen.
    seen: Vec<u64>,
}

impl Cooccurrence {
    /// For `features` features; the window is the `window` tokens before a token, in the same
    /// context.
    pub fn new(features: usize, window: usize) -> Cooccurrence {
        Cooccurrence::of(0..features, features, window)
    }

    /// For some of the features, each with all.
    pub(crate) fn of(own: Range<usize>, features: usize, window: usize) -> Cooccurrence {
        let pairs = own.len() * features;
        Cooccurrence {
            features,
            window,
            same: vec![0; pairs],
            lagged: vec![0; pairs],
            active: vec![0; features],
            before: vec![0; own.len()],
            tokens: 0,
            seen: vec![0; own.len()],
            own,
        }
    }

    /// Bytes of the counts of one own feature.
    pub(crate) fn bytes(features: usize) -> usize {
        2 * features * size_of::<u32>()
    }

    /// Adds a context: for each position whether it counts, and the features active there in rising
    /// order.
    pub fn add<'a>(&mut self, counts: &[bool], active: impl Fn(usize) -> &'a [u32]) {
        let first = self.own.start;
        for p in (0..counts.len()).filter(|p| counts[*p]) {
            let here = active(p);
            self.tokens += 1;
            here.iter().for_each(|&f| self.active[f as usize] += 1);
            let (from, own) = self.own_of(here);
            for (i, &f) in own.iter().enumerate() {
                let row = (f as usize - first) * self.features;
                here[from + i + 1..].iter().for_each(|&g| self.same[row + g as usize] += 1);
            }
            for s in (p.saturating_sub(self.window)..p).filter(|s| counts[*s]) {
                for &f in self.own_of(active(s)).1 {
                    let place = f as usize - first;
                    // Each once, however often it was active in the window.
                    if std::mem::replace(&mut self.seen[place], self.tokens) == self.tokens {
                        continue;
                    }
                    self.before[place] += 1;
                    let row = place * self.features;
                    here.iter().for_each(|&g| self.lagged[row + g as usize] += 1);
                }
            }
        }
    }

    /// The own features among some in rising order, and the place of the first.
    fn own_of<'a>(&self, active: &'a [u32]) -> (usize, &'a [u32]) {
        let [from, to] =
            [self.own.start, self.own.end].map(|at| active.partition_point(|&f| (f as usize) < at));
        (from, &active[from..to])
    }

    /// Tokens that count.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens at which each of all features is active.
    pub(crate) fn active(&self) -> &[u64] {
        &self.active
    }

    /// Tokens that have each own feature in the window before them.
    pub(crate) fn before(&self) -> &[u64] {
        &self.before
    }

    /// Cooccurrence at the same token, `f < g`, of which the first is an own one.
    pub fn same(&self, f: usize, g: usize) -> Counts {
        let both = u64::from(self.same[(f - self.own.start) * self.features + g]);
        Counts { n: self.tokens, f: self.active[f], g: self.active[g], both }
    }

    /// `g` here and `f`, an own one, within the window before: the first event is having `f` in the
    /// window before.
    pub fn lagged(&self, f: usize, g: usize) -> Counts {
        let place = f - self.own.start;
        let both = u64::from(self.lagged[place * self.features + g]);
        Counts { n: self.tokens, f: self.before[place], g: self.active[g], both }
    }
}

/// A pair that was tested and meets more often than expected: at how many tokens, and its p-value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tested {
    pub f: u32,
    pub g: u32,
    pub both: u64,
    pub p: f64,
}

/// How many pairs were tested, and those of them whose p-value is small.
#[derive(Default)]
pub(crate) struct Tests {
    pub tested: usize,
    pub small: Vec<Tested>,
}

impl Tests {
    /// Adds others.
    pub(crate) fn extend(&mut self, other: Tests) {
        self.tested += other.tested;
        self.small.extend(other.small);
    }

    /// Each with its q-value, corrected over all pairs that were tested; those of at most `most`.
    /// Pairs whose p-value is larger than that could be left out: their q-values are too, and they
    /// make no other one smaller than it.
    pub(crate) fn corrected(self, most: f64) -> Vec<(Tested, f64)> {
        let p: Vec<f64> = self.small.iter().map(|pair| pair.p).collect();
        let q = benjamini_hochberg(&p, self.tested);
        self.small.into_iter().zip(q).filter(|(_, q)| *q <= most).collect()
    }
}

impl Cooccurrence {
    /// Tests every own feature and every one behind it at the same token; gives the pairs that meet
    /// more often than expected with a p-value of at most `most`.
    ///
    /// # Errors
    /// When the program is to stop; so too below.
    pub(crate) fn test_same(&self, most: f64) -> Result<Tests, Stopped> {
        self.test(most, |f, g| f < g, |f, g| self.same(f, g))
    }

    /// Tests every own feature within the window before every other one; gives such pairs.
    pub(crate) fn test_lagged(&self, most: f64) -> Result<Tests, Stopped> {
        self.test(most, |f, g| f != g, |f, g| self.lagged(f, g))
    }

    /// There may be millions of pairs that meet by chance, so that they are counted but not kept.
    fn test(
        &self,
        most: f64,
        wanted: impl Fn(usize, usize) -> bool + Sync,
        counts: impl Fn(usize, usize) -> Counts + Sync,
    ) -> Result<Tests, Stopped> {
        let row = |f: usize| {
            process::check()?;
            let mut tests = Tests::default();
            for g in (0..self.features).filter(|&g| wanted(f, g)) {
                let counts = counts(f, g);
                if !counts.tested() {
                    continue;
                }
                tests.tested += 1;
                if counts.lift() > 1.0 {
                    let p = counts.fisher_greater();
                    if p <= most {
                        let (f, g, both) = (f as u32, g as u32, counts.both);
                        tests.small.push(Tested { f, g, both, p });
                    }
                }
            }
            Ok(tests)
        };
        let rows: Vec<Tests> =
            self.own.clone().into_par_iter().map(row).collect::<Result<_, Stopped>>()?;
        let mut all = Tests::default();
        rows.into_iter().for_each(|row| all.extend(row));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::mix;

    #[test]
    fn fisher_agrees_with_the_sum_over_all_tables() {
        let whole = |c: Counts| -> f64 {
            let term =
                |x| (ln_choose(c.f, x) + ln_choose(c.n - c.f, c.g - x) - ln_choose(c.n, c.g)).exp();
            (c.both..=c.f.min(c.g)).filter(|x| c.n - c.f >= c.g - x).map(term).sum()
        };
        for (n, f, g) in [(20, 5, 7), (30, 20, 25), (100, 3, 60), (50, 50, 10)] {
            for both in (f + g - n.min(f + g))..=f.min(g) {
                let counts = Counts { n, f, g, both };
                assert!((counts.fisher_greater() - whole(counts)).abs() < 1e-10, "{counts:?}");
            }
        }
    }

    #[test]
    fn tables_of_some_features_hold_the_counts_of_one_table_of_all() {
        const FEATURES: usize = 11;
        let mut all = Cooccurrence::new(FEATURES, 3);
        let mut some = [0..4, 4..5, 5..FEATURES].map(|own| Cooccurrence::of(own, FEATURES, 3));
        for context in 0..40u64 {
            let counts: Vec<bool> = (0..20u64).map(|p| p > 0 && (context + p) % 9 != 0).collect();
            let is = |p: u64, f: u32| mix(context << 8 | p, f.into()).is_multiple_of(4);
            let at = |p: u64| (0..FEATURES as u32).filter(|&f| is(p, f)).collect::<Vec<u32>>();
            let active: Vec<Vec<u32>> = (0..20).map(at).collect();
            all.add(&counts, |p| &active[p]);
            some.iter_mut().for_each(|table| table.add(&counts, |p| &active[p]));
        }
        for table in &some {
            for f in table.own.clone() {
                for g in 0..FEATURES {
                    assert_eq!(table.lagged(f, g), all.lagged(f, g));
                    assert_eq!(table.same(f, g), all.same(f, g));
                }
            }
        }
        assert!(all.same(2, 7).both > 0 && all.lagged(7, 2).both > 0);
    }

    #[test]
    fn pairs_with_large_p_values_make_no_small_q_value_smaller() {
        let p = |i: u32| mix(5, i.into()) as f64 / u64::MAX as f64;
        let pair = |i: u32| Tested { f: i, g: i, both: 1, p: p(i) };
        let with = |most: f64| {
            // As few small ones as make some q-values small, and some not.
            let strong = (0..30).map(|i| Tested { p: 1e-5 * f64::from(i * i), ..pair(i) });
            let all = strong.chain((30..400).map(pair)).filter(|pair| pair.p <= most).collect();
            let tests = Tests { tested: 400, small: all };
            tests.corrected(0.05).into_iter().map(|(pair, q)| (pair.f, q)).collect::<Vec<_>>()
        };
        assert!(with(1.0).len() > 3 && with(1.0).len() < 30, "{:?}", with(1.0));
        assert_eq!(with(1.0), with(0.05));
    }

    #[test]
    fn q_values_never_fall_below_p_and_keep_their_order() {
        let p = [0.01, 0.04, 0.03, 0.5];
        let q = benjamini_hochberg(&p, 4);
        let expected = [0.04, 0.16 / 3.0, 0.16 / 3.0, 0.5];
        assert!(q.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{q:?}");
    }
}
