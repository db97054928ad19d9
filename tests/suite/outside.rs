//! What others make of our files: the artifacts in Python's polars and DuckDB, the site in
//! Chromium. Skipped, with the reason printed, where the tool is missing.

use crate::bench::{Bench, REPOSITORY, skipped};
use crate::browser::{address, chromium, headless};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn polars_and_duckdb_open_every_artifact() {
    let python = std::env::var("CIRCUIT_ATLAS_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import polars, duckdb"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        skipped(&format!(
            "`{python}` has not polars and duckdb; name one that has in CIRCUIT_ATLAS_PYTHON"
        ));
        return;
    }
    let bench = Bench::finished();
    let script = Path::new(REPOSITORY).join("tests/open_artifacts.py");
    let output = Command::new(python).arg(script).arg(bench.file("artifacts")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn jsonschema_accepts_every_graph() {
    let python = std::env::var("CIRCUIT_ATLAS_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import jsonschema"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        skipped(&format!(
            "`{python}` has not jsonschema; name one that has in CIRCUIT_ATLAS_PYTHON"
        ));
        return;
    }
    let bench = Bench::finished();
    let [script, schema] = ["tests/check_graphs.py", "tests/data/graph-schema.json"]
        .map(|name| Path::new(REPOSITORY).join(name));
    let output = Command::new(python)
        .arg(script)
        .arg(schema)
        .arg(bench.file("site/graphs"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// One page of each kind.
pub(crate) fn pages(site: &Path) -> Vec<PathBuf> {
    let first = |folder: &str| {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(site.join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names
            .into_iter()
            .find(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                // With `+`: a page that only leads to another one.
                name != "index.html" && name.ends_with(".html") && !name.contains('+')
            })
            .unwrap()
    };
    let mut pages =
        ["", "tasks/", "graphs/", "components/", "features/", "pairs/", "dictionaries/"]
            .map(|folder| site.join(format!("{folder}index.html")))
            .to_vec();
    pages.extend(["glossary.html", "how-to-read.html", "card.html"].map(|name| site.join(name)));
    // Of an MLP and of its features: heads and attention have more.
    let of_mlp = |folder: &str, begins: &str| {
        let named =
            |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(begins);
        std::fs::read_dir(site.join(folder)).unwrap().map(|e| e.unwrap().path()).find(named)
    };
    pages.extend([of_mlp("components", "MLP"), of_mlp("features", "mlp")].into_iter().flatten());
    pages.extend(["tasks", "graphs", "components", "features", "pairs", "groups"].map(first));
    // Only with a language model is there anything of it to read.
    let exchanges = "exchanges/features";
    pages.extend(site.join(exchanges).is_dir().then(|| first(exchanges)));
    pages
}

/// Puts the pages into frames of a phone's width and asks each whether it is wider and whether a
/// script of it failed.
const ASK: &str = r#"<script>
let failed = 0;
addEventListener("error", () => failed++);
addEventListener("load", () => setTimeout(() => parent.postMessage(
  `${document.documentElement.scrollWidth - document.documentElement.clientWidth} too wide, ${failed} errors, ` +
  `${document.querySelectorAll("h1").length} headings`, "*"), 100));
</script>"#;

#[test]
fn pages_fit_a_phone_and_run_without_errors_in_chromium() {
    let Some(chromium) = chromium() else { return };
    let bench = Bench::finished();
    let site = bench.file("site");
    let mut frames = String::new();
    let pages = pages(&site);
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        let asked = page.with_extension("asked.html");
        std::fs::write(&asked, text.replacen("<head>", &format!("<head>{ASK}"), 1)).unwrap();
        let source = asked.strip_prefix(&site).unwrap().display();
        frames
            .push_str(&format!("<iframe src=\"{source}\" width=\"390\" height=\"800\"></iframe>"));
    }
    let listen =
        "<script>addEventListener('message', e => document.body.append(`[${e.data}]`))</script>";
    std::fs::write(site.join("phone.html"), format!("<body>{listen}{frames}</body>")).unwrap();
    let dom = dump(chromium, &bench, &site.join("phone.html"), "--virtual-time-budget=8000");
    let fine = dom.matches("[0 too wide, 0 errors, 1 headings]").count();
    let told: Vec<&str> =
        dom.split("[").skip(1).filter(|part| part.contains(" too wide, ")).collect();
    assert_eq!(fine, pages.len(), "{told:?}");
}

fn started(chromium: &str, bench: &Bench) -> Command {
    let mut command = Command::new(chromium);
    command.args(headless(&bench.file("chromium"))).args(["--window-size=1280,900"]);
    command
}

/// A page as it is after its scripts have run for this long, in the browser's own time.
pub(crate) fn dump(chromium: &str, bench: &Bench, page: &Path, budget: &str) -> String {
    let output =
        started(chromium, bench).args([budget, "--dump-dom"]).arg(address(page)).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Pages of paper that a page has.
pub(crate) fn printed(chromium: &str, bench: &Bench, page: &Path) -> usize {
    let paper = bench.file("printed.pdf");
    let output = started(chromium, bench)
        .arg("--no-pdf-header-footer")
        .arg(format!("--print-to-pdf={}", paper.display()))
        .arg(address(page))
        .output()
        .unwrap();
    let pdf = std::fs::read(&paper).unwrap_or_else(|_| panic!("{output:?}"));
    std::fs::remove_file(&paper).unwrap();
    let pages = String::from_utf8_lossy(&pdf).matches("/Type /Page\n").count();
    assert!(pages > 0, "no page in the PDF");
    pages
}
