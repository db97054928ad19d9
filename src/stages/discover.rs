//! `discover`: a circuit for each prompt of each task, and what the circuits of a task have in common.

use super::inputs;
use crate::artifact::tables::{CircuitFeature, ComponentRow, EdgeRow, NodeRow, PromptRow};
use crate::circuit::{Attribution, Graph, Greedy, Metric, Node, NodeKind, Pass, World, greedy};
use crate::config::{Config, Discover, RootKind};
use crate::corpus::Tokenizer;
use crate::error::{Context, Result};
use crate::ids::{Component, FeatureId};
use crate::stages::Run;
use crate::task::{self, Prompt};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Answers of the model that are kept of each prompt.
const ANSWERS: usize = 5;

/// A prompt with its circuit.
struct Solved {
    prompt: Prompt,
    graph: Graph,
    /// Activation of each node, for features.
    activations: Vec<Option<f32>>,
    answers: Vec<(u32, f32)>,
    logit_difference: f64,
    clean: f64,
}

/// The rows of all tables, as the tasks add to them.
#[derive(Default)]
struct Tables {
    prompts: Vec<PromptRow>,
    nodes: Vec<NodeRow>,
    edges: Vec<EdgeRow>,
    components: Vec<ComponentRow>,
    features: Vec<CircuitFeature>,
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
        tables.add_summary(&settings.name, &solved);
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

fn settings(discover: &Discover) -> Greedy {
    Greedy {
        passes: discover.passes,
        per_node: discover.per_node,
        candidates: discover.candidates,
        allow: discover.allow.clone(),
    }
}

/// Finds the circuit of every prompt.
fn solve(run: &Run, world: &World, tokenizer: &Tokenizer, prompts: Vec<Prompt>) -> Result<Vec<Solved>> {
    let metrics = inputs::Metrics::new(tokenizer);
    let greedy = settings(&run.config.discover);
    run.progress.begin("prompts", prompts.len() as u64, 0);
    let one = |(prompt, pass): (&Prompt, Pass)| {
        let metric = metrics.of(prompt)?;
        let solved = solve_one(world, &greedy, run.config.discover.root, prompt.clone(), pass, metric)?;
        run.progress.add(1);
        Ok(solved)
    };
    let mut solved = Vec::with_capacity(prompts.len());
    for some in prompts.chunks(inputs::PROMPTS) {
        let tokens: Vec<&[u32]> = some.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let passes = world.passes(&tokens)?;
        let each = some.par_iter().zip(passes).map(one);
        solved.extend(each.collect::<Result<Vec<_>>>()?);
    }
    Ok(solved)
}

fn solve_one(
    world: &World,
    settings: &Greedy,
    root: RootKind,
    prompt: Prompt,
    pass: Pass,
    metric: Metric,
) -> Result<Solved> {
    let attribution = Attribution::of(world, pass, &prompt.tokens, inputs::root(root, &prompt))?;
    let graph = greedy(&attribution, settings)?;
    let activations = graph.nodes.iter().map(|node| attribution.activation(node)).collect();
    let logits = world.model.last_logits(attribution.trace())?;
    let difference = Metric::LogitDifference { correct: prompt.correct, counter: prompt.counter };
    Ok(Solved {
        answers: crate::circuit::answers(&logits, ANSWERS),
        logit_difference: difference.of(&logits),
        clean: metric.of(&logits),
        prompt,
        graph,
        activations,
    })
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

    /// Adds what the circuits of a task have in common.
    fn add_summary(&mut self, task: &str, solved: &[Solved]) {
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
    }

    fn write(&self, run: &Run) -> Result<()> {
        let (store, fingerprint) = (run.store, run.fingerprint);
        store.write(fingerprint, &self.prompts)?;
        store.write(fingerprint, &self.nodes)?;
        store.write(fingerprint, &self.edges)?;
        store.write(fingerprint, &self.components)?;
        store.write(fingerprint, &self.features)
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
