//! Features looked at together: two that serve together, or a set that somebody chose.

use super::explained::{About, ExplanationView};
use super::parts::{
    CircuitPairRow, CorpusPairRow, ExampleView, LogitsView, Page, circuit_pair, corpus_pair,
    describe, example, gist, hottest, q_below,
};
use super::strip::StripView;
use crate::atlas::model::{Group, Pair, Serving};
use crate::format::number::{counted, percent, significant};
use crate::ids::FeatureId;
use crate::site::links::{Links, PageLink, Site, in_order, pair_path};
use crate::site::text::Html;
use serde::Serialize;

/// One of the features.
#[derive(Serialize)]
struct Member {
    link: PageLink,
    gist: Html,
    density: String,
    max: String,
    /// Where it serves: tasks, with components of each.
    servings: Vec<(PageLink, Vec<PageLink>)>,
}

fn member(links: Links, id: FeatureId) -> Member {
    let feature = links.site.feature(id);
    Member {
        link: links.feature(id),
        gist: gist(links, id),
        density: feature.map_or_else(|| "—".into(), |f| percent(f.density)),
        max: feature.map_or_else(|| "—".into(), |f| significant(f.max, 3)),
        servings: feature.map(|f| serves(links, &f.servings)).unwrap_or_default(),
    }
}

/// The first few places where a feature serves, by task in the order in which they come.
fn serves(links: Links, servings: &[Serving]) -> Vec<(PageLink, Vec<PageLink>)> {
    let mut tasks: Vec<(PageLink, Vec<PageLink>)> = Vec::new();
    for serving in servings.iter().take(8) {
        let component = links.component(serving.component);
        match tasks.iter_mut().find(|(task, _)| task.text == serving.task) {
            Some((_, components)) => components.push(component),
            None => tasks.push((links.task(&serving.task), vec![component])),
        }
    }
    tasks
}

#[derive(Serialize)]
pub(crate) struct PairView {
    page: Page,
    members: Vec<Member>,
    strip: StripView,
    explanation: Option<ExplanationView>,
    circuit: Vec<CircuitPairRow>,
    corpus: Vec<CorpusPairRow>,
    /// What all their q-values are, where they are tiny.
    corpus_q: Option<String>,
    logits: LogitsView,
    examples: Vec<ExampleView>,
}

impl PairView {
    pub(crate) fn new(site: &Site, p: &Pair) -> PairView {
        let links = site.in_folder();
        let (a, b) = in_order(p.a, p.b);
        let otherwise = format!("Features {a} and {b}: their circuits and co-occurrence.");
        let max = hottest(&p.examples);
        let path = pair_path(a, b);
        let about = About {
            path: &path,
            explanation: p.explanation.as_ref(),
            asked: p.asked.as_ref(),
            evaluations: &[],
        };
        PairView {
            page: Page::new(
                links,
                "pairs",
                &path,
                format!("{a} + {b}"),
                describe(p.explanation.as_ref(), otherwise),
            ),
            members: vec![member(links, a), member(links, b)],
            strip: StripView::of_pair(links, p),
            explanation: ExplanationView::of(links, about),
            circuit: p.circuit.iter().map(|(task, c)| circuit_pair(links, task, c)).collect(),
            corpus_q: q_below(p.corpus.iter()),
            corpus: p.corpus.iter().map(|c| corpus_pair(links, p.a, c)).collect(),
            logits: LogitsView::of(&p.promoted, &p.suppressed),
            examples: p.examples.iter().map(|e| example(e, max)).collect(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct GroupView {
    page: Page,
    members: Vec<Member>,
    strip: StripView,
    explanation: Option<ExplanationView>,
    logits: LogitsView,
    examples: Vec<ExampleView>,
    /// Pairs among the members that have a page.
    pairs: Vec<PageLink>,
}

impl GroupView {
    pub(crate) fn new(site: &Site, g: &Group) -> GroupView {
        let links = site.in_folder();
        let otherwise = format!("Group of {}.", counted(g.features.len(), "feature"));
        let max = hottest(&g.examples);
        let description = describe(g.explanation.as_ref(), otherwise);
        let path = format!("groups/{}.html", g.name);
        let about = About {
            path: &path,
            explanation: g.explanation.as_ref(),
            asked: g.asked.as_ref(),
            evaluations: &[],
        };
        GroupView {
            page: Page::new(links, "groups", &path, g.name.clone(), description),
            strip: StripView::of_group(links, &g.features),
            members: g.features.iter().map(|&f| member(links, f)).collect(),
            explanation: ExplanationView::of(links, about),
            logits: LogitsView::of(&g.promoted, &g.suppressed),
            examples: g.examples.iter().map(|e| example(e, max)).collect(),
            pairs: pairs_among(links, &g.features),
        }
    }
}

fn pairs_among(links: Links, features: &[FeatureId]) -> Vec<PageLink> {
    let two = features
        .iter()
        .enumerate()
        .flat_map(|(i, &a)| features[i + 1..].iter().map(move |&b| in_order(a, b)));
    two.map(|(a, b)| links.pair(&format!("{a} + {b}"), a, b))
        .filter(|link| link.href.is_some())
        .collect()
}
