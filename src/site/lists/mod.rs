//! The lists of features, components and pairs, and the search: what their rows show, what they can
//! be chosen and sorted by, and the files that their scripts read (`docs/formats.md`). Pages of
//! rows, for readers without scripts, are made of the same lists (`views::lists`).

mod data;
mod facets;
mod rows;
mod sets;
mod shards;
mod words;

pub(super) use data::{Kinds, files};

use super::links::{PageLink, Site};
use serde::Serialize;

/// Rows on the page of a list.
pub(super) const SHOWN: usize = 50;
/// Rows on a page for readers without scripts.
pub(super) const ON_A_PAGE: usize = 100;

/// The lists of a site.
pub(super) struct Lists {
    pub features: List,
    pub components: List,
    pub pairs: List,
}

impl Lists {
    pub(super) fn new(site: &Site) -> Lists {
        Lists {
            features: rows::features(site),
            components: rows::components(site),
            pairs: rows::pairs(site),
        }
    }

    pub(super) fn all(&self) -> [&List; 3] {
        [&self.features, &self.components, &self.pairs]
    }
}

/// Things of one kind, a row each.
pub(super) struct List {
    /// Its folder: `features`.
    pub name: &'static str,
    /// One of them: `feature`.
    pub noun: &'static str,
    pub columns: Vec<Column>,
    /// In the order of the model, pairs by name.
    pub rows: Vec<Row>,
    pub facets: Vec<Facet>,
    /// What cells of scores say, in the order of their numbers.
    pub verdicts: Vec<Verdict>,
    /// The column that it is sorted by at first, the largest first.
    pub first: &'static str,
}

/// A column besides the name and the explanation.
#[derive(Serialize)]
pub(super) struct Column {
    pub id: &'static str,
    pub label: &'static str,
    pub title: &'static str,
    /// The facet whose values its cells show; else numbers, by which rows can be sorted.
    pub facet: Option<usize>,
}

pub(super) struct Row {
    pub link: PageLink,
    /// The file of its page, from the folder of the site.
    pub path: String,
    /// What it is, tokens in backticks.
    pub gist: String,
    pub cells: Vec<Cell>,
}

pub(super) enum Cell {
    /// A number as shown, and the number.
    Number(String, Option<f64>),
    /// The same with a verdict.
    Score(String, Option<f64>, usize),
    /// Values of the column's facet, and how many more there are.
    Values(Vec<usize>, usize),
}

/// What rows can be chosen by.
pub(super) struct Facet {
    pub id: &'static str,
    pub label: &'static str,
    pub values: Vec<FacetValue>,
    /// Whether there are pages of each value for readers without scripts.
    pub paged: bool,
}

pub(super) struct FacetValue {
    pub label: String,
    /// The page of what it names, where it has one.
    pub link: PageLink,
    /// The same from the folder of the site.
    pub path: Option<String>,
    /// Rows with it, in increasing order.
    pub rows: Vec<u32>,
}

/// How an explanation compares with its baselines.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Verdict {
    pub class: &'static str,
    pub mark: &'static str,
    pub words: String,
}

impl Cell {
    /// What it is sorted by.
    fn key(&self) -> Option<f64> {
        match self {
            Cell::Number(_, key) | Cell::Score(_, key, _) => key.filter(|key| key.is_finite()),
            Cell::Values(..) => None,
        }
    }
}

impl List {
    pub(super) fn column(&self, id: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    /// Rows by a column, the smallest first, and how many of them have a value; those without one
    /// are last.
    pub(super) fn by(&self, column: usize) -> (Vec<u32>, usize) {
        let key = |row: &u32| self.rows[*row as usize].cells[column].key();
        let all = 0..self.rows.len() as u32;
        let (mut with, without): (Vec<u32>, Vec<u32>) = all.partition(|row| key(row).is_some());
        with.sort_by(|a, b| key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal));
        let there = with.len();
        with.extend(without);
        (with, there)
    }

    /// Rows by a column, the largest first, as the scripts sort them.
    pub(super) fn descending(&self, column: usize) -> Vec<u32> {
        let (mut rows, there) = self.by(column);
        rows[..there].reverse();
        rows
    }

    /// Rows as the list shows them at first.
    pub(super) fn at_first(&self) -> Vec<u32> {
        match self.column(self.first) {
            Some(column) => self.descending(column),
            None => (0..self.rows.len() as u32).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;

    #[test]
    fn facets_divide_the_rows() {
        let atlas = fixture::atlas();
        let site = Site::new(&atlas).unwrap();
        for list in Lists::new(&site).all() {
            for facet in &list.facets {
                let mut rows: Vec<u32> =
                    facet.values.iter().flat_map(|value| value.rows.clone()).collect();
                assert!(rows.len() <= list.rows.len() || facet.label != "kind");
                rows.sort_unstable();
                rows.dedup();
                assert!(rows.iter().all(|row| (*row as usize) < list.rows.len()), "{}", facet.id);
            }
            let kinds = list.facets.iter().find(|facet| facet.id == "kind").unwrap();
            let all: usize = kinds.values.iter().map(|value| value.rows.len()).sum();
            assert_eq!(all, list.rows.len(), "{}", list.name);
        }
    }

    #[test]
    fn rows_without_a_value_are_last_both_ways() {
        let atlas = fixture::atlas();
        let site = Site::new(&atlas).unwrap();
        let list = Lists::new(&site).features;
        let score = list.column("score").unwrap();
        let (up, there) = list.by(score);
        let down = list.descending(score);
        assert!(there > 10 && there < list.rows.len());
        assert_eq!(up[there..], down[there..]);
        let key = |row: u32| list.rows[row as usize].cells[score].key().unwrap();
        assert!(up[..there].windows(2).all(|two| key(two[0]) <= key(two[1])));
        assert!(down[..there].windows(2).all(|two| key(two[0]) >= key(two[1])));
    }
}
