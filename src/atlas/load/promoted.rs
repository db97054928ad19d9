//! What features promote and suppress, as rows of tables and as values.

use crate::artifact::tables::LogitRow;
use crate::atlas::model::PromotedToken;
use crate::circuit::{Noise, TopTokens, Weighted, Writers, lengths, promoted};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{Side, Subject};
use std::collections::BTreeMap;

/// The `k` tokens that each set of features promotes most and least, the promoted ones first;
/// logits also at `strength` units.
///
/// # Errors
/// When there is no dictionary or feature of a name.
pub(crate) fn promoted_rows(
    writers: &impl Writers,
    sets: &[(Subject, Weighted)],
    tokenizer: &Tokenizer,
    k: usize,
    strength: f64,
) -> Result<Vec<LogitRow>> {
    let listed = TopTokens { k, specials: tokenizer.specials() };
    let members: Vec<Weighted> = sets.iter().map(|(_, members)| members.clone()).collect();
    let (found, noise) = (promoted(writers, &members, listed)?, Noise::of(writers, listed)?);
    let lengths = lengths(writers, &members)?;
    let mut rows = Vec::new();
    for ((subject, _), (found, length)) in sets.iter().zip(found.iter().zip(lengths)) {
        for (side, tokens) in [(Side::Top, &found.top), (Side::Bottom, &found.bottom)] {
            let row = |(rank, &(token, logit)): (u32, &(u32, f32))| LogitRow {
                subject: subject.clone(),
                side,
                rank,
                token,
                text: tokenizer.token(token),
                logit,
                at_strength: at(strength, logit),
                z: noise.z(rank as usize, logit, length),
            };
            rows.extend((0..).zip(tokens).map(row));
        }
    }
    Ok(rows)
}

/// A logit at so many units of activation.
fn at(strength: f64, logit: f32) -> f32 {
    (f64::from(logit) * strength) as f32
}

/// What each subject promotes and suppresses, the most first.
pub(super) fn tokens(rows: Vec<LogitRow>) -> BTreeMap<Subject, [Vec<PromotedToken>; 2]> {
    let mut map: BTreeMap<Subject, [Vec<PromotedToken>; 2]> = BTreeMap::new();
    for row in rows {
        let (logit, at_strength) = (f64::from(row.logit), f64::from(row.at_strength));
        let sides = map.entry(row.subject).or_default();
        sides[usize::from(row.side == Side::Bottom)].push(PromotedToken {
            text: row.text,
            logit,
            at_strength,
            z: row.z,
        });
    }
    map
}

impl PromotedToken {
    /// Its logit at so many units of activation.
    pub(crate) fn set_strength(&mut self, strength: f64) {
        self.at_strength = f64::from(at(strength, self.logit as f32));
    }
}
