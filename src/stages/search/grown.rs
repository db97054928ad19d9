//! Circuits of the methods that grow one for each prompt alone: `greedy` and `influence`.

use super::task_prompts::{Circuit, Solved, check_used};
use crate::circuit::{Attribution, Candidates, Growth, Pass, ReplacementModel, Root, grow};
use crate::config::{Discover, Task};
use crate::error::Result;
use crate::ids::Component;
use crate::inputs;
use crate::stages::Run;
use crate::task::Prompt;
use std::collections::BTreeSet;

/// Finds the circuit of every prompt.
///
/// # Errors
/// When no prompt is used, or a dictionary cannot be read.
pub(crate) fn find(
    run: &Run,
    replacement: &ReplacementModel,
    task: &Task,
    prompts: &[Prompt],
    metrics: &inputs::Metrics,
    method: Growth,
) -> Result<Vec<Solved>> {
    run.progress.begin("prompts", prompts.len() as u64, 0);
    let one = |i: usize, pass: Pass| {
        let prompt = &prompts[i];
        let mut solved = Solved::new(replacement, prompt, &pass, metrics)?;
        if solved.used(task.wrong) {
            let attribution = Attribution::of(replacement, pass, &prompt.tokens)?;
            solved.circuit = Some(circuit(&attribution, &run.config.discover, method, prompt)?);
        }
        run.progress.step(1)?;
        Ok(solved)
    };
    let mut solved = Vec::with_capacity(prompts.len());
    let tokens: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
    replacement.over(&tokens, one, |_, one| solved.push(one))?;
    check_used(solved.len(), solved.iter().filter(|solved| solved.circuit.is_some()).count())?;
    Ok(solved)
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
