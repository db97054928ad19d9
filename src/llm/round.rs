//! One question from its first try to its end: looked up among the replies that are kept, sent if
//! it is not there, kept as it comes, read, and asked once more with what is wrong if it cannot be
//! read.

use super::ask::Asker;
use super::client::{Client, Completion, Live, Trouble};
use super::dialect::Dialect;
use super::letter::{Letter, Mistake, Mode, tokens};
use super::price::price;
use super::purse::Short;
use super::replies::{Record, Status};
use super::reply::object;
use super::weather::{self, Weather, quoted};
use super::{Asked, Call, Outcome, Question};
use crate::config::Replies as Setting;
use crate::error::Result;
use crate::stats::mix;
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// So many questions in a row without a reply, each with all its tries: nobody is there.
const AWAY: usize = 10;
/// How often is looked whether the purse has something again.
const GLANCE: Duration = Duration::from_millis(50);
/// The server's word for a reply that its filter stopped.
const FILTER: &str = "content_filter";
/// Its word for a reply that became too long.
const LENGTH: &str = "length";

/// One time that questions are asked, with a connection of its own.
pub struct Round<'r> {
    asker: &'r Asker<'r>,
    what: &'static str,
    /// Made when something is to be sent, as that takes a key.
    live: OnceLock<Live>,
}

/// How a letter ended. There is no call where nothing was sent.
struct Exchange {
    outcome: Outcome<String>,
    call: Option<Call>,
}

/// The tries of a letter so far.
#[derive(Default)]
struct Tries {
    attempts: u32,
    /// Those that failed for a reason that passes.
    failures: u32,
    seconds: f64,
}

/// How a try ended.
enum Tried {
    Heard(Completion),
    Trouble(Trouble),
    /// It was not made. Why.
    Closed(String),
}

impl<'r> Round<'r> {
    pub fn new(asker: &'r Asker<'r>, what: &'static str) -> Round<'r> {
        let round = Round { asker, what, live: OnceLock::new() };
        round.show("");
        round
    }

    /// Asks a question, to its end.
    ///
    /// # Errors
    /// When there is no key, or a reply cannot be kept.
    pub async fn answer<T>(
        &self,
        question: &Question,
        read: impl Fn(&Question, &Value) -> Result<T, String>,
    ) -> Result<Asked<T>> {
        let read = |reply: &str| object(reply).and_then(|object| read(question, &object));
        let first = self.exchange(question, None).await?;
        let (outcome, mistake, call) = first.read(read);
        let mut calls: Vec<Call> = call.into_iter().collect();
        let Some(mistake) = mistake else { return Ok(Asked { outcome, calls }) };
        let second = self.exchange(question, Some(&mistake)).await?;
        let (outcome, _, call) = second.read(read);
        calls.extend(call);
        Ok(Asked { outcome, calls })
    }

    /// The reply to a question, or to what is said to a mistake: one that is kept, or a new one.
    async fn exchange(&self, question: &Question, mistake: Option<&Mistake>) -> Result<Exchange> {
        for mode in Mode::allowed(self.asker.llm) {
            let letter = Letter::new(self.asker.llm, question, mistake, *mode)?;
            if let Some(record) = self.asker.replies.get(&letter.hash) {
                return Ok(self.heard(&letter, record));
            }
        }
        self.send(question, mistake).await
    }

    async fn send(&self, question: &Question, mistake: Option<&Mistake>) -> Result<Exchange> {
        let llm = self.asker.llm;
        let mut tries = Tries::default();
        loop {
            let dialect = self.dialect(&question.model);
            let letter = Letter::new(llm, question, mistake, Mode::of(llm, dialect))?;
            let trouble = match self.once(&letter, dialect, &mut tries).await? {
                Tried::Heard(said) => return self.keep(&letter, said, &tries),
                Tried::Closed(why) => {
                    return Ok(self.without_reply(&letter, Outcome::Left(why), &tries));
                }
                Tried::Trouble(trouble) => trouble,
            };
            let weather = match self.learned(&question.model, dialect, &trouble) {
                Some(Ok(())) => continue,
                Some(Err(why)) => Weather::Closed(why),
                None => weather::of(&trouble, llm),
            };
            let outcome = match weather {
                Weather::Passing(why, pause) => {
                    match self.wait(&letter, &mut tries, &why, pause).await {
                        true => continue,
                        false => Outcome::Left(self.missed(why, &tries)),
                    }
                }
                Weather::Failed(why) => Outcome::Failed(why),
                Weather::Refused(text) => {
                    let refused =
                        Completion { text, finish: FILTER.into(), ..Completion::default() };
                    return self.keep(&letter, refused, &tries);
                }
                Weather::Closed(why) => Outcome::Left(self.close(&why)),
            };
            return Ok(self.without_reply(&letter, outcome, &tries));
        }
    }

    /// One try, as soon as the pace and the purse allow it.
    async fn once(
        &self,
        letter: &Letter<'_>,
        dialect: Dialect,
        tries: &mut Tries,
    ) -> Result<Tried> {
        let Asker { llm, pace, purse, closed, .. } = self.asker;
        let expected = u64::from(letter.prompt_tokens()) + u64::from(llm.max_tokens / 2);
        let mut end = closed.subscribe();
        tokio::select! {
            biased;
            _ = end.wait_for(Option::is_some) => {}
            () = pace.turn(expected) => {}
        }
        if let Some(why) = closed.borrow().clone() {
            return Ok(Tried::Closed(why));
        }
        let most = u64::from(letter.most_prompt_tokens());
        let most = price(llm, letter.model(), most, u64::from(llm.max_tokens)).unwrap_or(0.0);
        if let Err(why) = self.afford(most).await {
            return Ok(Tried::Closed(self.close(&why)));
        }
        // Behind the purse: with an empty one, what is kept can be read without a key.
        let client = self.client()?;
        let begun = Instant::now();
        let said = client.send(letter.model(), letter.body(dialect)).await;
        tries.attempts += 1;
        tries.seconds += begun.elapsed().as_secs_f64();
        let (asked, answered) = said.as_ref().map_or((0, 0), |said| counted(letter, said));
        let (asked, answered) = (u64::from(asked), u64::from(answered));
        let cost = match &said {
            // It may have been written, and will be charged, though nobody heard it.
            Err(Trouble::Late) => most,
            _ => price(llm, letter.model(), asked, answered).unwrap_or(0.0),
        };
        purse.settle(most, cost);
        Ok(match said {
            Ok(said) => {
                pace.correct(expected, asked + answered);
                self.asker.misses.store(0, Ordering::Relaxed);
                self.show("");
                Tried::Heard(said)
            }
            Err(trouble) => Tried::Trouble(trouble),
        })
    }

    /// Takes what a call may cost at most out of the purse, as soon as other calls leave enough in
    /// it.
    ///
    /// # Errors
    /// The limit that is reached.
    async fn afford(&self, most: f64) -> Result<(), String> {
        loop {
            match self.asker.purse.take(most) {
                Ok(()) => return Ok(()),
                Err(Short::Empty(why)) => return Err(why),
                Err(Short::Held) => tokio::time::sleep(GLANCE).await,
            }
        }
    }

    fn client(&self) -> Result<&dyn Client> {
        if let Some(client) = &self.asker.client {
            return Ok(&**client);
        }
        if let Some(live) = self.live.get() {
            return Ok(live);
        }
        let live = Live::new(self.asker.llm)?;
        Ok(self.live.get_or_init(|| live))
    }

    fn dialect(&self, model: &str) -> Dialect {
        let dialects = self.asker.dialects.lock().unwrap_or_else(PoisonError::into_inner);
        dialects.get(model).copied().unwrap_or_default()
    }

    /// Learns from the trouble if it is only that the server does not know something, so that the
    /// same may be said in another way; why not, if the settings want it in this one.
    fn learned(
        &self,
        model: &str,
        spoken: Dialect,
        trouble: &Trouble,
    ) -> Option<Result<(), String>> {
        let Trouble::Answer(answer) = trouble else { return None };
        let known = spoken.without(answer)?;
        if spoken.schema && !known.schema && self.asker.llm.replies == Setting::Schema {
            let said = quoted(&answer.message);
            let why = format!(
                "the server takes no JSON schema, but `llm.replies = \"auto\"` would do without \
                 ({said})"
            );
            return Some(Err(why));
        }
        let mut dialects = self.asker.dialects.lock().unwrap_or_else(PoisonError::into_inner);
        let dialect = dialects.entry(model.into()).or_default();
        *dialect = dialect.and(known);
        Some(Ok(()))
    }

    /// Waits for another try, if there may be one.
    async fn wait(
        &self,
        letter: &Letter<'_>,
        tries: &mut Tries,
        why: &str,
        pause: Option<Duration>,
    ) -> bool {
        tries.failures += 1;
        if tries.failures > self.asker.llm.retries {
            return false;
        }
        if let Some(pause) = pause {
            self.show(&format!(
                ", waiting {} s: the server asked for it",
                pause.as_secs_f64().ceil()
            ));
            self.asker.pace.pause(pause);
        }
        let draw = letter
            .hash
            .bytes()
            .fold(u64::from(tries.failures), |draw, byte| mix(draw, u64::from(byte)));
        let wait = match pause {
            None => weather::backoff(self.asker.first_wait, tries.failures, draw),
            // Not all at the same moment when it is over; and longer each time, should the server
            // ask for too little.
            Some(_) if tries.failures == 1 => {
                self.asker.first_wait.mul_f64((draw % 100) as f64 / 1000.0)
            }
            Some(_) => weather::backoff(self.asker.first_wait, tries.failures - 1, draw),
        };
        if pause.is_none() {
            self.show(&format!(", waiting {} s: {why}", wait.as_secs_f64().ceil()));
        }
        let mut end = self.asker.closed.subscribe();
        drop(tokio::time::timeout(wait, end.wait_for(Option::is_some)).await);
        true
    }

    /// The reason of a question whose tries are used up; where there are too many of them, of all
    /// others as well.
    fn missed(&self, why: String, tries: &Tries) -> String {
        if self.asker.misses.fetch_add(1, Ordering::Relaxed) + 1 >= AWAY {
            self.close(&format!("{AWAY} questions in a row got no reply: {why}"));
        }
        if tries.failures == 1 { why } else { format!("{why}; tried {} times", tries.failures) }
    }

    /// Ends all asking. The reason that holds: only the first counts.
    pub fn close(&self, why: &str) -> String {
        self.asker.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert_with(|| why.into());
            first
        });
        self.asker.closed.borrow().clone().unwrap_or_default()
    }

    /// Keeps a reply, before anything else is done with it.
    fn keep(&self, letter: &Letter, said: Completion, tries: &Tries) -> Result<Exchange> {
        let (prompt_tokens, completion_tokens) = counted(letter, &said);
        let refused = said.refusal.is_some() || said.finish == FILTER;
        let record = Record {
            hash: letter.hash.clone(),
            model: letter.model().into(),
            served: said.served,
            purpose: letter.purpose.into(),
            status: if refused { Status::Refused } else { Status::Ok },
            reply: said.refusal.unwrap_or(said.text),
            finish: said.finish,
            prompt_tokens,
            completion_tokens,
            // So many digits are read as they were written.
            seconds: (tries.seconds * 1e3).round() / 1e3,
            attempts: tries.attempts,
        };
        self.asker.replies.keep(&record)?;
        Ok(self.heard(letter, record))
    }

    /// What a reply that is kept says.
    fn heard(&self, letter: &Letter, record: Record) -> Exchange {
        let llm = self.asker.llm;
        let outcome = match (record.status, record.finish.as_str()) {
            (Status::Refused, FILTER) => {
                Outcome::Refused(because("the server's filter stopped it", &record.reply))
            }
            (Status::Refused, _) => Outcome::Refused(because("the model refuses", &record.reply)),
            (Status::Ok, LENGTH) => Outcome::Failed(format!(
                "the reply was cut off at `llm.max_tokens = {}`",
                llm.max_tokens
            )),
            (Status::Ok, _) => Outcome::Said(record.reply.clone()),
        };
        let (asked, answered) = (record.prompt_tokens, record.completion_tokens);
        let call = Call {
            served: record.served,
            reply: record.reply,
            prompt_tokens: asked,
            completion_tokens: answered,
            cost: price(llm, letter.model(), asked.into(), answered.into()).unwrap_or(0.0),
            seconds: record.seconds,
            attempts: record.attempts,
            ..silent(letter, status(&outcome))
        };
        Exchange { outcome, call: Some(call) }
    }

    fn without_reply(&self, letter: &Letter, outcome: Outcome<String>, tries: &Tries) -> Exchange {
        let Tries { attempts, seconds, .. } = *tries;
        let call = Call { seconds, attempts, ..silent(letter, status(&outcome)) };
        Exchange { outcome, call: (attempts > 0).then_some(call) }
    }

    /// Shows what has been done so far and what it has cost, and what is going on.
    fn show(&self, more: &str) {
        let cost = self.asker.purse.spent().cost;
        let cost = if cost > 0.0 { format!(", cost {cost:.4}") } else { String::new() };
        self.asker.progress.tell(format!("{}{cost}{more}", self.what));
    }
}

impl Exchange {
    /// The outcome once the reply is read, and the mistake if there is one.
    fn read<T>(
        self,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> (Outcome<T>, Option<Mistake>, Option<Call>) {
        let outcome = match self.outcome {
            Outcome::Said(reply) => match read(&reply) {
                Ok(said) => Outcome::Said(said),
                Err(why) => {
                    let failed = Outcome::Failed(format!(
                        "the reply cannot be read, even after a repair: {why}"
                    ));
                    let call = self.call.map(|call| Call { status: status(&failed), ..call });
                    return (failed, Some(Mistake { reply, why }), call);
                }
            },
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Refused(why) => Outcome::Refused(why),
            Outcome::Left(why) => Outcome::Left(why),
        };
        (outcome, None, self.call)
    }
}

/// A call without a reply.
fn silent(letter: &Letter, status: &'static str) -> Call {
    Call {
        hash: letter.hash.clone(),
        purpose: letter.purpose,
        model: letter.model().into(),
        served: String::new(),
        messages: letter.messages.clone(),
        reply: String::new(),
        prompt_tokens: 0,
        completion_tokens: 0,
        cost: 0.0,
        seconds: 0.0,
        attempts: 0,
        status,
    }
}

/// Tokens asked and answered; an estimate where the server does not say.
fn counted(letter: &Letter, said: &Completion) -> (u32, u32) {
    let asked = said.prompt_tokens.unwrap_or_else(|| letter.prompt_tokens());
    (asked, said.completion_tokens.unwrap_or_else(|| tokens(said.text.chars().count())))
}

fn status<T>(outcome: &Outcome<T>) -> &'static str {
    match outcome {
        Outcome::Said(_) => "ok",
        Outcome::Failed(_) => "failed",
        Outcome::Refused(_) => "refused",
        Outcome::Left(_) => "left",
    }
}

fn because(what: &str, words: &str) -> String {
    if words.is_empty() { what.into() } else { format!("{what}: {}", quoted(words)) }
}
