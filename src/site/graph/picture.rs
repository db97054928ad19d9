//! The graph as SVG. Shapes tell the kinds of nodes, colours the signs of effects, widths their
//! shares, dashes the slots.

use super::layout::{AIR, Box, HEIGHT, Layout, Spot};
use super::names::Names;
use super::names::slot_word;
use crate::atlas::model::{Link, kind_word};
use crate::format::text::cut;
use crate::format::text::visible;
use crate::ids::{NodeKind, Slot};
use crate::site::text::{Html, escape, html};
use crate::site::widths;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Width of a letter in a node and in a token.
const LETTER: f64 = 6.05;
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
pub(crate) fn picture(names: &Names, layers: usize) -> Html {
    let graph = names.graph;
    let last = graph.tokens.len().saturating_sub(1);
    let node_box = |i: usize| Box {
        row: row(graph.nodes()[i].kind, graph.nodes()[i].layer(), layers),
        column: graph.position(i).min(last),
        width: columns(&names.name(i)) * LETTER + MARGIN,
    };
    let boxes: Vec<Box> = (0..graph.nodes().len()).map(node_box).collect();
    let links: Vec<(usize, usize)> =
        graph.links().iter().map(|link| (link.from, link.to)).collect();
    let tokens: Vec<f64> =
        graph.tokens.iter().map(|(_, t)| columns(&cut(&visible(t), TOKEN[0])) * LETTER).collect();
    let layout = Layout::new(&boxes, &links, 2 + 3 * layers, &tokens);
    let mut body = String::new();
    push_ground(&mut body, &layout, layers);
    push_tokens(&mut body, &layout, names);
    push_links(&mut body, &layout, names);
    (0..boxes.len()).for_each(|i| push_node(&mut body, &layout.spots[i], names, i));
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
        let y = strip.middle() + AIR / 2.0 + 4.0;
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
fn push_links(body: &mut String, layout: &Layout, names: &Names) {
    let mut links: Vec<&Link> = names.graph.links().iter().collect();
    links.sort_by(|a, b| a.share.total_cmp(&b.share));
    let share = |link: &Link| f64::from(link.share).clamp(0.0, 1.0);
    body.push_str("<g class=\"links\" aria-hidden=\"true\">");
    for group in links.chunk_by(|a, b| shade(share(a), links.len()) == shade(share(b), links.len()))
    {
        let _ = write!(
            body,
            "<g stroke-opacity=\"{:.1}\">",
            f64::from(shade(share(group[0]), links.len())) / SHADES
        );
        group.iter().for_each(|link| push_link(body, layout, names, link, share(link)));
        body.push_str("</g>");
    }
    body.push_str("</g>");
}

fn push_link(body: &mut String, layout: &Layout, names: &Names, link: &Link, share: f64) {
    let (sign, slot) = (if link.effect < 0.0 { "neg" } else { "pos" }, slot_word(link));
    let _ = write!(
        body,
        "<path class=\"{}\" data-n=\"{} {}\" d=\"{}\" \
         stroke-width=\"{:.1}\"><title>{}</title></path>",
        [sign, slot].join(" ").trim_end(),
        link.from,
        link.to,
        curve(&layout.spots[link.from], &layout.spots[link.to], link.slot),
        0.8 + (widest(names.graph.links().len()) - 0.8) * share,
        escape(&names.link(link)),
    );
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
    let (x1, y1) = (from.x, from.y - HEIGHT / 2.0);
    let (x2, y2) = (entry(to, slot), to.y + HEIGHT / 2.0);
    let rise = (y1 - y2).max(0.0);
    let bow = if (x1 - x2).abs() < 40.0 && rise > 60.0 { (rise * 0.2).min(55.0) } else { 0.0 };
    let (c1, c2) = (y1 - rise * 0.5, y2 + rise * 0.5);
    format!("M{x1:.0} {y1:.0}C{:.0} {c1:.0} {:.0} {c2:.0} {x2:.0} {y2:.0}", x1 - bow, x2 - bow)
}

/// The outline of a kind of node around a middle.
fn outline(kind: NodeKind, (x, y): (f64, f64), width: f64) -> String {
    let (w, h) = (width / 2.0, HEIGHT / 2.0);
    let cut = match kind {
        NodeKind::Head => 7.0,
        NodeKind::AttentionFeature => 4.0,
        NodeKind::Root | NodeKind::MlpFeature => {
            return format!(
                "M{:.1} {:.1}h{:.1}a9 9 0 0 1 0 18h{:.1}a9 9 0 0 1 0-18z",
                x - w + h,
                y - h,
                width - 2.0 * h,
                2.0 * h - width
            );
        }
        _ => return format!("M{:.1} {:.1}h{width:.1}v18h{:.1}z", x - w, y - h, -width),
    };
    // Corners cut off: a little for an attention feature, to a point for a head.
    let side = if kind == NodeKind::Head { 9.0 } else { 4.0 };
    format!(
        "M{:.1} {:.1}h{:.1}l{cut} {side}v{3:.0}l-{cut} {side}h-{2:.1}l-{cut}-{side}v-{3:.0}z",
        x - w + cut,
        y - h,
        width - 2.0 * cut,
        HEIGHT - 2.0 * side
    )
}

fn push_node(body: &mut String, spot: &Spot, names: &Names, at: usize) {
    let kind = names.graph.nodes()[at].kind;
    let _ = write!(
        body,
        "<a class=\"node {}\" href=\"{}\" data-n=\"{at}\"><title>{}</title><path d=\"{}\"/><text \
         x=\"{:.0}\" y=\"{:.0}\">{}</text></a>",
        class(kind),
        names.href(at),
        escape(&names.title(at)),
        outline(kind, (spot.x, spot.y), spot.width),
        spot.x,
        spot.y + 4.0,
        escape(&names.name(at)),
    );
}

/// The kinds of nodes in a graph, each as it is drawn, with its words.
pub(crate) fn key(names: &Names) -> Vec<(Html, &'static str)> {
    let mut kinds: Vec<NodeKind> = names.graph.nodes().iter().map(|node| node.kind).collect();
    kinds.sort();
    kinds.dedup();
    let icon = |kind: NodeKind| {
        let shape = outline(kind, (15.0, 10.0), 28.0);
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
            assert_eq!((n[0], n[1]), (from.x, from.y - HEIGHT / 2.0));
            assert_eq!(n[7], to.y + HEIGHT / 2.0);
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
