//! The graphs of a whole run: every prompt with a circuit has a page and a file, and the file is
//! what viewers read (`docs/formats.md` §11) and says what the artifacts say.

use crate::bench::Bench;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const TYPES: [&str; 7] = [
    "cross layer transcoder",
    "lorsa",
    "mlp reconstruction error",
    "lorsa error",
    "bias",
    "embedding",
    "logit",
];

/// Every `graphs/NAME.json` of the bench's site, by name.
fn graphs(bench: &Bench) -> BTreeMap<String, Value> {
    let mut graphs = BTreeMap::new();
    for entry in std::fs::read_dir(bench.file("site/graphs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            graphs.insert(name, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap());
        }
    }
    graphs
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` is no text in {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("`{key}` is no list in {value}"))
}

/// The format's rules for one node.
fn check_node(node: &Value, tokens: usize) {
    let (id, layer, kind) =
        (text(node, "node_id"), text(node, "layer"), text(node, "feature_type"));
    let (feature, position) =
        (node["feature"].as_i64().unwrap(), node["ctx_idx"].as_u64().unwrap());
    assert!(TYPES.contains(&kind), "{kind}");
    assert!((position as usize) < tokens, "{node}");
    assert!(!text(node, "jsNodeId").is_empty() && !text(node, "clerp").is_empty());
    assert!(node["activation"].is_null() || node["activation"].is_f64(), "{node}");
    let parts: Vec<&str> = id.split('_').collect();
    match kind {
        "cross layer transcoder" => {
            let [l, f, p]: [i64; 3] = [0, 1, 2].map(|i| parts[i].parse().unwrap());
            assert_eq!(
                (parts.len(), feature, p as u64),
                (3, (l + f) * (l + f + 1) / 2 + f, position)
            );
            assert_eq!(
                (layer.parse(), text(node, "jsNodeId")),
                (Ok(l), format!("{l}_{f}-0").as_str())
            );
        }
        "lorsa" => assert_eq!(
            (parts[0], parts[1], parts[3]),
            (layer, "lorsa", position.to_string().as_str())
        ),
        "embedding" => {
            assert!(layer == "E" && id.starts_with("E_") && id.ends_with(&format!("_{position}")))
        }
        "logit" => {
            assert_eq!(id, format!("{layer}_{feature}_{position}"));
            // Viewers take the probability from there, and stop where it is not.
            assert!(
                text(node, "clerp").contains("(p=") && node["is_target_logit"] == true,
                "{node}"
            );
        }
        _ => assert!(feature == -1 && id.starts_with(&format!("{layer}_")), "{node}"),
    }
}

fn check(name: &str, graph: &Value) {
    let metadata = &graph["metadata"];
    assert_eq!((text(metadata, "slug"), text(metadata, "scan")), (name, "model"));
    assert!(!text(metadata, "prompt").is_empty() && metadata["schema_version"] == 1);
    assert_eq!(graph["qParams"]["linkType"], "both");
    let (tokens, nodes) = (list(metadata, "prompt_tokens"), list(graph, "nodes"));
    assert!(tokens.iter().all(Value::is_string));
    nodes.iter().for_each(|node| check_node(node, tokens.len()));
    let ids: BTreeSet<&str> = nodes.iter().map(|node| text(node, "node_id")).collect();
    assert_eq!(ids.len(), nodes.len(), "{name}: an identifier comes twice");
    let mut ends = BTreeSet::new();
    for link in list(graph, "links") {
        let (source, target) = (text(link, "source"), text(link, "target"));
        assert!(ids.contains(source) && ids.contains(target), "{name}: {link} hangs");
        assert!(link["weight"].as_f64().is_some_and(|w| w != 0.0), "{link}");
        assert!(ends.insert((source, target)), "{name}: {link} comes twice");
    }
    for node in nodes.iter().filter(|node| !node["qk_tracing_results"].is_null()) {
        assert!(text(node, "feature_type").starts_with("lorsa"), "{node}");
        for slot in ["top_q_marginal_contributors", "top_k_marginal_contributors"] {
            let listed = list(&node["qk_tracing_results"], slot);
            assert!(
                listed
                    .iter()
                    .all(|pair| ids.contains(pair[0].as_str().unwrap()) && pair[1].is_f64()),
                "{node}"
            );
        }
    }
}

#[test]
fn the_graphs_of_a_run_are_what_viewers_read() {
    let bench = Bench::finished();
    let graphs = graphs(&bench);
    assert!(graphs.len() >= 6, "only {} graphs", graphs.len());
    for (name, graph) in &graphs {
        check(name, graph);
        assert!(bench.file(&format!("site/graphs/{name}.html")).exists());
    }
    let some = |kind: &str| {
        graphs.values().any(|graph| list(graph, "nodes").iter().any(|n| n["feature_type"] == kind))
    };
    assert!(["cross layer transcoder", "lorsa", "embedding", "logit"].into_iter().all(some));
    assert!(
        graphs
            .values()
            .any(|g| list(g, "nodes").iter().any(|n| !n["qk_tracing_results"].is_null()))
    );
}

/// What enters a head's value is, over everything that is linked there, a part of the head's own
/// effect on what it serves.
#[test]
fn links_over_a_head_have_the_unit_of_its_effect() {
    let bench = Bench::finished()
        .set("passes = 2", "passes = 60\nper_node = 5\ncandidates = 1000\nallow = \
            [\"attention_feature\", \"mlp_feature\", \"head\", \"attention_error\", \"mlp_error\", \"bias\", \"embedding\", \"position_embedding\"]")
        .set("prompts = 4", "prompts = 1");
    bench.run(&[]).succeeded();
    let mut whole = 0;
    for (name, graph) in graphs(&bench) {
        check(&name, &graph);
        for node in list(&graph, "nodes").iter().filter(|node| node["heads"].is_array()) {
            let own: f64 =
                list(node, "heads").iter().map(|head| head["weight"].as_f64().unwrap()).sum();
            let into =
                list(&graph, "links").iter().filter(|link| link["target"] == node["node_id"]);
            let linked: f64 = into.map(|link| link["weight"].as_f64().unwrap()).sum();
            whole += usize::from((own - linked).abs() < 0.02 * own.abs());
        }
    }
    assert!(whole > 0, "no feature whose heads' effects are told whole by the links over them");
}
