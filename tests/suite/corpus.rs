//! Contexts against recorded ones, which another implementation cut from the same text.

use crate::fixture::{Context, Fixture, in_every_world};
use circuit_atlas::corpus::{Content, Packer, Tokenizer, Window, source, windows};

in_every_world!(contexts_are_those_of_the_reference, packed_contexts_hold_the_same_text_in_fewer_windows,);

/// The ids of each document.
fn documents(f: &Fixture, tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let files = source::files(&f.path("corpus.jsonl")).unwrap();
    let mut documents = Vec::new();
    source::read(&files, "text", &mut |document| {
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

fn recorded(f: &Fixture) -> Vec<Window> {
    let window = |c: &Context| Window { document: c.document, start: c.start, tokens: c.tokens.clone() };
    f.expected.contexts.iter().map(window).collect()
}

fn contexts_are_those_of_the_reference(f: &'static Fixture) {
    let tokenizer = f.tokenizer();
    let documents = documents(f, &tokenizer);
    assert_eq!(documents.len(), 60);
    assert!(documents.iter().any(Vec::is_empty), "an empty document counts");
    let cut =
        |(i, ids): (usize, &Vec<u32>)| windows::windows(i as u32, ids, f.expected.settings.context, tokenizer.bos());
    let contexts: Vec<Window> = documents.iter().enumerate().flat_map(cut).collect();
    assert_eq!(contexts, recorded(f));
    assert_eq!(windows::SHORTEST, f.expected.settings.min_tail);
}

fn packed_contexts_hold_the_same_text_in_fewer_windows(f: &'static Fixture) {
    let tokenizer = f.tokenizer();
    let documents = documents(f, &tokenizer);
    let mut packer = Packer::new(f.expected.settings.context, tokenizer.bos());
    let mut packed: Vec<Window> = documents.iter().enumerate().flat_map(|(i, ids)| packer.add(i as u32, ids)).collect();
    assert!(packed.iter().all(|window| window.tokens.len() == f.expected.settings.context));
    packed.extend(packer.finish());
    for window in &packed {
        let ids = &documents[window.document as usize][window.start as usize..];
        let own = ids.len().min(window.tokens.len() - 1);
        assert_eq!(window.tokens[1..=own], ids[..own]);
    }
    assert!(packed.len() < recorded(f).len());
}
