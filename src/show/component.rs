//! `show component`: a head or an MLP, the features that serve there, and with what it is found.

use super::computed::{self, Promotion};
use super::feature::explained;
use super::page::{Page, Table};
use super::pairs::pairs_table;
use super::{Answer, head, names};
use crate::artifact::tables::FeatureRow;
use crate::atlas::Reader;
use crate::atlas::answers::{ComponentAnswer, ComponentInTask, Explained};
use crate::error::Result;
use crate::format::number::{percent, significant};
use crate::format::text::plain;
use crate::ids::{Component, FeatureId, Subject};
use crate::stages::Run;
use crate::stages::aggregate::members_at;
use crate::stats::examples::Wanted;
use serde::Serialize;

/// A component's answer, and how much of it is shown in tables.
#[derive(Serialize)]
pub(super) struct ComponentShown {
    #[serde(flatten)]
    answer: ComponentAnswer,
    /// Rows of each table.
    #[serde(skip)]
    rows: usize,
    #[serde(skip)]
    examples: usize,
    /// Promoted tokens in the table.
    #[serde(skip)]
    promoted: usize,
}

/// Rows of a table where no number is asked for.
const ROWS: usize = 10;

/// # Errors
/// When the component is in no circuit.
pub(super) fn ask(
    run: &Run,
    name: &str,
    top: Option<usize>,
    few: Option<usize>,
    promotion: &Promotion,
) -> Result<ComponentShown> {
    let reader = run.reader();
    let component = names::component(&reader, run.config, name)?;
    let reader = reader.about([component.into()]);
    let reader = with_more(run, reader, component, few, promotion)?;
    let mut page = reader.component(component)?;
    page.examples.truncate(few.or(top).unwrap_or(usize::MAX));
    let strength = promotion.apply(run, None, [&mut page.promoted, &mut page.suppressed]);
    let answer = ComponentAnswer::new(&reader, page, top.unwrap_or(usize::MAX), strength)?;
    let rows = top.unwrap_or(ROWS);
    let examples = few.unwrap_or(rows);
    Ok(ComponentShown { answer, rows, examples, promoted: promotion.shown() })
}

/// A reader with what the tables lack of what is wanted: examples that are asked for by their
/// number, and promoted tokens.
fn with_more<'a>(
    run: &'a Run,
    mut reader: Reader<'a>,
    component: Component,
    examples: Option<usize>,
    promotion: &Promotion,
) -> Result<Reader<'a>> {
    let subject = Subject::from(component);
    let k = promotion.more(&reader.promoted(&subject)?);
    let examples = examples.filter(|most| *most > run.config.aggregate.examples);
    if k.is_none() && examples.is_none() {
        return Ok(reader);
    }
    let members = members_at(run, component)?;
    if let Some(most) = examples {
        let of = |(feature, weight): &(FeatureId, f64)| {
            Some((reader.features().ok()?.iter().find(|row| row.feature == *feature)?, *weight))
        };
        let known: Vec<(&FeatureRow, f64)> = members.iter().filter_map(of).collect();
        let rows = computed::together(run, &subject, &known, most)?;
        let wanted = Wanted { top: most, per_band: run.config.aggregate.band_examples };
        reader = reader.with_examples(rows, wanted);
    }
    if let Some(k) = k {
        let rows = computed::logits(run, &[(subject, members)], reader.tokenizer()?, k)?;
        reader = reader.with_promoted(rows);
    }
    Ok(reader)
}

impl Answer for ComponentShown {
    fn print(&self, page: &mut Page) {
        let own = &self.answer;
        let layer = own.component.layer();
        let what = match own.component.head() {
            Some(head) => format!("head {head} of layer {layer}"),
            None => format!("MLP of layer {layer}"),
        };
        page.title(&own.component.to_string(), &what);
        own.classes.iter().for_each(|class| head::class(page, class));
        explained(page, own.explanation.as_ref(), own.asked.as_ref());
        own.heads.iter().for_each(|head| head::print(page, head));
        head::features(page, &own.head_features);
        own.tasks.iter().for_each(|task| of_task(page, task, self.rows));
        if !own.pairs.is_empty() {
            let pairs = &own.pairs[..own.pairs.len().min(self.rows)];
            page.heading("Strongest pairs", "by the share of direct links");
            page.table(&pairs_table(pairs));
            page.rest(pairs.len(), own.pairs_total, "--top");
        }
        page.promoted(&own.promoted, &own.suppressed, own.strength, self.promoted);
        let examples = &own.examples[..own.examples.len().min(self.examples)];
        if !examples.is_empty() {
            page.heading(
                "Strongest examples",
                "top contexts by the weighted sum of its features' activations",
            );
            let hottest = examples.iter().map(|example| example.value).fold(0.0, f32::max);
            page.examples(examples, hottest);
        }
    }
}

fn of_task(page: &mut Page, task: &ComponentInTask, rows: usize) {
    let often = percent(task.frequency);
    page.heading(&task.task, &format!("in the circuits of {often} of the prompts"));
    if !task.features.is_empty() {
        let row = |e: &Explained| {
            let prompts = format!("{} of {}", e.serving.prompts, e.serving.of);
            [e.serving.feature.to_string(), prompts, significant(e.serving.share, 3), short(e)]
        };
        let features = &task.features[..task.features.len().min(rows)];
        page.table(
            &Table::new(&["feature", ">prompts", ">share", "explanation"])
                .with(features.iter().map(row)),
        );
        page.rest(features.len(), task.features_total, "--top");
    }
    let others = task.neighbours.iter().take(rows);
    let others: Vec<String> = others.map(|(other, prompts)| format!("{other} {prompts}")).collect();
    if !others.is_empty() {
        page.line(&format!("with, in prompts: {}", others.join(", ")));
    }
}

/// Its explanation in short.
pub(super) fn short(e: &Explained) -> String {
    e.explanation.as_deref().map(|text| plain(text, 200)).unwrap_or_default()
}
