//! SAELens: a folder for each dictionary, as it was used.

use super::{make_folder, model};
use crate::dictionary::ModelSaid;
use crate::error::Result;
use crate::format::number::counted;
use crate::inputs;
use crate::process;
use crate::stages::Run;
use std::path::Path;

pub(super) fn write(run: &Run, into: &Path) -> Result<String> {
    let (name, config) = (model(run), run.config);
    let said = ModelSaid {
        name: &name,
        heads: inputs::sizes(config)?.heads,
        context: config.corpus.context,
        corpus: &config.shown(&config.corpus.path),
    };
    let (mut written, mut left) = (0, Vec::new());
    for dictionary in run.dictionaries()? {
        process::check()?;
        if !dictionary.is_known_to_saelens() {
            left.push(format!("`{}`", dictionary.id));
            continue;
        }
        let folder = into.join(dictionary.id.to_string());
        make_folder(&folder)?;
        dictionary.save_saelens(&folder, &said)?;
        written += 1;
    }
    let mut summary = format!("{written} of the dictionaries");
    if left.is_empty() {
        summary = counted(written, "dictionary").replace("dictionarys", "dictionaries");
    } else {
        let names = left.join(", ");
        summary = format!("{summary}; left out: {names} (SAELens has no transcoder with top-k)");
    }
    Ok(summary)
}
