//! The fixed words of tables: each an enum that is written, read and serialised as its word.

use super::BadName;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Declares enums of words.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident ($wanted:literal) {
        $($(#[$about:meta])* $variant:ident = $word:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$about])* $variant,)*
        }

        impl $name {
            /// All of them, in their order.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The word in tables.
            pub fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(word: &str) -> Result<Self, BadName> {
                let found = Self::ALL.iter().copied().find(|one| one.word() == word);
                found.ok_or_else(|| BadName { name: word.into(), wanted: $wanted })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    )*};
}

words! {
    /// What a document's examples are for. No example crosses: an explanation is scored on
    /// documents that it has never seen.
    Half ("a half of the documents (`explain` or `score`)") {
        /// Explanations are made from its examples.
        Explain = "explain",
        /// Explanations are scored on its examples.
        Score = "score",
    }

    /// What an example is shown for to those who explain.
    Shown ("a role (`strongest`, `weaker`, `active` or `inactive`)") {
        /// One of the strongest.
        Strongest = "strongest",
        /// One of the others, of all strengths.
        Weaker = "weaker",
        /// The active text of a contrast pair.
        Active = "active",
        /// The inactive text of a contrast pair.
        Inactive = "inactive",
    }

    /// What a token before says of a feature's activity.
    Beside ("a set of tokens before (`more`, `less` or `deciding`)") {
        /// With it the feature is more often active.
        More = "more",
        /// With it it is less often active.
        Less = "less",
        /// It stands at a distance that tells most.
        Deciding = "deciding",
    }

    /// By what the tokens of a profile are counted.
    Profiled ("what a profile is by (`token`, `previous`, `text` or `sentence`)") {
        /// The token itself.
        Token = "token",
        /// The token before it.
        Previous = "previous",
        /// The token after.
        Next = "next",
        /// Its position in the text.
        Text = "text",
        /// Its position in the sentence.
        Sentence = "sentence",
    }

    /// Which end of the vocabulary a token is at: the most promoted, or the most suppressed ones.
    Side ("a side of the vocabulary (`top` or `bottom`)") {
        /// The most promoted tokens.
        Top = "top",
        /// The most suppressed tokens.
        Bottom = "bottom",
    }

    /// How a question to a language model ended.
    Status ("the status of a question (`ok`, `failed`, `refused` or `left`)") {
        /// There is a reply, and it could be read.
        Ok = "ok",
        /// There is a reply and it cannot be read, or the server will never take the question.
        Failed = "failed",
        /// The model or the server's filter would not answer.
        Refused = "refused",
        /// No reply was to be had: the next run asks again.
        Left = "left",
    }

    /// What an explanation is of.
    SubjectKind ("a kind of subject (`feature`, `component`, `pair` or `group`)") {
        /// A dictionary feature.
        Feature = "feature",
        /// A head or an MLP.
        Component = "component",
        /// Two features that serve in the same circuits.
        Pair = "pair",
        /// Features that the settings list as a group.
        Group = "group",
    }

    /// At which distance two features are counted together in the corpus.
    Lag ("a lag (`same` or `window`)") {
        /// At the same token.
        Same = "same",
        /// The first within the window of tokens before the second.
        Window = "window",
    }

    /// Where a contributor enters a receiver.
    Slot ("a slot (`q`, `k`, `v` or empty)") {
        /// The only input of anything but a head.
        In = "",
        /// A head's query.
        Q = "q",
        /// A head's key.
        K = "k",
        /// A head's value.
        V = "v",
    }
}

impl Slot {
    /// Whether influence passes on through this slot. What enters a query or key acts on an
    /// attention score, which influence holds fixed.
    pub(crate) fn passes_influence(self) -> bool {
        matches!(self, Slot::In | Slot::V)
    }
}

/// The examples that a text is one of. Tenths are of the active contexts by their strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Band {
    /// The strongest.
    Top,
    /// 0, the weakest, to 9.
    Tenth(u8),
    /// Contexts in which the feature is inactive.
    Inactive,
    /// Of a judge's inactive texts: those that hold the feature's own token.
    Token,
    /// Texts of a similar feature.
    Similar,
}

impl Band {
    /// The bands with active examples, the strongest first.
    pub const ACTIVE: [Band; 11] = {
        let mut bands = [Band::Top; 11];
        let mut i = 1;
        while i < 11 {
            bands[i] = Band::Tenth(10 - i as u8);
            i += 1;
        }
        bands
    };
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Band::Top => f.write_str("top"),
            Band::Tenth(tenth) => write!(f, "q{tenth}"),
            Band::Inactive => f.write_str("inactive"),
            Band::Token => f.write_str("token"),
            Band::Similar => f.write_str("similar"),
        }
    }
}

impl FromStr for Band {
    type Err = BadName;

    fn from_str(word: &str) -> Result<Self, BadName> {
        let all = Band::ACTIVE.into_iter().chain([Band::Inactive, Band::Token, Band::Similar]);
        all.into_iter().find(|band| band.to_string() == word).ok_or_else(|| BadName {
            name: word.into(),
            wanted: "a band of examples (`top`, `q0` … `q9`, `inactive`, `token` or `similar`)",
        })
    }
}

impl Serialize for Band {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written_and_nothing_else_is() {
        for band in Band::ACTIVE.into_iter().chain([Band::Inactive, Band::Token, Band::Similar]) {
            assert_eq!(band.to_string().parse(), Ok(band));
        }
        assert_eq!(
            "q10".parse::<Band>().unwrap_err().to_string().split(" is").next(),
            Some("`q10`")
        );
        assert_eq!(Slot::ALL.iter().map(|slot| slot.word()).collect::<String>(), "qkv");
        assert_eq!("left".parse(), Ok(Status::Left));
        assert!("Left".parse::<Status>().is_err());
    }
}
