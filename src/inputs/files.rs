//! Files of the outside world that the settings name: which they are, by what they are told apart,
//! and what to do when one cannot be read.

use super::sources;
use crate::artifact::tables::ImportedRow;
use crate::artifact::{Row, Store};
use crate::config::{self, Config};
use crate::corpus::{Shard, Tokenizer, files, shards};
use crate::dictionary::Source;
use crate::error::Result;
use crate::ids::Kind;
use crate::lock::{Ingredients, Lock};
use crate::model;
use crate::task::{self, Origin};
use std::path::{Path, PathBuf};

/// Files of the outside world that a stage reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The model's config and weights.
    Model,
    /// The model's tokenizer.
    Tokenizer,
    /// The files of all dictionaries.
    Dictionaries,
    /// The files of the corpus.
    Corpus,
    /// The files of tasks that bring their own prompts.
    Prompts,
    /// The files of tasks that bring a published circuit.
    Published,
}

impl Input {
    /// Its files that are not of the hub: what each is to the run, such as `model/config.json`, and
    /// where it is. The same files elsewhere, or written another way, have the same names.
    ///
    /// # Errors
    /// When files cannot be found.
    pub fn files(self, config: &Config) -> Result<Vec<(String, PathBuf)>> {
        if self == Input::Corpus && config.snapshots.contains_key(&config.corpus.path) {
            return Ok(Vec::new());
        }
        let mut files = self.all_files(config)?;
        files.retain(|(_, path)| from_hub(config, path).is_none());
        Ok(files)
    }

    /// Its files that are of the hub, by the commit that they are of: that stands for what is in
    /// them.
    ///
    /// # Errors
    /// When files cannot be found.
    pub fn pinned(self, config: &Config) -> Result<Ingredients> {
        if let Some(snapshot) =
            config.snapshots.get(&config.corpus.path).filter(|_| self == Input::Corpus)
        {
            return Ok(Ingredients::from([(
                format!("hub {}", snapshot.name.place()),
                snapshot.commit.clone(),
            )]));
        }
        if self == Input::Corpus || config.snapshots.is_empty() {
            return Ok(Ingredients::new());
        }
        Ok(self
            .all_files(config)?
            .into_iter()
            .filter_map(|(_, path)| from_hub(config, &path))
            .collect())
    }

    fn all_files(self, config: &Config) -> Result<Vec<(String, PathBuf)>> {
        let model = config.path(&config.model.path);
        match self {
            Input::Model => {
                let files = [vec![model.join("config.json")], model::weights(&model)?].concat();
                Ok(files.into_iter().map(of_model).collect())
            }
            Input::Tokenizer => Ok(Tokenizer::files(&model).into_iter().map(of_model).collect()),
            Input::Dictionaries => {
                let of = |source: Source| {
                    let kind = source.id.kind;
                    let files = [Some(source.weights), source.config].into_iter().flatten();
                    files.map(move |path| (dictionary_file(config, kind, &path), path))
                };
                Ok(sources(config)?.into_iter().flat_map(of).collect())
            }
            Input::Corpus => {
                let shards = shards(files(&config.path(&config.corpus.path))?.read);
                let named = |shard: Shard| (format!("corpus/{}", shard.source), shard.path);
                Ok(shards.into_iter().map(named).collect())
            }
            Input::Prompts => {
                let file = |task: &config::Task| {
                    let path = config.path(task.file.as_ref()?);
                    Some((format!("tasks.{}.file", task.name), path))
                };
                Ok(config.tasks.iter().filter_map(file).collect())
            }
            Input::Published => {
                let file = |task: &config::Task| match task::origin(task, &config.model.path) {
                    Origin::File(file) => {
                        Some((format!("tasks.{}.published", task.name), config.path(file)))
                    }
                    _ => None,
                };
                Ok(config.tasks.iter().filter_map(file).collect())
            }
        }
    }

    /// What to do when one of its files cannot be read.
    pub fn hint(self) -> &'static str {
        match self {
            Input::Model | Input::Tokenizer => model::FOLDER,
            Input::Dictionaries => {
                "`dictionaries.attention` and `dictionaries.mlp` must be folders of readable files"
            }
            Input::Corpus => "check that the files of `corpus.path` exist and are readable",
            Input::Prompts => "check the `file` of the task",
            Input::Published => {
                "`published` of a task is \"\", \"none\", \"gpt2-small\" or a JSON file, relative \
                 to the settings file"
            }
        }
    }
}

/// What is not as it was when a stage last ran: the first of the files of some inputs, or of their
/// commits, by its name.
///
/// # Errors
/// When files cannot be found or read.
pub(crate) fn changed_since(
    config: &Config,
    lock: &Lock,
    stage: &str,
    inputs: &[Input],
) -> Result<Option<String>> {
    let then = lock.stages.get(stage).map(|entry| &entry.ingredients);
    let changed = |name: &str, now: &str| {
        then.and_then(|then| then.get(name)).is_none_or(|before| before != now)
    };
    for input in inputs {
        let files = input.files(config)?.into_iter();
        let hashed =
            files.map(|(name, path)| Ok((format!("file {name}"), lock.known(&name, &path)?)));
        let now = hashed.collect::<Result<Vec<(String, String)>>>()?;
        let of = |(name, now): (String, String)| changed(&name, &now).then_some(name);
        if let Some(name) = input.pinned(config)?.into_iter().chain(now).find_map(of) {
            return Ok(Some(name.split_once(' ').map_or(name.clone(), |(_, name)| name.into())));
        }
    }
    Ok(None)
}

/// Where each task's published circuit is from, for stages that read [`Input::Published`].
pub(crate) fn published_from(config: &Config) -> Ingredients {
    let name = |task| match task::origin(task, &config.model.path) {
        Origin::Nowhere => "none".into(),
        Origin::BuiltIn => "gpt2-small".into(),
        // Its content is an ingredient of its own.
        Origin::File(_) => "a file".into(),
    };
    config
        .tasks
        .iter()
        .map(|task| (format!("setting tasks.{}.published", task.name), name(task)))
        .collect()
}

/// What others have explained, as an ingredient.
pub(crate) fn imported(config: &Config) -> Ingredients {
    let path = Store::new(&config.artifacts()).path(&ImportedRow::ARTIFACT);
    let hash = std::fs::read(path).map(|bytes| blake3::hash(&bytes).to_hex()[..32].to_string());
    hash.into_iter().map(|hash| ("imported explanations".into(), hash)).collect()
}

/// A downloaded file as an ingredient: its name in the repository, and the commit.
pub(super) fn from_hub(config: &Config, path: &Path) -> Option<(String, String)> {
    config.snapshots.values().find_map(|snapshot| {
        let below = path.strip_prefix(&snapshot.folder).ok()?;
        Some((
            format!("hub {}/{}", snapshot.name.place(), below.display()),
            snapshot.commit.clone(),
        ))
    })
}

/// What a file of the model's folder is to the run, and where it is.
pub(super) fn of_model(path: PathBuf) -> (String, PathBuf) {
    (format!("model/{}", file_name(&path)), path)
}

/// What a file of a dictionary is to the run: `dictionaries/attention/NAME`, with the name below
/// the folder of the settings.
pub(super) fn dictionary_file(config: &Config, kind: Kind, path: &Path) -> String {
    let folder = config.path(config.dictionaries.of(kind).0);
    let name = match path.strip_prefix(&folder) {
        Ok(below) if below.as_os_str().is_empty() => file_name(path),
        Ok(below) => below.to_string_lossy().into_owned(),
        Err(_) => file_name(path),
    };
    format!("dictionaries/{}/{name}", kind.word())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
