//! Circuits by influence: against direct effects taken one receiver at a time, against
//! `prune_graph` in plain loops, and against PyTorch.

use crate::bench::REPOSITORY;
use crate::fixture::{Fixture, Search, assert_within, in_every_world, node_name};
use crate::gradient::demo_world;
use circuit_atlas::circuit::{
    Attribution, Candidates, Growth, Node, PrunedGraph, Root, allowable, grow, influences,
    influences_of_terms,
};
use circuit_atlas::ids::FeatureId;
use circuit_atlas::ids::{NodeKind, Slot};
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

in_every_world!(
    influences_are_those_that_the_direct_effects_give,
    features_sum_over_positions,
    each_receiver_hands_on_all_that_it_has,
    terms_and_links_are_those_of_prune_graph,
    more_coverage_keeps_what_less_kept,
    features_and_errors_are_limited,
    only_allowed_kinds_are_nodes,
    what_is_left_out_is_told,
    a_link_into_an_attention_feature_is_split_by_head,
    edges_have_the_effects_and_shares_of_their_slots,
    every_root_has_its_circuit,
);

const ALL: usize = 10_000;

fn roots(f: &Fixture, prompt: usize) -> [Root; 3] {
    let prompt = &f.expected.prompts[prompt];
    [f.root_of(prompt), Root::Logit(prompt.correct_id), Root::Logit(prompt.counter_id)]
}

fn words(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn every_kind() -> BTreeSet<String> {
    allowable().into_iter().map(String::from).collect()
}

fn found(
    attribution: &Attribution,
    root: Root,
    coverage: f64,
    nodes: usize,
    allow: &BTreeSet<String>,
) -> PrunedGraph {
    let mut candidates = Candidates::new(attribution, 1, allow);
    grow(&mut candidates, root, Growth::Influence { coverage, nodes }).unwrap()
}

/// A term that has influence: biases have none, and the token's embedding stands for the position's
/// too.
fn term(node: &Node) -> Option<Node> {
    match node.kind {
        NodeKind::Bias(_) => None,
        NodeKind::PositionEmbedding => Some(Node { kind: NodeKind::Embedding, ..*node }),
        _ => Some(*node),
    }
}

/// Direct effects of terms on a receiver, on an attention feature through all its heads.
fn direct(attribution: &Attribution, node: &Node, root: Root) -> BTreeMap<Node, f64> {
    let mut effects = BTreeMap::new();
    let all = match node.kind {
        NodeKind::Root => attribution.on_root(root).unwrap(),
        _ => attribution.contributions(node, Slot::In).unwrap(),
    };
    for (child, effect) in all.nodes.iter().zip(&all.effects) {
        if child.kind == NodeKind::Head {
            let value = attribution.contributions(child, Slot::V).unwrap();
            for (child, effect) in value.nodes.iter().zip(&value.effects) {
                term(child)
                    .into_iter()
                    .for_each(|term| *effects.entry(term).or_insert(0.0) += f64::from(*effect));
            }
        } else {
            term(child)
                .into_iter()
                .for_each(|term| *effects.entry(term).or_insert(0.0) += f64::from(*effect));
        }
    }
    effects
}

/// When a feature or the root is computed; errors and embeddings receive nothing.
fn time(node: &Node) -> Option<(usize, u8)> {
    match node.kind {
        NodeKind::Root => Some((usize::MAX, 0)),
        NodeKind::AttentionFeature => Some((node.layer(), 0)),
        NodeKind::MlpFeature => Some((node.layer(), 1)),
        _ => None,
    }
}

/// By receiver, what reaches it, the latest receiver first.
type Matrix = BTreeMap<(Reverse<(usize, u8)>, Node), BTreeMap<Node, f64>>;

/// Every active feature of a prompt and the root, by what reaches it.
fn matrix(attribution: &Attribution, tokens: usize, layers: usize, root: Root) -> Matrix {
    let terms = (0..tokens).flat_map(|p| attribution.stream().nodes(2 * layers, p).to_vec());
    let receivers =
        terms.chain([Node::ROOT]).filter_map(|node| Some(((Reverse(time(&node)?)), node)));
    receivers.map(|(when, node)| ((when, node), direct(attribution, &node, root))).collect()
}

/// Effects as shares of those on the same receiver.
fn normalised(matrix: &Matrix) -> Matrix {
    let row = |effects: &BTreeMap<Node, f64>| {
        let whole: f64 = effects.values().map(|effect| effect.abs()).sum();
        effects
            .iter()
            .filter(|_| whole > 0.0)
            .map(|(node, effect)| (*node, effect.abs() / whole))
            .collect()
    };
    matrix.iter().map(|(key, effects)| (*key, row(effects))).collect()
}

/// The root's 1, handed from receiver to receiver.
fn handed(shares: &Matrix) -> BTreeMap<Node, f64> {
    let mut influences = BTreeMap::from([(Node::ROOT, 1.0)]);
    for ((_, receiver), shares) in shares {
        let own = influences.get(receiver).copied().unwrap_or(0.0);
        for (child, share) in shares {
            *influences.entry(*child).or_insert(0.0) += own * share;
        }
    }
    influences
}

fn of_prompt(f: &Fixture, attribution: &Attribution, prompt: usize, root: Root) -> Matrix {
    matrix(attribution, f.expected.prompts[prompt].tokens.len(), f.model().sizes.layers, root)
}

fn influences_are_those_that_the_direct_effects_give(f: &'static Fixture) {
    for prompt in 0..3 {
        let attribution = f.attribution(prompt);
        for root in roots(f, prompt) {
            let mut expected = handed(&normalised(&of_prompt(f, &attribution, prompt, root)));
            expected.remove(&Node::ROOT);
            let found = influences_of_terms(&attribution, root).unwrap();
            let largest = expected.values().copied().fold(0.0, f64::max);
            assert!(largest > 0.01);
            for (node, found) in &found {
                let expected = expected.remove(node).unwrap_or(0.0);
                assert_within(&node_name(node), *found, expected, 2e-5 * largest);
            }
            assert!(expected.is_empty(), "{expected:?}");
        }
    }
}

fn features_sum_over_positions(f: &'static Fixture) {
    let (attribution, root) = (f.attribution(1), f.root(1));
    let mut sums: BTreeMap<FeatureId, f64> = BTreeMap::new();
    for (node, influence) in influences_of_terms(&attribution, root).unwrap() {
        node.dictionary_feature()
            .into_iter()
            .for_each(|feature| *sums.entry(feature).or_insert(0.0) += influence);
    }
    assert_eq!(influences(&attribution, root).unwrap(), sums);
}

/// The root's 1 is all at rest in what receives nothing: errors and embeddings.
fn each_receiver_hands_on_all_that_it_has(f: &'static Fixture) {
    for prompt in 0..6 {
        for root in roots(f, prompt) {
            let influences = influences_of_terms(&f.attribution(prompt), root).unwrap();
            let resting: f64 =
                influences.iter().filter(|(node, _)| time(node).is_none()).map(|(_, x)| x).sum();
            assert_within("all of it", resting, 1.0, 1e-12);
        }
    }
}

/// The smallest of the largest scores that hold a share of the sum.
fn threshold(mut scores: Vec<f64>, share: f64) -> f64 {
    scores.sort_by(|a, b| b.total_cmp(a));
    let whole: f64 = scores.iter().sum();
    let mut sum = 0.0;
    let reaching = scores.iter().find(|score| {
        sum += *score;
        sum / whole >= share
    });
    *reaching.unwrap_or(scores.last().unwrap())
}

fn at_least(influences: &BTreeMap<Node, f64>, coverage: f64) -> BTreeSet<Node> {
    let least = threshold(influences.values().copied().collect(), coverage);
    let kept =
        influences.iter().filter(|(node, x)| **x >= least || node.kind == NodeKind::Embedding);
    kept.map(|(node, _)| *node).collect()
}

/// circuit-tracer's way with a matrix of direct effects: the links that stay.
fn pruned(matrix: &Matrix, coverage: f64) -> BTreeMap<(Node, Node), f64> {
    let mut influences = handed(&normalised(matrix));
    influences.remove(&Node::ROOT);
    let mut kept = at_least(&influences, coverage);
    kept.insert(Node::ROOT);
    let row = |row: &BTreeMap<Node, f64>| {
        row.iter().filter(|(child, _)| kept.contains(child)).map(|(a, b)| (*a, *b)).collect()
    };
    let among: Matrix = matrix
        .iter()
        .filter(|((_, node), _)| kept.contains(node))
        .map(|(key, effects)| (*key, row(effects)))
        .collect();
    let shares = normalised(&among);
    let influences = handed(&shares);
    let mut scores = BTreeMap::new();
    for ((_, parent), shares) in &shares {
        let own = influences.get(parent).copied().unwrap_or(0.0);
        scores.extend(shares.iter().map(|(child, share)| ((*child, *parent), own * share)));
    }
    let least = threshold(scores.values().copied().collect(), 0.98);
    let mut links: BTreeMap<(Node, Node), f64> = BTreeMap::new();
    for ((when, parent), effects) in &among {
        let strong = effects.iter().filter(|(child, _)| scores[&(**child, *parent)] >= least);
        links.extend(strong.map(|(child, effect)| ((*child, *parent), *effect)));
        assert!(when.0 > (0, 0) || parent.layer() == 0);
    }
    loop {
        let before = kept.len();
        let (children, parents): (BTreeSet<Node>, BTreeSet<Node>) = links.keys().copied().unzip();
        kept.retain(|node| {
            let leads = children.contains(node)
                || matches!(node.kind, NodeKind::Root | NodeKind::Embedding);
            leads && (parents.contains(node) || time(node).is_none())
        });
        links.retain(|(child, parent), _| kept.contains(child) && kept.contains(parent));
        if kept.len() == before {
            return links;
        }
    }
}

/// The links of a graph without its heads.
fn links(found: &PrunedGraph) -> BTreeSet<(Node, Node)> {
    let edges = found.graph.edges.iter().filter(|edge| edge.child.kind != NodeKind::Head);
    let parents: BTreeMap<Node, Node> = found
        .graph
        .edges
        .iter()
        .filter(|e| e.child.kind == NodeKind::Head)
        .map(|e| (e.child, e.parent))
        .collect();
    edges
        .map(|edge| (edge.child, parents.get(&edge.parent).copied().unwrap_or(edge.parent)))
        .collect()
}

fn terms_and_links_are_those_of_prune_graph(f: &'static Fixture) {
    for prompt in 0..4 {
        let (attribution, root) = (f.attribution(prompt), f.root(prompt));
        let matrix = of_prompt(f, &attribution, prompt, root);
        for coverage in [0.4, 0.8] {
            let found = found(&attribution, root, coverage, ALL, &every_kind());
            let expected: BTreeSet<(Node, Node)> = pruned(&matrix, coverage).into_keys().collect();
            assert!(expected.len() > if coverage < 0.5 { 0 } else { 20 }, "{}", expected.len());
            assert_eq!(links(&found), expected, "prompt {prompt}, {coverage}");
        }
    }
}

/// Links are measured among the kept terms alone, so an embedding, which is always kept, may lose
/// its last link to stronger ones.
fn more_coverage_keeps_what_less_kept(f: &'static Fixture) {
    for prompt in 0..4 {
        let (attribution, root) = (f.attribution(prompt), f.root(prompt));
        let influences = influences_of_terms(&attribution, root).unwrap();
        let chosen =
            |node: &&Node| influences.contains_key(node) && node.kind != NodeKind::Embedding;
        let graphs = [0.3, 0.5, 0.7, 0.9].map(|coverage| {
            let graph = found(&attribution, root, coverage, ALL, &every_kind()).graph;
            let terms: BTreeSet<Node> = graph.nodes.iter().filter(chosen).copied().collect();
            assert!(
                terms.is_subset(&at_least(&influences, coverage)),
                "prompt {prompt}, {coverage}"
            );
            terms
        });
        for (few, many) in graphs.iter().zip(&graphs[1..]) {
            assert!(
                few.is_subset(many) && few.len() < many.len(),
                "prompt {prompt}: {few:?}, {many:?}"
            );
        }
    }
}

fn features_and_errors_are_limited(f: &'static Fixture) {
    let (attribution, root) = (f.attribution(0), f.root(0));
    let influences = influences_of_terms(&attribution, root).unwrap();
    let mut best: Vec<(&Node, &f64)> =
        influences.iter().filter(|(node, _)| node.kind != NodeKind::Embedding).collect();
    best.sort_by(|a, b| b.1.total_cmp(a.1));
    for limit in [1, 7, 25] {
        let best: BTreeSet<Node> = best[..limit].iter().map(|(node, _)| **node).collect();
        let nodes = found(&attribution, root, 1.0, limit, &every_kind()).graph.nodes;
        let limited = |node: &&Node| {
            !matches!(node.kind, NodeKind::Root | NodeKind::Head | NodeKind::Embedding)
        };
        let limited: BTreeSet<Node> = nodes.iter().filter(limited).copied().collect();
        assert!(!limited.is_empty() && limited.is_subset(&best), "{limit}");
    }
}

fn only_allowed_kinds_are_nodes(f: &'static Fixture) {
    let (attribution, root) = (f.attribution(0), f.root(0));
    let nodes = |allow: &[&str]| {
        let found = found(&attribution, root, 0.9, ALL, &words(allow));
        let kinds: BTreeSet<&str> = found.graph.nodes.iter().map(|node| node.kind.word()).collect();
        (kinds, found)
    };
    let (kinds, all) = nodes(&[
        "attention_feature",
        "mlp_feature",
        "head",
        "mlp_error",
        "attention_error",
        "embedding",
    ]);
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    let (kinds, some) = nodes(&["attention_feature", "mlp_feature", "head", "embedding"]);
    assert_eq!(kinds, ["attention_feature", "embedding", "head", "mlp_feature", "root"].into());
    assert!(some.left_out > all.left_out);
    let features = |found: &PrunedGraph| {
        found.graph.nodes.iter().filter_map(Node::dictionary_feature).collect::<BTreeSet<_>>()
    };
    assert_eq!(features(&some), features(&all), "errors that are not drawn are terms all the same");
    let (kinds, none) = nodes(&["attention_feature", "mlp_feature", "embedding"]);
    assert!(!kinds.contains("head"), "{kinds:?}");
    assert!(links(&none).iter().all(|(_, parent)| parent.kind != NodeKind::AttentionFeature));
    assert!(none.graph.nodes.len() < some.graph.nodes.len());
    assert_eq!(nodes(&["head"]).1.graph.nodes, [Node::ROOT]);
}

fn what_is_left_out_is_told(f: &'static Fixture) {
    let (attribution, root) = (f.attribution(3), f.root(3));
    let influences = influences_of_terms(&attribution, root).unwrap();
    let told = found(&attribution, root, 0.8, ALL, &every_kind());
    let inside: f64 = told.graph.nodes.iter().filter_map(|node| influences.get(node)).sum();
    let expected = 1.0 - inside / influences.values().sum::<f64>();
    assert_within("told", told.left_out.unwrap(), expected, 1e-12);
    assert!(expected > 0.01 && expected < 0.4, "{expected}");
    let search = f.expected.settings.search();
    let mut candidates = Candidates::new(&attribution, search.candidates, &search.allow);
    assert!(
        grow(&mut candidates, root, Growth::Greedy { passes: 2, per_node: 1 })
            .unwrap()
            .left_out
            .is_none()
    );
}

/// The parts that are kept hold most of each link, and what a link is, head by head, sums to its
/// direct effect.
fn a_link_into_an_attention_feature_is_split_by_head(f: &'static Fixture) {
    let (attribution, root) = (f.attribution(0), f.root(0));
    let found = found(&attribution, root, 0.8, ALL, &every_kind());
    let into: BTreeMap<Node, Node> = found
        .graph
        .edges
        .iter()
        .filter(|e| e.child.kind == NodeKind::Head)
        .map(|e| (e.child, e.parent))
        .collect();
    let mut sums: BTreeMap<(Node, Node), f64> = BTreeMap::new();
    for edge in found.graph.edges.iter().filter(|edge| edge.parent.kind == NodeKind::Head) {
        assert_eq!((edge.slot, edge.child.position), (Slot::V, edge.parent.source));
        assert_eq!(into[&edge.parent].position, edge.parent.position);
        *sums.entry((edge.child, into[&edge.parent])).or_insert(0.0) += f64::from(edge.effect);
    }
    assert!(sums.len() > 10, "{}", sums.len());
    let (mut apart, mut whole) = (0.0, 0.0);
    for ((child, feature), sum) in &sums {
        let effect = direct(&attribution, feature, root)[child];
        (apart, whole) = (apart + (sum - effect).abs(), whole + effect.abs());
    }
    assert!(apart < 0.1 * whole, "{apart} of {whole}");
    assert!(into.keys().all(|head| sums.keys().any(|(_, feature)| feature == &into[head])));
}

fn edges_have_the_effects_and_shares_of_their_slots(f: &'static Fixture) {
    for prompt in 0..3 {
        let attribution = f.attribution(prompt);
        let graph = found(&attribution, f.root(prompt), 0.8, ALL, &every_kind()).graph;
        let mut seen = BTreeSet::new();
        for edge in &graph.edges {
            let all = f.contributions(prompt, &attribution, &edge.parent, edge.slot);
            let of = |node: Node| {
                all.nodes.iter().position(|other| *other == node).map_or(0.0, |at| all.effects[at])
            };
            let position = Node { kind: NodeKind::PositionEmbedding, ..edge.child };
            let more = if edge.child.kind == NodeKind::Embedding { of(position) } else { 0.0 };
            let expected = f64::from(of(edge.child) + more);
            let whole = all.whole();
            let what = format!(
                "prompt {prompt}, {} to {}",
                node_name(&edge.child),
                node_name(&edge.parent)
            );
            assert_within(&what, edge.effect.into(), expected, 1e-4 * whole);
            assert_within(&what, edge.share.into(), expected.abs() / whole, 1e-4);
            assert!(seen.insert((edge.child, edge.parent)), "{what}: each once");
        }
        let nodes: BTreeSet<Node> =
            seen.iter().map(|(child, _)| *child).chain([Node::ROOT]).collect();
        assert_eq!(graph.nodes, nodes.into_iter().collect::<Vec<_>>());
    }
}

/// Searches of several roots on the same candidates are those on candidates of their own.
fn every_root_has_its_circuit(f: &'static Fixture) {
    let (attribution, search) = (f.attribution(0), f.expected.settings.search());
    for method in [search.method, Growth::Influence { coverage: 0.7, nodes: 50 }] {
        let Search { candidates, allow, .. } = &search;
        let mut shared = Candidates::new(&attribution, *candidates, allow);
        let mut different = BTreeSet::new();
        for root in roots(f, 0) {
            let mut own = Candidates::new(&attribution, *candidates, allow);
            let [a, b] = [&mut shared, &mut own]
                .map(|candidates| grow(candidates, root, method).unwrap().graph);
            assert_eq!((&a.nodes, &a.edges), (&b.nodes, &b.edges));
            different.insert(a.edges.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>());
            let to_root: f64 =
                a.edges.iter().filter(|e| e.parent == Node::ROOT).map(|e| f64::from(e.share)).sum();
            assert_within("coverage", a.coverage(), to_root, 1e-12);
        }
        assert_eq!(different.len(), 3, "three roots, three circuits");
    }
}

/// A prompt of the demo by PyTorch in double precision: influences of its strongest features, and
/// what circuit-tracer's `prune_graph` keeps at 0.8 and 0.98.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    tokens: Vec<u32>,
    correct: u32,
    counter: u32,
    /// Summed over positions.
    features: Vec<(String, f64)>,
    /// Of all features.
    sum: f64,
    /// (feature, position)
    kept: BTreeSet<(String, usize)>,
    /// (dictionary, position)
    kept_errors: BTreeSet<(String, usize)>,
    kept_edges: usize,
}

#[test]
fn influences_of_the_demo_are_those_of_circuit_tracer() {
    let folder = tempfile::TempDir::new().unwrap();
    let replacement = demo_world(folder.path());
    let text =
        std::fs::read_to_string(Path::new(REPOSITORY).join("tests/data/influence.json")).unwrap();
    let recorded: BTreeMap<String, Vec<Recorded>> = serde_json::from_str(&text).unwrap();
    for (task, prompts) in &recorded {
        for (i, expected) in prompts.iter().enumerate() {
            let what = format!("{task} {i}");
            let attribution = Attribution::new(&replacement, &expected.tokens).unwrap();
            let root =
                Root::LogitDifference { correct: expected.correct, counter: expected.counter };
            let all = influences(&attribution, root).unwrap();
            let largest = expected.features[0].1;
            for (feature, influence) in &expected.features {
                assert_within(
                    &format!("{what} {feature}"),
                    all[&feature.parse().unwrap()],
                    *influence,
                    1e-5 * largest,
                );
            }
            assert_within(&what, all.values().sum(), expected.sum, 1e-5 * expected.sum);
            let found = found(&attribution, root, 0.8, ALL, &every_kind());
            let nodes = &found.graph.nodes;
            let kept: BTreeSet<(String, usize)> = nodes
                .iter()
                .filter_map(|n| Some((n.dictionary_feature()?.to_string(), n.position())))
                .collect();
            assert_eq!(kept, expected.kept, "{what}");
            let error = |node: &Node| match node.kind {
                NodeKind::AttentionError => Some((format!("att{}", node.layer()), node.position())),
                NodeKind::MlpError => Some((format!("mlp{}", node.layer()), node.position())),
                _ => None,
            };
            assert_eq!(
                nodes.iter().filter_map(error).collect::<BTreeSet<_>>(),
                expected.kept_errors,
                "{what}"
            );
            assert_eq!(links(&found).len(), expected.kept_edges, "{what}");
        }
    }
}
