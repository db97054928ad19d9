//! `render`: everything above → the static site, built beside its place and swapped in whole.

use super::{Done, Run};
use crate::artifact::folder::{Place, publish_folder};
use crate::config::{Config, Task};
use crate::error::Result;
use crate::inputs;
use crate::lock::Ingredients;
use crate::site::manifest::{self, Manifest, OURS};
use std::path::Path;

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
    let site = config.path(name);
    match Manifest::read(&site) {
        None => Some(format!("there is no site in `{name}`")),
        Some(mark) if mark.fingerprint != fingerprint => {
            Some(format!("the site in `{name}` is from another run"))
        }
        Some(mark) => {
            mark.missing(&site).map(|file| format!("the site in `{name}` lacks `{file}`"))
        }
    }
}

/// Fills the atlas and writes its pages.
pub fn run(run: &Run) -> Result<Done> {
    let site = run.config.path(&run.config.output.site);
    check(run.config)?;
    run.progress.say("reading artifacts");
    let mut atlas = run.reader().atlas(run.order)?;
    atlas.fingerprint = run.fingerprint.into();
    run.progress.say("writing pages");
    let pages = publish(&site, run.fingerprint, |folder| crate::site::build(&atlas, folder))?;
    Ok(format!("{pages} pages in `{}`", run.config.output.site).into())
}

/// Writes a site through `build` and puts it in the place of the one before.
fn publish<T>(site: &Path, fingerprint: &str, build: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    publish_folder(site, OURS, |folder| {
        Manifest::begin(folder)?;
        let built = build(folder)?;
        Manifest::write(folder, fingerprint)?;
        Ok(built)
    })
}

/// Removes of the site what is ours, and says what is left in its folder.
pub fn remove(config: &Config) -> Result<Option<String>> {
    let name = &config.output.site;
    let site = config.path(name);
    // A link to a folder that is not there: there is no site.
    let Ok(place) = Place::of(&site) else { return Ok(None) };
    if !site.exists() && !place.has_leavings() {
        return Ok(None);
    }
    let _held = place.hold()?;
    // What a killed run has left beside it goes with it, if it is ours.
    let aside = place.recover(OURS).err().map(|error| error.to_string());
    let left = manifest::remove(&site)?;
    let left = left.map(|left| format!("left in `{name}`, as `render` did not write it: {left}"));
    let all: Vec<String> = left.into_iter().chain(aside).collect();
    Ok((!all.is_empty()).then(|| all.join("; ")))
}

/// # Errors
/// When the site's folder holds anything that is not of a site of ours: it would be lost; or when
/// an output is where an input is.
pub fn check(config: &Config) -> Result<()> {
    inputs::check_apart(config)?;
    Place::of(&config.path(&config.output.site))?.check(OURS)
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

    /// Renders a page with this text.
    fn write(site: &Path, text: &'static str) -> Result<()> {
        publish(site, "of a run", |folder| Ok(fs::write(folder.join("index.html"), text)?))
    }

    #[test]
    fn there_is_a_whole_site_at_every_moment() {
        let above = tempfile::tempdir().unwrap();
        let site = above.path().join("site");
        write(&site, "first").unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|threads| {
            let watch = threads.spawn(|| {
                let mut seen = 0;
                while !done.load(order) {
                    let page = fs::read_to_string(site.join("index.html"));
                    assert!(["first", "again"].contains(&page.unwrap().as_str()));
                    seen += 1;
                }
                seen
            });
            // Several at once, as of settings that share a site.
            std::thread::scope(|writers| {
                for _ in 0..3 {
                    writers.spawn(|| (0..40).for_each(|_| write(&site, "again").unwrap()));
                }
            });
            done.store(true, order);
            assert!(watch.join().unwrap() > 10);
        });
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_run_leaves_is_put_right() {
        let above = tempfile::tempdir().unwrap();
        let [site, new, old] = ["site", ".site.new", ".site.old"].map(|n| above.path().join(n));
        let page = || fs::read_to_string(site.join("index.html")).unwrap();
        let alone = || fs::read_dir(above.path()).unwrap().count() == 1;
        write(&site, "first").unwrap();
        // While it wrote, at any point.
        fs::create_dir(&new).unwrap();
        write(&site, "second").unwrap();
        assert!(page() == "second" && alone());
        fs::create_dir(&new).unwrap();
        fs::write(new.join(".atlas.json.circuit-atlas.tmp"), "{\"gener").unwrap();
        write(&site, "second").unwrap();
        assert!(page() == "second" && alone());
        fs::create_dir(&new).unwrap();
        Manifest::begin(&new).unwrap();
        fs::create_dir(new.join("tasks")).unwrap();
        fs::write(new.join("tasks/ioi.html"), "half").unwrap();
        write(&site, "third").unwrap();
        assert!(page() == "third" && alone());
        // While it removed the one from before.
        write(&new, "old").unwrap();
        fs::remove_file(new.join("index.html")).unwrap();
        write(&site, "fourth").unwrap();
        assert!(page() == "fourth" && alone());
        // Between two renames, where folders cannot be exchanged: the next run puts it back first.
        fs::rename(&site, &old).unwrap();
        write(&new, "new").unwrap();
        let seen = publish(&site, "of a run", |_| Ok(page())).unwrap();
        assert_eq!(seen, "fourth");
        // Twice in a row, and the site was removed meanwhile.
        fs::rename(&site, &old).unwrap();
        write(&new, "new").unwrap();
        remove_of(&site);
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0);
    }

    /// What `clean` does.
    fn remove_of(site: &Path) {
        let place = Place::of(site).unwrap();
        let _held = place.hold().unwrap();
        place.recover(OURS).unwrap();
        assert_eq!(manifest::remove(site).unwrap(), None);
    }
}
