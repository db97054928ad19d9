//! What a dictionary's config says of it besides how it is read, and whether that fits.

use crate::error::{Result, hinted};
use std::path::Path;

/// Families of models that are not GPT-2, as their names begin.
const OTHER_FAMILIES: [&str; 36] = [
    "pythia",
    "gemma",
    "llama",
    "meta-llama",
    "mistral",
    "mixtral",
    "qwen",
    "opt",
    "gpt-neo",
    "gpt-neox",
    "gpt-j",
    "gpt-oss",
    "bloom",
    "phi",
    "falcon",
    "olmo",
    "stablelm",
    "t5",
    "bert",
    "roberta",
    "solu",
    "gelu",
    "attn-only",
    "redwood",
    "deepseek",
    "yi",
    "santacoder",
    "baichuan",
    "tinystories",
    "tiny-stories",
    "mamba",
    "vicuna",
    "gpt3",
    "gpt4",
    "smollm",
    "minicpm",
];

/// Keys of a config with what they say.
#[derive(Clone, Debug, Default)]
pub(super) struct Stated {
    /// The model that it was trained on.
    pub model: Option<String>,
    pub d_in: (&'static str, Option<usize>),
    pub d_sae: (&'static str, Option<usize>),
    pub d_out: (&'static str, Option<usize>),
    /// Whether contexts began with BOS.
    pub prepend_bos: Option<bool>,
}

impl Stated {
    /// The model is a GPT-2, or one that only its owner knows.
    pub(super) fn check_model(&self, file: &Path) -> Result<()> {
        let Some(model) = self.model.as_ref().filter(|model| is_other(model)) else {
            return Ok(());
        };
        Err(hinted(
            format!("`{}`: model_name `{model}` is not a GPT-2", file.display()),
            "use dictionaries that were trained on the model of `model.path`",
        ))
    }

    /// The sizes are those of the tensors.
    pub(super) fn check_sizes(&self, file: &Path, d: usize, f: usize) -> Result<()> {
        for ((key, stated), found) in [(self.d_in, d), (self.d_sae, f), (self.d_out, d)] {
            if let Some(stated) = stated.filter(|stated| *stated != found) {
                return Err(hinted(
                    format!(
                        "`{}`: {key} is {stated}, but its tensor `W_enc` is [{d}, {f}]",
                        file.display()
                    ),
                    "config and weights are of two dictionaries; download both again",
                ));
            }
        }
        Ok(())
    }

    /// What is not as it is used here.
    pub(super) fn notes(&self) -> Vec<String> {
        let note = "its config has prepend_bos false, but here every context begins with BOS";
        (self.prepend_bos == Some(false)).then(|| note.into()).into_iter().collect()
    }
}

/// Whether a name is that of a known model that is not a GPT-2.
fn is_other(model: &str) -> bool {
    let name = model.to_lowercase();
    let own = name.rsplit('/').next().unwrap_or_default();
    let is = |family: &&str| {
        let rest = own.strip_prefix(*family);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()))
    };
    !own.contains("gpt2") && !own.contains("gpt-2") && OTHER_FAMILIES.iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::is_other;

    #[test]
    fn only_known_other_models_are_refused() {
        let others = [
            "pythia-70m",
            "EleutherAI/pythia-160m-deduped",
            "google/gemma-2-2b",
            "gemma-2b",
            "meta-llama/Meta-Llama-3-8B",
            "Llama-2-7b",
            "llama3",
            "Qwen/Qwen2-0.5B",
            "opt-125m",
            "gpt-neo-125M",
            "gpt-j-6B",
            "phi-2",
            "solu-1l",
            "attn-only-2l",
        ];
        let own = [
            "gpt2",
            "gpt2-small",
            "openai-community/gpt2",
            "GPT-2",
            "stanford-gpt2-small-a",
            "distilgpt2",
            "tiny",
            "circuit-atlas-demo",
            "my-own-model",
            "philosophy",
            "optimist",
        ];
        others.iter().for_each(|name| assert!(is_other(name), "{name}"));
        own.iter().for_each(|name| assert!(!is_other(name), "{name}"));
    }
}
