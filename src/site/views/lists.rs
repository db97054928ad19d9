//! The pages of the lists, and pages of their rows for readers without scripts.

use super::parts::Page;
use crate::format::number::{count, counted};
use crate::site::links::{Links, PageLink, Site};
use crate::site::lists::{Cell, Column, Kinds, List, Lists, ON_A_PAGE, Row, SHOWN, Verdict};
use crate::site::text::{Html, prose};
use serde::Serialize;

/// Characters of an explanation in a row: as in the rows that scripts show.
const GIST: usize = 150;

#[derive(Serialize)]
pub(crate) struct ListView<'a> {
    page: Page,
    name: &'static str,
    noun: &'static str,
    total: String,
    /// Whether explanations were judged.
    judged: bool,
    /// Whether there are more rows than these.
    more: bool,
    /// Rows of the last page by script are at most these.
    shown: usize,
    facets: Vec<FacetView>,
    columns: &'a [Column],
    first: &'static str,
    rows: Vec<RowView>,
    /// Ways to page through all rows without scripts.
    plain: Vec<(String, Vec<(PageLink, String)>)>,
}

#[derive(Serialize)]
struct FacetView {
    id: &'static str,
    label: &'static str,
    /// Values with how many rows have them, by their numbers.
    values: Vec<(usize, String, String)>,
}

#[derive(Serialize)]
struct RowView {
    link: PageLink,
    gist: Html,
    cells: Vec<CellView>,
}

/// A cell as the template tells it.
#[derive(Serialize)]
struct CellView {
    id: &'static str,
    number: Option<String>,
    verdict: Option<Verdict>,
    links: Vec<PageLink>,
    more: usize,
}

fn row_view(list: &List, row: &Row) -> RowView {
    let cell = |(column, cell): (&Column, &Cell)| {
        let none =
            CellView { id: column.id, number: None, verdict: None, links: Vec::new(), more: 0 };
        match cell {
            Cell::Number(text, _) => CellView { number: Some(text.clone()), ..none },
            Cell::Score(text, _, verdict) => CellView {
                number: Some(text.clone()),
                verdict: list.verdicts.get(*verdict).cloned(),
                ..none
            },
            Cell::Values(values, more) => {
                let facet = column.facet.map(|facet| &list.facets[facet].values);
                let link = |value: &usize| Some(facet?[*value].link.clone());
                CellView { links: values.iter().filter_map(link).collect(), more: *more, ..none }
            }
        }
    };
    RowView {
        link: row.link.clone(),
        gist: prose(&row.gist, GIST),
        cells: list.columns.iter().zip(&row.cells).map(cell).collect(),
    }
}

fn rows(list: &List, rows: &[u32]) -> Vec<RowView> {
    rows.iter().map(|row| row_view(list, &list.rows[*row as usize])).collect()
}

/// `Features`
fn title(list: &List) -> String {
    let (first, rest) = list.name.split_at(1);
    first.to_uppercase() + rest
}

impl<'a> ListView<'a> {
    pub(crate) fn new(site: &Site, list: &'a List) -> ListView<'a> {
        let links = site.in_folder();
        let total = counted(list.rows.len(), list.noun);
        let path = format!("{}/index.html", list.name);
        let description = format!("The {total} in the circuits, with explanations.");
        let mut first = list.at_first();
        first.truncate(SHOWN);
        let value = |(i, value): (usize, &crate::site::lists::FacetValue)| {
            (i, value.label.clone(), count(value.rows.len() as u64))
        };
        let facets = list.facets.iter().map(|facet| FacetView {
            id: facet.id,
            label: facet.label,
            values: facet
                .values
                .iter()
                .enumerate()
                .filter(|(_, value)| !value.rows.is_empty())
                .map(value)
                .collect(),
        });
        ListView {
            page: Page::new(links, list.name, &path, title(list), description),
            name: list.name,
            noun: list.noun,
            total,
            judged: !list.verdicts.is_empty(),
            more: list.rows.len() > SHOWN,
            shown: first.len(),
            facets: facets.filter(|facet| facet.values.len() > 1).collect(),
            columns: &list.columns,
            first: list.first,
            rows: rows(list, &first),
            plain: ways(links, list),
        }
    }
}

/// A way through rows that needs no scripts: what it is called in file names and in titles, and its
/// rows.
pub(crate) struct Way {
    name: String,
    title: String,
    group: &'static str,
    label: String,
    rows: Vec<u32>,
}

impl Way {
    /// All rows, those of each value of some facets, and all by score.
    pub(crate) fn all(list: &List) -> Vec<Way> {
        let title = title(list);
        let mut ways = vec![Way {
            name: list.name.into(),
            title: title.clone(),
            group: "all",
            label: "in order".into(),
            rows: (0..list.rows.len() as u32).collect(),
        }];
        for column in ["prompts", "score", "share"] {
            if let Some(at) = list.column(column) {
                ways.push(Way {
                    name: format!("{}-by-{column}", list.name),
                    title: format!("{title} by {}", list.columns[at].label),
                    group: "all",
                    label: format!("by {}", list.columns[at].label),
                    rows: list.descending(at),
                });
            }
        }
        for facet in list.facets.iter().filter(|facet| facet.paged) {
            for value in facet.values.iter().filter(|value| !value.rows.is_empty()) {
                ways.push(Way {
                    name: format!("{}-{}-{}", list.name, facet.id, value.label),
                    title: format!("{title} of {} {}", facet.label, value.label),
                    group: facet.label,
                    label: value.label.clone(),
                    rows: value.rows.clone(),
                });
            }
        }
        ways
    }

    pub(crate) fn pages(&self) -> usize {
        self.rows.len().div_ceil(ON_A_PAGE).max(1)
    }

    /// The file of a page; they count from 1.
    pub(crate) fn path(&self, page: usize) -> String {
        format!("lists/{}-{page}.html", self.name)
    }
}

fn ways(links: Links, list: &List) -> Vec<(String, Vec<(PageLink, String)>)> {
    let mut groups: Vec<(String, Vec<(PageLink, String)>)> = Vec::new();
    for way in Way::all(list) {
        let link = (links.page(&way.label, &way.path(1)), count(way.rows.len() as u64));
        match groups.last_mut() {
            Some((group, all)) if group == way.group => all.push(link),
            _ => groups.push((way.group.into(), vec![link])),
        }
    }
    groups
}

/// A page of rows.
#[derive(Serialize)]
pub(crate) struct PlainListView<'a> {
    page: Page,
    heading: String,
    total: String,
    list: PageLink,
    noun: &'static str,
    columns: &'a [Column],
    rows: Vec<RowView>,
    previous: Option<PageLink>,
    next: Option<PageLink>,
    /// All pages; this one has no address.
    pages: Vec<PageLink>,
}

impl<'a> PlainListView<'a> {
    pub(crate) fn new(site: &Site, list: &'a List, way: &Way, number: usize) -> PlainListView<'a> {
        let links = site.in_folder();
        let own = way.rows.chunks(ON_A_PAGE).nth(number - 1).unwrap_or_default();
        let turn = |number: usize| {
            let there = (1..=way.pages()).contains(&number);
            there.then(|| links.page(format!("page {number}"), &way.path(number)))
        };
        let page = |n: usize| match n == number {
            true => PageLink::plain(n.to_string()),
            false => links.page(n.to_string(), &way.path(n)),
        };
        let heading = match way.pages() {
            1 => way.title.clone(),
            pages => format!("{}, page {number} of {pages}", way.title),
        };
        let total = counted(way.rows.len(), list.noun);
        let description = format!("{heading}: {total}.");
        PlainListView {
            page: Page::new(links, list.name, &way.path(number), heading.clone(), description),
            heading,
            total,
            list: links.page(title(list), &format!("{}/index.html", list.name)),
            noun: list.noun,
            columns: &list.columns,
            rows: rows(list, own),
            previous: turn(number - 1),
            next: turn(number + 1),
            pages: (1..=way.pages()).map(page).collect(),
        }
    }
}

/// The page of the search.
#[derive(Serialize)]
pub(crate) struct SearchPageView {
    page: Page,
    kinds: Kinds,
    /// Lists that need no script.
    lists: Vec<PageLink>,
}

impl SearchPageView {
    pub(crate) fn new(site: &Site, lists: &Lists) -> SearchPageView {
        let links = site.at_root();
        let there = lists.all().into_iter().filter(|list| !list.rows.is_empty());
        SearchPageView {
            page: Page::new(
                links,
                "search",
                "search.html",
                "Search".into(),
                "Search of tasks, components, features and pairs.".into(),
            ),
            kinds: Kinds::new(),
            lists: there
                .map(|list| links.page(list.name, &format!("{}/index.html", list.name)))
                .collect(),
        }
    }
}
