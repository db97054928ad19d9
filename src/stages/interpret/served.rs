//! What features do in the circuits of single prompts: at which positions they serve, and what they
//! feed.

use crate::artifact::tables::{EdgeRow, NodeRow, PromptRow};
use crate::atlas::{Heads, node};
use crate::config::Task;
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{FeatureId, NodeKind, Slot};
use crate::inputs::by;
use crate::llm::explainer::ServedPrompt;
use crate::stages::Run;
use crate::stages::excerpts::excerpt;
use std::collections::BTreeMap;

/// Prompts that are told, and what is fed in each.
const PROMPTS: usize = 3;
const FEEDS: usize = 3;

/// A task and the number of a prompt.
type Prompt = (String, u32);

/// A feature in the circuit of a prompt.
struct Serving {
    prompt: Prompt,
    node: u32,
    position: u32,
    activation: f32,
}

/// All circuits, by feature.
pub(super) struct Served {
    servings: BTreeMap<FeatureId, Vec<Serving>>,
    prompts: BTreeMap<Prompt, ToldPrompt>,
    /// What each node feeds, the largest share first.
    feeds: BTreeMap<(Prompt, u32), Vec<String>>,
    tokenizer: Tokenizer,
}

/// A prompt with what stands at its positions.
struct ToldPrompt {
    tokens: Vec<u32>,
    pieces: Vec<String>,
    roles: Vec<String>,
    template: String,
}

impl Served {
    pub(super) fn load(run: &Run, tokenizer: &Tokenizer, heads: &Heads) -> Result<Served> {
        let nodes = by(run.store.read()?, |row: &NodeRow| (row.task.clone(), row.prompt));
        let mut servings: BTreeMap<FeatureId, Vec<Serving>> = BTreeMap::new();
        for (prompt, rows) in &nodes {
            for row in rows {
                let Some((feature, activation)) =
                    node(row).dictionary_feature().zip(row.activation)
                else {
                    continue;
                };
                servings.entry(feature).or_default().push(Serving {
                    prompt: prompt.clone(),
                    node: row.node,
                    position: row.position,
                    activation,
                });
            }
        }
        let mut edges: Vec<EdgeRow> = run.store.read()?;
        edges.sort_by(|a, b| b.share.total_cmp(&a.share));
        let mut feeds: BTreeMap<(Prompt, u32), Vec<String>> = BTreeMap::new();
        for edge in &edges {
            let prompt = (edge.task.clone(), edge.prompt);
            let receiver = nodes.get(&prompt).and_then(|rows| {
                rows.binary_search_by_key(&edge.to, |row| row.node).ok().map(|at| &rows[at])
            });
            let own = feeds.entry((prompt, edge.from)).or_default();
            let told = receiver.map(|row| receives(row, edge.slot));
            if let Some(told) = told.filter(|told| own.len() < FEEDS && !own.contains(told)) {
                own.push(told);
            }
        }
        let mut prompts = BTreeMap::new();
        for row in run.store.read::<PromptRow>()? {
            let role = |p: usize| match heads.role(&row.task, &row.template, p) {
                Some(role) if p + 1 < row.tokens.len() => role.said(),
                Some(role) => format!("the last token, {}", role.said()),
                None => format!("position {p}"),
            };
            let told = ToldPrompt {
                roles: (0..row.tokens.len()).map(role).collect(),
                pieces: row.tokens.iter().map(|id| tokenizer.token(*id)).collect(),
                tokens: row.tokens,
                template: row.template,
            };
            prompts.insert((row.task, row.prompt), told);
        }
        Ok(Served { servings, prompts, feeds, tokenizer: tokenizer.clone() })
    }

    /// Prompts in whose circuits a feature is, those first in which it is most active, of templates
    /// of their own.
    pub(super) fn of(&self, feature: FeatureId, max: f32, tasks: &[Task]) -> Vec<ServedPrompt> {
        let all = self.servings.get(&feature).map(Vec::as_slice).unwrap_or_default();
        let mut by_prompt: BTreeMap<&Prompt, Vec<&Serving>> = BTreeMap::new();
        all.iter().for_each(|one| by_prompt.entry(&one.prompt).or_default().push(one));
        let largest =
            |own: &Vec<&Serving>| own.iter().map(|one| one.activation).fold(0.0, f32::max);
        let mut order: Vec<(&Prompt, Vec<&Serving>)> = by_prompt.into_iter().collect();
        order.sort_by(|a, b| largest(&b.1).total_cmp(&largest(&a.1)).then(a.0.cmp(b.0)));
        let mut templates = Vec::new();
        order.retain(|(prompt, _)| {
            let template = self.prompts.get(*prompt).map(|told| (&prompt.0, &told.template));
            let fresh = !templates.contains(&template);
            templates.push(template);
            fresh
        });
        let told = |(prompt, own): (&Prompt, Vec<&Serving>)| {
            let text = self.prompts.get(prompt)?;
            let task = tasks.iter().find(|task| task.name == prompt.0)?;
            Some(self.told(text, task, &own, max))
        };
        order.into_iter().filter_map(told).take(PROMPTS).collect()
    }

    fn told(&self, prompt: &ToldPrompt, task: &Task, own: &[&Serving], max: f32) -> ServedPrompt {
        let mut activations = vec![0.0; prompt.tokens.len()];
        let (mut at, mut feeds) = (Vec::new(), Vec::new());
        for one in own {
            let position = one.position as usize;
            activations[position] = one.activation;
            let role = &prompt.roles[position];
            let token = &prompt.pieces[position];
            at.push(match role.contains(token.trim()) {
                true => role.clone(),
                false => format!("{} ({role})", crate::summary::quoted(token)),
            });
            let fed = self.feeds.get(&(one.prompt.clone(), one.node)).into_iter().flatten();
            for receiver in fed {
                if !feeds.contains(receiver) && feeds.len() < FEEDS {
                    feeds.push(receiver.clone());
                }
            }
        }
        let text = excerpt(&prompt.tokens, &activations, &self.tokenizer);
        let text = crate::llm::Excerpt { begins: true, ..text };
        ServedPrompt {
            task: super::sets::what(task.kind).into(),
            text: text.scaled(max, 1),
            at,
            feeds,
        }
    }
}

/// What a node that is fed is called.
fn receives(row: &NodeRow, slot: Slot) -> String {
    let layer = row.layer.unwrap_or_default();
    match (row.kind, node(row).dictionary_feature()) {
        (NodeKind::Root, _) => "the answer".into(),
        (_, Some(feature)) => feature.to_string(),
        (NodeKind::Head, _) => {
            let head = row.head.unwrap_or_default();
            let slot = match slot {
                Slot::Q => ", where it looks (query)",
                Slot::K => ", whether it is looked at (key)",
                Slot::V => ", what is moved (value)",
                Slot::In => "",
            };
            format!("head L{layer}H{head}{slot}")
        }
        (kind, _) => format!("{} of layer {layer}", kind.to_string().replace('_', " ")),
    }
}
