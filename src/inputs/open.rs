//! The model, its tokenizer and its dictionaries, opened.

use super::files::{dictionary_file, from_hub, of_model};
use crate::circuit::ReplacementModel;
use crate::config::Config;
use crate::corpus::Tokenizer;
use crate::dictionary::{self, Dictionary, Source, Stored};
use crate::error::{Result, hinted};
use crate::ids::{DictionaryId, Kind};
use crate::lock::Lock;
use crate::model::{self, Gpt2, Sizes};
use crate::progress::Progress;
use std::path::PathBuf;

/// The dictionaries on disk, in the order that the model computes what they read.
pub fn sources(config: &Config) -> Result<Vec<Source>> {
    let layers = sizes(config)?.layers;
    let mut sources = Vec::new();
    for kind in [Kind::Attention, Kind::Mlp] {
        let (folder, files) = config.dictionaries.of(kind);
        sources.extend(dictionary::find(&config.path(folder), files, kind, layers)?);
    }
    sources.sort_by_key(|source| source.id);
    Ok(sources)
}

/// The model of the settings, folded.
pub fn model(config: &Config) -> Result<Gpt2> {
    Gpt2::load(&config.path(&config.model.path))
}

/// The model's tokenizer.
///
/// # Errors
/// When it cannot be read or does not fit, or the model begins texts with another token: then
/// every number would be of texts that begin as none that it was trained on.
pub fn tokenizer(config: &Config) -> Result<Tokenizer> {
    let folder = config.path(&config.model.path);
    let tokenizer = Tokenizer::load(&folder, sizes(config)?.vocabulary)?;
    let bos = tokenizer.bos();
    if let Some(other) = Gpt2::bos_of(&folder)?.filter(|other| *other != bos) {
        return Err(hinted(
            format!(
                "`{}`: bos_token_id is {other}, but `tokenizer.json` has `<|endoftext|>`, which \
                 every context begins with, as {bos}",
                folder.join("config.json").display()
            ),
            format!(
                "set bos_token_id to {bos} if the model was trained on texts behind \
                 `<|endoftext|>`; if not, it is not supported"
            ),
        ));
    }
    Ok(tokenizer)
}

/// What is said of a token that was added to the tokenizer without a row of the model.
pub(crate) fn without_row(token: &str) -> String {
    format!(
        "`{token}` was added to the tokenizer, but the model has no row for it; where a text has \
         it, it is read as any other text"
    )
}

/// The sizes of the model of the settings.
pub fn sizes(config: &Config) -> Result<Sizes> {
    Gpt2::sizes_of(&config.path(&config.model.path))
}

/// What the model is, for a language model: as the settings say, else by its sizes.
///
/// # Errors
/// When its config cannot be read.
pub(crate) fn about(config: &Config) -> Result<String> {
    let about = config.model.about.trim();
    if !about.is_empty() {
        return Ok(about.into());
    }
    let Sizes { layers, d_model, .. } = sizes(config)?;
    Ok(format!("a language model of the GPT-2 kind with {layers} layers of width {d_model}"))
}

/// # Errors
/// When a converted dictionary would replace a file of somebody else.
pub(crate) fn check_converted(config: &Config, lock: &Lock) -> Result<()> {
    let folder = config.converted();
    let check =
        |source: &Source| Dictionary::check_place(source, &folder, &content(config, lock, source)?);
    sources(config)?.iter().try_for_each(check)
}

/// All dictionaries in order, each converted first if it never was.
pub fn dictionaries(config: &Config, lock: &Lock, progress: &Progress) -> Result<Vec<Dictionary>> {
    some_dictionaries(config, lock, progress, |_| true)
}

/// Those that are wanted.
pub(crate) fn some_dictionaries(
    config: &Config,
    lock: &Lock,
    progress: &Progress,
    wanted: impl Fn(DictionaryId) -> bool,
) -> Result<Vec<Dictionary>> {
    let (d_model, folder) = (sizes(config)?.d_model, config.converted());
    let mut sources = sources(config)?;
    sources.retain(|source| wanted(source.id));
    let model = config.path(&config.model.path);
    for source in sources.iter_mut().filter(|source| source.needs_norm()) {
        source.set_norm(Gpt2::norm_of_mlp(&model, source.id.layer)?);
    }
    let contents =
        sources.iter().map(|source| content(config, lock, source)).collect::<Result<Vec<_>>>()?;
    let with_content = || sources.iter().zip(&contents);
    let mut new = Vec::new();
    for (source, content) in with_content() {
        let (path, stored) = Dictionary::stored(source, &folder, content);
        if stored == Stored::Damaged {
            Dictionary::check_place(source, &folder, content)?;
            progress.line(&format!(
                "note: `{}` is damaged; it is converted again from `{}`",
                path.display(),
                source.weights.display()
            ));
        }
        new.push(stored != Stored::Whole);
    }
    let number = new.iter().filter(|is_new| **is_new).count();
    if number > 0 {
        let done = sources.len() - number;
        progress.begin("dictionaries converted", sources.len() as u64, done as u64);
    }
    let open = |((source, content), is_new): ((&Source, &String), bool)| {
        let dictionary = Dictionary::open(source, d_model, &folder, content)?;
        progress.step(u64::from(is_new))?;
        Ok(dictionary)
    };
    // One after the other: each is held in memory whole while it is converted.
    with_content().zip(new).map(open).collect()
}

/// What stands for the content of the files that a converted dictionary is made from: their hashes,
/// or of those of the hub the commit.
fn content(config: &Config, lock: &Lock, source: &Source) -> Result<String> {
    let own = [Some(&source.weights), source.config.as_ref()].into_iter().flatten();
    let mut files: Vec<(String, PathBuf)> =
        own.map(|path| (dictionary_file(config, source.id.kind, path), path.clone())).collect();
    if source.needs_norm() {
        let weights = model::weights(&config.path(&config.model.path))?;
        files.extend(weights.into_iter().map(of_model));
    }
    let of = |(name, path): &(String, PathBuf)| match from_hub(config, path) {
        Some((name, commit)) => Ok(format!("{name} {commit}")),
        None => lock.known(name, path),
    };
    Ok(files.iter().map(of).collect::<Result<Vec<_>>>()?.join(" "))
}

/// The model with all its dictionaries.
pub fn replacement_model(
    config: &Config,
    lock: &Lock,
    progress: &Progress,
) -> Result<ReplacementModel> {
    let dictionaries = dictionaries(config, lock, progress)?;
    let (attention, mlp) =
        dictionaries.into_iter().partition(|dictionary| dictionary.id.kind == Kind::Attention);
    ReplacementModel::new(model(config)?, attention, mlp)
}
