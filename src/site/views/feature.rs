//! A feature: what it is active at, what it promotes, where it serves, and how well all that is
//! explained.

use super::explained::{About, ExplanationView, ImportedView};
use super::intervention_links::{InterventionLinkRow, intervention_link_row, warning};
use super::parts::{
    BandView, CircuitPairRow, CorpusPairRow, LogitsView, Page, ServingRow, bands,
    circuit_pair_from, corpus_pair, describe, gist, q_below, serving,
};
use super::scores::ScoresView;
use super::strip::StripView;
use super::why::WhyView;
use crate::atlas::model::{CorpusPair, Feature, Similar, Task};
use crate::format::number::{count, counted, fixed, percent, significant};
use crate::ids::{FeatureId, Kind, Lag};
use crate::site::links::{Links, PageLink, Site};
use crate::site::svg;
use crate::site::text::{Html, token};
use crate::stats::STANDS_OUT;
use serde::Serialize;
use std::cmp::Ordering;

#[derive(Serialize)]
pub(crate) struct FeatureView {
    page: Page,
    what: String,
    strip: StripView,
    explanation: Option<ExplanationView>,
    /// What others say: who, of what, and with what scores.
    imported: Vec<ImportedView>,
    active: String,
    density: String,
    one_in: String,
    mean_active: String,
    max: String,
    special_active: String,
    histogram: Html,
    inactive: bool,
    mass: Vec<MassRow>,
    logits: LogitsView,
    servings: Vec<ServingRow>,
    bands: Vec<BandView>,
    /// Features with which it meets: at the same token, before it, after it.
    corpus_pairs: Vec<CorpusPairRow>,
    corpus_total: String,
    /// What all q-values of these pairs are, where they are tiny.
    corpus_q: Option<String>,
    circuit_pairs: Vec<CircuitPairRow>,
    similar: Vec<SimilarRow>,
    /// Contexts in a file of texts.
    per_file: u32,
    circuit_total: String,
    /// Its links that were run, by task.
    live: Vec<(PageLink, Vec<InterventionLinkRow>)>,
    /// What is to be said where one of them does not do what its attribution says.
    doubtful: Option<String>,
    scores: Option<ScoresView>,
    why: Option<WhyView>,
    previous: Option<PageLink>,
    next: Option<PageLink>,
}

#[derive(Serialize)]
struct MassRow {
    token: Html,
    share: String,
    /// Length of its bar in percent of the longest.
    width: String,
}

impl FeatureView {
    /// `at` is the feature's place in the atlas.
    pub(crate) fn new(site: &Site, at: usize) -> FeatureView {
        let (links, all) = (site.in_folder(), &site.atlas.features);
        let f = &all[at];
        let name = f.id.to_string();
        let description = describe(f.explanation.as_ref(), format!("{}.", what(f)));
        let circuit_pairs = f.circuit_pairs.iter();
        let live = live(site, links, f);
        let path = format!("features/{name}.html");
        let about = About {
            path: &path,
            explanation: f.explanation.as_ref(),
            asked: f.asked.as_ref(),
            evaluations: &f.evaluations,
        };
        FeatureView {
            page: Page::new(links, "features", &path, name, description),
            what: what(f),
            strip: StripView::of_feature(links, f),
            explanation: ExplanationView::of(links, about),
            imported: f.imported.iter().map(|i| ImportedView::of(i, &f.evaluations)).collect(),
            active: count(f.active),
            density: percent(f.density),
            one_in: if f.density > 0.0 { significant(1.0 / f.density, 2) } else { String::new() },
            mean_active: significant(f.mean_active, 3),
            max: significant(f.max, 3),
            special_active: count(f.special_active),
            histogram: svg::histogram(&f.histogram, f.max.into()),
            inactive: f.active == 0,
            mass: mass(&f.mass),
            logits: LogitsView::at_max(&f.promoted, &f.suppressed, f.max),
            servings: f.servings.iter().map(|s| serving(links, s)).collect(),
            bands: bands(&f.examples, f.max),
            corpus_pairs: neighbours(links, f),
            corpus_q: q_below(f.corpus_pairs.iter()),
            similar: f.similar.iter().map(|one| similar(links, f.id, one)).collect(),
            per_file: site.texts_at_once,
            corpus_total: beyond(f.corpus_pairs.len(), f.corpus_total),
            circuit_pairs: circuit_pairs
                .map(|(task, p)| circuit_pair_from(links, f.id, task, p))
                .collect(),
            circuit_total: beyond(f.circuit_pairs.len(), f.circuit_total),
            doubtful: warning(
                site.atlas.tasks.iter().flat_map(|t| &t.links).filter(|l| l.feature == f.id),
            ),
            live,
            scores: ScoresView::of(links, f),
            why: WhyView::of(links, f),
            previous: at.checked_sub(1).and_then(|i| all.get(i)).map(|f| links.feature(f.id)),
            next: all.get(at + 1).map(|f| links.feature(f.id)),
        }
    }
}

/// A feature that writes alike.
#[derive(Serialize)]
struct SimilarRow {
    feature: PageLink,
    gist: Html,
    cosine: String,
    /// Length of its bar in percent.
    width: String,
    place: String,
    density: String,
    /// No more similar than random directions are.
    noise: bool,
}

fn similar(links: Links, of: FeatureId, one: &Similar) -> SimilarRow {
    let (own, other) = (of.dictionary, one.other.dictionary);
    let place = match (own.kind == other.kind, other.layer.cmp(&own.layer)) {
        (true, Ordering::Equal) => "same dictionary".into(),
        (_, Ordering::Equal) => "same layer".into(),
        (_, Ordering::Less) => layers(own.layer - other.layer, "before"),
        (_, Ordering::Greater) => layers(other.layer - own.layer, "after"),
    };
    SimilarRow {
        feature: links.feature(one.other),
        gist: gist(links, one.other),
        cosine: fixed(one.cosine, 2),
        width: format!("{:.0}", one.cosine.clamp(0.0, 1.0) * 100.0),
        place,
        density: links.site.feature(one.other).map(|f| percent(f.density)).unwrap_or_default(),
        noise: one.z <= STANDS_OUT,
    }
}

fn layers(n: usize, side: &str) -> String {
    format!("{} {side}", counted(n, "layer"))
}

/// Features with which it meets: at the same token, before it, after it.
fn neighbours(links: Links, f: &Feature) -> Vec<CorpusPairRow> {
    let mut all: Vec<&CorpusPair> = f.corpus_pairs.iter().collect();
    // Stable: the closest stay first.
    all.sort_by_key(|p| match (p.lag, p.first) {
        (Lag::Same, _) => 0,
        (Lag::Window, false) => 1,
        (Lag::Window, true) => 2,
    });
    all.into_iter().map(|p| corpus_pair(links, f.id, p)).collect()
}

/// The links from a feature that were run, by task.
fn live(site: &Site, links: Links, f: &Feature) -> Vec<(PageLink, Vec<InterventionLinkRow>)> {
    let own = |task: &Task| -> Vec<InterventionLinkRow> {
        task.links
            .iter()
            .filter(|l| l.feature == f.id)
            .map(|l| intervention_link_row(links, l))
            .collect()
    };
    let tasks = site.atlas.tasks.iter().map(|task| (links.task(&task.name), own(task)));
    tasks.filter(|(_, rows)| !rows.is_empty()).collect()
}

/// Which feature of which dictionary it is.
pub(super) fn what(f: &Feature) -> String {
    let dictionary = match f.id.dictionary.kind {
        Kind::Attention => "attention SAE",
        Kind::Mlp => "MLP transcoder",
    };
    format!("Feature {} of the {dictionary} of layer {}", f.id.index, f.id.dictionary.layer)
}

/// How many there are, where not all are shown.
fn beyond(shown: usize, all: u64) -> String {
    if all > shown as u64 {
        format!("The {shown} strongest of {}.", count(all))
    } else {
        String::new()
    }
}

fn mass(mass: &[(String, f64)]) -> Vec<MassRow> {
    let longest = mass.first().map_or(0.0, |m| m.1);
    let width =
        |share: f64| format!("{:.0}", if longest > 0.0 { share / longest * 100.0 } else { 0.0 });
    mass.iter()
        .map(|(text, s)| MassRow { token: token(text), share: percent(*s), width: width(*s) })
        .collect()
}
