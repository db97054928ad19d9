//! The file formats of dictionaries (`docs/formats.md` §3), found by looking, checked before use.
//!
//! | found | is |
//! |---|---|
//! | `NAME.pt` beside `NAME_cfg.json` | an attention SAE as ckkissane's |
//! | `…blocks.L.ln2.hook_normalized….pt` | a transcoder as pchlenski's |
//! | a folder with `cfg.json` and `sae_weights.safetensors` | SAELens, before 6.0 and since (see `saelens`) |
//!
//! Pickles are parsed by candle's reader, which runs nothing. Anything not supported is refused by
//! name.

mod saelens;

use super::{Encoder, Rule};
use crate::error::{Hint, Result, hinted};
use crate::ids::{DictionaryId, Kind};
use candle_core::pickle::{self, Object, PthTensors};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use saelens::SaeLens;
use serde::Deserialize;
use std::path::{Path, PathBuf};

const DAMAGED: &str = "the file is missing, truncated or of another format than its name says; \
     copy it again";

/// A dictionary on disk, named but not yet read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Which dictionary it is.
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
    SaeLens(SaeLens),
}

/// A dictionary read into memory, in one form whatever its format.
pub struct Whole {
    /// The encoder, of all features.
    pub encoder: Encoder,
    /// What is subtracted from the input, `[d_in]`; the encoder's bias has it in it.
    pub b_in: Tensor,
    /// `[F, d_out]`
    pub w_dec: Tensor,
    /// What is added to the reconstruction, `[d_out]`
    pub b_out: Tensor,
}

/// Finds the dictionaries of one kind in a folder: exactly one for each layer of the model, in the
/// order of layers. Only `files` are looked at, which are names of files or folders in it; none:
/// all.
///
/// # Errors
/// When the folder cannot be read, holds a format or hook that does not fit, or a layer has none or
/// more than one.
pub fn find(folder: &Path, files: &[String], kind: Kind, layers: usize) -> Result<Vec<Source>> {
    let mut found: Vec<Source> = Vec::new();
    for path in entries(folder, files, kind)? {
        let Some(source) = look(&path, kind)? else { continue };
        let layer = source.id.layer;
        if layer >= layers {
            return Err(hinted(
                format!(
                    "`{}` is for layer {layer}, but the model has {layers} layers",
                    path.display()
                ),
                format!(
                    "`dictionaries.{}` must hold the dictionaries of this model",
                    setting(kind)
                ),
            ));
        }
        if let Some(other) = found.iter().find(|other| other.id.layer == layer) {
            return Err(hinted(
                format!(
                    "`{}` and `{}` are both for layer {layer}",
                    other.weights.display(),
                    path.display()
                ),
                "keep one dictionary per layer in the folder; check the layer in each config",
            ));
        }
        found.push(source);
    }
    found.sort_by_key(|source| source.id);
    if let Some(missing) = (0..layers).find(|l| !found.iter().any(|source| source.id.layer == *l)) {
        return Err(hinted(
            format!("`{}` has no {} dictionary for layer {missing}", folder.display(), kind.word()),
            format!(
                "`dictionaries.{}` needs one for each of the model's {layers} layers",
                setting(kind)
            ),
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
    let hint =
        format!("set `dictionaries.{}` to a folder with one dictionary per layer", setting(kind));
    let read = std::fs::read_dir(folder).hint(what, &hint)?;
    let mut paths = read
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .hint(what, &hint)?;
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
        return saelens::look(path, kind).map(Some);
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
            "supported are ckkissane's SAEs (with `…_cfg.json`), pchlenski's transcoders and \
             SAELens folders",
        ));
    };
    let id = checked_hook(path, kind, layer, &hook)?;
    if let Some(inside) = pickled_hook(path).filter(|inside| *inside != id.hook()) {
        return Err(hinted(
            format!(
                "`{}` was saved as a dictionary of `{inside}`, not of the hook in its file name",
                path.display()
            ),
            "this is the file of another layer or hook; download the right one",
        ));
    }
    Ok(Some(Source { id, weights: path.into(), config: None, format: Format::TranscoderPt }))
}

/// The hook that the config pickled with the weights names, where there is one. The class that it
/// is an object of need not exist: nothing is made of it, its fields are only looked at.
fn pickled_hook(path: &Path) -> Option<String> {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(path).ok()?).ok()?;
    let names: Vec<String> =
        zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let entry = zip.by_name(names.iter().find(|name| name.ends_with("data.pkl"))?).ok()?;
    let mut stack = pickle::Stack::empty();
    stack.read_loop(&mut std::io::BufReader::new(entry)).ok()?;
    hook_point(&stack.finalize().ok()?)
}

/// The value of the first `hook_point` in pickled objects.
fn hook_point(object: &Object) -> Option<String> {
    match object {
        Object::Dict(pairs) => pairs.iter().find_map(|pair| match pair {
            (Object::Unicode(key), Object::Unicode(value)) if key == "hook_point" => {
                Some(value.clone())
            }
            (_, value) => hook_point(value),
        }),
        Object::Build { callable, args } | Object::Reduce { callable, args } => {
            hook_point(callable).or_else(|| hook_point(args))
        }
        Object::Tuple(items) | Object::List(items) => items.iter().find_map(hook_point),
        _ => None,
    }
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
    let fits =
        given.strip_prefix(&id.hook()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
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
    let text = std::fs::read_to_string(path).hint(
        || format!("cannot read `{}`", path.display()),
        "check that the file exists and is readable",
    )?;
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
            "this is the file of another layer; download the right one",
        ));
    }
    Ok(Source { id, weights: path.into(), config: Some(config), format: Format::AttentionPt })
}

/// The tensors of a dictionary's file, read one at a time, in f32 and with their shapes checked.
struct Weights<'a> {
    path: &'a Path,
    file: File,
}

enum File {
    Safetensors(MmapedSafetensors),
    Pickle(PthTensors),
}

impl Weights<'_> {
    fn open<'a>(path: &'a Path, format: &Format) -> Result<Weights<'a>> {
        let what = || format!("cannot read the dictionary `{}`", path.display());
        let file = match format {
            // SAFETY: the file is only read, and a change under way at worst gives wrong numbers.
            Format::SaeLens(_) => {
                File::Safetensors(unsafe { MmapedSafetensors::new(path) }.hint(what, DAMAGED)?)
            }
            Format::AttentionPt => File::Pickle(PthTensors::new(path, None).hint(what, DAMAGED)?),
            // With no key the reader returns no tensors and no error.
            Format::TranscoderPt => {
                File::Pickle(PthTensors::new(path, Some("state_dict")).hint(what, DAMAGED)?)
            }
        };
        let weights = Weights { path, file };
        if weights.names().is_empty() {
            return Err(hinted(format!("`{}` has no tensors", path.display()), DAMAGED));
        }
        Ok(weights)
    }

    fn names(&self) -> Vec<String> {
        match &self.file {
            File::Safetensors(file) => file.tensors().into_iter().map(|(name, _)| name).collect(),
            File::Pickle(file) => file.tensor_infos().keys().cloned().collect(),
        }
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.file {
            File::Safetensors(file) => Some(file.get(name).ok()?.shape().to_vec()),
            File::Pickle(file) => Some(file.tensor_infos().get(name)?.layout.dims().to_vec()),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Tensor>> {
        match &self.file {
            File::Safetensors(file) => Ok(Some(file.load(name, &Device::Cpu)?)),
            File::Pickle(file) => Ok(file.get(name)?),
        }
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let path = self.path.display();
        let Some(found) = self.shape(name) else {
            return Err(hinted(
                format!("`{path}` has no tensor `{name}`"),
                "the file does not have the format that its name and config say",
            ));
        };
        if found == shape { Ok(()) } else { Err(wrong_shape(self.path, name, &found, shape)) }
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.check(name, shape)?;
        let path = self.path.display();
        let what = || format!("cannot read tensor `{name}` of `{path}`");
        let tensor = self.read(name).hint(what, DAMAGED)?.ok_or_else(|| hinted(what(), DAMAGED))?;
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

    /// The number of features, read off the encoder.
    fn width(&self) -> Result<usize> {
        let found = self.shape("W_enc").and_then(|shape| shape.get(1).copied());
        found.ok_or_else(|| {
            hinted(
                format!("`{}` has no matrix `W_enc`", self.path.display()),
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

impl Source {
    /// The number of features, from the file's header alone.
    pub fn width(&self) -> Result<usize> {
        Weights::open(&self.weights, &self.format)?.width()
    }

    /// Reads and checks the dictionary.
    ///
    /// # Errors
    /// When a tensor is missing, of the wrong shape, or has values that are not finite.
    pub fn read(&self, d_model: usize) -> Result<Whole> {
        let weights = Weights::open(&self.weights, &self.format)?;
        let (d, f) = (d_model, weights.width()?);
        // First, as its shape says most: of another model, another hook.
        weights.check("W_enc", &[d, f])?;
        let b_dec = weights.get("b_dec", &[d])?;
        let (b_in, b_out) = match &self.format {
            Format::AttentionPt => (b_dec.clone(), b_dec),
            Format::TranscoderPt => (b_dec, weights.get("b_dec_out", &[d])?),
            Format::SaeLens(read) if read.subtract_b_dec => (b_dec.clone(), b_dec),
            Format::SaeLens(_) => (b_dec.zeros_like()?, b_dec),
        };
        let w_dec = weights.get("W_dec", &[f, d])?;
        let w_enc = weights.get("W_enc", &[d, f])?;
        let shift = b_in.unsqueeze(0)?.matmul(&w_enc)?.squeeze(0)?;
        let w = w_enc.t()?.contiguous()?;
        drop(w_enc);
        if let Format::SaeLens(read) = &self.format {
            return read.finish(
                &weights,
                Whole {
                    encoder: Encoder { w, bias: shift.neg()?, rule: Rule::Relu },
                    b_in,
                    w_dec,
                    b_out,
                },
            );
        }
        let bias = (weights.get("b_enc", &[f])? - shift)?;
        Ok(Whole { encoder: Encoder { w, bias, rule: Rule::Relu }, b_in, w_dec, b_out })
    }
}
