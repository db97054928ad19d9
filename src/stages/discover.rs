//! `discover`: a circuit for each prompt of each task, and what the circuits of a task have in
//! common.

use crate::artifact::tables::{
    CircuitFeature, ComponentRow, EdgeRow, HookScoreRow, NodeRow, PromptRow, RankingRow,
};
use crate::circuit::ranked::by_graphs;
use crate::circuit::{Ablate, Edge, Node};
use crate::config::Config;
use crate::error::{Context, Result, hinted};
use crate::ids::{Component, FeatureId};
use crate::inputs;
use crate::stages::search::task_prompts::{Circuit, Solved};
use crate::stages::search::{grown, ranked};
use crate::stages::{Done, Run};
use std::collections::{BTreeMap, BTreeSet};

/// The rows of all tables, as the tasks add to them.
#[derive(Default)]
struct Tables {
    prompts: Vec<PromptRow>,
    nodes: Vec<NodeRow>,
    edges: Vec<EdgeRow>,
    components: Vec<ComponentRow>,
    features: Vec<CircuitFeature>,
    rankings: Vec<RankingRow>,
    hooks: Vec<HookScoreRow>,
}

/// Finds the circuits of every task.
pub fn run(run: &Run) -> Result<Done> {
    let tokenizer = inputs::tokenizer(run.config)?;
    run.progress.say("loading the model and its dictionaries");
    let replacement = run.replacement_model()?;
    let (mut tables, mut costs) = (Tables::default(), Vec::new());
    for settings in &run.config.tasks {
        let what = || format!("task `{}`", settings.name);
        let prompts = inputs::prompts(run.config, settings, &tokenizer)?;
        let metrics = inputs::Metrics::new(&tokenizer);
        let mut members = Vec::new();
        let solved = match inputs::growth(&run.config.discover, run.config.discover.method) {
            Some(method) => {
                let own = &prompts.finding;
                let solved = grown::find(run, &replacement, settings, own, &metrics, method)
                    .with_context(what)?;
                tables.rankings.extend(by_prompts(&settings.name, &solved));
                solved
            }
            None => {
                let ranked =
                    ranked::find(run, &replacement, settings, &prompts, &metrics, Ablate::Mean)
                        .with_context(what)?;
                tables.rankings.extend(ranked.rows(&settings.name));
                tables.hooks.extend(ranked.hooks(&settings.name));
                members = ranked.members(&replacement)?;
                costs.push(format!("{} {:.1}", settings.name, ranked.cost));
                ranked.solved
            }
        };
        tables.add_circuits(&settings.name, &solved);
        tables.add_summary(&settings.name, &solved, &members);
    }
    tables.check(run)?;
    tables.sort();
    tables.write(run)?;
    let mut summary = summary(run.config, &tables);
    if !costs.is_empty() {
        summary += &format!("; ms of one core a prompt: {}", costs.join(", "));
    }
    Ok(summary.into())
}

fn summary(config: &Config, tables: &Tables) -> String {
    let features: BTreeSet<FeatureId> = tables.features.iter().map(|row| row.feature).collect();
    let (tasks, prompts) = (config.tasks.len(), tables.prompts.len());
    format!(
        "{tasks} tasks, {prompts} prompts, {} links, {} distinct features",
        tables.edges.len(),
        features.len()
    )
}

/// Features by the number of prompts whose circuit has them, all of them being the circuit.
fn by_prompts(task: &str, solved: &[Solved]) -> Vec<RankingRow> {
    let circuits = solved.iter().filter_map(|solved| solved.circuit.as_ref());
    let row = |(rank, (feature, prompts)): (u32, (FeatureId, u32))| RankingRow {
        task: task.into(),
        ranking: "found".into(),
        rank,
        feature,
        score: prompts.into(),
        chosen: true,
    };
    (1..).zip(by_graphs(circuits.map(|circuit| &circuit.found.graph))).map(row).collect()
}

impl Tables {
    /// Warns of tasks whose circuits have no component or no feature.
    ///
    /// # Errors
    /// When none has a component: there is nothing to make an atlas of.
    fn check(&self, run: &Run) -> Result<()> {
        let settings = "check `discover.allow`, `discover.most`, `discover.share` and the other \
                        settings of the method";
        if self.components.is_empty() {
            return Err(hinted("no circuit of any task has a head or an MLP", settings));
        }
        for task in run.config.tasks.iter().map(|task| &task.name) {
            let what = if !self.components.iter().any(|row| row.task == *task) {
                "a head or an MLP"
            } else if !self.features.iter().any(|row| row.task == *task) {
                "a feature"
            } else {
                continue;
            };
            let text = format!("warning: no circuit of the task `{task}` has {what}; {settings}");
            run.progress.line(&text);
        }
        Ok(())
    }

    fn add_circuits(&mut self, task: &str, solved: &[Solved]) {
        for (number, solved) in (0u32..).zip(solved) {
            self.prompts.push(prompt_row(task, number, solved));
            if let Some(circuit) = &solved.circuit {
                self.add_circuit(task, number, circuit, solved.prompt.tokens.len() as u32 - 1);
            }
        }
    }

    fn add_circuit(&mut self, task: &str, prompt: u32, circuit: &Circuit, last: u32) {
        let graph = &circuit.found.graph;
        for (i, (node, activation)) in graph.nodes.iter().zip(&circuit.activations).enumerate() {
            self.nodes.push(node_row(task, prompt, i as u32, node, *activation, last));
        }
        let places: BTreeMap<Node, u32> = graph.nodes.iter().copied().zip(0..).collect();
        let row = |edge: &Edge| EdgeRow {
            task: task.into(),
            prompt,
            from: places[&edge.child],
            to: places[&edge.parent],
            slot: edge.slot,
            effect: edge.effect,
            share: edge.share,
        };
        let mut edges: Vec<EdgeRow> = graph.edges.iter().map(row).collect();
        edges.sort_by(|a, b| (a.from, a.to, &a.slot).cmp(&(b.from, b.to, &b.slot)));
        self.edges.extend(edges);
    }

    /// Adds what the circuits of a task have in common; prompts that are left out count in nothing.
    /// Members of the task's circuit that are in no prompt's are there all the same.
    fn add_summary(&mut self, task: &str, solved: &[Solved], members: &[(Component, FeatureId)]) {
        let circuits: Vec<&Circuit> =
            solved.iter().filter_map(|solved| solved.circuit.as_ref()).collect();
        let mut contained: BTreeMap<Component, u32> = BTreeMap::new();
        let mut serving: BTreeMap<(Component, FeatureId), (u32, f64)> = BTreeMap::new();
        for graph in circuits.iter().map(|circuit| &circuit.found.graph) {
            graph
                .components()
                .into_iter()
                .for_each(|component| *contained.entry(component).or_default() += 1);
            graph.servings().into_iter().for_each(|key| serving.entry(key).or_default().0 += 1);
            for (key, share) in graph.serving_shares() {
                serving.entry(key).or_default().1 += share;
            }
        }
        let known: BTreeSet<FeatureId> = serving.keys().map(|(_, feature)| *feature).collect();
        for &(component, feature) in members.iter().filter(|(_, feature)| !known.contains(feature))
        {
            serving.insert((component, feature), (0, 0.0));
            contained.entry(component).or_default();
        }
        for (&component, &prompts) in &contained {
            let features = serving.keys().filter(|(at, _)| *at == component).count();
            self.components.push(ComponentRow {
                task: task.into(),
                component,
                layer: component.layer() as u32,
                head: component.head().map(|head| head as u32),
                frequency: f64::from(prompts) / circuits.len() as f64,
                features: features as u32,
                contrast: contrast(&circuits, component),
            });
        }
        self.features.extend(serving.into_iter().map(
            |((component, feature), (prompts, share))| CircuitFeature {
                task: task.into(),
                component,
                feature,
                prompts,
                share,
            },
        ));
    }

    /// By the leading columns; components by name.
    fn sort(&mut self) {
        // Stable: within a task, rows were added by prompt and node.
        self.prompts.sort_by(|a, b| a.task.cmp(&b.task));
        self.nodes.sort_by(|a, b| a.task.cmp(&b.task));
        self.edges.sort_by(|a, b| a.task.cmp(&b.task));
        self.components.sort_by_cached_key(|row| (row.task.clone(), row.component.to_string()));
        let key = |row: &CircuitFeature| {
            (row.task.clone(), row.component.to_string(), row.feature.to_string())
        };
        self.features.sort_by_cached_key(key);
        self.rankings
            .sort_by(|a, b| (&a.task, &a.ranking, a.rank).cmp(&(&b.task, &b.ranking, b.rank)));
        self.hooks.sort_by(|a, b| a.task.cmp(&b.task));
    }

    fn write(&self, run: &Run) -> Result<()> {
        let (store, fingerprint) = (run.store, run.fingerprint);
        store.write(fingerprint, &self.prompts)?;
        store.write(fingerprint, &self.nodes)?;
        store.write(fingerprint, &self.edges)?;
        store.write(fingerprint, &self.components)?;
        store.write(fingerprint, &self.features)?;
        store.write(fingerprint, &self.rankings)?;
        store.write(fingerprint, &self.hooks)
    }
}

/// How much more often a component is in circuits of the right answer than in those of the wrong
/// one; none where these were not looked for.
fn contrast(circuits: &[&Circuit], component: Component) -> Option<f64> {
    let contrasts =
        circuits.iter().map(|circuit| circuit.contrast.as_ref()).collect::<Option<Vec<_>>>()?;
    let of = |side: usize| {
        contrasts.iter().filter(|sides| sides[side].contains(&component)).count() as f64
    };
    Some((of(0) - of(1)) / contrasts.len() as f64)
}

fn prompt_row(task: &str, number: u32, solved: &Solved) -> PromptRow {
    let (prompt, circuit) = (&solved.prompt, solved.circuit.as_ref());
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
        coverage: circuit.map_or(0.0, |circuit| circuit.found.graph.coverage()),
        left_out: circuit.and_then(|circuit| circuit.found.left_out),
        right: solved.right(),
        used: circuit.is_some(),
    }
}

fn node_row(
    task: &str,
    prompt: u32,
    number: u32,
    node: &Node,
    activation: Option<f32>,
    last: u32,
) -> NodeRow {
    NodeRow {
        task: task.into(),
        prompt,
        node: number,
        kind: node.kind,
        layer: node.layer,
        position: node.position.unwrap_or(last),
        source: node.source,
        head: node.head,
        feature: node.feature,
        activation,
    }
}
