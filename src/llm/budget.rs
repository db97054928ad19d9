//! The budget of a run: every call reserves the most that it may cost, and gives back what it did
//! not cost.

use crate::config::Llm;
use crate::ids::Shard;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The limits of one run, shared by its stages, or the share that one of several processes has in
/// them.
#[derive(Debug)]
pub struct Budget {
    max_cost: Option<f64>,
    max_calls: Option<u64>,
    /// The limits on cost and calls, in words.
    told: [String; 2],
    spent: Mutex<Spent>,
}

/// What has been spent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Requests sent, every try counted.
    pub calls: u64,
    /// What replies have cost.
    pub cost: f64,
    /// What calls that are under way may cost yet.
    held: f64,
}

/// Why nothing can be taken out.
#[derive(Clone, Debug, PartialEq)]
pub enum Exceeded {
    /// The limit that would be broken, in words.
    Limit(String),
    /// There may be enough again when calls that are under way have cost less than they may.
    Pending,
}

impl Budget {
    /// With the limits of the settings, nothing spent.
    pub fn new(llm: &Llm) -> Budget {
        let max_cost = Some(llm.max_cost).filter(|most| *most > 0.0);
        let max_calls = Some(llm.max_calls).filter(|most| *most > 0);
        let told = [
            format!("`llm.max_cost = {}`", llm.max_cost),
            format!("`llm.max_calls = {}`", llm.max_calls),
        ];
        Budget { max_cost, max_calls, told, spent: Mutex::default() }
    }

    /// The share of one of several processes: of what shards of other numbers have left, less what
    /// it has spent itself. All shares together are what is left.
    pub(super) fn share(llm: &Llm, shard: Shard, own: Spent, others: Spent) -> Budget {
        let Budget { max_cost, max_calls, told, .. } = Budget::new(llm);
        let [number, of] = [shard.number(), shard.of()].map(u64::from);
        let calls = |most: u64| {
            let rest = most.saturating_sub(others.calls);
            let up_to = |n: u64| (u128::from(rest) * u128::from(n) / u128::from(of)) as u64;
            up_to(number) - up_to(number - 1)
        };
        Budget {
            max_cost: max_cost.map(|most| (most - others.cost).max(0.0) / f64::from(shard.of())),
            max_calls: max_calls.map(calls),
            told: told.map(|limit| format!("the share of shard {shard} in {limit}")),
            spent: Mutex::new(own),
        }
    }

    /// One from which nothing can be taken.
    pub fn empty() -> Budget {
        let told = ["no cost", "no request"].map(String::from);
        Budget { max_cost: None, max_calls: Some(0), told, spent: Mutex::default() }
    }

    /// Takes out what was spent of it elsewhere, or before.
    pub fn charge(&self, calls: u64, cost: f64) {
        let mut spent = self.lock();
        spent.calls += calls;
        spent.cost += cost;
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what a call may cost at most.
    ///
    /// # Errors
    /// When a limit is in the way, for good or as long as other calls are under way.
    pub fn take(&self, most: f64) -> Result<(), Exceeded> {
        let mut spent = self.lock();
        let [cost, calls] = &self.told;
        if self.max_calls.is_some_and(|limit| spent.calls >= limit) {
            return Err(Exceeded::Limit(format!("{calls} is reached")));
        }
        if self.max_cost.is_some_and(|limit| spent.cost + most > limit) {
            return Err(Exceeded::Limit(format!("{cost} would be exceeded")));
        }
        if self.max_cost.is_some_and(|limit| spent.cost + spent.held + most > limit) {
            return Err(Exceeded::Pending);
        }
        spent.calls += 1;
        spent.held += most;
        Ok(())
    }

    /// Puts back what was taken for a call that has cost this much.
    pub fn settle(&self, most: f64, cost: f64) {
        let mut spent = self.lock();
        spent.held -= most;
        spent.cost += cost;
    }

    /// What has been spent so far.
    pub(crate) fn spent(&self) -> Spent {
        *self.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_under_way_count_with_the_most_they_may_cost() {
        let budget = Budget::new(&Llm { max_cost: 1.0, ..Llm::default() });
        assert!(budget.take(0.6).is_ok());
        assert_eq!(budget.take(0.5), Err(Exceeded::Pending));
        budget.settle(0.6, 0.1);
        assert!(budget.take(0.5).is_ok());
        assert_eq!(budget.spent().calls, 2);
        assert_eq!(
            budget.take(0.95),
            Err(Exceeded::Limit("`llm.max_cost = 1` would be exceeded".into()))
        );
    }

    #[test]
    fn nothing_is_taken_from_an_empty_purse() {
        assert!(Budget::empty().take(0.0).is_err());
    }

    /// Takes out calls of this cost until no more is there; how many.
    fn taken(budget: &Budget, cost: f64) -> u64 {
        let before = budget.spent().calls;
        while budget.take(cost).is_ok() {
            budget.settle(cost, cost);
        }
        budget.spent().calls - before
    }

    #[test]
    fn shares_are_the_whole_together_whatever_was_spent_before() {
        let limits = [
            Llm { max_calls: 7, ..Llm::default() },
            Llm { max_cost: 7.0, ..Llm::default() },
            Llm { max_cost: 7.0, max_calls: 5, ..Llm::default() },
        ];
        let spent = |n: u64| Spent { calls: n, cost: n as f64, ..Spent::default() };
        for llm in &limits {
            let whole = taken(&Budget::new(llm), 1.0);
            for of in 1..12 {
                let shards = (1..=of).map(|n| format!("{n}/{of}").parse().unwrap());
                let mut all = 0;
                for shard in shards {
                    let first = taken(&Budget::share(llm, shard, spent(0), spent(0)), 1.0);
                    all += first;
                    // Run again, it has nothing more.
                    let again = Budget::share(llm, shard, spent(first), spent(0));
                    assert_eq!(taken(&again, 1.0), 0);
                }
                assert!(all <= whole, "{all} of {whole} in {of} shares");
                // Of single calls as many as there are; a cost that no share has alone is left.
                assert!(all == whole || llm.max_cost > 0.0);
                let rest = Budget::new(llm);
                rest.charge(all, all as f64);
                assert_eq!(all + taken(&rest, 1.0), whole);
            }
            // Three of them are spent by shards of another number.
            let shards = ["1/2", "2/2"].map(|shard| shard.parse().unwrap());
            let left =
                shards.map(|shard| taken(&Budget::share(llm, shard, spent(0), spent(3)), 1.0));
            assert!(left.iter().sum::<u64>() <= whole - 3, "{left:?}");
        }
        let shard = "1/2".parse().unwrap();
        let free = Budget::share(&Llm::default(), shard, spent(9), spent(9));
        assert!(free.take(1e9).is_ok(), "without limits there are none");
        let llm = Llm { max_calls: 1, ..Llm::default() };
        let why = Budget::share(&llm, shard, spent(0), spent(0)).take(0.0);
        let told = "the share of shard 1/2 in `llm.max_calls = 1` is reached";
        assert_eq!(why, Err(Exceeded::Limit(told.into())));
    }

    #[test]
    fn calls_are_counted_and_stop_at_their_limit() {
        let budget = Budget::new(&Llm { max_calls: 1, ..Llm::default() });
        assert!(budget.take(9.0).is_ok());
        assert_eq!(budget.take(0.0), Err(Exceeded::Limit("`llm.max_calls = 1` is reached".into())));
    }
}
