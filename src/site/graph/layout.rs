//! Where everything of a graph stands: a column a token, a row a part of the model, nodes of one
//! cell side by side.
//!
//! Knows sizes and places only. Lengths are in pixels, y grows downwards, the row of the answer is
//! the first.

use std::collections::BTreeMap;

/// Height of a node.
pub(super) const HEIGHT: f64 = 30.0;
/// Between two lines of one cell, from middle to middle.
const LINE: f64 = 37.0;
/// Free space above the nodes of a row, for the links.
pub(super) const AIR: f64 = 26.0;
/// Height of a row without nodes.
const EMPTY: f64 = 5.0;
/// Between two nodes of a cell.
const GAP: f64 = 7.0;
/// Beside the nodes or the token of a column.
const PAD: f64 = 7.0;
/// Room for the names of the rows, for the tokens, and above everything.
const LEFT: f64 = 62.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 4.0;
/// A column without nodes is no wider than this.
const NARROW: f64 = 44.0;
/// A page is this wide; what is wider has to be scrolled to.
const PAGE: f64 = 1000.0;
/// So many nodes of a cell may go into one line.
const PER_LINE: std::ops::RangeInclusive<usize> = 2..=8;

/// A node before it is placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Box {
    pub row: usize,
    pub column: usize,
    pub width: f64,
}

/// A node's middle and width.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spot {
    pub x: f64,
    pub y: f64,
    pub width: f64,
}

/// A column or a row: where it begins, how long it is, whether a node is in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Strip {
    pub at: f64,
    pub size: f64,
    pub used: bool,
}

impl Strip {
    pub(super) fn middle(&self) -> f64 {
        self.at + self.size / 2.0
    }
}

#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub width: f64,
    pub height: f64,
    /// By node.
    pub spots: Vec<Spot>,
    pub columns: Vec<Strip>,
    pub rows: Vec<Strip>,
}

/// The nodes of one place, and how they are set.
struct Cell {
    nodes: Vec<usize>,
    /// Of the widest, with the gap.
    pitch: f64,
}

impl Cell {
    fn lines(&self, per_line: usize) -> usize {
        self.nodes.len().div_ceil(per_line)
    }

    /// The lines are as long as each other.
    fn per_line(&self, most: usize) -> usize {
        self.nodes.len().div_ceil(self.lines(most))
    }

    fn width(&self, most: usize) -> f64 {
        self.pitch * self.per_line(most) as f64 - GAP
    }
}

/// By row, then column.
type Cells = BTreeMap<(usize, usize), Cell>;

fn cells(boxes: &[Box]) -> Cells {
    let mut cells = Cells::new();
    for (i, node) in boxes.iter().enumerate() {
        let cell =
            cells.entry((node.row, node.column)).or_insert(Cell { nodes: Vec::new(), pitch: 0.0 });
        cell.nodes.push(i);
        cell.pitch = cell.pitch.max(node.width + GAP);
    }
    cells
}

fn columns(cells: &Cells, tokens: &[f64], per_line: usize) -> Vec<Strip> {
    let mut widths: Vec<Option<f64>> = vec![None; tokens.len()];
    for ((_, column), cell) in cells {
        widths[*column] = Some(widths[*column].unwrap_or(0.0).max(cell.width(per_line)));
    }
    let size = |(width, token): (&Option<f64>, &f64)| match width {
        Some(width) => (width.max(*token) + 2.0 * PAD, true),
        None => (token.min(NARROW) + PAD, false),
    };
    strips(LEFT, widths.iter().zip(tokens).map(size))
}

fn rows(cells: &Cells, n: usize, per_line: usize) -> Vec<Strip> {
    let mut lines = vec![0; n];
    for ((row, _), cell) in cells {
        lines[*row] = lines[*row].max(cell.lines(per_line));
    }
    let size = |lines: usize| match lines {
        0 => (EMPTY, false),
        n => (AIR + LINE * (n - 1) as f64 + HEIGHT, true),
    };
    strips(TOP, lines.into_iter().map(size))
}

/// One after the other.
fn strips(start: f64, sizes: impl Iterator<Item = (f64, bool)>) -> Vec<Strip> {
    let mut at = start;
    sizes
        .map(|(size, used)| {
            let strip = Strip { at, size, used };
            at += size;
            strip
        })
        .collect()
}

fn end(strips: &[Strip]) -> f64 {
    strips.last().map_or(0.0, |strip| strip.at + strip.size)
}

/// How much there is to scroll: what goes beyond the page's width counts somewhat less, as one goes
/// there in one sweep.
fn cost((columns, rows): &(Vec<Strip>, Vec<Strip>)) -> f64 {
    let beyond = (end(columns) + PAD - PAGE).max(0.0);
    // Among the pictures on the page, the narrower costs a trifle less.
    end(rows) + 0.7 * beyond + 0.01 * end(columns)
}

impl Layout {
    /// Places `boxes` in `rows` rows and a column for each of `tokens`, which are widths of their
    /// texts. `links` go from lower to higher nodes; nodes of a cell stand in the order of what
    /// they lead to.
    pub(super) fn new(
        boxes: &[Box],
        links: &[(usize, usize)],
        rows_: usize,
        tokens: &[f64],
    ) -> Layout {
        let cells = cells(boxes);
        let strips =
            |per_line: usize| (columns(&cells, tokens, per_line), rows(&cells, rows_, per_line));
        let per_line =
            PER_LINE.min_by(|a, b| cost(&strips(*a)).total_cmp(&cost(&strips(*b)))).unwrap_or(2);
        let (columns, rows) = strips(per_line);
        let spots = spots(boxes, links, &cells, (&columns, &rows), per_line);
        Layout { width: end(&columns) + PAD, height: end(&rows) + BOTTOM, spots, columns, rows }
    }
}

fn spots(
    boxes: &[Box],
    links: &[(usize, usize)],
    cells: &Cells,
    (columns, rows): (&[Strip], &[Strip]),
    most: usize,
) -> Vec<Spot> {
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); boxes.len()];
    links.iter().for_each(|&(from, to)| parents[from].push(to));
    let mut spots = vec![Spot::default(); boxes.len()];
    // Rows come from the top, so that whatever a node leads to has its place.
    for ((row, column), cell) in cells {
        let aim = |i: usize| {
            let own = parents[i].iter().map(|&parent| spots[parent].x);
            own.sum::<f64>() / parents[i].len().max(1) as f64
        };
        let mut order: Vec<(f64, usize)> = cell.nodes.iter().map(|&i| (aim(i), i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let per_line = cell.per_line(most);
        for (line, nodes) in order.chunks(per_line).enumerate() {
            let left = columns[*column].middle() - cell.pitch * nodes.len() as f64 / 2.0;
            let y = rows[*row].at + AIR + LINE * line as f64 + HEIGHT / 2.0;
            for (k, &(_, i)) in nodes.iter().enumerate() {
                spots[i] =
                    Spot { x: left + cell.pitch * (k as f64 + 0.5), y, width: boxes[i].width };
            }
        }
    }
    spots
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dense graph: 200 nodes over 20 rows and 15 columns, most of them in the last one.
    fn big() -> (Vec<Box>, Vec<(usize, usize)>) {
        let place = |i: usize| if i.is_multiple_of(2) { 14 } else { (i * 7) % 15 };
        let node =
            |i: usize| Box { row: i / 10, column: place(i), width: 30.0 + (i * 13 % 40) as f64 };
        let links = (1..200).map(|i| (i, i * 5 / 7)).filter(|(from, to)| from / 10 > to / 10);
        ((0..200).map(node).collect(), links.collect())
    }

    fn overlap(a: &Spot, b: &Spot) -> bool {
        (a.x - b.x).abs() < (a.width + b.width) / 2.0 && (a.y - b.y).abs() < HEIGHT
    }

    #[test]
    fn no_two_nodes_overlap_and_all_are_in_their_cells() {
        let (boxes, links) = big();
        let layout = Layout::new(&boxes, &links, 21, &[30.0; 15]);
        for (i, a) in layout.spots.iter().enumerate() {
            assert!(layout.spots[i + 1..].iter().all(|b| !overlap(a, b)), "{i}");
            let (column, row) = (layout.columns[boxes[i].column], layout.rows[boxes[i].row]);
            assert!(
                column.at <= a.x - a.width / 2.0 && a.x + a.width / 2.0 <= column.at + column.size,
                "{i}"
            );
            assert!(row.at <= a.y - HEIGHT / 2.0 && a.y + HEIGHT / 2.0 <= row.at + row.size, "{i}");
            assert!(column.at + column.size <= layout.width && row.at + row.size <= layout.height);
        }
    }

    #[test]
    fn two_hundred_nodes_stay_in_bounds() {
        let (boxes, links) = big();
        let layout = Layout::new(&boxes, &links, 21, &[30.0; 15]);
        // Fifteen columns of nodes that are 69 wide cannot be narrower than 1245.
        assert!(
            layout.width < 1.7 * PAGE && layout.height < 1500.0,
            "{} {}",
            layout.width,
            layout.height
        );
    }

    #[test]
    fn links_go_up_and_what_is_empty_is_narrow() {
        let (boxes, links) = big();
        let layout = Layout::new(&boxes, &links, 21, &[90.0; 16]);
        assert!(links.iter().all(|&(from, to)| layout.spots[from].y > layout.spots[to].y));
        assert!(!layout.columns[15].used && layout.columns[15].size < layout.columns[1].size);
        assert!(!layout.rows[20].used && layout.rows[20].size == EMPTY);
    }

    #[test]
    fn nothing_at_all_is_a_picture() {
        let layout = Layout::new(&[], &[], 3, &[]);
        assert!(layout.spots.is_empty() && layout.height > 0.0);
    }
}
