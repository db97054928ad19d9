//! What rows can be chosen by: tasks, components, layers, kinds, bands of density, verdicts.

use super::{Facet, FacetValue};
use crate::site::links::{Links, PageLink};
use std::collections::BTreeMap;

/// Densities at which one band ends and the next begins, with what the bands are called.
const BANDS: [f64; 4] = [0.0001, 0.001, 0.01, 0.1];
const BAND_LABELS: [&str; 5] =
    ["below 0.01%", "0.01% to 0.1%", "0.1% to 1%", "1% to 10%", "over 10%"];

/// Where a density belongs.
pub(super) fn band(density: f64) -> usize {
    BANDS.iter().filter(|limit| density >= **limit).count()
}

/// A facet is put together from the values of each row, which are known by their keys.
pub(super) struct Maker<K: Ord> {
    facet: Facet,
    known: BTreeMap<K, usize>,
}

impl<K: Ord + Clone> Maker<K> {
    /// Of these values, in this order: key, label, link and file.
    pub(super) fn new(
        id: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (K, String, Option<String>)>,
        links: Links,
    ) -> Maker<K> {
        let mut maker = Maker {
            facet: Facet { id, label, values: Vec::new(), paged: false },
            known: BTreeMap::new(),
        };
        for (key, label, path) in values {
            let link = match &path {
                Some(path) => links.page(&label, path),
                None => PageLink::plain(&label),
            };
            maker.known.insert(key, maker.facet.values.len());
            maker.facet.values.push(FacetValue { label, link, path, rows: Vec::new() });
        }
        maker
    }

    pub(super) fn paged(mut self) -> Maker<K> {
        self.facet.paged = true;
        self
    }

    /// Gives a row its values; the numbers of them, in the order of the facet.
    pub(super) fn give(&mut self, row: usize, keys: impl IntoIterator<Item = K>) -> Vec<usize> {
        let mut values: Vec<usize> =
            keys.into_iter().filter_map(|key| self.known.get(&key).copied()).collect();
        values.sort_unstable();
        values.dedup();
        for &value in &values {
            self.facet.values[value].rows.push(row as u32);
        }
        values
    }

    pub(super) fn done(self) -> Facet {
        self.facet
    }
}

/// Tasks of the atlas by name.
pub(super) fn tasks(links: Links) -> Maker<String> {
    let names = links.site.atlas.tasks.iter().map(|task| &task.name);
    let value = |name: &String| (name.clone(), name.clone(), Some(format!("tasks/{name}.html")));
    Maker::new("task", "task", names.map(value).collect::<Vec<_>>(), links).paged()
}

/// Layers from 0.
pub(super) fn layers(links: Links) -> Maker<usize> {
    let layers = (0..links.site.atlas.layers).map(|layer| (layer, layer.to_string(), None));
    Maker::new("layer", "layer", layers, links).paged()
}

/// Whatever has these labels, in this order.
pub(super) fn labelled<'a>(
    id: &'static str,
    label: &'static str,
    labels: impl IntoIterator<Item = &'a str>,
    links: Links,
) -> Maker<usize> {
    let value = |(i, label): (usize, &str)| (i, label.to_string(), None);
    Maker::new(id, label, labels.into_iter().enumerate().map(value).collect::<Vec<_>>(), links)
}

/// Bands of density.
pub(super) fn densities(links: Links) -> Maker<usize> {
    labelled("density", "density", BAND_LABELS, links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_begin_at_their_limits() {
        assert_eq!([0.0, 0.00009, 0.0001, 0.01, 0.099, 0.1, 1.0].map(band), [0, 0, 1, 3, 3, 4, 4]);
    }
}
