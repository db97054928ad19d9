//! SAELens folders, with configs from before 6.0 and since (`docs/formats.md` §3).
//!
//! | architecture | becomes |
//! |---|---|
//! | `standard`, `transcoder` | ReLU |
//! | `jumprelu`, `jumprelu_transcoder` | active above `max(threshold, 0)` |
//! | `topk` | the `k` largest of a token, if above 0 |
//! | `gated` | the jump that it is: `a = x·W·e^r + b_mag` where that is above `b_mag − e^r·b_gate`, and above 0 |
//!
//! A gate `x·W + b_gate > 0` says the same as `x·W·e^r + b_mag > b_mag − e^r·b_gate`, so nothing is
//! lost.

use super::stated::Stated;
use super::weights::Weights;
use super::{Format, Rule, Source, Whole, checked_hook, hook_in, json, wanted};
use crate::error::{Result, hinted};
use crate::ids::Kind;
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// What a config says of how the weights are to be read.
#[derive(Clone, Debug)]
pub(super) struct SaeLens {
    pub subtract_b_dec: bool,
    activation: Activation,
    /// Pre-activations are multiplied by the norms of the decoder's rows, and activations divided
    /// by them.
    by_decoder_norm: bool,
}

#[derive(Clone, Copy, Debug)]
enum Activation {
    Relu,
    Jump,
    TopK(usize),
    Gated,
}

/// The keys of both generations; those that are not here change nothing.
#[derive(Deserialize)]
struct Config {
    architecture: Option<String>,
    apply_b_dec_to_input: Option<bool>,
    normalize_activations: Option<Value>,
    reshape_activations: Option<String>,
    rescale_acts_by_decoder_norm: Option<bool>,
    k: Option<usize>,
    d_in: Option<usize>,
    d_sae: Option<usize>,
    d_out: Option<usize>,
    #[serde(default)]
    metadata: Metadata,
    /// Before 6.0 all of it was here.
    #[serde(flatten)]
    before: Metadata,
    // Before 6.0.
    hook_point: Option<String>,
    #[serde(alias = "activation_fn_str")]
    activation_fn: Option<String>,
    activation_fn_kwargs: Option<Arguments>,
    finetuning_scaling_factor: Option<bool>,
    is_transcoder: Option<bool>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    hook_name: Option<String>,
    hook_name_out: Option<String>,
    #[serde(alias = "hook_point_head_index")]
    hook_head_index: Option<Value>,
    #[serde(alias = "hook_point_layer")]
    hook_layer: Option<usize>,
    model_name: Option<String>,
    prepend_bos: Option<bool>,
    seqpos_slice: Option<Value>,
    model_from_pretrained_kwargs: Option<Value>,
}

#[derive(Deserialize)]
struct Arguments {
    k: Option<usize>,
}

/// What a SAELens folder is.
pub(super) fn look(folder: &Path, kind: Kind) -> Result<Source> {
    let path = folder.join("cfg.json");
    let config: Config = json(&path)?;
    let refuse = |what: String| {
        hinted(format!("`{}`: {what}", path.display()), "convert the dictionary, or use another")
    };
    let (architecture, of) = config.architecture().map_err(refuse)?;
    if of != kind {
        return Err(refuse(format!(
            "an architecture of `{architecture}` is not one of {}",
            wanted(kind)
        )));
    }
    let format = config.read(architecture, kind).map_err(refuse)?;
    let (layer, hook) = config.hook().map_err(refuse)?;
    let id = checked_hook(&path, kind, layer, &hook)?;
    config.check_layers(kind, layer).map_err(refuse)?;
    let notes = config.notes();
    let weights = folder.join("sae_weights.safetensors");
    let format = Format::SaeLens(format);
    let mut source = Source::new(id, &weights, Some(path.clone()), format, config.stated())?;
    source.notes.extend(notes);
    Ok(source)
}

/// Either a value, or what is wrong.
type Told<T> = std::result::Result<T, String>;

impl Config {
    /// The name of the architecture, and the kind of dictionary that it is.
    fn architecture(&self) -> Told<(&str, Kind)> {
        if self.is_transcoder == Some(true) {
            return Err("`is_transcoder` of old versions is not supported".into());
        }
        let name = self.architecture.as_deref().unwrap_or("standard");
        match name {
            "standard" | "jumprelu" | "topk" | "gated" => Ok((name, Kind::Attention)),
            "transcoder" | "jumprelu_transcoder" => Ok((name, Kind::Mlp)),
            other => Err(format!("the architecture `{other}` is not supported")),
        }
    }

    fn read(&self, architecture: &str, kind: Kind) -> Told<SaeLens> {
        match &self.normalize_activations {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::String(how)) if how == "none" => {}
            Some(how) => {
                return Err(format!("normalize_activations `{}` is not supported", plain(how)));
            }
        }
        if let Some(how) =
            self.reshape_activations.as_deref().filter(|how| !["none", "hook_z"].contains(how))
        {
            return Err(format!("reshape_activations `{how}` is not supported"));
        }
        if let Some(head) = self.said(|m| m.hook_head_index.as_ref()).filter(|h| !h.is_null()) {
            return Err(format!("a dictionary of one head ({}) is not supported", plain(head)));
        }
        if self.finetuning_scaling_factor == Some(true) {
            return Err("finetuning_scaling_factor is not supported".into());
        }
        let subtract_b_dec = self.apply_b_dec_to_input.unwrap_or(kind == Kind::Attention);
        if kind == Kind::Mlp && subtract_b_dec {
            return Err("apply_b_dec_to_input must be false for a transcoder".into());
        }
        let activation = self.activation(architecture)?;
        let by_decoder_norm = self.rescale_acts_by_decoder_norm == Some(true);
        if by_decoder_norm && !matches!(activation, Activation::TopK(_)) {
            return Err(format!(
                "rescale_acts_by_decoder_norm is not supported for `{architecture}`"
            ));
        }
        Ok(SaeLens { subtract_b_dec, activation, by_decoder_norm })
    }

    fn activation(&self, architecture: &str) -> Told<Activation> {
        let k = self.k.or(self.activation_fn_kwargs.as_ref().and_then(|arguments| arguments.k));
        let top = |k: Option<usize>| match k {
            Some(k) if k > 0 => Ok(Activation::TopK(k)),
            _ => Err("a top-k dictionary without `k`".to_string()),
        };
        // Before 6.0 a top-k was a standard one with another activation function.
        let function = self.activation_fn.as_deref().unwrap_or("relu");
        match (architecture, function) {
            ("topk", _) | ("standard", "topk") => top(k),
            (_, other) if other != "relu" => {
                Err(format!("the activation function `{other}` is not supported"))
            }
            ("jumprelu" | "jumprelu_transcoder", _) => Ok(Activation::Jump),
            ("gated", _) => Ok(Activation::Gated),
            _ => Ok(Activation::Relu),
        }
    }

    fn hook(&self) -> Told<(usize, String)> {
        let name = self.said(|m| m.hook_name.as_ref());
        let Some(name) = name.or(self.hook_point.as_ref()) else {
            return Err(
                "it names no hook (`metadata.hook_name`; before 6.0 `hook_name` or `hook_point`)"
                    .into(),
            );
        };
        hook_in(name).ok_or_else(|| format!("the hook `{name}` names no layer"))
    }

    /// What the metadata say, or a config of before 6.0 itself.
    fn said<'a, T>(&'a self, key: impl Fn(&'a Metadata) -> Option<T>) -> Option<T> {
        key(&self.metadata).or_else(|| key(&self.before))
    }

    /// The layers in its other keys are that of its hook.
    fn check_layers(&self, kind: Kind, layer: usize) -> Told<()> {
        let out = self.said(|m| m.hook_name_out.as_ref());
        let fits = |out: &&String| **out == format!("blocks.{layer}.hook_mlp_out");
        if let (Kind::Mlp, Some(out)) = (kind, out.filter(|out| !fits(out))) {
            return Err(format!("it writes to `{out}`, not to `blocks.{layer}.hook_mlp_out`"));
        }
        match self.said(|m| m.hook_layer).filter(|other| *other != layer) {
            Some(other) => Err(format!("its hook is of layer {layer}, but its layer is {other}")),
            None => Ok(()),
        }
    }

    fn stated(&self) -> Stated {
        Stated {
            model: self.said(|m| m.model_name.clone()),
            d_in: ("d_in", self.d_in),
            d_sae: ("d_sae", self.d_sae),
            d_out: ("d_out", self.d_out),
            prepend_bos: self.said(|m| m.prepend_bos),
        }
    }

    /// What it was trained on that is not as it is used here.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(slice) = self.said(|m| m.seqpos_slice.as_ref()).filter(|s| !is_all(s)) {
            notes.push(format!("it was trained on some positions only (seqpos_slice {slice})"));
        }
        let options = self.said(|m| m.model_from_pretrained_kwargs.as_ref());
        for key in ["fold_ln", "fold_value_biases"] {
            if options.and_then(|options| options.get(key)) == Some(&Value::Bool(false)) {
                notes.push(format!("it was trained with `{key}` false; here weights are folded"));
            }
        }
        notes
    }
}

/// Whether a slice of positions has all of them.
fn is_all(slice: &Value) -> bool {
    match slice {
        Value::Array(ends) => ends.iter().all(Value::is_null),
        other => other.is_null(),
    }
}

/// A value of a config as it is shown: strings without their quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

impl SaeLens {
    /// The tensors of its architecture, besides those of all.
    pub(super) fn tensors(&self) -> &'static [&'static str] {
        match self.activation {
            Activation::Relu | Activation::TopK(_) => &["b_enc"],
            Activation::Jump => &["b_enc", "threshold"],
            Activation::Gated => &["r_mag", "b_mag", "b_gate"],
        }
    }

    /// Adds to a dictionary whose bias is `−b_in·W_enc` so far what the architecture has besides.
    pub(super) fn finish(&self, weights: &Weights, mut whole: Whole) -> Result<Whole> {
        let f = whole.encoder.width();
        let vector = |name: &str| weights.get(name, &[f]);
        let bias = &whole.encoder.bias;
        match self.activation {
            Activation::Relu => whole.encoder.bias = (bias + vector("b_enc")?)?,
            Activation::Jump => {
                whole.encoder.bias = (bias + vector("b_enc")?)?;
                whole.encoder.rule = Rule::Jump(vector("threshold")?.to_vec1()?);
            }
            Activation::TopK(k) => {
                whole.encoder.bias = (bias + vector("b_enc")?)?;
                whole.encoder.rule = Rule::TopK(k);
            }
            Activation::Gated => {
                let (gain, b_mag) = (vector("r_mag")?.exp()?, vector("b_mag")?);
                let limit = (&b_mag - (&gain * vector("b_gate")?)?)?;
                whole.encoder.rule = Rule::Jump(limit.relu()?.to_vec1()?);
                whole.encoder.bias = ((bias * &gain)? + b_mag)?;
                whole.encoder.w = whole.encoder.w.broadcast_mul(&gain.unsqueeze(1)?)?;
            }
        }
        if self.by_decoder_norm { scaled(whole) } else { Ok(whole) }
    }
}

/// Moves the norms of the decoder's rows into the encoder: activations come out as they do where
/// they are divided later.
fn scaled(mut whole: Whole) -> Result<Whole> {
    let norms: Tensor = whole.w_dec.sqr()?.sum_keepdim(1)?.sqrt()?;
    whole.encoder.w = whole.encoder.w.broadcast_mul(&norms)?;
    whole.encoder.bias = (whole.encoder.bias * norms.squeeze(1)?)?;
    whole.w_dec = whole.w_dec.broadcast_div(&norms.clamp(f32::MIN_POSITIVE, f32::INFINITY)?)?;
    Ok(whole)
}
