//! Questions to judges, and what their verdicts say of explanations.

use super::texts::Text;
use super::work::{LlmExplanation, Work};
use crate::artifact::tables::{AgreementRow, EvaluationRow, JudgementRow, LedgerRow};
use crate::circuit::ReplacementModel;
use crate::config::ScoreMethod;
use crate::error::Result;
use crate::ids::{Band, Subject};
use crate::inputs;
use crate::llm::judge::{self, JudgeMethod, Setting};
use crate::llm::{Asked, Asker, Outcome, Plan, Question};
use crate::stages::usage_report::{UsageTally, ledger};
use crate::stats::agreement::{kappa, over_pairs};
use crate::stats::mix;
use crate::stats::rule::{Rule, Tally as Right};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// All texts of a feature by one method, with one explanation, before one judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    feature: usize,
    method: JudgeMethod,
    /// Which judge.
    judge: usize,
    /// The feature whose explanation it is.
    explained: usize,
    sample: u32,
}

/// What is said of a text, if anything can be read, and the hash of what was asked.
type Verdict = (Option<bool>, String);

/// Everything that is to be asked.
pub(super) struct Judging<'a> {
    work: &'a Work<'a>,
    methods: Vec<JudgeMethod>,
    judges: Vec<&'a str>,
    /// Features with an explanation, in the order in which they are asked about.
    keys: Vec<usize>,
    texts: BTreeMap<(usize, JudgeMethod), Vec<Text>>,
    /// What the model is, in words.
    about: String,
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
        };
        let methods: Vec<JudgeMethod> = config.evaluate.methods.iter().filter_map(method).collect();
        let mut keys: Vec<usize> =
            work.told.keys().copied().filter(|&key| work.first(key).is_some()).collect();
        // By name, an early end of the money would leave verdicts on the first layers alone.
        keys.sort_by_key(|&key| (mix(work.salts[key], 0), key));
        let texts = work.texts(replacement, rules, &keys, &methods)?;
        let about = inputs::about(config)?;
        Ok(Judging { work, methods, judges: config.judges(), keys, texts, about })
    }

    fn texts(&self, feature: usize, method: JudgeMethod) -> &[Text] {
        self.texts.get(&(feature, method)).map(Vec::as_slice).unwrap_or_default()
    }

    /// The feature whose explanation stands for chance.
    fn other(&self, feature: usize) -> Option<usize> {
        self.work.control(feature, self.keys.iter().copied())
    }

    /// What is asked of one feature: each of its explanations, of a second judge only the first;
    /// and another feature's of both.
    fn series_of(&self, feature: usize, method: JudgeMethod) -> Vec<Series> {
        let of = |judge: usize, explained: usize, sample: u32| Series {
            feature,
            method,
            judge,
            explained,
            sample,
        };
        let own = self.work.told[&feature].iter().map(|told| of(0, feature, told.sample));
        let others = (1..self.judges.len()).map(|judge| of(judge, feature, 0));
        let nulls = self
            .other(feature)
            .into_iter()
            .flat_map(|other| (0..self.judges.len()).map(move |j| of(j, other, 0)));
        own.chain(others).chain(nulls).collect()
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
        let question = |texts: &[Text]| {
            let shown: Vec<&str> = texts.iter().map(|text| text.shown.as_str()).collect();
            let question = judge::question(
                series.method,
                subject,
                self.judges[series.judge],
                Setting { about: &self.about, threshold: self.work.run.config.evaluate.threshold },
                &told.input,
                &shown,
            )?;
            Ok((*series, question))
        };
        let texts = self.texts(series.feature, series.method);
        texts.chunks(self.work.run.config.evaluate.batch).map(question).collect()
    }

    /// What asking would take, by method and judge.
    pub(super) fn plan(&self, asker: &Asker) -> Result<Vec<(String, Plan)>> {
        let mut kinds: BTreeMap<(JudgeMethod, usize), Vec<Question>> = BTreeMap::new();
        for (series, question) in self.questions()? {
            kinds.entry((series.method, series.judge)).or_default().push(question);
        }
        let name = |(method, judge): (JudgeMethod, usize)| match judge {
            0 => method.word().to_string(),
            _ => format!("{}, second judge", method.word()),
        };
        Ok(kinds
            .into_iter()
            .map(|(kind, questions)| (name(kind), asker.plan(&questions)))
            .collect())
    }

    /// Asks everything.
    pub(super) fn ask(&self, asker: &Asker) -> Result<JudgedRows> {
        let (series, questions): (Vec<Series>, Vec<Question>) =
            self.questions()?.into_iter().unzip();
        let answers = asker.ask("verdicts", &questions, judge::read)?;
        let (mut judged, mut verdicts) =
            (JudgedRows::default(), BTreeMap::<Series, Vec<Verdict>>::new());
        for ((series, question), asked) in series.iter().zip(&questions).zip(answers) {
            judged.tally.count(&asked.outcome);
            judged.ledger.extend(asked.calls.iter().map(|call| ledger(question, call)));
            let own = verdicts.entry(*series).or_default();
            let left = self.texts(series.feature, series.method).len() - own.len();
            own.extend(verdicts_of(asked, left.min(self.work.run.config.evaluate.batch)));
        }
        judged.judgements =
            verdicts.iter().flat_map(|(series, own)| self.judgements(series, own)).collect();
        for (&feature, &method) in
            self.keys.iter().flat_map(|key| self.methods.iter().map(move |m| (key, m)))
        {
            judged.evaluations.extend(
                (0..self.judges.len())
                    .filter_map(|judge| self.evaluation(feature, method, judge, &verdicts)),
            );
            judged.agreements.extend(self.agreements(feature, method, &verdicts));
        }
        Ok(judged)
    }

    fn judgements(&self, series: &Series, verdicts: &[Verdict]) -> Vec<JudgementRow> {
        let name = |key: usize| self.work.features[key].feature;
        let row = |(number, (text, verdict)): (u32, (&Text, &Verdict))| JudgementRow {
            subject: name(series.feature),
            method: series.method.word().into(),
            judge: self.judges[series.judge].into(),
            explained: name(series.explained),
            sample: series.sample,
            text: number,
            band: text.band,
            context: text.context,
            start: text.start,
            tokens: text.tokens,
            marked: text.marked.clone(),
            activation: text.activation,
            truth: text.truth,
            said: verdict.0,
            prompt_hash: verdict.1.clone(),
        };
        (0..).zip(self.texts(series.feature, series.method).iter().zip(verdicts)).map(row).collect()
    }

    /// How a feature's first explanation does before a judge, beside another's and the rule.
    fn evaluation(
        &self,
        feature: usize,
        method: JudgeMethod,
        judge: usize,
        verdicts: &BTreeMap<Series, Vec<Verdict>>,
    ) -> Option<EvaluationRow> {
        let (texts, said) = (self.texts(feature, method), |explained: usize| {
            verdicts.get(&Series { feature, method, judge, explained, sample: 0 })
        });
        let (own, other) = (said(feature)?, self.other(feature));
        let null = other.and_then(said);
        // All three on the same texts: those to which there is every answer.
        let answered = |i: usize| own[i].0.is_some() && null.is_none_or(|null| null[i].0.is_some());
        let all: Vec<usize> = (0..own.len().min(texts.len())).filter(|&i| answered(i)).collect();
        // Below the threshold a text is neither active nor inactive.
        let is_weak = |i: usize| {
            method == JudgeMethod::Detection && !texts[i].truth && texts[i].activation > 0.0
        };
        let places: Vec<usize> = all.iter().copied().filter(|&i| !is_weak(i)).collect();
        let any = all.len() > places.len();
        let any = any.then(|| {
            let pairs = all.iter().filter_map(|&i| Some((texts[i].activation > 0.0, own[i].0?)));
            Right::of(pairs).balanced_accuracy().map(|e| e.value)
        });
        let verdicts_own = own;
        let right = |band: Band| {
            let own = all.iter().filter(|&&i| texts[i].band == band && !texts[i].truth);
            let said: Vec<bool> = own.filter_map(|&i| verdicts_own[i].0).collect();
            (!said.is_empty())
                .then(|| said.iter().filter(|yes| !**yes).count() as f64 / said.len() as f64)
        };
        let accuracy = |says: &dyn Fn(usize) -> Option<bool>| {
            let pairs = places.iter().filter_map(|&i| Some((texts[i].truth, says(i)?)));
            Right::of(pairs).balanced_accuracy()
        };
        let own_accuracy = accuracy(&|i| own[i].0);
        let null = null.and_then(|null| accuracy(&|i| null[i].0));
        let rule = accuracy(&|i| Some(texts[i].by_rule));
        Some(EvaluationRow {
            subject: self.work.features[feature].feature,
            explainer: self.work.first(feature)?.explainer.clone(),
            method: method.word().into(),
            judge: self.judges[judge].into(),
            examples: places.len() as u32,
            balanced_accuracy: own_accuracy.map(|e| e.value),
            low: own_accuracy.map(|e| e.low),
            high: own_accuracy.map(|e| e.high),
            null: null.map(|e| e.value),
            null_subject: other.map(|other| self.work.features[other].feature),
            rule: rule.map(|e| e.value),
            any: any.flatten(),
            right_token: right(Band::Token),
            right_similar: right(Band::Similar),
            right_inactive: right(Band::Inactive),
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
                .get(&Series { feature, method, judge, explained: feature, sample })
                .map(Vec::as_slice)
        };
        let row = |between: &str, compared: usize, value: Option<f64>| {
            self.work.agreement(feature, between, method.word(), compared, value)
        };
        let mut rows = Vec::new();
        if let (Some(first), Some(second)) = (of(0, 0), of(1, 0)) {
            let (a, b) = both(first, second);
            rows.push(row("judges", a.len(), kappa(&a, &b)));
        }
        let samples: Vec<&[Verdict]> =
            self.work.told[&feature].iter().filter_map(|told| of(0, told.sample)).collect();
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

/// The verdicts of a question about so many texts.
fn verdicts_of(asked: Asked<Vec<bool>>, texts: usize) -> Vec<Verdict> {
    let hash = asked.calls.last().map(|call| call.hash.clone()).unwrap_or_default();
    let said = match asked.outcome {
        Outcome::Answered(verdicts) => verdicts.into_iter().map(Some).collect(),
        _ => vec![None; texts],
    };
    said.into_iter().map(|said| (said, hash.clone())).collect()
}

/// The texts of which both say something.
fn both(a: &[Verdict], b: &[Verdict]) -> (Vec<bool>, Vec<bool>) {
    a.iter().zip(b).filter_map(|(a, b)| Some((a.0?, b.0?))).unzip()
}
