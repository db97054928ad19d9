//! Activations of chosen features of many dictionaries, at every token of a context: only their
//! rows of each encoder are read and multiplied.

use super::{Dictionary, Encoder};
use crate::error::{Context, Result, hinted};
use crate::ids::{DictionaryId, FeatureId, Kind};
use crate::model::{Clean, Gpt2};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// The chosen features, by dictionary.
pub(crate) struct Scorer {
    readers: Vec<Reader>,
}

struct Reader {
    id: DictionaryId,
    /// The key of each row of the encoder that is scored.
    keys: BTreeMap<u32, u32>,
    encoder: Encoder,
}

/// A feature that is active at a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hit {
    /// The feature's place among the chosen ones.
    pub key: u32,
    pub position: u16,
    pub activation: f32,
}

/// What each dictionary reads in one context: `[T, D]`, row-major, in the order of [`hooks`].
pub type Hooks = Vec<Vec<f32>>;

/// The dictionaries of the features, in order.
pub fn hooks(features: &[FeatureId]) -> Vec<DictionaryId> {
    let mut ids: Vec<DictionaryId> = features.iter().map(|feature| feature.dictionary).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Runs the model as far as the last hook and returns what the dictionaries read.
pub(crate) fn read_hooks(model: &Gpt2, tokens: &[u32], hooks: &[DictionaryId]) -> Result<Hooks> {
    let depth = hooks.iter().map(|id| id.layer + 1).max().unwrap_or(0);
    let trace = model.forward_layers(tokens, &Clean, depth)?;
    let read = |id: &DictionaryId| {
        let layer = &trace.layers[id.layer];
        let hook = if id.kind == Kind::Attention { &layer.z } else { &layer.x2 };
        Ok(hook.flatten_all()?.to_vec1()?)
    };
    hooks.iter().map(read).collect()
}

impl Scorer {
    /// `features` in order, their places being their keys.
    ///
    /// # Errors
    /// When there is no dictionary of a feature, or it has not that many.
    pub(crate) fn new(features: &[FeatureId], dictionaries: &[Dictionary]) -> Result<Scorer> {
        let reader = |id: DictionaryId| {
            let chosen = (0u32..).zip(features).filter(|(_, feature)| feature.dictionary == id);
            let (keys, rows): (Vec<u32>, Vec<usize>) =
                chosen.map(|(key, feature)| (key, feature.index)).unzip();
            match dictionaries.iter().find(|dictionary| dictionary.id == id) {
                Some(dictionary) => Reader::new(dictionary, &keys, &rows),
                None => {
                    Err(hinted(format!("there is no dictionary `{id}`"), "check `[dictionaries]`"))
                }
            }
        };
        Ok(Scorer { readers: hooks(features).into_iter().map(reader).collect::<Result<_>>()? })
    }

    /// The dictionaries that are read, in order.
    pub(crate) fn hooks(&self) -> Vec<DictionaryId> {
        self.readers.iter().map(|reader| reader.id).collect()
    }

    /// Every activation of a context that is not zero, by key and position.
    pub(crate) fn score(&self, hooks: &Hooks) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        for (reader, values) in self.readers.iter().zip(hooks) {
            reader
                .score(values, &mut hits)
                .with_context(|| format!("scoring the features of `{}`", reader.id))?;
        }
        hits.sort_unstable_by_key(|hit| (hit.key, hit.position));
        Ok(hits)
    }
}

impl Reader {
    fn new(dictionary: &Dictionary, keys: &[u32], features: &[usize]) -> Result<Reader> {
        let whole = dictionary.needs_all();
        let encoder = if whole { dictionary.encoder()? } else { dictionary.select(features)? };
        let row = |(i, &feature): (usize, &usize)| if whole { feature as u32 } else { i as u32 };
        let keys = features.iter().enumerate().map(row).zip(keys.iter().copied()).collect();
        Ok(Reader { id: dictionary.id, keys, encoder })
    }

    fn score(&self, values: &[f32], hits: &mut Vec<Hit>) -> Result<()> {
        let d_in = self.encoder.w.dim(1)?;
        let x = Tensor::from_slice(values, (values.len() / d_in, d_in), &Device::Cpu)?;
        for (position, active) in self.encoder.active(&x)?.into_iter().enumerate() {
            let hit = |(row, activation): (u32, f32)| {
                self.keys.get(&row).map(|&key| Hit { key, position: position as u16, activation })
            };
            hits.extend(active.into_iter().filter_map(hit));
        }
        Ok(())
    }
}
