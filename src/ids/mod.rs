//! The shared nouns: what a dictionary, a feature, a component, a dictionary kind and a repository
//! are called, everywhere.
//!
//! Names are permalinks: `att9.16109`, `mlp0.10173`, `L9H9`, `MLP3` appear in artifacts, URLs and
//! settings.

mod nodes;
mod shard;
mod split;
mod words;

pub use nodes::{Bias, NodeKind};
pub use shard::Shard;
pub use split::Split;
pub(crate) use words::Lag;
pub use words::{Band, Beside, Half, Profiled, Shown, Side, Slot, Status, SubjectKind};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Adds token ids to a hash, each in 4 bytes, the lowest first.
pub(crate) fn hash_tokens(hasher: &mut blake3::Hasher, tokens: &[u32]) {
    tokens.iter().for_each(|id| {
        hasher.update(&id.to_le_bytes());
    });
}

/// Which of a layer's two dictionaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The attention-output SAE: reads `attn.hook_z`.
    Attention,
    /// The MLP transcoder: reads `ln2.hook_normalized`, writes `hook_mlp_out`.
    Mlp,
}

impl Kind {
    /// The prefix of a feature's name.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::Attention => "att",
            Kind::Mlp => "mlp",
        }
    }

    /// The word used in artifacts.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Attention => "attention",
            Kind::Mlp => "mlp",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = BadName;

    fn from_str(word: &str) -> Result<Self, BadName> {
        let found = [Kind::Attention, Kind::Mlp].into_iter().find(|kind| kind.word() == word);
        found.ok_or_else(|| BadName {
            name: word.into(),
            wanted: "a kind of dictionary (`attention` or `mlp`)",
        })
    }
}

/// A dictionary: its layer and kind. Ordered by layer, attention before MLP, as the model computes
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DictionaryId {
    /// Its layer, from 0.
    pub layer: usize,
    /// Attention SAE or MLP transcoder.
    pub kind: Kind,
}

impl DictionaryId {
    /// Both dictionaries of every layer, in the order the model computes them.
    pub fn all(layers: usize) -> impl Iterator<Item = DictionaryId> {
        (0..layers)
            .flat_map(|layer| [Kind::Attention, Kind::Mlp].map(|kind| DictionaryId { layer, kind }))
    }

    /// The hook that the dictionary reads, named as in TransformerLens.
    pub fn hook(self) -> String {
        match self.kind {
            Kind::Attention => format!("blocks.{}.attn.hook_z", self.layer),
            Kind::Mlp => format!("blocks.{}.ln2.hook_normalized", self.layer),
        }
    }
}

impl fmt::Display for DictionaryId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.layer)
    }
}

/// A dictionary feature, written `att9.16109` or `mlp0.10173`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeatureId {
    /// The dictionary that it is in.
    pub dictionary: DictionaryId,
    /// Its number in the dictionary, from 0.
    pub index: usize,
}

impl FeatureId {
    /// A feature of the layer's dictionary of this kind.
    pub fn new(kind: Kind, layer: usize, index: usize) -> Self {
        Self { dictionary: DictionaryId { layer, kind }, index }
    }

    /// A number of its own, whatever other features there are: what is drawn by it stays when some
    /// are added.
    pub fn salt(self) -> u64 {
        let dictionary =
            2 * self.dictionary.layer as u64 + u64::from(self.dictionary.kind == Kind::Mlp);
        dictionary << 40 | self.index as u64
    }
}

impl fmt::Display for FeatureId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{}", self.dictionary, self.index)
    }
}

/// Names are serialised as they are written.
macro_rules! serialized_as_written {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

serialized_as_written!(DictionaryId, FeatureId, Component, Subject);

/// What a name that is not one is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    /// What was given.
    pub name: String,
    /// What should have been given, with an example or all values.
    pub wanted: &'static str,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`{}` is not {}", self.name, self.wanted)
    }
}

impl std::error::Error for BadName {}

/// A number as this program writes it: digits only, no sign, no leading zero.
fn plain_number(text: &str) -> Option<usize> {
    let number: usize = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl FromStr for DictionaryId {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let kinds = [Kind::Attention, Kind::Mlp].into_iter();
        let parse = |kind: Kind| {
            Some(DictionaryId { layer: plain_number(name.strip_prefix(kind.prefix())?)?, kind })
        };
        kinds.into_iter().find_map(parse).ok_or_else(|| BadName {
            name: name.into(),
            wanted: "a dictionary (such as `att9` or `mlp0`)",
        })
    }
}

impl FromStr for FeatureId {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let parse = || {
            let (dictionary, index) = name.split_once('.')?;
            Some(FeatureId { dictionary: dictionary.parse().ok()?, index: plain_number(index)? })
        };
        parse().ok_or_else(|| BadName {
            name: name.into(),
            wanted: "a feature (such as `att9.16109` or `mlp0.10173`)",
        })
    }
}

/// A component of the model: an attention head (`L9H9`) or a layer's MLP (`MLP3`). Ordered by
/// layer, heads first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// An attention head.
    Head {
        /// Its layer, from 0.
        layer: usize,
        /// Its number in the layer, from 0.
        head: usize,
    },
    /// A layer's MLP.
    Mlp {
        /// Its layer, from 0.
        layer: usize,
    },
}

impl Component {
    /// Every component of a model, in order.
    pub fn all(layers: usize, heads: usize) -> impl Iterator<Item = Component> {
        (0..layers).flat_map(move |layer| {
            (0..heads)
                .map(move |head| Component::Head { layer, head })
                .chain([Component::Mlp { layer }])
        })
    }

    /// Its layer, from 0.
    pub fn layer(self) -> usize {
        match self {
            Component::Head { layer, .. } | Component::Mlp { layer } => layer,
        }
    }

    /// Its number in the layer, from 0; none of an MLP.
    pub fn head(self) -> Option<usize> {
        match self {
            Component::Head { head, .. } => Some(head),
            Component::Mlp { .. } => None,
        }
    }

    /// The dictionary whose features serve at this component.
    pub fn dictionary(self) -> DictionaryId {
        let kind = if self.head().is_some() { Kind::Attention } else { Kind::Mlp };
        DictionaryId { layer: self.layer(), kind }
    }

    fn order(self) -> (usize, usize) {
        (self.layer(), self.head().unwrap_or(usize::MAX))
    }
}

impl PartialOrd for Component {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Component {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Component::Head { layer, head } => write!(f, "L{layer}H{head}"),
            Component::Mlp { layer } => write!(f, "MLP{layer}"),
        }
    }
}

impl FromStr for Component {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let parse = || {
            if let Some(layer) = name.strip_prefix("MLP") {
                return Some(Component::Mlp { layer: plain_number(layer)? });
            }
            let (layer, head) = name.strip_prefix('L')?.split_once('H')?;
            Some(Component::Head { layer: plain_number(layer)?, head: plain_number(head)? })
        };
        parse().ok_or_else(|| BadName {
            name: name.into(),
            wanted: "a component (such as `L9H9` or `MLP3`)",
        })
    }
}

/// What examples, promoted tokens and explanations are of; written as the name of its page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A dictionary feature.
    Feature(FeatureId),
    /// A head or an MLP, by the features that serve there.
    Component(Component),
    /// The one whose name is first in the alphabet first.
    Pair(FeatureId, FeatureId),
    /// By the name that settings give it.
    Group(String),
}

impl Subject {
    /// Two features, in whichever order.
    pub fn pair(a: FeatureId, b: FeatureId) -> Subject {
        let in_order = a.to_string() <= b.to_string();
        if in_order { Subject::Pair(a, b) } else { Subject::Pair(b, a) }
    }

    /// Its kind.
    pub fn kind(&self) -> SubjectKind {
        match self {
            Subject::Feature(_) => SubjectKind::Feature,
            Subject::Component(_) => SubjectKind::Component,
            Subject::Pair(..) => SubjectKind::Pair,
            Subject::Group(_) => SubjectKind::Group,
        }
    }

    /// The feature, if it is one.
    pub fn feature(&self) -> Option<FeatureId> {
        match self {
            Subject::Feature(feature) => Some(*feature),
            _ => None,
        }
    }
}

impl From<FeatureId> for Subject {
    fn from(feature: FeatureId) -> Subject {
        Subject::Feature(feature)
    }
}

impl From<Component> for Subject {
    fn from(component: Component) -> Subject {
        Subject::Component(component)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Subject::Feature(feature) => feature.fmt(f),
            Subject::Component(component) => component.fmt(f),
            Subject::Pair(a, b) => write!(f, "{a}+{b}"),
            Subject::Group(name) => f.write_str(name),
        }
    }
}

impl FromStr for Subject {
    type Err = BadName;

    /// What is no other name is that of a group; settings do not let groups be called otherwise.
    fn from_str(name: &str) -> Result<Self, BadName> {
        let pair = || {
            let (a, b) = name.split_once('+')?;
            Some(Subject::Pair(a.parse().ok()?, b.parse().ok()?))
        };
        let feature = name.parse().ok().map(Subject::Feature);
        let component = || name.parse().ok().map(Subject::Component);
        let other = feature.or_else(component).or_else(pair);
        Ok(other.unwrap_or_else(|| Subject::Group(name.into())))
    }
}

/// A repository of the hub at a revision, written `hf:REPO@REVISION` or
/// `hf:datasets/REPO@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubName {
    /// It holds data, not weights.
    pub(crate) dataset: bool,
    /// `gpt2` or `openai-community/gpt2`.
    pub repository: String,
    /// A branch, a tag, a commit, or a reference such as `refs/pr/1`.
    pub revision: String,
}

impl HubName {
    /// How settings begin that name one.
    pub(crate) const PREFIX: &str = "hf:";

    /// `openai-community/gpt2` or `datasets/Skylion007/openwebtext`.
    pub fn place(&self) -> String {
        format!("{}{}", if self.dataset { "datasets/" } else { "" }, self.repository)
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}@{}", Self::PREFIX, self.place(), self.revision)
    }
}

/// Whether a text is made of parts that can be names of folders, with `/` between them.
/// Repositories and revisions become paths of the cache and of URLs, so that only the characters
/// that the hub allows may be in them.
fn plain_parts(text: &str, most: usize) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
    text.len() <= 256 && text.split('/').count() <= most && text.split('/').all(part)
}

impl FromStr for HubName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let parse = || {
            let (place, revision) = name.strip_prefix(Self::PREFIX)?.split_once('@')?;
            let data = place.strip_prefix("datasets/");
            let repository = data.unwrap_or(place);
            let good = plain_parts(repository, 2)
                && !repository.contains("--")
                && plain_parts(revision, 16);
            good.then(|| HubName {
                dataset: data.is_some(),
                repository: repository.into(),
                revision: revision.into(),
            })
        };
        let wanted =
            "a repository of the hub with its revision (such as `hf:openai-community/gpt2@main`)";
        parse().ok_or_else(|| BadName { name: name.into(), wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nothing_else_parses() {
        for name in ["att9.16109", "mlp0.10173", "att0.0"] {
            assert_eq!(name.parse::<FeatureId>().unwrap().to_string(), name);
        }
        for name in ["L9H9", "MLP3", "L0H11"] {
            assert_eq!(name.parse::<Component>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "att",
            "att9",
            "att9.",
            "att09.1",
            "att9.-1",
            "res9.1",
            "mlp1.2.3",
            "../mlp1.2",
            "mlp+1.2",
        ] {
            assert!(name.parse::<FeatureId>().is_err(), "{name}");
        }
        for name in ["", "L9", "H9", "L9H", "mlp3", "MLP", "MLP03", "L1H2 "] {
            assert!(name.parse::<Component>().is_err(), "{name}");
        }
    }

    #[test]
    fn names_of_the_hub_are_safe_as_paths() {
        for name in [
            "hf:gpt2@main",
            "hf:a-b/c.d_e@refs/pr/1",
            "hf:datasets/x/y@0123456789abcdef",
            "hf:x/y@v1.0+b",
        ] {
            assert_eq!(name.parse::<HubName>().unwrap().to_string(), name);
        }
        let bad = [
            "hf:gpt2",
            "hf:gpt2@",
            "hf:@main",
            "gpt2@main",
            "hf:a/b/c@main",
            "hf:../x@main",
            "hf:x/y@../main",
        ];
        for name in bad.into_iter().chain([
            "hf:x/y@/main",
            "hf:x y@main",
            "hf:x/y@a//b",
            "hf:x/y@a?b",
            "hf:x--y@main",
        ]) {
            assert!(name.parse::<HubName>().is_err(), "{name}");
        }
    }

    #[test]
    fn components_come_in_the_order_the_model_computes_them() {
        let all: Vec<_> = Component::all(2, 2).map(|c| c.to_string()).collect();
        assert_eq!(all, ["L0H0", "L0H1", "MLP0", "L1H0", "L1H1", "MLP1"]);
        assert!(Component::all(2, 2).is_sorted());
    }
}
