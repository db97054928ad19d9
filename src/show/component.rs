//! `show component`: a head or an MLP, the features that serve there, and with what it is found.

use super::computed::{self, Promotion};
use super::feature::explained;
use super::page::{Page, Table};
use super::pairs::{Named, pairs_table};
use super::{Answer, head, names};
use crate::artifact::tables::FeatureRow;
use crate::atlas::Reader;
use crate::atlas::model::{
    ComponentPage, Example, Explanation, Head, HeadFeature, PromotedToken, PublishedClass, Serving,
    Transcript,
};
use crate::error::Result;
use crate::format::number::{percent, significant};
use crate::format::text::plain;
use crate::ids::{Component, FeatureId, Subject};
use crate::stages::Run;
use crate::stages::aggregate::members_at;
use crate::stats::examples::Wanted;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct ComponentAnswer {
    component: Component,
    tasks: Vec<OfTask>,
    /// The largest share of direct links first.
    pairs: Vec<Named>,
    pairs_total: usize,
    /// Of its features, weighted by how often each serves; as are the promoted, suppressed tokens
    /// and examples.
    explanation: Option<Explanation>,
    /// What a language model was asked about it.
    asked: Option<Transcript>,
    promoted: Vec<PromotedToken>,
    suppressed: Vec<PromotedToken>,
    examples: Vec<Example>,
    /// For each task with a published circuit.
    classes: Vec<PublishedClass>,
    /// What a head does, by task.
    heads: Vec<Head>,
    /// Its features by their share of decoder norm in it.
    head_features: Vec<HeadFeature>,
    /// Units of activation of `at_strength`.
    strength: f64,
    /// Promoted tokens in the table.
    #[serde(skip)]
    shown: usize,
}

/// A component in the circuits of a task.
#[derive(Serialize)]
struct OfTask {
    task: String,
    /// Share of prompts whose circuit contains it.
    frequency: f64,
    features: Vec<Explained>,
    features_total: usize,
    /// Components found with it in most prompts.
    neighbours: Vec<(Component, u32)>,
}

/// A feature where it serves, with its explanation.
#[derive(Serialize)]
pub(super) struct Explained {
    #[serde(flatten)]
    pub serving: Serving,
    explanation: Option<String>,
}

impl Explained {
    pub(super) fn new(reader: &Reader, serving: Serving) -> Result<Explained> {
        Ok(Explained { explanation: reader.explained(serving.feature)?, serving })
    }

    /// Its explanation in short.
    pub(super) fn short(&self) -> String {
        self.explanation.as_deref().map(|text| plain(text, 200)).unwrap_or_default()
    }
}

/// # Errors
/// When the component is in no circuit.
pub(super) fn ask(
    run: &Run,
    name: &str,
    most: usize,
    few: Option<usize>,
    promotion: &Promotion,
) -> Result<ComponentAnswer> {
    let reader = run.reader();
    let component = names::component(&reader, run.config, name)?;
    let reader = reader.about([component.into()]);
    let mut pairs = Vec::new();
    for (task, pair) in reader.circuit_pairs()? {
        if pair.at_a == component || pair.at_b == component {
            pairs.push(Named::new(&reader, task, pair)?);
        }
    }
    let pairs_total = pairs.len();
    pairs.truncate(most);
    let reader = with_more(run, reader, component, few, promotion)?;
    let page = reader.component(component)?;
    let tasks = page
        .tasks
        .iter()
        .map(|(task, frequency)| of_task(&reader, &page, task, *frequency, most))
        .collect::<Result<_>>()?;
    let ComponentPage {
        explanation,
        asked,
        mut promoted,
        mut suppressed,
        mut examples,
        classes,
        heads,
        head_features,
        ..
    } = page;
    examples.truncate(few.unwrap_or(most));
    let strength = promotion.apply(run, None, [&mut promoted, &mut suppressed]);
    Ok(ComponentAnswer {
        component,
        tasks,
        pairs,
        pairs_total,
        explanation,
        asked,
        promoted,
        suppressed,
        examples,
        classes,
        heads,
        head_features,
        strength,
        shown: promotion.shown(),
    })
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

fn of_task(
    reader: &Reader,
    page: &ComponentPage,
    task: &str,
    frequency: f64,
    most: usize,
) -> Result<OfTask> {
    let own: Vec<&Serving> = page.features.iter().filter(|serving| serving.task == task).collect();
    let neighbours = page.neighbours.iter().filter(|(of, ..)| of == task);
    Ok(OfTask {
        task: task.into(),
        frequency,
        features_total: own.len(),
        features: own
            .into_iter()
            .take(most)
            .map(|serving| Explained::new(reader, serving.clone()))
            .collect::<Result<_>>()?,
        neighbours: neighbours.take(most).map(|(_, other, prompts)| (*other, *prompts)).collect(),
    })
}

impl Answer for ComponentAnswer {
    fn print(&self, page: &mut Page) {
        let layer = self.component.layer();
        let what = match self.component.head() {
            Some(head) => format!("head {head} of layer {layer}"),
            None => format!("MLP of layer {layer}"),
        };
        page.title(&self.component.to_string(), &what);
        self.classes.iter().for_each(|class| head::class(page, class));
        explained(page, self.explanation.as_ref(), self.asked.as_ref());
        self.heads.iter().for_each(|own| head::print(page, own));
        head::features(page, &self.head_features);
        self.tasks.iter().for_each(|task| task.print(page));
        if !self.pairs.is_empty() {
            page.heading("Strongest pairs", "by the share of direct links");
            page.table(&pairs_table(&self.pairs));
            page.rest(self.pairs.len(), self.pairs_total, "--top");
        }
        page.promoted(&self.promoted, &self.suppressed, self.strength, self.shown);
        if !self.examples.is_empty() {
            page.heading(
                "Strongest examples",
                "top contexts by the weighted sum of its features' activations",
            );
            let hottest = self.examples.iter().map(|example| example.value).fold(0.0, f64::max);
            page.examples(&self.examples, hottest);
        }
    }
}

impl OfTask {
    fn print(&self, page: &mut Page) {
        page.heading(
            &self.task,
            &format!("in the circuits of {} of the prompts", percent(self.frequency)),
        );
        if !self.features.is_empty() {
            let row = |e: &Explained| {
                let prompts = format!("{} of {}", e.serving.prompts, e.serving.of);
                [e.serving.feature.to_string(), prompts, significant(e.serving.share, 3), e.short()]
            };
            page.table(
                &Table::new(&["feature", ">prompts", ">share", "explanation"])
                    .with(self.features.iter().map(row)),
            );
            page.rest(self.features.len(), self.features_total, "--top");
        }
        let others: Vec<String> =
            self.neighbours.iter().map(|(other, prompts)| format!("{other} {prompts}")).collect();
        if !others.is_empty() {
            page.line(&format!("with, in prompts: {}", others.join(", ")));
        }
    }
}
