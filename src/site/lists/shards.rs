//! The index of words in files that a script loads when it needs one: words that begin alike are
//! in one file, and what begins with a few letters is found without reading all that does.

use super::sets::encode;
use super::words::{FIELDS, Index};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Bytes of a file of words at most, unless one word alone is more.
const LARGEST: usize = 32 << 10;

/// What is found by one word: rows of each field as [`encode`] writes them.
type Found = [Vec<u32>; FIELDS];

/// The files of words, and which file has what begins with which letters.
#[derive(Default)]
pub(super) struct Shards {
    /// Beginnings with the number of their file.
    pub files: BTreeMap<String, usize>,
    /// Of each file: the words of several beginnings, or one beginning of more words than a file
    /// has.
    pub contents: Vec<Value>,
}

/// A word with what is written of it, and how long that is.
struct Entry<'a> {
    word: &'a str,
    found: &'a Found,
    text: Value,
    bytes: usize,
}

/// `[word, set, …]`, without the empty sets at the end.
fn entry(word: &str, found: &Found) -> Value {
    let mut sets: Vec<Value> = found.iter().map(|rows| encode(rows).into()).collect();
    while sets.last().is_some_and(|set| set == "") {
        sets.pop();
    }
    sets.insert(0, word.into());
    sets.into()
}

impl<'a> Entry<'a> {
    fn new(word: &'a str, found: &'a Found) -> Entry<'a> {
        let text = entry(word, found);
        Entry { word, found, bytes: text.to_string().len() + 1, text }
    }
}

impl Shards {
    pub(super) fn new(index: &Index) -> Shards {
        let entries: Vec<Entry> =
            index.iter().map(|(word, found)| Entry::new(word, found)).collect();
        let mut shards = Shards::default();
        shards.divide(&entries, "");
        shards
    }

    /// Words that begin with `start`, in order, into files.
    fn divide(&mut self, words: &[Entry], start: &str) {
        let letter = |word: &str| word[start.len()..].chars().next();
        // Beginnings of one letter more that are small enough share a file.
        let mut open: Vec<(String, &[Entry])> = Vec::new();
        let mut bytes = 0;
        for group in words.chunk_by(|a, b| letter(a.word) == letter(b.word)) {
            let Some(next) = letter(group[0].word) else { continue };
            let longer = format!("{start}{next}");
            let own: usize = group.iter().map(|entry| entry.bytes).sum();
            if own > LARGEST && group.len() > 1 {
                self.add_common(group, &longer);
                self.divide(group, &longer);
                continue;
            }
            if bytes + own > LARGEST {
                self.add_words(std::mem::take(&mut open));
                bytes = 0;
            }
            open.push((longer, group));
            bytes += own;
        }
        self.add_words(open);
    }

    fn add_words(&mut self, groups: Vec<(String, &[Entry])>) {
        if groups.is_empty() {
            return;
        }
        let words = groups.iter().flat_map(|(_, words)| words.iter().map(|word| &word.text));
        let words: Vec<&Value> = words.collect();
        self.contents.push(json!({ "words": words }));
        let file = self.contents.len() - 1;
        self.files.extend(groups.into_iter().map(|(start, _)| (start, file)));
    }

    /// What any word that begins so finds, and the word that is no longer.
    fn add_common(&mut self, words: &[Entry], start: &str) {
        let mut first = BTreeMap::new();
        for entry in words {
            for (field, rows) in entry.found.iter().enumerate() {
                for row in rows {
                    let known = first.entry(*row).or_insert(field);
                    *known = field.min(*known);
                }
            }
        }
        let mut all = Found::default();
        first.into_iter().for_each(|(row, field)| all[field].push(row));
        let exact: Vec<&Value> =
            words.iter().filter(|entry| entry.word == start).map(|entry| &entry.text).collect();
        self.contents.push(json!({ "all": entry(start, &all), "words": exact }));
        self.files.insert(start.into(), self.contents.len() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sets::decode;
    use super::*;
    use std::collections::BTreeSet;

    /// What the script does: rows of the words that begin so.
    fn found(shards: &Shards, start: &str) -> BTreeSet<u32> {
        let rows = |entry: &Value| -> Vec<u32> {
            let sets = entry.as_array().unwrap()[1..].iter();
            sets.flat_map(|set| decode(set.as_str().unwrap())).collect()
        };
        let known =
            (1..=start.len()).rev().find_map(|length| shards.files.get(start.get(..length)?));
        let Some(content) = known.map(|file| &shards.contents[*file]) else {
            return BTreeSet::new();
        };
        match content.get("all") {
            Some(all) if all[0] == start => rows(all).into_iter().collect(),
            Some(_) => BTreeSet::new(),
            None => {
                let words = content["words"].as_array().unwrap().iter();
                let begins = |entry: &&Value| entry[0].as_str().unwrap().starts_with(start);
                words.filter(begins).flat_map(rows).collect()
            }
        }
    }

    /// Every beginning finds what it finds without files, and no file is large.
    #[test]
    fn beginnings_find_the_same_in_files() {
        let mut index = Index::new();
        for i in 0..40_000u32 {
            let word =
                format!("{}{}", ["jan", "ja", "näh", "x", "東"][i as usize % 5], i * 7919 % 9973);
            index.entry(word).or_default()[i as usize % FIELDS].push(i);
        }
        index.entry("ja".into()).or_default()[0].push(7);
        let shards = Shards::new(&index);
        assert!(shards.contents.len() > 20);
        let largest = shards.contents.iter().map(|c| c.to_string().len()).max().unwrap();
        assert!(largest <= LARGEST + 100, "{largest}");
        for start in
            ["j", "ja", "jan", "jan1", "jan12", "nä", "näh999", "x0", "東", "東1", "q", "jb"]
        {
            let words = index.iter().filter(|(word, _)| word.starts_with(start));
            let all: BTreeSet<u32> =
                words.flat_map(|(_, found)| found.iter().flatten().copied()).collect();
            assert_eq!(found(&shards, start), all, "{start}");
        }
    }
}
