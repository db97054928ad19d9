//! The weights of a Hugging Face folder, one tensor at a time, whichever file and precision they
//! lie in.
//!
//! Knows names, shapes and files, not what the tensors are for. A pickle is parsed; nothing in it
//! is ever run.

use super::pickle::Pickled;
use crate::error::{Hint, Result, caught, hinted};
use candle_core::safetensors::{Load, MmapedSafetensors};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What to do about a folder that is not one of a model.
pub const FOLDER: &str = "`model.path` must be a folder with `config.json`, `tokenizer.json` and \
    the weights, \
                          `model.safetensors` or `pytorch_model.bin`";

/// The files that weights may lie in, the better one first.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Rows of a large matrix that are held in f64 at once.
const BLOCK: usize = 2048;

/// How a checkpoint in several files says which tensor is in which of them.
const INDEX: &str = ".index.json";

/// The files of a model's folder that have its weights: `model.safetensors`; or its index and the
/// files that it names; or else `pytorch_model.bin`.
///
/// # Errors
/// When there are none of these, only a pickled checkpoint in several files, or one of the files is
/// missing.
pub fn weights(folder: &Path) -> Result<Vec<PathBuf>> {
    let [safetensors, pickle] = FILES.map(|name| folder.join(name));
    let [index, pickled_index] = FILES.map(|name| folder.join(format!("{name}{INDEX}")));
    if safetensors.exists() {
        return Ok(vec![safetensors]);
    }
    if index.exists() {
        return shards(folder, index);
    }
    if pickle.exists() {
        return Ok(vec![pickle]);
    }
    if pickled_index.exists() {
        return Err(hinted(
            format!(
                "`{}` belongs to a pickled checkpoint in several files, which cannot be read",
                pickled_index.display()
            ),
            format!("save it as `model.safetensors`: {}", save_again(folder)),
        ));
    }
    Err(hinted(
        format!("`{}` has neither `{}` nor `{}`", folder.display(), FILES[0], FILES[1]),
        FOLDER,
    ))
}

/// The command that saves a model as one `model.safetensors`.
fn save_again(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "`python -c \"from transformers import GPT2LMHeadModel as M; \
         M.from_pretrained('{folder}').save_pretrained('{folder}', max_shard_size='100GB')\"`"
    )
}

#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// An index and the files that it names.
fn shards(folder: &Path, index: PathBuf) -> Result<Vec<PathBuf>> {
    let again = format!("copy the model's files again, or save it anew: {}", save_again(folder));
    let what = || format!("`{}` is not the index of a checkpoint", index.display());
    let text = std::fs::read_to_string(&index).hint(what, &again)?;
    let read: Index = serde_json::from_str(&text).hint(what, &again)?;
    let names: BTreeSet<&String> = read.weight_map.values().collect();
    // Names of files beside it, not paths to elsewhere.
    let odd = |name: &&&String| {
        Path::new(name.as_str()).file_name() != Some(std::ffi::OsStr::new(name.as_str()))
    };
    if let Some(odd) = names.iter().find(odd) {
        return Err(hinted(
            format!("`{}` names `{odd}`, which is not a file beside it", index.display()),
            again,
        ));
    }
    let files: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    match files.iter().find(|file| !file.is_file()) {
        _ if files.is_empty() => Err(hinted(format!("`{}` names no file", index.display()), again)),
        Some(missing) => Err(hinted(
            format!("`{}` names `{}`, which is missing", index.display(), missing.display()),
            again,
        )),
        None => Ok([vec![index], files].concat()),
    }
}

/// An open file of weights.
pub(super) struct Checkpoint {
    path: PathBuf,
    file: File,
    /// By the name without `transformer.`: the name in the file, and the shape.
    tensors: BTreeMap<String, (String, Vec<usize>)>,
}

enum File {
    Safetensors(MmapedSafetensors),
    Pickle(Pickled),
}

impl File {
    fn open(files: &[PathBuf]) -> Result<File> {
        // Of a checkpoint in several files the first is the index.
        let (path, shards) = match files {
            [path] => (path, files),
            [index, shards @ ..] => (index, shards),
            [] => anyhow::bail!("there is no file"),
        };
        if path.extension().is_some_and(|extension| extension == "bin") {
            return Ok(File::Pickle(Pickled::open(path, None)?));
        }
        // SAFETY: the file is only read, each tensor copied before it is used; a change under way
        // at worst gives wrong numbers, and the hash that is taken of the file tells.
        let mapped = || match shards {
            [one] => unsafe { MmapedSafetensors::new(one) },
            several => unsafe { MmapedSafetensors::multi(several) },
        };
        Ok(File::Safetensors(caught(mapped)?))
    }

    /// What to do when it cannot be read.
    fn hint(path: &Path) -> &'static str {
        if path.extension().is_some_and(|extension| extension == "bin") {
            "the file is missing, truncated or older than PyTorch 1.6; copy it again, or save the \
             model as `model.safetensors`: load it in transformers and call `save_pretrained`"
        } else {
            "the file is missing, truncated or not safetensors; copy it again"
        }
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            File::Safetensors(file) => file
                .tensors()
                .into_iter()
                .map(|(name, view)| (name, view.shape().to_vec()))
                .collect(),
            File::Pickle(file) => {
                file.shapes().map(|(name, shape)| (name.clone(), shape.to_vec())).collect()
            }
        }
    }

    fn load(&self, name: &str) -> Result<Tensor> {
        match self {
            File::Safetensors(file) => caught(|| file.get(name)?.load(&Device::Cpu)),
            File::Pickle(file) => file.load(name),
        }
    }
}

impl Checkpoint {
    /// Opens the weights of a model's folder; no tensor is read yet.
    pub(super) fn open(folder: &Path) -> Result<Checkpoint> {
        let files = weights(folder)?;
        let path = files[0].clone();
        let what = || format!("cannot read the weights `{}`", path.display());
        let file = File::open(&files).hint(what, File::hint(&path))?;
        let bare = |name: &str| name.strip_prefix("transformer.").unwrap_or(name).to_string();
        let tensors =
            file.shapes().into_iter().map(|(name, shape)| (bare(&name), (name, shape))).collect();
        Ok(Checkpoint { path, file, tensors })
    }

    /// A tensor in f64.
    ///
    /// # Errors
    /// When it is missing, of another shape, of whole numbers, or has values that are not finite.
    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(self.stored(name, shape)?.to_dtype(DType::F64)?)
    }

    /// A tensor in the precision of the file, for [`blocks`].
    pub(super) fn stored(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let path = self.path.display();
        let Some((in_file, found)) = self.tensors.get(name) else {
            return Err(hinted(
                format!("`{path}` has no tensor `{name}`"),
                "the weights must be those of a Hugging Face GPT-2",
            ));
        };
        if found != shape {
            let hint = if found.iter().rev().eq(shape) {
                "it is transposed: GPT-2's files have weights as [inputs, outputs] (`Conv1D`), \
                 PyTorch's `Linear` as [outputs, inputs]"
            } else {
                "`config.json` and the weights belong to different models"
            };
            return Err(hinted(
                format!("`{path}`: tensor `{name}` is {found:?}, not {shape:?}"),
                hint,
            ));
        }
        let what = || format!("cannot read the tensor `{name}` of the weights `{path}`");
        let tensor = self.file.load(in_file).hint(what, File::hint(&self.path))?;
        self.check_values(name, &tensor)?;
        Ok(tensor)
    }

    fn check_values(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let path = self.path.display();
        if !tensor.dtype().is_float() {
            return Err(hinted(
                format!(
                    "`{path}`: tensor `{name}` is of {}, not of floating-point numbers",
                    tensor.dtype().as_str()
                ),
                "quantised weights are not supported; use the model in f32, f16 or bf16",
            ));
        }
        for block in blocks(tensor) {
            // A NaN or an infinity anywhere makes the sum one.
            if !block?.sum_all()?.to_scalar::<f64>()?.is_finite() {
                return Err(hinted(
                    format!("`{path}`: tensor `{name}` has values that are not finite"),
                    "the file is damaged; copy it again",
                ));
            }
        }
        Ok(())
    }

    /// The embedding, which is also the unembedding: `wte.weight`, or where the weights are tied and
    /// were saved once, `lm_head.weight`.
    ///
    /// # Errors
    /// When they are not tied: another unembedding is another model.
    pub(super) fn embedding(&self, shape: &[usize], tied: bool) -> Result<Tensor> {
        let has = |name| self.tensors.contains_key(name);
        if tied && !has("wte.weight") && has("lm_head.weight") {
            return self.stored("lm_head.weight", shape);
        }
        let embedding = self.stored("wte.weight", shape)?;
        if !tied && !has("lm_head.weight") {
            return Err(hinted(
                format!(
                    "`{}` has no tensor `lm_head.weight`, but `config.json` has \
                     `tie_word_embeddings` false",
                    self.path.display()
                ),
                "save the model with its head; if its embeddings are tied, set \
                 `tie_word_embeddings` to true",
            ));
        }
        self.check_tied(&embedding)?;
        Ok(embedding)
    }

    /// A file may repeat the embedding as `lm_head.weight`; another matrix there is another model.
    fn check_tied(&self, embedding: &Tensor) -> Result<()> {
        if !self.tensors.contains_key("lm_head.weight") {
            return Ok(());
        }
        let head = self.stored("lm_head.weight", embedding.dims())?;
        for (a, b) in blocks(embedding).zip(blocks(&head)) {
            if (a? - b?)?.abs()?.max_all()?.to_scalar::<f64>()? > 0.0 {
                return Err(hinted(
                    format!(
                        "`{}`: `lm_head.weight` is not the embedding `wte.weight`",
                        self.path.display()
                    ),
                    "only models with tied embeddings are supported, as in every released GPT-2",
                ));
            }
        }
        Ok(())
    }

    /// Learned numbers in the file: all but mask buffers and a repeated embedding.
    pub(super) fn parameters(&self) -> usize {
        let repeated = self.tensors.contains_key("wte.weight");
        let learned = |name: &str| {
            let mask = name.ends_with(".attn.bias") || name.ends_with("masked_bias");
            let again = repeated && name == "lm_head.weight";
            !mask && !again
        };
        let tensors = self.tensors.iter().filter(|(name, _)| learned(name));
        let size = |shape: &[usize]| shape.iter().fold(1_usize, |n, d| n.saturating_mul(*d));
        tensors.fold(0, |n: usize, (_, (_, shape))| n.saturating_add(size(shape)))
    }
}

/// The rows of a stored tensor in f64, a block at a time: a large matrix is never held in f64 as a
/// whole.
pub(super) fn blocks(stored: &Tensor) -> impl Iterator<Item = Result<Tensor>> {
    let rows = stored.dims().first().copied().unwrap_or(1);
    (0..rows).step_by(BLOCK).map(move |start| {
        let block = if stored.rank() == 0 {
            stored.clone()
        } else {
            stored.narrow(0, start, BLOCK.min(rows - start))?
        };
        Ok(block.to_dtype(DType::F64)?)
    })
}
