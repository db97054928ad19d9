//! One question from its first try to its end: looked up among the replies that are kept, sent if
//! it is not there, kept as it comes, read, and asked once more with what is wrong if it cannot be
//! read.

use super::ask::Asker;
use super::budget::Exceeded;
use super::capabilities::Capabilities;
use super::client::{Client, Completion, HttpClient, RequestError};
use super::price::price;
use super::reply::object;
use super::request::{Mistake, Mode, Request, tokens};
use super::response_cache::{CachedReply, ReplyStatus};
use super::retry::{self, ErrorClass, quoted};
use super::{Asked, Call, Outcome, Question};
use crate::config::ReplyFormat;
use crate::error::Result;
use crate::ids::Status;
use crate::stats::mix;
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// So many questions in a row without a reply, each with all its tries: nobody is there.
const AWAY: usize = 10;
/// How often is looked whether the budget has something again.
const GLANCE: Duration = Duration::from_millis(50);
/// The server's word for a reply that its filter stopped.
const FILTER: &str = "content_filter";
/// Its word for a reply that became too long.
const LENGTH: &str = "length";

/// One time that questions are asked, with a connection of its own.
pub(super) struct Session<'r> {
    asker: &'r Asker<'r>,
    what: &'static str,
    /// Made when something is to be sent, as that takes a key.
    live: OnceLock<HttpClient>,
}

/// How a request ended. There is no call where nothing was sent.
struct Sent {
    outcome: Outcome<String>,
    call: Option<Call>,
}

/// The tries of a request so far.
#[derive(Default)]
struct Attempts {
    attempts: u32,
    /// Those that failed for a reason that passes.
    failures: u32,
    seconds: f64,
}

/// How a try ended.
enum Attempt {
    Reply(Completion),
    Error(RequestError),
    /// It was not made. Why.
    Stopped(String),
}

impl<'r> Session<'r> {
    pub(super) fn new(asker: &'r Asker<'r>, what: &'static str) -> Session<'r> {
        let session = Session { asker, what, live: OnceLock::new() };
        session.show("");
        session
    }

    /// Asks a question, to its end.
    ///
    /// # Errors
    /// When there is no key, or a reply cannot be kept.
    pub(super) async fn answer<T>(
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
    async fn exchange(&self, question: &Question, mistake: Option<&Mistake>) -> Result<Sent> {
        for mode in Mode::allowed(self.asker.llm) {
            let request = Request::new(self.asker.llm, question, mistake, *mode)?;
            if let Some(record) = self.asker.cache.get(&request.hash) {
                return Ok(self.heard(&request, record));
            }
        }
        self.send(question, mistake).await
    }

    async fn send(&self, question: &Question, mistake: Option<&Mistake>) -> Result<Sent> {
        let llm = self.asker.llm;
        let mut tries = Attempts::default();
        loop {
            let capabilities = self.capabilities(&question.model);
            let request = Request::new(llm, question, mistake, Mode::of(llm, capabilities))?;
            let error = match self.once(&request, capabilities, &mut tries).await? {
                Attempt::Reply(said) => return self.keep(&request, said, &tries),
                Attempt::Stopped(why) => {
                    return Ok(self.without_reply(&request, Outcome::Left(why), &tries));
                }
                Attempt::Error(error) => error,
            };
            let class = match self.learned(&question.model, capabilities, &error) {
                Some(Ok(())) => continue,
                Some(Err(why)) => ErrorClass::Fatal(why),
                None => retry::classify(&error, llm),
            };
            let outcome = match class {
                ErrorClass::Retry(why, pause) => {
                    match self.wait(&request, &mut tries, &why, pause).await {
                        true => continue,
                        false => Outcome::Left(self.missed(why, &tries)),
                    }
                }
                ErrorClass::Failed(why) => Outcome::Failed(why),
                ErrorClass::Refused(text) => {
                    let refused =
                        Completion { text, finish: FILTER.into(), ..Completion::default() };
                    return self.keep(&request, refused, &tries);
                }
                ErrorClass::Fatal(why) => Outcome::Left(self.close(&why)),
            };
            return Ok(self.without_reply(&request, outcome, &tries));
        }
    }

    /// One try, as soon as the rate_limit and the budget allow it.
    async fn once(
        &self,
        request: &Request<'_>,
        capabilities: Capabilities,
        tries: &mut Attempts,
    ) -> Result<Attempt> {
        let Asker { llm, rate_limit, budget, closed, .. } = self.asker;
        let expected = u64::from(request.prompt_tokens()) + u64::from(llm.max_tokens / 2);
        let mut end = closed.subscribe();
        tokio::select! {
            biased;
            _ = end.wait_for(Option::is_some) => {}
            () = rate_limit.turn(expected) => {}
        }
        if let Some(why) = closed.borrow().clone() {
            return Ok(Attempt::Stopped(why));
        }
        let most = u64::from(request.most_prompt_tokens());
        let most = price(llm, request.model(), most, u64::from(llm.max_tokens)).unwrap_or(0.0);
        if let Err(why) = self.afford(most).await {
            return Ok(Attempt::Stopped(self.close(&why)));
        }
        // Behind the budget: with an empty one, what is kept can be read without a key.
        let client = self.client()?;
        let begun = Instant::now();
        let said = client.send(request.model(), request.body(capabilities)).await;
        tries.attempts += 1;
        tries.seconds += begun.elapsed().as_secs_f64();
        let (asked, answered) = said.as_ref().map_or((0, 0), |said| counted(request, said));
        let (asked, answered) = (u64::from(asked), u64::from(answered));
        let cost = match &said {
            // It may have been written, and will be charged, though nobody heard it.
            Err(RequestError::Timeout) => most,
            _ => price(llm, request.model(), asked, answered).unwrap_or(0.0),
        };
        budget.settle(most, cost);
        Ok(match said {
            Ok(said) => {
                rate_limit.correct(expected, asked + answered);
                self.asker.misses.store(0, Ordering::Relaxed);
                self.show("");
                Attempt::Reply(said)
            }
            Err(error) => Attempt::Error(error),
        })
    }

    /// Takes what a call may cost at most out of the budget, as soon as other calls leave enough in
    /// it.
    ///
    /// # Errors
    /// The limit that is reached.
    async fn afford(&self, most: f64) -> Result<(), String> {
        loop {
            match self.asker.budget.take(most) {
                Ok(()) => return Ok(()),
                Err(Exceeded::Limit(why)) => return Err(why),
                Err(Exceeded::Pending) => tokio::time::sleep(GLANCE).await,
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
        let live = HttpClient::new(self.asker.llm)?;
        Ok(self.live.get_or_init(|| live))
    }

    fn capabilities(&self, model: &str) -> Capabilities {
        let capabilities_by_model =
            self.asker.capabilities_by_model.lock().unwrap_or_else(PoisonError::into_inner);
        capabilities_by_model.get(model).copied().unwrap_or_default()
    }

    /// Learns from the error if it is only that the server does not know something, so that the
    /// same may be said in another way; why not, if the settings want it in this one.
    fn learned(
        &self,
        model: &str,
        spoken: Capabilities,
        error: &RequestError,
    ) -> Option<Result<(), String>> {
        let RequestError::Status(answer) = error else { return None };
        let known = spoken.without(answer)?;
        if spoken.schema && !known.schema && self.asker.llm.replies == ReplyFormat::Schema {
            let said = quoted(&answer.message);
            let why = format!(
                "the server does not support JSON schemas; `llm.replies = \"auto\"` works without \
                 them ({said})"
            );
            return Some(Err(why));
        }
        let mut capabilities_by_model =
            self.asker.capabilities_by_model.lock().unwrap_or_else(PoisonError::into_inner);
        let capabilities = capabilities_by_model.entry(model.into()).or_default();
        *capabilities = capabilities.and(known);
        Some(Ok(()))
    }

    /// Waits for another try, if there may be one.
    async fn wait(
        &self,
        request: &Request<'_>,
        tries: &mut Attempts,
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
            self.asker.rate_limit.pause(pause);
        }
        let draw = request
            .hash
            .bytes()
            .fold(u64::from(tries.failures), |draw, byte| mix(draw, u64::from(byte)));
        let wait = match pause {
            None => retry::backoff(self.asker.first_wait, tries.failures, draw),
            // Not all at the same moment when it is over; and longer each time, should the server
            // ask for too little.
            Some(_) if tries.failures == 1 => {
                self.asker.first_wait.mul_f64((draw % 100) as f64 / 1000.0)
            }
            Some(_) => retry::backoff(self.asker.first_wait, tries.failures - 1, draw),
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
    fn missed(&self, why: String, tries: &Attempts) -> String {
        if self.asker.misses.fetch_add(1, Ordering::Relaxed) + 1 >= AWAY {
            self.close(&format!("no reply to {AWAY} requests in a row: {why}"));
        }
        if tries.failures == 1 { why } else { format!("{why}; tried {} times", tries.failures) }
    }

    /// Ends all asking. The reason that holds: only the first counts.
    pub(super) fn close(&self, why: &str) -> String {
        self.asker.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert_with(|| why.into());
            first
        });
        self.asker.closed.borrow().clone().unwrap_or_default()
    }

    /// Keeps a reply, before anything else is done with it.
    fn keep(&self, request: &Request, said: Completion, tries: &Attempts) -> Result<Sent> {
        let (prompt_tokens, completion_tokens) = counted(request, &said);
        let refused = said.refusal.is_some() || said.finish == FILTER;
        let record = CachedReply {
            hash: request.hash.clone(),
            model: request.model().into(),
            served: said.served,
            purpose: request.purpose.into(),
            status: if refused { ReplyStatus::Refused } else { ReplyStatus::Ok },
            reply: said.refusal.unwrap_or(said.text),
            finish: said.finish,
            prompt_tokens,
            completion_tokens,
            // So many digits are read as they were written.
            seconds: (tries.seconds * 1e3).round() / 1e3,
            attempts: tries.attempts,
        };
        self.asker.cache.keep(&record)?;
        Ok(self.heard(request, record))
    }

    /// What a reply that is kept says.
    fn heard(&self, request: &Request, record: CachedReply) -> Sent {
        let llm = self.asker.llm;
        let outcome = match (record.status, record.finish.as_str()) {
            (ReplyStatus::Refused, FILTER) => {
                Outcome::Refused(because("the server's content filter blocked it", &record.reply))
            }
            (ReplyStatus::Refused, _) => {
                Outcome::Refused(because("the model refused", &record.reply))
            }
            (ReplyStatus::Ok, LENGTH) => Outcome::Failed(format!(
                "the reply was cut off at `llm.max_tokens = {}`",
                llm.max_tokens
            )),
            (ReplyStatus::Ok, _) => Outcome::Answered(record.reply.clone()),
        };
        let (asked, answered) = (record.prompt_tokens, record.completion_tokens);
        let call = Call {
            served: record.served,
            reply: record.reply,
            prompt_tokens: asked,
            completion_tokens: answered,
            cost: price(llm, request.model(), asked.into(), answered.into()).unwrap_or(0.0),
            seconds: record.seconds,
            attempts: record.attempts,
            ..without_completion(request, status(&outcome))
        };
        Sent { outcome, call: Some(call) }
    }

    fn without_reply(&self, request: &Request, outcome: Outcome<String>, tries: &Attempts) -> Sent {
        let Attempts { attempts, seconds, .. } = *tries;
        let call = Call { seconds, attempts, ..without_completion(request, status(&outcome)) };
        Sent { outcome, call: (attempts > 0).then_some(call) }
    }

    /// Shows what has been done so far and what it has cost, and what is going on.
    fn show(&self, more: &str) {
        let cost = self.asker.budget.spent().cost;
        let cost = if cost > 0.0 { format!(", cost {cost:.4}") } else { String::new() };
        self.asker.progress.tell(format!("{}{cost}{more}", self.what));
    }
}

impl Sent {
    /// The outcome once the reply is read, and the mistake if there is one.
    fn read<T>(
        self,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> (Outcome<T>, Option<Mistake>, Option<Call>) {
        let outcome = match self.outcome {
            Outcome::Answered(reply) => match read(&reply) {
                Ok(said) => Outcome::Answered(said),
                Err(why) => {
                    let failed = Outcome::Failed(format!(
                        "the reply cannot be parsed, even after a repair request: {why}"
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
fn without_completion(request: &Request, status: Status) -> Call {
    Call {
        hash: request.hash.clone(),
        purpose: request.purpose,
        model: request.model().into(),
        served: String::new(),
        messages: request.messages.clone(),
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
fn counted(request: &Request, said: &Completion) -> (u32, u32) {
    let asked = said.prompt_tokens.unwrap_or_else(|| request.prompt_tokens());
    (asked, said.completion_tokens.unwrap_or_else(|| tokens(said.text.chars().count())))
}

fn status<T>(outcome: &Outcome<T>) -> Status {
    match outcome {
        Outcome::Answered(_) => Status::Ok,
        Outcome::Failed(_) => Status::Failed,
        Outcome::Refused(_) => Status::Refused,
        Outcome::Left(_) => Status::Left,
    }
}

fn because(what: &str, words: &str) -> String {
    if words.is_empty() { what.into() } else { format!("{what}: {}", quoted(words)) }
}
