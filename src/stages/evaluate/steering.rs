//! What the live model says more of when a feature is added to its residual stream, held against
//! what the feature promotes and what its explanation claims.

use super::work::Work;
use crate::artifact::tables::{CausalRow, ExampleRow, FeatureRow, LogitRow};
use crate::circuit::{ReplacementModel, Rise, Steered, TopTokens, steer};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{Side, Subject};
use crate::inputs::by;
use crate::stats::agreement::area_of;
use crate::stats::interval::{Bootstrap, mean};
use crate::stats::mix;
use crate::stats::trials::in_turn;
use std::collections::{BTreeMap, BTreeSet};

/// Tokens that rise most, listed.
const RISEN: usize = 10;

/// Tokens of which it is asked whether they rise: promoted, promoted by another feature, claimed,
/// and claimed of another.
type Wanted<'a> = [Option<&'a Vec<u32>>; 4];

/// Whether each of these rises more than others do, at one place.
type Areas = [Option<f64>; 4];

impl Work<'_> {
    /// A row for each feature that is active in the *score* half, by feature.
    pub(super) fn causal(&self, replacement: &ReplacementModel) -> Result<Vec<CausalRow>> {
        let (keys, steered): (Vec<usize>, Vec<Steered>) =
            (0..self.features.len()).filter_map(|key| Some((key, self.steered(key)?))).unzip();
        let places: usize = steered.iter().map(|one| one.places.len()).sum();
        self.run.progress.begin("positions with a feature added", places as u64, 0);
        let (promoted, claimed) = (self.promoted()?, self.claimed());
        let wanted: Vec<Wanted> =
            keys.iter().map(|&key| self.wanted(key, &promoted, &claimed)).collect();
        let specials = self.contexts.tokenizer().specials();
        let read = |i: usize, rise: &[f32]| -> Areas {
            self.run.progress.add(1);
            wanted[i].map(|tokens| area_of(tokens?, rise, specials))
        };
        let context = |context: u32| self.contexts.rows[context as usize].tokens.as_slice();
        let rises = steer(replacement, &steered, context, TopTokens { k: RISEN, specials }, read)?;
        let each = keys.iter().zip(&steered).zip(rises);
        let mut rows: Vec<CausalRow> = each
            .map(|((&key, one), rise)| row(&self.features[key], one, &rise, claimed.get(&key)))
            .collect();
        rows.sort_by_cached_key(|row| row.subject.to_string());
        Ok(rows)
    }

    /// A feature at its corpus maximum, at peaks of its active examples, the top ones and all bands
    /// in turn. Where not every band has its turn, which have it is drawn for the feature: else the
    /// weakest would be in no feature's. Within a band they are drawn by a hash of the context
    /// alone: features come to share contexts, which are run once.
    fn steered(&self, key: usize) -> Option<Steered> {
        let row = &self.features[key];
        let place = |row: &ExampleRow| {
            (mix(u64::from(row.context), 0), row.document, row.context, row.peak)
        };
        let mut bands = self.active(key, place);
        bands.iter_mut().for_each(|band| band.sort_unstable());
        let mut documents = BTreeSet::new();
        let causal = self.run.config.evaluate.causal;
        let places = in_turn(&bands, causal, self.salts[key], |place| documents.insert(place.1));
        let places: Vec<(u32, u16)> =
            places.into_iter().map(|(_, _, context, peak)| (context, peak)).collect();
        let steered = Steered { feature: row.feature, strength: row.max, places };
        (row.max > 0.0 && !steered.places.is_empty()).then_some(steered)
    }

    fn wanted<'a>(
        &self,
        key: usize,
        promoted: &'a BTreeMap<usize, Vec<u32>>,
        claimed: &'a BTreeMap<usize, (Vec<u32>, u32)>,
    ) -> Wanted<'a> {
        let other =
            self.control(key, promoted.keys().copied()).and_then(|other| promoted.get(&other));
        let own = claimed.get(&key).map(|claims| &claims.0);
        let other_claims =
            || claimed.get(&self.control(key, claimed.keys().copied())?).map(|claims| &claims.0);
        [promoted.get(&key), other, own, own.and_then(|_| other_claims())]
    }

    /// The promoted tokens of each feature, by key.
    fn promoted(&self) -> Result<BTreeMap<usize, Vec<u32>>> {
        let top = self
            .run
            .store
            .read::<LogitRow>()?
            .into_iter()
            .filter(|row| row.side == Side::Top)
            .collect();
        let of = by(top, |row: &LogitRow| row.subject.clone());
        let own = |(key, row): (usize, &FeatureRow)| {
            Some((key, of.get(&Subject::from(row.feature))?.iter().map(|row| row.token).collect()))
        };
        Ok(self.features.iter().enumerate().filter_map(own).collect())
    }

    /// The tokens of the claims of each feature's first explanation, by key; only where there are
    /// any. Beside them, how many claims have one.
    fn claimed(&self) -> BTreeMap<usize, (Vec<u32>, u32)> {
        let tokenizer = self.contexts.tokenizer();
        let of = |&key: &usize| {
            let each: Vec<BTreeSet<u32>> =
                self.first(key)?.claims.iter().map(|claim| tokens(claim, tokenizer)).collect();
            let claims = each.iter().filter(|tokens| !tokens.is_empty()).count() as u32;
            let all: BTreeSet<u32> = each.into_iter().flatten().collect();
            (claims > 0).then(|| (key, (all.into_iter().collect(), claims)))
        };
        self.told.keys().filter_map(of).collect()
    }
}

/// The tokens that a claim may mean: itself, with a space before it, in lower case, or with a
/// capital.
fn tokens(claim: &str, tokenizer: &Tokenizer) -> BTreeSet<u32> {
    let bare = claim.trim();
    let mut letters = bare.chars();
    let capital: String =
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let forms = [bare.to_string(), bare.to_lowercase(), capital];
    let forms = forms.iter().filter(|form| !form.is_empty());
    let all = forms.flat_map(|form| [form.clone(), format!(" {form}")]).chain([claim.to_string()]);
    all.filter_map(|form| tokenizer.single(&form)).filter(|&id| !tokenizer.is_special(id)).collect()
}

fn row(
    feature: &FeatureRow,
    steered: &Steered,
    rise: &Rise<Areas>,
    claimed: Option<&(Vec<u32>, u32)>,
) -> CausalRow {
    let values = |i: usize| -> Vec<f64> { rise.at.iter().filter_map(|areas| areas[i]).collect() };
    let mean =
        |i: usize| Some(values(i)).filter(|values| !values.is_empty()).map(|values| mean(&values));
    // Of one place alone nobody knows how far another would be from it.
    let interval = |i: usize| {
        let values = values(i);
        (values.len() > 1).then(|| Bootstrap::new(values.len(), 1).mean(&values))
    };
    let (promoted, claims) = (interval(0), interval(2));
    CausalRow {
        subject: feature.feature,
        positions: rise.at.len() as u32,
        strength: steered.strength,
        promoted: mean(0),
        low: promoted.map(|e| e.low),
        high: promoted.map(|e| e.high),
        promoted_null: mean(1),
        claimed: mean(2),
        claimed_low: claims.map(|e| e.low),
        claimed_high: claims.map(|e| e.high),
        claimed_null: mean(3),
        claims: claimed.map_or(0, |claimed| claimed.1),
        risen: rise.most.iter().map(|(id, _)| *id).collect(),
        rise: rise.most.iter().map(|(_, rise)| *rise).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::tokenizer::tests::demo;

    #[test]
    fn a_claim_means_each_way_to_write_it_that_is_a_token() {
        let tokenizer = demo();
        let words = |claim: &str| -> Vec<String> {
            tokens(claim, &tokenizer).into_iter().map(|id| tokenizer.token(id)).collect()
        };
        assert!(words("mary").contains(&" Mary".to_string()), "{:?}", words("mary"));
        assert!(words(" Mary").contains(&" Mary".to_string()));
        assert!(
            words("THE").contains(&" the".to_string()) && words("the").contains(&"The".to_string())
        );
        assert_eq!(
            [words("no such token as this"), words("<|endoftext|>"), words("")],
            [const { Vec::<String>::new() }; 3]
        );
    }
}
