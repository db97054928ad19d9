//! `interpret`: an explanation for every feature, pair, component and group. Without a language model, a summary of the
//! statistics that says so.

use super::inputs;
use crate::artifact::tables::{
    CircuitPairRow, ClusterRow, ExampleRow, ExchangeRow, ExplanationRow, FeatureRow, LedgerRow, LogitRow,
};
use crate::corpus::{Half, Tokenizer};
use crate::error::Result;
use crate::explain::{Around, Facts, Sentences, feature, together};
use crate::stages::{Done, Run};
use std::collections::BTreeMap;

/// The explainer's name when no language model was asked.
pub const STATISTICS: &str = "statistics";

/// The band of the strongest examples.
const TOP: &str = "top";

/// A subject's promoted and suppressed tokens, best first.
type Tokens = BTreeMap<String, [Vec<String>; 2]>;

/// Writes an explanation for everything that has a page.
pub fn run(run: &Run) -> Result<Done> {
    run.progress.say("writing summaries");
    let tokenizer = inputs::tokenizer(run.config)?;
    let logits = logits(run.store.read::<LogitRow>()?);
    let examples = examples(run.store.read::<ExampleRow>()?);
    let none = Vec::new();
    let of = |subject: &str| examples.get(subject).unwrap_or(&none).as_slice();
    let mut rows = Vec::new();
    for row in run.store.read::<FeatureRow>()? {
        let said = of_feature(&row, of(&row.feature), &logits, &tokenizer);
        rows.push(explanation(&row.feature, "feature", said));
    }
    for (subject, kind, lead) in sets(run)? {
        let [up, down] = logits.get(&subject).cloned().unwrap_or_default();
        let peaks = peaks(of(&subject).iter().filter(|example| example.band == TOP), &tokenizer);
        rows.push(explanation(&subject, kind, together(&lead, &peaks, &up, &down)));
    }
    rows.sort_by(|a, b| a.subject.cmp(&b.subject));
    run.store.write(run.fingerprint, &rows)?;
    run.store.write::<ExchangeRow>(run.fingerprint, &[])?;
    run.store.write::<LedgerRow>(run.fingerprint, &[])?;
    Ok(format!("{} summaries of the statistics; no language model is set", rows.len()).into())
}

/// Everything that is not a feature: its name, its kind, and how the sentence about it begins.
fn sets(run: &Run) -> Result<Vec<(String, &'static str, String)>> {
    let mut sets = Vec::new();
    for row in run.store.read::<ClusterRow>()? {
        let lead = match row.features {
            1 => "One feature serves here, strongest".to_string(),
            n => format!("{n} features serve here, together strongest"),
        };
        sets.push((row.component, "component", lead));
    }
    let pairs = run.store.read::<CircuitPairRow>()?;
    let strongest = super::pairs::strongest(&pairs);
    let mut names: Vec<String> = strongest.into_values().flatten().collect();
    names.sort();
    names.dedup();
    sets.extend(names.into_iter().map(|name| (name, "pair", "The sum of the two is largest".to_string())));
    let groups = run.config.groups.iter();
    sets.extend(
        groups.map(|group| {
            (group.name.clone(), "group", format!("{} features, together strongest", group.features.len()))
        }),
    );
    Ok(sets)
}

fn explanation(subject: &str, kind: &str, said: Sentences) -> ExplanationRow {
    ExplanationRow {
        subject: subject.into(),
        kind: kind.into(),
        explainer: STATISTICS.into(),
        sample: 0,
        model: String::new(),
        status: "ok".into(),
        text: format!("{} {}", said.input_side, said.output_side),
        input_side: said.input_side,
        output_side: said.output_side,
        matching: String::new(),
        carried: String::new(),
        claims: Vec::new(),
        reason: String::new(),
        prompt_hash: String::new(),
    }
}

fn of_feature(row: &FeatureRow, examples: &[ExampleRow], logits: &Tokens, tokenizer: &Tokenizer) -> Sentences {
    let mass: Vec<(String, f64)> =
        row.explain_tokens.iter().map(|&id| tokenizer.token(id)).zip(row.explain_shares.iter().copied()).collect();
    let strongest: Vec<Around> =
        examples.iter().filter(|example| example.band == TOP).map(|example| around(example, tokenizer)).collect();
    let [promoted, suppressed] = logits.get(&row.feature).cloned().unwrap_or_default();
    feature(&Facts {
        mass: &mass,
        density: row.explain_density,
        peaks: &peaks(examples.iter(), tokenizer),
        strongest: &strongest,
        promoted: &promoted,
        suppressed: &suppressed,
    })
}

fn peaks<'a>(examples: impl Iterator<Item = &'a ExampleRow>, tokenizer: &Tokenizer) -> Vec<String> {
    examples.map(|example| around(example, tokenizer).peak).collect()
}

/// The peak of an example and its neighbours. BOS, at position 0, is no text.
fn around(example: &ExampleRow, tokenizer: &Tokenizer) -> Around {
    let at = usize::from(example.peak - example.start);
    let before = at.checked_sub(1).filter(|_| example.peak > 1).map(|i| tokenizer.token(example.tokens[i]));
    let after = example.tokens.get(at + 1).map(|&id| tokenizer.token(id));
    Around { before, peak: tokenizer.token(example.tokens[at]), after }
}

fn logits(rows: Vec<LogitRow>) -> Tokens {
    let mut tokens = Tokens::new();
    // Rows are by subject, side and rank.
    for row in rows {
        let sides = tokens.entry(row.subject).or_default();
        sides[usize::from(row.side == "bottom")].push(row.text);
    }
    tokens
}

/// The active examples of the *explain* half, the only ones that an explanation may see.
fn examples(rows: Vec<ExampleRow>) -> BTreeMap<String, Vec<ExampleRow>> {
    let mut by_subject: BTreeMap<String, Vec<ExampleRow>> = BTreeMap::new();
    let seen = |row: &ExampleRow| row.half == Half::Explain.word() && row.band != "inactive";
    for row in rows.into_iter().filter(seen) {
        by_subject.entry(row.subject.clone()).or_default().push(row);
    }
    by_subject
}
