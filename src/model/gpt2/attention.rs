//! What heads gather in contexts that stand one below the other, straight from their queries, keys
//! and values: where nobody asks for scores and patterns, no tensor is made of them. For numbers of
//! 32 bits; those of 64 take [`Gpt2::look`].
//!
//! A context's result depends on that context alone, and sums have the same order everywhere.

use super::fused::softmax;
use super::{Gpt2, Rows};
use crate::error::{Result, hinted};
use crate::vectors::vectors;
use candle_core::{DType, Storage, Tensor};
use rayon::prelude::*;

/// Positions whose scores are summed side by side, at most; rows of keys are as many of the least
/// at a time.
const LANES: usize = 64;
const LEAST: usize = 16;

/// The sizes of one layer's heads.
#[derive(Clone, Copy)]
struct Heads {
    heads: usize,
    /// Width of a head.
    k: usize,
}

/// Whose queries are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Queries {
    /// Those of every position.
    All,
    /// Those of each context's last position.
    Last,
}

impl Gpt2 {
    /// Queries, keys and values of contexts, `[ΣT, 3D]` → `z [ΣT, H·K]`
    pub(super) fn gather(&self, qkv: &Tensor, rows: &Rows) -> Result<Tensor> {
        self.gather_for(Queries::All, qkv, rows)
    }

    /// The same of some queries only: a row each.
    pub(super) fn gather_for(&self, queries: Queries, qkv: &Tensor, rows: &Rows) -> Result<Tensor> {
        let wanted = |tokens: usize| if queries == Queries::Last { 1 } else { tokens };
        if qkv.dtype() != DType::F32 {
            let one = |i: usize| -> Result<Tensor> {
                let (z, n) = (self.look(&rows.of_one(qkv, i)?)?.z, wanted(rows.0[i].1));
                Ok(z.narrow(0, z.dim(0)? - n, n)?)
            };
            return Ok(Tensor::cat(&(0..rows.0.len()).map(one).collect::<Result<Vec<_>>>()?, 0)?);
        }
        let heads = Heads { heads: self.sizes.heads, k: self.sizes.d_head };
        let d = heads.heads * heads.k;
        let qkv = qkv.contiguous()?;
        let (storage, layout) = qkv.storage_and_layout();
        let (Storage::Cpu(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets())
        else {
            return Err(hinted("heads on another device", "`machine.device` must be `cpu`"));
        };
        let read = &storage.as_slice::<f32>()?[from..to];
        let asked: usize = rows.0.iter().map(|&(_, tokens)| wanted(tokens)).sum();
        let mut z = vec![0.0; d * asked];
        let (mut read, mut left, mut each) = (read, z.as_mut_slice(), Vec::new());
        for &(_, tokens) in &rows.0 {
            let (own, after) = read.split_at(3 * d * tokens);
            let (own_z, after_z) = std::mem::take(&mut left).split_at_mut(d * wanted(tokens));
            each.push((own, own_z));
            (read, left) = (after, after_z);
        }
        each.into_par_iter().for_each(|(own, z)| {
            vectors!(of_context(own: &[f32], z: &mut [f32], heads: Heads));
        });
        Ok(Tensor::from_vec(z, (asked, d), qkv.device())?)
    }
}

/// One context, `[T, 3D]` → what its last positions gather, as many as `z` has rows, `[…, D]`
#[inline(always)]
fn of_context(qkv: &[f32], z: &mut [f32], Heads { heads, k }: Heads) {
    let d = heads * k;
    let tokens = qkv.len() / (3 * d);
    let first = tokens - z.len() / d;
    let padded = tokens.next_multiple_of(LEAST);
    let (mut keys, mut scores) = (vec![0.0; k * padded], vec![0.0; padded]);
    let scale = 1.0 / (k as f32).sqrt();
    for head in 0..heads {
        // A coordinate of all positions in a row.
        for (s, row) in qkv.chunks_exact(3 * d).enumerate() {
            let own = &row[d + head * k..][..k];
            own.iter().enumerate().for_each(|(c, x)| keys[c * padded + s] = *x);
        }
        let asked = qkv.chunks_exact(3 * d).skip(first).zip(z.chunks_exact_mut(d));
        for (t, (row, z)) in (first..).zip(asked) {
            let query = &row[head * k..][..k];
            let seen = t + 1;
            // Whole registers, as far as keys go.
            let ahead = seen.next_multiple_of(LEAST);
            let mut at = 0;
            while at < ahead {
                let (keys, scores) = (&keys[at..], &mut scores[at..]);
                at += match ahead - at {
                    LANES.. => scored::<LANES>(scores, query, scale, keys, padded),
                    32.. => scored::<32>(scores, query, scale, keys, padded),
                    _ => scored::<LEAST>(scores, query, scale, keys, padded),
                };
            }
            // What is ahead has no weight; a softmax of whole registers has no rest.
            scores[seen..ahead].fill(f32::NEG_INFINITY);
            softmax(&mut scores[..ahead]);
            let values = &qkv[2 * d + head * k..];
            let own = &mut z[head * k..][..k];
            let mut at = 0;
            while at < k {
                let (own, values) = (&mut own[at..], &values[at..]);
                at += match k - at {
                    64.. => weighted::<64>(own, &scores[..seen], values, 3 * d),
                    16.. => weighted::<16>(own, &scores[..seen], values, 3 * d),
                    8.. => weighted::<8>(own, &scores[..seen], values, 3 * d),
                    _ => weighted::<1>(own, &scores[..seen], values, 3 * d),
                };
            }
        }
    }
}

/// The scores of the first `N` positions, of keys that have a coordinate every `stride` numbers;
/// gives `N`.
#[inline(always)]
fn scored<const N: usize>(
    scores: &mut [f32],
    query: &[f32],
    scale: f32,
    keys: &[f32],
    stride: usize,
) -> usize {
    let mut sum = [0.0; N];
    for (c, q) in query.iter().enumerate() {
        let (q, keys) = (q * scale, &keys[c * stride..][..N]);
        sum.iter_mut().zip(keys).for_each(|(score, key)| *score += q * key);
    }
    scores[..N].copy_from_slice(&sum);
    N
}

/// The weighted sum of the first `N` numbers of rows that begin every `stride` numbers; gives `N`.
#[inline(always)]
fn weighted<const N: usize>(
    own: &mut [f32],
    weights: &[f32],
    values: &[f32],
    stride: usize,
) -> usize {
    let mut sum = [0.0; N];
    for (s, weight) in weights.iter().enumerate() {
        let row = &values[s * stride..][..N];
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
    }
    own[..N].copy_from_slice(&sum);
    N
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_gathered_is_what_the_patterns_gather() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
        let model = Gpt2::load(&folder).unwrap();
        let context = |tokens: usize| -> Vec<u32> {
            let draw = |i| crate::stats::mix(tokens as u64, i) as u32 % 2000;
            (0..tokens as u64).map(draw).collect()
        };
        let contexts = [1, 7, 64, 65, 128].map(context);
        let tokens: Vec<&[u32]> = contexts.iter().map(Vec::as_slice).collect();
        let rows = Rows::of(&tokens);
        let qkv = model.projected(1, &model.embed_all(&tokens).unwrap()).unwrap();
        let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let all = model.gather(&qkv, &rows).unwrap();
        for i in 0..tokens.len() {
            let own = rows.of_one(&qkv, i).unwrap();
            let wanted = numbers(&model.look(&own).unwrap().z);
            let got = numbers(&rows.of_one(&all, i).unwrap());
            assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 2e-6), "{i}");
            // The same bits alone, and of the last position only.
            let rows_of_own = Rows::of(&tokens[i..=i]);
            let alone = model.gather(&own, &rows_of_own).unwrap();
            assert_eq!(numbers(&alone), got, "{i}");
            let last = model.gather_for(Queries::Last, &own, &rows_of_own).unwrap();
            assert_eq!(numbers(&last), got[got.len() - model.sizes.d_model..], "{i}");
        }
    }

    #[test]
    fn heads_of_every_width_are_summed_whole() {
        for k in [1, 7, 8, 23, 24, 64, 90] {
            let (heads, tokens) = (2, 5);
            let d = heads * k;
            let draw = |i| (crate::stats::mix(k as u64, i) >> 40) as f32 / (1 << 23) as f32 - 1.0;
            let qkv: Vec<f32> = (0..(tokens * 3 * d) as u64).map(draw).collect();
            let mut z = vec![0.0; tokens * d];
            of_context(&qkv, &mut z, Heads { heads, k });
            let of = |t: usize, part: usize, h: usize| &qkv[t * 3 * d + part * d + h * k..][..k];
            for (t, h) in (0..tokens).flat_map(|t| (0..heads).map(move |h| (t, h))) {
                let score = |s: usize| {
                    let dot: f32 = of(t, 0, h).iter().zip(of(s, 1, h)).map(|(a, b)| a * b).sum();
                    f64::from(dot / (k as f32).sqrt()).exp()
                };
                let sum: f64 = (0..=t).map(score).sum();
                for c in 0..k {
                    let wanted: f64 =
                        (0..=t).map(|s| score(s) / sum * f64::from(of(s, 2, h)[c])).sum();
                    let own = f64::from(z[t * d + h * k + c]);
                    assert!((own - wanted).abs() < 1e-5, "{k}, {t}, {h}, {c}: {own}, {wanted}");
                }
            }
        }
    }
}
