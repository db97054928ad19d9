//! Heads, put together from what was measured over prompts and from what circuits say of them.

use super::Circuits;
use crate::artifact::Store;
use crate::artifact::tables::{
    AttentionRow, CircuitFeature, CopyRow, HeadFeatureRow, HeadRow, PromptRow, PublishedRow,
};
use crate::atlas::model::{
    Attention, AttentionShares, Contributor, CopiedToken, Copying, Head, HeadFeature, Link, Move,
    Node, PublishedClass, Role, What,
};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{Component, FeatureId, NodeKind, Slot};
use crate::inputs::by;
use std::collections::{BTreeMap, BTreeSet};

/// Contributors of a slot that are kept.
const CONTRIBUTORS: usize = 10;

/// A task and a component of its circuits.
type InTask = (String, Component);
/// Destination and source.
type Arc = (u32, u32);
/// By template and arc: the prompts whose circuits have it.
type Arcs = BTreeMap<(String, Arc), BTreeSet<u32>>;

/// Everything about heads, by what it is looked up by.
pub(crate) struct Heads {
    heads: BTreeMap<InTask, HeadRow>,
    attention: BTreeMap<InTask, Vec<AttentionRow>>,
    copies: BTreeMap<InTask, Vec<CopyRow>>,
    features: BTreeMap<Component, Vec<HeadFeatureRow>>,
    published: Vec<PublishedRow>,
    templates: BTreeMap<(String, String), Template>,
    arcs: BTreeMap<InTask, Arcs>,
    contributors: BTreeMap<(InTask, Slot), Vec<Contributor>>,
}

/// What stands at the positions of a template's prompts.
struct Template {
    /// Of the first prompt.
    tokens: Vec<String>,
    roles: Vec<Role>,
}

impl Template {
    fn new(prompts: &[&PromptRow], tokenizer: &Tokenizer) -> Template {
        let first = &prompts[0].tokens;
        let tokens: Vec<String> = first.iter().map(|id| tokenizer.token(*id)).collect();
        let all = |p: usize, of: &dyn Fn(&PromptRow) -> u32| {
            prompts.iter().all(|row| row.tokens.get(p) == Some(&of(row)))
        };
        let right: Vec<usize> = (1..first.len()).filter(|&p| all(p, &|row| row.correct)).collect();
        let wrong: Vec<usize> = (1..first.len()).filter(|&p| all(p, &|row| row.counter)).collect();
        // Which time it comes, if it comes more than once.
        let time = |places: &[usize], p: usize| {
            let at = places.iter().position(|place| *place == p)?;
            Some((places.len() > 1).then_some(at as u32 + 1))
        };
        let role = |p: usize| match (time(&right, p), time(&wrong, p)) {
            _ if p == 0 => Role::Bos,
            (Some(time), _) => Role::Correct(time),
            (_, Some(time)) => Role::Counter(time),
            _ if all(p, &|_| first[p]) => Role::Same(tokens[p].clone()),
            _ => Role::Varies(tokens[p].clone()),
        };
        let roles = (0..first.len()).map(role).collect();
        Template { tokens, roles }
    }
}

impl Heads {
    /// Reads what the stage before wrote; prompts and circuits have been read already.
    pub(crate) fn load(
        store: &Store,
        tokenizer: &Tokenizer,
        prompts: &[PromptRow],
        circuits: &Circuits,
    ) -> Result<Heads> {
        let mut of_template: BTreeMap<(String, String), Vec<&PromptRow>> = BTreeMap::new();
        for row in prompts.iter().filter(|row| row.used) {
            of_template.entry((row.task.clone(), row.template.clone())).or_default().push(row);
        }
        let heads = store.read::<HeadRow>()?.into_iter();
        Ok(Heads {
            heads: heads.map(|row| ((row.task.clone(), row.component), row)).collect(),
            attention: by(store.read()?, |row: &AttentionRow| (row.task.clone(), row.component)),
            copies: by(store.read()?, |row: &CopyRow| (row.task.clone(), row.component)),
            features: by(store.read()?, |row: &HeadFeatureRow| row.component),
            published: store.read()?,
            templates: of_template
                .into_iter()
                .map(|(key, rows)| (key, Template::new(&rows, tokenizer)))
                .collect(),
            arcs: arcs(prompts, circuits),
            contributors: contributors(circuits),
        })
    }

    /// What stands at a position of a template's prompts.
    pub(crate) fn role(&self, task: &str, template: &str, position: usize) -> Option<&Role> {
        self.templates.get(&(task.into(), template.into()))?.roles.get(position)
    }

    /// A head in each task whose circuits have it; empty for an MLP.
    pub(crate) fn of(&self, component: Component, tokenizer: &Tokenizer) -> Vec<Head> {
        let own = self.heads.iter().filter(|((_, of), _)| *of == component);
        own.map(|(place, row)| self.head(place, row, tokenizer)).collect()
    }

    fn head(&self, place: &InTask, row: &HeadRow, tokenizer: &Tokenizer) -> Head {
        let copies = self.copies.get(place).into_iter().flatten();
        let slot =
            |slot| self.contributors.get(&(place.clone(), slot)).cloned().unwrap_or_default();
        let attention = self.attention.get(place).into_iter().flatten();
        Head {
            task: row.task.clone(),
            prompts: row.prompts,
            moves: self.moves(place),
            habits: habits(row),
            attention: attention.filter_map(|row| self.attention(place, row)).collect(),
            tokens: row.tokens,
            copying: Copying { raised: row.copy_score, lowered: row.lower_score },
            answers: Copying { raised: row.answers_copy_score, lowered: row.answers_lower_score },
            own_rank: row.own_rank,
            copies: copies.map(|row| copied(row, tokenizer)).collect(),
            contributors: [Slot::Q, Slot::K, Slot::V].map(slot),
        }
    }

    fn attention(&self, place: &InTask, row: &AttentionRow) -> Option<Attention> {
        let template = self.templates.get(&(row.task.clone(), row.template.clone()))?;
        let arcs = self
            .arcs
            .get(place)
            .into_iter()
            .flatten()
            .filter(|((template, _), _)| *template == row.template);
        Some(Attention {
            template: row.template.clone(),
            prompts: row.prompts,
            tokens: template.tokens.iter().cloned().zip(template.roles.iter().cloned()).collect(),
            pattern: row.pattern.clone(),
            moves: arcs
                .map(|((_, (to, from)), prompts)| (*to, *from, prompts.len() as u32))
                .collect(),
        })
    }

    /// The arcs of all templates by what stands at their ends.
    fn moves(&self, place: &InTask) -> Vec<Move> {
        let mut found: BTreeMap<(Role, Role, bool), Carried> = BTreeMap::new();
        for ((template, (to, from)), prompts) in self.arcs.get(place).into_iter().flatten() {
            let Some(roles) =
                self.templates.get(&(place.0.clone(), template.clone())).map(|of| &of.roles)
            else {
                continue;
            };
            let (Some(to_role), Some(from_role)) =
                (roles.get(*to as usize), roles.get(*from as usize))
            else {
                continue;
            };
            let last = *to as usize + 1 == roles.len();
            let carried = found.entry((from_role.clone(), to_role.clone(), last)).or_default();
            carried.prompts.extend(prompts);
            if let Some(attention) = self.attention_at(place, template, (*to, *from), roles.len()) {
                carried.attention += attention * prompts.len() as f64;
                carried.known += prompts.len();
            }
        }
        let mut moves: Vec<Move> =
            found.into_iter().map(|(ends, carried)| carried.into_move(ends)).collect();
        // Stable: of as many prompts, in the order of roles.
        moves.sort_by_key(|m| std::cmp::Reverse(m.prompts));
        moves
    }

    /// Mean attention over a template's prompts of `t` tokens, if it was kept.
    fn attention_at(
        &self,
        place: &InTask,
        template: &str,
        (to, from): Arc,
        t: usize,
    ) -> Option<f64> {
        let row = self.attention.get(place)?.iter().find(|row| row.template == template)?;
        row.pattern.get(to as usize * t + from as usize).copied().map(f64::from)
    }

    /// The features of a head by their share of decoder norm in it.
    pub(crate) fn features(
        &self,
        component: Component,
        serving: &[CircuitFeature],
    ) -> Vec<HeadFeature> {
        let serves = |feature: FeatureId| {
            let own = serving.iter().filter(|row| row.feature == feature);
            own.map(|row| (row.task.clone(), row.prompts)).collect()
        };
        let one = |row: &HeadFeatureRow| HeadFeature {
            feature: row.feature,
            share: row.share,
            rank: row.rank,
            serves: serves(row.feature),
        };
        self.features.get(&component).into_iter().flatten().map(one).collect()
    }

    /// What the published circuit of each task that has one says of a component.
    pub(crate) fn classes(&self, component: Component) -> Vec<PublishedClass> {
        let _name = component.to_string();
        let mut classes: Vec<PublishedClass> = Vec::new();
        for row in &self.published {
            if classes.last().is_none_or(|class| class.task != row.task) {
                classes.push(PublishedClass {
                    task: row.task.clone(),
                    published: row.source.clone(),
                    class: None,
                });
            }
            if row.component == component
                && let Some(last) = classes.last_mut()
            {
                last.class = Some(row.class.clone());
            }
        }
        classes
    }

    /// The same for one task.
    pub(crate) fn class(&self, task: &str, component: Component) -> Option<String> {
        let own = self.published.iter().find(|row| row.task == task && row.component == component);
        own.map(|row| row.class.clone())
    }
}

/// A move as it grows.
#[derive(Default)]
struct Carried {
    prompts: BTreeSet<u32>,
    /// Summed over prompts whose attention is known, and how many they are.
    attention: f64,
    known: usize,
}

impl Carried {
    fn into_move(self, (from, to, last): (Role, Role, bool)) -> Move {
        let attention = (self.known > 0).then(|| self.attention / self.known as f64);
        Move { from, to, last, prompts: self.prompts.len() as u32, attention }
    }
}

fn habits(row: &HeadRow) -> AttentionShares {
    AttentionShares {
        to_bos: row.to_bos,
        to_itself: row.to_itself,
        to_previous: row.to_previous,
        to_same: row.to_same,
        to_after_same: row.to_after_same,
        to_correct: row.to_correct,
        to_counter: row.to_counter,
        direct_effect: row.direct_effect,
    }
}

fn copied(row: &CopyRow, tokenizer: &Tokenizer) -> CopiedToken {
    let top = row.top.iter().zip(&row.logits);
    CopiedToken {
        token: tokenizer.token(row.token),
        places: row.places,
        mass: row.mass,
        top: top.map(|(id, logit)| (tokenizer.token(*id), *logit)).collect(),
        own_rank: row.own_rank,
        own_rank_below: row.own_rank_below,
        own_logit: row.own_logit,
        answer: row.answer,
    }
}

/// From where to where heads carry something, by template and the prompts whose circuits have it.
fn arcs(prompts: &[PromptRow], circuits: &Circuits) -> BTreeMap<InTask, Arcs> {
    let mut arcs: BTreeMap<InTask, Arcs> = BTreeMap::new();
    for row in prompts {
        let Some(circuit) = circuits.get(&(row.task.clone(), row.prompt)) else { continue };
        for node in circuit.nodes.iter().filter(|node| node.kind == NodeKind::Head) {
            let Some(component) = node.component() else { continue };
            let arc = (node.position() as u32, node.source() as u32);
            let own = arcs.entry((row.task.clone(), component)).or_default();
            own.entry((row.template.clone(), arc)).or_default().insert(row.prompt);
        }
    }
    arcs
}

/// What reaches each slot of each head in a task's circuits, the largest summed share first.
fn contributors(circuits: &Circuits) -> BTreeMap<(InTask, Slot), Vec<Contributor>> {
    let mut sums: BTreeMap<(InTask, Slot), BTreeMap<What, Sum>> = BTreeMap::new();
    for ((task, prompt), circuit) in circuits {
        for link in &circuit.links {
            let (child, parent) = (&circuit.nodes[link.from], &circuit.nodes[link.to]);
            let (Some(head), NodeKind::Head) = (parent.component(), parent.kind) else { continue };
            let own = sums.entry(((task.clone(), head), link.slot)).or_default();
            own.entry(what(child)).or_default().add(*prompt, link);
        }
    }
    let listed = |own: BTreeMap<What, Sum>| {
        let mut all: Vec<Contributor> =
            own.into_iter().map(|(what, sum)| sum.contributor(what)).collect();
        // Stable: of as much share, in the order of names.
        all.sort_by(|a, b| b.share.total_cmp(&a.share));
        all.truncate(CONTRIBUTORS);
        all
    };
    sums.into_iter().map(|(key, own)| (key, listed(own))).collect()
}

fn what(node: &Node) -> What {
    match node.dictionary_feature() {
        Some(feature) => What::Feature(feature),
        None => What::Other(node.kind.setting().into(), node.layer),
    }
}

#[derive(Default)]
struct Sum {
    prompts: BTreeSet<u32>,
    share: f64,
    effect: f64,
    links: u32,
}

impl Sum {
    fn add(&mut self, prompt: u32, link: &Link) {
        self.prompts.insert(prompt);
        self.share += f64::from(link.share);
        self.effect += f64::from(link.effect);
        self.links += 1;
    }

    fn contributor(self, what: What) -> Contributor {
        let effect = self.effect / f64::from(self.links.max(1));
        Contributor { what, prompts: self.prompts.len() as u32, share: self.share, effect }
    }
}
