//! `circuit-atlas export`: a finished run in the formats of other tools. A file a tool. Each is
//! written beside its place and renamed when it is whole; nothing that is there is replaced.

mod circuit_tracer;
mod delphi;
mod neuronpedia;
mod saelens;

use crate::atlas::model_name;
use crate::config::Config;
use crate::error::{Hint, Result, hinted};
use crate::pipeline;
use crate::process;
use crate::stages::Run;
use clap::ValueEnum;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// A tool with a format of its own.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Tool {
    /// Neuronpedia's upload, as SAEDashboard writes it: batches of features with activations, logits
    /// and histograms; and explanations
    Neuronpedia,
    /// The dictionaries as they were used, a SAELens folder each
    Saelens,
    /// delphi's cache of latents, by module and range of latents; explanations and scores
    Delphi,
    /// circuit-tracer's graphs with a file for each feature of them, for its local viewer
    CircuitTracer,
}

/// Writes a finished run in the format of a tool into a new folder, and says what is in it.
///
/// # Errors
/// When there is no finished run, there is something in the folder, or it cannot be written.
pub(crate) fn export(config: &Config, tool: Tool, out: &Path) -> Result<String> {
    check_free(out)?;
    pipeline::set_threads(config);
    pipeline::ask(config, |run| {
        let new = beside(out);
        // What a killed one has left.
        if new.is_dir() {
            fs::remove_dir_all(&new).hint(|| cannot("remove", &new), SPACE)?;
        }
        make_folder(&new)?;
        let done = match tool {
            Tool::Neuronpedia => neuronpedia::write(run, &new),
            Tool::Saelens => saelens::write(run, &new),
            Tool::Delphi => delphi::write(run, &new),
            Tool::CircuitTracer => circuit_tracer::write(run, &new),
        };
        let said = match done {
            Ok(said) => said,
            Err(error) => {
                drop(fs::remove_dir_all(&new));
                return Err(error);
            }
        };
        check_free(out)?;
        fs::rename(&new, out).hint(|| cannot("write", out), SPACE)?;
        Ok(said)
    })
}

/// # Errors
/// When a folder has anything in it.
fn check_free(out: &Path) -> Result<()> {
    let is_free = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => out.symlink_metadata().is_err(),
    };
    if is_free {
        return Ok(());
    }
    Err(hinted(
        format!("`{}` is not an empty folder", out.display()),
        "give `--out` the name of a new folder: an export replaces nothing",
    ))
}

/// Where a folder is written.
fn beside(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.circuit-atlas.new"))
}

const SPACE: &str = "check free space and permissions of the folder";

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} `{}`", path.display())
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).hint(|| cannot("make the folder", path), SPACE)
}

/// Writes a JSON document.
fn write_json(path: &Path, document: &impl Serialize) -> Result<()> {
    process::check()?;
    fs::write(path, serde_json::to_string(document)?).hint(|| cannot("write", path), SPACE)
}

/// What the model is called.
fn model(run: &Run) -> String {
    model_name(&run.config.model.path)
}
