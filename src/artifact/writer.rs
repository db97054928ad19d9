//! A table, or a part of one, that is written a stretch of rows at a time, so that it is never in
//! memory whole.

use super::origin::Origin;
use super::publish::{Draft, unwritten};
use super::row::Row;
use super::seal::Sealed;
use super::store::Store;
use crate::error::Result;
use polars::prelude::{BatchedWriter, KeyValueMetadata, ParquetCompression, ParquetWriter};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Rows of a row group: the same however many rows are given at once, so that the file's bytes do
/// not depend on that.
const GROUP: usize = 1 << 16;

/// Writes rows in the order in which they are given. The file appears when it is ended; if it is
/// dropped, nothing is left.
pub(crate) struct TableWriter<R> {
    path: PathBuf,
    draft: Draft,
    file: Shared,
    writer: BatchedWriter<Shared>,
    /// Given, but not yet written.
    rows: Vec<R>,
}

/// The file, which the Parquet writer takes and does not give back.
#[derive(Clone)]
struct Shared(Rc<RefCell<Option<Sealed<BufWriter<File>>>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().as_mut().map_or(Err(ended()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().as_mut().map_or(Err(ended()), Write::flush)
    }
}

fn ended() -> io::Error {
    io::Error::other("the file was ended")
}

impl Store {
    /// A writer of a whole table.
    ///
    /// # Errors
    /// When there is something of somebody else under its name, or the folder cannot be written.
    pub(crate) fn writer<R: Row>(&self, fingerprint: &str) -> Result<TableWriter<R>> {
        TableWriter::begin(self, &self.path(&R::ARTIFACT), R::ARTIFACT.metadata(fingerprint))
    }

    /// A writer of one part of a sharded table that says what it was made from and what it has.
    ///
    /// # Errors
    /// As of [`Store::writer`].
    pub(crate) fn part_writer_of<R: Row>(
        &self,
        fingerprint: &str,
        origin: &Origin,
        part: u32,
    ) -> Result<TableWriter<R>> {
        let path = self.part_path(&R::ARTIFACT, part);
        TableWriter::begin(self, &path, R::ARTIFACT.metadata_with(fingerprint, origin.pairs()))
    }
}

impl<R: Row> TableWriter<R> {
    fn begin(store: &Store, path: &Path, metadata: KeyValueMetadata) -> Result<TableWriter<R>> {
        Store::check_replaceable(path)?;
        unwritten(path, Self::open(path, store.scratch(path), metadata))
    }

    fn open(path: &Path, scratch: PathBuf, metadata: KeyValueMetadata) -> Result<TableWriter<R>> {
        let (draft, file) = Draft::begin(path, scratch)?;
        let file = Shared(Rc::new(RefCell::new(Some(Sealed::new(file)))));
        let writer = ParquetWriter::new(file.clone())
            .with_compression(ParquetCompression::Zstd(None))
            .with_key_value_metadata(Some(metadata))
            .batched(R::to_frame(&[])?.schema())?;
        Ok(TableWriter { path: path.into(), draft, file, writer, rows: Vec::new() })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When the disk is full.
    pub(crate) fn add(&mut self, rows: impl IntoIterator<Item = R>) -> Result<()> {
        for row in rows {
            self.rows.push(row);
            if self.rows.len() == GROUP {
                self.write()?;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let rows = mem::take(&mut self.rows);
        let frame = R::to_frame(&rows)?;
        drop(rows);
        unwritten(&self.path, self.writer.write_batch(&frame).map_err(Into::into))
    }

    /// Publishes the file.
    ///
    /// # Errors
    /// When the disk is full.
    pub(crate) fn end(mut self) -> Result<()> {
        if !self.rows.is_empty() {
            self.write()?;
        }
        let path = mem::take(&mut self.path);
        unwritten(&path, self.publish())
    }

    fn publish(self) -> Result<()> {
        self.writer.finish()?;
        let Some(sealed) = self.file.0.take() else { return Err(ended().into()) };
        self.draft.end(&mut sealed.end()?)
    }
}
