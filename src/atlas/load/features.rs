//! Features, pairs and groups.

use super::Reader;
use crate::artifact::tables::{CircuitPairRow, CorpusPairRow, FeatureRow};
use crate::atlas::model::{CircuitPair, CorpusPair, Feature, Group, Pair};
use crate::config;
use crate::error::Result;
use crate::ids::{Band, FeatureId, Subject};

/// Circuit pairs on a feature's page.
const FEATURE_PAIRS: usize = 10;

impl Reader<'_> {
    /// A scored feature.
    pub(crate) fn feature(&self, row: &FeatureRow) -> Result<Feature> {
        let subject = Subject::from(row.feature);
        let serving = self.serving(row.feature)?.iter();
        let circuit_pairs = self.feature_circuit_pairs(row.feature)?;
        let shown = circuit_pairs.iter().take(FEATURE_PAIRS);
        let [promoted, suppressed] = self.promoted(&subject)?;
        let tokenizer = self.tokenizer()?;
        let mass = row.mass_tokens.iter().zip(&row.mass_shares);
        Ok(Feature {
            id: row.feature,
            active: row.active,
            density: row.density,
            mean_active: row.mean_active.unwrap_or(0.0),
            max: row.max,
            special_active: row.special_active,
            histogram: row.histogram.clone(),
            mass: mass.map(|(id, share)| (tokenizer.token(*id), *share)).collect(),
            promoted,
            suppressed,
            servings: serving.map(|row| self.served(row)).collect::<Result<_>>()?,
            examples: self.examples(&subject, &ALL_BANDS)?,
            corpus_pairs: self.feature_pairs(row.feature)?,
            corpus_total: self.corpus_pairs()?.total(row.feature),
            circuit_pairs: shown.map(|pair| (pair.task.clone(), circuit_pair(pair))).collect(),
            circuit_total: circuit_pairs.len() as u64,
            explanation: self.explanation(&subject)?,
            asked: self.transcript(&subject)?,
            imported: self.imported(row.feature)?,
            evaluations: self.evaluations(row.feature)?,
            agreements: self.agreements(row.feature)?,
            misjudged: self.misjudged(row.feature)?,
            causal: self.steering(row.feature)?,
            why: self.why(row.feature)?,
            similar: self.similar(row.feature)?,
        })
    }

    /// The closest of those that meet it, at each lag.
    fn feature_pairs(&self, feature: FeatureId) -> Result<Vec<CorpusPair>> {
        let closest = self.corpus_pairs()?.closest(feature);
        Ok(closest.iter().map(|row| corpus_pair(row, feature)).collect())
    }

    /// Those with a direct link between the two, the largest share first.
    fn feature_circuit_pairs(&self, feature: FeatureId) -> Result<Vec<&CircuitPairRow>> {
        let mut rows = self.pair_rows_of(feature)?;
        rows.retain(|row| row.share > 0.0);
        Ok(rows)
    }

    /// Two features looked at together.
    pub(super) fn pair(&self, a: FeatureId, b: FeatureId) -> Result<Pair> {
        let subject = Subject::pair(a, b);
        let [promoted, suppressed] = self.promoted(&subject)?;
        let both = |of: [FeatureId; 2]| of.contains(&a) && of.contains(&b);
        let circuit = self.pair_rows_of(a)?;
        let circuit = circuit.iter().filter(|row| both([row.feature_a, row.feature_b]));
        Ok(Pair {
            a,
            b,
            circuit: circuit.map(|row| (row.task.clone(), circuit_pair(row))).collect(),
            corpus: self.cooccurrence(a, b)?,
            promoted,
            suppressed,
            examples: self.examples(&subject, &[Band::Top])?,
            explanation: self.explanation(&subject)?,
            asked: self.transcript(&subject)?,
        })
    }

    pub(super) fn group(&self, group: &config::Group) -> Result<Group> {
        let subject = Subject::Group(group.name.clone());
        let [promoted, suppressed] = self.promoted(&subject)?;
        Ok(Group {
            name: group.name.clone(),
            features: group
                .features
                .iter()
                .map(|name| Ok(name.parse::<FeatureId>()?))
                .collect::<Result<_>>()?,
            promoted,
            suppressed,
            examples: self.examples(&subject, &[Band::Top])?,
            explanation: self.explanation(&subject)?,
            asked: self.transcript(&subject)?,
        })
    }

    /// Every pair of features in circuits with its task, the largest share first.
    pub(crate) fn circuit_pairs(&self) -> Result<impl Iterator<Item = (&str, CircuitPair)>> {
        Ok(self.pair_rows()?.iter().map(|row| (row.task.as_str(), circuit_pair(row))))
    }

    /// How two features that are looked at together co-occur in the corpus, where significantly, as
    /// seen from the first.
    pub(crate) fn cooccurrence(&self, a: FeatureId, b: FeatureId) -> Result<Vec<CorpusPair>> {
        let rows = self.corpus_pairs()?.between(a, b).iter();
        Ok(rows.map(|row| corpus_pair(row, a)).collect())
    }
}

/// All bands of a feature, in the order of its page.
const ALL_BANDS: [Band; 12] = {
    let mut all = [Band::Inactive; 12];
    let mut i = 0;
    while i < Band::ACTIVE.len() {
        all[i] = Band::ACTIVE[i];
        i += 1;
    }
    all
};

pub(super) fn circuit_pair(row: &CircuitPairRow) -> CircuitPair {
    CircuitPair {
        at_a: row.component_a,
        a: row.feature_a,
        at_b: row.component_b,
        b: row.feature_b,
        prompts: row.prompts,
        share: row.share,
    }
}

/// A row as seen from one of its features.
fn corpus_pair(row: &CorpusPairRow, from: FeatureId) -> CorpusPair {
    let first = row.feature_a == from;
    CorpusPair {
        other: if first { row.feature_b } else { row.feature_a },
        lag: row.lag,
        first,
        together: row.n_ab,
        expected: row.expected,
        lift: row.lift,
        npmi: row.npmi,
        jaccard: row.jaccard,
        phi: row.phi.unwrap_or(f64::NAN),
        q: row.q,
    }
}
