//! Other readings of a model's files: the ways in which people have gone wrong without an error, as
//! every shape fits. A model as it was trained has the lowest loss as its files say.

use super::checkpoint::Checkpoint;
use super::gpt2::Gpt2;
use crate::error::Result;
use candle_core::DType;
use std::fmt;
use std::path::Path;

/// Another reading of the files of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Another number of heads: the matrices are the same.
    Heads(usize),
    /// Attention's `c_proj`, which is square, transposed: of one layer, or of all.
    Transposed(Option<usize>),
}

/// Widths of a head that a model might have.
const WIDTHS: std::ops::RangeInclusive<usize> = 8..=256;

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Reading::Heads(heads) => write!(f, "n_head {heads}"),
            Reading::Transposed(Some(layer)) => write!(f, "h.{layer}.attn.c_proj transposed"),
            Reading::Transposed(None) => write!(f, "attn.c_proj of all layers transposed"),
        }
    }
}

impl Reading {
    /// What to do where it is the right one.
    pub(super) fn hint(self) -> String {
        match self {
            Reading::Heads(heads) => format!(
                "`n_head` of `config.json` seems to be wrong: set it to that of the training, \
                 probably {heads}"
            ),
            Reading::Transposed(_) => {
                "GPT-2's files have weights as [inputs, outputs] (`Conv1D`), \
                PyTorch's `Linear` as [outputs, inputs]: convert the weights again"
                    .into()
            }
        }
    }
}

impl Gpt2 {
    /// The other readings that this model's sizes allow.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let s = self.sizes;
        let fits = |heads: &usize| {
            s.d_model.is_multiple_of(*heads)
                && WIDTHS.contains(&(s.d_model / heads))
                && *heads != s.heads
        };
        let heads = (1..=s.d_model).filter(fits).map(Reading::Heads);
        let one = (0..s.layers).map(|layer| Reading::Transposed(Some(layer)));
        heads.chain([Reading::Transposed(None)]).chain(one).collect()
    }

    /// This model, of the files in `folder`, read in another way; what is the same is shared.
    pub(super) fn read_as(&self, folder: &Path, reading: Reading) -> Result<Gpt2> {
        let mut model = self.in_dtype(DType::F32)?;
        match reading {
            Reading::Heads(heads) => {
                model.sizes.heads = heads;
                model.sizes.d_head = self.sizes.d_model / heads;
            }
            Reading::Transposed(which) => {
                let file = Checkpoint::open(folder)?;
                for l in (0..self.sizes.layers).filter(|l| which.is_none_or(|layer| layer == *l)) {
                    model.layers[l] = self.layers[l].transposed(&file, l)?;
                }
            }
        }
        Ok(model)
    }
}
