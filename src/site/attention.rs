//! A head's attention over the prompts of a template, as pictures.
//!
//! Tokens are foreign text: they go through `text` into markup like everything else.

use super::text::{Html, escape, html, push_running};
use super::widths;
use crate::atlas::model::{Attention, Role};
use crate::format::heat::heat;
use crate::format::number::{fixed, percent};
use std::fmt::Write;

/// The prompt with the attention from one of its tokens, which is underlined.
pub(super) fn line(attention: &Attention, destination: usize) -> Html {
    let mut out = String::new();
    for (source, (text, _)) in attention.tokens.iter().enumerate() {
        let share = attention.at(destination, source);
        // The space before a word stays outside, as in examples.
        let (space, word) = match text.strip_prefix(' ') {
            Some(word) if !word.trim().is_empty() => (" ", word),
            _ => ("", text.as_str()),
        };
        let mark = if source == destination { " p" } else { "" };
        let later = if source > destination { " later" } else { "" };
        let (step, said) = (step(share), fixed(share, 2));
        let _ = write!(out, "{space}<i class=\"a{step}{mark}{later}\" title=\"{said}\">");
        push_running(&mut out, word);
        out.push_str("</i>");
    }
    html(out)
}

/// Destinations × sources.
pub(super) fn square(attention: &Attention) -> Html {
    let n = attention.tokens.len();
    let label = |text: &str| clipped(text);
    let mut body = String::new();
    for (i, (text, role)) in attention.tokens.iter().enumerate() {
        let (x, y) = (LEFT + i * SIDE + SIDE / 2, TOP + i * SIDE + SIDE / 2);
        let class = if matches!(role, Role::Same(_) | Role::Bos) { "l" } else { "l varies" };
        let text = label(text);
        let _ = write!(
            body,
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{text}</text>\
             <text class=\"{class}\" transform=\"translate({} {}) rotate(-60)\">{text}</text>",
            LEFT - 6,
            y + 4,
            x + 3,
            TOP - 6,
        );
    }
    // Where it may look, as one step a token; cells only where it does.
    let stairs = format!("h{SIDE}v{SIDE}").repeat(n);
    let _ = write!(body, "<path class=\"stairs\" d=\"M{LEFT} {TOP}{stairs}H{LEFT}z\"/>");
    for destination in 0..n {
        (0..=destination).for_each(|source| push_cell(attention, &mut body, destination, source));
    }
    let (width, height) = (LEFT + n * SIDE + 26, TOP + n * SIDE + 4);
    let px = widths::picture(width);
    html(format!(
        "<svg class=\"map attention {px}\" viewBox=\"0 0 {width} {height}\" \
         role=\"group\" aria-label=\"attention pattern: rows are destination tokens, columns are \
         source tokens\">{body}</svg>"
    ))
}

fn push_cell(of: &Attention, body: &mut String, destination: usize, source: usize) {
    let (attention, carried) = (of.at(destination, source), of.carried(destination, source));
    if step(attention) == 0 && carried == 0 {
        return;
    }
    let from = |i: usize| escape(&of.tokens[i].0);
    let mut title = format!("{} → {}: {}", from(destination), from(source), percent(attention));
    if carried > 0 {
        let _ = write!(title, "; moves information here in {carried} of {} prompts", of.prompts);
    }
    let (x, y) = (LEFT + source * SIDE + 1, TOP + destination * SIDE + 1);
    let class = if carried > 0 { " carried" } else { "" };
    let (side, step) = (SIDE - 2, step(attention));
    let _ = write!(
        body,
        "<rect class=\"a{step}{class}\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" \
         rx=\"2\">\
         <title>{title}</title></rect>"
    );
}
/// The square's cells, and the room for its labels.
const SIDE: usize = 20;

const LEFT: usize = 78;

const TOP: usize = 66;

/// The step of heat of an attention; below a hundredth there is nothing to be seen.
fn step(attention: f64) -> usize {
    if attention < 0.01 { 0 } else { heat(attention, 1.0) }
}

/// A token as a label: its spaces can be seen, and it is not long.
fn clipped(text: &str) -> String {
    const MOST: usize = 9;
    let visible: String = text.chars().map(|c| if c == '\n' { '↵' } else { c }).collect();
    let short = if visible.chars().count() > MOST {
        visible.chars().take(MOST - 1).chain(['…']).collect()
    } else {
        visible
    };
    escape(short.trim_start())
}
