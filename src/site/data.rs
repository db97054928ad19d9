//! The tables of `data/` as one JSON document: `data/index.json`.

use crate::atlas::model::{Atlas, DataTable, SiteData};
use serde::Serialize;

/// The whole document.
#[derive(Serialize)]
pub(super) struct Schema<'a> {
    title: &'a str,
    generator: &'static str,
    version: &'a str,
    tables: Vec<TableSchema<'a>>,
    /// Tables that are larger than `site.data_max_mib`.
    left_out: Vec<LeftOut<'a>>,
}

#[derive(Serialize)]
struct TableSchema<'a> {
    name: &'a str,
    row: &'a str,
    rows: u64,
    bytes: u64,
    files: Vec<&'a str>,
    columns: Vec<ColumnSchema>,
}

#[derive(Serialize)]
struct ColumnSchema {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    meaning: String,
}

#[derive(Serialize)]
struct LeftOut<'a> {
    name: &'a str,
    bytes: u64,
}

pub(super) fn schema<'a>(atlas: &'a Atlas, data: &'a SiteData) -> Schema<'a> {
    Schema {
        title: &atlas.title,
        generator: "circuit-atlas",
        version: &atlas.version,
        tables: data.tables.iter().map(table).collect(),
        left_out: data
            .left_out
            .iter()
            .map(|(name, bytes)| LeftOut { name, bytes: *bytes })
            .collect(),
    }
}

fn table(table: &DataTable) -> TableSchema<'_> {
    let column = |column: &crate::artifact::Column| ColumnSchema {
        name: column.name,
        kind: column.kind,
        meaning: in_one_line(column.meaning),
    };
    TableSchema {
        name: table.name,
        row: table.row.trim(),
        rows: table.rows,
        bytes: table.bytes,
        files: table.files.iter().map(|(name, _)| name.as_str()).collect(),
        columns: table.columns.iter().map(column).collect(),
    }
}

/// The lines of a comment as one.
pub(super) fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
