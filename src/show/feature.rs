//! `show feature`: one feature, as its page of the site has it.

use super::computed::{self, Promotion};
use super::page::{Page, Table, token};
use super::unscored::{self, Measured};
use super::{Answer, names};
use crate::artifact::tables::FeatureRow;
use crate::atlas::Reader;
use crate::atlas::answers::FeatureAnswer;
use crate::atlas::model::{
    Evaluation, Example, Explanation, Feature, Similar, Source, SourceShare, Transcript,
};
use crate::atlas::verdict::{
    agreement, details, is_rule, measure, of_claimed, of_evaluation, of_promoted, tried,
};
use crate::error::{Result, hinted};
use crate::format::number::{count, counted, percent, percent_with_interval, significant};
use crate::format::text::plain;
use crate::ids::Kind;
use crate::ids::{Band, Status};
use crate::stages::Run;
use crate::stats::examples::Wanted;
use crate::stats::strata::sample;
use crate::stats::{STANDS_OUT, mix, salt};
use clap::Args;
use serde::Serialize;

/// Of the strongest, when no number is asked for.
const EXAMPLES: usize = 10;

pub(super) struct FeatureShown {
    feature: Feature,
    /// Units of activation of `at_strength`.
    strength: f64,
    /// On what it was measured; none where the run scored it, on the whole corpus.
    measured: Option<Measured>,
    /// Whether examples of each band are shown.
    bands: bool,
    /// Promoted tokens in the table.
    shown: usize,
}

impl Serialize for FeatureShown {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(flatten)]
            answer: FeatureAnswer<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            measured: Option<&'a Measured>,
        }
        let answer = FeatureAnswer::new(&self.feature, self.strength);
        Document { answer, measured: self.measured.as_ref() }.serialize(serializer)
    }
}

/// What is asked of a feature besides its name.
#[derive(Args)]
pub(crate) struct FeatureWishes {
    /// Examples per activation band; default: the top ten, as JSON all that were kept
    #[arg(long, value_name = "N")]
    examples: Option<usize>,
    #[command(flatten)]
    promotion: Promotion,
    /// If it was not scored: contexts to measure it on, spread over the corpus; default: as many as
    /// take seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    contexts: Option<u32>,
}

/// # Errors
/// When there is no such feature, or what the tables lack cannot be computed.
pub(super) fn ask(run: &Run, name: &str, wishes: &FeatureWishes) -> Result<FeatureShown> {
    let id = names::feature_id(run.config, name)?;
    let reader = run.reader().about([id.into()]);
    let promotion = &wishes.promotion;
    let kept = &run.config.aggregate;
    let each = wishes.examples.unwrap_or(0);
    let wanted = Wanted { top: each.max(kept.examples), per_band: each.max(kept.band_examples) };
    let known = names::known(&reader, id)?;
    let (mut feature, measured) = match known {
        Some(row) => (scored(run, reader, row, wishes, wanted)?, None),
        None => {
            let contexts = wishes.contexts.map(|n| n as usize);
            let k = promotion.k(run);
            let own = unscored::measure(run, &reader, id, contexts, wanted, k)?;
            let reader = reader.with_examples(own.examples, wanted).with_promoted(own.logits);
            let mut feature = reader.feature(&own.row)?;
            feature.explanation = feature.explanation.or(Some(own.explanation));
            (feature, Some(own.measured))
        }
    };
    let strength =
        promotion.apply(run, Some(feature.max), [&mut feature.promoted, &mut feature.suppressed]);
    if let Some(each) = wishes.examples {
        feature.examples = chosen(std::mem::take(&mut feature.examples), each, salt(name));
    }
    let (bands, shown) = (wishes.examples.is_some(), promotion.shown());
    Ok(FeatureShown { feature, measured, strength, bands, shown })
}

/// A feature from the tables, and what they lack of what is wanted.
fn scored(
    run: &Run,
    mut reader: Reader,
    row: FeatureRow,
    wishes: &FeatureWishes,
    wanted: Wanted,
) -> Result<Feature> {
    if wishes.contexts.is_some() {
        return Err(hinted(
            format!("`{}` was scored: its numbers are of the whole corpus", row.feature),
            "leave out `--contexts`",
        ));
    }
    // Those without a page are in no table of explanations.
    let explanation = match row.page {
        true => None,
        false => Some(explanation(&reader, &row)?),
    };
    if let Some(k) = wishes.promotion.more(&reader.promoted(&row.feature.into())?) {
        let sets = [(row.feature.into(), vec![(row.feature, 1.0)])];
        let rows = computed::logits(run, &sets, reader.tokenizer()?, k)?;
        reader = reader.with_promoted(rows);
    }
    let kept = &run.config.aggregate;
    if wanted.top > kept.examples || wanted.per_band > kept.band_examples {
        let rows = computed::examples(run, &row, wanted)?;
        reader = reader.with_examples(rows, wanted);
    }
    let mut feature = reader.feature(&row)?;
    feature.explanation = feature.explanation.or(explanation);
    Ok(feature)
}

/// What the statistics in the tables say of it.
fn explanation(reader: &Reader, row: &FeatureRow) -> Result<Explanation> {
    let subject = row.feature.into();
    let texts = reader
        .promoted(&subject)?
        .map(|tokens| tokens.into_iter().map(|token| token.text).collect::<Vec<String>>());
    let examples = reader.examples_of(&subject)?;
    Ok(unscored::explanation(row, examples, &texts, reader.tokenizer()?))
}

/// Of the top ones the first; of each other band some that are drawn, as its first ones are its
/// strongest.
fn chosen(examples: Vec<Example>, each: usize, seed: u64) -> Vec<Example> {
    let of = |band: &[Example]| match band[0].band {
        Band::Top => band.iter().take(each).cloned().collect(),
        other => {
            sample(band.to_vec(), |example| example.half, each, mix(seed, salt(&other.to_string())))
        }
    };
    examples.chunk_by(|a, b| a.band == b.band).flat_map(of).collect()
}

/// `top`, `q9`, …, `inactive` in words.
fn band_in_words(band: Band) -> String {
    match band {
        Band::Tenth(9) => "Strongest tenth of its active contexts".into(),
        Band::Tenth(0) => "Weakest tenth".into(),
        Band::Tenth(tenth) => format!("Tenth {} of 10 by strength", tenth + 1),
        Band::Top => "Strongest examples".into(),
        _ => "Inactive contexts".into(),
    }
}

/// An explanation as running text, and why there is none by a language model that was asked.
pub(super) fn explained(
    page: &mut Page,
    explanation: Option<&Explanation>,
    asked: Option<&Transcript>,
) {
    if let Some(e) = asked.and_then(Transcript::failure) {
        page.line(&format!("No explanation by {} ({}): {}", e.model, e.status, e.reason));
    }
    if let Some(e) = explanation {
        said(page, e, "");
    }
    for (i, e) in asked.iter().flat_map(|asked| asked.samples.iter().enumerate().skip(1)) {
        match e.status {
            Status::Ok => said(page, e, &format!("Explanation {}: ", i + 1)),
            status => page.line(&format!("Explanation {} ({status}): {}", i + 1, e.reason)),
        }
    }
}

fn said(page: &mut Page, e: &Explanation, which: &str) {
    let by = if e.model.is_empty() { &e.explainer } else { &e.model };
    page.line(&format!("{which}{} [{by}]", plain(&e.text, usize::MAX)));
    if e.model.is_empty() {
        return;
    }
    // Of a summary the text is both of its sides.
    let sides = [
        ("reads", &e.input_side),
        ("weakly", &e.weakly),
        ("from", &e.reads_from),
        ("matches", &e.matching),
        ("carries", &e.carried),
        ("writes", &e.output_side),
    ];
    for (name, text) in sides.into_iter().filter(|(_, text)| !text.is_empty()) {
        page.line(&format!("  {name}: {}", plain(text, usize::MAX)));
    }
    for (number, (clause, cause)) in (1..).zip(&e.clauses) {
        page.line(&format!("  clause {number}, {}: {}", token(cause), plain(clause, usize::MAX)));
    }
    if !e.claims.is_empty() {
        let claims: Vec<String> =
            e.claims.iter().map(|claim| format!("“{}”", token(claim))).collect();
        page.line(&format!("  claims to promote: {}", claims.join(", ")));
    }
}

fn evaluation_line(e: &Evaluation) -> String {
    let accuracy = percent_with_interval(e.score, e.low, e.high);
    let null = e.null.map(|null| format!("; control: {}", percent(null))).unwrap_or_default();
    format!(
        "On held-out documents ({}, {}, {} examples): balanced accuracy {accuracy}{null}",
        e.method, e.explainer, e.examples
    )
}

/// The score of an explanation beside its nulls.
fn score_line(e: &Evaluation) -> String {
    let accuracy = percent_with_interval(e.score, e.low, e.high);
    let of = e.null_subject.map(|id| format!(" ({id})")).unwrap_or_default();
    let control = if e.method == "intruder" { "chance" } else { "control" };
    let null = e.null.map(|null| format!("; {control}{of}: {}", percent(null))).unwrap_or_default();
    let rule =
        e.rule.map(|rule| format!("; single-token rule: {}", percent(rule))).unwrap_or_default();
    let noun = if e.method == "intruder" { "question" } else { "text" };
    let (texts, words) = (counted(e.examples as usize, noun), of_evaluation(e).words);
    format!(
        "{} of {}, judged by {} on {texts}: {} {accuracy}{null}{rule}; {words}",
        tried(e),
        e.explainer,
        e.judge,
        measure(&e.method)
    )
}

impl Answer for FeatureShown {
    fn print(&self, page: &mut Page) {
        let f = &self.feature;
        let kind = match f.id.dictionary.kind {
            Kind::Attention => "attention SAE",
            Kind::Mlp => "MLP transcoder",
        };
        page.title(&f.id.to_string(), &format!("{kind} of layer {}", f.id.dictionary.layer));
        if let Some(measured) = &self.measured {
            page.line(&format!("not scored by the run; {}", measured.said()));
        }
        explained(page, f.explanation.as_ref(), f.asked.as_ref());
        for other in &f.imported {
            let by = format!("[{}, of {}; imported]", other.explainer, other.source);
            page.line(&format!("{} {by}", plain(&other.text, usize::MAX)));
        }
        self.scores(page);
        self.causal(page);
        self.servings(page);
        self.activations(page);
        self.why(page);
        self.similar(page);
        page.promoted(&f.promoted, &f.suppressed, self.strength, self.shown);
        let is_shown = |band: &&[Example]| self.bands || band[0].band == Band::Top;
        for band in f.examples.chunk_by(|a, b| a.band == b.band).filter(is_shown) {
            let note = if band[0].band == Band::Top {
                "coloured by the share of its largest activation"
            } else {
                ""
            };
            let band = if self.bands { band } else { &band[..band.len().min(EXAMPLES)] };
            page.heading(&band_in_words(band[0].band), note);
            page.examples(band, f.max);
        }
    }
}

impl FeatureShown {
    fn scores(&self, page: &mut Page) {
        let evaluations = &self.feature.evaluations;
        if !evaluations.iter().all(is_rule) {
            page.heading("Scores of the explanation", "on held-out texts");
        }
        for e in evaluations {
            page.line(&if is_rule(e) { evaluation_line(e) } else { score_line(e) });
            let details = details(e);
            if !details.is_empty() {
                page.line(&format!("  {details}"));
            }
        }
        self.feature.agreements.iter().for_each(|a| page.line(&agreement(a)));
    }

    fn causal(&self, page: &mut Page) {
        let Some(c) = &self.feature.causal else { return };
        let note = format!(
            "{} units added at {} positions; AUC of the logit rise against all other tokens, 50% \
             is chance",
            significant(c.strength, 2),
            count(u64::from(c.positions))
        );
        page.heading("Steering", &note);
        let null = |null: Option<f64>| {
            null.map(|null| format!("; control: {}", percent(null))).unwrap_or_default()
        };
        let promoted = percent_with_interval(c.promoted, c.low, c.high);
        page.line(&format!(
            "promoted tokens: {promoted}{}; {}",
            null(c.promoted_null),
            of_promoted(c).words
        ));
        if let Some(claimed) = c.claimed {
            let claimed = percent_with_interval(Some(claimed), c.claimed_low, c.claimed_high);
            let words = of_claimed(c).words;
            page.line(&format!(
                "{} claimed tokens: {claimed}{}; {words}",
                c.claims,
                null(c.claimed_null)
            ));
        }
        let risen = c
            .risen
            .iter()
            .map(|(text, rise)| format!("“{}” {}", token(text), significant(*rise, 2)));
        page.line(&format!("largest logit rise: {}", risen.collect::<Vec<_>>().join(", ")));
    }

    fn servings(&self, page: &mut Page) {
        let servings = &self.feature.servings;
        page.heading("Serves", if servings.is_empty() { "in no circuit" } else { "" });
        if !servings.is_empty() {
            let row = |s: &crate::atlas::model::Serving| {
                [
                    s.task.clone(),
                    s.component.to_string(),
                    format!("{} of {}", s.prompts, s.of),
                    significant(s.share, 3),
                ]
            };
            page.table(
                &Table::new(&["task", "at", ">prompts", ">share"]).with(servings.iter().map(row)),
            );
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
            page.histogram(&f.histogram, f.max.into());
            page.line(&mass(&f.mass));
        }
    }
}

impl FeatureShown {
    fn why(&self, page: &mut Page) {
        let why = &self.feature.why;
        if why.sources.is_empty() {
            return;
        }
        let note = format!(
            "mean shares of what it reads at the peaks of {}",
            counted(why.examples as usize, "example")
        );
        page.heading("Why it is active", &note);
        let row = |one: &SourceShare| {
            let what = match &one.source {
                Source::Read(text) => format!("“{}”", token(text)),
                Source::Token(text) => format!("“{}” itself", token(text)),
                other => other.said(),
            };
            let head = one.head.map(|head| head.to_string()).unwrap_or_default();
            [what, head, percent(one.share), one.texts.to_string()]
        };
        let table = Table::new(&["source", "read by", ">share", ">examples"]);
        page.table(&table.with(why.sources.iter().map(row)));
    }
}

impl FeatureShown {
    fn similar(&self, page: &mut Page) {
        let similar = &self.feature.similar;
        if similar.is_empty() {
            return;
        }
        page.heading(
            "Features that write alike",
            "cosine of what two features write, in any layers",
        );
        let row = |one: &Similar| {
            let noise = if one.z <= STANDS_OUT { "as near as random directions" } else { "" };
            [one.other.to_string(), format!("{:.2}", one.cosine), noise.into()]
        };
        page.table(&Table::new(&["feature", ">cosine", ""]).with(similar.iter().map(row)));
    }
}

fn mass(mass: &[(String, f64)]) -> String {
    let one = |(text, share): &(String, f64)| format!("“{}” {}", token(text), percent(*share));
    let shares: Vec<String> = mass.iter().map(one).collect();
    format!("share of its activation: {}", shares.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;
    use crate::ids::Half;

    #[test]
    fn of_a_band_not_the_strongest_are_shown_but_some_of_each_half() {
        let one = fixture::atlas().features.remove(0).examples.remove(0);
        let of = |(band, i): (Band, usize)| Example {
            band,
            half: Half::ALL[i % 2],
            value: 9.0 - i as f32,
            ..one.clone()
        };
        let all: Vec<Example> = [Band::Top, Band::Tenth(3)]
            .iter()
            .flat_map(|band| (0..8).map(move |i| (*band, i)))
            .map(of)
            .collect();
        let shown = |seed: u64, band: Band| -> Vec<Example> {
            chosen(all.clone(), 4, seed)
                .into_iter()
                .filter(|example| example.band == band)
                .collect()
        };
        let values =
            |examples: &[Example]| examples.iter().map(|example| example.value).collect::<Vec<_>>();
        assert_eq!(values(&shown(1, Band::Top)), [9.0, 8.0, 7.0, 6.0]);
        let mut weakest = 0;
        for seed in 0..20 {
            let own = shown(seed, Band::Tenth(3));
            assert_eq!(own.iter().filter(|example| example.half == Half::Score).count(), 2);
            assert!(own.len() == 4 && values(&own).is_sorted_by(|a, b| a > b));
            weakest += usize::from(own.iter().any(|example| example.value == 2.0));
        }
        assert!(weakest > 4, "{weakest}");
    }

    fn told(i: usize) -> String {
        let feature = fixture::atlas().features.remove(i);
        let mut page = Page::new(100, false);
        let (strength, measured, bands) = (4.0, None, false);
        FeatureShown { feature, strength, measured, bands, shown: 10 }.print(&mut page);
        page.text().replace('\n', " ")
    }

    #[test]
    fn what_a_language_model_wrote_is_told_with_its_worth() {
        let text = told(6);
        for part in [
            "[some-model]",
            "claims to promote: “␣Mary”, “␣John”, “↵”",
            "Explanation 3: ",
            "detection of feature, judged by some-model on 46 texts: ",
            "; single-token rule: ",
            "; beats both",
            "The two judges, detection on 46 texts: kappa 0.44, agreement is moderate.",
            "promoted tokens: ",
            "control: 53.0%",
            "largest logit rise: “␣Mary” 2.1",
        ] {
            assert!(text.contains(part), "`{part}` is not in {text}");
        }
    }

    #[test]
    fn a_refusal_is_told_and_the_summary_stands_in_its_place() {
        let text = told(3);
        assert!(
            text.contains("No explanation by some-model (refused): I cannot help with that."),
            "{text}"
        );
        assert!(text.contains("[statistics]") && !text.contains("How good"), "{text}");
    }
}
