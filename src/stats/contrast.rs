//! Contrast pairs: the same token, active in one text and inactive in another that differs in as
//! little as the corpus has (`docs/definitions.md` §8).

use super::examples::Peak;
use super::frames::alike;
use super::mix;
use std::collections::{BTreeMap, BTreeSet};

/// Tokens before the token that are compared.
const LEFT: usize = 8;
/// Occurrences of each side that are compared, drawn in hash order.
const ACTIVE: usize = 60;
const INACTIVE: usize = 300;

/// A token where a feature is active, and the same token where it is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Contrast {
    /// Active here.
    pub active: Peak,
    /// Inactive here: its value is 0.
    pub inactive: Peak,
}

/// Up to `k` pairs of a feature, those with the most alike first, tokens in turn. `active` are
/// strong activations by token; `occurrences` is where a token stands, active or not; `is_inactive`
/// says whether the feature is inactive in a text up to there.
pub(crate) fn contrasts<'a>(
    active: &BTreeMap<u32, Vec<Peak>>,
    occurrences: impl Fn(u32) -> &'a [(u32, u16)],
    is_inactive: impl Fn(u32, u16) -> bool,
    tokens: impl Fn(u32) -> &'a [u32],
    k: usize,
    salt: u64,
) -> Vec<Contrast> {
    let left = |context: u32, position: u16| {
        let at = usize::from(position);
        &tokens(context)[at.saturating_sub(LEFT)..at]
    };
    let mut lists = Vec::new();
    for (&token, peaks) in active {
        let drawn =
            |context: u32, position: u16| mix(salt, u64::from(context) << 16 | u64::from(position));
        let mut own = peaks.clone();
        own.sort_by_key(|peak| drawn(peak.context, peak.position));
        own.truncate(ACTIVE);
        let mut others: Vec<(u32, u16)> =
            occurrences(token).iter().copied().filter(|&(c, p)| is_inactive(c, p)).collect();
        others.sort_by_key(|&(c, p)| drawn(c, p));
        others.truncate(INACTIVE);
        let mut pairs: Vec<(usize, Contrast)> = Vec::new();
        for active in own {
            let near = |&(c, p): &(u32, u16)| {
                let same = alike(left(active.context, active.position), left(c, p));
                2 * same + usize::from(p == active.position)
            };
            // The last of equals is the largest to `max_by_key`; the first is wanted.
            let best = (0..others.len()).rev().max_by_key(|&i| near(&others[i]));
            if let Some(best) = best {
                let (context, position) = others.remove(best);
                let inactive = Peak { context, position, value: 0.0 };
                pairs.push((near(&(context, position)), Contrast { active, inactive }));
            }
        }
        pairs.sort_by_key(|(near, pair)| {
            (std::cmp::Reverse(*near), drawn(pair.active.context, pair.active.position))
        });
        lists.push(pairs);
    }
    in_turn(lists, k, left)
}

/// The best pair of each token, then the second best; no text up to the token twice.
fn in_turn<'a>(
    lists: Vec<Vec<(usize, Contrast)>>,
    k: usize,
    left: impl Fn(u32, u16) -> &'a [u32],
) -> Vec<Contrast> {
    let mut used: BTreeSet<&[u32]> = BTreeSet::new();
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut chosen = Vec::new();
    while chosen.len() < k {
        let before = chosen.len();
        for list in &mut lists {
            let fresh = list.find(|(_, pair)| {
                let [a, b] = [pair.active, pair.inactive].map(|at| left(at.context, at.position));
                a != b && !used.contains(a) && !used.contains(b) && used.insert(a) | used.insert(b)
            });
            chosen.extend(fresh.map(|(_, pair)| pair));
        }
        if chosen.len() == before {
            break;
        }
    }
    chosen.truncate(k);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inactive_text_is_the_one_that_differs_least() {
        let texts: [Vec<u32>; 4] =
            [vec![0, 1, 2, 3, 9], vec![0, 4, 5, 6, 9], vec![0, 1, 7, 3, 9], vec![0, 1, 2, 3, 9]];
        let at = |context| Peak { context, position: 4, value: 2.0 };
        let active = BTreeMap::from([(9, vec![at(0)])]);
        let places: Vec<(u32, u16)> = (0..4).map(|c| (c, 4)).collect();
        let pairs =
            contrasts(&active, |_| &places, |c, _| c == 1 || c == 2, |c| &texts[c as usize], 3, 7);
        assert_eq!(
            pairs,
            [Contrast { active: at(0), inactive: Peak { context: 2, position: 4, value: 0.0 } }]
        );
    }

    #[test]
    fn tokens_take_turns_and_texts_are_used_once() {
        let texts: Vec<Vec<u32>> = (0..20).map(|i| vec![0, i, 100 + i, 8 + i % 2]).collect();
        let at = |context: u32| Peak { context, position: 3, value: 1.0 };
        let side = |from: u32| (from..20).step_by(4).map(at).collect::<Vec<Peak>>();
        let active = BTreeMap::from([(8, side(0)), (9, side(1))]);
        let places = |token: u32| {
            (0..20u32).filter(|c| 8 + c % 2 == token).map(|c| (c, 3)).collect::<Vec<_>>()
        };
        let (eights, nines) = (places(8), places(9));
        let is_active = |c: u32| active.values().flatten().any(|peak| peak.context == c);
        let pairs = contrasts(
            &active,
            |token| if token == 8 { &eights } else { &nines },
            |c, _| !is_active(c),
            |c| &texts[c as usize],
            4,
            3,
        );
        let token = |pair: &Contrast| texts[pair.active.context as usize][3];
        assert_eq!(pairs.iter().map(token).collect::<Vec<_>>(), [8, 9, 8, 9]);
        let all: BTreeSet<u32> =
            pairs.iter().flat_map(|pair| [pair.active.context, pair.inactive.context]).collect();
        assert_eq!(all.len(), 8);
    }
}
