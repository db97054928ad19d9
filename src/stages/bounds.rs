//! `[publish]`: what a run must meet for its site to take the place of the one before.

use super::Run;
use crate::artifact::tables::ExplanationRow;
use crate::atlas::model::{Atlas, Task};
use crate::error::Result;
use crate::format::number::percent;
use crate::ids::Status;
use crate::site::manifest::Manifest;
use std::path::Path;

/// What of the bounds a run misses: key, bound and value, in words.
pub(super) fn missed(run: &Run, atlas: &Atlas) -> Result<Vec<String>> {
    let publish = &run.config.publish;
    let mut missed = Vec::new();
    let mut least = |key: &str, bound: f64, of: String, value: Option<f64>| {
        // What is no number meets no bound.
        if bound > 0.0 && !value.is_some_and(|value| value >= bound) {
            let value = value.map_or("unknown".into(), percent);
            missed.push(format!("`publish.{key}` is {bound}, {of} has {value}"));
        }
    };
    for task in &atlas.tasks {
        let name = &task.name;
        let of = format!("the circuit of heads and MLPs of `{name}`");
        let value = faithfulness(task, "component", "frequency >= 0");
        least("least_faithfulness", publish.least_faithfulness, of, value);
        let of = format!("the circuit of features of `{name}`");
        let value = faithfulness(task, "feature", "chosen");
        least("least_feature_faithfulness", publish.least_feature_faithfulness, of, value);
    }
    if atlas.conformance.is_empty() {
        let of = "no dictionary".to_string();
        least("least_variance_explained", publish.least_variance_explained, of, None);
    }
    for fit in &atlas.conformance {
        let of = format!("`{}`", fit.dictionary);
        let value = Some(fit.variance_explained);
        least("least_variance_explained", publish.least_variance_explained, of, value);
    }
    if publish.most_failed < 1.0 {
        let (mut asked, mut failed) = (0_u64, 0_u64);
        run.store.each(|row: ExplanationRow| {
            if !row.model.is_empty() && row.sample == 0 {
                asked += 1;
                failed += u64::from(row.status != Status::Ok);
            }
        })?;
        let what = format!("{failed} of {asked} explanations have failed");
        missed.extend(more("most_failed", publish.most_failed, failed, asked, what));
    }
    Ok(missed)
}

/// The same of the pages of the site that is published, which the new one lacks.
pub(super) fn lost(most: f64, site: &Path, new: &Path) -> Option<String> {
    let published = Manifest::read(site)?;
    let pages: Vec<&str> = published.pages().collect();
    let gone: Vec<&str> = pages.iter().copied().filter(|page| !new.join(page).exists()).collect();
    let (n, of) = (gone.len(), pages.len());
    let what = format!("{n} of {of} published pages are gone, such as `{}`", gone.first()?);
    more("most_lost", most, n as u64, of as u64, what)
}

fn more(key: &str, bound: f64, number: u64, of: u64, what: String) -> Option<String> {
    let share = number as f64 / of.max(1) as f64;
    (share > bound).then(|| format!("`publish.{key}` is {bound}, {what}: {}", percent(share)))
}

/// Of a task's own circuit under the first ablation; the errors of dictionaries ablated, where they
/// play a part.
fn faithfulness(task: &Task, level: &str, variant: &str) -> Option<f64> {
    let ablation = task.ablation();
    let of = task.faithfulness.iter().find(|f| {
        let own = f.circuit == "found" && f.level == level && f.variant == variant;
        own && f.ablation == ablation
            && f.errors != "kept"
            && f.metrics.contains_key("faithfulness")
    })?;
    of.metrics.get("faithfulness")?.value
}
