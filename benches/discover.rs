//! How fast circuits are found, on the model and tasks of a settings file:
//!
//! ```text
//! cargo bench --bench discover -- FOLDER     # a folder with a pipeline.toml; or CIRCUIT_ATLAS_BENCH=FOLDER; else the demo
//! ```
//!
//! What it is held against is the same search in PyTorch, as circuits are found today: five greedy
//! passes at GPT-2 small's shape, random weights, 24,576 features a dictionary and about 20 of them
//! active a token, prompts of 14 to 16 tokens: 0.4 s for the forward pass and its cache and 5.0 to
//! 5.6 s for the passes, 53 to 108 nodes a prompt, on 2 quiet cores of an AMD EPYC with AVX2. That
//! time is of one search; here a prompt has up to three (its own, and those of the right and of the
//! wrong answer's logit), unless `discover.contrast` is off. The ratio is printed at that shape
//! only, and means something with settings like these; and where circuits are smaller than those,
//! as in other random worlds, the search has less to do: its time for a node is printed too.

use circuit_atlas::circuit::features::{self, Errors, Runner, Side};
use circuit_atlas::circuit::{
    Ablate, Attribution, Candidates, Case, Growth, Metric, Node, PROMPTS, ReplacementModel, Root,
    components, grow,
};
use circuit_atlas::config::{Config, Discover};
use circuit_atlas::error::Result;
use circuit_atlas::inputs;
use circuit_atlas::lock::Lock;
use circuit_atlas::pipeline::set_threads;
use circuit_atlas::progress::Progress;
use circuit_atlas::stats::strata::sample;
use circuit_atlas::task::{self, Prompt, Wanted};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Seconds a prompt of the PyTorch baseline, as quoted above.
const BASELINE: f64 = 5.5;
/// Seconds of wall time, or nodes, summed over prompts.
#[derive(Clone, Copy, Default)]
struct Sums {
    pass: f64,
    encode: f64,
    attribution: f64,
    search: f64,
    contrast: f64,
    nodes: usize,
}

fn main() -> Result<()> {
    // SAFETY: nothing runs yet but this thread.
    unsafe { circuit_atlas::model::threads::settle() };
    let config = Config::load(&folder().join("pipeline.toml"))?;
    set_threads(&config);
    let progress = Progress::new("bench");
    let replacement =
        inputs::replacement_model(&config, &Lock::load(&config.artifacts())?, &progress)?;
    progress.end();
    let tokenizer = inputs::tokenizer(&config)?;
    let positions = inputs::sizes(&config)?.positions;
    for task in &config.tasks {
        let wanted = Wanted::default();
        let prompts = task::prompts(task, wanted, &config.folder, &tokenizer, positions)?.finding;
        let few = sample(prompts.clone(), |prompt| prompt.template.clone(), PROMPTS, task.seed);
        measure(&replacement, &config.discover, &few)?; // warms up
        let start = Instant::now();
        let mut sums = Sums::default();
        for some in prompts.chunks(PROMPTS) {
            sums = sums.plus(measure(&replacement, &config.discover, some)?);
        }
        let gpt2_small =
            (replacement.model.sizes.layers, replacement.model.sizes.d_model) == (12, 768);
        report(&task.name, prompts.len(), start.elapsed().as_secs_f64(), sums, gpt2_small);
        circuits(&replacement, &config.discover, &few)?;
    }
    Ok(())
}

/// Cargo passes `--bench` besides.
fn folder() -> PathBuf {
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let named = named.or_else(|| std::env::var("CIRCUIT_ATLAS_BENCH").ok());
    named.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).into(), PathBuf::from)
}

fn measure(
    replacement: &ReplacementModel,
    discover: &Discover,
    prompts: &[Prompt],
) -> Result<Sums> {
    let (mut sums, mut start) = (Sums::default(), Instant::now());
    let tokens: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
    let traces = replacement.traces(&tokens)?;
    sums.pass = lap(&mut start);
    let passes = replacement.encode(traces)?;
    sums.encode = lap(&mut start);
    let each = prompts.par_iter().zip(passes).map(|(prompt, pass)| -> Result<Sums> {
        let (mut sums, mut start) = (Sums::default(), Instant::now());
        let attribution = Attribution::of(replacement, pass, &prompt.tokens)?;
        sums.attribution = lap(&mut start);
        let mut candidates = Candidates::new(&attribution, discover.candidates, &discover.allow);
        let mut search = |root| grow(&mut candidates, root, grown(discover));
        sums.nodes = search(inputs::root(discover.root, prompt))?.graph.nodes.len();
        sums.search = lap(&mut start);
        if discover.contrast {
            search(Root::Logit(prompt.correct))?;
            search(Root::Logit(prompt.counter))?;
        }
        sums.contrast = lap(&mut start);
        Ok(sums)
    });
    // Prompts are side by side: a thread's second is that fraction of a second of wall time.
    let threads = 1.0 / rayon::current_num_threads() as f64;
    let each: Vec<Sums> = each.collect::<Result<_>>()?;
    Ok(each.into_iter().fold(sums, |sums, one| sums.plus(one.times(threads))))
}

/// Seconds since the last lap.
fn lap(start: &mut Instant) -> f64 {
    std::mem::replace(start, Instant::now()).elapsed().as_secs_f64()
}

fn report(task: &str, prompts: usize, seconds: f64, sums: Sums, gpt2_small: bool) {
    let n = prompts as f64;
    let each = seconds / n;
    println!("{task}: {prompts} prompts, {} threads", rayon::current_num_threads());
    println!(
        "  {:.2} prompts a second, {each:.3} s a prompt, {:.0} nodes a prompt",
        1.0 / each,
        sums.nodes as f64 / n
    );
    let parts = [
        ("pass", sums.pass),
        ("encode", sums.encode),
        ("attribution", sums.attribution),
        ("search", sums.search),
        ("contrast", sums.contrast),
    ];
    println!("  of which {}", parts.map(|(name, s)| format!("{name} {:.3} s", s / n)).join(", "));
    println!("  {:.1} ms of search a node", 1e3 * sums.search / sums.nodes as f64);
    if gpt2_small {
        println!("  {:.0} times as fast as {BASELINE} s a prompt", BASELINE / each);
    }
}

/// What it takes to run a circuit of the task, as `verify` does many times over.
fn circuits(replacement: &ReplacementModel, discover: &Discover, prompts: &[Prompt]) -> Result<()> {
    let tokens: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
    let (mut parts, mut found) = (BTreeSet::new(), BTreeSet::new());
    for (prompt, pass) in prompts.iter().zip(replacement.passes(&tokens)?) {
        let attribution = Attribution::of(replacement, pass, &prompt.tokens)?;
        let mut candidates = Candidates::new(&attribution, discover.candidates, &discover.allow);
        let graph =
            grow(&mut candidates, inputs::root(discover.root, prompt), grown(discover))?.graph;
        parts.extend(graph.components());
        found.extend(graph.nodes.iter().filter_map(Node::dictionary_feature));
    }
    let case = |prompt: &'_ Prompt| Metric::LogitDifference {
        correct: prompt.correct,
        counter: prompt.counter,
    };
    let cases: Vec<Case> = prompts
        .iter()
        .map(|p| Case {
            tokens: &p.tokens,
            corrupted: &p.corrupted,
            template: &p.template,
            metric: case(p),
        })
        .collect();
    println!(
        "  seconds a prompt to run a circuit of {} components or {} features:",
        parts.len(),
        found.len()
    );
    let each = |name: &str, run: &dyn Fn() -> Result<Vec<f64>>| -> Result<()> {
        let start = Instant::now();
        run()?;
        println!("    {name:<28} {:.3}", start.elapsed().as_secs_f64() / prompts.len() as f64);
        Ok(())
    };
    let held = components::ablation_values(&replacement.model, &cases, Ablate::Mean, 1)?;
    each("components", &|| components::values(&replacement.model, &cases, &parts, &held))?;
    let held = features::ablation_values(replacement, &cases, Ablate::Mean, 1)?;
    for (name, errors, side) in [
        ("features, errors kept", Errors::Kept, Side::Inside),
        ("features, errors ablated", Errors::Ablated, Side::Inside),
        ("all others, errors kept", Errors::Kept, Side::Outside),
        ("all others, errors ablated", Errors::Ablated, Side::Outside),
    ] {
        let runner = Runner { replacement, cases: &cases, ablation_values: &held, errors };
        each(name, &|| runner.values(&found, side))?;
    }
    Ok(())
}

impl Sums {
    fn plus(self, other: Sums) -> Sums {
        Sums {
            pass: self.pass + other.pass,
            encode: self.encode + other.encode,
            attribution: self.attribution + other.attribution,
            search: self.search + other.search,
            contrast: self.contrast + other.contrast,
            nodes: self.nodes + other.nodes,
        }
    }

    fn times(self, by: f64) -> Sums {
        let Sums { attribution, search, contrast, .. } = self;
        Sums { attribution: attribution * by, search: search * by, contrast: contrast * by, ..self }
    }
}

/// How circuits grow: by the method of the settings, or greedily where it grows none.
fn grown(discover: &Discover) -> Growth {
    let greedy = Growth::Greedy { passes: discover.passes, per_node: discover.per_node };
    inputs::growth(discover, discover.method).unwrap_or(greedy)
}
