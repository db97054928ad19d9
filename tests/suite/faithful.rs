//! Faithfulness of components against the recorded numbers.

use crate::fixture::{Fixture, Prompt, assert_near, assert_tensor, assert_within, in_every_world};
use circuit_atlas::circuit::{Ablated, Means, Metric, components_at, keep_only, means, random_circuits, values};
use circuit_atlas::ids::Component;
use circuit_atlas::stats::interval::{Bootstrap, mean};
use std::collections::{BTreeMap, BTreeSet};

in_every_world!(
    faithfulness_is_the_recorded_one,
    the_circuits_by_frequency_are_the_recorded_ones,
    an_empty_circuit_is_run_with_everything_at_its_mean,
    one_head_is_kept_and_its_neighbours_are_not,
    random_circuits_have_the_size_and_come_again_with_the_seed,
    corrupted_prompts_of_a_template_must_be_of_one_length,
);

fn prompts(f: &Fixture) -> Vec<Ablated<'_>> {
    let metric = |p: &Prompt| Metric::LogitDifference { correct: p.correct_id, counter: p.counter_id };
    let prompts = f.expected.prompts.iter();
    prompts.map(|p| Ablated { tokens: &p.tokens, template: &p.template, metric: metric(p) }).collect()
}

fn corrupted(f: &Fixture) -> BTreeMap<&str, Means> {
    let prompts = f.expected.prompts.iter();
    let all: Vec<_> = prompts.map(|p| (p.template.as_str(), p.corrupted_tokens.as_slice())).collect();
    means(f.model(), &all).unwrap()
}

fn everything(f: &Fixture) -> BTreeSet<Component> {
    let sizes = f.model().sizes;
    Component::all(sizes.layers, sizes.heads).collect()
}

fn faithfulness_is_the_recorded_one(f: &'static Fixture) {
    let (prompts, means) = (prompts(f), corrupted(f));
    let m = |keep: &BTreeSet<Component>| values(f.model(), &prompts, keep, &means).unwrap();
    let (whole, empty) = (m(&everything(f)), m(&BTreeSet::new()));
    let bootstrap = Bootstrap::new(prompts.len(), f.expected.seed);
    for expected in &f.expected.faithfulness {
        let circuit: BTreeSet<Component> = expected.circuit.iter().map(|name| name.parse().unwrap()).collect();
        let rest: BTreeSet<Component> = everything(f).difference(&circuit).copied().collect();
        let (kept, complement) = (m(&circuit), m(&rest));
        let actual = [&whole, &empty, &kept, &complement].map(|values| mean(values));
        let wanted = [expected.m_model, expected.m_empty, expected.m_circuit, expected.m_complement];
        assert_near(&expected.name, &actual, &wanted, 2e-4);
        for (part, wanted) in [(&kept, expected.faithfulness), (&complement, expected.completeness)] {
            let found = bootstrap.recovered(part, &empty, &whole).expect("the whole model differs from none of it");
            assert_within(&expected.name, found.value, wanted, 2e-3);
            assert!(found.low <= found.value && found.value <= found.high, "{}: {found:?}", expected.name);
        }
    }
}

fn the_circuits_by_frequency_are_the_recorded_ones(f: &'static Fixture) {
    let task = &f.expected.task.components;
    let frequencies: BTreeMap<Component, f64> =
        task.iter().map(|(name, found)| (name.parse().unwrap(), found.frequency)).collect();
    for expected in &f.expected.faithfulness {
        let Some(at_least) = expected.name.strip_prefix("frequency >= ") else { continue };
        let found = components_at(&frequencies, at_least.parse().unwrap());
        let names: BTreeSet<String> = found.iter().map(Component::to_string).collect();
        assert_eq!(names, expected.circuit.iter().cloned().collect(), "{}", expected.name);
    }
}

/// Nothing kept: every component writes its mean, whatever is read; only the embeddings are the prompt's own.
fn an_empty_circuit_is_run_with_everything_at_its_mean(f: &'static Fixture) {
    let prompt = &f.expected.prompts[0];
    let corrupted: Vec<_> = f.expected.prompts.iter().filter(|p| p.template == prompt.template).collect();
    let traces: Vec<_> = corrupted.iter().map(|p| f.model().forward(&p.corrupted_tokens).unwrap()).collect();
    let means = self::corrupted(f);
    let ablation = keep_only(f.model(), &BTreeSet::new(), &means[prompt.template.as_str()]).unwrap();
    let run = f.model().forward_with(&prompt.tokens, &ablation).unwrap();
    let mut stream = run.layers[0].resid_pre.clone();
    for (l, layer) in run.layers.iter().enumerate() {
        let average = |pick: fn(&circuit_atlas::model::LayerTrace) -> &candle_core::Tensor| {
            let sum = traces[1..]
                .iter()
                .fold(pick(&traces[0].layers[l]).clone(), |sum, t| (sum + pick(&t.layers[l])).unwrap());
            (sum / traces.len() as f64).unwrap()
        };
        assert_tensor("z", &layer.z, &average(|layer| &layer.z));
        assert_tensor("mlp_out", &layer.mlp_out, &average(|layer| &layer.mlp_out));
        stream = ((stream + average(|layer| &layer.attn_out)).unwrap() + average(|layer| &layer.mlp_out)).unwrap();
    }
    assert_tensor("the stream", &run.resid_post, &stream);
}

fn one_head_is_kept_and_its_neighbours_are_not(f: &'static Fixture) {
    let (means, prompt) = (corrupted(f), &f.expected.prompts[0]);
    let kept = f.model().sizes.heads - 2;
    let keep = BTreeSet::from([format!("L0H{kept}").parse::<Component>().unwrap()]);
    let ablation = keep_only(f.model(), &keep, &means[prompt.template.as_str()]).unwrap();
    let [run, clean, corrupted] = [
        f.model().forward_with(&prompt.tokens, &ablation),
        f.model().forward(&prompt.tokens),
        f.model().forward_with(
            &prompt.tokens,
            &keep_only(f.model(), &BTreeSet::new(), &means[prompt.template.as_str()]).unwrap(),
        ),
    ]
    .map(|trace| trace.unwrap().layers.remove(0).z);
    let k = f.model().sizes.d_head;
    for head in 0..f.model().sizes.heads {
        let expected = if head == kept { &clean } else { &corrupted };
        let part = |z: &candle_core::Tensor| z.narrow(1, head * k, k).unwrap();
        assert_tensor(&format!("head {head}"), &part(&run), &part(expected));
    }
}

fn random_circuits_have_the_size_and_come_again_with_the_seed(f: &'static Fixture) {
    let draw = |seed| random_circuits(f.model(), 5, 20, seed);
    assert!(draw(1).iter().all(|circuit| circuit.len() == 5));
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert!(draw(1).iter().collect::<BTreeSet<_>>().len() > 15, "20 draws of 5 are mostly different");
    let counted = |c: &Component| random_circuits(f.model(), 5, 600, 3).iter().filter(|x| x.contains(c)).count();
    // 600 draws, each of 5 components: within five deviations of what is expected.
    let share = 5.0 / everything(f).len() as f64;
    let reach = 5.0 * (600.0 * share * (1.0 - share)).sqrt();
    let near = |c: &Component| (counted(c) as f64 - 600.0 * share).abs() < reach;
    assert!(everything(f).iter().all(near));
}

fn corrupted_prompts_of_a_template_must_be_of_one_length(f: &'static Fixture) {
    let bos = f.expected.special_token_id;
    let prompts: [(&str, &[u32]); 2] = [("T0", &[bos, 1, 2]), ("T0", &[bos, 1])];
    let error = means(f.model(), &prompts).err().unwrap().to_string();
    assert!(error.contains("template `T0` differ in length"), "{error}");
    let one =
        [Ablated { tokens: &[bos, 1], template: "T9", metric: Metric::LogitDifference { correct: 1, counter: 2 } }];
    let error = values(f.model(), &one, &BTreeSet::new(), &corrupted(f)).unwrap_err().to_string();
    assert!(error.contains("`T9` has no corrupted prompts"), "{error}");
}

#[test]
fn greater_than_weighs_the_years_above_against_the_others() {
    let digits = std::sync::Arc::new(vec![3, 0, 2]);
    let metric = Metric::GreaterThan { digits, year: 1 };
    // Token 2 is year 02, tokens 3 and 0 are years 00 and 01; token 1 is no year.
    let logits = [1.0f32, 2.0, 3.0, 0.5];
    let whole: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    let expected = (3f64.exp() - 1f64.exp() - 0.5f64.exp()) / whole;
    assert_within("greater-than", metric.of(&logits), expected, 1e-7);
}
