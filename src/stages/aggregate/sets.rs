//! Features that are looked at together: of a component, a pair, a group.

use super::WeightedSet;
use crate::artifact::tables::{CircuitFeature, CircuitPairRow, ClusterRow};
use crate::atlas::strongest;
use crate::error::Result;
use crate::ids::{Component, FeatureId, Subject};
use crate::stages::Run;
use std::collections::{BTreeMap, BTreeSet};

/// The features of each component over all tasks.
pub(super) fn clusters(serving: &[CircuitFeature], prompts: f64) -> Vec<(ClusterRow, WeightedSet)> {
    let mut members: BTreeMap<Component, BTreeMap<FeatureId, u32>> = BTreeMap::new();
    for row in serving {
        let own = members.entry(row.component).or_default();
        *own.entry(row.feature).or_default() += row.prompts;
    }
    let cluster = |(component, members): (Component, BTreeMap<FeatureId, u32>)| {
        let mut members: Vec<(FeatureId, u32)> = members.into_iter().collect();
        members.sort_by_key(|(feature, prompts)| (std::cmp::Reverse(*prompts), *feature));
        let row = ClusterRow {
            component,
            features: members.len() as u32,
            members: members.iter().map(|(feature, _)| *feature).collect(),
            weights: members.iter().map(|(_, prompts)| *prompts).collect(),
        };
        let members = members
            .into_iter()
            .map(|(feature, times)| (feature, f64::from(times) / prompts))
            .collect();
        (row, WeightedSet { subject: component.into(), members, weighted_examples: true })
    };
    members.into_iter().map(cluster).collect()
}

/// A member counts by the prompts in which it serves at the component where it does so most.
pub(super) fn pair_sets(
    pairs: &[CircuitPairRow],
    serving: &[CircuitFeature],
    prompts: f64,
) -> Vec<WeightedSet> {
    let mut at: BTreeMap<(FeatureId, Component), u32> = BTreeMap::new();
    for row in serving {
        *at.entry((row.feature, row.component)).or_default() += row.prompts;
    }
    let mut often: BTreeMap<FeatureId, u32> = BTreeMap::new();
    for ((feature, _), times) in at {
        let most = often.entry(feature).or_default();
        *most = (*most).max(times);
    }
    let strongest: BTreeSet<Subject> = strongest(pairs).into_values().flatten().collect();
    let weight = |feature: FeatureId| {
        (feature, f64::from(often.get(&feature).copied().unwrap_or(0)) / prompts)
    };
    let set = |subject: Subject| match subject {
        Subject::Pair(a, b) => Some(WeightedSet {
            subject,
            members: vec![weight(a), weight(b)],
            weighted_examples: false,
        }),
        _ => None,
    };
    strongest.into_iter().filter_map(set).collect()
}

pub(super) fn group_sets(run: &Run) -> Result<Vec<WeightedSet>> {
    let set = |group: &crate::config::Group| {
        let members = group.features.iter().map(|name| Ok((name.parse()?, 1.0)));
        Ok(WeightedSet {
            subject: Subject::Group(group.name.clone()),
            members: members.collect::<Result<_>>()?,
            weighted_examples: false,
        })
    };
    run.config.groups.iter().map(set).collect()
}
