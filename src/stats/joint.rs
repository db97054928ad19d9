//! Several features looked at as one: what they do together at each token (`docs/definitions.md`
//! §10).

use super::feature::TokenActivation;

/// The sum of several features' activations at each token, each times its scale; by context and
/// position.
///
/// `members` are activations by context and position; a feature scaled by one over its maximum
/// counts as much as any other.
pub fn summed(members: &[(&[TokenActivation], f64)]) -> Vec<TokenActivation> {
    let scaled = |&(activations, scale): &(&[TokenActivation], f64)| {
        activations
            .iter()
            .map(move |f| (f.context, f.position, f64::from(f.activation) * scale))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<(u32, u16, f64)> = members.iter().flat_map(scaled).collect();
    // Stable, so that what is added up at a token is added in the order of the members.
    all.sort_by_key(|&(context, position, _)| (context, position));
    let same = |a: &(u32, u16, f64), b: &(u32, u16, f64)| (a.0, a.1) == (b.0, b.1);
    all.chunk_by(same)
        .map(|at| TokenActivation {
            context: at[0].0,
            position: at[0].1,
            activation: at.iter().map(|x| x.2).sum::<f64>() as f32,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_at_one_token_are_added() {
        let at = |context, position, activation| TokenActivation { context, position, activation };
        let (f, g) = (vec![at(0, 1, 2.0), at(3, 5, 4.0)], vec![at(0, 1, 10.0), at(1, 2, 5.0)]);
        let sum = summed(&[(&f, 0.25), (&g, 0.1)]);
        assert_eq!(sum, [at(0, 1, 1.5), at(1, 2, 0.5), at(3, 5, 1.0)]);
    }
}
