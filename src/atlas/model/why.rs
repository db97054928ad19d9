//! Why a feature is active: what brings its activation, contrast pairs, and where it is active among
//! its tokens.

use super::Example;
use crate::ids::{Component, FeatureId};
use crate::summary::quoted;
use serde::{Serialize, Serializer};

/// Why a feature is active.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Why {
    /// What brings its activation at the peaks of examples, the largest mean share first.
    pub sources: Vec<SourceShare>,
    /// Examples that these are over.
    pub examples: u32,
    /// Mean shares that heads bring from positions, by how far before the peak they are.
    pub distances: Vec<(String, f64)>,
    /// The strongest examples, with what heads read for them; empty where none do.
    pub read_from: Vec<ReadFrom>,
    /// The same token, active and inactive.
    pub pairs: Vec<[Example; 2]>,
    /// Tokens, by the sum of activation.
    pub tokens: Vec<ProfileShare>,
    /// Tokens before, in the same way.
    pub previous: Vec<ProfileShare>,
    /// Tokens after, in the same way: what the texts go on with; the feature does not know them.
    pub next: Vec<ProfileShare>,
    /// Positions in the document.
    pub text: Vec<ProfileShare>,
    /// Positions in the sentence.
    pub sentence: Vec<ProfileShare>,
    /// Tokens before its own tokens with which it is more often strongly active at them.
    pub more: Vec<BeforeShare>,
    /// With which it is less often.
    pub less: Vec<BeforeShare>,
    /// All tokens at the distance that tells most, the most active first; in JSON a list for each
    /// field.
    #[serde(serialize_with = "in_columns")]
    pub deciding: Vec<BeforeShare>,
    /// Its own tokens that this is over, and those at which it is strongly active.
    pub own: [u64; 2],
    /// Tokens that its weights read, with their distance from others in standard deviations.
    pub reads: Vec<(String, f64)>,
    /// Earlier features that its weights read, in the same way.
    pub earlier: Vec<(FeatureId, f64)>,
    /// Tokens that the live model says more of because of it, with the change of the logit.
    pub raised: Vec<(String, f32)>,
    /// Tokens that it says less of.
    pub lowered: Vec<(String, f32)>,
    /// Examples in which it was ablated for this.
    pub ablated: u32,
}

/// What a part of an activation is from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Source {
    /// A head reads BOS.
    Bos,
    /// A head reads the token at which the feature is active.
    Itself,
    /// A head reads an earlier token, this one.
    Read(String),
    /// The embedding of the token, this one.
    Token(String),
    /// The position embedding.
    Position,
    /// An earlier feature.
    Feature(FeatureId),
    /// What dictionaries miss.
    Error,
    /// A bias.
    Constant,
}

/// A source with its size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SourceShare {
    /// What it is.
    pub source: Source,
    /// The head that reads it.
    pub head: Option<Component>,
    /// Mean share of everything that the feature reads.
    pub share: f64,
    /// Examples in which it is among the largest.
    pub texts: u32,
}

/// An example with the positions that heads read for its activation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadFrom {
    /// The window.
    pub example: Example,
    /// The largest share first.
    pub places: Vec<ReadPlace>,
}

/// A position that heads read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadPlace {
    /// Its token.
    pub token: String,
    /// How many tokens before the peak it is; none: BOS.
    pub distance: Option<u32>,
    /// Its place in the pieces of the window; none: outside of it.
    pub piece: Option<usize>,
    /// Heads that read it, with their shares of everything that the feature reads.
    pub heads: Vec<(Component, f32)>,
    /// All of them together.
    pub share: f64,
}

/// Tokens of a kind, and at how many of them the feature is active.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProfileShare {
    /// The token, or positions.
    pub what: String,
    /// How many there are.
    pub tokens: u64,
    /// At how many of them it is active.
    pub active: u64,
    /// Mean activation at these.
    pub mean: f64,
}

/// Occurrences of a feature's tokens with a token before.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BeforeShare {
    /// The token before.
    pub token: String,
    /// How many tokens before; none: anywhere.
    pub distance: Option<u32>,
    /// How many there are.
    pub tokens: u64,
    /// At how many of them the feature is strongly active.
    pub active: u64,
}

/// There may be hundreds, so that names are not said for each.
fn in_columns<S: Serializer>(list: &[BeforeShare], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Columns<'a> {
        token: Vec<&'a str>,
        distance: Vec<Option<u32>>,
        tokens: Vec<u64>,
        active: Vec<u64>,
    }
    Columns {
        token: list.iter().map(|one| one.token.as_str()).collect(),
        distance: list.iter().map(|one| one.distance).collect(),
        tokens: list.iter().map(|one| one.tokens).collect(),
        active: list.iter().map(|one| one.active).collect(),
    }
    .serialize(serializer)
}

impl Source {
    /// What it is called in a sentence; tokens in backticks.
    pub(crate) fn said(&self) -> String {
        match self {
            Source::Bos => "BOS".into(),
            Source::Itself => "the token itself".into(),
            Source::Read(token) => quoted(token),
            Source::Token(token) => format!("the token {} itself", quoted(token)),
            Source::Position => "its position".into(),
            Source::Feature(id) => id.to_string(),
            Source::Error => "no feature".into(),
            Source::Constant => "a constant".into(),
        }
    }
}
