//! Questions to answers, in their order, many at a time. `async` begins and ends here.

use super::capabilities::Capabilities;
use super::client::{Client, RequestError};
use super::price::price;
use super::rate_limit::RateLimit;
use super::request::{Request, Way};
use super::response_cache::ResponseCache;
use super::session::Session;
use super::share::Share;
use super::{Asked, Budget, Question};
use crate::config::Llm;
use crate::error::{Hint, Result};
use crate::process;
use crate::progress::Progress;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// How long is waited after a first failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Threads that the network needs besides the one that asks.
const THREADS: usize = 2;

/// Asks a server, for one stage.
pub struct Asker<'a> {
    pub(super) llm: &'a Llm,
    pub(super) replies: &'a ResponseCache,
    /// The fingerprint of the stage, for the budget of a run that is killed and goes on; empty: none
    /// will.
    pub(super) run: String,
    pub(super) budget: &'a Budget,
    pub(super) progress: &'a Progress,
    pub(super) rate_limit: RateLimit,
    /// What each model has been found to understand.
    pub(super) capabilities_by_model: Mutex<BTreeMap<String, Capabilities>>,
    /// Why nothing is asked any more.
    pub(super) closed: watch::Sender<Option<String>>,
    /// Questions in a row that got no reply.
    pub(super) misses: AtomicUsize,
    /// The cause for which questions fail, and how many in a row.
    pub(super) failing: Mutex<(String, usize)>,
    /// Replies in a row that have no object although a schema was sent, by model.
    pub(super) shapeless: Mutex<BTreeMap<String, u32>>,
    /// What the server last answered in place of a reply.
    pub(super) last_error: Mutex<Option<RequestError>>,
    /// The round in which failed questions are asked again; 0: they are not.
    pub(super) again: u32,
    /// The questions that are this process's to ask; none: all.
    share: Option<&'a Share>,
    pub(super) first_wait: Duration,
    /// In place of the server.
    pub(super) client: Option<Box<dyn Client>>,
}

/// What asking would take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// All questions.
    pub questions: u64,
    /// Those to which there is a reply already.
    pub known: u64,
    /// To be sent; a reply that cannot be read takes one more.
    pub calls: u64,
    /// Of all calls together, about.
    pub prompt_tokens: u64,
    /// At most.
    pub completion_tokens: u64,
    /// About, at most; none where a model has no price.
    pub cost: Option<f64>,
}

impl<'a> Asker<'a> {
    /// An asker that looks for replies there first and keeps its own there. No key is needed before
    /// something is sent.
    pub fn new(
        llm: &'a Llm,
        replies: &'a ResponseCache,
        budget: &'a Budget,
        progress: &'a Progress,
    ) -> Asker<'a> {
        Asker {
            llm,
            replies,
            run: String::new(),
            budget,
            progress,
            rate_limit: RateLimit::new(llm, 1),
            capabilities_by_model: Mutex::default(),
            closed: watch::Sender::new(None),
            misses: AtomicUsize::new(0),
            failing: Mutex::default(),
            shapeless: Mutex::default(),
            last_error: Mutex::default(),
            again: 0,
            share: None,
            first_wait: FIRST_WAIT,
            client: None,
        }
    }

    /// The same, for a stage of this fingerprint.
    #[must_use]
    pub fn of_run(self, run: &str) -> Asker<'a> {
        Asker { run: run.into(), ..self }
    }

    /// The same, but that it asks only the questions of a share, and as fast as a share may. What is
    /// another's to ask is left.
    #[must_use]
    pub fn sharing(self, share: &'a Share) -> Asker<'a> {
        let rate_limit = RateLimit::new(self.llm, share.shard().of());
        Asker { share: Some(share), rate_limit, ..self.of_run(share.run()) }
    }

    /// The same, but that it asks questions again whose replies failed: once in this round, which
    /// is a number above 0. Replies of a round are kept, so that a run that is killed within it
    /// goes on where it was when it is begun with the same number.
    #[must_use]
    pub fn again(self, round: u32) -> Asker<'a> {
        Asker { again: round, ..self }
    }

    /// The same, but that it waits so long after a first failure.
    #[must_use]
    pub fn waiting(self, first_wait: Duration) -> Asker<'a> {
        Asker { first_wait, ..self }
    }

    /// Answers in the order of the questions. `read` turns the object of a reply into what is
    /// wanted, or says why it cannot, in words that are told to the one who replied. `what` has
    /// happened to a question that is through, for the bar.
    ///
    /// # Errors
    /// When there is no key, a reply cannot be kept, or the program is to stop. Whatever goes wrong
    /// with a question is in its outcome.
    pub fn ask<T: Send>(
        &self,
        what: &'static str,
        questions: &[Question],
        read: impl Fn(&Question, &Value) -> Result<T, String> + Sync,
    ) -> Result<Vec<Asked<T>>> {
        let order = self.order(questions)?;
        self.progress.begin(what, questions.len() as u64, 0);
        let runtime = runtime()?;
        let done: Mutex<Vec<Option<Asked<T>>>> =
            Mutex::new(questions.iter().map(|_| None).collect());
        let asked: Result<()> = runtime.block_on(async {
            let session = Session::new(self, what);
            let work = async {
                for queue in &order {
                    let next = AtomicUsize::new(0);
                    let worker = || async {
                        while let Some(&i) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                            let asked = session.answer(&questions[i], &read).await;
                            let asked = asked
                                .inspect_err(|_| drop(session.close("stopped by an error")))?;
                            done.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(asked);
                            self.progress.add(1);
                        }
                        Ok(())
                    };
                    together((0..self.llm.concurrency.max(1)).map(|_| worker())).await?;
                }
                Ok(())
            };
            tokio::select! {
                asked = work => asked,
                never = session.end_when_stopped() => match never {},
            }
        });
        // Nothing is under way any more but what nobody waits for, such as a name that is looked
        // up.
        runtime.shutdown_background();
        asked?;
        process::check()?;
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(done.into_iter().flatten().collect())
    }

    /// The questions to be asked, by number, and those to be asked behind them: they ask the same
    /// as one before, and will find its reply.
    fn order(&self, questions: &[Question]) -> Result<[Vec<usize>; 2]> {
        let (mut order, mut seen) = ([Vec::new(), Vec::new()], BTreeSet::new());
        for (i, question) in questions.iter().enumerate() {
            let first = seen.insert(self.first_hash(question)?);
            order[usize::from(!first)].push(i);
        }
        Ok(order)
    }

    /// The hash under which a question is asked first.
    fn first_hash(&self, question: &Question) -> Result<String> {
        let way = Way::of(self.llm, Capabilities::default(), 0);
        Ok(self.request(question, way)?.hash)
    }

    /// Whether a question is this process's to ask.
    pub(super) fn is_own(&self, question: &Question) -> Result<bool> {
        self.share.map_or(Ok(true), |share| Ok(share.has(&self.first_hash(question)?)))
    }

    fn request<'q>(&self, question: &'q Question, way: Way) -> Result<Request<'q>> {
        Request::new(self.llm, question, None, way)
    }

    /// What asking would take. Nothing is sent, and no key is needed.
    pub fn plan(&self, questions: &[Question]) -> Plan {
        let mut plan =
            Plan { questions: questions.len() as u64, cost: Some(0.0), ..Plan::default() };
        let mut seen = BTreeSet::new();
        for question in questions {
            // One that cannot be written is told of when it is asked.
            let requests = Way::allowed(self.llm, 0)
                .into_iter()
                .filter_map(|way| self.request(question, way).ok());
            let requests: Vec<Request> = requests.collect();
            let Some(first) = requests.first() else { continue };
            match requests.iter().any(|request| self.replies.get(&request.hash).is_some()) {
                true => plan.known += 1,
                false if seen.insert(first.hash.clone()) => plan.add(self.llm, first),
                false => {}
            }
        }
        plan
    }
}

impl Plan {
    fn add(&mut self, llm: &Llm, request: &Request) {
        let (asked, answered) = (request.prompt_tokens(), request.most_completion_tokens());
        let (asked, answered) = (u64::from(asked), u64::from(answered));
        self.calls += 1;
        self.prompt_tokens += asked;
        self.completion_tokens += answered;
        self.cost =
            self.cost.zip(price(llm, request.model(), asked, answered)).map(|(sum, own)| sum + own);
    }
}

/// What drives requests while this thread reads replies.
pub(super) fn runtime() -> Result<Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    runtime.hint(
        || "cannot start the network runtime".into(),
        "check the limits on processes and open files",
    )
}

/// Waits for all of them at once, as they borrow what they work with; the first error, if there is
/// one.
async fn together(workers: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    let mut workers: Vec<Pin<Box<_>>> = workers.map(Box::pin).collect();
    let mut first = Ok(());
    poll_fn(|context| {
        workers.retain_mut(|worker| match worker.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(done) => {
                first = std::mem::replace(&mut first, Ok(())).and(done);
                false
            }
        });
        if workers.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    first
}

#[cfg(test)]
mod tests {
    use super::super::client::{Completion, ErrorResponse, RequestError, Scripted};
    use super::super::{ChatRole, Form, Message, Outcome};
    use super::*;
    use crate::artifact::Store;
    use crate::ids::Subject;
    use crate::stats::mix;
    use serde_json::json;
    use tempfile::TempDir;

    fn questions(n: usize) -> Vec<Question> {
        let message = |i| Message { role: ChatRole::User, text: format!("Thing {i}?") };
        let question = |i| Question {
            subject: Subject::Group(format!("thing-{i}")),
            purpose: "explain",
            model: "m".into(),
            sample: 0,
            messages: vec![message(i)],
            form: Form {
                name: "number",
                schema: json!({ "properties": { "n": { "type": "integer" } } }),
            },
        };
        (0..n).map(question).collect()
    }

    fn ask(
        folder: &TempDir,
        script: impl Fn(&Value) -> Result<Completion, RequestError> + Send + Sync + 'static,
        questions: &[Question],
    ) -> Result<Vec<Asked<u64>>> {
        let llm = Llm { retries: 60, api_key_env: String::new(), ..Llm::default() };
        let (budget, progress) = (Budget::new(&llm), Progress::new("test"));
        let replies = ResponseCache::open(&Store::new(folder.path()), None)?;
        let asker = Asker::new(&llm, &replies, &budget, &progress);
        let asker = Asker {
            client: Some(Box::new(Scripted(script))),
            ..asker.waiting(Duration::from_nanos(1))
        };
        asker.ask("asked", questions, |_, object| {
            object["n"].as_u64().ok_or("`n` is no number".into())
        })
    }

    /// The number of the thing that is asked about.
    fn number(body: &Value) -> u64 {
        let text = body["messages"][0]["content"].as_str().unwrap();
        text["Thing ".len()..].split('?').next().unwrap().parse().unwrap()
    }

    fn completion(text: String) -> Completion {
        Completion { text, finish: "stop".into(), ..Completion::default() }
    }

    #[test]
    fn whatever_the_server_does_every_question_gets_its_own_reply_and_later_none_is_asked() {
        let (folder, questions) = (TempDir::new().unwrap(), questions(300));
        let tries = AtomicUsize::new(0);
        let unreliable = move |body: &Value| {
            let answer = |status| {
                Err(RequestError::Status(ErrorResponse { status, ..ErrorResponse::default() }))
            };
            match mix(7, tries.fetch_add(1, Ordering::Relaxed) as u64) % 8 {
                0 => Err(RequestError::Disconnected),
                1 => Err(RequestError::Timeout),
                2 => Err(RequestError::Unreachable("no route".into())),
                3 => answer(503),
                4 => answer(429),
                5 if body["messages"].as_array().unwrap().len() == 1 => {
                    Ok(completion("no object".into()))
                }
                _ => Ok(completion(json!({ "n": number(body) }).to_string())),
            }
        };
        let asked = ask(&folder, unreliable, &questions).unwrap();
        let said = |asked: &Vec<Asked<u64>>| -> Vec<u64> {
            let said = asked.iter().map(|asked| match &asked.outcome {
                Outcome::Answered(n) => *n,
                other => panic!("{other:?}"),
            });
            said.collect()
        };
        assert_eq!(said(&asked), (0..300).collect::<Vec<u64>>());
        let again = ask(&folder, |_| panic!("it asks again"), &questions).unwrap();
        assert_eq!(said(&again), said(&asked));
        assert!(again.iter().zip(&asked).all(|(again, asked)| again.calls == asked.calls));
    }

    #[test]
    fn a_reply_that_cannot_be_kept_ends_the_run() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("replies.jsonl");
        let asked = AtomicUsize::new(0);
        let script = move |_: &Value| {
            // As good as a full disk.
            std::fs::create_dir_all(&path).unwrap();
            assert!(asked.fetch_add(1, Ordering::Relaxed) < 8, "it goes on");
            Ok(completion("{}".into()))
        };
        let error = ask(&folder, script, &questions(100)).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot write `") && error.ends_with("replies.jsonl`"),
            "{error}"
        );
    }
}
