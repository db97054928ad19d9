//! Errors planted in healthy dictionaries, of the recorded world and of the demo: each is refused
//! or warned about with its cause, and nothing is said about the healthy ones.

mod strange;

use crate::bench::{REPOSITORY, copy};
use crate::fixture::{Fixture, dictionaries, opened};
use candle_core::{Device, Tensor};
use circuit_atlas::corpus::{How, Split, Tokenizer, read, shards, windows};
use circuit_atlas::dictionary::{Conformance, Dictionary, Rule, Sample, find, judge, measure};
use circuit_atlas::error::report;
use circuit_atlas::ids::{DictionaryId, Kind};
use circuit_atlas::model::Gpt2;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const LAYER: usize = 1;

/// A model with its dictionaries and a sample on which they were measured.
struct World {
    name: &'static str,
    model: &'static Gpt2,
    sample: Sample,
    dictionaries: Vec<&'static Dictionary>,
    healthy: Vec<Conformance>,
    /// SAELens folders of its dictionaries by kind and layer, and how many layers these have.
    folder: fn(Kind, usize) -> PathBuf,
    layers: usize,
}

impl World {
    fn new(
        name: &'static str,
        model: &'static Gpt2,
        contexts: &[Vec<u32>],
        dictionaries: Vec<&'static Dictionary>,
        (folder, layers): (fn(Kind, usize) -> PathBuf, usize),
    ) -> World {
        let sample = Sample::new(model, contexts).unwrap();
        let measured = |dictionary: &&Dictionary| measure(model, dictionary, &sample).unwrap();
        let healthy = dictionaries.iter().map(measured).collect();
        World { name, model, sample, dictionaries, healthy, folder, layers }
    }

    fn tiny() -> &'static World {
        static TINY: OnceLock<World> = OnceLock::new();
        TINY.get_or_init(|| {
            let f = Fixture::tiny();
            let contexts: Vec<Vec<u32>> =
                f.expected.contexts.iter().take(40).map(|c| c.tokens.clone()).collect();
            let folder = |kind: Kind, layer: usize| {
                let name = if kind == Kind::Mlp { "transcoder" } else { "attention" };
                Fixture::tiny().path("saelens").join(format!("{name}.{layer}"))
            };
            World::new("tiny", f.model(), &contexts, f.every_dictionary().collect(), (folder, 2))
        })
    }

    fn demo() -> &'static World {
        static DEMO: OnceLock<World> = OnceLock::new();
        DEMO.get_or_init(|| World::of_demo(&demo_contexts(70)))
    }

    fn of_demo(contexts: &[Vec<u32>]) -> World {
        let (model, all, _) = Self::parts_of_demo();
        let folder = |kind: Kind, layer: usize| {
            let folder = if kind == Kind::Mlp { "transcoder" } else { "attention_sae" };
            let hook = DictionaryId { layer, kind }.hook();
            Path::new(REPOSITORY).join("demo").join(folder).join(hook)
        };
        World::new("demo", model, contexts, all.iter().collect(), (folder, 4))
    }

    fn parts_of_demo() -> &'static (Gpt2, Vec<Dictionary>, Tokenizer) {
        static PARTS: OnceLock<(Gpt2, Vec<Dictionary>, Tokenizer)> = OnceLock::new();
        PARTS.get_or_init(|| {
            let demo = Path::new(REPOSITORY).join("demo");
            let model = Gpt2::load(&demo.join("model")).unwrap();
            let of = |folder: &str, kind| dictionaries(&demo.join(folder), kind, &model.sizes);
            let mut all = of("attention_sae", Kind::Attention);
            all.extend(of("transcoder", Kind::Mlp));
            let tokenizer = Tokenizer::load(&demo.join("model"), model.sizes.vocabulary).unwrap();
            (model, all, tokenizer)
        })
    }

    fn dictionary(&self, kind: Kind) -> &Dictionary {
        let id = DictionaryId { layer: LAYER, kind };
        self.dictionaries.iter().find(|dictionary| dictionary.id == id).unwrap()
    }

    /// What the user is told when one dictionary is replaced.
    fn told(&self, planted: &Planted) -> String {
        self.told_and_lost(planted).0
    }

    /// The same, and how much less of the variance is explained than as it was trained.
    fn told_and_lost(&self, planted: &Planted) -> (String, f64) {
        let measured = measure(self.model, &planted.opened(self), &self.sample).unwrap();
        let mut all = self.healthy.clone();
        let place = all.iter().position(|other| other.id == measured.id).unwrap();
        let lost = all[place].variance_explained - measured.variance_explained;
        all[place] = measured;
        let told = match judge(&all) {
            Err(error) => report(&error),
            Ok(warnings) => {
                let told: Vec<String> = all
                    .iter()
                    .zip(warnings)
                    .flat_map(|(of, told)| told.into_iter().map(move |t| format!("{}: {t}", of.id)))
                    .collect();
                told.join("\n")
            }
        };
        (told, lost)
    }
}

/// The first context of every `each`th document.
fn demo_contexts(each: u32) -> Vec<Vec<u32>> {
    let (demo, tokenizer) = (Path::new(REPOSITORY).join("demo"), &World::parts_of_demo().2);
    let (mut contexts, mut number) = (Vec::new(), 0);
    let how = How { column: "text", split: Split::Auto, cut: tokenizer.cut() };
    read(&shards(vec![demo.join("corpus.jsonl")])[0], &how, &mut |document| {
        if number % each == 0 {
            let ids = tokenizer.ids(&document)?;
            let cut = windows(number, &ids, 128, tokenizer.bos());
            contexts.extend(cut.into_iter().take(1).map(|window| window.tokens));
        }
        number += 1;
        Ok(true)
    })
    .unwrap();
    contexts
}

/// A dictionary as SAELens writes it, in plain numbers; what it subtracts is in `b_enc`.
#[derive(Clone)]
struct Planted {
    kind: Kind,
    /// A feature a row.
    w_enc: Vec<Vec<f32>>,
    b_enc: Vec<f32>,
    threshold: Option<Vec<f32>>,
    w_dec: Vec<Vec<f32>>,
    b_dec: Vec<f32>,
}

impl Planted {
    fn healthy(world: &World, kind: Kind) -> Planted {
        let dictionary = world.dictionary(kind);
        let all = 0..dictionary.width();
        Planted {
            kind,
            w_enc: all.clone().map(|f| dictionary.read_direction(f).unwrap()).collect(),
            b_enc: all.clone().map(|f| dictionary.read_bias(f)).collect(),
            threshold: match dictionary.encoder().unwrap().rule {
                Rule::Jump(thresholds) => Some(thresholds),
                _ => None,
            },
            w_dec: all.map(|f| dictionary.write_direction(f).unwrap()).collect(),
            b_dec: dictionary.b_out().to_vec(),
        }
    }

    fn opened(&self, world: &World) -> Dictionary {
        let folder = tempfile::tempdir().unwrap();
        // `find` wants every layer.
        for other in (0..world.layers).filter(|other| *other != LAYER) {
            copy(&(world.folder)(self.kind, other), &folder.path().join(format!("other{other}")));
        }
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let architecture = match (self.kind, &self.threshold) {
            (Kind::Attention, None) => "standard",
            (Kind::Attention, _) => "jumprelu",
            (Kind::Mlp, None) => "transcoder",
            (Kind::Mlp, _) => "jumprelu_transcoder",
        };
        let id = DictionaryId { layer: LAYER, kind: self.kind };
        let config = serde_json::json!({
            "architecture": architecture, "apply_b_dec_to_input": false,
            "metadata": { "hook_name": id.hook() },
        });
        std::fs::write(own.join("cfg.json"), config.to_string()).unwrap();
        let device = &Device::Cpu;
        let matrix = |rows: &Vec<Vec<f32>>| {
            Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), device).unwrap()
        };
        let vector = |values: &[f32]| Tensor::new(values, device).unwrap();
        let mut tensors = HashMap::from([
            ("W_enc", matrix(&self.w_enc).t().unwrap().contiguous().unwrap()),
            ("b_enc", vector(&self.b_enc)),
            ("W_dec", matrix(&self.w_dec)),
            ("b_dec", vector(&self.b_dec)),
        ]);
        tensors.extend(self.threshold.iter().map(|values| ("threshold", vector(values))));
        candle_core::safetensors::save(&tensors, own.join("sae_weights.safetensors")).unwrap();
        let sources = find(folder.path(), &[], self.kind, world.layers).unwrap();
        let source = sources.iter().find(|source| source.id.layer == LAYER).unwrap();
        opened(source, &world.model.sizes).unwrap()
    }

    fn scaled(rows: &mut [Vec<f32>], by: f32) {
        rows.iter_mut().flatten().for_each(|x| *x *= by);
    }

    /// Coordinates of its hook in another order: what was at `order[i]` is at `i`.
    fn reordered(&mut self, order: &[usize]) {
        let turn = |row: &mut Vec<f32>| *row = order.iter().map(|&i| row[i]).collect();
        self.w_enc.iter_mut().chain(&mut self.w_dec).for_each(turn);
        turn(&mut self.b_dec);
    }

    fn with_heads(&mut self, world: &World, heads: &[usize]) {
        let k = world.model.sizes.d_model / heads.len();
        let order: Vec<usize> = heads.iter().flat_map(|head| head * k..(head + 1) * k).collect();
        self.reordered(&order);
    }

    /// As trained on inputs that were larger by `shift`.
    fn input_shifted(&mut self, shift: &[f32], by: f32) {
        for (row, bias) in self.w_enc.iter().zip(&mut self.b_enc) {
            *bias -= by * row.iter().zip(shift).map(|(w, x)| w * x).sum::<f32>();
        }
    }
}

/// The means of what a dictionary reads and reconstructs, and the mean length of what it reads.
fn means(world: &World, kind: Kind) -> (Vec<f32>, Vec<f32>, f32) {
    let contexts = if world.name == "tiny" {
        Fixture::tiny().expected.contexts.iter().take(40).map(|c| c.tokens.clone()).collect()
    } else {
        demo_contexts(70)
    };
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for tokens in &contexts {
        let trace = world.model.forward(tokens).unwrap();
        let layer = &trace.layers[LAYER];
        let (read, written) = match kind {
            Kind::Attention => (&layer.z, &layer.z),
            Kind::Mlp => (&layer.x2, &layer.mlp_out),
        };
        let n = tokens.len() - 1;
        x.push(read.narrow(0, 1, n).unwrap());
        y.push(written.narrow(0, 1, n).unwrap());
    }
    let all = |rows: Vec<Tensor>| Tensor::cat(&rows, 0).unwrap();
    let (x, y) = (all(x), all(y));
    let lengths = x.sqr().unwrap().sum(1).unwrap().sqrt().unwrap();
    let mean = |rows: &Tensor| rows.mean(0).unwrap().to_vec1::<f32>().unwrap();
    (mean(&x), mean(&y), lengths.mean(0).unwrap().to_scalar().unwrap())
}

type Plant = fn(&mut Planted, &World);

/// What is planted, in which kind, and words of what must be said about it, or others between `|`.
const PLANTS: &[(&str, Option<Kind>, Plant, &str)] = &[
    ("W_dec × 0.5", None, |p, _| Planted::scaled(&mut p.w_dec, 0.5), "with `W_dec` times"),
    ("W_dec × 2", None, |p, _| Planted::scaled(&mut p.w_dec, 2.0), "with `W_dec` times 0."),
    ("W_enc × 0.5", None, |p, _| Planted::scaled(&mut p.w_enc, 0.5), "with `W_enc`"),
    ("W_enc × 2", None, |p, _| Planted::scaled(&mut p.w_enc, 2.0), "with `W_enc`"),
    ("inputs of norm √d", None, norm, "its input"),
    (
        "rows of W_dec normalised",
        None,
        normalised,
        "with each row of `W_dec` at its own scale|the rows of `W_dec` of",
    ),
    (
        "sign of W_enc",
        None,
        |p, _| Planted::scaled(&mut p.w_enc, -1.0),
        "with the sign of `W_enc` flipped",
    ),
    (
        "sign of W_dec",
        None,
        |p, _| Planted::scaled(&mut p.w_dec, -1.0),
        "with the sign of `W_dec` flipped",
    ),
    ("both signs", None, both_signs, "with the signs of `W_enc` and `W_dec` flipped"),
    ("b_enc zero", None, |p, _| p.b_enc.fill(0.0), "`b_enc` is zero throughout"),
    ("rows permuted", None, permuted, "the rows of `W_dec` of"),
    ("all rows permuted", None, |p, _| p.w_dec.rotate_left(1), "none of these readings fits it"),
    (
        "centred input",
        None,
        centred_input,
        "when the mean is subtracted from its input|when the output's bias is subtracted",
    ),
    ("centred both", None, centred, "when the means are subtracted from its input and its target"),
    ("[K, H]", Some(Kind::Attention), by_coordinate, "of `z` flattened as [d_head, heads]"),
    (
        "heads 0, 1",
        Some(Kind::Attention),
        |p, w| swapped(p, w, 0, 1),
        "with heads 0 and 1 of `z` swapped",
    ),
    (
        "heads 1, 2",
        Some(Kind::Attention),
        |p, w| swapped(p, w, 1, 2),
        "with heads 1 and 2 of `z` swapped",
    ),
    (
        "heads 0, 3",
        Some(Kind::Attention),
        |p, w| swapped(p, w, 0, 3),
        "with heads 0 and 3 of `z` swapped",
    ),
    (
        "heads 2, 3",
        Some(Kind::Attention),
        |p, w| swapped(p, w, 2, 3),
        "with heads 2 and 3 of `z` swapped",
    ),
    (
        "heads in a circle",
        Some(Kind::Attention),
        circle,
        "with the heads of `z` in the order 1, 2, 3",
    ),
];

/// Plants in a dictionary with thresholds.
const OF_JUMPS: &[(&str, Option<Kind>, Plant, &str)] = &[
    ("ln threshold", None, |p, _| thresholds(p, f32::ln), "with `threshold` exponentiated"),
    ("exp threshold", None, |p, _| thresholds(p, f32::exp), "with the logarithm of `threshold`"),
    ("threshold zero", None, |p, _| thresholds(p, |_| 0.0), "`threshold` is zero throughout"),
];

/// The decoder's rows of 100 features in a circle, or of a quarter of a narrow dictionary.
fn permuted(p: &mut Planted, _: &World) {
    // About 100 of the features that are active: a tenth of a wide dictionary's.
    let each = (p.w_dec.len() / 400).max(4);
    let some: Vec<usize> = (0..p.w_dec.len()).step_by(each).collect();
    some.windows(2).for_each(|pair| p.w_dec.swap(pair[0], pair[1]));
}

fn norm(p: &mut Planted, world: &World) {
    let length = means(world, p.kind).2;
    // Inputs of layer norms have that norm already: there a norm of 1.
    let d = world.model.sizes.d_model as f32;
    let s = if p.kind == Kind::Mlp { 1.0 / length } else { d.sqrt() / length };
    // Where they nearly have it already, twice that.
    let s = if (s - 1.0).abs() < 0.3 { 2.0 * s } else { s };
    Planted::scaled(&mut p.w_enc, 1.0 / s);
    if p.kind == Kind::Attention {
        Planted::scaled(&mut p.w_dec, s);
        p.b_dec.iter_mut().for_each(|x| *x *= s);
    }
}

/// Rows whose norms go from 0.4 to 4, normalised: activations are that much smaller than rows want.
fn normalised(p: &mut Planted, _: &World) {
    for f in 0..p.w_enc.len() {
        let norm = 0.4 * 10f32.powf((f * 7 % 100) as f32 / 100.0);
        p.w_enc[f].iter_mut().for_each(|x| *x /= norm);
        p.b_enc[f] /= norm;
        p.threshold.iter_mut().for_each(|all| all[f] /= norm);
    }
}

fn both_signs(p: &mut Planted, _: &World) {
    Planted::scaled(&mut p.w_enc, -1.0);
    Planted::scaled(&mut p.w_dec, -1.0);
}

fn centred_input(p: &mut Planted, world: &World) {
    let (x, _, _) = means(world, p.kind);
    p.input_shifted(&x, -1.0);
}

fn centred(p: &mut Planted, world: &World) {
    centred_input(p, world);
    let (_, y, _) = means(world, p.kind);
    p.b_dec.iter_mut().zip(&y).for_each(|(b, y)| *b -= y);
}

fn by_coordinate(p: &mut Planted, world: &World) {
    let sizes = &world.model.sizes;
    let (h, k) = (sizes.heads, sizes.d_model / sizes.heads);
    let order: Vec<usize> = (0..k).flat_map(|i| (0..h).map(move |head| head * k + i)).collect();
    p.reordered(&order);
}

fn swapped(p: &mut Planted, world: &World, a: usize, b: usize) {
    let mut heads: Vec<usize> = (0..world.model.sizes.heads).collect();
    heads.swap(a, b);
    p.with_heads(world, &heads);
}

fn circle(p: &mut Planted, world: &World) {
    let n = world.model.sizes.heads;
    p.with_heads(world, &(0..n).map(|i| (i + 1) % n).collect::<Vec<_>>());
}

fn thresholds(p: &mut Planted, change: fn(f32) -> f32) {
    p.threshold.iter_mut().flatten().for_each(|x| *x = change(*x));
}

/// Everything that is not as it should be, at once.
#[track_caller]
fn assert_told(world: &World, plants: &[(&str, Option<Kind>, Plant, &str)]) {
    let mut wrong = Vec::new();
    for (name, only, plant, words) in plants {
        for kind in [Kind::Attention, Kind::Mlp] {
            if only.is_some_and(|only| only != kind) {
                continue;
            }
            let mut planted = Planted::healthy(world, kind);
            plant(&mut planted, world);
            let (told, lost) = world.told_and_lost(&planted);
            // A mean that is nearly 0 may be subtracted or not.
            if told.is_empty() && lost < 0.03 {
                continue;
            }
            if !words.split('|').any(|words| told.contains(words)) {
                wrong.push(format!("--- {} {kind} {name}: no `{words}` in\n{told}", world.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_said_about_healthy_dictionaries() {
    for world in [World::tiny(), World::demo()] {
        assert_eq!(judge(&world.healthy).unwrap().concat(), Vec::<String>::new(), "{}", world.name);
        for kind in [Kind::Attention, Kind::Mlp] {
            assert_eq!(world.told(&Planted::healthy(world, kind)), "", "{} {kind}", world.name);
        }
    }
}

#[test]
fn what_is_planted_in_the_recorded_world_is_named() {
    assert_told(World::tiny(), PLANTS);
}

#[test]
fn what_is_planted_in_the_demo_is_named() {
    assert_told(World::demo(), PLANTS);
    assert_told(World::demo(), OF_JUMPS);
}

/// A config that says that contexts began without BOS is warned about, in both generations.
#[test]
fn contexts_without_bos_are_warned_about() {
    let f = Fixture::tiny();
    let text = |hook: &str| {
        [
            format!(
                "{{\"architecture\": \"standard\", \"metadata\": {{\"hook_name\": \"{hook}\", \"prepend_bos\": false}}}}"
            ),
            format!("{{\"hook_point\": \"{hook}\", \"prepend_bos\": false}}"),
        ]
    };
    let id = DictionaryId { layer: 0, kind: Kind::Attention };
    let contexts: Vec<Vec<u32>> =
        f.expected.contexts.iter().take(8).map(|c| c.tokens.clone()).collect();
    let sample = Sample::new(f.model(), &contexts).unwrap();
    for config in text(&id.hook()) {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        copy(&f.path("saelens/attention.0"), &own);
        std::fs::write(own.join("cfg.json"), config).unwrap();
        let source = find(folder.path(), &[], Kind::Attention, 1).unwrap().remove(0);
        let dictionary = opened(&source, &f.model().sizes).unwrap();
        let measured = measure(f.model(), &dictionary, &sample).unwrap();
        let told = judge(&[measured]).unwrap().concat();
        assert!(told.iter().any(|text| text.contains("prepend_bos false")), "{told:?}");
    }
}
