//! `render`: everything above → the static site, built beside its place and swapped in whole.

use super::{Done, Run, bounds};
use crate::artifact::folder::{Place, publish_folder};
use crate::config::{Config, Task};
use crate::error::{HeldBack, Result, because};
use crate::history;
use crate::inputs;
use crate::lock::Ingredients;
use crate::process;
use crate::site::manifest::{self, Hashes, Manifest, OURS};
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
    let keep = ("setting output.keep".into(), config.output.keep.to_string());
    let files = config.tasks.iter().filter_map(of_task);
    let all = paths.into_iter().map(shown).chain(files).chain([version, keep]);
    all.chain(inputs::imported(config)).collect()
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
    let reader = run.reader();
    let mut atlas = reader.atlas(run.order)?;
    atlas.fingerprint = run.fingerprint.into();
    let keep = run.config.output.keep;
    if keep > 0 {
        atlas.changes = history::history(run.store, run.lock)?;
        // As many as there are after the oldest run has gone, so that a rerun makes the same pages.
        atlas.changes.truncate(keep.saturating_sub(1));
    }
    let mut missed = bounds::missed(run, &atlas)?;
    let settings = &run.config.site;
    if settings.data {
        const MIB: u64 = 1 << 20;
        let most = settings.data_max_mib.checked_mul(MIB).filter(|most| *most > 0);
        atlas.data = Some(reader.site_data(&atlas, most.unwrap_or(u64::MAX))?);
    }
    run.progress.say("writing pages");
    let most_lost = run.config.publish.most_lost;
    let pages = publish(&site, run.fingerprint, |folder| {
        let built = crate::site::build(&atlas, folder, &site)?;
        missed.extend(bounds::lost(most_lost, &site, folder));
        match missed.is_empty() {
            true => Ok(built),
            false => Err(because(HeldBack(missed), NOT_PUBLISHED, BOUNDS)),
        }
    })?;
    // Only what was published; should this be killed, `render` runs again.
    let about = history::about_now(run.store, run.lock, &history::kept(run.store.root())?)?;
    history::keep(run.store, &about, keep)?;
    Ok(format!("{pages} pages in `{}`", run.config.output.site).into())
}

const NOT_PUBLISHED: &str = "the site is not published";
const BOUNDS: &str = "`circuit-atlas diff latest now` tells what changed since the last published \
                      run; change the bound if this is as it should be";

/// Writes a site through `build`, which says which hashes it knows, and puts it in the place of the one
/// before.
fn publish<T>(
    site: &Path,
    fingerprint: &str,
    build: impl FnOnce(&Path) -> Result<(T, Hashes)>,
) -> Result<T> {
    publish_folder(site, OURS, |folder| {
        Manifest::begin(folder)?;
        let (built, known) = build(folder)?;
        for name in Manifest::write(folder, site, fingerprint, known)? {
            process::note(format_args!("{:<10} kept your own `{name}`", "render"));
        }
        Ok(built)
    })
}

/// Says that the site stays where only the tables are removed that it was made from.
pub fn kept(config: &Config) -> Option<String> {
    let name = &config.output.site;
    let is_there = Manifest::read(&config.path(name)).is_some();
    is_there.then(|| format!("`{name}` stays; `circuit-atlas clean render` removes it"))
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
/// When the site's folder must not be replaced, as pages of others are in it or ours were edited; or
/// when an output is where an input is.
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
                Ok((fs::write(folder.join("index.html"), "a page")?, Hashes::new()))
            })
        };
        render(&|| ()).unwrap();
        render(&|| ()).unwrap();
        render(&|| fs::write(site.join("CNAME"), "example.org").unwrap()).unwrap();
        assert_eq!(fs::read_to_string(site.join("CNAME")).unwrap(), "example.org");
        let error = render(&|| fs::write(site.join("index.html"), "edited").unwrap()).unwrap_err();
        let said = crate::error::report(&error);
        assert!(said.contains(": `index.html` (changed since it was written)\n"), "{said}");
        assert_eq!(fs::read_to_string(site.join("CNAME")).unwrap(), "example.org");
        assert_eq!(fs::read_to_string(site.join("index.html")).unwrap(), "edited");
        assert_eq!(
            fs::read_dir(above.path()).unwrap().count(),
            1,
            "something was left beside the site"
        );
    }

    /// Renders a page with this text.
    fn write(site: &Path, text: &'static str) -> Result<()> {
        publish(site, "of a run", |folder| {
            Ok((fs::write(folder.join("index.html"), text)?, Hashes::new()))
        })
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
        let seen = publish(&site, "of a run", |_| Ok((page(), Hashes::new()))).unwrap();
        assert_eq!(seen, "fourth");
        // Twice in a row, and the site was removed meanwhile.
        fs::rename(&site, &old).unwrap();
        write(&new, "new").unwrap();
        remove_of(&site);
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0);
    }

    /// Of each moment at which a run can be killed: the next one has the user's files as they were
    /// last, and nothing beside the site.
    #[test]
    fn what_a_user_keeps_there_outlives_killed_runs() {
        let above = tempfile::tempdir().unwrap();
        let [site, new] = ["site", ".site.new"].map(|name| above.path().join(name));
        let read = |name: &str| fs::read_to_string(site.join(name)).unwrap();
        let put = |name: &str, text: &str| {
            let path = site.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // As most programs do, by another file of the name.
            drop(fs::remove_file(&path));
            fs::write(path, text).unwrap();
        };
        let alone = || fs::read_dir(above.path()).unwrap().count() == 1;
        write(&site, "first").unwrap();
        put(".git/HEAD", "main");
        put("features/notes.html", "mine");
        fs::create_dir(site.join("drafts")).unwrap();
        write(&site, "second").unwrap();
        assert!(read(".git/HEAD") == "main" && read("features/notes.html") == "mine");
        assert!(site.join("drafts").is_dir() && alone());
        // Killed while it linked: a file that the user removed since does not come back.
        put(".git/index.lock", "");
        fs::create_dir(&new).unwrap();
        Manifest::begin(&new).unwrap();
        fs::create_dir(new.join(".git")).unwrap();
        fs::hard_link(site.join(".git/index.lock"), new.join(".git/index.lock")).unwrap();
        fs::remove_file(site.join(".git/index.lock")).unwrap();
        write(&site, "third").unwrap();
        assert!(alone() && !site.join(".git/index.lock").exists());
        // Killed before the exchange, and the user went on in the old site.
        fs::create_dir(&new).unwrap();
        fs::write(new.join("index.html"), "unpublished").unwrap();
        Manifest::write(&new, &site, "of a run", Hashes::new()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        put(".git/HEAD", "later");
        write(&site, "fourth").unwrap();
        assert!(read(".git/HEAD") == "later" && read("index.html") == "fourth" && alone());
        // Killed after it: what was put into the old site in between comes along.
        fs::create_dir(&new).unwrap();
        fs::write(new.join("index.html"), "fifth").unwrap();
        Manifest::write(&new, &site, "of a run", Hashes::new()).unwrap();
        put(".git/objects/a", "an object");
        put(".git/HEAD", "latest");
        let between = above.path().join("between");
        fs::rename(&site, &between).unwrap();
        fs::rename(&new, &site).unwrap();
        fs::rename(&between, &new).unwrap();
        Place::of(&site).unwrap().recover(OURS).unwrap();
        assert!(read(".git/HEAD") == "latest" && read(".git/objects/a") == "an object");
        assert!(read("index.html") == "fifth" && read("features/notes.html") == "mine" && alone());
    }

    #[test]
    fn a_file_of_a_user_goes_before_ours_only_where_it_is_no_page() {
        let above = tempfile::tempdir().unwrap();
        let site = above.path().join("site");
        let render = |name: &str| {
            publish(&site, "of a run", |folder| {
                fs::write(folder.join("index.html"), "a page")?;
                Ok((fs::write(folder.join(name), "ours")?, Hashes::new()))
            })
        };
        fs::create_dir(&site).unwrap();
        fs::write(site.join("robots.txt"), "mine").unwrap();
        (0..2).for_each(|_| render("robots.txt").unwrap());
        assert_eq!(fs::read_to_string(site.join("robots.txt")).unwrap(), "mine");
        assert_eq!(Manifest::read(&site).unwrap().missing(&site), None);
        fs::write(site.join("notes.html"), "mine").unwrap();
        let error = render("notes.html").unwrap_err();
        assert!(
            format!("{error:?}").contains("is not ours, and `render` would write a file there")
        );
        assert_eq!(fs::read_to_string(site.join("notes.html")).unwrap(), "mine");
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 1);
    }

    /// What `clean` does.
    fn remove_of(site: &Path) {
        let place = Place::of(site).unwrap();
        let _held = place.hold().unwrap();
        place.recover(OURS).unwrap();
        assert_eq!(manifest::remove(site).unwrap(), None);
    }
}
