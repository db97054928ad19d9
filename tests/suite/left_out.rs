//! Prompts that the model does not do right, and circuits of the right answer held against those of
//! the wrong one, through the whole of `discover`.

use crate::bench::Bench;
use circuit_atlas::artifact::Store;
use circuit_atlas::artifact::tables::{
    CircuitFeature, ComponentRow, EdgeRow, FaithfulnessRow, NodeRow, PromptRow,
};
use insta::assert_snapshot;
use std::collections::{BTreeMap, BTreeSet};

const PEOPLE: [[&str; 2]; 5] = [
    ["Jason", "Michael"],
    ["Sarah", "David"],
    ["Robert", "Lisa"],
    ["Anna", "Thomas"],
    ["James", "Emily"],
];

/// Prompts of one template; `wrong` of them ask for the giver, which no model says.
fn prompts(wrong: usize) -> String {
    let line = |(i, [a, b]): (usize, [&str; 2])| {
        let (correct, counter) = if i < wrong { (b, a) } else { (a, b) };
        let text = format!("When {a} and {b} went to the garden, {b} gave a key to");
        let corrupted = "When Kate and Adam went to the garden, Mark gave a key to";
        format!(
            r#"{{"text": "{text}", "correct": " {correct}", "counter": " {counter}", "corrupted": "{corrupted}", "template": "t"}}"#
        )
    };
    PEOPLE.into_iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn bench(wrong: usize, settings: &str) -> Bench {
    let task = format!("kind = \"prompts\"\nfile = \"mine.jsonl\"\n{settings}");
    let bench = Bench::new().set("kind = \"ioi\"\nprompts = 4", &task);
    std::fs::write(bench.file("mine.jsonl"), prompts(wrong)).unwrap();
    bench
}

fn discovered(bench: &Bench) -> Store {
    bench.run(&["tokenize", "measure", "discover"]).succeeded();
    Store::new(&bench.file("artifacts"))
}

fn own_prompts(store: &Store) -> Vec<PromptRow> {
    store.read::<PromptRow>().unwrap().into_iter().filter(|row| row.task == "ioi").collect()
}

#[test]
fn prompts_that_are_left_out_have_no_circuit_and_count_in_nothing() {
    let bench = bench(2, "wrong = \"leave-out\"");
    bench.run(&["tokenize", "measure", "discover", "verify"]).succeeded();
    let store = Store::new(&bench.file("artifacts"));
    let rows = own_prompts(&store);
    assert_eq!(
        rows.iter().map(|row| (row.right, row.used)).collect::<Vec<_>>()[..2],
        [(false, false); 2]
    );
    assert_eq!(
        rows.iter().map(|row| (row.right, row.used)).collect::<Vec<_>>()[2..],
        [(true, true); 3]
    );
    assert!(
        rows.iter().all(|row| row.right == (row.metric > 0.0) && (row.coverage > 0.0) == row.used)
    );
    let nodes: Vec<NodeRow> =
        store.read::<NodeRow>().unwrap().into_iter().filter(|row| row.task == "ioi").collect();
    let edges: Vec<EdgeRow> =
        store.read::<EdgeRow>().unwrap().into_iter().filter(|row| row.task == "ioi").collect();
    assert_eq!(
        nodes.iter().map(|row| row.prompt).collect::<BTreeSet<_>>(),
        BTreeSet::from([2, 3, 4])
    );
    assert_eq!(
        edges.iter().map(|row| row.prompt).collect::<BTreeSet<_>>(),
        BTreeSet::from([2, 3, 4])
    );
    assert_frequencies(&store, &nodes, 3);
    let used: Vec<f64> = rows.iter().filter(|row| row.used).map(|row| row.metric).collect();
    let full = store
        .read::<FaithfulnessRow>()
        .unwrap()
        .into_iter()
        .filter(|row| row.task == "ioi" && row.metric == "m_full");
    for row in full {
        assert!((row.value.unwrap() - used.iter().sum::<f64>() / 3.0).abs() < 1e-9, "{row:?}");
    }
}

/// Every component's frequency is the share of the prompts with a circuit that it is in.
fn assert_frequencies(store: &Store, nodes: &[NodeRow], used: u32) {
    let mut of: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for node in nodes {
        let component = match (node.kind.word(), node.layer, node.head) {
            ("head", Some(layer), Some(head)) => format!("L{layer}H{head}"),
            ("mlp_feature", Some(layer), _) => format!("MLP{layer}"),
            _ => continue,
        };
        of.entry(component).or_default().insert(node.prompt);
    }
    let components = store.read::<ComponentRow>().unwrap();
    let found: BTreeMap<String, f64> = components
        .into_iter()
        .filter(|row| row.task == "ioi")
        .map(|row| (row.component.to_string(), row.frequency))
        .collect();
    let expected =
        of.iter().map(|(c, prompts)| (c.clone(), prompts.len() as f64 / f64::from(used))).collect();
    assert_eq!(found, expected);
    let features = store.read::<CircuitFeature>().unwrap();
    assert!(features.iter().filter(|row| row.task == "ioi").all(|row| row.prompts <= used));
}

#[test]
fn wrong_prompts_are_kept_unless_told_otherwise() {
    let bench = bench(2, "");
    let rows = own_prompts(&discovered(&bench));
    assert_eq!(
        rows.iter().map(|row| (row.right, row.used)).collect::<Vec<_>>()[..3],
        [(false, true), (false, true), (true, true)]
    );
}

#[test]
fn what_is_left_out_is_said_where_the_task_is_shown() {
    let bench = bench(2, "wrong = \"leave-out\"");
    bench.run(&[]).succeeded();
    let shown = bench.call(&["show", "task", "ioi"]).succeeded().out;
    assert!(shown.contains("3 of 5 prompts right; 2 left out"), "{shown}");
    let page = bench.page("tasks/ioi.html");
    assert!(page.contains("<dt>prompts right; 2 left out</dt><dd>3 of 5</dd>"));
    assert_eq!(page.matches("colspan=\"2\">left out\n").count(), 2);
}

#[test]
fn a_task_of_which_nothing_is_left_is_refused() {
    let said = bench(5, "wrong = \"leave-out\"").run(&["tokenize", "measure", "discover"]).failed();
    assert_snapshot!("all_left_out", said.error());
}

fn contrasts(settings: &str) -> BTreeMap<(String, String), Option<f64>> {
    let bench = Bench::new().set("passes = 2", settings);
    let store = discovered(&bench);
    let rows = store.read::<ComponentRow>().unwrap();
    rows.into_iter().map(|row| ((row.task, row.component.to_string()), row.contrast)).collect()
}

/// The two searches that are held against each other do not depend on what the circuit itself
/// explains.
#[test]
fn the_contrast_is_the_same_whatever_the_circuit_explains() {
    let [difference, logit] = ["passes = 2", "passes = 2\nroot = \"logit\""].map(contrasts);
    let both: Vec<_> =
        difference.iter().filter(|(component, _)| logit.contains_key(component)).collect();
    assert!(both.len() > 4);
    assert!(
        both.iter().all(|(component, contrast)| logit[*component] == **contrast),
        "{difference:?} {logit:?}"
    );
    let values: Vec<f64> = difference.values().map(|contrast| contrast.unwrap()).collect();
    assert!(
        values.iter().all(|by| by.abs() <= 1.0) && values.iter().any(|by| *by != 0.0),
        "{values:?}"
    );
}

#[test]
fn the_contrast_can_be_done_without() {
    let contrasts = contrasts("passes = 2\ncontrast = false");
    assert!(!contrasts.is_empty() && contrasts.values().all(Option::is_none));
}

/// A component that is in a circuit of the right answer more often than that circuit is, is
/// impossible.
#[test]
fn of_the_right_answers_own_circuits_no_contrast_is_above_the_frequency() {
    let bench = Bench::new().set("passes = 2", "passes = 2\nroot = \"logit\"");
    let store = discovered(&bench);
    let rows = store.read::<ComponentRow>().unwrap();
    assert!(rows.iter().all(|row| row.contrast.unwrap() <= row.frequency + 1e-12), "{rows:?}");
}

#[test]
fn circuits_by_influence_run_through_and_tell_what_they_leave_out() {
    let bench = Bench::new().set(
        "method = \"greedy\"\npasses = 2",
        "method = \"influence\"\ncoverage = 0.6\nnodes = 30",
    );
    bench.run(&[]).succeeded();
    let store = Store::new(&bench.file("artifacts"));
    let rows = store.read::<PromptRow>().unwrap();
    assert!(
        rows.iter().all(|row| row.left_out.is_some_and(|share| (0.0..1.0).contains(&share))),
        "{rows:?}"
    );
    let nodes = store.read::<NodeRow>().unwrap();
    for row in &rows {
        let own = nodes.iter().filter(|node| (&node.task, node.prompt) == (&row.task, row.prompt));
        let limited = own
            .filter(|node| {
                node.kind.word().ends_with("_feature") || node.kind.word().ends_with("_error")
            })
            .count();
        assert!(limited > 0 && limited <= 30, "{limited}");
    }
    let shown = bench.call(&["show", "task", "ioi"]).succeeded().out;
    assert!(shown.contains("of the influence is pruned"), "{shown}");
}
