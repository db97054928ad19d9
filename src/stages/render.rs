//! `render`: everything above → the static site, built beside its place and swapped in whole.

use super::reader::Reader;
use super::{Done, Run};
use crate::artifact::publish::publish_folder;
use crate::config::Config;
use crate::error::{Context, Hint, Result, hinted};
use crate::lock::Ingredients;
use std::path::Path;

/// Written last into the site: it is whole, and it is ours to replace.
const MARK: &str = "atlas.json";
const GENERATOR: &str = "circuit-atlas";
/// GitHub Pages serves a site with this file as it is. It alone may be in the folder before the first run.
const PLAIN: &str = ".nojekyll";

/// The program's version is on every page.
pub fn besides(_: &Config) -> Ingredients {
    Ingredients::from([("setting version of the program".into(), env!("CARGO_PKG_VERSION").into())])
}

/// What a site says of itself; nothing if the folder holds none of ours.
fn marked(site: &Path) -> Option<String> {
    let text = std::fs::read_to_string(site.join(MARK)).ok()?;
    let mark: serde_json::Value = serde_json::from_str(&text).ok()?;
    (mark["generator"] == GENERATOR).then(|| mark["fingerprint"].as_str().unwrap_or_default().to_string())
}

/// Why the site has to be made although its ingredients are the same.
pub fn stale(config: &Config, fingerprint: &str) -> Option<String> {
    let name = &config.output.site;
    match marked(&config.path(name)) {
        None => Some(format!("there is no site in `{name}`")),
        Some(mark) if mark != fingerprint => Some(format!("the site in `{name}` is of another run")),
        Some(_) => None,
    }
}

/// Fills the atlas and writes its pages.
pub fn run(run: &Run) -> Result<Done> {
    let site = run.config.path(&run.config.output.site);
    check(run.config)?;
    run.progress.say("reading artifacts");
    let atlas = Reader::load(run)?.atlas()?;
    run.progress.say("writing pages");
    let pages = publish_folder(&site, |folder| {
        let pages = crate::site::build(&atlas, folder)?;
        mark(folder, run.fingerprint)?;
        Ok(pages)
    })?;
    Ok(format!("{pages} pages in `{}`", run.config.output.site).into())
}

fn mark(folder: &Path, fingerprint: &str) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let mark = serde_json::json!({ "generator": GENERATOR, "version": version, "fingerprint": fingerprint });
    std::fs::write(folder.join(PLAIN), "")?;
    Ok(std::fs::write(folder.join(MARK), format!("{mark:#}\n"))?)
}

/// Removes the site, if it is one of ours.
pub fn remove(config: &Config) -> Result<()> {
    let site = config.path(&config.output.site);
    if marked(&site).is_some() {
        std::fs::remove_dir_all(&site).with_context(|| format!("cannot remove `{}`", site.display()))?;
    }
    Ok(())
}

/// # Errors
/// When the site's folder holds anything that is not a site of ours: it would be lost.
pub fn check(config: &Config) -> Result<()> {
    let site = config.path(&config.output.site);
    check_apart(config, &site)?;
    let what = || format!("cannot use `{}` for the site", site.display());
    let entries = match std::fs::read_dir(&site) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.hint(what, "set `output.site` to a folder")?,
    };
    let foreign = entries.flatten().any(|entry| entry.file_name() != PLAIN);
    if foreign && marked(&site).is_none() {
        return Err(hinted(
            format!("`{}` holds files that are not a site of this program", site.display()),
            "set `output.site` to an empty folder, or empty this one; `render` replaces the whole folder",
        ));
    }
    Ok(())
}

/// # Errors
/// When anything that a run reads or keeps is inside the site's folder, which is replaced whole, or the site is inside
/// the artifacts.
fn check_apart(config: &Config, site: &Path) -> Result<()> {
    let here = std::env::current_dir()?;
    let real = |path: &Path| std::fs::canonicalize(here.join(path)).unwrap_or_else(|_| here.join(path));
    let site = real(site);
    let read = [&config.model.path, &config.dictionaries.attention, &config.dictionaries.mlp, &config.corpus.path];
    let mut kept = vec![("the settings", real(&config.folder)), ("output.artifacts", real(&config.artifacts()))];
    for path in read {
        kept.push(("what the run reads", real(&config.path(path))));
    }
    let inside = kept.iter().find(|(_, path)| path.starts_with(&site));
    if let Some((what, path)) = inside {
        return Err(hinted(
            format!("`output.site` would replace `{}`, which holds {what}", path.display()),
            "set `output.site` to a folder of its own",
        ));
    }
    if site.starts_with(&kept[1].1) {
        return Err(hinted("`output.site` is inside `output.artifacts`", "set `output.site` to a folder of its own"));
    }
    Ok(())
}
