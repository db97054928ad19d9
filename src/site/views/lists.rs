//! Everything of one kind in a table, and what the search looks through.

use super::explained::scores;
use super::parts::{Page, gist, gist_among};
use crate::atlas::model::{ComponentPage, Feature, Pair};
use crate::atlas::verdict::of_evaluation;
use crate::format::number::{counted, fixed, percent, significant};
use crate::format::text::plain;
use crate::ids::Lag;
use crate::site::links::{Links, PageLink, Site, gist_of};
use crate::site::text::Html;
use serde::Serialize;
use std::collections::BTreeSet;

#[derive(Serialize)]
pub(crate) struct FeaturesView {
    page: Page,
    total: String,
    /// Whether explanations were judged.
    judged: bool,
    rows: Vec<FeatureRow>,
}

#[derive(Serialize)]
struct FeatureRow {
    link: PageLink,
    tasks: Vec<PageLink>,
    components: Vec<PageLink>,
    prompts: u32,
    density: String,
    max: String,
    gist: Html,
    /// Of the explanation; none where it was not judged.
    score: Option<Score>,
}

/// The first score of an explanation, and how it compares with its nulls.
#[derive(Serialize)]
struct Score {
    value: String,
    mark: &'static str,
    words: String,
    class: &'static str,
}

impl FeaturesView {
    pub(crate) fn new(site: &Site) -> FeaturesView {
        let links = site.in_folder();
        let total = counted(site.atlas.features.len(), "feature");
        let description = format!("The {total} in the circuits, with explanations.");
        FeaturesView {
            page: Page::new(
                links,
                "features",
                "features/index.html",
                "Features".into(),
                description,
            ),
            total,
            judged: site.atlas.features.iter().any(|f| score(f).is_some()),
            rows: site.atlas.features.iter().map(|f| feature_row(links, f)).collect(),
        }
    }
}

fn feature_row(links: Links, f: &Feature) -> FeatureRow {
    let tasks: BTreeSet<&str> = f.servings.iter().map(|s| s.task.as_str()).collect();
    let components: BTreeSet<_> = f.servings.iter().map(|s| s.component).collect();
    FeatureRow {
        link: links.feature(f.id),
        tasks: tasks.into_iter().map(|t| links.task(t)).collect(),
        components: components.into_iter().map(|c| links.component(c)).collect(),
        prompts: f.servings.iter().map(|s| s.prompts).max().unwrap_or(0),
        density: percent(f.density),
        max: significant(f.max, 3),
        gist: gist(links, f.id),
        score: score(f),
    }
}

fn score(f: &Feature) -> Option<Score> {
    let first = *scores(f.explanation.as_ref()?, &f.evaluations).first()?;
    let judged = of_evaluation(first);
    Some(Score {
        value: first.score.map_or_else(|| "—".into(), |value| fixed(value, 2)),
        mark: judged.verdict.mark(),
        words: format!("{}: {}", first.method, judged.words),
        class: judged.verdict.class(),
    })
}

#[derive(Serialize)]
pub(crate) struct ComponentsView {
    page: Page,
    total: String,
    /// Whether a task has a published circuit.
    published: bool,
    rows: Vec<ComponentRow>,
}

#[derive(Serialize)]
struct ComponentRow {
    link: PageLink,
    tasks: Vec<(PageLink, String)>,
    classes: Vec<String>,
    features: usize,
    gist: Html,
}

impl ComponentsView {
    pub(crate) fn new(site: &Site) -> ComponentsView {
        let links = site.in_folder();
        let total = counted(site.atlas.components.len(), "component");
        let description = format!("The {total} in the circuits.");
        ComponentsView {
            page: Page::new(
                links,
                "components",
                "components/index.html",
                "Components".into(),
                description,
            ),
            total,
            published: site.atlas.components.iter().any(|c| !c.classes.is_empty()),
            rows: site.atlas.components.iter().map(|c| component_row(links, c)).collect(),
        }
    }
}

fn component_row(links: Links, c: &ComponentPage) -> ComponentRow {
    let features: BTreeSet<_> = c.features.iter().map(|s| s.feature).collect();
    ComponentRow {
        link: links.component(c.component),
        tasks: c
            .tasks
            .iter()
            .map(|(task, frequency)| (links.task(task), percent(*frequency)))
            .collect(),
        classes: c.classes.iter().filter_map(|class| class.class.clone()).collect(),
        features: features.len(),
        gist: gist_among(c.explanation.as_ref()),
    }
}

#[derive(Serialize)]
pub(crate) struct PairsView {
    page: Page,
    total: String,
    rows: Vec<PairRow>,
}

#[derive(Serialize)]
struct PairRow {
    link: PageLink,
    a: PageLink,
    b: PageLink,
    prompts: u32,
    share: String,
    npmi: String,
    gist: Html,
}

impl PairsView {
    pub(crate) fn new(site: &Site) -> PairsView {
        let links = site.in_folder();
        let total = counted(site.atlas.pairs.len(), "pair");
        let mut ranked: Vec<&Pair> = site.atlas.pairs.iter().collect();
        ranked.sort_by(|a, b| largest_share(b).total_cmp(&largest_share(a)));
        let description = format!(
            "The {total} of features with the strongest direct links in the \
             circuits."
        );
        PairsView {
            page: Page::new(links, "pairs", "pairs/index.html", "Pairs".into(), description),
            total,
            rows: ranked.into_iter().map(|p| pair_row(links, p)).collect(),
        }
    }
}

/// The share of direct links at the two components where it is largest.
fn largest_share(p: &Pair) -> f64 {
    p.circuit.iter().map(|(_, c)| c.share).fold(0.0, f64::max)
}

fn pair_row(links: Links, p: &Pair) -> PairRow {
    let same = p.corpus.iter().find(|c| c.lag == Lag::Same);
    PairRow {
        link: links.pair("open", p.a, p.b),
        a: links.feature(p.a),
        b: links.feature(p.b),
        prompts: p.circuit.iter().map(|(_, c)| c.prompts).max().unwrap_or(0),
        share: significant(largest_share(p), 3),
        npmi: same.map_or_else(|| "—".into(), |c| fixed(c.npmi, 2)),
        gist: gist_among(p.explanation.as_ref()),
    }
}

/// Entries of the search: name, file from the site's folder, a few words.
#[derive(Serialize)]
pub(crate) struct SearchView {
    entries: Vec<(String, String, String)>,
}

impl SearchView {
    pub(crate) fn new(site: &Site) -> SearchView {
        let atlas = site.atlas;
        let tasks = atlas
            .tasks
            .iter()
            .map(|t| (t.name.clone(), format!("tasks/{}.html", t.name), t.kind.clone()));
        let groups = atlas
            .groups
            .iter()
            .map(|g| (g.name.clone(), format!("groups/{}.html", g.name), "group".to_string()));
        let components = atlas.components.iter().map(|c| {
            let gist = c.explanation.as_ref().map(gist_of).unwrap_or_default();
            (c.component.to_string(), format!("components/{}.html", c.component), plain(&gist, 110))
        });
        let features = atlas.features.iter().map(|f| {
            (f.id.to_string(), format!("features/{}.html", f.id), plain(&site.gist(f.id), 110))
        });
        SearchView { entries: tasks.chain(groups).chain(components).chain(features).collect() }
    }
}
