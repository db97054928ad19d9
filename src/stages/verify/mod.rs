//! `verify`: are the circuits real? Runs the model with everything outside them replaced, at the
//! level of components and of features, beside random and published ones; and the strongest links
//! one by one.

mod baselines;
mod curves;
mod links;
mod methods;
mod precision;
mod runs;

use crate::artifact::Row;
use crate::artifact::tables::{
    CircuitRunRow, ComponentRow, FaithfulnessRow, PromptRow, RankingRow,
};
use crate::atlas::{self, graphs};
use crate::circuit::features::Errors;
use crate::circuit::{Case, ReplacementModel, circuits_by_frequency};
use crate::config::{Ablation, Task, Wrong};
use crate::error::{Context, Result, hinted};
use crate::ids::{Component, DictionaryId, FeatureId};
use crate::inputs;
use crate::stages::search::ranked::exchanged;
use crate::stages::search::runs::Runs;
use crate::stages::search::task_prompts::{check_used, whole};
use crate::stages::search::{SizedCircuits, by_rank};
use crate::stages::{Done, Run};
use crate::stats::interval::{Bootstrap, Estimate, mean};
use crate::stats::strata::{places, stratified};
use crate::task::{Prompt, Prompts};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The tables as `discover` wrote them.
struct Discovered {
    prompts: Vec<PromptRow>,
    circuits: atlas::Circuits,
    components: Vec<ComponentRow>,
    rankings: Vec<RankingRow>,
}

/// Measures the circuits of every task.
pub fn run(run: &Run) -> Result<Done> {
    let tokenizer = inputs::tokenizer(run.config)?;
    let metrics = inputs::Metrics::new(&tokenizer);
    run.progress.say("loading the model and its dictionaries");
    let replacement = run.replacement_model()?;
    let found = Discovered::load(run)?;
    let runs = Runs::open(run, CircuitRunRow::ARTIFACT)?;
    let (mut faithfulness, mut links, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = FirstParts::default();
    for settings in &run.config.tasks {
        let prompts = inputs::prompts(run.config, settings, &tokenizer)?;
        // What is decided by them must be measured by whoever decides.
        runs.share(false);
        let task_run =
            TaskRun::new(run, &runs, &replacement, settings, &found, &prompts, &metrics)?;
        let task_run = TaskRun { first, ..task_run };
        first = first.next(&task_run);
        runs.share(run.shard.is_some());
        let what = || format!("task `{}`", settings.name);
        let published = inputs::published(run.config, settings)?;
        let (rows, cost) = task_run.curves(published.as_ref()).with_context(what)?;
        faithfulness.extend(rows);
        costs.extend(Some(format!("{}: {cost}", settings.name)).filter(|_| !cost.is_empty()));
        let (rows, agreement) = task_run.links().with_context(what)?;
        links.extend(rows);
        faithfulness.extend(agreement);
    }
    if run.shard.is_some() {
        runs.write()?;
        return Ok(run.parts.summary().into());
    }
    faithfulness.sort_by(|a, b| sorted_by(a).cmp(&sorted_by(b)));
    links.sort_by(|a, b| (&a.task, a.rank, a.prompt).cmp(&(&b.task, b.rank, b.prompt)));
    let mut summary = format!("{} measurements, {} links run", faithfulness.len(), links.len());
    if !costs.is_empty() {
        summary += &format!("; ms of one core a prompt: {}", costs.join("; "));
    }
    run.store.write(run.fingerprint, &faithfulness)?;
    run.store.write(run.fingerprint, &links)?;
    runs.end()?;
    Ok(summary.into())
}

fn sorted_by(row: &FaithfulnessRow) -> impl Ord + '_ {
    let FaithfulnessRow {
        task,
        level,
        variant,
        stratum,
        circuit,
        size,
        metric,
        ablation,
        errors,
        ..
    } = row;
    (task, level, variant, circuit, size, metric, ablation, errors, stratum)
}

impl Discovered {
    fn load(run: &Run) -> Result<Discovered> {
        let (prompts, components, rankings) =
            (run.store.read()?, run.store.read()?, run.store.read()?);
        Ok(Discovered { prompts, circuits: graphs(run.store)?, components, rankings })
    }

    /// Prompts of a task that have a circuit.
    fn prompts<'a>(&'a self, task: &'a str) -> impl Iterator<Item = &'a PromptRow> {
        self.prompts.iter().filter(move |row| row.used && row.task == task)
    }
}

/// The numbers of a task's first parts, by what they hold.
#[derive(Clone, Copy, Default)]
struct FirstParts {
    methods: u32,
    links: u32,
}

impl FirstParts {
    /// Those of the task after one.
    fn next(self, of: &TaskRun) -> FirstParts {
        FirstParts {
            methods: self.methods + of.run.config.verify.methods.len() as u32,
            links: self.links + links::parts(of.all.len()),
        }
    }
}

/// One task, ready to be measured.
struct TaskRun<'a> {
    run: &'a Run<'a>,
    /// What circuits were run before.
    runs: &'a Runs<'a>,
    first: FirstParts,
    replacement: &'a ReplacementModel,
    task: &'a Task,
    found: &'a Discovered,
    /// The task's own prompts, and those that features are ranked on.
    prompts: &'a [Prompt],
    /// Every prompt that has a circuit.
    all: Vec<Case<'a>>,
    /// What circuits are measured on, and whether these are other prompts than circuits are found
    /// on.
    cases: Vec<Case<'a>>,
    fresh: bool,
    metrics: &'a inputs::Metrics,
    /// The metric of each case in the whole model.
    full: Vec<f64>,
    bootstrap: Bootstrap,
    /// The cases of each stratum, where there are several.
    strata: Vec<Stratum>,
    /// −1 for cases whose answers are exchanged in the null task.
    signs: Vec<f64>,
    /// The random circuits that were measured.
    drawn: RefCell<BTreeSet<RandomKey>>,
}

/// Cases that results are told apart by.
struct Stratum {
    name: String,
    places: Vec<usize>,
    bootstrap: Bootstrap,
}

impl Stratum {
    fn of(&self, values: &[f64]) -> Vec<f64> {
        self.places.iter().map(|&i| values[i]).collect()
    }
}

/// Random circuits: level, ablation, whether errors are kept, variant, size.
type RandomKey = (&'static str, Ablation, bool, String, usize);

/// How a curve is measured.
#[derive(Clone, Copy)]
struct CurveSetting {
    level: &'static str,
    ablation: Ablation,
    errors: Option<Errors>,
}

/// One measured circuit, on its way to becoming rows.
struct MeasuredCircuit<'a> {
    task: &'a str,
    setting: CurveSetting,
    variant: &'a str,
    circuit: &'static str,
    size: usize,
}

impl MeasuredCircuit<'_> {
    fn row(&self, metric: &str, estimate: Option<Estimate>) -> FaithfulnessRow {
        FaithfulnessRow {
            task: self.task.into(),
            stratum: String::new(),
            level: self.setting.level.into(),
            variant: self.variant.into(),
            circuit: self.circuit.into(),
            size: self.size as u32,
            metric: metric.into(),
            ablation: self.setting.ablation.word().into(),
            errors: self.setting.errors.map_or("", Errors::word).into(),
            value: estimate.map(|e| e.value),
            low: estimate.map(|e| e.low),
            high: estimate.map(|e| e.high),
        }
    }
}

impl<'a> TaskRun<'a> {
    fn new(
        run: &'a Run,
        runs: &'a Runs,
        replacement: &'a ReplacementModel,
        task: &'a Task,
        found: &'a Discovered,
        prompts: &'a Prompts,
        metrics: &'a inputs::Metrics,
    ) -> Result<TaskRun<'a>> {
        let rows: Vec<&PromptRow> = found.prompts(&task.name).collect();
        let own =
            rows.iter().map(|row| prompt(&prompts.finding, row)).collect::<Result<Vec<_>>>()?;
        let all = own.iter().map(|prompt| metrics.case(prompt)).collect::<Result<Vec<_>>>()?;
        let fresh: Vec<&Prompt> =
            if prompts.fresh.is_empty() { own } else { prompts.fresh.iter().collect() };
        let measured =
            fresh.iter().map(|prompt| metrics.case(prompt)).collect::<Result<Vec<Case>>>()?;
        let full = measured
            .par_iter()
            .map(|case| whole(replacement, case))
            .collect::<Result<Vec<f64>>>()?;
        let used: Vec<usize> =
            (0..full.len()).filter(|&i| full[i] > 0.0 || task.wrong == Wrong::Keep).collect();
        check_used(full.len(), used.len())?;
        let on = |used: &[usize]| {
            let exchanged = exchanged(used.iter().map(|&i| fresh[i].template.as_str()), task.seed);
            let places = places(used.iter().map(|&i| fresh[i].stratum.as_str()));
            let stratum = |(name, places): (&str, Vec<usize>)| Stratum {
                name: name.into(),
                bootstrap: Bootstrap::new(places.len(), task.seed),
                places,
            };
            TaskRun {
                run,
                runs,
                first: FirstParts::default(),
                replacement,
                task,
                found,
                prompts: &prompts.finding,
                all: all.clone(),
                metrics,
                fresh: !prompts.fresh.is_empty(),
                cases: used.iter().map(|&i| measured[i].clone()).collect(),
                full: used.iter().map(|&i| full[i]).collect(),
                bootstrap: Bootstrap::new(used.len(), task.seed),
                strata: if places.len() > 1 {
                    places.into_iter().map(stratum).collect()
                } else {
                    Vec::new()
                },
                signs: (0..used.len())
                    .map(|at| if exchanged.contains(&at) { -1.0 } else { 1.0 })
                    .collect(),
                drawn: RefCell::default(),
            }
        };
        // As many prompts of each template and stratum as there are in proportion.
        let kinds: Vec<(&str, &str)> =
            used.iter().map(|&i| (fresh[i].template.as_str(), fresh[i].stratum.as_str())).collect();
        run.progress.say("how many prompts it takes");
        for some in precision::sizes(used.len(), run.config.verify.precision) {
            let places = stratified(&kinds, some, task.seed);
            let task_run = on(&places.iter().map(|&place| used[place]).collect::<Vec<_>>());
            if some == used.len() || task_run.is_precise()? {
                return Ok(task_run);
            }
        }
        Ok(on(&used))
    }

    fn ids(&self) -> impl Iterator<Item = DictionaryId> + use<> {
        DictionaryId::all(self.replacement.model.sizes.layers)
    }

    /// A ranking's features whose scores have this sign, in its order: those that oppose the answer
    /// end with the strongest.
    fn ranked(&self, ranking: &str, sign: f64) -> Vec<FeatureId> {
        let own = self
            .found
            .rankings
            .iter()
            .filter(|row| row.task == self.task.name && row.ranking == ranking);
        own.filter(|row| row.score * sign > 0.0).map(|row| row.feature).collect()
    }

    fn ticked<T>(&self, done: Result<T>) -> Result<T> {
        self.run.progress.step(1)?;
        done
    }

    /// The task's components by how frequent they are.
    fn frequencies(&self) -> BTreeMap<Component, f64> {
        let own = self.found.components.iter().filter(|row| row.task == self.task.name);
        own.map(|row| (row.component, row.frequency)).collect()
    }

    fn components(&self) -> Vec<(String, BTreeSet<Component>)> {
        circuits_by_frequency(&self.frequencies())
    }

    /// The task's features at several sizes, and its circuit.
    fn features(&self) -> SizedCircuits {
        let chosen =
            self.found.rankings.iter().filter(|row| row.task == self.task.name && row.chosen);
        by_rank(&self.ranked("found", 1.0), chosen.map(|row| row.feature).collect())
    }

    /// Nodes of a circuit, the mean over prompts.
    fn mean_nodes(&self) -> f64 {
        let of = |row: &PromptRow| {
            let circuit = self.found.circuits.get(&(row.task.clone(), row.prompt));
            circuit.map_or(0, |circuit| circuit.nodes.len()) as f64
        };
        mean(&self.found.prompts(&self.task.name).map(of).collect::<Vec<_>>())
    }

    fn nodes(&self, circuit: &str, nodes: f64) -> FaithfulnessRow {
        let exact = Some(Estimate::exact(nodes));
        FaithfulnessRow {
            circuit: circuit.into(),
            ..self.compared("a prompt", nodes.round() as usize, "nodes", exact)
        }
    }

    /// A figure for which nothing was run.
    fn compared(
        &self,
        variant: &str,
        size: usize,
        metric: &str,
        value: Option<Estimate>,
    ) -> FaithfulnessRow {
        let setting = CurveSetting { level: "component", ablation: Ablation::Mean, errors: None };
        let measured =
            MeasuredCircuit { task: &self.task.name, setting, variant, circuit: "found", size };
        FaithfulnessRow { ablation: String::new(), ..measured.row(metric, value) }
    }
}

/// A prompt as the task wrote it.
fn prompt<'a>(prompts: &'a [Prompt], row: &PromptRow) -> Result<&'a Prompt> {
    prompts.get(row.prompt as usize).filter(|prompt| prompt.tokens == row.tokens).ok_or_else(|| {
        hinted(
            format!(
                "prompt {} of the task `{}` differs from the one in `prompts`",
                row.prompt, row.task
            ),
            inputs::DISCOVER,
        )
    })
}
