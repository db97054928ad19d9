//! Pictures made of rectangles: maps of the model, who meets whom, histograms, intervals. Colours
//! are in the style sheet.
//!
//! Each cell carries its numbers as text or title, so that nothing is told by colour or by hovering
//! alone.

use super::links::Links;
use super::text::{Html, escape, html};
use super::widths;
use crate::format::heat::STEPS;
use crate::format::number::{count, counted, fixed, significant};
use crate::ids::Component;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a map shows of a component.
pub(super) struct Cell {
    /// How deep its colour is: 0 to 1; below 0, to −1, in the other colour.
    pub shade: f64,
    pub label: String,
    pub title: String,
}

const CELL: (usize, usize) = (44, 28);
const GAP: usize = 3;

/// An `<svg>` of that size; the style sheet lets it shrink to the page's width, down to what can
/// still be read.
fn picture(class: &str, (width, height): (usize, usize), title: &str, body: &str) -> Html {
    let (title, px) = (escape(title), widths::picture(width));
    html(format!(
        "<svg class=\"{class} {px}\" viewBox=\"0 0 {width} {height}\" \
         role=\"group\" aria-label=\"{title}\">{body}</svg>"
    ))
}

/// Text on a deep cell has another colour. The style sheet's colours of cells are chosen for this
/// depth: up to it the one, from it on the other has a contrast of 4.5.
fn ink(shade: f64) -> &'static str {
    if shade > 0.8 { " class=\"on\"" } else { "" }
}

/// Layers × heads, and a column of MLPs. A component without a cell is in no circuit and left
/// empty.
pub(super) fn model_map(links: Links, title: &str, cells: &BTreeMap<Component, Cell>) -> Html {
    let (layers, heads) = (links.site.atlas.layers, links.site.atlas.heads);
    let x =
        |c: Component| 30 + c.head().map_or(heads * (CELL.0 + GAP) + 10, |h| h * (CELL.0 + GAP));
    let y = |layer: usize| 22 + layer * (CELL.1 + GAP);
    let mut body = String::new();
    for head in 0..heads {
        label(
            &mut body,
            30 + head * (CELL.0 + GAP) + CELL.0 / 2,
            13,
            "middle",
            &format!("H{head}"),
        );
    }
    label(&mut body, x(Component::Mlp { layer: 0 }) + CELL.0 / 2, 13, "middle", "MLP");
    for layer in 0..layers {
        label(&mut body, 24, y(layer) + CELL.1 / 2 + 4, "end", &format!("L{layer}"));
    }
    for component in Component::all(layers, heads) {
        let at = (x(component), y(component.layer()));
        body.push_str(&model_cell(links, component, at, cells.get(&component)));
    }
    picture("map", (x(Component::Mlp { layer: 0 }) + CELL.0 + 2, y(layers)), title, &body)
}

fn model_cell(
    links: Links,
    component: Component,
    (x, y): (usize, usize),
    cell: Option<&Cell>,
) -> String {
    let (w, h) = CELL;
    let Some(cell) = cell else {
        return format!(
            "<g role=\"img\"><title>{component}: in no circuit</title>\
             <rect class=\"none\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"3\"/></g>"
        );
    };
    let inner = format!(
        "<title>{component}: {}</title>\
         <rect class=\"base\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"3\"/>\
         <rect{} x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"3\" \
         fill-opacity=\"{:.2}\"/>\
         <text x=\"{}\" y=\"{}\"{}>{}</text>",
        escape(&cell.title),
        if cell.shade < 0.0 { " class=\"below\"" } else { "" },
        cell.shade.abs(),
        x + w / 2,
        y + h / 2 + 4,
        ink(cell.shade),
        escape(&cell.label),
    );
    anchored(links.component(component).href, inner)
}

/// In a link, if there is somewhere to go.
fn anchored(href: Option<Html>, inner: String) -> String {
    match href {
        Some(href) => format!("<a href=\"{href}\">{inner}</a>"),
        None => format!("<g>{inner}</g>"),
    }
}

fn label(body: &mut String, x: usize, y: usize, anchor: &str, text: &str) {
    let _ = write!(
        body,
        "<text class=\"l\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

/// The lower half of a square: how often two of `components` are together, out of `of`.
pub(super) fn triangle(
    links: Links,
    components: &[Component],
    together: &BTreeMap<(Component, Component), u32>,
    of: u32,
) -> Html {
    const SIDE: usize = 28;
    const LEFT: usize = 52;
    let at = |i: usize| i * (SIDE + 2);
    let mut body = String::new();
    for (row, &a) in components.iter().enumerate() {
        let name = |x: usize, anchor: &str| {
            let mut text = String::new();
            label(&mut text, x, at(row) + 18, anchor, &a.to_string());
            anchored(links.component(a).href, text)
        };
        if row > 0 {
            body.push_str(&name(LEFT - 6, "end"));
        }
        for (column, &b) in components[..row].iter().enumerate() {
            let n = together.get(&(a.min(b), a.max(b))).copied().unwrap_or(0);
            body.push_str(&meeting((LEFT + at(column), at(row)), SIDE, (a, b), n, of));
        }
        body.push_str(&name(LEFT + at(row) + 4, "start"));
    }
    let size = (LEFT + at(components.len()) + 24, at(components.len()) + 4);
    picture("map", size, "components in the same circuits", &body)
}

fn meeting(
    (x, y): (usize, usize),
    side: usize,
    (a, b): (Component, Component),
    n: u32,
    of: u32,
) -> String {
    if n == 0 {
        return format!(
            "<rect class=\"none\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"3\"/>"
        );
    }
    let shade = f64::from(n) / f64::from(of.max(1));
    let middle = (x + side / 2, y + side / 2 + 4);
    format!(
        "<g role=\"img\"><title>{a} with {b}: {n} of {of} prompts</title>\
         <rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"3\" \
         fill-opacity=\"{shade:.2}\"/>\
         <text x=\"{}\" y=\"{}\"{}>{n}</text></g>",
        middle.0,
        middle.1,
        ink(shade),
    )
}

/// The histogram's plot: left, right, top, bottom.
const PLOT: [f64; 4] = [42.0, 536.0, 10.0, 150.0];

/// Counts in equal bins on (0, max], on a logarithmic scale, over the colours that the values have
/// in the examples.
pub(super) fn histogram(bins: &[u64], max: f64) -> Html {
    let tallest = bins.iter().copied().max().unwrap_or(0).max(1);
    // Half a decade above nothing, so that one token can be seen.
    let height = |n: u64| {
        ((n as f64).log10() + 0.5) / ((tallest as f64).log10() + 0.5) * (PLOT[3] - PLOT[2])
    };
    let mut body = String::new();
    for power in (0..20).map(|p| 10u64.pow(p)).take_while(|&p| p <= tallest) {
        push_count(&mut body, power, PLOT[3] - height(power));
    }
    body.push_str("<g class=\"columns\">");
    let width = (PLOT[1] - PLOT[0]) / bins.len().max(1) as f64;
    for (i, &n) in bins.iter().enumerate().filter(|(_, n)| **n > 0) {
        let (x, w, h) = (PLOT[0] + i as f64 * width + 0.5, width - 1.0, height(n));
        let title = bin_title(i, bins.len(), max, n);
        let _ = write!(
            body,
            "<path d=\"M{x:.1} {}v-{h:.1}h{w:.1}v{h:.1}z\" \
             role=\"img\"><title>{title}</title></path>",
            PLOT[3]
        );
    }
    body.push_str("</g>");
    push_heat_axis(&mut body, max);
    picture("plot histogram", (540, 194), "number of tokens by activation", &body)
}

/// A line across the plot at a count.
fn push_count(body: &mut String, n: u64, y: f64) {
    let [left, right, ..] = PLOT;
    let _ = write!(body, "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>");
    label(body, left as usize - 6, y as usize + 4, "end", &count(n));
}

fn bin_title(i: usize, bins: usize, max: f64, n: u64) -> String {
    let edge = |i: usize| significant(max * i as f64 / bins as f64, 3);
    format!("{} to {}: {}", edge(i), edge(i + 1), counted(n as usize, "token"))
}

/// The colours of activations as an axis: it is the key to the examples, too.
fn push_heat_axis(body: &mut String, max: f64) {
    let [left, right, _, bottom] = PLOT;
    let width = (right - left) / STEPS as f64;
    body.push_str("<g class=\"heat\">");
    for step in 1..=STEPS {
        let (x, y) = (left + (step - 1) as f64 * width, bottom + 3.0);
        let _ =
            write!(body, "<path class=\"a{step}\" d=\"M{x:.1} {y}h{width:.1}v10h-{width:.1}z\"/>");
    }
    body.push_str("</g>");
    for (quarter, anchor) in ["start", "middle", "middle", "middle", "end"].into_iter().enumerate()
    {
        let share = quarter as f64 / 4.0;
        let x = (left + (right - left) * share).round() as usize;
        label(body, x, bottom as usize + 30, anchor, &significant(max * share, 3));
    }
}

/// A share with its interval.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub value: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// A share on a line from 0 to 1 with its interval, and what it is compared with: the first null as
/// a hollow circle, the second as a hollow diamond.
pub(super) fn scale(title: &str, mark: Mark, nulls: &[(&str, Option<f64>)]) -> Html {
    let x = |value: f64| 6.0 + value.clamp(0.0, 1.0) * 168.0;
    let mut body = format!("<path class=\"grid\" d=\"M6 12H174M{0:.1} 4V20\"/>", x(0.5));
    if let (Some(low), Some(high)) = (mark.low, mark.high) {
        let _ = write!(body, "<path class=\"reach\" d=\"M{:.1} 12H{:.1}\"/>", x(low), x(high));
    }
    for (i, (name, null)) in nulls.iter().enumerate() {
        if let Some(null) = *null {
            push_null(&mut body, i, name, null, x(null));
        }
    }
    if let Some(value) = mark.value {
        let _ = write!(body, "<circle class=\"dot\" cx=\"{:.1}\" cy=\"12\" r=\"4.5\"/>", x(value));
    }
    picture("plot scale", (180, 24), &format!("{title} from 0 to 1"), &body)
}

fn push_null(body: &mut String, i: usize, name: &str, null: f64, x: f64) {
    let shape = match i {
        0 => format!("<circle class=\"null\" cx=\"{x:.1}\" cy=\"12\" r=\"4\"/>"),
        _ => format!("<path class=\"null\" d=\"M{x:.1} 6.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z\"/>"),
    };
    let title = escape(&format!("{name}: {}", fixed(null, 2)));
    let _ = write!(body, "<g role=\"img\"><title>{title}</title>{shape}</g>");
}

/// Columns of [`spread`].
pub(super) const SPREAD_BINS: usize = 20;
/// The plot of [`spread`]: left, right, top, bottom.
const SPREAD: [f64; 4] = [42.0, 446.0, 10.0, 140.0];

/// How many have which share, from 0 to 1: columns of three parts, those that beat their nulls at
/// the bottom, then those not told apart from them, then those beaten.
pub(super) fn spread(title: &str, bins: &[[u64; 3]; SPREAD_BINS]) -> Html {
    let [left, right, top, bottom] = SPREAD;
    let tallest = bins.iter().map(|bin| bin.iter().sum::<u64>()).max().unwrap_or(0).max(1);
    let height = |n: u64| n as f64 / tallest as f64 * (bottom - top);
    let mut body = String::new();
    for n in [tallest / 2, tallest].into_iter().filter(|n| *n > 0) {
        let y = bottom - height(n);
        let _ = write!(body, "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>");
        label(&mut body, left as usize - 6, y as usize + 4, "end", &count(n));
    }
    let middle = (left + right) / 2.0;
    let _ = write!(
        body,
        "<path class=\"grid strong\" d=\"M{middle} {top}V{bottom}M{left} {bottom}H{right}\"/>"
    );
    for (i, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.iter().any(|n| *n > 0)) {
        push_column(&mut body, i, bin.map(|n| (n, height(n))));
    }
    for (share, anchor) in
        [(0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end")]
    {
        let x = (left + (right - left) * share).round() as usize;
        label(&mut body, x, bottom as usize + 18, anchor, &fixed(share, 2));
    }
    picture("plot spread", (450, 164), title, &body)
}

/// A column of three counts with their heights.
fn push_column(body: &mut String, i: usize, parts: [(u64, f64); 3]) {
    let [left, right, _, bottom] = SPREAD;
    let width = (right - left) / SPREAD_BINS as f64;
    let (x, w) = (left + i as f64 * width + 1.0, width - 2.0);
    let edge = |i: usize| fixed(i as f64 / SPREAD_BINS as f64, 2);
    let [beats, near, beaten] = parts.map(|part| part.0);
    let told = format!(
        "{beats} significantly above both baselines, {near} above both but not significantly, \
         {beaten} not above both"
    );
    let _ = write!(body, "<g role=\"img\"><title>{} to {}: {told}</title>", edge(i), edge(i + 1));
    let mut y = bottom;
    for ((_, h), class) in
        parts.iter().zip(["beats", "near", "beaten"]).filter(|((n, _), _)| *n > 0)
    {
        y -= h;
        let _ = write!(
            body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\"/>"
        );
    }
    body.push_str("</g>");
}
