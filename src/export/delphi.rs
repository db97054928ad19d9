//! delphi's cache: of each module the latents' locations and activations in files of a range of
//! latents, with the tokens; explanations and scores as its
//! explainer and scorers leave them.

use super::{SPACE, cannot, make_folder, model, write_json};
use crate::artifact::tables::{FeatureRow, JudgementRow};
use crate::atlas::scores::Scores;
use crate::error::{Hint, Result};
use crate::format::number::counted;
use crate::ids::{Band, DictionaryId, FeatureId, Kind, Status};
use crate::inputs::{Contexts, by};
use crate::process;
use crate::stages::Run;
use crate::stats::feature::TokenActivation;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Ranges of latents, as delphi cuts by default.
const SPLITS: usize = 5;

pub(super) fn write(run: &Run, into: &Path) -> Result<String> {
    let reader = run.reader();
    let contexts = Contexts::load(run.config, run.store)?;
    let tokens = Tokens::of(&contexts);
    let widths: BTreeMap<DictionaryId, usize> =
        reader.dictionaries()?.iter().map(|row| (row.dictionary, row.width as usize)).collect();
    let all = run.store.read::<FeatureRow>()?;
    let scores = Scores::open(run.store, all.len())?;
    let (mut modules, mut explained) = (0, 0);
    for (dictionary, width) in widths {
        let mut own: Vec<(u32, u32)> = all
            .iter()
            .filter(|row| row.feature.dictionary == dictionary)
            .map(|row| (row.index, row.key))
            .collect();
        if own.is_empty() {
            continue;
        }
        own.sort_unstable();
        let module = module(dictionary);
        let folder = into.join("latents").join(&module);
        make_folder(&folder)?;
        for split in 0..SPLITS {
            let [start, end] = [split, split + 1].map(|n| (n * width / SPLITS) as u32);
            let some = own.iter().filter(|(index, _)| (start..end).contains(index)).copied();
            write_split(&folder, &scores, &tokens, start..end, &some.collect::<Vec<_>>())?;
        }
        write_json(
            &folder.join("config.json"),
            &json!({
                "dataset_repo": run.config.shown(&run.config.corpus.path),
                "dataset_split": "",
                "dataset_name": "",
                "dataset_column": run.config.corpus.text,
                "batch_size": 1,
                "cache_ctx_len": tokens.length,
                "ctx_len": tokens.length,
                "n_tokens": tokens.rows * tokens.length,
                "n_splits": SPLITS,
                "model_name": model(run),
            }),
        )?;
        modules += 1;
    }
    make_folder(&into.join("explanations"))?;
    for row in reader.features()? {
        let text = reader.explanation(&row.feature.into())?;
        let Some(text) = text.filter(|e| e.status == Status::Ok).map(|e| e.text) else { continue };
        let name = format!("{}_latent{}.txt", module(row.feature.dictionary), row.index);
        write_json(&into.join("explanations").join(name), &text)?;
        explained += 1;
    }
    let judged = write_scores(run, into, &contexts, &all, &scores)?;
    let [modules, explained, judged] =
        [(modules, "module"), (explained, "explanation"), (judged, "score")]
            .map(|(n, what)| counted(n, what));
    Ok(format!("the latents of {modules}, {explained}, {judged}"))
}

/// A text that a judge was shown, with what it said.
#[derive(Serialize)]
struct Judged {
    str_tokens: Vec<String>,
    activations: Vec<f32>,
    /// The tenth of the active contexts by strength, from 1; −1 of an inactive text.
    distance: i32,
    activating: bool,
    prediction: Option<bool>,
    probability: Option<f64>,
    correct: Option<bool>,
}

/// What the first judge said of each feature's first explanation, a file a feature and method; says
/// how many there are. Texts below the threshold are neither active nor inactive, and left out.
fn write_scores(
    run: &Run,
    into: &Path,
    contexts: &Contexts,
    features: &[FeatureRow],
    scores: &Scores,
) -> Result<usize> {
    let judge = run.config.judges().first().copied().unwrap_or_default();
    let methods = BTreeMap::from([("detection", "detection"), ("fuzzing", "fuzz")]);
    let is_weak =
        |row: &JudgementRow| row.method == "detection" && !row.truth && row.activation > 0.0;
    let is_first = |row: &JudgementRow| {
        row.judge == judge
            && row.explained == row.subject
            && row.sample == 0
            && row.clause.is_none()
    };
    let keys: BTreeMap<FeatureId, u32> =
        features.iter().map(|row| (row.feature, row.key)).collect();
    let rows = run.store.read::<JudgementRow>()?.into_iter();
    let rows = rows.filter(|row| methods.contains_key(row.method.as_str()));
    let own = by(rows.filter(|row| is_first(row) && !is_weak(row)).collect(), |row| {
        (row.subject, row.method.clone())
    });
    let mut files = 0;
    for ((feature, method), rows) in own {
        let (Some(key), Some(method)) = (keys.get(&feature), methods.get(method.as_str())) else {
            continue;
        };
        let folder = into.join("scores").join(method);
        make_folder(&folder)?;
        let block = scores.of(&[*key])?;
        let judged: Vec<Judged> =
            rows.iter().map(|row| judged(row, contexts, block.at(0))).collect();
        let name = format!("{}_latent{}.txt", module(feature.dictionary), feature.index);
        write_json(&folder.join(name), &judged)?;
        files += 1;
    }
    Ok(files)
}

fn judged(row: &JudgementRow, contexts: &Contexts, own: &[TokenActivation]) -> Judged {
    let places = row.start..row.start + row.tokens as u16;
    let tokens = &contexts.rows[row.context as usize].tokens;
    let at = |position: u16| {
        let place = own.binary_search_by_key(&(row.context, position), |a| (a.context, a.position));
        place.map_or(0.0, |place| own[place].activation)
    };
    Judged {
        str_tokens: places
            .clone()
            .filter_map(|position| tokens.get(usize::from(position)))
            .map(|id| contexts.tokenizer().token(*id))
            .collect(),
        activations: places.map(at).collect(),
        distance: match row.band {
            Band::Top => 10,
            Band::Tenth(tenth) => i32::from(tenth) + 1,
            _ => -1,
        },
        activating: row.truth,
        prediction: row.said,
        probability: None,
        correct: row.said.map(|said| said == row.truth),
    }
}

/// What a dictionary's place in the model is called there.
fn module(dictionary: DictionaryId) -> String {
    let part = if dictionary.kind == Kind::Attention { "attn" } else { "mlp" };
    format!("h.{}.{part}", dictionary.layer)
}

/// Contexts as a matrix: shorter ones are filled up with the BOS token.
struct Tokens {
    rows: usize,
    length: usize,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Tokens {
    fn of(contexts: &Contexts) -> Tokens {
        let length = contexts.rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let bos = contexts.tokenizer().bos();
        let mut ids = Vec::with_capacity(contexts.rows.len() * length);
        for row in &contexts.rows {
            ids.extend_from_slice(&row.tokens);
            ids.resize(ids.len() + length - row.tokens.len(), bos);
        }
        let (dtype, bytes) = packed(&ids);
        Tokens { rows: contexts.rows.len(), length, dtype, bytes }
    }
}

/// Numbers in 16 bits where they fit, else in 32.
fn packed(numbers: &[u32]) -> (Dtype, Vec<u8>) {
    if numbers.iter().all(|n| u16::try_from(*n).is_ok()) {
        return (Dtype::U16, numbers.iter().flat_map(|n| (*n as u16).to_le_bytes()).collect());
    }
    (Dtype::U32, numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
}

/// One range of latents; `own` are those with scores, by number, with their keys.
fn write_split(
    folder: &Path,
    scores: &Scores,
    tokens: &Tokens,
    range: std::ops::Range<u32>,
    own: &[(u32, u32)],
) -> Result<()> {
    process::check()?;
    let keys: Vec<u32> = own.iter().map(|(_, key)| *key).collect();
    let block = scores.of(&keys)?;
    let mut hits = Vec::new();
    for (place, (index, _)) in own.iter().enumerate() {
        let latent = index - range.start;
        hits.extend(block.at(place).iter().map(|a| (a.context, a.position, latent, a.activation)));
    }
    // As delphi meets them: token by token.
    hits.sort_by_key(|hit| (hit.0, hit.1, hit.2));
    let numbers: Vec<u32> = hits.iter().flat_map(|hit| [hit.0, u32::from(hit.1), hit.2]).collect();
    let (dtype, locations) = packed(&numbers);
    let activations: Vec<u8> = hits.iter().flat_map(|hit| hit.3.to_le_bytes()).collect();
    let views = [
        ("locations", TensorView::new(dtype, vec![hits.len(), 3], &locations)?),
        ("activations", TensorView::new(Dtype::F32, vec![hits.len()], &activations)?),
        ("tokens", TensorView::new(tokens.dtype, vec![tokens.rows, tokens.length], &tokens.bytes)?),
    ];
    let path = folder.join(format!("{}_{}.safetensors", range.start, range.end - 1));
    safetensors::serialize_to_file(views, None, &path).hint(|| cannot("write", &path), SPACE)
}
