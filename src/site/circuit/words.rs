//! What nodes and links of a task's picture are called, and what is told of them.

use super::picture::Drawing;
use super::sum::{Amount, Ends, Key, Part};
use crate::format::number::{counted, percent};
use crate::format::text::{cut, plain, visible};
use crate::ids::{Component, FeatureId, Kind, Slot};
use crate::site::text::Html;
use crate::stats::STANDS_OUT;

/// Characters of the line below a name, and of a token in it.
const BRIEF: usize = 15;
pub(super) const TOKEN: usize = 9;
/// A link with less of one sign than this is told of as mixed.
const ONE_SIGN: f64 = 0.5;
/// Ends of links that a node's title tells, the strongest of each side.
const TOLD: usize = 3;

impl Drawing<'_> {
    /// Short: `att3.51`, `L2H4`, `12 more`.
    pub(super) fn name(&self, key: Key) -> String {
        let of = |key: Key| self.choice.nodes.iter().find(|(other, ..)| *other == key);
        match key.part {
            Part::Answer => "answer".into(),
            Part::Head(component) => component.to_string(),
            Part::Feature(feature) => feature.to_string(),
            Part::Rest(dictionary) => {
                let n = of(key).map_or(0, |node| node.2);
                match self.choice.alone(key, dictionary) {
                    true => counted(n, "feature"),
                    false => format!("{n} more"),
                }
            }
            Part::Error(dictionary) => format!("{dictionary} error"),
            Part::Bias => "bias".into(),
            Part::Embedding => "embedding".into(),
        }
    }

    /// The line below the name.
    pub(super) fn brief(&self, key: Key) -> String {
        match key.part {
            Part::Answer => match self.task.kind.as_str() {
                "greater-than" => "P(> YY) − P(≤ YY)".into(),
                _ if self.difference() => "right − wrong".into(),
                _ => "right".into(),
            },
            Part::Feature(feature) => self.told_feature(feature),
            Part::Head(component) => self.told_head(component),
            Part::Rest(dictionary) => dictionary.to_string(),
            Part::Error(_) | Part::Bias | Part::Embedding => String::new(),
        }
    }

    fn difference(&self) -> bool {
        let mut graphs = self.task.prompts.iter().filter_map(|prompt| prompt.graph.as_ref());
        graphs.next().is_none_or(|graph| graph.difference)
    }

    /// The token that a feature is most active at, and the one that it promotes most if that stands
    /// out.
    fn told_feature(&self, id: FeatureId) -> String {
        let Some(feature) = self.links.site.feature(id) else { return String::new() };
        let short = |text: &str| cut(visible(text).trim_start_matches('␣'), TOKEN);
        let at = feature.mass.first().map(|(token, _)| short(token)).unwrap_or_default();
        let promoted = feature.promoted.first().filter(|token| token.z > STANDS_OUT);
        match promoted.map(|token| short(&token.text)) {
            Some(token) if columns(&at) + columns(&token) + 3.0 <= BRIEF as f64 => {
                format!("{at} → {token}")
            }
            _ => at,
        }
    }

    /// What a head is in the published circuit or does to what it reads, and how often it is in
    /// circuits.
    fn told_head(&self, component: Component) -> String {
        let own = self.task.components.iter().find(|c| c.component == component);
        let class = own.and_then(|c| c.class.clone());
        let page = self.links.site.atlas.components.iter().find(|p| p.component == component);
        let head = page.and_then(|p| p.heads.iter().find(|head| head.task == self.task.name));
        let copies = match head.and_then(|head| head.copies_or_lowers()) {
            Some(true) => Some("copies".to_string()),
            Some(false) => Some("suppresses".into()),
            None => None,
        };
        class.or(copies).map(|what| cut(&what, BRIEF)).unwrap_or_default()
    }

    pub(super) fn href(&self, key: Key) -> Html {
        let page = match key.part {
            Part::Head(component) => self.links.component(component).href,
            Part::Feature(feature) => self.links.feature(feature).href,
            Part::Rest(dictionary) | Part::Error(dictionary) if dictionary.kind == Kind::Mlp => {
                self.links.component(Component::Mlp { layer: dictionary.layer }).href
            }
            _ => None,
        };
        page.unwrap_or_else(|| self.links.href(&format!("tasks/{}.html#prompts", self.task.name)))
    }

    /// Everything about a node, a line each.
    pub(super) fn title(&self, at: usize) -> String {
        let (key, amount, _) = &self.choice.nodes[at];
        let mut lines = vec![self.placed(*key)];
        if key.part != Part::Answer {
            lines.push(format!(
                "in {} of {} circuits; {} of the answer goes through it",
                amount.prompts.len(),
                self.choice.prompts,
                percent(amount.flow)
            ));
        }
        if let Part::Feature(feature) = key.part {
            lines.push(plain(&self.links.site.gist(feature), 110));
        }
        let side = |ours: fn(&(usize, usize, Ends, Amount)) -> usize| {
            self.choice.links.iter().filter(move |link| ours(link) == at).take(TOLD)
        };
        lines.extend(side(|l| l.0).map(|l| format!("→ {}: {}", self.placed(l.2.to), told(&l.3))));
        lines.extend(side(|l| l.1).map(|l| format!("← {}: {}", self.placed(l.2.from), told(&l.3))));
        lines.join("\n")
    }

    /// The name with what stands at its position.
    fn placed(&self, key: Key) -> String {
        let name = match key.part {
            Part::Rest(dictionary) => format!("{} of {dictionary}", self.name(key)),
            _ => self.name(key),
        };
        match key.part {
            Part::Answer => name,
            _ => format!("{name} at {}", self.choice.places[key.place].0),
        }
    }

    pub(super) fn told_link(&self, ends: &Ends, amount: &Amount) -> String {
        let slot = match ends.slot {
            Slot::Q => ", query",
            Slot::K => ", key",
            Slot::V => ", value",
            Slot::In => "",
        };
        format!(
            "{} → {}{slot}\nin {} of {} circuits, {}",
            self.placed(ends.from),
            self.placed(ends.to),
            amount.prompts.len(),
            self.choice.prompts,
            told(amount)
        )
    }

    pub(super) fn caption(&self) -> String {
        let choice = &self.choice;
        let left = match choice.features_left {
            0 => String::new(),
            n => format!("{} are in no node of the picture. ", counted(n, "feature")),
        };
        format!(
            "Left out: {} weaker than those drawn; those into the answer have {} of the effects on \
             it. {left}Together, the links drawn into the answer have {} of all effects on it; the \
             rest comes from outside of the circuit.",
            counted(choice.links_left, "link"),
            percent(choice.flow_left),
            percent(self.of_answer()),
        )
    }

    fn of_answer(&self) -> f64 {
        let own = self.choice.links.iter().filter(|link| link.2.to.part == Part::Answer);
        own.map(|link| link.3.flow).sum()
    }
}

/// The class of a sign and its words. Links of prompts may have both signs.
pub(super) fn sign(amount: &Amount) -> (&'static str, &'static str) {
    match amount.signed {
        s if s >= ONE_SIGN * amount.flow => ("pos", "raises"),
        s if s <= -ONE_SIGN * amount.flow => ("neg", "lowers"),
        _ => ("mix", "raises in some prompts, lowers in others"),
    }
}

fn told(amount: &Amount) -> String {
    format!("{} of the answer, {}", percent(amount.flow), sign(amount).1)
}

/// Characters as columns of a terminal: those of East Asia take two.
pub(super) fn columns(text: &str) -> f64 {
    text.chars().map(|c| if c >= '\u{1100}' { 2.0 } else { 1.0 }).sum()
}
