//! Writes the site: one visible list of all pages, each with its template and its view, rendered
//! side by side.

use super::data::schema;
use super::links::{Site, exchange_path, json_path, old_pair_path, pair_path};
use super::lists::{self, Lists};
use super::manifest::{Hashes, Manifest};
use super::text::html;
use super::views::{
    CardView, ChangedLine, ChangesView, ComponentView, DataView, DictionariesView, Drawn, FEED,
    FeatureScript, FeatureView, FeedView, GlossaryView, GraphView, GraphsView, GroupView,
    HowToReadView, IndexView, ListView, MissingView, MovedView, PAGE, PairView, PlainListView,
    SearchPageView, TaskGraphsView, TaskView, TasksView, TextsScript, TranscriptsView, Way,
    changed_lines, drawn, graph_pages, has_feed, subjects, text_files,
};
use super::{crawlers, hashes, policy, social, widths};
use crate::artifact::give;
use crate::atlas::answers::{FeatureAnswer, TogetherAnswer, strength};
use crate::atlas::model::{Atlas, DataTable, Feature, SiteData, Task};
use crate::error::{Context, Hint, Result};
use crate::format::text::{harmless_json, without_controls};
use crate::ids::FeatureId;
use crate::process;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior, context};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Templates by name; the ending decides how what is put into them is escaped.
const TEMPLATES: &[(&str, &str)] = &[
    ("base.html", include_str!("../../templates/base.html")),
    ("parts.html", include_str!("../../templates/parts.html")),
    ("explained.html", include_str!("../../templates/explained.html")),
    ("exchanges.html", include_str!("../../templates/exchanges.html")),
    ("scores.html", include_str!("../../templates/scores.html")),
    ("head.html", include_str!("../../templates/head.html")),
    ("circuit.html", include_str!("../../templates/circuit.html")),
    ("strip.html", include_str!("../../templates/strip.html")),
    ("index.html", include_str!("../../templates/index.html")),
    ("task.html", include_str!("../../templates/task.html")),
    ("graph.html", include_str!("../../templates/graph.html")),
    ("data.html", include_str!("../../templates/data.html")),
    ("graph.json", include_str!("../../templates/graph.json")),
    ("faithful.html", include_str!("../../templates/faithful.html")),
    ("dictionaries.html", include_str!("../../templates/dictionaries.html")),
    ("component.html", include_str!("../../templates/component.html")),
    ("feature.html", include_str!("../../templates/feature.html")),
    ("feature.js", include_str!("../../templates/feature.js")),
    ("contexts.js", include_str!("../../templates/contexts.js")),
    ("panel.html", include_str!("../../templates/panel.html")),
    ("pair.html", include_str!("../../templates/pair.html")),
    ("group.html", include_str!("../../templates/group.html")),
    ("glossary.html", include_str!("../../templates/glossary.html")),
    ("rows.html", include_str!("../../templates/rows.html")),
    ("list.html", include_str!("../../templates/list.html")),
    ("plain.html", include_str!("../../templates/plain.html")),
    ("search.html", include_str!("../../templates/search.html")),
    ("tasks.html", include_str!("../../templates/tasks.html")),
    ("graphs.html", include_str!("../../templates/graphs.html")),
    ("graphs_of_task.html", include_str!("../../templates/graphs_of_task.html")),
    ("graph_rows.html", include_str!("../../templates/graph_rows.html")),
    ("changes.html", include_str!("../../templates/changes.html")),
    ("feed.xml", include_str!("../../templates/feed.xml")),
    ("how-to-read.html", include_str!("../../templates/how-to-read.html")),
    ("card.html", include_str!("../../templates/card.html")),
    ("missing.html", include_str!("../../templates/missing.html")),
    ("moved.html", include_str!("../../templates/moved.html")),
];

/// Files that are the same in every site, besides the style sheet.
const ASSETS: &[(&str, &str)] = &[
    ("theme.js", THEME_SCRIPT),
    ("atlas.js", SCRIPT),
    ("icon.svg", ICON),
    ("graph.js", GRAPH_SCRIPT),
    ("examples.js", include_str!("../../templates/examples.js")),
    ("search.js", include_str!("../../templates/search.js")),
    ("noscript.css", include_str!("../../templates/noscript.css")),
    ("list.js", include_str!("../../templates/list.js")),
    ("copy.js", include_str!("../../templates/copy.js")),
];
const THEME_SCRIPT: &str = include_str!("../../templates/theme.js");
const SCRIPT: &str = include_str!("../../templates/atlas.js");
const GRAPH_SCRIPT: &str = include_str!("../../templates/graph.js");
const ICON: &str = include_str!("../../templates/icon.svg");
const STYLE: &str = "style.css";

/// Pages and other files that are in the site's own folder, but for those in whose place a user may
/// keep one of his own (`foreign`).
const AT_ROOT: &[&str] =
    &["index.html", "glossary.html", "how-to-read.html", "card.html", "search.html", PAGE, FEED];

fn style() -> String {
    format!("{}{}", include_str!("../../templates/style.css"), widths::rules())
}

/// The folders of the site, and how the names of files in them end.
const FOLDERS: &[(&str, &[&str])] = &[
    ("contexts", &["js"]),
    ("data", &["html", "json", "parquet"]),
    ("tasks", &["html", "json"]),
    ("cards", &["json", "png"]),
    ("cards/tasks", &["png"]),
    ("cards/graphs", &["png"]),
    ("graphs", &["html", "json"]),
    ("dictionaries", &["html"]),
    ("components", &["html", "json"]),
    ("features", &["html", "js", "json"]),
    ("pairs", &["html", "json"]),
    ("groups", &["html", "json"]),
    ("lists", &["html"]),
    ("search", &["js"]),
    ("exchanges/components", &["html"]),
    ("exchanges/features", &["html"]),
    ("exchanges/pairs", &["html"]),
    ("exchanges/groups", &["html"]),
];

/// Whether a file of the site may have this path, by folder and ending alone.
pub(super) fn may_write(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else {
        return AT_ROOT.contains(&path)
            || path == STYLE
            || ASSETS.iter().any(|(asset, _)| *asset == path);
    };
    // Tables in parts have folders of their own.
    (folder.starts_with("data/") && name.ends_with(".parquet")) || is_among(FOLDERS, folder, name)
}

/// Whether a folder and the ending of a file in it are among these.
fn is_among(folders: &[(&str, &[&str])], folder: &str, name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    folders.iter().any(|(known, endings)| *known == folder && endings.contains(&ending))
}

/// What versions wrote whose mark lists no files. Nothing is to be added here: there it would be a
/// user's.
const ONCE_AT_ROOT: &[&str] =
    &["index.html", "glossary.html", "search.js", "style.css", "atlas.js"];
const ONCE_IN_FOLDERS: &[(&str, &[&str])] = &[
    ("tasks", &["html"]),
    ("graphs", &["html", "json"]),
    ("dictionaries", &["html"]),
    ("components", &["html"]),
    ("features", &["html"]),
    ("pairs", &["html"]),
    ("groups", &["html"]),
    ("exchanges/components", &["html"]),
    ("exchanges/features", &["html"]),
    ("exchanges/pairs", &["html"]),
    ("exchanges/groups", &["html"]),
];

/// Whether such a version may have written a file of this path.
pub(super) fn wrote_once(path: &str) -> bool {
    match path.rsplit_once('/') {
        None => ONCE_AT_ROOT.contains(&path),
        Some((folder, name)) => is_among(ONCE_IN_FOLDERS, folder, name),
    }
}

/// Whether its files may be in a folder, or in one below it.
pub(super) fn held_once(folder: &str) -> bool {
    ONCE_IN_FOLDERS.iter().any(|(known, _)| Path::new(known).starts_with(folder))
}

/// A file to be rendered.
struct File<'a> {
    path: String,
    template: &'static str,
    view: Box<dyn Fn() -> Value + Send + Sync + 'a>,
}

fn file<'a, V: Serialize>(
    path: impl Into<String>,
    template: &'static str,
    view: impl Fn() -> V + Send + Sync + 'a,
) -> File<'a> {
    File { path: path.into(), template, view: Box::new(move || Value::from(Serde(view()))) }
}

/// Everything that is rendered.
fn files<'a>(site: &'a Site, lists: &'a Lists) -> Vec<File<'a>> {
    let atlas = site.atlas;
    let mut files = vec![
        file("index.html", "index.html", || IndexView::new(site)),
        file("dictionaries/index.html", "dictionaries.html", || DictionariesView::new(site)),
        file("tasks/index.html", "tasks.html", || TasksView::new(site)),
        file("glossary.html", "glossary.html", || GlossaryView::new(site)),
        file("search.html", "search.html", || SearchPageView::new(site, lists)),
        file("how-to-read.html", "how-to-read.html", || HowToReadView::new(site)),
        file("card.html", "card.html", || CardView::new(site)),
        file("404.html", "missing.html", || MissingView::new(site)),
    ];
    let there = |list: &&lists::List| list.name != "pairs" || !list.rows.is_empty();
    files.extend(lists.all().into_iter().filter(there).flat_map(|list| of_list(site, list)));
    if atlas.tasks.iter().any(|task| !drawn(task).is_empty()) {
        files.push(file("graphs/index.html", "graphs.html", || GraphsView::new(site)));
    }
    if !atlas.changes.is_empty() {
        files.push(file(PAGE, "changes.html", || ChangesView::new(site)));
    }
    if has_feed(site) {
        files.push(file(FEED, "feed.xml", || FeedView::new(site)));
    }
    files.extend(
        atlas.tasks.iter().map(|t| {
            file(format!("tasks/{}.html", t.name), "task.html", || TaskView::new(site, t))
        }),
    );
    files.extend(atlas.tasks.iter().flat_map(|task| graphs(site, task)));
    files.extend(atlas.components.iter().enumerate().map(|(i, c)| {
        file(format!("components/{}.html", c.component), "component.html", move || {
            ComponentView::new(site, i)
        })
    }));
    files.extend(atlas.features.iter().enumerate().map(|(i, f)| {
        file(format!("features/{}.html", f.id), "feature.html", move || FeatureView::new(site, i))
    }));
    files.extend(atlas.features.iter().map(|f| {
        file(format!("features/{}.js", f.id), "feature.js", || FeatureScript::new(site, f))
    }));
    files.extend(text_files(site).into_iter().map(|number| {
        file(format!("contexts/{number}.js"), "contexts.js", move || TextsScript::new(site, number))
    }));
    files.extend(
        atlas
            .pairs
            .iter()
            .map(|p| file(pair_path(p.a, p.b), "pair.html", || PairView::new(site, p))),
    );
    files.extend(atlas.groups.iter().map(|g| {
        file(format!("groups/{}.html", g.name), "group.html", || GroupView::new(site, g))
    }));
    files.extend(subjects(site).into_iter().map(|subject| {
        file(exchange_path(&subject.path), "exchanges.html", move || {
            TranscriptsView::new(site, &subject)
        })
    }));
    if let Some(data) = &atlas.data {
        files.extend(documents(site, data));
    }
    files.extend(moved(site));
    files
}

/// Pages at the names that pages had before.
fn moved<'a>(site: &'a Site) -> impl Iterator<Item = File<'a>> {
    site.atlas.pairs.iter().flat_map(move |p| {
        let (old, new) = (old_pair_path(p.a, p.b), pair_path(p.a, p.b));
        let asked = p.asked.as_ref().is_some_and(|asked| !asked.exchanges.is_empty());
        let beside = asked.then(|| (exchange_path(&old), exchange_path(&new)));
        [Some((old, new)), beside]
            .into_iter()
            .flatten()
            .map(move |(old, new)| file(old, "moved.html", move || MovedView::new(site, &new)))
    })
}

/// The page of a list, and its rows for readers without scripts.
fn of_list<'a>(site: &'a Site, list: &'a lists::List) -> Vec<File<'a>> {
    let path = format!("{}/index.html", list.name);
    let mut files = vec![file(path, "list.html", || ListView::new(site, list))];
    for way in Way::all(list).into_iter().map(Arc::new) {
        files.extend((1..=way.pages()).map(|page| {
            let way = Arc::clone(&way);
            file(way.path(page), "plain.html", move || PlainListView::new(site, list, &way, page))
        }));
    }
    files
}

/// What is given besides pages: the page of the tables, and a JSON document beside each page of a
/// subject.
fn documents<'a>(site: &'a Site, data: &'a SiteData) -> Vec<File<'a>> {
    let Atlas { features, components, tasks, pairs, groups, .. } = site.atlas;
    let strength = data.strength;
    let mut files = vec![
        file("data/index.html", "data.html", move || DataView::new(site, data)),
        json("data/index.html", move || text_of(&schema(site.atlas, data))),
    ];
    files.extend(
        features.iter().map(|f| {
            json(&format!("features/{}.html", f.id), move || text_of_feature(f, strength))
        }),
    );
    files.extend(
        pairs.iter().map(|p| {
            json(&pair_path(p.a, p.b), move || text_of(&TogetherAnswer::new(p, strength)))
        }),
    );
    files.extend(groups.iter().map(|g| {
        json(&format!("groups/{}.html", g.name), move || text_of(&TogetherAnswer::new(g, strength)))
    }));
    let components = components.iter().map(|c| format!("components/{}.html", c.component));
    let tasks = tasks.iter().map(|t| format!("tasks/{}.html", t.name));
    let texts = components.zip(&data.components).chain(tasks.zip(&data.tasks));
    files.extend(texts.map(|(page, text)| json(&page, move || text.clone())));
    files
}

/// A document beside a page.
fn json<'a>(page: &str, text: impl Fn() -> String + Send + Sync + 'a) -> File<'a> {
    file(json_path(page), "graph.json", move || context! { text => html(text()) })
}

/// With its promoted tokens at its maximum, as on its page.
fn text_of_feature(feature: &Feature, usual: f64) -> String {
    let mut feature = feature.clone();
    let strength = strength(Some(feature.max), usual);
    for token in feature.promoted.iter_mut().chain(&mut feature.suppressed) {
        token.set_strength(strength);
    }
    text_of(&FeatureAnswer::new(&feature, strength))
}

fn text_of(document: &impl Serialize) -> String {
    serde_json::to_string(document).unwrap_or_default()
}

/// The graph of each prompt of a task: its page, and the same for other programs.
fn graphs<'a>(site: &'a Site, task: &'a Task) -> Vec<File<'a>> {
    let both = |one: Drawn<'a>| {
        let page = file(one.path("html"), "graph.html", move || GraphView::new(site, &one));
        let json =
            file(one.path("json"), "graph.json", move || context! { text => html(one.json(site)) });
        [page, json]
    };
    let lists = graph_pages(task).into_iter().map(|(page, path)| {
        file(path, "graphs_of_task.html", move || TaskGraphsView::new(site, task, page))
    });
    drawn(task).into_iter().flat_map(both).chain(lists).collect()
}

/// Writes the whole site into the empty folder `into`, and says how many pages it has, and the hashes of
/// what it wrote. A file that is the same in the site `before` is taken from there, with its time.
///
/// # Errors
/// When a task or group has a name that cannot be a file's, or a file cannot be written.
pub(crate) fn build(atlas: &Atlas, into: &Path, before: &Path) -> Result<(usize, Hashes)> {
    let output = Output { into, before, mark: Manifest::read(before), hashes: Mutex::default() };
    let site = Site::new(atlas)?;
    let environment = environment()?;
    let lists = Lists::new(&site);
    let (files, data) = (files(&site, &lists), lists::files(&site, &lists));
    let paths = files.iter().map(|file| &file.path).chain(data.iter().map(|(path, _)| path));
    for folder in paths.filter_map(|path| Path::new(path).parent()).collect::<BTreeSet<_>>() {
        output.folder(&folder.to_string_lossy())?;
    }
    for (name, text) in ASSETS {
        output.write(name, text.as_bytes())?;
    }
    data.par_iter()
        .try_for_each(|(name, text)| output.write(name, harmless_json(text).as_bytes()))?;
    let frame = Frame { lines: changed_lines(&site), feed: has_feed(&site) };
    atlas.data.iter().flat_map(|data| &data.tables).try_for_each(|table| copy(into, table))?;
    output.write(STYLE, style().as_bytes())?;
    let pages = files.iter().filter(|file| is_listed(file)).map(|file| file.path.as_str());
    for (name, text) in crawlers::files(&atlas.base_url, pages) {
        output.write(&name, text.as_bytes())?;
    }
    social::write(&site, &output)?;
    files.par_iter().try_for_each(|file| {
        process::check()?;
        output.write(&file.path, render(&environment, file, &frame)?.as_bytes())
    })?;
    let is_page = |file: &&File| file.path.ends_with(".html") && file.template != "moved.html";
    let pages = files.iter().filter(is_page).count();
    Ok((pages, output.hashes.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// Whether a file is a page that one would look for.
fn is_listed(file: &File) -> bool {
    file.path.ends_with(".html") && !["moved.html", "missing.html"].contains(&file.template)
}

/// The prompt of an atlas that has one, with its circuit, as a page that needs no other file.
/// `gists` says what its features are.
///
/// # Errors
/// When there is no such prompt.
pub(crate) fn page_alone(atlas: &Atlas, gists: BTreeMap<FeatureId, String>) -> Result<String> {
    let site = Site::alone(atlas, gists)?;
    let one = only(&site)?;
    let page = file("the page of a prompt", "graph.html", || GraphView::new(&site, &one));
    render(&environment()?, &page, &Frame::default())
}

/// The same for viewers of attribution graphs.
///
/// # Errors
/// When there is no such prompt.
pub(crate) fn json_alone(atlas: &Atlas, gists: BTreeMap<FeatureId, String>) -> Result<String> {
    let site = Site::alone(atlas, gists)?;
    Ok(only(&site)?.json(&site))
}

fn only<'a>(site: &Site<'a>) -> Result<Drawn<'a>> {
    let all = site.atlas.tasks.first().map(drawn).unwrap_or_default();
    all.into_iter().next().context("there is no prompt with a circuit")
}

/// Undefined names are errors: a typo in a template must not be a blank in two thousand pages.
fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    // Pages that need no other file have these in them.
    let style = style();
    environment.add_global("allows", html(policy::of_site()));
    environment.add_global("allows_inline", html(policy::of_inline(&[THEME_SCRIPT], &style)));
    let alone = [THEME_SCRIPT, SCRIPT, GRAPH_SCRIPT];
    environment.add_global("allows_both", html(policy::of_inline(&alone, &style)));
    environment.add_global("style", html(style));
    environment.add_global("theme_script", html(THEME_SCRIPT.into()));
    environment.add_global("script", html(SCRIPT.into()));
    environment.add_global("graph_script", html(GRAPH_SCRIPT.into()));
    environment.add_filter("width", widths::class);
    for (name, source) in TEMPLATES {
        environment
            .add_template(name, source)
            .with_context(|| format!("cannot read the template `{name}`"))?;
    }
    Ok(environment)
}

/// What the frame of pages has that depends on earlier runs.
#[derive(Default)]
struct Frame {
    /// By page.
    lines: BTreeMap<String, ChangedLine>,
    feed: bool,
}

fn render(environment: &Environment, file: &File, frame: &Frame) -> Result<String> {
    let template = environment.get_template(file.template)?;
    let changed = frame.lines.get(&file.path).map(|line| Value::from(Serde(line)));
    let (changes, feed) = (!frame.lines.is_empty(), frame.feed);
    let view = context! { changed, has_changes => changes, has_feed => feed, ..(file.view)() };
    let text =
        template.render(view).with_context(|| format!("cannot make the page `{}`", file.path))?;
    // Whatever a template was given: nothing in the text acts on a page, or hides in it.
    Ok(match file.template.rsplit_once('.') {
        Some((_, "html")) => without_implied_ends(&without_controls(&text)),
        Some((_, "xml")) => without_controls(&text),
        _ => harmless_json(&text),
    })
}

/// A page without the ends of cells, rows and items, which HTML lets be left out: in a page of tables
/// they are a sixteenth. No text has any of these, as what is foreign is escaped.
fn without_implied_ends(page: &str) -> String {
    const IMPLIED: [&str; 6] = ["</td>", "</th>", "</tr>", "</thead>", "</tbody>", "</li>"];
    let mut out = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(at) = rest.find("</") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = IMPLIED.iter().find(|end| rest.starts_with(**end));
        let kept = if end.is_some() { "" } else { "</" };
        out.push_str(kept);
        rest = &rest[end.map_or(kept.len(), |end| end.len())..];
    }
    out + rest
}

/// Where a site is written, and where the one before is.
pub(super) struct Output<'a> {
    into: &'a Path,
    before: &'a Path,
    /// What the site before says of itself; none if it is not of ours.
    mark: Option<Manifest>,
    /// Of what was written.
    hashes: Mutex<Hashes>,
}

impl Output<'_> {
    /// Writes a file, or links to it where it has not changed.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, hash) = (self.into.join(name), hashes::of(bytes));
        if self.is_as_before(name, bytes.len(), &hash) && self.link(name, &hash) {
            return Ok(());
        }
        // Never into a file that is there, which may be one of the old site.
        fs::File::create_new(&path).and_then(|mut file| file.write_all(bytes)).hint(
            || format!("cannot write `{}`", path.display()),
            "check free space and permissions of the folder",
        )?;
        self.note(name, hash);
        Ok(())
    }

    /// Whether the old site has a file with these bytes; a link to one is none.
    fn is_as_before(&self, name: &str, length: usize, hash: &str) -> bool {
        let old = self.before.join(name);
        let same_size = |found: fs::Metadata| found.is_file() && found.len() == length as u64;
        old.symlink_metadata().is_ok_and(same_size)
            && hashes::of_file(&old).is_ok_and(|old| old == hash)
    }

    /// What a file of the site before holds, if it is of ours.
    pub(super) fn before(&self, name: &str) -> Option<Vec<u8>> {
        self.is_ours(name).then(|| fs::read(self.before.join(name)).ok())?
    }

    /// Takes a file of the site before over, if it is of ours, and says whether it was there.
    pub(super) fn keep(&self, name: &str) -> bool {
        let hash = || hashes::of_file(&self.before.join(name)).ok();
        self.is_ours(name) && hash().is_some_and(|hash| self.link(name, &hash))
    }

    fn is_ours(&self, name: &str) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.lists(name))
    }

    /// Links to a file of the old site.
    fn link(&self, name: &str, hash: &str) -> bool {
        let linked = fs::hard_link(self.before.join(name), self.into.join(name)).is_ok();
        if linked {
            self.note(name, hash.into());
        }
        linked
    }

    fn note(&self, name: &str, hash: String) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(name.into(), hash);
    }

    pub(super) fn folder(&self, name: &str) -> Result<()> {
        let path = self.into.join(name);
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder `{}`", path.display()))
    }
}

/// Copies the files of a table.
fn copy(into: &Path, table: &DataTable) -> Result<()> {
    for (name, from) in &table.files {
        process::check()?;
        let to = into.join("data").join(name);
        let folder = to.parent().map_or(Ok(()), fs::create_dir_all);
        folder.and_then(|()| give(from, &to)).hint(
            || format!("cannot copy `{}` to `{}`", from.display(), to.display()),
            "check free space and permissions of the folder",
        )?;
    }
    Ok(())
}
