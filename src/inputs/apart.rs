//! Whether what a run writes is apart from what it reads.

use super::Input;
use crate::config::Config;
use crate::error::{Result, hinted};
use crate::task::{self, Origin};
use std::path::{Path, PathBuf};

/// # Errors
/// When anything that a run reads or keeps is inside the site's folder, which is replaced whole;
/// when anything that it reads is inside another folder that it writes; when it would read what it
/// writes as texts.
pub fn check_apart(config: &Config) -> Result<()> {
    let here = std::env::current_dir()?;
    let real = |path: &Path| real(&here.join(path));
    let site = real(&config.path(&config.output.site));
    let (artifacts, converted) = (real(&config.artifacts()), real(&config.converted()));
    let read = read(config);
    let mut kept = read.clone();
    kept.push(("output.artifacts".into(), config.artifacts()));
    kept.push(("output.dictionaries".into(), config.converted()));
    let inside = |folder: &Path, all: &[(String, PathBuf)]| {
        let all = all.iter().map(|(what, path)| (what.clone(), real(path)));
        all.into_iter().find(|(_, path)| path.starts_with(folder))
    };
    if let Some((what, path)) = inside(&site, &kept) {
        return Err(hinted(
            format!("`output.site` would replace `{}`, which contains {what}", path.display()),
            "set `output.site` to a folder of its own",
        ));
    }
    let outputs = [
        ("output.artifacts", &artifacts),
        ("output.dictionaries", &converted),
        ("output.site", &site),
    ];
    for (key, folder) in &outputs[..2] {
        if let Some((what, path)) = inside(folder, &read) {
            return Err(hinted(
                format!("`{key}` contains {what}: `{}`", path.display()),
                format!("set `{key}` to a folder of its own"),
            ));
        }
    }
    if site.starts_with(&artifacts) {
        return Err(hinted(
            "`output.site` is inside `output.artifacts`",
            "set `output.site` to a folder of its own",
        ));
    }
    if site.starts_with(&converted) {
        return Err(hinted(
            "`output.site` is inside `output.dictionaries`",
            "set `output.site` to a folder of its own",
        ));
    }
    let corpus = real(&config.path(&config.corpus.path));
    match outputs.iter().find(|(_, folder)| corpus.is_dir() && folder.starts_with(&corpus)) {
        Some((key, _)) => Err(hinted(
            format!(
                "`{key}` is inside the folder of the corpus, `{}`, and would be read as part of it",
                corpus.display()
            ),
            format!("set `{key}` to another folder, or `corpus.path` to one with texts only"),
        )),
        None => Ok(()),
    }
}

/// Everything that a run reads: what it is, and where.
fn read(config: &Config) -> Vec<(String, PathBuf)> {
    let mut read = vec![("the settings".to_string(), config.folder.clone())];
    for task in &config.tasks {
        let file = task
            .file
            .iter()
            .map(|file| (format!("the prompts of the task `{}`", task.name), config.path(file)));
        read.extend(file);
        if let Origin::File(file) = task::origin(task, &config.model.path) {
            read.push((
                format!("the published circuit of the task `{}`", task.name),
                config.path(file),
            ));
        }
    }
    let paths = [
        &config.model.path,
        &config.dictionaries.attention,
        &config.dictionaries.mlp,
        &config.corpus.path,
    ];
    let mut paths: Vec<PathBuf> = paths.map(|path| config.path(path)).into();
    // One by one too: a pattern or a list may name files that are elsewhere, and a folder may have
    // links in it. Of a corpus that is not there, whoever reads it says why.
    let inputs = [Input::Corpus, Input::Dictionaries, Input::Model, Input::Tokenizer];
    let files = inputs.iter().flat_map(|input| input.files(config).unwrap_or_default());
    paths.extend(files.map(|(_, path)| path));
    read.extend(paths.into_iter().map(|path| ("inputs of the run".into(), path)));
    read
}

/// Where a path leads, as far as it is there already.
fn real(path: &Path) -> PathBuf {
    match (std::fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(real), _, _) => real,
        (Err(_), Some(folder), Some(name)) => real(folder).join(name),
        _ => path.into(),
    }
}
