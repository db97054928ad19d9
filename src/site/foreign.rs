//! What others keep in the folder of a site, such as `.git`, `CNAME` or images. It stays there when
//! the site is replaced: the new site gets hard links to it before it is put in place, and whatever
//! changed in the old one meanwhile is moved over afterwards.

use crate::error::{Context, Hint, Result, hinted};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::Path;

/// Files of ours in whose place a user may keep one of his own.
const REPLACEABLE: [&str; 3] = ["404.html", "robots.txt", "sitemap.xml"];

/// Of a folder that is no site of ours, as many files are looked at.
const MOST: usize = 10_000;

/// Whether a user's file may stand in the place of one of ours.
pub(super) fn may_stand(path: &str) -> bool {
    REPLACEABLE.contains(&path)
}

/// Links something of a user's into a new site, under the same path. The paths of files of ours
/// that had to give way are added to `gone`.
///
/// # Errors
/// When it would replace a page, or cannot be linked.
pub(super) fn link(site: &Path, new: &Path, path: &str, gone: &mut Vec<String>) -> Result<()> {
    let (from, to) = (site.join(path), new.join(path));
    let what = || format!("cannot keep `{}`", from.display());
    let found = match from.symlink_metadata() {
        // Removed meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.with_context(what)?,
    };
    if let Some(above) = to.parent() {
        fs::create_dir_all(above).with_context(what)?;
    }
    if let Ok(there) = to.symlink_metadata()
        && !(there.is_dir() && found.is_dir())
    {
        if there.is_dir() || !found.is_file() || !may_stand(path) {
            return Err(hinted(
                format!("`{}` is not ours, and `render` would write a file there", from.display()),
                "move it elsewhere, or set `output.site` to another folder",
            ));
        }
        fs::remove_file(&to).with_context(what)?;
        gone.push(path.into());
    }
    if found.is_dir() {
        fs::create_dir_all(&to).with_context(what)?;
        for name in names(&from)? {
            link(site, new, &format!("{path}/{name}"), gone)?;
        }
        fs::set_permissions(&to, found.permissions()).with_context(what)
    } else if found.is_symlink() {
        link_again(&from, &to).with_context(what)
    } else if found.is_file() {
        // Not every file system has hard links.
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).with_context(what)
    } else {
        // A socket or pipe is moved over later.
        Ok(())
    }
}

/// Moves something of a user's from an old site to the one in its place, unless it is there
/// already; of two files the one that was changed later stays.
///
/// # Errors
/// When it cannot be moved.
pub(super) fn move_over(old: &Path, site: &Path, path: &str) -> Result<()> {
    let (from, to) = (old.join(path), site.join(path));
    let what = || format!("cannot move `{}` to `{}`", from.display(), to.display());
    let own = from.symlink_metadata().with_context(what)?;
    let Ok(there) = to.symlink_metadata() else {
        if let Some(above) = to.parent() {
            fs::create_dir_all(above).with_context(what)?;
        }
        return fs::rename(&from, &to).with_context(what);
    };
    if own.is_dir() && there.is_dir() {
        for name in names(&from)? {
            move_over(old, site, &format!("{path}/{name}"))?;
        }
        return fs::remove_dir(&from).with_context(what);
    }
    if own.is_dir() || there.is_dir() {
        return Err(hinted(
            format!("`{}` and `{}` are not of one kind", from.display(), to.display()),
            "keep the one that you need at the second place, and remove the first",
        ));
    }
    let newer = own.modified().with_context(what)? > there.modified().with_context(what)?;
    match newer && !is_same(&own, &there) {
        true => fs::rename(&from, &to).with_context(what),
        false => fs::remove_file(&from).with_context(what),
    }
}

/// What lies in a folder that is no site of ours and keeps it from becoming one, in the words of a
/// message: somebody else's pages.
///
/// # Errors
/// When a folder cannot be read.
pub(super) fn pages_of_others(folder: &Path) -> Result<Vec<String>> {
    let (mut pages, mut seen) = (Vec::new(), 0);
    search(folder, "", &mut seen, &mut pages)?;
    if seen > MOST && pages.is_empty() {
        pages.push(format!("more than {MOST} files"));
    }
    Ok(pages)
}

fn search(folder: &Path, below: &str, seen: &mut usize, pages: &mut Vec<String>) -> Result<()> {
    for name in names(&folder.join(below))? {
        let path = format!("{below}{name}");
        let is_folder = folder.join(&path).symlink_metadata().is_ok_and(|found| found.is_dir());
        *seen += 1;
        if *seen > MOST {
            return Ok(());
        }
        match is_folder {
            // What git and others keep for themselves is on no page.
            true if name.starts_with('.') => {}
            true => search(folder, &format!("{path}/"), seen, pages)?,
            false if is_page(&name) => pages.push(format!("`{path}`")),
            false => {}
        }
    }
    Ok(())
}

fn is_page(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    ["html", "htm", "xhtml"].contains(&ending.as_str())
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Result<Vec<String>> {
    let name = |entry: std::io::Result<fs::DirEntry>| -> Result<String> {
        entry?.file_name().into_string().ok().context("it has a name that is not UTF-8")
    };
    let read = fs::read_dir(folder).map_err(anyhow::Error::from);
    let names = read.and_then(|all| all.map(name).collect::<Result<Vec<_>>>());
    let mut names = names.hint(
        || format!("cannot read the folder `{}`", folder.display()),
        "check its permissions, or set `output.site` to another folder",
    )?;
    names.sort();
    Ok(names)
}

#[cfg(unix)]
fn link_again(from: &Path, to: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(fs::read_link(from)?, to)
}

#[cfg(not(unix))]
fn link_again(_: &Path, _: &Path) -> std::io::Result<()> {
    // It is moved over later.
    Ok(())
}

/// Whether two names are of one file.
#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    false
}
