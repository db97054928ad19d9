//! How well each dictionary describes the model.

use super::parts::Page;
use crate::atlas::model::DictionaryFit;
use crate::format::number::{count, counted, fixed, percent, significant};
use crate::ids::Kind;
use crate::site::links::Site;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct DictionariesView {
    page: Page,
    /// Tokens on which they were measured.
    sample: String,
    /// Tokens and contexts that losses are of.
    losses: String,
    /// The model's loss, and those of the frequencies of tokens and of pairs of them.
    loss: String,
    unigram: String,
    bigram: String,
    rows: Vec<ConformanceRow>,
    /// What looks wrong: the model or a dictionary, and what is doubtful about it.
    warnings: Vec<(String, String)>,
}

#[derive(Serialize)]
struct ConformanceRow {
    dictionary: String,
    kind: &'static str,
    width: String,
    l0: String,
    variance_explained: String,
    /// The same in percent, for a bar.
    bar: String,
    dead: String,
    dead_share: String,
    loss_recovered: String,
}

impl DictionariesView {
    pub(crate) fn new(site: &Site) -> DictionariesView {
        let (all, fit) = (&site.atlas.conformance, &site.atlas.model_fit);
        let of_model = fit.warnings.iter().map(|text| ("model".into(), text.clone()));
        let description =
            "L0, variance explained, loss recovered and dead features of each dictionary.".into();
        DictionariesView {
            page: Page::new(
                site.in_folder(),
                "dictionaries",
                "dictionaries/index.html",
                "Dictionaries".into(),
                description,
            ),
            sample: count(all.iter().map(|c| c.tokens).max().unwrap_or(0)),
            losses: losses(all),
            loss: significant(fit.loss, 3),
            unigram: significant(fit.unigram, 3),
            bigram: significant(fit.bigram, 3),
            rows: all.iter().map(conformance_row).collect(),
            warnings: of_model.chain(all.iter().flat_map(warnings)).collect(),
        }
    }
}

fn warnings(c: &DictionaryFit) -> impl Iterator<Item = (String, String)> {
    c.warnings.iter().map(|text| (c.dictionary.to_string(), text.clone()))
}

fn conformance_row(c: &DictionaryFit) -> ConformanceRow {
    ConformanceRow {
        dictionary: c.dictionary.to_string(),
        kind: match c.dictionary.kind {
            Kind::Attention => "attention SAE",
            Kind::Mlp => "MLP transcoder",
        },
        width: count(c.width as u64),
        l0: significant(c.l0, 3),
        variance_explained: percent(c.variance_explained),
        bar: format!("{:.1}", c.variance_explained.clamp(0.0, 1.0) * 100.0),
        dead: count(c.dead),
        dead_share: percent(c.dead as f64 / c.width.max(1) as f64),
        loss_recovered: c.loss_recovered.map_or_else(|| "—".into(), |share| recovered(share, c)),
    }
}

/// A share of the loss recovered with its interval: `97.4% [95.1, 99.0]`.
fn recovered(share: f64, c: &DictionaryFit) -> String {
    let end = |share: f64| fixed(100.0 * share, 1);
    let interval =
        c.loss_interval.map(|[low, high]| format!("\u{a0}[{},\u{a0}{}]", end(low), end(high)));
    percent(share) + &interval.unwrap_or_default()
}

/// What losses of dictionaries are of: `1,016 tokens in 8 contexts`.
pub(crate) fn losses(all: &[DictionaryFit]) -> String {
    let most = |of: fn(&DictionaryFit) -> u64| all.iter().map(of).max().unwrap_or(0) as usize;
    let [tokens, contexts] = [most(|c| c.loss_tokens), most(|c| c.loss_contexts)];
    format!("{} in {}", counted(tokens, "token"), counted(contexts, "context"))
}
