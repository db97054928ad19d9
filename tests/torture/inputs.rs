//! Inputs with bytes changed, cut, doubled and mixed: an error or a result, never a panic, a hang
//! or much memory.

use crate::bench::REPOSITORY;
use crate::readers;
use crate::{Draw, Held, Test};
use circuit_atlas::artifact::Store;
use circuit_atlas::artifact::tables::AgreementRow;
use circuit_atlas::error::{Result, report};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A kind of input: its bytes, the name that its file gets, and what reads it.
struct Target {
    seed: Vec<u8>,
    name: &'static str,
    read: fn(&Path) -> Result<()>,
}

/// A dictionary in a folder as SAELens writes it.
const SAELENS: &str = "tests/data/tiny/saelens/jumprelu.0/sae_weights.safetensors";
/// A transcoder in a pickle.
const PICKLED: &str = "final_sparse_autoencoder_tiny_blocks.0.ln2.hook_normalized_160.pt";

impl Target {
    fn write(&self, folder: &Path, bytes: &[u8]) -> PathBuf {
        let path = folder.join(self.name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Inputs, and a folder for them.
struct Mutated {
    folder: TempDir,
    targets: Vec<Target>,
    /// In place of the message of a panic on the terminal.
    quiet: bool,
}

fn source(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(REPOSITORY).join(name)).unwrap()
}

fn parquet(rows: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let row = |i: usize| AgreementRow {
        subject: "att0.1".parse().unwrap(),
        between: "judges".into(),
        of: format!("text {i}"),
        compared: i as u32,
        value: Some(0.5),
    };
    store.write("fingerprint", &(0..rows).map(row).collect::<Vec<_>>()).unwrap();
    let mut bytes = Vec::new();
    crate::bench::walk(folder.path(), &mut |path| bytes = std::fs::read(path).unwrap());
    bytes
}

fn table(path: &Path) -> Result<()> {
    Store::new(path.parent().unwrap()).read::<AgreementRow>().map(drop)
}

pub(crate) fn mutated() -> Result<Box<dyn Test>, String> {
    let first_lines = |name: &str, n: usize| {
        let text = String::from_utf8(source(name)).unwrap();
        text.lines().take(n).map(|line| format!("{line}\n")).collect::<String>().into_bytes()
    };
    let target = |name, seed: Vec<u8>, read| Target { seed, name, read };
    let targets = vec![
        target("corpus.json", first_lines("demo/corpus.jsonl", 5), readers::corpus),
        target("corpus.jsonl", first_lines("demo/corpus.jsonl", 20), readers::corpus),
        target("corpus.txt", source("fuzz/seeds/corpus/text").split_off(1), readers::corpus),
        target("corpus.parquet", source("tests/data/parquet/binary.parquet"), readers::corpus),
        target("agreements.parquet", parquet(5), table),
        target("pipeline.toml", source("pipeline.toml"), readers::settings),
        target("prompts.jsonl", first_lines("tests/data/tiny/prompts.jsonl", 4), readers::prompts),
        target("tokenizer.json", source("demo/model/tokenizer.json"), readers::tokenizer),
        target("sae_weights.safetensors", source(SAELENS), readers::safetensors),
        target(PICKLED, source(&format!("tests/data/tiny/transcoder/{PICKLED}")), readers::pickle),
        target("replies.jsonl", source("fuzz/seeds/journal/replies"), readers::journal),
    ];
    let folder = tempfile::tempdir().unwrap();
    for target in &targets {
        let path = target.write(folder.path(), &target.seed);
        // A seed that is refused tries nothing behind the refusal.
        let read = (target.read)(&path);
        read.unwrap_or_else(|error| panic!("{} is refused: {}", target.name, report(&error)));
        std::fs::remove_file(path).unwrap();
    }
    Ok(Box::new(Mutated { folder, targets, quiet: false }))
}

/// Changes a few places.
fn mutate(bytes: &mut Vec<u8>, draw: &mut Draw) {
    const ODD: [&[u8]; 12] = [
        b"\0",
        b"\xff\xfe",
        b"\"",
        b"{",
        b"}]",
        b"\\ud800",
        b"-1",
        b"1e999",
        b"NaN",
        b"\n",
        b"\xef\xbb\xbf",
        b"99999999999999999999",
    ];
    for _ in 0..1 + draw.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = draw.below(bytes.len());
        match draw.below(6) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes.truncate(at),
            2 => {
                let odd = *draw.one(&ODD);
                drop(bytes.splice(at..at, odd.iter().copied()));
            }
            3 => {
                let end = (at + 1 + draw.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + 1 + draw.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ => bytes[at] = draw.below(256) as u8,
        }
    }
}

/// So long may reading take.
const PATIENCE: Duration = Duration::from_secs(20);

impl Test for Mutated {
    fn again(&mut self, draw: &mut Draw) -> Held {
        if !self.quiet {
            std::panic::set_hook(Box::new(|_| ()));
            self.quiet = true;
        }
        let target = draw.one(&self.targets);
        let mut bytes = target.seed.clone();
        mutate(&mut bytes, draw);
        let path = target.write(self.folder.path(), &bytes);
        let begun = Instant::now();
        let read = catch_unwind(AssertUnwindSafe(|| (target.read)(&path)));
        std::fs::remove_file(&path).unwrap();
        let keep = |what: &str| {
            let hash = blake3::hash(&bytes).to_hex();
            let kept = std::env::temp_dir().join(format!("torture-{}-{}", &hash[..8], target.name));
            std::fs::write(&kept, &bytes).unwrap();
            Err(format!("{what}: {}", kept.display()))
        };
        match read {
            Err(_) => keep("a panic"),
            Ok(_) if begun.elapsed() > PATIENCE => keep("it takes very long"),
            Ok(_) => Ok(()),
        }
    }
}
