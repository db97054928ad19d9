//! How asking a language model went, or would go: in words for the terminal, and as lines of a
//! ledger.

use crate::artifact::tables::LedgerRow;
use crate::llm::{ANOTHERS, Call, Outcome, Plan, Question, in_words};
use crate::stages::{Done, FailureReason};
use std::collections::BTreeMap;

/// Reasons that are told in the terminal.
const TOLD: usize = 3;

/// Questions of a stage by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UsageTally {
    pub said: u64,
    /// With what was refused.
    pub failed: u64,
    pub left: u64,
    /// Of what failed and of what is left, with the number of questions.
    reasons: BTreeMap<String, u64>,
}

impl UsageTally {
    pub(super) fn count<T>(&mut self, outcome: &Outcome<T>) {
        let reason = match outcome {
            Outcome::Answered(_) => return self.said += 1,
            Outcome::Failed(reason) | Outcome::Refused(reason) => {
                self.failed += 1;
                reason
            }
            Outcome::Left(reason) => {
                self.left += 1;
                reason
            }
        };
        *self.reasons.entry(in_words(reason)).or_default() += 1;
    }

    /// What a stage says when it ends.
    pub(super) fn done(&self, summary: String) -> Done {
        let UsageTally { said, failed, left, .. } = *self;
        Done { summary, answered: said, failed, left, reasons: self.most_frequent() }
    }

    /// What a stage says of a shard: how much it has asked, and what is left of its share; and what
    /// others are to ask, or is `later` to be asked when they have.
    pub(super) fn shared(&self, later: &[&str], requests: u64) -> Done {
        let mut own = self.clone();
        let waits = |reason: &str| reason == ANOTHERS || later.contains(&reason);
        let waiting = self.reasons.iter().filter(|(reason, _)| waits(reason));
        let waiting = waiting.map(|(_, number)| number).sum::<u64>();
        own.reasons.retain(|reason, _| !waits(reason));
        own.left -= waiting;
        own.done(format!(
            "{requests} requests now, {} left; {waiting} more are for other shards, or for later",
            own.left
        ))
    }

    /// The reasons for which most questions have no answer.
    fn most_frequent(&self) -> Vec<FailureReason> {
        let mut reasons: Vec<FailureReason> = self
            .reasons
            .iter()
            .map(|(reason, &number)| FailureReason { reason: reason.clone(), number })
            .collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.number));
        let others = reasons.split_off(reasons.len().min(TOLD));
        let number = others.iter().map(|reason| reason.number).sum();
        if number > 0 {
            reasons.push(FailureReason { reason: "other reasons".into(), number });
        }
        reasons
    }

    /// `512 explanations by MODEL, 3 failed, 0 left, 12 requests now, cost 0.0312`; the last two of
    /// this run alone. There is no cost without prices.
    pub(super) fn summary(
        &self,
        what: &str,
        models: &str,
        requests: u64,
        cost: Option<f64>,
    ) -> String {
        let UsageTally { said, failed, left, .. } = self;
        let cost = cost.map(|cost| format!(", cost {cost:.4}")).unwrap_or_default();
        format!(
            "{said} {what} by {models}, {failed} failed, {left} left, {requests} requests now{cost}"
        )
    }
}

/// What asking would take, a line for each kind of question and one for all.
pub(super) fn table(models: &str, rows: &[(&str, Plan)]) -> String {
    let mut all = Plan { cost: Some(0.0), ..Plan::default() };
    for (_, plan) in rows {
        all.questions += plan.questions;
        all.known += plan.known;
        all.calls += plan.calls;
        all.prompt_tokens += plan.prompt_tokens;
        all.completion_tokens += plan.completion_tokens;
        all.cost = all.cost.zip(plan.cost).map(|(sum, own)| sum + own);
    }
    let head = [
        "",
        "questions",
        "known",
        "to ask",
        "tokens asked",
        "completion tokens, max",
        "cost, about",
    ];
    let mut lines = vec![head.map(String::from)];
    lines.extend(rows.iter().map(|(name, plan)| cells(name, plan)));
    lines.push(cells("all", &all));
    let widths: Vec<usize> = (0..head.len())
        .map(|i| lines.iter().map(|line| line[i].len()).max().unwrap_or(0))
        .collect();
    let mut said: String = lines.iter().map(|line| aligned(line, &widths)).collect();
    if all.cost.is_none() {
        said.push_str("cost unknown: `llm.prices` does not have a price for every model\n");
    }
    said.push_str(&format!("asked: {models}\n"));
    said
}

fn cells(name: &str, plan: &Plan) -> [String; 7] {
    let cost = plan.cost.map_or("unknown".into(), |cost| format!("{cost:.4}"));
    let numbers =
        [plan.questions, plan.known, plan.calls, plan.prompt_tokens, plan.completion_tokens];
    let [questions, known, calls, asked, answered] = numbers.map(|n| n.to_string());
    [name.into(), questions, known, calls, asked, answered, cost]
}

/// The first to the left, numbers to the right.
fn aligned(line: &[String; 7], widths: &[usize]) -> String {
    let cell = |(i, (text, &width)): (usize, (&String, &usize))| match i {
        0 => format!("{text:<width$}"),
        _ => format!("  {text:>width$}"),
    };
    let line: String = line.iter().zip(widths).enumerate().map(cell).collect();
    format!("{}\n", line.trim_end())
}

/// A line of a ledger: what a call for a question took.
pub(super) fn ledger(question: &Question, call: &Call) -> LedgerRow {
    LedgerRow {
        prompt_hash: call.hash.clone(),
        subject: question.subject.clone(),
        purpose: call.purpose.into(),
        model: call.model.clone(),
        prompt_tokens: call.prompt_tokens,
        completion_tokens: call.completion_tokens,
        cost: call.cost,
        seconds: call.seconds,
        attempts: call.attempts,
        status: call.status,
    }
}

/// Rows in the order of a key, one of each.
pub(super) fn once<R>(rows: &mut Vec<R>, key: fn(&R) -> [String; 3]) {
    rows.sort_by_cached_key(key);
    rows.dedup_by(|a, b| key(a) == key(b));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_table_with_a_line_for_all() {
        let plan = Plan {
            questions: 10,
            known: 4,
            calls: 6,
            prompt_tokens: 12_000,
            completion_tokens: 3000,
            cost: Some(0.5),
        };
        let expected =
            "       questions  known  to ask  tokens asked  completion tokens, max  cost, about
one           10      4       6         12000                    3000       0.5000
other         10      4       6         12000                    3000       0.5000
all           20      8      12         24000                    6000       1.0000
asked: m
";
        assert_eq!(table("m", &[("one", plan), ("other", plan)]), expected);
        let unknown = table("m", &[("one", Plan { cost: None, ..plan })]);
        assert!(
            unknown.contains(" unknown\n") && unknown.contains("`llm.prices` does not have"),
            "{unknown}"
        );
    }

    #[test]
    fn the_most_frequent_reasons_are_told_with_their_numbers() {
        let mut tally = UsageTally::default();
        let failed = |why: &str| Outcome::<()>::Failed(why.into());
        for (why, times) in [("a", 2), ("b", 5), ("c", 1), ("d", 3), ("e", 1)] {
            (0..times).for_each(|_| tally.count(&failed(why)));
        }
        for column in 1..5 {
            tally.count(&failed(&format!("f\n\u{1b}: expected value at line 1 column {column}")));
        }
        tally.count(&Outcome::Answered(()));
        let done = tally.done("s".into());
        assert_eq!((done.answered, done.failed, done.left), (1, 16, 0));
        let told: Vec<(&str, u64)> =
            done.reasons.iter().map(|one| (one.reason.as_str(), one.number)).collect();
        let expected = [("b", 5), ("f⏎ : expected value", 4), ("d", 3), ("other reasons", 4)];
        assert_eq!(told, expected);
        assert!(UsageTally::default().done(String::new()).reasons.is_empty());
    }

    #[test]
    fn a_tally_is_told_with_its_cost_where_there_is_a_price() {
        let mut tally = UsageTally::default();
        let ends = [
            Outcome::Answered(1),
            Outcome::Refused("no".into()),
            Outcome::Failed("x".into()),
            Outcome::Left("y".into()),
        ];
        ends.iter().for_each(|end| tally.count(end));
        assert_eq!(
            tally.summary("verdicts", "m", 3, None),
            "1 verdicts by m, 2 failed, 1 left, 3 requests now"
        );
        assert!(
            tally.summary("verdicts", "m", 3, Some(0.5)).ends_with("3 requests now, cost 0.5000")
        );
    }
}
