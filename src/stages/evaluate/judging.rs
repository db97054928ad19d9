//! Questions to judges, and what their verdicts say of explanations.

use super::texts::{Text, TextsOf};
use super::work::{LlmExplanation, Work};
use crate::artifact::tables::{AgreementRow, EvaluationRow, JudgementRow, LedgerRow};
use crate::circuit::ReplacementModel;
use crate::config::{Llm, ScoreMethod};
use crate::error::Result;
use crate::ids::{Band, Subject};
use crate::inputs;
use crate::llm::judge::{self, JudgeMethod, Setting};
use crate::llm::{Asked, Asker, Outcome, Plan, Question};
use crate::stages::Run;
use crate::stages::usage_report::{UsageTally, ledger};
use crate::stats::agreement::{area_under_curve, kappa, over_pairs};
use crate::stats::interval::{Estimate, of_area, wilson};
use crate::stats::mix;
use crate::stats::rule::{Rule, Tally as Right};
use crate::stats::trials::SET;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// All texts of a feature by one method, with one explanation or one clause of it, before one judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    feature: usize,
    method: JudgeMethod,
    /// The clause that is judged alone; none: the input side.
    clause: Option<usize>,
    /// Which judge.
    judge: usize,
    /// The feature whose explanation it is.
    explained: usize,
    sample: u32,
}

impl Series {
    /// Of a feature's own first explanation.
    fn first(feature: usize, method: JudgeMethod, judge: usize) -> Series {
        Series { feature, method, clause: None, judge, explained: feature, sample: 0 }
    }

    fn texts(&self) -> TextsOf {
        (self.feature, self.method, self.clause)
    }
}

/// What is said of a text, if anything can be read, and the hash of what was asked. 1 is yes and 0
/// no; of `embedding` it is a cosine.
type Verdict = (Option<f64>, String);

fn yes(said: f64) -> bool {
    said > 0.5
}

/// Everything that is to be asked.
pub(super) struct Judging<'a> {
    work: &'a Work<'a>,
    methods: Vec<JudgeMethod>,
    judges: Vec<&'a str>,
    /// The model that embeds; empty where none does.
    embedder: &'a str,
    /// Features with an explanation, in the order in which they are asked about.
    keys: Vec<usize>,
    texts: BTreeMap<TextsOf, Vec<Text>>,
    /// What the model is, in words.
    about: String,
}

/// Who is asked: one at a time, as each keeps what is replied in the same file.
pub(super) struct Askers<'a> {
    run: &'a Run<'a>,
    embedder: Option<Llm>,
}

impl<'a> Askers<'a> {
    pub(super) fn new(run: &'a Run<'a>) -> Askers<'a> {
        Askers { run, embedder: run.config.embedder() }
    }

    fn of(&self, method: JudgeMethod) -> Result<Asker<'_>> {
        let llm = match &self.embedder {
            Some(embedder) if method == JudgeMethod::Embedding => embedder,
            _ => &self.run.config.llm,
        };
        self.run.asker(llm)
    }
}

/// What came of it.
#[derive(Default)]
pub(super) struct JudgedRows {
    pub evaluations: Vec<EvaluationRow>,
    pub judgements: Vec<JudgementRow>,
    pub agreements: Vec<AgreementRow>,
    pub ledger: Vec<LedgerRow>,
    pub tally: UsageTally,
}

/// Whether there is an explanation to judge: the first of the run's own, or another's.
fn is_judged(work: &Work, key: usize) -> bool {
    work.first(key).is_some() || work.told[&key].iter().any(LlmExplanation::is_imported)
}

impl<'a> Judging<'a> {
    pub(super) fn new(
        work: &'a Work<'a>,
        replacement: &ReplacementModel,
        rules: &[Rule],
    ) -> Result<Judging<'a>> {
        let config = work.run.config;
        let method = |method: &ScoreMethod| match method {
            ScoreMethod::SingleToken => None,
            ScoreMethod::Detection => Some(JudgeMethod::Detection),
            ScoreMethod::Fuzzing => Some(JudgeMethod::Fuzzing),
            ScoreMethod::Embedding => Some(JudgeMethod::Embedding),
            ScoreMethod::Intruder => Some(JudgeMethod::Intruder),
        };
        let methods: Vec<JudgeMethod> = config.evaluate.methods.iter().filter_map(method).collect();
        let mut keys: Vec<usize> =
            work.told.keys().copied().filter(|&key| is_judged(work, key)).collect();
        // By name, an early end of the money would leave verdicts on the first layers alone.
        keys.sort_by_key(|&key| (mix(work.salts[key], 0), key));
        let texts = work.texts(replacement, rules, &keys, &methods)?;
        let about = inputs::about(config)?;
        let (judges, embedder) = (config.judges(), config.evaluate.embedder.as_str());
        Ok(Judging { work, methods, judges, embedder, keys, texts, about })
    }

    fn texts(&self, of: TextsOf) -> &[Text] {
        self.texts.get(&of).map(Vec::as_slice).unwrap_or_default()
    }

    /// Who says something by a method, in order.
    fn judges(&self, method: JudgeMethod) -> &[&'a str] {
        match method {
            JudgeMethod::Embedding => std::slice::from_ref(&self.embedder),
            _ => &self.judges,
        }
    }

    /// Texts of one question.
    fn batch(&self, method: JudgeMethod) -> usize {
        match method {
            JudgeMethod::Intruder => SET,
            _ => self.work.run.config.evaluate.batch,
        }
    }

    /// The feature whose explanation, of the same sample, stands for chance.
    fn other(&self, feature: usize, sample: u32) -> Option<usize> {
        let has = |key: &usize| self.work.told[key].iter().any(|told| told.sample == sample);
        self.work.control(feature, self.keys.iter().copied().filter(has))
    }

    /// Others' explanations of a feature, before the first judge.
    fn imported(&self, feature: usize, method: JudgeMethod) -> Vec<Series> {
        if method == JudgeMethod::Intruder {
            return Vec::new();
        }
        let all = self.work.told[&feature].iter().filter(|told| told.is_imported());
        let first = Series::first(feature, method, 0);
        all.map(|told| Series { sample: told.sample, ..first }).collect()
    }

    /// What is asked of one feature: each of its explanations, of a second judge only the first;
    /// another feature's of both; and of the first judge each clause of the first explanation. An
    /// intruder is looked for without any explanation, once.
    fn series_of(&self, feature: usize, method: JudgeMethod) -> Vec<Series> {
        let firsts = self.firsts(feature, method);
        if method == JudgeMethod::Intruder {
            return firsts.collect();
        }
        let first = Series::first(feature, method, 0);
        let samples = self.work.told[&feature].iter().map(|told| told.sample);
        let own = samples.map(|sample| Series { sample, ..first });
        let others = self.other(feature, 0).filter(|_| self.work.first(feature).is_some());
        let others = others.into_iter();
        let nulls = others.flat_map(|explained| {
            self.firsts(feature, method).map(move |first| Series { explained, ..first })
        });
        let clauses = self.clauses(feature, method);
        let imported = self.imported(feature, method).into_iter().filter_map(|series| {
            let explained = self.other(feature, series.sample)?;
            Some(Series { explained, ..series })
        });
        own.chain(firsts.skip(1)).chain(nulls).chain(clauses).chain(imported).collect()
    }

    /// The first explanation, before each judge.
    fn firsts(&self, feature: usize, method: JudgeMethod) -> impl Iterator<Item = Series> + use<> {
        (0..self.judges(method).len()).map(move |judge| Series::first(feature, method, judge))
    }

    /// The clauses of the first explanation that are judged alone, before the first judge.
    fn clauses(&self, feature: usize, method: JudgeMethod) -> impl Iterator<Item = Series> + use<> {
        let told = self.work.first(feature).filter(|_| method == JudgeMethod::Detection);
        let first = Series::first(feature, method, 0);
        (0..told.map_or(0, |told| told.clauses.len()))
            .map(move |clause| Series { clause: Some(clause), ..first })
    }

    fn explanation(&self, series: &Series) -> Option<&LlmExplanation> {
        self.work.told.get(&series.explained)?.iter().find(|told| told.sample == series.sample)
    }

    /// Every question with its series, a feature after the other, so that an end of the money
    /// leaves whole ones.
    fn questions(&self) -> Result<Vec<(Series, Question)>> {
        let each = self
            .keys
            .iter()
            .flat_map(|&key| self.methods.iter().flat_map(move |&m| self.series_of(key, m)));
        let series: Vec<Series> = each.collect();
        let questions = series
            .par_iter()
            .map(|series| self.questions_of(series))
            .collect::<Result<Vec<_>>>()?;
        Ok(questions.into_iter().flatten().collect())
    }

    fn questions_of(&self, series: &Series) -> Result<Vec<(Series, Question)>> {
        let Some(told) = self.explanation(series) else { return Ok(Vec::new()) };
        let subject = &Subject::from(self.work.features[series.feature].feature);
        let evaluate = &self.work.run.config.evaluate;
        let setting = Setting {
            about: &self.about,
            threshold: evaluate.threshold,
            prefixes: [&evaluate.embedder_query, &evaluate.embedder_passage],
        };
        let explanation = series.clause.map_or(&told.input, |clause| &told.clauses[clause]);
        let question = |texts: &[Text]| {
            let shown: Vec<&str> = texts.iter().map(|text| text.shown.as_str()).collect();
            let judge = self.judges(series.method)[series.judge];
            let question =
                judge::question(series.method, subject, judge, setting, explanation, &shown)?;
            Ok((*series, question))
        };
        let texts = self.texts(series.texts());
        texts.chunks(self.batch(series.method)).map(question).collect()
    }

    /// What asking would take, by method and judge.
    pub(super) fn plan(&self, askers: &Askers) -> Result<Vec<(String, Plan)>> {
        let mut kinds: BTreeMap<(JudgeMethod, usize), Vec<Question>> = BTreeMap::new();
        for (series, question) in self.questions()? {
            kinds.entry((series.method, series.judge)).or_default().push(question);
        }
        let name = |(method, judge): (JudgeMethod, usize)| match judge {
            0 => method.word().to_string(),
            _ => format!("{}, second judge", method.word()),
        };
        kinds
            .into_iter()
            .map(|(kind, questions)| Ok((name(kind), askers.of(kind.0)?.plan(&questions))))
            .collect()
    }

    /// Asks everything.
    pub(super) fn ask(&self, askers: &Askers) -> Result<JudgedRows> {
        let (mut judged, mut verdicts) =
            (JudgedRows::default(), BTreeMap::<Series, Vec<Verdict>>::new());
        let is_embedding =
            |(series, _): &(Series, Question)| series.method == JudgeMethod::Embedding;
        let (embedded, chat): (Vec<_>, Vec<_>) =
            self.questions()?.into_iter().partition(is_embedding);
        for (what, all) in [("verdicts", chat), ("embeddings", embedded)] {
            let Some((first, _)) = all.first() else { continue };
            let asker = askers.of(first.method)?;
            let (series, questions): (Vec<Series>, Vec<Question>) = all.into_iter().unzip();
            let answers = asker.ask(what, &questions, judge::read)?;
            for ((series, question), asked) in series.iter().zip(&questions).zip(answers) {
                judged.tally.count(&asked.outcome);
                judged.ledger.extend(asked.calls.iter().map(|call| ledger(question, call)));
                let own = verdicts.entry(*series).or_default();
                let left = self.texts(series.texts()).len() - own.len();
                own.extend(verdicts_of(asked, left.min(self.batch(series.method))));
            }
        }
        judged.judgements =
            verdicts.iter().flat_map(|(series, own)| self.judgements(series, own)).collect();
        for (&feature, &method) in
            self.keys.iter().flat_map(|key| self.methods.iter().map(move |m| (key, m)))
        {
            let series = self.firsts(feature, method).chain(self.clauses(feature, method));
            let series = series.chain(self.imported(feature, method));
            judged
                .evaluations
                .extend(series.filter_map(|series| self.evaluation(series, &verdicts)));
            judged.agreements.extend(self.agreements(feature, method, &verdicts));
        }
        Ok(judged)
    }

    fn judgements(&self, series: &Series, verdicts: &[Verdict]) -> Vec<JudgementRow> {
        let name = |key: usize| self.work.features[key].feature;
        let is_embedding = series.method == JudgeMethod::Embedding;
        let row = |(number, (text, verdict)): (u32, (&Text, &Verdict))| JudgementRow {
            subject: name(series.feature),
            method: series.method.word().into(),
            judge: self.judges(series.method)[series.judge].into(),
            explained: name(series.explained),
            sample: series.sample,
            clause: series.clause.map(|clause| clause as u32),
            text: number,
            band: text.band,
            context: text.context,
            start: text.start,
            tokens: text.tokens,
            marked: text.marked.clone(),
            activation: text.activation,
            truth: text.truth,
            said: verdict.0.filter(|_| !is_embedding).map(yes),
            similarity: verdict.0.filter(|_| is_embedding).map(|cosine| cosine as f32),
            prompt_hash: verdict.1.clone(),
        };
        (0..).zip(self.texts(series.texts()).iter().zip(verdicts)).map(row).collect()
    }

    /// How a feature's first explanation, or a clause of it, does before a judge, beside another's
    /// and the rule.
    fn evaluation(
        &self,
        series: Series,
        verdicts: &BTreeMap<Series, Vec<Verdict>>,
    ) -> Option<EvaluationRow> {
        let Series { feature, method, clause, judge, .. } = series;
        let texts = self.texts(series.texts());
        let own = verdicts.get(&series)?;
        let explainer = match method {
            // Nobody's explanation is judged.
            JudgeMethod::Intruder => &self.work.told[&feature].first()?.explainer,
            _ => &self.explanation(&series)?.explainer,
        };
        let judge = self.judges(method)[judge];
        let row = EvaluationRow {
            clause: clause.map(|clause| clause as u32),
            ..self.work.unscored(feature, explainer, method.word(), judge)
        };
        if method == JudgeMethod::Intruder {
            return Some(found_intruders(row, texts, own));
        }
        let other = self.other(feature, series.sample).filter(|_| clause.is_none());
        let null = other.and_then(|explained| verdicts.get(&Series { explained, ..series }));
        // All three on the same texts: those to which there is every answer.
        let answered = |i: usize| own[i].0.is_some() && null.is_none_or(|null| null[i].0.is_some());
        let all: Vec<usize> = (0..own.len().min(texts.len())).filter(|&i| answered(i)).collect();
        // Below the threshold a text is neither active nor inactive.
        let is_weak = |i: usize| {
            method != JudgeMethod::Fuzzing && !texts[i].truth && texts[i].activation > 0.0
        };
        let places: Vec<usize> = all.iter().copied().filter(|&i| !is_weak(i)).collect();
        let score = |places: &[usize], truth: &dyn Fn(usize) -> bool, says: &[Verdict]| {
            let pairs = places.iter().filter_map(|&i| Some((truth(i), says[i].0?)));
            let pairs: Vec<(bool, f64)> = pairs.collect();
            match method {
                JudgeMethod::Embedding => similarity(&pairs),
                _ => Right::of(pairs.into_iter().map(|(truth, said)| (truth, yes(said))))
                    .balanced_accuracy(),
            }
        };
        let is_active = |i: usize| texts[i].truth;
        let any = (all.len() > places.len())
            .then(|| score(&all, &|i| texts[i].activation > 0.0, own))
            .flatten();
        let right = |band: Band| {
            let inactive = all.iter().filter(|&&i| texts[i].band == band && !texts[i].truth);
            let said: Vec<bool> = inactive.filter_map(|&i| own[i].0.map(yes)).collect();
            (!said.is_empty() && method != JudgeMethod::Embedding)
                .then(|| said.iter().filter(|yes| !**yes).count() as f64 / said.len() as f64)
        };
        let by_rule = places.iter().map(|&i| (texts[i].truth, texts[i].by_rule));
        let row = row.scored(score(&places, &is_active, own));
        Some(EvaluationRow {
            examples: places.len() as u32,
            null: null.and_then(|null| score(&places, &is_active, null)).map(|e| e.value),
            null_subject: other.map(|other| self.work.features[other].feature),
            rule: Right::of(by_rule).balanced_accuracy().map(|e| e.value),
            any: any.map(|e| e.value),
            right_token: right(Band::Token),
            right_similar: right(Band::Similar),
            right_inactive: right(Band::Inactive),
            ..row
        })
    }

    /// How far the judges agree on a feature's first explanation, and verdicts by its several
    /// explanations.
    fn agreements(
        &self,
        feature: usize,
        method: JudgeMethod,
        verdicts: &BTreeMap<Series, Vec<Verdict>>,
    ) -> Vec<AgreementRow> {
        let of = |judge: usize, sample: u32| {
            verdicts
                .get(&Series { sample, ..Series::first(feature, method, judge) })
                .map(Vec::as_slice)
        };
        let row = |between: &str, compared: usize, value: Option<f64>| {
            self.work.agreement(feature, between, method.word(), compared, value)
        };
        let mut rows = Vec::new();
        // Similarities are no verdicts that could agree.
        if method == JudgeMethod::Embedding {
            return rows;
        }
        if let (Some(first), Some(second)) = (of(0, 0), of(1, 0)) {
            let (a, b) = both(first, second);
            rows.push(row("judges", a.len(), kappa(&a, &b)));
        }
        let own = self.work.told[&feature].iter().filter(|told| !told.is_imported());
        let samples: Vec<&[Verdict]> = own.filter_map(|told| of(0, told.sample)).collect();
        if samples.len() > 1 {
            let agree = |a: &&[Verdict], b: &&[Verdict]| {
                let (a, b) = both(a, b);
                kappa(&a, &b)
            };
            let (compared, value) = over_pairs(&samples, agree);
            rows.push(row("samples", compared, value));
        }
        rows
    }
}

/// The ROC area of similarities: the chance that an active text is more similar to the explanation
/// than an inactive one.
fn similarity(pairs: &[(bool, f64)]) -> Option<Estimate> {
    let of = |active: bool| {
        let own = pairs.iter().filter(|(truth, _)| *truth == active);
        own.map(|(_, cosine)| *cosine).collect::<Vec<f64>>()
    };
    let (active, inactive) = (of(true), of(false));
    let area = area_under_curve(&active, &inactive)?;
    Some(of_area(area, active.len(), inactive.len()))
}

/// How many intruders were found, beside guessing, and the rule: it names one of the texts in which
/// it would not have the marks, or any if there is none.
fn found_intruders(row: EvaluationRow, texts: &[Text], own: &[Verdict]) -> EvaluationRow {
    let (mut questions, mut found, mut by_rule) = (0, 0, 0.0);
    for (set, said) in texts.chunks(SET).zip(own.chunks(SET)) {
        if said.iter().any(|(said, _)| said.is_none()) {
            continue;
        }
        questions += 1;
        let is_found =
            set.iter().zip(said).any(|(text, (said, _))| text.truth && said.is_some_and(yes));
        found += u64::from(is_found);
        let named: Vec<bool> =
            set.iter().filter(|text| !text.by_rule).map(|text| text.truth).collect();
        by_rule += match named.len() {
            0 => GUESSED,
            n => f64::from(u8::from(named.contains(&true))) / n as f64,
        };
    }
    let score = (questions > 0).then(|| wilson(found, questions));
    EvaluationRow {
        examples: questions as u32,
        null: Some(GUESSED),
        rule: score.map(|_| by_rule / questions as f64),
        ..row.scored(score)
    }
}

/// What guessing finds of intruders.
const GUESSED: f64 = 1.0 / SET as f64;

/// The verdicts of a question about so many texts.
fn verdicts_of(asked: Asked<Vec<f64>>, texts: usize) -> Vec<Verdict> {
    let hash = asked.calls.last().map(|call| call.hash.clone()).unwrap_or_default();
    let said = match asked.outcome {
        Outcome::Answered(verdicts) => verdicts.into_iter().map(Some).collect(),
        _ => vec![None; texts],
    };
    said.into_iter().map(|said| (said, hash.clone())).collect()
}

/// The texts of which both say something.
fn both(a: &[Verdict], b: &[Verdict]) -> (Vec<bool>, Vec<bool>) {
    a.iter().zip(b).filter_map(|(a, b)| Some((yes(a.0?), yes(b.0?)))).unzip()
}
