//! Unigram and bigram models of the corpus itself, which a language model has to beat
//! (`docs/definitions.md` §2).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// Tokens that are counted at most, from the first context on: enough for pairs of tokens, few
/// enough to be counted in a second.
const COUNTED: usize = 1 << 20;

/// Tokens that a bigram model draws from the unigram model before it has seen any.
const PRIOR: f64 = 5.0;

/// Losses, in nats a token, of models that only count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ngrams {
    /// Of the frequencies of tokens.
    pub unigram: f64,
    /// Of the frequencies of tokens behind the one before.
    pub bigram: f64,
}

/// How often tokens, and pairs of them, are in some contexts.
#[derive(Default)]
struct Counts {
    all: f64,
    one: HashMap<u32, f64>,
    before: HashMap<u32, f64>,
    two: HashMap<(u32, u32), f64>,
}

impl Counts {
    fn add(&mut self, tokens: &[u32]) {
        for pair in tokens.windows(2) {
            let (before, token) = (pair[0], pair[1]);
            self.all += 1.0;
            *self.one.entry(token).or_default() += 1.0;
            *self.before.entry(before).or_default() += 1.0;
            *self.two.entry((before, token)).or_default() += 1.0;
        }
    }
}

/// Losses on the contexts `measured` (document and tokens, the first of which is not predicted), or
/// on parts of contexts, of models that count all `contexts` but those of the same document.
pub fn held_out(
    contexts: &[(u32, &[u32])],
    measured: &[(u32, &[u32])],
    vocabulary: usize,
) -> Ngrams {
    let documents: BTreeSet<u32> = measured.iter().map(|(document, _)| *document).collect();
    let (mut whole, mut own) = (Counts::default(), BTreeMap::<u32, Counts>::new());
    let mut counted = 0;
    for (document, tokens) in contexts {
        counted += tokens.len();
        if counted > COUNTED {
            break;
        }
        whole.add(tokens);
        if documents.contains(document) {
            own.entry(*document).or_default().add(tokens);
        }
    }
    let (none, mut sums, mut n) = (Counts::default(), [0.0; 2], 0.0);
    for (document, tokens) in measured {
        let own = own.get(document).unwrap_or(&none);
        for pair in tokens.windows(2) {
            let [unigram, bigram] = chances(&whole, own, (pair[0], pair[1]), vocabulary);
            sums[0] -= unigram.ln();
            sums[1] -= bigram.ln();
            n += 1.0;
        }
    }
    let [unigram, bigram] = sums.map(|sum| sum / n);
    Ngrams { unigram, bigram }
}

/// What a unigram and a bigram model say of the second token of a pair.
fn chances(whole: &Counts, own: &Counts, pair: (u32, u32), vocabulary: usize) -> [f64; 2] {
    fn count<K: Hash + Eq>(all: &HashMap<K, f64>, less: &HashMap<K, f64>, key: &K) -> f64 {
        all.get(key).unwrap_or(&0.0) - less.get(key).unwrap_or(&0.0)
    }
    let (before, token) = pair;
    let all = whole.all - own.all + vocabulary as f64;
    let unigram = (count(&whole.one, &own.one, &token) + 1.0) / all;
    let both = count(&whole.two, &own.two, &pair);
    let bigram = (both + PRIOR * unigram) / (count(&whole.before, &own.before, &before) + PRIOR);
    [unigram, bigram]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_predicted_from_the_others() {
        let contexts: [(u32, &[u32]); 3] = [(0, &[9, 1, 2]), (1, &[9, 1, 1, 3]), (0, &[9, 5, 5])];
        let found = held_out(&contexts, &contexts[..1], 10);
        // Document 1 has 1 twice and 3 once, 1 once behind 9 and once behind 1.
        let unigram = [3.0 / 13.0, 1.0 / 13.0_f64];
        let expected = -(unigram[0].ln() + unigram[1].ln()) / 2.0;
        assert!((found.unigram - expected).abs() < 1e-12, "{found:?}");
        let bigram = [(1.0 + 5.0 * unigram[0]) / 6.0, (0.0 + 5.0 * unigram[1]) / 7.0].map(f64::ln);
        assert!((found.bigram + (bigram[0] + bigram[1]) / 2.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn one_document_alone_has_nothing_to_be_predicted_from() {
        let contexts: [(u32, &[u32]); 2] = [(0, &[9, 1, 2]), (0, &[9, 1, 1])];
        let found = held_out(&contexts, &contexts, 8);
        for loss in [found.unigram, found.bigram] {
            assert!((loss - 8f64.ln()).abs() < 1e-12, "{found:?}");
        }
    }
}
