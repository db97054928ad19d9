//! The command line: what a user types, and which part of the library answers.

use crate::config::Config;
use crate::error::Result;
use crate::format::number::counted;
use crate::pipeline::{self, Cleaned, Selection, Told};
use crate::show::{self, Look, ShowQuestion};
use crate::stages::Done;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Finds circuits of a GPT-2 model, scores their features over a corpus, and writes a static site.
#[derive(Parser)]
#[command(name = "circuit-atlas", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all stages that are not fresh, or only those named
    #[command(after_help = pipeline::help())]
    Run {
        /// Only these stages
        stages: Vec<String>,
        /// Only this stage and those after it
        #[arg(long, value_name = "STAGE")]
        from: Option<String>,
        /// Run stages even if they are fresh
        #[arg(long)]
        force: bool,
        /// Ask a language model again for its replies that failed, and for those that are missing
        #[arg(long, value_name = "WHICH", conflicts_with = "dry_run")]
        again: Option<Again>,
        /// Print what would run, with the number and cost of requests to a language model; needs no
        /// key
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// List which stages are fresh, which would run, and why
    Status {
        /// Print every reason of every stage
        #[arg(long)]
        verbose: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Check settings, model, tokenizer, dictionaries and corpus, in seconds
    Check {
        #[command(flatten)]
        settings: Settings,
    },
    /// Print results of a finished run, as tables or JSON
    Show {
        #[command(subcommand)]
        question: ShowQuestion,
        #[command(flatten)]
        look: Look,
        #[command(flatten)]
        settings: Settings,
    },
    /// Download what the settings name by `hf:…`, and pin its revisions; `run` does so too
    Fetch {
        /// Pin each revision to its current commit
        #[arg(long)]
        update: bool,
        /// Download the whole corpus too; `run` downloads only the files that it reads
        #[arg(long)]
        corpus: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Delete all results, or those of one stage and of the stages that depend on it
    Clean {
        stage: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print a script that completes commands and options in a shell
    Completions { shell: Shell },
}

/// Which replies are asked for again.
#[derive(Clone, Copy, ValueEnum)]
enum Again {
    // No doc comment: with one, clap prints every option of the help on two lines.
    Failed,
}

#[derive(Args)]
struct Settings {
    /// Settings file
    #[arg(long, value_name = "FILE", global = true, default_value = "pipeline.toml")]
    config: PathBuf,
}

impl Settings {
    fn load(&self) -> Result<Config> {
        Config::load(&self.config)
    }
}

/// The exit code of a run that came to its end, but without all answers of language models.
const UNANSWERED: u8 = 3;

/// Answers a command line.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Run { stages, from, force, again: _, dry_run: true, settings } => {
            let selection = Selection { stages, from, force, again: false };
            pipeline::rehearse(&settings.load()?, &selection)?;
        }
        Command::Run { stages, from, force, again, dry_run: false, settings } => {
            let config = settings.load()?;
            let whole = stages.is_empty();
            let again = matches!(again, Some(Again::Failed));
            let done = pipeline::run(&config, &Selection { stages, from, force, again })?;
            let index = config.path(&config.output.site).join("index.html");
            if whole {
                println!("{}", index.display());
            }
            return Ok(unanswered(&done));
        }
        Command::Status { settings, verbose } => status(&settings.load()?, verbose)?,
        Command::Check { settings } => crate::check::check(&settings.load()?)?,
        Command::Show { question, look, settings } => {
            show::show(&settings.load()?, &question, &look)?
        }
        Command::Fetch { update, corpus, settings } => {
            let snapshots = pipeline::fetch(&settings.load()?, corpus, update)?;
            if snapshots.is_empty() {
                eprintln!("nothing to download: no setting starts with `hf:`");
            }
            for snapshot in snapshots {
                println!("{} → {}, {}", snapshot.name, snapshot.commit, snapshot.folder.display());
            }
        }
        Command::Clean { stage, settings } => {
            for Cleaned { stage, left } in pipeline::clean(&settings.load()?, stage.as_deref())? {
                eprintln!("{stage:<10} removed");
                left.iter().for_each(|left| eprintln!("{stage:<10} {left}"));
            }
        }
        Command::Completions { shell } => {
            let (mut command, mut script) = (Cli::command(), Vec::new());
            let name = command.get_name().to_string();
            clap_complete::generate(shell, &mut command, name, &mut script);
            std::io::stdout().write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what a run came short of; everything else of it is whole.
fn unanswered(done: &Done) -> ExitCode {
    if done.failed > 0 {
        eprintln!(
            "{} replies of the language model could not be used; the pages say which and why",
            done.failed
        );
    }
    if done.left > 0 {
        eprintln!(
            "{} requests have no reply yet; `circuit-atlas run` sends only these again",
            done.left
        );
    }
    if done.failed + done.left > 0 { ExitCode::from(UNANSWERED) } else { ExitCode::SUCCESS }
}

/// Tells of each stage whether it is fresh, and why not: causes first, what follows from them
/// folded; with `verbose`, every stage with every reason.
fn status(config: &Config, verbose: bool) -> Result<()> {
    const FEW: usize = 3;
    let states = pipeline::status(config)?;
    let told = match verbose {
        false => pipeline::causes_first(&states),
        true => states.iter().map(Told::whole).collect(),
    };
    for Told { state, causes, after } in told {
        let name = state.stage.name;
        if let Some(refused) = &state.refused {
            println!("{name:<10} would be refused: {refused}");
            continue;
        }
        let Some((first, rest)) = causes.split_first() else {
            println!("{name:<10} fresh");
            continue;
        };
        println!("{name:<10} would run: {first}");
        let shown = if verbose { rest.len() } else { rest.len().min(FEW - 1) };
        rest[..shown].iter().for_each(|reason| println!("{:<10}            {reason}", ""));
        if rest.len() > shown {
            let more = rest.len() - shown;
            println!("{:<10}            and {more} more reasons (`--verbose`)", "");
        }
        if !after.is_empty() {
            let stages = counted(after.len(), "stage");
            println!("{:<10} and {stages} after it: {}", "", after.join(", "));
        }
    }
    Ok(())
}
