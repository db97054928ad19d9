//! What a head does: where it attends, what it copies, what enters its query, key and value.

use crate::ids::FeatureId;
use serde::Serialize;

/// What a head does over the prompts of a task.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Head {
    pub task: String,
    pub prompts: u32,
    /// Where it carries something from in circuits, most prompts first.
    pub moves: Vec<Move>,
    pub habits: AttentionShares,
    pub attention: Vec<Attention>,
    /// Distinct tokens of the prompts, BOS apart.
    pub tokens: u32,
    /// Shares of its attention on tokens that reading them raises or lowers as one of the five
    /// most.
    pub copying: Copying,
    /// The same over tokens that are a right or wrong answer of a prompt.
    pub answers: Copying,
    /// Rank of a token among those that reading it raises, from 1; mean by attention.
    pub own_rank: Option<f64>,
    /// The tokens that it looks at most, most first.
    pub copies: Vec<CopiedToken>,
    /// What reaches its query, key and value in circuits.
    pub contributors: [Vec<Contributor>; 3],
}

/// Mean shares of a token's attention; none where there is no such place.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct AttentionShares {
    pub to_bos: Option<f64>,
    pub to_itself: Option<f64>,
    pub to_previous: Option<f64>,
    /// To earlier places of the same token, over tokens that have one, and to the tokens behind
    /// those.
    pub to_same: Option<f64>,
    pub to_after_same: Option<f64>,
    /// From the last token, over prompts that have them.
    pub to_correct: Option<f64>,
    pub to_counter: Option<f64>,
    /// On the logit of the right answer over the wrong one, at the last token.
    pub direct_effect: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Copying {
    pub raised: Option<f64>,
    pub lowered: Option<f64>,
}

/// What stands at a position of a template's prompts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Bos,
    /// The right answer; and which time it comes, from 1, if more than once.
    Correct(Option<u32>),
    Counter(Option<u32>),
    /// The same token in all prompts.
    Same(String),
    /// A token that changes; that of the first prompt.
    Varies(String),
}

/// A head's links in circuits, by what stands where they go from and to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Move {
    pub from: Role,
    pub to: Role,
    /// It ends at the last token.
    pub last: bool,
    /// Prompts whose circuits have it.
    pub prompts: u32,
    /// Mean attention over all prompts of their templates, if it is known.
    pub attention: Option<f64>,
}

/// A head's mean attention over the prompts of a template.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attention {
    pub template: String,
    pub prompts: u32,
    /// Tokens of its first prompt, BOS first, and what each is in all of them.
    pub tokens: Vec<(String, Role)>,
    /// A destination a row.
    #[serde(skip)]
    pub pattern: Vec<f32>,
    /// (destination, source, prompts in whose circuit the head carries something between them).
    pub moves: Vec<(u32, u32, u32)>,
}

/// What a head writes when it reads a token.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CopiedToken {
    pub token: String,
    pub places: u32,
    /// Summed attention that it received.
    pub mass: f64,
    /// The tokens that it raises most, and their logits.
    pub top: Vec<(String, f32)>,
    pub own_rank: u32,
    pub own_rank_below: u32,
    pub own_logit: f32,
    /// It is a right or a wrong answer of a prompt.
    pub answer: bool,
}

/// What reaches a slot of a head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Contributor {
    pub what: What,
    pub prompts: u32,
    /// Summed share of the effects that enter the slot.
    pub share: f64,
    /// Mean over its links.
    pub effect: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Feature(FeatureId),
    /// A kind of node that is no feature, such as `embedding`, with its layer where it has one.
    Other(String, Option<u32>),
}

/// A feature by its share of decoder norm in the head.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HeadFeature {
    pub feature: FeatureId,
    pub share: f32,
    /// Among all features of the dictionary, from 1.
    pub rank: u32,
    /// (task, prompts in which it serves there).
    pub serves: Vec<(String, u32)>,
}

impl What {
    /// What it is called.
    pub(crate) fn said(&self) -> String {
        let (kind, layer) = match self {
            What::Feature(feature) => return feature.to_string(),
            What::Other(kind, layer) => (kind, layer),
        };
        let name = match kind.as_str() {
            "embedding" => "token embedding".into(),
            "attention_error" => "attention error".into(),
            "mlp_error" => "MLP error".into(),
            kind => kind.replace('_', " "),
        };
        layer.map_or(name.clone(), |layer| format!("{name} {layer}"))
    }
}

impl Role {
    /// What the place is called in plain text.
    pub(crate) fn said(&self) -> String {
        let mention = |name: &str, time: &Option<u32>| match time {
            None => name.to_string(),
            Some(1) => format!("{name}'s first mention"),
            Some(2) => format!("{name}'s second mention"),
            Some(n) => format!("{name}, mention {n}"),
        };
        match self {
            Role::Bos => "BOS".into(),
            Role::Correct(time) => mention("the right answer", time),
            Role::Counter(time) => mention("the wrong answer", time),
            Role::Same(text) => format!("“{text}”"),
            Role::Varies(text) => format!("a position with varying tokens, such as “{text}”"),
        }
    }
}

impl Head {
    /// Whether it copies what it reads (true) or lowers it (false), by the answers if it looks at
    /// any: that it does so to most of it.
    pub(crate) fn copies_or_lowers(&self) -> Option<bool> {
        const MOSTLY: f64 = 0.5;
        let of = if self.answers.raised.is_some() { &self.answers } else { &self.copying };
        match (of.raised?, of.lowered?) {
            (raised, _) if raised >= MOSTLY => Some(true),
            (_, lowered) if lowered >= MOSTLY => Some(false),
            _ => None,
        }
    }
}

impl Attention {
    /// Mean attention from one place to another.
    pub(crate) fn at(&self, destination: usize, source: usize) -> f64 {
        self.pattern.get(destination * self.tokens.len() + source).copied().map_or(0.0, f64::from)
    }

    /// Prompts in whose circuit the head carries something from one to the other.
    pub(crate) fn carried(&self, destination: usize, source: usize) -> u32 {
        let own = self
            .moves
            .iter()
            .filter(|(d, s, _)| (*d as usize, *s as usize) == (destination, source));
        own.map(|(.., prompts)| prompts).sum()
    }

    /// The destinations that circuits use, most prompts first, and the last token if they use none.
    pub(crate) fn destinations(&self, most: usize) -> Vec<usize> {
        let mut found: Vec<(u32, usize)> = Vec::new();
        for destination in 0..self.tokens.len() {
            let prompts = self
                .moves
                .iter()
                .filter(|(d, ..)| *d as usize == destination)
                .map(|(.., n)| n)
                .sum();
            found.push((prompts, destination));
        }
        found.retain(|(prompts, _)| *prompts > 0);
        found.sort_by_key(|(prompts, destination)| (std::cmp::Reverse(*prompts), *destination));
        if found.is_empty() {
            found.extend(self.tokens.len().checked_sub(1).map(|last| (0, last)));
        }
        found.into_iter().take(most).map(|(_, destination)| destination).collect()
    }
}
