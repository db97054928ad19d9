//! Activations of chosen features of many dictionaries, at every token of a context: only their columns of each encoder
//! are multiplied.

use super::{Dictionary, Encoder};
use crate::error::{Context, Result};
use crate::ids::{DictionaryId, FeatureId, Kind};
use crate::model::{Clean, Gpt2};
use candle_core::{Device, Tensor};

/// The chosen features, by dictionary.
pub struct Scorer {
    readers: Vec<Reader>,
}

struct Reader {
    id: DictionaryId,
    /// The key of each column.
    keys: Vec<u32>,
    encoder: Encoder,
}

/// A feature that is active at a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
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
pub fn read_hooks(model: &Gpt2, tokens: &[u32], hooks: &[DictionaryId]) -> Result<Hooks> {
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
    /// `features` in order, their places being their keys; `load` gives each dictionary once.
    pub fn new(features: &[FeatureId], mut load: impl FnMut(DictionaryId) -> Result<Dictionary>) -> Result<Scorer> {
        let mut readers = Vec::new();
        for id in hooks(features) {
            let chosen = || (0u32..).zip(features).filter(move |(_, feature)| feature.dictionary == id);
            let columns: Vec<usize> = chosen().map(|(_, feature)| feature.index).collect();
            let encoder = load(id)?.encoder.select(&columns)?;
            readers.push(Reader { id, keys: chosen().map(|(key, _)| key).collect(), encoder });
        }
        Ok(Scorer { readers })
    }

    /// The dictionaries that are read, in order.
    pub fn hooks(&self) -> Vec<DictionaryId> {
        self.readers.iter().map(|reader| reader.id).collect()
    }

    /// Every activation of a context that is not zero, by key and position.
    pub fn score(&self, hooks: &Hooks) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        for (reader, values) in self.readers.iter().zip(hooks) {
            reader.score(values, &mut hits).with_context(|| format!("scoring the features of `{}`", reader.id))?;
        }
        hits.sort_unstable_by_key(|hit| (hit.key, hit.position));
        Ok(hits)
    }
}

impl Reader {
    fn score(&self, values: &[f32], hits: &mut Vec<Hit>) -> Result<()> {
        let d_in = self.encoder.w.dim(0)?;
        let x = Tensor::from_slice(values, (values.len() / d_in, d_in), &Device::Cpu)?;
        for (position, active) in self.encoder.active(&x)?.into_iter().enumerate() {
            let hit = |(column, activation): (u32, f32)| Hit {
                key: self.keys[column as usize],
                position: position as u16,
                activation,
            };
            hits.extend(active.into_iter().map(hit));
        }
        Ok(())
    }
}
