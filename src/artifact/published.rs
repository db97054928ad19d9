//! The tables that a site gives away: all that say something of the model, its circuits and its
//! features.

use super::row::Row;
use super::store::{Artifact, Store};
use super::tables::*;
use crate::error::{Context, Hint, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// In the order in which the stages write them. Left out are the raw activations, which are as
/// large as the model's runs, and what `show` keeps of its own questions.
pub const PUBLISHED: [Artifact; 41] = [
    Document::ARTIFACT,
    ContextRow::ARTIFACT,
    ModelCheckRow::ARTIFACT,
    ConformanceRow::ARTIFACT,
    PromptRow::ARTIFACT,
    NodeRow::ARTIFACT,
    EdgeRow::ARTIFACT,
    ComponentRow::ARTIFACT,
    CircuitFeature::ARTIFACT,
    RankingRow::ARTIFACT,
    HookScoreRow::ARTIFACT,
    FaithfulnessRow::ARTIFACT,
    EffectRow::ARTIFACT,
    CircuitRunRow::ARTIFACT,
    HeadRow::ARTIFACT,
    AttentionRow::ARTIFACT,
    CopyRow::ARTIFACT,
    HeadFeatureRow::ARTIFACT,
    PublishedRow::ARTIFACT,
    ScoreRow::ARTIFACT,
    FeatureRow::ARTIFACT,
    ExampleRow::ARTIFACT,
    EvidenceRow::ARTIFACT,
    ProfileRow::ARTIFACT,
    BeforeRow::ARTIFACT,
    LogitRow::ARTIFACT,
    CircuitPairRow::ARTIFACT,
    CorpusPairRow::ARTIFACT,
    ClusterRow::ARTIFACT,
    CauseRow::ARTIFACT,
    ReadingRow::ARTIFACT,
    SimilarRow::ARTIFACT,
    AblatedRow::ARTIFACT,
    ExplanationRow::ARTIFACT,
    ExchangeRow::ARTIFACT,
    EvaluationRow::ARTIFACT,
    JudgementRow::ARTIFACT,
    AgreementRow::ARTIFACT,
    CausalRow::ARTIFACT,
    LedgerRow::ARTIFACT,
    JUDGE_LEDGER,
];

/// A table as it lies in the artifact folder.
pub(crate) struct StoredTable {
    pub rows: u64,
    pub bytes: u64,
    /// Its files, by name below the artifact folder.
    pub files: Vec<(String, PathBuf)>,
}

/// The key under which Polars says which types of Arrow the columns had. Among them are strings as
/// views, which pandas cannot read.
const ARROW: &[u8] = b"ARROW:schema";
/// The same for nobody: without the key, readers take the types of Parquet, which are the same for
/// all of them.
const OTHER: &[u8] = b"arrow:schema";
/// The end of a file in which its metadata are.
const TAIL: u64 = 1 << 16;

/// Copies a file of a table to a place where others read it.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn give(from: &Path, to: &Path) -> std::io::Result<()> {
    // Not with the mode of the table, which may be readable by its owner alone or by no writer.
    let mut file = File::options().read(true).write(true).create_new(true).open(to)?;
    std::io::copy(&mut File::open(from)?, &mut file)?;
    let start = file.metadata()?.len().saturating_sub(TAIL);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut tail)?;
    if let Some(at) = tail.windows(ARROW.len()).rposition(|window| window == ARROW) {
        file.seek(SeekFrom::Start(start + at as u64))?;
        file.write_all(OTHER)?;
    }
    Ok(())
}

impl Store {
    /// The files of a table, each as it was written.
    ///
    /// # Errors
    /// When one is missing, damaged or of another run.
    pub(crate) fn stored(&self, artifact: &Artifact) -> Result<StoredTable> {
        let mut names = vec![artifact.relative()];
        if artifact.sharded {
            names = self.parts(artifact)?.into_iter().map(|part| artifact.part(part)).collect();
        }
        let mut stored = StoredTable { rows: 0, bytes: 0, files: Vec::new() };
        for name in names {
            let path = self.root().join(&name);
            let unreadable = || format!("cannot read `{}`", path.display());
            stored.rows += self.open(&path, artifact)?.num_rows().with_context(unreadable)? as u64;
            stored.bytes += path.metadata().with_context(unreadable)?.len();
            stored.files.push((name, path));
        }
        Ok(stored)
    }

    /// What others have explained; nothing where nothing was imported.
    ///
    /// # Errors
    /// When the table is damaged.
    pub(crate) fn imported(&self) -> Result<Vec<ImportedRow>> {
        if !self.has(&ImportedRow::ARTIFACT) {
            return Ok(Vec::new());
        }
        self.read().hint(
            || "cannot use the imported explanations".into(),
            "remove them with `circuit-atlas import explanations --remove`, and import them again",
        )
    }
}
