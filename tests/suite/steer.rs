//! What rises when a feature is added: against a whole pass with the vector put in, and by what
//! must hold.

use crate::fixture::{Fixture, TOLERANCE, assert_near, in_every_world, numbers};
use candle_core::Tensor;
use circuit_atlas::circuit::{
    Steered, TopTokens, nearest, promoted_logits, steer, write_directions,
};
use circuit_atlas::error::Result;
use circuit_atlas::ids::{DictionaryId, FeatureId, Kind};
use circuit_atlas::model::{Added, Behind, Intervention};
use std::collections::BTreeSet;

in_every_world!(
    what_rises_is_the_change_of_a_whole_pass,
    nothing_rises_of_nothing,
    the_last_mlp_says_more_of_what_it_promotes,
    the_mean_over_places_is_told,
    contexts_and_features_beside_it_change_nothing,
    similar_features_are_found_by_their_cosine,
    adding_behind_no_layer_is_refused,
);

/// Adds a vector to what a sublayer writes at one position. Attention's is put in before its MLP
/// reads the stream, through the `mlp_out` of the layer: the MLP is run again on the stream with
/// the vector in it.
struct Adds<'a> {
    f: &'a Fixture,
    id: DictionaryId,
    position: usize,
    vector: Vec<f32>,
}

fn plus(x: &Tensor, position: usize, vector: &[f32]) -> Tensor {
    let mut rows = x.to_vec2::<f32>().unwrap();
    rows[position].iter_mut().zip(vector).for_each(|(x, v)| *x += v);
    Tensor::new(rows, x.device()).unwrap()
}

impl Intervention for Adds<'_> {
    fn mlp_out(&self, layer: usize, _x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        let here = self.id.layer == layer && self.id.kind == Kind::Mlp;
        Ok(if here { plus(&mlp_out, self.position, &self.vector) } else { mlp_out })
    }
}

impl Adds<'_> {
    /// Logits of the pass with the vector in it, at its position.
    fn logits(&self, tokens: &[u32]) -> Vec<f64> {
        let model = self.f.model();
        let logits = match self.id.kind {
            Kind::Mlp => model.logits(&model.forward_with(tokens, self).unwrap()).unwrap(),
            Kind::Attention => {
                let layer = self.id.layer;
                let clean = &model.forward(tokens).unwrap().layers[layer];
                let mid = plus(&clean.resid_mid, self.position, &self.vector);
                let sigma = mid.sqr().unwrap().mean_keepdim(1).unwrap();
                let x2 =
                    mid.broadcast_div(&(sigma + model.epsilon).unwrap().sqrt().unwrap()).unwrap();
                let w = &model.layers[layer];
                let hidden =
                    x2.matmul(&w.w_in).unwrap().broadcast_add(&w.b_in).unwrap().gelu().unwrap();
                let mlp_out = hidden.matmul(&w.w_out).unwrap().broadcast_add(&w.b_out).unwrap();
                model.logits_from(&(mid + mlp_out).unwrap(), layer + 1, self).unwrap()
            }
        };
        numbers(&logits.get(self.position).unwrap())
    }
}

fn some_features(f: &Fixture) -> Vec<FeatureId> {
    let layers = f.model().sizes.layers;
    let ids = DictionaryId::all(layers)
        .map(|dictionary| FeatureId { dictionary, index: 3 + dictionary.layer });
    ids.collect()
}

fn context<'f>(f: &'f Fixture) -> impl Fn(u32) -> &'f [u32] + use<'f> {
    |c| f.expected.contexts[c as usize].tokens.as_slice()
}

/// Rises at each place of each feature.
fn rises(f: &Fixture, steered: &[Steered]) -> Vec<Vec<Vec<f64>>> {
    let read = |_: usize, rise: &[f32]| rise.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    steer(&f.replacement, steered, context(f), TopTokens { k: 3, specials: &BTreeSet::new() }, read)
        .unwrap()
        .into_iter()
        .map(|rise| rise.at)
        .collect()
}

fn clean_logits(f: &Fixture, context: u32, position: u16) -> Vec<f64> {
    let logits = f.model().logits(&f.contexts()[context as usize]).unwrap();
    numbers(&logits.get(position.into()).unwrap())
}

fn centred(row: &[f64]) -> Vec<f64> {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    row.iter().map(|x| x - mean).collect()
}

fn places(f: &Fixture) -> Vec<(u32, u16)> {
    let last = |c: u32| f.expected.contexts[c as usize].tokens.len() as u16 - 1;
    vec![(0, 1), (0, 5), (1, last(1)), (2, 0), (3, last(3) / 2)]
}

fn what_rises_is_the_change_of_a_whole_pass(f: &'static Fixture) {
    let strength = 6.0;
    let features = some_features(f);
    let directions = write_directions(&f.replacement, &features).unwrap();
    let steered: Vec<Steered> =
        features.iter().map(|&feature| Steered { feature, strength, places: places(f) }).collect();
    for ((one, u), found) in steered.iter().zip(directions).zip(rises(f, &steered)) {
        assert_eq!(found.len(), one.places.len());
        let vector: Vec<f32> = u.iter().map(|x| x * strength).collect();
        for (&(c, p), rise) in one.places.iter().zip(found) {
            let adds =
                Adds { f, id: one.feature.dictionary, position: p.into(), vector: vector.clone() };
            let with = adds.logits(&f.expected.contexts[c as usize].tokens);
            let change: Vec<f64> =
                with.iter().zip(clean_logits(f, c, p)).map(|(a, b)| a - b).collect();
            let change = centred(&change);
            assert!(
                change.iter().any(|x| x.abs() > 1e-2),
                "{} does nothing at {c}, {p}",
                one.feature
            );
            assert_near(&format!("{} at {c}, {p}", one.feature), &rise, &change, TOLERANCE);
        }
    }
}

fn nothing_rises_of_nothing(f: &'static Fixture) {
    let steered: Vec<Steered> = some_features(f)
        .into_iter()
        .map(|feature| Steered { feature, strength: 0.0, places: places(f) })
        .collect();
    let largest = clean_logits(f, 0, 5).iter().fold(0.0, |top: f64, x| top.max(x.abs()));
    for rise in rises(f, &steered).into_iter().flatten() {
        assert!(rise.iter().all(|x| x.abs() < 1e-5 * largest), "{rise:?}");
    }
}

/// Behind the last MLP there is only the final scale: `x/σ` becomes `(x + s·u)/σ'`, so that the
/// rise is `s·u·W_U/σ'` and the clean logits, without their bias, times `σ/σ' − 1`.
fn the_last_mlp_says_more_of_what_it_promotes(f: &'static Fixture) {
    let model = f.model();
    let feature = FeatureId {
        dictionary: DictionaryId { layer: model.sizes.layers - 1, kind: Kind::Mlp },
        index: 5,
    };
    let (strength, (c, p)) = (4.0, (1, 6));
    let rise = rises(f, &[Steered { feature, strength, places: vec![(c, p)] }]).remove(0).remove(0);
    let promoted =
        promoted_logits(&f.replacement, &[vec![(feature, f64::from(strength))]]).unwrap().remove(0);
    let u = write_directions(&f.replacement, &[feature]).unwrap().remove(0);
    let trace = &f.contexts()[c as usize];
    let after = numbers(
        &plus(&trace.resid_post, p.into(), &u.iter().map(|x| x * strength).collect::<Vec<_>>())
            .get(p.into())
            .unwrap(),
    );
    let sigma =
        (after.iter().map(|x| x * x).sum::<f64>() / after.len() as f64 + model.epsilon).sqrt();
    let shrunk = f64::from(trace.sigma_f[p as usize]) / sigma - 1.0;
    let clean = clean_logits(f, c, p)
        .into_iter()
        .zip(numbers(&model.b_u))
        .map(|(logit, bias)| logit - bias);
    let expected = promoted
        .iter()
        .zip(clean)
        .map(|(&promoted, clean)| f64::from(promoted) / sigma + shrunk * clean);
    assert_near("the rise", &rise, &expected.collect::<Vec<_>>(), TOLERANCE);
}

fn the_mean_over_places_is_told(f: &'static Fixture) {
    let steered = [Steered { feature: some_features(f)[1], strength: 3.0, places: places(f) }];
    let all = rises(f, &steered).remove(0);
    let listed = TopTokens { k: 4, specials: &BTreeSet::new() };
    let rise = |listed| steer(&f.replacement, &steered, context(f), listed, |_, _| ()).unwrap();
    let most = rise(listed).remove(0).most;
    let mean = |id: usize| all.iter().map(|rise| rise[id]).sum::<f64>() / all.len() as f64;
    let mut means: Vec<f64> = (0..all[0].len()).map(mean).collect();
    let told: Vec<f64> = most.iter().map(|&(id, _)| means[id as usize]).collect();
    means.sort_by(|a, b| b.total_cmp(a));
    assert_near(
        "means",
        &most.iter().map(|x| f64::from(x.1)).collect::<Vec<_>>(),
        &told,
        TOLERANCE,
    );
    assert_near("the largest", &told, &means[..4], TOLERANCE);
    let specials = BTreeSet::from([most[0].0]);
    let others = rise(TopTokens { k: 3, specials: &specials }).remove(0).most;
    assert_eq!(others, most[1..], "a special token is not told of");
}

fn contexts_and_features_beside_it_change_nothing(f: &'static Fixture) {
    let all: Vec<Steered> = some_features(f)
        .into_iter()
        .map(|feature| Steered { feature, strength: 2.0, places: places(f) })
        .collect();
    let together = rises(f, &all);
    for (i, one) in all.iter().enumerate() {
        let alone = Steered { places: vec![one.places[4]], ..one.clone() };
        assert_near("alone", &rises(f, &[alone])[0][0], &together[i][4], TOLERANCE);
    }
}

fn similar_features_are_found_by_their_cosine(f: &'static Fixture) {
    let ids = DictionaryId::all(f.model().sizes.layers);
    let features: Vec<FeatureId> = ids
        .flat_map(|dictionary| (0..20).map(move |index| FeatureId { dictionary, index }))
        .collect();
    let u = write_directions(&f.replacement, &features).unwrap();
    let product = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    let cosine = |i: usize, j: usize| {
        product(&u[i], &u[j]) / (product(&u[i], &u[i]) * product(&u[j], &u[j])).sqrt()
    };
    for (i, found) in nearest(&f.replacement, &features, 4).unwrap().into_iter().enumerate() {
        let others = (0..features.len()).filter(|&j| j != i);
        let mut expected: Vec<f64> =
            others.map(|j| cosine(i, j)).filter(|cosine| *cosine > 0.0).collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        expected.truncate(4);
        assert!(found.iter().all(|near| near.number != i));
        assert_near(
            "cosines",
            &found.iter().map(|near| cosine(i, near.number)).collect::<Vec<_>>(),
            &expected,
            1e-4,
        );
        let told: Vec<f64> = found.iter().map(|near| f64::from(near.cosine)).collect();
        assert_near("cosines as told", &told, &expected, 1e-4);
    }
}

fn adding_behind_no_layer_is_refused(f: &'static Fixture) {
    let (model, tokens) = (f.model(), &f.expected.contexts[0].tokens);
    let vector = vec![0.0; model.sizes.d_model];
    let added = Added {
        context: 0,
        position: 1,
        layer: model.sizes.layers,
        behind: Behind::Mlp,
        vector: &vector,
    };
    let error = model.change_by(&[tokens], &[added]).unwrap_err().to_string();
    assert!(error.contains("behind no layer"), "{error}");
}
