//! Prompts and their circuits as rows of the parts that are kept, and back.

use super::task_prompts::{Circuit, Solved};
use crate::artifact::tables::{PromptCircuitRow, PromptScoreRow};
use crate::circuit::gradient::Scores;
use crate::circuit::{Edge, Graph, Node, PrunedGraph};
use crate::error::Result;
use crate::ids::{Component, DictionaryId, FeatureId, Kind};
use crate::task::Prompt;
use anyhow::{Context as _, ensure};
use std::collections::BTreeMap;
use std::ops::Range;

/// A field that a node does not have.
const NONE: u32 = u32::MAX;

/// Scores of a prompt: of features, and of the dictionaries' errors.
pub(super) type PromptScores = (BTreeMap<FeatureId, f64>, Vec<f64>);

pub(super) fn score_row(
    task: &str,
    prompt: u32,
    solved: &Solved,
    scores: Option<&Scores>,
) -> PromptScoreRow {
    let (answers, answer_probabilities) = solved.answers.iter().copied().unzip();
    let by_part = scores.map(Scores::by_part).unwrap_or_default();
    let place = |id: &FeatureId| {
        2 * id.dictionary.layer as u32 + u32::from(id.dictionary.kind == Kind::Mlp)
    };
    PromptScoreRow {
        task: task.into(),
        prompt,
        logit_difference: solved.logit_difference,
        metric: solved.clean,
        answers,
        answer_probabilities,
        used: scores.is_some(),
        dictionaries: by_part.keys().map(place).collect(),
        features: by_part.keys().map(|id| id.index as u32).collect(),
        scores: by_part.into_values().collect(),
        errors: scores.map(|scores| scores.errors.clone()).unwrap_or_default(),
    }
}

/// Whether the rows of a part are those of the prompts at these places of a task, each whole.
pub(super) fn scores_are_of(
    rows: &[PromptScoreRow],
    task: &str,
    places: Range<usize>,
    dictionaries: usize,
) -> bool {
    let is_whole = |row: &PromptScoreRow| {
        same([row.dictionaries.len(), row.features.len(), row.scores.len()])
            && same([row.answers.len(), row.answer_probabilities.len()])
            && row.errors.len() == if row.used { dictionaries } else { 0 }
    };
    let of = rows.iter().map(|row| (row.task.as_str(), row.prompt as usize));
    of.eq(places.map(|place| (task, place))) && rows.iter().all(is_whole)
}

/// The same of circuits.
pub(super) fn circuits_are_of(rows: &[PromptCircuitRow], task: &str, places: Range<usize>) -> bool {
    let is_whole = |row: &PromptCircuitRow| {
        let nodes = row.kinds.len();
        let fields = [&row.layers, &row.positions, &row.sources, &row.heads, &row.indices];
        let mut links = row.children.iter().chain(&row.parents);
        fields.iter().all(|field| field.len() == nodes)
            && row.activations.len() == nodes
            && same([row.children.len(), row.parents.len(), row.slots.len()])
            && same([row.slots.len(), row.effects.len(), row.shares.len()])
            && links.all(|&place| (place as usize) < nodes)
            && same([row.answers.len(), row.answer_probabilities.len()])
    };
    let of = rows.iter().map(|row| (row.task.as_str(), row.prompt as usize));
    of.eq(places.map(|place| (task, place))) && rows.iter().all(is_whole)
}

fn same<const N: usize>(lengths: [usize; N]) -> bool {
    lengths.windows(2).all(|pair| pair[0] == pair[1])
}

/// # Errors
/// When the row is not of this prompt.
pub(super) fn scored(
    row: PromptScoreRow,
    place: usize,
    prompt: &Prompt,
) -> Result<(Solved, Option<PromptScores>)> {
    ensure!(row.prompt as usize == place, "a part has rows of other prompts");
    let id = |(&place, &index): (&u32, &u32)| {
        let kind = if place & 1 == 0 { Kind::Attention } else { Kind::Mlp };
        let dictionary = DictionaryId { layer: place as usize / 2, kind };
        FeatureId { dictionary, index: index as usize }
    };
    let ids = row.dictionaries.iter().zip(&row.features).map(id);
    let by_part = ids.zip(row.scores).collect();
    let solved = Solved {
        prompt: prompt.clone(),
        logit_difference: row.logit_difference,
        clean: row.metric,
        answers: row.answers.into_iter().zip(row.answer_probabilities).collect(),
        circuit: None,
    };
    Ok((solved, row.used.then_some((by_part, row.errors))))
}

pub(super) fn circuit_row(task: &str, prompt: u32, solved: &Solved) -> PromptCircuitRow {
    let (answers, answer_probabilities) = solved.answers.iter().copied().unzip();
    let circuit = solved.circuit.as_ref();
    let graph = circuit.map(|circuit| &circuit.found.graph);
    let nodes = graph.map(|graph| graph.nodes.as_slice()).unwrap_or_default();
    let edges = graph.map(|graph| graph.edges.as_slice()).unwrap_or_default();
    let places: BTreeMap<Node, u32> = nodes.iter().copied().zip(0..).collect();
    let place = |node: &Node| places.get(node).copied().unwrap_or(NONE);
    let field = |of: fn(&Node) -> Option<u32>| -> Vec<u32> {
        nodes.iter().map(|node| of(node).unwrap_or(NONE)).collect()
    };
    let activations = circuit.map(|circuit| circuit.activations.as_slice()).unwrap_or_default();
    let contrast = circuit.and_then(|circuit| circuit.contrast.as_ref());
    let side = |side: usize| -> Vec<Component> {
        contrast.map(|sides| sides[side].iter().copied().collect()).unwrap_or_default()
    };
    PromptCircuitRow {
        task: task.into(),
        prompt,
        logit_difference: solved.logit_difference,
        metric: solved.clean,
        answers,
        answer_probabilities,
        used: circuit.is_some(),
        left_out: circuit.and_then(|circuit| circuit.found.left_out),
        kinds: nodes.iter().map(|node| node.kind).collect(),
        layers: field(|node| node.layer),
        positions: field(|node| node.position),
        sources: field(|node| node.source),
        heads: field(|node| node.head),
        indices: field(|node| node.feature),
        activations: activations.iter().map(|own| own.unwrap_or(f32::NAN)).collect(),
        children: edges.iter().map(|edge| place(&edge.child)).collect(),
        parents: edges.iter().map(|edge| place(&edge.parent)).collect(),
        slots: edges.iter().map(|edge| edge.slot).collect(),
        effects: edges.iter().map(|edge| edge.effect).collect(),
        shares: edges.iter().map(|edge| edge.share).collect(),
        contrast: contrast.is_some(),
        right: side(0),
        wrong: side(1),
    }
}

/// # Errors
/// When the row is not of this prompt, or a link is of no node.
pub(super) fn solved(row: PromptCircuitRow, place: usize, prompt: &Prompt) -> Result<Solved> {
    ensure!(row.prompt as usize == place, "a part has rows of other prompts");
    let circuit = row.used.then(|| circuit(&row)).transpose()?;
    Ok(Solved {
        prompt: prompt.clone(),
        logit_difference: row.logit_difference,
        clean: row.metric,
        answers: row.answers.into_iter().zip(row.answer_probabilities).collect(),
        circuit,
    })
}

fn circuit(row: &PromptCircuitRow) -> Result<Circuit> {
    let field = |fields: &[u32], at: usize| fields.get(at).copied().filter(|own| *own != NONE);
    let node = |(at, &kind)| Node {
        kind,
        layer: field(&row.layers, at),
        position: field(&row.positions, at),
        source: field(&row.sources, at),
        head: field(&row.heads, at),
        feature: field(&row.indices, at),
    };
    let nodes: Vec<Node> = row.kinds.iter().enumerate().map(node).collect();
    let linked =
        |place: u32| nodes.get(place as usize).copied().context("a link of a part has no node");
    let edge = |(at, &slot)| -> Result<Edge> {
        Ok(Edge {
            child: linked(row.children[at])?,
            parent: linked(row.parents[at])?,
            slot,
            effect: row.effects[at],
            share: row.shares[at],
        })
    };
    let edges = row.slots.iter().enumerate().map(edge).collect::<Result<Vec<_>>>()?;
    let activations = row.activations.iter().map(|own| Some(*own).filter(|own| !own.is_nan()));
    let sides = || [&row.right, &row.wrong].map(|side| side.iter().copied().collect());
    Ok(Circuit {
        activations: activations.collect(),
        found: PrunedGraph { graph: Graph { nodes, edges }, left_out: row.left_out },
        contrast: row.contrast.then(sides),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeKind, Slot};

    fn score(task: &str, prompt: u32) -> PromptScoreRow {
        PromptScoreRow {
            task: task.into(),
            prompt,
            logit_difference: 0.0,
            metric: 0.0,
            answers: vec![1, 2],
            answer_probabilities: vec![0.5, 0.25],
            used: true,
            dictionaries: vec![0, 3],
            features: vec![7, 8],
            scores: vec![1.0, -1.0],
            errors: vec![0.0; 4],
        }
    }

    #[test]
    fn scores_of_other_prompts_or_too_few_are_not_those_of_a_part() {
        let are = |rows: &[PromptScoreRow]| scores_are_of(rows, "ioi", 2..4, 4);
        let whole = || vec![score("ioi", 2), score("ioi", 3)];
        assert!(are(&whole()));
        assert!(!are(&[]) && !are(&whole()[..1]) && !are(&[whole(), whole()].concat()));
        assert!(!are(&[score("ioi", 3), score("ioi", 2)]));
        assert!(!are(&[score("ioi", 2), score("other", 3)]));
        assert!(!scores_are_of(&whole(), "ioi", 2..4, 6), "of fewer dictionaries");
        let damages: [fn(&mut PromptScoreRow); 4] = [
            |row| row.scores.truncate(1),
            |row| row.features.truncate(1),
            |row| row.answer_probabilities.truncate(1),
            |row| row.errors.clear(),
        ];
        for damage in damages {
            let mut rows = whole();
            damage(&mut rows[1]);
            assert!(!are(&rows));
        }
    }

    fn circuit(task: &str, prompt: u32) -> PromptCircuitRow {
        PromptCircuitRow {
            task: task.into(),
            prompt,
            logit_difference: 0.0,
            metric: 0.0,
            answers: vec![1],
            answer_probabilities: vec![0.5],
            used: true,
            left_out: None,
            kinds: vec![NodeKind::Root, NodeKind::Embedding],
            layers: vec![NONE, NONE],
            positions: vec![NONE, 0],
            sources: vec![NONE, NONE],
            heads: vec![NONE, NONE],
            indices: vec![NONE, NONE],
            activations: vec![f32::NAN, f32::NAN],
            children: vec![1],
            parents: vec![0],
            slots: vec![Slot::In],
            effects: vec![1.0],
            shares: vec![1.0],
            contrast: false,
            right: Vec::new(),
            wrong: Vec::new(),
        }
    }

    #[test]
    fn circuits_of_other_prompts_or_with_links_of_nothing_are_not_those_of_a_part() {
        let are = |rows: &[PromptCircuitRow]| circuits_are_of(rows, "ioi", 2..4);
        let whole = || vec![circuit("ioi", 2), circuit("ioi", 3)];
        assert!(are(&whole()));
        assert!(!are(&[]) && !are(&whole()[..1]) && !are(&[whole(), whole()].concat()));
        assert!(!are(&[circuit("other", 2), circuit("ioi", 3)]));
        let damages: [fn(&mut PromptCircuitRow); 5] = [
            |row| row.parents[0] = 2,
            |row| row.layers.truncate(1),
            |row| row.activations.truncate(1),
            |row| row.effects.clear(),
            |row| row.children.clear(),
        ];
        for damage in damages {
            let mut rows = whole();
            damage(&mut rows[0]);
            assert!(!are(&rows));
        }
    }
}
