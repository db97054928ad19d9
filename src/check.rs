//! `circuit-atlas check`: everything that would stop a run, found in seconds. A line for each
//! thing, and the dictionaries' figures on a sample of the corpus as a table.

use crate::config::Config;
use crate::corpus::{Tokenizer, Window, half, read, windows};
use crate::dictionary::{Conformance, Sample, judge, measure};
use crate::error::Result;
use crate::ids::Half;
use crate::inputs;
use crate::llm;
use crate::lock::Lock;
use crate::model::ModelCheck;
use crate::process;
use crate::progress::Progress;
use crate::stages::conformance::{SAMPLE, sample as spread, tokens_of, warning};
use crate::task;

/// # Errors
/// At the first thing that would stop a run.
pub(crate) fn check(config: &Config) -> Result<()> {
    let say = |what: &str, found: String| process::say(format!("{what:<10} {found}"));
    say("settings", format!("{} tasks, {} groups", config.tasks.len(), config.groups.len()));
    crate::pipeline::set_threads(config);
    let config = &crate::pipeline::with_hub(config)?;
    crate::stages::check(config, true)?;
    crate::pipeline::check_outputs(config)?;
    let model = inputs::model(config)?;
    let s = model.sizes;
    say(
        "model",
        format!(
            "{} layers, {} heads, {} wide, {} parameters",
            s.layers, s.heads, s.d_model, model.parameters
        ),
    );
    let tokenizer = inputs::tokenizer(config)?;
    say("tokenizer", format!("fits the vocabulary of {}", s.vocabulary));
    for token in tokenizer.left_out() {
        say("warning", inputs::without_row(token));
    }
    for settings in &config.tasks {
        let task::Prompts { finding, own, choosing, fresh } =
            inputs::prompts(config, settings, &tokenizer)?;
        say(
            "task",
            format!(
                "{}: {own} prompts, such as {:?}; {} to rank features on, {} to choose the size \
                 on, {} held out to measure on",
                settings.name,
                finding[0].text,
                finding.len(),
                choosing.len(),
                fresh.len()
            ),
        );
    }
    let (number, contexts, missing) = read_contexts(config, &tokenizer)?;
    let drawn = spread(&contexts);
    say("corpus", format!("{number} files; {} contexts read", drawn.len()));
    let checked = inputs::check_model(config, &model, &tokenizer, &contexts, &drawn)?;
    say("loss", told(&checked));
    let warn = |warning: String| say("warning", warning);
    checked.warnings().into_iter().for_each(warn);
    missing.into_iter().map(inputs::empty_half).for_each(warn);
    inputs::without_features(config).into_iter().for_each(warn);
    if !config.llm.asks() {
        say("llm", "none: explanations are summaries of the statistics".into());
    }
    for model in config.models() {
        say("llm", llm::probe(&config.llm, model)?);
    }
    if let Some(embedder) = config.embedder() {
        say("embedder", llm::probe_embedder(&embedder)?);
    }
    let (lock, progress) = (Lock::load(&config.artifacts())?, Progress::new("check"));
    let dictionaries = inputs::dictionaries(config, &lock, &progress);
    progress.end();
    let sample = Sample::new(&model, &tokens_of(&contexts, &drawn))?;
    process::say(format!("\n{HEADER}"));
    let mut all = Vec::new();
    for dictionary in &dictionaries? {
        process::check()?;
        let measured = measure(&model, dictionary, &sample)?;
        process::say(row(&measured));
        all.push(measured);
    }
    for (measured, warnings) in all.iter().zip(judge(&all)?) {
        warnings.iter().for_each(|text| warn(warning(measured, text)));
    }
    Ok(())
}

/// The model's loss, and what it is held against.
fn told(checked: &ModelCheck) -> String {
    format!(
        "the model's loss on {} tokens is {:.2} nats per token; it expects {:.2}, frequencies of \
         tokens give {:.2}, of pairs of tokens {:.2}, attention spread evenly {:.2}",
        checked.tokens,
        checked.loss,
        checked.entropy,
        checked.unigram,
        checked.bigram,
        checked.uniform
    )
}

const HEADER: &str =
    "dictionary  features  active (L0)     variance explained  loss recovered  never active";

fn row(measured: &Conformance) -> String {
    let recovered = measured.loss_recovered.map_or("-".into(), |share| format!("{share:.3}"));
    format!(
        "{:<10} {:>9} {:>15.1} {:>19.3} {:>15} {:>13}",
        measured.id.to_string(),
        measured.width,
        measured.l0,
        measured.variance_explained,
        recovered,
        measured.dead
    )
}

/// Tokens of the corpus's first documents, from which a sample is drawn: more than it takes, as a
/// source may begin with one long document or with many of one kind; few enough to be read in a
/// second.
const READ: usize = 16 * SAMPLE;

/// The number of the corpus's files, the contexts of its first documents, and where these are all,
/// the halves that have none of them.
fn read_contexts(
    config: &Config,
    tokenizer: &Tokenizer,
) -> Result<(usize, Vec<Window>, Vec<Half>)> {
    let progress = Progress::new("corpus");
    let mut shards = inputs::corpus(config, &progress)?;
    let (mut files, mut documents, mut contexts) = (0, 0, Vec::new());
    let (mut tokens, mut whole) = (0, true);
    let mut missing = vec![Half::Explain, Half::Score];
    for shard in shards.by_ref() {
        files += 1;
        let more = read(&shard?, &config.corpus.text, &mut |document| {
            let ids = tokenizer.ids(&document)?;
            let cut = windows(documents, &ids, config.corpus.context, tokenizer.bos());
            documents += 1;
            let own = half(&ids);
            missing.retain(|half| cut.is_empty() || *half != own);
            tokens += cut.iter().map(|window| window.tokens.len()).sum::<usize>();
            contexts.extend(cut);
            Ok(tokens < READ)
        })?;
        if !more {
            whole = false;
            break;
        }
    }
    progress.end();
    if contexts.is_empty() {
        return Err(inputs::no_context(config));
    }
    // Those that are left are only counted, not downloaded.
    let missing = if whole { missing } else { Vec::new() };
    Ok((files + shards.size_hint().0, contexts, missing))
}
