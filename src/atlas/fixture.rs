//! An atlas made up for the tests: real texts, and features that are active at words of them.

pub(crate) mod explanations;
pub(crate) mod large;

use super::model::*;
use crate::ids::{
    Band, Bias, Component, DictionaryId, FeatureId, Half, Kind, Lag, NodeKind, Slot, Status,
};
use crate::stats::agreement::Doubt;
use explanations::explained;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const LAYERS: usize = 4;
pub(crate) const HEADS: usize = 6;
const TRIGGERS: [&[&str]; 8] = [
    &["said", "asked", "called"],
    &["John", "Mary", "James", "Allison", "Ryan", "Patrick"],
    &["and", "but", "so"],
    &["gold", "coin", "horse", "rice"],
    &["the", "a", "an"],
    &["lasted", "from", "to"],
    &["Monday", "Friday", "Saturday"],
    &["."],
];

/// A number that looks drawn by lot (SplitMix64).
fn mix(a: u64, b: u64) -> u64 {
    let mut x =
        a.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(b).wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A number in [0, 1) that depends on two others.
fn unit(a: u64, b: u64) -> f64 {
    (mix(a, b) >> 11) as f64 / (1u64 << 53) as f64
}

/// Words with the space before them, punctuation apart: near enough to tokens.
pub(crate) fn pieces_of(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for c in text.chars() {
        match pieces.last_mut() {
            Some(last)
                if c.is_alphanumeric() && last.chars().all(|l| l.is_alphanumeric() || l == ' ') =>
            {
                last.push(c)
            }
            _ => pieces.push(c.into()),
        }
    }
    pieces
}

/// The first texts of the demo's corpus.
pub(crate) fn texts(n: usize) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/corpus.jsonl");
    let lines = std::fs::read_to_string(path).unwrap();
    let text = |line: &str| {
        serde_json::from_str::<BTreeMap<String, String>>(line).unwrap()["text"].clone()
    };
    lines.lines().take(n).map(text).collect()
}

pub(crate) fn feature_ids() -> Vec<FeatureId> {
    let index = |d: DictionaryId, i: usize| {
        (mix(d.layer as u64, (i + 7 * d.kind as usize) as u64) % 900) as usize
    };
    let of = |d: DictionaryId| (0..4).map(move |i| FeatureId { dictionary: d, index: index(d, i) });
    let mut ids: Vec<FeatureId> = DictionaryId::all(LAYERS).flat_map(of).collect();
    ids.sort();
    ids.dedup();
    ids
}

fn components() -> Vec<Component> {
    let in_circuit =
        |c: &Component| unit(c.layer() as u64, 40 + c.head().unwrap_or(9) as u64) < 0.72;
    Component::all(LAYERS, HEADS).filter(in_circuit).collect()
}

fn pieces(text: &str, feature: u64) -> Vec<TextPiece> {
    let triggers = TRIGGERS[(feature % 8) as usize];
    let value = |i: usize, word: &str| match triggers.contains(&word) {
        true => 2.0 + 9.0 * unit(feature, i as u64 * 31 + word.len() as u64),
        false if unit(feature + 99, i as u64 + text.len() as u64) < 0.08 => {
            unit(feature, i as u64) * 2.0
        }
        false => 0.0,
    };
    let piece = |(i, text): (usize, String)| TextPiece {
        value: value(i, text.trim()) as f32,
        text,
        special: false,
    };
    pieces_of(text).into_iter().take(120).enumerate().map(piece).collect()
}

fn example(texts: &[String], feature: u64, i: usize, band: Band) -> Example {
    let document = (mix(feature, i as u64) % texts.len() as u64) as u32;
    let mut all = pieces(&texts[document as usize], feature);
    if band == Band::Inactive {
        all.iter_mut().for_each(|p| p.value = 0.0);
    }
    let share = match band {
        Band::Tenth(n) => (f32::from(n) + 0.6) / 10.0,
        _ => 1.0,
    };
    all.iter_mut().for_each(|p| p.value *= share);
    let peak = (0..all.len()).max_by(|&a, &b| all[a].value.total_cmp(&all[b].value)).unwrap();
    let (start, end) = (peak.saturating_sub(16), (peak + 17).min(all.len()));
    let mut window = all[start..end].to_vec();
    if start == 0 {
        window.insert(0, TextPiece { text: "<|endoftext|>".into(), value: 0.0, special: true });
    }
    Example {
        band,
        half: Half::ALL[document as usize % 2],
        document,
        context: document * 2,
        start: start as u32,
        value: all[peak].value,
        peak: peak - start + usize::from(start == 0),
        pieces: window,
        more_before: start > 0,
        more_after: end < all.len(),
        position: peak as u32 + 1,
        active: (1..).zip(&all).filter(|(_, p)| p.value > 0.0).map(|(i, p)| (i, p.value)).collect(),
    }
}

/// The texts of the contexts that examples are from.
fn contexts(texts: &[String], features: &[Feature]) -> BTreeMap<u32, ContextText> {
    let token = |text: String, special: bool| ContextToken { text: text.into(), special };
    let text = |document: u32| ContextText {
        tokens: [token("<|endoftext|>".into(), true)]
            .into_iter()
            .chain(
                pieces_of(&texts[document as usize]).into_iter().take(120).map(|t| token(t, false)),
            )
            .collect(),
    };
    let examples = features.iter().flat_map(|f| &f.examples).filter(|e| e.is_whole_known());
    examples.map(|e| (e.context, text(e.document))).collect()
}

fn examples(texts: &[String], feature: u64) -> Vec<Example> {
    let mut top: Vec<Example> = (0..30).map(|i| example(texts, feature, i, Band::Top)).collect();
    top.sort_by(|a, b| b.value.total_cmp(&a.value));
    let bands = (0..10).rev().map(Band::Tenth).chain([Band::Inactive]);
    let banded = bands.flat_map(|band| (0..3).map(move |i| (band, i)));
    top.into_iter().chain(banded.map(|(band, i)| example(texts, feature, 50 + i, band))).collect()
}

fn promoted(seed: u64, sign: f64) -> Vec<PromotedToken> {
    const WORDS: [&str; 12] =
        [" Mary", " said", "\n", " ", "ing", " the", " 1880", "\"", " John", " gold", "<b", "'s"];
    let logit = |i: usize| sign * 2.4 * (1.0 - i as f64 / 24.0) * (0.7 + 0.3 * unit(seed, 5));
    let word = |i: usize| WORDS[(mix(seed, i as u64) % 12) as usize].to_string();
    (0..20)
        .map(|i| PromotedToken {
            text: word(i),
            logit: logit(i) as f32,
            at_strength: (4.0 * logit(i)) as f32,
            z: 5.0,
        })
        .collect()
}

fn circuit_pair(ids: &[FeatureId], at: &[Component], seed: u64) -> CircuitPair {
    let pick = |k: u64| ids[(mix(seed, k) % ids.len() as u64) as usize];
    let place =
        |f: FeatureId| at.iter().copied().find(|c| c.dictionary() == f.dictionary).unwrap_or(at[0]);
    let (a, b) = (pick(1), pick(2));
    CircuitPair {
        at_a: place(a),
        a,
        at_b: place(b),
        b,
        prompts: 90 - seed as u32 * 2,
        share: 12.0 * unit(seed, 3),
    }
}

fn corpus_pair(other: FeatureId, i: usize) -> CorpusPair {
    CorpusPair {
        other,
        lag: if i % 3 == 2 { Lag::Window } else { Lag::Same },
        first: i.is_multiple_of(2),
        together: 1200 - 30 * i as u64,
        expected: 13.21,
        lift: 90.8 / (i + 1) as f64,
        npmi: 0.83 - 0.02 * i as f64,
        jaccard: 0.41,
        phi: 0.57,
        q: 1.3e-12 * (i as f64).exp(),
    }
}

fn servings(task: &str, ids: &[FeatureId], c: Component) -> Vec<Serving> {
    let here = ids.iter().filter(|f| f.dictionary == c.dictionary());
    let serving = |(i, &feature): (usize, &FeatureId)| Serving {
        task: task.into(),
        component: c,
        feature,
        prompts: 80 - 17 * i as u32,
        of: 100,
        share: 3.2 / (i + 1) as f64,
    };
    here.enumerate().map(serving).collect()
}

fn feature(texts: &[String], ids: &[FeatureId], at: &[Component], i: usize) -> Feature {
    let (id, seed) = (ids[i], i as u64);
    let examples = examples(texts, seed);
    let max = examples.iter().map(|e| e.value).fold(0.0, f32::max);
    let words = TRIGGERS[i % 8];
    let served = at.iter().flat_map(|&c| servings("ioi", ids, c)).filter(|s| s.feature == id);
    let (explanation, asked) = explanations::of_feature(&id.to_string(), &words.join(", "), i);
    Feature {
        id,
        active: 3480 + mix(seed, 8) % 9000,
        density: 0.011 + 0.02 * unit(seed, 9),
        mean_active: f64::from(max) * 0.31,
        max,
        special_active: mix(seed, 3) % 40,
        histogram: (0..50)
            .map(|b| (900.0 * (-0.13 * f64::from(b)).exp() * (0.6 + unit(seed, b as u64))) as u64)
            .collect(),
        mass: words
            .iter()
            .enumerate()
            .map(|(k, w)| (format!(" {w}"), 0.4 / (k + 1) as f64))
            .collect(),
        promoted: promoted(seed, 1.0),
        suppressed: promoted(seed + 50, -0.8),
        servings: served.collect(),
        examples,
        corpus_pairs: ids
            .iter()
            .filter(|&&o| o != id)
            .take(20)
            .enumerate()
            .map(|(k, &o)| corpus_pair(o, k))
            .collect(),
        corpus_total: 4000,
        circuit_total: 9,
        circuit_pairs: (0..9)
            .map(|k| ("ioi".into(), CircuitPair { a: id, ..circuit_pair(ids, at, k + seed % 5) }))
            .collect(),
        evaluations: explanations::evaluations(
            explanation.as_ref().is_some_and(|e| !e.model.is_empty()),
            ids[(i + 5) % ids.len()],
            i,
        ),
        agreements: if i % 8 == 6 { explanations::agreements() } else { Vec::new() },
        imported: Vec::new(),
        misjudged: if i % 8 == 1 || i % 8 == 6 { explanations::misjudged() } else { Vec::new() },
        causal: (i % 8 != 4).then(|| explanations::causal(i)),
        why: why(texts, i),
        similar: (1..4)
            .map(|k| (ids[(i + k) % ids.len()], 0.9 / k as f64))
            .map(|(other, cosine)| Similar { other, cosine, z: cosine * 9.8 })
            .collect(),
        explanation,
        asked,
    }
}

/// Sources, pairs and profiles of a feature; none of every eighth.
fn why(texts: &[String], i: usize) -> Why {
    if i % 8 == 4 {
        return Why::default();
    }
    let head = Component::Head { layer: 1, head: i % 4 };
    let source = |source: Source, head: Option<Component>, share: f64| SourceShare {
        source,
        head,
        share,
        texts: 3 + (share * 20.0) as u32,
    };
    let share = |what: &str, tokens: u64, active: u64| ProfileShare {
        what: what.into(),
        tokens,
        active,
        mean: 1.2 + active as f64 / 100.0,
    };
    let pair =
        |k: usize| [Band::Top, Band::Inactive].map(|band| example(texts, i as u64, 70 + k, band));
    let before = |token: &str, distance: Option<u32>, tokens: u64, active: u64| BeforeShare {
        token: token.into(),
        distance,
        tokens,
        active,
    };
    Why {
        sources: vec![
            source(Source::Read(" said".into()), Some(head), 0.41),
            source(Source::Token("<b>\n".into()), None, 0.12),
            source(Source::Bos, Some(head), 0.06),
            source(Source::Position, None, 0.03),
        ],
        examples: 14,
        distances: vec![("the token before".into(), 0.2), ("BOS".into(), 0.06)],
        read_from: (0..2)
            .map(|k| {
                let example = example(texts, i as u64, 80 + k, Band::Top);
                let place = |piece: Option<usize>, distance| ReadPlace {
                    token: " <said>".into(),
                    distance,
                    piece,
                    heads: vec![(head, 0.3)],
                    share: 0.3,
                };
                ReadFrom { places: vec![place(Some(1), Some(2)), place(None, None)], example }
            })
            .collect(),
        pairs: (0..3).map(pair).collect(),
        tokens: vec![share(" Mary", 140, 130), share("\n", 9000, 12)],
        previous: vec![share(" and", 2310, 412)],
        next: vec![share("<b>", 31, 7)],
        text: vec![share("1", 1117, 30), share("129 and later", 6433, 5)],
        sentence: vec![share("3 to 4", 26_860, 37)],
        more: vec![before(" and", Some(2), 20, 19), before("<b>", None, 9, 9)],
        less: vec![before("\n", None, 30, 0)],
        deciding: (0..20).map(|k| before("38", Some(2), 9, 9 - k / 3)).collect(),
        own: [149, 61],
        reads: vec![(" gave".into(), 5.1)],
        earlier: vec![("mlp0.3".parse().unwrap(), 6.2)],
        raised: vec![(" she".into(), 1.4)],
        lowered: vec![("<b".into(), -0.7)],
        ablated: 8,
    }
}

fn faithfulness() -> Vec<Faithfulness> {
    let interval = |v: f64| Interval { value: Some(v), low: Some(v - 0.08), high: Some(v + 0.06) };
    let none = Interval { value: None, low: None, high: None };
    let row = |i: usize, circuit: &str, v: f64| Faithfulness {
        level: "component".into(),
        variant: format!("frequency >= {}", ["1", "0.75", "0.5", "0.25", "0.1", "0"][i]),
        circuit: circuit.into(),
        ablation: "mean".into(),
        errors: String::new(),
        size: [2, 5, 8, 12, 17, 21][i],
        metrics: BTreeMap::from([
            ("faithfulness".into(), interval(v)),
            ("completeness".into(), if i == 0 { none } else { interval(1.0 - v) }),
            ("m_full".into(), interval(3.41)),
            ("m_empty".into(), interval(0.02)),
            ("m_circuit".into(), interval(3.4 * v)),
        ]),
    };
    let found = (0..6).map(|i| row(i, "found", [0.31, 0.62, 0.8, 0.93, 1.02, 1.0][i]));
    let random = (0..6).map(|i| row(i, "random", [-0.05, 0.02, 0.11, 0.2, 0.48, 0.93][i]));
    let components: Vec<Faithfulness> = found.chain(random).collect();
    let features = components.iter().flat_map(|f| {
        ["kept", "ablated"].map(|errors| Faithfulness {
            level: "feature".into(),
            errors: errors.into(),
            size: f.size * 7,
            ..f.clone()
        })
    });
    let exact = |v: f64| Interval { value: Some(v), low: Some(v), high: Some(v) };
    let figures = |level: &str, metrics: &[(&str, f64)]| Faithfulness {
        level: level.into(),
        ablation: String::new(),
        metrics: metrics.iter().map(|(name, v)| (name.to_string(), exact(*v))).collect(),
        ..components[0].clone()
    };
    let published = figures("component", &[("precision", 0.5), ("recall", 0.04), ("auc", 0.83)]);
    let links = figures("link", &[("correlation", 0.93), ("rank_correlation", 0.88)]);
    let resampled =
        components.iter().map(|f| Faithfulness { ablation: "resample".into(), ..f.clone() });
    let other = components.iter().filter(|f| f.circuit == "found").cloned().chain(features.clone());
    let other = other
        .filter(|f| f.circuit == "found")
        .map(|f| Faithfulness { circuit: "influence".into(), ..f });
    let nodes = |circuit: &str, n: f64| Faithfulness {
        circuit: circuit.into(),
        ..figures("component", &[("nodes", n)])
    };
    let more = features.clone().chain(resampled).chain(other.clone());
    let more = more
        .chain([published, links, nodes("found", 61.2), nodes("influence", 118.0)])
        .collect::<Vec<_>>();
    components.into_iter().chain(more).collect()
}

/// Links to the answer, to a feature and to a head; the fourth of them falls short, the fifth does the
/// contrary, the sixth is hardly changed.
fn live_links(ids: &[FeatureId], at: &[Component]) -> Vec<InterventionLink> {
    let head = at.iter().find(|c| c.head().is_some()).copied();
    let link = |i: usize| {
        let feature = ids[i * 3 % ids.len()];
        let receiver_feature = (!i.is_multiple_of(3)).then(|| ids[(i * 5 + 1) % ids.len()]);
        let receiver_head = head.filter(|_| i % 3 == 2);
        let receiver = match (receiver_head, receiver_feature) {
            (Some(head), Some(feature)) => format!("{head} for {feature}"),
            (_, Some(feature)) => feature.to_string(),
            _ => "root".into(),
        };
        let predicted = unit(i as u64, 31) - 0.6;
        let measured = match i {
            3 => -0.1 * predicted,
            4 => -0.8 * predicted,
            _ => predicted * (0.7 + 0.5 * unit(i as u64, 32)),
        };
        InterventionLink {
            feature,
            receiver,
            receiver_feature,
            receiver_head,
            slot: if i % 3 == 2 { [Slot::Q, Slot::K, Slot::V][i / 3 % 3] } else { Slot::In },
            prompts: 40 - i as u32,
            share: -1.4 * predicted,
            runs: vec![(predicted, measured), (predicted * 0.9, measured * 1.1)],
            predicted,
            measured,
            root: measured * 2.0,
            doubt: match i {
                3 => Some(Doubt::Short),
                4 => Some(Doubt::Opposite),
                5 => Some(Doubt::Steady),
                _ => None,
            },
        }
    };
    (0..20).map(link).collect()
}

/// A circuit with a node of each kind: features over heads over what they read, an answer above and
/// tokens below.
fn graph(number: u32, text: &str, ids: &[FeatureId]) -> PromptGraph {
    let mut tokens: Vec<(u32, String)> =
        pieces_of(text).into_iter().zip(300..).map(|(text, id)| (id, text)).collect();
    tokens.insert(0, (0, "<|endoftext|>".into()));
    let last = tokens.len() - 1;
    let mut nodes = vec![Node::ROOT];
    let mut activations = vec![None];
    for (i, id) in ids.iter().enumerate() {
        let FeatureId { dictionary, index } = *id;
        nodes.push(Node::feature(dictionary.kind, dictionary.layer, last - i % 4, index as u32));
        activations.push(Some(0.5 + i as f32));
    }
    let bias = NodeKind::Bias(Bias::Attention);
    for kind in [NodeKind::AttentionError, NodeKind::MlpError, bias, bias] {
        nodes.push(Node::at(kind, 1, last));
    }
    let below = nodes.len();
    nodes.push(Node::embedding(NodeKind::Embedding, 2));
    nodes.push(Node::embedding(NodeKind::PositionEmbedding, 2));
    let link = |from: usize, to: usize, slot: Slot| {
        let share = unit(from as u64, to as u64 + number as u64) as f32;
        Link {
            from,
            to,
            slot,
            effect: 3.0 * share * if (from + to).is_multiple_of(3) { -1.0 } else { 1.0 },
            share,
        }
    };
    let mut links: Vec<Link> = (1..below).map(|from| link(from, 0, Slot::In)).collect();
    let served: Vec<usize> = (1..below)
        .filter(|&i| matches!(nodes[i].kind, NodeKind::AttentionFeature | NodeKind::AttentionError))
        .collect();
    for (i, to) in served.into_iter().enumerate() {
        nodes.push(nodes[to].through(i % HEADS, 1 + i % last));
        let head = nodes.len() - 1;
        links.push(link(head, to, Slot::In));
        links.extend(
            [(below, Slot::V), (below, Slot::Q), (below + 1, Slot::K)]
                .map(|(from, slot)| link(from, head, slot)),
        );
    }
    activations.resize(nodes.len(), None);
    PromptGraph {
        number,
        tokens,
        correct: 7,
        difference: number.is_multiple_of(2),
        against: Baseline::Means,
        circuit: Arc::new(Circuit { nodes, activations, links }),
    }
}

fn prompts(kind: &str, ids: &[FeatureId]) -> Vec<Prompt> {
    let names = ["John", "Mary", "James", "Allison", "Ryan", "Patrick"];
    let prompt = |i: usize| {
        let (a, b) = (names[i % 6], names[(i + 1 + i / 6) % 6]);
        let text = match kind {
            "ioi" => format!("Then {a} and {b} went to the market. {b} gave a feather to"),
            _ => format!("The flood lasted from the year 18{:02} to the year 18", 10 + i),
        };
        let correct = if kind == "ioi" { format!(" {a}") } else { format!("{}", 40 + i) };
        let answers = vec![
            (correct.clone(), 0.71),
            (format!(" {b}"), 0.12),
            (" the".into(), 0.034),
            (" her".into(), 0.0031),
        ];
        let logit_difference = 3.1 - 4.2 * unit(i as u64, 4).powi(4);
        let (template, counter) = ("ABB".into(), format!(" {b}"));
        let graph = (logit_difference > 0.0).then(|| graph(i as u32, &text, ids));
        let n = pieces_of(&text).len() + 1;
        let place = |p: usize| match p {
            _ if p + 1 == n => "last token".into(),
            2 => "right <name>".into(),
            p => format!("place {}", p % 9),
        };
        Prompt {
            places: (0..n).map(place).collect(),
            template,
            text,
            correct,
            counter,
            logit_difference,
            metric: logit_difference,
            answers,
            nodes: 61,
            edges: 143,
            coverage: 0.63,
            graph,
            right: logit_difference > 0.0,
            used: logit_difference > 0.0,
        }
    };
    (0..40).map(prompt).collect()
}

fn task(name: &str, ids: &[FeatureId], at: &[Component]) -> Task {
    let frequency = |c: Component| {
        unit(c.layer() as u64 * 20 + name.len() as u64, c.head().unwrap_or(8) as u64)
    };
    let prompts = prompts(name, ids);
    let right = prompts.iter().filter(|prompt| prompt.right).count();
    let pairs = at.iter().enumerate().flat_map(|(i, &a)| at[i + 1..].iter().map(move |&b| (a, b)));
    Task {
        name: name.into(),
        kind: name.into(),
        method: "greedy".into(),
        faithful: 0.9,
        accuracy: right as f64 / prompts.len() as f64,
        used: right as u32,
        prompts,
        coverage: 0.634,
        left_out: (name == "ioi").then_some(0.2),
        components: at
            .iter()
            .map(|&component| TaskComponent {
                component,
                frequency: frequency(component),
                features: 1 + (frequency(component) * 14.0) as u32,
                contrast: (name == "ioi").then(|| frequency(component) - 0.4),
                class: (name == "ioi" && component.layer() > 2).then(|| "name mover".into()),
            })
            .collect(),
        supporting: ids
            .iter()
            .take(6)
            .enumerate()
            .map(|(i, &id)| (id, 0.3 / (i + 1) as f64))
            .collect(),
        opposing: vec![(FeatureId::new(Kind::Attention, 0, 9999), -0.07)],
        hooks: vec![HookScore {
            dictionary: "att0".parse().unwrap(),
            supporting: 1.25,
            opposing: -0.5,
            error: 0.25,
        }],
        faithfulness: faithfulness(),
        links: live_links(ids, at),
        component_pairs: pairs
            .map(|(a, b)| (a, b, (40.0 * frequency(a) * frequency(b)) as u32))
            .collect(),
        pairs: (0..16).map(|k| circuit_pair(ids, at, k)).collect(),
    }
}

fn component(texts: &[String], ids: &[FeatureId], at: &[Component], i: usize) -> ComponentPage {
    let c = at[i];
    let others = at.iter().filter(|&&o| o != c);
    let fine = (!i.is_multiple_of(4))
        .then(|| explanations::sample("names", 0, Status::Ok, c.head().is_some()));
    ComponentPage {
        component: c,
        tasks: vec![
            ("ioi".into(), 0.1 + 0.85 * unit(i as u64, 2)),
            ("greater-than".into(), 0.5 * unit(i as u64, 6)),
        ],
        features: ["ioi", "greater-than"].iter().flat_map(|task| servings(task, ids, c)).collect(),
        promoted: promoted(i as u64 + 300, 1.0),
        suppressed: promoted(i as u64 + 400, -0.7),
        explanation: fine.clone().or_else(|| explained("names")),
        asked: fine.and_then(|fine| explanations::asked(&c.to_string(), vec![fine])),
        examples: (0..8).map(|k| example(texts, i as u64, k, Band::Top)).collect(),
        classes: vec![PublishedClass {
            task: "ioi".into(),
            published: "made up".into(),
            class: (c.layer() > 2).then(|| "name mover".into()),
        }],
        heads: c.head().map(|_| head(ids, i as u64)).into_iter().collect(),
        head_features: c.head().map(|_| head_features(ids, c)).unwrap_or_default(),
        neighbours: others
            .take(9)
            .enumerate()
            .map(|(k, &o)| ("ioi".into(), o, 80 - 5 * k as u32))
            .collect(),
    }
}

/// A head that looks from the last token at a name.
fn head(ids: &[FeatureId], seed: u64) -> Head {
    let text = [
        "<|endoftext|>",
        "Then",
        " Mary",
        " and",
        " John",
        " went",
        ".",
        " John",
        " gave",
        " it",
        " to",
    ];
    let role = |(i, text): (usize, &&str)| match i {
        0 => Role::Bos,
        2 => Role::Correct(None),
        4 => Role::Counter(Some(1)),
        7 => Role::Counter(Some(2)),
        8 => Role::Varies(text.to_string()),
        _ => Role::Same(text.to_string()),
    };
    let n = text.len();
    let attention = |(p, s): (usize, usize)| match (p, s) {
        _ if s > p => 0.0,
        (10, 2) => 0.59,
        (10, _) => 0.041,
        (p, _) => 1.0 / (p + 1) as f32,
    };
    let pattern: Vec<f32> = (0..n * n).map(|i| attention((i / n, i % n))).collect();
    let template = |name: &str| Attention {
        template: name.into(),
        prompts: 20,
        tokens: text.iter().enumerate().map(|(i, t)| (t.to_string(), role((i, t)))).collect(),
        pattern: pattern.clone(),
        moves: vec![(10, 2, 17), (10, 4, 3), (7, 4, 2)],
    };
    let contributor = |k: u64| Contributor {
        what: match k {
            3 => What::Other("embedding".into(), None),
            _ => What::Feature(ids[(mix(seed, k) % ids.len() as u64) as usize]),
        },
        prompts: 30 - k as u32,
        share: 9.0 / (k + 1) as f64,
        effect: 0.8 - unit(seed, k) * 1.2,
    };
    Head {
        task: "ioi".into(),
        prompts: 40,
        moves: vec![
            Move {
                from: role((2, &" Mary")),
                to: role((10, &" to")),
                last: true,
                prompts: 34,
                attention: Some(0.6),
            },
            Move {
                from: role((4, &" John")),
                to: role((7, &" John")),
                last: false,
                prompts: 4,
                attention: None,
            },
        ],
        habits: AttentionShares {
            to_bos: Some(0.31),
            to_correct: Some(0.6),
            direct_effect: Some(1.3),
            ..AttentionShares::default()
        },
        attention: ["ABB", "BAB"].map(template).into(),
        tokens: 40,
        copying: Copying { raised: Some(0.52), lowered: Some(0.02) },
        answers: Copying { raised: Some(0.91), lowered: Some(0.0) },
        own_rank: Some(3.4),
        copies: [" Mary", " John", " it"]
            .map(|token| CopiedToken {
                token: token.into(),
                places: 12,
                mass: 7.25,
                top: promoted(seed, 1.0).into_iter().take(10).map(|p| (p.text, p.logit)).collect(),
                own_rank: 1,
                own_rank_below: 2560,
                own_logit: 4.2,
                answer: token != " it",
            })
            .into(),
        contributors: [0, 1, 2].map(|slot| (0..5).map(|k| contributor(slot * 7 + k)).collect()),
    }
}

fn head_features(ids: &[FeatureId], c: Component) -> Vec<HeadFeature> {
    let here = ids.iter().filter(|f| f.dictionary == c.dictionary());
    let row = |(i, &feature): (usize, &FeatureId)| HeadFeature {
        feature,
        share: 0.8 / (i + 1) as f32,
        rank: 1 + 3 * i as u32,
        serves: if i == 0 { vec![("ioi".into(), 80)] } else { Vec::new() },
    };
    here.enumerate().map(row).collect()
}

/// The same without a language model.
pub(crate) fn unasked() -> Atlas {
    let mut atlas = atlas();
    for f in &mut atlas.features {
        (f.explanation, f.asked, f.causal) = (explained("a word"), None, None);
        f.agreements.clear();
        f.misjudged.clear();
        f.evaluations.retain(|e| e.method == "single-token");
    }
    for (explanation, asked) in
        atlas.components.iter_mut().map(|c| (&mut c.explanation, &mut c.asked))
    {
        (*explanation, *asked) = (explained("names"), None);
    }
    atlas.pairs.iter_mut().for_each(|p| p.asked = None);
    atlas.groups.iter_mut().for_each(|g| (g.explanation, g.asked) = (explained("speech"), None));
    atlas.usage.clear();
    atlas
}

/// Two tasks, some thirty features, everything linked.
pub(crate) fn atlas() -> Atlas {
    let (texts, ids, at) = (texts(150), feature_ids(), components());
    let tasks: Vec<Task> =
        ["ioi", "greater-than"].iter().map(|name| task(name, &ids, &at)).collect();
    let pair = |k: usize| Pair {
        a: ids[k],
        b: ids[k + 9],
        circuit: vec![(
            "ioi".into(),
            CircuitPair { a: ids[k], b: ids[k + 9], ..circuit_pair(&ids, &at, k as u64) },
        )],
        corpus: vec![
            corpus_pair(ids[k + 9], k),
            CorpusPair { lag: Lag::Window, ..corpus_pair(ids[k + 9], k + 1) },
        ],
        promoted: promoted(k as u64 + 70, 1.0),
        suppressed: promoted(k as u64 + 80, -0.9),
        examples: (0..10).map(|i| example(&texts, k as u64, i, Band::Top)).collect(),
        explanation: explained("quotations"),
        asked: explanations::asked(
            "a pair",
            vec![explanations::sample("quotations", 0, Status::Failed, false)],
        )
        .filter(|_| k > 0),
    };
    let features: Vec<Feature> = (0..ids.len()).map(|i| feature(&texts, &ids, &at, i)).collect();
    Atlas {
        title: "circuit-atlas demo".into(),
        base_url: String::new(),
        version: "0.1.0".into(),
        model: "gpt2".into(),
        halves: vec![(Half::Explain, [60, 61, 7000]), (Half::Score, [58, 60, 6900])],
        fingerprint: "0123456789abcdef0123456789abcdef".into(),
        when: "2026-01-31 04:05 UTC".into(),
        provenance: [
            ("model", "demo/model: GPT-2, 4 layers, 6 heads, width 96"),
            ("attention SAEs", "demo/attention_sae"),
            ("MLP transcoders", "demo/transcoder"),
            ("corpus", "demo/corpus.jsonl, column text, contexts of 128 tokens"),
            ("discovery", "greedy, 5 passes, logit-difference"),
            ("explanations", "none: summaries of the statistics"),
        ]
        .map(|(label, value)| (label.into(), value.into()))
        .into(),
        layers: LAYERS,
        heads: HEADS,
        width: 96,
        model_path: "demo/<model>".into(),
        corpus: "demo/corpus.jsonl".into(),
        documents: 2300,
        contexts: 3121,
        tokens: 264_210,
        components: (0..at.len()).map(|i| component(&texts, &ids, &at, i)).collect(),
        texts: contexts(&texts, &features),
        features,
        pairs: (0..6).map(pair).collect(),
        groups: vec![Group {
            name: "quotation".into(),
            features: vec![ids[0], ids[9], ids[20]],
            promoted: promoted(500, 1.0),
            suppressed: promoted(501, -1.0),
            examples: (0..6).map(|i| example(&texts, 3, i, Band::Top)).collect(),
            explanation: Some(explanations::sample("speech", 0, Status::Ok, false)),
            asked: explanations::asked(
                "quotation",
                vec![explanations::sample("speech", 0, Status::Ok, false)],
            ),
        }],
        model_fit: ModelFit {
            tokens: 4090,
            loss: 3.42,
            unigram: 7.31,
            bigram: 6.05,
            warnings: vec!["attention is of no use to the model".into()],
        },
        conformance: DictionaryId::all(LAYERS)
            .map(|dictionary| DictionaryFit {
                dictionary,
                width: 768,
                l0: 11.3 + dictionary.layer as f64,
                variance_explained: 0.913,
                dead: 14,
                loss_recovered: (dictionary.kind == Kind::Mlp).then_some(0.974),
                loss_interval: (dictionary.kind == Kind::Mlp).then_some([0.951, 0.99]),
                loss_tokens: 2032,
                loss_contexts: 16,
                tokens: 4090,
                warnings: match (dictionary.layer, dictionary.kind) {
                    (1, Kind::Mlp) => vec!["its `b_enc` is zero throughout <b>&".into()],
                    _ => Vec::new(),
                },
            })
            .collect(),
        usage: explanations::usage(),
        changes: Vec::new(),
        data: None,
        stages: [
            ("tokenize", 1.2),
            ("discover", 64.0),
            ("cache", 8.2),
            ("score", 3.4),
            ("aggregate", 5.9),
            ("interpret", 0.1),
        ]
        .map(|(name, s)| (name.into(), s))
        .into(),
        tasks,
    }
}
