//! What of a task's summed graphs is drawn: the strongest nodes and links. Weaker features of a
//! dictionary are one node each place, weaker places one column.

use super::sum::{Amount, Ends, Key, Part, Sum};
use crate::ids::{DictionaryId, FeatureId};
use std::collections::{BTreeMap, BTreeSet};

/// What a column of several places is called.
pub(super) const ELSEWHERE: &str = "elsewhere";

/// How much a picture may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Features with a node of their own.
    pub features: usize,
    pub places: usize,
    pub links: usize,
    /// Nodes and links with less flow are left out.
    pub least: f64,
}

/// What is drawn, and how much is not.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// Name, and a token that stands there; empty for several places.
    pub places: Vec<(String, String)>,
    /// With the number of features that a node stands for, where it stands for several.
    pub nodes: Vec<(Key, Amount, usize)>,
    /// By places in `nodes`, the strongest first.
    pub links: Vec<(usize, usize, Ends, Amount)>,
    pub prompts: u32,
    /// Links into the answer that are not drawn: their summed flow.
    pub flow_left: f64,
    pub links_left: usize,
    /// Distinct features in no node that is drawn.
    pub features_left: usize,
}

pub(super) fn chosen(sum: Sum, most: Most) -> Choice {
    let sum = few_places(sum, most.places);
    let apart: BTreeSet<Key> =
        strongest(&sum, |part| matches!(part, Part::Feature(_)), most.features, most.least);
    let in_rest = |key: Key| match key.part {
        Part::Feature(feature) if !apart.contains(&key) => {
            Key { part: Part::Rest(feature.dictionary), ..key }
        }
        _ => key,
    };
    let mut members: BTreeMap<Key, BTreeSet<FeatureId>> = BTreeMap::new();
    for key in sum.nodes.keys() {
        if let Part::Feature(feature) = key.part {
            members.entry(in_rest(*key)).or_default().insert(feature);
        }
    }
    let all: BTreeSet<FeatureId> = members.values().flatten().copied().collect();
    let sum = sum.moved(in_rest);
    let (drawn, links) = linked(&sum, most);
    let seen: BTreeSet<FeatureId> =
        drawn.iter().filter_map(|key| members.get(key)).flatten().copied().collect();
    let into_answer = |key: &Ends| key.to.part == Part::Answer;
    let of_answer = |links: &mut dyn Iterator<Item = f64>| links.sum::<f64>();
    let all_in = of_answer(&mut sum.links.iter().filter(|(e, _)| into_answer(e)).map(|l| l.1.flow));
    let drawn_in = of_answer(&mut links.iter().filter(|l| into_answer(&l.0)).map(|l| l.1.flow));
    let numbers: BTreeMap<Key, usize> = drawn.iter().copied().zip(0..).collect();
    let count = |key: &Key| members.get(key).map_or(0, BTreeSet::len);
    let (links_left, features_left) = (sum.links.len() - links.len(), all.len() - seen.len());
    Choice {
        nodes: drawn.iter().map(|key| (*key, sum.nodes[key].clone(), count(key))).collect(),
        links: links
            .into_iter()
            .map(|(ends, amount)| (numbers[&ends.from], numbers[&ends.to], ends, amount))
            .collect(),
        prompts: sum.prompts,
        flow_left: (all_in - drawn_in).max(0.0),
        links_left,
        features_left,
        places: sum.places,
    }
    .without_empty_places()
}

/// The keys of so many nodes with most flow.
fn strongest(sum: &Sum, of: impl Fn(Part) -> bool, most: usize, least: f64) -> BTreeSet<Key> {
    let own = |(key, amount): &(&Key, &Amount)| of(key.part) && amount.flow >= least;
    let mut all: Vec<(&Key, &Amount)> = sum.nodes.iter().filter(own).collect();
    all.sort_by(|a, b| b.1.flow.total_cmp(&a.1.flow).then(a.0.cmp(b.0)));
    all.into_iter().take(most).map(|(key, _)| *key).collect()
}

/// The places through which most goes stay; all others are one, the first.
fn few_places(mut sum: Sum, most: usize) -> Sum {
    let n = sum.places.len();
    let mut flow = vec![0.0; n];
    for (key, amount) in &sum.nodes {
        // The answer's place is kept.
        flow[key.place] += if key.part == Part::Answer { f64::INFINITY } else { amount.flow };
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| flow[b].total_cmp(&flow[a]).then(a.cmp(&b)));
    let kept: BTreeSet<usize> = order.into_iter().take(most).collect();
    if kept.len() == n {
        return sum;
    }
    let numbers: BTreeMap<usize, usize> = kept.iter().copied().zip(1..).collect();
    let elsewhere = (ELSEWHERE.to_string(), String::new());
    let places = std::mem::take(&mut sum.places);
    sum.places = [elsewhere].into_iter().chain(kept.iter().map(|&i| places[i].clone())).collect();
    sum.moved(|key| Key { place: numbers.get(&key.place).copied().unwrap_or(0), ..key })
}

/// The nodes that are drawn, and their links. A node with a way to the answer keeps its strongest
/// link upwards, so that no node hangs in the air.
fn linked(sum: &Sum, most: Most) -> (Vec<Key>, Vec<(Ends, Amount)>) {
    let mut links: Vec<(&Ends, &Amount)> = sum.links.iter().collect();
    links.sort_by(|a, b| b.1.flow.total_cmp(&a.1.flow).then(a.0.cmp(b.0)));
    let mut upwards: BTreeMap<Key, Ends> = BTreeMap::new();
    for (ends, _) in &links {
        upwards.entry(ends.from).or_insert(**ends);
    }
    let strong = |amount: &Amount| amount.flow >= most.least;
    let mut wanted: BTreeSet<Ends> =
        links.iter().take(most.links).filter(|(_, a)| strong(a)).map(|(ends, _)| **ends).collect();
    // From the ends of what is wanted up to the answer.
    let mut open: Vec<Key> = wanted.iter().flat_map(|ends| [ends.from, ends.to]).collect();
    let mut seen = BTreeSet::new();
    while let Some(key) = open.pop() {
        if seen.insert(key)
            && !wanted.iter().any(|ends| ends.from == key)
            && let Some(ends) = upwards.get(&key)
        {
            wanted.insert(*ends);
            open.push(ends.to);
        }
    }
    let answer = sum.nodes.keys().filter(|key| key.part == Part::Answer).copied();
    let mut nodes: Vec<Key> = seen.into_iter().chain(answer).collect();
    nodes.sort();
    nodes.dedup();
    links.retain(|(ends, _)| wanted.contains(ends));
    (nodes, links.into_iter().map(|(ends, amount)| (*ends, amount.clone())).collect())
}

impl Choice {
    fn without_empty_places(mut self) -> Choice {
        let used: BTreeSet<usize> = self.nodes.iter().map(|(key, ..)| key.place).collect();
        let numbers: BTreeMap<usize, usize> = used.iter().copied().zip(0..).collect();
        self.places = used.iter().map(|&i| self.places[i].clone()).collect();
        let of_links = self.links.iter_mut().flat_map(|link| [&mut link.2.from, &mut link.2.to]);
        let keys = self.nodes.iter_mut().map(|node| &mut node.0).chain(of_links);
        keys.for_each(|key| key.place = numbers[&key.place]);
        self
    }

    /// Of a node that stands for several features: whether these are all of the dictionary that are
    /// at its place.
    pub(super) fn alone(&self, key: Key, dictionary: DictionaryId) -> bool {
        let same = |other: &Key| {
            other.place == key.place
                && matches!(other.part, Part::Feature(f) if f.dictionary == dictionary)
        };
        !self.nodes.iter().any(|(other, ..)| same(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;

    fn choice(features: usize, places: usize, links: usize) -> (Sum, Choice) {
        let sum = Sum::of(&fixture::atlas().tasks[0]);
        let most = Most { features, places, links, least: 0.001 };
        (sum.clone(), chosen(sum, most))
    }

    #[test]
    fn what_is_not_apart_is_summed_up_and_nothing_is_lost() {
        let (sum, all) = choice(1000, 1000, 100_000);
        let (_, few) = choice(3, 1000, 100_000);
        let apart =
            |c: &Choice| c.nodes.iter().filter(|n| matches!(n.0.part, Part::Feature(_))).count();
        assert!(apart(&few) <= 3 && apart(&all) > 3);
        let rest: usize =
            few.nodes.iter().filter(|n| matches!(n.0.part, Part::Rest(_))).map(|n| n.2).sum();
        assert!(rest > 0);
        // What enters the answer is the same, drawn or told of.
        for choice in [&all, &few] {
            let drawn: f64 =
                choice.links.iter().filter(|l| l.2.to.part == Part::Answer).map(|l| l.3.flow).sum();
            let whole: f64 = sum
                .links
                .iter()
                .filter(|(e, _)| e.to.part == Part::Answer)
                .map(|(_, a)| a.flow)
                .sum();
            assert!((drawn + choice.flow_left - whole).abs() < 1e-9);
        }
    }

    #[test]
    fn every_node_has_a_way_to_the_answer_and_links_are_few() {
        let (_, few) = choice(6, 2, 5);
        assert!(few.places.len() <= 3 && few.links_left > 0, "{:?}", few.places);
        let same = |at: usize, key: &Key| few.nodes[at].0 == *key && key.place < few.places.len();
        assert!(few.links.iter().all(|l| same(l.0, &l.2.from) && same(l.1, &l.2.to)));
        let answer = few.nodes.iter().position(|n| n.0.part == Part::Answer).unwrap();
        for at in 0..few.nodes.len() {
            let mut seen = BTreeSet::from([at]);
            let mut open = vec![at];
            while let Some(node) = open.pop() {
                for link in few.links.iter().filter(|l| l.0 == node) {
                    if seen.insert(link.1) {
                        open.push(link.1);
                    }
                }
            }
            assert!(seen.contains(&answer), "{:?}", few.nodes[at].0);
        }
    }
}
