//! `measure`: whether the model is one of the corpus, and how well each dictionary describes it, on
//! a sample of the contexts; refuses what is read wrongly or is another's, before anything is made
//! of it.

use crate::artifact::tables::{ConformanceRow, ContextRow, ModelCheckRow};
use crate::corpus::{Window, order};
use crate::dictionary::{Conformance, Sample, judge, measure};
use crate::error::Result;
use crate::inputs;
use crate::model::ModelCheck;
use crate::stages::{Done, Run};
use crate::stats::strata::stratified;

/// Tokens on which dictionaries are measured: enough for two figures, few enough to cost a minute
/// or two at GPT-2's size.
pub(crate) const SAMPLE: usize = 2048;

/// Which contexts are drawn: the same ones for all dictionaries and in each run.
const SEED: u64 = 1;

/// The numbers of contexts that have about `SAMPLE` tokens together, of which a long one counts as `Sample::CUT`: so
/// there are several, however long they are. Documents have several, the beginning first and a short rest last: each
/// kind is drawn in proportion. They come in a drawn order, as some figures are of the first ones only.
pub fn sample(contexts: &[Window]) -> Vec<usize> {
    let tokens: usize = contexts.iter().map(|window| window.tokens.len().min(Sample::CUT)).sum();
    let longest = contexts.iter().map(|window| window.tokens.len()).max().unwrap_or(0);
    let wanted = (SAMPLE * contexts.len()).div_ceil(tokens.max(1)).max(1);
    let kinds: Vec<(bool, bool)> =
        contexts.iter().map(|window| (window.start == 0, window.tokens.len() == longest)).collect();
    let drawn = stratified(&kinds, wanted, SEED);
    order(drawn.len(), SEED).into_iter().map(|i| drawn[i]).collect()
}

/// The tokens of some contexts.
pub(crate) fn tokens_of(contexts: &[Window], drawn: &[usize]) -> Vec<Vec<u32>> {
    drawn.iter().map(|&i| contexts[i].tokens.clone()).collect()
}

/// Measures the model and every dictionary.
pub fn run(run: &Run) -> Result<Done> {
    // Before the model is in memory: a dictionary is held whole while it is converted.
    let dictionaries = run.dictionaries()?;
    let model = inputs::model(run.config)?;
    run.progress.say("running the model over a sample");
    let window =
        |row: ContextRow| Window { document: row.document, start: row.start, tokens: row.tokens };
    let contexts: Vec<Window> =
        run.store.read_parts::<ContextRow>()?.into_iter().map(window).collect();
    let drawn = sample(&contexts);
    let tokenizer = inputs::tokenizer(run.config)?;
    let checked = inputs::check_model(run.config, &model, &tokenizer, &contexts, &drawn)?;
    warn(run, checked.warnings());
    run.store.write(run.fingerprint, &[model_row(&checked)])?;
    let sample = Sample::new(&model, &tokens_of(&contexts, &drawn))?;
    run.progress.begin("dictionaries measured", dictionaries.len() as u64, 0);
    let mut measured = Vec::new();
    for dictionary in &dictionaries {
        measured.push(measure(&model, dictionary, &sample)?);
        run.progress.step(1)?;
    }
    let warnings = judge(&measured)?;
    for (dictionary, warnings) in measured.iter().zip(&warnings) {
        warn(run, warnings.iter().map(|text| warning(dictionary, text)));
    }
    let mut rows: Vec<ConformanceRow> =
        measured.iter().zip(warnings).map(|(measured, told)| row(measured, told)).collect();
    rows.sort_by_cached_key(|row| row.dictionary.to_string());
    run.store.write(run.fingerprint, &rows)?;
    let tokens = rows.first().map_or(0, |row| row.tokens);
    Ok(format!(
        "{} dictionaries on {tokens} tokens; the model's loss there is {:.2}",
        rows.len(),
        checked.loss
    )
    .into())
}

/// Says in the log what looks wrong.
fn warn(run: &Run, warnings: impl IntoIterator<Item = String>) {
    warnings.into_iter().for_each(|warning| run.progress.line(&format!("warning: {warning}")));
}

fn model_row(checked: &ModelCheck) -> ModelCheckRow {
    ModelCheckRow {
        tokens: checked.tokens,
        loss: checked.loss,
        entropy: checked.entropy,
        unigram: checked.unigram,
        bigram: checked.bigram,
        uniform: checked.uniform,
        random: checked.repeated.map(|[first, _]| first),
        repeated: checked.repeated.map(|[_, second]| second),
        reading: checked.reading.map(|(reading, _)| reading.to_string()).unwrap_or_default(),
        reading_share: checked.reading.map(|(_, share)| share),
        warnings: checked.warnings(),
    }
}

/// A warning with what it is about.
pub(crate) fn warning(of: &Conformance, text: &str) -> String {
    format!("{}: {text}", of.id)
}

fn row(measured: &Conformance, warnings: Vec<String>) -> ConformanceRow {
    ConformanceRow {
        dictionary: measured.id,
        layer: measured.id.layer as u32,
        kind: measured.id.kind,
        width: measured.width as u32,
        l0: measured.l0,
        variance_explained: measured.variance_explained,
        dead: measured.dead as f64,
        loss_recovered: measured.loss_recovered,
        loss_recovered_low: measured.loss_interval.map(|[low, _]| low),
        loss_recovered_high: measured.loss_interval.map(|[_, high]| high),
        loss_tokens: measured.loss_tokens,
        loss_contexts: measured.loss_contexts,
        tokens: measured.tokens,
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents of `each` whole contexts of 64 tokens, and a rest of 16 where that is wanted.
    fn contexts(documents: u32, each: u32, rest: bool) -> Vec<Window> {
        let of = |document: u32| {
            let length = move |i: u32| if i < each { 64 } else { 16 };
            let window = move |i: u32| Window {
                document,
                start: 63 * i,
                tokens: vec![1000 * document + i; length(i)],
            };
            (0..each + u32::from(rest)).map(window)
        };
        (0..documents).flat_map(of).collect()
    }

    /// How many of a sample are the `i`th context of their document.
    fn are(sample: &[Vec<u32>], i: u32) -> usize {
        sample.iter().filter(|tokens| tokens[0] % 1000 == i).count()
    }

    #[test]
    fn documents_of_two_contexts_are_not_measured_at_their_beginnings_alone() {
        let contexts = contexts(64, 2, false);
        let sample = tokens_of(&contexts, &sample(&contexts));
        assert_eq!([are(&sample, 0), are(&sample, 1)], [16, 16]);
        // What looks at the first of them finds both too.
        assert!((0..2).all(|i| are(&sample[..8], i) > 0));
    }

    #[test]
    fn beginnings_middles_and_short_rests_are_in_proportion() {
        let contexts = contexts(60, 3, true);
        let sample = tokens_of(&contexts, &sample(&contexts));
        let [first, rests] = [are(&sample, 0), are(&sample, 3)];
        assert!(
            [first, rests].iter().all(|n| (9..=11).contains(n)),
            "{first}, {rests} of {}",
            sample.len()
        );
        let tokens: usize = sample.iter().map(Vec::len).sum();
        assert!(tokens.abs_diff(SAMPLE) < 100, "{tokens}");
        let documents: std::collections::BTreeSet<u32> =
            sample.iter().map(|tokens| tokens[0] / 1000).collect();
        assert!(documents.len() > 20, "{documents:?}");
    }

    #[test]
    fn long_contexts_are_several() {
        let long = |number: u32, length: usize| -> Vec<Window> {
            let window = |i| Window { document: i / 4, start: i % 4, tokens: vec![i; length] };
            (0..number).map(window).collect()
        };
        let drawn = |contexts: &[Window]| {
            let mut drawn = sample(contexts);
            drawn.sort_unstable();
            drawn.dedup();
            drawn.len()
        };
        assert_eq!(drawn(&long(40, 1024)), 8);
        assert_eq!(drawn(&long(40, 300)), 8);
        assert_eq!(drawn(&long(40, 128)), 16);
        assert_eq!(drawn(&long(5, 1024)), 5);
    }

    #[test]
    fn a_small_corpus_is_measured_whole() {
        let contexts = contexts(5, 2, false);
        let mut sample = tokens_of(&contexts, &sample(&contexts));
        sample.sort();
        assert_eq!(sample, contexts.into_iter().map(|window| window.tokens).collect::<Vec<_>>());
        assert!(super::sample(&[]).is_empty());
    }
}
