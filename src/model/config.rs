//! `config.json` of a Hugging Face GPT-2: what is read, and what is refused as it would change the
//! numbers (`docs/formats.md` §2).

use super::checkpoint::FOLDER;
use super::gpt2::Sizes;
use crate::error::{Hint, Result, hinted};
use crate::text_file;
use serde::Deserialize;
use std::path::Path;

/// The settings of `config.json` that matter.
#[derive(Deserialize)]
pub(super) struct Config {
    n_layer: usize,
    n_head: usize,
    n_embd: usize,
    n_positions: usize,
    vocab_size: usize,
    #[serde(default = "default_epsilon")]
    pub(super) layer_norm_epsilon: f64,
    #[serde(default = "default_activation")]
    activation_function: String,
    n_inner: Option<usize>,
    model_type: Option<String>,
    #[serde(default = "default_scale")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default)]
    add_cross_attention: bool,
    #[serde(default = "default_tied")]
    pub(super) tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    #[serde(default)]
    pruned_heads: serde_json::Map<String, serde_json::Value>,
    quantization_config: Option<serde_json::Value>,
    /// Other names that Hugging Face takes for the sizes above.
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

fn default_epsilon() -> f64 {
    1e-5
}

fn default_activation() -> String {
    "gelu_new".into()
}

fn default_scale() -> bool {
    true
}

fn default_tied() -> bool {
    true
}

/// What `bos_token_id` is in files whose author did not set it.
const DEFAULT_BOS: u32 = 50256;

impl Config {
    pub(super) fn load(path: &Path) -> Result<Config> {
        let text = text_file::read(path)
            .hint(|| format!("cannot read the model's `{}`", path.display()), FOLDER)?;
        let config: Config = serde_json::from_str(&text).hint(
            || format!("`{}` is not the configuration of a GPT-2", path.display()),
            "it must have n_layer, n_head, n_embd, n_positions and vocab_size, as Hugging Face \
             writes them",
        )?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<()> {
        if self.n_head == 0 || self.n_layer == 0 || !self.n_embd.is_multiple_of(self.n_head) {
            return Err(hinted(
                format!(
                    "`{}`: n_embd {} is not a multiple of n_head {}",
                    path.display(),
                    self.n_embd,
                    self.n_head
                ),
                "use the config.json that belongs to the weights",
            ));
        }
        let unsupported = |setting: &str, hint: &str| {
            Err(hinted(format!("`{}`: {setting} is not supported", path.display()), hint))
        };
        let activation = self.activation_function.as_str();
        if !["gelu_new", "gelu_pytorch_tanh"].contains(&activation) {
            return unsupported(
                &format!("activation_function `{activation}`"),
                "GPT-2 uses `gelu_new` (tanh); `gelu` (erf) gives different values",
            );
        }
        if let Some(other) = self.model_type.as_ref().filter(|name| *name != "gpt2") {
            return unsupported(
                &format!("model_type `{other}`"),
                "only GPT-2 models are supported",
            );
        }
        if !self.scale_attn_weights || self.scale_attn_by_inverse_layer_idx {
            return unsupported(
                "attention scaled by anything but √d_head",
                "scale_attn_weights must be true and scale_attn_by_inverse_layer_idx false",
            );
        }
        if self.add_cross_attention {
            return unsupported(
                "add_cross_attention",
                "only models that read nothing but their own tokens are supported",
            );
        }
        if !self.pruned_heads.is_empty() {
            return unsupported("pruned_heads", "use the model with all of its heads");
        }
        if self.quantization_config.is_some() {
            return unsupported(
                "quantization_config",
                "use the model in f32, f16 or bf16, not quantised",
            );
        }
        if !(0.0..1.0).contains(&self.layer_norm_epsilon) {
            return unsupported(
                &format!("layer_norm_epsilon {}", self.layer_norm_epsilon),
                "it is a small number above 0; GPT-2's is 1e-5",
            );
        }
        self.check_aliases(path)
    }

    /// Hugging Face lets the second name win; whoever wrote both meant one model.
    fn check_aliases(&self, path: &Path) -> Result<()> {
        let aliases = [
            ("hidden_size", "n_embd", self.n_embd),
            ("max_position_embeddings", "n_positions", self.n_positions),
            ("num_attention_heads", "n_head", self.n_head),
            ("num_hidden_layers", "n_layer", self.n_layer),
        ];
        for (alias, name, size) in aliases {
            if let Some(other) = self.others.get(alias).filter(|other| **other != size) {
                return Err(hinted(
                    format!("`{}`: {alias} {other} is not {name} {size}", path.display()),
                    "they are two names of one size; remove the one that is wrong",
                ));
            }
        }
        Ok(())
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            layers: self.n_layer,
            heads: self.n_head,
            d_model: self.n_embd,
            d_head: self.n_embd / self.n_head,
            d_mlp: self.n_inner.unwrap_or(4 * self.n_embd),
            positions: self.n_positions,
            vocabulary: self.vocab_size,
        }
    }

    /// The token that texts begin with; none where the file does not say, or only repeats GPT-2's
    /// own, which a smaller vocabulary does not have.
    pub(super) fn bos(&self) -> Option<u32> {
        let unset = |id: &u32| *id == DEFAULT_BOS && self.vocab_size <= DEFAULT_BOS as usize;
        self.bos_token_id.filter(|id| !unset(id))
    }
}
