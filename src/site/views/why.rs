//! Why a feature is active: sources of its activation, contrast pairs, its tokens, its weights, and
//! what the live model says because of it.

use super::parts::{ExampleView, example};
use crate::atlas::model::{
    BeforeShare, Feature, ProfileShare, ReadFrom, ReadPlace, Source, SourceShare, Why,
};
use crate::format::number::{count, percent, significant};
use crate::site::links::{Links, PageLink};
use crate::site::text::{self, Html, token};
use serde::Serialize;

/// Contrast pairs that are shown.
const PAIRS: usize = 3;
/// Examples of which it is shown what heads read, and positions of each.
const READ: usize = 6;
const PLACES: usize = 3;
/// The least share of a position, but for the first.
const LEAST_READ: f64 = 0.01;
/// Characters of an earlier feature's explanation.
const SHORT: usize = 90;

#[derive(Serialize)]
pub(super) struct WhyView {
    examples: u32,
    sources: Vec<SourceRow>,
    /// How far back heads read: label, share, length of its bar.
    distances: Vec<(String, String, String)>,
    read_from: Vec<ReadRow>,
    pairs: Vec<[ExampleView; 2]>,
    profiles: Vec<ProfileView>,
    /// Tokens before with which it is more, and less, often active.
    before: Vec<(&'static str, Vec<BeforeRow>)>,
    own: String,
    own_active: String,
    reads: Vec<Html>,
    earlier: Vec<(PageLink, Html)>,
    raised: Vec<(Html, String)>,
    lowered: Vec<(Html, String)>,
    ablated: u32,
}

/// A part of what the feature reads.
#[derive(Serialize)]
struct SourceRow {
    /// In words, where it is no feature and no token.
    what: String,
    token: Option<Html>,
    /// Whether it is the token at the peak, not one that a head reads.
    own: bool,
    feature: Option<PageLink>,
    gist: Html,
    head: Option<PageLink>,
    share: String,
    texts: u32,
    width: String,
}

/// An example with the positions that heads read for it.
#[derive(Serialize)]
struct ReadRow {
    example: ExampleView,
    /// Token, where it is, share, heads.
    places: Vec<(Html, String, String, Vec<PageLink>)>,
}

/// Shares by one kind of place.
#[derive(Serialize)]
struct ProfileView {
    caption: &'static str,
    what: &'static str,
    rows: Vec<ProfileRow>,
}

#[derive(Serialize)]
struct ProfileRow {
    what: Html,
    active: String,
    tokens: String,
    share: String,
    mean: String,
}

#[derive(Serialize)]
struct BeforeRow {
    token: Html,
    at: String,
    active: String,
    tokens: String,
}

impl WhyView {
    /// None where nothing is known, as of a feature that is never active.
    pub(super) fn of(links: Links, f: &Feature) -> Option<WhyView> {
        let why = &f.why;
        if why.sources.is_empty() && why.tokens.is_empty() {
            return None;
        }
        let changes = |list: &[(String, f32)]| {
            list.iter().map(|(text, x)| (token(text), signed((*x).into()))).collect::<Vec<_>>()
        };
        let pair = |pair: &[crate::atlas::model::Example; 2]| {
            pair.each_ref().map(|one| example(one, f.max))
        };
        Some(WhyView {
            examples: why.examples,
            sources: sources(links, &why.sources),
            distances: distances(&why.distances),
            read_from: why.read_from.iter().take(READ).map(|r| read_row(links, r, f.max)).collect(),
            pairs: why.pairs.iter().take(PAIRS).map(pair).collect(),
            profiles: profiles(why),
            before: [("more often with", &why.more), ("less often with", &why.less)]
                .into_iter()
                .filter(|(_, list)| !list.is_empty())
                .map(|(caption, list)| (caption, list.iter().map(before_row).collect()))
                .collect(),
            own: count(why.own[0]),
            own_active: count(why.own[1]),
            reads: why.reads.iter().map(|(text, _)| token(text)).collect(),
            earlier: why
                .earlier
                .iter()
                .map(|(id, _)| (links.feature(*id), text::prose(&links.site.gist(*id), SHORT)))
                .collect(),
            raised: changes(&why.raised),
            lowered: changes(&why.lowered),
            ablated: why.ablated,
        })
    }
}

fn signed(x: f64) -> String {
    format!("{}{}", if x < 0.0 { "−" } else { "+" }, significant(x.abs(), 2))
}

fn width(share: f64, longest: f64) -> String {
    format!("{:.0}", if longest > 0.0 { share / longest * 100.0 } else { 0.0 })
}

fn distances(list: &[(String, f64)]) -> Vec<(String, String, String)> {
    let longest = list.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    let row =
        |(label, share): &(String, f64)| (label.clone(), percent(*share), width(*share, longest));
    list.iter().map(row).collect()
}

fn read_row(links: Links, read: &ReadFrom, max: f32) -> ReadRow {
    let is_told = |(i, place): &(usize, &ReadPlace)| *i == 0 || place.share >= LEAST_READ;
    let places = || read.places.iter().take(PLACES).enumerate().filter(is_told).map(|(_, p)| p);
    let said = |place: &ReadPlace| {
        let heads: Vec<String> = place.heads.iter().map(|(head, _)| head.to_string()).collect();
        format!("read by {}: {}", heads.join(", "), percent(place.share))
    };
    let marked: Vec<(usize, String)> =
        places().filter_map(|place| Some((place.piece?, said(place)))).collect();
    let row = |place: &ReadPlace| {
        let at = match (place.distance, place.piece) {
            (None, _) => "BOS".into(),
            (Some(0), _) => "the token itself".into(),
            (Some(n), Some(_)) => format!("{n} before"),
            (Some(n), None) => format!("{n} before, outside of the window"),
        };
        let heads = place.heads.iter().map(|(head, _)| links.component(*head)).collect();
        (token(&place.token), at, percent(place.share), heads)
    };
    let text = text::read_from(&read.example, &marked, max);
    ReadRow {
        example: ExampleView { text, ..example(&read.example, max) },
        places: places().map(row).collect(),
    }
}

fn sources(links: Links, list: &[SourceShare]) -> Vec<SourceRow> {
    let longest = list.iter().map(|one| one.share).fold(0.0, f64::max);
    let row = |one: &SourceShare| SourceRow {
        what: match &one.source {
            Source::Read(_) | Source::Token(_) | Source::Feature(_) => String::new(),
            other => other.said(),
        },
        token: match &one.source {
            Source::Read(text) | Source::Token(text) => Some(token(text)),
            _ => None,
        },
        own: matches!(one.source, Source::Token(_)),
        feature: match one.source {
            Source::Feature(id) => Some(links.feature(id)),
            _ => None,
        },
        gist: match one.source {
            Source::Feature(id) => text::prose(&links.site.gist(id), SHORT),
            _ => text::prose("", SHORT),
        },
        head: one.head.map(|head| links.component(head)),
        share: percent(one.share),
        texts: one.texts,
        width: width(one.share, longest),
    };
    list.iter().map(row).collect()
}

fn profiles(why: &Why) -> Vec<ProfileView> {
    let all = [
        ("Tokens", "token", &why.tokens, true),
        ("Tokens before", "token before", &why.previous, true),
        ("Tokens after", "token after", &why.next, true),
        ("Position in the document", "position", &why.text, false),
        ("Position in the sentence", "position", &why.sentence, false),
    ];
    let view = |(caption, what, rows, tokens): (_, _, &Vec<ProfileShare>, bool)| ProfileView {
        caption,
        what,
        rows: rows.iter().map(|share| profile_row(share, tokens)).collect(),
    };
    all.into_iter().filter(|(.., rows, _)| !rows.is_empty()).map(view).collect()
}

fn profile_row(share: &ProfileShare, is_token: bool) -> ProfileRow {
    let part = share.active as f64 / share.tokens.max(1) as f64;
    ProfileRow {
        what: if is_token { token(&share.what) } else { text::prose(&share.what, SHORT) },
        active: count(share.active),
        tokens: count(share.tokens),
        share: percent(part),
        mean: significant(share.mean, 2),
    }
}

fn before_row(one: &BeforeShare) -> BeforeRow {
    BeforeRow {
        token: token(&one.token),
        at: match one.distance {
            Some(1) => "right before".into(),
            Some(n) => format!("{n} before"),
            None => "anywhere before".into(),
        },
        active: count(one.active),
        tokens: count(one.tokens),
    }
}
