//! What several pages have in common: the frame, explanations, promoted tokens, examples.

use crate::atlas::model::{CircuitPair, CorpusPair, Example, Explanation, PromotedToken, Serving};
use crate::format::heat::heat;
use crate::format::number::{count, fixed, percent, significant};
use crate::format::text::plain;
use crate::ids::{Band, FeatureId, Lag};
use crate::site::links::{Links, PageLink, gist_of, json_path};
use crate::site::social;
use crate::site::text::{self, Html};
use crate::stats::STANDS_OUT;
use serde::Serialize;

/// The frame of every page.
#[derive(Serialize)]
pub(super) struct Page {
    pub title: String,
    /// The title behind what kind of thing it is, for a window's frame: `Feature att3.51`.
    pub window: String,
    pub description: String,
    pub site: String,
    pub version: String,
    pub when: String,
    /// From the page to the site's folder.
    pub root: Html,
    /// There is no other file: it has its styles in it, and links to none.
    pub alone: bool,
    /// It is served at any address: it has its styles in it, and no script.
    pub inline: bool,
    /// Which entry of the navigation is current.
    pub section: &'static str,
    /// The way here from the front page, without the page itself.
    pub crumbs: Vec<PageLink>,
    /// The page's own address, if the site has one.
    pub url: Option<String>,
    pub has_graphs: bool,
    /// The address of its picture on social cards, if it has an address itself.
    pub card: Option<String>,
    pub has_pairs: bool,
    pub has_groups: bool,
    /// Whether there are tables.
    pub has_data: bool,
    /// The same as a JSON document, if there is one.
    pub json: Option<Html>,
}

impl Page {
    /// `path` is the page's file in the site's folder.
    pub(super) fn new(
        links: Links,
        section: &'static str,
        path: &str,
        title: String,
        description: String,
    ) -> Page {
        let atlas = links.site.atlas;
        let crumbs = match section {
            "overview" | "glossary" | "search" | "changes" | "how-to-read" | "card" | "missing" => {
                vec![]
            }
            "groups" => vec![links.page(section, &format!("index.html#{section}"))],
            _ if path.ends_with("/index.html") => vec![],
            _ => vec![links.page(section, &format!("{section}/index.html"))],
        };
        let kind = match section {
            _ if path == "index.html"
                || path.ends_with("/index.html")
                || path.starts_with("lists/") =>
            {
                ""
            }
            "tasks" => "Task ",
            "components" => "Component ",
            "features" => "Feature ",
            "pairs" => "Pair ",
            "groups" => "Group ",
            _ => "",
        };
        let base = atlas.base_url.trim_end_matches('/');
        let address = |path: &str| (!base.is_empty()).then(|| format!("{base}/{path}"));
        Page {
            window: format!("{kind}{title}"),
            title,
            description: plain(&description, 200),
            site: atlas.title.clone(),
            version: atlas.version.clone(),
            when: atlas.when.clone(),
            root: links.href(""),
            alone: links.site.alone,
            inline: false,
            section,
            crumbs,
            url: address(path),
            card: address(&social::path(path)),
            has_graphs: atlas
                .tasks
                .iter()
                .any(|task| task.prompts.iter().any(|prompt| prompt.graph.is_some())),
            has_pairs: !atlas.pairs.is_empty(),
            has_groups: !atlas.groups.is_empty(),
            has_data: atlas.data.is_some(),
            json: (atlas.data.is_some() && has_json(section, path))
                .then(|| links.href(&json_path(path))),
        }
    }
}

/// Whether a page is of one subject.
fn has_json(section: &str, path: &str) -> bool {
    ["tasks", "components", "features", "pairs", "groups"].contains(&section)
        && path.starts_with(&format!("{section}/"))
        && !path.ends_with("/index.html")
}

/// Characters of an explanation in a table.
const GIST: usize = 190;
/// The same where two stand side by side.
const SHORT: usize = 120;
/// Pieces on either side of the peak, in bands below the top.
const NARROW: usize = 10;

/// A few words on a feature.
pub(super) fn gist(links: Links, id: FeatureId) -> Html {
    text::prose(&links.site.gist(id), GIST)
}

/// A few words from an explanation of several features.
pub(super) fn gist_among(explanation: Option<&Explanation>) -> Html {
    text::prose(&explanation.map(gist_of).unwrap_or_default(), GIST)
}

/// For a page's description: the explanation, or else what the page is.
pub(super) fn describe(explanation: Option<&Explanation>, otherwise: String) -> String {
    explanation.map(gist_of).filter(|text| !text.is_empty()).unwrap_or(otherwise)
}

/// A promoted or suppressed token.
#[derive(Serialize)]
pub(super) struct TokenRow {
    pub token: Html,
    pub logit: String,
    pub at_strength: String,
    /// Length of its bar in percent of the longest.
    pub width: String,
    /// Random directions promote tokens as much.
    pub noise: bool,
}

/// Both ends of the vocabulary.
#[derive(Serialize)]
pub(super) struct LogitsView {
    pub promoted: Vec<TokenRow>,
    pub suppressed: Vec<TokenRow>,
    /// The feature's maximum activation, at which the logits of the second column are; empty for
    /// sets of features, which have none.
    pub strength: String,
    /// Whether some of them are noise, and whether all are.
    pub some_noise: bool,
    pub all_noise: bool,
}

impl LogitsView {
    /// Of several features, whose sum has no activation of its own.
    pub(super) fn of(promoted: &[PromotedToken], suppressed: &[PromotedToken]) -> LogitsView {
        LogitsView::at_max(promoted, suppressed, 0.0)
    }

    /// Of a feature with its maximum activation; 0 where it is never active.
    pub(super) fn at_max(
        promoted: &[PromotedToken],
        suppressed: &[PromotedToken],
        max: f32,
    ) -> LogitsView {
        let all = || promoted.iter().chain(suppressed);
        let longest = all().map(|p| p.logit.abs()).fold(0.0, f32::max);
        let row = |p: &PromotedToken| TokenRow {
            token: text::token(&p.text),
            logit: fixed(p.logit, 2),
            at_strength: fixed(f64::from(p.logit) * f64::from(max), 1),
            noise: p.z <= STANDS_OUT,
            width: format!(
                "{:.0}",
                if longest > 0.0 { p.logit.abs() / longest * 100.0 } else { 0.0 }
            ),
        };
        LogitsView {
            promoted: promoted.iter().map(row).collect(),
            suppressed: suppressed.iter().map(row).collect(),
            strength: if max > 0.0 { significant(max, 3) } else { String::new() },
            some_noise: all().any(|p| p.z <= STANDS_OUT),
            all_noise: all().all(|p| p.z <= STANDS_OUT),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ExampleView {
    pub text: Html,
    pub value: String,
    pub heat: usize,
    pub document: u32,
    pub context: u32,
    pub half: String,
    /// Position of the peak in the context.
    pub position: u32,
    /// The page can show the whole context.
    pub whole: bool,
}

/// Examples of one band of strength.
#[derive(Serialize)]
pub(super) struct BandView {
    pub id: String,
    pub label: String,
    pub examples: Vec<ExampleView>,
}

/// The hottest value of a set of examples, for subjects without a maximum of their own.
pub(super) fn hottest(examples: &[Example]) -> f32 {
    let pieces = examples.iter().flat_map(|e| &e.pieces).map(|p| p.value);
    pieces.chain(examples.iter().map(|e| e.value)).fold(0.0, f32::max)
}

pub(super) fn example(e: &Example, max: f32) -> ExampleView {
    ExampleView {
        text: text::example(e, max),
        value: significant(e.value, 3),
        heat: heat(e.value, max),
        document: e.document,
        context: e.context,
        half: e.half.to_string(),
        position: e.position,
        whole: false,
    }
}

/// Examples under their bands, in the order in which the bands first come; a page with their texts
/// and activations can show whole contexts.
pub(super) fn bands(examples: &[Example], max: f32) -> Vec<BandView> {
    let mut bands: Vec<BandView> = Vec::new();
    for e in examples {
        let i = bands.iter().position(|b| b.id == e.band.to_string()).unwrap_or_else(|| {
            bands.push(BandView {
                id: e.band.to_string(),
                label: band_label(e.band),
                examples: Vec::new(),
            });
            bands.len() - 1
        });
        let shown = if e.band == Band::Top { e.clone() } else { e.narrowed(NARROW) };
        let whole = shown.is_cut() && e.is_whole_known();
        bands[i].examples.push(ExampleView { whole, ..example(&shown, max) });
    }
    bands
}

pub(super) fn band_label(band: Band) -> String {
    match band {
        Band::Tenth(n) => format!("{}–{}%", n * 10, n * 10 + 10),
        other => other.to_string(),
    }
}

/// Two features that serve in the same prompts of a task.
#[derive(Serialize)]
pub(super) struct CircuitPairRow {
    pub task: PageLink,
    pub a: PageLink,
    pub gist_a: Html,
    pub at_a: PageLink,
    pub b: PageLink,
    pub gist_b: Html,
    pub at_b: PageLink,
    pub prompts: u32,
    pub share: String,
    pub pair: PageLink,
}

pub(super) fn circuit_pair(links: Links, task: &str, p: &CircuitPair) -> CircuitPairRow {
    CircuitPairRow {
        task: links.task(task),
        a: links.feature(p.a),
        gist_a: text::prose(&links.site.gist(p.a), SHORT),
        at_a: links.component(p.at_a),
        b: links.feature(p.b),
        gist_b: text::prose(&links.site.gist(p.b), SHORT),
        at_b: links.component(p.at_b),
        prompts: p.prompts,
        share: significant(p.share, 3),
        pair: links.pair("pair", p.a, p.b),
    }
}

/// The same as seen from `id`: the other one is `b`.
pub(super) fn circuit_pair_from(
    links: Links,
    id: FeatureId,
    task: &str,
    p: &CircuitPair,
) -> CircuitPairRow {
    if p.b != id || p.a == id {
        return circuit_pair(links, task, p);
    }
    let turned = CircuitPair { at_a: p.at_b, a: p.b, at_b: p.at_a, b: p.a, ..p.clone() };
    circuit_pair(links, task, &turned)
}

/// Two features that meet in the corpus.
#[derive(Serialize)]
pub(super) struct CorpusPairRow {
    pub other: PageLink,
    pub gist: Html,
    pub lag: String,
    pub together: String,
    pub expected: String,
    pub lift: String,
    pub npmi: String,
    pub jaccard: String,
    pub phi: String,
    pub q: String,
    pub pair: PageLink,
}

/// What all q-values are, where they are so small that a column of them says nothing.
pub(super) fn q_below<'a>(pairs: impl Iterator<Item = &'a CorpusPair>) -> Option<String> {
    const TINY: f64 = 1e-12;
    let largest = pairs.map(|p| p.q).reduce(f64::max)?;
    (largest < TINY).then(|| match largest {
        0.0 => "below 1e−300".into(),
        q => format!("at most {}", significant(q, 2)),
    })
}

pub(super) fn corpus_pair(links: Links, from: FeatureId, p: &CorpusPair) -> CorpusPairRow {
    let lag = match (p.lag, p.first) {
        (Lag::Same, _) => "same token".into(),
        (Lag::Window, true) => format!("after {from}"),
        (Lag::Window, false) => format!("before {from}"),
    };
    CorpusPairRow {
        other: links.feature(p.other),
        gist: text::prose(&links.site.gist(p.other), SHORT),
        lag,
        together: count(p.together),
        expected: significant(p.expected, 2),
        lift: significant(p.lift, 2),
        npmi: fixed(p.npmi, 2),
        jaccard: fixed(p.jaccard, 2),
        phi: fixed(p.phi, 2),
        // Too small for a number; nothing is certain.
        q: if p.q == 0.0 { "<\u{202f}1e−300".into() } else { significant(p.q, 2) },
        pair: links.pair("pair", from, p.other),
    }
}

/// A feature at a component of a task's circuit.
#[derive(Serialize)]
pub(super) struct ServingRow {
    pub feature: PageLink,
    pub gist: Html,
    pub task: PageLink,
    pub component: PageLink,
    pub prompts: u32,
    pub rate: String,
    /// Length of its bar in percent.
    pub width: String,
    pub share: String,
}

pub(super) fn serving(links: Links, s: &Serving) -> ServingRow {
    let rate = f64::from(s.prompts) / f64::from(s.of.max(1));
    ServingRow {
        feature: links.feature(s.feature),
        gist: gist(links, s.feature),
        task: links.task(&s.task),
        component: links.component(s.component),
        prompts: s.prompts,
        rate: percent(rate),
        width: format!("{:.0}", rate * 100.0),
        share: significant(s.share, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_told_in_shares_of_the_maximum() {
        assert_eq!(
            [Band::Top, Band::Tenth(9), Band::Tenth(0), Band::Inactive].map(band_label),
            ["top", "90–100%", "0–10%", "inactive"]
        );
    }

    #[test]
    fn logits_are_shown_at_the_maximum_of_the_feature_itself() {
        let promoted = |logit: f32| PromotedToken {
            text: "a".into(),
            logit,
            at_strength: logit * 4.0,
            z: 5.0,
        };
        let logits = LogitsView::at_max(&[promoted(2.0)], &[promoted(-1.0)], 1.25);
        assert_eq!((logits.strength.as_str(), logits.suppressed[0].width.as_str()), ("1.25", "50"));
        assert_eq!(logits.promoted[0].at_strength, "2.5");
        assert_eq!(LogitsView::of(&[promoted(2.0)], &[]).strength, "");
    }
}
