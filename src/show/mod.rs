//! `circuit-atlas show`: questions about features, components, circuits and tasks, answered in the
//! terminal from the tables of a finished run; and `circuit-atlas trace`, from the model itself.
//!
//! A file a question. Each gathers one plain value, its `Answer`, of which both the tables and the
//! JSON are made. Text of corpora, tokenizers and language models reaches the terminal only through
//! `page`, which makes it harmless.

mod component;
mod computed;
mod diff;
mod feature;
mod head;
mod names;
mod page;
mod pairs;
mod prompt;
mod task;
mod together;
mod trace;
mod tuples;
mod unscored;

use crate::config::Config;
use crate::error::Result;
use crate::format::text::harmless_json;
use crate::pipeline;
use crate::process::{self, Stream};
use crate::stages::Run;
use clap::{Args, Subcommand, ValueEnum};
use computed::Promotion;
pub(crate) use diff::{diff, kept_runs};
use feature::FeatureWishes;
use page::Page;
pub(crate) use page::say_labelled;
use serde::Serialize;
use std::io::IsTerminal;
pub(crate) use trace::{TraceQuestion, trace};

/// What can be asked.
#[derive(Subcommand)]
pub(crate) enum ShowQuestion {
    /// One feature: statistics, explanation, promoted tokens, examples; one that was not scored is
    /// measured on a sample of the corpus
    Feature {
        /// Such as `att9.16109` or `mlp0.10173`
        feature: String,
        #[command(flatten)]
        wishes: FeatureWishes,
    },
    /// Several features as one: summed examples, combined logits, co-occurrence
    Features {
        /// Scored features, or names of groups
        #[arg(required = true)]
        features: Vec<String>,
        /// Number of summed examples
        #[arg(long, value_name = "N", default_value_t = 10)]
        examples: usize,
        #[command(flatten)]
        promotion: Promotion,
    },
    /// A head or an MLP: its features in the circuits, and components in the same circuits
    Component {
        /// Such as `L9H9` or `MLP3`
        component: String,
        /// Rows of each table; default: 10, as JSON all
        #[arg(long, value_name = "N")]
        top: Option<usize>,
        /// Number of examples; default: that of `--top`, of those that were kept
        #[arg(long, value_name = "N")]
        examples: Option<usize>,
        #[command(flatten)]
        promotion: Promotion,
    },
    /// Pairs of features in circuits, between two components or features (in either order), or of
    /// one with any other
    Pairs {
        /// A component or a feature
        a: String,
        b: Option<String>,
        /// Only in this task
        #[arg(long)]
        task: Option<String>,
        /// Maximum number of pairs
        #[arg(long, value_name = "N", default_value_t = 20)]
        top: usize,
    },
    /// Sets of features or components that are together in the circuits of most prompts
    Tuples {
        /// Sets per task
        #[arg(long, value_name = "N", default_value_t = 10)]
        top: usize,
        /// Members per set
        #[arg(long, value_name = "K", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=6))]
        size: u8,
        /// Sets of components instead of features
        #[arg(long)]
        components: bool,
        /// Only in this task
        #[arg(long)]
        task: Option<String>,
    },
    /// One prompt of a task: the model's answers, and the strongest nodes and links of its circuit
    Prompt {
        task: String,
        /// Its number, from 0, as on its page `graphs/TASK-N.html`
        number: u32,
        /// Rows of each table
        #[arg(long, value_name = "N", default_value_t = 15)]
        top: usize,
    },
    /// A task: accuracy of the model, circuit, faithfulness
    Task {
        task: String,
        /// Rows of each table; default: 15, as JSON all
        #[arg(long, value_name = "N")]
        top: Option<usize>,
    },
}

/// How an answer is written.
#[derive(Args)]
pub(crate) struct Look {
    /// One JSON document, numbers with all digits
    #[arg(long, global = true)]
    json: bool,
    /// When to use colour; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: When,
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl Look {
    fn coloured(&self) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self.color {
            When::Always => true,
            When::Never => false,
            When::Auto => std::io::stdout().is_terminal() && !set("NO_COLOR"),
        }
    }
}

/// An answer: its fields are the JSON.
trait Answer: Serialize {
    /// The same as tables.
    fn print(&self, page: &mut Page);
}

/// Answers a question from the tables of a finished run.
///
/// # Errors
/// When there is no finished run, or it knows nothing of a name.
pub(crate) fn show(config: &Config, question: &ShowQuestion, look: &Look) -> Result<()> {
    pipeline::set_threads(config);
    let text = pipeline::ask(config, |run| answer(run, question, look))?;
    process::write(Stream::Stdout, &text);
    Ok(())
}

fn answer(run: &Run, question: &ShowQuestion, look: &Look) -> Result<String> {
    match question {
        ShowQuestion::Feature { feature, wishes } => {
            written(&feature::ask(run, feature, wishes)?, look)
        }
        ShowQuestion::Features { features, examples, promotion } => {
            written(&together::ask(run, features, *examples, promotion)?, look)
        }
        ShowQuestion::Component { component, top, examples, promotion } => {
            written(&component::ask(run, component, *top, *examples, promotion)?, look)
        }
        ShowQuestion::Pairs { a, b, task, top } => {
            written(&pairs::ask(run, a, b.as_deref(), task.as_deref(), *top)?, look)
        }
        ShowQuestion::Tuples { top, size, components, task } => written(
            &tuples::ask(run, usize::from(*size), *components, task.as_deref(), *top)?,
            look,
        ),
        ShowQuestion::Prompt { task, number, top } => {
            written(&prompt::ask(run, task, *number, *top)?, look)
        }
        ShowQuestion::Task { task, top } => written(&task::ask(run, task, *top)?, look),
    }
}

fn written(answer: &impl Answer, look: &Look) -> Result<String> {
    if look.json {
        return Ok(harmless_json(&serde_json::to_string_pretty(answer)?) + "\n");
    }
    let mut page = Page::new(page::terminal_width(), look.coloured());
    answer.print(&mut page);
    Ok(page.text())
}
