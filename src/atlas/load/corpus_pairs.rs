//! Pairs of features in the corpus. There may be millions: of each feature the closest ones are
//! kept, and of two features that are looked at together what is said of them.

use crate::artifact::tables::CorpusPairRow;
use crate::ids::{FeatureId, Lag};
use std::collections::BTreeMap;

/// Those of a feature that are kept, at each lag.
const CLOSEST: usize = 10;

/// Pairs in the corpus, read row by row.
#[derive(Default)]
pub(super) struct CorpusPairs {
    of: BTreeMap<FeatureId, Own>,
    /// By both features, the smaller one first.
    between: BTreeMap<[FeatureId; 2], Vec<CorpusPairRow>>,
}

/// Those of a feature.
#[derive(Default)]
struct Own {
    total: u64,
    /// By lag; of equals the first one that was read is first.
    closest: BTreeMap<Lag, Vec<CorpusPairRow>>,
}

impl CorpusPairs {
    /// Adds a row; `together` says whether the two are looked at together.
    pub(super) fn add(&mut self, row: CorpusPairRow, together: bool) {
        for feature in [row.feature_a, row.feature_b] {
            self.of.entry(feature).or_default().add(&row);
        }
        if together {
            let key = both(row.feature_a, row.feature_b);
            self.between.entry(key).or_default().push(row);
        }
    }

    /// How many a feature has.
    pub(super) fn total(&self, feature: FeatureId) -> u64 {
        self.of.get(&feature).map_or(0, |own| own.total)
    }

    /// The closest ones of a feature, at each lag.
    pub(super) fn closest(&self, feature: FeatureId) -> Vec<CorpusPairRow> {
        let Some(own) = self.of.get(&feature) else { return Vec::new() };
        let at = |lag: &Lag| own.closest.get(lag).map(|rows| closest(rows.clone()));
        Lag::ALL.iter().filter_map(at).flatten().collect()
    }

    /// What is said of two features that are looked at together.
    pub(super) fn between(&self, a: FeatureId, b: FeatureId) -> &[CorpusPairRow] {
        self.between.get(&both(a, b)).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Own {
    fn add(&mut self, row: &CorpusPairRow) {
        self.total += 1;
        let rows = self.closest.entry(row.lag).or_default();
        rows.push(row.clone());
        if rows.len() > 4 * CLOSEST {
            *rows = closest(std::mem::take(rows));
        }
    }
}

fn both(a: FeatureId, b: FeatureId) -> [FeatureId; 2] {
    [a.min(b), a.max(b)]
}

fn closest(mut rows: Vec<CorpusPairRow>) -> Vec<CorpusPairRow> {
    rows.sort_by(|a, b| b.npmi.total_cmp(&a.npmi).then(a.q.total_cmp(&b.q)));
    rows.truncate(CLOSEST);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::mix;

    #[test]
    fn the_closest_are_those_of_all_rows() {
        let feature = |i: u64| format!("mlp0.{i}").parse::<FeatureId>().unwrap();
        let row = |i: u64| CorpusPairRow {
            feature_a: feature(mix(1, i) % 3),
            feature_b: feature(3 + i),
            lag: if i.is_multiple_of(3) { Lag::Same } else { Lag::Window },
            n_a: i,
            n_b: 1,
            n_ab: 1,
            expected: 1.0,
            lift: 1.0,
            // Many are equal.
            npmi: (mix(2, i) % 20) as f64,
            jaccard: 0.0,
            phi: None,
            p: 0.0,
            q: (mix(3, i) % 2) as f64,
        };
        let rows: Vec<CorpusPairRow> = (0..500).map(row).collect();
        let mut pairs = CorpusPairs::default();
        rows.iter().for_each(|row| pairs.add(row.clone(), row.n_a == 7));
        for i in 0..3 {
            let own = || rows.iter().filter(|row| row.feature_a == feature(i)).cloned();
            assert_eq!(pairs.total(feature(i)), own().count() as u64);
            let at = |lag: &Lag| {
                let mut own: Vec<CorpusPairRow> = own().filter(|row| row.lag == *lag).collect();
                own.sort_by(|a, b| b.npmi.total_cmp(&a.npmi).then(a.q.total_cmp(&b.q)));
                own.into_iter().take(CLOSEST).collect::<Vec<_>>()
            };
            assert_eq!(pairs.closest(feature(i)), Lag::ALL.iter().flat_map(at).collect::<Vec<_>>());
        }
        let seventh = &rows[7];
        let between = pairs.between(seventh.feature_b, seventh.feature_a);
        assert_eq!(between, std::slice::from_ref(seventh));
        assert!(pairs.between(rows[8].feature_a, rows[8].feature_b).is_empty());
    }
}
