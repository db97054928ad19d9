//! Files that are damaged, and a disk that is full: an error that names what is wrong, or the right
//! results; never other ones.

use crate::bench::{Bench, Said, walk};
use crate::kills::{recovers, same};
use crate::{Draw, Held, Test};
use circuit_atlas::artifact::tables::FeatureRow;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file of a finished run has a bit flipped, or is cut.
struct Files {
    /// The features, and what `show feature` says of each when nothing is wrong.
    shown: Vec<(String, String)>,
}

fn show(bench: &Bench, feature: &str) -> Said {
    bench.call(&["show", "feature", feature, "--json"])
}

pub(crate) fn files() -> Result<Box<dyn Test>, String> {
    let bench = Bench::finished();
    let features = bench.table::<FeatureRow>();
    let shown = features.iter().step_by(5).map(|row| {
        let name = row.feature.to_string();
        let said = show(&bench, &name).succeeded();
        (name, said.out)
    });
    Ok(Box::new(Files { shown: shown.collect() }))
}

fn panicked(said: &Said) -> Held {
    match said.err.contains("panicked at") {
        true => Err(format!("it panicked: {}", said.err)),
        false => Ok(()),
    }
}

impl Test for Files {
    fn again(&mut self, draw: &mut Draw) -> Held {
        let bench = Bench::finished();
        let mut all: Vec<PathBuf> = Vec::new();
        walk(&bench.file("artifacts"), &mut |path| {
            if std::fs::metadata(path).unwrap().len() > 0 && !path.ends_with(".running") {
                all.push(path.into());
            }
        });
        let path = draw.one(&all).clone();
        let name = path.strip_prefix(bench.path()).unwrap().display().to_string();
        let mut bytes = std::fs::read(&path).unwrap();
        let place = draw.below(bytes.len());
        let how = match draw.below(4) {
            0 => {
                bytes.truncate(place);
                format!("{name} cut at byte {place}")
            }
            _ => {
                bytes[place] ^= 1 << draw.below(8);
                format!("{name} changed at byte {place}")
            }
        };
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, bytes).unwrap();
        // As a disk does it: nobody is told.
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let about = |why: String| format!("{how}: {why}");
        let (feature, expected) = draw.one(&self.shown);
        let shown = show(&bench, feature);
        panicked(&shown).map_err(about)?;
        if shown.ok && shown.out != *expected {
            return Err(about(format!("`show feature {feature}` says something else")));
        }
        // Everything that is made from tables is made again.
        let made = bench.run(&["--from", "aggregate", "--force"]);
        panicked(&made).map_err(about)?;
        match made.ok {
            true => same_but(&bench, &path).map_err(about),
            false if made.error().contains("hint: ") => Ok(()),
            false => Err(about(format!("an error without a hint: {}", made.err))),
        }
    }
}

/// The results are the right ones, but for the file that was damaged, should nobody read it.
fn same_but(bench: &Bench, path: &Path) -> Held {
    let name = path.strip_prefix(bench.path()).unwrap().display().to_string();
    match same(bench) {
        Err(why) if why.starts_with(&name) => Ok(()),
        held => held,
    }
}

/// Runs on a file system of a few MiB.
struct FullDisk;

/// A file system in memory, which is gone with this.
struct Small(PathBuf);

impl Small {
    fn mount(folder: &Path, kib: usize) -> Result<Small, String> {
        std::fs::create_dir_all(folder).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(folder)
            .output();
        match mount {
            Ok(output) if output.status.success() => Ok(Small(folder.into())),
            _ => Err("a small file system cannot be mounted here".into()),
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

pub(crate) fn full_disk() -> Result<Box<dyn Test>, String> {
    let folder = tempfile::tempdir().unwrap();
    Small::mount(&folder.path().join("small"), 64)?;
    Ok(Box::new(FullDisk))
}

impl Test for FullDisk {
    fn again(&mut self, draw: &mut Draw) -> Held {
        let bench = Bench::new();
        let kib = 64 + draw.below(20_000);
        let about = |why: String| format!("{kib} KiB: {why}");
        let small = Small::mount(&bench.file("artifacts"), kib)?;
        let said = bench.run(&[]);
        panicked(&said).map_err(about)?;
        if !said.ok && !said.error().contains("disk") {
            return Err(about(format!("the error does not speak of the disk: {}", said.err)));
        }
        // With more room the run goes on from what is there.
        let (kept, there) = (bench.file("kept"), bench.file("artifacts"));
        crate::bench::copy(&there, &kept);
        drop(small);
        crate::bench::copy(&kept, &there);
        std::fs::remove_dir_all(kept).unwrap();
        recovers(&bench).map_err(about)
    }
}
