//! Faithfulness: of components against the recorded numbers; of features by identities, and against
//! plain arithmetic on whole dictionaries; of single links by stepping in.

use crate::fixture::{Fixture, Prompt, assert_near, assert_tensor, assert_within, in_every_world};
use candle_core::{DType, Tensor};
use circuit_atlas::circuit::components::{self, ComponentAblation};
use circuit_atlas::circuit::effects::{Effect, TestedLink, effects};
use circuit_atlas::circuit::features::{self, Errors, Runner, Side};
use circuit_atlas::circuit::{self, Ablate, Case, Graph, Metric, Root, at_least, random_circuits};
use circuit_atlas::dictionary::Dictionary;
use circuit_atlas::error::Result;
use circuit_atlas::ids::{Component, FeatureId, Kind};
use circuit_atlas::ids::{NodeKind, Slot};
use circuit_atlas::model::{Gpt2, Intervention};
use circuit_atlas::stats::interval::{Bootstrap, mean};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

in_every_world!(
    faithfulness_is_the_recorded_one,
    the_circuits_by_frequency_are_the_recorded_ones,
    an_empty_circuit_is_run_with_everything_at_its_mean,
    one_head_is_kept_and_its_neighbours_are_not,
    random_circuits_have_the_size_and_come_again_with_the_seed,
    corrupted_prompts_of_a_template_must_be_of_one_length,
    a_resampled_part_is_that_of_one_corrupted_prompt,
    a_run_of_many_prompts_gives_what_whole_passes_give,
    to_keep_some_features_is_to_ablate_the_others,
    no_feature_ablated_is_the_model_and_all_with_their_errors_is_nothing_kept,
    features_are_replaced_by_their_means_over_corrupted_prompts,
    a_link_is_measured_in_the_live_model,
);

pub(crate) fn cases(f: &Fixture) -> Vec<Case<'_>> {
    let case = |p: &'_ Prompt| -> Metric {
        Metric::LogitDifference { correct: p.correct_id, counter: p.counter_id }
    };
    let prompts = f.expected.prompts.iter();
    prompts
        .map(|p| Case {
            tokens: &p.tokens,
            corrupted: &p.corrupted_tokens,
            template: &p.template,
            metric: case(p),
        })
        .collect()
}

fn ablation_values(f: &Fixture, ablate: Ablate) -> Vec<Arc<ComponentAblation>> {
    components::ablation_values(f.model(), &cases(f), ablate, 7).unwrap()
}

/// The intervention on one prompt that keeps some components and puts what stands in for them in the
/// place of all others.
struct Kept {
    heads: usize,
    keep: BTreeSet<Component>,
    z: Vec<Tensor>,
    mlp_out: Vec<Tensor>,
}

fn keep_only(model: &Gpt2, keep: &BTreeSet<Component>, instead: &ComponentAblation) -> Kept {
    Kept {
        heads: model.sizes.heads,
        keep: keep.clone(),
        z: instead.z.clone(),
        mlp_out: instead.mlp_out.clone(),
    }
}

impl Intervention for Kept {
    fn z(&self, layer: usize, z: Tensor) -> Result<Tensor> {
        let k = z.dim(1)? / self.heads;
        let part = |head: usize| {
            let kept = self.keep.contains(&Component::Head { layer, head });
            if kept { &z } else { &self.z[layer] }.narrow(1, head * k, k)
        };
        let parts = (0..self.heads).map(part).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }

    fn mlp_out(&self, layer: usize, _x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        let kept = self.keep.contains(&Component::Mlp { layer });
        Ok(if kept { mlp_out } else { self.mlp_out[layer].clone() })
    }
}

fn everything(f: &Fixture) -> BTreeSet<Component> {
    circuit::everything(f.model())
}

fn faithfulness_is_the_recorded_one(f: &'static Fixture) {
    let (prompts, means) = (cases(f), ablation_values(f, Ablate::Mean));
    let m =
        |keep: &BTreeSet<Component>| components::values(f.model(), &prompts, keep, &means).unwrap();
    let (whole, empty) = (m(&everything(f)), m(&BTreeSet::new()));
    let bootstrap = Bootstrap::new(prompts.len(), f.expected.seed);
    for expected in &f.expected.faithfulness {
        let circuit: BTreeSet<Component> =
            expected.circuit.iter().map(|name| name.parse().unwrap()).collect();
        let rest: BTreeSet<Component> = everything(f).difference(&circuit).copied().collect();
        let (kept, complement) = (m(&circuit), m(&rest));
        let actual = [&whole, &empty, &kept, &complement].map(|values| mean(values));
        let wanted =
            [expected.m_model, expected.m_empty, expected.m_circuit, expected.m_complement];
        assert_near(&expected.name, &actual, &wanted, 2e-4);
        for (part, wanted) in [(&kept, expected.faithfulness), (&complement, expected.completeness)]
        {
            let found = bootstrap
                .recovered(part, &empty, &whole)
                .expect("the whole model differs from none of it");
            assert_within(&expected.name, found.value, wanted, 2e-3);
            assert!(
                found.low <= found.value && found.value <= found.high,
                "{}: {found:?}",
                expected.name
            );
        }
    }
}

fn the_circuits_by_frequency_are_the_recorded_ones(f: &'static Fixture) {
    let task = &f.expected.task.components;
    let frequencies: BTreeMap<Component, f64> =
        task.iter().map(|(name, found)| (name.parse().unwrap(), found.frequency)).collect();
    for expected in &f.expected.faithfulness {
        let Some(least) = expected.name.strip_prefix("frequency >= ") else { continue };
        let found = at_least(&frequencies, least.parse().unwrap());
        let names: BTreeSet<String> = found.iter().map(Component::to_string).collect();
        assert_eq!(names, expected.circuit.iter().cloned().collect(), "{}", expected.name);
    }
}

/// Nothing kept: every component writes its mean, whatever is read; only the embeddings are the
/// prompt's own.
fn an_empty_circuit_is_run_with_everything_at_its_mean(f: &'static Fixture) {
    let prompt = &f.expected.prompts[0];
    let corrupted: Vec<_> =
        f.expected.prompts.iter().filter(|p| p.template == prompt.template).collect();
    let traces: Vec<_> =
        corrupted.iter().map(|p| f.model().forward(&p.corrupted_tokens).unwrap()).collect();
    let ablation = keep_only(f.model(), &BTreeSet::new(), &ablation_values(f, Ablate::Mean)[0]);
    let run = f.model().forward_with(&prompt.tokens, &ablation).unwrap();
    let mut stream = run.layers[0].resid_pre.clone();
    for (l, layer) in run.layers.iter().enumerate() {
        let average = |pick: fn(&circuit_atlas::model::LayerTrace) -> &Tensor| {
            let sum = traces[1..].iter().fold(pick(&traces[0].layers[l]).clone(), |sum, t| {
                (sum + pick(&t.layers[l])).unwrap()
            });
            (sum / traces.len() as f64).unwrap()
        };
        assert_tensor("z", &layer.z, &average(|layer| &layer.z));
        assert_tensor("mlp_out", &layer.mlp_out, &average(|layer| &layer.mlp_out));
        stream = ((stream + average(|layer| &layer.attn_out)).unwrap()
            + average(|layer| &layer.mlp_out))
        .unwrap();
    }
    assert_tensor("the stream", &run.resid_post, &stream);
}

fn one_head_is_kept_and_its_neighbours_are_not(f: &'static Fixture) {
    let (means, prompt) = (ablation_values(f, Ablate::Mean), &f.expected.prompts[0]);
    let kept = f.model().sizes.heads - 2;
    let keep = BTreeSet::from([format!("L0H{kept}").parse::<Component>().unwrap()]);
    let ablation = keep_only(f.model(), &keep, &means[0]);
    let [run, clean, corrupted] = [
        f.model().forward_with(&prompt.tokens, &ablation),
        f.model().forward(&prompt.tokens),
        f.model().forward_with(&prompt.tokens, &keep_only(f.model(), &BTreeSet::new(), &means[0])),
    ]
    .map(|trace| trace.unwrap().layers.remove(0).z);
    let k = f.model().sizes.d_head;
    for head in 0..f.model().sizes.heads {
        let expected = if head == kept { &clean } else { &corrupted };
        let part = |z: &Tensor| z.narrow(1, head * k, k).unwrap();
        assert_tensor(&format!("head {head}"), &part(&run), &part(expected));
    }
}

fn random_circuits_have_the_size_and_come_again_with_the_seed(f: &'static Fixture) {
    let draw = |seed| random_circuits(&everything(f), 5, 20, seed);
    assert!(draw(1).iter().all(|circuit| circuit.len() == 5));
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert!(
        draw(1).iter().collect::<BTreeSet<_>>().len() > 15,
        "20 draws of 5 are mostly different"
    );
    let counted = |c: &Component| {
        random_circuits(&everything(f), 5, 600, 3).iter().filter(|x| x.contains(c)).count()
    };
    // 600 draws, each of 5 components: within five deviations of what is expected.
    let share = 5.0 / everything(f).len() as f64;
    let reach = 5.0 * (600.0 * share * (1.0 - share)).sqrt();
    let near = |c: &Component| (counted(c) as f64 - 600.0 * share).abs() < reach;
    assert!(everything(f).iter().all(near));
}

fn corrupted_prompts_of_a_template_must_be_of_one_length(f: &'static Fixture) {
    let bos = f.expected.special_token_id;
    let metric = Metric::LogitDifference { correct: 1, counter: 2 };
    let (long, short) = ([bos, 1, 2], [bos, 1]);
    let case = |tokens| Case { tokens, corrupted: tokens, template: "T0", metric: metric.clone() };
    let error =
        components::ablation_values(f.model(), &[case(&long), case(&short)], Ablate::Mean, 1)
            .err()
            .unwrap();
    assert!(error.to_string().contains("template `T0` differ in length"), "{error}");
}

fn a_resampled_part_is_that_of_one_corrupted_prompt(f: &'static Fixture) {
    let prompts = &f.expected.prompts;
    let drawn = ablation_values(f, Ablate::Resample);
    for (prompt, ablation_value) in prompts.iter().zip(&drawn) {
        let own = prompts.iter().filter(|p| p.template == prompt.template);
        let same = |p: &Prompt| {
            let trace = f.model().forward(&p.corrupted_tokens).unwrap();
            trace.layers.iter().enumerate().all(|(l, layer)| {
                let equal = |a: &Tensor, b: &Tensor| flat(a) == flat(b);
                equal(&layer.z, &ablation_value.z[l])
                    && equal(&layer.mlp_out, &ablation_value.mlp_out[l])
            })
        };
        assert!(
            own.clone().any(same),
            "no corrupted prompt of `{}` has these values",
            prompt.template
        );
    }
    let nothing = ablation_values(f, Ablate::Zero);
    assert!(
        nothing
            .iter()
            .flat_map(|s| s.z.iter().chain(&s.mlp_out))
            .all(|x| flat(x).iter().all(|x| *x == 0.0))
    );
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// What nobody reads is not run, and prompts are run side by side; it must not matter.
fn a_run_of_many_prompts_gives_what_whole_passes_give(f: &'static Fixture) {
    let keep: BTreeSet<Component> =
        everything(f).into_iter().enumerate().filter(|(i, _)| i % 3 == 1).map(|x| x.1).collect();
    let (cases, means) = (cases(f), ablation_values(f, Ablate::Mean));
    for keep in [&keep, &BTreeSet::new(), &everything(f)] {
        let one = |(case, ablation_value): (&Case, &Arc<ComponentAblation>)| {
            let ablation = keep_only(f.model(), keep, ablation_value);
            let whole = f.model().forward_with(case.tokens, &ablation).unwrap();
            case.metric.of(&f.model().last_logits(&whole).unwrap())
        };
        let whole: Vec<f64> = cases.iter().zip(&means).map(one).collect();
        let values = components::values(f.model(), &cases, keep, &means).unwrap();
        assert_near("whole passes", &values, &whole, 2e-4);
    }
}

/// Every third feature of every dictionary, and all others.
fn halves(f: &Fixture) -> [BTreeSet<FeatureId>; 2] {
    let all = f.replacement.attention.iter().chain(&f.replacement.mlp);
    let each = all.flat_map(|d| (0..d.width()).map(|index| FeatureId { dictionary: d.id, index }));
    each.partition(|f| f.index % 3 == 0).into()
}

const ABLATIONS: [Ablate; 3] = [Ablate::Mean, Ablate::Resample, Ablate::Zero];

fn with_features(
    f: &Fixture,
    ablate: Ablate,
    errors: Errors,
    circuit: &BTreeSet<FeatureId>,
    side: Side,
) -> Vec<f64> {
    let cases = cases(f);
    let ablation_values = features::ablation_values(&f.replacement, &cases, ablate, 7).unwrap();
    Runner { replacement: &f.replacement, cases: &cases, ablation_values: &ablation_values, errors }
        .values(circuit, side)
        .unwrap()
}

fn to_keep_some_features_is_to_ablate_the_others(f: &'static Fixture) {
    let [some, others] = halves(f);
    for ablate in ABLATIONS {
        for errors in [Errors::Kept, Errors::Ablated] {
            let inside = with_features(f, ablate, errors, &some, Side::Inside);
            let outside = with_features(f, ablate, errors, &others, Side::Outside);
            assert_near(&format!("{ablate:?}, errors {errors:?}"), &inside, &outside, 2e-4);
        }
    }
}

fn no_feature_ablated_is_the_model_and_all_with_their_errors_is_nothing_kept(f: &'static Fixture) {
    let clean: Vec<f64> = f.expected.prompts.iter().map(|p| p.logit_difference).collect();
    let [some, others] = halves(f);
    let all: BTreeSet<FeatureId> = some.union(&others).copied().collect();
    for ablate in ABLATIONS {
        assert_near(
            "outside nothing",
            &with_features(f, ablate, Errors::Kept, &BTreeSet::new(), Side::Outside),
            &clean,
            2e-4,
        );
        assert_near(
            "inside all",
            &with_features(f, ablate, Errors::Kept, &all, Side::Inside),
            &clean,
            2e-4,
        );
    }
    for ablate in [Ablate::Mean, Ablate::Resample] {
        let nothing = with_features(f, ablate, Errors::Ablated, &BTreeSet::new(), Side::Inside);
        let empty =
            components::values(f.model(), &cases(f), &BTreeSet::new(), &ablation_values(f, ablate))
                .unwrap();
        assert_near("nothing but what stands in", &nothing, &empty, 2e-4);
    }
}

/// A dictionary laid out whole: rows of all features.
struct Dense {
    encoder: circuit_atlas::dictionary::Encoder,
    decoder: Tensor,
    bias: Tensor,
    centre: bool,
}

impl Dense {
    fn of(d: &Dictionary) -> Dense {
        let rows: Vec<f32> = (0..d.width()).flat_map(|f| d.write_direction(f).unwrap()).collect();
        let device = &candle_core::Device::Cpu;
        let decoder = Tensor::from_vec(rows, (d.width(), d.b_out().len()), device).unwrap();
        let bias = Tensor::new(d.b_out(), device).unwrap();
        Dense { encoder: d.encoder().unwrap(), decoder, bias, centre: d.id.kind == Kind::Mlp }
    }

    /// `x` without its mean, where the hook is centred.
    fn centred(&self, x: Tensor) -> Tensor {
        if self.centre { x.broadcast_sub(&x.mean_keepdim(1).unwrap()).unwrap() } else { x }
    }

    fn decode(&self, a: &Tensor) -> Tensor {
        self.centred(a.matmul(&self.decoder).unwrap().broadcast_add(&self.bias).unwrap())
    }
}

/// All features but some at given values, `[T, F]`, and the error at a given one or as it is.
struct Replaced {
    dense: BTreeMap<(Kind, usize), (Dense, Tensor, Option<Tensor>)>,
    keep: BTreeSet<FeatureId>,
}

impl Replaced {
    fn now(&self, kind: Kind, layer: usize, read: &Tensor, holds: &Tensor) -> Tensor {
        let (dense, stands, error) = &self.dense[&(kind, layer)];
        let a = dense.encoder.encode(read).unwrap();
        let kept = |f: usize| u8::from(self.keep.contains(&FeatureId::new(kind, layer, f)));
        let width = a.dim(1).unwrap();
        let mask = Tensor::from_iter((0..width).map(kept), a.device())
            .unwrap()
            .broadcast_as(a.shape())
            .unwrap();
        let mixed = mask.where_cond(&a, stands).unwrap();
        let error = error.clone().unwrap_or_else(|| (holds - dense.decode(&a)).unwrap());
        (dense.decode(&mixed) + error).unwrap()
    }
}

impl Intervention for Replaced {
    fn z(&self, layer: usize, z: Tensor) -> Result<Tensor> {
        Ok(self.now(Kind::Attention, layer, &z, &z))
    }

    fn mlp_out(&self, layer: usize, x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        Ok(self.now(Kind::Mlp, layer, x2, &mlp_out))
    }
}

/// The same by plain arithmetic on whole dictionaries, one prompt at a time.
fn features_are_replaced_by_their_means_over_corrupted_prompts(f: &'static Fixture) {
    let [some, _] = halves(f);
    for errors in [Errors::Kept, Errors::Ablated] {
        let actual = with_features(f, Ablate::Mean, errors, &some, Side::Inside);
        let expected: Vec<f64> = f
            .expected
            .prompts
            .iter()
            .map(|prompt| {
                let own = f.expected.prompts.iter().filter(|p| p.template == prompt.template);
                let traces: Vec<_> =
                    own.map(|p| f.model().forward(&p.corrupted_tokens).unwrap()).collect();
                let mean = |all: Vec<Tensor>| Tensor::stack(&all, 0).unwrap().mean(0).unwrap();
                let mut dense = BTreeMap::new();
                for l in 0..f.model().sizes.layers {
                    for (kind, d) in [
                        (Kind::Attention, &f.replacement.attention[l]),
                        (Kind::Mlp, &f.replacement.mlp[l]),
                    ] {
                        let d = Dense::of(d);
                        let read = |t: &circuit_atlas::model::Trace| match kind {
                            Kind::Attention => (t.layers[l].z.clone(), t.layers[l].z.clone()),
                            Kind::Mlp => (t.layers[l].x2.clone(), t.layers[l].mlp_out.clone()),
                        };
                        let activations = |t| d.encoder.encode(&read(t).0).unwrap();
                        let stands = mean(traces.iter().map(activations).collect());
                        let missed = |t| (read(t).1 - d.decode(&activations(t))).unwrap();
                        let error = (errors == Errors::Ablated)
                            .then(|| mean(traces.iter().map(missed).collect()));
                        dense.insert((kind, l), (d, stands, error));
                    }
                }
                let trace = f
                    .model()
                    .forward_with(&prompt.tokens, &Replaced { dense, keep: some.clone() })
                    .unwrap();
                let logits = f.model().last_logits(&trace).unwrap();
                f64::from(logits[prompt.correct_id as usize])
                    - f64::from(logits[prompt.counter_id as usize])
            })
            .collect();
        assert_near(&format!("errors {errors:?}"), &actual, &expected, 2e-4);
    }
}

/// Adds to what a component writes at one position.
struct Added(Kind, usize, Tensor);

impl Intervention for Added {
    fn z(&self, layer: usize, z: Tensor) -> Result<Tensor> {
        Ok(if (self.0, self.1) == (Kind::Attention, layer) { (z + &self.2)? } else { z })
    }

    fn mlp_out(&self, layer: usize, _x2: &Tensor, mlp_out: Tensor) -> Result<Tensor> {
        Ok(if (self.0, self.1) == (Kind::Mlp, layer) { (mlp_out + &self.2)? } else { mlp_out })
    }
}

/// Links from features in the circuits of several prompts: what each receiver reads is taken from a
/// pass of its own.
fn a_link_is_measured_in_the_live_model(f: &'static Fixture) {
    let ablation_values =
        features::ablation_values(&f.replacement, &cases(f), Ablate::Mean, 7).unwrap();
    let all = f.circuits().iter().zip(&f.expected.prompts).zip(&ablation_values).take(4);
    let measured: Vec<Effect> = all
        .flat_map(|((graph, prompt), ablation_value)| {
            links_of_a_prompt(f, graph, prompt, ablation_value)
        })
        .collect();
    assert!(measured.len() >= 10, "{} links say little", measured.len());
    // Where circuits are short, prediction and measurement are not far apart on the whole.
    let agree = measured.iter().filter(|e| e.predicted.signum() == e.measured.signum()).count();
    assert!(agree * 4 >= measured.len() * 3, "{measured:?}");
}

fn links_of_a_prompt(
    f: &Fixture,
    graph: &Graph,
    prompt: &Prompt,
    ablation_value: &features::FeatureAblation,
) -> Vec<Effect> {
    let root = Root::LogitDifference { correct: prompt.correct_id, counter: prompt.counter_id };
    let attribution = circuit::Attribution::new(&f.replacement, &prompt.tokens).unwrap();
    let link = |edge: &circuit::Edge| {
        let activation = attribution.activation(&edge.child)?;
        Some(TestedLink {
            child: edge.child,
            activation,
            parent: edge.parent,
            slot: edge.slot,
            effect: edge.effect,
        })
    };
    let links: Vec<TestedLink> = graph.edges.iter().filter_map(link).collect();
    let measured = effects(&f.replacement, &prompt.tokens, root, ablation_value, &links).unwrap();
    for (link, effect) in links.iter().zip(&measured) {
        let feature = link.child.dictionary_feature().unwrap();
        let (kind, layer) = (feature.dictionary.kind, feature.dictionary.layer);
        let dictionary = if kind == Kind::Attention {
            &f.replacement.attention[layer]
        } else {
            &f.replacement.mlp[layer]
        };
        let dense = Dense::of(dictionary);
        let by = f64::from(effect.replaced - link.activation);
        let rows =
            (0..prompt.tokens.len()).map(|p| if p == link.child.position() { by } else { 0.0 });
        let by = Tensor::from_iter(rows, &candle_core::Device::Cpu)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        let direction = dense.centred(dense.decoder.narrow(0, feature.index, 1).unwrap());
        let added = by.unsqueeze(1).unwrap().matmul(&direction).unwrap();
        let live = f.model().forward_with(&prompt.tokens, &Added(kind, layer, added)).unwrap();
        let clean = f.model().forward(&prompt.tokens).unwrap();
        // What the receiver reads, by the sum of everything that enters it in that pass.
        let reads =
            |trace: &circuit_atlas::model::Trace| read(f, trace, &attribution, link, prompt);
        let expected = reads(&live) - reads(&clean);
        let scale = reads(&clean).abs().max(expected.abs());
        assert!(
            (f64::from(effect.measured) - expected).abs() <= 5e-4 * scale,
            "{link:?}: {effect:?}, not {expected}"
        );
        let predicted = f64::from(link.effect) * f64::from(effect.replaced / link.activation - 1.0);
        assert!(
            (f64::from(effect.predicted) - predicted).abs() <= 1e-4 * predicted.abs().max(1e-6),
            "{link:?}"
        );
    }
    measured
}

/// What a receiver reads in a pass, without constants.
fn read(
    f: &Fixture,
    trace: &circuit_atlas::model::Trace,
    clean: &circuit::Attribution,
    link: &TestedLink,
    prompt: &Prompt,
) -> f64 {
    let node = &link.parent;
    let (l, p, s, h) = (node.layer(), node.position(), node.source(), node.head());
    let k = f.model().sizes.d_head;
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    let direction = || match node.feature {
        None => {
            let z = clean.trace().layers[l].z.narrow(0, p, 1).unwrap();
            let dense = Dense::of(&f.replacement.attention[l]);
            let error = flat(&(&z - dense.decode(&dense.encoder.encode(&z).unwrap())).unwrap());
            let norm = dot(&error, &error).sqrt() as f32;
            error.into_iter().map(|x| x / norm).collect()
        }
        Some(feature) => f.replacement.attention[l].read_direction(feature as usize).unwrap(),
    };
    match (node.kind, link.slot) {
        (NodeKind::Root, _) => {
            let logits = flat(
                &f.model().logits(trace).unwrap().narrow(0, prompt.tokens.len() - 1, 1).unwrap(),
            );
            f64::from(logits[prompt.correct_id as usize])
                - f64::from(logits[prompt.counter_id as usize])
        }
        (NodeKind::MlpFeature, _) => dot(
            &flat(&trace.layers[l].x2.narrow(0, p, 1).unwrap()),
            &f.replacement.mlp[l].read_direction(node.index()).unwrap(),
        ),
        (NodeKind::Head, Slot::V) => {
            let a = flat(&trace.layers[l].pattern.get(h).unwrap().get(p).unwrap())[s];
            f64::from(a)
                * dot(
                    &flat(&trace.layers[l].v.get(h).unwrap().get(s).unwrap()),
                    &direction()[h * k..][..k],
                )
        }
        (NodeKind::Head, _) => {
            let side = |x: &Tensor, at: usize| flat(&x.get(h).unwrap().get(at).unwrap());
            dot(&side(&trace.layers[l].q, p), &side(&trace.layers[l].k, s)) / (k as f64).sqrt()
        }
        _ => dot(&flat(&trace.layers[l].z.narrow(0, p, 1).unwrap()), &direction()),
    }
}

#[test]
fn greater_than_weighs_the_years_above_against_the_others() {
    let digits = Arc::new(vec![3, 0, 2]);
    let metric = Metric::GreaterThan { digits, year: 1 };
    // Token 2 is year 02, tokens 3 and 0 are years 00 and 01; token 1 is no year.
    let logits = [1.0f32, 2.0, 3.0, 0.5];
    let whole: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    let expected = (3f64.exp() - 1f64.exp() - 0.5f64.exp()) / whole;
    assert_within("greater-than", metric.of(&logits), expected, 1e-7);
}
