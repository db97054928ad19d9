//! How well two lists agree: correlations, verdicts, words of sentences, and how well a ranking
//! finds a known set.

use serde::Serialize;
use std::collections::BTreeSet;

/// Pearson's correlation; none of fewer than three values or where one list never changes.
pub(crate) fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len());
    if n < 3 {
        return None;
    }
    let mean = |x: &[f64]| x[..n].iter().sum::<f64>() / n as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let [mut top, mut spread_a, mut spread_b] = [0.0; 3];
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        top += x * y;
        spread_a += x * x;
        spread_b += y * y;
    }
    let spread = spread_a.sqrt() * spread_b.sqrt();
    (spread > 0.0).then(|| top / spread)
}

/// Why an attribution that is large may be doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doubt {
    /// Taking the mean of corrupted runs instead would change less than a quarter of the effect: it
    /// is the same there.
    #[serde(rename = "hardly_changed")]
    Steady,
    /// Less came of it than a quarter of what was predicted.
    #[serde(rename = "falls_short")]
    Short,
    /// The contrary came of it, a quarter of what was predicted or more.
    #[serde(rename = "opposite_sign")]
    Opposite,
}

impl Doubt {
    /// The words on pages and in the terminal.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Doubt::Steady => "hardly changed",
            Doubt::Short => "falls short",
            Doubt::Opposite => "opposite sign",
        }
    }
}

/// Whether the change of a feature to its mean does what its effect lets expect; all three in one
/// unit.
pub(crate) fn doubt(effect: f64, predicted: f64, measured: f64) -> Option<Doubt> {
    let little = |part: f64, of: f64| part * of.signum() < of.abs() / 4.0;
    if little(predicted.abs(), effect.abs()) {
        Some(Doubt::Steady)
    } else if predicted != 0.0 && !little(-measured, predicted) {
        Some(Doubt::Opposite)
    } else if little(measured, predicted) {
        Some(Doubt::Short)
    } else {
        None
    }
}

/// Spearman's correlation: that of the ranks.
pub(crate) fn rank_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    correlation(&ranks(a), &ranks(b))
}

/// Ranks from 0, the smallest first; equal values share their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    for equal in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let first = order.iter().position(|i| i == &equal[0]).unwrap_or(0);
        equal.iter().for_each(|&i| ranks[i] = first as f64 + (equal.len() - 1) as f64 / 2.0);
    }
    ranks
}

/// Area under the ROC curve: the chance that a score among `yes` is above one among `no`, equal
/// ones counting half. In the time that it takes to look up each of `no` among the sorted `yes`.
pub(crate) fn area_under_curve(yes: &[f64], no: &[f64]) -> Option<f64> {
    let yes = sorted(yes.to_vec());
    share(no.iter().map(|&n| beaten_by(&yes, n)).sum(), yes.len() * no.len())
}

/// The same where the scores of `yes`, given by their places in `scores`, are to be above all
/// others but those `left_out`.
pub(crate) fn area_of(yes: &[u32], scores: &[f32], left_out: &BTreeSet<u32>) -> Option<f64> {
    let own = sorted(yes.iter().map(|&i| f64::from(scores[i as usize])).collect());
    let all = || (0u32..).zip(scores).filter(|(i, _)| !left_out.contains(i));
    let wins: f64 = all().map(|(_, &score)| beaten_by(&own, f64::from(score))).sum();
    // Half of the pairs among themselves are won, each being met both ways and a tie, also with
    // itself, counting half.
    let among = (own.len() * own.len()) as f64 / 2.0;
    share(wins - among, own.len() * (all().count() - own.len()))
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// How many of sorted values are above a score, equal ones counting half.
fn beaten_by(sorted: &[f64], score: f64) -> f64 {
    let (below, not_above) =
        (sorted.partition_point(|y| *y < score), sorted.partition_point(|y| *y <= score));
    (sorted.len() - not_above) as f64 + (not_above - below) as f64 / 2.0
}

fn share(wins: f64, pairs: usize) -> Option<f64> {
    (pairs > 0).then(|| wins / pairs as f64)
}

/// Words that sentences of any content have.
const EMPTY_WORDS: [&str; 47] = [
    "a", "about", "all", "also", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by",
    "can", "for", "from", "has", "have", "in", "into", "is", "it", "its", "it's", "more", "most",
    "not", "of", "on", "or", "other", "often", "some", "such", "that", "the", "their", "them",
    "these", "they", "this", "to", "when", "where", "which", "with",
];

/// Content words that two sentences share, as a share of those that either has (Jaccard), by
/// letters alone and whatever their case; none where neither has any.
pub(crate) fn words_in_common(a: &str, b: &str) -> Option<f64> {
    let (a, b) = (words(a), words(b));
    let either = a.union(&b).count();
    (either > 0).then(|| a.intersection(&b).count() as f64 / either as f64)
}

fn words(sentence: &str) -> BTreeSet<String> {
    let inside = |c: char| c.is_alphanumeric() || c == '\'' || c == '’';
    let words = sentence
        .split(|c| !inside(c))
        .map(|word| word.replace('’', "'").trim_matches('\'').to_lowercase());
    words.filter(|word| !word.is_empty() && !EMPTY_WORDS.contains(&word.as_str())).collect()
}

/// How many pairs there are of several things, and the mean over those that can be compared.
pub(crate) fn over_pairs<T>(
    all: &[T],
    compare: impl Fn(&T, &T) -> Option<f64>,
) -> (usize, Option<f64>) {
    let pairs = all.iter().enumerate().flat_map(|(i, a)| all[i + 1..].iter().map(move |b| (a, b)));
    let values: Vec<f64> = pairs.filter_map(|(a, b)| compare(a, b)).collect();
    let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    (all.len() * all.len().saturating_sub(1) / 2, mean)
}

/// Cohen's kappa of two judges' verdicts: agreement beyond that of chance, as a share of what is to
/// be had; none where there are none, or where both always say the same one thing.
pub fn kappa(a: &[bool], b: &[bool]) -> Option<f64> {
    let n = a.len().min(b.len());
    let share = |count: usize| count as f64 / n as f64;
    let yes = |verdicts: &[bool]| share(verdicts[..n].iter().filter(|yes| **yes).count());
    let agreed = share(a.iter().zip(b).filter(|(a, b)| a == b).count());
    let chance = yes(a) * yes(b) + (1.0 - yes(a)) * (1.0 - yes(b));
    (n > 0 && chance < 1.0).then(|| (agreed - chance) / (1.0 - chance))
}

/// The area under `of(y)` over x, straight lines between the points.
pub fn area(points: &[(f64, f64)], of: impl Fn(f64) -> f64) -> f64 {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let part =
        |pair: &[(f64, f64)]| (pair[1].0 - pair[0].0) * (of(pair[0].1) + of(pair[1].1)) / 2.0;
    points.windows(2).map(part).sum()
}

/// `1 − Σ|m(C) − m(M)| / Σ|m(∅) − m(M)|`: how near each prompt comes to the whole model; what one
/// has too much does not make up for what another lacks. None where nothing is to be recovered.
pub fn fit(m: &[f64], empty: &[f64], full: &[f64]) -> Option<f64> {
    let off =
        |values: &[f64]| values.iter().zip(full).map(|(m, full)| (m - full).abs()).sum::<f64>();
    let whole = off(empty);
    (whole > 0.0).then(|| 1.0 - off(m) / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_those_of_trapezia() {
        let points = [(1.0, 0.5), (0.0, 0.0), (0.5, 1.0)];
        assert_eq!(area(&points, |y| y), 0.25 + 0.375);
        assert_eq!(area(&points, |y| (1.0 - y).abs()), 0.25 + 0.125);
    }

    #[test]
    fn correlations_of_a_line_a_curve_and_nothing() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let close = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
        assert!(close(correlation(&x, &[2.0, 4.0, 6.0, 8.0]), 1.0));
        assert!(close(correlation(&x, &[1.0, 4.0, 9.0, 16.0]), 0.984_374_038_697_697));
        assert!(close(rank_correlation(&x, &[1.0, 4.0, 9.0, 16.0]), 1.0));
        assert!(close(rank_correlation(&x, &[4.0, 3.0, 2.0, 1.0]), -1.0));
        assert_eq!(correlation(&x, &[5.0; 4]), None);
        assert_eq!(correlation(&x[..2], &x[..2]), None);
    }

    #[test]
    fn a_quarter_is_enough_and_the_contrary_is_not() {
        assert_eq!(
            [doubt(0.5, -0.4, -0.1), doubt(-0.5, 0.4, 3.0), doubt(0.0, 0.0, 0.0)],
            [None; 3]
        );
        let short = [doubt(0.5, -0.4, -0.09), doubt(0.5, -0.4, 0.09), doubt(0.5, 0.4, 0.0)];
        assert_eq!(short, [Some(Doubt::Short); 3]);
        let opposite = [doubt(0.5, -0.4, 0.4), doubt(-0.5, 0.4, -0.1), doubt(0.5, 0.4, -9.0)];
        assert_eq!(opposite, [Some(Doubt::Opposite); 3]);
        assert_eq!(doubt(0.5, -0.1, -0.1), Some(Doubt::Steady));
    }

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.0]), [2.5, 1.0, 2.5, 0.0]);
    }

    #[test]
    fn the_area_counts_pairs_in_the_right_order() {
        assert_eq!(area_under_curve(&[0.9, 0.5], &[0.5, 0.1]), Some(0.875));
        assert_eq!(area_under_curve(&[1.0], &[0.0, 0.5]), Some(1.0));
        assert_eq!(area_under_curve(&[], &[0.5]), None);
    }

    #[test]
    fn the_area_is_that_of_all_pairs_however_it_is_counted() {
        let none = BTreeSet::new();
        let score = |i: u64| (crate::stats::mix(i, 3) % 40) as f32 / 8.0;
        let scores: Vec<f32> = (0..200).map(score).collect();
        let yes: Vec<u32> = (0..200)
            .filter(|i| crate::stats::mix(*i, 4).is_multiple_of(7))
            .map(|i| i as u32)
            .collect();
        let of = |wanted: bool| -> Vec<f64> {
            (0..200)
                .filter(|i| yes.contains(i) == wanted)
                .map(|i| f64::from(scores[i as usize]))
                .collect()
        };
        let (own, others) = (of(true), of(false));
        let pairs = own.iter().flat_map(|y| others.iter().map(move |n| (y, n)));
        let wins: f64 = pairs
            .map(|(y, n)| {
                if y > n {
                    1.0
                } else if y == n {
                    0.5
                } else {
                    0.0
                }
            })
            .sum();
        let expected = wins / (own.len() * others.len()) as f64;
        assert!((area_of(&yes, &scores, &none).unwrap() - expected).abs() < 1e-12);
        assert!((area_under_curve(&own, &others).unwrap() - expected).abs() < 1e-12);
        assert_eq!([area_of(&[], &scores, &none), area_of(&[0], &[1.0], &none)], [None; 2]);
        assert_eq!(area_of(&[1], &[0.0, 2.0, 1.0], &none), Some(1.0));
        let without = |left_out: &[u32]| {
            area_of(&[1], &[0.0, 2.0, 3.0, 1.0], &left_out.iter().copied().collect())
        };
        assert_eq!([without(&[]), without(&[2])], [Some(2.0 / 3.0), Some(1.0)]);
    }

    #[test]
    fn sentences_share_their_content_words_whatever_their_case() {
        let shared = |a, b| words_in_common(a, b);
        assert_eq!(
            shared("Fires at names of the people.", "names of PEOPLE, and of places"),
            Some(0.5)
        );
        assert_eq!(shared("John’s hat", "John's hats"), Some(1.0 / 3.0));
        assert_eq!(shared("a name", "a place"), Some(0.0));
        assert_eq!([shared("", ""), shared("the", "of ` `")], [None; 2]);
        assert_eq!(shared("", "names"), Some(0.0));
    }

    #[test]
    fn every_pair_is_compared_once() {
        let apart = |a: &f64, b: &f64| (*b > 0.0).then_some(b - a);
        assert_eq!(over_pairs(&[1.0, 2.0, 4.0], apart), (3, Some(2.0)));
        assert_eq!(over_pairs(&[1.0, 2.0, -4.0], apart), (3, Some(1.0)));
        assert_eq!([over_pairs(&[1.0], apart), over_pairs(&[], apart)], [(0, None); 2]);
    }

    #[test]
    fn kappa_is_agreement_beyond_chance() {
        let (yes, no) = (true, false);
        let a: Vec<bool> = [vec![yes; 25], vec![no; 25]].concat();
        // The textbook's 20 and 15 agreed, 5 and 10 not: (0.7 - 0.5) / (1 - 0.5).
        let b: Vec<bool> = [vec![yes; 20], vec![no; 5], vec![yes; 10], vec![no; 15]].concat();
        assert!((kappa(&a, &b).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(kappa(&[yes, no], &[no, yes]), Some(-1.0));
        assert_eq!([kappa(&[], &[]), kappa(&[yes; 3], &[yes; 3])], [None; 2]);
        assert_eq!(kappa(&[yes, no], &[yes, yes]), Some(0.0));
    }
}
