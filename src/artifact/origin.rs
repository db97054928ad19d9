//! What a part of a table that grows with the corpus says of itself, so that a later run can take rows
//! of it over when the tables that it was made from are there no more.

use crate::ids::hash_tokens;
use std::collections::BTreeMap;
use std::ops::Range;

/// What it was made from, whichever features and contexts were wanted.
const BASE: &str = "circuit-atlas.base";
/// The features or hooks that it has.
const OF: &str = "circuit-atlas.of";
/// The number of its first context, and the key of each of its contexts.
const CONTEXTS: &str = "circuit-atlas.contexts";

/// A hash of the token ids of a context: the same for the same ids, wherever in a corpus they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ContextKey(u128);

/// Hex digits of a key.
const DIGITS: usize = 32;

impl ContextKey {
    pub(crate) fn of(tokens: &[u32]) -> ContextKey {
        let mut hasher = blake3::Hasher::new();
        hash_tokens(&mut hasher, tokens);
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ContextKey(u128::from_be_bytes(first))
    }
}

/// What a part was made from and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// A hash of everything that its numbers depend on but which features and contexts were wanted.
    pub base: String,
    /// The features or hooks that it has, in order, in words.
    pub of: String,
    /// The number of its first context.
    pub first: u32,
    /// Its contexts, in order.
    pub contexts: Vec<ContextKey>,
}

impl Origin {
    /// The numbers of its contexts.
    pub(crate) fn numbers(&self) -> Range<u32> {
        self.first..self.first + self.contexts.len() as u32
    }

    /// Whether it is a part of the same contexts in the same places.
    pub(crate) fn has_contexts_of(&self, other: &Origin) -> bool {
        self.first == other.first && self.contexts == other.contexts
    }

    /// As key-value metadata.
    pub(super) fn pairs(&self) -> [(&'static str, String); 3] {
        let mut contexts = format!("{} ", self.first);
        contexts.extend(self.contexts.iter().map(|key| format!("{:0DIGITS$x}", key.0)));
        [(CONTEXTS, contexts), (OF, self.of.clone()), (BASE, self.base.clone())]
    }

    /// From key-value metadata.
    pub(super) fn read(said: &BTreeMap<String, String>) -> Option<Origin> {
        let (first, keys) = said.get(CONTEXTS)?.split_once(' ')?;
        let key = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some(ContextKey(u128::from_str_radix(digits, 16).ok()?))
        };
        let (keys, rest) = keys.as_bytes().as_chunks::<DIGITS>();
        Some(Origin {
            base: said.get(BASE)?.clone(),
            of: said.get(OF)?.clone(),
            first: first.parse().ok()?,
            contexts: keys
                .iter()
                .map(|digits| key(digits))
                .collect::<Option<_>>()
                .filter(|_| rest.is_empty())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_part_says_is_read_as_it_was_written() {
        let contexts = [&[1, 2, 3][..], &[1, 2], &[]].map(ContextKey::of).to_vec();
        let origin =
            Origin { base: "0a".into(), of: "att3.5-7 mlp0.1".into(), first: 24, contexts };
        let said = |origin: &Origin| -> BTreeMap<String, String> {
            origin.pairs().into_iter().map(|(key, value)| (key.to_string(), value)).collect()
        };
        assert_eq!(Origin::read(&said(&origin)), Some(origin.clone()));
        let none = Origin { contexts: Vec::new(), ..origin.clone() };
        assert_eq!(Origin::read(&said(&none)), Some(none));
        let mut cut = said(&origin);
        cut.get_mut(CONTEXTS).unwrap().pop();
        assert_eq!(Origin::read(&cut), None);
        cut.remove(CONTEXTS);
        assert_eq!(Origin::read(&cut), None);
    }

    #[test]
    fn only_the_same_ids_have_the_same_key() {
        let key = ContextKey::of(&[50256, 7, 8]);
        assert_eq!(key, ContextKey::of(&[50256, 7, 8]));
        for other in [&[50256, 7, 8, 9][..], &[50256, 8, 7], &[50256, 7], &[7, 8]] {
            assert_ne!(key, ContextKey::of(other));
        }
    }
}
