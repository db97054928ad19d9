//! Which things come up together most often: the sets of a given size that the most transactions
//! hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A set of things and how often it comes up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tuple<T> {
    /// In order.
    pub members: Vec<T>,
    /// Transactions that hold all of them.
    pub count: u32,
    /// `count` over what independence would give.
    pub lift: f64,
}

/// The `top` sets of `size` things by count, then by lift, then in order. Sets that never come up
/// are left out.
pub(crate) fn most_frequent<T: Ord + Clone>(
    transactions: &[BTreeSet<T>],
    size: usize,
    top: usize,
) -> Vec<Tuple<T>> {
    let mut holders: BTreeMap<&T, Vec<u32>> = BTreeMap::new();
    for (number, transaction) in (0u32..).zip(transactions) {
        transaction.iter().for_each(|thing| holders.entry(thing).or_default().push(number));
    }
    let mut search = Search { things: holders.into_iter().collect(), size, top, best: Vec::new() };
    if size > 0 && top > 0 {
        search.extend(&mut Vec::new(), &(0..transactions.len() as u32).collect::<Vec<_>>(), 1, 0);
    }
    let of = transactions.len() as f64;
    let tuple = |found: FrequentTuple| Tuple {
        members: found.members.iter().map(|&i| search.things[i].0.clone()).collect(),
        count: found.count,
        lift: f64::from(found.count) * of.powi(size as i32 - 1) / found.alone as f64,
    };
    search.best.into_iter().map(tuple).collect()
}

struct FrequentTuple {
    members: Vec<usize>,
    count: u32,
    /// Product of the members' own counts: the smaller, the larger the lift.
    alone: u128,
}

/// Walks sets in order, each longer by one thing; leaves those that cannot come among the best any
/// more.
struct Search<'a, T> {
    /// Each with the transactions that hold it, in order.
    things: Vec<(&'a T, Vec<u32>)>,
    size: usize,
    top: usize,
    /// Best first.
    best: Vec<FrequentTuple>,
}

impl<T> Search<'_, T> {
    fn extend(&mut self, members: &mut Vec<usize>, shared: &[u32], alone: u128, from: usize) {
        for next in from..self.things.len() {
            let held = &self.things[next].1;
            let both = intersection(shared, held);
            let (count, alone) = (both.len() as u32, alone.saturating_mul(held.len() as u128));
            members.push(next);
            let open = self.size - members.len();
            if count > 0 && self.hopeful(count, alone, open) {
                match open {
                    0 => self.keep(FrequentTuple { members: members.clone(), count, alone }),
                    _ => self.extend(members, &both, alone, next + 1),
                }
            }
            members.pop();
        }
    }

    /// Whether a set can still be among the best that has `open` things yet to come: its count
    /// cannot grow, and each of them is held at least as often as the whole.
    fn hopeful(&self, count: u32, alone: u128, open: usize) -> bool {
        let least = (0..open).fold(alone, |product, _| product.saturating_mul(u128::from(count)));
        let worst = self.best.last().filter(|_| self.best.len() == self.top);
        worst.is_none_or(|worst| (Reverse(count), least) < (Reverse(worst.count), worst.alone))
    }

    fn keep(&mut self, new: FrequentTuple) {
        let key = |found: &FrequentTuple| (Reverse(found.count), found.alone);
        let at = self.best.partition_point(|found| key(found) <= key(&new));
        self.best.insert(at, new);
        self.best.truncate(self.top);
    }
}

/// What two ordered lists share.
fn intersection(a: &[u32], b: &[u32]) -> Vec<u32> {
    a.iter().filter(|x| b.binary_search(x).is_ok()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::mix;

    /// 40 transactions over 9 things; thing `t` comes up in about `t` of ten.
    fn drawn(seed: u64) -> Vec<BTreeSet<u64>> {
        let held = |n: u64| (1..10).filter(move |&t| mix(mix(seed, n), t) % 10 < t).collect();
        (0..40).map(held).collect()
    }

    fn brute(transactions: &[BTreeSet<u64>], size: u32) -> Vec<Tuple<u64>> {
        let subsets = (0u32..512).filter(|bits| bits.count_ones() == size);
        let count = |wanted: &BTreeSet<u64>| {
            transactions.iter().filter(|t| t.is_superset(wanted)).count() as u32
        };
        let of = transactions.len() as f64;
        let tuple = |bits: u32| {
            let members: BTreeSet<u64> =
                (0..9).filter(|i| bits >> i & 1 == 1).map(|i| i + 1).collect();
            let alone: u64 = members.iter().map(|&t| u64::from(count(&[t].into()))).product();
            let count = count(&members);
            let lift = f64::from(count) * of.powi(size as i32 - 1) / alone as f64;
            (alone, Tuple { members: members.into_iter().collect(), count, lift })
        };
        let mut all: Vec<_> = subsets.map(tuple).filter(|(_, tuple)| tuple.count > 0).collect();
        all.sort_by_key(|(alone, tuple)| (Reverse(tuple.count), *alone, tuple.members.clone()));
        all.into_iter().map(|(_, tuple)| tuple).collect()
    }

    #[test]
    fn the_best_are_those_of_a_search_through_all() {
        for seed in 0..20 {
            let transactions = drawn(seed);
            for (size, top) in [(1, 3), (2, 7), (3, 5), (4, 1), (5, 400)] {
                let all = brute(&transactions, size);
                let found = most_frequent(&transactions, size as usize, top);
                assert_eq!(found, all[..top.min(all.len())], "seed {seed}, size {size}");
            }
        }
    }

    #[test]
    fn what_is_always_there_costs_nothing() {
        let transactions = vec![(0..200).collect::<BTreeSet<u32>>(); 100];
        let found = most_frequent(&transactions, 6, 2);
        assert_eq!(found[0].members, [0, 1, 2, 3, 4, 5]);
        assert_eq!((found[1].members[5], found[1].count, found[1].lift), (6, 100, 1.0));
        assert!(
            most_frequent(&transactions, 0, 2).is_empty()
                && most_frequent::<u32>(&[], 2, 2).is_empty()
        );
    }
}
