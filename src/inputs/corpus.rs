//! The corpus: its files, and its contexts as the stages after `tokenize` see them.

use super::tokenizer;
use crate::artifact::tables::{ContextRow, Document};
use crate::artifact::{Row, Store};
use crate::config::Config;
use crate::corpus::{KNOWN, Shard, Tokenizer, files, looks_like_data, readable, shards, some};
use crate::error::{Result, hinted};
use crate::hub::Hub;
use crate::ids::Half;
use crate::progress::Progress;
use crate::stats::examples::ContextInfo;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The files of the corpus, in order. One of the hub is downloaded when it is come to, so that
/// nobody waits for files that are not read.
///
/// # Errors
/// When there are none.
pub fn corpus<'a>(
    config: &'a Config,
    progress: &'a Progress,
) -> Result<Box<dyn Iterator<Item = Result<Shard>> + 'a>> {
    let note = |others: Vec<String>, why: &str| {
        if !others.is_empty() {
            let (path, others) = (&config.corpus.path, some(&others));
            progress.line(&format!("note: files of `{path}` that {why}: {others}"));
        }
    };
    let Some(snapshot) = config.snapshots.get(&config.corpus.path) else {
        let folder = config.path(&config.corpus.path);
        let found = files(&folder)?;
        let name = |file: &PathBuf| {
            file.strip_prefix(&folder).unwrap_or(file).to_string_lossy().into_owned()
        };
        note(found.others.iter().map(name).collect(), "are not read");
        return Ok(Box::new(shards(found.read).into_iter().map(Ok)));
    };
    let files: Vec<&String> = snapshot.files.iter().filter(|file| readable(file)).collect();
    if files.is_empty() {
        return Err(hinted(
            format!("`{}` has no corpus file", snapshot.name),
            format!(
                "{KNOWN}; the revision `@refs/convert/parquet` often has such files where `@main` \
                 does not"
            ),
        ));
    }
    // A repository also holds what is not meant to be read; only what may be is worth a note.
    let data = snapshot.files.iter().filter(|file| looks_like_data(Path::new(file)));
    note(data.cloned().collect(), "cannot be read");
    let hub = Hub::from_env()?;
    let shard = move |file: &String| {
        Ok(Shard { source: file.clone(), path: hub.file(snapshot, file, progress)? })
    };
    Ok(Box::new(files.into_iter().map(shard)))
}

/// Tokens of a context that count: not special ones, not position 0.
pub fn counting(tokens: &[u32], tokenizer: &Tokenizer) -> u64 {
    tokens[1..].iter().filter(|id| !tokenizer.is_special(**id)).count() as u64
}

/// What is said of a corpus of which nothing is left.
pub(crate) fn no_context(config: &Config) -> anyhow::Error {
    hinted(
        format!("the corpus `{}` has no usable context", config.corpus.path),
        "it is empty, or every document is shorter than 8 tokens; check `corpus.path` and \
         `corpus.text`",
    )
}

/// The corpus as the stages after `tokenize` see it.
pub struct Contexts {
    /// By context number.
    pub rows: Vec<ContextRow>,
    /// By context number: whether it may give examples to explanations.
    pub explain: Vec<bool>,
    /// The numbers of the contexts of each part.
    pub(crate) parts: Vec<Range<u32>>,
    tokenizer: Tokenizer,
}

impl Contexts {
    /// Reads the contexts and documents that `tokenize` wrote.
    ///
    /// # Errors
    /// When a table or the tokenizer cannot be read.
    pub fn load(config: &Config, store: &Store) -> Result<Contexts> {
        let (mut rows, mut parts): (Vec<ContextRow>, _) = (Vec::new(), Vec::new());
        for part in store.parts(&ContextRow::ARTIFACT)? {
            let first = rows.len() as u32;
            rows.extend(store.read_part::<ContextRow>(part)?);
            parts.push(first..rows.len() as u32);
        }
        let halves: BTreeMap<u32, bool> = store
            .read::<Document>()?
            .into_iter()
            .map(|document| (document.document, document.half == Half::Explain))
            .collect();
        let explain =
            rows.iter().map(|row| halves.get(&row.document).copied().unwrap_or(false)).collect();
        Ok(Contexts { rows, explain, parts, tokenizer: tokenizer(config)? })
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that counts at a position: none for special ones and position 0.
    pub fn counting(&self, context: u32, position: u16) -> Option<u32> {
        let id = *self.rows.get(context as usize)?.tokens.get(position as usize)?;
        (position > 0 && !self.tokenizer.is_special(id)).then_some(id)
    }

    /// A context as far as choosing examples goes.
    pub(crate) fn info(&self, context: u32) -> ContextInfo<'_> {
        let row = &self.rows[context as usize];
        ContextInfo { document: row.document, tokens: &row.tokens }
    }

    /// Of some contexts those that may give examples to explanations, and the others.
    pub(crate) fn halves(&self, of: &[u32]) -> [Vec<u32>; 2] {
        let (explain, others) = of.iter().partition(|context| self.explain[**context as usize]);
        [explain, others]
    }

    /// Tokens that count, of all contexts.
    pub fn tokens(&self) -> u64 {
        self.tokens_of(|_| true)
    }

    /// Tokens that count, of some contexts.
    pub(crate) fn tokens_of(&self, wanted: impl Fn(u32) -> bool) -> u64 {
        let rows = self.rows.iter().filter(|row| wanted(row.context));
        rows.map(|row| counting(&row.tokens, &self.tokenizer)).sum()
    }
}
