//! The graphs of a task's prompts, added up: nodes by what they are and what stands at their
//! position.

use crate::atlas::model::{Circuit, Link, PromptGraph, Task};
use crate::ids::{Component, DictionaryId, FeatureId, Kind, NodeKind, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// What a node is, whatever its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Answer,
    Head(Component),
    Feature(FeatureId),
    /// Several features of a dictionary, made by `choice`.
    Rest(DictionaryId),
    Error(DictionaryId),
    /// Biases of all layers.
    Bias,
    Embedding,
}

/// A part at a place: the number of the place in [`Sum::places`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub part: Part,
    pub place: usize,
}

/// A link of several prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ends {
    pub from: Key,
    pub to: Key,
    pub slot: Slot,
}

/// How often, and how much of the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Amount {
    /// Prompts that have it.
    pub prompts: BTreeSet<u32>,
    /// The flow through it, mean over the task's prompts with a circuit.
    pub flow: f64,
    /// The same with the sign of each link's effect; of links only.
    pub signed: f64,
}

/// A task's graphs in one.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    /// What stands at positions, from the left: name, and the token of the first prompt that has it.
    pub places: Vec<(String, String)>,
    pub nodes: BTreeMap<Key, Amount>,
    pub links: BTreeMap<Ends, Amount>,
    /// Prompts that were added.
    pub prompts: u32,
}

/// Of each node and of each link the part of the answer that goes through it, signs aside. What
/// enters the answer has its share. Of what goes through a node, each link into it has its share; a
/// head's is divided among the slots that have links, `by_effect` by their summed effects, else
/// evenly.
pub(crate) fn flows(circuit: &Circuit, by_effect: bool) -> (Vec<f64>, Vec<f64>) {
    let n = circuit.nodes.len();
    let (mut nodes, mut links) = (vec![0.0; n], vec![0.0; circuit.links.len()]);
    let (mut open, mut into) = (vec![0usize; n], vec![Vec::new(); n]);
    for (i, link) in circuit.links.iter().enumerate() {
        open[link.from] += 1;
        into[link.to].push(i);
    }
    let mut ready: Vec<usize> = (0..n).filter(|&at| open[at] == 0).collect();
    while let Some(at) = ready.pop() {
        if circuit.nodes[at].kind == NodeKind::Root {
            nodes[at] = 1.0;
        }
        let weights = slot_weights(into[at].iter().map(|&i| &circuit.links[i]), by_effect);
        for &i in &into[at] {
            let link = &circuit.links[i];
            let weight = weights.get(&link.slot).copied().unwrap_or(0.0);
            links[i] = nodes[at] * f64::from(link.share) * weight;
            nodes[link.from] += links[i];
            open[link.from] -= 1;
            if open[link.from] == 0 {
                ready.push(link.from);
            }
        }
    }
    (nodes, links)
}

/// The part of a receiver's flow that goes into each of its slots.
fn slot_weights<'a>(links: impl Iterator<Item = &'a Link>, by_effect: bool) -> BTreeMap<Slot, f64> {
    let mut sums: BTreeMap<Slot, f64> = BTreeMap::new();
    for link in links {
        let sum = sums.entry(link.slot).or_default();
        *sum = if by_effect { *sum + f64::from(link.effect.abs()) } else { 1.0 };
    }
    let all: f64 = sums.values().sum();
    sums.values_mut().for_each(|sum| *sum = if all > 0.0 { *sum / all } else { 0.0 });
    sums
}

impl Sum {
    /// The graphs of all prompts whose places are known.
    pub(super) fn of(task: &Task) -> Sum {
        let mut sum = Sum::default();
        let mut places = Places::default();
        for prompt in &task.prompts {
            let Some(graph) = &prompt.graph else { continue };
            if prompt.places.len() == graph.tokens.len() {
                sum.prompts += 1;
                let numbers = places.numbers(&prompt.places, graph);
                sum.add(graph, &numbers, task.method == "gradient");
            }
        }
        let n = f64::from(sum.prompts.max(1));
        for amount in sum.nodes.values_mut().chain(sum.links.values_mut()) {
            amount.flow /= n;
            amount.signed /= n;
        }
        let order = places.order();
        sum.places = order.iter().map(|&old| places.named(old)).collect();
        let new: BTreeMap<usize, usize> = order.into_iter().zip(0..).collect();
        sum.moved(|key| Key { place: new[&key.place], ..key })
    }

    fn add(&mut self, graph: &PromptGraph, places: &[usize], by_effect: bool) {
        let circuit = &graph.circuit;
        let (nodes, links) = flows(circuit, by_effect);
        let key =
            |at: usize| Some(Key { part: part(graph, at)?, place: places[graph.position(at)] });
        for (at, flow) in nodes.iter().enumerate() {
            if let Some(key) = key(at) {
                self.nodes.entry(key).or_default().add(graph.number, *flow, 0.0);
            }
        }
        for (link, flow) in circuit.links.iter().zip(&links) {
            if let (Some(from), Some(to)) = (key(link.from), key(link.to)) {
                let ends = Ends { from, to, slot: link.slot };
                let signed = flow * f64::from(link.effect.signum());
                self.links.entry(ends).or_default().add(graph.number, *flow, signed);
            }
        }
    }

    /// The same with other keys; what has one key then is one. Links from a node to itself go.
    pub(super) fn moved(self, new: impl Fn(Key) -> Key) -> Sum {
        let (mut nodes, mut links) = (BTreeMap::<Key, Amount>::new(), BTreeMap::new());
        for (key, amount) in self.nodes {
            nodes.entry(new(key)).or_default().merge(amount);
        }
        for (ends, amount) in self.links {
            let moved = Ends { from: new(ends.from), to: new(ends.to), ..ends };
            if moved.from != moved.to {
                links.entry(moved).or_insert_with(Amount::default).merge(amount);
            }
        }
        Sum { nodes, links, ..self }
    }
}

impl Amount {
    fn add(&mut self, prompt: u32, flow: f64, signed: f64) {
        self.prompts.insert(prompt);
        self.flow += flow;
        self.signed += signed;
    }

    fn merge(&mut self, other: Amount) {
        self.prompts.extend(other.prompts);
        self.flow += other.flow;
        self.signed += other.signed;
    }
}

/// What a node of a graph is; none for a head that has no layer.
fn part(graph: &PromptGraph, at: usize) -> Option<Part> {
    let node = &graph.nodes()[at];
    let of = |kind| DictionaryId { layer: node.layer(), kind };
    Some(match node.kind {
        NodeKind::Root => Part::Answer,
        NodeKind::Head => Part::Head(node.component()?),
        NodeKind::AttentionFeature | NodeKind::MlpFeature => Part::Feature(graph.feature(at)?),
        NodeKind::AttentionError => Part::Error(of(Kind::Attention)),
        NodeKind::MlpError => Part::Error(of(Kind::Mlp)),
        NodeKind::Bias(_) => Part::Bias,
        NodeKind::Embedding | NodeKind::PositionEmbedding => Part::Embedding,
    })
}

/// The places of all prompts as they come up.
#[derive(Default)]
struct Places {
    numbers: BTreeMap<String, usize>,
    /// Name, an example, summed position as a share of the prompt, and how often.
    all: Vec<(String, String, f64, f64)>,
}

impl Places {
    /// The number of what stands at each position of a prompt.
    fn numbers(&mut self, places: &[String], graph: &PromptGraph) -> Vec<usize> {
        let mut numbers = Vec::with_capacity(places.len());
        for (p, name) in places.iter().enumerate() {
            let next = self.all.len();
            let number = *self.numbers.entry(name.clone()).or_insert(next);
            if number == next {
                self.all.push((name.clone(), graph.tokens[p].1.clone(), 0.0, 0.0));
            }
            self.all[number].2 += p as f64 / places.len() as f64;
            self.all[number].3 += 1.0;
            numbers.push(number);
        }
        numbers
    }

    /// From the left of the prompts to their ends.
    fn order(&self) -> Vec<usize> {
        let at = |i: &usize| self.all[*i].2 / self.all[*i].3;
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by(|a, b| at(a).total_cmp(&at(b)).then(a.cmp(b)));
        order
    }

    fn named(&self, number: usize) -> (String, String) {
        (self.all[number].0.clone(), self.all[number].1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;
    use crate::atlas::model::Node;

    #[test]
    fn the_answer_s_flow_is_divided_and_none_is_made() {
        let at = |kind| Node::at(kind, 0, 0);
        let kinds = [NodeKind::AttentionFeature, NodeKind::Head, NodeKind::Embedding];
        let link = |from, to, slot, effect, share| Link { from, to, slot, effect, share };
        let links = vec![
            link(1, 0, Slot::In, 1.0, 0.5),
            link(3, 0, Slot::In, 1.0, 0.25),
            link(2, 1, Slot::In, 1.0, 1.0),
            link(3, 2, Slot::Q, -3.0, 0.5),
            link(3, 2, Slot::V, 1.0, 1.0),
        ];
        let nodes: Vec<Node> = [Node::ROOT].into_iter().chain(kinds.map(at)).collect();
        let circuit = Circuit { activations: vec![None; nodes.len()], nodes, links };
        // Three quarters of the head's flow enter its query, of which the link has a half.
        let (nodes, links) = flows(&circuit, true);
        assert_eq!(links, [0.5, 0.25, 0.5, 0.1875, 0.125]);
        assert_eq!(nodes, [1.0, 0.5, 0.5, 0.25 + 0.1875 + 0.125]);
        let (_, links) = flows(&circuit, false);
        assert_eq!(links, [0.5, 0.25, 0.5, 0.125, 0.25]);
    }

    #[test]
    fn a_sum_has_every_prompt_and_its_flows_are_means() {
        let atlas = fixture::atlas();
        let task = &atlas.tasks[0];
        let sum = Sum::of(task);
        let graphs: Vec<&PromptGraph> =
            task.prompts.iter().filter_map(|p| p.graph.as_ref()).collect();
        assert_eq!(sum.prompts as usize, graphs.len());
        let answer: Vec<&Amount> = sum
            .nodes
            .iter()
            .filter(|(key, _)| key.part == Part::Answer)
            .map(|(_, amount)| amount)
            .collect();
        assert!(answer.len() == 1 && (answer[0].flow - 1.0).abs() < 1e-9);
        assert_eq!(answer[0].prompts.len(), graphs.len());
        let into: f64 =
            sum.links.iter().filter(|(e, _)| e.to.part == Part::Answer).map(|(_, a)| a.flow).sum();
        let shares = |graph: &&PromptGraph| -> f64 {
            graph.links().iter().filter(|l| l.to == 0).map(|l| f64::from(l.share)).sum()
        };
        let mean = graphs.iter().map(shares).sum::<f64>() / graphs.len() as f64;
        assert!((into - mean).abs() < 1e-9, "{into} {mean}");
        assert!(sum.links.values().all(|a| a.signed.abs() <= a.flow + 1e-12));
        assert_eq!(sum.places.last().map(|place| place.0.as_str()), Some("last token"));
    }
}
