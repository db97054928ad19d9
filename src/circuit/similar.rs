//! Which features write alike: the cosine of what they add to the residual stream, whatever their
//! layers and kinds.

use super::promote::write_directions;
use super::replacement::ReplacementModel;
use crate::error::Result;
use crate::ids::FeatureId;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Features held against all others at once.
const AT_ONCE: usize = 256;

/// The `k` others whose write directions are most similar to each feature's, by number and with the
/// cosine, the most similar first; only those that point the same way at all.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub fn nearest(
    replacement: &ReplacementModel,
    features: &[FeatureId],
    k: usize,
) -> Result<Vec<Vec<(usize, f32)>>> {
    let (n, d) = (features.len(), replacement.model.sizes.d_model);
    let mut rows = write_directions(replacement, features)?;
    rows.iter_mut().for_each(|row| normalise(row));
    let all = Tensor::from_vec(rows.concat(), (n, d), &Device::Cpu)?;
    let mut nearest = Vec::with_capacity(n);
    for start in (0..n).step_by(AT_ONCE) {
        let cosines =
            all.narrow(0, start, AT_ONCE.min(n - start))?.matmul(&all.t()?)?.to_vec2::<f32>()?;
        nearest.par_extend(
            cosines.into_par_iter().enumerate().map(|(i, row)| largest(&row, start + i, k)),
        );
    }
    Ok(nearest)
}

fn normalise(row: &mut [f32]) {
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|x| *x /= norm);
    }
}

fn largest(cosines: &[f32], own: usize, k: usize) -> Vec<(usize, f32)> {
    let mut others: Vec<usize> =
        (0..cosines.len()).filter(|&i| i != own && cosines[i] > 0.0).collect();
    others.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]).then(a.cmp(&b)));
    others.truncate(k);
    others.into_iter().map(|i| (i, cosines[i])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_come_first_and_opposites_never() {
        assert_eq!(largest(&[0.5, 1.0, -0.9, 0.7, 0.5, 0.0], 1, 3), [(3, 0.7), (0, 0.5), (4, 0.5)]);
        assert_eq!(largest(&[1.0, -0.1], 0, 3), []);
    }
}
