//! From scores by prompt to a ranking of features, and to the smallest circuit that does the task.
//!
//! Prompts come in strata, such as the two orders of names, and features that tell the strata apart
//! support one and oppose the other. A mean over all prompts lets a circuit be good at one stratum
//! at the cost of the other, so means are taken within strata and mixed by weights that are moved
//! until no stratum is left behind.

use super::graph::{Graph, Node};
use crate::error::Result;
use crate::ids::FeatureId;
use std::collections::{BTreeMap, BTreeSet};

/// One number for each stratum.
pub(crate) type ByStratum = BTreeMap<String, f64>;

/// Mean scores by stratum.
pub(crate) type Means = BTreeMap<String, BTreeMap<FeatureId, f64>>;

/// Features by score, the largest first, ties by feature.
pub(crate) type Ranking = Vec<(FeatureId, f64)>;

/// Sums scores of prompts, by stratum.
#[derive(Default)]
pub struct Sums {
    strata: BTreeMap<String, (usize, BTreeMap<FeatureId, f64>)>,
}

impl Sums {
    /// Adds a prompt's scores, `times` being −1 where its answers are exchanged.
    pub fn add(&mut self, stratum: &str, scores: &BTreeMap<FeatureId, f64>, times: f64) {
        let (prompts, sum) = self.strata.entry(stratum.to_string()).or_default();
        *prompts += 1;
        scores
            .iter()
            .for_each(|(feature, score)| *sum.entry(*feature).or_insert(0.0) += times * score);
    }

    /// Each feature's mean score over the prompts of each stratum.
    pub fn means(self) -> Means {
        let mean = |(stratum, (prompts, sum)): (String, (usize, BTreeMap<FeatureId, f64>))| {
            (
                stratum,
                sum.into_iter().map(|(feature, sum)| (feature, sum / prompts as f64)).collect(),
            )
        };
        self.strata.into_iter().map(mean).collect()
    }
}

/// The same weight for each stratum.
pub fn equal(means: &Means) -> ByStratum {
    means.keys().map(|stratum| (stratum.clone(), 1.0 / means.len() as f64)).collect()
}

/// The weighted mean over strata, as a ranking.
pub fn ranking(means: &Means, weights: &ByStratum) -> Ranking {
    let mut sum: BTreeMap<FeatureId, f64> = BTreeMap::new();
    for (stratum, scores) in means {
        scores.iter().for_each(|(feature, score)| {
            *sum.entry(*feature).or_insert(0.0) += weights[stratum] * score
        });
    }
    let mut ranking: Ranking = sum.into_iter().filter(|(_, score)| *score != 0.0).collect();
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranking
}

/// The first features of a ranking that support the answer.
pub fn first(ranking: &Ranking, size: usize) -> BTreeSet<FeatureId> {
    ranking
        .iter()
        .filter(|(_, score)| *score > 0.0)
        .take(size)
        .map(|(feature, _)| *feature)
        .collect()
}

/// Features by the number of graphs that have them, ties by feature.
pub(crate) fn by_graphs<'g>(graphs: impl Iterator<Item = &'g Graph>) -> Vec<(FeatureId, u32)> {
    let mut counts: BTreeMap<FeatureId, u32> = BTreeMap::new();
    for graph in graphs {
        let features: BTreeSet<FeatureId> =
            graph.nodes.iter().filter_map(Node::dictionary_feature).collect();
        features.into_iter().for_each(|feature| *counts.entry(feature).or_default() += 1);
    }
    let mut ranked: Vec<(FeatureId, u32)> = counts.into_iter().collect();
    ranked.sort_by_key(|(feature, graphs)| (std::cmp::Reverse(*graphs), *feature));
    ranked
}

/// A circuit's size, and how its ranking was mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Features by their weighted mean score.
    pub ranking: Ranking,
    /// Features of the circuit, which are the first of the ranking.
    pub size: usize,
    /// What each stratum's mean is weighted by.
    pub weights: ByStratum,
    /// What it keeps in each stratum.
    pub kept: ByStratum,
}

/// The sizes that are tried: 10, 20 … and in ever larger steps up to `most`.
fn sizes(most: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut size = 10;
    while size < most {
        sizes.push(size);
        size += (size / 8).next_multiple_of(10).max(10);
    }
    sizes.push(most);
    sizes
}

/// The smallest circuit that keeps at least `faithful` in each stratum, by what `keeps` measures;
/// if none does, the smallest that is within a fiftieth of the best.
///
/// # Errors
/// When a circuit cannot be run.
pub fn choose(
    means: &Means,
    faithful: f64,
    most: usize,
    keeps: impl Fn(&BTreeSet<FeatureId>) -> Result<ByStratum>,
) -> Result<Choice> {
    const TRIES: usize = 5;
    let mut weights = equal(means);
    let mut tried: Vec<Choice> = Vec::new();
    for size in sizes(most) {
        let (mut step, mut behind_before) = (0.12, String::new());
        for _ in 0..if means.len() > 1 { TRIES } else { 1 } {
            let ranking = ranking(means, &weights);
            let kept = keeps(&first(&ranking, size))?;
            tried.push(Choice { ranking, size, weights: weights.clone(), kept });
            let (behind, worst) = lowest(&tried[tried.len() - 1].kept);
            if worst >= faithful {
                return Ok(tried.remove(tried.len() - 1));
            }
            // Weights only shift what is kept from one stratum to another: where none has enough,
            // none has any to give.
            if tried[tried.len() - 1].kept.values().all(|kept| *kept < faithful) {
                break;
            }
            if !behind_before.is_empty() && behind != behind_before {
                step /= 2.0;
            }
            raise(&mut weights, &behind, step);
            behind_before = behind;
        }
        // From the best mixture of this size on.
        let best = tried
            .iter()
            .filter(|choice| choice.size == size)
            .max_by(|a, b| worst(a).total_cmp(&worst(b)));
        weights = best.map_or(weights, |choice| choice.weights.clone());
    }
    let best = tried.iter().map(worst).fold(f64::NEG_INFINITY, f64::max);
    let near = tried.iter().position(|choice| worst(choice) >= best - 0.02).unwrap_or(0);
    Ok(tried.remove(near))
}

/// Takes features out of a circuit as long as it keeps `faithful` in each stratum, or what it keeps
/// now if that is less: again and again those without which it keeps most, each taken out alone to
/// know that; until a round takes out no more than a fiftieth.
///
/// # Errors
/// When a circuit cannot be run.
pub(crate) fn prune(
    mut circuit: BTreeSet<FeatureId>,
    faithful: f64,
    keeps: impl Fn(&BTreeSet<FeatureId>) -> Result<ByStratum>,
) -> Result<BTreeSet<FeatureId>> {
    let keeps = |circuit: &BTreeSet<FeatureId>| -> Result<f64> { Ok(lowest(&keeps(circuit)?).1) };
    let enough = faithful.min(keeps(&circuit)?);
    if enough <= 0.0 {
        // It keeps nothing that taking out could lose.
        return Ok(circuit);
    }
    loop {
        let without = |feature: &FeatureId| {
            let less = circuit.iter().filter(|other| *other != feature).copied().collect();
            Ok((*feature, keeps(&less)?))
        };
        let mut each = circuit.iter().map(without).collect::<Result<Vec<_>>>()?;
        each.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let rest = |n: usize| -> BTreeSet<FeatureId> {
            each.iter().skip(n).map(|(feature, _)| *feature).collect()
        };
        let mut at_once = circuit.len().div_ceil(5);
        while at_once > 0 && keeps(&rest(at_once))? < enough {
            at_once /= 2;
        }
        circuit = rest(at_once);
        // A round that takes out next to nothing costs as much as one that takes out much.
        if at_once * 50 <= circuit.len() {
            break;
        }
    }
    Ok(circuit)
}

fn worst(choice: &Choice) -> f64 {
    lowest(&choice.kept).1
}

/// The stratum that keeps least; nothing at all is kept of none.
fn lowest(kept: &ByStratum) -> (String, f64) {
    let least = kept.iter().min_by(|a, b| a.1.total_cmp(b.1));
    least.map_or((String::new(), 0.0), |(stratum, kept)| (stratum.clone(), *kept))
}

fn raise(weights: &mut ByStratum, stratum: &str, step: f64) {
    weights.entry(stratum.to_string()).and_modify(|weight| *weight *= 1.0 + step);
    let sum: f64 = weights.values().sum();
    weights.values_mut().for_each(|weight| *weight /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Kind;

    fn feature(index: usize) -> FeatureId {
        FeatureId::new(Kind::Mlp, 0, index)
    }

    /// Half of the features help both strata a little, one helps the first and hurts the second.
    fn means() -> Means {
        let scores = |own: f64| {
            (0..20).map(|i| (feature(i), if i == 7 { own } else { 1.0 / (i + 1) as f64 })).collect()
        };
        Means::from([("a".into(), scores(3.0)), ("b".into(), scores(-2.6))])
    }

    #[test]
    fn ties_are_by_feature_and_what_opposes_is_last() {
        let ranking = ranking(&means(), &equal(&means()));
        assert_eq!(ranking[0], (feature(0), 1.0));
        assert_eq!((ranking[5].0, ranking.len()), (feature(7), 20));
        assert_eq!(first(&ranking, 3), [0, 1, 2].map(feature).into());
    }

    #[test]
    fn an_exchanged_prompt_counts_against() {
        let mut sums = Sums::default();
        let scores = BTreeMap::from([(feature(1), 2.0)]);
        sums.add("", &scores, 1.0);
        sums.add("", &scores, -1.0);
        assert_eq!(sums.means()[""][&feature(1)], 0.0);
    }

    #[test]
    fn the_smallest_circuit_that_does_each_stratum_is_chosen() {
        // The first stratum is kept by any ten features, the second only without number 7.
        let keeps = |circuit: &BTreeSet<FeatureId>| {
            let second =
                if circuit.contains(&feature(7)) { 0.1 } else { circuit.len() as f64 / 12.0 };
            Ok(ByStratum::from([("a".into(), 1.0), ("b".into(), second)]))
        };
        let choice = choose(&means(), 0.8, 40, keeps).unwrap();
        assert_eq!(choice.size, 10);
        assert!(choice.weights["b"] > 0.5 && choice.kept["b"] >= 0.8, "{choice:?}");
    }

    #[test]
    fn where_none_holds_it_is_the_smallest_near_the_best() {
        let keeps = |circuit: &BTreeSet<FeatureId>| {
            Ok(ByStratum::from([("a".into(), 0.01 * circuit.len().min(15) as f64)]))
        };
        let one = Means::from([("a".into(), means()["a"].clone())]);
        let choice = choose(&one, 0.9, 40, keeps).unwrap();
        assert_eq!((choice.size, choice.kept["a"]), (20, 0.15));
    }

    #[test]
    fn pruning_leaves_what_is_needed() {
        let needed: BTreeSet<FeatureId> = [3, 11, 12].map(feature).into();
        let keeps = |circuit: &BTreeSet<FeatureId>| {
            let kept = needed.intersection(circuit).count() as f64 / 3.0;
            Ok(ByStratum::from([("a".into(), kept), ("b".into(), 1.0)]))
        };
        assert_eq!(prune((0..20).map(feature).collect(), 0.9, keeps).unwrap(), needed);
        // One that keeps nothing is left as it is, or nothing would be left of it.
        assert_eq!(
            prune([1, 2].map(feature).into(), 0.9, keeps).unwrap(),
            [1, 2].map(feature).into()
        );
        // One that keeps less than is asked for loses nothing more.
        assert_eq!(
            prune([1, 3, 11].map(feature).into(), 0.9, keeps).unwrap(),
            [3, 11].map(feature).into()
        );
    }

    #[test]
    fn sizes_end_with_the_most() {
        assert_eq!(sizes(45), [10, 20, 30, 40, 45]);
        assert_eq!(sizes(5), [5]);
        assert!(sizes(400).windows(2).all(|pair| pair[0] < pair[1]));
    }
}
