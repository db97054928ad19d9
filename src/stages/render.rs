//! `render`: everything above → the static site, built beside its place and swapped in whole.

use super::{Done, Run};
use crate::artifact::publish::publish_folder;
use crate::config::{Config, Task};
use crate::error::{Result, hinted};
use crate::inputs::Input;
use crate::lock::Ingredients;
use crate::site::manifest::{self, Manifest};
use crate::task::{self, Origin};
use std::path::{Path, PathBuf};

/// The front page shows the program's version, and where the inputs are.
pub fn besides(config: &Config) -> Ingredients {
    let Config { model, dictionaries, corpus, .. } = config;
    let paths = [
        ("model.path", &model.path),
        ("dictionaries.attention", &dictionaries.attention),
        ("dictionaries.mlp", &dictionaries.mlp),
        ("corpus.path", &corpus.path),
    ];
    let shown = |(key, path): (&str, &String)| (format!("setting {key}"), config.shown(path));
    let of_task = |task: &Task| {
        Some((format!("setting tasks.{}.file", task.name), config.shown(task.file.as_ref()?)))
    };
    let version = ("setting version of the program".into(), env!("CARGO_PKG_VERSION").into());
    let files = config.tasks.iter().filter_map(of_task);
    paths.into_iter().map(shown).chain(files).chain([version]).collect()
}

/// Why the site has to be made although its ingredients are the same.
pub fn stale(config: &Config, fingerprint: &str) -> Option<String> {
    let name = &config.output.site;
    match Manifest::read(&config.path(name)) {
        None => Some(format!("there is no site in `{name}`")),
        Some(mark) if mark.fingerprint != fingerprint => {
            Some(format!("the site in `{name}` is from another run"))
        }
        Some(_) => None,
    }
}

/// Fills the atlas and writes its pages.
pub fn run(run: &Run) -> Result<Done> {
    let site = run.config.path(&run.config.output.site);
    check(run.config)?;
    run.progress.say("reading artifacts");
    let atlas = run.reader().atlas(run.order)?;
    run.progress.say("writing pages");
    let pages = publish(&site, run.fingerprint, |folder| crate::site::build(&atlas, folder))?;
    Ok(format!("{pages} pages in `{}`", run.config.output.site).into())
}

/// Writes a site through `build` and puts it in the place of the one before.
fn publish<T>(site: &Path, fingerprint: &str, build: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    publish_folder(site, manifest::check, |folder| {
        let built = build(folder)?;
        Manifest::write(folder, fingerprint)?;
        Ok(built)
    })
}

/// Removes of the site what is ours, and says what is left in its folder.
pub fn remove(config: &Config) -> Result<Option<String>> {
    let name = &config.output.site;
    let left = manifest::remove(&config.path(name))?;
    Ok(left.map(|left| format!("left in `{name}`, as `render` did not write it: {left}")))
}

/// # Errors
/// When the site's folder holds anything that is not of a site of ours: it would be lost.
pub fn check(config: &Config) -> Result<()> {
    let site = config.path(&config.output.site);
    check_apart(config, &site)?;
    manifest::check(&site)
}

/// # Errors
/// When anything that a run reads or keeps is inside the site's folder, which is replaced whole, or
/// the site is inside the artifacts.
fn check_apart(config: &Config, site: &Path) -> Result<()> {
    let here = std::env::current_dir()?;
    let site = real(&here.join(site));
    let mut kept = kept(config)?.into_iter().map(|(what, path)| (what, real(&here.join(path))));
    if let Some((what, path)) = kept.find(|(_, path)| path.starts_with(&site)) {
        return Err(hinted(
            format!("`output.site` would replace `{}`, which contains {what}", path.display()),
            "set `output.site` to a folder of its own",
        ));
    }
    if site.starts_with(real(&here.join(config.artifacts()))) {
        return Err(hinted(
            "`output.site` is inside `output.artifacts`",
            "set `output.site` to a folder of its own",
        ));
    }
    Ok(())
}

/// Everything that a run reads or keeps, the site apart: what it is, and where.
fn kept(config: &Config) -> Result<Vec<(String, PathBuf)>> {
    let mut kept = vec![
        ("the settings".to_string(), config.folder.clone()),
        ("output.artifacts".into(), config.artifacts()),
        ("output.dictionaries".into(), config.converted()),
    ];
    for task in &config.tasks {
        let file = task
            .file
            .iter()
            .map(|file| (format!("the prompts of the task `{}`", task.name), config.path(file)));
        kept.extend(file);
        if let Origin::File(file) = task::origin(task, &config.model.path) {
            kept.push((
                format!("the published circuit of the task `{}`", task.name),
                config.path(file),
            ));
        }
    }
    let read = [
        &config.model.path,
        &config.dictionaries.attention,
        &config.dictionaries.mlp,
        &config.corpus.path,
    ];
    let mut paths: Vec<PathBuf> = read.map(|path| config.path(path)).into();
    // One by one too: a pattern or a list may name files that are elsewhere.
    paths.extend(Input::Corpus.files(config)?.into_iter().map(|(_, path)| path));
    // What is not there cannot be replaced; a stage that reads it says so.
    let dictionaries = Input::Dictionaries.files(config).unwrap_or_default();
    paths.extend(dictionaries.into_iter().map(|(_, path)| path));
    kept.extend(paths.into_iter().map(|path| ("inputs of the run".into(), path)));
    Ok(kept)
}

/// Where a path leads, as far as it is there already.
fn real(path: &Path) -> PathBuf {
    match (std::fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(real), _, _) => real,
        (Err(_), Some(folder), Some(name)) => real(folder).join(name),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_a_user_puts_there_while_pages_are_written_is_kept() {
        let above = tempfile::tempdir().unwrap();
        let site = above.path().join("site");
        let render = |meanwhile: &dyn Fn()| {
            publish(&site, "of a run", |folder| {
                meanwhile();
                Ok(fs::write(folder.join("index.html"), "a page")?)
            })
        };
        render(&|| ()).unwrap();
        render(&|| ()).unwrap();
        let error = render(&|| fs::write(site.join("CNAME"), "example.org").unwrap()).unwrap_err();
        assert!(
            crate::error::report(&error).contains("did not write and would delete: `CNAME`\n"),
            "{error:?}"
        );
        assert_eq!(fs::read_to_string(site.join("CNAME")).unwrap(), "example.org");
        assert_eq!(fs::read_to_string(site.join("index.html")).unwrap(), "a page");
        assert_eq!(
            fs::read_dir(above.path()).unwrap().count(),
            1,
            "something was left beside the site"
        );
    }
}
