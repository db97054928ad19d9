//! A feature: what it is active at, what it promotes, where it serves, and how well all that is
//! explained.

use super::explained::{About, ExplanationView, ImportedView};
use super::intervention_links::{InterventionLinkRow, intervention_link_row};
use super::parts::{
    BandView, CircuitPairRow, CorpusPairRow, LogitsView, Page, ServingRow, bands,
    circuit_pair_from, corpus_pair, describe, serving,
};
use super::scores::ScoresView;
use super::why::WhyView;
use crate::atlas::model::{Feature, Task};
use crate::format::number::{count, percent, significant};
use crate::ids::Kind;
use crate::site::links::{Links, PageLink, Site};
use crate::site::svg;
use crate::site::text::{Html, token};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct FeatureView {
    page: Page,
    what: String,
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
    corpus_pairs: Vec<CorpusPairRow>,
    corpus_total: String,
    circuit_pairs: Vec<CircuitPairRow>,
    circuit_total: String,
    /// Its links that were run, by task.
    live: Vec<(PageLink, Vec<InterventionLinkRow>)>,
    /// Whether less came of one of them than a quarter of what its attribution predicts.
    doubtful: bool,
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
            explanation: ExplanationView::of(links, about),
            imported: f.imported.iter().map(|i| ImportedView::of(i, &f.evaluations)).collect(),
            active: count(f.active),
            density: percent(f.density),
            one_in: if f.density > 0.0 { significant(1.0 / f.density, 2) } else { String::new() },
            mean_active: significant(f.mean_active, 3),
            max: significant(f.max, 3),
            special_active: count(f.special_active),
            histogram: svg::histogram(&f.histogram, f.max),
            inactive: f.active == 0,
            mass: mass(&f.mass),
            logits: LogitsView::of(&f.promoted, &f.suppressed),
            servings: f.servings.iter().map(|s| serving(links, s)).collect(),
            bands: bands(&f.examples, f.max),
            corpus_pairs: f.corpus_pairs.iter().map(|p| corpus_pair(links, f.id, p)).collect(),
            corpus_total: beyond(f.corpus_pairs.len(), f.corpus_total),
            circuit_pairs: circuit_pairs
                .map(|(task, p)| circuit_pair_from(links, f.id, task, p))
                .collect(),
            circuit_total: beyond(f.circuit_pairs.len(), f.circuit_total),
            doubtful: site
                .atlas
                .tasks
                .iter()
                .flat_map(|t| &t.links)
                .any(|l| l.feature == f.id && l.short),
            live,
            scores: ScoresView::of(links, f),
            why: WhyView::of(links, f),
            previous: at.checked_sub(1).and_then(|i| all.get(i)).map(|f| links.feature(f.id)),
            next: all.get(at + 1).map(|f| links.feature(f.id)),
        }
    }
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

fn what(f: &Feature) -> String {
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
