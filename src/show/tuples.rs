//! `show tuples`: sets of features, or of components, that serve together in the circuits of most
//! prompts.

use super::page::{Page, Table};
use super::{Answer, names};
use crate::error::Result;
use crate::format::number::{counted, percent, significant};
use crate::stages::Run;
use crate::stats::tuples::{Tuple, most_frequent};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

#[derive(Serialize)]
pub(super) struct TuplesAnswer {
    /// `features` or `components`.
    of: &'static str,
    size: usize,
    tasks: Vec<OfTask>,
}

#[derive(Serialize)]
struct OfTask {
    task: String,
    prompts: u32,
    /// Most prompts first, then the largest lift.
    tuples: Vec<ShownTuple>,
}

#[derive(Serialize)]
struct ShownTuple {
    members: Vec<String>,
    /// Prompts in whose circuits all of them are.
    prompts: u32,
    /// That as a share of the task's prompts.
    frequency: f64,
    /// `prompts` over what independence would give.
    lift: f64,
}

/// # Errors
/// When there is no such task.
pub(super) fn ask(
    run: &Run,
    size: usize,
    components: bool,
    task: Option<&str>,
    top: usize,
) -> Result<TuplesAnswer> {
    let reader = run.reader();
    let tasks = names::tasks(&reader, run.config, task)?;
    let of_task = |task: &&crate::config::Task| {
        let (name, prompts) = (&task.name, reader.prompts_of(&task.name)?);
        let circuits = reader.members()?;
        let tuples = match components {
            true => sets(circuits, name, prompts, size, top, |&(component, _)| Some(component)),
            false => sets(circuits, name, prompts, size, top, |&(_, feature)| feature),
        };
        Ok(OfTask { task: name.clone(), prompts, tuples })
    };
    let of = if components { "components" } else { "features" };
    Ok(TuplesAnswer { of, size, tasks: tasks.iter().map(of_task).collect::<Result<_>>()? })
}

/// The sets of one task; a feature that serves at several heads is in a circuit once.
fn sets<T: Ord + Clone + Display, M>(
    circuits: &BTreeMap<(String, u32), BTreeSet<M>>,
    task: &str,
    prompts: u32,
    size: usize,
    top: usize,
    member: impl Fn(&M) -> Option<T>,
) -> Vec<ShownTuple> {
    let own = circuits.iter().filter(|((name, _), _)| name == task);
    let transactions: Vec<BTreeSet<T>> =
        own.map(|(_, circuit)| circuit.iter().filter_map(&member).collect()).collect();
    let set = |tuple: Tuple<T>| ShownTuple {
        members: tuple.members.iter().map(ToString::to_string).collect(),
        prompts: tuple.count,
        frequency: f64::from(tuple.count) / f64::from(prompts.max(1)),
        lift: tuple.lift,
    };
    most_frequent(&transactions, size, top).into_iter().map(set).collect()
}

impl Answer for TuplesAnswer {
    fn print(&self, page: &mut Page) {
        page.title(
            &format!("{} {} together", self.size, self.of),
            "in the circuits of most prompts",
        );
        for task in &self.tasks {
            page.heading(&task.task, &counted(task.prompts as usize, "prompt"));
            let row = |set: &ShownTuple| {
                let lift = significant(set.lift, 3);
                [set.prompts.to_string(), percent(set.frequency), lift, set.members.join("  ")]
            };
            let table = Table::new(&[">prompts", ">of all", ">lift", "together"]);
            page.table(&table.with(task.tuples.iter().map(row)));
        }
    }
}
