//! Contexts against recorded ones, which another implementation cut from the same text.

use crate::bench::Bench;
use crate::fixture::{Context, Fixture, data, in_every_world};
use circuit_atlas::artifact::tables::ContextRow;
use circuit_atlas::corpus::{Content, Packer, Tokenizer, Window, source, windows};
use circuit_atlas::inputs::counting;
use flate2::read::GzDecoder;
use serde::Deserialize;
use std::fs::File;

in_every_world!(
    contexts_are_those_of_the_reference,
    end_of_text_written_in_a_document_is_special_and_does_not_count,
    packed_contexts_hold_the_same_text_in_fewer_windows,
);

/// The ids of each document.
fn documents(f: &Fixture, tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let files = source::files(&f.path("corpus.jsonl")).unwrap();
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

fn recorded(f: &Fixture) -> Vec<Window> {
    let window =
        |c: &Context| Window { document: c.document, start: c.start, tokens: c.tokens.clone() };
    f.expected.contexts.iter().map(window).collect()
}

fn contexts_are_those_of_the_reference(f: &'static Fixture) {
    let tokenizer = f.tokenizer();
    let documents = documents(f, &tokenizer);
    assert_eq!(documents.len(), 60);
    assert!(documents.iter().any(Vec::is_empty), "an empty document counts");
    let cut = |(i, ids): (usize, &Vec<u32>)| {
        windows(i as u32, ids, f.expected.settings.context, tokenizer.bos())
    };
    let contexts: Vec<Window> = documents.iter().enumerate().flat_map(cut).collect();
    assert_eq!(contexts, recorded(f));
    assert_eq!(windows::SHORTEST, f.expected.settings.min_tail);
}

/// BOS, and a literal `<|endoftext|>` of a text, are no tokens of any statistic.
fn end_of_text_written_in_a_document_is_special_and_does_not_count(f: &'static Fixture) {
    let tokenizer = f.tokenizer();
    let written =
        |ids: &Vec<u32>| ids.iter().filter(|id| **id == f.expected.special_token_id).count();
    assert!(documents(f, &tokenizer).iter().any(|ids| written(ids) > 0), "no document has it");
    let rows = f.expected.contexts.iter().enumerate().map(|(i, c)| ContextRow {
        context: i as u32,
        document: c.document,
        start: c.start,
        tokens: c.tokens.clone(),
    });
    let (mut all, mut counted, mut specials) = (0, 0, 0);
    for row in rows {
        all += row.tokens.len();
        counted += counting(&row.tokens, &tokenizer);
        specials += written(&row.tokens);
    }
    assert!(specials > f.expected.contexts.len(), "some are not BOS");
    assert_eq!(counted as usize, all - specials);
    assert!(f.expected.feature_statistics.values().all(|statistics| statistics.tokens == counted));
}

fn packed_contexts_hold_the_same_text_in_fewer_windows(f: &'static Fixture) {
    let tokenizer = f.tokenizer();
    let documents = documents(f, &tokenizer);
    let mut packer = Packer::new(f.expected.settings.context, tokenizer.bos());
    let mut packed: Vec<Window> =
        documents.iter().enumerate().flat_map(|(i, ids)| packer.add(i as u32, ids)).collect();
    assert!(packed.iter().all(|window| window.tokens.len() == f.expected.settings.context));
    packed.extend(packer.finish());
    for window in &packed {
        let ids = &documents[window.document as usize][window.start as usize..];
        let own = ids.len().min(window.tokens.len() - 1);
        assert_eq!(window.tokens[1..=own], ids[..own]);
    }
    assert!(packed.len() < recorded(f).len());
}

/// A document with the ids that Hugging Face's tokenizer in Python gives.
#[derive(Deserialize)]
struct Tokenised {
    text: String,
    ids: Vec<u32>,
}

/// The tokenizer of GPT-2 itself.
fn gpt2() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let mut packed = GzDecoder::new(File::open(data("gpt2/tokenizer.json.gz")).unwrap());
    std::io::copy(&mut packed, &mut File::create(folder.path().join("tokenizer.json")).unwrap())
        .unwrap();
    Tokenizer::load(folder.path(), 50257).unwrap()
}

#[test]
fn real_text_has_the_ids_of_hugging_faces_tokenizer_and_comes_back_from_them() {
    let tokenizer = gpt2();
    let lines = std::fs::read_to_string(data("gpt2/documents.jsonl")).unwrap();
    let documents: Vec<Tokenised> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 39);
    for (i, Tokenised { text, ids }) in documents.iter().enumerate() {
        assert_eq!(tokenizer.encode(text).unwrap(), *ids, "document {i}");
        let pieces = tokenizer.pieces(ids);
        assert_eq!(
            pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(),
            *text,
            "document {i}"
        );
        let covered: Vec<usize> = pieces.into_iter().flat_map(|piece| piece.tokens).collect();
        assert!(covered.into_iter().eq(0..ids.len()), "document {i}: every token is in one piece");
    }
}

#[test]
fn gpt2s_end_of_text_in_a_text_is_its_special_token() {
    let tokenizer = gpt2();
    let ids = tokenizer.encode("one<|endoftext|> two").unwrap();
    assert_eq!(ids, [505, 50256, 734]);
    assert_eq!(
        ids.iter().map(|id| tokenizer.is_special(*id)).collect::<Vec<_>>(),
        [false, true, false]
    );
}

/// Texts that begin or end with end-of-text, as some corpora have them, give the contexts of the
/// bare ones.
#[test]
fn end_of_text_around_documents_changes_no_context() {
    let texts = ["Then Amy went to the store with John and a very old horse.", "Once there was"];
    let contexts = |begin: &str, end: &str, pack: bool| {
        let line = |text: &str| {
            let text = format!("{begin}{}{end}", text.repeat(4));
            format!("{}\n", serde_json::json!({ "text": text }))
        };
        let bench = Bench::new()
            .set("[repo]/demo/corpus.jsonl", "own.jsonl")
            .set("max_contexts = 96", &format!("context = 24\npack = {pack}"));
        std::fs::write(bench.file("own.jsonl"), texts.map(line).concat().repeat(3)).unwrap();
        bench.run(&["tokenize"]).succeeded();
        let rows = bench.table::<ContextRow>();
        rows.into_iter().map(|row| row.tokens).collect::<Vec<_>>()
    };
    const BOS: u32 = 2559;
    let text = "<|endoftext|>";
    for pack in [false, true] {
        let plain = contexts("", "", pack);
        assert!(plain.len() > 5);
        assert!(plain.iter().all(|tokens| tokens[0] == BOS && tokens[1] != BOS));
        assert_eq!(contexts(text, "", pack), plain, "packed: {pack}");
        let ended = contexts(text, text, pack);
        assert!(ended.iter().all(|tokens| tokens.windows(2).all(|pair| pair != [BOS, BOS])));
    }
}
