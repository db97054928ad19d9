//! Pictures of social cards: what a page looks like in one glance where somebody shares its address.
//! Only sites with an address have them, as cards name their picture by its address.

mod canvas;

use super::build::Output;
use super::links::Site;
use super::views::{Drawn, drawn};
use crate::error::Result;
use crate::format::number::{count, counted};
use crate::ids::{Component, NodeKind};
use crate::process;
use canvas::{Canvas, Colour, HEIGHT, WIDTH};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

const PAPER: Colour = [251, 250, 247];
const INK: Colour = [29, 35, 39];
const SOFT: Colour = [88, 98, 107];
const RULE: Colour = [227, 223, 213];
const ACCENT: Colour = [11, 94, 107];
const DOWN: Colour = [160, 60, 49];
const HEAT: Colour = [240, 135, 20];

/// Where a drawing may be: left, top, right, bottom.
const FRAME: [f32; 4] = [60.0, 220.0, WIDTH as f32 - 60.0, HEIGHT as f32 - 45.0];

/// The picture of a page, from the site's folder: its own of a task and of a graph, else that of the
/// front page.
pub(super) fn path(page: &str) -> String {
    let own = ["tasks/", "graphs/"].iter().any(|folder| page.starts_with(folder));
    match page.strip_suffix(".html").filter(|page| own && !page.ends_with("/index")) {
        Some(page) => format!("cards/{page}.png"),
        None => "cards/index.png".into(),
    }
}

/// By picture: what it was made from. So one of the site before is known to be still as it has to be.
const KEYS: &str = "cards/keys.json";

/// The pictures that are written.
struct Cards<'a> {
    output: &'a Output<'a>,
    before: BTreeMap<String, String>,
    keys: Mutex<BTreeMap<String, String>>,
}

impl<'a> Cards<'a> {
    fn new(output: &'a Output<'a>) -> Cards<'a> {
        let before = output.before(KEYS).and_then(|text| serde_json::from_slice(&text).ok());
        Cards { output, before: before.unwrap_or_default(), keys: Mutex::default() }
    }

    /// Writes the picture of a page, which is drawn if there is none like it.
    fn save(&self, page: &str, canvas: &Canvas) -> Result<()> {
        process::check()?;
        let (path, key) = (path(page), canvas.key());
        if self.before.get(&path) != Some(&key) || !self.output.keep(&path) {
            self.output.write(&path, &canvas.png()?)?;
        }
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(path, key);
        Ok(())
    }

    fn done(self) -> Result<()> {
        let keys = self.keys.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.output.write(KEYS, serde_json::to_string(&keys)?.as_bytes())
    }
}

/// Writes every picture into the folder of the site.
///
/// # Errors
/// When one cannot be written.
pub(super) fn write(site: &Site, output: &Output) -> Result<()> {
    let atlas = site.atlas;
    if atlas.base_url.is_empty() {
        return Ok(());
    }
    for folder in ["cards/tasks", "cards/graphs"] {
        output.folder(folder)?;
    }
    let cards = Cards::new(output);
    let most = |tasks: &[(String, f64)]| tasks.iter().map(|task| task.1).fold(0.0, f64::max);
    let shades = atlas.components.iter().map(|c| (c.component, most(&c.tasks))).collect();
    let told = format!(
        "{}: {} in the circuits of {}",
        atlas.model,
        counted(atlas.features.len(), "feature"),
        counted(atlas.tasks.len(), "task")
    );
    cards.save("index.html", &map(site, &atlas.title, &told, &shades))?;
    for task in &atlas.tasks {
        let shades = task.components.iter().map(|c| (c.component, c.frequency)).collect();
        let told = format!(
            "{}: {} in the circuits of {}",
            atlas.model,
            counted(task.components.len(), "component"),
            counted(task.prompts.len(), "prompt")
        );
        cards.save(&format!("tasks/{}.html", task.name), &map(site, &task.name, &told, &shades))?;
    }
    let graphs: Vec<Drawn> = atlas.tasks.iter().flat_map(drawn).collect();
    graphs.par_iter().try_for_each(|one| cards.save(&one.path("html"), &graph(site, one)))?;
    cards.done()
}

fn headed(title: &str, told: &str) -> Canvas {
    let mut canvas = Canvas::new(PAPER);
    canvas.rectangle([0.0, 0.0, WIDTH as f32, 14.0], ACCENT, 1.0);
    canvas.text(title, [60.0, 108.0], 62.0, 5.0, INK);
    canvas.text(told, [60.0, 172.0], 30.0, 2.6, SOFT);
    canvas
}

/// Layers × heads and MLPs, each as deep as it is frequent.
fn map(site: &Site, title: &str, told: &str, shades: &BTreeMap<Component, f64>) -> Canvas {
    let (layers, heads) = (site.atlas.layers, site.atlas.heads);
    let mut canvas = headed(title, told);
    let [left, top, right, bottom] = FRAME;
    let (across, up) = ((right - left) / (heads as f32 + 1.4), (bottom - top) / layers as f32);
    let gap = (across.min(up) * 0.08).max(1.0);
    for component in Component::all(layers, heads) {
        let column = component.head().map_or(heads as f32 + 0.4, |head| head as f32);
        let x = left + column * across;
        let y = top + component.layer() as f32 * up;
        let cell = [x, y, x + across - gap, y + up - gap];
        canvas.rectangle(cell, RULE, 1.0);
        canvas.rectangle([cell[0] + 1.5, cell[1] + 1.5, cell[2] - 1.5, cell[3] - 1.5], PAPER, 1.0);
        if let Some(shade) = shades.get(&component) {
            canvas.rectangle(cell, ACCENT, *shade as f32);
        }
    }
    canvas
}

/// The nodes of a prompt's circuit by position and layer, and its links.
fn graph(site: &Site, one: &Drawn) -> Canvas {
    let graph = one.graph;
    let title = format!("{}, prompt {}", one.task.name, graph.number);
    let sizes = (count(graph.nodes().len() as u64), count(graph.links().len() as u64));
    let told = format!("{}: {} nodes and {} links", site.atlas.model, sizes.0, sizes.1);
    let mut canvas = headed(&title, &told);
    let spots = spots(one, site.atlas.layers);
    let mut links: Vec<_> = graph.links().iter().collect();
    links.sort_by(|a, b| a.share.abs().total_cmp(&b.share.abs()));
    for link in links {
        let colour = if link.effect < 0.0 { DOWN } else { ACCENT };
        let share = link.share.abs().clamp(0.0, 1.0);
        canvas.curve(
            spots[link.from],
            spots[link.to],
            1.0 + 7.0 * share,
            colour,
            0.15 + 0.6 * share,
        );
    }
    for (node, spot) in graph.nodes().iter().zip(&spots) {
        let colour = match node.kind {
            NodeKind::Root => INK,
            NodeKind::MlpFeature => ACCENT,
            NodeKind::AttentionFeature | NodeKind::Head => HEAT,
            _ => SOFT,
        };
        canvas.dot(*spot, if node.kind == NodeKind::Root { 11.0 } else { 7.0 }, colour);
    }
    canvas
}

/// Where the nodes are: tokens from left to right, layers from bottom to top; nodes at the same place
/// side by side.
fn spots(one: &Drawn, layers: usize) -> Vec<[f32; 2]> {
    let graph = one.graph;
    let row = |kind: NodeKind, layer: usize| match kind {
        NodeKind::Root => 3 * layers + 1,
        NodeKind::Embedding | NodeKind::PositionEmbedding => 0,
        NodeKind::Head => 3 * layer + 1,
        NodeKind::AttentionFeature | NodeKind::AttentionError | NodeKind::Bias(_) => 3 * layer + 2,
        NodeKind::MlpFeature | NodeKind::MlpError => 3 * layer + 3,
    };
    let place = |i: usize| {
        let node = &graph.nodes()[i];
        let layer = if node.kind == NodeKind::Root { layers } else { node.layer() };
        (graph.position(i), row(node.kind, layer))
    };
    let mut there: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let nth: Vec<usize> = (0..graph.nodes().len())
        .map(|i| {
            let n = there.entry(place(i)).or_default();
            *n += 1;
            *n - 1
        })
        .collect();
    let [left, top, right, bottom] = FRAME;
    let across = (right - left) / graph.tokens.len().max(1) as f32;
    let up = (bottom - top) / (3 * layers + 1) as f32;
    let spot = |i: usize| {
        let (column, row) = place(i);
        let of = there[&(column, row)];
        let within = (nth[i] as f32 + 0.5) / of as f32;
        [left + (column as f32 + within) * across, bottom - row as f32 * up]
    };
    (0..graph.nodes().len()).map(spot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_graphs_have_pictures_of_their_own() {
        for (page, card) in [
            ("index.html", "cards/index.png"),
            ("features/att1.2.html", "cards/index.png"),
            ("tasks/index.html", "cards/index.png"),
            ("tasks/ioi.html", "cards/tasks/ioi.png"),
            ("graphs/ioi-3.html", "cards/graphs/ioi-3.png"),
        ] {
            assert_eq!(path(page), card);
        }
    }
}
