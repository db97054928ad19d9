//! Tasks: prompts, the circuit over them, faithfulness, and links tested by intervention.

use super::Reader;
use super::features::circuit_pair;
use crate::artifact::tables::{
    ComponentRow, EffectRow, FaithfulnessRow, HookScoreRow, PromptRow, RankingRow,
};
use crate::atlas::model::{
    Baseline, CircuitPair, Faithfulness, HookScore, Interval, InterventionLink, Prompt,
    PromptGraph, Role, Serving, Task, TaskComponent,
};
use crate::config::{self, DiscoveryMethod, RootKind, TaskKind};
use crate::error::Result;
use crate::ids::FeatureId;
use crate::inputs::by;
use crate::stats::agreement::doubt;
use crate::stats::interval::mean;
use crate::task;
use std::collections::BTreeMap;

/// Feature pairs on a task's page.
const TASK_PAIRS: usize = 60;
/// The ranking of the task itself.
const FOUND: &str = "found";

impl Reader<'_> {
    /// A task with its circuit.
    pub(crate) fn task(&self, task: &config::Task) -> Result<Task> {
        let prompts: Vec<&PromptRow> =
            self.prompts()?.iter().filter(|row| row.task == task.name).collect();
        let used = self.prompts_of(&task.name)?;
        let own = |row: &&ComponentRow| row.task == task.name;
        let mut components: Vec<TaskComponent> = self
            .components()?
            .iter()
            .filter(own)
            .map(|row| self.task_component(row))
            .collect::<Result<_>>()?;
        components.sort_by_key(|c| c.component);
        Ok(Task {
            name: task.name.clone(),
            kind: task.kind.word().into(),
            method: self.config.discover.method.word().into(),
            faithful: self.config.discover.faithful,
            accuracy: prompts.iter().filter(|row| row.right).count() as f64
                / prompts.len().max(1) as f64,
            used,
            coverage: prompts.iter().map(|row| row.coverage).sum::<f64>() / f64::from(used.max(1)),
            left_out: mean_of(prompts.iter().filter_map(|row| row.left_out)),
            prompts: prompts.iter().map(|row| self.prompt(row)).collect::<Result<_>>()?,
            components,
            supporting: self.ranked(&task.name, 1.0)?,
            opposing: self.ranked(&task.name, -1.0)?,
            hooks: self.hooks(&task.name)?,
            faithfulness: faithfulness(
                self.store.read::<FaithfulnessRow>()?.iter().filter(|row| row.task == task.name),
            ),
            links: intervention_links(
                self.store.read::<EffectRow>()?.into_iter().filter(|row| row.task == task.name),
            ),
            component_pairs: self.component_pairs(&task.name)?.to_vec(),
            pairs: self.task_pairs(&task.name)?,
        })
    }

    /// The strongest features of a task's ranking whose scores have this sign; none where a method
    /// gives no scores.
    fn ranked(&self, task: &str, sign: f64) -> Result<Vec<(FeatureId, f64)>> {
        const SHOWN: usize = 15;
        if self.config.discover.method != DiscoveryMethod::Gradient {
            return Ok(Vec::new());
        }
        let mut own: Vec<RankingRow> = self.store.read()?;
        own.retain(|row| row.task == task && row.ranking == FOUND && row.score * sign > 0.0);
        own.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()).then(a.rank.cmp(&b.rank)));
        Ok(own.into_iter().take(SHOWN).map(|row| (row.feature, row.score)).collect())
    }

    fn hooks(&self, task: &str) -> Result<Vec<HookScore>> {
        let of = |row: HookScoreRow| HookScore {
            dictionary: row.dictionary,
            supporting: row.supporting,
            opposing: row.opposing,
            error: row.error,
        };
        let rows = self.store.read::<HookScoreRow>()?.into_iter();
        Ok(rows.filter(|row| row.task == task).map(of).collect())
    }

    fn task_component(&self, row: &ComponentRow) -> Result<TaskComponent> {
        Ok(TaskComponent {
            component: row.component,
            frequency: row.frequency,
            features: row.features,
            contrast: row.contrast,
            class: self.heads()?.class(&row.task, row.component),
        })
    }

    /// A prompt of a task by its number, if there is one.
    pub(crate) fn prompt_of(&self, task: &str, number: u32) -> Result<Option<Prompt>> {
        let is = |row: &&PromptRow| row.task == task && row.prompt == number;
        self.prompts()?.iter().find(is).map(|row| self.prompt(row)).transpose()
    }

    fn prompt(&self, row: &PromptRow) -> Result<Prompt> {
        let tokenizer = self.tokenizer()?;
        let graph = self.graph(row)?;
        let answers = row.answers.iter().zip(&row.answer_probabilities);
        Ok(Prompt {
            template: row.template.clone(),
            text: row.text.clone(),
            correct: tokenizer.token(row.correct),
            counter: tokenizer.token(row.counter),
            logit_difference: row.logit_difference,
            metric: row.metric,
            answers: answers.map(|(id, p)| (tokenizer.token(*id), *p)).collect(),
            nodes: graph.as_ref().map_or(0, |graph| graph.nodes().len() as u32),
            edges: graph.as_ref().map_or(0, |graph| graph.links().len() as u32),
            coverage: row.coverage,
            right: row.right,
            used: row.used,
            places: self.places(row)?,
            graph,
        })
    }

    /// What stands at each position of a prompt, in the words of its task.
    fn places(&self, row: &PromptRow) -> Result<Vec<String>> {
        let (heads, tokenizer) = (self.heads()?, self.tokenizer()?);
        let pieces: Vec<String> = row.tokens.iter().map(|id| tokenizer.token(*id)).collect();
        let kind = self.config.tasks.iter().find(|task| task.name == row.task).map(|t| t.kind);
        let kind = kind.unwrap_or(TaskKind::Prompts);
        let parts = task::parts(kind, &row.template, &pieces);
        let place = |p: usize| match heads.role(&row.task, &row.template, p) {
            _ if p > 0 && p + 1 == pieces.len() => "last token".into(),
            Some(role) => place_name(kind, role, parts[p]),
            None => format!("position {p}"),
        };
        Ok((0..pieces.len()).map(place).collect())
    }

    fn graph(&self, row: &PromptRow) -> Result<Option<PromptGraph>> {
        let tokenizer = self.tokenizer()?;
        let Some(circuit) = self.circuits()?.get(&(row.task.clone(), row.prompt)) else {
            return Ok(None);
        };
        let token = |&id: &u32| (id, tokenizer.token(id));
        let root = self.config.discover.root;
        Ok(Some(PromptGraph {
            number: row.prompt,
            tokens: row.tokens.iter().map(token).collect(),
            correct: row.correct,
            difference: root == RootKind::LogitDifference,
            against: Baseline::Means,
            circuit: circuit.clone(),
        }))
    }

    fn task_pairs(&self, task: &str) -> Result<Vec<CircuitPair>> {
        let own = self.pair_rows()?.iter().filter(|row| row.task == task);
        Ok(own.take(TASK_PAIRS).map(circuit_pair).collect())
    }

    /// The features of a task's circuits and where they serve, the largest share first.
    pub(crate) fn strongest_servings(&self, task: &str) -> Result<Vec<Serving>> {
        let own = self.servings()?.iter().filter(|row| row.task == task);
        let mut servings: Vec<Serving> = own.map(|row| self.served(row)).collect::<Result<_>>()?;
        servings.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.feature.cmp(&b.feature)));
        Ok(servings)
    }
}

/// What a place is called. `part` is the task's own word for it.
fn place_name(kind: TaskKind, role: &Role, part: Option<&str>) -> String {
    // The names of the literature on this task (Wang et al. 2022).
    if kind == TaskKind::Ioi {
        match role {
            Role::Correct(None) => return "right name (IO)".into(),
            Role::Counter(Some(1)) => return "wrong name (S1)".into(),
            Role::Counter(Some(2)) => return "wrong name again (S2)".into(),
            _ => {}
        }
    }
    match (role, part) {
        (Role::Same(_) | Role::Varies(_), Some(part)) => part.into(),
        (Role::Varies(_), None) => "varying tokens".into(),
        (role, _) => role.said(),
    }
}

/// The mean of what there is.
fn mean_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| mean(&values))
}

/// The links that were run, in their order; changes as shares of what enters the receiver.
fn intervention_links(rows: impl Iterator<Item = EffectRow>) -> Vec<InterventionLink> {
    by(rows.collect(), |row| row.rank).into_values().map(|rows| intervention_link(&rows)).collect()
}

fn intervention_link(rows: &[EffectRow]) -> InterventionLink {
    let first = &rows[0];
    let share = |row: &EffectRow, change: f32| f64::from(change) / f64::from(row.total);
    let runs: Vec<(f64, f64)> =
        rows.iter().map(|row| (share(row, row.predicted), share(row, row.measured))).collect();
    let predicted = mean(&runs.iter().map(|run| run.0).collect::<Vec<_>>());
    let measured = mean(&runs.iter().map(|run| run.1).collect::<Vec<_>>());
    let effect = mean(&rows.iter().map(|row| share(row, row.effect)).collect::<Vec<_>>());
    let mut words = first.receiver.split_whitespace();
    InterventionLink {
        feature: first.feature,
        receiver: first.receiver.clone(),
        receiver_feature: first.receiver.split_whitespace().find_map(|word| word.parse().ok()),
        receiver_head: words.next().and_then(|word| word.parse().ok()),
        slot: first.slot,
        prompts: first.prompts,
        share: effect,
        predicted,
        measured,
        root: mean(&rows.iter().map(|row| f64::from(row.root)).collect::<Vec<_>>()),
        doubt: doubt(effect, predicted, measured),
        runs,
    }
}

/// One row a circuit, its metrics together.
fn faithfulness<'a>(rows: impl Iterator<Item = &'a FaithfulnessRow>) -> Vec<Faithfulness> {
    let mut found: Vec<Faithfulness> = Vec::new();
    for row in rows {
        let key = |f: &Faithfulness| {
            [&f.level, &f.variant, &f.circuit, &f.ablation, &f.errors].map(String::clone).to_vec()
        };
        let own = [&row.level, &row.variant, &row.circuit, &row.ablation, &row.errors]
            .map(String::clone)
            .to_vec();
        let interval = Interval { value: row.value, low: row.low, high: row.high };
        let name = if row.stratum.is_empty() {
            row.metric.clone()
        } else {
            in_stratum(&row.metric, &row.stratum)
        };
        match found.iter_mut().find(|f| f.size == row.size && key(f) == own) {
            Some(known) => drop(known.metrics.insert(name, interval)),
            None => found.push(Faithfulness {
                level: row.level.clone(),
                variant: row.variant.clone(),
                circuit: row.circuit.clone(),
                ablation: row.ablation.clone(),
                errors: row.errors.clone(),
                size: row.size,
                metrics: BTreeMap::from([(name, interval)]),
            }),
        }
    }
    found.sort_by(|a, b| (&a.circuit, a.size).cmp(&(&b.circuit, b.size)));
    found
}

/// A metric on the prompts of a stratum: `faithfulness on ABBA`.
fn in_stratum(metric: &str, stratum: &str) -> String {
    format!("{metric} on {stratum}")
}
