//! Direct effects against the recorded tables, and the sums that must hold (`docs/definitions.md`
//! §4, §5).

use crate::fixture::{
    Fixture, TOLERANCE, assert_near, assert_within, in_every_world, node_name, numbers, receiver,
    slot, terms,
};
use circuit_atlas::circuit::{Attribution, Contributions, Node};
use circuit_atlas::ids::Kind;
use circuit_atlas::ids::NodeKind;
use std::collections::BTreeSet;

in_every_world!(
    effects_are_the_recorded_tables,
    terms_sum_to_the_residual_stream_before_every_sublayer,
    effects_and_bias_sum_to_what_the_receiver_reads,
    what_a_feature_reads_is_its_pre_activation_active_or_not,
);

/// (name, effect, share) of every contributor, in node order.
fn table(all: &Contributions) -> Vec<(String, f64, f64)> {
    let mut rows: Vec<_> = all.nodes.iter().zip(&all.effects).zip(all.shares()).collect();
    rows.sort_by_key(|((node, _), _)| **node);
    rows.into_iter()
        .map(|((node, effect), share)| (node_name(node), f64::from(*effect), f64::from(share)))
        .collect()
}

fn effects_are_the_recorded_tables(f: &'static Fixture) {
    for expected in &f.expected.effects {
        let what =
            format!("prompt {}, {} of {}", expected.prompt, expected.slot, expected.receiver);
        let attribution = f.attribution(expected.prompt);
        let all = f.contributions(
            expected.prompt,
            &attribution,
            &receiver(&expected.receiver),
            slot(&expected.slot),
        );
        let table = table(&all);
        let names: Vec<_> = table.iter().map(|row| &row.0).collect();
        assert_eq!(names, expected.rows.iter().map(|row| &row.0).collect::<Vec<_>>(), "{what}");
        let whole = f64::from(all.bias.abs()) + table.iter().map(|row| row.1.abs()).sum::<f64>();
        let mut actual: Vec<f64> = table.iter().map(|row| row.1).collect();
        let mut wanted: Vec<f64> = expected.rows.iter().map(|row| row.1).collect();
        actual.extend([f64::from(all.bias), f64::from(all.total)]);
        wanted.extend([expected.bias.0, expected.total]);
        assert_near(&what, &actual, &wanted, TOLERANCE);
        for (row, expected) in table.iter().zip(&expected.rows) {
            assert_within(&format!("{what}: share of {}", row.0), row.2, expected.2, TOLERANCE);
        }
        assert_within(
            &format!("{what}: share of the bias"),
            f64::from(all.bias.abs()) / whole,
            expected.bias.1,
            TOLERANCE,
        );
    }
}

fn terms_sum_to_the_residual_stream_before_every_sublayer(f: &'static Fixture) {
    for &i in &f.expected.hooked_prompts {
        let attribution = f.attribution(i);
        let trace = attribution.trace();
        let mut streams: Vec<_> =
            trace.layers.iter().flat_map(|layer| [&layer.resid_pre, &layer.resid_mid]).collect();
        streams.push(&trace.resid_post);
        for (before, stream) in streams.into_iter().enumerate() {
            for position in 0..f.expected.prompts[i].tokens.len() {
                let (nodes, rows) = terms(&attribution, before, position);
                let width = rows.len() / nodes.len();
                let sum: Vec<f64> = (0..width)
                    .map(|d| rows.iter().skip(d).step_by(width).map(|&x| f64::from(x)).sum())
                    .collect();
                let stream = numbers(&stream.get(position).unwrap());
                assert_near(
                    &format!("prompt {i}, before {before} at {position}"),
                    &sum,
                    &stream,
                    1e-4,
                );
            }
        }
    }
}

/// Every node of the prompt's circuit, and every feature that is active at its last position.
fn receivers(f: &Fixture, attribution: &Attribution, prompt: usize) -> BTreeSet<Node> {
    let circuit = &f.circuits()[prompt];
    let last = f.expected.prompts[prompt].tokens.len() - 1;
    let terms = attribution.stream().nodes(2 * f.model().sizes.layers, last);
    let heads = |node: &Node| node.through(1, 2);
    let errors = terms.iter().filter(|node| node.kind == NodeKind::AttentionError).map(heads);
    circuit.nodes.iter().chain(terms).copied().chain(errors).collect()
}

fn effects_and_bias_sum_to_what_the_receiver_reads(f: &'static Fixture) {
    let mut seen = BTreeSet::new();
    for &i in &f.expected.hooked_prompts {
        let attribution = f.attribution(i);
        for node in receivers(f, &attribution, i) {
            for &slot in node.slots() {
                let all = f.contributions(i, &attribution, &node, slot);
                let sum = all.effects.iter().chain([&all.bias]).map(|&x| f64::from(x)).sum::<f64>();
                let largest = all
                    .effects
                    .iter()
                    .chain([&all.bias, &all.total])
                    .fold(0.0, |top: f32, x| top.max(x.abs()));
                let what = format!("prompt {i}, {} of {}", slot.word(), node_name(&node));
                assert_within(&what, sum, f64::from(all.total), 1e-4 * f64::from(largest));
                seen.insert((node.kind, slot));
            }
        }
    }
    assert_eq!(
        seen.len(),
        4 + 3,
        "root, two kinds of features, error, and three slots of heads: {seen:?}"
    );
}

fn what_a_feature_reads_is_its_pre_activation_active_or_not(f: &'static Fixture) {
    let attribution = f.attribution(0);
    for (kind, name) in [(Kind::Attention, "attention"), (Kind::Mlp, "mlp")] {
        let pre = f.tensor(&format!("dictionary/0/{name}.1.pre")).to_vec2::<f32>().unwrap();
        let largest = pre.iter().flatten().fold(0.0, |top: f32, x| top.max(x.abs()));
        for feature in 0..40 {
            let node = Node::feature(kind, 1, 9, feature);
            let all = attribution.contributions(&node, node.slots()[0]).unwrap();
            let expected = pre[9][feature as usize];
            assert_within(
                &node_name(&node),
                all.total.into(),
                expected.into(),
                TOLERANCE * f64::from(largest),
            );
            assert_eq!(
                attribution.activation(&node).is_some(),
                expected > 0.0,
                "{}",
                node_name(&node)
            );
        }
    }
}
