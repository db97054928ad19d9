//! `show features`: any scored features as one, whether or not the run looked at them together.

use super::computed::{self, Promotion};
use super::page::{Page, Table};
use super::pairs::pairs_table;
use super::{Answer, names};
use crate::atlas::Reader;
use crate::atlas::activations;
use crate::atlas::answers::PairInTask;
use crate::atlas::model::{Example, PromotedToken};
use crate::error::Result;
use crate::format::number::{count, percent, significant};
use crate::format::text::plain;
use crate::ids::{Band, FeatureId, Lag, Subject};
use crate::inputs::Contexts;
use crate::stages::Run;
use crate::stats::cooccurrence::{Cooccurrence, Counts};
use crate::stats::examples::{Used, labelled, peaks, top};
use crate::stats::feature::TokenActivation;
use crate::stats::joint::summed;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize)]
pub(super) struct TogetherAnswer {
    features: Vec<Member>,
    /// Tokens at which all of them are active.
    all_active: u64,
    /// Tasks with prompts in whose circuits all of them serve.
    all_serve: Vec<Shared>,
    meetings: Vec<CorpusCooccurrence>,
    /// Where two of them serve in the same circuits.
    circuit_pairs: Vec<PairInTask>,
    promoted: Vec<PromotedToken>,
    suppressed: Vec<PromotedToken>,
    /// Units of activation of `at_strength`.
    strength: f64,
    /// Promoted tokens in the table.
    #[serde(skip)]
    shown: usize,
    /// Values are sums of activations, each as a share of its feature's maximum.
    examples: Vec<Example>,
    /// Tokens before a token, of the lag `window`.
    window: usize,
}

#[derive(Serialize)]
struct Member {
    feature: FeatureId,
    density: f64,
    max: f64,
    explanation: Option<String>,
}

#[derive(Serialize)]
struct Shared {
    task: String,
    prompts: u32,
    of: u32,
}

/// How often two features meet in the corpus.
#[derive(Serialize)]
struct CorpusCooccurrence {
    a: FeatureId,
    b: FeatureId,
    /// `same` token, or `a` in the `window` of tokens before `b`.
    lag: Lag,
    n_a: u64,
    n_b: u64,
    together: u64,
    expected: f64,
    lift: f64,
    npmi: f64,
    /// Over all pairs of the run; absent for those that do not meet significantly more often than
    /// by chance.
    q: Option<f64>,
}

/// What the scores say of the features, at tokens that count.
struct Corpus {
    contexts: Contexts,
    /// By place in the question; by context and position.
    activations: Vec<Vec<TokenActivation>>,
    maxima: Vec<f64>,
}

/// # Errors
/// When one was not scored, or the model cannot be read.
pub(super) fn ask(
    run: &Run,
    arguments: &[String],
    examples: usize,
    promotion: &Promotion,
) -> Result<TogetherAnswer> {
    let features = names::features_of(run.config, arguments)?;
    let reader = run.reader().about(features.iter().map(|feature| Subject::from(*feature)));
    let rows = features
        .iter()
        .map(|&f| names::scored(&reader, run.config, f))
        .collect::<Result<Vec<_>>>()?;
    run.progress.say("reading scores");
    let keys: Vec<u32> = rows.iter().map(|row| row.key).collect();
    let corpus = Corpus::load(run, &keys, rows.iter().map(|row| f64::from(row.max)).collect())?;
    let member = |row: &crate::artifact::tables::FeatureRow| {
        Ok(Member {
            feature: row.feature,
            density: row.density,
            max: f64::from(row.max),
            explanation: reader.explained(row.feature)?,
        })
    };
    let [mut promoted, mut suppressed] =
        combined(run, run.reader(), &corpus, &features, promotion)?;
    let strength = promotion.apply(run, None, [&mut promoted, &mut suppressed]);
    Ok(TogetherAnswer {
        features: rows.iter().map(member).collect::<Result<_>>()?,
        all_active: corpus.all_active(),
        all_serve: all_serve(run, &reader, &features)?,
        meetings: cooccurrence(run, &reader, &corpus, &features)?,
        circuit_pairs: circuit_pairs(&reader, &features)?,
        promoted,
        suppressed,
        strength,
        shown: promotion.shown(),
        examples: corpus.examples(&reader, examples)?,
        window: run.config.aggregate.window,
    })
}

impl Corpus {
    fn load(run: &Run, keys: &[u32], maxima: Vec<f64>) -> Result<Corpus> {
        let contexts = Contexts::load(run.config, run.store)?;
        let mut by_key = activations::of(run.store, &keys.iter().copied().collect())?;
        let counts = |f: &TokenActivation| contexts.counting(f.context, f.position).is_some();
        by_key.values_mut().for_each(|activations| activations.retain(counts));
        let activations = keys.iter().map(|key| by_key.remove(key).unwrap_or_default()).collect();
        Ok(Corpus { contexts, activations, maxima })
    }

    fn all_active(&self) -> u64 {
        let mut active: BTreeMap<(u32, u16), usize> = BTreeMap::new();
        self.activations
            .iter()
            .flatten()
            .for_each(|f| *active.entry((f.context, f.position)).or_default() += 1);
        active.values().filter(|features| **features == self.activations.len()).count() as u64
    }

    /// The contexts in which the features, each scaled by its maximum, are strongest together.
    fn examples(&self, reader: &Reader, wanted: usize) -> Result<Vec<Example>> {
        let active = self.activations.iter().zip(&self.maxima).filter(|(_, max)| **max > 0.0);
        let sum = summed(
            &active
                .map(|(activations, max)| (activations.as_slice(), 1.0 / max))
                .collect::<Vec<_>>(),
        );
        let info = |context: u32| self.contexts.info(context);
        let best = top(&peaks(sum.iter().copied()), &info, wanted, &mut Used::default());
        let subject = Subject::Group(String::new());
        let example = |chosen| {
            reader.example(&activations::example_row(&self.contexts, &subject, &chosen, &sum))
        };
        labelled(Band::Top, best).into_iter().map(example).collect()
    }

    fn cooccurrence(&self, window: usize) -> Cooccurrence {
        let mut active: Vec<Vec<(u16, u32)>> = vec![Vec::new(); self.contexts.rows.len()];
        for (place, activations) in (0u32..).zip(&self.activations) {
            activations.iter().for_each(|f| active[f.context as usize].push((f.position, place)));
        }
        let mut counted = Cooccurrence::new(self.activations.len(), window);
        for (row, active) in self.contexts.rows.iter().zip(active) {
            let counts = |position| self.contexts.counting(row.context, position).is_some();
            let mut at = vec![Vec::new(); row.tokens.len()];
            active.iter().for_each(|&(position, place)| at[usize::from(position)].push(place));
            let counts: Vec<bool> = (0..row.tokens.len() as u16).map(counts).collect();
            counted.add(&counts, |position| &at[position]);
        }
        counted
    }
}

/// Every two features at the same token, and one in the window before the other.
fn cooccurrence(
    run: &Run,
    reader: &Reader,
    corpus: &Corpus,
    features: &[FeatureId],
) -> Result<Vec<CorpusCooccurrence>> {
    let counted = corpus.cooccurrence(run.config.aggregate.window);
    let mut found = Vec::new();
    for (i, &a) in features.iter().enumerate() {
        for (j, &b) in features.iter().enumerate().skip(i + 1) {
            let known = reader.cooccurrence(a, b)?;
            let q = |lag: Lag, first| {
                known
                    .iter()
                    .find(|m| m.lag == lag && (lag == Lag::Same || m.first == first))
                    .map(|m| m.q)
            };
            found.push(counted_pair(a, b, Lag::Same, counted.same(i, j), q(Lag::Same, true)));
            found.push(counted_pair(a, b, Lag::Window, counted.lagged(i, j), q(Lag::Window, true)));
            found.push(counted_pair(
                b,
                a,
                Lag::Window,
                counted.lagged(j, i),
                q(Lag::Window, false),
            ));
        }
    }
    Ok(found)
}

fn counted_pair(
    a: FeatureId,
    b: FeatureId,
    lag: Lag,
    counts: Counts,
    q: Option<f64>,
) -> CorpusCooccurrence {
    let (n_a, n_b, together) = (counts.f, counts.g, counts.both);
    CorpusCooccurrence {
        a,
        b,
        lag,
        n_a,
        n_b,
        together,
        expected: counts.expected(),
        lift: counts.lift(),
        npmi: counts.npmi(),
        q,
    }
}

/// What the sum of their write directions promotes, and suppresses.
fn combined(
    run: &Run,
    reader: Reader,
    corpus: &Corpus,
    features: &[FeatureId],
    promotion: &Promotion,
) -> Result<[Vec<PromotedToken>; 2]> {
    let subject = Subject::Group(String::new());
    let set = features.iter().map(|&feature| (feature, 1.0)).collect();
    let (sets, k) = ([(subject.clone(), set)], promotion.k(run));
    let rows = computed::logits(run, &sets, corpus.contexts.tokenizer(), k)?;
    reader.with_promoted(rows).promoted(&subject)
}

fn all_serve(run: &Run, reader: &Reader, features: &[FeatureId]) -> Result<Vec<Shared>> {
    let all_in = |circuit: &BTreeSet<(_, Option<FeatureId>)>| {
        features.iter().all(|feature| circuit.iter().any(|(_, served)| *served == Some(*feature)))
    };
    let mut shared = Vec::new();
    for task in &run.config.tasks {
        let circuits = reader.members()?.iter().filter(|((name, _), _)| *name == task.name);
        let prompts = circuits.filter(|(_, circuit)| all_in(circuit)).count() as u32;
        if prompts > 0 {
            let of = reader.prompts_of(&task.name)?;
            shared.push(Shared { task: task.name.clone(), prompts, of });
        }
    }
    Ok(shared)
}

fn circuit_pairs(reader: &Reader, features: &[FeatureId]) -> Result<Vec<PairInTask>> {
    let mut found = Vec::new();
    for (task, pair) in reader.circuit_pairs()? {
        if features.contains(&pair.a) && features.contains(&pair.b) {
            found.push(PairInTask::new(reader, task, pair)?);
        }
    }
    Ok(found)
}

impl Answer for TogetherAnswer {
    fn print(&self, page: &mut Page) {
        let names: Vec<String> =
            self.features.iter().map(|member| member.feature.to_string()).collect();
        page.title(&names.join(" + "), "together");
        let row = |m: &Member| {
            let explanation =
                m.explanation.as_deref().map(|text| plain(text, 200)).unwrap_or_default();
            [m.feature.to_string(), percent(m.density), significant(m.max, 3), explanation]
        };
        page.table(
            &Table::new(&["feature", ">active", ">max", "explanation"])
                .with(self.features.iter().map(row)),
        );
        self.meet(page);
        if !self.circuit_pairs.is_empty() {
            page.heading("In circuits", &self.shared());
            page.table(&pairs_table(&self.circuit_pairs));
        }
        page.promoted(&self.promoted, &self.suppressed, self.strength, self.shown);
        page.heading("Summed examples", "each activation divided by its feature's maximum");
        let hottest = self.examples.iter().map(|example| example.value).fold(0.0, f32::max);
        page.examples(&self.examples, hottest);
    }
}

impl TogetherAnswer {
    fn shared(&self) -> String {
        let of = |s: &Shared| format!("all in {} of {} prompts of {}", s.prompts, s.of, s.task);
        self.all_serve.iter().map(of).collect::<Vec<_>>().join(", ")
    }

    fn meet(&self, page: &mut Page) {
        let all = format!("all active at {} tokens", count(self.all_active));
        page.heading("In the corpus", if self.features.len() > 2 { &all } else { "" });
        let before = format!("≤ {} before", self.window);
        let row = |m: &CorpusCooccurrence| {
            let lag = if m.lag == Lag::Same { "with".to_string() } else { before.clone() };
            let numbers =
                [count(m.n_a), count(m.n_b), count(m.together), significant(m.expected, 3)];
            let [n_a, n_b, together, expected] = numbers;
            let q = m.q.map_or("—".into(), |q| significant(q, 2));
            [
                m.a.to_string(),
                lag,
                m.b.to_string(),
                n_a,
                n_b,
                together,
                expected,
                significant(m.lift, 3),
                q,
            ]
        };
        let columns =
            ["a", "", "b", ">tokens a", ">tokens b", ">both", ">by chance", ">lift", ">q"];
        page.table(&Table::new(&columns).with(self.meetings.iter().map(row)));
    }
}
