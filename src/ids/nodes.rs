//! The kinds of nodes of a circuit.

use super::BadName;
use std::fmt;
use std::str::FromStr;

/// The kinds of nodes, in node order (`docs/definitions.md` §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeKind {
    /// The metric or logit that the circuit explains.
    Root,
    /// A feature of an attention SAE at a position.
    AttentionFeature,
    /// A feature of an MLP transcoder at a position.
    MlpFeature,
    /// A head that reads a source position, for the feature or error that it serves.
    Head,
    /// What the attention SAE misses at a position.
    AttentionError,
    /// What the MLP transcoder misses at a position.
    MlpError,
    /// A constant of the model or of a dictionary.
    Bias(Bias),
    /// The token embedding at a position.
    Embedding,
    /// The position embedding at a position.
    PositionEmbedding,
}

/// The constants among the terms of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bias {
    /// The SAE's `b_dec` through `W_O`.
    AttentionDictionary,
    /// `b_O`
    Attention,
    /// The transcoder's `b_dec_out`.
    MlpDictionary,
}

impl NodeKind {
    /// Every kind, in node order.
    pub const ALL: [NodeKind; 11] = {
        use NodeKind::*;
        [
            Root,
            AttentionFeature,
            MlpFeature,
            Head,
            AttentionError,
            MlpError,
            Bias(self::Bias::AttentionDictionary),
            Bias(self::Bias::Attention),
            Bias(self::Bias::MlpDictionary),
            Embedding,
            PositionEmbedding,
        ]
    };

    /// The word in artifacts.
    pub fn word(self) -> &'static str {
        match self {
            NodeKind::Bias(Bias::AttentionDictionary) => "attention_dictionary_bias",
            NodeKind::Bias(Bias::Attention) => "attention_bias",
            NodeKind::Bias(Bias::MlpDictionary) => "mlp_dictionary_bias",
            NodeKind::Root => "root",
            NodeKind::AttentionFeature => "attention_feature",
            NodeKind::MlpFeature => "mlp_feature",
            NodeKind::Head => "head",
            NodeKind::AttentionError => "attention_error",
            NodeKind::MlpError => "mlp_error",
            NodeKind::Embedding => "embedding",
            NodeKind::PositionEmbedding => "position_embedding",
        }
    }

    /// The word in `discover.allow`, where all biases are one.
    pub fn setting(self) -> &'static str {
        match self {
            NodeKind::Bias(_) => "bias",
            kind => kind.word(),
        }
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for NodeKind {
    type Err = BadName;

    fn from_str(word: &str) -> Result<Self, BadName> {
        let found = NodeKind::ALL.into_iter().find(|kind| kind.word() == word);
        found.ok_or_else(|| BadName { name: word.into(), wanted: "a kind of node" })
    }
}
