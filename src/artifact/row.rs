//! Rows of tables: one struct a table, one line a column, to and from a data frame.

use super::store::Artifact;
use crate::error::{Context, Result};
use crate::ids::{
    BadName, Band, Beside, Component, DictionaryId, FeatureId, Half, Kind, Lag, NodeKind, Profiled,
    Shown, Side, Slot, Status, Subject, SubjectKind,
};
use polars::prelude::{
    BooleanChunked, DataFrame, DataType, Float32Type, Float64Type, IntoSeries, ListBuilderTrait,
    ListPrimitiveChunkedBuilder, ListStringChunkedBuilder, NamedFrom, PolarsResult, Series,
    UInt32Type, UInt64Type,
};

use std::str::FromStr;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name in the file.
    pub name: &'static str,
    /// What its values are, for the documents.
    pub meaning: &'static str,
    /// The type of its values, such as `u32` or `list of string`; with `?` where they may be null.
    pub kind: &'static str,
}

/// A row of a declared table.
pub trait Row: Sized {
    /// The table.
    const ARTIFACT: Artifact;
    /// Rows as a data frame with the table's columns.
    ///
    /// # Errors
    /// When the columns cannot be put together.
    fn to_frame(rows: &[Self]) -> PolarsResult<DataFrame>;
    /// The rows of a data frame.
    ///
    /// # Errors
    /// When a column is missing, has another type, or has a value that is not allowed.
    fn from_frame(frame: &DataFrame) -> Result<Vec<Self>>;
}

/// A value of a column.
pub(crate) trait Cell: Sized + Clone {
    const KIND: &'static str;
    fn series(values: Vec<Self>) -> Series;
    fn read(series: &Series) -> Result<Vec<Self>>;
}

/// What a null where none may be is told.
fn whole<T>(value: Option<T>, series: &Series) -> Result<T> {
    value.with_context(|| format!("column `{}` has nulls", series.name()))
}

macro_rules! plain_cell {
    ($($type:ty => $get:ident),*) => {$(
        impl Cell for $type {
            const KIND: &'static str = stringify!($type);

            fn series(values: Vec<Self>) -> Series {
                Series::new("".into(), values)
            }
            fn read(series: &Series) -> Result<Vec<Self>> {
                series.$get()?.iter().map(|value| whole(value, series)).collect()
            }
        }
        impl Cell for Option<$type> {
            const KIND: &'static str = concat!(stringify!($type), "?");

            fn series(values: Vec<Self>) -> Series {
                Series::new("".into(), values)
            }
            fn read(series: &Series) -> Result<Vec<Self>> {
                Ok(series.$get()?.iter().collect())
            }
        }
    )*};
}

plain_cell!(u16 => u16, u32 => u32, u64 => u64, f32 => f32, f64 => f64);

impl Cell for bool {
    const KIND: &'static str = "bool";

    fn series(values: Vec<Self>) -> Series {
        BooleanChunked::from_iter(values.into_iter().map(Some)).into_series()
    }
    fn read(series: &Series) -> Result<Vec<Self>> {
        series.bool()?.iter().map(|value| whole(value, series)).collect()
    }
}

impl Cell for Option<bool> {
    const KIND: &'static str = "bool?";

    fn series(values: Vec<Self>) -> Series {
        BooleanChunked::from_iter(values).into_series()
    }
    fn read(series: &Series) -> Result<Vec<Self>> {
        Ok(series.bool()?.iter().collect())
    }
}

impl Cell for String {
    const KIND: &'static str = "string";

    fn series(values: Vec<Self>) -> Series {
        Series::new("".into(), values)
    }
    fn read(series: &Series) -> Result<Vec<Self>> {
        series.str()?.iter().map(|value| whole(value.map(String::from), series)).collect()
    }
}

/// Names and fixed words are strings; a text that is none of them is refused.
macro_rules! word_cell {
    ($($type:ty),*) => {$(
        impl Cell for $type {
            const KIND: &'static str = "string";

            fn series(values: Vec<Self>) -> Series {
                String::series(values.iter().map(ToString::to_string).collect())
            }
            fn read(series: &Series) -> Result<Vec<Self>> {
                String::read(series)?.iter().map(|word| parsed(word, series)).collect()
            }
        }
    )*};
}

fn parsed<T: FromStr<Err = BadName>>(word: &str, series: &Series) -> Result<T> {
    word.parse::<T>().with_context(|| format!("column `{}`", series.name()))
}

word_cell!(
    Band,
    Beside,
    Component,
    DictionaryId,
    FeatureId,
    Half,
    Kind,
    Lag,
    NodeKind,
    Profiled,
    Shown,
    Side,
    Slot,
    Status,
    Subject,
    SubjectKind
);

/// None is an empty string.
impl Cell for Option<FeatureId> {
    const KIND: &'static str = "string";

    fn series(values: Vec<Self>) -> Series {
        let written =
            |value: &Option<FeatureId>| value.map_or_else(String::new, |id| id.to_string());
        String::series(values.iter().map(written).collect())
    }
    fn read(series: &Series) -> Result<Vec<Self>> {
        let one = |word: &String| match word.as_str() {
            "" => Ok(None),
            word => parsed(word, series).map(Some),
        };
        String::read(series)?.iter().map(one).collect()
    }
}

macro_rules! word_list_cell {
    ($($type:ty),*) => {$(
        impl Cell for Vec<$type> {
            const KIND: &'static str = "list of string";

            fn series(values: Vec<Self>) -> Series {
                let written = |value: &Self| value.iter().map(ToString::to_string).collect();
                Vec::<String>::series(values.iter().map(written).collect())
            }
            fn read(series: &Series) -> Result<Vec<Self>> {
                let one = |words: &Vec<String>| {
                    words.iter().map(|word| parsed(word, series)).collect()
                };
                Vec::<String>::read(series)?.iter().map(one).collect()
            }
        }
    )*};
}

word_list_cell!(FeatureId, Component, NodeKind, Slot);

macro_rules! list_cell {
    ($($type:ty, $polars:ty, $dtype:expr => $get:ident),*) => {$(
        impl Cell for Vec<$type> {
            const KIND: &'static str = concat!("list of ", stringify!($type));

            fn series(values: Vec<Self>) -> Series {
                let all = values.iter().map(Vec::len).sum();
                let mut builder = ListPrimitiveChunkedBuilder::<$polars>::new(
                    "".into(),
                    values.len(),
                    all,
                    $dtype,
                );
                values.iter().for_each(|value| builder.append_slice(value));
                builder.finish().into_series()
            }
            fn read(series: &Series) -> Result<Vec<Self>> {
                let one = |item: Option<Series>| -> Result<Self> {
                    let item = whole(item, series)?;
                    item.$get()?.iter().map(|value| whole(value, series)).collect()
                };
                let list = series.list()?;
                (0..list.len()).map(|i| one(list.get_as_series(i))).collect()
            }
        }
    )*};
}

list_cell!(
    u32, UInt32Type, DataType::UInt32 => u32,
    u64, UInt64Type, DataType::UInt64 => u64,
    f32, Float32Type, DataType::Float32 => f32,
    f64, Float64Type, DataType::Float64 => f64
);

impl Cell for Vec<String> {
    const KIND: &'static str = "list of string";

    fn series(values: Vec<Self>) -> Series {
        let mut builder = ListStringChunkedBuilder::new("".into(), values.len(), values.len());
        values
            .iter()
            .for_each(|value| builder.append_values_iter(value.iter().map(String::as_str)));
        builder.finish().into_series()
    }
    fn read(series: &Series) -> Result<Vec<Self>> {
        let list = series.list()?;
        let one = |i| String::read(&whole(list.get_as_series(i), series)?);
        (0..list.len()).map(one).collect()
    }
}

/// Declares a table: the struct of its rows, its name, version and columns with their meanings.
macro_rules! table {
    ($(#[doc = $doc:literal])* $row:ident = $name:literal, version $version:literal, $shards:ident {
        $($(#[doc = $meaning:literal])+ $column:ident: $type:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $row {
            $($(#[doc = $meaning])+ pub $column: $type,)*
        }

        impl $crate::artifact::Row for $row {
            const ARTIFACT: $crate::artifact::Artifact = $crate::artifact::Artifact {
                name: $name,
                version: $version,
                sharded: table!(@$shards),
                row: concat!($($doc),*),
                columns: &[$($crate::artifact::Column {
                    name: stringify!($column),
                    meaning: concat!($($meaning),+),
                    kind: <$type as $crate::artifact::tables::Cell>::KIND,
                }),*],
            };

            fn to_frame(
                rows: &[Self],
            ) -> polars::prelude::PolarsResult<polars::prelude::DataFrame> {
                let columns = vec![$({
                    let values: Vec<$type> = rows.iter().map(|row| row.$column.clone()).collect();
                    let mut series = <$type as $crate::artifact::tables::Cell>::series(values);
                    series.rename(stringify!($column).into());
                    polars::prelude::Column::from(series)
                }),*];
                polars::prelude::DataFrame::new(rows.len(), columns)
            }

            fn from_frame(frame: &polars::prelude::DataFrame) -> $crate::error::Result<Vec<Self>> {
                $(
                    let series = frame.column(stringify!($column))?.as_materialized_series();
                    let mut $column =
                        <$type as $crate::artifact::tables::Cell>::read(series)?.into_iter();
                )*
                let row = |_| Some($row { $($column: $column.next()?),* });
                Ok((0..frame.height()).map_while(row).collect())
            }
        }
    };
    (@sharded) => { true };
    (@whole) => { false };
}

pub(in crate::artifact) use table;
