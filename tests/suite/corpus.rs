//! Contexts against recorded ones, which another implementation cut from the same text.

use crate::fixture::{tiny, tokenizer};
use circuit_atlas::corpus::{Content, Packer, Tokenizer, Window, source, windows};
use serde_json::Value;

/// The ids of each document.
fn documents(tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let files = source::files(&tiny("corpus.jsonl")).unwrap();
    let mut documents = Vec::new();
    source::read(&source::shards(files)[0], "text", &mut |document| {
        assert_eq!(document.source, "corpus.jsonl");
        let Content::Text(text) = document.content else { panic!("no text") };
        let ids = tokenizer.encode(&text)?;
        assert_eq!(tokenizer.decode(&ids), text);
        documents.push(ids);
        Ok(true)
    })
    .unwrap();
    documents
}

fn recorded() -> Vec<Window> {
    let expected: Value = serde_json::from_slice(&std::fs::read(tiny("expected.json")).unwrap()).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as u32;
    let window = |context: &Value| Window {
        document: number(&context["document"]),
        start: number(&context["start"]),
        tokens: context["tokens"].as_array().unwrap().iter().map(number).collect(),
    };
    expected["contexts"].as_array().unwrap().iter().map(window).collect()
}

#[test]
fn contexts_are_those_of_the_reference() {
    let tokenizer = tokenizer();
    let documents = documents(&tokenizer);
    assert_eq!(documents.len(), 60);
    assert!(documents.iter().any(Vec::is_empty), "an empty document counts");
    let cut = |(i, ids): (usize, &Vec<u32>)| windows::windows(i as u32, ids, 32, tokenizer.bos());
    let contexts: Vec<Window> = documents.iter().enumerate().flat_map(cut).collect();
    assert_eq!(contexts, recorded());
}

#[test]
fn packed_contexts_hold_the_same_text_in_fewer_windows() {
    let tokenizer = tokenizer();
    let documents = documents(&tokenizer);
    let mut packer = Packer::new(32, tokenizer.bos());
    let mut packed: Vec<Window> = documents.iter().enumerate().flat_map(|(i, ids)| packer.add(i as u32, ids)).collect();
    assert!(packed.iter().all(|window| window.tokens.len() == 32));
    packed.extend(packer.finish());
    for window in &packed {
        let ids = &documents[window.document as usize][window.start as usize..];
        let own = ids.len().min(window.tokens.len() - 1);
        assert_eq!(window.tokens[1..=own], ids[..own]);
    }
    assert!(packed.len() < recorded().len());
}
