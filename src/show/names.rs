//! From the names that a user types to what the tables know; who asks for something else is told
//! what there is.

use crate::artifact::tables::FeatureRow;
use crate::atlas::Reader;
use crate::config::{Config, Task};
use crate::error::{Result, hinted};
use crate::ids::{BadName, Component, FeatureId};
use std::collections::BTreeSet;

/// Names told of in a hint.
const TOLD: usize = 6;

fn list(names: &[impl ToString]) -> String {
    let told: Vec<String> =
        names.iter().take(TOLD).map(|name| format!("`{}`", name.to_string())).collect();
    if names.len() > TOLD { format!("{}, …", told.join(", ")) } else { told.join(", ") }
}

/// A feature's name.
///
/// # Errors
/// When it is none.
pub(super) fn feature_id(name: &str) -> Result<FeatureId> {
    name.parse().map_err(|error: BadName| hinted(error.to_string(), LISTED))
}

const LISTED: &str = "`circuit-atlas show task NAME` and `show component NAME` list features";

/// The features of arguments: features themselves, or groups for theirs; each once, as they come.
///
/// # Errors
/// When one is neither.
pub(super) fn features_of(config: &Config, names: &[String]) -> Result<Vec<FeatureId>> {
    let mut features = Vec::new();
    for name in names {
        let group = config.groups.iter().find(|group| group.name == *name);
        let members = group.map_or(std::slice::from_ref(name), |group| &group.features);
        for member in members {
            let feature = member.parse().map_err(|error: BadName| neither(config, &error))?;
            if !features.contains(&feature) {
                features.push(feature);
            }
        }
    }
    Ok(features)
}

fn neither(config: &Config, error: &BadName) -> anyhow::Error {
    let groups: Vec<&str> = config.groups.iter().map(|group| group.name.as_str()).collect();
    let hint = if groups.is_empty() {
        LISTED.into()
    } else {
        format!("the groups are {}; {LISTED}", list(&groups))
    };
    hinted(format!("{error}, nor a group"), hint)
}

/// A feature that was scored.
///
/// # Errors
/// When it was not.
pub(super) fn scored<'r>(
    reader: &'r Reader,
    config: &Config,
    feature: FeatureId,
) -> Result<&'r FeatureRow> {
    if let Some(row) = reader.features()?.iter().find(|row| row.feature == feature) {
        return Ok(row);
    }
    let hint = match config.named_features().contains(&feature) {
        true => "the settings name it now: run `circuit-atlas run` to score it".into(),
        false => format!("add it to `score.extra` and run again; {}", near(reader, feature)?),
    };
    Err(hinted(format!("`{feature}` was not scored"), hint))
}

fn near(reader: &Reader, feature: FeatureId) -> Result<String> {
    let all = reader.features()?.iter().map(|row| row.feature);
    let mut near: Vec<FeatureId> =
        all.filter(|other| other.dictionary == feature.dictionary).collect();
    near.sort_by_key(|other| other.index.abs_diff(feature.index));
    Ok(match near.is_empty() {
        true => format!("none of `{}` was", feature.dictionary),
        false => format!("of `{}` these were: {}", feature.dictionary, list(&near)),
    })
}

/// A component that is in a circuit.
///
/// # Errors
/// When it is no component, or in none.
pub(super) fn component(reader: &Reader, name: &str) -> Result<Component> {
    let all: BTreeSet<Component> =
        reader.members()?.values().flatten().map(|(component, _)| *component).collect();
    let of_layer =
        |layer: usize| all.iter().filter(|c| c.layer() == layer).copied().collect::<Vec<_>>();
    match name.parse::<Component>() {
        Ok(component) if all.contains(&component) => Ok(component),
        Ok(component) => {
            let hint = match &of_layer(component.layer())[..] {
                [] => format!("in circuits are {}", list(&all.iter().collect::<Vec<_>>())),
                near => format!("of layer {} there are {}", component.layer(), list(near)),
            };
            Err(hinted(format!("`{component}` is in no circuit"), hint))
        }
        Err(error) => Err(hinted(
            error.to_string(),
            format!("in circuits are {}", list(&all.iter().collect::<Vec<_>>())),
        )),
    }
}

/// A feature that serves in a circuit.
///
/// # Errors
/// When it is no feature, or serves in none.
pub(super) fn serving(reader: &Reader, name: &str) -> Result<FeatureId> {
    let feature = feature_id(name)?;
    if reader.members()?.values().flatten().any(|(_, served)| *served == Some(feature)) {
        return Ok(feature);
    }
    Err(hinted(
        format!("`{feature}` is in no circuit"),
        "`circuit-atlas show features A B` gives the co-occurrence of any scored features in the \
         corpus",
    ))
}

/// A task of the settings, with circuits.
///
/// # Errors
/// When there is none of this name.
pub(super) fn task<'c>(reader: &Reader, config: &'c Config, name: &str) -> Result<&'c Task> {
    match config.tasks.iter().find(|task| task.name == name) {
        Some(task) if reader.prompts_of(name)? > 0 => Ok(task),
        Some(_) => Err(hinted(
            format!("the task `{name}` has not been run"),
            "run it with `circuit-atlas run`",
        )),
        None => {
            let names: Vec<&str> = config.tasks.iter().map(|task| task.name.as_str()).collect();
            Err(hinted(
                format!("there is no task `{name}`"),
                format!("the tasks are {}", list(&names)),
            ))
        }
    }
}

/// The tasks that are asked for: one, or all with circuits.
pub(super) fn tasks<'c>(
    reader: &Reader,
    config: &'c Config,
    name: Option<&str>,
) -> Result<Vec<&'c Task>> {
    match name {
        Some(name) => Ok(vec![task(reader, config, name)?]),
        None => {
            let mut tasks = Vec::new();
            for task in &config.tasks {
                if reader.prompts_of(&task.name)? > 0 {
                    tasks.push(task);
                }
            }
            Ok(tasks)
        }
    }
}
