//! Circuits against the recorded ones, and what they have in common.

use crate::fixture::{
    Circuit, Settings, TOLERANCE, assert_near, assert_within, feature_id, feature_name, fixture, node_name, slot_name,
};
use circuit_atlas::circuit::{Graph, NodeKind, greedy, pair_counts};
use circuit_atlas::ids::Component;
use std::collections::BTreeMap;
use std::sync::OnceLock;

fn circuit(prompt: usize, settings: &Settings) -> Graph {
    greedy(&fixture().attribution(prompt), &settings.greedy()).unwrap()
}

/// The circuits of all prompts.
fn circuits() -> &'static [Graph] {
    static CIRCUITS: OnceLock<Vec<Graph>> = OnceLock::new();
    let expected = &fixture().expected;
    CIRCUITS.get_or_init(|| (0..expected.prompts.len()).map(|i| circuit(i, &expected.settings)).collect())
}

fn assert_same(what: &str, graph: &Graph, expected: &Circuit) {
    let nodes: Vec<String> = graph.nodes.iter().map(node_name).collect();
    assert_eq!(nodes, expected.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>(), "{what}: nodes");
    let name =
        |e: &circuit_atlas::circuit::Edge| (node_name(&e.child), node_name(&e.parent), slot_name(e.slot).to_string());
    let edges: Vec<_> = graph.edges.iter().map(name).collect();
    let wanted: Vec<_> = expected.edges.iter().map(|e| (e.0.clone(), e.1.clone(), e.2.clone())).collect();
    assert_eq!(edges, wanted, "{what}: edges in the order linked");
    let effects: Vec<f64> = graph.edges.iter().map(|e| e.effect.into()).collect();
    assert_near(what, &effects, &expected.edges.iter().map(|e| e.3).collect::<Vec<_>>(), TOLERANCE);
    for (edge, expected) in graph.edges.iter().zip(&expected.edges) {
        assert_within(&format!("{what}: share of {}", expected.0), edge.share.into(), expected.4, TOLERANCE);
    }
}

#[test]
fn circuits_are_the_recorded_ones() {
    for expected in &fixture().expected.circuits {
        let what = format!("circuit of prompt {}", expected.prompt);
        assert_same(&what, &circuits()[expected.prompt], expected);
    }
}

#[test]
fn other_settings_give_the_recorded_variants() {
    for (i, expected) in fixture().expected.circuit_variants.iter().enumerate() {
        let settings = expected.settings.as_ref().expect("a variant names its settings");
        assert_same(&format!("variant {i}"), &circuit(expected.prompt, settings), expected);
    }
}

#[test]
fn kinds_that_are_not_allowed_take_no_candidate_place() {
    let f = fixture();
    let mut settings = f.expected.settings.greedy();
    settings.allow = ["mlp_feature".to_string()].into();
    settings.candidates = 1;
    let graph = greedy(&f.attribution(0), &settings).unwrap();
    let to_root: Vec<_> = graph.edges.iter().filter(|e| e.parent.kind == NodeKind::Root).collect();
    assert_eq!(to_root.len(), 1, "one candidate is one link, however many passes");
    assert_eq!(to_root[0].child.kind, NodeKind::MlpFeature);
}

#[test]
fn coverage_is_the_share_of_the_roots_links() {
    let graph = &circuits()[0];
    let expected = fixture().expected.circuits[0].edges.iter().filter(|e| e.1 == "root").map(|e| e.4).sum::<f64>();
    assert_within("coverage", graph.coverage(), expected, TOLERANCE);
}

#[test]
fn components_of_the_task_are_the_recorded_ones() {
    let mut prompts: BTreeMap<String, u32> = BTreeMap::new();
    for component in circuits().iter().flat_map(Graph::components) {
        *prompts.entry(component.to_string()).or_insert(0) += 1;
    }
    let expected = &fixture().expected.task.components;
    assert_eq!(prompts, expected.iter().map(|(name, found)| (name.clone(), found.prompts)).collect());
    for (name, found) in expected {
        assert_within(name, f64::from(prompts[name]) / circuits().len() as f64, found.frequency, 1e-12);
    }
}

#[test]
fn features_of_the_task_are_the_recorded_ones() {
    let mut found: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    for (component, feature) in circuits().iter().flat_map(Graph::servings) {
        *found.entry(component.to_string()).or_default().entry(feature_name(feature)).or_insert(0) += 1;
    }
    assert_eq!(found, fixture().expected.task.features);
}

#[test]
fn pairs_in_circuits_are_the_recorded_ones_whichever_way_they_are_asked() {
    let counts = pair_counts(circuits());
    for expected in &fixture().expected.circuit_pairs {
        let [a, b]: [Component; 2] = [&expected.a, &expected.b].map(|name| name.parse().unwrap());
        let between = |pair: &[(Component, _); 2]| [pair[0].0, pair[1].0] == [a, b] || [pair[1].0, pair[0].0] == [a, b];
        let found = counts.iter().filter(|(pair, _)| between(pair)).count();
        assert_eq!(found, expected.rows.len(), "pairs of {a} and {b}");
        for (f, g, prompts, share) in &expected.rows {
            let (f, g) = ((a, feature_id(f)), (b, feature_id(g)));
            let count = counts[&if f < g { [f, g] } else { [g, f] }];
            assert_eq!(count.prompts, *prompts, "{f:?} {g:?}");
            assert_within(&format!("share of {f:?} {g:?}"), count.share, *share, TOLERANCE);
        }
    }
}
