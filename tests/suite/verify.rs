//! `verify` through a whole run: what is measured, that it fits together, and what is compared with
//! a published circuit.

use crate::bench::{Bench, Said};
use circuit_atlas::artifact::Store;
use circuit_atlas::artifact::tables::{
    CircuitFeature, ComponentRow, EdgeRow, EffectRow, FaithfulnessRow, HookScoreRow, NodeRow,
    RankingRow,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

fn measured(store: &Store, metric: &str) -> Vec<FaithfulnessRow> {
    let rows = store.read::<FaithfulnessRow>().unwrap().into_iter();
    rows.filter(|row| row.task == "ioi" && row.metric == metric).collect()
}

#[test]
fn circuits_are_run_at_both_levels_and_under_every_ablation() {
    let bench = Bench::finished();
    let store = bench.store();
    let settings =
        |row: &FaithfulnessRow| (row.level.clone(), row.ablation.clone(), row.errors.clone());
    let ran: BTreeSet<_> = measured(&store, "faithfulness").iter().map(settings).collect();
    let expected = ["mean", "resample", "zero"].into_iter().flat_map(|ablation| {
        [("component", ""), ("feature", "kept"), ("feature", "ablated")]
            .map(|(level, errors)| (level.to_string(), ablation.to_string(), errors.to_string()))
    });
    assert_eq!(ran, expected.collect());
    for metric in ["completeness", "m_full", "m_empty", "m_circuit", "m_complement"] {
        let of: BTreeSet<_> = measured(&store, metric).iter().map(settings).collect();
        assert_eq!(of, ran, "{metric}");
    }
}

/// A circuit of each size and random ones of that size; a ratio is that of the means beside it.
#[test]
fn random_circuits_have_the_sizes_of_found_ones_and_ratios_are_those_of_their_parts() {
    let bench = Bench::finished();
    let store = bench.store();
    let sizes = |circuit: &str| -> BTreeSet<(String, String, u32)> {
        let own = measured(&store, "faithfulness").into_iter().filter(|row| row.circuit == circuit);
        own.map(|row| (row.level, row.variant, row.size)).collect()
    };
    let large = |(_, variant, _): &(String, String, u32)| variant.ends_with("of all");
    assert_eq!(
        sizes("found").into_iter().filter(|of| !large(of)).collect::<BTreeSet<_>>(),
        sizes("random")
    );
    let mut by_circuit: BTreeMap<_, BTreeMap<String, f64>> = BTreeMap::new();
    for row in store
        .read::<FaithfulnessRow>()
        .unwrap()
        .into_iter()
        .filter(|row| row.circuit == "found" && row.stratum.is_empty())
    {
        let key = (row.task, row.level, row.ablation, row.errors, row.variant, row.size);
        by_circuit.entry(key).or_default().extend(row.value.map(|value| (row.metric, value)));
    }
    let mut checked = 0;
    for (circuit, of) in by_circuit {
        // Large circuits are run alone, for the areas.
        let Some(faithfulness) = of.get("faithfulness").filter(|_| of.contains_key("m_full"))
        else {
            continue;
        };
        let by_hand = (of["m_circuit"] - of["m_empty"]) / (of["m_full"] - of["m_empty"]);
        assert!((faithfulness - by_hand).abs() < 1e-9, "{circuit:?}: {of:?}");
        let by_hand = (of["m_complement"] - of["m_empty"]) / (of["m_full"] - of["m_empty"]);
        assert!((of["completeness"] - by_hand).abs() < 1e-9, "{circuit:?}: {of:?}");
        checked += 1;
    }
    assert!(checked >= 20, "{checked}");
}

#[test]
fn the_strongest_links_are_run_and_named() {
    let bench = Bench::finished();
    let store = bench.store();
    let (nodes, edges) = (store.read::<NodeRow>().unwrap(), store.read::<EdgeRow>().unwrap());
    let links: Vec<EffectRow> = store.read::<EffectRow>().unwrap();
    let ranks: BTreeSet<u32> =
        links.iter().filter(|row| row.task == "ioi").map(|row| row.rank).collect();
    assert_eq!(ranks, (0..6).collect(), "`verify.edges` of the settings");
    let node = |task: &str, prompt: u32, number: u32| {
        nodes
            .iter()
            .find(|row| (row.task.as_str(), row.prompt, row.node) == (task, prompt, number))
            .unwrap()
    };
    // Links are at least as strong as any that was not run: summed share over prompts, by feature,
    // receiver and slot.
    let name = |row: &NodeRow| (row.kind, row.layer, row.head, row.feature);
    let mut strength: BTreeMap<_, f64> = BTreeMap::new();
    for edge in edges.iter().filter(|edge| edge.task == "ioi") {
        let (from, to) = (node("ioi", edge.prompt, edge.from), node("ioi", edge.prompt, edge.to));
        if from.kind.word().ends_with("_feature") {
            *strength.entry((name(from), name(to), edge.slot)).or_default() +=
                f64::from(edge.share);
        }
    }
    let mut ran = BTreeSet::new();
    for link in links.iter().filter(|link| link.task == "ioi") {
        let same = |edge: &&EdgeRow| {
            (edge.task.as_str(), edge.prompt, edge.from, edge.to)
                == ("ioi", link.prompt, link.from, link.to)
        };
        let edge = edges
            .iter()
            .filter(same)
            .find(|edge| edge.slot == link.slot)
            .expect("a link of the circuit");
        assert_eq!(link.effect, edge.effect);
        assert!((link.total - edge.effect.abs() / edge.share).abs() <= 1e-5 * link.total);
        let (from, to) = (node("ioi", link.prompt, link.from), node("ioi", link.prompt, link.to));
        assert_eq!(Some(link.activation), from.activation);
        let change = (link.mean - link.activation) / link.activation;
        assert!(
            (link.predicted - link.effect * change).abs() <= 1e-4 * link.effect.abs(),
            "{link:?}"
        );
        if link.receiver == "root" {
            assert_eq!(link.measured, link.root);
        }
        ran.insert((name(from), name(to), link.slot));
    }
    let weakest = ran.iter().map(|key| strength[key]).fold(f64::INFINITY, f64::min);
    let left =
        strength.iter().filter(|(key, _)| !ran.contains(*key)).map(|(_, s)| *s).fold(0.0, f64::max);
    assert!(weakest >= left - 1e-6, "{weakest} {left}");
}

#[test]
fn found_circuits_are_held_against_a_published_one_and_another_method() {
    let bench = Bench::finished()
        .set("kind = \"ioi\"", "kind = \"ioi\"\npublished = \"own.json\"")
        .set("random = 2", "random = 2\nablations = [\"mean\"]\nmethods = [\"influence\"]");
    std::fs::write(bench.file("own.json"), r#"{"copying": ["L2H4", "L1H2"], "late": ["L3H5"]}"#)
        .unwrap();
    bench.run(&["verify"]).succeeded();
    let store = bench.store();
    let theirs = BTreeSet::from(["L2H4", "L1H2", "L3H5"]);
    let heads: BTreeMap<String, f64> = store
        .read::<ComponentRow>()
        .unwrap()
        .into_iter()
        .filter(|row| row.task == "ioi" && row.head.is_some())
        .map(|row| (row.component.to_string(), row.frequency))
        .collect();
    for (metric, of) in [("precision", None), ("recall", Some(3.0))] {
        let rows = measured(&store, metric);
        assert!(!rows.is_empty());
        for row in rows {
            let least: f64 = row.variant.strip_prefix("frequency >= ").unwrap().parse().unwrap();
            let ours: BTreeSet<&str> =
                heads.iter().filter(|(_, f)| **f >= least).map(|(c, _)| c.as_str()).collect();
            let both = ours.intersection(&theirs).count() as f64;
            let share = both / of.unwrap_or(ours.len() as f64);
            assert_eq!(row.value, (!share.is_nan()).then_some(share), "{row:?}");
        }
    }
    // Every head of the model is a pair of one that is theirs and one that is not.
    let frequency = |head: &str| heads.get(head).copied().unwrap_or(0.0);
    let all: Vec<String> = (0..4).flat_map(|l| (0..6).map(move |h| format!("L{l}H{h}"))).collect();
    let others: Vec<&str> =
        all.iter().map(String::as_str).filter(|head| !theirs.contains(head)).collect();
    let wins = theirs
        .iter()
        .flat_map(|yes| others.iter().map(|no| frequency(yes).total_cmp(&frequency(no))));
    let points: f64 = wins.map(|order| 0.5 + 0.5 * f64::from(order as i8)).sum();
    let area = measured(&store, "auc")[0].value.unwrap();
    assert!((area - points / (theirs.len() * others.len()) as f64).abs() < 1e-12, "{area}");
    let kinds: BTreeSet<String> =
        measured(&store, "faithfulness").into_iter().map(|row| row.circuit).collect();
    assert_eq!(
        kinds,
        ["all", "found", "influence", "published", "random"].map(String::from).into()
    );
    let nodes: BTreeSet<String> =
        measured(&store, "nodes").into_iter().map(|row| row.circuit).collect();
    assert_eq!(nodes, ["found", "influence"].map(String::from).into());
}

/// Circuits are measured on prompts behind those that they were found on, as many of each order of
/// names.
#[test]
fn circuits_are_measured_on_fresh_prompts_in_each_order() {
    let bench = Bench::finished()
        .set("prompts = 4\nrandom = 2", "prompts = 6\nrandom = 2\nablations = [\"zero\"]");
    bench.run(&["discover", "verify"]).succeeded();
    let more = Bench::new().set("kind = \"ioi\"\nprompts = 4", "kind = \"ioi\"\nprompts = 10");
    more.run(&["tokenize", "measure", "discover"]).succeeded();
    let prompts = more.table::<circuit_atlas::artifact::tables::PromptRow>();
    let own: Vec<f64> =
        prompts.iter().filter(|row| row.task == "ioi").map(|row| row.metric).collect();
    let mean = |of: &[usize]| of.iter().map(|&i| own[i]).sum::<f64>() / of.len() as f64;
    let full = |stratum: &str| {
        let rows = measured(&bench.store(), "m_full");
        rows.into_iter()
            .find(|row| row.task == "ioi" && row.stratum == stratum)
            .unwrap()
            .value
            .unwrap()
    };
    for (stratum, of) in
        [("", vec![4, 5, 6, 7, 8, 9]), ("ABBA", vec![4, 6, 8]), ("BABA", vec![5, 7, 9])]
    {
        assert!(
            (full(stratum) - mean(&of)).abs() < 1e-5,
            "{stratum}: {} and {}",
            full(stratum),
            mean(&of)
        );
    }
}

/// The program's own method from end to end: members are the first of the ranking, each is scored,
/// and a null task stands beside.
/// A run with circuits by the gradient and every other method, shared by the tests that look at it.
fn by_gradient() -> &'static (Bench, Said) {
    static DONE: OnceLock<(Bench, Said)> = OnceLock::new();
    DONE.get_or_init(|| {
        let methods = "random = 2\nmethods = [\"attribution-patching\", \"integrated-gradients\", \
             \"learned-masks\", \"neurons\"]";
        let bench = Bench::new()
            .set("method = \"greedy\"\npasses = 2", "prompts = 12\nchoose = 6\nmost = 30")
            .set("random = 2", methods)
            .set("[verify]\nprompts = 4", "[verify]\nprompts = 24");
        let said = bench.run(&[]).succeeded();
        (bench, said)
    })
}

#[test]
fn a_gradient_ranking_has_a_chosen_circuit_and_a_null_ranking() {
    let (bench, _) = by_gradient();
    let ranked: Vec<RankingRow> = bench.table();
    for task in ["ioi", "greater-than"] {
        let found: Vec<&RankingRow> =
            ranked.iter().filter(|row| row.task == task && row.ranking == "found").collect();
        assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
        let chosen = found.iter().filter(|row| row.chosen).count();
        assert!((10..=30).contains(&chosen), "{chosen}");
        assert!(found[..chosen].iter().all(|row| row.chosen && row.score > 0.0));
        assert!(ranked.iter().any(|row| row.task == task && row.ranking == "null"));
        let circuit = bench.table::<CircuitFeature>().into_iter().filter(|row| row.task == task);
        let scored: BTreeSet<_> = circuit.map(|row| row.feature).collect();
        assert_eq!(scored, found[..chosen].iter().map(|row| row.feature).collect());
    }
}

#[test]
fn every_method_is_measured_beside_the_found_circuit() {
    let (bench, said) = by_gradient();
    let costs = "ms of one core a prompt: ioi: attribution-patching ";
    assert!(said.err.contains(costs), "{}", said.err);
    let rows = measured(&bench.store(), "faithfulness");
    let kinds: BTreeSet<String> = rows.into_iter().map(|row| row.circuit).collect();
    let methods = [
        "all",
        "attribution-patching",
        "found",
        "integrated-gradients",
        "learned-masks",
        "neurons",
        "null",
        "random",
    ];
    assert_eq!(kinds, methods.map(String::from).into());
}

#[test]
fn areas_under_the_curves_agree_with_each_other() {
    let (bench, _) = by_gradient();
    let store = bench.store();
    let of = |kind: &str, level: &str, task: &str, metric: &str| {
        let rows = measured(&store, metric).into_iter();
        let mut own =
            rows.filter(|row| row.circuit == kind && row.level == level && row.task == task);
        own.next().and_then(|row| row.value)
    };
    for (kind, level) in
        [("found", "feature"), ("integrated-gradients", "feature"), ("neurons", "neuron")]
    {
        // On a few prompts the metric of the whole model may not be told from that of none of it,
        // or there is no circuit: then there is no area.
        let areas = ["ioi", "greater-than"].into_iter().filter_map(|task| {
            Some((of(kind, level, task, "cpr")?, of(kind, level, task, "cmd")?))
        });
        let areas: Vec<(f64, f64)> = areas.collect();
        assert!(!areas.is_empty(), "{kind} has no area");
        for (cpr, cmd) in areas {
            // Above and below 1 the curve is as far from it as the areas say together.
            assert!(cpr > 0.3 && cmd >= (1.0 - cpr).abs() - 1e-12, "{kind}: {cpr} {cmd}");
        }
    }
}

#[test]
fn links_and_hooks_of_a_gradient_run_have_finite_figures() {
    let (bench, _) = by_gradient();
    let effects: Vec<EffectRow> = bench.table();
    assert!(!effects.is_empty());
    assert!(effects.iter().all(|row| row.predicted.is_finite() && row.total > 0.0));
    let hooks: Vec<HookScoreRow> = bench.table();
    assert_eq!(hooks.len(), 16);
    assert!(hooks.iter().all(|row| row.supporting >= 0.0 && row.opposing <= 0.0));
}

#[test]
fn pages_of_a_gradient_run_show_the_chosen_circuit() {
    let (bench, _) = by_gradient();
    let page = bench.page("index.html");
    assert!(page.contains("of all features") && page.contains("<dt>Features alone "), "{page}");
    let page = bench.page("tasks/ioi.html");
    assert!(
        page.contains("Oppose the answer") && page.contains("<th scope=\"row\">neurons<"),
        "{page}"
    );
}

/// Zero in the place of the rest, neurons beside it, wrong prompts left out, and features taken out
/// of the circuit.
#[test]
fn neurons_are_not_the_first_ablation_and_pruned_circuits_are_parts_of_the_ranking() {
    let bench = Bench::new()
        .set("method = \"greedy\"\npasses = 2", "prompts = 12\nchoose = 6\nmost = 20\nprune = true")
        .set("kind = \"ioi\"\nprompts = 4", "kind = \"ioi\"\nprompts = 4\nwrong = \"leave-out\"")
        .set("random = 2", "random = 2\nablations = [\"zero\"]\nmethods = [\"neurons\"]");
    bench.run(&[]).succeeded();
    let store = bench.store();
    let ranked: Vec<RankingRow> = store.read::<RankingRow>().unwrap();
    let found: Vec<&RankingRow> =
        ranked.iter().filter(|r| r.task == "ioi" && r.ranking == "found").collect();
    let chosen = found.iter().filter(|row| row.chosen).count();
    assert!(
        (1..=20).contains(&chosen)
            && found.iter().all(|row| !row.chosen || row.rank <= 20 && row.score > 0.0)
    );
    let page = bench.page("index.html");
    assert!(page.contains("<dt>Features alone "), "{page}");
    let page = bench.page("tasks/ioi.html");
    assert!(
        !page.contains("Mean ablation of everything else"),
        "only what was asked for has a section"
    );
}
