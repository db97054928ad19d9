//! The whole site, as files: every link leads somewhere, no text becomes markup, no other host is
//! asked.

mod findings;

use super::build;
use super::build::{held_once, may_write, wrote_once};
use super::graph::Marks;
use super::manifest::{self, Hashes, Manifest, OURS};
use crate::artifact::folder::publish_folder;
use crate::atlas::fixture;
use crate::atlas::model::*;
use crate::atlas::model::{Move, Role, What};
use crate::atlas::verdict::of_evaluation;
use crate::ids::{Component, FeatureId, Kind, NodeKind, Slot};
use crate::process;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Everything under a folder, by path from it.
fn read(folder: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name().into_string().unwrap())).unwrap();
        if path.is_dir() {
            files.extend(
                read(&path).into_iter().map(|(inner, text)| (format!("{name}/{inner}"), text)),
            );
        } else {
            let bytes = std::fs::read(path).unwrap();
            files.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    files
}

fn built(atlas: &Atlas) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let (made, _) = build(atlas, folder.path(), Path::new("")).unwrap();
    let files = read(folder.path());
    assert_eq!(pages(&files).count(), made);
    files
}

/// Pages, but for those that only lead to where they are now.
fn pages(files: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    files.iter().filter(|(name, _)| name.ends_with(".html") && !name.contains('+'))
}

/// Values of an attribute in a page.
fn values<'a>(page: &'a str, attribute: &str) -> Vec<&'a str> {
    let start = format!(" {attribute}=\"");
    page.split(&start).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// A link's file, from the folder of the site.
fn resolve(from: &str, link: &str) -> String {
    let mut at: Vec<&str> = from.split('/').collect();
    at.pop();
    for part in link.split('/') {
        match part {
            ".." => assert!(at.pop().is_some(), "`{link}` in `{from}` leaves the site"),
            part => at.push(part),
        }
    }
    at.join("/")
}

#[test]
fn every_file_is_one_that_a_site_may_have() {
    let atlas = Atlas { base_url: "https://example.org/atlas/".into(), ..fixture::atlas() };
    // Sites that list no files had none of these names.
    let new = ["404.html", "robots.txt", "sitemap.xml"];
    for name in built(&atlas).keys().filter(|name| !new.contains(&name.as_str())) {
        assert!(may_write(name), "`{name}`");
    }
    for name in [
        "CNAME",
        "404.html",
        "robots.txt",
        "sitemap.xml",
        "notes.html",
        "features/notes.txt",
        "tasks/old/ioi.html",
        "drafts/ioi.html",
    ] {
        assert!(!may_write(name), "`{name}`");
    }
}

#[test]
fn names_that_are_new_are_a_users_where_no_files_are_listed() {
    assert!(wrote_once("tasks/ioi.html") && wrote_once("atlas.js"));
    for name in ["feed.xml", "card.html", "list.js", "data/a.json", "search/w1.js", "tasks/a.json"]
    {
        assert!(may_write(name) && !wrote_once(name), "`{name}`");
    }
    assert!(held_once("exchanges") && !held_once("exchange") && !held_once(".git"));
    assert!(!held_once("data") && !held_once("features/old"));
}

#[test]
fn the_model_is_told_of_with_its_dictionaries_and_what_looks_wrong() {
    let mut atlas = fixture::atlas();
    atlas.model_fit.warnings.push("`<att1.3>` recovers 1.20 of the loss".into());
    let page = &built(&atlas)["dictionaries/index.html"];
    let page = String::from_utf8_lossy(page.as_ref());
    for text in [
        "has a loss of 3.42 nats per token; frequencies of tokens in other documents have 7.31, \
         frequencies of pairs of tokens 6.05.",
        "model: attention is of no use to the model",
        "model: `&lt;att1.3&gt;` recovers 1.20 of the loss",
    ] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
}

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let files = built(&fixture::atlas());
    let ids: BTreeMap<&String, BTreeSet<&str>> = pages(&files)
        .map(|(name, page)| (name, values(page, "id").into_iter().collect()))
        .collect();
    let mut links = 0;
    for (name, page) in pages(&files) {
        for link in values(page, "href")
            .into_iter()
            .chain(values(page, "src"))
            .filter(|l| !l.starts_with("data:"))
        {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { name.clone() } else { resolve(name, path) };
            // The manifest is written when all of the site is there.
            let there = files.contains_key(&target) || target == "atlas.json";
            assert!(there, "`{link}` in `{name}` leads nowhere");
            assert!(
                anchor.is_empty() || ids[&target].contains(anchor),
                "no `#{anchor}` in `{target}`, from `{name}`"
            );
            links += 1;
        }
    }
    assert!(links > 2000, "only {links} links");
}

#[test]
fn every_page_can_be_reached_from_the_front_page() {
    let files = built(&fixture::atlas());
    let (mut seen, mut todo) = (BTreeSet::new(), vec!["index.html".to_string()]);
    while let Some(name) = todo.pop() {
        if name.ends_with(".html") && seen.insert(name.clone()) {
            let links =
                values(&files[&name], "href").into_iter().filter(|l| !l.starts_with("data:"));
            todo.extend(
                links
                    .filter(|l| !l.starts_with('#'))
                    .map(|l| resolve(&name, l.split('#').next().unwrap())),
            );
        }
    }
    let all = pages(&files).map(|(name, _)| name.clone()).filter(|name| name != "404.html");
    assert_eq!(seen, all.collect());
}

#[test]
fn old_addresses_of_pairs_lead_to_their_pages() {
    let atlas = Atlas { base_url: "https://example.org/atlas/".into(), ..fixture::atlas() };
    let files = built(&atlas);
    let old: Vec<&String> = files.keys().filter(|name| name.contains('+')).collect();
    let pairs = atlas.pairs.iter().filter(|p| p.asked.is_some()).count() + atlas.pairs.len();
    assert_eq!(old.len(), pairs);
    for name in old {
        let (page, target) = (&files[name], name.replace('+', "--"));
        assert!(files.contains_key(&target), "{target}");
        let file = target.rsplit('/').next().unwrap();
        assert_eq!(values(page, "content").last(), Some(&format!("0; url={file}").as_str()));
        assert!(
            page.contains(&format!(
                "rel=\"canonical\" href=\"https://example.org/atlas/{target}\""
            ))
        );
        assert!(!page.contains("<script"));
    }
}

#[test]
fn search_engines_are_told_of_every_page() {
    let none = built(&fixture::atlas());
    assert_eq!(none["robots.txt"], "User-agent: *\nAllow: /\n");
    assert!(!none.contains_key("sitemap.xml"), "a sitemap needs addresses");
    let atlas = Atlas { base_url: "https://example.org/atlas/".into(), ..fixture::atlas() };
    let files = built(&atlas);
    assert!(files["robots.txt"].ends_with("\nSitemap: https://example.org/atlas/sitemap.xml\n"));
    let listed: BTreeSet<String> = files["sitemap.xml"]
        .split("<loc>https://example.org/atlas/")
        .skip(1)
        .map(|rest| rest.split("</loc>").next().unwrap().to_string())
        .map(|page| if page.is_empty() || page.ends_with('/') { page + "index.html" } else { page })
        .collect();
    let all = pages(&files).map(|(name, _)| name.clone()).filter(|name| name != "404.html");
    assert_eq!(listed, all.collect());
}

/// Pages that need no other file, that of `trace` and that for an address without a page, have their
/// scripts and styles in them, and their policy lets those through.
#[test]
fn pages_without_files_allow_what_is_in_them() {
    let atlas = fixture::atlas();
    let missing = built(&atlas).remove("404.html").unwrap();
    let alone = super::page_alone(&atlas, BTreeMap::new()).unwrap();
    for (page, expected) in [(alone, 4), (missing, 2)] {
        let policy = page.split("Content-Security-Policy\" content=\"").nth(1).unwrap();
        let policy = policy.split('"').next().unwrap();
        let mut parts = 0;
        for tag in ["script", "style"] {
            for part in page.split(&format!("<{tag}>")).skip(1) {
                let text = part.split(&format!("</{tag}>")).next().unwrap();
                assert!(policy.contains(&super::policy::hash(text)), "{tag}: {policy}");
                parts += 1;
            }
        }
        assert!(parts == expected && !policy.contains("self"), "{parts}: {policy}");
    }
}

#[test]
fn pages_with_an_address_have_a_picture() {
    let atlas = Atlas { base_url: "https://example.org/atlas/".into(), ..fixture::atlas() };
    let files = built(&atlas);
    let mut named = BTreeSet::new();
    for (name, page) in pages(&files).filter(|(name, _)| *name != "404.html") {
        let image = page.split("property=\"og:image\" content=\"").nth(1);
        let image = image.unwrap_or_else(|| panic!("no picture of `{name}`"));
        let address = image.split('"').next().unwrap().replace("&#x2f;", "/");
        let path = address.strip_prefix("https://example.org/atlas/").unwrap();
        assert!(files[path].contains("PNG"), "{name}");
        named.insert(path.to_string());
    }
    let made: BTreeSet<String> =
        files.keys().filter(|name| name.ends_with(".png")).cloned().collect();
    assert_eq!(named, made);
    assert!(made.len() > 40 && !built(&fixture::atlas()).keys().any(|name| name.ends_with(".png")));
}

/// No script, style or picture that the policy would not let through is in any page.
#[test]
fn pages_keep_to_their_policy() {
    for atlas in [fixture::atlas(), hostile()] {
        for (name, page) in built(&atlas).iter().filter(|(name, _)| name.ends_with(".html")) {
            let policy = page.split("http-equiv=\"Content-Security-Policy\" content=\"").nth(1);
            assert!(policy.unwrap().starts_with("default-src 'none'; "), "{name}");
            let at = page.find("Content-Security-Policy").unwrap();
            let first =
                ["<link", "<script", "<style"].iter().filter_map(|tag| page.find(tag)).min();
            assert!(first.is_some_and(|first| at < first), "{name}: it comes too late");
            assert_eq!(
                values(page, "style").len(),
                0,
                "{name}: {:?}",
                values(page, "style").first()
            );
            assert!(!page.contains(" onload="), "{name}");
            for own in ["<script>", "<style>"] {
                assert_eq!(page.contains(own), name == "404.html", "{name}: {own}");
            }
        }
    }
}

#[test]
fn an_id_is_given_once_a_page() {
    for (name, page) in pages(&built(&fixture::atlas())) {
        let ids = values(page, "id");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{name}: {ids:?}");
    }
}

#[test]
fn names_of_pages_are_permalinks() {
    let mut atlas = fixture::atlas();
    let (a, b) = (FeatureId::new(Kind::Attention, 9, 1), FeatureId::new(Kind::Attention, 10, 2));
    atlas.pairs[0].a = a;
    atlas.pairs[0].b = b;
    let files = built(&atlas);
    let feature = format!("features/{}.html", atlas.features[0].id);
    let component = format!("components/{}.html", atlas.components[0].component);
    let fixed =
        ["index.html", "tasks/ioi.html", "groups/quotation.html", "pairs/att10.2--att9.1.html"];
    for name in fixed.into_iter().chain([feature.as_str(), component.as_str()]) {
        assert!(files.contains_key(name), "{name}");
    }
}

#[test]
fn no_other_host_is_asked() {
    for (name, text) in built(&fixture::atlas()) {
        // A name, which nobody asks for.
        let text = text.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for host in ["http:", "https:", "\"//", "'//", "(//", "url(", "@import"] {
            assert!(!text.contains(host), "`{host}` in `{name}`");
        }
    }
}

#[test]
fn only_social_cards_know_the_address() {
    let atlas = Atlas { base_url: "https://example.org/atlas/".into(), ..fixture::atlas() };
    for (name, page) in pages(&built(&atlas)).filter(|(name, _)| *name != "404.html") {
        assert_eq!(
            page.matches("https:").count(),
            3 + 2 * usize::from(name == "card.html"),
            "{name}"
        );
        assert_eq!(
            values(page, "content").iter().filter(|c| c.starts_with("https:")).count(),
            2,
            "{name}"
        );
    }
}

const HOSTILE: &str = "<script>alert(1)</script>&\"'{{ 7919*7907 }}\u{202e}\n";

/// The fixture with every text in it replaced, but for names that become files.
fn hostile() -> Atlas {
    let mut atlas = fixture::atlas();
    let bad = || HOSTILE.to_string();
    let promoted =
        |list: &mut Vec<PromotedToken>| list.iter_mut().for_each(|p| p.text = HOSTILE.into());
    let examples = |list: &mut Vec<Example>| {
        for e in list {
            e.pieces.iter_mut().for_each(|p| p.text = HOSTILE.into());
        }
    };
    (atlas.title, atlas.version, atlas.when, atlas.base_url) = (bad(), bad(), bad(), bad());
    (atlas.model, atlas.model_path, atlas.corpus) = (bad(), bad(), bad());
    atlas.provenance = vec![(bad(), bad())];
    atlas.conformance.iter_mut().flat_map(|c| &mut c.warnings).for_each(|text| *text = bad());
    atlas.stages.iter_mut().for_each(|s| s.0 = HOSTILE.into());
    for t in &mut atlas.tasks {
        t.kind = bad();
        for p in &mut t.prompts {
            (p.template, p.text, p.correct, p.counter) = (bad(), bad(), bad(), bad());
            p.places.iter_mut().for_each(|place| *place = HOSTILE.into());
            p.answers.iter_mut().for_each(|a| a.0 = HOSTILE.into());
            p.graph.iter_mut().flat_map(|g| &mut g.tokens).for_each(|t| t.1 = HOSTILE.into());
        }
        for f in &mut t.faithfulness {
            (f.level, f.variant, f.circuit) = (bad(), bad(), bad());
            f.metrics.insert(bad(), Interval { value: None, low: None, high: None });
        }
    }
    for c in &mut atlas.components {
        c.tasks.iter_mut().for_each(|t| t.0 = HOSTILE.into());
        c.features.iter_mut().for_each(|s| s.task = HOSTILE.into());
        c.neighbours.iter_mut().for_each(|n| n.0 = HOSTILE.into());
        c.classes.iter_mut().for_each(|class| {
            (class.task, class.published, class.class) = (bad(), bad(), Some(bad()))
        });
        c.head_features
            .iter_mut()
            .for_each(|f| f.serves.iter_mut().for_each(|s| s.0 = HOSTILE.into()));
        c.heads.iter_mut().for_each(hostile_head);
        promoted(&mut c.promoted);
        promoted(&mut c.suppressed);
        examples(&mut c.examples);
        hostile_words(&mut c.explanation, &mut c.asked);
    }
    for f in &mut atlas.features {
        f.mass.iter_mut().for_each(|m| m.0 = HOSTILE.into());
        f.servings.iter_mut().for_each(|s| s.task = HOSTILE.into());
        f.circuit_pairs.iter_mut().for_each(|p| p.0 = HOSTILE.into());
        f.evaluations
            .iter_mut()
            .for_each(|e| (e.method, e.explainer, e.judge) = (bad(), bad(), bad()));
        f.agreements.iter_mut().for_each(|a| (a.between, a.of) = (bad(), bad()));
        for m in &mut f.misjudged {
            m.method = bad();
            m.pieces.iter_mut().for_each(|p| p.0 = HOSTILE.into());
        }
        f.causal.iter_mut().flat_map(|c| &mut c.risen).for_each(|r| r.0 = HOSTILE.into());
        promoted(&mut f.promoted);
        promoted(&mut f.suppressed);
        examples(&mut f.examples);
        for read in &mut f.why.read_from {
            read.example.pieces.iter_mut().for_each(|p| p.text = HOSTILE.into());
            read.places.iter_mut().for_each(|p| p.token = HOSTILE.into());
        }
        hostile_words(&mut f.explanation, &mut f.asked);
    }
    let tokens = atlas.texts.values_mut().flat_map(|text| &mut text.tokens);
    tokens.for_each(|token| token.text = HOSTILE.into());
    atlas.model_fit.warnings.push(bad());
    atlas.usage.iter_mut().for_each(|a| (a.model, a.purpose) = (bad(), bad()));
    for p in &mut atlas.pairs {
        p.circuit.iter_mut().for_each(|c| c.0 = HOSTILE.into());
        promoted(&mut p.promoted);
        promoted(&mut p.suppressed);
        examples(&mut p.examples);
        hostile_words(&mut p.explanation, &mut p.asked);
    }
    for g in &mut atlas.groups {
        promoted(&mut g.promoted);
        promoted(&mut g.suppressed);
        examples(&mut g.examples);
        hostile_words(&mut g.explanation, &mut g.asked);
    }
    atlas
}

/// A failed explanation keeps its status: it is where the reason is shown.
fn hostile_words(explanation: &mut Option<Explanation>, asked: &mut Option<Transcript>) {
    let bad = || HOSTILE.to_string();
    let samples = asked.iter_mut().flat_map(|a| &mut a.samples);
    for e in explanation.iter_mut().chain(samples) {
        (e.explainer, e.model, e.reason) = (bad(), bad(), bad());
        (e.input_side, e.output_side, e.text) = (bad(), bad(), bad() + "more");
        (e.matching, e.carried, e.claims) = (bad(), bad(), vec![bad(), format!("`{HOSTILE}")]);
    }
    for e in asked.iter_mut().flat_map(|a| &mut a.exchanges) {
        (e.purpose, e.model, e.served, e.hash) = (bad(), bad(), bad(), bad());
        e.reply = bad();
        e.messages.iter_mut().for_each(|m| *m = (bad(), bad()));
        e.messages.push((bad(), bad()));
    }
}

fn hostile_head(head: &mut Head) {
    let bad = || HOSTILE.to_string();
    let role = |role: &mut Role| match role {
        Role::Same(text) | Role::Varies(text) => *text = HOSTILE.into(),
        Role::Bos | Role::Correct(_) | Role::Counter(_) => {}
    };
    head.task = bad();
    for m in &mut head.moves {
        role(&mut m.from);
        role(&mut m.to);
    }
    head.moves.push(Move {
        from: Role::Varies(bad()),
        to: Role::Same(bad()),
        ..head.moves[0].clone()
    });
    for a in &mut head.attention {
        a.template = bad();
        for (text, of) in &mut a.tokens {
            *text = HOSTILE.into();
            role(of);
        }
    }
    for c in &mut head.copies {
        c.token = bad();
        c.top.iter_mut().for_each(|(text, _)| *text = HOSTILE.into());
    }
    for c in head.contributors.iter_mut().flatten() {
        if let What::Other(kind, _) = &mut c.what {
            *kind = HOSTILE.into();
        }
    }
}

/// What is left of a page when its tags are taken out: the start of each, and its attributes by
/// name.
fn tags(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for tag in page.split('<').skip(1) {
        let end = tag
            .find('>')
            .unwrap_or_else(|| panic!("a stray `<` before `{}`", &tag[..tag.len().min(60)]));
        let outside: String = tag[..end].split('"').step_by(2).collect();
        names.extend(
            outside
                .split_whitespace()
                .map(|word| word.trim_end_matches('=').trim_end_matches('/').to_string()),
        );
    }
    names
}

#[test]
fn hostile_text_stays_text() {
    // With an address there are a sitemap and pictures besides.
    let plain = Atlas { base_url: "https://example.org".into(), ..fixture::atlas() };
    let (plain, hostile) = (built(&plain), built(&hostile()));
    // With hostile names nothing is of a task.
    let names = |files: &BTreeMap<String, String>| -> Vec<String> {
        files.keys().filter(|name| !name.contains("-task-")).cloned().collect()
    };
    assert_eq!(names(&plain), names(&hostile));
    let known: BTreeSet<String> = pages(&plain).flat_map(|(_, page)| tags(page)).collect();
    for (name, text) in pages(&hostile) {
        // One page has a script of ours in it.
        let ours = usize::from(name == "404.html");
        assert!(
            text.matches("<script>").count() == ours && !text.contains("alert(1)</"),
            "{name}: a text became markup"
        );
        assert!(!text.contains("62615533"), "{name}: a text was taken for a template");
    }
    for (name, page) in pages(&hostile) {
        assert!(page.contains("&lt;script&gt;"), "`{name}` shows nothing of the texts");
        let new: Vec<String> = tags(page).difference(&known).cloned().collect();
        assert!(new.is_empty(), "`{name}` has tags or attributes that no other page has: {new:?}");
    }
}

#[test]
fn warnings_about_dictionaries_are_on_their_page_and_on_the_front_page() {
    let files = built(&fixture::atlas());
    let (own, front) = (&files["dictionaries/index.html"], &files["index.html"]);
    assert!(own.contains("mlp1: its `b_enc` is zero throughout &lt;b&gt;&amp;"), "{own}");
    assert!(front.contains("2 warnings about the model or its dictionaries"), "{front}");
    let mut atlas = fixture::atlas();
    atlas.conformance.iter_mut().for_each(|c| c.warnings.clear());
    atlas.model_fit.warnings.clear();
    let files = built(&atlas);
    assert!(!files["index.html"].contains("or its dictionaries"));
    assert!(!files["dictionaries/index.html"].contains("Warnings"));
}

/// What a file of `search/` hands over.
fn handed(files: &BTreeMap<String, String>, name: &str) -> serde_json::Value {
    let text = &files[&format!("search/{name}.js")];
    let (start, end) = (format!("atlasData(\"{name}\","), ");\n");
    serde_json::from_str(text.strip_prefix(&start).unwrap().strip_suffix(end).unwrap()).unwrap()
}

#[test]
fn the_search_is_data_and_leads_to_pages() {
    for atlas in [fixture::atlas(), hostile()] {
        let files = built(&atlas);
        let index = handed(&files, "index");
        let kinds = index["kinds"].as_array().unwrap();
        let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let (mut row, size) = (0, number(&index["rows"]));
        for kind in kinds {
            assert_eq!(number(&kind["first"]), row, "kinds follow each other");
            for _ in 0..number(&kind["count"]) {
                let entry = &handed(&files, &format!("r{}", row / size))[row % size];
                let (folder, name) = (kind["folder"].as_str().unwrap(), entry[0].as_str().unwrap());
                let usual = format!("{folder}/{name}.html");
                let path = entry[1].as_str().unwrap_or(&usual);
                assert!(files.contains_key(path), "{path}");
                row += 1;
            }
        }
        assert!(row > 50);
        let words = index["words"].as_object().unwrap();
        for file in words.values() {
            assert!(handed(&files, &format!("w{file}"))["words"].is_array());
        }
    }
}

/// Of this process, as the system tells it.
fn largest_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().into()
}

/// A list page with all that it loads at first, the largest file that a script reads, and the
/// largest page of a feature.
fn sizes(files: &BTreeMap<String, String>) -> [usize; 4] {
    let assets = ["style.css", "atlas.js", "search.js", "list.js", "search/features.js"];
    let largest = |folder: &str| {
        let own = files.iter().filter(|(name, _)| name.starts_with(folder));
        own.filter(|(name, _)| !name.ends_with("index.html")).map(|(_, text)| text.len()).max()
    };
    let list: usize = assets.iter().map(|name| files[*name].len()).sum();
    [
        files["features/index.html"].len() + list,
        largest("search/").unwrap(),
        largest("lists/").unwrap(),
        largest("features/").unwrap(),
    ]
}

#[test]
fn lists_do_not_grow_with_their_rows() {
    let [few, many] = [200, 1600].map(|n| sizes(&built(&fixture::large::large(n, 2))));
    assert!(many[0] < 300_000 && many[1] < 40_000 && many[2] < 120_000, "{many:?}");
    assert!(many[0] < few[0] + 10_000, "{few:?} {many:?}");
}

/// `cargo test --release --lib -- --ignored --nocapture twenty_thousand`, and for a site to look at
/// `LARGE_SITE=FOLDER` before it; `LARGE_FEATURES=N` for a smaller one.
#[test]
#[ignore = "prints how fast a large site is rendered and published, and once more"]
fn twenty_thousand_features() {
    let features = std::env::var("LARGE_FEATURES").ok().and_then(|n| n.parse().ok());
    let address = std::env::var("LARGE_ADDRESS").unwrap_or_default();
    let atlas = fixture::large::large(features.unwrap_or(20_000), usize::MAX);
    let atlas = Atlas { base_url: address, ..atlas };
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::var("LARGE_SITE").ok().map(std::path::PathBuf::from);
    let site = kept.unwrap_or_else(|| folder.path().join("site"));
    let told = |what: &str, start: std::time::Instant| {
        let (seconds, memory) = (start.elapsed().as_secs_f64(), largest_memory());
        process::note(format!("{what}: {seconds:.1} s; largest memory {memory}"));
    };
    told("atlas", std::time::Instant::now());
    for what in ["new", "again"] {
        let all = std::time::Instant::now();
        manifest::check(&site).unwrap();
        told("  the site before is looked at", all);
        let pages = publish_folder(&site, OURS, |folder| {
            let start = std::time::Instant::now();
            Manifest::begin(folder)?;
            let (pages, known) = build(&atlas, folder, &site)?;
            told("  pages", start);
            let start = std::time::Instant::now();
            Manifest::write(folder, &site, "of a run", known)?;
            told("  mark", start);
            Ok(pages)
        });
        told(&format!("{what}, {} pages", pages.unwrap()), all);
        // As on another day.
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
    let files = read(&site);
    let of = |folder: &str| {
        let own = files.iter().filter(|(name, _)| name.starts_with(folder));
        own.fold((0, 0), |(n, bytes), (_, text)| (n + 1, bytes + text.len()))
    };
    let sizes = sizes(&files);
    process::note(format!("list page, file of the search, plain page, feature page: {sizes:?}"));
    process::note(format!("files and bytes of the search: {:?}, all: {:?}", of("search/"), of("")));
}

#[test]
fn a_name_that_cannot_be_a_files_is_refused() {
    for name in ["../up", "", "a/b", "<b>", "A"] {
        let mut atlas = fixture::atlas();
        atlas.tasks[0].name = name.into();
        let folder = tempfile::tempdir().unwrap();
        assert!(build(&atlas, folder.path(), Path::new("")).is_err(), "{name}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn the_same_atlas_gives_the_same_bytes() {
    assert!(built(&fixture::atlas()) == built(&fixture::atlas()));
}

/// Of two sites that differ in one feature, all other pages are one file.
#[cfg(unix)]
#[test]
fn what_did_not_change_is_not_written() {
    use std::os::unix::fs::MetadataExt;
    let (mut atlas, folders) = (fixture::atlas(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let [before, after] = folders.each_ref().map(|folder| folder.path());
    build(&atlas, before, Path::new("")).unwrap();
    atlas.features[0].special_active += 1;
    build(&atlas, after, before).unwrap();
    let (old, new) = (read(before), read(after));
    assert!(old.keys().eq(new.keys()));
    let changed: Vec<&String> = new
        .keys()
        .filter(|name| {
            let file = |folder: &Path| folder.join(name).metadata().unwrap().ino();
            let one = file(before) == file(after);
            assert_eq!(one, old[*name] == new[*name], "{name}");
            !one
        })
        .collect();
    assert_eq!(changed, [&format!("features/{}.html", atlas.features[0].id)]);
}

/// Of a picture that would be drawn from the same, the file is kept.
#[test]
fn cards_are_drawn_again_only_where_they_change() {
    let mut atlas = Atlas { base_url: "https://example.org".into(), ..fixture::atlas() };
    let folders = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [before, same, other, strange] = folders.each_ref().map(|folder| folder.path());
    let card = |folder: &Path| std::fs::read(folder.join("cards/tasks/ioi.png")).unwrap();
    build(&atlas, before, Path::new("")).unwrap();
    let drawn = card(before);
    // It is told from one that was drawn.
    std::fs::write(before.join("cards/tasks/ioi.png"), "kept").unwrap();
    build(&atlas, strange, before).unwrap();
    assert_eq!(card(strange), drawn, "in a folder that is no site of ours");
    Manifest::write(before, Path::new("none"), "of a run", Hashes::new()).unwrap();
    build(&atlas, same, before).unwrap();
    assert_eq!(card(same), b"kept");
    atlas.model = "another".into();
    build(&atlas, other, before).unwrap();
    assert!(card(other).starts_with(b"\x89PNG") && card(other) != drawn);
}

#[test]
fn a_task_page_says_which_heads_copy_and_which_lower() {
    let page = &built(&fixture::atlas())["tasks/ioi.html"];
    let said = page
        .split("<p class=\"finding\">")
        .find(|part| part.starts_with("Attention heads: "))
        .expect("a sentence of heads");
    let sentence = said.split("</p>").next().unwrap();
    for verdict in ["copies", "lowers"] {
        let given = page.contains(&format!("<td>{verdict}<"));
        assert_eq!(given, sentence.contains(&verdict[..3]), "{verdict}: {sentence}");
    }
}

#[test]
fn an_empty_atlas_is_a_site() {
    let files = built(&Atlas { title: "nothing".into(), layers: 2, heads: 2, ..Atlas::default() });
    assert!(files["index.html"].contains("nothing"));
    assert!(!files.contains_key("pairs/index.html"));
}

#[test]
fn pages_are_small() {
    let files = built(&fixture::atlas());
    let one_of_many =
        |name: &str| ["features/", "exchanges/"].iter().any(|folder| name.starts_with(folder));
    for (name, page) in files.iter().filter(|(name, _)| one_of_many(name)) {
        assert!(page.len() < 90_000, "`{name}` has {} bytes", page.len());
    }
}

/// In the fixture the first feature was not asked about, the third failed, the fourth was refused.
#[test]
fn who_wrote_an_explanation_is_said() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let page = |i: usize| &files[&format!("features/{}.html", atlas.features[i].id)];
    let summary = "Not written by a language model";
    assert!(page(0).contains(summary) && !page(0).contains("some-model"));
    assert!(
        page(1).contains("Written by the language model some-model") && !page(1).contains(summary)
    );
    for (i, what) in [
        (2, "gave no usable explanation: the reply has no field"),
        (3, "refused to explain it: I cannot"),
    ] {
        assert!(page(i).contains(&format!("The language model some-model {what}")), "{i}");
        let said =
            page(i).split("<div class=\"say\">").nth(1).unwrap().split("</div>").next().unwrap();
        assert!(said.contains(summary) && !said.contains("Who speaks in a dialogue"), "{i}");
        let gist = &files["features/index.html"];
        assert!(!gist.contains("the reply has no field"), "a failure stands for an explanation");
    }
    // Of three explanations the first is shown and the others folded away, the last of which
    // failed.
    let folded = page(5)
        .split("<details class=\"samples\">")
        .nth(1)
        .unwrap()
        .split("</details>")
        .next()
        .unwrap();
    assert!(
        folded.contains("2 further explanations") && folded.contains("gave no usable explanation")
    );
    assert_eq!(folded.matches("class=\"sample\"").count(), 2);
}

#[test]
fn a_heads_explanation_has_its_own_sides() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let written = atlas
        .components
        .iter()
        .filter(|c| c.explanation.as_ref().is_some_and(|e| e.explainer != "statistics"));
    for c in written.map(|c| c.component) {
        let page = &files[&format!("components/{c}.html")];
        for side in [">Matches</span>", ">Carries</span>"] {
            assert_eq!(page.contains(side), c.head().is_some(), "{c} {side}");
        }
        assert!(page.contains(">Claims</span>"));
    }
}

#[test]
fn what_was_asked_is_one_link_away() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    for f in &atlas.features {
        let path = format!("exchanges/features/{}.html", f.id);
        let linked =
            files[&format!("features/{}.html", f.id)].contains(&format!("href=\"../{path}\""));
        let there = f.asked.is_some();
        assert_eq!((linked, files.contains_key(&path)), (there, there), "{path}");
    }
    let page = &files[&format!("exchanges/features/{}.html", atlas.features[2].id)];
    for text in [
        "«asked»7 &lt;b&gt;why&lt;/b&gt; &amp; went.\n\nPromoted",
        "about &lt;i&gt;speech&lt;/i&gt;.</pre>",
        "id=\"q2\"",
        "the first 2 messages of <a href=\"#q1\">",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(
        page.matches("You explain features").count(),
        1,
        "what was said before is said again"
    );
    for name in [
        "exchanges/groups/quotation.html".into(),
        format!("exchanges/pairs/{}--{}.html", atlas.pairs[1].a, atlas.pairs[1].b),
    ] {
        assert!(files.contains_key(&name), "{name}");
    }
}

#[test]
fn without_a_language_model_there_is_nothing_of_one() {
    let files = built(&fixture::unasked());
    for (name, page) in pages(&files) {
        assert!(!name.starts_with("exchanges") && !page.contains("exchanges/"), "{name}");
        assert!(!page.contains("some-model") && !page.contains("class=\"badge"), "{name}");
        if name.starts_with("features/") && !name.ends_with("index.html") {
            assert!(
                page.contains("Not written by a language model")
                    && page.contains("Baseline for explanations: the single-token rule")
            );
        }
    }
    assert!(!files["index.html"].contains("id=\"explanations\""));
    for end in ["<", "\n"] {
        assert!(!files["features/index.html"].contains(&format!(">score{end}")));
    }
    assert!(!files["lists/features-1.html"].contains("c-score"));
}

/// The verdict of the table is that of the badge and of the list.
#[test]
fn an_explanation_that_beats_nothing_is_shown_as_such() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let mut seen = BTreeMap::new();
    for f in atlas
        .features
        .iter()
        .filter(|f| f.explanation.as_ref().is_some_and(|e| e.model == "some-model"))
    {
        let page = &files[&format!("features/{}.html", f.id)];
        let judged = of_evaluation(&f.evaluations[0]);
        let class = judged.verdict.class();
        let badge = page.split("class=\"badge ").nth(1).unwrap().split("</a>").next().unwrap();
        assert!(
            badge.starts_with(class) && badge.contains(&judged.words.replace('\'', "&#x27;")),
            "{badge}"
        );
        let row = files["lists/features-1.html"].split(&format!("{}.html\"", f.id)).nth(1).unwrap();
        assert!(
            row.split("<tr").next().unwrap().contains(&format!("class=\"mark {class}\"")),
            "{}",
            f.id
        );
        *seen.entry(class).or_insert(0) += 1;
    }
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), ["beaten", "beats", "near"]);
}

#[test]
fn the_front_page_counts_and_adds_up() {
    let page = &built(&fixture::atlas())["index.html"];
    let section =
        page.split("id=\"explanations\"").nth(1).unwrap().split("</section>").next().unwrap();
    assert!(section.contains("Explanations written by some-model."));
    let total = section.split("<tfoot>").nth(1).unwrap();
    let numbers: Vec<&str> = total
        .split("<td")
        .skip(1)
        .map(|cell| cell.split(&['>', '<'][..]).nth(1).unwrap())
        .collect();
    assert_eq!(numbers[..8], ["", "in all", "149", "129", "14", "4", "2", "243\u{202f}699"]);
    assert_eq!(
        section.matches("plot spread").count(),
        3,
        "a chart for each judge and method with a value"
    );
}

#[test]
fn what_cannot_be_told_is_a_dash_with_a_reason() {
    let files = built(&fixture::atlas());
    assert!(
        files["tasks/ioi.html"]
            .contains("— marks a ratio whose denominator is not significantly different from 0")
    );
}

#[test]
fn a_heads_page_says_what_it_does_and_an_mlps_does_not() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let page = |wanted: &dyn Fn(Component) -> bool| {
        let found = atlas.components.iter().map(|c| c.component).find(|c| wanted(*c)).unwrap();
        &files[&format!("components/{found}.html")]
    };
    let (head, mlp) =
        (page(&|c| c.head().is_some() && c.layer() > 2), page(&|c| c.head().is_none()));
    assert!(
        head.contains("from <b>the right answer</b> to <b>the last token, "),
        "where it carries from"
    );
    assert!(
        head.contains("<b>It copies the tokens it attends to.</b>")
            && head.contains("as <b>name mover</b>")
    );
    // Of two templates, three places each are in circuits; the attention of a prompt's line is on
    // its tokens.
    assert_eq!(head.matches(" carried\"").count(), 6);
    assert!(head.contains("<i class=\"a12\" title=\"0.59\">Mary</i>"), "a token in its heat");
    for section in
        ["id=\"does\"", "id=\"attention\"", "id=\"reads\"", "id=\"copies\"", "id=\"own\""]
    {
        assert!(head.contains(section) && !mlp.contains(section), "{section}");
    }
    assert!(
        files["tasks/ioi.html"].contains("id=\"heads\"")
            && files["tasks/ioi.html"].contains("name mover")
    );
}

#[test]
fn every_prompt_with_a_circuit_has_its_graph() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let (mut with, mut without) = (0, 0);
    for task in &atlas.tasks {
        for (number, prompt) in task.prompts.iter().enumerate() {
            let there = |ending: &str| {
                files.contains_key(&format!("graphs/{}-{number}.{ending}", task.name))
            };
            assert_eq!(
                (there("html"), there("json")),
                (prompt.graph.is_some(), prompt.graph.is_some())
            );
            if prompt.graph.is_some() { with += 1 } else { without += 1 }
        }
    }
    assert!(with > 40 && without > 0, "{with} {without}");
    let page = &files["graphs/ioi-0.html"];
    let graph = atlas.tasks[0].prompts[0].graph.as_ref().unwrap();
    let marks = Marks::of(graph);
    assert_eq!(page.matches("<a class=\"node ").count(), marks.nodes.len());
    assert_eq!(page.matches("<tr id=\"n").count(), graph.nodes().len());
    let drawn = page.split("class=\"links\"").nth(1).unwrap().split("</svg>").next().unwrap();
    assert_eq!(drawn.matches("data-n=").count() - marks.nodes.len(), marks.lines.len());
    for class in ["root", "att", "mlp", "head", "err", "bias", "emb", "emb pos"] {
        assert!(page.contains(&format!("class=\"node {class}\"")), "no {class}");
    }
}

/// Texts of tokens are in the file as they are; nothing else of it depends on them.
#[test]
fn files_of_graphs_are_whole_with_any_text() {
    for atlas in [fixture::atlas(), hostile()] {
        let is_graph = |name: &str| name.starts_with("graphs/") && name.ends_with(".json");
        for (name, text) in built(&atlas).iter().filter(|(name, _)| is_graph(name)) {
            let graph: serde_json::Value =
                serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            let nodes = graph["nodes"].as_array().unwrap();
            let ids: BTreeSet<&str> =
                nodes.iter().map(|n| n["node_id"].as_str().unwrap()).collect();
            assert_eq!(ids.len(), nodes.len(), "{name}");
            for link in graph["links"].as_array().unwrap() {
                assert!(
                    ["source", "target"]
                        .iter()
                        .all(|end| ids.contains(link[end].as_str().unwrap())),
                    "{name}"
                );
            }
            assert!(
                !text.contains("_head_")
                    && text.contains("\"lorsa error\"")
                    && text.contains("(p=")
            );
        }
    }
}

/// In the fixture a head's value reads the token at place `below`, its query too.
#[test]
fn what_a_head_reads_is_a_link_to_what_it_serves() {
    let atlas = fixture::atlas();
    let graph = atlas.tasks[0].prompts[0].graph.as_ref().unwrap();
    let file: serde_json::Value =
        serde_json::from_str(&built(&atlas)["graphs/ioi-0.json"]).unwrap();
    let head = graph.nodes().iter().position(|n| n.kind == NodeKind::Head).unwrap();
    let served = graph.links().iter().find(|l| l.from == head).unwrap();
    let into =
        |slot: Slot| graph.links().iter().find(|l| l.to == head && l.slot == slot).unwrap().effect;
    let node = &graph.nodes()[served.to];
    let id = format!("{}_lorsa_{}_{}", node.layer(), node.index(), node.position());
    let links = file["links"].as_array().unwrap();
    let link = links
        .iter()
        .find(|l| l["target"] == *id && l["source"].as_str().unwrap().starts_with("E_"))
        .unwrap();
    assert_eq!(link["weight"].as_f64().unwrap() as f32, into(Slot::V));
    let entry = file["nodes"].as_array().unwrap().iter().find(|n| n["node_id"] == *id).unwrap();
    let scores = &entry["qk_tracing_results"];
    assert_eq!(scores["top_q_marginal_contributors"][0][1].as_f64().unwrap() as f32, into(Slot::Q));
    assert_eq!(scores["top_k_marginal_contributors"][0][1].as_f64().unwrap() as f32, into(Slot::K));
    assert_eq!(entry["heads"][0]["weight"].as_f64().unwrap() as f32, served.effect);
}

/// The values that a script calls a function of the page with.
fn called(script: &str, function: &str) -> serde_json::Value {
    let call = script.trim().strip_prefix(&format!("window.{function}?.(")).expect(function);
    let values = call.strip_suffix(");").expect("the end of the call");
    serde_json::from_str(&format!("[{values}]")).unwrap_or_else(|e| panic!("{e}: {values}"))
}

/// What pages load when somebody asks for it is one call with data, whatever the texts are.
#[test]
fn scripts_of_features_and_texts_are_data() {
    for atlas in [fixture::atlas(), hostile()] {
        let files = built(&atlas);
        for f in &atlas.features {
            let said = called(&files[&format!("features/{}.js", f.id)], "atlasFeature");
            assert_eq!(said[0], f.id.to_string().as_str());
            let panel = said[1].as_str().unwrap();
            assert!(panel.contains("<p class=\"said\">") && !panel.contains("<script"), "{panel}");
            let known = f.examples.iter().filter(|e| e.is_whole_known());
            let contexts: BTreeSet<String> = known.map(|e| e.context.to_string()).collect();
            let told: BTreeSet<String> = said[2].as_object().unwrap().keys().cloned().collect();
            assert_eq!(told, contexts);
        }
        let texts = files.iter().filter(|(name, _)| name.starts_with("contexts/"));
        let told = texts.flat_map(|(_, text)| {
            called(text, "atlasContexts")[0]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        });
        let known: BTreeSet<String> = atlas.texts.keys().map(ToString::to_string).collect();
        assert_eq!(told.collect::<BTreeSet<_>>(), known);
        let loaded = |name: &str| {
            ["features/", "contexts/"].iter().any(|folder| name.starts_with(folder))
                && name.ends_with(".js")
        };
        for (name, script) in files.iter().filter(|(name, _)| loaded(name)) {
            assert!(!script.contains("</script") && !script.contains("<!--"), "{name}");
        }
    }
}

/// The data of a graph is whole in the page, and nothing in it ends the element.
#[test]
fn a_graphs_data_is_in_its_page() {
    for atlas in [fixture::atlas(), hostile()] {
        let page = &built(&atlas)["graphs/ioi-0.html"];
        let graph = atlas.tasks[0].prompts[0].graph.as_ref().unwrap();
        let text =
            page.split("id=\"graph-data\">").nth(1).unwrap().split("</script>").next().unwrap();
        let data: serde_json::Value = serde_json::from_str(text).unwrap();
        let list = |key: &str| data[key].as_array().unwrap();
        assert_eq!(list("nodes").len(), graph.nodes().len());
        assert_eq!(list("links").len(), graph.links().len());
        let keys: BTreeSet<&str> =
            list("marks").iter().map(|mark| mark["key"].as_str().unwrap()).collect();
        assert_eq!(keys.len(), list("marks").len(), "two marks have one name");
        assert!(keys.contains("answer"));
    }
}

#[test]
fn a_feature_page_says_what_writes_alike_and_what_heads_read() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let f = &atlas.features[0];
    let page = &files[&format!("features/{}.html", f.id)];
    let part = page.split("id=\"similar\"").nth(1).unwrap().split("</section>").next().unwrap();
    for one in &f.similar {
        assert!(part.contains(&format!("href=\"../features/{}.html\"", one.other)));
    }
    assert!(part.contains("class=\"noise\""), "the last is no nearer than random directions");
    let read = page.split("Where heads read from").nth(1).unwrap();
    let first = read.split("<li>").nth(1).unwrap();
    assert!(first.contains("<mark title=\"read by L1H0: 30.0%\">") && first.contains("2 before"));
    assert!(first.contains("BOS <b>30.0%</b>"));
    assert!(page.contains("Tokens after"));
}
