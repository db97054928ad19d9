//! The single-token rule: "it is active at these tokens" (`docs/definitions.md` §11). Learned on
//! one half of the documents and tried on the other, it is what any explanation has to beat.

use super::interval::{Estimate, balanced_accuracy};
use std::collections::{BTreeMap, BTreeSet};

/// The token ids at which a feature is active at least half of the time.
pub type Rule = BTreeSet<u32>;

/// `active`: how often the feature was active at each token id; `seen`: how often each id was seen
/// at all.
pub fn learn(active: &BTreeMap<u32, u64>, seen: &BTreeMap<u32, u64>) -> Rule {
    let often = |(id, times): (&u32, &u64)| {
        (2 * times >= seen.get(id).copied().unwrap_or(0)).then_some(*id)
    };
    active.iter().filter_map(often).collect()
}

/// A text to try a rule on: its tokens that count, and whether the feature is active in it.
pub struct LabelledText {
    /// Ids of its tokens that count.
    pub tokens: Vec<u32>,
    /// Whether the feature is active in it.
    pub active: bool,
}

/// How a rule did: right on `hits` of `positives` active texts and on `rejects` of `negatives`
/// inactive ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub(crate) hits: u64,
    pub(crate) positives: u64,
    pub(crate) rejects: u64,
    pub(crate) negatives: u64,
}

impl Tally {
    /// Of texts by the truth and by what was said.
    pub fn of(said: impl Iterator<Item = (bool, bool)>) -> Tally {
        let mut tally = Tally::default();
        for (truth, said) in said {
            let (right, all) = match truth {
                true => (&mut tally.hits, &mut tally.positives),
                false => (&mut tally.rejects, &mut tally.negatives),
            };
            *all += 1;
            *right += u64::from(said == truth);
        }
        tally
    }

    /// None where there are no texts of one kind.
    pub fn balanced_accuracy(&self) -> Option<Estimate> {
        balanced_accuracy(self.hits, self.positives, self.rejects, self.negatives)
    }
}

/// Tries a rule: it says that a feature is active in a text with any of its tokens.
pub fn score(rule: &Rule, trials: &[LabelledText]) -> Tally {
    Tally::of(
        trials.iter().map(|trial| (trial.active, trial.tokens.iter().any(|id| rule.contains(id)))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_holds_what_is_active_half_of_the_time() {
        let seen = BTreeMap::from([(1, 4), (2, 4), (3, 1)]);
        let rule = learn(&BTreeMap::from([(1, 2), (2, 1), (3, 1)]), &seen);
        assert_eq!(rule, Rule::from([1, 3]));
        let trial = |tokens: &[u32], active| LabelledText { tokens: tokens.into(), active };
        let trials =
            [trial(&[7, 1], true), trial(&[2], true), trial(&[2, 9], false), trial(&[3], false)];
        assert_eq!(
            score(&rule, &trials),
            Tally { hits: 1, positives: 2, rejects: 1, negatives: 2 }
        );
    }
}
