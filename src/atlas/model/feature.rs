//! A feature, its examples and promoted tokens; pairs and groups of features.

use super::{
    Agreement, CircuitPair, Evaluation, Explanation, Misjudged, Serving, Steering, Transcript, Why,
};
use crate::ids::{Band, FeatureId, Half, Lag};
use serde::{Serialize, Serializer};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PromotedToken {
    pub text: String,
    /// Logits per unit of activation.
    pub logit: f32,
    /// The same at `logits.strength` units.
    pub at_strength: f32,
    /// Standard deviations above the logit at the same place of random directions.
    pub z: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Feature {
    pub id: FeatureId,
    /// Tokens that count at which it is active.
    pub active: u64,
    pub density: f64,
    pub mean_active: f64,
    pub max: f32,
    /// Special tokens at which it is active; they are in no other number.
    pub special_active: u64,
    /// 50 equal bins on (0, max].
    pub histogram: Vec<u64>,
    /// Tokens by their share of the summed activation, largest first.
    pub mass: Vec<(String, f64)>,
    pub promoted: Vec<PromotedToken>,
    pub suppressed: Vec<PromotedToken>,
    pub servings: Vec<Serving>,
    /// Bands `top`, `q9` … `q0`, `inactive`; within a band by rank. Both halves of the documents.
    pub examples: Vec<Example>,
    /// Features that meet it in the corpus, highest normalised PMI among the significant first.
    pub corpus_pairs: Vec<CorpusPair>,
    /// How many there are in all.
    pub corpus_total: u64,
    /// Features that serve with it in circuits, most prompts first.
    pub circuit_pairs: Vec<(String, CircuitPair)>,
    /// How many there are in all.
    pub circuit_total: u64,
    /// That of the language model; if it has none, the summary of the statistics.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it; none where none was.
    pub asked: Option<Transcript>,
    /// What others say of it.
    pub imported: Vec<ImportedExplanation>,
    /// The language model's explanation first, and of those the first judge's.
    pub evaluations: Vec<Evaluation>,
    pub agreements: Vec<Agreement>,
    /// Some of the texts that the first judge got wrong.
    pub misjudged: Vec<Misjudged>,
    pub causal: Option<Steering>,
    /// Why it is active.
    pub why: Why,
    /// Features with a page that write alike, the most similar first.
    pub similar: Vec<Similar>,
}

/// An explanation by somebody else.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ImportedExplanation {
    /// Who wrote it; evaluations name it so.
    pub explainer: String,
    /// The language model that did; may be empty.
    pub model: String,
    /// What the feature is called there.
    pub source: String,
    pub text: String,
}

/// A window of a context around the peak.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Example {
    /// `top`, `q0` … `q9`, `inactive`.
    pub band: Band,
    /// `explain` or `score`.
    pub half: Half,
    pub document: u32,
    pub context: u32,
    /// Position of the window's first piece in the context.
    pub start: u32,
    /// The largest activation in the window's context.
    pub value: f32,
    /// In JSON a list of texts and one of values.
    #[serde(serialize_with = "in_columns")]
    pub pieces: Vec<TextPiece>,
    /// Index in `pieces` of the peak.
    pub peak: usize,
    /// The window was cut: there is more text of the context before, after.
    pub more_before: bool,
    pub more_after: bool,
    /// Position of the peak in the context.
    pub position: u32,
    /// Positions of the whole context at which it is active, with the activations; empty where
    /// only the window is known.
    pub active: Vec<(u32, f32)>,
}

impl Example {
    /// Whether it is known where the feature is active in the whole context.
    pub(crate) fn is_whole_known(&self) -> bool {
        !self.active.is_empty() || self.band == Band::Inactive
    }

    /// Whether the context has more text than the window.
    pub(crate) fn is_cut(&self) -> bool {
        self.more_before || self.more_after
    }

    /// The same with no more than `radius` pieces on either side of the peak.
    #[must_use]
    pub(crate) fn narrowed(&self, radius: usize) -> Example {
        let (start, end) =
            (self.peak.saturating_sub(radius), (self.peak + radius + 1).min(self.pieces.len()));
        Example {
            pieces: self.pieces[start..end].to_vec(),
            peak: self.peak - start,
            more_before: self.more_before || start > 0,
            more_after: self.more_after || end < self.pieces.len(),
            ..self.clone()
        }
    }
}

/// The text of a context.
#[derive(Clone, Debug)]
pub(crate) struct ContextText {
    /// Of each position its token. Where several share a character, the first has all of their
    /// text.
    pub tokens: Vec<ContextToken>,
}

#[derive(Clone, Debug)]
pub(crate) struct ContextToken {
    pub text: Box<str>,
    pub special: bool,
}

/// A feature that writes like another one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Similar {
    pub other: FeatureId,
    /// Of the two write vectors.
    pub cosine: f64,
    /// In standard deviations of random directions.
    pub z: f64,
}

/// A stretch of text with one activation: a token, or several that share a character (their largest
/// activation).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextPiece {
    pub text: String,
    pub value: f32,
    /// Special tokens are shown apart and never coloured.
    pub special: bool,
}

/// There are hundreds of pieces, so that names are not said for each.
fn in_columns<S: Serializer>(pieces: &[TextPiece], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Columns<'a> {
        text: Vec<&'a str>,
        value: Vec<f32>,
        /// Places of special tokens.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        special: Vec<usize>,
    }
    let special = pieces.iter().enumerate().filter(|(_, piece)| piece.special);
    Columns {
        text: pieces.iter().map(|piece| piece.text.as_str()).collect(),
        value: pieces.iter().map(|piece| piece.value).collect(),
        special: special.map(|(at, _)| at).collect(),
    }
    .serialize(serializer)
}

/// How often another feature meets this one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CorpusPair {
    pub other: FeatureId,
    /// `same` token, or within a `window` of tokens.
    pub lag: Lag,
    /// For `window`: this feature comes first.
    pub first: bool,
    pub together: u64,
    pub expected: f64,
    pub lift: f64,
    pub npmi: f64,
    pub jaccard: f64,
    pub phi: f64,
    /// Benjamini–Hochberg over all pairs tested. Optimistic: tokens of one document are not
    /// independent.
    pub q: f64,
}

/// Two features looked at together; `pairs/A--B.html`, the names in alphabetical order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pair {
    pub a: FeatureId,
    pub b: FeatureId,
    /// Where the two serve together: (task, pair).
    pub circuit: Vec<(String, CircuitPair)>,
    /// How they meet in the corpus; `other` is `b`.
    pub corpus: Vec<CorpusPair>,
    /// What the sum of their write directions promotes.
    pub promoted: Vec<PromotedToken>,
    pub suppressed: Vec<PromotedToken>,
    /// Joint examples: values are sums of the two activations, each as a share of its feature's
    /// maximum.
    pub examples: Vec<Example>,
    /// That of the language model; if it has none, the summary of the statistics.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it; none where none was.
    pub asked: Option<Transcript>,
}

/// A set of features looked at together; `groups/NAME.html`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    pub name: String,
    pub features: Vec<FeatureId>,
    pub promoted: Vec<PromotedToken>,
    pub suppressed: Vec<PromotedToken>,
    /// Joint examples: values are sums of activations, each as a share of its feature's maximum.
    pub examples: Vec<Example>,
    /// That of the language model; if it has none, the summary of the statistics.
    pub explanation: Option<Explanation>,
    /// What a language model was asked about it; none where none was.
    pub asked: Option<Transcript>,
}
