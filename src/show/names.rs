//! From the names that a user types to what the tables know; who asks for something else is told
//! what there is.

use crate::artifact::tables::FeatureRow;
use crate::atlas::Reader;
use crate::atlas::model::Prompt;
use crate::config::{Config, Task};
use crate::error::{Result, hinted};
use crate::format::number::counted;
use crate::ids::{BadName, Component, FeatureId};
use crate::inputs;
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
pub(super) fn feature_id(config: &Config, name: &str) -> Result<FeatureId> {
    name.parse().map_err(|error: BadName| {
        let hint = instead(config, name).unwrap_or_else(|| LISTED.into());
        hinted(error.to_string(), hint)
    })
}

/// What else a name may be that is not what was asked for.
fn instead(config: &Config, name: &str) -> Option<String> {
    if config.groups.iter().any(|group| group.name == name) {
        return Some(format!("it is a group: `circuit-atlas show features {name}`"));
    }
    if name.parse::<Component>().is_ok() {
        return Some(format!("it is a component: `circuit-atlas show component {name}`"));
    }
    if name.parse::<FeatureId>().is_ok() {
        return Some(format!("it is a feature: `circuit-atlas show feature {name}`"));
    }
    let (upper, lower) = (name.to_uppercase(), name.to_lowercase());
    let component = upper.parse::<Component>().ok().map(|component| component.to_string());
    let meant = component.or_else(|| Some(lower.parse::<FeatureId>().ok()?.to_string()))?;
    Some(format!("did you mean `{meant}`?"))
}

/// Checks that the dictionaries have a feature.
///
/// # Errors
/// When there is no such layer, or no such number in its dictionary; with what there is.
pub(super) fn existing(reader: &Reader, feature: FeatureId) -> Result<()> {
    let dictionaries = reader.dictionaries()?;
    let FeatureId { dictionary, index } = feature;
    match dictionaries.iter().find(|row| row.dictionary == dictionary) {
        Some(row) if index < row.width as usize => Ok(()),
        Some(row) => Err(hinted(
            format!("there is no feature `{feature}`: `{dictionary}` has {} features", row.width),
            format!("its features are `{dictionary}.0` to `{dictionary}.{}`", row.width - 1),
        )),
        None => {
            let all = dictionaries.iter().map(|row| row.dictionary);
            let last = all.filter(|other| other.kind == dictionary.kind).max();
            let last = last.map_or("none".into(), |last| format!("`{last}`"));
            Err(hinted(
                format!("there is no feature `{feature}`: there is no dictionary `{dictionary}`"),
                format!("the dictionaries are `{}0` to {last}", dictionary.kind.prefix()),
            ))
        }
    }
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
            let feature = member.parse().map_err(|error: BadName| neither(config, error))?;
            if !features.contains(&feature) {
                features.push(feature);
            }
        }
    }
    match features[..] {
        [one] => Err(hinted(
            format!("`{one}` is one feature; the question is about several"),
            format!("name another one, or ask `circuit-atlas show feature {one}`"),
        )),
        _ => Ok(features),
    }
}

fn neither(config: &Config, error: BadName) -> anyhow::Error {
    let groups: Vec<&str> = config.groups.iter().map(|group| group.name.as_str()).collect();
    let hint = match (instead(config, &error.name), &groups[..]) {
        (Some(instead), _) => instead,
        (None, []) => LISTED.into(),
        (None, groups) => format!("the groups are {}; {LISTED}", list(groups)),
    };
    hinted(format!("{error}, nor a group"), hint)
}

/// A feature of the dictionaries, if it was scored.
///
/// # Errors
/// When there is none of this name.
pub(super) fn known(reader: &Reader, feature: FeatureId) -> Result<Option<FeatureRow>> {
    let row = reader.scored(feature)?;
    if row.is_none() {
        existing(reader, feature)?;
    }
    Ok(row)
}

/// A feature that was scored.
///
/// # Errors
/// When it was not.
pub(super) fn scored(reader: &Reader, config: &Config, feature: FeatureId) -> Result<FeatureRow> {
    if let Some(row) = known(reader, feature)? {
        return Ok(row);
    }
    let hint = match config.named_features().contains(&feature) {
        true => "the settings name it now: run `circuit-atlas run` to score it".into(),
        false => format!(
            "`circuit-atlas show feature {feature}` measures it alone; to see it with others, add \
             it to `score.extra` and run again; {}",
            near(reader, feature)?
        ),
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

/// Checks that the model has a component.
///
/// # Errors
/// When there is no such layer, or no such head in it; with what there is.
fn in_model(config: &Config, component: Component) -> Result<()> {
    // Tables can be asked where the model no longer is.
    let Ok(sizes) = inputs::sizes(config) else { return Ok(()) };
    let (layers, heads) = (sizes.layers, sizes.heads);
    if component.layer() < layers && component.head().is_none_or(|head| head < heads) {
        return Ok(());
    }
    let last = layers.saturating_sub(1);
    Err(hinted(
        format!(
            "there is no component `{component}`: the model has {} of {}",
            counted(layers, "layer"),
            counted(heads, "head")
        ),
        format!(
            "its heads are `L0H0` to `L{last}H{}`, its MLPs `MLP0` to `MLP{last}`",
            heads.saturating_sub(1)
        ),
    ))
}

/// A component that is in a circuit.
///
/// # Errors
/// When it is no component, the model has none of that name, or it is in no circuit.
pub(super) fn component(reader: &Reader, config: &Config, name: &str) -> Result<Component> {
    let all: BTreeSet<Component> =
        reader.members()?.values().flatten().map(|(component, _)| *component).collect();
    let of_layer =
        |layer: usize| all.iter().filter(|c| c.layer() == layer).copied().collect::<Vec<_>>();
    match name.parse::<Component>() {
        Ok(component) if all.contains(&component) => Ok(component),
        Ok(component) => {
            in_model(config, component)?;
            let hint = match &of_layer(component.layer())[..] {
                [] => format!("in circuits are {}", list(&all.iter().collect::<Vec<_>>())),
                near => format!("of layer {} there are {}", component.layer(), list(near)),
            };
            Err(hinted(format!("`{component}` is in no circuit"), hint))
        }
        Err(error) => {
            let there = || format!("in circuits are {}", list(&all.iter().collect::<Vec<_>>()));
            Err(hinted(error.to_string(), instead(config, name).unwrap_or_else(there)))
        }
    }
}

/// A feature that serves in a circuit.
///
/// # Errors
/// When it is no feature, or serves in none.
pub(super) fn serving(reader: &Reader, config: &Config, name: &str) -> Result<FeatureId> {
    let feature = feature_id(config, name)?;
    if reader.members()?.values().flatten().any(|(_, served)| *served == Some(feature)) {
        return Ok(feature);
    }
    existing(reader, feature)?;
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

/// A prompt of a task.
///
/// # Errors
/// When the task has none of this number; with what it has.
pub(super) fn prompt(reader: &Reader, task: &Task, number: u32) -> Result<Prompt> {
    if let Some(prompt) = reader.prompt_of(&task.name, number)? {
        return Ok(prompt);
    }
    let numbers = reader.prompts()?.iter().filter(|row| row.task == task.name);
    let last = numbers.map(|row| row.prompt).max().unwrap_or_default();
    Err(hinted(
        format!("there is no prompt {number} of `{}`", task.name),
        format!("its prompts are 0 to {last}"),
    ))
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
