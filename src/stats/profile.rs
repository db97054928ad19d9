//! Where a feature is active, as counts of how often it could be (`docs/definitions.md` §8): at its
//! tokens, behind tokens, by position in the text and in the sentence.

use super::feature::TokenActivation;
use std::collections::{BTreeMap, HashMap};

/// First positions of the bins of a position; the last bin has no end.
pub(crate) const BINS: [u32; 9] = [1, 2, 3, 5, 9, 17, 33, 65, 129];

/// The bin of a position, counted from 1.
fn bin(position: u32) -> u32 {
    BINS.iter().rposition(|first| *first <= position).unwrap_or(0) as u32
}

/// What a token is, as far as a profile goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// Its id.
    Token(u32),
    /// The id of the token before it.
    Previous(u32),
    /// The id of the token after it.
    Next(u32),
    /// Bin of its position in the text.
    InText(u32),
    /// Bin of its position in the sentence.
    InSentence(u32),
}

/// A place with how often it occurs, how often the feature is active there, and the mean activation
/// where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// The place.
    pub place: Place,
    /// Tokens there.
    pub tokens: u64,
    /// Of them, those at which the feature is active.
    pub active: u64,
    /// Mean activation at these.
    pub mean: f64,
}

/// A corpus in which places are counted.
pub(crate) struct Places<'a> {
    /// Tokens of a context, BOS first.
    tokens: Box<dyn Fn(u32) -> &'a [u32] + Sync + 'a>,
    /// Offset of a context's first token in its document.
    start: Box<dyn Fn(u32) -> u32 + Sync + 'a>,
    /// Whether a token ends a sentence.
    ends: Box<dyn Fn(u32) -> bool + Sync + 'a>,
    /// Tokens at each place.
    counts: HashMap<Place, u64>,
}

impl<'a> Places<'a> {
    /// Counts the places of some tokens, which are given by context and position.
    pub(crate) fn count(
        tokens: impl Fn(u32) -> &'a [u32] + Sync + 'a,
        start: impl Fn(u32) -> u32 + Sync + 'a,
        ends: impl Fn(u32) -> bool + Sync + 'a,
        all: impl Iterator<Item = (u32, u16)>,
    ) -> Places<'a> {
        let (tokens, start, ends) = (Box::new(tokens), Box::new(start), Box::new(ends));
        let mut places = Places { tokens, start, ends, counts: HashMap::new() };
        for (context, position) in all {
            for place in places.of(context, position) {
                *places.counts.entry(place).or_default() += 1;
            }
        }
        places
    }

    /// The places of a token; the last one of a context has none after it.
    fn of(&self, context: u32, position: u16) -> impl Iterator<Item = Place> + use<'a> {
        let (tokens, at) = ((self.tokens)(context), usize::from(position));
        let before = tokens[..at].iter().rposition(|id| (self.ends)(*id));
        let in_text = (self.start)(context) + u32::from(position);
        // Behind no end of a sentence the text or the context begins.
        let in_sentence = at - before.unwrap_or(0);
        let always = [
            Place::Token(tokens[at]),
            Place::Previous(tokens[at.saturating_sub(1)]),
            Place::InText(bin(in_text)),
            Place::InSentence(bin(in_sentence as u32)),
        ];
        always.into_iter().chain(tokens.get(at + 1).map(|id| Place::Next(*id)))
    }

    /// The places of a feature's activations: the `most` of tokens, of those before and of those
    /// after them, with the largest sums of activation, and every bin.
    pub(crate) fn profile(
        &self,
        activations: impl Iterator<Item = TokenActivation>,
        most: usize,
    ) -> Vec<Share> {
        let mut sums: BTreeMap<Place, (u64, f64)> = BTreeMap::new();
        for at in activations {
            for place in self.of(at.context, at.position) {
                let own = sums.entry(place).or_default();
                *own = (own.0 + 1, own.1 + f64::from(at.activation));
            }
        }
        let share = |(place, (active, sum)): (Place, (u64, f64))| Share {
            place,
            tokens: self.counts.get(&place).copied().unwrap_or(active),
            active,
            mean: sum / active as f64,
        };
        let mut shares: Vec<Share> = sums.into_iter().map(share).collect();
        let sum = |share: &Share| share.mean * share.active as f64;
        let kind = |share: &Share| match share.place {
            Place::Token(_) => 0,
            Place::Previous(_) => 1,
            Place::Next(_) => 2,
            Place::InText(_) => 3,
            Place::InSentence(_) => 4,
        };
        // Bins stay in their order.
        shares.sort_by(|a, b| {
            let listed = kind(a) < 3 && kind(a) == kind(b);
            let by_sum = if listed { sum(b).total_cmp(&sum(a)) } else { std::cmp::Ordering::Equal };
            kind(a).cmp(&kind(b)).then(by_sum).then(a.place.cmp(&b.place))
        });
        let mut seen = [0; 5];
        shares.retain(|share| {
            seen[kind(share)] += 1;
            kind(share) > 2 || seen[kind(share)] <= most
        });
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_shares_are_of_them() {
        // Token 9 ends a sentence; BOS is 0.
        let texts: [Vec<u32>; 2] = [vec![0, 5, 6, 9, 5, 7], vec![0, 5, 5]];
        let starts = [0, 40];
        let all = (0..2u32).flat_map(|c| (1..texts[c as usize].len() as u16).map(move |p| (c, p)));
        let places = Places::count(
            |c| &texts[c as usize],
            |c| starts[c as usize],
            |id| id == 9,
            all.collect::<Vec<_>>().into_iter(),
        );
        let at = |context, position, activation| TokenActivation { context, position, activation };
        let active = [at(0, 4, 2.0), at(1, 1, 1.0), at(1, 2, 3.0)];
        let profile = places.profile(active.into_iter(), 2);
        let share = |place, tokens, active, mean| Share { place, tokens, active, mean };
        assert_eq!(
            profile,
            [
                share(Place::Token(5), 4, 3, 2.0),
                share(Place::Previous(5), 3, 1, 3.0),
                share(Place::Previous(9), 1, 1, 2.0),
                share(Place::Next(7), 1, 1, 2.0),
                share(Place::Next(5), 2, 1, 1.0),
                share(Place::InText(2), 2, 1, 2.0),
                share(Place::InText(6), 2, 2, 2.0),
                share(Place::InSentence(0), 3, 2, 1.5),
                share(Place::InSentence(1), 3, 1, 3.0),
            ]
        );
    }
}
