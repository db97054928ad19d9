//! Features that a part of an earlier run has, in words and by their keys there.

use crate::ids::FeatureId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Features in order, in words: `att3.5 att3.7-12`.
pub(super) fn written(features: &[FeatureId]) -> String {
    let mut runs: Vec<(FeatureId, usize)> = Vec::new();
    for feature in features {
        match runs.last_mut() {
            Some((first, last))
                if first.dictionary == feature.dictionary && *last + 1 == feature.index =>
            {
                *last += 1;
            }
            _ => runs.push((*feature, feature.index)),
        }
    }
    let word = |(first, last): &(FeatureId, usize)| {
        if first.index == *last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Features from words; none where they are no features, or not in order.
fn read(text: &str) -> Option<Vec<FeatureId>> {
    let mut features: Vec<FeatureId> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (first, last) = word.split_once('-').unwrap_or((word, ""));
        let first: FeatureId = first.parse().ok()?;
        let last = if last.is_empty() { first.index } else { last.parse().ok()? };
        features.extend((first.index..=last).map(|index| FeatureId { index, ..first }));
    }
    features.is_sorted_by(|one, next| one < next).then_some(features)
}

/// The features of a part as they are wanted now.
pub(super) struct Known {
    /// A number of the part's list of features.
    pub(super) list: usize,
    /// Features that the part has, wanted or not.
    pub(super) features: usize,
    /// How many of those that are wanted it has.
    pub(super) number: usize,
    /// By key of those that are wanted: its key in the part.
    pub(super) then: Vec<Option<u32>>,
}

/// The lists of features of parts, each read once.
pub(super) struct Lists<'a> {
    wanted: &'a [FeatureId],
    read: RefCell<BTreeMap<String, Rc<Known>>>,
}

impl Lists<'_> {
    pub(super) fn new(wanted: &[FeatureId]) -> Lists<'_> {
        Lists { wanted, read: RefCell::default() }
    }

    pub(super) fn of(&self, text: &str) -> Rc<Known> {
        let mut all = self.read.borrow_mut();
        if let Some(known) = all.get(text) {
            return known.clone();
        }
        let features = read(text).unwrap_or_default();
        let key = |feature: &FeatureId| Some(features.binary_search(feature).ok()? as u32);
        let then: Vec<Option<u32>> = self.wanted.iter().map(key).collect();
        let known = Rc::new(Known {
            list: all.len(),
            features: features.len(),
            number: then.iter().flatten().count(),
            then,
        });
        all.insert(text.into(), known.clone());
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(names: &[&str]) -> Vec<FeatureId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn features_are_read_as_they_were_written() {
        let all = features(&["att0.3", "att0.4", "att0.5", "mlp0.5", "att1.6", "mlp3.0", "mlp3.2"]);
        assert_eq!(written(&all), "att0.3-5 mlp0.5 att1.6 mlp3.0 mlp3.2");
        for n in 0..=all.len() {
            assert_eq!(read(&written(&all[..n])).unwrap(), all[..n]);
        }
        for text in ["att0.5 att0.3", "att0.3 att0.3", "att0.3-x", "L9H9", "att0.5-3 att0.4 att0.4"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wanted_is_found_by_its_key_then() {
        let wanted = features(&["att0.4", "mlp0.5", "mlp3.0"]);
        let lists = Lists::new(&wanted);
        let known = lists.of("att0.3-5 mlp3.0");
        assert_eq!((known.list, known.features, known.number), (0, 4, 2));
        assert_eq!(known.then, [Some(1), None, Some(3)]);
        assert_eq!(lists.of("att0.3-5 mlp3.0").list, 0);
        let other = lists.of("no features");
        assert_eq!((other.list, other.features, other.number), (1, 0, 0));
    }
}
