//! Runs that are killed: whatever is left under its final name is whole, and the next run ends with
//! the bytes of one that was never killed.

use crate::bench::{Bench, walk};
use crate::{Draw, Held, Test};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Everything under a final name is whole: tables begin and end as Parquet does, and the site is
/// not there or is as its manifest says.
pub(crate) fn whole(bench: &Bench) -> Held {
    let (mut broken, artifacts) = (Vec::new(), bench.file("artifacts"));
    if artifacts.exists() {
        walk(&artifacts, &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".parquet") && !name.starts_with('.') {
                let bytes = std::fs::read(path).unwrap();
                if !(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1")) {
                    broken.push(format!("{} is cut off", path.display()));
                }
            }
        });
    }
    match broken.pop() {
        Some(broken) => Err(broken),
        None => site_is_whole(&bench.file("site")),
    }
}

/// A site has every file that its manifest lists, with its hash, and no other.
pub(crate) fn site_is_whole(site: &Path) -> Held {
    if !site.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(site.join("atlas.json"))
        .map_err(|error| format!("a site without a manifest: {error}"))?;
    let manifest: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let files = manifest["files"].as_object().ok_or("the manifest lists no files")?;
    let mut there = 0;
    walk(site, &mut |_| there += 1);
    if there != files.len() + 1 {
        return Err(format!("the site has {there} files, its manifest {}", files.len() + 1));
    }
    for (name, hash) in files {
        let bytes = std::fs::read(site.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if blake3::hash(&bytes).to_hex()[..32] != *hash.as_str().unwrap_or_default() {
            return Err(format!("{name} is not as it was written"));
        }
    }
    Ok(())
}

/// The next run succeeds, and everything is as if nothing had happened.
pub(crate) fn recovers(bench: &Bench) -> Held {
    let said = bench.run(&[]);
    if !said.ok {
        return Err(format!("the next run fails: {}", said.error()));
    }
    same(bench)
}

/// The results are those of a run that nothing happened to.
pub(crate) fn same(bench: &Bench) -> Held {
    let (own, whole) = (bench.results(), Bench::finished().results());
    let timed = |name: &Path| {
        ["site/index.html", "site/card.html", "site/atlas.json"]
            .iter()
            .any(|file| name.ends_with(file))
    };
    for (name, bytes) in &whole {
        match own.get(name) {
            None => return Err(format!("{} is missing", name.display())),
            Some(other) if other != bytes && !timed(name) => {
                return Err(format!("{} differs", name.display()));
            }
            Some(_) => {}
        }
    }
    match own.keys().find(|name| !whole.contains_key(*name)) {
        Some(more) => Err(format!("{} is left over", more.display())),
        None => Ok(()),
    }
}

pub(crate) fn quiet(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Ends a process after a while, if it has not ended by then.
fn kill_after(mut child: Child, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(child.kill());
    child.wait().unwrap();
}

/// Runs are killed a few times, each on another part of the corpus; then one on the whole goes on to its
/// end.
struct AtRandom {
    /// How long a whole run takes.
    whole: Duration,
}

pub(crate) fn at_random() -> Result<Box<dyn Test>, String> {
    let (bench, begun) = (Bench::new(), Instant::now());
    bench.run(&[]).succeeded();
    Ok(Box::new(AtRandom { whole: begun.elapsed() }))
}

impl Test for AtRandom {
    fn again(&mut self, draw: &mut Draw) -> Held {
        const WHOLE: &str = "max_contexts = 96";
        let mut bench = if draw.below(2) == 0 { Bench::new() } else { Bench::finished() };
        for _ in 0..1 + draw.below(5) {
            let time = self.whole.mul_f64(draw.below(1000) as f64 / 1500.0);
            let part = format!("max_contexts = {}", [96, 96, 80, 60][draw.below(4)]);
            bench = bench.set(WHOLE, &part);
            kill_after(quiet(&mut bench.command(&["run"])), time);
            bench = bench.set(&part, WHOLE);
            whole(&bench)?;
        }
        recovers(&bench)
    }
}

/// Operations on files after which little else could be as bad.
pub(crate) const OPERATIONS: &str =
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,mkdir,symlink";

/// The command under `strace`, which ends it at the n-th of these operations; 0: which only counts.
fn traced(bench: &Bench, arguments: &[&str], log: &Path, n: usize) -> Command {
    let own = bench.command(arguments);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(log).arg("-e").arg(format!("trace={OPERATIONS}"));
    if n > 0 {
        command.arg("-e").arg(format!("inject={OPERATIONS}:signal=KILL:when={n}"));
    }
    command.arg(own.get_program()).args(own.get_args());
    command
}

pub(crate) fn tracer() -> Result<(), String> {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    match works {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("`strace` is not there, or may not trace".into()),
    }
}

/// What is killed at one of its operations on files.
pub(crate) const COMMANDS: [&[&str]; 6] = [
    &["run", "tokenize", "--force"],
    &["run", "score", "--force"],
    &["run", "aggregate", "--force"],
    &["run", "render", "--force"],
    &["clean"],
    &["clean", "aggregate"],
];

/// One command is killed at one of its operations on files.
struct AtOperations {
    /// Operations of each command.
    counts: Vec<usize>,
}

pub(crate) fn at_operations() -> Result<Box<dyn Test>, String> {
    tracer()?;
    let count = |arguments: &&[&str]| {
        let (bench, log) = (Bench::finished(), tempfile::NamedTempFile::new().unwrap());
        quiet(&mut traced(&bench, arguments, log.path(), 0)).wait().unwrap();
        std::fs::read_to_string(log.path()).unwrap().lines().count()
    };
    Ok(Box::new(AtOperations { counts: COMMANDS.iter().map(count).collect() }))
}

impl Test for AtOperations {
    fn again(&mut self, draw: &mut Draw) -> Held {
        let which = draw.below(COMMANDS.len());
        let n = 1 + draw.below(self.counts[which]);
        let bench = Bench::finished();
        quiet(&mut traced(&bench, COMMANDS[which], Path::new("/dev/null"), n)).wait().unwrap();
        let about = |why: String| format!("{:?} killed at operation {n}: {why}", COMMANDS[which]);
        let is_clean = COMMANDS[which][0] == "clean";
        // What `clean` was about to remove need not be whole.
        if !is_clean {
            whole(&bench).map_err(about)?;
        }
        recovers(&bench).map_err(about)
    }
}

/// `render` is killed twice in a row at operations on files, with a removal in between.
struct OfTheSite;

pub(crate) fn of_the_site() -> Result<Box<dyn Test>, String> {
    tracer()?;
    Ok(Box::new(OfTheSite))
}

impl Test for OfTheSite {
    fn again(&mut self, draw: &mut Draw) -> Held {
        let (bench, site) = (Bench::finished(), ["run", "render", "--force"]);
        let null = Path::new("/dev/null");
        let mut steps = Vec::new();
        for _ in 0..2 {
            // Most operations are at the end, where the site is swapped in.
            let n = 1 + draw.below(400);
            quiet(&mut traced(&bench, &site, null, n)).wait().unwrap();
            steps.push(format!("killed at operation {n}"));
            site_is_whole(&bench.file("site")).map_err(|why| format!("{steps:?}: {why}"))?;
            match draw.below(3) {
                0 => {
                    drop(std::fs::remove_dir_all(bench.file("site")));
                    steps.push("the site removed".into());
                }
                1 => {
                    bench.call(&["clean", "render"]);
                    steps.push("cleaned".into());
                }
                _ => {}
            }
        }
        recovers(&bench).map_err(|why| format!("{steps:?}: {why}"))
    }
}
