//! One question from its first try to its end: looked up among the replies that are kept, sent if
//! it is not there, kept as it comes, read, and asked once more with what is wrong if it cannot be
//! read.

use super::ask::Asker;
use super::budget::Exceeded;
use super::capabilities::Capabilities;
use super::client::{Client, Completion, HttpClient, LENGTH, RequestError};
use super::price::price;
use super::reply::{fitted, object, says_nothing};
use super::request::{Mistake, Mode, Request, Way, raised, tokens};
use super::response_cache::{CachedReply, LostTries, ReplyStatus};
use super::retry::{self, ErrorClass, quoted};
use super::share::ANOTHERS;
use super::{Asked, Call, Outcome, Question};
use crate::config::{Llm, ReplyFormat};
use crate::error::Result;
use crate::ids::Status;
use crate::process;
use crate::stats::mix;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// So many questions in a row without a reply, each with all its tries: nobody is there.
const AWAY: usize = 10;
/// So many questions in a row that fail for the same reason: the next ones will, too.
const SAME: usize = 10;
/// So many replies in a row without an object, by a schema: it is not kept to.
const SHAPELESS: u32 = 3;
/// How often is looked whether the budget has something again, and whether the program is to stop.
const GLANCE: Duration = Duration::from_millis(50);
/// The server's word for a reply that its filter stopped.
const FILTER: &str = "content_filter";

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
    way: Way,
    /// The reply reached its limit on tokens before it said anything.
    silent: bool,
    /// There is a reply.
    replied: bool,
    /// In this run, so that it was paid for now.
    now: bool,
}

/// What has been asked for one question.
#[derive(Default)]
struct Course {
    calls: Vec<Call>,
    /// Something was sent in this run.
    sent: bool,
}

/// The tries of a request so far.
#[derive(Default)]
struct Attempts {
    attempts: u32,
    /// Those that failed for a reason that passes.
    failures: u32,
    seconds: f64,
    /// Tokens of tries that are charged although no reply came of them, of messages and replies.
    lost: [u64; 2],
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

    /// Asks a question, to its end: once, and where that failed once more in each of the rounds in
    /// which failed questions are, or were, asked again.
    ///
    /// # Errors
    /// When there is no key, or a reply cannot be kept.
    pub(super) async fn answer<T>(
        &self,
        question: &Question,
        read: impl Fn(&Question, &Value) -> Result<T, String>,
    ) -> Result<Asked<T>> {
        let mut course = Course::default();
        let mut outcome = self.round(question, 0, &read, &mut course).await?;
        let mut rounds = self.asker.replies.rounds();
        rounds.extend(Some(self.asker.again).filter(|round| *round > 0));
        for round in rounds {
            let before = match &outcome {
                Outcome::Failed(why) | Outcome::Refused(why) => why.clone(),
                Outcome::Answered(_) | Outcome::Left(_) => break,
            };
            let again = round == self.asker.again && !course.sent;
            let ways = Way::allowed(self.asker.llm, round);
            if !again && self.kept(question, None, &ways)?.is_none() {
                continue;
            }
            outcome = match self.round(question, round, &read, &mut course).await? {
                // It stands as failed: no run but one that asks again would ask for it.
                Outcome::Left(why) => {
                    Outcome::Failed(format!("{before}; asked again without a reply: {why}"))
                }
                outcome => outcome,
            };
        }
        self.count(&outcome, course.sent);
        Ok(Asked { outcome, calls: course.calls })
    }

    /// Asks a question and, where the reply cannot be read, says what is wrong with it; and both
    /// once more by a marked line where replies by a schema turned out to have no object.
    async fn round<T>(
        &self,
        question: &Question,
        round: u32,
        read: &impl Fn(&Question, &Value) -> Result<T, String>,
        course: &mut Course,
    ) -> Result<Outcome<T>> {
        let mut ways = Way::allowed(self.asker.llm, round);
        loop {
            let first = self.exchange(question, None, &ways, course).await?;
            let by_schema = first.way.mode == Mode::Schema;
            let (outcome, mistake) = self.read(question, first, read, course);
            let Some(mistake) = mistake else { return Ok(outcome) };
            let second = self.exchange(question, Some(&mistake), &ways, course).await?;
            let (outcome, mistake) = self.read(question, second, read, course);
            ways.retain(|way| way.mode == Mode::Line);
            let learned = || -> Result<bool> {
                Ok(!self.capabilities(&question.model).schema
                    || self.kept(question, None, &ways)?.is_some())
            };
            if mistake.is_none() || !by_schema || ways.is_empty() || !learned()? {
                return Ok(outcome);
            }
        }
    }

    /// Reads a reply, and notes the call.
    fn read<T>(
        &self,
        question: &Question,
        sent: Sent,
        read: &impl Fn(&Question, &Value) -> Result<T, String>,
        course: &mut Course,
    ) -> (Outcome<T>, Option<Mistake>) {
        let Sent { outcome, call, way, now, .. } = sent;
        let (outcome, mistake) = match outcome {
            Outcome::Answered(reply) => {
                let found = object(&reply);
                if way.mode == Mode::Schema {
                    self.formed(&question.model, found.is_ok());
                }
                let said =
                    found.and_then(|found| read(question, &fitted(&question.form.schema, found)));
                match said {
                    Ok(said) => (Outcome::Answered(said), None),
                    Err(why) => {
                        let failed = format!(
                            "the reply cannot be parsed, even after a repair request: {why}"
                        );
                        (Outcome::Failed(failed), Some(Mistake { reply, why }))
                    }
                }
            }
            Outcome::Failed(why) => (Outcome::Failed(why), None),
            Outcome::Refused(why) => (Outcome::Refused(why), None),
            Outcome::Left(why) => (Outcome::Left(why), None),
        };
        let status = status(&outcome);
        course.note(call.map(|call| Call { status, ..call }), now);
        (outcome, mistake)
    }

    /// Learns that a model does not keep to schemas, when several replies in a row have no object.
    fn formed(&self, model: &str, is: bool) {
        let mut shapeless = self.asker.shapeless.lock().unwrap_or_else(PoisonError::into_inner);
        let number = shapeless.entry(model.into()).or_default();
        *number = if is { 0 } else { *number + 1 };
        if *number >= SHAPELESS && self.asker.llm.replies == ReplyFormat::Auto {
            self.learn(model, Capabilities { schema: false, ..Capabilities::default() });
        }
    }

    /// Ends all asking when questions that were paid for now fail one after the other, for the same
    /// reason.
    fn count<T>(&self, outcome: &Outcome<T>, sent: bool) {
        if !sent {
            return;
        }
        let mut failing = self.asker.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Answered(_) => *failing = (String::new(), 0),
            Outcome::Left(_) => {}
            Outcome::Failed(why) | Outcome::Refused(why) => {
                let number = if failing.0 == cause(why) { failing.1 + 1 } else { 1 };
                *failing = (cause(why).into(), number);
                if number >= SAME {
                    self.close(&format!(
                        "{SAME} questions in a row failed for the same reason: {why}"
                    ));
                }
            }
        }
    }

    /// A reply that is kept, to a question asked in any of some ways.
    fn kept(
        &self,
        question: &Question,
        mistake: Option<&Mistake>,
        ways: &[Way],
    ) -> Result<Option<Sent>> {
        for way in ways {
            let request = Request::new(self.asker.llm, question, mistake, *way)?;
            if let Some(record) = self.asker.replies.get(&request.hash) {
                return Ok(Some(self.heard(&request, record, false)));
            }
        }
        Ok(None)
    }

    /// The reply to a question, or to what is said to a mistake: one that is kept, or a new one.
    /// Where a reply had only reasoning, the one with a higher limit.
    async fn exchange(
        &self,
        question: &Question,
        mistake: Option<&Mistake>,
        ways: &[Way],
        course: &mut Course,
    ) -> Result<Sent> {
        let sent = match self.kept(question, mistake, ways)? {
            Some(sent) => sent,
            None => self.send(question, mistake, ways).await?,
        };
        let higher = raised(self.asker.llm).filter(|high| *high > sent.way.max_tokens);
        let Some(max_tokens) = higher.filter(|_| sent.silent) else { return Ok(sent) };
        let Sent { outcome, call, way, now, .. } = sent;
        course.note(call, now);
        let way = [Way { max_tokens, ..way }];
        let more = match self.kept(question, mistake, &way)? {
            Some(more) => more,
            None => self.send(question, mistake, &way).await?,
        };
        match more.outcome {
            // As it is with a server that has not as much room.
            Outcome::Failed(_) if !more.replied => Ok(Sent { outcome, ..more }),
            _ => {
                if more.replied && !more.silent {
                    let raised = Capabilities { raised: true, ..Capabilities::default() };
                    self.learn(&question.model, raised);
                }
                Ok(more)
            }
        }
    }

    async fn send(
        &self,
        question: &Question,
        mistake: Option<&Mistake>,
        ways: &[Way],
    ) -> Result<Sent> {
        let llm = self.asker.llm;
        if !self.asker.is_own(question)? {
            return Ok(self.left_to_another(question, ways));
        }
        let round = ways.first().map_or(0, |way| way.round);
        let (mut tries, mut merge) = (Attempts::default(), false);
        loop {
            let known = self.capabilities(&question.model);
            let best = Way::of(llm, known, round);
            let way = Some(best).filter(|best| ways.contains(best)).or(ways.first().copied());
            let request = Request::new(llm, question, mistake, way.unwrap_or(best))?;
            let capabilities = Capabilities { system: known.system && !merge, ..known };
            let error = match self.once(&request, capabilities, &mut tries).await? {
                Attempt::Reply(said) => {
                    if merge {
                        self.learn(&question.model, Capabilities { system: false, ..known });
                    }
                    return self.keep(&request, said, &tries);
                }
                Attempt::Stopped(why) => {
                    return self.without_reply(&request, Outcome::Left(why), &tries);
                }
                Attempt::Error(error) => error,
            };
            let class = match self.learned(&question.model, capabilities, &error) {
                Some(Ok(())) => continue,
                Some(Err(why)) => ErrorClass::Fatal(why),
                None => retry::classify(&error, llm),
            };
            // The server need not say that it is the system message that it does not accept.
            let mergeable = request.has_system() && capabilities.system && is_unexplained(&error);
            *self.asker.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            let outcome = match class {
                ErrorClass::Retry(why, pause) => {
                    match self.wait(&request, &mut tries, &why, pause).await {
                        true => continue,
                        false if mergeable => {
                            merge = true;
                            continue;
                        }
                        false => Outcome::Left(self.missed(why, &tries)),
                    }
                }
                ErrorClass::Failed(_) if mergeable => {
                    merge = true;
                    continue;
                }
                ErrorClass::Failed(why) => Outcome::Failed(why),
                ErrorClass::Refused(text) => {
                    let refused =
                        Completion { text, finish: FILTER.into(), ..Completion::default() };
                    return self.keep(&request, refused, &tries);
                }
                ErrorClass::Fatal(why) => Outcome::Left(self.close(&why)),
            };
            return self.without_reply(&request, outcome, &tries);
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
        let expected = u64::from(request.prompt_tokens() + request.most_completion_tokens() / 2);
        let mut end = closed.subscribe();
        tokio::select! {
            biased;
            _ = end.wait_for(Option::is_some) => {}
            () = rate_limit.turn(expected) => {}
        }
        if let Some(why) = closed.borrow().clone() {
            return Ok(Attempt::Stopped(why));
        }
        let answers = request.most_completion_tokens();
        let [asks, answers] = [request.most_prompt_tokens(), answers].map(u64::from);
        let most = price(llm, request.model(), asks, answers).unwrap_or(0.0);
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
            // It may have been written, and will be charged, though nobody could read it.
            Err(error) if error.is_charged() => {
                tries.lost = [tries.lost[0] + asks, tries.lost[1] + answers];
                most
            }
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

    /// Notes what a server turned out not to know.
    fn learn(&self, model: &str, known: Capabilities) {
        let mut capabilities_by_model =
            self.asker.capabilities_by_model.lock().unwrap_or_else(PoisonError::into_inner);
        let capabilities = capabilities_by_model.entry(model.into()).or_default();
        *capabilities = capabilities.and(known);
    }

    /// What a model has been found to understand.
    pub(super) fn capabilities(&self, model: &str) -> Capabilities {
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
        self.learn(model, known);
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
            lost: tries.lost,
            round: request.way.round,
            run: self.asker.run.clone(),
        };
        self.asker.replies.keep(&record)?;
        Ok(self.heard(request, record, true))
    }

    /// What a reply that is kept says.
    fn heard(&self, request: &Request, record: CachedReply, now: bool) -> Sent {
        let llm = self.asker.llm;
        let is_cut = record.status == ReplyStatus::Ok && record.finish == LENGTH;
        let silent = is_cut && says_nothing(&record.reply);
        let limit = limit(llm, request.way.max_tokens);
        let outcome = match (record.status, record.finish.as_str()) {
            (ReplyStatus::Refused, FILTER) => {
                Outcome::Refused(because("the server's content filter blocked it", &record.reply))
            }
            (ReplyStatus::Refused, _) => {
                Outcome::Refused(because("the model refused", &record.reply))
            }
            (ReplyStatus::Ok, _) if silent => Outcome::Failed(format!(
                "the reply had only reasoning when it reached `{limit}`; raise \
                 `llm.max_tokens_limit`"
            )),
            // A server may have gone on behind the answer, with spaces.
            (ReplyStatus::Ok, _) if is_cut && object(&record.reply).is_err() => {
                Outcome::Failed(format!("the reply was cut off at `{limit}`"))
            }
            (ReplyStatus::Ok, _) => Outcome::Answered(record.reply.clone()),
        };
        let (asked, answered) = (record.prompt_tokens, record.completion_tokens);
        let call = Call {
            served: record.served,
            reply: record.reply,
            prompt_tokens: asked,
            completion_tokens: answered,
            cost: self.cost(request, [asked.into(), answered.into()], record.lost),
            seconds: record.seconds,
            attempts: record.attempts,
            ..without_completion(request, status(&outcome))
        };
        Sent { outcome, call: Some(call), way: request.way, silent, replied: true, now }
    }

    /// A question that another process is to ask.
    fn left_to_another(&self, question: &Question, ways: &[Way]) -> Sent {
        let known = || Way::of(self.asker.llm, self.capabilities(&question.model), 0);
        let way = ways.first().copied().unwrap_or_else(known);
        let outcome = Outcome::Left(ANOTHERS.into());
        Sent { outcome, call: None, way, silent: false, replied: false, now: false }
    }

    fn without_reply(
        &self,
        request: &Request,
        outcome: Outcome<String>,
        tries: &Attempts,
    ) -> Result<Sent> {
        let Attempts { attempts, seconds, lost, .. } = *tries;
        let (run, model) = (self.asker.run.clone(), request.model().into());
        self.asker.replies.lose(&LostTries { run, model, attempts, lost })?;
        let cost = self.cost(request, [0, 0], lost);
        let call =
            Call { seconds, attempts, cost, ..without_completion(request, status(&outcome)) };
        let (now, way) = (attempts > 0, request.way);
        let call = now.then_some(call);
        Ok(Sent { outcome, call, way, silent: false, replied: false, now })
    }

    /// What a request cost, with the tries that were lost; 0 where its model has no price.
    fn cost(&self, request: &Request, replied: [u64; 2], lost: [u64; 2]) -> f64 {
        let [asked, answered] = [replied[0] + lost[0], replied[1] + lost[1]];
        price(self.asker.llm, request.model(), asked, answered).unwrap_or(0.0)
    }

    /// Ends all asking when the program is to stop. Requests that are under way are waited for, as
    /// their replies are paid for.
    pub(super) async fn end_when_stopped(&self) -> Infallible {
        while process::stopped().is_none() {
            tokio::time::sleep(GLANCE).await;
        }
        self.close("the run was stopped");
        std::future::pending().await
    }

    /// Shows what has been done so far and what it has cost, and what is going on.
    fn show(&self, more: &str) {
        let cost = self.asker.budget.spent().cost;
        let cost = if cost > 0.0 { format!(", cost {cost:.4}") } else { String::new() };
        self.asker.progress.tell(format!("{}{cost}{more}", self.what));
    }
}

impl Course {
    fn note(&mut self, call: Option<Call>, now: bool) {
        self.calls.extend(call);
        self.sent |= now;
    }
}

/// The setting that limits a reply to so many tokens, with its value.
fn limit(llm: &Llm, max_tokens: u32) -> String {
    let name = if max_tokens == llm.max_tokens { "max_tokens" } else { "max_tokens_limit" };
    format!("llm.{name} = {max_tokens}")
}

/// What a reason begins with, before it says what is particular to a question.
fn cause(why: &str) -> &str {
    let ends = [": ", " (", "; "].iter().filter_map(|mark| why.find(mark));
    &why[..ends.min().unwrap_or(why.len())]
}

/// Whether a server said that it cannot do with a request, but not with what of it.
fn is_unexplained(error: &RequestError) -> bool {
    match error {
        RequestError::Status(answer) => {
            matches!(answer.status, 400 | 422 | 500) && !retry::is_too_long(answer)
        }
        _ => false,
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
