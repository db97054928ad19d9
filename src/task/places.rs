//! What stands at the positions of a written prompt, in the words of its task.

use super::{greater_than, ioi};
use crate::config::TaskKind;
use std::ops::Range;

/// A name for each of `pieces`, the texts of a prompt's tokens with BOS first; none where the task
/// says nothing of it, as of fixed words and of prompts from a file.
pub(crate) fn parts(
    kind: TaskKind,
    template: &str,
    pieces: &[String],
) -> Vec<Option<&'static str>> {
    let text = pieces.iter().skip(1).map(String::as_str).collect::<String>();
    let named: Vec<(Range<usize>, &'static str)> = match kind {
        TaskKind::Ioi => ioi::parts(template, &text),
        TaskKind::GreaterThan => greater_than::parts(&text),
        TaskKind::Prompts => Vec::new(),
    };
    let mut at = 0;
    let mut names = vec![None; pieces.len().min(1)];
    for piece in pieces.iter().skip(1) {
        let end = at + piece.len();
        // A token may begin with the space before its word.
        let of = |(range, _): &&(Range<usize>, _)| range.start < end && at < range.end;
        names.push(named.iter().find(of).map(|(_, name)| *name));
        at = end;
    }
    names
}

/// Where the placeholders of `shape`, such as `{place}`, are in a text that was made from it: the
/// first of each span that fits.
pub(super) fn placeholders<'a>(shape: &'a str, text: &str) -> Vec<(Range<usize>, &'a str)> {
    let (mut found, mut at) = (Vec::new(), 0);
    let mut rest = shape;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        let next = after.split('{').next().unwrap_or_default();
        let start = at + before.len();
        let Some(open) = text.get(start..) else { return Vec::new() };
        let length = if next.is_empty() { Some(open.len()) } else { open.find(next) };
        let Some(length) = length else { return Vec::new() };
        found.push((start..start + length, name));
        at = start + length;
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::tokenizer::tests::demo;

    fn named(kind: TaskKind, prompts: Vec<crate::task::Prompt>) -> Vec<Vec<(String, String)>> {
        let tokenizer = demo();
        let of = |prompt: &crate::task::Prompt| {
            let pieces: Vec<String> = prompt.tokens.iter().map(|id| tokenizer.token(*id)).collect();
            let names = parts(kind, &prompt.template, &pieces);
            assert_eq!(names.len(), pieces.len());
            pieces
                .into_iter()
                .zip(names)
                .filter_map(|(piece, name)| Some((name?.to_string(), piece.trim().to_string())))
                .collect()
        };
        prompts.iter().map(of).collect()
    }

    #[test]
    fn names_places_and_objects_of_every_shape_are_found() {
        let all = named(TaskKind::Ioi, ioi::prompts(48, 1, &demo()).unwrap());
        for words in all {
            let of = |name: &str| -> Vec<&str> {
                words.iter().filter(|(n, _)| n == name).map(|(_, word)| word.as_str()).collect()
            };
            let (first, second, again) = (of("first name"), of("second name"), of("repeated name"));
            assert_eq!((first.len(), second.len(), again.len()), (1, 1, 1), "{words:?}");
            assert!(again == first || again == second, "{words:?}");
            assert!(of("place").len() == 1, "{words:?}");
            assert!(of("place").iter().all(|p| super::super::words::PLACES.contains(p)));
            assert!(of("object").iter().all(|o| super::super::words::OBJECTS.contains(o)));
        }
    }

    #[test]
    fn years_are_a_century_and_two_digits() {
        let all = named(TaskKind::GreaterThan, greater_than::prompts(20, 1, &demo()).unwrap());
        for words in all {
            let names: Vec<&str> = words.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["event", "century", "year (YY)", "century again"], "{words:?}");
            assert_eq!(words[1].1, words[3].1);
        }
    }

    #[test]
    fn a_text_of_another_shape_has_no_parts() {
        assert!(placeholders("When {X} and {Y} went", "Then all of them left").is_empty());
        let pieces = ["<|endoftext|>", "a", " b"].map(String::from);
        assert_eq!(parts(TaskKind::Ioi, "ioi/99/ABBA", &pieces), [None; 3]);
        assert_eq!(parts(TaskKind::Prompts, "own", &pieces), [None; 3]);
        assert!(parts(TaskKind::Ioi, "", &[]).is_empty());
    }
}
