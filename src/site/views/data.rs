//! The page of `data/`: every table with its columns, and how to open them.

use super::glossary::inline;
use super::parts::Page;
use crate::atlas::model::{Atlas, DataTable, SiteData};
use crate::format::number::{bytes, count, counted};
use crate::site::data::in_one_line;
use crate::site::links::{Links, PageLink, Site};
use crate::site::text::Html;
use serde::Serialize;

/// Files of a table that are linked.
const FILES: usize = 3;

#[derive(Serialize)]
pub(crate) struct DataView {
    page: Page,
    /// How many there are, and their size.
    size: String,
    tables: Vec<TableView>,
    /// Tables that are too large, with their size.
    left_out: Vec<(String, String)>,
    /// Where the tables are: a string of Python, and the inner of one of SQL.
    python: String,
    sql: String,
    /// A file of a table in parts, the first that there is.
    part: Option<String>,
    /// A page's document, from this page.
    document: Option<PageLink>,
}

#[derive(Serialize)]
struct TableView {
    name: &'static str,
    row: Html,
    rows: String,
    size: String,
    files: Vec<PageLink>,
    /// How many more there are.
    more: usize,
    columns: Vec<ColumnView>,
}

#[derive(Serialize)]
struct ColumnView {
    name: &'static str,
    kind: &'static str,
    meaning: Html,
}

impl DataView {
    pub(crate) fn new(site: &Site, data: &SiteData) -> DataView {
        let (links, atlas) = (site.in_folder(), site.atlas);
        let description = "The tables of this atlas as Parquet, with their columns.".into();
        let all = data.tables.iter().map(|table| table.bytes).sum();
        let place = place(atlas);
        let part =
            data.tables.iter().flat_map(|table| &table.files).find(|(name, _)| name.contains('/'));
        DataView {
            page: Page::new(links, "data", "data/index.html", "Data".into(), description),
            size: format!("{}, {}", counted(data.tables.len(), "table"), bytes(all)),
            tables: data.tables.iter().map(|own| table(links, own)).collect(),
            left_out: data.left_out.iter().map(|(name, n)| (name.clone(), bytes(*n))).collect(),
            python: serde_json::to_string(&place).unwrap_or_default(),
            sql: place.replace('\'', "''"),
            part: part.map(|(name, _)| name.clone()),
            document: atlas.features.first().map(|feature| {
                let name = format!("features/{}.json", feature.id);
                links.page(name.clone(), &name)
            }),
        }
    }
}

/// Where the tables are, without a slash at the end: as the site is reached, else as seen from its
/// folder.
fn place(atlas: &Atlas) -> String {
    match atlas.base_url.trim_end_matches('/') {
        "" => "data".into(),
        address => format!("{address}/data"),
    }
}

/// A comment of the source, without its emphasis.
fn text(comment: &str) -> Html {
    inline(&in_one_line(comment).replace('*', ""))
}

fn table(links: Links, own: &DataTable) -> TableView {
    let column = |column: &crate::artifact::Column| ColumnView {
        name: column.name,
        kind: column.kind,
        meaning: text(column.meaning),
    };
    TableView {
        name: own.name,
        row: text(own.row),
        rows: count(own.rows),
        size: bytes(own.bytes),
        more: own.files.len().saturating_sub(FILES),
        files: own
            .files
            .iter()
            .take(FILES)
            .map(|(name, _)| links.page(name.clone(), &format!("data/{name}")))
            .collect(),
        columns: own.columns.iter().map(column).collect(),
    }
}
