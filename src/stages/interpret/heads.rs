//! The question about a head: besides its features, where it looks in each task, what enters it,
//! and what it copies.

use super::sets::CircuitIndex;
use super::sets::place;
use super::subjects::{FeatureSet, Said, Subjects};
use crate::atlas::model::{self, AttentionShares, Contributor, What};
use crate::ids::{Component, FeatureId, Subject};
use crate::llm::explainer::{self, CopyEvidence, HeadInTask, MoveEvidence, SourceEvidence};

/// Tasks, moves, tokens read (those that it looks at most, and answers), tokens written, and
/// contributors of a slot that are told.
const TASKS: usize = 3;
const MOVES: usize = 5;
const READ: usize = 3;
const ANSWERS: usize = 3;
const WRITTEN: usize = 5;
const CONTRIBUTORS: usize = 6;
/// A share of attention below this is not worth a word.
const LITTLE: f64 = 0.01;
/// Ranks up to this say something of a token.
const NEAR: u32 = 100;

impl Subjects<'_> {
    /// All of a head but what every set has.
    pub(super) fn head(
        &self,
        component: Component,
        set: &FeatureSet,
        circuits: &CircuitIndex,
        said: &Said,
    ) -> explainer::HeadEvidence {
        let heads = self.told_heads(component, circuits);
        let number = match component {
            Component::Head { head, .. } => head as u32,
            Component::Mlp { .. } => 0,
        };
        let place = |head: &model::Head| {
            let task = self.run.config.tasks.iter().find(|task| task.name == head.task)?;
            Some(place_of(head, self.task(task, component, circuits), said))
        };
        explainer::HeadEvidence {
            head: number,
            layer: component.layer() as u32,
            last_layer: self.last_layer,
            places: heads.iter().filter_map(place).collect(),
            members: self.serving(set, circuits, said),
            ..explainer::HeadEvidence::default()
        }
    }

    /// What a head does in the tasks that are told of.
    fn told_heads(&self, component: Component, circuits: &CircuitIndex) -> Vec<model::Head> {
        let mut heads = circuits.heads.of(component, &self.tokenizer);
        // Stable: of as many prompts, in the order of the tasks' names.
        heads.sort_by_key(|head| std::cmp::Reverse(circuits.with(component, &head.task)));
        heads.truncate(TASKS);
        heads
    }

    /// The features that are told of as what enters a head.
    pub(super) fn entering(&self, head: Component, circuits: &CircuitIndex) -> Vec<FeatureId> {
        let heads = self.told_heads(head, circuits);
        let told = heads.iter().flat_map(|head| &head.contributors);
        let what = told.flat_map(|slot| slot.iter().take(CONTRIBUTORS)).map(|from| &from.what);
        what.filter_map(|what| match what {
            What::Feature(feature) => Some(*feature),
            _ => None,
        })
        .collect()
    }
}

fn place_of(head: &model::Head, task: explainer::TaskEvidence, said: &Said) -> HeadInTask {
    let slots = ["query", "key", "value"].into_iter().zip(&head.contributors);
    let enters = |(slot, from): (&str, &Vec<Contributor>)| {
        let source = |from: &Contributor| source(from, slot == "value", said);
        (slot.to_string(), from.iter().take(CONTRIBUTORS).map(source).collect())
    };
    HeadInTask {
        task,
        moves: head.moves.iter().take(MOVES).map(moved).collect(),
        habits: habits(&head.habits),
        direct_effect: head.habits.direct_effect,
        enters: slots.map(enters).collect(),
        copies: copies(&head.copies),
        copying: match head.copies_or_lowers() {
            Some(true) => "It mostly copies: what it looks at, it makes more likely.".into(),
            Some(false) => "It mostly lowers: what it looks at, it makes less likely.".into(),
            None => String::new(),
        },
    }
}

fn moved(of: &model::Move) -> MoveEvidence {
    let to = of.to.said();
    MoveEvidence {
        from: of.from.said(),
        to: if of.last { format!("the last token, {to},") } else { to },
        prompts: of.prompts,
        attention: of.attention,
    }
}

fn habits(of: &AttentionShares) -> Vec<(String, f64)> {
    let all = [
        ("to BOS", of.to_bos),
        ("to the token itself", of.to_itself),
        ("to the token before", of.to_previous),
        ("to earlier places of the same token", of.to_same),
        ("to the token behind an earlier place of the same token", of.to_after_same),
        ("from the last token to the right answer", of.to_correct),
        ("from the last token to the wrong answer", of.to_counter),
    ];
    let told = |(what, share): (&str, Option<f64>)| {
        Some((what.to_string(), share.filter(|share| *share >= LITTLE)?))
    };
    all.into_iter().filter_map(told).collect()
}

/// What enters a slot; of a value also what it promotes, as that is carried on.
fn source(from: &Contributor, is_value: bool, said: &Said) -> SourceEvidence {
    let (what, own) = match &from.what {
        What::Feature(feature) => (place(*feature), said.get(&Subject::from(*feature))),
        other => (other.said(), None),
    };
    let sentence = own.map(|own| match is_value {
        true => format!("{} {}", own.input_side, own.output_side),
        false => own.input_side.clone(),
    });
    SourceEvidence { what, prompts: from.prompts, said: sentence.unwrap_or_default() }
}

/// Of the answers most of all, as these are what a task is about.
fn copies(of: &[model::CopiedToken]) -> Vec<CopyEvidence> {
    let [answers, others] =
        [true, false].map(|answer| of.iter().filter(move |copied| copied.answer == answer));
    answers.take(ANSWERS).chain(others.take(READ)).map(copied).collect()
}

fn copied(of: &model::CopiedToken) -> CopyEvidence {
    let own = match (of.own_rank, of.own_rank_below) {
        (raised, _) if raised <= NEAR => format!("number {raised} of those that it raises"),
        (_, lowered) if lowered <= NEAR => format!("number {lowered} of those that it lowers"),
        _ => format!("not among the {NEAR} that it raises or lowers most"),
    };
    let writes = of.top.iter().take(WRITTEN).map(|(token, _)| token.clone()).collect();
    CopyEvidence { token: of.token.clone(), writes, own }
}
