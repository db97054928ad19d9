//! circuit-atlas: from a GPT-2, its dictionaries and a corpus to a browsable atlas of the circuits
//! that carry out a task.
//!
//! The pipeline is a table of stages, `pipeline`. A stage (`stages`) reads Parquet tables, calls
//! the other modules and writes Parquet tables. `docs/architecture.md` is the map,
//! `docs/definitions.md` says what each number means.
//!
//! Where to look:
//!
//! | what | where |
//! |---|---|
//! | a table's columns | `artifact::tables` |
//! | a setting, its default, what is refused | `config` |
//! | a stage: settings, files and tables that it depends on | `pipeline/table.rs` |
//! | why a stage is stale | `lock`, `pipeline/plan.rs` |
//! | `config.json` of the model; whether the model is right | `model/config.rs`; `model/check.rs` |
//! | direct effects, circuits, faithfulness | `circuit` |
//! | what a head attends to and copies | `circuit/heads.rs`, gathered by `stages/heads.rs` |
//! | steering | `circuit/steer.rs`, `stages/evaluate/steering.rs` |
//! | detection and fuzzing scores | `stages/evaluate/judging.rs`, `stats/trials.rs` |
//! | a language model's errors, a 429 | `llm/retry.rs` |
//! | cost and budget; cached replies | `llm/budget.rs`; `llm/response_cache.rs` |
//! | formats of dictionaries | `dictionary/load/` |
//! | what a page shows | `site/views/`, `templates/` |
//! | what `show` answers | `show/` |
//! | what other tools get | `export/` |
//!
//! The modules ("rooms"), each using only those above it:
//!
//! - `ids`, `error`, `process`, `vectors`, `text_file`: names and fixed words of tables; errors
//!   with a hint; output and signals; loops in vector registers; text files
//! - `config`, `progress`, `format`: settings, progress bars, numbers and text for people
//! - `artifact`: every table, and the only access to the artifact folder
//! - `corpus`, `model`, `stats`, `summary`: texts to token ids, the folded GPT-2, statistics,
//!   sentences from statistics
//! - `dictionary`, `hub`, `lock`, `task`, `llm`: SAEs and transcoders, `hf:` repositories,
//!   what stages last ran with, prompts, requests to a language model
//! - `circuit`: direct effects, methods of discovery, faithfulness, heads, steering
//! - `inputs`: what the settings name, opened
//! - `atlas`: the model of a finished run, loaded from its tables
//! - `site`: the pages
//! - `stages`, `pipeline`: from settings to a run
//! - `show`, `export`, `import`, `check`, `cli`: what a user types

pub mod ids;
pub mod error;
mod process;
mod vectors;
mod text_file;
pub mod config;
pub mod progress;
pub mod artifact;
mod hub;
pub mod lock;
pub mod corpus;
pub mod task;
pub mod model;
pub mod dictionary;
pub mod circuit;
pub mod stats;
pub mod summary;
pub mod llm;
pub mod inputs;
mod history;
mod atlas;
mod format;
mod site;
pub mod stages;

pub mod pipeline;
mod check;
mod show;
mod export;
mod import;
pub mod cli;
