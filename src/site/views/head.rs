//! What a head does, in words, on the tokens and as tables.

use super::parts::gist;
use crate::atlas::model::{
    Attention, Contributor, CopiedToken, Copying, Head, HeadFeature, Move, Role, What,
};
use crate::atlas::model::{ComponentPage, PublishedClass, Task, TaskComponent};
use crate::format::number::{counted, fixed, percent, significant};
use crate::site::attention::{line, square};
use crate::site::links::{Links, PageLink};
use crate::site::text::{Html, html, prose, token};
use serde::Serialize;

/// Moves told in a sentence, and destinations whose attention is drawn on the prompt.
const MOVES: usize = 3;
const LINES: usize = 2;
/// Rows of what it copies, of answers and of other tokens.
const COPIES: usize = 10;
/// Characters of an explanation beside a contributor.
const BRIEF: usize = 70;

#[derive(Serialize)]
pub(super) struct HeadView {
    task: PageLink,
    /// The task hardly uses it.
    rare: bool,
    moves: Html,
    copying: Option<Html>,
    /// Value, label, and what it is.
    facts: Vec<(String, &'static str, &'static str)>,
    templates: Vec<TemplateView>,
    /// How many there are but the first; none without.
    more_templates: Option<String>,
    slots: Vec<SlotView>,
    /// Tokens that are answers, and the others: caption and rows.
    copies: Vec<(&'static str, Vec<CopyRow>)>,
    /// How many distinct tokens were read.
    tokens: String,
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
    link: PageLink,
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
    lowers: bool,
}

#[derive(Serialize)]
pub(super) struct HeadFeatureRow {
    feature: PageLink,
    gist: Html,
    share: String,
    width: String,
    rank: u32,
    serves: Vec<(PageLink, u32)>,
}

#[derive(Serialize)]
pub(super) struct ClassView {
    task: PageLink,
    class: Option<String>,
    published: String,
}

impl HeadView {
    pub(super) fn new(links: Links, head: &Head, rare: bool) -> HeadView {
        let prompts: u32 = head.attention.iter().map(|a| a.prompts).sum();
        HeadView {
            task: links.task(&head.task),
            rare,
            moves: moves(&head.moves, head.prompts.max(prompts)),
            copying: copying(head),
            facts: facts(head),
            templates: head.attention.iter().map(template).collect(),
            more_templates: head
                .attention
                .len()
                .checked_sub(2)
                .map(|n| counted(n + 1, "more template")),
            slots: slots(links, &head.contributors),
            copies: copies(&head.copies),
            tokens: counted(head.tokens as usize, "distinct token"),
        }
    }
}

pub(super) fn classes(links: Links, classes: &[PublishedClass]) -> Vec<ClassView> {
    let one = |class: &PublishedClass| ClassView {
        task: links.task(&class.task),
        class: class.class.clone(),
        published: class.published.clone(),
    };
    classes.iter().map(one).collect()
}

pub(super) fn head_features(links: Links, c: &ComponentPage) -> Vec<HeadFeatureRow> {
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
    match role {
        Role::Same(text) => token(text).to_string(),
        Role::Varies(text) => format!("a position with varying tokens, such as {}", token(text)),
        other => other.said(),
    }
}

/// A head on its task's page.
#[derive(Serialize)]
pub(super) struct InTask {
    link: PageLink,
    frequency: String,
    class: String,
    /// Its most frequent moves to one place.
    reads: Html,
    to_correct: String,
    to_counter: String,
    copies: &'static str,
    direct: String,
    lowers: bool,
}

/// The heads of a task's circuits, the most frequent first.
pub(super) fn in_task(links: Links, task: &Task) -> Vec<InTask> {
    let mut components: Vec<&TaskComponent> = task.components.iter().collect();
    components
        .sort_by(|a, b| b.frequency.total_cmp(&a.frequency).then(a.component.cmp(&b.component)));
    let head = |component| {
        let page = links.site.atlas.components.iter().find(|page| page.component == component)?;
        page.heads.iter().find(|head| head.task == task.name)
    };
    components.into_iter().filter_map(|c| Some(row_in_task(links, c, head(c.component)?))).collect()
}

/// The heads of a task's circuits in a sentence: which copy what they read, and which lower it.
pub(super) fn circuit_of_heads(rows: &[InTask]) -> Option<String> {
    let named = |what: &str| -> Vec<&str> {
        rows.iter().filter(|row| row.copies == what).map(|row| row.link.text.as_str()).collect()
    };
    let does = |names: Vec<&str>, one: &str, many: &str| match names.as_slice() {
        [] => None,
        [name] => Some(format!("{name} {one}")),
        [names @ .., last] => Some(format!("{} and {last} {many}", names.join(", "))),
    };
    let copy = does(
        named("copies"),
        "copies the tokens it attends to",
        "copy the tokens they \
         attend to",
    );
    let lower = does(
        named("lowers"),
        "suppresses the tokens it attends to",
        "suppress the tokens \
         they attend to",
    );
    let all: Vec<String> = [copy, lower].into_iter().flatten().collect();
    (!all.is_empty()).then(|| format!("Attention heads: {}.", all.join("; ")))
}

fn row_in_task(links: Links, c: &TaskComponent, head: &Head) -> InTask {
    let share = |share: Option<f64>| share.map(percent).unwrap_or_default();
    let direct = head.habits.direct_effect;
    InTask {
        link: links.component(c.component),
        frequency: percent(c.frequency),
        class: c.class.clone().unwrap_or_default(),
        reads: html(reads(&head.moves)),
        to_correct: share(head.habits.to_correct),
        to_counter: share(head.habits.to_counter),
        copies: match head.copies_or_lowers() {
            Some(true) => "copies",
            Some(false) => "lowers",
            None => "",
        },
        lowers: direct.is_some_and(lowers),
        direct: direct.map(signed).unwrap_or_default(),
    }
}

/// Where the most frequent move ends, and from where most moves go there, with their prompts.
fn reads(moves: &[Move]) -> String {
    const SOURCES: usize = 2;
    let Some(first) = moves.first() else { return String::new() };
    let same = moves.iter().filter(|m| ending(m) == ending(first)).take(SOURCES);
    let sources: Vec<String> = same.map(|m| format!("{} ({})", said(&m.from), m.prompts)).collect();
    format!("{} ← {}", ending(first), sources.join(", "))
}

/// The most frequent moves in a sentence.
fn moves(moves: &[Move], of: u32) -> Html {
    let told: Vec<String> = moves.iter().take(MOVES).map(|m| told(m, of)).collect();
    let more = match moves.len() {
        n if n > MOVES => format!(" {} not listed.", counted(n - MOVES, "less frequent move")),
        _ => String::new(),
    };
    html(match told.is_empty() {
        true => "It moves nothing between positions in the circuits.".into(),
        false => format!("In the circuits it moves information {}.{more}", told.join("; ")),
    })
}

fn told(m: &Move, of: u32) -> String {
    let attention = m
        .attention
        .map(|a| format!(" (mean attention {} over all prompts of these templates)", percent(a)))
        .unwrap_or_default();
    format!(
        "from <b>{}</b> to <b>{}</b> in {} of {of} prompts{attention}",
        said(&m.from),
        ending(m),
        m.prompts
    )
}

/// Where a move ends.
fn ending(m: &Move) -> String {
    match (&m.to, m.last) {
        (Role::Same(text), true) => format!("the last token, {}", token(text)),
        (_, true) => "the last token".into(),
        (to, false) => said(to),
    }
}

/// Whether it copies, by the answers if it looks at any.
fn copying(head: &Head) -> Option<Html> {
    let verdict = match head.copies_or_lowers() {
        Some(true) => "<b>It copies the tokens it attends to.</b> ",
        Some(false) => "<b>It suppresses the tokens it attends to.</b> ",
        None => "",
    };
    let shares = |c: &Copying| Some((percent(c.raised?), percent(c.lowered?)));
    let (raised, lowered) = shares(&head.copying)?;
    let all = format!(
        "all tokens but BOS, {raised} is on promoted tokens, {lowered} on tokens that it \
         suppresses"
    );
    Some(html(match shares(&head.answers) {
        None => format!(
            "{verdict}Of its attention to {all} (when it reads them, they are among the five it \
             promotes or suppresses most)."
        ),
        Some((up, down)) => format!(
            "{verdict}Of its attention to answer tokens, {up} is on tokens that are among the \
             five it promotes most when it reads them, and {down} among the five it suppresses \
             most. Of its attention to {all}."
        ),
    }))
}

fn facts(head: &Head) -> Vec<(String, &'static str, &'static str)> {
    let h = &head.habits;
    let shares = [
        (
            h.to_correct,
            "last token → right answer",
            "mean attention from the last token to the right answer, over prompts that contain it",
        ),
        (
            h.to_counter,
            "last token → wrong answer",
            "mean attention from the last token to the wrong answer, over prompts that contain it",
        ),
        (
            h.to_same,
            "to the same token",
            "mean attention to earlier occurrences of the same token, over tokens that have one",
        ),
        (
            h.to_after_same,
            "to the token after an earlier occurrence",
            "mean attention to the tokens that followed those occurrences (induction)",
        ),
        (h.to_previous, "to the token before", "mean attention over all tokens after the first"),
        (h.to_itself, "to itself", "mean attention over all tokens but BOS"),
        (h.to_bos, "to BOS", "mean attention over all tokens but BOS (attention sink)"),
    ];
    let direct = h.direct_effect.map(|effect| {
        let title = "direct effect at the last token on the logit difference (right minus wrong), \
             with LayerNorm's scale frozen";
        (signed(effect), "direct effect on the logit difference", title)
    });
    let share = |(value, label, title): (Option<f64>, _, _)| Some((percent(value?), label, title));
    direct.into_iter().chain(shares.into_iter().filter_map(share)).collect()
}

/// With a sign, if it does not round to 0.
fn signed(x: impl Into<f64>) -> String {
    let x = x.into();
    format!("{}{}", if x >= 0.005 { "+" } else { "" }, fixed(x, 2))
}

fn lowers(x: impl Into<f64>) -> bool {
    x.into() <= -0.005
}

fn template(a: &Attention) -> TemplateView {
    let line = |destination: usize| LineView {
        from: a
            .tokens
            .get(destination)
            .map_or_else(|| html(String::new()), |(text, _)| token(text)),
        text: line(a, destination),
    };
    TemplateView {
        name: a.template.clone(),
        prompts: counted(a.prompts as usize, "prompt"),
        lines: a.destinations(LINES).into_iter().map(line).collect(),
        square: square(a),
    }
}

fn slots(links: Links, contributors: &[Vec<Contributor>; 3]) -> Vec<SlotView> {
    const SLOTS: [(&str, &str); 3] = [
        ("Query", "inputs at the destination: what the head attends from"),
        ("Key", "inputs at the source: what the head attends to"),
        ("Value", "inputs at the source: what the head moves"),
    ];
    let slot = |((name, does), rows): ((&'static str, &'static str), &Vec<Contributor>)| {
        let longest = rows.iter().map(|row| row.share).fold(0.0, f64::max);
        SlotView {
            name,
            does,
            rows: rows.iter().map(|row| contributor(links, row, longest)).collect(),
        }
    };
    SLOTS.into_iter().zip(contributors).map(slot).collect()
}

fn contributor(links: Links, c: &Contributor, longest: f64) -> ContributorRow {
    let about = match c.what {
        What::Feature(feature) => prose(&links.site.gist(feature), BRIEF),
        What::Other(..) => html(String::new()),
    };
    ContributorRow {
        link: match &c.what {
            What::Feature(feature) => links.feature(*feature),
            what => PageLink::plain(what.said()),
        },
        gist: about,
        prompts: c.prompts,
        share: significant(c.share, 3),
        effect: signed(c.effect),
        lowers: lowers(c.effect),
        width: format!("{:.0}", if longest > 0.0 { 100.0 * c.share / longest } else { 0.0 }),
    }
}

/// Answers first; those that are not there have no table.
fn copies(all: &[CopiedToken]) -> Vec<(&'static str, Vec<CopyRow>)> {
    let of = |answer: bool| {
        all.iter().filter(|c| c.answer == answer).take(COPIES).map(copy_row).collect()
    };
    let mut tables = vec![("Answers", of(true)), ("Other tokens", of(false))];
    tables.retain(|(_, rows): &(_, Vec<CopyRow>)| !rows.is_empty());
    tables
}

fn copy_row(c: &CopiedToken) -> CopyRow {
    CopyRow {
        token: token(&c.token),
        mass: significant(c.mass, 3),
        places: c.places,
        top: c.top.iter().take(4).map(|(text, _)| token(text)).collect(),
        own_rank: rank(c),
        own_logit: signed(c.own_logit),
        lowers: lowers(c.own_logit),
    }
}

/// From whichever end is nearer.
fn rank(c: &CopiedToken) -> String {
    match c.own_rank <= c.own_rank_below {
        true => format!("top {}", c.own_rank),
        false => format!("bottom {}", c.own_rank_below),
    }
}
