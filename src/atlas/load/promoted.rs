//! What features promote and suppress, as rows of tables and as values.

use crate::artifact::tables::LogitRow;
use crate::atlas::model::PromotedToken;
use crate::circuit::{Noise, TopTokens, Weighted, Writers, lengths, promoted};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{Side, Subject};
use std::collections::BTreeMap;

/// The tokens that sets of features promote, with what is known of chance.
pub(crate) struct Promoting<'a, W> {
    writers: &'a W,
    tokenizer: &'a Tokenizer,
    k: usize,
    strength: f64,
    noise: Noise,
}

impl<'a, W: Writers + Sync> Promoting<'a, W> {
    /// Of `k` tokens of each side, with logits also at `strength` units.
    ///
    /// # Errors
    /// When the unembedding cannot be read.
    pub(crate) fn new(
        writers: &'a W,
        tokenizer: &'a Tokenizer,
        k: usize,
        strength: f64,
    ) -> Result<Promoting<'a, W>> {
        let noise = Noise::of(writers, TopTokens { k, specials: tokenizer.specials() })?;
        Ok(Promoting { writers, tokenizer, k, strength, noise })
    }

    /// The tokens that each set promotes most and least, the promoted ones first.
    ///
    /// # Errors
    /// When there is no dictionary or feature of a name.
    pub(crate) fn rows(&self, sets: &[(Subject, Weighted)]) -> Result<Vec<LogitRow>> {
        let listed = TopTokens { k: self.k, specials: self.tokenizer.specials() };
        let members: Vec<Weighted> = sets.iter().map(|(_, members)| members.clone()).collect();
        let found = promoted(self.writers, &members, listed)?;
        let lengths = lengths(self.writers, &members)?;
        let mut rows = Vec::new();
        for ((subject, _), (found, length)) in sets.iter().zip(found.iter().zip(lengths)) {
            for (side, tokens) in [(Side::Top, &found.top), (Side::Bottom, &found.bottom)] {
                let row = |(rank, &(token, logit)): (u32, &(u32, f32))| LogitRow {
                    subject: subject.clone(),
                    side,
                    rank,
                    token,
                    text: self.tokenizer.token(token),
                    logit,
                    at_strength: at(self.strength, logit),
                    z: self.noise.z(rank as usize, logit, length),
                };
                rows.extend((0..).zip(tokens).map(row));
            }
        }
        Ok(rows)
    }
}

/// A logit at so many units of activation.
fn at(strength: f64, logit: f32) -> f32 {
    (f64::from(logit) * strength) as f32
}

/// What each subject promotes and suppresses, the most first.
pub(super) fn tokens(rows: Vec<LogitRow>) -> BTreeMap<Subject, [Vec<PromotedToken>; 2]> {
    let mut map: BTreeMap<Subject, [Vec<PromotedToken>; 2]> = BTreeMap::new();
    for row in rows {
        let sides = map.entry(row.subject).or_default();
        sides[usize::from(row.side == Side::Bottom)].push(PromotedToken {
            text: row.text,
            logit: row.logit,
            at_strength: row.at_strength,
            z: row.z,
        });
    }
    map
}

impl PromotedToken {
    /// Its logit at so many units of activation.
    pub(crate) fn set_strength(&mut self, strength: f64) {
        self.at_strength = at(strength, self.logit);
    }
}
