//! A feature that the run did not score, measured when it is asked about: on a sample of the
//! contexts, from the disk cache or else the live model. What was computed is kept, and stands as
//! long as model, dictionaries, contexts and what is asked are the same.

use super::computed::{self, check_same};
use crate::artifact::Row;
use crate::artifact::activations::bytes_with;
use crate::artifact::tables::{
    ASKED, ASKED_LOGITS, ASKED_SCORES, ContextRow, ExampleRow, FeatureRow, LogitRow, ScoreRow,
};
use crate::atlas::Reader;
use crate::atlas::activations::{activation, counting, feature_examples, feature_row, measured};
use crate::atlas::model::Explanation;
use crate::corpus::Tokenizer;
use crate::dictionary::Scorer;
use crate::error::Result;
use crate::format::number::count;
use crate::ids::{FeatureId, Half, Side};
use crate::inputs::{self, Contexts, Input};
use crate::lock::{Ingredients, fingerprint};
use crate::pipeline;
use crate::process;
use crate::stages::interpret::of_feature;
use crate::stages::{Run, scoring};
use crate::stats::examples::Wanted;
use crate::stats::feature::TokenActivation;
use crate::stats::strata::spread;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Multiplications of the model on the contexts of a sample, where no number is asked for: some
/// seconds on two cores.
const WORK: usize = 250_000_000_000;
/// Contexts of such a sample at least.
const FEWEST: usize = 64;
const SEED: u64 = 1;
/// Every byte of a part of the cache is checked before it is read. Where there are more than these,
/// running the model on a sample is faster.
const CHECKED: u64 = 4 << 30;

/// On what the numbers of an answer were measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Measured {
    pub contexts: usize,
    /// Contexts of the corpus.
    pub of: usize,
    /// Tokens that count, in these contexts.
    pub tokens: u64,
}

impl Measured {
    pub(super) fn said(&self) -> String {
        let tokens = count(self.tokens);
        match self.contexts == self.of {
            true => {
                format!("measured now on all {} contexts ({tokens} tokens)", count(self.of as u64))
            }
            false => format!(
                "measured now on {} of {} contexts, spread over the corpus ({tokens} tokens; \
                 `--contexts N` for more)",
                count(self.contexts as u64),
                count(self.of as u64)
            ),
        }
    }
}

/// What was measured.
pub(super) struct Unscored {
    pub row: FeatureRow,
    pub examples: Vec<ExampleRow>,
    pub logits: Vec<LogitRow>,
    pub explanation: Explanation,
    pub measured: Measured,
}

/// Measures a feature on so many contexts, spread over the corpus; none: as many as take seconds.
///
/// # Errors
/// When the model, its dictionaries or its tokenizer are not those of the run any more, or cannot
/// be read.
pub(super) fn measure(
    run: &Run,
    reader: &Reader,
    id: FeatureId,
    most: Option<usize>,
    wanted: Wanted,
    k: usize,
) -> Result<Unscored> {
    check_same(run)?;
    run.progress.say("reading contexts");
    let contexts = Contexts::load(run.config, run.store)?;
    let most = most.map_or_else(|| affordable(run, &contexts, id), Ok)?;
    let sample: Vec<u32> =
        spread(contexts.rows.len(), most, SEED).into_iter().map(|place| place as u32).collect();
    let kept = Kept::new(run, reader, id, sample.len())?;
    let scores = match kept.scores() {
        Some(scores) => scores,
        None => kept.keep_scores(score(run, &contexts, id, &sample)?),
    };
    let logits = match kept.logits(k) {
        Some(logits) => logits,
        None => {
            let sets = [(id.into(), vec![(id, 1.0)])];
            kept.keep_logits(computed::logits(run, &sets, contexts.tokenizer(), k)?)
        }
    };
    let activations: Vec<TokenActivation> = scores.iter().map(activation).collect();
    let drawn: BTreeSet<u32> = sample.iter().copied().collect();
    let tokens = contexts.tokens_of(|context| drawn.contains(&context));
    let halves = contexts.halves(&sample);
    let explain: BTreeSet<u32> = halves[0].iter().copied().collect();
    let explained = contexts.tokens_of(|context| explain.contains(&context));
    let [all, explain] = measured(&contexts, &activations, [tokens, explained]);
    let row = feature_row(0, id, false, [&all, &explain], &[], std::iter::empty());
    let counted: Vec<TokenActivation> = counting(&contexts, &activations).collect();
    let examples = feature_examples(&contexts, id, &counted, &halves, wanted);
    Ok(Unscored {
        explanation: explanation(&row, &examples, &texts(&logits), contexts.tokenizer()),
        row,
        examples,
        logits,
        measured: Measured { contexts: sample.len(), of: contexts.rows.len(), tokens },
    })
}

/// How many contexts the model can be run on, up to the feature's layer, in some seconds.
fn affordable(run: &Run, contexts: &Contexts, id: FeatureId) -> Result<usize> {
    let sizes = inputs::sizes(run.config)?;
    let layer = 2 * sizes.d_model * (2 * sizes.d_model + sizes.d_mlp);
    let token = layer * (id.dictionary.layer + 1);
    let tokens: usize = contexts.rows.iter().map(|row| row.tokens.len()).sum();
    let context = (token * tokens).div_ceil(contexts.rows.len().max(1)).max(1);
    Ok((WORK / context).max(FEWEST))
}

/// What the statistics say of a feature that has no explanation in the tables, as `interpret` says
/// it of those that have one; from its examples, and the texts of what it promotes and suppresses.
pub(super) fn explanation(
    row: &FeatureRow,
    examples: &[ExampleRow],
    texts: &[Vec<String>; 2],
    tokenizer: &Tokenizer,
) -> Explanation {
    let seen: Vec<ExampleRow> =
        examples.iter().filter(|row| row.half == Half::Explain).cloned().collect();
    Explanation::of_statistics(of_feature(row, &seen, texts, tokenizer))
}

/// Texts of promoted and of suppressed tokens.
fn texts(logits: &[LogitRow]) -> [Vec<String>; 2] {
    [Side::Top, Side::Bottom].map(|side| {
        logits.iter().filter(|row| row.side == side).map(|row| row.text.clone()).collect()
    })
}

/// Its activations in the contexts of a sample.
fn score(run: &Run, contexts: &Contexts, id: FeatureId, sample: &[u32]) -> Result<Vec<ScoreRow>> {
    run.progress.say("scoring the feature");
    let own = |other| other == id.dictionary;
    let dictionaries = inputs::some_dictionaries(run.config, run.lock, run.progress, own)?;
    let scorer = Scorer::new(&[id], &dictionaries)?;
    let drawn: BTreeSet<u32> = sample.iter().copied().collect();
    let mut scored = Vec::with_capacity(sample.len());
    match cached_parts(run, id)? {
        Some(parts) => {
            for part in parts {
                let rows = run.store.read_part::<ContextRow>(part)?;
                if rows.iter().any(|row| drawn.contains(&row.context)) {
                    let wanted = |context| drawn.contains(&context);
                    scored.extend(scoring::cached(run, &scorer, part, &rows, wanted)?);
                }
            }
        }
        None => {
            let model = inputs::model(run.config)?;
            let rows: Vec<ContextRow> =
                sample.iter().map(|&context| contexts.rows[context as usize].clone()).collect();
            scored = scoring::live(run, &scorer, &model, &rows)?;
        }
    }
    Ok(scoring::rows(&scored))
}

/// The parts of the disk cache, if it is of this model and these contexts, and has what the
/// feature's dictionary reads.
fn cached_parts(run: &Run, id: FeatureId) -> Result<Option<Vec<u32>>> {
    let is = |name: &str, now: Option<&String>| {
        let cache = run.lock.stages.get("cache");
        now.is_some() && cache.and_then(|cache| cache.ingredients.get(name)) == now
    };
    let tokenize = run.lock.stages.get("tokenize").map(|entry| &entry.fingerprint);
    let flat = run.config.flat()?;
    let same = is("stage tokenize", tokenize)
        && is("setting cache.dtype", flat.get("cache.dtype"))
        && inputs::changed_since(run.config, run.lock, "cache", &[Input::Model])?.is_none();
    if !same {
        return Ok(None);
    }
    let parts = run.store.parts(&ContextRow::ARTIFACT)?;
    let hook = id.dictionary.hook();
    let bytes = |&part: &u32| bytes_with(run.store, part, &hook);
    let all: Option<u64> = parts.iter().map(bytes).sum();
    Ok(all.filter(|bytes| *bytes <= CHECKED).map(|_| parts))
}

/// What was computed for earlier questions about a feature.
struct Kept<'a> {
    run: &'a Run<'a>,
    /// The feature's number among those of all dictionaries.
    part: u32,
    /// What the numbers are made from, but for what is asked of them.
    made_from: Ingredients,
    contexts: usize,
}

impl<'a> Kept<'a> {
    fn new(run: &'a Run<'a>, reader: &Reader, id: FeatureId, contexts: usize) -> Result<Kept<'a>> {
        let widths: BTreeMap<_, u32> =
            reader.dictionaries()?.into_iter().map(|row| (row.dictionary, row.width)).collect();
        let before: u32 = widths.range(..id.dictionary).map(|(_, width)| width).sum();
        let mut made_from = Ingredients::from([("feature".into(), id.to_string())]);
        for stage in ["tokenize", "measure"] {
            let entry = run.lock.stages.get(stage);
            let fingerprint = entry.map(|entry| entry.fingerprint.clone()).unwrap_or_default();
            made_from.insert(format!("stage {stage}"), fingerprint);
        }
        for stage in ["cache", "score", "aggregate"] {
            made_from.insert(format!("version of {stage}"), pipeline::version(stage));
        }
        Ok(Kept { run, part: before + id.index as u32, made_from, contexts })
    }

    fn with(&self, name: &str, value: impl ToString) -> String {
        let mut all = self.made_from.clone();
        all.insert(name.into(), value.to_string());
        all.insert("kept".into(), format!("{:?}", ASKED.map(|artifact| artifact.version)));
        fingerprint(&all)
    }

    fn of_scores(&self) -> String {
        let precision = inputs::precision(self.run.config);
        self.with("sample", format!("{} {SEED} {precision:?}", self.contexts))
    }

    fn of_logits(&self) -> String {
        self.with("tokens", "promoted")
    }

    fn scores(&self) -> Option<Vec<ScoreRow>> {
        let is = self.run.store.part_fingerprint(&ASKED_SCORES, self.part)? == self.of_scores();
        is.then(|| self.run.store.read_part_as(&ASKED_SCORES, self.part).ok()).flatten()
    }

    /// The first `k` of each side, if as many were kept.
    fn logits(&self, k: usize) -> Option<Vec<LogitRow>> {
        let store = &self.run.store;
        let is = store.part_fingerprint(&ASKED_LOGITS, self.part)? == self.of_logits();
        let rows: Option<Vec<LogitRow>> =
            is.then(|| store.read_part_as(&ASKED_LOGITS, self.part).ok()).flatten();
        let mut rows = rows?;
        rows.retain(|row| (row.rank as usize) < k);
        (rows.len() == 2 * k).then_some(rows)
    }

    fn keep_scores(&self, rows: Vec<ScoreRow>) -> Vec<ScoreRow> {
        self.keep(|| {
            self.run.store.write_part_as(&ASKED_SCORES, &self.of_scores(), self.part, &rows)
        });
        rows
    }

    fn keep_logits(&self, rows: Vec<LogitRow>) -> Vec<LogitRow> {
        self.keep(|| {
            self.run.store.write_part_as(&ASKED_LOGITS, &self.of_logits(), self.part, &rows)
        });
        rows
    }

    /// Nobody's answer depends on it: where it cannot be written, that is only told.
    fn keep(&self, write: impl FnOnce() -> Result<()>) {
        if let Err(error) = pipeline::while_free(self.run.store.root(), write) {
            process::note(format_args!("note: what was measured could not be kept: {error}"));
        }
    }
}
