//! A world that is made wider by copies and by parts that do nothing: its atlas says what the atlas of
//! the world itself says.

use crate::bench::{Bench, widened};
use circuit_atlas::artifact::tables::{
    CircuitFeature, ComponentRow, CorpusPairRow, ExampleRow, FaithfulnessRow, FeatureRow, LogitRow,
    NodeRow, RankingRow, ScoreRow,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// Rounding differs, so that an activation next to its threshold may be there in one world only, or
/// a link next to the smallest that is kept.
const DIFFER: f64 = 0.005;

/// Rows of two atlases by their keys: nearly all are in both, and their values are near.
#[track_caller]
fn same<K: Ord + Debug>(what: &str, worlds: [BTreeMap<K, Vec<f64>>; 2], tolerance: f64) {
    let [own, wide] = worlds;
    assert!(!own.is_empty(), "{what}: nothing to compare");
    let single = own.keys().filter(|key| !wide.contains_key(key)).count()
        + wide.keys().filter(|key| !own.contains_key(key)).count();
    assert!(single as f64 <= DIFFER * own.len() as f64, "{what}: {single} of {}", own.len());
    let near = |a: &f64, b: &f64| (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0);
    let far: Vec<_> = own
        .iter()
        .filter_map(|(key, a)| Some((key, a, wide.get(key)?)))
        .filter(|(_, a, b)| a.len() != b.len() || !a.iter().zip(*b).all(|(a, b)| near(a, b)))
        .collect();
    assert!(far.len() as f64 <= DIFFER * own.len() as f64, "{what}: {far:?}");
}

fn number(value: Option<f64>) -> Vec<f64> {
    value.into_iter().collect()
}

#[test]
fn the_atlas_of_a_widened_world_says_the_same() {
    let folder = tempfile::TempDir::new().unwrap();
    let Some(wide) = widened(folder.path()) else { return };
    let world = || {
        Bench::new().set(
            "method = \"greedy\"\npasses = 2",
            "method = \"gradient\"\nprompts = 24\nchoose = 24\nmost = 60",
        )
    };
    let inputs = ["model", "attention_sae", "transcoder"];
    let own = world();
    let wide = inputs.iter().fold(world(), |bench, name| {
        bench.set(&format!("[repo]/demo/{name}\""), &format!("{}\"", wide.join(name).display()))
    });
    let worlds = [&own, &wide];
    worlds.iter().for_each(|bench| drop(bench.run(&[]).succeeded()));

    let chosen = worlds.map(|bench| {
        let rows = bench.table::<RankingRow>().into_iter().filter(|row| row.chosen);
        rows.map(|row| (row.task, row.feature)).collect::<BTreeSet<_>>()
    });
    assert!(chosen[0].len() > 20 && chosen[0] == chosen[1], "{chosen:?}");
    let serving = worlds.map(|bench| {
        let rows = bench.table::<CircuitFeature>().into_iter();
        rows.map(|row| ((row.task, row.component, row.feature), vec![f64::from(row.prompts)]))
            .collect()
    });
    same("features of circuits", serving, 1e-6);
    let components = worlds.map(|bench| {
        let rows = bench.table::<ComponentRow>().into_iter();
        rows.map(|row| ((row.task, row.component), vec![row.frequency])).collect()
    });
    same("components", components, 1e-6);
    let nodes = worlds.map(|bench| {
        let rows = bench.table::<NodeRow>().into_iter();
        rows.map(|row| {
            let place = (row.layer, row.head, row.feature, row.position);
            ((row.task, row.prompt, row.kind, place), Vec::new())
        })
        .collect()
    });
    same("nodes", nodes, 0.0);
    // Random circuits are drawn of other features, and a share of all features is of more.
    let faithfulness = worlds.map(|bench| {
        let rows = bench.table::<FaithfulnessRow>().into_iter();
        let of_found = |row: &FaithfulnessRow| {
            row.circuit == "found" && !row.variant.contains('%') && row.metric != "area"
        };
        rows.filter(of_found)
            .map(|row| {
                let setting = (row.task, row.stratum, row.level, row.ablation, row.errors);
                ((setting, row.variant, row.metric), number(row.value))
            })
            .collect()
    });
    same("faithfulness", faithfulness, 1e-3);

    let scores = worlds.map(|bench| {
        let rows = bench.table::<ScoreRow>().into_iter();
        rows.map(|row| ((row.feature, row.context, row.position), vec![f64::from(row.activation)]))
            .collect()
    });
    same("scores", scores, 1e-4);
    let features = worlds.map(|bench| {
        let rows = bench.table::<FeatureRow>().into_iter();
        rows.map(|row| (row.feature, vec![row.density, f64::from(row.max)])).collect()
    });
    same("statistics", features, 1e-3);
    let examples = worlds.map(|bench| {
        let rows = bench.table::<ExampleRow>().into_iter();
        rows.map(|row| {
            let key = (row.subject, row.half, row.band, row.rank);
            (key, vec![f64::from(row.context), f64::from(row.peak), f64::from(row.value)])
        })
        .collect()
    });
    same("examples", examples, 1e-3);
    let promoted = worlds.map(|bench| {
        let rows = bench.table::<LogitRow>().into_iter();
        rows.map(|row| {
            ((row.subject, row.side, row.rank), vec![f64::from(row.token), f64::from(row.logit)])
        })
        .collect()
    });
    same("promoted tokens", promoted, 1e-3);
    let together = worlds.map(|bench| {
        let rows = bench.table::<CorpusPairRow>().into_iter();
        rows.map(|row| {
            ((row.feature_a, row.feature_b, row.lag), vec![row.n_ab as f64, row.expected])
        })
        .collect()
    });
    same("co-occurrence", together, 1e-2);
}
