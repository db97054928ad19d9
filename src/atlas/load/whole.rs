//! The whole atlas as one value, for the pages.

use super::Reader;
use super::explanations::usage;
use crate::artifact::tables::{ConformanceRow, Document, ModelCheckRow};
use crate::artifact::{Artifact, PUBLISHED, StoredTable};
use crate::atlas::answers::{ComponentAnswer, TaskAnswer};
use crate::atlas::model::{
    Atlas, ComponentPage, DataTable, DictionaryFit, ModelFit, SiteData, Task,
};
use crate::atlas::pairs::strongest;
use crate::config::{DiscoveryMethod, Provider, Wrong};
use crate::error::Result;
use crate::format::number::count;
use crate::ids::{Component, Half, HubName, Subject};
use crate::inputs;
use crate::model::{Gpt2, Sizes};
use crate::process;
use std::collections::BTreeSet;
use std::path::Path;

/// What is made of each of many; between two of them the program may end.
fn each<T, U>(all: impl IntoIterator<Item = T>, make: impl Fn(T) -> Result<U>) -> Result<Vec<U>> {
    let next = |one| {
        process::check()?;
        make(one)
    };
    all.into_iter().map(next).collect()
}

impl Reader<'_> {
    /// Everything that the pages show. `order` has the names of the stages.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) fn atlas(&self, order: &[&'static str]) -> Result<Atlas> {
        let config = self.config;
        let sizes = Gpt2::sizes_of(&config.path(&config.model.path))?;
        let halves = self.halves()?;
        let all = |i: usize| halves.iter().map(|(_, counts)| counts[i]).sum();
        let newest = self.lock.stages.values().map(|entry| entry.finished.clone()).max();
        let conformance = self.dictionaries()?;
        let features = each(self.features()?, |row| self.feature(row))?;
        Ok(Atlas {
            title: config.site.title.clone(),
            base_url: config.site.base_url.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            model: model_name(&config.model.path),
            fingerprint: String::new(),
            when: newest.unwrap_or_default(),
            provenance: self.provenance(&sizes, &conformance)?,
            layers: sizes.layers,
            heads: sizes.heads,
            width: sizes.d_model,
            model_path: config.shown(&config.model.path),
            corpus: config.shown(&config.corpus.path),
            documents: all(0),
            contexts: all(1),
            tokens: all(2),
            halves,
            tasks: each(&config.tasks, |task| self.task(task))?,
            components: each(self.all_components()?, |own| self.component(own))?,
            texts: self.contexts(&features)?,
            features,
            pairs: self.strongest_pairs()?,
            groups: each(&config.groups, |group| self.group(group))?,
            model_fit: self.model_fit()?,
            conformance: conformance.iter().map(fit).collect(),
            usage: usage(self.store)?,
            changes: Vec::new(),
            stages: self.stages(order),
            data: None,
        })
    }

    /// What the site gives besides the pages of this atlas, with JSON of its components and tasks;
    /// tables of more bytes than `most` are left out.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) fn site_data(&self, atlas: &Atlas, most: u64) -> Result<SiteData> {
        let strength = self.config.logits.strength;
        let component = |page: &ComponentPage| {
            let answer = ComponentAnswer::new(self, page.clone(), usize::MAX, strength)?;
            Ok(serde_json::to_string(&answer)?)
        };
        let task = |task: &Task| {
            Ok(serde_json::to_string(&TaskAnswer::new(self, task.clone(), usize::MAX)?)?)
        };
        let mut data = SiteData {
            components: each(&atlas.components, component)?,
            tasks: each(&atlas.tasks, task)?,
            strength,
            ..SiteData::default()
        };
        for artifact in PUBLISHED {
            let Artifact { name, row, columns, .. } = artifact;
            let StoredTable { rows, bytes, files } = self.store.stored(&artifact)?;
            match bytes > most {
                true => data.left_out.push((name.into(), bytes)),
                false => data.tables.push(DataTable { name, row, columns, rows, bytes, files }),
            }
        }
        Ok(data)
    }

    fn model_fit(&self) -> Result<ModelFit> {
        let row = self.store.read::<ModelCheckRow>()?.into_iter().next();
        let of = |ModelCheckRow { tokens, loss, unigram, bigram, warnings, .. }| ModelFit {
            tokens,
            loss,
            unigram,
            bigram,
            warnings,
        };
        Ok(row.map(of).unwrap_or_default())
    }

    /// Every component of a circuit, also one that serves only error terms.
    fn all_components(&self) -> Result<BTreeSet<Component>> {
        Ok(self.components()?.iter().map(|row| row.component).collect())
    }

    /// The strongest pairs of all tasks, by name.
    fn strongest_pairs(&self) -> Result<Vec<crate::atlas::model::Pair>> {
        let strongest = strongest(self.pair_rows()?);
        let mut pairs: Vec<(String, Subject)> =
            strongest.into_values().flatten().map(|pair| (pair.to_string(), pair)).collect();
        pairs.sort();
        pairs.dedup();
        let both = |(_, pair): &(String, Subject)| match *pair {
            Subject::Pair(a, b) => Some((a, b)),
            _ => None,
        };
        each(pairs.iter().filter_map(both), |(a, b)| self.pair(a, b))
    }

    /// Of each half: documents with a context, contexts, and tokens that count.
    fn halves(&self) -> Result<Vec<(Half, [u64; 3])>> {
        let mut documents: Vec<Document> = self.store.read()?;
        documents.retain(|document| document.contexts > 0);
        let of = |half: Half| {
            let own = || documents.iter().filter(|document| document.half == half);
            let contexts = own().map(|document| u64::from(document.contexts)).sum();
            let tokens = own().map(|document| document.counting_tokens).sum();
            (half, [own().count() as u64, contexts, tokens])
        };
        Ok([Half::Explain, Half::Score].map(of).into())
    }

    fn stages(&self, order: &[&'static str]) -> Vec<(String, f64)> {
        let entry =
            |name: &str| self.lock.stages.get(name).filter(|entry| !entry.finished.is_empty());
        order.iter().filter_map(|name| Some((name.to_string(), entry(name)?.seconds))).collect()
    }

    fn provenance(
        &self,
        sizes: &Sizes,
        conformance: &[ConformanceRow],
    ) -> Result<Vec<(String, String)>> {
        let config = self.config;
        let widths: Vec<usize> = conformance.iter().map(|row| row.width as usize).collect();
        let width = match (widths.iter().min(), widths.iter().max()) {
            (Some(low), Some(high)) if low == high => count(*low as u64),
            (Some(low), Some(high)) => format!("{} to {}", count(*low as u64), count(*high as u64)),
            _ => "?".into(),
        };
        let discover = &config.discover;
        let model = format!(
            "{}: {} layers of {} heads, {} wide, vocabulary {}",
            config.shown(&config.model.path),
            sizes.layers,
            sizes.heads,
            count(sizes.d_model as u64),
            count(sizes.vocabulary as u64)
        );
        let corpus = &config.corpus;
        let aggregate = &config.aggregate;
        let how = match discover.method {
            DiscoveryMethod::Gradient => format!(
                "{} ranking prompts, {} interpolation points, faithfulness threshold {} of all \
                 features",
                discover.prompts, discover.points, discover.faithful
            ),
            DiscoveryMethod::Greedy => {
                format!(
                    "{} walks, {} links per slot and walk, {} candidates",
                    discover.passes, discover.per_node, discover.candidates
                )
            }
            DiscoveryMethod::Influence => {
                format!(
                    "coverage {}, at most {} features and errors",
                    discover.coverage, discover.nodes
                )
            }
            _ => String::new(),
        };
        let (method, root) = (word(&discover.method), word(&discover.root).replace('-', " "));
        let circuits = match discover.method {
            DiscoveryMethod::Gradient => format!("{method}: {how}"),
            _ => format!("{method} from the {root}: {how}"),
        };
        let examples = format!(
            "top {} and {} per tenth of the active contexts, in each half of the documents; \
             co-occurrence within {} tokens",
            aggregate.examples, aggregate.band_examples, aggregate.window
        );
        let explanations = match config.llm.model.as_str() {
            _ if config.llm.provider == Provider::None => {
                "summaries of the statistics (no language model)"
            }
            model => model,
        };
        let allowed: Vec<&str> = discover.allow.iter().map(String::as_str).collect();
        let fixed = [
            ("Model", model),
            ("Attention SAEs", config.shown(&config.dictionaries.attention)),
            ("MLP transcoders", config.shown(&config.dictionaries.mlp)),
            ("Dictionaries", format!("{} of {width} features", inputs::sources(config)?.len())),
            (
                "Corpus",
                format!("{}, contexts of {} tokens", config.shown(&corpus.path), corpus.context),
            ),
        ];
        let tasks =
            config.tasks.iter().map(|task| (format!("Task {}", task.name), task_settings(task)));
        let rest = [
            ("Circuits", circuits),
            ("Nodes", allowed.join(", ").replace('_', " ")),
            ("Examples", examples),
            ("Explanations", explanations.to_string()),
        ];
        let named = |(label, value): (&str, String)| (label.to_string(), value);
        Ok(fixed.map(named).into_iter().chain(tasks).chain(rest.map(named)).collect())
    }
}

/// A setting as the settings file spells it.
fn word(setting: &impl serde::Serialize) -> String {
    serde_json::to_value(setting)
        .ok()
        .and_then(|value| Some(value.as_str()?.to_string()))
        .unwrap_or_default()
}

fn task_settings(task: &crate::config::Task) -> String {
    let file = task.file.as_ref().map(|file| format!(" of `{file}`")).unwrap_or_default();
    let prompts = task.prompts.map(|n| format!(", {n} prompts{file}")).unwrap_or(file);
    let wrong = if task.wrong == Wrong::LeaveOut {
        ", prompts that the model gets wrong left out"
    } else {
        ""
    };
    format!("{}{prompts}, seed {}{wrong}", task.kind.word(), task.seed)
}

/// What the model is called where it came from: the repository of the hub, or the folder's own
/// name.
/// What a model is called where it came from.
pub(crate) fn model_name(path: &str) -> String {
    match path.parse::<HubName>() {
        Ok(name) => name.place(),
        Err(_) => Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

fn fit(row: &ConformanceRow) -> DictionaryFit {
    DictionaryFit {
        dictionary: row.dictionary,
        width: row.width as usize,
        l0: row.l0,
        variance_explained: row.variance_explained,
        dead: row.dead as u64,
        loss_recovered: row.loss_recovered,
        loss_interval: row.loss_recovered_low.zip(row.loss_recovered_high).map(<[f64; 2]>::from),
        loss_tokens: row.loss_tokens,
        loss_contexts: row.loss_contexts,
        tokens: row.tokens,
        warnings: row.warnings.clone(),
    }
}
