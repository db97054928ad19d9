//! What explanations are written from besides the examples of the site: strong and weaker texts of
//! different frames, contrast pairs, and profiles. All of it is of the *explain* half.

use super::Work;
use crate::artifact::tables::{BeforeRow, EvidenceRow, ProfileRow};
use crate::atlas::activations::example_row;
use crate::ids::{Band, Beside, FeatureId, Profiled, Shown, Subject};
use crate::inputs::Contexts;
use crate::stats::before::{Before, Told, before};
use crate::stats::contrast::{Contrast, contrasts};
use crate::stats::examples::{Chosen, Peak, peaks};
use crate::stats::feature::{Statistics, TokenActivation};
use crate::stats::frames::distinct;
use crate::stats::mix;
use crate::stats::profile::{BINS, Place, Places, Share};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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

/// Where each token stands, in the contexts of the *explain* half.
type Occurrences = HashMap<u32, Vec<(u32, u16)>>;

/// What explanations of a feature are written from.
#[derive(Default)]
pub(super) struct Evidence {
    pub(super) texts: Vec<EvidenceRow>,
    pub(super) profile: Vec<ProfileRow>,
    pub(super) before: Vec<BeforeRow>,
}

/// The *explain* half, counted.
pub(super) struct Corpus<'a> {
    contexts: &'a Contexts,
    occurrences: Occurrences,
    places: Places<'a>,
}

/// A feature in it.
struct Own<'a> {
    feature: FeatureId,
    /// Its activations, by context and position.
    activations: &'a [TokenActivation],
    statistics: &'a Statistics,
}

impl<'a> Corpus<'a> {
    pub(super) fn new(work: &'a Work<'a>) -> Corpus<'a> {
        Corpus { contexts: &work.contexts, occurrences: occurrences(work), places: places(work) }
    }

    /// What explanations of a feature are written from, by its activations in this half.
    pub(super) fn evidence(
        &self,
        feature: FeatureId,
        activations: &[TokenActivation],
        statistics: &Statistics,
    ) -> Evidence {
        let own = Own { feature, activations, statistics };
        let shares = self.places.profile(activations.iter().copied(), LISTED);
        let (mut texts, mut profile) = (self.texts(&own), profile(feature, &shares));
        let mut before = self.before(&own);
        texts.sort_by_key(|row| (row.role, row.rank));
        profile.sort_by_key(|row| (row.by, row.rank));
        before.sort_by_key(|row| (row.set, row.rank));
        Evidence { texts, profile, before }
    }
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

/// Where tokens stand; of frequent ones some places, drawn in hash order.
fn occurrences(work: &Work) -> Occurrences {
    let mut number: HashMap<u32, usize> = HashMap::new();
    counting(work).for_each(|(.., id)| *number.entry(id).or_default() += 1);
    let mut found: Occurrences =
        number.into_iter().map(|(id, number)| (id, Vec::with_capacity(number))).collect();
    for (context, position, id) in counting(work) {
        found.entry(id).or_default().push((context, position));
    }
    for (id, places) in found.iter_mut().filter(|(_, places)| places.len() > OCCURRENCES) {
        let drawn = |(context, position): &(u32, u16)| {
            mix(u64::from(*id), u64::from(*context) << 16 | u64::from(*position))
        };
        places.select_nth_unstable_by_key(OCCURRENCES, drawn);
        places.truncate(OCCURRENCES);
        places.shrink_to_fit();
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
    let known: HashSet<u32> = {
        let all = counting(work).map(|(.., id)| id).collect::<HashSet<u32>>();
        all.into_iter().filter(|id| ends(*id)).collect()
    };
    Places::count(
        |context| work.contexts.rows[context as usize].tokens.as_slice(),
        |context| work.contexts.rows[context as usize].start,
        move |id| known.contains(&id),
        counting(work).map(|(context, position, _)| (context, position)),
    )
}

impl Corpus<'_> {
    fn texts(&self, own: &Own) -> Vec<EvidenceRow> {
        let tokens = |context: u32| self.tokens(context);
        let salt = own.feature.salt();
        let mut by_strength = peaks(own.activations.iter().copied());
        by_strength.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.context.cmp(&b.context)));
        let mut frames = Vec::new();
        let strongest = distinct(by_strength.iter().copied(), tokens, STRONGEST, &mut frames);
        let weaker = weaker(&by_strength, tokens, salt, &mut frames);
        let pairs = self.pairs(own, salt);
        let [active, inactive] = [true, false].map(|active| {
            pairs.iter().map(|pair| if active { pair.active } else { pair.inactive }).collect()
        });
        let roles = [
            (Shown::Strongest, strongest),
            (Shown::Weaker, weaker),
            (Shown::Active, active),
            (Shown::Inactive, inactive),
        ];
        let ranked = |(role, peaks): (Shown, Vec<Peak>)| {
            let row = |(rank, peak)| self.text(own, role, rank, peak);
            (0u32..).zip(peaks).map(row).collect::<Vec<_>>()
        };
        roles.into_iter().flat_map(ranked).collect()
    }

    fn text(&self, own: &Own, role: Shown, rank: u32, peak: Peak) -> EvidenceRow {
        let chosen = Chosen { band: Band::Top, rank, peak };
        let subject = Subject::from(own.feature);
        let example = example_row(self.contexts, &subject, &chosen, own.activations);
        EvidenceRow {
            feature: own.feature,
            role,
            rank,
            context: example.context,
            document: example.document,
            peak: example.peak,
            value: example.value,
            tokens: example.tokens,
            activations: example.activations,
            start: example.start,
            length: example.length,
        }
    }

    fn tokens(&self, context: u32) -> &[u32] {
        &self.contexts.rows[context as usize].tokens
    }

    fn pairs(&self, own: &Own, salt: u64) -> Vec<Contrast> {
        let Own { activations, statistics, .. } = own;
        let mut active: BTreeMap<u32, Vec<Peak>> = BTreeMap::new();
        let mass = statistics.mass.iter();
        let wanted: BTreeSet<u32> = mass.take(TOKENS).map(|(id, _)| *id).collect();
        for at in activations.iter().filter(|at| at.activation >= PAIRED * statistics.max) {
            let token = self.contexts.counting(at.context, at.position);
            if let Some(token) = token.filter(|id| wanted.contains(id)) {
                let peak =
                    Peak { context: at.context, position: at.position, value: at.activation };
                active.entry(token).or_default().push(peak);
            }
        }
        // Near the token it is inactive too: in the text that is shown nothing is marked.
        let is_inactive = |context: u32, position: u16| {
            let from = position.saturating_sub(crate::stats::examples::RADIUS as u16);
            let first =
                activations.partition_point(|at| (at.context, at.position) < (context, from));
            let next = activations.get(first);
            next.is_none_or(|at| at.context != context || at.position > position)
        };
        contrasts(
            &active,
            |token| self.occurrences.get(&token).map(Vec::as_slice).unwrap_or_default(),
            is_inactive,
            |context| self.tokens(context),
            PAIRS,
            salt,
        )
    }

    /// Tokens before the feature's own tokens with which it is more, or less, often strongly active.
    fn before(&self, own: &Own) -> Vec<BeforeRow> {
        let Own { feature, activations, statistics } = *own;
        let strong = STRONG * statistics.max;
        let mut all: Vec<(u32, u16, bool)> = Vec::new();
        for (id, _) in statistics.mass.iter().take(LISTED) {
            for &(context, position) in self.occurrences.get(id).into_iter().flatten() {
                let at = activations
                    .partition_point(|at| (at.context, at.position) < (context, position));
                let active = activations.get(at).is_some_and(|at| {
                    (at.context, at.position) == (context, position) && at.activation >= strong
                });
                all.push((context, position, active));
            }
        }
        all.sort_unstable();
        let Before { tokens: all_tokens, active: all_active, more, less, deciding } =
            before(&all, |context| self.tokens(context), BEFORE, feature.salt());
        let row = |set: Beside, (one, rank): (Told, u32)| BeforeRow {
            feature,
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

fn profile(feature: FeatureId, shares: &[Share]) -> Vec<ProfileRow> {
    let mut rows: Vec<ProfileRow> = Vec::new();
    for share in shares {
        let (by, token, from) = match share.place {
            Place::Token(id) => (Profiled::Token, Some(id), None),
            Place::Previous(id) => (Profiled::Previous, Some(id), None),
            Place::Next(id) => (Profiled::Next, Some(id), None),
            Place::InText(bin) => (Profiled::Text, None, Some(BINS[bin as usize])),
            Place::InSentence(bin) => (Profiled::Sentence, None, Some(BINS[bin as usize])),
        };
        let rank = rows.iter().filter(|row| row.by == by).count() as u32;
        rows.push(ProfileRow {
            feature,
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
