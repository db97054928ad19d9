//! What the tables of a run do not hold, computed for one question: more promoted tokens, more
//! examples.

use crate::artifact::tables::{ExampleRow, FeatureRow, LogitRow};
use crate::atlas::Promoting;
use crate::atlas::activations::{self, Part, counting, feature_examples, joint_examples};
use crate::atlas::answers::strength;
use crate::atlas::model::PromotedToken;
use crate::circuit::Weighted;
use crate::corpus::Tokenizer;
use crate::error::{Result, hinted};
use crate::ids::{DictionaryId, Subject};
use crate::inputs::{self, Contexts, Input};
use crate::stages::Run;
use crate::stats::examples::Wanted;
use clap::Args;
use std::collections::BTreeSet;

/// How promoted tokens are listed, where it is not as the settings say.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Promotion {
    /// Activation at which logits are also shown; default: the maximum of a feature, for others
    /// `logits.strength`
    #[arg(long, value_name = "S", value_parser = finite, allow_negative_numbers = true)]
    strength: Option<f64>,
    /// Number of promoted and of suppressed tokens; default: 10, as JSON `logits.k`
    #[arg(long, value_name = "N")]
    k: Option<usize>,
}

fn finite(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("not a number".into()),
    }
}

/// Promoted tokens in a table, where no number is asked for.
const SHOWN: usize = 10;

impl Promotion {
    /// How many are wanted, if the tables have fewer.
    pub(super) fn more(&self, [top, bottom]: &[Vec<PromotedToken>; 2]) -> Option<usize> {
        self.k.filter(|k| *k > top.len().min(bottom.len()))
    }

    /// Cuts the lists, and sets their logits at the strength that is wanted, which it returns. `max`
    /// is that of a feature.
    pub(super) fn apply(
        &self,
        run: &Run,
        max: Option<f32>,
        sides: [&mut Vec<PromotedToken>; 2],
    ) -> f64 {
        let strength = self.strength.unwrap_or(strength(max, run.config.logits.strength));
        for side in sides {
            side.truncate(self.k.unwrap_or(usize::MAX));
            side.iter_mut().for_each(|token| token.set_strength(strength));
        }
        strength
    }

    /// How many are computed where there is no table of them.
    pub(super) fn k(&self, run: &Run) -> usize {
        self.k.unwrap_or(run.config.logits.k)
    }

    /// Rows of their table.
    pub(super) fn shown(&self) -> usize {
        self.k.unwrap_or(SHOWN)
    }
}

/// # Errors
/// When the model, its tokenizer or its dictionaries are not those of the run any more: what is
/// computed from them would stand beside numbers of others.
pub(super) fn check_same(run: &Run) -> Result<()> {
    let inputs = [Input::Model, Input::Tokenizer, Input::Dictionaries];
    match inputs::changed_since(run.config, run.lock, "measure", &inputs)? {
        None => Ok(()),
        Some(name) => Err(hinted(
            format!(
                "`{name}` has changed since the run, so that nothing can be added to its results"
            ),
            "bring them up to date with `circuit-atlas run`",
        )),
    }
}

/// What sets of features promote, from the model and their dictionaries.
///
/// # Errors
/// When these are not those of the run any more, or cannot be read.
pub(super) fn logits(
    run: &Run,
    sets: &[(Subject, Weighted)],
    tokenizer: &Tokenizer,
    k: usize,
) -> Result<Vec<LogitRow>> {
    check_same(run)?;
    run.progress.say("computing promoted tokens");
    let members = sets.iter().flat_map(|(_, members)| members);
    let used: BTreeSet<DictionaryId> = members.map(|(feature, _)| feature.dictionary).collect();
    let wanted = |id| used.contains(&id);
    let dictionaries = inputs::some_dictionaries(run.config, run.lock, run.progress, wanted)?;
    let writers = (inputs::model(run.config)?, dictionaries);
    Promoting::new(&writers, tokenizer, k, run.config.logits.strength)?.rows(sets)
}

/// Examples of a scored feature, from its scores.
pub(super) fn examples(run: &Run, row: &FeatureRow, wanted: Wanted) -> Result<Vec<ExampleRow>> {
    run.progress.say("reading scores");
    let contexts = Contexts::load(run.config, run.store)?;
    let scores = activations::of(run.store, &BTreeSet::from([row.key]))?;
    let counted: Vec<_> =
        scores.values().flat_map(|activations| counting(&contexts, activations)).collect();
    let all: Vec<u32> = (0..contexts.rows.len() as u32).collect();
    Ok(feature_examples(&contexts, row.feature, &counted, &contexts.halves(&all), wanted))
}

/// The strongest examples of scored features together, each with its weight.
pub(super) fn together(
    run: &Run,
    subject: &Subject,
    members: &[(&FeatureRow, f64)],
    most: usize,
) -> Result<Vec<ExampleRow>> {
    run.progress.say("reading scores");
    let contexts = Contexts::load(run.config, run.store)?;
    let keys = members.iter().map(|(row, _)| row.key).collect();
    let scores = activations::of(run.store, &keys)?;
    let part = |&(row, weight): &(&FeatureRow, f64)| {
        let own = scores.get(&row.key).map(Vec::as_slice).unwrap_or_default();
        let activations = counting(&contexts, own).collect();
        Part { activations, max: f64::from(row.max), weight }
    };
    let parts: Vec<Part> = members.iter().map(part).collect();
    Ok(joint_examples(&contexts, subject, &activations::together(&parts, true), most))
}
