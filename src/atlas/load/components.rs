//! Heads and MLPs, over all tasks.

use super::{ComponentPairs, Members, Reader};
use crate::artifact::tables::CircuitFeature;
use crate::atlas::model::{ComponentPage, Serving};
use crate::config;
use crate::error::Result;
use crate::ids::{Band, Component, Subject};
use std::collections::{BTreeMap, BTreeSet};

impl Reader<'_> {
    /// A component, over all tasks.
    pub(crate) fn component(&self, own: Component) -> Result<ComponentPage> {
        let subject = Subject::from(own);
        let serving = self.serving_at(own)?;
        let mut features: Vec<Serving> =
            serving.iter().map(|row| self.served(row)).collect::<Result<_>>()?;
        features.sort_by_key(|serving| (std::cmp::Reverse(serving.prompts), serving.feature));
        let [promoted, suppressed] = self.promoted(&subject)?;
        let tasks = self.components()?.iter().filter(|row| row.component == own);
        Ok(ComponentPage {
            component: own,
            tasks: tasks.map(|row| (row.task.clone(), row.frequency)).collect(),
            features,
            promoted,
            suppressed,
            explanation: self.explanation(&subject)?,
            asked: self.transcript(&subject)?,
            examples: self.examples(&subject, &[Band::Top])?,
            neighbours: self.neighbours(own)?,
            classes: self.heads()?.classes(own),
            heads: self.heads()?.of(own, self.tokenizer()?),
            head_features: self.heads()?.features(own, serving),
        })
    }

    fn neighbours(&self, own: Component) -> Result<Vec<(String, Component, u32)>> {
        let other = |&(a, b, prompts): &(Component, Component, u32)| match own {
            c if c == a => Some((b, prompts)),
            c if c == b => Some((a, prompts)),
            _ => None,
        };
        let of_task = |task: &config::Task| {
            let mut found: Vec<_> =
                self.component_pairs(&task.name)?.iter().filter_map(other).collect();
            found.sort_by_key(|(component, prompts)| (std::cmp::Reverse(*prompts), *component));
            let named = |(component, prompts)| (task.name.clone(), component, prompts);
            Ok(found.into_iter().map(named).collect::<Vec<_>>())
        };
        let of_tasks = self.config.tasks.iter().map(of_task).collect::<Result<Vec<_>>>()?;
        Ok(of_tasks.concat())
    }

    /// A row of `circuit_features` among the prompts of its task.
    pub(super) fn served(&self, row: &CircuitFeature) -> Result<Serving> {
        Ok(Serving {
            task: row.task.clone(),
            component: row.component,
            feature: row.feature,
            prompts: row.prompts,
            of: self.prompts_of(&row.task)?,
            share: row.share,
        })
    }
}

/// In how many prompts of each task both components are in the circuit.
pub(super) fn pairs(circuits: &Members) -> BTreeMap<String, ComponentPairs> {
    let mut pairs: BTreeMap<&str, BTreeMap<(Component, Component), u32>> = BTreeMap::new();
    for ((task, _), members) in circuits {
        let all: BTreeSet<Component> = members.iter().map(|(component, _)| *component).collect();
        let all: Vec<Component> = all.into_iter().collect();
        let own = pairs.entry(task).or_default();
        for (i, &a) in all.iter().enumerate() {
            all[i + 1..].iter().for_each(|&b| *own.entry((a, b)).or_default() += 1);
        }
    }
    let listed = |own: BTreeMap<(Component, Component), u32>| {
        own.into_iter().map(|((a, b), n)| (a, b, n)).collect()
    };
    pairs.into_iter().map(|(task, own)| (task.to_string(), listed(own))).collect()
}
