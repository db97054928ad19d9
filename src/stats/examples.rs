//! Which contexts stand for a feature: the strongest, some of every strength, and some where it is
//! inactive (`docs/definitions.md` §8). At most one a document, and no text twice.

use super::feature::TokenActivation;
use super::mix;
use crate::ids::Band;
use std::collections::HashSet;

/// Tokens on either side of the peak in an example's window.
pub(crate) const RADIUS: usize = 16;

/// A context's activation of a feature: its maximum over the tokens that count, and where that is
/// first reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// The context's number.
    pub context: u32,
    /// Where the maximum is first reached.
    pub position: u16,
    /// The maximum; 0 where the feature is inactive.
    pub value: f32,
}

/// A context in the corpus, as far as choosing examples goes.
#[derive(Clone, Copy, Debug)]
pub struct ContextInfo<'a> {
    /// The number of its document.
    pub document: u32,
    /// Token ids, BOS first.
    pub tokens: &'a [u32],
}

/// A chosen context.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// `top`, `q0` … `q9`, `inactive`
    pub band: Band,
    /// Its place in the band, from 0.
    pub rank: u32,
    /// The peak that its window is around.
    pub peak: Peak,
}

/// How many examples are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Examples of the strongest contexts.
    pub top: usize,
    pub(crate) per_band: usize,
}

/// The peak of each active context, from activations ordered by context and position at tokens that
/// count.
pub fn peaks(activations: impl Iterator<Item = TokenActivation>) -> Vec<Peak> {
    let mut peaks: Vec<Peak> = Vec::new();
    for f in activations {
        match peaks.last_mut().filter(|last| last.context == f.context) {
            Some(last) if f.activation > last.value => {
                (last.position, last.value) = (f.position, f.activation)
            }
            Some(_) => {}
            None => {
                peaks.push(Peak { context: f.context, position: f.position, value: f.activation })
            }
        }
    }
    peaks
}

/// The window around a peak: `[start, end)` in the context, cut at its ends.
pub fn window(peak: usize, length: usize) -> (usize, usize) {
    (peak.saturating_sub(RADIUS), (peak + RADIUS + 1).min(length))
}

/// Documents and texts that have been used.
#[derive(Default)]
pub struct Used {
    documents: HashSet<u32>,
    windows: HashSet<Vec<u32>>,
}

impl Used {
    /// Takes the example unless its document or its text was taken before.
    fn take(&mut self, peak: &Peak, info: &ContextInfo) -> bool {
        let (start, end) = window(peak.position as usize, info.tokens.len());
        let text = &info.tokens[start..end];
        if self.documents.contains(&info.document) || self.windows.contains(text) {
            return false;
        }
        self.documents.insert(info.document);
        self.windows.insert(text.to_vec());
        true
    }
}

/// The strongest contexts, best first.
pub fn top<'a>(
    peaks: &[Peak],
    info: &dyn Fn(u32) -> ContextInfo<'a>,
    k: usize,
    used: &mut Used,
) -> Vec<Peak> {
    let mut order = peaks.to_vec();
    order.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.context.cmp(&b.context)));
    order.into_iter().filter(|peak| used.take(peak, &info(peak.context))).take(k).collect()
}

/// All examples of one half: the top ones, `per_band` from each tenth of the active contexts by
/// strength (`q0` the weakest), and as many inactive contexts as the bands hold. `salt` fixes the
/// draw.
pub fn choose<'a>(
    peaks: &[Peak],
    contexts: &[u32],
    info: &dyn Fn(u32) -> ContextInfo<'a>,
    wanted: Wanted,
    salt: u64,
) -> Vec<Chosen> {
    let mut used = Used::default();
    let mut chosen = labelled(Band::Top, top(peaks, info, wanted.top, &mut used));
    let mut by_strength = peaks.to_vec();
    by_strength.sort_by(|a, b| a.value.total_cmp(&b.value).then(a.context.cmp(&b.context)));
    for band in (0..10).rev() {
        let n = by_strength.len();
        let mut members = by_strength[n * band / 10..n * (band + 1) / 10].to_vec();
        members.sort_by_key(|peak| (mix(salt, u64::from(peak.context)), peak.context));
        let taken = members
            .into_iter()
            .filter(|peak| used.take(peak, &info(peak.context)))
            .take(wanted.per_band);
        chosen.extend(labelled(Band::Tenth(band as u8), taken.collect()));
    }
    let positions: Vec<u16> = chosen.iter().map(|example| example.peak.position).collect();
    let around = Around { positions: &positions, salt };
    chosen.extend(labelled(
        Band::Inactive,
        inactive(peaks, contexts, info, 10 * wanted.per_band, around, &mut used),
    ));
    chosen
}

/// Peaks as examples of a band, in their order.
pub(crate) fn labelled(band: Band, peaks: Vec<Peak>) -> Vec<Chosen> {
    let label = |(rank, peak)| Chosen { band, rank: rank as u32, peak };
    peaks.into_iter().enumerate().map(label).collect()
}

/// Where the windows of inactive contexts are.
#[derive(Clone, Copy)]
struct Around<'a> {
    /// Positions of active peaks: a window is around one of them, so that inactive texts are as
    /// long as active ones, and begin their documents as often.
    positions: &'a [u16],
    salt: u64,
}

/// Contexts in which the feature is never active, in hash order, each around the position of a
/// peak, or where there is none, of any token.
fn inactive<'a>(
    peaks: &[Peak],
    contexts: &[u32],
    info: &dyn Fn(u32) -> ContextInfo<'a>,
    k: usize,
    around: Around,
    used: &mut Used,
) -> Vec<Peak> {
    let Around { positions, salt } = around;
    let active: HashSet<u32> = peaks.iter().map(|peak| peak.context).collect();
    let mut order: Vec<(u64, u32)> = contexts
        .iter()
        .filter(|c| !active.contains(c))
        .map(|&c| (mix(salt, u64::from(c)), c))
        .collect();
    // Only the first few in hash order are wanted of what may be hundreds of thousands.
    let few = (4 * k + 64).min(order.len());
    if few < order.len() {
        order.select_nth_unstable(few);
        order.truncate(few);
    }
    order.sort_unstable();
    let at = |(hash, context): (u64, u32)| {
        let last = info(context).tokens.len() - 1;
        let drawn = mix(hash, salt) as usize;
        let fit: Vec<u16> = positions.iter().copied().filter(|p| usize::from(*p) <= last).collect();
        let position = match &fit[..] {
            _ if last == 0 => 0,
            [] => 1 + drawn % last,
            fit => usize::from(fit[drawn % fit.len()]),
        };
        Peak { context, position: position as u16, value: 0.0 }
    };
    order.into_iter().map(at).filter(|peak| used.take(peak, &info(peak.context))).take(k).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { top: 6, per_band: 2 };

    /// 300 contexts of 40 tokens from 100 documents; every seventh has the text of the one before
    /// it.
    fn texts() -> Vec<Vec<u32>> {
        let text =
            |c: u64| (0..40).map(|p| mix(c - u64::from(c % 7 == 6), p) as u32 % 50).collect();
        (0..300).map(text).collect()
    }

    fn peaks_of(seed: u64) -> Vec<Peak> {
        let active = (0..300u32).filter(|c| !mix(seed, u64::from(*c)).is_multiple_of(3));
        let peak = |c: u32| Peak {
            context: c,
            position: (1 + c % 39) as u16,
            value: (mix(u64::from(c), seed) % 97 + 1) as f32,
        };
        active.map(peak).collect()
    }

    fn chosen(seed: u64, texts: &[Vec<u32>]) -> Vec<Chosen> {
        let info = |c: u32| ContextInfo { document: c / 3, tokens: &texts[c as usize] };
        let contexts: Vec<u32> = (0..300).collect();
        choose(&peaks_of(seed), &contexts, &info, WANTED, seed)
    }

    #[test]
    fn no_document_and_no_text_comes_twice() {
        let texts = texts();
        for seed in 0..20 {
            let chosen = chosen(seed, &texts);
            let documents: HashSet<u32> = chosen.iter().map(|x| x.peak.context / 3).collect();
            let text = |x: &Chosen| {
                let (start, end) = window(x.peak.position as usize, 40);
                &texts[x.peak.context as usize][start..end]
            };
            let windows: HashSet<&[u32]> = chosen.iter().map(text).collect();
            assert_eq!(
                (documents.len(), windows.len()),
                (chosen.len(), chosen.len()),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn bands_hold_what_was_asked_for_in_the_order_of_strength() {
        let texts = texts();
        for seed in 0..20 {
            let chosen = chosen(seed, &texts);
            let band = |name: Band| chosen.iter().filter(|x| x.band == name).collect::<Vec<_>>();
            let top = band(Band::Top);
            assert_eq!(top.len(), WANTED.top);
            assert!(top.is_sorted_by(|a, b| a.peak.value >= b.peak.value && a.rank < b.rank));
            for q in 0..10 {
                let members = band(Band::Tenth(q));
                assert!(
                    members.len() <= WANTED.per_band && members.iter().all(|x| x.peak.value > 0.0)
                );
                let above = band(Band::Tenth(q + 1));
                assert!(
                    members.iter().all(|x| above.iter().all(|y| x.peak.value <= y.peak.value)),
                    "q{q}"
                );
            }
            let peaks = peaks_of(seed);
            let inactive = band(Band::Inactive);
            assert_eq!(inactive.len(), 10 * WANTED.per_band);
            assert!(
                inactive
                    .iter()
                    .all(|x| x.peak.value == 0.0
                        && peaks.iter().all(|p| p.context != x.peak.context))
            );
            let positions: HashSet<u16> =
                chosen.iter().filter(|x| x.peak.value > 0.0).map(|x| x.peak.position).collect();
            assert!(
                inactive.iter().all(|x| positions.contains(&x.peak.position)),
                "around the positions of peaks, so that the texts are as long"
            );
        }
    }

    #[test]
    fn the_order_in_which_contexts_are_seen_changes_nothing() {
        let texts = texts();
        let info = |c: u32| ContextInfo { document: c / 3, tokens: &texts[c as usize] };
        let (mut peaks, mut contexts): (_, Vec<u32>) = (peaks_of(1), (0..300).collect());
        peaks.reverse();
        contexts.reverse();
        assert_eq!(choose(&peaks, &contexts, &info, WANTED, 1), chosen(1, &texts));
    }

    #[test]
    fn a_peak_is_the_first_place_of_the_maximum() {
        let activation =
            |context, position, activation| TokenActivation { context, position, activation };
        let found = peaks(
            [
                activation(0, 2, 1.0),
                activation(0, 5, 3.0),
                activation(0, 9, 3.0),
                activation(4, 1, 0.5),
            ]
            .into_iter(),
        );
        let peak = |context, position, value| Peak { context, position, value };
        assert_eq!(found, [peak(0, 5, 3.0), peak(4, 1, 0.5)]);
    }

    #[test]
    fn a_window_is_cut_at_the_ends_of_the_context() {
        assert_eq!(
            [window(0, 128), window(60, 128), window(127, 128), window(3, 5)],
            [(0, 17), (44, 77), (111, 128), (0, 5)]
        );
    }
}
