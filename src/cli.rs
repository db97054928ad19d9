//! The command line: what a user types, and which part of the library answers.

use crate::config::{Config, Snapshot};
use crate::error::{HeldBack, Hint, Result, may_pass, report};
use crate::export::{self, Tool};
use crate::format::number::counted;
use crate::ids::Shard;
use crate::import::{self, Import};
use crate::pipeline::{self, Cleaned, Selection, Told, slurm};
use crate::process::{self, Stopped, Stream};
use crate::show::{self, Look, ShowQuestion, TraceQuestion};
use crate::stages::Done;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::fmt::Display;
use std::io::IsTerminal;
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
    #[command(after_help = format!("{}\n\n{RUN_HELP}", pipeline::help()))]
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
        /// Take stages for complete although replies of a language model failed in them; the pages
        /// still say which
        #[arg(long, conflicts_with_all = ["again", "dry_run"])]
        accept_failed: bool,
        /// Print what would run, with the number and cost of requests to a language model; needs no
        /// key
        #[arg(long)]
        dry_run: bool,
        /// Make every N-th part of one stage, beside processes that make the others; then run the
        /// stage without it
        #[arg(long, value_name = "I/N", conflicts_with_all = ["from", "force", "again", "accept_failed", "dry_run"])]
        shard: Option<Shard>,
        /// Begin each line of the log with the time, in UTC; `auto`: where it is no terminal
        #[arg(long, value_name = "WHEN", default_value = "auto")]
        times: Times,
        #[command(flatten)]
        settings: Settings,
    },
    /// List which stages are fresh, which would run, and why
    #[command(after_help = STATUS_HELP)]
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
    /// Find the circuit of a prompt that you type, as tables, JSON or a page; needs no finished run
    Trace {
        #[command(flatten)]
        question: TraceQuestion,
        #[command(flatten)]
        look: Look,
        #[command(flatten)]
        settings: Settings,
    },
    /// Take what others have written about features into this run
    Import {
        #[command(subcommand)]
        what: Import,
        #[command(flatten)]
        settings: Settings,
    },
    /// Write the results of a finished run in the format of another tool
    Export {
        tool: Tool,
        /// A new folder
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
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
        /// Delete the kept runs instead, of which `diff` and the page of changes tell
        #[arg(long, conflicts_with = "stage")]
        runs: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print what changed from one published run to another, as lines or JSON
    Diff {
        /// The run before, by the beginning of its name, or `latest`; not given: the one before the
        /// second
        before: Option<String>,
        /// The run after, or `now`: the tables in the artifact folder; not given: the latest
        after: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Print the names of the runs that are kept
        #[arg(long, conflicts_with_all = ["before", "after"])]
        list: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Submit the run as jobs of Slurm, with arrays for the stages that can run in shards
    Slurm {
        /// Only print a shell script that submits them
        #[arg(long)]
        print: bool,
        /// Tasks of each array
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        shards: Option<u32>,
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

/// When lines of a log begin with the time.
#[derive(Clone, Copy, ValueEnum)]
enum Times {
    // No doc comments, as above.
    Auto,
    Always,
    Never,
}

impl Times {
    fn set(self) {
        let is_log = || !std::io::stderr().is_terminal();
        if matches!(self, Times::Always) || matches!(self, Times::Auto) && is_log() {
            process::tell_times();
        }
    }
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

const RUN_HELP: &str = "The exit code is 3 if a run came to its end but replies of a language model \
                        failed or are missing, 4 if its site was not published, as it does not meet \
                        `[publish]`, and 75 if another try may succeed: the disk or the network \
                        failed, or another run uses the folder.";
const STATUS_HELP: &str = "The exit code is 3 while a stage is incomplete: replies of a language \
                           model failed in it, and nobody has accepted that.";

/// The exit code of a run that came to its end, but without all answers of language models, and of
/// `status` after it.
const UNANSWERED: u8 = 3;
/// The exit code of a run whose site was not published, because it misses a bound of `[publish]`.
const HELD_BACK: u8 = 4;

/// The exit code of a temporary error, after which a retry may succeed: `EX_TEMPFAIL` of `sysexits.h`.
const PASSING: u8 = 75;

/// Answers the command line that the program was started with. What went wrong is told, and is in
/// the exit code.
pub fn main() -> ExitCode {
    let done = match Cli::try_parse() {
        Ok(cli) => run(cli),
        // Help and the version come as errors, too.
        Err(error) => {
            let stream = if error.use_stderr() { Stream::Stderr } else { Stream::Stdout };
            process::written(stream, error.print());
            Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1)))
        }
    };
    let (code, why) = match done {
        Ok(code) => (code, process::stopped().filter(|why| !matches!(why, Stopped::Signal(_)))),
        Err(error) => match error.downcast_ref::<Stopped>() {
            Some(_) => (ExitCode::FAILURE, process::stopped()),
            None => {
                process::note(report(&error).trim_end());
                let code = match may_pass(&error) {
                    _ if error.is::<HeldBack>() => HELD_BACK,
                    true => PASSING,
                    false => 1,
                };
                (ExitCode::from(code), None)
            }
        },
    };
    let Some(why) = why else { return code };
    match why {
        Stopped::Closed => {}
        Stopped::Unwritable(..) => process::note(format_args!("error: {why}")),
        Stopped::Signal(_) => process::note(format_args!(
            "{why}: finished stages, parts and replies are kept; `circuit-atlas run` goes on from \
             there"
        )),
    }
    ExitCode::from(why.code())
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Run { stages, from, force, dry_run: true, settings, .. } => {
            let selection = Selection { stages, from, force, ..Selection::default() };
            pipeline::rehearse(&settings.load()?, &selection)?;
        }
        Command::Run { stages, shard: Some(shard), settings, times, .. } => {
            times.set();
            let config = settings.load()?;
            watch_signals()?;
            pipeline::run_shard(&config, &stages, shard)?;
        }
        Command::Run {
            stages,
            from,
            force,
            again,
            accept_failed: accept,
            dry_run: false,
            shard: None,
            times,
            settings,
        } => {
            times.set();
            let config = settings.load()?;
            watch_signals()?;
            let whole = stages.is_empty();
            let again = matches!(again, Some(Again::Failed));
            let done = pipeline::run(&config, &Selection { stages, from, force, again, accept })?;
            let index = config.path(&config.output.site).join("index.html");
            if whole {
                process::say(index.display());
            }
            return Ok(unanswered(&done));
        }
        Command::Status { settings, verbose } => return status(&settings.load()?, verbose),
        Command::Check { settings } => crate::check::check(&settings.load()?)?,
        Command::Show { question, look, settings } => {
            show::show(&settings.load()?, &question, &look)?
        }
        Command::Trace { question, look, settings } => {
            show::trace(&settings.load()?, &question, &look)?
        }
        Command::Import { what, settings } => import::import(&settings.load()?, &what)?,
        Command::Export { tool, out, settings } => {
            let config = settings.load()?;
            watch_signals()?;
            let said = export::export(&config, tool, &out)?;
            process::say(format_args!("{said} in `{}`", out.display()));
        }
        Command::Fetch { update, corpus, settings } => {
            let snapshots = pipeline::fetch(&settings.load()?, corpus, update)?;
            if snapshots.is_empty() {
                process::note("nothing to download: no setting starts with `hf:`");
            }
            for snapshot in snapshots {
                let Snapshot { name, commit, folder, .. } = snapshot;
                process::say(format_args!("{name} → {commit}, {}", folder.display()));
            }
        }
        Command::Clean { runs: true, settings, .. } => {
            let removed = pipeline::clean_runs(&settings.load()?)?;
            process::note(format_args!("{} removed", counted(removed, "kept run")));
        }
        Command::Clean { stage, settings, runs: false } => {
            for Cleaned { stage, left } in pipeline::clean(&settings.load()?, stage.as_deref())? {
                process::note(format_args!("{stage:<10} removed"));
                left.iter().for_each(|left| process::note(format_args!("{stage:<10} {left}")));
            }
        }
        Command::Diff { before, after, json, list, settings } => {
            let config = settings.load()?;
            match list {
                true => show::kept_runs(&config, json)?,
                false => show::diff(&config, before.as_deref(), after.as_deref(), json)?,
            }
        }
        Command::Slurm { print, shards, settings } => {
            let submit = if print { slurm::print } else { slurm::submit };
            submit(&settings.load()?, &settings.config, shards)?;
        }
        Command::Completions { shell } => {
            let (mut command, mut script) = (Cli::command(), Vec::new());
            let name = command.get_name().to_string();
            clap_complete::generate(shell, &mut command, name, &mut script);
            process::write(Stream::Stdout, &String::from_utf8_lossy(&script));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn watch_signals() -> Result<()> {
    process::watch_signals()
        .hint(|| "cannot watch for signals".into(), "check the limits on threads and open files")
}

/// Says what a run came short of; everything else of it is whole.
fn unanswered(done: &Done) -> ExitCode {
    if done.failed > 0 {
        process::note(format_args!(
            "{} replies of the language model could not be used; the pages say which and why",
            done.failed
        ));
    }
    if done.left > 0 {
        process::note(format_args!(
            "{} requests have no reply yet; `circuit-atlas run` sends only these again",
            done.left
        ));
    }
    if done.failed + done.left > 0 { ExitCode::from(UNANSWERED) } else { ExitCode::SUCCESS }
}

/// Tells of each stage whether it is fresh, and why not: causes first, what follows from them
/// folded; with `verbose`, every stage with every reason. The exit code says whether answers failed.
fn status(config: &Config, verbose: bool) -> Result<ExitCode> {
    const FEW: usize = 3;
    let states = pipeline::status(config)?;
    let running = pipeline::is_held(&config.artifacts());
    if running {
        process::note("a run is going on: this is how far it is");
    }
    let told = match verbose {
        false => pipeline::causes_first(&states),
        true => states.iter().map(Told::whole).collect(),
    };
    for Told { state, causes, after } in told {
        let name = state.stage.name;
        if let Some(refused) = &state.refused {
            process::say(format_args!("{name:<10} would be refused: {refused}"));
            continue;
        }
        let Some((first, rest)) = causes.split_first() else {
            process::say(format_args!("{name:<10} {}", state.at_rest()));
            if state.failed > 0 {
                process::say(format_args!("{:<10} {}", "", state.next_steps()));
            }
            continue;
        };
        match running && state.begun {
            true => process::say(format_args!("{name:<10} is running")),
            false => process::say(format_args!("{name:<10} would run: {first}")),
        }
        let shown = if verbose { rest.len() } else { rest.len().min(FEW - 1) };
        let more = |text: &dyn Display| process::say(format_args!("{:<10} {text}", ""));
        rest[..shown].iter().for_each(|reason| more(&format_args!("{:<10} {reason}", "")));
        if rest.len() > shown {
            let others = rest.len() - shown;
            more(&format_args!("{:<10} and {others} more reasons (`--verbose`)", ""));
        }
        if state.failed > 0 {
            more(&state.at_rest());
            more(&state.next_steps());
        }
        if !after.is_empty() {
            let stages = counted(after.len(), "stage");
            more(&format_args!("and {stages} after it: {}", after.join(", ")));
        }
    }
    let failed = states.iter().any(|state| state.failed > 0);
    Ok(if failed { ExitCode::from(UNANSWERED) } else { ExitCode::SUCCESS })
}
