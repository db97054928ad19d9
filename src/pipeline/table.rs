//! The table of stages: what each depends on, what it writes, and how it runs.

use crate::artifact::tables::*;
use crate::artifact::{Artifact, Row};
use crate::config::{Config, DiscoveryMethod, ScoreFeatures, StoreKind, Task};
use crate::error::Result;
use crate::inputs::Input;
use crate::lock::Ingredients;
use crate::stages::{self, Done, Run};

/// One step of the pipeline.
pub struct Stage {
    /// Its name on the command line and in the lock.
    pub name: &'static str,
    /// What it does, for the help.
    pub does: &'static str,
    /// Raised when its results change for the same ingredients.
    pub(super) version: u32,
    /// Settings it depends on: keys, or whole tables with a dot at the end.
    pub(super) settings: &'static [&'static str],
    /// Files of the outside world.
    pub(super) inputs: &'static [Input],
    /// What it depends on besides, made from the settings.
    pub(super) besides: fn(&Config) -> Ingredients,
    pub(super) reads: &'static [Artifact],
    /// A stage whose results are not read, but that must have passed.
    pub(super) after: Option<&'static str>,
    pub(super) writes: &'static [Artifact],
    /// By the settings, how several processes may share its work (`--shard`).
    pub(super) sharing: fn(&Config) -> Sharing,
    /// Parts of its work that it keeps until it is done.
    pub(super) keeps: &'static [Artifact],
    /// What it keeps for its next run, whatever that is made from.
    pub(super) remembers: &'static [Artifact],
    pub(super) writes_besides: Option<Besides>,
    pub(super) run: fn(&Run) -> Result<Done>,
    pub(super) asks: Option<Asks>,
}

/// How several processes share a stage's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Not at all.
    Alone,
    /// Its tables have a part for each of the contexts.
    Contexts,
    /// It keeps parts of its work, or replies of a language model, from which a run of the whole
    /// stage makes its tables. Shards have to run so many times, as later parts are made from
    /// earlier ones of all shards.
    Work {
        /// How many times.
        rounds: u32,
        /// About how many parts there are, at least.
        parts: usize,
    },
}

impl Sharing {
    /// Whether there can be shards.
    pub(super) fn is_shared(self) -> bool {
        self != Sharing::Alone
    }
}

/// What a stage asks of a language model.
pub(super) struct Asks {
    /// By the settings, anything at all.
    pub(super) whether: fn(&Config) -> bool,
    /// How much it would be, in a table.
    pub(super) plan: fn(&Run) -> Result<String>,
}

/// What a stage writes besides artifacts.
pub(super) struct Besides {
    /// Why it has to be made again although its ingredients, which have this fingerprint, are the
    /// same.
    pub(super) stale: fn(&Config, &str) -> Option<String>,
    /// What stays where only the tables are removed that it was made from, in words.
    pub(super) kept: fn(&Config) -> Option<String>,
    /// Says what it leaves, as others wrote it.
    pub(super) remove: fn(&Config) -> Result<Option<String>>,
}

/// The stages in their order.
pub const STAGES: [Stage; 12] = [
    Stage {
        name: "tokenize",
        does: "text → documents → contexts of token ids",
        version: 4,
        settings: &["corpus."],
        inputs: &[Input::Corpus, Input::Tokenizer],
        besides: nothing,
        reads: &[],
        after: None,
        writes: &[Document::ARTIFACT, ContextRow::ARTIFACT],
        sharing: |_| Sharing::Alone,
        keeps: &[],
        remembers: &[EncodedRow::ARTIFACT],
        writes_besides: None,
        run: stages::tokenize::run,
        asks: None,
    },
    Stage {
        name: "measure",
        does: "how well the model fits the corpus, and each dictionary the model; refuses what \
             does not",
        version: 8,
        settings: &[],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries],
        besides: nothing,
        reads: &[ContextRow::ARTIFACT],
        after: None,
        writes: &[ModelCheckRow::ARTIFACT, ConformanceRow::ARTIFACT],
        sharing: |_| Sharing::Alone,
        keeps: &[],
        remembers: &[],
        writes_besides: None,
        run: stages::conformance::run,
        asks: None,
    },
    Stage {
        name: "discover",
        does: "prompts → a circuit for each → components and features of the task",
        version: 9,
        settings: &["tasks.", "discover.", "verify.prompts"],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries, Input::Prompts],
        besides: nothing,
        reads: &[],
        after: Some("measure"),
        writes: &[
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            ComponentRow::ARTIFACT,
            CircuitFeature::ARTIFACT,
            RankingRow::ARTIFACT,
            HookScoreRow::ARTIFACT,
        ],
        // Circuits of prompts come after the scores of all prompts, if there are any.
        sharing: |config| match config.discover.method {
            DiscoveryMethod::Gradient => Sharing::Work { rounds: 2, parts: prompt_parts(config) },
            _ => Sharing::Work { rounds: 1, parts: prompt_parts(config) },
        },
        keeps: &[PromptScoreRow::ARTIFACT, CHOICE_RUNS, CHOICES, PromptCircuitRow::ARTIFACT],
        remembers: &[],
        writes_besides: None,
        run: stages::discover::run,
        asks: None,
    },
    Stage {
        name: "verify",
        does: "faithfulness of the circuits: everything else ablated; links tested by \
             intervention",
        version: 7,
        settings: &["tasks.", "discover.", "verify."],
        inputs: &[
            Input::Model,
            Input::Tokenizer,
            Input::Dictionaries,
            Input::Prompts,
            Input::Published,
        ],
        besides: crate::inputs::published_from,
        reads: &[
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            ComponentRow::ARTIFACT,
            RankingRow::ARTIFACT,
        ],
        after: None,
        writes: &[FaithfulnessRow::ARTIFACT, EffectRow::ARTIFACT, CircuitRunRow::ARTIFACT],
        sharing: |config| Sharing::Work { rounds: 2, parts: run_parts(config) },
        keeps: &[MethodRow::ARTIFACT, TESTED_LINKS],
        remembers: &[],
        writes_besides: None,
        run: stages::verify::run,
        asks: None,
    },
    Stage {
        name: "heads",
        does: "attention, copying and features of each head in a circuit",
        version: 4,
        settings: &[],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries, Input::Published],
        besides: crate::inputs::published_from,
        reads: &[PromptRow::ARTIFACT, ComponentRow::ARTIFACT, CircuitFeature::ARTIFACT],
        after: None,
        writes: &[
            HeadRow::ARTIFACT,
            AttentionRow::ARTIFACT,
            CopyRow::ARTIFACT,
            HeadFeatureRow::ARTIFACT,
            PublishedRow::ARTIFACT,
        ],
        sharing: |_| Sharing::Alone,
        keeps: &[],
        remembers: &[],
        writes_besides: None,
        run: stages::heads::run,
        asks: None,
    },
    Stage {
        name: "cache",
        does: "one forward pass over every context; stores what the dictionaries read",
        version: 6,
        settings: &["cache.store", "cache.dtype", "score.features"],
        inputs: &[Input::Model],
        besides: stages::cache::besides,
        reads: &[Document::ARTIFACT, ContextRow::ARTIFACT, CircuitFeature::ARTIFACT],
        after: None,
        writes: &[ACTIVATIONS],
        sharing: |config| match config.cache.store {
            StoreKind::Disk => Sharing::Contexts,
            StoreKind::Stream => Sharing::Alone,
        },
        keeps: &[],
        remembers: &[],
        writes_besides: None,
        run: stages::cache::run,
        asks: None,
    },
    Stage {
        name: "score",
        does: "the activation of every circuit feature, or of all features, at every token",
        version: 7,
        settings: &["score.", "groups."],
        inputs: &[Input::Dictionaries],
        besides: nothing,
        reads: &[ContextRow::ARTIFACT, CircuitFeature::ARTIFACT, ACTIVATIONS],
        after: None,
        writes: &[ScoreRow::ARTIFACT],
        sharing: |_| Sharing::Contexts,
        keeps: &[],
        remembers: &[],
        writes_besides: None,
        run: stages::score::run,
        asks: None,
    },
    Stage {
        name: "aggregate",
        does: "statistics, examples, promoted tokens, co-occurrence, clusters",
        version: 8,
        settings: &["aggregate.", "logits.", "groups."],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries],
        besides: nothing,
        reads: &[
            Document::ARTIFACT,
            ContextRow::ARTIFACT,
            ScoreRow::ARTIFACT,
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            CircuitFeature::ARTIFACT,
        ],
        after: None,
        writes: &[
            FeatureRow::ARTIFACT,
            ExampleRow::ARTIFACT,
            EvidenceRow::ARTIFACT,
            ProfileRow::ARTIFACT,
            BeforeRow::ARTIFACT,
            LogitRow::ARTIFACT,
            CircuitPairRow::ARTIFACT,
            CorpusPairRow::ARTIFACT,
            ClusterRow::ARTIFACT,
        ],
        // Of the features of circuits alone there are few.
        sharing: |config| match config.score.features {
            ScoreFeatures::All => Sharing::Work { rounds: 1, parts: usize::MAX },
            _ => Sharing::Work { rounds: 1, parts: 1 },
        },
        keeps: &FEATURE_PARTS,
        remembers: &[],
        writes_besides: None,
        run: stages::aggregate::run,
        asks: None,
    },
    Stage {
        name: "causes",
        does: "why each feature is active at its examples: heads, tokens, earlier features",
        version: 4,
        settings: &["logits.k"],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries],
        besides: nothing,
        reads: &[
            Document::ARTIFACT,
            ContextRow::ARTIFACT,
            FeatureRow::ARTIFACT,
            EvidenceRow::ARTIFACT,
        ],
        after: None,
        writes: &[
            CauseRow::ARTIFACT,
            ReadingRow::ARTIFACT,
            SimilarRow::ARTIFACT,
            AblatedRow::ARTIFACT,
        ],
        sharing: |_| Sharing::Alone,
        keeps: &[],
        remembers: &[],
        writes_besides: None,
        run: stages::causes::run,
        asks: None,
    },
    Stage {
        name: "interpret",
        does: "explanations of every feature, pair, component and group",
        version: 6,
        settings: &["llm.", "groups.", "model.about"],
        inputs: &[Input::Tokenizer],
        besides: nothing,
        reads: &[
            Document::ARTIFACT,
            ContextRow::ARTIFACT,
            FeatureRow::ARTIFACT,
            ExampleRow::ARTIFACT,
            EvidenceRow::ARTIFACT,
            ProfileRow::ARTIFACT,
            BeforeRow::ARTIFACT,
            CauseRow::ARTIFACT,
            ReadingRow::ARTIFACT,
            AblatedRow::ARTIFACT,
            LogitRow::ARTIFACT,
            ClusterRow::ARTIFACT,
            CircuitPairRow::ARTIFACT,
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            ComponentRow::ARTIFACT,
            HeadRow::ARTIFACT,
            AttentionRow::ARTIFACT,
            CopyRow::ARTIFACT,
            HeadFeatureRow::ARTIFACT,
            PublishedRow::ARTIFACT,
        ],
        after: None,
        writes: &[ExplanationRow::ARTIFACT, ExchangeRow::ARTIFACT, LedgerRow::ARTIFACT],
        // Components, pairs and groups are told of in the words of features.
        sharing: |config| questions(config.llm.asks(), 2),
        keeps: &[],
        remembers: &[],
        writes_besides: None,
        run: stages::interpret::run,
        asks: Some(Asks { whether: |config| config.llm.asks(), plan: stages::interpret::plan }),
    },
    Stage {
        name: "evaluate",
        does: "scores of explanations on held-out documents, and steering",
        version: 8,
        settings: &["evaluate.", "llm.", "model.about"],
        inputs: &[Input::Model, Input::Tokenizer, Input::Dictionaries],
        besides: stages::evaluate::besides,
        reads: &[
            Document::ARTIFACT,
            ContextRow::ARTIFACT,
            ScoreRow::ARTIFACT,
            FeatureRow::ARTIFACT,
            ExampleRow::ARTIFACT,
            ReadingRow::ARTIFACT,
            LogitRow::ARTIFACT,
            ExplanationRow::ARTIFACT,
        ],
        after: None,
        writes: &[
            EvaluationRow::ARTIFACT,
            JudgementRow::ARTIFACT,
            AgreementRow::ARTIFACT,
            CausalRow::ARTIFACT,
            JUDGE_LEDGER,
        ],
        sharing: |config| questions(stages::evaluate::asks(config), 1),
        keeps: &[],
        remembers: &[],
        writes_besides: None,
        run: stages::evaluate::run,
        asks: Some(Asks { whether: stages::evaluate::asks, plan: stages::evaluate::plan }),
    },
    Stage {
        name: "render",
        does: "all tables → the site",
        version: 16,
        settings: &["site.", "publish.", "groups."],
        inputs: &[Input::Tokenizer],
        besides: stages::render::besides,
        reads: &[
            Document::ARTIFACT,
            ContextRow::ARTIFACT,
            PromptRow::ARTIFACT,
            NodeRow::ARTIFACT,
            EdgeRow::ARTIFACT,
            ComponentRow::ARTIFACT,
            CircuitFeature::ARTIFACT,
            RankingRow::ARTIFACT,
            HookScoreRow::ARTIFACT,
            FaithfulnessRow::ARTIFACT,
            EffectRow::ARTIFACT,
            HeadRow::ARTIFACT,
            AttentionRow::ARTIFACT,
            CopyRow::ARTIFACT,
            HeadFeatureRow::ARTIFACT,
            PublishedRow::ARTIFACT,
            CircuitRunRow::ARTIFACT,
            ScoreRow::ARTIFACT,
            ClusterRow::ARTIFACT,
            ModelCheckRow::ARTIFACT,
            ConformanceRow::ARTIFACT,
            FeatureRow::ARTIFACT,
            ExampleRow::ARTIFACT,
            EvidenceRow::ARTIFACT,
            ProfileRow::ARTIFACT,
            BeforeRow::ARTIFACT,
            CauseRow::ARTIFACT,
            ReadingRow::ARTIFACT,
            SimilarRow::ARTIFACT,
            AblatedRow::ARTIFACT,
            LogitRow::ARTIFACT,
            CircuitPairRow::ARTIFACT,
            CorpusPairRow::ARTIFACT,
            ExplanationRow::ARTIFACT,
            ExchangeRow::ARTIFACT,
            LedgerRow::ARTIFACT,
            EvaluationRow::ARTIFACT,
            JudgementRow::ARTIFACT,
            AgreementRow::ARTIFACT,
            CausalRow::ARTIFACT,
            JUDGE_LEDGER,
        ],
        after: None,
        writes: &[],
        sharing: |_| Sharing::Alone,
        keeps: &[],
        remembers: &[],
        writes_besides: Some(Besides {
            stale: stages::render::stale,
            kept: stages::render::kept,
            remove: stages::render::remove,
        }),
        run: stages::render::run,
        asks: None,
    },
];

/// The names of all stages, in their order.
pub(super) const NAMES: [&str; STAGES.len()] = {
    let mut names = [""; STAGES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = STAGES[i].name;
        i += 1;
    }
    names
};

/// The stages and what each does, for the help.
pub fn help() -> String {
    let line = |stage: &Stage| format!("\n  {:<10} {}", stage.name, stage.does);
    format!("Stages:{}", STAGES.iter().map(line).collect::<String>())
}

/// What a stage computes, as its version tells: raised when it computes it differently.
pub(crate) fn version(name: &str) -> String {
    STAGES.iter().find(|stage| stage.name == name).map_or(0, |stage| stage.version).to_string()
}

impl Stage {
    /// The tables that it writes.
    pub fn writes(&self) -> &'static [Artifact] {
        self.writes
    }

    /// The parts of its work that it keeps until it is done.
    pub fn keeps(&self) -> &'static [Artifact] {
        self.keeps
    }

    /// What it keeps for its next run.
    pub fn remembers(&self) -> &'static [Artifact] {
        self.remembers
    }

    /// What it writes into the artifact folder with its fingerprint.
    pub(super) fn makes(&self) -> impl Iterator<Item = &'static Artifact> {
        self.writes.iter().chain(self.keeps)
    }

    /// Everything that it writes into the artifact folder.
    pub(super) fn all(&self) -> impl Iterator<Item = &'static Artifact> {
        self.makes().chain(self.remembers)
    }

    pub(super) fn reads_from(&self, other: &Stage) -> bool {
        self.reads.iter().any(|read| other.writes.iter().any(|written| written.name == read.name))
    }

    /// What it asks of a language model, if the settings let it.
    pub(super) fn asks_by(&self, config: &Config) -> Option<&Asks> {
        self.asks.as_ref().filter(|asks| (asks.whether)(config))
    }

    /// That stage must be fresh before this one runs.
    pub(super) fn needs(&self, other: &Stage) -> bool {
        self.reads_from(other) || self.after == Some(other.name)
    }
}

/// Of a stage that asks questions, if it does. One process keeps as many under way as a server takes,
/// so that an array of jobs is made only where somebody wants it.
fn questions(asks: bool, rounds: u32) -> Sharing {
    if asks { Sharing::Work { rounds, parts: 1 } } else { Sharing::Alone }
}

/// Parts of the tasks' own prompts.
fn prompt_parts(config: &Config) -> usize {
    let of = |task: &Task| stages::discover::parts(task.prompts.unwrap_or_default());
    config.tasks.iter().map(of).sum()
}

/// Parts of the runs of circuits, as there are 100 of a task or more: of 1,000 prompts each. Those
/// of other methods' circuits come after the methods.
fn run_parts(config: &Config) -> usize {
    config.tasks.len() * config.verify.prompts / 10
}

pub(super) fn nothing(_: &Config) -> Ingredients {
    Ingredients::new()
}
