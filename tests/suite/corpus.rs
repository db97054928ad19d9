//! Contexts against recorded ones, which another implementation cut from the same text.

use crate::bench::{Bench, REPOSITORY, Said};
use crate::fixture::{Context, Fixture, data, in_every_world};
use circuit_atlas::artifact::Store;
use circuit_atlas::artifact::tables::{ContextRow, Document, NodeRow};
use circuit_atlas::corpus::{
    Content, How, Packer, RawDocument, Split, Tokenizer, Window, half, source, windows,
};
use circuit_atlas::error::{Result, report};
use circuit_atlas::ids::Half;
use circuit_atlas::inputs::counting;
use flate2::read::GzDecoder;
use polars::prelude::{Column, DataFrame, ParquetWriter};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

in_every_world!(
    contexts_are_those_of_the_reference,
    end_of_text_written_in_a_document_is_special_and_does_not_count,
    packed_contexts_hold_the_same_text_in_fewer_windows,
);

/// The ids of each document.
fn documents(f: &Fixture, tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let ids = |document: RawDocument| {
        assert_eq!(document.source, "corpus.jsonl");
        let Content::Text(text) = document.content else { panic!("no text") };
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(tokenizer.decode(&ids), text);
        ids
    };
    read(&f.path("corpus.jsonl"), tokenizer).unwrap().into_iter().map(ids).collect()
}

/// The documents of a file.
fn read(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<RawDocument>> {
    let how = How { column: "text", split: Split::Auto, cut: tokenizer.cut() };
    let mut all = Vec::new();
    source::read(&source::shards(vec![path.into()])[0], &how, &mut |document| {
        all.push(document);
        Ok(true)
    })?;
    Ok(all)
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

/// Writes a binary column, in row groups of two.
fn write_bytes(path: &Path, rows: &[&[u8]]) {
    let column = Column::new("text".into(), rows);
    let mut frame = DataFrame::new(rows.len(), vec![column]).unwrap();
    let writer = ParquetWriter::new(File::create(path).unwrap()).with_row_group_size(Some(2));
    writer.finish(&mut frame).unwrap();
}

#[test]
fn parquet_as_pyarrow_writes_it_is_read() {
    let tokenizer = Tokenizer::load(&Path::new(REPOSITORY).join("demo/model"), 2560).unwrap();
    for name in ["dictionary", "binary"] {
        let documents = read(&data(&format!("parquet/{name}.parquet")), &tokenizer).unwrap();
        assert!(documents.len() > 10, "{name}");
        for document in documents {
            let Content::Text(text) = document.content else { panic!("ids in {name}") };
            assert!(text.len() > 100, "{name}: {text}");
        }
    }
    // A row of bytes that are no UTF-8 is named, counted over the row groups of two before it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bytes.parquet");
    let mut rows: [&[u8]; 6] =
        [b"one", "zwölf".as_bytes(), b"", "十".as_bytes(), b"na\xEFve", b"\xFF"];
    write_bytes(&path, &rows);
    let message = report(&read(&path, &tokenizer).unwrap_err());
    let expected = format!(
        "error: `{}` row 4 (the first is 0) is not UTF-8 in `text`\n\
         hint: set `corpus.text` to a column of text, or save it as UTF-8\n",
        path.display()
    );
    assert_eq!(message, expected);
    (rows[4], rows[5]) = ("naïve".as_bytes(), b"end");
    write_bytes(&path, &rows);
    let texts = read(&path, &tokenizer).unwrap().into_iter().map(|document| document.content);
    let expected = ["one", "zwölf", "", "十", "naïve", "end"].map(|t| Content::Text(t.into()));
    assert_eq!(texts.collect::<Vec<_>>(), expected);
    let documents = read(&data("parquet/fixed.parquet"), &tokenizer).unwrap();
    assert!(documents.len() > 10);
    for document in documents {
        let Content::Tokens(ids) = document.content else { panic!("text") };
        assert!(ids.len() > 8 && ids.iter().all(|id| *id < 600), "{ids:?}");
    }
}

#[test]
fn damaged_files_are_errors_that_name_the_file_and_never_panics() {
    let folder = data("damaged");
    let error = report(&Tokenizer::load(&folder, 2560).unwrap_err());
    assert!(error.contains("damaged/tokenizer.json"), "{error}");
    let tokenizer = Tokenizer::load(&Path::new(REPOSITORY).join("demo/model"), 2560).unwrap();
    if let Err(error) = read(&folder.join("corpus.parquet"), &tokenizer) {
        assert!(report(&error).contains("damaged/corpus.parquet` cannot be read"), "{error}");
    }
    let error = report(&Store::new(&folder).read::<NodeRow>().unwrap_err());
    assert!(error.contains("damaged/nodes.parquet"), "{error}");
}

/// Each byte in turn changed: what is read is another text or an error that names the file.
#[test]
fn no_changed_byte_of_a_parquet_file_panics() {
    let tokenizer = Tokenizer::load(&Path::new(REPOSITORY).join("demo/model"), 2560).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.parquet");
    let whole = std::fs::read(data("parquet/dictionary.parquet")).unwrap();
    // The footer and the heads of pages are where sizes and types are.
    let places = (0..whole.len()).filter(|at| at + 700 > whole.len() || at % 101 == 0);
    let mut refused = 0;
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x15;
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = read(&path, &tokenizer) {
            assert!(report(&error).contains("own.parquet"), "{}", report(&error));
            refused += 1;
        }
    }
    assert!(refused > 50, "{refused}");
}

/// A bench whose corpus is a file of its own, tokenised.
fn tokenised(name: &str, content: &str, settings: &str) -> (Bench, Said) {
    let bench = Bench::new()
        .set("[repo]/demo/corpus.jsonl", name)
        .set("max_contexts = 96", &format!("context = 24\n{settings}"));
    let path = bench.file(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    let said = bench.run(&["tokenize"]).succeeded();
    (bench, said)
}

/// Contexts by half.
fn halves(bench: &Bench) -> BTreeMap<Half, usize> {
    let documents = bench.table::<Document>();
    let mut halves = BTreeMap::new();
    for context in bench.table::<ContextRow>() {
        *halves.entry(documents[context.document as usize].half).or_default() += 1;
    }
    halves
}

const STORY: &str = "Then Amy went to the store with John and a very old horse. ";

#[test]
fn a_text_file_is_split_by_the_setting() {
    let text = (1..30).map(|i| STORY.repeat(1 + i % 3)).collect::<Vec<_>>();
    let marked = text.join("\n<|endoftext|>\n");
    let number = |content: &str, settings: &str| {
        let (bench, _) = tokenised("own.txt", content, settings);
        let documents = bench.table::<Document>();
        documents.iter().filter(|document| document.start == 0).count()
    };
    assert_eq!(number(&marked, ""), 29);
    assert_eq!(number(&marked, "split = \"none\""), 1);
    assert_eq!(number(&text.join("\n \n"), ""), 1);
    assert_eq!(number(&text.join("\n \n"), "split = \"blank-lines\""), 29);
}

#[test]
fn one_long_text_fills_both_halves_by_stretches_and_no_context_is_lost() {
    let text: String = (0..300).map(|i| format!("{i} {STORY}")).collect();
    for (pack, most) in [(false, 0), (true, 0), (false, 40)] {
        let settings = format!("pack = {pack}\nmax_contexts = {most}");
        let (bench, said) = tokenised("own.txt", &text, &settings);
        assert!(said.err.contains("1 document, divided into "), "{}", said.err);
        let halves = halves(&bench);
        let [explain, score] = [halves[&Half::Explain], halves[&Half::Score]];
        assert!(explain.min(score) * 4 >= explain.max(score), "{halves:?}");
        let documents = bench.table::<Document>();
        assert!(documents.windows(2).all(|pair| pair[0].half != pair[1].half));
        let ends = documents.iter().map(|document| document.start + document.tokens);
        assert!(ends.zip(&documents[1..]).all(|(end, next)| end == next.start));
        if pack || most > 0 {
            assert!(most == 0 || explain + score == most);
            continue;
        }
        let tokenizer = Tokenizer::load(&Path::new(REPOSITORY).join("demo/model"), 2560).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(documents[0].half, half(&ids));
        let cut = |(start, tokens): (u32, Vec<u32>)| Window { document: 0, start, tokens };
        let mut contexts: Vec<(u32, Vec<u32>)> =
            bench.table::<ContextRow>().into_iter().map(|row| (row.start, row.tokens)).collect();
        contexts.sort();
        let contexts: Vec<Window> = contexts.into_iter().map(cut).collect();
        assert_eq!(contexts, windows(0, &ids, 24, tokenizer.bos()));
    }
}

#[test]
fn a_half_that_is_empty_or_small_is_warned_of() {
    let (bench, said) = tokenised("own.txt", STORY, "");
    let halves = halves(&bench);
    assert_eq!(halves.len(), 1);
    let empty = if halves.contains_key(&Half::Explain) { "score" } else { "explain" };
    let told = format!("warning: no context is in the half `{empty}`, which explanations are ");
    assert!(said.err.contains(&told), "{}", said.err);
    let two = "When Mary and John went there, they had a very big lunch. ".repeat(9);
    let (_, said) = tokenised("own.txt", &two, "");
    let told = "warning: the half `score`, which explanations are scored on, has ";
    assert!(said.err.contains(told), "{}", said.err);
    assert!(said.err.contains(" with contexts: fewer than `evaluate.texts = 20`"), "{}", said.err);
}

#[test]
fn files_of_a_corpus_folder_that_are_not_read_are_named() {
    let line = |text: &str| format!("{}\n", serde_json::json!({ "text": text.repeat(4) }));
    let (bench, _) = tokenised("texts/own.json", &line(STORY).repeat(3), "");
    std::fs::write(bench.file("texts/readme.txt"), "about").unwrap();
    let bench = bench.set("texts/own.json", "texts");
    let said = bench.run(&["tokenize", "--force"]).succeeded();
    let told = "note: files of `texts` that are not read: `readme.txt`";
    assert!(said.err.contains(told), "{}", said.err);
    std::fs::write(bench.file("texts/more.csv"), "text\n").unwrap();
    for said in [bench.call(&["check"]), bench.run(&["tokenize"])] {
        let error = said.failed().error().to_string();
        assert!(error.contains("texts` has files that cannot be read: `more.csv`"), "{error}");
    }
}

#[test]
fn settings_may_begin_with_a_byte_order_mark_and_utf16_is_refused() {
    let (bench, _) = tokenised("own.txt", STORY, "");
    let path = bench.file("pipeline.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
    let said = bench.run(&["tokenize"]).succeeded();
    assert!(said.err.contains("nothing to do"), "{}", said.err);
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(&path, wide).unwrap();
    let error = bench.run(&["tokenize"]).failed().error().to_string();
    assert!(error.contains("pipeline.toml` is UTF-16"), "{error}");
    assert!(error.contains("hint: convert it to UTF-8"), "{error}");
}

#[test]
fn lone_surrogates_are_counted_and_not_a_number_is_passed_over() {
    let story = STORY.repeat(3);
    let lines =
        format!("{{\"text\": \"\\ud83d {story}\", \"loss\": NaN}}\n{{\"text\": \"{story}\"}}\n");
    let (bench, said) = tokenised("own.jsonl", &lines, "");
    assert_eq!(bench.table::<Document>().iter().filter(|row| row.start == 0).count(), 2);
    let told =
        "note: lone surrogates, which are no characters, were read as U+FFFD: 1 in 1 document";
    assert!(said.err.contains(told), "{}", said.err);
}

/// `check` reads what a run reads: prompts that do not fit, prompts that look wrong, how much of the
/// corpus it saw.
#[test]
fn check_tells_of_prompts_and_of_how_much_it_read() {
    let prompt = |text: &str| {
        let line = serde_json::json!({
            "text": text, "correct": " a", "counter": " the", "corrupted": text, "template": text,
        });
        format!("{line}\n")
    };
    let bench =
        Bench::new().add("[[tasks]]\nname = \"mine\"\nkind = \"prompts\"\nfile = \"mine.jsonl\"\n");
    let long = "Mary gave ".repeat(600);
    std::fs::write(bench.file("mine.jsonl"), prompt("Mary gave") + &prompt(&long)).unwrap();
    let error = bench.call(&["check"]).failed().error().to_string();
    let positions = "BOS included, are more than the model's ";
    assert!(error.contains("mine.jsonl` line 2") && error.contains(positions), "{error}");
    let spaced = prompt("Mary gave") + &prompt("Mary gave ");
    std::fs::write(bench.file("mine.jsonl"), spaced).unwrap();
    let said = bench.call(&["check"]).succeeded();
    let warning = "\nwarning    mine: 1 of 2 prompts end in a space";
    assert!(said.out.contains(warning), "{}", said.out);
    assert!(said.out.contains("1 file; only the first "), "{}", said.out);
    let bench = bench.set("[repo]/demo/corpus.jsonl", "own.txt").set("max_contexts = 96", "");
    let text: String = (0..300).map(|i| format!("{i} {STORY}")).collect();
    std::fs::write(bench.file("own.txt"), text).unwrap();
    let said = bench.call(&["check"]);
    assert!(said.out.contains("1 file; all read, 1 document"), "{}{}", said.out, said.err);
    assert!(said.out.contains("fewer than `evaluate.texts = 20`"), "{}", said.out);
}
