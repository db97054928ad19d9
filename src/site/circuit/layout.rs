//! Where everything of a task's picture stands: a column a place, a row a part of the model, nodes
//! of one cell side by side. Lengths are in pixels, y grows downwards.

use std::collections::BTreeMap;

/// Between two nodes of a cell, across and down.
const GAP: f64 = 8.0;
/// Beside the nodes of a column.
const PAD: f64 = 9.0;
/// Room for the names of the rows.
pub(super) const LEFT: f64 = 66.0;
const TOP: f64 = 6.0;
/// Lines of a cell may have so many nodes.
const PER_LINE: std::ops::RangeInclusive<usize> = 1..=9;

/// A node before it is placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Box {
    pub row: usize,
    pub column: usize,
    pub width: f64,
}

/// Sizes of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measures {
    /// Of a node.
    pub height: f64,
    /// Above the nodes of a row, for the links.
    pub air: f64,
    /// Below everything, for the names of the columns.
    pub bottom: f64,
    /// The picture is that wide if it can be.
    pub width: f64,
}

/// A node's middle and width.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spot {
    pub x: f64,
    pub y: f64,
    pub width: f64,
}

/// A column or a row: where it begins and how long it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Strip {
    pub at: f64,
    pub size: f64,
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
    /// By row; rows without nodes have no size.
    pub rows: Vec<Strip>,
}

/// The nodes of one place and the width of the widest with the gap, by row, then column.
type Cells = BTreeMap<(usize, usize), (Vec<usize>, f64)>;

impl Layout {
    /// `links` go from lower to higher nodes; nodes of a cell stand in the order of what they lead
    /// to. `names` are the widths of the columns' names.
    pub(super) fn new(
        boxes: &[Box],
        links: &[(usize, usize)],
        rows: usize,
        names: &[f64],
        measures: Measures,
    ) -> Layout {
        let mut cells = Cells::new();
        for (i, node) in boxes.iter().enumerate() {
            let cell = cells.entry((node.row, node.column)).or_default();
            cell.0.push(i);
            cell.1 = cell.1.max(node.width + GAP);
        }
        let strips = |per_line: usize| {
            (columns(&cells, names, per_line), row_strips(&cells, rows, per_line, measures))
        };
        let cost = |per_line: usize| {
            let (columns, rows) = strips(per_line);
            end(&rows) + 1.5 * (end(&columns) + PAD - measures.width).max(0.0)
        };
        let per_line = PER_LINE.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(1);
        let (mut columns, rows) = strips(per_line);
        widen(&mut columns, measures.width - PAD);
        let spots = spots(boxes, links, &cells, (&columns, &rows), measures);
        Layout {
            width: end(&columns) + PAD,
            height: end(&rows) + measures.bottom,
            spots,
            columns,
            rows,
        }
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

fn columns(cells: &Cells, names: &[f64], per_line: usize) -> Vec<Strip> {
    let mut widths = names.to_vec();
    for ((_, column), (nodes, pitch)) in cells {
        let most = nodes.len().div_ceil(nodes.len().div_ceil(per_line));
        widths[*column] = widths[*column].max(pitch * most as f64 - GAP);
    }
    strips(LEFT, widths.into_iter().map(|width| width + 2.0 * PAD))
}

fn row_strips(cells: &Cells, n: usize, per_line: usize, measures: Measures) -> Vec<Strip> {
    let mut lines = vec![0; n];
    for ((row, _), (nodes, _)) in cells {
        lines[*row] = lines[*row].max(nodes.len().div_ceil(per_line));
    }
    let size = |lines: usize| match lines {
        0 => 0.0,
        n => measures.air + measures.height + (measures.height + GAP) * (n - 1) as f64,
    };
    strips(TOP, lines.into_iter().map(size))
}

/// One after the other.
fn strips(start: f64, sizes: impl Iterator<Item = f64>) -> Vec<Strip> {
    let mut at = start;
    let next = |size: f64| {
        let strip = Strip { at, size };
        at += size;
        strip
    };
    sizes.map(next).collect()
}

fn end(strips: &[Strip]) -> f64 {
    strips.last().map_or(0.0, |strip| strip.at + strip.size)
}

fn spots(
    boxes: &[Box],
    links: &[(usize, usize)],
    cells: &Cells,
    (columns, rows): (&[Strip], &[Strip]),
    measures: Measures,
) -> Vec<Spot> {
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); boxes.len()];
    links.iter().for_each(|&(from, to)| parents[from].push(to));
    let mut spots = vec![Spot::default(); boxes.len()];
    // Rows come from the top, so that whatever a node leads to has its place.
    for ((row, column), (nodes, pitch)) in cells {
        let aim = |i: usize| {
            let own = parents[i].iter().map(|&parent| spots[parent].x);
            own.sum::<f64>() / parents[i].len().max(1) as f64
        };
        let mut order: Vec<(f64, usize)> = nodes.iter().map(|&i| (aim(i), i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let fit = ((columns[*column].size - 2.0 * PAD + GAP) / pitch).floor().max(1.0) as usize;
        // The lines are as long as each other.
        let per_line = nodes.len().div_ceil(nodes.len().div_ceil(fit));
        let lines = order.chunks(per_line).count() as f64;
        let free = rows[*row].size - measures.air - lines * (measures.height + GAP) + GAP;
        for (line, nodes) in order.chunks(per_line).enumerate() {
            let left = columns[*column].middle() - pitch * nodes.len() as f64 / 2.0;
            let y = rows[*row].at
                + measures.air
                + free.max(0.0) / 2.0
                + (measures.height + GAP) * line as f64
                + measures.height / 2.0;
            for (k, &(_, i)) in nodes.iter().enumerate() {
                spots[i] = Spot { x: left + pitch * (k as f64 + 0.5), y, width: boxes[i].width };
            }
        }
    }
    spots
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURES: Measures = Measures { height: 30.0, air: 24.0, bottom: 40.0, width: 1090.0 };

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
    fn no_two_nodes_overlap_and_all_are_in_their_cells() {
        let (boxes, links) = dense();
        let layout = Layout::new(&boxes, &links, 9, &[70.0; 5], MEASURES);
        for (i, a) in layout.spots.iter().enumerate() {
            let overlap = |b: &Spot| {
                (a.x - b.x).abs() < (a.width + b.width) / 2.0 && (a.y - b.y).abs() < MEASURES.height
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
        let layout = Layout::new(&boxes, &[(1, 0)], 2, &[20.0; 2], MEASURES);
        assert!((layout.width - MEASURES.width).abs() < 1.0);
        assert!(Layout::new(&[], &[], 3, &[], MEASURES).height > 0.0);
    }
}
