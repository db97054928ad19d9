//! circuit-atlas: from a GPT-2, its dictionaries and a corpus to a browsable atlas of the circuits
//! that carry out a task.
//!
//! Read [`pipeline`] first: its table names every stage, what it depends on and what it writes. A
//! stage ([`stages`]) reads tables, calls rooms and writes tables. The rooms, from the nouns up:
//!
//! - [`ids`], [`error`], [`config`], [`progress`]: names, messages, settings, bars
//! - [`artifact`]: every table, and the only door to the artifact folder
//! - [`hub`]: repositories of the Hugging Face hub as folders
//! - [`corpus`], [`task`]: texts and prompts to token ids
//! - [`model`], [`dictionary`], [`circuit`]: the folded GPT-2, what its dictionaries read, what an
//!   answer is made of
//! - [`stats`], [`summary`]: numbers and sentences about features
//! - [`llm`]: questions to a language model, and its replies, each paid for once
//! - [`site`]: the pages
//! - [`stages`], [`lock`], [`pipeline`], [`check`], [`cli`]: from settings to a run
//! - [`show`]: questions answered in the terminal

pub mod ids;
pub mod error;
pub mod config;
pub mod progress;
pub mod artifact;
pub mod hub;
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
pub mod atlas;
pub mod format;
pub mod site;
pub mod stages;

pub mod pipeline;
pub mod check;
pub mod show;
pub mod cli;
