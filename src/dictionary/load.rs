//! The file formats of dictionaries (`docs/formats.md` §3), found by looking, checked before use.
//!
//! | found | is |
//! |---|---|
//! | `NAME.pt` beside `NAME_cfg.json` | an attention SAE as ckkissane's |
//! | `…blocks.L.ln2.hook_normalized….pt` | a transcoder as pchlenski's |
//! | a folder with `cfg.json` and `sae_weights.safetensors` | SAELens, before 6.0 and since (see `saelens`) |
//! | a folder with `cfg.json` and `sae.safetensors` | a transcoder of sparsify (see `rows`) |
//! | `layer_N.safetensors` beside `config.yaml` | a transcoder as circuit-tracer has them (see `rows`) |
//!
//! Pickles are parsed by candle's reader, which runs nothing. Anything not supported is refused by
//! name.

mod pickled;
mod rows;
mod saelens;
mod stated;
mod weights;

use super::{Encoder, Rule};
use crate::error::{Hint, Result, hinted};
use crate::ids::{DictionaryId, Kind};
use crate::text_file;
use candle_core::Tensor;
use rows::Rows;
use saelens::SaeLens;
use serde::Deserialize;
use serde_json::Value;
use stated::Stated;
use std::path::{Path, PathBuf};
use weights::Weights;

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
    stated: Stated,
    /// What its config says that is not as it is used here.
    pub(super) notes: Vec<String>,
    /// Gain and bias of the LayerNorm in front of it, where it is one of the model as it is in its
    /// files.
    norm: Option<(Tensor, Tensor)>,
}

#[derive(Clone, Debug)]
enum Format {
    AttentionPt,
    TranscoderPt,
    SaeLens(SaeLens),
    Rows(Rows),
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
    let mut passed_over = Vec::new();
    for path in entries(folder, files, kind)? {
        let Some(source) = look(&path, kind)? else {
            passed_over.extend(weights_in(&path));
            continue;
        };
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
            format!(
                "`{}` has no {} dictionary for layer {missing}{}",
                folder.display(),
                kind.word(),
                others(&passed_over)
            ),
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

/// The name of an entry that is passed over and has weights, or in which there is a file that has.
fn weights_in(path: &Path) -> Option<String> {
    let has = |path: &Path| {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        ["safetensors", "npz", "bin", "pth", "pt", "ckpt"].contains(&ending.as_str())
            && !path.to_string_lossy().ends_with("_log_feature_sparsity.pt")
    };
    let name = path.file_name()?.to_string_lossy().into_owned();
    if !path.is_dir() {
        return has(path).then_some(name);
    }
    let mut inside: Vec<PathBuf> =
        std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).collect();
    inside.sort();
    let file = inside.into_iter().find(|path| has(path))?;
    Some(format!("{name}/{}", file.file_name()?.to_string_lossy()))
}

/// What is said of entries that have weights and are no dictionaries that can be read.
fn others(passed_over: &[String]) -> String {
    match passed_over {
        [] => String::new(),
        [one] => format!("; found `{one}`, which is not supported"),
        [first, rest @ ..] => {
            format!("; found `{first}` and {} more, which are not supported", rest.len())
        }
    }
}

/// What an entry of the folder is, or nothing if it is no dictionary.
fn look(path: &Path, kind: Kind) -> Result<Option<Source>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let config = path.with_file_name("config.yaml");
    if let Some(layer) = rows::tracer_layer(&name).filter(|_| config.is_file()) {
        return rows::tracer(path, &config, layer, kind).map(Some);
    }
    let has = |file: &str| path.join(file).is_file();
    if has("cfg.json") && has("sae.safetensors") && !has("sae_weights.safetensors") {
        return rows::sparsify(path, kind).map(Some);
    }
    if has("cfg.json") {
        return saelens::look(path, kind).map(Some);
    }
    if has("ae.pt") || name == "ae.pt" {
        let folder = if has("ae.pt") { path } else { path.parent().unwrap_or(path) };
        return Err(dictionary_learning(folder));
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
    let (inside, stated) = pickled::config(path);
    if let Some(inside) = inside.filter(|inside| *inside != id.hook()) {
        return Err(hinted(
            format!(
                "`{}` was saved as a dictionary of `{inside}`, not of the hook in its file name",
                path.display()
            ),
            "this is the file of another layer or hook; download the right one",
        ));
    }
    Source::new(id, path, None, Format::TranscoderPt, stated).map(Some)
}

/// What is said of a folder of `dictionary_learning`: `ae.pt`, and `config.json` that says what it
/// is.
fn dictionary_learning(folder: &Path) -> anyhow::Error {
    let said = json::<Value>(&folder.join("config.json")).unwrap_or_default();
    let trainer = &said["trainer"];
    let class = trainer["dict_class"].as_str().unwrap_or("of an unknown class");
    let layer = trainer["layer"].as_u64().map_or("L".into(), |layer| layer.to_string());
    let renamed = "'W_enc': w['encoder.weight'].T.contiguous(), 'b_enc': w['encoder.bias'], \
                   'W_dec': w['decoder.weight'].T.contiguous()";
    let (tensors, config) = match class {
        "AutoEncoder" => (format!("{renamed}, 'b_dec': w['bias']"), "\"standard\""),
        "AutoEncoderTopK" => {
            (format!("{renamed}, 'b_dec': w['b_dec']"), "\"topk\", \"k\": K (of `config.json`)")
        }
        _ => {
            return hinted(
                format!(
                    "`{}` is a dictionary of `dictionary_learning` (`{class}`), which is not \
                     supported",
                    folder.join("ae.pt").display()
                ),
                "save it as a SAELens folder; see `docs/formats.md`",
            );
        }
    };
    hinted(
        format!(
            "`{}` is a dictionary of `dictionary_learning` (`{class}`), which is not read",
            folder.join("ae.pt").display()
        ),
        format!(
            "if it is one of `blocks.{layer}.attn.hook_z`, convert it: `python -c \"import torch; \
             from safetensors.torch import save_file as s; w = torch.load('ae.pt', \
             map_location='cpu'); s({{{tensors}}}, 'sae_weights.safetensors')\"`, and write \
             `cfg.json`: `{{\"architecture\": {config}, \"apply_b_dec_to_input\": true, \
             \"metadata\": {{\"hook_name\": \"blocks.{layer}.attn.hook_z\"}}}}`"
        ),
    )
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
    let text = text_file::read(path).hint(
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
    model_name: Option<String>,
    act_size: Option<usize>,
    dict_size: Option<usize>,
    site: Option<String>,
    head: Option<Value>,
    concat_heads: Option<bool>,
    prepend_bos: Option<bool>,
}

impl AttentionConfig {
    /// What says that it is no SAE of all heads side by side.
    fn odd(&self) -> Option<String> {
        if let Some(site) = self.site.as_ref().filter(|site| *site != "z") {
            return Some(format!("site `{site}` is not supported"));
        }
        if let Some(head) = self.head.as_ref().filter(|head| *head != "cat") {
            return Some(format!("head `{head}` is not supported"));
        }
        (self.concat_heads == Some(false)).then(|| "concat_heads `false` is not supported".into())
    }
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
    if let Some(odd) = read.odd() {
        let what = format!("`{}`: {odd}", config.display());
        return Err(hinted(what, format!("`dictionaries.attention` must hold {}", wanted(kind))));
    }
    let stated = Stated {
        model: read.model_name,
        d_in: ("act_size", read.act_size),
        d_sae: ("dict_size", read.dict_size),
        d_out: ("d_out", None),
        prepend_bos: read.prepend_bos,
    };
    Source::new(id, path, Some(config), Format::AttentionPt, stated)
}

impl Source {
    /// A dictionary whose config says this.
    fn new(
        id: DictionaryId,
        weights: &Path,
        config: Option<PathBuf>,
        format: Format,
        stated: Stated,
    ) -> Result<Source> {
        stated.check_model(config.as_deref().unwrap_or(weights))?;
        let notes = stated.notes();
        Ok(Source { id, weights: weights.into(), config, format, stated, notes, norm: None })
    }

    /// Whether it reads what the model's LayerNorm gives with its gain and bias, so that these have
    /// to be known.
    pub fn needs_norm(&self) -> bool {
        matches!(self.format, Format::Rows(_))
    }

    /// Says what the gain and bias of the LayerNorm in front of it are.
    pub fn set_norm(&mut self, norm: (Tensor, Tensor)) {
        self.norm = Some(norm);
    }

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
        if let Format::Rows(rows) = &self.format {
            return self.read_rows(rows, &weights, d_model);
        }
        let (d, f) = (d_model, weights.width()?);
        // First, as its shape says most: of another model, another hook.
        weights.check("W_enc", &[d, f])?;
        self.stated.check_sizes(self.config.as_deref().unwrap_or(&self.weights), d, f)?;
        let b_dec = weights.get("b_dec", &[d])?;
        let (b_in, b_out) = match &self.format {
            Format::AttentionPt | Format::Rows(_) => (b_dec.clone(), b_dec),
            Format::TranscoderPt => (b_dec, weights.get("b_dec_out", &[d])?),
            Format::SaeLens(read) if read.subtract_b_dec => (b_dec.clone(), b_dec),
            Format::SaeLens(_) => (b_dec.zeros_like()?, b_dec),
        };
        let w_dec = weights.get("W_dec", &[f, d])?;
        let w_enc = weights.get("W_enc", &[d, f])?;
        let shift = b_in.unsqueeze(0)?.matmul(&w_enc)?.squeeze(0)?;
        let w = w_enc.t()?.contiguous()?;
        drop(w_enc);
        let encoder = |bias| Encoder { w, bias, rule: Rule::Relu };
        let whole = match &self.format {
            Format::SaeLens(read) => {
                let whole = Whole { encoder: encoder(shift.neg()?), b_in, w_dec, b_out };
                read.finish(&weights, whole)?
            }
            _ => {
                let bias = (weights.get("b_enc", &[f])? - shift)?;
                Whole { encoder: encoder(bias), b_in, w_dec, b_out }
            }
        };
        // Last, as a tensor that is missing says more.
        weights.check_names(&self.format)?;
        Ok(whole)
    }

    fn read_rows(&self, rows: &Rows, weights: &Weights, d: usize) -> Result<Whole> {
        let f = weights.width()?;
        weights.check(rows.encoder(), &[f, d])?;
        self.stated.check_sizes(self.config.as_deref().unwrap_or(&self.weights), d, f)?;
        if weights.has("W_skip") {
            return Err(hinted(
                format!(
                    "`{}` has a skip connection (`W_skip`), which is not supported",
                    self.weights.display()
                ),
                "use transcoders without one",
            ));
        }
        let Some(norm) = &self.norm else {
            anyhow::bail!("`{}` needs the model's LayerNorm", self.weights.display());
        };
        let whole = rows.read(weights, d, f, norm)?;
        weights.check_names(&self.format)?;
        Ok(whole)
    }
}
