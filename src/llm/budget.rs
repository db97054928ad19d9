//! The budget of a run: every call reserves the most that it may cost, and gives back what it did
//! not cost.

use crate::config::Llm;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The limits of one run, shared by its stages.
#[derive(Debug)]
pub struct Budget {
    /// 0: none.
    max_cost: f64,
    /// 0: none.
    max_calls: u64,
    spent: Mutex<Spent>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
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
        Budget { max_cost: llm.max_cost, max_calls: llm.max_calls, spent: Mutex::default() }
    }

    /// One from which nothing can be taken.
    pub fn empty() -> Budget {
        Budget {
            max_cost: 0.0,
            max_calls: 1,
            spent: Mutex::new(Spent { calls: 1, ..Spent::default() }),
        }
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
        if self.max_calls > 0 && spent.calls >= self.max_calls {
            return Err(Exceeded::Limit(format!(
                "`llm.max_calls = {}` is reached",
                self.max_calls
            )));
        }
        if self.max_cost > 0.0 && spent.cost + most > self.max_cost {
            return Err(Exceeded::Limit(format!(
                "`llm.max_cost = {}` would be exceeded",
                self.max_cost
            )));
        }
        if self.max_cost > 0.0 && spent.cost + spent.held + most > self.max_cost {
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

    #[test]
    fn calls_are_counted_and_stop_at_their_limit() {
        let budget = Budget::new(&Llm { max_calls: 1, ..Llm::default() });
        assert!(budget.take(9.0).is_ok());
        assert_eq!(budget.take(0.0), Err(Exceeded::Limit("`llm.max_calls = 1` is reached".into())));
    }
}
