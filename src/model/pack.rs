//! Which contexts are run at once.

use std::ops::Range;

/// Tokens of a pack, unless it has as many contexts as it may: beyond, matrix products do not get
/// faster.
const PACK: usize = 512;

/// Places of contexts that are run at once: the next ones, until they have [`PACK`] tokens; at most
/// `most`.
pub(crate) fn packs(lengths: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut packs: Vec<Range<usize>> = Vec::new();
    let mut tokens = PACK;
    for (i, length) in lengths.iter().enumerate() {
        match packs.last_mut().filter(|pack| tokens < PACK && pack.len() < most) {
            Some(pack) => pack.end = i + 1,
            None => {
                packs.push(i..i + 1);
                tokens = 0;
            }
        }
        tokens += length;
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::packs;

    #[test]
    fn packs_have_every_context_once_in_order() {
        assert!(packs(&[], 8).is_empty());
        assert_eq!(packs(&[1000, 1000], 8), [0..1, 1..2]);
        assert_eq!(packs(&[300, 300, 100, 100], 8), [0..2, 2..4]);
        assert_eq!(packs(&[10; 20], 8), [0..8, 8..16, 16..20]);
        assert_eq!(packs(&[10, 600, 10], 8), [0..2, 2..3]);
    }
}
