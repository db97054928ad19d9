//! Neuronpedia's upload: of each dictionary a folder as SAEDashboard's runner leaves it
//! (`batch-N.json`, `run_settings.json`, `skipped_indexes.json`), and explanations as Neuronpedia
//! exports them.

use super::{SPACE, cannot, make_folder, model, write_json};
use crate::artifact::tables::{ExampleRow, FeatureRow};
use crate::atlas::Reader;
use crate::atlas::model::PromotedToken;
use crate::circuit::promoted_logits;
use crate::corpus::Tokenizer;
use crate::dictionary::Dictionary;
use crate::error::{Hint, Result};
use crate::format::number::counted;
use crate::ids::{Band, DictionaryId, Kind, Status, Subject};
use crate::inputs;
use crate::process;
use crate::stages::Run;
use crate::stats::feature::bars;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

/// Features of a batch, as SAEDashboard has it by default.
const BATCH: usize = 128;
/// Intervals of activation that examples are told by; each is of several bins of a histogram.
const INTERVALS: usize = 10;
/// Neurons in the table of a decoder's largest weights.
const NEURONS: usize = 3;

#[derive(Serialize)]
struct Batch {
    model_id: String,
    layer: usize,
    sae_set: String,
    sae_id_suffix: Option<String>,
    features: Vec<FeatureEntry>,
}

/// The fields that SAEDashboard writes. What it correlates with neurons and features is not known
/// here, and empty.
#[derive(Default, Serialize)]
struct FeatureEntry {
    feature_index: u32,
    neuron_alignment_indices: Vec<usize>,
    neuron_alignment_values: Vec<f32>,
    neuron_alignment_l1: Vec<f32>,
    correlated_neurons_indices: [usize; 0],
    correlated_neurons_l1: [f32; 0],
    correlated_neurons_pearson: [f32; 0],
    correlated_features_indices: [usize; 0],
    correlated_features_l1: [f32; 0],
    correlated_features_pearson: [f32; 0],
    neg_str: Vec<String>,
    neg_values: Vec<f32>,
    pos_str: Vec<String>,
    pos_values: Vec<f32>,
    frac_nonzero: f64,
    freq_hist_data_bar_values: Vec<f32>,
    freq_hist_data_bar_heights: Vec<f64>,
    logits_hist_data_bar_heights: Vec<f64>,
    logits_hist_data_bar_values: Vec<f64>,
    n_prompts_total: u64,
    n_tokens_in_prompt: usize,
    dataset: String,
    activations: Vec<ActivationEntry>,
    decoder_weights_dist: Vec<f32>,
    vector: [f32; 0],
}

#[derive(Serialize)]
struct ActivationEntry {
    bin_min: f32,
    bin_max: f32,
    bin_contains: f64,
    tokens: Vec<String>,
    values: Vec<f32>,
    qualifying_token_index: usize,
}

/// A line of an export of explanations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplanationLine {
    model_id: String,
    layer: String,
    index: String,
    description: String,
    explanation_model_name: String,
    type_name: &'static str,
}

/// What all batches say.
struct Common<'a> {
    run: &'a Run<'a>,
    reader: Reader<'a>,
    tokenizer: Tokenizer,
    model: String,
    dataset: String,
    contexts: u64,
    heads: usize,
}

pub(super) fn write(run: &Run, into: &Path) -> Result<String> {
    let reader = run.reader();
    let features = reader.features()?.to_vec();
    let documents = run.store.read::<crate::artifact::tables::Document>()?;
    let common = Common {
        run,
        tokenizer: inputs::tokenizer(run.config)?,
        model: model_id(&model(run)),
        dataset: run.config.shown(&run.config.corpus.path),
        contexts: documents.iter().map(|document| u64::from(document.contexts)).sum(),
        heads: inputs::sizes(run.config)?.heads,
        reader,
    };
    let wanted: BTreeSet<DictionaryId> =
        features.iter().map(|row| row.feature.dictionary).collect();
    let (mut folders, mut explained) = (0, 0);
    let dictionaries =
        inputs::some_dictionaries(run.config, run.lock, run.progress, |id| wanted.contains(&id))?;
    let writers = (inputs::model(run.config)?, dictionaries);
    for dictionary in &writers.1 {
        let own: Vec<&FeatureRow> =
            features.iter().filter(|row| row.feature.dictionary == dictionary.id).collect();
        let folder = into.join(source(dictionary.id));
        make_folder(&folder)?;
        for (number, some) in own.chunks(BATCH).enumerate() {
            process::check()?;
            let sets: Vec<_> = some.iter().map(|row| vec![(row.feature, 1.0)]).collect();
            let logits = promoted_logits(&writers, &sets)?;
            let entry =
                |(row, logits): (&&FeatureRow, &Vec<f32>)| common.entry(dictionary, row, logits);
            let batch = Batch {
                model_id: common.model.clone(),
                layer: dictionary.id.layer,
                sae_set: set(dictionary.id.kind).into(),
                sae_id_suffix: None,
                features: some.iter().zip(&logits).map(entry).collect::<Result<_>>()?,
            };
            write_json(&folder.join(format!("batch-{number}.json")), &batch)?;
        }
        common.settings(&folder, dictionary, &own)?;
        explained += common.explanations(&folder, dictionary.id, &own)?;
        folders += 1;
    }
    let sources = counted(folders, "source");
    let [features, explained] =
        [(features.len(), "feature"), (explained, "explanation")].map(|(n, what)| counted(n, what));
    Ok(format!("{sources} with {features} and {explained}"))
}

/// What Neuronpedia calls a model.
fn model_id(name: &str) -> String {
    let own = name.rsplit('/').next().unwrap_or(name);
    if own == "gpt2" { "gpt2-small".into() } else { own.into() }
}

fn set(kind: Kind) -> &'static str {
    match kind {
        Kind::Attention => "att-atlas",
        Kind::Mlp => "mlp-atlas",
    }
}

/// What Neuronpedia calls a layer of a set.
fn source(id: DictionaryId) -> String {
    format!("{}-{}", id.layer, set(id.kind))
}

impl Common<'_> {
    fn entry(&self, of: &Dictionary, row: &FeatureRow, logits: &[f32]) -> Result<FeatureEntry> {
        let subject = Subject::from(row.feature);
        let [promoted, suppressed] = self.reader.promoted(&subject)?;
        let texts = |side: &[PromotedToken]| side.iter().map(|token| token.text.clone()).collect();
        let values = |side: &[PromotedToken]| side.iter().map(|token| token.logit).collect();
        let direction = of.write_direction(row.index as usize)?;
        let neurons = largest(&direction, NEURONS);
        let length: f32 = direction.iter().map(|w| w.abs()).sum();
        let max = f64::from(row.max);
        let width = max / row.histogram.len().max(1) as f64;
        let (logit_values, logit_heights) = bars(logits);
        Ok(FeatureEntry {
            feature_index: row.index,
            neuron_alignment_values: neurons.iter().map(|&i| direction[i]).collect(),
            neuron_alignment_l1: neurons.iter().map(|&i| direction[i].abs() / length).collect(),
            neuron_alignment_indices: neurons,
            neg_str: texts(&suppressed),
            neg_values: values(&suppressed),
            pos_str: texts(&promoted),
            pos_values: values(&promoted),
            frac_nonzero: row.density,
            freq_hist_data_bar_values: (0..row.histogram.len())
                .map(|bin| ((bin as f64 + 0.5) * width) as f32)
                .collect(),
            freq_hist_data_bar_heights: row.histogram.iter().map(|n| *n as f64).collect(),
            logits_hist_data_bar_heights: logit_heights,
            logits_hist_data_bar_values: logit_values,
            n_prompts_total: self.contexts,
            n_tokens_in_prompt: self.run.config.corpus.context,
            dataset: self.dataset.clone(),
            activations: self.activations(row, self.reader.examples_of(&subject)?),
            decoder_weights_dist: match of.id.kind {
                Kind::Attention => by_head(&direction, self.heads),
                Kind::Mlp => Vec::new(),
            },
            ..FeatureEntry::default()
        })
    }

    /// The strongest examples, and of each interval of activation those that are in it, whichever
    /// band they were drawn for.
    fn activations(&self, row: &FeatureRow, examples: &[ExampleRow]) -> Vec<ActivationEntry> {
        let active: u64 = row.histogram.iter().sum();
        let entry = |example: &ExampleRow, [bin_min, bin_max]: [f32; 2], bin_contains: f64| {
            ActivationEntry {
                bin_min,
                bin_max,
                bin_contains,
                tokens: example.tokens.iter().map(|id| self.tokenizer.token(*id)).collect(),
                values: example.activations.clone(),
                qualifying_token_index: usize::from(example.peak - example.start),
            }
        };
        let top = examples.iter().filter(|example| example.band == Band::Top);
        let mut all: Vec<ActivationEntry> =
            top.map(|example| entry(example, [-1.0, row.max], -1.0)).collect();
        let each = row.histogram.len() / INTERVALS;
        for interval in (0..INTERVALS).rev() {
            let edge = |n| (n as f64 / INTERVALS as f64 * f64::from(row.max)) as f32;
            let (low, high) = (edge(interval), edge(interval + 1));
            let bins = &row.histogram[interval * each..(interval + 1) * each];
            let share = bins.iter().sum::<u64>() as f64 / active.max(1) as f64;
            let is_in = |example: &&ExampleRow| {
                let is_of = example.value > low && example.value <= high;
                is_of && matches!(example.band, Band::Tenth(_))
            };
            all.extend(examples.iter().filter(is_in).map(|e| entry(e, [low, high], share)));
        }
        all
    }

    fn settings(&self, folder: &Path, of: &Dictionary, own: &[&FeatureRow]) -> Result<()> {
        let context = self.run.config.corpus.context;
        let set = set(of.id.kind);
        write_json(
            &folder.join("run_settings.json"),
            &json!({
                "sae_set": set,
                "sae_path": source(of.id),
                "np_set_name": set,
                "from_local_sae": true,
                "huggingface_dataset_path": self.dataset,
                "n_prompts_total": self.contexts,
                "n_tokens_in_prompt": context,
                "n_features_at_a_time": BATCH,
                "n_quantiles": INTERVALS,
                "top_acts_group_size": self.run.config.aggregate.examples,
                "quantile_group_size": self.run.config.aggregate.band_examples,
                "use_dfa": false,
                "prepend_bos": true,
                "model_id": self.model,
                "layer": of.id.layer,
                "use_transcoder": of.id.kind == Kind::Mlp,
            }),
        )?;
        let there: BTreeSet<u32> = own.iter().map(|row| row.index).collect();
        let skipped: Vec<u32> =
            (0..of.width() as u32).filter(|index| !there.contains(index)).collect();
        write_json(
            &folder.join("skipped_indexes.json"),
            &json!({
                "model_id": self.model,
                "layer": of.id.layer.to_string(),
                "sae_set": set,
                "log_sparsity": null,
                "skipped_indexes": skipped,
            }),
        )
    }

    /// A line for each explanation; says how many there are.
    fn explanations(&self, folder: &Path, id: DictionaryId, own: &[&FeatureRow]) -> Result<usize> {
        let mut lines = Vec::new();
        for row in own {
            let explanation = self.reader.explanation(&row.feature.into())?;
            let Some(e) = explanation.filter(|e| e.status == Status::Ok) else { continue };
            let by = if e.model.is_empty() { e.explainer } else { e.model };
            lines.push(serde_json::to_string(&ExplanationLine {
                model_id: self.model.clone(),
                layer: source(id),
                index: row.index.to_string(),
                description: e.text,
                explanation_model_name: by,
                type_name: "circuit-atlas",
            })?);
        }
        let path = folder.join("explanations.jsonl");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).hint(|| cannot("write", &path), SPACE)?;
        Ok(lines.len())
    }
}

/// The places of the largest weights, the largest first.
fn largest(weights: &[f32], most: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..weights.len()).collect();
    places.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    places.truncate(most);
    places
}

/// The share of each head in the summed lengths of a direction's pieces.
fn by_head(direction: &[f32], heads: usize) -> Vec<f32> {
    let pieces = direction.chunks((direction.len() / heads.max(1)).max(1));
    let lengths: Vec<f32> =
        pieces.map(|piece| piece.iter().map(|w| w * w).sum::<f32>().sqrt()).collect();
    let all: f32 = lengths.iter().sum();
    lengths.iter().map(|length| length / all.max(f32::MIN_POSITIVE)).collect()
}
