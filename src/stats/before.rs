//! What stands before, where a feature is active at one of its tokens and where it is not
//! (`docs/definitions.md` §8.1): tokens at a distance, and anywhere earlier in the text.

use super::mix;
use std::collections::{BTreeSet, HashMap};

/// Distances that are looked at.
const FAR: usize = 10;
/// How far back *anywhere* goes.
const ANYWHERE: usize = 60;
/// Occurrences that are looked at, drawn in hash order.
const MOST: usize = 6000;
/// Fewer occurrences than this say nothing.
const FEWEST: u64 = 5;

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Earlier {
    /// How many tokens before; none: anywhere before.
    pub distance: Option<u16>,
    /// Its id.
    pub token: u32,
}

/// With a token before, how often the feature's tokens occur, and how often it is strongly active
/// at them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Told {
    /// The token before.
    pub earlier: Earlier,
    /// Occurrences.
    pub tokens: u64,
    /// Of them, those at which it is strongly active.
    pub active: u64,
}

/// What stands before a feature's tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Before {
    /// Occurrences that were looked at: those of tokens that do not decide by themselves.
    pub tokens: u64,
    /// Of them, those at which the feature is strongly active.
    pub active: u64,
    /// With these it is more often active.
    pub more: Vec<Told>,
    /// With these less often.
    pub less: Vec<Told>,
    /// The tokens at the distance that tells most, those with the largest share of activity first,
    /// and then those at the distance that tells most where the first does not decide by itself.
    pub deciding: Vec<Vec<Told>>,
}

/// The up to `k` tokens before with which the feature is most surely more often active than without,
/// and as many with which it is less often. `occurrences` are those of its tokens, by context and
/// position, with whether it is strongly active there.
pub(crate) fn before<'a>(
    occurrences: &[(u32, u16, bool)],
    tokens: impl Fn(u32) -> &'a [u32],
    k: usize,
    salt: u64,
) -> Before {
    // A token that decides by itself says nothing of what stands before it.
    let own = |context: u32, position: u16| tokens(context)[usize::from(position)];
    let by_token = |c: u32, p: u16| Some(u64::from(own(c, p)));
    let rates = rates(occurrences.iter(), &by_token);
    let undecided = |of: &&(u32, u16, bool)| {
        let (n, active) = rates[&u64::from(own(of.0, of.1))];
        (UNDECIDED..=1.0 - UNDECIDED).contains(&(active / n))
    };
    let mut drawn: Vec<&(u32, u16, bool)> = occurrences.iter().filter(undecided).collect();
    if drawn.len() > MOST {
        drawn.sort_by_key(|(c, p, _)| mix(salt, u64::from(*c) << 16 | u64::from(*p)));
        drawn.truncate(MOST);
    }
    let counts = counted(&drawn, &tokens, &by_token, true);
    let (mut deciding, mut distances) = (Vec::new(), Vec::new());
    let mut next = most_telling(&counts);
    while let Some(list) = next {
        distances.push(list[0].earlier.distance.unwrap_or_default());
        deciding.push(list);
        if deciding.len() >= LEVELS {
            break;
        }
        let with = |c: u32, p: u16| {
            let key =
                |key: u64, distance: &u16| Some(mix(key, own(c, p.checked_sub(*distance)?).into()));
            distances.iter().try_fold(by_token(c, p)?, key)
        };
        let mut counts = counted(&drawn, &tokens, &with, false);
        counts.retain(|earlier, _| earlier.distance.is_some_and(|n| !distances.contains(&n)));
        next = most_telling(&counts);
    }
    let mut told: Vec<(f64, Told)> = counts
        .into_iter()
        .filter(|(_, count)| count.tokens >= FEWEST)
        .map(|(earlier, count)| (count.surprise(), count.told(earlier)))
        .collect();
    let [more, less] = [true, false].map(|more| {
        told.sort_by(|(a, x), (b, y)| {
            let by = if more { b.total_cmp(a) } else { a.total_cmp(b) };
            by.then(x.earlier.cmp(&y.earlier))
        });
        let sure = |(z, _): &&(f64, Told)| if more { *z > SURE } else { *z < -SURE };
        each_token_once(told.iter().filter(sure).map(|(_, told)| *told), k)
    });
    let active = drawn.iter().filter(|(.., active)| *active).count() as u64;
    Before { tokens: drawn.len() as u64, active, more, less, deciding }
}

/// Distances that are told, each where those before it do not decide by themselves.
const LEVELS: usize = 3;

/// What an occurrence is compared with: those of the same key.
type Key = u64;

/// Occurrences of each key, and those at which the feature is strongly active.
fn rates<'o>(
    occurrences: impl Iterator<Item = &'o (u32, u16, bool)>,
    key: &impl Fn(u32, u16) -> Option<Key>,
) -> HashMap<Key, (f64, f64)> {
    let mut rates: HashMap<Key, (f64, f64)> = HashMap::new();
    for &(context, position, active) in occurrences {
        if let Some(key) = key(context, position) {
            let rate = rates.entry(key).or_default();
            *rate = (rate.0 + 1.0, rate.1 + f64::from(u8::from(active)));
        }
    }
    rates
}

/// Counts of every token before at its distance, and `anywhere` before if that is wanted, against
/// the share of activity of each occurrence's key.
fn counted<'a>(
    drawn: &[&(u32, u16, bool)],
    tokens: &impl Fn(u32) -> &'a [u32],
    key: &impl Fn(u32, u16) -> Option<Key>,
    anywhere: bool,
) -> HashMap<Earlier, Count> {
    let rates = rates(drawn.iter().copied(), key);
    let mut counts: HashMap<Earlier, Count> = HashMap::new();
    for &&(context, position, active) in drawn {
        let own = &tokens(context)[..usize::from(position)];
        let Some((n, sum)) = key(context, position).and_then(|key| rates.get(&key)) else {
            continue;
        };
        let rate = sum / n;
        if *n < FEWEST as f64 || !(UNDECIDED..=1.0 - UNDECIDED).contains(&rate) {
            continue;
        }
        let at = own
            .iter()
            .rev()
            .take(FAR)
            .zip(1..)
            .map(|(&token, n)| Earlier { distance: Some(n), token });
        let mut places: Vec<Earlier> = at.collect();
        if anywhere {
            let seen: BTreeSet<u32> = own.iter().rev().take(ANYWHERE).copied().collect();
            places.extend(seen.into_iter().map(|token| Earlier { distance: None, token }));
        }
        for place in places {
            counts.entry(place).or_default().add(active, rate);
        }
    }
    counts
}

/// The tokens at the distance at which they tell most: by the mean of squared surprises, which is 1
/// by chance, each token counted by its occurrences.
fn most_telling(counts: &HashMap<Earlier, Count>) -> Option<Vec<Told>> {
    let mut best: (f64, Vec<Told>) = (TELLING, Vec::new());
    for distance in 1..=FAR as u16 {
        let own = counts
            .iter()
            .filter(|(earlier, count)| earlier.distance == Some(distance) && count.tokens >= FEW);
        let mut own: Vec<(Earlier, Count)> =
            own.map(|(earlier, count)| (*earlier, *count)).collect();
        // Sums depend on their order in the last digit, and a map has none.
        own.sort_unstable_by_key(|(earlier, _)| *earlier);
        let n: f64 = own.iter().map(|(_, count)| count.tokens as f64).sum();
        let squares = own.iter().map(|(_, count)| {
            count.tokens as f64 * count.surprise().powi(2).min(count.tokens as f64)
        });
        let mean = squares.sum::<f64>() / n.max(1.0);
        if own.len() >= SEVERAL && mean > best.0 * (1.0 + 1e-9) {
            best = (mean, own.into_iter().map(|(earlier, count)| count.told(earlier)).collect());
        }
    }
    let share = |told: &Told| told.active as f64 / told.tokens as f64;
    best.1.sort_by(|a, b| share(b).total_cmp(&share(a)).then(a.earlier.cmp(&b.earlier)));
    (!best.1.is_empty()).then_some(best.1)
}

/// A distance tells something from this mean of squared surprises on, of at least so many tokens
/// with so many occurrences each.
const TELLING: f64 = 2.0;
const SEVERAL: usize = 4;
const FEW: u64 = 3;

/// Standard deviations from which on a difference is told.
const SURE: f64 = 4.0;
/// A token that is active at a smaller share of its occurrences, or inactive at one, decides by
/// itself.
const UNDECIDED: f64 = 0.03;

/// Occurrences with a token before, against what their own tokens let expect.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    tokens: u64,
    active: u64,
    expected: f64,
    variance: f64,
}

impl Count {
    fn add(&mut self, active: bool, rate: f64) {
        self.tokens += 1;
        self.active += u64::from(active);
        self.expected += rate;
        self.variance += rate * (1.0 - rate);
    }

    fn told(&self, earlier: Earlier) -> Told {
        Told { earlier, tokens: self.tokens, active: self.active }
    }

    /// By how many standard deviations it is more often active than expected.
    fn surprise(&self) -> f64 {
        (self.active as f64 - self.expected) / self.variance.sqrt().max(1e-9)
    }
}

/// The first of each token: at its best distance, or anywhere.
fn each_token_once(told: impl Iterator<Item = Told>, k: usize) -> Vec<Told> {
    let mut seen = BTreeSet::new();
    told.filter(|one| seen.insert(one.earlier.token)).take(k).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_that_decides_is_told_at_its_distance() {
        // Active where 7 stands three before; 8 is as often there in the others.
        let texts: Vec<Vec<u32>> = (0..80u32)
            .map(|i| vec![0, 20 + i % 5, if i % 4 == 0 { 7 } else { 8 }, 30 + i % 3, 40, 9])
            .collect();
        let occurrences: Vec<(u32, u16, bool)> = (0..80).map(|i| (i, 5, i % 4 == 0)).collect();
        let Before { more, less, .. } = before(&occurrences, |c| &texts[c as usize], 3, 1);
        let told = |token, tokens, active| Told {
            earlier: Earlier { distance: None, token },
            tokens,
            active,
        };
        assert_eq!(more, [told(7, 20, 20)]);
        assert_eq!(less, [told(8, 60, 0)]);
        // At another distance in some texts it says nothing: only there it decides.
        let moved: Vec<Vec<u32>> = (0..160u32)
            .map(|i| if i < 80 { texts[i as usize].clone() } else { vec![0, 7, 8, 31, 40, 9] })
            .collect();
        let occurrences: Vec<(u32, u16, bool)> =
            (0..160).map(|i| (i, 5, i < 80 && i % 4 == 0)).collect();
        let Before { more, .. } = before(&occurrences, |c| &moved[c as usize], 3, 1);
        assert_eq!(more[0].earlier, Earlier { distance: Some(3), token: 7 });
    }

    #[test]
    fn the_distance_that_decides_is_told_with_all_its_tokens() {
        // Active where the token two before is above 25, whatever stands right before.
        let texts: Vec<Vec<u32>> = (0..200u32)
            .map(|i| vec![0, 20 + i % 10, 40 + mix(3, i.into()) as u32 % 7, 9])
            .collect();
        let occurrences: Vec<(u32, u16, bool)> = (0..200).map(|i| (i, 3, i % 10 > 5)).collect();
        let found = before(&occurrences, |c| &texts[c as usize], 3, 1).deciding;
        assert_eq!(found.len(), 1, "it decides by itself");
        let found = &found[0];
        assert!(found.iter().all(|told| told.earlier.distance == Some(2)));
        let shares: Vec<(u32, u64, u64)> =
            found.iter().map(|told| (told.earlier.token, told.tokens, told.active)).collect();
        assert_eq!(shares.len(), 10);
        assert_eq!(shares[..2], [(26, 20, 20), (27, 20, 20)]);
        assert_eq!(shares[9], (25, 20, 0));
    }

    #[test]
    fn the_distance_that_decides_where_another_does_not_is_told_too() {
        // Active where 7 stands right before and the token two before is above 25.
        let texts: Vec<Vec<u32>> = (0..600u32)
            .map(|i| vec![0, 20 + i % 10, [7, 8, 9, 10, 11][(i / 10 % 5) as usize], 5])
            .collect();
        let occurrences: Vec<(u32, u16, bool)> =
            (0..600).map(|i| (i, 3, i % 10 > 5 && i / 10 % 5 == 0)).collect();
        let found = before(&occurrences, |c| &texts[c as usize], 3, 1).deciding;
        let distances: Vec<Option<u16>> =
            found.iter().map(|list| list[0].earlier.distance).collect();
        assert_eq!(distances, [Some(1), Some(2)]);
        assert_eq!((found[0][0].earlier.token, found[0][0].active), (7, 48));
        assert_eq!((found[1][0].tokens, found[1][0].active), (12, 12), "behind 7 alone");
    }

    #[test]
    fn chance_is_not_told() {
        let texts: Vec<Vec<u32>> =
            (0..200u32).map(|i| vec![0, mix(1, i.into()) as u32 % 6, 9]).collect();
        let occurrences: Vec<(u32, u16, bool)> =
            (0..200).map(|i| (i, 2, mix(2, i.into()).is_multiple_of(3))).collect();
        let Before { more, less, .. } = before(&occurrences, |c| &texts[c as usize], 3, 1);
        assert!(more.is_empty() && less.is_empty(), "{more:?} {less:?}");
    }

    #[test]
    fn a_token_that_decides_by_itself_is_left_out() {
        // 9 is always active and often behind 7, 8 never; neither says anything of 7.
        let texts: Vec<Vec<u32>> =
            (0..60u32).map(|i| if i % 2 == 0 { vec![0, 7, 9] } else { vec![0, 6, 8] }).collect();
        let occurrences: Vec<(u32, u16, bool)> = (0..60).map(|i| (i, 2, i % 2 == 0)).collect();
        let Before { more, less, .. } = before(&occurrences, |c| &texts[c as usize], 3, 1);
        assert!(more.is_empty() && less.is_empty(), "{more:?} {less:?}");
    }
}
