//! In which prompts' graphs features and components are, and at which positions of the prompts.

use super::circuit::flows;
use crate::atlas::model::{Atlas, Task};
use crate::ids::{Component, FeatureId};
use std::collections::{BTreeMap, BTreeSet};

/// A node of a prompt's graph.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Appearance<'a> {
    /// The task's place in the atlas.
    task: usize,
    /// The prompt's number in its task.
    prompt: u32,
    /// What stands at the node's position; empty where that is not known.
    place: &'a str,
    /// The part of the answer that goes through the node.
    flow: f64,
}

/// Where everything is.
#[derive(Default)]
pub(super) struct Appearances<'a> {
    features: BTreeMap<FeatureId, Vec<Appearance<'a>>>,
    components: BTreeMap<Component, Vec<Appearance<'a>>>,
}

/// What is known of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct InTask<'a> {
    pub task: usize,
    /// Prompts whose graph has it, those first in which most of the answer goes through it.
    pub prompts: Vec<u32>,
    /// Places with the number of prompts in which it is there, most first.
    pub places: Vec<(&'a str, usize)>,
}

impl<'a> Appearances<'a> {
    pub(super) fn of(atlas: &'a Atlas) -> Appearances<'a> {
        let mut all = Appearances::default();
        for (i, task) in atlas.tasks.iter().enumerate() {
            all.add(i, task);
        }
        all
    }

    fn add(&mut self, number: usize, task: &'a Task) {
        for prompt in &task.prompts {
            let Some(graph) = &prompt.graph else { continue };
            let (flow, _) = flows(&graph.circuit, task.method == "gradient");
            for (at, node) in graph.nodes().iter().enumerate() {
                let place = prompt.places.get(graph.position(at)).map_or("", String::as_str);
                let one = Appearance { task: number, prompt: graph.number, place, flow: flow[at] };
                if let Some(feature) = node.dictionary_feature() {
                    self.features.entry(feature).or_default().push(one);
                }
                if let Some(component) = node.component() {
                    self.components.entry(component).or_default().push(one);
                }
            }
        }
    }

    pub(super) fn feature(&self, id: FeatureId) -> Vec<InTask<'a>> {
        by_task(self.features.get(&id).map_or(&[], Vec::as_slice))
    }

    pub(super) fn component(&self, component: Component) -> Vec<InTask<'a>> {
        by_task(self.components.get(&component).map_or(&[], Vec::as_slice))
    }

    /// Where all of these features are in one graph.
    pub(super) fn together(&self, ids: &[FeatureId]) -> Vec<InTask<'a>> {
        let of = |id: &FeatureId| self.features.get(id).map_or(&[][..], Vec::as_slice);
        let graphs = |id: &FeatureId| -> BTreeSet<(usize, u32)> {
            of(id).iter().map(|one| (one.task, one.prompt)).collect()
        };
        let shared = ids.iter().map(graphs).reduce(|a, b| &a & &b).unwrap_or_default();
        let all = ids.iter().flat_map(of).copied();
        by_task(&all.filter(|one| shared.contains(&(one.task, one.prompt))).collect::<Vec<_>>())
    }
}

/// By task, in the order of the tasks.
fn by_task<'a>(all: &[Appearance<'a>]) -> Vec<InTask<'a>> {
    let tasks: BTreeSet<usize> = all.iter().map(|one| one.task).collect();
    let in_task = |task: usize| {
        let own = || all.iter().filter(move |one| one.task == task);
        let mut flow: BTreeMap<u32, f64> = BTreeMap::new();
        let mut places: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for one in own() {
            *flow.entry(one.prompt).or_default() += one.flow;
            places.entry(one.place).or_default().insert(one.prompt);
        }
        let mut prompts: Vec<(u32, f64)> = flow.into_iter().collect();
        // Stable: of as much flow, by number.
        prompts.sort_by(|a, b| b.1.total_cmp(&a.1));
        places.remove("");
        let mut places: Vec<(&str, usize)> =
            places.into_iter().map(|(name, prompts)| (name, prompts.len())).collect();
        places.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        InTask { task, prompts: prompts.into_iter().map(|p| p.0).collect(), places }
    };
    tasks.into_iter().map(in_task).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;

    #[test]
    fn a_feature_is_in_the_graphs_that_have_it_and_nowhere_else() {
        let atlas = fixture::atlas();
        let all = Appearances::of(&atlas);
        let mut found = 0;
        for feature in atlas.features.iter().take(6) {
            for own in all.feature(feature.id) {
                let has = |prompt: &u32| {
                    let graphs =
                        atlas.tasks[own.task].prompts.iter().filter_map(|p| p.graph.as_ref());
                    let graph = graphs.into_iter().find(|g| g.number == *prompt).unwrap();
                    graph.nodes().iter().any(|n| n.dictionary_feature() == Some(feature.id))
                };
                assert!(own.prompts.iter().all(has));
                let graphs = atlas.tasks[own.task].prompts.iter().filter(|p| p.graph.is_some());
                assert_eq!(
                    own.prompts.len(),
                    graphs.count(),
                    "the fixture's graphs have all of them"
                );
                let at: usize = own.places.iter().map(|place| place.1).sum();
                assert!(
                    at >= own.prompts.len()
                        && own.places.is_sorted_by_key(|p| std::cmp::Reverse(p.1))
                );
                found += 1;
            }
        }
        assert!(found > 0);
        let two = [atlas.features[0].id, atlas.features[1].id];
        assert_eq!(all.together(&two).len(), atlas.tasks.len());
        assert!(all.together(&[two[0], "att3.4095".parse().unwrap()]).is_empty());
        assert!(all.together(&[]).is_empty());
    }
}
