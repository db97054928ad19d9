//! A dictionary as a SAELens folder: what was used, with everything that conversion folded into the
//! encoder (`docs/formats.md` §12).

use super::{Dictionary, Rule};
use crate::error::{Hint, Result};
use crate::ids::{DictionaryId, Kind};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::path::Path;

/// The version of SAELens whose form of `cfg.json` it is.
const SAELENS: &str = "6.0.0";

/// What is said of the model that a dictionary is of.
pub(crate) struct ModelSaid<'a> {
    pub name: &'a str,
    pub heads: usize,
    /// Tokens of a context.
    pub context: usize,
    /// Where the corpus is.
    pub corpus: &'a str,
}

impl Dictionary {
    /// Whether SAELens has a form for it: it has none for transcoders with top-k.
    pub(crate) fn is_known_to_saelens(&self) -> bool {
        self.id.kind == Kind::Attention || !self.needs_all()
    }

    /// Writes `cfg.json` and `sae_weights.safetensors` into a folder that is there.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn save_saelens(&self, folder: &Path, model: &ModelSaid) -> Result<()> {
        let (f, d_in, d_out) = (self.width(), self.d_in, self.b_out().len());
        let encoder = self.encoder()?;
        let columns: Vec<f32> = encoder.w.t()?.flatten_all()?.to_vec1()?;
        let w_dec: Vec<f32> = self.w_dec()?.flatten_all()?.to_vec1()?;
        let bias: Vec<f32> = encoder.bias.to_vec1()?;
        let mut tensors = vec![
            ("W_enc", vec![d_in, f], bytes(&columns)),
            ("W_dec", vec![f, d_out], bytes(&w_dec)),
            ("b_enc", vec![f], bytes(&bias)),
            ("b_dec", vec![d_out], bytes(self.b_out())),
        ];
        if let Rule::Jump(limits) = &self.rule {
            tensors.push(("threshold", vec![f], bytes(limits)));
        }
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| {
                Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let path = folder.join("sae_weights.safetensors");
        safetensors::serialize_to_file(views, None, &path).hint(
            || format!("cannot write `{}`", path.display()),
            "check free space and permissions of the folder",
        )?;
        let path = folder.join("cfg.json");
        std::fs::write(&path, serde_json::to_string_pretty(&self.config(model))? + "\n").hint(
            || format!("cannot write `{}`", path.display()),
            "check free space and permissions of the folder",
        )
    }

    fn config(&self, model: &ModelSaid) -> Value {
        let DictionaryId { kind, layer } = self.id;
        let attention = kind == Kind::Attention;
        let architecture = match (&self.rule, attention) {
            (Rule::Relu, true) => "standard",
            (Rule::Jump(_), true) => "jumprelu",
            (Rule::TopK(_), _) => "topk",
            (Rule::Relu, false) => "transcoder",
            (Rule::Jump(_), false) => "jumprelu_transcoder",
        };
        let hook = if attention { "attn.hook_z" } else { "ln2.hook_normalized" };
        let mut config = json!({
            "architecture": architecture,
            "d_in": self.d_in,
            "d_sae": self.width(),
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": false,
            "normalize_activations": "none",
            "reshape_activations": if attention { "hook_z" } else { "none" },
            "metadata": {
                "sae_lens_version": SAELENS,
                "sae_lens_training_version": null,
                "model_name": model.name,
                "model_class_name": "HookedTransformer",
                "model_from_pretrained_kwargs": {},
                "hook_name": format!("blocks.{layer}.{hook}"),
                "hook_layer": layer,
                "hook_head_index": null,
                "prepend_bos": true,
                "context_size": model.context,
                "dataset_path": model.corpus,
                "circuit_atlas_dictionary": self.id.to_string(),
                "circuit_atlas_model":
                    "hooks as of HookedTransformer.from_pretrained with its defaults (LayerNorm folded, \
                     writing weights centred)",
                "circuit_atlas_folded":
                    "b_enc has in it what the original subtracts from its input (b_enc - b_in W_enc); \
                     activations and reconstructions are those of the original",
            },
        });
        if attention {
            config["metadata"]["d_head"] = json!(self.d_in / model.heads.max(1));
        } else {
            config["d_out"] = json!(self.b_out().len());
            config["metadata"]["hook_name_out"] = json!(format!("blocks.{layer}.hook_mlp_out"));
            config["metadata"]["hook_layer_out"] = json!(layer);
        }
        if let Rule::TopK(k) = self.rule {
            config["k"] = json!(k);
            config["rescale_acts_by_decoder_norm"] = json!(false);
        }
        config
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
