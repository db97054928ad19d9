//! The disk cache of raw activations: a row a token, a binary column a hook, in row groups of a few
//! contexts, so that neither writing nor reading ever holds a whole part.

use super::origin::Origin;
use super::store::Store;
use super::tables::ACTIVATIONS;
use crate::error::{Context, Hint, Result, caught};
use half::f16;
use half::slice::HalfFloatSliceExt;
use polars::prelude::{
    BinaryChunked, Column, DataFrame, IntoSeries, NewChunkedArray, ParquetCompression,
    ParquetReader, ParquetWriter, SerReader,
};
use std::fs::File;
use std::ops::Range;

/// Contexts of a row group. A constant, so that the file does not depend on the machine.
pub(crate) const GROUP: usize = 32;

/// How a number is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

impl Precision {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F16 => 2,
        }
    }

    /// Makes of numbers what they are after they were kept.
    pub fn round(self, values: &mut [f32]) {
        match self {
            Precision::F32 => {}
            Precision::F16 => halves(values).convert_to_f32_slice(values),
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Precision::F32 => bytes_of(values, f32::to_le_bytes),
            Precision::F16 => bytes_of(&halves(values), f16::to_le_bytes),
        }
    }

    fn decode(self, bytes: &[u8], into: &mut Vec<f32>) {
        match self {
            Precision::F32 => {
                into.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
            }
            Precision::F16 => {
                let halves: Vec<f16> =
                    bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
                let start = into.len();
                into.resize(start + halves.len(), 0.0);
                halves.convert_to_f32_slice(&mut into[start..]);
            }
        }
    }
}

fn halves(values: &[f32]) -> Vec<f16> {
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    halves
}

/// The bytes of numbers, one after the other.
fn bytes_of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut all = vec![[0; N]; values.len()];
    all.iter_mut().zip(values).for_each(|(to, value)| *to = bytes(*value));
    all.into_flattened()
}

/// What the hooks of one context read: for each hook `[T, width]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HookValues {
    /// The context's number.
    pub context: u32,
    /// By hook.
    pub values: Vec<Vec<f32>>,
}

/// Writes a part: `next` gives the contexts of each row group until there are none.
pub(crate) fn write_part(
    store: &Store,
    (fingerprint, origin): (&str, &Origin),
    part: u32,
    hooks: &[String],
    precision: Precision,
    width: usize,
    mut next: impl FnMut() -> Result<Option<Vec<HookValues>>>,
) -> Result<()> {
    let empty = frame(hooks, precision, width, &[])?;
    store.publish(&store.part_path(&ACTIVATIONS, part), |file| {
        let mut writer = ParquetWriter::new(file)
            .with_compression(ParquetCompression::Uncompressed)
            .with_key_value_metadata(Some(ACTIVATIONS.metadata_with(fingerprint, origin.pairs())))
            .batched(empty.schema())?;
        while let Some(contexts) = next()? {
            writer.write_batch(&frame(hooks, precision, width, &contexts)?)?;
        }
        writer.finish()?;
        Ok(())
    })
}

fn frame(
    hooks: &[String],
    precision: Precision,
    width: usize,
    contexts: &[HookValues],
) -> Result<DataFrame> {
    let tokens = |c: &HookValues| c.values.first().map_or(0, |values| values.len() / width);
    let context: Vec<u32> = contexts.iter().flat_map(|c| vec![c.context; tokens(c)]).collect();
    let position: Vec<u16> = contexts.iter().flat_map(|c| 0..tokens(c) as u16).collect();
    let height = context.len();
    let mut columns =
        vec![Column::new("context".into(), context), Column::new("position".into(), position)];
    for (i, hook) in hooks.iter().enumerate() {
        let bytes: Vec<Vec<u8>> = contexts
            .iter()
            .flat_map(|c| c.values[i].chunks_exact(width))
            .map(|row| precision.encode(row))
            .collect();
        columns.push(BinaryChunked::from_slice(hook.as_str().into(), &bytes).into_series().into());
    }
    Ok(DataFrame::new(height, columns)?)
}

/// A part of any run, of which some contexts are read.
pub(crate) struct ActivationPart {
    store: Store,
    part: u32,
    first: u32,
    /// By context: its first row; behind the last one the number of rows.
    rows: Vec<usize>,
}

impl ActivationPart {
    /// One of contexts of these numbers, every byte of which is as it was written.
    ///
    /// # Errors
    /// When it is damaged, or of other contexts.
    pub(crate) fn open(store: Store, part: u32, numbers: Range<u32>) -> Result<ActivationPart> {
        let (mut rows, mut next, mut row) = (Vec::new(), numbers.start, 0);
        store.each_number(&ACTIVATIONS, part, "context", |context| {
            if context == next {
                rows.push(row);
                next += 1;
            }
            if context + 1 != next {
                anyhow::bail!("its rows are of other contexts");
            }
            row += 1;
            Ok(())
        })?;
        if next != numbers.end {
            anyhow::bail!("its rows are of other contexts");
        }
        rows.push(row);
        Ok(ActivationPart { store, part, first: numbers.start, rows })
    }

    /// What hooks read in contexts that follow each other, by their places in the part: of each context
    /// the values of each hook. The file is opened once.
    ///
    /// # Errors
    /// When the part cannot be read.
    pub(crate) fn read(
        &self,
        hooks: &[String],
        precision: Precision,
        places: Range<u32>,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let row = |place: u32| self.rows[place as usize];
        let path = self.store.part_path(&ACTIVATIONS, self.part);
        let group: Vec<(u32, usize)> =
            places.clone().map(|at| (self.first + at, row(at + 1) - row(at))).collect();
        let rows = row(places.start)..row(places.end);
        let found = rows_of(self.store.reader(&path, &ACTIVATIONS)?, hooks, rows)
            .and_then(|frame| caught(|| contexts(&frame, hooks, precision, &group)))
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(found.into_iter().map(|context| context.values).collect())
    }
}

/// Some rows of a part, with their contexts and positions.
fn rows_of(reader: ParquetReader<File>, hooks: &[String], rows: Range<usize>) -> Result<DataFrame> {
    let columns = ["context", "position"].map(String::from);
    let columns = columns.into_iter().chain(hooks.iter().cloned()).collect();
    let reader = reader.with_columns(Some(columns)).with_slice(Some((rows.start, rows.len())));
    caught(|| reader.finish())
}

/// Whether a part is there and has a hook, and its bytes if so.
pub(crate) fn bytes_with(store: &Store, part: u32, hook: &str) -> Option<u64> {
    let path = store.part_path(&ACTIVATIONS, part);
    let mut reader = store.reader(&path, &ACTIVATIONS).ok()?;
    let has = caught(|| reader.schema()).ok()?.contains(hook);
    has.then(|| path.metadata().ok()).flatten().map(|file| file.len())
}

/// Reads those contexts of a part that are `wanted` in turn, a few at a time. `lengths` are the
/// tokens of each context of the part, in order.
pub fn read_part(
    store: &Store,
    part: u32,
    hooks: &[String],
    precision: Precision,
    lengths: &[(u32, usize)],
    wanted: impl Fn(u32) -> bool,
    mut each: impl FnMut(Vec<HookValues>) -> Result<()>,
) -> Result<()> {
    let path = store.part_path(&ACTIVATIONS, part);
    // Once: a part is large, and read a few contexts at a time.
    store.verify(&path, &ACTIVATIONS)?;
    let mut from = 0;
    for group in lengths.chunks(GROUP) {
        let rows: usize = group.iter().map(|x| x.1).sum();
        if !group.iter().any(|(context, _)| wanted(*context)) {
            from += rows;
            continue;
        }
        let reader = store.reader(&path, &ACTIVATIONS)?;
        let frame = rows_of(reader, hooks, from..from + rows).hint(
            || format!("cannot read `{}`", path.display()),
            "rerun with `circuit-atlas run cache --force`",
        )?;
        from += rows;
        let mut found = caught(|| contexts(&frame, hooks, precision, group)).hint(
            || format!("`{}` does not contain the contexts of `tokens`", path.display()),
            "rerun with `circuit-atlas run cache --force`",
        )?;
        found.retain(|context| wanted(context.context));
        each(found)?;
    }
    Ok(())
}

fn contexts(
    frame: &DataFrame,
    hooks: &[String],
    precision: Precision,
    group: &[(u32, usize)],
) -> Result<Vec<HookValues>> {
    let mut found: Vec<HookValues> =
        group.iter().map(|&(context, _)| HookValues { context, values: Vec::new() }).collect();
    let numbers: Vec<u32> = frame.column("context")?.u32()?.iter().flatten().collect();
    let wanted: Vec<u32> = group.iter().flat_map(|&(context, n)| vec![context; n]).collect();
    if numbers != wanted {
        anyhow::bail!("its rows are of other contexts");
    }
    for hook in hooks {
        let column = frame.column(hook)?.binary()?;
        let mut rows = column.iter();
        for (context, &(_, n)) in found.iter_mut().zip(group) {
            let mut values = Vec::new();
            rows.by_ref().take(n).flatten().for_each(|bytes| precision.decode(bytes, &mut values));
            context.values.push(values);
        }
    }
    Ok(found)
}
