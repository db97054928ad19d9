//! Where everything of a graph stands: a column a token or a place, a row a part of the model, nodes
//! of one cell side by side.
//!
//! Knows sizes and places only. Lengths are in pixels, y grows downwards, the row of the answer is
//! the first.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Sizes of a picture.
#[derive(Clone, Debug)]
pub(super) struct Measures {
    /// Of a node.
    pub height: f64,
    /// Free space above the nodes of a row, for the links.
    pub air: f64,
    /// Room for the names of the rows, and above and below everything.
    pub left: f64,
    pub top: f64,
    pub bottom: f64,
    /// Between two nodes of a cell.
    pub gap: f64,
    /// Beside the nodes or the name of a column.
    pub pad: f64,
    /// Height of a row without nodes.
    pub empty: f64,
    /// A column without nodes is no wider than this, and has this beside its name.
    pub narrow: Option<(f64, f64)>,
    /// The width of the page; what is wider has to be scrolled to.
    pub width: f64,
    /// So many nodes of a cell may go into one line.
    pub per_line: RangeInclusive<usize>,
    /// What a pixel of width costs, beyond the page and at all, where one of height costs 1.
    pub across: (f64, f64),
    /// Whether what is free is divided among columns and lines.
    pub spread: bool,
}

/// Of the graph of a prompt. What goes beyond the page's width costs somewhat less, as one goes there
/// in one sweep; among the pictures on the page, the narrower costs a trifle less.
pub(super) const OF_PROMPT: Measures = Measures {
    height: 30.0,
    air: 26.0,
    left: 62.0,
    top: 4.0,
    bottom: 40.0,
    gap: 7.0,
    pad: 7.0,
    empty: 5.0,
    narrow: Some((44.0, 7.0)),
    width: 1000.0,
    per_line: 2..=8,
    across: (0.7, 0.01),
    spread: false,
};

/// Of the picture of a task, as large as on its own page.
pub(super) const OF_TASK: Measures = Measures {
    height: 32.0,
    air: 30.0,
    left: 66.0,
    top: 6.0,
    bottom: 44.0,
    gap: 8.0,
    pad: 9.0,
    empty: 0.0,
    narrow: None,
    width: 1090.0,
    per_line: 1..=9,
    across: (1.5, 0.0),
    spread: true,
};

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
}

/// By row, then column.
type Cells = BTreeMap<(usize, usize), Cell>;

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

impl Layout {
    /// Places `boxes` in `rows` rows and a column for each of `names`, which are widths of their
    /// texts. `links` go from lower to higher nodes; nodes of a cell stand in the order of what
    /// they lead to.
    pub(super) fn new(
        boxes: &[Box],
        links: &[(usize, usize)],
        rows: usize,
        names: &[f64],
        measures: &Measures,
    ) -> Layout {
        let cells = measures.cells(boxes);
        let strips = |per_line: usize| {
            (measures.columns(&cells, names, per_line), measures.rows(&cells, rows, per_line))
        };
        let cost = |per_line: &usize| measures.cost(&strips(*per_line));
        let range = measures.per_line.clone();
        let first = *range.start();
        let per_line = range.min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(first);
        let (mut columns, rows) = strips(per_line);
        if measures.spread {
            widen(&mut columns, measures.width - measures.pad);
        }
        let spots = measures.spots(boxes, links, &cells, (&columns, &rows), per_line);
        let (width, height) = (end(&columns) + measures.pad, end(&rows) + measures.bottom);
        Layout { width, height, spots, columns, rows }
    }
}

/// What is free is divided among the columns.
fn widen(columns: &mut [Strip], to: f64) {
    let more = (to - end(columns)).max(0.0) / columns.len().max(1) as f64;
    for (i, column) in columns.iter_mut().enumerate() {
        column.at += more * i as f64;
        column.size += more;
    }
}

impl Measures {
    /// From the middle of a line of a cell to that of the next.
    fn line(&self) -> f64 {
        self.height + self.gap
    }

    fn cells(&self, boxes: &[Box]) -> Cells {
        let mut cells = Cells::new();
        for (i, node) in boxes.iter().enumerate() {
            let cell = cells
                .entry((node.row, node.column))
                .or_insert(Cell { nodes: Vec::new(), pitch: 0.0 });
            cell.nodes.push(i);
            cell.pitch = cell.pitch.max(node.width + self.gap);
        }
        cells
    }

    fn columns(&self, cells: &Cells, names: &[f64], per_line: usize) -> Vec<Strip> {
        let mut widths: Vec<Option<f64>> = vec![None; names.len()];
        for ((_, column), cell) in cells {
            let width = cell.pitch * cell.per_line(per_line) as f64 - self.gap;
            widths[*column] = Some(widths[*column].unwrap_or(0.0).max(width));
        }
        let size = |(width, name): (&Option<f64>, &f64)| match (width, self.narrow) {
            (None, Some((most, beside))) => (name.min(most) + beside, false),
            _ => (width.unwrap_or(0.0).max(*name) + 2.0 * self.pad, width.is_some()),
        };
        strips(self.left, widths.iter().zip(names).map(size))
    }

    fn rows(&self, cells: &Cells, n: usize, per_line: usize) -> Vec<Strip> {
        let mut lines = vec![0; n];
        for ((row, _), cell) in cells {
            lines[*row] = lines[*row].max(cell.lines(per_line));
        }
        let size = |lines: usize| match lines {
            0 => (self.empty, false),
            n => (self.air + self.line() * (n - 1) as f64 + self.height, true),
        };
        strips(self.top, lines.into_iter().map(size))
    }

    /// How much there is to scroll.
    fn cost(&self, (columns, rows): &(Vec<Strip>, Vec<Strip>)) -> f64 {
        let (beyond, at_all) = self.across;
        let wider = (end(columns) + self.pad - self.width).max(0.0);
        end(rows) + beyond * wider + at_all * end(columns)
    }

    fn spots(
        &self,
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
            let (column, row) = (columns[*column], rows[*row]);
            let (most, above) = match self.spread {
                false => (most, 0.0),
                true => {
                    let room = column.size - 2.0 * self.pad + self.gap;
                    let most = (room / cell.pitch).floor().max(1.0) as usize;
                    let lines = cell.lines(cell.per_line(most)) as f64;
                    let free = row.size - self.air - lines * self.line() + self.gap;
                    (most, free.max(0.0) / 2.0)
                }
            };
            for (line, nodes) in order.chunks(cell.per_line(most)).enumerate() {
                let left = column.middle() - cell.pitch * nodes.len() as f64 / 2.0;
                let y = row.at + self.air + above + self.line() * line as f64 + self.height / 2.0;
                for (k, &(_, i)) in nodes.iter().enumerate() {
                    spots[i] =
                        Spot { x: left + cell.pitch * (k as f64 + 0.5), y, width: boxes[i].width };
                }
            }
        }
        spots
    }
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
        (a.x - b.x).abs() < (a.width + b.width) / 2.0 && (a.y - b.y).abs() < OF_PROMPT.height
    }

    #[test]
    fn no_two_nodes_overlap_and_all_are_in_their_cells() {
        let (boxes, links) = big();
        let layout = Layout::new(&boxes, &links, 21, &[30.0; 15], &OF_PROMPT);
        for (i, a) in layout.spots.iter().enumerate() {
            assert!(layout.spots[i + 1..].iter().all(|b| !overlap(a, b)), "{i}");
            let (column, row) = (layout.columns[boxes[i].column], layout.rows[boxes[i].row]);
            assert!(
                column.at <= a.x - a.width / 2.0 && a.x + a.width / 2.0 <= column.at + column.size,
                "{i}"
            );
            assert!(
                row.at <= a.y - OF_PROMPT.height / 2.0
                    && a.y + OF_PROMPT.height / 2.0 <= row.at + row.size,
                "{i}"
            );
            assert!(column.at + column.size <= layout.width && row.at + row.size <= layout.height);
        }
    }

    #[test]
    fn two_hundred_nodes_stay_in_bounds() {
        let (boxes, links) = big();
        let layout = Layout::new(&boxes, &links, 21, &[30.0; 15], &OF_PROMPT);
        // Fifteen columns of nodes that are 69 wide cannot be narrower than 1245.
        assert!(
            layout.width < 1.7 * OF_PROMPT.width && layout.height < 1500.0,
            "{} {}",
            layout.width,
            layout.height
        );
    }

    #[test]
    fn links_go_up_and_what_is_empty_is_narrow() {
        let (boxes, links) = big();
        let layout = Layout::new(&boxes, &links, 21, &[90.0; 16], &OF_PROMPT);
        assert!(links.iter().all(|&(from, to)| layout.spots[from].y > layout.spots[to].y));
        assert!(!layout.columns[15].used && layout.columns[15].size < layout.columns[1].size);
        assert!(!layout.rows[20].used && layout.rows[20].size == OF_PROMPT.empty);
    }

    #[test]
    fn nothing_at_all_is_a_picture() {
        let layout = Layout::new(&[], &[], 3, &[], &OF_PROMPT);
        assert!(layout.spots.is_empty() && layout.height > 0.0);
    }

    /// As the picture of a task, with other heights.
    fn small() -> Measures {
        Measures { height: 30.0, air: 24.0, bottom: 40.0, ..OF_TASK }
    }

    /// 60 nodes over 8 rows and 5 columns, most of them in the last one.
    fn dense() -> (Vec<Box>, Vec<(usize, usize)>) {
        let node = |i: usize| Box {
            row: i / 8,
            column: if i.is_multiple_of(3) { (i * 7) % 5 } else { 4 },
            width: 60.0 + (i * 13 % 40) as f64,
        };
        let links = (1..60).map(|i| (i, i * 5 / 7)).filter(|(from, to)| from / 8 > to / 8);
        ((0..60).map(node).collect(), links.collect())
    }

    #[test]
    fn of_a_task_no_two_nodes_overlap_and_all_are_in_their_cells() {
        let (boxes, links) = dense();
        let layout = Layout::new(&boxes, &links, 9, &[70.0; 5], &small());
        for (i, a) in layout.spots.iter().enumerate() {
            let overlap = |b: &Spot| {
                (a.x - b.x).abs() < (a.width + b.width) / 2.0 && (a.y - b.y).abs() < small().height
            };
            assert!(!layout.spots[i + 1..].iter().any(overlap), "{i}");
            let (column, row) = (layout.columns[boxes[i].column], layout.rows[boxes[i].row]);
            assert!(column.at <= a.x - a.width / 2.0, "{i}");
            assert!(a.x + a.width / 2.0 <= column.at + column.size, "{i}");
            assert!(row.at <= a.y - 15.0 && a.y + 15.0 <= row.at + row.size + 0.01, "{i}");
        }
        assert!(links.iter().all(|&(from, to)| layout.spots[from].y > layout.spots[to].y));
        assert_eq!(layout.rows[8].size, 0.0);
    }

    #[test]
    fn what_is_narrow_is_spread_over_the_page_and_nothing_at_all_is_a_picture() {
        let boxes =
            [Box { row: 0, column: 0, width: 60.0 }, Box { row: 1, column: 1, width: 60.0 }];
        let layout = Layout::new(&boxes, &[(1, 0)], 2, &[20.0; 2], &small());
        assert!((layout.width - small().width).abs() < 1.0);
        assert!(Layout::new(&[], &[], 3, &[], &small()).height > 0.0);
    }
}
