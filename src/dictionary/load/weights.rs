//! The tensors of a dictionary's file: each read by name with its shape checked, and none left over.

use super::Format;
use crate::error::{Hint, Result, caught, hinted};
use crate::model::pickle::Pickled;
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use std::path::Path;

const DAMAGED: &str = "the file is missing, truncated or of another format than its name says; \
     copy it again";

/// The tensors of a dictionary's file, read one at a time, in f32 and with their shapes checked.
pub(super) struct Weights<'a> {
    path: &'a Path,
    file: File,
    /// The tensor that reads, and which of its axes the features are on.
    encoder: &'static str,
    axis: usize,
}

enum File {
    Safetensors(MmapedSafetensors),
    Pickle(Pickled),
}

impl Weights<'_> {
    pub(super) fn open<'a>(path: &'a Path, format: &Format) -> Result<Weights<'a>> {
        let what = || format!("cannot read the dictionary `{}`", path.display());
        let file = match format {
            // SAFETY: the file is only read, and a change under way at worst gives wrong numbers.
            Format::SaeLens(_) | Format::Rows(_) => {
                let mapped = || unsafe { MmapedSafetensors::new(path) };
                File::Safetensors(caught(mapped).hint(what, DAMAGED)?)
            }
            Format::AttentionPt => File::Pickle(Pickled::open(path, None).hint(what, DAMAGED)?),
            // With no key the reader returns no tensors and no error.
            Format::TranscoderPt => {
                File::Pickle(Pickled::open(path, Some("state_dict")).hint(what, DAMAGED)?)
            }
        };
        let (encoder, axis) = match format {
            Format::Rows(rows) => (rows.encoder(), 0),
            _ => ("W_enc", 1),
        };
        let weights = Weights { path, file, encoder, axis };
        if weights.names().is_empty() {
            return Err(hinted(format!("`{}` has no tensors", path.display()), DAMAGED));
        }
        Ok(weights)
    }

    fn names(&self) -> Vec<String> {
        match &self.file {
            File::Safetensors(file) => file.tensors().into_iter().map(|(name, _)| name).collect(),
            File::Pickle(file) => file.shapes().map(|(name, _)| name.clone()).collect(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.file {
            File::Safetensors(file) => Some(file.get(name).ok()?.shape().to_vec()),
            File::Pickle(file) => Some(file.shape(name)?.to_vec()),
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<Tensor> {
        match &self.file {
            File::Safetensors(file) => caught(|| file.load(name, &Device::Cpu)),
            File::Pickle(file) => file.load(name),
        }
    }

    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let path = self.path.display();
        let Some(found) = self.shape(name) else {
            return Err(hinted(
                format!("`{path}` has no tensor `{name}`"),
                "the file does not have the format that its name and config say",
            ));
        };
        if found == shape { Ok(()) } else { Err(wrong_shape(self.path, name, &found, shape)) }
    }

    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.check(name, shape)?;
        let path = self.path.display();
        let what = || format!("cannot read tensor `{name}` of `{path}`");
        let tensor = self.read(name).hint(what, DAMAGED)?;
        let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
        // A NaN or an infinity anywhere makes the sum one.
        if !tensor.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Err(hinted(
                format!("`{path}`: tensor `{name}` has values that are not finite"),
                "the file is damaged; copy it again",
            ));
        }
        Ok(tensor)
    }

    /// All of the file's tensors are used.
    pub(super) fn check_names(&self, format: &Format) -> Result<()> {
        let shared = ["W_enc", "W_dec", "b_dec"];
        let all = match format {
            Format::AttentionPt => [&shared, &["b_enc"][..]].concat(),
            Format::TranscoderPt => [&shared, &["b_enc", "b_dec_out"][..]].concat(),
            Format::SaeLens(read) => [&shared, read.tensors()].concat(),
            Format::Rows(read) => read.tensors(),
        };
        let mut others: Vec<String> =
            self.names().into_iter().filter(|name| !all.contains(&name.as_str())).collect();
        others.sort();
        let path = self.path.display();
        for name in others {
            // Old versions of SAELens save one of ones, which does nothing.
            if name == "scaling_factor" {
                let values = self.get(&name, &self.shape(&name).unwrap_or_default())?;
                let far = values.flatten_all()?.to_vec1::<f32>()?;
                if far.iter().all(|x| (x - 1.0).abs() < 1e-6) {
                    continue;
                }
                return Err(hinted(
                    format!("`{path}`: tensor `{name}` is not all ones, which is not supported"),
                    "multiply the rows of `W_dec` by it and remove it",
                ));
            }
            return Err(hinted(
                format!("`{path}` has a tensor `{name}`, which its architecture does not use"),
                "correct the architecture in its config; remove the tensor if it does nothing",
            ));
        }
        Ok(())
    }

    /// The number of features, read off the encoder.
    pub(super) fn width(&self) -> Result<usize> {
        let found = self.shape(self.encoder).and_then(|shape| shape.get(self.axis).copied());
        found.ok_or_else(|| {
            hinted(
                format!("`{}` has no matrix `{}`", self.path.display(), self.encoder),
                "the file does not have the format that its name and config say",
            )
        })
    }
}

fn wrong_shape(path: &Path, name: &str, found: &[usize], wanted: &[usize]) -> anyhow::Error {
    let what = format!("`{}`: tensor `{name}` is {found:?}, not {wanted:?}", path.display());
    let turned: Vec<usize> = found.iter().rev().copied().collect();
    if found.len() == 2 && turned == wanted {
        return hinted(what, format!("it is transposed: save `{name}` transposed"));
    }
    hinted(what, "the dictionary is for another model, width or hook")
}
