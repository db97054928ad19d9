//! A task's circuit as SVG. Outlines tell the kinds of nodes, their depth how often they are in a
//! prompt's circuit; width tells how much of the answer goes along a link, colour and dashes its
//! sign.

use super::choice::{Choice, Most, chosen};
use super::sum::{Amount, Key, Part, Sum};
use super::words::{TOKEN, columns, sign};
use crate::atlas::model::Task;
use crate::format::number::counted;
use crate::format::text::{cut, visible};
use crate::ids::{FeatureId, Kind, Slot};
use crate::site::layout::{Box, Layout, Measures, OF_TASK, Spot};
use crate::site::links::Links;
use crate::site::text::{Html, escape, html};
use crate::site::widths;
use std::fmt::Write;

/// Width of a letter of a node's name, and of the line below it.
const LETTER: f64 = 6.05;
const SMALL: f64 = 5.3;
/// A node is wider than its text by this.
const MARGIN: f64 = 14.0;
/// Width of the widest link.
const WIDEST: f64 = 9.0;

/// How much a picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// At the top of a task's page.
    Full,
    /// On the front page: features of a dictionary as one node.
    Small,
}

impl Size {
    fn most(self) -> Most {
        match self {
            Size::Full => Most { features: 30, places: 6, links: 80, least: 0.002 },
            Size::Small => Most { features: 0, places: 4, links: 24, least: 0.01 },
        }
    }

    fn measures(self) -> Measures {
        match self {
            Size::Full => OF_TASK,
            Size::Small => {
                Measures { height: 30.0, air: 24.0, bottom: 40.0, width: 520.0, ..OF_TASK }
            }
        }
    }
}

/// The picture with what is to be said of it.
pub(crate) struct CircuitPicture {
    pub svg: Html,
    pub caption: String,
}

/// The picture of a task's circuit; none where no prompt has a graph whose positions have names.
pub(crate) fn circuit_picture(links: Links, task: &Task, size: Size) -> Option<CircuitPicture> {
    let sum = Sum::of(task);
    if sum.links.is_empty() {
        return None;
    }
    let drawing = Drawing { links, task, choice: chosen(sum, size.most()), size };
    Some(CircuitPicture { svg: drawing.svg(), caption: drawing.caption() })
}

pub(super) struct Drawing<'a> {
    pub links: Links<'a>,
    pub task: &'a Task,
    pub choice: Choice,
    pub size: Size,
}

impl Drawing<'_> {
    fn layers(&self) -> usize {
        self.links.site.atlas.layers
    }

    /// The answer first, then each layer's MLP, attention features and heads from the last layer on,
    /// tokens last.
    fn row(&self, part: Part) -> usize {
        let above = |layer: usize| 3 * (self.layers() - 1 - layer.min(self.layers() - 1));
        match part {
            Part::Answer => 0,
            Part::Head(component) => 3 + above(component.layer()),
            Part::Feature(FeatureId { dictionary, .. })
            | Part::Rest(dictionary)
            | Part::Error(dictionary) => {
                above(dictionary.layer) + if dictionary.kind == Kind::Mlp { 1 } else { 2 }
            }
            Part::Bias | Part::Embedding => 1 + 3 * self.layers(),
        }
    }

    fn svg(&self) -> Html {
        let nodes = &self.choice.nodes;
        let node_box = |(key, ..): &(Key, Amount, usize)| {
            let (name, brief) = (self.name(*key), self.brief(*key));
            let width = (columns(&name) * LETTER).max(columns(&brief) * SMALL) + MARGIN;
            Box { row: self.row(key.part), column: key.place, width }
        };
        let boxes: Vec<Box> = nodes.iter().map(node_box).collect();
        let links: Vec<(usize, usize)> =
            self.choice.links.iter().map(|link| (link.0, link.1)).collect();
        let names: Vec<f64> =
            self.choice.places.iter().map(|place| columns(&place.0) * SMALL * 1.12).collect();
        let rows = 2 + 3 * self.layers();
        let layout = Layout::new(&boxes, &links, rows, &names, &self.size.measures());
        let mut body = String::new();
        self.push_ground(&mut body, &layout);
        self.push_links(&mut body, &layout);
        (0..nodes.len()).for_each(|i| self.push_node(&mut body, &layout.spots[i], i));
        self.push_rows(&mut body, &layout);
        let class = if self.size == Size::Small { " small" } else { "" };
        html(format!(
            "<svg class=\"graph circuit{class} {4}\" viewBox=\"0 0 {0:.0} {1:.0}\" role=\"group\" \
             aria-label=\"the circuit of {2} over {3}\">{body}</svg>",
            layout.width,
            layout.height,
            escape(&self.task.name),
            counted(self.choice.prompts as usize, "prompt"),
            widths::picture(layout.width as usize)
        ))
    }

    /// Every other layer on a band; columns with their names below.
    fn push_ground(&self, body: &mut String, layout: &Layout) {
        for layer in (0..self.layers()).rev().step_by(2) {
            let above = 3 * (self.layers() - 1 - layer);
            let strips = &layout.rows[1 + above..=3 + above];
            let height: f64 = strips.iter().map(|strip| strip.size).sum();
            if height > 0.0 {
                let _ = write!(
                    body,
                    "<path class=\"band\" d=\"M0 {:.0}H{:.0}v{height:.0}H0z\"/>",
                    strips[0].at, layout.width
                );
            }
        }
        let ground = layout.height - self.size.measures().bottom;
        for ((name, token), column) in self.choice.places.iter().zip(&layout.columns) {
            let (x, y) = (column.middle(), ground + 18.0);
            let _ = write!(
                body,
                "<path class=\"column\" d=\"M{:.0} 4V{:.0}\"/><text class=\"place\" x=\"{x:.0}\" \
                 y=\"{y:.0}\">{}</text>",
                column.at,
                layout.height - 4.0,
                escape(&cut(name, 26).replace('\n', "↵"))
            );
            if !token.is_empty() {
                let _ = write!(
                    body,
                    "<text class=\"token l\" x=\"{x:.0}\" y=\"{:.0}\">{}</text>",
                    y + 14.0,
                    escape(&cut(&visible(token), TOKEN + 4))
                );
            }
        }
    }

    /// Over everything else: where the picture is scrolled, they stay.
    fn push_rows(&self, body: &mut String, layout: &Layout) {
        body.push_str("<g class=\"names\">");
        for (row, strip) in layout.rows.iter().enumerate().filter(|(_, strip)| strip.size > 0.0) {
            let y = strip.middle() + self.size.measures().air / 2.0 + 4.0;
            let name = match row {
                0 => "answer".to_string(),
                row if row > 3 * self.layers() => "tokens".into(),
                row => {
                    let kind = ["MLP", "attention", "heads"][(row - 1) % 3];
                    format!("{kind} {}", self.layers() - 1 - (row - 1) / 3)
                }
            };
            let _ = write!(body, "<text class=\"l\" x=\"4\" y=\"{y:.0}\">{name}</text>");
        }
        body.push_str("</g>");
    }

    /// The weak ones first, so that the strong ones lie on top. Screen readers have the nodes'
    /// titles.
    fn push_links(&self, body: &mut String, layout: &Layout) {
        let most = self.choice.links.first().map_or(1.0, |link| link.3.flow).max(f64::MIN_POSITIVE);
        body.push_str("<g class=\"links\" aria-hidden=\"true\">");
        for (from, to, ends, amount) in self.choice.links.iter().rev() {
            // The area is what one sees, so that a quarter of the flow is half as wide.
            let share = (amount.flow / most).sqrt();
            let _ = write!(
                body,
                "<path class=\"{}\" data-n=\"{from} {to}\" d=\"{}\" stroke-width=\"{:.1}\" \
                 stroke-opacity=\"{:.2}\"><title>{}</title></path>",
                sign(amount).0,
                self.curve(&layout.spots[*from], &layout.spots[*to], ends.slot),
                0.8 + (WIDEST - 0.8) * share * share,
                0.3 + 0.5 * share,
                escape(&self.told_link(ends, amount)),
            );
        }
        body.push_str("</g>");
    }

    /// From the upper edge of one node to the lower edge of another. The slots of a head are side by
    /// side at its lower edge.
    fn curve(&self, from: &Spot, to: &Spot, slot: Slot) -> String {
        let half = self.size.measures().height / 2.0;
        let aside = match slot {
            Slot::Q => -0.3,
            Slot::V => 0.3,
            Slot::In | Slot::K => 0.0,
        };
        let (x1, y1, x2, y2) = (from.x, from.y - half, to.x + aside * to.width, to.y + half);
        let rise = (y1 - y2).max(0.0);
        let bow = if (x1 - x2).abs() < 50.0 && rise > 90.0 { (rise * 0.2).min(60.0) } else { 0.0 };
        let (c1, c2) = (y1 - rise * 0.5, y2 + rise * 0.5);
        format!("M{x1:.0} {y1:.0}C{:.0} {c1:.0} {:.0} {c2:.0} {x2:.0} {y2:.0}", x1 - bow, x2 - bow)
    }

    fn push_node(&self, body: &mut String, spot: &Spot, at: usize) {
        let (key, amount, _) = &self.choice.nodes[at];
        let often = amount.prompts.len() as f64 / f64::from(self.choice.prompts.max(1));
        let (name, brief) = (self.name(*key), self.brief(*key));
        let (w, h) = (spot.width, self.size.measures().height);
        let (x, y) = (spot.x - w / 2.0, spot.y - h / 2.0);
        let round = if matches!(key.part, Part::Head(_)) { 2.0 } else { h / 2.0 };
        let _ = write!(
            body,
            "<a class=\"node {}\" href=\"{}\" data-n=\"{at}\"><title>{}</title><rect \
             class=\"back\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h}\" \
             rx=\"{round}\"/><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h}\" \
             rx=\"{round}\" fill-opacity=\"{:.2}\"/>",
            class(key.part),
            self.href(*key),
            escape(&self.title(at)),
            often,
        );
        let middle = if brief.is_empty() { spot.y + 3.5 } else { spot.y - 2.5 };
        let _ =
            write!(body, "<text x=\"{:.0}\" y=\"{middle:.1}\">{}</text>", spot.x, escape(&name));
        if !brief.is_empty() {
            let _ = write!(
                body,
                "<text class=\"brief\" x=\"{:.0}\" y=\"{:.1}\">{}</text>",
                spot.x,
                spot.y + 9.5,
                escape(&brief)
            );
        }
        body.push_str("</a>");
    }
}

/// What the style sheet calls a kind of node.
fn class(part: Part) -> &'static str {
    match part {
        Part::Answer => "root",
        Part::Head(_) => "head",
        Part::Feature(FeatureId { dictionary, .. }) | Part::Rest(dictionary) => {
            match (dictionary.kind, part) {
                (Kind::Mlp, Part::Rest(_)) => "mlp rest",
                (Kind::Mlp, _) => "mlp",
                (_, Part::Rest(_)) => "att rest",
                _ => "att",
            }
        }
        Part::Error(_) => "err",
        Part::Bias => "bias",
        Part::Embedding => "emb",
    }
}
