//! How to read the pages: every mark, colour and kind of number, each with an example of this atlas.

use super::glossary::meaning;
use super::graph::drawn;
use super::parts::{ExampleView, Page, example};
use crate::atlas::model::{Feature, Task};
use crate::format::number::{counted, fixed, percent, with_interval};
use crate::ids::{Component, Kind};
use crate::site::graph;
use crate::site::links::{Links, PageLink, Site, graph_path};
use crate::site::svg::{Cell, Mark, model_map, scale};
use crate::site::text::{Html, token};
use serde::Serialize;
use std::collections::BTreeMap;

/// The words that come up on most pages; all others are in the glossary.
const WORDS: [&str; 16] = [
    "feature",
    "dictionary",
    "component",
    "active",
    "circuit",
    "serves",
    "share",
    "link",
    "error-term",
    "faithfulness",
    "of-all",
    "ablation",
    "promoted",
    "half",
    "single-token-rule",
    "control",
];

#[derive(Serialize)]
pub(crate) struct HowToReadView {
    page: Page,
    /// A name, and what it names.
    names: Vec<(PageLink, String)>,
    example: Option<OfFeature>,
    /// A token, and what its marks say.
    marks: Vec<(Html, &'static str)>,
    map: Option<(PageLink, Html)>,
    graph: Option<OfGraph>,
    interval: String,
    /// A score beside its two baselines.
    score: Html,
    words: Vec<Word>,
}

#[derive(Serialize)]
struct OfFeature {
    link: PageLink,
    max: String,
    example: ExampleView,
}

#[derive(Serialize)]
struct OfGraph {
    link: PageLink,
    key: Vec<(Html, &'static str)>,
}

#[derive(Serialize)]
struct Word {
    anchor: &'static str,
    word: Html,
    meaning: Html,
}

impl HowToReadView {
    pub(crate) fn new(site: &Site) -> HowToReadView {
        let (links, atlas) = (site.at_root(), site.atlas);
        let description = "Names, colours, marks and numbers of these pages, with examples.".into();
        let word = |anchor| {
            let (word, meaning) = meaning(anchor, "glossary.html")?;
            Some(Word { anchor, word, meaning })
        };
        HowToReadView {
            page: Page::new(
                links,
                "how-to-read",
                "how-to-read.html",
                "How to read this".into(),
                description,
            ),
            names: names(links),
            example: atlas.features.iter().find_map(|f| of_feature(links, f)),
            marks: [
                (" Mary", "␣ is a space, here in front of a word. Most tokens of a text begin with one."),
                ("ing", "A token without ␣ goes on where the one before ends."),
                ("\n", "↵ is a line break, ⇥ a tab."),
                ("a\u{200b}", "A character that cannot be seen, or that would change the direction of the text, is shown by its Unicode number; a control character by its picture."),
            ]
            .map(|(text, means)| (token(text), means))
            .into(),
            map: atlas.tasks.first().map(|task| (links.task(&task.name), map(links, task))),
            graph: atlas.tasks.iter().find_map(|task| of_graph(links, task)),
            interval: with_interval(Some(0.83), Some(0.71), Some(0.94)),
            score: scale(
                "a score of 0.83 with its interval, above both baselines",
                Mark { value: Some(0.83), low: Some(0.71), high: Some(0.94) },
                &[("control", Some(0.52)), ("rule", Some(0.64))],
            ),
            words: WORDS.into_iter().filter_map(word).collect(),
        }
    }
}

fn names(links: Links) -> Vec<(PageLink, String)> {
    let atlas = links.site.atlas;
    let feature = |kind: Kind, what: &str| {
        let f = atlas.features.iter().find(|f| f.id.dictionary.kind == kind)?.id;
        let of = format!("feature {} of the {what} of layer {}", f.index, f.dictionary.layer);
        Some((links.feature(f), of))
    };
    let component = |head: bool| {
        let c =
            atlas.components.iter().map(|c| c.component).find(|c| c.head().is_some() == head)?;
        let layer = c.layer();
        let what = match c.head() {
            Some(head) => format!("attention head {head} of layer {layer}"),
            None => format!("the MLP of layer {layer}"),
        };
        Some((links.component(c), what))
    };
    let pair = atlas.pairs.first().map(|p| {
        let both = format!("{} + {}", p.a, p.b);
        (links.pair(&both, p.a, p.b), "two features looked at together".into())
    });
    let all = [
        feature(Kind::Attention, "attention SAE"),
        feature(Kind::Mlp, "MLP transcoder"),
        component(true),
        component(false),
        pair,
    ];
    all.into_iter().flatten().collect()
}

/// The first feature of which there is an example to see.
fn of_feature(links: Links, f: &Feature) -> Option<OfFeature> {
    let hottest = f.examples.iter().find(|e| e.value > 0.0)?;
    Some(OfFeature {
        link: links.feature(f.id),
        max: fixed(f.max, 2),
        example: example(hottest, f.max),
    })
}

fn of_graph(links: Links, task: &Task) -> Option<OfGraph> {
    let all = drawn(task);
    let one = all.first()?;
    let number = one.graph.number;
    Some(OfGraph {
        link: links.page(
            format!("{}, prompt {number}", task.name),
            &graph_path(&task.name, number, "html"),
        ),
        key: graph::key(&one.names(links)),
    })
}

/// How often each component is in the circuits of a task.
fn map(links: Links, task: &Task) -> Html {
    let cells: BTreeMap<Component, Cell> = task
        .components
        .iter()
        .map(|c| {
            let title =
                format!("{} of {}", percent(c.frequency), counted(task.prompts.len(), "prompt"));
            let label = fixed(c.frequency * 100.0, 0);
            (c.component, Cell { shade: c.frequency, label, title })
        })
        .collect();
    model_map(links, "components in the circuits of a task, in percent of prompts", &cells)
}
