//! Rebuilds `demo/`: the world that ships with the program. `cargo run --release --example
//! demo_world [-- STAGE…]`
//!
//! | stage | writes |
//! |---|---|
//! | `tokenizer` | `model/tokenizer.json` |
//! | `corpus` | `corpus.jsonl` |
//! | `train` | `model/config.json`, `model/model.safetensors` |
//! | `polish` | the same again, after more practice with years |
//! | `evaluate` | the model's figures in `README.md` |
//! | `dictionaries` | `attention_sae/`, `transcoder/` |
//! | `tune` | the same again, after more training on the tasks |
//! | `measure` | the dictionaries' figures in `README.md` |

mod corpus;
mod dictionaries;
mod end_to_end;
mod evaluate;
mod grammar;
mod kernels;
mod net;
mod ops;
mod report;
mod revive;
mod sparse;
mod tokenizer;
mod train;
mod trigram;

use anyhow::{Result, ensure};
use corpus::{Kept, Seed};
use net::Net;
use std::path::Path;
use std::time::Instant;
use tokenizer::Words;
use train::Schedule;

const STAGES: [&str; 8] =
    ["tokenizer", "corpus", "train", "polish", "evaluate", "dictionaries", "tune", "measure"];
/// Stories from which the tokenizer is learned.
const TOKENIZER_STORIES: usize = 12_000;
const SCHEDULES: [Schedule; 2] = [
    Schedule {
        steps: 5000,
        warmup: 200,
        peak: 3e-3,
        weight_decay: 0.1,
        clip: 1.0,
        batch: 32,
        seed: Seed::Train,
    },
    Schedule {
        steps: 500,
        warmup: 30,
        peak: 1.5e-3,
        weight_decay: 0.1,
        clip: 1.0,
        batch: 32,
        seed: Seed::Polish,
    },
];

/// Settings of the process that can only be made before it starts: matrix products on the thread
/// that asks for them (this program spreads its work itself), and memory that is kept instead of
/// being given back after every tensor.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("RAYON_NUM_THREADS", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "4000000000"),
    ("MALLOC_TRIM_THRESHOLD_", "8000000000"),
    ("MALLOC_TOP_PAD_", "100000000"),
];

fn main() -> Result<()> {
    if ENVIRONMENT.iter().any(|(name, value)| std::env::var(name).as_deref() != Ok(value)) {
        let again = std::process::Command::new(std::env::current_exe()?)
            .args(std::env::args().skip(1))
            .envs(ENVIRONMENT)
            .status()?;
        std::process::exit(again.code().unwrap_or(1));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(std::thread::available_parallelism()?.get())
        .build_global()?;
    let asked: Vec<String> = std::env::args().skip(1).collect();
    for stage in &asked {
        ensure!(
            STAGES.contains(&stage.as_str()),
            "`{stage}` is no stage; the stages are {}",
            STAGES.join(", ")
        );
    }
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    std::fs::create_dir_all(demo.join("model"))?;
    let kept = Kept::new();
    for stage in
        STAGES.iter().filter(|stage| asked.is_empty() || asked.iter().any(|asked| asked == *stage))
    {
        let start = Instant::now();
        run(stage, &demo, &kept)?;
        report::time(&demo, &STAGES, stage, start.elapsed())?;
    }
    report::write(&demo, "sizes", &report::sizes(&demo)?)
}

fn run(stage: &str, demo: &Path, kept: &Kept) -> Result<()> {
    let model = demo.join("model");
    if stage == "tokenizer" {
        let stories =
            corpus::stories(Seed::Tokenizer, grammar::Split::Train, TOKENIZER_STORIES, &kept.all);
        return tokenizer::build(&stories, &model).map(drop);
    }
    let words = Words::load(&model)?;
    match stage {
        "corpus" => {
            report::write(demo, "corpus", &corpus::build(&words, kept, &demo.join("corpus.jsonl"))?)
        }
        "train" => {
            let net = Net::new(words.vocabulary(), &mut corpus::rng(Seed::Initial))?;
            train::train(&net, &words, kept, &SCHEDULES[0], &model)
        }
        "polish" => train::train(
            &Net::load(&model, words.vocabulary())?,
            &words,
            kept,
            &SCHEDULES[1],
            &model,
        ),
        "evaluate" => {
            let net = Net::load(&model, words.vocabulary())?;
            report::write(
                demo,
                "evaluate",
                &report::model(&evaluate::figures(&net, &words, kept, &SCHEDULES)?),
            )
        }
        "dictionaries" => dictionaries::build(&words, kept, demo),
        "tune" => dictionaries::tune(&words, kept, demo),
        _ => report::write(
            demo,
            "measure",
            &report::dictionaries(&dictionaries::measure(&words, kept, demo)?),
        ),
    }
}
