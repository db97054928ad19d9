//! The files that the scripts of the search and of the lists read. Each is a script that hands its
//! content over, as a page that is opened from a disk may not read a file in another way.

use super::sets::{encode, order};
use super::shards::Shards;
use super::words::{EXAMPLE_WORDS, EXAMPLES, LONGEST, index};
use super::{Cell, List, Lists, Row};
use crate::format::text::{Part, cut, parts, visible, without_controls};
use crate::site::links::{Site, gist_of};
use serde::Serialize;
use serde_json::{Value, json};

/// Rows in a file.
const ROWS: usize = 8;
/// Characters of an explanation in a row.
const GIST: usize = 150;

/// Things that are searched, by kind, in the order of their rows.
#[derive(Serialize)]
pub(super) struct KindRows {
    /// The folder of their pages.
    folder: &'static str,
    label: &'static str,
    first: usize,
    count: usize,
}

/// How much is searched, for the page that says it.
#[derive(Serialize)]
pub(in crate::site) struct Kinds {
    examples: usize,
    words: usize,
}

impl Kinds {
    pub(in crate::site) fn new() -> Kinds {
        Kinds { examples: EXAMPLES, words: EXAMPLE_WORDS }
    }
}

/// A file by its path in the site, and its text.
fn file(name: &str, content: &Value) -> (String, String) {
    (format!("search/{name}.js"), format!("atlasData({},{content});\n", json!(name)))
}

/// Everything that the scripts read.
pub(in crate::site) fn files(site: &Site, lists: &Lists) -> Vec<(String, String)> {
    let atlas = site.atlas;
    let shards = Shards::new(&index(atlas));
    let others = atlas.tasks.iter().map(|task| {
        let first = task.prompts.first().map_or("", |prompt| prompt.text.as_str());
        plain(&task.name, "tasks", first)
    });
    let groups = atlas.groups.iter().map(|group| {
        let gist = group.explanation.as_ref().map(gist_of).unwrap_or_default();
        plain(&group.name, "groups", &gist)
    });
    let mut rows: Vec<Value> = others.chain(groups).collect();
    let counts = [
        ("tasks", "Tasks", atlas.tasks.len()),
        ("groups", "Groups", atlas.groups.len()),
        ("components", "Components", lists.components.rows.len()),
        ("pairs", "Pairs", lists.pairs.rows.len()),
        ("features", "Features", lists.features.rows.len()),
    ];
    let mut first = 0;
    let kinds = counts.map(|(folder, label, count)| {
        first += count;
        KindRows { folder, label, first: first - count, count }
    });
    for list in [&lists.components, &lists.pairs, &lists.features] {
        rows.extend(list.rows.iter().map(row));
    }
    // Names of everything but features, which are found by their dictionary and number.
    let named = rows.len() - lists.features.rows.len();
    let names: Vec<&Value> = rows[..named].iter().map(|row| &row[0]).collect();
    let mut files = vec![file(
        "index",
        &json!({
            "kinds": kinds,
            "names": names,
            "dictionaries": dictionaries(site),
            "words": shards.files,
            "rows": ROWS,
            "longest": LONGEST,
        }),
    )];
    files.extend(numbers(site));
    let rows_of = |(i, rows): (usize, &[Value])| file(&format!("r{i}"), &json!(rows));
    files.extend(rows.chunks(ROWS).enumerate().map(rows_of));
    let words = shards.contents.iter().enumerate();
    files.extend(words.map(|(i, content)| file(&format!("w{i}"), content)));
    lists.all().into_iter().for_each(|list| files.extend(of_list(list)));
    files
}

/// The dictionaries with their first feature and how many they have.
fn dictionaries(site: &Site) -> Vec<(String, usize, usize)> {
    let mut all: Vec<(String, usize, usize)> = Vec::new();
    for (i, feature) in site.atlas.features.iter().enumerate() {
        let name = feature.id.dictionary.to_string();
        match all.last_mut() {
            Some(last) if last.0 == name => last.2 += 1,
            _ => all.push((name, i, 1)),
        }
    }
    all
}

/// The numbers of each dictionary's features.
fn numbers(site: &Site) -> Vec<(String, String)> {
    let features = &site.atlas.features;
    let numbers = |(name, first, count): (String, usize, usize)| {
        let numbers: Vec<usize> =
            features[first..first + count].iter().map(|feature| feature.id.index).collect();
        file(&format!("n-{name}"), &json!(numbers))
    };
    dictionaries(site).into_iter().map(numbers).collect()
}

/// `[name, file or 0, explanation]`: 0 where the file is `FOLDER/NAME.html`.
fn plain(name: &str, folder: &str, gist: &str) -> Value {
    json!([name, path(name, &format!("{folder}/{name}.html")), told(gist)])
}

fn path(name: &str, path: &str) -> Value {
    let usual = path.rsplit_once('/').is_some_and(|(_, file)| file == format!("{name}.html"));
    if usual { 0.into() } else { path.into() }
}

/// The same with the cells behind: numbers as shown, scores with the number of their verdict,
/// values of facets with how many more there are.
fn row(row: &Row) -> Value {
    let cell = |cell: &Cell| match cell {
        Cell::Number(text, _) => json!(text),
        Cell::Score(text, _, verdict) => json!([text, verdict]),
        Cell::Values(values, more) => json!([values, more]),
    };
    let mut all = vec![json!(row.link.text), path(&row.link.text, &row.path), told(&row.gist)];
    all.extend(row.cells.iter().map(cell));
    all.into()
}

/// An explanation: words and tokens in turn, words first.
fn told(gist: &str) -> Value {
    let (mut told, mut left): (Vec<String>, usize) = (Vec::new(), GIST);
    for part in parts(gist) {
        let (text, is_token) = match part {
            Part::Words(words) => (without_controls(words), false),
            Part::Token(token) => (visible(&token), true),
        };
        if (told.len() % 2 == 1) != is_token {
            told.push(String::new());
        }
        let length = text.chars().count();
        told.push(cut(&text, left));
        if length >= left {
            break;
        }
        left -= length;
    }
    json!(told)
}

/// What the script of a list reads: its columns and facets, the rows of each facet's values, and
/// the orders by its columns.
fn of_list(list: &List) -> Vec<(String, String)> {
    let name = list.name;
    let facets = list.facets.iter().map(|facet| {
        let values: Vec<Value> =
            facet.values.iter().map(|value| json!([value.label, value.path])).collect();
        json!({ "id": facet.id, "values": values })
    });
    let about = json!({
        "total": list.rows.len(),
        "shown": super::SHOWN,
        "first": list.first,
        "columns": list.columns,
        "facets": facets.collect::<Vec<_>>(),
        "verdicts": list.verdicts,
    });
    let mut files = vec![file(name, &about)];
    files.extend(list.facets.iter().map(|facet| {
        let sets: Vec<String> = facet.values.iter().map(|value| encode(&value.rows)).collect();
        file(&format!("{name}-{}", facet.id), &json!(sets))
    }));
    let sorted = list.columns.iter().enumerate().filter(|(_, column)| column.facet.is_none());
    files.extend(sorted.map(|(i, column)| {
        let (rows, there) = list.by(i);
        file(&format!("{name}-by-{}", column.id), &json!([order(&rows), there]))
    }));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_tokens_take_turns() {
        assert_eq!(told("At ` Mary`, so."), json!(["At ", "␣Mary", ", so."]));
        assert_eq!(told("`a` `b`"), json!(["", "a", " ", "b"]));
        assert_eq!(told("`a``b`"), json!(["", "a", "", "b"]));
        assert_eq!(told(""), json!([]));
        let long = told(&"word ".repeat(99));
        assert!(long[0].as_str().unwrap().chars().count() <= GIST + 1);
    }

    #[test]
    fn a_path_is_named_only_where_it_is_unusual() {
        assert_eq!(path("att1.2", "features/att1.2.html"), json!(0));
        assert_eq!(path("a + b", "pairs/a--b.html"), json!("pairs/a--b.html"));
    }
}
