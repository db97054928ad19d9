//! Texts that an earlier run has encoded: where the corpus grows, only new ones are encoded.

use crate::artifact::tables::EncodedRow;
use crate::artifact::{Row, Store};
use crate::corpus::{Content, RawDocument};
use crate::error::Result;
use crate::ids::hash_tokens;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// A hash of a text, and of what is before it in its document: that of a document's last part is of
/// the whole document.
pub(super) type TextKey = [u8; 16];

/// What is known of texts.
pub(crate) struct Texts {
    /// What the ids of a text depend on besides the text.
    base: String,
    /// What the run before had; none where there was none, or its ids are not those of now.
    before: Option<Encoded>,
    /// The texts of now, in order.
    now: Vec<Text>,
    /// The key of the last one.
    last: TextKey,
}

/// Texts of the run before.
#[derive(Default)]
struct Encoded {
    /// The ids of all of them.
    ids: Vec<u32>,
    texts: HashMap<TextKey, Range<usize>>,
    /// Documents that end with a text.
    documents: HashMap<TextKey, u32>,
}

/// A text, or a part of one.
struct Text {
    key: TextKey,
    /// Whether it had to be encoded, or would have had to be.
    encoded: bool,
    document: usize,
    /// Where its ids end in those of the document.
    end: usize,
}

impl Texts {
    /// Those of an artifact folder, if their ids depend on the same things as now.
    ///
    /// # Errors
    /// When the table is damaged.
    pub(crate) fn load(store: &Store, base: &str) -> Result<Texts> {
        let is_same = store.fingerprint(&EncodedRow::ARTIFACT).as_deref() == Some(base);
        let before = is_same.then(|| Encoded::read(store)).transpose()?;
        Ok(Texts { before, ..Texts::none(base) })
    }

    /// Where nothing is known.
    pub(crate) fn none(base: &str) -> Texts {
        Texts { base: base.into(), before: None, now: Vec::new(), last: [0; 16] }
    }

    /// The key of the next text.
    pub(super) fn key(&mut self, document: &RawDocument) -> TextKey {
        let mut hasher = blake3::Hasher::new();
        match document.begins {
            true => hasher.update(b"begins"),
            false => hasher.update(b"goes on").update(&self.last),
        };
        match &document.content {
            Content::Text(text) => hasher.update(b"text").update(text.as_bytes()),
            Content::Tokens(ids) => {
                hasher.update(b"ids");
                hash_tokens(&mut hasher, ids);
                &mut hasher
            }
        };
        self.last.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.last
    }

    /// The ids of a text, if the run before has encoded it.
    pub(super) fn ids(&self, document: &RawDocument, key: &TextKey) -> Option<&[u32]> {
        let before = self.before.as_ref()?;
        match document.content {
            Content::Text(_) => Some(&before.ids[before.texts.get(key)?.clone()]),
            // They are checked rather than encoded.
            Content::Tokens(_) => None,
        }
    }

    /// Adds a text of a document whose ids end there.
    pub(super) fn add(&mut self, key: TextKey, encoded: bool, document: usize, end: usize) {
        self.now.push(Text { key, encoded, document, end });
    }

    /// Keeps the texts of now, whose documents have these ids. How many documents are new, and how
    /// many are gone, if that can be told.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn keep(
        &self,
        store: &Store,
        documents: &[(String, Vec<u32>)],
    ) -> Result<Option<(usize, usize)>> {
        let mut all: BTreeMap<TextKey, (u32, &[u32])> = BTreeMap::new();
        for (i, text) in self.now.iter().enumerate() {
            let before = i.checked_sub(1).map(|i| &self.now[i]);
            let start = before.filter(|one| one.document == text.document).map_or(0, |one| one.end);
            let ids = if text.encoded { &documents[text.document].1[start..text.end] } else { &[] };
            let last = self.now.get(i + 1).is_none_or(|next| next.document != text.document);
            all.entry(text.key).or_insert((0, ids)).0 += u32::from(last);
        }
        let mut table = store.writer::<EncodedRow>(&self.base)?;
        table.add(all.iter().map(|(key, (documents, ids))| EncodedRow {
            text: format!("{:032x}", u128::from_be_bytes(*key)),
            documents: *documents,
            tokens: ids.to_vec(),
        }))?;
        table.end()?;
        let Some(before) = &self.before else { return Ok(None) };
        let was = |key: &TextKey| before.documents.get(key).copied().unwrap_or(0);
        let is = |key: &TextKey| all.get(key).map_or(0, |(documents, _)| *documents);
        let new: u32 = all.iter().map(|(key, (now, _))| now.saturating_sub(was(key))).sum();
        let gone: u32 = before.documents.keys().map(|key| was(key).saturating_sub(is(key))).sum();
        Ok(Some((new as usize, gone as usize)))
    }
}

impl Encoded {
    fn read(store: &Store) -> Result<Encoded> {
        let mut read = Encoded::default();
        store.each(|row: EncodedRow| {
            let Ok(key) = u128::from_str_radix(&row.text, 16).map(u128::to_be_bytes) else {
                return;
            };
            let start = read.ids.len();
            read.ids.extend(row.tokens);
            read.texts.insert(key, start..read.ids.len());
            read.documents.insert(key, row.documents);
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, begins: bool, ends: bool) -> RawDocument {
        let content = Content::Text(text.into());
        RawDocument { source: "a.txt".into(), content, begins, ends, replaced: 0 }
    }

    /// Takes documents, each text with the ids that it is given, or those that are known.
    fn taken(
        store: &Store,
        base: &str,
        texts: &[(RawDocument, &[u32])],
    ) -> (Vec<Vec<u32>>, Option<(usize, usize)>) {
        let mut all = Texts::load(store, base).unwrap();
        let mut documents: Vec<(String, Vec<u32>)> = Vec::new();
        for (document, ids) in texts {
            let key = all.key(document);
            let ids = all.ids(document, &key).unwrap_or(ids).to_vec();
            if document.begins {
                documents.push(("a.txt".into(), Vec::new()));
            }
            let number = documents.len() - 1;
            documents[number].1.extend(ids);
            let end = documents[number].1.len();
            all.add(key, matches!(document.content, Content::Text(_)), number, end);
        }
        let told = all.keep(store, &documents).unwrap();
        (documents.into_iter().map(|(_, ids)| ids).collect(), told)
    }

    #[test]
    fn only_new_texts_are_encoded_and_documents_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let one = || document("one", true, true);
        let long = || [document("long", true, false), document(" one", false, true)];
        let [begin, end] = long();
        let first = [(one(), &[1][..]), (begin, &[2, 3]), (end, &[4]), (one(), &[1])];
        let (ids, told) = taken(&store, "base", &first);
        assert_eq!((ids, told), (vec![vec![1], vec![2, 3, 4], vec![1]], None));

        // What is known is not asked for: 9 stands for what would be encoded.
        let [begin, end] = long();
        let again =
            [(begin, &[9][..]), (end, &[9]), (document("new", true, true), &[5]), (one(), &[9])];
        let (ids, told) = taken(&store, "base", &again);
        assert_eq!((ids, told), (vec![vec![2, 3, 4], vec![5], vec![1]], Some((1, 1))));

        // A text that goes on, or follows another one, is not the same document.
        let parts =
            [(document("long", true, false), &[9][..]), (document(" two", false, true), &[6])];
        let (ids, told) = taken(&store, "base", &parts);
        assert_eq!((ids, told), (vec![vec![2, 3, 6]], Some((1, 3))));
        let (ids, _) = taken(&store, "base", &[(document(" one", true, true), &[7])]);
        assert_eq!(ids, [vec![7]]);

        // Of another tokenizer nothing is known.
        let (ids, told) = taken(&store, "other", &[(document(" one", true, true), &[8])]);
        assert_eq!((ids, told), (vec![vec![8]], None));
    }

    #[test]
    fn documents_that_came_as_ids_are_counted_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let ids = |ids: &[u32]| RawDocument {
            content: Content::Tokens(ids.to_vec()),
            ..document("", true, true)
        };
        taken(&store, "base", &[(ids(&[1, 2]), &[1, 2])]);
        assert!(store.read::<EncodedRow>().unwrap().iter().all(|row| row.tokens.is_empty()));
        let (now, told) = taken(&store, "base", &[(ids(&[1, 2]), &[1, 2]), (ids(&[3]), &[3])]);
        assert_eq!((now, told), (vec![vec![1, 2], vec![3]], Some((1, 0))));
    }
}
