//! `discover`: a circuit for each prompt of each task, and what the circuits of a task have in
//! common.

use crate::artifact::Row;
use crate::artifact::tables::{
    CircuitFeature, ComponentRow, EdgeRow, HookScoreRow, NodeRow, PromptCircuitRow, PromptRow,
    RankingRow,
};
use crate::circuit::ranked::by_graphs;
use crate::circuit::{Ablate, Edge, Node, ReplacementModel};
use crate::config::{Config, Task};
use crate::corpus::Tokenizer;
use crate::error::{Context, Result, hinted};
use crate::ids::{Component, FeatureId};
use crate::inputs;
use crate::stages::search::task_prompts::{Circuit, Solved};
use crate::stages::search::{grown, ranked};
use crate::stages::{Done, Run};
use crate::task::Prompts;
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

/// Parts of the circuits of a task with so many prompts, at least; 0: as many as it has by default.
pub(crate) fn parts(prompts: usize) -> usize {
    grown::parts(if prompts > 0 { prompts } else { crate::task::WRITTEN }) as usize
}

/// A task with the numbers of its first parts.
struct TaskSearch<'a> {
    settings: &'a Task,
    prompts: Prompts,
    first: ranked::FirstParts,
    first_grown: u32,
}

/// What the searches of all tasks share.
struct Searches<'a> {
    run: &'a Run<'a>,
    replacement: ReplacementModel,
    metrics: inputs::Metrics,
    tasks: Vec<TaskSearch<'a>>,
}

/// Finds the circuits of every task, or a shard's share of them.
pub fn run(run: &Run) -> Result<Done> {
    let tokenizer = inputs::tokenizer(run.config)?;
    let tasks = tasks(run, &tokenizer)?;
    run.progress.say("loading the model and its dictionaries");
    let replacement = run.replacement_model()?;
    let searches = Searches { run, replacement, metrics: inputs::Metrics::new(&tokenizer), tasks };
    if run.shard.is_some() {
        return searches.make_share();
    }
    run.store.remove_unfinished(&PromptCircuitRow::ARTIFACT)?;
    let (mut tables, mut costs) = (Tables::default(), Vec::new());
    for search in &searches.tasks {
        let name = &search.settings.name;
        let what = || format!("task `{name}`");
        let mut members = Vec::new();
        let solved = match searches.grown(search) {
            Some(finder) => {
                let solved = finder.find().with_context(what)?;
                tables.rankings.extend(by_prompts(name, &solved));
                solved
            }
            None => {
                let found = searches.ranked(search).and_then(|finder| finder.find());
                let found = found.with_context(what)?;
                tables.rankings.extend(found.rows(name));
                tables.hooks.extend(found.hooks(name));
                members = found.members(&searches.replacement)?;
                costs.push(format!("{name} {:.1}", found.cost));
                found.solved
            }
        };
        tables.add_circuits(name, &solved);
        tables.add_summary(name, &solved, &members);
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

fn tasks<'a>(run: &'a Run, tokenizer: &Tokenizer) -> Result<Vec<TaskSearch<'a>>> {
    let (mut first, mut first_grown) = (ranked::FirstParts::default(), 0);
    let one = |settings: &'a Task| {
        let prompts = inputs::prompts(run.config, settings, tokenizer)?;
        let (next, next_grown) =
            (first.next(&prompts), first_grown + grown::parts(prompts.finding.len()));
        let search = TaskSearch { settings, prompts, first, first_grown };
        (first, first_grown) = (next, next_grown);
        Ok(search)
    };
    run.config.tasks.iter().map(one).collect()
}

impl Searches<'_> {
    /// The parts of a shard that can be made: of methods that rank features, circuits of prompts
    /// come after the scores of all prompts.
    fn make_share(&self) -> Result<Done> {
        for search in &self.tasks {
            let what = || format!("task `{}`", search.settings.name);
            match self.grown(search) {
                Some(finder) => finder.make_circuits().with_context(what)?,
                None => self.ranked(search)?.make_scores().with_context(what)?,
            }
        }
        for search in self.tasks.iter().filter(|search| self.grown(search).is_none()) {
            let what = || format!("task `{}`", search.settings.name);
            self.ranked(search)?.make_circuits().with_context(what)?;
        }
        Ok(self.run.parts.summary().into())
    }

    fn ranked<'s>(&'s self, search: &'s TaskSearch) -> Result<ranked::Finder<'s>> {
        let TaskSearch { settings, prompts, first, .. } = search;
        let how = (Ablate::Mean, *first);
        ranked::Finder::new(self.run, &self.replacement, settings, prompts, &self.metrics, how)
    }

    /// None where the method ranks features over prompts.
    fn grown<'s>(&'s self, search: &'s TaskSearch) -> Option<grown::Finder<'s>> {
        let discover = &self.run.config.discover;
        Some(grown::Finder {
            run: self.run,
            replacement: &self.replacement,
            task: search.settings,
            prompts: &search.prompts.finding,
            metrics: &self.metrics,
            method: inputs::growth(discover, discover.method)?,
            first: search.first_grown,
        })
    }
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
