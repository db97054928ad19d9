//! The scores, read some features or some contexts at a time: they are larger than memory may be.

use super::activations::activation;
use crate::artifact::tables::ScoreRow;
use crate::artifact::{Row, Store};
use crate::error::{Result, hinted};
use crate::inputs::Contexts;
use crate::stats::blocks;
use crate::stats::feature::TokenActivation;
use std::ops::Range;

/// The scores of a run.
pub(crate) struct Scores<'a> {
    store: &'a Store,
    parts: Vec<ScorePart>,
}

/// A part: the scores of some contexts, by feature, context and position.
pub(crate) struct ScorePart {
    number: u32,
    /// By key: the feature's first row; behind the last key the number of rows.
    first: Vec<u32>,
}

/// Rows between those of two features that are read rather than passed over: a stretch of a file is
/// read at once anyway.
const GAP: usize = 1 << 16;

impl<'a> Scores<'a> {
    /// Counts the rows of each of so many features.
    ///
    /// # Errors
    /// When the scores hold another feature, or are not in order.
    pub(crate) fn open(store: &'a Store, features: usize) -> Result<Scores<'a>> {
        let part = |number: u32| ScorePart::open(store, number, features);
        let parts = store.parts(&ScoreRow::ARTIFACT)?.into_iter().map(part);
        Ok(Scores { store, parts: parts.collect::<Result<_>>()? })
    }

    /// Rows of a feature.
    pub(crate) fn rows(&self, key: u32) -> usize {
        self.parts.iter().map(|part| part.rows(key).len()).sum()
    }

    /// Features in a row of which all rows take so many bytes at most, or single ones that take
    /// more: ranges of places among `keys`, which are in order.
    pub(crate) fn blocks(&self, keys: &[u32], bytes: usize) -> Vec<Range<usize>> {
        let most = bytes / size_of::<TokenActivation>();
        blocks(keys.iter().map(|&key| self.rows(key) as f64), most as f64)
    }

    /// All activations of some features, whose keys are in order.
    pub(crate) fn of(&self, keys: &[u32]) -> Result<Block> {
        let mut first = vec![0];
        keys.iter().for_each(|&key| first.push(first[first.len() - 1] + self.rows(key)));
        let none = TokenActivation { context: 0, position: 0, activation: 0.0 };
        let mut activations = vec![none; first[keys.len()]];
        // Each part is of later contexts than the one before.
        let mut next = first[..keys.len()].to_vec();
        for part in &self.parts {
            part.each(self.store, keys, |place, row| {
                activations[next[place]] = activation(&row);
                next[place] += 1;
            })?;
        }
        Ok(Block { first, activations })
    }

    /// The activations of some features, whose keys are in order, in stretches of contexts: at once
    /// about so many bytes of them, and at least those of a context. `each` gets the contexts and,
    /// by place among the keys, the activations in them.
    pub(crate) fn stretches(
        &self,
        contexts: &Contexts,
        keys: &[u32],
        bytes: usize,
        mut each: impl FnMut(Range<u32>, &Block) -> Result<()>,
    ) -> Result<()> {
        for (part, own) in self.parts.iter().zip(&contexts.parts) {
            let rows: usize = keys.iter().map(|&key| part.rows(key).len()).sum();
            let pieces = (rows * size_of::<TokenActivation>()).div_ceil(bytes.max(1));
            let length = own.len().div_ceil(pieces.max(1)).max(1) as u32;
            for start in own.clone().step_by(length as usize) {
                let wanted = start..own.end.min(start + length);
                let block = part.block(self.store, keys, &wanted)?;
                each(wanted, &block)?;
            }
        }
        Ok(())
    }
}

impl ScorePart {
    /// Counts the rows of each of so many features.
    ///
    /// # Errors
    /// When it holds another feature, or its rows are not in order.
    pub(crate) fn open(store: &Store, number: u32, features: usize) -> Result<ScorePart> {
        let again = "rerun with `circuit-atlas run score --force`";
        let (mut first, mut rows) = (vec![0], 0);
        store.each_number(&ScoreRow::ARTIFACT, number, "feature", |key| {
            let key = key as usize;
            if key >= features {
                let what =
                    format!("the scores hold a feature of key {key}, but {features} are scored");
                return Err(hinted(what, again));
            }
            if key + 1 < first.len() {
                return Err(hinted("the scores are not in the order of features", again));
            }
            first.resize(key + 1, rows);
            rows += 1;
            Ok(())
        })?;
        first.resize(features + 1, rows);
        Ok(ScorePart { number, first })
    }

    /// The rows of a feature.
    pub(crate) fn rows(&self, key: u32) -> Range<usize> {
        self.first[key as usize] as usize..self.first[key as usize + 1] as usize
    }

    /// Gives the rows of some features, whose keys are in order, each with its place among them.
    ///
    /// # Errors
    /// When the part cannot be read.
    pub(crate) fn each(
        &self,
        store: &Store,
        keys: &[u32],
        mut each: impl FnMut(usize, ScoreRow),
    ) -> Result<()> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for rows in keys.iter().map(|&key| self.rows(key)).filter(|rows| !rows.is_empty()) {
            match runs.last_mut().filter(|run| rows.start <= run.end + GAP) {
                Some(run) => run.end = rows.end,
                None => runs.push(rows),
            }
        }
        let mut place = 0;
        for run in runs {
            store.each_row(self.number, run, |row: ScoreRow| {
                while keys.get(place).is_some_and(|key| *key < row.feature) {
                    place += 1;
                }
                if keys.get(place) == Some(&row.feature) {
                    each(place, row);
                }
            })?;
        }
        Ok(())
    }

    /// The activations of some features in some of its contexts.
    fn block(&self, store: &Store, keys: &[u32], contexts: &Range<u32>) -> Result<Block> {
        let (mut first, mut activations) = (vec![0], Vec::new());
        self.each(store, keys, |place, row| {
            if contexts.contains(&row.context) {
                first.resize(place + 1, activations.len());
                activations.push(activation(&row));
            }
        })?;
        first.resize(keys.len() + 1, activations.len());
        Ok(Block { first, activations })
    }
}

/// The activations of some features, each by context and position.
pub(crate) struct Block {
    /// By place: where its activations begin, and behind the last one where they end.
    first: Vec<usize>,
    activations: Vec<TokenActivation>,
}

impl Block {
    /// Those of a feature, by its place among the keys.
    pub(crate) fn at(&self, place: usize) -> &[TokenActivation] {
        &self.activations[self.first[place]..self.first[place + 1]]
    }

    /// Features.
    pub(crate) fn len(&self) -> usize {
        self.first.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Origin;
    use crate::stats::mix;

    const FEATURES: u32 = 9;

    /// Two parts, of which the first is larger than what is read at once; one feature is active
    /// nowhere.
    fn written(store: &Store) -> Vec<ScoreRow> {
        let mut all = Vec::new();
        for (part, contexts) in [0..900, 900..1000].into_iter().enumerate() {
            let mut rows: Vec<ScoreRow> = Vec::new();
            for feature in (0..FEATURES).filter(|feature| *feature != 3) {
                for context in contexts.clone() {
                    let of = u64::from(context * FEATURES + feature);
                    let active = (0..40).filter(|p| mix(of, *p).is_multiple_of(2));
                    rows.extend(active.map(|position| ScoreRow {
                        feature,
                        context,
                        position: position as u16,
                        activation: 1.0 + position as f32,
                    }));
                }
            }
            let origin = Origin {
                base: "base".into(),
                of: "of".into(),
                first: contexts.start,
                contexts: Vec::new(),
            };
            let mut table = store.part_writer_of("made", &origin, part as u32).unwrap();
            table.add(rows.iter().cloned()).unwrap();
            table.end().unwrap();
            assert!(store.read_part::<ScoreRow>(part as u32).unwrap() == rows);
            all.extend(rows);
        }
        all
    }

    #[test]
    fn some_features_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let all = written(&store);
        let scores = Scores::open(&store, FEATURES as usize).unwrap();
        let of = |key: u32| -> Vec<TokenActivation> {
            all.iter().filter(|row| row.feature == key).map(activation).collect()
        };
        for keys in [vec![0, 1, 2, 3, 4, 5, 6, 7, 8], vec![0, 8], vec![3], vec![5, 6], vec![]] {
            let block = scores.of(&keys).unwrap();
            assert_eq!(block.len(), keys.len());
            for (place, &key) in keys.iter().enumerate() {
                assert!(block.at(place) == of(key), "{key} of {keys:?}");
                assert_eq!(scores.rows(key), of(key).len());
            }
        }
        let error = Scores::open(&store, 8).err().unwrap().to_string();
        assert_eq!(error, "the scores hold a feature of key 8, but 8 are scored");
    }

    #[test]
    fn blocks_hold_every_feature_once_and_no_more_than_they_may() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let all = written(&store);
        let scores = Scores::open(&store, FEATURES as usize).unwrap();
        let keys = [0, 2, 3, 4, 7, 8];
        let row = size_of::<TokenActivation>();
        for bytes in [0, row * 30_000, row * 50_000, row * all.len()] {
            let blocks = scores.blocks(&keys, bytes);
            assert!(blocks.iter().cloned().flatten().eq(0..keys.len()), "{blocks:?}");
            for block in &blocks {
                let rows: usize = keys[block.clone()].iter().map(|key| scores.rows(*key)).sum();
                assert!(block.len() == 1 || rows * row <= bytes, "{block:?} of {bytes} bytes");
            }
        }
        assert_eq!(scores.blocks(&keys, row * all.len()).len(), 1);
        assert!(scores.blocks(&keys, 0).len() >= 5);
    }
}
