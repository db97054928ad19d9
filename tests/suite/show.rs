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
    assert_snapshot!("prompt", table(&bench, &["prompt", "ioi", "2", "--top", "6"]));
    let unscored = unscored(&bench);
    assert_snapshot!("unscored", table(&bench, &["feature", &unscored]));
    let few = table(&bench, &["feature", &unscored, "--contexts", "40"]);
    assert_snapshot!("unscored_sample", few.lines().take(3).collect::<Vec<_>>().join("\n"));
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
    assert_eq!(said["max"].as_f64().map(|x| x as f32), Some(row.max));
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
    let mut rows: BTreeMap<(String, String), Vec<f32>> = BTreeMap::new();
    for row in
        bench.table::<ExampleRow>().into_iter().filter(|row| matches!(row.band, Band::Tenth(_)))
    {
        rows.entry((row.subject.to_string(), row.band.to_string())).or_default().push(row.value);
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
            strongest +=
                usize::from(example["value"].as_f64().map(|x| x as f32) == Some(a.max(*b)));
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
        let values = example["pieces"]["value"].as_array().unwrap();
        let special = example["pieces"]["special"].as_array();
        let is_special = |at: usize| special.is_some_and(|places| places.contains(&at.into()));
        for (at, value) in values.iter().enumerate() {
            let position = start + at as u32;
            let [of_a, of_b] = [&a, &b].map(|name| own(name, context, position));
            let sum = of_a + of_b;
            meetings += usize::from(of_a > 0.0 && of_b > 0.0);
            let value = value.as_f64().unwrap();
            let wanted = if is_special(at) { 0.0 } else { sum };
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
    assert_snapshot!("not_scored", refused(&["features", "att1.3", "att1.4"]));
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
    hinted(&["prompt", "ioi", "4"], "there is no prompt 4 of `ioi`", "its prompts are 0 to 3");
    assert_eq!(refused(&["prompt", "iio", "0"]), refused(&["task", "iio"]));
    hinted(
        &["feature", "att1.3", "--contexts", "9"],
        "`att1.3` was scored: its numbers are of the whole corpus",
        "leave out `--contexts`",
    );
    assert_snapshot!("no_task_of_pairs", refused(&["pairs", "MLP0", "--task", "iio"]));
    assert_snapshot!("no_run", show(&Bench::new(), &["task", "ioi"]).failed().error());
}

#[test]
fn a_run_of_other_settings_still_answers_and_says_so() {
    let bench = Bench::finished().add("[score]\nextra = [\"att1.4\"]\n");
    let said = show(&bench, &["pairs", "MLP0", "--top", "1"]).succeeded();
    assert_snapshot!("outdated", said.err);
    assert!(said.out.starts_with("MLP0 · "), "{}", said.out);
    assert_snapshot!(
        "not_scored_yet",
        show(&bench, &["features", "att1.3", "att1.4"]).failed().error()
    );
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

/// The first feature of a dictionary that was not scored and is active in some contexts.
fn unscored(bench: &Bench) -> String {
    let scored = features(bench);
    let names =
        (0..).map(|index| format!("att1.{index}")).filter(|name| !scored.contains_key(name));
    let active = |name: &String| {
        json(bench, &["feature", name, "--contexts", "96"])["active"].as_u64().unwrap() > 20
    };
    names.take(400).find(active).unwrap()
}

/// Compares what is the same of a feature however it was measured.
#[track_caller]
fn assert_same_feature(own: &Value, other: &Value) {
    let keys = [
        "id",
        "active",
        "density",
        "mean_active",
        "max",
        "special_active",
        "histogram",
        "mass",
        "promoted",
        "suppressed",
        "examples",
        "explanation",
        "strength",
    ];
    for key in keys {
        match (own[key].as_array(), other[key].as_array()) {
            (Some(own), Some(other)) => {
                for (i, (own, other)) in own.iter().zip(other).enumerate() {
                    assert_eq!(own, other, "{key} {i}");
                }
                assert_eq!(own.len(), other.len(), "{key}");
            }
            _ => assert_eq!(own[key], other[key], "{key}"),
        }
    }
}

#[test]
fn what_was_not_kept_is_computed_as_a_run_would() {
    let bench = Bench::finished();
    let (feature, scored) = (unscored(&bench), feature_of_mlp0(&bench));
    // A run that scores the feature, and keeps more of everything.
    let other = Bench::finished()
        .set("examples = 4\nband_examples = 1", "examples = 6\nband_examples = 6")
        .add(&format!("[score]\nextra = [\"{feature}\"]\n[logits]\nk = 30\n"));
    other.run(&["--from", "cache"]).succeeded();
    let more = ["--k", "30", "--examples", "6"];
    let of = |bench: &Bench, question: &[&str]| json(bench, &[question, &more].concat());
    let own = of(&bench, &["feature", &feature, "--contexts", "96"]);
    let others = of(&other, &["feature", &feature]);
    assert_same_feature(&own, &others);
    assert_eq!(own["promoted"].as_array().unwrap().len(), 30);
    assert_eq!(own["measured"]["contexts"], 96);
    assert!(others.get("measured").is_none());
    let [own, others] = [&bench, &other].map(|bench| of(bench, &["feature", &scored]));
    assert_same_feature(&own, &others);
    let [own, others] = [&bench, &other].map(|bench| of(bench, &["component", "L2H4"]));
    for key in ["promoted", "suppressed", "examples"] {
        assert_eq!(own[key], others[key], "{key}");
    }
    assert_eq!(own["examples"].as_array().unwrap().len(), 6);
}

#[test]
fn a_sample_is_spread_over_the_corpus_and_the_same_each_time() {
    let bench = Bench::finished();
    let feature = unscored(&bench);
    let question = ["feature", &feature, "--contexts", "24", "--examples", "24", "--json"];
    let first = show(&bench, &question).succeeded().out;
    let said: Value = serde_json::from_str(&first).unwrap();
    let contexts = bench.table::<ContextRow>();
    let special = contexts[0].tokens[0];
    assert_eq!((&said["measured"]["contexts"], &said["measured"]["of"]), (&24.into(), &96.into()));
    let tokens = said["measured"]["tokens"].as_u64().unwrap();
    assert_eq!(said["density"].as_f64(), Some(said["active"].as_f64().unwrap() / tokens as f64));
    // One of each four, so that all tokens of the examples are among those of the sample.
    let drawn: BTreeSet<u64> = said["examples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|example| example["context"].as_u64().unwrap())
        .collect();
    let stretches: BTreeSet<u64> = drawn.iter().map(|context| context / 4).collect();
    assert!(drawn.len() > 8 && stretches.len() == drawn.len(), "{drawn:?}");
    let counting = |context: &ContextRow| {
        context.tokens[1..].iter().filter(|id| **id != special).count() as u64
    };
    assert!(tokens < contexts.iter().map(counting).sum());

    // Kept: it is read the second time, and gone when cleaned.
    let kept = |name: &str| {
        let files = std::fs::read_dir(bench.file("artifacts").join(name)).into_iter().flatten();
        files
            .map(|file| {
                (
                    file.as_ref().unwrap().path(),
                    file.unwrap().metadata().unwrap().modified().unwrap(),
                )
            })
            .collect::<BTreeMap<_, _>>()
    };
    let before = ["asked_scores", "asked_logits"].map(kept);
    assert!(before.iter().all(|files| !files.is_empty()));
    assert_eq!(show(&bench, &question).succeeded().out, first);
    assert_eq!(["asked_scores", "asked_logits"].map(kept), before);
    for files in &before {
        let damaged = files.keys().next_back().unwrap();
        let mut bytes = std::fs::read(damaged).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(damaged, bytes).unwrap();
    }
    assert_eq!(show(&bench, &question).succeeded().out, first, "measured again");
    bench.call(&["clean", "discover"]).succeeded();
    assert!(kept("asked_logits").keys().eq(before[1].keys()));
    bench.call(&["clean"]).succeeded();
    assert!(["asked_scores", "asked_logits"].map(kept).iter().all(BTreeMap::is_empty));
}

#[test]
fn the_disk_cache_and_the_model_give_the_same_and_a_damaged_cache_is_told() {
    let bench = Bench::finished();
    let feature = unscored(&bench);
    let question = ["feature", &feature, "--contexts", "60", "--json"];
    let cached = show(&bench, &question).succeeded().out;
    let part = bench.file("artifacts/activations/part-00001.parquet");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, &bytes).unwrap();
    // What was kept is not measured again.
    assert_eq!(show(&bench, &question).succeeded().out, cached);
    let forget = || {
        ["asked_scores", "asked_logits"]
            .map(|name| std::fs::remove_dir_all(bench.file("artifacts").join(name)).unwrap())
    };
    forget();
    let said = show(&bench, &question).failed();
    assert!(said.error().contains("part-00001.parquet` is damaged"), "{}", said.error());
    std::fs::remove_file(&part).unwrap();
    assert_eq!(show(&bench, &question).succeeded().out, cached);
}

#[test]
fn nothing_is_measured_with_another_model_than_that_of_the_run() {
    let bench = Bench::finished();
    let feature = unscored(&bench);
    crate::bench::copy(
        &std::path::Path::new(crate::bench::REPOSITORY).join("demo/model"),
        &bench.file("model"),
    );
    let bench = bench.set("[repo]/demo/model", "model");
    let config = bench.file("model/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    show(&bench, &["feature", &feature]).succeeded();
    std::fs::write(&config, text + "\n").unwrap();
    for question in
        [&["feature", &feature][..], &["features", "two"], &["feature", "att1.3", "--k", "40"]]
    {
        let said = show(&bench, question).failed();
        assert_eq!(
            said.error(),
            "error: `model/config.json` has changed since the run, so that nothing can be added to \
             its results\nhint: bring them up to date with `circuit-atlas run`\n"
        );
    }
    // What the tables hold is shown as ever.
    show(&bench, &["feature", "att1.3", "--k", "5", "--strength", "2"]).succeeded();
}

#[test]
fn logits_are_linear_and_lists_begin_alike() {
    let bench = Bench::finished();
    let scored = feature_of_mlp0(&bench);
    let unscored = unscored(&bench);
    for question in [
        &["feature", &scored][..],
        &["feature", &unscored],
        &["features", "two"],
        &["component", "L2H4"],
    ] {
        let of = |more: &[&str]| json(&bench, &[question, more].concat());
        let default = of(&[]);
        // A feature's own maximum; a set has none.
        let strength = default["strength"].as_f64().unwrap();
        let own = if question[0] == "feature" { default["max"].as_f64().unwrap() } else { 4.0 };
        assert_eq!(strength, own);
        let twice = of(&["--strength", &(2.0 * strength).to_string()]);
        let negative = of(&["--strength", &(-strength).to_string(), "--k", "3"]);
        let many = of(&["--k", "35"]);
        for side in ["promoted", "suppressed"] {
            let list = |said: &Value| said[side].as_array().unwrap().clone();
            let (own, twice, few, many) =
                (list(&default), list(&twice), list(&negative), list(&many));
            assert_eq!([own.len(), twice.len(), few.len(), many.len()], [20, 20, 3, 35]);
            assert_eq!(own[..], many[..20]);
            for (i, token) in own.iter().enumerate() {
                let at = |token: &Value| token["at_strength"].as_f64().unwrap();
                let logit = token["logit"].as_f64().unwrap();
                assert!((at(token) - strength * logit).abs() < 1e-6 * (strength * logit).abs());
                // As numbers that are f32 come out of JSON.
                let same = |a: f64, b: f64| (a - b).abs() < 2e-7 * a.abs();
                assert!(same(at(&twice[i]), 2.0 * at(token)));
                assert!(few.get(i).is_none_or(|few| same(at(few), -at(token))));
            }
            let logits = many.iter().map(|token| token["logit"].as_f64().unwrap().abs());
            assert!(logits.is_sorted_by(|a, b| a >= b));
        }
    }
    let said = show(&bench, &["feature", &scored, "--strength", "much"]).failed();
    assert!(said.err.contains("not a number"), "{}", said.err);
    let rows = table(&bench, &["feature", &scored, "--k", "14"]);
    let list = rows.lines().skip_while(|line| !line.starts_with("promoted  ")).skip(1);
    assert_eq!(list.take_while(|line| !line.is_empty()).count(), 14);
}

#[test]
fn a_prompt_is_that_of_the_tables() {
    let bench = Bench::finished();
    let said = json(&bench, &["prompt", "ioi", "2", "--top", "999"]);
    let nodes: Vec<NodeRow> = bench
        .table::<NodeRow>()
        .into_iter()
        .filter(|row| (row.task.as_str(), row.prompt) == ("ioi", 2))
        .collect();
    let all = said["strongest_nodes"].as_array().unwrap();
    assert_eq!(all.len(), nodes.len() - 1);
    let reach: Vec<f64> = all.iter().map(|node| node["reach"].as_f64().unwrap()).collect();
    assert!(reach.is_sorted_by(|a, b| a >= b) && reach[0] > 0.0, "{reach:?}");
    let key = |kind: String, position: u64, source: Option<u64>, active: Option<f32>| {
        format!("{kind} {position} {source:?} {active:?}")
    };
    let mut own: Vec<String> = nodes
        .iter()
        .filter(|row| row.kind.to_string() != "root")
        .map(|row| {
            let source = row.source.map(u64::from);
            key(row.kind.to_string(), row.position.into(), source, row.activation)
        })
        .collect();
    let mut shown: Vec<String> = all
        .iter()
        .map(|node| {
            let kind = node["kind"].as_str().unwrap().to_string();
            let position = node["position"].as_u64().unwrap();
            let active = node["activation"].as_f64().map(|active| active as f32);
            key(kind, position, node["source"].as_u64(), active)
        })
        .collect();
    own.sort();
    shown.sort();
    assert_eq!(own, shown);
    let edges = bench
        .table::<circuit_atlas::artifact::tables::EdgeRow>()
        .into_iter()
        .filter(|row| (row.task.as_str(), row.prompt) == ("ioi", 2));
    let mut shares: Vec<f64> = edges.map(|row| f64::from(row.share)).collect();
    shares.sort_by(|a, b| b.total_cmp(a));
    let links = said["strongest_links"].as_array().unwrap();
    let shown: Vec<f64> =
        links.iter().map(|link| link["share"].as_f64().unwrap() as f32 as f64).collect();
    assert_eq!(shown, shares);
    let task = json(&bench, &["task", "ioi"]);
    for key in ["text", "correct", "counter", "metric", "answers", "right"] {
        assert_eq!(said[key], task["prompts"][2][key], "{key}");
    }
    let explained = all.iter().find(|node| node["feature"].is_string()).unwrap();
    let feature = json(&bench, &["feature", explained["feature"].as_str().unwrap()]);
    assert_eq!(explained["explanation"], feature["explanation"]["text"]);
}
