//! The rows of each list.

use super::facets::{self, Maker, band};
use super::{Cell, Column, List, Row, Verdict};
use crate::atlas::model::{ComponentPage, Feature, Pair};
use crate::atlas::verdict::{Verdict as Judged, of_evaluation};
use crate::format::number::{ABSENT, fixed, percent, significant};
use crate::ids::{Kind, Lag};
use crate::site::links::{Site, gist_of, pair_path};
use crate::site::views::first_score;
use std::collections::BTreeSet;

/// Values of a facet in a cell; more are counted.
const IN_A_CELL: usize = 3;

fn number(id: &'static str, label: &'static str, title: &'static str) -> Column {
    Column { id, label, title, facet: None }
}

fn of_facet(id: &'static str, label: &'static str, title: &'static str, facet: usize) -> Column {
    Column { id, label, title, facet: Some(facet) }
}

/// The first of some values of a facet.
fn first(mut values: Vec<usize>) -> Cell {
    let more = values.len().saturating_sub(IN_A_CELL);
    values.truncate(IN_A_CELL);
    Cell::Values(values, more)
}

fn kind_word(kind: Kind) -> usize {
    usize::from(kind == Kind::Mlp)
}

pub(super) fn features(site: &Site) -> List {
    let (atlas, links) = (site.atlas, site.in_folder());
    let judged = atlas.features.iter().any(|f| first_score(f).is_some());
    let at = atlas.components.iter().map(|c| {
        let name = c.component.to_string();
        (c.component, name.clone(), Some(format!("components/{name}.html")))
    });
    let mut tasks = facets::tasks(links);
    let mut components =
        Maker::new("component", "component", at.collect::<Vec<_>>(), links).paged();
    let mut layers = facets::layers(links);
    let mut kinds = facets::labelled("kind", "kind", ["attention SAE", "MLP transcoder"], links);
    let mut densities = facets::densities(links);
    let verdicts =
        ["beats both baselines", "not significantly above", "below a baseline", "no score"];
    let mut compared = facets::labelled("score", "explanation", verdicts, links);
    let mut words: Vec<Verdict> = Vec::new();
    let mut row = |(i, f): (usize, &Feature)| {
        let in_tasks = tasks.give(i, f.servings.iter().map(|s| s.task.clone()));
        let at = components.give(i, f.servings.iter().map(|s| s.component));
        layers.give(i, [f.id.dictionary.layer]);
        kinds.give(i, [kind_word(f.id.dictionary.kind)]);
        densities.give(i, [band(f.density)]);
        let prompts = f.servings.iter().map(|s| s.prompts).max().unwrap_or(0);
        let mut cells = vec![
            Cell::Number(prompts.to_string(), Some(f64::from(prompts))),
            Cell::Number(percent(f.density), Some(f.density)),
            Cell::Number(significant(f.max, 3), Some(f.max.into())),
        ];
        if judged {
            let (cell, verdict) = score(f, &mut words);
            compared.give(i, [verdict as usize]);
            cells.push(cell);
        }
        cells.extend([first(in_tasks), first(at)]);
        Row {
            link: links.feature(f.id),
            path: format!("features/{}.html", f.id),
            gist: site.gist(f.id),
            cells,
        }
    };
    let rows = atlas.features.iter().enumerate().map(&mut row).collect();
    let mut columns = vec![
        number(
            "prompts",
            "prompts",
            "prompts whose circuit uses the feature, for the task and component where this is highest",
        ),
        number("density", "density", "share of tokens at which the feature is active"),
        number("max", "max", "largest activation"),
    ];
    if judged {
        let title = "how well held-out texts can be told by the explanation";
        columns.push(number("score", "score", title));
    }
    columns.extend([
        of_facet("tasks", "tasks", "tasks in whose circuits the feature is", 0),
        of_facet("components", "components", "components at which a circuit uses the feature", 1),
    ]);
    let mut facets =
        vec![tasks.done(), components.done(), layers.done(), kinds.done(), densities.done()];
    facets.extend(judged.then(|| compared.done()));
    List {
        name: "features",
        noun: "feature",
        columns,
        rows,
        facets,
        verdicts: words,
        first: "prompts",
    }
}

/// The first score of an explanation with its verdict, whose words are noted.
fn score(f: &Feature, words: &mut Vec<Verdict>) -> (Cell, Judged) {
    let Some(first) = first_score(f) else {
        return (Cell::Number(String::new(), None), Judged::Unknown);
    };
    let judged = of_evaluation(first);
    let verdict = Verdict {
        class: judged.verdict.class(),
        mark: judged.verdict.mark(),
        words: format!("{}: {}", first.method, judged.words),
    };
    let known = words.iter().position(|known| *known == verdict).unwrap_or_else(|| {
        words.push(verdict);
        words.len() - 1
    });
    let value = first.score.map_or_else(|| ABSENT.into(), |value| fixed(value, 2));
    (Cell::Score(value, first.score, known), judged.verdict)
}

pub(super) fn components<'a>(site: &Site<'a>) -> List {
    let (atlas, links) = (site.atlas, site.in_folder());
    let classes: BTreeSet<&str> = atlas
        .components
        .iter()
        .flat_map(|c| c.classes.iter().filter_map(|class| class.class.as_deref()))
        .collect();
    let mut tasks = facets::tasks(links);
    let mut layers = facets::layers(links);
    let mut kinds = facets::labelled("kind", "kind", ["head", "MLP"], links);
    let names = classes.iter().map(|name| (*name, name.to_string(), None));
    let mut published = Maker::new("published", "published as", names.collect::<Vec<_>>(), links);
    let mut row = |(i, c): (usize, &'a ComponentPage)| {
        let in_tasks = tasks.give(i, c.tasks.iter().map(|(task, _)| task.clone()));
        layers.give(i, [c.component.layer()]);
        kinds.give(i, [usize::from(c.component.head().is_none())]);
        let as_what =
            published.give(i, c.classes.iter().filter_map(|class| class.class.as_deref()));
        let features: BTreeSet<_> = c.features.iter().map(|s| s.feature).collect();
        let most = c.tasks.iter().map(|(_, share)| *share).fold(0.0, f64::max);
        let mut cells = vec![
            Cell::Number(percent(most), Some(most)),
            Cell::Number(features.len().to_string(), Some(features.len() as f64)),
            first(in_tasks),
        ];
        cells.extend((!classes.is_empty()).then(|| first(as_what)));
        Row {
            link: links.component(c.component),
            path: format!("components/{}.html", c.component),
            gist: c.explanation.as_ref().map(gist_of).unwrap_or_default(),
            cells,
        }
    };
    let rows = atlas.components.iter().enumerate().map(&mut row).collect();
    let mut columns = vec![
        number(
            "share",
            "share of prompts",
            "share of a task's prompts whose circuit contains the component, for the task where this is \
             highest",
        ),
        number("features", "features", "features that circuits use at the component"),
        of_facet("tasks", "tasks", "tasks in whose circuits the component is", 0),
    ];
    let mut facets = vec![tasks.done(), layers.done(), kinds.done()];
    if !classes.is_empty() {
        let title = "what others who published a circuit call the component";
        columns.push(of_facet("published", "published as", title, facets.len()));
        facets.push(published.done());
    }
    List {
        name: "components",
        noun: "component",
        columns,
        rows,
        facets,
        verdicts: Vec::new(),
        first: "",
    }
}

pub(super) fn pairs(site: &Site) -> List {
    let (atlas, links) = (site.atlas, site.in_folder());
    let mut tasks = facets::tasks(links);
    let mut layers = facets::layers(links);
    let labels = ["two attention features", "attention and MLP", "two MLP features"];
    let mut kinds = facets::labelled("kind", "kind", labels, links);
    let mut row = |(i, p): (usize, &Pair)| {
        let in_tasks = tasks.give(i, p.circuit.iter().map(|(task, _)| task.clone()));
        let both = [p.a, p.b].map(|f| f.dictionary);
        layers.give(i, both.map(|d| d.layer));
        kinds.give(i, [both.iter().map(|d| kind_word(d.kind)).sum()]);
        let prompts = p.circuit.iter().map(|(_, c)| c.prompts).max().unwrap_or(0);
        // At the two components where it is largest.
        let share = p.circuit.iter().map(|(_, c)| c.share).fold(0.0, f64::max);
        let npmi = p.corpus.iter().find(|c| c.lag == Lag::Same).map(|c| c.npmi);
        Row {
            link: links.pair(&format!("{} + {}", p.a, p.b), p.a, p.b),
            path: pair_path(p.a, p.b),
            gist: p.explanation.as_ref().map(gist_of).unwrap_or_default(),
            cells: vec![
                Cell::Number(prompts.to_string(), Some(f64::from(prompts))),
                Cell::Number(significant(share, 3), Some(share)),
                Cell::Number(npmi.map_or_else(|| ABSENT.into(), |npmi| fixed(npmi, 2)), npmi),
                first(in_tasks),
            ],
        }
    };
    let rows = atlas.pairs.iter().enumerate().map(&mut row).collect();
    let columns = vec![
        number(
            "prompts",
            "prompts",
            "prompts whose circuit contains both features, for the task and components where this is \
             highest",
        ),
        number(
            "share",
            "share",
            "share of the direct links between the two, summed over prompts, at the components where it \
             is largest",
        ),
        number(
            "npmi",
            "NPMI",
            "normalised pointwise mutual information in the corpus, at the same token",
        ),
        of_facet("tasks", "tasks", "tasks in whose circuits the pair is", 0),
    ];
    let facets = vec![tasks.done(), layers.done(), kinds.done()];
    List {
        name: "pairs",
        noun: "pair",
        columns,
        rows,
        facets,
        verdicts: Vec::new(),
        first: "share",
    }
}
