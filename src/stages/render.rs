//! `render`: everything above → the static site, built beside its place and swapped in whole.

use super::Run;
use super::reader::Reader;
use crate::artifact::publish::publish_folder;
use crate::config::Config;
use crate::error::{Context, Hint, Result, hinted};
use crate::lock::Ingredients;
use std::path::Path;

/// Written last into the site: it is whole, and it is ours to replace.
const MARK: &str = "atlas.json";
/// GitHub Pages serves a site with this file as it is. It alone may be in the folder before the first run.
const PLAIN: &str = ".nojekyll";

/// The program's version is on every page.
pub fn besides(_: &Config) -> Ingredients {
    Ingredients::from([("setting version of the program".into(), env!("CARGO_PKG_VERSION").into())])
}

/// Why the site has to be made although its ingredients are the same.
pub fn stale(config: &Config) -> Option<String> {
    let site = config.path(&config.output.site);
    (!site.join(MARK).is_file()).then(|| format!("there is no site in `{}`", config.output.site))
}

/// Fills the atlas and writes its pages.
pub fn run(run: &Run) -> Result<String> {
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
    Ok(format!("{pages} pages in `{}`", run.config.output.site))
}

fn mark(folder: &Path, fingerprint: &str) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let mark = serde_json::json!({ "generator": "circuit-atlas", "version": version, "fingerprint": fingerprint });
    std::fs::write(folder.join(PLAIN), "")?;
    Ok(std::fs::write(folder.join(MARK), format!("{mark:#}\n"))?)
}

/// Removes the site, if it is one of ours.
pub fn remove(config: &Config) -> Result<()> {
    let site = config.path(&config.output.site);
    if site.join(MARK).is_file() {
        std::fs::remove_dir_all(&site).with_context(|| format!("cannot remove `{}`", site.display()))?;
    }
    Ok(())
}

/// # Errors
/// When the site's folder holds anything that is not a site of ours: it would be lost.
pub fn check(config: &Config) -> Result<()> {
    let site = config.path(&config.output.site);
    let what = || format!("cannot use `{}` for the site", site.display());
    let entries = match std::fs::read_dir(&site) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.hint(what, "set `output.site` to a folder")?,
    };
    let foreign = entries.flatten().any(|entry| entry.file_name() != PLAIN);
    if foreign && !site.join(MARK).is_file() {
        return Err(hinted(
            format!("`{}` holds files that are not a site of this program", site.display()),
            "set `output.site` to an empty folder, or empty this one; `render` replaces the whole folder",
        ));
    }
    Ok(())
}
