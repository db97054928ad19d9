//! What the fuzz targets call: each reader of files that people bring, and of a language model's
//! replies, on bytes. A result or an error is right, anything else is a finding.
//!
//! The readers are those of the reliability campaign. Before the first input each target reads its
//! seeds, `seeds/NAME/`: one that is refused would try nothing behind the refusal.

#[path = "../../tests/torture/readers.rs"]
mod readers;

use circuit_atlas::error::{Result, report};
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A settings file.
pub fn settings(bytes: &[u8]) {
    tried("settings", bytes, |bytes| file("pipeline.toml", bytes, readers::settings));
}

/// A dictionary's weights.
pub fn safetensors(bytes: &[u8]) {
    const NAME: &str = "sae_weights.safetensors";
    tried("safetensors", bytes, |bytes| file(NAME, bytes, readers::safetensors));
}

/// A dictionary's pickle, to which the tensors are added; or a whole file.
pub fn pickle(bytes: &[u8]) {
    const NAME: &str = "blocks.0.ln2.hook_normalized_2.pt";
    tried("pickle", bytes, |bytes| {
        let zipped = if bytes.starts_with(b"PK") { bytes.to_vec() } else { zipped(bytes)? };
        file(NAME, &zipped, readers::pickle)
    });
}

fn zipped(pickle: &[u8]) -> Result<Vec<u8>> {
    let (mut zip, plain) = (
        zip::ZipWriter::new(Cursor::new(Vec::new())),
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
    );
    zip.start_file("a/data.pkl", plain)?;
    zip.write_all(pickle)?;
    for tensor in 0..5 {
        zip.start_file(format!("a/data/{tensor}"), plain)?;
        zip.write_all(&[0; 512])?;
    }
    Ok(zip.finish()?.into_inner())
}

/// `tokenizer.json`.
pub fn tokenizer(bytes: &[u8]) {
    tried("tokenizer", bytes, |bytes| file("tokenizer.json", bytes, readers::tokenizer));
}

/// A corpus; the first byte says of which kind.
pub fn corpus(bytes: &[u8]) {
    tried("corpus", bytes, |bytes| {
        let Some((kind, bytes)) = bytes.split_first() else { return Ok(()) };
        let name = match kind {
            b't' => "corpus.txt",
            b'j' => "corpus.json",
            b'p' => "corpus.parquet",
            b'g' => "corpus.jsonl.gz",
            b'z' => "corpus.txt.zst",
            _ => "corpus.jsonl",
        };
        file(name, bytes, readers::corpus)
    });
}

/// Prompts in a file.
pub fn prompts(bytes: &[u8]) {
    tried("prompts", bytes, |bytes| file("prompts.jsonl", bytes, readers::prompts));
}

/// A language model's reply.
pub fn reply(bytes: &[u8]) {
    tried("reply", bytes, |bytes| {
        circuit_atlas::llm::fuzz_target::reply(std::str::from_utf8(bytes)?)
    });
}

/// Replies that are kept.
pub fn journal(bytes: &[u8]) {
    tried("journal", bytes, |bytes| file("replies.jsonl", bytes, readers::journal));
}

fn tried(name: &str, bytes: &[u8], read: fn(&[u8]) -> Result<()>) {
    static SEEDS: Once = Once::new();
    SEEDS.call_once(|| {
        let folder = Path::new(REPOSITORY).join("fuzz/seeds").join(name);
        for entry in fs::read_dir(folder).expect("a folder of seeds") {
            let path = entry.expect("a seed").path();
            let refused = read(&fs::read(&path).expect("a seed")).err();
            if let Some(error) = refused {
                panic!("the seed {} is refused: {}", path.display(), report(&error));
            }
        }
    });
    drop(read(bytes));
}

/// Reads bytes as a file of this name.
fn file(name: &str, bytes: &[u8], read: fn(&Path) -> Result<()>) -> Result<()> {
    let path = folder().join(name);
    fs::write(&path, bytes).expect("a file in the temporary folder");
    let result = read(&path);
    fs::remove_file(&path).expect("the file");
    result
}

/// A folder of this process.
fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("circuit-atlas-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}
