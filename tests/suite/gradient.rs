//! The gradient of the run with features replaced: its ends against `features::Runner`, the
//! gradient against central differences, sums over receivers, and scores that PyTorch's automatic
//! differentiation gives in the demo world.

use crate::bench::{REPOSITORY, copy, widened};
use crate::faithful::cases;
use crate::fixture::{Fixture, in_every_world};
use candle_core::{DType, Tensor};
use circuit_atlas::circuit::features::{self, Errors, FeatureAblation, Runner, Side};
use circuit_atlas::circuit::gradient::{
    Basis, Gradient, GradientLinks, Lessons, Members, PartialHooks, middles,
};
use circuit_atlas::circuit::ranked::{Sums, equal, first, ranking};
use circuit_atlas::circuit::{
    Ablate, Case, Metric, Node, Pass, ReplacementModel, components, random_circuits,
};
use circuit_atlas::dictionary::{Dictionary, find};
use circuit_atlas::ids::{DictionaryId, FeatureId, Kind};
use circuit_atlas::model::Gpt2;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

in_every_world!(
    its_ends_are_the_empty_and_the_whole_circuit,
    it_is_the_derivative_of_the_metric,
    effects_on_all_receivers_sum_to_the_score,
    other_prompts_beside_it_change_nothing,
    a_mask_is_followed_by_the_derivative,
    integrated_gradients_add_up_to_what_a_hook_does,
    all_neurons_are_the_model,
    learned_masks_come_nearer_to_the_model_than_random_circuits,
);

fn held(f: &Fixture) -> Vec<Arc<FeatureAblation>> {
    features::ablation_values(&f.replacement, &cases(f), Ablate::Mean, 1).unwrap()
}

/// All features of every dictionary, or those that are active in the prompt or its stand-in.
fn hooks(gradient: &Gradient, held: &FeatureAblation, clean: Option<&Pass>) -> PartialHooks {
    gradient.hooks(clean.map_or(Basis::Every, Basis::Candidates), held).unwrap()
}

fn near(what: &str, a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{what}: {a} and {b} are {} apart", (a - b).abs());
}

fn its_ends_are_the_empty_and_the_whole_circuit(f: &'static Fixture) {
    let (cases, held) = (cases(f), held(f));
    let runner = Runner {
        replacement: &f.replacement,
        cases: &cases,
        ablation_values: &held,
        errors: Errors::Ablated,
    };
    let nothing = BTreeSet::new();
    let ends = [
        runner.values(&nothing, Side::Inside).unwrap(),
        runner.values(&nothing, Side::Outside).unwrap(),
    ];
    let gradient = Gradient::new(&f.replacement, Vec::new()).unwrap();
    let scale = ends[1].iter().map(|m| m.abs()).fold(0.0, f64::max);
    for (i, case) in cases.iter().enumerate() {
        for (t, end) in [0.0, 1.0].into_iter().zip(&ends) {
            let point = gradient.point(case, &hooks(&gradient, &held[i], None), t).unwrap();
            near(&format!("prompt {i} at {t}"), point.value, end[i], 2e-4 * scale);
        }
    }
}

/// Moves what a hook holds along what one feature writes, and looks what becomes of the metric.
fn it_is_the_derivative_of_the_metric(f: &'static Fixture) {
    const STEP: f64 = 1e-5;
    let (cases, held) = (cases(f), held(f));
    let gradient = Gradient::in_dtype(&f.replacement, middles(3), DType::F64).unwrap();
    let layers = f.replacement.model.sizes.layers;
    let (mut compared, mut largest) = (0, 0f64);
    for (case, held) in cases.iter().zip(&held).take(2) {
        let mut hooks = hooks(&gradient, held, None);
        for t in middles(3) {
            let back = gradient.point(case, &hooks, t).unwrap().back(&gradient, &hooks).unwrap();
            for (i, id) in DictionaryId::all(layers).enumerate() {
                let scores = back.scores(i).unwrap().to_vec2::<f64>().unwrap();
                let changes = back.change(i).unwrap_rows();
                let Some((p, at)) = strongest(&scores) else { continue };
                let c = scores[p][at] / changes[p][at];
                let whole = hooks.parts[i].whole.clone();
                let mut moved = |by: f64| {
                    let row = write_row(&f.replacement, id, hooks.parts[i].names[at] as usize);
                    let rest = whole.dim(0).unwrap() - p - 1;
                    let shift = (Tensor::new(row, whole.device()).unwrap().unsqueeze(0).unwrap()
                        * by)
                        .unwrap();
                    let shift = shift.pad_with_zeros(0, p, rest).unwrap();
                    hooks.parts[i].whole = (&whole + shift).unwrap();
                    gradient.point(case, &hooks, t).unwrap().value
                };
                let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                hooks.parts[i].whole = whole.clone();
                near(&format!("{id} at {t}"), c, difference, 1e-6 * c.abs().max(1e-3));
                (compared, largest) = (compared + 1, largest.max(c.abs()));
            }
        }
    }
    assert!(compared >= 12 && largest > 1e-3, "{compared} compared, the largest {largest}");
}

trait Rows {
    fn unwrap_rows(&self) -> Vec<Vec<f64>>;
}

impl Rows for Tensor {
    fn unwrap_rows(&self) -> Vec<Vec<f64>> {
        self.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
    }
}

fn strongest(scores: &[Vec<f64>]) -> Option<(usize, usize)> {
    let all = scores
        .iter()
        .enumerate()
        .flat_map(|(p, row)| row.iter().enumerate().map(move |(i, s)| (s.abs(), p, i)));
    all.max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, ..)| *score > 0.0)
        .map(|(_, p, i)| (p, i))
}

/// What a feature writes into its hook; an MLP's is centred.
fn write_row(replacement: &ReplacementModel, id: DictionaryId, feature: usize) -> Vec<f64> {
    let row: Vec<f64> = replacement
        .dictionary(id)
        .write_direction(feature)
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect();
    let mean = if id.kind == Kind::Mlp { row.iter().sum::<f64>() / row.len() as f64 } else { 0.0 };
    row.into_iter().map(|x| x - mean).collect()
}

fn effects_on_all_receivers_sum_to_the_score(f: &'static Fixture) {
    let (cases, held) = (cases(f), held(f));
    let gradient = Gradient::in_dtype(&f.replacement, middles(3), DType::F64).unwrap();
    let every: BTreeSet<FeatureId> = DictionaryId::all(f.replacement.model.sizes.layers)
        .flat_map(|dictionary| {
            (0..f.replacement.dictionary(dictionary).width())
                .map(move |index| FeatureId { dictionary, index })
        })
        .collect();
    let members = Members::new(&gradient, &every).unwrap();
    for (case, held) in cases.iter().zip(&held).take(2) {
        let hooks = hooks(&gradient, held, None);
        let backs = gradient.run(case, &hooks).unwrap();
        let links = GradientLinks::new(&gradient, &members, &hooks, &backs, None).unwrap();
        let mut sums: BTreeMap<Node, f64> = BTreeMap::new();
        let mut receivers = vec![Node::ROOT];
        for p in 0..case.tokens.len() {
            receivers.extend(
                every.iter().map(|f| {
                    Node::feature(f.dictionary.kind, f.dictionary.layer, p, f.index as u32)
                }),
            );
        }
        for receiver in &receivers {
            for one in links.reaching(receiver) {
                *sums.entry(one.child).or_insert(0.0) += one.effect;
            }
        }
        let mut largest = 0f64;
        for (id, names, scores) in gradient.mean_scores(&hooks, &backs).unwrap() {
            for (at, score) in scores.iter().enumerate() {
                let (p, f) = (at / names.len(), names[at % names.len()]);
                let node = Node::feature(id.kind, id.layer, p, f);
                let sum = sums.get(&node).copied().unwrap_or(0.0);
                near(&format!("{id}.{f} at {p}"), sum, *score, 1e-12 * (1.0 + score.abs()));
                largest = largest.max(score.abs());
            }
        }
        assert!(largest > 1e-3, "{largest}");
    }
}

fn other_prompts_beside_it_change_nothing(f: &'static Fixture) {
    let (cases, held) = (cases(f), held(f));
    let gradient = Gradient::new(&f.replacement, middles(3)).unwrap();
    let tokens: Vec<&[u32]> = cases.iter().map(|case| case.tokens).collect();
    let together = f.replacement.passes(&tokens).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let alone = f.replacement.passes(&[case.tokens]).unwrap().remove(0);
        let [a, b] = [&alone, &together[i]]
            .map(|pass| gradient.scores(case, pass, &held[i]).unwrap().by_part());
        let largest = a.values().map(|score| score.abs()).fold(0.0, f64::max);
        for feature in a.keys().chain(b.keys()) {
            let of =
                |scores: &BTreeMap<FeatureId, f64>| scores.get(feature).copied().unwrap_or(0.0);
            near(&feature.to_string(), of(&a), of(&b), 1e-5 * largest);
        }
    }
}

/// Features weighed at random: the gradient by each weight against central differences.
fn a_mask_is_followed_by_the_derivative(f: &'static Fixture) {
    const STEP: f64 = 1e-6;
    let (cases, held) = (cases(f), held(f));
    let gradient = Gradient::in_dtype(&f.replacement, Vec::new(), DType::F64).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut compared, mut largest) = (0, 0f64);
    for (case, held) in cases.iter().zip(&held).take(2) {
        let mut hooks = hooks(&gradient, held, None);
        let weights: Vec<Vec<f64>> = hooks
            .parts
            .iter()
            .map(|parts| parts.names.iter().map(|_| rng.random_range(0.2..0.8)).collect())
            .collect();
        let weigh = |hooks: &mut PartialHooks, at: Option<(usize, usize)>, by: f64| {
            for (i, parts) in hooks.parts.iter_mut().enumerate() {
                let moved = |(k, w): (usize, &f64)| w + if at == Some((i, k)) { by } else { 0.0 };
                parts.weigh(weights[i].iter().enumerate().map(moved).collect()).unwrap();
            }
        };
        weigh(&mut hooks, None, 0.0);
        let back = gradient.point(case, &hooks, 1.0).unwrap().back(&gradient, &hooks).unwrap();
        for i in 0..hooks.parts.len() {
            // How far a weight moves the metric: the part's score, summed over positions.
            let sums: Vec<f64> = back.scores(i).unwrap().sum(0).unwrap().to_vec1().unwrap();
            let Some((_, k)) = strongest(std::slice::from_ref(&sums)) else { continue };
            let mut value = |by: f64| {
                weigh(&mut hooks, Some((i, k)), by);
                gradient.point(case, &hooks, 1.0).unwrap().value
            };
            let difference = (value(STEP) - value(-STEP)) / (2.0 * STEP);
            near(&format!("hook {i}"), sums[k], difference, 1e-6 * difference.abs().max(1e-2));
            (compared, largest) = (compared + 1, largest.max(difference.abs()));
        }
    }
    assert!(compared >= 4 && largest > 1e-3, "{compared} compared, the largest {largest}");
}

/// One hook alone on its way to what stands in for it: what its features lose on the way is what
/// they lose at its end.
fn integrated_gradients_add_up_to_what_a_hook_does(f: &'static Fixture) {
    let (cases, held) = (cases(f), held(f));
    let gradient = Gradient::new(&f.replacement, Vec::new()).unwrap();
    let neurons = components::neurons(&f.replacement.model, &cases).unwrap();
    let runner = Runner {
        replacement: &f.replacement,
        cases: &cases,
        ablation_values: &held,
        errors: Errors::Kept,
    };
    let full = runner.values(&BTreeSet::new(), Side::Outside).unwrap();
    let passes =
        f.replacement.passes(&cases.iter().map(|case| case.tokens).collect::<Vec<_>>()).unwrap();
    let mut largest = 0f64;
    let scores: Vec<BTreeMap<FeatureId, f64>> = (0..cases.len())
        .map(|i| gradient.integrated(&cases[i], &passes[i], &held[i], &neurons[i]).unwrap())
        .collect();
    for dictionary in DictionaryId::all(f.replacement.model.sizes.layers) {
        let all = (0..f.replacement.dictionary(dictionary).width())
            .map(|index| FeatureId { dictionary, index })
            .collect();
        let without = runner.values(&all, Side::Outside).unwrap();
        for (i, scores) in scores.iter().enumerate() {
            let sum: f64 = scores
                .iter()
                .filter(|(f, _)| f.dictionary == dictionary)
                .map(|(_, score)| score)
                .sum();
            let lost = full[i] - without[i];
            near(&format!("{dictionary} in prompt {i}"), sum, lost, 0.04 * lost.abs().max(0.05));
            largest = largest.max(lost.abs());
        }
    }
    assert!(largest > 1e-2, "{largest}");
}

fn learned_masks_come_nearer_to_the_model_than_random_circuits(f: &'static Fixture) {
    let (cases, held) = (cases(f), held(f));
    let runner = Runner {
        replacement: &f.replacement,
        cases: &cases,
        ablation_values: &held,
        errors: Errors::Ablated,
    };
    let empty = runner.values(&BTreeSet::new(), Side::Inside).unwrap();
    let whole = |case: &Case| {
        case.metric.of(&f
            .replacement
            .model
            .last_logits(&f.replacement.model.forward(case.tokens).unwrap())
            .unwrap())
    };
    let full: Vec<f64> = cases.iter().map(whole).collect();
    let gradient = Gradient::new(&f.replacement, middles(3)).unwrap();
    let mut sums = Sums::default();
    let passes =
        f.replacement.passes(&cases.iter().map(|case| case.tokens).collect::<Vec<_>>()).unwrap();
    for (i, case) in cases.iter().enumerate() {
        sums.add("", &gradient.scores(case, &passes[i], &held[i]).unwrap().by_part(), 1.0);
    }
    let means = sums.means();
    let candidates = first(&ranking(&means, &equal(&means)), 60);
    let size = candidates.len() / 3;
    let lessons =
        Lessons { cases: &cases, ablation_values: &held, full: &full, empty: &empty, seed: 1 };
    let learned = gradient.learned(&lessons, &candidates, &[size]).unwrap();
    assert_eq!(learned[&size].len(), size);
    let off = |circuit: &BTreeSet<FeatureId>| {
        let m = runner.values(circuit, Side::Inside).unwrap();
        m.iter().zip(&full).map(|(m, full)| (m - full).abs()).sum::<f64>()
    };
    let random: Vec<f64> = random_circuits(&candidates, size, 5, 1).iter().map(off).collect();
    let learned = off(&learned[&size]);
    assert!(random.iter().all(|random| learned < *random), "{learned} and {random:?}");
}

fn all_neurons_are_the_model(f: &'static Fixture) {
    let cases = cases(f);
    let model = &f.replacement.model;
    let gradient = Gradient::new(&f.replacement, Vec::new()).unwrap();
    let neurons = components::neurons(model, &cases).unwrap();
    let replaced = components::ablation_values(model, &cases, Ablate::Mean, 1).unwrap();
    let empty = components::values(model, &cases, &BTreeSet::new(), &replaced).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let mut hooks = gradient.neurons(&neurons[i]).unwrap();
        let whole =
            case.metric.of(&model.last_logits(&model.forward(case.tokens).unwrap()).unwrap());
        near(
            "all of them",
            gradient.point(case, &hooks, 1.0).unwrap().value,
            whole,
            2e-4 * whole.abs().max(1.0),
        );
        hooks.only(&BTreeSet::new()).unwrap();
        near(
            "none",
            gradient.point(case, &hooks, 1.0).unwrap().value,
            empty[i],
            2e-4 * empty[i].abs().max(1.0),
        );
    }
}

/// Scores of the demo world by PyTorch in double precision, as (dictionary, feature, prompt,
/// position, score).
#[derive(Deserialize)]
struct Recorded {
    prompts: Vec<RecordedPrompt>,
    /// At `t = 0` and `t = 1`.
    metric_at_t: [Vec<f64>; 2],
    sum_of_scores: Vec<f64>,
    scores: Vec<(String, u32, usize, usize, f64)>,
}

#[derive(Deserialize)]
struct RecordedPrompt {
    tokens: Vec<u32>,
    corrupted: Vec<u32>,
    frame: String,
    correct: u32,
    counter: u32,
    year: Option<u32>,
}

impl Recorded {
    fn of_demo() -> BTreeMap<String, Recorded> {
        let text = std::fs::read_to_string(Path::new(REPOSITORY).join("tests/data/gradient.json"))
            .unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn cases(&self) -> Vec<Case<'_>> {
        let tokenizer =
            circuit_atlas::corpus::Tokenizer::load(&Path::new(REPOSITORY).join("demo/model"), 2560)
                .unwrap();
        let digits = Arc::new(circuit_atlas::task::digits(&tokenizer).unwrap());
        let metric = |p: &RecordedPrompt| match p.year {
            Some(year) => Metric::GreaterThan { digits: digits.clone(), year },
            None => Metric::LogitDifference { correct: p.correct, counter: p.counter },
        };
        fn case(p: &RecordedPrompt, metric: Metric) -> Case<'_> {
            Case { tokens: &p.tokens, corrupted: &p.corrupted, template: &p.frame, metric }
        }
        self.prompts.iter().map(|p| case(p, metric(p))).collect()
    }
}

/// The demo's world; converted dictionaries go into `folder`.
pub(crate) fn demo_world(folder: &Path) -> ReplacementModel {
    replacement(&Path::new(REPOSITORY).join("demo"), folder)
}

/// The model with its dictionaries in a folder like `demo`; converted dictionaries go into
/// `folder`.
fn replacement(demo: &Path, folder: &Path) -> ReplacementModel {
    let model = Gpt2::load(&demo.join("model")).unwrap();
    let sizes = model.sizes;
    let of = |name: &str, kind: Kind| -> Vec<Dictionary> {
        let sources = find(&demo.join(name), &[], kind, sizes.layers).unwrap();
        sources
            .iter()
            .map(|source| Dictionary::open(source, sizes.d_model, folder, name).unwrap())
            .collect()
    };
    let (attention, mlp) = (of("attention_sae", Kind::Attention), of("transcoder", Kind::Mlp));
    ReplacementModel::new(model, attention, mlp).unwrap()
}

#[test]
fn scores_of_the_demo_are_those_of_automatic_differentiation() {
    let folder = tempfile::TempDir::new().unwrap();
    let replacement = demo_world(folder.path());
    for (task, recorded) in &Recorded::of_demo() {
        let Recorded { metric_at_t, sum_of_scores, scores, .. } = recorded;
        let cases = recorded.cases();
        let held = features::ablation_values(&replacement, &cases, Ablate::Mean, 1).unwrap();
        let gradient = Gradient::in_dtype(&replacement, middles(3), DType::F64).unwrap();
        let mut found: BTreeMap<(String, u32, usize, usize), f64> = BTreeMap::new();
        for (i, case) in cases.iter().enumerate() {
            let hooks = hooks(&gradient, &held[i], None);
            for (t, wanted) in [0.0, 1.0].into_iter().zip(metric_at_t) {
                let value = gradient.point(case, &hooks, t).unwrap().value;
                near(
                    &format!("{task} {i} at {t}"),
                    value,
                    wanted[i],
                    1e-4 * wanted[i].abs().max(1.0),
                );
            }
            let backs = gradient.run(case, &hooks).unwrap();
            let mut sum = 0.0;
            for (id, names, scores) in gradient.mean_scores(&hooks, &backs).unwrap() {
                for (at, score) in scores.iter().enumerate() {
                    found.insert(
                        (id.to_string(), names[at % names.len()], i, at / names.len()),
                        *score,
                    );
                    sum += score;
                }
            }
            near(&format!("{task} {i} sum"), sum, sum_of_scores[i], 1e-4 * sum.abs().max(1.0));
        }
        let largest = scores.iter().map(|row| row.4.abs()).fold(0.0, f64::max);
        for (dictionary, feature, prompt, position, score) in scores {
            let ours = found[&(dictionary.clone(), *feature, *prompt, *position)];
            near(
                &format!("{task} {dictionary}.{feature} in {prompt}"),
                ours,
                *score,
                1e-5 * largest,
            );
        }
    }
}

/// With features that jump at a threshold it does not hold; without, the scores over the whole way
/// are all that features do.
#[test]
fn without_thresholds_scores_add_up_to_what_all_features_keep() {
    let folder = tempfile::TempDir::new().unwrap();
    let demo = folder.path().join("demo");
    copy(&Path::new(REPOSITORY).join("demo"), &demo);
    for kind in ["attention_sae", "transcoder"] {
        for dictionary in std::fs::read_dir(demo.join(kind)).unwrap() {
            let path = dictionary.unwrap().path().join("sae_weights.safetensors");
            let mut tensors =
                candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
            let none = tensors["threshold"].zeros_like().unwrap();
            tensors.insert("threshold".into(), none);
            candle_core::safetensors::save(&tensors, &path).unwrap();
        }
    }
    let worlds = [("a", demo), ("b", Path::new(REPOSITORY).join("demo"))];
    let worlds = worlds.map(|(name, demo)| replacement(&demo, &folder.path().join(name)));
    for (task, recorded) in &Recorded::of_demo() {
        let cases = recorded.cases();
        let missed = worlds.each_ref().map(|replacement| {
            let held = features::ablation_values(replacement, &cases, Ablate::Mean, 1).unwrap();
            let gradient = Gradient::new(replacement, middles(240)).unwrap();
            let hooks = hooks(&gradient, &held[0], None);
            let [nothing, all] =
                [0.0, 1.0].map(|t| gradient.point(&cases[0], &hooks, t).unwrap().value);
            let sum: f64 = gradient.by_part(&cases[0], &hooks).unwrap().values().sum();
            (sum - (all - nothing)).abs() / (all - nothing).abs()
        });
        assert!(
            missed[0] < 0.01 && missed[0] < missed[1],
            "{task}: {missed:?} of what all features do is missing"
        );
    }
}

/// As wide as one likes, with heads, neurons and features that do nothing: the ranking is the same.
#[test]
fn a_widened_world_has_the_same_ranking() {
    let folder = tempfile::TempDir::new().unwrap();
    let Some(wide) = widened(folder.path()) else { return };
    let demo = Path::new(REPOSITORY).join("demo");
    let worlds = [("a", &demo), ("b", &wide)]
        .map(|(name, demo)| replacement(demo, &folder.path().join(name)));
    for (task, recorded) in &Recorded::of_demo() {
        let cases = recorded.cases();
        let [ours, wide] = worlds.each_ref().map(|replacement| {
            let held = features::ablation_values(replacement, &cases, Ablate::Mean, 1).unwrap();
            let passes = replacement
                .passes(&cases.iter().map(|case| case.tokens).collect::<Vec<_>>())
                .unwrap();
            let gradient = Gradient::new(replacement, middles(3)).unwrap();
            let mut sums = Sums::default();
            for (i, case) in cases.iter().enumerate() {
                sums.add("", &gradient.scores(case, &passes[i], &held[i]).unwrap().by_part(), 1.0);
            }
            let means = sums.means();
            ranking(&means, &equal(&means))
        });
        let largest = ours[0].1;
        let of: BTreeMap<FeatureId, f64> = wide.iter().copied().collect();
        for (feature, score) in &ours {
            near(
                &format!("{task} {feature}"),
                of.get(feature).copied().unwrap_or(0.0),
                *score,
                1e-4 * largest,
            );
        }
        assert_eq!(first(&ours, 50), first(&wide, 50), "{task}");
    }
}
