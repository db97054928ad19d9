//! Inputs with bytes changed, cut, doubled and mixed: an error or a result, never a panic, a hang
//! or much memory.

use crate::bench::REPOSITORY;
use crate::{Draw, Held, Test};
use circuit_atlas::artifact::Store;
use circuit_atlas::config::Config;
use circuit_atlas::corpus::{Cut, How, Split, Tokenizer, files, read, shards};
use circuit_atlas::ids::Kind;
use circuit_atlas::inputs;
use circuit_atlas::llm::last_round;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A kind of input: its bytes, the name that its file gets, and what reads it.
struct Target {
    seed: Vec<u8>,
    name: &'static str,
    read: fn(&Path),
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

fn corpus(path: &Path) {
    let Ok(found) = files(path) else { return };
    for split in [Split::Auto, Split::EndOfText, Split::BlankLines] {
        let how = How { column: "text", split, cut: Cut::BeforeLines };
        for shard in shards(found.read.clone()) {
            drop(read(&shard, &how, &mut |_| Ok(true)));
        }
    }
}

fn settings(path: &Path) {
    if let Ok(config) = Config::load(path) {
        drop(config.flat());
    }
}

fn prompts(path: &Path) {
    let settings = format!(
        "[model]\npath = \"{REPOSITORY}/demo/model\"\n[dictionaries]\nattention = \"a\"\nmlp = \
         \"b\"\n[corpus]\npath = \"c\"\n[[tasks]]\nname = \"t\"\nkind = \"prompts\"\nfile = {:?}\n",
        path.to_str().unwrap()
    );
    let file = path.with_file_name("settings.toml");
    std::fs::write(&file, settings).unwrap();
    let Ok(config) = Config::load(&file) else { return };
    let Ok(tokenizer) = inputs::tokenizer(&config) else { return };
    drop(inputs::prompts(&config, &config.tasks[0], &tokenizer));
}

fn tokenizer(path: &Path) {
    if let Ok(tokenizer) = Tokenizer::load(path.parent().unwrap(), 2560) {
        drop(tokenizer.encode("The ship, 1402 <|endoftext|> sailed. "));
    }
}

fn dictionary(path: &Path) {
    let folder = path.parent().unwrap();
    let name = path.file_name().unwrap().to_string_lossy().to_string();
    let Ok(sources) = circuit_atlas::dictionary::find(folder, &[name], Kind::Mlp, 4) else {
        return;
    };
    for source in sources {
        drop(source.read(64));
    }
}

fn replies(path: &Path) {
    drop(last_round(&Store::new(path.parent().unwrap())));
}

fn parquet(rows: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let row = |i: usize| circuit_atlas::artifact::tables::AgreementRow {
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

fn table(path: &Path) {
    let store = Store::new(path.parent().unwrap());
    drop(store.read::<circuit_atlas::artifact::tables::AgreementRow>());
}

pub(crate) fn mutated() -> Result<Box<dyn Test>, String> {
    let first_lines = |name: &str, n: usize| {
        let text = String::from_utf8(source(name)).unwrap();
        text.lines().take(n).map(|line| format!("{line}\n")).collect::<String>().into_bytes()
    };
    let reply = |i: usize| {
        format!(
            "{{\"hash\":\"{i:032}\",\"model\":\"m\",\"purpose\":\"explain\",\"status\":\"ok\",\
             \"reply\":\"{{}}\",\"finish\":\"stop\",\"prompt_tokens\":1,\"completion_tokens\":1,\
             \"seconds\":0.5,\"attempts\":1}}\n"
        )
    };
    let prompt = "{\"prompt\": \"When Mary and John went to the store, John gave a drink to\", \
                  \"correct\": \" Mary\", \"wrong\": \" John\"}\n";
    let target = |name, seed: Vec<u8>, read| Target { seed, name, read };
    Ok(Box::new(Mutated {
        folder: tempfile::tempdir().unwrap(),
        targets: vec![
            target("corpus.json", first_lines("demo/corpus.jsonl", 5), corpus),
            target("corpus.jsonl", first_lines("demo/corpus.jsonl", 20), corpus),
            target("corpus.txt", "One.\n\nTwo é.\n<|endoftext|>Three".as_bytes().into(), corpus),
            target("corpus.parquet", parquet(20), corpus),
            target("agreements.parquet", parquet(5), table),
            target("pipeline.toml", source("pipeline.toml"), settings),
            target("prompts.jsonl", prompt.repeat(4).into(), prompts),
            target("tokenizer.json", source("demo/model/tokenizer.json"), tokenizer),
            target("layer_0.safetensors", small_dictionary(), dictionary),
            target("replies.jsonl", (0..5).map(reply).collect::<String>().into(), replies),
        ],
        quiet: false,
    }))
}

/// A header of safetensors with small tensors.
fn small_dictionary() -> Vec<u8> {
    let header = br#"{"W_enc":{"dtype":"F32","shape":[64,2],"data_offsets":[0,512]},"W_dec":{"dtype":"F32","shape":[2,64],"data_offsets":[512,1024]},"b_enc":{"dtype":"F32","shape":[2],"data_offsets":[1024,1032]},"b_dec":{"dtype":"F32","shape":[64],"data_offsets":[1032,1288]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[1; 1288]].concat()
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
        let path: PathBuf = self.folder.path().join(target.name);
        std::fs::write(&path, &bytes).unwrap();
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
            Ok(()) if begun.elapsed() > PATIENCE => keep("it takes very long"),
            Ok(()) => Ok(()),
        }
    }
}
