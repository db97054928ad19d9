//! The file formats of dictionaries (FORMATS.md 2–4), found by looking, checked before use.
//!
//! | found | is |
//! |---|---|
//! | `NAME.pt` beside `NAME_cfg.json` | an attention SAE as ckkissane's |
//! | `…blocks.L.ln2.hook_normalized….pt` | a transcoder as pchlenski's |
//! | a folder with `cfg.json` and `sae_weights.safetensors` | SAELens 6: standard, jumprelu, transcoder, jumprelu_transcoder |
//!
//! Pickles are parsed by candle's reader, which runs nothing. Anything not supported is refused by name.

use super::{Dictionary, Encoder};
use crate::error::{Hint, Result, hinted};
use crate::ids::{DictionaryId, Kind};
use crate::model::Sizes;
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor, pickle};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const DAMAGED: &str = "the file is missing, cut short, or not what its name says; copy it again";

/// A dictionary on disk, named but not yet read.
#[derive(Clone, Debug)]
pub struct Source {
    pub id: DictionaryId,
    /// The file that holds the weights.
    pub weights: PathBuf,
    /// The file beside it that describes it, where the format has one.
    pub config: Option<PathBuf>,
    format: Format,
}

#[derive(Clone, Debug)]
enum Format {
    AttentionPt,
    TranscoderPt,
    SaeLens { jump: bool, subtract_b_dec: bool },
}

/// Finds the dictionaries of one kind in a folder: exactly one for each layer of the model, in the order of layers. Only
/// `files` are looked at, which are names of files or folders in it; none: all.
///
/// # Errors
/// When the folder cannot be read, holds a format or hook that does not fit, or a layer has none or more than one.
pub fn find(folder: &Path, files: &[String], kind: Kind, layers: usize) -> Result<Vec<Source>> {
    let mut found: Vec<Source> = Vec::new();
    for path in entries(folder, files, kind)? {
        let Some(source) = look(&path, kind)? else { continue };
        let layer = source.id.layer;
        if layer >= layers {
            return Err(hinted(
                format!("`{}` is for layer {layer}, but the model has {layers} layers", path.display()),
                format!("`dictionaries.{}` must hold the dictionaries of this model", setting(kind)),
            ));
        }
        if let Some(other) = found.iter().find(|other| other.id.layer == layer) {
            return Err(hinted(
                format!("`{}` and `{}` are both for layer {layer}", other.weights.display(), path.display()),
                "keep one dictionary a layer in the folder; a file may carry the wrong layer in its config",
            ));
        }
        found.push(source);
    }
    found.sort_by_key(|source| source.id);
    if let Some(missing) = (0..layers).find(|l| !found.iter().any(|source| source.id.layer == *l)) {
        return Err(hinted(
            format!("`{}` has no {} dictionary for layer {missing}", folder.display(), kind.word()),
            format!("`dictionaries.{}` needs one for each of the model's {layers} layers", setting(kind)),
        ));
    }
    Ok(found)
}

fn setting(kind: Kind) -> &'static str {
    match kind {
        Kind::Attention => "attention",
        Kind::Mlp => "mlp",
    }
}

fn entries(folder: &Path, files: &[String], kind: Kind) -> Result<Vec<PathBuf>> {
    let what = || format!("cannot read the folder of dictionaries `{}`", folder.display());
    let hint = format!("set `dictionaries.{}` to a folder with one dictionary a layer", setting(kind));
    let read = std::fs::read_dir(folder).hint(what, &hint)?;
    let mut paths = read.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().hint(what, &hint)?;
    let is = |path: &Path, name: &String| path.file_name() == Some(std::ffi::OsStr::new(name));
    if let Some(missing) = files.iter().find(|name| !paths.iter().any(|path| is(path, name))) {
        return Err(hinted(
            format!("`{}` has no `{missing}`", folder.display()),
            format!("correct `dictionaries.{}_files`", setting(kind)),
        ));
    }
    paths.retain(|path| files.is_empty() || files.iter().any(|name| is(path, name)));
    paths.sort();
    Ok(paths)
}

/// What an entry of the folder is, or nothing if it is no dictionary.
fn look(path: &Path, kind: Kind) -> Result<Option<Source>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if path.join("cfg.json").is_file() {
        return saelens(path, kind).map(Some);
    }
    let Some(stem) = name.strip_suffix(".pt") else { return Ok(None) };
    let config = path.with_file_name(format!("{stem}_cfg.json"));
    if config.is_file() {
        return attention_pt(path, config, kind).map(Some);
    }
    if stem.ends_with("_log_feature_sparsity") {
        return Ok(None);
    }
    let Some((layer, hook)) = hook_in(stem) else {
        return Err(hinted(
            format!("`{}` is a dictionary of an unknown format", path.display()),
            "supported are ckkissane's SAEs (with `…_cfg.json`), pchlenski's transcoders and SAELens folders",
        ));
    };
    let id = checked_hook(path, kind, layer, &hook)?;
    Ok(Some(Source { id, weights: path.into(), config: None, format: Format::TranscoderPt }))
}

/// The layer and the rest of `blocks.L.REST` in a name.
fn hook_in(text: &str) -> Option<(usize, String)> {
    let (_, rest) = text.split_once("blocks.")?;
    let (layer, hook) = rest.split_once('.')?;
    Some((layer.parse().ok()?, hook.into()))
}

fn checked_hook(path: &Path, kind: Kind, layer: usize, hook: &str) -> Result<DictionaryId> {
    let id = DictionaryId { layer, kind };
    let given = format!("blocks.{layer}.{hook}");
    // A transcoder's file name goes on behind its hook with `_WIDTH`.
    let fits = given.strip_prefix(&id.hook()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    if fits {
        return Ok(id);
    }
    Err(hinted(
        format!("`{}` reads the hook `{given}`, not `{}`", path.display(), id.hook()),
        format!("`dictionaries.{}` must hold {}", setting(kind), wanted(kind)),
    ))
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Attention => "SAEs of `attn.hook_z`",
        Kind::Mlp => "transcoders from `ln2.hook_normalized` to `hook_mlp_out`",
    }
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .hint(|| format!("cannot read `{}`", path.display()), "check that the file is there and readable")?;
    serde_json::from_str(&text).hint(
        || format!("`{}` is not the config of a dictionary", path.display()),
        "it must be the config that was saved with the weights",
    )
}

#[derive(Deserialize)]
struct AttentionConfig {
    layer: usize,
    act_name: String,
}

fn attention_pt(path: &Path, config: PathBuf, kind: Kind) -> Result<Source> {
    let read: AttentionConfig = json(&config)?;
    let (layer, hook) = hook_in(&read.act_name).unwrap_or((read.layer, read.act_name.clone()));
    let id = checked_hook(path, kind, layer, &hook)?;
    // The name carries the layer too; files have been published under another layer's name.
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named = name.split('_').find_map(|part| part.strip_prefix('L')?.parse::<usize>().ok());
    if read.layer != layer || named.is_some_and(|named| named != layer) {
        return Err(hinted(
            format!(
                "`{}`: its name, its layer {} and its hook `{}` do not agree on the layer",
                path.display(),
                read.layer,
                read.act_name
            ),
            "this is the file of another layer; fetch the right one",
        ));
    }
    Ok(Source { id, weights: path.into(), config: Some(config), format: Format::AttentionPt })
}

#[derive(Deserialize)]
struct SaeLensConfig {
    architecture: String,
    #[serde(default = "yes")]
    apply_b_dec_to_input: bool,
    #[serde(default = "none")]
    normalize_activations: String,
    metadata: SaeLensMetadata,
}

#[derive(Deserialize)]
struct SaeLensMetadata {
    hook_name: String,
    hook_name_out: Option<String>,
}

fn yes() -> bool {
    true
}

fn none() -> String {
    "none".into()
}

fn saelens(folder: &Path, kind: Kind) -> Result<Source> {
    let config = folder.join("cfg.json");
    let read: SaeLensConfig = json(&config)?;
    let path = config.display();
    let refuse = |what: String| Err(hinted(format!("`{path}`: {what}"), "convert the dictionary, or use another"));
    let (jump, of) = match read.architecture.as_str() {
        "standard" => (false, Kind::Attention),
        "jumprelu" => (true, Kind::Attention),
        "transcoder" => (false, Kind::Mlp),
        "jumprelu_transcoder" => (true, Kind::Mlp),
        other => return refuse(format!("the architecture `{other}` is not supported")),
    };
    if of != kind {
        return refuse(format!("an architecture of `{}` is not one of {}", read.architecture, wanted(kind)));
    }
    if read.normalize_activations != "none" {
        return refuse(format!("normalize_activations `{}` is not supported", read.normalize_activations));
    }
    if kind == Kind::Mlp && read.apply_b_dec_to_input {
        return refuse("apply_b_dec_to_input must be false for a transcoder".into());
    }
    let Some((layer, hook)) = hook_in(&read.metadata.hook_name) else {
        return refuse(format!("the hook `{}` names no layer", read.metadata.hook_name));
    };
    let id = checked_hook(&config, kind, layer, &hook)?;
    if let (Kind::Mlp, Some(out)) = (kind, &read.metadata.hook_name_out)
        && *out != format!("blocks.{layer}.hook_mlp_out")
    {
        return refuse(format!("it writes to `{out}`, not to `blocks.{layer}.hook_mlp_out`"));
    }
    let format = Format::SaeLens { jump, subtract_b_dec: read.apply_b_dec_to_input };
    Ok(Source { id, weights: folder.join("sae_weights.safetensors"), config: Some(config), format })
}

/// Tensors of a dictionary's file, handed out in f32 with their shapes checked.
struct Weights<'a> {
    path: &'a Path,
    tensors: HashMap<String, Tensor>,
}

impl Weights<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let path = self.path.display();
        let Some(tensor) = self.tensors.get(name) else {
            return Err(hinted(
                format!("`{path}` has no tensor `{name}`"),
                "the file is not a dictionary of the format that its name and config promise",
            ));
        };
        if tensor.dims() != shape {
            return Err(hinted(
                format!("`{path}`: tensor `{name}` is {:?}, not {shape:?}", tensor.dims()),
                "the dictionary is of another model, another width or another hook",
            ));
        }
        let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
        if !tensor.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?.is_finite() {
            return Err(hinted(
                format!("`{path}`: tensor `{name}` has values that are not finite"),
                "the file is damaged; copy it again",
            ));
        }
        Ok(tensor)
    }

    /// The number of features, read off the encoder.
    fn width(&self) -> Result<usize> {
        let found = self.tensors.get("W_enc").and_then(|w| w.dims().get(1).copied());
        found.ok_or_else(|| {
            hinted(
                format!("`{}` has no matrix `W_enc`", self.path.display()),
                "the file is not a dictionary of the format that its name and config promise",
            )
        })
    }
}

impl Source {
    /// The number of features, from the file's header alone.
    pub fn width(&self) -> Result<usize> {
        let what = || format!("cannot read the dictionary `{}`", self.weights.display());
        let shape = match self.format {
            Format::SaeLens { .. } => {
                // SAFETY: the file is only read, and a change under way at worst gives a wrong shape.
                let file = unsafe { MmapedSafetensors::new(&self.weights) }.hint(what, DAMAGED)?;
                file.get("W_enc").hint(what, DAMAGED)?.shape().to_vec()
            }
            _ => {
                let key = matches!(self.format, Format::TranscoderPt).then_some("state_dict");
                let tensors = pickle::read_pth_tensor_info(&self.weights, false, key).hint(what, DAMAGED)?;
                let found = tensors.into_iter().find(|tensor| tensor.name == "W_enc");
                found.map(|tensor| tensor.layout.dims().to_vec()).unwrap_or_default()
            }
        };
        shape.get(1).copied().ok_or_else(|| hinted(what(), DAMAGED))
    }

    /// Reads and checks the dictionary.
    ///
    /// # Errors
    /// When a tensor is missing, of the wrong shape, or has values that are not finite.
    pub fn load(&self, sizes: &Sizes) -> Result<Dictionary> {
        let weights = Weights { path: &self.weights, tensors: self.tensors()? };
        let (d, f) = (sizes.d_model, weights.width()?);
        let w_enc = weights.get("W_enc", &[d, f])?;
        let b_dec = weights.get("b_dec", &[d])?;
        let (b_in, b_out) = match self.format {
            Format::AttentionPt => (b_dec.clone(), b_dec),
            Format::TranscoderPt => (b_dec, weights.get("b_dec_out", &[d])?),
            Format::SaeLens { subtract_b_dec: true, .. } => (b_dec.clone(), b_dec),
            Format::SaeLens { subtract_b_dec: false, .. } => (b_dec.zeros_like()?, b_dec),
        };
        let jump = matches!(self.format, Format::SaeLens { jump: true, .. });
        let limit = if jump { Some(weights.get("threshold", &[f])?.relu()?) } else { None };
        let bias = (weights.get("b_enc", &[f])? - b_in.unsqueeze(0)?.matmul(&w_enc)?.squeeze(0)?)?;
        let encoder = Encoder { w: w_enc, bias, limit };
        Ok(Dictionary { id: self.id, encoder, w_dec: weights.get("W_dec", &[f, d])?, b_out })
    }

    fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let what = || format!("cannot read the dictionary `{}`", self.weights.display());
        let hint = DAMAGED;
        let tensors = match self.format {
            // With no key the reader returns no tensors and no error.
            Format::TranscoderPt => pickle::read_all_with_key(&self.weights, Some("state_dict")).hint(what, hint)?,
            Format::AttentionPt => pickle::read_all(&self.weights).hint(what, hint)?,
            Format::SaeLens { .. } => {
                let read = candle_core::safetensors::load(&self.weights, &Device::Cpu).hint(what, hint)?;
                read.into_iter().collect()
            }
        };
        if tensors.is_empty() {
            return Err(hinted(format!("`{}` holds no tensors", self.weights.display()), hint));
        }
        Ok(tensors.into_iter().collect())
    }
}
