//! Samples that hold each kind of thing in proportion. "Every k-th" is no sample: what alternates
//! (prompts by template, contexts by document) would be drawn on one side only.

use super::mix;
use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The places, ascending, of `wanted` of the items whose strata these are, or of all of them where
/// there are no more. Each stratum is in proportion to its size; which of its items are drawn is
/// the seed's choice.
pub(crate) fn stratified<K: Ord>(strata: &[K], wanted: usize, seed: u64) -> Vec<usize> {
    let n = strata.len();
    if wanted >= n {
        return (0..n).collect();
    }
    let mut groups: Vec<Vec<usize>> = places(strata.iter()).into_values().collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Where shares are equally large, the seed's order decides, not the strata's.
    groups.shuffle(&mut rng);
    groups.iter_mut().for_each(|places| places.shuffle(&mut rng));
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    let shares = shares(&sizes, wanted);
    let mut drawn: Vec<usize> =
        groups.iter().zip(shares).flat_map(|(places, share)| &places[..share]).copied().collect();
    drawn.sort_unstable();
    drawn
}

/// The places of each stratum's items, ascending.
pub fn places<K: Ord>(strata: impl Iterator<Item = K>) -> BTreeMap<K, Vec<usize>> {
    let mut places: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    strata.enumerate().for_each(|(place, stratum)| places.entry(stratum).or_default().push(place));
    places
}

/// Those of some items that `stratified` draws, in their order.
pub fn sample<T, K: Ord>(
    items: Vec<T>,
    stratum: impl Fn(&T) -> K,
    wanted: usize,
    seed: u64,
) -> Vec<T> {
    let places = stratified(&items.iter().map(stratum).collect::<Vec<_>>(), wanted, seed);
    let drawn = |(place, item): (usize, T)| places.binary_search(&place).is_ok().then_some(item);
    items.into_iter().enumerate().filter_map(drawn).collect()
}

/// The places, ascending, of `wanted` of `n` items, or of all where there are no more: one of each
/// of as many stretches of equal length, drawn by the seed.
pub(crate) fn spread(n: usize, wanted: usize, seed: u64) -> Vec<usize> {
    if wanted >= n {
        return (0..n).collect();
    }
    let drawn = |i: usize| {
        let (from, to) = (n * i / wanted, n * (i + 1) / wanted);
        from + (mix(seed, i as u64) % (to - from) as u64) as usize
    };
    (0..wanted).map(drawn).collect()
}

/// `wanted`, less than there are, in proportion to sizes: what is left after rounding down goes to
/// the largest remainders, among equal ones to those that come first.
fn shares(sizes: &[usize], wanted: usize) -> Vec<usize> {
    let n: usize = sizes.iter().sum();
    let mut shares: Vec<usize> = sizes.iter().map(|size| size * wanted / n).collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by_key(|&i| std::cmp::Reverse(sizes[i] * wanted % n));
    let left = wanted - shares.iter().sum::<usize>();
    by_remainder[..left].iter().for_each(|&i| shares[i] += 1);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of what was drawn are of each stratum below `kinds`.
    fn counts(strata: &[usize], drawn: &[usize], kinds: usize) -> Vec<usize> {
        (0..kinds)
            .map(|kind| drawn.iter().filter(|&&place| strata[place] == kind).count())
            .collect()
    }

    #[test]
    fn a_spread_has_one_of_each_stretch() {
        for (n, wanted) in [(100, 10), (101, 7), (12, 11), (5, 1)] {
            let drawn = spread(n, wanted, 3);
            let stretch: Vec<usize> = drawn
                .iter()
                .map(|place| (0..wanted).rfind(|i| n * i / wanted <= *place).unwrap())
                .collect();
            assert_eq!(stretch, (0..wanted).collect::<Vec<_>>(), "{wanted} of {n}");
        }
        assert_eq!(spread(5, 9, 3), [0, 1, 2, 3, 4]);
        assert!(spread(5, 0, 3).is_empty());
        let second = |seed| spread(100, 10, seed)[1];
        assert!((0..20).any(|seed| second(seed) != second(0)), "not every k-th");
        let odd = spread(1000, 100, 1).iter().filter(|place| *place % 2 == 1).count();
        assert!((30..=70).contains(&odd), "{odd} of 100");
    }

    #[test]
    fn strata_that_alternate_are_drawn_equally() {
        let strata: Vec<usize> = (0..100).map(|i| i % 2).collect();
        for seed in 0..20 {
            assert_eq!(counts(&strata, &stratified(&strata, 50, seed), 2), [25, 25]);
        }
        // The other order of the same strata.
        let strata: Vec<usize> = (0..100).map(|i| (i + 1) % 2).collect();
        assert_eq!(counts(&strata, &stratified(&strata, 50, 0), 2), [25, 25]);
    }

    #[test]
    fn each_stratum_is_in_proportion() {
        let strata: Vec<usize> =
            (0..100).map(|i| if i < 60 { 0 } else { 1 + usize::from(i >= 90) }).collect();
        assert_eq!(counts(&strata, &stratified(&strata, 50, 1), 3), [30, 15, 5]);
        // 6.6, 3.3 and 1.1: the largest remainder takes what rounding down leaves.
        assert_eq!(counts(&strata, &stratified(&strata, 11, 1), 3), [7, 3, 1]);
    }

    #[test]
    fn places_ascend_and_none_is_drawn_twice() {
        let strata: Vec<usize> = (0..50).map(|i| i % 7).collect();
        for wanted in 0..50 {
            let drawn = stratified(&strata, wanted, 3);
            assert_eq!(drawn.len(), wanted);
            assert!(drawn.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn over_seeds_no_stratum_is_favoured() {
        // One item of three strata: each is drawn by about a third of the seeds.
        let strata: Vec<usize> = (0..30).map(|i| i % 3).collect();
        let drawn: Vec<usize> = (0..300).flat_map(|seed| stratified(&strata, 1, seed)).collect();
        assert!(counts(&strata, &drawn, 3).iter().all(|n| (70..130).contains(n)));
    }

    #[test]
    fn over_seeds_no_place_is_favoured() {
        let drawn: Vec<usize> = (0..400).flat_map(|seed| stratified(&[0; 10], 5, seed)).collect();
        assert!(
            (0..10)
                .all(|place| (150..250).contains(&drawn.iter().filter(|&&p| p == place).count()))
        );
    }

    #[test]
    fn a_seed_draws_the_same_places_and_another_seed_others() {
        let strata: Vec<usize> = (0..100).map(|i| i % 2).collect();
        assert_eq!(stratified(&strata, 50, 7), stratified(&strata, 50, 7));
        assert_ne!(stratified(&strata, 50, 7), stratified(&strata, 50, 8));
    }

    #[test]
    fn items_are_drawn_as_their_places_are() {
        let words = vec!["a1", "b1", "a2", "b2", "a3", "b3"];
        let drawn = sample(words.clone(), |word| &word[..1], 4, 1);
        assert!(drawn.is_sorted_by_key(|word| words.iter().position(|w| w == word)));
        assert_eq!(drawn.iter().filter(|word| word.starts_with('a')).count(), 2);
        assert_eq!(sample(words.clone(), |word| &word[..1], 9, 1), words);
    }

    #[test]
    fn none_or_all_where_so_many_are_wanted() {
        assert!(stratified(&["a", "b"], 0, 1).is_empty());
        assert!(stratified::<u8>(&[], 0, 1).is_empty());
        assert!(stratified::<u8>(&[], 5, 1).is_empty());
        assert_eq!(stratified(&["a", "b"], 2, 1), [0, 1]);
        assert_eq!(stratified(&["a", "b"], 9, 1), [0, 1]);
    }
}
