//! The domain model of a finished run: plain values, loaded from its tables by `load`.
//!
//! Every text here comes from a corpus, a tokenizer, a settings file or a language model, and is
//! hostile until escaped.

mod component;
mod evaluation;
mod explanation;
mod feature;
mod graph;
mod head;
mod task;
mod why;

pub(crate) use component::{ComponentPage, Serving};
pub(crate) use evaluation::{Agreement, Evaluation, Misjudged, Steering};
pub(crate) use explanation::{Exchange, Explanation, Transcript, Usage, UsageTotal};
pub(crate) use feature::{
    ContextText, ContextToken, CorpusPair, Example, Feature, Group, ImportedExplanation, Pair,
    PromotedToken, Similar, TextPiece,
};
pub(crate) use graph::{Baseline, Circuit, Link, Node, PromptGraph, kind_word};
pub(crate) use head::{Attention, Contributor, CopiedToken, Head, HeadFeature, Move, Role, What};
pub(crate) use head::{AttentionShares, Copying};
pub(crate) use task::{
    CircuitPair, Faithfulness, HookScore, Interval, InterventionLink, Prompt, PublishedClass, Task,
    TaskComponent,
};
pub(crate) use why::{BeforeShare, ProfileShare, ReadFrom, ReadPlace, Source, SourceShare, Why};

use crate::artifact::Column;
use crate::history::Changes;
use crate::ids::{DictionaryId, Half};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole atlas. Features are in the order of their ids, components in the order of the model.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Atlas {
    pub title: String,
    /// Only for social cards; may be empty. Pages link relatively.
    pub base_url: String,
    /// The program's version.
    pub version: String,
    /// What the model is called where it came from.
    pub model: String,
    /// The model and the corpus as the settings name them.
    pub model_path: String,
    pub corpus: String,
    /// Hash of everything that the results depend on: that of the stage `render`.
    pub fingerprint: String,
    /// When the newest stage before `render` ended, `2026-01-31 04:05 UTC`.
    pub when: String,
    /// What was run on what, in the order to be shown: (label, value).
    pub provenance: Vec<(String, String)>,
    pub layers: usize,
    pub heads: usize,
    /// Width of the residual stream.
    pub width: usize,
    pub documents: u64,
    pub contexts: u64,
    /// Tokens that count: not special, not at position 0.
    pub tokens: u64,
    /// Documents, contexts and tokens of each half.
    pub halves: Vec<(Half, [u64; 3])>,
    pub tasks: Vec<Task>,
    pub components: Vec<ComponentPage>,
    pub features: Vec<Feature>,
    /// Texts of the contexts of which examples show a window, by number.
    #[serde(skip)]
    pub texts: BTreeMap<u32, ContextText>,
    /// The strongest pairs of the tasks' circuits, by name.
    pub pairs: Vec<Pair>,
    pub groups: Vec<Group>,
    pub model_fit: ModelFit,
    pub conformance: Vec<DictionaryFit>,
    /// What language models were asked, by model and purpose; empty without one.
    pub usage: Vec<UsageTotal>,
    /// What changed from each kept run to the next, the newest first.
    #[serde(skip)]
    pub changes: Vec<Changes>,
    /// Stage name and the seconds it took, in the order of the stages.
    pub stages: Vec<(String, f64)>,
    /// What the site gives besides pages; none where that is not wanted.
    #[serde(skip)]
    pub data: Option<SiteData>,
}

/// What a site gives besides its pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct SiteData {
    pub tables: Vec<DataTable>,
    /// Tables that are too large, by name, with their bytes.
    pub left_out: Vec<(String, u64)>,
    /// The document of each component and of each task, in their order.
    pub components: Vec<String>,
    pub tasks: Vec<String>,
    /// Units of activation of `at_strength`.
    pub strength: f64,
}

/// A table, with its files as they are to be copied.
#[derive(Clone, Debug)]
pub(crate) struct DataTable {
    pub name: &'static str,
    /// What a row is.
    pub row: &'static str,
    pub columns: &'static [Column],
    pub rows: u64,
    pub bytes: u64,
    /// By name below the folder of all tables.
    pub files: Vec<(String, PathBuf)>,
}

/// How well the model predicts the corpus; losses in nats per token.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ModelFit {
    /// Tokens that it was measured on.
    pub tokens: u64,
    pub loss: f64,
    /// Of the frequencies of tokens, and of pairs of them.
    pub unigram: f64,
    pub bigram: f64,
    /// What looks wrong with it or with a dictionary.
    pub warnings: Vec<String>,
}

/// How well a dictionary describes the model, measured on tokens of the corpus.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DictionaryFit {
    pub dictionary: DictionaryId,
    pub width: usize,
    /// Mean number of active features a token.
    pub l0: f64,
    /// 1 − fraction of variance unexplained of what it reconstructs.
    pub variance_explained: f64,
    /// Features never active on the sample, and that as a share of the width.
    pub dead: u64,
    /// Share of the loss recovered when the reconstruction replaces the original, against zero
    /// ablation.
    pub loss_recovered: Option<f64>,
    /// Its 95 % interval over contexts.
    pub loss_interval: Option<[f64; 2]>,
    /// Tokens whose prediction the losses are of.
    pub loss_tokens: u64,
    /// Contexts that they are in.
    pub loss_contexts: u64,
    /// Tokens that all else was measured on.
    pub tokens: u64,
    /// What is doubtful about it.
    pub warnings: Vec<String>,
}
