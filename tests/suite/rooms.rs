//! The rules of the rooms, read off the sources.

use crate::bench::{REPOSITORY, walk};
use circuit_atlas::pipeline::STAGES;
use std::path::Path;

/// The rooms from the nouns up: a room uses only rooms of the lines before its own.
const RANKS: [&[&str]; 15] = [
    &["ids", "error", "process", "vectors"],
    &["text_file"],
    &["config", "progress", "stats", "summary", "artifact", "corpus", "model", "format"],
    &["dictionary", "hub", "lock", "task", "llm"],
    &["circuit", "history"],
    &["inputs"],
    &["atlas"],
    &["site"],
    &["stages"],
    &["pipeline"],
    &["show", "export", "import"],
    &["check"],
    &["cli"],
    &["lib"],
    &["main"],
];

fn rank(room: &str) -> usize {
    RANKS
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("`{room}` is no room"))
}

/// Every source with its room and its text, without its tests.
fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(REPOSITORY).join("src");
    let mut sources = Vec::new();
    walk(&root, &mut |path| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_string();
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap().to_string();
        let room = name.split(['/', '.']).next().unwrap().to_string();
        if !["lib", "main"].contains(&room.as_str()) {
            sources.push((name, room, text));
        }
    });
    sources
}

/// The rooms that a text names with `crate::`.
fn named(text: &str) -> Vec<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = code.flat_map(|line| line.split("crate::").skip(1));
    names
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    for (name, room, text) in sources() {
        for other in named(&text).into_iter().filter(|other| *other != room) {
            assert!(rank(other) < rank(&room), "`{name}` uses `{other}`");
        }
    }
}

#[test]
fn stages_never_call_each_other_and_hold_no_tensors() {
    for (name, _, text) in sources().into_iter().filter(|(_, room, _)| room == "stages") {
        assert!(!text.contains("Tensor") && !text.contains("candle"), "`{name}` uses tensors");
        let own = name.trim_start_matches("stages/").trim_end_matches(".rs");
        for stage in
            STAGES.iter().map(|stage| stage.name).filter(|stage| own != "mod" && own != *stage)
        {
            let names = [format!("super::{stage}"), format!("stages::{stage}")];
            assert!(
                !names.iter().any(|call| text.contains(call)),
                "`{name}` uses the stage `{stage}`"
            );
        }
    }
}

/// `println!` and its kind panic where nobody reads, or the disk is full.
#[test]
fn lines_are_written_by_one_room() {
    for (name, room, text) in sources() {
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for written in ["print!(", "println!(", "io::stdout()", "io::stderr()"] {
            let asks = |rest: &str| rest.starts_with(".is_terminal()");
            let own = code.split(written).skip(1).any(|rest| !asks(rest));
            assert!(!own || room == "process", "`{name}` has `{written}`");
        }
    }
}

/// Mathematics is in `stats` and `circuit`; a stage has counts and shares at most.
#[test]
fn stages_hold_no_mathematics() {
    for (name, _, text) in sources().into_iter().filter(|(_, room, _)| room == "stages") {
        for function in [".sqrt()", ".ln()", ".exp()", ".powi(", ".powf(", ".log2()", ".log10()"] {
            assert!(!text.contains(function), "`{name}` uses `{function}`");
        }
    }
}

/// Names and fixed words of tables are types: only `ids` knows how they are spelled, and names are
/// read from text only where text comes in.
#[test]
fn words_of_tables_are_types() {
    let doors = ["config/validation.rs", "config/mod.rs", "show/names.rs", "dictionary/store.rs"];
    for (name, room, text) in sources().into_iter().filter(|(_, room, _)| room != "ids") {
        for word in ["ok", "failed", "refused", "top", "bottom", "explain", "score", "inactive"] {
            for compared in [format!("== \"{word}\""), format!("!= \"{word}\"")] {
                assert!(!text.contains(&compared), "`{name}` has `{compared}`");
            }
        }
        for kind in ["FeatureId", "Component", "Band", "Half", "Side", "Status", "Slot"] {
            let parsed = text.contains(&format!("parse::<{kind}>"));
            let loads_groups = name == "atlas/load/features.rs" && kind == "FeatureId";
            assert!(
                !parsed || loads_groups || doors.contains(&name.as_str()),
                "`{name}` parses `{kind}`; {room} gets it typed"
            );
        }
    }
}

#[test]
fn each_library_stays_in_its_room() {
    let homes: [(&str, &[&str]); 9] = [
        ("polars::", &["artifact", "corpus"]),
        ("pulp::", &["vectors", "model"]),
        ("candle_", &["model", "dictionary", "circuit"]),
        ("tokenizers::", &["corpus"]),
        ("minijinja::", &["site", "llm"]),
        ("async_openai::", &["llm"]),
        ("tokio::", &["llm"]),
        ("console::", &["show"]),
        ("signal_hook::", &["process"]),
    ];
    for (name, room, text) in sources() {
        for (library, rooms) in homes {
            assert!(
                !text.contains(library) || rooms.contains(&room.as_str()),
                "`{name}` uses `{library}`"
            );
        }
        let network = ["std::net", "TcpStream", "reqwest", "ureq", "hf_hub"];
        assert!(
            ["hub", "llm"].contains(&room.as_str())
                || !network.iter().any(|word| text.contains(word)),
            "`{name}` uses the network"
        );
    }
}
