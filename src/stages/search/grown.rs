//! Circuits of the methods that grow one for each prompt alone: `greedy` and `influence`.

use super::kept_rows;
use super::task_prompts::{Circuit, Solved, check_used};
use crate::artifact::Row;
use crate::artifact::tables::PromptCircuitRow;
use crate::circuit::{Attribution, Candidates, Growth, Pass, ReplacementModel, Root, grow};
use crate::config::{Discover, Task};
use crate::error::Result;
use crate::ids::Component;
use crate::inputs;
use crate::stages::Run;
use crate::stages::parts::places;
use crate::task::Prompt;
use std::collections::BTreeSet;
use std::ops::Range;

/// Prompts in a part of what is kept.
const GROWN: usize = 16;

/// Parts of a task's prompts.
pub(crate) fn parts(prompts: usize) -> u32 {
    prompts.div_ceil(GROWN) as u32
}

/// The search of one task, part by part.
pub(crate) struct Finder<'a> {
    pub run: &'a Run<'a>,
    pub replacement: &'a ReplacementModel,
    pub task: &'a Task,
    pub prompts: &'a [Prompt],
    pub metrics: &'a inputs::Metrics,
    pub method: Growth,
    /// The number of its first part.
    pub first: u32,
}

impl Finder<'_> {
    /// Finds the circuit of every prompt.
    ///
    /// # Errors
    /// When no prompt is used, or a dictionary cannot be read.
    pub(crate) fn find(&self) -> Result<Vec<Solved>> {
        self.run.progress.begin("prompts", self.prompts.len() as u64, 0);
        let mut solved = Vec::with_capacity(self.prompts.len());
        for part in self.parts() {
            let is_whole = |rows: &[PromptCircuitRow]| self.are_circuits(part, rows);
            let make = || self.circuit_rows(part);
            let rows = self.run.part(&PromptCircuitRow::ARTIFACT, part, is_whole, make)?;
            for (place, row) in self.places(part).zip(rows) {
                solved.push(kept_rows::solved(row, place, &self.prompts[place])?);
            }
        }
        check_used(solved.len(), solved.iter().filter(|solved| solved.circuit.is_some()).count())?;
        Ok(solved)
    }

    /// Finds a shard's share of the circuits.
    ///
    /// # Errors
    /// When a dictionary cannot be read.
    pub(crate) fn make_circuits(&self) -> Result<()> {
        let is_whole = |part: u32, rows: &[PromptCircuitRow]| self.are_circuits(part, rows);
        let make = |part| self.circuit_rows(part);
        self.run.make_open(&PromptCircuitRow::ARTIFACT, self.parts(), is_whole, make)
    }

    fn parts(&self) -> Range<u32> {
        self.first..self.first + parts(self.prompts.len())
    }

    fn places(&self, part: u32) -> Range<usize> {
        places(part - self.first, GROWN, self.prompts.len())
    }

    fn are_circuits(&self, part: u32, rows: &[PromptCircuitRow]) -> bool {
        kept_rows::circuits_are_of(rows, &self.task.name, self.places(part))
    }

    fn circuit_rows(&self, part: u32) -> Result<Vec<PromptCircuitRow>> {
        let Finder { run, replacement, task, .. } = self;
        let places = self.places(part);
        let (first, some) = (places.start, &self.prompts[places]);
        let one = |i: usize, pass: Pass| {
            let prompt = &some[i];
            let mut solved = Solved::new(replacement, prompt, &pass, self.metrics)?;
            if solved.used(task.wrong) {
                let attribution = Attribution::of(replacement, pass, &prompt.tokens)?;
                let circuit = circuit(&attribution, &run.config.discover, self.method, prompt)?;
                solved.circuit = Some(circuit);
            }
            run.progress.step(1)?;
            Ok(kept_rows::circuit_row(&task.name, (first + i) as u32, &solved))
        };
        let tokens: Vec<&[u32]> = some.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let mut rows = Vec::new();
        replacement.over(&tokens, one, |_, row| rows.push(row))?;
        Ok(rows)
    }
}

fn circuit(
    attribution: &Attribution,
    settings: &Discover,
    method: Growth,
    prompt: &Prompt,
) -> Result<Circuit> {
    let mut candidates = Candidates::new(attribution, settings.candidates, &settings.allow);
    let (correct, counter) = (Root::Logit(prompt.correct), Root::Logit(prompt.counter));
    let root = inputs::root(settings.root, prompt);
    let found = grow(&mut candidates, root, method)?;
    let mut components = |root| -> Result<BTreeSet<Component>> {
        Ok(grow(&mut candidates, root, method)?.graph.components())
    };
    let contrast = match settings.contrast {
        true if root == correct => Some([found.graph.components(), components(counter)?]),
        true => Some([components(correct)?, components(counter)?]),
        false => None,
    };
    let activations = found.graph.nodes.iter().map(|node| attribution.activation(node)).collect();
    Ok(Circuit { found, activations, contrast })
}
