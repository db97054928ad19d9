//! The stages as jobs of Slurm, each after the one before: a job for stages that one process runs,
//! an array for one whose parts several processes make.

use super::download::downloaded;
use super::table::{STAGES, Sharing, Stage};
use crate::artifact::tables::ContextRow;
use crate::artifact::{Row, Store};
use crate::config::{Config, ScoreFeatures, Task};
use crate::error::{Hint, Result, hinted};
use crate::format::number::counted;
use crate::inputs::{self, check_apart};
use crate::model::Sizes;
use crate::process;
use crate::stages;
use crate::task::WRITTEN;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tasks of an array, where neither the settings nor the command line say how many.
const TASKS: usize = 16;
/// CPUs of a job, where no setting says how many.
const CPUS: usize = 8;
/// Tokens of a prompt, and runs of circuits for each ablation: about as many as are usual or more.
const PROMPT: usize = 32;
const RUNS: usize = 200;
/// Multiplications that a CPU does in a second at least.
const SPEED: f64 = 1e9;
/// Exit codes after which another try would end the same way, or is not wanted: an error that stays;
/// wrong arguments; answers of a language model that failed; a panic; SIGINT and SIGTERM. Others are
/// of kills, and of errors that may pass.
const FINAL: &str = "1 | 2 | 3 | 4 | 101 | 130 | 143";
/// The line that ends a script in what `--print` prints.
const END: &str = "END_OF_JOB";

/// Submits the jobs, and says which they are.
///
/// # Errors
/// When something would stop the run, a path cannot be written into a script, or `sbatch` is missing
/// or refuses a job.
pub(crate) fn submit(config: &Config, settings: &Path, shards: Option<u32>) -> Result<()> {
    let plan = Plan::new(config, settings, shards)?;
    std::fs::create_dir_all(&plan.logs).hint(
        || format!("cannot make the folder `{}`", plan.logs.display()),
        "set `slurm.logs` to a folder that can be written",
    )?;
    let mut submitted: Vec<String> = Vec::new();
    for job in plan.jobs() {
        let number = job.submit(&plan, &submitted)?;
        let tasks = job.tasks().map_or(String::new(), |n| format!(", {}", counted(n, "task")));
        let after =
            submitted.last().map_or(String::new(), |before| format!(", after job {before}"));
        process::say(format_args!("{:<18} job {number}{tasks}{after}", job.name));
        submitted.push(number);
    }
    process::note(format_args!(
        "`squeue` tells how far they are; what they say is in `{}`",
        plan.logs.display()
    ));
    Ok(())
}

/// Prints a shell script that submits the same jobs.
///
/// # Errors
/// As of [`submit`], but for `sbatch`.
pub(crate) fn print(config: &Config, settings: &Path, shards: Option<u32>) -> Result<()> {
    let plan = Plan::new(config, settings, shards)?;
    let mut text = format!("set -e\nmkdir -p {}\n", quoted(&plan.logs)?);
    let mut before: Option<String> = None;
    for job in plan.jobs() {
        let after = before.as_ref().map_or(String::new(), |name| {
            // A federation's cluster stands behind the number.
            format!(" {}\"${{{name}%%;*}}\"", dependency(""))
        });
        let script = job.script(&plan)?;
        let name = job.variable();
        text += &format!("\n{name}=$(sbatch --parsable{after} <<'{END}'\n{script}{END}\n)\n");
        text += &format!("echo \"{} ${name}\"\n", job.name);
        before = Some(name);
    }
    process::write(process::Stream::Stdout, &text);
    Ok(())
}

/// What the scripts of all jobs are made from.
struct Plan<'a> {
    config: &'a Config,
    program: PathBuf,
    settings: PathBuf,
    folder: PathBuf,
    logs: PathBuf,
    /// Tasks of an array, if somebody said how many; else 0.
    wanted: usize,
    /// Of the corpus, as far as that can be told.
    parts: Option<usize>,
    sizes: Sizes,
    /// Of all dictionaries.
    features: usize,
}

/// Stages that are run by one job, or by the tasks of an array.
struct Job {
    /// Its first stage, and what of it is done where there are several jobs of it.
    name: String,
    kind: Kind,
}

enum Kind {
    /// Of one stage, in so many tasks.
    Array(&'static Stage, usize),
    /// Of several; none: of all that are not fresh by then.
    Whole(Vec<&'static str>),
}

impl<'a> Plan<'a> {
    fn new(config: &'a Config, settings: &Path, shards: Option<u32>) -> Result<Plan<'a>> {
        let absolute = |path: &Path| {
            std::path::absolute(path).hint(
                || format!("cannot tell where `{}` is", path.display()),
                "start the program in a folder that exists",
            )
        };
        let program = std::env::current_exe()
            .hint(|| "cannot tell where this program is".into(), "start it by its whole path")?;
        // What would stop the first job is told here.
        check_apart(config)?;
        let there = downloaded(config)?;
        stages::check(&there, false)?;
        Ok(Plan {
            config,
            program,
            settings: absolute(settings)?,
            folder: absolute(&config.folder.join("."))?,
            logs: absolute(&config.path(&config.slurm.logs))?,
            wanted: shards.map_or(config.slurm.shards, |shards| shards as usize),
            parts: parts(config),
            sizes: inputs::sizes(&there)?,
            features: inputs::every_feature(&there)?,
        })
    }

    /// The stages in their order. What arrays have begun is ended by the next job that is none: the
    /// last one runs whatever is not fresh by then.
    fn jobs(&self) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        // Stages that the next whole job runs, and those of them that are begun by arrays whose
        // parts are final.
        let (mut open, mut parted): (Vec<&Stage>, Vec<&Stage>) = Default::default();
        for stage in STAGES.iter() {
            let (rounds, is_final) = match (stage.sharing)(self.config) {
                Sharing::Alone => (0, false),
                Sharing::Contexts => (1, true),
                // One process is as fast.
                Sharing::Work { parts: ..=1, .. } if self.wanted == 0 => (0, false),
                Sharing::Work { rounds, .. } => (rounds, false),
            };
            if rounds > 0 {
                let is_parted =
                    |stage: &&Stage| parted.iter().any(|other| other.name == stage.name);
                let only_parts = open.iter().all(is_parted);
                if !(open.is_empty() || is_final && only_parts) {
                    jobs.push(Job::whole(std::mem::take(&mut open), &jobs));
                }
                let tasks = self.tasks(stage);
                jobs.extend((1..=rounds).map(|round| Job {
                    name: match rounds {
                        1 => stage.name.into(),
                        _ => format!("{}-{round}", stage.name),
                    },
                    kind: Kind::Array(stage, tasks),
                }));
            }
            open.push(stage);
            parted.extend(is_final.then_some(stage));
        }
        let last = Job::whole(open, &jobs);
        jobs.push(Job { kind: Kind::Whole(Vec::new()), ..last });
        jobs
    }

    /// Tasks of a stage's array: as many as there are parts, up to a limit.
    fn tasks(&self, stage: &Stage) -> usize {
        if self.wanted > 0 {
            return self.wanted;
        }
        let parts = match (stage.sharing)(self.config) {
            Sharing::Work { parts, .. } => Some(parts),
            _ => self.parts,
        };
        parts.map_or(TASKS, |parts| parts.clamp(1, TASKS))
    }

    fn cpus(&self) -> usize {
        match (self.config.slurm.cpus, self.config.machine.threads) {
            (0, 0) => CPUS,
            (0, threads) => threads,
            (cpus, _) => cpus,
        }
    }

    /// Multiplications of a token, and parameters that are not of single tokens: twelve matrices of
    /// the width squared in each layer, if its MLP is four times as wide.
    fn of_layers(&self) -> f64 {
        let Sizes { layers, d_model, d_mlp, .. } = self.sizes;
        layers as f64 * d_model as f64 * (4 * d_model + 2 * d_mlp) as f64
    }

    /// Memory of a job in GiB: `machine.memory`; the model three times, as it is folded when it is
    /// read; what each CPU computes of the contexts that it runs at once; activations of contexts
    /// that are ready to be written; and as much again for jobs that hold tables and dictionaries.
    fn memory(&self, job: &Job) -> u64 {
        const NUMBER: f64 = 4.0;
        const GIB: f64 = (1u64 << 30) as f64;
        let Sizes { layers, d_model, d_mlp, positions, vocabulary, .. } = self.sizes;
        let model = self.of_layers() + ((vocabulary + positions) * d_model) as f64;
        let tokens = (self.cpus() * self.config.machine.batch * self.config.corpus.context) as f64;
        let computed = tokens * (8 * d_model + 2 * d_mlp) as f64;
        let ready = tokens * (2 * layers * d_model) as f64;
        let of_contexts = |stage: &Stage| (stage.sharing)(self.config) == Sharing::Contexts;
        let whole = match &job.kind {
            Kind::Array(stage, _) if of_contexts(stage) => 1.0,
            _ => 2.0,
        };
        (1.0 + self.config.machine.memory + whole * NUMBER * (3.0 * model + computed + ready) / GIB)
            .ceil() as u64
    }

    /// Multiplications of a token that is encoded by all dictionaries.
    fn of_dictionaries(&self) -> f64 {
        (self.features * self.sizes.d_model) as f64
    }

    /// Tokens of the corpus, if each task of an array has as many parts as any.
    fn tokens(&self, tasks: usize) -> f64 {
        let corpus = &self.config.corpus;
        let parts = self.parts.unwrap_or(tasks).div_ceil(tasks) * tasks;
        (parts * corpus.shard_contexts * corpus.context) as f64
    }

    /// Hours of an array's task, of which it needs a part on most machines.
    fn hours(&self, stage: &Stage, tasks: usize) -> u64 {
        let config = self.config;
        let (corpus, attention) = (&config.corpus, 2 * self.sizes.layers * self.sizes.d_model);
        let of_token = self.of_layers() + (attention * corpus.context) as f64;
        let prompts = |more: usize| -> f64 {
            let of = |task: &Task| task.prompts.unwrap_or(WRITTEN) + more;
            (config.tasks.iter().map(of).sum::<usize>() * PROMPT) as f64
        };
        let multiplications = match stage.name {
            // Each prompt is run about as often as this, with all dictionaries.
            "discover" => {
                let more = config.discover.prompts + config.discover.choose;
                4.0 * prompts(more) * (of_token + self.of_dictionaries())
            }
            "verify" => {
                let found = prompts(config.discover.prompts) * config.verify.methods.len() as f64;
                let runs = (RUNS * config.verify.ablations.len()) as f64;
                4.0 * found * (of_token + self.of_dictionaries())
                    + runs * prompts(config.verify.prompts) * of_token
            }
            "aggregate" => {
                let vocabulary = self.sizes.vocabulary;
                (self.features * self.sizes.d_model * vocabulary) as f64
            }
            "score" if config.score.features == ScoreFeatures::All => {
                self.tokens(tasks) * (of_token + self.of_dictionaries())
            }
            _ => self.tokens(tasks) * of_token,
        };
        let seconds = multiplications / (tasks as f64 * SPEED * self.cpus() as f64);
        1 + (seconds / 3600.0).ceil() as u64
    }
}

/// Parts of the corpus, as far as that can be told.
fn parts(config: &Config) -> Option<usize> {
    let corpus = &config.corpus;
    let most = Some(corpus.max_contexts.div_ceil(corpus.shard_contexts)).filter(|most| *most > 0);
    let there = Store::new(&config.artifacts()).parts(&ContextRow::ARTIFACT).ok();
    match (there.map(|parts| parts.len()), most) {
        (Some(there), Some(most)) => Some(there.min(most)),
        (there, most) => there.or(most),
    }
}

impl Job {
    /// One that runs stages whole. It is called as the first of them that no array is called as.
    fn whole(stages: Vec<&'static Stage>, before: &[Job]) -> Job {
        let is_array = |stage: &Stage| {
            before.iter().any(|job| matches!(job.kind, Kind::Array(of, _) if of.name == stage.name))
        };
        let name = match stages.iter().find(|stage| !is_array(stage)) {
            Some(stage) => stage.name.into(),
            None => format!("{}-end", stages.first().map_or("run", |stage| stage.name)),
        };
        Job { name, kind: Kind::Whole(stages.iter().map(|stage| stage.name).collect()) }
    }

    fn tasks(&self) -> Option<usize> {
        match self.kind {
            Kind::Array(_, tasks) => Some(tasks),
            Kind::Whole(_) => None,
        }
    }

    /// What of the program is run.
    fn command(&self) -> String {
        match &self.kind {
            Kind::Array(stage, tasks) => {
                format!("run {} --shard \"$SLURM_ARRAY_TASK_ID/{tasks}\"", stage.name)
            }
            Kind::Whole(stages) => format!("run {}", stages.join(" ")).trim_end().into(),
        }
    }

    /// Its name as that of a shell's variable.
    fn variable(&self) -> String {
        self.name.replace('-', "_")
    }

    /// # Errors
    /// When a path cannot be written into it.
    fn script(&self, plan: &Plan) -> Result<String> {
        let slurm = &plan.config.slurm;
        let mut options = vec![
            format!("--job-name=atlas-{}", self.name),
            "--requeue".into(),
            "--open-mode=append".into(),
            "--kill-on-invalid-dep=yes".into(),
            format!("--chdir={}", in_option(&plan.folder)?),
        ];
        let number = if self.tasks().is_some() { "%A_%a" } else { "%j" };
        // A `%` of the folder itself is written twice.
        let logs = PathBuf::from(plan.logs.display().to_string().replace('%', "%%"));
        let log = logs.join(format!("{}-{number}.log", self.name));
        options.push(format!("--output={}", in_option(&log)?));
        if let Some(tasks) = self.tasks() {
            options.push(format!("--array=1-{tasks}"));
        }
        options.push(format!("--cpus-per-task={}", plan.cpus()));
        options.push(match slurm.memory.as_str() {
            "" => format!("--mem={}G", plan.memory(self)),
            memory => format!("--mem={memory}"),
        });
        match (slurm.time.as_str(), &self.kind) {
            ("", Kind::Array(stage, tasks)) if stage.asks.is_none() => {
                options.push(format!("--time={}:00:00", plan.hours(stage, *tasks)));
            }
            // What a server or other jobs take cannot be told: the partition's own limit.
            ("", _) => {}
            (time, _) => options.push(format!("--time={time}")),
        }
        let named = [("partition", &slurm.partition), ("account", &slurm.account)];
        let named = named.into_iter().filter(|(_, value)| !value.is_empty());
        options.extend(named.map(|(key, value)| format!("--{key}={value}")));
        options.extend(slurm.options.iter().cloned());
        let options: String = options.iter().map(|option| format!("#SBATCH {option}\n")).collect();
        let (program, settings) = (quoted(&plan.program)?, quoted(&plan.settings)?);
        let threads = match plan.config.machine.threads {
            // Else there would be one for each CPU of the machine where Slurm does not confine jobs.
            0 => "export RAYON_NUM_THREADS=\"$SLURM_CPUS_PER_TASK\"\n",
            _ => "",
        };
        let (command, retries) = (self.command(), slurm.retries);
        Ok(format!(
            "#!/bin/bash\n{options}\n{threads}try=0\nuntil {program} {command} --config \
             {settings}; do\n  code=$?\n  case $code in ({FINAL}) exit $code ;; esac\n  [ $try -lt \
             {retries} ] || exit $code\n  try=$((try + 1))\n  echo \"exit code $code: retry $try \
             of {retries} in 10 seconds\" >&2\n  sleep 10\ndone\n"
        ))
    }

    /// The number that Slurm gives it.
    fn submit(&self, plan: &Plan, submitted: &[String]) -> Result<String> {
        let script = self.script(plan)?;
        let mut sbatch = Command::new("sbatch");
        sbatch.arg("--parsable").args(submitted.last().map(|before| dependency(before)));
        sbatch.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = sbatch.spawn().hint(
            || "cannot run `sbatch`".into(),
            "run this where jobs of Slurm are submitted; `--print` prints a script that submits \
             them",
        )?;
        // Whether it was read shows in how `sbatch` ends.
        drop(child.stdin.take().map(|mut stdin| stdin.write_all(script.as_bytes())));
        let output = child
            .wait_with_output()
            .hint(|| "cannot read what `sbatch` says".into(), "look with `squeue` for the jobs")?;
        let said = String::from_utf8_lossy(&output.stdout);
        // A federation's cluster stands behind the number.
        let number = said.trim().split(';').next().unwrap_or_default();
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if output.status.success() && is_number {
            return Ok(number.into());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        let why = if why.trim().is_empty() { said.trim() } else { why.trim() };
        Err(hinted(
            format!("`sbatch` does not take the job of `{}`: {why}", self.name),
            match submitted {
                [] => "no job was submitted; see `[slurm]` in the settings".into(),
                jobs => format!(
                    "see `[slurm]` in the settings; `scancel {}` removes the jobs that were \
                     submitted",
                    jobs.join(" ")
                ),
            },
        ))
    }
}

/// The option that lets a job wait for another one.
fn dependency(job: &str) -> String {
    format!("--dependency=afterok:{job}")
}

/// A path as a word of a shell.
fn quoted(path: &Path) -> Result<String> {
    Ok(format!("'{}'", written(path)?.replace('\'', r"'\''")))
}

/// A path as the value of an option in a script: `sbatch` reads quotes, but none inside of them.
fn in_option(path: &Path) -> Result<String> {
    let text = written(path)?;
    if text.contains(['"', '\\']) {
        return Err(unwritable(path));
    }
    Ok(format!("\"{text}\""))
}

fn written(path: &Path) -> Result<&str> {
    path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| unwritable(path))
}

fn unwritable(path: &Path) -> anyhow::Error {
    hinted(
        format!("{path:?} cannot be written into a script of Slurm"),
        "use paths of UTF-8 without quotes, backslashes and line breaks",
    )
}
