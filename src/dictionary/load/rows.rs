//! Transcoders with a feature a row of the encoder, of the model as it is in its files: sparsify's
//! folders and circuit-tracer's files (`docs/formats.md` §3).
//!
//! They read the input of the MLP, which has the gain and bias of the LayerNorm in it, and write
//! its output, whose mean nobody has subtracted. Both go into the weights: the features are the
//! same.

use super::stated::Stated;
use super::weights::Weights;
use super::{Format, Rule, Source, Whole, json};
use crate::dictionary::Encoder;
use crate::error::{Hint, Result, hinted};
use crate::ids::{DictionaryId, Kind};
use candle_core::{D, Tensor};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// How the tensors are named, and what is active.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    w_enc: &'static str,
    b_enc: &'static str,
    activation: Activation,
}

#[derive(Clone, Copy, Debug)]
enum Activation {
    Relu,
    /// Above a threshold, if the file has any.
    Jump,
    TopK(usize),
}

const THRESHOLD: &str = "activation_function.threshold";
const HINT: &str = "convert the dictionary, or use another";

#[derive(Deserialize)]
struct Sparsify {
    activation: Option<String>,
    k: Option<usize>,
    d_in: Option<usize>,
    num_latents: Option<usize>,
    #[serde(default)]
    transcode: bool,
    #[serde(default)]
    skip_connection: bool,
    /// Others, of which some change what is computed.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// What a folder with `cfg.json` and `sae.safetensors` is.
pub(super) fn sparsify(folder: &Path, kind: Kind) -> Result<Source> {
    let path = folder.join("cfg.json");
    let config: Sparsify = json(&path)?;
    let refuse = |what: String| Err(hinted(format!("`{}`: {what}", path.display()), HINT));
    if kind != Kind::Mlp || !config.transcode {
        return refuse(
            "of sparsify's dictionaries only transcoders of MLPs are supported (`transcode` true, \
             in `dictionaries.mlp`)"
                .into(),
        );
    }
    if config.skip_connection {
        return refuse("skip_connection is not supported".into());
    }
    let changes = ["embed_skip", "gram_lookup", "signed", "monet", "encoder_pkm", "encoder_kron"];
    let set =
        |key: &&&str| config.others.get(**key).is_some_and(|value| *value == Value::Bool(true));
    if let Some(key) = changes.iter().find(set) {
        return refuse(format!("{key} is not supported"));
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(layer) = mlp_of(&name) else {
        return refuse(format!(
            "its folder `{name}` does not name the MLP of a layer, such as `h.3.mlp`"
        ));
    };
    let activation = match (config.activation.as_deref().unwrap_or("topk"), config.k) {
        ("topk", Some(k)) if k > 0 => Activation::TopK(k),
        ("topk", _) => return refuse("a top-k dictionary without `k`".into()),
        (other, _) => return refuse(format!("the activation `{other}` is not supported")),
    };
    let stated = Stated {
        d_in: ("d_in", config.d_in),
        d_sae: ("num_latents", config.num_latents.filter(|n| *n > 0)),
        d_out: ("d_out", None),
        ..Stated::default()
    };
    let format = Format::Rows(Rows { w_enc: "encoder.weight", b_enc: "encoder.bias", activation });
    let id = DictionaryId { layer, kind };
    Source::new(id, &folder.join("sae.safetensors"), Some(path), format, stated)
}

/// The layer of `h.3.mlp`, `transformer.h.3.mlp` or `layers.3.mlp`.
fn mlp_of(name: &str) -> Option<usize> {
    let rest = name.strip_suffix(".mlp")?.trim_start_matches("transformer.");
    let number = rest.strip_prefix("h.").or_else(|| rest.strip_prefix("layers."))?;
    number.parse().ok()
}

/// The layer of a file of circuit-tracer's, by its name.
pub(super) fn tracer_layer(name: &str) -> Option<usize> {
    name.strip_prefix("layer_")?.strip_suffix(".safetensors")?.parse().ok()
}

/// What `layer_N.safetensors` beside a `config.yaml` is.
pub(super) fn tracer(file: &Path, config: &Path, layer: usize, kind: Kind) -> Result<Source> {
    let what = || format!("cannot read `{}`", config.display());
    let text = std::fs::read_to_string(config).hint(what, HINT)?;
    let said = top_level(&text);
    let refuse = |what: String| Err(hinted(format!("`{}`: {what}", config.display()), HINT));
    if kind != Kind::Mlp {
        return refuse("transcoders of MLPs belong into `dictionaries.mlp`".into());
    }
    match said.get("model_kind").copied() {
        Some("transcoder_set") => {}
        other => {
            let other = other.unwrap_or("");
            return refuse(format!("the model_kind `{other}` is not supported"));
        }
    }
    let reads = said.get("feature_input_hook").copied().unwrap_or("");
    if !["ln2.hook_normalized", "mlp.hook_in"].contains(&reads) {
        return refuse(format!(
            "it reads the hook `{reads}`, not the input of the MLP (`ln2.hook_normalized`)"
        ));
    }
    let writes = said.get("feature_output_hook").copied().unwrap_or("");
    if !["hook_mlp_out", "mlp.hook_out"].contains(&writes) {
        return refuse(format!("it writes to `{writes}`, not to `hook_mlp_out`"));
    }
    let k = said.get("k").and_then(|k| k.parse::<usize>().ok()).filter(|k| *k > 0);
    let activation = match (said.get("activation").copied(), k) {
        (None | Some("jump_relu" | "jumprelu"), _) => Activation::Jump,
        (Some("relu"), _) => Activation::Relu,
        (Some("topk"), Some(k)) => Activation::TopK(k),
        (Some("topk"), None) => return refuse("a top-k dictionary without `k`".into()),
        (Some(other), _) => return refuse(format!("the activation `{other}` is not supported")),
    };
    let stated = Stated {
        model: said.get("model_name").map(|name| (*name).to_string()),
        d_in: ("d_in", None),
        d_sae: ("d_sae", None),
        d_out: ("d_out", None),
        prepend_bos: None,
    };
    let format = Format::Rows(Rows { w_enc: "W_enc", b_enc: "b_enc", activation });
    Source::new(DictionaryId { layer, kind }, file, Some(config.into()), format, stated)
}

/// The plain values of a YAML file's outermost keys; lists and what is indented are passed over.
fn top_level(text: &str) -> BTreeMap<&str, &str> {
    let mut pairs = BTreeMap::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let value = value.split(" #").next().unwrap_or_default().trim();
            pairs.insert(key, value.trim_matches(['"', '\'']));
        }
    }
    pairs
}

impl Rows {
    /// The tensors that are used.
    pub(super) fn tensors(&self) -> Vec<&'static str> {
        let mut names = vec![self.w_enc, self.b_enc, "W_dec", "b_dec"];
        if matches!(self.activation, Activation::Jump) {
            names.push(THRESHOLD);
        }
        // circuit-tracer repeats what the config says.
        if matches!(self.activation, Activation::TopK(_)) {
            names.push("k");
        }
        names
    }

    /// The tensor with a feature a row.
    pub(super) fn encoder(&self) -> &'static str {
        self.w_enc
    }

    /// Reads the weights of a model of width `d`; `norm` are gain and bias of the LayerNorm.
    pub(super) fn read(
        &self,
        weights: &Weights,
        d: usize,
        f: usize,
        (gain, beta): &(Tensor, Tensor),
    ) -> Result<Whole> {
        let w = weights.get(self.w_enc, &[f, d])?;
        let shift = w.matmul(&beta.unsqueeze(1)?)?.squeeze(1)?;
        let bias = (weights.get(self.b_enc, &[f])? + shift)?;
        let rule = match self.activation {
            Activation::TopK(k) => Rule::TopK(k),
            Activation::Jump if weights.has(THRESHOLD) => {
                Rule::Jump(weights.get(THRESHOLD, &[f])?.to_vec1()?)
            }
            Activation::Jump | Activation::Relu => Rule::Relu,
        };
        let w = w.broadcast_mul(&gain.unsqueeze(0)?)?;
        let centre =
            |x: Tensor| -> Result<Tensor> { Ok(x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?) };
        let w_dec = centre(weights.get("W_dec", &[f, d])?)?;
        let b_out = centre(weights.get("b_dec", &[d])?)?;
        let b_in = b_out.zeros_like()?;
        Ok(Whole { encoder: Encoder { w, bias, rule }, b_in, w_dec, b_out })
    }
}
