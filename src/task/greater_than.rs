//! Greater-than: "The war lasted from 1732 to 17" → any two digits above 32.
//!
//! The corrupted twin starts in the year `01`, above which everything is, as in the published work.

use super::places::placeholders;
use super::words::EVENTS;
use super::{Measure, Prompt, UNSUITED, Word, Written, distinct, single_tokens};
use crate::corpus::Tokenizer;
use crate::error::{Result, hinted};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// Every event is one token, and so are a century and two digits: one template.
const TEMPLATE: &str = "greater-than/1";

/// Two digits of a start year; there are years on both sides of each.
const STARTS: std::ops::RangeInclusive<u32> = 2..=98;

/// The centuries of the published work. Later ones have years that GPT-2 would write as one token.
const CENTURIES: std::ops::RangeInclusive<u32> = 11..=17;

/// The ids of "00" to "99" without a space before, if each is a single token.
pub fn digits(tokenizer: &Tokenizer) -> Option<Vec<u32>> {
    (0..100).map(|year| tokenizer.single(&format!("{year:02}"))).collect()
}

/// Where the event and the years are in a text that was made from the template.
pub(super) fn parts(text: &str) -> Vec<(Range<usize>, &'static str)> {
    const SHAPE: &str = "The {event} lasted from {start} to {century again}";
    let mut parts = placeholders(SHAPE, text);
    // A start year is two tokens.
    if let Some(at) = parts.iter().position(|(_, name)| *name == "start") {
        let year = parts[at].0.clone();
        let middle = year.start + 2;
        parts.splice(at..=at, [(year.start..middle, "century"), (middle..year.end, "year (YY)")]);
    }
    parts
}

/// `n` prompts over events, centuries and start years.
pub(super) fn prompts(n: usize, seed: u64, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
    let events = single_tokens("events", EVENTS, 1, tokenizer)?;
    let digits = digits(tokenizer)
        .ok_or_else(|| hinted("not all of `00` to `99` are single tokens", UNSUITED))?;
    let years: Vec<(u32, u32)> =
        CENTURIES.flat_map(|century| starts(century, &digits, tokenizer)).collect();
    if years.is_empty() {
        return Err(hinted("no year is made of two tokens, a century and two digits", UNSUITED));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drawn = distinct(n, |_| draw(&events, &years, &digits, &mut rng));
    drawn.into_iter().map(|written| written.tokenise(tokenizer)).collect()
}

/// The start years of a century that are two tokens, if the year `01` is.
fn starts(century: u32, digits: &[u32], tokenizer: &Tokenizer) -> Vec<(u32, u32)> {
    let Some(first) = tokenizer.single(&format!(" {century}")) else { return Vec::new() };
    let two_tokens = |year: u32| {
        let ids = tokenizer.encode(&format!(" {century}{year:02}"));
        ids.is_ok_and(|ids| ids == [first, digits[year as usize]])
    };
    if !two_tokens(1) {
        return Vec::new();
    }
    STARTS.filter(|year| two_tokens(*year)).map(|year| (century, year)).collect()
}

/// Every year above the start is right and every other wrong, none more than another. So the answer
/// and the one held against it are drawn from all of them: a circuit is then found for "above", not
/// for one pair of numbers. Both are tokens of two digits ("05", never "5").
fn draw(events: &[Word], years: &[(u32, u32)], digits: &[u32], rng: &mut impl Rng) -> Written {
    let event = events.choose(rng).map_or("", |word| word.text);
    let (century, year) = years.choose(rng).copied().unwrap_or_default();
    let write = |year: u32| format!("The {event} lasted from {century}{year:02} to {century}");
    Written {
        template: TEMPLATE.into(),
        frame: TEMPLATE.into(),
        stratum: String::new(),
        text: write(year),
        corrupted: write(1),
        correct: digits[rng.random_range(year as usize + 1..digits.len())],
        counter: digits[rng.random_range(0..=year as usize)],
        measure: Measure::GreaterThan { year },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::tokenizer::tests::demo;
    use crate::task::tests::assert_drawn_well;

    fn value(id: u32, digits: &[u32]) -> u32 {
        digits.iter().position(|digit| *digit == id).unwrap() as u32
    }

    #[test]
    fn answers_are_two_digits_above_and_not_above() {
        let tokenizer = demo();
        let digits = digits(&tokenizer).unwrap();
        assert_eq!(tokenizer.token(digits[5]), "05");
        for prompt in prompts(200, 1, &tokenizer).unwrap() {
            let Measure::GreaterThan { year } = prompt.measure else {
                panic!("{:?}", prompt.measure)
            };
            assert!(prompt.text.contains(&format!("{year:02} to ")), "{}", prompt.text);
            assert!(STARTS.contains(&year));
            assert!(
                value(prompt.correct, &digits) > year && value(prompt.counter, &digits) <= year
            );
        }
    }

    #[test]
    fn only_the_start_year_is_corrupted() {
        let tokenizer = demo();
        let digits = digits(&tokenizer).unwrap();
        for prompt in prompts(100, 2, &tokenizer).unwrap() {
            let Measure::GreaterThan { year } = prompt.measure else {
                panic!("{:?}", prompt.measure)
            };
            let mut expected = prompt.tokens.clone();
            assert_eq!(expected[6], digits[year as usize], "{}", prompt.text);
            expected[6] = digits[1];
            assert_eq!(prompt.corrupted, expected);
            assert_eq!((expected.len(), expected[0]), (9, tokenizer.bos()));
            assert_eq!(expected[5], expected[8], "the century is said twice");
        }
    }

    #[test]
    fn prompts_are_distinct_and_their_seed_fixes_them() {
        let tokenizer = demo();
        assert_drawn_well(|n, seed| prompts(n, seed, &tokenizer).unwrap());
    }
}
