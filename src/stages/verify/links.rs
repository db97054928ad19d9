//! The strongest links, each tested by an intervention in a few prompts.

use super::{TaskRun, prompt};
use crate::artifact::tables::{EffectRow, FaithfulnessRow, PromptRow, TESTED_LINKS};
use crate::circuit::effects::{Effect, TestedLink, effects};
use crate::circuit::features::{self, FeatureAblation};
use crate::circuit::{self, Ablate, Attribution, Node, Pass};
use crate::config::DiscoveryMethod;
use crate::error::Result;
use crate::ids::{Component, FeatureId};
use crate::ids::{NodeKind, Slot};
use crate::inputs;
use crate::stats::agreement::{correlation, rank_correlation};
use crate::stats::interval::Estimate;
use crate::task::Prompt;
use rayon::prelude::*;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Prompts in which a link of a task is run, spread from those where its share is largest to those
/// where it is smallest.
pub(super) const PROMPTS_A_LINK: usize = 5;

/// Prompts in a part of what is kept.
const LINKED: usize = 8;

/// Parts of a task's prompts, at most.
pub(super) fn parts(prompts: usize) -> u32 {
    prompts.div_ceil(LINKED) as u32
}

/// A link of a task: from a feature to a receiver, at any position.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskLink {
    feature: FeatureId,
    receiver: Node,
    slot: Slot,
}

/// A link in one prompt.
pub(super) struct PromptLink<'a> {
    prompt: &'a PromptRow,
    /// Of the nodes that it links, in the prompt's circuit.
    numbers: (u32, u32),
    share: f32,
    link: TestedLink,
}

/// A link that is run: its rank, the number of prompts that have it, and its place in a prompt.
type Chosen<'c> = (usize, u32, &'c TaskLink, &'c PromptLink<'c>);

/// A prompt with the links that are run in it.
type InPrompt<'c> = (&'c u32, &'c Vec<Chosen<'c>>);

impl PromptLink<'_> {
    /// The link with its direct effect in the clean run, and the sum of the sizes of all effects on
    /// what it enters. Circuits that grow along direct effects have these; those of the gradient
    /// are in the metric's unit, so they are taken from `clean`.
    pub(super) fn direct(
        &self,
        clean: Option<&Attribution>,
        root: circuit::Root,
    ) -> Result<(TestedLink, f32)> {
        let Some(clean) = clean else {
            return Ok((self.link, self.link.effect.abs() / self.share));
        };
        let TestedLink { child, parent, slot, .. } = self.link;
        let all = if parent == Node::ROOT {
            clean.on_root(root)?
        } else {
            clean.contributions(&parent, slot)?
        };
        let at = all.nodes.iter().position(|node| *node == child);
        let effect = at.map_or(0.0, |at| all.effects[at]);
        Ok((TestedLink { effect, ..self.link }, all.whole() as f32))
    }
}

impl TaskRun<'_> {
    /// The strongest links from features, each run in a few prompts; and how well prediction and
    /// measurement agree.
    pub(super) fn links(&self) -> Result<(Vec<EffectRow>, Vec<FaithfulnessRow>)> {
        let mut strongest: Vec<(TaskLink, Vec<PromptLink>)> =
            self.task_links()?.into_iter().collect();
        let strength =
            |places: &[PromptLink]| places.iter().map(|p| f64::from(p.share)).sum::<f64>();
        strongest.sort_by(|a, b| strength(&b.1).total_cmp(&strength(&a.1)).then(a.0.cmp(&b.0)));
        strongest.truncate(self.run.config.verify.edges);
        let mut chosen: BTreeMap<u32, Vec<Chosen>> = BTreeMap::new();
        for (rank, (link, places)) in strongest.iter_mut().enumerate() {
            places.sort_by(|a, b| {
                b.share.total_cmp(&a.share).then(a.prompt.prompt.cmp(&b.prompt.prompt))
            });
            let mut seen = BTreeSet::new();
            places.retain(|place| seen.insert(place.prompt.prompt));
            let runs = PROMPTS_A_LINK.min(places.len());
            // Strata of their strength, so that one prompt comes from each part.
            for place in (0..runs).map(|i| &places[i * places.len() / runs]) {
                chosen.entry(place.prompt.prompt).or_default().push((
                    rank,
                    places.len() as u32,
                    link,
                    place,
                ));
            }
        }
        let rows = self.run_links(&chosen)?;
        let agreement = self.agreement(&rows, strongest.len());
        Ok((rows, agreement))
    }

    pub(super) fn task_links(&self) -> Result<BTreeMap<TaskLink, Vec<PromptLink<'_>>>> {
        let mut links: BTreeMap<TaskLink, Vec<PromptLink>> = BTreeMap::new();
        for prompt in self.found.prompts(&self.task.name) {
            let key = (prompt.task.clone(), prompt.prompt);
            let Some(circuit) = self.found.circuits.get(&key) else { continue };
            for own in &circuit.links {
                let (child, parent) = (circuit.nodes[own.from], circuit.nodes[own.to]);
                let activation = circuit.activations[own.from];
                let (Some(feature), Some(activation)) = (child.dictionary_feature(), activation)
                else {
                    continue;
                };
                // What is inactive in the clean prompt has no direct effect there that could be
                // taken away.
                if activation == 0.0 {
                    continue;
                }
                let receiver = Node { position: None, source: None, ..parent };
                let slot = own.slot;
                let link = TestedLink { child, activation, parent, slot, effect: own.effect };
                links.entry(TaskLink { feature, receiver, slot }).or_default().push(PromptLink {
                    prompt,
                    numbers: (own.from as u32, own.to as u32),
                    share: own.share,
                    link,
                });
            }
        }
        Ok(links)
    }

    pub(super) fn run_links(&self, chosen: &BTreeMap<u32, Vec<Chosen>>) -> Result<Vec<EffectRow>> {
        let chosen: Vec<InPrompt> = chosen.iter().collect();
        self.run.progress.begin("prompts with tested links", chosen.len() as u64, 0);
        let (values, mut rows) = (OnceCell::new(), Vec::new());
        for (part, some) in (self.first.links..).zip(chosen.chunks(LINKED)) {
            if !self.run.has(part) {
                continue;
            }
            let is_whole = |rows: &[EffectRow]| are_of(rows, some);
            let make = || self.run_some(some, &values);
            rows.extend(self.run.part(&TESTED_LINKS, part, is_whole, make)?);
        }
        Ok(rows)
    }

    fn run_some(
        &self,
        chosen: &[InPrompt],
        values: &OnceCell<Vec<Arc<FeatureAblation>>>,
    ) -> Result<Vec<EffectRow>> {
        let number: Vec<&Prompt> = chosen
            .iter()
            .map(|(_, links)| prompt(self.prompts, links[0].3.prompt))
            .collect::<Result<_>>()?;
        let place_of: BTreeMap<u32, usize> = self
            .found
            .prompts(&self.task.name)
            .enumerate()
            .map(|(i, row)| (row.prompt, i))
            .collect();
        let ablation_values = match values.get() {
            Some(values) => values,
            None => {
                let (all, seed) = (&self.all, self.task.seed);
                let made = features::ablation_values(self.replacement, all, Ablate::Mean, seed)?;
                values.get_or_init(|| made)
            }
        };
        let (run, replacement) = (self.run, self.replacement);
        let one = |i: usize, pass: Option<Pass>| -> Result<Vec<EffectRow>> {
            let (&(id, links), prompt) = (&chosen[i], number[i]);
            let root = inputs::root(run.config.discover.root, prompt);
            let direct =
                pass.map(|pass| Attribution::of(replacement, pass, &prompt.tokens)).transpose()?;
            let each = links.iter().map(|(_, _, _, place)| place.direct(direct.as_ref(), root));
            let (each, totals): (Vec<TestedLink>, Vec<f32>) =
                each.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            let held = &ablation_values[place_of[id]];
            let measured = effects(replacement, &prompt.tokens, root, held, &each)?;
            run.progress.step(1)?;
            let rows = links.iter().zip(each.iter().zip(totals)).zip(measured);
            Ok(rows
                .map(|(((rank, prompts, link, place), at), effect)| {
                    effect_row(*rank, *prompts, link, place, at, effect)
                })
                .collect())
        };
        let mut rows = Vec::new();
        if run.config.discover.method == DiscoveryMethod::Gradient {
            let tokens: Vec<&[u32]> =
                number.iter().map(|prompt| prompt.tokens.as_slice()).collect();
            replacement.over(&tokens, |i, pass| one(i, Some(pass)), |_, own| rows.extend(own))?;
        } else {
            let each = (0..chosen.len()).into_par_iter().map(|i| one(i, None));
            rows.extend(each.collect::<Result<Vec<_>>>()?.into_iter().flatten());
        }
        Ok(rows)
    }

    /// Predicted and measured changes as shares of all that their receivers read, over all links
    /// run.
    pub(super) fn agreement(&self, rows: &[EffectRow], links: usize) -> Vec<FaithfulnessRow> {
        let share = |x: f32, row: &EffectRow| f64::from(x) / f64::from(row.total);
        let (predicted, measured): (Vec<f64>, Vec<f64>) =
            rows.iter().map(|row| (share(row.predicted, row), share(row.measured, row))).unzip();
        let variant = format!("strongest {links}");
        let row = |metric: &str, value: Option<f64>| {
            let estimate = value.map(Estimate::exact);
            FaithfulnessRow {
                level: "link".into(),
                ablation: "mean".into(),
                ..self.compared(&variant, links, metric, estimate)
            }
        };
        vec![
            row("correlation", correlation(&predicted, &measured)),
            row("rank_correlation", rank_correlation(&predicted, &measured)),
        ]
    }
}

/// Whether the rows of a part are of the links of these prompts, in their order.
fn are_of(rows: &[EffectRow], chosen: &[InPrompt]) -> bool {
    let row = |row: &EffectRow| (row.rank, row.prompt, row.from, row.to);
    let link = |(rank, _, _, place): &Chosen| {
        (*rank as u32, place.prompt.prompt, place.numbers.0, place.numbers.1)
    };
    let tasks = || chosen.iter().flat_map(|(_, links)| links.iter().map(|one| &one.3.prompt.task));
    let links = chosen.iter().flat_map(|(_, links)| links.iter().map(link));
    rows.iter().map(row).eq(links) && rows.iter().map(|row| &row.task).eq(tasks())
}

pub(super) fn effect_row(
    rank: usize,
    prompts: u32,
    link: &TaskLink,
    place: &PromptLink,
    (at, total): (&TestedLink, f32),
    effect: Effect,
) -> EffectRow {
    let PromptLink { prompt, numbers, .. } = place;
    EffectRow {
        task: prompt.task.clone(),
        rank: rank as u32,
        prompt: prompt.prompt,
        from: numbers.0,
        to: numbers.1,
        slot: link.slot,
        feature: link.feature,
        receiver: receiver(&link.receiver),
        prompts,
        activation: at.activation,
        mean: effect.replaced,
        effect: at.effect,
        predicted: effect.predicted,
        measured: effect.measured,
        total,
        root: effect.root,
    }
}

/// What receives, in words.
pub(super) fn receiver(node: &Node) -> String {
    let served = |component: Component| match node.served() {
        Some(feature) => format!("{component} for {feature}"),
        None => format!("{component} for an error"),
    };
    match (node.kind, node.dictionary_feature(), node.component()) {
        (_, Some(feature), _) => feature.to_string(),
        (NodeKind::Head, _, Some(head)) => served(head),
        (NodeKind::AttentionError, ..) => format!("error of att{}", node.layer()),
        _ => "root".into(),
    }
}
