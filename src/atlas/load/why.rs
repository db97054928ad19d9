//! Why features are active, from the tables.

use super::Reader;
use crate::artifact::tables::{
    AblatedRow, BeforeRow, CauseRow, EvidenceRow, ExampleRow, ProfileRow, ReadingRow, SimilarRow,
};
use crate::atlas::model::{
    BeforeShare, Example, ProfileShare, ReadFrom, ReadPlace, Similar, Source, SourceShare, Why,
};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::format::text::positions;
use crate::ids::{
    Band, Beside, Component, FeatureId, Half, NodeKind, Profiled, Shown, Side, Subject,
};
use crate::inputs::by;
use crate::stats::STANDS_OUT;
use crate::stats::profile::BINS;
use crate::summary::quoted;
use std::collections::BTreeMap;

/// Sources that are listed, and the least mean share of one.
const SOURCES: usize = 8;
const LEAST_SHARE: f64 = 0.025;
/// Tokens that the live model says more or less of.
const LIVE: usize = 8;

/// The tables by feature; causes by the example that they are of.
pub(crate) struct WhyTables {
    evidence: BTreeMap<FeatureId, Vec<EvidenceRow>>,
    profiles: BTreeMap<FeatureId, Vec<ProfileRow>>,
    before: BTreeMap<FeatureId, Vec<BeforeRow>>,
    causes: BTreeMap<(FeatureId, u32, u16), Vec<CauseRow>>,
    readings: BTreeMap<FeatureId, Vec<ReadingRow>>,
    ablated: BTreeMap<FeatureId, Vec<AblatedRow>>,
}

fn of<K: Ord, R>(table: &BTreeMap<K, Vec<R>>, key: K) -> &[R] {
    table.get(&key).map(Vec::as_slice).unwrap_or_default()
}

impl WhyTables {
    pub(crate) fn evidence(
        &self,
        feature: FeatureId,
        role: Shown,
    ) -> impl Iterator<Item = &EvidenceRow> {
        of(&self.evidence, feature).iter().filter(move |row| row.role == role)
    }

    /// The causes of an example, the largest first.
    pub(crate) fn causes(&self, example: &EvidenceRow) -> &[CauseRow] {
        of(&self.causes, (example.feature, example.context, example.peak))
    }

    pub(crate) fn profile(
        &self,
        feature: FeatureId,
        by: Profiled,
    ) -> impl Iterator<Item = &ProfileRow> {
        of(&self.profiles, feature).iter().filter(move |row| row.by == by)
    }

    pub(crate) fn before(&self, feature: FeatureId) -> &[BeforeRow] {
        of(&self.before, feature)
    }

    pub(crate) fn readings(&self, feature: FeatureId) -> &[ReadingRow] {
        of(&self.readings, feature)
    }

    /// Those tokens that stand out from all others.
    pub(crate) fn ablated(
        &self,
        feature: FeatureId,
        side: Side,
    ) -> impl Iterator<Item = &AblatedRow> {
        let own = of(&self.ablated, feature).iter();
        own.filter(move |row| row.side == side && row.z.abs() > STANDS_OUT)
    }
}

impl Reader<'_> {
    pub(crate) fn why_tables(&self) -> Result<&WhyTables> {
        self.why.get(|| {
            Ok(WhyTables {
                evidence: by(self.large(&["feature"])?, |row: &EvidenceRow| row.feature),
                profiles: by(self.large(&["feature"])?, |row: &ProfileRow| row.feature),
                before: by(self.large(&["feature"])?, |row: &BeforeRow| row.feature),
                causes: by(self.large(&["feature"])?, |row: &CauseRow| {
                    (row.feature, row.context, row.peak)
                }),
                readings: by(self.large(&["feature"])?, |row: &ReadingRow| row.feature),
                ablated: by(self.large(&["feature"])?, |row: &AblatedRow| row.feature),
            })
        })
    }

    /// Features that write like this one.
    pub(crate) fn similar(&self, feature: FeatureId) -> Result<Vec<Similar>> {
        let all = self
            .similar
            .get(|| Ok(by(self.large(&["feature"])?, |row: &SimilarRow| row.feature)))?;
        let rows = of(all, feature);
        let one = |row: &SimilarRow| Similar { other: row.other, cosine: row.cosine, z: row.z };
        Ok(rows.iter().map(one).collect())
    }

    /// Why a feature is active.
    pub(crate) fn why(&self, feature: FeatureId) -> Result<Why> {
        let (tables, tokenizer) = (self.why_tables()?, self.tokenizer()?);
        let of_role = |role: Shown| tables.evidence(feature, role);
        let examples: Vec<&EvidenceRow> =
            of_role(Shown::Strongest).chain(of_role(Shown::Weaker)).collect();
        let causes = examples.iter().flat_map(|row| tables.causes(row));
        let mut sources = sources(causes, examples.len(), tokenizer);
        sources.retain(|source| source.share >= LEAST_SHARE);
        sources.truncate(SOURCES);
        let read_from = of_role(Shown::Strongest)
            .map(|row| self.read_from(row, tables.causes(row)))
            .collect::<Result<Vec<_>>>()?;
        let read_from = read_from.into_iter().filter(|one| !one.places.is_empty()).collect();
        let pairs = of_role(Shown::Active).zip(of_role(Shown::Inactive));
        let readings = tables.readings(feature);
        let live = |side: Side| {
            let token = |row: &AblatedRow| (tokenizer.token(row.token), row.change);
            tables.ablated(feature, side).take(LIVE).map(token).collect()
        };
        let profile = |by: Profiled| {
            let own = tables.profile(feature, by);
            own.map(|row| profile_share(row, tokenizer)).collect()
        };
        let before = tables.before(feature);
        let set = |set: Beside| {
            let own = before.iter().filter(|row| row.set == set);
            own.map(|row| BeforeShare {
                token: tokenizer.token(row.token),
                distance: row.distance,
                tokens: row.tokens,
                active: row.active,
            })
            .collect()
        };
        Ok(Why {
            more: set(Beside::More),
            less: set(Beside::Less),
            deciding: set(Beside::Deciding),
            own: before.first().map_or([0, 0], |row| [row.all_tokens, row.all_active]),
            sources,
            examples: examples.len() as u32,
            distances: distances(&examples, tables),
            read_from,
            pairs: pairs
                .map(|(a, b)| Ok([self.shown(a)?, self.shown(b)?]))
                .collect::<Result<_>>()?,
            tokens: profile(Profiled::Token),
            previous: profile(Profiled::Previous),
            next: profile(Profiled::Next),
            text: profile(Profiled::Text),
            sentence: profile(Profiled::Sentence),
            reads: readings
                .iter()
                .filter_map(|row| Some((tokenizer.token(row.token?), row.z)))
                .collect(),
            earlier: readings.iter().filter_map(|row| Some((row.other?, row.z))).collect(),
            raised: live(Side::Top),
            lowered: live(Side::Bottom),
            ablated: of(&tables.ablated, feature).first().map_or(0, |row| row.places),
        })
    }

    /// An example with the positions that heads read for it, the largest share first.
    fn read_from(&self, row: &EvidenceRow, causes: &[CauseRow]) -> Result<ReadFrom> {
        let tokenizer = self.tokenizer()?;
        let pieces = tokenizer.pieces(&row.tokens);
        let mut places: BTreeMap<u32, ReadPlace> = BTreeMap::new();
        for cause in causes {
            let Some((head, layer)) = cause.head.zip(cause.layer) else { continue };
            let at = cause.position.checked_sub(u32::from(row.start)).map(|at| at as usize);
            let place = places.entry(cause.position).or_insert_with(|| ReadPlace {
                token: tokenizer.token(cause.token),
                distance: (cause.position > 0).then(|| u32::from(row.peak) - cause.position),
                piece: at.and_then(|at| pieces.iter().position(|piece| piece.tokens.contains(&at))),
                heads: Vec::new(),
                share: 0.0,
            });
            let head = Component::Head { layer: layer as usize, head: head as usize };
            place.heads.push((head, cause.share));
            place.share += f64::from(cause.share);
        }
        let mut places: Vec<ReadPlace> = places.into_values().collect();
        places.sort_by(|a, b| b.share.total_cmp(&a.share));
        Ok(ReadFrom { example: self.shown(row)?, places })
    }

    fn shown(&self, row: &EvidenceRow) -> Result<Example> {
        self.example(&ExampleRow {
            subject: Subject::from(row.feature),
            half: Half::Explain,
            band: if row.role == Shown::Inactive { Band::Inactive } else { Band::Top },
            rank: row.rank,
            context: row.context,
            document: row.document,
            peak: row.peak,
            value: row.value,
            tokens: row.tokens.clone(),
            activations: row.activations.clone(),
            start: row.start,
            length: row.length,
            active: Vec::new(),
            active_values: Vec::new(),
        })
    }
}

/// First distances of the stretches in which sources are counted; BOS is apart.
const BACK: [u32; 6] = [0, 1, 2, 5, 9, 17];

/// Mean shares that heads bring from each distance, over the examples.
fn distances(examples: &[&EvidenceRow], tables: &WhyTables) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
    for row in examples {
        for cause in tables.causes(row).iter().filter(|cause| cause.head.is_some()) {
            let distance = u32::from(row.peak) - cause.position;
            let bin = match cause.position {
                0 => BACK.len(),
                _ => BACK.iter().rposition(|first| *first <= distance).unwrap_or(0),
            };
            *sums.entry(bin).or_default() += f64::from(cause.share);
        }
    }
    let label = |bin: usize| match (BACK.get(bin), BACK.get(bin + 1)) {
        (None, _) => "BOS".into(),
        (Some(0), _) => "the token itself".into(),
        (Some(1), _) => "the token before".into(),
        (Some(first), Some(next)) => format!("{first} to {} before", next - 1),
        (Some(first), None) => format!("{first} or more before"),
    };
    let mean = |sum: f64| sum / examples.len().max(1) as f64;
    sums.into_iter().map(|(bin, sum)| (label(bin), mean(sum))).collect()
}

fn profile_share(row: &ProfileRow, tokenizer: &Tokenizer) -> ProfileShare {
    let what = match (row.token, row.from) {
        (Some(id), _) => tokenizer.token(id),
        (_, Some(from)) => positions(from, &BINS),
        _ => String::new(),
    };
    ProfileShare { what, tokens: row.tokens, active: row.active, mean: row.mean }
}

/// What a cause is.
fn source(cause: &CauseRow, tokenizer: &Tokenizer) -> (Source, Option<Component>) {
    let token = || tokenizer.token(cause.token);
    let head = cause
        .head
        .zip(cause.layer)
        .map(|(head, layer)| Component::Head { layer: layer as usize, head: head as usize });
    let source = match (cause.kind, cause.other) {
        (NodeKind::Head, _) if cause.position == 0 => Source::Bos,
        (NodeKind::Head, _) if cause.position == u32::from(cause.peak) => Source::Itself,
        (NodeKind::Head, _) => Source::Read(token()),
        (_, Some(other)) => Source::Feature(other),
        (NodeKind::Embedding, _) => Source::Token(token()),
        (NodeKind::PositionEmbedding, _) => Source::Position,
        (NodeKind::AttentionError | NodeKind::MlpError, _) => Source::Error,
        _ => Source::Constant,
    };
    (source, head)
}

/// A cause in words, with what an earlier feature reads and how far before.
pub(crate) fn cause_in_words(cause: &CauseRow, tokenizer: &Tokenizer) -> String {
    let (source, _) = source(cause, tokenizer);
    match (&source, cause.through.zip(cause.through_token)) {
        (Source::Read(_), _) => {
            format!("{}, {} before,", source.said(), u32::from(cause.peak) - cause.position)
        }
        (Source::Feature(other), Some((0, _))) => format!("{other} (reads BOS)"),
        (Source::Feature(other), Some((at, _))) if at == cause.position => {
            format!("{other} (reads the token itself)")
        }
        (Source::Feature(other), Some((at, id))) => {
            let token = quoted(&tokenizer.token(id));
            format!("{other} (reads {token}, {} before)", cause.position - at)
        }
        _ => source.said(),
    }
}

/// What texts have in common whose largest cause is of the same kind as this one; none where that
/// explains nothing: error terms and what is the same everywhere.
pub(crate) fn cause_group(largest: &CauseRow, tokenizer: &Tokenizer) -> Option<String> {
    match source(largest, tokenizer).0 {
        Source::Error | Source::Constant => None,
        source if largest.kind == NodeKind::Head => {
            Some(format!("mostly read from {}", source.said()))
        }
        _ => Some(format!("mostly from {}", cause_in_words(largest, tokenizer))),
    }
}

/// A source, and the head that reads it.
type By = (Source, Option<Component>);
/// A text, by the context and position of its peak.
type Text = (u32, u16);

/// Sources over so many texts, the largest mean share first.
pub(crate) fn sources<'a>(
    causes: impl Iterator<Item = &'a CauseRow>,
    texts: usize,
    tokenizer: &Tokenizer,
) -> Vec<SourceShare> {
    let mut sums: BTreeMap<By, BTreeMap<Text, f64>> = BTreeMap::new();
    for cause in causes {
        let text = sums.entry(source(cause, tokenizer)).or_default();
        *text.entry((cause.context, cause.peak)).or_default() += f64::from(cause.share);
    }
    let share = |((source, head), own): (By, BTreeMap<Text, f64>)| {
        let sum: f64 = own.values().sum();
        SourceShare { source, head, share: sum / texts.max(1) as f64, texts: own.len() as u32 }
    };
    let mut all: Vec<SourceShare> = sums.into_iter().map(share).collect();
    all.sort_by(|a, b| b.share.total_cmp(&a.share));
    all
}
