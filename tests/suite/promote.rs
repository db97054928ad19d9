//! Promoted tokens against the recorded ones.

use crate::bench::Bench;
use crate::fixture::{Fixture, TOLERANCE, assert_near, feature_id, in_every_world, terms};
use circuit_atlas::artifact::tables::{CausalRow, CopyRow, FeatureRow, LogitRow, PromptRow};
use circuit_atlas::circuit::{TopTokens, Weighted, promoted, promoted_logits};
use std::collections::{BTreeMap, BTreeSet};

in_every_world!(
    promoted_tokens_are_the_recorded_ones,
    a_set_promotes_the_weighted_sum_of_its_features,
    promoting_is_writing_more_at_a_frozen_scale,
    a_feature_that_does_not_exist_is_refused_by_name,
    special_tokens_are_not_promoted,
);

fn promoted_tokens_are_the_recorded_ones(f: &'static Fixture) {
    let sets: Vec<Weighted> =
        f.expected.promoted.iter().map(|row| vec![(feature_id(&row.feature), 1.0)]).collect();
    let listed = TopTokens { k: 10, specials: &BTreeSet::new() };
    let found = promoted(&f.replacement, &sets, listed).unwrap();
    assert_eq!(found.len(), f.expected.promoted.len());
    for (found, expected) in found.iter().zip(&f.expected.promoted) {
        for (found, expected) in [(&found.top, &expected.top), (&found.bottom, &expected.bottom)] {
            let ids = |found: &[(u32, f64)]| found.iter().map(|x| x.0).collect::<Vec<_>>();
            let found: Vec<(u32, f64)> =
                found.iter().map(|&(id, logit)| (id, logit.into())).collect();
            assert_eq!(ids(&found), ids(expected), "{}", found.len());
            let logits = |rows: &[(u32, f64)]| rows.iter().map(|x| x.1).collect::<Vec<_>>();
            assert_near("promoted", &logits(&found), &logits(expected), TOLERANCE);
        }
    }
}

fn a_set_promotes_the_weighted_sum_of_its_features(f: &'static Fixture) {
    let ids: Vec<_> = f.expected.promoted.iter().map(|row| feature_id(&row.feature)).collect();
    let (a, b) = (ids[0], ids[6]);
    let sets = [vec![(a, 1.0)], vec![(b, 1.0)], vec![(a, 2.0), (b, 0.5)], vec![]];
    let logits = promoted_logits(&f.replacement, &sets).unwrap();
    let sum: Vec<f64> = logits[0]
        .iter()
        .zip(&logits[1])
        .map(|(a, b)| 2.0 * f64::from(*a) + 0.5 * f64::from(*b))
        .collect();
    let numbers = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    assert_near("the sum", &numbers(&logits[2]), &sum, 1e-5);
    assert!(logits[3].iter().all(|&x| x == 0.0));
}

/// What a feature promotes is what it adds to the logits when more of it is written, at a scale
/// that is held.
fn promoting_is_writing_more_at_a_frozen_scale(f: &'static Fixture) {
    let attribution = f.attribution(0);
    let last = f.expected.prompts[0].tokens.len() - 1;
    let (nodes, rows) = terms(&attribution, 2 * f.model().sizes.layers, last);
    let d = f.model().sizes.d_model;
    for (node, row) in nodes.iter().zip(rows.chunks_exact(d)) {
        let Some(feature) = node.dictionary_feature() else { continue };
        let activation = f64::from(attribution.activation(node).unwrap());
        let logits =
            promoted_logits(&f.replacement, &[vec![(feature, activation)]]).unwrap().remove(0);
        let w_u = f.model().w_u.t().unwrap().to_vec2::<f32>().unwrap();
        let by_hand = w_u
            .iter()
            .map(|column| column.iter().zip(row).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum());
        let logits: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
        assert_near(&feature.to_string(), &logits, &by_hand.collect::<Vec<f64>>(), 1e-4);
    }
}

fn a_feature_that_does_not_exist_is_refused_by_name(f: &'static Fixture) {
    let (width, layers) = (f.replacement.attention[0].width(), f.model().sizes.layers);
    for id in [format!("attn0.f{width}"), format!("mlp{layers}.f0")].map(|name| feature_id(&name)) {
        let listed = TopTokens { k: 3, specials: &BTreeSet::new() };
        let error = promoted(&f.replacement, &[vec![(id, 1.0)]], listed).unwrap_err().to_string();
        assert!(error.contains(&format!("`{id}`")), "{error}");
    }
}

/// The demo's `<|endoftext|>`.
const SPECIAL: u32 = 2559;

#[test]
fn no_table_ranks_a_special_token() {
    let bench = Bench::finished();
    let logits = bench.table::<LogitRow>();
    let ranked: Vec<(&str, BTreeSet<u32>)> = vec![
        ("logits", logits.iter().map(|row| row.token).collect()),
        ("copies", bench.table::<CopyRow>().into_iter().map(|row| row.token).collect()),
        ("copied", bench.table::<CopyRow>().into_iter().flat_map(|row| row.top).collect()),
        ("risen", bench.table::<CausalRow>().into_iter().flat_map(|row| row.risen).collect()),
        ("answers", bench.table::<PromptRow>().into_iter().flat_map(|row| row.answers).collect()),
        (
            "mass",
            bench
                .table::<FeatureRow>()
                .into_iter()
                .flat_map(|row| [row.mass_tokens, row.explain_tokens].concat())
                .collect(),
        ),
    ];
    for (name, tokens) in ranked {
        assert!(tokens.len() > 5 && !tokens.contains(&SPECIAL), "{name}: {tokens:?}");
    }
    // Each list is full, as if the vocabulary ended before it.
    let mut lists: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for row in &logits {
        *lists.entry((row.subject.to_string(), row.side.word())).or_default() += 1;
    }
    assert!(lists.values().all(|n| *n == 20), "{lists:?}");
}

/// Of all tokens, some of which would be listed: those in front of them move up.
fn special_tokens_are_not_promoted(f: &'static Fixture) {
    let sets: Vec<Weighted> =
        f.expected.promoted.iter().map(|row| vec![(feature_id(&row.feature), 1.0)]).collect();
    let found = |k, specials: &BTreeSet<u32>| {
        promoted(&f.replacement, &sets, TopTokens { k, specials }).unwrap()
    };
    let all = found(9, &BTreeSet::new());
    let specials = BTreeSet::from([all[0].top[2].0, all[0].bottom[0].0]);
    for (all, some) in all.iter().zip(found(7, &specials)) {
        let without = |list: &[(u32, f32)]| -> Vec<(u32, f32)> {
            list.iter().copied().filter(|(id, _)| !specials.contains(id)).take(7).collect()
        };
        assert_eq!((some.top, some.bottom), (without(&all.top), without(&all.bottom)));
    }
}
