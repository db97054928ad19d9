//! Scores, statistics, examples and pairs over the recorded corpus.

use crate::fixture::{
    Fixture, TOLERANCE, assert_near, assert_within, feature_id, in_every_world, numbers, read_by,
};
use circuit_atlas::ids::{DictionaryId, FeatureId};
use circuit_atlas::stats::cooccurrence::{Cooccurrence, Counts, benjamini_hochberg};
use circuit_atlas::stats::examples::{ContextInfo, Peak, Used, peaks, top};
use circuit_atlas::stats::feature::{Statistics, TokenActivation, statistics};
use std::collections::{BTreeMap, HashSet};

in_every_world!(
    scores_are_the_recorded_ones,
    statistics_of_features_are_the_recorded_ones,
    the_mass_of_activation_lies_on_the_recorded_tokens,
    a_context_has_the_recorded_peak,
    the_best_contexts_are_the_recorded_ones,
    pairs_in_the_corpus_are_the_recorded_ones,
);

/// Every nonzero activation of each scored feature, in their order; only their columns are encoded.
fn activations(f: &'static Fixture) -> &'static [Vec<TokenActivation>] {
    f.activations.get_or_init(|| {
        let ids: Vec<FeatureId> =
            f.expected.scored_features.iter().map(|name| feature_id(name)).collect();
        let mut all = vec![Vec::new(); ids.len()];
        for id in DictionaryId::all(f.model().sizes.layers) {
            let which: Vec<usize> = (0..ids.len()).filter(|&i| ids[i].dictionary == id).collect();
            score(f, id, &which, &ids, &mut all);
        }
        all
    })
}

fn score(
    f: &Fixture,
    id: DictionaryId,
    which: &[usize],
    ids: &[FeatureId],
    all: &mut [Vec<TokenActivation>],
) {
    let columns: Vec<usize> = which.iter().map(|&i| ids[i].index).collect();
    let encoder = f.dictionary(id).select(&columns).unwrap();
    for (context, trace) in f.contexts().iter().enumerate() {
        for (position, active) in
            encoder.active(read_by(id, trace)).unwrap().into_iter().enumerate()
        {
            for (column, activation) in active {
                let activation = TokenActivation {
                    context: context as u32,
                    position: position as u16,
                    activation,
                };
                all[which[column as usize]].push(activation);
            }
        }
    }
}

/// The token at a place, if it counts: not BOS, not special.
fn counted(f: &Fixture, context: u32, position: u16) -> Option<u32> {
    let id = f.expected.contexts[context as usize].tokens[position as usize];
    (position > 0 && id != f.expected.special_token_id).then_some(id)
}

fn counting_tokens(f: &Fixture) -> u64 {
    let contexts = f.expected.contexts.iter().enumerate();
    contexts
        .map(|(c, x)| {
            (0..x.tokens.len()).filter(|&p| counted(f, c as u32, p as u16).is_some()).count() as u64
        })
        .sum()
}

fn counting_peaks(f: &Fixture, activations: &[TokenActivation]) -> Vec<Peak> {
    peaks(activations.iter().copied().filter(|x| counted(f, x.context, x.position).is_some()))
}

fn scores_are_the_recorded_ones(f: &'static Fixture) {
    let places = f
        .tensor("scores/where")
        .to_dtype(candle_core::DType::I64)
        .unwrap()
        .to_vec2::<i64>()
        .unwrap();
    let recorded: BTreeMap<Vec<i64>, f64> =
        places.into_iter().zip(numbers(f.tensor("scores/values"))).collect();
    let place =
        |i: usize, x: &TokenActivation| vec![i as i64, i64::from(x.context), i64::from(x.position)];
    let each = activations(f)
        .iter()
        .enumerate()
        .flat_map(|(i, all)| all.iter().map(move |x| (place(i, x), f64::from(x.activation))));
    let found: BTreeMap<Vec<i64>, f64> = each.collect();
    assert!(found.keys().eq(recorded.keys()), "where features are active");
    let values = |map: &BTreeMap<Vec<i64>, f64>| map.values().copied().collect::<Vec<_>>();
    assert_near("scores", &values(&found), &values(&recorded), TOLERANCE);
}

fn of(f: &'static Fixture, feature: usize) -> Statistics {
    let counted = |context, position| counted(f, context, position);
    statistics(&activations(f)[feature], counting_tokens(f), counted, usize::MAX)
}

fn statistics_of_features_are_the_recorded_ones(f: &'static Fixture) {
    for (i, name) in f.expected.scored_features.iter().enumerate() {
        let (found, expected) = (of(f, i), &f.expected.feature_statistics[name]);
        assert_eq!(counting_tokens(f), expected.tokens);
        assert_eq!(
            (found.active, found.special_active),
            (expected.active, expected.masked_active),
            "{name}"
        );
        assert_within(name, found.density, expected.density, 1e-12);
        assert_within(name, found.max.into(), expected.max, TOLERANCE * expected.max);
        assert_eq!(found.mean_active.is_some(), expected.mean_active.is_some(), "{name}");
        assert_within(
            name,
            found.mean_active.unwrap_or(0.0),
            expected.mean_active.unwrap_or(0.0),
            TOLERANCE * expected.max,
        );
        assert_eq!(found.histogram.iter().sum::<u64>(), found.active, "{name}");
        let moved: u64 =
            found.histogram.iter().zip(&expected.histogram).map(|(a, b)| a.abs_diff(*b)).sum();
        let bins = f.expected.settings.histogram_bins;
        assert_eq!((found.histogram.len(), expected.histogram.len()), (bins, bins));
        assert!(
            moved <= 4,
            "{name}: more than two values in a neighbouring bin: {:?}",
            found.histogram
        );
    }
}

fn the_mass_of_activation_lies_on_the_recorded_tokens(f: &'static Fixture) {
    for (i, name) in f.expected.scored_features.iter().enumerate() {
        let (found, expected) = (of(f, i).mass, &f.expected.feature_statistics[name].mass);
        let share: BTreeMap<u32, f64> = found.iter().copied().collect();
        assert!(expected.len() == 5 || expected.len() == found.len(), "{name}");
        for (rank, (id, wanted)) in expected.iter().enumerate() {
            assert_within(&format!("{name}: token {id}"), share[id], *wanted, TOLERANCE);
            assert_within(&format!("{name}: rank {rank}"), found[rank].1, *wanted, TOLERANCE);
        }
        assert!(
            found.is_empty() || (found.iter().map(|x| x.1).sum::<f64>() - 1.0).abs() < 1e-9,
            "{name}"
        );
    }
}

fn a_context_has_the_recorded_peak(f: &'static Fixture) {
    for (i, name) in f.expected.scored_features.iter().enumerate() {
        let expected = &f.expected.feature_statistics[name].context_max;
        let mut found = vec![0.0; expected.len()];
        counting_peaks(f, &activations(f)[i])
            .iter()
            .for_each(|peak| found[peak.context as usize] = peak.value.into());
        assert_near(name, &found, expected, TOLERANCE);
    }
}

fn the_best_contexts_are_the_recorded_ones(f: &'static Fixture) {
    let contexts = &f.expected.contexts;
    let info = |c: u32| {
        let context = &contexts[c as usize];
        ContextInfo { document: context.document, tokens: &context.tokens }
    };
    for (i, name) in f.expected.scored_features.iter().enumerate() {
        let found = top(&counting_peaks(f, &activations(f)[i]), &info, 5, &mut Used::default());
        let expected = &f.expected.feature_statistics[name].top_contexts;
        let places: Vec<_> = found.iter().map(|peak| (peak.context, peak.position)).collect();
        assert_eq!(places, expected.iter().map(|x| (x.0, x.1)).collect::<Vec<_>>(), "{name}");
        let values: Vec<f64> = found.iter().map(|peak| peak.value.into()).collect();
        assert_near(name, &values, &expected.iter().map(|x| x.2).collect::<Vec<_>>(), TOLERANCE);
        let documents: HashSet<u32> =
            found.iter().map(|peak| info(peak.context).document).collect();
        assert_eq!(documents.len(), found.len(), "{name}: two of one document");
    }
}

/// The meetings of the scored features, each context's active features by position.
fn meetings(f: &'static Fixture) -> Cooccurrence {
    let contexts = &f.expected.contexts;
    let mut active: Vec<Vec<Vec<u32>>> =
        contexts.iter().map(|c| vec![Vec::new(); c.tokens.len()]).collect();
    for (i, all) in activations(f).iter().enumerate() {
        all.iter().for_each(|x| active[x.context as usize][x.position as usize].push(i as u32));
    }
    let mut meetings = Cooccurrence::new(activations(f).len(), f.expected.settings.pair_window);
    for (c, active) in active.iter().enumerate() {
        let counts: Vec<bool> =
            (0..active.len()).map(|p| counted(f, c as u32, p as u16).is_some()).collect();
        meetings.add(&counts, |p| &active[p]);
    }
    meetings
}

/// Relative to what is expected; what is below 1e-290 is as good as 0.
fn assert_probability(what: &str, found: Option<f64>, expected: Option<f64>) {
    assert_eq!(found.is_some(), expected.is_some(), "{what}");
    let (found, expected) = (found.unwrap_or(0.0), expected.unwrap_or(0.0));
    assert_within(what, found, expected, (1e-6 * expected).max(1e-290));
}

fn pairs_in_the_corpus_are_the_recorded_ones(f: &'static Fixture) {
    let (meetings, expected) = (meetings(f), &f.expected);
    let index = |name: &str| expected.scored_features.iter().position(|f| f == name).unwrap();
    let counts: Vec<Counts> =
        expected.pairs.iter().map(|x| meetings.same(index(&x.f), index(&x.g))).collect();
    let tested: Vec<usize> = (0..counts.len()).filter(|&i| counts[i].tested()).collect();
    let p: Vec<f64> = tested.iter().map(|&i| counts[i].fisher_greater()).collect();
    let q = benjamini_hochberg(&p, p.len());
    let q: BTreeMap<usize, f64> = tested.into_iter().zip(q).collect();
    for (i, (pair, counts)) in expected.pairs.iter().zip(&counts).enumerate() {
        let what = format!("{} and {}", pair.f, pair.g);
        assert_eq!(
            [counts.n, counts.f, counts.g, counts.both],
            [pair.n, pair.n_f, pair.n_g, pair.n_fg],
            "{what}"
        );
        let (f, g) = (index(&pair.f), index(&pair.g));
        let lagged = [meetings.lagged(f, g).both, meetings.lagged(g, f).both];
        assert_eq!(lagged, [pair.n_f_then_g, pair.n_g_then_f], "{what}: one, then the other");
        assert_within(&what, counts.expected(), pair.expected, 1e-9);
        let (found, wanted) = (counts.tested(), pair.p.is_some());
        assert_eq!(found, wanted, "{what}: tested");
        if found {
            let numbers =
                [Some(counts.lift()), Some(counts.npmi()), Some(counts.jaccard()), counts.phi()];
            for (found, wanted) in
                numbers.into_iter().zip([pair.lift, pair.npmi, pair.jaccard, pair.phi])
            {
                assert_eq!(found.is_some(), wanted.is_some(), "{what}");
                assert_within(&what, found.unwrap_or(0.0), wanted.unwrap_or(0.0), 1e-9);
            }
            assert_probability(&format!("{what}: p"), Some(counts.fisher_greater()), pair.p);
        }
        assert_probability(&format!("{what}: q"), q.get(&i).copied(), pair.q);
    }
}
