//! How fast a server may be asked: its limits by the minute, spread evenly, and the pauses that it
//! asks for.

use crate::config::Llm;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A limit of so much a second. Each taking lasts as long as its amount needs at that rate, and the
/// next may begin then.
#[derive(Debug)]
struct Bucket {
    /// 0: no limit.
    per_second: f64,
    free: Instant,
}

impl Bucket {
    /// The share of one of `of` processes in so much a minute.
    fn a_minute(amount: u32, of: u32, now: Instant) -> Bucket {
        Bucket { per_second: f64::from(amount) / 60.0 / f64::from(of), free: now }
    }

    /// When this amount may be used.
    fn take(&mut self, amount: f64, now: Instant) -> Instant {
        let start = self.free.max(now);
        self.free = start + self.lasts(amount);
        start
    }

    /// Puts right what was taken, once the amount is known.
    fn correct(&mut self, taken: f64, real: f64) {
        match real >= taken {
            true => self.free += self.lasts(real - taken),
            false => {
                self.free = self.free.checked_sub(self.lasts(taken - real)).unwrap_or(self.free)
            }
        }
    }

    fn lasts(&self, amount: f64) -> Duration {
        if self.per_second > 0.0 {
            Duration::from_secs_f64(amount / self.per_second)
        } else {
            Duration::ZERO
        }
    }
}

/// The rate limit that all workers share.
pub(super) struct RateLimit(Mutex<State>);

struct State {
    requests: Bucket,
    tokens: Bucket,
    /// No request before this moment.
    paused: Instant,
}

impl RateLimit {
    /// The share of one of `of` processes in the limits of the settings.
    pub(super) fn new(llm: &Llm, of: u32) -> RateLimit {
        let now = Instant::now();
        let requests = Bucket::a_minute(llm.requests_per_minute, of, now);
        let tokens = Bucket::a_minute(llm.tokens_per_minute, of, now);
        RateLimit(Mutex::new(State { requests, tokens, paused: now }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of a request of so many tokens.
    pub(super) async fn turn(&self, tokens: u64) {
        let now = Instant::now();
        let mut start = {
            let mut state = self.lock();
            state
                .requests
                .take(1.0, now)
                .max(state.tokens.take(tokens as f64, now))
                .max(state.paused)
        };
        // A pause may begin while this waits.
        while start > Instant::now() {
            tokio::time::sleep_until(start.into()).await;
            start = start.max(self.lock().paused);
        }
    }

    /// Nobody asks for so long.
    pub(super) fn pause(&self, wait: Duration) {
        let mut state = self.lock();
        state.paused = state.paused.max(Instant::now() + wait);
    }

    /// Puts right what was taken, once the tokens are counted.
    pub(super) fn correct(&self, taken: u64, real: u64) {
        self.lock().tokens.correct(taken as f64, real as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flows_is_spread_evenly() {
        let now = Instant::now();
        let mut bucket = Bucket::a_minute(240, 2, now);
        let starts =
            [now, now, now, now + Duration::from_secs(9)].map(|at| bucket.take(1.0, at) - now);
        assert_eq!(starts, [0, 500, 1000, 9000].map(Duration::from_millis));
    }

    #[test]
    fn an_estimate_is_put_right() {
        let now = Instant::now();
        let mut bucket = Bucket::a_minute(60, 1, now);
        bucket.take(10.0, now);
        bucket.correct(10.0, 4.0);
        assert_eq!(bucket.take(1.0, now) - now, Duration::from_secs(4));
        bucket.correct(1.0, 3.0);
        assert_eq!(bucket.take(1.0, now) - now, Duration::from_secs(7));
    }

    #[test]
    fn without_a_limit_everything_flows_at_once() {
        let now = Instant::now();
        let mut bucket = Bucket::a_minute(0, 3, now);
        assert!((0..9).all(|_| bucket.take(1e9, now) == now));
    }
}
