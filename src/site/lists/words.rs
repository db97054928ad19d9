//! Words by which things are found: what is a word, and where in a thing it stands.

use crate::atlas::model::{
    Atlas, ComponentPage, Example, Explanation, Feature, Group, Pair, PromotedToken, Task,
};
use crate::format::text::{Part, parts, visible};
use crate::ids::{Band, Status};
use std::collections::{BTreeMap, HashMap};

/// Where a word stands, in the order in which what is found is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    /// Explanations, and what a task or a component is called.
    Said,
    /// Tokens that a feature is active at, and the prompts of a task.
    ActiveAt,
    Promoted,
    Examples,
}

/// How many there are.
pub(super) const FIELDS: usize = 4;

/// Characters of a word; the rest is not looked at.
pub(crate) const LONGEST: usize = 24;
/// Examples whose words count, the strongest first, and words of them: those that come in most of
/// them, then those that are nearest to a peak.
pub(crate) const EXAMPLES: usize = 10;
pub(crate) const EXAMPLE_WORDS: usize = 48;

/// The words of a thing, each with the first field that it stands in.
#[derive(Default)]
pub(super) struct Words(pub HashMap<String, Field>);

/// The words of a text as the search's script splits what is asked for: letters and digits in a
/// row, in lower case.
fn split(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word.chars().take(LONGEST).collect()).collect()
}

impl Words {
    fn add(&mut self, word: String, field: Field) {
        let known = self.0.entry(word).or_insert(field);
        *known = field.min(*known);
    }

    fn text(&mut self, text: &str, field: Field) {
        split(text).into_iter().for_each(|word| self.add(word, field));
    }

    /// A token; one without letters and digits is a word itself, spaces of it apart.
    fn token(&mut self, token: &str, field: Field) {
        let words = split(token);
        if words.is_empty() {
            let shown = visible(token);
            let shown = shown.trim_matches('␣');
            if !shown.is_empty() {
                self.add(shown.to_lowercase().chars().take(LONGEST).collect(), field);
            }
        }
        words.into_iter().for_each(|word| self.add(word, field));
    }

    fn explanation(&mut self, explanation: Option<&Explanation>) {
        let Some(e) = explanation.filter(|e| e.status == Status::Ok) else { return };
        let clauses = e.clauses.iter().map(|(clause, _)| clause);
        let texts = [&e.input_side, &e.output_side, &e.text, &e.weakly, &e.reads_from];
        let more = [&e.matching, &e.carried];
        for text in texts.into_iter().chain(more).chain(clauses) {
            for part in parts(text) {
                match part {
                    Part::Words(words) => self.text(words, Field::Said),
                    Part::Token(token) => self.token(&token, Field::Said),
                }
            }
        }
        e.claims.iter().for_each(|token| self.token(token, Field::Said));
    }

    fn promoted(&mut self, tokens: &[PromotedToken]) {
        tokens.iter().for_each(|token| self.token(&token.text, Field::Promoted));
    }

    fn examples(&mut self, examples: &[Example]) {
        let top = examples.iter().filter(|e| e.band == Band::Top).take(EXAMPLES);
        // Of each word in how many examples it is, and its smallest distance from a peak.
        let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for example in top {
            for (word, distance) in near(example) {
                let known = seen.entry(word).or_insert((0, distance));
                *known = (known.0 + 1, known.1.min(distance));
            }
        }
        let mut words: Vec<_> = seen.into_iter().collect();
        words.sort_by(|(a, (m, d)), (b, (n, e))| n.cmp(m).then(d.cmp(e)).then(a.cmp(b)));
        let words = words.into_iter().take(EXAMPLE_WORDS);
        words.for_each(|(word, _)| self.add(word, Field::Examples));
    }

    pub(super) fn of_task(task: &Task) -> Words {
        let mut words = Words::default();
        words.text(&task.name, Field::Said);
        words.text(&task.kind, Field::Said);
        for prompt in &task.prompts {
            words.text(&prompt.text, Field::ActiveAt);
            words.text(&prompt.correct, Field::ActiveAt);
        }
        words
    }

    pub(super) fn of_group(group: &Group) -> Words {
        let mut words = Words::default();
        words.text(&group.name, Field::Said);
        words.explanation(group.explanation.as_ref());
        words.promoted(&group.promoted);
        words.examples(&group.examples);
        words
    }

    pub(super) fn of_component(c: &ComponentPage) -> Words {
        let mut words = Words::default();
        let classes = c.classes.iter().filter_map(|class| class.class.as_ref());
        classes.for_each(|class| words.text(class, Field::Said));
        words.explanation(c.explanation.as_ref());
        words.promoted(&c.promoted);
        words.examples(&c.examples);
        words
    }

    pub(super) fn of_pair(pair: &Pair) -> Words {
        let mut words = Words::default();
        words.explanation(pair.explanation.as_ref());
        words.promoted(&pair.promoted);
        words.examples(&pair.examples);
        words
    }

    pub(super) fn of_feature(f: &Feature) -> Words {
        let mut words = Words::default();
        words.explanation(f.explanation.as_ref());
        f.mass.iter().for_each(|(token, _)| words.token(token, Field::ActiveAt));
        words.promoted(&f.promoted);
        words.examples(&f.examples);
        words
    }
}

/// The words of an example once each, with their distance in characters from its peak. Tokens are
/// put together first: a word may be several.
fn near(example: &Example) -> BTreeMap<String, usize> {
    let plain = |text: &str, special: bool| if special { " ".into() } else { text.to_lowercase() };
    let (mut text, mut peak) = (String::new(), 0);
    for (i, piece) in example.pieces.iter().enumerate() {
        if i == example.peak {
            peak = text.chars().count();
        }
        text.push_str(&plain(&piece.text, piece.special));
    }
    let (mut words, mut word) = (BTreeMap::new(), String::new());
    for (end, c) in text.chars().chain([' ']).enumerate() {
        if c.is_alphanumeric() {
            word.push(c);
        } else if !word.is_empty() {
            let start = end - word.chars().count();
            let distance = start.saturating_sub(peak).max((peak + 1).saturating_sub(end));
            let word: String = std::mem::take(&mut word).chars().take(LONGEST).collect();
            let nearest = words.entry(word).or_insert(usize::MAX);
            *nearest = distance.min(*nearest);
        }
    }
    words
}

/// Rows by word, for each field, in increasing order.
pub(super) type Index = BTreeMap<String, [Vec<u32>; FIELDS]>;

/// The words of everything, in the order of the rows: tasks, groups, components, pairs, features.
pub(super) fn index(atlas: &Atlas) -> Index {
    use rayon::prelude::*;
    /// Things whose words are in memory at once, besides the index.
    const AT_ONCE: usize = 512;
    let mut index = HashMap::<String, [Vec<u32>; FIELDS]>::new();
    let mut row = 0;
    let mut add = |words: Words| {
        for (word, field) in words.0 {
            index.entry(word).or_default()[field as usize].push(row);
        }
        row += 1;
    };
    atlas.tasks.iter().map(Words::of_task).for_each(&mut add);
    atlas.groups.iter().map(Words::of_group).for_each(&mut add);
    atlas.components.iter().map(Words::of_component).for_each(&mut add);
    atlas.pairs.iter().map(Words::of_pair).for_each(&mut add);
    for features in atlas.features.chunks(AT_ONCE) {
        let words: Vec<Words> = features.par_iter().map(Words::of_feature).collect();
        words.into_iter().for_each(&mut add);
    }
    index.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;

    #[test]
    fn words_are_letters_and_digits_in_lower_case() {
        assert_eq!(split("“January” isn't 1,880!"), ["january", "isn", "t", "1", "880"]);
        assert_eq!(split("École 東京 ÀB"), ["école", "東京", "àb"]);
        assert_eq!(split(&"x".repeat(99)), ["x".repeat(LONGEST)]);
        let mut words = Words::default();
        [" \"", "\n", " ", " Mary"].iter().for_each(|token| words.token(token, Field::Promoted));
        let mut found: Vec<&str> = words.0.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, ["\"", "mary", "↵"]);
    }

    #[test]
    fn a_word_of_several_tokens_is_one_and_the_nearest_come_first() {
        let atlas = fixture::atlas();
        let mut example = atlas.features[0].examples[0].clone();
        let piece = |text: &str, special| crate::atlas::model::TextPiece {
            text: text.into(),
            value: 0.0,
            special,
        };
        example.pieces = vec![
            piece("<|endoftext|>", true),
            piece("On", false),
            piece(" Jan", false),
            piece("uary", false),
            piece(" 4", false),
        ];
        example.peak = 3;
        let found = near(&example);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["4", "january", "on"]);
        assert_eq!((found["january"], found["on"], found["4"]), (0, 5, 5));
    }

    #[test]
    fn a_word_is_found_in_its_first_field() {
        let atlas = fixture::atlas();
        let index = index(&atlas);
        let rows: Vec<u32> = index["mary"].iter().flatten().copied().collect();
        let once: std::collections::BTreeSet<&u32> = rows.iter().collect();
        assert_eq!(rows.len(), once.len());
        let (explained, prompts) = (&index["mary"][0], &index["market"][1]);
        assert!(!explained.is_empty() && prompts.first() == Some(&0));
    }
}
