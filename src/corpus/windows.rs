//! Documents of ids to contexts (`docs/definitions.md` §1), which half a document serves in, and
//! the order of documents.
//!
//! Pure functions of ids and numbers: no text, no files.

use crate::ids::{Half, hash_tokens};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// A last window of fewer ids, BOS not counted, is dropped.
pub const SHORTEST: usize = 8;

/// A context: up to `T` ids, BOS first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The number of the document of its first id behind BOS.
    pub document: u32,
    /// Where the first id behind BOS is in the document's own ids.
    pub start: u32,
    /// Token ids, BOS first.
    pub tokens: Vec<u32>,
}

/// The windows of one document, in order; `context` is `T`. End-of-text where a window would begin
/// is passed over: behind BOS it would be a second one.
pub fn windows(document: u32, ids: &[u32], context: usize, bos: u32) -> Vec<Window> {
    let window = |(start, cut): (usize, &[u32])| {
        let tokens = [&[bos], cut].concat();
        Window { document, start: start as u32, tokens }
    };
    cuts(ids, context, bos).map(window).collect()
}

/// How many windows a document has.
pub fn count(ids: &[u32], context: usize, bos: u32) -> usize {
    cuts(ids, context, bos).count()
}

/// Where each window begins in a document, and its ids.
fn cuts(ids: &[u32], context: usize, bos: u32) -> impl Iterator<Item = (usize, &[u32])> {
    let (step, mut start) = (step(context), 0);
    std::iter::from_fn(move || {
        start += ids[start..].iter().take_while(|id| **id == bos).count();
        let cut = &ids[start..ids.len().min(start + step)];
        let at = start;
        start += cut.len();
        (cut.len() == step || cut.len() >= SHORTEST).then_some((at, cut))
    })
}

/// Ids of a context without BOS.
fn step(context: usize) -> usize {
    context.saturating_sub(1).max(1)
}

/// Windows across documents: all of them joined, end-of-text between one and the next.
///
/// A window is named after the document and place of its first id; the end-of-text behind a
/// document of `n` ids is at its place `n`. There are never two in a row, the BOS that a window
/// begins with counted. Empty documents leave no trace. A window may hold several documents:
/// whoever must keep two sets of documents apart gives each a packer of its own.
#[derive(Clone, Debug)]
pub struct Packer {
    context: usize,
    bos: u32,
    open: Option<Window>,
    /// The last document and its length.
    last: Option<(u32, usize)>,
}

impl Packer {
    /// `context` is `T`; `bos` is also the end-of-text.
    pub fn new(context: usize, bos: u32) -> Packer {
        Packer { context, bos, open: None, last: None }
    }

    /// Adds a document, and gives the windows that it fills.
    pub fn add(&mut self, document: u32, ids: &[u32]) -> Vec<Window> {
        let mut full = Vec::new();
        if ids.is_empty() {
            return full;
        }
        if let Some((last, length)) = self.last.replace((document, ids.len())) {
            full.extend(self.push(last, length, self.bos));
        }
        full.extend(
            ids.iter().enumerate().filter_map(|(start, &id)| self.push(document, start, id)),
        );
        full
    }

    /// The last window, if it is long enough.
    pub fn finish(self) -> Option<Window> {
        self.open.filter(|window| window.tokens.len() > SHORTEST)
    }

    fn push(&mut self, document: u32, start: usize, id: u32) -> Option<Window> {
        let bos = self.bos;
        let new = || Window { document, start: start as u32, tokens: vec![bos] };
        // Where a window begins, BOS stands for it; a document may end with one of its own.
        let before = self.open.as_ref().and_then(|window| window.tokens.last()).unwrap_or(&bos);
        if id == bos && *before == bos {
            return None;
        }
        let mut window = self.open.take().unwrap_or_else(new);
        window.tokens.push(id);
        if window.tokens.len() > step(self.context) {
            return Some(window);
        }
        self.open = Some(window);
        None
    }
}

/// A document's half, by a hash of its ids, so that copies of a text are never on both sides.
pub fn half(ids: &[u32]) -> Half {
    let mut hasher = blake3::Hasher::new();
    hash_tokens(&mut hasher, ids);
    if hasher.finalize().as_bytes()[0] & 1 == 0 { Half::Explain } else { Half::Score }
}

/// The place of each stretch of a document: of `contexts` contexts, or of half the document where it
/// has less than two of these. One that has a single context is not divided.
pub fn stretches(ids: &[u32], contexts: usize, context: usize, bos: u32) -> Vec<Range<usize>> {
    let all = count(ids, context, bos);
    if all < 2 {
        return std::iter::once(0..ids.len()).collect();
    }
    let length = contexts.clamp(1, all.div_ceil(2)) * step(context);
    let mut stretches: Vec<Range<usize>> =
        (0..ids.len()).step_by(length).map(|at| at..ids.len().min(at + length)).collect();
    // A rest that gives no context is no stretch.
    if stretches.len() > 2 && stretches.last().is_some_and(|last| last.len() < SHORTEST) {
        stretches.pop();
        stretches.last_mut().into_iter().for_each(|last| last.end = ids.len());
    }
    stretches
}

/// The numbers below `n` in the order of a seed.
pub fn order(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

/// BOS, some of the tokens `ids` in the order of a seed, and the same again: a model that looks for
/// earlier places of a token predicts the second half. At most `longest` tokens; none where there
/// are too few for two halves of two.
pub fn repeated(ids: &[u32], bos: u32, longest: usize, seed: u64) -> Option<Vec<u32>> {
    let half: Vec<u32> = order(ids.len(), seed)
        .into_iter()
        .take(longest.saturating_sub(1) / 2)
        .map(|i| ids[i])
        .collect();
    (half.len() > 1).then(|| [&[bos], &half[..], &half[..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOS: u32 = 99;

    fn lengths(ids: usize, context: usize) -> Vec<usize> {
        let ids: Vec<u32> = (0..ids as u32).collect();
        windows(0, &ids, context, BOS).iter().map(|window| window.tokens.len()).collect()
    }

    #[test]
    fn windows_cover_a_document_and_start_with_bos() {
        let ids: Vec<u32> = (0..28).collect();
        let windows = windows(7, &ids, 11, BOS);
        assert_eq!(windows.iter().map(|window| window.start).collect::<Vec<_>>(), [0, 10, 20]);
        assert!(windows.iter().all(|window| window.tokens[0] == BOS && window.document == 7));
        let inside: Vec<u32> =
            windows.iter().flat_map(|window| window.tokens[1..].to_vec()).collect();
        assert_eq!(inside, ids);
    }

    #[test]
    fn only_a_last_window_of_fewer_than_eight_is_dropped() {
        assert_eq!(lengths(0, 11), [] as [usize; 0]);
        assert_eq!(lengths(7, 11), [] as [usize; 0]);
        assert_eq!(lengths(8, 11), [9]);
        assert_eq!(lengths(17, 11), [11]);
        assert_eq!(lengths(18, 11), [11, 9]);
        assert_eq!(lengths(20, 11), [11, 11]);
        assert_eq!(lengths(9, 5), [5, 5], "a full window is kept however short the context");
    }

    #[test]
    fn packed_documents_are_joined_by_end_of_text() {
        let mut packer = Packer::new(6, BOS);
        assert_eq!(packer.add(0, &[1, 2, 3]), []);
        assert_eq!(packer.add(1, &[]), []);
        let full = packer.add(2, &[4, 5]);
        assert_eq!(full, [Window { document: 0, start: 0, tokens: vec![BOS, 1, 2, 3, BOS, 4] }]);
        let full = packer.add(3, &[6, 7, 8, 9]);
        assert_eq!(full, [Window { document: 2, start: 1, tokens: vec![BOS, 5, BOS, 6, 7, 8] }]);
        assert_eq!(packer.finish(), None, "one id is left, which is too short");
    }

    #[test]
    fn no_window_begins_with_end_of_text() {
        let mut packer = Packer::new(10, BOS);
        assert_eq!(packer.add(0, &[1; 9]).len(), 1);
        packer.add(1, &[2; 7]);
        assert_eq!(packer.finish(), None, "seven ids are too few");
        let mut packer = Packer::new(10, BOS);
        packer.add(0, &[1; 9]);
        packer.add(1, &[2; 8]);
        let last = Window { document: 1, start: 0, tokens: [vec![BOS], vec![2; 8]].concat() };
        assert_eq!(packer.finish(), Some(last));
        let mut packer = Packer::new(10, BOS);
        packer.add(0, &[1, 2, 3, BOS]);
        let full = packer.add(1, &[BOS, 4, 5, 6, 7, 8]);
        assert_eq!(full[0].tokens, [BOS, 1, 2, 3, BOS, 4, 5, 6, 7, 8]);
        let ids =
            [vec![BOS; 2], vec![1; 10], vec![BOS], vec![2; 4], vec![BOS], vec![3; 3]].concat();
        let expected = [
            Window { document: 5, start: 2, tokens: [vec![BOS], vec![1; 10]].concat() },
            Window {
                document: 5,
                start: 13,
                tokens: [vec![BOS], vec![2; 4], vec![BOS], vec![3; 3]].concat(),
            },
        ];
        assert_eq!(windows(5, &ids, 11, BOS), expected);
        assert_eq!([count(&ids, 11, BOS), count(&[BOS; 30], 11, BOS)], [2, 0]);
    }

    #[test]
    fn packing_loses_nothing_but_a_short_end() {
        let documents: Vec<Vec<u32>> = (1..30).map(|n| vec![n; n as usize * 7 % 23]).collect();
        let mut packer = Packer::new(12, BOS);
        let mut packed: Vec<Window> =
            documents.iter().enumerate().flat_map(|(i, ids)| packer.add(i as u32, ids)).collect();
        packed.extend(packer.finish());
        let filled: Vec<Vec<u32>> = documents.into_iter().filter(|ids| !ids.is_empty()).collect();
        let text =
            |ids: &[u32]| -> Vec<u32> { ids.iter().copied().filter(|id| *id != BOS).collect() };
        let joined = text(&filled.join(&BOS));
        let inside: Vec<u32> = packed.iter().flat_map(|window| text(&window.tokens)).collect();
        assert_eq!(inside, joined[..inside.len()]);
        assert!(joined.len() - inside.len() < SHORTEST);
        assert!(packed.iter().all(|window| window.tokens[1] != BOS));
    }

    #[test]
    fn tokens_are_repeated_once_behind_bos() {
        let ids: Vec<u32> = (0..50).collect();
        let tokens = repeated(&ids, BOS, 12, 3).unwrap();
        assert_eq!((tokens.len(), tokens[0]), (11, BOS));
        assert_eq!(tokens[1..6], tokens[6..]);
        let distinct: std::collections::BTreeSet<&u32> = tokens[1..6].iter().collect();
        assert_eq!(distinct.len(), 5);
        assert_ne!(repeated(&ids, BOS, 12, 4).unwrap(), tokens);
        assert_eq!(repeated(&ids, BOS, 4, 3), None);
    }

    #[test]
    fn halves_are_even_and_depend_on_the_text_alone() {
        let explain = (0..2000).filter(|&n| half(&[n, 1, n]) == Half::Explain).count();
        assert!((900..1100).contains(&explain), "{explain}");
        assert_eq!(half(&[1, 2, 3]), half(&[1, 2, 3]));
    }

    #[test]
    fn a_document_is_divided_into_stretches_of_whole_contexts() {
        let of = |n: usize, contexts| stretches(&vec![1; n], contexts, 11, BOS);
        assert_eq!(of(19, 4), [0..10, 10..19]);
        assert_eq!(of(100, 4), [0..40, 40..80, 80..100]);
        assert_eq!(of(83, 4), [0..40, 40..83], "a rest of three ids is no stretch");
        assert_eq!(of(60, 4), [0..30, 30..60], "there are two at least");
        for n in [0, 7, 17] {
            assert_eq!(of(n, 4), std::iter::once(0..n).collect::<Vec<_>>());
        }
        for (n, contexts) in [(1000, 1), (999, 7), (25, 9)] {
            let ids: Vec<u32> = (0..n as u32).collect();
            let all = stretches(&ids, contexts, 11, BOS);
            assert!(all.len() > 1 && all.windows(2).all(|pair| pair[0].end == pair[1].start));
            let cut = |range: &Range<usize>| windows(0, &ids[range.clone()], 11, BOS);
            let tokens = |windows: Vec<Window>| {
                windows.into_iter().map(|window| window.tokens).collect::<Vec<_>>()
            };
            let inside: Vec<Window> = all.iter().flat_map(cut).collect();
            assert_eq!(tokens(inside), tokens(windows(0, &ids, 11, BOS)), "no context is changed");
        }
    }

    #[test]
    fn an_order_is_a_permutation_that_its_seed_fixes() {
        let mut order_42 = order(1000, 42);
        assert_eq!(order_42, order(1000, 42));
        assert_ne!(order_42, order(1000, 43));
        assert_ne!(order_42, (0..1000).collect::<Vec<_>>());
        order_42.sort_unstable();
        assert_eq!(order_42, (0..1000).collect::<Vec<_>>());
        assert_eq!(order(8, 42), [7, 1, 5, 4, 6, 0, 3, 2], "what a seed gives must never change");
    }
}
