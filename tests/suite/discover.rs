//! Circuits against the recorded ones, and what they have in common.

use crate::fixture::{
    Circuit, Fixture, NamedNode, Search, TOLERANCE, assert_near, assert_within, feature_id,
    feature_name, in_every_world, node_name, slot_name,
};
use circuit_atlas::circuit::{Graph, Growth, Node, pair_counts};
use circuit_atlas::ids::Component;
use circuit_atlas::ids::NodeKind;
use std::collections::BTreeMap;

in_every_world!(
    circuits_are_the_recorded_ones,
    other_settings_give_the_recorded_variants,
    no_choice_is_close,
    fewer_passes_link_what_was_recorded_for_them,
    kinds_that_are_not_allowed_take_no_candidate_place,
    coverage_is_the_share_of_the_roots_links,
    components_of_the_task_are_the_recorded_ones,
    features_of_the_task_are_the_recorded_ones,
    pairs_in_circuits_are_the_recorded_ones_whichever_way_they_are_asked,
);

fn assert_same_fields(node: &Node, expected: &NamedNode) {
    let kind = if expected.kind.ends_with("_bias") { "bias" } else { &expected.kind };
    assert_eq!(node.kind.setting(), kind, "{}", expected.id);
    let fields = [node.layer, node.position, node.source, node.head, node.feature];
    let NamedNode { layer, position, source, head, feature, .. } = *expected;
    assert_eq!(
        fields,
        [layer, position, source, head, feature].map(|x| x.map(|x| x as u32)),
        "{}",
        expected.id
    );
}

fn assert_same(what: &str, graph: &Graph, expected: &Circuit) {
    let nodes: Vec<String> = graph.nodes.iter().map(node_name).collect();
    assert_eq!(
        nodes,
        expected.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>(),
        "{what}: nodes"
    );
    graph
        .nodes
        .iter()
        .zip(&expected.nodes)
        .for_each(|(node, expected)| assert_same_fields(node, expected));
    let name = |e: &circuit_atlas::circuit::Edge| {
        (node_name(&e.child), node_name(&e.parent), slot_name(e.slot).to_string())
    };
    let edges: Vec<_> = graph.edges.iter().map(name).collect();
    let wanted: Vec<_> =
        expected.edges.iter().map(|e| (e.0.clone(), e.1.clone(), e.2.clone())).collect();
    assert_eq!(edges, wanted, "{what}: edges in the order linked");
    let effects: Vec<f64> = graph.edges.iter().map(|e| e.effect.into()).collect();
    assert_near(what, &effects, &expected.edges.iter().map(|e| e.3).collect::<Vec<_>>(), TOLERANCE);
    for (edge, expected) in graph.edges.iter().zip(&expected.edges) {
        assert_within(
            &format!("{what}: share of {}", expected.0),
            edge.share.into(),
            expected.4,
            TOLERANCE,
        );
    }
}

fn circuits_are_the_recorded_ones(f: &'static Fixture) {
    for expected in &f.expected.circuits {
        let what = format!("circuit of prompt {}", expected.prompt);
        assert_same(&what, &f.circuits()[expected.prompt], expected);
    }
}

fn other_settings_give_the_recorded_variants(f: &'static Fixture) {
    for (i, expected) in f.expected.circuit_variants.iter().enumerate() {
        assert_same(
            &format!("variant {i}"),
            &f.circuit(expected.prompt, &expected.search()),
            expected,
        );
    }
}

/// The choices that must come out the same are those that rounding cannot turn.
fn no_choice_is_close(f: &'static Fixture) {
    let circuits = f.expected.circuits.iter().chain(&f.expected.circuit_variants);
    assert!(circuits.clone().count() > 20 && circuits.clone().all(|circuit| circuit.margin > 1e-3));
}

/// A pass adds to what the passes before it linked.
fn fewer_passes_link_what_was_recorded_for_them(f: &'static Fixture) {
    for expected in &f.expected.circuits[..6] {
        for passes in 1..=f.expected.settings.passes {
            let method = Growth::Greedy { passes, per_node: f.expected.settings.per_node };
            let graph =
                f.circuit(expected.prompt, &Search { method, ..f.expected.settings.search() });
            let recorded = expected.edges.iter().filter(|edge| edge.5 < passes).count();
            assert_eq!(graph.edges.len(), recorded, "prompt {}, {passes} passes", expected.prompt);
            let whole = &f.circuits()[expected.prompt];
            assert_eq!(
                graph.edges[..],
                whole.edges[..recorded],
                "prompt {}, {passes} passes",
                expected.prompt
            );
        }
    }
}

fn kinds_that_are_not_allowed_take_no_candidate_place(f: &'static Fixture) {
    let allow = ["mlp_feature".to_string()].into();
    let graph = f.circuit(0, &Search { allow, candidates: 1, ..f.expected.settings.search() });
    let to_root: Vec<_> = graph.edges.iter().filter(|e| e.parent.kind == NodeKind::Root).collect();
    assert_eq!(to_root.len(), 1, "one candidate is one link, however many passes");
    assert_eq!(to_root[0].child.kind, NodeKind::MlpFeature);
}

fn coverage_is_the_share_of_the_roots_links(f: &'static Fixture) {
    let graph = &f.circuits()[0];
    let expected =
        f.expected.circuits[0].edges.iter().filter(|e| e.1 == "root").map(|e| e.4).sum::<f64>();
    assert_within("coverage", graph.coverage(), expected, TOLERANCE);
}

fn components_of_the_task_are_the_recorded_ones(f: &'static Fixture) {
    let mut prompts: BTreeMap<String, u32> = BTreeMap::new();
    for component in f.circuits().iter().flat_map(Graph::components) {
        *prompts.entry(component.to_string()).or_insert(0) += 1;
    }
    let expected = &f.expected.task.components;
    assert_eq!(
        prompts,
        expected.iter().map(|(name, found)| (name.clone(), found.prompts)).collect()
    );
    for (name, found) in expected {
        assert_within(
            name,
            f64::from(prompts[name]) / f.circuits().len() as f64,
            found.frequency,
            1e-12,
        );
    }
}

fn features_of_the_task_are_the_recorded_ones(f: &'static Fixture) {
    let mut found: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    for (component, feature) in f.circuits().iter().flat_map(Graph::servings) {
        *found
            .entry(component.to_string())
            .or_default()
            .entry(feature_name(feature))
            .or_insert(0) += 1;
    }
    assert_eq!(found, f.expected.task.features);
}

fn pairs_in_circuits_are_the_recorded_ones_whichever_way_they_are_asked(f: &'static Fixture) {
    let counts = pair_counts(f.circuits());
    for expected in &f.expected.circuit_pairs {
        let [a, b]: [Component; 2] = [&expected.a, &expected.b].map(|name| name.parse().unwrap());
        let between = |pair: &[(Component, _); 2]| {
            [pair[0].0, pair[1].0] == [a, b] || [pair[1].0, pair[0].0] == [a, b]
        };
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
