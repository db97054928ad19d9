//! Pure functions on slices: statistics of a feature, choice of examples, samples, co-occurrence,
//! intervals. No files, no model.

pub mod agreement;
pub(crate) mod before;
pub(crate) mod contrast;
pub mod cooccurrence;
pub mod examples;
pub mod feature;
pub(crate) mod frames;
pub mod interval;
pub mod joint;
pub mod ngrams;
pub(crate) mod profile;
pub mod rule;
pub mod strata;
pub mod trials;
pub mod tuples;

use std::ops::Range;

/// Standard deviations above what chance gives from which on a token is told.
pub(crate) const STANDS_OUT: f64 = 3.0;

/// A fixed mixing of two numbers (SplitMix64's finaliser): the "hash order" in which samples are
/// drawn.
pub fn mix(a: u64, b: u64) -> u64 {
    let mut x =
        a.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(b).wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Things in a row that cost so much at most together, or single ones that cost more: ranges of their
/// places.
pub(crate) fn blocks(costs: impl IntoIterator<Item = f64>, most: f64) -> Vec<Range<usize>> {
    let (mut blocks, mut sum) = (Vec::<Range<usize>>::new(), 0.0);
    for (place, cost) in costs.into_iter().enumerate() {
        match blocks.last_mut().filter(|_| sum + cost <= most) {
            Some(block) => block.end = place + 1,
            None => {
                blocks.push(place..place + 1);
                sum = 0.0;
            }
        }
        sum += cost;
    }
    blocks
}

/// A number of a name's own: what is drawn by it stays when other names come.
pub fn salt(name: &str) -> u64 {
    name.bytes().fold(name.len() as u64, |salt, byte| mix(salt, u64::from(byte)))
}
