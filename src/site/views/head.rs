//! What a head does, in words, on the tokens and as tables.

use super::parts::gist;
use crate::ids::FeatureId;
use crate::site::atlas::{Class, ComponentPage};
use crate::site::head::{Attention, Contributor, Copied, Copying, Head, HeadFeature, Move, Role, What};
use crate::site::links::{Link, Links};
use crate::site::number::{counted, fixed, percent, significant};
use crate::site::text::{Html, html, token};
use serde::Serialize;

/// Moves told in a sentence, and destinations whose attention is drawn on the prompt.
const MOVES: usize = 3;
const LINES: usize = 2;

#[derive(Serialize)]
pub struct HeadView {
    task: Link,
    moves: Html,
    copying: Option<Html>,
    /// Value, label, and what it is.
    facts: Vec<(String, &'static str, &'static str)>,
    templates: Vec<TemplateView>,
    slots: Vec<SlotView>,
    copies: Vec<CopyRow>,
    /// The tokens that were looked at, of how many.
    copies_of: String,
}

#[derive(Serialize)]
struct TemplateView {
    name: String,
    prompts: String,
    lines: Vec<LineView>,
    square: Html,
}

#[derive(Serialize)]
struct LineView {
    from: Html,
    text: Html,
}

#[derive(Serialize)]
struct SlotView {
    name: &'static str,
    does: &'static str,
    rows: Vec<ContributorRow>,
}

#[derive(Serialize)]
struct ContributorRow {
    link: Link,
    gist: Html,
    prompts: u32,
    share: String,
    effect: String,
    lowers: bool,
    /// Length of its bar in percent of the longest.
    width: String,
}

#[derive(Serialize)]
struct CopyRow {
    token: Html,
    mass: String,
    places: u32,
    top: Vec<Html>,
    own_rank: String,
    own_logit: String,
}

#[derive(Serialize)]
pub struct HeadFeatureRow {
    feature: Link,
    gist: Html,
    share: String,
    width: String,
    rank: u32,
    serves: Vec<(Link, u32)>,
}

#[derive(Serialize)]
pub struct ClassView {
    task: Link,
    class: Option<String>,
    published: String,
}

impl HeadView {
    pub fn new(links: Links, head: &Head) -> HeadView {
        let prompts: u32 = head.attention.iter().map(|a| a.prompts).sum();
        HeadView {
            task: links.task(&head.task),
            moves: moves(&head.moves, head.prompts.max(prompts)),
            copying: copying(head),
            facts: facts(head),
            templates: head.attention.iter().map(template).collect(),
            slots: slots(links, &head.contributors),
            copies: head.copies.iter().map(copy_row).collect(),
            copies_of: format!("{} of {}", head.copies.len(), counted(head.tokens as usize, "token")),
        }
    }
}

pub fn classes(links: Links, classes: &[Class]) -> Vec<ClassView> {
    let one = |class: &Class| ClassView {
        task: links.task(&class.task),
        class: class.class.clone(),
        published: class.published.clone(),
    };
    classes.iter().map(one).collect()
}

pub fn head_features(links: Links, c: &ComponentPage) -> Vec<HeadFeatureRow> {
    let row = |f: &HeadFeature| HeadFeatureRow {
        feature: links.feature(f.feature),
        gist: gist(links, f.feature),
        share: percent(f.share),
        width: format!("{:.0}", f.share * 100.0),
        rank: f.rank,
        serves: f.serves.iter().map(|(task, prompts)| (links.task(task), *prompts)).collect(),
    };
    c.head_features.iter().map(row).collect()
}

/// What a place is called, with its token.
fn said(role: &Role) -> String {
    let time = |name: &str, time: &Option<u32>| match time {
        None => name.to_string(),
        Some(1) => format!("{name}, the first time"),
        Some(2) => format!("{name}, the second time"),
        Some(n) => format!("{name}, time {n}"),
    };
    match role {
        Role::Bos => "BOS".into(),
        Role::Correct(n) => time("the right answer", n),
        Role::Counter(n) => time("the wrong answer", n),
        Role::Same(text) => token(text).to_string(),
        Role::Varies(text) => format!("a changing word (such as {})", token(text)),
    }
}

/// The most frequent moves in a sentence.
fn moves(moves: &[Move], of: u32) -> Html {
    let told: Vec<String> = moves.iter().take(MOVES).map(|m| told(m, of)).collect();
    let more = match moves.len() {
        n if n > MOVES => format!(" It has {} besides.", counted(n - MOVES, "rarer way")),
        _ => String::new(),
    };
    html(match told.is_empty() {
        true => "It carries nothing in the circuits.".into(),
        false => format!("In circuits it reads {}.{more}", told.join("; ")),
    })
}

fn told(m: &Move, of: u32) -> String {
    let to = match (&m.to, m.last) {
        (Role::Same(text), true) => format!("the last token, {}", token(text)),
        (_, true) => "the last token".into(),
        (to, false) => said(to),
    };
    let attention = m.attention.map(|a| format!(", with {} of its attention", percent(a))).unwrap_or_default();
    format!("<b>{}</b> from <b>{to}</b> in {} of {of} prompts{attention}", said(&m.from), m.prompts)
}

/// From which share of its attention on a head is said to do something.
const MOSTLY: f64 = 0.5;

/// Whether it copies, by the answers if it looks at any.
fn copying(head: &Head) -> Option<Html> {
    let shares = |c: &Copying| Some((c.raised?, c.lowered?));
    let (raised, lowered) = shares(&head.copying)?;
    let of_answers = shares(&head.answers);
    let verdict = match of_answers.unwrap_or((raised, lowered)) {
        (up, _) if up >= MOSTLY => "<b>It copies</b>: ",
        (_, down) if down >= MOSTLY => "<b>It does the opposite of copying</b>: ",
        _ => "",
    };
    let what = match verdict.is_empty() {
        true => "Reading a token",
        false => "reading a token",
    };
    let answers = of_answers.map(|(up, down)| {
        format!("; among tokens that are answers, {} are raised and {} lowered like that", percent(up), percent(down))
    });
    Some(html(format!(
        "{verdict}{what} raises it as one of the five most for {} of what the head looks at besides BOS, and lowers it as \
         one of the five most for {}{}.",
        percent(raised),
        percent(lowered),
        answers.unwrap_or_default()
    )))
}

fn facts(head: &Head) -> Vec<(String, &'static str, &'static str)> {
    let h = &head.habits;
    let shares = [
        (
            h.to_correct,
            "last token → right answer",
            "mean attention from the last token, over prompts that hold the answer",
        ),
        (h.to_counter, "last token → wrong answer", "mean attention from the last token, over prompts that hold it"),
        (h.to_same, "to the same token", "mean attention to earlier places of the same token, where there are some"),
        (h.to_after_same, "to what came after it", "mean attention to the tokens behind those places"),
        (h.to_previous, "to the token before", "mean over all tokens behind the first"),
        (h.to_itself, "to itself", "mean over all tokens but BOS"),
        (h.to_bos, "to BOS", "mean over all tokens but BOS: attention that rests"),
    ];
    let direct = h.direct_effect.map(|effect| {
        let title = "what it adds at the last token to the logit of the right answer over the wrong one, LayerNorm's scale held";
        (signed(effect), "right over wrong, directly", title)
    });
    let share = |(value, label, title): (Option<f64>, _, _)| Some((percent(value?), label, title));
    direct.into_iter().chain(shares.into_iter().filter_map(share)).collect()
}

fn signed(x: f64) -> String {
    format!("{}{}", if x > 0.0 { "+" } else { "" }, fixed(x, 2))
}

fn template(a: &Attention) -> TemplateView {
    let line = |destination: usize| LineView {
        from: a.tokens.get(destination).map(|(text, _)| token(text)).unwrap_or_default(),
        text: a.line(destination),
    };
    TemplateView {
        name: a.template.clone(),
        prompts: counted(a.prompts as usize, "prompt"),
        lines: a.destinations(LINES).into_iter().map(line).collect(),
        square: a.square(),
    }
}

fn slots(links: Links, contributors: &[Vec<Contributor>; 3]) -> Vec<SlotView> {
    const SLOTS: [(&str, &str); 3] = [
        ("Query", "what makes it look from there"),
        ("Key", "what makes it look there"),
        ("Value", "what it carries away"),
    ];
    let slot = |((name, does), rows): ((&'static str, &'static str), &Vec<Contributor>)| {
        let longest = rows.iter().map(|row| row.share).fold(0.0, f64::max);
        SlotView { name, does, rows: rows.iter().map(|row| contributor(links, row, longest)).collect() }
    };
    SLOTS.into_iter().zip(contributors).map(slot).collect()
}

fn contributor(links: Links, c: &Contributor, longest: f64) -> ContributorRow {
    let about = |feature: Option<FeatureId>| feature.map(|feature| gist(links, feature)).unwrap_or_default();
    ContributorRow {
        link: match &c.what {
            What::Feature(feature) => links.feature(*feature),
            what => Link::plain(what.said()),
        },
        gist: about(match c.what {
            What::Feature(feature) => Some(feature),
            What::Other(..) => None,
        }),
        prompts: c.prompts,
        share: significant(c.share, 3),
        effect: signed(c.effect),
        lowers: c.effect < 0.0,
        width: format!("{:.0}", if longest > 0.0 { 100.0 * c.share / longest } else { 0.0 }),
    }
}

fn copy_row(c: &Copied) -> CopyRow {
    CopyRow {
        token: token(&c.token),
        mass: significant(c.mass, 3),
        places: c.places,
        top: c.top.iter().take(5).map(|(text, _)| token(text)).collect(),
        own_rank: rank(c),
        own_logit: signed(c.own_logit),
    }
}

/// From whichever end is nearer.
fn rank(c: &Copied) -> String {
    match c.own_rank <= c.own_rank_below {
        true => format!("{} from top", c.own_rank),
        false => format!("{} from bottom", c.own_rank_below),
    }
}
