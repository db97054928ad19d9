//! Writes the site: one visible list of all pages, each with its template and its view, rendered
//! side by side.

use super::links::{Site, exchange_path, old_pair_path, pair_path};
use super::text::html;
use super::views::{
    CardView, ComponentView, ComponentsView, DictionariesView, Drawn, FeatureView, FeaturesView,
    GlossaryView, GraphView, GraphsView, GroupView, HowToReadView, IndexView, MissingView,
    MovedView, PairView, PairsView, SearchView, TaskView, TasksView, TranscriptsView, drawn,
    subjects,
};
use super::{crawlers, policy, social, widths};
use crate::atlas::model::{Atlas, Task};
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
use std::path::Path;

/// Templates by name; the ending decides how what is put into them is escaped.
const TEMPLATES: [(&str, &str); 27] = [
    ("base.html", include_str!("../../templates/base.html")),
    ("parts.html", include_str!("../../templates/parts.html")),
    ("explained.html", include_str!("../../templates/explained.html")),
    ("exchanges.html", include_str!("../../templates/exchanges.html")),
    ("scores.html", include_str!("../../templates/scores.html")),
    ("head.html", include_str!("../../templates/head.html")),
    ("index.html", include_str!("../../templates/index.html")),
    ("task.html", include_str!("../../templates/task.html")),
    ("graph.html", include_str!("../../templates/graph.html")),
    ("graph.json", include_str!("../../templates/graph.json")),
    ("faithful.html", include_str!("../../templates/faithful.html")),
    ("dictionaries.html", include_str!("../../templates/dictionaries.html")),
    ("components.html", include_str!("../../templates/components.html")),
    ("component.html", include_str!("../../templates/component.html")),
    ("features.html", include_str!("../../templates/features.html")),
    ("feature.html", include_str!("../../templates/feature.html")),
    ("pairs.html", include_str!("../../templates/pairs.html")),
    ("pair.html", include_str!("../../templates/pair.html")),
    ("group.html", include_str!("../../templates/group.html")),
    ("glossary.html", include_str!("../../templates/glossary.html")),
    ("how-to-read.html", include_str!("../../templates/how-to-read.html")),
    ("card.html", include_str!("../../templates/card.html")),
    ("tasks.html", include_str!("../../templates/tasks.html")),
    ("graphs.html", include_str!("../../templates/graphs.html")),
    ("missing.html", include_str!("../../templates/missing.html")),
    ("moved.html", include_str!("../../templates/moved.html")),
    ("search.js", include_str!("../../templates/search.js")),
];

/// Files that are the same in every site, besides the style sheet.
const ASSETS: [(&str, &str); 2] = [("atlas.js", SCRIPT), ("icon.svg", ICON)];
const SCRIPT: &str = include_str!("../../templates/atlas.js");
const ICON: &str = include_str!("../../templates/icon.svg");
const STYLE: &str = "style.css";

/// Pages and other files that are in the site's own folder. Not `404.html`, `robots.txt` and
/// `sitemap.xml`: sites that list no files had none, so there they are a user's.
const AT_ROOT: [&str; 5] =
    ["index.html", "glossary.html", "how-to-read.html", "card.html", "search.js"];

fn style() -> String {
    format!("{}{}", include_str!("../../templates/style.css"), widths::rules())
}

/// The folders of the site, and how the names of files in them end.
const FOLDERS: [(&str, &[&str]); 14] = [
    ("cards", &["png"]),
    ("cards/tasks", &["png"]),
    ("cards/graphs", &["png"]),
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

/// Whether a file of the site may have this path, by folder and ending alone.
pub(super) fn may_write(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else {
        return AT_ROOT.contains(&path)
            || path == STYLE
            || ASSETS.iter().any(|(asset, _)| *asset == path);
    };
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    FOLDERS.iter().any(|(known, endings)| *known == folder && endings.contains(&ending))
}

/// Whether files of the site may be in a folder, or in one below it.
pub(super) fn may_hold(folder: &str) -> bool {
    FOLDERS.iter().any(|(known, _)| Path::new(known).starts_with(folder))
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
fn files<'a>(site: &'a Site) -> Vec<File<'a>> {
    let atlas = site.atlas;
    let mut files = vec![
        file("index.html", "index.html", || IndexView::new(site)),
        file("dictionaries/index.html", "dictionaries.html", || DictionariesView::new(site)),
        file("components/index.html", "components.html", || ComponentsView::new(site)),
        file("features/index.html", "features.html", || FeaturesView::new(site)),
        file("glossary.html", "glossary.html", || GlossaryView::new(site)),
        file("how-to-read.html", "how-to-read.html", || HowToReadView::new(site)),
        file("card.html", "card.html", || CardView::new(site)),
        file("404.html", "missing.html", || MissingView::new(site)),
        file("tasks/index.html", "tasks.html", || TasksView::new(site)),
        file("graphs/index.html", "graphs.html", || GraphsView::new(site)),
        file("search.js", "search.js", || SearchView::new(site)),
    ];
    if !atlas.pairs.is_empty() {
        files.push(file("pairs/index.html", "pairs.html", || PairsView::new(site)));
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

/// The graph of each prompt of a task: its page, and the same for other programs.
fn graphs<'a>(site: &'a Site, task: &'a Task) -> Vec<File<'a>> {
    let both = |one: Drawn<'a>| {
        let page = file(one.path("html"), "graph.html", move || GraphView::new(site, &one));
        let json =
            file(one.path("json"), "graph.json", move || context! { text => html(one.json(site)) });
        [page, json]
    };
    drawn(task).into_iter().flat_map(both).collect()
}

/// Writes the whole site into the empty folder `into`, and says how many pages it has.
///
/// # Errors
/// When a task or group has a name that cannot be a file's, or a file cannot be written.
pub(crate) fn build(atlas: &Atlas, into: &Path) -> Result<usize> {
    let site = Site::new(atlas)?;
    let environment = environment()?;
    let files = files(&site);
    for folder in
        files.iter().filter_map(|file| Path::new(&file.path).parent()).collect::<BTreeSet<_>>()
    {
        let path = into.join(folder);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder `{}`", path.display()))?;
    }
    for (name, text) in ASSETS {
        write(into, name, text)?;
    }
    write(into, STYLE, &style())?;
    let pages = files.iter().filter(|file| is_listed(file)).map(|file| file.path.as_str());
    for (name, text) in crawlers::files(&atlas.base_url, pages) {
        write(into, &name, &text)?;
    }
    social::write(&site, into)?;
    files.par_iter().try_for_each(|file| {
        process::check()?;
        write(into, &file.path, &render(&environment, file)?)
    })?;
    Ok(files.iter().filter(|f| f.path.ends_with(".html") && f.template != "moved.html").count())
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
    render(&environment()?, &page)
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
    environment.add_global("allows_style", html(policy::of_inline(&[], &style)));
    environment.add_global("allows_both", html(policy::of_inline(&[SCRIPT], &style)));
    environment.add_global("style", html(style));
    environment.add_global("script", html(SCRIPT.into()));
    environment.add_filter("width", widths::class);
    for (name, source) in TEMPLATES {
        environment
            .add_template(name, source)
            .with_context(|| format!("cannot read the template `{name}`"))?;
    }
    Ok(environment)
}

fn render(environment: &Environment, file: &File) -> Result<String> {
    let template = environment.get_template(file.template)?;
    let text = template
        .render((file.view)())
        .with_context(|| format!("cannot make the page `{}`", file.path))?;
    // Whatever a template was given: nothing in the text acts on a page, or hides in it.
    Ok(match file.template.ends_with(".html") {
        true => without_controls(text),
        false => harmless_json(&text),
    })
}

fn write(into: &Path, name: &str, text: &str) -> Result<()> {
    let path = into.join(name);
    std::fs::write(&path, text).hint(
        || format!("cannot write `{}`", path.display()),
        "check free space and permissions of the folder",
    )
}
