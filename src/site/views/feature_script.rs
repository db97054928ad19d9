//! What graphs show of a feature beside the picture: one script for all of them, which a page loads
//! when its feature is chosen.

use super::contexts::{Active, active};
use super::parts::{ExampleView, LogitsView, describe, example};
use crate::atlas::model::{Feature, PromotedToken};
use crate::format::number::{percent, significant};
use crate::ids::Band;
use crate::site::links::{Links, PageLink, Site};
use crate::site::text::{self, Html};
use serde::Serialize;

/// Characters of the explanation.
const SAID: usize = 400;
/// Examples, and promoted tokens of each side.
const EXAMPLES: usize = 4;
const TOKENS: usize = 6;

#[derive(Serialize)]
pub(crate) struct FeatureScript {
    id: String,
    what: String,
    said: Html,
    density: String,
    max: String,
    logits: LogitsView,
    examples: Vec<ExampleView>,
    /// Where it is active in the contexts of its examples.
    active: Active,
    /// Tasks whose circuits have it.
    tasks: Vec<PageLink>,
}

impl FeatureScript {
    pub(crate) fn new(site: &Site, f: &Feature) -> FeatureScript {
        let links = site.in_folder();
        let top = f.examples.iter().filter(|e| e.band == Band::Top);
        FeatureScript {
            id: f.id.to_string(),
            what: super::feature::what(f),
            said: text::prose(&describe(f.explanation.as_ref(), site.gist(f.id)), SAID),
            density: percent(f.density),
            max: significant(f.max, 3),
            logits: LogitsView::of(first(&f.promoted), first(&f.suppressed)),
            examples: top.take(EXAMPLES).map(|e| example(e, f.max)).collect(),
            active: active(&f.examples, f.max),
            tasks: tasks(links, f),
        }
    }
}

fn first(list: &[PromotedToken]) -> &[PromotedToken] {
    &list[..list.len().min(TOKENS)]
}

fn tasks(links: Links, f: &Feature) -> Vec<PageLink> {
    let mut names: Vec<&str> = f.servings.iter().map(|s| s.task.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| links.task(name)).collect()
}
