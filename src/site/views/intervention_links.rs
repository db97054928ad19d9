//! Links in the live model: what direct effects predict beside what happens.

use crate::atlas::model::{InterventionLink, Task};
use crate::format::number::{counted, fixed, percent};
use crate::ids::Slot;
use crate::site::links::{Links, PageLink};
use crate::site::scatter::{Spot, scatter};
use crate::site::text::Html;
use crate::stats::agreement::{Doubt, correlation};
use serde::Serialize;

/// A task's strongest links.
#[derive(Serialize)]
pub(super) struct InterventionLinksView {
    rows: Vec<InterventionLinkRow>,
    picture: Option<Html>,
    /// In words, with the correlations.
    summary: String,
}

/// A link on a page.
#[derive(Serialize)]
pub(super) struct InterventionLinkRow {
    feature: PageLink,
    receiver: Vec<PageLink>,
    slot: &'static str,
    prompts: u32,
    share: String,
    predicted: String,
    measured: String,
    root: String,
    /// Class in the style sheet, words, and what they mean; none where the live model bears the
    /// attribution out.
    doubt: Option<(&'static str, &'static str, &'static str)>,
}

impl InterventionLinksView {
    pub(super) fn new(links: Links, task: &Task) -> InterventionLinksView {
        let title =
            |l: &InterventionLink| format!("{} → {} {}", l.feature, l.receiver, slot(l.slot));
        let spots: Vec<Spot> = task
            .links
            .iter()
            .flat_map(|l| {
                l.runs.iter().map(move |&(x, y)| Spot {
                    x,
                    y,
                    title: title(l),
                    odd: contradicted(l),
                })
            })
            .collect();
        InterventionLinksView {
            picture: (!spots.is_empty()).then(|| scatter(&spots)),
            summary: summary(task),
            rows: task.links.iter().map(|l| intervention_link_row(links, l)).collect(),
        }
    }
}

fn summary(task: &Task) -> String {
    let figure = |metric: &str| {
        let of_links = task.faithfulness.iter().filter(|f| f.level == "link");
        let value = of_links.filter_map(|f| f.metrics.get(metric)).find_map(|i| i.value);
        value.map_or("unknown".to_string(), |value| fixed(value, 2))
    };
    let runs: usize = task.links.iter().map(|l| l.runs.len()).sum();
    let count = |doubt| task.links.iter().filter(|l| l.doubt == Some(doubt)).count();
    let [steady, short, opposite] = [Doubt::Steady, Doubt::Short, Doubt::Opposite].map(count);
    let moved = task.links.len() - steady;
    let untested = match steady {
        0 => String::new(),
        n => format!(
            " The other {n} are not tested: the feature's mean over corrupted prompts is so close \
             to its activation that it hardly changes."
        ),
    };
    let of_tested = match (moved, of_tested(task)) {
        (0, _) | (_, None) => String::new(),
        (_, Some(r)) => format!("{} over the runs of the tested links, ", fixed(r, 2)),
    };
    format!(
        "{moved} of {} tested. As predicted: {}; fall short (less than a quarter of the predicted \
         change): {short}; opposite sign: {opposite}.{untested} Pearson correlation of predicted \
         and measured change: {of_tested}{} over all {}; Spearman over all: {}.",
        counted(task.links.len(), "link"),
        moved - short - opposite,
        figure("correlation"),
        counted(runs, "run"),
        figure("rank_correlation"),
    )
}

/// Pearson's correlation of predicted and measured change where the feature does change.
fn of_tested(task: &Task) -> Option<f64> {
    let tested = task.links.iter().filter(|l| l.doubt != Some(Doubt::Steady));
    let (predicted, measured): (Vec<f64>, Vec<f64>) =
        tested.flat_map(|l| l.runs.iter().copied()).unzip();
    correlation(&predicted, &measured)
}

/// The live model does not do what the attribution says.
pub(super) fn contradicted(l: &InterventionLink) -> bool {
    matches!(l.doubt, Some(Doubt::Short | Doubt::Opposite))
}

fn told(doubt: Doubt) -> (&'static str, &'static str, &'static str) {
    match doubt {
        Doubt::Steady => (
            "quiet",
            doubt.words(),
            "not tested: the mean over corrupted prompts is so close to the activation that the \
             predicted change is less than a quarter of the effect",
        ),
        Doubt::Short => (
            "short",
            doubt.words(),
            "the measured change is less than a quarter of the predicted one",
        ),
        Doubt::Opposite => (
            "short",
            doubt.words(),
            "the measured change has the opposite sign, and at least a quarter of the predicted size",
        ),
    }
}

/// What is to be said of a feature of which a link does not do what its attribution says.
pub(super) fn warning<'a>(links: impl Iterator<Item = &'a InterventionLink>) -> Option<String> {
    let doubts: Vec<Doubt> = links.filter_map(|l| l.doubt).collect();
    let n = |doubt| doubts.iter().filter(|d| **d == doubt).count();
    let short = match n(Doubt::Short) {
        0 => None,
        n => Some(format!(
            "of {} below, less than a quarter of the predicted change was measured: the \
             attribution is larger than the effect",
            counted(n, "link")
        )),
    };
    let opposite = match n(Doubt::Opposite) {
        0 => None,
        n => Some(format!(
            "of {} below, the measured change has the opposite sign: the attribution has the \
             direction wrong",
            counted(n, "link")
        )),
    };
    let all: Vec<String> = [short, opposite].into_iter().flatten().collect();
    (!all.is_empty()).then(|| format!("Attribution and intervention disagree: {}.", all.join("; ")))
}

pub(super) fn intervention_link_row(links: Links, l: &InterventionLink) -> InterventionLinkRow {
    let known =
        [l.receiver_head.map(|c| links.component(c)), l.receiver_feature.map(|f| links.feature(f))];
    let mut receiver: Vec<PageLink> = known.into_iter().flatten().collect();
    if receiver.is_empty() {
        receiver.push(PageLink::plain(if l.receiver == "root" {
            "the answer"
        } else {
            &l.receiver
        }));
    }
    InterventionLinkRow {
        feature: links.feature(l.feature),
        receiver,
        slot: slot(l.slot),
        prompts: l.prompts,
        share: percent(l.share),
        predicted: percent(l.predicted),
        measured: percent(l.measured),
        root: fixed(l.root, 2),
        doubt: l.doubt.map(told),
    }
}

fn slot(slot: Slot) -> &'static str {
    match slot {
        Slot::Q => "query",
        Slot::K => "key",
        Slot::V => "value",
        Slot::In => "",
    }
}
