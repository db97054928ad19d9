//! What explanations are written from besides the examples of the site: strong and weaker texts of
//! different frames, contrast pairs, and profiles. All of it is of the *explain* half.

use super::Work;
use crate::artifact::tables::{BeforeRow, EvidenceRow, ProfileRow};
use crate::atlas::activations::example_row;
use crate::error::Result;
use crate::ids::{Band, Beside, Profiled, Shown, Subject};
use crate::stats::before::{Before, Told, before};
use crate::stats::contrast::contrasts;
use crate::stats::examples::{Chosen, Peak, peaks};
use crate::stats::feature::TokenActivation;
use crate::stats::frames::distinct;
use crate::stats::mix;
use crate::stats::profile::{BINS, Place, Places, Share};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Texts of each role.
const STRONGEST: usize = 6;
const WEAKER: usize = 8;
const WEAKEST: usize = 3;
const PAIRS: usize = 5;
/// Tokens of contrast pairs: those with most of the activation.
const TOKENS: usize = 4;
/// An activation is strong from this share of the maximum on; contrast pairs are of stronger ones.
const STRONG: f32 = 0.25;
const PAIRED: f32 = 0.5;
/// Tokens before, with which a feature is more and less often active.
const BEFORE: usize = 10;
/// Occurrences of a token that are looked at, drawn in hash order.
const OCCURRENCES: usize = 20_000;
/// Tokens of a profile, and as many before them.
const LISTED: usize = 8;

/// What is counted of a feature.
type Counted = (Vec<ProfileRow>, Vec<BeforeRow>);

/// Where each of some tokens stands.
type Occurrences = HashMap<u32, Vec<(u32, u16)>>;

/// Writes both tables.
pub(super) fn write_evidence(work: &Work) -> Result<()> {
    let progress = work.run.progress;
    progress.begin("evidence", work.features.len() as u64, 0);
    let occurrences = occurrences(work);
    let each: Vec<(Vec<EvidenceRow>, Counted)> = {
        let places = places(work);
        let of = |key: usize| -> Result<(Vec<EvidenceRow>, Counted)> {
            let own: Vec<TokenActivation> = work.explained(key).collect();
            let shares = places.profile(own.iter().copied(), LISTED);
            let counted = (profile(work, key, &shares), before_rows(work, key, &own, &occurrences));
            progress.step(1)?;
            Ok((evidence(work, key, &own, &occurrences), counted))
        };
        (0..work.features.len()).into_par_iter().map(of).collect::<Result<_>>()?
    };
    let (evidence, counted): (Vec<_>, Vec<_>) = each.into_iter().unzip();
    let (profiles, before): (Vec<_>, Vec<_>) = counted.into_iter().unzip();
    let (mut evidence, mut profiles) = (evidence.concat(), profiles.concat());
    let mut before = before.concat();
    before.sort_by_cached_key(|row| (row.feature.to_string(), row.set, row.rank));
    work.run.store.write(work.run.fingerprint, &before)?;
    evidence.sort_by_cached_key(|row| (row.feature.to_string(), row.role, row.rank));
    profiles.sort_by_cached_key(|row| (row.feature.to_string(), row.by, row.rank));
    work.run.store.write(work.run.fingerprint, &evidence)?;
    work.run.store.write(work.run.fingerprint, &profiles)
}

/// The tokens of the half that count, by context and position.
fn counting<'a>(work: &'a Work) -> impl Iterator<Item = (u32, u16, u32)> + 'a {
    work.half(true).into_iter().flat_map(move |context| {
        let positions = 0..work.contexts.rows[context as usize].tokens.len() as u16;
        positions.filter_map(move |position| {
            Some((context, position, work.contexts.counting(context, position)?))
        })
    })
}

/// Where the tokens with most of any feature's activation stand.
fn occurrences(work: &Work) -> Occurrences {
    let wanted: BTreeSet<u32> = work
        .explain
        .iter()
        .flat_map(|own| own.mass.iter().take(LISTED).map(|(id, _)| *id))
        .collect();
    let mut found = Occurrences::new();
    for (context, position, id) in counting(work).filter(|(.., id)| wanted.contains(id)) {
        found.entry(id).or_default().push((context, position));
    }
    for (id, places) in found.iter_mut().filter(|(_, places)| places.len() > OCCURRENCES) {
        let drawn = |(context, position): &(u32, u16)| {
            mix(u64::from(*id), u64::from(*context) << 16 | u64::from(*position))
        };
        places.select_nth_unstable_by_key(OCCURRENCES, drawn);
        places.truncate(OCCURRENCES);
        places.sort_unstable();
    }
    found
}

fn places<'a>(work: &'a Work) -> Places<'a> {
    let tokenizer = work.contexts.tokenizer();
    // A token stands for itself here: what ends a sentence is seen in its own text.
    let ends = |id: u32| {
        let text = tokenizer.token(id);
        text.contains('\n')
            || text.trim_end_matches(['"', '”', '\'', ')']).ends_with(['.', '!', '?'])
    };
    let known: BTreeSet<u32> = {
        let all = counting(work).map(|(.., id)| id).collect::<BTreeSet<u32>>();
        all.into_iter().filter(|id| ends(*id)).collect()
    };
    Places::count(
        |context| work.contexts.rows[context as usize].tokens.as_slice(),
        |context| work.contexts.rows[context as usize].start,
        move |id| known.contains(&id),
        counting(work).map(|(context, position, _)| (context, position)),
    )
}

fn evidence(
    work: &Work,
    key: usize,
    own: &[TokenActivation],
    occurrences: &Occurrences,
) -> Vec<EvidenceRow> {
    let tokens = |context: u32| work.contexts.rows[context as usize].tokens.as_slice();
    let salt = work.features[key].salt();
    let all = peaks(own.iter().copied());
    let mut by_strength = all.clone();
    by_strength.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.context.cmp(&b.context)));
    let mut frames = Vec::new();
    let strongest = distinct(by_strength.iter().copied(), tokens, STRONGEST, &mut frames);
    let weaker = weaker(&by_strength, tokens, salt, &mut frames);
    let row = |role: Shown, rank: usize, peak: Peak| {
        let chosen = Chosen { band: Band::Top, rank: rank as u32, peak };
        let subject = Subject::from(work.features[key]);
        let example = example_row(&work.contexts, &subject, &chosen, own);
        EvidenceRow {
            feature: work.features[key],
            role,
            rank: rank as u32,
            context: example.context,
            document: example.document,
            peak: example.peak,
            value: example.value,
            tokens: example.tokens,
            activations: example.activations,
            start: example.start,
            length: example.length,
        }
    };
    let ranked = |role: Shown, peaks: Vec<Peak>| {
        peaks.into_iter().enumerate().map(|(rank, peak)| row(role, rank, peak)).collect::<Vec<_>>()
    };
    let pairs = pairs(work, key, own, occurrences, salt);
    let [active, inactive] = [true, false].map(|active| {
        pairs.iter().map(|pair| if active { pair.active } else { pair.inactive }).collect()
    });
    [
        ranked(Shown::Strongest, strongest),
        ranked(Shown::Weaker, weaker),
        ranked(Shown::Active, active),
        ranked(Shown::Inactive, inactive),
    ]
    .concat()
}

/// Of the contexts that are strong, eight parts by strength, and of the others three: one of each,
/// the strongest part first, of frames of their own.
fn weaker<'a>(
    by_strength: &[Peak],
    tokens: impl Fn(u32) -> &'a [u32] + Copy,
    salt: u64,
    frames: &mut Vec<Vec<u32>>,
) -> Vec<Peak> {
    let largest = by_strength.first().map_or(0.0, |peak| peak.value);
    let strong = by_strength.partition_point(|peak| peak.value >= STRONG * largest);
    let mut chosen = Vec::new();
    for (part, parts) in [(&by_strength[..strong], WEAKER), (&by_strength[strong..], WEAKEST)] {
        let n = part.len();
        for i in 0..parts {
            let mut members = part[n * i / parts..n * (i + 1) / parts].to_vec();
            members.sort_by_key(|peak| (mix(salt, u64::from(peak.context)), peak.context));
            chosen.extend(distinct(members.into_iter(), tokens, 1, frames));
        }
    }
    chosen
}

fn pairs(
    work: &Work,
    key: usize,
    own: &[TokenActivation],
    occurrences: &Occurrences,
    salt: u64,
) -> Vec<crate::stats::contrast::Contrast> {
    let explain = &work.explain[key];
    let mut active: BTreeMap<u32, Vec<Peak>> = BTreeMap::new();
    let wanted: BTreeSet<u32> = explain.mass.iter().take(TOKENS).map(|(id, _)| *id).collect();
    for at in own.iter().filter(|at| at.activation >= PAIRED * explain.max) {
        let token = work.contexts.counting(at.context, at.position);
        if let Some(token) = token.filter(|id| wanted.contains(id)) {
            let peak = Peak { context: at.context, position: at.position, value: at.activation };
            active.entry(token).or_default().push(peak);
        }
    }
    // Near the token it is inactive too: in the text that is shown nothing is marked.
    let is_inactive = |context: u32, position: u16| {
        let from = position.saturating_sub(crate::stats::examples::RADIUS as u16);
        let first = own.partition_point(|at| (at.context, at.position) < (context, from));
        own.get(first).is_none_or(|at| at.context != context || at.position > position)
    };
    contrasts(
        &active,
        |token| occurrences.get(&token).map(Vec::as_slice).unwrap_or_default(),
        is_inactive,
        |context| work.contexts.rows[context as usize].tokens.as_slice(),
        PAIRS,
        salt,
    )
}

/// Tokens before the feature's own tokens with which it is more, or less, often strongly active.
fn before_rows(
    work: &Work,
    key: usize,
    own: &[TokenActivation],
    occurrences: &Occurrences,
) -> Vec<BeforeRow> {
    let explain = &work.explain[key];
    let strong = STRONG * explain.max;
    let mut all: Vec<(u32, u16, bool)> = Vec::new();
    for (id, _) in explain.mass.iter().take(LISTED) {
        for &(context, position) in occurrences.get(id).into_iter().flatten() {
            let at = own.partition_point(|at| (at.context, at.position) < (context, position));
            let active = own.get(at).is_some_and(|at| {
                (at.context, at.position) == (context, position) && at.activation >= strong
            });
            all.push((context, position, active));
        }
    }
    all.sort_unstable();
    let tokens = |context: u32| work.contexts.rows[context as usize].tokens.as_slice();
    let Before { tokens: all_tokens, active: all_active, more, less, deciding } =
        before(&all, tokens, BEFORE, work.features[key].salt());
    let row = |set: Beside, (one, rank): (Told, u32)| BeforeRow {
        feature: work.features[key],
        set,
        rank,
        token: one.earlier.token,
        distance: one.earlier.distance.map(u32::from),
        tokens: one.tokens,
        active: one.active,
        all_tokens,
        all_active,
    };
    let deciding = deciding.concat();
    let sets = [(Beside::More, more), (Beside::Less, less), (Beside::Deciding, deciding)];
    let rows = sets.into_iter().flat_map(|(set, told)| {
        told.into_iter().zip(0..).map(|one| row(set, one)).collect::<Vec<_>>()
    });
    rows.collect()
}

fn profile(work: &Work, key: usize, shares: &[Share]) -> Vec<ProfileRow> {
    let mut rows: Vec<ProfileRow> = Vec::new();
    for share in shares {
        let (by, token, from) = match share.place {
            Place::Token(id) => (Profiled::Token, Some(id), None),
            Place::Previous(id) => (Profiled::Previous, Some(id), None),
            Place::InText(bin) => (Profiled::Text, None, Some(BINS[bin as usize])),
            Place::InSentence(bin) => (Profiled::Sentence, None, Some(BINS[bin as usize])),
        };
        let rank = rows.iter().filter(|row| row.by == by).count() as u32;
        rows.push(ProfileRow {
            feature: work.features[key],
            by,
            rank,
            token,
            from,
            tokens: share.tokens,
            active: share.active,
            mean: share.mean,
        });
    }
    rows
}
