//! Files of the outside world that the settings name: which they are, by what they are told apart,
//! and what to do when one cannot be read.

use super::sources;
use crate::config::Config;
use crate::corpus::files;
use crate::error::Result;
use crate::lock::Ingredients;
use crate::model;
use crate::task::{self};
use std::path::PathBuf;

/// Files of the outside world that a stage reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Model,
    Tokenizer,
    Dictionaries,
    Corpus,
    /// The files of tasks that bring their own prompts.
    Prompts,
    /// The files of tasks that bring a published circuit.
    Published,
}

impl Input {
    /// Its files that are a user's own: the path as settings write it, and where it is.
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
        let below =
            |folder: &str, name: &str| (format!("{folder}/{name}"), config.path(folder).join(name));
        match self {
            Input::Model => {
                let weights = model::weights(&config.path(&config.model.path))?;
                let name = weights
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                Ok(["config.json", &name].map(|name| below(&config.model.path, name)).into())
            }
            Input::Tokenizer => Ok(vec![below(&config.model.path, "tokenizer.json")]),
            Input::Dictionaries => {
                let sources = sources(config)?;
                let paths = sources
                    .into_iter()
                    .flat_map(|source| [Some(source.weights), source.config])
                    .flatten();
                Ok(paths.map(|path| (named(config, &path), path)).collect())
            }
            Input::Corpus => {
                let files = files(&config.path(&config.corpus.path))?;
                Ok(files.into_iter().map(|path| (named(config, &path), path)).collect())
            }
            Input::Prompts => {
                let files = config.tasks.iter().filter_map(|task| task.file.as_ref());
                Ok(files.map(|file| (file.clone(), config.path(file))).collect())
            }
            Input::Published => {
                let file = |task| match task::origin(task, &config.model.path) {
                    task::Origin::File(file) => Some((file.to_string(), config.path(file))),
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
            Input::Corpus => "check that the files of `corpus.path` are there and readable",
            Input::Prompts => "check the `file` of the task",
            Input::Published => {
                "`published` of a task is \"\", \"none\", \"gpt2-small\" or a JSON file, relative \
                 to the settings file"
            }
        }
    }
}

/// Where each task's published circuit is from, for stages that read [`Input::Published`].
pub fn published_from(config: &Config) -> Ingredients {
    let name = |task| match task::origin(task, &config.model.path) {
        task::Origin::Nowhere => "\"none\"".into(),
        task::Origin::BuiltIn => "\"gpt2-small\"".into(),
        task::Origin::File(file) => format!("{file:?}"),
    };
    config
        .tasks
        .iter()
        .map(|task| (format!("setting tasks.{}.published", task.name), name(task)))
        .collect()
}

/// A downloaded file as an ingredient: its name in the repository, and the commit.
pub(super) fn from_hub(config: &Config, path: &std::path::Path) -> Option<(String, String)> {
    config.snapshots.values().find_map(|snapshot| {
        let below = path.strip_prefix(&snapshot.folder).ok()?;
        Some((
            format!("hub {}/{}", snapshot.name.place(), below.display()),
            snapshot.commit.clone(),
        ))
    })
}

/// A path as settings would write it: relative to their folder where it is below it.
pub(super) fn named(config: &Config, path: &std::path::Path) -> String {
    path.strip_prefix(&config.folder).unwrap_or(path).to_string_lossy().into_owned()
}
