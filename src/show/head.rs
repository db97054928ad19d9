//! What a head does, as a part of the answer about a component.

use super::page::{Page, Table, token};
use crate::atlas::model::{Contributor, CopiedToken, Move, Role};
use crate::atlas::model::{Head, HeadFeature, PublishedClass};
use crate::format::number::{fixed, percent, significant};

/// Ways, contributors, tokens and features that are told.
const MOST: usize = 5;

/// What the published circuit of a task says of a component.
pub(super) fn class(page: &mut Page, class: &PublishedClass) {
    let said = class.class.as_deref().unwrap_or("not in it");
    page.line(&format!("in the published circuit of {} ({}): {said}", class.task, class.published));
}

/// What a head does over the prompts of a task.
pub(super) fn print(page: &mut Page, head: &Head) {
    page.heading(
        &format!("Over the prompts of {}", head.task),
        "attention, copying, and what it reads",
    );
    head.moves.iter().take(MOST).for_each(|m| page.line(&moved(m, head.prompts)));
    page.line(&copying(head));
    page.line(&habits(head));
    for (name, rows) in ["query", "key", "value"].iter().zip(&head.contributors) {
        let told: Vec<String> = rows.iter().take(MOST).map(contributor).collect();
        if !told.is_empty() {
            page.line(&format!("its {name} reads {}", told.join(", ")));
        }
    }
    if !head.copies.is_empty() {
        let table = Table::new(&["reads", ">attention", ">own rank", ">own logit", "raises most"]);
        // Answers first: what the task is about.
        let (answers, others): (Vec<&CopiedToken>, Vec<&CopiedToken>) =
            head.copies.iter().partition(|copied| copied.answer);
        let told = answers.iter().take(MOST).chain(others.iter().take(MOST));
        page.table(&table.with(told.map(|one| copied(one))));
    }
}

fn habits(head: &Head) -> String {
    let h = &head.habits;
    let shares = [
        ("goes from the last token to the right answer", h.to_correct),
        ("to the wrong answer", h.to_counter),
        ("to the same token earlier", h.to_same),
        ("to the token after an earlier occurrence", h.to_after_same),
        ("to the token before", h.to_previous),
        ("to BOS", h.to_bos),
    ];
    let told: Vec<String> = shares
        .iter()
        .filter_map(|(name, share)| Some(format!("{} {name}", percent((*share)?))))
        .collect();
    format!("of its attention, {}", told.join(", "))
}

fn moved(m: &Move, of: u32) -> String {
    let visible = |role: &Role| match role {
        Role::Same(text) => format!("“{}”", token(text)),
        Role::Varies(text) => format!("a position with varying tokens, such as “{}”", token(text)),
        other => other.said(),
    };
    let to = if m.last { "the last token".into() } else { visible(&m.to) };
    let attention =
        m.attention.map(|a| format!(", with {} of its attention", percent(a))).unwrap_or_default();
    format!("reads {} from {to} in {} of {of} prompts{attention}", visible(&m.from), m.prompts)
}

fn copying(head: &Head) -> String {
    let verdict = match head.copies_or_lowers() {
        Some(true) => "copies: ",
        Some(false) => "suppresses the tokens it attends to: ",
        None => "",
    };
    let share = |x: Option<f64>| x.map_or("-".into(), percent);
    let direct = head
        .habits
        .direct_effect
        .map(|effect| format!("; adds {} to the logit difference", fixed(effect, 2)));
    format!(
        "{verdict}{} of its attention to answer tokens is on tokens among its five most promoted, \
         {} on its five most suppressed{}",
        share(head.answers.raised),
        share(head.answers.lowered),
        direct.unwrap_or_default()
    )
}

fn contributor(c: &Contributor) -> String {
    format!("{} {}", c.what.said(), significant(c.share, 3))
}

fn copied(c: &CopiedToken) -> [String; 5] {
    let raised: Vec<String> = c.top.iter().take(MOST).map(|(text, _)| token(text)).collect();
    [
        token(&c.token),
        significant(c.mass, 3),
        c.own_rank.to_string(),
        fixed(c.own_logit, 2),
        raised.join(" "),
    ]
}

/// Features by their share of decoder norm in the head.
pub(super) fn features(page: &mut Page, features: &[HeadFeature]) {
    if features.is_empty() {
        return;
    }
    page.heading(
        "Features by the share of their decoder in this head",
        "decoder norm in this head, as a share of the sum over the layer's heads",
    );
    let row = |f: &HeadFeature| {
        let serves: Vec<String> =
            f.serves.iter().map(|(task, prompts)| format!("{prompts} in {task}")).collect();
        [f.feature.to_string(), percent(f.share), f.rank.to_string(), serves.join(", ")]
    };
    // Those that serve first, as they are often not those with the largest shares.
    let (serving, others): (Vec<&HeadFeature>, Vec<&HeadFeature>) =
        features.iter().partition(|f| !f.serves.is_empty());
    let told = serving.into_iter().take(MOST).chain(others.into_iter().take(MOST));
    page.table(&Table::new(&["feature", ">share", ">rank", "serves here"]).with(told.map(row)));
}
