//! The card of the model and the data: what the atlas was made from, what was measured on what, how
//! far it can be trusted, and how to cite it.

use super::dictionaries::losses;
use super::parts::Page;
use crate::atlas::model::Atlas;
use crate::format::number::{count, percent, significant};
use crate::ids::Half;
use crate::site::links::Site;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct CardView {
    page: Page,
    model: String,
    /// What the settings say of the run: (label, value).
    provenance: Vec<(String, String)>,
    loss: String,
    unigram: String,
    /// Tokens that the model and its dictionaries were measured on.
    sample: String,
    dictionaries: Option<DictionariesRow>,
    halves: Vec<HalfRow>,
    tasks: Vec<TaskRow>,
    explained_by: Vec<String>,
    warnings: usize,
    fingerprint: String,
    citation: String,
    bibtex: String,
}

#[derive(Serialize)]
struct DictionariesRow {
    number: String,
    /// The least and the most that one has.
    variance: [String; 2],
    features: String,
    /// Tokens that they were measured on, and those that losses are of.
    sample: String,
    losses: String,
}

#[derive(Serialize)]
struct HalfRow {
    half: String,
    used_for: &'static str,
    documents: String,
    contexts: String,
    tokens: String,
}

#[derive(Serialize)]
struct TaskRow {
    name: String,
    prompts: String,
    right: String,
    used: String,
    method: String,
}

impl CardView {
    pub(crate) fn new(site: &Site) -> CardView {
        let (links, atlas) = (site.at_root(), site.atlas);
        let description = format!(
            "What this atlas was made from: {}, its dictionaries and its corpus; what was measured \
             on what, limits, and how to cite it.",
            atlas.model
        );
        let fit = &atlas.model_fit;
        CardView {
            page: Page::new(links, "card", "card.html", "Model and data".into(), description),
            model: atlas.model.clone(),
            provenance: atlas.provenance.clone(),
            loss: significant(fit.loss, 3),
            unigram: significant(fit.unigram, 3),
            sample: count(fit.tokens),
            dictionaries: dictionaries(atlas),
            halves: halves(atlas),
            tasks: atlas
                .tasks
                .iter()
                .map(|task| TaskRow {
                    name: task.name.clone(),
                    prompts: count(task.prompts.len() as u64),
                    right: percent(task.accuracy),
                    used: count(u64::from(task.used)),
                    method: task.method.clone(),
                })
                .collect(),
            explained_by: explainers(atlas),
            warnings: fit.warnings.len()
                + atlas.conformance.iter().map(|c| c.warnings.len()).sum::<usize>(),
            fingerprint: atlas.fingerprint.clone(),
            citation: citation(atlas),
            bibtex: bibtex(atlas),
        }
    }
}

fn dictionaries(atlas: &Atlas) -> Option<DictionariesRow> {
    let explained = || atlas.conformance.iter().map(|c| c.variance_explained);
    let (least, most) = (explained().reduce(f64::min)?, explained().reduce(f64::max)?);
    Some(DictionariesRow {
        number: count(atlas.conformance.len() as u64),
        variance: [percent(least), percent(most)],
        features: count(atlas.conformance.iter().map(|c| c.width as u64).sum()),
        sample: count(atlas.conformance.iter().map(|c| c.tokens).max().unwrap_or(0)),
        losses: losses(&atlas.conformance),
    })
}

fn halves(atlas: &Atlas) -> Vec<HalfRow> {
    let row = |(half, [documents, contexts, tokens]): &(Half, [u64; 3])| HalfRow {
        half: half.to_string(),
        used_for: match half {
            Half::Explain => "explanations are written from it",
            Half::Score => "explanations are tested on it",
        },
        documents: count(*documents),
        contexts: count(*contexts),
        tokens: count(*tokens),
    };
    atlas.halves.iter().map(row).collect()
}

/// The language models that wrote explanations.
fn explainers(atlas: &Atlas) -> Vec<String> {
    let mut models: Vec<String> =
        atlas.features.iter().filter_map(|f| Some(f.explanation.as_ref()?.model.clone())).collect();
    models.sort();
    models.dedup();
    models.retain(|model| !model.is_empty());
    models
}

/// The first digits of the fingerprint: enough to tell two runs apart.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

fn year(atlas: &Atlas) -> &str {
    atlas.when.get(..4).unwrap_or("n.d.")
}

fn citation(atlas: &Atlas) -> String {
    let place =
        if atlas.base_url.is_empty() { String::new() } else { format!(" {}", atlas.base_url) };
    let date = atlas.when.get(..10).map(|date| format!(", {date}")).unwrap_or_default();
    format!(
        "{} ({}). An atlas of circuits and features of {}. Made with circuit-atlas {}{date}, run \
         {}.{place}",
        atlas.title,
        year(atlas),
        atlas.model,
        atlas.version,
        short(&atlas.fingerprint)
    )
}

fn bibtex(atlas: &Atlas) -> String {
    let run = short(&atlas.fingerprint);
    let key = run.get(..8).unwrap_or(run);
    let mut fields = vec![
        ("title", format!("{}: an atlas of circuits and features of {}", atlas.title, atlas.model)),
        ("year", year(atlas).to_string()),
        ("note", format!("Made with circuit-atlas {}, run {run}", atlas.version)),
    ];
    if !atlas.base_url.is_empty() {
        fields.push(("url", atlas.base_url.clone()));
    }
    let field = |(name, value): (&str, String)| {
        let value = if name == "url" { value } else { in_tex(&value) };
        format!("  {name:<5} = {{{value}}},\n")
    };
    format!("@misc{{atlas-{key},\n{}}}", fields.into_iter().map(field).collect::<String>())
}

/// Text between braces of a BibTeX field.
fn in_tex(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;

    #[test]
    fn a_citation_has_the_run() {
        let atlas = Atlas {
            title: "50% of {gpt_2} & more".into(),
            fingerprint: "0123456789abcdef".into(),
            base_url: "https://example.org/a_b".into(),
            ..fixture::atlas()
        };
        let bibtex = bibtex(&atlas);
        assert_eq!(
            bibtex,
            "@misc{atlas-01234567,\n  title = {50\\% of \\{gpt\\_2\\} \\& more: an atlas of circuits and \
             features of gpt2},\n  year  = {2026},\n  note  = {Made with circuit-atlas 0.1.0, run \
             0123456789ab},\n  url   = {https://example.org/a_b},\n}"
        );
        assert!(
            citation(&atlas).ends_with(", 2026-01-31, run 0123456789ab. https://example.org/a_b")
        );
        assert_eq!(in_tex("a\\b~^"), "a\\textbackslash{}b\\textasciitilde{}\\textasciicircum{}");
    }
}
