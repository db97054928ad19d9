//! Statistics of one feature over a corpus (`docs/definitions.md` §8). Special tokens are in no
//! number but their own.

use std::collections::BTreeMap;

/// Bins of a histogram of activations.
pub(crate) const BINS: usize = 50;

/// A feature's activation at a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenActivation {
    /// The context's number.
    pub context: u32,
    /// The token's position in the context.
    pub position: u16,
    /// How active the feature is there.
    pub activation: f32,
}

/// What a feature does over the tokens that count.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Tokens at which it is active.
    pub active: u64,
    /// `active` over all tokens that count.
    pub density: f64,
    /// Mean over the tokens at which it is active; none if there are none.
    pub mean_active: Option<f64>,
    /// Largest activation.
    pub max: f32,
    /// Special tokens at which it is active.
    pub special_active: u64,
    /// Equal bins on (0, max]; a value on an edge belongs to the upper bin, the maximum to the
    /// last.
    pub histogram: Vec<u64>,
    /// Share of the summed activation by token id, largest first.
    pub mass: Vec<(u32, f64)>,
}

/// `activations` of one feature, ordered by context and position; `token(context, position)` gives
/// the id there, or none for a token that does not count; `tokens` is the number of tokens that
/// count.
pub fn statistics(
    activations: &[TokenActivation],
    tokens: u64,
    token: impl Fn(u32, u16) -> Option<u32>,
    top: usize,
) -> Statistics {
    let counted: Vec<(u32, f32)> = activations
        .iter()
        .filter_map(|f| Some((token(f.context, f.position)?, f.activation)))
        .collect();
    let max = counted.iter().map(|x| x.1).fold(0.0, f32::max);
    let mut mass: BTreeMap<u32, f64> = BTreeMap::new();
    for &(id, activation) in &counted {
        *mass.entry(id).or_insert(0.0) += f64::from(activation);
    }
    let whole: f64 = counted.iter().map(|x| f64::from(x.1)).sum();
    let mut mass: Vec<(u32, f64)> = mass.into_iter().map(|(id, sum)| (id, sum / whole)).collect();
    mass.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    mass.truncate(top);
    let active = counted.len() as u64;
    Statistics {
        active,
        density: if tokens > 0 { active as f64 / tokens as f64 } else { 0.0 },
        mean_active: (active > 0).then(|| whole / active as f64),
        max,
        special_active: activations.len() as u64 - active,
        histogram: histogram(counted.iter().map(|x| x.1), max),
        mass,
    }
}

fn histogram(values: impl Iterator<Item = f32>, max: f32) -> Vec<u64> {
    let mut bins = vec![0; BINS];
    for value in values {
        let bin = (f64::from(value) / f64::from(max) * BINS as f64) as usize;
        bins[bin.min(BINS - 1)] += 1;
    }
    bins
}
/// A histogram of values: the middles of equal bins from the smallest to the largest, and how many
/// are in each.
pub(crate) fn bars(values: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let ends = values.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &value| {
        [low.min(value), high.max(value)]
    });
    let [low, high] = ends.map(f64::from);
    if values.is_empty() || high <= low {
        return (Vec::new(), Vec::new());
    }
    let width = (high - low) / BINS as f64;
    let mut heights = vec![0.0; BINS];
    for value in values {
        let bin = (f64::from(*value) - low) / width;
        heights[(bin as usize).min(BINS - 1)] += 1.0;
    }
    ((0..BINS).map(|bin| low + (bin as f64 + 0.5) * width).collect(), heights)
}
