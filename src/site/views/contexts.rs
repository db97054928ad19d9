//! Whole contexts of examples, for the scripts that show them: the texts some at a time, and of each
//! feature where it is active in them.

use crate::atlas::model::{ContextText, Example};
use crate::format::heat::heat;
use crate::format::number::significant;
use crate::site::links::Site;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The files of texts that there are, by number.
pub(crate) fn text_files(site: &Site) -> BTreeSet<u32> {
    site.atlas.texts.keys().map(|context| context / site.texts_at_once).collect()
}

#[derive(Serialize)]
pub(crate) struct TextsScript {
    /// By context: its tokens, special ones in a list of their own.
    texts: BTreeMap<u32, Vec<Token>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Token {
    Plain(Box<str>),
    Special([Box<str>; 1]),
}

impl TextsScript {
    pub(crate) fn new(site: &Site, number: u32) -> TextsScript {
        let first = number * site.texts_at_once;
        let own = site.atlas.texts.range(first..first + site.texts_at_once);
        TextsScript { texts: own.map(|(context, text)| (*context, tokens(text))).collect() }
    }
}

fn tokens(text: &ContextText) -> Vec<Token> {
    let token = |special: bool, text: &str| match special {
        true => Token::Special([text.into()]),
        false => Token::Plain(text.into()),
    };
    text.tokens.iter().map(|one| token(one.special, &one.text)).collect()
}

/// Where a feature is active in the contexts of its examples: position, heat and value.
pub(crate) type Active = BTreeMap<u32, Vec<(u32, usize, String)>>;

/// For the examples of which it is known.
pub(crate) fn active(examples: &[Example], max: f32) -> Active {
    let one = |&(at, value): &(u32, f32)| (at, heat(value, max), significant(value, 3));
    let known = examples.iter().filter(|example| example.is_whole_known());
    known.map(|example| (example.context, example.active.iter().map(one).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;

    #[test]
    fn every_example_has_its_text_and_its_activations() {
        let atlas = fixture::atlas();
        let site = Site::new(&atlas).unwrap();
        let files: BTreeMap<u32, TextsScript> = text_files(&site)
            .into_iter()
            .map(|number| (number, TextsScript::new(&site, number)))
            .collect();
        assert!(files.len() > 1);
        let mut seen = 0;
        for f in &atlas.features {
            let active = active(&f.examples, f.max);
            for example in f.examples.iter().filter(|example| example.is_whole_known()) {
                let file = &files[&(example.context / site.texts_at_once)];
                let text = &file.texts[&example.context];
                assert!(
                    active[&example.context].iter().all(|(at, ..)| (*at as usize) < text.len())
                );
                seen += 1;
            }
        }
        assert!(seen > 100, "{seen}");
        let sizes = files.values().map(|file| file.texts.values().map(Vec::len).sum::<usize>());
        assert!(sizes.max().unwrap() <= 8192);
    }
}
