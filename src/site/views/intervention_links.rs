//! Links in the live model: what direct effects predict beside what happens.

use crate::atlas::model::{InterventionLink, Task};
use crate::format::number::{counted, fixed, percent};
use crate::ids::Slot;
use crate::site::links::{Links, PageLink};
use crate::site::scatter::{Spot, scatter};
use crate::site::text::Html;
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
    steady: bool,
    short: bool,
}

impl InterventionLinksView {
    pub(super) fn new(links: Links, task: &Task) -> InterventionLinksView {
        let title =
            |l: &InterventionLink| format!("{} → {} {}", l.feature, l.receiver, slot(l.slot));
        let spots: Vec<Spot> = task
            .links
            .iter()
            .flat_map(|l| {
                l.runs.iter().map(move |&(x, y)| Spot { x, y, title: title(l), odd: l.short })
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
    let [steady, short] = [|l: &&InterventionLink| l.steady, |l: &&InterventionLink| l.short]
        .map(|is| task.links.iter().filter(is).count());
    let moved = task.links.len() - steady;
    format!(
        "{} in {}: Pearson correlation of predicted and measured change {}, Spearman {}. Of the \
         {moved} links that the intervention tests, {short} fall short: less than a quarter of \
         the predicted change is measured. {steady} links are not tested (hardly changed): the \
         feature's mean over corrupted prompts is close to its activation.",
        counted(task.links.len(), "link"),
        counted(runs, "run"),
        figure("correlation"),
        figure("rank_correlation"),
    )
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
        steady: l.steady,
        short: l.short,
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
