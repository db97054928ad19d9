//! `circuit-atlas check`: everything that would stop a run, found in seconds. A line for each
//! thing, and the dictionaries' figures on a sample of the corpus as a table.

use crate::config::{Config, TaskKind};
use crate::corpus::{Tokenizer, Window, read, windows};
use crate::dictionary::{Conformance, Sample, judge, measure};
use crate::error::Result;
use crate::format::number::counted;
use crate::inputs::{self, Documents};
use crate::llm;
use crate::lock::Lock;
use crate::model::ModelCheck;
use crate::process;
use crate::progress::Progress;
use crate::show::say_labelled;
use crate::stages::conformance::{SAMPLE, sample as spread, tokens_of, warning};
use crate::task;

/// # Errors
/// At the first thing that would stop a run.
pub(crate) fn check(config: &Config) -> Result<()> {
    let say = |what: &str, found: String| say_labelled(&format!("{what:<10} "), &found);
    let warn = |warning: String| say("warning", warning);
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
        let prompts = inputs::prompts(config, settings, &tokenizer)?;
        let doubt = (settings.kind == TaskKind::Prompts).then(|| task::doubt(&prompts)).flatten();
        let task::Prompts { finding, own, choosing, fresh } = prompts;
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
        doubt.into_iter().for_each(|doubt| warn(format!("{}: {doubt}", settings.name)));
    }
    let Read { told: corpus, contexts, warnings } = read_contexts(config, &tokenizer)?;
    let drawn = spread(&contexts);
    say("corpus", format!("{corpus}; a sample of {} contexts", drawn.len()));
    warnings.into_iter().for_each(warn);
    let checked = inputs::check_model(config, &model, &tokenizer, &contexts, &drawn)?;
    say("loss", told(&checked));
    checked.warnings().into_iter().for_each(warn);
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
    "dictionary  features      L0  variance explained  loss recovered  never active";

fn row(measured: &Conformance) -> String {
    let recovered = measured.loss_recovered.map_or("-".into(), |share| format!("{share:.3}"));
    format!(
        "{:<10} {:>9} {:>7.1} {:>19.3} {:>15} {:>13}",
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

/// What was read of the corpus.
struct Read {
    /// How much it is, in words.
    told: String,
    /// The contexts of the first documents, in order.
    contexts: Vec<Window>,
    /// What is wrong with the halves, if it was read to its end.
    warnings: Vec<String>,
}

fn read_contexts(config: &Config, tokenizer: &Tokenizer) -> Result<Read> {
    let (corpus, bos) = (&config.corpus, tokenizer.bos());
    let progress = Progress::new("corpus");
    let mut shards = inputs::corpus(config, &progress)?;
    let mut documents = Documents::new(corpus, tokenizer);
    let (mut files, mut tokens, mut whole) = (0, 0, true);
    for shard in shards.by_ref() {
        files += 1;
        whole = read(&shard?, &inputs::how(corpus, tokenizer), &mut |document| {
            tokens += documents.add(vec![document])?;
            Ok(tokens < READ)
        })?;
        if !whole {
            break;
        }
    }
    progress.end();
    // Those that are left are only counted, not downloaded.
    let left = shards.size_hint().0;
    let (number, note) = (documents.number(), documents.note());
    let halved = documents.halved();
    let own = |(number, document): (u32, &inputs::Encoded)| {
        let mut own = windows(number, &document.ids, corpus.context, bos);
        own.iter_mut().for_each(|window| window.start += document.start);
        own
    };
    let contexts: Vec<Window> = (0..).zip(&halved).flat_map(own).collect();
    if contexts.is_empty() {
        return Err(inputs::no_context(config));
    }
    let mut warnings: Vec<String> = note.into_iter().collect();
    if whole && left == 0 {
        let cut = inputs::cut(&halved, corpus, bos);
        warnings.extend(inputs::poor_halves(&halved, &cut, config));
    }
    let [files, number] = [counted(files + left, "file"), counted(number, "document")];
    let told = match whole && left == 0 {
        true => format!("{files}; all read, {number}"),
        false => format!("{files}; only the first {number} read"),
    };
    Ok(Read { told, contexts, warnings })
}
