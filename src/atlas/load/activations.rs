//! What scores are made into: the statistics of features, and examples around their peaks.

use crate::artifact::tables::{CircuitFeature, ExampleRow, FeatureRow, ScoreRow};
use crate::artifact::{Row, Store};
use crate::error::Result;
use crate::ids::{Band, Component, FeatureId, Half, Subject};
use crate::inputs::Contexts;
use crate::stats::examples::{Chosen, Peak, Used, Wanted, choose, labelled, peaks, top, window};
use crate::stats::feature::{Statistics, TokenActivation, statistics};
use crate::stats::joint::summed;
use std::collections::{BTreeMap, BTreeSet};

/// Tokens listed with their share of a feature's activation.
const MASS: usize = 8;

pub(crate) fn activation(row: &ScoreRow) -> TokenActivation {
    TokenActivation { context: row.context, position: row.position, activation: row.activation }
}

/// The scores of a few features, by key; each by context and position.
pub(crate) fn of(
    store: &Store,
    keys: &BTreeSet<u32>,
) -> Result<BTreeMap<u32, Vec<TokenActivation>>> {
    let mut activations: BTreeMap<u32, Vec<TokenActivation>> =
        keys.iter().map(|key| (*key, Vec::new())).collect();
    for part in store.parts(&ScoreRow::ARTIFACT)? {
        for row in store.read_part_of::<ScoreRow>(part, "feature", keys)? {
            activations.entry(row.feature).or_default().push(activation(&row));
        }
    }
    Ok(activations)
}

/// The activations at tokens that count.
pub(crate) fn counting<'a>(
    contexts: &'a Contexts,
    activations: &'a [TokenActivation],
) -> impl Iterator<Item = TokenActivation> + 'a {
    let counts = |f: &&TokenActivation| contexts.counting(f.context, f.position).is_some();
    activations.iter().filter(counts).copied()
}

/// The statistics of a feature on contexts with so many tokens that count, and on those of the
/// *explain* half among them.
pub(crate) fn measured(
    contexts: &Contexts,
    activations: &[TokenActivation],
    [all, explain]: [u64; 2],
) -> [Statistics; 2] {
    let counts = |c: u32, p: u16| contexts.counting(c, p);
    let seen = |c: u32, p: u16| counts(c, p).filter(|_| contexts.explain[c as usize]);
    [statistics(activations, all, counts, MASS), statistics(activations, explain, seen, MASS)]
}

/// A feature's row: its statistics, whether it has a page, where it serves, and in which of
/// the tasks.
pub(crate) fn feature_row(
    key: u32,
    feature: FeatureId,
    page: bool,
    [s, explain]: [&Statistics; 2],
    serving: &[&CircuitFeature],
    tasks: impl Iterator<Item = String>,
) -> FeatureRow {
    let components: BTreeSet<Component> = serving.iter().map(|row| row.component).collect();
    FeatureRow {
        key,
        feature,
        page,
        kind: feature.dictionary.kind,
        layer: feature.dictionary.layer as u32,
        index: feature.index as u32,
        active: s.active,
        density: s.density,
        mean_active: s.mean_active,
        max: s.max,
        special_active: s.special_active,
        histogram: s.histogram.clone(),
        tasks: tasks.filter(|task| serving.iter().any(|row| row.task == *task)).collect(),
        components: components.into_iter().collect(),
        mass_tokens: s.mass.iter().map(|(id, _)| *id).collect(),
        mass_shares: s.mass.iter().map(|(_, share)| *share).collect(),
        explain_tokens: explain.mass.iter().map(|(id, _)| *id).collect(),
        explain_shares: explain.mass.iter().map(|(_, share)| *share).collect(),
        explain_density: explain.density,
    }
}

/// The examples of a feature, from its activations at tokens that count, in the contexts of each
/// half.
pub(crate) fn feature_examples(
    contexts: &Contexts,
    feature: FeatureId,
    activations: &[TokenActivation],
    halves: &[Vec<u32>; 2],
    wanted: Wanted,
) -> Vec<ExampleRow> {
    let all = peaks(activations.iter().copied());
    let info = |context| contexts.info(context);
    let of_half = |(explain, half): (bool, &Vec<u32>)| {
        choose(&own(contexts, &all, explain), half, &info, wanted, feature.salt())
    };
    let chosen = [true, false].into_iter().zip(halves).flat_map(of_half);
    let subject = Subject::from(feature);
    let mut rows: Vec<ExampleRow> =
        chosen.map(|example| example_row(contexts, &subject, &example, activations)).collect();
    sort(&mut rows);
    rows
}

/// As the examples of a subject are in their table.
pub(crate) fn sort(examples: &mut [ExampleRow]) {
    examples.sort_by_cached_key(|row| (row.half, row.band.to_string(), row.rank));
}

/// The `most` strongest examples of each half, of features together.
pub(crate) fn joint_examples(
    contexts: &Contexts,
    subject: &Subject,
    activations: &[TokenActivation],
    most: usize,
) -> Vec<ExampleRow> {
    let chosen = strongest_peaks(contexts, &peaks(activations.iter().copied()), most);
    let row = |example| example_row(contexts, subject, example, activations);
    let mut rows: Vec<ExampleRow> = chosen.iter().map(row).collect();
    sort(&mut rows);
    rows
}

/// The `most` strongest of each half.
pub(crate) fn strongest_peaks(contexts: &Contexts, all: &[Peak], most: usize) -> Vec<Chosen> {
    let info = |context| contexts.info(context);
    let of_half = |explain: bool| {
        let best = top(&own(contexts, all, explain), &info, most, &mut Used::default());
        labelled(Band::Top, best)
    };
    [true, false].into_iter().flat_map(of_half).collect()
}

/// The peaks of one half.
fn own(contexts: &Contexts, peaks: &[Peak], explain: bool) -> Vec<Peak> {
    let own = |peak: &&Peak| contexts.explain[peak.context as usize] == explain;
    peaks.iter().filter(own).copied().collect()
}

/// A feature of several that are looked at together.
pub(crate) struct Part {
    /// At tokens that count.
    pub activations: Vec<TokenActivation>,
    /// The largest of them.
    pub max: f64,
    pub weight: f64,
}

/// The activations of several features as one: each scaled by its maximum and, if `weighted`, by
/// its weight over the largest.
pub(crate) fn together(parts: &[Part], weighted: bool) -> Vec<TokenActivation> {
    let largest = parts.iter().map(|part| part.weight).fold(0.0, f64::max);
    let scaled = |part: &'_ Part| {
        let scale = if weighted { part.weight / largest / part.max } else { 1.0 / part.max };
        (part.max > 0.0).then_some(scale)
    };
    let each = parts.iter().filter_map(|part| Some((part.activations.as_slice(), scaled(part)?)));
    summed(&each.collect::<Vec<_>>())
}

/// A window around a chosen peak, with the activations in it.
pub(crate) fn example_row(
    contexts: &Contexts,
    subject: &Subject,
    example: &Chosen,
    activations: &[TokenActivation],
) -> ExampleRow {
    let peak = example.peak;
    let row = &contexts.rows[peak.context as usize];
    let (start, end) = window(peak.position as usize, row.tokens.len());
    let mut values = vec![0.0; end - start];
    let first =
        activations.partition_point(|f| (f.context, f.position) < (peak.context, start as u16));
    let inside = |f: &&TokenActivation| f.context == peak.context && (f.position as usize) < end;
    for activation in activations[first..].iter().take_while(inside) {
        values[activation.position as usize - start] = activation.activation;
    }
    let half = if contexts.explain[peak.context as usize] { Half::Explain } else { Half::Score };
    let begin = activations.partition_point(|f| f.context < peak.context);
    let whole = activations[begin..].iter().take_while(|f| f.context == peak.context);
    let (active, active_values) = whole.map(|f| (u32::from(f.position), f.activation)).unzip();
    ExampleRow {
        subject: subject.clone(),
        half,
        band: example.band,
        rank: example.rank,
        context: peak.context,
        document: row.document,
        peak: peak.position,
        value: peak.value,
        tokens: row.tokens[start..end].to_vec(),
        activations: values,
        start: start as u16,
        length: row.tokens.len() as u16,
        active,
        active_values,
    }
}
