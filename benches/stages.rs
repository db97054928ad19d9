//! How fast the stages are, and how much memory they take, on the world of a settings file:
//!
//! ```text
//! cargo bench --bench stages -- FOLDER             # a folder with a pipeline.toml; or CIRCUIT_ATLAS_BENCH=FOLDER; else the demo
//! cargo bench --bench stages -- --large FOLDER     # a large world is made there first, of the demo's parts
//! ```
//!
//! The large world has the demo's model and dictionaries, about two million tokens of texts that are
//! put together of halves of the demo's, and 5,000 scored features of which 24 are active at a token.
//!
//! The roof is what the machine's matrix product reaches (f32, 2048³); the model's forward pass, as
//! `cache` and `score` run it, is held against it: its needed operations are those of the weights
//! and of causal attention, without the unembedding. Then every stage runs by itself, in the folder
//! (`run STAGE --force`): its seconds, its largest memory (Linux only) and what it wrote. The table
//! is that of `docs/performance.md`.

use candle_core::{Device, Tensor};
use circuit_atlas::artifact::Store;
use circuit_atlas::artifact::tables::{ContextRow, FeatureRow};
use circuit_atlas::config::Config;
use circuit_atlas::error::Result;
use circuit_atlas::ids::{DictionaryId, Kind};
use circuit_atlas::inputs;
use circuit_atlas::model::{Gpt2, Sizes};
use circuit_atlas::pipeline::set_threads;
use circuit_atlas::stats::mix;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Contexts of the forward pass, and tokens of each.
const CONTEXTS: (usize, usize) = (32, 128);
/// Contexts that a thread runs at once.
const PACK: usize = 4;
/// Times that each measurement is made; the best counts.
const TIMES: usize = 5;

const STAGES: [&str; 12] = [
    "tokenize",
    "measure",
    "discover",
    "verify",
    "heads",
    "cache",
    "score",
    "aggregate",
    "causes",
    "interpret",
    "evaluate",
    "render",
];

fn main() -> Result<()> {
    // SAFETY: nothing runs yet but this thread.
    unsafe { circuit_atlas::model::threads::settle() };
    let folder = folder();
    if std::env::args().any(|argument| argument == "--large") {
        make_large(&folder)?;
    }
    let config = Config::load(&folder.join("pipeline.toml"))?;
    set_threads(&config);
    let model = inputs::model(&config)?;
    let sizes = model.sizes;
    println!(
        "{} layers of {} heads, {} wide, MLPs of {}; {} threads\n",
        sizes.layers,
        sizes.heads,
        sizes.d_model,
        sizes.d_mlp,
        rayon::current_num_threads()
    );
    let roof = roof()?;
    println!("matrix product 2048³: {:.1} GFLOP/s", roof / 1e9);
    let (tokens, rate) = forward(&model)?;
    println!(
        "forward pass: {tokens:.0} tokens/s, {:.1} GFLOP/s = {:.2} of that\n",
        rate / 1e9,
        rate / roof
    );
    drop(model);
    println!("| stage | seconds | largest memory, MiB | written, MiB |\n|---|---|---|---|");
    let (mut all, mut scoring) = (0.0, 0.0);
    for stage in STAGES {
        let (seconds, memory, written) = run(&folder, &config, stage)?;
        all += seconds;
        scoring += if matches!(stage, "cache" | "score") { seconds } else { 0.0 };
        let memory = memory.map_or("".into(), |kib| format!("{:.0}", kib as f64 / 1024.0));
        let written = written as f64 / f64::from(1 << 20);
        println!("| `{stage}` | {seconds:.1} | {memory} | {written:.1} |");
    }
    println!("| all | {all:.1} | | |");
    let (tokens, needed) = needed(&config, &sizes)?;
    let own = needed / scoring;
    println!(
        "\n`cache` and `score`: {:.0} tokens/s, {:.1} GFLOP/s = {:.2} of the product, {:.2} of the \
         forward pass",
        tokens / scoring,
        own / 1e9,
        own / roof,
        own / rate
    );
    Ok(())
}

/// Tokens of the corpus, and the operations that scoring them needs: the model's, and a product with
/// the row of each scored feature.
fn needed(config: &Config, sizes: &Sizes) -> Result<(f64, f64)> {
    let store = Store::new(&config.artifacts());
    let features = store.read::<FeatureRow>()?.len() as f64;
    let (mut tokens, mut operations) = (0.0, 0.0);
    for context in store.read_parts::<ContextRow>()? {
        let t = context.tokens.len() as f64;
        tokens += t;
        operations += 2.0 * t * (per_token(sizes, t) + features * sizes.d_model as f64);
    }
    Ok((tokens, operations))
}

/// Multiplications that a token of a context of `t` tokens needs: everything but the last MLP and the
/// unembedding.
fn per_token(sizes: &Sizes, t: f64) -> f64 {
    let (d, m, layers) = (sizes.d_model as f64, sizes.d_mlp as f64, sizes.layers as f64);
    layers * (4.0 * d * d + t * d) + (layers - 1.0) * 2.0 * d * m
}

/// Cargo passes `--bench` besides.
fn folder() -> PathBuf {
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let named = named.or_else(|| std::env::var("CIRCUIT_ATLAS_BENCH").ok());
    named.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).into(), PathBuf::from)
}

/// Contexts of the large world, its scored features, and how many of them are active at a token.
const LARGE: (usize, usize, f64) = (20_480, 5_000, 24.0);
/// Contexts on which it is measured which features are active.
const TRIED: usize = 256;

/// Makes a large world: all features are measured on a few contexts, and those are taken that
/// together are as active as is wanted.
fn make_large(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("corpus.jsonl"), texts()?)?;
    settings(folder, TRIED, "features = \"all\"")?;
    for stage in &STAGES[..8] {
        run(folder, &Config::load(&folder.join("pipeline.toml"))?, stage)?;
    }
    let mut features: Vec<FeatureRow> = Store::new(&folder.join("artifacts")).read()?;
    features.retain(|row| row.active > 0);
    features.sort_by(|a, b| b.active.cmp(&a.active).then(a.key.cmp(&b.key)));
    let (_, wanted, active) = LARGE;
    // The most active ones, and of the others one in so many.
    let taken = |most: usize| {
        let rest = features.len().saturating_sub(most);
        let others = (0..wanted - most).map(move |i| most + i * rest / (wanted - most).max(1));
        (0..most).chain(others).map(|place| &features[place])
    };
    let sum = |most: &usize| taken(*most).map(|row| row.density).sum::<f64>() >= active;
    let most = (0..wanted).step_by(100).find(sum).unwrap_or(wanted);
    let names: Vec<String> = taken(most).map(|row| format!("\"{}\"", row.feature)).collect();
    settings(folder, LARGE.0, &format!("extra = [{}]", names.join(", ")))
}

/// Texts of the demo, the first half of each with the second half of another one, several times with
/// others.
fn texts() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/corpus.jsonl");
    let lines = std::fs::read_to_string(path)?;
    let text = |line: &str| -> Result<String> {
        let value: serde_json::Value = serde_json::from_str(line)?;
        Ok(value["text"].as_str().unwrap_or_default().to_string())
    };
    let all: Vec<String> = lines.lines().map(text).collect::<Result<_>>()?;
    let sentences: Vec<Vec<&str>> = all.iter().map(|text| text.split(". ").collect()).collect();
    let mut made = String::new();
    for round in 0..9 {
        for (i, own) in sentences.iter().enumerate() {
            let other = &sentences[(i * 7 + round * 311 + 1) % sentences.len()];
            let halves = [&own[..own.len().div_ceil(2)], &other[other.len() / 2..]];
            let text = serde_json::json!({ "text": halves.concat().join(". ") });
            made.push_str(&format!("{text}\n"));
        }
    }
    Ok(made)
}

fn settings(folder: &Path, contexts: usize, score: &str) -> Result<()> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let demo = demo.display();
    let task =
        |name: &str| format!("[[tasks]]\nname = \"{name}\"\nkind = \"{name}\"\nprompts = 8\n");
    let text = format!(
        "[model]\npath = \"{demo}/model\"\n[dictionaries]\nattention = \"{demo}/attention_sae\"\n\
         mlp = \"{demo}/transcoder\"\n[corpus]\npath = \"corpus.jsonl\"\nmax_contexts = {contexts}\n\
         {}{}[discover]\nmethod = \"greedy\"\n[verify]\nprompts = 8\nrandom = 2\n[cache]\n\
         store = \"stream\"\n[score]\n{score}\n",
        task("ioi"),
        task("greater-than")
    );
    Ok(std::fs::write(folder.join("pipeline.toml"), text)?)
}

/// Operations a second, at best.
fn best(operations: f64, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = 0.0f64;
    for _ in 0..=TIMES {
        let start = Instant::now();
        run()?;
        best = best.max(operations / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn roof() -> Result<f64> {
    const N: usize = 2048;
    let [a, b] = [
        Tensor::randn(0f32, 1.0, (N, N), &Device::Cpu)?,
        Tensor::randn(0f32, 1.0, (N, N), &Device::Cpu)?,
    ];
    best(2.0 * (N as f64).powi(3), || {
        a.matmul(&b)?;
        Ok(())
    })
}

/// Tokens a second, and needed operations a second.
fn forward(model: &Gpt2) -> Result<(f64, f64)> {
    let (n, t) = (CONTEXTS.0, CONTEXTS.1.min(model.sizes.positions));
    let token =
        |i: usize, at: usize| (mix(i as u64, at as u64) % model.sizes.vocabulary as u64) as u32;
    let contexts: Vec<Vec<u32>> = (0..n).map(|i| (0..t).map(|at| token(i, at)).collect()).collect();
    let contexts: Vec<&[u32]> = contexts.iter().map(Vec::as_slice).collect();
    // What the last MLP reads: everything has run but that MLP.
    let last = DictionaryId { layer: model.sizes.layers - 1, kind: Kind::Mlp };
    let each = per_token(&model.sizes, t as f64);
    let tokens = (n * t) as f64;
    let rate = best(2.0 * tokens * each, || {
        let packs = contexts.par_chunks(PACK).map(|pack| model.read(pack, &[last]).map(drop));
        packs.collect::<Result<()>>()
    })?;
    Ok((rate / (2.0 * each), rate))
}

/// Runs a stage: seconds, the largest memory in KiB, and bytes of the files that it wrote.
fn run(folder: &Path, config: &Config, stage: &str) -> Result<(f64, Option<u64>, u64)> {
    let (start, wall) = (Instant::now(), SystemTime::now());
    let mut child = Command::new(env!("CARGO_BIN_EXE_circuit-atlas"))
        .args(["run", stage, "--force", "--config"])
        .arg(folder.join("pipeline.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut memory = None;
    let status = loop {
        let peak = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let peak = peak.ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        });
        memory = memory.max(peak);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    anyhow::ensure!(status.success(), "`run {stage}` failed: run it by hand to see why");
    let mut written = 0;
    for output in [config.artifacts(), config.path(&config.output.site)] {
        since(&output, wall, &mut written)?;
    }
    Ok((start.elapsed().as_secs_f64(), memory, written))
}

/// Adds the bytes of files that were written since a time.
fn since(folder: &Path, time: SystemTime, bytes: &mut u64) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() {
            since(&entry.path(), time, bytes)?;
        } else if found.modified()? >= time {
            *bytes += found.len();
        }
    }
    Ok(())
}
