//! Whether the heads in `z` are in another order than the model's.
//!
//! What a dictionary writes into a head's coordinates looks like what that head computes: the
//! second moments of its decoder's rows, `W_dec[:, h]ᵀ·W_dec[:, h]`, are most like those of the
//! activations of the head that it was trained on. Trying all orders would cost a reading each;
//! this costs less than one.

use crate::dictionary::Dictionary;
use crate::error::Result;
use candle_core::Tensor;

/// A swap of two heads is looked at when it makes the likeness (a cosine each) larger by this.
const LIKER: f64 = 1e-3;

/// Which head of the model each head of the dictionary is most like, where that is not itself for
/// all. Of `z [T, H·K]`.
pub(super) fn order(
    dictionary: &Dictionary,
    z: &Tensor,
    heads: usize,
) -> Result<Option<Vec<usize>>> {
    let parts = dictionary.by_parts(|rows| moments(&rows, heads))?;
    let (written, found) = (sum(parts), moments(&of_one_length(z)?, heads)?);
    let like: Vec<Vec<f64>> =
        written.iter().map(|a| found.iter().map(|b| cosine(a, b)).collect()).collect();
    let mut order: Vec<usize> = (0..heads).collect();
    // The swap that helps most, until none does.
    loop {
        let mut best = (LIKER, None);
        for i in 0..heads {
            for j in i + 1..heads {
                let (a, b) = (order[i], order[j]);
                let gain = like[i][b] + like[j][a] - like[i][a] - like[j][b];
                if gain > best.0 {
                    best = (gain, Some((i, j)));
                }
            }
        }
        let Some((i, j)) = best.1 else { break };
        order.swap(i, j);
    }
    Ok((!order.iter().enumerate().all(|(i, head)| i == *head)).then_some(order))
}

/// Rows divided by their lengths, so that the longest do not decide.
fn of_one_length(rows: &Tensor) -> Result<Tensor> {
    let lengths = rows.sqr()?.sum_keepdim(1)?.sqrt()?.clamp(f32::MIN_POSITIVE, f32::MAX)?;
    Ok(rows.broadcast_div(&lengths)?)
}

/// Second moments of each head's coordinates, `K × K` numbers a head, of `rows [n, H·K]`.
fn moments(rows: &Tensor, heads: usize) -> Result<Vec<Vec<f32>>> {
    let k = rows.dim(1)? / heads;
    let of = |head: usize| -> Result<Vec<f32>> {
        let own = rows.narrow(1, head * k, k)?;
        Ok(own.t()?.matmul(&own)?.flatten_all()?.to_vec1()?)
    };
    (0..heads).map(of).collect()
}

/// Sums of the moments of parts.
fn sum(parts: Vec<Vec<Vec<f32>>>) -> Vec<Vec<f32>> {
    let onto = |mut sums: Vec<Vec<f32>>, part: Vec<Vec<f32>>| {
        let each = sums.iter_mut().flatten().zip(part.iter().flatten());
        each.for_each(|(sum, x)| *sum += x);
        sums
    };
    parts.into_iter().reduce(onto).unwrap_or_default()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let size = (dot(a, a) * dot(b, b)).sqrt();
    // An idle head is like none.
    if size > 0.0 { dot(a, b) / size } else { 0.0 }
}

/// `[T, H·K]` with the heads in another order.
pub(super) fn reordered(z: &Tensor, order: &[usize]) -> Result<Tensor> {
    let k = z.dim(1)? / order.len();
    let heads =
        order.iter().map(|&head| Ok(z.narrow(1, head * k, k)?)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&heads, 1)?)
}

/// The coordinates of the heads that are out of their place.
pub(super) fn moved(rows: &Tensor, order: &[usize]) -> Result<Tensor> {
    let k = rows.dim(1)? / order.len();
    let heads = (0..order.len())
        .filter(|&i| order[i] != i)
        .map(|i| Ok(rows.narrow(1, i * k, k)?))
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&heads, 1)?)
}

/// `[T, H·K]` with a head's coordinates apart from each other: `[T, K·H]`.
pub(super) fn by_coordinate(z: &Tensor, heads: usize) -> Result<Tensor> {
    let (t, d) = z.dims2()?;
    Ok(z.reshape((t, heads, d / heads))?.transpose(1, 2)?.contiguous()?.reshape((t, d))?)
}

/// An order of heads in words.
pub(super) fn in_words(order: &[usize]) -> String {
    let moved: Vec<usize> = (0..order.len()).filter(|&i| order[i] != i).collect();
    if let [a, b] = moved[..] {
        return format!("with heads {a} and {b} of `z` swapped");
    }
    let heads: Vec<String> = order.iter().map(usize::to_string).collect();
    format!("with the heads of `z` in the order {}", heads.join(", "))
}
