//! Texts that differ in little: the same words up to the peak but for a few, such as one sentence
//! told of other people. They count as one *frame* (`docs/definitions.md` §8).

use super::examples::Peak;

/// Tokens up to the peak, itself included, that are compared.
const LEFT: usize = 8;
/// Share of them that texts of one frame have alike.
const ALIKE: f64 = 0.7;

/// The tokens up to the peak at a position, itself included, at most [`LEFT`].
fn left(tokens: &[u32], peak: usize) -> &[u32] {
    &tokens[(peak + 1).saturating_sub(LEFT)..=peak]
}

/// How many tokens two texts have alike, aligned at their ends.
pub(crate) fn alike(a: &[u32], b: &[u32]) -> usize {
    a.iter().rev().zip(b.iter().rev()).filter(|(a, b)| a == b).count()
}

/// Whether two texts, each up to its peak, are of one frame.
fn is_same(a: &[u32], b: &[u32]) -> bool {
    let longer = a.len().max(b.len());
    alike(a, b) as f64 >= ALIKE * longer as f64
}

/// The first `k` peaks whose texts are of different frames, in their order.
pub(crate) fn distinct<'a>(
    peaks: impl Iterator<Item = Peak>,
    tokens: impl Fn(u32) -> &'a [u32],
    k: usize,
    frames: &mut Vec<Vec<u32>>,
) -> Vec<Peak> {
    let mut chosen = Vec::new();
    for peak in peaks {
        if chosen.len() >= k {
            break;
        }
        let own = left(tokens(peak.context), peak.position.into());
        if !frames.iter().any(|other| is_same(own, other)) {
            frames.push(own.to_vec());
            chosen.push(peak);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peak(context: u32) -> Peak {
        Peak { context, position: 9, value: 1.0 }
    }

    #[test]
    fn texts_with_other_names_are_one_frame() {
        // The second has other tokens at two of the last eight places, the third at five.
        let texts: [Vec<u32>; 4] = [
            (0..10).collect(),
            (0..10).map(|i| if i == 3 || i == 9 { 50 } else { i }).collect(),
            (0..10).map(|i| if i > 4 { 60 + i } else { i }).collect(),
            (0..10).map(|i| if i < 2 { 70 + i } else { i }).collect(),
        ];
        let chosen = distinct((0..4).map(peak), |c| &texts[c as usize], 9, &mut Vec::new());
        assert_eq!(chosen.iter().map(|p| p.context).collect::<Vec<_>>(), [0, 2]);
        let mut frames = Vec::new();
        assert_eq!(distinct((0..4).map(peak), |c| &texts[c as usize], 1, &mut frames).len(), 1);
        assert!(distinct([peak(1)].into_iter(), |c| &texts[c as usize], 9, &mut frames).is_empty());
    }

    #[test]
    fn the_beginning_of_a_text_is_no_frame_of_its_middle() {
        let texts: [Vec<u32>; 2] = [vec![0, 7], vec![1, 2, 3, 4, 5, 6, 7]];
        let peaks = [
            Peak { context: 0, position: 1, value: 1.0 },
            Peak { context: 1, position: 6, value: 1.0 },
        ];
        let tokens = |c: u32| texts[c as usize].as_slice();
        assert_eq!(distinct(peaks.into_iter(), tokens, 9, &mut Vec::new()).len(), 2);
    }
}
