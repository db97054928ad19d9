//! `circuit-atlas import explanations`: what others wrote about features, of Neuronpedia's exports,
//! into the table `imported`. Pages show it as theirs, and judges judge it like ours.

use crate::artifact::Store;
use crate::artifact::tables::ImportedRow;
use crate::config::Config;
use crate::corpus;
use crate::error::{Context, Hint, Result, hinted};
use crate::format::number::counted;
use crate::format::text::plain;
use crate::ids::{DictionaryId, FeatureId, Kind};
use crate::inputs;
use crate::pipeline;
use crate::process;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Something that others have made.
#[derive(Subcommand)]
pub(crate) enum Import {
    /// Explanations as Neuronpedia exports them: JSON lines, or one array, also as `.gz`
    Explanations(Explanations),
}

/// Which explanations, and of what.
#[derive(Args)]
pub(crate) struct Explanations {
    #[arg(required_unless_present = "remove", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the model is called there
    #[arg(long, value_name = "NAME", default_value = "gpt2-small")]
    model: String,
    /// What a layer of the attention SAEs is called there
    #[arg(long, value_name = "PATTERN", default_value = "{layer}-att-kk")]
    attention: String,
    /// What a layer of the MLP transcoders is called there
    #[arg(long, value_name = "PATTERN", default_value = "{layer}-tres-dc")]
    mlp: String,
    /// Remove all that were imported before
    #[arg(long)]
    remove: bool,
}

/// Bytes of a line that are read.
const LINE: u64 = 16 << 20;
/// Characters of an explanation that are kept.
const TEXT: usize = 4000;
/// Lines that are named for each reason.
const NAMED: usize = 3;

/// The fields of a line that are read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    model_id: String,
    layer: String,
    index: Value,
    description: Option<String>,
    explanation_model_name: Option<String>,
    author_name: Option<String>,
    type_name: Option<String>,
}

/// Lines that were not taken, by the reason.
#[derive(Default)]
struct Passed(BTreeMap<String, (usize, Vec<String>)>);

impl Passed {
    fn add(&mut self, why: String, place: String) {
        let (number, places) = self.0.entry(why).or_default();
        *number += 1;
        if places.len() < NAMED {
            places.push(place);
        }
    }

    fn say(&self) {
        for (why, (number, places)) in &self.0 {
            let more = if *number > places.len() { ", …" } else { "" };
            let lines = counted(*number, "line");
            process::note(format_args!("{lines} left out: {why} ({}{more})", places.join(", ")));
        }
    }
}

/// Where the lines go.
struct Mapping<'a> {
    asked: &'a Explanations,
    /// What each dictionary is called there, and how many features it has.
    sources: BTreeMap<String, (DictionaryId, usize)>,
}

impl Mapping<'_> {
    fn new<'a>(config: &Config, asked: &'a Explanations) -> Result<Mapping<'a>> {
        let mut sources = BTreeMap::new();
        for source in inputs::sources(config)? {
            let pattern = match source.id.kind {
                Kind::Attention => &asked.attention,
                Kind::Mlp => &asked.mlp,
            };
            let name = pattern.replace("{layer}", &source.id.layer.to_string());
            if let Some((other, _)) = sources.insert(name.clone(), (source.id, source.width()?)) {
                return Err(hinted(
                    format!("`{name}` would be both `{other}` and `{}`", source.id),
                    "write `{layer}` where the number of the layer is in the name",
                ));
            }
        }
        Ok(Mapping { asked, sources })
    }

    /// The row of a line, or why there is none.
    fn row(&self, line: Line, file: &str) -> std::result::Result<ImportedRow, String> {
        let Line { model_id, layer, index, description, .. } = line;
        if model_id != self.asked.model {
            return Err(format!("they are of the model `{}`", plain(&model_id, 60)));
        }
        let Some(&(dictionary, width)) = self.sources.get(&layer) else {
            return Err(format!("no dictionary is called `{}` there", plain(&layer, 60)));
        };
        let number = match &index {
            Value::String(text) => text.parse::<usize>().ok(),
            Value::Number(number) => number.as_u64().and_then(|n| usize::try_from(n).ok()),
            _ => None,
        };
        let index = number.ok_or("`index` is no number")?;
        if index >= width {
            return Err(format!("`{dictionary}` has {width} features"));
        }
        let description: String =
            description.unwrap_or_default().trim().chars().take(TEXT).collect();
        if description.is_empty() {
            return Err("they have no description".into());
        }
        let model = line.explanation_model_name.unwrap_or_default();
        let method = line.type_name.unwrap_or_default();
        // As much as tells two explanations of one feature apart.
        let parts = [line.author_name.as_deref(), Some(model.as_str()), Some(method.as_str())];
        let parts: Vec<&str> =
            parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        let who = if parts.is_empty() { "unknown".into() } else { parts.join(", ") };
        Ok(ImportedRow {
            feature: FeatureId { dictionary, index },
            explainer: format!("Neuronpedia: {}", plain(&who, 120)),
            model: plain(&model, 200),
            method: plain(&method, 200),
            source: format!("{model_id}/{layer}/{index}"),
            file: file.into(),
            text: description,
        })
    }
}

/// Takes explanations of others into the artifact folder, beside those that are there; one of the
/// same feature by the same explainer is replaced. Says how many, and which lines were left out.
///
/// # Errors
/// When a file cannot be read, a run is using the folder, or nothing could be taken.
pub(crate) fn import(config: &Config, Import::Explanations(asked): &Import) -> Result<()> {
    pipeline::set_threads(config);
    let config = &pipeline::with_hub(config)?;
    let mapping = Mapping::new(config, asked)?;
    let (mut passed, mut taken) = (Passed::default(), Vec::new());
    for path in &asked.files {
        read(path, &mapping, &mut taken, &mut passed)?;
    }
    passed.say();
    let read = taken.len();
    if read == 0 && !asked.remove {
        let names: Vec<&str> = mapping.sources.keys().take(NAMED).map(String::as_str).collect();
        return Err(hinted(
            "no explanation could be imported",
            format!(
                "the model must be called `{}`, and its layers as `{}`: set `--model`, \
                 `--attention` and `--mlp` to what the files call them",
                asked.model,
                names.join("`, `")
            ),
        ));
    }
    pipeline::while_alone(&config.artifacts(), || {
        let store = Store::new(&config.artifacts());
        let mut all: BTreeMap<(FeatureId, String), ImportedRow> = BTreeMap::new();
        let key = |row: &ImportedRow| (row.feature, row.explainer.clone());
        if !asked.remove {
            all.extend(store.imported()?.into_iter().map(|row| (key(&row), row)));
        }
        all.extend(taken.drain(..).map(|row| (key(&row), row)));
        let rows: Vec<ImportedRow> = all.into_values().collect();
        let fingerprint = blake3::hash(format!("{rows:?}").as_bytes()).to_hex();
        store.write(&fingerprint[..32], &rows)?;
        if rows.is_empty() {
            process::say("the imported explanations are removed; `circuit-atlas run` shows none");
            return Ok(());
        }
        let features = rows.chunk_by(|a, b| a.feature == b.feature).count();
        process::say(format_args!(
            "{} imported, {} of {} in all; `circuit-atlas run` judges and shows them",
            counted(read, "explanation"),
            rows.len(),
            counted(features, "feature")
        ));
        Ok(())
    })
}

/// Reads one file, a line or an element at a time.
fn read(
    path: &Path,
    mapping: &Mapping,
    taken: &mut Vec<ImportedRow>,
    passed: &mut Passed,
) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = || format!("cannot read `{}`", path.display());
    let mut reader = BufReader::new(corpus::unpacked_json(path)?);
    let first = reader.fill_buf().hint(what, "check that the file is whole")?.first().copied();
    let mut add = |line: serde_json::Result<Line>, number: usize| {
        let place = format!("{name}:{number}");
        match line {
            Err(_) => passed.add("they are no explanation of Neuronpedia".into(), place),
            Ok(line) => match mapping.row(line, &name) {
                Ok(row) => taken.push(row),
                Err(why) => passed.add(why, place),
            },
        }
    };
    if first == Some(b'[') {
        let all: Vec<Value> =
            serde_json::from_reader(reader).hint(what, "it begins as a JSON array, but is none")?;
        all.into_iter().zip(1..).for_each(|(one, number)| add(serde_json::from_value(one), number));
        return Ok(());
    }
    for number in 1.. {
        process::check()?;
        let mut line = Vec::new();
        let read =
            reader.by_ref().take(LINE + 1).read_until(b'\n', &mut line).with_context(what)?;
        if read == 0 {
            return Ok(());
        }
        if line.len() as u64 > LINE {
            return Err(hinted(
                format!("line {number} of `{}` is longer than {} MiB", path.display(), LINE >> 20),
                "give a file of JSON lines, an explanation each",
            ));
        }
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            add(serde_json::from_str(text.trim()), number);
        }
    }
    Ok(())
}
