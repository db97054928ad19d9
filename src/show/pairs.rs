//! `show pairs`: features that serve in the same circuits, between two components or features or of
//! one with any other.

use super::page::{Page, Table};
use super::{Answer, names};
use crate::atlas::Reader;
use crate::atlas::answers::PairInTask;
use crate::atlas::model::CircuitPair;
use crate::config::Config;
use crate::error::Result;
use crate::format::number::{counted, significant};
use crate::ids::{Component, FeatureId};
use crate::stages::Run;
use serde::Serialize;
use std::fmt;

/// What a pair may be asked for by.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Component(Component),
    Feature(FeatureId),
}

impl End {
    fn of(reader: &Reader, config: &Config, name: &str) -> Result<End> {
        match name.starts_with(['L', 'M']) {
            true => Ok(End::Component(names::component(reader, config, name)?)),
            false => Ok(End::Feature(names::serving(reader, config, name)?)),
        }
    }

    fn fits(self, component: Component, feature: FeatureId) -> bool {
        match self {
            End::Component(own) => own == component,
            End::Feature(own) => own == feature,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            End::Component(component) => component.fmt(f),
            End::Feature(feature) => feature.fmt(f),
        }
    }
}

impl Serialize for End {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Serialize)]
pub(super) struct PairsAnswer {
    /// What was asked for, in the order of the pairs.
    between: Vec<End>,
    /// Prompts in whose circuits both components are.
    components: Vec<Together>,
    /// How many there are in all.
    total: usize,
    /// The largest share first.
    pairs: Vec<PairInTask>,
}

#[derive(Serialize)]
struct Together {
    task: String,
    prompts: u32,
    of: u32,
}

/// # Errors
/// When a name is in no circuit.
pub(super) fn ask(
    run: &Run,
    a: &str,
    b: Option<&str>,
    task: Option<&str>,
    most: usize,
) -> Result<PairsAnswer> {
    let reader = run.reader();
    let tasks = names::tasks(&reader, run.config, task)?;
    let mut between = vec![End::of(&reader, run.config, a)?];
    between.extend(b.map(|b| End::of(&reader, run.config, b)).transpose()?);
    if let &[End::Component(x), End::Component(y)] = &between[..] {
        between = [x.min(y), x.max(y)].map(End::Component).to_vec();
    }
    let fits = |pair: &CircuitPair| {
        let fits = |x: End, y: Option<End>| {
            x.fits(pair.at_a, pair.a) && y.is_none_or(|y| y.fits(pair.at_b, pair.b))
        };
        match between[..] {
            [x] => fits(x, None) || x.fits(pair.at_b, pair.b),
            [x, y, ..] => fits(x, Some(y)) || fits(y, Some(x)),
            [] => false,
        }
    };
    let mut pairs = Vec::new();
    for (task, pair) in reader.circuit_pairs()? {
        if tasks.iter().any(|wanted| wanted.name == task) && fits(&pair) {
            pairs.push(PairInTask::new(&reader, task, pair)?);
        }
    }
    let (total, components) = (pairs.len(), components(&reader, &tasks, &between)?);
    pairs.truncate(most);
    Ok(PairsAnswer { between, components, total, pairs })
}

fn components(
    reader: &Reader,
    tasks: &[&crate::config::Task],
    between: &[End],
) -> Result<Vec<Together>> {
    let &[End::Component(a), End::Component(b)] = between else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for task in tasks {
        let pairs = reader.component_pairs(&task.name)?.iter();
        let prompts =
            pairs.filter(|(x, y, _)| (*x, *y) == (a, b)).map(|(.., prompts)| prompts).sum();
        if prompts > 0 {
            let of = reader.prompts_of(&task.name)?;
            found.push(Together { task: task.name.clone(), prompts, of });
        }
    }
    Ok(found)
}

/// Pairs as a table.
pub(super) fn pairs_table(pairs: &[PairInTask]) -> Table {
    let row = |named: &PairInTask| {
        let pair = &named.pair;
        let prompts = format!("{} of {}", pair.prompts, named.of);
        let [at_a, at_b] = [pair.at_a, pair.at_b].map(|component| component.to_string());
        let [a, b] = [pair.a, pair.b].map(|feature| feature.to_string());
        [named.task.clone(), at_a, a, at_b, b, prompts, significant(pair.share, 3)]
    };
    Table::new(&["task", "at", "feature", "at", "feature", ">prompts", ">share"])
        .with(pairs.iter().map(row))
}

impl Answer for PairsAnswer {
    fn print(&self, page: &mut Page) {
        let names: Vec<String> = self.between.iter().map(ToString::to_string).collect();
        let what =
            format!("{} in circuits, by the share of direct links", counted(self.total, "pair"));
        page.title(&names.join(" and "), &what);
        for together in &self.components {
            page.line(&format!(
                "both in {} of {} prompts of {}",
                together.prompts, together.of, together.task
            ));
        }
        if !self.pairs.is_empty() {
            page.table(&pairs_table(&self.pairs));
            page.rest(self.pairs.len(), self.total, "--top");
        }
    }
}
