//! The circuit of one prompt that somebody typed, by the method and the settings of `discover`.

use super::task_prompts::Solved;
use super::{grown, ranked};
use crate::circuit::{Ablate, ReplacementModel};
use crate::config::{self, TaskKind, Wrong};
use crate::error::Result;
use crate::inputs::{self, Metrics};
use crate::stages::Run;
use crate::task::{Prompt, Prompts};

/// The prompt with its circuit; none where nothing was found. The method `gradient` ranks features
/// and chooses the size of the circuit on this prompt alone; `ablate` says what features are
/// replaced with there.
///
/// # Errors
/// When a dictionary cannot be read.
pub(crate) fn find(
    run: &Run,
    replacement: &ReplacementModel,
    prompt: &Prompt,
    metrics: &Metrics,
    ablate: Ablate,
) -> Result<Option<Solved>> {
    let task = config::Task {
        name: "typed".into(),
        kind: TaskKind::Prompts,
        prompts: None,
        seed: 0,
        file: None,
        wrong: Wrong::Keep,
        published: String::new(),
    };
    let mut solved = match inputs::growth(&run.config.discover, run.config.discover.method) {
        Some(method) => {
            let (task, prompts, first) = (&task, std::slice::from_ref(prompt), 0);
            grown::Finder { run, replacement, task, prompts, metrics, method, first }.find()?
        }
        None => {
            let prompts = Prompts { finding: vec![prompt.clone()], own: 1, ..Prompts::default() };
            let how = (ablate, ranked::FirstParts::default());
            ranked::Finder::new(run, replacement, &task, &prompts, metrics, how)?.find()?.solved
        }
    };
    Ok(solved.pop())
}
