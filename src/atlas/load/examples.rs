//! Examples with their texts.

use super::Reader;
use crate::artifact::Row;
use crate::artifact::tables::{ContextRow, ExampleRow};
use crate::atlas::model::{ContextText, ContextToken, Example, Feature, TextPiece};
use crate::corpus::TokenPiece;
use crate::error::Result;
use crate::ids::{Band, Subject};
use crate::stats::strata::sample;
use crate::stats::{mix, salt};
use std::collections::{BTreeMap, BTreeSet};

impl Reader<'_> {
    /// The examples of some bands, the halves together, strongest first within a band; no more of a
    /// band than one half was asked for, which keeps the pages small. Only of the top ones are
    /// these the strongest.
    pub(super) fn examples(&self, subject: &Subject, bands: &[Band]) -> Result<Vec<Example>> {
        let rows = self.examples_of(subject)?;
        let name = subject.to_string();
        let mut chosen = Vec::new();
        for &band in bands {
            let most = if band == Band::Top { self.wanted.top } else { self.wanted.per_band };
            let mut own: Vec<&ExampleRow> = rows.iter().filter(|row| row.band == band).collect();
            // The strongest of another band would not stand for it any more.
            if band != Band::Top {
                own = sample(own, |row| row.half, most, mix(salt(&name), salt(&band.to_string())));
            }
            own.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.context.cmp(&b.context)));
            for row in own.into_iter().take(most) {
                chosen.push(self.example(row)?);
            }
        }
        Ok(chosen)
    }

    /// An example with its text.
    pub(crate) fn example(&self, row: &ExampleRow) -> Result<Example> {
        let peak = usize::from(row.peak - row.start);
        let cut = self.tokenizer()?.pieces(&row.tokens);
        let piece = |piece: &TokenPiece| TextPiece {
            text: piece.text.clone(),
            value: row.activations[piece.tokens.clone()].iter().copied().fold(0.0, f32::max),
            special: piece.special,
        };
        Ok(Example {
            band: row.band,
            half: row.half,
            document: row.document,
            context: row.context,
            start: u32::from(row.start),
            value: row.value,
            peak: cut.iter().position(|piece| piece.tokens.contains(&peak)).unwrap_or(0),
            pieces: cut.iter().map(piece).collect(),
            more_before: row.start > 1,
            more_after: usize::from(row.start) + row.tokens.len() < usize::from(row.length),
            position: u32::from(row.peak),
            active: row.active.iter().copied().zip(row.active_values.iter().copied()).collect(),
        })
    }

    /// The texts of the contexts of which examples of these features show a window.
    pub(super) fn contexts(&self, features: &[Feature]) -> Result<BTreeMap<u32, ContextText>> {
        let known = features.iter().flat_map(|f| &f.examples).filter(|e| e.is_whole_known());
        let wanted: BTreeSet<u32> = known.map(|e| e.context).collect();
        let mut texts = BTreeMap::new();
        for part in self.store.parts(&ContextRow::ARTIFACT)? {
            let rows: Vec<ContextRow> = self.store.read_part_of(part, "context", &wanted)?;
            for row in rows {
                texts.insert(row.context, self.context(&row)?);
            }
        }
        Ok(texts)
    }

    fn context(&self, row: &ContextRow) -> Result<ContextText> {
        let empty = || ContextToken { text: "".into(), special: false };
        let mut tokens: Vec<ContextToken> = row.tokens.iter().map(|_| empty()).collect();
        for piece in self.tokenizer()?.pieces(&row.tokens) {
            tokens[piece.tokens.start] =
                ContextToken { text: piece.text.into(), special: piece.special };
        }
        Ok(ContextText { tokens })
    }
}
