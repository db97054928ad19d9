//! Indirect object identification: "When Mary and John went to the store, John gave a drink to" → "
//! Mary".
//!
//! The corrupted twin names three people, none of them of the prompt, so that nothing says who the
//! answer is.

use super::places::placeholders;
use super::words::{NAMES, OBJECTS, PLACES};
use super::{Measure, Prompt, Word, Written, distinct, single_tokens};
use crate::corpus::Tokenizer;
use crate::error::Result;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// `{X}` and `{Y}` in the order in which they are named; `{S}`, the giver, is one of them. Among
/// them are all families of the published work: they go, meet, wait or talk somewhere; something is
/// given, lent or said; the object comes after the place or before it, and then is given as "it" or
/// by its name; the place comes first; there are two sentences.
const SHAPES: [&str; 12] = [
    "When {X} and {Y} went to the {place}, {S} gave a {object} to",
    "After {X} and {Y} met at the {place}, {S} handed a {object} to",
    "Then {X} and {Y} walked to the {place}, and {S} offered a {object} to",
    "While {X} and {Y} were at the {place}, {S} passed a {object} to",
    "When {X} and {Y} had a long talk at the {place}, {S} gave a {object} to",
    "Then {X} and {Y} had lunch at the {place}, and {S} brought a {object} to",
    "Then {X} and {Y} found a {object} at the {place}, and {S} gave it to",
    "When {X} and {Y} bought a {object} at the {place}, {S} handed the {object} to",
    "There was a {object} at the {place}. When {X} and {Y} saw it, {S} gave it to",
    "The {place} was quiet when {X} and {Y} came in, and {S} lent a {object} to",
    "While {X} and {Y} were waiting at the {place}, {S} wanted to give a {object} to",
    "After {X} and {Y} had a long talk at the {place}, {S} said to",
];

/// Who comes first: the receiver (A) or the giver (B).
const ORDERS: [&str; 2] = ["ABBA", "BABA"];

/// Two people of a prompt, and three others for its corrupted twin.
const PEOPLE: usize = 5;

struct Words {
    names: Vec<Word>,
    places: Vec<Word>,
    objects: Vec<Word>,
}

/// Where the words of a template are in a text that was made from it.
pub(super) fn parts(template: &str, text: &str) -> Vec<(Range<usize>, &'static str)> {
    let number = template.split('/').nth(1).and_then(|n| n.parse::<usize>().ok());
    let shape = number.and_then(|n| SHAPES.get(n.checked_sub(1)?)).copied().unwrap_or_default();
    let named = |(range, name)| {
        let name = match name {
            "X" => "first name",
            "Y" => "second name",
            "S" => "repeated name",
            other => other,
        };
        (range, name)
    };
    placeholders(shape, text).into_iter().map(named).collect()
}

/// `n` prompts, taking shapes and orders in turn, so that each template has about as many.
pub(super) fn prompts(n: usize, seed: u64, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
    let mut words = Words {
        names: single_tokens("names", NAMES, PEOPLE, tokenizer)?,
        places: single_tokens("places", PLACES, 1, tokenizer)?,
        objects: single_tokens("objects", OBJECTS, 1, tokenizer)?,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drawn = distinct(n, |i| draw(i % (SHAPES.len() * ORDERS.len()), &mut words, &mut rng));
    drawn.into_iter().map(|written| written.tokenise(tokenizer)).collect()
}

fn draw(template: usize, words: &mut Words, rng: &mut impl Rng) -> Written {
    let (shape, order) = (template / ORDERS.len(), template % ORDERS.len());
    let (people, _) = words.names.partial_shuffle(rng, PEOPLE);
    let [receiver, giver, others @ ..] = &*people else {
        unreachable!("`names` are at least as many")
    };
    let [place, object] =
        [&words.places, &words.objects].map(|list| list.choose(rng).map_or("", |word| word.text));
    let fill = |x: &Word, y: &Word, s: &Word| {
        let names =
            SHAPES[shape].replace("{X}", x.text).replace("{Y}", y.text).replace("{S}", s.text);
        names.replace("{place}", place).replace("{object}", object)
    };
    let (x, y) = if ORDERS[order] == "ABBA" { (receiver, giver) } else { (giver, receiver) };
    Written {
        template: format!("ioi/{}/{}", shape + 1, ORDERS[order]),
        // Three other people in the same shape: nothing of the order is left.
        frame: format!("ioi/{}", shape + 1),
        stratum: ORDERS[order].into(),
        text: fill(x, y, giver),
        corrupted: fill(&others[0], &others[1], &others[2]),
        correct: receiver.token,
        counter: giver.token,
        measure: Measure::LogitDifference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::tokenizer::tests::demo;
    use crate::task::tests::assert_drawn_well;
    use std::collections::{BTreeMap, BTreeSet};

    fn names_in(ids: &[u32], tokenizer: &Tokenizer) -> Vec<u32> {
        let names: BTreeSet<u32> =
            NAMES.iter().filter_map(|name| tokenizer.single(&format!(" {name}"))).collect();
        ids.iter().copied().filter(|id| names.contains(id)).collect()
    }

    #[test]
    fn the_answer_is_the_one_who_is_named_once() {
        let tokenizer = demo();
        for prompt in prompts(60, 1, &tokenizer).unwrap() {
            let [x, y, s] = names_in(&prompt.tokens, &tokenizer)[..] else {
                panic!("{}", prompt.text)
            };
            let (receiver, giver) = if prompt.template.ends_with("ABBA") { (x, y) } else { (y, x) };
            assert_eq!(
                (prompt.correct, prompt.counter, s),
                (receiver, giver, giver),
                "{}",
                prompt.text
            );
            assert_ne!(x, y);
        }
    }

    #[test]
    fn the_corrupted_twin_has_three_other_people_and_nothing_else_changed() {
        let tokenizer = demo();
        for prompt in prompts(60, 2, &tokenizer).unwrap() {
            let people: Vec<u32> = names_in(&prompt.corrupted, &tokenizer);
            let all: BTreeSet<u32> =
                people.iter().copied().chain([prompt.correct, prompt.counter]).collect();
            assert_eq!(
                (people.len(), all.len()),
                (3, 5),
                "{}",
                tokenizer.decode(&prompt.corrupted)
            );
            let changed =
                prompt.tokens.iter().zip(&prompt.corrupted).filter(|(a, b)| a != b).count();
            assert_eq!(changed, 3);
        }
    }

    #[test]
    fn prompts_of_a_template_line_up_behind_one_bos() {
        let tokenizer = demo();
        let mut places: BTreeMap<String, BTreeSet<Vec<usize>>> = BTreeMap::new();
        for prompt in prompts(240, 3, &tokenizer).unwrap() {
            let (tokens, bos) = (&prompt.tokens, tokenizer.bos());
            assert_eq!(tokens.iter().position(|id| *id == bos), Some(0));
            assert_eq!(tokens.iter().filter(|id| **id == bos).count(), 1);
            assert_eq!(tokens.len(), prompt.corrupted.len());
            assert_eq!(tokenizer.decode(&tokens[1..]), prompt.text);
            let names = names_in(tokens, &tokenizer);
            let mut shape: Vec<usize> =
                (0..tokens.len()).filter(|i| names.contains(&tokens[*i])).collect();
            shape.push(tokens.len());
            places.entry(prompt.template).or_default().insert(shape);
        }
        assert_eq!(places.len(), 24);
        assert!(places.values().all(|shapes| shapes.len() == 1), "{places:?}");
    }

    #[test]
    fn prompts_are_distinct_and_their_seed_fixes_them() {
        let tokenizer = demo();
        assert_drawn_well(|n, seed| prompts(n, seed, &tokenizer).unwrap());
    }

    #[test]
    fn objects_follow_the_article_a() {
        assert!(OBJECTS.iter().all(|object| !object.starts_with(['a', 'e', 'i', 'o', 'u'])));
    }
}
