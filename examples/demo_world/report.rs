//! `demo/README.md`: a fixed frame, and one section for each stage, which that stage replaces with
//! what it measured.

use super::dictionaries::Measured;
use super::evaluate::Figures;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const FRAME: &str = include_str!("readme.md");

/// Replaces the text between the marks of a section.
pub(crate) fn write(demo: &Path, section: &str, text: &str) -> Result<()> {
    println!("\n{text}");
    let path = demo.join("README.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let mut new = String::new();
    for line in FRAME.split_inclusive('\n') {
        new.push_str(line);
        if let Some(name) = marked(line) {
            let kept = between(&old, name).unwrap_or("\n(not measured yet)\n\n");
            new.push_str(if name == section { text } else { kept });
        }
    }
    Ok(std::fs::write(path, new)?)
}

fn marked(line: &str) -> Option<&str> {
    line.trim().strip_prefix("<!-- begin ")?.strip_suffix(" -->")
}

fn between<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<!-- begin {name} -->\n"))?;
    Some(rest.split_once(&format!("<!-- end {name} -->"))?.0)
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head_line = line(head.iter().map(|cell| cell.to_string()).collect());
    let rule = line(head.iter().map(|_| "---".to_string()).collect());
    format!("\n{head_line}{rule}{}\n", rows.iter().cloned().map(line).collect::<String>())
}

pub(crate) fn model(figures: &Figures) -> String {
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let row = |what: &str, value: String| vec![what.to_string(), value];
    let [held_out, all] = figures.indirect_object;
    table(
        &["measured on the saved half-precision file", ""],
        &[
            row("parameters", figures.parameters.to_string()),
            row("training tokens", figures.tokens.to_string()),
            row("loss per token on held-out stories", format!("{:.3}", figures.loss)),
            row("… trigram model", format!("{:.3}", figures.trigram)),
            row("… unigram model", format!("{:.3}", figures.unigram)),
            row(
                "logit of the indirect object above the subject, held-out names",
                percent(held_out[0]),
            ),
            row("… and above every other token", percent(held_out[1])),
            row("logit of the indirect object above the subject, all names", percent(all[0])),
            row("… and above every other token", percent(all[1])),
            row("greater-than, mean P(>YY) − P(≤YY)", format!("{:.3}", figures.greater_than)),
        ],
    )
}

pub(crate) fn dictionaries(measured: &[Measured]) -> String {
    let rows: Vec<Vec<String>> = measured.iter().map(dictionary_row).collect();
    table(
        &[
            "dictionary",
            "features",
            "active per token (L0)",
            "variance explained",
            "loss recovered",
            "never active",
        ],
        &rows,
    )
}

fn dictionary_row(measured: &Measured) -> Vec<String> {
    let c = &measured.conformance;
    vec![
        format!("`{}`", c.id.hook()),
        c.width.to_string(),
        format!("{:.1}", c.l0),
        format!("{:.3}", c.variance_explained),
        c.loss_recovered.map_or("–".into(), |share| format!("{share:.3}")),
        format!("{:.1} %", 100.0 * measured.dead as f64 / c.width as f64),
    ]
}

/// Notes how long a stage took, beside what the others took.
pub(crate) fn time(demo: &Path, stages: &[&str], stage: &str, took: Duration) -> Result<()> {
    let old = std::fs::read_to_string(demo.join("README.md")).unwrap_or_default();
    let old = between(&old, "times").unwrap_or_default();
    let known = |name: &str| {
        Some(old.split_once(&format!("| `{name}` | "))?.1.split_once(" |")?.0.to_string())
    };
    let new = format!("{:.1}", took.as_secs_f64() / 60.0);
    let minutes =
        |name: &str| if name == stage { new.clone() } else { known(name).unwrap_or("–".into()) };
    let rows: Vec<Vec<String>> =
        stages.iter().map(|name| vec![format!("`{name}`"), minutes(name)]).collect();
    write(demo, "times", &table(&["stage", "minutes"], &rows))
}

/// Sizes of what is in the folder.
pub(crate) fn sizes(demo: &Path) -> Result<String> {
    let mut rows = Vec::new();
    let mut total = 0;
    for name in ["model", "attention_sae", "transcoder", "corpus.jsonl"] {
        let bytes = size(&demo.join(name))?;
        total += bytes;
        rows.push(vec![format!("`{name}`"), format!("{:.2} MB", bytes as f64 / 1e6)]);
    }
    rows.push(vec!["total".into(), format!("{:.2} MB", total as f64 / 1e6)]);
    Ok(table(&["in `demo/`", "size"], &rows))
}

fn size(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(path.metadata()?.len());
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Ok(0) };
    entries.map(|entry| size(&entry?.path())).sum()
}
