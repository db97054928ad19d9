//! The metric of every prompt in every run of a circuit, kept as it is measured: a run that is
//! killed goes on behind what it has kept.

use super::TaskRun;
use crate::artifact::Row;
use crate::artifact::tables::CircuitRunRow;
use crate::circuit::components::{self, ComponentAblation};
use crate::circuit::features::{Errors, FeatureAblation, Runner, Side};
use crate::config::Ablation;
use crate::error::Result;
use crate::ids::{Component, FeatureId};
use crate::stages::Run;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a part is measured at least, and as which share of the time that has passed: few files
/// of long runs, and little lost of short ones.
const LEAST: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;

/// A run of a circuit over the prompts of a task.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    task: String,
    level: String,
    ablation: String,
    errors: String,
    side: String,
    size: u32,
    circuit: String,
    prompts: u32,
}

/// All runs of circuits that are known by now.
pub(super) struct Runs<'a> {
    run: &'a Run<'a>,
    /// Of a run before that was killed.
    kept: BTreeMap<Key, Vec<f64>>,
    used: RefCell<BTreeMap<Key, Vec<f64>>>,
    /// Not yet written.
    open: RefCell<Vec<CircuitRunRow>>,
    next: Cell<u32>,
    begun: Instant,
    written: Cell<Instant>,
}

impl Key {
    fn of(
        task_run: &TaskRun,
        (level, ablation, errors, side): (&'static str, Ablation, Option<Errors>, Side),
        circuit: &BTreeSet<impl Display>,
    ) -> Key {
        let mut hasher = blake3::Hasher::new();
        circuit.iter().for_each(|part| {
            hasher.update(format!("{part}\n").as_bytes());
        });
        Key {
            task: task_run.task.name.clone(),
            level: level.into(),
            ablation: ablation.word().into(),
            errors: errors.map_or("", Errors::word).into(),
            side: side.word().into(),
            size: circuit.len() as u32,
            circuit: hasher.finalize().to_hex()[..16].into(),
            prompts: task_run.cases.len() as u32,
        }
    }

    fn of_row(row: CircuitRunRow) -> Key {
        let CircuitRunRow { task, level, ablation, errors, side, size, circuit, prompts, .. } = row;
        Key { task, level, ablation, errors, side, size, circuit, prompts }
    }

    fn rows(&self, values: &[f64]) -> impl Iterator<Item = CircuitRunRow> {
        (0u32..).zip(values).map(|(prompt, &value)| {
            let Key { task, level, ablation, errors, side, size, circuit, prompts } = self.clone();
            CircuitRunRow {
                task,
                level,
                ablation,
                errors,
                side,
                size,
                circuit,
                prompts,
                prompt,
                value,
            }
        })
    }
}

impl<'a> Runs<'a> {
    /// Reads what a run with the same ingredients has kept.
    pub(super) fn new(run: &'a Run) -> Result<Runs<'a>> {
        let artifact = &CircuitRunRow::ARTIFACT;
        let (mut kept, mut next) = (BTreeMap::<Key, Vec<f64>>::new(), 0);
        for part in run.store.part_numbers(artifact) {
            if run.store.part_fingerprint(artifact, part).as_deref() != Some(run.fingerprint) {
                continue;
            }
            next = next.max(part + 1);
            for row in run.store.read_part::<CircuitRunRow>(part)? {
                let (prompt, value) = (row.prompt as usize, row.value);
                let values = kept.entry(Key::of_row(row)).or_default();
                // A part that was not removed any more holds the same again.
                if values.len() == prompt {
                    values.push(value);
                }
            }
        }
        let now = Instant::now();
        Ok(Runs {
            run,
            kept,
            used: RefCell::default(),
            open: RefCell::default(),
            next: Cell::new(next),
            begun: now,
            written: Cell::new(now),
        })
    }

    fn values(&self, key: Key, measure: impl FnOnce() -> Result<Vec<f64>>) -> Result<Vec<f64>> {
        if let Some(known) = self.used.borrow().get(&key) {
            return Ok(known.clone());
        }
        let whole = |values: &&Vec<f64>| values.len() == key.prompts as usize;
        let values = match self.kept.get(&key).filter(whole) {
            Some(known) => known.clone(),
            None => {
                let values = measure()?;
                self.open.borrow_mut().extend(key.rows(&values));
                self.write_if_due()?;
                values
            }
        };
        self.used.borrow_mut().insert(key, values.clone());
        Ok(values)
    }

    fn write_if_due(&self) -> Result<()> {
        if self.written.get().elapsed() < LEAST.max(self.begun.elapsed() / SHARE) {
            return Ok(());
        }
        let part = self.next.replace(self.next.get() + 1);
        self.run.store.write_part(self.run.fingerprint, part, &self.open.take())?;
        self.written.set(Instant::now());
        Ok(())
    }

    /// Writes all runs as one part, whatever the parts were in which they were measured.
    pub(super) fn end(self) -> Result<()> {
        let used = self.used.into_inner();
        let rows: Vec<CircuitRunRow> =
            used.iter().flat_map(|(key, values)| key.rows(values)).collect();
        self.run.store.write_part(self.run.fingerprint, 0, &rows)?;
        self.run.store.remove_parts_from(&CircuitRunRow::ARTIFACT, 1)
    }
}

impl TaskRun<'_> {
    /// The metric of each case with every component outside `keep` ablated.
    pub(super) fn component_run(
        &self,
        ablation: Ablation,
        ablation_values: &[Arc<ComponentAblation>],
        keep: &BTreeSet<Component>,
    ) -> Result<Vec<f64>> {
        let key = Key::of(self, ("component", ablation, None, Side::Inside), keep);
        self.runs.values(key, || {
            components::values(&self.replacement.model, &self.cases, keep, ablation_values)
        })
    }

    /// The metric of each case with features on one side of a circuit ablated.
    pub(super) fn feature_run(
        &self,
        ablation: Ablation,
        ablation_values: &[Arc<FeatureAblation>],
        errors: Errors,
        circuit: &BTreeSet<FeatureId>,
        side: Side,
    ) -> Result<Vec<f64>> {
        let runner =
            Runner { replacement: self.replacement, cases: &self.cases, ablation_values, errors };
        let key = Key::of(self, ("feature", ablation, Some(errors), side), circuit);
        self.runs.values(key, || runner.values(circuit, side))
    }

    /// The same of the model's own neurons.
    pub(super) fn neuron_run(
        &self,
        circuit: &BTreeSet<FeatureId>,
        measure: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let key = Key::of(self, ("neuron", Ablation::Mean, None, Side::Inside), circuit);
        self.runs.values(key, measure)
    }
}
