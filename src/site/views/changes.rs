//! What changed from one run to the next: a page, a feed, and a line on each page that changed.

use super::parts::Page;
use crate::format::number::counted;
use crate::history::{Change, Changes, Of};
use crate::ids::Subject;
use crate::site::links::{Links, PageLink, Site, pair_path};
use serde::Serialize;
use std::collections::BTreeMap;

/// Changes of a kind that are listed; the rest is only counted.
const LISTED: usize = 200;
/// Changes that the line of a page tells of.
const TOLD: usize = 3;
/// The page's file, and the feed's.
pub(crate) const PAGE: &str = "changes.html";
pub(crate) const FEED: &str = "feed.xml";

#[derive(Serialize)]
pub(crate) struct ChangesView {
    page: Page,
    runs: Vec<RunView>,
    feed: bool,
}

/// What changed from the run before to this one.
#[derive(Serialize)]
struct RunView {
    name: String,
    when: String,
    /// As a feed writes it: `2026-01-31T04:05:00Z`.
    stamp: String,
    before: String,
    before_name: String,
    summary: String,
    causes: Vec<String>,
    parts: Vec<PartView>,
    /// Only the newest is open.
    open: bool,
}

#[derive(Serialize)]
struct PartView {
    title: &'static str,
    summary: String,
    rows: Vec<RowView>,
    more: usize,
}

#[derive(Serialize)]
struct RowView {
    name: PageLink,
    task: Option<PageLink>,
    what: String,
    before: String,
    after: String,
    /// Two texts, to be read one below the other.
    long: bool,
}

impl ChangesView {
    pub(crate) fn new(site: &Site) -> ChangesView {
        let links = site.at_root();
        let all = &site.atlas.changes;
        let run = |(i, changes): (usize, &Changes)| run_view(links, changes, i == 0);
        ChangesView {
            page: Page::new(
                links,
                "changes",
                PAGE,
                "What changed".into(),
                "What changed from one run to the next: circuits, faithfulness, explanations, \
                 scores, densities."
                    .into(),
            ),
            runs: all.iter().enumerate().map(run).collect(),
            feed: has_feed(site),
        }
    }
}

/// A feed needs the site's address.
pub(crate) fn has_feed(site: &Site) -> bool {
    !site.atlas.base_url.is_empty() && !site.atlas.changes.is_empty()
}

#[derive(Serialize)]
pub(crate) struct FeedView {
    title: String,
    base: String,
    updated: String,
    version: String,
    runs: Vec<RunView>,
}

impl FeedView {
    pub(crate) fn new(site: &Site) -> FeedView {
        let atlas = site.atlas;
        let links = site.at_root();
        let runs: Vec<RunView> =
            atlas.changes.iter().map(|changes| run_view(links, changes, false)).collect();
        FeedView {
            title: atlas.title.clone(),
            base: atlas.base_url.trim_end_matches('/').into(),
            updated: runs.first().map(|run| run.stamp.clone()).unwrap_or_default(),
            version: atlas.version.clone(),
            runs,
        }
    }
}

fn run_view(links: Links, changes: &Changes, open: bool) -> RunView {
    let changed = changes.counts.iter().filter(|(_, _, changed)| *changed > 0);
    RunView {
        name: changes.after.name.clone(),
        when: changes.after.when.clone(),
        stamp: stamp(&changes.after.when),
        before: changes.before.when.clone(),
        before_name: changes.before.name.clone(),
        summary: summary(changes),
        causes: changes.causes.clone(),
        parts: changed.map(|count| part(links, changes, *count)).collect(),
        open,
    }
}

/// How much changed, in a line.
fn summary(changes: &Changes) -> String {
    let told = |(of, _, changed): &(Of, usize, usize)| match changed {
        0 => None,
        n => Some(counted(*n, of.noun())),
    };
    let told: Vec<String> = changes.counts.iter().filter_map(told).collect();
    match told.is_empty() {
        true => "nothing beyond what intervals allow".into(),
        false => told.join(", "),
    }
}

fn part(links: Links, changes: &Changes, (of, compared, changed): (Of, usize, usize)) -> PartView {
    let own = changes.changes.iter().filter(|change| change.of == of);
    let rows: Vec<RowView> = own.take(LISTED).map(|change| row(links, change)).collect();
    PartView {
        title: of.title(),
        summary: format!("{changed} of {compared}"),
        more: changed - rows.len(),
        rows,
    }
}

fn row(links: Links, change: &Change) -> RowView {
    RowView {
        name: match path(links, change) {
            Some(path) => links.page(&change.name, &path),
            None => PageLink::plain(&change.name),
        },
        task: change
            .task
            .as_ref()
            .filter(|task| **task != change.name)
            .map(|task| links.task(task)),
        what: change.what.clone(),
        before: change.before.clone().unwrap_or_default(),
        after: change.after.clone().unwrap_or_default(),
        long: change.of == Of::Explanation,
    }
}

/// The page of what changed, if it has one.
fn path(links: Links, change: &Change) -> Option<String> {
    let there = |link: PageLink, path: String| link.href.map(|_| path);
    match &change.subject {
        Some(Subject::Feature(id)) => there(links.feature(*id), format!("features/{id}.html")),
        Some(Subject::Component(c)) => there(links.component(*c), format!("components/{c}.html")),
        Some(Subject::Pair(a, b)) => there(links.pair("", *a, *b), pair_path(*a, *b)),
        Some(Subject::Group(name)) => {
            let groups = &links.site.atlas.groups;
            groups.iter().any(|group| group.name == *name).then(|| format!("groups/{name}.html"))
        }
        None if change.of == Of::Dictionary => Some("dictionaries/index.html".into()),
        None => there(links.task(&change.name), format!("tasks/{}.html", change.name)),
    }
}

/// The line of each page that changed from the run before.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChangedLine {
    /// The run, as an anchor.
    run: String,
    before: String,
    what: Vec<String>,
    more: usize,
}

/// By the path of each page that changed, its line.
pub(crate) fn changed_lines(site: &Site) -> BTreeMap<String, ChangedLine> {
    let links = site.at_root();
    let Some(newest) = site.atlas.changes.first() else { return BTreeMap::new() };
    let new_line = || ChangedLine {
        run: newest.after.name.clone(),
        before: newest.before.when.clone(),
        what: Vec::new(),
        more: 0,
    };
    let mut lines: BTreeMap<String, ChangedLine> = BTreeMap::new();
    for change in &newest.changes {
        let own = path(links, change);
        let of_task = change
            .task
            .as_ref()
            .and_then(|task| links.task(task).href.map(|_| format!("tasks/{task}.html")));
        for (page, whole) in [(own, false), (of_task.filter(|_| change.subject.is_some()), true)] {
            let Some(page) = page else { continue };
            let line = lines.entry(page).or_insert_with(new_line);
            match line.what.len() < TOLD {
                true => line.what.push(words(change, whole)),
                false => line.more += 1,
            }
        }
    }
    let front = ChangedLine { what: vec![summary(newest)], ..new_line() };
    lines.insert("index.html".into(), front);
    lines
}

/// A change in a few words, on its own page or on that of its task.
fn words(change: &Change, on_task: bool) -> String {
    let Change { what, name, before, after, .. } = change;
    let name = if on_task { format!("{name} ") } else { String::new() };
    let of = match &change.task {
        Some(task) if !on_task && *task != change.name => format!(" of {task}"),
        _ => String::new(),
    };
    match (before, after) {
        _ if change.of == Of::Explanation => "another explanation".into(),
        (Some(before), Some(after)) => format!("{name}{what}{of} {before} → {after}"),
        _ => format!("{name}{what}{of}"),
    }
}

/// `2026-01-31 04:05 UTC` → `2026-01-31T04:05:00Z`
fn stamp(when: &str) -> String {
    match when.trim_end_matches(" UTC").split_once(' ') {
        Some((day, time)) => format!("{day}T{time}:00Z"),
        None => when.into(),
    }
}
