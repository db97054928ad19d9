//! Published circuits: which components others found to do a task, and what they call them.
//!
//! Those of GPT-2 small are known here; any other is a file of the user's. Knows names of
//! components only.

use crate::config::{Task, TaskKind};
use crate::error::{Context, Hint, Result, hinted};
use crate::ids::{Component, HubName};
use crate::text_file;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// A circuit that somebody published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it is from.
    pub name: String,
    /// What a class is called, and its components; no component is in two.
    pub(crate) classes: Vec<(String, Vec<Component>)>,
}

impl Published {
    #[cfg(test)]
    fn class_of(&self, component: Component) -> Option<&str> {
        let of = self.classes.iter().find(|(_, members)| members.contains(&component));
        of.map(|(class, _)| class.as_str())
    }

    /// All its components, of whichever class.
    pub fn components(&self) -> BTreeSet<Component> {
        self.classes.iter().flat_map(|(_, members)| members).copied().collect()
    }
}

/// Where a task's published circuit is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    Nowhere,
    BuiltIn,
    /// As the settings name it.
    File(&'a str),
}

/// The origin that `published` of the task means, with the model of the settings.
pub(crate) fn origin<'a>(task: &'a Task, model: &str) -> Origin<'a> {
    match task.published.as_str() {
        "" if built_in(task.kind).is_some() && is_gpt2_small(model) => Origin::BuiltIn,
        "" | "none" => Origin::Nowhere,
        "gpt2-small" => Origin::BuiltIn,
        file => Origin::File(file),
    }
}

fn is_gpt2_small(model: &str) -> bool {
    let names = ["gpt2", "openai-community/gpt2"];
    model
        .parse::<HubName>()
        .is_ok_and(|name| !name.dataset && names.contains(&name.repository.as_str()))
}

/// The published circuit of a task, if there is one. `model` is its path in the settings, `folder`
/// that of the settings file, to which a file is relative; `layers` and `heads` are the model's.
///
/// # Errors
/// When the file cannot be read or names what is no component of the model, or one twice; when the
/// built-in circuit is asked for where there is none, or for a model of other sizes.
pub fn published(
    task: &Task,
    model: &str,
    folder: &Path,
    layers: usize,
    heads: usize,
) -> Result<Option<Published>> {
    let found = match origin(task, model) {
        Origin::Nowhere => return Ok(None),
        Origin::BuiltIn => of_gpt2_small(task.kind, layers, heads),
        Origin::File(file) => from_file(file, &folder.join(file), layers, heads),
    };
    found.map(Some).with_context(|| format!("in `published` of the task `{}`", task.name))
}

const INSTEAD: &str = "set `published = \"none\"`, or name a JSON file such as {\"name mover\": \
    [\"L9H9\", \"L10H0\"]}";

/// The sizes of GPT-2 small.
const SMALL: (usize, usize) = (12, 12);

/// Where a built-in circuit is from, and its classes: names with components between spaces.
type BuiltIn = (&'static str, &'static [(&'static str, &'static str)]);

fn built_in(kind: TaskKind) -> Option<BuiltIn> {
    match kind {
        TaskKind::Ioi => Some(("Wang et al. 2022, GPT-2 small", &IOI)),
        TaskKind::GreaterThan => Some(("Hanna et al. 2023, GPT-2 small", &GREATER_THAN)),
        TaskKind::Prompts => None,
    }
}

const IOI: [(&str, &str); 7] = [
    ("name mover", "L9H9 L10H0 L9H6"),
    ("backup name mover", "L10H10 L10H6 L10H2 L10H1 L11H2 L9H7 L9H0 L11H9"),
    ("negative name mover", "L10H7 L11H10"),
    ("S-inhibition", "L7H3 L7H9 L8H6 L8H10"),
    ("induction", "L5H5 L5H8 L5H9 L6H9"),
    ("duplicate token", "L0H1 L0H10 L3H0"),
    ("previous token", "L2H2 L4H11"),
];

const GREATER_THAN: [(&str, &str); 2] = [
    ("head", "L0H1 L0H3 L0H5 L5H5 L6H1 L6H9 L7H10 L8H11 L9H1"),
    ("MLP", "MLP0 MLP1 MLP2 MLP3 MLP8 MLP9 MLP10 MLP11"),
];

fn of_gpt2_small(kind: TaskKind, layers: usize, heads: usize) -> Result<Published> {
    let Some((name, classes)) = built_in(kind) else {
        return Err(hinted(
            format!("there is no built-in circuit of the kind `{}`", kind.word()),
            INSTEAD,
        ));
    };
    if (layers, heads) != SMALL {
        let what = format!(
            "the model has {layers} layers of {heads} heads and is not GPT-2 small, of 12 layers \
             of 12"
        );
        return Err(hinted(what, INSTEAD));
    }
    let written = |(class, members): &(&str, &str)| {
        (class.to_string(), members.split(' ').map(String::from).collect())
    };
    let classes = classes.iter().map(written).collect();
    checked(name.into(), classes, layers, heads)
}

fn from_file(file: &str, path: &Path, layers: usize, heads: usize) -> Result<Published> {
    let text = text_file::read(path)
        .hint(|| format!("cannot read the published circuit `{}`", path.display()), FILE_HINT)?;
    let Listed(classes) =
        serde_json::from_str(&text).hint(|| format!("`{file}` is no published circuit"), FORM)?;
    checked(file.into(), classes, layers, heads).with_context(|| format!("in `{file}`"))
}

const FILE_HINT: &str =
    "`published` is \"\", \"none\", \"gpt2-small\" or a JSON file, relative to the settings file";
const FORM: &str = "write one JSON object: each class with its components, such as {\"name \
    mover\": [\"L9H9\", \"L10H0\"]}";

/// Classes of named components as components of a model.
fn checked(
    name: String,
    classes: Vec<(String, Vec<String>)>,
    layers: usize,
    heads: usize,
) -> Result<Published> {
    let mut class_of: BTreeMap<Component, &str> = BTreeMap::new();
    let mut all = Vec::with_capacity(classes.len());
    for (class, names) in &classes {
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            let component = component(name, layers, heads)?;
            if let Some(other) = class_of.insert(component, class) {
                let where_else =
                    if other == class { "twice".into() } else { format!("in {other:?} and") };
                return Err(hinted(
                    format!("`{name}` is {where_else} in {class:?}"),
                    "put each component in one class",
                ));
            }
            members.push(component);
        }
        all.push((class.clone(), members));
    }
    if class_of.is_empty() {
        return Err(hinted("the published circuit has no component", FORM));
    }
    Ok(Published { name, classes: all })
}

fn component(name: &str, layers: usize, heads: usize) -> Result<Component> {
    let component: Component = name.parse().hint(|| "not a published circuit".into(), FORM)?;
    if component.layer() >= layers || component.head().is_some_and(|head| head >= heads) {
        let what = format!(
            "the model has no `{name}`: it has {layers} layers of {heads} heads, counted from 0"
        );
        return Err(hinted(what, "name components of this model, or set `published = \"none\"`"));
    }
    Ok(component)
}

/// A JSON object in the order in which it is written, no class twice.
struct Listed(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listed, D::Error> {
        struct Classes;
        impl<'de> Visitor<'de> for Classes {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of classes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
                let mut classes: Vec<(String, Vec<String>)> = Vec::new();
                while let Some((class, members)) = map.next_entry::<String, Vec<String>>()? {
                    if classes.iter().any(|(known, _)| *known == class) {
                        return Err(serde::de::Error::custom(format!(
                            "the class {class:?} comes twice"
                        )));
                    }
                    classes.push((class, members));
                }
                Ok(Listed(classes))
            }
        }
        deserializer.deserialize_map(Classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;

    fn task(kind: TaskKind, published: &str) -> Task {
        let wrong = Default::default();
        Task {
            name: "t".into(),
            kind,
            prompts: None,
            seed: 1,
            file: None,
            wrong,
            published: published.into(),
        }
    }

    fn built_in_of(kind: TaskKind, published: &str, model: &str) -> Result<Option<Published>> {
        super::published(&task(kind, published), model, Path::new(""), 12, 12)
    }

    /// What is said of a file with this content, for a model of 4 layers of 6 heads.
    fn read(content: &str) -> Result<Option<Published>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.json"), content).unwrap();
        published(&task(TaskKind::Ioi, "mine.json"), "demo/model", folder.path(), 4, 6)
    }

    #[test]
    fn gpt2_small_has_its_circuits_without_being_told() {
        let counts = |kind| {
            let found = built_in_of(kind, "", "hf:openai-community/gpt2@main").unwrap().unwrap();
            let heads = found.components().iter().filter(|c| c.head().is_some()).count();
            (heads, found.components().len() - heads)
        };
        assert_eq!((counts(TaskKind::Ioi), counts(TaskKind::GreaterThan)), ((26, 0), (9, 8)));
        let ioi = built_in_of(TaskKind::Ioi, "", "hf:gpt2@main").unwrap().unwrap();
        let class = |name: &str| ioi.class_of(name.parse().unwrap());
        assert_eq!(
            [class("L9H9"), class("L11H10"), class("L0H0")],
            [Some("name mover"), Some("negative name mover"), None]
        );
    }

    #[test]
    fn others_have_one_only_when_told() {
        for (kind, published, model) in [
            (TaskKind::Ioi, "", "demo/model"),
            (TaskKind::Ioi, "", "hf:openai-community/gpt2-medium@main"),
            (TaskKind::Ioi, "", "hf:datasets/openai-community/gpt2@main"),
            (TaskKind::Ioi, "none", "hf:gpt2@main"),
            (TaskKind::Prompts, "", "hf:gpt2@main"),
        ] {
            assert_eq!(built_in_of(kind, published, model).unwrap(), None, "{published} {model}");
        }
        assert!(built_in_of(TaskKind::Ioi, "gpt2-small", "demo/model").unwrap().is_some());
    }

    #[test]
    fn a_circuit_for_another_model_or_kind_is_refused() {
        let none = report(&built_in_of(TaskKind::Prompts, "gpt2-small", "x").unwrap_err());
        assert!(
            none.contains("in `published` of the task `t`")
                && none.contains("of the kind `prompts`"),
            "{none}"
        );
        let task = task(TaskKind::Ioi, "gpt2-small");
        let other = report(&published(&task, "x", Path::new(""), 4, 6).unwrap_err());
        assert!(
            other.contains("4 layers of 6 heads and is not GPT-2 small")
                && other.contains("hint: "),
            "{other}"
        );
    }

    #[test]
    fn a_file_is_read_in_its_order() {
        let found = read(r#"{"mover": ["L3H1", "L2H5"], "early": ["MLP0"]}"#).unwrap().unwrap();
        let classes: Vec<&str> = found.classes.iter().map(|(class, _)| class.as_str()).collect();
        assert_eq!((found.name.as_str(), classes), ("mine.json", vec!["mover", "early"]));
        assert_eq!(found.class_of(Component::Mlp { layer: 0 }), Some("early"));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let cases = [
            (r#"{"a": ["L4H0"]}"#, "the model has no `L4H0`: it has 4 layers of 6 heads"),
            (r#"{"a": ["L0H6"]}"#, "the model has no `L0H6`"),
            (r#"{"a": ["MLP4"]}"#, "the model has no `MLP4`"),
            (r#"{"a": ["9.9"]}"#, "`9.9` is not a component"),
            (r#"{"a": ["L0H0"], "b": ["L0H0"]}"#, "`L0H0` is in \"a\" and in \"b\""),
            (r#"{"a": ["L0H0", "L0H0"]}"#, "`L0H0` is twice in \"a\""),
            (r#"{"a": ["L0H0"], "a": ["L0H1"]}"#, "the class \"a\" comes twice"),
            (r#"{"a": []}"#, "has no component"),
            (r#"["L0H0"]"#, "`mine.json` is no published circuit"),
        ];
        for (content, what) in cases {
            let message = report(&read(content).unwrap_err());
            assert!(message.contains(what) && message.contains("\nhint: "), "{message}");
        }
        let missing = published(&task(TaskKind::Ioi, "no.json"), "x", Path::new("nowhere"), 4, 6);
        assert!(
            report(&missing.unwrap_err())
                .contains("cannot read the published circuit `nowhere/no.json`")
        );
    }
}
