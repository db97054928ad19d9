//! Which tokens of the sample's contexts dictionaries are measured on, which of them readings are
//! tried on, and of which contexts losses are.
//!
//! A long context is no larger a part of the sample than [`CUT`] tokens, so that the sample is of
//! several contexts however long they are: losses are of its beginning, all else of tokens from
//! everywhere in it.

use super::groups::Groups;
use crate::stats::strata::spread;

/// Tokens of a context at most that losses are of, BOS among them: its first ones, as a context of
/// their own would have the same losses. As many, but for one, are measured.
pub(super) const CUT: usize = 256;
/// Contexts at least that losses are of, where there are so many.
const CONTEXTS: usize = 8;
/// Tokens that each reading is tried on.
const TRIED: usize = 256;
/// Of these, tokens that are enough to see what is not worth more.
pub(super) const FEW: usize = 64;
/// Tokens at least that are tried of a group of contexts: of fewer, what is explained says little.
const OF_A_GROUP: usize = 8;
/// Which tokens are drawn of each stretch.
const SEED: u64 = 2;

/// The rows that are kept of clean passes over contexts, those that losses are of first, context by
/// context.
pub(super) struct Places {
    /// Context and position of each row.
    pub(super) rows: Vec<(usize, usize)>,
    /// Of each context that losses are of, where its rows begin, and where those of the last end.
    pub(super) of_losses: Vec<usize>,
    /// The rows that are measured, by context and position; BOS is none of them.
    pub(super) measured: Vec<u32>,
    /// Those of them that readings are tried on, from all contexts. The first [`FEW`] are from all
    /// contexts too.
    pub(super) tried: Vec<u32>,
    /// All rows that are not tried.
    pub(super) not_tried: Vec<u32>,
    /// Which group each context is of (see `groups`).
    groups: Vec<u32>,
}

impl Places {
    /// Of contexts of these lengths, in a drawn order.
    pub(super) fn of(lengths: &[usize]) -> Places {
        let losses = lengths.len().div_ceil(2).max(CONTEXTS).min(lengths.len());
        let (mut rows, mut of_losses, mut measured) = (Vec::new(), vec![0], Vec::new());
        for (context, length) in lengths[..losses].iter().enumerate() {
            rows.extend((0..CUT.min(*length)).map(|position| (context, position)));
            of_losses.push(rows.len());
        }
        for (context, length) in lengths.iter().enumerate() {
            for place in spread(length.saturating_sub(1), CUT - 1, SEED + context as u64) {
                let position = place + 1;
                let row = match of_losses.get(context) {
                    Some(start) if context < losses && position < CUT => start + position,
                    _ => {
                        rows.push((context, position));
                        rows.len() - 1
                    }
                };
                measured.push(row as u32);
            }
        }
        let some = |of: &[u32], n: usize| -> Vec<u32> {
            spread(of.len(), n, SEED).into_iter().map(|i| of[i]).collect()
        };
        let all = some(&measured, TRIED);
        let mut tried = some(&all, FEW);
        tried.extend(without(all.into_iter(), &tried));
        let not_tried = without(0..rows.len() as u32, &tried);
        let mut each = vec![0; lengths.len()];
        tried.iter().for_each(|&row| each[rows[row as usize].0] += 1);
        Places { rows, of_losses, measured, tried, not_tried, groups: grouped(&each) }
    }

    /// The groups of contexts of some rows.
    pub(super) fn groups_of(&self, rows: &[u32]) -> Groups {
        Groups::new(rows.iter().map(|&row| self.groups[self.rows[row as usize].0]).collect())
    }
}

/// The group of each context: one that is tried at so many tokens, or as many of the next ones as
/// have [`OF_A_GROUP`] together. What is left at the end is part of the last group.
fn grouped(tried: &[usize]) -> Vec<u32> {
    let (mut groups, mut group, mut tokens) = (Vec::new(), 0, 0);
    for (context, own) in tried.iter().enumerate() {
        let behind: usize = tried[context..].iter().sum();
        if tokens >= OF_A_GROUP && behind >= OF_A_GROUP {
            (group, tokens) = (group + 1, 0);
        }
        groups.push(group);
        tokens += own;
    }
    groups
}

/// Those of some rows that are none of the others.
fn without(rows: impl Iterator<Item = u32>, others: &[u32]) -> Vec<u32> {
    let others: std::collections::BTreeSet<u32> = others.iter().copied().collect();
    rows.filter(|row| !others.contains(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Places {
        /// How many of some rows are of each context.
        fn contexts(&self, rows: &[u32]) -> BTreeMap<usize, usize> {
            let mut each = BTreeMap::new();
            rows.iter().for_each(|&row| *each.entry(self.rows[row as usize].0).or_default() += 1);
            each
        }
    }

    #[test]
    fn short_contexts_are_measured_whole_and_half_of_them_have_losses() {
        let places = Places::of(&[128; 16]);
        assert_eq!(places.measured.len(), 16 * 127);
        assert_eq!(places.of_losses, (0..=8).map(|i| 128 * i).collect::<Vec<_>>());
        // BOS is needed of contexts with losses alone.
        assert_eq!(places.rows.len(), 8 * 128 + 8 * 127);
        assert_eq!(Places::of(&[20; 100]).of_losses.len(), 51);
    }

    #[test]
    fn long_contexts_have_losses_of_their_beginnings_and_are_measured_everywhere() {
        let places = Places::of(&[1024; 8]);
        assert_eq!(places.of_losses, (0..=8).map(|i| CUT * i).collect::<Vec<_>>());
        for context in 0..8 {
            let whole = (0..CUT).map(|position| (context, position)).collect::<Vec<_>>();
            assert_eq!(places.rows[CUT * context..CUT * (context + 1)], whole);
            let own = places.measured.iter().map(|&row| places.rows[row as usize]);
            let own: Vec<usize> = own.filter(|row| row.0 == context).map(|row| row.1).collect();
            assert_eq!(own.len(), CUT - 1);
            assert!(own.is_sorted_by(|a, b| a < b) && own[0] > 0);
            for quarter in 0..4 {
                let there = own.iter().filter(|position| **position / CUT == quarter).count();
                assert!((62..=66).contains(&there), "{there} of {context}, {quarter}");
            }
        }
    }

    #[test]
    fn every_context_is_tried_as_much_as_it_is_measured() {
        for lengths in [vec![1024; 8], vec![128; 16], vec![1024, 40, 40, 300, 9]] {
            let places = Places::of(&lengths);
            for (n, tried) in [(TRIED, &places.tried[..]), (FEW, &places.tried[..FEW])] {
                assert_eq!(tried.len(), n);
                let (found, all) = (places.contexts(tried), places.contexts(&places.measured));
                for (context, of) in &all {
                    let share = n as f64 * *of as f64 / places.measured.len() as f64;
                    let found = found.get(context).copied().unwrap_or(0) as f64;
                    assert!((found - share).abs() < 2.0, "{context}: {found}, {share}");
                }
            }
        }
    }

    #[test]
    fn a_context_is_a_group_unless_it_is_short() {
        assert_eq!(Places::of(&[128; 16]).groups, (0..16).collect::<Vec<_>>());
        assert_eq!(grouped(&[20, 3, 3, 3, 9, 8, 7]), [0, 1, 1, 1, 2, 3, 3]);
        assert_eq!(grouped(&[2, 2]), [0, 0]);
        // Rows that are measured are in the order of the groups, and each group is tried.
        let lengths: Vec<usize> = (0..90).map(|i| 10 + 7 * i % 40).collect();
        let places = Places::of(&lengths);
        let of = |rows: &[u32]| -> Vec<u32> {
            rows.iter().map(|&row| places.groups[places.rows[row as usize].0]).collect()
        };
        assert!(of(&places.measured).is_sorted());
        let tried = of(&places.tried);
        let last = *places.groups.last().unwrap();
        assert!(last > 15, "{last}");
        for group in 0..=last {
            assert!(tried.iter().filter(|&&of| of == group).count() >= OF_A_GROUP, "{group}");
        }
    }

    #[test]
    fn a_row_is_tried_or_not_and_never_twice() {
        for lengths in [vec![1024; 8], vec![128; 16], vec![2], vec![7, 3], vec![300, 2000]] {
            let places = Places::of(&lengths);
            let mut all = [&places.tried[..], &places.not_tried[..]].concat();
            all.sort_unstable();
            assert_eq!(all, (0..places.rows.len() as u32).collect::<Vec<_>>());
            let mut rows = places.rows.clone();
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len(), places.rows.len());
            assert!(places.measured.iter().all(|&row| places.rows[row as usize].1 > 0));
        }
    }
}
