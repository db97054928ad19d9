//! How often two features meet at the same token, and whether that is more than chance
//! (`docs/definitions.md` §10).

use crate::process::{self, Stopped};
use rayon::prelude::*;

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

/// Counts of meetings of every two of a set of features, over many contexts.
pub struct Cooccurrence {
    features: usize,
    window: usize,
    /// `[features, features]`, upper triangle: tokens at which both are active.
    same: Vec<u32>,
    /// `[features, features]`: tokens at which the second is active and the first was within the
    /// window before.
    lagged: Vec<u32>,
    /// Tokens at which each is active.
    active: Vec<u64>,
    /// Tokens that have it in the window before them.
    before: Vec<u64>,
    tokens: u64,
}

impl Cooccurrence {
    /// For `features` features; the window is the `window` tokens before a token, in the same
    /// context.
    pub fn new(features: usize, window: usize) -> Cooccurrence {
        let pairs = features * features;
        Cooccurrence {
            features,
            window,
            same: vec![0; pairs],
            lagged: vec![0; pairs],
            active: vec![0; features],
            before: vec![0; features],
            tokens: 0,
        }
    }

    /// Adds a context: for each position whether it counts, and the features active there in rising
    /// order.
    pub fn add(&mut self, counts: &[bool], active: &[Vec<u32>]) {
        for (p, here) in active.iter().enumerate().filter(|(p, _)| counts[*p]) {
            self.tokens += 1;
            for (i, &f) in here.iter().enumerate() {
                self.active[f as usize] += 1;
                let row = f as usize * self.features;
                here[i + 1..].iter().for_each(|&g| self.same[row + g as usize] += 1);
            }
            let recent = recent(counts, active, p, self.window);
            for &f in &recent {
                self.before[f as usize] += 1;
                let row = f as usize * self.features;
                here.iter().for_each(|&g| self.lagged[row + g as usize] += 1);
            }
        }
    }

    /// Adds the meetings of other contexts.
    pub(crate) fn merge(mut self, other: &Cooccurrence) -> Cooccurrence {
        let add32 = |a: &mut [u32], b: &[u32]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        let add64 = |a: &mut [u64], b: &[u64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        add32(&mut self.same, &other.same);
        add32(&mut self.lagged, &other.lagged);
        add64(&mut self.active, &other.active);
        add64(&mut self.before, &other.before);
        self.tokens += other.tokens;
        self
    }

    /// Cooccurrence at the same token, `f < g`.
    pub fn same(&self, f: usize, g: usize) -> Counts {
        let both = u64::from(self.same[f * self.features + g]);
        Counts { n: self.tokens, f: self.active[f], g: self.active[g], both }
    }

    /// `g` here and `f` within the window before: the first event is having `f` in the window
    /// before.
    pub fn lagged(&self, f: usize, g: usize) -> Counts {
        let both = u64::from(self.lagged[f * self.features + g]);
        Counts { n: self.tokens, f: self.before[f], g: self.active[g], both }
    }
}

/// A pair that was tested and meets more often than expected: its counts, p-value and q-value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tested {
    pub f: u32,
    pub g: u32,
    pub counts: Counts,
    pub p: f64,
    pub q: f64,
}

impl Cooccurrence {
    /// Tests every two features at the same token; gives the pairs that meet more often than
    /// expected.
    ///
    /// # Errors
    /// When the program is to stop; so too below.
    pub(crate) fn test_same(&self) -> Result<Vec<Tested>, Stopped> {
        self.test(|f, g| f < g, |f, g| self.same(f, g))
    }

    /// Tests every ordered two features, the first within the window before the second; gives the
    /// pairs that meet more often than expected.
    pub(crate) fn test_lagged(&self) -> Result<Vec<Tested>, Stopped> {
        self.test(|f, g| f != g, |f, g| self.lagged(f, g))
    }

    /// p-values are corrected over all pairs tested here. Those that meet no more often than
    /// expected are counted but not kept: there may be millions of them, and their p-values are
    /// about one half or more.
    fn test(
        &self,
        wanted: impl Fn(usize, usize) -> bool + Sync,
        counts: impl Fn(usize, usize) -> Counts + Sync,
    ) -> Result<Vec<Tested>, Stopped> {
        let row = |f: usize| {
            process::check()?;
            let others = (0..self.features).filter(|&g| wanted(f, g));
            let tested: Vec<(usize, Counts)> =
                others.map(|g| (g, counts(f, g))).filter(|(_, counts)| counts.tested()).collect();
            let often = tested.iter().filter(|(_, counts)| counts.lift() > 1.0);
            let kept =
                often.map(|&(g, counts)| (f as u32, g as u32, counts, counts.fisher_greater()));
            Ok((tested.len(), kept.collect::<Vec<_>>()))
        };
        let rows = (0..self.features).into_par_iter().map(row);
        let rows: Vec<(usize, Vec<_>)> = rows.collect::<Result<_, Stopped>>()?;
        let tested = rows.iter().map(|(tested, _)| tested).sum();
        let kept: Vec<_> = rows.into_iter().flat_map(|(_, kept)| kept).collect();
        let q = benjamini_hochberg(&kept.iter().map(|pair| pair.3).collect::<Vec<_>>(), tested);
        Ok(kept
            .into_iter()
            .zip(q)
            .map(|((f, g, counts, p), q)| Tested { f, g, counts, p, q })
            .collect())
    }
}

/// Features active at the counting tokens among the `window` before `p`, each once.
fn recent(counts: &[bool], active: &[Vec<u32>], p: usize, window: usize) -> Vec<u32> {
    let from = p.saturating_sub(window);
    let mut recent: Vec<u32> =
        (from..p).filter(|&s| counts[s]).flat_map(|s| active[s].iter().copied()).collect();
    recent.sort_unstable();
    recent.dedup();
    recent
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn q_values_never_fall_below_p_and_keep_their_order() {
        let p = [0.01, 0.04, 0.03, 0.5];
        let q = benjamini_hochberg(&p, 4);
        let expected = [0.04, 0.16 / 3.0, 0.16 / 3.0, 0.5];
        assert!(q.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{q:?}");
    }
}
