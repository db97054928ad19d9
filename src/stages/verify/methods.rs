//! What other methods find, each kept when it is found.

use super::{TaskRun, prompt};
use crate::artifact::Row;
use crate::artifact::tables::MethodRow;
use crate::config::DiscoveryMethod;
use crate::error::Result;
use crate::ids::FeatureId;
use crate::stages::search::{Other, Search, SizedCircuits};

impl TaskRun<'_> {
    /// What other methods find, with the settings that circuits were found with. For a shard, those
    /// of them that are there or its own to make.
    pub(super) fn others(&self) -> Result<Vec<Other>> {
        let (run, discover) = (self.run, &self.run.config.discover);
        let mut search: Option<Search> = None;
        let mut others = Vec::new();
        let methods = (self.first.methods..).zip(&run.config.verify.methods);
        for (part, &method) in methods.filter(|(_, method)| **method != discover.method) {
            if !run.has(part) && !run.is_kept(&MethodRow::ARTIFACT, part) {
                run.parts.leave(1);
                continue;
            }
            let is_whole = |rows: &[MethodRow]| are_of(rows, &self.task.name, method);
            let rows = run.part(&MethodRow::ARTIFACT, part, is_whole, || {
                let search = match search {
                    Some(ref search) => search,
                    None => search.insert(self.search()?),
                };
                Ok(rows(&self.task.name, &search.find(discover, method)?))
            })?;
            others.push(other(method, rows));
        }
        Ok(others)
    }

    fn search(&self) -> Result<Search<'_>> {
        let own = self.found.prompts(&self.task.name).map(|row| prompt(self.prompts, row));
        let own = own.collect::<Result<_>>()?;
        Search::new(self.replacement, self.task, own, self.prompts, self.metrics)
    }
}

const NODES: &str = "nodes";
const COMPONENTS: &str = "components";
const FEATURES: &str = "features";
const RANKED: &str = "ranked";
const OPPOSING: &str = "opposing";

fn rows(task: &str, other: &Other) -> Vec<MethodRow> {
    let row = |what: &str, variant: &str| MethodRow {
        task: task.into(),
        method: other.method.word().into(),
        what: what.into(),
        variant: variant.into(),
        components: Vec::new(),
        features: Vec::new(),
        nodes: None,
        cost: 0.0,
    };
    let listed = |what: &str, variant: &str, features: Vec<FeatureId>| MethodRow {
        features,
        ..row(what, variant)
    };
    let numbers = MethodRow { nodes: other.nodes, cost: other.cost, ..row(NODES, "") };
    let components = other.components.iter().map(|(variant, circuit)| MethodRow {
        components: circuit.iter().copied().collect(),
        ..row(COMPONENTS, variant)
    });
    let features = other
        .features
        .iter()
        .map(|(variant, circuit)| listed(FEATURES, variant, circuit.iter().copied().collect()));
    let ranked = listed(RANKED, "", other.ranked.clone());
    let opposing = listed(OPPOSING, "", other.opposing.clone());
    [numbers, ranked, opposing].into_iter().chain(components).chain(features).collect()
}

/// Whether the rows of a part are what this method has found of this task, with all that is there
/// once.
fn are_of(rows: &[MethodRow], task: &str, method: DiscoveryMethod) -> bool {
    let once = |what: &str| rows.iter().filter(|row| row.what == what).count() == 1;
    rows.iter().all(|row| row.task == task && row.method == method.word())
        && [NODES, RANKED, OPPOSING].into_iter().all(once)
}

fn other(method: DiscoveryMethod, rows: Vec<MethodRow>) -> Other {
    let (mut components, mut features) = (Vec::new(), SizedCircuits::new());
    let mut other = Other {
        method,
        components: Vec::new(),
        features: Vec::new(),
        ranked: Vec::new(),
        opposing: Vec::new(),
        nodes: None,
        cost: 0.0,
    };
    for row in rows {
        match row.what.as_str() {
            COMPONENTS => components.push((row.variant, row.components.into_iter().collect())),
            FEATURES => features.push((row.variant, row.features.into_iter().collect())),
            RANKED => other.ranked = row.features,
            OPPOSING => other.opposing = row.features,
            _ => (other.nodes, other.cost) = (row.nodes, row.cost),
        }
    }
    Other { components, features, ..other }
}
