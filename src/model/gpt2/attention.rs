//! What heads gather in contexts that stand one below the other, straight from their queries, keys
//! and values: where nobody asks for scores and patterns, no tensor is made of them. For numbers of
//! 32 bits; those of 64 take [`Gpt2::look`].
//!
//! A context's result depends on that context alone, and sums have the same order everywhere.

use super::fused::softmax;
use super::{Gpt2, Rows as Contexts};
use crate::error::{Result, hinted};
use candle_core::{DType, Storage, Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of keys are as many positions at a time: whole registers of every machine.
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
    pub(super) fn gather(&self, qkv: &Tensor, rows: &Contexts) -> Result<Tensor> {
        self.gather_for(Queries::All, qkv, rows)
    }

    /// The same of some queries only: a row each.
    pub(super) fn gather_for(
        &self,
        queries: Queries,
        qkv: &Tensor,
        rows: &Contexts,
    ) -> Result<Tensor> {
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
            Arch::new().dispatch(Context { qkv: own, z, heads });
        });
        Ok(Tensor::from_vec(z, (asked, d), qkv.device())?)
    }
}

/// One context, `[T, 3D]` → what its last positions gather, as many as `z` has rows, `[…, D]`
struct Context<'a> {
    qkv: &'a [f32],
    z: &'a mut [f32],
    heads: Heads,
}

/// Queries that are answered side by side; what is left of them, one by one.
const QUERIES: usize = 4;

impl WithSimd for Context<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Context { qkv, z, heads: Heads { heads, k } } = self;
        let d = heads * k;
        let tokens = qkv.len() / (3 * d);
        let first = tokens - z.len() / d;
        let padded = tokens.next_multiple_of(LEAST);
        let mut keys = vec![0.0; k * padded];
        let (mut queries, mut scores) = (vec![0.0; QUERIES * k], vec![0.0; QUERIES * padded]);
        let scale = 1.0 / (k as f32).sqrt();
        for head in 0..heads {
            // A coordinate of all positions in a row.
            for (s, row) in qkv.chunks_exact(3 * d).enumerate() {
                let own = &row[d + head * k..][..k];
                let column = keys[s..].iter_mut().step_by(padded);
                column.zip(own).for_each(|(key, x)| *key = *x);
            }
            let values = Rows { numbers: &qkv[2 * d + head * k..], stride: 3 * d };
            let mut t = first;
            while t < tokens {
                let asked = if tokens - t < QUERIES { 1 } else { QUERIES };
                for (i, query) in queries.chunks_exact_mut(k).take(asked).enumerate() {
                    let own = &qkv[(t + i) * 3 * d + head * k..][..k];
                    query.iter_mut().zip(own).for_each(|(query, x)| *query = x * scale);
                }
                // Whole registers, as far as keys go.
                let ahead = (t + asked).next_multiple_of(LEAST);
                let (queries, keys) = (&queries[..asked * k], &keys[..]);
                let all = Rows { numbers: keys, stride: padded };
                match asked {
                    QUERIES => score::<S, QUERIES>(simd, &mut scores, queries, &all, ahead),
                    _ => score::<S, 1>(simd, &mut scores, queries, &all, ahead),
                }
                for (i, scores) in scores.chunks_exact_mut(padded).take(asked).enumerate() {
                    // What is ahead has no weight; a softmax of whole registers has no rest.
                    scores[t + i + 1..ahead].fill(f32::NEG_INFINITY);
                    softmax(simd, &mut scores[..ahead]);
                }
                let weights = Rows { numbers: &scores, stride: padded };
                let z = &mut z[(t - first) * d + head * k..];
                match asked {
                    QUERIES => weigh::<S, QUERIES>(simd, z, d, &weights, &values, t + 1, k),
                    _ => weigh::<S, 1>(simd, z, d, &weights, &values, t + 1, k),
                }
                t += asked;
            }
        }
    }
}

/// Numbers in rows that begin every `stride` numbers.
struct Rows<'a> {
    numbers: &'a [f32],
    stride: usize,
}

impl Rows<'_> {
    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> &[f32] {
        &self.numbers[row * self.stride + column..]
    }
}

/// Adds numbers, each times `by`. Whoever works on registers is inlined always: what is not is
/// compiled for other registers.
#[inline(always)]
fn add_times<S: Simd>(simd: S, sums: &mut [S::f32s], by: f32, numbers: &[S::f32s]) {
    let by = simd.splat_f32s(by);
    for (sum, x) in sums.iter_mut().zip(numbers) {
        *sum = simd.add_f32s(*sum, simd.mul_f32s(by, *x));
    }
}

/// Numbers in `N` registers, or in part of one.
#[inline(always)]
fn loaded<S: Simd, const N: usize>(simd: S, numbers: &[f32]) -> [S::f32s; N] {
    let mut registers = [simd.splat_f32s(0.0); N];
    let (whole, part) = S::as_simd_f32s(numbers);
    match part {
        [] => registers.copy_from_slice(&whole[..N]),
        part => registers[0] = simd.partial_load_f32s(part),
    }
    registers
}

/// The scores of `Q` queries, a row each, `[Q, K]` → their products with the keys of the positions
/// before `ahead`; a row of keys is one coordinate.
#[inline(always)]
fn score<S: Simd, const Q: usize>(
    simd: S,
    scores: &mut [f32],
    queries: &[f32],
    keys: &Rows,
    ahead: usize,
) {
    let mut at = 0;
    while at < ahead {
        at += match (ahead - at) / S::F32_LANES {
            0 | 1 => scored::<S, Q, 1>(simd, scores, queries, keys, at),
            _ => scored::<S, Q, 2>(simd, scores, queries, keys, at),
        };
    }
}

/// The same for `N` registers of positions from `from`; gives how many positions.
#[inline(always)]
fn scored<S: Simd, const Q: usize, const N: usize>(
    simd: S,
    scores: &mut [f32],
    queries: &[f32],
    keys: &Rows,
    from: usize,
) -> usize {
    let (k, lanes) = (queries.len() / Q, S::F32_LANES);
    let mut sums = [[simd.splat_f32s(0.0); N]; Q];
    for c in 0..k {
        let keys = S::as_simd_f32s(&keys.at(c, from)[..N * lanes]).0;
        for (i, sums) in sums.iter_mut().enumerate() {
            add_times(simd, sums, queries[i * k + c], keys);
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let scores = &mut scores[i * keys.stride + from..][..N * lanes];
        S::as_mut_simd_f32s(scores).0.copy_from_slice(sums);
    }
    N * lanes
}

/// The sums of values, a row a position, `[…, K]`, weighted by the scores of `Q` queries, a row
/// each; the first query sees `seen` positions, each after it one more. They are rows of `z` that
/// begin every `d` numbers.
#[inline(always)]
fn weigh<S: Simd, const Q: usize>(
    simd: S,
    z: &mut [f32],
    d: usize,
    weights: &Rows,
    values: &Rows,
    seen: usize,
    k: usize,
) {
    let mut at = 0;
    while at < k {
        at += match (k - at) / S::F32_LANES {
            0 => weighted::<S, Q, 1>(simd, z, d, weights, values, seen, at..k),
            1 => weighted::<S, Q, 1>(simd, z, d, weights, values, seen, at..at + S::F32_LANES),
            _ => weighted::<S, Q, 2>(simd, z, d, weights, values, seen, at..at + 2 * S::F32_LANES),
        };
    }
}

/// The same for columns that fill `N` registers, or a part of one; gives how many columns.
#[inline(always)]
fn weighted<S: Simd, const Q: usize, const N: usize>(
    simd: S,
    z: &mut [f32],
    d: usize,
    weights: &Rows,
    values: &Rows,
    seen: usize,
    columns: Range<usize>,
) -> usize {
    let width = columns.len();
    let mut sums = [[simd.splat_f32s(0.0); N]; Q];
    for s in 0..seen {
        let values = loaded::<S, N>(simd, &values.at(s, columns.start)[..width]);
        for (i, sums) in sums.iter_mut().enumerate() {
            add_times(simd, sums, weights.at(i, s)[0], &values);
        }
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        for s in seen..seen + i {
            let values = loaded::<S, N>(simd, &values.at(s, columns.start)[..width]);
            add_times(simd, sums, weights.at(i, s)[0], &values);
        }
        match S::as_mut_simd_f32s(&mut z[i * d + columns.start..][..width]) {
            (whole, []) => whole.copy_from_slice(sums),
            (_, part) => simd.partial_store_f32s(part, sums[0]),
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::Scalar;
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
        let rows = Contexts::of(&tokens);
        let qkv = model.projected(1, &model.embed_all(&tokens).unwrap()).unwrap();
        let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let all = model.gather(&qkv, &rows).unwrap();
        for i in 0..tokens.len() {
            let own = rows.of_one(&qkv, i).unwrap();
            let wanted = numbers(&model.look(&own).unwrap().z);
            let got = numbers(&rows.of_one(&all, i).unwrap());
            assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 2e-6), "{i}");
            // The same bits alone, and of the last position only.
            let rows_of_own = Contexts::of(&tokens[i..=i]);
            let alone = model.gather(&own, &rows_of_own).unwrap();
            assert_eq!(numbers(&alone), got, "{i}");
            let last = model.gather_for(Queries::Last, &own, &rows_of_own).unwrap();
            assert_eq!(numbers(&last), got[got.len() - model.sizes.d_model..], "{i}");
        }
    }

    #[test]
    fn heads_of_every_width_are_summed_whole() {
        for k in [1, 7, 8, 23, 24, 64, 90] {
            let (heads, tokens) = (2, 39);
            let d = heads * k;
            let draw = |i| (crate::stats::mix(k as u64, i) >> 40) as f32 / (1 << 23) as f32 - 1.0;
            let qkv: Vec<f32> = (0..(tokens * 3 * d) as u64).map(draw).collect();
            let mut z = vec![0.0; tokens * d];
            Arch::new().dispatch(Context { qkv: &qkv, z: &mut z, heads: Heads { heads, k } });
            // The same bits in registers of one number.
            let mut narrow = vec![0.0; tokens * d];
            Context { qkv: &qkv, z: &mut narrow, heads: Heads { heads, k } }.with_simd(Scalar);
            assert_eq!(narrow, z, "{k}");
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
