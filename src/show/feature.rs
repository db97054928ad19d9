//! `show feature`: one feature, as its page of the site has it.

use super::page::{Page, Table, token};
use super::{Answer, names};
use crate::error::Result;
use crate::ids::Kind;
use crate::site::atlas::{Evaluation, Example, Explanation, Feature};
use crate::site::number::{count, percent, percent_with_interval, significant};
use crate::site::text::plain;
use crate::stages::Run;
use crate::stages::reader::Reader;
use serde::Serialize;

/// Of the strongest, when no number is asked for.
const EXAMPLES: usize = 10;

#[derive(Serialize)]
pub struct FeatureAnswer {
    #[serde(flatten)]
    feature: Feature,
    kind: Kind,
    layer: usize,
    /// Units of activation of `at_strength`.
    strength: f64,
}

/// `examples`: of each band; none: a few of the strongest.
///
/// # Errors
/// When the feature was not scored.
pub fn ask(run: &Run, name: &str, examples: Option<usize>) -> Result<FeatureAnswer> {
    let id = names::feature_id(name)?;
    let reader = Reader::about(run, &[id.to_string()].into())?;
    let mut feature = reader.feature(names::scored(&reader, run.config, id)?)?;
    feature.examples = chosen(std::mem::take(&mut feature.examples), examples);
    let (kind, layer) = (id.dictionary.kind, id.dictionary.layer);
    Ok(FeatureAnswer { feature, kind, layer, strength: run.config.logits.strength })
}

/// The first of each band.
fn chosen(examples: Vec<Example>, each: Option<usize>) -> Vec<Example> {
    let mut bands = examples.chunk_by(|a, b| a.band == b.band).collect::<Vec<_>>();
    bands.retain(|band| each.is_some() || band[0].band == "top");
    bands.into_iter().flat_map(|band| band.iter().take(each.unwrap_or(EXAMPLES)).cloned()).collect()
}

/// `top`, `q9`, …, `inactive` in words.
fn band_in_words(band: &str) -> String {
    match band.strip_prefix('q').and_then(|tenth| tenth.parse::<u32>().ok()) {
        Some(9) => "Strongest tenth of its contexts".into(),
        Some(0) => "Weakest tenth".into(),
        Some(tenth) => format!("Tenth {} of 10 by strength", tenth + 1),
        None if band == "top" => "Strongest examples".into(),
        None => "Contexts without it".into(),
    }
}

/// An explanation as running text, or why there is none.
pub fn explained(page: &mut Page, explanation: Option<&Explanation>) {
    match explanation {
        None => {}
        Some(e) if e.status != "ok" => page.line(&format!("No explanation ({}): {}", e.status, e.reason)),
        Some(e) => {
            let by = if e.model.is_empty() { &e.explainer } else { &e.model };
            page.line(&format!("{} [{by}]", plain(&e.text, usize::MAX)));
        }
    }
}

fn evaluation_line(e: &Evaluation) -> String {
    let accuracy = percent_with_interval(e.balanced_accuracy, e.low, e.high);
    let null = e.null.map(|null| format!("; another's: {}", percent(null))).unwrap_or_default();
    format!("Tried on unseen documents ({}, {}, {} examples): {accuracy}{null}", e.method, e.explainer, e.examples)
}

impl Answer for FeatureAnswer {
    fn print(&self, page: &mut Page) {
        let f = &self.feature;
        let kind = match self.kind {
            Kind::Attention => "attention SAE",
            Kind::Mlp => "MLP transcoder",
        };
        page.title(&f.id.to_string(), &format!("{kind} of layer {}", self.layer));
        explained(page, f.explanation.as_ref());
        f.evaluations.iter().for_each(|evaluation| page.line(&evaluation_line(evaluation)));
        self.servings(page);
        self.activations(page);
        page.promoted(&f.promoted, &f.suppressed, self.strength);
        for band in f.examples.chunk_by(|a, b| a.band == b.band) {
            let note = if band[0].band == "top" { "coloured by the share of its largest activation" } else { "" };
            page.heading(&band_in_words(&band[0].band), note);
            page.examples(band, f.max);
        }
    }
}

impl FeatureAnswer {
    fn servings(&self, page: &mut Page) {
        let servings = &self.feature.servings;
        page.heading("Serves", if servings.is_empty() { "in no circuit" } else { "" });
        if !servings.is_empty() {
            let row = |s: &crate::site::atlas::Serving| {
                [s.task.clone(), s.component.to_string(), format!("{} of {}", s.prompts, s.of), significant(s.share, 3)]
            };
            page.table(&Table::new(&["task", "at", ">prompts", ">share"]).with(servings.iter().map(row)));
        }
    }

    fn activations(&self, page: &mut Page) {
        let f = &self.feature;
        page.heading("Activations", "");
        let special = match f.special_active {
            0 => String::new(),
            n => format!("; and at {} special tokens", count(n)),
        };
        page.line(&format!(
            "active at {} tokens ({}), mean {}, max {}{special}",
            count(f.active),
            percent(f.density),
            significant(f.mean_active, 3),
            significant(f.max, 3),
        ));
        if f.active > 0 {
            page.histogram(&f.histogram, f.max);
            page.line(&mass(&f.mass));
        }
    }
}

fn mass(mass: &[(String, f64)]) -> String {
    let one = |(text, share): &(String, f64)| format!("“{}” {}", token(text), percent(*share));
    let shares: Vec<String> = mass.iter().map(one).collect();
    format!("of its activation: {}", shares.join(", "))
}
