//! `pipeline.toml` as structs. `sections` has every setting, `defaults` the values of those that
//! are not written, `validation` what is refused.
//!
//! Paths in the file are relative to the file's own folder; `hf:…` names a repository of the hub.

mod defaults;
mod secrets;
mod sections;
mod validation;

pub use sections::*;

use crate::error::{Context, Hint, Result, hinted};
use crate::ids::{FeatureId, HubName};
use crate::text_file;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All settings of a run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[model]`
    pub model: Model,
    /// `[dictionaries]`
    pub dictionaries: Dictionaries,
    /// `[corpus]`
    pub corpus: Corpus,
    /// Each `[[tasks]]`, in the order of the file.
    pub tasks: Vec<Task>,
    /// `[discover]`
    #[serde(default)]
    pub discover: Discover,
    /// `[verify]`
    #[serde(default)]
    pub verify: Verify,
    /// `[cache]`
    #[serde(default)]
    pub cache: Cache,
    /// `[score]`
    #[serde(default)]
    pub score: Score,
    /// Each `[[groups]]`, in the order of the file.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// `[aggregate]`
    #[serde(default)]
    pub aggregate: Aggregate,
    /// `[logits]`
    #[serde(default)]
    pub logits: Logits,
    /// `[llm]`
    #[serde(default)]
    pub llm: Llm,
    /// `[evaluate]`
    #[serde(default)]
    pub evaluate: Evaluate,
    /// `[site]`
    #[serde(default)]
    pub site: Site,
    /// `[publish]`
    #[serde(default)]
    pub publish: Publish,
    /// `[machine]`
    #[serde(default)]
    pub machine: Machine,
    /// `[slurm]`
    #[serde(default)]
    pub slurm: Slurm,
    /// `[output]`
    #[serde(default)]
    pub output: Output,
    /// The folder of the file that this came from.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Where on this machine the repositories are that are named by `hf:…`, by that name.
    #[serde(skip)]
    pub snapshots: BTreeMap<String, Snapshot>,
}

/// A repository of the hub at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The repository and its revision, as the settings name them.
    pub name: HubName,
    /// What the revision stands for.
    pub commit: String,
    /// Where its files are, as far as they have been downloaded.
    pub folder: PathBuf,
    /// All files of the repository, by name, as the hub gives them.
    pub files: Vec<String>,
}

/// Settings that say where inputs are.
const INPUT_PATHS: [&str; 4] =
    ["model.path", "dictionaries.attention", "dictionaries.mlp", "corpus.path"];

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key, lacks a needed one, or a value is out of range.
    pub fn load(path: &Path) -> Result<Config> {
        let text = text_file::read(path).hint(
            || format!("cannot read the settings `{}`", path.display()),
            "name the file with `--config FILE`; the repository's `pipeline.toml` has every \
             setting with a comment",
        )?;
        let mut config: Config = toml::from_str(&text).map_err(|error| {
            let message = secrets::without(&text, &error);
            let hint = match message == error.to_string() {
                true => "`pipeline.toml` in the repository has every setting with a comment",
                false => {
                    "never write a key into a file: put it into an environment variable, and the \
                     variable's name into `llm.api_key_env`"
                }
            };
            hinted(format!("in `{}`: {}", path.display(), message.trim_end()), hint)
        })?;
        config.folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        config.check().with_context(|| format!("in `{}`", path.display()))?;
        Ok(config)
    }

    /// A path of the file, relative to the file's folder; for `hf:…` where it has been downloaded
    /// to.
    pub fn path(&self, written: &str) -> PathBuf {
        self.snapshots
            .get(written)
            .map_or_else(|| self.folder.join(written), |snapshot| snapshot.folder.clone())
    }

    /// A path of the file as people read it: relative to the file's folder where it is below it,
    /// however it is written; `hf:…` as it is.
    pub fn shown(&self, written: &str) -> String {
        if written.starts_with(HubName::PREFIX) {
            return written.into();
        }
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        // The settings file may be named without a folder.
        let own = Path::new(".").join(&self.folder);
        let (folder, path) = (whole(&own), whole(&own.join(written)));
        path.strip_prefix(&folder).unwrap_or(&path).to_string_lossy().into_owned()
    }

    /// Whether anything is to be had from the hub.
    pub(crate) fn uses_hub(&self) -> bool {
        let paths = [
            &self.model.path,
            &self.dictionaries.attention,
            &self.dictionaries.mlp,
            &self.corpus.path,
        ];
        paths.iter().any(|path| path.starts_with(HubName::PREFIX))
    }

    /// The artifact folder.
    pub fn artifacts(&self) -> PathBuf {
        self.path(&self.output.artifacts)
    }

    /// The folder of converted dictionaries.
    pub fn converted(&self) -> PathBuf {
        match self.output.dictionaries.as_str() {
            "" => self.artifacts().join("dictionaries"),
            folder => self.path(folder),
        }
    }

    /// Every feature that groups and `score.extra` name.
    pub(crate) fn named_features(&self) -> BTreeSet<FeatureId> {
        let groups = self.groups.iter().flat_map(|group| &group.features);
        groups.chain(&self.score.extra).filter_map(|name| name.parse().ok()).collect()
    }

    /// The settings as (dotted key, value), but those that change no result: `[machine]`,
    /// `[slurm]`, `[output]`, and paths of inputs, whose content counts and not where it is.
    pub fn flat(&self) -> Result<BTreeMap<String, String>> {
        let mut flat = BTreeMap::new();
        flatten("", &serde_json::to_value(self)?, &mut flat);
        flat.retain(|key, _| {
            !["machine.", "slurm.", "output.", "tasks", "groups"]
                .iter()
                .any(|table| key.starts_with(table))
                && !INPUT_PATHS.contains(&key.as_str())
        });
        let how = |key: &str| {
            Llm::HOW
                .iter()
                .any(|how| key.strip_prefix("llm.").is_some_and(|key| key.starts_with(how)))
        };
        flat.retain(|key, _| !how(key) && !key.starts_with("evaluate.embedder_api_key"));
        if !self.llm.asks() {
            flat.retain(|key, _| !key.starts_with("llm.") || key == "llm.provider");
        }
        for task in &self.tasks {
            flatten(&format!("tasks.{}", task.name), &serde_json::to_value(task)?, &mut flat);
            // What it means depends on the model's name too; and no circuit has to be found again
            // for it.
            flat.remove(&format!("tasks.{}.published", task.name));
            flat.remove(&format!("tasks.{}.file", task.name));
        }
        for group in &self.groups {
            flatten(&format!("groups.{}", group.name), &serde_json::to_value(group)?, &mut flat);
        }
        let names = |all: Vec<&String>| all.into_iter().cloned().collect::<Vec<_>>().join(", ");
        flat.insert(
            "tasks.order".into(),
            names(self.tasks.iter().map(|task| &task.name).collect()),
        );
        flat.insert(
            "groups.order".into(),
            names(self.groups.iter().map(|group| &group.name).collect()),
        );
        Ok(flat)
    }

    /// The language models that a run asks.
    pub fn models(&self) -> BTreeSet<&str> {
        let judges = self.evaluate.judges().then(|| self.judges());
        let all = judges.into_iter().flatten().chain([self.llm.model.as_str()]);
        all.filter(|_| self.llm.asks()).collect()
    }

    /// The server that embeds, if `evaluate.methods` has `embedding`.
    pub fn embedder(&self) -> Option<Llm> {
        let evaluate = &self.evaluate;
        let elsewhere = !evaluate.embedder_base_url.is_empty();
        let wanted = self.llm.asks() && evaluate.methods.contains(&ScoreMethod::Embedding);
        wanted.then(|| match elsewhere {
            false => Llm { model: evaluate.embedder.clone(), ..self.llm.clone() },
            true => Llm {
                provider: Provider::Openai,
                model: evaluate.embedder.clone(),
                base_url: evaluate.embedder_base_url.clone(),
                api_key_env: evaluate.embedder_api_key_env.clone(),
                ..self.llm.clone()
            },
        })
    }

    /// The models that judge, if any is asked to: the first, and another one if it is set.
    pub fn judges(&self) -> Vec<&str> {
        let evaluate = &self.evaluate;
        let first = if evaluate.judge.is_empty() { &self.llm.model } else { &evaluate.judge };
        let second =
            Some(&evaluate.second_judge).filter(|second| !second.is_empty() && *second != first);
        [Some(first), second].into_iter().flatten().map(String::as_str).collect()
    }
}

fn flatten(prefix: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, into);
            }
        }
        other => {
            into.insert(prefix.into(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_a_settings_file_without_a_folder_are_shown_as_they_are_written() {
        let mut config: Config = toml::from_str(include_str!("../../pipeline.toml")).unwrap();
        for folder in ["", ".", "some/folder"] {
            config.folder = folder.into();
            assert_eq!(config.shown("demo/model"), "demo/model", "{folder}");
        }
        assert_eq!(config.shown("/elsewhere/model"), "/elsewhere/model");
    }
}
