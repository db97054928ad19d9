//! Which files in a site's folder are ours. The mark lists each with its hash: what it does not
//! list, or what is no longer as it was written, is a user's, and nobody removes it.

use super::build::{may_hold, may_write};
use crate::artifact::folder::Ours;
use crate::artifact::publish::{publish, scratch};
use crate::error::{Context, Hint, Result, hinted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::FileType;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The file of the mark. Of a site that is being written it lists no files; they are listed last,
/// so a site of which they are is whole.
const NAME: &str = "atlas.json";
const GENERATOR: &str = "circuit-atlas";
/// GitHub Pages serves a site with this file as it is. It alone may be in the folder before the
/// first run.
const PLAIN: &str = ".nojekyll";

/// How sites of ours are told.
pub(crate) const OURS: Ours = Ours { check, remove: remove_whole };

/// What a site says of itself.
#[derive(Deserialize, Serialize)]
pub(crate) struct Manifest {
    generator: String,
    #[serde(default)]
    version: String,
    /// Of what the site was made from.
    #[serde(default)]
    pub fingerprint: String,
    /// Every file but the mark, by its path in the site, with its hash. None while the site is being
    /// written; older versions listed none.
    files: Option<BTreeMap<String, String>>,
}

/// What lies in the folder of a site, by path below it.
#[derive(Default)]
struct Contents {
    ours: Vec<String>,
    /// Folders that files of ours belong into; inner ones first.
    folders: Vec<String>,
    /// What is not ours, in the words of a message.
    foreign: Vec<String>,
}

/// # Errors
/// When a folder holds anything that is not of a site of ours, or is no longer as it was written:
/// it would be lost.
pub(crate) fn check(site: &Path) -> Result<()> {
    let foreign = match Manifest::read(site) {
        Some(mark) => mark.contents(site)?.foreign,
        None => unmarked(site)?,
    };
    if foreign.is_empty() {
        return Ok(());
    }
    let what = format!(
        "`{}` contains files that `render` did not write and would delete: {}",
        site.display(),
        few(&foreign)
    );
    let hint = match is_beside(site) {
        true => format!(
            "`render` builds the site there; keep elsewhere what you need of it, then remove it \
             with `rm -r {}`",
            in_shell(site)
        ),
        false => "move it elsewhere, or set `output.site` to another folder; `render` replaces \
                  the whole folder"
            .into(),
    };
    Err(hinted(what, hint))
}

/// Whether a folder has the name of one beside a site, as `artifact::folder` gives them.
fn is_beside(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && (name.ends_with(".new") || name.ends_with(".old"))
}

/// A path as a word of a shell.
fn in_shell(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Removes what is ours from a folder, and says what it leaves there, if it is a site of ours.
///
/// # Errors
/// When something cannot be read or removed.
pub(crate) fn remove(site: &Path) -> Result<Option<String>> {
    let Some(mark) = Manifest::read(site) else { return Ok(None) };
    let Contents { mut ours, folders, foreign } = mark.contents(site)?;
    // Should this be killed, nobody takes what is left for a site that is as it should be.
    Manifest::save(site, "", mark.files)?;
    // The mark last: should this be killed, the next one still knows what is ours.
    ours.retain(|name| name != NAME);
    for name in &ours {
        remove_file(&site.join(name))?;
    }
    // A folder stays where a user has put something into it.
    folders.iter().for_each(|name| drop(std::fs::remove_dir(site.join(name))));
    remove_file(&site.join(NAME))?;
    drop(std::fs::remove_dir(site));
    Ok((!foreign.is_empty()).then(|| few(&foreign)))
}

/// Removes a folder in which everything is ours.
fn remove_whole(folder: &Path) -> Result<()> {
    if folder.symlink_metadata().is_err() {
        return Ok(());
    }
    check(folder)?;
    remove(folder)?;
    // Without a mark there was nothing in it but these.
    drop(std::fs::remove_file(folder.join(PLAIN)));
    drop(std::fs::remove_file(scratch(&folder.join(NAME))));
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    std::fs::remove_file(path).with_context(|| format!("cannot remove `{}`", path.display()))
}

impl Manifest {
    /// Nothing if the folder holds no site of ours.
    pub(crate) fn read(site: &Path) -> Option<Manifest> {
        let text = std::fs::read_to_string(site.join(NAME)).ok()?;
        serde_json::from_str(&text).ok().filter(|mark: &Manifest| mark.generator == GENERATOR)
    }

    /// Marks an empty folder as one in which a site is being written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin(folder: &Path) -> Result<()> {
        Manifest::save(folder, "", None)
    }

    /// Marks everything in a folder as ours.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn write(folder: &Path, fingerprint: &str) -> Result<()> {
        std::fs::write(folder.join(PLAIN), "")?;
        let mut files = BTreeMap::new();
        list(folder, "", &mut files)?;
        files.remove(NAME);
        Manifest::save(folder, fingerprint, Some(files))
    }

    fn save(
        folder: &Path,
        fingerprint: &str,
        files: Option<BTreeMap<String, String>>,
    ) -> Result<()> {
        let (generator, version) = (GENERATOR.into(), env!("CARGO_PKG_VERSION").into());
        let mark = Manifest { generator, version, fingerprint: fingerprint.into(), files };
        let text = serde_json::to_string_pretty(&mark)? + "\n";
        publish(&folder.join(NAME), |file| Ok(file.write_all(text.as_bytes())?))
    }

    /// A file of ours that is no longer there.
    pub(crate) fn missing(&self, site: &Path) -> Option<&str> {
        let listed = self.files.iter().flatten().map(|(name, _)| name.as_str());
        listed.chain([PLAIN]).find(|name| !site.join(name).exists())
    }

    fn contents(&self, site: &Path) -> Result<Contents> {
        let mut contents = Contents::default();
        self.sort(site, "", &mut contents)?;
        Ok(contents)
    }

    /// Sorts what lies in a folder of the site into ours and others'. A folder that nothing of ours
    /// belongs into is one thing.
    fn sort(&self, site: &Path, below: &str, into: &mut Contents) -> Result<()> {
        for (name, kind) in entries(site, below)? {
            if kind.is_dir() && self.holds(&name) {
                self.sort(site, &format!("{name}/"), into)?;
                into.folders.push(name);
                continue;
            }
            match self.foreign(site, &name, kind)? {
                None => into.ours.push(name),
                Some(words) => into.foreign.push(words),
            }
        }
        Ok(())
    }

    /// Whether files of ours belong into a folder.
    fn holds(&self, folder: &str) -> bool {
        let Some(files) = &self.files else { return may_hold(folder) };
        let below = format!("{folder}/");
        files.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// What something is called in a message if it is not ours.
    fn foreign(&self, site: &Path, name: &str, kind: FileType) -> Result<Option<String>> {
        let hash = self.files.as_ref().map(|files| files.get(name));
        Ok(match hash {
            _ if kind.is_dir() => Some(format!("`{name}/`")),
            // A link, which is never ours.
            _ if !kind.is_file() => Some(format!("`{name}`")),
            _ if [NAME, PLAIN].contains(&name) => None,
            _ if is_half_mark(name) => None,
            Some(Some(hash)) if *hash == hashed(&site.join(name))? => None,
            Some(Some(_)) => Some(format!("`{name}` (changed since it was written)")),
            None if may_write(name) => None,
            _ => Some(format!("`{name}`")),
        })
    }
}

/// Whether a name is that of a mark that a killed run was writing.
fn is_half_mark(name: &str) -> bool {
    Some(name) == scratch(Path::new(NAME)).to_str()
}

/// What lies in a folder that is no site of ours.
fn unmarked(folder: &Path) -> Result<Vec<String>> {
    let mut entries = entries(folder, "")?;
    entries.retain(|(name, kind)| !(kind.is_file() && (name == PLAIN || is_half_mark(name))));
    Ok(entries
        .into_iter()
        .map(|(name, kind)| format!("`{name}{}`", if kind.is_dir() { "/" } else { "" }))
        .collect())
}

/// Every file below a folder with its hash.
fn list(site: &Path, below: &str, files: &mut BTreeMap<String, String>) -> Result<()> {
    for (name, kind) in entries(site, below)? {
        if kind.is_dir() {
            list(site, &format!("{name}/"), files)?;
        } else {
            let hash = hashed(&site.join(&name))?;
            files.insert(name, hash);
        }
    }
    Ok(())
}

/// What lies in a folder of the site, by its path in the site and in order; links are not followed.
fn entries(site: &Path, below: &str) -> Result<Vec<(String, FileType)>> {
    let entry = |entry: std::io::Result<std::fs::DirEntry>| -> std::io::Result<(String, FileType)> {
        let entry = entry?;
        Ok((format!("{below}{}", entry.file_name().to_string_lossy()), entry.file_type()?))
    };
    let read = std::fs::read_dir(site.join(below))
        .and_then(|all| all.map(entry).collect::<std::io::Result<Vec<_>>>());
    let mut entries = match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.hint(
            || format!("cannot use `{}` for the site", site.display()),
            "set `output.site` to a folder",
        )?,
    };
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}

fn hashed(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(blake3::hash(&bytes).to_hex()[..32].to_string())
}

/// The first few of some names, and how many more there are.
fn few(names: &[String]) -> String {
    const FEW: usize = 4;
    let first = names[..names.len().min(FEW)].join(", ");
    if names.len() > FEW { format!("{first} and {} more", names.len() - FEW) } else { first }
}
