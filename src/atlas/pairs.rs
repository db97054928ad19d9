//! Which pairs of features are looked at more closely: the strongest of each task's circuits.

use crate::artifact::tables::CircuitPairRow;
use crate::ids::Subject;
use std::collections::BTreeMap;

/// Pairs of each task that get examples, promoted tokens and a page.
const STRONGEST: usize = 40;

/// The strongest pairs of each task, by the share of direct links between them at the two
/// components where that is largest, then by prompts. Shares at several heads are not added up: a
/// link from an attention feature counts at every head that serves it.
pub(crate) fn strongest(pairs: &[CircuitPairRow]) -> BTreeMap<String, Vec<Subject>> {
    let mut strength: BTreeMap<&str, BTreeMap<String, (Subject, f64, u32)>> = BTreeMap::new();
    for row in pairs.iter().filter(|row| row.feature_a != row.feature_b) {
        let pair = Subject::pair(row.feature_a, row.feature_b);
        let own = strength.entry(&row.task).or_default();
        let so_far = own.entry(pair.to_string()).or_insert((pair, 0.0, 0));
        so_far.1 = so_far.1.max(row.share);
        so_far.2 = so_far.2.max(row.prompts);
    }
    let best = |pairs: BTreeMap<String, (Subject, f64, u32)>| {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs
            .sort_by(|(a, (_, s, n)), (b, (_, t, m))| t.total_cmp(s).then(m.cmp(n)).then(a.cmp(b)));
        pairs.into_iter().take(STRONGEST).map(|(_, (pair, ..))| pair).collect()
    };
    strength.into_iter().map(|(task, pairs)| (task.to_string(), best(pairs))).collect()
}
