//! Reads a file as the program reads one of its kind, through to the end. The reliability campaign
//! and the fuzz targets hand it damaged ones: each is an error or a result, never a panic, a hang
//! or much memory.

use crate::REPOSITORY;
use circuit_atlas::artifact::Store;
use circuit_atlas::config::Config;
use circuit_atlas::corpus::{Cut, How, Split, Tokenizer, files, read, shards};
use circuit_atlas::dictionary::find;
use circuit_atlas::error::Result;
use circuit_atlas::ids::Kind;
use circuit_atlas::inputs;
use circuit_atlas::llm::ResponseCache;
use std::path::Path;
use std::sync::OnceLock;

/// The width of the model in tests/data/tiny, and of its dictionaries.
const D: usize = 32;

/// A corpus, by the ending of its name.
pub(crate) fn corpus(path: &Path) -> Result<()> {
    for split in [Split::Auto, Split::EndOfText, Split::BlankLines] {
        let how = How { column: "text", split, cut: Cut::BeforeLines };
        for shard in shards(files(path)?.read) {
            read(&shard, &how, &mut |_| Ok(true))?;
        }
    }
    Ok(())
}

/// A settings file.
pub(crate) fn settings(path: &Path) -> Result<()> {
    Config::load(path).map(|config| drop(config.flat()))
}

/// `prompts.jsonl` for the model in tests/data/tiny.
pub(crate) fn prompts(path: &Path) -> Result<()> {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let settings = format!(
        "[model]\npath = \"{REPOSITORY}/tests/data/tiny/model\"\n[dictionaries]\nattention = \"a\"\nmlp = \
         \"b\"\n[corpus]\npath = \"c\"\n[[tasks]]\nname = \"t\"\nkind = \"prompts\"\nfile = \
         \"prompts.jsonl\"\n"
    );
    let file = path.with_file_name("settings.toml");
    std::fs::write(&file, settings)?;
    let config = Config::load(&file)?;
    let tokenizer = TOKENIZER.get_or_init(|| inputs::tokenizer(&config).expect("a tokenizer"));
    inputs::prompts(&config, &config.tasks[0], tokenizer).map(drop)
}

/// `tokenizer.json` of a model with up to 2560 rows of an embedding.
pub(crate) fn tokenizer(path: &Path) -> Result<()> {
    let tokenizer = Tokenizer::load(path.parent().unwrap_or(path), 2560)?;
    let ids = tokenizer.encode("The ship, 1402 é <|endoftext|> sailed. ")?;
    drop(tokenizer.pieces(&ids));
    Ok(())
}

/// `sae_weights.safetensors` in a folder as SAELens writes it.
pub(crate) fn safetensors(path: &Path) -> Result<()> {
    let config = format!(
        "{{\"architecture\": \"jumprelu\", \"d_in\": {D}, \"apply_b_dec_to_input\": true, \
         \"metadata\": {{\"hook_name\": \"blocks.0.attn.hook_z\"}}}}"
    );
    std::fs::write(path.with_file_name("cfg.json"), config)?;
    let folder = path.parent().unwrap_or(path);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    dictionaries(folder.parent().unwrap_or(folder), name, Kind::Attention)
}

/// A `.pt` as a transcoder, by its name, or else as an attention SAE.
pub(crate) fn pickle(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    dictionaries(folder, name, Kind::Mlp).or_else(|_| {
        let config = r#"{"layer": 0, "act_name": "blocks.0.attn.hook_z"}"#;
        std::fs::write(folder.join("sae_cfg.json"), config)?;
        std::fs::copy(path, folder.join("sae.pt"))?;
        dictionaries(folder, "sae.pt".into(), Kind::Attention)
    })
}

fn dictionaries(folder: &Path, name: String, kind: Kind) -> Result<()> {
    find(folder, &[name], kind, 1)?.iter().try_for_each(|source| source.read(D).map(drop))
}

/// Replies that were paid for. A line that is only an entry gets its hash, so that what is behind
/// the hash is reached.
pub(crate) fn journal(path: &Path) -> Result<()> {
    let mut lines = Vec::new();
    for line in std::fs::read(path)?.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(entry) if !entry.starts_with(b"{\"check\"") => {
                let hash = blake3::hash(entry).to_hex();
                lines.extend_from_slice(
                    format!("{{\"check\":\"{}\",\"entry\":", &hash[..16]).as_bytes(),
                );
                lines.extend_from_slice(entry);
                lines.extend_from_slice(b"}\n");
            }
            _ => lines.extend_from_slice(line),
        }
    }
    std::fs::write(path, lines)?;
    ResponseCache::open(&Store::new(path.parent().unwrap_or(path)), None).map(drop)
}
