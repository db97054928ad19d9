//! The metric of every prompt in every run of a circuit, kept as it is measured: a run that is
//! killed goes on behind what it has kept, and several processes share runs out by their keys.

use crate::artifact::Artifact;
use crate::artifact::tables::CircuitRunRow;
use crate::circuit::features::{Errors, Side};
use crate::config::Ablation;
use crate::error::Result;
use crate::stages::Run;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long a part is measured at least, and as which share of the time that has passed: few files
/// of long runs, and little lost of short ones.
const LEAST: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;
/// As much as a kill may lose.
const MOST: Duration = Duration::from_secs(30);

/// A run of a circuit over the prompts of a task.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
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
pub(crate) struct Runs<'a> {
    run: &'a Run<'a>,
    artifact: Artifact,
    /// Of a run before that was killed, and of other shards.
    kept: BTreeMap<Key, Vec<f64>>,
    used: RefCell<BTreeMap<Key, Vec<f64>>>,
    /// Not yet written, and their keys.
    open: RefCell<(Vec<CircuitRunRow>, blake3::Hasher)>,
    /// Whether runs of other shards are left out.
    shares: Cell<bool>,
    begun: Instant,
    written: Cell<Instant>,
}

/// What a circuit is, and how it is run: level, ablation, errors, side.
pub(crate) type Way = (&'static str, Ablation, Option<Errors>, Side);

impl Key {
    pub(crate) fn of(
        task: &str,
        prompts: usize,
        (level, ablation, errors, side): Way,
        circuit: &BTreeSet<impl Display>,
    ) -> Key {
        let mut hasher = blake3::Hasher::new();
        circuit.iter().for_each(|part| {
            hasher.update(format!("{part}\n").as_bytes());
        });
        Key {
            task: task.into(),
            level: level.into(),
            ablation: ablation.word().into(),
            errors: errors.map_or("", Errors::word).into(),
            side: side.word().into(),
            size: circuit.len() as u32,
            circuit: hasher.finalize().to_hex()[..16].into(),
            prompts: prompts as u32,
        }
    }

    /// Adds it to a hash.
    fn update(&self, hasher: &mut blake3::Hasher) {
        let Key { task, level, ablation, errors, side, size, circuit, prompts } = self;
        hasher.update(
            format!("{task}\n{level} {ablation} {errors} {side} {size} {circuit} {prompts}\n")
                .as_bytes(),
        );
    }

    /// A number by which runs are shared out.
    fn number(&self) -> u32 {
        let mut hasher = blake3::Hasher::new();
        self.update(&mut hasher);
        number(&hasher)
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

fn number(hasher: &blake3::Hasher) -> u32 {
    let hash = hasher.finalize();
    u32::from_le_bytes([0, 1, 2, 3].map(|at| hash.as_bytes()[at]))
}

impl<'a> Runs<'a> {
    /// Reads what a run with the same ingredients, or another shard, has kept.
    pub(crate) fn open(run: &'a Run, artifact: Artifact) -> Result<Runs<'a>> {
        let mut kept = BTreeMap::<Key, Vec<f64>>::new();
        for part in run.kept_parts(&artifact) {
            for row in run.store.read_part_as::<CircuitRunRow>(&artifact, part)? {
                let (prompt, value) = (row.prompt as usize, row.value);
                let values = kept.entry(Key::of_row(row)).or_default();
                // Several parts may hold the same.
                if values.len() == prompt {
                    values.push(value);
                }
            }
        }
        let now = Instant::now();
        Ok(Runs {
            run,
            artifact,
            kept,
            used: RefCell::default(),
            open: RefCell::default(),
            shares: Cell::new(false),
            begun: now,
            written: Cell::new(now),
        })
    }

    /// From now on, a shard measures only its own share of what nobody has kept, and takes zeros for
    /// the rest: whatever is made of them is not used.
    pub(crate) fn share(&self, shares: bool) {
        self.shares.set(shares);
    }

    pub(crate) fn values(
        &self,
        key: Key,
        measure: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        if let Some(known) = self.used.borrow().get(&key) {
            return Ok(known.clone());
        }
        let whole = |values: &&Vec<f64>| values.len() == key.prompts as usize;
        let values = match self.kept.get(&key).filter(whole) {
            Some(known) => known.clone(),
            None if self.shares.get() && !self.run.has(key.number()) => {
                return Ok(vec![0.0; key.prompts as usize]);
            }
            None => {
                let values = measure()?;
                self.run.parts.made();
                let (rows, hasher) = &mut *self.open.borrow_mut();
                rows.extend(key.rows(&values));
                key.update(hasher);
                values
            }
        };
        self.used.borrow_mut().insert(key, values.clone());
        self.write_if_due()?;
        Ok(values)
    }

    fn write_if_due(&self) -> Result<()> {
        let due = (self.begun.elapsed() / SHARE).clamp(LEAST, MOST);
        if self.written.get().elapsed() < due {
            return Ok(());
        }
        self.write()
    }

    /// Writes what is measured and not yet written. A part has the number of its content, so that no
    /// two of different contents are in each other's way.
    pub(crate) fn write(&self) -> Result<()> {
        let (rows, hasher) = self.open.take();
        if !rows.is_empty() && self.run.keeps() {
            let part = number(&hasher) | 1 << 31;
            self.run.store.keep_part(&self.artifact, self.run.fingerprint, part, &rows)?;
        }
        self.written.set(Instant::now());
        Ok(())
    }

    /// Writes all runs as one part, whatever the parts were in which they were measured.
    pub(crate) fn end(self) -> Result<()> {
        let used = self.used.borrow();
        let rows: Vec<CircuitRunRow> =
            used.iter().flat_map(|(key, values)| key.rows(values)).collect();
        self.run.store.write_part_as(&self.artifact, self.run.fingerprint, 0, &rows)?;
        // What is not written yet is in that part.
        self.open.take();
        self.run.store.remove_parts_from(&self.artifact, 1)
    }
}

impl Drop for Runs<'_> {
    /// When the run is stopped, or something else fails, what was measured is not lost.
    fn drop(&mut self) {
        drop(self.write());
    }
}
