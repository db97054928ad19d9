//! The pages in Chromium, and before the validators of accessibility (axe-core) and of markup (vnu).
//! Skipped, with the reason printed, where a tool is missing.

use crate::bench::{Bench, skipped};
use crate::browser::chromium;
use crate::outside::{dump, pages, printed};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Asks the page that it is put into what axe-core finds, and tells the frame around it.
const CHECK: &str = r#"<script src="AXE"></script><script>
let shift = 0, refused = 0, failed = 0;
addEventListener("error", () => failed++);
document.addEventListener("securitypolicyviolation", () => refused++);
new PerformanceObserver((list) => { for (const entry of list.getEntries()) shift += entry.value; })
  .observe({ type: "layout-shift", buffered: true });
addEventListener("load", () => setTimeout(async () => {
  const { violations } = await axe.run(document, { preload: false, resultTypes: ["violations"] });
  const told = violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 90)).slice(0, 3).join(" ")}`);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) told.push(`${wide} pixels too wide`);
  if (shift >= 0.05) told.push(`moves by ${shift.toFixed(3)} while it loads`);
  if (refused) told.push(`${refused} things that its policy refuses`);
  if (failed) told.push(`${failed} errors`);
  parent.postMessage(told, "*");
}, 100));
</script>"#;

/// Puts one page after the other into a frame, and writes down what each tells.
const AROUND: &str = r#"<!DOCTYPE html><body><pre id="told"></pre><iframe id="frame"></iframe><script>
const pages = PAGES;
const [frame, told] = [document.getElementById("frame"), document.getElementById("told")];
let at = -1;
const next = () => {
  if (++at === pages.length) { told.append("every page was asked"); return; }
  [frame.width, frame.height, frame.src] = [pages[at][0], pages[at][0] < 500 ? 800 : 900, pages[at][1]];
};
addEventListener("message", (event) => {
  for (const line of event.data) told.append(`${pages[at].join(" ")}: ${line}\n`);
  next();
});
next();
</script>"#;

/// A file of a tool that a variable names.
fn tool(variable: &str, what: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        skipped(&format!("{variable} does not name {what}"));
    }
    path
}

/// A copy of a page with something at the beginning of its head, in front of its policy.
fn with(page: &Path, begins: &str, ending: &str, change: impl Fn(String) -> String) -> PathBuf {
    let text = std::fs::read_to_string(page).unwrap();
    let copy = page.with_extension(ending);
    let text = change(text.replacen("<head>", &format!("<head>{begins}"), 1));
    std::fs::write(&copy, text).unwrap();
    copy
}

/// In light and in dark, as wide as a desk's and a phone's screen.
#[test]
fn axe_finds_nothing_on_any_kind_of_page() {
    let Some(chromium) = chromium() else { return };
    let Some(axe) = tool("CIRCUIT_ATLAS_AXE", "axe-core's axe.min.js") else { return };
    let bench = Bench::finished();
    let site = bench.file("site");
    let check = CHECK.replace("AXE", &format!("file://{}", axe.canonicalize().unwrap().display()));
    let style = std::fs::read_to_string(site.join("style.css")).unwrap();
    let both = "color-scheme: light dark;";
    assert!(style.contains(both));
    std::fs::write(site.join("dark.css"), style.replace(both, "color-scheme: dark;")).unwrap();
    let mut asked = Vec::new();
    for page in pages(&site) {
        let light = with(&page, &check, "light.html", |text| text);
        let dark =
            with(&page, &check, "dark.html", |text| text.replace("style.css\"", "dark.css\""));
        for (copy, width) in [&light, &dark].iter().flat_map(|copy| [(copy, 1280), (copy, 390)]) {
            asked.push((width, copy.strip_prefix(&site).unwrap().to_str().unwrap().to_string()));
        }
    }
    let around = AROUND.replace("PAGES", &serde_json::to_string(&asked).unwrap());
    std::fs::write(site.join("around.html"), around).unwrap();
    let dom = dump(chromium, &bench, &site.join("around.html"), "--virtual-time-budget=900000");
    let told = dom.split("<pre id=\"told\">").nth(1).unwrap().split("</pre>").next().unwrap();
    assert_eq!(told, "every page was asked");
}

#[test]
fn vnu_finds_no_error_on_any_kind_of_page() {
    let Some(vnu) = tool("CIRCUIT_ATLAS_VNU", "vnu.jar") else { return };
    if !Command::new("java").arg("-version").output().is_ok_and(|output| output.status.success()) {
        skipped("there is no java");
        return;
    }
    let bench = Bench::finished();
    let site = bench.file("site");
    let mut files = pages(&site);
    files.push(site.join("404.html"));
    files.push(site.join("icon.svg"));
    let moved = std::fs::read_dir(site.join("pairs")).unwrap().map(|e| e.unwrap().path());
    files.extend(moved.filter(|path| path.to_str().unwrap().contains('+')).take(1));
    let output = Command::new("java")
        .arg("-jar")
        .arg(vnu)
        // Its list of CSS properties has not all of SVG 2, and its warnings take no page on a disk for
        // `'self'`.
        .args([
            "--stdout",
            "--errors-only",
            "--also-check-svg",
            "--filterpattern",
            ".*paint-order.*",
        ])
        .args(&files)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.is_empty(), "{told}");
}

/// Should markup of a corpus ever get into a page, it does nothing there.
#[test]
fn the_policy_keeps_foreign_markup_from_running() {
    let Some(chromium) = chromium() else { return };
    let bench = Bench::finished();
    let site = bench.file("site");
    let attack = "<p id=\"seen\">not run</p><script>seen.textContent = 'run 1'</script>\
         <img alt=\"\" src=\"none.png\" onerror=\"seen.textContent = 'run 2'\">\
         <a href=\"javascript:seen.textContent='run 3'\" id=\"bait\">a</a>\
         <iframe srcdoc=\"<script>parent.seen.textContent = 'run 4'</script>\"></iframe>\
         <base href=\"https://example.org/\"></main>";
    let page = with(&site.join("tasks/ioi.html"), "", "attacked.html", |text| {
        text.replacen("</main>", attack, 1)
    });
    let dom = dump(chromium, &bench, &page, "--virtual-time-budget=3000");
    assert!(dom.contains("<p id=\"seen\">not run</p>"), "{dom}");
    // What is ours did run.
    assert!(dom.contains("<div class=\"tip\""), "the page's own script was refused");
    // Without the policy it would have run: the test can fail.
    let page = with(&page, "", "open.html", |text| text.replace("Content-Security-Policy", "none"));
    let dom = dump(chromium, &bench, &page, "--virtual-time-budget=3000");
    assert!(!dom.contains("<p id=\"seen\">not run</p>"));
}

#[test]
fn what_is_folded_is_on_paper() {
    let Some(chromium) = chromium() else { return };
    let bench = Bench::finished();
    let site = bench.file("site");
    let most_folded = std::fs::read_dir(site.join("features"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|page| std::fs::read_to_string(page).unwrap().matches("<details").count())
        .unwrap();
    // Without the pages' own scripts and styles for it, and with everything open.
    let style = std::fs::read_to_string(site.join("style.css")).unwrap();
    std::fs::write(site.join("folded.css"), style.replace("details::details-content", "none"))
        .unwrap();
    // Pages of each part, so that every one that is not printed is missed.
    let folded = with(&most_folded, "", "folded.html", |text| {
        text.replace("</summary>", &format!("</summary>{}", "<p>folded</p>".repeat(90)))
    });
    let closed = with(&folded, "", "closed.html", |text| {
        text.replace("style.css\"", "folded.css\"").replace("<script ", "<meta ")
    });
    let open = with(&folded, "", "open.html", |text| {
        text.replace("<details", "<details open=\"\"").replace(" open>", ">")
    });
    let [folded, closed, open] =
        [folded, closed, open].map(|page| printed(chromium, &bench, &page));
    assert_eq!(folded, open, "pages of paper");
    assert!(closed < open, "nothing of the page is folded");
}
