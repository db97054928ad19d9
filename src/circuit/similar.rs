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

/// A feature that writes like another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Its number among the features.
    pub number: usize,
    /// Of the two write directions.
    pub cosine: f32,
    /// In standard deviations of the cosine of random directions.
    pub z: f64,
}

/// The `k` others whose write directions are most similar to each feature's, the most similar first; only those that point the same way at all.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub fn nearest(
    replacement: &ReplacementModel,
    features: &[FeatureId],
    k: usize,
) -> Result<Vec<Vec<Near>>> {
    let (n, d) = (features.len(), replacement.model.sizes.d_model);
    let mut rows = write_directions(replacement, features)?;
    rows.iter_mut().for_each(|row| normalise(row));
    let all = Tensor::from_vec(rows.concat(), (n, d), &Device::Cpu)?;
    let mut nearest = Vec::with_capacity(n);
    for start in (0..n).step_by(AT_ONCE) {
        let cosines =
            all.narrow(0, start, AT_ONCE.min(n - start))?.matmul(&all.t()?)?.to_vec2::<f32>()?;
        nearest.par_extend(
            cosines.into_par_iter().enumerate().map(|(i, row)| largest(&row, start + i, k, d)),
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

fn largest(cosines: &[f32], own: usize, k: usize, dimensions: usize) -> Vec<Near> {
    let mut others: Vec<usize> =
        (0..cosines.len()).filter(|&i| i != own && cosines[i] > 0.0).collect();
    others.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]).then(a.cmp(&b)));
    others.truncate(k);
    // The cosine of random directions has a standard deviation of 1/√D.
    let z = |cosine: f32| f64::from(cosine) * (dimensions as f64).sqrt();
    let near = |number: usize| Near { number, cosine: cosines[number], z: z(cosines[number]) };
    others.into_iter().map(near).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_come_first_and_opposites_never() {
        let found = largest(&[0.5, 1.0, -0.9, 0.7, 0.5, 0.0], 1, 3, 16);
        let told: Vec<(usize, f32, f64)> =
            found.iter().map(|near| (near.number, near.cosine, near.z)).collect();
        assert_eq!(told, [(3, 0.7, 4.0 * f64::from(0.7f32)), (0, 0.5, 2.0), (4, 0.5, 2.0)]);
        assert_eq!(largest(&[1.0, -0.1], 0, 3, 16), []);
    }
}
