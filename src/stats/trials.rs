//! Texts that an explanation is tried on (`docs/definitions.md` §11): which windows, what is marked
//! in them, and in which order.
//!
//! At most one a document, no text twice and none that the explanation may have seen. Everything is
//! drawn in hash order, and which marks are wrong by bands.

use super::feature::TokenActivation;
use super::mix;
use super::strata::stratified;
use crate::ids::Band;
use std::collections::{BTreeSet, HashSet};

/// A window of a context that may become a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextWindow<'a> {
    /// Why it is one: `top`, `q0` … `q9`; of inactive ones `token`, `similar` or `inactive`.
    pub band: Band,
    /// The context's number.
    pub context: u32,
    /// The number of the context's document.
    pub document: u32,
    /// Position of its first token in the context.
    pub start: u16,
    /// Token ids of the window.
    pub tokens: &'a [u32],
    /// The feature's largest activation in it.
    pub value: f32,
}

/// A window where the feature is active, and what may be marked in it, by place in the window.
#[derive(Clone, Debug, PartialEq)]
pub struct Active<'a> {
    /// The window.
    pub window: TextWindow<'a>,
    /// Where marks belong.
    pub right: Vec<u16>,
    /// Where wrong ones may be.
    pub inactive: Vec<u16>,
}

/// A text, and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial<'a> {
    /// The window that is its text.
    pub window: TextWindow<'a>,
    /// Places in the window.
    pub marked: Vec<u16>,
    /// Detection: the feature is active in it. Fuzzing: the marks are right. Intruder: it is the one.
    pub truth: bool,
}

/// Documents and texts that are not to be used, or not again.
#[derive(Clone, Debug, Default)]
pub struct Taken<'a> {
    documents: HashSet<u32>,
    texts: HashSet<&'a [u32]>,
}

impl<'a> Taken<'a> {
    /// With these texts taken already.
    pub fn with(texts: impl Iterator<Item = &'a [u32]>) -> Taken<'a> {
        Taken { documents: HashSet::new(), texts: texts.collect() }
    }

    /// Takes a window unless its document or its text was taken before.
    pub fn take(&mut self, window: &TextWindow<'a>) -> bool {
        let free =
            !self.documents.contains(&window.document) && !self.texts.contains(window.tokens);
        if free {
            self.documents.insert(window.document);
            self.texts.insert(window.tokens);
        }
        free
    }
}

/// Up to `n` of several lists, one of each in turn; whatever `accept` refuses is passed over. The
/// lists come in an order of the seed's, so that none is favoured where the last turn is not for
/// all of them.
pub fn in_turn<T: Clone>(
    lists: &[Vec<T>],
    n: usize,
    seed: u64,
    mut accept: impl FnMut(&T) -> bool,
) -> Vec<T> {
    let mut order: Vec<usize> = (0..lists.len()).collect();
    order.sort_by_key(|&list| (mix(seed, list as u64), list));
    let mut lists: Vec<_> = order.into_iter().map(|list| lists[list].iter()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < n {
        let before = chosen.len();
        for list in &mut lists {
            if chosen.len() < n {
                chosen.extend(list.find(|one| accept(one)).cloned());
            }
        }
        if chosen.len() == before {
            break;
        }
    }
    chosen
}

/// Of so many texts with activations as there are, one is added with less than the threshold.
const WEAK: usize = 4;

/// Texts for the question whether the feature is active in them: up to `n` of the active windows,
/// as many inactive ones, and a quarter of that of weak ones, whose activations are below the
/// threshold. Each kind is a list, best first, and all kinds come in turn.
pub fn detection<'a>(
    active: &[Vec<TextWindow<'a>>],
    weak: &[Vec<TextWindow<'a>>],
    inactive: &[Vec<TextWindow<'a>>],
    n: usize,
    mut taken: Taken<'a>,
    salt: u64,
) -> Vec<Trial<'a>> {
    let yes = in_turn(active, n, salt, |window| taken.take(window));
    let weak = in_turn(weak, yes.len() / WEAK, salt, |window| taken.take(window));
    let no = in_turn(inactive, yes.len(), salt, |window| taken.take(window));
    let trial =
        |truth: bool| move |window: TextWindow<'a>| Trial { window, marked: Vec::new(), truth };
    shuffled(
        yes.into_iter()
            .map(trial(true))
            .chain(weak.into_iter().chain(no).map(trial(false)))
            .collect(),
        salt,
    )
}

/// Texts for the question whether the right tokens are marked: up to `n` windows with the right
/// marks and `n` others with as many wrong ones, all of them active. A window without room for
/// wrong marks is left out: among the right ones, it would tell them by its many marks. Wrong are
/// half of each band, drawn: bands come in turn, and every second text could be a band.
pub fn fuzzing<'a>(
    active: &[Vec<Active<'a>>],
    n: usize,
    mut taken: Taken<'a>,
    salt: u64,
) -> Vec<Trial<'a>> {
    let room = |one: &Active| !one.right.is_empty() && one.inactive.len() >= one.right.len();
    let chosen = in_turn(active, 2 * n, salt, |one| room(one) && taken.take(&one.window));
    let bands: Vec<Band> = chosen.iter().map(|one| one.window.band).collect();
    let wrong = stratified(&bands, chosen.len() / 2, salt);
    let trial = |(i, one): (usize, Active<'a>)| {
        let truth = wrong.binary_search(&i).is_err();
        let marked = if truth { one.right } else { drawn(&one, salt) };
        Trial { window: one.window, marked, truth }
    };
    shuffled(chosen.into_iter().enumerate().map(trial).collect(), salt)
}

/// As many inactive places as there are right ones.
fn drawn(one: &Active, salt: u64) -> Vec<u16> {
    places(&one.inactive, &[], one.right.len(), mix(salt, u64::from(one.window.context)))
}

/// So many places: the first ones are set, the others drawn.
fn places(from: &[u16], first: &[u16], n: usize, order: u64) -> Vec<u16> {
    let mut others: Vec<u16> = from.iter().copied().filter(|i| !first.contains(i)).collect();
    others.sort_by_key(|&place| (mix(order, u64::from(place)), place));
    let mut places: Vec<u16> = first.iter().copied().chain(others).take(n).collect();
    places.sort_unstable();
    places
}

/// Texts of a question for an intruder.
pub const SET: usize = 5;

/// Texts for the question in which one of `SET` marked texts the feature is inactive: up to `n`
/// questions, whose texts follow each other. `right` of an inactive window is what is marked first,
/// so that the same word may be marked in all texts; as many others are drawn as one of the active
/// texts has.
pub fn intruders<'a>(
    active: &[Vec<Active<'a>>],
    inactive: &[Vec<Active<'a>>],
    n: usize,
    mut taken: Taken<'a>,
    salt: u64,
) -> Vec<Trial<'a>> {
    let usable = |one: &Active| !one.right.is_empty();
    let shown = SET - 1;
    let yes = in_turn(active, n * shown, salt, |one| usable(one) && taken.take(&one.window));
    let room = |one: &Active| one.inactive.len() >= shown;
    let no = in_turn(inactive, yes.len() / shown, salt, |one| room(one) && taken.take(&one.window));
    let mut trials = Vec::new();
    for (own, intruder) in yes.chunks_exact(shown).zip(no) {
        let order = mix(salt, u64::from(intruder.window.context));
        let marks = own[mix(order, 1) as usize % shown].right.len();
        let marked = places(&intruder.inactive, &intruder.right, marks, order);
        let mut set: Vec<Trial> = own
            .iter()
            .map(|one| Trial { window: one.window, marked: one.right.clone(), truth: false })
            .collect();
        set.insert(
            mix(order, 2) as usize % SET,
            Trial { window: intruder.window, marked, truth: true },
        );
        trials.extend(set);
    }
    trials
}

/// In an order that tells nothing: inactive examples were themselves chosen in the order of a hash,
/// so this is another one.
fn shuffled(mut trials: Vec<Trial>, salt: u64) -> Vec<Trial> {
    let order = mix(salt, 0x7E87);
    let key = |trial: &Trial| {
        let place = u64::from(trial.window.context) << 16 | u64::from(trial.window.start);
        (mix(order, place), place)
    };
    trials.sort_by_key(key);
    trials
}

/// Where marks belong in a window, and where wrong ones may be: at activations above a tenth of the
/// window's largest, and at those places of `may` where there is none at all.
pub fn marks(activations: &[f32], may: impl Fn(usize) -> bool) -> (Vec<u16>, Vec<u16>) {
    let largest = activations.iter().copied().fold(0.0, f32::max);
    let places = |wanted: &dyn Fn(usize) -> bool| {
        (0..activations.len()).filter(|&i| wanted(i)).map(|i| i as u16).collect::<Vec<u16>>()
    };
    (places(&|i| activations[i] > largest / 10.0), places(&|i| activations[i] == 0.0 && may(i)))
}

/// Whether a feature is inactive at all tokens of a window; its activations are by context and
/// position.
pub(crate) fn is_inactive(
    activations: &[TokenActivation],
    context: u32,
    start: u16,
    tokens: usize,
) -> bool {
    let first = activations.partition_point(|f| (f.context, f.position) < (context, start));
    activations.get(first).is_none_or(|f| {
        f.context != context || usize::from(f.position) >= usize::from(start) + tokens
    })
}

/// Another one, to stand for chance; none when there is no other. Each has a number of its own, and
/// whoever else there is changes little: what was paid for is asked again only where a closer one
/// has come.
pub(crate) fn control(own: u64, all: impl Iterator<Item = (usize, u64)>) -> Option<usize> {
    all.filter(|(_, other)| *other != own)
        .min_by_key(|(i, other)| (mix(own, *other), *i))
        .map(|(i, _)| i)
}

/// What is said of a text by a rule that looks at single tokens: of marked tokens, that most are of
/// the rule; where none are marked, that there is one.
pub(crate) fn by_rule(rule: &BTreeSet<u32>, tokens: &[u32], marked: &[u16]) -> bool {
    match marked {
        [] => tokens.iter().any(|id| rule.contains(id)),
        _ => {
            2 * marked.iter().filter(|&&i| rule.contains(&tokens[usize::from(i)])).count()
                > marked.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 90 documents with a window each, a band for each three of ten; documents 80 to 89 have texts
    /// of others.
    fn texts() -> Vec<Vec<u32>> {
        (0..90).map(|d| (0..33).map(|p| mix(d % 80, p) as u32 % 50).collect()).collect()
    }

    fn windows<'a>(
        texts: &'a [Vec<u32>],
        band: Band,
        documents: std::ops::Range<u32>,
    ) -> Vec<TextWindow<'a>> {
        let window = |d: u32| TextWindow {
            band,
            context: 2 * d,
            document: d,
            start: 3,
            tokens: &texts[d as usize],
            value: 1.0,
        };
        documents.map(window).collect()
    }

    fn detected(texts: &[Vec<u32>], n: usize, salt: u64) -> Vec<Trial<'_>> {
        let active = [
            windows(texts, Band::Top, 0..6),
            windows(texts, Band::Tenth(9), 4..9),
            windows(texts, Band::Tenth(0), 80..84),
        ];
        let inactive = [Band::Token, Band::Similar, Band::Inactive];
        let inactive = [(30..32), (40..60), (60..80)]
            .into_iter()
            .zip(inactive)
            .map(|(d, band)| windows(texts, band, d));
        detection(
            &active,
            &[],
            &inactive.collect::<Vec<_>>(),
            n,
            Taken::with([&*texts[0]].into_iter()),
            salt,
        )
    }

    #[test]
    fn each_kind_comes_in_turn_and_what_is_missing_is_made_up_for() {
        let texts = texts();
        for salt in 0..20 {
            let trials = detected(&texts, 8, salt);
            let count = |band: Band| trials.iter().filter(|t| t.window.band == band).count();
            // `q0` has the texts 1 to 3 again, which `top` may have given, and `top` has the
            // documents 4 and 5 of `q9`.
            let counts = [Band::Top, Band::Tenth(9), Band::Tenth(0)].map(count);
            assert!(
                counts.iter().sum::<usize>() == 8 && counts[1] >= 4 && !counts.contains(&0),
                "{counts:?}"
            );
            assert_eq!([Band::Token, Band::Similar, Band::Inactive].map(count), [2, 3, 3]);
            assert!(
                trials.iter().all(|t| t.truth
                    == [Band::Top, Band::Tenth(9), Band::Tenth(0)].contains(&t.window.band))
            );
        }
        let many = detected(&texts, 100, 1);
        // There are the texts 1 to 8.
        assert_eq!(many.iter().filter(|t| t.truth).count(), 8);
        assert_eq!(many.len(), 16);
    }

    #[test]
    fn nothing_comes_twice_and_nothing_that_was_seen() {
        let texts = texts();
        for salt in 0..20 {
            let trials = detected(&texts, 9, salt);
            let documents: HashSet<u32> = trials.iter().map(|t| t.window.document).collect();
            let words: HashSet<&[u32]> = trials.iter().map(|t| t.window.tokens).collect();
            assert_eq!((documents.len(), words.len()), (trials.len(), trials.len()));
            assert!(!words.contains(&*texts[0]));
        }
    }

    #[test]
    fn the_order_tells_nothing_and_is_the_same_each_time() {
        let texts = texts();
        assert_eq!(detected(&texts, 8, 3), detected(&texts, 8, 3));
        let first = |salt| detected(&texts, 8, salt)[..8].iter().filter(|t| t.truth).count();
        let firsts: Vec<usize> = (0..40).map(first).collect();
        let mean = firsts.iter().sum::<usize>() as f64 / 40.0;
        assert!((mean - 4.0).abs() < 0.6, "{firsts:?}");
    }

    #[test]
    fn a_quarter_as_many_weak_texts_come_besides() {
        let texts = texts();
        let weak = [windows(&texts, Band::Tenth(1), 10..30)];
        let active = [windows(&texts, Band::Top, 0..8)];
        let inactive = [windows(&texts, Band::Inactive, 40..60)];
        let none = Taken::with([].into_iter());
        let trials = detection(&active, &weak, &inactive, 8, none, 5);
        let count = |band: Band| trials.iter().filter(|t| t.window.band == band).count();
        assert_eq!([Band::Top, Band::Tenth(1), Band::Inactive].map(count), [8, 2, 8]);
        assert!(trials.iter().all(|t| t.truth == (t.window.band == Band::Top)));
    }

    fn active<'a>(
        texts: &'a [Vec<u32>],
        documents: std::ops::Range<u32>,
        right: u16,
        inactive: u16,
    ) -> Vec<Active<'a>> {
        let one = |window| Active {
            window,
            right: (0..right).collect(),
            inactive: (10..10 + inactive).collect(),
        };
        windows(texts, Band::Top, documents).into_iter().map(one).collect()
    }

    #[test]
    fn half_of_the_marks_are_right_and_as_many_are_wrong() {
        let texts = texts();
        let lists = [
            active(&texts, 0..20, 2, 9),
            active(&texts, 20..40, 3, 2),
            active(&texts, 40..60, 0, 9),
        ];
        for salt in 0..10 {
            let trials = fuzzing(&lists, 6, Taken::default(), salt);
            assert_eq!(trials.iter().filter(|t| t.truth).count(), 6);
            assert_eq!(trials.len(), 12);
            for trial in &trials {
                assert!(
                    trial.window.document < 20,
                    "no room for wrong marks, or none for right ones"
                );
                assert_eq!(trial.marked.len(), 2);
                assert!(
                    trial.marked.is_sorted()
                        && trial.marked.iter().all(|&i| (i < 10) == trial.truth)
                );
            }
        }
        let few = fuzzing(&lists[..1], 100, Taken::default(), 1);
        assert_eq!(few.iter().filter(|t| t.truth).count(), 10);
    }

    #[test]
    fn one_of_five_is_an_intruder_wherever_it_stands() {
        let texts = texts();
        let own = [active(&texts, 0..30, 2, 9)];
        let mut others = active(&texts, 30..60, 0, 9);
        others.iter_mut().step_by(2).for_each(|one| one.right = vec![12]);
        others.iter_mut().for_each(|one| one.window.band = Band::Inactive);
        let mut at = [0; SET];
        for salt in 0..40 {
            let trials = intruders(&own, &[others.clone()], 6, Taken::default(), salt);
            assert_eq!(trials.len(), 6 * SET);
            for set in trials.chunks(SET) {
                let is: Vec<usize> = (0..SET).filter(|&i| set[i].truth).collect();
                let [place] = is[..] else { panic!("{set:?}") };
                at[place] += 1;
                let intruder = &set[place];
                assert_eq!(intruder.window.band, Band::Inactive);
                assert_eq!(intruder.marked.len(), 2);
                let set_first = intruder.window.document % 2 == 0;
                assert!(!set_first || intruder.marked.contains(&12), "{intruder:?}");
            }
        }
        assert!(at.iter().all(|n| (20..80).contains(n)), "{at:?}");
        let few = intruders(&[active(&texts, 0..7, 2, 9)], &[others], 6, Taken::default(), 1);
        assert_eq!(few.len(), SET, "four active texts a question");
    }

    #[test]
    fn marks_are_right_in_half_of_each_band() {
        let texts = texts();
        let band = |(i, band): (u32, Band)| {
            let mut own = active(&texts, 8 * i..8 * i + 8, 2, 9);
            own.iter_mut().for_each(|one| one.window.band = band);
            own
        };
        // An even number of bands, of which each is every second or every fourth text.
        for bands in [
            &[Band::Top, Band::Tenth(9)][..],
            &[Band::Top, Band::Tenth(9), Band::Tenth(8), Band::Tenth(7)],
        ] {
            let lists: Vec<_> = (0..).zip(bands.iter().copied()).map(band).collect();
            for salt in 0..20 {
                let trials = fuzzing(&lists, 2 * bands.len(), Taken::default(), salt);
                for band in bands {
                    let own: Vec<bool> =
                        trials.iter().filter(|t| t.window.band == *band).map(|t| t.truth).collect();
                    let right = own.iter().filter(|truth| **truth).count();
                    assert_eq!((right, own.len()), (2, 4), "{band}");
                }
            }
        }
    }

    #[test]
    fn a_turn_that_is_not_for_all_favours_no_list() {
        // Eleven bands, ten places: who has none is drawn.
        let lists: Vec<Vec<usize>> = (0..11).map(|list| vec![list; 3]).collect();
        let mut times = [0; 11];
        for seed in 0..1100 {
            in_turn(&lists, 10, seed, |_| true).into_iter().for_each(|list| times[list] += 1);
        }
        assert!(times.iter().all(|n| (950..1050).contains(n)), "{times:?}");
    }

    #[test]
    fn marks_are_above_a_tenth_and_wrong_ones_where_nothing_is() {
        let (right, inactive) = marks(&[0.0, 5.0, 0.5, 0.6, 0.0, 0.0], |i| i != 4);
        assert_eq!((right, inactive), (vec![1, 3], vec![0, 5]));
        assert!(marks(&[0.0; 3], |_| true).0.is_empty());
    }

    #[test]
    fn silence_is_of_the_window_alone() {
        let activation = |context, position| TokenActivation { context, position, activation: 1.0 };
        let activations = [activation(0, 40), activation(2, 7), activation(2, 20)];
        let inactive = |context, start, tokens| is_inactive(&activations, context, start, tokens);
        assert!(
            inactive(2, 8, 12) && inactive(1, 0, 99) && inactive(0, 41, 50) && inactive(3, 0, 9)
        );
        assert!(!inactive(2, 8, 13) && !inactive(2, 7, 1) && !inactive(0, 0, 41));
    }

    #[test]
    fn a_control_is_another_one_and_stays_when_others_come() {
        let of = |own: u64, n: u64| control(own, (0..n).map(|x| (x as usize, x)));
        assert!(
            (0..50).all(|own| of(own, 50).is_some_and(|other| other as u64 != own && other < 50))
        );
        assert_eq!([of(0, 0), of(0, 1)], [None; 2]);
        let moved = (0..50).filter(|own| of(*own, 50) != of(*own, 55)).count();
        assert!(moved < 15, "{moved} of 50");
        let mut taken: Vec<Option<usize>> = (0..50).map(|own| of(own, 50)).collect();
        taken.sort_unstable();
        taken.dedup();
        assert!(taken.len() > 20, "not one for all: {}", taken.len());
    }

    #[test]
    fn a_rule_says_yes_to_one_token_or_to_most_marks() {
        let rule = BTreeSet::from([7, 8]);
        assert!(by_rule(&rule, &[1, 8], &[]) && !by_rule(&rule, &[1, 2], &[]));
        assert!(by_rule(&rule, &[7, 8, 1], &[0, 1, 2]) && !by_rule(&rule, &[7, 1], &[0, 1]));
    }
}
