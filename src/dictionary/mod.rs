//! Dictionaries: attention-output SAEs and MLP transcoders as one thing (`docs/definitions.md` §3).
//!
//! `load` knows the file formats, `store` is the one form that the program works from,
//! `conformance` measures how well a dictionary describes the model. Knows nothing of circuits or
//! tables.

mod conformance;
mod load;
mod save;
mod scorer;
mod store;

pub use conformance::{Conformance, Sample, judge, measure};
pub use load::{Source, Whole, find};
pub(crate) use save::ModelSaid;
pub(crate) use scorer::{Hit, Scorer};
pub use scorer::{Hooks, hooks};
pub(crate) use store::Stored;
pub use store::{Dictionary, clear};

use crate::error::Result;
use crate::vectors::vectors;
use candle_core::{Storage, Tensor};
use rayon::prelude::*;

/// The reading half of a dictionary, or of some of its features: `pre = W·x + bias`, active as the
/// rule says.
#[derive(Clone)]
pub struct Encoder {
    /// A feature a row, `[n, d_in]`
    pub w: Tensor,
    /// `b_enc − W·b_in`, `b_in` being what is subtracted from the input, `[n]`
    pub bias: Tensor,
    /// Which pre-activations are activations.
    pub rule: Rule,
}

/// Which pre-activations are activations; all others are 0.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Those above 0.
    Relu,
    /// JumpReLU: those above `max(threshold, 0)` of their feature; thresholds as the file has them,
    /// `[n]`
    Jump(Vec<f32>),
    /// The largest of a token, if above 0.
    TopK(usize),
}

/// The active features of one token: (feature, activation), by feature.
pub type Active = Vec<(u32, f32)>;

/// A feature's activation in a token's list, 0 where it is inactive.
pub(crate) fn activation(active: &Active, feature: u32) -> f32 {
    active.binary_search_by_key(&feature, |(f, _)| *f).map_or(0.0, |at| active[at].1)
}

/// Tokens and features that are multiplied at once: their products stay in the processor's cache
/// until they are read. Blocks of features are of equal size and never small, as small products are
/// summed in another order.
const ROWS: usize = 512;
const COLUMNS: usize = 512;
/// Tokens whose products a thread reads at least.
const AT_LEAST: usize = 64;

impl Rule {
    /// Sets what is not active to 0 in the pre-activations of one token.
    pub(crate) fn apply(&self, row: &mut [f32]) {
        match self {
            Rule::Relu => row.iter_mut().for_each(|x| *x = x.max(0.0)),
            Rule::Jump(limits) => {
                row.iter_mut()
                    .zip(limits)
                    .for_each(|(x, limit)| *x = if *x > limit.max(0.0) { *x } else { 0.0 });
            }
            Rule::TopK(k) => keep_largest(row, *k),
        }
    }

    /// What the pre-activation of each of `n` features has to be above, `[n]`
    fn limits(&self, n: usize) -> Vec<f32> {
        match self {
            Rule::Jump(thresholds) => thresholds.iter().map(|limit| limit.max(0.0)).collect(),
            Rule::Relu | Rule::TopK(_) => vec![0.0; n],
        }
    }

    /// The active features of one token, of products `W·x`, biases and [`Rule::limits`].
    fn active(&self, products: &[f32], bias: &[f32], limits: &[f32]) -> Active {
        let mut active = Active::new();
        self.take_active(&mut active, 0, products, bias, limits);
        active
    }

    /// Adds them to a token's list; the first product is of the feature `from`.
    fn take_active(
        &self,
        active: &mut Active,
        from: u32,
        products: &[f32],
        bias: &[f32],
        limits: &[f32],
    ) {
        if let Rule::TopK(k) = self {
            let mut row: Vec<f32> = products.iter().zip(bias).map(|(x, b)| x + b).collect();
            keep_largest(&mut row, *k);
            active.extend(sparse(&row).into_iter().map(|(f, a)| (from + f, a)));
            return;
        }
        vectors!(above(
            active: &mut Active, from: u32, products: &[f32], bias: &[f32], limits: &[f32]
        ));
    }

    /// The rule of some features only; a top-k is one of all features or none.
    fn select(&self, features: &[usize]) -> Rule {
        match self {
            Rule::Jump(limits) => Rule::Jump(features.iter().map(|&f| limits[f]).collect()),
            other => other.clone(),
        }
    }
}

/// The features whose `product + bias` is above their limit. Nearly all are below, so that they are
/// looked at many at a time first.
#[inline(always)]
fn above(active: &mut Active, first: u32, products: &[f32], bias: &[f32], limits: &[f32]) {
    const AT_ONCE: usize = 32;
    let mut look = |from: usize, products: &[f32], bias: &[f32], limits: &[f32]| {
        let each = || products.iter().zip(bias).map(|(x, b)| x + b).zip(limits);
        if each().fold(false, |any, (x, limit)| any | (x > *limit)) {
            let found = (first + from as u32..).zip(each()).filter(|(_, (x, limit))| x > *limit);
            active.extend(found.map(|(f, (x, _))| (f, x)));
        }
    };
    let whole = products.len() / AT_ONCE * AT_ONCE;
    // Arrays of a length that is known take a few comparisons of vectors.
    let (many, rest) = products.as_chunks::<AT_ONCE>();
    let (biases, limits_of) = (bias.as_chunks::<AT_ONCE>().0, limits.as_chunks::<AT_ONCE>().0);
    for (at, ((products, bias), limits)) in many.iter().zip(biases).zip(limits_of).enumerate() {
        look(at * AT_ONCE, products, bias, limits);
    }
    look(whole, rest, &bias[whole..], &limits[whole..]);
}

/// Sets all but the `k` largest values to 0, and those not above 0; of equal values the first are
/// kept.
fn keep_largest(row: &mut [f32], k: usize) {
    let mut positive: Vec<u32> =
        (0u32..).zip(row.iter()).filter(|(_, x)| **x > 0.0).map(|(f, _)| f).collect();
    if positive.len() > k {
        let larger =
            |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        positive.select_nth_unstable_by(k.saturating_sub(1), larger);
        positive.truncate(k);
    }
    let kept: Active = positive.into_iter().map(|f| (f, row[f as usize])).collect();
    row.fill(0.0);
    kept.into_iter().for_each(|(f, x)| row[f as usize] = x);
}

impl Encoder {
    /// Number of features.
    pub fn width(&self) -> usize {
        self.bias.elem_count()
    }

    /// The thresholds of a JumpReLU, as its file has them; none of another rule.
    fn thresholds(&self) -> &[f32] {
        if let Rule::Jump(thresholds) = &self.rule { thresholds } else { &[] }
    }

    /// `x [T, d_in]` → pre-activations `[T, n]`
    pub fn pre(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.w.t()?)?.broadcast_add(&self.bias)?)
    }

    /// `x [T, d_in]` → activations `[T, n]`
    pub fn encode(&self, x: &Tensor) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.activations(x)?, (x.dim(0)?, self.width()), x.device())?)
    }

    /// `x [T, d_in]` → the active features of each token.
    pub fn active(&self, x: &Tensor) -> Result<Vec<Active>> {
        let mut active = vec![Active::new(); x.dim(0)?];
        self.take_active(&mut active, 0, x)?;
        Ok(active)
    }

    /// Adds the active features of each token to its list; the encoder's first feature is the
    /// dictionary's `from`.
    fn take_active(&self, active: &mut [Active], from: usize, x: &Tensor) -> Result<()> {
        let (n, bias) = (self.width(), self.bias.to_vec1::<f32>()?);
        let limits = self.rule.limits(n);
        // A top-k needs all features to know any.
        let blocks = if matches!(self.rule, Rule::TopK(_)) { 1 } else { n.div_ceil(COLUMNS) };
        for block in 0..blocks {
            let (start, end) = (block * n / blocks, (block + 1) * n / blocks);
            let w = self.w.narrow(0, start, end - start)?.t()?;
            let (bias, limits) = (&bias[start..end], &limits[start..end]);
            for (at, active) in active.chunks_mut(ROWS).enumerate() {
                let rows = x.narrow(0, at * ROWS, active.len())?;
                let products = rows.matmul(&w)?;
                // Read in place: a copy takes a tenth of the product's time.
                let (storage, _) = products.storage_and_layout();
                let Storage::Cpu(storage) = &*storage else {
                    return Err(candle_core::Error::Msg("products on another device".into()).into());
                };
                let rows = storage.as_slice::<f32>()?.par_chunks_exact(end - start);
                let first = (from + start) as u32;
                rows.zip(active).with_min_len(AT_LEAST).for_each(|(row, active)| {
                    self.rule.take_active(active, first, row, bias, limits);
                });
            }
        }
        Ok(())
    }

    fn activations(&self, x: &Tensor) -> Result<Vec<f32>> {
        let mut rows: Vec<f32> = self.pre(x)?.flatten_all()?.to_vec1()?;
        rows.par_chunks_exact_mut(self.width()).for_each(|row| self.rule.apply(row));
        Ok(rows)
    }
}

/// The nonzero entries of a row of activations.
pub(crate) fn sparse(row: &[f32]) -> Active {
    row.iter().enumerate().filter(|(_, a)| **a != 0.0).map(|(f, &a)| (f as u32, a)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_keeps_what_it_says() {
        let pre = [0.5, -1.0, 2.0, 0.25, 2.0, 0.0];
        let after = |rule: Rule| {
            let mut row = pre;
            rule.apply(&mut row);
            row
        };
        assert_eq!(after(Rule::Relu), [0.5, 0.0, 2.0, 0.25, 2.0, 0.0]);
        assert_eq!(
            after(Rule::Jump(vec![0.5, 0.0, 1.0, 0.0, 3.0, 0.0])),
            [0.0, 0.0, 2.0, 0.25, 0.0, 0.0]
        );
        assert_eq!(after(Rule::TopK(3)), [0.5, 0.0, 2.0, 0.0, 2.0, 0.0]);
        assert_eq!(after(Rule::TopK(1)), [0.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(after(Rule::TopK(9)), after(Rule::Relu));
        let rules = [Rule::Relu, Rule::Jump(vec![0.5, 0.0, 1.0, 0.0, 3.0, 0.0]), Rule::TopK(3)];
        for rule in rules {
            let products = pre.map(|x| x - 0.125);
            let limits = rule.limits(6);
            assert_eq!(rule.active(&products, &[0.125; 6], &limits), sparse(&after(rule.clone())));
        }
    }

    #[test]
    fn features_are_found_in_rows_of_every_length() {
        for n in [0, 1, 31, 32, 33, 64, 100] {
            let products: Vec<f32> = (0..n).map(|f| (f as f32 * 0.7).sin()).collect();
            let limits: Vec<f32> = (0..n).map(|f| (f % 5) as f32 * 0.25).collect();
            let expected: Active = (0..n)
                .filter(|&f| products[f] + 0.125 > limits[f])
                .map(|f| (f as u32, products[f] + 0.125))
                .collect();
            let rule = Rule::Jump(limits.clone());
            assert_eq!(rule.active(&products, &vec![0.125; n], &rule.limits(n)), expected);
        }
    }
}
