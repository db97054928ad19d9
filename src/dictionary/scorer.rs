//! Activations of chosen features of many dictionaries, at every token of a context: only their
//! rows of each encoder are read and multiplied.

use super::{Dictionary, Encoder};
use crate::error::{Context, Result, hinted};
use crate::ids::{DictionaryId, FeatureId};
use candle_core::{Device, Tensor};

/// The chosen features, by dictionary.
pub(crate) struct Scorer {
    readers: Vec<Reader>,
}

struct Reader {
    id: DictionaryId,
    /// By row of the encoder: the key, if it is of a chosen feature.
    keys: Vec<Option<u32>>,
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

/// Rows of an encoder at least, the chosen ones repeated: small products are summed in another
/// order, so that a feature's last bits would depend on how many others are scored with it.
const ROWS: usize = 65;

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
        let mut rows = features.to_vec();
        rows.extend(features.iter().cycle().take(ROWS.saturating_sub(features.len())));
        let encoder = if whole { dictionary.encoder()? } else { dictionary.select(&rows)? };
        let mut of = vec![None; encoder.width()];
        for (i, (&feature, &key)) in features.iter().zip(keys).enumerate() {
            of[if whole { feature } else { i }] = Some(key);
        }
        Ok(Reader { id: dictionary.id, keys: of, encoder })
    }

    fn score(&self, values: &[f32], hits: &mut Vec<Hit>) -> Result<()> {
        let d_in = self.encoder.w.dim(1)?;
        let x = Tensor::from_slice(values, (values.len() / d_in, d_in), &Device::Cpu)?;
        for (position, active) in self.encoder.active(&x)?.into_iter().enumerate() {
            let hit = |(row, activation): (u32, f32)| {
                self.keys[row as usize].map(|key| Hit {
                    key,
                    position: position as u16,
                    activation,
                })
            };
            hits.extend(active.into_iter().filter_map(hit));
        }
        Ok(())
    }
}
