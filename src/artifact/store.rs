//! The artifact folder: Parquet files that carry their name, version and the fingerprint of what
//! made them.

use super::origin::Origin;
use super::publish::{
    publish, publish_beside_others, remove_unfinished, scratch, scratch_apart, sync_folder,
};
use super::row::{Cell, Column, Row};
use super::seal::{self, Found, Sealed};
use crate::error::{Context, Hint, Result, caught, hinted};
use polars::prelude::{
    BooleanChunked, DataFrame, KeyValueMetadata, NewChunkedArray, ParquetCompression,
    ParquetReader, ParquetWriter, PolarsResult, SerReader,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A declared table.
#[derive(Clone, Copy, Debug)]
pub struct Artifact {
    /// The table's name, of which its file or folder is named.
    pub name: &'static str,
    /// Its version; a file of another version is not read.
    pub version: u32,
    /// In files `NAME/part-NNNNN.parquet` instead of one.
    pub sharded: bool,
    /// What a row is.
    pub row: &'static str,
    /// Its columns, in order.
    pub columns: &'static [Column],
}

/// An artifact folder, opened for one run.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    /// Artifact name → what its files must carry, and who writes them.
    expected: BTreeMap<String, Expected>,
    /// Artifact name → that its files must not be read now.
    closed: BTreeMap<String, Closed>,
    /// Other processes may write the same files at the same time.
    shared: bool,
}

#[derive(Clone, Debug)]
struct Expected {
    fingerprint: String,
    stage: &'static str,
}

/// A table that must not be read.
#[derive(Clone, Debug)]
struct Closed {
    /// The error of whoever tries, and its hint.
    what: String,
    hint: String,
    /// It is as if it had no rows.
    empty: bool,
}

/// Raised when files of all tables have another form: everything is made again then.
pub(crate) const FORM: u32 = 2;

/// The folder of parts of earlier runs, below the artifact folder.
const EARLIER: &str = "earlier";

const NAME: &str = "circuit-atlas.artifact";
const VERSION: &str = "circuit-atlas.version";
const FINGERPRINT: &str = "circuit-atlas.fingerprint";
/// Of a part that is kept until its stage is done: its number.
const PART: &str = "circuit-atlas.part";
const KEYS: [&str; 4] = [NAME, VERSION, FINGERPRINT, seal::KEY];

impl Artifact {
    /// The file or, when sharded, the folder of files, below the artifact folder.
    pub fn relative(&self) -> String {
        if self.sharded { self.name.into() } else { format!("{}.parquet", self.name) }
    }

    /// A part's file below the artifact folder.
    pub fn part(&self, part: u32) -> String {
        format!("{}/part-{part:05}.parquet", self.name)
    }

    /// What a file says of itself, and more, which comes first, as it may be long: the rest is looked
    /// for at the end of a file.
    pub(super) fn metadata_with(
        &self,
        fingerprint: &str,
        more: impl IntoIterator<Item = (&'static str, String)>,
    ) -> KeyValueMetadata {
        let pairs = more.into_iter().chain(self.pairs(fingerprint));
        KeyValueMetadata::from_static(pairs.map(|(key, value)| (key.to_string(), value)).collect())
    }

    /// What a file of this artifact says of itself.
    pub fn metadata(&self, fingerprint: &str) -> KeyValueMetadata {
        self.metadata_with(fingerprint, [])
    }

    fn pairs(&self, fingerprint: &str) -> [(&'static str, String); 4] {
        [
            (NAME, self.name.into()),
            (VERSION, self.version.to_string()),
            (FINGERPRINT, fingerprint.into()),
            (seal::KEY, seal::OPEN.into()),
        ]
    }
}

impl Store {
    /// The folder at a path, which need not exist yet.
    pub fn new(root: &Path) -> Store {
        Store {
            root: root.into(),
            expected: BTreeMap::new(),
            closed: BTreeMap::new(),
            shared: false,
        }
    }

    /// From now on other processes may write the same files, with the same content, at the same
    /// time.
    pub(crate) fn share(&mut self) {
        self.shared = true;
    }

    /// Path of the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is a file of a table that is not in parts.
    pub(crate) fn has(&self, artifact: &Artifact) -> bool {
        self.path(artifact).exists()
    }

    /// Files of this artifact, which `stage` writes, must carry this fingerprint from now on.
    pub fn expect(&mut self, artifact: &Artifact, fingerprint: &str, stage: &'static str) {
        self.expected
            .insert(artifact.name.into(), Expected { fingerprint: fingerprint.into(), stage });
    }

    /// Files of this artifact must not be read: it is as if it had no rows, where answers can do
    /// without it (`empty`), else whoever tries gets this error with this hint.
    pub(crate) fn close(&mut self, artifact: &Artifact, what: &str, hint: &str, empty: bool) {
        let closed = Closed { what: what.into(), hint: hint.into(), empty };
        self.closed.insert(artifact.name.into(), closed);
    }

    /// Whether a table is left out of answers.
    fn is_left_out(&self, artifact: &Artifact) -> bool {
        self.closed.get(artifact.name).is_some_and(|closed| closed.empty)
    }

    /// # Errors
    /// When files of an artifact must not be read.
    fn check_open(&self, artifact: &Artifact) -> Result<()> {
        match self.closed.get(artifact.name) {
            Some(Closed { what, hint, .. }) => Err(hinted(what, hint)),
            None => Ok(()),
        }
    }

    /// The next step when a file of an artifact cannot be used.
    fn again(&self, artifact: &Artifact) -> String {
        let stage = self.expected.get(artifact.name).map_or("STAGE", |expected| expected.stage);
        format!("rerun with `circuit-atlas run {stage} --force`")
    }

    /// The path of an artifact's file, or of its folder.
    pub fn path(&self, artifact: &Artifact) -> PathBuf {
        self.root.join(artifact.relative())
    }

    /// The path of a part.
    pub(crate) fn part_path(&self, artifact: &Artifact, part: u32) -> PathBuf {
        self.root.join(artifact.part(part))
    }

    /// Writes a whole table.
    pub fn write<R: Row>(&self, fingerprint: &str, rows: &[R]) -> Result<()> {
        self.write_as(&R::ARTIFACT, fingerprint, rows)
    }

    /// Writes a whole table whose rows are also those of another one.
    pub(crate) fn write_as<R: Row>(
        &self,
        artifact: &Artifact,
        fingerprint: &str,
        rows: &[R],
    ) -> Result<()> {
        self.write_rows(&self.path(artifact), artifact.metadata(fingerprint), rows)
    }

    /// Writes one part of a sharded table.
    pub(crate) fn write_part<R: Row>(
        &self,
        fingerprint: &str,
        part: u32,
        rows: &[R],
    ) -> Result<()> {
        self.write_part_as(&R::ARTIFACT, fingerprint, part, rows)
    }

    /// Writes one part of a sharded table whose rows are also those of another one.
    pub(crate) fn write_part_as<R: Row>(
        &self,
        artifact: &Artifact,
        fingerprint: &str,
        part: u32,
        rows: &[R],
    ) -> Result<()> {
        let path = self.part_path(artifact, part);
        self.write_rows(&path, artifact.metadata(fingerprint), rows)
    }

    /// Writes a part that is kept until its stage is done. It says which part it is, so that one that
    /// comes under another name is none.
    pub(crate) fn keep_part<R: Row>(
        &self,
        artifact: &Artifact,
        fingerprint: &str,
        part: u32,
        rows: &[R],
    ) -> Result<()> {
        let metadata = artifact.metadata_with(fingerprint, [(PART, part.to_string())]);
        self.write_rows(&self.part_path(artifact, part), metadata, rows)
    }

    fn write_rows<R: Row>(
        &self,
        path: &Path,
        metadata: KeyValueMetadata,
        rows: &[R],
    ) -> Result<()> {
        let mut frame = R::to_frame(rows)?;
        self.publish(path, |file| {
            ParquetWriter::new(file)
                .with_compression(ParquetCompression::Zstd(None))
                .with_key_value_metadata(Some(metadata))
                .finish(&mut frame)?;
            Ok(())
        })
    }

    /// Publishes a Parquet file with a hash of it inside.
    ///
    /// # Errors
    /// When there is something of another program under this name: it would be lost.
    pub(super) fn publish(
        &self,
        path: &Path,
        write: impl FnOnce(&mut Sealed<&mut BufWriter<File>>) -> Result<()>,
    ) -> Result<()> {
        Store::check_replaceable(path)?;
        let sealed = |file: &mut BufWriter<File>| {
            let mut sealed = Sealed::new(file);
            write(&mut sealed)?;
            sealed.end().map(drop)
        };
        if self.shared { publish_beside_others(path, sealed) } else { publish(path, sealed) }
    }

    /// The name that a file has until it is whole.
    pub(super) fn scratch(&self, path: &Path) -> PathBuf {
        if self.shared { scratch_apart(path) } else { scratch(path) }
    }

    /// Reads a whole table.
    pub fn read<R: Row>(&self) -> Result<Vec<R>> {
        self.read_as(&R::ARTIFACT)
    }

    /// Reads a whole table whose rows are also those of another one.
    pub fn read_as<R: Row>(&self, artifact: &Artifact) -> Result<Vec<R>> {
        self.read_file(&self.path(artifact), artifact)
    }

    /// Reads one part of a sharded table.
    pub fn read_part<R: Row>(&self, part: u32) -> Result<Vec<R>> {
        self.read_part_as(&R::ARTIFACT, part)
    }

    /// Reads one part of a sharded table whose rows are also those of another one.
    pub(crate) fn read_part_as<R: Row>(&self, artifact: &Artifact, part: u32) -> Result<Vec<R>> {
        self.read_file(&self.part_path(artifact, part), artifact)
    }

    /// Reads the rows of a whole table of which one of these columns holds one of these texts; the
    /// others are passed over before they become rows.
    pub(crate) fn read_about<R: Row>(
        &self,
        columns: &[&str],
        wanted: &BTreeSet<String>,
    ) -> Result<Vec<R>> {
        self.read_where(&self.path(&R::ARTIFACT), columns, |frame| {
            let mut mask = vec![false; frame.height()];
            for column in columns {
                let own = frame.column(column)?.str()?.iter();
                let is_wanted = own.map(|text| text.is_some_and(|text| wanted.contains(text)));
                mask.iter_mut().zip(is_wanted).for_each(|(any, own)| *any |= own);
            }
            Ok(mask)
        })
    }

    /// Reads the rows of one part of a sharded table of which a column holds one of these numbers.
    pub(crate) fn read_part_of<R: Row>(
        &self,
        part: u32,
        column: &str,
        wanted: &BTreeSet<u32>,
    ) -> Result<Vec<R>> {
        self.read_where(&self.part_path(&R::ARTIFACT, part), &[column], |frame| {
            let own = frame.column(column)?.u32()?.iter();
            Ok(own.map(|number| number.is_some_and(|number| wanted.contains(&number))).collect())
        })
    }

    /// Reads the rows of a whole table of which a column holds none of these texts.
    pub(crate) fn read_without<R: Row>(
        &self,
        column: &str,
        unwanted: &BTreeSet<String>,
    ) -> Result<Vec<R>> {
        self.read_where(&self.path(&R::ARTIFACT), &[column], |frame| {
            let own = frame.column(column)?.str()?.iter();
            Ok(own.map(|text| text.is_some_and(|text| !unwanted.contains(text))).collect())
        })
    }

    /// Reads the rows of a whole table of which a column of truth values says so.
    pub(crate) fn read_that<R: Row>(&self, column: &str, is: bool) -> Result<Vec<R>> {
        self.read_where(&self.path(&R::ARTIFACT), &[column], |frame| {
            Ok(frame.column(column)?.bool()?.iter().map(|own| own == Some(is)).collect())
        })
    }

    /// Reads one column of a whole table.
    pub(crate) fn read_column<R: Row, C: Cell>(&self, column: &str) -> Result<Vec<C>> {
        let (artifact, path) = (R::ARTIFACT, self.path(&R::ARTIFACT));
        let mut cells = Vec::new();
        if self.is_left_out(&artifact) {
            return Ok(cells);
        }
        for rows in self.stretches(&path, &artifact)? {
            let frame = self.stretch(&path, &artifact, Some(&[column]), rows)?;
            let own = caught(|| C::read(frame.column(column)?.as_materialized_series()));
            cells.extend(own.hint(|| without_columns(&path, &artifact), &self.again(&artifact))?);
        }
        Ok(cells)
    }

    /// Gives the rows of a whole table, many at a time.
    pub(crate) fn each<R: Row>(&self, mut each: impl FnMut(R)) -> Result<()> {
        let (artifact, path) = (R::ARTIFACT, self.path(&R::ARTIFACT));
        if self.is_left_out(&artifact) {
            return Ok(());
        }
        for some in self.stretches(&path, &artifact)? {
            let frame = self.stretch(&path, &artifact, None, some)?;
            self.rows::<R>(&path, &artifact, &frame)?.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// Gives the numbers of a column of a part, many at a time.
    pub(crate) fn each_number(
        &self,
        artifact: &Artifact,
        part: u32,
        column: &str,
        mut each: impl FnMut(u32) -> Result<()>,
    ) -> Result<()> {
        let path = self.part_path(artifact, part);
        for rows in self.stretches(&path, artifact)? {
            let frame = self.stretch(&path, artifact, Some(&[column]), rows)?;
            let own = caught(|| u32::read(frame.column(column)?.as_materialized_series()));
            let own = own.hint(|| without_columns(&path, artifact), &self.again(artifact))?;
            own.into_iter().try_for_each(&mut each)?;
        }
        Ok(())
    }

    /// Gives some rows of a part that [`Store::each_number`] has seen, many at a time.
    pub(crate) fn each_row<R: Row>(
        &self,
        part: u32,
        rows: Range<usize>,
        mut each: impl FnMut(R),
    ) -> Result<()> {
        let (artifact, path) = (R::ARTIFACT, self.part_path(&R::ARTIFACT, part));
        for some in stretches_of(rows) {
            let frame = self.stretch(&path, &artifact, None, some)?;
            self.rows::<R>(&path, &artifact, &frame)?.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// Reads all parts of a sharded table, one after the other.
    pub fn read_parts<R: Row>(&self) -> Result<Vec<R>> {
        let mut rows = Vec::new();
        for part in self.parts(&R::ARTIFACT)? {
            rows.extend(self.read_part::<R>(part)?);
        }
        Ok(rows)
    }

    fn read_file<R: Row>(&self, path: &Path, artifact: &Artifact) -> Result<Vec<R>> {
        if self.is_left_out(artifact) {
            return Ok(Vec::new());
        }
        self.rows(path, artifact, &self.frame(path, artifact)?)
    }

    /// The rows for which `wanted` says so, by some columns: where there is none in a stretch, the
    /// other columns are not read.
    fn read_where<R: Row>(
        &self,
        path: &Path,
        columns: &[&str],
        wanted: impl Fn(&DataFrame) -> PolarsResult<Vec<bool>>,
    ) -> Result<Vec<R>> {
        let artifact = R::ARTIFACT;
        let mut found = Vec::new();
        if self.is_left_out(&artifact) {
            return Ok(found);
        }
        for rows in self.stretches(path, &artifact)? {
            let frame = self.stretch(path, &artifact, Some(columns), rows.clone())?;
            let mask = caught(|| wanted(&frame));
            let mask = mask.hint(|| without_columns(path, &artifact), &self.again(&artifact))?;
            let ends = (mask.iter().position(|is| *is), mask.iter().rposition(|is| *is));
            let (Some(first), Some(last)) = ends else { continue };
            let some = rows.start + first..rows.start + last + 1;
            let frame = self.stretch(path, &artifact, None, some)?;
            let mask = mask[first..=last].iter().copied();
            let mask = BooleanChunked::from_iter_values("".into(), mask);
            let some = caught(|| frame.filter(&mask));
            let some = some.hint(|| without_columns(path, &artifact), &self.again(&artifact))?;
            found.extend(self.rows::<R>(path, &artifact, &some)?);
        }
        Ok(found)
    }

    /// The rows of a file, every byte of which is as it was written, in stretches that can be read
    /// one at a time.
    fn stretches(
        &self,
        path: &Path,
        artifact: &Artifact,
    ) -> Result<impl Iterator<Item = Range<usize>> + use<>> {
        let mut reader = self.open(path, artifact)?;
        let rows = caught(|| reader.num_rows())
            .hint(|| format!("cannot read `{}`", path.display()), &self.again(artifact))?;
        Ok(stretches_of(0..rows))
    }

    /// Some rows, with all columns or with some, of a file that [`Store::verify`] has seen.
    fn stretch(
        &self,
        path: &Path,
        artifact: &Artifact,
        columns: Option<&[&str]>,
        rows: Range<usize>,
    ) -> Result<DataFrame> {
        let names = columns.map(|names| names.iter().map(ToString::to_string).collect());
        let reader = self.reader(path, artifact)?;
        let reader = reader.with_columns(names).with_slice(Some((rows.start, rows.len())));
        caught(|| reader.finish()).hint(
            || match columns {
                Some(_) => without_columns(path, artifact),
                None => format!("cannot read `{}`", path.display()),
            },
            &self.again(artifact),
        )
    }

    fn frame(&self, path: &Path, artifact: &Artifact) -> Result<DataFrame> {
        let reader = self.open(path, artifact)?;
        caught(|| reader.finish())
            .hint(|| format!("cannot read `{}`", path.display()), &self.again(artifact))
    }

    fn rows<R: Row>(&self, path: &Path, artifact: &Artifact, frame: &DataFrame) -> Result<Vec<R>> {
        caught(|| R::from_frame(frame))
            .hint(|| without_columns(path, artifact), &self.again(artifact))
    }

    /// Opens a file of which every byte is as it was written, and whose name, version and
    /// fingerprint are those expected.
    pub fn open(&self, path: &Path, artifact: &Artifact) -> Result<ParquetReader<File>> {
        self.verify(path, artifact)?;
        self.reader(path, artifact)
    }

    /// # Errors
    /// When a file is not as this program wrote it.
    pub(super) fn verify(&self, path: &Path, artifact: &Artifact) -> Result<()> {
        self.check_open(artifact)?;
        let what = || format!("cannot read `{}`", path.display());
        let found = seal::found(&mut opened(path)?, &KEYS).hint(what, &self.again(artifact))?;
        let path = path.display();
        match found {
            Found::Whole => Ok(()),
            Found::Changed => Err(hinted(
                format!("`{path}` is damaged: its content does not match its hash"),
                self.again(artifact),
            )),
            Found::Unsealed => Err(hinted(
                format!(
                    "`{path}` is damaged, or was written by an earlier version: it has no hash"
                ),
                self.again(artifact),
            )),
            Found::Foreign => Err(foreign(&path.to_string())),
        }
    }

    /// A reader of a file that [`Store::verify`] has seen.
    pub(super) fn reader(&self, path: &Path, artifact: &Artifact) -> Result<ParquetReader<File>> {
        let mut reader = ParquetReader::new(opened(path)?);
        let said = metadata(&mut reader).hint(
            || format!("`{}` is not a complete Parquet file", path.display()),
            &self.again(artifact),
        )?;
        self.check(path, artifact, &said)?;
        Ok(reader)
    }

    /// # Errors
    /// When there is something under the name of a table, or of a part, that this program did not
    /// write: it would be replaced.
    pub(crate) fn check_ours(&self, artifact: &Artifact) -> Result<()> {
        match self.named_like(artifact).iter().find(|path| !is_ours(path)) {
            Some(path) => Err(foreign(&path.display().to_string())),
            None => Ok(()),
        }
    }

    /// # Errors
    /// When there is something of another program under a name: it would be lost.
    pub(super) fn check_replaceable(path: &Path) -> Result<()> {
        if path.symlink_metadata().is_ok() && !is_ours(path) {
            return Err(foreign(&path.display().to_string()));
        }
        Ok(())
    }

    /// Whatever there is under the names of an artifact's files.
    fn named_like(&self, artifact: &Artifact) -> Vec<PathBuf> {
        let path = self.path(artifact);
        match (artifact.sharded, path.symlink_metadata()) {
            (_, Err(_)) => Vec::new(),
            (true, Ok(_)) if path.is_dir() => {
                let parts = self.part_numbers(artifact).into_iter();
                parts.map(|part| self.part_path(artifact, part)).collect()
            }
            _ => vec![path],
        }
    }

    fn check(
        &self,
        path: &Path,
        artifact: &Artifact,
        said: &BTreeMap<String, String>,
    ) -> Result<()> {
        let again = self.again(artifact);
        let path = path.display();
        if said.get(NAME).map(String::as_str) != Some(artifact.name) {
            let what = format!("`{path}` was not written by this program as `{}`", artifact.name);
            return Err(hinted(what, again));
        }
        let version = said.get(VERSION).cloned().unwrap_or_default();
        if version != artifact.version.to_string() {
            let what = format!(
                "`{path}` is of version {version} of the table, this program reads {}",
                artifact.version
            );
            return Err(hinted(what, again));
        }
        match self.expected.get(artifact.name) {
            Some(expected) if said.get(FINGERPRINT) != Some(&expected.fingerprint) => Err(hinted(
                format!("`{path}` is from another run than `atlas.lock` records"),
                again,
            )),
            _ => Ok(()),
        }
    }

    /// The fingerprint that a part carries, if it is there and as it was written.
    pub(crate) fn part_fingerprint(&self, artifact: &Artifact, part: u32) -> Option<String> {
        let path = self.part_path(artifact, part);
        self.verify(&path, artifact).ok()?;
        self.part_says(artifact, part)
    }

    /// The fingerprint that a part carries, whatever else is in it: whoever reads it checks that.
    pub(crate) fn part_says(&self, artifact: &Artifact, part: u32) -> Option<String> {
        let said = said(artifact, &self.part_path(artifact, part))?;
        let is_another = said.get(PART).is_some_and(|number| *number != part.to_string());
        if is_another { None } else { said.get(FINGERPRINT).cloned() }
    }

    /// What a part says of what it was made from and what it has; whoever reads it checks the rest.
    pub(crate) fn part_origin(&self, artifact: &Artifact, part: u32) -> Option<Origin> {
        let path = self.part_path(artifact, part);
        Origin::read(&said(artifact, &path)?)
    }

    /// The bytes of a part; 0 if it is not there.
    pub(crate) fn part_bytes(&self, artifact: &Artifact, part: u32) -> u64 {
        self.part_path(artifact, part).metadata().map_or(0, |file| file.len())
    }

    /// The folder of parts of earlier runs that are kept while their table is made anew.
    pub(crate) fn earlier(&self) -> Store {
        Store::new(&self.root.join(EARLIER))
    }

    /// Gives a part to another folder on the same disk, behind those that are there; its number there.
    ///
    /// # Errors
    /// When a folder cannot be written.
    pub(crate) fn move_part(&self, artifact: &Artifact, part: u32, to: &Store) -> Result<u32> {
        let number = to.part_numbers(artifact).last().map_or(0, |last| last + 1);
        let (from, to) = (self.part_path(artifact, part), to.part_path(artifact, number));
        let moved = || -> Result<()> {
            to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::rename(&from, &to)?;
            sync_folder(&to)?;
            sync_folder(&from)
        };
        let moved = moved().hint(
            || format!("cannot move `{}` to `{}`", from.display(), to.display()),
            "check that the folder can be written, and that no file is in its way",
        );
        moved.map(|()| number)
    }

    /// Removes a part.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove_part(&self, artifact: &Artifact, part: u32) -> Result<()> {
        let path = self.part_path(artifact, part);
        if is_ours(&path) { remove_if_there(&path) } else { Ok(()) }
    }

    /// Removes what is kept of a table's parts of earlier runs. What is not ours is left; its names.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn remove_earlier(&self, artifact: &Artifact) -> Result<Vec<String>> {
        let earlier = self.earlier();
        if !earlier.path(artifact).exists() {
            return Ok(Vec::new());
        }
        let left = earlier.remove(artifact)?;
        // It stays where something else is in it.
        drop(std::fs::remove_dir(earlier.root()));
        Ok(left.into_iter().map(|name| format!("{EARLIER}/{name}")).collect())
    }

    /// Gives a part another fingerprint.
    ///
    /// # Errors
    /// When it has none, or cannot be written.
    pub(crate) fn restamp_part(
        &self,
        artifact: &Artifact,
        fingerprint: &str,
        part: u32,
    ) -> Result<()> {
        let path = self.part_path(artifact, part);
        self.publish(&path, |file| {
            match seal::copy_with(&mut opened(&path)?, FINGERPRINT, fingerprint, file)? {
                true => Ok(()),
                false => anyhow::bail!("it has no fingerprint"),
            }
        })
    }

    /// The fingerprint that a whole table carries, if it is there.
    pub fn fingerprint(&self, artifact: &Artifact) -> Option<String> {
        fingerprint(artifact, &self.path(artifact))
    }

    /// The numbers of the parts that are there, in order.
    ///
    /// # Errors
    /// When there are none, or one is missing in between.
    pub fn parts(&self, artifact: &Artifact) -> Result<Vec<u32>> {
        self.check_open(artifact)?;
        let folder = self.path(artifact);
        let parts = self.part_numbers(artifact);
        let gap = parts.iter().enumerate().find(|(i, part)| *i as u32 != **part);
        match (parts.is_empty(), gap) {
            (false, None) => Ok(parts),
            (true, _) => Err(hinted(
                format!("`{}` has no parts", folder.display()),
                "run the stage that writes them",
            )),
            (_, Some((i, _))) => {
                let what = format!("`{}` lacks part {i}", folder.display());
                Err(hinted(what, "run the stage that writes it again; the other parts are kept"))
            }
        }
    }

    /// The same, some of which may be missing.
    pub(crate) fn part_numbers(&self, artifact: &Artifact) -> Vec<u32> {
        let entries = std::fs::read_dir(self.path(artifact)).into_iter().flatten().flatten();
        let mut parts: Vec<u32> =
            entries.filter_map(|entry| part_number(entry.file_name().to_str()?)).collect();
        parts.sort_unstable();
        parts
    }

    /// Removes the parts of a sharded table that killed runs were writing.
    pub(crate) fn remove_unfinished(&self, artifact: &Artifact) -> Result<()> {
        remove_unfinished(&self.path(artifact), |name| part_number(name).is_some())
    }

    /// Removes parts from number `from` on, which an earlier run with more shards left.
    pub(crate) fn remove_parts_from(&self, artifact: &Artifact, from: u32) -> Result<()> {
        let parts = self.part_numbers(artifact).into_iter().filter(|part| *part >= from);
        let paths = parts.map(|part| self.part_path(artifact, part));
        paths.filter(|path| is_ours(path)).try_for_each(|path| remove_if_there(&path))
    }

    /// Removes an artifact's files, finished or not, and its folder if nothing else is in it. What
    /// is named like them and is not ours is left; its names below the artifact folder.
    pub fn remove(&self, artifact: &Artifact) -> Result<Vec<String>> {
        let mut paths = vec![self.path(artifact)];
        match artifact.sharded {
            true => {
                self.remove_unfinished(artifact)?;
                let parts = self.part_numbers(artifact).into_iter();
                paths = parts.map(|part| self.part_path(artifact, part)).collect();
            }
            false => remove_if_there(&scratch(&paths[0]))?,
        }
        paths.iter().filter(|path| is_ours(path)).try_for_each(|path| remove_if_there(path))?;
        if artifact.sharded {
            // It stays where a user has put something into it.
            drop(std::fs::remove_dir(self.path(artifact)));
        }
        let below = |path: PathBuf| {
            path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy().into_owned()
        };
        Ok(self.named_like(artifact).into_iter().map(below).collect())
    }

    /// Files of an artifact that are there, below the artifact folder, in order.
    pub fn files(&self, artifact: &Artifact) -> Vec<String> {
        if artifact.sharded {
            return self
                .part_numbers(artifact)
                .into_iter()
                .map(|part| artifact.part(part))
                .collect();
        }
        self.path(artifact).is_file().then(|| artifact.relative()).into_iter().collect()
    }
}

/// The number of a part, by the name of its file.
fn part_number(name: &str) -> Option<u32> {
    name.strip_prefix("part-")?.strip_suffix(".parquet")?.parse().ok()
}

/// Rows that are read at once. Row groups end where these do, so that none is read twice.
const STRETCH: usize = 1 << 17;

/// Rows cut where [`STRETCH`] ends.
fn stretches_of(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = rows.start / STRETCH;
    let last = rows.end.div_ceil(STRETCH);
    (first..last).map(move |i| rows.start.max(i * STRETCH)..rows.end.min((i + 1) * STRETCH))
}

fn without_columns(path: &Path, artifact: &Artifact) -> String {
    format!("`{}` does not have the columns of the table `{}`", path.display(), artifact.name)
}

/// The fingerprint that a file carries, if it is a whole one of this artifact and version.
fn fingerprint(artifact: &Artifact, path: &Path) -> Option<String> {
    said(artifact, path)?.remove(FINGERPRINT)
}

/// What a file says of itself, if it is one of this artifact.
fn said(artifact: &Artifact, path: &Path) -> Option<BTreeMap<String, String>> {
    let said = metadata(&mut ParquetReader::new(File::open(path).ok()?)).ok()?;
    let version = artifact.version.to_string();
    (said.get(NAME)? == artifact.name && *said.get(VERSION)? == version).then_some(said)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

fn foreign(path: &str) -> anyhow::Error {
    hinted(
        format!("`{path}` was not written by this program and would be overwritten"),
        "move it elsewhere, or set another `output.artifacts`",
    )
}

/// Whether something is a file of this program, damaged or not.
fn is_ours(path: &Path) -> bool {
    path.is_file() && File::open(path).is_ok_and(|mut file| seal::has_any(&mut file, &KEYS))
}

fn opened(path: &Path) -> Result<File> {
    File::open(path).hint(
        || format!("cannot read `{}`", path.display()),
        "run the stage that writes it; `circuit-atlas status` says which stages are fresh",
    )
}

/// The key-value metadata of a Parquet file.
pub(super) fn metadata(reader: &mut ParquetReader<File>) -> Result<BTreeMap<String, String>> {
    let metadata = caught(|| reader.get_metadata().cloned())?;
    let pairs = metadata.key_value_metadata().iter().flatten();
    Ok(pairs.filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?))).collect())
}
