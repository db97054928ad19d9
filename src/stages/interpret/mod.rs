//! `interpret`: an explanation for every feature, pair, component and group. The statistics always
//! say theirs; with a language model, it is asked about features first, and then, in their words,
//! about what is made of them.

mod features;
mod heads;
mod served;
mod sets;
mod subjects;
mod summaries;

pub(crate) use summaries::of_feature;

use crate::artifact::tables::{ExchangeRow, ExplanationRow, LedgerRow};
use crate::error::Result;
use crate::ids::{Status, Subject, SubjectKind};
use crate::llm::explainer::{self, Reply};
use crate::llm::{Asked, Asker, Call, Outcome, Question};
use crate::stages::usage_report::{self, UsageTally, ledger, once};
use crate::stages::{Done, Run};
use crate::summary::{STATISTICS, Sentences};
use features::{Causes, Material};
use sets::CircuitIndex;
use std::collections::BTreeSet;
use subjects::{Said, Subjects};

/// Why a question about something that is made of features is left.
const NOT_YET: &str = "one of its features has no explanation yet";

/// Writes an explanation for everything that has a page.
///
/// A shard asks its share and writes no table.
pub fn run(run: &Run) -> Result<Done> {
    run.progress.say("writing summaries");
    let (subjects, reader) = (Subjects::load(run)?, run.reader());
    let mut book = Book::new(&subjects);
    let before = run.budget.spent();
    if run.config.llm.asks() {
        let asker = run.asker(&run.config.llm)?;
        let material = Material::load(run, &reader, &subjects.tokenizer)?;
        let (questions, causes) = subjects.questions_alone(&material, &book.said)?;
        book.causes = causes;
        book.ask(&asker, "features explained", &questions)?;
        let circuits = CircuitIndex::load(&reader, run.store)?;
        let together = subjects.questions_together(&circuits, &book.said)?;
        let left = book.left();
        // In the statistics' words it would be paid for once more when the feature has its own.
        let (open, ready): (Vec<Question>, Vec<_>) =
            together.into_iter().partition(|q| subjects.needs(&q.subject, &circuits, &left));
        book.ask(&asker, "components, pairs and groups explained", &ready)?;
        book.leave(&open);
    }
    let spent = run.budget.spent();
    let (requests, cost) = (spent.calls - before.calls, spent.cost - before.cost);
    // The replies are kept; the tables are made of those of all shards.
    if run.shard.is_some() {
        return Ok(book.tally.shared(&[NOT_YET], requests));
    }
    book.write(run)?;
    Ok(book.done(run, requests, cost))
}

/// What asking would take, in a table. Nothing is sent, and nothing is written.
pub fn plan(run: &Run) -> Result<String> {
    let llm = &run.config.llm;
    let (subjects, reader) = (Subjects::load(run)?, run.reader());
    let asker = run.asker(llm)?;
    let mut book = Book::new(&subjects);
    let material = Material::load(run, &reader, &subjects.tokenizer)?;
    let (questions, _) = subjects.questions_alone(&material, &book.said)?;
    let alone = asker.plan(&questions);
    if alone.known > 0 {
        // What is known is read; the budget is empty, so that nothing else is asked.
        book.ask(&asker, "features", &questions)?;
    }
    let together = asker
        .plan(&subjects.questions_together(&CircuitIndex::load(&reader, run.store)?, &book.said)?);
    let mut said = usage_report::table(
        &llm.model,
        &[("features", alone), ("components, pairs, groups", together)],
    );
    if alone.calls > 0 {
        said.push_str(
            "prompts about components, pairs and groups contain the explanations of features; ",
        );
        said.push_str("the figures for them are an estimate\n");
    }
    Ok(said)
}

/// Everything that is said of subjects, and what was asked for it.
#[derive(Default)]
struct Book {
    explanations: Vec<ExplanationRow>,
    exchanges: Vec<ExchangeRow>,
    ledger: Vec<LedgerRow>,
    /// The best sentences so far.
    said: Said,
    /// What the clauses of explanations are of.
    causes: Causes,
    tally: UsageTally,
}

impl Book {
    /// With what the statistics say.
    fn new(subjects: &Subjects) -> Book {
        let mut book = Book::default();
        for counted in subjects.counted() {
            let reply = Reply {
                input: counted.said.input_side.clone(),
                output: counted.said.output_side.clone(),
                ..Reply::default()
            };
            let row = ExplanationRow {
                kind: counted.subject.kind(),
                explainer: STATISTICS.into(),
                ..said(reply)
            };
            book.explanations.push(ExplanationRow { subject: counted.subject.clone(), ..row });
            book.said.insert(counted.subject, counted.said);
        }
        book
    }

    fn ask(&mut self, asker: &Asker, what: &'static str, questions: &[Question]) -> Result<()> {
        let answers = asker.ask(what, questions, explainer::read)?;
        let rows: Vec<ExplanationRow> =
            questions.iter().zip(answers).map(|(q, asked)| self.row(q, asked)).collect();
        // The first of several samples is put in last, and stays.
        for row in rows.iter().rev().filter(|row| row.status == Status::Ok) {
            let sentences = Sentences {
                input_side: row.input_side.clone(),
                output_side: row.output_side.clone(),
            };
            self.said.insert(row.subject.clone(), sentences);
        }
        self.explanations.extend(rows);
        Ok(())
    }

    /// What no answer was to be had for.
    fn left(&self) -> BTreeSet<Subject> {
        let rows =
            self.explanations.iter().filter(|row| row.status == Status::Left && row.sample == 0);
        rows.map(|row| row.subject.clone()).collect()
    }

    /// Leaves questions to the next run.
    fn leave(&mut self, questions: &[Question]) {
        for question in questions {
            let outcome = Outcome::Left(NOT_YET.into());
            let row = self.row(question, Asked { outcome, calls: Vec::new() });
            self.explanations.push(row);
        }
    }

    fn row(&mut self, question: &Question, asked: Asked<Reply>) -> ExplanationRow {
        let subject = question.subject.clone();
        self.tally.count(&asked.outcome);
        let prompt_hash = asked.calls.first().map(|call| call.hash.clone()).unwrap_or_default();
        for call in asked.calls {
            self.ledger.push(ledger(question, &call));
            // Without a reply there was no exchange.
            if call.status != Status::Left {
                self.exchanges.push(exchange(question, call));
            }
        }
        let row = match asked.outcome {
            Outcome::Answered(reply) => {
                let causes = self.causes.get(&subject).cloned().unwrap_or_default();
                // What cannot be told whose it is, is left out.
                match reply.clauses.len() == causes.len() {
                    true => ExplanationRow { causes, ..said(reply) },
                    false => said(Reply { clauses: Vec::new(), ..reply }),
                }
            }
            Outcome::Refused(reason) => {
                ExplanationRow { status: Status::Refused, reason, ..said(Reply::default()) }
            }
            Outcome::Failed(reason) => {
                ExplanationRow { status: Status::Failed, reason, ..said(Reply::default()) }
            }
            Outcome::Left(reason) => {
                ExplanationRow { status: Status::Left, reason, ..said(Reply::default()) }
            }
        };
        ExplanationRow {
            kind: subject.kind(),
            subject,
            explainer: question.form.name.into(),
            sample: question.sample,
            model: question.model.clone(),
            prompt_hash,
            ..row
        }
    }

    /// Writes the tables, each sorted by its leading columns.
    fn write(&mut self, run: &Run) -> Result<()> {
        let key = |row: &ExplanationRow| {
            (row.subject.to_string(), row.kind, row.explainer.clone(), row.sample)
        };
        self.explanations.sort_by_cached_key(key);
        once(&mut self.exchanges, |row| {
            [row.prompt_hash.clone(), row.subject.to_string(), row.purpose.clone()]
        });
        once(&mut self.ledger, |row| {
            [row.prompt_hash.clone(), row.subject.to_string(), row.purpose.clone()]
        });
        run.store.write(run.fingerprint, &self.explanations)?;
        run.store.write(run.fingerprint, &self.exchanges)?;
        run.store.write(run.fingerprint, &self.ledger)
    }

    fn done(&self, run: &Run, requests: u64, cost: f64) -> Done {
        let llm = &run.config.llm;
        let summaries = self.explanations.iter().filter(|row| row.explainer == STATISTICS).count();
        let summary = if llm.asks() {
            self.tally.summary(
                "explanations",
                &llm.model,
                requests,
                llm.prices.contains_key(&llm.model).then_some(cost),
            )
        } else {
            format!("{summaries} summaries of the statistics; no language model is set")
        };
        self.tally.done(summary)
    }
}

/// A row of what was said; of what, by whom and why is for others.
fn said(reply: Reply) -> ExplanationRow {
    ExplanationRow {
        subject: Subject::Group(String::new()),
        kind: SubjectKind::Group,
        explainer: String::new(),
        sample: 0,
        model: String::new(),
        status: Status::Ok,
        text: format!("{} {}", reply.input, reply.output).trim().into(),
        input_side: reply.input,
        output_side: reply.output,
        weakly: reply.weakly,
        reads_from: reply.reads_from,
        clauses: reply.clauses,
        causes: Vec::new(),
        input_confidence: reply.input_confidence,
        output_confidence: reply.output_confidence,
        matching: reply.matching,
        carried: reply.carried,
        claims: reply.promotes,
        reason: String::new(),
        prompt_hash: String::new(),
    }
}

fn exchange(question: &Question, call: Call) -> ExchangeRow {
    ExchangeRow {
        prompt_hash: call.hash,
        subject: question.subject.clone(),
        purpose: call.purpose.into(),
        model: call.model,
        served: call.served,
        roles: call.messages.iter().map(|message| message.role.word().into()).collect(),
        messages: call.messages.into_iter().map(|message| message.text).collect(),
        reply: call.reply,
        status: call.status,
    }
}
