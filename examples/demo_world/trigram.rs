//! The yardstick: a trigram model with absolute discounting, interpolated with bigrams and single
//! tokens, counted on the very contexts that the network was trained on.

use std::collections::HashMap;

const DISCOUNT: f64 = 0.75;

/// What followed one history: how many tokens, and how many different ones.
#[derive(Default)]
struct History {
    total: f64,
    different: f64,
}

#[derive(Default)]
pub(crate) struct Trigram {
    counts: HashMap<[u32; 3], f64>,
    histories: HashMap<[u32; 2], History>,
    /// Of single tokens.
    unigrams: Vec<f64>,
    total: f64,
}

/// Stands for a history that is cut off; no token has this id.
const NONE: u32 = u32::MAX;

impl Trigram {
    pub(crate) fn new(vocabulary: usize) -> Trigram {
        Trigram { unigrams: vec![0.0; vocabulary], ..Default::default() }
    }

    pub(crate) fn count(&mut self, context: &[u32]) {
        for (i, &token) in context.iter().enumerate().skip(1) {
            let before = if i > 1 { context[i - 2] } else { context[0] };
            for history in [[before, context[i - 1]], [NONE, context[i - 1]]] {
                let count = self.counts.entry([history[0], history[1], token]).or_default();
                *count += 1.0;
                let entry = self.histories.entry(history).or_default();
                entry.total += 1.0;
                entry.different += if *count == 1.0 { 1.0 } else { 0.0 };
            }
            self.unigrams[token as usize] += 1.0;
            self.total += 1.0;
        }
    }

    fn interpolate(&self, history: [u32; 2], token: u32, shorter: f64) -> f64 {
        let Some(entry) = self.histories.get(&history) else { return shorter };
        let count = self.counts.get(&[history[0], history[1], token]).copied().unwrap_or(0.0);
        ((count - DISCOUNT).max(0.0) + DISCOUNT * entry.different * shorter) / entry.total
    }

    /// Summed losses of a context: single tokens, trigrams.
    pub(crate) fn losses(&self, context: &[u32]) -> [f64; 2] {
        let mut sums = [0.0; 2];
        for (i, &token) in context.iter().enumerate().skip(1) {
            let before = if i > 1 { context[i - 2] } else { context[0] };
            let one =
                (self.unigrams[token as usize] + 1.0) / (self.total + self.unigrams.len() as f64);
            let two = self.interpolate([NONE, context[i - 1]], token, one);
            sums[0] -= one.ln();
            sums[1] -= self.interpolate([before, context[i - 1]], token, two).ln();
        }
        sums
    }
}
