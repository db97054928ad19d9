//! Which pages there are, and how one page links to another. A link to a page that is not there is
//! plain text.

use super::appearances::Appearances;
use super::text::{Html, escape, html};
use crate::atlas::model::{Atlas, Explanation, Feature};
use crate::error::{Result, hinted};
use crate::ids::Status;
use crate::ids::{Component, FeatureId};
use crate::summary::quoted;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A text that may lead somewhere.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PageLink {
    pub text: String,
    pub href: Option<Html>,
}

impl PageLink {
    pub(super) fn plain(text: impl Into<String>) -> PageLink {
        PageLink { text: text.into(), href: None }
    }
}

/// The atlas, and what it has a page for.
pub(super) struct Site<'a> {
    pub atlas: &'a Atlas,
    features: BTreeMap<FeatureId, &'a Feature>,
    components: BTreeSet<Component>,
    pairs: BTreeSet<(FeatureId, FeatureId)>,
    tasks: BTreeSet<&'a str>,
    /// What features without a page are.
    gists: BTreeMap<FeatureId, String>,
    /// There is one page and no other file.
    pub alone: bool,
    /// In which graphs everything is.
    pub appearances: Appearances<'a>,
    /// Contexts whose texts are in one file: as many as fit.
    pub texts_at_once: u32,
}

/// Tokens of the texts in one file.
const TOKENS_AT_ONCE: usize = 8192;

impl<'a> Site<'a> {
    /// # Errors
    /// When a task or a group has a name that cannot be a file's.
    pub(super) fn new(atlas: &'a Atlas) -> Result<Site<'a>> {
        atlas
            .tasks
            .iter()
            .map(|t| t.name.as_str())
            .try_for_each(|name| check_name("task", name))?;
        atlas
            .groups
            .iter()
            .map(|g| g.name.as_str())
            .try_for_each(|name| check_name("group", name))?;
        let longest = atlas.texts.values().map(|text| text.tokens.len()).max().unwrap_or(1);
        Ok(Site {
            atlas,
            features: atlas.features.iter().map(|f| (f.id, f)).collect(),
            components: atlas.components.iter().map(|c| c.component).collect(),
            pairs: atlas.pairs.iter().map(|p| in_order(p.a, p.b)).collect(),
            tasks: atlas.tasks.iter().map(|t| t.name.as_str()).collect(),
            gists: BTreeMap::new(),
            alone: false,
            appearances: Appearances::of(atlas),
            texts_at_once: (TOKENS_AT_ONCE / longest.max(1)).max(1) as u32,
        })
    }

    /// Of an atlas of one prompt, for a page that needs no other file. Features have no pages;
    /// `gists` says what they are.
    ///
    /// # Errors
    /// As of [`Site::new`].
    pub(super) fn alone(atlas: &'a Atlas, gists: BTreeMap<FeatureId, String>) -> Result<Site<'a>> {
        Ok(Site { gists, alone: true, ..Site::new(atlas)? })
    }

    pub(super) fn feature(&self, id: FeatureId) -> Option<&'a Feature> {
        self.features.get(&id).copied()
    }

    /// What a feature is, tokens in backticks; empty of one of which nothing is known.
    pub(super) fn gist(&self, id: FeatureId) -> String {
        let of_page = self.feature(id).map(gist);
        of_page.or_else(|| self.gists.get(&id).cloned()).unwrap_or_default()
    }

    /// Links as seen from the front page.
    pub(super) fn at_root(&self) -> Links<'_> {
        Links { site: self, root: "" }
    }

    /// Links as seen from most other pages, which are one folder down.
    pub(super) fn in_folder(&self) -> Links<'_> {
        Links { site: self, root: "../" }
    }

    /// Links as seen from a page that is about another page (see [`exchange_path`]).
    pub(super) fn two_down(&self) -> Links<'_> {
        Links { site: self, root: "../../" }
    }
}

/// Names of tasks and groups become file names and parts of URLs. The settings promise this; a
/// wrong one would write outside of the folder.
fn check_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.is_empty() && name != "index" && name.chars().all(plain) {
        return Ok(());
    }
    Err(hinted(
        format!("the {what} `{name}` cannot have a page"),
        "give it a name of lower-case letters, digits and `-`, as it becomes a file name",
    ))
}

/// The explanation if there is one, else the tokens that it is active at.
fn gist(feature: &Feature) -> String {
    match feature.explanation.as_ref().map(gist_of) {
        Some(text) if !text.is_empty() => text,
        _ => feature
            .mass
            .iter()
            .take(5)
            .map(|(token, _)| quoted(token))
            .collect::<Vec<_>>()
            .join(" · "),
    }
}

/// An explanation in one line, tokens in backticks: what it says of the whole, else of what makes
/// it active. Empty when there is none.
pub(super) fn gist_of(explanation: &Explanation) -> String {
    match lead(explanation) {
        _ if explanation.status != Status::Ok => String::new(),
        "" => explanation.input_side.clone(),
        text => text.into(),
    }
}

/// What an explanation says besides its two sides; empty where they are all of it.
pub(super) fn lead(explanation: &Explanation) -> &str {
    let Explanation { text, input_side, output_side, .. } = explanation;
    let sides = !input_side.is_empty() && !output_side.is_empty();
    if sides && text.contains(input_side) && text.contains(output_side) { "" } else { text }
}

/// Two features in the alphabetical order of their names, which is not that of their ids: `att10.1`
/// before `att9.1`.
pub(super) fn in_order(a: FeatureId, b: FeatureId) -> (FeatureId, FeatureId) {
    if a.to_string() <= b.to_string() { (a, b) } else { (b, a) }
}

/// `pairs/A--B.html`
pub(super) fn pair_path(a: FeatureId, b: FeatureId) -> String {
    let (a, b) = in_order(a, b);
    format!("pairs/{a}--{b}.html")
}

/// Where the page of a pair was in version 0.1.0. Some servers read `+` as a space.
pub(super) fn old_pair_path(a: FeatureId, b: FeatureId) -> String {
    pair_path(a, b).replace("--", "+")
}

/// `graphs/TASK-N.html`, and the same as a file for other programs.
pub(super) fn graph_path(task: &str, number: u32, ending: &str) -> String {
    format!("graphs/{task}-{number}.{ending}")
}

/// `features/att9.1.json`: what is on a page, for other programs.
pub(super) fn json_path(page: &str) -> String {
    format!("{}.json", page.strip_suffix(".html").unwrap_or(page))
}

/// `exchanges/features/att9.1.html`: what was asked about the subject of a page. The page's own
/// folder is in it, so that a group that is called `l9h9` and the head are two, also on disks that
/// know no capitals.
pub(super) fn exchange_path(page: &str) -> String {
    format!("exchanges/{page}")
}

/// A link within the page.
pub(super) fn plain_href(href: &str) -> Html {
    html(escape(href))
}

/// Links from one page.
#[derive(Clone, Copy)]
pub(super) struct Links<'a> {
    pub site: &'a Site<'a>,
    /// From the page to the site's folder: empty, `../` or `../../`.
    pub root: &'static str,
}

impl Links<'_> {
    /// To a file of the site, given from its folder.
    pub(super) fn page(&self, text: impl Into<String>, path: &str) -> PageLink {
        PageLink { text: text.into(), href: Some(self.href(path)) }
    }

    pub(super) fn href(&self, path: &str) -> Html {
        html(format!("{}{}", self.root, escape(path)))
    }

    fn page_if(&self, there: bool, text: String, path: String) -> PageLink {
        if there { self.page(text, &path) } else { PageLink::plain(text) }
    }

    pub(super) fn feature(&self, id: FeatureId) -> PageLink {
        self.page_if(
            self.site.features.contains_key(&id),
            id.to_string(),
            format!("features/{id}.html"),
        )
    }

    pub(super) fn component(&self, c: Component) -> PageLink {
        self.page_if(
            self.site.components.contains(&c),
            c.to_string(),
            format!("components/{c}.html"),
        )
    }

    pub(super) fn task(&self, name: &str) -> PageLink {
        self.page_if(self.site.tasks.contains(name), name.into(), format!("tasks/{name}.html"))
    }

    pub(super) fn pair(&self, text: &str, a: FeatureId, b: FeatureId) -> PageLink {
        self.page_if(self.site.pairs.contains(&in_order(a, b)), text.into(), pair_path(a, b))
    }
}
