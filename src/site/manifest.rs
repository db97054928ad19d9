//! Which files in a site's folder are ours. The mark lists each with its hash: what it does not
//! list is a user's, and stays in the folder; while a file of ours is no longer as it was written,
//! the site is not replaced.

use super::build::{held_once, may_write, wrote_once};
use super::{foreign, hashes};
use crate::artifact::folder::Ours;
use crate::artifact::publish::{publish, scratch};
use crate::error::{Context, Hint, Result, hinted};
use rayon::prelude::*;
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
pub(crate) const OURS: Ours = Ours { check, check_afresh, remove: remove_beside };

/// The hash of each file of a site, by its path in the site.
pub(crate) type Hashes = BTreeMap<String, String>;

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
    files: Option<Hashes>,
    /// While the site is being written: what of a user's is there is a link or a copy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begun: bool,
}

/// What lies in the folder of a site, by path below it.
#[derive(Default)]
struct Contents {
    ours: Vec<String>,
    /// Folders that files of ours belong into; inner ones first.
    folders: Vec<String>,
    /// What is not ours, in order.
    others: Vec<Other>,
}

/// Something in the folder that is not ours, or not any more.
struct Other {
    path: String,
    is_folder: bool,
    /// The mark lists it, but it is no longer as it was written.
    is_edited: bool,
}

impl Other {
    /// What it is called in a message.
    fn words(&self) -> String {
        let Other { path, is_folder, .. } = self;
        let changed = if self.is_edited { " (changed since it was written)" } else { "" };
        format!("`{path}{}`{changed}", if *is_folder { "/" } else { "" })
    }
}

/// How the hash of a file is found.
type HashOf = fn(&Path) -> Result<String>;

/// Files that look as they did when they were last read are not read again.
///
/// # Errors
/// When a site cannot be put in the place of what a folder holds, without a loss to its user: pages
/// of somebody else, or pages of ours that were edited.
pub(crate) fn check(site: &Path) -> Result<()> {
    check_by(site, hashes::of_file)
}

/// The same with every file read.
fn check_afresh(site: &Path) -> Result<()> {
    check_by(site, hashes::of_file_afresh)
}

fn check_by(site: &Path, hash: HashOf) -> Result<()> {
    match Manifest::read(site) {
        None => check_unmarked(site),
        Some(mark) if mark.begun => Ok(()),
        Some(mark) => check_edited(site, &mark.contents(site, hash)?),
    }
}

fn check_edited(site: &Path, contents: &Contents) -> Result<()> {
    let edited = contents.others.iter().filter(|other| other.is_edited);
    let edited: Vec<String> = edited.map(Other::words).collect();
    if edited.is_empty() {
        return Ok(());
    }
    Err(refused(
        site,
        &edited,
        "keep a copy elsewhere of what you need, then remove these files; `render` writes them \
         again",
    ))
}

/// The same of a folder that is no site of ours.
fn check_unmarked(folder: &Path) -> Result<()> {
    let entries = unmarked(folder)?;
    let names = |all: &[Other]| all.iter().map(Other::words).collect::<Vec<_>>();
    if is_beside(folder) && !entries.is_empty() {
        let hint = format!(
            "`render` builds the site there; keep elsewhere what you need of it, then remove it \
             with `rm -r {}`",
            in_shell(folder)
        );
        return Err(refused(folder, &names(&entries), &hint));
    }
    let mut pages: Vec<String> =
        entries.iter().filter(|entry| is_name_of_ours(&entry.path)).map(Other::words).collect();
    if !entries.is_empty() {
        pages.extend(foreign::pages_of_others(folder)?);
        pages.sort();
        pages.dedup();
    }
    match pages.is_empty() {
        true => Ok(()),
        false => Err(refused(folder, &pages, "set `output.site` to another folder")),
    }
}

fn refused(site: &Path, files: &[String], hint: &str) -> anyhow::Error {
    let what = format!(
        "`{}` contains files that `render` did not write, where it would write a site: {}",
        site.display(),
        few(files)
    );
    hinted(what, hint)
}

/// Whether a site has a file of this name, and none of a user's can be in its place.
fn is_name_of_ours(name: &str) -> bool {
    name == NAME || may_write(name) && !foreign::may_stand(name)
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
    let contents = mark.contents(site, hashes::of_file_afresh)?;
    mark.remove(site, &contents)?;
    let others: Vec<String> = contents.others.iter().map(Other::words).collect();
    Ok((!others.is_empty()).then(|| few(&others)))
}

/// Removes a folder beside the site. What a user keeps in it moves to the site.
fn remove_beside(folder: &Path, site: &Path) -> Result<()> {
    if folder.symlink_metadata().is_err() {
        return Ok(());
    }
    match Manifest::read(folder) {
        Some(mark) if mark.begun => remove_begun(folder)?,
        Some(mark) => {
            let contents = mark.contents(folder, hashes::of_file)?;
            check_edited(folder, &contents)?;
            let others = &contents.others;
            if !others.is_empty() && !site.exists() {
                // It is the only one that there is.
                return std::fs::rename(folder, site)
                    .with_context(|| format!("cannot write `{}`", site.display()));
            }
            others.iter().try_for_each(|other| foreign::move_over(folder, site, &other.path))?;
            mark.remove(folder, &contents)?;
        }
        None => check_unmarked(folder)?,
    }
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

/// Empties a folder in which a site was being written; the mark goes last.
fn remove_begun(folder: &Path) -> Result<()> {
    let what = || format!("cannot remove `{}`", folder.display());
    for (name, kind) in entries(folder, "")?.into_iter().filter(|(name, _)| name != NAME) {
        let path = folder.join(name);
        let done = if kind.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        done.with_context(what)?;
    }
    remove_file(&folder.join(NAME))
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
        Manifest::of("", None, true).save(folder)
    }

    /// Marks everything in a folder as ours, and links what a user keeps in the folder of the site
    /// that it is to replace. Says what of ours was left out, as a user has one of his own. Files of which
    /// the hash is not among the `known` are read.
    ///
    /// # Errors
    /// When a file cannot be read, written or linked.
    pub(crate) fn write(
        folder: &Path,
        site: &Path,
        fingerprint: &str,
        known: Hashes,
    ) -> Result<Vec<String>> {
        std::fs::write(folder.join(PLAIN), "")?;
        let mut gone = Vec::new();
        let mut files = hashed(folder, known)?;
        files.remove(NAME);
        if let Ok(found) = site.metadata() {
            let others = match Manifest::read(site) {
                Some(mark) => mark.contents(site, hashes::of_file)?.others,
                None => {
                    // So that wherever it is put, all of it is known to be a user's.
                    Manifest::of("", Some(Hashes::new()), false).save(site)?;
                    unmarked(site)?
                }
            };
            for other in others.iter().filter(|other| !other.is_edited && other.path != NAME) {
                foreign::link(site, folder, &other.path, &mut gone)?;
            }
            std::fs::set_permissions(folder, found.permissions())?;
        }
        files.retain(|name, _| !gone.contains(name));
        Manifest::of(fingerprint, Some(files), false).save(folder)?;
        Ok(gone)
    }

    fn of(fingerprint: &str, files: Option<Hashes>, begun: bool) -> Manifest {
        let (generator, version) = (GENERATOR.into(), env!("CARGO_PKG_VERSION").into());
        Manifest { generator, version, fingerprint: fingerprint.into(), files, begun }
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        publish(&folder.join(NAME), |file| Ok(file.write_all(text.as_bytes())?))
    }

    /// The pages that it lists.
    pub(crate) fn pages(&self) -> impl Iterator<Item = &str> {
        let names = self.files.iter().flatten().map(|(name, _)| name.as_str());
        names.filter(|name| name.ends_with(".html"))
    }

    /// A file of ours that is no longer there.
    pub(crate) fn missing(&self, site: &Path) -> Option<&str> {
        let listed = self.files.iter().flatten().map(|(name, _)| name.as_str());
        listed.chain([PLAIN]).find(|name| !site.join(name).exists())
    }

    /// Removes what is ours.
    fn remove(self, site: &Path, contents: &Contents) -> Result<()> {
        // Should this be killed, nobody takes what is left for a site that is as it should be.
        Manifest { fingerprint: String::new(), ..self }.save(site)?;
        // The mark last: should this be killed, the next one still knows what is ours.
        for name in contents.ours.iter().filter(|name| *name != NAME) {
            remove_file(&site.join(name))?;
        }
        // A folder stays where a user has put something into it.
        contents.folders.iter().for_each(|name| drop(std::fs::remove_dir(site.join(name))));
        remove_file(&site.join(NAME))?;
        drop(std::fs::remove_dir(site));
        Ok(())
    }

    /// Whether this file is one of its own.
    pub(crate) fn lists(&self, name: &str) -> bool {
        self.files.as_ref().is_some_and(|files| files.contains_key(name))
    }

    fn contents(&self, site: &Path, hash: HashOf) -> Result<Contents> {
        let mut contents = Contents::default();
        self.sort(site, "", hash, &mut contents)?;
        contents.others.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(contents)
    }

    /// Sorts what lies in a folder of the site into ours and others'. A folder that nothing of ours
    /// belongs into is one thing.
    fn sort(&self, site: &Path, below: &str, hash: HashOf, into: &mut Contents) -> Result<()> {
        let entries = entries(site, below)?;
        let (folders, files): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(name, kind)| kind.is_dir() && self.holds(name));
        for (name, _) in folders {
            self.sort(site, &format!("{name}/"), hash, into)?;
            into.folders.push(name);
        }
        let whose: Vec<Whose> = files
            .par_iter()
            .map(|(name, kind)| self.is_ours(site, name, *kind, hash))
            .collect::<Result<_>>()?;
        for ((name, kind), whose) in files.into_iter().zip(whose) {
            let other =
                |is_edited| Other { path: name.clone(), is_folder: kind.is_dir(), is_edited };
            match whose {
                Whose::Ours => into.ours.push(name),
                Whose::Edited => into.others.push(other(true)),
                Whose::Others => into.others.push(other(false)),
            }
        }
        Ok(())
    }

    /// Whether files of ours belong into a folder.
    fn holds(&self, folder: &str) -> bool {
        let Some(files) = &self.files else { return held_once(folder) };
        let below = format!("{folder}/");
        files.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
    }

    fn is_ours(&self, site: &Path, name: &str, kind: FileType, hash: HashOf) -> Result<Whose> {
        let listed = self.files.as_ref().map(|files| files.get(name));
        Ok(match listed {
            // A folder or link in the place of a file of ours.
            Some(Some(_)) if !kind.is_file() => Whose::Edited,
            None if !kind.is_file() && wrote_once(name) => Whose::Edited,
            // A folder or link is never ours.
            _ if !kind.is_file() => Whose::Others,
            _ if [NAME, PLAIN].contains(&name) || is_half_mark(name) => Whose::Ours,
            Some(Some(listed)) if *listed == hash(&site.join(name))? => Whose::Ours,
            Some(Some(_)) if foreign::may_stand(name) => Whose::Others,
            Some(Some(_)) => Whose::Edited,
            None if wrote_once(name) => Whose::Ours,
            _ => Whose::Others,
        })
    }
}

/// Whose a file in the folder of a site is.
enum Whose {
    Ours,
    Others,
    /// Ours, but a user has changed or replaced it.
    Edited,
}

/// Whether a name is that of a mark that a killed run was writing.
fn is_half_mark(name: &str) -> bool {
    Some(name) == scratch(Path::new(NAME)).to_str()
}

/// What lies in a folder that is no site of ours.
fn unmarked(folder: &Path) -> Result<Vec<Other>> {
    let mut entries = entries(folder, "")?;
    entries.retain(|(name, kind)| !(kind.is_file() && (name == PLAIN || is_half_mark(name))));
    let other = |(path, kind): (String, FileType)| Other {
        path,
        is_folder: kind.is_dir(),
        is_edited: false,
    };
    Ok(entries.into_iter().map(other).collect())
}

/// Every file below a folder with its hash, which may be known.
fn hashed(site: &Path, mut known: Hashes) -> Result<Hashes> {
    let mut names = Vec::new();
    list(site, "", &mut names)?;
    let known: Vec<Option<String>> = names.iter().map(|name| known.remove(name)).collect();
    let hash = |(name, known): (String, Option<String>)| {
        let hash = known.map_or_else(|| hashes::of_file(&site.join(&name)), Ok)?;
        Ok((name, hash))
    };
    names.into_par_iter().zip(known).map(hash).collect()
}

/// Every file below a folder.
fn list(site: &Path, below: &str, names: &mut Vec<String>) -> Result<()> {
    for (name, kind) in entries(site, below)? {
        match kind.is_dir() {
            true => list(site, &format!("{name}/"), names)?,
            false => names.push(name),
        }
    }
    Ok(())
}

/// What lies in a folder of the site, by its path in the site and in order; links are not followed.
fn entries(site: &Path, below: &str) -> Result<Vec<(String, FileType)>> {
    let entry = |entry: std::io::Result<std::fs::DirEntry>| -> std::io::Result<(String, FileType)> {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| {
            let what = format!("the name {name:?} is not UTF-8; rename the file");
            std::io::Error::new(ErrorKind::InvalidData, what)
        })?;
        Ok((format!("{below}{name}"), entry.file_type()?))
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

/// The first few of some names, and how many more there are.
fn few(names: &[String]) -> String {
    const FEW: usize = 4;
    let first = names[..names.len().min(FEW)].join(", ");
    if names.len() > FEW { format!("{first} and {} more", names.len() - FEW) } else { first }
}
