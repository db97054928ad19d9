//! The graph as SVG. Shapes tell the kinds of nodes, colours and dashes the signs of effects, widths
//! their shares, letters the slots of heads.

use super::marks::{Line, Marks};
use super::names::Names;
use crate::atlas::model::kind_word;
use crate::format::text::cut;
use crate::format::text::visible;
use crate::ids::{NodeKind, Slot};
use crate::site::layout::{Box, Layout, OF_PROMPT, Spot};
use crate::site::text::{Html, escape, html};
use crate::site::widths;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Width of a letter in a node and in a token.
const LETTER: f64 = 6.05;
/// Width of a letter in the second line of a node.
const SMALL: f64 = 5.0;
/// A node is wider than its name by this.
const MARGIN: f64 = 14.0;
/// Characters of a token that are shown where there are nodes, and elsewhere.
const TOKEN: [usize; 2] = [14, 6];

/// The row of a node: the answer first, then each layer's MLP, attention and heads from the last
/// layer on, embeddings.
fn row(kind: NodeKind, layer: usize, layers: usize) -> usize {
    let above = 3 * (layers - 1 - layer.min(layers - 1));
    match kind {
        NodeKind::Root => 0,
        NodeKind::MlpFeature | NodeKind::MlpError => 1 + above,
        NodeKind::AttentionFeature | NodeKind::AttentionError | NodeKind::Bias(_) => 2 + above,
        NodeKind::Head => 3 + above,
        NodeKind::Embedding | NodeKind::PositionEmbedding => 1 + 3 * layers,
    }
}

/// What the style sheet calls a kind of node.
fn class(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Root => "root",
        NodeKind::AttentionFeature => "att",
        NodeKind::MlpFeature => "mlp",
        NodeKind::Head => "head",
        NodeKind::AttentionError | NodeKind::MlpError => "err",
        NodeKind::Bias(_) => "bias",
        NodeKind::Embedding => "emb",
        NodeKind::PositionEmbedding => "emb pos",
    }
}

/// Characters as columns of a terminal: those of East Asia take two.
fn columns(text: &str) -> f64 {
    text.chars().map(|c| if c >= '\u{1100}' { 2.0 } else { 1.0 }).sum()
}

/// The circuit of a prompt in a model of so many layers.
pub(crate) fn picture(names: &Names, marks: &Marks, layers: usize) -> Html {
    let graph = names.graph;
    let last = graph.tokens.len().saturating_sub(1);
    let short: Vec<String> = marks.nodes.iter().map(|nodes| names.short(nodes)).collect();
    let mark_box = |(nodes, short): (&Vec<usize>, &String)| {
        let (first, node) = (nodes[0], &graph.nodes()[nodes[0]]);
        let width = (columns(&names.name(first)) * LETTER).max(columns(short) * SMALL);
        Box {
            row: row(node.kind, node.layer(), layers),
            column: graph.position(first).min(last),
            width: width + MARGIN,
        }
    };
    let boxes: Vec<Box> = marks.nodes.iter().zip(&short).map(mark_box).collect();
    let links: Vec<(usize, usize)> = marks.lines.iter().map(|line| (line.from, line.to)).collect();
    let tokens: Vec<f64> =
        graph.tokens.iter().map(|(_, t)| columns(&cut(&visible(t), TOKEN[0])) * LETTER).collect();
    let layout = Layout::new(&boxes, &links, 2 + 3 * layers, &tokens, &OF_PROMPT);
    let mut body = String::new();
    push_ground(&mut body, &layout, layers);
    push_tokens(&mut body, &layout, names);
    push_lines(&mut body, &layout, marks);
    body.push_str("<g class=\"nodes\">");
    for (mark, short) in short.iter().enumerate() {
        push_node(&mut body, &layout.spots[mark], names, (mark, &marks.nodes[mark]), short);
    }
    body.push_str("</g>");
    push_slots(&mut body, &layout, marks);
    push_row_names(&mut body, &layout, layers);
    html(format!(
        "<svg class=\"graph {2}\" viewBox=\"0 0 {0:.0} {1:.0}\" role=\"group\" \
         aria-label=\"the circuit of this prompt\">{body}</svg>",
        layout.width,
        layout.height,
        widths::picture(layout.width as usize)
    ))
}

/// Every other layer on a band, columns apart.
fn push_ground(body: &mut String, layout: &Layout, layers: usize) {
    for layer in (0..layers).step_by(2) {
        let (top, bottom) = (
            layout.rows[row(NodeKind::MlpFeature, layer, layers)],
            layout.rows[row(NodeKind::Head, layer, layers)],
        );
        let height = bottom.at + bottom.size - top.at;
        let _ = write!(
            body,
            "<path class=\"band\" d=\"M0 {:.0}H{:.0}v{height:.0}H0z\"/>",
            top.at, layout.width
        );
    }
    let ground = layout.rows.last().map_or(0.0, |row| row.at + row.size);
    let edges = layout
        .columns
        .iter()
        .filter(|column| column.used)
        .flat_map(|column| [column.at, column.at + column.size]);
    let edges: BTreeSet<i64> = edges.map(|x| x.round() as i64).collect();
    let lines: String = edges.into_iter().map(|x| format!("M{x} 4V{ground:.0}")).collect();
    let _ = write!(body, "<path class=\"column\" d=\"{lines}\"/>");
}

/// Over everything else: where the picture is scrolled, they stay.
fn push_row_names(body: &mut String, layout: &Layout, layers: usize) {
    body.push_str("<g class=\"names\">");
    for (i, strip) in layout.rows.iter().enumerate().filter(|(_, strip)| strip.used) {
        let y = strip.middle() + OF_PROMPT.air / 2.0 + 4.0;
        let _ =
            write!(body, "<text class=\"l\" x=\"6\" y=\"{y:.0}\">{}</text>", row_name(i, layers));
    }
    body.push_str("</g>");
}

fn row_name(row: usize, layers: usize) -> String {
    match row {
        0 => "answer".into(),
        row if row > 3 * layers => "input".into(),
        row => {
            format!("{} {}", ["MLP", "att.", "heads"][(row - 1) % 3], layers - 1 - (row - 1) / 3)
        }
    }
}

fn push_tokens(body: &mut String, layout: &Layout, names: &Names) {
    let ground = layout.height - 24.0;
    for (position, column) in layout.columns.iter().enumerate() {
        let (x, text) = (column.middle(), names.token(position));
        let shown = escape(&cut(&text, TOKEN[usize::from(!column.used)]));
        let class = if column.used { "token" } else { "token l" };
        let _ = write!(
            body,
            "<g><title>{position} {}</title><text class=\"{class}\" x=\"{x:.0}\" \
             y=\"{ground:.0}\">{shown}</text>",
            escape(&text)
        );
        if column.used {
            let _ = write!(
                body,
                "<text class=\"place l\" x=\"{x:.0}\" y=\"{:.0}\">{position}</text>",
                ground + 14.0
            );
        }
        body.push_str("</g>");
    }
}

/// Steps of opacity; links of one step are one group.
const SHADES: f64 = 10.0;

/// How deep the colour of a link is, in steps: the weak ones are faint, and the fainter the more
/// links there are.
fn shade(share: f64, links: usize) -> u32 {
    let least = 0.24 * (150.0 / links as f64).sqrt().min(1.0);
    ((least + (0.95 - least) * share.sqrt()) * SHADES).ceil() as u32
}

/// The widest link of a graph with so many.
fn widest(links: usize) -> f64 {
    5.0 * (150.0 / links as f64).sqrt().clamp(0.4, 1.0)
}

/// The weak ones first, so that the strong ones lie on top. They are hidden from screen readers,
/// which have the table.
fn push_lines(body: &mut String, layout: &Layout, marks: &Marks) {
    let n = marks.lines.len();
    body.push_str("<g class=\"links\" aria-hidden=\"true\">");
    for group in marks.lines.chunk_by(|a, b| shade(a.share, n) == shade(b.share, n)) {
        let opacity = f64::from(shade(group[0].share, n)) / SHADES;
        let _ = write!(body, "<g stroke-opacity=\"{opacity:.1}\">");
        group.iter().for_each(|line| push_line(body, layout, line, n));
        body.push_str("</g>");
    }
    body.push_str("</g>");
}

fn push_line(body: &mut String, layout: &Layout, line: &Line, lines: usize) {
    let (sign, slot) = (if line.negative { "neg" } else { "pos" }, line.slot.word());
    let share = line.share.clamp(0.0, 1.0);
    let _ = write!(
        body,
        "<path class=\"{}\" data-n=\"{} {}\" data-s=\"{}\" d=\"{}\" stroke-width=\"{:.1}\"/>",
        [sign, slot].join(" ").trim_end(),
        line.from,
        line.to,
        // A slider moves in larger steps.
        format!("{share:.4}").trim_end_matches('0').trim_end_matches('.'),
        curve(&layout.spots[line.from], &layout.spots[line.to], line.slot),
        0.8 + (widest(lines) - 0.8) * share,
    );
}

/// The letters of the slots that lines enter, below their heads.
fn push_slots(body: &mut String, layout: &Layout, marks: &Marks) {
    let entered: BTreeSet<(usize, Slot)> = marks
        .lines
        .iter()
        .filter(|line| line.slot != Slot::In)
        .map(|line| (line.to, line.slot))
        .collect();
    body.push_str("<g class=\"slots\" aria-hidden=\"true\">");
    for (mark, slot) in entered {
        let spot = &layout.spots[mark];
        let _ = write!(
            body,
            "<text data-m=\"{mark}\" x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            entry(spot, slot),
            spot.y + OF_PROMPT.height / 2.0 + 8.0,
            slot.word()
        );
    }
    body.push_str("</g>");
}

/// Where a link ends: the slots of a head are side by side at its lower edge.
fn entry(to: &Spot, slot: Slot) -> f64 {
    let aside = match slot {
        Slot::Q => -0.3,
        Slot::V => 0.3,
        Slot::In | Slot::K => 0.0,
    };
    to.x + aside * to.width
}

/// From the upper edge of one node to the lower edge of another. A long way straight up is bowed,
/// or it would hide behind the nodes between.
fn curve(from: &Spot, to: &Spot, slot: Slot) -> String {
    let (x1, y1) = (from.x, from.y - OF_PROMPT.height / 2.0);
    let (x2, y2) = (entry(to, slot), to.y + OF_PROMPT.height / 2.0);
    let rise = (y1 - y2).max(0.0);
    let bow = if (x1 - x2).abs() < 40.0 && rise > 60.0 { (rise * 0.2).min(55.0) } else { 0.0 };
    let (c1, c2) = (y1 - rise * 0.5, y2 + rise * 0.5);
    format!("M{x1:.0} {y1:.0}C{:.0} {c1:.0} {:.0} {c2:.0} {x2:.0} {y2:.0}", x1 - bow, x2 - bow)
}

/// The outline of a kind of node around a middle.
fn outline(kind: NodeKind, (x, y): (f64, f64), (width, height): (f64, f64)) -> String {
    let (w, h) = (width / 2.0, height / 2.0);
    // Corners cut off: a little for an attention feature, to a point for a head.
    let (cut, side) = match kind {
        NodeKind::Head => (8.0, h),
        NodeKind::AttentionFeature => (5.0, 5.0),
        NodeKind::Root | NodeKind::MlpFeature => {
            return format!(
                "M{:.1} {:.1}h{:.1}a{h} {h} 0 0 1 0 {height}h{:.1}a{h} {h} 0 0 1 0-{height}z",
                x - w + h,
                y - h,
                width - height,
                height - width
            );
        }
        _ => return format!("M{:.1} {:.1}h{width:.1}v{height}h{:.1}z", x - w, y - h, -width),
    };
    format!(
        "M{:.1} {:.1}h{:.1}l{cut} {side}v{3:.0}l-{cut} {side}h-{2:.1}l-{cut}-{side}v-{3:.0}z",
        x - w + cut,
        y - h,
        width - 2.0 * cut,
        height - 2.0 * side
    )
}

/// A mark: its name, and below it a few words.
fn push_node(
    body: &mut String,
    spot: &Spot,
    names: &Names,
    (mark, nodes): (usize, &[usize]),
    short: &str,
) {
    let first = nodes[0];
    let kind = names.graph.nodes()[first].kind;
    let _ = write!(
        body,
        "<a class=\"node {}\" href=\"{}\" data-n=\"{mark}\"><title>{}</title><path \
         d=\"{}\"/><text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
        class(kind),
        names.href(first),
        escape(&names.title(nodes)),
        outline(kind, (spot.x, spot.y), (spot.width, OF_PROMPT.height)),
        spot.x,
        spot.y + if short.is_empty() { 4.0 } else { -2.0 },
        escape(&names.name(first)),
    );
    if !short.is_empty() {
        let _ = write!(
            body,
            "<text class=\"says\" x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            spot.x,
            spot.y + 10.0,
            escape(short)
        );
    }
    body.push_str("</a>");
}

/// The kinds of nodes in a graph, each as it is drawn, with its words.
pub(crate) fn key(names: &Names) -> Vec<(Html, &'static str)> {
    let mut kinds: Vec<NodeKind> = names.graph.nodes().iter().map(|node| node.kind).collect();
    kinds.sort();
    kinds.dedup();
    let icon = |kind: NodeKind| {
        let shape = outline(kind, (15.0, 10.0), (28.0, 18.0));
        let class = class(kind);
        html(format!(
            "<svg class=\"graph icon\" viewBox=\"0 0 30 20\" aria-hidden=\"true\"><g class=\"node \
             {class}\"><path d=\"{shape}\"/></g></svg>"
        ))
    };
    kinds.into_iter().map(|kind| (icon(kind), kind_word(kind))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(d: &str) -> Vec<f64> {
        d.split(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')
            .filter_map(|n| n.parse().ok())
            .collect()
    }

    #[test]
    fn links_end_at_their_nodes() {
        let (from, to) =
            (Spot { x: 100.0, y: 300.0, width: 40.0 }, Spot { x: 220.0, y: 60.0, width: 50.0 });
        for slot in [Slot::In, Slot::Q, Slot::K, Slot::V] {
            let n = numbers(&curve(&from, &to, slot));
            assert_eq!((n[0], n[1]), (from.x, from.y - OF_PROMPT.height / 2.0));
            assert_eq!(n[7], to.y + OF_PROMPT.height / 2.0);
            assert!((n[6] - to.x).abs() <= to.width / 2.0);
        }
    }

    #[test]
    fn rows_go_from_the_answer_down_to_the_input() {
        let order = [
            row(NodeKind::Root, 0, 2),
            row(NodeKind::MlpFeature, 1, 2),
            row(NodeKind::AttentionError, 1, 2),
            row(NodeKind::Head, 1, 2),
            row(NodeKind::MlpError, 0, 2),
            row(NodeKind::AttentionFeature, 0, 2),
            row(NodeKind::Head, 0, 2),
            row(NodeKind::Embedding, 0, 2),
        ];
        assert!(order.iter().copied().eq(0..8));
        assert_eq!([0, 1, 3, 7].map(|i| row_name(i, 2)), ["answer", "MLP 1", "heads 1", "input"]);
    }
}
