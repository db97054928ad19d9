//! `show`: its tables, its JSON against the artifacts, and what is said to who asks for what is not
//! there.

use crate::bench::{Bench, Said};
use circuit_atlas::artifact::Row;
use circuit_atlas::artifact::tables::{
    CircuitFeature, CircuitPairRow, ContextRow, CorpusPairRow, ExampleRow, FeatureRow, NodeRow,
    ScoreRow,
};
use circuit_atlas::ids::{Band, Side};
use insta::assert_snapshot;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn show(bench: &Bench, question: &[&str]) -> Said {
    bench.call(&[&["show"], question].concat())
}

#[track_caller]
fn table(bench: &Bench, question: &[&str]) -> String {
    let said = show(bench, question).succeeded();
    assert_eq!(said.err, "");
    assert!(!said.out.contains('\u{1b}'), "colours, but not on a terminal");
    said.out
}

#[track_caller]
fn json(bench: &Bench, question: &[&str]) -> Value {
    let said = show(bench, &[question, &["--json"]].concat()).succeeded();
    serde_json::from_str(&said.out).unwrap()
}

fn features(bench: &Bench) -> BTreeMap<String, FeatureRow> {
    bench.table::<FeatureRow>().into_iter().map(|row| (row.feature.to_string(), row)).collect()
}

fn names<'a>(values: &'a Value, keys: &[&str]) -> Vec<Vec<&'a str>> {
    let row = |value: &'a Value| keys.iter().map(|key| value[key].as_str().unwrap()).collect();
    values.as_array().unwrap().iter().map(row).collect()
}

/// The feature of MLP0 in the circuits of IOI that is active most often.
fn feature_of_mlp0(bench: &Bench) -> String {
    let all = features(bench);
    let here = bench
        .table::<CircuitFeature>()
        .into_iter()
        .filter(|row| (row.task.as_str(), row.component.to_string().as_str()) == ("ioi", "MLP0"));
    let names = here.map(|row| row.feature.to_string());
    names.max_by_key(|name| (all[name].active, name.clone())).unwrap()
}

#[test]
fn every_question_has_a_table() {
    let bench = Bench::finished();
    let feature = feature_of_mlp0(&bench);
    let feature = feature.as_str();
    assert_snapshot!("feature", table(&bench, &["feature", feature]));
    assert_snapshot!("feature_bands", table(&bench, &["feature", feature, "--examples", "1"]));
    assert_snapshot!("features", table(&bench, &["features", "two", feature, "--examples", "3"]));
    assert_snapshot!("component", table(&bench, &["component", "MLP0", "--top", "4"]));
    assert_snapshot!("head", table(&bench, &["component", "L2H4", "--top", "2"]));
    assert_snapshot!("pairs", table(&bench, &["pairs", "MLP0", "L2H4", "--top", "5"]));
    assert_snapshot!(
        "pairs_of_one",
        table(&bench, &["pairs", feature, "--task", "ioi", "--top", "3"])
    );
    assert_snapshot!("tuples", table(&bench, &["tuples", "--top", "3", "--size", "3"]));
    assert_snapshot!(
        "tuples_of_components",
        table(&bench, &["tuples", "--components", "--top", "3"])
    );
    assert_snapshot!("task", table(&bench, &["task", "ioi", "--top", "5"]));
}

#[test]
fn colours_are_asked_for_or_left() {
    let bench = Bench::finished();
    let feature = feature_of_mlp0(&bench);
    let feature = feature.as_str();
    let said = show(&bench, &["feature", feature, "--color", "always"]).succeeded();
    let example = said.out.lines().find(|line| line.contains('«')).unwrap();
    assert_snapshot!("coloured_example", example.replace('\u{1b}', "ESC"));
    let plain = table(&bench, &["feature", feature, "--color", "never"]);
    let mut kept = String::new();
    for piece in said.out.split("\u{1b}[") {
        kept.push_str(if kept.is_empty() && !said.out.starts_with('\u{1b}') {
            piece
        } else {
            piece.split_once('m').map_or("", |(_, text)| text)
        });
    }
    let lines =
        |text: &str| text.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>();
    assert_eq!(lines(&kept), lines(&plain), "colours change nothing but colours");
}

#[test]
fn a_feature_is_that_of_the_tables() {
    let bench = Bench::finished();
    let feature = feature_of_mlp0(&bench);
    let feature = feature.as_str();
    let row = &features(&bench)[feature];
    let said = json(&bench, &["feature", feature, "--examples", "2"]);
    assert_eq!(said["id"], feature);
    assert_eq!((said["kind"].as_str(), said["layer"].as_u64()), (Some("mlp"), Some(0)));
    assert_eq!(
        (said["active"].as_u64(), said["density"].as_f64()),
        (Some(row.active), Some(row.density))
    );
    assert_eq!(said["max"].as_f64(), Some(f64::from(row.max)));
    let histogram: Vec<u64> = serde_json::from_value(said["histogram"].clone()).unwrap();
    assert_eq!(histogram, row.histogram);
    let mut bands: BTreeMap<&str, usize> = BTreeMap::new();
    names(&said["examples"], &["band"])
        .iter()
        .for_each(|band| *bands.entry(band[0]).or_default() += 1);
    assert!(bands.len() > 5 && bands.values().all(|n| *n <= 2), "{bands:?}");
    assert_eq!(bands["top"], 2);
}

#[test]
fn a_band_is_not_shown_by_its_strongest_examples() {
    let bench = Bench::finished();
    let mut rows: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for row in
        bench.table::<ExampleRow>().into_iter().filter(|row| matches!(row.band, Band::Tenth(_)))
    {
        rows.entry((row.subject.to_string(), row.band.to_string()))
            .or_default()
            .push(f64::from(row.value));
    }
    let (mut strongest, mut all, mut mixed) = (0, 0, 0);
    for name in features(&bench).keys().take(12) {
        let said = json(&bench, &["feature", name, "--examples", "1"]);
        let halves = names(&said["examples"], &["half", "band"])
            .into_iter()
            .filter(|row| row[1].starts_with('q'));
        mixed += usize::from(halves.map(|row| row[0]).collect::<BTreeSet<_>>().len() == 2);
        for example in said["examples"].as_array().unwrap() {
            let band = example["band"].as_str().unwrap().to_string();
            // One of each half: which is the stronger one says nothing of the half.
            let Some([a, b]) = rows.get(&(name.clone(), band)).map(Vec::as_slice) else { continue };
            all += 1;
            strongest += usize::from(example["value"].as_f64() == Some(a.max(*b)));
        }
    }
    assert!(
        all > 40 && strongest * 10 > all * 3 && strongest * 10 < all * 7,
        "{strongest} of {all}"
    );
    assert!(mixed > 6, "{mixed} of 12 features have both halves among their bands");
}

/// Two features that serve in circuits and are both active at some token.
fn two_that_meet(bench: &Bench) -> [String; 2] {
    let said = json(bench, &["pairs", "MLP0", "--top", "1"]);
    ["a", "b"].map(|side| said["pairs"][0][side].as_str().unwrap().to_string())
}

/// Two features that are most often active at the same token.
fn two_of_a_token(bench: &Bench) -> [String; 2] {
    let rows = bench.table::<CorpusPairRow>().into_iter().filter(|row| row.lag.word() == "same");
    let most = rows.max_by_key(|row| row.n_ab).unwrap();
    [most.feature_a.to_string(), most.feature_b.to_string()]
}

#[test]
fn summed_examples_are_the_sums_of_the_features_own_activations() {
    let bench = Bench::finished();
    let [a, b] = two_of_a_token(&bench);
    let said = json(&bench, &["features", &a, &b, "--examples", "5"]);
    let rows = features(&bench);
    let mut share: BTreeMap<(u32, u32, u32), f64> = BTreeMap::new();
    for row in bench.table::<ScoreRow>() {
        share
            .insert((row.feature, row.context, u32::from(row.position)), f64::from(row.activation));
    }
    let own = |name: &String, context, position| {
        let row = &rows[name];
        share.get(&(row.key, context, position)).copied().unwrap_or(0.0) / f64::from(row.max)
    };
    let examples = said["examples"].as_array().unwrap();
    assert_eq!(examples.len(), 5);
    let mut meetings = 0;
    for example in examples {
        let number = |key: &str| example[key].as_u64().unwrap() as u32;
        let (context, start) = (number("context"), number("start"));
        // In the demo's text no character is shared by tokens, so that a piece is a token.
        for (position, piece) in (start..).zip(example["pieces"].as_array().unwrap()) {
            let [of_a, of_b] = [&a, &b].map(|name| own(name, context, position));
            let sum = of_a + of_b;
            meetings += usize::from(of_a > 0.0 && of_b > 0.0);
            let value = piece["value"].as_f64().unwrap();
            let wanted = if piece["special"] == true { 0.0 } else { sum };
            assert!(
                (value - wanted).abs() < 1e-6,
                "{value} is not {wanted} at {position} of context {context}"
            );
        }
    }
    assert!(meetings > 0, "they never meet");
}

#[test]
fn meetings_are_counted_over_the_corpus() {
    let bench = Bench::finished();
    let [a, b] = two_that_meet(&bench);
    let keys = [&a, &b].map(|name| features(&bench)[name].key);
    let contexts = bench.table::<ContextRow>();
    let special = contexts[0].tokens[0];
    let mut active = [BTreeSet::new(), BTreeSet::new()];
    for row in bench.table::<ScoreRow>() {
        let counts = contexts[row.context as usize].tokens[usize::from(row.position)] != special;
        for (key, own) in keys.iter().zip(&mut active) {
            own.extend((*key == row.feature && counts).then_some((row.context, row.position)));
        }
    }
    let said = json(&bench, &["features", &a, &b]);
    let same = &said["meetings"][0];
    let both = active[0].intersection(&active[1]).count();
    let counts = ["n_a", "n_b", "together"].map(|key| same[key].as_u64().unwrap() as usize);
    assert_eq!(counts, [active[0].len(), active[1].len(), both]);
    assert_eq!(said["all_active"].as_u64().unwrap() as usize, both);
}

#[test]
fn combined_logits_of_a_group_are_those_of_the_run() {
    let bench = Bench::finished();
    let said = json(&bench, &["features", "two"]);
    let rows = bench.table::<circuit_atlas::artifact::tables::LogitRow>();
    let own: Vec<_> = rows
        .iter()
        .filter(|row| row.subject.to_string() == "two" && row.side == Side::Top)
        .collect();
    let promoted = said["promoted"].as_array().unwrap();
    assert_eq!(promoted.len(), own.len());
    for (said, row) in promoted.iter().zip(own) {
        assert_eq!(said["text"], row.text);
        assert!((said["logit"].as_f64().unwrap() - f64::from(row.logit)).abs() < 1e-6);
    }
}

#[test]
fn pairs_are_the_same_either_way_and_all_there() {
    let bench = Bench::finished();
    let [one, other] = [["MLP0", "L2H4"], ["L2H4", "MLP0"]]
        .map(|[a, b]| json(&bench, &["pairs", a, b, "--top", "999"]));
    assert_eq!(one, other);
    let rows = bench.table::<CircuitPairRow>();
    let key = |row: &CircuitPairRow| (row.component_a.to_string(), row.component_b.to_string());
    let own = rows.iter().filter(|row| key(row) == ("MLP0".into(), "L2H4".into()));
    let mut own: Vec<_> = own
        .map(|row| vec![row.task.clone(), row.feature_a.to_string(), row.feature_b.to_string()])
        .collect();
    let mut said = names(&one["pairs"], &["task", "a", "b"]);
    assert!(!said.is_empty());
    own.sort();
    said.sort();
    assert_eq!(said, own);
    let shares: Vec<f64> =
        one["pairs"].as_array().unwrap().iter().map(|p| p["share"].as_f64().unwrap()).collect();
    assert!(shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
}

#[test]
fn tuples_are_counted_in_the_circuits() {
    let bench = Bench::finished();
    let said = json(&bench, &["tuples", "--size", "3", "--top", "4", "--task", "ioi"]);
    let mut circuits: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for row in bench.table::<NodeRow>().iter().filter(|row| row.task == "ioi") {
        let prefix = match row.kind.word() {
            "head" => "att",
            "mlp_feature" => "mlp",
            _ => continue,
        };
        let name = row.feature.map(|feature| format!("{prefix}{}.{feature}", row.layer.unwrap()));
        circuits.entry(row.prompt).or_default().extend(name);
    }
    let tuples = said["tasks"][0]["tuples"].as_array().unwrap();
    assert_eq!((tuples.len(), said["tasks"].as_array().unwrap().len()), (4, 1));
    for tuple in tuples {
        let members: BTreeSet<String> = serde_json::from_value(tuple["members"].clone()).unwrap();
        let prompts = circuits.values().filter(|circuit| circuit.is_superset(&members)).count();
        assert_eq!((tuple["prompts"].as_u64(), members.len()), (Some(prompts as u64), 3));
    }
}

#[test]
fn json_has_the_rest_too() {
    let bench = Bench::finished();
    let task = json(&bench, &["task", "ioi"]);
    assert_eq!(
        (task["name"].as_str(), task["prompts"].as_array().unwrap().len()),
        (Some("ioi"), 4)
    );
    assert!(task["right"].as_u64().unwrap() <= 4 && task["metric"].is_number());
    let component = json(&bench, &["component", "MLP0"]);
    assert_eq!(component["component"], "MLP0");
    assert!(component["tasks"][0]["features"][0]["explanation"].is_string());
    assert!(!component["examples"].as_array().unwrap().is_empty());
}

#[test]
fn who_asks_for_what_is_not_there_is_told_what_is() {
    let bench = Bench::finished();
    let refused = |question: &[&str]| show(&bench, question).failed().error().to_string();
    assert_snapshot!("not_scored", refused(&["feature", "att1.4"]));
    assert_snapshot!("no_feature", refused(&["feature", "MLP0"]));
    assert_snapshot!("neither_feature_nor_group", refused(&["features", "att1.3", "three"]));
    assert_snapshot!("one_not_scored", refused(&["features", "att1.3", "mlp7.1"]));
    // Neither such a layer nor such a head, alone or in a pair.
    let all = "its heads are `L0H0` to `L3H5`, its MLPs `MLP0` to `MLP3`";
    for name in ["L99H9", "L4H0", "L0H6", "MLP4"] {
        for question in [&["component", name][..], &["pairs", name], &["pairs", "MLP0", name]] {
            let what = format!("there is no component `{name}`: the model has 4 layers of 6 heads");
            assert_eq!(refused(question), format!("error: {what}\nhint: {all}\n"));
        }
    }
    assert_snapshot!("component_in_no_circuit", refused(&["component", "L0H1"]));
    assert_snapshot!("no_component", refused(&["component", "mlp0"]));
    let hinted = |question: &[&str], what: &str, hint: &str| {
        let said = refused(question);
        assert_eq!(said, format!("error: {what}\nhint: {hint}\n"));
    };
    let none = "is not a component (such as `L9H9` or `MLP3`)";
    let meant = "did you mean `L2H4`?";
    hinted(&["component", "l2h4"], &format!("`l2h4` {none}"), meant);
    let feature = "it is a feature: `circuit-atlas show feature att1.3`";
    hinted(&["component", "att1.3"], &format!("`att1.3` {none}"), feature);
    let none = "is not a feature (such as `att9.16109` or `mlp0.10173`)";
    let group = "it is a group: `circuit-atlas show features two`";
    hinted(&["feature", "two"], &format!("`two` {none}"), group);
    hinted(&["feature", "ATT1.3"], &format!("`ATT1.3` {none}"), "did you mean `att1.3`?");
    hinted(&["pairs", "mlp0"], &format!("`mlp0` {none}"), "did you mean `MLP0`?");
    let layers = "the dictionaries are `att0` to `att3`";
    for question in [["feature", "att7.5"], ["pairs", "att7.5"]] {
        let what = "there is no feature `att7.5`: there is no dictionary `att7`";
        hinted(&question, what, layers);
    }
    let numbers = "its features are `mlp1.0` to `mlp1.4095`";
    for question in [&["feature", "mlp1.4096"][..], &["features", "att1.3", "mlp1.4096"]] {
        let what = "there is no feature `mlp1.4096`: `mlp1` has 4096 features";
        hinted(question, what, numbers);
    }
    hinted(
        &["features", "att1.3"],
        "`att1.3` is one feature; the question is about several",
        "name another one, or ask `circuit-atlas show feature att1.3`",
    );
    assert_snapshot!("serves_nowhere", refused(&["pairs", "att1.3"]));
    assert_snapshot!("no_task", refused(&["task", "iio"]));
    assert_snapshot!("no_task_of_pairs", refused(&["pairs", "MLP0", "--task", "iio"]));
    assert_snapshot!("no_run", show(&Bench::new(), &["task", "ioi"]).failed().error());
}

#[test]
fn a_run_of_other_settings_still_answers_and_says_so() {
    let bench = Bench::finished().add("[score]\nextra = [\"att1.4\"]\n");
    let said = show(&bench, &["pairs", "MLP0", "--top", "1"]).succeeded();
    assert_snapshot!("outdated", said.err);
    assert!(said.out.starts_with("MLP0 · "), "{}", said.out);
    assert_snapshot!("not_scored_yet", show(&bench, &["feature", "att1.4"]).failed().error());
}

#[test]
fn a_damaged_table_is_not_believed() {
    let bench = Bench::finished();
    let other = Bench::finished();
    let nodes = NodeRow::ARTIFACT.relative();
    let rows = bench.table::<NodeRow>();
    other.store().write("another", &rows).unwrap();
    std::fs::copy(other.file("artifacts").join(&nodes), bench.file("artifacts").join(&nodes))
        .unwrap();
    let said = show(&bench, &["tuples"]).failed();
    assert!(said.error().contains("is from another run"), "{}", said.error());
}

#[test]
fn a_reader_may_stop_early() {
    let bench = Bench::finished();
    let line = format!(
        "{} show task ioi --json --config {} | head -n 1",
        env!("CARGO_BIN_EXE_circuit-atlas"),
        bench.file("pipeline.toml").display()
    );
    let said = bench.said(Command::new("sh").args(["-c", &line]).output().unwrap());
    assert_eq!((said.out.as_str(), said.err.as_str()), ("{\n", ""));
}
