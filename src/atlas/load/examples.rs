//! Examples with their texts.

use super::Reader;
use crate::artifact::tables::ExampleRow;
use crate::atlas::model::{Example, TextPiece};
use crate::corpus::TokenPiece;
use crate::error::Result;
use crate::ids::{Band, Subject};
use crate::stats::strata::sample;
use crate::stats::{mix, salt};

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
            value: row.activations[piece.tokens.clone()]
                .iter()
                .copied()
                .map(f64::from)
                .fold(0.0, f64::max),
            special: piece.special,
        };
        Ok(Example {
            band: row.band,
            half: row.half,
            document: row.document,
            context: row.context,
            start: u32::from(row.start),
            value: f64::from(row.value),
            peak: cut.iter().position(|piece| piece.tokens.contains(&peak)).unwrap_or(0),
            pieces: cut.iter().map(piece).collect(),
            more_before: row.start > 1,
            more_after: usize::from(row.start) + row.tokens.len() < usize::from(row.length),
        })
    }
}
