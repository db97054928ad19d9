//! Circuits that grow by influence: what flows where, recomputed by hand, and what must hold of it.

use crate::fixture::{Fixture, Search, assert_within, in_every_world, node_name};
use circuit_atlas::circuit::{
    Attribution, Candidates, Flow, Graph, Method, Node, NodeKind, Root, Slot, allowable, grow, influence,
};
use std::collections::{BTreeMap, BTreeSet};

in_every_world!(
    influences_are_those_that_the_links_give,
    nothing_is_made_or_lost_on_the_way,
    what_is_not_a_candidate_is_lost,
    the_strongest_open_node_is_never_left_out_for_a_weaker_one,
    more_coverage_only_adds_nodes,
    nodes_are_limited,
    coverage_is_reached_where_nothing_limits_it,
    what_is_left_out_is_told,
    all_candidate_links_between_linked_nodes_are_there,
    every_root_has_its_circuit_and_searches_share_candidates,
);

const ALL: usize = 10_000;

fn flow(f: &Fixture, prompt: usize, coverage: f64, nodes: usize) -> Flow {
    let attribution = f.attribution(prompt);
    let mut candidates = Candidates::new(&attribution, 10, &f.expected.settings.allow_words());
    influence(&mut candidates, f.root(prompt), coverage, nodes).unwrap()
}

fn roots(f: &Fixture, prompt: usize) -> [Root; 3] {
    let prompt = &f.expected.prompts[prompt];
    [f.root_of(prompt), Root::Logit(prompt.correct_id), Root::Logit(prompt.counter_id)]
}

/// What a slot takes of its receiver's influence, from the recorded pattern.
fn weight(attribution: &Attribution, node: &Node, slot: Slot) -> f64 {
    let pattern = || {
        let layer = &attribution.trace().layers[node.layer as usize];
        let [h, p, s] = [node.head, node.position, node.source].map(|x| x as usize);
        let a = layer.pattern.get(h).unwrap().get(p).unwrap().get(s).unwrap().to_scalar::<f32>().unwrap();
        f64::from(a)
    };
    match slot {
        Slot::In => 1.0,
        Slot::V => 1.0 / (1.0 + (1.0 - pattern())),
        Slot::Q | Slot::K => (1.0 - pattern()) / 2.0 / (1.0 + (1.0 - pattern())),
    }
}

/// The influence of a node by all paths from it to the root, link by link.
fn by_paths(attribution: &Attribution, graph: &Graph, node: Node, known: &mut BTreeMap<Node, f64>) -> f64 {
    if node == Node::ROOT {
        return 1.0;
    }
    if let Some(&influence) = known.get(&node) {
        return influence;
    }
    let links: Vec<_> = graph.edges.iter().filter(|edge| edge.child == node).copied().collect();
    let through = |edge: &circuit_atlas::circuit::Edge| {
        let above = by_paths(attribution, graph, edge.parent, known);
        above * weight(attribution, &edge.parent, edge.slot) * f64::from(edge.share)
    };
    let influence = links.iter().map(through).sum();
    known.insert(node, influence);
    influence
}

fn influences_are_those_that_the_links_give(f: &'static Fixture) {
    for prompt in 0..4 {
        for root in roots(f, prompt) {
            let attribution = f.attribution(prompt);
            let mut candidates = Candidates::new(&attribution, 10, &f.expected.settings.allow_words());
            let flow = influence(&mut candidates, root, 0.9, 60).unwrap();
            assert_eq!(flow.graph.nodes, flow.linked.keys().copied().collect::<Vec<_>>());
            let mut known = BTreeMap::new();
            for (node, found) in &flow.linked {
                let expected = by_paths(&attribution, &flow.graph, *node, &mut known);
                assert_within(&node_name(node), *found, expected, 1e-9);
            }
        }
    }
}

/// What the linked receivers lose: the shares of biases, and slots that nothing enters.
fn lost(attribution: &Attribution, root: Root, flow: &Flow) -> f64 {
    let mut lost = 0.0;
    for (node, influence) in &flow.linked {
        for &slot in node.slots() {
            let all = match node.kind {
                NodeKind::Root => attribution.on_root(root).unwrap(),
                _ => attribution.contributions(node, slot).unwrap(),
            };
            let share = if all.whole() > 0.0 { f64::from(all.bias.abs()) / all.whole() } else { 1.0 };
            lost += influence * weight(attribution, node, slot) * share;
        }
    }
    lost
}

/// What has come to rest: at nodes that are open, and at linked ones that receive nothing.
fn resting(flow: &Flow) -> f64 {
    let ends = flow.linked.iter().filter(|(node, _)| node.slots().is_empty());
    flow.open.values().chain(ends.map(|(_, influence)| influence)).sum()
}

/// With every kind allowed and every contributor a candidate, the root's 1 is all somewhere.
fn nothing_is_made_or_lost_on_the_way(f: &'static Fixture) {
    let allow: BTreeSet<String> = allowable().into_iter().map(String::from).collect();
    for root in roots(f, 0) {
        for nodes in [1, 5, 40] {
            let attribution = f.attribution(0);
            let mut candidates = Candidates::new(&attribution, ALL, &allow);
            let flow = influence(&mut candidates, root, 1.0, nodes).unwrap();
            assert_eq!(flow.linked.len(), nodes + 1);
            assert_within("all of it", resting(&flow) + lost(&attribution, root, &flow), 1.0, 1e-4);
        }
    }
}

fn what_is_not_a_candidate_is_lost(f: &'static Fixture) {
    let flow = flow(f, 0, 0.9, 40);
    let (attribution, root) = (f.attribution(0), f.root(0));
    let left = resting(&flow) + lost(&attribution, root, &flow);
    assert!(left > 0.05 && left < 1.0, "{left}");
}

/// Replays the search: before each node's turn it was the strongest of those that its linked receivers had opened.
fn the_strongest_open_node_is_never_left_out_for_a_weaker_one(f: &'static Fixture) {
    let mut before: Flow = flow(f, 1, 1.0, 1);
    for nodes in 2..30 {
        let after = flow(f, 1, 1.0, nodes);
        let new: Vec<_> = after.linked.keys().filter(|node| !before.linked.contains_key(node)).collect();
        let strongest = before.open.iter().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0)));
        assert_eq!(new, [strongest.unwrap().0], "node {nodes}");
        before = after;
    }
}

fn more_coverage_only_adds_nodes(f: &'static Fixture) {
    for prompt in 0..4 {
        let [few, many] = [0.5, 0.9].map(|coverage| flow(f, prompt, coverage, ALL).graph);
        let nodes: BTreeSet<Node> = many.nodes.iter().copied().collect();
        assert!(few.nodes.iter().all(|node| nodes.contains(node)), "prompt {prompt}");
        assert!(many.nodes.len() > few.nodes.len(), "prompt {prompt}");
        assert_eq!(many.edges[..few.edges.len()], few.edges[..], "links come in the same order");
    }
}

fn nodes_are_limited(f: &'static Fixture) {
    for limit in [1, 7, 25] {
        assert_eq!(flow(f, 0, 1.0, limit).graph.nodes.len(), limit + 1, "the root is not counted");
    }
}

fn coverage_is_reached_where_nothing_limits_it(f: &'static Fixture) {
    for coverage in [0.3, 0.8] {
        let flow = flow(f, 2, coverage, ALL);
        assert!(flow.left_out() <= 1.0 - coverage, "{}", flow.left_out());
        let last = flow.graph.edges.last().unwrap().child;
        assert!(flow.linked.contains_key(&last));
    }
}

fn what_is_left_out_is_told(f: &'static Fixture) {
    let flow = flow(f, 3, 1.0, 12);
    let linked: f64 = flow.linked.iter().filter(|(node, _)| **node != Node::ROOT).map(|(_, x)| x).sum();
    let open: f64 = flow.open.values().sum();
    assert!(open > 0.0 && linked > 0.0);
    assert_within("left out", flow.left_out(), open / (open + linked), 1e-12);
    let search = |method| Search { method, ..f.expected.settings.search() };
    let found = |method| {
        let (attribution, search) = (f.attribution(3), search(method));
        let mut candidates = Candidates::new(&attribution, search.candidates, &search.allow);
        grow(&mut candidates, f.root(3), search.method).unwrap()
    };
    let told = found(Method::Influence { coverage: 1.0, nodes: 12 });
    assert_within("told", told.left_out.unwrap(), flow.left_out(), 1e-12);
    assert!(found(Method::Greedy { passes: 2, per_node: 1 }).left_out.is_none());
}

fn all_candidate_links_between_linked_nodes_are_there(f: &'static Fixture) {
    let flow = flow(f, 0, 0.8, 80);
    let attribution = f.attribution(0);
    let mut candidates = Candidates::new(&attribution, 10, &f.expected.settings.allow_words());
    let mut wanted = BTreeSet::new();
    for node in flow.linked.keys() {
        for &slot in node.slots() {
            let ranked = match node.kind {
                NodeKind::Root => candidates.of_root(f.root(0)).unwrap(),
                _ => candidates.of(node, slot).unwrap(),
            };
            let linked = ranked.iter().filter(|candidate| flow.linked.contains_key(&candidate.node));
            wanted.extend(linked.map(|candidate| (candidate.node, *node, slot)));
        }
    }
    let links: Vec<_> = flow.graph.edges.iter().map(|edge| (edge.child, edge.parent, edge.slot)).collect();
    assert_eq!(links.iter().copied().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(links.len(), wanted.len(), "each link once");
}

/// Searches of several roots on the same candidates are those on candidates of their own.
fn every_root_has_its_circuit_and_searches_share_candidates(f: &'static Fixture) {
    let (attribution, search) = (f.attribution(0), f.expected.settings.search());
    for method in [search.method, Method::Influence { coverage: 0.7, nodes: 50 }] {
        let mut shared = Candidates::new(&attribution, search.candidates, &search.allow);
        let mut different = BTreeSet::new();
        for root in roots(f, 0) {
            let mut own = Candidates::new(&attribution, search.candidates, &search.allow);
            let [a, b] = [&mut shared, &mut own].map(|candidates| grow(candidates, root, method).unwrap().graph);
            assert_eq!((&a.nodes, &a.edges), (&b.nodes, &b.edges));
            different.insert(a.edges.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>());
            let to_root: f64 = a.edges.iter().filter(|e| e.parent == Node::ROOT).map(|e| f64::from(e.share)).sum();
            assert_within("coverage", a.coverage(), to_root, 1e-12);
        }
        assert_eq!(different.len(), 3, "three roots, three circuits");
    }
}
