//! The model of a finished run, put together from its tables.
//!
//! A table is read when something first asks for it, and what is made of it is kept. Of the large
//! tables (examples, promoted tokens, pairs in the corpus, transcripts, judgements) a reader that
//! is about a few subjects reads only their rows.

pub(crate) mod activations;
mod components;
mod corpus_pairs;
mod examples;
mod explanations;
mod features;
mod graphs;
mod heads;
mod promoted;
pub(crate) mod scores;
mod tasks;
mod whole;
mod why;

pub(crate) use graphs::{Circuits, graphs, node};
pub(crate) use heads::Heads;
pub(crate) use promoted::Promoting;
pub(crate) use whole::model_name;
pub(crate) use why::{WhyTables, cause_group, cause_in_words, sources};

use crate::artifact::tables::{
    CircuitFeature, CircuitPairRow, ComponentRow, ConformanceRow, CorpusPairRow, ExampleRow,
    FeatureRow, LogitRow, NodeRow, PromptRow, SimilarRow,
};
use crate::artifact::{Row, Store};
use crate::atlas::model::{Explanation, PromotedToken, Transcript};
use crate::atlas::pairs::strongest;
use crate::config::Config;
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{Component, FeatureId, Status, Subject};
use crate::inputs::{self, by};
use crate::lock::Lock;
use crate::process;
use crate::stats::examples::Wanted;
use corpus_pairs::CorpusPairs;
use explanations::Explanations;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// What is in each circuit, by task and prompt: components, and the features that serve there.
pub(super) type Members = BTreeMap<(String, u32), BTreeSet<(Component, Option<FeatureId>)>>;

/// Two components, and in how many prompts both are in the circuit.
type ComponentPairs = Vec<(Component, Component, u32)>;

/// A value that is made when something first asks for it.
struct Lazy<T>(OnceCell<T>);

impl<T> Default for Lazy<T> {
    fn default() -> Lazy<T> {
        Lazy(OnceCell::new())
    }
}

impl<T> Lazy<T> {
    fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        if let Some(made) = self.0.get() {
            return Ok(made);
        }
        process::check()?;
        let made = make()?;
        Ok(self.0.get_or_init(|| made))
    }
}

/// The names of scored features that have no page and no explanation.
pub(crate) fn without_page(store: &Store) -> Result<BTreeSet<String>> {
    let names = store.read_column::<FeatureRow, String>("feature")?;
    let pages = store.read_column::<FeatureRow, bool>("page")?;
    Ok(names.into_iter().zip(pages).filter(|(_, page)| !page).map(|(name, _)| name).collect())
}

/// Reads a finished run.
pub(crate) struct Reader<'a> {
    config: &'a Config,
    store: &'a Store,
    lock: &'a Lock,
    /// Of which subjects rows of the large tables are read; none: of all.
    about: Option<BTreeSet<Subject>>,
    /// Examples of a subject at most.
    wanted: Wanted,
    tokenizer: Lazy<Tokenizer>,
    prompts: Lazy<Vec<PromptRow>>,
    prompts_of: Lazy<BTreeMap<String, u32>>,
    circuits: Lazy<Circuits>,
    members: Lazy<Members>,
    component_pairs: Lazy<BTreeMap<String, ComponentPairs>>,
    components: Lazy<Vec<ComponentRow>>,
    servings: Lazy<Vec<CircuitFeature>>,
    serving: Lazy<BTreeMap<FeatureId, Vec<CircuitFeature>>>,
    serving_at: Lazy<BTreeMap<Component, Vec<CircuitFeature>>>,
    features: Lazy<Vec<FeatureRow>>,
    without_page: Lazy<BTreeSet<String>>,
    examples: Lazy<BTreeMap<Subject, Vec<ExampleRow>>>,
    promoted: Lazy<BTreeMap<Subject, [Vec<PromotedToken>; 2]>>,
    circuit_pairs: Lazy<Vec<CircuitPairRow>>,
    /// By feature: its places in `circuit_pairs`.
    circuit_pairs_of: Lazy<BTreeMap<FeatureId, Vec<usize>>>,
    corpus_pairs: Lazy<CorpusPairs>,
    explanations: Explanations,
    heads: Lazy<Heads>,
    why: Lazy<WhyTables>,
    similar: Lazy<BTreeMap<FeatureId, Vec<SimilarRow>>>,
}

impl<'a> Reader<'a> {
    /// Reads a run, whole if all of it is asked for.
    pub(crate) fn new(config: &'a Config, store: &'a Store, lock: &'a Lock) -> Reader<'a> {
        Reader {
            config,
            store,
            lock,
            about: None,
            wanted: Wanted {
                top: config.aggregate.examples,
                per_band: config.aggregate.band_examples,
            },
            tokenizer: Lazy::default(),
            prompts: Lazy::default(),
            prompts_of: Lazy::default(),
            circuits: Lazy::default(),
            members: Lazy::default(),
            component_pairs: Lazy::default(),
            components: Lazy::default(),
            servings: Lazy::default(),
            serving: Lazy::default(),
            serving_at: Lazy::default(),
            features: Lazy::default(),
            without_page: Lazy::default(),
            examples: Lazy::default(),
            promoted: Lazy::default(),
            circuit_pairs: Lazy::default(),
            circuit_pairs_of: Lazy::default(),
            corpus_pairs: Lazy::default(),
            explanations: Explanations::default(),
            heads: Lazy::default(),
            why: Lazy::default(),
            similar: Lazy::default(),
        }
    }

    /// Reads of the large tables only what is about these subjects.
    #[must_use]
    pub(crate) fn about(self, subjects: impl IntoIterator<Item = Subject>) -> Reader<'a> {
        Reader { about: Some(subjects.into_iter().collect()), ..self }
    }

    /// Takes these examples instead of those of the tables, and so many of a band.
    #[must_use]
    pub(crate) fn with_examples(self, rows: Vec<ExampleRow>, wanted: Wanted) -> Reader<'a> {
        let examples = Lazy(OnceCell::from(by(rows, |row| row.subject.clone())));
        Reader { examples, wanted, ..self }
    }

    /// Takes these promoted tokens instead of those of the tables.
    #[must_use]
    pub(crate) fn with_promoted(self, rows: Vec<LogitRow>) -> Reader<'a> {
        Reader { promoted: Lazy(OnceCell::from(promoted::tokens(rows))), ..self }
    }

    /// Rows of a large table, of which one of these columns names the subject; those of features
    /// without a page only where they are asked about.
    fn large<R: Row>(&self, columns: &[&str]) -> Result<Vec<R>> {
        match (&self.about, columns) {
            (None, [subject]) => {
                let others = self.without_page.get(|| without_page(self.store))?;
                self.store.read_without(subject, others)
            }
            (None, _) => self.store.read(),
            (Some(about), _) => {
                self.store.read_about(columns, &about.iter().map(ToString::to_string).collect())
            }
        }
    }

    pub(crate) fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.get(|| inputs::tokenizer(self.config))
    }

    /// Every prompt of every task, by task and number.
    pub(crate) fn prompts(&self) -> Result<&[PromptRow]> {
        Ok(self.prompts.get(|| self.store.read())?)
    }

    /// Prompts of a task that have a circuit.
    pub(crate) fn prompts_of(&self, task: &str) -> Result<u32> {
        let counted = self.prompts_of.get(|| {
            let mut counted = BTreeMap::new();
            for row in self.prompts()?.iter().filter(|row| row.used) {
                *counted.entry(row.task.clone()).or_default() += 1;
            }
            Ok(counted)
        })?;
        Ok(counted.get(task).copied().unwrap_or(0))
    }

    /// The circuit of each prompt that has one.
    pub(crate) fn circuits(&self) -> Result<&Circuits> {
        self.circuits.get(|| graphs(self.store))
    }

    /// What is in each circuit.
    pub(crate) fn members(&self) -> Result<&Members> {
        self.members.get(|| {
            let mut members = Members::new();
            for row in self.store.read::<NodeRow>()? {
                let node = node(&row);
                let own = members.entry((row.task, row.prompt)).or_default();
                own.extend(node.component().map(|component| (component, node.served())));
            }
            Ok(members)
        })
    }

    /// In how many prompts of a task both components are in the circuit; only a < b.
    pub(crate) fn component_pairs(&self, task: &str) -> Result<&[(Component, Component, u32)]> {
        let all = self.component_pairs.get(|| Ok(components::pairs(self.members()?)))?;
        Ok(all.get(task).map(Vec::as_slice).unwrap_or_default())
    }

    /// The components of each task's circuits.
    pub(crate) fn components(&self) -> Result<&[ComponentRow]> {
        Ok(self.components.get(|| self.store.read())?)
    }

    fn servings(&self) -> Result<&[CircuitFeature]> {
        Ok(self.servings.get(|| self.store.read())?)
    }

    /// Where a feature serves.
    fn serving(&self, feature: FeatureId) -> Result<&[CircuitFeature]> {
        let all = self.serving.get(|| Ok(by(self.servings()?.to_vec(), |row| row.feature)))?;
        Ok(all.get(&feature).map(Vec::as_slice).unwrap_or_default())
    }

    /// What serves at a component.
    fn serving_at(&self, component: Component) -> Result<&[CircuitFeature]> {
        let all = self.serving_at.get(|| Ok(by(self.servings()?.to_vec(), |row| row.component)))?;
        Ok(all.get(&component).map(Vec::as_slice).unwrap_or_default())
    }

    /// Every dictionary, as it was measured.
    pub(crate) fn dictionaries(&self) -> Result<Vec<ConformanceRow>> {
        self.store.read()
    }

    /// Every feature that has a page, in order.
    pub(crate) fn features(&self) -> Result<&[FeatureRow]> {
        Ok(self.features.get(|| self.store.read_that("page", true))?)
    }

    /// A scored feature, whether it has a page or not.
    pub(crate) fn scored(&self, feature: FeatureId) -> Result<Option<FeatureRow>> {
        let name = BTreeSet::from([feature.to_string()]);
        Ok(self.store.read_about(&["feature"], &name)?.pop())
    }

    pub(crate) fn examples_of(&self, subject: &Subject) -> Result<&[ExampleRow]> {
        let all = self
            .examples
            .get(|| Ok(by(self.large::<ExampleRow>(&["subject"])?, |row| row.subject.clone())))?;
        Ok(all.get(subject).map(Vec::as_slice).unwrap_or_default())
    }

    /// What a subject promotes and what it suppresses, the most first.
    pub(crate) fn promoted(&self, subject: &Subject) -> Result<[Vec<PromotedToken>; 2]> {
        let all = self.promoted.get(|| Ok(promoted::tokens(self.large(&["subject"])?)))?;
        Ok(all.get(subject).cloned().unwrap_or_default())
    }

    /// Pairs of features in circuits, the largest share first.
    pub(crate) fn pair_rows(&self) -> Result<&[CircuitPairRow]> {
        Ok(self.circuit_pairs.get(|| {
            let mut rows: Vec<CircuitPairRow> = self.store.read()?;
            rows.sort_by(|a, b| b.share.total_cmp(&a.share).then(b.prompts.cmp(&a.prompts)));
            Ok(rows)
        })?)
    }

    /// Those of a feature.
    fn pair_rows_of(&self, feature: FeatureId) -> Result<Vec<&CircuitPairRow>> {
        let rows = self.pair_rows()?;
        let places = self.circuit_pairs_of.get(|| {
            let mut places: BTreeMap<FeatureId, Vec<usize>> = BTreeMap::new();
            for (place, row) in rows.iter().enumerate() {
                let own: BTreeSet<FeatureId> = [row.feature_a, row.feature_b].into();
                own.into_iter().for_each(|of| places.entry(of).or_default().push(place));
            }
            Ok(places)
        })?;
        Ok(places.get(&feature).into_iter().flatten().map(|&place| &rows[place]).collect())
    }

    /// Pairs in the corpus; of two features that have a page together, or are both asked about,
    /// also what is said of them.
    fn corpus_pairs(&self) -> Result<&CorpusPairs> {
        self.corpus_pairs.get(|| {
            let mut pairs = CorpusPairs::default();
            let Some(about) = &self.about else {
                let shown: BTreeSet<Subject> =
                    strongest(self.pair_rows()?).into_values().flatten().collect();
                self.store.each(|row: CorpusPairRow| {
                    let is_shown = shown.contains(&Subject::pair(row.feature_a, row.feature_b));
                    pairs.add(row, is_shown);
                })?;
                return Ok(pairs);
            };
            for row in self.large::<CorpusPairRow>(&["feature_a", "feature_b"])? {
                let both = [row.feature_a, row.feature_b].map(Subject::from);
                pairs.add(row, both.iter().all(|one| about.contains(one)));
            }
            Ok(pairs)
        })
    }

    /// What heads do.
    pub(crate) fn heads(&self) -> Result<&Heads> {
        self.heads
            .get(|| Heads::load(self.store, self.tokenizer()?, self.prompts()?, self.circuits()?))
    }

    /// The explanation of a feature, component, pair or group: a language model's, or where it has
    /// none the summary of the statistics.
    pub(crate) fn explanation(&self, subject: &Subject) -> Result<Option<Explanation>> {
        self.explanations.explanation(self.store, subject)
    }

    /// The text of a feature's explanation, if it has one.
    pub(crate) fn explained(&self, feature: FeatureId) -> Result<Option<String>> {
        let explanation = self.explanation(&feature.into())?;
        Ok(explanation.filter(|e| e.status == Status::Ok).map(|e| e.text))
    }

    /// What a language model was asked about a subject.
    fn transcript(&self, subject: &Subject) -> Result<Option<Transcript>> {
        self.explanations.transcript(self, subject)
    }
}
