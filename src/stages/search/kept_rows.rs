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
