//! `show task`: how well the model does a task, what its circuits are made of, and whether they are
//! real.

use super::component::short;
use super::page::{Page, Table, token};
use super::{Answer, names};
use crate::atlas::answers::{Explained, TaskAnswer};
use crate::atlas::model::{Faithfulness, InterventionLink, TaskComponent};
use crate::error::Result;
use crate::format::number::{
    counted, difference, fixed, percent, right_of, significant, with_interval,
};
use crate::stages::Run;
use crate::stats::agreement::Doubt;
use serde::Serialize;

/// A task's answer, and how much of it is shown in tables.
#[derive(Serialize)]
pub(super) struct TaskShown {
    #[serde(flatten)]
    answer: TaskAnswer,
    /// Rows of each table.
    #[serde(skip)]
    rows: usize,
}

/// Rows of a table where no number is asked for.
const ROWS: usize = 15;

/// # Errors
/// When there is no such task.
pub(super) fn ask(run: &Run, name: &str, top: Option<usize>) -> Result<TaskShown> {
    let reader = run.reader();
    let task = reader.task(names::task(&reader, run.config, name)?)?;
    let answer = TaskAnswer::new(&reader, task, top.unwrap_or(usize::MAX))?;
    Ok(TaskShown { answer, rows: top.unwrap_or(ROWS) })
}

impl Answer for TaskShown {
    fn print(&self, page: &mut Page) {
        let task = &self.answer.task;
        page.title(&task.name, &format!("{} prompts of kind {}", task.prompts.len(), task.kind));
        page.line(&format!(
            "{}; mean metric {}, mean logit difference {}; links cover {} of the effects on the \
             answer{}",
            right_of(self.answer.right, task.used as usize, task.prompts.len()).join(" "),
            significant(self.answer.metric, 3),
            significant(self.answer.logit_difference, 3),
            percent(task.coverage),
            task.left_out
                .map(|share| format!(", {} of the influence is pruned", percent(share)))
                .unwrap_or_default(),
        ));
        if let Some(prompt) = task.prompts.first() {
            let answers = format!("“{}”, not “{}”", token(&prompt.correct), token(&prompt.counter));
            page.line(&format!("such as “{}” → {answers}", prompt.text));
        }
        self.components(page);
        self.faithfulness(page);
        self.links(page);
        self.features(page);
    }
}

impl TaskShown {
    fn components(&self, page: &mut Page) {
        let mut components: Vec<&TaskComponent> = self.answer.task.components.iter().collect();
        components.sort_by(|a, b| {
            b.frequency.total_cmp(&a.frequency).then(a.component.cmp(&b.component))
        });
        page.heading("Components", "by the share of prompts whose circuit contains them");
        let more = |c: &TaskComponent| c.contrast.map_or("—".into(), difference);
        let shown = components.iter().take(self.rows);
        let [name, often, features] = ["component", ">circuits", ">features"];
        // Not every method finds circuits of both answers.
        if components.iter().any(|c| c.contrast.is_some()) {
            let row = |c: &&TaskComponent| {
                [c.component.to_string(), percent(c.frequency), more(c), c.features.to_string()]
            };
            page.table(&Table::new(&[name, often, ">contrast", features]).with(shown.map(row)));
        } else {
            let row = |c: &&TaskComponent| {
                [c.component.to_string(), percent(c.frequency), c.features.to_string()]
            };
            page.table(&Table::new(&[name, often, features]).with(shown.map(row)));
        }
        page.rest(self.rows.min(components.len()), components.len(), "--top");
    }

    /// Each circuit, and beside it the random ones of its size.
    fn faithfulness(&self, page: &mut Page) {
        if self.answer.task.faithfulness.is_empty() {
            return;
        }
        let rest = match self.answer.task.ablation() {
            "mean" => "mean ablated",
            "resample" => "resample ablated",
            _ => "zero ablated",
        };
        page.heading("Faithfulness", &format!("of the circuit, everything else {rest}"));
        // The large circuits are there for the areas.
        let run = |f: &&Faithfulness| {
            f.ablation == self.answer.task.ablation() && f.metrics.contains_key("m_full")
        };
        let own = |f: &&Faithfulness| ["found", "published"].contains(&f.circuit.as_str());
        let mut found: Vec<&Faithfulness> =
            self.answer.task.faithfulness.iter().filter(run).filter(own).collect();
        found.sort_by(|a, b| (&a.level, &b.errors, a.size).cmp(&(&b.level, &a.errors, b.size)));
        let row = |f: &Faithfulness| {
            let beside = |r: &&Faithfulness| r.circuit == "random" && same_size(r, f);
            let random = self
                .answer
                .task
                .faithfulness
                .iter()
                .filter(|f| f.ablation == self.answer.task.ablation())
                .find(beside);
            let random = random.map_or("—".into(), |random| metric(random, "faithfulness"));
            let size = f.size as usize;
            let size = match (f.level.as_str(), f.errors.as_str()) {
                ("feature", "kept") => format!("{}, error terms kept", counted(size, "feature")),
                ("feature", _) => counted(size, "feature"),
                _ => counted(size, "component"),
            };
            [variant(f), size, metric(f, "faithfulness"), random, metric(f, "completeness")]
        };
        let columns = ["circuit", "size", ">faithfulness", ">random, same size", ">completeness"];
        page.table(&Table::new(&columns).with(found.into_iter().map(row)));
    }

    /// How well direct effects tell what happens in the live model.
    fn links(&self, page: &mut Page) {
        let of_links = || self.answer.task.faithfulness.iter().filter(|f| f.level == "link");
        let figure = |name: &str| {
            of_links()
                .find_map(|f| f.metrics.get(name)?.value)
                .map_or("—".into(), |v| fixed(v, 2))
        };
        if self.answer.task.links.is_empty() {
            return;
        }
        let [r, ranks] = ["correlation", "rank_correlation"].map(figure);
        page.heading(
            "Links tested by intervention",
            "the feature is set to its mean; changes as shares of all effects on the receiver",
        );
        let count =
            |doubt| self.answer.task.links.iter().filter(|l| l.doubt == Some(doubt)).count();
        let [steady, short, opposite] = [Doubt::Steady, Doubt::Short, Doubt::Opposite].map(count);
        page.line(&format!(
            "{} of {} tested: in the others the feature hardly changes; {short} fall short, \
             {opposite} have the opposite sign; over all runs predicted and measured changes \
             correlate by {r}, their ranks by {ranks}",
            self.answer.task.links.len() - steady,
            counted(self.answer.task.links.len(), "link"),
        ));
        let row = |l: &InterventionLink| {
            let to = format!("{} {}", l.receiver, l.slot);
            [
                l.feature.to_string(),
                to,
                percent(l.share),
                percent(l.predicted),
                percent(l.measured),
                fixed(l.root, 2),
                l.doubt.map_or("", in_table).to_string(),
            ]
        };
        let columns = ["from", "to", ">effect", ">predicted", ">measured", ">answer", ""];
        page.table(
            &Table::new(&columns).with(self.answer.task.links.iter().take(self.rows).map(row)),
        );
        page.rest(
            self.rows.min(self.answer.task.links.len()),
            self.answer.task.links.len(),
            "--top",
        );
    }

    fn features(&self, page: &mut Page) {
        page.heading("Strongest features", "by the summed share of their links");
        let row = |e: &Explained| {
            let s = &e.serving;
            let prompts = format!("{} of {}", s.prompts, s.of);
            [
                s.feature.to_string(),
                s.component.to_string(),
                prompts,
                significant(s.share, 3),
                short(e),
            ]
        };
        let columns = ["feature", "at", ">prompts", ">share", "explanation"];
        let own = &self.answer;
        let features = &own.features[..own.features.len().min(self.rows)];
        page.table(&Table::new(&columns).with(features.iter().map(row)));
        page.rest(features.len(), own.features_total, "--top");
    }
}

/// As few letters as a table has room for.
fn in_table(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Steady => "not tested",
        Doubt::Short => "falls short",
        Doubt::Opposite => "opposite",
    }
}

/// `≥ 0.25` for the components in at least that share of the circuits.
fn variant(f: &Faithfulness) -> String {
    match f.variant.strip_prefix("frequency >= ") {
        Some(least) if f.circuit == "found" => format!("in ≥ {least}"),
        _ => format!("{}, {}", f.circuit, f.variant),
    }
}

fn same_size(a: &Faithfulness, b: &Faithfulness) -> bool {
    (&a.level, &a.errors, a.size) == (&b.level, &b.errors, b.size)
}

fn metric(f: &Faithfulness, name: &str) -> String {
    f.metrics
        .get(name)
        .map_or("—".into(), |interval| with_interval(interval.value, interval.low, interval.high))
}
