//! A task's prompts as the model answers them, on their way to becoming rows.

use crate::circuit::{Case, Metric, Pass, PrunedGraph, ReplacementModel};
use crate::config::{Task, Wrong};
use crate::error::{Result, hinted};
use crate::ids::Component;
use crate::inputs::Metrics;
use crate::task::Prompt;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Answers of the model that are kept of each prompt.
const ANSWERS: usize = 5;

/// A prompt as the model answers it, and its circuit.
pub(crate) struct Solved {
    pub prompt: Prompt,
    pub logit_difference: f64,
    pub clean: f64,
    pub answers: Vec<(u32, f32)>,
    /// None where the prompt is left out.
    pub circuit: Option<Circuit>,
}

impl Solved {
    /// A prompt as the model answers it, before anything is looked for.
    pub(crate) fn new(
        replacement: &ReplacementModel,
        prompt: &Prompt,
        pass: &Pass,
        metrics: &Metrics,
    ) -> Result<Solved> {
        let logits = replacement.model.last_logits(pass.trace())?;
        let difference =
            Metric::LogitDifference { correct: prompt.correct, counter: prompt.counter };
        Ok(Solved {
            answers: metrics.answers(&logits, ANSWERS),
            logit_difference: difference.of(&logits),
            clean: metrics.of(prompt)?.of(&logits),
            prompt: prompt.clone(),
            circuit: None,
        })
    }

    /// The same without its circuit.
    pub(crate) fn bare(&self) -> Solved {
        Solved {
            prompt: self.prompt.clone(),
            logit_difference: self.logit_difference,
            clean: self.clean,
            answers: self.answers.clone(),
            circuit: None,
        }
    }

    pub(crate) fn right(&self) -> bool {
        self.clean > 0.0
    }

    /// Whether it counts.
    pub(crate) fn used(&self, wrong: Wrong) -> bool {
        self.right() || wrong == Wrong::Keep
    }
}

/// The circuit of a prompt.
pub(crate) struct Circuit {
    pub found: PrunedGraph,
    /// Activation of each node, for features.
    pub activations: Vec<Option<f32>>,
    /// The components of the circuits of the right and of the wrong answer's logit.
    pub contrast: Option<[BTreeSet<Component>; 2]>,
}

/// # Errors
/// When none of a task's prompts is used.
pub(crate) fn check_used(prompts: usize, used: usize) -> Result<()> {
    if used > 0 {
        return Ok(());
    }
    let what = format!("the model gets none of its {prompts} prompts right, so all are left out");
    Err(hinted(
        what,
        "set `wrong = \"keep\"` for the task, or use prompts that the model gets right",
    ))
}

/// The metric of a case in the whole model.
pub(crate) fn whole(replacement: &ReplacementModel, case: &Case) -> Result<f64> {
    Ok(case.metric.of(&replacement.model.last_logits(&replacement.model.forward(case.tokens)?)?))
}

/// The prompts that count, with their cases.
///
/// # Errors
/// When none does.
pub(crate) fn counted<'p>(
    replacement: &ReplacementModel,
    task: &Task,
    prompts: &'p [Prompt],
    metrics: &Metrics,
) -> Result<(Vec<&'p Prompt>, Vec<Case<'p>>)> {
    let cases = prompts.iter().map(|prompt| metrics.case(prompt)).collect::<Result<Vec<Case>>>()?;
    let counts = counting(replacement, task, &cases)?;
    Ok(prompts
        .iter()
        .zip(cases)
        .zip(counts)
        .filter(|(_, counts)| *counts)
        .map(|(of, _)| of)
        .unzip())
}

/// Which cases count: all, or those at which the model is right.
pub(crate) fn counting(
    replacement: &ReplacementModel,
    task: &Task,
    cases: &[Case],
) -> Result<Vec<bool>> {
    if task.wrong == Wrong::Keep {
        return Ok(vec![true; cases.len()]);
    }
    let right = cases
        .par_iter()
        .map(|case| Ok(whole(replacement, case)? > 0.0))
        .collect::<Result<Vec<bool>>>()?;
    check_used(right.len(), right.iter().filter(|right| **right).count())?;
    Ok(right)
}
