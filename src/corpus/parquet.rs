//! Documents in Parquet files: a column of text, or of ids that are tokens already. One row group
//! is read at a time.

use super::lines::missing;
use super::source::{Content, Part, Pass, open};
use crate::error::{Context, Hint, Result, caught, hinted};
use polars::prelude::{
    ArrowDataType, ArrowSchema, Column, DataType, ParquetReader, SerReader, Series,
};
use std::path::Path;
use std::sync::Arc;

/// Columns of ids, looked for where the text's column is not there.
const IDS: [&str; 2] = ["input_ids", "tokens"];
const DAMAGED: &str = "the file is damaged or not a Parquet file; download it again";
const UNREADABLE: &str = "the rows are damaged or their text is not UTF-8; download the file \
     again, or save it as UTF-8";

/// The documents of a file, a row each; a null is an empty one. Gives whether more is wanted.
pub(super) fn read(file: &Path, column: &str, pass: &mut Pass) -> Result<bool> {
    let damaged = || format!("`{}` cannot be read", file.display());
    let mut head = ParquetReader::new(open(file)?);
    // What arrow wrote of its own types is left out: a dictionary of texts is a column of texts in
    // the file, and a list of a fixed size a list.
    let plain = || -> Result<_> {
        let mut metadata = head.get_metadata()?.as_ref().clone();
        metadata.key_value_metadata = None;
        let metadata = Arc::new(metadata);
        head.set_metadata(metadata.clone());
        Ok((head.schema()?, metadata))
    };
    let (schema, metadata) = caught(plain).hint(damaged, DAMAGED)?;
    let column = chosen(file, &schema, column)?;
    let mut first = 0;
    for rows in metadata.row_groups.iter().map(|group| group.num_rows()).filter(|rows| *rows > 0) {
        let group = || {
            format!(
                "`{}` cannot be read from row {first} to row {}",
                file.display(),
                first + rows - 1
            )
        };
        let mut reader = ParquetReader::new(open(file)?);
        reader.set_metadata(metadata.clone());
        let reader =
            reader.with_columns(Some(vec![column.clone()])).with_slice(Some((first, rows)));
        let frame = caught(|| reader.finish()).hint(group, UNREADABLE)?;
        if !each_row(file, frame.column(&column).hint(group, DAMAGED)?, first, pass)? {
            return Ok(false);
        }
        first += rows;
    }
    Ok(true)
}

/// The column to read: the one asked for, or one of ids. Only columns of text or of ids get any
/// further.
fn chosen(file: &Path, schema: &ArrowSchema, wanted: &str) -> Result<String> {
    let place = format!("`{}`", file.display());
    let there = [wanted].into_iter().chain(IDS).find_map(|name| Some((name, schema.get(name)?)));
    let (name, field) = there
        .ok_or_else(|| missing(&place, wanted, schema.iter_names().map(|name| name.as_str())))?;
    if is_text(&field.dtype) || is_ids(&field.dtype) {
        return Ok(name.into());
    }
    let hint = "set `corpus.text` to a column of text, or of lists of 16-bit, 32-bit or 64-bit ids";
    Err(hinted(format!("{place} has neither text nor lists of ids in column `{name}`"), hint))
}

fn is_text(kind: &ArrowDataType) -> bool {
    use ArrowDataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(kind, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

fn is_ids(kind: &ArrowDataType) -> bool {
    use ArrowDataType::{Int32, Int64, LargeList, List, UInt16, UInt32, UInt64};
    let (List(item) | LargeList(item)) = kind else { return false };
    matches!(item.dtype, UInt16 | Int32 | UInt32 | Int64 | UInt64)
}

fn each_row(file: &Path, column: &Column, first: usize, pass: &mut Pass) -> Result<bool> {
    let series = column.as_materialized_series();
    if let Ok(texts) = series.str() {
        for text in texts.iter() {
            if !pass(Part::text(text.unwrap_or_default(), true, true))? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if let Ok(texts) = series.binary() {
        for (row, bytes) in texts.iter().enumerate() {
            let text = std::str::from_utf8(bytes.unwrap_or_default()).map_err(|_| {
                let (file, row) = (file.display(), first + row);
                hinted(
                    format!(
                        "`{file}` row {row} (the first is 0) is not UTF-8 in `{}`",
                        series.name()
                    ),
                    "set `corpus.text` to a column of text, or save it as UTF-8",
                )
            })?;
            if !pass(Part::text(text, true, true))? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for (row, ids) in series.list()?.series_iter().enumerate() {
        let ids = ids.map_or(Ok(Vec::new()), |ids| caught(|| whole_ids(&ids))).hint(
            || {
                format!(
                    "`{}` row {} (the first is 0) has no list of ids in `{}`",
                    file.display(),
                    first + row,
                    series.name()
                )
            },
            "ids are whole numbers from 0 to 4294967295, without nulls",
        )?;
        if !pass(Part::whole(Content::Tokens(ids)))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn whole_ids(ids: &Series) -> Result<Vec<u32>> {
    let ids = ids.strict_cast(&DataType::UInt32)?;
    ids.u32()?.iter().map(|id| id.context("one of them is null")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Cut;
    use crate::corpus::source::{How, RawDocument, read, shards};
    use crate::error::report;
    use crate::ids::Split;
    use polars::prelude::{DataFrame, IntoColumn, NamedFrom, ParquetCompression, ParquetWriter};

    fn written(columns: Vec<Series>) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.parquet");
        let columns: Vec<Column> = columns.into_iter().map(IntoColumn::into_column).collect();
        let mut frame = DataFrame::new(columns[0].len(), columns).unwrap();
        let writer = ParquetWriter::new(std::fs::File::create(&path).unwrap());
        let writer = writer.with_compression(ParquetCompression::Uncompressed);
        writer.with_row_group_size(Some(2)).finish(&mut frame).unwrap();
        (folder, path)
    }

    fn contents(path: &Path, column: &str, limit: usize) -> Result<Vec<Content>> {
        let mut all = Vec::new();
        let mut each = |document: RawDocument| {
            assert_eq!(document.source, "data.parquet");
            all.push(document.content);
            Ok(all.len() < limit)
        };
        let how = How { column, split: Split::Auto, cut: Cut::BeforeLines };
        read(&shards(vec![path.into()])[0], &how, &mut each)?;
        Ok(all)
    }

    fn lists(values: &[&[i64]], item: DataType) -> Series {
        let list = |ids: &&[i64]| Series::new("".into(), *ids).cast(&item).unwrap();
        Series::new("input_ids".into(), values.iter().map(list).collect::<Vec<_>>())
    }

    #[test]
    fn text_comes_row_by_row_over_row_groups() {
        let body = Series::new("body".into(), [Some("a"), None, Some(""), Some("é"), Some("e")]);
        let (_folder, path) = written(vec![Series::new("id".into(), [1_u32, 2, 3, 4, 5]), body]);
        let text = |texts: &[&str]| {
            texts.iter().map(|text| Content::Text((*text).into())).collect::<Vec<_>>()
        };
        assert_eq!(contents(&path, "body", 99).unwrap(), text(&["a", "", "", "é", "e"]));
        assert_eq!(contents(&path, "body", 3).unwrap(), text(&["a", "", ""]));
    }

    #[test]
    fn ids_are_read_where_there_is_no_text() {
        let tokens = |lists: &[&[u32]]| {
            lists.iter().map(|ids| Content::Tokens(ids.to_vec())).collect::<Vec<_>>()
        };
        let expected = tokens(&[&[5, 6], &[], &[7]]);
        for item in
            [DataType::UInt16, DataType::Int32, DataType::UInt32, DataType::Int64, DataType::UInt64]
        {
            let series = lists(&[&[5, 6], &[], &[7]], item);
            let (_folder, path) = written(vec![series]);
            assert_eq!(contents(&path, "text", 99).unwrap(), expected);
        }
    }

    #[test]
    fn wrong_columns_and_ids_are_named() {
        let (_folder, path) =
            written(vec![Series::new("id".into(), [1_u32]), Series::new("n\n".into(), [1_u32])]);
        let missing = report(&contents(&path, "text", 9).unwrap_err());
        assert!(
            missing.contains("data.parquet` has no column `text`, only `id`, `n\\n`"),
            "{missing}"
        );
        let number = report(&contents(&path, "id", 9).unwrap_err());
        assert!(number.contains("neither text nor lists of ids in column `id`"), "{number}");
        let (_folder, path) = written(vec![lists(&[&[1], &[2], &[3, -1]], DataType::Int64)]);
        let negative = report(&contents(&path, "text", 9).unwrap_err());
        assert!(
            negative.contains("row 2 (the first is 0) has no list of ids in `input_ids`"),
            "{negative}"
        );
        assert!(negative.contains("hint: ids are whole numbers"), "{negative}");
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_rows() {
        let (_folder, path) = written(vec![Series::new("text".into(), ["a", "b", "c", "naQve"])]);
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len()).filter(|i| bytes[*i..].starts_with(b"naQve")).collect();
        places.iter().for_each(|i| bytes[i + 2] = 0xEF);
        std::fs::write(&path, bytes).unwrap();
        let message = report(&contents(&path, "text", 9).unwrap_err());
        assert!(message.contains("data.parquet` cannot be read from row 2 to row 3"), "{message}");
        assert!(message.contains("save it as UTF-8"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_parquet_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.parquet");
        for bytes in [&b""[..], b"PAR1", b"not a table at all"] {
            std::fs::write(&path, bytes).unwrap();
            let message = report(&contents(&path, "text", 9).unwrap_err());
            assert!(message.contains("data.parquet` cannot be read"), "{message}");
        }
    }
}
