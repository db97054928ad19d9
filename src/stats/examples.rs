//! Which contexts stand for a feature: the strongest, some of every strength, and some where it is silent
//! (DESIGN.md 4.7). At most one a document, and no text twice.

use super::feature::Firing;
use super::mix;
use std::collections::HashSet;

/// Tokens on either side of the peak in an example's window.
pub const RADIUS: usize = 16;

/// A context's activation of a feature: its maximum over the tokens that count, and where that is first reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    pub context: u32,
    pub position: u16,
    pub value: f32,
}

/// A context in the corpus, as far as choosing examples goes.
#[derive(Clone, Copy, Debug)]
pub struct ContextInfo<'a> {
    pub document: u32,
    pub tokens: &'a [u32],
    /// The half that its document is in.
    pub explain: bool,
}

/// A chosen context.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// `top`, `q0` … `q9`, `inactive`
    pub band: String,
    pub rank: u32,
    pub peak: Peak,
}

/// How many examples are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub top: usize,
    pub per_band: usize,
}

/// The peak of each active context, from firings ordered by context and position at tokens that count.
pub fn peaks(firings: impl Iterator<Item = Firing>) -> Vec<Peak> {
    let mut peaks: Vec<Peak> = Vec::new();
    for f in firings {
        match peaks.last_mut().filter(|last| last.context == f.context) {
            Some(last) if f.activation > last.value => (last.position, last.value) = (f.position, f.activation),
            Some(_) => {}
            None => peaks.push(Peak { context: f.context, position: f.position, value: f.activation }),
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
pub fn top<'a>(peaks: &[Peak], info: &dyn Fn(u32) -> ContextInfo<'a>, k: usize, used: &mut Used) -> Vec<Peak> {
    let mut order = peaks.to_vec();
    order.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.context.cmp(&b.context)));
    order.into_iter().filter(|peak| used.take(peak, &info(peak.context))).take(k).collect()
}

/// All examples of one half: the top ones, `per_band` from each tenth of the active contexts by strength (`q0` the
/// weakest), and as many silent contexts as the bands hold. `salt` fixes the draw.
pub fn choose<'a>(
    peaks: &[Peak],
    contexts: &[u32],
    info: &dyn Fn(u32) -> ContextInfo<'a>,
    wanted: Wanted,
    salt: u64,
    used: &mut Used,
) -> Vec<Chosen> {
    let mut chosen = labelled("top", top(peaks, info, wanted.top, used));
    let mut by_strength = peaks.to_vec();
    by_strength.sort_by(|a, b| a.value.total_cmp(&b.value).then(a.context.cmp(&b.context)));
    for band in (0..10).rev() {
        let n = by_strength.len();
        let mut members = by_strength[n * band / 10..n * (band + 1) / 10].to_vec();
        members.sort_by_key(|peak| (mix(salt, u64::from(peak.context)), peak.context));
        let taken = members.into_iter().filter(|peak| used.take(peak, &info(peak.context))).take(wanted.per_band);
        chosen.extend(labelled(&format!("q{band}"), taken.collect()));
    }
    chosen.extend(labelled("inactive", silent(peaks, contexts, info, 10 * wanted.per_band, salt, used)));
    chosen
}

/// Peaks as examples of a band, in their order.
pub fn labelled(band: &str, peaks: Vec<Peak>) -> Vec<Chosen> {
    let label = |(rank, peak)| Chosen { band: band.into(), rank: rank as u32, peak };
    peaks.into_iter().enumerate().map(label).collect()
}

/// Contexts in which the feature is never active, in hash order, each around a position drawn by hash.
fn silent<'a>(
    peaks: &[Peak],
    contexts: &[u32],
    info: &dyn Fn(u32) -> ContextInfo<'a>,
    k: usize,
    salt: u64,
    used: &mut Used,
) -> Vec<Peak> {
    let active: HashSet<u32> = peaks.iter().map(|peak| peak.context).collect();
    let mut order: Vec<(u64, u32)> =
        contexts.iter().filter(|c| !active.contains(c)).map(|&c| (mix(salt, u64::from(c)), c)).collect();
    // Only the first few in hash order are wanted of what may be hundreds of thousands.
    let few = (4 * k + 64).min(order.len());
    if few < order.len() {
        order.select_nth_unstable(few);
        order.truncate(few);
    }
    order.sort_unstable();
    let at = |(hash, context): (u64, u32)| {
        let last = info(context).tokens.len() - 1;
        let position = if last == 0 { 0 } else { 1 + (mix(hash, salt) as usize) % last };
        Peak { context, position: position as u16, value: 0.0 }
    };
    order.into_iter().map(at).filter(|peak| used.take(peak, &info(peak.context))).take(k).collect()
}
