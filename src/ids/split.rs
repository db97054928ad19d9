//! How a text file becomes documents: what the settings say and the reader does.

use serde::{Deserialize, Serialize};

/// How a text file is split into documents.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// At `<|endoftext|>`, if one is in the first 64 MB of the file; else at blank lines, if the file
    /// is larger than 1 MB; else it is one document.
    #[default]
    Auto,
    /// At `<|endoftext|>`.
    #[serde(rename = "endoftext")]
    EndOfText,
    /// At blank lines.
    BlankLines,
    /// The file is one document.
    None,
}
