//! One question as `interpret` asks it, to see whether a server is there, knows the model, takes
//! the key, and gives replies that can be read.

use super::ask::{Asker, runtime};
use super::explainer::{self, CauseGroup, Evidence, FeatureEvidence, TextEvidence};
use super::request::Mode;
use super::response_cache::ResponseCache;
use super::retry::{self, quoted};
use super::session::Session;
use super::{Asked, Budget, Outcome, embedding};
use crate::config::{Llm, ReplyFormat};
use crate::error::{Result, hinted};
use crate::ids::Subject;
use crate::progress::Progress;
use std::sync::PoisonError;
use std::time::Instant;

/// Asks a model to explain a feature that is made up, with system message and schema, and reads
/// the reply. What came of it: how long it took, how its replies are brought into form, and what
/// cannot be sent to it. Nothing is tried again after a pause, and nothing is kept.
///
/// # Errors
/// When there is no key, no reply, or none that can be read: with what to do about it.
pub fn probe(llm: &Llm, model: &str) -> Result<String> {
    match asked(llm, model)? {
        Ok(said) => Ok(said),
        Err(unreadable) if llm.replies == ReplyFormat::Auto => {
            let by_line = Llm { replies: ReplyFormat::Line, ..llm.clone() };
            match asked(&by_line, model)? {
                Ok(said) => Ok(format!("{said}; its replies by a JSON schema cannot be read")),
                Err(_) => Err(unreadable),
            }
        }
        Err(unreadable) => Err(unreadable),
    }
}

/// The same, in one of the ways to bring replies into form; within it the error of a reply that
/// cannot be read.
fn asked(llm: &Llm, model: &str) -> Result<Result<String>> {
    let texts = [
        (10, "[start] The «ship»[10] sailed at dawn. …"),
        (7, "… A «boat»[7] lay by the shore. …"),
    ];
    let text =
        |(level, text): (u32, &str)| TextEvidence { level, text: text.into(), from: String::new() };
    let group = CauseGroup { texts: texts.map(text).into(), ..CauseGroup::default() };
    let evidence = Evidence::Feature(Box::new(FeatureEvidence {
        strongest: vec![group],
        last_layer: 1,
        from: 1,
        ..FeatureEvidence::default()
    }));
    let question =
        evidence.question(&Subject::Group("probe".into()), model, "a small language model")?;
    let once = once(llm);
    let (budget, progress) = (Budget::new(&once), Progress::hidden());
    let replies = ResponseCache::in_memory();
    let asker = Asker::new(&once, &replies, &budget, &progress);
    let (runtime, begun) = (runtime()?, Instant::now());
    let session = Session::new(&asker, "asked");
    let asked = runtime.block_on(session.answer(&question, explainer::read));
    let known = session.capabilities(model);
    runtime.shutdown_background();
    let Asked { outcome, calls } = asked?;
    match outcome {
        Outcome::Answered(_) => {}
        Outcome::Failed(why) | Outcome::Refused(why) | Outcome::Left(why) => {
            let reply = calls.last().map(|call| call.reply.as_str()).unwrap_or_default();
            let error = failure(&asker, model, &why, reply);
            return if reply.is_empty() { Err(error) } else { Ok(Err(error)) };
        }
    }
    let form = match Mode::of(llm, known) {
        Mode::Schema => "a JSON schema",
        Mode::Line => "a marked line",
    };
    // Some servers answer with whatever model they have, whichever was asked.
    let served = calls.last().map(|call| call.served.as_str()).unwrap_or_default();
    let name = match served {
        served if served.is_empty() || served == model => String::new(),
        served => format!(", as {},", quoted(served)),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let mut said = format!("`{model}` answers{name} after {seconds:.1} s, with {form}");
    let missing = known.missing();
    if !missing.is_empty() {
        said.push_str(&format!("; it is sent {}", missing.join(", ")));
    }
    Ok(Ok(said))
}

/// Asks for embeddings as `evaluate` does. What came of it. Nothing is tried again after a pause, and
/// nothing is kept.
///
/// # Errors
/// When there is no key, no reply, or none that can be read: with what to do about it.
pub fn probe_embedder(llm: &Llm) -> Result<String> {
    let texts = ["The ship sailed at dawn.", "He had no time."].map(String::from);
    let (subject, begun) = (Subject::Group("probe".into()), Instant::now());
    let question = embedding::question(&subject, &llm.model, "Active at ships.", &texts);
    let once = once(llm);
    let (budget, progress) = (Budget::new(&once), Progress::hidden());
    let replies = ResponseCache::in_memory();
    let asker = Asker::new(&once, &replies, &budget, &progress);
    let runtime = runtime()?;
    let session = Session::new(&asker, "asked");
    let asked = runtime.block_on(session.answer(&question, embedding::read));
    runtime.shutdown_background();
    match asked?.outcome {
        Outcome::Answered(_) => {
            let seconds = begun.elapsed().as_secs_f64();
            Ok(format!("`{}` embeds after {seconds:.1} s", llm.model))
        }
        Outcome::Failed(why) | Outcome::Refused(why) | Outcome::Left(why) => Err(hinted(
            format!("no embeddings from the model `{}`: {why}", llm.model),
            "check `evaluate.embedder`, `evaluate.embedder_base_url` (up to and with `/v1`) and \
             `evaluate.embedder_api_key_env`",
        )),
    }
}

/// The same settings for a single try.
fn once(llm: &Llm) -> Llm {
    Llm { retries: 0, max_calls: 0, max_cost: 0.0, ..llm.clone() }
}

fn failure(asker: &Asker, model: &str, why: &str, reply: &str) -> anyhow::Error {
    let llm = asker.llm;
    if !reply.is_empty() {
        let hint = match llm.replies {
            ReplyFormat::Schema => "set `llm.replies = \"auto\"`, or another `llm.model`",
            _ => "set another `llm.model`",
        };
        let said = format!("the reply of the model `{model}` cannot be used: {why}");
        return hinted(format!("{said}; it is: {}", quoted(reply)), hint);
    }
    let error = asker.last_error.lock().unwrap_or_else(PoisonError::into_inner);
    let hint = match &*error {
        Some(error) => retry::hint(error, llm),
        None => {
            "raise `llm.max_tokens` or `llm.max_tokens_limit`, or set another `llm.model`".into()
        }
    };
    hinted(format!("no reply from the model `{model}`: {why}"), hint)
}
