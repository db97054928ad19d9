//! What a language model was asked of a subject and what it replied, whole: a page beside the
//! subject's own.

use super::parts::Page;
use crate::atlas::model::{Exchange, Explanation, Transcript};
use crate::format::number::{count, counted, seconds, significant};
use crate::ids::Status;
use crate::site::links::{PageLink, Site, exchange_path};
use crate::site::text::{Html, escape, html, prose};
use serde::Serialize;

/// A subject that a language model was asked about, by its page.
pub(crate) struct TranscriptSubject<'a> {
    /// Its page's file in the site's folder.
    pub path: String,
    pub name: String,
    /// The navigation's entry.
    pub section: &'static str,
    pub asked: &'a Transcript,
}

/// Every subject of which there is something to read.
pub(crate) fn subjects<'a>(site: &'a Site) -> Vec<TranscriptSubject<'a>> {
    let atlas = site.atlas;
    let subject = |section: &'static str, name: String, asked: &'a Option<Transcript>| {
        let asked = asked.as_ref().filter(|asked| !asked.exchanges.is_empty())?;
        let file = name.replace(" + ", "--");
        Some(TranscriptSubject { path: format!("{section}/{file}.html"), name, section, asked })
    };
    let components =
        atlas.components.iter().map(|c| subject("components", c.component.to_string(), &c.asked));
    let features = atlas.features.iter().map(|f| subject("features", f.id.to_string(), &f.asked));
    let pairs = atlas.pairs.iter().map(|p| {
        let (a, b) = crate::site::links::in_order(p.a, p.b);
        subject("pairs", format!("{a} + {b}"), &p.asked)
    });
    let groups = atlas.groups.iter().map(|g| subject("groups", g.name.clone(), &g.asked));
    components.chain(features).chain(pairs).chain(groups).flatten().collect()
}

#[derive(Serialize)]
pub(crate) struct TranscriptsView {
    page: Page,
    subject: PageLink,
    total: String,
    /// Explanations that came to nothing, and why.
    failures: Vec<(String, Html)>,
    turns: Vec<Turn>,
}

/// A question and its reply.
#[derive(Serialize)]
struct Turn {
    /// From 1.
    number: usize,
    repair: bool,
    model: String,
    /// What the server calls it, where that is another name.
    served: String,
    hash: String,
    status: &'static str,
    class: &'static str,
    facts: Vec<(String, &'static str)>,
    /// The turn that begins with the same messages, and how many of them.
    like: Option<(usize, String)>,
    messages: Vec<Spoken>,
    reply: Option<Html>,
}

#[derive(Serialize)]
struct Spoken {
    role: String,
    text: Html,
}

impl TranscriptsView {
    pub(crate) fn new(site: &Site, subject: &TranscriptSubject) -> TranscriptsView {
        let links = site.two_down();
        let (name, asked) = (&subject.name, subject.asked);
        let path = exchange_path(&subject.path);
        let description = format!("Requests to a language model about {name}, with the replies.");
        let own = links.page(name, &subject.path);
        let mut page =
            Page::new(links, subject.section, &path, "Prompts and replies".into(), description);
        page.window = format!("{name}, prompts and replies");
        page.crumbs.push(own.clone());
        TranscriptsView {
            page,
            subject: own,
            total: counted(asked.exchanges.len(), "question"),
            failures: asked
                .samples
                .iter()
                .filter_map(|sample| failure(sample, asked.samples.len()))
                .collect(),
            turns: (0..asked.exchanges.len()).map(|at| turn(&asked.exchanges, at)).collect(),
        }
    }
}

fn failure(sample: &Explanation, of: usize) -> Option<(String, Html)> {
    let which = if of > 1 {
        format!("Explanation {}", sample.sample + 1)
    } else {
        "The explanation".into()
    };
    let what = match sample.status {
        Status::Ok => return None,
        Status::Refused => "was refused",
        _ => "failed",
    };
    Some((format!("{which} {what}"), prose(&sample.reason, 2000)))
}

fn turn(all: &[Exchange], at: usize) -> Turn {
    let e = &all[at];
    let like = common(all, at);
    let (status, class) = match e.status {
        Status::Ok => ("an explanation", "beats"),
        Status::Refused => ("refused", "beaten"),
        _ => ("no explanation could be parsed from it", "beaten"),
    };
    let spoken =
        |(role, text): &(String, String)| Spoken { role: role.clone(), text: verbatim(text) };
    Turn {
        number: at + 1,
        repair: e.purpose == "repair",
        model: e.model.clone(),
        served: if e.served == e.model { String::new() } else { e.served.clone() },
        hash: e.hash.clone(),
        status,
        class,
        facts: facts(e),
        like: like.map(|(turn, n)| (turn + 1, counted(n, "message"))),
        messages: e.messages.iter().skip(like.map_or(0, |like| like.1)).map(spoken).collect(),
        reply: (!e.reply.is_empty()).then(|| verbatim(&e.reply)),
    }
}

/// The earlier question that begins with most of the same messages, so that they are not shown
/// again.
fn common(all: &[Exchange], at: usize) -> Option<(usize, usize)> {
    let alike =
        |e: &Exchange| e.messages.iter().zip(&all[at].messages).take_while(|(a, b)| a == b).count();
    let counts = all[..at].iter().map(alike).enumerate().rev();
    counts.max_by_key(|(_, n)| *n).filter(|(_, n)| *n > 0)
}

/// Text as it is, with its own line breaks.
fn verbatim(text: &str) -> Html {
    html(escape(text))
}

fn facts(e: &Exchange) -> Vec<(String, &'static str)> {
    let Some(usage) = e.usage else { return Vec::new() };
    let cost = (usage.cost > 0.0).then(|| (significant(usage.cost, 2), "cost"));
    let tries = (usage.attempts > 1).then(|| (count(usage.attempts), "tries"));
    let always = [
        (count(usage.prompt_tokens), "tokens asked"),
        (count(usage.completion_tokens), "tokens answered"),
        (seconds(usage.seconds), "all attempts"),
    ];
    always.into_iter().chain(cost).chain(tries).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(messages: &[&str]) -> Exchange {
        let messages = messages.iter().map(|text| ("user".to_string(), text.to_string())).collect();
        let (purpose, model, hash) = ("explain".into(), "m".into(), "h".into());
        Exchange {
            purpose,
            model,
            served: String::new(),
            hash,
            messages,
            reply: String::new(),
            status: Status::Ok,
            usage: None,
        }
    }

    #[test]
    fn what_was_said_before_is_not_shown_again() {
        let all = [
            exchange(&["a", "b"]),
            exchange(&["a", "c"]),
            exchange(&["a", "b", "d"]),
            exchange(&["z"]),
        ];
        assert_eq!(
            (0..4).map(|at| common(&all, at)).collect::<Vec<_>>(),
            [None, Some((0, 1)), Some((0, 2)), None]
        );
        let shown = turn(&all, 2);
        assert_eq!((shown.messages.len(), shown.like), (1, Some((1, "2 messages".into()))));
        assert_eq!(turn(&all, 0).messages.len(), 2);
    }
}
