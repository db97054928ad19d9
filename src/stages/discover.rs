//! `discover`: a circuit for each prompt of each task; what the circuits of a task have in common; whether they are real.

use super::inputs;
use crate::artifact::tables::{CircuitFeature, ComponentRow, EdgeRow, FaithfulnessRow, NodeRow, PromptRow};
use crate::circuit::{
    Ablated, Attribution, Graph, Greedy, Means, Metric, Node, NodeKind, Pass, Root, World, circuits_by_frequency,
    greedy, means, random_circuits, values,
};
use crate::config::{Config, Discover, RootKind, Task};
use crate::corpus::Tokenizer;
use crate::error::{Context, Result, hinted};
use crate::ids::{Component, FeatureId};
use crate::model::Gpt2;
use crate::stages::Run;
use crate::stats::interval::{Bootstrap, Estimate, mean, spread};
use crate::task::{self, Measure, Prompt};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Answers of the model that are kept of each prompt.
const ANSWERS: usize = 5;
/// Prompts whose passes are held at once.
const PROMPTS: usize = 32;
/// Random circuits of each size.
const RANDOM: usize = 10;

/// A prompt as the model answers it, and its circuit.
struct Solved {
    prompt: Prompt,
    metric: Metric,
    logit_difference: f64,
    clean: f64,
    answers: Vec<(u32, f32)>,
    /// None where the prompt is left out.
    circuit: Option<Circuit>,
}

impl Solved {
    fn right(&self) -> bool {
        self.clean > 0.0
    }
}

/// The circuit of a prompt.
struct Circuit {
    found: Found,
    /// Activation of each node, for features.
    activations: Vec<Option<f32>>,
    /// The components of the circuits of the right and of the wrong answer's logit.
    contrast: Option<[BTreeSet<Component>; 2]>,
}

/// The rows of all tables, as the tasks add to them.
#[derive(Default)]
struct Tables {
    prompts: Vec<PromptRow>,
    nodes: Vec<NodeRow>,
    edges: Vec<EdgeRow>,
    components: Vec<ComponentRow>,
    features: Vec<CircuitFeature>,
    faithfulness: Vec<FaithfulnessRow>,
}

/// Finds and measures the circuits of every task.
pub fn run(run: &Run) -> Result<String> {
    let tokenizer = inputs::tokenizer(run.config)?;
    run.progress.say("loading the model and its dictionaries");
    let world = inputs::world(run)?;
    let mut tables = Tables::default();
    for settings in &run.config.tasks {
        let what = || format!("task `{}`", settings.name);
        let prompts = task::prompts(settings, &run.config.folder, &tokenizer)?;
        let solved = solve(run, &world, &tokenizer, prompts).with_context(what)?;
        tables.add_circuits(&settings.name, &solved);
        let frequencies = tables.add_summary(&settings.name, &solved);
        run.progress.say("measuring faithfulness");
        tables.faithfulness.extend(faithfulness(&world, settings, &solved, &frequencies).with_context(what)?);
    }
    tables.sort();
    tables.write(run)?;
    Ok(summary(run.config, &tables))
}

fn summary(config: &Config, tables: &Tables) -> String {
    let features: BTreeSet<&String> = tables.features.iter().map(|row| &row.feature).collect();
    let (tasks, prompts) = (config.tasks.len(), tables.prompts.len());
    format!("{tasks} tasks, {prompts} prompts, {} links, {} distinct features", tables.edges.len(), features.len())
}

/// Finds the circuit of every prompt.
fn solve(run: &Run, world: &World, task: &Task, tokenizer: &Tokenizer) -> Result<Vec<Solved>> {
    let prompts = task::prompts(task, &run.config.folder, tokenizer)?;
    let digits = task::digits(tokenizer).map(Arc::new);
    run.progress.begin("prompts", prompts.len() as u64, 0);
    let one = |(prompt, pass): (&Prompt, Pass)| {
        let metric = metric(prompt, digits.as_ref())?;
        let solved = solve_one(world, &run.config.discover, task.wrong, prompt.clone(), pass, metric)?;
        run.progress.add(1);
        Ok(solved)
    };
    let mut solved = Vec::with_capacity(prompts.len());
    for some in prompts.chunks(PROMPTS) {
        let tokens: Vec<&[u32]> = some.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let passes = world.passes(&tokens)?;
        let each = some.par_iter().zip(passes).map(one);
        solved.extend(each.collect::<Result<Vec<_>>>()?);
    }
    if solved.iter().all(|solved| solved.circuit.is_none()) {
        let what = format!("the model is right at none of its {} prompts, so all are left out", solved.len());
        return Err(hinted(what, "set `wrong = \"keep\"` for the task, or give it prompts that the model can do"));
    }
    Ok(solved)
}

fn metric(prompt: &Prompt, digits: Option<&Arc<Vec<u32>>>) -> Result<Metric> {
    let (correct, counter) = (prompt.correct, prompt.counter);
    match (prompt.measure, digits) {
        (Measure::LogitDifference, _) => Ok(Metric::LogitDifference { correct, counter }),
        (Measure::GreaterThan { year }, Some(digits)) => Ok(Metric::GreaterThan { digits: digits.clone(), year }),
        (Measure::GreaterThan { .. }, None) => Err(hinted(
            "this tokenizer has not a token for each of `00` … `99`",
            "use a task of `kind = \"prompts\"` instead of `greater-than`",
        )),
    }
}

fn solve_one(
    world: &World,
    settings: &Discover,
    wrong: Wrong,
    prompt: Prompt,
    pass: Pass,
    metric: Metric,
) -> Result<Solved> {
    let logits = world.model.last_logits(pass.trace())?;
    let difference = Metric::LogitDifference { correct: prompt.correct, counter: prompt.counter };
    let mut solved = Solved {
        answers: crate::circuit::answers(&logits, ANSWERS),
        logit_difference: difference.of(&logits),
        clean: metric.of(&logits),
        prompt,
        metric,
        circuit: None,
    };
    if solved.right() || wrong == Wrong::Keep {
        let attribution = Attribution::of(world, pass, &solved.prompt.tokens)?;
        solved.circuit = Some(circuit(&attribution, settings, &solved.prompt)?);
    }
    Ok(solved)
}

fn circuit(attribution: &Attribution, settings: &Discover, prompt: &Prompt) -> Result<Circuit> {
    let method = match settings.method {
        config::Method::Greedy => Method::Greedy { passes: settings.passes, per_node: settings.per_node },
        config::Method::Influence => Method::Influence { coverage: settings.coverage, nodes: settings.nodes },
    };
    let mut candidates = Candidates::new(attribution, settings.candidates, &settings.allow);
    let (correct, counter) = (Root::Logit(prompt.correct), Root::Logit(prompt.counter));
    let root = match settings.root {
        RootKind::LogitDifference => Root::LogitDifference { correct: prompt.correct, counter: prompt.counter },
        RootKind::Logit => correct,
    };
    let found = find(&mut candidates, root, method)?;
    let mut components = |root| Ok(find(&mut candidates, root, method)?.graph.components());
    let contrast = match settings.contrast {
        true if root == correct => Some([found.graph.components(), components(counter)?]),
        true => Some([components(correct)?, components(counter)?]),
        false => None,
    };
    let activations = found.graph.nodes.iter().map(|node| attribution.activation(node)).collect();
    Ok(Circuit { found, activations, contrast })
}

impl Tables {
    fn add_circuits(&mut self, task: &str, solved: &[Solved]) {
        for (number, solved) in (0u32..).zip(solved) {
            self.prompts.push(prompt_row(task, number, solved));
            let graph = &solved.graph;
            let last = solved.prompt.tokens.len() as u32 - 1;
            for (i, (node, activation)) in graph.nodes.iter().zip(&solved.activations).enumerate() {
                self.nodes.push(node_row(task, number, i as u32, node, *activation, last));
            }
            let places: BTreeMap<Node, u32> = graph.nodes.iter().copied().zip(0..).collect();
            let mut edges: Vec<EdgeRow> = graph
                .edges
                .iter()
                .map(|edge| EdgeRow {
                    task: task.into(),
                    prompt: number,
                    from: places[&edge.child],
                    to: places[&edge.parent],
                    slot: edge.slot.word().into(),
                    effect: edge.effect,
                    share: edge.share,
                })
                .collect();
            edges.sort_by(|a, b| (a.from, a.to, &a.slot).cmp(&(b.from, b.to, &b.slot)));
            self.edges.extend(edges);
        }
    }

    /// Adds what the circuits of a task have in common; returns how frequent each component is.
    fn add_summary(&mut self, task: &str, solved: &[Solved]) -> BTreeMap<Component, f64> {
        let mut contained: BTreeMap<Component, u32> = BTreeMap::new();
        let mut serving: BTreeMap<(Component, FeatureId), (u32, f64)> = BTreeMap::new();
        for solved in solved {
            solved.graph.components().into_iter().for_each(|component| *contained.entry(component).or_default() += 1);
            solved.graph.servings().into_iter().for_each(|key| serving.entry(key).or_default().0 += 1);
            for (key, share) in solved.graph.serving_shares() {
                serving.entry(key).or_default().1 += share;
            }
        }
        let frequency = |prompts: u32| f64::from(prompts) / solved.len() as f64;
        for (&component, &prompts) in &contained {
            let features = serving.keys().filter(|(at, _)| *at == component).count();
            self.components.push(ComponentRow {
                task: task.into(),
                component: component.to_string(),
                layer: component.layer() as u32,
                head: component.head().map(|head| head as u32),
                frequency: frequency(prompts),
                features: features as u32,
            });
        }
        self.features.extend(serving.into_iter().map(|((component, feature), (prompts, share))| CircuitFeature {
            task: task.into(),
            component: component.to_string(),
            feature: feature.to_string(),
            prompts,
            share,
        }));
        contained.into_iter().map(|(component, prompts)| (component, frequency(prompts))).collect()
    }

    /// By the leading columns; components by name.
    fn sort(&mut self) {
        // Stable: within a task, rows were added by prompt and node.
        self.prompts.sort_by(|a, b| a.task.cmp(&b.task));
        self.nodes.sort_by(|a, b| a.task.cmp(&b.task));
        self.edges.sort_by(|a, b| a.task.cmp(&b.task));
        self.components.sort_by(|a, b| (&a.task, &a.component).cmp(&(&b.task, &b.component)));
        let key = |row: &CircuitFeature| (row.task.clone(), row.component.clone(), row.feature.clone());
        self.features.sort_by_cached_key(key);
        self.faithfulness.sort_by(|a, b| a.task.cmp(&b.task));
    }

    fn write(&self, run: &Run) -> Result<()> {
        let (store, fingerprint) = (run.store, run.fingerprint);
        store.write(fingerprint, &self.prompts)?;
        store.write(fingerprint, &self.nodes)?;
        store.write(fingerprint, &self.edges)?;
        store.write(fingerprint, &self.components)?;
        store.write(fingerprint, &self.features)?;
        store.write(fingerprint, &self.faithfulness)
    }
}

fn prompt_row(task: &str, number: u32, solved: &Solved) -> PromptRow {
    let prompt = &solved.prompt;
    PromptRow {
        task: task.into(),
        prompt: number,
        template: prompt.template.clone(),
        text: prompt.text.clone(),
        tokens: prompt.tokens.clone(),
        correct: prompt.correct,
        counter: prompt.counter,
        corrupted: prompt.corrupted.clone(),
        logit_difference: solved.logit_difference,
        metric: solved.clean,
        answers: solved.answers.iter().map(|(id, _)| *id).collect(),
        answer_probabilities: solved.answers.iter().map(|(_, p)| *p).collect(),
        coverage: solved.graph.coverage(),
    }
}

fn node_row(task: &str, prompt: u32, number: u32, node: &Node, activation: Option<f32>, last: u32) -> NodeRow {
    let some = |x: i32| u32::try_from(x).ok();
    NodeRow {
        task: task.into(),
        prompt,
        node: number,
        kind: node.kind.word().into(),
        layer: some(node.layer),
        position: if node.kind == NodeKind::Root { last } else { node.position as u32 },
        source: some(node.source),
        head: some(node.head),
        feature: some(node.feature),
        activation,
    }
}

/// One measured circuit, on its way to becoming rows.
struct Measured<'a> {
    task: &'a str,
    variant: String,
    circuit: &'a str,
    size: usize,
}

impl Measured<'_> {
    fn row(&self, metric: &str, estimate: Option<Estimate>) -> FaithfulnessRow {
        FaithfulnessRow {
            task: self.task.into(),
            level: "component".into(),
            variant: self.variant.clone(),
            circuit: self.circuit.into(),
            size: self.size as u32,
            metric: metric.into(),
            value: estimate.map(|e| e.value),
            low: estimate.map(|e| e.low),
            high: estimate.map(|e| e.high),
        }
    }
}

/// What every measurement of one task shares.
struct Experiment<'a> {
    model: &'a Gpt2,
    task: &'a Task,
    prompts: Vec<Ablated<'a>>,
    means: BTreeMap<&'a str, Means>,
    /// The metric of each prompt in the whole model, and with every component ablated.
    full: Vec<f64>,
    empty: Vec<f64>,
    bootstrap: Bootstrap,
}

/// The found circuits of a task at several sizes, and random ones beside them: each is run.
fn faithfulness(
    world: &World,
    task: &Task,
    solved: &[Solved],
    frequencies: &BTreeMap<Component, f64>,
) -> Result<Vec<FaithfulnessRow>> {
    let experiment = Experiment::new(&world.model, task, solved)?;
    let mut rows = Vec::new();
    for (variant, circuit) in circuits_by_frequency(frequencies) {
        let measured =
            |kind| Measured { task: &task.name, variant: variant.clone(), circuit: kind, size: circuit.len() };
        rows.extend(experiment.found(&measured("found"), &circuit)?);
        rows.extend(experiment.random(&measured("random"))?);
    }
    rows.sort_by(|a, b| (&a.variant, &a.circuit, a.size, &a.metric).cmp(&(&b.variant, &b.circuit, b.size, &b.metric)));
    Ok(rows)
}

impl<'a> Experiment<'a> {
    fn new(model: &'a Gpt2, task: &'a Task, solved: &'a [Solved]) -> Result<Experiment<'a>> {
        let corrupted = |s: &'a Solved| (s.prompt.template.as_str(), s.prompt.corrupted.as_slice());
        let ablated = |s: &'a Solved| Ablated {
            tokens: &s.prompt.tokens,
            template: &s.prompt.template,
            metric: s.metric.clone(),
        };
        let mut experiment = Experiment {
            model,
            task,
            prompts: solved.iter().map(ablated).collect(),
            means: means(model, &solved.iter().map(corrupted).collect::<Vec<_>>())?,
            full: solved.iter().map(|s| s.clean).collect(),
            empty: Vec::new(),
            bootstrap: Bootstrap::new(solved.len(), task.seed),
        };
        experiment.empty = experiment.keeping(&BTreeSet::new())?;
        Ok(experiment)
    }

    /// The metric of each prompt with everything outside `keep` ablated.
    fn keeping(&self, keep: &BTreeSet<Component>) -> Result<Vec<f64>> {
        values(self.model, &self.prompts, keep, &self.means)
    }

    fn recovered(&self, m: &[f64]) -> Option<Estimate> {
        self.bootstrap.recovered(m, &self.empty, &self.full)
    }

    fn found(&self, measured: &Measured, circuit: &BTreeSet<Component>) -> Result<[FaithfulnessRow; 6]> {
        let all = Component::all(self.model.sizes.layers, self.model.sizes.heads);
        let (inside, outside) =
            (self.keeping(circuit)?, self.keeping(&all.filter(|c| !circuit.contains(c)).collect())?);
        let mean = |values: &[f64]| Some(self.bootstrap.mean(values));
        Ok([
            measured.row("m_full", mean(&self.full)),
            measured.row("m_empty", mean(&self.empty)),
            measured.row("m_circuit", mean(&inside)),
            measured.row("m_complement", mean(&outside)),
            measured.row("faithfulness", self.recovered(&inside)),
            measured.row("completeness", self.recovered(&outside)),
        ])
    }

    /// The mean over random circuits of the same size, with the smallest and the largest of them.
    fn random(&self, measured: &Measured) -> Result<[FaithfulnessRow; 2]> {
        let draws = random_circuits(self.model, measured.size, RANDOM, self.task.seed);
        let each = draws.iter().map(|draw| self.keeping(draw)).collect::<Result<Vec<_>>>()?;
        let m: Vec<f64> = each.iter().map(|draw| mean(draw)).collect();
        let recovered: Vec<f64> = each.iter().filter_map(|draw| Some(self.recovered(draw)?.value)).collect();
        Ok([measured.row("m_circuit", spread(&m)), measured.row("faithfulness", spread(&recovered))])
    }
}
